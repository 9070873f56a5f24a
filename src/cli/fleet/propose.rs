//! What operators decide: `propose`, `abort`, `waive`.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::args::{AbortArgs, ProposeArgs, WaiveArgs};
use super::page::NOBODY_IS_LEFT;
use super::people::warn_of_names;
use super::report::{account, summary};
use super::{ensure_signer, kept, remembered, rollout, settings, with_all_of, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::{Error, code};
use crate::config::Problem;
use crate::coord::account::Account;
use crate::coord::alive::{self, NoWayBack};
use crate::coord::board::Read;
use crate::coord::facts::{Fleet, Wanted, names};
use crate::coord::lists::newest_bad;
use crate::coord::operate::{self, Operator, Wish, some_of};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::{Rollout, names_of, numbers};
use crate::coord::rules::rolling::At;
use crate::coord::settings::Mode;
use crate::coord::standing::{self, How, Standing};
use crate::coord::{NodeName, Settings};
use crate::lifecycle::fleet::{self, Kept};
use crate::lifecycle::node::Node;
use crate::lifecycle::staging::upstream;
use crate::release::source;
use crate::sys::clock::Clock;
use crate::types::{Digest, ReleaseId, Version};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long `--wait` waits for the members' last facts, for its report.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long `--wait` bears storage that does not answer.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn propose(context: &Context, args: &ProposeArgs) -> Result<u8, Error> {
    let fleet_settings = settings(context)?;
    if let Some(why) = operate::unworkable(fleet_settings) {
        return Err(Problem::Contradiction { why }.into());
    }
    ensure_signer(context)?;
    if args.valid.0.is_zero() {
        let what = "`--valid` of nothing: nobody could take the proposal up".to_owned();
        return Err(Error::Usage { what, hint: Some("say for how long, such as `--valid 1d`".into()) });
    }
    let now = Timestamp::now();
    let not_before = match &args.not_before {
        Some(text) => Some(crate::cli::info::moment(text, now, true)?),
        None => None,
    };
    context.with_node("fleet propose", |node| {
        let wanted = match &args.version {
            Some(version) => Some(release_of(node, version, args.digest)?),
            None => None,
        };
        let name = context.app.clone();
        with_operator(context, |operator| {
            let fleet = operate::fleet(operator.board, &fleet_settings.name)?;
            ensure_nothing_was_lost(node, operator, &fleet)?;
            let release = match wanted {
                Some(release) => release,
                None => way_back(operator, &fleet, &args.only)?,
            };
            if let Some(text) = unknown_in_waves(operator, &fleet, fleet_settings)? {
                context.output.say(&format!("warning: {text}"));
            }
            let newest = operator.newest(&fleet)?;
            let wish = Wish {
                release: Wanted { name, version: release.version.clone(), digest: release.digest },
                only: args.only.clone(),
                not_before,
                valid: SignedDuration::try_from(args.valid.0).unwrap_or(SignedDuration::MAX),
                now,
                after: newest.as_ref().map(|rollout| rollout.number),
            };
            if let Some(open) = newest
                && ended(operator, &open).map_err(Error::Unreachable)?.is_none()
            {
                if !args.supersede {
                    return Err(Error::NotNow(in_the_way(operator, &open)?));
                }
                // Nothing is stopped for what cannot be proposed.
                operator.ensure_may_propose(fleet_settings, &wish)?;
                // A rolling rollout that was stopped waits for those who hold a place: nobody waits for them now.
                if operator.abort(&open, "superseded", now).is_err()
                    || ended(operator, &open).map_err(Error::Unreachable)?.is_none()
                {
                    operator.void(&open, "superseded", now)?;
                }
            }
            let rollout = operator.propose(fleet_settings, &wish)?;
            warn_of_names(context, operator, &fleet, &rollout)?;
            let number = rollout.number;
            let members = rollout.proposal.members.len();
            let text = format!("rollout {number}: release {} for {members} members", release.version);
            if !args.wait {
                let value = json!({"rollout": number, "version": release.version, "digest": release.digest});
                context.output.result(&value, &text);
                return Ok(0);
            }
            context.output.say(&text);
            wait(context, node, operator, &rollout)
        })
    })
}

/// Who is named in a wave, and listed nowhere: a slip, and that part goes with the others.
fn unknown_in_waves(
    operator: &mut Operator<'_>,
    fleet: &Fleet,
    settings: &Settings,
) -> Result<Option<String>, Error> {
    let Some(list) = operator.members(fleet)?.filter(|_| settings.mode.takes_turns()) else {
        return Ok(None);
    };
    let listed: BTreeSet<&NodeName> = list.members.iter().map(|entry| &entry.node).collect();
    let known: BTreeSet<&String> = list.members.iter().flat_map(|entry| &entry.groups).collect();
    let nodes = settings.waves.iter().flat_map(|wave| &wave.nodes).filter(|node| !listed.contains(node));
    let groups = settings.waves.iter().flat_map(|wave| &wave.groups).filter(|group| !known.contains(group));
    let unknown: Vec<String> = nodes
        .map(|node| format!("node `{node}`"))
        .chain(groups.map(|group| format!("group `{group}`")))
        .collect();
    Ok((!unknown.is_empty()).then(|| {
        format!("`fleet.waves` names {}, which the list of members does not have", some_of(&unknown))
    }))
}

/// What ends the rollout that is in the way of another one.
fn in_the_way(operator: &mut Operator<'_>, open: &Rollout) -> Result<String, Error> {
    let number = open.number;
    if open.proposal.mode == Mode::Rolling
        && let Some(mut follow) = Rolling::new(open.clone(), usize::MAX, operator.voice())
    {
        super::heard(follow.read(operator.board))?;
        let is_stopped = follow.view.halt || follow.view.end.is_some();
        if let Some(first) = follow.busy().next().filter(|_| is_stopped) {
            return Ok(format!(
                "rollout {number} was stopped, and waits for {first}: `cutover fleet waive {first} {number}` goes on without it, \
                 `--supersede` without all that it waits for"
            ));
        }
    }
    Ok(format!("rollout {number} has not ended: `cutover fleet abort` stops it, `--supersede` does both"))
}

/// A proposal would take the number of a rollout that this node remembers, and the storage does not; or name members by a list
/// that was replaced.
fn ensure_nothing_was_lost(node: &Node<'_>, operator: &mut Operator<'_>, fleet: &Fleet) -> Result<(), Error> {
    let Some(kept) = kept(node.store)? else { return Ok(()) };
    if let Some(why) = lost_list(operator, fleet, &kept)? {
        return Err(Error::Unreachable(why));
    }
    let last = kept.own.last.as_ref().map(|last| (last.rollout, Digest::of(last.proposal.as_bytes())));
    let open = kept.part().map(|part| part.rollout).zip(kept.proposal_digest());
    let followed = kept.own.followed.as_ref().map(|followed| (followed.rollout, followed.proposal));
    for (number, proposal) in last.into_iter().chain(open).chain(followed) {
        let is_there = match operator.board.read(&names::proposal(number)) {
            Read::Bytes(text) => Digest::of(text.as_bytes()) == proposal,
            Read::Bad(_) => true,
            Read::Unreachable(why) => return Err(Error::Unreachable(why)),
            Read::Absent => standing::removed(operator.board, number, operator.trust)
                .map_err(Error::Unreachable)?
                .is_some(),
        };
        if !is_there {
            let text = format!(
                "the storage went back in time: rollout {number}, which this node has read, is not there; \
                 `cutover fleet repair` puts it back"
            );
            return Err(Error::Unreachable(text));
        }
    }
    Ok(())
}

/// What to do where this node, of this fleet, has seen a newer list of members than the storage has.
pub fn lost_list(operator: &mut Operator<'_>, fleet: &Fleet, kept: &Kept) -> Result<Option<String>, Error> {
    if kept.own.fleet != fleet.id {
        return Ok(None);
    }
    let newest = operator.members(fleet)?.map_or(0, |list| list.list);
    let bad = newest_bad(operator.board, newest, &fleet.id, operator.trust);
    Ok(kept.own.ensure_list_is_newest(newest, bad).err())
}

/// The release of this version, by the digest that was given or that this machine knows it by.
fn release_of(node: &Node<'_>, version: &Version, digest: Option<Digest>) -> Result<ReleaseId, Error> {
    let digest = match (digest, node.store.release(version)) {
        (Some(digest), _) => digest,
        (None, Ok(sealed)) => sealed.release.digest,
        (None, Err(_)) => {
            // Only to know its digest: nothing is remembered of it, so the node's own update is not in the way.
            let (by, command) = (node.by.clone(), node.command.clone());
            let looker = Node { is_dry: true, by, command, ..*node };
            match looker.look(Some(version)) {
                Err(upstream::Error::Source(source::Error::NoSource)) => return Err(unknown(version)),
                looked => looked?.0.release.digest,
            }
        }
    };
    Ok(ReleaseId { version: version.clone(), digest })
}

/// A proposal names a release by its digest, and nobody can be asked for it.
fn unknown(version: &Version) -> Error {
    let what =
        format!("release {version} is not on this node, and no source is configured that could know it");
    let hint = "stage it here with `cutover stage`, say its `--digest`, or set `[source] url`";
    Error::Usage { what, hint: Some(hint.into()) }
}

/// The release that all could go back to. Also who says that it runs it already goes along, and switches nothing: it may be on
/// its way to what the others leave, or be away and come to that later, where the newest that was kept for it is the one before.
fn way_back(operator: &mut Operator<'_>, fleet: &Fleet, only: &[NodeName]) -> Result<ReleaseId, Error> {
    let refused = |text: String| Error::Operate(operate::Error::Refused(text));
    let Some(list) = operator.members(fleet)? else { return Err(refused("there are no members yet".into())) };
    let only: BTreeSet<&NodeName> = only.iter().collect();
    let is_meant = |node: &&NodeName| only.is_empty() || only.contains(node);
    let meant: Vec<NodeName> =
        list.members.iter().map(|entry| &entry.node).filter(is_meant).cloned().collect();
    let (mut nodes, mut silent) = (Vec::new(), Vec::new());
    alive::read_each(operator.board, &meant, &mut |node, said| match said {
        Ok(Some(said)) => nodes.push((node.clone(), said)),
        Ok(None) | Err(_) => silent.push(node.clone()),
    });
    if !silent.is_empty() {
        let text = format!("{} has not said what it has: `--only` leaves it out", some_of(&silent));
        return Err(refused(text));
    }
    let kept = newest_kept(operator, fleet)?.map(|rollout| rollout.proposal.release.version.clone());
    let running = nodes.iter().find_map(|(_, said)| said.running.clone());
    let current = kept.or(running).ok_or_else(|| refused("nobody has said what it runs".into()))?;
    let all = numbers(operator.board).map_err(Error::Unreachable)?.0;
    let before: Vec<Digest> =
        operator.all_kept(fleet, &all)?.into_iter().map(|rollout| rollout.proposal.release.digest).collect();
    alive::common_way_back(&nodes, &current, &before).map_err(|NoWayBack { nearest, lack }| {
        refused(match nearest {
            Some(release) => format!(
                "there is no release before {current} that all have: {} is missing on {}",
                release.version,
                some_of(&lack)
            ),
            None => format!("no member has a release that ran here before {current}"),
        })
    })
}

fn newest_kept(operator: &mut Operator<'_>, fleet: &Fleet) -> Result<Option<Rollout>, Error> {
    let (numbers, _) = numbers(operator.board).map_err(Error::Unreachable)?;
    match operator.newest_kept(fleet, &numbers)? {
        Some(number) => Ok(Some(operator.rollout(fleet, number)?)),
        None => Ok(None),
    }
}

/// How a rollout ended: its word and exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub word: &'static str,
    /// The exit code of `propose --wait`.
    pub code: u8,
    /// Why, as its author said.
    pub why: String,
}

/// How a rollout ended, if it has.
pub fn ended(operator: &mut Operator<'_>, rollout: &Rollout) -> Result<Option<Ended>, String> {
    match operator.standing(rollout) {
        Ok(Standing::Ended(standing::Ended { how, why })) => {
            let code = match how {
                How::Kept => 0,
                How::RolledBack => code::ROLLED_BACK,
                How::Aborted | How::Cancelled | How::Partial | How::Halted | How::Void => code::CALLED_OFF,
            };
            Ok(Some(Ended { word: how.word(), code, why }))
        }
        Ok(Standing::Open | Standing::Bad(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn wait(
    context: &Context,
    node: &Node<'_>,
    operator: &mut Operator<'_>,
    rollout: &Rollout,
) -> Result<u8, Error> {
    let clock: &dyn Clock = node.clock;
    let mut silent_since = None;
    loop {
        match ended(operator, rollout) {
            Ok(Some(end)) => {
                let account = settled_account(clock, operator, rollout)?;
                let text = format!("rollout {} was {}: {}", rollout.number, end.word, end.why);
                let text = [text, summary(&account)].join("\n");
                let value = json!({
                    "rollout": rollout.number, "outcome": end.word, "reason": end.why, "exit_code": end.code,
                    "report": account,
                });
                context.output.result(&value, &text);
                return Ok(end.code);
            }
            Ok(None) => silent_since = None,
            Err(why) => {
                let since = *silent_since.get_or_insert(clock.boot());
                if clock.boot().saturating_sub(since) > PATIENCE {
                    return Err(Error::Unreachable(why));
                }
            }
        }
        if node.interrupted.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::NotNow(format!("rollout {} goes on without this command", rollout.number)));
        }
        clock.sleep(LOOK);
    }
}

/// What the members did, when all have said so; after a while without those who have not.
fn settled_account(
    clock: &dyn Clock,
    operator: &mut Operator<'_>,
    rollout: &Rollout,
) -> Result<Account, Error> {
    let began = clock.boot();
    loop {
        let account = with_all_of(operator, rollout, |operator| account(operator, rollout))?;
        let is_whole = account.members.iter().all(|entry| entry.waived || entry.has_closed);
        if is_whole || clock.boot().saturating_sub(began) > LAST_WORDS {
            return Ok(account);
        }
        clock.sleep(LOOK);
    }
}

/// What this node has read as kept, nobody ends in another way, whatever has become of the file.
fn ensure_was_not_kept(kept: Option<&Kept>, rollout: &Rollout) -> Result<(), Error> {
    let number = rollout.number;
    match kept {
        Some(kept) if fleet::has_read_keep(kept, rollout) => Err(Error::Fleet(format!(
            "rollout {number} was kept: propose the release before it to go back; where the storage has lost that, `cutover \
             fleet repair` puts it back"
        ))),
        _ => Ok(()),
    }
}

pub fn abort(context: &Context, args: &AbortArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    let kept = remembered(context);
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout.rollout)?;
        if rollout.is_signed() {
            ensure_signer(context)?;
        }
        operator.ensure_clock(settings(context)?)?;
        ensure_was_not_kept(kept.as_ref(), &rollout)?;
        let word = operator.abort(&rollout, &args.reason, Timestamp::now())?;
        let value = json!({"rollout": rollout.number, "outcome": word});
        context.output.result(&value, &format!("rollout {} is {word}", rollout.number));
        Ok(0)
    })
}

pub fn void(context: &Context, args: &AbortArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    ensure_signer(context)?;
    let kept = remembered(context);
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout.rollout)?;
        ensure_was_not_kept(kept.as_ref(), &rollout)?;
        let word = operator.void(&rollout, &args.reason, Timestamp::now())?;
        let value = json!({"rollout": rollout.number, "outcome": word});
        context.output.result(&value, &format!("rollout {} is {word}", rollout.number));
        Ok(0)
    })
}

pub fn waive(context: &Context, args: &WaiveArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    ensure_signer(context)?;
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = match args.rollout.or(args.of_rollout) {
            Some(number) => operator.rollout(&fleet, number)?,
            None => newest_open(operator, &fleet)?,
        };
        let number = rollout.number;
        let (value, who) = match (&args.node, args.ticket) {
            (Some(node), _) => {
                operator.waive(&rollout, node, &args.reason, Timestamp::now())?;
                (json!({"rollout": number, "waived": node}), node.to_string())
            }
            (None, ticket) => {
                let at = ticket.unwrap_or(At { row: 0, number: 0 });
                operator.waive_ticket(&rollout, at, &args.reason, Timestamp::now())?;
                let mut said = json!({"rollout": number, "waived_ticket": at.number});
                if rollout.has_slots() {
                    said["row"] = json!(at.row);
                }
                (said, format!("the owner of ticket {at}"))
            }
        };
        let names = names_of(operator.board, &rollout).map_err(Error::Unreachable)?;
        let is_waived = |node: &NodeName| names.iter().any(|name| *name == format!("waive.{node}"));
        let is_over =
            rollout.proposal.mode == Mode::Synchronous && rollout.proposal.members.iter().all(is_waived);
        let then = if is_over { format!(": {NOBODY_IS_LEFT}") } else { String::new() };
        let text = match operator.standing(&rollout)? {
            Standing::Bad(why) => format!(
                "nobody waits for {who} any more, and rollout {number} does not go on: {why}; `cutover fleet abort {number}` ends it"
            ),
            Standing::Open | Standing::Ended(_) => format!("rollout {number} goes on without {who}{then}"),
        };
        context.output.result(&value, &text);
        Ok(0)
    })
}

/// The newest rollout that has not ended.
pub fn newest_open(operator: &mut Operator<'_>, fleet: &Fleet) -> Result<Rollout, Error> {
    let (numbers, _) = numbers(operator.board).map_err(Error::Unreachable)?;
    for number in numbers.into_iter().rev() {
        let Some(rollout) = operator.readable(fleet, number)? else { continue };
        if ended(operator, &rollout).map_err(Error::Unreachable)?.is_none() {
            return Ok(rollout);
        }
    }
    Err(operate::Error::Refused("no rollout is under way".into()).into())
}
