//! Emptying directories, however deep they are and whoever filled them.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How many directories are open at once; what is deeper is first moved up to the root.
const DEPTH_MAX: usize = 64;

struct Level {
    directory: OwnedFd,
    name: CString,
    directories: Vec<CString>,
}

/// Removes all that is in a directory. No link is followed, and the depth of the tree costs neither stack nor descriptors.
///
/// # Errors
/// The first one; what could be removed until then is gone.
pub fn empty(root: &impl AsFd) -> Result<(), Errno> {
    let mut moved = 0_u64;
    loop {
        let before = moved;
        let mut levels = vec![level(open_own(root, c".")?, CString::default())?];
        loop {
            let depth = levels.len();
            let Some(level_here) = levels.last_mut() else { break };
            let Some(name) = level_here.directories.pop() else {
                let Some(done) = levels.pop() else { break };
                if let Some(parent) = levels.last() {
                    match unlinkat(&parent.directory, done.name.as_c_str(), UnlinkatFlags::RemoveDir) {
                        Ok(()) | Err(Errno::ENOENT) => {}
                        Err(error) => return Err(error),
                    }
                }
                continue;
            };
            let here = &level_here.directory;
            if depth < DEPTH_MAX {
                let opened = open_own(here, &name)?;
                levels.push(level(opened, name)?);
            } else {
                // The name is long gone from the root if an earlier run made it; else it is free.
                let to = format!(".cutover-deep-{moved}");
                moved += 1;
                match renameat(here, name.as_c_str(), root, OsStr::new(&to)) {
                    Ok(()) => {}
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) => level_here.directories.push(name),
                    Err(error) => return Err(error),
                }
            }
        }
        if moved == before {
            return Ok(());
        }
    }
}

/// Opens a directory; one that its owner may not read is made readable first.
fn open_own(parent: &impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {
            let flag = nix::sys::stat::FchmodatFlags::NoFollowSymlink;
            nix::sys::stat::fchmodat(parent, name, Mode::S_IRWXU, flag)?;
            openat(parent, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Removes what is no directory, and lists the directories.
fn level(directory: OwnedFd, name: CString) -> Result<Level, Errno> {
    let found = fstat(&directory)?;
    if found.st_mode & 0o700 != 0o700 && !nix::unistd::geteuid().is_root() {
        fchmod(&directory, Mode::S_IRWXU)?;
    }
    let mut directories = Vec::new();
    let mut listing = Dir::from_fd(directory.try_clone().map_err(|_| Errno::EMFILE)?)?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == Some(Type::Directory) {
            directories.push(name.to_owned());
            continue;
        }
        match unlinkat(&directory, OsStr::from_bytes(name.to_bytes()), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR | Errno::EPERM) if entry.file_type().is_none() => {
                directories.push(name.to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Level { directory, name, directories })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn a_tree_deeper_than_paths_and_descriptors_reach_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let root = File::open(place.path()).unwrap();
        let mut at = OwnedFd::from(root.try_clone().unwrap());
        for _ in 0..10_000 {
            mkdirat(&at, "deeper", Mode::S_IRWXU).unwrap();
            nix::unistd::symlinkat("/", &at, "link").unwrap();
            at = open_own(&at, c"deeper").unwrap();
        }
        empty(&root).unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
