//! `commit`, `rollback` and `recover`: the ways to end what was begun.

use serde_json::json;

use super::args::{RecoverArgs, RollbackArgs};
use super::context::{Context, Locally};
use super::failure::{Error, code};
use super::update::{conclude, no_such};
use super::watching::lock_even_if_hung;
use crate::lifecycle::driver::Ended;
use crate::lifecycle::finish::BY_HAND;
use crate::lifecycle::node::{self, Node, WayBack};
use crate::lifecycle::outcome::end_of;
use crate::store::Kept;
use crate::sys::lock::Lock;
use crate::types::record::Record;
use crate::types::state::Outcome;

/// `commit`
pub fn commit(context: &Context) -> Result<u8, Error> {
    context.with_node("commit", |node, locally| {
        let transaction = under_way(node)?.map(|record| record.transaction);
        match node.commit(locally) {
            Ok(Some(ended)) => conclude(context, node, Ok(ended)),
            Ok(None) => follow(context, node, &transaction.unwrap_or_default()),
            Err(error) => Err(error.into()),
        }
    })
}

/// Waits for the cutover that watches the trial, and tells what came of it.
fn follow(context: &Context, node: &Node<'_>, transaction: &str) -> Result<u8, Error> {
    let entry = node.await_end(transaction)?;
    let text = match entry.outcome {
        Outcome::Committed => format!("release {} is committed", entry.to),
        Outcome::RolledBack | Outcome::Failed | Outcome::Refused | Outcome::CalledOff => {
            format!("release {} did not stay: {}", entry.to, entry.reason.as_deref().unwrap_or("see the log"))
        }
    };
    context.output.result(&entry, &text);
    Ok(entry.exit_code)
}

fn under_way(node: &Node<'_>) -> Result<Option<Record>, Error> {
    Ok(match node.store.journal()? {
        Kept::Whole(record) => Some(record),
        Kept::Missing | Kept::Damaged(_) => None,
    })
}

/// `rollback`
pub fn rollback(context: &Context, args: &RollbackArgs) -> Result<u8, Error> {
    context.with_node("rollback", |node, locally| {
        if let Some(version) = &args.version
            && node.store.tree(version).is_err()
        {
            return Err(no_such(node, version.as_str()));
        }
        if args.check {
            return super::plan::rollback_check(context, node, args);
        }
        let way = WayBack {
            version: args.version.clone(),
            data: args.data.into(),
            reason: args.reason.clone(),
            no_hold: args.no_hold,
            rollout: None,
        };
        match node.lock() {
            Ok(lock) => {
                let ended = node.roll_back(&lock, &way, locally);
                let told = conclude(context, node, ended);
                if told.as_ref().is_ok_and(|code| *code == 0) && !args.no_hold {
                    context.output.say("automatic switching is on hold; `cutover unhold` lifts it");
                }
                told
            }
            Err(node::Error::Busy(_)) if args.now => {
                let record = node.ask_to_go_back(args.reason.as_deref().unwrap_or(BY_HAND))?;
                follow(context, node, &record.transaction)
                    .map(|code| if code == code::ROLLED_BACK { 0 } else { code })
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// `recover`
pub fn recover(context: &Context, args: &RecoverArgs) -> Result<u8, Error> {
    context.with_node("recover", |node, locally| {
        if args.watch {
            return super::watching::watch(context, node, locally);
        }
        // The usual case at boot, in a few milliseconds: nothing is written, and no lock is taken.
        if node.store.journal()? == Kept::Missing {
            if node.has_rehearsal_left() {
                let _lock = node.lock()?;
                super::rehearse::sweep(node, locally);
            }
            let value = json!({"outcome": "nothing_to_do"});
            context.output.result(&value, "nothing was interrupted");
            return Ok(needs_person(node)?.map_or(0, |_| code::NEEDS_PERSON));
        }
        let lock = lock_even_if_hung(node)?;
        if args.boot {
            return at_boot(context, node, locally, &lock);
        }
        match node.recover(&lock, locally) {
            Ok(None) => Ok(0),
            Ok(Some(ended)) => {
                let is_undone =
                    matches!(&ended, Ended::Finished(record) if end_of(record).is_some_and(|end| end.is_undone()));
                let code = conclude(context, node, Ok(ended))?;
                Ok(if is_undone { 0 } else { code })
            }
            Err(error) => conclude(context, node, Err(error)),
        }
    })
}

fn needs_person(node: &Node<'_>) -> Result<Option<String>, Error> {
    Ok(node.store.trusted_state()?.needs_person.map(|needs| needs.reason))
}

fn at_boot(context: &Context, node: &Node<'_>, locally: &Locally<'_>, lock: &Lock) -> Result<u8, Error> {
    let settled = node.settle_at_boot(lock, locally)?;
    let active = node.store.active()?;
    let text =
        if settled.is_some() { "data and pointer fit together; the rest follows after the boot" } else { "" };
    context.output.result(&json!({"outcome": "settled", "active": active}), text);
    Ok(0)
}
