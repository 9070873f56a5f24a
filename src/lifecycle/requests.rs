//! What an operator wants of a trial that another process watches: told through a file that the watcher looks at.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::driver::Ended;
use super::node::{Error, Node, Parts};
use crate::store::{Kept, Request};
use crate::types::record::{Phase, Record};

impl Node<'_> {
    /// Keeps the release on trial now: by telling whoever watches it, or by ending the trial that nobody watches.
    /// `Ok(None)`: somebody else was told, and `await_end` says what came of it.
    pub fn commit(&self, parts: &dyn Parts) -> Result<Option<Ended>, Error> {
        let record = self.on_trial()?;
        let request =
            Request { transaction: record.transaction.clone(), commit: true, reason: self.by.clone() };
        self.store.keep_request(&request)?;
        match self.lock() {
            Err(Error::Busy(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(lock) => self.recover(&lock, parts),
        }
    }

    /// Tells whoever watches the trial to go back.
    pub fn ask_to_go_back(&self, reason: &str) -> Result<Record, Error> {
        let record = self.on_trial()?;
        let request =
            Request { transaction: record.transaction.clone(), commit: false, reason: reason.to_owned() };
        self.store.keep_request(&request)?;
        Ok(record)
    }

    fn on_trial(&self) -> Result<Record, Error> {
        let record = self.under_way()?;
        record.filter(|record| matches!(record.phase, Phase::Trial { .. })).ok_or(Error::NoTrial)
    }

    /// Waits until somebody else's update has ended, and says how.
    pub fn await_end(&self, transaction: &str) -> Result<crate::types::state::HistoryEntry, Error> {
        const PAUSE: Duration = Duration::from_millis(100);
        loop {
            let history = crate::store::read_history(&self.store.layout.history())?;
            if let Some(entry) = history.into_iter().find(|entry| entry.transaction == transaction) {
                return Ok(entry);
            }
            let is_under_way =
                matches!(self.store.journal()?, Kept::Whole(record) if record.transaction == transaction);
            if !is_under_way || self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::NoTrial);
            }
            self.clock.sleep(PAUSE);
        }
    }
}
