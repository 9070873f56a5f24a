//! What the loop does, told as it happens: to the log, and to `/run/cutover/<app>/status.json` for monitoring.

use std::cell::RefCell;
use std::path::PathBuf;

use super::context::Context;
use super::monitoring;
use super::output::say;
use crate::health;
use crate::lifecycle::agreement::Own;
use crate::lifecycle::driver::Narrator;
use crate::lifecycle::node::phase_name;
use crate::lifecycle::rehearsal::RehearsalView;
use crate::lifecycle::status;
use crate::lifecycle::view::{Doing, Status, TrialView};
use crate::store::Store;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::disk::Disk;
use crate::types::record::{Intent, Phase, Record};

/// Tells people and monitoring.
pub struct Told<'a> {
    context: &'a Context,
    store: &'a Store,
    last: RefCell<String>,
}

impl<'a> Told<'a> {
    /// Tells of this node.
    pub fn new(context: &'a Context, store: &'a Store) -> Self {
        Self { context, store, last: RefCell::default() }
    }

    fn say(&self, text: &str) {
        if !self.context.output.quiet && self.last.replace(text.to_owned()) != text {
            say(text);
        }
    }

    fn publish(&self, trial: Option<TrialView>) -> Option<Status> {
        self.publish_with(|view| {
            if trial.is_some() {
                view.trial = trial;
            }
        })
    }

    fn publish_with(&self, change: impl FnOnce(&mut Status)) -> Option<Status> {
        let (app, node) = (&self.context.app, &self.context.node);
        let view = status::status(app, node, self.context.settings(), self.store, SystemClock.wall());
        let mut view = view.ok()?;
        change(&mut view);
        publish(app, &view);
        Some(view)
    }
}

/// Where the last status of an application is.
pub fn status_path(app: &str) -> PathBuf {
    PathBuf::from("/run/cutover").join(app).join("status.json")
}

/// Writes the status where monitoring looks for it. Without the right to (an ordinary user) nothing is written.
pub fn publish(app: &str, view: &Status) {
    let path = status_path(app);
    let disk = Disk::default();
    let Ok(text) = serde_json::to_string(view) else { return };
    let folders = path.ancestors().skip(1).take(2).collect::<Vec<_>>();
    let made = folders.iter().rev().try_for_each(|folder| disk.make_directory(folder, 0o755));
    if let Err(error) = made.and_then(|()| disk.replace(&path, (text + "\n").as_bytes(), 0o644)) {
        tracing::debug!(%error, "status not published");
    }
}

impl Narrator for Told<'_> {
    fn moved(&self, record: &Record) {
        let (to, phase) = (&record.to.version, phase_name(&record.phase));
        monitoring::moved(record, phase);
        let back = record
            .from
            .as_ref()
            .map_or_else(|| "nothing".to_owned(), |from| format!("release {}", from.version));
        match (&record.phase, record.intent) {
            (Phase::Staged, _) => self.say(&format!("release {to} is ready; the switch begins")),
            (Phase::Warming, _) => self.say(&format!("release {to} is rehearsed beside the running one")),
            (Phase::Switching, _) => self.say(&format!("switching to release {to}")),
            (Phase::Trial { .. }, _) => self.say(&format!("release {to} runs and is watched")),
            (Phase::RollingBack { reason }, Intent::Update) => {
                self.say(&format!("going back to {back}: {}", reason.text));
            }
            (Phase::RollingBack { .. }, Intent::Rollback) => self.say(&format!("going back to {back}")),
            (Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. }, _) => {}
        }
        self.publish(None);
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

    fn watched(&self, record: &Record, trial: &health::Trial, own: &Own) {
        let reports = trial.reports();
        let sick: Vec<_> =
            reports.iter().filter(|report| !report.ok).map(|report| report.name.as_str()).collect();
        if !sick.is_empty() && *own == Own::Watching {
            tracing::debug!(checks = sick.join(" "), "not healthy yet");
        }
        let Phase::Trial { until } = &record.phase else { return };
        self.publish(Some(TrialView {
            deadline: Some(until.wall),
            healthy_for_s: trial.healthy_for().as_secs(),
            need_s: trial.need().as_secs(),
            checks: checks_of(trial),
            confirm: record.confirm,
            ..TrialView::default()
        }));
    }

    fn waits(&self, record: &Record, why: &str) {
        if !matches!(record.phase, Phase::Trial { .. }) || record.rollout.is_some() {
            self.say(&format!("waiting: {why}"));
        }
    }

    fn remarks(&self, record: &Record, text: &str) {
        tracing::warn!(TRANSACTION = %record.transaction, "{text}");
    }

    fn ended(&self) {
        if let Some(view) = self.publish(None) {
            monitoring::ended(self.context, self.store, &view);
        }
    }
}

fn checks_of(trial: &health::Trial) -> Vec<serde_json::Value> {
    trial.reports().iter().filter_map(|report| serde_json::to_value(report).ok()).collect()
}
