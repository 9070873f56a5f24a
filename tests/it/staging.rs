//! Trees staged from indexed archives, by every method, against the trees that were packed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover::release::archive::Limits;
use cutover::release::index::{
    self, Base, Index, Installed, Method, Parts, StageOrder, Staged, Trust, stage,
};
use cutover::release::scan;
use cutover::release::source::{LocalFile, Ranges};
use cutover::sys::disk::Disk;
use cutover::types::Spans;
use cutover::types::entry::Entry;
use cutover::types::progress::Silent;
use proptest::prelude::*;

use crate::pack::{make_tree, packed};

pub fn open(archive: &Path) -> Index<'static> {
    let file = LocalFile::new(fs::File::open(archive).unwrap(), archive).unwrap();
    Index::open(Arc::new(file), None).unwrap().unwrap()
}

pub fn limits() -> Limits {
    Limits { allow_setid: true, allow_capabilities: true, ..Limits::default() }
}

/// Stages an archive into `into`, which is made.
pub fn staged(
    archive: &Path,
    into: &Path,
    method: Method,
    base: Option<&Base>,
) -> Result<Staged, index::Error> {
    if !into.exists() {
        fs::create_dir(into).unwrap();
    }
    let record = record_of(into);
    let limits = limits();
    let order = StageOrder {
        into,
        method,
        base,
        limits: &limits,
        parts: None,
        record: &record,
        is_suspect: false,
        spans: &Spans::default(),
        threads: 2,
    };
    stage(&open(archive), &order, &Disk::default(), &Silent)
}

pub fn record_of(tree: &Path) -> PathBuf {
    tree.with_extension("index")
}

pub fn base(tree: &Path) -> Base {
    Base { tree: tree.to_owned(), installed: Installed::open(&record_of(tree)).unwrap() }
}

/// All entries of a tree.
pub fn entries(tree: &Path) -> Vec<Entry> {
    scan::walk(tree).unwrap().map(Result::unwrap).collect()
}

pub fn assert_same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (entries(one), entries(other));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other, "{what}: {}", String::from_utf8_lossy(&one.path));
    }
    assert_eq!(one.len(), other.len(), "{what}");
}

#[test]
fn a_first_install_gives_the_tree_that_was_packed() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("a.tar.zst"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let wanted = packed(&tree, &archive, None);
    let into = directory.path().join("into");
    let staged = staged(&archive, &into, Method::Hardlink, None).unwrap();
    assert_same(&tree, &into, "first install");
    assert_eq!(staged.tree, wanted.tree);
    assert_eq!(staged.tree, scan::digest(&into).unwrap());
    assert!(Installed::open(&record_of(&into)).is_some());
}

#[test]
fn an_archive_that_was_changed_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("a.tar.zst"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(tree.join("d")).unwrap();
    for name in ["d/a", "d/b", "c"] {
        fs::write(tree.join(name), name.repeat(500)).unwrap();
    }
    packed(&tree, &archive, None);
    let bytes = fs::read(&archive).unwrap();
    for at in (0..bytes.len()).step_by(7).chain(bytes.len() - 60..bytes.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let path = directory.path().join("changed");
        fs::write(&path, changed).unwrap();
        let into = directory.path().join(format!("into-{at}"));
        let file = LocalFile::new(fs::File::open(&path).unwrap(), &path).unwrap();
        // Without an index at all it does not have the one that is signed.
        let Ok(Some(index)) = Index::open(Arc::new(file), None) else { continue };
        let is_signed = index.digest() == open(&archive).digest();
        let result = staged(&path, &into, Method::Copy, None);
        assert!(!is_signed || result.is_err(), "byte {at}: {result:?}");
        drop(fs::remove_dir_all(&into));
    }
}

/// Something that a tree has at a path.
#[derive(Clone, Debug)]
pub enum Thing {
    File { content: u8, length: usize, mode: u32, time: i64 },
    Directory { mode: u32, time: i64 },
    Link { target: u8 },
    HardLink { to: u8 },
}

fn thing() -> impl Strategy<Value = Thing> {
    // Trees of ordinary users keep no setuid bits.
    let special = if nix::unistd::geteuid().is_root() { 0o4755 } else { 0o555 };
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o600), Just(special)];
    let time = prop_oneof![Just(1_700_000_000_i64), Just(1_600_000_000), Just(-5)];
    let length = prop_oneof![5 => 0..3000_usize, 1 => Just(1_500_000_usize)];
    prop_oneof![
        6 => (0..4_u8, length, mode, time.clone())
            .prop_map(|(content, length, mode, time)| Thing::File { content, length, mode, time }),
        3 => (prop_oneof![Just(0o755), Just(0o700)], time).prop_map(|(mode, time)| Thing::Directory { mode, time }),
        1 => any::<u8>().prop_map(|target| Thing::Link { target }),
        1 => any::<u8>().prop_map(|to| Thing::HardLink { to }),
    ]
}

/// Paths of few names, so that both trees of a pair have many in common.
fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("a-b"), Just("\u{e9} \n"), Just("c.js")];
    proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

pub fn tree() -> impl Strategy<Value = Vec<(String, Thing)>> {
    proptest::collection::vec((path(), thing()), 0..30)
}

/// Makes a tree; what cannot be there beside what was made before is left out.
pub fn grow(root: &Path, things: &[(String, Thing)]) {
    fs::create_dir(root).unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut directories = Vec::new();
    for (name, thing) in things {
        let path = root.join(name);
        let parent = path.parent().unwrap();
        if fs::symlink_metadata(&path).is_ok() || fs::create_dir_all(parent).is_err() {
            continue;
        }
        if !fs::canonicalize(parent).unwrap().starts_with(fs::canonicalize(root).unwrap())
            || parent.ancestors().any(|above| above.starts_with(root) && above.is_symlink())
        {
            continue;
        }
        match thing {
            Thing::File { content, length, mode, time } => {
                let bytes: Vec<u8> = (0..*length)
                    .map(|at| (at / 7) as u8 ^ content.wrapping_mul(37) ^ (at >> 9) as u8)
                    .collect();
                fs::write(&path, bytes).unwrap();
                if content % 2 == 1 {
                    drop(xattr::set(&path, "user.note", &[*content, 0, b'\n']));
                }
                fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
                set_time(&path, *time);
                files.push(path);
            }
            Thing::Directory { mode, time } => {
                fs::create_dir(&path).unwrap();
                directories.push((path, *mode, *time));
            }
            Thing::Link { target } => symlink(format!("../{target}"), &path).unwrap(),
            Thing::HardLink { to } => {
                if let Some(file) = files.get(usize::from(*to) % files.len().max(1)) {
                    fs::hard_link(file, &path).unwrap();
                }
            }
        }
    }
    for (path, mode, time) in directories.iter().rev() {
        fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
        set_time(path, *time);
    }
    // A release of nothing is not packed.
    if fs::read_dir(root).unwrap().next().is_none() {
        fs::write(root.join("only"), "").unwrap();
    }
}

fn set_time(path: &Path, seconds: i64) {
    use nix::sys::time::TimeSpec;
    let time = TimeSpec::new(seconds, if seconds > 1_650_000_000 { 5_000 } else { 0 });
    let follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, follow).unwrap();
}

/// What must not change in a tree that others are made of: all, with times and inode numbers.
pub fn portrait(tree: &Path) -> Vec<(Entry, u64)> {
    let inode = |entry: &Entry| {
        let path = tree.join(std::ffi::OsStr::new(std::str::from_utf8(&entry.path).unwrap()));
        fs::symlink_metadata(path).unwrap().ino()
    };
    entries(tree).into_iter().map(|entry| (entry.clone(), inode(&entry))).collect()
}

/// Stages one release on top of another by each method in `directory`.
fn check_pair(directory: &Path, old: &[(String, Thing)], new: &[(String, Thing)], with_base: bool) {
    let (old_tree, new_tree) = (directory.join("old"), directory.join("new"));
    let (old_archive, new_archive) = (directory.join("old.tar.zst"), directory.join("new.tar.zst"));
    grow(&old_tree, old);
    grow(&new_tree, new);
    packed(&old_tree, &old_archive, None);
    let wanted = packed(&new_tree, &new_archive, with_base.then_some(old_archive.as_path()));
    for method in [Method::Hardlink, Method::Reflink, Method::Copy] {
        let here = directory.join(format!("{method:?}-old"));
        staged(&old_archive, &here, method, None).unwrap();
        assert_same(&old_tree, &here, "old");
        let before = portrait(&here);
        let into = directory.join(format!("{method:?}-new"));
        let staged = staged(&new_archive, &into, method, Some(&base(&here))).unwrap();
        assert_eq!(scan::digest(&into).unwrap(), wanted.tree, "{method:?}");
        assert_eq!(staged.tree, wanted.tree, "{method:?}");
        assert_eq!(portrait(&here), before, "{method:?} changed the old tree");
        assert!(Installed::open(&record_of(&into)).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_release_is_staged_on_any_other(old in tree(), new in tree(), with_base in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        check_pair(directory.path(), &old, &new, with_base);
    }
}

#[test]
fn a_file_that_somebody_changed_is_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("a.tar.zst"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    packed(&tree, &archive, None);
    let old = directory.path().join("old");
    staged(&archive, &old, Method::Hardlink, None).unwrap();
    fs::write(old.join("lib/1/8.js"), "changed in place").unwrap();
    fs::remove_file(old.join("lib/2/9.js")).unwrap();
    let replaced = fs::metadata(old.join("lib/3/10.js")).unwrap();
    fs::write(old.join("other"), vec![b'x'; usize::try_from(replaced.len()).unwrap()]).unwrap();
    let other = fs::File::options().write(true).open(old.join("other")).unwrap();
    other.set_modified(replaced.modified().unwrap()).unwrap();
    fs::rename(old.join("other"), old.join("lib/3/10.js")).unwrap();
    fs::remove_dir_all(old.join("lib/5")).unwrap();
    symlink("4", old.join("lib/5")).unwrap();
    let into = directory.path().join("into");
    let staged = staged(&archive, &into, Method::Hardlink, Some(&base(&old))).unwrap();
    assert_same(&tree, &into, "after changes");
    assert!(staged.reused > 200 && staged.reused < 300, "{}", staged.reused);
}

#[test]
fn what_moved_is_not_fetched() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("a.tar.zst"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    packed(&tree, &archive, None);
    let old = directory.path().join("old");
    let first = staged(&archive, &old, Method::Hardlink, None).unwrap();
    fs::rename(tree.join("share"), tree.join("moved")).unwrap();
    fs::rename(tree.join("lib/4"), tree.join("lib/elsewhere")).unwrap();
    let next = directory.path().join("b.tar.zst");
    packed(&tree, &next, Some(&archive));
    let into = directory.path().join("into");
    let second = staged(&next, &into, Method::Hardlink, Some(&base(&old))).unwrap();
    assert_same(&tree, &into, "moved");
    assert!(second.fetched * 3 < first.fetched, "{} of {}", second.fetched, first.fetched);
}

/// An archive on a line that is cut after so many bytes; counts how often each byte is given.
struct Cut<'a> {
    bytes: &'a [u8],
    left: std::sync::atomic::AtomicI64,
    given: std::sync::Mutex<&'a mut Vec<u8>>,
}

impl cutover::release::source::Ranges for &Cut<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_range(
        &self,
        start: u64,
        length: u64,
    ) -> Result<Box<dyn std::io::Read + Send>, cutover::release::source::Error> {
        use std::sync::atomic::Ordering;
        let (start, length) = (usize::try_from(start).unwrap(), usize::try_from(length).unwrap());
        let left = usize::try_from(self.left.load(Ordering::Relaxed).max(0)).unwrap();
        let here = length.min(left);
        self.left.fetch_sub(i64::try_from(here).unwrap(), Ordering::Relaxed);
        for count in &mut self.given.lock().unwrap()[start..start + here] {
            *count += 1;
        }
        Ok(Box::new(std::io::Cursor::new(self.bytes[start..start + here].to_vec())))
    }
}

#[test]
fn whatever_is_cut_off_is_read_once() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("a.tar.zst"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let noise: Vec<u8> = (0..700_000_u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ at >> 3) as u8)
        .collect();
    fs::write(tree.join("noise"), noise).unwrap();
    let wanted = packed(&tree, &archive, None);
    let bytes = fs::read(&archive).unwrap();
    let mut given = vec![0_u8; bytes.len()];
    let parts = directory.path().join("parts");
    let mut random = 88_172_645_463_325_252_u64;
    let mut cuts = 0;
    loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let left = i64::try_from(random % (bytes.len() as u64 / 60)).unwrap();
        let given = std::sync::Mutex::new(&mut given);
        let cut = Cut { bytes: &bytes, left: left.into(), given };
        let identity = cutover::types::Digest::of(b"archive");
        let kept = Parts::open(Arc::new(&cut), &parts, identity, Trust::Read, &Disk::default());
        let kept = Arc::new(kept.unwrap());
        let into = directory.path().join(format!("into-{cuts}"));
        fs::create_dir(&into).unwrap();
        let (record, limits) = (record_of(&into), limits());
        let order = StageOrder {
            into: &into,
            method: Method::Copy,
            base: None,
            limits: &limits,
            parts: Some(&kept),
            record: &record,
            is_suspect: false,
            spans: &Spans::default(),
            threads: 2,
        };
        let index = match Index::open(Arc::clone(&kept) as Arc<dyn Ranges + '_>, None) {
            Ok(index) => index.unwrap(),
            Err(error) => {
                assert!(matches!(error, index::Error::Read(_)), "{error}");
                cuts += 1;
                continue;
            }
        };
        match stage(&index, &order, &Disk::default(), &Silent) {
            Ok(staged) => {
                assert_eq!(staged.tree, wanted.tree);
                assert_same(&tree, &into, "after the last cut");
                break;
            }
            Err(error) => assert!(matches!(error, index::Error::Read(_)), "{error}"),
        }
        fs::remove_dir_all(&into).unwrap();
        cuts += 1;
    }
    assert!(cuts >= 100, "{cuts} cuts");
    assert!(given.iter().all(|count| *count <= 1), "a byte was read more than once");
}

/// Runs the program on a root, and says what it said.
fn cutover(root: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cutover"));
    let output = command.arg("--root").arg(root).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

fn repair_in(place: &Path) {
    let (tree, root) = (place.join("tree"), place.join("root"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&root).unwrap();
    make_tree(&tree);
    let archive = place.join("shop-2.tar.zst");
    let wanted = packed(&tree, &archive, None);
    let file = archive.to_str().unwrap();
    let (code, said) = cutover(&root, &["update", "--allow-unsigned", file]);
    assert_eq!(code, 0, "{said}");
    let release = root.join("releases/2");
    if cutover::sys::kernel::btrfs::is_subvolume(&release).unwrap() {
        cutover::sys::kernel::btrfs::set_read_only(&release, false).unwrap();
    }
    // Somebody changes content behind the back of size and time.
    let path = release.join("lib/1/8.js");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let length = fs::metadata(&path).unwrap().len();
    fs::write(&path, vec![b'?'; usize::try_from(length).unwrap()]).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    fs::remove_file(release.join("empty")).unwrap();
    fs::write(release.join("extra"), "not of this release").unwrap();
    let (code, said) = cutover(&root, &["verify"]);
    assert_eq!(code, 12, "{said}");
    assert!(said.contains("--repair"), "{said}");
    let (code, said) = cutover(&root, &["verify", "--repair", "--from", file, "--allow-unsigned"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(scan::digest(&release).unwrap(), wanted.tree);
    let (code, said) = cutover(&root, &["verify"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_damaged_tree_is_repaired() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody else may write to the directories above.
    repair_in(directory.path());
    if let Some(mounted) = crate::filesystems::Mounted::new("a_damaged_tree_is_repaired", "btrfs") {
        repair_in(&mounted.path());
    }
}
