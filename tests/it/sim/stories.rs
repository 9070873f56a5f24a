//! What happens to nodes that are away, on storage that is well: one story each.

use cutover::coord::NodeName;
use cutover::coord::collect::{Collected, Terms};
use cutover::coord::facts::{self, Fact, names};
use cutover::coord::look::seal_summed;
use cutover::coord::operate;
use cutover::coord::settings::{Mode, OnHalt, Overlap};
use cutover::coord::voice::Voice;
use cutover::lifecycle::fleet::{Here, Kept, believe};
use cutover::types::record::Phase;
use cutover::types::{Digest, Span};
use jiff::{SignedDuration, Timestamp};

use super::acts::Act;
use super::node::{Luck, SimNode, release};
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
    fleet.operate(|operator, now| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let rollout = operator.rollout(&made, number).unwrap();
        operator.waive(&rollout, &node, "it is away", now).unwrap();
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
        // Where all vote, it has; where they take turns, its own has not come.
        pass(&mut fleet, if mode == Mode::Synchronous { 1500 } else { 0 });
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
fn a_waived_node_that_falls_sick_brings_nobody_back() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    while !(0..3).all(|node| runs(&fleet, node) == "2") {
        pass(&mut fleet, 20);
    }
    waive(&fleet, 1, "n1");
    fleet.nodes[1].luck = Luck::SickAfter(0);
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("2", "2"), "{}", fleet.why());
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
    assert_eq!(collect(&fleet).rollouts, [1, 2]);
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
fn where_storage_has_lost_a_gate_nobody_decides_until_it_is_put_back() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    while fleet.storage.lock().unwrap().decided(1, "plan").is_none() {
        pass(&mut fleet, 500);
    }
    pass(&mut fleet, 2000);
    let plan = &fleet.storage.lock().unwrap().decision(1, "plan");
    let before = fleet.storage.lock().unwrap().names.remove(plan);
    for node in &mut fleet.nodes {
        node.forget();
    }
    pass(&mut fleet, 10 * MINUTE);
    // Nobody has vouched, so each goes back by itself.
    assert!(fleet.storage.lock().unwrap().decided(1, "outcome").is_none(), "{}", fleet.why());
    assert!((0..3).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
    fleet.repair();
    let after = fleet.storage.lock().unwrap().names.get(plan).cloned();
    assert_eq!(before.map(|(text, _)| text), after.map(|(text, _)| text));
    pass(&mut fleet, 10 * MINUTE);
    assert!(fleet.has_outcome(), "{}", fleet.why());
    assert!((0..3).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
}

#[test]
fn what_a_node_has_ended_it_does_not_take_up_again() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    pass(&mut fleet, 1500);
    fleet.back_up();
    pass(&mut fleet, 10 * MINUTE);
    assert!((0..3).all(|node| runs(&fleet, node) == "2"), "{}", fleet.why());
    // As it was while they voted.
    fleet.restore();
    for node in &mut fleet.nodes {
        node.forget();
    }
    pass(&mut fleet, 10 * MINUTE);
    assert!(!fleet.has_outcome(), "{}", fleet.why());
    for node in &fleet.nodes {
        assert!(node.last_trouble.contains("`cutover fleet repair`"), "{}: {}", node.name, node.last_trouble);
    }
    fleet.repair();
    pass(&mut fleet, MINUTE);
    assert!(
        fleet.storage.lock().unwrap().decided(1, "outcome").unwrap().contains("\"keep\""),
        "{}",
        fleet.why()
    );
}

#[test]
fn a_node_that_has_the_release_already_keeps_no_wave_from_opening() {
    let mut fleet = calm(Mode::Rolling, 4);
    let waves = vec![cutover::coord::settings::WaveSetting {
        nodes: vec!["n0".parse().unwrap()],
        groups: vec![],
        percent: None,
    }];
    let settings = (*fleet.settings).clone();
    fleet.change(cutover::coord::Settings { waves, ..settings });
    for node in &mut fleet.nodes[..2] {
        node.pointer = release("2");
        node.serves = Some(release("2"));
    }
    fleet.propose("2");
    pass(&mut fleet, 20 * MINUTE);
    assert!((0..4).all(|node| runs(&fleet, node) == "2"), "{}", fleet.why());
    assert!(
        fleet.storage.lock().unwrap().decided(1, "outcome").unwrap().contains("\"keep\""),
        "{}",
        fleet.why()
    );
}

#[test]
fn a_switch_that_is_set_for_later_can_be_called_off_until_shortly_before() {
    for is_called_off in [true, false] {
        let mut fleet = calm(Mode::Synchronous, 3);
        let later = SignedDuration::from_mins(60);
        fleet.propose_at("2", Some(later));
        pass(&mut fleet, 59 * MINUTE);
        let go = fleet.storage.lock().unwrap().decided(1, "go").is_some();
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
    for name in ["rollouts/000002", "rollouts/999999"] {
        fleet.storage.lock().unwrap().names.insert(name.into(), ("junk".into(), 0));
    }
    fleet.propose("3");
    let plan = fleet.storage.lock().unwrap().decision(3, "plan");
    fleet.storage.lock().unwrap().names.insert(plan, ("".into(), 0));
    pass(&mut fleet, 10 * MINUTE);
    // Its plan is empty, and stays so: nobody can switch, and nobody keeps waiting in an update.
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("2", "2"), "{}", fleet.why());
    assert!(fleet.nodes.iter().all(|node| node.journal.is_none()), "{}", fleet.why());
    let word = fleet.operate(|operator, now| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let rollout = operator.rollout(&made, 3).unwrap();
        operator.abort(&rollout, "its plan is empty", now).unwrap()
    });
    assert_eq!(word, "void");
    pass(&mut fleet, 10 * MINUTE);
    fleet.propose("4");
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 1), runs(&fleet, 2)), ("4", "4", "4"), "{}", fleet.why());
}

/// Removes what may go.
fn collect(fleet: &Fleet) -> Collected {
    fleet.operate(|operator, now| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let terms = Terms { older: std::time::Duration::ZERO, keep: 1, now, is_dry: false };
        operator.collect(&made, terms).unwrap()
    })
}

#[test]
fn what_a_member_may_not_know_and_the_newest_that_was_kept_stay() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    // One vouches, and loses its storage before it has read the outcome.
    while fleet.storage.lock().unwrap().names.keys().filter(|name| name.ends_with("000001.report")).count()
        < 3
    {
        pass(&mut fleet, 200);
    }
    fleet.nodes[2].is_unplugged.store(true, std::sync::atomic::Ordering::Relaxed);
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("2", "2"), "{}", fleet.why());
    fleet.propose("3");
    waive(&fleet, 2, "n2");
    pass(&mut fleet, 10 * MINUTE);
    let gone = collect(&fleet);
    if fleet.nodes[2].journal.is_some() {
        assert_eq!((gone.rollouts, gone.kept_for.len()), (vec![], 1));
    }
    fleet.nodes[2].is_unplugged.store(false, std::sync::atomic::Ordering::Relaxed);
    pass(&mut fleet, 10 * MINUTE);
    assert!(fleet.nodes.iter().all(|node| node.pointer == release("3")), "{}", fleet.why());
    // Two that come to nothing: the one that was kept is the oldest by now, and stays all the same.
    for number in [3, 4] {
        fleet.propose("4");
        fleet.operate(|operator, now| {
            let made = operate::fleet(operator.board, "simulated").unwrap();
            let rollout = operator.rollout(&made, number).unwrap();
            operator.abort(&rollout, "not now", now).unwrap()
        });
        pass(&mut fleet, MINUTE);
    }
    collect(&fleet);
    let has = |name: &str| fleet.storage.lock().unwrap().names.contains_key(name);
    assert!(has("rollouts/000002") && has("rollouts/000004"), "{}", fleet.why());
    assert!(!has("rollouts/000003") && has("rollouts/000003.gone"), "{}", fleet.why());
}

#[test]
fn a_member_that_vouched_learns_from_the_mark_how_a_removed_rollout_ended() {
    for has_mark in [true, false] {
        let mut fleet = calm(Mode::Synchronous, 3);
        fleet.propose("2");
        let count = |fleet: &Fleet| {
            let storage = fleet.storage.lock().unwrap();
            storage.names.keys().filter(|name| name.ends_with("000001.report")).count()
        };
        while count(&fleet) < 3 {
            pass(&mut fleet, 200);
        }
        fleet.nodes[2].is_unplugged.store(true, std::sync::atomic::Ordering::Relaxed);
        pass(&mut fleet, 10 * MINUTE);
        if fleet.nodes[2].journal.is_none() {
            // It had read the outcome already.
            continue;
        }
        let name = names::gone(1);
        let digest = Digest::of(fleet.storage.lock().unwrap().names["rollouts/000001"].0.as_bytes());
        let wanted = release("2");
        let gone = facts::Gone {
            rollout: 1,
            proposal: digest,
            ended: "kept".into(),
            release: facts::Wanted { name: "app".into(), version: wanted.version, digest: wanted.digest },
            by: "operator".into(),
        };
        let text = seal_summed(&name, &Fact::Gone(gone));
        let mut storage = fleet.storage.lock().unwrap();
        storage.names.retain(|name, _| name.starts_with("members") || !name.contains("000001"));
        if has_mark {
            storage.names.insert(name, (text.into(), 0));
        }
        drop(storage);
        fleet.nodes[2].is_unplugged.store(false, std::sync::atomic::Ordering::Relaxed);
        fleet.nodes[2].forget();
        pass(&mut fleet, 10 * MINUTE);
        // Without the mark nobody decides anything under the name that is free now.
        assert_eq!(fleet.nodes[2].journal.is_none(), has_mark, "{}", fleet.why());
        assert_eq!(runs(&fleet, 2), "2", "{}", fleet.why());
        assert!(fleet.storage.lock().unwrap().decided(1, "outcome").is_none());
    }
}

#[test]
fn a_node_that_was_away_follows_although_the_next_rollout_came_to_nothing() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.nodes[2].lose();
    fleet.propose("2");
    waive(&fleet, 1, "n2");
    pass(&mut fleet, 10 * MINUTE);
    fleet.propose("3");
    fleet.nodes[2].is_lost = false;
    fleet.nodes[0].is_lost = true;
    pass(&mut fleet, MINUTE);
    fleet.operate(|operator, now| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let rollout = operator.rollout(&made, 2).unwrap();
        operator.abort(&rollout, "not now", now).unwrap()
    });
    fleet.nodes[0].is_lost = false;
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 1), runs(&fleet, 2)), ("2", "2", "2"), "{}", fleet.why());
}

#[test]
fn a_node_that_runs_the_release_already_goes_along() {
    for (sick, wanted) in [(None, "2"), (Some(0), "1")] {
        let mut fleet = calm(Mode::Synchronous, 3);
        fleet.nodes[2].pointer = release("2");
        fleet.nodes[2].serves = Some(release("2"));
        if let Some(sick) = sick {
            fleet.nodes[sick].luck = Luck::SickAfter(500);
        }
        fleet.propose("2");
        pass(&mut fleet, 10 * MINUTE);
        assert_eq!(
            (runs(&fleet, 0), runs(&fleet, 1), runs(&fleet, 2)),
            (wanted, wanted, "2"),
            "{}",
            fleet.why()
        );
        assert!(fleet.nodes.iter().all(super::node::SimNode::has_ended), "{}", fleet.why());
    }
}

#[test]
fn a_clock_that_steps_after_arming_moves_nobody() {
    for step in [100_000, -100_000] {
        let mut fleet = calm(Mode::Synchronous, 3);
        fleet.propose("2");
        while fleet.storage.lock().unwrap().decided(1, "go").is_none() {
            pass(&mut fleet, 100);
        }
        let before = fleet.time();
        fleet.nodes[1].life.set_skew(step);
        let is_mixed = |fleet: &Fleet| {
            let new = fleet.nodes.iter().filter(|node| node.pointer == release("2")).count();
            new != 0 && new != 3
        };
        let mut mixed = 0;
        while fleet.time() < before + 2 * MINUTE {
            pass(&mut fleet, 100);
            mixed += i64::from(is_mixed(&fleet)) * 100;
        }
        assert!(mixed <= 1000, "{step}: two releases side by side for {mixed} ms: {}", fleet.why());
        pass(&mut fleet, 10 * MINUTE);
        assert_eq!((runs(&fleet, 0), runs(&fleet, 1)), ("2", "2"), "{step}: {}", fleet.why());
    }
}

#[test]
fn nobody_waits_for_an_instant_that_lies_too_far_ahead() {
    let hour = SignedDuration::from_hours(1);
    for gate in ["plan", "outcome"] {
        let mut fleet = calm(Mode::Synchronous, 3);
        fleet.propose("2");
        let before = if gate == "plan" { "plan" } else { "switched" };
        while before == "switched" && fleet.nodes.iter().any(|node| node.pointer != release("2")) {
            pass(&mut fleet, 100);
        }
        // Whoever writes it down has a clock that is an hour ahead, or wants all to wait.
        if gate == "plan" {
            let (name, text) = fleet.operate(|operator, now| {
                let made = operate::fleet(operator.board, "simulated").unwrap();
                let rollout = operator.rollout(&made, 1).unwrap();
                let name = rollout.decisions().gate("plan");
                let fact = Fact::Plan(facts::Plan {
                    rollout: 1,
                    proposal: rollout.digest,
                    decision: facts::PlanDecision::Commit,
                    at: Some(now + hour),
                    made: None,
                    by: "liar".into(),
                    why: String::new(),
                    seen: facts::SeenFacts::new(),
                });
                (name.clone(), seal_summed(&name, &fact))
            });
            fleet.storage.lock().unwrap().names.insert(name, (text.into(), 0));
        } else {
            fleet.operate(|operator, now| {
                let made = operate::fleet(operator.board, "simulated").unwrap();
                let rollout = operator.rollout(&made, 1).unwrap();
                operator.abort(&rollout, "it is bad", now + hour).unwrap()
            });
        }
        pass(&mut fleet, MINUTE);
        assert_eq!(
            (runs(&fleet, 0), runs(&fleet, 1), runs(&fleet, 2)),
            ("1", "1", "1"),
            "{gate}: {}",
            fleet.why()
        );
        assert!(fleet.nodes.iter().all(|node| node.journal.is_none()), "{gate}: {}", fleet.why());
    }
}

#[test]
fn a_copy_of_a_node_is_noticed_and_one_of_both_has_no_part() {
    let mut fleet = calm(Mode::Rolling, 3);
    for number in 0..3 {
        fleet.nodes[number].here = Here { machine: "m".into(), place: format!("place-{number}") };
    }
    pass(&mut fleet, MINUTE);
    let copy = fleet.nodes[2].copy("place-of-the-copy");
    fleet.nodes.push(copy);
    fleet.propose("2");
    // While it runs, `look` sees that no more than one is out of service.
    pass(&mut fleet, 30 * MINUTE);
    let told: Vec<&str> = fleet.nodes[2..].iter().map(|node| node.last_trouble.as_str()).collect();
    assert!(told.iter().any(|told| told.contains("copy")), "{told:?}: {}", fleet.why());
    assert!(fleet.nodes.iter().filter(|node| node.pointer == release("2")).count() <= 3, "{}", fleet.why());
}

#[test]
fn a_place_that_storage_has_lost_stays_taken() {
    let mut fleet = calm(Mode::Rolling, 5);
    fleet.propose("2");
    fleet.back_up();
    while !fleet.nodes.iter().any(|node| node.is_out) {
        pass(&mut fleet, 50);
    }
    // The others have read whose turn it is.
    pass(&mut fleet, 1_500);
    let first = fleet.nodes.iter().position(|node| node.is_out).unwrap();
    // Its trial takes a while.
    fleet.nodes[first].wake = fleet.time() + 5_000;
    fleet.restore();
    let is_out = |fleet: &Fleet| fleet.nodes.iter().filter(|node| node.is_out).count();
    for _ in 0..100 {
        pass(&mut fleet, 100);
        assert!(is_out(&fleet) <= 1, "{}", fleet.why());
    }
    let ticket = fleet.storage.lock().unwrap().decided(1, "t.0000.0000").unwrap();
    assert!(ticket.contains(&format!("\"{}\"", fleet.nodes[first].name)), "{ticket}");
    pass(&mut fleet, 10 * MINUTE);
    assert!((0..5).all(|node| runs(&fleet, node) == "2"), "{}", fleet.why());
    assert!(fleet.storage.lock().unwrap().decided(1, "outcome").unwrap().contains("\"keep\""));
    assert_eq!(fleet.worst_out, 1);
}

#[test]
fn who_is_out_takes_a_place_anew_where_another_one_has_its_lost_ticket() {
    let mut fleet = calm(Mode::Rolling, 5);
    fleet.propose("2");
    fleet.back_up();
    while !fleet.nodes.iter().any(|node| node.is_out) {
        pass(&mut fleet, 50);
    }
    let first = fleet.nodes.iter().position(|node| node.is_out).unwrap();
    fleet.happened = Some(Act::Restore);
    // It hangs, and the others begin anew.
    fleet.nodes[first].wake = fleet.time() + 30_000;
    fleet.restore();
    for number in (0..5).filter(|number| *number != first) {
        fleet.nodes[number].forget();
    }
    let has_ticket = |fleet: &Fleet, number: usize, node: &str| {
        let ticket = fleet.storage.lock().unwrap().decided(1, &format!("t.0000.{number:04}"));
        ticket.is_some_and(|text| text.contains(&format!("\"node\":\"{node}\"")))
    };
    let name = fleet.nodes[first].name.clone();
    pass(&mut fleet, 29_000);
    assert!(fleet.storage.lock().unwrap().decided(1, "t.0000.0000").is_some(), "{}", fleet.why());
    assert!(!has_ticket(&fleet, 0, &name), "{}", fleet.why());
    pass(&mut fleet, 2_000);
    assert!((1..5).any(|number| has_ticket(&fleet, number, &name)), "{}", fleet.why());
    pass(&mut fleet, 10 * MINUTE);
    assert!((0..5).all(|node| runs(&fleet, node) == "2"), "{}", fleet.why());
}

#[test]
fn a_ticket_in_place_of_a_lost_one_is_noticed_before_another_is_taken() {
    let mut fleet = calm(Mode::Rolling, 5);
    fleet.propose("2");
    while !fleet.nodes.iter().any(|node| node.is_out) {
        pass(&mut fleet, 50);
    }
    let first = fleet.nodes.iter().position(|node| node.is_out).unwrap();
    while fleet.nodes[first].is_out {
        pass(&mut fleet, 10);
    }
    // Storage went back in time, and somebody has begun there whom the others have not seen.
    let other = &fleet.nodes[(first + 1) % 5];
    let kept = Kept::load(&cutover::sys::disk::Disk::default(), &other.path).unwrap().unwrap();
    let node = kept.own.node.clone();
    let mut storage = fleet.storage.lock().unwrap();
    let name = storage.decision(1, "t.0000.0000");
    let ticket = facts::Ticket {
        rollout: 1,
        proposal: Digest::of(storage.names["rollouts/000001"].0.as_bytes()),
        row: 0,
        ticket: 0,
        node,
        instance: kept.own.instance,
        back: false,
        at: None,
        turn_ms: None,
        before: Vec::new(),
    };
    storage.lose(&name);
    storage.put(&name, &seal_summed(&name, &Fact::Ticket(ticket)));
    drop(storage);
    pass(&mut fleet, MINUTE);
    assert!(fleet.storage.lock().unwrap().decided(1, "t.0000.0001").is_none(), "{}", fleet.why());
    pass(&mut fleet, 15 * MINUTE);
    assert!((0..5).all(|node| runs(&fleet, node) == "2"), "{}", fleet.why());
    assert_eq!(fleet.worst_out, 1);
}

/// Also where the end came before the node had begun: it was read, and called nothing back.
#[test]
fn an_end_that_came_before_the_vote_is_remembered() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.nodes[2].luck = Luck::Unstageable;
    fleet.nodes[2].lose();
    fleet.propose("2");
    pass(&mut fleet, 1_500);
    fleet.back_up();
    fleet.operate(|operator, now| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let rollout = operator.rollout(&made, 1).unwrap();
        operator.abort(&rollout, "an operator wants it", now).unwrap();
    });
    let plan = fleet.storage.lock().unwrap().decided(1, "plan");
    pass(&mut fleet, 10 * MINUTE);
    fleet.restore();
    for node in &mut fleet.nodes {
        node.forget();
    }
    pass(&mut fleet, 10 * MINUTE);
    assert!(!fleet.has_outcome(), "{}", fleet.why());
    fleet.repair();
    assert_eq!(fleet.storage.lock().unwrap().decided(1, "plan"), plan);
}

/// With overlap `none` they wait for each other before the old release starts: not longer for a clock that is an hour off.
#[test]
fn on_the_way_back_nobody_waits_for_a_moment_that_lies_too_far_ahead() {
    let mut fleet = calm(Mode::Synchronous, 3);
    let settings = (*fleet.settings).clone();
    fleet.change(cutover::coord::Settings { overlap: Overlap::None, ..settings });
    fleet.propose("2");
    let in_trial = |node: &SimNode| node.serves == Some(release("2"));
    while !fleet.nodes.iter().all(in_trial) {
        pass(&mut fleet, 100);
    }
    // It never says that it has stopped.
    fleet.nodes[2].lose();
    fleet.operate(|operator, now| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        let rollout = operator.rollout(&made, 1).unwrap();
        operator.abort(&rollout, "a clock that is off", now + SignedDuration::from_hours(1)).unwrap();
    });
    pass(&mut fleet, 5 * MINUTE);
    assert!((0..2).all(|node| fleet.nodes[node].serves == Some(release("1"))), "{}", fleet.why());
    assert!((0..2).all(|node| fleet.nodes[node].journal.is_none()), "{}", fleet.why());
}

/// What storage holds now is backed up, without these names; and node 0 is cut off.
fn back_up_without(fleet: &mut Fleet, lost: &[String]) {
    fleet.back_up();
    let (names, _) = fleet.backup.as_mut().unwrap();
    names.retain(|name, _| !lost.contains(name));
    fleet.nodes[0].is_unplugged.store(true, std::sync::atomic::Ordering::Relaxed);
}

fn restore_and_plug_in(fleet: &mut Fleet) {
    fleet.restore();
    fleet.nodes[0].is_unplugged.store(false, std::sync::atomic::Ordering::Relaxed);
}

/// One has only voted when the backup is made. It misses nothing there, and decides by itself.
#[test]
fn where_two_plans_were_made_nobody_switches_and_repair_ends_it() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    while fleet.storage.lock().unwrap().decided(1, "plan").is_none() {
        pass(&mut fleet, 1);
    }
    let plan = fleet.storage.lock().unwrap().decision(1, "plan");
    let first = fleet.storage.lock().unwrap().decided(1, "plan").unwrap();
    assert!(first.contains("\"commit\""), "{first}");
    back_up_without(&mut fleet, &[plan]);
    pass(&mut fleet, 2_000);
    restore_and_plug_in(&mut fleet);
    pass(&mut fleet, 10 * MINUTE);
    let second = fleet.storage.lock().unwrap().decided(1, "plan").unwrap();
    assert_ne!(first, second);
    assert!((0..3).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
    fleet.repair();
    pass(&mut fleet, 10 * MINUTE);
    assert!(fleet.has_outcome(), "{}", fleet.why());
    assert!(fleet.nodes.iter().all(SimNode::has_ended), "{}", fleet.why());
    assert!((0..3).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
    fleet.propose("3");
    pass(&mut fleet, 10 * MINUTE);
    assert!((0..3).all(|node| runs(&fleet, node) == "3"), "{}", fleet.why());
}

/// An end that some have read stays, where the others decide another one after the storage went back.
#[test]
fn what_was_kept_stays_kept_where_another_end_was_decided_since() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    let report = |node: &str| names::own(&node.parse().unwrap(), 1, "report");
    while fleet.storage.lock().unwrap().decided(1, "outcome").is_none() {
        pass(&mut fleet, 1);
    }
    // Node 0 has reported, and does not read how it ended.
    let outcome = fleet.storage.lock().unwrap().decision(1, "outcome");
    back_up_without(&mut fleet, &[outcome, report("n1"), report("n2")]);
    pass(&mut fleet, 5_000);
    assert!((1..3).all(|node| runs(&fleet, node) == "2" && fleet.nodes[node].journal.is_none()));
    restore_and_plug_in(&mut fleet);
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!(runs(&fleet, 0), "1", "{}", fleet.why());
    fleet.repair();
    pass(&mut fleet, 10 * MINUTE);
    assert!((0..3).all(|node| runs(&fleet, node) == "2"), "{}", fleet.why());
    assert!(fleet.storage.lock().unwrap().decided(1, "outcome").unwrap().contains("\"keep\""));
}

#[test]
fn who_has_not_read_the_end_decides_nothing_where_storage_has_lost_the_rollout() {
    for (is_flat, has_votes) in [(false, false), (true, false), (false, true)] {
        let mut fleet = calm(Mode::Synchronous, 3);
        fleet.storage.lock().unwrap().is_flat = is_flat;
        fleet.back_up();
        fleet.propose("2");
        if has_votes {
            pass(&mut fleet, 1500);
            fleet.back_up();
        }
        let unplug = |fleet: &Fleet, node: usize, is_unplugged| {
            fleet.nodes[node].is_unplugged.store(is_unplugged, std::sync::atomic::Ordering::Relaxed);
        };
        let has_reported = |fleet: &Fleet, node: usize| {
            let name = names::own(&fleet.nodes[node].name.parse().unwrap(), 1, "report");
            fleet.storage.lock().unwrap().names.contains_key(&name)
        };
        // Two vouch, and are cut off before they have read how it ended.
        while !(0..3).all(|node| has_reported(&fleet, node)) {
            pass(&mut fleet, 20);
            (1..3).filter(|node| has_reported(&fleet, *node)).for_each(|node| unplug(&fleet, node, true));
        }
        pass(&mut fleet, MINUTE);
        let under_way: Vec<bool> = fleet.nodes.iter().map(|node| node.journal.is_some()).collect();
        assert!(!under_way[0] && (under_way[1] || under_way[2]), "flat {is_flat}: {}", fleet.why());
        fleet.restore();
        unplug(&fleet, 1, false);
        unplug(&fleet, 2, false);
        pass(&mut fleet, 30 * MINUTE);
        let decided = fleet.storage.lock().unwrap().names.keys().any(|name| name.ends_with("outcome"));
        assert!(!decided, "flat {is_flat}: {}", fleet.why());
        assert!((0..3).all(|node| runs(&fleet, node) == "2"), "flat {is_flat}: {}", fleet.why());
        fleet.repair();
        pass(&mut fleet, 10 * MINUTE);
        assert!((0..3).all(|node| runs(&fleet, node) == "2"), "flat {is_flat}: {}", fleet.why());
        assert!(fleet.nodes.iter().all(|node| node.journal.is_none()), "flat {is_flat}: {}", fleet.why());
    }
}

/// A node that is cut off before it has seen that its report stands there takes the end from what somebody carries to it, at work
/// or begun anew; so does one that was waived before it reported.
#[test]
fn an_end_that_is_carried_is_taken_with_ones_own_word_or_waiver() {
    for (cut_off, is_waived) in [(".report", false), (".switched", true)] {
        for is_begun_anew in [false, true] {
            let mut fleet = calm(Mode::Synchronous, 3);
            *fleet.nodes[1].unplugged_after.lock().unwrap() = Some(cut_off);
            fleet.propose("2");
            let is_decided = |fleet: &Fleet, gate| fleet.storage.lock().unwrap().decided(1, gate).is_some();
            while !is_decided(&fleet, "outcome") {
                pass(&mut fleet, 20);
                let is_open = is_decided(&fleet, "go") && !is_decided(&fleet, "outcome");
                if is_waived && is_open {
                    waive(&fleet, 1, "n1");
                }
            }
            pass(&mut fleet, 5_000);
            if fleet.nodes[1].has_ended() {
                continue;
            }
            if is_begun_anew {
                fleet.nodes[1].forget();
            }
            let facts = fleet.storage.lock().unwrap().names.clone();
            let facts = facts.into_iter().map(|(name, (text, _))| (name, text.to_string())).collect();
            let kept = Kept::load(&fleet.nodes[1].disk(), &fleet.nodes[1].path).unwrap().unwrap();
            let voice = Voice { trust: super::TRUST, signer: None };
            let carried = believe(&kept, kept.part().unwrap(), facts, voice).unwrap();
            kept.hand(&carried).unwrap();
            pass(&mut fleet, 10 * MINUTE);
            let case = format!("cut off after {cut_off}, begun anew {is_begun_anew}: {}", fleet.why());
            assert!(fleet.nodes[1].journal.is_none(), "{case}");
            let ended: Vec<&str> = (0..3).map(|node| runs(&fleet, node)).collect();
            println!("{cut_off} {is_begun_anew}: {ended:?}");
            assert!(is_waived || ended == ["2", "2", "2"], "{ended:?}, {case}");
        }
    }
}

#[test]
fn a_name_that_was_freed_is_another_machines() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.operate(|operator, _| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        operator.replace(&made, &"n2".parse().unwrap(), "a new disk").unwrap();
    });
    pass(&mut fleet, MINUTE);
    let told = fleet.nodes[2].last_trouble.clone();
    assert!(told.contains("was freed"), "{told}");
    // The same machine, with nothing left of what it knew.
    std::fs::remove_file(&fleet.nodes[2].path).unwrap();
    fleet.nodes[2].forget();
    fleet.join(2).unwrap();
    fleet.list_all();
    fleet.propose("2");
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 2)), ("2", "2"), "{}", fleet.why());
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

fn has_new(node: &SimNode) -> bool {
    node.pointer == release("2") && node.journal.is_none()
}

/// A rolling rollout that a halt undoes, and the first node that has it: on all others it is sick.
fn with_one_ahead() -> (Fleet, usize) {
    let mut fleet = calm(Mode::Rolling, 3);
    let settings = (*fleet.settings).clone();
    fleet.change(cutover::coord::Settings { on_halt: OnHalt::Rollback, ..settings });
    fleet.propose("2");
    while !fleet.nodes.iter().any(has_new) {
        pass(&mut fleet, 1000);
    }
    let first = fleet.nodes.iter().position(has_new).unwrap();
    for (number, node) in fleet.nodes.iter_mut().enumerate() {
        node.luck = if number == first { Luck::Good } else { Luck::SickAfter(500) };
    }
    (fleet, first)
}

#[test]
fn who_dies_right_after_it_went_back_does_not_go_back_again() {
    let (mut fleet, first) = with_one_ahead();
    let is_back = |node: &SimNode| {
        node.pointer == release("1")
            && node.journal.as_ref().is_some_and(|record| matches!(record.phase, Phase::RolledBack { .. }))
    };
    while !is_back(&fleet.nodes[first]) {
        pass(&mut fleet, 1);
    }
    // Storage shows its report only later, and the journal's end is told again.
    let name: NodeName = fleet.nodes[first].name.parse().unwrap();
    fleet.storage.lock().unwrap().names.remove(&names::own(&name, 1, "returned")).unwrap();
    fleet.nodes[first].die();
    for _ in 0..5 * 60 {
        pass(&mut fleet, 1000);
        assert!(!fleet.nodes[first].is_out, "it goes back again\n{}", fleet.why());
    }
    assert!(fleet.has_outcome(), "{}", fleet.why());
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
    let outcome = fleet.storage.lock().unwrap().decided(1, "outcome").unwrap();
    assert!(outcome.contains("\"partial\""), "{outcome}");
}

#[test]
fn a_node_whose_clock_is_off_says_so_wherever_it_stands_in_the_order() {
    for off in 0..12 {
        let mut fleet = calm(Mode::Synchronous, 12);
        fleet.nodes[off].life.set_skew(3000);
        fleet.propose("2");
        pass(&mut fleet, 10 * MINUTE);
        let go = fleet.storage.lock().unwrap().decided(1, "go").unwrap();
        assert!(go.contains(&format!("n{off}: its clock is 3.0 s ahead")), "{go}");
        assert!((0..12).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
    }
}

/// A rolling rollout of which the storage has gone back to before its proposal, while a node of four is out of service.
fn lost_on_the_way(is_flat: bool) -> Fleet {
    let mut fleet = calm(Mode::Rolling, 4);
    fleet.storage.lock().unwrap().is_flat = is_flat;
    fleet.back_up();
    fleet.propose("2");
    let count = |fleet: &Fleet, is_out: bool| {
        let has_new = |node: &&SimNode| node.pointer == release("2") && node.is_out == is_out;
        fleet.nodes.iter().filter(has_new).count()
    };
    while count(&fleet, false) < 1 || count(&fleet, true) < 1 {
        pass(&mut fleet, 200);
    }
    fleet.restore();
    // Who begins anew has no memory of tickets, but of what it had written down.
    for node in fleet.nodes.iter_mut().filter(|node| node.pointer == release("1")) {
        node.forget();
    }
    fleet
}

#[test]
fn a_rolling_rollout_that_storage_has_lost_is_ended_by_repair_and_nobody_begins_in_it() {
    for is_flat in [false, true] {
        let mut fleet = lost_on_the_way(is_flat);
        let runs_new = |fleet: &Fleet| fleet.nodes.iter().filter(|node| node.pointer == release("2")).count();
        // While it runs, `look` sees that no more than one is out of service.
        pass(&mut fleet, 10 * MINUTE);
        assert_eq!(runs_new(&fleet), 2, "flat {is_flat}: {}", fleet.why());
        for node in fleet.nodes.iter().filter(|node| node.pointer == release("1")) {
            let told = &node.last_trouble;
            assert!(told.contains("`cutover fleet repair`"), "flat {is_flat}: {}: {told}", node.name);
        }
        fleet.repair();
        pass(&mut fleet, 10 * MINUTE);
        assert!(fleet.has_outcome(), "flat {is_flat}: {}", fleet.why());
        assert!(fleet.nodes.iter().all(|node| node.journal.is_none()), "flat {is_flat}: {}", fleet.why());
        assert_eq!(runs_new(&fleet), 2, "flat {is_flat}: {}", fleet.why());
        fleet.propose("3");
        pass(&mut fleet, 30 * MINUTE);
        assert!(
            fleet.nodes.iter().all(|node| node.pointer == release("3")),
            "flat {is_flat}: {}",
            fleet.why()
        );
    }
}

#[test]
fn a_rolling_rollout_that_was_kept_is_still_kept_after_repair() {
    let mut fleet = calm(Mode::Rolling, 3);
    fleet.back_up();
    fleet.nodes[2].lose();
    fleet.propose("2");
    waive(&fleet, 1, "n2");
    pass(&mut fleet, 20 * MINUTE);
    assert_eq!((runs(&fleet, 0), runs(&fleet, 1)), ("2", "2"), "{}", fleet.why());
    fleet.restore();
    fleet.repair();
    fleet.nodes[2].is_lost = false;
    pass(&mut fleet, 10 * MINUTE);
    // Who was away follows what the fleet has kept.
    assert_eq!(runs(&fleet, 2), "2", "{}", fleet.why());
}

#[test]
fn another_machine_under_a_members_name_follows_when_it_is_listed_and_not_before() {
    let mut fleet = calm(Mode::Synchronous, 3);
    fleet.propose("2");
    pass(&mut fleet, 10 * MINUTE);
    fleet.nodes[2].lose();
    fleet.operate(|operator, _| {
        let made = operate::fleet(operator.board, "simulated").unwrap();
        operator.replace(&made, &"n2".parse().unwrap(), "a new disk").unwrap();
    });
    let successor = fleet.nodes[2].successor();
    fleet.nodes.push(successor);
    fleet.join(3).unwrap();
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!(runs(&fleet, 3), "1", "{}", fleet.why());
    let told = fleet.nodes[3].last_trouble.clone();
    assert!(told.contains("`cutover fleet members --add n2`"), "{told}");
    fleet.nodes.swap_remove(2);
    fleet.list_all();
    pass(&mut fleet, 10 * MINUTE);
    assert_eq!(runs(&fleet, 2), "2", "{}", fleet.why());
}

#[test]
fn who_waits_for_a_slot_whose_owner_is_gone_turns_to_another_one() {
    let mut fleet = calm(Mode::Rolling, 30);
    let settings = (*fleet.settings).clone();
    fleet.change(cutover::coord::Settings { at_once: 3, ..settings });
    fleet.propose("2");
    while !fleet.nodes.iter().any(|node| node.is_out) {
        pass(&mut fleet, 100);
    }
    let gone = fleet.nodes.iter().position(|node| node.is_out).unwrap();
    fleet.nodes[gone].lose();
    pass(&mut fleet, 60 * MINUTE);
    let others = (0..30).filter(|number| *number != gone);
    let behind: Vec<_> = others.filter(|number| runs(&fleet, *number) != "2").collect();
    assert!(behind.is_empty(), "{behind:?} wait for n{gone}\n{}", fleet.why());
    assert!(!fleet.has_outcome(), "its owner is out of service");
    waive(&fleet, 1, &format!("n{gone}"));
    pass(&mut fleet, 10 * MINUTE);
    assert!(fleet.has_outcome(), "{}", fleet.why());
}

#[test]
fn the_only_node_of_a_cell_that_refuses_while_storage_is_full_keeps_no_other_cell_waiting() {
    let mut fleet = calm(Mode::Cells, 3);
    fleet.in_a_cell = 1;
    fleet.list_all();
    fleet.propose("2");
    let is_in = |fleet: &Fleet, node: usize, stage: &str| {
        let own = std::fs::read_to_string(&fleet.nodes[node].path);
        own.is_ok_and(|own| own.contains(&format!("\"stage\":\"{stage}\"")))
    };
    let held = 2;
    while !is_in(&fleet, held, "voting") {
        pass(&mut fleet, 100);
    }
    fleet.nodes[held].hold(true);
    fleet.storage.lock().unwrap().full_until = i64::MAX;
    while !is_in(&fleet, held, "left") {
        pass(&mut fleet, 100);
    }
    fleet.storage.lock().unwrap().full_until = 0;
    pass(&mut fleet, 30 * MINUTE);
    assert!(fleet.has_outcome(), "{}", fleet.why());
    let ran: Vec<_> = (0..3).map(|number| runs(&fleet, number)).collect();
    assert_eq!(ran, ["2", "2", "1"], "{}", fleet.why());
}

#[test]
fn who_went_back_after_a_halt_stays_there_where_storage_has_lost_that() {
    let (mut fleet, first) = with_one_ahead();
    while !fleet.has_outcome() {
        pass(&mut fleet, 1);
    }
    assert!(has_new(&fleet.nodes[first]), "{}", fleet.why());
    fleet.back_up();
    while !fleet.nodes.iter().all(SimNode::has_ended) {
        pass(&mut fleet, 1000);
    }
    assert!((0..3).all(|node| runs(&fleet, node) == "1"), "{}", fleet.why());
    fleet.restore();
    let until = fleet.time() + 20 * MINUTE;
    while fleet.tick(until) {
        assert!(
            !fleet.nodes[first].is_out && runs(&fleet, first) == "1",
            "it starts it again\n{}",
            fleet.why()
        );
    }
}
