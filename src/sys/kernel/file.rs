//! What a file is beyond its mode: flags, project, names of attributes, shared blocks; and the kind of its file system.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::NixPath as _;
use nix::errno::Errno;

const EXT4_SUPER_MAGIC: u64 = 0xef53;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// linux/fs.h: `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    shared_extent_size: u32,
    padding: [u8; 8],
}

impl FileAttributes {
    fn project(&self) -> Project {
        Project { id: self.project, is_handed_on: self.flags & HANDS_PROJECT_ON != 0 }
    }
}

/// linux/fs.h: FS_XFLAG_PROJINHERIT
const HANDS_PROJECT_ON: u32 = 0x200;

/// The project whose quota a file or directory counts for (`lsattr -p`, `xfs_quota`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Project {
    pub id: u32,
    /// Whether what is made in this directory belongs to it as well, and nothing of another one may be moved here.
    pub is_handed_on: bool,
}

impl Project {
    /// Whether the kernel lets something of the project `other` be renamed into a directory of this one.
    pub fn takes(self, other: Self) -> bool {
        !self.is_handed_on || self.id == other.id
    }
}

mod raw {
    use super::FileAttributes;
    nix::ioctl_write_int!(clone, 0x94, 9);
    // linux/fs.h: FS_IOC_GETFLAGS and FS_IOC_SETFLAGS; the kernel reads and writes an int, whatever the header says.
    nix::ioctl_read!(get_file_flags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set_file_flags, b'f', 2, libc::c_long);
    nix::ioctl_read!(get_attributes, b'X', 31, FileAttributes);
    nix::ioctl_write_ptr!(set_attributes, b'X', 32, FileAttributes);
}

/// linux/unistd.h: `listxattrat`, since Linux 6.13, with one number on all machines.
const LIST_ATTRIBUTES: libc::c_long = 465;

/// The names of the extended attributes of a file, each with a zero behind it. No link is followed.
///
/// # Errors
/// Also when the kernel is older than 6.13, or the names are longer than the buffer.
pub fn attribute_names<'a>(directory: impl AsFd, name: &[u8], buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let (directory, flags) = (directory.as_fd().as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    let (list, size) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the name ends with a zero, the kernel writes at most `size` bytes, and both live until the call returns.
    let length = name.with_nix_path(|name| unsafe {
        libc::syscall(LIST_ATTRIBUTES, directory, name.as_ptr(), flags, list, size)
    })?;
    let length = usize::try_from(Errno::result(length)?).map_err(io::Error::other)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// What the kernel says of `name` in an open directory, or with an empty name of what is open itself. No link is followed,
/// and nothing is mounted for it.
pub fn statx(directory: impl AsFd, name: &CStr) -> io::Result<libc::statx> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: every field of the C struct may be zero; the name ends in a zero byte; the kernel fills in the struct only.
    let (answer, found) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let directory = directory.as_fd().as_raw_fd();
        (libc::statx(directory, name.as_ptr(), flags, mask, &raw mut found), found)
    };
    Errno::result(answer)?;
    Ok(found)
}

/// The flags of an open file or directory that `chattr` shows; none where the file system has none.
pub fn flags(file: impl AsFd) -> io::Result<i32> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes at most one long to where the pointer shows.
    match unsafe { raw::get_file_flags(file.as_fd().as_raw_fd(), &raw mut flags) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(0),
        Err(error) => Err(error.into()),
        // The kernel writes an int to the start of it.
        Ok(_) => Ok(i32::from_ne_bytes([0, 1, 2, 3].map(|at| flags.to_ne_bytes()[at]))),
    }
}

pub fn set_flags(file: impl AsFd, flags: i32) -> io::Result<()> {
    let mut bytes = [0; size_of::<libc::c_long>()];
    bytes[..4].copy_from_slice(&flags.to_ne_bytes());
    let flags = libc::c_long::from_ne_bytes(bytes);
    // SAFETY: the kernel reads one int from where the pointer shows, which is a whole long.
    unsafe { raw::set_file_flags(file.as_fd().as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// The project of an open file or directory; that of everybody where the file system has none.
pub fn project(file: impl AsFd) -> io::Result<Project> {
    Ok(attributes_of(&file)?.map(|found| found.project()).unwrap_or_default())
}

/// Gives an open file or directory to a project.
pub fn set_project(file: impl AsFd, wanted: Project) -> io::Result<()> {
    let Some(mut attributes) = attributes_of(&file)?.filter(|now| now.project() != wanted) else {
        return Ok(());
    };
    attributes.project = wanted.id;
    attributes.flags &= !HANDS_PROJECT_ON;
    attributes.flags |= if wanted.is_handed_on { HANDS_PROJECT_ON } else { 0 };
    // SAFETY: the kernel reads one whole `fsxattr` from where the pointer shows.
    match unsafe { raw::set_attributes(file.as_fd().as_raw_fd(), &raw const attributes) } {
        // In a user namespace nobody may.
        Err(Errno::EPERM | Errno::EINVAL) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn attributes_of(file: impl AsFd) -> io::Result<Option<FileAttributes>> {
    let mut attributes = FileAttributes::default();
    // SAFETY: the kernel writes one whole `fsxattr` to where the pointer shows.
    match unsafe { raw::get_attributes(file.as_fd().as_raw_fd(), &raw mut attributes) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some(attributes)),
    }
}

/// Makes `to`, an empty file, share all blocks of `from` (reflink). Both must be on one file system that can do it:
/// the error is `EOPNOTSUPP`, `EXDEV`, `EINVAL` or `ENOTTY` where it cannot.
pub fn clone_file(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let source = u64::try_from(from.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: both descriptors are borrowed and so open; the argument is a number, no memory is shared.
    unsafe { raw::clone(to.as_fd().as_raw_fd(), source) }?;
    Ok(())
}

/// Whether this error of [`clone_file`] or [`super::btrfs::snapshot`] says that the file system cannot do it at all.
pub fn is_unsupported(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS))
}

/// The number in linux/magic.h; C libraries differ in its type.
pub fn file_system_kind(found: &nix::sys::statfs::Statfs) -> u64 {
    u64::from_ne_bytes(found.filesystem_type().0.to_ne_bytes())
}

/// Lets two names change places in one step.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let as_c = |path: &Path| std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
    let (one, other) = (as_c(one)?, as_c(other)?);
    let here = libc::AT_FDCWD;
    // Not every C library has a function for it.
    // SAFETY: the kernel reads two texts that end with a zero and outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Whether `path` lies on an overlay, as the root of a container does.
pub fn is_overlay(path: &Path) -> io::Result<bool> {
    Ok(file_system_kind(&nix::sys::statfs::statfs(path)?) == OVERLAYFS_SUPER_MAGIC)
}

/// Whether `path` lies on a file system of which it is known that files never share blocks there.
pub fn never_shares_blocks(path: &Path) -> io::Result<bool> {
    let kind = file_system_kind(&nix::sys::statfs::statfs(path)?);
    Ok([EXT4_SUPER_MAGIC, TMPFS_MAGIC].contains(&kind))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::sys::open;

    #[test]
    fn names_of_attributes_are_found_in_a_directory_and_no_link_is_followed() {
        use xattr::FileExt as _;
        let place = tempfile::tempdir().unwrap();
        let file = File::create(place.path().join("file")).unwrap();
        nix::unistd::symlinkat("file", nix::fcntl::AT_FDCWD, &place.path().join("link")).unwrap();
        let directory = open::directory(place.path()).unwrap();
        let names = |name: &str, length: usize| {
            let mut buffer = vec![0; length];
            attribute_names(&directory, name.as_bytes(), &mut buffer).map(<[u8]>::to_vec)
        };
        let marked = file.set_xattr("user.mark", b"1");
        match names("file", 100) {
            // An older kernel, or a container that lets no new calls through.
            Err(error) if [Some(libc::ENOSYS), Some(libc::EPERM)].contains(&error.raw_os_error()) => {}
            found => {
                let is_marked =
                    |names: &[u8]| names.split(|byte| *byte == 0).any(|name| name == b"user.mark");
                assert_eq!(is_marked(&found.unwrap()), marked.is_ok());
                assert!(!is_marked(&names("link", 100).unwrap()));
                assert!(marked.is_err() || names("file", 3).is_err());
                assert!(names("other", 100).is_err());
            }
        }
    }
}
