//! Where the log goes: to the journal under systemd, to stderr otherwise. What happened to the application goes to the
//! journal in any case, when root did it: an update by hand is as worth knowing as one of the timer.

use std::os::fd::AsFd;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::args::Global;

/// The target of messages that tell what happened to the application: phases, outcomes, needs.
pub const EVENT: &str = "event";

/// Begins to log. Under systemd everything of note goes to the journal with its fields; a person sees warnings only,
/// unless they ask for more, since each command says itself what it does.
pub fn begin(global: &Global) {
    let is_unit = is_under_systemd();
    let (level, event) = match (global.quiet, global.verbose) {
        (true, _) => ("error", "off"),
        (false, 0) => ("warn", "off"),
        (false, 1) => ("info", "info"),
        (false, _) => ("debug", "debug"),
    };
    let filter = |text: String| EnvFilter::new(text);
    let journal_level = if global.verbose > 1 { "debug" } else { "info" };
    let journal =
        (is_unit || nix::unistd::geteuid().is_root()).then(|| tracing_journald::layer().ok()).flatten();
    let journal = journal.map(|journal| {
        let what = if is_unit {
            format!("cutover={journal_level},{EVENT}=info")
        } else {
            format!("cutover=warn,{EVENT}=info")
        };
        journal.with_field_prefix(None).with_filter(filter(what))
    });
    let stderr = (!is_unit || journal.is_none()).then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_filter(filter(format!("cutover={level},{EVENT}={event}")))
    });
    drop(tracing_subscriber::registry().with(journal).with(stderr).try_init());
}

/// Whether systemd started this, and its journal reads what is written to stderr.
pub fn is_under_systemd() -> bool {
    is_journal(std::io::stderr())
}

/// Whether the journal reads what is written there: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)). The
/// variable alone says nothing: a terminal of a desktop inherits it, too.
pub fn is_journal(stream: impl AsFd) -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(stream).is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}
