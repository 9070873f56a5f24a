//! Which tree processes run from, as the kernel knows it. A restart that leaves old code running is found here.
//!
//! Two things tell: what a process has of a tree (root, working directory, program, mapped and open files, mounts of its
//! own), compared as places in the file system, and its age. A process that is older than the switch runs the old code,
//! whatever it has mapped: interpreters map nothing of the tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use crate::sys::place::{Mounts, Place};
use crate::types::escaped_path;

/// Processes looked at in one unit, at most. A unit with more is judged by these.
const PROCESSES_MAX: usize = 10_000;
/// How much of a process's map is read, in bytes.
const MAPS_MAX: u64 = 16 << 20;
/// How many open files of one process are looked at.
const OPEN_MAX: usize = 65_536;

/// The processes of the declared units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Processes {
    /// Those that run from the active tree.
    pub new: Vec<u32>,
    /// Those that run from another one, or that are older than the switch.
    pub old: Vec<OldProcess>,
    /// Those that use no tree, and are not known to be older than the switch.
    pub unknown: Vec<u32>,
    /// Those that may not be looked at.
    pub hidden: Vec<u32>,
}

/// A process that runs from a tree that is not active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OldProcess {
    pub pid: u32,
    /// The unit that it belongs to.
    pub unit: String,
    /// What it holds of the other tree; empty when its age alone tells.
    pub path: String,
}

/// A unit's control group, and its main process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub unit: String,
    /// `ControlGroup`, as `systemctl show` says it.
    pub path: String,
    /// A process that may be older than the switch: the main one of a unit that was told to reload.
    pub may_be_older: Option<u32>,
    /// Whether its processes are all the unit's own: a slice holds those of others.
    pub is_own: bool,
}

/// Judges the processes of units. `active` is the tree that the pointer names, in the directory `releases`; `since` the
/// time from boot to the move of the pointer, where it is known.
pub fn of_groups(groups: &[Group], releases: &Path, active: &Path, since: Option<Duration>) -> Processes {
    let mut found = Processes::default();
    let mut look = Look::at(releases);
    for group in groups {
        for pid in pids_of(&group.path) {
            let seen = look.at_process(pid);
            let is_older = || {
                let since = since.filter(|_| group.is_own && group.may_be_older != Some(pid));
                since.is_some_and(|since| Began::of(pid).is_some_and(|began| began.latest() < since))
            };
            let old = |path: String| OldProcess { pid, unit: group.unit.clone(), path };
            match seen {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.hidden.push(pid),
                // It has ended.
                Err(_) => {}
                Ok(used) => match used.iter().find(|path| !path.starts_with(active)) {
                    Some(path) => found.old.push(old(escaped_path(path))),
                    None if is_older() => found.old.push(old(String::new())),
                    None if used.is_empty() => found.unknown.push(pid),
                    None => found.new.push(pid),
                },
            }
        }
    }
    found
}

/// Which processes of the machine use which tree under `releases`, by the tree's name. For pruning: needs root to see
/// everybody's processes.
pub fn in_use(releases: &Path) -> BTreeMap<PathBuf, Vec<u32>> {
    let mut trees: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    let mut look = Look::at(releases);
    for pid in all() {
        let used = look.at_process(pid).unwrap_or_default();
        let names: BTreeSet<_> = used
            .iter()
            .filter_map(|path| path.strip_prefix(releases).ok()?.iter().next().map(PathBuf::from))
            .collect();
        for name in names {
            trees.entry(name).or_default().push(pid);
        }
    }
    trees
}

/// The units, of these, with a process that uses a tree in the directory `releases`.
pub fn units_in(releases: &Path, groups: &[Group]) -> BTreeSet<String> {
    let mut look = Look::at(releases);
    let mut uses = |pid| look.at_process(pid).is_ok_and(|used| !used.is_empty());
    let found = groups.iter().filter(|group| pids_of(&group.path).into_iter().any(&mut uses));
    found.map(|group| group.unit.clone()).collect()
}

/// Which processes of the machine use a directory or a file, or something below it.
pub fn users_of(path: &Path) -> Vec<u32> {
    let Some(parent) = path.parent() else { return Vec::new() };
    let mut look = Look::at(parent);
    let mut uses =
        |pid| look.at_process(pid).is_ok_and(|used| used.iter().any(|used| used.starts_with(path)));
    all().into_iter().filter(|pid| uses(*pid)).collect()
}

/// The numbers of all processes.
fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The name of the tree under `releases` that a process runs from, if it runs from one.
pub fn tree_of(pid: u32, releases: &Path) -> Option<PathBuf> {
    let used = Look::at(releases).at_process(pid).unwrap_or_default();
    used.iter().find_map(|path| path.strip_prefix(releases).ok()?.iter().next().map(PathBuf::from))
}

/// The processes of a control group and of those in it, on a machine with cgroup2, with or without version 1 beside it.
pub fn pids_of(group: &str) -> Vec<u32> {
    let group = group.trim_start_matches('/');
    if group.is_empty() {
        return Vec::new();
    }
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let Some(top) = roots.iter().map(|root| Path::new(root).join(group)).find(|path| path.is_dir()) else {
        return Vec::new();
    };
    let mut pids = Vec::new();
    let mut directories = vec![top];
    while let Some(directory) = directories.pop() {
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
        if pids.len() >= PROCESSES_MAX {
            pids.truncate(PROCESSES_MAX);
            break;
        }
        let inner = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(
            inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()),
        );
    }
    pids
}

/// Looks at processes for what they have of one directory of trees.
struct Look<'a> {
    releases: &'a Path,
    /// Where the trees are, and where `.cutover` is: trees that are being removed are moved there.
    places: Option<(Place, Option<Place>)>,
    /// The mounts of this machine: those of its first process, or ours where that may not be looked at.
    machine: Rc<Mounts>,
    mounts: HashMap<PathBuf, Rc<Mounts>>,
}

impl<'a> Look<'a> {
    fn at(releases: &'a Path) -> Self {
        let own = Mounts::own().unwrap_or_default();
        let real = fs::canonicalize(releases).ok();
        let places = real.and_then(|real| {
            let private = real.parent().map(|root| root.join(".cutover"));
            Some((own.place(&real)?, private.and_then(|private| own.place(&private))))
        });
        let machine = Mounts::of(1).unwrap_or(own);
        Self { releases, places, machine: Rc::new(machine), mounts: HashMap::new() }
    }

    /// What a process has of the trees, as paths below `releases`, whatever it calls them itself.
    ///
    /// # Errors
    /// When it has ended, or may not be looked at.
    fn at_process(&mut self, pid: u32) -> io::Result<BTreeSet<PathBuf>> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let space = fs::read_link(process.join("ns/mnt"))?;
        let mounts = match self.mounts.get(&space) {
            Some(mounts) => Rc::clone(mounts),
            None => {
                let mounts = Rc::new(Mounts::of(pid)?);
                self.mounts.insert(space, Rc::clone(&mounts));
                mounts
            }
        };
        let mut files = BTreeSet::new();
        let mut take = |path: &Path| files.extend(self.of_a_tree(&mounts, path));
        for name in ["exe", "cwd", "root"] {
            match fs::read_link(process.join(name)) {
                Ok(path) => take(&path),
                // A corpse has none of these, a kernel thread no program.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for_each_mapped(&process, &mut take)?;
        for entry in fs::read_dir(process.join("fd"))?.flatten().take(OPEN_MAX) {
            if let Ok(path) = fs::read_link(entry.path()) {
                take(&path);
            }
        }
        // A tree that is mounted for this service alone is what it sees, even while it has none of it open.
        files.extend(mounts.beyond(&self.machine).filter_map(|(_, place)| self.tree_path(place)));
        Ok(files)
    }

    /// A path that the kernel shows of a process, if it is one of the trees'.
    fn of_a_tree(&self, mounts: &Mounts, path: &Path) -> Option<PathBuf> {
        if !path.is_absolute() {
            return None;
        }
        let bytes = path.as_os_str().as_bytes();
        let plain = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        self.tree_path(&mounts.place(Path::new(OsStr::from_bytes(plain)))?)
    }

    fn tree_path(&self, place: &Place) -> Option<PathBuf> {
        let (releases, private) = self.places.as_ref()?;
        if let Some(below) = place.below(releases) {
            return (!below.as_os_str().is_empty()).then(|| self.releases.join(below));
        }
        let below = private.as_ref().and_then(|private| place.below(private))?;
        let root = self.releases.parent()?;
        // Only what was or will be a tree: snapshots of data have other users.
        ["staging", "trash"]
            .iter()
            .any(|name| below.starts_with(name))
            .then(|| root.join(".cutover").join(below))
    }
}

/// Calls `take` with the path of every file that a process has mapped.
fn for_each_mapped(process: &Path, take: &mut impl FnMut(&Path)) -> io::Result<()> {
    let mut maps = BufReader::new(fs::File::open(process.join("maps"))?.take(MAPS_MAX));
    let (mut line, mut last) = (Vec::new(), Vec::new());
    while maps.read_until(b'\n', &mut line)? > 0 {
        // address perms offset device inode path (proc_pid_maps(5)); the path is the rest of the line.
        if let Some(begin) = line.iter().position(|byte| *byte == b'/') {
            let path = line[begin..].trim_ascii_end();
            // A file's parts stand one after another.
            if path != last {
                take(Path::new(OsStr::from_bytes(path)));
                path.clone_into(&mut last);
            }
        }
        line.clear();
    }
    Ok(())
}

/// A process, told from later ones of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    pid: u32,
    ticks: u64,
}

impl Began {
    /// The processes of control groups that were started at this time from boot, or later.
    pub fn since(groups: &[Group], since: Duration) -> Vec<Self> {
        let pids = groups.iter().filter(|group| group.is_own).flat_map(|group| pids_of(&group.path));
        pids.filter_map(Self::of).filter(|began| began.latest() >= since).collect()
    }

    fn of(pid: u32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // proc_pid_stat(5): the name, in brackets, may hold anything; the time is the 22nd word, in ticks.
        let after = text.iter().rposition(|byte| *byte == b')')? + 1;
        let mut words = std::str::from_utf8(&text[after..]).ok()?.split_whitespace();
        Some(Self { pid, ticks: words.nth(19)?.parse().ok()? })
    }

    /// Kills it, if it is still there. Says whether it was.
    pub fn kill(self) -> bool {
        let pid = i32::try_from(self.pid).map(nix::unistd::Pid::from_raw);
        Self::of(self.pid) == Some(self)
            && pid.is_ok_and(|pid| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok())
    }

    /// The latest moment, from boot, at which it can have been started.
    fn latest(self) -> Duration {
        let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let each = each.and_then(|each| u64::try_from(each).ok()).filter(|each| *each > 0).unwrap_or(100);
        Duration::from_millis((self.ticks + 1) * 1000 / each)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::sys::clock::{Clock as _, SystemClock};

    struct Sleeper(Child);

    impl Sleeper {
        fn in_directory(directory: &Path) -> Self {
            Self(
                Command::new("sleep").arg("60").current_dir(directory).stdout(Stdio::null()).spawn().unwrap(),
            )
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn tree_in(directory: &Path) -> PathBuf {
        let disk = crate::sys::disk::Disk::default();
        for path in [directory.join("releases"), directory.join("releases/1.0")] {
            disk.make_directory(&path, 0o755).unwrap();
        }
        directory.join("releases/1.0")
    }

    #[test]
    fn a_process_is_found_by_the_tree_it_runs_in() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree_in(directory.path());
        let releases = tree.parent().unwrap();
        let sleeper = Sleeper::in_directory(&tree);
        assert_eq!(in_use(releases), [("1.0".into(), vec![sleeper.0.id()])].into());
        assert_eq!(Look::at(releases).at_process(sleeper.0.id()).unwrap(), [tree.clone()].into());
        drop(sleeper);
        assert!(in_use(releases).is_empty());
    }

    #[test]
    fn a_root_that_is_named_through_a_link_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree_in(directory.path());
        let link = directory.path().join("link");
        nix::unistd::symlinkat(".", nix::fcntl::AT_FDCWD, &link).unwrap();
        let releases = link.join("releases");
        let sleeper = Sleeper::in_directory(&tree);
        assert_eq!(in_use(&releases), [("1.0".into(), vec![sleeper.0.id()])].into());
        assert_eq!(Look::at(&releases).at_process(sleeper.0.id()).unwrap(), [releases.join("1.0")].into());
    }

    #[test]
    fn a_tree_that_is_gone_is_still_told() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree_in(directory.path());
        let sleeper = Sleeper::in_directory(&tree);
        crate::sys::disk::Disk::default().remove_tree(&tree).unwrap();
        assert_eq!(in_use(tree.parent().unwrap()), [("1.0".into(), vec![sleeper.0.id()])].into());
    }

    #[test]
    fn a_mount_of_a_service_alone_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree_in(directory.path());
        let point = directory.path().join("app");
        crate::sys::disk::Disk::default().make_directory(&point, 0o755).unwrap();
        let script = "mount --bind \"$0\" \"$1\" && echo ready && exec sleep 60 >/dev/null";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).args([&tree, &point]);
        let mut sleeper = Sleeper(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(sleeper.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            eprintln!("SKIPPED a_mount_of_a_service_alone_hides_nothing: may not mount here");
            return;
        }
        let releases = tree.parent().unwrap();
        assert_eq!(in_use(releases), [("1.0".into(), vec![sleeper.0.id()])].into());
        let groups = Look::at(releases).at_process(sleeper.0.id()).unwrap();
        assert_eq!(groups, [tree].into());
    }

    #[test]
    fn open_files_count() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree_in(directory.path());
        let file = tree.join("data");
        crate::sys::disk::Disk::default().replace(&file, b"x", 0o644).unwrap();
        let _open = fs::File::open(&file).unwrap();
        let files = Look::at(tree.parent().unwrap()).at_process(std::process::id()).unwrap();
        assert_eq!(files, [file].into());
    }

    #[test]
    fn our_own_program_is_seen_as_mapped() {
        let program = std::env::current_exe().unwrap();
        let files = Look::at(program.parent().unwrap()).at_process(std::process::id()).unwrap();
        assert!(files.contains(&program), "{files:?}");
    }

    #[test]
    fn the_age_of_a_process_is_counted_from_the_boot() {
        let before = SystemClock.boot();
        let sleeper = Sleeper::in_directory(Path::new("/"));
        let tick = Duration::from_millis(20);
        let began = Began::of(sleeper.0.id()).unwrap();
        let latest = began.latest();
        assert!(latest + tick >= before && latest <= SystemClock.boot() + tick, "{before:?} {latest:?}");
        assert!(!Began { ticks: began.ticks + 1, ..began }.kill() && began.kill());
    }
}
