//! Data as they are on real machines: links on the way, what cannot be copied, what comes back.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::filesystems::Mounted;
use crate::node::{Health, TestNode, needs_root, text};

/// A mount that ends with the test.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(words: &[&str], at: &Path) -> Option<Self> {
        if !at.exists() {
            fs::create_dir_all(at).unwrap();
        }
        let mounted = Command::new("mount").args(words).arg(at).status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED a part of a test: may not mount here");
        }
        mounted.then(|| Self(at.to_owned()))
    }

    /// One that is there.
    pub fn at(at: &Path) -> Self {
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

pub fn is_mount(path: &Path) -> bool {
    Command::new("mountpoint").arg("-q").arg(path).status().unwrap().success()
}

/// The same node with more in its `[[data]]` table.
pub fn with_data(node: TestNode, more: &str) -> TestNode {
    let config = fs::read_to_string(node.config()).unwrap();
    let table = "on_rollback = 'restore'\n";
    fs::write(node.config(), config.replace(table, &format!("{table}{more}\n"))).unwrap();
    node
}

pub fn error_of(node: &TestNode, words: &[&str]) -> (i32, String) {
    let output = node.run(words);
    (output.status.code().unwrap(), text(&output.stderr))
}

/// Asserts that everybody who could begin something refuses with this code, and names the path.
pub fn assert_refused(node: &TestNode, code: i32, named: &str) {
    let archive = node.archive(2);
    let archive = archive.to_str().unwrap();
    for words in [
        &["config", "check"][..],
        &["update", archive, "--allow-unsigned", "--dry-run"],
        &["update", archive, "--allow-unsigned"],
    ] {
        let (found, error) = error_of(node, words);
        assert_eq!(found, code, "{words:?}: {error}");
        assert!(error.contains(named) && error.contains("hint: "), "{words:?}: {error}");
    }
    assert_eq!(node.active().as_deref(), Some("1"));
    assert!(!node.has_journal());
}

/// Aside sets, as `data list` has them.
pub fn aside(node: &TestNode) -> Vec<String> {
    let listed: serde_json::Value =
        serde_json::from_slice(&node.run(&["--json", "data", "list"]).stdout).unwrap();
    listed["aside"].as_array().unwrap().iter().map(|set| set["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn plain_directories_and_files_can_be_left_in_place() {
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Sick]);
    let node = with_data(node, "leave = ['cache', 'a/b/log', 'absent']");
    let data = node.data();
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::create_dir(data.join("cache")).unwrap();
    for name in ["cache/x", "a/b/log", "a/b/c", "a/d"] {
        fs::write(data.join(name), "old").unwrap();
    }
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    let names = ["records", "cache/x", "a/b/log", "a/b/c", "a/d", "new"];
    for name in names {
        fs::write(data.join(name), "new").unwrap();
    }
    assert_eq!(node.code(&["rollback"]), 0);
    let read = |name: &str| fs::read_to_string(data.join(name)).unwrap_or_default();
    let now: Vec<_> = names.iter().map(|name| read(name)).collect();
    assert_eq!(now, ["old", "new", "new", "old", "old", ""]);
}

#[test]
fn the_place_counts_and_not_how_it_is_written() {
    if !needs_root("the_place_counts_and_not_how_it_is_written") {
        return;
    }
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "none"], &node.path("volume/data")) else { return };
    symlink("volume", node.path("link")).unwrap();
    let original = fs::read_to_string(node.config()).unwrap();
    let data = node.data().to_str().unwrap().to_owned();
    let written = [
        (node.path("link/data"), "mount point"),
        (node.path("volume//data/"), "mount point"),
        (node.path("volume/./data"), "mount point"),
    ];
    for (path, named) in written {
        fs::write(node.config(), original.replace(&data, path.to_str().unwrap())).unwrap();
        assert_refused(&node, 2, named);
    }
    for (link, to) in [("releases", "root/releases/1"), ("kept", "root/.cutover"), ("around", "root/..")] {
        symlink(to, node.path(link)).unwrap();
        let (path, named) = (node.path(link).join("bin"), "beside releases");
        let path = if link == "around" { node.path("around/root") } else { path };
        fs::write(node.config(), original.replace(&data, path.to_str().unwrap())).unwrap();
        assert_refused(&node, 2, named);
    }
    // A name that no rename takes.
    fs::write(node.config(), original.replace(&data, &format!("{data}/./"))).unwrap();
    let copy = node.copy();
    assert_eq!((copy.update(2), copy.code(&["rollback"])), (0, 0));
    // The same device, but another mount: a rename would not work.
    fs::create_dir(node.path("bound")).unwrap();
    let Some(_bind) = Mount::new(&["--bind", node.root().to_str().unwrap()], &node.path("bound")) else {
        return;
    };
    fs::write(node.config(), original.replace(&data, node.path("bound/data").to_str().unwrap())).unwrap();
    assert_eq!(node.update(2), 0);
    fs::write(node.data().join("records"), "new").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    assert_eq!(fs::read_to_string(node.data().join("records")).unwrap(), "old");
}

/// As systemd makes one for `StateDirectory=` with `DynamicUser=`.
#[test]
fn a_link_to_data_is_refused_with_the_place_that_it_leads_to() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    let place = node.root().join("private/app");
    fs::create_dir(node.root().join("private")).unwrap();
    fs::rename(node.data(), &place).unwrap();
    symlink("private/app", node.data()).unwrap();
    assert_refused(&node, 2, "private/app");
    let data = node.data().to_str().unwrap().to_owned();
    node.set(&data, place.to_str().unwrap());
    assert_eq!(node.update(2), 0);
}

#[test]
fn data_are_in_no_other_data() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!(node.update(1), 0);
    fs::create_dir(node.data().join("inner")).unwrap();
    symlink("data/inner", node.root().join("link")).unwrap();
    symlink("data", node.root().join("way")).unwrap();
    let original = fs::read_to_string(node.config()).unwrap();
    for inner in ["data/inner", "way/inner", "way/inner/absent", "data"] {
        let path = node.root().join(inner);
        let table = format!("[[data]]\npath = '{}'\non_rollback = 'keep'\n", path.display());
        fs::write(node.config(), format!("{original}{table}")).unwrap();
        assert_refused(&node, 2, inner);
    }
    let table = format!("[[data]]\npath = '{}'\non_rollback = 'keep'\n", node.data().join("inner").display());
    fs::write(node.config(), format!("{original}leave = ['inner']\n{table}")).unwrap();
    assert_eq!(node.update(2), 0);
}

#[test]
fn what_cannot_be_copied_is_found_before_anything_stops() {
    let root = needs_root("the device of what_cannot_be_copied_is_found_before_anything_stops");
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let calls = node.path("calls");
    let config = fs::read_to_string(node.config()).unwrap();
    let service = format!(
        "{config}[service]\ncommand = {{ start = 'echo start >>{0}', stop = 'echo stop >>{0}' }}\n",
        calls.display()
    );
    fs::write(node.config(), service).unwrap();
    assert_eq!(node.update(1), 0);
    fs::write(&calls, "").unwrap();
    let deep = (0..210).map(|_| "d").collect::<Vec<_>>().join("/");
    fs::create_dir_all(node.data().join(deep)).unwrap();
    assert_refused(&node, 2, "200 deep");
    fs::remove_dir_all(node.data().join("d")).unwrap();
    if root {
        let device = node.data().join("device");
        assert!(Command::new("mknod").arg(&device).args(["c", "0", "0"]).status().unwrap().success());
        assert_refused(&node, 2, "device");
        fs::remove_file(device).unwrap();
    }
    assert_eq!(fs::read_to_string(&calls).unwrap(), "", "the service was touched");
    assert_eq!(node.update(2), 0);
}

#[test]
fn swap_space_in_the_data_is_found_before_anything_stops() {
    for kind in ["xfs", "btrfs"] {
        let Some(mounted) = Mounted::new("swap_space_in_the_data_is_found_before_anything_stops", kind)
        else {
            return;
        };
        let root = mounted.path().join("root");
        fs::create_dir(&root).unwrap();
        let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
        assert_eq!(node.update(1), 0);
        let swap = node.data().join("swap file");
        let script = "touch \"$0\"; chattr +C \"$0\" 2>/dev/null; chmod 600 \"$0\"; \
                      head -c 2M /dev/zero >>\"$0\"; mkswap -q \"$0\" && swapon \"$0\"";
        if !Command::new("sh").args(["-c", script]).arg(&swap).status().unwrap().success() {
            eprintln!(
                "SKIPPED swap_space_in_the_data_is_found_before_anything_stops: no swap in {kind} here"
            );
            continue;
        }
        let refused = std::panic::catch_unwind(|| assert_refused(&node, 2, "swap file"));
        assert!(Command::new("swapoff").arg(&swap).status().unwrap().success());
        refused.unwrap();
        assert_eq!(node.update(2), 0);
    }
}

#[test]
fn data_that_do_not_fit_end_with_16_before_anything_stops() {
    let Some(mounted) = Mounted::new("data_that_do_not_fit_end_with_16_before_anything_stops", "ext4") else {
        return;
    };
    let root = mounted.path().join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}[store]\nreserve = '8MiB'\n")).unwrap();
    assert_eq!(node.update(1), 0);
    let half = vec![7; 110 << 20];
    fs::write(node.data().join("core"), &half).unwrap();
    fs::write(node.data().join("core2"), &half).unwrap();
    let (code, error) = error_of(&node, &["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
    assert_eq!(code, 16, "{error}");
    // A hole costs nothing, and a further name neither.
    fs::remove_file(node.data().join("core2")).unwrap();
    fs::hard_link(node.data().join("core"), node.data().join("again")).unwrap();
    fs::File::create(node.data().join("hole")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(node.update(2), 0);
    fs::write(node.data().join("records"), "new").unwrap();
    assert_eq!(node.code(&["rollback"]), 0);
    let inode = |name: &str| fs::metadata(node.data().join(name)).unwrap().ino();
    assert_eq!(inode("core"), inode("again"));
}

#[test]
fn flags_and_access_lists_come_back_with_the_data() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let Some(mounted) = Mounted::new("flags_and_access_lists_come_back_with_the_data", kind) else {
            return;
        };
        let root = mounted.path().join("root");
        fs::create_dir(&root).unwrap();
        let node = TestNode::new(&[Health::Good, Health::Good]).with_root(&root);
        let run = |program: &str, words: &[&str], path: &Path| {
            Command::new(program).args(words).arg(path).status().is_ok_and(|status| status.success())
        };
        let data = node.data();
        for name in ["fixed", "grows", "plain"] {
            fs::write(data.join(name), "old").unwrap();
        }
        fs::write(data.join("twice"), "old").unwrap();
        fs::hard_link(data.join("twice"), data.join("two")).unwrap();
        if kind == "btrfs" {
            fs::write(data.join("nocow"), "").unwrap();
            assert!(run("chattr", &["+C"], &data.join("nocow")));
            fs::write(data.join("nocow"), vec![1; 1 << 20]).unwrap();
        }
        for (flag, name) in [("+i", "fixed"), ("+a", "grows"), ("+i", "twice")] {
            assert!(run("chattr", &[flag], &data.join(name)), "{kind} {name}");
        }
        // A list of the root's, which the data do not have.
        let has_lists = run("setfacl", &["-d", "-m", "u:33:rwx"], &root.join(".cutover"))
            || run("setfacl", &["-d", "-m", "u:33:rwx"], &root);
        assert_eq!((node.update(1), node.update(2)), (0, 0));
        fs::write(data.join("records"), "new").unwrap();
        assert_eq!(node.code(&["rollback"]), 0);
        assert_eq!(fs::read_to_string(data.join("records")).unwrap(), "old");
        let flags = |name: &str| {
            let listed = Command::new("lsattr").arg(data.join(name)).output().unwrap();
            text(&listed.stdout).split(' ').next().unwrap().to_owned()
        };
        assert!(
            flags("fixed").contains('i') && flags("grows").contains('a') && flags("two").contains('i'),
            "{kind}"
        );
        assert!(!flags("plain").contains('i'));
        if kind == "btrfs" {
            assert!(flags("nocow").contains('C'));
        }
        if has_lists {
            let names: Vec<_> = xattr::list(data.join("plain")).unwrap().collect();
            assert!(names.iter().all(|name| !name.to_str().unwrap().contains("acl")), "{kind}: {names:?}");
        }
        for id in aside(&node) {
            assert_eq!(node.code(&["data", "drop", &id]), 0, "{kind}");
        }
        for name in ["fixed", "grows", "twice"] {
            assert!(run("chattr", &["-i", "-a"], &data.join(name)));
        }
    }
}

#[test]
fn what_somebody_removed_by_hand_is_no_longer_set_aside() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    assert_eq!((node.update(1), node.update(2)), (0, 0));
    assert_eq!(node.code(&["rollback", "--data", "restore"]), 0);
    let places = || {
        let status: serde_json::Value =
            serde_json::from_slice(&node.run(&["status", "--json"]).stdout).unwrap();
        status["data"]["aside"].as_array().unwrap().len()
    };
    assert_eq!((aside(&node).len(), places()), (1, 1));
    let id = aside(&node).remove(0);
    let kept = node.root().join(".cutover/aside").join(id);
    for copy in fs::read_dir(kept).unwrap() {
        fs::remove_dir_all(copy.unwrap().path()).unwrap();
    }
    assert_eq!((aside(&node).len(), places()), (0, 0), "its list alone is nothing that is set aside");
}

#[test]
fn data_that_change_while_they_are_copied_are_no_snapshot() {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), format!("{config}[service]\naction = 'none'\n")).unwrap();
    assert_eq!(node.update(1), 0);
    for number in 0..200 {
        fs::write(node.data().join(number.to_string()), vec![0; 4096]).unwrap();
    }
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (code, error) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u64;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                fs::write(node.data().join("records"), round.to_string()).unwrap();
            }
        });
        let ended = error_of(&node, &["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"]);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        ended
    });
    assert_ne!(code, 0, "{error}");
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.update(2), 0, "nothing speaks against the release itself");
}
