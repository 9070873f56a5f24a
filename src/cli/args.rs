//! The words of the command line. Their help texts are the reference: man pages and completions are made of them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::signing_args::{KeygenArgs, PublishArgs, SignArgs, TrustCommand, VerifySignatureArgs};
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
Exit codes:
   0  done, or nothing to do                  12  refused: signature, content, format, banned
   1  failed, and nothing changed             13  the fleet called the rollout off
   2  wrong usage or configuration            14  needs a person
  10  rolled back; the old release is well    15  not now: hold, window, phase, slot, baseline
  11  another cutover is at work              16  not enough space; nothing was written
  77  `check`: nothing newer                  17  shared storage away, or the outcome in doubt";

/// Options of all commands.
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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what runs, since when, what is going on, and what to type next
    Status(StatusArgs),
    /// List the releases on this node
    List(ListArgs),
    /// Look for a newer release that may be installed; exit 77 when there is none
    Check,
    /// Fetch, verify and unpack a release aside; the running one is untouched
    Stage(StageArgs),
    /// Switch to a staged release, watch it, and go back if it is sick
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
    Commit,
    /// Go back to the previous good release: local, offline, at once
    ///
    /// Needs no network, no source and no shared storage. Services are restarted and their health is checked. Sets a
    /// hold, since the timer would undo it otherwise; `cutover unhold` lifts it.
    Rollback(RollbackArgs),
    /// Stop automatic switching; staging goes on
    Hold(HoldArgs),
    /// Let automatic switching go on
    Unhold,
    /// Never prune this release
    Pin(VersionArgs),
    /// Let this release be pruned
    Unpin(VersionArgs),
    /// Never switch to this release (by its digest)
    MarkBad(MarkBadArgs),
    /// Let this release be switched to again
    MarkGood(VersionArgs),
    /// Run the health checks now
    Health(HealthArgs),
    /// Show and drop the data that rollbacks have set aside
    #[command(subcommand)]
    Data(DataCommand),
    /// Compare the tree of a release with what it must be
    Verify(VerifyArgs),
    /// Show what differs between two releases on this node
    Diff(DiffArgs),
    /// Remove releases that nobody needs: never active, previous good, pinned, on trial, or in use
    Prune(PruneArgs),
    /// Show what happened, newest first
    Log(LogArgs),
    /// Finish or undo what was interrupted; may be run at any time
    Recover(RecoverArgs),
    /// Take over a directory, or an existing `current`, as the first release
    Adopt(AdoptArgs),
    /// Make a release of a directory: an archive and its manifest
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
    /// Whose releases are taken, and what was seen of channels
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Agree with other nodes on one release, through files on shared storage
    #[command(subcommand)]
    Fleet(super::fleet::args::FleetCommand),
    /// Touch a fleet's directory for another cutover, which may kill this process
    #[command(hide = true)]
    BoardHelper(super::fleet::args::HelperArgs),
    /// Show the configuration in force, or check it
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a page to look at: a node's past, or a fleet's rollouts
    ///
    /// One file that needs nothing from elsewhere and no scripts, for browsers old and new, light and dark.
    Report(ReportArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
}

/// Of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// All configured applications
    #[arg(long)]
    pub all: bool,
    /// Show it again every second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// What the source offers, too
    #[arg(long)]
    pub available: bool,
}

/// How a file without a trusted signature is taken.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// The version of FILE, if neither a manifest nor its name says it
    #[arg(long, value_name = "VERSION")]
    pub version: Option<Version>,
    /// Take FILE without a signature: whoever made it becomes root's equal here
    #[arg(long)]
    pub allow_unsigned: bool,
}

/// Of `stage`.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// A version that the source offers, or an archive; absent: the channel's release
    #[arg(value_name = "VERSION|FILE")]
    pub what: Option<String>,
    /// See there.
    #[command(flatten)]
    pub file: FileArgs,
}

/// How long the trial is, and who ends it.
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

/// Of `rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// A staged release, a version that the source offers, or an archive; absent: the channel's release
    #[arg(value_name = "VERSION|FILE")]
    pub what: Option<String>,
    /// See there.
    #[command(flatten)]
    pub file: FileArgs,
}

/// Of `switch`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// The staged release
    #[arg(value_name = "VERSION")]
    pub version: Version,
    /// See there.
    #[command(flatten)]
    pub trial: TrialArgs,
    /// Switch at this moment (RFC 3339, or HH:MM today)
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Switch although the checks fail now, or the release is banned
    #[arg(long)]
    pub now: bool,
}

/// Of `update`.
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
}

/// Of `rollback`.
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
    /// End a trial that another cutover watches
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

/// Of `hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Until when: RFC 3339, or a duration from now such as `2d`
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// One release.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// The release
    #[arg(value_name = "VERSION")]
    pub version: Version,
}

/// Of `mark-bad`.
#[derive(Debug, Args)]
pub struct MarkBadArgs {
    /// The release
    #[arg(value_name = "VERSION")]
    pub version: Version,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The release; absent: the active one
    #[arg(value_name = "VERSION")]
    pub version: Option<Version>,
    /// Make the tree what it must be again; only what differs is fetched
    #[arg(long)]
    pub repair: bool,
    /// Take what differs from this archive, not from the source
    #[arg(long, value_name = "FILE", requires = "repair")]
    pub from: Option<PathBuf>,
    /// Take an archive that nobody has signed
    #[arg(long, requires = "from")]
    pub allow_unsigned: bool,
}

/// Of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The one
    #[arg(value_name = "A")]
    pub one: Version,
    /// The other
    #[arg(value_name = "B")]
    pub other: Version,
}

/// Of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Say what would go, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Of `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    pub number: usize,
    /// Only what happened since: RFC 3339, or a duration such as `2d`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// Of `recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// At boot, before the application starts: settle pointer and data only; the rest follows once it runs
    #[arg(long)]
    pub boot: bool,
}

/// Of `adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The directory, or a link to it
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// What the release shall be called; absent: the directory's name
    #[arg(long, value_name = "VERSION")]
    pub version: Option<Version>,
}

/// Of `pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// The directory that holds what is released
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The product's name
    #[arg(long, value_name = "NAME")]
    pub product: String,
    /// The release's version
    #[arg(long, value_name = "VERSION")]
    pub version: Version,
    /// The archive to write; its manifest is written beside it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The archive of the previous release: unchanged files keep their times, and updates fetch less
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Compression, 1 (fast) to 22 (small)
    #[arg(long, value_name = "NUMBER", default_value_t = 9, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// The kinds of nodes that it is for, as in their `[source] compatible` (repeat the option); absent: all
    #[arg(long, value_name = "NAME")]
    pub compatible: Vec<String>,
    /// Which data this release reads (numbers; repeat the option)
    #[arg(long, value_name = "EPOCH")]
    pub data_read: Vec<u64>,
    /// Which data this release writes (a number)
    #[arg(long, value_name = "EPOCH")]
    pub data_write: Option<u64>,
}

/// Of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Wait until all pass, for as long as a new release may take (`deadline`)
    #[arg(long)]
    pub wait: bool,
}

/// Of `data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// List what was set aside: by which rollback, when, how much, and where it is
    List,
    /// Delete what one rollback has set aside, for good
    Drop(DropArgs),
}

/// Of `data drop`.
#[derive(Debug, Args)]
pub struct DropArgs {
    /// The rollback, as `data list` names it
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the effective values, and the file that each comes from
    Show,
    /// Check the configuration, and say nothing if it is well
    Check,
}

/// Of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The file to write; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    /// About the fleet that meets in this directory, instead of about this node
    #[arg(long, value_name = "DIR")]
    pub fleet: Option<PathBuf>,
}

/// Of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
