//! Files that say nothing, and stay so, where a decision should be.

use cutover::coord::settings::{Mode, OnHalt, Settings};

use super::node::release;
use super::stories::{MINUTE, calm, pass};

/// How often all nodes have asked the storage so far.
fn operations(fleet: &super::Fleet) -> u64 {
    fleet.storage.lock().unwrap().operations.values().sum()
}

#[test]
fn an_end_that_cannot_be_read_is_not_asked_for_more_often_and_a_person_ends_it() {
    for mode in [Mode::Rolling, Mode::Cells] {
        let mut fleet = calm(mode, 4);
        fleet.propose("2");
        // All have taken it up.
        while !fleet.nodes.iter().all(|node| node.journal.is_some()) {
            pass(&mut fleet, 100);
        }
        let mut storage = fleet.storage.lock().unwrap();
        let outcome = storage.decision(1, "outcome");
        storage.put(&outcome, "");
        drop(storage);
        pass(&mut fleet, 8 * MINUTE);
        let new: Vec<_> = fleet.nodes.iter().map(|node| node.pointer.version.as_str() == "2").collect();
        assert!(new.iter().all(|is_new| *is_new), "{mode:?}: {new:?}\n{}", fleet.why());
        let before = operations(&fleet);
        pass(&mut fleet, 5 * MINUTE);
        let each = (operations(&fleet) - before) / 4;
        // Each run looks once, and one comes every five seconds here.
        assert!(each <= 20 * 60, "{mode:?}: {each} operations a node in five minutes\n{}", fleet.why());
        fleet.abort(0).unwrap();
        pass(&mut fleet, 5 * MINUTE);
        assert!(fleet.nodes.iter().all(super::SimNode::has_ended), "{mode:?}\n{}", fleet.why());
    }
}

#[test]
fn who_can_never_report_follows_the_next_rollout_when_it_is_waived() {
    // So many that none looks at all slots each time.
    let mut fleet = calm(Mode::Rolling, 24);
    let settings = (*fleet.settings).clone();
    fleet.change(Settings { on_halt: OnHalt::Rollback, ..settings });
    fleet.storage.lock().unwrap().put("nodes/n1/000001.report", "");
    fleet.propose("2");
    while fleet.nodes[1].pointer != release("2") {
        pass(&mut fleet, 1000);
    }
    fleet.waive(1).unwrap();
    fleet.abort(0).unwrap();
    let until = fleet.time() + 30 * MINUTE;
    while fleet.tick(until) {}
    assert!(fleet.nodes.iter().all(super::SimNode::has_ended), "{}", fleet.why());
    fleet.nodes[1].is_waived = false;
    assert_eq!(fleet.behind_in_the_next(), [""; 0], "{}", fleet.why());
}
