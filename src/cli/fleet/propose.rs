//! What operators decide: `propose`, `abort`, `waive`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::args::{AbortArgs, ProposeArgs, WaiveArgs};
use super::{ensure_signer, rollout, settings, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::{Error, code};
use crate::coord::facts::Wanted;
use crate::coord::operate::{self, Operator, Wish};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::Rollout;
use crate::coord::rules::rolling::End;
use crate::coord::rules::synchronous::{Go, Outcome, Plan};
use crate::coord::settings::Mode;
use crate::coord::synchronous::{Heard, Synchronous};
use crate::lifecycle::node::Node;
use crate::sys::clock::Clock;
use crate::types::Digest;

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long `--wait` bears storage that does not answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// `fleet propose`
pub fn propose(context: &Context, args: &ProposeArgs) -> Result<u8, Error> {
    let fleet_settings = settings(context)?;
    ensure_signer(context)?;
    let now = Timestamp::now();
    let not_before = match &args.not_before {
        Some(text) => Some(crate::cli::info::moment(text, now, true)?),
        None => None,
    };
    context.with_node("fleet propose", |node, _| {
        let digest = match args.digest {
            Some(digest) => digest,
            None => digest_of(node, args)?,
        };
        let name = context.app.clone();
        let wish = Wish {
            release: Wanted { name, version: args.version.clone(), digest },
            only: args.only.clone(),
            not_before,
            valid: SignedDuration::try_from(args.valid.0).unwrap_or(SignedDuration::MAX),
            now,
        };
        with_operator(context, |operator| {
            let fleet = operate::fleet(operator.board, &fleet_settings.name)?;
            if let Some(open) = operator.newest(&fleet)?
                && ended(operator, &open).map_err(Error::Unreachable)?.is_none()
            {
                if !args.supersede {
                    let text = format!(
                        "rollout {} has not ended: `cutover fleet abort` stops it, `--supersede` does both",
                        open.number
                    );
                    return Err(Error::NotNow(text));
                }
                operator.abort(&open, "superseded", now)?;
            }
            let rollout = operator.propose(fleet_settings, &wish)?;
            let number = rollout.number;
            let members = rollout.proposal.members.len();
            let text = format!("rollout {number}: release {} for {members} members", args.version);
            if !args.wait {
                let value = json!({"rollout": number, "version": args.version, "digest": digest});
                context.output.result(&value, &text);
                return Ok(0);
            }
            context.output.say(&text);
            wait(context, node, operator, &rollout)
        })
    })
}

/// The digest by which this machine knows the release.
fn digest_of(node: &Node<'_>, args: &ProposeArgs) -> Result<Digest, Error> {
    match node.store.release(&args.version) {
        Ok(sealed) => Ok(sealed.release.digest),
        Err(_) => Ok(node.look(Some(&args.version))?.0.release.digest),
    }
}

/// How a rollout ended: its word and exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In a word.
    pub word: &'static str,
    /// The exit code of `propose --wait`.
    pub code: u8,
    /// Why, as its author said.
    pub why: String,
}

/// How a rollout ended, if it has.
pub fn ended(operator: &mut Operator<'_>, rollout: &Rollout) -> Result<Option<Ended>, String> {
    let heard = |heard: Heard| match heard {
        Heard::Yes => Ok(()),
        Heard::No(why) => Err(why),
    };
    let end =
        |word, code, why: &Option<String>| Some(Ended { word, code, why: why.clone().unwrap_or_default() });
    if rollout.proposal.mode == Mode::Rolling {
        let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX) else {
            return Ok(end("void", code::CALLED_OFF, &None));
        };
        heard(follow.read(operator.board, operator.trust))?;
        return Ok(match follow.view.end {
            Some(End::Keep) => end("kept", 0, &follow.why),
            Some(End::Partial) => end("partial", code::CALLED_OFF, &follow.why),
            Some(End::Halted) => end("halted", code::CALLED_OFF, &follow.why),
            None => None,
        });
    }
    let mut follow = Synchronous::new(rollout.clone(), usize::MAX);
    heard(follow.read_gates(operator.board))?;
    Ok(match (follow.view.plan, follow.view.go, follow.view.outcome) {
        (Some(Plan::Abort), _, _) => end("aborted", code::CALLED_OFF, &follow.why),
        (_, Some(Go::Cancel), _) => end("cancelled", code::CALLED_OFF, &follow.why),
        (_, _, Some(Outcome::Keep)) => end("kept", 0, &follow.why),
        (_, _, Some(Outcome::Rollback { .. })) => end("rolled back", code::ROLLED_BACK, &follow.why),
        (_, _, None) => None,
    })
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
                let text = format!("rollout {} was {}: {}", rollout.number, end.word, end.why);
                let value = json!({
                    "rollout": rollout.number, "outcome": end.word, "reason": end.why, "exit_code": end.code,
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

/// `fleet abort`
pub fn abort(context: &Context, args: &AbortArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout.rollout)?;
        let word = operator.abort(&rollout, &args.reason, Timestamp::now())?;
        let value = json!({"rollout": rollout.number, "outcome": word});
        context.output.result(&value, &format!("rollout {} is {word}", rollout.number));
        Ok(0)
    })
}

/// `fleet waive`
pub fn waive(context: &Context, args: &WaiveArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    ensure_signer(context)?;
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout.rollout)?;
        operator.waive(&rollout, &args.node, &args.reason)?;
        let value = json!({"rollout": rollout.number, "waived": args.node});
        context.output.result(&value, &format!("rollout {} goes on without {}", rollout.number, args.node));
        Ok(0)
    })
}
