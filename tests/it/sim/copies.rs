//! Copies of a member's disk that are switched on beside it, on storage that does not answer, or is full.

use std::sync::atomic::Ordering;

use cutover::coord::NodeName;
use cutover::coord::facts::names;
use cutover::coord::settings::Mode;

use super::Fleet;
use super::node::{SimNode, release};
use super::stories::{MINUTE, calm, pass};

/// A rolling rollout in which a copy was made of the disk of a node that had its ticket, and had not switched yet.
fn copied_with_its_ticket() -> (Fleet, usize) {
    let mut fleet = calm(Mode::Rolling, 6);
    pass(&mut fleet, MINUTE);
    fleet.propose("2");
    let takes = |node: &SimNode| {
        let own = std::fs::read_to_string(&node.path).unwrap_or_default();
        own.contains("\"taking\"") && !node.is_out
    };
    let number = loop {
        if let Some(number) = fleet.nodes.iter().position(takes) {
            break number;
        }
        assert!(fleet.time() < 10 * MINUTE, "{}", fleet.why());
        pass(&mut fleet, 1);
    };
    fleet.clone_disk(number);
    assert_eq!(fleet.nodes.len(), 7, "{}", fleet.why());
    (fleet, number)
}

/// While a rollout is under way the copy, which is the last one, has no part.
fn copy_has_no_part(fleet: &mut Fleet, copy: SimNode) {
    fleet.nodes.push(copy);
    while !fleet.has_outcome() {
        pass(fleet, 200);
        let copy = fleet.nodes.last().unwrap();
        assert!(!copy.is_out, "the copy switches: {}", fleet.why());
        assert!(fleet.time() < 120 * MINUTE, "{}", fleet.why());
    }
}

#[test]
fn a_copy_of_a_node_in_trial_is_noticed() {
    let (mut fleet, number) = copied_with_its_ticket();
    let mut copy = fleet.nodes.pop().unwrap();
    while !fleet.nodes[number].is_out {
        pass(&mut fleet, 50);
    }
    pass(&mut fleet, 100);
    copy.wake = fleet.time();
    copy_has_no_part(&mut fleet, copy);
}

#[test]
fn a_ticket_that_has_been_reported_on_is_used_up() {
    let (mut fleet, number) = copied_with_its_ticket();
    let mut copy = fleet.nodes.pop().unwrap();
    let report = names::own(&fleet.nodes[number].name.parse().unwrap(), 1, "report");
    while !fleet.storage.lock().unwrap().names.contains_key(&report) {
        pass(&mut fleet, 200);
    }
    // The copy goes on in its place, from before the update.
    fleet.nodes[number].lose();
    copy.journal = None;
    copy.wake = fleet.time();
    copy_has_no_part(&mut fleet, copy);
}

/// Two are at work under one name, which is for a person to settle: until then the copy has no part.
fn copy_stays_out(fleet: &mut Fleet, copy: SimNode) {
    fleet.nodes.push(copy);
    let until = fleet.time() + 15 * MINUTE;
    while fleet.time() < until {
        pass(fleet, 200);
        assert!(!fleet.nodes.last().unwrap().is_out, "the copy switches: {}", fleet.why());
    }
}

/// A rolling rollout in which one node is at work and the last waits for its place; the place of that
/// one, and a copy of it, not begun.
fn copied_while_it_waits() -> (Fleet, usize, SimNode) {
    let mut fleet = calm(Mode::Rolling, 2);
    pass(&mut fleet, MINUTE);
    fleet.propose("2");
    let waits = |fleet: &Fleet| {
        let place = fleet.nodes.iter().position(|node| !node.is_out && node.journal.is_some())?;
        fleet.nodes.iter().any(|node| node.is_out).then_some(place)
    };
    let number = loop {
        if let Some(number) = waits(&fleet) {
            break number;
        }
        assert!(fleet.time() < 10 * MINUTE, "{}", fleet.why());
        pass(&mut fleet, 50);
    };
    fleet.clone_disk(number);
    let copy = fleet.nodes.pop().unwrap();
    (fleet, number, copy)
}

#[test]
fn a_copy_takes_no_outage_for_silence() {
    let (mut fleet, number, mut copy) = copied_while_it_waits();
    // The original looks for others when the outage is over, and not before.
    fleet.nodes[number].wake = fleet.time() + MINUTE + 20_000;
    copy.wake = fleet.time();
    fleet.nodes.push(copy);
    // The copy has said that it is there; then nobody can say anything.
    pass(&mut fleet, 3_000);
    fleet.storage.lock().unwrap().silent_until = fleet.time() + MINUTE;
    let copy = fleet.nodes.pop().unwrap();
    copy_stays_out(&mut fleet, copy);
}

#[test]
fn a_copy_believes_no_heartbeat_that_could_not_be_renewed() {
    let (mut fleet, _, mut copy) = copied_while_it_waits();
    fleet.storage.lock().unwrap().silent_until = fleet.time() + 2 * MINUTE;
    copy.wake = fleet.time() + 2 * MINUTE;
    copy_stays_out(&mut fleet, copy);
}

#[test]
fn a_copy_hears_of_itself_where_no_file_can_be_made() {
    let (mut fleet, _, mut copy) = copied_while_it_waits();
    copy.wake = fleet.time();
    fleet.storage.lock().unwrap().full_until = fleet.time() + 2 * MINUTE;
    copy_stays_out(&mut fleet, copy);
}

#[test]
fn a_node_that_has_booted_anew_takes_part_however_short_its_runs_are() {
    let mut fleet = calm(Mode::Rolling, 2);
    pass(&mut fleet, MINUTE);
    fleet.propose("2");
    pass(&mut fleet, 2_000);
    let number = fleet.nodes.iter().position(|node| !node.is_out).unwrap();
    fleet.nodes[number].here.place = "the next boot".into();
    // Each run is a process of its own, and remembers what it has written down.
    while !fleet.has_outcome() {
        fleet.nodes[number].forget();
        pass(&mut fleet, 1_000);
        assert!(fleet.time() < 10 * MINUTE, "{}", fleet.why());
    }
}

#[test]
fn who_cannot_say_that_it_has_seen_a_copy_says_it_until_it_can() {
    let (mut fleet, number, mut copy) = copied_while_it_waits();
    // The copy has shown itself, and storage takes no new file while the original looks.
    copy.wake = fleet.time();
    fleet.nodes.push(copy);
    pass(&mut fleet, 100);
    let copy = fleet.nodes.pop().unwrap();
    fleet.storage.lock().unwrap().full_until = fleet.time() + MINUTE;
    fleet.nodes[number].wake = fleet.time();
    pass(&mut fleet, 40_000);
    // The heartbeat in which it says so is lost.
    let node: NodeName = fleet.nodes[number].name.parse().unwrap();
    fleet.storage.lock().unwrap().lose(&names::alive(&node));
    pass(&mut fleet, 2 * MINUTE);
    let twin = names::twin(&node, &copy.here.place);
    assert!(fleet.storage.lock().unwrap().names.contains_key(&twin), "{}", fleet.why());
    copy_stays_out(&mut fleet, copy);
}

#[test]
fn a_copy_that_was_cut_off_looks_whether_it_was_seen_before_it_has_its_turn() {
    let (mut fleet, number, mut copy) = copied_while_it_waits();
    let began = fleet.time();
    let first = fleet.nodes.iter().position(|node| node.is_out).unwrap();
    fleet.nodes[first].wake = began + MINUTE;
    // The original hangs, so the copy takes its place, and waits for the turn.
    fleet.nodes[number].wake = began + 40_000;
    copy.wake = began;
    let is_unplugged = copy.is_unplugged.clone();
    fleet.nodes.push(copy);
    pass(&mut fleet, 38_000);
    is_unplugged.store(true, Ordering::Relaxed);
    pass(&mut fleet, 2 * MINUTE);
    is_unplugged.store(false, Ordering::Relaxed);
    let copy = fleet.nodes.pop().unwrap();
    assert!(!copy.is_out && copy.pointer == release("1"), "{}", fleet.why());
    copy_stays_out(&mut fleet, copy);
    assert_eq!(fleet.nodes.last().unwrap().pointer, release("1"), "{}", fleet.why());
}
