//! Fleets of real processes under fire: nodes are killed and switched off, the storage is unplugged from one or from all,
//! releases are sick; nodes are cloned, re-imaged and renamed, clocks step, and the storage is torn, full, read-only, or
//! restored from a backup; and after every rollout all run one release, the one that its outcome names.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Nodes, OwnDisk};

/// Trouble ends after this long, so that the rollout does.
const TROUBLE: Duration = Duration::from_secs(10);

/// Short times, as far as two cores carry twenty nodes.
const QUICK: &str = "lead = \"3s\"\nlate = \"2s\"\nstop = \"0s\"\ntrial = \"5s\"\nsettle = \"2s\"";

/// xorshift: tests need no better chance.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn is_one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).unwrap())
    }
}

/// What happened, for the last line.
#[derive(Default, Debug)]
struct Tally {
    outcomes: BTreeMap<String, usize>,
    killed: usize,
    switched_off: usize,
    cut_off: usize,
    unplugged: usize,
    sick: usize,
    /// What happened to machines and storage, by name.
    acts: BTreeMap<&'static str, usize>,
}

/// What happens once in a rollout, beside.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// A copy of a node's disk runs in another place.
    Cloned,
    /// A node's settings give it another name for a while.
    Renamed,
    /// The clocks of a node are an hour off for a while.
    ClockStepped,
    /// A fact is torn where it will stand.
    Torn,
    /// Nobody can write for a while.
    ReadOnly,
    /// There is no room for a while.
    Full,
}

const ACTS: [(Act, &str); 6] = [
    (Act::Cloned, "cloned"),
    (Act::Renamed, "renamed"),
    (Act::ClockStepped, "clock stepped"),
    (Act::Torn, "torn"),
    (Act::ReadOnly, "read-only"),
    (Act::Full, "full"),
];

/// The trouble of one rollout, and when each part of it ends.
struct Fire<'a> {
    fleet: &'a Fleet,
    disk: Option<&'a OwnDisk>,
    began: Instant,
    back: BTreeMap<usize, Instant>,
    plugged: BTreeMap<usize, Instant>,
    share: Option<Instant>,
    /// What happens, to whom, when it begins and when it is over.
    act: Option<(Act, usize, Instant, Instant)>,
    has_begun: bool,
    clone: Option<std::process::Child>,
    /// Two were at work under this node's name: a person lets one in again.
    was_cloned: Option<usize>,
    rollout: u64,
}

impl<'a> Fire<'a> {
    fn new(fleet: &'a Fleet, disk: Option<&'a OwnDisk>, rollout: usize, chance: &mut Chance) -> Self {
        let began = Instant::now();
        let act = chance.is_one_in(2).then(|| {
            let act = ACTS[chance.below(ACTS.len())].0;
            let from = began + chance.milliseconds(0, 6000);
            (act, chance.below(fleet.size), from, from + chance.milliseconds(500, 5000))
        });
        Self {
            fleet,
            disk,
            was_cloned: None,
            began,
            back: BTreeMap::new(),
            plugged: BTreeMap::new(),
            share: None,
            act,
            has_begun: false,
            clone: None,
            rollout: u64::try_from(rollout).unwrap(),
        }
    }

    /// Begins what happens beside, and ends it.
    fn act(&mut self, nodes: &mut Nodes, tally: &mut Tally, is_over: bool) {
        self.let_in_again(nodes);
        let Some((act, number, from, until)) = self.act else { return };
        let now = Instant::now();
        if !self.has_begun && now >= from && !is_over && self.share.is_none() {
            self.has_begun = self.begin(act, number, nodes);
            if let (true, Some((_, word))) = (self.has_begun, ACTS.iter().find(|(one, _)| *one == act)) {
                *tally.acts.entry(word).or_insert(0) += 1;
            }
        }
        if self.has_begun && (is_over || now >= until) {
            let is_ended = self.end(act, number);
            self.act = self.act.filter(|_| !is_ended);
        }
    }

    /// Whether it could be done now.
    fn begin(&mut self, act: Act, number: usize, nodes: &mut Nodes) -> bool {
        let fleet = self.fleet;
        match act {
            Act::Cloned => {
                self.clone = fleet.clone_node(number);
                return self.clone.is_some();
            }
            Act::Renamed => fleet.rename(number, "somebody"),
            Act::ClockStepped => {
                if Command::new("faketime").arg("--version").output().is_err() {
                    return false;
                }
                let sign = if number.is_multiple_of(2) { '+' } else { '-' };
                std::fs::write(fleet.clock(number), format!("{sign}3600s")).unwrap();
                if let Some(mut child) = nodes.running.remove(&number) {
                    drop((child.kill(), child.wait()));
                }
            }
            Act::Torn => {
                let gates = ["plan", "go", "outcome"];
                let path = fleet.decision(self.rollout, gates[number % gates.len()]);
                // Whoever was first, was first.
                drop(std::fs::File::options().write(true).create_new(true).open(path));
            }
            Act::ReadOnly => return self.disk.is_some_and(OwnDisk::freeze),
            Act::Full => return self.disk.is_some_and(OwnDisk::fill),
        }
        true
    }

    /// Whether it has come to its end; else it is tried again.
    fn end(&mut self, act: Act, number: usize) -> bool {
        let fleet = self.fleet;
        match act {
            Act::Cloned => {
                if let Some(mut child) = self.clone.take() {
                    drop((child.kill(), child.wait()));
                }
                fleet.forget_clone(number);
                self.was_cloned = Some(number);
            }
            Act::Renamed => fleet.rename(number, &format!("n{number}")),
            Act::ClockStepped => drop(std::fs::remove_file(fleet.clock(number))),
            // A person has a look, and another one where the storage is away just then.
            Act::Torn => return fleet.run(0, &["fleet", "abort"]).status.code() != Some(17),
            Act::ReadOnly | Act::Full => {
                if let Some(disk) = self.disk {
                    disk.mend();
                }
            }
        }
        true
    }

    /// A person has switched the copy off. Nothing is under way on the other one, or it ends that first.
    fn let_in_again(&mut self, nodes: &mut Nodes) {
        let Some(number) = self.was_cloned.filter(|_| self.share.is_none()) else { return };
        // The person sits at another node, and needs the storage there, too.
        let is_cut_off = |number| self.plugged.contains_key(&number);
        let is_at_work = self.fleet.root(number).join(".cutover/journal.json").exists();
        if is_at_work || is_cut_off(number) || is_cut_off(self.fleet.helper_of(number)) {
            return;
        }
        if let Some(mut child) = nodes.running.remove(&number) {
            drop((child.kill(), child.wait()));
        }
        if !self.fleet.root(number).join(".cutover/journal.json").exists() {
            self.was_cloned = None;
            self.fleet.let_in_again(number);
        }
    }

    fn rage(&mut self, nodes: &mut Nodes, chance: &mut Chance, tally: &mut Tally) {
        self.end_what_is_over(nodes);
        self.act(nodes, tally, self.began.elapsed() > TROUBLE);
        if self.began.elapsed() > TROUBLE {
            return;
        }
        let (now, fleet) = (Instant::now(), self.fleet);
        if chance.is_one_in(12) {
            let number = chance.below(fleet.size);
            if let Some(mut child) = nodes.running.remove(&number) {
                drop((child.kill(), child.wait()));
                tally.killed += 1;
                // Most are started again at once, as systemd does; some are away for a while.
                if chance.is_one_in(3) {
                    nodes.off.insert(number);
                    self.back.insert(number, now + chance.milliseconds(500, 9000));
                    tally.switched_off += 1;
                }
            }
        }
        if chance.is_one_in(60) {
            let number = chance.below(fleet.size);
            fleet.unplug(number);
            self.plugged.insert(number, now + chance.milliseconds(300, 9000));
            tally.cut_off += 1;
        }
        if self.share.is_none() && chance.is_one_in(160) {
            std::fs::rename(fleet.share(), fleet.path("unplugged")).unwrap();
            self.share = Some(now + chance.milliseconds(300, 5000));
            tally.unplugged += 1;
        }
    }

    fn end_what_is_over(&mut self, nodes: &mut Nodes) {
        let now = Instant::now();
        self.back.retain(|number, until| {
            let is_away = now < *until;
            if !is_away {
                nodes.off.remove(number);
            }
            is_away
        });
        self.plugged.retain(|number, until| {
            let is_away = now < *until;
            if !is_away {
                self.fleet.plug(*number);
            }
            is_away
        });
        if self.share.is_some_and(|until| now >= until) {
            std::fs::rename(self.fleet.path("unplugged"), self.fleet.share()).unwrap();
            self.share = None;
        }
    }

    /// The rollout may have ended before its trouble.
    fn put_out(mut self, tally: &mut Tally) {
        for number in std::mem::take(&mut self.plugged).into_keys() {
            self.fleet.plug(number);
        }
        if self.share.take().is_some() {
            std::fs::rename(self.fleet.path("unplugged"), self.fleet.share()).unwrap();
        }
        self.act(&mut Nodes::default(), tally, true);
        self.let_in_again(&mut Nodes::default());
    }
}

/// What members said that they run in the end.
fn closed(fleet: &Fleet, rollout: usize) -> Vec<String> {
    let fact = |number: usize| {
        let path = fleet.share().join(format!("nodes/n{number}/{rollout:06}.closed"));
        let text = std::fs::read_to_string(path).ok()?;
        let fact: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        Some(fact["running"].as_str()?.to_owned())
    };
    (0..fleet.size).filter_map(fact).collect()
}

fn copy(from: &Path, to: &Path) {
    let (from, to) = (from.join("."), to.as_os_str());
    let done = Command::new("cp").arg("-a").args([from.as_os_str(), to]).status().unwrap();
    assert!(done.success());
}

/// The storage comes back without the last rollout; every node puts back what it has read, and then has nothing to do.
fn restore(fleet: &Fleet, backup: &Path) {
    let real = std::fs::canonicalize(fleet.share()).unwrap();
    std::fs::remove_dir_all(&real).unwrap();
    copy(backup, &real);
    std::fs::remove_dir_all(backup).unwrap();
    let told = fleet.run(0, &["update"]);
    assert_eq!(told.status.code(), Some(17), "it is not noticed: {told:?}");
    for words in [&["fleet", "repair"][..], &["update"]] {
        for number in 0..fleet.size {
            let done = fleet.run(number, words);
            assert_eq!(done.status.code(), Some(0), "n{number} {words:?}: {done:?}");
        }
    }
}

fn rollouts_under_fire(size: usize, rollouts: usize) {
    let seed = std::env::var("CUTOVER_FLEET_SEED").map_or(42, |text| text.parse().unwrap());
    let (mut chance, mut tally) = (Chance(seed), Tally::default());
    let fleet = Fleet::new(size, "synchronous", QUICK);
    let disk = fleet.with_own_disk();
    let began = Instant::now();
    for rollout in 1..=rollouts {
        let old = fleet.active(0);
        let wanted = if old == "2" { "3" } else { "2" };
        for number in 0..size {
            if !fleet.root(number).join("releases").join(wanted).exists() {
                fleet.stage(number, wanted);
            }
        }
        let sick = fleet.path(&format!("sick-{}", chance.below(size)));
        let is_sick = wanted == "3" && chance.is_one_in(4);
        if is_sick {
            std::fs::write(&sick, "").unwrap();
            tally.sick += 1;
        }
        fleet.propose(wanted);
        let (has_backup, backup) = (chance.is_one_in(8), fleet.path("backup"));
        if has_backup {
            copy(&fleet.share(), &backup);
        }
        let mut fire = Fire::new(&fleet, disk.as_ref(), rollout, &mut chance);
        if has_backup {
            // It would lack who has joined since.
            fire.act = None;
        }
        let outcome = fleet.live(|nodes| fire.rage(nodes, &mut chance, &mut tally));
        fire.put_out(&mut tally);
        let expected = if outcome == "kept" { wanted } else { &old };
        let told = format!("seed {seed}, rollout {rollout} to {wanted}, {outcome}");
        assert_eq!(fleet.all_run(), [expected], "{told}: {}", fleet.why());
        let closed = closed(&fleet, rollout);
        assert!(closed.iter().all(|running| running == expected), "{told}: closed on {closed:?}");
        assert!(!(is_sick && outcome == "kept"), "{told}: one of them was sick");
        drop(std::fs::remove_file(sick));
        // Who failed, alone too, or was killed too often in its trial, would vote no for ever.
        if outcome != "kept" {
            (0..size).for_each(|number| drop(fleet.run(number, &["mark-good", wanted])));
        }
        if outcome == "aborted" {
            eprintln!("{told}: {}", fleet.reason());
        }
        *tally.outcomes.entry(outcome).or_insert(0) += 1;
        if has_backup {
            restore(&fleet, &backup);
            *tally.acts.entry("restored").or_insert(0) += 1;
        }
        if chance.is_one_in(10) {
            let number = chance.below(size);
            for file in ["fleet.json", "fleet.key"] {
                drop(std::fs::remove_file(fleet.root(number).join(".cutover").join(file)));
            }
            fleet.let_in_again(number);
            *tally.acts.entry("re-imaged").or_insert(0) += 1;
        }
        if rollout % 20 == 0 {
            eprintln!("{rollout} rollouts in {:.0} s: {tally:?}", began.elapsed().as_secs_f64());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "seed {seed}: {rollouts} rollouts of {size} nodes in {seconds:.0} s, all closed on one release: {tally:?}"
    );
}

#[test]
fn nodes_are_killed_and_storage_unplugged_and_all_end_on_one_release() {
    rollouts_under_fire(6, 3);
}

#[test]
#[ignore = "half an hour: `make test-fleet`"]
fn fleet_of_twenty_processes_under_fire() {
    rollouts_under_fire(
        20,
        std::env::var("CUTOVER_FLEET_ROLLOUTS").map_or(200, |text| text.parse().unwrap()),
    );
}
