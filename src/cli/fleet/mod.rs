//! `fleet`: what operators do with a fleet, and a member's part in `update`.

pub mod args;
mod care;
mod check;
mod fold;
mod page;
mod people;
mod propose;
mod report;
mod status;
mod update;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use args::{FleetCommand, HelperArgs};
use jiff::Timestamp;

use super::context::Context;
use super::failure::Error;
use crate::config::Problem;
use crate::coord::alive::{Alive, NotYet};
use crate::coord::board::Board as _;
use crate::coord::board::ahead::Ahead;
use crate::coord::board::directory::DirectoryBoard;
use crate::coord::board::helper::HelperBoard;
use crate::coord::board::serve::serve;
use crate::coord::facts::Fleet;
use crate::coord::facts::names::{self, Decisions};
use crate::coord::heard::Heard;
use crate::coord::look::{Signer, Trust};
use crate::coord::operate::{self, Operator};
use crate::coord::rollout::{Rollout, names_of};
use crate::coord::rules::gate::Gate;
use crate::coord::settings::Mode;
use crate::coord::synchronous::What;
use crate::coord::{NodeName, Settings as FleetSettings};
use crate::lifecycle::agreement;
use crate::lifecycle::fleet::{FleetKeys, Here, Kept, KeyFile, Obstacle};
use crate::lifecycle::policy;
use crate::lifecycle::settings::Settings;
use crate::lifecycle::staging::upstream;
use crate::store::Store;
use crate::sys::clock::{Clock as _, SystemClock};
use crate::sys::disk::Disk;
use crate::types::{Digest, ReleaseId, Span, Version};

pub use update::update;

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
        FleetCommand::Void(args) => propose::void(context, args),
        FleetCommand::Waive(args) => propose::waive(context, args),
        FleetCommand::Replace(args) => people::replace(context, args),
        FleetCommand::Resume => people::resume(context),
        FleetCommand::Export(args) => care::export(context, args),
        FleetCommand::Import(args) => care::import(context, args),
        FleetCommand::Gc(args) => care::gc(context, args),
        FleetCommand::Repair(args) => care::repair(context, args),
    }
}

/// `board-helper`: serves another cutover over stdin and stdout until that closes them.
pub fn help(args: &HelperArgs, disk: &Disk) -> Result<u8, Error> {
    let mut board =
        DirectoryBoard::new(args.directory.clone(), &args.node, disk.clone()).of_fleet(args.fleet.clone());
    let served = serve(&mut board, &mut std::io::stdin().lock(), &mut std::io::stdout().lock());
    Ok(u8::from(served.is_err()))
}

/// The board that the settings name, behind a helper that can be killed. A node that has joined a fleet goes to the board of
/// that one only, whatever else is mounted there.
pub fn board(settings: &FleetSettings, who: &str, kept: Option<&Kept>) -> HelperBoard {
    let fleet = kept.map(|kept| kept.own.fleet.as_str());
    match settings.directory.strip_prefix("exec:") {
        Some(words) => {
            let program = words.split_ascii_whitespace().map(ToOwned::to_owned).collect();
            HelperBoard::new(program, settings.io.0)
        }
        // This very program, even if its file was replaced meanwhile.
        None => {
            let words = ["/proc/self/exe", "board-helper", &settings.directory, who];
            let program = words.into_iter().chain(fleet).map(ToOwned::to_owned).collect();
            HelperBoard::new(program, settings.io.0).of_this_program()
        }
    }
}

/// Where this node runs: what a copy of its root, or of its disk, does not have.
pub fn here(store: &Store) -> Here {
    let machine = machine_id();
    let boot = SystemClock.boot_id();
    let root = store.layout.fleet();
    let root = root.parent().unwrap_or(&root);
    let inode = std::fs::metadata(root).map_or((0, 0), |found| (found.dev(), found.ino()));
    let text = format!("{machine}\n{boot}\n{}\n{inode:?}", root.display());
    let place = Digest::of(text.as_bytes()).hex().chars().take(16).collect();
    Here { machine, place }
}

fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// What keeps this node from switching to a release, as its operators have it: asked anew before each promise.
pub fn obstacle(store: &Store) -> Obstacle<'_> {
    Box::new(|release| {
        let state = store.trusted_state().ok()?;
        if let Some(held) = policy::held(state.hold.as_ref(), Timestamp::now()) {
            return Some(NotYet { rollout: None, why: held.text, until: held.until });
        }
        let bad = state.bad.iter().find(|bad| bad.release.digest == release.digest)?;
        let why = format!("release {} is banned here: {}", bad.release.version, bad.reason);
        Some(NotYet { rollout: None, why, until: None })
    })
}

pub fn keys(settings: &Settings) -> Result<FleetKeys, Error> {
    FleetKeys::load(&settings.fleet.keys, Path::new(&settings.source.revoked))
        .map_err(|error| upstream::Error::Trust(error).into())
}

/// What this node remembers of its fleet; `None` when it has not joined.
pub fn kept(store: &Store) -> Result<Option<Kept>, agreement::Error> {
    Ok(Kept::load(&store.disk, &store.layout.fleet())?.filter(|kept| kept.own.joined))
}

/// The same, where an operator's machine need not be a node.
fn remembered(context: &Context) -> Option<Kept> {
    kept(&context.store().ok()?).ok().flatten()
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
    let previous = state.previous.map(|installed| installed.release);
    Alive { running, releases, previous, ..Alive::at(Timestamp::now()) }
}

/// What a member is told whose settings say that it moves alone.
pub const ALONE: &str = "warning: this node has joined a fleet, and `fleet.mode` is `independent`: it follows its channel \
                         alone, and the fleet waits for it";

/// Whether this node is a member of a fleet.
pub fn has_joined(store: &Store) -> bool {
    kept(store).is_ok_and(|kept| kept.is_some())
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
    } else if let Some(why) = operate::misplaced(fleet).or_else(|| misnamed(fleet)) {
        return Err(Problem::Contradiction { why }.into());
    } else {
        return Ok(fleet);
    };
    let hint = Some("set `mode`, `name` and `directory` in the `[fleet]` table".to_owned());
    Err(Error::Usage { what: format!("no fleet is configured: `{missing}` is not set"), hint })
}

/// What is wrong with a name that a person has set.
fn misnamed(fleet: &FleetSettings) -> Option<String> {
    if fleet.directory.strip_prefix("exec:").is_some_and(|words| words.trim().is_empty()) {
        return Some("`fleet.directory` names no program after `exec:`".into());
    }
    let wrong = fleet.node.parse::<NodeName>().err().filter(|_| !fleet.node.is_empty())?;
    Some(format!("`fleet.node`: {wrong}"))
}

/// For `config check`: a fleet that is configured can be reached by these settings, and its rollouts can end well.
pub fn check_configured(context: &Context) -> Result<(), Error> {
    if context.settings().fleet.mode == Mode::Independent {
        if context.store().is_ok_and(|store| has_joined(&store)) {
            context.output.say(ALONE);
        }
        return Ok(());
    }
    let fleet = settings(context)?;
    if let Some(why) = operate::unworkable(fleet).or_else(|| hopeless(context.settings())) {
        return Err(Problem::Contradiction { why }.into());
    }
    let (service, late) = (&context.settings().service, fleet.late.0 + fleet.stop.0);
    if fleet.mode.agrees_on_an_instant() && !service.units.is_empty() && service.stop_timeout.0 > late {
        context.output.say(&format!(
            "warning: `service.stop_timeout` ({}) is longer than `fleet.late` and `fleet.stop` together ({}): where services \
             take that long to stop, every rollout goes back",
            service.stop_timeout,
            Span(late)
        ));
    }
    if let Some(why) = open_to_all(fleet) {
        context.output.say(&format!("warning: {why}"));
    }
    Ok(())
}

/// Why every synchronous rollout goes back, by settings of the node itself.
fn hopeless(settings: &Settings) -> Option<String> {
    let (fleet, health) = (&settings.fleet, &settings.health);
    let in_time = fleet.trial.0 + fleet.settle.0;
    let takes = health.min_healthy().0;
    (fleet.mode.agrees_on_an_instant() && takes > in_time).then(|| {
        format!(
            "`health.min_healthy` ({}) is longer than `fleet.trial` and `fleet.settle` together ({}): no report would come in \
             time, and every rollout would go back",
            health.min_healthy(),
            Span(in_time)
        )
    })
}

/// How long a look at a node waits for storage at the most: what it says of the node itself needs none.
const GLANCE: Duration = Duration::from_millis(500);

/// A member that can tell its fleet nothing.
pub struct ShutOut {
    pub node: NodeName,
    pub why: String,
}

/// Whether this node could not write to its fleet's directory, although it may be able to read there; found without writing.
/// Nothing where that is not known: it is no member, its storage is a program, or somebody else asks, who may have other rights.
pub fn shut_out(context: &Context) -> Option<ShutOut> {
    let (settings, store) = (settings(context).ok()?, context.store().ok()?);
    let kept = kept(&store).ok()??;
    let owner = std::fs::metadata(store.layout.private()).ok()?.uid();
    if settings.directory.starts_with("exec:") || owner != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let mut board = board(settings, kept.own.node.as_str(), Some(&kept));
    board.hurry(GLANCE);
    let decisions = kept.part().zip(kept.proposal_digest()).map(|(part, proposal)| {
        let rollout = part.rollout;
        Decisions { rollout, proposal }.directory()
    });
    let why =
        std::iter::once(names::node(&kept.own.node)).chain(decisions).find_map(|name| board.shut(&name))?;
    let why = format!("this node can read the fleet's directory, and not write to it: {why}");
    Some(ShutOut { node: kept.own.node, why })
}

/// What is wrong with a directory in which everybody may write; nothing where it cannot be seen.
pub fn open_to_all(settings: &FleetSettings) -> Option<String> {
    if settings.directory.starts_with("exec:") {
        return None;
    }
    // Asked of a helper: storage that hangs must not hold up this process.
    let mode = |place: &String| {
        let mut command = std::process::Command::new("stat");
        command.args(["-c", "%a", place]);
        u32::from_str_radix(bounded(&mut command)?.trim(), 8).ok()
    };
    let top = settings.directory.clone();
    // Whoever may write to the top can put other directories in the place of those in it, unless it is sticky.
    let is_open = |place: &String| {
        mode(place).is_some_and(|mode| mode & 0o002 != 0 && (*place != top || mode & 0o1000 == 0))
    };
    let below = ["rollouts", "members", "nodes"].map(|name| format!("{top}/{name}"));
    let open = std::iter::once(top.clone()).chain(below).find(is_open)?;
    Some(format!(
        "everybody on this machine may write to `{open}`, and could decide for the fleet: give it to the group of the \
         nodes (`chmod 2770`)"
    ))
}

/// What a command says within two seconds.
fn bounded(command: &mut std::process::Command) -> Option<String> {
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().ok()?;
    for _ in 0..100 {
        match child.try_wait() {
            Ok(Some(_)) => {
                let said = child.wait_with_output().ok()?;
                return String::from_utf8(said.stdout).ok();
            }
            Ok(None) => std::thread::sleep(std::time::Duration::from_millis(20)),
            Err(_) => return None,
        }
    }
    let _ = child.kill();
    None
}

/// Calls `work` with an operator on the configured board.
fn with_operator<T>(
    context: &Context,
    work: impl FnOnce(&mut Operator<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let settings = settings(context)?;
    let keys = keys(context.settings())?;
    let key_file = settings.signing_key.as_ref().map(|path| KeyFile(path.into()));
    let known = match context.store() {
        Ok(store) => kept(&store).ok().flatten(),
        Err(_) => None,
    };
    let mut board = board(settings, "operator", known.as_ref());
    let mut operator = Operator {
        board: &mut board,
        trust: Trust { keys: &keys, allow_unsigned: settings.allow_unsigned },
        signer: key_file.as_ref().map(|file| file as &dyn Signer),
        by: super::context::name_of_caller(),
    };
    work(&mut operator)
}

/// Calls `work` with an operator for whom all that stands there of a rollout was read at once.
fn with_all_of<T>(
    operator: &mut Operator<'_>,
    rollout: &Rollout,
    work: impl FnOnce(&mut Operator<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let decided = names_of(operator.board, rollout).map_err(Error::Unreachable)?;
    let decisions = rollout.decisions();
    // The last ticket of a slot tells of all before it.
    let is_read = |name: &&String| !rollout.has_slots() || !name.starts_with("t.");
    let mut names: Vec<String> = decided.iter().filter(is_read).map(|name| decisions.gate(name)).collect();
    let own = match rollout.proposal.mode {
        Mode::Rolling => vec!["report", "returned", "closed"],
        Mode::Synchronous | Mode::Cells | Mode::Independent => {
            let has_plan = decided.iter().any(|name| name.starts_with(Gate::Plan.name()));
            report::kinds(rollout.proposal.overlap, has_plan).into_iter().map(What::name).collect()
        }
    };
    let own_of = |node| own.iter().map(move |what| names::own(node, rollout.number, what));
    names.extend(rollout.proposal.members.iter().flat_map(own_of));
    let mut board = Ahead::new(operator.board, &names).map_err(Error::Unreachable)?;
    let (trust, signer, by) = (operator.trust, operator.signer, operator.by.clone());
    work(&mut Operator { board: &mut board, trust, signer, by })
}

/// Who signs what only operators may write, must have a key; without one everybody must trust everybody.
fn ensure_signer(context: &Context) -> Result<(), Error> {
    let settings = settings(context)?;
    if settings.signing_key.is_some() || settings.allow_unsigned {
        return Ok(());
    }
    let what = "there is no key to sign it with".to_owned();
    let hint = "set `fleet.signing_key` to an operator's key, and trust it on all nodes by a line `NAME \
                namespaces=\"cutover-fleet\" ssh-ed25519 …` in `/etc/cutover/keys/NAME.pub`; or set `fleet.allow_unsigned = true` on all nodes"
        .to_owned();
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

/// Nothing, unless the storage is away.
fn heard(heard: Heard) -> Result<(), Error> {
    match heard {
        // `fleet status` has it among its remarks.
        Heard::Yes | Heard::Bad(_) => Ok(()),
        Heard::Away(why) => Err(Error::Unreachable(why)),
    }
}
