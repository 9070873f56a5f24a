//! A fault in the recovery from a fault: an update is killed before one change of the disk, its recovery before another
//! (or the disk has no room then, or fails, or a file of ours is damaged meanwhile), and the recovery after that must
//! bring the node to rest.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::node::{Health, TestNode, all_at_once, text};

/// How the recovery is disturbed.
const FAULTS: [&str; 3] = ["kill", "enospc", "eio"];
const CHANGES_MAX: usize = 400;

/// A node whose update to release 2 was killed before change `first`; `None` when it ended before.
fn killed_before(begin: &TestNode, first: usize) -> Option<TestNode> {
    let node = begin.copy();
    let archive = node.archive(2);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    let output = node.command(&words).env("CUTOVER_STOP_BEFORE", format!("{first}:kill")).output().unwrap();
    output.status.code().is_none().then_some(node)
}

/// How many changes an update to release 2 makes.
fn changes(begin: &TestNode) -> usize {
    let node = begin.copy();
    let (notes, archive) = (node.path("changes"), node.archive(2));
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    node.command(&words).env("CUTOVER_COUNT_CHANGES", &notes).output().unwrap();
    fs::read_to_string(&notes).unwrap().lines().count().min(CHANGES_MAX)
}

fn settles(node: &TestNode, is_sick: bool, what: &str) {
    let code = node.code(&["recover"]);
    assert!([0, 1, 10].contains(&code), "{what}: the last recovery ended with {code}");
    assert!(!node.has_journal(), "{what}: something is under way still");
    let active = node.active().unwrap();
    assert!(active == "1" || active == "2" && !is_sick, "{what}: release {active} runs");
    let records = fs::read_to_string(node.data().join("records")).unwrap_or_default();
    assert_eq!(records, "old", "{what}, release {active} runs");
    assert_eq!(node.code(&["verify"]), 0, "{what}");
}

/// Every `step`th pair of a change before which the update is killed, and one before which its recovery is disturbed.
fn survives(health: Health, steps: (usize, usize)) {
    let begin = TestNode::new(&[Health::Good, health]);
    assert_eq!(begin.update(1), 0);
    let pairs = AtomicUsize::new(0);
    let firsts: Vec<usize> = (0..changes(&begin)).step_by(steps.0).collect();
    all_at_once(&firsts, |first| {
        let first = *first;
        if !killed_before(&begin, first).is_some_and(|killed| killed.has_journal()) {
            return;
        }
        for second in (0..CHANGES_MAX).step_by(steps.1) {
            let fault = FAULTS[(first + second / steps.1) % FAULTS.len()];
            // Killed anew, not copied: a journal names the data by their path.
            let Some(node) = killed_before(&begin, first) else { break };
            let notes = node.path("changes");
            let stop = format!("{second}:{fault}");
            let mut command = node.command(&["recover"]);
            let output = command
                .env("CUTOVER_STOP_BEFORE", stop)
                .env("CUTOVER_COUNT_CHANGES", &notes)
                .output()
                .unwrap();
            let what = format!("killed before {first}, then {fault} before {second}");
            println!("{what}: {} {}", output.status, text(&output.stderr));
            settles(&node, health == Health::Sick, &what);
            pairs.fetch_add(1, Ordering::Relaxed);
            if fs::read_to_string(&notes).unwrap_or_default().lines().count() <= second {
                break;
            }
        }
    });
    let pairs = pairs.into_inner();
    println!("{pairs} pairs");
    assert!(pairs > 10, "only {pairs} pairs");
}

#[test]
fn a_recovery_that_is_disturbed_is_recovered_from() {
    survives(Health::Good, (7, 9));
}

#[test]
fn a_recovery_of_a_sick_release_that_is_disturbed_is_recovered_from() {
    survives(Health::Sick, (13, 17));
}

#[test]
#[ignore = "half an hour; run by `make test-crashes`"]
fn every_second_fault_is_survived_by_any_method() {
    survives(Health::Good, (1, 1));
    survives(Health::Sick, (1, 1));
    survives_damage(Health::Good, 1);
    survives_damage(Health::Sick, 1);
}

/// What cutover keeps of an update, and of its ends.
const FILES: [&str; 4] = ["journal.json", "state.json", "settings.json", "history.jsonl"];

/// Killed before every `step`th change, then one of our files is damaged: whatever is refused then leaves all as it is,
/// and goes on when the file was moved away.
fn survives_damage(health: Health, step: usize) {
    let begin = TestNode::new(&[Health::Good, health]);
    assert_eq!(begin.update(1), 0);
    let points = AtomicUsize::new(0);
    let firsts: Vec<usize> = (0..changes(&begin)).step_by(step).collect();
    all_at_once(&firsts, |first| {
        let first = *first;
        let Some(killed) = killed_before(&begin, first) else { return };
        let before = killed.active();
        for file in FILES {
            if !killed.has_journal() || !killed.root().join(".cutover").join(file).exists() {
                continue;
            }
            // Killed anew, not copied: a journal names the data by their path.
            let Some(node) = killed_before(&begin, first) else { break };
            let what = format!("killed before {first}, then {file} damaged");
            let path = node.root().join(".cutover").join(file);
            fs::write(&path, b"\0\0garbage").unwrap();
            let code = node.code(&["recover"]);
            assert!([0, 1, 10, 14].contains(&code), "{what}: recover says {code}");
            if code == 14 {
                assert_eq!(node.active(), before, "{what}: something was changed on a guess");
                fs::rename(&path, node.path("damaged")).unwrap();
            }
            // Without its journal nobody knows that a sick release was on trial.
            settles(&node, health == Health::Sick && file != "journal.json", &what);
            points.fetch_add(1, Ordering::Relaxed);
        }
    });
    let points = points.into_inner();
    println!("{points} points with a damaged file");
    assert!(points > 10, "only {points} points");
}

#[test]
fn a_file_that_is_damaged_in_an_update_is_refused_or_not_needed() {
    survives_damage(Health::Good, 11);
}

/// While data move back, the journal is there twice: a second fault that takes one leaves nothing half done.
#[test]
fn a_journal_that_is_lost_while_data_move_back_is_there_once_more() {
    let begin = TestNode::new(&[Health::Good, Health::Sick]);
    assert_eq!(begin.update(1), 0);
    let is_half_back = |first: usize| killed_before(&begin, first).filter(|node| !node.data().exists());
    let all = changes(&begin);
    let first = (all / 2..all).find(|first| is_half_back(*first).is_some()).unwrap();
    for is_gone in [false, true] {
        let node = killed_before(&begin, first).unwrap();
        let journal = node.root().join(".cutover/journal.json");
        if is_gone { fs::remove_file(journal) } else { fs::write(journal, "\0\0garbage") }.unwrap();
        assert_eq!(node.status()["state"], "rolling_back", "gone: {is_gone}");
        assert_eq!(node.code(&["recover"]), 10, "gone: {is_gone}");
        assert_eq!(node.active().as_deref(), Some("1"));
        settles(&node, true, &format!("gone: {is_gone}"));
        let left = fs::read_dir(node.root().join(".cutover")).unwrap().flatten();
        assert!(left.into_iter().all(|entry| entry.file_name() != "going-back.json"));
    }
}

/// A file that is damaged while an update is under way is told, and never guessed about; a person who moves it away can
/// go on.
#[test]
fn files_that_are_damaged_in_the_middle_are_refused_and_can_be_moved_away() {
    let begin = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(begin.update(1), 0);
    let killed = (0..CHANGES_MAX)
        .step_by(3)
        .filter_map(|first| killed_before(&begin, first))
        .find(|node| {
            let journal = fs::read_to_string(node.root().join(".cutover/journal.json")).unwrap_or_default();
            journal.contains("\"name\":\"trial\"")
        })
        .unwrap();
    for file in ["journal.json", "state.json", "settings.json", "history.jsonl"] {
        let node = killed.copy();
        let path = node.root().join(".cutover").join(file);
        fs::write(&path, b"\0\0garbage").unwrap();
        let code = node.code(&["recover"]);
        if ["settings.json", "history.jsonl"].contains(&file) {
            assert_eq!(code, 0, "{file}: what the update does not need stops nothing");
        } else {
            assert_eq!(code, 14, "{file}");
            assert_eq!(node.active().as_deref(), Some("2"), "{file}: nothing is changed on a guess");
            fs::rename(&path, node.path("damaged")).unwrap();
            assert!([0, 10].contains(&node.code(&["recover"])), "{file}");
        }
        assert!(!node.has_journal(), "{file}");
        assert!(node.active().is_some(), "{file}");
    }
}
