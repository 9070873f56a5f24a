//! What anybody may write: the gates of a rollout, its tickets and waves.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::name::NodeName;
use super::super::rules::Health;
use super::super::rules::rolling::End;
use super::Wanted;
use crate::types::Digest;

/// Which facts a decision rests on: the digest of each member's.
pub type SeenFacts = BTreeMap<NodeName, Digest>;

/// Gate 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub rollout: u64,
    pub proposal: Digest,
    pub decision: PlanDecision,
    pub at: Option<Timestamp>,
    /// When it was put, by its author's clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    pub by: String,
    pub why: String,
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanDecision {
    Commit,
    Abort,
}

/// Gate 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    pub rollout: u64,
    pub plan: Digest,
    pub decision: GoDecision,
    /// When it was put, by its author's clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    pub by: String,
    pub why: String,
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 2 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoDecision {
    /// All switch at the instant of the plan.
    Go,
    Cancel,
}

/// The gate between stop and start, with overlap `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub rollout: u64,
    /// The plan that it belongs to.
    pub plan: Digest,
    pub decision: StartDecision,
    pub by: String,
}

/// What the gate between stop and start says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartDecision {
    Start,
    Back,
}

/// Gate 3; in a rolling rollout, its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub rollout: u64,
    /// What it answers: the plan; in a rolling rollout the proposal.
    pub answers: Digest,
    /// What becomes of the new release.
    pub decision: OutcomeDecision,
    pub at: Option<Timestamp>,
    /// When it was put, by its author's clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    pub by: String,
    pub why: String,
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 3 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeDecision {
    Keep,
    Rollback,
    /// Rolling: its time was over before all had it.
    Partial,
    Halted,
}

impl OutcomeDecision {
    /// The end of a rolling rollout that it means.
    pub fn end(self) -> End {
        match self {
            Self::Keep => End::Keep,
            Self::Partial => End::Partial,
            Self::Halted | Self::Rollback => End::Halted,
        }
    }
}

/// A place in a rolling rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub rollout: u64,
    pub proposal: Digest,
    /// In which row, where there are several.
    #[serde(default, skip_serializing_if = "crate::coord::rules::is_zero")]
    pub row: u32,
    /// The how many'th in it.
    pub ticket: u32,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// It is for going back: the rollout was halted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
    /// When it was taken, by its owner's clock,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// and how long the turn before it took: those who wait look as often as that asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_ms: Option<u64>,
    /// What its owner had seen of those before it in the row, in their order: whoever reads this one need not read those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Before>,
}

/// A ticket as the owner of a later one in the row had seen it: `12 good`, `7 back`, `- waived`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Before {
    /// The place of its owner among the members; nothing: it says nothing.
    pub owner: Option<u32>,
    /// It is for going back.
    pub is_back: bool,
    /// How its owner came back into service; nothing: it had not.
    pub end: Option<Finished>,
}

/// Why nobody waits for the owner of a ticket any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    Reported(Health),
    Waived,
}

impl From<Before> for String {
    fn from(before: Before) -> Self {
        let mut text = before.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string());
        if before.is_back {
            text.push_str(" back");
        }
        match before.end {
            None => {}
            Some(Finished::Reported(health)) => {
                text.push(' ');
                text.push_str(health.word());
            }
            Some(Finished::Waived) => text.push_str(" waived"),
        }
        text
    }
}

impl TryFrom<String> for Before {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} says nothing of a ticket");
        let mut words = text.split(' ').peekable();
        let owner = match words.next() {
            Some("-") => None,
            owner => Some(owner.and_then(|owner| owner.parse().ok()).ok_or_else(bad)?),
        };
        let is_back = words.next_if_eq(&"back").is_some();
        let end = match words.next() {
            None => None,
            Some("waived") => Some(Finished::Waived),
            Some(word) => Some(Finished::Reported(Health::of_word(word).ok_or_else(bad)?)),
        };
        words.next().map_or(Ok(Self { owner, is_back, end }), |_| Err(bad()))
    }
}

/// A member of a rolling rollout cannot take part now: nobody waits for it, until it takes a ticket after all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub rollout: u64,
    pub proposal: Digest,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    pub why: String,
}

/// Whoever holds this ticket, nobody waits for them: an operator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiveTicket {
    pub rollout: u64,
    pub proposal: Digest,
    #[serde(default, skip_serializing_if = "crate::coord::rules::is_zero")]
    pub row: u32,
    pub ticket: u32,
    pub by: String,
    #[serde(default)]
    pub why: String,
}

/// An operator ends a rollout, whatever stands there: nobody begins, and nothing of it counts as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Void {
    pub rollout: u64,
    pub proposal: Digest,
    pub by: String,
    pub why: String,
}

/// The facts of a rollout were removed: this is made before, and tells for ever how it had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub rollout: u64,
    pub proposal: Digest,
    /// How it ended, in a word.
    pub ended: String,
    pub release: Wanted,
    pub by: String,
}

/// A part of the fleet may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    pub rollout: u64,
    pub proposal: Digest,
    /// Its number, from 1: wave 0 is open from the beginning.
    pub wave: u32,
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    pub rollout: u64,
    pub proposal: Digest,
    pub by: String,
    pub why: String,
}
