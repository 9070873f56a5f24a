//! For how long a fleet runs two releases at once, on simulated time: the bounds that are promised, with the default
//! times. Each node's service runs on when its process dies.

use std::sync::atomic::Ordering;

use cutover::coord::settings::Mode;
use cutover::types::ReleaseId;

use super::Fleet;
use super::node::{Luck, SimNode};
use super::stories::{MINUTE, calm, pass};

/// How far each clock may be off here, and what a tick and the work at the instant take.
const CLOCKS: i64 = 20;
const TICKS: i64 = 20;
const POLL: i64 = 1000;
const VISIBILITY: i64 = 2000;
const LATE: i64 = 10_000;
const BACK: i64 = 5000;
const STEP: i64 = 3000;

/// The time during which two releases served at once.
#[derive(Debug, Default)]
pub struct Mixed {
    since: Option<i64>,
    /// Each stretch of it.
    pub stretches: Vec<i64>,
}

impl Mixed {
    pub fn look(&mut self, now: i64, nodes: &[SimNode]) {
        let serving: Vec<&ReleaseId> = nodes.iter().filter_map(|node| node.serves.as_ref()).collect();
        let is_mixed = serving.iter().any(|one| *one != serving[0]);
        match (is_mixed, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.stretches.push(now - since);
                self.since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// Ten nodes shortly before the instant: all hold it, and have read "go".
fn before_the_instant(seed: i64) -> (Fleet, i64) {
    let mut fleet = calm(Mode::Synchronous, 10);
    for (number, node) in (0..).zip(&mut fleet.nodes) {
        node.life.set_skew((number * 7 + seed * 3) % (2 * CLOCKS) - CLOCKS);
        node.wake = (number * 97 + seed * 41) % 1000;
    }
    fleet.mixed = Some(Mixed::default());
    fleet.propose("2");
    let has_go = |fleet: &Fleet| fleet.storage.lock().unwrap().decided(1, "go").is_some();
    while !has_go(&fleet) {
        pass(&mut fleet, 100);
    }
    pass(&mut fleet, POLL + 100);
    let instant = fleet.nodes.iter().map(|node| node.wake).min().unwrap();
    assert!(fleet.nodes.iter().all(|node| node.wake - instant <= 2 * CLOCKS), "{}", fleet.why());
    (fleet, instant)
}

fn stretches(fleet: &Fleet, wanted: &str) -> Vec<i64> {
    assert!(fleet.nodes.iter().all(|node| node.pointer.version.as_str() == wanted), "{}", fleet.why());
    let mixed = fleet.mixed.as_ref().unwrap();
    assert!(mixed.since.is_none(), "still mixed\n{}", fleet.why());
    mixed.stretches.clone()
}

#[test]
fn b1_without_a_failure_two_releases_meet_for_twice_the_clocks_error() {
    for seed in 0..5 {
        let (mut fleet, _) = before_the_instant(seed);
        pass(&mut fleet, 5 * MINUTE);
        let mixed = stretches(&fleet, "2");
        assert!(mixed.iter().sum::<i64>() <= 2 * CLOCKS + TICKS, "seed {seed}: {mixed:?}");
    }
}

#[test]
fn b2_a_member_that_dies_at_the_instant_brings_all_back_in_time() {
    for seed in 0..5 {
        let (mut fleet, instant) = before_the_instant(seed);
        let until = instant - 1 - fleet.time();
        pass(&mut fleet, until);
        let dead = usize::try_from(seed).unwrap() * 2;
        fleet.nodes[dead].lose();
        pass(&mut fleet, 5 * MINUTE);
        let mixed = stretches(&fleet, "1");
        // The first in the order may be the one that died.
        let bound = LATE + 3 * POLL + VISIBILITY + BACK + POLL + STEP + 2 * CLOCKS + TICKS;
        assert!(*mixed.iter().max().unwrap() <= bound, "seed {seed}: {mixed:?} over {bound}");
    }
}

#[test]
fn b3_a_member_that_falls_sick_brings_all_back_together() {
    for seed in 0..5 {
        let (mut fleet, _) = before_the_instant(seed);
        fleet.nodes[3].luck = Luck::SickAfter(1500);
        pass(&mut fleet, 5 * MINUTE);
        let mixed = stretches(&fleet, "1");
        let longest = *mixed.iter().max().unwrap();
        assert!(longest <= 2 * CLOCKS + TICKS, "seed {seed}: {mixed:?}");
    }
}

#[test]
fn b4_a_member_that_loses_its_storage_leaves_when_the_others_go_back() {
    for seed in 0..5 {
        let (mut fleet, instant) = before_the_instant(seed);
        let until = instant - 1 - fleet.time();
        pass(&mut fleet, until);
        fleet.nodes[4].is_unplugged.store(true, Ordering::Relaxed);
        pass(&mut fleet, 5 * MINUTE);
        let mixed = stretches(&fleet, "1");
        let bound = POLL + VISIBILITY + POLL + STEP + 2 * CLOCKS + TICKS;
        // At the instant itself, and at the end.
        assert!(*mixed.iter().max().unwrap() <= bound, "seed {seed}: {mixed:?} over {bound}");
    }
}
