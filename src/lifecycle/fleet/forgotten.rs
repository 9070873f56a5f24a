//! A node without its record of the fleet: what becomes of an update that was part of a rollout.
//!
//! ```text
//! before the pointer moved     called off: others may count on a word of this node that it does not know
//! after it, and on trial       it goes back
//! going back already           it goes on
//! ```
//! On trial it cannot know whether it has vouched. If not, all others go back, and so must it. If it has, they may keep the
//! release: then it follows them after `cutover fleet join`. Staying would have no such remedy, for without a release that
//! the fleet has kept before there is nothing to follow.

use super::super::agreement::{Agreement, Alone, Clearance, Error, OwnChecks, Start, Verdict};
use crate::types::record::{Cause, Phase, Reason, Record};

/// Asks nobody, and ends whatever belongs to a rollout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgotten;

impl Agreement for Forgotten {
    fn clearance(&mut self, record: &Record) -> Result<Clearance, Error> {
        match forgotten(record) {
            Some(why) => Ok(Clearance::CalledOff(Reason::new(Cause::Machine, why))),
            None => Alone.clearance(record),
        }
    }

    fn may_start(&mut self, record: &Record) -> Result<Start, Error> {
        match forgotten(record).filter(|_| record.phase == Phase::Switching) {
            Some(why) => Ok(Start::RollBack(Reason::new(Cause::Machine, why))),
            None => Alone.may_start(record),
        }
    }

    fn outcome(&mut self, record: &Record, own: &OwnChecks) -> Result<Verdict, Error> {
        match (forgotten(record), own) {
            (Some(why), OwnChecks::Watching | OwnChecks::Healthy) => {
                Ok(Verdict::RollBack { reason: Reason::new(Cause::Machine, why), at: None })
            }
            (_, own) => Alone.outcome(record, own),
        }
    }

    fn recalled(&mut self, record: &Record) -> Result<Option<Reason>, Error> {
        Ok(forgotten(record).map(|why| Reason::new(Cause::Machine, why)))
    }

    fn moved(&mut self, _: &Record) {}
}

/// Why this node cannot go on with a rollout's update.
fn forgotten(record: &Record) -> Option<String> {
    let number = record.rollout?;
    Some(format!(
        "this node has lost its record of rollout {number} (`.cutover/fleet.json`), and with it what it has promised: run \
         `cutover fleet join`"
    ))
}
