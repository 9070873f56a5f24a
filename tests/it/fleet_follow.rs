//! What the fleet runs reaches each of its nodes: one that was away, one that is listed late, one that runs it already, and one
//! that finds files that say nothing; also where facts that are no longer needed were removed.

use std::process::Child;
use std::time::{Duration, Instant};

use cutover::coord::board::Board as _;
use cutover::coord::board::directory::DirectoryBoard;
use cutover::coord::facts::names;
use cutover::sys::disk::Disk;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, set, told, wait_until};

fn well(fleet: &Fleet, number: usize, words: &[&str]) {
    let done = fleet.run(number, words);
    assert_eq!(code(&done), 0, "n{number} {words:?}: {done:?}");
}

fn end(mut child: Child) {
    drop((child.kill(), child.wait()));
}

/// Some nodes' timers fire until none of them has anything left to do.
fn let_run(fleet: &Fleet, numbers: &[usize], is_over: impl Fn() -> bool) {
    let began = Instant::now();
    loop {
        let all: Vec<Child> = numbers.iter().map(|number| fleet.begin(*number)).collect();
        for mut child in all {
            drop(child.wait());
        }
        if is_over() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "never over: {}", fleet.why());
    }
}

/// Removes what may go.
fn collect(fleet: &Fleet) {
    let gone = fleet.run(0, &["fleet", "gc", "--older", "0s", "--keep", "1"]);
    assert_eq!(code(&gone), 0, "{gone:?}");
}

#[test]
fn who_vouched_and_was_away_ends_where_the_fleet_is_whatever_was_removed_meanwhile() {
    let fleet = Fleet::new(3, "synchronous", "");
    (0..3).for_each(|number| fleet.stage(number, "3"));
    let config = std::fs::read_to_string(fleet.config(0)).unwrap();
    std::fs::write(fleet.config(0), config.replace("\"300ms\"", "\"4s\"")).unwrap();
    fleet.propose("2");
    let mut others = [fleet.begin(0), fleet.begin(1)];
    let away = fleet.begin(2);
    wait_until(&fleet, "n2 vouches", || fleet.share().join("nodes/n2/000001.report").exists());
    fleet.unplug(2);
    others.iter_mut().for_each(|child| drop(child.wait()));
    end(away);
    assert_eq!((fleet.active(0), fleet.active(1)), ("2".into(), "2".into()), "{}", fleet.why());
    std::fs::write(fleet.config(0), config).unwrap();
    fleet.propose("3");
    well(&fleet, 0, &["fleet", "waive", "n2"]);
    let has_closed = |number: usize| {
        let own = std::fs::read_to_string(fleet.root(number).join(".cutover/fleet.json")).unwrap();
        fleet.active(number) == "3" && own.contains("\"part\":null")
    };
    let_run(&fleet, &[0, 1], || has_closed(0) && has_closed(1));
    collect(&fleet);
    fleet.plug(2);
    fleet.live(calm);
    assert_eq!(fleet.all_run(), ["3"], "{}", fleet.why());
    // Nobody has decided anything under the name that was freed.
    let history = std::fs::read_to_string(fleet.root(2).join(".cutover/history.jsonl")).unwrap();
    assert!(!history.contains("rolled_back"), "{history}");
}

#[test]
fn who_was_away_does_not_come_later_to_what_all_have_gone_back_from() {
    let fleet = Fleet::new(3, "synchronous", "");
    // Their heartbeats say what they run.
    (0..3).for_each(|number| well(&fleet, number, &["update"]));
    fleet.unplug(2);
    let roll_out = |words: &[&str], version: &str| {
        well(&fleet, 0, &[&["fleet", "propose"], words].concat());
        drop(fleet.run(0, &["fleet", "waive", "n2"]));
        let is_at = |number: usize| {
            let own = std::fs::read_to_string(fleet.root(number).join(".cutover/fleet.json")).unwrap();
            fleet.active(number) == version && own.contains("\"part\":null")
        };
        let_run(&fleet, &[0, 1], || is_at(0) && is_at(1));
    };
    (0..3).for_each(|number| fleet.stage(number, "2"));
    roll_out(&["2"], "2");
    roll_out(&["--rollback"], "1");
    fleet.plug(2);
    fleet.live(calm);
    assert_eq!(fleet.all_run(), ["1"], "{}", fleet.why());
}

#[test]
fn what_the_fleet_runs_is_never_removed_and_who_is_listed_later_has_it() {
    let fleet = Fleet::new(2, "synchronous", "");
    well(&fleet, 0, &["fleet", "members", "--remove", "n1"]);
    fleet.stage(0, "3");
    fleet.propose("2");
    let_run(&fleet, &[0], || fleet.active(0) == "2");
    for _ in 0..2 {
        fleet.propose("3");
        well(&fleet, 0, &["fleet", "abort"]);
        for _ in 0..2 {
            fleet.run(0, &["update"]);
        }
    }
    collect(&fleet);
    assert!(fleet.share().join(names::proposal(1)).exists(), "what was kept is gone");
    well(&fleet, 1, &["fleet", "join"]);
    well(&fleet, 0, &["fleet", "members", "--add", "n1"]);
    well(&fleet, 1, &["update"]);
    assert_eq!(fleet.all_run(), ["2"], "{}", fleet.why());
}

#[test]
fn who_was_away_follows_although_the_next_rollout_was_open_when_it_came_and_was_stopped_then() {
    let fleet = Fleet::new(2, "synchronous", "vote = \"60s\"");
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("2");
    well(&fleet, 0, &["fleet", "waive", "n1"]);
    let_run(&fleet, &[0], || fleet.active(0) == "2");
    fleet.propose("3");
    fleet.run(1, &["update", "--no-wait"]);
    well(&fleet, 0, &["fleet", "abort"]);
    for _ in 0..3 {
        fleet.run(1, &["update"]);
    }
    assert_eq!(fleet.active(1), "2", "{}", fleet.why());
}

#[test]
fn who_runs_the_release_already_is_no_reason_against_it() {
    let fleet = Fleet::new(2, "synchronous", "");
    well(&fleet, 1, &["switch", "2"]);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn proposals_that_say_nothing_hide_none_that_comes_after_them() {
    let fleet = Fleet::new(2, "synchronous", "");
    // More than are looked at in one run.
    for number in 1..=1100 {
        std::fs::write(fleet.share().join(names::proposal(number)), "").unwrap();
    }
    fleet.propose("2");
    for mut member in [fleet.begin(0), fleet.begin(1)] {
        drop(member.wait());
    }
    assert_eq!(fleet.all_run(), ["2"], "{}", fleet.why());
}

/// Its run that ends what came to nothing is the one in which it takes up the next.
#[test]
fn who_ends_its_part_of_an_old_rollout_votes_in_the_same_run() {
    let fleet = Fleet::new(2, "synchronous", "vote = \"60s\"");
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("2");
    fleet.run(1, &["update", "--no-wait"]);
    well(&fleet, 0, &["fleet", "abort"]);
    fleet.propose("3");
    fleet.run(1, &["update", "--no-wait"]);
    assert!(fleet.share().join("nodes/n1/000002.vote").exists(), "{}", fleet.why());
}

#[test]
fn what_runs_is_told_as_soon_as_an_update_has_ended() {
    let fleet = Fleet::new(2, "synchronous", "");
    let says = |number: usize, version: &str| {
        let alive = fleet.share().join(format!("nodes/n{number}/alive"));
        std::fs::read_to_string(alive).unwrap().contains(&format!("\"running\":\"{version}\""))
    };
    fleet.propose("2");
    let both = [fleet.begin(0), fleet.begin(1)];
    for mut child in both {
        assert!(child.wait().unwrap().success(), "{}", fleet.why());
    }
    assert!(says(0, "2") && says(1, "2"));
    // Of what has ended nothing is waited for.
    let shown = fleet.run(0, &["fleet", "status", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["outcome"], &shown["waits_for"]), (&"kept".into(), &"".into()), "{shown}");
    well(&fleet, 1, &["rollback"]);
    assert!(says(0, "2") && says(1, "1"));
}

#[test]
fn who_was_put_by_hand_says_so_and_what_lets_it_follow() {
    let fleet = Fleet::new(2, "rolling", "max_failed = 3");
    (0..2).for_each(|number| set(&fleet, number, "min_healthy = \"300ms\"", "min_healthy = \"3s\""));
    fleet.propose("2");
    let first = fleet.begin(0);
    wait_until(&fleet, "its trial", || fleet.active(0) == "2");
    let back = fleet.run(0, &["rollback", "--now"]);
    assert!(code(&back) == 0 && told(&back).contains("`cutover fleet resume` ends both"), "{back:?}");
    drop(first.wait_with_output());
    well(&fleet, 0, &["unhold"]);
    let waits = fleet.run(0, &["update"]);
    assert!(code(&waits) == 15 && told(&waits).contains("cutover fleet waive n0 1"), "{waits:?}");
    well(&fleet, 1, &["fleet", "waive", "n0"]);
    let_run(&fleet, &[1], || fleet.outcome().as_deref() == Some("kept"));
    for _ in 0..2 {
        let stays = fleet.run(0, &["update"]);
        assert!(code(&stays) == 15 && told(&stays).contains("cutover fleet resume"), "{stays:?}");
    }
    let shown = fleet.run(0, &["status", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["blocked"][0]["policy"], "by_hand", "{shown}");
    assert!(told(&fleet.run(0, &["status"])).contains("cutover fleet resume"));
    let why = told(&fleet.run(1, &["fleet", "status", "--why"]));
    assert!(why.contains("n0 was put on release 1 by hand: `cutover fleet resume` there"), "{why}");
    well(&fleet, 0, &["fleet", "resume"]);
    well(&fleet, 0, &["update"]);
    assert_eq!(fleet.active(0), "2");
    let shown = fleet.run(0, &["status", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["blocked"], serde_json::json!([]), "{shown}");
}

#[test]
fn what_was_removed_in_part_is_removed_later_and_has_ended_meanwhile() {
    let fleet = Fleet::new(2, "synchronous", "");
    let share = fleet.share();
    fleet.propose("2");
    let vote = share.join(names::own(&"n0".parse().unwrap(), 1, "vote"));
    assert_eq!(code(&fleet.run(0, &["update", "--no-wait"])), 15);
    assert!(vote.exists());
    well(&fleet, 0, &["fleet", "abort"]);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let proposal = share.join(names::proposal(1));
    let before = [&proposal, &vote].map(|file| (file.clone(), std::fs::read(file).unwrap()));
    let decisions = fleet.decision(1, "plan").parent().unwrap().to_owned();
    collect(&fleet);
    assert!(!proposal.exists() && !decisions.exists());
    // Whoever removed them was killed in the middle.
    std::fs::create_dir(&decisions).unwrap();
    for (file, text) in &before {
        std::fs::write(file, text).unwrap();
    }
    let shown = told(&fleet.run(0, &["fleet", "status", "1"]));
    assert!(shown.contains("aborted") && !shown.contains("waits for"), "{shown}");
    well(&fleet, 1, &["update"]);
    collect(&fleet);
    assert!(!proposal.exists() && !decisions.exists() && !vote.exists());
}

#[test]
fn the_time_until_the_agreed_instant_is_no_time_without_an_answer() {
    let fleet = Fleet::new(2, "synchronous", "lead = \"8s\"");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let log = fleet.run(0, &["log", "--json"]);
    let log: serde_json::Value = serde_json::from_slice(&log.stdout).unwrap();
    let unanswered: Vec<u64> = find(&log, "unanswered_ms");
    // All of the eight seconds but those in which the members armed.
    assert!(unanswered.iter().max().is_some_and(|most| *most < 4000), "{unanswered:?}: {log}");
}

/// All numbers of this key, wherever it stands.
fn find(value: &serde_json::Value, key: &str) -> Vec<u64> {
    match value {
        serde_json::Value::Object(fields) => {
            let here = fields.get(key).and_then(serde_json::Value::as_u64);
            fields.values().flat_map(|field| find(field, key)).chain(here).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(|item| find(item, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_directory_of_a_node_that_is_gone_is_told_as_one() {
    let fleet = Fleet::new(1, "synchronous", "");
    let mut board = DirectoryBoard::new(fleet.share(), "n0", Disk::default());
    std::fs::remove_dir_all(fleet.share().join("nodes/n0")).unwrap();
    let told = format!("{:?}", board.create("nodes/n0/000001.vote", "text\n"));
    assert!(told.contains("`cutover fleet join` there") && !told.contains("mounted?"), "{told}");
    std::fs::remove_dir_all(fleet.share()).unwrap();
    let told = format!("{:?}", board.create("nodes/n0/000001.vote", "text\n"));
    assert!(told.contains("mounted?"), "{told}");
}
