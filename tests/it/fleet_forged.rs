//! Who is not a member decides nothing for the members: a copy of a disk, whoever can write to the directory, a signature in
//! another place, and what stands where the storage was mounted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cutover::coord::facts::names;
use cutover::types::Digest;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, wait_until};

fn set(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn history(root: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(root.join(".cutover/history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Updaters that are gone with the test, whatever it says.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop((child.kill(), child.wait()));
        }
    }
}

/// A copy of n1's disk, switched on once: what it came to.
struct Copied {
    root: PathBuf,
    config: PathBuf,
}

impl Copied {
    fn of_n1(fleet: &Fleet) -> Self {
        let mut first = fleet.clone_node(1).unwrap();
        drop((first.kill(), first.wait()));
        Self { root: fleet.path("n1-copy"), config: fleet.path("n1-copy.toml") }
    }

    fn begin(&self) -> Child {
        let mut update = Command::new(env!("CARGO_BIN_EXE_cutover"));
        update.arg("--config").arg(&self.config).arg("update").spawn().unwrap()
    }

    fn runs(&self, version: &str) -> bool {
        std::fs::read_link(self.root.join("current")).unwrap().ends_with(version)
    }
}

#[test]
fn a_copy_of_a_machine_is_not_out_of_service_beside_it() {
    let fleet = Fleet::new(2, "rolling", "at_once = 1");
    set(&fleet.config(1), "min_healthy = \"300ms\"", "min_healthy = \"60s\"");
    let copied = Copied::of_n1(&fleet);
    fleet.propose("2");
    let mut both = Running(vec![fleet.begin(1)]);
    wait_until(&fleet, "n1 is on trial", || fleet.active(1) == "2");
    both.0.push(copied.begin());
    let began = Instant::now();
    while both.0[1].try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(20) {
        assert!(!copied.runs("2"), "two are out of service, and `at_once` is 1: {}", fleet.why());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(copied.runs("1"));
}

#[test]
fn a_copy_that_is_sick_has_no_part_in_what_the_others_keep() {
    let fleet = Fleet::new(2, "synchronous", "");
    let copied = Copied::of_n1(&fleet);
    set(
        &copied.config,
        "\"/bin/sh\", \"-c\", \"",
        "\"/bin/sh\", \"-c\", \"! grep -q 2 n1-copy/current/app && ",
    );
    set(&copied.config, "n1-copy/current", &format!("{}/current", copied.root.display()));
    fleet.propose("2");
    let mut all = Running(vec![fleet.begin(0), fleet.begin(1)]);
    wait_until(&fleet, "all vote", || {
        ["n0", "n1"].iter().all(|node| fleet.share().join(format!("nodes/{node}/000001.vote")).exists())
    });
    all.0.push(copied.begin());
    all.0.iter_mut().for_each(|child| drop(child.wait()));
    let tried = history(&copied.root).iter().any(|entry| entry["to"] == "2");
    assert!(!tried && copied.runs("1"), "the copy was in it, too: {:?}", history(&copied.root));
}

/// The file of a fact as another one there is sealed: with its name, or, in the format before, without.
fn sealed_as(there: &Path, name: &str, line: &str) -> String {
    let text = std::fs::read_to_string(there).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let is_without = rest.contains(&Digest::of(first.as_bytes()).hex());
    let covered = if is_without { line.to_owned() } else { format!("{name}\n{line}") };
    format!("{line}\nsum sha256 {}\n", Digest::of(covered.as_bytes()).hex())
}

#[test]
fn nobody_keeps_a_release_for_a_word_that_comes_before_its_own_report() {
    let fleet = Fleet::new(2, "synchronous", "trial = \"60s\"");
    for number in 0..2 {
        set(&fleet.config(number), "min_healthy = \"300ms\"", "min_healthy = \"8s\"");
    }
    fleet.propose("2");
    let both = Running(vec![fleet.begin(0), fleet.begin(1)]);
    let said = |node: &str, what: &str| fleet.share().join(format!("nodes/{node}/000001.{what}")).exists();
    wait_until(&fleet, "all have switched", || ["n0", "n1"].iter().all(|node| said(node, "switched")));
    let (go, outcome) = (fleet.decision(1, "go"), fleet.decision(1, "outcome"));
    let line = std::fs::read_to_string(&go).unwrap().lines().next().unwrap().to_owned();
    let mut fact: serde_json::Value = serde_json::from_str(&line).unwrap();
    let plan = Digest::of(&std::fs::read(fleet.decision(1, "plan")).unwrap());
    let members = fact.as_object_mut().unwrap();
    members.remove("plan");
    for (key, value) in [("kind", "outcome"), ("decision", "keep"), ("answers", &plan.to_string())] {
        members.insert(key.into(), value.into());
    }
    members.insert("at".into(), serde_json::Value::Null);
    let name = outcome.strip_prefix(fleet.share()).unwrap().to_str().unwrap().to_owned();
    assert!(!said("n0", "report") && !said("n1", "report"), "too late to be first: {}", fleet.why());
    std::fs::write(&outcome, sealed_as(&go, &name, &fact.to_string())).unwrap();
    let has_committed = |number: usize| {
        let root = fleet.root(number);
        history(&root).iter().any(|entry| entry["to"] == "2" && entry["outcome"] == "committed")
    };
    // For them there is no outcome yet, or it is what they go by.
    let waits = |number: usize| {
        let log = std::fs::read_to_string(fleet.path(&format!("n{number}.log"))).unwrap();
        log.contains("waiting: rollout 1: its outcome")
    };
    let is_over = || (waits(0) && waits(1)) || has_committed(0) || has_committed(1);
    wait_until(&fleet, "they have seen it", is_over);
    // Longer than each must have been healthy: whoever goes by its own checks and that word keeps the release now.
    std::thread::sleep(std::time::Duration::from_secs(10));
    for number in [0, 1].into_iter().filter(|number| has_committed(*number)) {
        assert!(said(&format!("n{number}"), "report"), "n{number} keeps it for what nobody has said");
    }
    drop(both);
}

#[test]
fn an_instant_that_lies_far_ahead_blocks_nobody() {
    let fleet = Fleet::new(2, "synchronous", "decider_step = \"1h\"");
    fleet.propose("2");
    // n1 is the first who may decide, and has only n0's word missing when it votes.
    for number in [1, 0] {
        fleet.run(number, &["update", "--no-wait"]);
    }
    let fleets = fleet.share().join(names::FLEET);
    let text = std::fs::read_to_string(&fleets).unwrap();
    let fact: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let proposal = Digest::of(&std::fs::read(fleet.share().join(names::proposal(1))).unwrap());
    let now = jiff::Timestamp::now();
    let line = serde_json::json!({
        "format": fact["format"], "kind": "plan", "rollout": 1, "proposal": proposal, "decision": "commit",
        "at": now + jiff::SignedDuration::from_hours(1), "made": now, "by": "n1", "why": "2 of 2 are ready", "seen": {},
    });
    let plan = fleet.decision(1, "plan");
    assert!(!plan.exists(), "{}", fleet.why());
    let name = plan.strip_prefix(fleet.share()).unwrap().to_str().unwrap().to_owned();
    std::fs::write(&plan, sealed_as(&fleets, &name, &line.to_string())).unwrap();
    let mut both = Running(vec![fleet.begin(0), fleet.begin(1)]);
    let began = Instant::now();
    for child in &mut both.0 {
        while child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "it waits for an hour: {}", fleet.why());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(fleet.all_run(), ["1"], "{}", fleet.why());
}

/// A bind mount that is gone with this.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn who_vouched_decides_nothing_in_what_stands_below_the_mount() {
    if !crate::node::needs_root("who_vouched_decides_nothing_in_what_stands_below_the_mount") {
        return;
    }
    let fleet = Fleet::new(2, "synchronous", "");
    // Somebody has made a fleet of the same name while nothing was mounted, and all had joined it.
    let done = Command::new("cp").arg("-a").arg(fleet.share()).arg(fleet.path("real")).status().unwrap();
    assert!(done.success());
    let line = std::fs::read_to_string(fleet.share().join(names::FLEET)).unwrap();
    let own: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    let other = line.lines().next().unwrap().replace(own["id"].as_str().unwrap(), &"f".repeat(32));
    let text = sealed_as(&fleet.share().join(names::FLEET), names::FLEET, &other);
    std::fs::write(fleet.share().join(names::FLEET), text).unwrap();
    let mount = || {
        let mount = Command::new("mount").arg("--bind").args([fleet.path("real"), fleet.share()]).status();
        assert!(mount.unwrap().success());
        Bound(fleet.share())
    };
    let bound = mount();
    set(&fleet.config(1), "min_healthy = \"300ms\"", "min_healthy = \"9s\"");
    fleet.propose("2");
    let mut both = Running(vec![fleet.begin(0), fleet.begin(1)]);
    wait_until(&fleet, "n0 vouches", || fleet.share().join("nodes/n0/000001.report").exists());
    drop(bound);
    // It has vouched for nothing yet, and goes back alone.
    drop(both.0[1].wait());
    let began = Instant::now();
    while both.0[0].try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let below = std::fs::read_dir(fleet.share().join(names::ROLLOUTS)).unwrap().count();
    let there = (below, fleet.active(0), fleet.active(1));
    drop(both);
    assert_eq!(there, (0, "2".to_owned(), "1".to_owned()), "n0 waits for what all decide");
    let _bound = mount();
    assert_eq!(fleet.live(calm), "rolled back", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
}

/// Gives what a member has signed of one thing the name of another: whoever can write to the directory can do that.
fn copy_signed(fleet: &Fleet, node: &str, from: &str, to: &str) -> PathBuf {
    let named = |what| fleet.share().join(names::own(&node.parse().unwrap(), 1, what));
    std::fs::copy(named(from), named(to)).unwrap();
    named(to)
}

#[test]
fn a_report_in_the_place_of_another_brings_no_two_back_at_once() {
    let starts = "command = { start = 'while test -e ../../stuck; do sleep 0.1; done', stop = 'true' }";
    let terms = "at_once = 1\nfacts = \"signed\"\non_halt = \"rollback\"\ndecider_step = \"0s\"";
    let fleet = Fleet::new(3, "rolling", &format!("{terms}\n[service]\n{starts}"));
    (0..3).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("3");
    for number in 0..2 {
        let done = fleet.run(number, &["update"]);
        assert_eq!((code(&done), fleet.active(number).as_str()), (0, "3"), "{done:?}");
    }
    let stuck = fleet.root(0).join("stuck");
    std::fs::write(&stuck, "").unwrap();
    // The third one is sick, and that halts it.
    std::fs::write(fleet.path("sick-2"), "").unwrap();
    let failed = fleet.run(2, &["update"]);
    assert_eq!(code(&failed), 10, "{failed:?}");
    let mut back = Running(vec![fleet.begin(0)]);
    wait_until(&fleet, "n0 goes back", || fleet.active(0) == "1");
    let copied = copy_signed(&fleet, "n0", "report", "returned");
    let other = fleet.run(1, &["update", "--no-wait"]);
    assert_eq!(fleet.active(1), "3", "two go back at once, and `at_once` is 1: {other:?}");
    assert!(back.0[0].try_wait().unwrap().is_none(), "n0 had gone back already: {}", fleet.why());
    std::fs::remove_file(copied).unwrap();
    std::fs::remove_file(stuck).unwrap();
    back.0[0].wait().unwrap();
    assert_eq!(fleet.live(calm), "halted", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
}

#[test]
fn a_word_in_the_place_of_another_starts_no_old_release_beside_a_new_one() {
    let says = |what: &str| format!("echo \"n@ {what} $(cat app)\" >> ../../../events");
    let (starts, stops) = (says("starts"), says("stopped"));
    let waits = "while test -e ../../stuck; do sleep 0.1; done";
    let service = format!("[service]\ncommand = {{ start = '{starts}', stop = '{waits}; {stops}' }}");
    let terms = "overlap = \"none\"\nfacts = \"signed\"\ntrial = \"30s\"\nstop = \"60s\"";
    let fleet = Fleet::new(2, "synchronous", &format!("{terms}\n{service}"));
    for number in 0..2 {
        set(&fleet.config(number), "min_healthy = \"300ms\"", "min_healthy = \"8s\"");
    }
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("3");
    let mut both = Running(vec![fleet.begin(0), fleet.begin(1)]);
    let said = |node: &str, what| fleet.share().join(names::own(&node.parse().unwrap(), 1, what)).exists();
    wait_until(&fleet, "all have switched", || said("n0", "switched") && said("n1", "switched"));
    let stuck = fleet.root(1).join("stuck");
    std::fs::write(&stuck, "").unwrap();
    std::fs::write(fleet.path("sick-1"), "").unwrap();
    wait_until(&fleet, "n0 has stopped the new release", || said("n0", "cleared"));
    let copied = copy_signed(&fleet, "n1", "stopped", "cleared");
    let events = || std::fs::read_to_string(fleet.path("events")).unwrap();
    let last = |event: &str| events().lines().collect::<Vec<_>>().iter().rposition(|line| *line == event);
    // Many looks of n0 at what is there.
    let began = Instant::now();
    while last("n0 starts 1") < last("n0 stopped 3") && began.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_file(copied).unwrap();
    std::fs::remove_file(stuck).unwrap();
    both.0.iter_mut().for_each(|child| drop(child.wait()));
    let (started, stopped) = (last("n0 starts 1"), last("n1 stopped 3"));
    assert!(stopped.is_some() && started > stopped, "old and new serve at once: {}{}", events(), fleet.why());
    assert_eq!(fleet.all_run(), ["1"], "{}", fleet.why());
}
