//! The first minute with cutover: taking over what runs, and taking that back; waiting for others, and looking on.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::node::{Health, TestNode, text};

/// An application that somebody installed by hand, in a directory that is `current` itself.
fn by_hand(place: &Path) {
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::write(place.join("VERSION"), "0").unwrap();
    fs::write(place.join("bin/app"), "the same in all").unwrap();
    fs::write(place.join("well"), "").unwrap();
}

fn said(node: &TestNode, words: &[&str]) -> (i32, String) {
    let output = node.run(words);
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn what_was_taken_over_can_be_put_back_until_the_first_switch() {
    let node = TestNode::new(&[Health::Good]);
    let current = node.root().join("current");
    by_hand(&current);
    let inode = fs::metadata(&current).unwrap().ino();
    let (code, told) = said(&node, &["adopt", current.to_str().unwrap(), "--version", "0"]);
    assert_eq!(code, 0, "{told}");
    let tree = node.root().join("releases/0");
    assert!(told.contains(&format!("moved `{}` to `{}`", current.display(), tree.display())), "{told}");
    assert_eq!(node.active().as_deref(), Some("0"));

    let (code, told) = said(&node, &["adopt", "--undo"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("is back where it was"), "{told}");
    let found = fs::symlink_metadata(&current).unwrap();
    assert!(found.is_dir() && found.ino() == inode && !tree.exists());
    assert_eq!(said(&node, &["adopt", "--undo"]).0, 1, "there is nothing to undo any more");

    // It may be taken over again; once another release was switched to, it stays.
    assert_eq!(said(&node, &["adopt", current.to_str().unwrap(), "--version", "0"]).0, 0);
    assert_eq!(node.update(1), 0);
    let (code, told) = said(&node, &["adopt", "--undo"]);
    assert!(code == 1 && told.contains("another release was switched to since"), "{told}");
    assert_eq!(node.active().as_deref(), Some("1"));
}

#[test]
fn a_link_made_by_hand_is_put_back_as_it_was() {
    let node = TestNode::new(&[]);
    let elsewhere = node.path("opt");
    by_hand(&elsewhere);
    let current = node.root().join("current");
    std::os::unix::fs::symlink(&elsewhere, &current).unwrap();
    assert_eq!(said(&node, &["adopt", current.to_str().unwrap(), "--version", "0"]).0, 0);
    assert!(!elsewhere.exists() && node.active().as_deref() == Some("0"));
    assert_eq!(said(&node, &["adopt", "--undo"]).0, 0);
    assert_eq!(fs::read_link(&current).unwrap(), elsewhere);
    assert!(elsewhere.join("VERSION").exists());
}

#[test]
fn a_directory_on_another_file_system_is_copied_and_left_alone() {
    let node = TestNode::new(&[Health::Good]);
    let memory = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    if device(memory).is_none() || device(memory) == device(&node.root()) {
        return eprintln!(
            "SKIPPED a_directory_on_another_file_system_is_copied: there is no other file system"
        );
    }
    let Ok(elsewhere) = tempfile::tempdir_in(memory) else {
        return eprintln!("SKIPPED a_directory_on_another_file_system_is_copied: /dev/shm is not writable");
    };
    by_hand(elsewhere.path());
    std::os::unix::fs::symlink("VERSION", elsewhere.path().join("link")).unwrap();
    let (code, told) = said(&node, &["adopt", elsewhere.path().to_str().unwrap(), "--version", "0"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("copied") && elsewhere.path().join("VERSION").exists(), "{told}");
    assert_eq!(node.active().as_deref(), Some("0"));
    assert_eq!(node.code(&["verify"]), 0);
    assert_eq!(fs::read_link(node.root().join("current/link")).unwrap(), Path::new("VERSION"));
    assert_eq!(said(&node, &["adopt", "--undo"]).0, 0);
    assert!(elsewhere.path().join("VERSION").exists() && !node.root().join("releases/0").exists());
    assert_eq!(node.active(), None);
}

/// Reads what a process says until it has said this.
fn until_said(stream: &mut impl Read, wanted: &str) -> String {
    let mut said = Vec::new();
    while !text(&said).contains(wanted) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "it ended with: {}", text(&said));
        said.push(byte[0]);
    }
    text(&said)
}

#[test]
fn who_waits_comes_after_the_one_who_is_at_work() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let (second, third) = (node.archive(2), node.archive(3));
    let mut first: Child = node
        .command(&["update", second.to_str().unwrap(), "--allow-unsigned", "--confirm", "--trial", "60s"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until_said(&mut first.stderr.take().unwrap(), "on trial");
    let words = ["update", third.to_str().unwrap(), "--allow-unsigned"];
    assert_eq!(node.code(&words), 11, "who does not wait is told at once");
    let mut waiting = node
        .command(&[&words[..], &["--wait=120s"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = waiting.stderr.take().unwrap();
    until_said(&mut stderr, "waiting: another cutover");
    assert_eq!(node.code(&["commit"]), 0);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0), "{rest}");
    assert_eq!(node.active().as_deref(), Some("3"));
}

#[test]
fn who_looks_on_sees_each_outcome_as_it_comes() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let mut follower = node.command(&["log", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("- -> 1"));
    assert_eq!(node.update(2), 0);
    assert!(lines.next().unwrap().unwrap().contains("1 -> 2"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn without_a_configuration_both_ways_to_begin_are_named() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(["--app", "no-such-application", "status"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("cutover init --unit") && said.contains("--root DIR"), "{said}");
}
