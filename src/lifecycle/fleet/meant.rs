//! Whom a rollout that has ended is for.

use std::collections::BTreeSet;

use super::Member;
use crate::coord::NodeName;
use crate::coord::facts::{self, Fact, OutcomeDecision, names};
use crate::coord::heard::Heard;
use crate::coord::lists::list;
use crate::coord::look::{Found, Look, found, look};
use crate::coord::rollout::Rollout;
use crate::coord::rules::Health;
use crate::coord::rules::gate::Gate;
use crate::coord::rules::synchronous::Outcome;
use crate::coord::settings::Mode;
use crate::coord::standing::{Ended, How, Standing};
use crate::coord::synchronous::Synchronous;

/// Whom a kept rollout is for.
pub(super) enum Meant {
    ForMe,
    ForOthers,
    /// This node is in no list.
    Unlisted,
}

impl Member<'_> {
    /// Whom a rollout that has ended is for. One that was kept: its members, also those that were away, and who was listed
    /// later, in a fleet that had moved as a whole. Of one that ended half way: whoever has it, and keeps it. `now`: the list of
    /// members that counts.
    pub(super) fn is_meant(
        &mut self,
        rollout: &Rollout,
        how: How,
        now: Option<&facts::Members>,
    ) -> Result<Meant, String> {
        let node = self.node();
        match how {
            // A cell that was left out moves as a whole, in another rollout, and not node by node.
            How::Kept if rollout.proposal.cells.contains_key(&node) => return self.keeps_part_of(rollout),
            How::Kept => {}
            How::Partial | How::Halted => return self.keeps_part_of(rollout),
            // As above: nobody takes others out of service by ending it.
            How::Void if rollout.proposal.mode.takes_turns() => return self.keeps_part_of(rollout),
            How::Aborted | How::Cancelled | How::RolledBack | How::Void => return Ok(Meant::ForOthers),
        }
        let instance = self.instance();
        if rollout.place_of(&node).is_some() && rollout.is_of(&node, &instance) {
            return Ok(Meant::ForMe);
        }
        let (trust, fleet) = (self.trust(), self.kept.own.fleet.clone());
        // Another machine that goes by a member's name is not in the list until an operator has put it there.
        let is_mine = |entry: &facts::Listed| {
            entry.node == node && (entry.instance.is_empty() || entry.instance == instance)
        };
        let is_listed = |list: &[facts::Listed]| list.iter().any(is_mine);
        let Some(now) = now else { return Ok(Meant::ForOthers) };
        if !is_listed(&now.members) {
            return Ok(Meant::Unlisted);
        }
        let then = match list(self.board.as_mut(), rollout.proposal.members_list, &fleet, trust) {
            Look::Found(then) => then.members,
            Look::Unreachable(why) => return Err(why),
            Look::Absent | Look::Bad(_) => return Ok(Meant::ForOthers),
        };
        let had: BTreeSet<&NodeName> = rollout.proposal.members.iter().collect();
        let was_whole = then.iter().all(|entry| had.contains(&entry.node));
        Ok(if was_whole && !is_listed(&then) { Meant::ForMe } else { Meant::ForOthers })
    }

    /// How a rollout that was halted stands, where this node has seen its end. Then all that it undoes is undone, and nobody has to
    /// ask each member for that again. Not where storage shows that this node has yet to go back: it may have lost its word.
    pub(super) fn seen_halted(&mut self, rollout: &Rollout) -> Result<Option<Standing>, String> {
        let outcome = Gate::Outcome.name();
        let last = self.kept.own.last.as_ref().filter(|last| last.rollout == rollout.number);
        let Some(text) = last.and_then(|last| last.gates.get(outcome)) else { return Ok(None) };
        let why = match found(&rollout.decisions().gate(outcome), text, None) {
            Look::Found(Found { fact: Fact::Outcome(said), .. })
                if said.answers == rollout.digest && said.decision == OutcomeDecision::Halted =>
            {
                said.why
            }
            _ => return Ok(None),
        };
        Ok(match self.keeps_part_of(rollout)? {
            Meant::ForMe => None,
            Meant::ForOthers | Meant::Unlisted => Some(Standing::Ended(Ended { how: How::Halted, why })),
        })
    }

    /// What a rolling rollout reached before it was stopped stays, where a halt undoes nothing.
    fn keeps_part_of(&mut self, rollout: &Rollout) -> Result<Meant, String> {
        let node = self.node();
        if rollout.proposal.mode == Mode::Cells {
            return self.keeps_part_of_cell(rollout);
        }
        let said = |what| names::own(&node, rollout.number, what);
        let is_good = |looked: Look<Found>| match looked {
            Look::Found(Found { fact: Fact::Report(said), .. }) => {
                Ok(said.answers == rollout.digest && said.health == Health::Good)
            }
            Look::Found(_) | Look::Absent | Look::Bad(_) => Ok(false),
            Look::Unreachable(why) => Err(why),
        };
        let has_it = is_good(look(self.board.as_mut(), &said("report")))?;
        let went_back = has_it && is_good(look(self.board.as_mut(), &said("returned")))?;
        Ok(if has_it && !went_back { Meant::ForMe } else { Meant::ForOthers })
    }

    /// What a cell has kept stays, whatever became of the others.
    fn keeps_part_of_cell(&mut self, rollout: &Rollout) -> Result<Meant, String> {
        let (node, voice) = (self.node(), self.voice());
        if !rollout.is_of(&node, &self.instance()) {
            return Ok(Meant::ForOthers);
        }
        let part = rollout.clone().of_node(&node);
        if part.cell.is_none() {
            return Ok(Meant::ForOthers);
        }
        let mut follow = Synchronous::new(part, usize::MAX, voice);
        if let Heard::Away(why) = follow.read_gates(self.board.as_mut()) {
            return Err(why);
        }
        Ok(if follow.view.outcome == Some(Outcome::Keep) { Meant::ForMe } else { Meant::ForOthers })
    }
}
