//! Where the log goes: to the journal under systemd, to stderr otherwise. What happened to the application goes to the
//! journal in any case, when root did it: an update by hand is as worth knowing as one of the timer.

use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{DefaultFields, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::words::args::Global;

/// The target of messages that tell what happened to the application: phases, outcomes, needs.
pub const EVENT: &str = "event";

/// Begins to log. Under systemd everything of note goes to the journal with its fields; a person sees warnings only,
/// unless they ask for more, since each command says itself what it does.
pub fn begin(global: &Global) {
    let is_unit = is_under_systemd();
    let (level, event) = match (global.quiet, global.verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (false, 0) => (LevelFilter::WARN, LevelFilter::OFF),
        (false, 1) => (LevelFilter::INFO, LevelFilter::INFO),
        (false, _) => (LevelFilter::DEBUG, LevelFilter::DEBUG),
    };
    let filter = |level, event| Targets::new().with_target("cutover", level).with_target(EVENT, event);
    let journal_level = if global.verbose > 1 { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let journal =
        (is_unit || nix::unistd::geteuid().is_root()).then(|| tracing_journald::layer().ok()).flatten();
    let journal = journal.map(|journal| {
        let level = if is_unit { journal_level } else { LevelFilter::WARN };
        journal.with_field_prefix(None).with_filter(filter(level, LevelFilter::INFO))
    });
    let with_fields = global.verbose > 0;
    let stderr = (!is_unit || journal.is_none()).then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .event_format(ForPeople { with_fields })
            .with_ansi(false)
            .with_filter(filter(level, event))
    });
    drop(tracing_subscriber::registry().with(journal).with(stderr).try_init());
}

/// A line as the other lines that people read here: `warning: …`. The journal's fields follow only when more is asked for.
struct ForPeople {
    with_fields: bool,
}

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "info: ",
            Level::DEBUG | Level::TRACE => "debug: ",
        })?;
        if self.with_fields {
            DefaultFields::new().format_fields(writer.by_ref(), event)?;
        } else {
            let message = debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{value:?}"),
                _ => Ok(()),
            });
            message.format_fields(writer.by_ref(), event)?;
        }
        writeln!(writer)
    }
}

/// Whether systemd started this, and its journal reads what is written to stderr.
pub fn is_under_systemd() -> bool {
    is_journal(std::io::stderr())
}

/// Whether the journal reads what is written there, and has what was logged already, with its fields.
pub fn is_told(stream: impl AsFd) -> bool {
    is_journal(stream) && std::path::Path::new("/run/systemd/journal/socket").exists()
}

/// Whether the journal reads what is written there: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)). The
/// variable alone says nothing: a terminal of a desktop inherits it, too.
fn is_journal(stream: impl AsFd) -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(stream).is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}
