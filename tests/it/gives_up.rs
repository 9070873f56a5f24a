//! Going back that does not succeed: what is whole serves until somebody comes, and what is not is left alone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::node::{Health, TestNode, all_at_once};

/// Data beside those that each node has.
const SECOND: &str = "[[data]]\npath = 'PLACE/second/own'\non_rollback = 'restore'\n";

/// A node whose service is a file that is there while it runs. What `broken` holds is done once it has stopped.
fn node(releases: &[Health], more: &str) -> TestNode {
    let node = TestNode::new(releases);
    let (runs, broken) = (node.path("runs"), node.path("broken"));
    let service = format!(
        "[service.command]\nstart = 'touch {}'\nstop = 'rm -f {}; test ! -e {broken} || sh {broken}'\n",
        runs.display(),
        runs.display(),
        broken = broken.display(),
    );
    node.add(&(more.replace("PLACE", node.root().to_str().unwrap()) + &service));
    fs::create_dir_all(node.root().join("second/own")).unwrap();
    assert_eq!(node.update(1), 0);
    fs::write(node.data().join("records"), "of 1").unwrap();
    node
}

/// A file stands where newer data are to be set aside.
fn nothing_can_be_set_aside(node: &TestNode) {
    let aside = node.root().join(".cutover/aside");
    fs::write(node.path("broken"), format!("rm -rf {aside}; touch {aside}", aside = aside.display()))
        .unwrap();
}

fn mend(node: &TestNode) {
    fs::remove_file(node.path("broken")).unwrap();
    fs::remove_file(node.root().join(".cutover/aside")).unwrap();
}

fn records(node: &TestNode) -> String {
    fs::read_to_string(node.data().join("records")).unwrap()
}

#[test]
fn a_release_whose_data_were_not_moved_serves_on() {
    for health in [Health::Good, Health::Sick] {
        let node = node(&[Health::Good, health], "");
        if health == Health::Good {
            assert_eq!(node.update(2), 0);
            fs::write(node.data().join("records"), "of 2").unwrap();
        }
        nothing_can_be_set_aside(&node);
        let code = if health == Health::Good { node.code(&["rollback"]) } else { node.update(2) };
        assert_eq!(code, 14, "{health:?}");
        assert_eq!(node.active().as_deref(), Some("2"), "{health:?}");
        assert!(
            node.path("runs").exists(),
            "{health:?}: nothing serves, though release 2 and its data are whole"
        );
        let status = node.status();
        assert_eq!(status["state"], "needs_person", "{status}");
        mend(&node);
        node.code(&["recover"]);
        assert_eq!((node.active().as_deref(), records(&node).as_str()), (Some("1"), "of 1"), "{health:?}");
        assert!(node.path("runs").exists() && !node.has_journal(), "{health:?}");
    }
}

/// A directory that holds data has become a file: nothing is moved, so the release serves on with its own data.
#[test]
fn data_whose_directory_is_gone_stop_going_back_before_anything_is_moved() {
    let node = node(&[Health::Good, Health::Good], SECOND);
    let second = node.root().join("second");
    assert_eq!(node.update(2), 0);
    fs::write(node.data().join("records"), "of 2").unwrap();
    fs::write(node.path("broken"), format!("cd {} && mv second away && touch second", node.root().display()))
        .unwrap();
    assert_eq!(node.code(&["rollback"]), 14);
    assert_eq!((node.active().as_deref(), records(&node).as_str()), (Some("2"), "of 2"));
    assert!(node.path("runs").exists(), "nothing serves, though release 2 and its data are whole");
    fs::remove_file(node.path("broken")).unwrap();
    fs::remove_file(&second).unwrap();
    fs::rename(node.root().join("away"), &second).unwrap();
    assert_eq!(node.code(&["recover"]), 0);
    assert_eq!((node.active().as_deref(), records(&node).as_str()), (Some("1"), "of 1"));
    assert!(node.path("runs").exists());
}

/// Each change of a rollback fails, and all that come after it: whatever runs then, all of its data are its own.
#[test]
fn a_release_never_runs_on_data_of_which_a_part_went_back() {
    let begin = || {
        let node = node(&[Health::Good, Health::Good], SECOND);
        let own = node.root().join("second/own/records");
        fs::write(&own, "of 1").unwrap();
        assert_eq!(node.update(2), 0);
        for file in [node.data().join("records"), own] {
            fs::write(file, "of 2").unwrap();
        }
        node
    };
    let written_by = |node: &TestNode| {
        let own = fs::read_to_string(node.root().join("second/own/records")).ok();
        (fs::read_to_string(node.data().join("records")).ok(), own)
    };
    let whole = begin();
    let notes = whole.path("changes");
    let output = whole.command(&["rollback"]).env("CUTOVER_COUNT_CHANGES", &notes).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let changes: Vec<usize> = (0..fs::read_to_string(&notes).unwrap().lines().count()).collect();
    let (halves, begin) = (AtomicUsize::new(0), &begin);
    all_at_once(&changes, |first| {
        let node = begin();
        let output = node.command(&["rollback"]).env("CUTOVER_STOP_BEFORE", format!("{first}+:eio")).output();
        let what = format!("from change {first} on: {:?}", output.unwrap());
        let (active, data) = (node.active().unwrap(), written_by(&node));
        let all_of = |version: &str| {
            let all = Some(format!("of {version}"));
            (all.clone(), all)
        };
        halves.fetch_add(usize::from(data.0 != data.1), Ordering::Relaxed);
        assert!(!node.path("runs").exists() || data == all_of(&active), "{what}: {active} runs on {data:?}");
        node.code(&["recover"]);
        let active = node.active().unwrap();
        assert!(node.path("runs").exists() && !node.has_journal(), "{what}");
        assert_eq!(written_by(&node), all_of(&active), "{what}");
    });
    assert!(halves.into_inner() > 0, "none of {} stops came between the data", changes.len());
}

#[test]
fn where_the_journal_reads_all_that_is_said_a_person_is_asked_for_once() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::remove_file(node.root().join("releases/1/well")).unwrap();
    let log = fs::File::create(node.path("log")).unwrap();
    let found = log.metadata().unwrap();
    let mut rollback = node.command(&["rollback"]);
    rollback.env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino())).stderr(log);
    assert_eq!(rollback.status().unwrap().code(), Some(14));
    let said = fs::read_to_string(node.path("log")).unwrap();
    // A journal that can be reached has taken it with its fields.
    let is_taken = Path::new("/run/systemd/journal/socket").exists();
    assert_eq!(said.matches("needs a person").count(), usize::from(!is_taken), "{said}");
}

/// A command of the service lives on when cutover is killed, where no init ends it: what it does late is not wanted then.
#[test]
fn a_command_that_a_killed_update_left_behind_is_ended() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let begun = node.path("begun");
    let wait = "grep -q 1 VERSION || { echo $$ >>BEGUN; test -e well2 || sleep 300; }";
    node.add(&format!(
        "[service.command]\nstart = '{}'\nstop = 'true'\n",
        wait.replace("BEGUN", begun.to_str().unwrap()).replace("well2", node.path("well2").to_str().unwrap())
    ));
    assert_eq!(node.update(1), 0);
    let archive = node.archive(2);
    let mut update =
        node.command(&["update", archive.to_str().unwrap(), "--allow-unsigned"]).spawn().unwrap();
    let started = || fs::read_to_string(&begun).unwrap_or_default();
    node.wait_until("the command runs", |_| started().ends_with('\n'));
    update.kill().unwrap();
    update.wait().unwrap();
    let left = started().trim().to_owned();
    assert!(Path::new("/proc").join(&left).exists(), "it lives on");
    fs::write(node.path("well2"), "").unwrap();
    assert_eq!(node.code(&["recover"]), 0);
    let stat = fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
    assert_eq!(started().lines().count(), 2);
    assert_eq!(node.active().as_deref(), Some("2"));
}
