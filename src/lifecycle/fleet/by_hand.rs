//! A node that a person has put elsewhere than its fleet: whether it stays there, and what lets it follow again.

use super::super::agreement::Error;
use super::own::Part;
use super::{Member, Own, Stage};
use crate::coord::facts::names::{self, Decisions};
use crate::coord::facts::{Fact, OutcomeDecision};
use crate::coord::look::{Found, Look, found};
use crate::coord::rules::Health;
use crate::coord::rules::gate::Gate;
use crate::coord::rules::rolling::Stage as Place;
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

impl Member<'_> {
    /// Lets a node that went back by hand follow the fleet again.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.kept.change(|own| {
            own.stays_after = None;
            // While its rollout goes on, that stands in its part.
            if let Some(part) = &mut own.part {
                part.by_hand = false;
            }
        })
    }

    /// Why a node that has done its part waits.
    pub(super) fn open_still(&self, part: &Part) -> String {
        let (number, node) = (part.rollout, &self.kept.own.node);
        let waive = format!("`cutover fleet waive {node} {number}` lets the others go on");
        let open = format!("rollout {number} has not ended yet");
        match part.stage {
            Stage::Rolling(
                Place::Done { health: Health::Broken } | Place::Returned { health: Health::Broken },
            ) => {
                format!("{open}, and waits for this node, which could not go back: once it is well, {waive}")
            }
            // Where it was halted, nobody waits for the release.
            Stage::Rolling(Place::Done { health })
                if health != Health::Good && !part.gates.contains_key("halt") =>
            {
                format!("{open}, and this node had its turn and does not run the release: {waive}")
            }
            Stage::Rolling(_) | Stage::Synchronous(_) => open,
        }
    }
}

fn stays(rollout: u64, active: &Version) -> String {
    format!(
        "rolled back by hand in rollout {rollout}: this node stays on release {active} until the next rollout, or until \
         `cutover fleet resume`"
    )
}
