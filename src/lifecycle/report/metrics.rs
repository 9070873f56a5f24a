//! What Prometheus' node exporter reads from a text file: state, outcomes, what is in the way, disk, rollout.
//!
//! One pure function from facts to text. The file is written by rename, so that a scrape never sees half of it; it
//! changes only when a run of cutover ends or a phase begins, and its age says when that was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::offer::ChannelView;
use super::view::{BlockedView, UnitView};
use crate::sys::disk::{self, Disk};
use crate::types::Version;
use crate::types::state::{HistoryEntry, Outcome, State};

#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub app: &'a str,
    pub node: &'a str,
    pub active: Option<&'a Version>,
    /// The word of `status --json`: `idle`, `trial`, `needs_person`, and so on.
    pub state: &'a str,
    pub remembered: &'a State,
    pub history: &'a [HistoryEntry],
    /// What keeps this node from switching.
    pub blocked: &'a [BlockedView],
    pub channel: Option<&'a ChannelView>,
    /// The application's units as they are.
    pub units: &'a [UnitView],
    /// The update under way: whether somebody works on it, and when it must have ended.
    pub update: Option<(bool, Option<Timestamp>)>,
    /// Bytes of data that rollbacks have set aside.
    pub aside_bytes: u64,
    /// Free bytes on the file system of the root, and the reserve that staging leaves alone.
    pub disk: Option<(u64, u64)>,
    /// The rollout under way, if any.
    pub rollout: Option<Rollout>,
}

/// A rollout, counted. Whoever reads it from storage leaves it for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    pub number: u64,
    /// How many nodes are in which state.
    pub members: BTreeMap<String, u64>,
    /// From the first to the last switch, in milliseconds.
    pub skew_ms: Option<f64>,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Committed, "committed"),
    (Outcome::RolledBack, "rolled_back"),
    (Outcome::Failed, "failed"),
    (Outcome::Refused, "refused"),
    (Outcome::CalledOff, "called_off"),
];

/// The text, in the exposition format of Prometheus.
pub fn render(facts: &Facts<'_>) -> String {
    let mut text = Text { out: String::new(), app: facts.app };
    let version = facts.active.map_or("", Version::as_str);
    text.about("cutover_info", "gauge", "The active release; always 1.");
    text.line("cutover_info", &[("node", facts.node), ("version", version)], 1.0);
    text.about("cutover_state", "gauge", "What this node is doing; 1 for the state it is in.");
    text.line("cutover_state", &[("state", facts.state)], 1.0);
    text.about("cutover_needs_person", "gauge", "1 when going back did not succeed.");
    text.line("cutover_needs_person", &[], flag(facts.remembered.needs_person.is_some()));
    text.about("cutover_hold", "gauge", "1 while somebody holds automatic switching.");
    text.line("cutover_hold", &[], flag(facts.remembered.hold.is_some()));
    text.about("cutover_bad_releases", "gauge", "Releases that are not tried again.");
    text.line("cutover_bad_releases", &[], count(facts.remembered.bad.len()));
    outcomes(&mut text, facts.history);
    blocked(&mut text, facts.blocked);
    if let Some(channel) = facts.channel {
        self::channel(&mut text, channel);
    }
    running(&mut text, facts);
    text.about("cutover_data_aside_bytes", "gauge", "Bytes of data that rollbacks have set aside.");
    text.line("cutover_data_aside_bytes", &[], number(facts.aside_bytes));
    if let Some((free, reserve)) = facts.disk {
        text.about("cutover_disk_free_bytes", "gauge", "Free on the file system of the releases.");
        text.line("cutover_disk_free_bytes", &[], number(free));
        text.about("cutover_disk_reserve_bytes", "gauge", "What staging leaves free.");
        text.line("cutover_disk_reserve_bytes", &[], number(reserve));
    }
    if let Some(rollout) = &facts.rollout {
        fleet(&mut text, rollout);
    }
    text.out
}

/// Writes the file by rename, readable for all.
pub fn write(disk: &Disk, path: &Path, text: &str) -> Result<(), disk::Error> {
    disk.replace(path, text.as_bytes(), 0o644)
}

fn blocked(text: &mut Text<'_>, blocked: &[BlockedView]) {
    text.about("cutover_blocked", "gauge", "1 for each policy that keeps this node from switching.");
    for blocked in blocked {
        text.line("cutover_blocked", &[("policy", &blocked.policy)], 1.0);
    }
    text.about(
        "cutover_blocked_since_timestamp_seconds",
        "gauge",
        "Since when that policy keeps this node from switching.",
    );
    for (policy, since) in blocked.iter().filter_map(|blocked| Some((&blocked.policy, blocked.since?))) {
        text.line("cutover_blocked_since_timestamp_seconds", &[("policy", policy)], moment(since));
    }
    let is_baseline = blocked.iter().any(|blocked| blocked.policy == "baseline");
    text.about(
        "cutover_baseline_failing",
        "gauge",
        "1 while the release that runs fails a check, so nothing newer is taken.",
    );
    text.line("cutover_baseline_failing", &[], flag(is_baseline));
}

fn channel(text: &mut Text<'_>, channel: &ChannelView) {
    let labels = [("channel", channel.name.as_str())];
    text.about("cutover_channel_expires_timestamp_seconds", "gauge", "When the channel expires.");
    text.line("cutover_channel_expires_timestamp_seconds", &labels, moment(channel.expires));
    text.about("cutover_channel_serial", "gauge", "The highest serial accepted.");
    text.line("cutover_channel_serial", &labels, number(channel.serial));
    if let Some(looked) = channel.looked {
        text.about(
            "cutover_last_look_timestamp_seconds",
            "gauge",
            "When the source last answered this node.",
        );
        text.line("cutover_last_look_timestamp_seconds", &[], moment(looked));
    }
    if let Some(since) = channel.since.filter(|_| channel.newer) {
        let labels =
            [("version", channel.version.as_str()), ("banned", if channel.banned { "1" } else { "0" })];
        text.about(
            "cutover_behind_since_timestamp_seconds",
            "gauge",
            "Since when the channel offers what does not run here.",
        );
        text.line("cutover_behind_since_timestamp_seconds", &labels, moment(since));
    }
}

/// Units as they are, and whether an update was left half way.
fn running(text: &mut Text<'_>, facts: &Facts<'_>) {
    text.about(
        "cutover_unit_ok",
        "gauge",
        "1 when a unit of the application was at work at the last look, else 0.",
    );
    for unit in facts.units {
        text.line("cutover_unit_ok", &[("unit", &unit.unit)], flag(unit.ok));
    }
    let is_left = facts.update.is_some_and(|(is_worked_on, _)| !is_worked_on);
    text.about(
        "cutover_recovery_pending",
        "gauge",
        "1 when an update was interrupted, and nobody works on it.",
    );
    text.line("cutover_recovery_pending", &[], flag(is_left));
    if let Some((_, Some(deadline))) = facts.update {
        text.about(
            "cutover_update_deadline_timestamp_seconds",
            "gauge",
            "When the update under way must have ended.",
        );
        text.line("cutover_update_deadline_timestamp_seconds", &[], moment(deadline));
    }
}

fn outcomes(text: &mut Text<'_>, history: &[HistoryEntry]) {
    text.about("cutover_updates_total", "counter", "Updates and rollbacks by how they ended.");
    let totals = crate::store::totals(history);
    for (outcome, name) in OUTCOMES {
        let ended = totals.get(&outcome).copied().unwrap_or(0);
        text.line("cutover_updates_total", &[("outcome", name)], number(ended));
    }
    let Some(last) = history.first() else { return };
    let name = OUTCOMES.iter().find(|(outcome, _)| *outcome == last.outcome).map_or("", |(_, name)| name);
    let labels = [
        ("outcome", name),
        ("from", last.from.as_ref().map_or("", Version::as_str)),
        ("to", last.to.as_str()),
        ("transaction", &last.transaction),
    ];
    text.about("cutover_last_outcome", "gauge", "How the last update ended; always 1.");
    text.line("cutover_last_outcome", &labels, 1.0);
    text.about("cutover_last_exit_code", "gauge", "The exit code of the last update.");
    text.line("cutover_last_exit_code", &[], f64::from(last.exit_code));
    text.about("cutover_last_outcome_timestamp_seconds", "gauge", "When the last update ended.");
    text.line("cutover_last_outcome_timestamp_seconds", &[], moment(last.at));
    if let Some(downtime) = last.downtime_ms.and_then(|downtime| i64::try_from(downtime).ok()) {
        text.about(
            "cutover_last_downtime_seconds",
            "gauge",
            "How long units were stopped or starting in the last update.",
        );
        text.line("cutover_last_downtime_seconds", &[], seconds_of(downtime));
    }
    if let Some(silent) = last.unanswered_ms.and_then(|silent| i64::try_from(silent).ok()) {
        text.about(
            "cutover_last_unanswered_seconds",
            "gauge",
            "How long the checks got no good answer in the last update.",
        );
        text.line("cutover_last_unanswered_seconds", &[], seconds_of(silent));
    }
}

fn fleet(text: &mut Text<'_>, rollout: &Rollout) {
    let name = rollout.number.to_string();
    text.about("cutover_rollout_members", "gauge", "Nodes of the rollout by where they stand.");
    for (state, members) in &rollout.members {
        text.line("cutover_rollout_members", &[("rollout", &name), ("state", state)], number(*members));
    }
    if let Some(skew_ms) = rollout.skew_ms {
        text.about(
            "cutover_switch_skew_seconds",
            "gauge",
            "From the first to the last switch of the rollout.",
        );
        text.line("cutover_switch_skew_seconds", &[("rollout", &name)], skew_ms / 1000.0);
    }
}

/// The text so far; every line says the application.
struct Text<'a> {
    out: String,
    app: &'a str,
}

impl Text<'_> {
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.out, "{name}{{app=\"{}\"", escaped(self.app));
        for (label, value) in labels {
            let _ = write!(self.out, ",{label}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.out, "}} {value}");
    }
}

/// A label's value, with what the format reserves escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn moment(moment: Timestamp) -> f64 {
    seconds_of(moment.as_millisecond())
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn number(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn seconds_of(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    fn entry(outcome: Outcome) -> HistoryEntry {
        HistoryEntry {
            at: "2026-11-23T12:00:00.5Z".parse().unwrap(),
            transaction: "20261123T120000Z-9f3a6c".to_owned(),
            outcome,
            from: Some("1.0.0".parse().unwrap()),
            to: "1.1.0".parse().unwrap(),
            digest: Digest::of(b""),
            reason: None,
            exit_code: 10,
            downtime_ms: Some(40),
            unanswered_ms: Some(140),
            took_ms: 5000,
            rollout: None,
            by: "timer".to_owned(),
            before: BTreeMap::new(),
        }
    }

    fn offered() -> ChannelView {
        serde_json::from_value(serde_json::json!({
            "name": "stable", "serial": 7, "issued": "2026-11-23T00:00:00Z", "expires": "2026-12-23T00:00:00Z",
            "version": "1.2.0", "digest": Digest::of(b""), "since": "2026-11-22T00:00:00Z",
            "looked": "2026-11-23T11:00:00Z", "newer": true, "banned": false,
        }))
        .unwrap()
    }

    fn stopped() -> UnitView {
        UnitView {
            unit: "shop.service".to_owned(),
            load: "loaded".to_owned(),
            active: "failed".to_owned(),
            sub: "failed".to_owned(),
            result: "exit-code".to_owned(),
            pid: None,
            release: None,
            ok: false,
        }
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let history =
            [entry(Outcome::RolledBack), HistoryEntry { exit_code: 0, ..entry(Outcome::Committed) }];
        let active = "1.0.0".parse().unwrap();
        let members = BTreeMap::from([("healthy".to_owned(), 4), ("failed".to_owned(), 1)]);
        let (channel, unit) = (offered(), stopped());
        let text = render(&Facts {
            app: "shop",
            node: "web\"1\\",
            active: Some(&active),
            state: "idle",
            remembered: &State::default(),
            history: &history,
            blocked: &[
                BlockedView {
                    policy: "window".to_owned(),
                    since: Some("2026-11-20T00:00:00Z".parse().unwrap()),
                    until: None,
                    text: String::new(),
                    exit_code: None,
                },
                BlockedView {
                    policy: "baseline".to_owned(),
                    since: None,
                    until: None,
                    text: String::new(),
                    exit_code: None,
                },
            ],
            channel: Some(&channel),
            units: &[unit],
            update: Some((false, Some("2026-11-24T00:00:00Z".parse().unwrap()))),
            aside_bytes: 4096,
            disk: Some((5_000_000_000, 1 << 30)),
            rollout: Some(Rollout { number: 17, members, skew_ms: Some(4.0) }),
        });
        for line in [
            "cutover_info{app=\"shop\",node=\"web\\\"1\\\\\",version=\"1.0.0\"} 1",
            "cutover_state{app=\"shop\",state=\"idle\"} 1",
            "cutover_needs_person{app=\"shop\"} 0",
            "cutover_updates_total{app=\"shop\",outcome=\"rolled_back\"} 1",
            "cutover_updates_total{app=\"shop\",outcome=\"refused\"} 0",
            "cutover_last_exit_code{app=\"shop\"} 10",
            "cutover_last_outcome_timestamp_seconds{app=\"shop\"} 1795435200.5",
            "cutover_last_downtime_seconds{app=\"shop\"} 0.04",
            "cutover_blocked{app=\"shop\",policy=\"window\"} 1",
            "cutover_blocked_since_timestamp_seconds{app=\"shop\",policy=\"window\"} 1795132800",
            "cutover_baseline_failing{app=\"shop\"} 1",
            "cutover_channel_expires_timestamp_seconds{app=\"shop\",channel=\"stable\"} 1797984000",
            "cutover_last_look_timestamp_seconds{app=\"shop\"} 1795431600",
            "cutover_behind_since_timestamp_seconds{app=\"shop\",version=\"1.2.0\",banned=\"0\"} 1795305600",
            "cutover_unit_ok{app=\"shop\",unit=\"shop.service\"} 0",
            "cutover_recovery_pending{app=\"shop\"} 1",
            "cutover_update_deadline_timestamp_seconds{app=\"shop\"} 1795478400",
            "cutover_data_aside_bytes{app=\"shop\"} 4096",
            "cutover_last_unanswered_seconds{app=\"shop\"} 0.14",
            "cutover_disk_free_bytes{app=\"shop\"} 5000000000",
            "cutover_rollout_members{app=\"shop\",rollout=\"17\",state=\"failed\"} 1",
            "cutover_switch_skew_seconds{app=\"shop\",rollout=\"17\"} 0.004",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\nis not in\n{text}");
        }
        // Every metric is described once, before its lines.
        let described: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let once: std::collections::BTreeSet<&&str> = described.iter().collect();
        assert_eq!(once.len(), described.len());
    }
}
