//! What operators write: who is in the fleet, what is to run, and without whom.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::name::{CellName, NodeName};
use super::super::rules::{Ms, Times};
use super::super::settings::{Mode, OnHalt, Overlap, WaveSetting};
use super::Bad;
use crate::types::{Digest, Version};

/// The directory of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    pub fleet: String,
    /// Made once, at random: another directory has another one.
    pub id: String,
}

/// Who is in the fleet. The highest valid number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub fleet: String,
    /// The number of this list.
    pub list: u32,
    pub members: Vec<Listed>,
    /// Where the members do not fit: the pages that name them instead, see [`super::super::pages`]. None of them: whoever wrote
    /// this could read those of the list before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<Vec<Digest>>,
    pub by: String,
}

/// A piece of a list of members, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub members: Vec<Listed>,
}

/// A node in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub node: NodeName,
    /// Which machine of this name: see [`Id`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    #[serde(default)]
    pub groups: Vec<String>,
    /// The cell that an operator has put it in; absent: the one that it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellName>,
    /// Its public key, in OpenSSH's form, where nodes sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A node's name is free for another machine: what the one before says counts no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    pub fleet: String,
    pub node: NodeName,
    /// How often it was freed, with this time.
    pub times: u32,
    pub by: String,
    #[serde(default)]
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    pub node: NodeName,
    pub machine: String,
    /// Made once, at random: a second machine of this name has another one.
    pub instance: String,
    /// The groups it asks to be in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its public key, where nodes sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Somebody else writes this node's heartbeat, from this place: one of the two is a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    pub node: NodeName,
    /// Where the other one runs.
    pub place: String,
    /// Where the one runs that has noticed.
    pub seen_from: String,
}

/// The release that a rollout is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    pub name: String,
    pub version: Version,
    /// The digest of its manifest: what counts.
    pub digest: Digest,
}

/// One release for many nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    pub fleet: String,
    /// Its number, also in the file's name.
    pub rollout: u64,
    /// The digest of the proposal before it.
    pub prev: Option<Digest>,
    pub mode: Mode,
    pub release: Wanted,
    /// The list that the members are from.
    pub members_list: u32,
    pub members: Vec<NodeName>,
    /// Where the members do not fit: the pages that say of each what else the following four do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Digest>,
    /// Whether the members sign their facts with the keys that the pages name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
    /// Which machine of each name takes part, where the list says so. Another one has no part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<NodeName, String>,
    /// Their public keys, in OpenSSH's form, where nodes sign their facts: then of all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<NodeName, String>,
    /// The cell of each member, in a rollout of cells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cells: BTreeMap<NodeName, CellName>,
    pub created: Timestamp,
    /// After this nobody takes it up.
    pub expires: Timestamp,
    pub by: String,
    pub not_before: Option<Timestamp>,
    /// Whether old and new may serve at once.
    pub overlap: Overlap,
    /// The times that all hold to.
    pub t: ProposalTimes,
    /// What a rolling rollout holds to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
}

/// What a rolling rollout holds to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// How many may be out of service at once, in one row of tickets. 0 where there are slots: a cutover that does not know
    /// them takes no part then.
    pub at_once: u32,
    /// How many slots are handed on, each in a row of tickets of its own.
    #[serde(default, skip_serializing_if = "crate::coord::rules::is_zero")]
    pub slots: u32,
    pub waves: Vec<WaveSetting>,
    /// How long each wave runs before the next.
    pub soak: Seconds,
    /// So many failures stop it.
    pub max_failed: u32,
    /// What becomes of the nodes that have the new release then.
    #[serde(default)]
    pub on_halt: OnHalt,
}

impl Rolling {
    /// How many may be out of service at once.
    pub fn at_once(&self) -> u32 {
        self.at_once.max(self.slots)
    }

    /// How many rows of tickets there are.
    pub fn rows(&self) -> u32 {
        self.slots.max(1)
    }
}

/// The times of a proposal, in seconds, and the allowed error of clocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposalTimes {
    pub vote: Seconds,
    pub lead: Seconds,
    pub late: Seconds,
    pub stop: Seconds,
    pub trial: Seconds,
    pub settle: Seconds,
    pub back: Seconds,
    pub poll: Seconds,
    pub visibility: Seconds,
    pub skew_ms: u32,
}

impl From<ProposalTimes> for Times {
    fn from(t: ProposalTimes) -> Self {
        Self {
            vote: t.vote.ms(),
            lead: t.lead.ms(),
            late: t.late.ms(),
            stop: t.stop.ms(),
            trial: t.trial.ms(),
            settle: t.settle.ms(),
            back: t.back.ms(),
            poll: t.poll.ms(),
            visibility: t.visibility.ms(),
        }
    }
}

/// A length of time, in JSON a number of seconds; at most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Seconds(u32);

impl Seconds {
    /// From a duration, to the millisecond.
    pub fn new(duration: std::time::Duration) -> Self {
        Self(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
    }

    /// In milliseconds.
    pub fn ms(self) -> Ms {
        Ms::from(self.0)
    }
}

impl TryFrom<f64> for Seconds {
    type Error = Bad;

    fn try_from(seconds: f64) -> Result<Self, Bad> {
        let ms = seconds * 1000.0;
        if !(0.0..=f64::from(u32::MAX)).contains(&ms) {
            return Err(Bad::new("a time is out of range"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        Ok(Self(ms.round() as u32))
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> Self {
        Self::from(seconds.0) / 1000.0
    }
}

/// Go on without this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waive {
    pub rollout: u64,
    pub proposal: Digest,
    pub node: NodeName,
    pub by: String,
    #[serde(default)]
    pub why: String,
}
