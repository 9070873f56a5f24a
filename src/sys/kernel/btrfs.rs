//! Subvolumes of btrfs, and their snapshots. Sync the parent directory of one that was created or deleted.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use super::file::file_system_kind;
use crate::sys::open;

const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;
/// A subvolume's root always has this inode number, and no other directory of btrfs has it.
const SUBVOLUME_INODE: u64 = 256;
const READ_ONLY: u64 = 1 << 1;
/// linux/btrfs_tree.h: BTRFS_ROOT_SUBVOL_RDONLY: the same, as a subvolume's information says it
const ROOT_READ_ONLY: u64 = 1;
const NAME_BYTES_MAX: usize = 4039;

/// linux/btrfs.h: `struct btrfs_ioctl_vol_args_v2`, with its unions as plain bytes.
#[repr(C)]
struct VolumeArguments {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME_BYTES_MAX + 1],
}

/// linux/btrfs.h: `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct SubvolumeInformation {
    tree: u64,
    name: [u8; 256],
    parent: u64,
    directory: u64,
    generation: u64,
    flags: u64,
    identifiers: [u8; 48],
    changed_in: u64,
    made_in: u64,
    sent_in: u64,
    received_in: u64,
    times: [u64; 8],
    reserved: [u64; 8],
}

mod raw {
    use super::{SubvolumeInformation, VolumeArguments};
    nix::ioctl_write_ptr!(subvolume_create, 0x94, 24, VolumeArguments);
    nix::ioctl_write_ptr!(snapshot_create, 0x94, 23, VolumeArguments);
    nix::ioctl_write_ptr!(subvolume_delete, 0x94, 63, VolumeArguments);
    nix::ioctl_read!(get_information, 0x94, 60, SubvolumeInformation);
    nix::ioctl_write_ptr!(set_flags, 0x94, 26, u64);
}

/// Whether `path` lies on btrfs.
pub fn is_btrfs(path: &Path) -> io::Result<bool> {
    Ok(file_system_kind(&nix::sys::statfs::statfs(path)?) == BTRFS_SUPER_MAGIC)
}

/// Whether `path` is the root of a subvolume of btrfs.
pub fn is_subvolume(path: &Path) -> io::Result<bool> {
    let found = std::fs::symlink_metadata(path)?;
    Ok(found.is_dir() && found.ino() == SUBVOLUME_INODE && is_btrfs(path)?)
}

/// Makes an empty subvolume at `path`. Mode 0755, owned by the caller.
pub fn create_subvolume(path: &Path) -> io::Result<()> {
    let (parent, arguments) = arguments(path, -1, 0)?;
    // SAFETY: the argument is a whole `btrfs_ioctl_vol_args_v2`, its name ends in a zero byte.
    unsafe { raw::subvolume_create(parent.as_raw_fd(), &raw const *arguments) }?;
    Ok(())
}

/// Takes a snapshot of the subvolume `source` at `path`, which must not exist. It is durable, with all that was written
/// to `source` before, when this returns.
pub fn snapshot(source: &Path, path: &Path, is_read_only: bool) -> io::Result<()> {
    let source = open::directory(source)?;
    let flags = if is_read_only { READ_ONLY } else { 0 };
    let (parent, arguments) = arguments(path, i64::from(source.as_raw_fd()), flags)?;
    // SAFETY: as above; the descriptor in it is open until the end of this function.
    unsafe { raw::snapshot_create(parent.as_raw_fd(), &raw const *arguments) }?;
    Ok(())
}

/// Deletes the subvolume at `path`, also one that is read-only. Returns at once; the kernel frees the space later.
pub fn delete_subvolume(path: &Path) -> io::Result<()> {
    let (parent, mut arguments) = arguments(path, 0, 0)?;
    arguments.descriptor = 0;
    // SAFETY: as above; with flags 0 the kernel reads the name only.
    unsafe { raw::subvolume_delete(parent.as_raw_fd(), &raw const *arguments) }?;
    Ok(())
}

/// Whether `path` is a read-only snapshot that nobody has written to since it was taken, also not meanwhile.
pub fn is_pristine_snapshot(path: &Path) -> io::Result<bool> {
    if !is_subvolume(path)? {
        return Ok(false);
    }
    let subvolume = open::directory(path)?;
    let mut found = Box::new(SubvolumeInformation {
        tree: 0,
        name: [0; 256],
        parent: 0,
        directory: 0,
        generation: 0,
        flags: 0,
        identifiers: [0; 48],
        changed_in: 0,
        made_in: 0,
        sent_in: 0,
        received_in: 0,
        times: [0; 8],
        reserved: [0; 8],
    });
    // SAFETY: the kernel writes one `btrfs_ioctl_get_subvol_info_args` to where the pointer shows.
    unsafe { raw::get_information(subvolume.as_raw_fd(), &raw mut *found) }?;
    Ok(found.flags & ROOT_READ_ONLY != 0 && found.changed_in <= found.made_in)
}

/// Makes the subvolume at `path` refuse or take writes. Does not make its files durable: sync before.
pub fn set_read_only(path: &Path, is_read_only: bool) -> io::Result<()> {
    let subvolume = open::directory(path)?;
    let flags: u64 = if is_read_only { READ_ONLY } else { 0 };
    // SAFETY: the kernel reads one u64 from where the pointer shows.
    unsafe { raw::set_flags(subvolume.as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// The opened parent directory of `path`, and the arguments that name it there.
fn arguments(path: &Path, descriptor: i64, flags: u64) -> io::Result<(File, Box<VolumeArguments>)> {
    let name = path.file_name().map(OsStr::as_bytes).ok_or(Errno::EINVAL)?;
    if name.len() > 255 {
        return Err(Errno::ENAMETOOLONG.into());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut arguments = Box::new(VolumeArguments {
        descriptor,
        transaction: 0,
        flags,
        unused: [0; 4],
        name: [0; NAME_BYTES_MAX + 1],
    });
    arguments.name[..name.len()].copy_from_slice(name);
    Ok((open::directory(parent)?, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_have_the_kernels_size() {
        assert_eq!(size_of::<VolumeArguments>(), 4096);
        assert_eq!(size_of::<SubvolumeInformation>(), 504);
    }

    #[test]
    fn an_ordinary_directory_is_no_subvolume() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::DirBuilder::new().create(&inner).unwrap();
        assert!(!is_subvolume(&inner).unwrap());
    }
}
