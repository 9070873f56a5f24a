//! Trees that somebody has written to: what was changed is never carried on, and is told before people rely on it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, text};

struct Place {
    mounted: Mounted,
}

impl Place {
    fn new(test: &str, kind: &'static str) -> Option<Self> {
        let mounted = Mounted::new(test, kind)?;
        fs::create_dir(mounted.path().join("root")).unwrap();
        fs::create_dir_all(mounted.path().join("tree/lib")).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            fs::write(mounted.path().join("tree/lib").join(name), format!("{name} as released")).unwrap();
        }
        Some(Self { mounted })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let root = self.path("root");
        Command::new(env!("CARGO_BIN_EXE_cutover")).arg("--root").arg(root).args(words).output().unwrap()
    }

    fn update(&self, version: &str, more: &[&str]) {
        fs::write(self.path("tree/v"), version).unwrap();
        let archive = self.path(&format!("app-{version}.tar.zst"));
        let tree = self.path("tree");
        let words = ["-q", "pack", tree.to_str().unwrap(), "--product", "app", "--version", version, "-o"];
        let packed = self.run(&[&words[..], &[archive.to_str().unwrap()], more].concat());
        assert!(packed.status.success(), "{packed:?}");
        let updated = self.run(&["update", "--allow-unsigned", archive.to_str().unwrap()]);
        assert!(updated.status.success(), "{updated:?}");
    }

    fn inode(&self, version: &str, name: &str) -> u64 {
        fs::metadata(self.path(&format!("root/releases/{version}/lib/{name}"))).unwrap().ino()
    }
}

/// Changes the content, and gives the file its time back.
fn rewrite(path: &Path) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    let length = fs::read(path).unwrap().len();
    let file = fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![b'x'; length], 0).unwrap();
    file.set_modified(before).unwrap();
}

#[test]
fn what_was_changed_is_never_carried_on() {
    for kind in ["ext4", "xfs"] {
        let Some(place) = Place::new("what_was_changed_is_never_carried_on", kind) else { return };
        place.update("1", &[]);
        let at = |name: &str| place.path(&format!("root/current/lib/{name}"));
        rewrite(&at("a"));
        xattr::set(at("b"), "user.note", b"mine").unwrap();
        // As setcap(8) writes it: cap_net_bind_service, effective and permitted.
        let capability = *b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        xattr::set(at("e"), "security.capability", &capability).unwrap();
        let is_listed = Command::new("setfacl").args(["-m", "u:33:rw"]).arg(at("d")).status().is_ok();
        place.update("2", &[]);
        assert_eq!(place.run(&["verify", "2"]).status.code(), Some(0), "{kind}");
        assert_ne!(place.inode("1", "a"), place.inode("2", "a"), "{kind}");
        assert_ne!(place.inode("1", "b"), place.inode("2", "b"), "{kind}");
        assert_ne!(place.inode("1", "e"), place.inode("2", "e"), "{kind}");
        assert_eq!(xattr::get(place.path("root/releases/2/lib/e"), "security.capability").unwrap(), None);
        assert_eq!(place.inode("1", "c"), place.inode("2", "c"), "{kind}: what nobody touched is shared");
        if is_listed {
            assert_ne!(place.inode("1", "d"), place.inode("2", "d"), "{kind}");
        }
        // Links of others change the change time, too: then the content tells.
        let backup = place.path("backup");
        fs::hard_link(place.path("root/releases/2/lib/c"), &backup).unwrap();
        place.update("3", &[]);
        assert_eq!(place.inode("3", "c"), place.inode("2", "c"), "{kind}");
        assert_eq!(place.run(&["verify", "3"]).status.code(), Some(0), "{kind}");
    }
}

#[test]
fn a_write_in_place_is_told_before_anybody_relies_on_the_tree() {
    for kind in ["ext4", "xfs"] {
        let test = "a_write_in_place_is_told_before_anybody_relies_on_the_tree";
        let Some(place) = Place::new(test, kind) else { return };
        for version in ["1", "2", "3"] {
            place.update(version, &[]);
        }
        let check = || text(&place.run(&["rollback", "--check"]).stdout);
        assert!(!check().contains("written to"), "{kind}: {}", check());
        rewrite(&place.path("root/current/lib/a"));
        assert!(check().contains("lib/a"), "{kind}: {}", check());
        let status = text(&place.run(&["status"]).stdout);
        assert!(status.contains("lib/a"), "{kind}: {status}");
        let back = place.run(&["rollback"]);
        assert!(text(&back.stderr).contains("lib/a"), "{kind}: {back:?}");
        let archive = place.path("app-2.tar.zst");
        let words = ["verify", "2", "--repair", "--allow-unsigned", "--from", archive.to_str().unwrap()];
        assert_eq!(place.run(&words).status.code(), Some(0), "{kind}");
        assert_eq!(fs::read_to_string(place.path("root/current/lib/a")).unwrap(), "a as released");
    }
}

#[test]
fn verify_names_what_was_written_to_and_the_releases_that_share_it() {
    for kind in ["ext4", "xfs"] {
        let test = "verify_names_what_was_written_to_and_the_releases_that_share_it";
        let Some(place) = Place::new(test, kind) else { return };
        for version in ["1", "2", "3"] {
            place.update(version, &[]);
        }
        rewrite(&place.path("root/current/lib/a"));
        let verified = place.run(&["verify", "1"]);
        let told = text(&verified.stderr);
        assert_eq!(verified.status.code(), Some(12), "{kind}: {told}");
        assert!(told.contains("lib/a") && told.contains("2, 3"), "{kind}: {told}");
    }
}

#[test]
fn a_switch_to_what_was_written_to_warns() {
    let Some(place) = Place::new("a_switch_to_what_was_written_to_warns", "ext4") else { return };
    for version in ["1", "2", "3"] {
        place.update(version, &[]);
    }
    fs::write(place.path("root/current/lib/a"), "a as patched").unwrap();
    let switched = place.run(&["switch", "1"]);
    assert!(switched.status.success() && text(&switched.stderr).contains("lib/a"), "{switched:?}");
}

#[test]
fn what_cannot_or_must_not_be_linked_is_copied() {
    for kind in ["ext4", "xfs"] {
        let Some(place) = Place::new("what_cannot_or_must_not_be_linked_is_copied", kind) else { return };
        fs::set_permissions(place.path("tree/lib/b"), fs::Permissions::from_mode(0o666)).unwrap();
        place.update("1", &[]);
        let fixed = place.path("root/releases/1/lib/a");
        let flag =
            |flag: &str| Command::new("chattr").arg(flag).arg(&fixed).status().is_ok_and(|it| it.success());
        assert!(flag("+i"));
        place.update("2", &[]);
        assert_ne!(place.inode("1", "a"), place.inode("2", "a"), "{kind}: immutable");
        assert_ne!(place.inode("1", "b"), place.inode("2", "b"), "{kind}: anybody may write to it");
        assert_eq!(place.inode("1", "c"), place.inode("2", "c"), "{kind}");
        assert!(flag("-i"));
        place.update("3", &["--owner", "33:33"]);
        place.update("4", &["--owner", "33:33"]);
        assert_ne!(place.inode("3", "c"), place.inode("4", "c"), "{kind}: its owner may write to it");
        assert_eq!(place.run(&["verify", "4"]).status.code(), Some(0), "{kind}");
    }
}

#[test]
fn a_file_that_has_nearly_all_names_that_it_can_have_is_copied() {
    let test = "a_file_that_has_nearly_all_names_that_it_can_have_is_copied";
    let Some(place) = Place::new(test, "ext4") else { return };
    let (first, further) = (place.path("tree/lib/a"), place.path("tree/lib/a2"));
    fs::hard_link(&first, &further).unwrap();
    place.update("1", &[]);
    // A backup that links has done so: ext4 has room for 65,000.
    let (old, backup) = (place.path("root/releases/1/lib/a"), place.path("backup"));
    fs::create_dir(&backup).unwrap();
    for number in 2..64_999 {
        fs::hard_link(&old, backup.join(number.to_string())).unwrap();
    }
    for version in ["2", "3"] {
        place.update(version, &[]);
        assert_eq!(place.inode(version, "a"), place.inode(version, "a2"));
    }
    assert_eq!(place.inode("2", "a"), place.inode("3", "a"), "the copy is linked again");
}

#[test]
fn what_the_node_does_not_let_in_does_not_come_from_the_base() {
    for kind in ["ext4", "btrfs"] {
        let test = "what_the_node_does_not_let_in_does_not_come_from_the_base";
        let Some(place) = Place::new(test, kind) else { return };
        fs::set_permissions(place.path("tree/lib/b"), fs::Permissions::from_mode(0o4755)).unwrap();
        // So many that the base is worth to begin with.
        fs::create_dir(place.path("tree/many")).unwrap();
        for number in 0..6000 {
            let name = format!("tree/many/some-long-file-name-{number}");
            fs::write(place.path(&name), number.to_string()).unwrap();
        }
        let config = place.path("app.toml");
        let update = |version: &str, allowed: bool| {
            fs::write(place.path("tree/v"), version).unwrap();
            let archive = place.path(&format!("app-{version}.tar.zst"));
            let (tree, archive) = (place.path("tree"), archive.to_str().unwrap().to_owned());
            let words =
                ["-q", "pack", tree.to_str().unwrap(), "--product", "app", "--version", version, "-o"];
            assert!(place.run(&[&words[..], &[&archive]].concat()).status.success());
            let root = place.path("root");
            let text = format!("root = '{}'\n[archive]\nallow_setid = {allowed}\n", root.display());
            fs::write(&config, text).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
            command.arg("--config").arg(&config).args(["update", "--allow-unsigned", &archive]);
            command.output().unwrap().status.code()
        };
        assert_eq!(update("1", true), Some(0), "{kind}");
        assert_eq!(update("2", false), Some(12), "{kind}");
    }
}

#[test]
fn a_tree_with_a_socket_is_adopted() {
    let place = tempfile::tempdir().unwrap();
    let (root, old) = (place.path().join("root"), place.path().join("root/old"));
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("code"), "code").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(old.join("app.sock")).unwrap();
    let cutover = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_cutover")).arg("--root").arg(&root).args(words).output().unwrap()
    };
    let adopted = cutover(&["adopt", old.to_str().unwrap(), "--version", "0.9"]);
    assert!(adopted.status.success(), "{adopted:?}");
    assert_eq!(cutover(&["verify"]).status.code(), Some(0));
}

#[test]
fn what_is_in_a_tree_and_in_no_release_is_named_and_taken_away() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    nix::unistd::mkfifo(&node.root().join("releases/1/bin/queue"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let verified = node.run(&["verify", "1"]);
    let told = text(&verified.stderr);
    assert_eq!(verified.status.code(), Some(12), "{told}");
    assert!(told.contains("bin/queue"), "{told}");
    let differs = node.run(&["diff", "1", "2"]);
    assert!(differs.status.success() && text(&differs.stdout).contains("bin/queue"), "{differs:?}");
    let archive = node.archive(1);
    let repair = ["verify", "1", "--repair", "--allow-unsigned", "--from", archive.to_str().unwrap()];
    assert_eq!(node.code(&repair), 0);
    assert!(!node.root().join("releases/1/bin/queue").exists());
    assert_eq!(node.code(&["verify", "1"]), 0);
}

#[test]
fn a_node_that_came_back_from_a_backup_is_as_it_was() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let (root, backup) = (node.root(), node.path("backup"));
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&root, &backup);
    fs::remove_dir_all(&root).unwrap();
    copy(&backup, &root);
    let said = || {
        let status = node.run(&["status"]);
        let checked = node.run(&["rollback", "--check"]);
        assert_eq!((status.status.code(), checked.status.code()), (Some(0), Some(0)));
        format!("{}{}{}", text(&status.stdout), text(&checked.stdout), text(&checked.stderr))
    };
    let told = said();
    assert!(!told.contains("differ") && !told.contains("written to"), "{told}");
    rewrite(&root.join("releases/1/bin/app"));
    let told = said();
    assert!(told.contains("bin/app"), "{told}");
    // What was changed since is not carried on, and what was not is.
    rewrite(&root.join("releases/2/bin/app"));
    assert_eq!(node.update(3), 0);
    assert_eq!(node.code(&["verify", "3"]), 0);
}

#[test]
fn a_repair_tells_who_still_runs_from_the_tree_that_was_replaced() {
    let Some(place) = Place::new("a_repair_tells_who_still_runs_from_the_tree_that_was_replaced", "ext4")
    else {
        return;
    };
    place.update("1", &[]);
    let archive = place.path("app-1.tar.zst");
    let repair = ["verify", "1", "--repair", "--allow-unsigned", "--from", archive.to_str().unwrap()];
    rewrite(&place.path("root/current/lib/a"));
    let told = text(&place.run(&repair).stdout);
    assert!(told.contains("intact again") && !told.contains("still run"), "{told}");
    rewrite(&place.path("root/current/lib/a"));
    let tree = place.path("root/releases/1");
    let mut sleeper = std::process::Command::new("sleep").arg("60").current_dir(tree).spawn().unwrap();
    let told = text(&place.run(&repair).stdout);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let who = format!("process {} still runs from the tree that was replaced", sleeper.id());
    assert!(told.contains(&who) && told.contains("restart"), "{told}");
}

#[test]
fn what_would_happen_on_a_read_only_file_system_is_what_happens() {
    let Some(place) = Place::new("what_would_happen_on_a_read_only_file_system_is_what_happens", "ext4")
    else {
        return;
    };
    for version in ["1", "2"] {
        place.update(version, &[]);
    }
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(place.mounted.path()).status();
        assert!(done.unwrap().success());
    };
    remount("ro");
    for words in [&["rollback", "--check"][..], &["rollback"], &["config", "check"]] {
        let told = place.run(words);
        let said = text(&told.stderr);
        assert_eq!(told.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.contains("Read-only") && said.contains("make the file system writable"),
            "{words:?}: {said}"
        );
    }
    remount("rw");
    assert_eq!(place.run(&["rollback"]).status.code(), Some(0));
}

#[test]
fn verify_names_whatever_differs() {
    type Change = fn(&Path);
    let cases: &[(&str, Change)] = &[
        ("lib/a", |tree| rewrite(&tree.join("lib/a"))),
        ("lib/now", |tree| {
            fs::remove_file(tree.join("lib/now")).unwrap();
            std::os::unix::fs::symlink("b", tree.join("lib/now")).unwrap();
        }),
        ("lib/now", |tree| fs::remove_file(tree.join("lib/now")).unwrap()),
        ("empty", |tree| fs::remove_dir(tree.join("empty")).unwrap()),
        ("empty", |tree| fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o700)).unwrap()),
        ("empty/new", |tree| fs::write(tree.join("empty/new"), "").unwrap()),
        ("empty/pipe", |tree| {
            nix::unistd::mkfifo(&tree.join("empty/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("empty", |tree| {
            fs::write(tree.join("empty/new"), "").unwrap();
            fs::remove_file(tree.join("empty/new")).unwrap();
        }),
    ];
    for (place, (wanted, change)) in cases.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, root) = (directory.path().join("tree"), directory.path().join("root"));
        for made in [&tree.join("lib"), &tree.join("empty"), &root] {
            fs::create_dir_all(made).unwrap();
        }
        fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(tree.join("lib/a"), "a as released").unwrap();
        std::os::unix::fs::symlink("a", tree.join("lib/now")).unwrap();
        let run = |words: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_cutover")).arg("--root").arg(&root).args(words).output().unwrap()
        };
        let archive = directory.path().join("app-1.tar.zst");
        let (archive, packed) = (archive.to_str().unwrap(), tree.to_str().unwrap());
        let packed = run(&["-q", "pack", packed, "--product", "app", "--version", "1", "-o", archive]);
        assert!(packed.status.success(), "{packed:?}");
        let updated = run(&["update", "--allow-unsigned", archive]);
        assert!(updated.status.success(), "{updated:?}");
        change(&root.join("releases/1"));
        let verified = run(&["verify"]);
        let told = text(&verified.stderr);
        assert_eq!(verified.status.code(), Some(12), "{place}: {told}");
        assert!(told.contains(&format!(": `{wanted}` differs from")), "{place}: {told}");
    }
}
