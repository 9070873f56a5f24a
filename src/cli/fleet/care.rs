//! Looking after the shared directory: `export`, `import`, `gc`, `repair`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::{GcArgs, ImportArgs, RolloutArgs};
use super::propose::ended;
use super::{board, kept, keys, rollout, settings, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::coord::board::{Board, Created, Done, Listed, Read};
use crate::coord::facts::names;
use crate::coord::look::Trust;
use crate::coord::operate;
use crate::coord::rollout::numbers;
use crate::coord::voice::Voice;
use crate::lifecycle::fleet::believe;
use crate::lifecycle::node;
use crate::sys::disk;

/// The longest file of exported facts.
const EXPORT_BYTES_MAX: usize = 64 << 20;

/// One fact on its way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Carried {
    name: String,
    text: String,
}

/// `fleet export`
pub fn export(context: &Context, args: &RolloutArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout)?;
        let number = rollout.number;
        let mut wanted = vec![names::proposal(number)];
        wanted.extend(["plan", "go", "start", "outcome", "halt"].map(|gate| names::gate(number, gate)));
        if rollout.is_signed() {
            // The proof of what the gates say.
            for node in &rollout.proposal.members {
                let facts = ["vote", "armed", "stopped", "report"];
                wanted.extend(facts.map(|what| names::own(node, number, what)));
                wanted.push(names::waive(number, node));
            }
        }
        for name in wanted {
            match operator.board.read(&name) {
                Read::Bytes(text) => {
                    let line = serde_json::to_string(&Carried { name, text }).unwrap_or_default();
                    crate::cli::output::print(&line);
                }
                Read::Absent | Read::Bad(_) => {}
                Read::Unreachable(why) => return Err(Error::Unreachable(why)),
            }
        }
        Ok(0)
    })
}

/// `fleet import`
pub fn import(context: &Context, args: &ImportArgs) -> Result<u8, Error> {
    settings(context)?;
    let missing = || Error::Usage { what: format!("there is no file `{}`", args.file.display()), hint: None };
    let bytes = disk::read_small(&args.file, EXPORT_BYTES_MAX)?.ok_or_else(missing)?;
    let text = String::from_utf8_lossy(&bytes);
    let carried: Result<Vec<Carried>, _> = text.lines().map(serde_json::from_str).collect();
    let carried =
        carried.map_err(|error| Error::Fleet(format!("`{}` is damaged: {error}", args.file.display())))?;
    context.with_node("fleet import", |node, _| {
        let lock = match node.lock() {
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
        let proposal = names::proposal(part.rollout);
        let facts: BTreeMap<String, String> =
            carried.into_iter().map(|carried| (carried.name, carried.text)).collect();
        if facts.get(&proposal) != Some(&part.proposal) {
            let number = part.rollout;
            return Err(Error::Fleet(format!("the file is not of this node's rollout {number}")));
        }
        let settings = context.settings();
        let keys = keys(settings)?;
        let trust = Trust { keys: &keys, allow_unsigned: settings.fleet.allow_unsigned };
        let believed = believe(&part, facts, Voice { trust, signer: None })
            .map_err(|why| Error::Fleet(format!("`{}`: {why}", args.file.display())))?;
        let taken: BTreeMap<String, String> =
            believed.into_iter().filter(|(gate, _)| !part.gates.contains_key(gate)).collect();
        let gates: Vec<String> = taken.keys().cloned().collect();
        let text = match lock {
            _ if gates.is_empty() => "nothing new; everything was known already".to_owned(),
            Some(_) => {
                kept.change(|own| {
                    if let Some(part) = &mut own.part {
                        part.gates.extend(taken);
                    }
                })?;
                format!("taken over: {}; `cutover recover` goes on", gates.join(", "))
            }
            None => {
                kept.carry(&taken)?;
                format!("handed to the cutover that is at work here: {}", gates.join(", "))
            }
        };
        context.output.result(&json!({"rollout": part.rollout, "gates": gates}), &text);
        Ok(0)
    })
}

/// `fleet gc`
pub fn gc(context: &Context, args: &GcArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let all = numbers(operator.board).map_err(Error::Unreachable)?;
        let old = all.len().saturating_sub(args.keep.max(1));
        let mut names_gone = Vec::new();
        let mut gone = Vec::new();
        for number in all.into_iter().take(old) {
            let Ok(rollout) = operator.rollout(&fleet, number) else { continue };
            let age = Duration::try_from(Timestamp::now().duration_since(rollout.proposal.created));
            if age.unwrap_or_default() < args.older.0
                || ended(operator, &rollout).map_err(Error::Unreachable)?.is_none()
            {
                // What stands before an open rollout stays, too: numbers have no gaps.
                break;
            }
            gone.push(number);
            names_gone.extend(names_of(operator.board, &rollout)?);
        }
        if !args.dry_run {
            for name in &names_gone {
                if let Done::Unreachable(why) = operator.board.remove(name) {
                    return Err(Error::Unreachable(why));
                }
            }
        }
        let verb = if args.dry_run { "would go" } else { "gone" };
        let text = format!("{} rollouts {verb}, {} files", gone.len(), names_gone.len());
        context.output.result(&json!({"rollouts": gone, "files": names_gone.len()}), &text);
        Ok(0)
    })
}

/// All names of a rollout, the proposal last: while it stands, the rest may be removed again.
fn names_of(board: &mut dyn Board, rollout: &crate::coord::rollout::Rollout) -> Result<Vec<String>, Error> {
    let prefix = format!("{:06}.", rollout.number);
    let mut found = Vec::new();
    let mut directories: Vec<String> = rollout.proposal.members.iter().map(names::node).collect();
    directories.push(names::ROLLOUTS.into());
    for directory in directories {
        match board.list(&directory) {
            Listed::Names(names) => {
                let names = names.iter().filter(|name| name.starts_with(&prefix));
                found.extend(names.map(|name| format!("{directory}/{name}")));
            }
            // A member that never joined has none.
            Listed::Unreachable(_) if directory != names::ROLLOUTS => {}
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        }
    }
    found.push(names::proposal(rollout.number));
    Ok(found)
}

/// `fleet repair`
pub fn repair(context: &Context) -> Result<u8, Error> {
    let fleet = settings(context)?;
    let store = context.store()?;
    let Some(kept) = kept(&store)? else {
        return Err(Error::Fleet("this node has not joined a fleet".into()));
    };
    let last = kept.own.last.as_ref().map(|last| (last.rollout, &last.proposal, &last.gates));
    let open = kept.part().map(|part| (part.rollout, &part.proposal, &part.gates));
    if last.is_none() && open.is_none() {
        context.output.result(&json!({"put_back": []}), "this node remembers no rollout");
        return Ok(0);
    }
    let mut board = board(fleet, kept.own.node.as_str());
    let mut facts = Vec::new();
    for (number, proposal, gates) in last.into_iter().chain(open) {
        facts.push((names::proposal(number), proposal));
        facts.extend(gates.iter().map(|(gate, text)| (names::gate(number, gate), text)));
    }
    let mut put_back = Vec::new();
    for (name, text) in facts {
        match board.read(&name) {
            Read::Bytes(there) if there == *text => continue,
            Read::Bytes(_) | Read::Bad(_) => {
                let text =
                    format!("`{name}` on the storage is not what this node has read: a person must look");
                return Err(Error::Fleet(text));
            }
            Read::Absent => {}
            Read::Unreachable(why) => return Err(Error::Unreachable(why)),
        }
        match board.create(&name, text) {
            Created::Mine => put_back.push(name),
            Created::Theirs(_) => {
                return Err(Error::Fleet(format!("`{name}` was just made by somebody else")));
            }
            Created::Unknown(why) => return Err(Error::Unreachable(why)),
        }
    }
    let text = if put_back.is_empty() {
        "the storage has everything that this node has read".to_owned()
    } else {
        format!("put back: {}", put_back.join(", "))
    };
    context.output.result(&json!({"put_back": put_back}), &text);
    Ok(0)
}
