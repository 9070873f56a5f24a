//! The edges of a fleet, with real processes: who a node is, what everybody may write, and files that say nothing.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use cutover::coord::facts::names;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, told};

#[test]
fn whoever_is_refused_keeps_nothing_and_a_freed_name_is_another_machines() {
    let fleet = Fleet::new(2, "synchronous", "");
    let own = fleet.root(1).join(".cutover");
    // A new disk: nothing is left of what the node knew.
    for file in ["fleet.json", "fleet.key"] {
        std::fs::remove_file(own.join(file)).unwrap();
    }
    let refused = fleet.run(1, &["fleet", "join"]);
    assert!(code(&refused) != 0 && told(&refused).contains("cutover fleet replace n1"), "{refused:?}");
    assert!(!own.join("fleet.json").exists() && !own.join("fleet.key").exists());
    let without = fleet.run(1, &["update"]);
    assert!(code(&without) == 2 && told(&without).contains("has not joined"), "{without:?}");

    let freed = fleet.run(0, &["fleet", "replace", "n1", "--reason", "a new disk"]);
    assert_eq!(code(&freed), 0, "{freed:?}");
    for words in [&["fleet", "join"][..], &["fleet", "join"]] {
        let joined = fleet.run(1, words);
        assert_eq!(code(&joined), 0, "{joined:?}");
    }
    let listed = fleet.run(0, &["fleet", "members", "--add", "n1"]);
    assert_eq!(code(&listed), 0, "{listed:?}");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn a_node_that_lost_its_record_of_the_fleet_is_let_in_by_its_key() {
    let fleet = Fleet::new(2, "synchronous", "");
    std::fs::remove_file(fleet.root(1).join(".cutover/fleet.json")).unwrap();
    let joined = fleet.run(1, &["fleet", "join"]);
    assert_eq!(code(&joined), 0, "{joined:?}");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
}

#[test]
fn another_fleets_directory_is_no_rest() {
    let fleet = Fleet::new(2, "synchronous", "");
    std::fs::rename(fleet.share(), fleet.path("real")).unwrap();
    std::fs::create_dir(fleet.share()).unwrap();
    let empty = fleet.run(1, &["update"]);
    assert_eq!(code(&empty), 17, "{empty:?}");
    // Somebody who knows nothing of this fleet makes another one of the same name on the bare mount point.
    std::fs::rename(fleet.root(0).join(".cutover/fleet.json"), fleet.path("kept")).unwrap();
    assert_eq!(code(&fleet.run(0, &["fleet", "init"])), 0);
    std::fs::rename(fleet.path("kept"), fleet.root(0).join(".cutover/fleet.json")).unwrap();
    for words in [&["update"][..], &["fleet", "propose", "2"], &["fleet", "status"]] {
        let other = fleet.run(1, words);
        assert_eq!(code(&other), 17, "{words:?}: {other:?}");
        assert!(told(&other).contains("not the directory of this node's fleet"), "{words:?}: {other:?}");
    }
    assert!(std::fs::read_dir(fleet.share().join(names::MEMBERS)).unwrap().next().is_none());
}

#[test]
fn a_directory_of_the_format_before_is_refused_by_name() {
    let fleet = Fleet::new(1, "synchronous", "");
    let line = "{\"format\":1,\"kind\":\"fleet\",\"fleet\":\"shop\",\"id\":\"i\"}";
    let sum = cutover::types::Digest::of(line.as_bytes()).hex();
    std::fs::write(fleet.share().join(names::FLEET), format!("{line}\nsum sha256 {sum}\n")).unwrap();
    std::fs::remove_file(fleet.root(0).join(".cutover/fleet.json")).unwrap();
    for words in [&["fleet", "join"][..], &["fleet", "propose", "2"]] {
        let refused = fleet.run(0, words);
        let said = told(&refused);
        assert!(code(&refused) != 0 && said.contains("format is 1") && said.contains("format 2"), "{said}");
    }
}

#[test]
fn what_init_and_join_make_is_for_the_group_and_not_for_all() {
    let fleet = Fleet::new(1, "synchronous", "");
    for name in ["rollouts", "members", "nodes", "nodes/n0"] {
        let mode = std::fs::metadata(fleet.share().join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode & !0o2770, 0, "{name}: {mode:o}");
    }
    let quiet = fleet.run(0, &["config", "check"]);
    assert!(code(&quiet) == 0 && !told(&quiet).contains("everybody"), "{quiet:?}");
    let rollouts = fleet.share().join("rollouts");
    std::fs::set_permissions(rollouts, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let warned = fleet.run(0, &["config", "check"]);
    assert!(code(&warned) == 0 && told(&warned).contains("everybody"), "{warned:?}");
}

/// Nobody begins what nobody can end, and all say so.
#[test]
fn nobody_waits_beside_an_empty_plan_without_a_word_of_what_ends_it() {
    let fleet = Fleet::new(2, "synchronous", "vote = \"1h\"");
    fleet.propose("2");
    std::fs::write(fleet.decision(1, "plan"), "").unwrap();
    for number in 0..2 {
        let waits = fleet.run(number, &["update", "--no-wait"]);
        assert!(code(&waits) == 15 && told(&waits).contains("cutover fleet abort"), "{waits:?}");
    }
    let said = told(&fleet.run(0, &["fleet", "status", "--why"]));
    assert!(said.contains("waits for a person") && said.contains("`cutover fleet abort` ends"), "{said}");
    assert!(!said.contains("dead member") && !said.contains("waits for the vote"), "{said}");
}

#[test]
fn an_empty_plan_stops_nobody_for_ever() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    std::fs::write(fleet.decision(1, "plan"), "").unwrap();
    let second = fleet.run(0, &["fleet", "propose", "2"]);
    assert_eq!(code(&second), 15, "{second:?}");
    let aborted = fleet.run(1, &["fleet", "abort"]);
    assert!(code(&aborted) == 0 && told(&aborted).contains("void"), "{aborted:?}");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

/// Whatever came of stopping it: nobody goes on there.
#[test]
fn whoever_waives_beside_an_empty_plan_is_not_told_that_it_goes_on() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    std::fs::write(fleet.decision(1, "plan"), "").unwrap();
    let waived = told(&fleet.run(0, &["fleet", "waive", "n1"]));
    assert!(waived.contains("cutover fleet abort 1") && !waived.contains("goes on without"), "{waived}");
    fleet.run(1, &["fleet", "abort"]);
    let waived = fleet.run(0, &["fleet", "waive", "n1", "1"]);
    assert!(code(&waived) != 0 && told(&waived).contains("has ended already"), "{waived:?}");
}

#[test]
fn an_empty_ticket_is_waived_by_its_number() {
    let fleet = Fleet::new(2, "rolling", "at_once = 1");
    fleet.propose("2");
    std::fs::write(fleet.decision(1, "t.0000.0000"), "").unwrap();
    let waits = fleet.run(0, &["update", "--no-wait"]);
    assert_ne!(code(&waits), 0, "{waits:?}");
    let waived = fleet.run(0, &["fleet", "waive", "--ticket", "0"]);
    assert_eq!(code(&waived), 0, "{waived:?}");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn what_no_rollout_survives_is_told_by_config_check() {
    let fleet = Fleet::new(1, "synchronous", "trial = \"1s\"\nsettle = \"1s\"");
    let path = fleet.path("n0.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("min_healthy = \"300ms\"", "min_healthy = \"5s\"")).unwrap();
    let refused = fleet.run(0, &["config", "check"]);
    assert!(code(&refused) == 2 && told(&refused).contains("health.min_healthy"), "{refused:?}");
    for directory in ["share", "~/share"] {
        let share = fleet.path("mounts/0/share");
        let there = text.replace(share.to_str().unwrap(), directory);
        std::fs::write(&path, there).unwrap();
        let refused = fleet.run(0, &["config", "check"]);
        assert!(code(&refused) == 2 && told(&refused).contains("absolute"), "{directory}: {refused:?}");
    }
}

#[test]
fn a_hold_is_seen_by_the_fleet_and_in_the_reason() {
    let fleet = Fleet::new(2, "synchronous", "vote = \"4s\"");
    assert_eq!(code(&fleet.run(1, &["hold", "--reason", "new disks"])), 0);
    fleet.propose("2");
    let held = fleet.run(1, &["update"]);
    assert_eq!(code(&held), 15, "{held:?}");
    let status = fleet.run(0, &["fleet", "status", "--why", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(value["not_yet"][0]["node"], "n1", "{value}");
    assert!(value["not_yet"][0]["why"].as_str().unwrap().contains("new disks"), "{value}");
    let other = fleet.run(0, &["update"]);
    assert_eq!(code(&other), 13, "{other:?}");
    assert!(fleet.reason().contains("new disks"), "{}", fleet.reason());
}

#[test]
fn a_share_that_went_back_in_time_takes_no_proposal() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let proposal = fleet.share().join(names::proposal(1));
    let directory = fleet.decision(1, "plan").parent().unwrap().to_owned();
    for (from, to) in [(&proposal, "proposal"), (&directory, "decisions")] {
        std::fs::rename(from, fleet.path(to)).unwrap();
    }
    let refused = fleet.run(0, &["fleet", "propose", "1"]);
    assert!(code(&refused) == 17 && told(&refused).contains("fleet repair"), "{refused:?}");
    let noticed = fleet.run(1, &["update"]);
    assert_eq!(code(&noticed), 17, "{noticed:?}");
    let repaired = fleet.run(1, &["fleet", "repair"]);
    assert!(code(&repaired) == 0 && told(&repaired).contains("put back"), "{repaired:?}");
    let again = fleet.run(1, &["update"]);
    assert_eq!(code(&again), 0, "{again:?}");
}

#[test]
fn a_release_that_is_banned_here_ends_an_unnamed_update_with_15() {
    for mode in ["synchronous", "rolling"] {
        let fleet = Fleet::new(2, mode, "");
        assert_eq!(code(&fleet.run(1, &["mark-bad", "2", "--reason", "it loses orders"])), 0);
        fleet.propose("2");
        let banned = fleet.run(1, &["update", "--no-wait"]);
        assert_eq!(code(&banned), 15, "{mode}: {banned:?}");
        for part in ["it loses orders", "`cutover mark-good 2`"] {
            assert!(told(&banned).contains(part), "{mode}: {banned:?}");
        }
        assert_eq!(fleet.active(1), "1");
    }
}

#[test]
fn metrics_count_the_members_of_a_rollout() {
    if !crate::node::needs_root("metrics_count_the_members_of_a_rollout") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let settings = format!("[metrics]\ntextfile = \"{}/@.prom\"", place.path().display());
    let fleet = Fleet::new(2, "synchronous", &settings);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let text = std::fs::read_to_string(place.path().join("0.prom")).unwrap();
    let members: Vec<_> = text.lines().filter(|line| line.starts_with("cutover_rollout_members{")).collect();
    let counted: f64 =
        members.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((counted - 2.0).abs() < 0.1, "{text}");
    assert!(text.contains("\ncutover_switch_skew_seconds{app=\"n0\",rollout="), "{text}");
}

#[test]
fn a_member_that_refuses_says_why_and_nobody_waits_for_it() {
    let waves = "waves = [{ nodes = [\"n0\", \"n1\"] }]\nat_once = 2";
    let fleet = Fleet::new(3, "rolling", waves);
    assert_eq!(code(&fleet.run(1, &["mark-bad", "2", "--reason", "not on this one"])), 0);
    fleet.propose("2");
    // It has to have said so: whoever says nothing is waited for. What it ends with is another test's.
    fleet.run(1, &["update", "--no-wait"]);
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!((fleet.active(0), fleet.active(1), fleet.active(2)), ("2".into(), "1".into(), "2".into()));
    assert!(fleet.reason().contains("n1 refuses: ") && fleet.reason().contains("not on this one"));
    // It comes to it when it may.
    assert_eq!(code(&fleet.run(1, &["mark-good", "2"])), 0);
    let caught_up = fleet.run(1, &["update"]);
    assert_eq!((code(&caught_up), fleet.active(1).as_str()), (0, "2"), "{caught_up:?}");
}

#[test]
fn a_member_that_refused_has_the_release_when_it_may() {
    let fleet = Fleet::new(2, "rolling", "");
    assert_eq!(code(&fleet.run(1, &["mark-bad", "2"])), 0);
    fleet.propose("2");
    fleet.run(1, &["update", "--no-wait"]);
    assert_eq!(code(&fleet.run(1, &["mark-good", "2"])), 0);
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    // By a ticket of its own, or, where the others were done before it, afterwards.
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn a_rollout_that_ended_before_a_node_could_begin_does_not_keep_it_from_the_next() {
    for mode in ["rolling", "synchronous"] {
        let fleet = Fleet::new(2, mode, "vote = \"60s\"");
        assert_eq!(code(&fleet.run(1, &["hold"])), 0);
        fleet.propose("2");
        assert_eq!(code(&fleet.run(1, &["update"])), 15, "{mode}");
        assert_eq!(code(&fleet.run(0, &["fleet", "abort"])), 0, "{mode}");
        // The one run that comes between is the one in which it takes up the next.
        (0..2).for_each(|number| fleet.stage(number, "3"));
        fleet.propose("3");
        assert_eq!(code(&fleet.run(1, &["unhold"])), 0);
        assert_eq!(fleet.live(calm), "kept", "{mode}: {}", fleet.why());
        assert_eq!(fleet.all_run(), ["3"], "{mode}");
        let log = std::fs::read_to_string(fleet.path("n1.log")).unwrap();
        assert!(!log.contains("was aborted") && !log.contains("was stopped"), "{mode}: {log}");
    }
}

/// Member n1 takes a ticket of a rollout to release 2, switches, and is killed in its trial.
fn dies_with_a_ticket(fleet: &Fleet) {
    let path = fleet.path("n1.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("min_healthy = \"300ms\"", "min_healthy = \"60s\"")).unwrap();
    fleet.propose("2");
    let mut owner = fleet.begin(1);
    while fleet.active(1) != "2" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop((owner.kill(), owner.wait()));
}

#[test]
fn a_dead_owner_of_a_rollout_that_was_stopped_is_waived_and_the_next_may_come() {
    let fleet = Fleet::new(2, "rolling", "at_once = 1");
    dies_with_a_ticket(&fleet);
    assert_eq!(code(&fleet.run(0, &["fleet", "abort"])), 0);
    let held = fleet.run(0, &["fleet", "propose", "2"]);
    assert!(code(&held) == 15 && told(&held).contains("cutover fleet waive n1 1"), "{held:?}");
    assert_eq!(code(&fleet.run(0, &["fleet", "waive", "n1", "1"])), 0);
    fleet.propose("2");
}

#[test]
#[ignore = "a hundred thousand files, again and again: `make test-fleet`"]
fn names_that_mean_nothing_stop_neither_members_nor_operators_nor_gc() {
    let fleet = Fleet::new(1, "synchronous", "io = \"60s\"");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let rollouts = fleet.share().join(names::ROLLOUTS);
    let first = rollouts.join("junk");
    std::fs::write(&first, "").unwrap();
    let junk = |name: String| {
        let path = rollouts.join(name);
        std::fs::hard_link(&first, &path).or_else(|_| std::fs::write(&path, "")).unwrap();
    };
    // Proposals that say nothing, more than are looked at; and names that no program of today makes.
    (0..1200).for_each(|number| junk(format!("{:06}", 500 + number)));
    (0..101_000).for_each(|number| junk(format!("000001.t.{number}")));
    assert_eq!(code(&fleet.run(0, &["update"])), 0);
    fleet.propose("1");
    let updated = fleet.run(0, &["update"]);
    assert_eq!((code(&updated), fleet.active(0).as_str()), (0, "1"), "{updated:?}");
    let gone = fleet.run(0, &["fleet", "gc", "--older", "0s", "--keep", "1", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert!(code(&gone) == 0 && value["rollouts"].as_array().unwrap().len() == 1, "{gone:?}");
}

#[test]
fn a_node_that_was_renamed_in_its_settings_says_both_names() {
    let fleet = Fleet::new(2, "synchronous", "");
    let path = fleet.path("n1.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("node = \"n1\"", "node = \"edge\"")).unwrap();
    let refused = fleet.run(1, &["update"]);
    assert!(code(&refused) == 14 && told(&refused).contains("has joined as `n1`"), "{refused:?}");
    assert!(told(&refused).contains("`edge`"), "{refused:?}");
}

#[test]
fn void_decides_what_can_still_be_decided() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    let ended = fleet.run(0, &["fleet", "void"]);
    assert!(code(&ended) == 0 && told(&ended).contains("aborted"), "{ended:?}");
    assert_eq!(fleet.live(calm), "aborted", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
}

#[test]
fn a_name_that_was_freed_is_taken_again_by_whoever_still_remembers_it() {
    let fleet = Fleet::new(2, "synchronous", "");
    // As the hint says, on a node that has everything still: a clone's original, or a machine with another id.
    fleet.let_in_again(1);
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn whoever_joins_anew_keeps_the_promises_of_the_old_name_first() {
    let fleet = Fleet::new(2, "rolling", "at_once = 1");
    dies_with_a_ticket(&fleet);
    assert_eq!(code(&fleet.run(0, &["fleet", "replace", "n1"])), 0);
    let refused = fleet.run(1, &["fleet", "join"]);
    assert!(code(&refused) != 0 && told(&refused).contains("under way on this node"), "{refused:?}");
    assert_eq!(code(&fleet.run(1, &["rollback", "--now"])), 0);
    assert_eq!(code(&fleet.run(1, &["fleet", "join"])), 0);
}

fn status(fleet: &Fleet) -> serde_json::Value {
    let shown = fleet.run(0, &["fleet", "status", "--why", "--json"]);
    serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
}

#[test]
fn a_rolling_rollout_that_is_set_for_later_takes_nobody_out_of_service_before() {
    let fleet = Fleet::new(1, "rolling", "");
    let proposed = fleet.run(0, &["fleet", "propose", "2", "--not-before", "2d"]);
    assert_eq!(code(&proposed), 0, "{proposed:?}");
    let waits = fleet.run(0, &["update", "--no-wait"]);
    assert!(code(&waits) == 15 && told(&waits).contains("nobody begins before"), "{waits:?}");
    assert_eq!(fleet.all_run(), ["1"]);
    let waits_for = status(&fleet)["waits_for"].to_string();
    assert!(waits_for.contains("its moment, 2"), "{waits_for}");
    // It may be taken up for a day from then on.
    let text = std::fs::read_to_string(fleet.share().join(names::proposal(1))).unwrap();
    let proposal: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(proposal["expires"].as_str() > proposal["not_before"].as_str(), "{proposal}");
}

#[test]
fn nothing_is_stopped_for_what_cannot_be_proposed() {
    let fleet = Fleet::new(1, "synchronous", "");
    fleet.propose("2");
    let refused = fleet.run(0, &["fleet", "propose", "2", "--supersede", "--only", "n9"]);
    assert!(code(&refused) == 1 && told(&refused).contains("n9"), "{refused:?}");
    assert!(status(&fleet)["outcome"].is_null(), "{}", status(&fleet));
}

#[test]
fn a_wave_of_nobody_is_not_waited_for() {
    let waves = "waves = [{ nodes = [\"elsewhere\"] }, { percent = 0 }, { percent = 100 }]\nsoak = \"1h\"";
    let fleet = Fleet::new(1, "rolling", waves);
    fleet.propose("2");
    assert_eq!(status(&fleet)["members"][0]["wave"], 0, "{}", status(&fleet));
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
}

/// The others are done, and each of their runs only looks in: none of them waits for one that will never decide.
#[test]
fn a_member_that_refuses_and_is_the_first_in_the_order_keeps_no_rollout_open() {
    let fleet = Fleet::new(2, "rolling", "");
    assert_eq!(code(&fleet.run(0, &["mark-bad", "2", "--reason", "not on this one"])), 0);
    fleet.propose("2");
    fleet.run(0, &["update", "--no-wait"]);
    assert_eq!(code(&fleet.run(1, &["update"])), 0);
    for _ in 0..3 {
        fleet.run(1, &["update"]);
    }
    let shown = fleet.run(1, &["fleet", "status", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((shown["outcome"].as_str(), fleet.active(1).as_str()), (Some("kept"), "2"), "{}", fleet.why());
}

#[test]
fn a_damaged_file_of_the_fleet_itself_is_put_back_by_a_member() {
    let fleet = Fleet::new(1, "synchronous", "");
    let file = fleet.share().join(names::FLEET);
    let before = std::fs::read_to_string(&file).unwrap();
    for is_gone in [false, true] {
        if is_gone { std::fs::remove_file(&file) } else { std::fs::write(&file, "") }.unwrap();
        let stuck = fleet.run(0, &["update"]);
        assert!(code(&stuck) == 17 && told(&stuck).contains("cutover fleet repair"), "{stuck:?}");
        let repaired = fleet.run(0, &["fleet", "repair"]);
        assert!(code(&repaired) == 0 && told(&repaired).contains("FLEET"), "{repaired:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    }
    // What is damaged elsewhere is nobody's to mend.
    std::fs::write(&file, "").unwrap();
    std::fs::rename(fleet.share().join("nodes/n0"), fleet.share().join("nodes/n1")).unwrap();
    let refused = fleet.run(0, &["fleet", "repair"]);
    assert!(code(&refused) != 0 && std::fs::read(&file).unwrap().is_empty(), "{refused:?}");
}

#[test]
fn whoever_was_moved_after_its_last_word_is_seen_where_it_is() {
    let fleet = Fleet::new(1, "rolling", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let back = fleet.run(0, &["rollback"]);
    assert_eq!(code(&back), 0, "{back:?}");
    let held = fleet.run(0, &["update"]);
    assert_eq!(code(&held), 15, "{held:?}");
    let note = status(&fleet)["members"][0]["note"].to_string();
    assert!(note.contains("runs 1 now"), "{note}");
}

#[test]
fn a_member_that_was_waived_is_told_so() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    for node in ["n0", "n1"] {
        assert_eq!(code(&fleet.run(0, &["fleet", "waive", node])), 0);
    }
    let waived = fleet.run(1, &["update"]);
    assert!(code(&waived) == 13 && told(&waived).contains("goes on without this node"), "{waived:?}");
}

/// A proposal takes no archive: what is said is what helps, typed as it stands.
#[test]
fn a_release_that_nobody_here_knows_can_be_proposed_by_its_digest() {
    let fleet = Fleet::new(2, "synchronous", "");
    let refused = fleet.run(0, &["fleet", "propose", "9"]);
    assert_eq!(code(&refused), 2, "{refused:?}");
    assert!(told(&refused).contains("`--digest`") && !told(&refused).contains("archive"), "{refused:?}");
    let digest = format!("sha256:{}", "9".repeat(64));
    let proposed = fleet.run(0, &["fleet", "propose", "9", "--digest", &digest]);
    assert_eq!(code(&proposed), 0, "{proposed:?}");
}

/// Its waiver would be taken for that of a ticket.
#[test]
fn a_node_cannot_have_the_name_of_a_ticket() {
    let fleet = Fleet::new(1, "rolling", "");
    let text = std::fs::read_to_string(fleet.config(0)).unwrap();
    let named = text.replace("node = \"n0\"", "node = \"t.0001\"");
    assert_ne!(text, named);
    std::fs::write(fleet.config(0), named).unwrap();
    for words in [&["fleet", "join"][..], &["config", "check"]] {
        let refused = fleet.run(0, words);
        assert_eq!(code(&refused), 2, "{words:?}: {refused:?}");
        assert!(told(&refused).contains("ticket"), "{words:?}: {refused:?}");
    }
}
