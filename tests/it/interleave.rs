//! Two commands at once: A is stopped before one of its changes, B runs, A goes on. Whatever the point, one complete release
//! runs, both say how they ended, and nothing that was said is lost: no hold, ban or pin, and no way back.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::node::{Health, TestNode, all_at_once, text};

/// How long B runs by itself; then A goes on beside it, for B may wait for A.
const ALONE: Duration = Duration::from_millis(600);
/// No command here has more changes.
const POINTS_MAX: usize = 400;

/// What the timer runs: to the release that the signed channel names, which may have changed between A and B.
const BY_CHANNEL: &str = "update by channel";
/// The commands that change something: words, and those of a release where one is named.
const COMMANDS: [&str; 15] = [
    BY_CHANNEL,
    "update",
    "switch 3",
    "stage",
    "rollback",
    "rollback 1",
    "commit",
    "hold",
    "unhold",
    "pin 1",
    "mark-bad 3",
    "prune",
    "recover",
    "adopt",
    "data drop",
];

/// Serials of the channel when A begins and when B begins; the first names release 3, the second release 4.
const SERIALS: [u64; 2] = [4, 5];

/// Releases 1 and 2 were committed, 3 is staged; a rollback has set data aside once.
fn begun() -> TestNode {
    let node = TestNode::new(&[Health::Good; 4]).with_channel();
    for (number, serial) in (3..).zip(SERIALS) {
        node.publish(number, serial);
        fs::rename(node.path("source"), node.path(&format!("source-{serial}"))).unwrap();
    }
    for number in [1, 2] {
        assert_eq!(node.update(number), 0);
    }
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(node.code(&["unhold"]), 0);
    assert_eq!(node.update(2), 0);
    assert_eq!(node.code(&["stage", node.archive(3).to_str().unwrap(), "--allow-unsigned"]), 0);
    node
}

fn words(node: &TestNode, command: &str) -> Vec<String> {
    let archive = |number| node.archive(number).to_str().unwrap().to_owned();
    match command {
        BY_CHANNEL => vec!["update".into()],
        "update" => vec!["update".into(), archive(3), "--allow-unsigned".into()],
        "stage" => vec!["stage".into(), archive(4), "--allow-unsigned".into()],
        "adopt" => vec!["adopt".into(), node.root().join("current").to_str().unwrap().into()],
        "data drop" => {
            let name = node.names(".cutover/aside").into_iter().find(|name| name.ends_with(".json"));
            let id = name.unwrap_or_default().trim_end_matches(".json").to_owned();
            vec!["data".into(), "drop".into(), id]
        }
        plain => plain.split(' ').map(str::to_owned).collect(),
    }
}

fn spawn(node: &TestNode, command: &str, stop_before: Option<usize>) -> Child {
    let words = words(node, command);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut process = node.command(&words);
    if let Some(number) = stop_before {
        process.env("CUTOVER_STOP_BEFORE", format!("{number}:stop"));
    }
    process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Has the source offer what it does from this serial on.
fn offer(node: &TestNode, serial: u64) {
    let link = node.path("source");
    drop(fs::remove_file(&link));
    symlink(node.path(&format!("source-{serial}")), link).unwrap();
}

/// How many changes the command makes on such a node.
fn points(begin: &TestNode, command: &str) -> usize {
    let node = begin.copy();
    offer(&node, SERIALS[0]);
    let notes = node.path("changes");
    let words = words(&node, command);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    node.command(&words).env("CUTOVER_COUNT_CHANGES", &notes).output().unwrap();
    fs::read_to_string(&notes).unwrap_or_default().lines().count().min(POINTS_MAX)
}

/// The exit codes of both; a command that nobody answers is a failure.
fn run(node: &TestNode, a: &str, point: usize, b: &str) -> (i32, i32) {
    offer(node, SERIALS[0]);
    let mut first = spawn(node, a, Some(point));
    let is_stopped =
        matches!(waitpid(pid(&first), Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(..)));
    let code_of_ended = |child: &mut Child, what: &str| {
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                let mut said = String::new();
                let _ = std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said);
                let code = status.code().unwrap_or(-1);
                println!("  {what}: {code} {}", said.trim().replace('\n', " | "));
                return code;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{what} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    offer(node, SERIALS[1]);
    if !is_stopped {
        // It had no such point this time: it has ended, and was waited for.
        let _ = first.wait();
        let mut second = spawn(node, b, None);
        return (-2, code_of_ended(&mut second, b));
    }
    let mut second = spawn(node, b, None);
    let begin = Instant::now();
    while second.try_wait().unwrap().is_none() && begin.elapsed() < ALONE {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(pid(&first), Signal::SIGCONT).unwrap();
    let first_code = code_of_ended(&mut first, a);
    (first_code, code_of_ended(&mut second, b))
}

fn check(begin: &TestNode, a: &str, point: usize, b: &str) {
    println!("{a} stopped before change {point}, then {b}");
    let node = begin.copy();
    let (first, second) = run(&node, a, point, b);
    let case = format!("{a} ({first}) before change {point}, {b} ({second})");
    for code in [first, second] {
        assert!([-2, 0, 1, 2, 10, 11, 12, 15].contains(&code), "{case}");
    }
    let recovered = node.code(&["recover"]);
    assert!([0, 10, 15].contains(&recovered), "{case}: recover says {recovered}");
    assert!(!node.has_journal(), "{case}: a journal is left");
    let active = node.active();
    assert!(["1", "2", "3", "4"].map(Some).contains(&active.as_deref()), "{case}: {active:?}");
    let (state, said) =
        (node.state(), |command: &str| (a == command && first == 0) || (b == command && second == 0));
    let is_about = |command: &str| a == command || b == command;
    if b == BY_CHANNEL && second == 0 {
        let seen = state["channels"].as_object().unwrap().values().map(|seen| seen["serial"].as_u64());
        assert_eq!(seen.max().flatten(), Some(SERIALS[1]), "{case}: {state}");
    }
    let case = format!("{case}: {state}");
    assert_eq!(state["committed"]["release"]["version"].as_str(), active.as_deref(), "{case}");
    if said("hold") && !is_about("unhold") {
        assert!(!state["hold"].is_null(), "{case}");
    }
    if said("pin 1") {
        assert_eq!(state["pins"], serde_json::json!(["1"]), "{case}");
    }
    if said("mark-bad 3") {
        assert!(state["bad"].to_string().contains("\"version\":\"3\""), "{case}");
    }
    // Both good releases are here still, and the one that does not serve can be gone back to.
    assert_eq!(node.names("releases")[..2], ["1", "2"], "{case}");
    let other = if active.as_deref() == Some("1") { "2" } else { "1" };
    let way = node.run(&["rollback", other, "--check"]);
    assert_eq!(way.status.code(), Some(0), "{case}: {}", text(&way.stderr));
    if active.as_deref() != Some("1") {
        assert!(!state["previous"].is_null(), "{case}");
    }
}

#[test]
fn two_commands_at_once_lose_nothing_at_some_points() {
    let begin = begun();
    let mut done = 0;
    for (number, a) in COMMANDS.iter().enumerate() {
        let points = points(&begin, a);
        for (other, b) in COMMANDS.iter().enumerate() {
            // Another point for each pair, and a third of the pairs.
            if points > 0 && (number + other * 5) % 7 == 0 {
                check(&begin, a, (number * 7 + other * 13) % points, b);
                done += 1;
            }
        }
    }
    println!("{done} of {} pairs, a point of each", COMMANDS.len().pow(2));
    assert!(done > 10);
}

/// Every pair at every point: first at some points of each, then at others, so that also a run that is cut short has seen
/// every pair.
#[test]
#[ignore = "hours on a busy machine: make test-crashes"]
fn two_commands_at_once_lose_nothing_at_any_point_by_any_method() {
    const ROUNDS: usize = 16;
    let begin = begun();
    let points = COMMANDS.map(|command| points(&begin, command));
    let mut cases = Vec::new();
    for round in 0..ROUNDS {
        for (a, points) in COMMANDS.iter().zip(points) {
            for (number, b) in COMMANDS.iter().enumerate() {
                let some = ((round + number) % ROUNDS..points).step_by(ROUNDS);
                cases.extend(some.map(|point| (*a, point, *b)));
            }
        }
    }
    println!("{} pairs, {} points", COMMANDS.len().pow(2), cases.len());
    all_at_once(&cases, |(a, point, b)| check(&begin, a, *point, b));
}

/// `mark-bad` has the word, and is slow; the update that came beside it does not take the ban for an old one.
#[test]
fn a_ban_that_is_written_late_counts() {
    let begin = begun();
    for point in 0..points(&begin, "mark-bad 3") {
        check(&begin, "mark-bad 3", point, "switch 3");
    }
}

/// The channel that A has read is older than the one that B has remembered meanwhile.
#[test]
fn a_channel_that_was_read_before_a_newer_one_lowers_nothing() {
    let begin = begun();
    for point in 0..points(&begin, BY_CHANNEL).min(12) {
        check(&begin, BY_CHANNEL, point, BY_CHANNEL);
    }
}
