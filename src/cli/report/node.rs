//! One node: what runs, which release ran when, and how every update ended.

use jiff::Timestamp;

use super::page::{Tone, card, milliseconds, moment, page, piece, stacking_table, tag, text};
use crate::types::Version;
use crate::types::state::{HistoryEntry, Outcome, State};

/// The updates that the page lists, newest first.
const SHOWN_MAX: usize = 200;

#[derive(Clone, Debug)]
pub struct NodeReport {
    pub app: String,
    pub node: String,
    pub active: Option<Version>,
    pub state: State,
    pub history: Vec<HistoryEntry>,
    pub now: Timestamp,
}

/// The page of a node.
pub fn render(report: &NodeReport) -> String {
    let title = format!("{} on {}", report.app, report.node);
    let mut body = format!("<h1>{}</h1>\n", text(&title));
    if let Some(need) = &report.state.needs_person {
        body.push_str(&format!(
            "<p>{} since {}: {}</p>\n",
            tag(Tone::Bad, "needs a person"),
            moment(need.since),
            text(&need.reason)
        ));
    }
    body.push_str(&cards(report));
    let stays = stays(report);
    if !stays.is_empty() {
        body.push_str("<h2>Which release ran when</h2>\n");
        body.push_str(&timeline(report, &stays));
    }
    body.push_str("<h2>Updates</h2>\n");
    body.push_str(&history(report));
    if !report.state.bad.is_empty() {
        body.push_str("<h2>Releases that are not tried again</h2>\n");
        body.push_str(&banned(&report.state));
    }
    page(&title, report.now, &body)
}

fn cards(report: &NodeReport) -> String {
    let state = &report.state;
    let since = state.committed.as_ref().filter(|it| Some(&it.release.version) == report.active.as_ref());
    let mut html = "<div class=\"cards\">\n".to_owned();
    html.push_str(&card(
        "active release",
        &report.active.as_ref().map_or("none".to_owned(), ToString::to_string),
        &since.map_or(String::new(), |it| format!("<p class=\"small\">committed {}</p>", moment(it.since))),
    ));
    html.push_str(&card(
        "goes back to",
        &state.previous.as_ref().map_or("nothing".to_owned(), |it| it.release.version.to_string()),
        "",
    ));
    if let Some(last) = report.history.first() {
        let (tone, word) = outcome(last.outcome);
        html.push_str(&card(
            "last update",
            &format!("to {}", last.to),
            &format!("<p>{} <span class=\"small\">{}</span></p>", tag(tone, word), moment(last.at)),
        ));
    }
    html.push_str(&card(
        "automatic switching",
        if state.hold.is_some() { "held" } else { "on" },
        &state.hold.as_ref().map_or(String::new(), |hold| {
            format!("<p class=\"small\">by {}: {}</p>", text(&hold.by), text(&hold.reason))
        }),
    ));
    html.push_str("</div>\n");
    html
}

/// A release that was active for some time.
#[derive(Debug, PartialEq, Eq)]
struct Stay {
    version: Version,
    from: Timestamp,
    to: Timestamp,
    /// Whether it was left by a rollback.
    was_left: bool,
}

/// Who was active when, from the outcomes: after a commit `to`, else `from`.
fn stays(report: &NodeReport) -> Vec<Stay> {
    let mut stays: Vec<Stay> = Vec::new();
    for entry in report.history.iter().rev() {
        let active = match entry.outcome {
            Outcome::Committed => Some(&entry.to),
            Outcome::RolledBack | Outcome::Failed | Outcome::Refused | Outcome::CalledOff => {
                entry.from.as_ref()
            }
        };
        let Some(active) = active else { continue };
        if stays.is_empty()
            && let Some(before) = &entry.from
        {
            // What was taken over, or ran before this history began.
            let from = since_of(&report.state, before).unwrap_or(entry.at).min(entry.at);
            stays.push(Stay { version: before.clone(), from, to: entry.at, was_left: false });
        }
        if let Some(last) = stays.last_mut() {
            last.to = entry.at;
            if last.version == *active {
                continue;
            }
            last.was_left = entry.outcome == Outcome::RolledBack;
        }
        stays.push(Stay { version: active.clone(), from: entry.at, to: entry.at, was_left: false });
    }
    if let (true, Some(active)) = (stays.is_empty(), &report.active) {
        let from = since_of(&report.state, active).unwrap_or(report.now);
        stays.push(Stay { version: active.clone(), from, to: from, was_left: false });
    }
    if let Some(last) = stays.last_mut() {
        last.to = report.now.max(last.from);
    }
    stays
}

/// Since when a release is remembered as committed.
fn since_of(state: &State, version: &Version) -> Option<Timestamp> {
    let all = [&state.committed, &state.previous].into_iter().flatten().chain(&state.earlier);
    all.filter(|kept| kept.release.version == *version).map(|kept| kept.since).min()
}

fn timeline(report: &NodeReport, stays: &[Stay]) -> String {
    let (Some(first), Some(last)) = (stays.first(), stays.last()) else { return String::new() };
    let (begin, end) = (first.from, last.to);
    let share = |at: Timestamp| share_of(begin, end, at);
    let mut bar = String::new();
    for (number, stay) in stays.iter().enumerate() {
        let class = match (number + 1 == stays.len(), stay.was_left) {
            (true, _) => "good",
            (false, true) => "warn",
            (false, false) => "calm",
        };
        let (from, to) = (share(stay.from), share(stay.to));
        let hint = format!("{} from {} to {}", stay.version, moment(stay.from), moment(stay.to));
        // A label only where it has room, at least in a wide window.
        let label = if to - from > 0.03 { stay.version.to_string() } else { String::new() };
        bar.push_str(&piece(class, from, to, &label, &hint));
    }
    let mut marks = String::new();
    for entry in report.history.iter().filter(|entry| entry.outcome != Outcome::Committed) {
        let (tone, word) = outcome(entry.outcome);
        marks.push_str(&format!(
            "<span class=\"{}\" style=\"left:{:.3}%\" title=\"{}\">&#9660;</span>",
            tone.class(),
            100.0 * share(entry.at).clamp(0.005, 0.995),
            text(&format!("{word}: {} at {}", entry.to, moment(entry.at)))
        ));
    }
    let summary = stays
        .iter()
        .map(|stay| format!("{} from {}", stay.version, moment(stay.from)))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "<div class=\"box\"><div class=\"legend\"><span><i class=\"good\"></i>runs now</span>\
         <span><i class=\"calm\"></i>ran before</span><span><i class=\"warn\"></i>left by a rollback</span>\
         <span><span class=\"warn\" style=\"background:none\">&#9660;</span> rolled back</span>\
         <span><span class=\"bad\" style=\"background:none\">&#9660;</span> failed or refused</span></div>\n\
         <div class=\"marks\" aria-hidden=\"true\">{marks}</div>\n\
         <div class=\"bar\" role=\"img\" aria-label=\"{}\">{bar}</div>\n\
         <div class=\"axis\"><span>{}</span><span>{}</span></div></div>\n",
        text(&summary),
        moment(begin),
        moment(end)
    )
}

/// How far `at` is between the two, from 0 to 1.
fn share_of(begin: Timestamp, end: Timestamp, at: Timestamp) -> f64 {
    let whole = end.duration_since(begin).as_secs_f64();
    if whole > 0.0 { at.duration_since(begin).as_secs_f64() / whole } else { 0.0 }
}

fn history(report: &NodeReport) -> String {
    if report.history.is_empty() {
        return "<p class=\"quiet\">None yet.</p>\n".to_owned();
    }
    let rows: Vec<Vec<String>> = report.history.iter().take(SHOWN_MAX).map(history_row).collect();
    let mut html =
        stacking_table(&["ended", "from", "to", "outcome", "took", "no answer", "by", "reason"], &rows);
    if report.history.len() > SHOWN_MAX {
        html.push_str(&format!(
            "<p class=\"quiet small\">The newest {SHOWN_MAX} of {}.</p>\n",
            report.history.len()
        ));
    }
    html
}

fn history_row(entry: &HistoryEntry) -> Vec<String> {
    let (tone, word) = outcome(entry.outcome);
    vec![
        format!("<td class=\"number\" title=\"{}\">{}</td>", text(&entry.transaction), moment(entry.at)),
        format!(
            "<td data-label=\"from\">{}</td>",
            entry.from.as_ref().map_or("&ndash;".to_owned(), |from| text(from.as_str()))
        ),
        format!("<td data-label=\"to\">{}</td>", text(entry.to.as_str())),
        format!("<td>{}</td>", tag(tone, word)),
        format!("<td class=\"number\" data-label=\"took\">{}</td>", milliseconds(entry.took_ms)),
        format!(
            "<td class=\"number\" data-label=\"no answer\">{}</td>",
            entry.unanswered_ms.or(entry.downtime_ms).map_or("&ndash;".to_owned(), milliseconds)
        ),
        format!("<td data-label=\"by\">{}</td>", text(&entry.by)),
        format!("<td class=\"reason\">{}</td>", text(entry.reason.as_deref().unwrap_or(""))),
    ]
}

fn banned(state: &State) -> String {
    let row = |bad: &crate::types::state::Bad| {
        vec![
            format!("<td>{}</td>", text(bad.release.version.as_str())),
            format!("<td class=\"number\">{}</td>", moment(bad.since)),
            format!("<td class=\"reason\">{}</td>", text(&bad.reason)),
        ]
    };
    stacking_table(&["release", "since", "reason"], &state.bad.iter().map(row).collect::<Vec<_>>())
}

/// How an outcome is coloured, and called.
fn outcome(outcome: Outcome) -> (Tone, &'static str) {
    match outcome {
        Outcome::Committed => (Tone::Good, "committed"),
        Outcome::RolledBack => (Tone::Warn, "rolled back"),
        Outcome::Failed => (Tone::Bad, "failed"),
        Outcome::Refused => (Tone::Bad, "refused"),
        Outcome::CalledOff => (Tone::Calm, "called off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    fn entry(hour: i64, from: Option<&str>, to: &str, outcome: Outcome) -> HistoryEntry {
        HistoryEntry {
            at: Timestamp::from_second(hour * 3600).unwrap(),
            transaction: format!("t{hour}"),
            outcome,
            from: from.map(|version| version.parse().unwrap()),
            to: to.parse().unwrap(),
            digest: Digest::of(to.as_bytes()),
            reason: None,
            exit_code: 0,
            downtime_ms: Some(40),
            unanswered_ms: Some(140),
            took_ms: 5000,
            rollout: None,
            by: "timer".to_owned(),
            before: std::collections::BTreeMap::new(),
        }
    }

    fn report(history: Vec<HistoryEntry>) -> NodeReport {
        NodeReport {
            app: "shop".to_owned(),
            node: "n1".to_owned(),
            active: Some("1".parse().unwrap()),
            state: State::default(),
            history,
            now: Timestamp::from_second(100 * 3600).unwrap(),
        }
    }

    #[test]
    fn stays_follow_from_outcomes() {
        let report = report(vec![
            entry(4, Some("1"), "3", Outcome::RolledBack),
            entry(3, Some("1"), "3", Outcome::Committed),
            HistoryEntry { exit_code: 10, ..entry(2, Some("1"), "2", Outcome::RolledBack) },
            entry(1, None, "1", Outcome::Committed),
        ]);
        let seen: Vec<String> = stays(&report)
            .iter()
            .map(|stay| {
                format!("{} {}-{}", stay.version, stay.from.as_second() / 3600, stay.to.as_second() / 3600)
            })
            .collect();
        assert_eq!(seen, ["1 1-3", "3 3-4", "1 4-100"]);
    }

    #[test]
    fn a_node_without_a_past_has_a_page() {
        let html = render(&report(Vec::new()));
        assert!(html.contains("shop on n1") && html.contains("None yet."));
    }

    #[test]
    fn reasons_cannot_break_out_of_the_page() {
        let mut failed = entry(2, Some("1"), "2", Outcome::RolledBack);
        failed.reason = Some("</td><script>x</script>".to_owned());
        assert!(!render(&report(vec![failed])).contains("<script>"));
    }
}
