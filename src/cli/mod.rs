//! The command line. This layer alone prints and exits.
//!
//! ```text
//! words     what may be typed: the words, their help, completions
//! output    what is told: results, progress, the log, the published status
//! failure   what is told of an error: message, state, hint, exit code
//! context   what every command works with        stop, handover   how a run ends, or is handed on
//! ```
//! All others are commands, or what some of them share.

mod context;
mod copying;
mod data;
pub mod failure;
mod fleet;
mod going_back;
mod handover;
mod health;
mod info;
mod init;
mod marks;
pub mod output;
mod plan;
mod produce;
mod refused;
mod rehearse;
pub mod report;
mod signing;
pub mod status;
mod stop;
mod trees;
mod update;
mod watching;
pub mod words;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use context::Context;
use failure::{Error, code};
use output::say;
use output::{logging, monitoring};
use words::args::{self, Cli, Command, Global};
use words::{completion, examples, schema};

use crate::lifecycle::node::Error as NodeError;
use crate::release::source;

/// Runs the program with these words, and says its exit code.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A lock of the caller's (flock(1) in a job of cron) would be held by a service that we start, for as long as it runs.
    crate::sys::kernel::descriptor::close_inherited_on_exec();
    stop::outlive_file_limits();
    let words: Vec<OsString> = words.into_iter().collect();
    if let [_, word] = &words[..]
        && word == source::READ_COMMAND
    {
        // Nobody typed this. What went wrong is told to whoever started us, or he sees us end.
        return ExitCode::from(u8::from(source::serve().is_err()));
    }
    let cli = match examples::parse(&words) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { code::USAGE } else { 0 });
        }
    };
    logging::begin(&cli.global);
    let interrupted = Arc::new(AtomicBool::new(false));
    let watched = match &cli.command {
        // It ends with whoever started it.
        Command::BoardHelper(_) => Ok(()),
        command => stop::watch_signals(heeds_signals(command).then_some(&interrupted)).map_err(Error::from),
    };
    match watched.and_then(|()| dispatch(&cli, interrupted)) {
        // The exit code of an update tells its outcome, whoever hears the rest.
        Ok(0) if output::is_lost() && long_work(&cli.command).is_none() => ExitCode::from(code::FAILED),
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(tell(&cli.global, &error)),
    }
}

/// Every command, and where it is done.
fn dispatch(cli: &Cli, interrupted: Arc<AtomicBool>) -> Result<u8, Error> {
    let disk = stop::disk();
    let context = || Context::load(&cli.global, interrupted.clone(), disk.clone());
    if let Some(verb) = long_work(&cli.command)
        && handover::is_wanted()
        && let Some(code) = handover::follow(&context()?.app, verb)
    {
        return Ok(code);
    }
    match &cli.command {
        Command::Status(args) => status::status(args, &cli.global, &context),
        Command::List(args) => trees::list(&context()?, args),
        Command::Check => plan::check(&context()?),
        Command::Stage(args) => update::stage(&context()?, args),
        Command::Switch(args) => update::switch(&context()?, args),
        Command::Update(args) => update::update(&context()?, args),
        Command::Rehearse(args) => rehearse::rehearse(&context()?, args),
        Command::Commit => going_back::commit(&context()?),
        Command::Rollback(args) => going_back::rollback(&context()?, args),
        Command::Hold(args) => marks::hold(&context()?, args),
        Command::Unhold => marks::unhold(&context()?),
        Command::Pin(args) => marks::pin(&context()?, &args.version, true),
        Command::Unpin(args) => marks::pin(&context()?, &args.version, false),
        Command::MarkBad(args) => marks::mark_bad(&context()?, args),
        Command::MarkGood(args) => marks::mark_good(&context()?, &args.version),
        Command::Health(args) => health::health(&context()?, args),
        Command::Data(command) => data::data(&context()?, command),
        Command::Verify(args) => trees::verify(&context()?, args),
        Command::Diff(args) => trees::diff(&context()?, args),
        Command::Prune(args) => trees::prune(&context()?, args),
        Command::Log(args) => info::log(&context()?, args),
        Command::Recover(args) => going_back::recover(&context()?, args),
        Command::Adopt(args) => trees::adopt(&context()?, args),
        Command::Pack(args) => produce::pack(&cli.global, args, &disk),
        Command::Keygen(args) => signing::keygen(&cli.global, args, &disk),
        Command::Sign(args) => signing::sign(&cli.global, args, &disk),
        Command::VerifySignature(args) => signing::verify_signature(&cli.global, args),
        Command::Copy(args) => copying::copy(&cli.global, args),
        Command::Publish(args) => signing::publish(&cli.global, args, &disk),
        Command::Trust(command) => signing::trust(&context()?, command),
        Command::Fleet(command) => fleet::run(&context()?, command),
        Command::BoardHelper(args) => fleet::help(args, &disk),
        // The schema is the same for all.
        Command::Config(args::ConfigCommand::Schema) => {
            output::print(&serde_json::to_string_pretty(&schema::schema()).unwrap_or_default());
            Ok(0)
        }
        Command::Config(command) => info::config(&context()?, command),
        Command::Complete(args) => {
            completion::names(args.names, &cli.global);
            Ok(0)
        }
        Command::Init(args) => init::init(args, &cli.global, &disk),
        Command::Report(args) => report::report(args, &cli.global, &disk, &context),
        Command::Completions(args) => {
            output::print_bytes(&completion::script(args.shell));
            Ok(0)
        }
    }
}

/// The commands that do not just end when Ctrl-C is typed: they have something to put in order first, or to tell.
fn heeds_signals(command: &Command) -> bool {
    let watches = matches!(command, Command::Status(args) if args.watch)
        || matches!(command, Command::Log(args) if args.follow);
    let changes =
        matches!(command, Command::Stage(_) | Command::Rehearse(_) | Command::Commit | Command::Fleet(_));
    watches
        || changes
        || long_work(command).is_some()
        || matches!(command, Command::Recover(_) | Command::Rollback(_))
}

/// The commands that must not end with the terminal that they were typed on.
fn long_work(command: &Command) -> Option<&'static str> {
    match command {
        Command::Switch(_) => Some("switch"),
        Command::Rehearse(_) => Some("rehearse"),
        Command::Update(args) if !args.dry_run => Some("update"),
        Command::Rollback(args) if !args.check && !args.now => Some("rollback"),
        Command::Recover(args) if !args.boot && !args.watch => Some("recover"),
        _ => None,
    }
}

/// Tells an error, with the release that serves now and what to do next; says the exit code.
pub fn tell(global: &Global, error: &Error) -> u8 {
    let failure = failure::failure(error);
    let paint = |tone, text: &str| output::paint_stderr(global, tone, text);
    match error {
        Error::Node(NodeError::NeedsPerson(needs)) if logging::is_told(std::io::stderr()) => {
            monitoring::needs_person(&needs.reason);
        }
        _ => say(&format!("{} {}", paint(output::Tone::Alarm, "error:"), failure.message)),
    }
    if !matches!(error, Error::Config(_) | Error::Usage { .. })
        && let Some(state) = info::state_line(global)
    {
        say(&format!("state: {state}"));
    }
    if let Some(hint) = &failure.hint {
        say(&format!("{} {hint}", paint(output::Tone::Well, "hint:")));
    }
    if global.json {
        let report =
            serde_json::json!({"error": failure.message, "hint": failure.hint, "exit_code": failure.code});
        output::print(&report.to_string());
    }
    failure.code
}
