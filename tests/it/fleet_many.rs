//! Five hundred real processes in one rollout, killed at random: never more are out of service than may be, no cell is on two
//! releases, and all come to the end.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet_fire::Chance;
use crate::fleet_tools::told;

const SIZE: usize = 500;

/// Timers fire once in so long.
const TIMER: Duration = Duration::from_secs(30);

/// Nobody takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(1500);

/// So many processes are begun between two looks: the rest of the machine is to come to its turn, too.
const BEGUN_AT_ONCE: usize = 20;

/// Times that two cores can keep with so many processes.
const SLOW: &str = "poll = \"1s\"\nvisibility = \"1s\"\nlead = \"20s\"\nlate = \"20s\"\nstop = \"10s\"\ntrial = \"60s\"\n\
                    settle = \"20s\"\nback = \"5s\"\nio = \"10s\"\nvote = \"10m\"\nskew = \"5s\"\nmax_failed = 20";

/// Runs what the timers run, and kills, until the rollout has ended and nobody has anything left to do; beside it `person` types
/// what there is to be typed. How many were killed.
fn live_and_die(fleet: &Fleet, mut person: impl FnMut()) -> usize {
    let mut chance = Chance(42);
    let began = Instant::now();
    let (mut running, mut killed) = (BTreeMap::<usize, Child>::new(), 0);
    let mut wakes = vec![began; SIZE];
    loop {
        assert!(began.elapsed() < PATIENCE, "stuck: {}", fleet.why());
        let now = Instant::now();
        let due = (0..SIZE).filter(|number| !running.contains_key(number) && wakes[*number] <= now);
        for number in due.take(BEGUN_AT_ONCE).collect::<Vec<_>>() {
            running.insert(number, fleet.begin(number));
        }
        std::thread::sleep(Duration::from_millis(200));
        running.retain(|number, child| {
            let is_over = child.try_wait().unwrap().is_some();
            if is_over {
                wakes[*number] = Instant::now() + TIMER;
            }
            !is_over
        });
        let has_ended = fleet.decision(1, "outcome").exists();
        if has_ended && fleet.is_at_rest() {
            break;
        }
        person();
        let number = chance.below(SIZE);
        if !has_ended && let Some(mut child) = running.remove(&number) {
            drop((child.kill(), child.wait()));
            wakes[number] = Instant::now() + chance.milliseconds(200, 5000);
            killed += 1;
        }
    }
    for (_, mut child) in running {
        drop(child.wait());
    }
    eprintln!("{SIZE} processes: {killed} killed, all at rest after {:.0} s", began.elapsed().as_secs_f64());
    killed
}

fn members(fleet: &Fleet) -> Vec<Value> {
    let said = fleet.run(0, &["fleet", "status", "--json"]);
    let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{}", told(&said)));
    status["members"].as_array().unwrap().clone()
}

fn moment(member: &Value, key: &str) -> i64 {
    let text = member[key].as_str().unwrap_or_else(|| panic!("no `{key}`: {member}"));
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// How many of these spans were open at once, at the most.
fn most_at_once(spans: impl Iterator<Item = (i64, i64)>) -> usize {
    let mut steps: Vec<(i64, isize)> = spans.flat_map(|(from, to)| [(from, 1), (to, -1)]).collect();
    steps.sort_unstable();
    let mut open = 0;
    let counts = steps.into_iter().map(|(_, step)| {
        open += step;
        open
    });
    usize::try_from(counts.max().unwrap()).unwrap()
}

fn written(path: &std::path::Path) -> i64 {
    let modified: SystemTime = std::fs::metadata(path).unwrap().modified().unwrap();
    i64::try_from(modified.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
#[ignore = "minutes: `make test-fleet`"]
fn fleet_of_five_hundred_processes_in_one_rolling_rollout() {
    let at_once = 25;
    let fleet = Fleet::new(SIZE, "rolling", &format!("{SLOW}\nat_once = {at_once}"));
    fleet.propose("2");
    assert!(live_and_die(&fleet, || {}) > 0);
    assert_eq!(fleet.outcome().as_deref(), Some("kept"), "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
    // From its ticket until its report a node may be out of service, and in no other time it was.
    let tickets = std::fs::read_dir(fleet.decision(1, "outcome").parent().unwrap()).unwrap();
    let tickets = tickets.map(|entry| entry.unwrap().path());
    let is_ticket = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("t.");
    let mut taken = BTreeMap::new();
    for path in tickets.filter(is_ticket) {
        let text = std::fs::read_to_string(&path).unwrap();
        let said: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let node = said["node"].as_str().unwrap().to_owned();
        assert!(taken.insert(node, written(&path)).is_none(), "two tickets of one node: {text}");
    }
    let report = |node: &str| written(&fleet.share().join(format!("nodes/{node}/000001.report")));
    let spans = taken.iter().map(|(node, from)| (*from, report(node)));
    assert!(most_at_once(spans) <= at_once);
    for member in members(&fleet) {
        let node = member["node"].as_str().unwrap();
        let (from, to) = (taken[node], report(node));
        let (switched, healthy) = (moment(&member, "switched"), moment(&member, "healthy"));
        // The kernel's time of a file is a few milliseconds behind.
        assert!(from <= switched && healthy <= to + 20, "{from} {switched} {healthy} {to}: {member}");
    }
}

#[test]
#[ignore = "minutes: `make test-fleet`"]
fn fleet_of_fifty_cells_of_ten_processes() {
    let at_once = 10;
    let fleet = Fleet::new(SIZE, "cells", &format!("{SLOW}\nat_once = {at_once}"));
    let cells = (0..SIZE).map(|number| format!("n{number}=c{}", number / 10));
    let words: Vec<String> = cells.flat_map(|cell| ["--cell".to_owned(), cell]).collect();
    let words: Vec<&str> = ["fleet", "members"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let listed = fleet.run(0, &words);
    assert_eq!(listed.status.code(), Some(0), "{}", told(&listed));
    for number in 0..SIZE {
        fleet.stage(number, "3");
    }
    // One node on which the release is sick: its cell goes back as a whole, and alone.
    std::fs::write(fleet.path("sick-137"), "").unwrap();
    fleet.propose("3");
    // What has failed keeps the rollout open until somebody says to go on without it.
    let mut is_waived = false;
    live_and_die(&fleet, || {
        if !is_waived && fleet.decision(1, "outcome.c13").exists() {
            is_waived = true;
            for number in 130..140 {
                let waived = fleet.run(0, &["fleet", "waive", &format!("n{number}")]);
                assert_eq!(waived.status.code(), Some(0), "{}", told(&waived));
            }
        }
    });
    assert_eq!(fleet.outcome().as_deref(), Some("kept"), "{}", fleet.why());
    let members = members(&fleet);
    let mut cells = BTreeMap::<&str, Vec<(String, &Value)>>::new();
    for member in &members {
        let number: usize = member["node"].as_str().unwrap()[1..].parse().unwrap();
        cells.entry(member["cell"].as_str().unwrap()).or_default().push((fleet.active(number), member));
    }
    assert_eq!(cells.len(), SIZE / 10);
    for (cell, nodes) in &cells {
        assert!(
            nodes.iter().all(|(runs, _)| *runs == nodes[0].0),
            "cell {cell} is on two releases: {nodes:?}"
        );
    }
    assert_eq!(cells["c13"][0].0, "1", "{}", fleet.why());
    let good = || cells.iter().filter(|(_, nodes)| nodes[0].0 == "3");
    assert!(good().count() > 40, "{}", fleet.why());
    let span = |nodes: &[(String, &Value)]| {
        let all = |key| nodes.iter().map(move |(_, member)| moment(member, key));
        (all("switched").min().unwrap(), all("healthy").max().unwrap())
    };
    assert!(most_at_once(good().map(|(_, nodes)| span(nodes))) <= at_once);
}
