//! What `status` shows people: what runs, what goes on, what was, and what to type next.

use std::fmt::Write as _;

use jiff::{SignedDuration, SpanRound, Timestamp, Unit};

use super::{Output, Tone, milliseconds};
use crate::lifecycle::report::view::{DiskView, Doing, Last, Status, TrialView, UnitView, UpdateView};
use crate::lifecycle::update::finish;
use crate::types::record::Intent;
use crate::types::state::Outcome;
use crate::types::{Size, Version, escaped};

/// One screen for people: what runs, what goes on, what was, and what to type next.
pub fn screen(view: &Status, now: Timestamp, output: Output) -> String {
    let headline = output.paint(tone(view), &headline(view));
    let mut rows = what_runs(view, now);
    rows.extend(what_goes_on(view, now));
    rows.extend(what_was(view, now));
    let mut text = format!("{} on {}: {headline}\n{}", view.app, view.node, output.fold(&rows));
    if !view.next.is_empty() {
        text.push_str("\n\nnext:\n");
    }
    for line in &view.next {
        // The command, and what it does; in two lines where one is not enough.
        let _ = match line.split_once("  ") {
            Some((command, does)) if output.width.is_some_and(|width| width < line.len() + 2) => {
                writeln!(text, "  {command}\n      {}", does.trim_start())
            }
            Some(_) | None => writeln!(text, "  {line}"),
        };
    }
    text
}

fn tone(view: &Status) -> Tone {
    match view.state {
        Doing::Idle | Doing::Staged if view.running.iter().any(|unit| unit.is_service() && !unit.ok) => {
            Tone::Alarm
        }
        Doing::Idle | Doing::Staged => Tone::Well,
        Doing::NeedsPerson | Doing::InDoubt => Tone::Alarm,
        Doing::Staging
        | Doing::Waiting
        | Doing::Warming
        | Doing::Voting
        | Doing::Switching
        | Doing::Trial
        | Doing::RollingBack => Tone::Busy,
    }
}

fn row(name: &str, what: impl Into<String>) -> Vec<String> {
    vec![format!("  {name}"), what.into()]
}

fn what_runs(view: &Status, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    match &view.active {
        None => rows.push(row("active", "nothing")),
        Some(active) => {
            let since = active.since.map(|since| format!(", since {}", when(since, now))).unwrap_or_default();
            let state = if active.committed { "" } else { ", not committed" };
            let signed = if active.signers.is_empty() {
                ", unsigned".to_owned()
            } else {
                format!(", signed by {}", escaped(active.signers.join(", ").as_bytes()))
            };
            rows.push(row("active", format!("{}{since}{state}{signed}", active.version)));
        }
    }
    rows.extend(view.running.iter().filter(|unit| !unit.ok || is_elsewhere(view, unit)).map(|unit| {
        let from =
            unit.release.as_ref().map(|release| format!(", from release {release}")).unwrap_or_default();
        row("unit", format!("{} is {}{from}", unit.unit, unit_words(unit)))
    }));
    if let Some(previous) = &view.previous {
        let way = match (previous.rollback.possible, previous.rollback.data.as_str()) {
            (false, _) => match &previous.rollback.why_not {
                Some(why) => format!("there is no way back to it: {why}"),
                None => "its tree is gone, so there is no way back to it".to_owned(),
            },
            (true, _) if previous.rollback.asks.len() == 1 => {
                "going back is possible with `--data keep`: of some data there is no copy".to_owned()
            }
            (true, _) if !previous.rollback.asks.is_empty() => {
                "going back is possible with `--data restore` or `--data keep`: the copy of the data is old"
                    .to_owned()
            }
            (true, "restore") => "going back is possible, with the data as before the switch".to_owned(),
            (true, "keep") => "going back is possible, and the data stay".to_owned(),
            (true, _) => "going back is possible".to_owned(),
        };
        let revoked = if previous.rollback.revoked { "; its channel has revoked it" } else { "" };
        rows.push(row("previous", format!("{}: {way}{revoked}", previous.version)));
        if let Some(changed) = &previous.rollback.changed {
            rows.push(row("", format!("its tree was written to: {changed}")));
        }
    }
    if let Some(staged) = &view.staged {
        rows.push(row("staged", format!("{}, since {}", staged.version, when(staged.since, now))));
    }
    if let Some(channel) = &view.channel {
        let is_staged = view.staged.as_ref().is_some_and(|staged| staged.digest == channel.digest);
        let what = match (channel.newer, channel.banned, is_staged) {
            (false, _, _) => "offers nothing newer".to_owned(),
            (true, true, _) => format!("offers {}, which is banned on this node", channel.version),
            (true, false, true) => format!("offers {}", channel.version),
            (true, false, false) => format!("offers {}, not staged yet", channel.version),
        };
        let issued = when(channel.issued, now);
        let (name, serial) = (&channel.name, channel.serial);
        let looked =
            channel.looked.map(|looked| format!(", looked at {}", ago(looked, now))).unwrap_or_default();
        let expires = ends(channel.expires, now);
        rows.push(row(
            "channel",
            format!("{name} {what}; serial {serial}, issued {issued}, {expires}{looked}"),
        ));
    }
    rows
}

/// Whether a unit runs from another release than the active one.
fn is_elsewhere(view: &Status, unit: &UnitView) -> bool {
    unit.release.is_some() && unit.release.as_ref() != view.active.as_ref().map(|active| &active.version)
}

/// The update under way, its trial, troubles, policies.
fn what_goes_on(view: &Status, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(update) = &view.update {
        rows.push(row("update", update_line(update, now)));
    }
    if let Some(trial) = &view.trial {
        let ends = trial_ends(trial, view.state, now);
        let text = match trial.need_s {
            0 => ends,
            need => format!("healthy for {} s of {need} s; {ends}", trial.healthy_for_s),
        };
        rows.push(row("trial", text));
        rows.extend(trial.checks.iter().map(|check| row("", check_line(check))));
    }
    if let Some(rehearsal) = &view.rehearsal {
        let (version, since) = (&rehearsal.version, when(rehearsal.since, now));
        let text = format!(
            "{version}, since {since}: healthy for {} s of {} s",
            rehearsal.healthy_for_s, rehearsal.need_s
        );
        rows.push(row("rehearsal", text));
        rows.extend(rehearsal.checks.iter().map(|check| row("", check_line(check))));
    }
    if let Some(needs) = &view.needs_person {
        rows.push(row(
            "why",
            format!("{}; since {}", escaped(needs.reason.as_bytes()), when(needs.since, now)),
        ));
    }
    rows.extend(view.problems.iter().map(|problem| row("problem", problem)));
    rows.extend(view.blocked.iter().map(|blocked| row("blocked", &blocked.text)));
    if view.source.allow_unsigned {
        rows.push(row("caution", "releases are taken without signatures (`[source] allow_unsigned`)"));
    }
    rows
}

/// What the trial waits for, and until when.
fn trial_ends(trial: &TrialView, state: Doing, now: Timestamp) -> String {
    let Some(deadline) = trial.deadline else {
        return "waits for the fleet's outcome, as it has promised".to_owned();
    };
    let left = words(deadline.duration_since(now));
    let back = trial.back_to.as_ref().map(|back| format!(", else back to {back}")).unwrap_or_default();
    if state == Doing::InDoubt {
        return format!("waits for the fleet's outcome, for {left} at the most{back}");
    }
    let ends = if trial.confirm { "goes back unless committed within" } else { "must be healthy within" };
    format!("{ends} {left}{back}")
}

fn update_line(update: &UpdateView, now: Timestamp) -> String {
    let from = update.from.as_ref().map_or("nothing", Version::as_str);
    let way = match update.intent {
        Intent::Update => format!("{from} -> {}", update.to),
        Intent::Rollback => format!("{}, back to {from}", update.to),
    };
    let who = match (update.pid, &update.waits_for) {
        (Some(pid), Some(what)) => format!("process {pid} waits: {}", escaped(what.as_bytes())),
        (Some(pid), None) => format!("process {pid} works on it"),
        (None, _) => "interrupted: nobody works on it now".to_owned(),
    };
    let why = update.reason.as_deref().map(|reason| format!("; {}", escaped(reason.as_bytes())));
    let begun = format!("begun by {} {}", escaped(update.by.as_bytes()), when(update.started, now));
    format!("{way}, {begun}; {who}{}", why.unwrap_or_default())
}

fn check_line(check: &serde_json::Value) -> String {
    let word = |key: &str| check.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let is_ok = check.get("ok").and_then(serde_json::Value::as_bool).unwrap_or_default();
    format!(
        "{} {}: {}",
        if is_ok { "ok  " } else { "FAIL" },
        word("name"),
        escaped(word("detail").as_bytes())
    )
}

fn what_was(view: &Status, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(last) = &view.last {
        // A person who went back and gave no reason: who it was says it.
        let reason = last.reason.as_deref().filter(|reason| *reason != finish::BY_HAND);
        let reason = reason.map(|reason| format!(": {}", escaped(reason.as_bytes())));
        let by =
            if last.by.is_empty() { String::new() } else { format!(", by {}", escaped(last.by.as_bytes())) };
        let (what, when, reason) = (last_words(last), when(last.at, now), reason.unwrap_or_default());
        rows.push(row("last", format!("{what} {when}{by}{reason}")));
        if let Some(away) = away_words(last) {
            rows.push(row("down time", away));
        }
    }
    if !view.bad.is_empty() {
        let names: Vec<_> = view.bad.iter().map(|bad| bad.release.version.as_str()).collect();
        rows.push(row(
            "bad",
            format!("{} (not switched to again until `cutover mark-good`)", names.join(" ")),
        ));
    }
    if !view.pins.is_empty() {
        rows.push(row("pinned", view.pins.iter().map(Version::as_str).collect::<Vec<_>>().join(" ")));
    }
    let disk = &view.disk;
    let surplus = if disk.reclaimable > 0 {
        format!("; `prune` frees up to {}", Size(disk.reclaimable))
    } else {
        String::new()
    };
    let method = match view.store.method.as_str() {
        "btrfs" => "releases share blocks as snapshots",
        "reflink" => "releases share blocks",
        "hardlink" => "releases share files",
        _ => "releases share nothing",
    };
    rows.push(row(
        "disk",
        format!(
            "{} free, {} of it reserved{}; {method}{surplus}",
            Size(disk.free),
            Size(disk.reserve),
            cut(disk)
        ),
    ));
    rows.extend(view.data.aside.iter().map(|aside| row("set aside", aside)));
    rows
}

/// The reserve that is configured, where the file system is too small for it.
fn cut(disk: &DiskView) -> String {
    if disk.reserve < disk.reserve_configured {
        format!(" (a tenth of the file system; {} are configured)", Size(disk.reserve_configured))
    } else {
        String::new()
    }
}

/// How long nobody was answered, as the checks saw it, and for how long units were stopped or starting. Neither is a part of
/// the other: a unit may answer before it is said to have started, and long after.
fn away_words(last: &Last) -> Option<String> {
    let stopped = last.downtime_ms.map(milliseconds);
    Some(match (last.unanswered_ms, stopped) {
        (Some(0), Some(stopped)) => {
            format!("every check was answered; units were stopped or starting for {stopped}")
        }
        (Some(0), None) => "every check was answered".to_owned(),
        (Some(silent), Some(stopped)) => {
            format!("no answer for {}; units were stopped or starting for {stopped}", milliseconds(silent))
        }
        (Some(silent), None) => format!("no answer for {}", milliseconds(silent)),
        (None, stopped) => format!("units were stopped or starting for {}", stopped?),
    })
}

fn last_words(last: &Last) -> String {
    match last.outcome {
        Outcome::Committed => format!("{} committed", last.to),
        Outcome::RolledBack if last.exit_code == 0 => {
            let back = last.from.as_ref().map_or("nothing", Version::as_str);
            format!("went back from {} to {back}", last.to)
        }
        Outcome::RolledBack => format!("{} rolled back", last.to),
        Outcome::Failed => format!("{} failed", last.to),
        Outcome::Refused => format!("{} refused", last.to),
        Outcome::CalledOff => format!("{} called off", last.to),
    }
}

fn headline(view: &Status) -> String {
    let release = |version: Option<&Version>| {
        version.map_or_else(|| "no release".to_owned(), |version| format!("release {version}"))
    };
    let active = release(view.active.as_ref().map(|active| &active.version));
    let runs = serving(view, &active);
    let update = view.update.as_ref();
    let to = release(update.map(|update| &update.to));
    let from = release(update.and_then(|update| update.from.as_ref()));
    match view.state {
        Doing::Idle => at_rest(view, &runs),
        Doing::Staging => format!("{runs}; another is being staged"),
        Doing::Staged | Doing::Waiting if update.is_some() => {
            format!("{runs}; the switch to {to} waits")
        }
        Doing::Staged | Doing::Waiting => {
            let staged = release(view.staged.as_ref().map(|staged| &staged.version));
            let waits = if view.state == Doing::Waiting { " and waits" } else { "" };
            format!("{runs}; {staged} is staged{waits}")
        }
        Doing::Warming => format!("{runs}; {to} is rehearsed beside it"),
        Doing::Voting => format!("{runs}; the fleet is asked about {to}"),
        Doing::Switching => format!("switching from {from} to {to}"),
        Doing::Trial => format!("{active} is on trial"),
        Doing::RollingBack => format!("going back from {to} to {from}"),
        Doing::InDoubt => format!("{runs}; IN DOUBT: the fleet's decision is not known here"),
        Doing::NeedsPerson => format!("NEEDS A PERSON: nothing automatic happens; `current` names {active}"),
    }
}

/// What serves, as systemd has it: a pointer alone runs nothing.
fn serving(view: &Status, active: &str) -> String {
    let down: Vec<_> = view.running.iter().filter(|unit| unit.is_service() && !unit.ok).collect();
    match down.as_slice() {
        [] => format!("{active} runs"),
        [unit] => format!("{active} is active, but `{}` is {}", unit.unit, unit_words(unit)),
        units => format!("{active} is active, but {} of its units do not run", units.len()),
    }
}

fn unit_words(unit: &UnitView) -> String {
    match (unit.load.as_str(), unit.active.as_str()) {
        ("not-found", _) => "not there".to_owned(),
        ("masked", _) => "masked".to_owned(),
        (_, "inactive") => "stopped".to_owned(),
        (_, state) if unit.result != "success" && !unit.result.is_empty() => {
            format!("{state} ({})", unit.result)
        }
        (_, state) => state.to_owned(),
    }
}

const NOT_NOW: u8 = crate::cli::failure::code::NOT_NOW;

fn at_rest(view: &Status, runs: &str) -> String {
    let held = view.hold.is_some();
    let is_expired = view.blocked.iter().any(|blocked| blocked.policy == "channel");
    // By its source, or by its fleet.
    let refused = view.blocked.iter().find(|blocked| blocked.exit_code.is_some());
    match &view.channel {
        _ if view.unadopted => "`current` was installed by hand, and is not adopted yet".to_owned(),
        _ if view.active.is_none() => "nothing is installed".to_owned(),
        _ if view.blocked.iter().any(|blocked| blocked.policy == "by_hand") => {
            format!("{runs}, as a person wants it; it does not follow its fleet")
        }
        _ if held => format!("{runs}; automatic switching is on hold"),
        _ if is_expired => format!("{runs}; its channel has expired, so nothing newer is taken"),
        _ if refused.is_some() => {
            let whose = refused.map_or("source", |refused| &refused.policy);
            // That it is not now the time is an answer.
            if refused.is_some_and(|refused| refused.exit_code == Some(NOT_NOW)) {
                return format!("{runs}; it waits for its {whose}");
            }
            format!("{runs}; the last look at its {whose} failed")
        }
        Some(channel) if channel.newer && channel.banned => {
            format!("{runs}; release {} is offered, and banned here", channel.version)
        }
        Some(channel) if channel.newer => format!("{runs}; release {} is offered", channel.version),
        Some(_) => format!("{runs}; there is nothing newer"),
        None => format!("{runs}; nothing is going on"),
    }
}

/// What a clock that is kept right may be set back by.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(5);

/// A moment with how long ago it was.
fn when(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", moment.strftime("%Y-%m-%d %H:%M:%SZ"), ago(moment, now))
}

/// How long ago it was. A clock that was set back makes what has happened lie ahead.
pub fn ago(moment: Timestamp, now: Timestamp) -> String {
    if now.duration_since(moment) < -CLOCK_STEP {
        return "ahead of this node's clock".to_owned();
    }
    format!("{} ago", words(now.duration_since(moment)))
}

/// When a channel expires, or expired.
fn ends(expires: Timestamp, now: Timestamp) -> String {
    if expires > now {
        format!("expires in {}", words(expires.duration_since(now)))
    } else {
        format!("expired {}", ago(expires, now))
    }
}

/// A duration in at most two units.
fn words(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let rounded = jiff::Span::new()
        .try_seconds(seconds)
        .and_then(|span| span.round(SpanRound::new().largest(Unit::Hour).smallest(Unit::Second)));
    match (seconds, rounded) {
        (172_800.., _) => format!("{} days", seconds / 86_400),
        (_, Ok(span)) => format!("{span:#}"),
        (_, Err(_)) => format!("{seconds}s"),
    }
}
