//! What one machine has lost, or has wrong, is not the others' trouble: torn or lost proposals, wrong clocks, missing keys.

use std::process::{Output, Stdio};

use cutover::coord::facts::names;
use cutover::lifecycle::fleet::own_key;
use cutover::sys::disk::Disk;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, has_faketime, told, wait_until};

fn status(fleet: &Fleet) -> serde_json::Value {
    let shown = fleet.run(0, &["fleet", "status", "--why", "--json"]);
    serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
}

#[test]
fn a_proposal_that_was_torn_or_lost_brings_nobody_back_to_the_release_before() {
    let fleet = Fleet::new(2, "rolling", "at_once = 2");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("3");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    // A new machine had no part in either; it runs what the fleet runs.
    fleet.let_in_again(1);
    let follows = fleet.run(1, &["update"]);
    assert_eq!((code(&follows), fleet.active(1).as_str()), (0, "3"), "{follows:?}");
    let newest = fleet.share().join(names::proposal(2));
    let before = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, "").unwrap();
    let torn = fleet.run(1, &["update"]);
    assert_eq!((code(&torn), fleet.active(1).as_str()), (15, "3"), "{torn:?}");
    assert!(told(&torn).contains("rollout 2 is not valid"), "{torn:?}");
    std::fs::remove_file(&newest).unwrap();
    let lost = fleet.run(1, &["update"]);
    assert_eq!((code(&lost), fleet.active(1).as_str()), (17, "3"), "{lost:?}");
    assert!(told(&lost).contains("cutover fleet repair"), "{lost:?}");
    std::fs::write(&newest, before).unwrap();
    assert_eq!(code(&fleet.run(1, &["update"])), 0);
    // A name that nobody proposed under is nothing.
    std::fs::write(fleet.share().join(names::proposal(7)), "").unwrap();
    assert_eq!(code(&fleet.run(1, &["switch", "2"])), 0);
    let again = fleet.run(1, &["update"]);
    assert_eq!((code(&again), fleet.active(1).as_str()), (0, "3"), "{again:?}");
}

#[test]
fn a_decision_that_was_torn_brings_nobody_back_to_the_release_before() {
    let fleet = Fleet::new(2, "synchronous", "");
    (0..2).for_each(|number| fleet.stage(number, "3"));
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    fleet.propose("3");
    // One run each, and no look since.
    for mut member in [fleet.begin(0), fleet.begin(1)] {
        member.wait().unwrap();
    }
    assert_eq!(fleet.all_run(), ["3"], "{}", fleet.why());
    let own = |number| fleet.root(number).join(".cutover/fleet.json");
    let memories = [0, 1].map(|number| std::fs::read(own(number)).unwrap());
    for gate in ["outcome", "go", "plan"] {
        let path = fleet.decision(2, gate);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        for (number, memory) in memories.iter().enumerate() {
            std::fs::write(own(number), memory).unwrap();
            let torn = fleet.run(number, &["update"]);
            assert_eq!((code(&torn), fleet.active(number).as_str()), (17, "3"), "{gate}: {torn:?}");
            assert!(told(&torn).contains("cutover fleet repair"), "{gate}: {torn:?}");
        }
        std::fs::write(&path, before).unwrap();
    }
    assert_eq!(code(&fleet.run(0, &["update"])), 0);
}

#[test]
fn a_member_whose_clock_is_ahead_ends_no_rollout_for_the_others() {
    if !has_faketime("a_member_whose_clock_is_ahead_ends_no_rollout_for_the_others") {
        return;
    }
    let fleet = Fleet::new(2, "synchronous", "");
    std::fs::write(fleet.clock(1), "+2h").unwrap();
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "cancelled", "{}", fleet.why());
    assert!(fleet.reason().contains("n1: its clock is"), "{}", fleet.reason());

    let fleet = Fleet::new(2, "rolling", "");
    std::fs::write(fleet.clock(1), "+3d").unwrap();
    let later = fleet.run(0, &["fleet", "propose", "2", "--not-before", "2d"]);
    assert_eq!(code(&later), 0, "{later:?}");
    let early = fleet.command_in_its_time(1, &["update", "--no-wait"]).output().unwrap();
    assert_eq!((code(&early), fleet.active(1).as_str()), (15, "1"), "{early:?}");
    assert_eq!(code(&fleet.run(0, &["fleet", "abort"])), 0);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn whoever_has_no_key_damages_no_gate_of_a_rollout_that_is_signed() {
    let place = tempfile::tempdir().unwrap();
    let (key, trusted) = (place.path().join("anna"), place.path().join("anna.pub"));
    let public = own_key(&Disk::default(), &key, "anna").unwrap();
    std::fs::write(&trusted, format!("anna namespaces=\"cutover-fleet\" {public}\n")).unwrap();
    let (keys, signer) = (trusted.display(), format!("signing_key = \"{}\"", key.display()));
    for mode in ["synchronous", "rolling"] {
        let settings = format!("facts = \"signed\"\nallow_unsigned = false\nkeys = [\"{keys}\"]\n{signer}");
        let fleet = Fleet::new(2, mode, &settings);
        fleet.propose("2");
        let config = std::fs::read_to_string(fleet.config(1)).unwrap();
        std::fs::write(fleet.config(1), config.replace(&signer, "")).unwrap();
        let refused = fleet.run(1, &["fleet", "abort"]);
        assert!(code(&refused) == 2 && told(&refused).contains("signing_key"), "{mode}: {refused:?}");
        let stranger = place.path().join("stranger");
        own_key(&Disk::default(), &stranger, "stranger").unwrap();
        let other = format!("signing_key = \"{}\"", stranger.display());
        std::fs::write(fleet.config(1), config.replace(&signer, &other)).unwrap();
        let refused = fleet.run(1, &["fleet", "abort"]);
        assert!(code(&refused) == 1 && told(&refused).contains("no node would trust"), "{mode}: {refused:?}");
        assert!(["plan", "halt", "void"].iter().all(|gate| !fleet.decision(1, gate).exists()), "{mode}");
        assert_eq!(fleet.live(calm), "kept", "{mode}: {}", fleet.why());
    }
}

#[test]
fn a_member_without_its_key_says_so_at_once_and_what_helps() {
    let fleet = Fleet::new(2, "synchronous", "facts = \"signed\"");
    let key = fleet.root(1).join(".cutover/fleet.key");
    let good = std::fs::read(&key).unwrap();
    let is_told = |done: &Output, wanted: i32| {
        let said = told(done);
        let helps = ["cutover fleet replace n1", "cutover fleet join", "cutover fleet members --add n1"];
        assert!(code(done) == wanted && helps.iter().all(|help| said.contains(help)), "{done:?}");
    };
    fleet.propose("2");
    // It goes while the others' votes are waited for.
    let vote = fleet.share().join(names::own(&"n1".parse().unwrap(), 1, "vote"));
    let waits = fleet.command(1, &["update"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while !vote.exists() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::fs::remove_file(&key).unwrap();
    is_told(&waits.wait_with_output().unwrap(), 15);
    let spoil: [&dyn Fn(); 3] = [&|| (), &|| std::fs::write(&key, "").unwrap(), &|| {
        std::fs::remove_file(&key).unwrap();
        own_key(&Disk::default(), &key, "n1").unwrap();
    }];
    for spoil in spoil {
        spoil();
        is_told(&fleet.run(1, &["update"]), 14);
        let shown = fleet.run(1, &["status"]);
        is_told(&shown, 0);
        assert!(told(&shown).contains("NEEDS A PERSON"), "{shown:?}");
    }
    std::fs::write(&key, good).unwrap();
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());

    // The other way out. What was kept is for the new machine, too.
    (0..2).for_each(|number| fleet.stage(number, "3"));
    std::fs::remove_file(&key).unwrap();
    is_told(&fleet.run(1, &["update"]), 14);
    fleet.let_in_again(1);
    fleet.propose("3");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["3"]);
}

#[test]
fn a_member_whose_key_is_gone_in_its_trial_goes_back_with_the_others() {
    let fleet = Fleet::new(2, "synchronous", "facts = \"signed\"");
    for number in 0..2 {
        let config = std::fs::read_to_string(fleet.config(number)).unwrap();
        std::fs::write(
            fleet.config(number),
            config.replace("min_healthy = \"300ms\"", "min_healthy = \"5s\""),
        )
        .unwrap();
    }
    fleet.propose("2");
    let begin = |number| {
        let mut update = fleet.command(number, &["update"]);
        update.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let members = [begin(0), begin(1)];
    let said = |node: &str, what| fleet.share().join(names::own(&node.parse().unwrap(), 1, what)).exists();
    while !(said("n0", "switched") && said("n1", "switched")) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::fs::remove_file(fleet.root(1).join(".cutover/fleet.key")).unwrap();
    assert!(!said("n1", "report"), "{}", fleet.why());
    let ended = members.map(|member| member.wait_with_output().unwrap());
    assert_eq!(ended.each_ref().map(code), [13, 13], "{ended:?}");
    assert!(told(&ended[0]).contains("no report in time: n1"), "{ended:?}");
    assert!(told(&ended[1]).contains("fleet.key"), "{ended:?}");
    // The storage has no part in it.
    assert!(told(&ended[1]).contains("this node cannot sign"), "{ended:?}");
    assert!(!told(&ended[1]).contains("shared storage"), "{ended:?}");
    assert_eq!(fleet.all_run(), ["1"]);
    let next = fleet.run(1, &["update"]);
    assert!(code(&next) == 14 && told(&next).contains("cutover fleet replace n1"), "{next:?}");
}

/// What can be read and not written holds nobody longer than what is gone: the time for votes ends by one's own clock.
#[test]
fn whose_vote_storage_refuses_waits_no_longer_than_there_is_time_for_votes() {
    for is_full in [false, true] {
        let fleet = Fleet::new(2, "synchronous", "vote = \"5s\"");
        let Some(disk) = fleet.with_own_disk() else {
            eprintln!(
                "SKIPPED whose_vote_storage_refuses_waits_no_longer_than_there_is_time_for_votes: no right to mount"
            );
            return;
        };
        fleet.propose("2");
        assert!(if is_full { disk.fill() } else { disk.freeze() });
        let mut update = fleet.begin(0);
        wait_until(&fleet, "the update gives up", || update.try_wait().unwrap().is_some());
        assert_eq!(update.wait().unwrap().code(), Some(13), "{}", fleet.why());
        // Its lock is free.
        let by_hand = fleet.run(0, &["prune"]);
        assert_eq!(code(&by_hand), 0, "{by_hand:?}");
        disk.mend();
        assert_eq!(fleet.live(calm), "aborted", "{}", fleet.why());
    }
}

#[test]
fn whose_report_storage_refuses_goes_back_while_it_does() {
    for is_full in [false, true] {
        let fleet = Fleet::new(2, "synchronous", "");
        let Some(disk) = fleet.with_own_disk() else {
            eprintln!("SKIPPED whose_report_storage_refuses_goes_back_while_it_does: no right to mount");
            return;
        };
        // Long enough that both have switched, and none has reported.
        for number in 0..2 {
            let config = std::fs::read_to_string(fleet.config(number)).unwrap();
            let config = config.replace("min_healthy = \"300ms\"", "min_healthy = \"9s\"");
            std::fs::write(fleet.config(number), config).unwrap();
        }
        fleet.propose("2");
        let own = |node: &str, what| fleet.share().join(names::own(&node.parse().unwrap(), 1, what));
        let begin = |number| {
            let mut update = fleet.command(number, &["update"]);
            update.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let members = [begin(0), begin(1)];
        while !["n0", "n1"].iter().all(|node| own(node, "switched").exists()) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        while !(if is_full { disk.fill() } else { disk.freeze() }) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(["n0", "n1"].iter().all(|node| !own(node, "report").exists()), "{}", fleet.why());
        for (number, member) in members.into_iter().enumerate() {
            let ended = member.wait_with_output().unwrap();
            let is_back = (code(&ended), fleet.active(number).as_str()) == (13, "1");
            assert!(is_back && told(&ended).contains("can be read, and not written"), "{ended:?}");
        }
        disk.mend();
        assert_eq!(fleet.live(calm), "rolled back", "{}", fleet.why());
        assert_eq!(fleet.all_run(), ["1"]);
    }
}

#[test]
fn whoever_misses_what_the_fleet_runs_says_why_it_does_not_follow() {
    let fleet = Fleet::new(2, "rolling", "");
    assert_eq!(code(&fleet.run(1, &["mark-bad", "2", "--reason", "not on this one"])), 0);
    fleet.propose("2");
    assert_eq!(code(&fleet.run(1, &["update", "--no-wait"])), 15);
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(code(&fleet.run(1, &["update"])), 15);
    let shown = status(&fleet);
    let note = shown["members"][1]["note"].to_string();
    assert!(note.contains("does not follow yet") && note.contains("not on this one"), "{shown}");
}

#[test]
fn a_member_that_had_its_turn_and_keeps_the_rest_waiting_is_named() {
    let fleet = Fleet::new(2, "rolling", "at_once = 2");
    let config = std::fs::read_to_string(fleet.config(1)).unwrap();
    std::fs::write(fleet.config(1), config.replace("min_healthy = \"300ms\"", "min_healthy = \"60s\""))
        .unwrap();
    fleet.propose("2");
    let mut owner = fleet.begin(1);
    while fleet.active(1) != "2" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(code(&fleet.run(1, &["rollback", "--now"])), 0);
    drop(owner.wait());
    assert_eq!(code(&fleet.run(0, &["update"])), 0);
    let waits_for = status(&fleet)["waits_for"].to_string();
    assert!(
        ["n1 had a turn", "cutover fleet propose 2 --supersede", "cutover fleet waive n1"]
            .iter()
            .all(|word| waits_for.contains(word)),
        "{waits_for}"
    );
    assert_eq!(code(&fleet.run(0, &["fleet", "waive", "n1"])), 0);
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
}

#[test]
fn an_entry_that_was_torn_is_freed_by_the_command_that_is_named() {
    let fleet = Fleet::new(2, "rolling", "");
    std::fs::write(fleet.share().join(names::id(&"n1".parse().unwrap(), 0)), "").unwrap();
    let refused = fleet.run(1, &["update"]);
    assert!(code(&refused) == 14 && told(&refused).contains("cutover fleet replace n1"), "{refused:?}");
    fleet.let_in_again(1);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn a_freed_name_is_shown_as_one_and_who_waits_for_it() {
    let fleet = Fleet::new(2, "rolling", "");
    fleet.propose("2");
    let freed = fleet.run(0, &["fleet", "replace", "n1"]);
    assert!(code(&freed) == 0 && told(&freed).contains("cutover fleet waive n1 1"), "{freed:?}");
    assert!(told(&fleet.run(0, &["fleet", "members"])).contains("its name is free"));
    assert_eq!(code(&fleet.run(1, &["fleet", "join"])), 0);
    assert!(told(&fleet.run(0, &["fleet", "members"])).contains("joined anew, not listed"));
}

#[test]
fn a_slip_in_a_wave_is_told_and_a_rolling_rollout_waits_for_no_file() {
    let fleet = Fleet::new(1, "rolling", "waves = [{ nodes = [\"canary\"], groups = [\"edge\"] }]");
    let proposed = fleet.run(0, &["fleet", "propose", "2", "--not-before", "1d"]);
    let said = told(&proposed);
    assert!(code(&proposed) == 0 && said.contains("node `canary`, group `edge`"), "{proposed:?}");
    assert_eq!(code(&fleet.run(0, &["update", "--no-wait"])), 15);
    let carried = fleet.path("carried");
    std::fs::write(&carried, fleet.run(0, &["fleet", "export"]).stdout).unwrap();
    let refused = fleet.run(0, &["fleet", "import", carried.to_str().unwrap()]);
    assert!(code(&refused) == 1 && told(&refused).contains("is a rolling one"), "{refused:?}");
}

#[test]
fn a_rollout_that_was_stopped_stays_so_where_storage_loses_that() {
    let fleet = Fleet::new(2, "rolling", "");
    fleet.propose("2");
    // Somebody is out of service, so the halt does not end it yet.
    let config = std::fs::read_to_string(fleet.config(1)).unwrap();
    std::fs::write(fleet.config(1), config.replace("min_healthy = \"300ms\"", "min_healthy = \"60s\""))
        .unwrap();
    let mut owner = fleet.begin(1);
    while fleet.active(1) != "2" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop((owner.kill(), owner.wait()));
    assert_eq!(code(&fleet.run(0, &["update", "--no-wait"])), 15);
    assert_eq!(code(&fleet.run(0, &["fleet", "abort", "--reason", "not today"])), 0);
    fleet.run(0, &["update", "--no-wait"]);
    let halt = fleet.decision(1, "halt");
    let before = std::fs::read(&halt).unwrap();
    std::fs::remove_file(&halt).unwrap();
    assert!(status(&fleet)["remarks"].to_string().contains("/halt`"), "{}", status(&fleet));
    for words in [&["fleet", "repair"][..], &["update", "--no-wait"]] {
        fleet.run(0, words);
        assert_eq!(std::fs::read(&halt).unwrap(), before, "{words:?}");
        std::fs::remove_file(&halt).unwrap();
    }
    assert_eq!(fleet.active(0), "1");
}

#[test]
fn what_keeps_a_member_from_the_release_is_told_where_the_next_run_may_do_better() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.stage(0, "3");
    fleet.propose("3");
    // It has no source, and the release is not staged there.
    let missing = fleet.run(1, &["update", "--no-wait"]);
    assert_ne!(code(&missing), 0, "{missing:?}");
    let shown = status(&fleet);
    let note = shown["members"][1]["note"].to_string();
    assert!(note.contains("not yet: "), "{shown}");
    fleet.stage(1, "3");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["3"]);
}

#[test]
fn a_rollout_in_which_nobody_has_a_part_says_what_ends_it() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    assert!(!told(&fleet.run(0, &["fleet", "waive", "n0"])).contains("nobody is left"));
    let last = fleet.run(0, &["fleet", "waive", "n1"]);
    assert!(code(&last) == 0 && told(&last).contains("nobody is left"), "{last:?}");
    let waits_for = status(&fleet)["waits_for"].to_string();
    assert!(
        waits_for.contains("all members are waived") && waits_for.contains("cutover fleet abort"),
        "{waits_for}"
    );
    assert_eq!(code(&fleet.run(0, &["fleet", "abort"])), 0);
    assert_eq!(fleet.live(calm), "aborted", "{}", fleet.why());
}
