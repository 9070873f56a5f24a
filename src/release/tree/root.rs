//! The directory beneath which a tree is written or read.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, Uid, getegid, geteuid};

use crate::sys::deep::{self, Fixed};
use crate::sys::disk::{Context, Disk, Error};

/// An open directory, and what must be known to write beneath it.
pub struct Root {
    descriptor: OwnedFd,
    path: PathBuf,
    disk: Disk,
    /// Who owns what this process makes.
    pub(super) owner: (Uid, Gid),
    /// Bits that the process takes from the modes of what it makes.
    pub(super) umask: u32,
    /// Directories that are made here get its group and this bit.
    pub(super) is_setgid: bool,
}

impl Root {
    /// Opens the directory `path`, which must not be a symbolic link.
    pub fn open(path: &Path, disk: &Disk) -> Result<Self, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let descriptor = nix::fcntl::open(path, flags, Mode::empty()).context("open the directory", path)?;
        let found = fstat(&descriptor).context("look at", path)?;
        Ok(Self {
            is_setgid: found.st_mode & 0o2000 != 0,
            descriptor,
            path: path.to_owned(),
            disk: disk.clone(),
            owner: (geteuid(), getegid()),
            umask: umask(),
        })
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user and group that own what this process makes.
    pub fn owner(&self) -> (u32, u32) {
        (self.owner.0.as_raw(), self.owner.1.as_raw())
    }

    /// Whether owners can be given as archives say.
    pub fn may_give_away(&self) -> bool {
        self.owner.0.is_root()
    }

    /// Where an entry of the tree is, for messages.
    pub fn path_of(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path)) }
    }

    /// Asks whether an entry may be made.
    pub fn ask(&self, path: &[u8]) -> Result<(), Error> {
        if self.disk.is_probed() { self.disk.ask("unpack", &self.path_of(path)) } else { Ok(()) }
    }

    /// Opens a directory beneath the root, without passing a symbolic link or another file system.
    ///
    /// # Errors
    /// Those of `openat2`; `ELOOP` or `ENOTDIR` where a component is no directory.
    pub fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        open_directory(&self.descriptor, path)
    }

    /// Opens what is there beneath the root, without passing or following a symbolic link.
    pub fn open_beneath(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        open_beneath(&self.descriptor, path, flags)
    }
}

/// Removes all that is in a directory. No link is followed, and the depth of the tree costs neither stack nor
/// descriptors.
pub fn empty(root: &Root, disk: &Disk) -> Result<(), Error> {
    disk.ask("remove", root.path())?;
    deep::empty(root, Fixed::Stays)
        .map_err(|failure| Error::new("remove", &root.path().join(failure.path), failure.source))
}

/// Opens a directory beneath another one.
pub(super) fn open_directory(from: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_beneath(from, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

fn open_beneath(from: &OwnedFd, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    loop {
        match openat2(from, path, how) {
            // Somebody renamed a directory meanwhile: the kernel cannot tell, and wants to be asked again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ENOSYS | Errno::EPERM) => return open_by_steps(from, path.as_bytes(), flags),
            opened => return opened,
        }
    }
}

/// The same, one component at a time, for kernels and sandboxes without `openat2`.
fn open_by_steps(from: &OwnedFd, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let (parents, last) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let mut at = openat(from, ".", step, Mode::empty())?;
    for name in parents.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if name == b".." {
            return Err(Errno::EXDEV);
        }
        at = openat(&at, name, step, Mode::empty())?;
    }
    if last == b".." {
        return Err(Errno::EXDEV);
    }
    openat(&at, last, flags, Mode::empty())
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The process' umask, which can only be read from `/proc` without changing it; all bits where that is not there, so
/// that modes are set again.
fn umask() -> u32 {
    let mut status = Vec::new();
    let read = File::open("/proc/self/status").and_then(|file| {
        use std::io::Read;
        file.take(1 << 16).read_to_end(&mut status)
    });
    let text = String::from_utf8_lossy(&status);
    let line = read.ok().and_then(|_| text.lines().find_map(|line| line.strip_prefix("Umask:")));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_is_passed_with_or_without_openat2() {
        let place = tempfile::tempdir().unwrap();
        nix::unistd::mkdir(&place.path().join("root"), Mode::S_IRWXU).unwrap();
        nix::unistd::mkdir(&place.path().join("root/a"), Mode::S_IRWXU).unwrap();
        nix::unistd::mkdir(&place.path().join("root/a/b"), Mode::S_IRWXU).unwrap();
        for (target, link) in [("..", "out"), ("a", "in"), ("/", "top")] {
            nix::unistd::symlinkat(target, nix::fcntl::AT_FDCWD, &place.path().join("root").join(link))
                .unwrap();
        }
        let root = Root::open(&place.path().join("root"), &Disk::default()).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let good: [&[u8]; 4] = [b"", b".", b"a", b"a/b"];
        for path in good {
            root.directory(path).unwrap();
            open_by_steps(&root.descriptor, if path.is_empty() { b"." } else { path }, flags).unwrap();
        }
        let bad: [&[u8]; 7] = [b"..", b"a/..", b"out", b"in", b"in/b", b"top/tmp", b"../root/a"];
        for path in bad {
            assert!(root.directory(path).is_err() || path == b"a/..", "{path:?}");
            assert!(open_by_steps(&root.descriptor, path, flags).is_err(), "{path:?}");
        }
    }
}
