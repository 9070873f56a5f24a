//! `rehearse`: a rehearsal by hand, and whether one can be had before an update counts on it.

use serde_json::json;

use super::context::Context;
use super::failure::{Error, code};
use super::update::stage_wanted;
use crate::cli::words::args::RehearseArgs;
use crate::lifecycle::node::{self, Node};
use crate::lifecycle::rehearsal::{self, Network};
use crate::lifecycle::update::outcome;
use crate::store::Pointer;
use crate::types::{Size, Span, Version};

pub fn rehearse(context: &Context, args: &RehearseArgs) -> Result<u8, Error> {
    let mut settings = context.settings().clone();
    if !settings.rehearsal.is_on() {
        // Whoever asks by hand wants one, configured or not.
        settings.rehearsal.network = Network::Private;
        crate::config::check(&settings)?;
    }
    context.with_node("rehearse", |node| {
        let node = &node.with_settings(&settings);
        let staged = stage_wanted(context, node, args.what.as_deref(), &args.file)?;
        let version = &staged.sealed.release.version;
        // Nothing is changed: who rehearses holds nothing that another command needs.
        let lock = node.lock_update()?;
        ensure_rehearsable(node, version)?;
        context.output.say(&format!("release {version} is rehearsed beside the running one"));
        let seen = node.rehearse(&lock, &staged.sealed.release)?;
        node.narrator.ended();
        let (value, text, code) = match &seen {
            Ok(seen) => {
                let cost = json!({
                    "took_ms": seen.took_ms, "copied_bytes": seen.copied_bytes, "memory_bytes": seen.memory_bytes,
                });
                let took = Span(std::time::Duration::from_millis(seen.took_ms));
                let memory = seen.memory_bytes.map(|bytes| format!(", {} of memory", Size(bytes)));
                let text = format!(
                    "release {version} is well: rehearsed in {took}, {} copied{}",
                    Size(seen.copied_bytes),
                    memory.unwrap_or_default()
                );
                (json!({"outcome": "well", "version": version, "exit_code": 0, "cost": cost}), text, 0)
            }
            Err(reason) => {
                let code = outcome::called_off(reason.kind).1;
                let outcome = if code == code::REFUSED { "refused" } else { "called_off" };
                let value =
                    json!({"outcome": outcome, "version": version, "exit_code": code, "reason": reason.text});
                (value, format!("release {version}: {}", reason.text), code)
            }
        };
        context.output.result(&value, &text);
        Ok(code)
    })
}

/// Refuses before anything is begun where a rehearsal is wanted and cannot be had.
pub fn ensure_rehearsable(node: &Node<'_>, version: &Version) -> Result<(), Error> {
    Ok(can_rehearse(node, version)?)
}

/// `config check`: whether the release that serves could be rehearsed as configured. Who is not root cannot know.
pub fn check_configured(node: &Node<'_>) -> Result<(), Error> {
    // Before anything is adopted there is no release to look at.
    if matches!(node.store.pointer()?, Pointer::Foreign(_)) {
        return Ok(());
    }
    let Some(version) = node.store.active()? else { return Ok(()) };
    match can_rehearse(node, &version) {
        Ok(()) | Err(rehearsal::Error::NotRoot) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same, as something to show.
pub fn can_rehearse(node: &Node<'_>, version: &Version) -> Result<(), rehearsal::Error> {
    if !node.settings.rehearsal.is_on() {
        return Ok(());
    }
    node.application().can_rehearse(version)
}

/// Removes what a rehearsal has left that nobody ends any more; one that is under way is left alone.
pub fn sweep_rehearsal(node: &Node<'_>) -> Result<(), Error> {
    let _update = match node.lock_update() {
        Err(node::Error::Busy(_)) => return Ok(()),
        taken => taken?,
    };
    if let Err(reason) = node.application().end_rehearsal() {
        tracing::warn!("{}", reason.text);
    }
    Ok(())
}
