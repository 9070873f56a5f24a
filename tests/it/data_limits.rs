//! What file systems cannot do with data is found before anything stops: renames, and more files.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::data::{Mount, error_of, with_data};
use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, needs_root, text};

/// An overlay with these directories in its lower layer, mounted over the node's root.
fn overlay(node: &TestNode, upper: &Path) -> Option<Mount> {
    let [lower, upper, work] = [node.path("lower"), upper.join("upper"), upper.join("work")];
    for directory in [&lower, &upper, &work] {
        fs::create_dir_all(directory).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(node.root().join(".")).arg(&lower).status();
    assert!(copied.unwrap().success());
    let [lower, upper, work] = [lower, upper, work].map(|path| path.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off");
    Mount::new(&["-t", "overlay", "-o", &options, "none"], &node.root())
}

#[test]
fn what_an_overlay_cannot_rename_is_found_before_anything_stops() {
    let test = "what_an_overlay_cannot_rename_is_found_before_anything_stops";
    for more in ["", "leave = ['kept/a']"] {
        if !needs_root(test) {
            return;
        }
        let node = with_data(TestNode::new(&[Health::Good, Health::Good]), more);
        let memory = node.path("memory");
        let Some(_memory) = Mount::new(&["-t", "tmpfs", "none"], &memory) else { return };
        fs::create_dir_all(node.data().join("kept/a")).unwrap();
        fs::create_dir_all(node.data().join("inner")).unwrap();
        let Some(_overlay) = overlay(&node, &memory) else { return };
        assert_eq!(node.code(&["config", "check"]), 2);
        let (code, error) =
            error_of(&node, &["update", node.archive(1).to_str().unwrap(), "--allow-unsigned"]);
        assert!(code == 2 && error.contains("lower layer"), "{code} {error}");
        let script = "cp -a \"$0\" \"$0.new\" && rm -r \"$0\" && mv \"$0.new\" \"$0\"";
        assert!(Command::new("sh").args(["-c", script]).arg(node.data()).status().unwrap().success());
        assert_eq!((node.update(1), node.update(2)), (0, 0));
        fs::write(node.data().join("records"), "new").unwrap();
        assert_eq!(node.code(&["rollback"]), 0);
        assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old");
    }
}

#[test]
fn a_rename_that_does_not_work_is_found_before_anything_stops() {
    let test = "a_rename_that_does_not_work_is_found_before_anything_stops";
    let Some(mounted) = Mounted::new(test, "xfs") else { return };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
    assert_eq!(node.update(1), 0);
    // A quota for all that is made in the root from now on: what is of no such project is not let in. The second time
    // all is of one project but for the data, so that what is new can be renamed, and they can not.
    let steps: [&[&str]; 2] = [&["-p", "10", "+P"], &["-R", "-p", "10", "+P"]];
    for (step, options) in steps.iter().enumerate() {
        if !set_attributes(options, &root) {
            eprintln!("SKIPPED {test}: no projects on xfs here");
            return;
        }
        assert!(step == 0 || set_attributes(&["-R", "-p", "7"], &node.data()));
        let archive = node.archive(2);
        for words in [&["config", "check"][..], &["update", archive.to_str().unwrap(), "--allow-unsigned"]] {
            let (code, error) = error_of(&node, words);
            assert!(code == 2 && error.contains("another project"), "{words:?}: {code} {error}");
        }
        assert!(!node.has_journal() && node.active().as_deref() == Some("1"));
    }
    // The way out that is named.
    assert!(set_attributes(&["-R", "-P"], &root));
    assert_eq!(node.update(2), 0);
    // Who sets such a quota later closes the way back, and reads so before it is needed.
    assert!(set_attributes(&["-p", "10", "+P"], &root));
    for words in [&["rollback", "--check"][..], &["rollback"]] {
        let (code, error) = error_of(&node, words);
        assert!(code == 2 && error.contains("another project"), "{words:?}: {code} {error}");
    }
    assert!(set_attributes(&["-P"], &root));
    assert_eq!(node.code(&["rollback"]), 0);
}

/// With `-R` of all below, too: `chattr -R` itself ends with 1 where there are links.
fn set_attributes(options: &[&str], path: &Path) -> bool {
    let (depth, options) = match options {
        ["-R", options @ ..] => ("1000", options),
        options => ("0", options),
    };
    let mut find = Command::new("find");
    find.arg(path).args(["-maxdepth", depth, "(", "-type", "d", "-o", "-type", "f", ")", "-exec", "chattr"]);
    find.args(options).args(["{}", "+"]).status().is_ok_and(|set| set.success())
}

#[test]
fn data_that_come_back_count_for_the_projects_that_they_counted_for() {
    let test = "data_that_come_back_count_for_the_projects_that_they_counted_for";
    let Some(mounted) = Mounted::new(test, "xfs") else { return };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
    for (tenant, project) in [("one", "11"), ("two", "12")] {
        let tenant = node.data().join(tenant);
        fs::create_dir(&tenant).unwrap();
        fs::write(tenant.join("before"), "").unwrap();
        if !set_attributes(&["-R", "-p", project], &tenant) || !set_attributes(&["+P"], &tenant) {
            eprintln!("SKIPPED {test}: no projects on xfs here");
            return;
        }
        fs::write(tenant.join("within"), "").unwrap();
        fs::hard_link(tenant.join("within"), tenant.join("again")).unwrap();
    }
    let listed = || {
        let output = Command::new("lsattr").arg("-Rp").arg(node.data()).output().unwrap();
        text(&output.stdout)
    };
    let before = listed();
    assert!(before.contains("11 ") && before.contains("P"), "{before}");
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    assert_eq!(node.code(&["rollback"]), 0);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(lines(&before), lines(&listed()));
}

#[test]
fn files_for_which_there_are_no_inodes_are_counted_before_anything_stops() {
    let test = "files_for_which_there_are_no_inodes_are_counted_before_anything_stops";
    let Some(mounted) = Mounted::sized(test, "ext4", 32) else { return };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}[store]\nreserve = '1MiB'\n")).unwrap();
    assert_eq!(node.update(1), 0);
    let free = nix::sys::statvfs::statvfs(&root).unwrap().files_available();
    for number in 0..free * 2 / 3 {
        fs::write(node.data().join(number.to_string()), "").unwrap();
    }
    let (code, error) = error_of(&node, &["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
    assert!(code == 16 && error.contains("files and directories"), "{code} {error}");
    assert!(!node.has_journal() && node.active().as_deref() == Some("1"));
}

#[test]
fn what_is_to_be_left_in_place_is_not_named_through_a_link() {
    let node = TestNode::new(&[Health::Good]);
    fs::create_dir_all(node.data().join("real/up")).unwrap();
    std::os::unix::fs::symlink("real", node.data().join("link")).unwrap();
    let plain = fs::read_to_string(node.config()).unwrap();
    for (left, code) in [("real/up", 0), ("link", 0), ("link/up", 2)] {
        fs::write(node.config(), format!("{plain}leave = ['{left}']\n")).unwrap();
        let checked = node.run(&["config", "check"]);
        assert_eq!(checked.status.code(), Some(code), "{left}: {}", text(&checked.stderr));
    }
}

/// To open a FIFO waits for its other end: nothing here does.
#[test]
fn data_below_what_is_no_directory_are_refused_and_nothing_is_waited_for() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let fifo = node.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for path in [fifo.join("inner"), fifo] {
        let node = node.copy();
        node.add(&format!("[[data]]\npath = '{}'\non_rollback = 'restore'\n", path.display()));
        let archive = node.archive(2);
        for words in [&["config", "check"][..], &["update", archive.to_str().unwrap(), "--allow-unsigned"]] {
            let (code, error) = error_of(&node, words);
            assert!(code == 2 && error.contains("director"), "{words:?}: {code} {error}");
        }
        assert_eq!(node.active().as_deref(), Some("1"));
    }
}

/// Such files share blocks only with their like: a copy that is not of that kind needs room for all of it.
#[test]
fn files_without_copy_on_write_need_no_room_for_another_one() {
    let test = "files_without_copy_on_write_need_no_room_for_another_one";
    let Some(mounted) = Mounted::new(test, "btrfs") else { return };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
    node.add("[store]\nreserve = '8MiB'\n");
    assert_eq!(node.update(1), 0);
    let base = node.data().join("base");
    fs::write(&base, "").unwrap();
    assert!(set_attributes(&["+C"], &base));
    // No two of it fit.
    fs::write(&base, vec![7; 220 << 20]).unwrap();
    assert_eq!(node.update(2), 0);
    fs::write(node.data().join("records"), "new").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old");
    assert_eq!(fs::metadata(&base).unwrap().len(), 220 << 20);
}

/// Directories that stay, because something in them is left in place, must not keep what the newer release gave them.
#[test]
fn what_a_newer_release_let_in_stays_out_after_a_rollback() {
    let test = "what_a_newer_release_let_in_stays_out_after_a_rollback";
    let Some(mounted) = Mounted::new(test, "ext4") else { return };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
    let node = with_data(node, "leave = ['sub/kept']");
    let sub = node.data().join("sub");
    fs::create_dir_all(sub.join("kept")).unwrap();
    let directories = [node.data(), sub];
    let run = |script: &str| {
        let output = Command::new("sh").args(["-ec", script, "sh"]).args(&directories).output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let look = "getfattr --absolute-names -d -m - \"$@\"; lsattr -d \"$@\"; stat -c '%a %u %n' \"$@\"";
    run("setfattr -n user.old -v 1 \"$2\"; setfacl -m u:7:rx \"$2\"; chattr +d \"$2\"");
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let before = run(look);
    run(
        "setfacl -m u:33:rwx -d -m u:33:rwx \"$@\"; setfattr -n user.new -v 2 \"$@\"; chattr +A -d \"$@\"; chmod 777 \"$@\"",
    );
    assert_ne!(run(look), before);
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(run(look), before);
}

/// A file has a path that no system call takes, and another name: there is no limit but that of the depth.
#[test]
fn hard_links_and_flags_very_deep_are_copied() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let script = "cd \"$0\"; for i in $(seq 20); do mkdir $1 && cd $1 || exit 1; done; echo x >f; ln f g; chattr +A f || true";
    let deep = "d".repeat(250);
    assert!(
        Command::new("bash").args(["-c", script]).arg(node.data()).arg(&deep).status().unwrap().success()
    );
    assert_eq!(node.code(&["config", "check"]), 0);
    assert_eq!((node.update(1), node.update(2), node.code(&["rollback"])), (0, 0, 0));
    let script = "cd \"$0\"; for i in $(seq 20); do cd $1 || exit 1; done; stat -c %h f";
    let output = Command::new("bash").args(["-c", script]).arg(node.data()).arg(&deep).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "2");
}

/// A disk with room for the content of the data, and not for their directories or links.
#[test]
fn what_is_no_file_needs_room_too() {
    let test = "what_is_no_file_needs_room_too";
    let scripts = [
        "cd \"$0\"; for i in $(seq 60); do mkdir $i; (cd $i; seq 60 | xargs mkdir); done",
        "cd \"$0\"; long=$(printf 'x%.0s' $(seq 200)); for i in $(seq 3600); do ln -s $long$i $i; done",
    ];
    for script in scripts {
        let Some(mounted) = Mounted::sized(test, "ext4", 40) else { return };
        let root = mounted.path().join("root");
        fs::create_dir(&root).unwrap();
        let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
        assert_eq!(node.update(1), 0);
        assert!(Command::new("bash").args(["-c", script]).arg(node.data()).status().unwrap().success());
        // Room for what files have, and a little more, above the reserve: a tenth.
        let found = nix::sys::statvfs::statvfs(&root).unwrap();
        let filler = (found.blocks_available() - found.blocks() / 10) * found.fragment_size() - (2 << 20);
        let words = ["-l", &filler.to_string()];
        let filled = Command::new("fallocate").args(words).arg(root.join("filler")).status();
        assert!(filled.unwrap().success());
        let archive = node.archive(2);
        for words in [&["config", "check"][..], &["update", archive.to_str().unwrap(), "--allow-unsigned"]] {
            let (code, error) = error_of(&node, words);
            assert!(code == 16 && error.contains("a copy of"), "{words:?}: {code} {error}");
        }
        assert!(!node.has_journal());
    }
}

/// What root may do with data, and the user of this node may not.
#[test]
fn what_only_root_can_copy_or_move_is_refused_before_anything_stops() {
    if !needs_root("what_only_root_can_copy_or_move_is_refused_before_anything_stops") {
        return;
    }
    const USER: u32 = 65534;
    let cases = [
        ("chown 33:33 \"$0\"/*", "", "user or group"),
        ("chown 33 \"$0\"; chmod 755 \"$0\"", "", "written to itself"),
        ("chmod 555 \"$0\"", "", "written to itself"),
        ("mkdir -m 555 \"$0/fixed\"; chown 65534:65534 \"$0/fixed\"", "leave = ['up']", "written to itself"),
        ("chgrp 33 \"$0\"/*", "", "user or group"),
        ("cd \"$0\"; cp /bin/true .; chown 65534:65534 true; setcap cap_net_raw+ep true", "", "capabilities"),
    ];
    for (script, more, named) in cases {
        let node = with_data(TestNode::new(&[Health::Good, Health::Good]), more);
        // The user may not look into root's home, where the program may be.
        let program = node.path("cutover");
        fs::copy(env!("CARGO_BIN_EXE_cutover"), &program).unwrap();
        let owner = format!("{USER}:{USER}");
        assert!(Command::new("chown").args(["-R", &owner]).arg(node.path("")).status().unwrap().success());
        let run = |words: &[&str]| {
            let mut command = Command::new(&program);
            command.args(node.command(words).get_args()).current_dir(node.path("")).uid(USER).gid(USER);
            let output = command.output().unwrap();
            (output.status.code().unwrap(), text(&output.stderr))
        };
        let archives = [node.archive(1), node.archive(2)];
        let [first, second] = archives.each_ref().map(|archive| archive.to_str().unwrap());
        assert_eq!(run(&["config", "check"]), (0, String::new()), "{script}");
        assert_eq!(run(&["update", first, "--allow-unsigned"]).0, 0, "{script}");
        assert!(Command::new("sh").args(["-ec", script]).arg(node.data()).status().unwrap().success());
        for words in [&["config", "check"][..], &["update", second, "--allow-unsigned"]] {
            let (code, error) = run(words);
            assert!(code == 2 && error.contains(named), "{script}: {words:?}: {code} {error}");
        }
        assert!(node.active().as_deref() == Some("1") && !node.has_journal(), "{script}");
        node.set("on_rollback = 'restore'", "on_rollback = 'keep'");
        assert_eq!(run(&["config", "check"]).0, 0, "{script}");
    }
}
