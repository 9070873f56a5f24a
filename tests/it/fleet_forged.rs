//! Who is not a member decides nothing for the members: a copy of a disk, whoever can write to the directory, a signature in
//! another place, and what stands where the storage was mounted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cutover::coord::facts::names;
use cutover::types::Digest;

use crate::fleet::{Fleet, calm};

fn wait_until(fleet: &Fleet, what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}: {}", fleet.why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

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
