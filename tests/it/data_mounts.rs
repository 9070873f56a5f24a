//! Mounts and subvolumes in data: refused or left in place, never carried away, and never removed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::data::{Mount, aside, assert_refused, error_of, is_mount, with_data};
use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, needs_root, text};

#[test]
fn what_is_mounted_in_the_data_is_refused_or_left_in_place() {
    if needs_root("what_is_mounted_in_the_data_is_refused_or_left_in_place") {
        refuse_or_leave(&["-t", "tmpfs", "none"]);
    }
}

#[test]
fn what_is_bound_into_the_data_is_refused_or_left_in_place() {
    if needs_root("what_is_bound_into_the_data_is_refused_or_left_in_place") {
        let elsewhere = tempfile::tempdir().unwrap();
        refuse_or_leave(&["--bind", elsewhere.path().to_str().unwrap()]);
    }
}

fn refuse_or_leave(mount: &[&str]) {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    fs::create_dir(node.data().join("a")).unwrap();
    fs::write(node.data().join("a/beside"), "old").unwrap();
    let uploads = node.data().join("a/uploads");
    let Some(_mount) = Mount::new(mount, &uploads) else { return };
    fs::write(uploads.join("picture"), "picture").unwrap();
    assert_refused(&node, 2, "a/uploads");
    assert!(is_mount(&uploads));

    let node = with_data(node, "leave = ['a/uploads']");
    assert_eq!(node.code(&["config", "check"]), 0);
    assert_eq!(node.update(2), 0);
    fs::write(node.data().join("records"), "new").unwrap();
    fs::write(node.data().join("a/beside"), "new").unwrap();
    fs::write(node.data().join("a/fresh"), "new").unwrap();
    fs::write(uploads.join("later"), "later").unwrap();
    assert_eq!(node.code(&["rollback", "--check"]), 0);
    assert_eq!(node.code(&["rollback"]), 0);
    assert!(is_mount(&uploads), "it was carried away");
    for (name, wanted) in [("records", "old"), ("a/beside", "old"), ("a/uploads/picture", "picture")] {
        assert_eq!(fs::read_to_string(node.data().join(name)).unwrap(), wanted, "{name}");
    }
    assert!(!node.data().join("a/fresh").exists());
    let ids = aside(&node);
    assert_eq!(ids.len(), 1);
    let away = node.root().join(".cutover/aside").join(&ids[0]).join("0-data.copy");
    let away = if away.exists() { away } else { away.with_file_name("0-data.reflink") };
    assert_eq!(fs::read_to_string(away.join("a/fresh")).unwrap(), "new");
    assert_eq!(fs::read_to_string(away.join("records")).unwrap(), "new");
    assert_eq!(node.code(&["data", "drop", &ids[0]]), 0);
    assert!(!away.exists() && uploads.join("picture").exists() && uploads.join("later").exists());
}

#[test]
fn what_is_mounted_after_the_switch_is_not_carried_away() {
    if !needs_root("what_is_mounted_after_the_switch_is_not_carried_away") {
        return;
    }
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let late = node.data().join("late");
    let Some(mount) = Mount::new(&["-t", "tmpfs", "none"], &late) else { return };
    fs::write(late.join("file"), "file").unwrap();
    for words in [&["rollback", "--check"][..], &["rollback"]] {
        let (code, error) = error_of(&node, words);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("late"), "{error}");
    }
    assert!(is_mount(&late) && node.active().as_deref() == Some("2"));
    let status: serde_json::Value = serde_json::from_slice(&node.run(&["--json", "status"]).stdout).unwrap();
    let back = &status["previous"]["rollback"];
    assert_eq!(back["possible"], false, "{back}");
    assert!(back["why_not"].as_str().unwrap().contains("late"), "{back}");
    assert_eq!(node.code(&["rollback", "--data", "keep"]), 0);
    assert!(is_mount(&late) && late.join("file").exists());
    drop(mount);
}

/// What a release mounts within its data on trial stays, and all else goes back. Where nothing could go back so, a person must
/// come: the old release is not started on data of the new one, and `recover` goes on when the obstacle is gone.
#[test]
fn a_release_that_mounts_in_its_data_or_fixes_them_is_gone_back_from() {
    if !needs_root("a_release_that_mounts_in_its_data_or_fixes_them_is_gone_back_from") {
        return;
    }
    let cases = [
        ("mkdir -p data/a/b/late; mount -t tmpfs none data/a/b/late", true),
        (
            "mkdir -p data/deep/late; mount -t tmpfs none data/deep/late; mkdir data/deep/late/in; \
          mount -t tmpfs none data/deep/late/in",
            true,
        ),
        ("touch data/late; mount --bind /etc/hostname data/late", true),
        ("mkdir -p releases/2/m; mount -t tmpfs none releases/2/m", true),
        ("mountpoint -q data || mount -t tmpfs none data", false),
        ("chattr +i data", false),
    ];
    for (act, comes_back) in cases {
        let node = TestNode::new(&[Health::Good, Health::Sick, Health::Good]);
        let (root, runs) = (node.root(), node.path("runs"));
        let start = format!("touch {}; grep -q 2 current/VERSION && {{ {act}; }}; true", runs.display());
        node.add(&format!(
            "[service.command]\nstart = 'cd {}; {start}'\nstop = 'rm -f {}'\n",
            root.display(),
            runs.display()
        ));
        fs::create_dir_all(node.data().join("a/b/late")).unwrap();
        fs::write(node.data().join("a/b/late/below"), "old").unwrap();
        assert_eq!(node.update(1), 0);
        let (code, error) =
            error_of(&node, &["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
        let (active, log) = (node.active(), text(&node.run(&["log"]).stdout));
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let here = root.to_str().unwrap();
        let points: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        let points: Vec<_> = points.into_iter().filter(|point| point.starts_with(here)).rev().collect();
        let away = points.iter().any(|point| point.contains(".cutover"));
        for point in &points {
            assert!(Command::new("umount").arg(point).status().unwrap().success());
        }
        drop(Command::new("chattr").args(["-i", node.data().to_str().unwrap()]).status());
        assert!(!away, "{act}: {points:?}");
        if comes_back {
            assert_eq!((code, active.as_deref()), (10, Some("1")), "{act}: {error}");
        } else {
            assert_eq!((code, active.as_deref()), (14, Some("2")), "{act}: {error} {log}");
            let recovered = node.run(&["recover"]);
            assert!(recovered.status.code() != Some(14), "{act}: {recovered:?}");
        }
        assert_eq!(node.active().as_deref(), Some("1"), "{act}");
        assert!(node.path("runs").exists() && !node.has_journal(), "{act}");
        // Nothing that the old release wrote is lost.
        let names = text(&Command::new("find").arg(&root).args(["-name", "below"]).output().unwrap().stdout);
        assert!(names.lines().any(|name| fs::read_to_string(name).unwrap() == "old"), "{act}: {names}");
        assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old", "{act}");
        assert_eq!((node.update(3), node.code(&["rollback"])), (0, 0), "{act}");
        for id in aside(&node) {
            assert_eq!(node.code(&["data", "drop", &id]), 0, "{act}");
        }
    }
}

/// Files do not move from one subvolume to another by a rename: what a release mounts within such data stops going back,
/// before anything is moved, until a person has unmounted it.
#[test]
fn a_release_that_mounts_in_a_subvolume_of_data_waits_for_a_person() {
    let Some(mounted) =
        Mounted::new("a_release_that_mounts_in_a_subvolume_of_data_waits_for_a_person", "btrfs")
    else {
        return;
    };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let data = root.join("data");
    let made = Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&data).status();
    assert!(made.is_ok_and(|made| made.success()));
    let node = TestNode::new(&[Health::Good, Health::Sick]).with_root(&root);
    let (late, runs) = (data.join("late"), node.path("runs"));
    node.add(&format!(
        "[service.command]\nstart = 'cd {}; touch {runs}; if grep -q 2 current/VERSION; then mkdir -p data/late; \
         mountpoint -q data/late || mount -t tmpfs none data/late; touch data/late/inside; fi'\nstop = 'rm -f {runs}'\n",
        root.display(),
        runs = runs.display(),
    ));
    assert_eq!(node.update(1), 0);
    let (code, error) = error_of(&node, &["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
    assert!(code == 14 && error.contains("late"), "{code} {error}");
    // It is where it was, with what is in it.
    assert!(is_mount(&late) && late.join("inside").exists() && node.active().as_deref() == Some("2"));
    assert!(Command::new("umount").arg(&late).status().unwrap().success());
    let recovered = node.run(&["recover"]);
    assert!(recovered.status.code() != Some(14), "{recovered:?}");
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(runs.exists() && !node.has_journal());
    assert_eq!(fs::read_to_string(data.join("records")).unwrap(), "old");
    for id in aside(&node) {
        assert_eq!(node.code(&["data", "drop", &id]), 0);
    }
}

#[test]
fn subvolumes_in_the_data_are_refused_or_left_in_place() {
    let test = "subvolumes_in_the_data_are_refused_or_left_in_place";
    for (is_subvolume, nested) in
        [(true, "uploads"), (true, "a/uploads"), (false, "uploads"), (false, "a/uploads")]
    {
        let Some(mounted) = Mounted::new(test, "btrfs") else { return };
        let root = mounted.path().join("root");
        fs::create_dir(&root).unwrap();
        let make = |path: &Path| {
            let made = Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(path).status();
            assert!(made.is_ok_and(|made| made.success()), "{path:?}");
        };
        if is_subvolume {
            make(&root.join("data"));
        }
        let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
        assert_eq!(node.update(1), 0);
        let uploads = node.data().join(nested);
        fs::create_dir_all(uploads.parent().unwrap()).unwrap();
        make(&uploads);
        fs::write(uploads.join("picture"), "picture").unwrap();
        let inode = fs::metadata(uploads.join("picture")).unwrap().ino();
        assert_refused(&node, 2, nested);

        let node = with_data(node, &format!("leave = ['{nested}']"));
        assert_eq!(node.update(2), 0);
        fs::write(node.data().join("records"), "new").unwrap();
        fs::write(uploads.join("later"), "later").unwrap();
        assert_eq!(node.code(&["rollback"]), 0);
        assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old");
        assert_eq!(fs::metadata(uploads.join("picture")).unwrap().ino(), inode, "it is another subvolume");
        fs::write(uploads.join("again"), "again").unwrap();
        for id in aside(&node) {
            assert_eq!(node.code(&["data", "drop", &id]), 0);
        }
        for name in ["picture", "later", "again"] {
            assert!(uploads.join(name).exists(), "{name}");
        }
        assert_eq!(node.code(&["unhold"]), 0);
    }
}
