//! Where a file is, as the kernel sees it: the file system, and the path within that. Whatever the mount name space, the
//! link or the bind mount through which somebody looks, the place is the same; a hard link has a place for each name.
//!
//! A path that the kernel shows of a process (`/proc/PID/cwd`, `maps`) is turned into a place by the mounts of that
//! process. Nothing is opened, so that a file system that hangs holds up nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::inode;
use super::mounts::unescaped;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file system: `major:minor` of its device.
    pub device: String,
    /// The path from the root of the file system, not of any mount.
    pub path: PathBuf,
}

/// The mounts of one mount name space, as a process sees them.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<Mount>);

#[derive(Clone, Debug)]
struct Mount {
    /// As `statx` says it of what is seen through it; another one in each name space.
    number: u64,
    point: PathBuf,
    root: Place,
}

impl Mount {
    fn place(&self, path: &Path) -> Option<Place> {
        let below = path.strip_prefix(&self.point).ok()?;
        let root = &self.root.path;
        let path = if below.as_os_str().is_empty() { root.clone() } else { root.join(below) };
        Some(Place { device: self.root.device.clone(), path })
    }
}

impl Mounts {
    pub fn of(pid: u32) -> io::Result<Self> {
        fs::read(format!("/proc/{pid}/mountinfo")).map(|table| Self::read(&table))
    }

    pub fn own() -> io::Result<Self> {
        fs::read("/proc/self/mountinfo").map(|table| Self::read(&table))
    }

    /// From proc_pid_mountinfo(5): number, parent, device, root, mount point.
    fn read(table: &[u8]) -> Self {
        let path = |word: &[u8]| PathBuf::from(OsString::from_vec(unescaped(word)));
        let mount = |line: &[u8]| {
            let mut words = line.split(|byte| *byte == b' ');
            let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
            let device = String::from_utf8(words.nth(1)?.to_vec()).ok()?;
            let root = Place { device, path: path(words.next()?) };
            Some(Mount { number, root, point: path(words.next()?) })
        };
        Self(table.split(|byte| *byte == b'\n').filter_map(mount).collect())
    }

    /// The place of an absolute path without links.
    pub fn place(&self, path: &Path) -> Option<Place> {
        let covers = |mount: &&Mount| path.starts_with(&mount.point);
        // Of several mounts on one point the last one is seen.
        let mount = self.0.iter().filter(covers).max_by_key(|mount| mount.point.components().count())?;
        mount.place(path)
    }

    /// The same of a path whose mount is known: in the table, one may cover another.
    fn place_in(&self, number: u64, path: &Path) -> Option<Place> {
        let is_it = |mount: &&Mount| number != 0 && mount.number == number;
        self.0.iter().find(is_it).and_then(|mount| mount.place(path)).or_else(|| self.place(path))
    }

    /// Where a place, or something within it, is mounted by itself: the path within it, and the mount point.
    fn showing<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = (&'a Path, &'a Path)> {
        self.0.iter().filter_map(|mount| Some((mount.root.below(place)?, mount.point.as_path())))
    }

    /// What is mounted here and not there, and where.
    pub fn beyond<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = (&'a Path, &'a Place)> {
        let is_there =
            |mount: &Mount| others.0.iter().any(|it| it.point == mount.point && it.root == mount.root);
        let own = self.0.iter().filter(move |mount| !is_there(mount));
        own.map(|mount| (mount.point.as_path(), &mount.root))
    }
}

impl Place {
    /// The path below another place; `None` when it is not there.
    pub fn below(&self, other: &Self) -> Option<&Path> {
        if self.device == other.device { self.path.strip_prefix(&other.path).ok() } else { None }
    }
}

/// A mount through which a directory, or something within it, is seen besides its path: it goes wherever that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What of it: empty for all of it.
    pub within: PathBuf,
    pub point: PathBuf,
    /// The processes of the mount name space that has it; nobody's for one that this process sees itself.
    pub pids: BTreeSet<u32>,
}

/// All views of what is at a path: of this process, and of each other mount name space that may be looked at. Where such
/// a name space has the mounts that this one has, it is not named again.
///
/// # Errors
/// When the path cannot be looked at. Without `/proc` there are none.
pub fn views_of(path: &Path) -> io::Result<Vec<View>> {
    let real = fs::canonicalize(path)?;
    let Ok(own) = Mounts::own() else { return Ok(Vec::new()) };
    let Some(place) = own.place_in(inode::of_path(&real)?.mount, &real) else { return Ok(Vec::new()) };
    let mut views = Vec::new();
    let mut add = |mounts: &Mounts, pids: &BTreeSet<u32>| {
        for (within, point) in mounts.showing(&place) {
            match views.iter_mut().find(|view: &&mut View| view.within == within && view.point == point) {
                // What this process sees itself is nobody's.
                Some(view) if view.pids.is_empty() => {}
                Some(view) => view.pids.extend(pids),
                None => {
                    let (within, point, pids) = (within.to_owned(), point.to_owned(), pids.clone());
                    views.push(View { within, point, pids });
                }
            }
        }
    };
    add(&own, &BTreeSet::new());
    let mut spaces: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
    for pid in fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Ok(space) = fs::read_link(format!("/proc/{pid}/ns/mnt")) {
            spaces.entry(space).or_default().insert(pid);
        }
    }
    for pids in spaces.values() {
        // Any of them tells; some may have ended.
        if let Some(mounts) = pids.iter().find_map(|pid| Mounts::of(*pid).ok()) {
            // The machine's own name space is nobody's.
            let pids = if pids.contains(&1) { &BTreeSet::new() } else { pids };
            add(&mounts, pids);
        }
    }
    Ok(views)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
        30 22 8:2 / /srv rw shared:1 - ext4 /dev/b rw\n\
        31 22 8:2 /app/releases/1.0/bin /opt/a\\040b rw - ext4 /dev/b rw\n\
        32 22 8:3 / /over rw - ext4 /dev/c rw\n\
        33 22 8:4 /x /over rw - ext4 /dev/d rw\n";

    #[test]
    fn one_file_has_one_place_through_every_mount() {
        let mounts = Mounts::read(TABLE);
        let place = |path: &str| mounts.place(Path::new(path)).unwrap();
        let program = place("/srv/app/releases/1.0/bin/app");
        assert_eq!(program, place("/opt/a b/app"));
        assert_eq!(program.device, "8:2");
        let releases = place("/srv/app/releases");
        assert_eq!(program.below(&releases), Some(Path::new("1.0/bin/app")));
        assert_eq!(place("/app/releases/1.0").below(&releases), None);
        assert_eq!(place("/over/y"), Place { device: "8:4".into(), path: "/x/y".into() });
    }

    #[test]
    fn what_is_mounted_by_itself_is_found_by_its_place() {
        let mounts = Mounts::read(TABLE);
        let shown = |path: &str| {
            let place = mounts.place(Path::new(path)).unwrap();
            let found = mounts.showing(&place);
            found.map(|(within, point)| (within.to_owned(), point.to_owned())).collect::<Vec<_>>()
        };
        let bin = PathBuf::from("/opt/a b");
        assert_eq!(shown("/srv/app/releases/1.0"), [("bin".into(), bin.clone())]);
        assert_eq!(shown("/srv/app/releases/1.0/bin"), [(PathBuf::new(), bin)]);
        // Of what holds it, or lies beside it, it shows nothing that moves.
        assert!(
            shown("/srv/app/releases/1.0/bin/app").is_empty() && shown("/srv/app/releases/1.0/b").is_empty()
        );
        // One that is covered in the table is still the mount of what is seen through it.
        assert_eq!(mounts.place_in(32, Path::new("/over/y")).unwrap().device, "8:3");
    }

    #[test]
    fn only_further_mounts_are_beyond() {
        let (all, less) = (Mounts::read(TABLE), Mounts::read(&TABLE[..33]));
        let points: Vec<_> = all.beyond(&less).map(|(point, _)| point.to_owned()).collect();
        assert_eq!(points.len(), 4);
        assert!(all.beyond(&all).next().is_none());
    }
}
