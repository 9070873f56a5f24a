//! What a node knows counts for more than what storage shows: torn ends, lost keys, releases that run already.

use std::path::Path;
use std::process::{Command, Output};

use cutover::coord::facts::names;

use crate::fleet::{Fleet, calm};
use crate::fleet_tools::{code, told};

#[test]
fn an_end_that_was_torn_is_put_back_by_who_has_read_it() {
    for mode in ["synchronous", "rolling"] {
        let fleet = Fleet::new(2, mode, "");
        fleet.propose("2");
        assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
        let outcome = fleet.decision(1, "outcome");
        let before = std::fs::read(&outcome).unwrap();
        std::fs::write(&outcome, "").unwrap();
        let repaired = fleet.run(1, &["fleet", "repair"]);
        assert!(code(&repaired) == 0 && told(&repaired).contains("outcome"), "{mode}: {repaired:?}");
        assert_eq!(std::fs::read(&outcome).unwrap(), before, "{mode}");
        assert_eq!(fleet.live(calm), "kept", "{mode}: {}", fleet.why());
    }
}

#[test]
fn an_end_that_was_torn_is_ended_in_no_other_way() {
    for mode in ["synchronous", "rolling"] {
        let fleet = Fleet::new(2, mode, "");
        fleet.propose("2");
        assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
        std::fs::write(fleet.decision(1, "outcome"), "").unwrap();
        for words in [["fleet", "abort"], ["fleet", "void"]] {
            let refused = fleet.run(0, &words);
            assert!(
                code(&refused) != 0 && told(&refused).contains("cutover fleet repair"),
                "{mode}: {refused:?}"
            );
        }
        // What is carried to a node without storage is what this one has read.
        let carried = fleet.run(1, &["fleet", "export"]);
        assert!(told(&carried).contains("outcome"), "{mode}: {carried:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_list_of_members_that_was_replaced_does_not_come_back_unnoticed() {
    let fleet = Fleet::new(3, "synchronous", "facts = \"signed\"");
    let proposed = fleet.run(0, &["fleet", "propose", "2", "--only", "n0"]);
    assert_eq!(code(&proposed), 0, "{proposed:?}");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let before = fleet.path("before");
    let lists = fleet.share().join(names::MEMBERS);
    copy(&lists, &before);
    assert_eq!(code(&fleet.run(0, &["fleet", "members", "--remove", "n2"])), 0);
    let looks = fleet.run(1, &["update"]);
    assert_eq!(code(&looks), 0, "{looks:?}");
    // In the list of before stands the key that was taken out.
    std::fs::remove_dir_all(&lists).unwrap();
    copy(&before, &lists);
    let noticed = fleet.run(1, &["update"]);
    assert!(code(&noticed) == 17 && told(&noticed).contains("list of members"), "{noticed:?}");
    assert_eq!(code(&fleet.run(1, &["fleet", "members", "--remove", "n2"])), 0);
    let again = fleet.run(1, &["update"]);
    assert_eq!(code(&again), 0, "{again:?}");
}

/// Who was taken out has its key back by an old list, and votes again: whoever remembers the newer one begins nothing by it.
#[test]
fn an_old_list_of_members_brings_no_removed_key_back() {
    let fleet = Fleet::new(3, "synchronous", "facts = \"signed\"");
    let (lists, before) = (fleet.share().join(names::MEMBERS), fleet.path("before"));
    copy(&lists, &before);
    assert_eq!(code(&fleet.run(0, &["fleet", "members", "--remove", "n2"])), 0);
    for number in 0..2 {
        let looks = fleet.run(number, &["update"]);
        assert_eq!(code(&looks), 0, "{looks:?}");
    }
    std::fs::remove_dir_all(&lists).unwrap();
    copy(&before, &lists);
    let says = |output: &Output| told(output).contains("this node has seen list of members 2");
    let refused = fleet.run(0, &["fleet", "propose", "2"]);
    assert!(code(&refused) == 17 && says(&refused), "{refused:?}");
    for words in [["fleet", "status"], ["fleet", "repair"]] {
        let warns = fleet.run(0, &words);
        assert!(code(&warns) == 0 && says(&warns), "{warns:?}");
    }
    // It has not seen the newer list.
    assert_eq!(code(&fleet.run(2, &["fleet", "propose", "2"])), 0);
    let vote = |number: u64| fleet.share().join(format!("nodes/n1/{number:06}.vote"));
    let looks = fleet.run(1, &["update", "--no-wait"]);
    assert!(code(&looks) == 17 && says(&looks) && !vote(1).exists(), "{looks:?}");
    let why = fleet.run(2, &["fleet", "status", "--why"]);
    assert!(told(&why).contains("n1 does not take part yet: the storage went back") && says(&why), "{why:?}");
    assert_eq!(code(&fleet.run(0, &["fleet", "abort"])), 0);
    // Another list has had the number 2.
    let written = fleet.run(0, &["fleet", "members", "--remove", "n2"]);
    assert!(code(&written) == 0 && told(&written).contains("list 3"), "{written:?}");
    let proposed = fleet.run(0, &["fleet", "propose", "2"]);
    assert!(code(&proposed) == 0 && told(&proposed).contains("2 members"), "{proposed:?}");
    let looks = fleet.run(1, &["update", "--no-wait"]);
    assert!(vote(2).exists(), "{looks:?}");
}

#[test]
fn who_goes_back_while_it_only_goes_along_says_so() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.stage(1, "2");
    assert_eq!(code(&fleet.run(1, &["switch", "2"])), 0);
    fleet.propose("2");
    let vote = fleet.share().join("nodes/n1/000001.vote");
    let mut along = fleet.begin(1);
    while !vote.exists() {
        assert!(along.try_wait().unwrap().is_none(), "{}", fleet.why());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let back = fleet.run(1, &["rollback"]);
    assert_eq!(code(&back), 0, "{back:?}");
    let outcome = fleet.live(calm);
    along.wait().unwrap();
    assert_ne!(outcome, "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"], "{}", fleet.why());
    let closed = std::fs::read_to_string(fleet.share().join("nodes/n1/000001.closed")).unwrap();
    assert!(closed.contains("\"running\":\"1\""), "{closed}");
}

#[test]
fn all_go_back_to_what_ran_and_not_to_what_was_only_staged() {
    let fleet = Fleet::new(2, "rolling", "at_once = 2");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    (0..2).for_each(|number| fleet.stage(number, "3"));
    // Their heartbeats say what they have.
    (0..2).for_each(|number| drop(fleet.run(number, &["update"])));
    let back = fleet.run(0, &["fleet", "propose", "--rollback"]);
    assert!(code(&back) == 0 && told(&back).contains("release 1"), "{back:?}");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
}

#[test]
fn a_node_that_has_lost_its_key_is_told_what_frees_its_name() {
    let fleet = Fleet::new(1, "synchronous", "facts = \"signed\"");
    std::fs::remove_file(fleet.root(0).join(".cutover/fleet.key")).unwrap();
    let refused = fleet.run(0, &["fleet", "join"]);
    assert!(code(&refused) != 0 && told(&refused).contains("cutover fleet replace n0"), "{refused:?}");
}

#[test]
fn status_says_what_storage_has_torn_or_lost() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    let proposal = fleet.share().join("rollouts/000001");
    let before = std::fs::read(&proposal).unwrap();
    std::fs::write(&proposal, "").unwrap();
    let status = told(&fleet.run(0, &["fleet", "status"]));
    assert!(status.contains("the proposal of rollout 1 is not valid"), "{status}");
    std::fs::write(&proposal, &before).unwrap();
    std::fs::write(fleet.decision(1, "plan"), "").unwrap();
    let status = told(&fleet.run(0, &["fleet", "status"]));
    assert!(status.contains("plan     unreadable"), "{status}");
    std::fs::remove_file(fleet.decision(1, "plan")).unwrap();
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    std::fs::remove_file(&proposal).unwrap();
    let status = fleet.run(0, &["fleet", "status", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let remark = value["remarks"][0].as_str().unwrap();
    assert!(remark.contains("rollout 1, which this node has read, is gone"), "{value}");
}

#[test]
fn what_not_even_its_author_believes_is_not_written() {
    let fleet = Fleet::new(1, "synchronous", "");
    let lists = || std::fs::read_dir(fleet.share().join("members")).unwrap().count();
    let before = lists();
    let key = fleet.path("stranger");
    let mut keygen = Command::new("ssh-keygen");
    assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap().success());
    let config = std::fs::read_to_string(fleet.config(0)).unwrap();
    let strict = format!("signing_key = \"{}\"\npoll", key.display());
    std::fs::write(fleet.config(0), config.replace("allow_unsigned = true\npoll", &strict)).unwrap();
    for words in [["fleet", "members", "--all"], ["fleet", "replace", "n0"]] {
        let refused = fleet.run(0, &words);
        assert!(code(&refused) != 0 && told(&refused).contains("no node would trust"), "{refused:?}");
    }
    assert_eq!(lists(), before);
}

#[test]
fn a_list_of_members_that_does_not_count_is_told_as_one() {
    let fleet = Fleet::new(2, "synchronous", "");
    assert_eq!(code(&fleet.run(1, &["update"])), 0);
    std::fs::write(fleet.share().join(names::members(1)), "").unwrap();
    let looks = fleet.run(1, &["update"]);
    let said = told(&looks);
    assert!(code(&looks) == 17 && said.contains("list of members 1 does not count here"), "{said}");
    assert!(said.contains("cutover fleet members --all") && !said.contains("went back"), "{said}");
    assert_eq!(code(&fleet.run(1, &["fleet", "members", "--all"])), 0);
    assert_eq!(code(&fleet.run(1, &["update"])), 0);
}

#[test]
fn what_is_wrong_with_a_list_is_found_before_a_name_is_freed() {
    let fleet = Fleet::new(2, "synchronous", "");
    for words in [&["--add", "n9"][..], &["--cell", "n9=a"]] {
        let refused = fleet.run(0, &[&["fleet", "members", "--remove", "n1"], words].concat());
        assert_eq!(code(&refused), 1, "{refused:?}");
        let listed = told(&fleet.run(0, &["fleet", "members"]));
        assert!(listed.contains("list 1\n") && !listed.contains("free"), "{words:?}: {listed}");
        assert_eq!(code(&fleet.run(1, &["update"])), 0, "{words:?}");
    }
    let removed = fleet.run(0, &["fleet", "members", "--remove", "n1"]);
    assert!(code(&removed) == 0 && told(&removed).contains("list 2\n"), "{removed:?}");
    assert_eq!(code(&fleet.run(1, &["update"])), 14);
}

#[test]
fn a_proposal_names_the_members_that_no_machine_can_take_part_as() {
    let fleet = Fleet::new(3, "synchronous", "");
    std::fs::write(fleet.share().join(names::id(&"n1".parse().unwrap(), 0)), "").unwrap();
    assert_eq!(code(&fleet.run(0, &["fleet", "replace", "n2"])), 0);
    let listed = told(&fleet.run(0, &["fleet", "members"]));
    assert!(listed.contains("its entry is damaged") && listed.contains("its name is free"), "{listed}");
    let proposed = told(&fleet.run(0, &["fleet", "propose", "2"]));
    for wanted in ["cutover fleet waive n1 1", "cutover fleet waive n2 1"] {
        assert!(proposed.contains(wanted), "{proposed}");
    }
}
