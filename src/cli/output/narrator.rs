//! What the loop does, told as it happens: to the log, and to `/run/cutover/<app>/status.json` for monitoring.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::say;
use crate::cli::context::Context;
use crate::cli::{output::logging, output::monitoring, refused};
use crate::health;
use crate::lifecycle::agreement::OwnChecks;
use crate::lifecycle::node::phase_name;
use crate::lifecycle::report::metrics::Rollout;
use crate::lifecycle::report::running::running;
use crate::lifecycle::report::status;
use crate::lifecycle::report::view::{Doing, RehearsalView, Status, TrialView, UnitView};
use crate::lifecycle::update::driver::Narrator;
use crate::store::Store;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::disk::{Disk, read_own};
use crate::types::record::{Phase, Record};

/// A rollout, counted, is never longer.
const ROLLOUT_BYTES_MAX: usize = 64 << 10;

pub struct Told<'a> {
    context: &'a Context,
    store: &'a Store,
    last: RefCell<String>,
    /// What the update waits for since its last move.
    waits_for: RefCell<Option<String>>,
    /// The application's units as they were lately, and when: watching a trial asks often.
    units: RefCell<Option<(Duration, Vec<UnitView>)>>,
}

/// How long what was seen of units is told again.
const UNITS_FRESH: Duration = Duration::from_secs(2);

impl<'a> Told<'a> {
    pub fn new(context: &'a Context, store: &'a Store) -> Self {
        Self {
            context,
            store,
            last: RefCell::default(),
            waits_for: RefCell::default(),
            units: RefCell::default(),
        }
    }

    fn say(&self, text: &str) {
        // Where the journal reads what is printed, it has the same as a message with fields.
        if !self.context.output.quiet
            && !logging::is_under_systemd()
            && self.last.replace(text.to_owned()) != text
        {
            say(text);
        }
    }

    fn publish(&self, trial: Option<TrialView>) -> Option<Status> {
        self.publish_with(|view| {
            if let Some(seen) = trial {
                // When it ends may be the fleet's to say.
                let deadline = view.trial.as_ref().map_or(seen.deadline, |kept| kept.deadline);
                view.trial = Some(TrialView { deadline, ..seen });
            }
        })
    }

    fn publish_with(&self, change: impl FnOnce(&mut Status)) -> Option<Status> {
        let (app, node) = (&self.context.app, &self.context.node);
        let view = status::status(app, node, self.context.settings(), self.store, SystemClock.wall());
        let mut view = view.ok()?;
        add_looks(&mut view);
        view.add_running(self.units(&view));
        if let Some(update) = &mut view.update {
            update.waits_for.clone_from(&self.waits_for.borrow());
        }
        change(&mut view);
        publish(app, &view);
        Some(view)
    }

    fn units(&self, view: &Status) -> Vec<UnitView> {
        let now = SystemClock.boot();
        let is_watching = matches!(view.state, Doing::Trial | Doing::Warming);
        if let Some((at, units)) = &*self.units.borrow()
            && is_watching
            && now.saturating_sub(*at) < UNITS_FRESH
        {
            return units.clone();
        }
        let active = view.active.as_ref().map(|active| &active.version);
        let units = running(self.context.settings(), self.store, active);
        *self.units.borrow_mut() = Some((now, units.clone()));
        units
    }
}

/// Where the last status of an application is.
pub fn status_path(app: &str) -> PathBuf {
    PathBuf::from("/run/cutover").join(app).join("status.json")
}

/// When the source last answered this node, and its channel was accepted. Kept in `/run`: an idle run writes nothing to
/// the disk.
fn last_look(app: &str) -> Option<Timestamp> {
    let found = std::fs::metadata(status_path(app).with_file_name("looked")).ok()?;
    Timestamp::try_from(found.modified().ok()?).ok()
}

/// Puts in what became of the last look at the source, and at the fleet.
pub fn add_looks(view: &mut Status) {
    if let Some(channel) = view.channel.as_mut() {
        channel.looked = last_look(&view.app);
    }
    refused::add_to(view);
}

/// The source has answered, and its channel was accepted.
pub fn note_look(app: &str) {
    let path = status_path(app).with_file_name("looked");
    let disk = Disk::default();
    let noted = make_folders(&disk, &path).and_then(|()| disk.replace(&path, b"", 0o644));
    if let Err(error) = noted {
        tracing::debug!(%error, "cannot record the look at the source");
    }
}

/// The rollout that this node looked at last, counted.
pub fn last_rollout(app: &str) -> Option<Rollout> {
    let path = status_path(app).with_file_name("rollout.json");
    serde_json::from_slice(&read_own(&path, ROLLOUT_BYTES_MAX).ok()??).ok()
}

/// Leaves a rollout for the metrics of this and of later runs, which do not ask storage for it.
pub fn note_rollout(app: &str, rollout: &Rollout) {
    let path = status_path(app).with_file_name("rollout.json");
    let disk = Disk::default();
    let Ok(text) = serde_json::to_vec(rollout) else { return };
    if let Err(error) = make_folders(&disk, &path).and_then(|()| disk.replace(&path, &text, 0o644)) {
        tracing::debug!(%error, "cannot record the rollout");
    }
}

pub fn make_folders(disk: &Disk, path: &Path) -> Result<(), crate::sys::disk::Error> {
    let folders = path.ancestors().skip(1).take(2).collect::<Vec<_>>();
    folders.iter().rev().try_for_each(|folder| disk.make_directory(folder, 0o755))
}

/// Writes the status where monitoring looks for it. Without the right to (an ordinary user) nothing is written.
pub fn publish(app: &str, view: &Status) {
    let path = status_path(app);
    let disk = Disk::default();
    let Ok(text) = serde_json::to_string(view) else { return };
    if let Err(error) =
        make_folders(&disk, &path).and_then(|()| disk.replace(&path, (text + "\n").as_bytes(), 0o644))
    {
        tracing::debug!(%error, "status not published");
    }
}

impl Narrator for Told<'_> {
    fn moved(&self, record: &Record) {
        self.waits_for.take();
        let text = monitoring::moved(record, phase_name(&record.phase));
        match record.phase {
            // The verdict is the command's result.
            Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => {}
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. } => self.say(&text),
        }
        if let Some(view) = self.publish(None) {
            monitoring::write_metrics(self.context, self.store, &view);
        }
    }

    fn rehearsed(&self, record: &Record, trial: &health::Trial) {
        let seen = RehearsalView {
            healthy_for_s: trial.healthy_for().as_secs(),
            need_s: trial.need().as_secs(),
            checks: checks_of(trial),
            ..RehearsalView::begun(record)
        };
        self.publish_with(|view| {
            view.state = Doing::Warming;
            view.rehearsal = Some(seen);
        });
    }

    fn watched(&self, record: &Record, trial: &health::Trial, own: &OwnChecks) {
        let reports = trial.reports();
        let sick: Vec<_> =
            reports.iter().filter(|report| !report.ok).map(|report| report.name.as_str()).collect();
        if !sick.is_empty() && *own == OwnChecks::Watching {
            tracing::debug!(checks = sick.join(" "), "not healthy yet");
        }
        let Phase::Trial { until } = &record.phase else { return };
        self.publish(Some(TrialView {
            deadline: Some(until.wall),
            healthy_for_s: trial.healthy_for().as_secs(),
            need_s: trial.need().as_secs(),
            checks: checks_of(trial),
            confirm: record.confirm,
            back_to: record.from.as_ref().map(|from| from.version.clone()),
            ..TrialView::default()
        }));
    }

    fn waits(&self, record: &Record, why: &str) {
        let is_trial = matches!(record.phase, Phase::Trial { .. });
        if is_trial && record.rollout.is_none() {
            return;
        }
        self.say(&format!("waiting: {why}"));
        let is_new = self.waits_for.replace(Some(why.to_owned())).as_deref() != Some(why);
        // In a trial each round of checks tells it.
        if is_new && !is_trial {
            self.publish(None);
        }
    }

    fn remarks(&self, record: &Record, text: &str) {
        tracing::warn!(TRANSACTION = %record.transaction, "{text}");
    }

    fn ended(&self) {
        if let Some(view) = self.publish(None) {
            monitoring::write_metrics(self.context, self.store, &view);
        }
    }
}

fn checks_of(trial: &health::Trial) -> Vec<serde_json::Value> {
    trial.reports().iter().filter_map(|report| serde_json::to_value(report).ok()).collect()
}
