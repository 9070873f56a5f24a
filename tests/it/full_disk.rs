//! Real file systems that are full: nothing is begun that does not fit, and going back always works.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::filesystems::{METHODS, Mounted};
use crate::node::{Health, TestNode, text};

const KINDS: [&str; 3] = ["ext4", "xfs", "btrfs"];

/// A node whose root is on a small file system of that kind.
fn node_on(test: &str, kind: &'static str, releases: &[Health]) -> Option<(TestNode, Mounted)> {
    Some(node_in(Mounted::new(test, kind)?, releases))
}

fn node_in(mounted: Mounted, releases: &[Health]) -> (TestNode, Mounted) {
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    (TestNode::new(releases).with_root(&root), mounted)
}

/// Writes until nothing more fits; small pieces last, so that the last block is taken too.
fn fill(place: &Path) {
    let mut filler = File::create(place.join("filler")).unwrap();
    write_all_that_fits(&mut filler);
}

fn write_all_that_fits(filler: &mut File) {
    for piece in [1 << 20, 64 << 10, 4096, 512, 1] {
        let piece = vec![7; piece];
        while filler.write_all(&piece).and_then(|()| filler.sync_data()).is_ok() {}
    }
}

/// Makes files until there is no inode left. How many there are, all in all.
fn take_inodes(place: &Path) -> u32 {
    let folder = place.join("inodes");
    fs::create_dir_all(&folder).unwrap();
    let is_made = |number: &u32| {
        folder.join(number.to_string()).exists() || File::create(folder.join(number.to_string())).is_ok()
    };
    let taken = (0..).take_while(is_made).last().unwrap();
    assert!(File::create(folder.join("one more")).is_err());
    taken + 1
}

/// Takes every byte and every inode.
fn fill_with_inodes(place: &Path) {
    const LEFT_FOR_INODES: u64 = 8 << 20;
    let mut filler = File::create(place.join("filler")).unwrap();
    let free = || {
        nix::sys::statvfs::statvfs(place)
            .map(|found| found.blocks_available() * found.fragment_size())
            .unwrap()
    };
    while free() > LEFT_FOR_INODES
        && filler.write_all(&[7; 1 << 20]).and_then(|()| filler.sync_data()).is_ok()
    {}
    take_inodes(place);
    write_all_that_fits(&mut filler);
    assert!(File::create(place.join("inodes/one more")).is_err());
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    for kind in KINDS {
        let test = "what_does_not_fit_is_refused_before_anything_is_written";
        let Some((node, mounted)) = node_on(test, kind, &[Health::Good]) else { return };
        assert_eq!(node.update(1), 0, "{kind}");
        let tree = node.path("large");
        fs::create_dir(&tree).unwrap();
        let mut file = File::create(tree.join("data")).unwrap();
        for _ in 0..500 {
            file.write_all(&[1; 1 << 20]).unwrap();
        }
        let archive = node.path("app-2.tar");
        let tar =
            std::process::Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).arg(".").status();
        assert!(tar.unwrap().success());
        let before = node.names(".cutover/staging");
        let told = node.run(&["stage", archive.to_str().unwrap(), "--allow-unsigned"]);
        assert_eq!(told.status.code(), Some(16), "{kind}: {}", text(&told.stderr));
        assert!(text(&told.stderr).contains("prune"), "{}", text(&told.stderr));
        assert_eq!(node.names(".cutover/staging"), before, "{kind}");
        assert_eq!(node.active().as_deref(), Some("1"), "{kind}");
        drop(mounted);
    }
}

#[test]
fn with_zero_free_bytes_and_inodes_a_node_still_goes_back() {
    for kind in KINDS {
        goes_back("with_zero_free_bytes_and_inodes_a_node_still_goes_back", kind, "auto");
    }
}

fn goes_back(test: &str, kind: &'static str, method: &str) {
    let Some((node, mounted)) = node_on(test, kind, &[Health::Good, Health::Good]) else { return };
    let node = node.with_method(method);
    assert_eq!(node.update(1), 0, "{kind} {method}");
    assert_eq!(node.update(2), 0, "{kind} {method}");
    fill_with_inodes(&mounted.path());
    assert_eq!(node.code(&["status"]), 0, "{kind} {method}");
    assert_eq!(node.code(&["recover"]), 0, "{kind} {method}");
    assert_eq!(node.code(&["rollback", "--data", "keep"]), 0, "{kind} {method}");
    assert_eq!(node.active().as_deref(), Some("1"), "{kind} {method}");
    assert_eq!(node.code(&["status"]), 0, "{kind} {method}");
}

/// There is room for bytes, and so the first change spends nothing of what is reserved: the journal may fit, and what is made
/// after it not.
#[test]
fn with_few_free_inodes_a_node_still_goes_back() {
    const AGAIN: u32 = 300;
    let test = "with_few_free_inodes_a_node_still_goes_back";
    let data = "[[data]]\npath = '";
    let mut ended = Vec::new();
    for (with_data, words, records) in [
        (true, &["rollback"][..], "old"),
        (true, &["rollback", "--data", "keep"], "of 2"),
        (false, &["rollback"], "of 2"),
    ] {
        // The fewer inodes there are, the sooner they are used up.
        let Some(mounted) = Mounted::sized(test, "ext4", 100) else { return };
        let (node, mounted) = node_in(mounted, &[Health::Good, Health::Good]);
        if !with_data {
            let config = fs::read_to_string(node.config()).unwrap();
            fs::write(node.config(), config.split_once(data).unwrap().0).unwrap();
        }
        let remove = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                fs::remove_file(mounted.path().join("inodes").join(number.to_string())).unwrap();
            }
        };
        assert_eq!(node.update(1), 0);
        for left in 1..=4 {
            fs::write(node.data().join("records"), "old").unwrap();
            assert_eq!(node.update(2), 0, "{words:?}: before {left} inodes");
            fs::write(node.data().join("records"), "of 2").unwrap();
            let taken = take_inodes(&mounted.path());
            remove(taken - left..taken);
            let told = (node.code(words), node.active());
            if told == (0, Some("1".to_owned())) {
                assert_eq!(
                    fs::read_to_string(node.data().join("records")).unwrap(),
                    records,
                    "{left} inodes"
                );
                assert!(!node.has_journal(), "{words:?}: {left} inodes");
            } else {
                ended.push((words, with_data, left, told));
            }
            remove(taken - left - AGAIN..taken - left);
            if node.has_journal() {
                node.code(&["recover"]);
            }
            assert_eq!(node.code(&["unhold"]), 0);
        }
    }
    assert_eq!(ended, []);
}

#[test]
fn an_update_onto_a_full_disk_fails_cleanly_and_works_when_there_is_room() {
    for kind in KINDS {
        waits_for_room("an_update_onto_a_full_disk_fails_cleanly_and_works_when_there_is_room", kind, "auto");
    }
}

/// Everything below the root but the locks, which are always there once they were needed.
fn entries(node: &TestNode) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![node.root()];
    while let Some(path) = left.pop() {
        let name = path.strip_prefix(node.root()).unwrap().display().to_string();
        if path.is_dir() && !path.is_symlink() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if !name.ends_with("lock") {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn a_release_that_meets_a_full_disk_leaves_nothing() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    node.offer(2);
    assert_eq!(node.code(&["check"]), 0);
    let mut refused = 0;
    for stop_before in 0..100 {
        let node = node.copy();
        let before = entries(&node);
        let notes = node.path("changes");
        let output = node
            .command(&["stage"])
            .env("CUTOVER_STOP_BEFORE", format!("{stop_before}:enospc"))
            .env("CUTOVER_COUNT_CHANGES", &notes)
            .output()
            .unwrap();
        let told = text(&output.stderr);
        match output.status.code() {
            Some(16) => {
                assert_eq!(entries(&node), before, "change {stop_before}: {told}");
                refused += 1;
            }
            // What must be there all the same spends the reserve.
            code => assert_eq!(code, Some(0), "change {stop_before}: {told}"),
        }
        assert_eq!(node.active().as_deref(), Some("1"), "change {stop_before}");
        if !fs::read_to_string(notes)
            .unwrap()
            .lines()
            .any(|line| line.starts_with(&format!("{stop_before} ")))
        {
            assert!(refused > 3 && stop_before > 15, "{refused} of {stop_before}");
            return;
        }
    }
    panic!("it never ends");
}

fn waits_for_room(test: &str, kind: &'static str, method: &str) {
    let Some((node, mounted)) = node_on(test, kind, &[Health::Good, Health::Good]) else { return };
    let node = node.with_method(method);
    assert_eq!(node.update(1), 0, "{kind} {method}");
    fill(&mounted.path());
    let code = node.update(2);
    assert!([1, 16].contains(&code), "{kind} {method}: {code}");
    assert_eq!(node.active().as_deref(), Some("1"), "{kind} {method}");
    fs::remove_file(mounted.path().join("filler")).unwrap();
    assert_eq!(node.update(2), 0, "{kind} {method}: when there is room again");
}

#[test]
#[ignore = "minutes; run by `make test-crashes`"]
fn a_full_disk_is_survived_by_any_method() {
    for (kind, method) in METHODS {
        goes_back("a_full_disk_is_survived_by_any_method", kind, method);
        waits_for_room("a_full_disk_is_survived_by_any_method", kind, method);
    }
}
