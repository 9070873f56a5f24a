//! The application on a real node: its services, checks, hooks and data, and the timer that recovers the node.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::application::{Application, Direction, Moment, Watch};
use super::driver::chain;
use super::service::{self, Services, Target};
use super::settings::Settings;
use crate::health::{Checks, Context, Observation};
use crate::store::Store;
use crate::sys::systemd::{self, Deadline};
use crate::types::Version;
use crate::types::record::{Cause, DataSnapshot, Reason, Record};

/// The application on this machine.
pub struct Local<'a> {
    app: &'a str,
    node: &'a str,
    settings: &'a Settings,
    store: &'a Store,
    services: Box<dyn Services>,
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
        arguments: Vec<OsString>,
    ) -> Self {
        let log = store.layout.private().join("service.log");
        let services = service::from_settings(&settings.service, app, &log);
        let program = std::env::current_exe().unwrap_or_else(|_| "cutover".into());
        Self { app, node, settings, store, services, program, arguments }
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
            if let Some(snapshot) = record.data.first() {
                let path = layout.snapshots().join(&record.transaction).join(&snapshot.name);
                variables.push(("DATA_SNAPSHOT", path.into()));
            }
            if let Some(rollout) = record.rollout {
                variables.push(("ROLLOUT", rollout.to_string().into()));
            }
            if let Some(reason) = super::finish::end_of(record).and_then(|end| end.reason) {
                variables.push(("REASON", reason.into()));
            }
        }
        variables.into_iter().map(|(name, value)| (format!("CUTOVER_{name}"), value)).collect()
    }

    /// The units of both releases, from the tree of one.
    fn target(&self, tree: PathBuf, record: &Record) -> Target {
        Target {
            units: self.settings.service.units.clone(),
            tree,
            env: self.environment("service", Some(record)),
        }
    }

    /// The tree that serves now; the wanted one when none does.
    fn active_tree(&self, record: &Record) -> PathBuf {
        let active = self.store.active().ok().flatten();
        self.store.layout.tree(&active.unwrap_or_else(|| record.to.version.clone()))
    }

    fn last_words_of(&self, target: &Target) -> String {
        let words = self.services.last_words(target);
        if words.is_empty() { String::new() } else { format!("; its last words: {}", words.join(" | ")) }
    }
}

impl Application for Local<'_> {
    fn hooks(&self, _moment: Moment, _record: &Record) -> Result<(), Reason> {
        Ok(())
    }

    fn arm(&self, within: Duration) -> Result<(), Reason> {
        if !has_timers() {
            return Ok(());
        }
        self.deadline().arm(within).map_err(|error| Reason::new(Cause::Machine, chain(&error)))
    }

    fn disarm(&self) {
        if has_timers()
            && let Err(error) = self.deadline().disarm()
        {
            tracing::warn!("{}", chain(&error));
        }
    }

    fn stop(&self, record: &Record) -> Result<(), Reason> {
        if !self.services.stops_first(!self.settings.data.is_empty()) {
            return Ok(());
        }
        let target = self.target(self.active_tree(record), record);
        if let Err(error) = self.services.drain(&target) {
            tracing::warn!("{}", chain(&error));
        }
        self.services.ensure_stopped(&target).map_err(|error| {
            Reason::new(Cause::Service, format!("{}{}", chain(&error), self.last_words_of(&target)))
        })
    }

    fn start(&self, record: &Record, direction: Direction) -> Result<(), Reason> {
        let target = self.target(self.active_tree(record), record);
        if direction == Direction::Back {
            self.services.forget_failures(&target);
        }
        self.services.ensure_running(&target).map_err(|error| {
            Reason::new(Cause::Service, format!("{}{}", chain(&error), self.last_words_of(&target)))
        })
    }

    fn snapshot(&self, _record: &Record) -> Result<Vec<DataSnapshot>, Reason> {
        Ok(Vec::new())
    }

    fn restore(&self, _record: &Record) -> Result<Vec<String>, Reason> {
        Ok(Vec::new())
    }

    fn drop_snapshots(&self, _keep: &[DataSnapshot]) -> Result<(), Reason> {
        Ok(())
    }

    fn watch(&self, version: &Version, tree: &Path) -> Box<dyn Watch> {
        let layout = &self.store.layout;
        let is_booted = systemd::is_booted() && self.settings.service.action != service::Action::None;
        let mut env = self.environment("check", None);
        env.push(("CUTOVER_TO_VERSION".into(), version.as_str().into()));
        let context = Context {
            tree: tree.to_owned(),
            releases: layout.releases(),
            units: if is_booted { self.settings.service.units.clone() } else { Vec::new() },
            env,
        };
        Box::new(Looking(Checks::new(self.settings.health.clone(), context)))
    }

    fn last_words(&self) -> Vec<String> {
        let active = self.store.active().ok().flatten();
        let tree = active
            .map_or_else(|| self.store.layout.root().to_owned(), |version| self.store.layout.tree(&version));
        self.services.last_words(&Target {
            units: self.settings.service.units.clone(),
            tree,
            env: Vec::new(),
        })
    }
}

impl Local<'_> {
    fn deadline(&self) -> Deadline<'_> {
        let mut arguments = self.arguments.clone();
        arguments.push("recover".into());
        Deadline { app: self.app, program: self.program.clone(), arguments }
    }
}

/// Whether systemd takes timers from us. Without it nobody ends an update that was interrupted but the next run.
fn has_timers() -> bool {
    systemd::is_booted() && nix::unistd::geteuid().is_root()
}

struct Looking(Checks);

impl Watch for Looking {
    fn observe(&mut self, at: Duration) -> Vec<Observation> {
        self.0.observe(at)
    }
}
