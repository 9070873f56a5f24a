//! What happens to nodes that are away, on storage that is well: one story each.

use cutover::coord::NodeName;
use cutover::coord::operate;
use cutover::coord::settings::{Mode, OnHalt, Overlap};
use cutover::types::Span;
use jiff::{SignedDuration, Timestamp};

use super::node::{Luck, release};
use super::{Chaos, Fleet, HARSH};

const CALM: Chaos = Chaos { until: 0, ..HARSH };
pub const MINUTE: i64 = 60_000;

/// A fleet on release 1 whose nodes are all well.
pub fn calm(mode: Mode, size: usize) -> Fleet {
    let mut fleet = Fleet::new(1, size, mode, CALM);
    for node in &mut fleet.nodes {
        node.luck = Luck::Good;
        node.life.set_skew(0);
    }
    let settings = (*fleet.settings).clone();
    fleet.change(cutover::coord::Settings { overlap: Overlap::Brief, at_once: 1, ..settings });
    fleet
}

fn runs(fleet: &Fleet, node: usize) -> &str {
    fleet.nodes[node].pointer.version.as_str()
}

fn waive(fleet: &Fleet, number: u64, node: &str) {
    let node: NodeName = node.parse().unwrap();
    fleet.operate(|operator, _| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let rollout = operator.rollout(&made, number).unwrap();
        operator.waive(&rollout, &node, "it is away").unwrap();
    });
}

/// So much time goes by.
pub fn pass(fleet: &mut Fleet, ms: i64) {
    let until = fleet.time() + ms;
    fleet.run(until);
    fleet.advance_to(until);
}

#[test]
fn a_waived_node_that_returns_catches_up_and_tries_until_it_has() {
    for mode in [Mode::Synchronous, Mode::Rolling] {
        let mut fleet = calm(mode, 3);
        fleet.propose("2");
        pass(&mut fleet, 1500);
        fleet.nodes[2].lose();
        waive(&fleet, 1, "n2");
        pass(&mut fleet, 10 * MINUTE);
        assert_eq!((runs(&fleet, 0), runs(&fleet, 1), runs(&fleet, 2)), ("2", "2", "1"), "{mode:?}");
        fleet.nodes[2].is_lost = false;
        fleet.nodes[2].luck = Luck::Unstageable;
        pass(&mut fleet, 10 * MINUTE);
        assert_eq!(runs(&fleet, 2), "1", "{mode:?}: it cannot be staged there yet");
        fleet.nodes[2].luck = Luck::Good;
        pass(&mut fleet, 10 * MINUTE);
        assert_eq!(runs(&fleet, 2), "2", "{mode:?}: {}", fleet.why());
    }
}

#[test]
fn where_nobody_waits_for_others_the_last_one_left_still_decides() {
    for left in 0..6 {
        let mut fleet = calm(Mode::Synchronous, 6);
        let settings = (*fleet.settings).clone();
        fleet.change(cutover::coord::Settings { decider_step: Span::seconds(0), ..settings });
        fleet.propose("2");
        for number in (0..6).filter(|number| *number != left) {
            fleet.nodes[number].lose();
        }
        pass(&mut fleet, 10 * MINUTE);
        assert!(fleet.has_outcome(), "n{left} waits for ever: {}", fleet.why());
    }
}

#[test]
fn a_node_that_slept_through_what_is_long_gone_catches_up_with_the_rest() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    pass(&mut fleet, 10 * MINUTE);
    fleet.nodes[2].lose();
    for (number, version) in [(2, "3"), (3, "4")] {
        fleet.propose(version);
        waive(&fleet, number, "n2");
        pass(&mut fleet, 10 * MINUTE);
    }
    for number in [1, 2] {
        let mut storage = fleet.storage.lock().unwrap();
        storage
            .names
            .retain(|name, _| name.starts_with("members") || !name.contains(&format!("{number:06}")));
    }
    fleet.nodes[2].is_lost = false;
    fleet.nodes[2].forget();
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("4", "4"), "{}", fleet.why());
}

#[test]
fn a_node_that_was_listed_later_gets_what_the_fleet_has() {
    let mut fleet = calm(Mode::Synchronous, 4);
    fleet.list(&["n0", "n1", "n2"]);
    fleet.propose("2");
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 3)), ("2", "1"), "{}", fleet.why());
    fleet.list(&["n0", "n1", "n2", "n3"]);
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!(runs(&fleet, 3), "2", "{}", fleet.why());
}

#[test]
fn storage_that_went_back_in_time_is_noticed() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    pass(&mut fleet, 10 * MINUTE);
    fleet
        .storage
        .lock()
        .unwrap()
        .names
        .retain(|name, _| name.starts_with("members") || !name.contains("000001"));
    for node in &mut fleet.nodes {
        node.forget();
    }
    // Numbered as the one that is gone: whoever has ended that one must not take this one for it.
    fleet.propose("3");
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 1)), ("2", "2"), "{}", fleet.why());
    let told = fleet.nodes[0].last_trouble.clone();
    assert!(told.contains("went back in time"), "{told}");
}

#[test]
fn a_gate_that_storage_has_lost_is_put_back_by_who_has_read_it() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    let plan = "rollouts/000001.plan";
    while !fleet.storage.lock().unwrap().names.contains_key(plan) {
        pass(&mut fleet, 500);
    }
    pass(&mut fleet, 2000);
    let before = fleet.storage.lock().unwrap().names.remove(plan);
    for node in &mut fleet.nodes {
        node.forget();
    }
    pass(&mut fleet, 10 * MINUTE);
    let after = fleet.storage.lock().unwrap().names.get(plan).cloned();
    assert_eq!(before.map(|(text, _)| text), after.map(|(text, _)| text));
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("2", "2"), "{}", fleet.why());
}

#[test]
fn a_switch_that_is_set_for_later_can_be_called_off_until_shortly_before() {
    for is_called_off in [true, false] {
        let mut fleet = calm(Mode::Synchronous, 3);
        let later = SignedDuration::from_mins(60);
        fleet.propose_at("2", Some(later));
        pass(&mut fleet, 59 * MINUTE);
        let go = fleet.storage.lock().unwrap().names.contains_key("rollouts/000001.go");
        assert!(!go, "nobody goes an hour before");
        if is_called_off {
            let word = fleet.operate(|operator, now: Timestamp| {
                let made = operate::fleet(operator.board, "simulated").unwrap();
                let rollout = operator.rollout(&made, 1).unwrap();
                operator.abort(&rollout, "not today", now).unwrap()
            });
            assert_eq!(word, "cancelled");
        }
        pass(&mut fleet, 20 * MINUTE);
        let wanted = if is_called_off { "1" } else { "2" };
        assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), (wanted, wanted), "{}", fleet.why());
        assert_eq!(fleet.ever_out, !is_called_off, "out of service although it was called off");
    }
}

#[test]
fn files_that_are_no_proposals_neither_stop_a_fleet_nor_use_up_its_numbers() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    pass(&mut fleet, 10 * MINUTE);
    for name in ["rollouts/000002", "rollouts/999999", "rollouts/000003.plan"] {
        fleet.storage.lock().unwrap().names.insert(name.into(), ("junk".into(), 0));
    }
    fleet.propose("3");
    pass(&mut fleet, 10 * MINUTE);
    // Its plan is junk: nobody can switch, and nobody is stuck.
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("2", "2"), "{}", fleet.why());
    assert_eq!(release("2").version.as_str(), runs(&fleet, 1));
}

#[test]
fn after_a_halt_all_go_back_where_that_is_wanted_and_few_at_once() {
    for on_halt in [OnHalt::Stop, OnHalt::Rollback] {
        let mut fleet = calm(Mode::Rolling, 6);
        let settings = (*fleet.settings).clone();
        fleet.change(cutover::coord::Settings { on_halt, ..settings });
        let runs_new = |fleet: &Fleet| fleet.nodes.iter().filter(|node| node.pointer == release("2")).count();
        fleet.propose("2");
        while runs_new(&fleet) < 3 {
            pass(&mut fleet, 1000);
        }
        for node in fleet.nodes.iter_mut().filter(|node| node.pointer != release("2")) {
            node.luck = Luck::SickAfter(500);
        }
        // While it runs, `look` sees that no more than one is out of service, whichever way it goes.
        pass(&mut fleet, 30 * MINUTE);
        let wanted = if on_halt == OnHalt::Stop { 3 } else { 0 };
        assert_eq!(runs_new(&fleet), wanted, "{on_halt:?}: {}", fleet.why());
        // The next rollout waits for nobody.
        for node in &mut fleet.nodes {
            node.luck = Luck::Good;
        }
        fleet.propose("3");
        pass(&mut fleet, 30 * MINUTE);
        assert!(fleet.nodes.iter().all(|node| node.pointer == release("3")), "{}", fleet.why());
    }
}

#[test]
fn after_its_time_nobody_takes_a_ticket() {
    let mut fleet = calm(Mode::Rolling, 3);
    for node in &mut fleet.nodes {
        node.is_lost = true;
    }
    fleet.propose("2");
    fleet.advance_to(fleet.time() + 2 * 60 * MINUTE);
    for node in &mut fleet.nodes {
        node.is_lost = false;
    }
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("1", "1"), "{}", fleet.why());
    let outcome = fleet.storage.lock().unwrap().names["rollouts/000001.outcome"].0.clone();
    assert!(outcome.contains("\"partial\""), "{outcome}");
}

#[test]
fn a_node_whose_clock_is_off_says_so_wherever_it_stands_in_the_order() {
    for off in 0..12 {
        let mut fleet = calm(Mode::Synchronous, 12);
        fleet.nodes[off].life.set_skew(3000);
        fleet.propose("2");
        pass(&mut fleet, 10 * MINUTE);
        let go = fleet.storage.lock().unwrap().names["rollouts/000001.go"].0.clone();
        assert!(go.contains(&format!("n{off}: its clock is -3000 ms off")), "{go}");
        assert!((0..12).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
    }
}
