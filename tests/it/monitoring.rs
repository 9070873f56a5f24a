//! What monitoring is told of: every metric that rules and dashboard read is written, every one that is written is
//! documented, and the rules fire for each state of a node (with promtool, where it is).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    text.match_indices("cutover_")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| is_part(c) || c == '/'))
        .map(|(at, _)| text[at..].chars().take_while(|c| is_part(*c)).collect())
        .collect()
}

#[test]
fn rules_dashboard_and_documents_know_the_metrics_that_there_are() {
    let source = read("src/lifecycle/report/metrics.rs");
    let written = metrics_in(source.split("#[cfg(test)]").next().unwrap());
    assert!(written.len() > 20, "{written:?}");
    let documented = metrics_in(&read("docs/monitoring.md"));
    assert_eq!(documented, written);
    for file in ["cutover.rules.yml", "cutover.test.yml", "grafana-dashboard.json"] {
        let read = metrics_in(&read(&format!("packaging/prometheus/{file}")));
        let strange: Vec<_> = read.difference(&written).collect();
        assert!(!read.is_empty() && strange.is_empty(), "{file} reads what nobody writes: {strange:?}");
    }
    let rules = read("packaging/prometheus/cutover.rules.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let page = read("docs/monitoring.md");
    for alert in alerts {
        assert!(page.contains(&format!("`{alert}`")), "{alert} is in no document");
    }
}

#[test]
fn each_state_of_a_node_raises_its_alert() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    for words in [["check", "rules", "cutover.rules.yml"], ["test", "rules", "cutover.test.yml"]] {
        let Ok(output) = Command::new("promtool").args(words).current_dir(&directory).output() else {
            return eprintln!(
                "SKIPPED each_state_of_a_node_raises_its_alert: no promtool (Debian: prometheus)"
            );
        };
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
