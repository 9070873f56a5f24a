//! Whoever does not take part says why, and what cannot work is told: to the fleet, to who asks, and in what is left of it.

use std::process::Stdio;

use cutover::coord::facts::names;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, set, told, wait_until};

/// What the fleet's status says of why it goes on or not.
fn why(fleet: &Fleet) -> String {
    told(&fleet.run(0, &["fleet", "status", "--why"]))
}

#[test]
fn a_member_whose_release_is_sick_says_so_to_the_fleet() {
    let fleet = Fleet::new(2, "synchronous", "");
    set(&fleet, 1, "baseline = \"off\"", "baseline = \"block\"");
    set(&fleet, 1, "\"-c\", \"", "\"-c\", \"false && ");
    fleet.propose("2");
    fleet.run(1, &["update", "--no-wait"]);
    let said = why(&fleet);
    assert!(said.contains("n1 does not take part yet") && said.contains("well"), "{said}");
}

#[test]
fn a_member_outside_of_its_window_says_so_to_the_fleet() {
    let fleet = Fleet::new(2, "synchronous", "");
    // Tomorrow, whatever day it is. The first of 1970 was a Thursday.
    let days = usize::try_from(jiff::Timestamp::now().as_second() / 86_400).unwrap();
    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days + 1) % 7];
    let window =
        format!("{{ days = [\"{day}\"], start = \"12:00\", length = \"60min\", timezone = \"UTC\" }}");
    set(&fleet, 1, "[policy]", &format!("[policy]\nwindows = [{window}]"));
    fleet.propose("2");
    let waits = fleet.run(1, &["update", "--no-wait"]);
    assert_eq!(code(&waits), 15, "{waits:?}");
    let said = why(&fleet);
    assert!(said.contains("n1 does not take part yet") && said.contains("window"), "{said}");
}

#[test]
fn services_that_stop_longer_than_the_fleet_waits_are_told_by_config_check() {
    let fleet =
        Fleet::new(1, "synchronous", "[service]\nunits = [\"shop.service\"]\nstop_timeout = \"5min\"");
    let said = told(&fleet.run(0, &["config", "check"]));
    assert!(said.contains("service.stop_timeout"), "{said}");
}

#[test]
fn a_member_whose_settings_name_another_fleet_says_so() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    set(&fleet, 1, "name = \"shop\"", "name = \"store\"");
    let update = fleet.run(1, &["update", "--no-wait"]);
    let said = told(&update);
    assert!(code(&update) != 0 && said.contains("shop") && said.contains("store"), "{update:?}");
}

#[test]
fn a_member_that_is_told_to_move_alone_says_so() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    set(&fleet, 1, "mode = \"synchronous\"", "mode = \"independent\"");
    let said = told(&fleet.run(1, &["update"]));
    assert!(said.contains("has joined a fleet"), "{said}");
}

#[test]
fn a_proposal_where_another_fleet_is_leaves_nothing_there() {
    let fleet = Fleet::new(2, "synchronous", "");
    std::fs::rename(fleet.share(), fleet.path("real")).unwrap();
    std::fs::create_dir(fleet.share()).unwrap();
    std::fs::rename(fleet.root(0).join(".cutover/fleet.json"), fleet.path("kept")).unwrap();
    assert_eq!(code(&fleet.run(0, &["fleet", "init"])), 0);
    fleet.run(1, &["fleet", "propose", "2"]);
    let lists = fleet.share().join(names::MEMBERS);
    assert!(std::fs::read_dir(lists).unwrap().next().is_none(), "it has made a list of nobody");
}

#[test]
fn who_waives_in_a_rollout_that_has_ended_is_told_that_it_has() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    assert_eq!(code(&fleet.run(0, &["fleet", "abort"])), 0);
    let waived = fleet.run(0, &["fleet", "waive", "n1"]);
    assert!(code(&waived) != 0 && !told(&waived).contains("goes on"), "{waived:?}");
}

#[test]
fn whatever_stands_at_a_gate_an_operator_ends_the_rollout() {
    let ways = [&["fleet", "abort"][..], &["fleet", "propose", "2", "--supersede"]];
    let codes = ways.map(|words| {
        let fleet = Fleet::new(1, "synchronous", "");
        fleet.propose("2");
        std::fs::write(fleet.decision(1, "plan"), "").unwrap();
        code(&fleet.run(0, words))
    });
    assert_eq!(codes, [0, 0]);
}

/// Whatever came of stopping it.
#[test]
fn what_stands_beside_an_empty_gate_is_not_kept_for_ever() {
    let fleet = Fleet::new(2, "synchronous", "");
    for version in ["2", "3"] {
        (0..2).for_each(|number| fleet.stage(number, version));
        fleet.propose(version);
        assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    }
    std::fs::write(fleet.decision(1, "plan"), "").unwrap();
    let stopped = fleet.run(0, &["fleet", "abort", "1"]);
    let gone = fleet.run(0, &["fleet", "gc", "--older", "0s", "--keep", "1", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!(value["rollouts"], serde_json::json!([1]), "{stopped:?}: {gone:?}");
}

/// The end has nothing of it, since nobody could write it down: each that went back says why.
#[test]
fn why_all_went_back_is_told_where_storage_takes_no_word_of_it() {
    let fleet = Fleet::new(2, "synchronous", "");
    let Some(disk) = fleet.with_own_disk() else {
        eprintln!("SKIPPED why_all_went_back_is_told_where_storage_takes_no_word_of_it: no right to mount");
        return;
    };
    (0..2).for_each(|number| set(&fleet, number, "min_healthy = \"300ms\"", "min_healthy = \"5s\""));
    fleet.propose("2");
    let begin = |number| {
        let mut update = fleet.command(number, &["update"]);
        update.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [begin(0), begin(1)];
    wait_until(&fleet, "all may switch", || fleet.decision(1, "go").exists());
    wait_until(&fleet, "it is full", || disk.fill());
    for child in both {
        drop(child.wait_with_output().unwrap());
    }
    disk.mend();
    assert_eq!(fleet.live(calm), "rolled back", "{}", fleet.why());
    let report = told(&fleet.run(0, &["fleet", "report", "--json"]));
    assert!(report.contains("No space left") || report.contains("not written"), "{report}");
}
