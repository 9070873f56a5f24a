//! Whose fault it was: only a release that failed by itself is banned.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Health, TestNode, text};

/// What is done to a node that runs release 1, on the way to release 2.
struct Row {
    what: &'static str,
    /// Further settings.
    settings: &'static str,
    /// A hook of release 2: its moment and what it does.
    hook: Option<(&'static str, &'static str)>,
    health: Health,
    words: &'static [&'static str],
    code: i32,
    is_banned: bool,
}

const ROW: Row =
    Row { what: "", settings: "", hook: None, health: Health::Good, words: &[], code: 10, is_banned: false };

fn rows() -> Vec<Row> {
    let stop_fails =
        "[service.command]\nstart = 'true'\nstop = 'test ! -e ../../current || grep -q 2 VERSION'\n";
    let start_fails = "[service.command]\nstart = 'grep -q 1 VERSION'\nstop = 'true'\n";
    vec![
        Row { what: "its checks fail", health: Health::Sick, is_banned: true, ..ROW },
        Row { what: "it does not start", settings: start_fails, is_banned: true, ..ROW },
        Row {
            what: "its own hook objects before the switch",
            hook: Some(("pre-switch", "exit 1")),
            code: 1,
            is_banned: true,
            ..ROW
        },
        Row {
            what: "its own hook fails after the switch",
            hook: Some(("post-switch", "exit 1")),
            is_banned: true,
            ..ROW
        },
        Row { what: "its own hook says not now", hook: Some(("pre-switch", "exit 75")), code: 15, ..ROW },
        Row {
            what: "its own hook says not now after the switch",
            hook: Some(("post-switch", "exit 75")),
            is_banned: true,
            ..ROW
        },
        Row {
            what: "its own hook says not now at the end of the trial",
            hook: Some(("healthy", "exit 75")),
            is_banned: true,
            ..ROW
        },
        Row { what: "the old release does not stop", settings: stop_fails, ..ROW },
        Row { what: "nobody commits it", words: &["--confirm", "--trial", "300ms"], ..ROW },
    ]
}

fn node_of(row: &Row) -> TestNode {
    let node = TestNode::new(&[Health::Good, row.health]);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}{}", row.settings)).unwrap();
    if let Some((moment, script)) = row.hook {
        let hooks = node.path("tree-2/.cutover/hooks");
        fs::create_dir_all(&hooks).unwrap();
        fs::write(hooks.join(moment), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(hooks.join(moment), fs::Permissions::from_mode(0o755)).unwrap();
        node.repack(2);
    }
    assert_eq!(node.update(1), 0, "{}", row.what);
    node
}

fn is_banned(node: &TestNode) -> bool {
    let status = text(&node.run(&["status", "--json"]).stdout);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    !status["bad"].as_array().unwrap().is_empty()
}

fn update_words<'a>(archive: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["update", archive, "--allow-unsigned"].into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn only_the_releases_own_fault_bans_it() {
    crate::node::all_at_once(&rows(), |row| {
        let node = node_of(row);
        let archive = node.archive(2);
        let words = update_words(archive.to_str().unwrap(), row.words);
        assert_eq!(node.code(&words), row.code, "{}", row.what);
        assert_eq!(node.active().as_deref(), Some("1"), "{}", row.what);
        assert_eq!(is_banned(&node), row.is_banned, "{}", row.what);
        assert!(!node.has_journal(), "{}", row.what);
    });
}

/// Begins an update to release 2 and kills it in the trial, which lasts `deadline` at the longest.
fn killed_in_the_trial(deadline: &str) -> TestNode {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let config = fs::read_to_string(node.config()).unwrap();
    let config =
        config.replace("'0s'", "'900ms'").replace("deadline = '20s'", &format!("deadline = '{deadline}'"));
    fs::write(node.config(), config).unwrap();
    let archive = node.archive(2);
    let words = update_words(archive.to_str().unwrap(), &[]);
    kill_when(&node, &words, "\"name\":\"trial\"");
    node
}

/// Runs a command and kills it as soon as the journal says so.
fn kill_when(node: &TestNode, words: &[&str], what: &str) {
    let mut updater = node.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let journal = node.root().join(".cutover/journal.json");
    let began = Instant::now();
    while !fs::read_to_string(&journal).unwrap_or_default().contains(what) {
        assert!(began.elapsed() < Duration::from_secs(20), "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(i32::try_from(updater.id()).unwrap()), Signal::SIGKILL).unwrap();
    updater.wait().unwrap();
}

#[test]
fn a_trial_that_nobody_watched_to_its_end_bans_nobody() {
    let node = killed_in_the_trial("1s");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(node.code(&["recover"]), 10);
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(!is_banned(&node));
    let history = text(&node.run(&["log"]).stdout);
    assert!(history.contains("interrupted"), "{history}");
    assert_eq!(node.update(2), 0, "it may be tried again");
}

#[test]
fn an_updater_that_is_killed_again_and_again_bans_nobody() {
    let node = killed_in_the_trial("60s");
    for count in 1..=2 {
        kill_when(&node, &["recover"], &format!("\"resumes\":{count}"));
    }
    assert_eq!(node.code(&["recover"]), 10);
    assert!(!is_banned(&node));
}

#[test]
fn a_release_under_which_the_node_goes_down_at_each_boot_is_given_up() {
    let node = killed_in_the_trial("60s");
    for boot in 1..=2 {
        assert_eq!(node.code(&["recover", "--boot"]), 0);
        assert_eq!(node.active().as_deref(), Some("2"), "boot {boot}");
        let journal = fs::read_to_string(node.root().join(".cutover/journal.json")).unwrap();
        assert!(journal.contains(&format!("\"resumes\":{boot}")), "{journal}");
    }
    assert_eq!(node.code(&["recover", "--boot"]), 0);
    assert_eq!(node.active().as_deref(), Some("1"), "it is not started a fourth time");
    assert_eq!(node.code(&["recover"]), 10);
    assert!(is_banned(&node));
}

#[test]
fn an_interruption_that_the_boot_has_counted_is_not_counted_again() {
    let node = killed_in_the_trial("60s");
    assert_eq!(node.code(&["recover", "--boot"]), 0);
    assert_eq!(node.code(&["recover"]), 0, "the trial goes on and ends well");
    assert_eq!(node.active().as_deref(), Some("2"));
}

#[test]
fn a_recovery_that_has_undone_what_was_cut_short_has_succeeded() {
    for (stop_before, words) in [("\"name\":\"staged\"", "staged"), ("\"name\":\"switching\"", "switching")] {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let archive = node.archive(2);
        // The first change after which the journal says so is the one before which the next run is killed.
        let mut number = 0;
        loop {
            let copy = node.copy();
            let words = update_words(archive.to_str().unwrap(), &[]);
            copy.command(&words).env("CUTOVER_STOP_BEFORE", format!("{number}:kill")).output().unwrap();
            let journal = fs::read_to_string(copy.root().join(".cutover/journal.json")).unwrap_or_default();
            if journal.contains(stop_before) {
                assert_eq!(copy.code(&["recover"]), 0, "{words:?}");
                assert_eq!(copy.active().as_deref(), Some("1"), "{words:?}");
                assert!(!is_banned(&copy), "{words:?}");
                break;
            }
            number += 1;
            assert!(number < 100, "never {words:?}");
        }
        println!("{words}: change {number}");
    }
}

#[test]
fn in_an_outage_a_release_must_show_that_it_is_better() {
    let node = TestNode::new(&[Health::Good, Health::Sick]);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("deadline = '20s'", "deadline = '500ms'")).unwrap();
    assert_eq!(node.update(1), 0);
    fs::remove_file(node.root().join("releases/1/well")).unwrap();
    let archive = node.archive(2);
    let words = update_words(archive.to_str().unwrap(), &["--now"]);
    assert_eq!(node.code(&words), 10, "it answers no better than the old one");
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(!is_banned(&node), "nothing speaks against it either");
}

#[test]
fn in_an_outage_no_release_that_has_shown_nothing_takes_the_place_of_a_good_one() {
    let node = TestNode::new(&[Health::Good, Health::Sick, Health::Sick]);
    node.set("deadline = '20s'", "deadline = '500ms'");
    node.add("[store]\nkeep = 1\n");
    assert_eq!(node.update(1), 0);
    fs::remove_file(node.root().join("releases/1/well")).unwrap();
    for number in [2, 3] {
        let archive = node.archive(number);
        node.code(&update_words(archive.to_str().unwrap(), &["--now"]));
    }
    assert!(node.root().join("releases/1").is_dir(), "{:?} are left", node.names("releases"));
    assert_eq!(node.active().as_deref(), Some("1"));
}
