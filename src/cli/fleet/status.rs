//! `fleet status`: one screen on how a rollout stands.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::FleetStatusArgs;
use super::propose::ended;
use super::{rollout, settings, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::cli::output::{Tone, table};
use crate::coord::facts::{Fact, Yes};
use crate::coord::operate::{self, Operator};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::Rollout;
use crate::coord::rules::synchronous::{Go, Member, Outcome, Plan};
use crate::coord::settings::Mode;
use crate::coord::synchronous::{Heard, Synchronous, What, health_word};

/// What a screen is made of.
struct Shown {
    value: Value,
    text: String,
    has_ended: bool,
}

/// `fleet status`
pub fn status(context: &Context, args: &FleetStatusArgs) -> Result<u8, Error> {
    let name = settings(context)?.name.clone();
    with_operator(context, |operator| {
        let fleet = operate::fleet(operator.board, &name)?;
        loop {
            let shown = match rollout(operator, &fleet, args.rollout.rollout) {
                Ok(rollout) => show(context, operator, &fleet.fleet, &rollout, args.why)?,
                Err(Error::Operate(operate::Error::Refused(why))) if args.rollout.rollout.is_none() => {
                    Shown {
                        value: json!({"fleet": fleet.fleet, "rollout": null}),
                        text: format!("fleet {}: {why}", fleet.fleet),
                        has_ended: true,
                    }
                }
                Err(error) => return Err(error),
            };
            if args.watch {
                // Home, and clear what follows: no flicker.
                context.output.result(&shown.value, &format!("\x1b[H\x1b[J{}", shown.text));
            } else {
                context.output.result(&shown.value, &shown.text);
            }
            if !args.watch || shown.has_ended || context.is_interrupted() {
                return Ok(0);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    })
}

fn show(
    context: &Context,
    operator: &mut Operator<'_>,
    fleet: &str,
    rollout: &Rollout,
    why: bool,
) -> Result<Shown, Error> {
    let end = ended(operator, rollout).map_err(Error::Unreachable)?;
    let proposal = &rollout.proposal;
    let (mode, members) = match proposal.mode {
        Mode::Rolling => ("rolling", rolling(operator, rollout)?),
        Mode::Synchronous | Mode::Independent => ("synchronous", synchronous(operator, rollout)?),
    };
    let head = format!(
        "fleet {fleet}, rollout {}, {mode}: release {} for {} members, proposed {} by {}",
        rollout.number,
        proposal.release.version,
        proposal.members.len(),
        proposal.created,
        proposal.by
    );
    let outcome = match &end {
        Some(end) => {
            let tone = if end.code == 0 { Tone::Well } else { Tone::Alarm };
            format!("  {}: {}", context.output.paint(tone, end.word), end.why)
        }
        None => format!("  {}", context.output.paint(Tone::Busy, &members.waits)),
    };
    let mut lines = vec![head, outcome];
    lines.extend(members.gates);
    lines.push(table(&members.rows));
    lines.extend(members.notes);
    if why {
        lines.extend(members.why);
    }
    let value = json!({
        "api_version": 1, "fleet": fleet, "rollout": rollout.number, "mode": mode,
        "version": proposal.release.version, "digest": proposal.release.digest,
        "proposed": proposal.created, "by": proposal.by,
        "outcome": end.as_ref().map(|end| end.word), "reason": end.as_ref().map(|end| &end.why),
        "waits_for": members.waits, "members": members.values, "skew_ms": members.skew_ms,
    });
    Ok(Shown { value, text: lines.join("\n"), has_ended: end.is_some() })
}

#[derive(Default)]
struct Page {
    gates: Vec<String>,
    rows: Vec<Vec<String>>,
    values: Vec<Value>,
    waits: String,
    notes: Vec<String>,
    why: Vec<String>,
    skew_ms: Option<f64>,
}

fn heard(heard: Heard) -> Result<(), Error> {
    match heard {
        Heard::Yes => Ok(()),
        Heard::No(why) => Err(Error::Unreachable(why)),
    }
}

const ALL: [What; 7] =
    [What::Vote, What::Armed, What::Stopped, What::Switched, What::Report, What::Cleared, What::Closed];

fn synchronous(operator: &mut Operator<'_>, rollout: &Rollout) -> Result<Page, Error> {
    let mut follow = Synchronous::new(rollout.clone(), usize::MAX);
    heard(follow.read_gates(operator.board))?;
    heard(follow.scan_all(operator.board, &ALL, operator.trust))?;
    let mut page = Page { gates: gates(&follow), waits: waits(&follow), ..Page::default() };
    page.rows.push(["NODE", "STATE", "RUNS", "SWITCHED", "GAP", "NOTE"].map(ToOwned::to_owned).to_vec());
    let mut late = Vec::new();
    for (place, node) in rollout.proposal.members.iter().enumerate() {
        let member = follow.view.members[place];
        let fact = |what| follow.facts.get(&(what, place)).map(|found| &found.fact);
        let (mut runs, mut switched, mut gap, mut note) = (String::new(), None, None, String::new());
        if let Some(Fact::Vote(vote)) = fact(What::Vote) {
            runs = vote.running.as_ref().map(ToString::to_string).unwrap_or_default();
            note = vote.why.clone().filter(|_| vote.vote == Yes::No).unwrap_or_default();
        }
        if let Some(Fact::Step(step)) = fact(What::Switched) {
            runs = rollout.proposal.release.version.to_string();
            switched = Some(step.late_ms);
            late.push(step.late_ms);
        }
        if let Some(Fact::Report(report)) = fact(What::Report) {
            gap = report.gap_ms;
            note = report.why.clone().unwrap_or(note);
        }
        if let Some(Fact::Closed(closed)) = fact(What::Closed) {
            runs = closed.running.as_ref().map(ToString::to_string).unwrap_or_default();
            if closed.by_hand {
                note = "by hand".into();
            }
        }
        let state = state(&member);
        page.values.push(json!({
            "node": node, "state": state, "running": runs, "late_ms": switched, "gap_ms": gap,
            "note": note, "waived": member.waived,
        }));
        page.rows.push(vec![
            node.to_string(),
            state.into(),
            runs,
            switched.map(|late| format!("{late:+.1} ms")).unwrap_or_default(),
            gap.map(|gap| format!("{gap} ms")).unwrap_or_default(),
            note,
        ]);
    }
    if let (Some(first), Some(last)) =
        (late.iter().copied().reduce(f64::min), late.iter().copied().reduce(f64::max))
    {
        page.skew_ms = Some(last - first);
        page.notes.push(format!("switched within {:.1} ms", last - first));
    }
    page.notes.extend(follow.remarks.iter().map(|remark| format!("note: {remark}")));
    page.why = why(&follow);
    Ok(page)
}

fn state(member: &Member) -> &'static str {
    match member {
        _ if member.waived => "waived",
        Member { closed: true, .. } => "closed",
        Member { report: Some(health), .. } => health_word(*health),
        Member { switched: true, .. } => "switched",
        Member { stopped: true, .. } => "stopped",
        Member { armed: true, .. } => "armed",
        Member { vote: Some(true), .. } => "voted",
        Member { vote: Some(false), .. } => "voted no",
        _ => "-",
    }
}

fn gates(follow: &Synchronous) -> Vec<String> {
    let plan = match follow.view.plan {
        None => "open".into(),
        Some(Plan::Abort) => "abort".into(),
        Some(Plan::Commit { at }) => {
            let at = crate::coord::synchronous::timestamp(at).unwrap_or_default();
            format!("commit, at {at}")
        }
    };
    let go = match follow.view.go {
        None => "open",
        Some(Go::Go) => "go",
        Some(Go::Cancel) => "cancel",
    };
    let outcome = match follow.view.outcome {
        None => "open",
        Some(Outcome::Keep) => "keep",
        Some(Outcome::Rollback { .. }) => "rollback",
    };
    vec![format!("  plan {plan}; go {go}; outcome {outcome}")]
}

fn waits(follow: &Synchronous) -> String {
    let list = |who: Vec<&crate::coord::NodeName>| {
        let names: Vec<String> = who.iter().take(5).map(ToString::to_string).collect();
        let more = who.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        names.join(", ") + &more
    };
    let view = &follow.view;
    let (what, who) = match (view.plan, view.go) {
        (None, _) => ("the vote of", follow.who(|member| member.vote.is_none())),
        (Some(_), None) => ("an instant held by", follow.who(|member| !member.armed)),
        (Some(_), Some(_)) => ("the report of", follow.who(|member| member.report.is_none())),
    };
    if who.is_empty() { "waits for a decision".into() } else { format!("waits for {what} {}", list(who)) }
}

fn why(follow: &Synchronous) -> Vec<String> {
    let times = follow.rollout.times();
    let moment = |ms| crate::coord::synchronous::timestamp(ms).unwrap_or_default();
    let mut lines = Vec::new();
    match (follow.view.plan, follow.view.go, follow.view.outcome) {
        (None, _, _) => {
            lines.push(format!("without all votes by {} nobody switches", moment(follow.rollout.vote_by())));
        }
        (Some(Plan::Commit { at }), None, _) => {
            lines.push(format!("without all holding it by {} nobody switches", moment(at - times.window())));
        }
        (Some(Plan::Commit { at }), Some(Go::Go), None) => {
            lines.push(format!("who has not switched by {} brings all back", moment(times.switched_by(at))));
            lines.push(format!("without all reports good by {} all go back", moment(times.reported_by(at))));
        }
        _ => {}
    }
    if let Some(failure) = follow.failure() {
        lines.push(failure);
    }
    lines.push("a dead member: `cutover fleet waive NODE`; to stop: `cutover fleet abort`".into());
    lines
}

fn rolling(operator: &mut Operator<'_>, rollout: &Rollout) -> Result<Page, Error> {
    let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX) else {
        return Err(Error::Fleet("the proposal has no terms".into()));
    };
    heard(follow.read(operator.board, operator.trust))?;
    heard(follow.read_waivers(operator.board, operator.trust))?;
    let mut page = Page::default();
    page.rows.push(["NODE", "WAVE", "STATE", "NOTE"].map(ToOwned::to_owned).to_vec());
    for (place, node) in rollout.proposal.members.iter().enumerate() {
        let member = follow.view.members[place];
        let has_ticket = follow.view.tickets.contains(&place);
        let state = match member.report {
            _ if member.waived => "waived",
            Some(health) => health_word(health),
            None if has_ticket => "switching",
            None => "-",
        };
        let note = match follow.reports[place].as_ref().map(|found| &found.fact) {
            Some(Fact::Report(report)) => report.why.clone().unwrap_or_default(),
            _ => String::new(),
        };
        page.values.push(json!({"node": node, "wave": member.wave, "state": state, "note": note}));
        page.rows.push(vec![node.to_string(), member.wave.to_string(), state.into(), note]);
    }
    let (wave, out) = (follow.view.wave, follow.view.unfinished());
    page.gates.push(format!("  wave {wave} is open; {out} of {} out of service", follow.terms.at_once));
    page.waits = if follow.view.halt { "halted".into() } else { format!("goes on, {out} at work") };
    page.why = vec!["a dead member keeps its place: `cutover fleet waive NODE` frees it".into()];
    page.notes.extend(follow.remarks.iter().map(|remark| format!("note: {remark}")));
    page.notes.push(format!("as of {}", Timestamp::now()));
    Ok(page)
}
