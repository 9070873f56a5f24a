//! A fleet: which node runs what, how each rollout went on each node, and when everybody switched.

use std::collections::HashMap;

use jiff::Timestamp;

use super::page::{Tone, card, milliseconds, page, piece, stacking_table, table, tag, text};

#[derive(Clone, Debug)]
pub struct FleetReport {
    pub name: String,
    /// The nodes, in the order of the member list.
    pub nodes: Vec<FleetNode>,
    pub rollouts: Vec<Rollout>,
    /// How many older ones there are.
    pub older: usize,
    pub now: Timestamp,
}

/// A node of the fleet.
#[derive(Clone, Debug)]
pub struct FleetNode {
    pub name: String,
    /// What it runs, as far as it has said.
    pub active: Option<String>,
}

/// One release for many nodes.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub number: u64,
    pub version: String,
    /// Where it stands, in a word.
    pub state: String,
    pub tone: Tone,
    /// The nodes that are in it.
    pub nodes: Vec<NodeInRollout>,
}

/// A node in a rollout.
#[derive(Clone, Debug)]
pub struct NodeInRollout {
    pub node: String,
    /// Where it stands, in a word or two.
    pub state: String,
    pub tone: Tone,
    /// Why, where that is to be said.
    pub reason: Option<String>,
    /// When it was told to stop, switched, and was healthy (or failed).
    pub times: Times,
}

/// When a node did what, by its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Its services were told to stop.
    pub stopped: Option<Timestamp>,
    /// The pointer had moved, and its services were started.
    pub switched: Option<Timestamp>,
    pub healthy: Option<Timestamp>,
    pub restored: Option<Timestamp>,
}

impl Times {
    fn all(&self) -> impl Iterator<Item = Timestamp> {
        [self.stopped, self.switched, self.healthy, self.restored].into_iter().flatten()
    }
}

/// The rollouts that have a column, newest last.
const COLUMNS_MAX: usize = 12;

/// The page of a fleet.
pub fn render(report: &FleetReport) -> String {
    let title = format!("fleet {}", report.name);
    let mut body = format!("<h1>{}</h1>\n", text(&title));
    body.push_str(&cards(report));
    for (number, rollout) in report.rollouts.iter().rev().enumerate() {
        body.push_str(&one_rollout(rollout, number == 0));
    }
    if report.older > 0 {
        body.push_str(&format!(
            "<p class=\"quiet small\">{} older: <code>cutover report --fleet DIR --rollouts {}</code> shows them all.</p>\n",
            if report.older == 1 { "1 rollout is".to_owned() } else { format!("{} rollouts are", report.older) },
            report.older + report.rollouts.len()
        ));
    }
    body.push_str("<h2>Nodes and releases</h2>\n");
    body.push_str(&matrix(report));
    page(&title, report.now, &body)
}

/// A rollout's part of the page; all but the newest are folded.
fn one_rollout(rollout: &Rollout, is_newest: bool) -> String {
    let head = format!(
        "Rollout {} to {} {}",
        rollout.number,
        text(&rollout.version),
        tag(rollout.tone, &rollout.state)
    );
    let inner = format!("{}{}", plot(rollout), states(rollout));
    if is_newest {
        format!("<h2>{head}</h2>\n{inner}")
    } else {
        format!("<details class=\"rollout\"><summary>{head}</summary>\n{inner}</details>\n")
    }
}

/// From so many nodes on, those that are alike are folded.
const FOLD_FROM: usize = 13;
/// With more groups than this reasons do not tell nodes apart.
const GROUPS_MAX: usize = 50;
/// From so many alike on, there is something to fold.
const ALIKE_MIN: usize = 4;

/// Nodes of a rollout that went the same way, for the same reason.
struct Alike<'r> {
    /// Those that are always seen: of the largest groups the first and the last to switch.
    seen: Vec<&'r NodeInRollout>,
    folded: Vec<&'r NodeInRollout>,
}

/// The nodes in groups, those that somebody should look at first.
fn alike(rollout: &Rollout) -> Vec<Alike<'_>> {
    if rollout.nodes.len() < FOLD_FROM {
        return vec![Alike { seen: rollout.nodes.iter().collect(), folded: Vec::new() }];
    }
    let by_reason = groups(rollout, |node| node.reason.as_deref().unwrap_or(""));
    // Where each has a reason of its own, those of one state are alike.
    let mut groups = if by_reason.len() > GROUPS_MAX { groups(rollout, |_| "") } else { by_reason };
    groups.sort_by_key(|group| group.first().map(|node| urgency(node.tone)));
    groups.into_iter().map(Alike::of).collect()
}

/// Those of one state, and of one reason, in the order in which they were first seen.
fn groups<'r>(
    rollout: &'r Rollout,
    reason: impl Fn(&'r NodeInRollout) -> &'r str,
) -> Vec<Vec<&'r NodeInRollout>> {
    let mut groups: Vec<Vec<&NodeInRollout>> = Vec::new();
    let mut known = HashMap::new();
    for node in &rollout.nodes {
        let key = (node.tone.class(), node.state.as_str(), reason(node));
        let place = *known.entry(key).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(node),
            None => groups.push(vec![node]),
        }
    }
    groups
}

fn urgency(tone: Tone) -> u8 {
    match tone {
        Tone::Bad => 0,
        Tone::Warn => 1,
        Tone::Calm => 2,
        Tone::Good => 3,
    }
}

impl<'r> Alike<'r> {
    fn of(group: Vec<&'r NodeInRollout>) -> Self {
        if group.len() < ALIKE_MIN {
            return Self { seen: group, folded: Vec::new() };
        }
        let switched = || group.iter().copied().filter(|node| node.times.switched.is_some());
        let ends = [
            switched().min_by_key(|node| node.times.switched).or(group.first().copied()),
            switched().max_by_key(|node| node.times.switched),
        ];
        let names = ends.map(|end| end.map(|node| node.node.clone()));
        let (seen, folded) =
            group.into_iter().partition(|node| names.iter().flatten().any(|name| *name == node.node));
        Self { seen, folded }
    }

    /// What is folded, behind a line that opens it.
    fn behind(&self, inner: impl Fn(&[&NodeInRollout]) -> String) -> String {
        let Some(one) = self.folded.first() else { return String::new() };
        let inner = if self.folded.len() > ROWS_MAX {
            format!("<p class=\"small\">{}</p>", listed(self.folded.iter().map(|node| node.node.as_str())))
        } else {
            inner(&self.folded)
        };
        format!(
            "<details><summary>{} more {}</summary>\n{inner}</details>\n",
            self.folded.len(),
            tag(one.tone, &one.state)
        )
    }
}

/// Names, however many: each has a bound, and all together have not.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(text).collect::<Vec<_>>().join(", ")
}

fn cards(report: &FleetReport) -> String {
    let mut versions: Vec<(&str, usize)> = Vec::new();
    for node in &report.nodes {
        let version = node.active.as_deref().unwrap_or("unknown");
        match versions.iter_mut().find(|(known, _)| *known == version) {
            Some((_, count)) => *count += 1,
            None => versions.push((version, 1)),
        }
    }
    versions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let split: Vec<String> =
        versions.iter().map(|(version, count)| format!("{count} on {version}")).collect();
    let mut html = "<div class=\"cards\">\n".to_owned();
    html.push_str(&card("nodes", &report.nodes.len().to_string(), ""));
    html.push_str(&card("they run", &split.join(", "), ""));
    if let Some(last) = report.rollouts.last() {
        let more = format!("<p>{}</p>", tag(last.tone, &last.state));
        html.push_str(&card(&format!("rollout {}", last.number), &last.version, &more));
        if let Some(skew) = spread(last.nodes.iter().filter_map(|node| node.times.switched)) {
            html.push_str(&card("first to last switch", &apart(skew), ""));
        }
    }
    html.push_str("</div>\n");
    html
}

/// From the first to the last of these moments, in milliseconds; `None` with fewer than two.
fn spread(moments: impl Iterator<Item = Timestamp>) -> Option<u64> {
    let moments: Vec<Timestamp> = moments.collect();
    let (first, last) = (moments.iter().min()?, moments.iter().max()?);
    (moments.len() > 1).then(|| millis_between(*first, *last))
}

/// How far two moments are apart, which are told in whole milliseconds.
fn apart(skew: u64) -> String {
    if skew == 0 { "under 1 ms".to_owned() } else { milliseconds(skew) }
}

fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

fn plot(rollout: &Rollout) -> String {
    let moments = || rollout.nodes.iter().flat_map(|node| node.times.all());
    let (Some(begin), Some(end)) = (moments().min(), moments().max()) else {
        return "<p class=\"quiet\">Nobody has switched.</p>\n".to_owned();
    };
    format!(
        "<div class=\"box\"><div class=\"legend\"><span><i class=\"solid-off\"></i>stopped</span>\
         <span><i class=\"solid-calm\"></i>new release, on trial</span>\
         <span><i class=\"solid-good\"></i>new release, healthy</span>\
         <span><i class=\"solid-warn\"></i>old release again</span></div>{}{}{}</div>\n",
        rows(rollout, begin, end, |node| text(&node.node)),
        more_rows(rollout, begin, end),
        skew_plot(rollout, begin, end)
    )
}

/// The switch, enlarged: how far the nodes were apart. Nothing where the whole plot shows it.
fn skew_plot(rollout: &Rollout, begin: Timestamp, end: Timestamp) -> String {
    const ENLARGED: u64 = 4;
    const SHORTEST: u64 = 2;
    let switched = || rollout.nodes.iter().filter_map(|node| node.times.switched);
    let (Some(first), Some(last)) = (switched().min(), switched().max()) else { return String::new() };
    let stopped = rollout.nodes.iter().filter_map(|node| node.times.stopped).min().unwrap_or(first);
    let margin = (millis_between(stopped, last) / 4).max(1);
    let until = last
        .checked_add(jiff::SignedDuration::from_millis(i64::try_from(margin).unwrap_or(0)))
        .unwrap_or(last);
    if switched().count() < 2
        || millis_between(stopped, last) < SHORTEST
        || millis_between(stopped, until) * ENLARGED > millis_between(begin, end)
    {
        return String::new();
    }
    let named = |node: &NodeInRollout| {
        let behind = node.times.switched.map(|at| format!(" +{}", milliseconds(millis_between(first, at))));
        format!("{}<small class=\"quiet\">{}</small>", text(&node.node), behind.unwrap_or_default())
    };
    format!(
        "<h3>The switch, enlarged: first to last {}</h3>\n{}",
        apart(millis_between(first, last)),
        rows(rollout, stopped, until, named)
    )
}

/// A bar for each node that is seen at first, from one moment to another.
fn rows(
    rollout: &Rollout,
    begin: Timestamp,
    end: Timestamp,
    named: impl Fn(&NodeInRollout) -> String,
) -> String {
    let seen: Vec<&NodeInRollout> = alike(rollout).into_iter().flat_map(|group| group.seen).collect();
    format!(
        "{}<div class=\"axis\"><span>first stop</span><span>+ {}</span></div>\n",
        bars(&seen, begin, end, named),
        milliseconds(millis_between(begin, end).max(1))
    )
}

/// So many folded nodes have rows; of more there are the names.
const ROWS_MAX: usize = 1000;

/// So many folded nodes have bars; of more the table tells enough.
const FOLDED_BARS_MAX: usize = 100;

/// The bars of those that are folded.
fn more_rows(rollout: &Rollout, begin: Timestamp, end: Timestamp) -> String {
    let groups = alike(rollout);
    let has_bars = |group: &&Alike<'_>| {
        group.folded.len() <= FOLDED_BARS_MAX
            && group.folded.iter().any(|node| node.times.all().next().is_some())
    };
    let plot = |nodes: &[&NodeInRollout]| bars(nodes, begin, end, |node| text(&node.node));
    groups.iter().filter(has_bars).map(|group| group.behind(plot)).collect()
}

/// A bar for each of these nodes that did anything.
fn bars(
    nodes: &[&NodeInRollout],
    begin: Timestamp,
    end: Timestamp,
    named: impl Fn(&NodeInRollout) -> String,
) -> String {
    let whole = millis_between(begin, end).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a share of a drawing")]
    let share = |at: Timestamp| millis_between(begin, at.clamp(begin, end)) as f64 / whole as f64;
    let row = |node: &NodeInRollout| {
        let times = node.times;
        let mut bar = String::new();
        let mut draw = |class: &str, from: Option<Timestamp>, to: Timestamp, what: &str| {
            if let Some(from) = from
                && from < end
                && to > begin
            {
                let hint = format!("{what} for {}", milliseconds(millis_between(from, to)));
                bar.push_str(&piece(class, share(from), share(to), "", &hint));
            }
        };
        draw("solid-off", times.stopped, times.switched.or(times.restored).unwrap_or(end), "stopped");
        let watched_until = times.healthy.or(times.restored).unwrap_or(end);
        draw("solid-calm", times.switched, watched_until, "new release, on trial");
        draw("solid-good", times.healthy, times.restored.unwrap_or(end), "new release, healthy");
        draw("solid-warn", times.restored, end, "old release again");
        format!(
            "<span>{}</span><div class=\"bar\" role=\"img\" aria-label=\"{}\">{bar}</div>\n",
            named(node),
            text(&describe(times, begin))
        )
    };
    let did = nodes.iter().filter(|node| node.times.all().next().is_some());
    format!("<div class=\"plot\">\n{}</div>\n", did.map(|node| row(node)).collect::<String>())
}

/// The same as the bar, in words.
fn describe(times: Times, begin: Timestamp) -> String {
    let after = |what: &str, at: Option<Timestamp>| {
        at.map(|at| format!("{what} after {}", milliseconds(millis_between(begin, at))))
    };
    let said: Vec<String> = [
        after("stopped", times.stopped),
        after("switched", times.switched),
        after("healthy", times.healthy),
        after("gone back", times.restored),
    ]
    .into_iter()
    .flatten()
    .collect();
    if said.is_empty() { "did not switch".to_owned() } else { said.join(", ") }
}

fn states(rollout: &Rollout) -> String {
    let first = rollout.nodes.iter().filter_map(|node| node.times.switched).min();
    let row = |node: &NodeInRollout| {
        let time = |label: &str, from: Option<Timestamp>, to: Option<Timestamp>| match (from, to) {
            (Some(from), Some(to)) => {
                let took = milliseconds(millis_between(from, to));
                format!("<td class=\"number\" data-label=\"{label}\">{took}</td>")
            }
            _ => "<td class=\"none\">&ndash;</td>".to_owned(),
        };
        vec![
            format!("<td>{}</td>", text(&node.node)),
            format!("<td>{}</td>", tag(node.tone, &node.state)),
            time("behind the first", first, node.times.switched),
            time("stop to switch", node.times.stopped, node.times.switched),
            time("switch to healthy", node.times.switched, node.times.healthy),
            format!("<td class=\"reason\">{}</td>", text(node.reason.as_deref().unwrap_or(""))),
        ]
    };
    let heads = ["node", "state", "behind the first", "stop to switch", "switch to healthy", "reason"];
    let table = |nodes: &[&NodeInRollout]| {
        stacking_table(&heads, &nodes.iter().map(|node| row(node)).collect::<Vec<_>>())
    };
    let groups = alike(rollout);
    let seen: Vec<&NodeInRollout> = groups.iter().flat_map(|group| group.seen.iter().copied()).collect();
    let folded: String = groups.iter().map(|group| group.behind(table)).collect();
    format!("<br>{}{folded}", table(&seen))
}

fn matrix(report: &FleetReport) -> String {
    let skipped = report.rollouts.len().saturating_sub(COLUMNS_MAX);
    let shown: Vec<&Rollout> = report.rollouts.iter().skip(skipped).collect();
    let mut heads = vec!["node".to_owned(), "runs".to_owned()];
    heads.extend(shown.iter().map(|rollout| format!("{}: {}", rollout.number, rollout.version)));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    // Nodes that ran the same, and had the same part in all rollouts, are one line.
    let mut lines: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
    let mut known = HashMap::new();
    let parts: Vec<HashMap<&str, &NodeInRollout>> = shown
        .iter()
        .map(|rollout| rollout.nodes.iter().map(|member| (member.node.as_str(), member)).collect())
        .collect();
    for node in &report.nodes {
        let mut cells =
            vec![format!("<td class=\"version\">{}</td>", text(node.active.as_deref().unwrap_or("?")))];
        cells.extend(parts.iter().map(|part| {
            part.get(node.name.as_str()).map_or("<td class=\"none\">&ndash;</td>".to_owned(), |member| {
                format!("<td>{}</td>", tag(member.tone, &member.state))
            })
        }));
        let place = match known.get(&cells) {
            Some(place) if report.nodes.len() >= FOLD_FROM => *place,
            Some(_) | None => lines.len(),
        };
        match lines.get_mut(place) {
            Some((_, names)) => names.push(node.name.as_str()),
            None => {
                known.insert(cells.clone(), place);
                lines.push((cells, vec![node.name.as_str()]));
            }
        }
    }
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|(cells, names)| {
            let name = match names.as_slice() {
                [one] => format!("<td>{}</td>", text(one)),
                many => format!(
                    "<td><details><summary>{} nodes</summary>{}</details></td>",
                    many.len(),
                    listed(many.iter().copied())
                ),
            };
            [name].into_iter().chain(cells).collect()
        })
        .collect();
    table(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap())
    }

    fn report() -> FleetReport {
        let member = |name: &str, tone, state: &str, times| NodeInRollout {
            node: name.to_owned(),
            state: state.to_owned(),
            tone,
            reason: None,
            times,
        };
        let kept = Times { stopped: at(0), switched: at(40), healthy: at(900), restored: None };
        let failed = Times { stopped: at(3), switched: at(52), healthy: None, restored: at(2000) };
        FleetReport {
            name: "shop-web".to_owned(),
            nodes: ["n1", "n2", "n3"]
                .map(|name| FleetNode { name: name.to_owned(), active: Some("1.0.0".to_owned()) })
                .to_vec(),
            rollouts: vec![Rollout {
                number: 17,
                version: "1.1.0".to_owned(),
                state: "rolled back".to_owned(),
                tone: Tone::Warn,
                nodes: vec![
                    member("n1", Tone::Warn, "went back", kept),
                    member("n2", Tone::Bad, "failed", failed),
                ],
            }],
            older: 0,
            now: at(5000).unwrap(),
        }
    }

    #[test]
    fn the_page_of_a_fleet_names_nodes_times_and_skew() {
        let html = render(&report());
        for wanted in ["fleet shop-web", "3 on 1.0.0", "first to last switch", "12 ms", "Rollout 17 to 1.1.0"]
        {
            assert!(html.contains(wanted), "{wanted}");
        }
        assert!(
            html.contains("The switch, enlarged: first to last 12 ms") && html.contains(" +12 ms"),
            "{html}"
        );
        assert!(html.contains("stopped after 3 ms, switched after 52 ms, gone back after 2.0 s"), "{html}");
    }

    #[test]
    fn a_fleet_before_its_first_rollout_has_a_page() {
        let html = render(&FleetReport { rollouts: Vec::new(), ..report() });
        assert!(html.contains("Nodes and releases") && !html.contains("Rollout"));
    }
}
