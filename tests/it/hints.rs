//! What an error advises is about what was typed, and not about something else.

use std::fs;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use cutover::cli::failure::{Error, failure};
use cutover::config::Problem;
use cutover::store::{Damage, Error as StoreError};
use cutover::sys::disk::Error as DiskError;
use cutover::sys::owned::Error as OwnedError;

use crate::node::{Health, TestNode, text};
use crate::refusals::Desk;

#[test]
fn a_place_that_is_not_there_is_named_and_nothing_else_is_blamed() {
    let desk = Desk::new();
    let node: &[&str] = &["--config", "node.toml"];
    let cases: [(&[&str], i32, &str); 4] = [
        (&["copy", "source", "stick"], 2, "there is no directory `stick` to copy to"),
        (&["publish", "/nonexistent", "1.0", "--key", "team"], 2, "there is no directory `/nonexistent`"),
        (&[node, &["adopt", "--undo"]].concat(), 1, "nothing was adopted here"),
        (&[node, &["log", "-n", "0"]].concat(), 0, "none of the 1 entries was asked for"),
    ];
    for (words, code, what) in cases {
        let (found, said) = desk.run(words);
        assert!(found == code && said.contains(what), "{words:?}: {found}: {said}");
        for misleading in
            ["can be reached", "says its version itself", "at that disk", "the disk that holds it"]
        {
            assert!(!said.contains(misleading), "{words:?}: {said}");
        }
    }
}

#[test]
fn who_may_not_read_the_configuration_is_told_so() {
    let denied =
        DiskError::new("open", "/etc/cutover/shop.toml".as_ref(), IoError::from(ErrorKind::PermissionDenied));
    let told = failure(&Error::Config(Problem::Owned(OwnedError::Disk(denied))));
    assert!(told.code == 2 && told.hint.unwrap().contains("as root"));
}

#[test]
fn what_a_newer_cutover_wrote_is_not_to_be_thrown_away() {
    let hint_of = |why| {
        let path = "/srv/shop/.cutover/state.json".into();
        failure(&Error::from(StoreError::Damaged { path, why })).hint.unwrap()
    };
    let newer = hint_of(Damage::Newer("unknown field `soon`, expected one of `hold`".into()));
    assert!(newer.contains("install the newer cutover") && !newer.contains("move"), "{newer}");
    let exposed = hint_of(Damage::Exposed("it belongs to user 1000".into()));
    assert!(exposed.contains("`chown ") && !exposed.contains("move"), "{exposed}");
    assert!(hint_of(Damage::Spoilt("its checksum does not fit".into())).contains("move"));
}

/// A hint to change the owner of what is there would be followed.
#[test]
fn who_forgets_sudo_is_told_so_by_every_command() {
    if !crate::node::needs_root("who_forgets_sudo_is_told_so_by_every_command") {
        return;
    }
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    fs::set_permissions(node.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    // Whoever it is may not look into the place of this project, such as root's home.
    let program = node.path("cutover");
    fs::copy(env!("CARGO_BIN_EXE_cutover"), &program).unwrap();
    let commands = ["hold", "unhold", "pin 1", "mark-bad 1", "prune", "rollback", "recover", "list", "log"];
    for words in commands {
        let words: Vec<&str> = words.split(' ').collect();
        let as_root = node.command(&words);
        let mut command = Command::new(&program);
        command.args(as_root.get_args()).current_dir(node.path("")).uid(65534).gid(65534);
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("hint: run it as the user that owns the root"), "{words:?}: {said}");
    }
}

#[test]
fn what_was_given_away_is_taken_back_by_its_hint() {
    if !crate::node::needs_root("what_was_given_away_is_taken_back_by_its_hint") {
        return;
    }
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    assert_eq!(node.code(&["pin", "1"]), 0);
    let state = node.root().join(".cutover/state.json");
    std::os::unix::fs::chown(&state, Some(1000), None).unwrap();
    let said = text(&node.run(&["hold"]).stderr);
    let hint = said.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    for command in hint.split('`').skip(1).step_by(2) {
        assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    }
    assert_eq!(node.code(&["hold"]), 0);
    assert_eq!(node.state()["pins"], serde_json::json!(["1"]), "nothing was lost");
}

#[test]
fn where_the_pointer_leads_nowhere_its_hints_lead_on() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    for number in [1, 2] {
        assert_eq!(node.update(number), 0);
    }
    let current = node.root().join("current");
    fs::rename(node.root().join("releases/2"), node.path("away")).unwrap();
    let output = node.run(&["rollback"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(14), "{said}");
    assert!(said.contains(&format!("`rm {}`, then `cutover switch", current.display())), "{said}");
    fs::remove_file(&current).unwrap();
    let status = node.status();
    assert_eq!(status["previous"]["rollback"]["possible"], false, "{status}");
    let said = text(&node.run(&["rollback", "1"]).stderr);
    assert!(said.contains("`cutover switch VERSION`"), "{said}");
    // Written to, and told before anybody relies on it.
    fs::write(node.root().join("releases/1/bin/app"), "the same in all").unwrap();
    fs::write(node.root().join("releases/1/well"), "not as staged").unwrap();
    let output = node.run(&["switch", "1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the tree of release 1 was written to"), "{said}");
    assert_eq!(node.active().as_deref(), Some("1"));
}

/// What a source says no to is told apart from one that is away.
#[test]
fn a_source_that_answers_is_not_called_away() {
    let desk = Desk::new();
    let channel = desk.source("stable.channel");
    let disk = cutover::sys::disk::Disk::default();
    disk.rename(&channel, &desk.path("elsewhere")).unwrap();
    let (code, said) = desk.update();
    assert!(
        code == 1 && said.contains("is not there") && said.contains("`channel` in `[source]`"),
        "{code}: {said}"
    );
    nix::unistd::symlinkat(&desk.path("elsewhere"), nix::fcntl::AT_FDCWD, &channel).unwrap();
    let (code, said) = desk.update();
    assert!(
        code == 1 && said.contains("symbolic link") && !said.contains("can be reached"),
        "{code}: {said}"
    );
}

#[test]
fn words_that_name_no_archive_are_told_so() {
    let desk = Desk::new();
    let node: &[&str] = &["--config", "node.toml"];
    let (code, said) = desk.run(&[node, &["stage", "gone", "--version", "1"]].concat());
    assert!(code == 2 && said.contains("there is no archive `gone`"), "{code}: {said}");
    let (code, said) = desk.run(&["pack", "source", "--product", "x", "--version", "1", "-o", "x.tar.gz"]);
    assert!(code == 2 && said.contains("tar.zst"), "{code}: {said}");
    let (_, said) = desk.run(&["pack", "gone", "--product", "x", "--version", "1", "-o", "x.tar.zst"]);
    assert!(!said.contains("disk") && !said.contains("the root"), "{said}");
}
