//! Whether a release is healthy: checks give answers, a trial makes a verdict of them.
//!
//! ```text
//! Settings ─► Checks::observe() ─► [Observation] ─► Trial::observe() ─► Watching | Healthy | Failed
//!             (asks the machine)                    (a pure function)
//! ```
//! The whole window is watched, not the first success. A check that cannot be run is never taken for a pass.

mod checks;
mod http;
mod probes;
mod processes;
mod pulse;
mod settings;
mod trial;
mod web;

pub use checks::{Checks, Context};
pub use probes::program_in;
pub use processes::{
    Began, Group, OldProcess, Processes, in_use, of_groups, pids_of, tree_of, units_in, users_of,
};
pub use pulse::{Gaps, Pulse};
pub use settings::{Baseline, Check, Exec, File, Http, Invalid, Kind, Settings, Systemd, Tcp};
pub use trial::{CheckReport, Trial, Verdict};
pub use web::answers;

use std::time::Duration;

/// The name of the check that looks at the declared units.
pub const UNITS: &str = "units";
/// The name of the check that looks at the processes of the declared units.
pub const PROCESSES: &str = "processes";

/// What one try of a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub name: String,
    pub ok: Answer,
    /// The answer's words, or what was wrong; one line, safe to print.
    pub detail: String,
    pub took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Healthy,
    /// Nothing answers yet: right after the start this is no failure.
    NotYet,
    Sick,
    /// The check itself does not work.
    CannotRun,
}

impl Answer {
    pub fn is_healthy(self) -> bool {
        self == Self::Healthy
    }
}

impl std::fmt::Display for Observation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, detail, .. } = self;
        match self.ok {
            Answer::Healthy => write!(formatter, "check `{name}` passes"),
            Answer::NotYet => write!(formatter, "check `{name}` does not pass: {detail}"),
            Answer::Sick => write!(formatter, "check `{name}` fails: {detail}"),
            Answer::CannotRun => write!(formatter, "check `{name}` cannot be run: {detail}"),
        }
    }
}
