//! One node as its operator sees it: outcomes, exit codes, messages.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::node::{Health, TestNode, needs_root, text};

#[test]
fn a_sick_release_is_rolled_back_and_not_tried_again() {
    let node = TestNode::new(&[Health::Good, Health::Sick, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 10);
    assert_eq!(node.active().as_deref(), Some("1"));
    let again = node.run(&["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
    assert_eq!(again.status.code(), Some(12));
    assert!(text(&again.stderr).contains("mark-good 2"), "{}", text(&again.stderr));
    assert_eq!(node.update(3), 0);
    assert_eq!(node.active().as_deref(), Some("3"));
}

#[test]
fn a_rollback_goes_to_what_was_committed_and_not_to_what_failed() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Sick]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 0);
    assert_eq!(node.update(3), 10);
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.update(2), 15, "a rollback by hand holds");
    assert_eq!(node.code(&["unhold"]), 0);
    assert_eq!(node.update(2), 0);
}

#[test]
fn an_unhealthy_old_release_blocks_the_switch_unless_it_is_wanted_now() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    fs::remove_file(node.root().join("releases/1/well")).unwrap();
    assert_eq!(node.update(2), 15);
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(!node.has_journal());
    let archive = node.archive(2);
    assert_eq!(node.code(&["update", archive.to_str().unwrap(), "--allow-unsigned", "--now"]), 0);
    assert_eq!(node.active().as_deref(), Some("2"));
}

#[test]
fn two_sick_releases_end_with_a_person_and_no_ping_pong() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 0);
    fs::remove_file(node.root().join("releases/1/well")).unwrap();
    assert_eq!(node.code(&["rollback"]), 14);
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.update(3), 14, "nothing automatic happens");
    let status = text(&node.run(&["status", "--json"]).stdout);
    assert!(status.contains("\"state\":\"needs_person\""), "{status}");
    assert_eq!(node.code(&["recover"]), 14, "still sick");
    assert_eq!(node.code(&["rollback", "2"]), 0, "a person may go to another release");
    assert_eq!(node.active().as_deref(), Some("2"));
    assert_eq!(node.code(&["unhold"]), 0);
    assert_eq!(node.update(3), 0);
}

#[test]
fn a_first_installation_that_fails_leaves_nothing_active() {
    let node = TestNode::new(&[Health::Sick]);
    assert_eq!(node.update(1), 1);
    assert_eq!(node.active(), None);
    assert!(!node.has_journal());
}

#[test]
fn newer_data_are_set_aside_by_a_rollback() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.update(2), 0);
    fs::write(node.data().join("records"), "new").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old");
    let status = text(&node.run(&["status"]).stdout);
    assert!(status.contains("set aside"), "{status}");
}

#[test]
fn of_several_at_once_one_works_and_the_others_name_it() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("min_healthy = '0s'", "min_healthy = '3s'")).unwrap();
    assert_eq!(
        node.code(&["update", node.archive(1).to_str().unwrap(), "--allow-unsigned", "--trial", "0s"]),
        0
    );
    let words = ["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut first = node.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&node, "\"name\":\"trial\"");
    for words in [&words[..], &["prune"]] {
        let other = node.run(words);
        assert_eq!(other.status.code(), Some(11), "{words:?}");
        let message = text(&other.stderr);
        assert!(
            message.contains(&format!("pid {}", first.id())) && message.contains("since 20"),
            "{message}"
        );
    }
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(node.active().as_deref(), Some("2"));
}

#[test]
fn a_person_ends_a_trial_either_way() {
    for (words, code, active) in [(vec!["commit"], 0, "2"), (vec!["rollback", "--now"], 10, "1")] {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let update =
            ["update", node.archive(2).to_str().unwrap(), "--allow-unsigned", "--confirm", "--trial", "60s"]
                .map(str::to_owned);
        let update: Vec<&str> = update.iter().map(String::as_str).collect();
        let mut watcher = node.command(&update).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for(&node, "\"name\":\"trial\"");
        assert_eq!(node.code(&words), 0, "{words:?}");
        assert_eq!(watcher.wait().unwrap().code(), Some(code), "{words:?}");
        assert_eq!(node.active().as_deref(), Some(active), "{words:?}");
    }
}

#[test]
fn a_trial_that_nobody_commits_goes_back() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let archive = node.archive(2);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned", "--confirm", "--trial", "1s"];
    assert_eq!(node.code(&words), 10);
    assert_eq!(node.active().as_deref(), Some("1"));
}

/// Waits until the journal says so.
fn wait_for(node: &TestNode, what: &str) {
    let begin = Instant::now();
    while !fs::read_to_string(node.root().join(".cutover/journal.json")).unwrap_or_default().contains(what) {
        assert!(begin.elapsed() < Duration::from_secs(30), "the journal never said {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is done to a file of ours.
type Breaking = fn(&std::path::Path);

#[test]
fn broken_files_of_ours_are_told_and_lose_nothing() {
    let mut ways: Vec<(&str, Breaking)> = vec![
        ("writable by all", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("flipped", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            fs::write(path, bytes).unwrap();
        }),
        ("newer", |path| fs::write(path, r#"{"format":2,"sum":"x","body":{}}"#).unwrap()),
        ("a link", |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            symlink(&elsewhere, path).unwrap();
        }),
        ("a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    if needs_root("the part about a state file of somebody else") {
        ways.push(("somebody else's", |path| chown(path, Some(1234), None).unwrap()));
    }
    for (how, break_it) in ways {
        let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        assert_eq!(node.update(2), 0);
        let state = node.root().join(".cutover/state.json");
        break_it(&state);
        let told = node.run(&["update", node.archive(3).to_str().unwrap(), "--allow-unsigned"]);
        assert_eq!(told.status.code(), Some(14), "state {how}: {}", text(&told.stderr));
        assert!(text(&told.stderr).contains("hint:"), "state {how}");
        assert_eq!(node.code(&["status"]), 0, "state {how}");
        assert_eq!(node.active().as_deref(), Some("2"), "state {how}");
        // A release that is named can be gone back to without any memory.
        fs::rename(&state, node.path("away")).unwrap();
        assert_eq!(node.code(&["rollback", "1"]), 0, "state {how}");
        assert_eq!(node.active().as_deref(), Some("1"), "state {how}");
    }
}

#[test]
fn a_broken_journal_stops_what_is_automatic_and_nothing_else() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let journal = node.root().join(".cutover/journal.json");
    let is_refused = |how: &str| {
        let told = node.run(&["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
        assert_eq!(told.status.code(), Some(14), "{how}");
        assert!(text(&told.stderr).contains(how), "{how}: {}", text(&told.stderr));
        assert_eq!(node.code(&["recover"]), 14, "{how}");
        assert_eq!(node.code(&["status"]), 0, "{how}");
        assert_eq!(node.active().as_deref(), Some("1"), "{how}");
    };
    fs::write(&journal, "{\"format\":1").unwrap();
    is_refused("it is not a file of cutover's");
    // Whole, and from where nobody may trust it.
    fs::copy(node.root().join(".cutover/state.json"), &journal).unwrap();
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o622)).unwrap();
    is_refused("others may write to it");
    if needs_root("the part about a journal of somebody else") {
        fs::set_permissions(&journal, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&journal, Some(1234), None).unwrap();
        is_refused("it belongs to user 1234");
    }
    fs::remove_file(&journal).unwrap();
    assert_eq!(node.update(2), 0);
}

#[test]
fn a_configuration_that_others_may_write_or_that_has_a_typo_starts_nothing() {
    let node = TestNode::new(&[Health::Good]);
    let good = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), good.replace("min_healthy", "min_helthy")).unwrap();
    let told = node.run(&["update", node.archive(1).to_str().unwrap(), "--allow-unsigned"]);
    assert_eq!(told.status.code(), Some(2));
    let message = text(&told.stderr);
    assert!(message.contains("line 3") && message.contains("did you mean `min_healthy`"), "{message}");
    fs::write(node.config(), &good).unwrap();
    fs::set_permissions(node.config(), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(node.update(1), 2);
    assert_eq!(node.active(), None);
}

#[test]
fn a_pointer_that_was_not_made_here_is_not_touched() {
    for target in ["/etc", "../elsewhere", "releases/none", "releases/../releases/1"] {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let current = node.root().join("current");
        fs::remove_file(&current).unwrap();
        symlink(target, &current).unwrap();
        assert_eq!(node.update(2), 14, "{target}");
        assert_eq!(fs::read_link(&current).unwrap().to_str(), Some(target));
    }
}

#[test]
fn a_directory_made_by_hand_is_adopted_and_gone_back_to() {
    let node = TestNode::new(&[Health::Good, Health::Sick]);
    let by_hand = node.root().join("v1");
    fs::create_dir(&by_hand).unwrap();
    for (name, content) in [("VERSION", "v1"), ("well", "")] {
        fs::write(by_hand.join(name), content).unwrap();
    }
    fs::create_dir(by_hand.join("bin")).unwrap();
    fs::write(by_hand.join("bin/app"), "the same in all").unwrap();
    symlink(&by_hand, node.root().join("current")).unwrap();
    assert_eq!(node.code(&["adopt", node.root().join("current").to_str().unwrap()]), 0);
    assert_eq!(node.active().as_deref(), Some("v1"));
    assert_eq!(node.update(2), 10);
    assert_eq!(node.active().as_deref(), Some("v1"));
    assert_eq!(node.code(&["verify"]), 0);
}

#[test]
fn setuid_files_come_in_only_where_the_node_allows_them() {
    let node = TestNode::new(&[Health::Good]);
    let file = node.path("tree-1/bin/app");
    let plain = fs::read_to_string(node.config()).unwrap();
    for make in ["tar", "pack"] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
        let archive = node.path(&format!("{make}-1.tar.zst"));
        let (tree, to) = (node.path("tree-1"), archive.to_str().unwrap().to_owned());
        let tree = tree.to_str().unwrap();
        let made = match make {
            "tar" => Command::new("tar").args(["--zstd", "-cf", &to, "-C", tree, "."]).status(),
            _ => node.command(&["pack", tree, "--product", make, "--version", "1", "-o", &to, "-q"]).status(),
        };
        assert!(made.unwrap().success());
        let update = ["update", &to, "--allow-unsigned", "--no-rollback"];
        let refused = node.run(&update);
        assert_eq!(refused.status.code(), Some(12), "{make}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("setuid"), "{make}: {}", text(&refused.stderr));
        fs::write(node.config(), format!("{plain}[archive]\nallow_setid = true\n")).unwrap();
        assert_eq!(node.code(&update), 0, "{make}");
        let mode = fs::metadata(node.root().join("current/bin/app")).unwrap().permissions().mode();
        if nix::unistd::geteuid().is_root() {
            assert_eq!(mode & 0o7777, 0o4755, "{make}");
        }
        fs::write(node.config(), &plain).unwrap();
        fs::remove_dir_all(node.root()).unwrap();
        fs::create_dir_all(node.data()).unwrap();
    }
}

#[test]
fn a_changed_tree_does_not_verify() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.code(&["verify"]), 0);
    fs::write(node.root().join("releases/1/bin/app"), "something else!").unwrap();
    assert_eq!(node.code(&["verify"]), 12);
}

#[test]
fn releases_that_nobody_needs_are_pruned_and_the_others_stay() {
    let good = [Health::Good; 8];
    let node = TestNode::new(&good);
    for number in 1..=3 {
        assert_eq!(node.update(number), 0);
    }
    assert_eq!(node.code(&["pin", "1"]), 0);
    for number in 4..=8 {
        assert_eq!(node.update(number), 0);
    }
    assert_eq!(node.names("releases"), ["1", "5", "6", "7", "8"]);
}

/// A node of which `2` is surplus.
fn with_surplus() -> TestNode {
    let node = TestNode::new(&[Health::Good; 4]);
    for number in 1..=4 {
        assert_eq!(node.update(number), 0);
    }
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}[store]\nkeep = 1\n")).unwrap();
    node
}

#[test]
fn what_was_not_staged_here_is_left_alone() {
    let node = with_surplus();
    let by_hand = node.root().join("releases/by-hand");
    fs::create_dir(&by_hand).unwrap();
    fs::write(by_hand.join("only copy"), "precious").unwrap();
    fs::remove_file(node.root().join(".cutover/manifests/1.json")).unwrap();
    let told = node.run(&["prune"]);
    assert_eq!(told.status.code(), Some(0));
    let said = text(&told.stdout);
    assert!(said.contains("removed release 2") && said.contains("left alone `by-hand`"), "{said}");
    assert_eq!(node.names("releases"), ["1", "3", "4", "by-hand"]);
}

#[test]
fn one_tree_that_cannot_be_removed_does_not_keep_the_others() {
    if !needs_root("one_tree_that_cannot_be_removed_does_not_keep_the_others") {
        return;
    }
    let node = with_surplus();
    let chattr = |change: &str, path: &std::path::Path| {
        Command::new("chattr").arg(change).arg(path).output().is_ok_and(|output| output.status.success())
    };
    if !chattr("+i", &node.root().join("releases/1/bin/app")) {
        eprintln!(
            "SKIPPED one_tree_that_cannot_be_removed_does_not_keep_the_others: no immutable files here"
        );
        return;
    }
    let told = node.run(&["prune"]);
    let said = text(&told.stdout);
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("release 1: cannot remove") && said.contains("removed release 2"), "{said}");
    assert_eq!(node.names("releases"), ["3", "4"]);
    let again = node.run(&["prune"]);
    assert_eq!(again.status.code(), Some(1), "what is left is told until it is gone");
    assert!(text(&again.stdout).contains("could not clear away"), "{}", text(&again.stdout));
    assert!(chattr("-i", &node.root().join(".cutover/trash/1.0/bin/app")));
    assert_eq!(node.code(&["prune"]), 0);
    assert!(node.names(".cutover/trash").is_empty());
}

#[test]
fn a_tree_in_which_something_is_mounted_is_not_removed() {
    if !needs_root("a_tree_in_which_something_is_mounted_is_not_removed") {
        return;
    }
    let node = with_surplus();
    let (other, place) = (node.path("other"), node.root().join("releases/1/bin"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("precious"), "").unwrap();
    // In a namespace of its own, which takes the mount along when it ends.
    let script = format!(
        "mount --bind '{}' '{}' && exec '{}' --config '{}' prune",
        other.display(),
        place.display(),
        env!("CARGO_BIN_EXE_cutover"),
        node.config().display()
    );
    let told = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let said = text(&told.stdout) + &text(&told.stderr);
    if said.contains("unshare:") || said.contains("mount:") {
        eprintln!("SKIPPED a_tree_in_which_something_is_mounted_is_not_removed: may not mount here");
        return;
    }
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("is mounted there"), "{said}");
    assert!(other.join("precious").exists());
    assert_eq!(node.names("releases"), ["1", "3", "4"]);
    assert_eq!(node.code(&["prune"]), 0);
    assert_eq!(node.names("releases"), ["3", "4"]);
}

#[test]
fn a_disk_that_refuses_before_anything_is_begun_is_a_failure_and_no_emergency() {
    if !needs_root("a_disk_that_refuses_before_anything_is_begun_is_a_failure_and_no_emergency") {
        return;
    }
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let archive = node.archive(2);
    for words in [&["hold"][..], &["rollback"], &["update", archive.to_str().unwrap(), "--allow-unsigned"]] {
        let root = node.root();
        let script = format!(
            "mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}' && exec '{1}' --config '{2}' {3}",
            root.display(),
            env!("CARGO_BIN_EXE_cutover"),
            node.config().display(),
            words.join(" ")
        );
        let told = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        let said = text(&told.stderr);
        if said.contains("unshare:") || said.contains("mount:") {
            eprintln!("SKIPPED a disk that is read-only: may not mount here");
            return;
        }
        assert_eq!(told.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("Read-only file system") && said.contains("release 1 is active"), "{said}");
    }
}

#[test]
fn an_archive_whose_name_is_of_another_product_is_refused() {
    let node = TestNode::new(&[Health::Good; 3]);
    assert_eq!(node.update(1), 0);
    fs::create_dir(node.path("plain")).unwrap();
    let plain = |name: &str, number: u32| {
        let archive = node.path("plain").join(name);
        let words = ["-cf", archive.to_str().unwrap(), "-C"];
        let tree = node.path(&format!("tree-{number}"));
        assert!(Command::new("tar").args(words).arg(tree).arg(".").status().unwrap().success());
        archive.to_str().unwrap().to_owned()
    };
    let update = |archive: &str| node.code(&["update", archive, "--allow-unsigned"]);
    assert_eq!(update(&plain("other-2.tar", 2)), 12);
    assert_eq!(update(&plain("app-2.tar", 2)), 0);
    // The release that runs has no manifest; the one before it had.
    assert_eq!(update(&plain("other-3.tar", 3)), 12);
    let words = ["pack", "--product", "other", "--version", "3", "-q", "-o"];
    let packed = node.path("other-3.tar.zst");
    let (packed, tree) = (packed.to_str().unwrap().to_owned(), node.path("tree-3"));
    assert_eq!(node.code(&[&words[..], &[&packed, tree.to_str().unwrap()]].concat()), 0);
    assert_eq!(update(&packed), 12);
    assert_eq!(node.code(&["update", &plain("any.tar", 3), "--version", "3", "--allow-unsigned"]), 0);
}

#[test]
fn an_archive_in_place_of_a_version_is_told_how_it_is_named() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    let archive = node.archive(1);
    for words in
        [&["verify", "--repair", "FILE"][..], &["verify", "FILE"], &["verify", "1", "--repair", "FILE"]]
    {
        let words: Vec<_> =
            words.iter().map(|word| if *word == "FILE" { archive.to_str().unwrap() } else { word }).collect();
        let output = node.run(&words);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("--from"), "{words:?}: {said}");
    }
}
