//! What Prometheus' node exporter reads from a text file: state, outcomes, what is in the way, disk, rollout.
//!
//! One pure function from facts to text. The file is written by rename, so that a scrape never sees half of it; it
//! changes only when a run of cutover ends or a phase begins, and its age says when that was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::sys::disk::{self, Disk};
use crate::types::Version;
use crate::types::state::{HistoryEntry, Outcome, State};

/// What is told.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The application.
    pub app: &'a str,
    /// This node.
    pub node: &'a str,
    /// Where the pointer stands.
    pub active: Option<&'a Version>,
    /// The word of `status --json`: `idle`, `trial`, `needs_person`, and so on.
    pub state: &'a str,
    /// What is remembered.
    pub remembered: &'a State,
    /// Every outcome, newest first.
    pub history: &'a [HistoryEntry],
    /// The policies that keep this node from switching, by name.
    pub blocked: &'a [&'a str],
    /// Free bytes on the file system of the root, and the reserve that staging leaves alone.
    pub disk: Option<(u64, u64)>,
    /// The rollout under way, if any.
    pub rollout: Option<Rollout>,
}

/// A rollout, counted.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// Its number.
    pub number: u64,
    /// How many nodes are in which state.
    pub members: BTreeMap<String, u64>,
    /// From the first to the last switch, in milliseconds.
    pub skew_ms: Option<u64>,
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
    text.about("cutover_blocked", "gauge", "1 for each policy that keeps this node from switching.");
    for policy in facts.blocked {
        text.line("cutover_blocked", &[("policy", policy)], 1.0);
    }
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

fn outcomes(text: &mut Text<'_>, history: &[HistoryEntry]) {
    text.about("cutover_updates_total", "counter", "Updates and rollbacks by how they ended.");
    for (outcome, name) in OUTCOMES {
        let ended = history.iter().filter(|entry| entry.outcome == outcome).count();
        text.line("cutover_updates_total", &[("outcome", name)], count(ended));
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
    text.about("cutover_last_exit_code", "gauge", "The exit code that told it.");
    text.line("cutover_last_exit_code", &[], f64::from(last.exit_code));
    text.about("cutover_last_outcome_timestamp_seconds", "gauge", "When the last update ended.");
    text.line("cutover_last_outcome_timestamp_seconds", &[], seconds_of(last.at.as_millisecond()));
    if let Some(downtime) = last.downtime_ms.and_then(|downtime| i64::try_from(downtime).ok()) {
        text.about(
            "cutover_last_downtime_seconds",
            "gauge",
            "How long the service was away in the last update.",
        );
        text.line("cutover_last_downtime_seconds", &[], seconds_of(downtime));
    }
}

fn fleet(text: &mut Text<'_>, rollout: &Rollout) {
    let name = rollout.number.to_string();
    text.about("cutover_rollout_members", "gauge", "Nodes of the rollout by where they stand.");
    for (state, members) in &rollout.members {
        text.line("cutover_rollout_members", &[("rollout", &name), ("state", state)], number(*members));
    }
    if let Some(skew) = rollout.skew_ms.and_then(|skew| i64::try_from(skew).ok()) {
        text.about(
            "cutover_switch_skew_seconds",
            "gauge",
            "From the first to the last switch of the rollout.",
        );
        text.line("cutover_switch_skew_seconds", &[("rollout", &name)], seconds_of(skew));
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
        }
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let history =
            [entry(Outcome::RolledBack), HistoryEntry { exit_code: 0, ..entry(Outcome::Committed) }];
        let active = "1.0.0".parse().unwrap();
        let members = BTreeMap::from([("healthy".to_owned(), 4), ("failed".to_owned(), 1)]);
        let text = render(&Facts {
            app: "shop",
            node: "web\"1\\",
            active: Some(&active),
            state: "idle",
            remembered: &State::default(),
            history: &history,
            blocked: &["window"],
            disk: Some((5_000_000_000, 1 << 30)),
            rollout: Some(Rollout { number: 17, members, skew_ms: Some(4) }),
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
