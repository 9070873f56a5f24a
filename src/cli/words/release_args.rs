//! The words of the commands that look at releases, keep them, and make them.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::release::source::local;
use crate::types::Version;
use crate::types::version::NotAVersion;

#[derive(Debug, Args)]
#[command(override_usage = "cutover verify [OPTIONS] [VERSION] [--repair [--from FILE [--allow-unsigned]]]")]
pub struct VerifyArgs {
    /// The release; absent: the active one
    #[arg(value_name = "VERSION", value_parser = version_not_file)]
    pub version: Option<Version>,
    /// Repair the tree; only what differs is fetched
    #[arg(long)]
    pub repair: bool,
    /// Take what differs from this archive, not from the source
    #[arg(long, value_name = "FILE", requires = "repair")]
    pub from: Option<PathBuf>,
    /// Take an archive that nobody has signed
    #[arg(long, requires = "from")]
    pub allow_unsigned: bool,
}

/// Reads a version where people tend to name an archive.
fn version_not_file(text: &str) -> Result<Version, String> {
    if text.contains('/') || local::stem(Path::new(text)).is_some() {
        return Err(format!(
            "it is a file: `cutover verify --repair --from {text}` takes from it what differs; `cutover verify` looks at \
             the trees on this node"
        ));
    }
    text.parse().map_err(|error: NotAVersion| error.to_string())
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The one
    #[arg(value_name = "A")]
    pub one: Version,
    /// The other
    #[arg(value_name = "B")]
    pub other: Version,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Say what would go, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// At most so many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    pub number: usize,
    /// Only what happened since: RFC 3339, a date, or a duration such as `2d`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Show each further outcome as it comes, until Ctrl-C; with `--json` a line each
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// At boot, before the application starts: settle pointer and data only; the rest follows once it runs
    #[arg(long)]
    pub boot: bool,
    /// For the timer: look after the update under way, and see that it ends even if whoever carries it out does not
    #[arg(long, hide = true, conflicts_with = "boot")]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The directory, or a link to it
    #[arg(value_name = "PATH", required_unless_present = "undo")]
    pub path: Option<PathBuf>,
    /// What the release shall be called; absent: the directory's name
    #[arg(long, value_name = "VERSION")]
    pub version: Option<Version>,
    /// Put back what was taken over, as it was; until the first switch
    #[arg(long, conflicts_with_all = ["path", "version"])]
    pub undo: bool,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The service that runs the application
    #[arg(long, value_name = "UNIT")]
    pub unit: String,
    /// Print the configuration, and write nothing
    #[arg(long)]
    pub print: bool,
}

/// What may be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Names {
    /// Releases on this node, and the one on offer.
    Versions,
    /// Configured applications.
    Apps,
    /// Members of the fleet, as far as this node knows them.
    Members,
    /// Channels that this node has seen.
    Channels,
}

#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// Which names
    #[arg(value_enum, value_name = "NAMES")]
    pub names: Names,
}

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
    /// Whose all entries are on the nodes, as numbers; root's (0:0) unless told otherwise, whoever packs
    #[arg(long, value_name = "USER:GROUP", value_parser = parse_owner, conflicts_with = "keep_owner")]
    pub owner: Option<(u32, u32)>,
    /// Record the owners that the files have here, by their numbers
    #[arg(long)]
    pub keep_owner: bool,
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

fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    // All ones mean "nobody in particular" to the kernel.
    let numbers = numbers.filter(|(uid, gid)| ![*uid, *gid].contains(&u32::MAX));
    numbers.ok_or_else(|| "say two numbers, such as `0:0` or `33:33`".to_owned())
}

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Wait until all pass, for as long as a new release may take (`deadline`)
    #[arg(long)]
    pub wait: bool,
}

/// Of `data`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum DataCommand {
    /// List what was set aside: by which rollback, when, how much, and where it is
    List,
    /// Delete what one rollback has set aside, for good
    Drop(DropArgs),
}

#[derive(Debug, Args)]
pub struct DropArgs {
    /// The rollback, as `data list` names it
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Of `config`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum ConfigCommand {
    /// Show the effective values, and the file that each comes from
    Show,
    /// Print a JSON schema of the configuration, for editors
    ///
    /// With `#:schema /usr/share/cutover/cutover.schema.json` in the first line of the file, editors that know TOML schemas
    /// complete and check it.
    Schema,
    /// Check the configuration, and say nothing if it is well
    ///
    /// Also whether a rehearsal that is configured can be had here, and whether a fleet's rollouts can end well by its
    /// times. Nothing is started, and no storage is asked.
    Check,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The file to write; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    /// About the fleet that meets in this directory, instead of about this node
    #[arg(long, value_name = "DIR")]
    pub fleet: Option<PathBuf>,
    /// So many of the newest rollouts; absent: 12, of a large fleet fewer
    #[arg(long, value_name = "N", requires = "fleet")]
    pub rollouts: Option<usize>,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
