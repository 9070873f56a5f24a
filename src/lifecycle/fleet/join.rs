//! How a node joins its fleet: its name on storage, and what it keeps of it.

use std::path::Path;

use jiff::Timestamp;

use super::identity::free;
use super::own::Kept;
use crate::coord::board::{Board, Created, Done};
use crate::coord::facts::{self, Fact, names};
use crate::coord::lists::replaced;
use crate::coord::look::{self, Found, Look, Trust, look};
use crate::coord::{NodeName, Settings};
use crate::sys::disk::Disk;

/// Who asks to be let in.
pub struct Newcomer<'a> {
    pub node: &'a NodeName,
    pub machine: String,
    /// The public half of its key.
    pub key: Option<String>,
}

/// Makes this node known to the fleet: its directory and entry on storage, and what it remembers. Whoever is refused keeps
/// nothing.
pub fn join(
    board: &mut dyn Board,
    disk: &Disk,
    path: &Path,
    settings: &Settings,
    newcomer: Newcomer<'_>,
    trust: Trust<'_>,
) -> Result<Kept, String> {
    let Newcomer { node, machine, key } = newcomer;
    let known = Kept::load(disk, path).map_err(|error| error.to_string())?;
    let fleet = fleet_to_join(board, settings, known.as_ref().is_some_and(|kept| kept.own.joined))?;
    if let Some(kept) = known.as_ref().filter(|kept| kept.own.joined) {
        let remove = format!("remove `{}` to join anew", path.display());
        if kept.own.fleet != fleet.id {
            return Err(format!("this node has joined another fleet: {remove}"));
        }
        if kept.own.node != *node {
            return Err(format!(
                "this node has joined as `{}`, and is called `{node}` now: {remove}",
                kept.own.node
            ));
        }
    }
    let times = replaced(board, &fleet.id, trust).map_err(|error| error.to_string())?;
    let name = names::id(node, times.get(node).copied().unwrap_or(0));
    let instance = match look(board, &name) {
        Look::Found(Found { fact: Fact::Id(id), .. }) => {
            ensure_is_same(&id, known.as_ref(), &machine, key.as_deref(), node)?;
            id.instance
        }
        Look::Found(_) => return Err(format!("`{name}` is not the entry of a node")),
        Look::Bad(why) => return Err(format!("`{name}` is not valid: {why}; {}", free(node))),
        Look::Unreachable(why) => return Err(why),
        Look::Absent => known
            .as_ref()
            .filter(|kept| !kept.own.joined)
            .map_or_else(new_id, |kept| kept.own.instance.clone()),
    };
    if let Some(kept) = known.as_ref().filter(|kept| kept.own.instance != instance) {
        ensure_nothing_was_promised(kept)?;
    }
    let before = known.as_ref().map(|kept| kept.own.clone());
    let fresh = Kept::new(disk, path, fleet.id.clone(), node.clone(), instance.clone());
    let mut kept = match known {
        Some(kept) if kept.own.instance == instance => kept,
        Some(kept) => kept.begin_anew(fresh),
        None => fresh,
    };
    kept.own.key.clone_from(&key);
    kept.own.places.clear();
    // Written first: after a crash the same machine joins again, not a second one.
    kept.keep().map_err(|error| error.to_string())?;
    let entry = facts::Id { node: node.clone(), machine, instance, groups: settings.groups.clone(), key };
    match enter(board, node, &name, entry) {
        Ok(()) => {}
        Err(why) => {
            let kept = match before {
                Some(before) => kept.change(|own| *own = before),
                None => kept.forget(),
            };
            kept.map_err(|error| error.to_string())?;
            return Err(why);
        }
    }
    kept.change(|own| own.joined = true).map_err(|error| error.to_string())?;
    Ok(kept)
}

/// Sees that the entry of a name is that of this machine, with the same key.
fn ensure_is_same(
    id: &facts::Id,
    known: Option<&Kept>,
    machine: &str,
    key: Option<&str>,
    node: &NodeName,
) -> Result<(), String> {
    let is_known = known.is_some_and(|kept| kept.own.instance == id.instance);
    // What it remembered is lost, and its key and its machine say that it is the same.
    let is_same = id.machine == machine && key.is_some() && id.key.as_deref() == key;
    if id.machine != machine && !machine.is_empty() || !(is_known || is_same) {
        return Err(format!("the name `{node}` is in use by another machine: {}", free(node)));
    }
    // What it signs by another one nobody believes.
    if id.key.is_some() && id.key.as_deref() != key {
        return Err(format!("`{node}` has joined with a key that this node has no more: {}", free(node)));
    }
    Ok(())
}

/// The fleet in the directory, which must have the name that the settings say.
fn fleet_to_join(
    board: &mut dyn Board,
    settings: &Settings,
    has_joined: bool,
) -> Result<facts::Fleet, String> {
    match look(board, names::FLEET) {
        Look::Found(Found { fact: Fact::Fleet(fleet), .. }) if fleet.fleet == settings.name => Ok(fleet),
        Look::Found(Found { fact: Fact::Fleet(fleet), .. }) => {
            Err(format!("the directory belongs to fleet `{}`", fleet.fleet))
        }
        Look::Found(_) => Err("`FLEET` does not describe a fleet".into()),
        // Another fleet made on a bare mount point would part this node from its own.
        Look::Absent if has_joined => {
            Err("this node has joined a fleet, and its directory is not there: mount it".into())
        }
        Look::Absent => Err("no fleet was made there: `cutover fleet init` makes one".into()),
        Look::Bad(why) => Err(format!("`FLEET` is not valid: {why}")),
        Look::Unreachable(why) => Err(why),
    }
}

/// What a node has promised under its old name it keeps: whoever waits for it must not lose it.
fn ensure_nothing_was_promised(kept: &Kept) -> Result<(), String> {
    match kept.part().filter(|part| !part.is_free()) {
        None => Ok(()),
        Some(part) => Err(format!(
            "rollout {} is under way on this node: `cutover recover` or `cutover rollback` ends it here first",
            part.rollout
        )),
    }
}

fn enter(board: &mut dyn Board, node: &NodeName, name: &str, entry: facts::Id) -> Result<(), String> {
    if let Done::Unreachable(why) = board.prepare(&names::node(node)) {
        return Err(why);
    }
    let instance = entry.instance.clone();
    let text = look::seal_summed(name, &Fact::Id(entry));
    let found = match board.create(name, &text) {
        Created::Mine => return Ok(()),
        Created::Theirs(there) => look::found(name, &there, None),
        Created::Refused(why) | Created::Unknown(why) => return Err(why),
    };
    match found {
        Look::Found(Found { fact: Fact::Id(found), .. }) if found.instance == instance => Ok(()),
        Look::Found(_) => Err(format!("the name `{node}` is in use by another machine: {}", free(node))),
        Look::Absent => Err("the entry was made, and is not there".into()),
        Look::Bad(why) => Err(format!("the entry is not valid: {why}")),
        Look::Unreachable(why) => Err(why),
    }
}

/// 128 random bits, as hex digits.
pub fn new_id() -> String {
    let mut random = [0_u8; 16];
    if getrandom::fill(&mut random).is_err() {
        let now = Timestamp::now().as_nanosecond().to_ne_bytes();
        random.copy_from_slice(&now);
    }
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
