//! What an interrupted update needs before the services of a booting node start: a disk that fits together.
//!
//! The rest (the trial of a release that had just been switched to, the look at one that was brought back) needs services
//! that run. It is left to the timer, which is armed to fire when the boot has finished.

use super::driver::{Driver, Ended, Error, RESUMES_MAX};
use super::rollback::Services;
use crate::types::often;
use crate::types::record::{Cause, Event, Phase, Reason, Record};

impl Driver<'_> {
    /// Brings data and pointer in order, and has the timer go on with the rest. Starts and stops nothing.
    pub(super) fn settle_at_boot(&mut self) -> Result<Ended, Error> {
        let mut record = self.record()?;
        if is_worn_out(&record) && !self.agreement.has_vouched(&record) {
            let reason = worn_out(&record, "the trial");
            self.move_on(record, Event::Failed(reason))?;
            record = self.record()?;
        }
        if matches!(record.phase, Phase::Switching | Phase::Trial { .. })
            && let Some(reason) = self.agreement.recalled(&record)?
        {
            self.move_on(record, Event::Failed(reason))?;
            record = self.record()?;
        }
        if matches!(record.phase, Phase::RollingBack { .. }) {
            self.restore_disk(&mut record, Services::NotStarted)?;
            if let Err(reason) = self.application.prepare_boot(&record) {
                self.narrator.remarks(&record, &reason.text);
            }
        }
        let armed = self.application.arm().and_then(|()| self.application.recover_soon());
        if let Err(reason) = armed {
            self.narrator.remarks(&record, &format!("{}; run `cutover recover` after the boot", reason.text));
        }
        Ok(Ended::Waiting(Box::new(record), "the update goes on when the node has booted".into()))
    }
}

/// Whether the node goes down again and again under the new release: then it is not started once more.
fn is_worn_out(record: &Record) -> bool {
    let is_tried = matches!(record.phase, Phase::Switching | Phase::Trial { .. });
    is_tried && record.resumes > RESUMES_MAX && !record.no_rollback
}

/// An interruption too many. A release under which the node goes down again and again has failed; one whose updater was
/// killed has not.
pub(super) fn worn_out(record: &Record, what: &str) -> Reason {
    let cause = if record.boots > RESUMES_MAX { Cause::Interrupted } else { Cause::Killed };
    Reason::new(cause, format!("{what} was interrupted {}", often(u64::from(record.resumes))))
}
