//! Pages of made-up nodes and fleets, of all sizes and with long names: small enough, with everything on them. With
//! `CUTOVER_PAGES` set they are written there, to be looked at in a browser.

use std::{env, fs};

use jiff::{SignedDuration, Timestamp};

use super::fleet::{self, FleetNode, FleetReport, NodeInRollout, Rollout, Times};
use super::node::{self, NodeReport};
use super::page::Tone;
use crate::types::state::{Bad, HistoryEntry, Hold, Installed, Outcome, State};
use crate::types::{Digest, ReleaseId, Version};

const NOW_S: i64 = 1_790_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW_S + seconds).unwrap()
}

fn version(name: &str) -> Version {
    name.parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "for a person to look at, no file of a node")]
fn write(name: &str, html: &str) {
    if let Some(directory) = env::var_os("CUTOVER_PAGES") {
        fs::write(std::path::Path::new(&directory).join(name), html).unwrap();
    }
}

/// A number that only looks random.
fn scattered(seed: usize, below: usize) -> i64 {
    i64::try_from((seed.wrapping_mul(2_654_435_761) >> 7) % below).unwrap()
}

#[derive(Clone, Copy)]
enum Story {
    Kept,
    RolledBack,
    Halted,
    UnderWay,
}

fn rollout(number: u64, version: &str, names: &[String], story: Story) -> Rollout {
    let begin = at(-86_400 * (60 - i64::try_from(number).unwrap()));
    let sick = names.len() / 2;
    let after = |ms: i64| Some(begin.checked_add(SignedDuration::from_millis(ms)).unwrap());
    let member = |(place, name): (usize, &String)| {
        let switched = 1200 + scattered(place + 3, 240);
        let kept = Times {
            stopped: after(scattered(place, 9)),
            switched: after(switched),
            healthy: after(switched + 31_000 + scattered(place + 7, 2500)),
            restored: None,
        };
        let gone_back =
            Times { healthy: None, restored: after(switched + 9000 + scattered(place, 900)), ..kept };
        let why = "`web`: status 503 instead of 200, three times";
        let (state, tone, reason, times) = match story {
            Story::Kept if place == 5 => {
                ("by hand", Tone::Warn, Some("rolled back by anna: wrong prices"), kept)
            }
            Story::Kept => ("kept", Tone::Good, None, kept),
            Story::RolledBack | Story::Halted if place == sick => ("failed", Tone::Bad, Some(why), gone_back),
            Story::RolledBack => ("went back", Tone::Warn, None, gone_back),
            Story::Halted | Story::UnderWay if place < sick => ("kept", Tone::Good, None, kept),
            Story::UnderWay if place == sick => {
                ("on trial", Tone::Calm, None, Times { healthy: None, ..kept })
            }
            Story::Halted | Story::UnderWay => ("silent", Tone::Calm, None, Times::default()),
        };
        let (state, reason) = (state.to_owned(), reason.map(ToOwned::to_owned));
        NodeInRollout { node: name.clone(), state, tone, reason, times }
    };
    let (state, tone) = match story {
        Story::Kept => ("kept", Tone::Good),
        Story::RolledBack => ("rolled back", Tone::Warn),
        Story::Halted => ("halted", Tone::Bad),
        Story::UnderWay => ("open", Tone::Calm),
    };
    let nodes = names.iter().enumerate().map(member).collect();
    Rollout { number, version: version.to_owned(), state: state.to_owned(), tone, nodes }
}

fn fleet_of(size: usize, name: &str, rollouts: &[(&str, Story)]) -> FleetReport {
    let names: Vec<String> = (1..=size)
        .map(|number| match size {
            0..100 => format!("n{number:02}"),
            _ => format!("shop-web-eu-central-1-rack-{:02}-node-{number:04}.example.internal", number % 37),
        })
        .collect();
    let rollouts: Vec<Rollout> = (1..)
        .zip(rollouts)
        .map(|(number, (version, story))| rollout(number, version, &names, *story))
        .collect();
    let active = |place: usize| {
        let kept = rollouts.iter().rev().find(|rollout| rollout.nodes[place].tone == Tone::Good);
        kept.map(|rollout| rollout.version.clone())
    };
    let nodes = names.iter().enumerate();
    let nodes = nodes.map(|(place, name)| FleetNode { name: name.clone(), active: active(place) }).collect();
    FleetReport { name: name.to_owned(), nodes, rollouts, older: if size > 3 { 48 } else { 0 }, now: at(0) }
}

const LONG: &str = "2026.11.26-rc1+build.20261126.git.0123456789abcdef0123456789abcdef01234567";

#[test]
fn pages_of_fleets_of_all_sizes_have_everything_and_stay_small() {
    let stories = [
        ("1.0.0", Story::Kept),
        ("1.1.0", Story::RolledBack),
        ("1.1.1", Story::Kept),
        ("1.2.0", Story::Halted),
        (LONG, Story::UnderWay),
    ];
    for (size, name, stories, kib_max) in [
        (3, "shop-web", &stories[..3], 40),
        (60, "shop-web", &stories[..], 300),
        (60, "kept", &stories[..1], 80),
        (1000, "the-fleet-of-all-shops-of-the-example-company-in-central-europe", &stories[..], 5000),
    ] {
        let html = fleet::render(&fleet_of(size, name, stories));
        write(&format!("fleet-{size}-{}.html", stories.len()), &html);
        assert!(html.len() < kib_max * 1024, "{size} nodes: {} KiB", html.len() / 1024);
        for (number, (version, _)) in stories.iter().enumerate() {
            assert!(html.contains(&format!("Rollout {} to {version}", number + 1)), "{size}: {version}");
        }
        let first_bar = html.find("class=\"bar\"").unwrap();
        assert!(html.find("class=\"legend\"").unwrap() < first_bar, "the legend comes after a bar");
        // What is seen at first, before anybody opens anything.
        let mut seen = html.clone();
        while let Some(begin) = seen.rfind("<details") {
            let end = begin + seen[begin..].find("</details>").unwrap() + "</details>".len();
            seen.replace_range(begin..end, "");
        }
        assert!(seen.matches("class=\"bar\"").count() <= 16, "{size}: too much at once");
    }
}

fn entry(day: i64, from: Option<&str>, to: &str, outcome: Outcome, reason: Option<&str>) -> HistoryEntry {
    HistoryEntry {
        at: at(86_400 * day),
        transaction: format!("0{day}-t"),
        outcome,
        from: from.map(version),
        to: version(to),
        digest: Digest::of(to.as_bytes()),
        reason: reason.map(ToOwned::to_owned),
        exit_code: if outcome == Outcome::Committed { 0 } else { 10 },
        downtime_ms: Some(592),
        unanswered_ms: Some(8353),
        took_ms: 42_300,
        rollout: None,
        by: "timer".to_owned(),
        before: std::collections::BTreeMap::new(),
    }
}

#[test]
fn the_page_of_a_node_names_what_was_adopted_and_titles_every_part() {
    let release = |name: &str| ReleaseId { version: version(name), digest: Digest::of(name.as_bytes()) };
    let committed = |name: &str, day: i64| Installed {
        release: release(name),
        serial: None,
        since: at(86_400 * day),
        transaction: None,
        data: Vec::new(),
    };
    let history = vec![
        entry(-1, Some("1.3.0"), LONG, Outcome::Refused, Some("`web` fails already under release 1.3.0")),
        entry(-2, Some("1.2.1"), "1.3.0", Outcome::Committed, None),
        entry(-9, Some("1.2.0"), "1.2.1", Outcome::Committed, None),
        entry(
            -10,
            Some("1.2.0"),
            "1.3.0-rc1",
            Outcome::RolledBack,
            Some("by anna: the new prices are wrong"),
        ),
        entry(-11, Some("1.2.0"), "1.3.0-rc1", Outcome::Committed, None),
        entry(
            -20,
            Some("1.2.0"),
            "1.2.5",
            Outcome::RolledBack,
            Some("`web`: status 503 instead of 200, 3 times"),
        ),
        entry(-40, Some("adopted"), "1.2.0", Outcome::Committed, None),
    ];
    let state = State {
        committed: Some(committed("1.3.0", -2)),
        previous: Some(committed("1.2.1", -9)),
        earlier: vec![committed("1.2.0", -40), committed("adopted", -47)],
        hold: Some(Hold { since: at(0), until: None, reason: "the sale".into(), by: "anna".into() }),
        bad: vec![Bad {
            release: release("1.2.5"),
            reason: "`web`: status 503 instead of 200".into(),
            since: at(0),
        }],
        ..State::default()
    };
    let report = NodeReport {
        app: "shop".into(),
        node: "shop-web-eu-central-1-rack-07-node-0042.example.internal".into(),
        active: Some(version("1.3.0")),
        state,
        history,
        now: at(0),
    };
    let html = node::render(&report);
    write("node.html", &html);
    for part in ["adopted from", "1.3.0-rc1 from", "rolled back: 1.2.5 at"] {
        assert!(html.contains(&format!("title=\"{part}")), "{part}");
    }
}
