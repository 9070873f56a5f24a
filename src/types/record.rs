//! The update under way, as the journal keeps it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Bad;
use super::{Digest, ReleaseId};

/// Where an update stands. The moves between phases are in `lifecycle::machine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// The new release is complete on this node; nothing else has changed.
    Staged,
    /// The new release runs beside the old one, on copies, to show that it can (rehearsal).
    Warming,
    /// Services stop, data are snapshotted, the pointer moves, services start.
    Switching,
    /// The new release runs and is watched.
    Trial {
        /// When it must have shown itself healthy.
        until: Deadline,
    },
    /// The old release is being brought back.
    RollingBack {
        reason: Reason,
    },
    Committed,
    /// The old release serves again and was seen healthy.
    RolledBack {
        reason: Reason,
    },
    Cancelled {
        reason: Reason,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing stands in the way of the switch.
    Cleared {
        /// Whether the release is rehearsed first.
        rehearse: bool,
    },
    Ready,
    /// The new release has been started.
    Switched {
        /// When it must have shown itself healthy.
        until: Deadline,
    },
    Passed,
    /// The new release, or the switch to it, failed; or somebody wants the old one back.
    Failed(Reason),
    /// The update is given up before anything was changed.
    CalledOff(Reason),
    /// The old release serves and is healthy.
    Restored,
}

/// Why an update did not end with the new release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// What it was, for programs.
    pub kind: Cause,
    /// What it was, for people: with the last answer of the check, and so on.
    pub text: String,
}

impl Reason {
    /// A reason of this kind with this text.
    pub fn new(kind: Cause, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// The kinds of reasons. The names are those of the journal: old ones keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A health check failed, or none passed in time.
    Unhealthy,
    /// The new release did not start.
    Service,
    /// What ran before did not stop.
    Stop,
    /// A hook of the release failed.
    Hook,
    /// A hook of the admin failed, or cannot be run.
    AdminHook,
    /// A setting of the admin does not fit: a unit that is not there, a file where a unit is to be linked.
    Setup,
    /// The machine or file system refused a step.
    Machine,
    /// The node went down under the new release too often.
    Interrupted,
    /// The program that carried out the update ended too often before its time.
    Killed,
    /// The deadline passed while nobody watched.
    Deadline,
    /// No check was left that could speak for the release: those that there are failed before the switch already.
    Unproven,
    /// Nobody committed a release that a person must commit.
    Unconfirmed,
    Rehearsal,
    Operator,
    Fleet,
    /// The old release was not healthy before the switch.
    Baseline,
    /// A unit could not be stopped and started, seen before the switch: it is not there, masked, transient, and so on.
    Units,
    /// Something stands in the way for now; another try may do better.
    NotNow,
}

/// Whose fault it is that an update did not end with the new release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The new release's: only this speaks against trying it again.
    Release,
    /// This machine's, or that of the release it ran before.
    Node,
    /// A person's, or that of something a person has set up.
    Operator,
    Fleet,
    Nobody,
}

impl Cause {
    pub fn blame(self) -> Blame {
        match self {
            Self::Unhealthy | Self::Service | Self::Hook | Self::Interrupted | Self::Rehearsal => {
                Blame::Release
            }
            Self::Machine | Self::Stop | Self::Baseline => Blame::Node,
            Self::Operator | Self::AdminHook | Self::Setup | Self::Units | Self::Unconfirmed => {
                Blame::Operator
            }
            Self::Fleet => Blame::Fleet,
            Self::NotNow | Self::Killed | Self::Deadline | Self::Unproven => Blame::Nobody,
        }
    }

    /// Whether it only ever comes up before the pointer has moved: the new release was not tried.
    pub fn is_before_the_pointer(self) -> bool {
        match self {
            Self::NotNow | Self::Baseline | Self::Units => true,
            Self::Unhealthy
            | Self::Service
            | Self::Stop
            | Self::Hook
            | Self::AdminHook
            | Self::Setup
            | Self::Machine
            | Self::Interrupted
            | Self::Killed
            | Self::Deadline
            | Self::Unproven
            | Self::Unconfirmed
            | Self::Rehearsal
            | Self::Fleet
            | Self::Operator => false,
        }
    }
}

/// Where a phase stands, seen from what it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Nothing was changed: the old release serves.
    Before,
    /// Something was changed, and must be finished or undone.
    Within,
    /// It has ended; only what is remembered and cleared away may be missing.
    After,
}

impl Phase {
    /// Whether anything has been changed yet, or still is.
    pub fn stands(&self) -> Stands {
        match self {
            Self::Staged | Self::Warming => Stands::Before,
            Self::Switching | Self::Trial { .. } | Self::RollingBack { .. } => Stands::Within,
            Self::Committed | Self::RolledBack { .. } | Self::Cancelled { .. } => Stands::After,
        }
    }

    /// When the trial must have ended, in a trial.
    pub fn trial_until(&self) -> Option<&Deadline> {
        match self {
            Self::Trial { until } => Some(until),
            Self::Staged
            | Self::Warming
            | Self::Switching
            | Self::RollingBack { .. }
            | Self::Committed
            | Self::RolledBack { .. }
            | Self::Cancelled { .. } => None,
        }
    }
}

/// A moment that survives a reboot and a wrong clock: whichever clock can be trusted decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The boot in which `boot_ms` counts.
    pub boot_id: String,
    /// Milliseconds of `CLOCK_BOOTTIME`.
    pub boot_ms: u64,
    /// The same moment by the wall clock, for another boot.
    pub wall: Timestamp,
}

impl Deadline {
    /// How long from now (by the clock of the same boot, else by the wall clock) it is; zero when it has passed.
    pub fn remaining(&self, boot_id: &str, boot_now: Duration, wall_now: Timestamp) -> Duration {
        if self.boot_id == boot_id {
            Duration::from_millis(self.boot_ms).saturating_sub(boot_now)
        } else {
            Duration::try_from(self.wall.duration_since(wall_now)).unwrap_or_default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// A new release is to be installed: `to` is new, `from` serves.
    Update,
    /// An older release is wanted back: `to` serves, `from` is wanted. Begins in `RollingBack`.
    Rollback,
}

/// A copy of the data from before the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSnapshot {
    pub path: String,
    /// Its directory under `.cutover/snapshots/<transaction>/`.
    pub name: String,
    /// How it was made: `btrfs`, `reflink` or `copy`.
    pub method: String,
    /// Paths within the data that are not in it, and stay where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave: Vec<std::path::PathBuf>,
}

/// One update, from its first to its last phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Names this transaction in journal, history, log and metrics.
    pub transaction: String,
    pub intent: Intent,
    /// The release that serves, or is to serve again; absent for a first installation.
    pub from: Option<ReleaseId>,
    /// The release that is to serve, or is to go.
    pub to: ReleaseId,
    /// The channel's serial of `to`, where it has one.
    pub serial: Option<u64>,
    pub phase: Phase,
    /// The rollout of a fleet that this belongs to.
    pub rollout: Option<u64>,
    /// Whether a person must commit (`--confirm`).
    pub confirm: bool,
    /// The ban, by its time, that whoever began the update overruled (`--even-if-bad`): any other one counts, whenever it
    /// was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrules: Option<Timestamp>,
    /// Update: whether the new release stays whatever the checks say (`--no-rollback`). Rollback: whether it sets no hold.
    pub no_rollback: bool,
    /// Whether going back by hand sets no hold (`rollback --no-hold` in a trial).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_hold: bool,
    /// Who ended the update by hand, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// What to do with data when going back, as asked for on the command line.
    pub data_policy: Option<DataPolicy>,
    /// Data as before the switch.
    pub data: Vec<DataSnapshot>,
    /// The boot in which the record was last written.
    pub boot_id: String,
    /// How often the update was interrupted and went on.
    pub resumes: u32,
    /// How many of these interruptions were reboots.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub boots: u32,
    /// Whether the recovery at boot has counted the last interruption already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counted_at_boot: bool,
    /// When the whole must have ended; armed as a timer before anything stops.
    pub deadline: Option<Deadline>,
    /// Checks that failed before the switch already, and therefore do not count.
    pub ignored_checks: Vec<String>,
    pub started: Timestamp,
    /// Who began it: `timer`, or a user's name.
    pub by: String,
    /// How long the service was away, when that is known.
    pub downtime_ms: Option<u64>,
    /// How long nobody got a good answer, as far as it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<Unanswered>,
    /// When what happened, by the wall clock: for reports.
    #[serde(default, skip_serializing_if = "Moments::is_empty")]
    pub moments: Moments,
    /// Digest of the settings in force, which lie beside the journal.
    pub settings: Option<Digest>,
    /// What the rehearsal came to, once it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<Rehearsed>,
    /// What ran before anything was stopped; absent until it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<UnitsBefore>,
}

impl Record {
    /// Whether this ban is one of the release that is to serve, and nobody has overruled it.
    pub fn is_banned_by(&self, bad: &Bad) -> bool {
        bad.release.digest == self.to.digest && self.overrules != Some(bad.since)
    }
}

/// What ran of an application, and what ran with it, before an update or a rollback stopped anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnitsBefore {
    /// Units of the application that an admin has stopped or masked: they are left so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// What ran besides the units that every start names: instances of templates, jobs of timers, and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Shipped units that run, though an admin has disabled them: they are linked again, and not enabled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// Units of others that ran, and that systemd stops with the application's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependants: Vec<String>,
    /// When the pointer was moved: processes that are older belong to the release that went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<BootMoment>,
}

/// A moment of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootMoment {
    /// The boot in which `boot_ms` counts.
    pub boot_id: String,
    /// Milliseconds of `CLOCK_BOOTTIME`.
    pub boot_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How long the checks got no good answer since the switch began. Nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unanswered {
    /// In all, in milliseconds.
    pub total_ms: u64,
    /// When the last good answer came, while there is none: whoever goes on with the update goes on counting from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A rehearsal that went well, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsed {
    pub at: Timestamp,
    /// How long it took, from the first copy to the removal of the last.
    pub took_ms: u64,
    /// Bytes of data that were copied; none where blocks are shared.
    pub copied_bytes: u64,
    /// The most memory that the rehearsed release held, where the kernel says so.
    pub memory_bytes: Option<u64>,
}

/// When a switch did what. Nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Moments {
    pub stopped: Option<Timestamp>,
    pub switched: Option<Timestamp>,
    /// Services ran on the new release.
    pub started: Option<Timestamp>,
}

impl Moments {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to the data when going back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataPolicy {
    /// Keep them when the old release reads what the new one writes, else restore.
    #[default]
    Auto,
    /// Leave the data as they are.
    Keep,
    /// Bring back the snapshot, and set the newer data aside.
    Restore,
}
