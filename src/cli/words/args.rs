//! The words of the command line. Their help texts are the reference: man pages and completions are made of them.
//!
//! A command's help stands at its variant. The structs of arguments have none: clap would show theirs in its place.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::release_args::{
    AdoptArgs, CompleteArgs, CompletionsArgs, ConfigCommand, DataCommand, DiffArgs, DropArgs, HealthArgs,
    InitArgs, LogArgs, PackArgs, PruneArgs, RecoverArgs, ReportArgs, VerifyArgs,
};
use super::signing_args::{CopyArgs, KeygenArgs, PublishArgs, SignArgs, TrustCommand, VerifySignatureArgs};
use crate::types::record::DataPolicy;
use crate::types::{Span, Version};

/// Bring a node from one release of an application to the next, and back when the next one is sick
///
/// A release is staged beside the running one, switched to by one rename, and watched. A release that is not healthy
/// in time is rolled back by itself: program files, configuration and data. Whatever is killed or unplugged, the node
/// ends on one complete release, and `cutover status` says which, since when, and what to type next.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 100, propagate_version = false)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Begin with `cutover status`. `cutover adopt PATH` takes over what runs already, `cutover check` says what an update
would take, `cutover update` makes it, `cutover rollback` goes back. `cutover COMMAND --help` says more of each.

Exit codes:
   0  done, or nothing to do                  12  refused: signature, content, format, banned
   1  failed, and nothing changed             13  the fleet called the rollout off
   2  wrong usage or configuration            14  needs a person
  10  rolled back; the old release is well    15  not now: hold, window, phase, slot, baseline, units
  11  another cutover is at work              16  not enough space; nothing was written
  77  `check`: nothing newer                  17  shared storage away, or the outcome in doubt";

// Options of all commands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The application; the only one configured is the default
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub app: Option<String>,
    /// Read this configuration file and no other
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// The directory of releases and pointer; works without any configuration (no units, no checks)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub root: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Say more; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Global options"
    )]
    pub color: Color,
    /// How to show the progress of long work
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "HOW",
        help_heading = "Global options"
    )]
    pub progress: ProgressKind,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// A bar on a terminal, else nothing.
    #[default]
    Auto,
    /// A line now and then.
    Plain,
    /// JSON lines on stderr.
    Json,
    /// Nothing.
    None,
}

/// What to do. Of a command that nobody typed only the name is made.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Show what runs, since when, what is going on, and what to type next
    ///
    /// Asks nobody and changes nothing: neither the source, nor shared storage, nor a lock. `--json` has the same facts
    /// for programs; its keys are only ever added to.
    Status(StatusArgs),
    /// List the releases on this node
    ///
    /// Each with its state (active, previous, pinned, bad, staged), the channel's serial, its size, and the processes that
    /// run from it. `--available` asks the source, too.
    List(ListArgs),
    /// Look for a newer release that may be installed; exit 77 when there is none
    ///
    /// Says what an update would take: the bytes to fetch (with `-v` every part of the archive) and to write, what is
    /// restarted, how data are copied, and which policies are in the way. Nothing is changed, and nothing remembered.
    Check,
    /// Fetch, verify and unpack a release aside; the running one is untouched
    ///
    /// May be interrupted at any time, also by Ctrl-C: what was fetched is kept, and the next run goes on.
    Stage(StageArgs),
    /// Switch to a staged release, watch it, and go back if it is sick
    ///
    /// Stops services, copies data, moves the pointer, starts services, and runs the checks for the trial. Windows, jitter
    /// and phases are for automatic updates: who names a release goes before them. `--confirm --trial 5min` protects you
    /// from locking yourself out: unless `cutover commit` is typed in time, the old release comes back.
    Switch(SwitchArgs),
    /// Bring this node to the wanted release
    ///
    /// Finishes an interrupted update first, if there is one. Then stages the wanted release, switches to it, and
    /// watches it for the trial. A release that is not healthy by then is rolled back, and is not tried again until
    /// `cutover mark-good` or a newer release.
    Update(UpdateArgs),
    /// Run a release beside the running one, on copies of its data, and switch nothing
    ///
    /// Stages the release if it is not here. Then starts it from its tree in a network of its own, with a copy of the
    /// data, asks the health checks there, and removes all of it again. Exit 0: it is well. Exit 12: it is not, and is
    /// not switched to until `cutover mark-good` or a newer release. What is configured in `[rehearsal]` holds; without
    /// it the application's own units are run.
    Rehearse(RehearseArgs),
    /// Keep the release on trial now
    ///
    /// Ends the trial that another cutover watches, or one that waits for this word (`--confirm`).
    Commit,
    /// Go back to the previous good release: local, offline, at once
    ///
    /// Needs no network, no source and no shared storage. Services are restarted and their health is checked. Sets a
    /// hold, since the timer would undo it otherwise; `cutover unhold` lifts it. In a trial it ends the trial. An update
    /// that waits is called off first; `cutover hold` calls it off and stays.
    Rollback(RollbackArgs),
    /// Stop automatic switching; staging goes on
    ///
    /// Even `update --now` does not pass a hold; `switch` and `rollback` do, since a person types them. A rollback by hand
    /// sets one. For example: `cutover hold --until 2d --reason "the fair"`.
    Hold(HoldArgs),
    /// Let automatic switching go on
    Unhold,
    /// Never prune this release
    Pin(VersionArgs),
    /// Let this release be pruned
    Unpin(VersionArgs),
    /// Never switch to this release (by its digest)
    ///
    /// What failed its trial is marked by itself. A newer release is taken as soon as it comes.
    MarkBad(MarkBadArgs),
    /// Let this release be switched to again
    MarkGood(VersionArgs),
    /// Run the health checks now
    ///
    /// Shows the answer of each. Exit code 0 when all required ones pass, else 1.
    Health(HealthArgs),
    /// Show and drop the data that rollbacks have set aside
    #[command(subcommand)]
    Data(DataCommand),
    /// Compare the files of a release with its manifest
    ///
    /// Hashes every file. Exit code 12 when it differs; `--repair` puts a whole tree in its place.
    Verify(VerifyArgs),
    /// Show what differs between two releases on this node
    Diff(DiffArgs),
    /// Remove releases that nobody needs: never active, previous good, pinned, on trial, or in use
    Prune(PruneArgs),
    /// Show what happened, newest first
    ///
    /// One line for each outcome, with who asked, how long the service was away, and why it ended so. `--json` has the
    /// transaction, by which the journal and the metrics tell the same outcome.
    Log(LogArgs),
    /// Finish or undo what was interrupted; may be run at any time
    ///
    /// What was interrupted before the pointer moved is called off, unless a fleet counts on it; a trial is watched again, or
    /// goes back when its time is over. The unit at boot and the timer of the deadline run this.
    Recover(RecoverArgs),
    /// Write a first configuration, from a unit that runs already
    ///
    /// Looks at the unit, its processes, the ports that they listen on and the pages that answer there, and writes
    /// `/etc/cutover/<app>.toml` with comments. Says what it did not find. Nothing else is changed.
    Init(InitArgs),
    /// Take over a directory, or an existing `current`, as the first release
    ///
    /// So that the first rollback has somewhere to go. The directory is moved to `releases/VERSION` below the root, and
    /// `current` becomes a link to it; from another file system it is copied, and the old one is left alone. The service
    /// is not restarted. `--undo` puts all of it back, until the first switch.
    Adopt(AdoptArgs),
    /// Make a release of a directory: an archive and its manifest
    ///
    /// The archive is a `.tar.zst` that every tar reads, and that knows its own map: nodes fetch what they lack. Give
    /// `--base` the archive of the release before, and updates fetch still less.
    Pack(PackArgs),
    /// Make a pair of ed25519 keys, as `ssh-keygen` makes them
    Keygen(KeygenArgs),
    /// Sign manifests or channels: the signature goes into FILE.sig
    ///
    /// The same as `ssh-keygen -Y sign -n cutover-release` (or `cutover-channel`). Signatures of other keys that are
    /// there and hold are kept, so that several people can sign one after the other.
    Sign(SignArgs),
    /// Say by which trusted keys a manifest or a channel is signed
    VerifySignature(VerifySignatureArgs),
    /// Say which release of a directory is to run, in a signed channel
    ///
    /// Makes manifests for archives that have none, signs the release's manifest if it is not signed, and writes the
    /// channel with the next serial. Run it again, without a version, before the channel expires.
    Publish(PublishArgs),
    /// Copy a channel and its releases from one place to another
    ///
    /// Places are what `[source] url` takes: directories, web servers, registries, buckets. What is there already is left,
    /// archives come before manifests, and the channel comes last. Nothing is signed, and nobody is trusted: nodes judge
    /// for themselves. For nodes without a network, copy to a directory on a stick.
    Copy(CopyArgs),
    /// Whose releases are taken, and what was seen of channels
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Agree with other nodes on one release, through files on shared storage
    #[command(subcommand)]
    Fleet(crate::cli::fleet::args::FleetCommand),
    /// Touch a fleet's directory for another cutover, which may kill this process
    #[command(hide = true)]
    BoardHelper(crate::cli::fleet::args::HelperArgs),
    /// Show the configuration in force, or check it
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a page to look at: a node's past, or a fleet's rollouts
    ///
    /// One file that needs nothing from elsewhere and no scripts, for browsers old and new, light and dark.
    Report(ReportArgs),
    /// Print the completions for a shell
    ///
    /// For example `source <(cutover completions bash)`. The packages install them.
    Completions(CompletionsArgs),
    /// Print names for completion
    #[command(hide = true)]
    Complete(CompleteArgs),
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// All configured applications
    #[arg(long)]
    pub all: bool,
    /// Show it again every second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// What the source offers, too
    #[arg(long)]
    pub available: bool,
}

// How a file without a trusted signature is taken.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// The version of FILE, if neither a manifest nor its name says it
    #[arg(long, value_name = "VERSION")]
    pub version: Option<Version>,
    /// Take FILE without a signature: whoever made it becomes root's equal here
    #[arg(long)]
    pub allow_unsigned: bool,
}

#[derive(Debug, Args)]
pub struct StageArgs {
    /// A version that the source offers, or an archive; absent: the channel's release
    #[arg(value_name = "VERSION|FILE")]
    pub what: Option<String>,
    /// See there.
    #[command(flatten)]
    pub file: FileArgs,
}

// How long the trial is, and who ends it.
#[derive(Clone, Debug, Default, Args)]
pub struct TrialArgs {
    /// How long the new release is watched before it is committed
    #[arg(long, value_name = "DURATION")]
    pub trial: Option<Span>,
    /// Keep the release only if `cutover commit` is run within the trial
    #[arg(long)]
    pub confirm: bool,
    /// Keep the new release whatever the checks say
    #[arg(long, conflicts_with = "confirm")]
    pub no_rollback: bool,
    /// Switch without the rehearsal that is configured
    #[arg(long)]
    pub no_rehearsal: bool,
}

#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// A staged release, a version that the source offers, or an archive; absent: the channel's release
    #[arg(value_name = "VERSION|FILE")]
    pub what: Option<String>,
    /// See there.
    #[command(flatten)]
    pub file: FileArgs,
}

#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// The staged release
    #[arg(value_name = "VERSION")]
    pub version: Version,
    /// See there.
    #[command(flatten)]
    pub trial: TrialArgs,
    /// Switch at this moment: RFC 3339, HH:MM (UTC, the next one), or a duration from now such as `2h`
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Switch although the checks fail now, or the release is banned
    #[arg(long)]
    pub now: bool,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// A version that the source offers, or an archive; absent: the channel's release
    #[arg(value_name = "VERSION|FILE")]
    pub what: Option<String>,
    /// See there.
    #[command(flatten)]
    pub file: FileArgs,
    /// See there.
    #[command(flatten)]
    pub trial: TrialArgs,
    /// Don't wait for window, jitter, phase or baseline (a hold still holds)
    #[arg(long)]
    pub now: bool,
    /// Say what would happen, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Don't wait for other nodes; exit 15 instead
    #[arg(long)]
    pub no_wait: bool,
    /// When another cutover is at work, wait for its end, at most so long (1h); else exit 11
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1h")]
    pub wait: Option<Span>,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The release to go back to; absent: the previous good one
    #[arg(value_name = "VERSION")]
    pub version: Option<Version>,
    /// Say what would happen, and touch nothing
    #[arg(long)]
    pub check: bool,
    /// What to do with the data
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub data: DataChoice,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Don't stop automatic switching
    #[arg(long)]
    pub no_hold: bool,
    /// End a trial that another cutover watches: `rollback` alone does so, too
    #[arg(long)]
    pub now: bool,
}

/// What to do with the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DataChoice {
    /// Keep them if the old release reads what the new one wrote, else restore.
    #[default]
    Auto,
    /// Leave them as they are.
    Keep,
    /// Bring back the copy from before the switch, and set the newer data aside.
    Restore,
}

impl From<DataChoice> for DataPolicy {
    fn from(choice: DataChoice) -> Self {
        match choice {
            DataChoice::Auto => Self::Auto,
            DataChoice::Keep => Self::Keep,
            DataChoice::Restore => Self::Restore,
        }
    }
}

#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Until when: RFC 3339, or a duration from now such as `2d`
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

// One release.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// The release
    #[arg(value_name = "VERSION")]
    pub version: Version,
}

#[derive(Debug, Args)]
pub struct MarkBadArgs {
    /// The release
    #[arg(value_name = "VERSION")]
    pub version: Version,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}
