//! What this node has seen the fleet run: storage that has lost it, or torn it, brings nobody back to what ran before.

use super::super::agreement::Error;
use super::Member;
use super::own::Followed;
use crate::coord::facts::names::Decisions;
use crate::coord::facts::{Fact, OutcomeDecision};
use crate::coord::look::{Found, Look, found};
use crate::coord::rollout::{Rollout, WENT_BACK, begun};
use crate::coord::rules::gate::Gate;
use crate::types::Digest;

impl Member<'_> {
    /// Remembers the rollout that says what runs here.
    pub(super) fn note_followed(&mut self, rollout: &Rollout) -> Result<(), Error> {
        let followed = Some(Followed { rollout: rollout.number, proposal: rollout.digest });
        self.kept.change(|own| own.followed = followed)
    }

    /// Whether this node has seen the fleet run something newer than this rollout says; an error where storage has lost that.
    pub(super) fn has_followed_newer(&mut self, number: u64) -> Result<bool, String> {
        let seen = [self.kept.own.followed.clone(), self.last_kept()].into_iter().flatten();
        let newest = seen.max_by_key(|followed| followed.rollout);
        let Some(followed) = newest.filter(|followed| number < followed.rollout) else { return Ok(false) };
        let newer = followed.rollout;
        match self.ensure_is_there(newer, followed.proposal)? {
            // In good order, since a newer one was kept: it is not this node's, and nothing brings it back.
            Some(_) => Ok(true),
            None => {
                Err(format!("rollout {newer}, by which this node runs its release, is not kept: {WENT_BACK}"))
            }
        }
    }

    /// The rollout that this node ended last, if it has read that it was kept.
    fn last_kept(&self) -> Option<Followed> {
        let last = self.kept.own.last.as_ref()?;
        let proposal = Digest::of(last.proposal.as_bytes());
        let name = Decisions { rollout: last.rollout, proposal }.gate(Gate::Outcome.name());
        match found(&name, last.gates.get(Gate::Outcome.name())?, None) {
            Look::Found(Found { fact: Fact::Outcome(said), .. })
                if said.decision == OutcomeDecision::Keep =>
            {
                Some(Followed { rollout: last.rollout, proposal })
            }
            _ => None,
        }
    }

    /// Why one of these proposals, which say nothing, may be what the fleet runs. A name alone is nobody's proposal: a rollout
    /// has a directory of its decisions.
    pub(super) fn torn_of(&mut self, says_nothing: &[(u64, String)]) -> Result<Option<String>, String> {
        if says_nothing.is_empty() {
            return Ok(None);
        }
        let begun = begun(self.board.as_mut())?;
        let torn = says_nothing.iter().find(|(number, _)| begun.contains(number));
        Ok(torn.map(|(number, why)| {
            format!(
                "the proposal of rollout {number} is not valid ({why}), and may be what the fleet runs: `cutover fleet repair` puts \
                 it back on a node that has read it; else `cutover fleet propose` goes on with the next number"
            )
        }))
    }
}
