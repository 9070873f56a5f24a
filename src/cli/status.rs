//! `status`: what a person wants to know in five seconds.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, SpanRound, Timestamp, Unit};

use super::args::{Global, StatusArgs};
use super::context::Context;
use super::failure::Error;
use super::narrator::status_path;
use super::output::{Output, Tone, print, table};
use crate::config::{self, Places};
use crate::lifecycle::status::{Doing, Last, Status, status as look};
use crate::sys::disk;
use crate::types::state::Outcome;
use crate::types::{Size, Version, escaped};

/// `status`
pub fn status(
    args: &StatusArgs,
    global: &Global,
    load: &dyn Fn() -> Result<Context, Error>,
) -> Result<u8, Error> {
    if args.all {
        return all(global, load);
    }
    let context = load()?;
    loop {
        let view = view(&context)?;
        let text = screen(&view, Timestamp::now(), context.output);
        if !args.watch {
            context.output.result(&view, &text);
            return Ok(0);
        }
        // Clears the screen, as watch(1) does.
        print(&format!("\x1b[H\x1b[2J{text}"));
        std::thread::sleep(Duration::from_secs(1));
        if context.interrupted.load(Ordering::Relaxed) {
            return Ok(0);
        }
    }
}

fn all(global: &Global, load: &dyn Fn() -> Result<Context, Error>) -> Result<u8, Error> {
    let output = Output::new(global);
    let mut views = Vec::new();
    if global.config.is_some() || global.root.is_some() {
        views.push(view(&load()?)?);
    } else {
        for app in config::apps(&Places::default()) {
            let global = Global { app: Some(app), ..global.clone() };
            let context = Context::load(&global, std::sync::Arc::default(), disk::Disk::default())?;
            views.push(view(&context)?);
        }
    }
    let now = Timestamp::now();
    let texts: Vec<String> = views.iter().map(|view| screen(view, now, output)).collect();
    output.result(&views, &texts.join("\n\n"));
    Ok(0)
}

/// The view; while a trial is watched, with what its watcher last told.
fn view(context: &Context) -> Result<Status, Error> {
    const BYTES_MAX: usize = 1 << 20;
    let store = context.store()?;
    let mut view = look(&context.app, &context.node, context.settings(), &store, Timestamp::now())?;
    if [Doing::Trial, Doing::Warming].contains(&view.state)
        && let Ok(Some(bytes)) = disk::read_small(&status_path(&context.app), BYTES_MAX)
        && let Ok(told) = serde_json::from_slice::<Status>(&bytes)
        && told.root == view.root
    {
        if view.state == Doing::Warming {
            view.rehearsal = told.rehearsal.or(view.rehearsal);
        }
        if let (Some(mine), Some(theirs)) = (view.trial.as_mut(), told.trial)
            && mine.deadline == theirs.deadline
        {
            *mine = theirs;
        }
    }
    Ok(view)
}

/// One screen for people.
fn screen(view: &Status, now: Timestamp, output: Output) -> String {
    let headline = output.paint(tone(view.state), &headline(view));
    let mut rows = what_runs(view, now);
    rows.extend(what_goes_on(view, now));
    rows.extend(what_was(view, now));
    let mut text = format!("{} on {}: {headline}\n{}", view.app, view.node, table(&rows));
    if !view.next.is_empty() {
        text.push_str("\n\nnext:\n");
        for line in &view.next {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn tone(doing: Doing) -> Tone {
    match doing {
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

/// Active, previous, staged.
fn what_runs(view: &Status, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    match &view.active {
        None => rows.push(row("active", "nothing")),
        Some(active) => {
            let since = active.since.map(|since| format!(", since {}", when(since, now))).unwrap_or_default();
            let state = if active.committed { "" } else { ", not committed" };
            let signed = if active.signers.is_empty() { ", unsigned" } else { "" };
            rows.push(row("active", format!("{}{since}{state}{signed}", active.version)));
        }
    }
    if let Some(previous) = &view.previous {
        let way = if previous.rollback.possible {
            "going back is possible"
        } else {
            "its tree is gone: no way back"
        };
        let data = match previous.rollback.data.as_str() {
            "none" => String::new(),
            data => format!("; data: {data}"),
        };
        rows.push(row("previous", format!("{}, {way}{data}", previous.version)));
    }
    if let Some(staged) = &view.staged {
        rows.push(row("staged", format!("{}, since {}", staged.version, when(staged.since, now))));
    }
    rows
}

/// Trial, troubles, policies.
fn what_goes_on(view: &Status, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(trial) = &view.trial {
        let left = trial.deadline.map(|deadline| words(deadline.duration_since(now))).unwrap_or_default();
        let ends = if trial.confirm { "goes back unless committed in" } else { "must be healthy within" };
        let text = format!("healthy for {} s of {} s; {ends} {left}", trial.healthy_for_s, trial.need_s);
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
        rows.push(row("why", format!("{} ({})", escaped(needs.reason.as_bytes()), when(needs.since, now))));
    }
    rows.extend(view.problems.iter().map(|problem| row("problem", problem)));
    rows.extend(view.blocked.iter().map(|blocked| row("blocked", &blocked.text)));
    rows
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

/// Last outcome, marks, room.
fn what_was(view: &Status, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(last) = &view.last {
        let reason = last.reason.as_deref().map(|reason| format!(": {}", escaped(reason.as_bytes())));
        let away = last.downtime_ms.map(|away| format!(", service away {away} ms")).unwrap_or_default();
        let (what, when, reason) = (last_words(last), when(last.at, now), reason.unwrap_or_default());
        rows.push(row("last", format!("{what} {when}{away}{reason}")));
    }
    if !view.bad.is_empty() {
        let names: Vec<_> = view.bad.iter().map(|bad| bad.release.version.as_str()).collect();
        rows.push(row(
            "bad",
            format!("{} (never switched to; `cutover mark-good` lifts it)", names.join(" ")),
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
    rows.push(row(
        "disk",
        format!("{} free, {} of it reserved{surplus}", Size(disk.free), Size(disk.reserve)),
    ));
    rows.extend(view.data.aside.iter().map(|aside| row("set aside", aside)));
    rows
}

fn last_words(last: &Last) -> String {
    match last.outcome {
        Outcome::Committed => format!("{} committed", last.to),
        Outcome::RolledBack if last.exit_code == 0 => format!("went back to {}", last.to),
        Outcome::RolledBack => format!("{} rolled back", last.to),
        Outcome::Failed => format!("{} failed", last.to),
        Outcome::Refused => format!("{} refused", last.to),
        Outcome::CalledOff => format!("{} called off", last.to),
    }
}

fn headline(view: &Status) -> String {
    let version = view
        .active
        .as_ref()
        .map_or_else(|| "no release".to_owned(), |active| format!("release {}", active.version));
    match view.state {
        Doing::Idle if view.active.is_none() => "nothing is installed".to_owned(),
        Doing::Idle => format!("{version} runs; nothing is going on"),
        Doing::Staging => format!("{version} runs; another is being staged"),
        Doing::Staged => format!("{version} runs; a newer one is staged"),
        Doing::Waiting => format!("{version} runs; a newer one waits"),
        Doing::Warming => format!("{version} runs; the next one is rehearsed"),
        Doing::Voting => format!("{version} runs; the fleet is asked about the next one"),
        Doing::Switching => "services are being switched".to_owned(),
        Doing::Trial => format!("{version} is on trial"),
        Doing::RollingBack => "going back to the old release".to_owned(),
        Doing::InDoubt => format!("{version} runs; IN DOUBT, the fleet's decision is not known here"),
        Doing::NeedsPerson => "NEEDS A PERSON; nothing automatic happens".to_owned(),
    }
}

/// A moment with how long ago it was.
fn when(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", moment.strftime("%Y-%m-%d %H:%M:%SZ"), words(now.duration_since(moment)))
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
