//! What an operator meets before the first release is taken over, and small refusals of the command line.

use std::fs;
use std::os::unix::fs::symlink;

use crate::node::{Health, TestNode, text};

#[test]
fn what_was_installed_by_hand_is_a_warning_that_names_adopt() {
    for is_link in [false, true] {
        let node = TestNode::new(&[]);
        let current = node.root().join("current");
        if is_link {
            fs::create_dir(node.root().join("old")).unwrap();
            symlink(node.root().join("old"), &current).unwrap();
        } else {
            fs::create_dir(&current).unwrap();
        }
        let checked = node.run(&["config", "check"]);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        assert!(text(&checked.stderr).contains("cutover adopt"), "{}", text(&checked.stderr));
        let status = text(&node.run(&["status"]).stdout);
        assert!(status.contains("cutover adopt") && !status.contains("NEEDS A PERSON"), "{status}");
        let status: serde_json::Value =
            serde_json::from_slice(&node.run(&["status", "--json"]).stdout).unwrap();
        assert_eq!((&status["state"], &status["unadopted"]), (&"idle".into(), &true.into()));
        assert_eq!(node.code(&["adopt", current.to_str().unwrap(), "--version", "1"]), 0);
        let status: serde_json::Value =
            serde_json::from_slice(&node.run(&["status", "--json"]).stdout).unwrap();
        assert_eq!((&status["active"]["version"], &status["unadopted"]), (&"1".into(), &false.into()));
    }
}

#[test]
fn a_part_of_a_release_is_not_adopted() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.code(&["stage", node.archive(1).to_str().unwrap(), "--allow-unsigned"]), 0);
    let part = node.root().join("releases/1/bin");
    assert_eq!(node.code(&["adopt", part.to_str().unwrap(), "--version", "9"]), 1);
    assert!(part.join("app").exists());
}

#[test]
fn moments_in_the_past_are_refused() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.code(&["stage", node.archive(2).to_str().unwrap(), "--allow-unsigned"]), 0);
    assert_eq!(node.code(&["switch", "2", "--at", "2020-01-01T00:00:00Z"]), 2);
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.code(&["hold", "--until", "2020-01-01T00:00:00Z"]), 2);
    let status = text(&node.run(&["status", "--json"]).stdout);
    assert!(status.contains("\"hold\":null"), "{status}");
}

#[test]
fn data_that_were_set_aside_are_listed_once_and_a_reason_is_said_once() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 0);
    assert_eq!(node.code(&["rollback"]), 0);
    let output = node.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["data"]["aside"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["hold"]["reason"], "rolled back by hand");
}
