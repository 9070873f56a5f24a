//! Where the log goes: to the journal under systemd, to stderr otherwise.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::Global;

/// Begins to log. Under systemd everything of note goes to the journal with its fields; a person sees warnings only,
/// unless they ask for more, since each command says itself what it does.
pub fn begin(global: &Global) {
    let under_systemd = is_under_systemd();
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) if under_systemd => "info",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let registry = tracing_subscriber::registry().with(EnvFilter::new(format!("cutover={level}")));
    match tracing_journald::layer() {
        Ok(journal) if under_systemd => drop(registry.with(journal.with_field_prefix(None)).try_init()),
        _ => {
            let stderr = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .without_time()
                .with_target(false)
                .with_ansi(false);
            drop(registry.with(stderr).try_init());
        }
    }
}

/// Whether systemd started this, and reads what is written.
pub fn is_under_systemd() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}
