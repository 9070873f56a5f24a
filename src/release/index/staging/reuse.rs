//! Takes over files of a tree that is there already.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};
use sha2::{Digest as _, Sha256};

use super::super::changes::{Look, is_open_to_others, is_same, look};
use super::super::meta::parent_of;
use super::super::seen::Installed;
use super::super::{Error, Record};
use super::StageOrder;
use super::owner::Owner;
use crate::release::tree::{Root, TreeWriter};
use crate::sys::disk::{Context as _, Disk};
use crate::sys::kernel::file;
use crate::types::entry::{Entry, Kind};
use crate::types::{Digest, Spans};

/// A file with more names than this is copied, not linked: its further names in the new tree must fit as well, and file
/// systems have room for 32,000 (ext3) or 65,000 (ext4).
const NAMES_MANY: libc::nlink_t = 1000;

/// How the unchanged part of a new tree comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The new tree begins as a writable snapshot of the base.
    Btrfs,
    Reflink,
    Hardlink,
    Copy,
}

/// A tree on this node, and the record that staging left of it.
pub struct Base {
    pub tree: PathBuf,
    pub installed: Installed,
}

/// Takes files over from a base.
pub struct Reuse<'a> {
    installed: &'a Installed,
    method: Method,
    root: Root,
    owner: Owner,
    /// The directory of the last file.
    parent: Option<(Vec<u8>, OwnedFd)>,
    can_clone: bool,
    is_suspect: bool,
    spans: &'a Spans,
    buffer: Vec<u8>,
}

impl<'a> Reuse<'a> {
    /// From this base, by this method.
    pub fn new(base: &'a Base, order: &StageOrder<'a>, owner: Owner, disk: &Disk) -> Result<Self, Error> {
        let root = Root::open(&base.tree, disk)?;
        let method = order.method;
        let can_clone = method != Method::Copy;
        Ok(Self {
            installed: &base.installed,
            method,
            root,
            owner,
            parent: None,
            can_clone,
            is_suspect: order.is_suspect,
            spans: order.spans,
            buffer: Vec::new(),
        })
    }

    /// Makes the file `new` of the base's file `old`, whose content is the same. Says the new inode number, or `None`
    /// when the base's file is not what staging made of it: then its content must come from the archive.
    pub fn take(
        &mut self,
        writer: &mut TreeWriter,
        new: &Record,
        old: &Record,
        old_number: usize,
    ) -> Result<Option<u64>, Error> {
        // One digest with two sizes is a lie of one of them.
        if !has_same_content(&new.entry, &old.entry) {
            return Ok(None);
        }
        let name = name_of(&old.entry.path);
        let parent = match self.directory(parent_of(&old.entry.path)) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            opened => opened.context_at("open the directory of", || self.root.path_of(&old.entry.path))?,
        };
        let found = match fstatat(&parent.1, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(None),
            found => found.context_at("look at", || self.root.path_of(&old.entry.path))?,
        };
        let inode = self.installed.seen.inodes.get(old_number).copied();
        let seen = look(&found, (&parent.1, name), &old.entry, inode, self.owner, self.spans);
        if seen == Look::Changed {
            self.parent = Some(parent);
            return Ok(None);
        }
        let parent = self.parent.insert(parent);
        let path = || self.root.path_of(&old.entry.path);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = || openat(&parent.1, name, flags, Mode::empty()).context_at("open", path).map(File::from);
        let is_unsure = self.is_suspect || seen == Look::Unsure;
        if is_unsure && !is_same(&open()?, &old.entry).context_at("read", path)? {
            return Ok(None);
        }
        let is_open = is_open_to_others(found.st_uid, found.st_gid, found.st_mode);
        let has_room = found.st_nlink <= NAMES_MANY;
        if self.method == Method::Hardlink
            && has_room
            && !is_open
            && has_same_metadata(&new.entry, &old.entry)
        {
            // Whatever forbids a link (an immutable file, too many names, a border), a copy does as well; and what forbids
            // that, too, is told then.
            if writer.hard_link_from(&new.entry.path, parent.1.as_fd(), name).is_ok() {
                return Ok(Some(found.st_ino));
            }
        }
        let (source, path) = (open()?, path());
        self.copy(writer, &new.entry, &source, &path)
    }

    /// Opens a file of the base that still has its content, read from one end to the other.
    pub fn open_whole(&mut self, old: &Record, old_number: usize) -> Result<Option<File>, Error> {
        let path = || self.root.path_of(&old.entry.path);
        let (name, flags) =
            (name_of(&old.entry.path), OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC);
        let Ok(parent) = self.root.directory(parent_of(&old.entry.path)) else { return Ok(None) };
        let Ok(opened) = openat(&parent, name, flags | OFlag::O_NONBLOCK, Mode::empty()) else {
            return Ok(None);
        };
        let found = fstat(&opened).context_at("look at", path)?;
        let file = File::from(opened);
        let inode = self.installed.seen.inodes.get(old_number).copied();
        let seen = look(&found, (&parent, name), &old.entry, inode, self.owner, self.spans);
        let is_good = seen != Look::Changed && is_whole(&file, &old.entry).context_at("read", path)?;
        Ok(is_good.then_some(file))
    }

    fn directory(&mut self, path: &[u8]) -> Result<(Vec<u8>, OwnedFd), Errno> {
        match self.parent.take() {
            Some((last, descriptor)) if last == path => Ok((last, descriptor)),
            _ => Ok((path.to_vec(), self.root.directory(path)?)),
        }
    }

    /// Makes a file with the content of `source`: a clone where that is possible, else a copy, which is hashed.
    fn copy(
        &mut self,
        writer: &mut TreeWriter,
        new: &Entry,
        source: &File,
        source_path: &Path,
    ) -> Result<Option<u64>, Error> {
        let Kind::File { size, content } = new.kind else { return Ok(None) };
        let meta = self.owner.meta(new);
        let mut file = writer.file(&new.path, &meta)?;
        let path = file.path().to_owned();
        let mut is_same = true;
        if size > 0 && !self.clone_to(source, &file).context("clone", &path)? {
            self.buffer.resize(256 << 10, 0);
            let mut hasher = Sha256::new();
            let mut offset = 0;
            let mut from = source;
            loop {
                let read = from.read(&mut self.buffer).context("read", source_path)?;
                if read == 0 {
                    break;
                }
                hasher.update(&self.buffer[..read]);
                file.write(&self.buffer[..read], offset)?;
                offset += read as u64;
            }
            is_same = offset == size && Digest::from(hasher) == content;
        }
        let inode = fstat(file.as_fd()).context("look at", &path)?.st_ino;
        if !is_same {
            drop(file);
            writer.remove(&new.path)?;
            return Ok(None);
        }
        file.finish(size, &meta)?;
        Ok(Some(inode))
    }

    fn clone_to(&mut self, source: &File, file: impl AsFd) -> std::io::Result<bool> {
        if !self.can_clone {
            return Ok(false);
        }
        match file::clone_file(source, file) {
            Ok(()) => Ok(true),
            Err(error) if file::is_unsupported(&error) => {
                self.can_clone = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a file has the content that its entry says.
pub fn is_whole(mut file: &File, entry: &Entry) -> std::io::Result<bool> {
    let Kind::File { content, .. } = entry.kind else { return Ok(false) };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from(hasher) == content),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Whether two entries can be one inode.
pub fn has_same_metadata(one: &Entry, other: &Entry) -> bool {
    (one.mode, one.uid, one.gid, one.mtime) == (other.mode, other.uid, other.gid, other.mtime)
        && one.xattrs == other.xattrs
}

/// Whether two entries are files of the same content.
pub fn has_same_content(one: &Entry, other: &Entry) -> bool {
    matches!(one.kind, Kind::File { .. }) && one.kind == other.kind
}

fn name_of(path: &[u8]) -> &[u8] {
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    &path[start..]
}

/// The base that shares most with a release: by pages of metadata, then the first. `None` when there is none.
pub fn closest<'a>(
    index: &super::super::Index<'_>,
    bases: impl IntoIterator<Item = &'a super::super::Index<'static>>,
) -> Option<usize> {
    use super::super::PageKind;
    let wanted: std::collections::HashSet<Digest> =
        index.root().of_kind(PageKind::Meta).iter().map(|page| page.digest).collect();
    let shared = |base: &super::super::Index<'_>| -> u64 {
        let pages = base.root().of_kind(PageKind::Meta);
        pages.iter().filter(|page| wanted.contains(&page.digest)).map(|page| page.items).sum()
    };
    let counted = bases.into_iter().map(shared).enumerate();
    counted.min_by_key(|(at, shared)| (std::cmp::Reverse(*shared), *at)).map(|(at, _)| at)
}

/// Stores the inode number of a file.
pub fn note(inodes: &[AtomicU64], number: usize, inode: u64) {
    if let Some(slot) = inodes.get(number) {
        slot.store(inode, Ordering::Relaxed);
    }
}
