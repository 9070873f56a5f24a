//! Looking after the shared directory: `export`, `import`, `gc`, `repair`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::{GcArgs, ImportArgs, RepairArgs, RolloutArgs};
use super::propose::lost_list;
use super::{ensure_signer, kept, keys, remembered, rollout, settings, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::coord::board::{Board as _, Done, Listed, Read};
use crate::coord::collect::Terms;
use crate::coord::facts::{Fact, Fleet, names};
use crate::coord::look::{Found, Look, Trust, look, put};
use crate::coord::operate;
use crate::coord::rules::gate::Gate;
use crate::coord::voice::Voice;
use crate::lifecycle::fleet::{self, Kept, Stage, Trouble, believe};
use crate::lifecycle::node;
use crate::sys::disk;

/// The longest file of exported facts.
const EXPORT_BYTES_MAX: usize = 64 << 20;

/// One fact on its way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    name: String,
    text: String,
}

pub fn export(context: &Context, args: &RolloutArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    let kept = remembered(context);
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout)?;
        let number = rollout.number;
        // What this node has read holds, whatever has become of the file.
        let known = kept.as_ref().map(|kept| fleet::read_of(kept, &rollout)).unwrap_or_default();
        let mut wanted = vec![names::proposal(number)];
        let decisions = rollout.decisions();
        wanted.extend(["plan", "go", "start", "outcome", "halt", "void"].map(|gate| decisions.gate(gate)));
        let cells: Vec<_> = rollout.cells().iter().map(|cell| rollout.of_cell(cell)).collect();
        wanted.extend(cells.iter().flat_map(|cell| Gate::ALL.map(|gate| cell.gate(gate))));
        // Each node's own word, by which it obeys a gate; with signatures that of all is the proof of what the gates say.
        let facts: &[&str] =
            if rollout.is_signed() { &["vote", "armed", "stopped", "report"] } else { &["armed", "report"] };
        for node in &rollout.proposal.members {
            wanted.extend(facts.iter().map(|what| names::own(node, number, what)));
            wanted.push(decisions.waive(node));
        }
        for name in wanted {
            let text = match (known.get(&name), operator.board.read(&name)) {
                (Some(text), _) => text.clone(),
                (None, Read::Bytes(text)) => text,
                (None, Read::Absent | Read::Bad(_)) => continue,
                (None, Read::Unreachable(why)) => return Err(Error::Unreachable(why)),
            };
            let line = serde_json::to_string(&Exported { name, text }).unwrap_or_default();
            crate::cli::output::print(&line);
        }
        Ok(0)
    })
}

pub fn import(context: &Context, args: &ImportArgs) -> Result<u8, Error> {
    settings(context)?;
    let missing = || Error::Usage { what: format!("there is no file `{}`", args.file.display()), hint: None };
    let bytes = disk::read_small(&args.file, EXPORT_BYTES_MAX)?.ok_or_else(missing)?;
    let text = String::from_utf8_lossy(&bytes);
    let exported: Result<Vec<Exported>, _> = text.lines().map(serde_json::from_str).collect();
    let exported =
        exported.map_err(|error| Error::Fleet(format!("`{}` is damaged: {error}", args.file.display())))?;
    context.with_node("fleet import", |node| {
        let lock = match node.lock_update() {
            Ok(lock) => Some(lock),
            // It waits for this very outcome, most likely.
            Err(node::Error::Busy(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(mut kept) = kept(node.store)? else {
            return Err(Error::Fleet("this node has not joined a fleet".into()));
        };
        let Some(part) = kept.part().cloned() else {
            return Err(Error::Fleet("this node waits for no outcome".into()));
        };
        if let Stage::Rolling(_) = part.stage {
            return Err(Error::Fleet(format!(
                "rollout {} is a rolling one, in which no node waits for an outcome: it goes on when the storage is back",
                part.rollout
            )));
        }
        let proposal = names::proposal(part.rollout);
        let facts: BTreeMap<String, String> =
            exported.into_iter().map(|fact| (fact.name, fact.text)).collect();
        if facts.get(&proposal) != Some(&part.proposal) {
            let number = part.rollout;
            return Err(Error::Fleet(format!("the file is not of this node's rollout {number}")));
        }
        let settings = context.settings();
        let keys = keys(settings)?;
        let trust = Trust { keys: &keys, allow_unsigned: settings.fleet.allow_unsigned };
        let carried = believe(&kept, &part, facts, Voice { trust, signer: None })
            .map_err(|why| Error::Fleet(format!("`{}`: {why}", args.file.display())))?;
        let gates: Vec<String> = carried.gates.keys().cloned().collect();
        let own = carried.told.iter().map(|_| "this node's own word".to_owned());
        let waiver = carried.waived.then(|| "that it is waived".to_owned());
        let taken: Vec<String> = gates.iter().cloned().chain(own).chain(waiver).collect();
        let text = match lock {
            _ if taken.is_empty() => "nothing new; everything was known already".to_owned(),
            Some(_) => {
                kept.change(|own| {
                    if let Some(part) = &mut own.part {
                        part.take_over(carried);
                    }
                })?;
                format!("taken over: {}; `cutover recover` goes on", taken.join(", "))
            }
            None => {
                kept.hand(&carried)?;
                format!("handed to the cutover that is at work here: {}", taken.join(", "))
            }
        };
        context.output.result(&json!({"rollout": part.rollout, "gates": gates}), &text);
        Ok(0)
    })
}

pub fn gc(context: &Context, args: &GcArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    if !args.dry_run {
        ensure_signer(context)?;
    }
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let terms =
            Terms { older: args.older.0, keep: args.keep, now: Timestamp::now(), is_dry: args.dry_run };
        let gone = operator.collect(&fleet, terms)?;
        let verb = if args.dry_run { "would go" } else { "gone" };
        let mut text = format!("{} rollouts {verb}, {} files", gone.rollouts.len(), gone.files);
        for (number, nodes) in &gone.kept_for {
            let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            text.push_str(&format!(
                "\nrollout {number} stays: {} may not know how it ended (`cutover fleet replace` if they are gone for good)",
                names.join(", ")
            ));
        }
        for (name, why) in &gone.left {
            text.push_str(&format!("\n`{name}` cannot be removed: {why}"));
        }
        let left: Vec<_> = gone.left.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
        let kept_for: Vec<_> =
            gone.kept_for.iter().map(|(number, nodes)| json!({"rollout": number, "nodes": nodes})).collect();
        let value =
            json!({"rollouts": gone.rollouts, "files": gone.files, "kept_for": kept_for, "left": left});
        context.output.result(&value, &text);
        Ok(0)
    })
}

pub fn repair(context: &Context, args: &RepairArgs) -> Result<u8, Error> {
    let store = context.store()?;
    let Some(mut kept) = kept(&store)? else {
        return Err(Error::Fleet("this node has not joined a fleet".into()));
    };
    let fleet_file = put_back_fleet_file(context, &kept)?;
    let name = settings(context)?.name.clone();
    // Without them nobody can tell which list counts.
    let pages = with_operator(context, |operator| {
        fleet::put_back_pages(operator.board, &kept).map_err(Error::Unreachable)
    })?;
    // Of a list a node keeps the number only.
    let lost_list = with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        lost_list(operator, &fleet, &kept)
    })?;
    if let Some(why) = &lost_list {
        context.output.say(&format!("warning: {why}"));
    }
    if kept.own.last.is_none() && kept.part().is_none() {
        if args.accept {
            kept.change(|own| own.followed = None)?;
        }
        let put_back: Vec<_> = fleet_file.then(|| names::FLEET.to_owned()).into_iter().chain(pages).collect();
        let text = match put_back.is_empty() {
            true => "this node remembers no rollout".to_owned(),
            false => format!("put back: {}", put_back.join(", ")),
        };
        context.output.result(&json!({ "put_back": put_back }), &text);
        return Ok(0);
    }
    let mut repaired =
        match with_operator(context, |operator| Ok(fleet::repair(operator, &kept, args.reopen)))? {
            Ok(repaired) => repaired,
            Err(Trouble::Usurped(number)) => return usurped(context, &mut kept, number, args.accept),
            Err(Trouble::Damaged(name, number)) => return Err(Error::Fleet(damaged(&name, number))),
            Err(Trouble::MayHaveEnded(number)) => return Err(Error::Fleet(may_have_ended(number))),
            Err(Trouble::NoKey(number)) => return Err(no_key(number)),
            Err(Trouble::Storage(error)) => return Err(error.into()),
        };
    repaired.put_back.splice(0..0, fleet_file.then(|| names::FLEET.to_owned()).into_iter().chain(pages));
    for number in &repaired.ended {
        context.output.say(&format!(
            "warning: rollout {number} was under way, and what was decided of it is lost: it has ended (void); `cutover fleet \
             propose` begins another one"
        ));
    }
    if let Some(number) = repaired.to_void {
        context.output.say(&format!(
            "warning: rollout {number} was under way, and its tickets are lost: `cutover fleet void {number}` ends it"
        ));
    }
    let text = if repaired.put_back.is_empty() && lost_list.is_some() {
        "the storage has everything else that this node has read".to_owned()
    } else if repaired.put_back.is_empty() {
        "the storage has everything that this node has read".to_owned()
    } else {
        format!("put back: {}", repaired.put_back.join(", "))
    };
    let value = json!({"put_back": repaired.put_back, "ended": repaired.ended});
    context.output.result(&value, &text);
    Ok(0)
}

/// Puts back the file that says whose directory it is, where that is gone or was damaged and the node's own entry stands beside it. Whether
/// it did.
fn put_back_fleet_file(context: &Context, kept: &Kept) -> Result<bool, Error> {
    let settings = settings(context)?;
    let mut board = super::board(settings, "operator", None);
    let (Look::Bad(_) | Look::Absent) = look(&mut board, names::FLEET) else { return Ok(false) };
    let unreachable = |why| Err(Error::Unreachable(why));
    let own = &kept.own;
    let directory = names::node(&own.node);
    let entries = match board.list(&directory) {
        Listed::Names(entries) => entries,
        Listed::Unreachable(why) => return unreachable(why),
    };
    let is_mine = entries.iter().filter(|name| *name == "id" || name.starts_with("id.")).any(|name| {
        matches!(look(&mut board, &format!("{directory}/{name}")),
            Look::Found(Found { fact: Fact::Id(id), .. }) if id.instance == own.instance)
    });
    if !is_mine {
        return Err(Error::Fleet(
            "`FLEET` is gone or not valid, and this node has no entry beside it: whose directory is it?"
                .into(),
        ));
    }
    if let Done::Unreachable(why) = board.remove(names::FLEET) {
        return unreachable(why);
    }
    let fact = Fact::Fleet(Fleet { fleet: settings.name.clone(), id: own.fleet.clone() });
    match put(&mut board, names::FLEET, &fact) {
        Look::Unreachable(why) => unreachable(why),
        Look::Found(_) | Look::Absent | Look::Bad(_) => Ok(true),
    }
}

fn may_have_ended(number: u64) -> String {
    format!(
        "rollout {number} was under way here, and another node may know how it ended: run `cutover fleet repair` on all others \
         first; where none knows it, `cutover fleet repair --reopen` here puts the rollout back, or ends it"
    )
}

fn no_key(number: u64) -> Error {
    Error::Usage {
        what: format!(
            "rollout {number} was under way, what was decided of it is lost, and there is no key to end it with"
        ),
        hint: Some(
            "set `fleet.signing_key` here to an operator's key, and run `cutover fleet repair` again".into(),
        ),
    }
}

fn damaged(name: &str, number: u64) -> String {
    format!(
        "`{name}` on the storage is not what this node has read: `cutover fleet void {number}` ends the rollout, whatever \
         stands there"
    )
}

/// After the storage went back in time, somebody has proposed under a number that was in use: what it lost cannot come back.
fn usurped(context: &Context, kept: &mut Kept, number: u64, is_accepted: bool) -> Result<u8, Error> {
    if kept.part().is_some_and(|part| !part.closed) {
        return Err(Error::Fleet(format!(
            "rollout {number} is under way here, and another one stands in its place: `cutover recover` or `cutover rollback` \
             ends it here first"
        )));
    }
    if !is_accepted {
        return Err(Error::Fleet(format!(
            "another rollout has the number {number} of one that this node has ended, and the storage has lost: `cutover fleet \
             repair --accept` has this node follow the storage as it is"
        )));
    }
    kept.change(|own| {
        own.last = None;
        own.part = None;
        own.list = 0;
        own.stays_after = None;
        own.followed = None;
    })?;
    let text = "this node follows the storage as it is: what the fleet runs there is what counts";
    context.output.result(&json!({"put_back": [], "accepted": true}), text);
    Ok(0)
}
