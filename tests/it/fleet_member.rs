//! One member of a fleet, and what people or its machine do to it in the middle of a rollout: what was said counts, and nobody
//! else suffers for it.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cutover::coord::facts::names;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, set, told, wait_until};

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn journal(fleet: &Fleet, number: usize) -> std::path::PathBuf {
    fleet.root(number).join(".cutover/journal.json")
}

#[test]
fn what_is_said_after_the_vote_counts_until_the_switch() {
    let ended = [&["hold"][..], &["mark-bad", "2"]].map(|words| {
        let fleet = Fleet::new(2, "synchronous", "vote = \"60s\"");
        fleet.propose("2");
        let voted = fleet.run(1, &["update", "--no-wait"]);
        let vote = fleet.share().join(names::own(&"n1".parse().unwrap(), 1, "vote"));
        assert!(vote.exists(), "{words:?}: {voted:?}");
        assert_eq!(code(&fleet.run(1, words)), 0, "{words:?}");
        (fleet.live(calm), fleet.all_run(), fleet.why())
    });
    let wanted = ["cancelled", "aborted"].map(|outcome| (outcome.to_owned(), vec!["1".to_owned()]));
    let came = ended.each_ref().map(|(outcome, runs, _)| (outcome.clone(), runs.clone()));
    assert_eq!(came, wanted, "{ended:?}");
}

/// The processes that one has started.
fn children(pid: u32) -> Vec<Pid> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// What a person wants on this node waits for one answer of storage at the longest, and is done without one.
#[test]
fn an_update_that_waits_before_its_switch_is_called_off_while_storage_hangs() {
    let fleet = Fleet::new(2, "synchronous", "vote = \"10min\"");
    let (hangs, wrapper) = (fleet.path("hangs"), fleet.path("wrapper"));
    let script = format!(
        "#!/bin/sh\nwhile test -e {}; do sleep 0.1; done\nexec {} board-helper {} n1\n",
        hangs.display(),
        env!("CARGO_BIN_EXE_cutover"),
        fleet.share().display()
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let there = fleet.path("mounts/1/share");
    set(&fleet, 1, there.to_str().unwrap(), &format!("exec:{}", wrapper.display()));
    fleet.propose("2");
    let mut update = fleet.begin(1);
    let vote = fleet.share().join(names::own(&"n1".parse().unwrap(), 1, "vote"));
    wait_until(&fleet, "it waits for the others", || vote.exists());
    std::fs::write(&hangs, "").unwrap();
    for helper in children(update.id()) {
        kill(helper, Signal::SIGSTOP).unwrap();
    }
    let mut rollback = fleet.command(1, &["rollback"]).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while rollback.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let is_called_off = !fleet.root(1).join(".cutover/journal.json").exists();
    std::fs::remove_file(&hangs).unwrap();
    rollback.kill().unwrap_or_default();
    let ended = rollback.wait_with_output().unwrap();
    for helper in children(update.id()) {
        kill(helper, Signal::SIGKILL).unwrap();
    }
    end(&mut update);
    assert_eq!((ended.status.code(), is_called_off), (Some(0), true), "{ended:?}");
}

/// Only who has vouched has to wait for the others.
#[test]
fn a_member_that_goes_down_at_each_boot_before_it_vouched_gives_the_release_up() {
    let fleet = Fleet::new(2, "synchronous", "trial = \"300s\"");
    set(&fleet, 1, "min_healthy = \"300ms\"", "min_healthy = \"120s\"");
    fleet.propose("2");
    let mut both = [fleet.begin(0), fleet.begin(1)];
    let journal = fleet.root(1).join(".cutover/journal.json");
    let says = |what: &str| std::fs::read_to_string(&journal).unwrap_or_default().contains(what);
    wait_until(&fleet, "its trial", || says("\"name\":\"trial\""));
    both.iter_mut().for_each(end);
    // Nothing that the others say reaches it.
    fleet.unplug(1);
    let boots: Vec<_> = (0..3)
        .map(|_| {
            let boot = fleet.run(1, &["recover", "--boot"]);
            (code(&boot), fleet.active(1))
        })
        .collect();
    let wanted = ["2", "2", "1"].map(|active| (0, active.to_owned()));
    assert_eq!(boots, wanted, "{}", std::fs::read_to_string(&journal).unwrap_or_default());
}

#[test]
fn a_member_whose_old_release_does_not_stop_is_no_failure_of_the_rollout() {
    let stops = "[service]\ncommand = { start = 'true', stop = 'test ! -e ../../stuck' }";
    let fleet = Fleet::new(2, "rolling", &format!("at_once = 1\n{stops}"));
    let stuck = fleet.root(1).join("stuck");
    std::fs::write(&stuck, "").unwrap();
    fleet.propose("2");
    assert_eq!(code(&fleet.run(1, &["update"])), 10);
    assert_eq!(fleet.active(1), "1");
    std::fs::remove_file(&stuck).unwrap();
    let next = fleet.run(0, &["update"]);
    assert_eq!((code(&next), fleet.active(0).as_str()), (0, "2"), "{next:?}: {}", fleet.why());
    assert!(!fleet.decision(1, "halt").exists(), "{}", fleet.why());
}

/// A library whose `flock` stops the process before it takes a lock for the so manyth time.
fn stopping_library(fleet: &Fleet) -> std::path::PathBuf {
    let (source, library) = (fleet.path("stop.c"), fleet.path("stop.so"));
    let stop = "#include <signal.h>\n#include <stdlib.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
                int flock(int fd, int how) { static int count; const char *at = getenv(\"STOP_BEFORE_LOCK\");\n\
                if (how != 8 && at && count++ == atoi(at)) raise(SIGSTOP);\n\
                return syscall(SYS_flock, fd, how); }\n";
    std::fs::write(&source, stop).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    library
}

/// One run has begun when another one learns of a rollout; then storage is set back to before it. Whoever is late goes by what
/// the node remembers by then, and not by what it remembered at first.
#[test]
fn what_a_member_remembers_of_its_fleet_is_read_with_the_lock_that_it_is_changed_with() {
    const LOCKS_MAX: u32 = 12;
    let fleet = Fleet::new(1, "synchronous", "");
    let own = fleet.root(0).join(".cutover/fleet.json");
    let at_first = std::fs::read(&own).unwrap();
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let [before, newest] = ["before", "newest"].map(|name| fleet.path(name));
    let keep = |name| Command::new("cp").arg("-a").args([&fleet.share(), name]).status().unwrap();
    assert!(keep(&before).success());
    fleet.stage(0, "3");
    fleet.propose("3");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert!(keep(&newest).success());
    let library = stopping_library(&fleet);
    let share = |from: &std::path::Path| {
        drop(std::fs::remove_dir_all(fleet.share()));
        assert!(Command::new("cp").arg("-a").args([from, &fleet.share()]).status().unwrap().success());
    };
    share(&before);
    let noticed = fleet.run(0, &["update"]);
    assert_eq!((code(&noticed), fleet.active(0)), (17, "3".to_owned()), "{noticed:?}");
    let mut overtaken = 0;
    for lock in 0..LOCKS_MAX {
        std::fs::write(&own, &at_first).unwrap();
        share(&newest);
        let mut late = fleet.command(0, &["update"]);
        late.env("LD_PRELOAD", &library).env("STOP_BEFORE_LOCK", lock.to_string());
        let late = late.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(late.id().try_into().unwrap());
        if !matches!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(..))) {
            // So many locks it does not take.
            break;
        }
        let other = fleet.run(0, &["update"]);
        // Who holds a lock that the other wants cannot be overtaken.
        let is_overtaken = code(&other) == 0;
        if is_overtaken {
            share(&before);
        }
        kill(pid, Signal::SIGCONT).unwrap();
        let ended = late.wait_with_output().unwrap();
        if is_overtaken {
            overtaken += 1;
            let told = (code(&ended), fleet.active(0));
            assert_eq!(told, (17, "3".to_owned()), "before lock {lock}: {ended:?}");
        }
    }
    assert!(overtaken > 0, "nobody was overtaken");
}

/// Where a run is cut short each time, by a timer's limit or a power cut, none of them lasts as long as the member may wait.
#[test]
fn a_member_in_doubt_counts_how_long_it_waits_over_all_its_runs() {
    let fleet =
        Fleet::new(2, "synchronous", "trial = \"90s\"\nisolated = \"rollback\"\nisolated_after = \"5s\"");
    set(&fleet, 0, "min_healthy = \"300ms\"", "min_healthy = \"60s\"");
    fleet.propose("2");
    let mut both = [fleet.begin(0), fleet.begin(1)];
    let report = fleet.share().join(names::own(&"n1".parse().unwrap(), 1, "report"));
    wait_until(&fleet, "n1 has vouched", || report.exists());
    fleet.unplug(1);
    end(&mut both[1]);
    let mut shown = String::new();
    for _ in 0..10 {
        let mut run = fleet.begin(1);
        std::thread::sleep(Duration::from_secs(2));
        if shown.is_empty() {
            shown = told(&fleet.run(1, &["status"]));
        }
        end(&mut run);
    }
    // Not by its own checks: it has vouched.
    let is_told = shown.contains("IN DOUBT") && shown.contains("waits for the fleet's outcome, for ");
    assert!(is_told && !shown.contains("must be healthy"), "{shown}");
    let active = fleet.active(1);
    end(&mut both[0]);
    assert_eq!(active, "1", "it waits for ever: {}", fleet.why());
}

/// It has no record any more of what it has promised, so it goes on with nothing.
#[test]
fn who_has_lost_its_record_of_the_fleet_does_not_switch_alone() {
    let fleet = Fleet::new(2, "synchronous", "vote = \"1h\"");
    fleet.propose("2");
    let vote = fleet.share().join(names::own(&"n1".parse().unwrap(), 1, "vote"));
    for joins_first in [false, true] {
        let mut voter = fleet.begin(1);
        wait_until(&fleet, "the vote", || vote.exists() && journal(&fleet, 1).exists());
        end(&mut voter);
        std::fs::remove_file(fleet.root(1).join(".cutover/fleet.json")).unwrap();
        if joins_first {
            assert_eq!(code(&fleet.run(1, &["fleet", "join"])), 0);
        }
        let recovered = fleet.run(1, &["recover"]);
        assert_eq!((code(&recovered), fleet.active(1).as_str()), (1, "1"), "{recovered:?}");
        assert!(told(&recovered).contains("cutover fleet join"), "{recovered:?}");
        assert!(!journal(&fleet, 1).exists());
        assert_eq!(code(&fleet.run(1, &["fleet", "join"])), 0);
    }
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn who_has_lost_its_record_of_the_fleet_in_its_trial_goes_back_and_so_do_the_others() {
    let fleet = Fleet::new(2, "synchronous", "");
    (0..2).for_each(|number| set(&fleet, number, "min_healthy = \"300ms\"", "min_healthy = \"8s\""));
    fleet.propose("2");
    let (other, mut forgets) = (fleet.begin(0), fleet.begin(1));
    wait_until(&fleet, "the switch", || fleet.all_run() == ["2"]);
    end(&mut forgets);
    std::fs::remove_file(fleet.root(1).join(".cutover/fleet.json")).unwrap();
    let recovered = fleet.run(1, &["recover"]);
    assert_eq!((code(&recovered), fleet.active(1).as_str()), (10, "1"), "{recovered:?}");
    assert!(told(&recovered).contains("cutover fleet join"), "{recovered:?}");
    let other = other.wait_with_output().unwrap();
    assert_eq!((other.status.code(), fleet.all_run()), (Some(13), vec!["1".to_owned()]), "{}", fleet.why());
    assert_eq!(code(&fleet.run(1, &["fleet", "join"])), 0);
    let state = std::fs::read_to_string(fleet.root(1).join(".cutover/state.json")).unwrap();
    assert!(state.contains("\"bad\":[]"), "{state}");
}

/// A rolling rollout of release 3 that was halted because it is sick on n1, when n0 had it and is to go back.
fn halted_with_one_ahead(settings: &str) -> Fleet {
    let fleet = Fleet::new(2, "rolling", &format!("at_once = 1\non_halt = \"rollback\"\n{settings}"));
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("3");
    assert_eq!(code(&fleet.run(0, &["update"])), 0, "{}", fleet.why());
    std::fs::write(fleet.path("sick-1"), "").unwrap();
    assert_eq!(code(&fleet.run(1, &["update"])), 10, "{}", fleet.why());
    fleet
}

#[test]
fn who_could_not_go_back_after_a_halt_and_is_helped_says_what_it_runs() {
    let fleet =
        halted_with_one_ahead("[service]\ncommand = { start = '! test -e ../../broken', stop = 'true' }");
    // Here the old release does not start.
    let broken = fleet.root(0).join("broken");
    std::fs::write(&broken, "").unwrap();
    assert_eq!(code(&fleet.run(0, &["update"])), 14, "{}", fleet.why());
    std::fs::remove_file(broken).unwrap();
    let helped = fleet.run(0, &["rollback"]);
    assert_eq!((code(&helped), fleet.active(0).as_str()), (0, "1"), "{helped:?}");
    // Its place is free when somebody says so: to whoever asks, and here.
    let waive = "`cutover fleet waive n0 1`";
    for words in [&["update"][..], &["fleet", "status", "--why"]] {
        let said = told(&fleet.run(0, words));
        assert!(said.contains(waive), "{words:?}: {said}");
    }
    let next = fleet.run(1, &["fleet", "propose", "2"]);
    println!("{next:?}");
    let other = told(&fleet.run(1, &["update"]));
    assert!(!other.contains("waive n1"), "{other}");
    assert_eq!(code(&fleet.run(1, &["fleet", "waive", "n0", "1"])), 0);
    assert_eq!(fleet.live(calm), "halted", "{}", fleet.why());
    let closed = fleet.share().join(names::own(&"n0".parse().unwrap(), 1, "closed"));
    let said = std::fs::read_to_string(closed).unwrap();
    assert!(said.contains("\"running\":\"1\""), "{said}");
}

#[test]
fn who_has_it_and_is_gone_when_it_is_halted_is_waived_and_the_next_one_is_proposed() {
    let fleet = halted_with_one_ahead("");
    let too_early = fleet.run(1, &["fleet", "propose", "2"]);
    assert!(
        code(&too_early) == 15 && told(&too_early).contains("`cutover fleet waive n0 1`"),
        "{too_early:?}"
    );
    let status = told(&fleet.run(1, &["fleet", "status", "--why"]));
    assert!(status.contains("waits for going back on n0") && status.contains("waive"), "{status}");
    assert_eq!(code(&fleet.run(1, &["fleet", "waive", "n0", "1"])), 0);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
}

#[test]
fn the_place_of_a_node_on_which_neither_release_is_healthy_is_free_when_it_is_waived() {
    let starts = "[service]\ncommand = { start = 'test ! -e ../../broken || grep -q 3 app', stop = 'true' }";
    let fleet = Fleet::new(2, "rolling", &format!("at_once = 1\nmax_failed = 2\n{starts}"));
    (0..2).for_each(|number| fleet.stage(number, "3"));
    std::fs::write(fleet.path("sick-0"), "").unwrap();
    std::fs::write(fleet.root(0).join("broken"), "").unwrap();
    fleet.propose("3");
    assert_eq!(code(&fleet.run(0, &["update"])), 14, "{}", fleet.why());
    let mut waits = fleet.begin(1);
    wait_until(&fleet, "n1 waits", || journal(&fleet, 1).exists());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.active(1), "1", "its place is taken: {}", fleet.why());
    assert_eq!(code(&fleet.run(1, &["fleet", "waive", "n0", "1"])), 0);
    wait_until(&fleet, "its turn", || fleet.active(1) == "3");
    assert_eq!(waits.wait().unwrap().code(), Some(0), "{}", fleet.why());
}

#[test]
fn who_has_gone_back_after_a_halt_says_so_again_where_storage_has_lost_it() {
    let fleet = halted_with_one_ahead("");
    let backup = fleet.path("backup");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&fleet.share(), &backup);
    assert_eq!(fleet.live(calm), "halted", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
    std::fs::remove_dir_all(fleet.share()).unwrap();
    copy(&backup, &fleet.share());
    for _ in 0..4 {
        let run = fleet.run(0, &["update"]);
        assert_eq!(fleet.active(0), "1", "it starts it again: {run:?}");
    }
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
}

#[test]
fn who_was_taken_back_by_hand_after_a_halt_says_so() {
    let fleet = halted_with_one_ahead("");
    let by_hand = fleet.run(0, &["rollback"]);
    assert_eq!((code(&by_hand), fleet.active(0).as_str()), (0, "1"), "{by_hand:?}");
    assert_eq!(fleet.live(calm), "halted", "{}", fleet.why());
    assert_eq!(code(&fleet.run(0, &["unhold"])), 0);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}
