//! Rolling rollouts whose slots are handed on, with whole processes; and what becomes of them where an older program takes part.

use crate::fleet::{Fleet, calm};

/// What a proposal says of its tickets.
fn terms(fleet: &Fleet, number: u64) -> serde_json::Value {
    let text = std::fs::read_to_string(fleet.share().join(format!("rollouts/{number:06}"))).unwrap();
    let line = text.lines().next().unwrap();
    serde_json::from_str::<serde_json::Value>(line).unwrap()["rolling"].clone()
}

/// The names of a rollout's tickets, in their order.
fn tickets(fleet: &Fleet, number: u64) -> Vec<String> {
    let outcome = fleet.decision(number, "outcome");
    let names = std::fs::read_dir(outcome.parent().unwrap()).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("t."))
        .collect();
    names.sort();
    names
}

#[test]
fn each_slot_is_handed_on_and_a_ticket_says_how_those_before_it_came_back() {
    let fleet = Fleet::new(3, "rolling", "at_once = 1");
    fleet.propose("2");
    assert_eq!((&terms(&fleet, 1)["slots"], &terms(&fleet, 1)["at_once"]), (&1.into(), &0.into()));
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(tickets(&fleet, 1), ["t.0000.0000", "t.0000.0001", "t.0000.0002"]);
    let last = std::fs::read_to_string(fleet.decision(1, "t.0000.0002")).unwrap();
    let said: serde_json::Value = serde_json::from_str(last.lines().next().unwrap()).unwrap();
    let before: Vec<_> = said["before"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|one| one.ends_with(" good")), "{before:?}");
}

#[test]
fn who_is_the_last_to_finish_says_that_all_have_it_before_its_run_ends() {
    let fleet = Fleet::new(3, "rolling", "at_once = 1000");
    for (number, release) in (1..).zip(["2", "3"]) {
        (0..3).for_each(|node| fleet.stage(node, release));
        fleet.propose(release);
        assert_eq!(terms(&fleet, number)["slots"], 3, "nobody needs more than one each");
        let fleet = &fleet;
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..3).map(|node| scope.spawn(move || fleet.run(node, &["update"]))).collect();
            for run in runs {
                let done = run.join().unwrap();
                assert_eq!(done.status.code(), Some(0), "{done:?}");
            }
        });
        assert!(fleet.decision(number, "outcome").exists(), "nobody has said so\n{}", fleet.why());
    }
}

#[test]
fn the_first_rollout_is_undone_at_once_before_anybody_has_run_again() {
    let fleet = Fleet::new(2, "rolling", "at_once = 2");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    // As the heartbeats are that were written before the switch.
    for node in ["n0", "n1"] {
        let alive = fleet.share().join(format!("nodes/{node}/alive"));
        let text = std::fs::read_to_string(&alive).unwrap();
        let mut said: serde_json::Value = serde_json::from_str(&text).unwrap();
        said["running"] = "1".into();
        said.as_object_mut().unwrap().remove("previous");
        std::fs::write(&alive, format!("{said}\n")).unwrap();
    }
    let back = fleet.run(0, &["fleet", "propose", "--rollback"]);
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    assert!(String::from_utf8_lossy(&back.stdout).contains("release 1"), "{back:?}");
}

#[test]
fn where_an_older_cutover_takes_part_there_is_one_row_of_tickets_for_all() {
    let fleet = Fleet::new(3, "rolling", "at_once = 2");
    let alive = fleet.share().join("nodes/n2/alive");
    let text = std::fs::read_to_string(&alive).unwrap();
    assert!(text.contains("\"slots\""), "{text}");
    std::fs::write(&alive, text.replace("\"slots\"", "\"something\"")).unwrap();
    fleet.propose("2");
    assert_eq!(
        (&terms(&fleet, 1)["slots"], &terms(&fleet, 1)["at_once"]),
        (&serde_json::Value::Null, &2.into())
    );
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(tickets(&fleet, 1), ["t.0000", "t.0001", "t.0002"]);
    assert_eq!(fleet.all_run(), ["2"]);
}

/// Stops its run before each of these changes, and lets it go on: nobody has to say a word for the rollout to end.
fn has_its_turn_all_the_same(changes: impl Iterator<Item = usize>) {
    for change in changes {
        let fleet = Fleet::new(1, "rolling", "");
        fleet.propose("2");
        let notes = fleet.path("changes");
        let run = fleet
            .command(0, &["update"])
            .env("CUTOVER_STOP_BEFORE", format!("{change}:kill"))
            .env("CUTOVER_COUNT_CHANGES", &notes)
            .output()
            .unwrap();
        let notes = std::fs::read_to_string(&notes).unwrap_or_default();
        if !notes.lines().any(|line| line.starts_with(&format!("{change} "))) {
            assert!(run.status.success() && change > 20, "change {change}: {run:?}");
            return;
        }
        assert_eq!(fleet.live(calm), "kept", "change {change}\n{notes}{}", fleet.why());
        assert_eq!(fleet.all_run(), ["2"], "change {change}");
    }
}

#[test]
fn who_is_killed_in_its_turn_goes_on_with_it() {
    has_its_turn_all_the_same((1..).step_by(4));
}

#[test]
#[ignore = "every change: `make test-crashes`"]
fn who_is_killed_before_any_change_of_its_turn_by_any_method_goes_on_with_it() {
    has_its_turn_all_the_same(1..);
}
