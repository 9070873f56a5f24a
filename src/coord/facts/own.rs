//! What a node writes of itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::name::NodeName;
use super::super::rules::Health;
use crate::types::record;
use crate::types::{Digest, Version};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub rollout: u64,
    pub proposal: Digest,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    /// Staged, verified, healthy before: or not.
    pub vote: Yes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub running: Option<Version>,
    /// What it has seen of the new release beside that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// What a node has seen of a release before it votes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// It ran beside the old one, and was well.
    Rehearsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Yes {
    Yes,
    No,
}

/// A clock against the storage's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockSeen {
    /// The storage's clock less this node's, in milliseconds.
    pub offset_ms: f64,
    /// How wrong that may be.
    pub error_ms: f64,
}

/// A node holds the instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Armed {
    pub rollout: u64,
    pub plan: Digest,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockSeen>,
}

/// A node has come so far: the file's name says how far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub rollout: u64,
    /// The plan that it follows.
    pub plan: Digest,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    pub at: Timestamp,
    /// How long after the agreed instant.
    pub late_ms: f64,
    /// When its services began to stop. This and the next for people: nothing is decided by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
    /// When its services ran on the new release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

/// How the new release does on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub rollout: u64,
    /// What it answers: the plan; in a rolling rollout the proposal.
    pub answers: Digest,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    pub health: Health,
    /// Since when, by its clock. For people: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What its switch did when. For people, too.
    #[serde(default, skip_serializing_if = "Moments::is_empty")]
    pub moments: Moments,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The kind of reason, unless good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long its service was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
    /// Rolling: how long it had its ticket, where one run of it has seen all of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

/// What a node runs in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub rollout: u64,
    /// What it answers: the proposal.
    pub proposal: Digest,
    pub node: NodeName,
    /// Which machine of this name.
    pub instance: String,
    pub running: Option<Version>,
    /// It runs this by an operator's hand, not by the rollout.
    #[serde(default)]
    pub by_hand: bool,
    /// When it had gone back, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_at: Option<Timestamp>,
    /// How long its service was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
}

/// When a switch did what, by the node's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moments {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switched: Option<Timestamp>,
    /// Services ran on the new release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

impl Moments {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<record::Moments> for Moments {
    fn from(noted: record::Moments) -> Self {
        Self { stopped: noted.stopped, switched: noted.switched, started: noted.started }
    }
}
