//! Fleets of real processes: own roots, one shared directory, the real binary.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");

/// Nobody takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(240);

struct Fleet {
    directory: tempfile::TempDir,
    size: usize,
}

impl Fleet {
    /// A fleet whose nodes run release 1 and have release 2 staged; `settings` goes into each `[fleet]` table.
    fn new(size: usize, mode: &str, settings: &str) -> Self {
        let fleet = Self { directory: tempfile::tempdir().unwrap(), size };
        std::fs::create_dir(fleet.share()).unwrap();
        for version in ["1", "2", "3"] {
            let tree = fleet.path(&format!("tree-{version}"));
            std::fs::create_dir(&tree).unwrap();
            std::fs::write(tree.join("app"), version).unwrap();
            let archive = fleet.archive(version);
            let words = ["pack", tree.to_str().unwrap(), "--product", "shop", "--version", version, "-o"];
            let packed = Command::new(CUTOVER).args(words).arg(&archive).output().unwrap();
            assert!(packed.status.success(), "{packed:?}");
        }
        for number in 0..size {
            fleet.make_node(number, mode, settings);
        }
        assert_eq!(fleet.run(0, &["fleet", "init"]).status.code(), Some(0));
        for number in 0..size {
            let first = fleet.archive("1");
            let update = ["update", first.to_str().unwrap(), "--allow-unsigned"];
            for words in [&update[..], &["fleet", "join"]] {
                let done = fleet.run(number, words);
                assert_eq!(done.status.code(), Some(0), "{done:?}");
            }
            fleet.stage(number, "2");
        }
        let listed = fleet.run(0, &["fleet", "members", "--all"]);
        assert_eq!(listed.status.code(), Some(0), "{listed:?}");
        fleet
    }

    fn make_node(&self, number: usize, mode: &str, settings: &str) {
        let root = self.root(number);
        std::fs::create_dir(&root).unwrap();
        let sick = self.path(&format!("sick-{number}"));
        let text = format!(
            r#"root = "{}"
[health]
min_healthy = "300ms"
interval = "100ms"
fail_threshold = 1
baseline = "off"
[[health.check]]
name = "well"
exec = {{ command = ["/bin/sh", "-c", "! {{ test -e {} && grep -q 3 {}/current/app; }}"] }}
[policy]
jitter = "0s"
[fleet]
mode = "{mode}"
name = "shop"
directory = "{}"
node = "n{number}"
allow_unsigned = true
poll = "200ms"
visibility = "200ms"
lead = "4s"
late = "4s"
stop = "4s"
trial = "12s"
settle = "4s"
back = "1s"
decider_step = "300ms"
io = "2s"
skew = "2s"
soak = "0s"
{settings}
"#,
            root.display(),
            sick.display(),
            root.display(),
            self.share().display()
        );
        // What `settings` says goes before what stands above it.
        let keys: Vec<&str> = settings.lines().filter_map(|line| line.split(" =").next()).collect();
        let (base, said) = text.split_at(text.len() - settings.len() - 1);
        let is_said = |line: &&str| keys.iter().any(|key| line.starts_with(&format!("{key} =")));
        let kept: Vec<&str> = base.lines().filter(|line| !is_said(line)).collect();
        std::fs::write(self.config(number), format!("{}\n{said}", kept.join("\n"))).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn share(&self) -> PathBuf {
        self.path("share")
    }

    fn root(&self, number: usize) -> PathBuf {
        self.path(&format!("n{number}"))
    }

    fn config(&self, number: usize) -> PathBuf {
        self.path(&format!("n{number}.toml"))
    }

    fn archive(&self, version: &str) -> PathBuf {
        self.path(&format!("shop-{version}.tar.zst"))
    }

    fn stage(&self, number: usize, version: &str) {
        let archive = self.archive(version);
        let staged = self.run(number, &["stage", archive.to_str().unwrap(), "--allow-unsigned"]);
        assert_eq!(staged.status.code(), Some(0), "{staged:?}");
    }

    fn command(&self, number: usize, words: &[&str]) -> Command {
        let mut command = Command::new(CUTOVER);
        command.arg("--config").arg(self.config(number)).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, number: usize, words: &[&str]) -> Output {
        self.command(number, words).output().unwrap()
    }

    fn begin(&self, number: usize) -> Child {
        let log =
            std::fs::File::options().append(true).create(true).open(self.path(&format!("n{number}.log")));
        let log = log.unwrap();
        self.command(number, &["update"])
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap()
    }

    fn propose(&self, version: &str) {
        let proposed = self.run(0, &["fleet", "propose", version]);
        assert_eq!(proposed.status.code(), Some(0), "{proposed:?}");
    }

    fn outcome(&self) -> Option<String> {
        let status = self.run(0, &["fleet", "status", "--json"]);
        let value: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        value["outcome"].as_str().map(ToOwned::to_owned)
    }

    fn active(&self, number: usize) -> String {
        let link = std::fs::read_link(self.root(number).join("current")).unwrap();
        link.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Runs what the timer runs on every node, again and again, until the newest rollout has ended and nobody has
    /// anything left to do. `disturb` may kill or unplug meanwhile.
    fn live(&self, mut disturb: impl FnMut(&mut BTreeMap<usize, Child>)) -> String {
        let began = Instant::now();
        let mut running: BTreeMap<usize, Child> = BTreeMap::new();
        let mut quiet = 0;
        loop {
            assert!(began.elapsed() < PATIENCE, "stuck: {}", self.why());
            for number in 0..self.size {
                running.entry(number).or_insert_with(|| self.begin(number));
            }
            disturb(&mut running);
            std::thread::sleep(Duration::from_millis(300));
            running.retain(|_, child| child.try_wait().unwrap().is_none());
            let has_ended = self.outcome().is_some();
            let is_at_rest = (0..self.size).all(|number| {
                let root = self.root(number).join(".cutover");
                let own = std::fs::read_to_string(root.join("fleet.json")).unwrap();
                !root.join("journal.json").exists() && own.contains("\"part\":null")
            });
            quiet = if has_ended && is_at_rest { quiet + 1 } else { 0 };
            if quiet > 1 {
                break;
            }
        }
        for (_, mut child) in running {
            drop(child.wait());
        }
        self.outcome().unwrap()
    }

    fn all_run(&self) -> Vec<String> {
        let mut versions: Vec<String> = (0..self.size).map(|number| self.active(number)).collect();
        versions.sort();
        versions.dedup();
        versions
    }

    fn why(&self) -> String {
        let status = self.run(0, &["fleet", "status", "--why"]);
        let mut text = String::from_utf8_lossy(&status.stdout).into_owned();
        for number in 0..self.size {
            let log = std::fs::read_to_string(self.path(&format!("n{number}.log"))).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(4).collect();
            text.push_str(&format!("\nn{number} runs {}: {last:?}", self.active(number)));
        }
        text
    }
}

fn calm(_: &mut BTreeMap<usize, Child>) {}

#[test]
fn three_nodes_switch_together_and_go_back_together() {
    let fleet = Fleet::new(3, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);

    // The next one is sick on one of them.
    for number in 0..3 {
        fleet.stage(number, "3");
    }
    fleet.propose("3");
    std::fs::write(fleet.path("sick-1"), "").unwrap();
    let outcome = fleet.live(calm);
    assert_eq!(outcome, "rolled back", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn with_overlap_none_a_fleet_switches_too() {
    let fleet = Fleet::new(3, "synchronous", "overlap = \"none\"");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn an_abort_leaves_everybody_on_the_old_release() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    let aborted = fleet.run(1, &["fleet", "abort", "--reason", "not today"]);
    assert_eq!(aborted.status.code(), Some(0), "{aborted:?}");
    assert_eq!(fleet.live(calm), "aborted");
    assert_eq!(fleet.all_run(), ["1"]);
    let again = fleet.run(0, &["fleet", "propose", "2"]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
}

#[test]
fn a_rolling_rollout_reaches_all_one_after_the_other() {
    let fleet = Fleet::new(3, "rolling", "at_once = 1");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn going_back_by_hand_needs_no_storage() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    std::fs::rename(fleet.share(), fleet.path("unplugged")).unwrap();
    let back = fleet.run(0, &["rollback"]);
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    assert_eq!((fleet.active(0), fleet.active(1)), ("1".into(), "2".into()));
    let update = fleet.run(1, &["update"]);
    assert_eq!(update.status.code(), Some(17), "{update:?}");
    let check = fleet.run(1, &["fleet", "check"]);
    assert_eq!(check.status.code(), Some(17), "{check:?}");
}

#[test]
fn a_proposal_that_nobody_signed_moves_nobody() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    for number in 0..2 {
        let config = std::fs::read_to_string(fleet.config(number)).unwrap();
        let strict = config.replace("allow_unsigned = true\npoll", "poll");
        std::fs::write(fleet.config(number), strict).unwrap();
        let update = fleet.run(number, &["update"]);
        assert_eq!(update.status.code(), Some(0), "{update:?}");
    }
    assert_eq!(fleet.all_run(), ["1"]);
    let refused = fleet.run(0, &["fleet", "propose", "2"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// xorshift: tests need no better chance.
fn chance(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn rollouts_under_fire(size: usize, rollouts: usize) {
    let seed = std::env::var("CUTOVER_FLEET_SEED").map_or(42, |text| text.parse().unwrap());
    let mut random: u64 = seed;
    let fleet = Fleet::new(size, "synchronous", "");
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..rollouts {
        let wanted = if fleet.active(0) == "2" { "3" } else { "2" };
        for number in 0..size {
            fleet.stage(number, wanted);
        }
        fleet.propose(wanted);
        let began = Instant::now();
        let mut unplugged_until: Option<Instant> = None;
        let away = fleet.path("unplugged");
        let outcome = fleet.live(|running| {
            let now = Instant::now();
            if unplugged_until.is_some_and(|until| now >= until) {
                std::fs::rename(&away, fleet.share()).unwrap();
                unplugged_until = None;
            }
            // Trouble ends after a while, so that the round does.
            if began.elapsed() > Duration::from_secs(25) {
                return;
            }
            if unplugged_until.is_none() && chance(&mut random).is_multiple_of(40) {
                std::fs::rename(fleet.share(), &away).unwrap();
                unplugged_until = Some(now + Duration::from_millis(500 + chance(&mut random) % 4000));
            }
            if chance(&mut random).is_multiple_of(12)
                && let Some(child) =
                    running.values_mut().nth(usize::try_from(chance(&mut random)).unwrap() % size)
            {
                drop(child.kill());
            }
        });
        let runs = fleet.all_run();
        assert_eq!(runs.len(), 1, "seed {seed}, round {round}, {outcome}: {runs:?} {}", fleet.why());
        *came.entry(outcome).or_insert(0) += 1;
    }
    eprintln!("{rollouts} rollouts of {size} nodes under fire: {came:?}");
}

#[test]
fn nodes_are_killed_and_storage_unplugged_and_all_end_on_one_release() {
    rollouts_under_fire(3, 2);
}

#[test]
#[ignore = "half an hour: `make test-fleet`"]
fn fleet_of_twenty_processes_under_fire() {
    rollouts_under_fire(20, std::env::var("CUTOVER_FLEET_ROLLOUTS").map_or(20, |text| text.parse().unwrap()));
}

#[test]
#[ignore = "measures: `make test-fleet`"]
fn fleet_switches_within_milliseconds() {
    for size in [10, 50] {
        let fleet = Fleet::new(size, "synchronous", "lead = \"20s\"\nlate = \"10s\"\ntrial = \"60s\"");
        let clock = Instant::now();
        fleet.propose("2");
        let outcome = fleet.live(calm);
        let plan = std::fs::read_to_string(fleet.share().join("rollouts/000001.plan")).unwrap();
        let plan: serde_json::Value = serde_json::from_str(plan.lines().next().unwrap()).unwrap();
        let instant: jiff::Timestamp = plan["at"].as_str().unwrap().parse().unwrap();
        // Seen from outside: the rename is the last change of the link. Kernels stamp in ticks of up to 10 ms.
        let moved = |number: usize| {
            let link = std::fs::symlink_metadata(fleet.root(number).join("current")).unwrap();
            let nanoseconds = i128::from(link.ctime()) * 1_000_000_000 + i128::from(link.ctime_nsec());
            i64::try_from((nanoseconds - instant.as_nanosecond()) / 1000).unwrap()
        };
        // As each node says, right after its rename: without the kernel's ticks.
        let said = |number: usize| {
            let path = fleet.share().join(format!("nodes/n{number}/000001.switched"));
            let text = std::fs::read_to_string(path).unwrap();
            let fact: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            fact["late_ms"].as_f64().unwrap()
        };
        for (how, mut late) in [
            (
                "as the links' stamps show",
                (0..size).map(|node| moved(node) as f64 / 1000.0).collect::<Vec<_>>(),
            ),
            ("as the nodes say", (0..size).map(said).collect()),
        ] {
            late.sort_by(f64::total_cmp);
            let at = |part: usize| late[(late.len() * part / 100).min(late.len() - 1)];
            eprintln!(
                "{size} nodes, {outcome} in {:.0} s: pointer moved after the instant by p50 {:.1}, p99 {:.1} ms, {how}",
                clock.elapsed().as_secs_f64(),
                at(50),
                at(99)
            );
        }
    }
}
