//! What a fleet asks of its storage, by its size; and whether a large one is still looked at quickly.

use std::process::Command;
use std::time::Instant;

use cutover::coord::Settings;
use cutover::coord::settings::{Mode, OnHalt, Overlap};
use cutover::types::Span;

use super::Fleet;
use super::node::{Luck, SimNode};
use super::stories::{calm, pass};

/// Runs one rollout to its end; how often a node asked storage.
fn count(fleet: &mut Fleet) -> f64 {
    fleet.storage.lock().unwrap().operations.clear();
    let (began, clock) = (fleet.time(), Instant::now());
    fleet.propose("2");
    while !(fleet.has_outcome() && fleet.nodes.iter().all(|node| node.journal.is_none())) {
        assert!(fleet.time() - began < 30 * 86_400_000, "it does not end");
        pass(fleet, 1000);
    }
    let simulated = (fleet.time() - began) / 1000;
    let operations = fleet.storage.lock().unwrap().operations.clone();
    let size = fleet.nodes.len() as f64;
    let all = operations.values().sum::<u64>() as f64 / size;
    let each = |what| *operations.get(what).unwrap_or(&0) as f64 / size;
    eprintln!(
        "{:?}, overlap {:?}, {size:>4} nodes: {all:>6.1} operations a node ({:.1} reads, {:.1} creates, {:.1} beats, \
         {:.1} others) in {simulated} s of a rollout, {:.1} s here",
        fleet.settings.mode,
        fleet.settings.overlap,
        each("read"),
        each("create"),
        each("beat"),
        each("list") + each("clock"),
        clock.elapsed().as_secs_f64()
    );
    all
}

fn sized(mode: Mode, overlap: Overlap, size: usize) -> Fleet {
    let mut fleet = calm(mode, size);
    for (number, node) in (0..).zip(&mut fleet.nodes) {
        node.wake = number * 131 % 30_000;
        node.timer = 300_000;
        node.ends_with_update = true;
        // A turn takes that long; where all go at once nobody waits for a turn.
        node.healthy_after = if mode == Mode::Rolling { 20_000 } else { node.healthy_after };
    }
    let settings = (*fleet.settings).clone();
    let trial = Span::seconds(if mode == Mode::Rolling { 60 } else { 20 });
    let at_once = u32::try_from(size.div_ceil(20)).unwrap().min(200);
    fleet.change(Settings { overlap, at_once, trial, ..settings });
    fleet
}

#[test]
fn a_node_of_a_large_fleet_asks_hardly_more_than_one_of_a_small_one() {
    for overlap in [Overlap::Brief, Overlap::None] {
        let of = |size| count(&mut sized(Mode::Synchronous, overlap, size));
        let (small, large) = (of(10), of(80));
        assert!(
            large <= 2.0 * small,
            "overlap {overlap:?}: {small} operations a node with 10 nodes, {large} with 80"
        );
    }
}

#[test]
fn a_member_of_a_large_rolling_fleet_asks_hardly_more_than_one_of_a_small_one() {
    let of = |size| count(&mut sized(Mode::Rolling, Overlap::Brief, size));
    let (few, small, large) = (of(10), of(40), of(200));
    assert!(few <= 2.0 * small, "{few} operations a node with 10 nodes, {small} with 40");
    assert!(large <= 1.5 * small, "{small} operations a node with 40 nodes, {large} with 200");
}

/// How often a node at rest asks storage in a run of its timer, after a rollout that was halted and undone.
fn asked_after_halt(size: usize) -> f64 {
    let mut fleet = sized(Mode::Rolling, Overlap::Brief, size);
    let settings = (*fleet.settings).clone();
    fleet.change(Settings { on_halt: OnHalt::Rollback, ..settings });
    let (last, others) = fleet.nodes.split_last_mut().unwrap();
    last.luck = Luck::SickAfter(500);
    // The sick one is the last to look.
    last.wake = 120_000;
    assert!(!others.is_empty());
    fleet.propose("2");
    while !(fleet.has_outcome() && fleet.nodes.iter().all(SimNode::has_ended)) {
        pass(&mut fleet, 60_000);
        assert!(fleet.time() < 86_400_000, "it does not end\n{}", fleet.why());
    }
    assert!(fleet.storage.lock().unwrap().decided(1, "outcome").unwrap().contains("halted"));
    fleet.storage.lock().unwrap().operations.clear();
    let runs = 4;
    let until = fleet.time() + runs * 300_000;
    while fleet.tick(until) {}
    let operations = fleet.storage.lock().unwrap().operations.clone();
    let each = operations.values().sum::<u64>() as f64 / (size as f64 * runs as f64);
    eprintln!("{size} nodes: {each:.1} operations in a run of the timer, {operations:?}");
    each
}

#[test]
fn a_node_at_rest_asks_no_more_in_a_large_fleet_after_a_halt_was_undone() {
    let (small, large) = (asked_after_halt(10), asked_after_halt(80));
    assert!(large <= 1.5 * small, "{small} operations with 10 nodes, {large} with 80");
}

#[test]
#[ignore = "measures: `make test-fleet`"]
fn fleet_growth_in_operations_and_time() {
    let kinds = [
        (Mode::Synchronous, Overlap::Brief),
        (Mode::Synchronous, Overlap::None),
        (Mode::Rolling, Overlap::Brief),
    ];
    for (mode, overlap) in kinds {
        for size in [3, 10, 50, 200, 1000] {
            count(&mut sized(mode, overlap, size));
        }
    }
}

/// Of `CUTOVER_SIM_SIZES` members where it is set. Each holds the whole list: time and memory grow with the square of it.
#[test]
#[ignore = "two thousand nodes: five minutes and 2 GB"]
fn a_node_of_a_very_large_fleet_asks_no_more_than_promised() {
    let size =
        super::runs::number_of("CUTOVER_SIM_SIZES").map_or(2000, |size| usize::try_from(size).unwrap());
    for mode in [Mode::Synchronous, Mode::Rolling] {
        let asked = count(&mut sized(mode, Overlap::Brief, size));
        assert!(asked <= 80.0, "{asked} operations a node in {mode:?}");
    }
}

#[test]
#[ignore = "measures: `make test-fleet`"]
fn fleet_growth_in_the_time_of_status() {
    for size in [10, 200, 1000] {
        let mut fleet = sized(Mode::Synchronous, Overlap::Brief, size);
        count(&mut fleet);
        let directory = tempfile::tempdir().unwrap();
        let share = directory.path().join("share");
        for (name, (text, _)) in &fleet.storage.lock().unwrap().names {
            let path = share.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.as_bytes()).unwrap();
        }
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let config = directory.path().join("config.toml");
        let text = format!(
            "root = \"{}\"\n[fleet]\nmode = \"synchronous\"\nname = \"simulated\"\ndirectory = \"{}\"\n\
             node = \"n0\"\nallow_unsigned = true\n",
            root.display(),
            share.display()
        );
        std::fs::write(&config, text).unwrap();
        let time = || {
            let began = Instant::now();
            let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
            let done =
                command.arg("--config").arg(&config).args(["fleet", "status", "--json"]).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            began.elapsed().as_secs_f64() * 1000.0
        };
        let mut times: Vec<f64> = (0..5).map(|_| time()).collect();
        times.sort_by(f64::total_cmp);
        eprintln!("{size} members: `fleet status --json` takes {:.0} ms (median of 5)", times[2]);
    }
}
