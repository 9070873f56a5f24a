//! Whose the files of a release are on a node, and that nobody else gets rights to them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use crate::filesystems::Mounted;
use crate::node::{needs_root, text};

fn cutover(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cutover")).args(words).output().unwrap()
}

fn pack(tree: &Path, version: &str, more: &[&str]) -> Output {
    let archive = tree.parent().unwrap().join(format!("app-{version}.tar.zst"));
    let mut words =
        vec!["-q", "pack", tree.to_str().unwrap(), "--product", "app", "--version", version, "-o"];
    words.push(archive.to_str().unwrap());
    words.extend(more);
    cutover(&words)
}

/// Installs what was packed as this version below `root`.
fn install(place: &Path, root: &Path, version: &str) -> Output {
    let archive = place.join(format!("app-{version}.tar.zst"));
    cutover(&["--root", root.to_str().unwrap(), "update", "--allow-unsigned", archive.to_str().unwrap()])
}

#[test]
fn whoever_packs_the_code_is_roots_unless_told_otherwise() {
    if !needs_root("whoever_packs_the_code_is_roots_unless_told_otherwise") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (tree, root) = (place.path().join("tree"), place.path().join("root"));
    fs::create_dir_all(tree.join("lib")).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(tree.join("lib/code"), "code").unwrap();
    for path in [tree.join("lib/code"), tree.join("lib")] {
        chown(path, Some(1001), Some(1002)).unwrap();
    }
    for (version, more, owner) in [
        ("1", &[][..], (0, 0)),
        ("2", &["--owner", "33:34"][..], (33, 34)),
        ("3", &["--keep-owner"][..], (1001, 1002)),
    ] {
        assert!(pack(&tree, version, more).status.success());
        assert!(install(place.path(), &root, version).status.success());
        for name in ["lib", "lib/code"] {
            let found = fs::metadata(root.join("current").join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), owner, "{version} {name}");
        }
    }
    assert_eq!(pack(&tree, "4", &["--owner", "www-data"]).status.code(), Some(2));
    fs::set_permissions(tree.join("lib/code"), fs::Permissions::from_mode(0o4755)).unwrap();
    let refused = pack(&tree, "4", &[]);
    assert!(text(&refused.stderr).contains("--keep-owner"), "{refused:?}");
    assert!(pack(&tree, "4", &["--keep-owner"]).status.success());
}

#[test]
fn access_lists_are_neither_packed_nor_inherited() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let Some(mounted) = Mounted::new("access_lists_are_neither_packed_nor_inherited", kind) else {
            return;
        };
        let place = mounted.path();
        let (tree, root) = (place.join("tree"), place.join("root"));
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(tree.join("code"), "code").unwrap();
        fs::set_permissions(tree.join("code"), fs::Permissions::from_mode(0o664)).unwrap();
        let list = |words: &[&str], path: &Path| {
            Command::new("setfacl").args(words).arg(path).status().is_ok_and(|status| status.success())
        };
        if !list(&["-m", "u:33:rwx"], &tree.join("code")) {
            eprintln!("SKIPPED access_lists_are_neither_packed_nor_inherited: needs setfacl");
            return;
        }
        let refused = pack(&tree, "1", &[]);
        assert!(text(&refused.stderr).contains("setfacl"), "{kind}: {refused:?}");
        assert!(list(&["-b"], &tree.join("code")));
        assert!(list(&["-d", "-m", "u:33:rwx"], &root));
        assert!(pack(&tree, "1", &[]).status.success());
        assert!(install(&place, &root, "1").status.success());
        let code = root.join("releases/1/code");
        let names: Vec<_> = xattr::list(&code).unwrap().collect();
        assert!(names.iter().all(|name| !name.to_str().unwrap().contains("acl")), "{kind}: {names:?}");

        // One that somebody adds is seen.
        let verify = || cutover(&["--root", root.to_str().unwrap(), "verify", "1"]).status.code();
        assert_eq!(verify(), Some(0), "{kind}");
        if list(&["-m", "u:33:rw"], &code) {
            assert_eq!(verify(), Some(12), "{kind}");
        } else {
            assert_eq!(kind, "btrfs", "its trees are read-only");
        }
    }
}

#[test]
fn nobody_else_may_put_another_root_in_place() {
    if !needs_root("nobody_else_may_put_another_root_in_place") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (parent, root) = (place.path().join("parent"), place.path().join("parent/root"));
    fs::create_dir_all(&root).unwrap();
    let config = place.path().join("app.toml");
    fs::write(&config, format!("root = '{}'\n", root.display())).unwrap();
    let check = || cutover(&["--config", config.to_str().unwrap(), "config", "check"]);
    assert!(check().status.success());
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = check();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("/parent"), "{refused:?}");
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(check().status.success(), "what is in a sticky directory is its owner's");
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&parent, Some(1001), None).unwrap();
    assert_eq!(check().status.code(), Some(2));
}

fn link(target: &Path, at: &str, place: &Path, root: &Path) -> std::path::PathBuf {
    let config = place.join("app.toml");
    let text = format!(
        "root = '{}'\n[archive]\nallow_setid = true\n[links]\n'{at}' = '{}'\n",
        root.display(),
        target.display()
    );
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn a_configured_link_takes_the_place_of_what_the_release_has() {
    for kind in ["", "btrfs"] {
        let mounted = if kind.is_empty() {
            None
        } else {
            let Some(mounted) =
                Mounted::new("a_configured_link_takes_the_place_of_what_the_release_has", kind)
            else {
                return;
            };
            Some(mounted)
        };
        let here = tempfile::tempdir().unwrap();
        let place = mounted.as_ref().map_or_else(|| here.path().to_owned(), Mounted::path);
        let (tree, root, shared) = (place.join("tree"), place.join("root"), place.join("shared"));
        for path in [&root, &shared, &tree.join("uploads"), &tree.join("full"), &tree.join("real")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(tree.join("uploads/.gitkeep"), "").unwrap();
        fs::write(tree.join("config.yml"), "an example").unwrap();
        fs::write(tree.join("full/code"), "code").unwrap();
        std::os::unix::fs::symlink("real", tree.join("way")).unwrap();
        let mut version = 0;
        let mut update = |at: &str| {
            version += 1;
            fs::write(tree.join("v"), version.to_string()).unwrap();
            let name = version.to_string();
            assert!(pack(&tree, &name, &[]).status.success());
            let config = link(&shared, at, &place, &root);
            let archive = place.join(format!("app-{name}.tar.zst"));
            let words = ["--config", config.to_str().unwrap(), "update", "--allow-unsigned"];
            cutover(&[&words[..], &[archive.to_str().unwrap()]].concat())
        };
        for at in ["uploads", "uploads", "config.yml", "made/on/the/way", "uploads"] {
            let output = update(at);
            assert!(output.status.success(), "{kind} {at}: {output:?}");
            assert_eq!(fs::read_link(root.join("current").join(at)).unwrap(), shared, "{at}");
            let verified = cutover(&["--root", root.to_str().unwrap(), "verify"]);
            assert!(verified.status.success(), "{kind} {at}: {verified:?}");
        }
        assert_eq!(fs::read_to_string(root.join("current/config.yml")).unwrap(), "an example");
        assert!(!root.join("current/made").exists());
        for at in ["full", "way/uploads", "v/x"] {
            let output = update(at);
            assert_eq!(output.status.code(), Some(2), "{kind} {at}: {output:?}");
            assert!(text(&output.stderr).contains("`[links]`"), "{output:?}");
        }
        assert_eq!(fs::read_dir(tree.join("real")).unwrap().count(), 0);
    }
}

/// The root, and a release `1` of this tree, installed with a link at that place to `shared`.
fn installed_with_link(place: &Path, at: &str) -> (std::path::PathBuf, Output) {
    let (root, shared) = (place.join("root"), place.join("shared"));
    for path in [&root, &shared] {
        fs::create_dir_all(path).unwrap();
    }
    assert!(pack(&place.join("tree"), "1", &[]).status.success());
    let config = link(&shared, at, place, &root);
    let archive = place.join("app-1.tar.zst");
    let words = ["--config", config.to_str().unwrap(), "update", "--allow-unsigned"];
    let output = cutover(&[&words[..], &[archive.to_str().unwrap()]].concat());
    (root, output)
}

#[test]
fn directories_above_a_configured_link_are_made() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("tree/lib")).unwrap();
    let (root, output) = installed_with_link(place.path(), "made/on/the/way");
    assert!(output.status.success(), "{output:?}");
    let found = fs::read_link(root.join("current/made/on/the/way")).unwrap();
    assert_eq!(found, place.path().join("shared"));
}

#[test]
fn a_link_of_a_release_leads_no_configured_link_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let (tree, outside) = (place.path().join("tree"), place.path().join("outside"));
    for path in [&tree, &outside.join("in")] {
        fs::create_dir_all(path).unwrap();
    }
    std::os::unix::fs::symlink(&outside, tree.join("abs")).unwrap();
    for at in ["abs/in/up", "abs/up"] {
        let (_, output) = installed_with_link(place.path(), at);
        let names: Vec<_> = [&outside, &outside.join("in")]
            .iter()
            .flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()))
            .collect();
        assert_eq!(names, ["in"], "{at}: made outside of the tree: {output:?}");
        assert_eq!(output.status.code(), Some(2), "{at}: {output:?}");
        assert!(text(&output.stderr).contains("`[links]`"), "{at}: {output:?}");
    }
}

/// Every way in which links can take names of a file that has several: the first, a later one, all, one in a folder that
/// goes whole; with the other names before and after it.
#[test]
fn a_configured_link_takes_one_name_of_a_file_that_has_several() {
    const NAMES: [&str; 5] = ["a", "b", "d/.keep", "m", "z"];
    for (kind, method) in [("", "copy"), ("", "hardlink"), ("btrfs", "btrfs")] {
        let mounted = if kind.is_empty() {
            None
        } else {
            let name = "a_configured_link_takes_one_name_of_a_file_that_has_several";
            let Some(mounted) = Mounted::new(name, kind) else { return };
            Some(mounted)
        };
        let here = tempfile::tempdir().unwrap();
        let place = mounted.as_ref().map_or_else(|| here.path().to_owned(), Mounted::path);
        let (tree, root, shared) = (place.join("tree"), place.join("root"), place.join("shared"));
        for path in [&root, &shared, &tree.join("d")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(tree.join(NAMES[0]), "one file").unwrap();
        for name in &NAMES[1..] {
            fs::hard_link(tree.join(NAMES[0]), tree.join(name)).unwrap();
        }
        let all = [
            &["a"][..],
            &["m"],
            &["z"],
            &["d"],
            &["a", "b"],
            &["a", "d"],
            &["b", "z"],
            &["a", "b", "d", "m", "z"],
        ];
        for (number, links) in all.iter().flat_map(|links| [*links, &[]]).enumerate() {
            let case = format!("{method} {links:?}");
            fs::write(tree.join("v"), number.to_string()).unwrap();
            let version = number.to_string();
            assert!(pack(&tree, &version, &[]).status.success());
            let config = place.join("app.toml");
            let links_text: String =
                links.iter().map(|link| format!("{link} = '{}'\n", shared.display())).collect();
            let text =
                format!("root = '{}'\n[store]\nmethod = '{method}'\n[links]\n{links_text}", root.display());
            fs::write(&config, text).unwrap();
            let archive = place.join(format!("app-{version}.tar.zst"));
            let words = ["--config", config.to_str().unwrap(), "update", "--allow-unsigned"];
            let output = cutover(&[&words[..], &[archive.to_str().unwrap()]].concat());
            assert!(output.status.success(), "{case}: {output:?}");
            let verified = cutover(&["--root", root.to_str().unwrap(), "verify", &version]);
            assert!(verified.status.success(), "{case}: {verified:?}");
            let left =
                NAMES.iter().filter(|name| !links.iter().any(|link| Path::new(name).starts_with(link)));
            let inodes: std::collections::BTreeSet<u64> = left
                .map(|name| fs::symlink_metadata(root.join("current").join(name)).unwrap().ino())
                .collect();
            assert!(inodes.len() <= 1, "{case}: the names that are left are one file: {inodes:?}");
        }
    }
}

#[test]
fn a_file_that_a_link_replaced_is_not_told_as_touched() {
    let place = tempfile::tempdir().unwrap();
    let (tree, root) = (place.path().join("tree"), place.path().join("root"));
    fs::create_dir_all(tree.join("uploads")).unwrap();
    fs::create_dir(&root).unwrap();
    for (name, content) in
        [("config.yml", "an example"), ("uploads/.keep", "here"), ("uploads.txt", "theirs")]
    {
        fs::write(tree.join(name), content).unwrap();
    }
    assert!(pack(&tree, "1", &[]).status.success());
    let config = place.path().join("app.toml");
    let text_of = format!(
        "root = '{}'\n[store]\nmethod = 'copy'\n[links]\n'config.yml' = '/dev/null'\nuploads = '/srv/uploads'\n",
        root.display()
    );
    fs::write(&config, text_of).unwrap();
    let run = |words: &[&str]| cutover(&[&["--config", config.to_str().unwrap()], words].concat());
    let archive = place.path().join("app-1.tar.zst");
    let output = run(&["update", "--allow-unsigned", archive.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    fs::write(root.join("current/uploads.txt"), "changed").unwrap();
    let verified = run(&["verify", "1"]);
    assert_eq!(verified.status.code(), Some(12), "{verified:?}");
    assert!(text(&verified.stderr).contains(": `uploads.txt` differs from"), "{verified:?}");
}
