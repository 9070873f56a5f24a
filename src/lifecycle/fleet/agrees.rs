//! What an update asks of its fleet: each question goes to the rules of the rollout under way.

use super::super::agreement::{Agreement, Alone, Clearance, Error, OwnChecks, Start, Verdict, Wait};
use super::{Following, Forgotten, Member, Taken, logged};
use crate::types::record::{Cause, Phase, Reason, Record, Stands};

impl Agreement for Member<'_> {
    fn clearance(&mut self, record: &Record) -> Result<Clearance, Error> {
        if !self.is_mine(record) {
            return Forgotten.clearance(record);
        }
        self.follow()?;
        let is_resumed = matches!(record.phase, Phase::Switching);
        let is_rolling = matches!(self.following, Some(Following::Rolling(_)));
        // Who holds an instant goes by what it has read, also without the storage, unless it may be a copy.
        let holds_instant = is_resumed && !is_rolling;
        if (is_resumed || matches!(record.phase, Phase::Staged))
            && let Some(taken) = self.identify()?
            && !(holds_instant && matches!(taken, Taken::Unreachable(_)) && !self.may_be_copy())
        {
            return Ok(match taken {
                Taken::Stranger(why) => Clearance::CalledOff(Reason::new(Cause::NotNow, why)),
                Taken::Unreachable(why) => {
                    Clearance::Wait(Wait::new(self.poll(), format!("shared storage: {why}")))
                }
                _ => Clearance::Wait(Wait::new(self.poll(), "another machine of this name to stay silent")),
            });
        }
        match self.following {
            Some(Following::Synchronous(_)) => self.clearance_synchronous(record),
            Some(Following::Rolling(_)) if is_resumed => self.clearance_resumed(),
            Some(Following::Rolling(_)) => self.clearance_rolling(),
            None => Ok(Clearance::NOW),
        }
    }

    fn may_start(&mut self, record: &Record) -> Result<Start, Error> {
        if !self.is_mine(record) {
            return Forgotten.may_start(record);
        }
        self.follow()?;
        match self.following {
            Some(Following::Synchronous(_)) => self.may_start_synchronous(record),
            Some(Following::Rolling(_)) | None => Ok(Start::Now),
        }
    }

    fn has_vouched(&self, record: &Record) -> bool {
        self.is_mine(record)
            && matches!(self.stage(), Some(crate::coord::rules::synchronous::Stage::Vouching { .. }))
    }

    fn outcome(&mut self, record: &Record, own: &OwnChecks) -> Result<Verdict, Error> {
        if !self.is_mine(record) {
            return Forgotten.outcome(record, own);
        }
        self.follow()?;
        match self.following {
            Some(Following::Synchronous(_)) => self.outcome_synchronous(own),
            Some(Following::Rolling(_)) => {
                // It goes by its own checks alone; a copy that is switched on meanwhile must see that it is at work, and whoever
                // waits that its place is taken.
                self.beat();
                self.hold_place();
                Alone.outcome(record, own)
            }
            None => Alone.outcome(record, own),
        }
    }

    fn recalled(&mut self, record: &Record) -> Result<Option<Reason>, Error> {
        if !self.is_mine(record) {
            return Forgotten.recalled(record);
        }
        self.follow()?;
        Ok(match self.following {
            Some(Following::Synchronous(_)) => self.recalled_synchronous(),
            Some(Following::Rolling(_)) | None => None,
        })
    }

    fn gave_up(&mut self, record: &Record, why: &str) {
        if !self.is_mine(record) {
            return;
        }
        let told = self.follow().and_then(|()| match self.following {
            Some(Following::Synchronous(_)) => self.see_off(),
            Some(Following::Rolling(_)) => self.gave_up_rolling(why),
            None => Ok(()),
        });
        logged("tell the fleet", told);
    }

    fn moved(&mut self, record: &Record) {
        self.note_what_runs(record);
        if self.is_mine(record) {
            let told = self.follow().and_then(|()| self.tell_move(record));
            logged("tell the fleet", told);
        }
        if record.phase.stands() == Stands::After {
            self.show_what_runs(record);
        }
    }
}
