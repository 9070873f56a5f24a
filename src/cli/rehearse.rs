//! `rehearse`: a rehearsal by hand, and whether one can be had before an update counts on it.

use serde_json::json;

use super::context::{Context, Locally};
use super::failure::{Error, code};
use super::update::bring;
use crate::cli::words::args::RehearseArgs;
use crate::lifecycle::node::{self, Node};
use crate::lifecycle::rehearsal::{self, Network};
use crate::lifecycle::settings::Settings;
use crate::store::Pointer;
use crate::types::record::Cause;
use crate::types::{Size, Span, Version};

/// `rehearse`
pub fn rehearse(context: &Context, args: &RehearseArgs) -> Result<u8, Error> {
    let mut settings = context.settings().clone();
    if !settings.rehearsal.is_on() {
        // Whoever asks by hand wants one, configured or not.
        settings.rehearsal.network = Network::Private;
        crate::config::check(&settings)?;
    }
    context.with_node("rehearse", |node, locally| {
        let node = &node.with_settings(&settings);
        let staged = bring(context, node, locally, args.what.as_deref(), &args.file)?;
        let version = &staged.sealed.release.version;
        // Nothing is changed: who rehearses holds nothing that another command needs.
        let lock = node.lock_update()?;
        ensure_possible(locally, &settings, version)?;
        context.output.say(&format!("release {version} is rehearsed beside the running one"));
        let seen = locally.application(&settings, |application| {
            node.rehearse(&lock, &staged.sealed.release, application)
        })?;
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
                let code = code_of(reason.kind);
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

fn code_of(cause: Cause) -> u8 {
    match cause {
        Cause::Rehearsal => code::REFUSED,
        Cause::NotNow | Cause::Baseline | Cause::Units => code::NOT_NOW,
        Cause::Unhealthy
        | Cause::Service
        | Cause::Stop
        | Cause::Hook
        | Cause::AdminHook
        | Cause::Setup
        | Cause::Machine
        | Cause::Interrupted
        | Cause::Killed
        | Cause::Deadline
        | Cause::Unproven
        | Cause::Unconfirmed
        | Cause::Operator
        | Cause::Fleet => code::FAILED,
    }
}

/// Refuses before anything is begun where a rehearsal is wanted and cannot be had.
pub fn ensure_possible(locally: &Locally<'_>, settings: &Settings, version: &Version) -> Result<(), Error> {
    Ok(possible(locally, settings, version)?)
}

/// `config check`: whether the release that serves could be rehearsed as configured. Who is not root cannot know.
pub fn check_configured(node: &Node<'_>, locally: &Locally<'_>) -> Result<(), Error> {
    // Before anything is adopted there is no release to look at.
    if matches!(node.store.pointer()?, Pointer::Foreign(_)) {
        return Ok(());
    }
    let Some(version) = node.store.active()? else { return Ok(()) };
    match possible(locally, node.settings, &version) {
        Ok(()) | Err(rehearsal::Error::NotRoot) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same, as something to show.
pub fn possible(
    locally: &Locally<'_>,
    settings: &Settings,
    version: &Version,
) -> Result<(), rehearsal::Error> {
    if !settings.rehearsal.is_on() {
        return Ok(());
    }
    locally.application(settings, |application| application.can_rehearse(version))
}

/// Removes what a rehearsal has left that nobody ends any more; one that is under way is left alone.
pub fn sweep(node: &Node<'_>, locally: &Locally<'_>) -> Result<(), Error> {
    let _update = match node.lock_update() {
        Err(node::Error::Busy(_)) => return Ok(()),
        taken => taken?,
    };
    let swept = locally.application(node.settings, |application| application.end_rehearsal());
    if let Err(reason) = swept {
        tracing::warn!("{}", reason.text);
    }
    Ok(())
}
