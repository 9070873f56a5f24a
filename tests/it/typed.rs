//! Ctrl-C, typed on a terminal while the program waits for something that it has started: the exit code is as documented,
//! nothing that was started lives on, and the terminal is as it was.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{Termios, tcgetattr};

use crate::fleet::Fleet;
use crate::node::{Health, TestNode};

/// A command on a terminal of its own, which it controls.
struct Typed {
    words: String,
    child: Child,
    keys: File,
    screen: File,
    before: Termios,
}

impl Typed {
    fn begin(node: &TestNode, words: &[&str]) -> Self {
        Self::begin_with(&node.config(), words, &[])
    }

    fn begin_with(config: &Path, words: &[&str], environment: &[(&str, &str)]) -> Self {
        let ends = openpty(None, None).unwrap();
        let (keys, screen) = (File::from(ends.master), File::from(ends.slave));
        let mut command = Command::new("setsid");
        command.env_remove("SUDO_USER").envs(environment.iter().copied());
        command.arg("--ctty").arg(env!("CARGO_BIN_EXE_cutover")).arg("--config").arg(config).args(words);
        let end = || screen.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let before = tcgetattr(&screen).unwrap();
        Self { words: words.join(" "), child, keys, screen, before }
    }

    /// Types Ctrl-C, once or until it has ended.
    fn end_by(&mut self, keys: Keys) -> ExitStatus {
        const CTRL_C: &[u8] = &[0x03];
        let begin = Instant::now();
        nix::unistd::write(&self.keys, CTRL_C).unwrap();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "`{}` does not end", self.words);
            std::thread::sleep(Duration::from_millis(50));
            if keys == Keys::Again {
                nix::unistd::write(&self.keys, CTRL_C).unwrap();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Keys {
    Once,
    Again,
}

/// All processes that one has started, and those that they have.
fn descendants(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let names = fs::read_dir("/proc").unwrap().flatten();
    let all: Vec<u32> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(of) = found.get(next).copied() {
        found.extend(all.iter().filter(|child| parent(**child) == Some(of)));
        next += 1;
    }
    found.split_off(1)
}

fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

type Case = (&'static str, fn(&TestNode, &str), Keys, Result<i32, Signal>, &'static str);

/// A check that hangs as long as this release is active.
fn hang_check(node: &TestNode, release: &str, script: &str) {
    let check = format!("test -e well && if grep -q {release} VERSION; then {script}; fi");
    node.set("'test -e well'] }", &format!("'{check}'] }}\ntimeout = '10min'"));
}

fn hang_command(node: &TestNode, which: &str, script: &str) {
    let (start, stop) = if which == "start" { (script, "true") } else { ("true", script) };
    node.add(&format!("[service]\ncommand = {{ start = '{start}', stop = '{stop}' }}\n"));
}

/// A wrapper of a storage helper.
fn hang_helper(node: &TestNode, script: &str) {
    let wrapper = node.path("wrapper");
    fs::write(&wrapper, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let directory = format!("directory = 'exec:{}'", wrapper.display());
    node.add(&format!(
        "[fleet]\nmode = 'synchronous'\nname = 'a'\nnode = 'a'\nallow_unsigned = true\n{directory}\n"
    ));
}

const INTERRUPTED: Result<i32, Signal> = Err(Signal::SIGINT);

/// What is typed, where it hangs, the keys, how it ends, and the release that is active then, if that is certain.
const CASES: [Case; 10] = [
    ("health", |node, script| hang_check(node, "1", script), Keys::Once, INTERRUPTED, "1"),
    ("fleet status", hang_helper, Keys::Again, INTERRUPTED, "1"),
    (
        "update, the old release is looked at",
        |node, script| hang_check(node, "1", script),
        Keys::Once,
        Ok(1),
        "1",
    ),
    (
        "update, before the switch",
        |node, script| node.pack_with_hook(2, "pre-switch", script),
        Keys::Once,
        Ok(1),
        "1",
    ),
    (
        "update, after the switch",
        |node, script| node.pack_with_hook(2, "post-switch", script),
        Keys::Once,
        Ok(10),
        "1",
    ),
    ("update, in the trial", |node, script| hang_check(node, "2", script), Keys::Once, Ok(10), "1"),
    (
        "update, all is well",
        |node, script| node.pack_with_hook(2, "healthy", script),
        Keys::Once,
        Ok(10),
        "1",
    ),
    (
        "update, services stop",
        |node, script| hang_command(node, "stop", script),
        Keys::Again,
        INTERRUPTED,
        "1",
    ),
    (
        "update, services start",
        |node, script| hang_command(node, "start", script),
        Keys::Again,
        INTERRUPTED,
        "2",
    ),
    (
        "update, in the trial, again",
        |node, script| hang_check(node, "2", script),
        Keys::Again,
        INTERRUPTED,
        "",
    ),
];

#[test]
fn what_was_started_ends_with_whoever_is_interrupted() {
    crate::node::all_at_once(&CASES, |(what, hang, keys, ends, runs)| {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let mark = node.path("mark");
        // One process more than the command itself: its children end, too.
        hang(&node, &format!("sleep 600 & touch {}; wait", mark.display()));
        let archive = node.archive(2);
        let update = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
        let is_update = what.starts_with("update");
        let words: Vec<&str> = if is_update { update.to_vec() } else { what.split(' ').collect() };
        let mut typed = Typed::begin(&node, &words);
        node.wait_until(what, |_| mark.exists());
        let started = descendants(typed.child.id());
        assert!(started.len() >= 2, "{what}: {started:?}");
        let status = typed.end_by(*keys);
        let signal = status.signal().map(|signal| Signal::try_from(signal).unwrap());
        // The first may have ended the check, and the update with it, or the helper, before the second came.
        let is_early = (what.ends_with("again") && status.code() == Some(10))
            || (what == &"fleet status" && status.code() == Some(17));
        assert!(is_early || status.code().ok_or(signal) == ends.map_err(Some), "{what}: {status}");
        for pid in started {
            node.wait_until(&format!("{what}: process {pid} is gone"), |_| is_gone(pid));
        }
        assert!(tcgetattr(&typed.screen).unwrap() == typed.before, "{what}: the terminal is another");
        if !runs.is_empty() {
            assert_eq!(node.active().as_deref(), Some(*runs), "{what}");
        }
        assert_eq!(node.has_journal(), is_update && signal.is_some(), "{what}");
        assert_eq!(node.state()["bad"], serde_json::json!([]), "{what}");
    });
}

/// Where storage does not answer in time, too.
#[test]
fn what_a_wrapper_of_storage_has_started_ends_with_it() {
    let node = TestNode::new(&[]);
    let pid = node.path("pid");
    hang_helper(&node, &format!("sleep 120 &\necho $! >{}; wait", pid.display()));
    node.add("io = '1s'\n");
    assert_eq!(node.code(&["fleet", "status"]), 17);
    let started = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    node.wait_until("what it has started is gone", |_| is_gone(started));
}

/// Ctrl-C reaches all that a terminal has started, the helper that speaks with storage among them.
#[test]
fn a_member_that_is_interrupted_in_its_trial_tells_the_fleet() {
    let fleet = Fleet::new(2, "synchronous", "trial = \"300s\"");
    let config = fs::read_to_string(fleet.config(1)).unwrap();
    fs::write(fleet.config(1), config.replace("min_healthy = \"300ms\"", "min_healthy = \"120s\"")).unwrap();
    fleet.propose("2");
    let mut other = fleet.begin(0);
    let mut typed = Typed::begin_with(&fleet.config(1), &["update"], &[]);
    let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}: {}", fleet.why());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let journal = fleet.root(1).join(".cutover/journal.json");
    let is_on_trial = || fs::read_to_string(&journal).unwrap_or_default().contains("\"name\":\"trial\"");
    wait_until("both have switched", &|| is_on_trial() && fleet.active(0) == "2");
    assert_eq!(typed.end_by(Keys::Once).code(), Some(10));
    // Long before anybody's time is over.
    let began = Instant::now();
    while fleet.all_run() != ["1"] && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let runs = fleet.all_run();
    if runs != ["1"] {
        other.kill().unwrap();
    }
    other.wait().unwrap();
    assert_eq!(runs, ["1"], "{}", fleet.why());
}

/// Units of systemd's leave their mark in all that a login starts.
#[test]
fn who_typed_it_is_written_down() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let people = ["SUDO_USER", "SSH_CONNECTION", "INVOCATION_ID"];
    for (set, by) in [
        (&["INVOCATION_ID"][..], "timer"),
        (&[], me.as_str()),
        (&["INVOCATION_ID", "SSH_CONNECTION"], me.as_str()),
        (&["INVOCATION_ID", "SUDO_USER"], "bob"),
    ] {
        let mut command = node.command(&["hold"]);
        for name in people {
            command.env_remove(name);
        }
        command.stdin(std::process::Stdio::null()).envs(set.iter().map(|name| (name, "bob")));
        assert!(command.output().unwrap().status.success());
        assert_eq!(node.state()["hold"]["by"], by, "{set:?}");
    }
    let mut typed = Typed::begin_with(&node.config(), &["hold"], &[("INVOCATION_ID", "1")]);
    assert!(typed.child.wait().unwrap().success());
    assert_eq!(node.state()["hold"]["by"], me, "on a terminal");
}
