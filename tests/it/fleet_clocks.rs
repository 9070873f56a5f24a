//! Clocks that are wrong, or step in the middle of a rollout: one machine's clock is never the trouble of the others.

use std::process::Child;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, has_faketime, set, told, wait_until};

/// Whoever obeys a clock that is an hour off is much later.
const PATIENCE: Duration = Duration::from_secs(60);

/// Updaters that are gone with the test, whatever it says.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop((child.kill(), child.wait()));
        }
    }
}

/// One run of a node's timer whose clock can be set while it runs, by [`step`]; that of its boot stays right.
fn with_a_clock(fleet: &Fleet, number: usize) -> Child {
    step(fleet, number, "+0");
    let library = "/usr/$LIB/faketime/libfaketime.so.1";
    let log = std::fs::File::create(fleet.path(&format!("n{number}.log"))).unwrap();
    let mut update = fleet.command(number, &["update"]);
    update.env("LD_PRELOAD", library).env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    update.env("NO_FAKE_STAT", "1").env("FAKETIME_TIMESTAMP_FILE", fleet.path(&format!("steps-{number}")));
    update.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn step(fleet: &Fleet, number: usize, by: &str) {
    let (new, file) = (fleet.path("steps.new"), fleet.path(&format!("steps-{number}")));
    std::fs::write(&new, format!("{by}\n")).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// n1 holds the instant and waits for the word that all do; then its clock is set.
fn steps_once_armed(fleet: &Fleet, by: &str) -> Running {
    fleet.propose("2");
    let both = Running(vec![fleet.begin(0), with_a_clock(fleet, 1)]);
    let is_there = |fact: &str| fleet.share().join(format!("nodes/{fact}")).exists();
    wait_until(fleet, "n0 votes", || is_there("n0/000001.vote"));
    let other = Pid::from_raw(both.0[0].id().try_into().unwrap());
    kill(other, Signal::SIGSTOP).unwrap();
    wait_until(fleet, "n1 is armed", || is_there("n1/000001.armed"));
    step(fleet, 1, by);
    kill(other, Signal::SIGCONT).unwrap();
    both
}

fn are_on(fleet: &Fleet, version: &str) -> bool {
    fleet.all_run() == [version]
}

fn is_said(fleet: &Fleet, what: &str) -> bool {
    (0..fleet.size).all(|number| fleet.share().join(format!("nodes/n{number}/000001.{what}")).exists())
}

/// A fleet in whose trials there is time for anything.
fn patient(settings: &str) -> Fleet {
    let fleet = Fleet::new(2, "synchronous", &format!("trial = \"300s\"\n{settings}"));
    (0..2).for_each(|number| set(&fleet, number, "min_healthy = \"300ms\"", "min_healthy = \"200s\""));
    fleet
}

#[test]
fn who_aborts_by_a_clock_that_is_ahead_keeps_nobody_on_what_is_known_to_be_bad() {
    if !has_faketime("who_aborts_by_a_clock_that_is_ahead_keeps_nobody_on_what_is_known_to_be_bad") {
        return;
    }
    // So far off a clock may be here, and all the same nobody waits as long.
    let fleet = patient("skew = \"2h\"");
    fleet.propose("2");
    let _both = Running(vec![fleet.begin(0), fleet.begin(1)]);
    wait_until(&fleet, "all are on trial", || are_on(&fleet, "2") && is_said(&fleet, "switched"));
    std::fs::write(fleet.clock(0), "+1h").unwrap();
    let aborted = fleet.command_in_its_time(0, &["fleet", "abort"]).output().unwrap();
    assert_eq!(code(&aborted), 0, "{aborted:?}");
    wait_until(&fleet, "all are back", || are_on(&fleet, "1"));
}

/// Both are on trial, all are to go back in an hour, and n1 knows.
fn who_waits_to_go_back() -> (Fleet, Running) {
    let fleet = patient("back = \"1h\"");
    fleet.propose("2");
    let both = Running(vec![fleet.begin(0), fleet.begin(1)]);
    wait_until(&fleet, "all are on trial", || are_on(&fleet, "2") && is_said(&fleet, "switched"));
    let aborted = fleet.run(0, &["fleet", "abort"]);
    assert_eq!(code(&aborted), 0, "{aborted:?}");
    wait_until(&fleet, "it has read that", || {
        let log = std::fs::read_to_string(fleet.path("n1.log")).unwrap_or_default();
        log.contains("going back") || fleet.active(1) == "1"
    });
    (fleet, both)
}

fn ends_on_the_old_release(fleet: &Fleet, both: &mut Running) {
    let began = Instant::now();
    while both.0[1].try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it does not listen: {}", fleet.why());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fleet.active(1), "1", "{}", fleet.why());
}

#[test]
fn whoever_waits_to_go_back_with_the_others_goes_at_once_when_a_person_wants_it() {
    for words in [&["rollback"][..], &["rollback", "--now"]] {
        let (fleet, mut both) = who_waits_to_go_back();
        let back = fleet.run(1, words);
        assert_eq!(code(&back), 0, "{words:?}: {back:?}");
        ends_on_the_old_release(&fleet, &mut both);
    }
}

#[test]
fn whoever_waits_to_go_back_with_the_others_goes_at_once_when_it_is_interrupted() {
    let (fleet, mut both) = who_waits_to_go_back();
    kill(Pid::from_raw(both.0[1].id().try_into().unwrap()), Signal::SIGINT).unwrap();
    ends_on_the_old_release(&fleet, &mut both);
}

/// As whoever lies does, it signs what its clock says.
#[test]
fn a_member_that_puts_the_way_back_off_puts_off_nobodys() {
    if !has_faketime("a_member_that_puts_the_way_back_off_puts_off_nobodys") {
        return;
    }
    let fleet = patient("facts = \"signed\"");
    set(&fleet, 1, "min_healthy = \"200s\"", "min_healthy = \"300ms\"");
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("3");
    let _both = Running(vec![fleet.begin(0), with_a_clock(&fleet, 1)]);
    wait_until(&fleet, "all may switch", || fleet.decision(1, "go").exists());
    std::fs::write(fleet.path("sick-1"), "").unwrap();
    step(&fleet, 1, "+3600000");
    wait_until(&fleet, "the others are to go back", || fleet.decision(1, "outcome").exists());
    wait_until(&fleet, "n0 is back", || fleet.active(0) == "1");
}

#[test]
fn whose_clock_is_set_forward_while_all_hold_the_instant_switches_at_the_instant() {
    if !has_faketime("whose_clock_is_set_forward_while_all_hold_the_instant_switches_at_the_instant") {
        return;
    }
    let fleet = Fleet::new(2, "synchronous", "lead = \"15s\"\nlate = \"20s\"");
    let _both = steps_once_armed(&fleet, "+10");
    let plan = std::fs::read_to_string(fleet.decision(1, "plan")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(plan.lines().next().unwrap()).unwrap();
    let at: Timestamp = plan["at"].as_str().unwrap().parse().unwrap();
    assert_eq!(fleet.active(1), "1");
    wait_until(&fleet, "n1 switches", || fleet.active(1) == "2");
    assert!(Timestamp::now() > at, "n1 has switched before {at}");
}

#[test]
fn whose_clock_is_set_back_while_all_hold_the_instant_switches_with_the_others() {
    if !has_faketime("whose_clock_is_set_back_while_all_hold_the_instant_switches_with_the_others") {
        return;
    }
    let fleet = Fleet::new(2, "synchronous", "lead = \"8s\"\nlate = \"8s\"");
    let both = steps_once_armed(&fleet, "-3600");
    wait_until(&fleet, "the rollout ends", || fleet.decision(1, "outcome").exists());
    drop(both);
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn a_proposal_by_a_clock_that_is_behind_is_refused_and_the_clock_is_named() {
    if !has_faketime("a_proposal_by_a_clock_that_is_behind_is_refused_and_the_clock_is_named") {
        return;
    }
    let fleet = Fleet::new(2, "synchronous", "");
    std::fs::write(fleet.clock(0), "-2h").unwrap();
    let refused = fleet.command_in_its_time(0, &["fleet", "propose", "2"]).output().unwrap();
    assert!(code(&refused) != 0 && told(&refused).contains("clock"), "{refused:?}");
    assert!(!fleet.share().join("rollouts/000001").exists());
}
