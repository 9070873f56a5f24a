//! Who is in the fleet: `init`, `join`, `members`, `resume`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::args::{MembersArgs, ReplaceArgs};
use super::propose::newest_open;
use super::{
    board, ensure_signer, fold, has, here, kept, keys, machine_id, remembered, settings, with_operator,
};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::cli::output::table;
use crate::coord::NodeName;
use crate::coord::board::{Listed as Names, Read};
use crate::coord::facts::{Fleet, Id, Listed, names};
use crate::coord::lists::{self, Joined};
use crate::coord::look::Trust;
use crate::coord::name::CellName;
use crate::coord::operate::{self, Operator, some_of};
use crate::coord::rollout::Rollout;
use crate::lifecycle::fleet::{KeyFile, Member, Newcomer, free, join as join_fleet, new_id, own_key};
use crate::sys::clock::SystemClock;
use crate::types::chain;

pub fn init(context: &Context) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    let made = with_operator(context, |operator| Ok(operator.init(&name, &new_id())?))?;
    let text = format!("fleet {} is in `{}`", made.fleet, context.settings().fleet.directory);
    context.output.result(&json!({"fleet": made.fleet, "id": made.id}), &text);
    Ok(0)
}

/// This node's name, as a fleet may have it.
pub fn node_name(context: &Context) -> Result<NodeName, Error> {
    context
        .node
        .to_ascii_lowercase()
        .parse()
        .map_err(|error| Error::Usage { what: format!("{error}"), hint: Some("set `fleet.node`".into()) })
}

pub fn join(context: &Context) -> Result<u8, Error> {
    let settings = settings(context)?;
    let node = node_name(context)?;
    let machine = machine_id();
    let store = context.store()?;
    store.prepare()?;
    let mut board = board(settings, node.as_str(), None);
    let key_path = store.layout.fleet_key();
    let had_key = key_path.exists();
    let key = own_key(&store.disk, &store.layout.fleet_key(), node.as_str())
        .map_err(|error| Error::Fleet(chain(&error)))?;
    let path = store.layout.fleet();
    let trusted = keys(context.settings())?;
    let trust = Trust { keys: &trusted, allow_unsigned: settings.allow_unsigned };
    let newcomer = Newcomer { node: &node, machine, key: Some(key) };
    let joined = join_fleet(&mut board, &store.disk, &path, settings, newcomer, trust);
    if joined.is_err() && !had_key {
        // Whoever is refused keeps nothing.
        store.disk.remove_file(&key_path)?;
    }
    let kept = joined.map_err(Error::Fleet)?;
    // What it has, and which format it reads, is known from now on.
    let signer = KeyFile(key_path);
    let mut member = Member::new(Box::new(board), &SystemClock, &trusted, Some(&signer), settings, kept);
    member.has = has(&store);
    member.here = here(&store);
    member.show()?;
    let text = format!(
        "node {node} has joined fleet {}; an operator lists it with `cutover fleet members --add {node}`",
        settings.name
    );
    context.output.result(&json!({"node": node, "instance": member.own().instance}), &text);
    Ok(0)
}

/// Puts members in cells, as an operator wants.
fn put_in_cells(entries: &mut [Listed], cells: &[(NodeName, CellName)]) -> Result<(), Error> {
    for (node, cell) in cells {
        match entries.iter_mut().find(|entry| entry.node == *node) {
            Some(entry) => entry.cell = Some(cell.clone()),
            None => {
                return Err(operate::Error::Refused(format!("`{node}` is no member of the fleet")).into());
            }
        }
    }
    Ok(())
}

pub fn members(context: &Context, args: &MembersArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    let is_change = args.all || !args.add.is_empty() || !args.remove.is_empty() || !args.cell.is_empty();
    if is_change {
        ensure_signer(context)?;
    }
    let seen = remembered(context).map_or(0, |kept| kept.own.list);
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let mut entered = operator.entries(&fleet)?;
        let mut list = match operator.members(&fleet) {
            // A list of all does not rest on the one before, of which a page may be gone.
            Err(_) if args.all => None,
            list => list?,
        };
        if is_change {
            let before = list.map(|list| list.members).unwrap_or_default();
            ensure_known(operator, &before, &args.remove)?;
            for node in &args.remove {
                entered.remove(node);
            }
            let wanted = wanted_list(args, before, &entered)?;
            list = Some(operator.write_members(&fleet, wanted, seen)?);
            for node in &args.remove {
                // Its name is free: the machine that had it must join again to be listed again. Only now: a name that is freed stays
                // free, whatever became of the list.
                operator.replace(&fleet, node, "it was removed")?;
                say_who_waits(context, operator, &fleet, node);
            }
        }
        let joined: Vec<Id> = entered.values().cloned().filter_map(Joined::id).collect();
        let cells = match &list {
            Some(list) => operator.cells(list),
            None => BTreeMap::new(),
        };
        let (number, entries) = list.map(|list| (list.list, list.members)).unwrap_or_default();
        let state = |entry: &Listed| match entered.get(&entry.node) {
            Some(Joined::Torn(_)) => "its entry is damaged",
            _ if entry.instance.is_empty() => "member",
            Some(Joined::As(id)) if id.instance == entry.instance => "member",
            Some(Joined::As(_)) => "joined anew, not listed",
            Some(Joined::No) | None => "its name is free",
        };
        let listed = entries.iter().map(|entry| {
            let cell = cells.get(&entry.node).map(ToString::to_string).unwrap_or_default();
            (&entry.node, [state(entry).to_owned(), entry.groups.join(" "), cell])
        });
        let known: BTreeSet<&NodeName> = entries.iter().map(|entry| &entry.node).collect();
        let waiting = joined
            .iter()
            .filter(|id| !known.contains(&id.node))
            .map(|id| (&id.node, ["joined, not listed".to_owned(), id.groups.join(" "), String::new()]));
        let rows = fold::members(&listed.chain(waiting).collect::<Vec<_>>());
        let text = format!("fleet {}, list {number}\n{}", fleet.fleet, table(&rows));
        let value = json!({"fleet": fleet.fleet, "list": number, "members": entries, "joined": joined});
        context.output.result(&value, &text);
        Ok(0)
    })
}

/// The list as it is to be: all that can be wrong with it is found before anything is written.
fn wanted_list(
    args: &MembersArgs,
    before: Vec<Listed>,
    entered: &BTreeMap<NodeName, Joined>,
) -> Result<Vec<Listed>, Error> {
    let stays = |entry: &Listed| !args.all && !args.remove.contains(&entry.node);
    let mut entries: BTreeMap<NodeName, Listed> =
        before.into_iter().filter(stays).map(|entry| (entry.node.clone(), entry)).collect();
    let wanted: BTreeSet<&NodeName> = args.add.iter().collect();
    for id in entered.values().cloned().filter_map(Joined::id) {
        // Where its name was freed it is another machine now.
        if (args.all || wanted.contains(&id.node))
            && entries.get(&id.node).is_none_or(|entry| entry.instance != id.instance)
        {
            entries.insert(id.node.clone(), lists::entry_of(id));
        }
    }
    let refused = |text: String| Err(operate::Error::Refused(text).into());
    for node in &args.add {
        match entered.get(node) {
            _ if entries.contains_key(node) => {}
            Some(Joined::Torn(why)) => {
                return refused(format!("the entry of `{node}` is not valid: {why}: {}", free(node)));
            }
            Some(Joined::As(_) | Joined::No) | None => {
                return refused(format!("`{node}` has not joined the fleet"));
            }
        }
    }
    let mut entries: Vec<Listed> = entries.into_values().collect();
    put_in_cells(&mut entries, &args.cell)?;
    Ok(entries)
}

/// Names the members of a new rollout that no machine can take part as: all would wait for them.
pub fn warn_of_names(
    context: &Context,
    operator: &mut Operator<'_>,
    fleet: &Fleet,
    rollout: &Rollout,
) -> Result<(), Error> {
    let entered = operator.entries_of(fleet, rollout.proposal.members.clone())?;
    let mut free = Vec::new();
    let mut damaged = Vec::new();
    for (node, instance) in &rollout.proposal.instances {
        match entered.get(node) {
            Some(Joined::As(id)) if id.instance == *instance => {}
            Some(Joined::Torn(_)) => damaged.push(node),
            Some(Joined::As(_) | Joined::No) | None => free.push(node),
        }
    }
    for (nodes, what) in [(free, "whose name was freed"), (damaged, "whose entry is damaged")] {
        if let Some(first) = nodes.first() {
            context.output.say(&format!(
                "warning: among the members are some {what}, and no machine can take part as {}: `cutover fleet waive {first} {}` goes \
                 on without it",
                some_of(&nodes),
                rollout.number
            ));
        }
    }
    Ok(())
}

/// Whether these names were ever in use: a member's, or that of a node which has joined, whatever its entry says.
fn ensure_known(operator: &mut Operator<'_>, listed: &[Listed], nodes: &[NodeName]) -> Result<(), Error> {
    let joined = match operator.board.list(names::NODES) {
        Names::Names(joined) => joined,
        Names::Unreachable(why) => return Err(Error::Unreachable(why)),
    };
    let is_known = |node: &NodeName| {
        listed.iter().any(|entry| entry.node == *node) || joined.iter().any(|name| name == node.as_str())
    };
    match nodes.iter().find(|node| !is_known(node)) {
        None => Ok(()),
        Some(stranger) => Err(Error::Usage {
            what: format!("no node `{stranger}` is in the fleet, or has joined it"),
            hint: Some("`cutover fleet members` shows who is".into()),
        }),
    }
}

pub fn replace(context: &Context, args: &ReplaceArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    ensure_signer(context)?;
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let node = &args.node;
        let listed = operator.members(&fleet)?.map(|list| list.members).unwrap_or_default();
        ensure_known(operator, &listed, std::slice::from_ref(node))?;
        let times = operator.replace(&fleet, node, &args.reason)?;
        let text = format!(
            "the name {node} is free: `cutover fleet join` on the new machine, then `cutover fleet members --add {node}`"
        );
        context.output.result(&json!({"node": node, "replaced": times}), &text);
        say_who_waits(context, operator, &fleet, node);
        Ok(0)
    })
}

/// Whoever has a name no more has no part in what is under way either, and is waited for.
fn say_who_waits(context: &Context, operator: &mut Operator<'_>, fleet: &Fleet, node: &NodeName) {
    let Ok(rollout) = newest_open(operator, fleet) else { return };
    let waiver = rollout.decisions().waive(node);
    if rollout.place_of(node).is_some() && operator.board.read(&waiver) == Read::Absent {
        let number = rollout.number;
        context.output.say(&format!(
            "rollout {number} is under way, and may wait for {node}: `cutover fleet waive {node} {number}` goes on without it"
        ));
    }
}

pub fn resume(context: &Context) -> Result<u8, Error> {
    let fleet = settings(context)?;
    context.with_node("fleet resume", |node| {
        let _update = node.lock_update()?;
        node.store.prepare()?;
        let mut memory = node.store.memory()?;
        memory.hold = None;
        memory.keep()?;
        let Some(kept) = kept(node.store)? else {
            return Err(Error::Fleet("this node has not joined a fleet".into()));
        };
        let keys = keys(context.settings())?;
        let board = board(fleet, kept.own.node.as_str(), Some(&kept));
        let signer = KeyFile(node.store.layout.fleet_key());
        Member::new(Box::new(board), &SystemClock, &keys, Some(&signer), fleet, kept).resume()?;
        context.output.result(&json!({"resumed": true}), "this node follows the fleet again");
        Ok(0)
    })
}
