//! Staging on real file systems in loop devices: ext4, xfs with reflinks, btrfs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use cutover::release::index::{Base, Installed, Method, StageOrder, Staged, stage};
use cutover::release::pack::Packed;
use cutover::release::scan;
use cutover::store::{self, Kept, Layout, Sealed, Store};
use cutover::sys::disk::{Change, Disk};
use cutover::sys::kernel::btrfs;
use cutover::types::progress::Silent;
use cutover::types::{Digest, ReleaseId, Spans, Version};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::pack::{make_tree, packed};
use crate::staging::{assert_same, grow, limits, open, portrait, tree};

/// A file system in a file, mounted.
pub struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// A small one. `None`, said out loud, where that cannot be done.
    pub fn new(test: &str, kind: &'static str) -> Option<Self> {
        Self::sized(test, kind, 400)
    }

    /// One of so many MiB, of which the machine's disk gives only what is used.
    pub fn sized(test: &str, kind: &'static str, mib: u64) -> Option<Self> {
        if !crate::node::needs_root(test) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (image, place) = (directory.path().join("image"), directory.path().join("place"));
        fs::create_dir(&place).unwrap();
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let run = |program: &str, arguments: &[&str], path: &Path| {
            let mut command = Command::new(program);
            command.args(arguments).arg(path).output().is_ok_and(|output| output.status.success())
        };
        let arguments: &[&str] = match kind {
            // As old ones are: whole seconds, until 2038.
            "ext3" => &["-q", "-F", "-I", "128"],
            "ext4" => &["-q", "-F"],
            "xfs" => &["-q", "-f", "-m", "reflink=1"],
            _ => &["-q", "-f"],
        };
        let is_mounted = run(&format!("mkfs.{kind}"), arguments, &image)
            && run("mount", &["-o", "loop", image.to_str().unwrap()], &place);
        if !is_mounted {
            eprintln!("SKIPPED {test}: needs {kind} in a loop device");
            return None;
        }
        Some(Self { directory })
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("place")
    }

    /// Takes it away; what lies below its mount point shows.
    pub fn unmount(&self) {
        assert!(Command::new("umount").arg(self.path()).status().unwrap().success());
    }

    /// Brings it back.
    pub fn mount(&self) {
        let image = self.directory.path().join("image");
        let mounted = Command::new("mount").args(["-o", "loop"]).args([image, self.path()]).status();
        assert!(mounted.unwrap().success());
    }

    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(Command::new("mount").args(["-o", &option]).arg(self.path()).status().unwrap().success());
    }

    /// Writes back all that waits for it.
    pub fn sync(&self) {
        assert!(Command::new("sync").arg("-f").arg(self.path()).status().unwrap().success());
    }

    /// What a power cut does: all that was not written to the device by now is gone. Every file system is then mounted
    /// from what the device holds, and may replay its log.
    pub fn cut_power(&self) {
        let (image, held) = (self.directory.path().join("image"), self.directory.path().join("held"));
        let run = |words: &[&std::ffi::OsStr]| {
            let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        };
        run(&["cp".as_ref(), "--sparse=always".as_ref(), image.as_ref(), held.as_ref()]);
        run(&["umount".as_ref(), self.path().as_ref()]);
        fs::rename(&held, &image).unwrap();
        run(&["mount".as_ref(), "-o".as_ref(), "loop".as_ref(), image.as_ref(), self.path().as_ref()]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

/// Each file system with each method that works there, as settings name it.
pub const METHODS: [(&str, &str); 8] = [
    ("ext4", "hardlink"),
    ("ext4", "copy"),
    ("xfs", "hardlink"),
    ("xfs", "reflink"),
    ("xfs", "copy"),
    ("btrfs", "btrfs"),
    ("btrfs", "reflink"),
    ("btrfs", "copy"),
];

/// A store on a mounted file system.
struct Node {
    store: Store,
}

impl Node {
    fn new(root: &Path) -> Self {
        fs::create_dir(root).unwrap();
        let store = Store::open(Layout::new(root), Disk::default()).unwrap();
        store.prepare().unwrap();
        Self { store }
    }

    fn base(&self, version: &Version) -> Base {
        let installed = Installed::open(&self.store.layout.index(version)).unwrap();
        Base { tree: self.store.tree(version).unwrap(), installed }
    }

    /// Stages and publishes an archive as the store does it; on btrfs as a copy of the base, if wanted.
    fn install(
        &self,
        version: &str,
        archive: &Path,
        packed: &Packed,
        base: Option<(&str, Method)>,
    ) -> Staged {
        let version: Version = version.parse().unwrap();
        let method = base.map_or(Method::Copy, |(_, method)| method);
        let on = base.map(|(version, _)| version.parse::<Version>().unwrap());
        let copy = match (&on, method) {
            (Some(on), Method::Btrfs) => {
                Some(self.store.stage_on(&version, on, store::Method::Auto).unwrap().expect("a snapshot"))
            }
            _ => None,
        };
        let staging = copy.unwrap_or_else(|| self.store.stage(&version, store::Method::Auto).unwrap());
        let base = on.map(|on| self.base(&on));
        let limits = limits();
        let order = StageOrder {
            into: &staging.path,
            method,
            base: base.as_ref(),
            limits: &limits,
            parts: None,
            record: &staging.index,
            is_suspect: false,
            spans: &Spans::default(),
            threads: 2,
        };
        let staged = stage(&open(archive), &order, &Disk::default(), &Silent).unwrap();
        let release = ReleaseId { version, digest: packed.sha256 };
        let (entries, bytes) = (staged.entries, staged.bytes);
        let sealed = Sealed { entries, bytes, ..sealed(release, staged.tree) };
        self.store.publish(staging, &sealed).unwrap();
        staged
    }

    fn tree(&self, version: &str) -> PathBuf {
        self.store.tree(&version.parse().unwrap()).unwrap()
    }

    fn digest(&self, version: &str) -> Digest {
        scan::digest(&self.tree(version)).unwrap()
    }
}

/// What is kept of an unsigned release.
fn sealed(release: ReleaseId, tree: Digest) -> Sealed {
    Sealed {
        release,
        product: None,
        serial: None,
        tree,
        entries: 0,
        bytes: 0,
        staged: jiff::Timestamp::UNIX_EPOCH,
        signers: Vec::new(),
        keys: Vec::new(),
        allowed: Vec::new(),
        data_read: Vec::new(),
        data_write: None,
        links: Vec::new(),
        replaced: Vec::new(),
    }
}

fn methods(kind: &str) -> &'static [Method] {
    match kind {
        "btrfs" => &[Method::Btrfs, Method::Reflink, Method::Copy],
        "xfs" => &[Method::Hardlink, Method::Reflink],
        _ => &[Method::Hardlink, Method::Copy],
    }
}

#[test]
fn any_release_is_staged_on_any_other_on_each_file_system() {
    const TEST: &str = "any_release_is_staged_on_any_other_on_each_file_system";
    for kind in ["ext4", "xfs", "btrfs"] {
        // Every node keeps a reserve of its own there.
        let Some(mounted) = Mounted::sized(TEST, kind, 4000) else { continue };
        let mut runner = TestRunner::deterministic();
        for case in 0..8 {
            let place = mounted.path().join(format!("case-{case}"));
            fs::create_dir(&place).unwrap();
            let mut archive = |name: &str, base: Option<&Path>| {
                let things = tree().new_tree(&mut runner).unwrap().current();
                grow(&place.join(name), &things);
                let archive = place.join(format!("{name}.tar.zst"));
                let packed = packed(&place.join(name), &archive, base);
                (archive, packed)
            };
            let (old, old_packed) = archive("old", None);
            let (new, new_packed) = archive("new", Some(&old));
            for method in methods(kind) {
                let node = Node::new(&place.join(format!("{method:?}")));
                node.install("1", &old, &old_packed, None);
                let before = portrait(&node.tree("1"));
                let staged = node.install("2", &new, &new_packed, Some(("1", *method)));
                let what = format!("{kind} {method:?} case {case}");
                assert_eq!(staged.tree, new_packed.tree, "{what}");
                if node.digest("2") != new_packed.tree {
                    let wanted = place.join("wanted");
                    crate::staging::staged(&new, &wanted, Method::Copy, None).unwrap();
                    assert_same(&wanted, &node.tree("2"), &what);
                }
                assert_eq!(portrait(&node.tree("1")), before, "{what} changed the old tree");
                let third = node.install("3", &old, &old_packed, Some(("2", *method)));
                assert_eq!(node.digest("3"), third.tree, "{what}: back again");
            }
        }
    }
}

/// What belongs to a tree needs no syncs of its own: one of the file system makes all of it durable, before it is shown.
#[test]
fn a_tree_that_is_shown_is_durable_with_all_that_is_kept_of_it_after_few_syncs() {
    const TEST: &str = "a_tree_that_is_shown_is_durable_with_all_that_is_kept_of_it_after_few_syncs";
    let version: Version = "1".parse().unwrap();
    let cases = [("ext4", "auto", 4), ("xfs", "auto", 4), ("btrfs", "auto", 3), ("btrfs", "reflink", 4)];
    for (kind, method, syncs) in cases {
        let Some(mounted) = Mounted::new(TEST, kind) else { continue };
        let method = if method == "auto" { store::Method::Auto } else { store::Method::Reflink };
        let root = mounted.path().join("root");
        fs::create_dir(&root).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        let disk = Disk::with_probe(Arc::new(move |change: Change<'_>| {
            told.lock().unwrap().push(change.action);
            Ok(())
        }));
        let store = Store::open(Layout::new(&root), disk).unwrap();
        store.prepare().unwrap();
        mounted.sync();
        asked.lock().unwrap().clear();
        let staging = store.stage(&version, method).unwrap();
        fs::write(staging.path.join("file"), "content").unwrap();
        fs::write(&staging.index, "index").unwrap();
        let sealed =
            sealed(ReleaseId { version: version.clone(), digest: Digest::of(b"1") }, Digest::of(b"tree"));
        store.publish(staging, &sealed).unwrap();
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.iter().filter(|what| what.starts_with("sync")).count(), syncs, "{kind}: {asked:?}");
        let spans = store.spans().unwrap();
        mounted.cut_power();
        assert_eq!(
            fs::read_to_string(store.tree(&version).unwrap().join("file")).unwrap(),
            "content",
            "{kind}"
        );
        assert_eq!(fs::read_to_string(store.layout.index(&version)).unwrap(), "index", "{kind}");
        assert_eq!(store.sealed(&version).unwrap(), Kept::Whole(sealed), "{kind}");
        assert_eq!(store.spans().unwrap(), spans, "{kind}");
        assert_ne!(spans, Spans::default(), "{kind}");
    }
}

#[test]
fn on_btrfs_an_update_costs_what_changed() {
    let Some(mounted) = Mounted::new("on_btrfs_an_update_costs_what_changed", "btrfs") else { return };
    let place = mounted.path();
    let tree = place.join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let (old, new) = (place.join("a.tar.zst"), place.join("b.tar.zst"));
    let old_packed = packed(&tree, &old, None);
    fs::write(tree.join("lib/3/10.js"), "changed").unwrap();
    fs::remove_dir_all(tree.join("lib/1")).unwrap();
    fs::write(tree.join("lib/1"), "no directory any more").unwrap();
    fs::create_dir(tree.join("empty2")).unwrap();
    let new_packed = packed(&tree, &new, Some(&old));
    let node = Node::new(&place.join("root"));
    node.install("1", &old, &old_packed, None);
    assert!(btrfs::is_pristine_snapshot(&node.tree("1")).unwrap());
    let staged = node.install("2", &new, &new_packed, Some(("1", Method::Btrfs)));
    assert_eq!(node.digest("2"), new_packed.tree);
    assert!(staged.fetched < 60_000, "{}", staged.fetched);
    let inode = |version: &str| fs::metadata(node.tree(version).join("share/big")).unwrap().ino();
    assert_eq!(inode("1"), inode("2"), "an unchanged file is not made again");
    assert!(fs::write(node.tree("2").join("x"), "x").is_err(), "a published tree is read-only");
    node.store.remove(&"1".parse().unwrap()).unwrap();
    assert!(node.store.tree(&"1".parse().unwrap()).is_err());
    assert_eq!(node.digest("2"), new_packed.tree);
}

#[test]
fn a_snapshot_that_somebody_wrote_to_is_no_base_to_copy() {
    let test = "a_snapshot_that_somebody_wrote_to_is_no_base_to_copy";
    let Some(mounted) = Mounted::new(test, "btrfs") else { return };
    let place = mounted.path();
    let tree = place.join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let archive = place.join("a.tar.zst");
    let packed = packed(&tree, &archive, None);
    let node = Node::new(&place.join("root"));
    node.install("1", &archive, &packed, None);
    let path = node.tree("1");
    btrfs::set_read_only(&path, false).unwrap();
    assert!(!btrfs::is_pristine_snapshot(&path).unwrap());
    fs::write(path.join("empty"), "").unwrap();
    btrfs::set_read_only(&path, true).unwrap();
    nix::unistd::sync();
    assert!(!btrfs::is_pristine_snapshot(&path).unwrap());
    let (one, two) = ("1".parse().unwrap(), "2".parse().unwrap());
    assert!(node.store.stage_on(&two, &one, store::Method::Auto).unwrap().is_none());
}

/// What an old file system makes of times is what the release is there: no damage, and no reason to fetch anew.
#[test]
fn times_that_a_file_system_does_not_have_are_no_damage() {
    let Some(mounted) = Mounted::new("times_that_a_file_system_does_not_have_are_no_damage", "ext3") else {
        return;
    };
    let place = mounted.path();
    let run = |command: &str| {
        let output = Command::new("sh")
            .args(["-ec", command])
            .env("cutover", env!("CARGO_BIN_EXE_cutover"))
            .current_dir(&place)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command}: {said}");
        said
    };
    // Elsewhere, where times are whole: what is packed has them.
    let source = tempfile::tempdir().unwrap();
    let source = source.path().display();
    run(&format!(
        "mkdir -p {source}/in/d root; cd {source}; echo a > in/a; echo b > in/d/b; ln -s a in/l
         touch -d 2021-01-01T00:00:00.123456789 in/a; touch -hd 2021-01-01T00:00:00.5 in/l; touch -d 2050-01-01 in/d/b
         touch -d 2021-01-01T00:00:00.25 in/d
         for v in 1 2; do echo $v > in/v; $cutover -q pack in --product app --version $v -o app-$v.tar.zst; done
         tar --format=posix -C in -cf app-3.tar ."
    ));
    for archive in ["app-1.tar.zst", "app-2.tar.zst", "app-3.tar"] {
        run(&format!(
            "$cutover --root root update --allow-unsigned {source}/{archive}; $cutover --root root verify"
        ));
    }
    run("$cutover --root root rollback; $cutover --root root verify");
    let checked = run("$cutover --root root unhold; $cutover --root root rollback --check");
    assert!(!checked.contains("written to"), "{checked}");
    let inodes = |path: &str| {
        ["1", "2"]
            .map(|version| fs::metadata(place.join(format!("root/releases/{version}/{path}"))).unwrap().ino())
    };
    let [one, two] = inodes("a");
    assert_eq!(one, two, "what did not change was linked");
}
