//! Where a file is, as the kernel sees it: the file system, and the path within that. Whatever the mount name space, the
//! link or the bind mount through which somebody looks, the place is the same; a hard link has a place for each name.
//!
//! A path that the kernel shows of a process (`/proc/PID/cwd`, `maps`) is turned into a place by the mounts of that
//! process. Nothing is opened, so that a file system that hangs holds up nobody.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    root: Place,
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
            let mut words = line.split(|byte| *byte == b' ').skip(2);
            let device = String::from_utf8(words.next()?.to_vec()).ok()?;
            let root = Place { device, path: path(words.next()?) };
            Some(Mount { root, point: path(words.next()?) })
        };
        Self(table.split(|byte| *byte == b'\n').filter_map(mount).collect())
    }

    /// The place of an absolute path without links.
    pub fn place(&self, path: &Path) -> Option<Place> {
        let covers = |mount: &&Mount| path.starts_with(&mount.point);
        // Of several mounts on one point the last one is seen.
        let mount = self.0.iter().filter(covers).max_by_key(|mount| mount.point.components().count())?;
        let below = path.strip_prefix(&mount.point).ok()?;
        let path =
            if below.as_os_str().is_empty() { mount.root.path.clone() } else { mount.root.path.join(below) };
        Some(Place { device: mount.root.device.clone(), path })
    }

    /// What is mounted here and not there, and where.
    pub fn beyond<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = (&'a Path, &'a Place)> {
        let own = self.0.iter().filter(|mount| !others.0.contains(mount));
        own.map(|mount| (mount.point.as_path(), &mount.root))
    }
}

impl Place {
    /// The path below another place; `None` when it is not there.
    pub fn below(&self, other: &Self) -> Option<&Path> {
        if self.device == other.device { self.path.strip_prefix(&other.path).ok() } else { None }
    }
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
    fn only_further_mounts_are_beyond() {
        let (all, less) = (Mounts::read(TABLE), Mounts::read(&TABLE[..33]));
        let points: Vec<_> = all.beyond(&less).map(|(point, _)| point.to_owned()).collect();
        assert_eq!(points.len(), 4);
        assert!(all.beyond(&all).next().is_none());
    }
}
