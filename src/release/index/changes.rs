//! Which files of a staged tree are no longer what staging made of them.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::geteuid;

use super::meta::parent_of;
use super::seen::Installed;
use super::staging::{Owner, is_whole};
use super::{Error, Record};
use crate::release::scan;
use crate::release::tree::{Root, can_become};
use crate::sys::disk::Disk;
use crate::sys::{access_list, kernel::file};
use crate::types::Spans;
use crate::types::entry::{Entry, Kind, path_order};

/// What a look at a file tells, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is what staging made.
    Same,
    /// Only its content and attributes can tell.
    Unsure,
    /// It is another one, or was changed.
    Changed,
}

/// Looks at the file `name` in an open directory. `inode` is the number that staging saw.
pub fn look(
    found: &FileStat,
    (directory, name): (impl AsFd, &[u8]),
    entry: &Entry,
    inode: Option<u64>,
    owner: Owner,
    spans: &Spans,
) -> Look {
    let Kind::File { size, .. } = entry.kind else { return Look::Changed };
    let meta = owner.meta(entry);
    let is_file = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let is_alike = is_file
        && u64::try_from(found.st_size) == Ok(size)
        && u32::try_from(found.st_mtime_nsec)
            .is_ok_and(|nanoseconds| can_become(entry.mtime, (found.st_mtime, nanoseconds)))
        && found.st_mode & 0o7777 == meta.mode
        && (found.st_uid, found.st_gid) == (meta.uid, meta.gid);
    if !is_alike {
        return Look::Changed;
    }
    // A tree that came back from a backup has other inodes, and perhaps the same contents.
    let is_ours =
        inode == Some(found.st_ino) && spans.have(Spans::moment(found.st_ctime, found.st_ctime_nsec));
    if is_ours && entry.xattrs.is_empty() && has_no_attributes(directory, name) {
        Look::Same
    } else {
        Look::Unsure
    }
}

/// Whether a file has surely none of the attributes that count.
fn has_no_attributes(directory: impl AsFd, name: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut buffer = [0; 1024];
    if let Ok(names) = file::attribute_names(&directory, name, &mut buffer) {
        return names.split(|byte| *byte == 0).all(|name| !counts(name));
    }
    // Where the kernel does not have that call, the way leads through `/proc`, which takes as long as all the rest of a look.
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend(name);
    match xattr::list(std::ffi::OsStr::from_bytes(&path)) {
        Ok(mut names) => names.all(|name| !counts(name.as_bytes())),
        Err(error) => error.raw_os_error() == Some(libc::EOPNOTSUPP),
    }
}

fn counts(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability" || access_list::is_one(name)
}

/// Whether an open file has the content and the attributes of its entry.
pub fn is_same(file: &File, entry: &Entry) -> std::io::Result<bool> {
    Ok(scan::attributes(file)? == entry.xattrs && is_whole(file, entry)?)
}

#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// So many files that differ are enough.
    pub named: usize,
    /// So many files are looked at.
    pub looked: usize,
}

/// Files of a tree that were changed or removed since it was staged, in path order. Files of which only reading can tell
/// are read: they are few, unless somebody has linked or copied all of them. Those in whose place the node has something of
/// its own (`is_replaced`) do not count.
pub fn changes(
    tree: &Path,
    installed: &Installed,
    spans: &Spans,
    is_replaced: &dyn Fn(&[u8]) -> bool,
    most: Most,
) -> Result<Vec<Vec<u8>>, Error> {
    let root = Root::open(tree, &Disk::default())?;
    let owner = Owner::of_process();
    let mut changed = Vec::new();
    let mut parent: Option<(Vec<u8>, Option<OwnedFd>)> = None;
    let mut number = 0;
    for record in installed.index.records() {
        let Record { entry, .. } = record?;
        if changed.len() >= most.named || number >= most.looked {
            break;
        }
        if !matches!(entry.kind, Kind::File { .. }) || entry.same_as.is_some() {
            continue;
        }
        let inode = installed.seen.inodes.get(number).copied();
        number += 1;
        if is_replaced(&entry.path) {
            continue;
        }
        let directory = parent_of(&entry.path);
        if parent.as_ref().is_none_or(|(path, _)| path != directory) {
            parent = Some((directory.to_vec(), root.directory(directory).ok()));
        }
        let Some((_, Some(opened))) = &parent else {
            changed.push(entry.path);
            continue;
        };
        let start = entry.path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let name = &entry.path[start..];
        let is_same = match fstatat(opened, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(_) => false,
            Ok(found) => match look(&found, (opened, name), &entry, inode, owner, spans) {
                Look::Same => true,
                Look::Changed => false,
                Look::Unsure => {
                    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                    let opened = openat(opened, name, flags, Mode::empty());
                    opened.is_ok_and(|file| is_same(&File::from(file), &entry).unwrap_or(false))
                }
            },
        };
        if !is_same {
            changed.push(entry.path);
        }
    }
    Ok(changed)
}

/// What else differs where all files are what they were: entries that the release does not have, and directories and links
/// that are gone or other ones; at most so many. Only where none is so: directories in which somebody was at work, by
/// their times.
pub fn other_changes(
    tree: &Path,
    installed: &Installed,
    is_replaced: &dyn Fn(&[u8]) -> bool,
    most: usize,
) -> Result<Vec<Vec<u8>>, Error> {
    let owner = Owner::of_process();
    let mut missing = HashMap::new();
    for record in installed.index.records() {
        let entry = record?.entry;
        let is_file = matches!(entry.kind, Kind::File { .. });
        missing.insert(entry.path.clone(), (!is_file).then(|| owner.as_here(entry)));
    }
    let (mut changed, mut touched) = (Vec::new(), Vec::new());
    let mut walk = scan::walk_unread(tree)?;
    for found in walk.by_ref() {
        let found = found?;
        let meta = |entry: &Entry| (entry.mode, entry.uid, entry.gid);
        let is_same = |entry: &Entry| {
            entry.kind == found.kind && entry.xattrs == found.xattrs && meta(entry) == meta(&found)
        };
        match missing.remove(&found.path) {
            Some(None) => {}
            Some(Some(entry)) if is_same(&entry) => {
                if !can_become(entry.mtime, found.mtime) {
                    touched.push(found.path);
                }
            }
            Some(Some(_)) | None => changed.push(found.path),
        }
    }
    changed.extend(walk.others().iter().cloned());
    changed.extend(missing.into_iter().filter_map(|(path, entry)| entry.map(|_| path)));
    for paths in [&mut changed, &mut touched] {
        paths.retain(|path| !is_replaced(path));
        paths.sort_by(|one, other| path_order(one, other));
        paths.truncate(most);
    }
    Ok(if changed.is_empty() { touched } else { changed })
}

/// Whether a file that is shared with other trees could be changed by somebody who is not root: then it is copied.
pub fn is_open_to_others(uid: u32, gid: u32, mode: u32) -> bool {
    let me = geteuid().as_raw();
    uid != me || mode & 0o002 != 0 || (mode & 0o020 != 0 && me == 0 && gid != 0)
}
