//! What a member that vouches has promised: how long it waits in vain for what the others make of it.

use super::super::agreement::Error;
use super::Member;
use crate::coord::rules::synchronous::Stage;
use crate::coord::settings::Isolated;
use crate::types::record::Deadline;

impl Member<'_> {
    /// A node that has promised to wait, cannot ask, and is configured to give up agreement for it.
    pub(super) fn is_isolated(&self, stage: Stage) -> bool {
        // Written down, so that a process that is begun again does not begin to count again.
        let until = self.kept.part().and_then(|part| part.doubts_until.as_ref());
        let has_passed = |until: &Deadline| {
            until.remaining(&self.clock.boot_id(), self.clock.boot(), self.clock.wall()).is_zero()
        };
        self.settings.isolated == Isolated::Rollback
            && self.cut_off.is_some()
            && matches!(stage, Stage::Vouching { .. })
            && until.is_some_and(has_passed)
    }

    /// Writes down since when the outcome is awaited in vain: for status, which does not touch storage.
    pub(super) fn note_doubt(&mut self, stage: Stage) -> Result<(), Error> {
        let is_in_doubt = matches!(stage, Stage::Vouching { .. }) && self.trouble.is_some();
        let noted = self.kept.part().and_then(|part| part.in_doubt_since);
        if is_in_doubt == noted.is_some() {
            return Ok(());
        }
        let since = is_in_doubt.then(|| self.clock.wall());
        let until = is_in_doubt.then(|| self.deadline(self.settings.isolated_after.0));
        self.change_part(|part| {
            part.in_doubt_since = since;
            part.doubts_until = until;
        })
    }
}
