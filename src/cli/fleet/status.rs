//! `fleet status`: one screen on how a rollout stands.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::FleetStatusArgs;
use super::page::{CellLine, Gate, Page, Waits};
use super::propose::{ended, lost_list};
use super::report::{moment, note, summary};
use super::{fold, kept, rollout, settings, shut_out, with_all_of, with_operator};
use crate::cli::context::Context;
use crate::cli::failure::Error;
use crate::cli::output::{Tone, table};
use crate::coord::NodeName;
use crate::coord::account::{Account, Entry};
use crate::coord::alive::{self, Alive};
use crate::coord::board::Read;
use crate::coord::facts::{ClockSeen, Fleet, names};
use crate::coord::operate::{self, Operator};
use crate::coord::rollout::{Rollout, WENT_BACK};
use crate::coord::standing::{How, removed};
use crate::lifecycle::fleet::{Kept, said_of};
use crate::types::clock_words;

/// What a screen is made of.
struct Shown {
    value: Value,
    text: String,
    has_ended: bool,
}

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
    let is_newest = args.rollout.rollout.is_none();
    let shut_out = shut_out(context).filter(|_| is_newest);
    let mut remarks = if is_newest { remarks(context, operator, &fleet)? } else { Vec::new() };
    remarks.extend(
        shut_out.iter().map(|shut| format!("{}; `cutover fleet check` says what it lacks", shut.why)),
    );
    let mut shown = match rollout(operator, &fleet, args.rollout.rollout) {
        Ok(rollout) => with_all_of(operator, &rollout, |operator| {
            show(context, operator, &fleet.fleet, &rollout, shut_out.map(|shut| shut.node), args)
        })?,
        Err(Error::Operate(operate::Error::Refused(why))) if is_newest => Shown {
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
                "the proposal of rollout {number} is not valid: {why}; `cutover fleet repair` puts it back on a node that has read \
                 it, else `cutover fleet propose` goes on with the next number"
            )
        })
        .collect();
    let Some(kept) = kept(&context.store()?)?.filter(|kept| kept.own.fleet == fleet.id) else {
        return Ok(remarks);
    };
    remarks.extend(lost_list(operator, fleet, &kept)?);
    for (name, number) in said_by_operators(&kept) {
        if operator.board.read(&name) == Read::Absent {
            remarks.push(format!(
                "`{name}` of rollout {number}, which this node has read, is gone: the storage went back in time; `cutover fleet repair`, \
                 or the next `cutover update`, puts it back"
            ));
        }
    }
    let known = [kept.part().map(|part| part.rollout), kept.own.last.as_ref().map(|last| last.rollout)];
    for number in known.into_iter().flatten() {
        let is_gone = operator.board.read(&names::proposal(number)) == Read::Absent;
        if is_gone && removed(operator.board, number, operator.trust).map_err(Error::Unreachable)?.is_none() {
            remarks.push(format!("rollout {number}, which this node has read, is gone: {WENT_BACK}"));
        }
    }
    Ok(remarks)
}

/// Where a halt and waivers stand that this node has read, and of which rollout.
fn said_by_operators(kept: &Kept) -> Vec<(String, u64)> {
    let Some((part, proposal)) = kept.part().zip(kept.proposal_digest()) else { return Vec::new() };
    let decisions = names::Decisions { rollout: part.rollout, proposal };
    said_of(part).keys().map(|name| (decisions.gate(name), part.rollout)).collect()
}

fn show(
    context: &Context,
    operator: &mut Operator<'_>,
    fleet: &str,
    rollout: &Rollout,
    shut_out: Option<NodeName>,
    args: &FleetStatusArgs,
) -> Result<Shown, Error> {
    let (is_newest, why) = (args.rollout.rollout.is_none(), args.why);
    let now = Timestamp::now();
    let end = ended(operator, rollout).map_err(Error::Unreachable)?;
    let proposal = &rollout.proposal;
    let mode = proposal.mode.word();
    let mut page = Page::read(operator, rollout, now)?;
    note(context, rollout.number, &page.account);
    let beats = heartbeats(operator, &page.account);
    let seen: Vec<Option<i64>> = beats
        .iter()
        .map(|said| said.as_ref().map(|said| (now.as_second() - said.at.as_second()).max(0)))
        .collect();
    if is_newest {
        say_what_runs_now(&mut page, &beats);
    }
    see_now(&mut page.account, &beats);
    say_who_refuses(&mut page, &beats, rollout);
    let not_yet = say_why_not_yet(&mut page, &beats, rollout, end.as_ref().map(|end| end.word), is_newest);
    if let Some(entry) = page.account.members.iter_mut().find(|entry| Some(&entry.node) == shut_out.as_ref())
    {
        let told = if entry.note.is_empty() { String::new() } else { format!("; {}", entry.note) };
        entry.note = format!("read-only{told}");
    }
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
    lines.extend(fold::cells(&page.cells));
    let rows = fold::rows(&page.account, Some(&seen)).unwrap_or_else(|| rows(&page.account, &seen));
    lines.push(table(&rows));
    lines.extend(Some(summary(&page.account)).filter(|line| !line.is_empty()));
    lines.extend(page.remarks.iter().map(|remark| format!("note: {remark}")));
    if why {
        lines.extend(fold::lines(&page.why));
    }
    // Of what has ended nothing is waited for, whatever is missing.
    let waits = if end.is_some() { &Waits::default() } else { &page.waits };
    let members: Vec<Value> = page.account.members.iter().zip(&seen).map(member_value).collect();
    let mut value = json!({
        "api_version": 1, "fleet": fleet, "rollout": rollout.number, "mode": mode,
        "version": proposal.release.version, "digest": proposal.release.digest,
        "proposed": proposal.created, "by": proposal.by,
        "outcome": end.as_ref().map(|end| end.word), "reason": end.as_ref().map(|end| &end.why),
        "gates": page.gates.iter().map(Gate::value).collect::<Vec<_>>(),
        "not_yet": not_yet, "waits_for": waits.text(now), "waiting": waits.value(), "why": page.why, "remarks": page.remarks,
        "members": members, "skew_ms": page.account.skew_ms, "mixed_ms": page.account.mixed_ms,
        "is_mixed": page.account.is_mixed, "longest_away": page.account.longest_away,
    });
    if !page.cells.is_empty() {
        value["cells"] = page.cells.iter().map(CellLine::value).collect();
    }
    Ok(Shown { value, text: lines.join("\n"), has_ended: end.is_some() })
}

/// A member, and how many seconds ago it was heard of.
fn member_value((entry, seen): (&Entry, &Option<i64>)) -> Value {
    let mut value = serde_json::to_value(entry).unwrap_or_default();
    value["seen_s"] = json!(seen);
    value
}

/// What each member of the account said last, in its order: by cells where there are cells. Nothing: never heard of.
pub(super) fn heartbeats(operator: &mut Operator<'_>, account: &Account) -> Vec<Option<Alive>> {
    let nodes: Vec<NodeName> = account.members.iter().map(|entry| entry.node.clone()).collect();
    let mut beats = Vec::new();
    alive::read_each(operator.board, &nodes, &mut |_, said| {
        beats.push(said.ok().flatten().map(Alive::brief));
    });
    beats
}

/// Whether all run the same by now.
pub(super) fn see_now(account: &mut Account, beats: &[Option<Alive>]) {
    let running: Vec<_> =
        beats.iter().map(|said| said.as_ref().and_then(|said| said.running.as_ref())).collect();
    account.see_now(&running);
}

/// A member that has said its last word may have been moved since: by hand, or by a disk that was put back.
fn say_what_runs_now(page: &mut Page, beats: &[Option<Alive>]) {
    for (entry, said) in page.account.members.iter_mut().zip(beats) {
        let now = said.as_ref().and_then(|said| said.running.as_ref());
        let (Some(now), Some(then), true) = (now, &entry.running, entry.has_closed) else { continue };
        if entry.is_by_hand && now == then {
            page.why.push(format!(
                "{} was put on release {now} by hand: `cutover fleet resume` there lets it follow",
                entry.node
            ));
        }
        if now != then {
            let told = if entry.note.is_empty() { String::new() } else { format!("; {}", entry.note) };
            entry.note = format!("runs {now} now{told}");
        }
    }
}

/// Who has refused the release, and runs it now, refuses it no more.
fn say_who_refuses(page: &mut Page, beats: &[Option<Alive>], rollout: &Rollout) {
    let release = Some(&rollout.proposal.release.version);
    let runs_it = |said: &Option<Alive>| said.as_ref().and_then(|said| said.running.as_ref()) == release;
    let run_it: Vec<_> = page.account.members.iter().zip(beats).filter(|(_, said)| runs_it(said)).collect();
    let run_it: Vec<NodeName> = run_it.into_iter().map(|(entry, _)| entry.node.clone()).collect();
    for entry in page.account.members.iter_mut().filter(|entry| run_it.contains(&entry.node)) {
        if page.refused.iter().any(|(node, _)| *node == entry.node) {
            entry.note.clear();
        }
    }
    let still = std::mem::take(&mut page.refused).into_iter().filter(|(node, _)| !run_it.contains(node));
    page.why.extend(still.map(|(_, said)| said));
}

/// Those who do not take part yet say why, and until when.
fn say_why_not_yet(
    page: &mut Page,
    beats: &[Option<Alive>],
    rollout: &Rollout,
    ended: Option<&str>,
    is_newest: bool,
) -> Vec<Value> {
    let mut told = Vec::new();
    for (entry, said) in page.account.members.iter_mut().zip(beats) {
        let Some(said) = said else { continue };
        let Some(not_yet) = &said.not_yet else { continue };
        // Whoever missed what the fleet runs follows by itself, and says why it has not.
        let is_late = is_newest
            && ended == Some(How::Kept.word())
            && said.running.as_ref() != Some(&rollout.proposal.release.version);
        let is_of_this = not_yet.rollout.is_none_or(|number| number == rollout.number);
        if !is_of_this || (!is_late && (ended.is_some() || entry.has_closed)) {
            continue;
        }
        let until = not_yet.until.map(|until| format!(" until {until}")).unwrap_or_default();
        if is_late {
            let told = if entry.note.is_empty() { String::new() } else { format!("{}; ", entry.note) };
            entry.note = format!("{told}does not follow yet: {}{until}", not_yet.why);
            page.why.push(format!("{} does not follow yet: {}{until}", entry.node, not_yet.why));
        } else {
            if entry.note.is_empty() {
                entry.note = format!("not yet: {}{until}", not_yet.why);
            }
            page.why.push(format!(
                "{} does not take part yet: {}{until}; `cutover fleet waive {}` goes on without it",
                entry.node, not_yet.why, entry.node
            ));
        }
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
    let has_cells = account.members.iter().any(|entry| entry.cell.is_some());
    if has_cells {
        head.insert(1, "CELL");
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
        if has_cells {
            row.insert(1, entry.cell.as_ref().map(ToString::to_string).unwrap_or_default());
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
