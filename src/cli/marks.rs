//! `hold`, `pin`, `mark-bad` and their opposites: what an operator wants remembered.

use jiff::Timestamp;
use serde_json::json;

use super::context::Context;
use super::failure::Error;
use super::info::moment;
use super::update::no_such_release;
use crate::cli::words::args::{HoldArgs, MarkBadArgs};
use crate::lifecycle::node::Node;
use crate::lifecycle::policy::short;
use crate::lifecycle::update::finish::ban;
use crate::types::state::{Hold, State};
use crate::types::{ReleaseId, Version};

/// Changes what is remembered, and tells it. At once, whatever is under way: nothing but the memory's own lock is needed.
fn remember(
    context: &Context,
    command: &str,
    change: impl FnOnce(&Node<'_>, &mut State) -> Result<String, Error>,
) -> Result<u8, Error> {
    context.with_node(command, |node| {
        node.store.prepare()?;
        let mut memory = node.store.memory()?;
        let text = change(node, &mut memory)?;
        let state = memory.keep()?;
        context.output.result(&json!({"hold": state.hold, "pins": state.pins, "bad": state.bad}), &text);
        node.narrator.ended();
        Ok(0)
    })
}

pub fn hold(context: &Context, args: &HoldArgs) -> Result<u8, Error> {
    remember(context, "hold", |node, state| {
        let now = node.clock.wall();
        let until = args.until.as_deref().map(|text| moment(text, now, true)).transpose()?;
        let reason = args.reason.clone().unwrap_or_default();
        state.hold = Some(Hold { since: now, until, reason, by: node.by.clone() });
        let until = until.map_or_else(|| "`cutover unhold`".to_owned(), short);
        Ok(format!("automatic switching is on hold until {until}"))
    })
}

pub fn unhold(context: &Context) -> Result<u8, Error> {
    remember(context, "unhold", |_, state| {
        Ok(match state.hold.take() {
            Some(_) => "automatic switching goes on".to_owned(),
            None => "there was no hold".to_owned(),
        })
    })
}

/// `pin` and `unpin`
pub fn pin(context: &Context, version: &Version, is_pinned: bool) -> Result<u8, Error> {
    remember(context, if is_pinned { "pin" } else { "unpin" }, |node, state| {
        if is_pinned && node.store.tree(version).is_err() {
            return Err(no_such_release(node, version.as_str()));
        }
        let was_pinned = state.pins.contains(version);
        state.pins.retain(|pin| pin != version);
        if is_pinned {
            state.pins.push(version.clone());
            return Ok(format!("release {version} is never pruned"));
        }
        let text = if was_pinned { "is pruned when it is surplus" } else { "was not pinned" };
        Ok(format!("release {version} {text}"))
    })
}

pub fn mark_bad(context: &Context, args: &MarkBadArgs) -> Result<u8, Error> {
    remember(context, "mark-bad", |node, state| {
        let release = known(node, state, &args.version)?;
        let reason = args.reason.clone().unwrap_or_else(|| format!("marked by {}", node.by));
        // Said once more, it is another ban than the one that an update under way may overrule.
        state.bad.retain(|bad| bad.release.digest != release.digest);
        ban(state, &release, &reason, Timestamp::now());
        Ok(format!(
            "release {} is banned: only `cutover mark-good` lets it be switched to again ({})",
            release.version, release.digest
        ))
    })
}

pub fn mark_good(context: &Context, version: &Version) -> Result<u8, Error> {
    remember(context, "mark-good", |node, state| {
        let before = state.bad.len();
        state.bad.retain(|bad| bad.release.version != *version);
        let paused = state.setback.take_if(|setback| setback.release.version == *version);
        if state.bad.len() == before && paused.is_none() {
            known(node, state, version)?;
            return Ok(format!("release {version} was not banned"));
        }
        Ok(format!("release {version} may be switched to again"))
    })
}

/// A release that this node knows by digest: it is here, was here, or is what a channel offered last.
fn known(node: &Node<'_>, state: &State, version: &Version) -> Result<ReleaseId, Error> {
    if let Ok(sealed) = node.store.release(version) {
        return Ok(sealed.release);
    }
    let remembered = [&state.committed, &state.previous].into_iter().flatten().chain(&state.earlier);
    let offered = state.channels.values().filter_map(|seen| seen.offer.as_ref()).map(|offer| &offer.release);
    let remembered = remembered.map(|kept| &kept.release).chain(offered);
    let remembered = remembered.into_iter().find(|release| release.version == *version);
    remembered.cloned().ok_or_else(|| no_such_release(node, version.as_str()))
}
