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
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// All switch, or nobody.
    pub decision: PlanDecision,
    /// When.
    pub at: Option<Timestamp>,
    /// When it was put, by its author's clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    /// Who put it.
    pub by: String,
    /// Why.
    pub why: String,
    /// On what it rests.
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanDecision {
    /// All switch.
    Commit,
    /// Nobody.
    Abort,
}

/// Gate 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub plan: Digest,
    /// All switch, or nobody.
    pub decision: GoDecision,
    /// When it was put, by its author's clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    /// Who put it.
    pub by: String,
    /// Why.
    pub why: String,
    /// On what it rests.
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 2 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoDecision {
    /// All switch at the instant of the plan.
    Go,
    /// Nobody.
    Cancel,
}

/// The gate between stop and start, with overlap `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Of this rollout.
    pub rollout: u64,
    /// The plan that it belongs to.
    pub plan: Digest,
    /// All start, or none.
    pub decision: StartDecision,
    /// Who put it.
    pub by: String,
}

/// What the gate between stop and start says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartDecision {
    /// All have stopped.
    Start,
    /// Not all have.
    Back,
}

/// Gate 3; in a rolling rollout, its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers: the plan; in a rolling rollout the proposal.
    pub answers: Digest,
    /// What becomes of the new release.
    pub decision: OutcomeDecision,
    /// When all go back.
    pub at: Option<Timestamp>,
    /// When it was put, by its author's clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    /// Who put it.
    pub by: String,
    /// Why.
    pub why: String,
    /// On what it rests.
    #[serde(default)]
    pub seen: SeenFacts,
}

/// What gate 3 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeDecision {
    /// It stays.
    Keep,
    /// All go back.
    Rollback,
    /// Rolling: its time was over before all had it.
    Partial,
    /// Rolling: stopped.
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
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Its number.
    pub ticket: u32,
    /// Whose it is.
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
    /// In this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Who.
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// Why.
    pub why: String,
}

/// Whoever holds this ticket, nobody waits for them: an operator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiveTicket {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Its number.
    pub ticket: u32,
    /// Who said so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// An operator ends a rollout, whatever stands there: nobody begins, and nothing of it counts as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Void {
    /// This rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Who said so.
    pub by: String,
    /// Why.
    pub why: String,
}

/// The facts of a rollout were removed: this is made before, and tells for ever how it had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// This rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// How it ended, in a word.
    pub ended: String,
    /// What it was about.
    pub release: Wanted,
    /// Who removed them.
    pub by: String,
}

/// A part of the fleet may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Its number, from 1: wave 0 is open from the beginning.
    pub wave: u32,
    /// Who opened it.
    pub by: String,
}

/// No further ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Of this rollout.
    pub rollout: u64,
    /// What it answers.
    pub proposal: Digest,
    /// Who stopped it.
    pub by: String,
    /// Why.
    pub why: String,
}
