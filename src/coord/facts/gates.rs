//! What anybody may write: the gates of a rollout, its tickets and waves.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::name::NodeName;
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
    pub ticket: u32,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// It is for going back: the rollout was halted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
    /// The tickets before it whose owners it did not see finished: with its own at most so many as may be out at once.
    /// What is in no such list any more is finished for ever.
    #[serde(default)]
    pub open: Vec<u32>,
    /// How many of those that had finished then had failed.
    #[serde(default)]
    pub failed: u32,
    /// How many of those that had finished then were good, by wave.
    #[serde(default)]
    pub good: Vec<u32>,
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
