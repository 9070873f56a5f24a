//! `fleet status`: one screen on how a rollout stands.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::FleetStatusArgs;
use super::propose::ended;
use super::report::{ALL, moment, moment_from, note, of_rolling, summary};
use super::{kept, rollout, settings, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::cli::output::{Tone, table};
use crate::coord::account::{Account, Entry};
use crate::coord::alive::{self, Alive};
use crate::coord::board::Read;
use crate::coord::facts::{ClockSeen, Fact, Fleet, names};
use crate::coord::heard::Heard;
use crate::coord::look::{Look, found};
use crate::coord::operate::{self, Operator};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::{Rollout, WENT_BACK};
use crate::coord::rules::Ms;
use crate::coord::rules::gate as rules;
use crate::coord::rules::rolling::Ticket;
use crate::coord::rules::synchronous::{Go, Member, Outcome, Plan};
use crate::coord::settings::Mode;
use crate::coord::standing::removed;
use crate::coord::synchronous::{Synchronous, timestamp};
use crate::types::clock_words;

/// What a screen is made of.
struct Shown {
    value: Value,
    text: String,
    has_ended: bool,
}

/// `fleet status`
pub fn status(context: &Context, args: &FleetStatusArgs) -> Result<u8, Error> {
    with_operator(context, |operator| {
        loop {
            let shown = match look(context, operator, args) {
                // Whoever watches wants to go on watching when storage is back.
                Err(Error::Unreachable(why) | Error::Operate(operate::Error::Unreachable(why)))
                    if args.watch =>
                {
                    let text = context.output.paint(Tone::Alarm, &format!("shared storage: {why}"));
                    Shown { value: json!({"unreachable": why}), text, has_ended: false }
                }
                looked => looked?,
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

fn look(context: &Context, operator: &mut Operator<'_>, args: &FleetStatusArgs) -> Result<Shown, Error> {
    let fleet = operate::fleet(operator.board, &settings(context)?.name)?;
    let remarks =
        if args.rollout.rollout.is_none() { remarks(context, operator, &fleet)? } else { Vec::new() };
    let mut shown = match rollout(operator, &fleet, args.rollout.rollout) {
        Ok(rollout) => {
            show(context, operator, &fleet.fleet, &rollout, args.rollout.rollout.is_none(), args.why)?
        }
        Err(Error::Operate(operate::Error::Refused(why))) if args.rollout.rollout.is_none() => Shown {
            value: json!({"fleet": fleet.fleet, "rollout": null, "remarks": []}),
            text: format!("fleet {}: {why}", fleet.fleet),
            has_ended: true,
        },
        Err(error) => return Err(error),
    };
    for remark in remarks {
        shown.text.push_str(&format!("\nnote: {remark}"));
        if let Some(told) = shown.value["remarks"].as_array_mut() {
            told.push(remark.into());
        }
    }
    Ok(shown)
}

/// What is wrong with the storage as such: proposals that say nothing, and what this node has read and is gone.
fn remarks(context: &Context, operator: &mut Operator<'_>, fleet: &Fleet) -> Result<Vec<String>, Error> {
    let bad = operator.unreadable(fleet)?;
    let mut remarks: Vec<String> = bad
        .into_iter()
        .map(|(number, why)| {
            format!(
                "the proposal of rollout {number} says nothing: {why}; `cutover fleet repair` puts it back on a node that has read \
                 it, else `cutover fleet propose` goes on with the next number"
            )
        })
        .collect();
    let Some(kept) = kept(&context.store()?)?.filter(|kept| kept.own.fleet == fleet.id) else {
        return Ok(remarks);
    };
    let known = [kept.part().map(|part| part.rollout), kept.own.last.as_ref().map(|last| last.rollout)];
    for number in known.into_iter().flatten() {
        let is_gone = operator.board.read(&names::proposal(number)) == Read::Absent;
        if is_gone && removed(operator.board, number, operator.trust).map_err(Error::Unreachable)?.is_none() {
            remarks.push(format!("rollout {number}, which this node has read, is gone: {WENT_BACK}"));
        }
    }
    Ok(remarks)
}

fn show(
    context: &Context,
    operator: &mut Operator<'_>,
    fleet: &str,
    rollout: &Rollout,
    is_newest: bool,
    why: bool,
) -> Result<Shown, Error> {
    let now = Timestamp::now();
    let end = ended(operator, rollout).map_err(Error::Unreachable)?;
    let proposal = &rollout.proposal;
    let (mode, mut page) = match proposal.mode {
        Mode::Rolling => ("rolling", rolling(operator, rollout, now)?),
        Mode::Synchronous | Mode::Independent => ("synchronous", synchronous(operator, rollout, now)?),
    };
    note(context, rollout.number, &page.account);
    let beats = heartbeats(operator, rollout);
    let seen: Vec<Option<i64>> = beats
        .iter()
        .map(|said| said.as_ref().map(|said| (now.as_second() - said.at.as_second()).max(0)))
        .collect();
    if is_newest {
        say_what_runs_now(&mut page.account, &beats);
    }
    let not_yet = say_why_not_yet(&mut page, &beats, rollout.number, end.is_some());
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
        None => format!("  {}", context.output.paint(Tone::Busy, &page.waits.text(now))),
    };
    let mut lines = vec![head, outcome];
    lines.extend(page.gates.iter().map(Gate::line));
    lines.extend(page.progress.clone());
    lines.push(table(&rows(&page.account, &seen)));
    lines.extend(Some(summary(&page.account)).filter(|line| !line.is_empty()));
    lines.extend(page.remarks.iter().map(|remark| format!("note: {remark}")));
    if why {
        lines.extend(page.why.clone());
    }
    let waiting = page.waits.who.iter();
    let waiting: Vec<Value> = waiting
        .map(|node| json!({"node": node, "for": page.waits.what, "since": page.waits.since}))
        .collect();
    let members: Vec<Value> = page
        .account
        .members
        .iter()
        .zip(&seen)
        .map(|(entry, seen)| {
            let mut value = serde_json::to_value(entry).unwrap_or_default();
            value["seen_s"] = json!(seen);
            value
        })
        .collect();
    let value = json!({
        "api_version": 1, "fleet": fleet, "rollout": rollout.number, "mode": mode,
        "version": proposal.release.version, "digest": proposal.release.digest,
        "proposed": proposal.created, "by": proposal.by,
        "outcome": end.as_ref().map(|end| end.word), "reason": end.as_ref().map(|end| &end.why),
        "gates": page.gates.iter().map(Gate::value).collect::<Vec<_>>(),
        "not_yet": not_yet, "waits_for": page.waits.text(now), "waiting": waiting, "why": page.why, "remarks": page.remarks,
        "members": members, "skew_ms": page.account.skew_ms, "mixed_ms": page.account.mixed_ms,
        "is_mixed": page.account.is_mixed, "longest_away": page.account.longest_away,
    });
    Ok(Shown { value, text: lines.join("\n"), has_ended: end.is_some() })
}

/// What was read of a rollout.
struct Page {
    gates: Vec<Gate>,
    account: Account,
    waits: Waits,
    /// How far a rolling rollout has come.
    progress: Option<String>,
    remarks: Vec<String>,
    why: Vec<String>,
}

/// A gate, and who put it when and why.
struct Gate {
    name: &'static str,
    says: &'static str,
    by: Option<String>,
    made: Option<Timestamp>,
    why: String,
    /// What follows from it, or when it will be decided.
    then: String,
}

impl Gate {
    fn line(&self) -> String {
        let made = self.made.map(|at| at.strftime(" %H:%M:%S").to_string()).unwrap_or_default();
        let by = self.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        let then = if self.then.is_empty() { String::new() } else { format!("  {}", self.then) };
        format!("  {:<8} {:<9}{made}{by}{why}{then}", self.name, self.says).trim_end().to_owned()
    }

    fn value(&self) -> Value {
        json!({"gate": self.name, "says": self.says, "by": self.by, "made": self.made, "why": self.why})
    }
}

/// Who is waited for, for what, and since when.
#[derive(Default)]
struct Waits {
    what: &'static str,
    who: Vec<String>,
    since: Option<Timestamp>,
    otherwise: String,
}

impl Waits {
    fn text(&self, now: Timestamp) -> String {
        if self.who.is_empty() {
            return self.otherwise.clone();
        }
        let more = self.who.len().saturating_sub(5);
        let names = self.who.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let since = self.since.filter(|since| *since <= now).map_or(String::new(), |since| {
            let waited = now.as_second() - since.as_second();
            format!(", since {} ({waited} s)", since.strftime("%H:%M:%S"))
        });
        format!("waits for {} {names}{more}{since}", self.what)
    }
}

pub fn heard(heard: Heard) -> Result<(), Error> {
    match heard {
        // What is bad shows among the remarks.
        Heard::Yes | Heard::Bad(_) => Ok(()),
        Heard::Away(why) => Err(Error::Unreachable(why)),
    }
}

/// What each member said last; nothing: never heard of.
fn heartbeats(operator: &mut Operator<'_>, rollout: &Rollout) -> Vec<Option<Alive>> {
    rollout.proposal.members.iter().map(|node| alive::read(operator.board, node)).collect()
}

/// A member that has said its last word may have been moved since: by hand, or by a disk that was put back.
fn say_what_runs_now(account: &mut Account, beats: &[Option<Alive>]) {
    for (entry, said) in account.members.iter_mut().zip(beats) {
        let now = said.as_ref().and_then(|said| said.running.as_ref());
        let (Some(now), Some(then), true) = (now, &entry.running, entry.has_closed) else { continue };
        if now != then {
            let told = if entry.note.is_empty() { String::new() } else { format!("; {}", entry.note) };
            entry.note = format!("runs {now} now{told}");
        }
    }
}

/// Those who do not take part yet say why, and until when.
fn say_why_not_yet(page: &mut Page, beats: &[Option<Alive>], rollout: u64, has_ended: bool) -> Vec<Value> {
    let mut told = Vec::new();
    for (entry, said) in page.account.members.iter_mut().zip(beats) {
        let Some(not_yet) = said.as_ref().and_then(|said| said.not_yet.as_ref()) else { continue };
        let is_of_this = not_yet.rollout.is_none_or(|number| number == rollout);
        if has_ended || !is_of_this || entry.has_closed {
            continue;
        }
        let until = not_yet.until.map(|until| format!(" until {until}")).unwrap_or_default();
        if entry.note.is_empty() {
            entry.note = format!("not yet: {}{until}", not_yet.why);
        }
        page.why.push(format!(
            "{} does not take part yet: {}{until}; `cutover fleet waive {}` goes on without it",
            entry.node, not_yet.why, entry.node
        ));
        told.push(json!({"node": entry.node, "why": not_yet.why, "until": not_yet.until}));
    }
    told
}

fn rows(account: &Account, seen: &[Option<i64>]) -> Vec<Vec<String>> {
    let has_waves = account.members.iter().any(|entry| entry.wave.is_some());
    let mut head = vec!["NODE", "RUNS", "STATE", "CLOCK", "SWITCHED", "HEALTHY", "AWAY", "SEEN", "NOTE"];
    if has_waves {
        head.insert(1, "WAVE");
    }
    let row = |(entry, seen): (&Entry, &Option<i64>)| {
        let mut row = vec![
            entry.node.to_string(),
            entry.running.as_ref().map(ToString::to_string).unwrap_or_default(),
            entry.state.to_owned(),
            entry.clock.map(clock_of).unwrap_or_default(),
            entry.late_ms.map_or_else(|| moment(entry.switched), |late| format!("{late:+.1} ms")),
            moment(entry.healthy),
            entry.gap_ms.map(|away| format!("{away} ms")).unwrap_or_default(),
            seen.map_or("never".to_owned(), |seconds| format!("{seconds} s")),
            entry.note.clone(),
        ];
        if has_waves {
            row.insert(1, entry.wave.map(|wave| wave.to_string()).unwrap_or_default());
        }
        row
    };
    let head = head.into_iter().map(ToOwned::to_owned).collect();
    std::iter::once(head).chain(account.members.iter().zip(seen).map(row)).collect()
}

/// Where a clock is, next to the storage's: small differences as numbers, which can be compared.
fn clock_of(seen: ClockSeen) -> String {
    if seen.offset_ms.abs() < 1000.0 {
        format!("{:+.1} ms", -seen.offset_ms)
    } else {
        clock_words(seen.offset_ms)
    }
}

fn synchronous(operator: &mut Operator<'_>, rollout: &Rollout, now: Timestamp) -> Result<Page, Error> {
    let mut follow = Synchronous::new(rollout.clone(), usize::MAX, operator.voice());
    heard(follow.read_gates(operator.board))?;
    heard(follow.scan_all(operator.board, &ALL))?;
    Ok(Page {
        gates: gates(&follow, now),
        account: Account::of_synchronous(&follow, now),
        waits: waits(&follow, now),
        progress: None,
        remarks: follow.remarks.clone(),
        why: why(&follow, now),
    })
}

fn clock(now: Timestamp, ms: Ms) -> String {
    timestamp(ms).map(|at| moment_from(now, at)).unwrap_or_default()
}

fn gates(follow: &Synchronous<'_>, now: Timestamp) -> Vec<Gate> {
    let times = follow.rollout.times();
    let clock = |ms: Ms| clock(now, ms);
    let gate = |gate: rules::Gate, says: &'static str, then: String| {
        let name = gate.name();
        let place = follow.rollout.decisions().gate(name);
        let said = follow.texts.get(&gate).map(|text| found(&place, text, None));
        let (by, made, why) = match said {
            Some(Look::Found(found)) => match found.fact {
                Fact::Plan(said) => (Some(said.by), said.made, said.why),
                Fact::Go(said) => (Some(said.by), said.made, said.why),
                Fact::Outcome(said) => (Some(said.by), said.made, said.why),
                _ => (None, None, String::new()),
            },
            _ => (None, None, String::new()),
        };
        Gate { name, says, by, made, why, then }
    };
    // A gate that stands there, and says nothing, is decided, and nobody knows how.
    let open = |gate: rules::Gate, then: String| match &follow.unreadable {
        Some(_) => Gate {
            name: gate.name(),
            says: "unreadable",
            by: None,
            made: None,
            why: String::new(),
            then: String::new(),
        },
        None => Gate { name: gate.name(), says: "open", by: None, made: None, why: String::new(), then },
    };
    let at = match follow.view.plan {
        Some(Plan::Commit { at }) => at,
        Some(Plan::Abort) => return vec![gate(rules::Gate::Plan, "abort", String::new())],
        None => {
            let by = format!("decided by {} at the latest", clock(follow.rollout.vote_by()));
            return vec![open(rules::Gate::Plan, by)];
        }
    };
    let mut gates = vec![gate(rules::Gate::Plan, "commit", format!("switch at {}", clock(at)))];
    match follow.view.go {
        None => gates
            .push(open(rules::Gate::Go, format!("decided by {} at the latest", clock(at - times.window())))),
        Some(Go::Cancel) => gates.push(gate(rules::Gate::Go, "cancel", String::new())),
        Some(Go::Go) => gates.push(gate(rules::Gate::Go, "go", String::new())),
    }
    match follow.view.outcome {
        None if follow.view.go == Some(Go::Go) => {
            let by = format!(
                "trial until {}, decided by {} at the latest",
                clock(at + times.stop + times.trial),
                clock(times.reported_by(at))
            );
            gates.push(open(rules::Gate::Outcome, by));
        }
        None => {}
        Some(Outcome::Keep) => gates.push(gate(rules::Gate::Outcome, "keep", String::new())),
        Some(Outcome::Rollback { at }) => {
            // Where an operator ended it nobody waits for a moment.
            let then = if at == 0 { String::new() } else { format!("back at {}", clock(at)) };
            gates.push(gate(rules::Gate::Outcome, "rollback", then));
        }
    }
    gates
}

fn waits(follow: &Synchronous<'_>, now: Timestamp) -> Waits {
    let view = &follow.view;
    if let (Some(Plan::Commit { at }), None) = (view.plan, view.go)
        && follow.rollout.begins_after(now).is_some()
    {
        return Waits { otherwise: format!("waits for its moment, {}", clock(now, at)), ..Waits::default() };
    }
    let missing = |what, since, is_missing: fn(&Member) -> bool| Waits {
        what,
        who: follow.who(is_missing).iter().map(ToString::to_string).collect(),
        since,
        otherwise: "waits for a decision".into(),
    };
    let made = |gate: rules::Gate| match follow
        .texts
        .get(&gate)
        .map(|text| found(&follow.rollout.decisions().gate(gate.name()), text, None))
    {
        Some(Look::Found(found)) => match found.fact {
            Fact::Plan(said) => said.made,
            _ => None,
        },
        _ => None,
    };
    match (view.plan, view.go) {
        (Some(Plan::Abort), _) | (_, Some(Go::Cancel)) => Waits::default(),
        (None, _) => {
            let since = Some(follow.rollout.proposal.created);
            missing("the vote of", since, |member| member.vote.is_none())
        }
        (Some(Plan::Commit { .. }), None) => {
            missing("an instant held by", made(rules::Gate::Plan), |member| !member.armed)
        }
        (Some(Plan::Commit { at }), Some(Go::Go)) => {
            missing("the report of", timestamp(at), |member| member.report.is_none())
        }
    }
}

fn why(follow: &Synchronous<'_>, now: Timestamp) -> Vec<String> {
    let times = follow.rollout.times();
    let clock = |ms| clock(now, ms);
    let mut lines = Vec::new();
    match (follow.view.plan, follow.view.go, follow.view.outcome) {
        (None, _, _) => {
            lines.push(format!("without all votes by {} nobody switches", clock(follow.rollout.vote_by())));
        }
        (Some(Plan::Commit { at }), None, _) => {
            lines.push(format!("without all holding it by {} nobody switches", clock(at - times.window())));
        }
        (Some(Plan::Commit { at }), Some(Go::Go), None) => {
            lines.push(format!("who has not switched by {} brings all back", clock(times.switched_by(at))));
            lines.push(format!("without all reports good by {} all go back", clock(times.reported_by(at))));
        }
        _ => {}
    }
    lines.extend(follow.failure());
    if rules::ended(&follow.view).is_none() {
        lines.push("a dead member: `cutover fleet waive NODE`; to stop: `cutover fleet abort`".into());
    }
    lines
}

fn rolling(operator: &mut Operator<'_>, rollout: &Rollout, now: Timestamp) -> Result<Page, Error> {
    let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, operator.voice()) else {
        return Err(Error::Fleet("the proposal has no terms".into()));
    };
    heard(follow.read(operator.board))?;
    heard(follow.read_waivers(operator.board))?;
    let account = of_rolling(operator, &follow)?;
    let out = follow.view.tickets.iter().filter(|ticket| !follow.view.has_finished(**ticket));
    let nobody = rollout.proposal.members.len();
    let name = |ticket: &Ticket| rollout.proposal.members.get(ticket.owner).map(ToString::to_string);
    let mut who: Vec<String> = out.filter(|ticket| ticket.owner < nobody).filter_map(name).collect();
    let begins = rollout.begins_after(now).filter(|_| follow.view.tickets.is_empty());
    if who.is_empty() && !follow.view.halt && begins.is_none() {
        who.extend(follow.awaited().map(ToString::to_string));
    }
    let (what, otherwise) = if follow.view.end.is_some() && !follow.is_settled() {
        ("going back on", "halted: members go back".into())
    } else if follow.view.halt {
        ("the end of the switch on", "halted".into())
    } else if let Some(moment) = begins {
        ("", format!("waits for its moment, {}", moment_from(now, moment)))
    } else {
        ("the switch of", nobody_to_wait_for(&follow))
    };
    let progress = format!(
        "  wave {} is open; {} of {} out of service; {} of {} have it",
        follow.view.wave,
        follow.view.unfinished(),
        follow.terms.at_once,
        account.members.iter().filter(|entry| entry.state == "good").count(),
        account.members.len()
    );
    let mut why = Vec::new();
    if !follow.is_settled() {
        why.push("a dead member keeps its place: `cutover fleet waive NODE` frees it".to_owned());
    }
    why.extend(follow.failure());
    why.extend(follow.refusing());
    Ok(Page {
        gates: Vec::new(),
        account,
        waits: Waits { what, who, since: None, otherwise },
        progress: Some(progress),
        remarks: follow.remarks.clone(),
        why,
    })
}

/// What a rolling rollout comes to when everybody of the open waves has had a turn.
fn nobody_to_wait_for(follow: &Rolling<'_>) -> String {
    let view = &follow.view;
    if !view.are_good(view.wave + 1) {
        "waits for a member to take its turn".into()
    } else if view.are_good(u32::MAX) {
        "all have it; the next run of any member ends it".into()
    } else {
        let soak = crate::types::Span(Duration::from_millis(follow.terms.soak.ms().unsigned_abs()));
        format!("wave {} is good, and stays alone for {soak}: then the next one opens", view.wave)
    }
}
