//! The loop: reads the journal, does the work of its phase, records the next. Starting, going on and recovering after
//! a crash are this same loop, so work may be done twice, and is never skipped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::deadline;
use super::machine::{self, Illegal};
use super::unanswered::Measuring;
use crate::health;
use crate::lifecycle::agreement::{self, Agreement, Instant};
use crate::lifecycle::application::{Application, Direction, Watch};
use crate::lifecycle::node::Node;
use crate::lifecycle::settings::Settings;
use crate::store::{self, Damage, Kept, Store};
use crate::sys::clock::Clock;
use crate::sys::lock::{Attempt, Holder, Lock};
use crate::types::record::{BootMoment, Cause, Event, Phase, Reason, Record, Stands};
use crate::types::{Version, chain};

/// The longest sleep while something is waited for, so that requests and signals are noticed.
pub(super) const GLANCE: Duration = Duration::from_millis(200);
/// How often the trial, or a switch that a fleet counts on, may be begun again after an interruption.
pub const RESUMES_MAX: u32 = 2;
/// How long to wait for the end when the machine goes down, before looking again.
const GOING_DOWN: Duration = Duration::from_secs(1);
/// How often a step back is tried again when the machine refuses it.
const TRIES_BACK: u32 = 3;

/// Why the loop could not go on. What is recorded stands, and is gone on with by the next run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What the fleet must not forget could not be written down.
    #[error(transparent)]
    Agreement(#[from] agreement::Error),
    /// A mistake in this program.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// Another cutover changes something of this node, and does not come to an end.
    #[error("another cutover is at work on this root")]
    Busy(Option<Holder>),
    /// While the update waited, another command has ended it.
    #[error("the update was called off meanwhile: {0}")]
    Overtaken(String),
    /// Data that must come back do not.
    #[error("the data cannot be brought back: {0}")]
    Data(String),
    /// There is no update under way.
    #[error("no update is under way")]
    NothingToDo,
    /// The journal cannot be believed.
    #[error("the journal `{}` cannot be trusted: {why}", .path.display())]
    Journal {
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: Damage,
    },
}

/// How far the loop came.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The update has ended: its last record.
    Finished(Box<Record>),
    /// The old release could not be brought back to health: both trees are kept, nothing more is tried.
    NeedsPerson(Box<Record>, String),
    /// Another command has ended the update while it waited; how.
    Overtaken(Box<Record>, String),
    /// Somebody wanted to stop waiting (`--no-wait`); the record stands.
    Waiting(Box<Record>, String),
}

/// What one step came to.
pub(super) enum Did {
    Event(Event),
    /// Look again after this time; why.
    Wait(Duration, String),
    /// Going back did not succeed; why.
    GiveUp(String),
}

/// Takes notice of what the loop does, for log and status. Never fails: what cannot be told is not told.
pub trait Narrator {
    /// The journal now holds this record.
    fn moved(&self, record: &Record);
    /// A round of checks of a rehearsal.
    fn rehearsed(&self, record: &Record, trial: &health::Trial);
    fn watched(&self, record: &Record, trial: &health::Trial, own: &agreement::OwnChecks);
    fn waits(&self, record: &Record, why: &str);
    /// Something went wrong that changes nothing, or something worth knowing.
    fn remarks(&self, record: &Record, text: &str);
    /// The run is over: what is remembered may have changed.
    fn ended(&self);
}

/// The trial as this process watches it.
pub(super) struct Watching {
    pub(super) began: Duration,
    pub(super) watch: Box<dyn Watch>,
    pub(super) trial: health::Trial,
    /// What the hooks said that run when the checks have passed; absent: not yet.
    pub(super) hooks: Option<Result<(), Reason>>,
}

/// The lock of the switch, which is held only while something changes: an update that waits holds nothing that another
/// command needs.
pub(super) struct Changing<'a> {
    take: &'a dyn Fn() -> Result<Attempt, store::Error>,
    held: Option<Lock>,
}

impl<'a> Changing<'a> {
    pub(super) fn new(take: &'a dyn Fn() -> Result<Attempt, store::Error>, held: Lock) -> Self {
        Self { take, held: Some(held) }
    }
}

/// What stands in the way of a switch right now.
pub(super) type InTheWay<'a> = dyn Fn(&Record) -> Result<Option<Reason>, store::Error> + 'a;

/// How long a change of somebody else is waited for, with an update that could go on.
const OTHERS_LIMIT: Duration = Duration::from_secs(10 * 60);

pub struct Driver<'a> {
    pub store: &'a Store,
    pub clock: &'a dyn Clock,
    /// Services, checks, hooks and data.
    pub application: &'a dyn Application,
    /// What others must agree to.
    pub agreement: &'a mut dyn Agreement,
    /// The settings that the update was begun with.
    pub settings: &'a Settings,
    pub narrator: &'a dyn Narrator,
    /// Set when somebody wants this run to end (Ctrl-C).
    pub interrupted: &'a AtomicBool,
    /// Whether to wait for others.
    pub may_wait: bool,
    /// The lock, where it is let go of while the update waits; else the caller holds it all along.
    pub(super) changing: Option<Changing<'a>>,
    /// What stands in the way of a switch right now, asked until it has begun.
    pub(super) in_the_way: Option<&'a InTheWay<'a>>,
    /// Whether this process has seen to the timer already.
    pub(super) is_armed: bool,
    /// The trial under way, if this process began to watch it.
    pub(super) watching: Option<Watching>,
    /// How long nobody is answered, since the switch or the way back began.
    pub(super) measuring: Option<Measuring>,
    /// The instant that was agreed on for the switch or the way back.
    pub(super) instant: Option<Instant>,
    /// After which, by the boot clock, the switch must not be made any more.
    pub(super) latest: Option<Duration>,
}

impl<'a> Driver<'a> {
    /// The driver of an update of this node that began with these settings.
    pub(super) fn new(
        node: &Node<'a>,
        settings: &'a Settings,
        application: &'a dyn Application,
        agreement: &'a mut dyn Agreement,
        may_wait: bool,
    ) -> Self {
        Self {
            store: node.store,
            clock: node.clock,
            application,
            agreement,
            settings,
            narrator: node.narrator,
            interrupted: node.interrupted,
            may_wait,
            changing: None,
            in_the_way: None,
            is_armed: false,
            watching: None,
            measuring: None,
            instant: None,
            latest: None,
        }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Goes on with what the journal says until it has ended.
    pub fn run(&mut self) -> Result<Ended, Error> {
        let record = self.record()?;
        self.let_go_while_waiting(&record);
        self.agreement.moved(&record);
        if record.phase.stands() == Stands::Within {
            self.arm_if_possible(&record);
        }
        match self.go_on() {
            Err(Error::Overtaken(why)) => Ok(Ended::Overtaken(Box::new(record), why)),
            Err(error) => {
                self.leave_running(&error);
                Err(error)
            }
            ended => ended,
        }
    }

    /// Sees that the timer runs which looks after this update.
    pub(super) fn ensure_armed(&mut self) -> Result<(), Reason> {
        if !self.is_armed {
            self.application.arm()?;
            self.is_armed = true;
        }
        Ok(())
    }

    /// The same, where the update goes on without the timer, too.
    pub(super) fn arm_if_possible(&mut self, record: &Record) {
        if let Err(reason) = self.ensure_armed() {
            self.narrator.remarks(record, &reason.text);
        }
    }

    /// The disk does not even take the record of what failed: what is recorded is gone on with when it works again.
    fn leave_running(&mut self, error: &Error) {
        let Ok(record) = self.record() else { return };
        if matches!(record.phase, Phase::Switching | Phase::RollingBack { .. }) {
            self.narrator.remarks(&record, &format!("the update stops here: {}", chain(error)));
            self.leave_whole_running(&record);
        }
    }

    fn go_on(&mut self) -> Result<Ended, Error> {
        let mut ours = self.record()?;
        loop {
            let mut record = match self.record() {
                // Whoever has moved it on meanwhile ends it, too.
                Ok(record) if self.is_waiting() && record.phase != ours.phase => {
                    return Err(self.overtaken(&record));
                }
                Ok(record) if record.transaction == ours.transaction => record,
                Ok(_) | Err(Error::NothingToDo) if self.is_waiting() => return Err(self.overtaken(&ours)),
                Ok(record) => record,
                Err(error) => return Err(error),
            };
            self.let_go_while_waiting(&record);
            let done = self.step(&mut record);
            if self.is_waiting() && !self.is_still(&record) {
                return Err(self.overtaken(&record));
            }
            ours = record.clone();
            match done? {
                None => return self.finish(record),
                Some(did) if self.is_cut_short(&record, &did) => {
                    self.narrator
                        .waits(&record, "the machine goes down; the update goes on when it has booted");
                    self.clock.sleep(GOING_DOWN);
                }
                Some(Did::Event(event)) => self.move_on(record, event)?,
                Some(Did::GiveUp(why)) => return self.give_up(record, why),
                Some(Did::Wait(_, why)) if !self.may_wait && self.must_not_wait(&record) => {
                    return Ok(Ended::Waiting(Box::new(record), why));
                }
                Some(Did::Wait(duration, why)) => {
                    self.narrator.waits(&record, &why);
                    self.pause(&record, duration);
                }
            }
        }
    }

    /// Whether something failed while the machine is going down: that says nothing of a release, old or new.
    fn is_cut_short(&self, record: &Record, did: &Did) -> bool {
        let has_failed = match did {
            Did::Event(Event::Failed(reason) | Event::CalledOff(reason)) => {
                !matches!(reason.kind, Cause::Operator | Cause::Fleet)
            }
            Did::GiveUp(_) => true,
            Did::Event(
                Event::Cleared { .. }
                | Event::Ready
                | Event::Switched { .. }
                | Event::Passed
                | Event::Restored,
            )
            | Did::Wait(..) => false,
        };
        has_failed && record.phase.stands() == Stands::Within && self.application.is_going_down()
    }

    /// Whether the lock of the switch is not held now.
    fn is_waiting(&self) -> bool {
        self.changing.as_ref().is_some_and(|changing| changing.held.is_none())
    }

    fn let_go_while_waiting(&mut self, record: &Record) {
        if let Some(changing) = self.changing.as_mut().filter(|_| record.phase.stands() == Stands::Before) {
            changing.held = None;
        }
    }

    /// Whether the journal says what it said when the update began to wait.
    pub(super) fn is_still(&self, record: &Record) -> bool {
        matches!(
            self.store.journal(),
            Ok(Kept::Whole(now)) if now.transaction == record.transaction && now.phase == record.phase
        )
    }

    fn overtaken(&self, record: &Record) -> Error {
        let history = store::read_history(&self.store.layout.history()).unwrap_or_default();
        let entry = history.into_iter().find(|entry| entry.transaction == record.transaction);
        let why = entry.and_then(|entry| entry.reason).unwrap_or_else(|| "by another command".to_owned());
        Error::Overtaken(format!("release {} is not switched to: {why}", record.to.version))
    }

    /// Takes the lock for a change, once nobody else changes anything; what was waited for must still be so.
    fn take_lock(&mut self, record: &Record) -> Result<(), Error> {
        let begin = self.clock.boot();
        while self.is_waiting() {
            let Some(changing) = &mut self.changing else { return Ok(()) };
            match (changing.take)()? {
                Attempt::Mine(lock) => changing.held = Some(lock),
                Attempt::Theirs(holder) => {
                    if !self.is_still(record) {
                        return Err(self.overtaken(record));
                    }
                    if self.clock.boot().saturating_sub(begin) > OTHERS_LIMIT {
                        return Err(Error::Busy(holder));
                    }
                    self.clock.sleep(GLANCE / 4);
                    continue;
                }
            }
            if !self.is_still(record) {
                return Err(self.overtaken(record));
            }
        }
        Ok(())
    }

    /// Sleeps; not longer than it takes somebody to end the update meanwhile.
    fn pause(&self, record: &Record, duration: Duration) {
        let until = self.clock.boot() + duration;
        loop {
            let left = until.saturating_sub(self.clock.boot());
            if !self.is_waiting() || left <= GLANCE {
                return self.clock.sleep(left);
            }
            self.clock.sleep(GLANCE);
            if self.is_interrupted() || !self.is_still(record) {
                return;
            }
        }
    }

    /// Judges once more, with the lock, what could have been said while the update waited.
    fn judge_again(&self, record: &Record, event: Event) -> Result<Event, Error> {
        match event {
            Event::Cleared { rehearse: false } | Event::Ready => {
                let against = self.in_the_way.map(|ask| ask(record)).transpose()?.flatten();
                Ok(against.map_or(event, Event::CalledOff))
            }
            Event::Cleared { rehearse: true }
            | Event::Switched { .. }
            | Event::Passed
            | Event::Failed(_)
            | Event::CalledOff(_)
            | Event::Restored => Ok(event),
        }
    }

    /// The work of the recorded phase; `None` when it is a last one.
    fn step(&mut self, record: &mut Record) -> Result<Option<Did>, Error> {
        Ok(Some(match record.phase.clone() {
            Phase::Staged => self.await_clearance(record)?,
            Phase::Warming => self.warm(record)?,
            Phase::Switching => self.switch(record)?,
            Phase::Trial { until } => self.watch(record, &until)?,
            Phase::RollingBack { reason } => self.go_back(record, &reason)?,
            Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => return Ok(None),
        }))
    }

    /// Records the phase that the event leads to. The journal comes first; everybody else is told after.
    pub(super) fn move_on(&mut self, mut record: Record, event: Event) -> Result<(), Error> {
        self.take_lock(&record)?;
        let event = self.judge_again(&record, event)?;
        record.phase = machine::next(record.phase, event)?;
        self.renew_deadline(&mut record);
        self.keep(&mut record)?;
        self.watching = None;
        self.narrator.moved(&record);
        self.agreement.moved(&record);
        Ok(())
    }

    /// Each phase has a deadline of its own. The one of the switch is there already: it began with the clearance.
    fn renew_deadline(&self, record: &mut Record) {
        let bound = self.application.bounds(record).of_phase(&record.phase);
        if let Some(within) = bound.filter(|_| record.phase != Phase::Switching) {
            record.deadline = Some(deadline::after(self.clock, self.until_instant() + within));
        }
    }

    /// Writes down what was found while the update waits.
    pub(super) fn note(&mut self, record: &mut Record) -> Result<(), Error> {
        self.take_lock(record)?;
        self.keep(record)?;
        self.let_go_while_waiting(record);
        Ok(())
    }

    /// Writes the record down. A disk that refuses once is asked again: to stop between stop and start helps nobody.
    pub(super) fn keep(&self, record: &mut Record) -> Result<(), Error> {
        record.boot_id = self.clock.boot_id();
        self.keep_unanswered(record);
        let mut kept = self.store.keep_journal(record);
        for _ in 0..TRIES_BACK {
            if kept.is_ok() {
                break;
            }
            kept = self.store.keep_journal(record);
        }
        Ok(kept?)
    }

    /// The record in the journal.
    pub(super) fn record(&self) -> Result<Record, Error> {
        match self.store.journal()? {
            Kept::Whole(record) => Ok(record),
            Kept::Missing => Err(Error::NothingToDo),
            Kept::Damaged(why) => Err(Error::Journal { path: self.store.layout.journal(), why }),
        }
    }

    /// Only a wait before anything was changed may be left to a later run.
    fn must_not_wait(&self, record: &Record) -> bool {
        record.phase.stands() == Stands::Before
    }

    /// Tries the way back some times, then leaves it to a person.
    fn go_back(&mut self, record: &mut Record, reason: &Reason) -> Result<Did, Error> {
        let mut tries = 0;
        loop {
            match self.restore(record, reason) {
                Err(error) if tries < TRIES_BACK => {
                    tries += 1;
                    self.narrator.remarks(record, &format!("going back is tried again: {}", chain(&error)));
                }
                Err(error) => {
                    self.leave_whole_running(record);
                    return Ok(Did::GiveUp(chain(&error)));
                }
                done => return done,
            }
        }
    }

    /// Says from when on processes belong to the release that the pointer names now.
    pub(super) fn note_moved(&self, record: &mut Record, at: Duration) {
        let boot_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let since = Some(BootMoment { boot_id: self.clock.boot_id(), boot_ms });
        record.units.get_or_insert_default().since = since;
    }

    /// The machine refuses to go on, and services are stopped. Where the pointer names a release and the data are of that
    /// one, it is started again: it serves until somebody comes.
    fn leave_whole_running(&self, record: &Record) {
        let Ok(Some(active)) = self.store.active() else { return };
        // Going back, data come back before the pointer does.
        let is_back = record.from.as_ref().is_some_and(|from| from.version == active);
        if !is_back && !self.application.are_data_untouched(record) {
            let text = format!("release {active} is not started: part of its data are those from before it");
            return self.narrator.remarks(record, &text);
        }
        let said = match self.application.start(record, Direction::Back) {
            Ok(mut remarks) => {
                remarks.push(format!("release {active}, which `current` names, is started again"));
                remarks
            }
            Err(reason) => vec![reason.text],
        };
        for text in said {
            self.narrator.remarks(record, &text);
        }
    }

    /// Turns a refusal of the machine into the event that leads back.
    pub(super) fn or_failed<T>(result: Result<T, store::Error>) -> Result<T, Reason> {
        result.map_err(|error| Reason::new(Cause::Machine, chain(&error)))
    }

    /// The tree of a release.
    pub(super) fn tree(&self, version: &Version) -> std::path::PathBuf {
        self.store.layout.tree(version)
    }
}
