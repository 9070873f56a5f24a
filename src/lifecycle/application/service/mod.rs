//! The application's services: stopped before data and pointer are touched, and started from the new tree.
//!
//! Every operation may be done twice: "make sure that it runs" rather than "start". Each is bounded; a service that does
//! not stop is killed after `stop_timeout`.

mod before;
mod command;
mod settings;
mod units;

pub use before::{Before, Objection, ensure_usable};
pub use command::{CommandServices, end_orphans};
pub use settings::{Action, Commands, Invalid, Settings, Words};
pub use units::UnitServices;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::health::Began;
use crate::sys::systemd;

/// A service did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// systemd said no, or ran out of time.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// It runs on although it was killed.
    #[error("cannot stop {units}: still {state} after SIGKILL")]
    Unstoppable { units: String, state: String },
    /// A start or stop command failed.
    #[error("cannot {action} the service: `{command}`: {answer}")]
    Command {
        /// `start` or `stop`.
        action: &'static str,
        command: String,
        /// How it ended, and what it said last.
        answer: String,
    },
}

/// What an operation is about.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The units that are to be up: the declared ones, and those that the release ships.
    pub units: Vec<String>,
    /// What else belongs to the application: stopped with it, restarted when it runs, never started for its own sake.
    /// May name templates.
    pub others: Vec<String>,
    /// Units among these that ran before: they are started again if systemd still knows them.
    pub again: Vec<String>,
    /// Whether an older release comes back: then a unit that does not reload is restarted.
    pub is_going_back: bool,
    /// Sockets that listen within data which are brought back: what they listen on goes away with the newer data.
    pub moved: Vec<String>,
    /// Units that are neither stopped nor started.
    pub left: Vec<String>,
    /// The tree that serves, or is to serve: commands run there.
    pub tree: PathBuf,
    /// Variables for commands: `CUTOVER_*`.
    pub env: Vec<(String, OsString)>,
}

impl Target {
    /// All that belongs to the application, but for what is left alone.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            [&self.units, &self.others, &self.again].into_iter().flatten().cloned().collect();
        names.retain(|name| !self.left.contains(name));
        names.sort();
        names.dedup();
        names
    }
}

/// What an update may ask of services. Tests and the simulator have services of their own.
pub trait Services: Send + Sync {
    /// Whether services must stop before the pointer moves. Otherwise [`Services::ensure_running`] alone brings the new
    /// release up, with a shorter break. Stopping first is never wrong.
    fn stops_first(&self, touches_data: bool) -> bool;

    /// Lets the release that serves finish what it is at. A failure is reported by its text and stops nothing.
    fn drain(&self, target: &Target) -> Result<(), Error>;

    /// Makes sure that nothing of the target runs. Sockets stay up, and connections wait in them.
    fn ensure_stopped(&self, target: &Target) -> Result<(), Error>;

    /// Makes sure that the target runs, from the tree that the pointer names now: processes that were started earlier are
    /// replaced (`restart`), or told to reload.
    fn ensure_running(&self, target: &Target) -> Result<(), Error>;

    /// Forgets failures and start limits, so that a rollback's start is not refused for the failed release's sins.
    fn forget_failures(&self, target: &Target);

    /// The processes of the target that were started at this time from boot, or later.
    fn started_since(&self, target: &Target, since: Duration) -> Vec<Began> {
        let _ = (target, since);
        Vec::new()
    }

    /// Starts units of others that ran before and are down now. Says of each that does not start why not.
    fn bring_back(&self, dependants: &[String]) -> Vec<String> {
        let _ = dependants;
        Vec::new()
    }

    /// The last lines that the services wrote since they were started last, for messages.
    fn last_words(&self, target: &Target) -> Vec<String>;
}

/// The services that the settings declare; `log` is where a start command's output goes.
pub fn from_settings(settings: &Settings, app: &str, log: &Path) -> Box<dyn Services> {
    if let Some(commands) = &settings.command {
        return Box::new(CommandServices::new(settings.clone(), commands.clone(), log.to_owned()));
    }
    if settings.action == Action::None || !systemd::is_booted() {
        return Box::new(NoServices);
    }
    Box::new(UnitServices::new(settings.clone(), app))
}

/// Why the units that the settings name are neither stopped nor started: what runs goes on with the release that it was
/// started from.
pub fn left_alone(settings: &Settings) -> Option<String> {
    let is_wanted =
        settings.command.is_none() && settings.action != Action::None && !settings.units.is_empty();
    (is_wanted && !systemd::is_booted()).then(|| {
        format!(
            "systemd does not run this machine: nothing stops or starts {}, and what runs goes on with the release that it was \
             started from; `[service] action = \"none\"` says that this is right",
            settings.units.join(", ")
        )
    })
}

/// Nothing to stop or start: the pointer moves, and the checks decide.
#[derive(Clone, Copy, Debug)]
pub struct NoServices;

impl Services for NoServices {
    fn stops_first(&self, _: bool) -> bool {
        false
    }
    fn drain(&self, _: &Target) -> Result<(), Error> {
        Ok(())
    }
    fn ensure_stopped(&self, _: &Target) -> Result<(), Error> {
        Ok(())
    }
    fn ensure_running(&self, _: &Target) -> Result<(), Error> {
        Ok(())
    }
    fn forget_failures(&self, _: &Target) {}
    fn last_words(&self, _: &Target) -> Vec<String> {
        Vec::new()
    }
}

/// Runs words in the tree, with a bound.
fn run_in(
    target: &Target,
    words: &Words,
    limit: Duration,
    log: Option<&Path>,
) -> crate::sys::process::Outcome {
    let mut argv: Vec<OsString> = words.argv().into_iter().map(OsString::from).collect();
    if let Some(program) = argv.first_mut().filter(|_| !words.is_shell()) {
        *program = crate::health::program_in(&target.tree, Path::new(program)).into();
    }
    let mut command = crate::sys::process::Command::new(argv).timeout(limit);
    command.directory = Some(target.tree.clone());
    command.env.clone_from(&target.env);
    command.output = log.map(Path::to_owned);
    crate::sys::process::run(&command)
}
