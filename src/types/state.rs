//! What a node remembers between updates, and what it tells of the past.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Digest, ReleaseId, Version};

/// Everything that outlives an update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The release committed last: what the node is meant to run.
    pub committed: Option<Installed>,
    /// The release committed before it: where a rollback goes.
    pub previous: Option<Installed>,
    /// Releases committed before that one, newest first: where further rollbacks go.
    pub earlier: Vec<Installed>,
    /// No automatic switch while it lasts.
    pub hold: Option<Hold>,
    /// Releases that are never pruned.
    pub pins: Vec<Version>,
    /// Releases that are never switched to.
    pub bad: Vec<Bad>,
    /// Highest serial and digest accepted, for each channel and set of channel keys.
    pub channels: BTreeMap<String, SeenChannel>,
    /// The release that serves was not healthy when the last update was to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Obstacle>,
    /// The application's units could not be stopped and started when the last update was to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<Obstacle>,
    /// The release that the last updates did not end with, for no fault of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setback: Option<Setback>,
    /// A state that only a person can end.
    pub needs_person: Option<NeedsPerson>,
}

impl State {
    /// Where a rollback from the active release leads when nobody names a release: to what was committed last, unless that is
    /// active (the journal of its update was lost), else to the newest before it. Never to one that is banned.
    pub fn way_back(&self, active: &Version) -> Option<&Installed> {
        self.before(active).find(|kept| !self.is_bad(&kept.release))
    }

    /// The committed releases that are not active, newest first.
    pub fn before(&self, active: &Version) -> impl Iterator<Item = &Installed> {
        let all = self.committed.iter().chain(&self.previous).chain(&self.earlier);
        all.filter(move |kept| kept.release.version != *active)
    }

    /// Whether a release is banned, by its digest.
    pub fn is_bad(&self, release: &ReleaseId) -> bool {
        self.bad.iter().any(|bad| bad.release.digest == release.digest)
    }
}

/// A release that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    pub release: ReleaseId,
    /// The channel's serial, where it came from a channel.
    pub serial: Option<u64>,
    pub since: Timestamp,
    /// The transaction that brought it.
    #[serde(default)]
    pub transaction: Option<String>,
    /// Data as before the switch to it, for going back.
    #[serde(default)]
    pub data: Vec<super::record::DataSnapshot>,
}

/// A halt of automatic switching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    pub reason: String,
    pub by: String,
}

/// A release that failed, or that somebody banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bad {
    /// Which one: the digest counts.
    pub release: ReleaseId,
    pub reason: String,
    pub since: Timestamp,
}

/// What was last accepted of a channel. Only signed facts, never the local clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenChannel {
    pub serial: u64,
    /// Digest of the channel file with that serial.
    pub digest: Digest,
    /// The newest `issued` of an accepted file.
    pub issued: Timestamp,
    /// What it offers. Absent in what earlier versions of this program remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<SeenOffer>,
}

/// What a channel offered when it was last accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenOffer {
    pub release: ReleaseId,
    /// From when on the channel says nothing any more.
    pub expires: Timestamp,
    /// For so many of a hundred nodes it is from the start.
    pub percent: u8,
    /// From then on for so many, in order of time.
    pub waves: Vec<(Timestamp, u8)>,
    /// When the first channel file was issued that was accepted here and offered this release: since then a node
    /// that runs another one is behind. A signed time, as all that is remembered of channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Releases that nobody is to install any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Version>,
}

impl SeenOffer {
    /// The part of the nodes that may switch at `now`, 0 to 100.
    pub fn percent_at(&self, now: Timestamp) -> u8 {
        let begun = self.waves.iter().filter(|(from, _)| *from <= now).map(|(_, part)| *part).max();
        begun.unwrap_or(0).max(self.percent)
    }
}

/// Something of this node that stays in the way of every switch until somebody mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obstacle {
    /// Since when updates have been called off.
    pub since: Timestamp,
    /// What it is, such as the check that failed, and how.
    pub reason: String,
}

/// Updates to a release failed one after the other, and nothing speaks against the release itself: it is tried again, after
/// growing pauses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setback {
    pub release: ReleaseId,
    pub times: u32,
    pub transaction: String,
    pub at: Timestamp,
    pub reason: String,
}

/// Going back did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedsPerson {
    pub since: Timestamp,
    /// What happened, and what was seen.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new release was healthy through the trial.
    Committed,
    /// The old release serves and is healthy.
    RolledBack,
    Failed,
    Refused,
    /// It was called off before anything changed.
    CalledOff,
}

/// One line of `history.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub at: Timestamp,
    pub transaction: String,
    pub outcome: Outcome,
    /// The release before, which serves again after a rollback.
    pub from: Option<Version>,
    /// The release that was wanted; after a rollback, by hand or not, the one that went.
    pub to: Version,
    /// The digest of that release.
    pub digest: Digest,
    /// Why it ended so, when it did not end with a commit.
    pub reason: Option<String>,
    /// The exit code that told it.
    pub exit_code: u8,
    /// How long units were stopped or starting, in milliseconds; absent for a first installation.
    pub downtime_ms: Option<u64>,
    /// How long the checks got no good answer, in milliseconds: from the last good one before to the first good one after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unanswered_ms: Option<u64>,
    /// From begin to end, in milliseconds.
    pub took_ms: u64,
    /// The rollout of a fleet that it belonged to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rollout: Option<u64>,
    /// Who asked: `timer`, or a user's name.
    pub by: String,
    /// In the first line of a file: how often each outcome came before it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub before: BTreeMap<Outcome, u64>,
}
