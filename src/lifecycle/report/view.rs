//! The shape of `status --json`: for people, programs and monitoring. Only ever added to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::offer::ChannelView;
use crate::lifecycle::policy;
use crate::release::source;
use crate::types::record::{Intent, Phase, Record};
use crate::types::state::{Bad, Hold, NeedsPerson, Outcome};
use crate::types::{Digest, Version};

/// The version of this shape.
pub const API_VERSION: u32 = 1;

/// What a node is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    Idle,
    /// A release is being fetched and unpacked.
    Staging,
    /// A newer release lies ready.
    Staged,
    Waiting,
    /// The new release is rehearsed.
    Warming,
    Voting,
    Switching,
    /// The new release is watched.
    Trial,
    /// The old release is being brought back.
    RollingBack,
    /// The fleet's decision is not known here.
    InDoubt,
    NeedsPerson,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub api_version: u32,
    pub app: String,
    pub node: String,
    pub root: String,
    /// When this was looked at.
    #[serde(default)]
    pub as_of: Option<Timestamp>,
    pub state: Doing,
    /// The release that the pointer names.
    pub active: Option<Active>,
    /// The application's units as they are, whatever the pointer says; empty where systemd runs none of them.
    #[serde(default)]
    pub running: Vec<UnitView>,
    /// What a rollback would bring back.
    pub previous: Option<Previous>,
    /// A newer release that lies ready.
    pub staged: Option<Ready>,
    /// The update or rollback under way.
    #[serde(default)]
    pub update: Option<UpdateView>,
    pub trial: Option<TrialView>,
    #[serde(default)]
    pub rehearsal: Option<RehearsalView>,
    pub last: Option<Last>,
    /// What keeps a newer release from being switched to.
    pub blocked: Vec<BlockedView>,
    /// What the channel offers, as it was seen last.
    #[serde(default)]
    pub channel: Option<ChannelView>,
    /// The hold, if there is one.
    pub hold: Option<Hold>,
    /// Releases that are never switched to.
    pub bad: Vec<Bad>,
    /// Releases that are never pruned.
    pub pins: Vec<Version>,
    pub disk: DiskView,
    pub data: DataView,
    pub store: StoreView,
    #[serde(default)]
    pub source: SourceView,
    /// The fleet's rollout that this node is in.
    pub rollout: Option<u64>,
    /// Whether `current` was installed by hand and was not taken over yet.
    #[serde(default)]
    pub unadopted: bool,
    /// Why a person is needed.
    pub needs_person: Option<NeedsPerson>,
    /// What is wrong with files of ours, or with the pointer.
    pub problems: Vec<String>,
    pub next: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Active {
    pub version: Version,
    pub serial: Option<u64>,
    /// Its digest, where it is known.
    pub digest: Option<Digest>,
    /// Since when it is active.
    pub since: Option<Timestamp>,
    pub committed: bool,
    /// Who vouched for it; empty for an unsigned one.
    pub signers: Vec<String>,
}

/// One unit of the application, with the words of `systemctl list-units`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitView {
    pub unit: String,
    /// Whether systemd has its file: `loaded`, `not-found`, `masked`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, and so on.
    pub active: String,
    /// The same in more detail: `running`, `exited`, `dead`, `auto-restart`.
    pub sub: String,
    /// How its last run ended: `success`, `exit-code`, `signal`, and so on.
    pub result: String,
    /// The main process, if it has one.
    pub pid: Option<u32>,
    /// The release that the main process runs from, where that can be seen.
    pub release: Option<Version>,
    /// Whether it does its work: it is active, or it was to run once and succeeded.
    pub ok: bool,
}

impl UnitView {
    /// Whether it is a service, which runs the application, and not a socket, timer or path, which only starts one.
    pub fn is_service(&self) -> bool {
        self.unit.ends_with(".service")
    }
}

/// What a rollback would bring back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Previous {
    pub version: Version,
    pub serial: Option<u64>,
    pub digest: Digest,
    pub since: Timestamp,
    /// Whether going back is possible.
    pub rollback: RollbackView,
}

/// Whether going back is possible.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RollbackView {
    /// Its tree is here, and the data that would come back can.
    pub possible: bool,
    /// What would happen to the data: `none`, `keep` or `restore`.
    pub data: String,
    /// The words after `--data` of which plain `cutover rollback` wants one first; none where it goes without.
    #[serde(default)]
    pub asks: Vec<String>,
    /// Whether the channel has revoked that release: going back works all the same.
    #[serde(default)]
    pub revoked: bool,
    /// Why it is not possible.
    #[serde(default)]
    pub why_not: Option<String>,
    /// What somebody has changed in its tree since it was staged; absent also where nobody has looked.
    #[serde(default)]
    pub changed: Option<String>,
}

/// A newer release that lies ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    pub version: Version,
    pub serial: Option<u64>,
    pub digest: Digest,
    pub since: Timestamp,
}

/// The update or rollback under way, as the journal has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpdateView {
    /// The transaction, as in log, history and metrics.
    pub transaction: String,
    /// A new release is to be installed, or an older one is wanted back.
    pub intent: Intent,
    /// The release that serves, or is wanted back.
    pub from: Option<Version>,
    /// The release that is to serve, or is to go.
    pub to: Version,
    pub phase: String,
    pub reason: Option<String>,
    pub started: Timestamp,
    pub by: String,
    /// The process that works on it; none: it was interrupted, and is taken up by `recover` or the next run.
    pub pid: Option<u32>,
    /// What that process waits for, as it said itself.
    #[serde(default)]
    pub waits_for: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrialView {
    /// When it must have shown itself healthy.
    pub deadline: Option<Timestamp>,
    /// How long all has been well without a break, in seconds.
    pub healthy_for_s: u64,
    /// How long it must be, in seconds.
    pub need_s: u64,
    pub checks: Vec<serde_json::Value>,
    pub processes: ProcessesView,
    pub confirm: bool,
    /// The release that comes back when the trial fails.
    #[serde(default)]
    pub back_to: Option<Version>,
}

/// Processes of the units, by the tree they run from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessesView {
    pub new: usize,
    pub old: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Last {
    pub outcome: Outcome,
    /// The release before, which serves again after a rollback.
    pub from: Option<Version>,
    /// The release that was wanted; after a rollback, by hand or not, the one that went.
    pub to: Version,
    /// Why, when it was no commit.
    pub reason: Option<String>,
    pub at: Timestamp,
    /// The exit code that told it.
    pub exit_code: u8,
    /// How long units were stopped or starting. What users noticed is `unanswered_ms`.
    pub downtime_ms: Option<u64>,
    /// How long the checks got no good answer: from the last good one before to the first good one after.
    #[serde(default)]
    pub unanswered_ms: Option<u64>,
    /// Who asked: `timer`, or a user's name.
    #[serde(default)]
    pub by: String,
    pub transaction: String,
}

/// What is in the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockedView {
    pub policy: String,
    /// Since when it has kept this node from what it would run, where that is known.
    #[serde(default)]
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub text: String,
    /// Of what the last `update` was refused with: its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

impl From<policy::Blocked> for BlockedView {
    fn from(blocked: policy::Blocked) -> Self {
        let policy::Blocked { policy, since, until, text } = blocked;
        Self { policy: policy.name().to_owned(), since, until, text, exit_code: None }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DiskView {
    /// Free bytes.
    pub free: u64,
    /// Bytes that staging leaves alone: what is configured, at most a tenth of the file system.
    pub reserve: u64,
    /// Bytes that are configured as the reserve.
    #[serde(default)]
    pub reserve_configured: u64,
    /// Bytes of releases that `prune` would remove, at most.
    pub reclaimable: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DataView {
    /// What the active release writes.
    pub epoch: Option<u64>,
    /// Whether a copy from before the last switch is kept, and of what kind.
    pub snapshot: Option<String>,
    /// What could be brought back, newest first: a copy for each release that can be gone back to and has one.
    #[serde(default)]
    pub restorable: Vec<RestorableView>,
    /// What rollbacks have set aside.
    pub aside: Vec<String>,
}

/// Data that could be brought back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestorableView {
    /// The release that wrote them, with which they would come back.
    pub version: Version,
    pub at: Timestamp,
    /// How many seconds ago that is.
    pub age_s: u64,
    pub paths: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreView {
    /// The method in force: `btrfs`, `reflink`, `hardlink` or `copy`.
    pub method: String,
    /// The method that is configured; `auto` leaves it to the file system.
    #[serde(default)]
    pub configured: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceView {
    pub url: Option<String>,
    /// Releases and channels without signatures are taken.
    pub allow_unsigned: bool,
}

impl SourceView {
    pub fn of(settings: &source::Settings) -> Self {
        Self { url: settings.url.clone(), allow_unsigned: settings.allow_unsigned }
    }
}

/// A rehearsal that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RehearsalView {
    /// The release that is rehearsed.
    pub version: Version,
    pub since: Timestamp,
    /// How long all has been well without a break, in seconds.
    pub healthy_for_s: u64,
    /// How long it must be, in seconds.
    pub need_s: u64,
    pub checks: Vec<serde_json::Value>,
}

impl RehearsalView {
    /// Whether the record's release is being rehearsed.
    pub fn is_under_way(record: &Record) -> bool {
        record.phase == Phase::Warming && record.rehearsed.is_none()
    }

    /// A rehearsal of which nothing was seen yet.
    pub fn begun(record: &Record) -> Self {
        let (version, since) = (record.to.version.clone(), record.started);
        Self { version, since, healthy_for_s: 0, need_s: 0, checks: Vec::new() }
    }
}
