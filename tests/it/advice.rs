//! What `status` and the hints of errors advise works as it stands: each command that is named is run in the very state in
//! which it is named.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fleet::Fleet;
use crate::node::{Health, TestNode, text};

const GOOD: [Health; 3] = [Health::Good; 3];

/// A node in some state, with the cutover that is in the middle of it, if any is.
struct Stand {
    node: TestNode,
    worker: Option<Child>,
}

impl Drop for Stand {
    fn drop(&mut self) {
        fs::write(self.node.path("go"), "").unwrap();
        if let Some(mut worker) = self.worker.take() {
            // Not the test's business how it ends.
            worker.kill().unwrap_or_default();
            worker.wait().unwrap();
        }
    }
}

fn at_rest(node: TestNode) -> Stand {
    Stand { node, worker: None }
}

/// Release 2 runs, release 1 before it.
fn on_two(releases: &[Health]) -> TestNode {
    let node = TestNode::new(releases);
    node.set("deadline = '20s'", "deadline = '600s'");
    for number in [1, 2] {
        assert_eq!(node.update(number), 0);
    }
    node
}

fn begin(node: &TestNode, words: &[&str]) -> Child {
    node.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The same with the update or rollback killed where it stands.
fn left(mut stand: Stand) -> Stand {
    let mut worker = stand.worker.take().unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    fs::write(stand.node.path("go"), "").unwrap();
    stand
}

/// An update to 3 that waits in its hook before the switch.
fn waiting() -> Stand {
    let node = on_two(&GOOD);
    let pid = node.path("hook-pid");
    let script = format!("echo $$ >{}\n{}", pid.display(), node.shell_wait("go"));
    node.pack_with_hook(3, "pre-switch", &script);
    let worker = begin(&node, &["update", node.archive(3).to_str().unwrap(), "--allow-unsigned"]);
    node.wait_until("the hook runs", |_| pid.exists());
    Stand { node, worker: Some(worker) }
}

fn trial() -> Stand {
    let node = on_two(&GOOD).with_trial(300);
    let worker = begin(&node, &["update", node.archive(3).to_str().unwrap(), "--allow-unsigned"]);
    node.wait_for_journal("\"name\":\"trial\"");
    node.set("min_healthy = '300s'", "min_healthy = '0s'");
    Stand { node, worker: Some(worker) }
}

/// In this phase, while the service does not stop.
fn stopping(words: &[&str], phase: &str) -> Stand {
    let node = on_two(&GOOD);
    node.add(&format!("[service.command]\nstart = 'true'\nstop = '{}'\n", node.shell_wait("go")));
    let archive = node.archive(3);
    let words: Vec<_> =
        words.iter().map(|word| if *word == "ARCHIVE" { archive.to_str().unwrap() } else { word }).collect();
    let worker = begin(&node, &words);
    node.wait_for_journal(&format!("\"name\":\"{phase}\""));
    Stand { node, worker: Some(worker) }
}

fn switching() -> Stand {
    stopping(&["update", "ARCHIVE", "--allow-unsigned"], "switching")
}

fn going_back() -> Stand {
    stopping(&["rollback"], "rolling_back")
}

/// Going back did not succeed; by now its cause is mended.
fn needs_person() -> Stand {
    let node = on_two(&GOOD);
    let well = node.root().join("releases/1/well");
    fs::rename(&well, node.path("away")).unwrap();
    assert_eq!(node.code(&["rollback"]), 14);
    fs::rename(node.path("away"), well).unwrap();
    at_rest(node)
}

fn damaged(file: &str) -> Stand {
    let node = on_two(&GOOD);
    fs::write(node.root().join(".cutover").join(file), "{").unwrap();
    at_rest(node)
}

fn offered(health: Health, words: &[&[&str]]) -> Stand {
    let node = TestNode::new(&[Health::Good, health]);
    assert_eq!(node.update(1), 0);
    node.offer(2);
    for words in words {
        node.code(words);
    }
    at_rest(node)
}

type Maker = fn() -> Stand;

/// Every state that a node of its own can be in.
const STATES: [(&str, Maker); 21] = [
    ("empty", || at_rest(TestNode::new(&[]))),
    ("empty, with a source", || {
        let node = TestNode::new(&[Health::Good]);
        node.offer(1);
        at_rest(node)
    }),
    ("installed by hand", || {
        let node = TestNode::new(&[]);
        fs::create_dir(node.root().join("current")).unwrap();
        at_rest(node)
    }),
    ("idle", || at_rest(on_two(&GOOD))),
    ("offered", || offered(Health::Good, &[&["check"], &["hold"], &["update"], &["unhold"]])),
    ("held", || offered(Health::Good, &[&["hold"]])),
    ("held, staged", || offered(Health::Good, &[&["stage"], &["hold"]])),
    ("banned", || offered(Health::Sick, &[&["update"]])),
    ("rolled back by hand", || offered(Health::Good, &[&["update"], &["rollback"]])),
    ("staged", || offered(Health::Good, &[&["stage"]])),
    ("waiting", waiting),
    ("waiting, left", || left(waiting())),
    ("trial", trial),
    ("trial, left", || left(trial())),
    ("switching", switching),
    ("switching, left", || left(switching())),
    ("going back", going_back),
    ("going back, left", || left(going_back())),
    ("needs a person", needs_person),
    ("damaged journal", || damaged("journal.json")),
    ("damaged state", || damaged("state.json")),
];

/// What people type first.
const TYPED: [&[&str]; 9] = [
    &["update"],
    &["switch", "1"],
    &["switch", "nine"],
    &["rollback"],
    &["commit"],
    &["recover"],
    &["stage"],
    &["prune"],
    &["mark-good", "nine"],
];

/// The commands that stand in back quotes.
fn quoted(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|words| words.strip_prefix("cutover ")).map(ToOwned::to_owned).collect()
}

/// What `status` advises: its last lines, and what its other words name.
fn advised(node: &TestNode) -> Vec<String> {
    let status = node.status();
    let next = status["next"].as_array().unwrap().iter().filter_map(|line| {
        let command = line.as_str().unwrap().strip_prefix("cutover ")?;
        Some(command.split("  ").next().unwrap().trim().to_owned())
    });
    let words = ["blocked", "problems", "previous"].map(|key| status[key].to_string()).join(" ");
    next.chain(quoted(&words)).collect()
}

/// What waits for longer than this does what it says.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs it; what would go on, or wait, is ended.
fn code_of(node: &TestNode, words: &[&str]) -> i32 {
    let mut child = node.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + if words.contains(&"--watch") { Duration::from_secs(1) } else { PATIENCE };
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
            child.wait().unwrap();
            return 0;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap_or(-1);
    println!("  {words:?}: {code} {}", text(&output.stderr));
    code
}

/// Whether whoever types this is not sent away: for usage, for somebody else at work, for a person.
fn works(node: &TestNode, command: &str) -> Result<(), i32> {
    let words: Vec<_> = command.split_whitespace().collect();
    match code_of(node, &words) {
        code @ (2 | 11 | 14) => Err(code),
        _ => Ok(()),
    }
}

/// Runs what `status` advises in these states.
fn try_advice(states: &[(&str, Maker)]) {
    let mut faults = Vec::new();
    for (name, make) in states {
        let stand = make();
        for command in advised(&stand.node) {
            println!("{name}: {command}");
            let fresh = if stand.worker.is_some() { make() } else { at_rest(stand.node.copy()) };
            if let Err(code) = works(&fresh.node, &command) {
                faults.push(format!("{name}: `{command}` ends with {code}"));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn what_status_advises_at_first_works_as_it_stands() {
    try_advice(&STATES[..5]);
}

#[test]
fn what_status_advises_at_rest_works_as_it_stands() {
    try_advice(&STATES[5..10]);
}

#[test]
fn what_status_advises_while_an_update_waits_or_is_watched_works_as_it_stands() {
    try_advice(&STATES[10..14]);
}

#[test]
#[ignore = "many seconds; run by `make test-crashes`"]
fn what_status_advises_half_way_works_by_any_method() {
    try_advice(&STATES[14..18]);
}

#[test]
fn what_status_advises_when_something_is_broken_works_as_it_stands() {
    try_advice(&STATES[18..]);
}

/// Whether a node has said that it is armed.
fn has_armed(share: &Path, node: &str) -> bool {
    let entries = fs::read_dir(share).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let name = path.to_string_lossy();
        if path.is_dir() { has_armed(&path, node) } else { name.contains(node) && name.contains("armed") }
    })
}

#[test]
fn in_doubt_what_status_advises_works_as_it_stands() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    let mut members = [fleet.begin(0), fleet.begin(1)];
    let own = || fs::read_to_string(fleet.root(0).join(".cutover/fleet.json")).unwrap_or_default();
    let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < Duration::from_secs(60), "never {what}: {}", fleet.why());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let signal = |child: &Child, signal: Signal| kill(Pid::from_raw(child.id().try_into().unwrap()), signal);
    // The second is armed, and is never heard of again: the first vouches, and waits for it.
    wait_until("armed", &|| has_armed(&fleet.share(), "n1"));
    signal(&members[1], Signal::SIGSTOP).unwrap();
    wait_until("vouched", &|| own().contains("vouching"));
    fleet.unplug(0);
    let status = || -> serde_json::Value {
        serde_json::from_slice(&fleet.run(0, &["status", "--json"]).stdout).unwrap()
    };
    wait_until("in doubt", &|| status()["state"] == "in_doubt");
    let next = status()["next"].clone();
    let commands: Vec<Vec<String>> = next
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            line.as_str().unwrap().split("  ").next().unwrap().split(' ').skip(1).map(str::to_owned).collect()
        })
        .collect();
    // The last one ends the state.
    assert_eq!(commands.last().unwrap(), &["rollback"]);
    let code_of = |words: &Vec<String>| {
        let done = fleet.run(0, &words.iter().map(String::as_str).collect::<Vec<_>>());
        println!("{words:?}: {done:?}");
        done.status.code().unwrap()
    };
    let mut sent_away: Vec<_> = commands.iter().map(|words| (words.join(" "), code_of(words))).collect();
    sent_away.retain(|(_, code)| [2, 11, 14].contains(code));
    assert_eq!(sent_away, []);
    assert_eq!(fleet.active(0), "1");
    for member in &mut members {
        member.kill().unwrap();
        member.wait().unwrap();
    }
}

#[test]
#[ignore = "a quarter of an hour, most of it trials; run by `make test-crashes`"]
fn what_hints_advise_works_by_any_method() {
    let mut faults = Vec::new();
    for (name, make) in STATES {
        let stand = make();
        let fresh = || if stand.worker.is_some() { make() } else { at_rest(stand.node.copy()) };
        for typed in TYPED {
            let first = fresh();
            let said = text(&first.node.run(typed).stderr);
            let hints = said.lines().filter(|line| line.starts_with("hint: ")).flat_map(quoted);
            for hint in hints.collect::<Vec<_>>() {
                println!("{name}, {typed:?}: {hint}");
                let again = fresh();
                again.node.run(typed);
                if let Err(code) = works(&again.node, &hint) {
                    faults.push(format!("{name}: {typed:?} hints at `{hint}`, which ends with {code}"));
                }
            }
        }
    }
    faults.sort();
    faults.dedup();
    assert_eq!(faults, Vec::<String>::new());
}
