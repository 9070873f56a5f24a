//! Whole rollouts from a seed, with everything that can happen; and many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cutover::coord::settings::{Mode, OnHalt};

use super::acts::Act;
use super::chaos::{Chaos, Random};
use super::{ALL_ENDED, Came, Fleet, HARSH, SMALL};

/// What one rollout leaves behind does not hold up the next one: in some runs it is made, and all follow.
fn assert_goes_on(fleet: &mut Fleet, act: Option<Act>) {
    // Two machines of one name go on when a person has looked.
    if !fleet.seed.is_multiple_of(4) || matches!(act, Some(Act::Clone | Act::Replace)) {
        return;
    }
    let behind = fleet.behind_in_the_next();
    assert!(
        behind.is_empty(),
        "seed {}: {behind:?} do not follow the next one, {act:?}\n{}",
        fleet.seed,
        fleet.why()
    );
}

/// One synchronous rollout with everything that can happen; what it came to.
fn synchronous(seed: u64, sizes: i64) -> Came {
    let mut random = Random::new(seed ^ 0xabcd);
    let size = 3 + usize::try_from(random.below(sizes)).unwrap();
    // Some runs are harsh, some are nearly calm: else no rollout would ever be kept.
    let mild = 1 << random.below(8);
    let scale = |once_in: u64| once_in * mild;
    let chaos = Chaos {
        cut_off: scale(HARSH.cut_off),
        silence: scale(HARSH.silence),
        late_create: scale(HARSH.late_create),
        full: scale(HARSH.full),
        torn: scale(HARSH.torn),
        ..HARSH
    };
    let mut fleet = Fleet::new(seed, size, Mode::Synchronous, chaos);
    for node in &mut fleet.nodes {
        if random.chance(3 * mild) {
            node.life.revive(1 + random.below(120));
        }
    }
    let act = fleet.begin(&mut random, 120_000, sizes > SMALL);
    fleet.run(ALL_ENDED);
    let came = fleet.came();
    assert!(fleet.has_outcome(), "seed {seed}: no outcome\n{}", fleet.why());
    let is_ended = fleet.nodes.iter().all(|node| node.is_extra || node.journal.is_none());
    assert!(is_ended, "seed {seed}: somebody is stuck, {act:?}\n{}", fleet.why());
    assert!(fleet.is_seen_to_end(), "seed {seed}: for others it goes on, {act:?}\n{}", fleet.why());
    assert!(came != Came::Mixed, "seed {seed}: mixed, {act:?}\n{}", fleet.why());
    let stranger = &fleet.stranger;
    assert!(
        stranger.is_none(),
        "seed {seed}: a stranger has switched, {stranger:?}, {act:?}\n{}",
        fleet.why()
    );
    assert_goes_on(&mut fleet, act);
    came
}

/// Nobody stops a rollout because of files that contradict each other, unless somebody has damaged, copied or lost some.
fn assert_halted_for_a_reason(fleet: &Fleet, act: Option<Act>) {
    let halt = fleet.storage.lock().unwrap().decided(1, "halt").unwrap_or_default();
    let is_damaged = matches!(act, Some(Act::Restore | Act::Rot | Act::Clone | Act::Replace));
    assert!(
        is_damaged || !halt.contains("inconsistent"),
        "seed {}: halted: {halt}, {act:?}\n{}",
        fleet.seed,
        fleet.why()
    );
}

/// One rolling rollout; what it came to. A halt leaves two releases, which is what a halt is for.
fn rolling(seed: u64, sizes: i64) -> Came {
    let mut random = Random::new(seed ^ 0x1234);
    let size = 3 + usize::try_from(random.below(sizes)).unwrap();
    let mild = 1 << random.below(8);
    let chaos = Chaos { cut_off: HARSH.cut_off * mild, silence: HARSH.silence * mild, ..HARSH };
    let mut fleet = Fleet::new(seed, size, Mode::Rolling, chaos);
    for node in &mut fleet.nodes {
        if random.chance(3 * mild) {
            node.life.revive(1 + random.below(120));
        }
    }
    let act = fleet.begin(&mut random, 300_000, sizes > SMALL);
    fleet.run(ALL_ENDED);
    assert!(fleet.has_outcome(), "seed {seed}: no outcome, {act:?}\n{}", fleet.why());
    let is_ended = fleet.nodes.iter().all(|node| node.is_extra || node.journal.is_none());
    assert!(is_ended, "seed {seed}: somebody is stuck, {act:?}\n{}", fleet.why());
    fleet.waive_twins();
    assert!(fleet.is_seen_to_end(), "seed {seed}: for others it goes on, {act:?}\n{}", fleet.why());
    assert_halted_for_a_reason(&fleet, act);
    let came = fleet.came();
    let outcome = fleet.storage.lock().unwrap().decided(1, "outcome").unwrap_or_default();
    // A person undoes it where storage, or who a node is, was lost on the way, or where somebody has ended it in the middle.
    let is_ended_by_hand = fleet.storage.lock().unwrap().decided(1, "void").is_some();
    let is_let_go =
        is_ended_by_hand || matches!(act, Some(Act::Restore | Act::Rot | Act::Clone | Act::Replace));
    if outcome.contains("\"halted\"") && !is_let_go && fleet.settings.on_halt == OnHalt::Rollback {
        assert_eq!(came, Came::Old, "seed {seed}: halted, and not undone\n{}", fleet.why());
    }
    assert_goes_on(&mut fleet, act);
    came
}

/// One rollout of cells; what it came to. A halt leaves two releases, each cell on one of them.
fn cells(seed: u64, sizes: i64) -> Came {
    let mut random = Random::new(seed ^ 0x5e11);
    let size = 3 + usize::try_from(random.below(sizes)).unwrap();
    let mild = 1 << random.below(8);
    let chaos = Chaos { cut_off: HARSH.cut_off * mild, silence: HARSH.silence * mild, ..HARSH };
    let mut fleet = Fleet::new(seed, size, Mode::Cells, chaos);
    for node in &mut fleet.nodes {
        if random.chance(3 * mild) {
            node.life.revive(1 + random.below(120));
        }
    }
    let act = fleet.begin(&mut random, 300_000, sizes > SMALL);
    fleet.run(ALL_ENDED);
    assert!(fleet.has_outcome(), "seed {seed}: no outcome, {act:?}\n{}", fleet.why());
    let is_ended = fleet.nodes.iter().all(|node| node.is_extra || node.journal.is_none());
    assert!(is_ended, "seed {seed}: somebody is stuck, {act:?}\n{}", fleet.why());
    assert!(fleet.is_seen_to_end(), "seed {seed}: for others it goes on, {act:?}\n{}", fleet.why());
    assert_halted_for_a_reason(&fleet, act);
    let mixed = fleet.mixed_cell();
    assert!(mixed.is_none(), "seed {seed}: cell {mixed:?} is mixed, {act:?}\n{}", fleet.why());
    let stranger = &fleet.stranger;
    assert!(
        stranger.is_none(),
        "seed {seed}: a stranger has switched, {stranger:?}, {act:?}\n{}",
        fleet.why()
    );
    let came = fleet.came();
    assert_goes_on(&mut fleet, act);
    came
}

/// The value of a variable that is a number.
pub fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// So many rollouts, from the seed `CUTOVER_SIM_FIRST` on; `CUTOVER_SIM_COUNT` of them where it is set.
fn many(count: u64, sizes: i64, run: fn(u64, i64) -> Came) {
    let first = number_of("CUTOVER_SIM_FIRST").unwrap_or(1);
    let count = number_of("CUTOVER_SIM_COUNT").filter(|_| sizes > SMALL).unwrap_or(count);
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let (came, failed) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeSet::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            // The others go on: where one seed fails, which ones do tells more.
            match std::panic::catch_unwind(|| run(seed, sizes)) {
                Ok(result) => *came.lock().unwrap().entry(result).or_insert(0) += 1,
                Err(_) => drop(failed.lock().unwrap().insert(seed)),
            }
            if (done.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(500) {
                eprintln!(
                    "until seed {seed}: {:?}, failed {:?}",
                    came.lock().unwrap(),
                    failed.lock().unwrap()
                );
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (came, failed) = (came.into_inner().unwrap(), failed.into_inner().unwrap());
    eprintln!("{count} rollouts from seed {first}: {came:?}");
    assert!(failed.is_empty(), "of {count} rollouts from seed {first} these seeds failed: {failed:?}");
    assert!(came.len() > 1, "all came out the same: {came:?}");
}

#[test]
fn synchronous_fleets_end_on_one_release() {
    many(60, SMALL, synchronous);
}

#[test]
#[ignore = "minutes without optimisation: `make test-fleet`"]
fn fleet_simulation_of_ten_thousand_synchronous_rollouts() {
    many(10_000, 48, synchronous);
}

#[test]
fn rolling_fleets_have_few_out_of_service_and_end() {
    many(40, SMALL, rolling);
}

#[test]
#[ignore = "minutes without optimisation: `make test-fleet`"]
fn fleet_simulation_of_two_thousand_rolling_rollouts() {
    many(2_000, 48, rolling);
}

#[test]
fn fleets_of_cells_have_few_cells_out_of_service_and_none_mixed() {
    many(40, SMALL, cells);
}

#[test]
#[ignore = "minutes without optimisation: `make test-fleet`"]
fn fleet_simulation_of_two_thousand_rollouts_of_cells() {
    many(2_000, 48, cells);
}

#[test]
fn one_seed() {
    let Some(seed) = number_of("CUTOVER_SIM_SEED") else { return };
    let sizes = number_of("CUTOVER_SIM_SIZES").map_or(SMALL, |sizes| i64::try_from(sizes).unwrap());
    let run = match std::env::var("CUTOVER_SIM_MODE").as_deref() {
        Ok("rolling") => rolling,
        Ok("cells") => cells,
        _ => synchronous,
    };
    eprintln!("{:?}", run(seed, sizes));
}
