//! `stage`, `switch` and `update`: the way forward.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::context::Context;
use super::failure::{Error, code};
use super::plan::{as_json, dry_run};
use super::rehearse::{ensure_rehearsable, sweep_rehearsal};
use super::stop::{self, EndAtOnce};
use crate::cli::output::progress;
use crate::cli::words::args::{FileArgs, StageArgs, SwitchArgs, TrialArgs, UpdateArgs};
use crate::coord::settings::Mode;
use crate::health::Baseline;
use crate::lifecycle::application::Moment;
use crate::lifecycle::node::{self, Node, Policies, Wish};
use crate::lifecycle::policy;
use crate::lifecycle::rehearsal;
use crate::lifecycle::settings::Settings;
use crate::lifecycle::staging::Staged;
use crate::lifecycle::staging::upstream::{self, Idle, Offered};
use crate::lifecycle::update::driver::{self, Ended};
use crate::lifecycle::update::finish;
use crate::lifecycle::update::outcome::{describe, end_of};
use crate::release::source::local;
use crate::store::Kept;
use crate::sys::clock::{Clock, SystemClock};
use crate::types::record::{Cause, Record};
use crate::types::{Span, Version, chain, escaped};

pub(super) fn nothing_newer(version: &Version) -> String {
    format!("release {version} is active; there is nothing newer")
}

pub fn stage(context: &Context, args: &StageArgs) -> Result<u8, Error> {
    context.with_node("stage", |node| {
        let staged = stage_wanted(context, node, args.what.as_deref(), &args.file)?;
        let version = &staged.sealed.release.version;
        let text = if staged.was_here {
            format!("release {version} is staged already; `cutover switch {version}` switches to it")
        } else {
            format!("release {version} is staged; `cutover switch {version}` switches to it")
        };
        let sealed = &staged.sealed;
        let value = json!({
            "version": version, "digest": sealed.release.digest, "tree": sealed.tree, "entries": sealed.entries,
            "bytes": sealed.bytes, "was_here": staged.was_here, "signers": sealed.signers,
        });
        context.output.result(&value, &text);
        Ok(0)
    })
}

/// Stages what is named: a file, a version, or the channel's release.
pub(super) fn stage_wanted(
    context: &Context,
    node: &Node<'_>,
    what: Option<&str>,
    file: &FileArgs,
) -> Result<Staged, Error> {
    let _lock = node.lock_staging()?;
    let named = what.map(|what| parse_named(what, file)).transpose()?;
    let (candidate, is_named) = match named {
        Some(Named::File(path)) => {
            (node.candidate_of_file(&path, file.version.as_ref(), file.allow_unsigned)?, true)
        }
        Some(Named::Version(version)) => match node.store.release(&version) {
            Ok(sealed) => return Ok(Staged { sealed, was_here: true }),
            Err(_) => (node.look(Some(&version))?.1, false),
        },
        None => (note_answer(context, node.look(None))?.1, false),
    };
    let record = node.staging_record(&candidate.release);
    run_hooks(node, Moment::PreStage, &record)?;
    let ends_at_once = end_at_once(context);
    let staged = node.stage(&candidate, is_named, progress::shown(&context.global).as_ref())?;
    drop(ends_at_once);
    if !staged.was_here {
        run_hooks(node, Moment::PostStage, &record)?;
    }
    Ok(staged)
}

/// Ctrl-C while a release is staged: ends, and says that nothing was switched.
fn end_at_once(context: &Context) -> EndAtOnce {
    let global = context.global.clone();
    EndAtOnce::begin(Arc::clone(&context.interrupted), move || {
        if std::io::stderr().is_terminal() {
            // The bar stands in this line.
            super::output::say("");
        }
        super::tell(&global, &Error::Interrupted("while the release was staged"))
    })
}

/// Runs the hooks around staging.
fn run_hooks(node: &Node<'_>, moment: Moment, record: &Record) -> Result<(), Error> {
    let done = node.application().hooks(moment, record);
    done.map_err(|reason| {
        if reason.kind == Cause::NotNow { Error::NotNow(reason.text) } else { Error::Hook(reason.text) }
    })
}

/// What a word of the command line names.
pub(super) enum Named {
    File(PathBuf),
    /// A version that the source offers, or that is here.
    Version(Version),
}

/// A word with a slash, or that names a file, is a file; else it must be a version.
pub(super) fn parse_named(what: &str, file: &FileArgs) -> Result<Named, Error> {
    let is_archive = local::stem(Path::new(what)).is_some();
    if what.contains('/') || is_archive || Path::new(what).is_file() {
        return Ok(Named::File(what.into()));
    }
    if file.version.is_some() {
        let what = format!("there is no archive `{}`; `--version` goes with one", escaped(what.as_bytes()));
        let hint = "name a file; `cutover pack` makes an archive of a directory".to_owned();
        return Err(Error::Usage { what, hint: Some(hint) });
    }
    match what.parse() {
        Ok(version) => Ok(Named::Version(version)),
        Err(error) => {
            Err(Error::Usage { what: format!("{error}"), hint: Some("name a version or an archive".into()) })
        }
    }
}

/// What keeps this node from switching to the offer.
pub(super) fn judge_policies(
    node: &Node<'_>,
    offered: &Offered,
    is_urgent: bool,
) -> Result<Vec<policy::Blocked>, Error> {
    let policies = Policies { offered: offered.clone(), is_urgent };
    Ok(policies.blocked(node, &node.store.trusted_state()?))
}

/// The settings with what the command line says of the trial.
fn settings_for_trial(settings: &Settings, trial: &TrialArgs, now: bool) -> Settings {
    let mut settings = settings.clone();
    if let Some(Span(length)) = trial.trial {
        let health = &mut settings.health;
        health.min_healthy = Some(Span(length));
        // A trial that a person must end lasts as long as was said, and no longer.
        health.deadline =
            if trial.confirm { Span(length) } else { Span(health.deadline.0.max(length + health.startup.0)) };
    }
    if now {
        settings.health.baseline = Baseline::Ignore;
    }
    if trial.no_rehearsal {
        settings.rehearsal = rehearsal::Settings::default();
    }
    settings
}

pub(super) fn make_wish(context: &Context, trial: &TrialArgs, even_if_bad: bool, may_wait: bool) -> Wish {
    let confirm = trial.confirm || context.settings().policy.confirm;
    Wish { confirm, no_rollback: trial.no_rollback, even_if_bad, may_wait, rollout: None, policies: None }
}

pub fn switch(context: &Context, args: &SwitchArgs) -> Result<u8, Error> {
    let settings = settings_for_trial(context.settings(), &args.trial, args.now);
    context.with_node("switch", |node| {
        let node = &node.with_settings(&settings);
        let sealed = match node.store.release(&args.version) {
            Err(crate::store::Error::NoSuchTree(version)) => {
                return Err(no_such_release(node, version.as_str()));
            }
            sealed => sealed?,
        };
        if let Some(at) = &args.at {
            let instant = super::info::moment(at, node.clock.wall(), true)?;
            context.output.say(&format!("release {} is switched to at {instant}", args.version));
            if !stop::sleep_until(node.clock, instant, &|| context.is_interrupted()) {
                return Err(Error::Interrupted("before the switch began"));
            }
        }
        let lock = node.lock()?;
        ensure_switchable(node)?;
        ensure_rehearsable(node, &sealed.release.version)?;
        super::going_back::warn_of_changes_in(context, node, &args.version);
        let ended = node.switch(lock, &sealed, &make_wish(context, &args.trial, args.now, true));
        conclude(context, node, ended)
    })
}

/// A version that is not here, with the nearest that is.
pub fn no_such_release(node: &Node<'_>, what: &str) -> Error {
    let here = node.store.releases().unwrap_or_default();
    let nearest = crate::config::nearest(what, here.iter().map(Version::as_str));
    Error::NoSuchRelease { what: what.to_owned(), nearest }
}

/// An interrupted update comes first; whoever switches by hand says so by `recover`.
pub(super) fn ensure_switchable(node: &Node<'_>) -> Result<(), Error> {
    Ok(node.ensure_at_rest()?)
}

/// How often somebody who waits for another cutover looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub fn update(context: &Context, args: &UpdateArgs) -> Result<u8, Error> {
    let until = args.wait.map(|Span(patience)| SystemClock.boot() + patience);
    let mut is_told = false;
    loop {
        let done = update_once(context, args);
        let may_wait = until.is_some_and(|until| SystemClock.boot() < until) && !context.is_interrupted();
        match &done {
            Err(error) if may_wait && is_busy(error) => {
                if !is_told {
                    context.output.say(&format!("waiting: {error}"));
                    is_told = true;
                }
                SystemClock.sleep(LOOK_AGAIN);
            }
            Ok(_) | Err(_) => {
                let is_asked = args.what.is_none() && !args.dry_run;
                if is_asked && super::refused::note(context, &done) {
                    // For monitoring. What cannot be told is told by the run itself.
                    let _ = context.with_node("update", |node| {
                        node.narrator.ended();
                        Ok(())
                    });
                }
                return done;
            }
        }
    }
}

/// Whether another cutover is at work on this root.
fn is_busy(error: &Error) -> bool {
    super::failure::failure(error).code == code::BUSY
}

fn update_once(context: &Context, args: &UpdateArgs) -> Result<u8, Error> {
    let settings = settings_for_trial(context.settings(), &args.trial, args.now);
    context.with_node("update", |node| {
        let node = &Node { is_dry: args.dry_run, ..node.with_settings(&settings) };
        if args.dry_run {
            return dry_run(context, node, args);
        }
        if let Some(code) = finish_interrupted(context, node)? {
            return Ok(code);
        }
        if args.what.is_none() && node.settings.fleet.mode != Mode::Independent {
            return super::fleet::update(context, node, args);
        }
        if args.what.is_none() && super::fleet::has_joined(node.store) {
            context.output.say(super::fleet::ALONE);
        }
        let idle = if args.what.is_none() { note_answer(context, node.idle())? } else { None };
        match idle {
            Some(Idle::Current(version)) => {
                if node.settings.metrics.textfile.is_some() {
                    // When the source answered last is worth knowing.
                    node.narrator.ended();
                }
                let value = json!({"outcome": "nothing_to_do", "version": version});
                context.output.result(&value, &nothing_newer(&version));
                return Ok(0);
            }
            Some(Idle::Banned(bad)) => {
                return not_now(context, &bad.release.version, &[policy::banned(&bad)]);
            }
            None => {}
        }
        stage_and_switch(context, node, args)
    })
}

/// Notes that the source has answered, if it has.
fn note_answer<T>(context: &Context, answer: Result<T, upstream::Error>) -> Result<T, upstream::Error> {
    if answer.is_ok() {
        crate::cli::output::narrator::note_look(&context.app);
    }
    answer
}

/// Finishes what an interrupted run has left. Says its exit code when nothing more is to be done now.
fn finish_interrupted(context: &Context, node: &Node<'_>) -> Result<Option<u8>, Error> {
    if let Some(needs) = node.store.trusted_state()?.needs_person {
        return Err(node::Error::NeedsPerson(needs).into());
    }
    if node.store.journal()? == Kept::Missing {
        if node.has_rehearsal_left() {
            sweep_rehearsal(node)?;
        }
        return Ok(None);
    }
    let lock = node.lock()?;
    match node.recover(lock)? {
        None => Ok(None),
        Some(Ended::Finished(record)) if end_of(&record).is_some_and(|end| end.leaves_more_to_do()) => {
            Ok(None)
        }
        Some(ended) => conclude(context, node, Ok(ended)).map(Some),
    }
}

fn stage_and_switch(context: &Context, node: &Node<'_>, args: &UpdateArgs) -> Result<u8, Error> {
    let staged = stage_wanted(context, node, args.what.as_deref(), &args.file)?;
    let version = staged.sealed.release.version.clone();
    let state = node.store.trusted_state()?;
    if node.active_release(&state)?.is_some_and(|active| active == staged.sealed.release) {
        let value = json!({"outcome": "nothing_to_do", "version": version});
        context.output.result(&value, &format!("release {version} is active; there is nothing to do"));
        return Ok(0);
    }
    if let Some(bad) = state.bad.iter().find(|bad| bad.release.digest == staged.sealed.release.digest) {
        // Said while it was staged, to an update that nobody has named a release to: as if it had been said before.
        return match args.what {
            Some(_) => Err(node::Error::Banned(bad.clone()).into()),
            None => not_now(context, &version, &[policy::banned(bad)]),
        };
    }
    // A person who names a release goes before windows and phases; a hold goes before everybody. What the channel says of
    // another release than the one that was staged counts for that one.
    let staged_offer = Offered::staged(&staged.sealed);
    let offered = match args.what {
        Some(_) => staged_offer,
        None => {
            Some(node.look(None)?.0).filter(|now| now.release == staged_offer.release).unwrap_or(staged_offer)
        }
    };
    let policies = Policies { offered, is_urgent: args.now || args.what.is_some() };
    let in_the_way = policies.blocked(node, &node.store.trusted_state()?);
    if !in_the_way.is_empty() {
        node.narrator.ended();
        return not_now(context, &version, &in_the_way);
    }
    let lock = node.lock()?;
    ensure_switchable(node)?;
    ensure_rehearsable(node, &version)?;
    let mut wish = make_wish(context, &args.trial, false, !args.no_wait);
    wish.policies = Some(policies);
    let ended = node.switch(lock, &staged.sealed, &wish);
    let code = conclude(context, node, ended)?;
    if code == 0 {
        prune_after_commit(context, node);
    }
    Ok(code)
}

pub(super) fn not_now(
    context: &Context,
    version: &Version,
    in_the_way: &[policy::Blocked],
) -> Result<u8, Error> {
    let texts: Vec<_> = in_the_way.iter().map(|blocked| blocked.text.as_str()).collect();
    let text = format!("release {version} is not switched to now: {}", texts.join("; "));
    context
        .output
        .result(&json!({"outcome": "not_now", "version": version, "blocked": as_json(in_the_way)}), &text);
    Ok(code::NOT_NOW)
}

/// After a commit, old releases go. What cannot go is told, and changes nothing of the outcome.
pub(super) fn prune_after_commit(context: &Context, node: &Node<'_>) {
    let Ok(_staging) = node.lock_staging() else { return };
    let Ok(_lock) = node.lock() else { return };
    match node.prune(false) {
        Ok(pruned) if pruned.removed.is_empty() => {}
        Ok(pruned) => {
            let names: Vec<_> = pruned.removed.iter().map(Version::as_str).collect();
            context.output.say(&format!("pruned: {}", names.join(", ")));
        }
        Err(error) => tracing::warn!("{}", chain(&error)),
    }
}

/// After somebody has gone back by hand, also by Ctrl-C in a trial: what lets this node follow again.
pub(super) fn say_on_hold(context: &Context, node: &Node<'_>) -> Result<(), Error> {
    let kept = super::fleet::kept(node.store)?;
    let stays = kept.is_some_and(|kept| kept.own.was_put_by_hand());
    context.output.say(if stays {
        "automatic switching is on hold, and this node stays where it is whatever the fleet keeps; `cutover fleet resume` ends both"
    } else {
        "automatic switching is on hold; `cutover unhold` lifts it"
    });
    Ok(())
}

/// Tells how an update ended, and says the exit code. An error after which the journal holds nothing but what had not
/// begun yet has changed nothing.
pub fn conclude(context: &Context, node: &Node<'_>, ended: Result<Ended, node::Error>) -> Result<u8, Error> {
    let ended = match ended {
        Ok(ended) => ended,
        Err(node::Error::Driver(driver::Error::Store(error))) if has_changed_nothing(node) => {
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    node.narrator.ended();
    match ended {
        Ended::Finished(record) => {
            let Some(end) = end_of(&record) else { return Ok(code::NEEDS_PERSON) };
            let text = describe(&record);
            let value = json!({
                "outcome": end.outcome, "exit_code": end.exit_code, "reason": end.reason, "blame": end.blame,
                "from": record.from.as_ref().map(|from| &from.version), "to": record.to.version,
                "transaction": record.transaction, "downtime_ms": record.downtime_ms,
                "unanswered_ms": record.unanswered.as_ref().map(|unanswered| unanswered.total_ms),
            });
            context.output.outcome(&value, &text, end.exit_code);
            if finish::holds(&record) {
                say_on_hold(context, node)?;
            }
            Ok(end.exit_code)
        }
        Ended::NeedsPerson(_, why) => {
            let since = Timestamp::now();
            // Under systemd the error itself is that message: see `tell`.
            if !crate::cli::output::logging::is_told(std::io::stderr()) {
                crate::cli::output::monitoring::needs_person(&why);
            }
            Err(node::Error::NeedsPerson(crate::types::state::NeedsPerson { since, reason: why }).into())
        }
        Ended::Overtaken(_, why) | Ended::Waiting(_, why) => Err(Error::NotNow(why)),
    }
}

fn has_changed_nothing(node: &Node<'_>) -> bool {
    use crate::types::record::Phase;
    match node.store.journal() {
        Ok(Kept::Missing) => true,
        Ok(Kept::Whole(record)) => {
            matches!(record.phase, Phase::Staged | Phase::Warming | Phase::Cancelled { .. })
        }
        Ok(Kept::Damaged(_)) | Err(_) => false,
    }
}
