//! `commit`, `rollback` and `recover`: the ways to end what was begun.

use serde_json::json;

use super::context::Context;
use super::failure::{Error, code};
use super::update::{conclude, no_such_release, prune_after_commit, say_on_hold};
use super::watching::lock_even_if_hung;
use crate::cli::words::args::{RecoverArgs, RollbackArgs};
use crate::lifecycle::node::adopt;
use crate::lifecycle::node::requests::Turn;
use crate::lifecycle::node::touched::in_words;
use crate::lifecycle::node::{Node, WayBack};
use crate::lifecycle::update::driver::Ended;
use crate::lifecycle::update::finish;
use crate::lifecycle::update::machine::Redirect;
use crate::lifecycle::update::outcome::end_of;
use crate::store::Kept;
use crate::sys::lock::Lock;
use crate::types::Version;
use crate::types::record::{Cause, Intent, Phase, Record, Stands};
use crate::types::state::{HistoryEntry, Hold, Outcome};

pub fn commit(context: &Context) -> Result<u8, Error> {
    context.with_node("commit", |node| match node.commit()? {
        Ok(ended) => conclude(context, node, Ok(ended)),
        Err(entry) => Ok(tell_end(context, &entry)),
    })
}

/// Tells how the update ended that another process was in the middle of.
fn tell_end(context: &Context, entry: &HistoryEntry) -> u8 {
    let why = entry.reason.as_deref().unwrap_or("see the log");
    let text = match (entry.outcome, &entry.from) {
        (Outcome::Committed, _) => format!("release {} is committed", entry.to),
        (Outcome::RolledBack, Some(from)) => {
            format!("release {} was rolled back: {why}; release {from} serves again and is healthy", entry.to)
        }
        (Outcome::RolledBack | Outcome::Failed | Outcome::Refused | Outcome::CalledOff, _) => {
            format!("release {} was not kept: {why}", entry.to)
        }
    };
    context.output.result(entry, &text);
    entry.exit_code
}

pub fn rollback(context: &Context, args: &RollbackArgs) -> Result<u8, Error> {
    context.with_node("rollback", |node| {
        if let Some(version) = &args.version
            && node.store.tree(version).is_err()
        {
            return Err(no_such_release(node, version.as_str()));
        }
        if args.check {
            return super::plan::rollback_check(context, node, args);
        }
        warn_of_changes(context, node, args.version.as_ref());
        let way = WayBack {
            version: args.version.clone(),
            data: args.data.into(),
            reason: args.reason.clone(),
            no_hold: args.no_hold,
            rollout: None,
            asked: None,
        };
        // What would be refused is refused before anybody is asked to go back. Of a switch that has not come to the pointer
        // the data are those of the release that stays.
        let under_way = node.under_way()?;
        // What has ended is remembered first: the way leads from there.
        let has_ended = under_way.as_ref().is_some_and(|record| record.phase.stands() == Stands::After);
        let within = under_way.filter(|record| record.phase.stands() == Stands::Within);
        let redirect = within.as_ref().map(|record| node.redirect(record, &way)).transpose()?;
        // With data that have moved already.
        let goes_on = redirect == Some(Redirect::GoesOn);
        let stays =
            within.filter(|record| node.store.active().ok().flatten().as_ref() != Some(&record.to.version));
        let is_plain = |record: &Record| {
            let from = record.from.as_ref().map(|from| &from.version);
            way.version.is_none() || way.version.as_ref() == from
        };
        if !goes_on
            && !has_ended
            && !stays.as_ref().is_some_and(is_plain)
            && let Ok(route) = node.route(way.version.as_ref())
        {
            node.judge_data(&route, &way)?;
        }
        match node.turn_to_go_back(&way)? {
            Turn::Ours { lock, asked } => go_back(context, node, lock, &WayBack { asked, ..way }),
            Turn::Told(entry) if entry.outcome == Outcome::RolledBack => {
                let is_there = |version: &Version| entry.from.as_ref() == Some(version);
                if way.version.as_ref().is_none_or(is_there) {
                    tell_end(context, &entry);
                    held(node, &way)?;
                    if !way.no_hold {
                        say_on_hold(context, node)?;
                    }
                    return Ok(0);
                }
                go_back(context, node, node.lock()?, &way)
            }
            // It had been decided a moment before: the way back is the usual one now.
            Turn::Told(entry) if entry.outcome == Outcome::Committed => {
                go_back(context, node, node.lock()?, &way)
            }
            Turn::Told(entry) => Ok(tell_end(context, &entry)),
        }
    })
}

/// Goes back in this process.
fn go_back(context: &Context, node: &Node<'_>, lock: Lock, way: &WayBack) -> Result<u8, Error> {
    let ended = node.roll_back(lock, way);
    let is_done = match &ended {
        Ok(Ended::Finished(record)) => match &record.phase {
            // There is nothing to go back to, and the update that waited is called off: that is what was wanted.
            Phase::Cancelled { reason } => reason.kind == Cause::Operator,
            Phase::RolledBack { .. } => record.from.is_some(),
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. }
            | Phase::Committed => false,
        },
        Ok(Ended::NeedsPerson(..) | Ended::Waiting(..) | Ended::Overtaken(..)) | Err(_) => false,
    };
    let is_told = matches!(&ended, Ok(Ended::Finished(record)) if finish::holds(record));
    let code = conclude(context, node, ended)?;
    if !is_done {
        return Ok(code);
    }
    held(node, way)?;
    if !way.no_hold && !is_told {
        say_on_hold(context, node)?;
    }
    Ok(0)
}

/// Going back is done: no timer brings the release again until somebody says so.
fn held(node: &Node<'_>, way: &WayBack) -> Result<(), Error> {
    if !way.no_hold {
        let mut memory = node.store.memory()?;
        let (since, by) = (node.clock.wall(), node.by.clone());
        let reason = format!(
            "rolled back by hand{}",
            way.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default()
        );
        memory.hold.get_or_insert(Hold { since, until: None, reason, by });
        memory.keep()?;
    }
    Ok(())
}

/// Says that somebody has written to the tree that comes back. It comes back all the same: it is what there is.
fn warn_of_changes(context: &Context, node: &Node<'_>, version: Option<&Version>) {
    if let Ok(route) = node.route(version) {
        warn_of_changes_in(context, node, &route.back_to.version);
    }
}

/// Says that somebody has written to the tree of a release.
pub(super) fn warn_of_changes_in(context: &Context, node: &Node<'_>, version: &Version) {
    match node.touched_at_a_glance(version) {
        Ok(touched) if touched.is_empty() => {}
        Ok(touched) => context.output.say(&format!(
            "warning: the tree of release {version} was written to: {}; `cutover verify {version} --repair` mends it",
            in_words(&touched)
        )),
        Err(error) => tracing::debug!(%error, "cannot look for changes"),
    }
}

pub fn recover(context: &Context, args: &RecoverArgs) -> Result<u8, Error> {
    context.with_node("recover", |node| {
        if args.watch {
            return super::watching::watch(context, node);
        }
        // The usual case at boot, in a few milliseconds: nothing is written, and no lock is taken.
        if node.store.journal()? == Kept::Missing {
            if node.has_rehearsal_left() {
                super::rehearse::sweep_rehearsal(node)?;
            }
            if adopt::interrupted(node.store)?.is_some() {
                return recover_adoption(context, node);
            }
            let value = json!({"outcome": "nothing_to_do"});
            context.output.result(&value, "nothing was interrupted");
            return Ok(needs_person(node)?.map_or(0, |_| code::NEEDS_PERSON));
        }
        let lock = lock_even_if_hung(node)?;
        if args.boot {
            return at_boot(context, node, &lock);
        }
        match node.recover(lock) {
            Ok(None) => Ok(0),
            Ok(Some(ended)) => {
                let is_undone =
                    matches!(&ended, Ended::Finished(record) if end_of(record).is_some_and(|end| end.is_undone()));
                let is_update = matches!(&ended, Ended::Finished(record) if record.intent == Intent::Update);
                let code = conclude(context, node, Ok(ended))?;
                if code == 0 && is_update {
                    prune_after_commit(context, node);
                }
                Ok(if is_undone { 0 } else { code })
            }
            Err(error) => conclude(context, node, Err(error)),
        }
    })
}

fn recover_adoption(context: &Context, node: &Node<'_>) -> Result<u8, Error> {
    let _staging = node.lock_staging()?;
    let _lock = node.lock()?;
    let (outcome, text) = match adopt::recover(node)? {
        Some((adopted, true)) => ("adopted", format!("release {} is adopted and active", adopted.version)),
        Some((_, false)) => ("undone", "the adoption was interrupted before anything moved".to_owned()),
        None => ("nothing_to_do", "nothing was interrupted".to_owned()),
    };
    context.output.result(&json!({"outcome": outcome}), &text);
    node.narrator.ended();
    Ok(0)
}

fn needs_person(node: &Node<'_>) -> Result<Option<String>, Error> {
    Ok(node.store.trusted_state()?.needs_person.map(|needs| needs.reason))
}

fn at_boot(context: &Context, node: &Node<'_>, lock: &Lock) -> Result<u8, Error> {
    let settled = node.settle_at_boot(lock)?;
    let active = node.store.active()?;
    let text =
        if settled.is_some() { "data and pointer fit together; the rest follows after the boot" } else { "" };
    context.output.result(&json!({"outcome": "settled", "active": active}), text);
    Ok(0)
}
