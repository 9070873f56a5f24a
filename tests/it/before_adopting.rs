//! What an operator meets before the first release is taken over, and small refusals of the command line.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::data::Mount;
use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, needs_root, text};

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
        fs::write(current.join("VERSION"), "1").unwrap();
        let checked = node.run(&["config", "check"]);
        let said = text(&node.run(&["status"]).stdout);
        let status = node.status();
        let next = status["next"].to_string();
        let told = (checked.status.code(), next.contains("cutover adopt"), said.contains("NEEDS A PERSON"));
        assert_eq!(told, (Some(0), true, false), "{}{said}", text(&checked.stderr));
        assert!(text(&checked.stderr).contains("cutover adopt"), "{}", text(&checked.stderr));
        assert!(said.contains("cutover adopt"), "{said}");
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
fn a_tree_with_a_mount_in_it_is_not_adopted() {
    let name = "a_tree_with_a_mount_in_it_is_not_adopted";
    if !needs_root(name) {
        return;
    }
    let node = TestNode::new(&[]);
    let (old, users) = (node.root().join("old"), node.path("users"));
    for path in [&old.join("up"), &users] {
        fs::create_dir_all(path).unwrap();
    }
    for file in [&old.join("VERSION"), &users.join("picture")] {
        fs::write(file, "1").unwrap();
    }
    let (users, itself) = (users.to_str().unwrap(), old.to_str().unwrap());
    let picture = format!("{users}/picture");
    for (arguments, at) in [
        (["-t", "tmpfs", "none"], "up"),
        (["--bind", users, "--"], "up"),
        (["--bind", &picture, "--"], "VERSION"),
    ] {
        let Some(_mount) = Mount::new(&arguments, &old.join(at)) else { return };
        let adopted = node.run(&["adopt", old.to_str().unwrap(), "--version", "1"]);
        let told = text(&adopted.stderr);
        assert_eq!(adopted.status.code(), Some(12), "{told}");
        assert!(told.contains(old.join(at).to_str().unwrap()) && told.contains("[links]"), "{told}");
        assert!(old.join("VERSION").exists() && node.active().is_none());
        assert_eq!(node.code(&["adopt", "--undo"]), 1, "nothing was begun");
    }
    // A directory that cannot be moved, though it is on the same device, is copied.
    {
        let _mount = Mount::new(&["--bind", itself], &old).unwrap();
        assert_eq!(node.code(&["adopt", old.to_str().unwrap(), "--version", "1"]), 0);
    }
    assert!(old.join("VERSION").exists() && node.root().join("current/VERSION").exists());
    assert_eq!(node.code(&["verify"]), 0);
}

#[test]
fn a_tree_with_a_fifo_or_a_device_is_refused_by_its_name() {
    let node = TestNode::new(&[]);
    let old = node.root().join("old");
    fs::create_dir_all(old.join("run")).unwrap();
    fs::write(old.join("VERSION"), "1").unwrap();
    mkfifo(&old.join("run/queue"), Mode::S_IRWXU).unwrap();
    let (tree, archive) = (old.to_str().unwrap(), node.path("app-1.tar.zst"));
    for words in [
        &["adopt", tree, "--version", "1"][..],
        &["pack", tree, "--product", "app", "--version", "1", "-o", archive.to_str().unwrap()],
    ] {
        let refused = node.run(words);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(12), "{told}");
        assert!(told.contains("run/queue") && told.contains("leave it out"), "{told}");
        assert!(!told.contains("the disk"), "{told}");
    }
    assert!(old.join("VERSION").exists() && node.active().is_none() && !archive.exists());
    let undone = node.run(&["adopt", "--undo"]);
    assert_eq!(undone.status.code(), Some(1));
    assert!(!text(&undone.stderr).contains("the disk"), "{}", text(&undone.stderr));
}

#[test]
fn settings_that_do_nothing_are_a_warning() {
    let node = TestNode::new(&[]);
    node.add("[source]\nkeys = ['/no/such/keys']\n[metrics]\ntextfile = 'app.prom'\n");
    let checked = node.run(&["config", "check"]);
    let told = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{told}");
    assert!(told.contains("/no/such/keys") && told.contains("app.prom"), "{told}");
}

#[test]
fn keys_that_no_update_could_do_with_are_told_by_config_check() {
    let node = TestNode::new(&[]);
    let team = node.path("team");
    assert_eq!(node.code(&["keygen", team.to_str().unwrap()]), 0);
    fs::write(node.path("text"), "no key\n").unwrap();
    let plain = fs::read_to_string(node.config()).unwrap();
    let keys = |name: &str| format!("keys = ['{}']\n", node.path(name).display());
    for (more, code, told) in [
        (keys("team.pub"), 0, None),
        (
            keys("team.pub") + "threshold = 2\n",
            0,
            Some("one key is trusted here, and `[source] threshold` asks for 2"),
        ),
        (keys("text"), 2, Some("no public key")),
    ] {
        fs::write(node.config(), format!("{plain}[source]\nurl = '/mnt/releases'\n{more}")).unwrap();
        let checked = node.run(&["config", "check"]);
        let said = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(code), "{more}{said}");
        assert_eq!(said.contains("key"), told.is_some(), "{more}{said}");
        assert!(told.is_none_or(|told| said.contains(told)), "{more}{said}");
    }
}

#[test]
fn a_root_in_which_no_update_can_work_is_refused_by_config_check() {
    let node = TestNode::new(&[Health::Good]);
    let releases = node.root().join("releases");
    let tmpfs = ["-t", "tmpfs", "-o", "mode=755", "none"];
    let Some(_mount) = Mount::new(&tmpfs, &releases) else { return };
    let checked = node.run(&["config", "check"]);
    let told = text(&checked.stderr);
    assert_eq!((checked.status.code(), node.update(1)), (Some(2), 2), "{told}");
    assert!(told.contains("is not on the file system of"), "{told}");
}

#[test]
fn a_link_to_a_release_that_a_person_wrote_in_other_words_is_a_pointer() {
    for begin in ["", "./", "/"] {
        let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
        assert_eq!((node.update(1), node.update(2)), (0, 0));
        let current = node.root().join("current");
        let target = match begin {
            "/" => node.root().join("releases/1").to_str().unwrap().to_owned(),
            begin => format!("{begin}releases/1"),
        };
        fs::remove_file(&current).unwrap();
        symlink(&target, &current).unwrap();
        let status = text(&node.run(&["status", "--json"]).stdout);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["active"]["version"], "1", "{target}");
        assert_eq!(node.code(&["rollback", "--check"]), 0, "{target}");
        assert_eq!(node.update(3), 0, "{target}");
        assert_eq!(fs::read_link(&current).unwrap().to_str(), Some("releases/3"));
    }
    // A tree that nothing tells of was installed by hand, however the link says it.
    let node = TestNode::new(&[Health::Good]);
    let by_hand = node.root().join("releases/20260131120000");
    fs::create_dir_all(&by_hand).unwrap();
    fs::write(by_hand.join("well"), "").unwrap();
    symlink(&by_hand, node.root().join("current")).unwrap();
    assert_eq!(node.update(1), 14);
    assert_eq!(node.code(&["adopt", node.root().join("current").to_str().unwrap()]), 0);
    assert_eq!(node.update(1), 0);
}

#[test]
fn a_root_that_somebody_has_fixed_is_seen_before_anything_stops() {
    let name = "a_root_that_somebody_has_fixed_is_seen_before_anything_stops";
    let Some(mounted) = Mounted::new(name, "ext4") else { return };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good; 3]).with_root(&root);
    // Data that would have to come back are looked at by themselves.
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("on_rollback = 'restore'", "on_rollback = 'keep'")).unwrap();
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let chattr =
        |flag: &str| assert!(Command::new("chattr").arg(flag).arg(&root).status().unwrap().success());
    for (set, unset) in [("+i", "-i"), ("+a", "-a")] {
        chattr(set);
        let told = [node.update(3), node.code(&["rollback", "--check"]), node.code(&["rollback"])];
        chattr(unset);
        assert_eq!(told, [15, 2, 2], "{set}");
        assert_eq!(node.active().as_deref(), Some("2"));
    }
    assert_eq!(node.update(3), 0);
}

#[test]
fn a_tree_of_which_nothing_is_known_is_told_as_such() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    fs::remove_file(node.root().join(".cutover/manifests/1.json")).unwrap();
    let verified = node.run(&["verify", "1"]);
    let told = text(&verified.stderr);
    assert_eq!(verified.status.code(), Some(14), "{told}");
    assert!(told.contains("manifests/1.json` is missing") && !told.contains("move `"), "{told}");
    assert_eq!(node.code(&["adopt", node.root().join("current").to_str().unwrap(), "--version", "1"]), 0);
    assert_eq!(node.code(&["verify", "1"]), 0);
}

#[test]
fn moments_in_the_past_are_refused() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.code(&["stage", node.archive(2).to_str().unwrap(), "--allow-unsigned"]), 0);
    let past = "2020-01-01T00:00:00Z";
    let typed = [&["switch", "2", "--at", past][..], &["hold", "--until", past], &["hold", "--until", "0s"]];
    assert_eq!(typed.map(|words| node.code(words)), [2, 2, 2]);
    assert_eq!(node.active().as_deref(), Some("1"));
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
    let told = (status["data"]["aside"].as_array().unwrap().len(), &status["hold"]["reason"]);
    assert_eq!(told, (1, &"rolled back by hand".into()), "{status}");
}

#[test]
fn what_could_not_be_verified_later_is_not_adopted_and_what_is_empty_is_told() {
    let node = TestNode::new(&[]);
    let old = node.root().join("old");
    fs::create_dir(&old).unwrap();
    let adopt = || node.run(&["adopt", old.to_str().unwrap(), "--version", "1"]);
    let empty = adopt();
    assert_eq!(empty.status.code(), Some(0), "{}", text(&empty.stderr));
    assert!(text(&empty.stderr).contains("was empty"), "{}", text(&empty.stderr));
    assert_eq!(node.code(&["adopt", "--undo"]), 0);
    // Deeper than any path that the kernel takes.
    let deep = format!(
        "n=$(printf '%0200d' 0); cd {} && for i in $(seq 25); do mkdir $n && cd $n; done",
        old.display()
    );
    assert!(Command::new("bash").args(["-c", &deep]).status().unwrap().success());
    let long = adopt();
    assert_eq!(long.status.code(), Some(12), "{}", text(&long.stderr));
    assert!(text(&long.stderr).contains("4095 bytes"), "{}", text(&long.stderr));
    assert!(old.exists() && node.active().is_none());
    // What is removed as far as it is listed, where paths are too long.
    assert!(Command::new("rm").arg("-rf").arg(&old).status().unwrap().success());
}

/// A socket is its program's: `pack` leaves it out, and says so.
#[test]
fn sockets_that_are_not_packed_are_named() {
    let node = TestNode::new(&[Health::Good]);
    let tree = node.path("tree-1");
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("app.sock")).unwrap();
    let archive = node.path("again.tar.zst");
    let words = ["--json", "pack", tree.to_str().unwrap(), "--product", "app", "--version", "1", "-o"];
    let packed = node.command(&words).arg(&archive).output().unwrap();
    assert!(packed.status.success() && text(&packed.stderr).contains("`app.sock` is a socket"), "{packed:?}");
    let told: serde_json::Value = serde_json::from_slice(&packed.stdout).unwrap();
    assert_eq!(told["left_out"], serde_json::json!(["app.sock"]));
}

/// A directory `old` beside the root's own, with a release in it.
fn installed_by_hand(node: &TestNode) -> std::path::PathBuf {
    let old = node.root().join("old");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("VERSION"), "1").unwrap();
    fs::create_dir(old.join("bin")).unwrap();
    fs::write(old.join("bin/app"), "the same in all").unwrap();
    old
}

#[test]
fn data_and_links_that_an_adoption_would_break_are_named_first() {
    let node = TestNode::new(&[]);
    let old = installed_by_hand(&node);
    let refused = |what: &std::path::Path, hint: &str| {
        let adopted = node.run(&["adopt", old.to_str().unwrap(), "--version", "1"]);
        let told = text(&adopted.stderr);
        assert_eq!(adopted.status.code(), Some(12), "{told}");
        assert!(told.contains(what.to_str().unwrap()) && told.contains(hint), "{told}");
        assert!(old.join("VERSION").exists() && node.names("releases").is_empty());
    };
    // Also where they are not there yet, or are named by another path.
    let users = old.join("users");
    symlink(&old, node.path("link")).unwrap();
    let plain = fs::read_to_string(node.config()).unwrap();
    for path in [users, node.path("link/users")] {
        let more = format!("[[data]]\npath = '{}'\n", path.display());
        fs::write(node.config(), format!("{plain}{more}")).unwrap();
        refused(&path, "[[data]]");
    }
    fs::write(node.config(), &plain).unwrap();
    fs::create_dir(node.root().join("uploads")).unwrap();
    symlink("../../uploads", old.join("bin/up")).unwrap();
    refused(&old.join("bin/up"), "absolute");
    fs::remove_file(old.join("bin/up")).unwrap();
    // Links within the tree, to an absolute path, or to nothing, lead where they did.
    for (target, name) in [("../bin/app", "within"), ("/usr", "absolute"), ("../../nothing", "nowhere")] {
        symlink(target, old.join("bin").join(name)).unwrap();
    }
    assert_eq!(node.code(&["adopt", old.to_str().unwrap(), "--version", "1"]), 0);
    assert_eq!(node.code(&["verify"]), 0);
}

#[test]
fn an_adoption_killed_before_any_change_is_finished_or_undone_by_recover() {
    let mut ends = std::collections::BTreeSet::new();
    for change in 0..40 {
        let node = TestNode::new(&[Health::Good]);
        let current = node.root().join("current");
        fs::rename(installed_by_hand(&node), &current).unwrap();
        fs::write(current.join("well"), "").unwrap();
        let adopt = ["adopt", current.to_str().unwrap(), "--version", "1"];
        let stop = format!("{change}:kill");
        let killed = node.command(&adopt).env("CUTOVER_STOP_BEFORE", stop).output().unwrap();
        if killed.status.code() == Some(0) {
            assert_eq!(ends.into_iter().collect::<Vec<_>>(), [false, true], "after {change} changes");
            return;
        }
        let is_gone = !current.exists();
        let said = text(&node.run(&["status"]).stdout);
        assert!(!is_gone || said.contains("cutover recover"), "{change}: {said}");
        assert!(!is_gone || text(&node.run(&adopt).stderr).contains("`cutover recover`"), "{change}");
        assert_eq!(node.code(&["recover"]), 0, "{change}");
        ends.insert(node.active().is_some());
        if node.active().is_none() {
            assert_eq!(node.code(&adopt), 0, "{change}");
        }
        assert_eq!((node.active().as_deref(), node.code(&["verify"])), (Some("1"), 0), "{change}");
        assert_eq!(node.code(&["adopt", "--undo"]), 0, "{change}");
        assert!(current.join("VERSION").exists() && !current.is_symlink(), "{change}");
    }
    panic!("it never ended");
}

#[test]
fn a_tree_from_another_file_system_comes_as_it_is_and_can_be_given_back() {
    let name = "a_tree_from_another_file_system_comes_as_it_is_and_can_be_given_back";
    let Some(mounted) = Mounted::new(name, "ext4") else { return };
    let (old, node) = (mounted.path().join("old"), TestNode::new(&[]));
    let script = "mkdir -p $0/a && echo x >$0/a/1 && ln $0/a/1 $0/2 && chown -R 1000:1000 $0 && chmod 2700 $0 && \
                  setfattr -n user.k -v v $0 && touch -d 2001-01-01 $0 && chattr +i $0/a/1";
    assert!(Command::new("sh").args(["-c", script]).arg(&old).status().unwrap().success());
    assert_eq!(node.code(&["adopt", old.to_str().unwrap(), "--version", "1"]), 0);
    let look = "cd $0 && find . -printf '%p %y %m %U %G %T@ %n\\n' | sort && getfattr -d . && lsattr -R . | grep -c '^----i'";
    let [before, after] = [&old, &node.root().join("releases/1")]
        .map(|path| text(&Command::new("sh").args(["-c", look]).arg(path).output().unwrap().stdout));
    assert!(before.contains("user.k"), "{before}");
    assert_eq!(after, before);
    assert_eq!((node.code(&["verify"]), node.code(&["adopt", "--undo"])), (0, 0));
    assert!(node.names("releases").is_empty() && old.join("2").exists());
}
