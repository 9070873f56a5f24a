//! What the last unnamed `update` was refused with stands in `status`, until one goes well.

use std::fs;
use std::process::Output;

use cutover::coord::facts::names;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet_tools::wait_until;
use crate::refusals::Desk;

/// Only root may write where the last look is kept.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A name that no other test has: what is kept in `/run` goes by it.
struct App(String);

impl App {
    fn new(name: &str) -> Self {
        Self(format!("{name}-{}", std::process::id()))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(format!("/run/cutover/{}", self.0));
    }
}

/// The one thing that is in the way, by `status --json`: whose word it is, exit code, text, since when.
fn blocked(json: &str) -> Option<(String, u64, String, String)> {
    let status: Value = serde_json::from_str(json).unwrap();
    let found = status["blocked"].as_array().unwrap().first()?.clone();
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((word("policy"), found["exit_code"].as_u64()?, word("text"), word("since")))
}

#[test]
fn a_source_that_was_refused_is_in_status_until_it_is_good_again() {
    if !is_root() {
        eprintln!("SKIPPED a_source_that_was_refused_is_in_status_until_it_is_good_again: needs root");
        return;
    }
    let (desk, app) = (Desk::new(), App::new("refused"));
    let run = |words: &[&str]| desk.run(&[&["--config", "node.toml", "--app", &app.0], words].concat());
    assert_eq!(run(&["update"]).0, 0);
    let files = ["stable.channel", "stable.channel.sig"];
    let old = files.map(|name| fs::read(desk.source(name)).unwrap());
    desk.release("1.2");
    let new = files.map(|name| fs::read(desk.source(name)).unwrap());
    let put = |bytes: &[Vec<u8>; 2]| {
        files.iter().zip(bytes).for_each(|(name, bytes)| fs::write(desk.source(name), bytes).unwrap());
    };
    assert_eq!(run(&["update"]).0, 0);
    assert_eq!(blocked(&run(&["status", "--json"]).1), None);

    put(&old);
    assert_eq!(run(&["update"]).0, 12);
    let (policy, code, text, since) = blocked(&run(&["status", "--json"]).1).unwrap();
    assert!(policy == "source" && code == 12 && text.contains("forget-channel"), "{policy} {code} {text}");
    let said = run(&["status"]).1;
    assert!(said.contains("the last look at its source failed") && said.contains("blocked"), "{said}");
    assert!(!said.contains("there is nothing newer"), "{said}");
    // The same once more is since the first time; a release that a person names, and that is here, says nothing of it.
    assert_eq!(run(&["update"]).0, 12);
    assert_eq!(run(&["update", "1.2"]).0, 0);
    assert_eq!(blocked(&run(&["status", "--json"]).1).unwrap().3, since);

    put(&new);
    assert_eq!(run(&["update"]).0, 0);
    assert_eq!(blocked(&run(&["status", "--json"]).1), None);
}

#[test]
fn a_fleet_that_cannot_be_followed_is_in_status_and_names_the_way_out() {
    let fleet = Fleet::new(2, "synchronous", "");
    let (share, away, app) = (fleet.share(), fleet.path("away"), App::new("parted"));
    let run = |words: &[&str]| {
        let Output { status, stdout, stderr } = fleet.run(1, &[&["--app", &app.0], words].concat());
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    };
    let settings = fs::read_to_string(fleet.path("n1.toml")).unwrap();
    let refuses = |code: i32, word: &str| {
        let (found, said) = run(&["update"]);
        assert!(found == code && said.contains(word), "{found}: {said}");
        assert!(!said.contains("frees a name"), "{said}");
        if is_root() {
            let (policy, found, text, _) = blocked(&run(&["status", "--json"]).1).unwrap();
            assert!(
                policy == "fleet" && found == code as u64 && text.contains(word),
                "{policy} {found} {text}"
            );
        }
    };
    fs::rename(&share, &away).unwrap();
    refuses(17, "mounts/1/share` has no fleet's directories, or is not there; is it mounted?");
    // Another fleet on the bare mount point would be one too many.
    fs::create_dir(&share).unwrap();
    let (code, said) = run(&["fleet", "join"]);
    assert!(code == 1 && said.contains("mount it") && !said.contains("fleet init"), "{said}");
    fs::remove_dir(&share).unwrap();
    fs::rename(&away, &share).unwrap();
    fs::write(fleet.path("n1.toml"), settings.replace("name = \"shop\"", "name = \"shap\"")).unwrap();
    refuses(14, "`fleet.name` says `shap`: set it right");
    fs::write(fleet.path("n1.toml"), settings.replace("node = \"n1\"", "node = \"edge\"")).unwrap();
    refuses(14, "`fleet.node` says `edge`: set it back");
    fs::write(fleet.path("n1.toml"), &settings).unwrap();
    assert_eq!(run(&["update"]).0, 0);
    assert_eq!(blocked(&run(&["status", "--json"]).1), None);

    // Names that nobody has, and times in which nothing can be done.
    let lists = || fs::read_dir(share.join(names::MEMBERS)).unwrap().count();
    let before = lists();
    for words in [&["members", "--remove", "n9"][..], &["replace", "n9"], &["propose", "2", "--valid", "0s"]]
    {
        let (code, said) = run(&[&["fleet"], words].concat());
        assert_eq!(code, 2, "{words:?}: {said}");
    }
    assert_eq!(lists(), before);
}

#[test]
fn what_an_update_waits_for_is_in_status_while_it_does() {
    if !is_root() {
        eprintln!("SKIPPED what_an_update_waits_for_is_in_status_while_it_does: needs root");
        return;
    }
    let (fleet, app) = (Fleet::new(2, "synchronous", "vote = \"60s\""), App::new("waits"));
    let Some(disk) = fleet.with_own_disk() else {
        eprintln!("SKIPPED what_an_update_waits_for_is_in_status_while_it_does: no right to mount");
        return;
    };
    let status = |words: &[&str]| {
        let output = fleet.run(1, &[&["--app", &app.0, "status"], words].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let waits_for = || {
        let status: Value = serde_json::from_str(&status(&["--json"])).unwrap();
        status["update"]["waits_for"].as_str().unwrap_or_default().to_owned()
    };
    fleet.propose("2");
    assert!(disk.fill());
    let mut update = fleet.command(1, &["--app", &app.0, "update"]).spawn().unwrap();
    wait_until(&fleet, "the full storage is told", || waits_for().contains("No space left"));
    let screen = status(&[]);
    assert!(screen.contains(&format!("process {} waits: shared storage", update.id())), "{screen}");
    disk.mend();
    wait_until(&fleet, "the other's vote is waited for", || waits_for().contains("the votes of the others"));
    update.kill().unwrap();
    update.wait().unwrap();
    assert_eq!(waits_for(), "");
    let screen = status(&[]);
    assert!(screen.contains("interrupted: nobody works on it now"), "{screen}");
}

#[test]
fn what_no_fleet_can_work_with_is_told_by_config_check() {
    let fleet = Fleet::new(1, "synchronous", "");
    let check = || {
        let Output { status, stdout, stderr } = fleet.run(0, &["config", "check"]);
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    };
    let path = fleet.path("n0.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let share = format!("directory = \"{}\"", fleet.path("mounts/0/share").display());
    let long = format!("node = \"{}\"", "a".repeat(70));
    let cases = [
        ("node = \"n0\"", "node = \"UPPER\"", "63 small letters"),
        ("node = \"n0\"", "node = \"../x\"", "63 small letters"),
        ("node = \"n0\"", &long, "63 small letters"),
        (&share, "directory = \"exec:\"", "names no program"),
    ];
    for (right, wrong, word) in cases {
        assert!(settings.contains(right));
        fs::write(&path, settings.replace(right, wrong)).unwrap();
        let (code, said) = check();
        assert!(code == 2 && said.contains(word), "{wrong}: {code}: {said}");
    }
    fs::write(&path, &settings).unwrap();
    let (code, said) = check();
    assert!(code == 0 && !said.contains("everybody"), "{said}");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(fleet.share(), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, said) = check();
    assert!(code == 0 && said.contains("everybody on this machine may write to"), "{said}");
}
