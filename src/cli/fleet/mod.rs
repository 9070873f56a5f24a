//! `fleet`: what operators do with a fleet, and a member's part in `update`.

pub mod args;
mod care;
mod check;
mod people;
mod propose;
mod report;
mod status;
mod update;

use std::path::Path;

use args::{FleetCommand, HelperArgs};
use jiff::Timestamp;

use super::context::Context;
use super::failure::Error;
use crate::config::Problem;
use crate::coord::Settings as FleetSettings;
use crate::coord::alive::Alive;
use crate::coord::board::directory::DirectoryBoard;
use crate::coord::board::helper::HelperBoard;
use crate::coord::board::serve::serve;
use crate::coord::facts::Fleet;
use crate::coord::look::{Signer, Trust};
use crate::coord::operate::{self, Operator};
use crate::coord::rollout::Rollout;
use crate::coord::settings::Mode;
use crate::lifecycle::agreement;
use crate::lifecycle::fleet::{FleetKeys, Kept, KeyFile};
use crate::lifecycle::settings::Settings;
use crate::store::Store;
use crate::sys::disk::Disk;
use crate::types::{ReleaseId, Version};

pub use update::update;

/// Every command of `fleet`.
pub fn run(context: &Context, command: &FleetCommand) -> Result<u8, Error> {
    match command {
        FleetCommand::Init => people::init(context),
        FleetCommand::Join => people::join(context),
        FleetCommand::Members(args) => people::members(context, args),
        FleetCommand::Check(args) => check::check(context, args),
        FleetCommand::Propose(args) => propose::propose(context, args),
        FleetCommand::Status(args) => status::status(context, args),
        FleetCommand::Report(args) => report::report(context, args),
        FleetCommand::Abort(args) => propose::abort(context, args),
        FleetCommand::Waive(args) => propose::waive(context, args),
        FleetCommand::Resume => people::resume(context),
        FleetCommand::Export(args) => care::export(context, args),
        FleetCommand::Import(args) => care::import(context, args),
        FleetCommand::Gc(args) => care::gc(context, args),
        FleetCommand::Repair => care::repair(context),
    }
}

/// `board-helper`: serves another cutover over stdin and stdout until that closes them.
pub fn help(args: &HelperArgs, disk: &Disk) -> Result<u8, Error> {
    let mut board = DirectoryBoard::new(args.directory.clone(), &args.node, disk.clone());
    let served = serve(&mut board, &mut std::io::stdin().lock(), &mut std::io::stdout().lock());
    Ok(u8::from(served.is_err()))
}

/// The board that the settings name, behind a helper that can be killed.
pub fn board(settings: &FleetSettings, who: &str) -> HelperBoard {
    let program = match settings.directory.strip_prefix("exec:") {
        Some(words) => words.split_ascii_whitespace().map(ToOwned::to_owned).collect(),
        // This very program, even if its file was replaced meanwhile.
        None => ["/proc/self/exe", "board-helper", &settings.directory, who].map(ToOwned::to_owned).to_vec(),
    };
    HelperBoard::new(program, settings.io.0)
}

/// Whose word counts.
pub fn keys(settings: &Settings) -> Result<FleetKeys, Error> {
    FleetKeys::load(&settings.fleet.keys, Path::new(&settings.source.revoked))
        .map_err(|error| crate::lifecycle::upstream::Error::Trust(error).into())
}

/// What this node remembers of its fleet; `None` when it has not joined.
pub fn kept(store: &Store) -> Result<Option<Kept>, agreement::Error> {
    Kept::load(&store.disk, &store.layout.fleet())
}

/// What this node's heartbeat says: what it runs, and what it could switch to, the release before this one first.
pub fn has(store: &Store) -> Alive {
    let state = store.trusted_state().unwrap_or_default();
    let running = store.active().ok().flatten();
    let mut versions: Vec<Version> =
        state.previous.iter().map(|installed| installed.release.version.clone()).collect();
    versions.extend(store.releases().unwrap_or_default().into_iter().rev());
    let mut releases: Vec<ReleaseId> = Vec::new();
    for version in versions {
        // Only whole trees count, and none that was found bad here.
        let Ok(sealed) = store.release(&version) else { continue };
        let is_bad = state.bad.iter().any(|bad| bad.release == sealed.release);
        if !is_bad && !releases.contains(&sealed.release) {
            releases.push(sealed.release);
        }
    }
    Alive { at: Timestamp::now(), running, releases }
}

/// The fleet's settings, complete enough to reach it.
fn settings(context: &Context) -> Result<&FleetSettings, Error> {
    let fleet = &context.settings().fleet;
    let missing = if fleet.directory.is_empty() {
        "fleet.directory"
    } else if fleet.name.is_empty() {
        "fleet.name"
    } else if fleet.mode == Mode::Independent {
        "fleet.mode"
    } else {
        return Ok(fleet);
    };
    let hint = Some("set `mode`, `name` and `directory` in the `[fleet]` table".to_owned());
    Err(Error::Usage { what: format!("no fleet is configured: `{missing}` is not set"), hint })
}

/// For `config check`: a fleet that is configured can be reached by these settings, and its rollouts can end well.
pub fn check_configured(context: &Context) -> Result<(), Error> {
    if context.settings().fleet.mode == Mode::Independent {
        return Ok(());
    }
    match operate::unworkable(settings(context)?) {
        Some(why) => Err(Problem::Contradiction { why }.into()),
        None => Ok(()),
    }
}

/// Calls `work` with an operator on the configured board.
fn with_operator<T>(
    context: &Context,
    work: impl FnOnce(&mut Operator<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let settings = settings(context)?;
    let keys = keys(context.settings())?;
    let key_file = settings.signing_key.as_ref().map(|path| KeyFile(path.into()));
    let mut board = board(settings, "operator");
    let mut operator = Operator {
        board: &mut board,
        trust: Trust { keys: &keys, allow_unsigned: settings.allow_unsigned },
        signer: key_file.as_ref().map(|file| file as &dyn Signer),
        by: super::context::who(),
    };
    work(&mut operator)
}

/// Who signs what only operators may write, must have a key; without one everybody must trust everybody.
fn ensure_signer(context: &Context) -> Result<(), Error> {
    let settings = settings(context)?;
    if settings.signing_key.is_some() || settings.allow_unsigned {
        return Ok(());
    }
    let what = "there is no key to sign it with".to_owned();
    let hint = "set `fleet.signing_key`, or `fleet.allow_unsigned = true` on all nodes".to_owned();
    Err(Error::Usage { what, hint: Some(hint) })
}

/// The rollout of this number, or the newest.
fn rollout(operator: &mut Operator<'_>, fleet: &Fleet, number: Option<u64>) -> Result<Rollout, Error> {
    match number {
        Some(number) => Ok(operator.rollout(fleet, number)?),
        None => operator
            .newest(fleet)?
            .ok_or_else(|| operate::Error::Refused("there was no rollout yet".into()).into()),
    }
}
