//! The rehearsal: the new release runs beside the old one, from its staged tree and on copies of the data, before
//! anything is stopped.
//!
//! ```text
//! settings   the table               unit     a unit of the rehearsal, made of the application's own
//! private    in a network of its own        walls      which files it sees and may write
//! host       on the host's network          running    what is seen of it
//! names      what all of it is called, and how it is found again and removed
//! ports      what it listens on, against what is taken on the node           text    of unit files
//! view       what is told of it
//! ```
//! What always holds: nothing of the node is stopped or written to; all that a rehearsal makes is named after the
//! application, so that whoever comes next finds it and removes it, without any record.

mod host;
mod names;
mod ports;
mod private;
mod running;
pub mod settings;
mod sockets;
mod text;
mod unit;
mod walls;

pub use host::Host;
pub use names::Names;
pub use private::Private;
pub use settings::{Network, Settings};
pub use unit::Unfit;
pub use walls::Error as WallsError;

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use crate::health::Observation;
use crate::lifecycle::application::data::{self, Copies};
use crate::sys::{disk, systemd};
use crate::types::escaped_path;

/// The first systemd that has all the walls: `PrivateIPC=` came last.
const SYSTEMD_MIN: u32 = 248;
/// How many lines of the journal are shown, of each unit.
const LAST_WORDS: u32 = 10;

/// A rehearsal that cannot be had on this node. Nothing speaks against the release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to start it.
    #[error("a rehearsal needs systemd, which does not run this machine")]
    NoSystemd,
    /// It lacks what the walls are built with.
    #[error("a rehearsal in a network of its own needs systemd {SYSTEMD_MIN} or later, and this is {0}")]
    OldSystemd(u32),
    /// Namespaces and mounts are root's.
    #[error("a rehearsal needs root")]
    NotRoot,
    #[error("there is nothing to rehearse: the application has no service unit; name one in `[rehearsal]`")]
    NoUnits,
    /// systemd does not know it.
    #[error("cannot rehearse `{unit}`: systemd has it as {state}")]
    NotLoaded { unit: String, state: String },
    /// An option stands against it.
    #[error(transparent)]
    Unfit(#[from] unit::Unfit),
    /// Whose directories they are cannot be known.
    #[error("cannot rehearse `{unit}`: its user `{user}` is not known{hint}")]
    NoUser {
        unit: String,
        user: String,
        /// What is the matter, if something is.
        hint: &'static str,
    },
    /// The walls cannot be built.
    #[error("cannot shut a rehearsal off from the node: {0}")]
    Walls(#[from] walls::Error),
    /// The data cannot be copied.
    #[error("cannot copy data for a rehearsal: {0}")]
    Data(#[from] data::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
}

pub trait Rehearsal {
    /// One round of checks, so long after the start.
    fn observe(&mut self, at: Duration) -> Vec<Observation>;

    /// What speaks against the release although its checks pass.
    fn objections(&self) -> Vec<String>;

    /// Why a failure may be no fault of the release, if there is such a reason.
    fn doubt(&self) -> Option<String>;

    /// The last lines that the release wrote.
    fn last_words(&self) -> Vec<String>;

    /// What it has cost by now.
    fn cost(&self) -> Cost;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of data that were copied.
    pub copied_bytes: u64,
    /// The most memory that it held, where the kernel says so.
    pub memory_bytes: Option<u64>,
}

/// Why a failure may be the fault of the copies.
fn copies_doubt(copies: &Copies) -> Option<String> {
    let names: Vec<_> = copies.changing.iter().map(|path| format!("`{}`", escaped_path(path))).collect();
    let text = "were copied while they changed, and the copy may be of no whole state";
    (!names.is_empty()).then(|| format!("{} {text}", names.join(", ")))
}

/// What units wrote last, in this rehearsal and not in an earlier one.
fn last_words(units: &[String], since: Timestamp) -> Vec<String> {
    let words = |unit: &String| systemd::journal_tail_since(unit, LAST_WORDS, since.as_microsecond());
    units.iter().flat_map(words).collect()
}

/// The slice of a rehearsal: what it may take of the node. The running service comes first.
fn slice_text(app: &str, rehearsal: &Settings) -> String {
    // One that is promoted serves for a moment: it is as well off as the service itself.
    let memory = match (rehearsal.memory, rehearsal.promote) {
        (Some(size), _) => Some(size.0),
        (None, true) => None,
        (None, false) => available_bytes().map(|bytes| bytes / 2),
    };
    let memory = memory.map(|bytes| format!("MemoryMax={bytes}\nMemorySwapMax=0\n")).unwrap_or_default();
    let cpu = rehearsal.cpu_percent.map(|percent| format!("CPUQuota={percent}%\n")).unwrap_or_default();
    let weight = if rehearsal.promote { "" } else { "CPUWeight=20\nIOWeight=20\n" };
    format!("[Unit]\nDescription=Rehearsal of {app}\n[Slice]\n{memory}{cpu}{weight}")
}

/// Memory that could be had without swapping.
fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
