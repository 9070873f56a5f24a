//! `log` and `config`, and small things that several commands say.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::context::Context;
use super::failure::Error;
use super::output::{milliseconds, table};
use crate::cli::words::args::{ConfigCommand, Global, LogArgs};
use crate::cli::words::schema::schema;
use crate::config::{self, Places, Problem};
use crate::lifecycle::application::data::{self, Probing};
use crate::lifecycle::application::hooks::Hooks;
use crate::lifecycle::application::service;
use crate::lifecycle::node::Node;
use crate::lifecycle::report::advice::BY_HAND;
use crate::lifecycle::report::status::is_unadopted;
use crate::lifecycle::settings::Settings;
use crate::lifecycle::update::deadline::Bounds;
use crate::release::trust::TrustedKey;
use crate::store::{self, Kept, Pointer, read_history, unread_history};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::disk::Disk;
use crate::sys::owned;
use crate::types::record::Phase;
use crate::types::state::{HistoryEntry, Outcome};
use crate::types::{Span, escaped, escaped_path};

/// A moment as people say it: RFC 3339, a date (its begin, here), `HH:MM` (UTC, the next one), or a duration from now (or,
/// for the past, before).
///
/// # Errors
/// When it cannot be read, or is over where one ahead is wanted: it would mean "at once", or "never".
pub fn moment(text: &str, now: Timestamp, is_ahead: bool) -> Result<Timestamp, Error> {
    moment_in(text, now, is_ahead, &TimeZone::system())
}

fn moment_in(text: &str, now: Timestamp, is_ahead: bool, zone: &TimeZone) -> Result<Timestamp, Error> {
    let escaped = escaped(text.as_bytes());
    let judged = |moment: Timestamp| {
        if is_ahead && moment <= now {
            let hint = Some(format!("it is {} now", now.strftime("%Y-%m-%dT%H:%M:%SZ")));
            return Err(Error::Usage { what: format!("`{escaped}` is in the past"), hint });
        }
        Ok(moment)
    };
    if let Ok(moment) = text.parse::<Timestamp>() {
        return judged(moment);
    }
    let wrong = || Error::Usage {
        what: format!("`{escaped}` is not a moment"),
        hint: Some(
            "write it as 2026-11-23T04:00:00Z, as 2026-11-23, as 04:00, or as a duration such as 2h".into(),
        ),
    };
    if let Ok(Span(span)) = text.parse::<Span>() {
        let span = SignedDuration::try_from(span).map_err(|_| wrong())?;
        let moment = if is_ahead { now.checked_add(span) } else { now.checked_sub(span) };
        return judged(moment.map_err(|_| wrong())?);
    }
    // A date and a time without a zone are refused: nobody knows which is meant. Taken for a time alone, they would lose
    // their date.
    if text.len() == "2026-11-23".len()
        && let Ok(date) = text.parse::<Date>()
    {
        let begin =
            date.to_datetime(Time::midnight()).to_zoned_datetime(zone.clone()).map_err(|_| wrong())?;
        return judged(begin.timestamp());
    }
    let is_time = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let time: Time = text.parse().ok().filter(|_| is_time).ok_or_else(wrong)?;
    let today = now.to_zoned_datetime(TimeZone::UTC).date().to_datetime(time);
    let moment = today.to_zoned_datetime(TimeZone::UTC).map_err(|_| wrong())?.timestamp();
    let day = SignedDuration::from_hours(24);
    let is_past = moment < now;
    Ok(if is_ahead && is_past { moment.checked_add(day).map_err(|_| wrong())? } else { moment })
}

/// How often `log --follow` looks.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

pub fn log(context: &Context, args: &LogArgs) -> Result<u8, Error> {
    let now = Timestamp::now();
    let since = args.since.as_deref().map(|text| moment(text, now, false)).transpose()?;
    let store = context.store()?;
    if args.follow {
        return follow(context, args.number, since);
    }
    let history = read_history(&store.layout.history())?;
    let happened = history.len();
    let entries: Vec<HistoryEntry> = history
        .into_iter()
        .filter(|entry| since.is_none_or(|since| entry.at >= since))
        .take(args.number)
        .collect();
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    let unread = unread_history(&store.layout.history());
    if unread > 0 {
        let lines = if unread == 1 { "1 line".to_owned() } else { format!("{unread} lines") };
        let path = store.layout.history();
        context.output.say(&format!(
            "warning: {lines} of `{}` cannot be read: damaged, or of a newer cutover",
            path.display()
        ));
    }
    let text = match (rows.is_empty(), happened) {
        (true, 0) if unread > 0 => "no entry can be read".to_owned(),
        (true, 0) => "nothing has happened yet".to_owned(),
        (true, _) => format!("none of the {happened} entries was asked for (`--number`, `--since`)"),
        (false, _) => table(&rows),
    };
    context.output.result(&entries, &text);
    Ok(0)
}

/// The last outcomes, oldest first, then each further one.
fn follow(context: &Context, number: usize, since: Option<Timestamp>) -> Result<u8, Error> {
    let store = context.store()?;
    let mut shown: Option<String> = None;
    loop {
        let history = read_history(&store.layout.history())?;
        let is_new = |entry: &&HistoryEntry| shown.as_ref() != Some(&entry.transaction);
        let limit = if shown.is_none() { number } else { usize::MAX };
        let is_wanted = |entry: &&HistoryEntry| since.is_none_or(|since| entry.at >= since);
        let mut new: Vec<_> = history.iter().take_while(is_new).filter(is_wanted).take(limit).collect();
        new.reverse();
        for entry in new {
            context.output.result(entry, &table(&[row(entry)]));
        }
        if let Some(newest) = history.first() {
            shown = Some(newest.transaction.clone());
        }
        if super::output::is_lost() || context.is_interrupted() {
            return Ok(0);
        }
        SystemClock.sleep(FOLLOW_EVERY);
    }
}

fn row(entry: &HistoryEntry) -> Vec<String> {
    let outcome = match entry.outcome {
        Outcome::Committed => "committed",
        Outcome::RolledBack => "rolled back",
        Outcome::Failed => "failed",
        Outcome::Refused => "refused",
        Outcome::CalledOff => "called off",
    };
    let from = entry.from.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let what = match entry.outcome {
        Outcome::RolledBack => format!("{}, back to {from}", entry.to),
        Outcome::Committed | Outcome::Failed | Outcome::Refused | Outcome::CalledOff => {
            format!("{from} -> {}", entry.to)
        }
    };
    let downtime = match (entry.unanswered_ms, entry.downtime_ms) {
        (Some(silent), _) => format!("no answer for {}", milliseconds(silent)),
        (None, Some(stopped)) => format!("stopped for {}", milliseconds(stopped)),
        (None, None) => String::new(),
    };
    let reason = entry.reason.as_deref().map(|reason| escaped(reason.as_bytes())).unwrap_or_default();
    vec![
        entry.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        outcome.to_owned(),
        what,
        format!("by {}", entry.by),
        downtime,
        reason,
    ]
}

/// `config show` and `config check`
pub fn config(context: &Context, command: &ConfigCommand) -> Result<u8, Error> {
    let settings = context.settings();
    match command {
        ConfigCommand::Check => {
            config::check_root(&Places::default(), &context.app, &settings.root)?;
            config::check_data(&Places::default(), &context.app, settings)?;
            super::fleet::check_configured(context)?;
            let warnings = context.with_node("config check", |node| {
                check_owners(node)?;
                check_data(node)?;
                // Before rehearsals, whose trouble with a unit that is not there says less.
                context.check_units(node)?;
                super::rehearse::check_configured(node)?;
                let mut warnings = unadopted(node)?;
                warnings.extend(Hooks::of(&context.app, &node.settings.hooks).doubts());
                warnings.extend(doubtful_keys(node)?);
                warnings.extend(doubtful_paths(settings));
                warnings.extend(service::left_alone(&settings.service));
                warnings.extend(unwatched(settings));
                Ok(warnings)
            })?;
            for warning in &warnings {
                context.output.say(&format!("warning: {warning}"));
            }
            let value = json!({"ok": true, "app": context.app, "warnings": warnings});
            context.output.result(&value, "");
        }
        ConfigCommand::Schema => context.output.result(&schema(), ""),
        ConfigCommand::Show => {
            let bounds = bounds(context);
            let value = json!({"app": context.app, "settings": settings, "origins": context.loaded.origins,
                "bounds_ms": as_json(&bounds)});
            let text = format!("{}\n\n{}", effective(settings, context), in_words(&bounds));
            context.output.result(&value, &text);
        }
    }
    Ok(0)
}

/// The settings are right, and there is something to do before the first update.
fn unadopted(node: &Node<'_>) -> Result<Vec<String>, Error> {
    let state = node.store.trusted_state()?;
    if !is_unadopted(node.store, &state)? {
        return Ok(Vec::new());
    }
    let current = node.store.layout.current();
    let current = current.display();
    Ok(vec![format!(
        "`{current}` was installed by hand; take it over first: `cutover adopt {current} --version {BY_HAND}`"
    )])
}

/// Keys that no update could do with. What is not there may come; what cannot be read ends every update.
fn doubtful_keys(node: &Node<'_>) -> Result<Option<String>, Error> {
    let source = &node.settings.source;
    if source.keys.iter().any(|path| !Path::new(path).exists()) {
        return Ok(None);
    }
    let keyring = node.keyring()?;
    if source.url.is_none() || source.allow_unsigned {
        return Ok(None);
    }
    let trusted: BTreeSet<_> =
        keyring.keys().iter().filter(|key| !keyring.is_revoked(key)).map(TrustedKey::fingerprint).collect();
    let wanted = usize::try_from(source.threshold).unwrap_or(usize::MAX).max(1);
    Ok((trusted.len() < wanted).then(|| {
        format!(
            "{} trusted here, and `[source] threshold` asks for {wanted}: no release of this source can be trusted",
            match trusted.len() {
                0 => "no key is".to_owned(),
                1 => "one key is".to_owned(),
                count => format!("{count} keys are"),
            }
        )
    }))
}

/// Settings that are read without an error, and do nothing.
fn doubtful_paths(settings: &Settings) -> Vec<String> {
    let gone = settings.source.keys.iter().filter(|path| !Path::new(path).exists());
    let mut warnings: Vec<_> = gone
        .map(|path| format!("`{path}` of `[source] keys` is not there: no release can be trusted"))
        .collect();
    if let Some(path) = settings.metrics.textfile.as_deref().filter(|path| path.is_relative()) {
        let path = path.display();
        warnings.push(format!("`{path}` of `[metrics] textfile` is relative to wherever cutover is started"));
    }
    if let Some(path) = settings.source.credentials.as_deref().filter(|path| !Path::new(path).exists()) {
        let path = escaped_path(path.as_ref());
        warnings.push(format!("`{path}` of `[source] credentials` is not there: the source cannot be asked"));
    }
    for check in &settings.health.check {
        let user = check.exec.as_ref().and_then(|exec| exec.user.as_deref());
        if let Some(user) = user.filter(|user| matches!(nix::unistd::User::from_name(user), Ok(None))) {
            let (user, check) = (escaped(user.as_bytes()), escaped(check.name.as_bytes()));
            warnings.push(format!("check `{check}` cannot run: there is no user `{user}`"));
        }
    }
    warnings
}

/// Units that may fall right after their start, and nobody would look.
fn unwatched(settings: &Settings) -> Option<String> {
    let has_services = !settings.service.units.is_empty() || settings.service.command.is_some();
    (has_services && settings.health.min_healthy().0.is_zero()).then(|| {
        "no `[[health.check]]`, and no `[health] min_healthy`: a release is committed as soon as it has started, also one that \
         falls a second later"
            .to_owned()
    })
}

/// Whether nobody else can put another directory in the root's place: whoever may write to a parent can.
fn check_owners(node: &Node<'_>) -> Result<(), Error> {
    let root = node.store.layout.root();
    owned::directory(root).map(drop).map_err(|error| Error::Config(Problem::Owned(error)))
}

/// Whether the data can be copied and brought back, tried where that will be done. Who is not root may not know.
fn check_data(node: &Node<'_>) -> Result<(), Error> {
    node.store.while_prepared(|prepared| check_prepared(node, prepared))
}

fn check_prepared(node: &Node<'_>, prepared: Result<(), store::Error>) -> Result<(), Error> {
    match prepared {
        Ok(()) => {}
        // No update can work there.
        Err(error @ (store::Error::Root { .. } | store::Error::OtherFilesystem { .. })) => {
            return Err(error.into());
        }
        Err(_) => return Ok(()),
    }
    node.store.ensure_pointer_moves()?;
    let (data, entries) = (node.data(), &node.settings.data);
    let checked = data.check(entries, Probing::Tried).and_then(|()| data.try_way_back(entries));
    match checked {
        Err(data::Error::Disk(error))
            if error.source.kind() == std::io::ErrorKind::PermissionDenied
                && !nix::unistd::geteuid().is_root() =>
        {
            Ok(())
        }
        checked => Ok(checked?),
    }
}

/// How long each phase of an update may take here, with the hooks and the data that there are now.
fn bounds(context: &Context) -> Bounds {
    let settings = context.settings();
    let copied = context
        .with_node("config show", |node| {
            Ok(node.data().bytes_to_copy(&settings.data, Probing::Guessed).unwrap_or(0))
        })
        .unwrap_or(0);
    Bounds::of(&context.app, settings, &[], copied)
}

fn as_json(bounds: &Bounds) -> serde_json::Value {
    let ms = |bound: std::time::Duration| u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    json!({
        "switch": ms(bounds.switch), "trial": ms(bounds.trial), "back": ms(bounds.back), "end": ms(bounds.end),
        "whole": ms(bounds.whole()),
    })
}

fn in_words(bounds: &Bounds) -> String {
    format!(
        "# How long it may take, by these settings: the switch {}, the trial {}, going back {}, the end {}.\n\
         # Within {} of its begin an update is settled, also if the program that carries it out is stopped or hangs.",
        Span(bounds.switch),
        Span(bounds.trial),
        Span(bounds.back),
        Span(bounds.end),
        Span(bounds.whole())
    )
}

/// The effective configuration as TOML, each value with its file behind it.
fn effective(settings: &Settings, context: &Context) -> String {
    let text = toml::to_string_pretty(settings).unwrap_or_default();
    let mut table = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']).to_owned();
        }
        let key = line
            .split_once(" = ")
            .map(|(key, _)| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") });
        let origin = key
            .and_then(|key| context.loaded.origins.get(&key))
            .or_else(|| line.starts_with("[[").then(|| context.loaded.origins.get(&table)).flatten());
        lines.push(match origin {
            Some(file) => format!("{line}  # {}", file.display()),
            None => line.to_owned(),
        });
    }
    lines.join("\n")
}

/// Which release serves now, and what is under way: for the end of every error message.
pub fn state_line(global: &Global) -> Option<String> {
    let context = Context::load(global, std::sync::Arc::default(), Disk::default()).ok()?;
    let store = context.store().ok()?;
    let active = match store.pointer().ok()? {
        Pointer::Absent => "no release is active".to_owned(),
        Pointer::Release(version) => format!("release {version} is active"),
        Pointer::Foreign(why) => format!("`current` was not made by cutover: {why}"),
        Pointer::Strange(why) => format!("`current` cannot be trusted: {why}"),
    };
    let under_way = match store.journal() {
        Ok(Kept::Whole(record)) => match record.phase {
            Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => {
                "; its bookkeeping will be finished"
            }
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. } => "; the update is recorded and will be resumed",
        },
        Ok(Kept::Missing | Kept::Damaged(_)) | Err(_) => "",
    };
    Some(format!("{active}{under_way}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_say_them() {
        let now: Timestamp = "2026-11-23T04:00:00Z".parse().unwrap();
        for (text, is_ahead, wanted) in [
            ("2026-12-01T00:00:00Z", true, "2026-12-01T00:00:00Z"),
            ("05:30", true, "2026-11-23T05:30:00Z"),
            ("03:30", true, "2026-11-24T03:30:00Z"),
            ("2h", true, "2026-11-23T06:00:00Z"),
            ("2d", false, "2026-11-21T04:00:00Z"),
        ] {
            let got = moment(text, now, is_ahead).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(got.to_string(), wanted, "{text}");
        }
        for bad in ["soon", "2026-11-31", "2026-12", "20261201", "2026-12-01 04", "2026-12-01T04:00:00"] {
            assert!(moment(bad, now, true).is_err(), "{bad}");
        }
        for (date, zone, wanted) in [
            ("2020-01-01", "UTC", "2020-01-01T00:00:00Z"),
            ("2026-07-01", "Europe/Berlin", "2026-06-30T22:00:00Z"),
            // There clocks went from 23:59 to 01:00.
            ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        ] {
            let zone = TimeZone::get(zone).unwrap();
            let got = moment_in(date, now, false, &zone).unwrap_or_else(|error| panic!("{date}: {error}"));
            assert_eq!(got.to_string(), wanted, "{date}");
            assert!(moment_in(date, now, true, &zone).is_err(), "{date} is over");
        }
        for past in ["2026-11-23T03:59:59Z", "2020-01-01T00:00:00Z"] {
            assert!(moment(past, now, true).is_err(), "{past}");
            assert!(moment(past, now, false).is_ok(), "{past}");
        }
    }
}
