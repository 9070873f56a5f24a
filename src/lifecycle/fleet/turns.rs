//! Whose turn it is: of many members a few do what one is enough for, and the others take over where these do nothing.

use super::super::agreement::Error;
use super::Member;
use super::rolling::Next;
use crate::coord::rules::Ms;

/// How many members look at the facts of all others: the rest go by the gates. When these have decided nothing, the next
/// so many take over. So the fleet reads its facts a few times, however large it is.
pub(super) const ON_DUTY: usize = 5;

impl Member<'_> {
    /// Whether it is this node's turn, and time, to read the facts of members.
    pub(super) fn may_scan(&mut self, what: &str, poll: Ms, rank: usize, members: usize) -> bool {
        let now = self.steady();
        let shift = self.decider_step() * ON_DUTY as Ms;
        let waited = self.turns.wanted_for(what, now);
        let groups = members.div_ceil(ON_DUTY).max(1);
        // Where nobody waits for others, all are on duty.
        let is_on_duty = |shifts: Ms| rank / ON_DUTY == usize::try_from(shifts).unwrap_or(0) % groups;
        if !waited.checked_div(shift).is_none_or(is_on_duty) {
            return false;
        }
        let pause = poll * (rank % ON_DUTY) as Ms;
        let is_due = self.scanned.is_none_or(|last| now - last >= pause);
        if is_due {
            self.scanned = Some(now);
        }
        is_due
    }

    /// Takes the steps of a rolling rollout that are due between updates, or as this run's last: nobody is let go first in them,
    /// for whoever would be may have run already.
    pub(super) fn look_in_rolling(&mut self) -> Result<Next, Error> {
        self.looks_in = true;
        let next = self.advance_rolling();
        self.looks_in = false;
        next
    }

    pub(super) fn decider_step(&self) -> Ms {
        Ms::try_from(self.settings.decider_step.0.as_millis()).unwrap_or(0)
    }

    /// Whether those before this node in the order have had their time.
    pub(super) fn is_my_turn(&mut self, what: &str, rank: usize) -> bool {
        if self.looks_in {
            return true;
        }
        let (now, wait) = (self.steady(), self.decider_step() * (rank % ON_DUTY) as Ms);
        self.turns.has_come(what, now, wait)
    }
}
