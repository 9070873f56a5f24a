//! The application on a real node: its services, checks, hooks and data, and the timer that recovers the node.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::data::{self, Data, Decision, Probing, Restore, Writers};
use super::hooks::{self, Hooks};
use super::service::{self, Services, Target};
use super::units;
use super::{Application, Direction, Moment, Restored, Watch, last_words_text};
use crate::health::{Checks, Context, Gaps, Observation, Pulse};
use crate::lifecycle::node::plan::DataBack;
use crate::lifecycle::rehearsal::{self, Host, Names, Network, Private, Rehearsal};
use crate::lifecycle::settings::Settings;
use crate::lifecycle::update::deadline::Bounds;
use crate::store::{Kept, Store};
use crate::sys;
use crate::sys::systemd::{self, DeadMansSwitch};
use crate::types::record::{Cause, DataSnapshot, Phase, Reason, Record, Stands, UnitsBefore};
use crate::types::{Version, chain};

mod own_units;

/// The application on this machine.
pub struct Local<'a> {
    app: &'a str,
    node: &'a str,
    settings: &'a Settings,
    store: &'a Store,
    services: Box<dyn Services>,
    interrupted: &'a AtomicBool,
    /// How this program is called again by the timer.
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl<'a> Local<'a> {
    /// The application `app`, as the settings describe it. `arguments` follow the program when the timer calls it.
    pub fn new(
        app: &'a str,
        node: &'a str,
        settings: &'a Settings,
        store: &'a Store,
        interrupted: &'a AtomicBool,
        arguments: Vec<OsString>,
    ) -> Self {
        let log = store.layout.private().join("service.log");
        let services = service::from_settings(&settings.service, app, &log);
        let program = sys::process::own_program();
        Self { app, node, settings, store, services, interrupted, program, arguments }
    }

    /// Whether nobody wants the hooks of this moment any more: Ctrl-C was typed, somebody else has ended the update while
    /// it waits, or wants the old release back. On the way back no hook is ended early.
    fn is_unwanted(&self, moment: Moment, record: &Record) -> bool {
        match moment {
            Moment::PreStage | Moment::PostStage => self.interrupted.load(Ordering::Relaxed),
            Moment::PreSwitch => {
                let journal = self.store.journal();
                let is_ours = matches!(&journal, Ok(Kept::Whole(now)) if now.transaction == record.transaction && now.phase == record.phase);
                self.interrupted.load(Ordering::Relaxed) || !is_ours
            }
            Moment::PostSwitch | Moment::Healthy => {
                let request = self.store.request().ok().flatten();
                let is_meant = request
                    .is_some_and(|request| request.transaction == record.transaction && !request.commit);
                self.interrupted.load(Ordering::Relaxed) || is_meant
            }
            Moment::Committed | Moment::PreRollback | Moment::PostRollback | Moment::Failed => false,
        }
    }

    /// The variables that hooks, checks and commands get.
    fn environment(&self, moment: &str, record: Option<&Record>) -> Vec<(String, OsString)> {
        let layout = &self.store.layout;
        let mut variables: Vec<(&str, OsString)> = vec![
            ("APP", self.app.into()),
            ("NODE", self.node.into()),
            ("PHASE", moment.into()),
            ("ROOT", layout.root().into()),
        ];
        if let Some(data) = self.settings.data.first() {
            variables.push(("DATA_PATH", data.path.clone().into()));
        }
        if let Some(record) = record {
            variables.push(("TRANSACTION", record.transaction.clone().into()));
            variables.push(("TO_VERSION", record.to.version.as_str().into()));
            variables.push(("TO_PATH", layout.tree(&record.to.version).into()));
            if let Some(from) = &record.from {
                variables.push(("FROM_VERSION", from.version.as_str().into()));
                variables.push(("FROM_PATH", layout.tree(&from.version).into()));
            }
            if let Some(Ok(path)) = record.data.first().map(|item| self.data().snapshot_place(item)) {
                variables.push(("DATA_SNAPSHOT", path.into()));
            }
            if let Some(rollout) = record.rollout {
                variables.push(("ROLLOUT", rollout.to_string().into()));
            }
            if let Some(reason) = crate::lifecycle::update::outcome::end_of(record).and_then(|end| end.reason)
            {
                variables.push(("REASON", reason.into()));
            }
        }
        variables.into_iter().map(|(name, value)| (format!("CUTOVER_{name}"), value)).collect()
    }

    fn data(&self) -> Data {
        Data::of(self.store, self.settings)
    }

    /// What becomes of one path's data on the way back, and why.
    fn decide(&self, path: &str, record: &Record) -> Decision {
        let (old, new) = (record.from.as_ref().map(|from| &from.version), &record.to.version);
        let (settings, store) = (self.settings, self.store);
        DataBack { settings, store, asked: record.data_policy, old, new }.decide(path)
    }

    /// The tree that serves now; the wanted one when none does.
    fn active_tree(&self, record: &Record) -> PathBuf {
        let active = self.store.active().ok().flatten();
        self.store.layout.tree(&active.unwrap_or_else(|| record.to.version.clone()))
    }
}

impl Application for Local<'_> {
    fn hooks(&self, moment: Moment, record: &Record) -> Result<(), Reason> {
        if moment == Moment::PreSwitch && record.rollout.is_some() {
            // Others may have been waited for since it was planned.
            let checked = self.data().check(&self.settings.data, Probing::Guessed);
            checked.map_err(|error| unfit_data(&error))?;
        }
        let hooks = Hooks::of(self.app, &self.settings.hooks);
        let tree = match moment {
            Moment::PostRollback => record.from.as_ref().unwrap_or(&record.to),
            Moment::PreStage
            | Moment::PostStage
            | Moment::PreSwitch
            | Moment::PostSwitch
            | Moment::Healthy
            | Moment::Committed
            | Moment::PreRollback
            | Moment::Failed => &record.to,
        };
        let tree = self.store.layout.tree(&tree.version);
        let env = self.environment(moment.name(), Some(record));
        let run = hooks.run(moment, Some(&tree), &env, &|| self.is_unwanted(moment, record));
        run.map_err(|error| Reason::new(cause_of_hook(&error, &hooks), chain(&error)))
    }

    fn bounds(&self, record: &Record) -> Bounds {
        let is_before = record.phase.stands() == Stands::Before;
        let to_copy = || self.data().bytes_to_copy(&self.settings.data, Probing::Tried).unwrap_or(0);
        let copied = if is_before { to_copy() } else { 0 };
        Bounds::of(self.app, self.settings, &self.store.layout.trees_of(record), copied)
    }

    fn arm(&self) -> Result<(), Reason> {
        if !has_timers() {
            return Ok(());
        }
        self.switch().arm().map_err(|error| Reason::new(Cause::Machine, chain(&error)))
    }

    fn recover_soon(&self) -> Result<(), Reason> {
        if !has_timers() {
            return Ok(());
        }
        self.switch().run_soon().map_err(|error| Reason::new(Cause::Machine, chain(&error)))
    }

    fn is_going_down(&self) -> bool {
        systemd::is_going_down()
    }

    fn disarm(&self) {
        if has_timers()
            && let Err(error) = self.switch().disarm()
        {
            tracing::warn!("{}", chain(&error));
        }
    }

    fn look_before(&self, record: &Record, direction: Direction) -> Result<UnitsBefore, Reason> {
        self.look_at_units(record, direction)
    }

    fn stop(&self, record: &Record) -> Result<(), Reason> {
        // A fleet may want all to have stopped before any starts; and after a first installation that failed none does.
        let is_last = is_going_back(record) && record.from.is_none();
        let must_stop = !self.settings.data.is_empty() || record.rollout.is_some() || is_last;
        if !self.services.stops_first(must_stop) {
            return Ok(());
        }
        let target = self.target(self.active_tree(record), record);
        if let Err(error) = self.services.drain(&target) {
            tracing::warn!("{}", chain(&error));
        }
        if is_going_back(record) {
            self.services.forget_failures(&target);
        }
        let stopped = self.services.ensure_stopped(&target);
        if is_going_back(record) {
            self.end_left_behind(self.of_failed(&target, record));
        }
        stopped.map_err(|error| Reason::new(Cause::Stop, chain(&error)))
    }

    fn start(&self, record: &Record, direction: Direction) -> Result<Vec<String>, Reason> {
        let tree = self.active_tree(record);
        self.link_units(&tree, record, direction)
            .map_err(|error| Reason::new(cause_of_links(&error), chain(&error)))?;
        let target = self.target(tree, record);
        if direction == Direction::Back {
            self.services.forget_failures(&target);
        }
        let failed = if direction == Direction::Back { self.of_failed(&target, record) } else { Vec::new() };
        let started = self.services.ensure_running(&target);
        self.end_left_behind(failed);
        started.map_err(|error| {
            let words = last_words_text(&self.services.last_words(&target));
            let text = format!("{}{words}", chain(&error));
            match self.missing_unit(&target) {
                Some(why) => Reason::new(Cause::Setup, format!("{why}: {text}")),
                None => Reason::new(Cause::Service, text),
            }
        })?;
        let dependants = record.units.as_ref().map(|before| before.dependants.as_slice()).unwrap_or_default();
        let mut remarks = self.services.bring_back(dependants);
        remarks.extend(service::left_alone(&self.settings.service));
        remarks.extend(self.not_linked(&target.tree));
        if direction == Direction::Back {
            remarks.extend(self.data().used_aside(&record.data, &record.transaction));
        }
        Ok(remarks)
    }

    fn prepare_boot(&self, record: &Record) -> Result<(), Reason> {
        self.link_units(&self.active_tree(record), record, Direction::Back)
            .map_err(|error| Reason::new(cause_of_links(&error), chain(&error)))
    }

    fn snapshot(&self, record: &Record) -> Result<Vec<DataSnapshot>, Reason> {
        let (release, entries) = (record.from.as_ref(), &self.settings.data);
        self.data()
            .ensure_snapshots(&record.transaction, release, Timestamp::now(), entries, self.writers())
            .map_err(|error| Reason::new(Cause::Machine, chain(&error)))
    }

    fn plan_data(&self, record: &Record) -> Result<(), Reason> {
        let (release, entries) = (record.from.as_ref(), &self.settings.data);
        let planned = self.data().plan_snapshots(&record.transaction, release, Timestamp::now(), entries);
        planned.map(drop).map_err(|error| unfit_data(&error))
    }

    fn restore(&self, record: &Record) -> Result<Restored, Reason> {
        let (mut wanted, mut restored) = (Vec::new(), Restored::default());
        let (transaction, newer) = (record.transaction.as_str(), &record.to);
        let data = self.data();
        for entry in &self.settings.data {
            let path = entry.path.to_string_lossy();
            let has_copy = record.data.iter().any(|item| item.path == path);
            if !has_copy && self.decide(&path, record) == Decision::Restore {
                restored.warnings.push(format!("data `{path}` stay as they are: there is no copy of them"));
            }
        }
        for item in &record.data {
            let path = &item.path;
            match self.decide(path, record) {
                Decision::Restore if data.is_lost(item, transaction) => {
                    restored
                        .warnings
                        .push(format!("data `{path}` stay as they are: their copy is not there"));
                }
                Decision::Restore => wanted.push(item.clone()),
                Decision::Keep => restored.done.push(format!("data `{path}` stay as they are")),
            }
        }
        let views: Vec<_> = wanted.iter().map(|item| data.seen_elsewhere(item)).collect();
        let wish = Restore { items: &wanted, transaction, newer, at: Timestamp::now() };
        let mounted =
            data.ensure_restored(wish).map_err(|error| Reason::new(Cause::Machine, chain(&error)))?;
        for ((item, mounted), views) in wanted.iter().zip(mounted).zip(views) {
            restored.tell(&item.path, &mounted, views);
        }
        if record.from.is_none() && self.has_units() && nix::unistd::geteuid().is_root() {
            // Nothing serves after a first installation that failed.
            let removed = self.links().remove_all(&self.store.disk);
            removed.map_err(|error| Reason::new(Cause::Service, chain(&error)))?;
        }
        Ok(restored)
    }

    fn are_data_untouched(&self, record: &Record) -> bool {
        let is_wanted = |item: &&DataSnapshot| self.decide(&item.path, record) == Decision::Restore;
        let wanted: Vec<_> = record.data.iter().filter(is_wanted).cloned().collect();
        self.data().is_untouched(&wanted, &record.transaction)
    }

    fn drop_snapshots(&self, keep: &[DataSnapshot]) -> Result<(), Reason> {
        self.data().prune_snapshots(keep).map_err(|error| Reason::new(Cause::Machine, chain(&error)))
    }

    fn watch(&self, version: &Version, tree: &Path, record: Option<&Record>) -> Box<dyn Watch> {
        let layout = &self.store.layout;
        let mut env = self.environment("check", None);
        env.push(("CUTOVER_TO_VERSION".into(), version.as_str().into()));
        let before = record.and_then(|record| record.units.clone()).unwrap_or_default();
        let mut units = if self.has_units() { self.units_of(tree) } else { Vec::new() };
        units.retain(|unit| !before.left.contains(unit));
        let mut others: BTreeSet<_> = self.linked().into_iter().chain(before.others).collect();
        // What was down needs not be up, and may have come up meanwhile. Going back, it may be what cannot be stopped.
        if record.is_some_and(is_going_back) {
            others.retain(|unit| !before.left.contains(unit));
        } else {
            others.extend(before.left);
        }
        let context = Context {
            tree: tree.to_owned(),
            releases: layout.releases(),
            others: others.into_iter().filter(|unit| !units.contains(unit)).collect(),
            units,
            // Going back, what is older than the switch belongs to the release that comes back.
            since: record.filter(|record| !is_going_back(record)).and_then(Self::moved_at),
            reloads: self.settings.service.action == service::Action::ReloadOrRestart,
            env,
            there: None,
        };
        Box::new(Looking(Checks::new(self.settings.health.clone(), context)))
    }

    fn pulse(&self, ignored: &[String], gaps: Gaps) -> Option<Pulse> {
        Pulse::begin(&self.settings.health, ignored, gaps)
    }

    fn can_rehearse(&self, version: &Version) -> Result<(), rehearsal::Error> {
        match self.settings.rehearsal.network {
            Network::Off => Ok(()),
            Network::Private => self.private(version).check(version),
            Network::Host => self.host(version).check(version),
        }
    }

    fn rehearse(&self, record: &Record) -> Result<Box<dyn Rehearsal>, Reason> {
        let version = &record.to.version;
        let cannot = |error| crate::lifecycle::update::warming::cannot(&error);
        Ok(match self.settings.rehearsal.network {
            Network::Off | Network::Private => {
                Box::new(self.private(version).begin(&record.transaction, version).map_err(cannot)?)
            }
            Network::Host => {
                Box::new(self.host(version).begin(&record.transaction, version).map_err(cannot)?)
            }
        })
    }

    fn end_rehearsal(&self) -> Result<(), Reason> {
        let swept = Names::new(self.app).sweep(&self.store.disk, &self.data());
        swept.map(|_| ()).map_err(|error| crate::lifecycle::update::warming::cannot(&error))
    }

    fn last_words(&self) -> Vec<String> {
        let active = self.store.active().ok().flatten();
        let tree = active
            .map_or_else(|| self.store.layout.root().to_owned(), |version| self.store.layout.tree(&version));
        self.services.last_words(&Target { units: self.units_of(&tree), tree, ..Target::default() })
    }
}

impl Local<'_> {
    /// Whether services may write to the data while they are copied.
    fn writers(&self) -> Writers {
        if self.services.stops_first(true) { Writers::Stopped } else { Writers::Running }
    }

    fn rehearsal_environment(&self, version: &Version) -> Vec<(String, OsString)> {
        let mut env = self.environment("rehearsal", None);
        env.push(("CUTOVER_TO_VERSION".into(), version.as_str().into()));
        env
    }

    fn host(&self, version: &Version) -> Host<'_> {
        Host {
            app: self.app,
            settings: self.settings,
            store: self.store,
            data: self.data(),
            env: self.rehearsal_environment(version),
        }
    }

    fn private(&self, version: &Version) -> Private<'_> {
        let env = self.rehearsal_environment(version);
        let mut running = self.settings.service.units.clone();
        running.extend(self.links().ours().unwrap_or_default());
        Private {
            app: self.app,
            settings: self.settings,
            store: self.store,
            data: self.data(),
            units: self.units_of(&self.store.layout.tree(version)),
            running,
            env,
        }
    }

    fn switch(&self) -> DeadMansSwitch<'_> {
        let mut arguments = self.arguments.clone();
        arguments.extend(["recover".into(), "--watch".into()]);
        let disk = &self.store.disk;
        DeadMansSwitch { disk, app: self.app, program: self.program.clone(), arguments }
    }
}

/// A hook of the admin's that fails speaks against the admin's set-up, one of the release's against the release.
fn cause_of_hook(error: &hooks::Error, hooks: &Hooks) -> Cause {
    let is_admins = |path: &Path| path.starts_with(&hooks.directory);
    match error {
        hooks::Error::NotNow { .. } => Cause::NotNow,
        hooks::Error::Failed { hook, .. }
        | hooks::Error::Untrusted { hook, .. }
        | hooks::Error::Lost { hook, .. }
            if is_admins(hook) =>
        {
            Cause::AdminHook
        }
        hooks::Error::Failed { .. } => Cause::Hook,
        hooks::Error::Unreadable { path, .. } | hooks::Error::TooMany(path) if is_admins(path) => {
            Cause::AdminHook
        }
        // The tree was verified: whoever could make it so is on this node.
        hooks::Error::Untrusted { .. }
        | hooks::Error::Lost { .. }
        | hooks::Error::Unreadable { .. }
        | hooks::Error::TooMany(_) => Cause::Machine,
    }
}

fn cause_of_links(error: &units::Error) -> Cause {
    match error {
        units::Error::Taken { .. } => Cause::Setup,
        units::Error::Disk(_) | units::Error::Systemd(systemd::Error::TimedOut { .. }) => Cause::Machine,
        units::Error::TooMany(_)
        | units::Error::OnlyWithOthers(_)
        | units::Error::Systemd(systemd::Error::Refused { .. }) => Cause::Service,
    }
}

/// Data that cannot be copied or brought back: nothing was stopped.
fn unfit_data(error: &data::Error) -> Reason {
    let cause = match error {
        data::Error::Disk(_) | data::Error::Index { .. } => Cause::Machine,
        data::Error::NoSpace { .. }
        | data::Error::NoInodes { .. }
        | data::Error::Unfit { .. }
        | data::Error::Border { .. }
        | data::Error::Nested { .. }
        | data::Error::WayBack { .. }
        | data::Error::Gone(_)
        | data::Error::Elsewhere { .. }
        | data::Error::OtherRoot { .. }
        | data::Error::InUse { .. }
        | data::Error::Away { .. } => Cause::NotNow,
    };
    Reason::new(cause, chain(error))
}

/// Whether systemd takes timers from us. Without it nobody ends an update that was interrupted but the next run.
fn has_timers() -> bool {
    systemd::is_booted() && nix::unistd::geteuid().is_root()
}

fn is_going_back(record: &Record) -> bool {
    matches!(record.phase, Phase::RollingBack { .. })
}

struct Looking(Checks);

impl Watch for Looking {
    fn observe_unless(&mut self, at: Duration, is_unwanted: &dyn Fn() -> bool) -> Vec<Observation> {
        self.0.observe_unless(at, is_unwanted)
    }
}
