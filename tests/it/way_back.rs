//! Where a rollback leads, with which data: whatever became of the journal, and however many steps it goes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, text};

const GOOD: [Health; 3] = [Health::Good; 3];

fn records(node: &TestNode) -> String {
    fs::read_to_string(node.data().join("records")).unwrap()
}

/// Releases 1, 2 and 3 one after the other, each of which has written data of its own.
fn three() -> TestNode {
    let node = TestNode::new(&GOOD);
    for number in 1..=3 {
        assert_eq!(node.update(number), 0);
        fs::write(node.data().join("records"), format!("of {number}")).unwrap();
    }
    node
}

/// Release 3 was on trial after 1 and 2 when its updater was killed; nothing is slow any more.
fn left_in_the_trial() -> TestNode {
    let node = TestNode::new(&GOOD);
    for number in 1..=2 {
        assert_eq!(node.update(number), 0);
        fs::write(node.data().join("records"), format!("of {number}")).unwrap();
    }
    let node = node.with_trial(15);
    let archive = node.archive(3);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    let mut update = node.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    node.wait_for_journal("\"name\":\"trial\"");
    update.kill().unwrap();
    update.wait().unwrap();
    fs::write(node.data().join("records"), "of 3").unwrap();
    node.set("min_healthy = '15s'", "min_healthy = '0s'");
    node
}

#[test]
fn a_damaged_journal_is_refused_by_whatever_would_write_it() {
    let node = left_in_the_trial();
    let journal = node.root().join(".cutover/journal.json");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[..whole.len() / 2]).unwrap();
    for words in [&["rollback"][..], &["rollback", "1"], &["commit"], &["recover"], &["switch", "1"]] {
        assert_eq!(node.code(words), 14, "{words:?}");
        assert_eq!(fs::read(&journal).unwrap().len(), whole.len() / 2, "{words:?}");
    }
}

#[test]
fn without_its_journal_a_trial_goes_back_to_what_was_committed_last() {
    let node = left_in_the_trial();
    // As the hint for a damaged one says.
    fs::rename(node.root().join(".cutover/journal.json"), node.path("journal.json")).unwrap();
    let said = node.status();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(node.active().as_deref(), Some("2"));
    assert_eq!(records(&node), "of 2");
    assert_eq!(said["previous"]["version"], "2");
    assert_eq!(node.code(&["rollback", "--check"]), 0);
    assert_eq!(node.status()["previous"]["version"], "1");
}

#[test]
fn a_copy_stays_as_long_as_its_release_can_be_gone_back_to() {
    let node = three();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(records(&node), "of 2");
    assert_eq!(node.code(&["rollback", "--data", "restore"]), 0);
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(records(&node), "of 1");
}

#[test]
fn several_steps_back_bring_the_copy_that_belongs_there() {
    let node = three();
    let said = node.status();
    assert_eq!(node.code(&["rollback", "1", "--data", "restore"]), 0);
    assert_eq!(records(&node), "of 1");
    let restorable = said["data"]["restorable"].as_array().unwrap().iter();
    assert_eq!(restorable.map(|copy| copy["version"].as_str().unwrap()).collect::<Vec<_>>(), ["2", "1"]);
}

#[test]
fn data_are_not_promised_that_are_not_there() {
    let node = three();
    for entry in fs::read_dir(node.root().join(".cutover/snapshots")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    assert_eq!(node.code(&["rollback", "--data", "restore"]), 2);
    assert_eq!(node.active().as_deref(), Some("3"));
    assert_eq!(asked_first(&node.status()), ["keep"]);
    assert_eq!(node.code(&["rollback"]), 2);
    assert_eq!(node.code(&["rollback", "--data", "keep"]), 0);
    assert_eq!((node.active().as_deref(), records(&node).as_str()), (Some("2"), "of 3"));
}

/// What `status` says that a rollback wants to be told first: in its fields, and as commands.
fn asked_first(status: &serde_json::Value) -> Vec<String> {
    let asks = status["previous"]["rollback"]["asks"].as_array().unwrap().iter();
    let asks: Vec<_> = asks.map(|word| word.as_str().unwrap().to_owned()).collect();
    let next = status["next"].to_string();
    assert_eq!(next.contains("cutover rollback  "), asks.is_empty(), "{next}");
    for word in &asks {
        assert!(next.contains(&format!("cutover rollback --data {word}")), "{next}");
    }
    asks
}

/// As if all copies had been made long ago.
fn age(node: &TestNode) {
    for name in node.names(".cutover/snapshots").iter().filter(|name| name.ends_with(".json")) {
        let path = node.root().join(".cutover/snapshots").join(name);
        let mut set: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        set["at"] = "2026-01-01T00:00:00Z".into();
        fs::write(&path, serde_json::to_vec(&set).unwrap()).unwrap();
    }
}

#[test]
fn old_data_come_back_only_when_that_is_said() {
    let node = three();
    let before = node.status();
    age(&node);
    let (aged, check) = (node.status(), text(&node.run(&["rollback", "--check"]).stdout));
    let refused = node.run(&["rollback"]);
    assert_eq!(refused.status.code(), Some(2), "it now has the data {}", records(&node));
    let message = text(&refused.stderr);
    assert!(message.contains("--data restore") && message.contains("--data keep"), "{message}");
    assert_eq!(node.active().as_deref(), Some("3"));
    assert_eq!((aged["last"].clone(), records(&node).as_str()), (node.status()["last"].clone(), "of 3"));
    assert!(check.contains("2026-01-01") && check.contains("--data keep"), "{check}");
    assert!(aged["data"]["restorable"][0]["age_s"].as_u64().unwrap() > 86_400);
    assert_eq!((asked_first(&before), asked_first(&aged)), (vec![], vec!["restore".into(), "keep".into()]));
    assert_eq!(node.copy().code(&["rollback", "--data", "keep"]), 0);
    assert_eq!(node.code(&["rollback", "--data", "restore"]), 0);
    assert_eq!(records(&node), "of 2");
}

#[test]
fn how_old_is_a_setting() {
    let node = three();
    age(&node);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}[data_policy]\nrestore_within = '3650d'\n")).unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(records(&node), "of 2");
}

#[test]
fn banned_releases_leave_before_the_way_back_does() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Sick, Health::Sick, Health::Good]);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}[store]\nkeep = 3\n")).unwrap();
    for (number, code) in [(1, 0), (2, 0), (3, 10), (4, 10), (5, 0)] {
        assert_eq!(node.update(number), code);
    }
    assert_eq!(node.names("releases"), ["1", "2", "5"]);
}

#[test]
fn a_release_that_waits_for_its_window_is_not_pruned() {
    // Where there is no place left for it, too: all are taken by pins.
    let pinned = ["1", "2", "3"];
    for (keep, staged, pins) in [(2, 3, &[][..]), (3, 5, &pinned)] {
        let node = TestNode::new(&[Health::Good; 5]);
        node.add(&format!("[store]\nkeep = {keep}\n"));
        for number in 1..staged {
            assert_eq!(node.update(number), 0);
            let number = number.to_string();
            assert!(!pins.contains(&number.as_str()) || node.code(&["pin", &number]) == 0);
        }
        assert_eq!(node.code(&["stage", node.archive(staged).to_str().unwrap(), "--allow-unsigned"]), 0);
        assert_eq!(node.code(&["prune"]), 0);
        let left: Vec<_> = (1..=staged).map(|number| number.to_string()).collect();
        assert_eq!(node.names("releases"), left, "pins {pins:?}");
    }
}

/// What the kernel says of a process names no link that a configuration goes through.
#[test]
fn a_tree_in_use_is_not_pruned_however_the_root_is_written() {
    let node = TestNode::new(&[Health::Good; 4]);
    node.add("[store]\nkeep = 1\n");
    let (root, link) = (node.root(), node.path("link"));
    std::os::unix::fs::symlink("root", &link).unwrap();
    node.set(root.to_str().unwrap(), link.to_str().unwrap());
    assert_eq!(node.update(1), 0);
    let mut user = Command::new("sleep").arg("600").current_dir(root.join("releases/1")).spawn().unwrap();
    let codes = [2, 3, 4].map(|number| node.update(number));
    let pruned = node.code(&["prune"]);
    let names = node.names("releases");
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!((codes, pruned), ([0; 3], 0));
    assert!(names.contains(&"1".to_owned()), "{names:?}");
    assert_eq!(node.code(&["prune"]), 0);
    assert!(!node.names("releases").contains(&"1".to_owned()));
}

#[test]
fn a_release_is_not_judged_by_a_check_that_only_the_next_one_brings() {
    for command in ["['bin/health']", "['/bin/sh', 'bin/health']"] {
        let node = TestNode::new(&[Health::Good, Health::Good, Health::Good, Health::Sick]);
        assert_eq!(node.update(1), 0);
        let check = format!("[[health.check]]\nname = 'own'\nexec = {{ command = {command} }}\n");
        node.add(&check);
        // No release has it: that is a slip, and nobody goes without a check that is wanted.
        assert_eq!(node.update(2), 15);
        for (number, status) in [(3, 0), (4, 0)] {
            let program = node.path(&format!("tree-{number}/bin/health"));
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(&program, format!("#!/bin/sh\nexit {status}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            node.repack(number);
        }
        assert_eq!(node.update(4), 10, "going back is not judged by it either");
        assert_eq!(node.update(3), 0);
        assert_eq!(node.code(&["rollback"]), 0);
        assert_eq!(node.active().as_deref(), Some("1"));
    }
}

/// A root that is moved takes its releases along; what is written down of data names places that are gone.
#[test]
fn a_root_that_was_moved_loses_nothing() {
    let node = three();
    assert_eq!(node.code(&["rollback"]), 0);
    let (old, new) = (node.root(), node.path("moved"));
    fs::rename(&old, &new).unwrap();
    node.set(old.to_str().unwrap(), new.to_str().unwrap());
    let listed = text(&node.run(&["--json", "data", "list"]).stdout);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let item = &listed["aside"][0]["items"][0];
    let stored = std::path::Path::new(item["stored"].as_str().unwrap());
    assert_eq!(fs::read_to_string(stored.join("records")).unwrap(), "of 3");
    assert_eq!(item["path"].as_str(), new.join("data").to_str());
    let id = listed["aside"][0]["id"].as_str().unwrap();
    // The way back is refused with a way out, before anything stops.
    for words in [&["rollback", "--check"][..], &["rollback"]] {
        let output = node.run(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains("--data keep"), "{words:?}: {said}");
    }
    std::os::unix::fs::symlink(&new, &old).unwrap();
    assert_eq!(node.code(&["rollback", "1"]), 0);
    assert_eq!(fs::read_to_string(new.join("data/records")).unwrap(), "of 1");
    fs::remove_file(&old).unwrap();
    assert_eq!(node.code(&["data", "drop", id]), 0);
    assert!(!stored.exists());
}

#[test]
fn a_list_of_other_copies_that_cannot_be_read_is_in_nobodys_way() {
    let node = three();
    let spoilt = node.root().join(".cutover/snapshots/20200101T000000Z-000000.json");
    fs::write(&spoilt, "{").unwrap();
    assert_eq!(node.code(&["rollback", "--check"]), 0);
    let back = node.run(&["rollback"]);
    let said = text(&back.stderr);
    assert_eq!((back.status.code(), records(&node).as_str()), (Some(0), "of 2"), "{said}");
    assert!(said.contains(spoilt.to_str().unwrap()), "{said}");
    assert_eq!(node.code(&["prune"]), 0);
    assert!(spoilt.exists());
}

#[test]
fn what_refuses_a_rollback_is_told_by_status_and_check() {
    let name = "what_refuses_a_rollback_is_told_by_status_and_check";
    let Some(mounted) = Mounted::new(name, "ext4") else { return };
    for part in ["releases", ".cutover"] {
        let node = three();
        let (here, there) = (node.root().join(part), mounted.path().join(part));
        assert!(Command::new("cp").arg("-a").args([&here, &there]).status().unwrap().success());
        fs::remove_dir_all(&here).unwrap();
        std::os::unix::fs::symlink(&there, &here).unwrap();
        let previous = &node.status()["previous"]["rollback"];
        assert_eq!(previous["possible"], false, "{part}: {previous}");
        assert_eq!([node.code(&["rollback", "--check"]), node.code(&["rollback"])], [2, 2], "{part}");
        assert_eq!((node.active().as_deref(), records(&node).as_str()), (Some("3"), "of 3"), "{part}");
    }
    let node = three().with_root(&{
        let root = mounted.path().join("root");
        fs::create_dir(&root).unwrap();
        root
    });
    let chattr =
        |flag: &str| Command::new("chattr").arg(flag).arg(node.root().join(".cutover")).status().unwrap();
    assert!(chattr("+i").success());
    let told = ["rollback --check", "rollback --data keep", "config check"]
        .map(|words| node.code(&words.split(' ').collect::<Vec<_>>()));
    let possible = node.status()["previous"]["rollback"]["possible"].clone();
    assert!(chattr("-i").success());
    assert_eq!((told, possible), ([2, 2, 2], false.into()));
}
