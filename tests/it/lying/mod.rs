//! Indexed archives that lie, with digests that all fit: by themselves, with a manifest, signed, and on a base by each
//! method. None of them may give another tree than it says, or leave anything behind.

mod cases;
pub mod encode;
mod more;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cutover::release::index::{Error, Index, Method, Staged};
use cutover::release::manifest::Manifest;
use cutover::release::scan;
use cutover::release::source::LocalFile;
use cutover::release::trust::{KeyPair, Namespace, sign_file};
use cutover::sys::disk::Disk;
use cutover::types::Digest;
use encode::Draft;
use nix::sys::resource::{UsageWho, getrusage};

use crate::filesystems::Mounted;
use crate::staging::{base, staged};

fn write(draft: &Draft, path: &Path) {
    fs::write(path, draft.write().0).unwrap();
}

/// What staging made is what the index says, or it was refused by a rule, as exit code 12 shows it.
fn judge(name: &str, into: &Path, wanted: Digest, result: Result<Option<Staged>, Error>) -> bool {
    match result {
        Ok(None) => false,
        Ok(Some(staged)) => {
            assert_eq!(scan::digest(into).unwrap(), staged.tree, "{name}: another tree than was reported");
            assert_eq!(staged.declared, wanted, "{name}: another tree than the index says");
            true
        }
        Err(Error::Malformed { .. } | Error::Digest { .. } | Error::Differs { .. } | Error::Entry { .. }) => {
            false
        }
        Err(other) => panic!("{name}: not told as the archive's fault: {other:?}"),
    }
}

#[test]
fn the_encoder_makes_what_the_format_says() {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("shop-1.tar.zst");
    let draft = cases::honest();
    write(&draft, &archive);
    let into = place.path().join("into");
    let staged = staged(&archive, &into, Method::Copy, None).unwrap();
    assert_eq!(staged.declared, Digest(draft.tree()));
    assert_eq!(scan::digest(&into).unwrap(), staged.tree);
    let by_tar = place.path().join("by-tar");
    fs::create_dir(&by_tar).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&by_tar).args(["--numeric-owner", "-xpf"]).arg(&archive);
    assert!(tar.status().unwrap().success());
    assert_eq!(scan::digest(&by_tar).unwrap(), staged.tree);
}

#[test]
fn no_lie_gives_a_wrong_tree() {
    let place = tempfile::tempdir().unwrap();
    assert!(cases::all().len() >= 400);
    lie_everywhere(place.path(), &[Method::Copy, Method::Hardlink, Method::Reflink], 3);
}

#[test]
fn no_lie_gives_a_wrong_tree_on_btrfs() {
    let Some(mounted) = Mounted::new("no_lie_gives_a_wrong_tree_on_btrfs", "btrfs") else { return };
    lie_everywhere(&mounted.path(), &[Method::Btrfs, Method::Reflink], 2);
}

/// Every lie by itself, and one of so many on an honest base by these methods in turn.
fn lie_everywhere(place: &Path, methods: &[Method], every: usize) {
    let disk = Disk::default();
    let honest = place.join("shop-1.tar.zst");
    write(&cases::honest(), &honest);
    let old = place.join("old");
    if methods.contains(&Method::Btrfs) {
        disk.make_subvolume(&old, None).unwrap();
    }
    staged(&honest, &old, Method::Copy, None).unwrap();
    let mut taken = Vec::new();
    let lies = cases::all().into_iter().map(|lie| (true, lie));
    let odd = more::odd().drafts().into_iter().map(|odd| (false, odd));
    for (at, (is_lie, (name, draft))) in lies.chain(odd).enumerate() {
        let archive = place.join("shop-2.tar.zst");
        write(&draft, &archive);
        let wanted = draft.root.tree.unwrap_or_else(|| draft.tree());
        let onto = (at % every == 0).then(|| Some(methods[at / every % methods.len()]));
        for method in [None].into_iter().chain(onto) {
            let what = format!("{name} ({method:?})");
            let into = place.join("into");
            if method == Some(Method::Btrfs) {
                disk.make_subvolume(&into, Some(&old)).unwrap();
            }
            let file = LocalFile::new(fs::File::open(&archive).unwrap(), &archive).unwrap();
            let result = match Index::open(Arc::new(file), None) {
                // Without an index it is an ordinary archive.
                Ok(None) => Ok(None),
                Ok(Some(_)) => {
                    let old = method.map(|_| base(&old));
                    staged(&archive, &into, method.unwrap_or(Method::Copy), old.as_ref()).map(Some)
                }
                Err(error) => Err(error),
            };
            // A base has all contents, so that frames that lie are not read: then the tree is right.
            if judge(&what, &into, Digest(wanted), result) && method.is_none() && is_lie {
                taken.push(what);
            }
            if into.exists() {
                disk.remove_tree(&into).unwrap();
            }
        }
    }
    assert_eq!(taken, Vec::<String>::new(), "lies that were taken");
    assert_eq!(scan::digest(&old).unwrap(), staged_again(&honest, place), "the base was changed");
}

fn staged_again(archive: &Path, place: &Path) -> Digest {
    let again = place.join("again");
    staged(archive, &again, Method::Copy, None).unwrap();
    scan::digest(&again).unwrap()
}

/// A node that trusts one key.
struct Node {
    directory: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self::at(&std::env::temp_dir(), "auto")
    }

    /// One in this place, with trees that come into being by this method.
    fn at(place: &Path, method: &str) -> Self {
        let node = Self { directory: tempfile::tempdir_in(place).unwrap() };
        let pair = KeyPair::generate("team").unwrap();
        fs::write(node.path("team"), pair.private).unwrap();
        fs::create_dir(node.path("keys")).unwrap();
        fs::write(node.path("keys/team.pub"), pair.public).unwrap();
        fs::create_dir(node.path("root")).unwrap();
        let place = node.directory.path().display();
        let text = format!(
            "root = '{place}/root'\n[source]\nkeys = ['{place}/keys']\n[store]\nreserve = '0'\nmethod = '{method}'\n"
        );
        fs::write(node.path("node.toml"), text).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Stages the archive, whose manifest says what it is.
    fn stage(&self, draft: &Draft, way: Way) -> (i32, String) {
        self.stage_as("2", draft, way)
    }

    fn stage_as(&self, version: &str, draft: &Draft, way: Way) -> (i32, String) {
        let (bytes, index) = draft.write();
        let archive = format!("shop-{version}.tar.zst");
        fs::write(self.path(&archive), &bytes).unwrap();
        let manifest = Manifest {
            product: "shop".into(),
            version: version.parse().unwrap(),
            archive: archive.clone(),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            unpacked: None,
            entries: None,
            index: Some(Digest(index)),
            tree: None,
            compatible: Vec::new(),
            data_read: Vec::new(),
            data_write: None,
            extras: Vec::new(),
        };
        let path = self.path(&format!("shop-{version}.manifest"));
        let signature = self.path(&format!("shop-{version}.manifest.sig"));
        for path in [&path, &signature] {
            drop(fs::remove_file(path));
        }
        if way != Way::Unsigned {
            fs::write(&path, manifest.to_text()).unwrap();
        }
        if way == Way::Signed {
            sign_file(&Disk::default(), &path, &self.path("team"), Namespace::Release).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("--config").arg(self.path("node.toml")).arg("stage").arg(self.path(&archive));
        if way != Way::Signed {
            command.arg("--allow-unsigned");
        }
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn run(&self, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        let output = command.arg("--config").arg(self.path("node.toml")).args(words).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What is left of a refused release.
    fn left(&self) -> Vec<PathBuf> {
        let places = ["releases", ".cutover/staging", ".cutover/trash", ".cutover/manifests"];
        let listed = places.iter().filter_map(|place| fs::read_dir(self.path("root").join(place)).ok());
        let left = listed.flatten().map(|entry| entry.unwrap().path());
        left.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('1')).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unsigned,
    Manifest,
    Signed,
}

/// No program that this test has started had more than 128 MiB. What it begins with is this process' own, and counts as
/// well: where other tests run in it, that may be more.
fn assert_little_memory() {
    let of = |who| getrusage(who).unwrap().max_rss() >> 10;
    let (most, own) = (of(UsageWho::RUSAGE_CHILDREN), of(UsageWho::RUSAGE_SELF));
    assert!(most <= own.max(128), "{most} MiB");
}

#[test]
fn lies_are_refused_with_12_and_leave_nothing() {
    let mut node = Node::new();
    for (at, (name, draft)) in cases::all().into_iter().enumerate() {
        for (number, way) in [Way::Unsigned, Way::Manifest, Way::Signed].into_iter().enumerate() {
            if at % 45 == 15 * number {
                refused(&mut node, &name, &draft, way);
            }
        }
    }
    assert_eq!(node.stage(&cases::honest(), Way::Signed).0, 0);
    assert_little_memory();
}

#[test]
fn what_an_unsigned_release_says_of_its_contents_gets_into_no_signed_one() {
    for method in ["hardlink", "copy"] {
        let node = Node::at(&std::env::temp_dir(), method);
        let honest = cases::honest();
        let mut lie = honest.clone();
        let mut entries = lie.entries.clone();
        let said = entries[1].digest;
        entries[1].content = b"another program!\n".to_vec();
        lie = Draft::of(entries);
        (lie.entries[1].digest, lie.entries[2].digest) = (said, said);
        let (code, said) = node.stage_as("1", &lie, Way::Unsigned);
        assert_eq!(code, 12, "{said}");
        let (code, said) = node.stage(&honest, Way::Signed);
        assert_eq!(code, 0, "{said}");
        assert_eq!(fs::read(node.path("root/releases/2/bin/app")).unwrap(), b"the good program\n");
        // One whose contents are what it says is no base for a signed one either.
        let node = Node::at(&std::env::temp_dir(), method);
        let inode = |release: &str| {
            let path = node.path("root/releases").join(release).join("bin/app");
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
        };
        for (release, way) in [("1", Way::Unsigned), ("2", Way::Signed), ("3", Way::Signed)] {
            let (code, said) = node.stage_as(release, &honest, way);
            assert_eq!(code, 0, "{said}");
        }
        assert_ne!(inode("1"), inode("2"));
        assert_eq!(inode("2") == inode("3"), method == "hardlink");
    }
}

/// Stages a lie; a node that has taken it is replaced by a fresh one.
fn refused(node: &mut Node, name: &str, draft: &Draft, way: Way) {
    let (code, said) = node.stage(draft, way);
    if code == 0 {
        // Without a manifest an archive whose index cannot be found is an ordinary one.
        assert_eq!(way, Way::Unsigned, "{name}");
        let tree = scan::digest(&node.path("root/releases/2")).unwrap();
        assert_eq!(tree, Digest(cases::honest().tree()), "{name}");
        *node = Node::new();
        return;
    }
    assert_eq!(code, 12, "{name}, {way:?}: {said}");
    assert_eq!(node.left(), Vec::<PathBuf>::new(), "{name}, {way:?}");
    assert!(said.contains("hint: "), "{name}, {way:?}: {said}");
}

/// A signed release 1 is there, from which contents could be taken over.
fn lies_onto_a_base(place: &Path, method: &str, every: usize) {
    let fresh = || {
        let node = Node::at(place, method);
        let (code, said) = node.stage_as("1", &cases::honest(), Way::Signed);
        assert_eq!(code, 0, "{said}");
        node
    };
    let mut node = fresh();
    for (name, draft) in cases::all().into_iter().step_by(every) {
        for way in [Way::Unsigned, Way::Signed] {
            let (code, said) = node.stage(&draft, way);
            assert!(code == 12 || code == 0, "{name}, {method}, {way:?}: {code}: {said}");
            if code == 12 {
                assert_eq!(node.left(), Vec::<PathBuf>::new(), "{name}, {method}, {way:?}");
                continue;
            }
            // What lies was not read, since all is here; or the index was not found.
            let tree = scan::digest(&node.path("root/releases/2")).unwrap();
            let is_told = tree == Digest(draft.root.tree.unwrap_or_else(|| draft.tree()));
            assert!(is_told || tree == Digest(cases::honest().tree()), "{name}, {method}, {way:?}");
            let (code, said) = node.run(&["verify", "2"]);
            assert_eq!(code, 0, "{name}, {method}, {way:?}: {said}");
            node = fresh();
        }
    }
    let (code, said) = node.run(&["verify", "1"]);
    assert_eq!(code, 0, "{method}: {said}");
    assert_little_memory();
}

#[test]
fn lies_onto_a_base_leave_nothing() {
    for method in ["copy", "hardlink"] {
        lies_onto_a_base(&std::env::temp_dir(), method, 61);
    }
}

#[test]
#[ignore = "every lie by every method: minutes; `make test-crashes`"]
fn all_lies_onto_a_base_by_any_method() {
    let test = "all_lies_onto_a_base_by_any_method";
    for (kind, method, methods) in [
        ("btrfs", "btrfs", [Method::Btrfs]),
        ("xfs", "hardlink", [Method::Hardlink]),
        ("xfs", "reflink", [Method::Reflink]),
        ("ext4", "copy", [Method::Copy]),
    ] {
        if let Some(mounted) = Mounted::sized(test, kind, 4 << 10) {
            lie_everywhere(&mounted.path(), &methods, 1);
            lies_onto_a_base(&mounted.path(), method, 1);
        }
    }
    let mut node = Node::new();
    for (name, draft) in cases::all() {
        for way in [Way::Unsigned, Way::Manifest, Way::Signed] {
            refused(&mut node, &name, &draft, way);
        }
    }
}

#[test]
fn long_paths_and_many_of_them_cost_little_memory() {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("shop-1.tar.zst");
    let deep: Vec<String> = (0..15).map(|number| format!("{number:0>250}")).collect();
    let mut entries: Vec<_> =
        (1..=deep.len()).map(|at| encode::Entry::directory(&deep[..at].join("/"))).collect();
    let parent = deep.join("/");
    entries.extend((0..4_000).map(|number| encode::Entry::directory(&format!("{parent}/{number:05}"))));
    let mut draft = Draft::of(entries);
    draft.page = 40_000;
    // Frames of at most 16 MiB.
    let end = draft.frames.pop().unwrap();
    let header = draft.entries.last().unwrap().header().len();
    let first: usize = draft.entries[..15].iter().map(|entry| entry.header().len()).sum();
    let cut = first + 1000 * header;
    draft.frames.push(encode::Frame::new(encode::END, end.plain[..cut].to_vec()));
    draft.frames.extend(
        end.plain[cut..].chunks(3000 * header).map(|part| encode::Frame::new(encode::END, part.to_vec())),
    );
    write(&draft, &archive);
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    // A process of its own: what this test has itself would count as its children's.
    let output = Command::new("python3")
        .args(["-c", MEASURE])
        .arg(env!("CARGO_BIN_EXE_cutover"))
        .arg("--root")
        .arg(&root)
        .args(["stage", "--allow-unsigned"])
        .arg(&archive)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let (code, kib) = said.trim().rsplit_once(' ').unwrap_or(("", ""));
    assert!(code.ends_with('0'), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let kib: u64 = kib.parse().unwrap();
    assert!(kib < 64 << 10, "{kib} KiB");
}

/// Runs a program; prints its exit code and the most memory that it had, in KiB.
const MEASURE: &str = "
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
";

#[test]
fn the_footer_is_found_before_a_seek_table_of_any_length() {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("shop-1.tar.zst");
    let content: Vec<u8> = (0..40_000_u32).map(|number| number as u8).collect();
    let draft = Draft::of(vec![encode::Entry { chunk: Some(1), ..encode::Entry::file("large", &content) }]);
    write(&draft, &archive);
    let into = place.path().join("into");
    let staged = staged(&archive, &into, Method::Copy, None).unwrap();
    assert_eq!(staged.declared, Digest(draft.tree()));
    assert_eq!(fs::read(into.join("large")).unwrap(), content);
}

/// Changes entries of an honest archive as a script says, four bytes a change; all digests and sums are right for what
/// came of it, and so is the tar, unless the first byte says that only the index is changed. Says what became of it.
pub fn changed_by(script: &[u8]) -> String {
    let mut draft = cases::honest();
    let is_only_index = script.first().is_some_and(|byte| byte % 2 == 1);
    let mut entries = draft.entries.clone();
    for change in script.get(1..).unwrap_or_default().chunks_exact(4).take(4) {
        let (at, value) =
            (usize::from(change[0]) % entries.len(), u16::from_le_bytes([change[2], change[3]]));
        let other = entries[usize::from(change[3]) % entries.len()].clone();
        let entry = &mut entries[at];
        match change[1] % 14 {
            0 => entry.kind = (value % 5) as u8,
            1 => entry.mode = value.into(),
            2 => entry.uid = if value % 2 == 0 { u32::MAX.into() } else { value.into() },
            3 => entry.gid = u64::from(value) << (value % 30),
            4 => entry.seconds = i64::from(value) << (value % 40),
            5 => entry.nanoseconds = u64::from(value) * 20_000,
            6 => entry.size = value.into(),
            7 => entry.generation = (value % 9).into(),
            8 => entry.digest = other.digest,
            9 => entry.target = other.path,
            10 => entry.path = other.path,
            11 => entry.content = vec![change[2]; usize::from(value) % 5000],
            12 => entries.insert(at, other),
            _ => drop(entries.remove(at)),
        }
        if entries.is_empty() {
            break;
        }
    }
    if is_only_index {
        draft.entries = entries;
    } else {
        draft = Draft::of(entries);
    }
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("shop-1.tar.zst");
    write(&draft, &archive);
    let file = LocalFile::new(fs::File::open(&archive).unwrap(), &archive).unwrap();
    let into = place.path().join("into");
    let result = match Index::open(Arc::new(file), None) {
        Ok(None) => Ok(None),
        Ok(Some(_)) => staged(&archive, &into, Method::Copy, None).map(Some),
        Err(error) => Err(error),
    };
    let told = match &result {
        Ok(staged) => format!("{:?}", staged.as_ref().map(|staged| staged.entries)),
        // A time that this file system does not keep is the machine's, not the archive's.
        Err(Error::Disk(error)) => return format!("the disk: {error}"),
        Err(error) => error.to_string(),
    };
    judge(&told, &into, Digest(draft.tree()), result);
    told
}

/// Scripts of [`changed_by`] to begin with: each kind of change alone.
pub fn scripts() -> Vec<Vec<u8>> {
    (0..28).map(|kind| vec![kind % 2, kind, kind / 2, 7 * kind, kind]).collect()
}
