//! What is told is what happened: one sense for history, the reason where it is looked for, the failed release's own words,
//! and no panic when nobody listens.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::node::{Health, TestNode, text};

fn json(node: &TestNode, words: &[&str]) -> Value {
    let output = node.run(words);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {output:?}"))
}

#[test]
fn from_and_to_have_one_sense_in_all_rollbacks() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Sick]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 0);
    assert_eq!(node.update(3), 10);
    let by_itself = json(&node, &["log", "--json"])[0].clone();
    assert_eq!((by_itself["from"].as_str(), by_itself["to"].as_str()), (Some("2"), Some("3")));
    let told = json(&node, &["rollback", "--json", "--reason", "a test"]);
    let by_hand = json(&node, &["log", "--json"])[0].clone();
    // `from` serves again, `to` is the one that went; the command itself says the same.
    assert_eq!((by_hand["from"].as_str(), by_hand["to"].as_str()), (Some("1"), Some("2")));
    assert_eq!((told["from"].as_str(), told["to"].as_str()), (Some("1"), Some("2")));
    assert_eq!(node.active().as_deref(), Some("1"));
    let log = text(&node.run(&["log"]).stdout);
    assert!(log.contains("2, back to 1") && log.contains("3, back to 2") && log.contains("1 -> 2"), "{log}");
    let status = text(&node.run(&["status"]).stdout);
    assert!(status.contains("went back from 2 to 1"), "{status}");
}

#[test]
fn time_without_an_answer_is_told_beside_the_time_that_units_were_stopped() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Sick]);
    assert_eq!(node.update(1), 0);
    let first = json(&node, &["status", "--json"])["last"].clone();
    assert!(first["downtime_ms"].is_null() && first["unanswered_ms"].is_null(), "{first}");
    assert_eq!(node.update(2), 0);
    assert!(json(&node, &["status", "--json"])["last"]["unanswered_ms"].is_u64());
    assert_eq!(node.update(3), 10);
    let last = json(&node, &["status", "--json"])["last"].clone();
    let (silent, stopped) = (last["unanswered_ms"].as_u64().unwrap(), last["downtime_ms"].as_u64().unwrap());
    // The sick release answered badly for two looks, with 20 ms between them, before it was stopped.
    assert!(silent > stopped, "{last}");
    let log = text(&node.run(&["log", "-n", "1"]).stdout);
    assert!(log.contains("no answer for "), "{log}");
}

#[test]
fn time_without_an_answer_is_counted_through_a_crash() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let config = fs::read_to_string(node.config()).unwrap();
    let service = "[service.command]\nstart = 'test -e stopped || sleep 1; rm -f stopped'\nstop = 'true'\n";
    fs::write(node.config(), config + service).unwrap();
    assert_eq!(node.update(1), 0);
    let archive = node.archive(2);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    let mut update = node.command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = update.stderr.take().unwrap();
    let mut said = Vec::new();
    while !text(&said).contains("switching to release") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", text(&said));
        said.push(byte[0]);
    }
    update.kill().unwrap();
    update.wait().unwrap();
    // For half a second nobody goes on with it: whatever comes of it, that time counts.
    std::thread::sleep(std::time::Duration::from_millis(500));
    node.code(&["recover"]);
    let entry = json(&node, &["log", "--json"])[0].clone();
    assert!(entry["unanswered_ms"].as_u64().unwrap() >= 500, "{entry}");
}

#[test]
fn quiet_keeps_the_reason_of_what_did_not_end_well() {
    let node = TestNode::new(&[Health::Good, Health::Sick]);
    assert_eq!(node.update(1), 0);
    let archive = node.archive(2);
    let output = node.run(&["-q", "update", archive.to_str().unwrap(), "--allow-unsigned"]);
    assert_eq!(output.status.code(), Some(10));
    for stream in [&output.stdout, &output.stderr] {
        let said = text(stream);
        assert!(said.contains("rolled back") && said.contains("check `well` fails"), "{said}");
    }
}

#[test]
fn a_failed_release_is_quoted_and_not_the_one_before() {
    let node = TestNode::new(&[Health::Good, Health::Sick]);
    let config = fs::read_to_string(node.config()).unwrap();
    let service = "[service.command]\nstart = 'echo this is release $(cat VERSION)'\nstop = 'true'\n";
    fs::write(node.config(), config + service).unwrap();
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 10);
    let reason = json(&node, &["log", "--json"])[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.ends_with("; its last lines: this is release 2"), "{reason}");
}

#[test]
fn a_trial_says_where_it_goes_back_to() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 0);
    let archive = node.archive(3);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned", "--confirm", "--trial", "60s"];
    let mut trial = node.command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    let mut stderr = trial.stderr.take().unwrap();
    while !text(&said).contains("is on trial") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", text(&said));
        said.push(byte[0]);
    }
    let status = json(&node, &["status", "--json"]);
    assert_eq!(
        (status["trial"]["back_to"].as_str(), status["previous"]["version"].as_str()),
        (Some("2"), Some("2"))
    );
    let check = json(&node, &["rollback", "--check", "--json"]);
    assert_eq!((check["from"].as_str(), check["to"].as_str()), (Some("3"), Some("2")));
    assert_eq!(node.code(&["rollback", "--now"]), 0);
    assert_eq!(trial.wait().unwrap().code(), Some(10));
    assert_eq!(json(&node, &["status", "--json"])["previous"]["version"], "1");
}

#[test]
fn nobody_who_listens_is_no_reason_to_panic() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    for words in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["status"],
        &["log", "--json"],
        &["config", "show"],
        &["--help"],
        &["update", "--help"],
        &["--version"],
    ] {
        let mut child: std::process::Child =
            node.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        drop(child.stderr.take());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), None, "{words:?}");
        assert_ne!(status.code(), Some(134), "{words:?}");
    }
    // The reader that goes in the middle.
    let script =
        format!("'{}' completions bash | head -n 1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_cutover"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(said.lines().last(), Some("0"), "{said} {}", text(&output.stderr));
}

#[test]
fn nobody_goes_back_to_a_banned_release_unless_it_is_named() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2), node.update(3)), (0, 0, 0));
    let previous = |node: &TestNode| node.status()["previous"]["version"].clone();
    assert_eq!(node.code(&["mark-bad", "2", "--reason", "it loses orders"]), 0);
    assert_eq!(previous(&node), "1");
    assert_eq!((node.code(&["rollback"]), node.active().as_deref()), (0, Some("1")));
    assert_eq!((node.code(&["switch", "3"]), node.code(&["mark-bad", "1"])), (0, 0));
    assert_eq!(previous(&node), Value::Null);
    let refused = node.run(&["rollback"]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("banned"), "{said}");
    assert!(said.contains("cutover rollback VERSION"), "{said}");
    assert_eq!((node.code(&["rollback", "1"]), node.active().as_deref()), (0, Some("1")));
}

#[test]
fn units_that_nobody_starts_and_releases_that_nobody_watches_are_told() {
    if std::path::Path::new("/run/systemd/system").exists() {
        eprintln!(
            "SKIPPED units_that_nobody_starts_and_releases_that_nobody_watches_are_told: systemd runs this machine"
        );
        return;
    }
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let config = fs::read_to_string(node.config()).unwrap();
    let unwatched = config.replace("min_healthy = '0s'\n", "");
    let unwatched = unwatched.lines().filter(|line| !line.contains("well")).collect::<Vec<_>>().join("\n");
    let unwatched = unwatched.replace("[[health.check]]\n", "");
    fs::write(node.config(), format!("{unwatched}\n[service]\nunits = ['app.service']\n")).unwrap();
    for words in
        [&["config", "check"][..], &["update", node.archive(1).to_str().unwrap(), "--allow-unsigned"]]
    {
        let said = node.run(words);
        let told = text(&said.stderr) + &text(&said.stdout);
        assert!(told.contains("systemd does not run this machine") && told.contains("app.service"), "{told}");
        assert_eq!(told.contains("no `[[health.check]]`"), words[0] == "config", "{told}");
    }
}
