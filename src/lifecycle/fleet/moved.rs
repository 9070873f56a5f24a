//! What the journal says of an update, remembered, and told to the others: here that of a synchronous rollout.

use super::super::agreement::Error;
use super::{Following, Member, STEPS_MAX, word_of};
use crate::coord::rules::Checks;
use crate::coord::rules::synchronous::{Act, Outcome, Stage, Telling};
use crate::types::record::{Cause, Phase, Reason, Record};

/// Who goes back by hand waits no longer than this for storage; the next run makes up for it.
const BY_HAND: std::time::Duration = std::time::Duration::from_millis(400);

impl Member<'_> {
    /// Tells the others what the journal says.
    pub(super) fn tell_move(&mut self, record: &Record) -> Result<(), Error> {
        match self.following {
            Some(Following::Synchronous(_)) => self.moved_synchronous(record),
            Some(Following::Rolling(_)) => self.moved_rolling(record),
            None => Ok(()),
        }
    }

    fn moved_synchronous(&mut self, record: &Record) -> Result<(), Error> {
        let Some(stage) = self.stage() else { return Ok(()) };
        match &record.phase {
            Phase::Staged | Phase::Warming | Phase::Switching => Ok(()),
            Phase::Trial { .. } => {
                if let Stage::Arming { at } = stage {
                    self.enter_synchronous(Stage::Switched { at })?;
                    self.change_part(|part| {
                        part.moments = record.moments;
                        part.running = Some(record.to.version.clone());
                        part.downtime_ms = record.downtime_ms;
                    })?;
                    self.tell(Telling::Switched)?;
                }
                Ok(())
            }
            Phase::RollingBack { reason } => self.goes_back(stage, reason),
            Phase::Committed => {
                self.enter_synchronous(Stage::Kept)?;
                self.change_part(|part| part.running = Some(record.to.version.clone()))?;
                self.close()
            }
            Phase::RolledBack { reason } => {
                if reason.kind == Cause::Operator {
                    self.board.hurry(BY_HAND);
                }
                let running = record.from.as_ref().map(|from| from.version.clone());
                let downtime = record.downtime_ms;
                self.change_part(|part| {
                    part.running = running;
                    part.downtime_ms = downtime;
                })?;
                self.see_off()?;
                self.close()
            }
            Phase::Cancelled { reason } => match (stage, reason.kind) {
                // Seen before this node votes: the others need not wait for it.
                (Stage::Idle | Stage::Voting, Cause::Rehearsal) => self.refuse(&reason.text),
                // Another try may do better, and the vote stands.
                (
                    Stage::Idle | Stage::Voting,
                    Cause::NotNow | Cause::Baseline | Cause::Units | Cause::Operator,
                ) => {
                    self.say_not_yet(&reason.text, None);
                    Ok(())
                }
                _ if stage.is_final() => self.close(),
                _ => {
                    let (why, cause) = (reason.text.clone(), word_of(reason.kind));
                    self.change_part(|part| {
                        part.why = Some(why);
                        part.cause = Some(cause);
                    })?;
                    self.enter_synchronous(Stage::Left)?;
                    self.see_off()?;
                    self.close()
                }
            },
        }
    }

    /// The journal says that this node goes back: by the outcome, alone, or by hand after its promise.
    fn goes_back(&mut self, stage: Stage, reason: &Reason) -> Result<(), Error> {
        if stage.is_final() {
            return Ok(());
        }
        let is_decided = matches!(
            self.synchronous().and_then(|follow| follow.view.outcome),
            Some(Outcome::Rollback { .. })
        );
        let (why, cause) = (self.with_trouble(&reason.text), word_of(reason.kind));
        self.change_part(|part| {
            part.cause.get_or_insert(cause);
            part.by_hand = !is_decided && !stage.may_leave();
            part.why.get_or_insert(why);
        })?;
        if is_decided {
            return self.enter_synchronous(Stage::GoneBack);
        }
        // Others are told when the old release serves again.
        self.enter_synchronous(Stage::Left)
    }

    /// A node that leaves because storage did not do what was asked says what that was.
    fn with_trouble(&self, why: &str) -> String {
        match self.storage_trouble() {
            Some(trouble) => format!("{why} ({trouble})"),
            None => why.to_owned(),
        }
    }

    /// Sees that nobody waits for a node that has left. Tried once; the next run tries again.
    pub(super) fn see_off(&mut self) -> Result<(), Error> {
        for _ in 0..STEPS_MAX {
            let Some(stage @ Stage::Left) = self.stage() else { return Ok(()) };
            self.refresh(stage)?;
            match self.next_act(stage, Checks::Watching) {
                Some(Act::Tell(telling)) if self.tell(telling)? => {}
                Some(Act::Decide(decision)) if self.decide(decision, stage, true)? => {}
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}
