//! Rollouts of cells, by real processes: the nodes of a cell switch together, and cells take turns.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use cutover::coord::facts::{self, Fact, names};
use cutover::coord::look::{Signer, seal_signed};
use cutover::lifecycle::fleet::KeyFile;
use cutover::types::Digest;

use super::fleet::{Fleet, Nodes, calm};
use super::fleet_tools::{code, set, told, wait_until};

/// Four nodes in two cells: n0 and n1 are `east`, n2 and n3 `west`.
fn two_cells(settings: &str) -> Fleet {
    let fleet = Fleet::new(4, "cells", settings);
    let mut words = vec!["fleet", "members"];
    for cell in ["n0=east", "n1=east", "n2=west", "n3=west"] {
        words.extend(["--cell", cell]);
    }
    let listed = fleet.run(0, &words);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    fleet
}

fn status(fleet: &Fleet) -> Value {
    let said = fleet.run(0, &["fleet", "status", "--json"]);
    serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

/// When the members of a cell switched, and reported that all is well, in milliseconds.
fn moments(status: &Value, cell: &str, key: &str) -> Vec<i64> {
    let members = status["members"].as_array().unwrap().iter().filter(|member| member["cell"] == cell);
    let moment = |member: &Value| -> jiff::Timestamp { member[key].as_str().unwrap().parse().unwrap() };
    members.map(|member| moment(member).as_millisecond()).collect()
}

#[test]
fn cells_take_turns_and_each_switches_as_a_whole() {
    let fleet = two_cells("");
    fleet.propose("2");
    let mut pairs = BTreeSet::new();
    let outcome = fleet.live(|_: &mut Nodes| {
        let all: Vec<String> = (0..4).map(|number| fleet.active(number)).collect();
        pairs.insert(all);
    });
    assert_eq!(outcome, "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
    let status = status(&fleet);
    let (east, west) = (moments(&status, "east", "switched"), moments(&status, "west", "switched"));
    for cell in [&east, &west] {
        assert!((cell[0] - cell[1]).abs() < 4000, "a cell did not switch together: {status:#}");
    }
    // One at once: the second began after all of the first were healthy.
    let (first, second) = if east < west { ("east", &west) } else { ("west", &east) };
    let healthy = moments(&status, first, "healthy").into_iter().max().unwrap();
    assert!(second.iter().all(|switched| *switched >= healthy), "{status:#}");
    let cells: Vec<_> = status["cells"].as_array().unwrap().iter().map(|cell| &cell["state"]).collect();
    assert_eq!(cells, ["has it", "has it"], "{status:#}");
}

#[test]
fn what_a_node_says_is_told_of_that_node_whatever_the_order_of_the_cells() {
    let fleet = Fleet::new(4, "cells", "");
    let mut words = vec!["fleet", "members"];
    for cell in ["n0=west", "n1=east", "n2=west", "n3=east"] {
        words.extend(["--cell", cell]);
    }
    assert_eq!(fleet.run(0, &words).status.code(), Some(0));
    fleet.propose("2");
    assert_eq!(fleet.run(1, &["hold", "--reason", "a night of work"]).status.code(), Some(0));
    let _ = fleet.run(1, &["update", "--no-wait"]);
    let status = status(&fleet);
    let notes = status["members"].as_array().unwrap().iter();
    let noted: Vec<_> = notes.filter(|member| member["note"].as_str().unwrap().contains("not yet")).collect();
    assert!(noted.len() == 1 && noted[0]["node"] == "n1", "{status:#}");
}

#[test]
fn a_cell_that_fails_goes_back_as_a_whole_and_alone() {
    // `east` is first, by one of its nodes.
    let fleet = two_cells("waves = [{ nodes = [\"n1\"] }]");
    for number in 0..4 {
        fleet.stage(number, "3");
    }
    fleet.propose("3");
    std::fs::write(fleet.path("sick-3"), "").unwrap();
    assert_eq!(fleet.live(calm), "halted", "{}", fleet.why());
    let all: Vec<String> = (0..4).map(|number| fleet.active(number)).collect();
    assert_eq!(all, ["3", "3", "1", "1"], "{}", fleet.why());
    assert!(fleet.reason().contains("cell west went back: n3 failed"), "{}", fleet.reason());
    // What a cell has kept it keeps: nobody follows, and nobody goes back.
    for number in 0..4 {
        let done = fleet.run(number, &["update"]);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
    }
    let after: Vec<String> = (0..4).map(|number| fleet.active(number)).collect();
    assert_eq!(after, all, "{}", fleet.why());
}

#[test]
fn a_rollout_goes_on_without_a_cell_that_went_back_when_each_of_its_nodes_is_waived() {
    let fleet = two_cells("max_failed = 2");
    for number in 0..4 {
        fleet.stage(number, "3");
    }
    fleet.propose("3");
    std::fs::write(fleet.path("sick-3"), "").unwrap();
    let mut has_waived = false;
    let outcome = fleet.live(|_: &mut Nodes| {
        if !has_waived && fleet.decision(1, "outcome.west").exists() {
            has_waived = true;
            for node in ["n2", "n3"] {
                assert_eq!(fleet.run(0, &["fleet", "waive", node]).status.code(), Some(0));
            }
        }
    });
    assert_eq!(outcome, "kept", "{}", fleet.why());
    let all: Vec<String> = (0..4).map(|number| fleet.active(number)).collect();
    assert_eq!(all[..2], ["3", "3"], "{}", fleet.why());
}

#[test]
fn a_cell_whose_turn_was_called_off_gets_another_one_by_the_command_that_is_named() {
    let fleet = two_cells("");
    fleet.propose("2");
    let is_voted = |number: usize| status(&fleet)["members"][number]["state"] == "voted";
    let mut told_of = None;
    // n3 votes for the second cell, and is away when that cell has its turn.
    let outcome = fleet.live(|nodes: &mut Nodes| {
        let (first, last) = if fleet.active(0) == "2" { (0, 3) } else { (3, 0) };
        if told_of.is_none() && nodes.off.is_empty() && fleet.active(first) == "2" && is_voted(last) {
            nodes.off.insert(last);
            if let Some(mut child) = nodes.running.remove(&last) {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        let waits_for = status(&fleet)["waits_for"].to_string();
        if told_of.is_none() && waits_for.contains("had a turn") {
            nodes.off.clear();
            assert_eq!(code(&fleet.run(0, &["fleet", "propose", "2", "--supersede"])), 0);
            told_of = Some(waits_for);
        }
    });
    assert_eq!(outcome, "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
    assert!(told_of.unwrap().contains("`cutover fleet propose 2 --supersede` gives it another one"));
}

#[test]
fn a_cell_begins_when_all_its_nodes_are_ready_and_nobody_waits_for_it_before() {
    let fleet = two_cells("");
    fleet.propose("2");
    let mut has_waited = false;
    let outcome = fleet.live(|nodes: &mut Nodes| {
        let is_west_done = fleet.active(2) == "2" && fleet.active(3) == "2";
        // n1 comes when the other cell is through.
        if is_west_done {
            nodes.off.clear();
        } else {
            nodes.off.insert(1);
            if let Some(mut child) = nodes.running.remove(&1) {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            has_waited |= fleet.active(0) == "1";
            assert_eq!(fleet.active(0), "1", "half of a cell has moved: {}", fleet.why());
        }
        std::thread::sleep(Duration::from_millis(100));
    });
    assert_eq!((outcome.as_str(), has_waited), ("kept", true), "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn an_operator_brings_the_cell_back_that_is_at_work_and_begins_no_other() {
    for (word, end) in [("abort", "halted"), ("void", "void")] {
        let fleet = two_cells("waves = [{ nodes = [\"n0\"] }]");
        fleet.propose("2");
        let mut has_stopped = false;
        let outcome = fleet.live(|_: &mut Nodes| {
            if !has_stopped && fleet.active(0) == "2" && fleet.active(1) == "2" {
                let stopped = fleet.run(0, &["fleet", word]);
                assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
                has_stopped = true;
            }
        });
        assert_eq!((outcome.as_str(), has_stopped), (end, true), "{word}: {}", fleet.why());
        assert_eq!(fleet.all_run(), ["1"], "{word}: {}", fleet.why());
    }
}

#[test]
fn what_cannot_move_in_cells_is_said_before_anything_is_proposed() {
    let fleet = Fleet::new(3, "cells", "");
    let said = |words: &[&str]| {
        let done = fleet.run(0, words);
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, text) = said(&["fleet", "propose", "2"]);
    assert!(code == Some(1) && text.contains("in no cell: n0, n1, n2"), "{code:?}: {text}");
    let words = ["fleet", "members", "--cell", "n0=a", "--cell", "n1=a", "--cell", "n2=b"];
    assert_eq!(said(&words).0, Some(0));
    let (code, text) = said(&["fleet", "propose", "2", "--only", "n0"]);
    assert!(code == Some(1) && text.contains("cell a moves as a whole") && text.contains("n1"), "{text}");
    // An older cutover would take the proposal for damaged, and its cell would never be ready.
    let alive = fleet.share().join("nodes/n2/alive");
    let text = std::fs::read_to_string(&alive).unwrap();
    std::fs::write(&alive, text.replace("\"cells\"", "\"something\"")).unwrap();
    let (code, text) = said(&["fleet", "propose", "2"]);
    assert!(code == Some(1) && text.contains("does not know `mode = \"cells\"`: n2"), "{code:?}: {text}");
    let (code, text) = said(&["fleet", "members", "--cell", "n9=a"]);
    assert!(code == Some(1) && text.contains("`n9` is no member"), "{code:?}: {text}");
    let (code, text) = said(&["fleet", "members", "--cell", "n0"]);
    assert!(code == Some(2) && text.contains("web-1=ams-2"), "{code:?}: {text}");
}

#[test]
fn a_signed_turn_is_taken_by_a_node_of_the_cell_and_by_nobody_else() {
    let fleet = two_cells("facts = \"signed\"");
    fleet.propose("2");
    // A node of the other cell takes a turn for `east`, which would have it out of service for ever.
    let proposal = std::fs::read(fleet.share().join(names::proposal(1))).unwrap();
    let path = fleet.decision(1, "t.0000");
    let ticket = Fact::Ticket(facts::Ticket {
        rollout: 1,
        proposal: Digest::of(&proposal),
        ticket: 0,
        node: "east".parse().unwrap(),
        instance: String::new(),
        back: false,
        row: 0,
        at: None,
        turn_ms: None,
        before: vec![],
    });
    let name = path.strip_prefix(fleet.share()).unwrap().to_str().unwrap().to_owned();
    let key = KeyFile(fleet.root(2).join(".cutover/fleet.key"));
    std::fs::write(&path, seal_signed(&name, &ticket, Some(&key as &dyn Signer)).unwrap()).unwrap();
    let mut looks = 0;
    let outcome = fleet.live(|_: &mut Nodes| {
        looks += 1;
        // The place that it holds is nobody's, until an operator says so.
        if looks < 30 {
            assert_eq!(fleet.all_run(), ["1"], "{}", fleet.why());
        } else if looks == 30 {
            let waived = fleet.run(0, &["fleet", "waive", "--ticket", "0"]);
            assert_eq!(waived.status.code(), Some(0), "{waived:?}");
        }
    });
    assert_eq!(outcome, "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn the_outcome_of_a_cell_is_carried_to_its_node_that_is_cut_off() {
    let fleet = two_cells("waves = [{ nodes = [\"n0\"] }]");
    set(&fleet, 0, "min_healthy = \"300ms\"", "min_healthy = \"4s\"");
    fleet.propose("2");
    let mut all: Vec<_> = (0..4).map(|number| fleet.begin(number)).collect();
    let report = fleet.share().join("nodes/n1/000001.report");
    wait_until(&fleet, "n1 has vouched", || report.exists());
    fleet.unplug(1);
    wait_until(&fleet, "its cell keeps it", || fleet.decision(1, "outcome.east").exists());
    let file = fleet.path("carried");
    std::fs::write(&file, fleet.run(0, &["fleet", "export"]).stdout).unwrap();
    let imported = fleet.run(1, &["fleet", "import", file.to_str().unwrap()]);
    assert!(code(&imported) == 0 && told(&imported).contains("outcome.east"), "{imported:?}");
    all.remove(1).wait().unwrap();
    let history = std::fs::read_to_string(fleet.root(1).join(".cutover/history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains("\"committed\""), "{history}");
    fleet.plug(1);
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    all.iter_mut().for_each(|child| drop(child.wait()));
    assert_eq!(fleet.all_run(), ["2"]);
}
