//! A root that is copied while the first one goes on: what the copy knows of data are those of the first root, and nothing
//! that is done in the copy touches them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::data::{Mount, aside, error_of};
use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, needs_root, text};

/// A second instance beside this node: its root is a copy, made by `cp -a`, its settings name its own data.
fn copied(node: &TestNode, data: &Path) -> PathBuf {
    let root = node.path("copy");
    assert!(Command::new("cp").arg("-a").args([&node.root(), &root]).status().unwrap().success());
    let config = fs::read_to_string(node.config()).unwrap();
    let (old_root, old_data) = (format!("root = '{}'", node.root().display()), data_setting(&config));
    let new_data = format!("path = '{}'", data.display());
    let config = config.replace(&old_root, &format!("root = '{}'", root.display()));
    let config = config.replace(&old_data, &new_data);
    fs::write(node.path("copy.toml"), config).unwrap();
    root
}

fn data_setting(config: &str) -> String {
    config.lines().find(|line| line.starts_with("path = ")).unwrap().to_owned()
}

/// Runs a command in the copy: exit code, and all that it says.
fn in_copy(node: &TestNode, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    let output = command.arg("--config").arg(node.path("copy.toml")).args(words).output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    println!("in the copy {words:?}: {}\n{said}", output.status);
    (output.status.code().unwrap_or(-1), said)
}

/// Everything below a directory: names, inodes, kinds and times of change of content.
fn listing(directory: &Path) -> String {
    let output =
        Command::new("find").arg(directory).args(["-printf", "%P %i %y %s %T@\\n"]).output().unwrap();
    assert!(output.status.success());
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn a_rollback_in_a_copied_root_leaves_the_data_of_the_first_alone() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(node.data().join("records"), "live").unwrap();
    let root = copied(&node, &node.path("copy/data"));
    let before = listing(&node.root());
    for words in [&["rollback", "--check"][..], &["rollback"], &["rollback", "1"]] {
        let (code, said) = in_copy(&node, words);
        assert_eq!(code, 2, "{words:?}: {said}");
        assert!(said.contains("of which this one is a copy") && said.contains("--data keep"), "{said}");
    }
    // Without any settings the copy's records are all that names data.
    let output =
        Command::new(env!("CARGO_BIN_EXE_cutover")).arg("--root").arg(&root).arg("rollback").output();
    assert_eq!(output.unwrap().status.code(), Some(2));
    let (_, said) = in_copy(&node, &["status"]);
    assert!(said.contains("there is no way back to it"), "{said}");
    assert_eq!(in_copy(&node, &["rollback", "--data", "keep"]).0, 0);
    assert_eq!(fs::read_link(root.join("current")).unwrap(), Path::new("releases/1"));
    assert_eq!(listing(&node.root()), before);
    // The first root itself goes back as always.
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old");
}

#[test]
fn a_root_that_was_moved_keeps_its_way_back() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let data = node.path("data-of-all");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("records"), "old").unwrap();
    node.set(node.data().to_str().unwrap(), data.to_str().unwrap());
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(data.join("records"), "new").unwrap();
    // One copy is left behind, and gone before anybody goes back.
    copied(&node, &data);
    fs::rename(node.root(), node.path("moved")).unwrap();
    assert_eq!(in_copy(&node, &["rollback", "--check"]).0, 0);
    fs::remove_dir_all(node.path("copy")).unwrap();
    fs::rename(node.path("moved"), node.path("copy")).unwrap();
    assert_eq!(in_copy(&node, &["rollback"]).0, 0);
    assert_eq!(fs::read_to_string(data.join("records")).unwrap(), "old");
}

#[test]
fn updates_of_a_copied_root_leave_copies_and_newer_data_of_the_first_where_they_are() {
    let test = "updates_of_a_copied_root_leave_copies_and_newer_data_of_the_first_where_they_are";
    if !needs_root(test) {
        return;
    }
    let node = TestNode::new(&[Health::Good; 6]);
    let volume = node.path("volume");
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "none"], &volume) else { return };
    let (data, other) = (volume.join("data"), volume.join("other"));
    for data in [&data, &other] {
        fs::create_dir(data).unwrap();
        fs::write(data.join("records"), "old").unwrap();
    }
    node.set(node.data().to_str().unwrap(), data.to_str().unwrap());
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(data.join("records"), "set aside").unwrap();
    assert_eq!((node.code(&["rollback"]), node.code(&["unhold"]), node.update(2)), (0, 0, 0));
    let [id] = &aside(&node)[..] else { panic!("nothing is set aside") };
    copied(&node, &other);
    for number in 3..=6 {
        let archive = node.archive(number);
        assert_eq!(in_copy(&node, &["update", archive.to_str().unwrap(), "--allow-unsigned"]).0, 0);
    }
    // What the first set aside stands beside its data: it is the first one's to list and to drop.
    assert!(in_copy(&node, &["data", "list"]).1.contains("nothing is set aside"));
    in_copy(&node, &["data", "drop", id]);
    assert_eq!(aside(&node).first(), Some(id));
    fs::write(data.join("records"), "live").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(fs::read_to_string(data.join("records")).unwrap(), "old");
}

/// What a copy has in its own `.cutover` is its own, whatever the lists say.
#[test]
fn to_drop_what_a_copied_root_has_set_aside_leaves_that_of_the_first() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2), node.code(&["rollback"])), (0, 0, 0));
    let [id] = &aside(&node)[..] else { panic!("nothing is set aside") };
    let root = copied(&node, &node.path("copy/data"));
    let before = listing(&node.root());
    let (_, said) = in_copy(&node, &["data", "list"]);
    assert!(said.contains(root.to_str().unwrap()) && !said.contains(node.root().to_str().unwrap()), "{said}");
    assert_eq!(in_copy(&node, &["data", "drop", id]).0, 0);
    assert_eq!(listing(&node.root()), before);
    assert!(!root.join(".cutover/aside").join(id).exists());
}

#[test]
fn recovery_in_a_copied_root_changes_nothing_in_the_first() {
    for (words, step) in [(&["update"][..], 17), (&["rollback"], 7)] {
        let begin = TestNode::new(&[Health::Good, Health::Good, Health::Sick]);
        assert_eq!((begin.update(1), begin.update(2)), (0, 0));
        let mut stops = 0;
        for stop_before in (0..400).step_by(step) {
            let node = begin.copy();
            let archive = node.archive(3);
            let update = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
            let words = if words == ["update"] { &update[..] } else { words };
            let mut command = node.command(words);
            let killed = command.env("CUTOVER_STOP_BEFORE", format!("{stop_before}:kill")).output().unwrap();
            if killed.status.code().is_some() {
                break;
            }
            stops += 1;
            copied(&node, &node.path("copy/data"));
            let before = listing(&node.root());
            in_copy(&node, &["recover"]);
            in_copy(&node, &["rollback", "--data", "keep"]);
            in_copy(&node, &["prune"]);
            assert_eq!(listing(&node.root()), before, "{words:?} stopped before change {stop_before}");
            node.code(&["recover"]);
            assert!(node.data().join("records").exists(), "{words:?} stopped before change {stop_before}");
        }
        assert!(stops > 5, "{words:?}: only {stops} stops");
    }
}

/// In a snapshot of the subvolume that holds the root, and in a copy of that, an empty directory stands for each subvolume.
#[test]
fn a_root_from_a_snapshot_has_no_copies_of_subvolumes() {
    let test = "a_root_from_a_snapshot_has_no_copies_of_subvolumes";
    let Some(mounted) = Mounted::new(test, "btrfs") else { return };
    let btrfs = |words: &[&str], paths: &[&Path]| {
        let done = Command::new("btrfs").args(["-q", "subvolume"]).args(words).args(paths).status();
        assert!(done.is_ok_and(|done| done.success()), "{words:?} {paths:?}");
    };
    let (root, kept) = (mounted.path().join("root"), mounted.path().join("kept"));
    btrfs(&["create"], &[&root]);
    btrfs(&["create"], &[&root.join("data")]);
    let node = TestNode::new(&[Health::Good; 3]).with_method("reflink").with_root(&root);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(node.data().join("records"), "live").unwrap();
    btrfs(&["snapshot"], &[&root, &kept]);
    fs::rename(&root, mounted.path().join("broken")).unwrap();
    fs::rename(&kept, &root).unwrap();
    let (code, error) = error_of(&node, &["config", "check"]);
    assert!(code == 2 && error.contains("stands for a subvolume"), "{code} {error}");
    fs::remove_dir(node.data()).unwrap();
    fs::rename(mounted.path().join("broken/data"), node.data()).unwrap();
    assert!(text(&node.run(&["rollback", "--check"]).stdout).contains("there is no copy"));
    let (code, error) = error_of(&node, &["rollback"]);
    assert!(code == 2 && error.contains("there is no copy"), "{code} {error}");
    assert!(text(&node.run(&["status"]).stdout).contains("--data keep"));
    assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "live");
    // The next update has its own copy, and clears the other away.
    assert_eq!((node.update(3), node.code(&["prune"])), (0, 0));
    fs::write(node.data().join("records"), "newer").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "live");
}
