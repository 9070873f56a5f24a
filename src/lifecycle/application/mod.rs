//! What the driver may do to the application: the seam between the moves of an update and the services, checks, hooks
//! and data of a real node. Tests and the simulator have applications of their own.

pub mod data;
pub mod hooks;
pub mod local;
pub mod service;
pub(super) mod shipped;
pub mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rehearsal::{self, Rehearsal};
use crate::health::{Gaps, Observation, Pulse};
use crate::lifecycle::update::deadline::Bounds;
use crate::types::record::{Cause, DataSnapshot, Reason, Record, UnitsBefore};
use crate::types::{Version, escaped_path};

/// Moments of an update at which hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    PreStage,
    PostStage,
    /// Before services stop; may say "not now".
    PreSwitch,
    /// Services run on the new release.
    PostSwitch,
    Healthy,
    Committed,
    /// Before services stop to go back.
    PreRollback,
    /// The old release serves and is healthy again.
    PostRollback,
    /// The update ended without the new release.
    Failed,
}

impl Moment {
    pub const ALL: [Self; 9] = [
        Self::PreStage,
        Self::PostStage,
        Self::PreSwitch,
        Self::PostSwitch,
        Self::Healthy,
        Self::Committed,
        Self::PreRollback,
        Self::PostRollback,
        Self::Failed,
    ];

    /// The name of its folder and file, and of `CUTOVER_PHASE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreStage => "pre-stage",
            Self::PostStage => "post-stage",
            Self::PreSwitch => "pre-switch",
            Self::PostSwitch => "post-switch",
            Self::Healthy => "healthy",
            Self::Committed => "committed",
            Self::PreRollback => "pre-rollback",
            Self::PostRollback => "post-rollback",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing has been changed yet, so that a hook can ask to come back later. Afterwards there is a result:
    /// the new release works, or it does not.
    pub fn is_before_the_switch(self) -> bool {
        match self {
            Self::PreStage | Self::PostStage | Self::PreSwitch => true,
            Self::PostSwitch
            | Self::Healthy
            | Self::Committed
            | Self::PreRollback
            | Self::PostRollback
            | Self::Failed => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    /// On the old release: limits of restarts are forgotten first.
    Back,
}

/// Asks the checks of a release that runs, again and again.
pub trait Watch {
    /// One round, so long after the watching began. Takes as long as the slowest check.
    fn observe(&mut self, at: Duration) -> Vec<Observation> {
        self.observe_unless(at, &|| false)
    }

    /// The same; checks are ended, and their answers left out, as soon as nobody wants them any more.
    fn observe_unless(&mut self, at: Duration, is_unwanted: &dyn Fn() -> bool) -> Vec<Observation>;
}

/// What a failed release wrote last, to be put behind the reason. Nothing where it wrote nothing.
pub fn last_words_text(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("; its last lines: {}", lines.join(" | ")) }
}

/// What became of the data on the way back.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub done: Vec<String>,
    /// What is not as it should be, and keeps nobody from going back: told wherever the end is told.
    pub warnings: Vec<String>,
}

impl Restored {
    /// Adds that the data at this path came back, but for what is mounted at these places within them, and where else the
    /// newer ones are seen.
    pub fn tell(&mut self, path: &str, mounted: &[PathBuf], views: Vec<String>) {
        self.done.push(format!("data `{path}` are as before the switch, newer ones set aside"));
        self.warnings.extend(views);
        self.warnings.extend(mounted.iter().map(|within| {
            let point = escaped_path(&Path::new(path).join(within));
            format!(
                "what is mounted at `{point}` since the switch stays there: unmount it if it is not wanted"
            )
        }));
    }
}

/// The application on this node. Everything is done as often as it is asked for, and no more than is needed.
pub trait Application {
    /// Runs the hooks of a moment. `Cause::NotNow` when one says so before the switch.
    fn hooks(&self, moment: Moment, record: &Record) -> Result<(), Reason>;

    /// How long each phase of this update may take.
    fn bounds(&self, record: &Record) -> Bounds;

    /// Arms the timer that looks after this update until it has ended, whatever becomes of this process. It may run
    /// already.
    fn arm(&self) -> Result<(), Reason>;

    /// Has the timer's work begin as soon as the node has booted.
    fn recover_soon(&self) -> Result<(), Reason> {
        Ok(())
    }

    /// Disarms the timer: the update has ended.
    fn disarm(&self);

    /// Looks at what runs, before anything is stopped. Refuses to go forward where it could not be started again; going
    /// back, what is wrong is left alone.
    fn look_before(&self, _record: &Record, _direction: Direction) -> Result<UnitsBefore, Reason> {
        Ok(UnitsBefore::default())
    }

    /// Whether this machine is going down: what fails now may do so because it is stopped.
    fn is_going_down(&self) -> bool {
        false
    }

    /// Stops what runs of either release; sockets stay open.
    fn stop(&self, record: &Record) -> Result<(), Reason>;

    /// Starts what belongs to the release that the pointer names, and waits until it is up. Says what of others is down
    /// that ran before.
    fn start(&self, record: &Record, direction: Direction) -> Result<Vec<String>, Reason>;

    /// Prepares the boot of the release that the pointer names, before any service starts: unit files only.
    fn prepare_boot(&self, _record: &Record) -> Result<(), Reason> {
        Ok(())
    }

    /// Looks at the data before anything stops, and plans how they are copied: what cannot be done is said now.
    fn plan_data(&self, _record: &Record) -> Result<(), Reason> {
        Ok(())
    }

    /// Copies the data as they are, with everything stopped. The same transaction is copied once.
    fn snapshot(&self, record: &Record) -> Result<Vec<DataSnapshot>, Reason>;

    /// Brings the copies back and sets newer data aside, as the policy wants it.
    fn restore(&self, record: &Record) -> Result<Restored, Reason>;

    /// Whether this way back has moved none of the data yet: they are those of the release that the pointer names.
    fn are_data_untouched(&self, _record: &Record) -> bool {
        true
    }

    /// Drops copies that no way back needs any more.
    fn drop_snapshots(&self, keep: &[DataSnapshot]) -> Result<(), Reason>;

    /// Watches the release that the pointer names. The record of an update says what is left alone, and when the pointer
    /// was moved; without one, all units must be up.
    fn watch(&self, version: &Version, tree: &Path, record: Option<&Record>) -> Box<dyn Watch>;

    /// Begins to ask the checks many times a second, to measure how long nobody is answered. `None`: none of them is cheap
    /// enough for that.
    fn pulse(&self, _ignored: &[String], _gaps: Gaps) -> Option<Pulse> {
        None
    }

    /// Says whether the new release can be rehearsed here, as configured. Starts and changes nothing.
    fn can_rehearse(&self, _version: &Version) -> Result<(), rehearsal::Error> {
        Ok(())
    }

    /// Starts the new release beside the running one, on copies of the data. Asked only where rehearsals are configured.
    fn rehearse(&self, _record: &Record) -> Result<Box<dyn Rehearsal>, Reason> {
        Err(Reason::new(Cause::Machine, "this application has no rehearsals"))
    }

    /// Ends and removes all that a rehearsal has made, of this update or of an earlier one.
    fn end_rehearsal(&self) -> Result<(), Reason> {
        Ok(())
    }

    /// Says the last lines that the release which the pointer names has written since it was started, for the message about
    /// its failure.
    fn last_words(&self) -> Vec<String>;
}
