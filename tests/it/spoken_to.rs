//! A node can be spoken to at any time: in each phase of an update people's commands act at once, by themselves or through
//! the cutover that is in the middle.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use cutover::store::{Layout, Store};
use cutover::sys::disk::Disk;

use crate::node::{Health, TestNode, all_at_once, text};

/// Begins an update that is not waited for.
fn begin(node: &TestNode, number: u32) -> Child {
    let archive = node.archive(number);
    let words = ["update", archive.to_str().unwrap(), "--allow-unsigned"];
    node.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// A node on release 2 (before it 1), with an update to 3 that waits in its hook before the switch. The hook ends when the
/// file `go` is there, or never.
fn waiting() -> (TestNode, Child) {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    for number in [1, 2] {
        assert_eq!(node.update(number), 0);
    }
    let pid = node.path("hook-pid");
    let script = format!("echo $$ >{}\n{}", pid.display(), node.shell_wait("go"));
    node.pack_with_hook(3, "pre-switch", &script);
    let update = begin(&node, 3);
    node.wait_until("the hook runs", |_| fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    (node, update)
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What is typed one after the other and does not end with 0.
fn refused<'a>(node: &TestNode, typed: &[&'a [&'a str]]) -> Vec<(&'a [&'a str], i32)> {
    let ended = typed.iter().map(|words| (*words, node.code(words)));
    ended.filter(|(_, code)| *code != 0).collect()
}

fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_rollback_calls_off_an_update_that_waits_and_goes_back_at_once() {
    all_at_once(&[&["rollback"][..], &["rollback", "--now"]], |words| {
        let (node, mut update) = waiting();
        assert_eq!(node.status()["update"]["pid"], update.id());
        let code = node.code(words);
        if code != 0 {
            end(&mut update);
        }
        assert_eq!(code, 0, "{words:?}");
        assert_eq!(node.active().as_deref(), Some("1"));
        assert_eq!(update.wait().unwrap().code(), Some(15));
        let pid = fs::read_to_string(node.path("hook-pid")).unwrap();
        node.wait_until("the hook is gone", |_| is_gone(&pid));
        let state = node.state();
        assert!(!state["hold"].is_null() && state["bad"] == serde_json::json!([]), "{state}");
        assert!(!node.has_journal());
    });
}

#[test]
fn without_a_way_back_a_rollback_still_calls_off_what_waits() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let pid = node.path("hook-pid");
    node.pack_with_hook(2, "pre-switch", &format!("echo $$ >{}; sleep 600", pid.display()));
    let mut update = begin(&node, 2);
    node.wait_until("the hook runs", |_| pid.exists());
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(update.wait().unwrap().code(), Some(15));
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(!node.state()["hold"].is_null());
}

#[test]
fn what_is_said_while_an_update_waits_counts_when_it_goes_on() {
    let others =
        [&["unhold"][..], &["pin", "1"], &["unpin", "1"], &["mark-good", "1"], &["status"], &["prune"]];
    all_at_once(&[&["hold"][..], &["mark-bad", "3"]], |words| {
        let (node, mut update) = waiting();
        let refused = refused(&node, &[&others[..], &[words]].concat());
        fs::write(node.path("go"), "").unwrap();
        let code = update.wait().unwrap().code();
        assert_eq!((refused, code), (vec![], Some(15)), "{words:?}");
        assert_eq!(node.active().as_deref(), Some("2"));
        assert!(!node.has_journal());
    });
}

#[test]
fn a_second_update_and_a_recovery_leave_an_update_that_waits_alone() {
    let (node, mut update) = waiting();
    assert_eq!(node.update(3), 11);
    assert_eq!(node.code(&["recover"]), 11);
    assert_eq!(node.code(&["commit"]), 1, "nothing is on trial");
    fs::write(node.path("go"), "").unwrap();
    assert_eq!(update.wait().unwrap().code(), Some(0));
    assert_eq!(node.active().as_deref(), Some("3"));
}

#[test]
fn ctrl_c_ends_a_hook_and_the_update_with_it() {
    let (node, mut update) = waiting();
    signal(&update, Signal::SIGINT);
    assert_eq!(update.wait().unwrap().code(), Some(1));
    let pid = fs::read_to_string(node.path("hook-pid")).unwrap();
    node.wait_until("the hook is gone", |_| is_gone(&pid));
    assert_eq!(node.state()["bad"], serde_json::json!([]), "an operator's wish bans nothing");
    assert_eq!(node.active().as_deref(), Some("2"));
}

/// A node on release 1 with release 2 on trial for long.
fn on_trial() -> (TestNode, Child) {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let node = node.with_trial(600);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("deadline = '20s'", "deadline = '900s'")).unwrap();
    let update = begin(&node, 2);
    node.wait_for_journal("\"name\":\"trial\"");
    (node, update)
}

#[test]
fn a_rollback_ends_a_trial_and_says_how_it_ended() {
    let rounds = [
        (&["rollback", "--reason", "odd answers"][..], true),
        (&["rollback", "--now"], true),
        (&["rollback", "--no-hold"], false),
    ];
    all_at_once(&rounds, |(words, holds)| {
        let (node, mut update) = on_trial();
        let begin = Instant::now();
        let output = node.run(words);
        if !output.status.success() {
            end(&mut update);
        }
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(begin.elapsed() < Duration::from_secs(60));
        assert_eq!(update.wait().unwrap().code(), Some(10));
        assert_eq!(node.active().as_deref(), Some("1"));
        assert_eq!(node.state()["hold"].is_null(), !holds, "{words:?}: {}", node.state());
        assert_eq!(node.state()["bad"], serde_json::json!([]));
    });
}

#[test]
fn ctrl_c_in_a_trial_goes_back_and_holds() {
    let (node, mut update) = on_trial();
    signal(&update, Signal::SIGINT);
    assert_eq!(update.wait().unwrap().code(), Some(10));
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(!node.state()["hold"].is_null());
}

#[test]
fn marks_act_in_a_trial_and_a_ban_ends_it() {
    let (node, mut update) = on_trial();
    let typed = [&["hold"][..], &["unhold"], &["pin", "1"], &["unpin", "1"], &["mark-good", "1"]];
    let mut refused_ones = refused(&node, &typed);
    let state = node.status()["state"].clone();
    refused_ones.extend(refused(&node, &[&["mark-bad", "2"]]));
    if !refused_ones.is_empty() {
        end(&mut update);
    }
    assert_eq!((refused_ones, state), (vec![], "trial".into()));
    assert_eq!(update.wait().unwrap().code(), Some(10));
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.state()["bad"][0]["release"]["version"], "2");
}

/// How often a process has gone to sleep.
fn sleeps(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.map_or(u64::MAX, |count| count.trim().parse().unwrap())
}

#[test]
fn whoever_asks_takes_over_when_the_other_dies() {
    let rounds = [(&["commit"][..], "2"), (&["rollback"], "1"), (&["rollback", "--now"], "1")];
    all_at_once(&rounds, |(words, active)| {
        let (node, mut update) = on_trial();
        signal(&update, Signal::SIGSTOP);
        let mut asking = node.command(words).stdout(Stdio::null()).spawn().unwrap();
        let has_ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        let begin = Instant::now();
        while !node.root().join(".cutover/request.json").exists() && !has_ended(&mut asking) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{words:?}: it does not ask");
            std::thread::sleep(Duration::from_millis(10));
        }
        // It has asked, and waits.
        let before = sleeps(&asking);
        while sleeps(&asking) < before.saturating_add(10) && !has_ended(&mut asking) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{words:?}: it does not wait");
            std::thread::sleep(Duration::from_millis(10));
        }
        end(&mut update);
        while !has_ended(&mut asking) {
            if begin.elapsed() > Duration::from_secs(30) {
                end(&mut asking);
                panic!("{words:?}: it waits for ever");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(asking.wait().unwrap().code(), Some(0), "{words:?}");
        assert_eq!(node.active().as_deref(), Some(*active));
        assert!(!node.has_journal());
    });
}

#[test]
fn a_hook_after_the_switch_is_ended_for_a_rollback() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let pid = node.path("hook-pid");
    node.pack_with_hook(2, "post-switch", &format!("echo $$ >{}; sleep 600", pid.display()));
    let mut update = begin(&node, 2);
    node.wait_until("the hook runs", |_| pid.exists());
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(update.wait().unwrap().code(), Some(10));
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.state()["bad"], serde_json::json!([]));
}

#[test]
fn a_hook_does_not_outlive_the_recovery_of_its_update() {
    for (moment, words) in
        [("pre-switch", &["recover"][..]), ("pre-switch", &["rollback"]), ("post-switch", &["recover"])]
    {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let (pids, once) = (node.path("hook-pids"), node.path("once"));
        // It would go on for ever; a second one, of the recovery, ends at once.
        let script =
            format!("echo $$ >>{}\nif mkdir {}; then sleep 600; fi; true", pids.display(), once.display());
        node.pack_with_hook(2, moment, &script);
        let mut update = begin(&node, 2);
        node.wait_until("the hook runs", |_| once.exists());
        signal(&update, Signal::SIGKILL);
        update.wait().unwrap();
        let first = fs::read_to_string(&pids).unwrap();
        assert!(!is_gone(&first), "{moment}: hooks have groups of their own");
        node.code(words);
        node.wait_until("the hook is gone", |_| is_gone(&first));
        assert!(!node.has_journal(), "{moment}, {words:?}");
    }
}

/// What hangs is often just what makes people go back.
#[test]
fn a_check_that_hangs_keeps_nobody_waiting() {
    for (words, code, active) in
        [(&["rollback"][..], 10, "1"), (&["mark-bad", "2"], 10, "1"), (&["commit"], 0, "2")]
    {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let mark = node.path("mark");
        let hangs = format!("if grep -q 2 VERSION; then touch {}; sleep 600; fi", mark.display());
        node.set("'test -e well'] }", &format!("'{hangs}'] }}\ntimeout = '10min'"));
        let mut update = begin(&node, 2);
        node.wait_until("the check runs", |_| mark.exists());
        let begin = Instant::now();
        assert_eq!(node.code(words), 0, "{words:?}");
        assert_eq!(update.wait().unwrap().code(), Some(code), "{words:?}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{words:?}");
        assert_eq!(node.active().as_deref(), Some(active), "{words:?}");
    }
}

#[test]
fn a_trial_that_a_person_ends_has_that_persons_name() {
    for (words, outcome) in [("rollback", "rolled_back"), ("commit", "committed")] {
        let node = TestNode::new(&[Health::Good, Health::Good]);
        assert_eq!(node.update(1), 0);
        let node = node.with_trial(600);
        node.set("deadline = '20s'", "deadline = '900s'");
        let archive = node.archive(2);
        let mut timer = node.command(&["update", archive.to_str().unwrap(), "--allow-unsigned"]);
        timer.env("INVOCATION_ID", "1").env_remove("SSH_CONNECTION").env_remove("SUDO_USER");
        timer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut update = timer.spawn().unwrap();
        node.wait_for_journal("\"name\":\"trial\"");
        assert!(node.command(&[words]).env("SUDO_USER", "anna").output().unwrap().status.success());
        update.wait().unwrap();
        let last = &node.status()["last"];
        assert_eq!((&last["outcome"], &last["by"]), (&outcome.into(), &"anna".into()), "{last}");
    }
}

/// What `status` names works: the old release is not healthy, and there is no source to look at.
#[test]
fn where_the_old_release_is_sick_status_names_what_helps() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    node.set("test -e well", "grep -q 2 VERSION");
    assert_eq!(node.update(2), 15);
    let status = node.status();
    assert_eq!(status["blocked"][0]["policy"], "baseline", "{status}");
    let next = status["next"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
    let commands: Vec<String> = next.map(|line| line.split("  ").next().unwrap().to_owned()).collect();
    assert_eq!(commands, ["cutover health", "cutover switch 2 --now"]);
    assert_eq!(node.code(&["switch", "2", "--now"]), 0);
}

/// What keeps a unit from being stopped and started is not passed by `--now`, and `status` does not say so.
#[test]
fn where_units_are_in_the_way_status_advises_no_flag() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    node.set("test -e well", "grep -q 2 VERSION");
    assert_eq!(node.update(2), 15);
    let store = Store::open(Layout::new(node.root()), Disk::default()).unwrap();
    let mut memory = store.memory().unwrap();
    memory.units = memory.baseline.take();
    memory.keep().unwrap();
    let status = node.status();
    assert_eq!(status["blocked"][0]["policy"], "units", "{status}");
    let next = status["next"].as_array().unwrap();
    let commands: Vec<_> =
        next.iter().map(|line| line.as_str().unwrap().split("  ").next().unwrap()).collect();
    assert_eq!(commands, ["cutover switch 2"], "{status}");
}

/// Whoever stands still with a lock, and nothing is under way, has no dead man's switch: the next one ends it, after a minute.
#[test]
fn who_stands_still_while_nothing_is_under_way_is_in_nobodys_way() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2), node.update(3)), (0, 0, 0));
    node.add("[store]\nkeep = 2\n");
    let mut stands = node.command(&["prune"]).env("CUTOVER_STOP_BEFORE", "3:stop").spawn().unwrap();
    let stat = format!("/proc/{}/stat", stands.id());
    node.wait_until("it stands still", |_| fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T ")));
    // It may have been stopped for a moment.
    assert_eq!(node.code(&["prune"]), 11);
    for name in ["lock", "staging.lock"] {
        let path = node.root().join(".cutover").join(name);
        let mut holder: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        holder["since"] = "2026-01-01T00:00:00Z".into();
        fs::write(&path, holder.to_string()).unwrap();
    }
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&stands.wait().unwrap()), Some(9));
    assert_eq!((node.active().as_deref(), node.code(&["prune"])), (Some("2"), 0));
}
