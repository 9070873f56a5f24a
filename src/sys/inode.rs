//! What a name really is: its mount, its device and its inode, as the kernel has them, whatever its path looks like.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag};

use super::{kernel::file, open};

/// A subvolume's root always has this inode number on btrfs.
const SUBVOLUME_INODE: u64 = 256;

/// The inode number of the empty directory that stands for a subvolume in a snapshot of the one that held it, on a device
/// of its own. linux/btrfs_tree.h: BTRFS_EMPTY_SUBVOL_DIR_OBJECTID
pub const STANDS_FOR_SUBVOLUME: u64 = 2;

/// What the kernel says of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Regular file, directory, and so on.
    pub kind: SFlag,
    /// Its device; each subvolume of btrfs has its own.
    pub device: u64,
    pub inode: u64,
    /// The mount that it is seen through; 0 where the kernel does not say (before Linux 5.8).
    pub mount: u64,
    /// Whether something is mounted right here.
    pub is_mount_root: bool,
    /// Whether nobody may change or rename it (`chattr +i`, `+a`).
    pub is_fixed: bool,
    /// How many names it has.
    pub links: u32,
    pub user: u32,
    pub group: u32,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == SFlag::S_IFDIR
    }

    /// Whether it can be the root of a subvolume of btrfs.
    pub fn is_subvolume_of(&self, parent: &Self) -> bool {
        self.is_directory()
            && self.mount == parent.mount
            && self.inode == SUBVOLUME_INODE
            && self.device != parent.device
    }

    /// What lies between a directory that is reached from `other` and `other` itself; `None`: they are on one volume, so
    /// that names can be moved between them.
    pub fn border_to(&self, other: &Self) -> Option<Border> {
        if self.is_mount_root || self.mount != other.mount {
            return Some(Border::Mount);
        }
        // Files of some file systems (overlays) have other devices than their directories, and mean nothing by it.
        let is_other = self.is_directory() && self.device != other.device;
        is_other.then_some(match self.inode {
            SUBVOLUME_INODE => Border::Subvolume,
            // Where the kernel does not say what is a mount point, it may be the root of another file system.
            STANDS_FOR_SUBVOLUME if self.mount != 0 => Border::StandIn,
            _ => Border::Mount,
        })
    }
}

/// Why what is below is not a part of what is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Another file system, or another part of the same, is mounted here.
    Mount,
    /// A subvolume of btrfs begins here.
    Subvolume,
    /// It stands for a subvolume that is not here.
    StandIn,
}

impl Border {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "a mount point",
            Self::Subvolume => "a subvolume of its own",
            Self::StandIn => "the empty directory that stands for a subvolume in a snapshot",
        }
    }
}

/// Looks at a name in an open directory, without following a link.
pub fn look(directory: impl AsFd, name: &CStr) -> io::Result<Inode> {
    let found = file::statx(directory, name)?;
    let has = |attribute: i32| {
        found.stx_attributes & found.stx_attributes_mask & u64::try_from(attribute).unwrap_or(0) != 0
    };
    Ok(Inode {
        kind: SFlag::from_bits_truncate(u32::from(found.stx_mode)) & SFlag::S_IFMT,
        device: nix::sys::stat::makedev(found.stx_dev_major.into(), found.stx_dev_minor.into()),
        inode: found.stx_ino,
        mount: if found.stx_mask & libc::STATX_MNT_ID == 0 { 0 } else { found.stx_mnt_id },
        is_mount_root: has(libc::STATX_ATTR_MOUNT_ROOT),
        is_fixed: has(libc::STATX_ATTR_IMMUTABLE) || has(libc::STATX_ATTR_APPEND),
        links: found.stx_nlink,
        user: found.stx_uid,
        group: found.stx_gid,
        bytes: found.stx_blocks * 512,
    })
}

/// Looks at what is open.
pub fn of(file: impl AsFd) -> io::Result<Inode> {
    look(file, c"")
}

/// Looks at a path. Links on the way are followed, its last name is not.
pub fn of_path(path: &Path) -> io::Result<Inode> {
    let (parent, name) = open_parent(path)?;
    look(&parent, &name)
}

/// Opens the directory that holds the last name of a path, and says that name.
pub fn open_parent(path: &Path) -> io::Result<(OwnedFd, CString)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((open::directory(parent)?.into(), CString::new(name.as_bytes()).map_err(io::Error::other)?))
}

/// Opens a directory by its name in another one. No link is followed.
pub fn open_directory(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Opens the directory that holds a path within an open one: name by name, so that no link is followed, and no path too long.
pub fn open_parent_beneath(top: impl AsFd, within: &Path) -> io::Result<OwnedFd> {
    let mut directory = top.as_fd().try_clone_to_owned()?;
    for part in within.parent().unwrap_or(Path::new("")).iter() {
        let name = CString::new(part.as_bytes()).map_err(io::Error::other)?;
        directory = open_directory(&directory, &name)?;
    }
    Ok(directory)
}

/// The names in an open directory.
pub fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(directory.try_clone()?)?.iter() {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_told_from_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root =
            of_path(Path::new("/proc/self/..")).unwrap_or_else(|_| of_path(Path::new("/proc")).unwrap());
        let proc = of_path(Path::new("/proc")).unwrap();
        assert!(proc.is_directory() && proc.device == root.device);
        let here = of_path(directory.path()).unwrap();
        assert_eq!(proc.border_to(&here), Some(Border::Mount));
        assert_eq!(here.border_to(&here), None);
        assert!(!here.is_fixed && !here.is_mount_root);
    }
}
