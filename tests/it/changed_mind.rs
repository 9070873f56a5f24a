//! A rollback while another way back, or a trial, is under way: whatever is wanted then, no release meets data of two.

use std::fs;

use crate::node::{Health, TestNode, all_at_once, text};

/// A second path of data.
fn second(node: &TestNode) -> std::path::PathBuf {
    node.root().join("second")
}

/// Releases 1, 2 and 3 one after the other, each of which has written both data. Each start is noted: the release, and whose
/// data it meets.
fn three(healths: &[Health]) -> TestNode {
    let node = TestNode::new(healths);
    fs::create_dir(second(&node)).unwrap();
    let (one, two, starts) = (node.data(), second(&node), node.path("starts"));
    let look = format!("cat VERSION; echo; cat {}/records {}/records", one.display(), two.display());
    node.add(&format!(
        "[[data]]\npath = '{}'\non_rollback = 'restore'\n[service.command]\nstart = 'echo $({look} 2>&1) >>{}'\n\
         stop = 'true'\n",
        two.display(),
        starts.display(),
    ));
    for number in 1..=3 {
        write(&node, number - 1);
        assert_eq!(node.update(number), 0);
    }
    write(&node, 3);
    fs::remove_file(starts).unwrap();
    node
}

fn write(node: &TestNode, number: u32) {
    for directory in [node.data(), second(node)] {
        fs::write(directory.join("records"), format!("{number}\n")).unwrap();
    }
}

fn starts(node: &TestNode) -> Vec<String> {
    let noted = fs::read_to_string(node.path("starts")).unwrap_or_default();
    noted.lines().map(str::to_owned).collect()
}

/// Begins to go back from 3 to 2, and is killed before this change. `None`: it ended before.
fn killed_before(begin: &TestNode, change: usize) -> Option<TestNode> {
    let node = begin.copy();
    let stopped = node.command(&["rollback"]).env("CUTOVER_STOP_BEFORE", format!("{change}:kill")).output();
    (stopped.unwrap().status.code().is_none() && node.has_journal()).then_some(node)
}

#[test]
fn what_is_wanted_of_an_interrupted_rollback_never_mixes_data() {
    let begin = three(&[Health::Good; 3]);
    let whole = begin.copy();
    let notes = whole.path("changes");
    assert!(whole.command(&["rollback"]).env("CUTOVER_COUNT_CHANGES", &notes).status().unwrap().success());
    let changes = fs::read_to_string(&notes).unwrap().lines().count();
    let wishes: [&[&str]; 5] = [
        &["rollback"],
        &["rollback", "--data", "keep"],
        &["rollback", "1"],
        &["rollback", "2"],
        &["rollback", "3"],
    ];
    let cases: Vec<_> = (0..changes).flat_map(|change| wishes.map(|wish| (change, wish))).collect();
    let refused = std::sync::Mutex::new(std::collections::BTreeSet::new());
    all_at_once(&cases, |(change, wish)| {
        let Some(node) = killed_before(&begin, *change) else { return };
        let what = format!("killed before change {change}, then {wish:?}");
        let before = starts(&node).len();
        let output = node.run(wish);
        let said = text(&output.stderr);
        match output.status.code() {
            Some(0) => assert!(!node.has_journal(), "{what}: {said}"),
            Some(2) => {
                assert_eq!(starts(&node).len(), before, "{what}: refused, and something was started");
                assert!(said.contains("hint: `cutover r"), "{what}: {said}");
                refused.lock().unwrap().insert(wish.join(" "));
                assert_eq!(node.code(&["recover"]), 0, "{what}");
            }
            // The way back has ended, but for what is remembered.
            Some(1) => assert!(said.contains("is active already") && wish.contains(&"2"), "{what}: {said}"),
            code => panic!("{what}: {code:?}: {said}"),
        }
        // Only where it was said that newer data stay as they are, an older release meets them; and a newer one goes on
        // from those of the older.
        let (all, active) = (starts(&node), node.active().unwrap());
        for start in &all {
            let [release, one, two] = *start.split(' ').collect::<Vec<_>>() else {
                panic!("{what}: {start}")
            };
            assert_eq!(one, two, "{what}: {all:?}");
            let may_differ = wish.contains(&"keep") || wish.contains(&"3") && release == "3";
            assert!(release == one || may_differ, "{what}: {all:?}");
        }
        assert!(wish.len() > 1 || active == "2", "{what}: one step became two, to {active}");
        assert!(all.last().is_none_or(|last| last.starts_with(&active)), "{what}: {all:?}");
    });
    let refused = refused.into_inner().unwrap();
    let wanted = ["rollback --data keep", "rollback 1", "rollback 3"].map(str::to_owned);
    assert_eq!(refused, wanted.into());
}

#[test]
fn a_rollback_to_the_release_on_trial_is_refused_and_the_trial_goes_on() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let node = node.with_trial(15);
    let archive = node.archive(2);
    let mut update =
        node.command(&["update", archive.to_str().unwrap(), "--allow-unsigned"]).spawn().unwrap();
    node.wait_for_journal("\"name\":\"trial\"");
    let is_refused = || {
        let refused = node.run(&["rollback", "2"]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("`cutover rollback` without a version"), "{said}");
        assert_eq!(node.status()["state"], "trial", "{said}");
    };
    is_refused();
    update.kill().unwrap();
    update.wait().unwrap();
    // Also when nobody works on it any more.
    is_refused();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(node.active().as_deref(), Some("1"));
}

/// As troubleshooting says: the release that came back is not healthy either, and another one is named.
#[test]
fn from_a_release_that_came_back_sick_another_way_leads_with_its_own_data() {
    let node = three(&[Health::Good; 3]);
    fs::remove_file(node.root().join("releases/2/well")).unwrap();
    assert_eq!(node.code(&["rollback"]), 14);
    assert_eq!(node.active().as_deref(), Some("2"));
    assert_eq!(node.code(&["rollback", "--data", "keep"]), 2, "its data are back");
    write(&node, 2);
    assert_eq!(node.code(&["rollback", "1"]), 0);
    assert_eq!(starts(&node).last().map(String::as_str), Some("1 1 1"));
    let status = node.status();
    assert_eq!((&status["needs_person"], &status["state"]), (&serde_json::Value::Null, &"idle".into()));
    // What either release wrote is set aside by itself.
    let listed: serde_json::Value =
        serde_json::from_slice(&node.run(&["--json", "data", "list"]).stdout).unwrap();
    let aside = listed["aside"].as_array().unwrap().iter();
    let mut releases: Vec<_> = aside.map(|set| set["release"]["version"].as_str().unwrap()).collect();
    // Of one second, in no order.
    releases.sort_unstable();
    assert_eq!(releases, ["2", "3"], "{listed}");
}
