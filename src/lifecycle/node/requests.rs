//! What an operator wants of an update that another process is in the middle of: told through a file that it looks at
//! several times a second. Should it die, whoever asked takes over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Error, Node, WayBack};
use crate::lifecycle::update::driver::Ended;
use crate::store::{Kept, Request};
use crate::sys::lock::Lock;
use crate::types::record::{Phase, Record};
use crate::types::state::HistoryEntry;

/// How often somebody looks whether the other has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long beyond the deadline of its update the other is waited for; where it has none, in all.
const BEYOND: Duration = Duration::from_secs(120);

/// Who has the word now.
pub enum Turn {
    /// Nobody else is in the middle: whoever asked acts by itself.
    Ours {
        lock: Lock,
        /// The update whose cutover was asked, and died before it had ended it.
        asked: Option<String>,
    },
    /// The other has ended its update; how.
    Told(Box<HistoryEntry>),
}

impl Node<'_> {
    /// Keeps the release on trial now: by telling whoever watches it, or by ending the trial that nobody watches.
    pub fn commit(&self) -> Result<Result<Ended, HistoryEntry>, Error> {
        let record = self.on_trial()?;
        let request = |record: &Record| Request { commit: true, ..self.request(record, self.by.clone()) };
        // Whoever takes over finds the wish beside the journal.
        self.store.keep_request(&request(&record))?;
        match self.turn(&request)? {
            Turn::Told(entry) => Ok(Err(*entry)),
            Turn::Ours { lock, .. } => match self.recover(lock)? {
                Some(ended) => Ok(Ok(ended)),
                None => match self.end_of_transaction(&record.transaction)? {
                    Some(entry) => Ok(Err(entry)),
                    None => Err(Error::NoTrial),
                },
            },
        }
    }

    /// Waits for the word, and has whoever is in the middle of an update go back meanwhile.
    pub fn turn_to_go_back(&self, way: &WayBack) -> Result<Turn, Error> {
        self.turn(&|record: &Record| Request {
            no_hold: way.no_hold,
            data: Some(way.data),
            ..self.request(record, way.why())
        })
    }

    fn request(&self, record: &Record, reason: String) -> Request {
        let (transaction, by) = (record.transaction.clone(), Some(self.by.clone()));
        Request { transaction, commit: false, reason, by, no_hold: false, data: None }
    }

    /// Asks whoever is in the middle, until it has ended or is dead.
    fn turn(&self, request: &dyn Fn(&Record) -> Request) -> Result<Turn, Error> {
        let mut asked: Option<String> = None;
        let mut seen: Option<(String, Phase)> = None;
        let mut until = self.clock.boot() + BEYOND;
        loop {
            let lock = self.lock();
            // Read after the lock was tried: with it, nothing changes any more.
            let journal = self.store.journal()?;
            let is_over = |name: &String| !matches!(&journal, Kept::Whole(now) if now.transaction == *name);
            if let Some(name) = asked.as_ref().filter(|name| is_over(name))
                && let Some(entry) = self.end_of_transaction(name)?
            {
                return Ok(Turn::Told(Box::new(entry)));
            }
            let busy = match lock {
                Ok(lock) => return Ok(Turn::Ours { lock, asked }),
                Err(busy @ Error::Busy(_)) => busy,
                Err(error) => return Err(error),
            };
            if let Kept::Whole(record) = journal {
                let now = (record.transaction.clone(), record.phase.clone());
                if seen.as_ref() != Some(&now) {
                    until = self.clock.boot() + self.left(&record) + BEYOND;
                    seen = Some(now);
                }
                if asked.is_none() {
                    self.store.keep_request(&request(&record))?;
                    self.narrator.remarks(&record, "the cutover that is at work here is asked");
                    asked = Some(record.transaction);
                }
            }
            if self.clock.boot() > until || self.interrupted.load(Ordering::Relaxed) {
                return Err(busy);
            }
            self.clock.sleep(LOOK_EVERY);
        }
    }

    /// How long the update may take by what it says itself.
    fn left(&self, record: &Record) -> Duration {
        let until = record.phase.trial_until().or(record.deadline.as_ref());
        until.map_or(Duration::ZERO, |until| {
            until.remaining(&self.clock.boot_id(), self.clock.boot(), self.clock.wall())
        })
    }

    fn on_trial(&self) -> Result<Record, Error> {
        let record = self.under_way()?;
        record.filter(|record| record.phase.trial_until().is_some()).ok_or(Error::NoTrial)
    }

    /// How an update ended, as the history has it.
    fn end_of_transaction(&self, transaction: &str) -> Result<Option<HistoryEntry>, Error> {
        let history = crate::store::newest_history(&self.store.layout.history())?;
        Ok(history.into_iter().find(|entry| entry.transaction == transaction))
    }
}
