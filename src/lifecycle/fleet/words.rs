//! What a member of a synchronous rollout says to people: reasons, and what is waited for.

use super::Member;
use crate::coord::rules::gate::{self, Ended};
use crate::coord::rules::synchronous::{Decision, Go, Outcome, Plan};
use crate::coord::standing::How;
use crate::types::clock_words;

/// What a member is told whom an operator has waived.
pub(super) fn without_this_node(number: u64) -> String {
    format!("rollout {number} goes on without this node, as an operator wants: it follows when that is kept")
}

impl Member<'_> {
    /// The reason of a decision, for people.
    pub(super) fn why(&self, decision: Decision) -> String {
        let Some(follow) = self.synchronous() else { return String::new() };
        let own = self.kept.part().and_then(|part| part.why.clone());
        let counted = follow.view.members.iter().filter(|member| !member.waived).count();
        let missing = |names: Vec<&crate::coord::NodeName>, what: &str| match names.len() {
            0 => None,
            1..=3 => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                Some(format!("{what}: {}", names.join(", ")))
            }
            more => Some(format!("{what}: {} and {} others", names[0], more - 1)),
        };
        match decision {
            Decision::Plan(Plan::Commit { .. }) => format!("{counted} of {counted} are ready"),
            Decision::Go(Go::Go) => format!("{counted} of {counted} are armed"),
            Decision::Outcome(Outcome::Keep) => format!("{counted} of {counted} are healthy"),
            Decision::Plan(Plan::Abort) => follow
                .failure()
                .or_else(|| self.cells.as_ref().and_then(|turns| turns.why.clone()))
                .or_else(|| missing(follow.who(|member| member.vote.is_none()), "no vote in time"))
                .unwrap_or_else(|| "not all voted in time".into()),
            Decision::Go(Go::Cancel) => match self.clock_seen.filter(|seen| self.is_off(*seen)) {
                Some(seen) => {
                    format!("{}: its clock is {}", self.kept.own.node, clock_words(seen.offset_ms))
                }
                None => missing(follow.who(|member| !member.armed), "not armed in time")
                    .unwrap_or_else(|| "too late to go".into()),
            },
            Decision::Outcome(Outcome::Rollback { .. }) => match own {
                Some(why) => format!("{} failed: {why}", self.kept.own.node),
                None => follow
                    .failure()
                    .or_else(|| missing(follow.who(|member| !member.switched), "not switched in time"))
                    .or_else(|| missing(follow.who(|member| member.report.is_none()), "no report in time"))
                    .unwrap_or_else(|| "not all were healthy".into()),
            },
        }
    }

    /// Of whom a negative decision says that they are missing.
    pub(super) fn missing(&self, decision: Decision) -> Vec<crate::coord::NodeName> {
        let Some(follow) = self.synchronous() else { return Vec::new() };
        let who = match decision {
            Decision::Plan(Plan::Abort) => follow.who(|member| member.vote.is_none()),
            Decision::Go(Go::Cancel) => follow.who(|member| !member.armed),
            _ => Vec::new(),
        };
        who.into_iter().cloned().collect()
    }

    /// What the fleet said last, for reasons.
    pub(super) fn said(&self) -> String {
        let Some(follow) = self.synchronous() else { return "the fleet".into() };
        if let Some(said) = self.said_of_turns() {
            return said;
        }
        let number = follow.rollout.number;
        let verb = match gate::ended(&follow.view) {
            Some(how @ (Ended::RolledBack | Ended::Cancelled | Ended::Aborted)) => How::from(how).word(),
            Some(Ended::Kept) | None => match self.storage_trouble() {
                Some(trouble) => return format!("this node left rollout {number}: {trouble}"),
                None if follow.view.mine().waived => return without_this_node(number),
                None => return format!("this node left rollout {number}"),
            },
        };
        format!("rollout {number} was {verb}: {}", follow.why.clone().unwrap_or_default())
    }

    pub(super) fn waits_for(&self) -> String {
        let Some(follow) = self.synchronous() else { return "the fleet".into() };
        if let Some(waits) = self.waits_for_turn() {
            return waits;
        }
        let number = follow.rollout.number;
        match (follow.view.plan, follow.view.go) {
            (None, _) => format!("rollout {number}: the votes of the others"),
            (Some(_), None) => match follow.rollout.begins_after(self.clock.wall()) {
                Some(moment) => format!("rollout {number}: its moment, {moment:.0}"),
                None => format!("rollout {number}: all to be armed"),
            },
            (Some(_), Some(_)) => format!("rollout {number}: its outcome"),
        }
    }
}
