//! What others must agree to before and after a switch.
//!
//! The driver asks at four places and tells at one; it knows of no fleet, and a fleet knows of no service:
//! ```text
//! Staged      clearance()   may the switch begin, and at which instant
//! Switching   may_start()   between stop and start: may services start on the release that the pointer names
//! Trial       outcome()     after each round of checks: go on watching, keep, or go back
//! a boot      recalled()    before services start: was it decided meanwhile that all go back
//! any         moved()       a phase stands in the journal (which comes first, always)
//! ```
//! What always holds:
//! - The answers to an own failure are answers: in `Trial` the driver passes every wish to go back (a sick check, a
//!   passed deadline, too many resumes) through [`Agreement::outcome`] as [`OwnChecks::Failed`] and does what it says. After its
//!   promise to a fleet a node stays on the new release until it has read the outcome.
//! - An operator's hand asks nobody: `cutover rollback` records `RollingBack` and tells by [`Agreement::moved`] only.
//! - No call takes longer than the time limit of one access to storage, and none needs storage to let a node go back.

use std::time::Duration;

use jiff::Timestamp;

use crate::sys::disk;
use crate::types::record::{Reason, Record};

/// The answer to "may the staged release be switched to?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clearance {
    /// Yes: at this instant (sleep until then, with everything prepared), or now.
    Go {
        /// The instant that was agreed on; absent: now.
        at: Option<Instant>,
        /// After this, by the boot clock, it is too late for a node that was asleep: then it must not switch.
        until: Option<Duration>,
    },
    Wait(Wait),
    /// No, and nothing was changed.
    CalledOff(Reason),
}

impl Clearance {
    pub const NOW: Self = Self::Go { at: None, until: None };
}

/// The answer to "may services start now?", between stop and start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Now,
    /// Others still run the release that goes.
    Wait(Wait),
    /// Go back to the release before: not all of the others stopped in time. Only while switching forward.
    RollBack(Reason),
}

/// The answer to "this is how the trial goes here; what now?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on watching (also when the own checks have passed already, or failed: others are asked).
    Watch(Wait),
    Keep,
    /// Go back, at this instant, or now.
    RollBack {
        /// Why; `Cause::Fleet` when it was not this node's own failure.
        reason: Reason,
        /// The instant at which all go back together; absent or passed: now.
        at: Option<Instant>,
    },
}

/// A moment that a fleet has agreed on, as this node obeys it: by its own boot clock. A step of the wall clock does not
/// move it, and whoever wrote it down cannot make a node sleep for longer than the rollout's own times allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// As it was written down, for people.
    pub wall: Timestamp,
    /// When that is, by the boot clock of this node.
    pub boot: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Ask again after this time at the latest.
    pub within: Duration,
    /// What is waited for, for status and log.
    pub why: String,
}

impl Wait {
    /// Ask again within this time; this is what is waited for.
    pub fn new(within: Duration, why: impl Into<String>) -> Self {
        Self { within, why: why.into() }
    }
}

/// How the trial goes on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnChecks {
    /// The checks have not yet passed for as long as they must.
    Watching,
    /// They have, and still do.
    Healthy,
    /// The new release, or the machine under it, failed here; or its deadline has passed.
    Failed(Reason),
}

/// An agreement that cannot be kept in mind: what must be written down first could not be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's own disk. Storage that is away is never an error but a [`Wait`].
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// Another cutover has changed the node's own record of the fleet meanwhile.
    #[error("another cutover has changed `{path}` meanwhile")]
    Overtaken { path: String },
    /// The node's own record of the fleet is not what it should be.
    #[error("cannot read `{path}`: {why}")]
    Record {
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What the driver asks. See the module for when.
pub trait Agreement {
    /// May the staged release be switched to?
    fn clearance(&mut self, record: &Record) -> Result<Clearance, Error>;

    /// Services are stopped and the pointer has moved: may services start on what it names now?
    ///
    /// In `Switching` with overlap `none` it waits until all members have stopped. In `RollingBack` it waits a bounded
    /// time at most, and never says [`Start::RollBack`].
    fn may_start(&mut self, record: &Record) -> Result<Start, Error>;

    /// How does the trial end? Asked after every round of checks, in `Trial` only.
    fn outcome(&mut self, record: &Record, own: &OwnChecks) -> Result<Verdict, Error>;

    /// A node boots in the middle: is it known, or can storage say at once, that all go back? Then the new release is
    /// not started once more. Never waits for storage longer than a boot may.
    fn recalled(&mut self, record: &Record) -> Result<Option<Reason>, Error>;

    /// Whether this node has promised the fleet to wait for its outcome, so that it may not leave alone.
    fn has_vouched(&self, _record: &Record) -> bool {
        false
    }

    /// The old release could not be brought back to health: this node stays as it is until somebody comes.
    fn gave_up(&mut self, record: &Record, why: &str) {
        let _ = (record, why);
    }

    /// The journal holds `record` with a phase that it had not before. Also called once for the phase that a resumed
    /// update is found in. Whatever goes wrong here is logged and made good later.
    fn moved(&mut self, record: &Record);
}

/// The independent node: asks nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Agreement for Alone {
    fn clearance(&mut self, _: &Record) -> Result<Clearance, Error> {
        Ok(Clearance::NOW)
    }

    fn may_start(&mut self, _: &Record) -> Result<Start, Error> {
        Ok(Start::Now)
    }

    fn outcome(&mut self, _: &Record, own: &OwnChecks) -> Result<Verdict, Error> {
        Ok(match own {
            OwnChecks::Watching => Verdict::Watch(Wait::new(WATCH, "the checks")),
            OwnChecks::Healthy => Verdict::Keep,
            OwnChecks::Failed(reason) => Verdict::RollBack { reason: reason.clone(), at: None },
        })
    }

    fn recalled(&mut self, _: &Record) -> Result<Option<Reason>, Error> {
        Ok(None)
    }

    fn moved(&mut self, _: &Record) {}
}

/// How long a node that asks nobody may go on with its checks before it asks again: the checks' own pace is faster.
const WATCH: Duration = Duration::from_secs(3600);
