//! `fleet report`: what a rollout did, node by node, and what that comes to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::args::RolloutArgs;
use super::heard;
use super::propose::ended;
use super::status::{heartbeats, see_now};
use super::{fold, rollout, settings, with_all_of, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::cli::output::narrator::note_rollout;
use crate::cli::output::table;
use crate::coord::account::Account;
use crate::coord::board::Board;
use crate::coord::facts::names;
use crate::coord::heard::Heard;
use crate::coord::look::Look;
use crate::coord::operate::{self, Operator};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::Rollout;
use crate::coord::settings::{Mode, Overlap};
use crate::coord::synchronous::{Synchronous, What};
use crate::lifecycle::report::metrics;

/// What members may have said of a rollout: all but the first and the last rest on its plan, and only without overlap the
/// releases wait for each other.
pub fn kinds(overlap: Overlap, has_plan: bool) -> Vec<What> {
    let all =
        [What::Vote, What::Armed, What::Stopped, What::Switched, What::Report, What::Cleared, What::Closed];
    let may_be = |what: &What| match what {
        What::Vote | What::Closed => true,
        What::Stopped | What::Cleared => has_plan && overlap == Overlap::None,
        What::Armed | What::Switched | What::Report => has_plan,
    };
    all.into_iter().filter(may_be).collect()
}

/// Reads all that members have said, for those who look on.
pub fn scan(board: &mut dyn Board, follow: &mut Synchronous<'_>) -> Heard {
    let has_plan = follow.view.plan.is_some() || follow.unreadable.is_some();
    follow.scan_all(board, &kinds(follow.rollout.proposal.overlap, has_plan))
}

pub fn report(context: &Context, args: &RolloutArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        let rollout = rollout(operator, &fleet, args.rollout)?;
        let (end, account) = with_all_of(operator, &rollout, |operator| {
            let end = ended(operator, &rollout).map_err(Error::Unreachable)?;
            let mut account = account(operator, &rollout)?;
            let beats = heartbeats(operator, &account);
            see_now(&mut account, &beats);
            Ok((end, account))
        })?;
        note(context, rollout.number, &account);
        let (word, why) = match &end {
            Some(end) => (end.word, end.why.as_str()),
            None => ("not ended", ""),
        };
        let proposal = &rollout.proposal;
        let head = format!("rollout {}: release {}, {word}: {why}", rollout.number, proposal.release.version);
        let text = [
            head.trim_end_matches(": ").to_owned(),
            table(&fold::rows(&account, None).unwrap_or_else(|| rows(&account))),
            summary(&account),
        ]
        .join("\n");
        let value = json!({
            "api_version": 1, "fleet": fleet.fleet, "rollout": rollout.number, "mode": proposal.mode,
            "version": proposal.release.version, "digest": proposal.release.digest,
            "outcome": end.as_ref().map(|end| end.word), "reason": end.as_ref().map(|end| &end.why),
            "report": account,
        });
        context.output.result(&value, &text);
        Ok(0)
    })
}

/// What the members of a rollout have said that they did.
pub fn account(operator: &mut Operator<'_>, rollout: &Rollout) -> Result<Account, Error> {
    match rollout.proposal.mode {
        Mode::Synchronous | Mode::Independent => {
            let mut follow = Synchronous::new(rollout.clone(), usize::MAX, operator.voice());
            heard(follow.read_gates(operator.board))?;
            heard(scan(operator.board, &mut follow))?;
            Ok(Account::of_synchronous(&follow, Timestamp::now()))
        }
        Mode::Rolling | Mode::Cells => {
            let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, operator.voice()) else {
                return Err(Error::Fleet("the proposal has no terms".into()));
            };
            heard(follow.read(operator.board))?;
            heard(follow.read_waivers(operator.board))?;
            of_rolling(operator, &mut follow)
        }
    }
}

/// The same of a rolling rollout that was read already.
pub fn of_rolling(operator: &mut Operator<'_>, follow: &mut Rolling<'_>) -> Result<Account, Error> {
    if !follow.cells.is_empty() {
        for cell in &mut follow.cells {
            heard(cell.read_gates(operator.board))?;
            heard(scan(operator.board, cell))?;
        }
        return Ok(Account::of_cells(follow, Timestamp::now()));
    }
    let mut closed = Vec::new();
    for (place, node) in follow.rollout.proposal.members.iter().enumerate() {
        let name = names::own(node, follow.rollout.number, What::Closed.name());
        closed.push(match operator.voice().look_at(operator.board, &follow.rollout, place, &name) {
            Look::Found(found) => Some(found),
            Look::Absent | Look::Bad(_) => None,
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
        });
    }
    Ok(Account::of_rolling(follow, &closed, Timestamp::now()))
}

/// Counts a rollout for the metrics of this node, where they are configured: how its members stand, and how far apart they
/// switched.
pub fn note(context: &Context, number: u64, account: &Account) {
    if context.settings().metrics.textfile.is_none() {
        return;
    }
    let mut members = BTreeMap::<String, u64>::new();
    for entry in &account.members {
        *members.entry(entry.state.to_owned()).or_default() += 1;
    }
    note_rollout(&context.app, &metrics::Rollout { number, members, skew_ms: account.skew_ms });
}

/// With more members than this a node does not count them when it has done its part: all of them would read all facts.
const NOTED_MAX: usize = 1000;

/// The same of a rollout in which this node has done its part.
pub fn note_newest(context: &Context, number: u64) {
    if context.settings().metrics.textfile.is_none() {
        return;
    }
    let noted = settings(context).map(|settings| settings.name.clone()).and_then(|name| {
        with_operator(context, |operator| {
            let fleet = operate::fleet(operator.board, &name)?;
            let rollout = rollout(operator, &fleet, Some(number))?;
            if rollout.proposal.members.len() > NOTED_MAX {
                return Ok(());
            }
            let account = with_all_of(operator, &rollout, |operator| account(operator, &rollout))?;
            note(context, number, &account);
            Ok(())
        })
    });
    if let Err(error) = noted {
        tracing::debug!(%error, "the rollout is not in the metrics");
    }
}

fn rows(account: &Account) -> Vec<Vec<String>> {
    let head = ["NODE", "STATE", "RUNS", "STOPPED", "SWITCHED", "STARTED", "HEALTHY", "BACK", "AWAY", "NOTE"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    rows.extend(account.members.iter().map(|entry| {
        vec![
            entry.node.to_string(),
            entry.state.to_owned(),
            entry.running.as_ref().map(ToString::to_string).unwrap_or_default(),
            moment(entry.stopped),
            moment(entry.switched),
            moment(entry.started),
            moment(entry.healthy),
            moment(entry.back),
            entry.gap_ms.map(|away| format!("{away} ms")).unwrap_or_default(),
            entry.note.clone(),
        ]
    }));
    rows
}

/// A time of the day, to the millisecond, in UTC.
pub fn moment(at: Option<Timestamp>) -> String {
    at.map(|at| at.strftime("%H:%M:%S%.3f").to_string()).unwrap_or_default()
}

/// A moment that may be of another day than `now`: then with its date.
pub fn moment_from(now: Timestamp, at: Timestamp) -> String {
    let is_near = now.duration_until(at).unsigned_abs() < std::time::Duration::from_secs(12 * 3600);
    if is_near { moment(Some(at)) } else { at.strftime("%Y-%m-%d %H:%M:%S").to_string() }
}

/// What the rollout comes to, in one line; nothing when nobody has switched.
pub fn summary(account: &Account) -> String {
    let mut parts = Vec::new();
    if let Some(skew) = account.skew_ms {
        parts.push(format!("switched within {skew:.1} ms"));
    }
    if account.members.iter().any(|entry| entry.switched.is_some()) {
        let still = if account.is_mixed { ", and still do" } else { "" };
        parts.push(format!("two releases side by side for {}{still}", span(account.mixed_ms)));
    }
    if let Some(away) = &account.longest_away {
        parts.push(format!("longest away {} ms ({})", away.gap_ms, away.node));
    }
    parts.join("; ")
}

fn span(ms: i64) -> String {
    match ms {
        ..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1000),
        _ => format!("{} min", ms / 60_000),
    }
}
