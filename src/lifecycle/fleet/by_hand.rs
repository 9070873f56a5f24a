//! A node that a person has put elsewhere than its fleet: whether it stays there, and what lets it follow again.

use super::Own;
use crate::coord::facts::names::{self, Decisions};
use crate::coord::facts::{Fact, OutcomeDecision};
use crate::coord::look::{Found, Look, found};
use crate::coord::rules::gate::Gate;
use crate::types::{Digest, Version};

impl Own {
    /// Whether a person went back in the rollout under way, or in the one that this node ended last.
    pub fn was_put_by_hand(&self) -> bool {
        let last = self.last.as_ref().map(|last| last.rollout);
        match &self.part {
            Some(part) => part.by_hand,
            None => self.stays_after.is_some() && self.stays_after == last,
        }
    }

    /// Why this node, which runs `active`, does not follow its fleet, where a person has put it there. By what it remembers:
    /// no storage is asked.
    pub fn stays_by_hand(&self, active: &Version) -> Option<String> {
        if !self.was_put_by_hand() {
            return None;
        }
        if let Some(part) = self.part.as_ref().filter(|part| part.release.version != *active) {
            return Some(stays(part.rollout, active));
        }
        let last = self.last.as_ref()?;
        let release = match found(&names::proposal(last.rollout), &last.proposal, None) {
            Look::Found(Found { fact: Fact::Proposal(proposal), .. }) => proposal.release.version,
            _ => return None,
        };
        let proposal = Digest::of(last.proposal.as_bytes());
        let gate = Gate::Outcome.name();
        let name = Decisions { rollout: last.rollout, proposal }.gate(gate);
        let is_kept = matches!(
            found(&name, last.gates.get(gate)?, None),
            Look::Found(Found { fact: Fact::Outcome(said), .. }) if said.decision == OutcomeDecision::Keep
        );
        (is_kept && release != *active).then(|| stays(last.rollout, active))
    }
}

fn stays(rollout: u64, active: &Version) -> String {
    format!(
        "rolled back by hand in rollout {rollout}: this node stays on release {active} until the next rollout, or until \
         `cutover fleet resume`"
    )
}
