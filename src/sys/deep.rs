//! Emptying directories, however deep they are and whoever filled them. What is mounted in there, or is a subvolume of
//! its own, is somebody else's: nothing is removed across such a border.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::inode::{self, Inode};
use super::kernel::file;

/// How many directories are open at once; what is deeper is first moved up to the root.
const DEPTH_MAX: usize = 64;
const FIXED: i32 = 0x20 | 0x10;

/// What happens to files that nobody may change (`chattr +i`, `+a`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// They are in the way.
    Stays,
    /// They lose that flag, and go.
    Goes,
}

/// Something that cannot be removed.
#[derive(Debug)]
pub struct Failure {
    /// Where, from the directory that was to be emptied; only its end is known where directories are very deep.
    pub path: PathBuf,
    pub source: io::Error,
}

struct Level {
    directory: OwnedFd,
    name: CString,
    directories: Vec<CString>,
}

/// Removes all that is in a directory. No link is followed, and the depth of the tree costs neither stack nor descriptors.
///
/// # Errors
/// The first one; what could be removed until then is gone.
pub fn empty(root: &impl AsFd, fixed: Fixed) -> Result<(), Failure> {
    let top = inode::of(root.as_fd()).map_err(|source| Failure { path: PathBuf::new(), source })?;
    let mut moved = 0_u64;
    loop {
        let before = moved;
        let mut levels = Vec::new();
        if let Err(source) = empty_once(root, &top, fixed, &mut levels, &mut moved) {
            let names = levels.iter().skip(1).map(|level| OsStr::from_bytes(level.name.to_bytes()));
            return Err(Failure { path: names.chain(source.0.as_deref()).collect(), source: source.1 });
        }
        if moved == before {
            return Ok(());
        }
    }
}

/// A name, and what is wrong with it.
type Wrong = (Option<std::ffi::OsString>, io::Error);

fn at(name: &CStr) -> impl Fn(io::Error) -> Wrong {
    let name = OsStr::from_bytes(name.to_bytes()).to_owned();
    move |error| (Some(name.clone()), error)
}

fn empty_once(
    root: &impl AsFd,
    top: &Inode,
    fixed: Fixed,
    levels: &mut Vec<Level>,
    moved: &mut u64,
) -> Result<(), Wrong> {
    levels.push(level(open_within(root, c".", top).map_err(at(c""))?, CString::default(), fixed)?);
    loop {
        let depth = levels.len();
        let Some(level_here) = levels.last_mut() else { return Ok(()) };
        let Some(name) = level_here.directories.pop() else {
            let Some(done) = levels.pop() else { return Ok(()) };
            if let Some(parent) = levels.last() {
                let flag = UnlinkatFlags::RemoveDir;
                remove(&parent.directory, &done.name, flag, fixed).map_err(at(&done.name))?;
            }
            continue;
        };
        let here = &level_here.directory;
        if depth < DEPTH_MAX {
            let opened = open_within(here, &name, top).map_err(at(&name))?;
            levels.push(level(opened, name, fixed)?);
        } else {
            // The name is long gone from the root if an earlier run made it; else it is free.
            let to = format!(".cutover-deep-{moved}");
            *moved += 1;
            match renameat(here, name.as_c_str(), root, OsStr::new(&to)) {
                Ok(()) => {}
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => level_here.directories.push(name),
                Err(error) => return Err(at(&name)(error.into())),
            }
        }
    }
}

/// Opens a directory; one that its owner may not read is made readable first.
pub(super) fn open_own(parent: &impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    match inode::open_directory(parent, name) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            let flag = nix::sys::stat::FchmodatFlags::NoFollowSymlink;
            nix::sys::stat::fchmodat(parent, name, Mode::S_IRWXU, flag)?;
            inode::open_directory(parent, name)
        }
        opened => opened,
    }
}

/// The same for one that must be on the mount and device of `top`.
pub(super) fn open_within(parent: &impl AsFd, name: &CStr, top: &Inode) -> io::Result<OwnedFd> {
    let opened = open_own(parent, name)?;
    let found = inode::of(&opened)?;
    if (found.mount, found.device) == (top.mount, top.device) {
        return Ok(opened);
    }
    let what = found.border_to(top).map_or("another file system", |border| border.name());
    Err(io::Error::other(format!(
        "it is {what}, whose content is not removed: unmount or remove it yourself"
    )))
}

/// Removes what is no directory, and lists the directories.
fn level(directory: OwnedFd, name: CString, fixed: Fixed) -> Result<Level, Wrong> {
    let whole = |error: Errno| at(&name)(error.into());
    let found = fstat(&directory).map_err(whole)?;
    if found.st_mode & 0o700 != 0o700 && !nix::unistd::geteuid().is_root() {
        fchmod(&directory, Mode::S_IRWXU).map_err(whole)?;
    }
    let mut directories = Vec::new();
    let copy = directory.try_clone().map_err(at(&name))?;
    let mut listing = Dir::from_fd(copy).map_err(whole)?;
    for entry in listing.iter() {
        let entry = entry.map_err(whole)?;
        let inner = entry.file_name();
        if matches!(inner.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == Some(Type::Directory) {
            directories.push(inner.to_owned());
            continue;
        }
        match remove(&directory, inner, UnlinkatFlags::NoRemoveDir, fixed) {
            Ok(()) => {}
            Err(error)
                if entry.file_type().is_none()
                    && [Some(libc::EISDIR), Some(libc::EPERM)].contains(&error.raw_os_error()) =>
            {
                directories.push(inner.to_owned());
            }
            Err(error) => {
                let path = std::path::Path::new(OsStr::from_bytes(name.to_bytes()));
                return Err((Some(path.join(OsStr::from_bytes(inner.to_bytes())).into()), error));
            }
        }
    }
    drop(listing);
    Ok(Level { directory, name, directories })
}

/// Removes one name. One that is not there is no error.
pub(super) fn remove(directory: &OwnedFd, name: &CStr, flag: UnlinkatFlags, fixed: Fixed) -> io::Result<()> {
    let unlink = || match unlinkat(directory, name, flag) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    };
    match unlink() {
        Err(Errno::EPERM) if fixed == Fixed::Goes => {
            loosen(directory)?;
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            // What is neither file nor directory has no such flags.
            let file = openat(directory, name, flags, Mode::empty()).ok();
            let before = file.as_ref().map(loosen).transpose()?;
            unlink()?;
            // It may have another name elsewhere, where nothing is to change.
            if let (Some(file), Some(flags)) = (file, before)
                && flags & FIXED != 0
                && fstat(&file)?.st_nlink > 0
            {
                file::set_flags(&file, flags)?;
            }
            Ok(())
        }
        removed => Ok(removed?),
    }
}

/// Takes off what forbids changes; the flags from before.
fn loosen(file: &OwnedFd) -> io::Result<i32> {
    let flags = file::flags(file)?;
    if flags & FIXED != 0 {
        file::set_flags(file, flags & !FIXED)?;
    }
    Ok(flags)
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
            at = inode::open_directory(&at, c"deeper").unwrap();
        }
        empty(&root, Fixed::Stays).unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
