//! What every command works with: the application's settings, its store, and who asks.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::unistd::{Uid, User, gethostname, getuid};

use super::failure::Error;
use super::output::Output;
use crate::cli::output::narrator::Told;
use crate::cli::words::args::Global;
use crate::config::{self, Loaded, Places};
use crate::coord::settings::Mode;
use crate::lifecycle::agreement::Alone;
use crate::lifecycle::application::Application;
use crate::lifecycle::application::local::Local;
use crate::lifecycle::fleet::{Forgotten, KeyFile, Member};
use crate::lifecycle::node::{Collaborators, Node, Work};
use crate::lifecycle::settings::Settings;
use crate::lifecycle::update::driver::{self, Ended};
use crate::store::{Layout, Store};
use crate::sys::clock::SystemClock;
use crate::sys::disk::Disk;

/// One application on this node, as the command line and the configuration have it.
pub struct Context {
    pub app: String,
    pub node: String,
    pub loaded: Loaded,
    /// Where and how results are printed.
    pub output: Output,
    pub global: Global,
    pub interrupted: Arc<AtomicBool>,
    disk: Disk,
}

impl Context {
    /// Reads the configuration that the global options name.
    pub fn load(global: &Global, interrupted: Arc<AtomicBool>, disk: Disk) -> Result<Self, Error> {
        let places = Places::default();
        let (app, mut loaded) = match (&global.config, &global.app, &global.root) {
            (Some(file), app, _) => {
                let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("app");
                (app.clone().unwrap_or_else(|| name.to_owned()), config::load_file(file)?)
            }
            (None, Some(app), root) => match config::load(&places, app) {
                Err(config::Problem::NoSuchApp { .. }) if root.is_some() => (app.clone(), Loaded::default()),
                loaded => (app.clone(), loaded?),
            },
            (None, None, Some(root)) => {
                let name =
                    root.file_name().and_then(|name| name.to_str()).filter(|name| config::is_app_name(name));
                (name.unwrap_or("app").to_owned(), Loaded::default())
            }
            (None, None, None) => {
                let app = only_app(&places)?;
                let loaded = config::load(&places, &app)?;
                (app, loaded)
            }
        };
        if !config::is_app_name(&app) {
            return Err(config::Problem::AppName(app).into());
        }
        if let Some(root) = &global.root {
            loaded.settings.root = absolute(root)?;
        }
        let node = Some(loaded.settings.fleet.node.clone())
            .filter(|node| !node.is_empty())
            .unwrap_or_else(host_name);
        // Whatever was installed at its path meanwhile: the child is this very program.
        loaded.settings.source.reader = Some("/proc/self/exe".into());
        let output = Output::new(global);
        Ok(Self { app, node, loaded, output, global: global.clone(), interrupted, disk })
    }

    /// Whether somebody wants this run to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn settings(&self) -> &Settings {
        &self.loaded.settings
    }

    /// The store under the root.
    pub fn store(&self) -> Result<Store, Error> {
        let root = &self.settings().root;
        if root.as_os_str().is_empty() {
            let what = "no root is configured".to_owned();
            return Err(Error::Usage {
                what,
                hint: Some("set `root` in the configuration, or use `--root DIR`".into()),
            });
        }
        Ok(Store::open(Layout::new(root), self.disk.clone())?)
    }

    /// The words that lead to this application again, for the timer.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--app".into(), self.app.clone().into()];
        if let Some(file) = self.global.config.as_ref().and_then(|file| std::path::absolute(file).ok()) {
            words.extend(["--config".into(), file.into()]);
        }
        if self.global.root.is_some() {
            words.extend(["--root".into(), self.settings().root.clone().into()]);
        }
        words
    }

    /// Calls `work` with the node.
    pub fn with_node<T>(
        &self,
        command: &str,
        work: impl FnOnce(&Node<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let store = self.store()?;
        let told = Told::new(self, &store);
        let collaborators = Configured { context: self, store: &store };
        let node = Node {
            app: &self.app,
            name: &self.node,
            settings: self.settings(),
            store: &store,
            clock: &SystemClock,
            by: name_of_caller(),
            command: command.to_owned(),
            interrupted: &self.interrupted,
            narrator: &told,
            collaborators: &collaborators,
            is_dry: false,
        };
        work(&node)
    }

    /// The application on this machine as `settings` describe it.
    fn local<'a>(&'a self, settings: &'a Settings, store: &'a Store) -> Local<'a> {
        Local::new(&self.app, &self.node, settings, store, &self.interrupted, self.arguments())
    }

    /// Refuses units that systemd does not know, or that cannot be started again.
    pub fn check_units(&self, node: &Node<'_>) -> Result<(), Error> {
        match self.local(node.settings, node.store).check_units() {
            None => Ok(()),
            Some(why) => Err(config::Problem::Contradiction { why }.into()),
        }
    }
}

/// The application on this machine, and the board that the configuration names.
struct Configured<'a> {
    context: &'a Context,
    store: &'a Store,
}

impl Collaborators for Configured<'_> {
    fn application<'s>(&'s self, settings: &'s Settings) -> Box<dyn Application + 's> {
        Box::new(self.context.local(settings, self.store))
    }

    fn with_agreement(&self, settings: &Settings, work: &mut Work<'_>) -> Result<Ended, driver::Error> {
        match settings.fleet.mode {
            Mode::Independent => work(&mut Alone),
            // The journal's update is gone on with whatever became of the keys: none are asked again.
            Mode::Rolling | Mode::Synchronous | Mode::Cells => {
                let keys = super::fleet::keys(settings).unwrap_or_default();
                match super::fleet::kept(self.store)? {
                    None => work(&mut Forgotten),
                    Some(kept) => {
                        let board = super::fleet::board(&settings.fleet, kept.own.node.as_str(), Some(&kept));
                        let (signer, fleet) = (KeyFile(self.store.layout.fleet_key()), &settings.fleet);
                        let mut member =
                            Member::new(Box::new(board), &SystemClock, &keys, Some(&signer), fleet, kept);
                        member.has = super::fleet::has(self.store);
                        member.here = super::fleet::here(self.store);
                        member.obstacle = Some(super::fleet::obstacle(self.store));
                        work(&mut member)
                    }
                }
            }
        }
    }
}

/// The only application that is configured.
fn only_app(places: &Places) -> Result<String, Error> {
    let mut apps = config::apps(places);
    match (apps.pop(), apps.is_empty()) {
        (Some(app), true) => Ok(app),
        (Some(last), false) => {
            apps.push(last);
            let hint = format!("name one with `--app`: {}", apps.join(", "));
            Err(Error::Usage { what: "several applications are configured".into(), hint: Some(hint) })
        }
        (None, _) => {
            let what = format!("no application is configured in `{}`", places.admin.display());
            Err(Error::Usage {
                what,
                hint: Some(
                    "`cutover init --unit NAME.service` writes one from a unit that runs, or write \
                     `/etc/cutover/<app>.toml`; `--root DIR` works without any"
                        .into(),
                ),
            })
        }
    }
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, Error> {
    let path =
        std::path::absolute(path).map_err(|error| crate::sys::disk::Error::new("find", path, error))?;
    // A link in the way to the root is resolved once, here; all later work is beneath what it named then.
    Ok(std::fs::canonicalize(&path).unwrap_or(path))
}

fn host_name() -> String {
    gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

/// Who asks: the person behind sudo, or the user; `timer` when systemd started this and nobody is behind it.
pub fn name_of_caller() -> String {
    if let Ok(user) = std::env::var("SUDO_USER") {
        return crate::types::escaped(user.as_bytes());
    }
    // A login's shell, too, is in a unit of systemd's, and its children inherit the mark.
    let is_person = std::env::var_os("SSH_CONNECTION").is_some()
        || std::env::var_os(super::handover::HANDED_OVER).is_some()
        || std::io::stdin().is_terminal()
        || std::io::stderr().is_terminal();
    if std::env::var_os("INVOCATION_ID").is_some() && !is_person {
        return "timer".to_owned();
    }
    name_of(getuid())
}

fn name_of(user: Uid) -> String {
    User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |user| user.name)
}
