//! `update` on a node of a fleet: what the timer runs.

use serde_json::json;

use super::report::note_newest;
use super::{board, has, here, kept, keys, settings};
use crate::cli::context::Context;
use crate::cli::failure::{Error, code, failure};
use crate::cli::rehearse::ensure_rehearsable;
use crate::cli::update::{conclude, ensure_switchable, make_wish, not_now, prune_after_commit, stage_wanted};
use crate::cli::words::args::UpdateArgs;
use crate::coord::rules::Checks;
use crate::health::{Trial, Verdict};
use crate::lifecycle::fleet::{Along, KeyFile, Member, Taken};
use crate::lifecycle::node::{Node, Policies, WayBack};
use crate::lifecycle::policy;
use crate::lifecycle::staging::upstream::Offered;
use crate::store::Sealed;
use crate::sys::clock::SystemClock;
use crate::types::ReleaseId;
use crate::types::record::DataPolicy;
use crate::types::state::Bad;

/// Finishes what is left of the last rollout, and takes part in the next: stages, votes, and waits for the fleet.
pub fn update(context: &Context, node: &Node<'_>, args: &UpdateArgs) -> Result<u8, Error> {
    settings(context)?;
    let state = node.store.trusted_state()?;
    let active = node.active_release(&state)?;
    let mut taken = with_member(context, node, |member| Ok(member.take_up(active.as_ref())?))?;
    while let (Taken::Queue(pause), false, false) = (&taken, args.no_wait, context.is_interrupted()) {
        node.clock.sleep(*pause);
        taken = with_member(context, node, |member| Ok(member.take_up(active.as_ref())?))?;
    }
    match taken {
        Taken::Nothing(None) => {
            let version = active.map(|active| active.version);
            context.output.result(
                &json!({"outcome": "nothing_to_do", "version": version}),
                "the fleet has nothing to do for this node",
            );
            Ok(0)
        }
        Taken::Nothing(Some(why)) => Err(Error::NotNow(why)),
        Taken::Queue(_) => Err(Error::NotNow("going back after the halt: waits for a place".into())),
        Taken::GoBack { number, version } => {
            let lock = node.lock()?;
            let way = WayBack {
                version: Some(version),
                data: DataPolicy::Auto,
                reason: Some(format!("rollout {number} was halted")),
                no_hold: true,
                rollout: Some(number),
                asked: None,
            };
            let ended = node.roll_back(lock, &way);
            conclude(context, node, ended)
        }
        Taken::Unreachable(why) => Err(Error::Unreachable(why)),
        Taken::Stranger(why) => Err(Error::Stranger(why)),
        Taken::CatchUp { number, release } => {
            context.output.say(&format!("the fleet runs release {} since rollout {number}", release.version));
            let done = follow(context, node, args, &release, None);
            tell_why_not(context, node, &done);
            done
        }
        Taken::Rollout { number, release, .. } if active.as_ref() == Some(&release) => {
            go_along(context, node, args, number, &release)
        }
        Taken::Rollout { number, release, must_rehearse } => {
            if must_rehearse && !node.settings.rehearsal.is_on() {
                let why = format!("rollout {number} demands rehearsals, and none is configured here");
                with_member(context, node, |member| Ok(member.refuse(&why)?))?;
                return Err(Error::Fleet(why));
            }
            let done = follow(context, node, args, &release, Some(number));
            if let Err(error) = &done
                && is_refusal(error)
            {
                let why = failure(error).message;
                with_member(context, node, |member| Ok(member.refuse(&why)?))?;
            } else {
                tell_why_not(context, node, &done);
            }
            note_newest(context, number);
            node.narrator.ended();
            done
        }
    }
}

/// Calls `work` with this node as a member.
pub fn with_member<T>(
    context: &Context,
    node: &Node<'_>,
    work: impl FnOnce(&mut Member<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let fleet = &node.settings.fleet;
    let keys = keys(context.settings())?;
    if kept(node.store)?.is_none() {
        let hint = Some("`cutover fleet join` makes it known".to_owned());
        return Err(Error::Usage { what: "this node has not joined its fleet".into(), hint });
    }
    let _update = node.lock_update()?;
    // Read with the lock: what stood there before may be overtaken.
    let Some(kept) = kept(node.store)? else {
        return Err(Error::NotNow("this node leaves its fleet".into()));
    };
    let board = board(fleet, kept.own.node.as_str(), Some(&kept));
    let signer = KeyFile(node.store.layout.fleet_key());
    let mut member = Member::new(Box::new(board), &SystemClock, &keys, Some(&signer), fleet, kept);
    member.has = has(node.store);
    member.here = here(node.store);
    member.obstacle = Some(super::obstacle(node.store));
    work(&mut member)
}

/// Tells the fleet why this node does not take part yet. What cannot be told is not told.
fn say_not_yet(context: &Context, node: &Node<'_>, why: &str, until: Option<jiff::Timestamp>) {
    let told = with_member(context, node, |member| {
        member.say_not_yet(why, until);
        Ok(())
    });
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the fleet why this node waits");
    }
}

/// Tells the fleet what keeps this node from the release, where the next run may do better.
fn tell_why_not(context: &Context, node: &Node<'_>, done: &Result<u8, Error>) {
    let Err(error) = done else { return };
    let is_interrupted = matches!(error, Error::Interrupted(_));
    let failure = failure(error);
    let is_own = [code::FAILED, code::USAGE, code::REFUSED, code::NO_SPACE].contains(&failure.code);
    if is_own && !is_interrupted {
        say_not_yet(context, node, &failure.message, None);
    }
}

/// The release runs here already: this node votes and reports like the others, and has nothing to switch.
fn go_along(
    context: &Context,
    node: &Node<'_>,
    args: &UpdateArgs,
    number: u64,
    release: &ReleaseId,
) -> Result<u8, Error> {
    let version = &release.version;
    let tree = node.store.tree(version)?;
    let began = node.clock.boot();
    let mut trial = Trial::new(&node.settings.health, &[]);
    let mut told = String::new();
    let application = node.application();
    let mut watch = application.watch(version, &tree, None);
    let ended = with_member(context, node, |member| {
        loop {
            let at = node.clock.boot().saturating_sub(began);
            let checks = match trial.observe(at, &watch.observe(at)) {
                Verdict::Watching => Checks::Watching,
                Verdict::Healthy => Checks::Good,
                Verdict::Failed(_) | Verdict::Unproven(_) => Checks::Failed,
            };
            // Somebody may put it elsewhere meanwhile: then its word is that it failed, and what it says it runs is true.
            let runs = node.store.active()?;
            let is_here = runs.as_ref() == Some(version);
            let checks = if is_here { checks } else { Checks::Failed };
            match member.go_along(runs.as_ref().unwrap_or(version), checks)? {
                Along::Ended(how) => return Ok(how),
                Along::Wait(_, why) if args.no_wait => return Err(Error::NotNow(why)),
                Along::Wait(pause, why) => {
                    if context.is_interrupted() {
                        return Err(Error::NotNow(format!("rollout {number} goes on without this command")));
                    }
                    if why != told {
                        context.output.say(&why);
                        told = why;
                    }
                    node.clock.sleep(pause.min(GLANCE));
                }
            }
        }
    })?;
    let mut text = format!("release {version} of rollout {number} runs here already");
    let mut value = json!({"outcome": "nothing_to_do", "version": version});
    if let Some(why) = &ended {
        text.push_str(&format!("; {why}"));
        value["reason"] = json!(why);
    }
    context.output.result(&value, &text);
    Ok(if ended.is_none() { 0 } else { code::CALLED_OFF })
}

/// The longest sleep while others are waited for, so that signals are noticed.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(200);

/// Stages what the fleet wants, and begins the update.
fn follow(
    context: &Context,
    node: &Node<'_>,
    args: &UpdateArgs,
    release: &ReleaseId,
    rollout: Option<u64>,
) -> Result<u8, Error> {
    let state = node.store.trusted_state()?;
    if let Some(bad) = state.bad.iter().find(|bad| bad.release.digest == release.digest) {
        return not_taken(context, node, bad, rollout);
    }
    let sealed = stage(context, node, args, release)?;
    let policies = Policies { offered: Offered::staged(&sealed), is_urgent: args.now };
    let in_the_way = policies.blocked(node, &node.store.trusted_state()?);
    if !in_the_way.is_empty() {
        let texts: Vec<&str> = in_the_way.iter().map(|blocked| blocked.text.as_str()).collect();
        let until = in_the_way.iter().filter_map(|blocked| blocked.until).max();
        say_not_yet(context, node, &texts.join("; "), until);
        return not_now(context, &release.version, &in_the_way);
    }
    let lock = node.lock()?;
    ensure_switchable(node)?;
    ensure_rehearsable(node, &release.version)?;
    let mut wish = make_wish(context, &args.trial, false, !args.no_wait);
    wish.rollout = rollout;
    wish.policies = Some(policies);
    let ended = node.switch(lock, &sealed, &wish);
    let code = conclude(context, node, ended)?;
    if code == 0 {
        prune_after_commit(context, node);
    }
    Ok(code)
}

/// The node stays as it is until somebody allows the release again, and tells the fleet so.
fn not_taken(context: &Context, node: &Node<'_>, bad: &Bad, rollout: Option<u64>) -> Result<u8, Error> {
    let banned = policy::banned(bad);
    match rollout {
        Some(_) => with_member(context, node, |member| Ok(member.refuse(&banned.text)?))?,
        None => say_not_yet(context, node, &banned.text, None),
    }
    not_now(context, &bad.release.version, &[banned])
}

/// The release of this version counts only with the digest that the proposal names.
fn stage(
    context: &Context,
    node: &Node<'_>,
    args: &UpdateArgs,
    release: &ReleaseId,
) -> Result<Sealed, Error> {
    let staged = stage_wanted(context, node, Some(release.version.as_str()), &args.file)?;
    if staged.sealed.release == *release {
        return Ok(staged.sealed);
    }
    let (version, found) = (&release.version, staged.sealed.release.digest);
    Err(Error::Fleet(format!("release {version} here is {found}, and the fleet wants {}", release.digest)))
}

/// Whether the node says no to the rollout for this; else another try may do better before the votes are due.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Fleet(_) | Error::Rehearsal(_))
        || [code::REFUSED, code::NO_SPACE].contains(&failure(error).code)
}
