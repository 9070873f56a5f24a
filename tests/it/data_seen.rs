//! Data that are seen, or not seen, in other ways than by their path: mounted elsewhere too, used after they were set
//! aside, on a file system that is not mounted or read-only, and without the copy that should come back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::data::{Mount, error_of, with_data};
use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, needs_root, text};

const GOOD: [Health; 3] = [Health::Good; 3];

/// A node with its root on a file system of this kind; `.`: where the tests' files are.
fn node_on(test: &str, kind: &'static str, releases: &[Health]) -> Option<(TestNode, Option<Mounted>)> {
    if !needs_root(test) {
        return None;
    }
    if kind == "." {
        return Some((TestNode::new(releases), None));
    }
    let mounted = Mounted::new(test, kind)?;
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    if kind == "btrfs" {
        subvolume(&root.join("data"));
    }
    Some((TestNode::new(releases).with_root(&root), Some(mounted)))
}

fn subvolume(path: &Path) {
    let made = Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(path).status();
    assert!(made.is_ok_and(|made| made.success()), "{path:?}");
}

fn bind(from: &Path, to: &Path) -> Option<Mount> {
    if from.is_file() {
        fs::write(to, "").unwrap();
        let status = Command::new("mount").arg("--bind").args([from, to]).status();
        return status.unwrap().success().then(|| Mount::at(to));
    }
    Mount::new(&["--bind", from.to_str().unwrap()], to)
}

fn records(node: &TestNode) -> String {
    fs::read_to_string(node.data().join("records")).unwrap()
}

/// What was set aside.
fn aside(node: &TestNode) -> (String, PathBuf) {
    let listed = node.run(&["--json", "data", "list"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let set = &listed["aside"][0];
    (set["id"].as_str().unwrap().into(), set["items"][0]["stored"].as_str().unwrap().into())
}

/// A process with mounts of its own, made by this script.
struct Alone(Child);

impl Alone {
    fn new(script: &str, words: &[&Path]) -> Option<Self> {
        let script = format!("{script} && echo ready && exec sleep 600 >/dev/null");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).args(words);
        let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let alone = Self(child);
        (line == "ready\n").then_some(alone)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asserts that whoever could begin something says so, and that nothing was begun.
fn assert_refused(node: &TestNode, code: i32, named: &str) {
    let archive = node.archive(3);
    let archive = archive.to_str().unwrap();
    let before = node.active();
    for words in [
        &["config", "check"][..],
        &["update", archive, "--allow-unsigned", "--dry-run"],
        &["update", archive, "--allow-unsigned"],
        &["rollback", "--check"],
        &["rollback"],
    ] {
        let (found, error) = error_of(node, words);
        assert!(
            found == code && error.contains(named) && error.contains("hint: "),
            "{words:?}: {found} {error}"
        );
    }
    let back = &node.status()["previous"]["rollback"];
    assert!(back["possible"] == false && back["why_not"].as_str().unwrap().contains(named), "{back}");
    assert!(node.active() == before && !node.has_journal());
}

#[test]
fn data_that_are_mounted_elsewhere_are_not_carried_away_from_there() {
    let test = "data_that_are_mounted_elsewhere_are_not_carried_away_from_there";
    for (kind, within) in [(".", "records"), ("xfs", ""), ("btrfs", "inner")] {
        let Some((node, _mounted)) = node_on(test, kind, &GOOD) else { return };
        fs::create_dir(node.data().join("inner")).unwrap();
        assert_eq!((node.update(1), node.update(2)), (0, 0));
        let ftp = node.path("ftp");
        let Some(_mount) = bind(&node.data().join(within), &ftp) else { return };
        assert_refused(&node, 2, ftp.to_str().unwrap());
        // Who wants the data as they are goes back all the same.
        assert_eq!(node.code(&["rollback", "--data", "keep"]), 0);
    }
}

#[test]
fn what_only_another_process_has_mounted_counts_as_well() {
    let test = "what_only_another_process_has_mounted_counts_as_well";
    let Some((node, _)) = node_on(test, ".", &GOOD) else { return };
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let there = node.path("there");
    fs::create_dir(&there).unwrap();
    let Some(alone) = Alone::new("mount --bind \"$0\" \"$1\"", &[&node.data(), &there]) else { return };
    assert_refused(&node, 2, &format!("process {}", alone.0.id()));
    drop(alone);
    assert_eq!(node.code(&["rollback"]), 0);
}

#[test]
fn mounts_that_follow_are_no_hindrance() {
    let test = "mounts_that_follow_are_no_hindrance";
    let Some((node, _)) = node_on(test, ".", &GOOD) else { return };
    let node = with_data(node, "leave = ['up/loads']");
    fs::create_dir_all(node.data().join("up/loads/in")).unwrap();
    // What holds the data shows what comes back; what is left in place stays, and so do the directories above it.
    let points = ["a", "b", "c", "d", "e"].map(|name| node.path(name));
    let from = [node.root(), node.data(), node.data().join("up"), node.data().join("up/loads")];
    let from = from.into_iter().chain([node.data().join("up/loads/in")]);
    let mounts: Vec<_> = from.zip(&points).map_while(|(from, to)| bind(&from, to)).collect();
    if mounts.len() < points.len() {
        return;
    }
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(node.data().join("records"), "new").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    fs::write(points[3].join("user"), "").unwrap();
    assert!(records(&node) == "old" && node.data().join("up/loads/user").exists());
    assert_eq!(fs::read_to_string(points[1].join("records")).unwrap(), "old");
}

#[test]
fn what_was_set_aside_is_not_deleted_while_somebody_uses_it() {
    let test = "what_was_set_aside_is_not_deleted_while_somebody_uses_it";
    for kind in [".", "btrfs"] {
        let Some((node, _mounted)) = node_on(test, kind, &[Health::Good, Health::Sick]) else { return };
        assert_eq!(node.update(1), 0);
        // Mounted between the look and the way back: a release that fails goes back all the same, and says it.
        let ftp = node.path("ftp");
        fs::create_dir(&ftp).unwrap();
        let script = format!("mount --bind '{}' '{}'", node.data().display(), ftp.display());
        node.pack_with_hook(2, "post-switch", &format!("{script}\nexit 1"));
        assert_eq!(node.update(2), 10);
        let mount = Mount::at(&ftp);
        let reason = node.status()["last"]["reason"].to_string();
        assert!(reason.contains(ftp.to_str().unwrap()), "{reason}");
        fs::write(ftp.join("by-user"), "").unwrap();
        let (id, stored) = aside(&node);
        let (code, error) = error_of(&node, &["data", "drop", &id]);
        assert!(code == 1 && error.contains(ftp.to_str().unwrap()), "{code} {error}");
        assert!(ftp.join("by-user").exists());
        drop(mount);
        let mut user = Command::new("sleep").arg("600").current_dir(&stored).spawn().unwrap();
        // A mount name space that another test has made meanwhile has that mount, too, until it ends.
        let began = Instant::now();
        let (code, error) = loop {
            let (code, error) = error_of(&node, &["data", "drop", &id]);
            if !error.contains("is mounted at") || began.elapsed() > Duration::from_secs(120) {
                break (code, error);
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        user.kill().unwrap();
        user.wait().unwrap();
        assert!(code == 1 && error.contains(&user.id().to_string()), "{code} {error}");
        assert!(stored.join("by-user").exists());
        assert_eq!(node.code(&["data", "drop", &id]), 0);
    }
}

#[test]
fn who_goes_on_with_data_that_were_set_aside_is_named() {
    let test = "who_goes_on_with_data_that_were_set_aside_is_named";
    for kind in [".", "btrfs"] {
        let Some((node, _mounted)) = node_on(test, kind, &[Health::Good, Health::Sick]) else { return };
        assert_eq!(node.update(1), 0);
        let mut user = Command::new("sleep").arg("600").current_dir(node.data()).spawn().unwrap();
        let said = node.run(&["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
        user.kill().unwrap();
        user.wait().unwrap();
        assert_eq!(said.status.code(), Some(10));
        let (_, stored) = aside(&node);
        let (name, stored) = (format!("process {} (sleep)", user.id()), stored.display().to_string());
        let said = text(&said.stderr);
        assert!(said.contains(&name) && said.contains(&stored), "{said}");
    }
}

/// A node whose data are on a file system of their own, which can be away.
fn with_data_on(mounted: &Mounted) -> TestNode {
    let node = TestNode::new(&GOOD);
    let data = mounted.path().join("data");
    node.set(node.data().to_str().unwrap(), data.to_str().unwrap());
    node.add("[store]\nreserve = '1MiB'\n");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("records"), "old").unwrap();
    node
}

#[test]
fn nothing_is_switched_while_the_data_are_not_mounted() {
    let test = "nothing_is_switched_while_the_data_are_not_mounted";
    for before in [1, 2] {
        let Some(mounted) = Mounted::new(test, "ext4") else { return };
        let node = with_data_on(&mounted);
        for number in 1..=before {
            assert_eq!(node.update(number), 0);
        }
        let data = mounted.path().join("data");
        fs::write(data.join("records"), "new").unwrap();
        mounted.unmount();
        let archive = node.archive(3);
        let update = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
        for words in [&["config", "check"][..], &update] {
            let (code, error) = error_of(&node, words);
            assert!(
                code == 15 && error.contains("is their file system mounted"),
                "{words:?}: {code} {error}"
            );
        }
        assert!(node.active() == Some(before.to_string()) && !node.has_journal());
        if before == 1 {
            // Who says that they are gone on purpose goes on.
            fs::create_dir(&data).unwrap();
            assert_eq!(node.update(3), 0);
            fs::remove_dir(&data).unwrap();
            continue;
        }
        for words in [&["rollback", "--check"][..], &["rollback"]] {
            let (code, error) = error_of(&node, words);
            assert!(
                code == 15 && error.contains("is their file system mounted"),
                "{words:?}: {code} {error}"
            );
        }
        // Nor is the copy forgotten, whatever tidies up meanwhile.
        assert_eq!((node.code(&["prune"]), node.code(&["recover"])), (0, 0));
        mounted.mount();
        assert_eq!(node.code(&["rollback"]), 0);
        assert_eq!(fs::read_to_string(data.join("records")).unwrap(), "old");
    }
}

#[test]
fn data_that_are_read_only_are_seen_before_anything_stops() {
    let test = "data_that_are_read_only_are_seen_before_anything_stops";
    let Some((node, _mounted)) = node_on(test, "btrfs", &GOOD) else { return };
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let set = |value| {
        let mut command = Command::new("btrfs");
        command.args(["property", "set", "-f"]).arg(node.data()).args(["ro", value]);
        assert!(command.status().unwrap().success());
    };
    set("true");
    assert_refused(&node, 2, "read-only subvolume");
    set("false");
    assert_eq!(node.code(&["rollback"]), 0);

    let Some(mounted) = Mounted::new(test, "ext4") else { return };
    let node = with_data_on(&mounted);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    mounted.remount("ro");
    assert_refused(&node, 2, "is read-only");
    mounted.remount("rw");
    assert_eq!(node.code(&["rollback"]), 0);
}

#[test]
fn data_that_should_come_back_and_cannot_are_told_of_before_anything_stops() {
    let lose = |node: &TestNode| fs::remove_dir_all(node.root().join(".cutover/snapshots")).unwrap();
    let node = TestNode::new(&GOOD);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(node.data().join("records"), "new").unwrap();
    // What a release must be is not what its data were.
    fs::remove_file(node.root().join(".cutover/manifests/1.json")).unwrap();
    let known = node.copy();
    assert_eq!((known.code(&["rollback"]), records(&known).as_str()), (0, "old"));
    lose(&node);
    let (code, error) = error_of(&node, &["rollback"]);
    assert!(
        code == 2 && error.contains("no copy of the data") && error.contains("--data keep"),
        "{code} {error}"
    );
    assert_eq!(node.active().as_deref(), Some("2"));
    assert_eq!(node.code(&["rollback", "--data", "keep"]), 0);
    assert_eq!(records(&node), "new");
}

#[test]
fn data_of_which_some_have_no_copy_are_told_of_before_anything_stops() {
    let node = TestNode::new(&GOOD);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::write(node.data().join("records"), "new").unwrap();
    let files = node.root().join("files");
    fs::create_dir(&files).unwrap();
    node.add(&format!("[[data]]\npath = '{}'\non_rollback = 'restore'\n", files.display()));
    for words in [&["rollback"][..], &["rollback", "--data", "restore"]] {
        let (code, error) = error_of(&node, words);
        let is_named = error.contains(files.to_str().unwrap()) && error.contains("`cutover rollback 1`");
        assert!(code == 2 && is_named && error.contains("--data keep"), "{words:?}: {code} {error}");
        assert_eq!(node.active().as_deref(), Some("2"));
    }
    assert_eq!(node.code(&["rollback", "1"]), 0);
    assert_eq!((records(&node).as_str(), node.active().as_deref()), ("old", Some("1")));
}

#[test]
fn a_switch_that_has_not_come_to_the_data_is_ended_without_a_copy_of_them() {
    let node = TestNode::new(&GOOD);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    fs::remove_dir_all(node.root().join(".cutover/snapshots")).unwrap();
    let go = node.path("go");
    node.add(&format!("[service.command]\nstart = 'true'\nstop = '{}'\n", node.shell_wait("go")));
    let archive = node.archive(3);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    let mut update = node.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    node.wait_for_journal("\"name\":\"switching\"");
    let rollback = node.command(&["rollback"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let request = node.root().join(".cutover/request.json");
    node.wait_until("the update is asked", |_| request.exists());
    fs::write(&go, "").unwrap();
    let output = rollback.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    update.wait().unwrap();
    assert_eq!((node.active().as_deref(), records(&node).as_str()), (Some("2"), "old"));
}

#[test]
fn a_release_that_fails_goes_back_without_its_copy_and_says_so() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let snapshots = node.root().join(".cutover/snapshots");
    let script = format!("rm -r '{}'/*/\nexit 1", snapshots.display());
    node.pack_with_hook(2, "post-switch", &script);
    assert_eq!(node.update(2), 10);
    let reason = node.status()["last"]["reason"].to_string();
    assert!(reason.contains("stay as they are: their copy is not there"), "{reason}");
    assert!(records(&node) == "old" && node.active().as_deref() == Some("1"));
}
