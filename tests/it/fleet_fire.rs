//! Fleets of real processes under fire: nodes are killed and switched off, the storage is unplugged from one or from all,
//! releases are sick; and after every rollout all run one release, the one that its outcome names.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Nodes};

/// Trouble ends after this long, so that the rollout does.
const TROUBLE: Duration = Duration::from_secs(10);

/// Short times, as far as two cores carry twenty nodes.
const QUICK: &str = "lead = \"3s\"\nlate = \"2s\"\nstop = \"0s\"\ntrial = \"5s\"\nsettle = \"2s\"";

/// xorshift: tests need no better chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn is_one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
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
}

/// The trouble of one rollout, and when each part of it ends.
struct Fire<'a> {
    fleet: &'a Fleet,
    began: Instant,
    back: BTreeMap<usize, Instant>,
    plugged: BTreeMap<usize, Instant>,
    share: Option<Instant>,
}

impl<'a> Fire<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        Self { fleet, began: Instant::now(), back: BTreeMap::new(), plugged: BTreeMap::new(), share: None }
    }

    fn rage(&mut self, nodes: &mut Nodes, chance: &mut Chance, tally: &mut Tally) {
        self.end_what_is_over(nodes);
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
    fn put_out(self) {
        for number in self.plugged.into_keys() {
            self.fleet.plug(number);
        }
        if self.share.is_some() {
            std::fs::rename(self.fleet.path("unplugged"), self.fleet.share()).unwrap();
        }
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

fn rollouts_under_fire(size: usize, rollouts: usize) {
    let seed = std::env::var("CUTOVER_FLEET_SEED").map_or(42, |text| text.parse().unwrap());
    let (mut chance, mut tally) = (Chance(seed), Tally::default());
    let fleet = Fleet::new(size, "synchronous", QUICK);
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
        let mut fire = Fire::new(&fleet);
        let outcome = fleet.live(|nodes| fire.rage(nodes, &mut chance, &mut tally));
        fire.put_out();
        let expected = if outcome == "kept" { wanted } else { &old };
        let told = format!("seed {seed}, rollout {rollout} to {wanted}, {outcome}");
        assert_eq!(fleet.all_run(), [expected], "{told}: {}", fleet.why());
        let closed = closed(&fleet, rollout);
        assert!(closed.iter().all(|running| running == expected), "{told}: closed on {closed:?}");
        assert!(!(is_sick && outcome == "kept"), "{told}: one of them was sick");
        drop(std::fs::remove_file(sick));
        // Who failed, or was killed too often in its trial, would vote no for ever.
        if outcome == "rolled back" {
            (0..size).for_each(|number| drop(fleet.run(number, &["mark-good", wanted])));
        }
        if outcome == "aborted" {
            eprintln!("{told}: {}", fleet.reason());
        }
        *tally.outcomes.entry(outcome).or_insert(0) += 1;
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
