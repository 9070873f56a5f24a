//! Odd surroundings: nothing of what a caller leaves behind (limits, closed descriptors, a directory that is gone) changes
//! what an update comes to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output};

use crate::node::{Health, TestNode, text};

/// The real program, begun by a shell that first makes the surroundings odd.
fn in_shell(node: &TestNode, before: &str, words: &[&str]) -> Output {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{before}\nexec \"$@\"")).arg("sh").arg(env!("CARGO_BIN_EXE_cutover"));
    command.arg("--config").arg(node.config()).args(words);
    command.output().unwrap()
}

fn words(archive: &std::path::Path) -> [&str; 3] {
    ["update", archive.to_str().unwrap(), "--allow-unsigned"]
}

#[test]
fn updates_work_in_odd_surroundings() {
    let odd = [
        ("no permission by default", "umask 0777"),
        ("all permissions by default", "umask 000"),
        ("closed descriptors", "exec <&- >&- 2>&-"),
        // 18 will do, and one or two more when all that works side by side meets.
        ("few descriptors", "ulimit -n 24"),
        ("a directory that is gone", "d=$(mktemp -d); cd \"$d\"; rmdir \"$d\""),
        ("no environment", "unset PATH HOME LANG USER"),
        ("a strange locale", "LC_ALL=tr_TR.UTF-8 LANG=xx TZ=Nowhere/Such; export LC_ALL LANG TZ"),
    ];
    for (what, before) in odd {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        for number in [1, 2] {
            let output = in_shell(&node, before, &words(&node.archive(number)));
            assert_eq!(output.status.code(), Some(0), "{what}: {}", text(&output.stderr));
        }
        assert_eq!(node.active().as_deref(), Some("2"), "{what}");
        let lock = fs::metadata(node.root().join(".cutover/lock")).unwrap();
        assert!(lock.mode() & 0o077 == 0 && lock.len() < 4096, "{what}: nothing else ends up in the lock");
        for entry in fs::read_dir(node.root().join("releases")).unwrap().flatten() {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o7777, 0o755, "{what}");
        }
    }
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_end() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let output = in_shell(&node, "ulimit -f 0", &words(&node.archive(2)));
    let said = text(&output.stderr);
    assert!(output.status.code().is_some(), "ended by a signal: {:?}", output.status);
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert_eq!(node.active().as_deref(), Some("1"));
    node.code(&["recover"]);
    assert_eq!(node.update(2), 0);
    // Nor is it one of those that write nothing but their result.
    let result = node.path("result");
    for words in [&["status"][..], &["--help"], &["update", "--help"], &["--version"]] {
        let output = in_shell(&node, &format!("exec >{}; ulimit -f 0", result.display()), words);
        assert!(output.status.code().is_some(), "{words:?}: ended by a signal: {:?}", output.status);
    }
}

#[test]
fn a_result_that_is_lost_is_told() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = node.command(&["status", "--json"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write the result"), "{}", text(&output.stderr));
    // The outcome of an update is the outcome, whoever hears of it.
    let archive = node.archive(2);
    let output = node.command(&words(&archive)).arg("--json").stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(node.active().as_deref(), Some("2"));
    // A reader that has gone away wanted no more.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = node.command(&["log"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

/// `( flock -n 9 && cutover update ) 9>lock`, as in jobs of cron: a service that got 9 would hold the lock as long as it runs.
#[test]
fn nothing_that_the_caller_has_open_reaches_what_is_started() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let (lock, seen) = (node.path("lock"), node.path("seen"));
    let list = format!("ls -l /proc/self/fd >>{}", seen.display());
    node.add(&format!(
        "[service.command]\nstart = '{list}'\nstop = '{list}'\n\
         [[health.check]]\nname = 'files'\nexec = {{ command = ['sh', '-c', '{list}'] }}\n"
    ));
    let hooks = node.path("tree-1/.cutover/hooks");
    fs::create_dir_all(&hooks).unwrap();
    fs::write(hooks.join("committed"), format!("#!/bin/sh\n{list}\n")).unwrap();
    fs::set_permissions(hooks.join("committed"), fs::Permissions::from_mode(0o755)).unwrap();
    node.repack(1);
    let before = format!("exec 9>{}", lock.display());
    let output = in_shell(&node, &before, &words(&node.archive(1)));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.matches("total 0").count() >= 3, "service, check and hook: {seen}");
    assert!(!seen.contains(lock.to_str().unwrap()), "{seen}");
}

/// Nobody prunes it, and a node may have been updated every minute for years.
#[test]
fn a_history_without_end_stops_neither_updates_nor_status() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let history = node.root().join(".cutover/history.jsonl");
    let line = fs::read(&history).unwrap();
    fs::write(&history, line.repeat((33 << 20) / line.len() + 1)).unwrap();
    let codes = [node.code(&["status"]), node.update(2), node.update(3), node.code(&["recover"])];
    assert_eq!((codes, node.active().as_deref()), ([0; 4], Some("3")));
    assert_eq!(node.status()["last"]["to"], "3", "{}", node.status());
}

/// A trial may last for hours, and a history may be long: of it no more is read than its end.
#[test]
fn a_trial_does_not_read_all_of_the_history_in_each_round() {
    const ROUNDS: usize = 20;
    const HISTORY: usize = 4 << 20;
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let (history, rounds) = (node.root().join(".cutover/history.jsonl"), node.path("rounds"));
    let line = fs::read(&history).unwrap();
    fs::write(&history, line.repeat(HISTORY / line.len() + 1)).unwrap();
    node.set("test -e well", &format!("echo >>{}; test -e well", rounds.display()));
    node.set("deadline = '20s'", "deadline = '900s'");
    let node = node.with_trial(600);
    let mut update = node.command(&words(&node.archive(2))).spawn().unwrap();
    node.wait_for_journal("\"name\":\"trial\"");
    let read = || -> usize {
        let counted = fs::read_to_string(format!("/proc/{}/io", update.id())).unwrap();
        counted.lines().next().unwrap().strip_prefix("rchar: ").unwrap().parse().unwrap()
    };
    let is_in_round = |number| {
        node.wait_until("a round", |_| {
            fs::read_to_string(&rounds).is_ok_and(|text| text.lines().count() >= number)
        });
    };
    let before = fs::read_to_string(&rounds).unwrap_or_default().lines().count();
    is_in_round(before + 3);
    let at_first = read();
    is_in_round(before + 3 + ROUNDS);
    let more = read() - at_first;
    update.kill().unwrap();
    update.wait().unwrap();
    assert!(more < ROUNDS * HISTORY / 4, "{more} bytes were read in {ROUNDS} rounds");
}

/// Some file systems of networks refuse to take a lock back.
#[test]
fn a_lock_that_is_not_taken_back_does_not_end_an_update_that_is_through() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let (source, library) = (node.path("refuse.c"), node.path("refuse.so"));
    let refuse = "#include <errno.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
                  int flock(int fd, int how) { if (how == 8) { errno = EIO; return -1; } \
                  return syscall(SYS_flock, fd, how); }\n";
    fs::write(&source, refuse).unwrap();
    let words_of_cc = [library.as_os_str(), source.as_os_str()];
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args(words_of_cc).output().unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let preload = format!("LD_PRELOAD={}; export LD_PRELOAD", library.display());
    for number in [1, 2] {
        let output = in_shell(&node, &preload, &words(&node.archive(number)));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("cannot release a lock"), "the library was not used: {said}");
    }
    assert_eq!(node.active().as_deref(), Some("2"));
}
