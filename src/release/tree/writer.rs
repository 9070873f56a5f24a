//! Makes the entries of a tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use xattr::FileExt as _;

use super::Root;
use super::root::open_directory;
use crate::sys::deep::{self, Fixed};
use crate::sys::disk::{Context, Error};

/// The metadata of an entry, as it is to be on disk.
#[derive(Clone, Debug, Default)]
pub struct Meta<'a> {
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Meta<'_> {
    fn time(&self) -> TimeSpec {
        TimeSpec::new(self.mtime.0, i64::from(self.mtime.1))
    }

    fn has_xattrs(&self) -> bool {
        self.xattrs.is_some_and(|xattrs| !xattrs.is_empty())
    }
}

/// Makes entries beneath a [`Root`]; one for each thread.
pub struct TreeWriter {
    root: Arc<Root>,
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl TreeWriter {
    /// A writer beneath this root.
    pub fn new(root: Arc<Root>) -> Self {
        Self { root, parent: None }
    }

    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Makes a directory that its owner may write to. Its metadata come by [`TreeWriter::finish_directory`].
    ///
    /// # Errors
    /// When the name exists (`EEXIST`), or its parent is no directory of this tree.
    pub fn directory(&mut self, path: &[u8]) -> Result<(), Error> {
        self.root.ask(path)?;
        let made = self.beside(path).and_then(|(parent, name)| mkdirat(parent, name, Mode::S_IRWXU));
        made.context_at("make the directory", || self.root.path_of(path))
    }

    /// Makes an empty file; [`NewFile::finish`] completes it.
    ///
    /// # Errors
    /// When the name exists (`EEXIST`), or its parent is no directory of this tree.
    pub fn file(&mut self, path: &[u8], meta: &Meta<'_>) -> Result<NewFile, Error> {
        self.root.ask(path)?;
        let is_own = self.is_own(meta);
        // Owner first, then attributes, then the mode: a change of owner would clear what the later ones set.
        let is_plain = is_own && !meta.has_xattrs() && meta.mode & (0o6000 | self.root.umask) == 0;
        let mode = if is_plain { meta.mode } else { 0o600 };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = self
            .beside(path)
            .and_then(|(parent, name)| openat(parent, name, flags, Mode::from_bits_truncate(mode)));
        let full_path = self.root.path_of(path);
        let file = File::from(opened.context("make", &full_path)?);
        Ok(NewFile::new(file, full_path, !is_own, !is_plain))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// When the name exists (`EEXIST`), or its parent is no directory of this tree.
    pub fn link(&mut self, path: &[u8], target: &[u8], meta: &Meta<'_>) -> Result<(), Error> {
        self.root.ask(path)?;
        let is_own = self.is_own(meta);
        let made = self.beside(path).and_then(|(parent, name)| {
            symlinkat(target, parent, name)?;
            if !is_own {
                let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
                fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            let time = meta.time();
            utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
        });
        made.context("make the link", &self.root.path_of(path))
    }

    /// Gives a regular file of this tree a further name.
    ///
    /// # Errors
    /// When the name exists (`EEXIST`), the file has no room for more names (`EMLINK`), or it is not there.
    pub fn hard_link(&mut self, path: &[u8], file: &[u8]) -> Result<(), Error> {
        let (parent, name) = split(file);
        let opened =
            self.root.directory(parent).context("open the directory of", &self.root.path_of(file))?;
        self.hard_link_from(path, opened.as_fd(), name)
    }

    /// Gives the file `name` of another directory of the same file system a further name here. What it is, the caller
    /// must know: a symbolic link is linked itself, never followed.
    pub fn hard_link_from(&mut self, path: &[u8], from: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        self.root.ask(path)?;
        let made =
            self.beside(path).and_then(|(parent, new)| linkat(from, name, parent, new, AtFlags::empty()));
        made.context_at("link", || self.root.path_of(path))
    }

    /// Makes a directory with its owner and mode, if these can be given at once; [`TreeWriter::finish_directory`] gives it
    /// its time, or all.
    ///
    /// # Errors
    /// When the name exists (`EEXIST`), or its parent is no directory of this tree.
    pub fn directory_as(&mut self, path: &[u8], meta: &Meta<'_>) -> Result<(), Error> {
        let mode = if self.is_plain_directory(meta) { meta.mode } else { 0o700 };
        self.root.ask(path)?;
        let made = self
            .beside(path)
            .and_then(|(parent, name)| mkdirat(parent, name, Mode::from_bits_truncate(mode)));
        made.context_at("make the directory", || self.root.path_of(path))
    }

    /// Gives a directory its time that [`TreeWriter::directory_as`] made with this metadata, and what else it lacks.
    pub fn finish_directory_as(&mut self, path: &[u8], meta: &Meta<'_>) -> Result<(), Error> {
        if self.is_plain_directory(meta) {
            self.root.ask(path)?;
            self.set_time(path, meta.mtime)
        } else {
            self.finish_directory(path, meta)
        }
    }

    /// Whether `mkdir` gives a directory all but its time, and its owner may then write to it.
    fn is_plain_directory(&self, meta: &Meta<'_>) -> bool {
        let is_open = meta.mode & 0o700 == 0o700 && meta.mode & (0o7000 | self.root.umask) == 0;
        is_open && self.is_own(meta) && !meta.has_xattrs() && !self.root.is_setgid
    }

    /// Gives a directory its metadata. Its parents must still be its owner's, so the deepest come first.
    pub fn finish_directory(&mut self, path: &[u8], meta: &Meta<'_>) -> Result<(), Error> {
        self.root.ask(path)?;
        let full_path = self.root.path_of(path);
        let directory = File::from(self.root.directory(path).context("open the directory", &full_path)?);
        finish(&directory, meta, !self.is_own(meta), true).context("finish the directory", &full_path)
    }

    /// Removes what has this name, with all that is in it. One that is not there is no error.
    pub fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        self.root.ask(path)?;
        let flag = UnlinkatFlags::NoRemoveDir;
        match self.beside(path).and_then(|(parent, name)| unlinkat(parent, name, flag)) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => {
                // The directory that is kept open may be the one that goes.
                self.parent = None;
                let full_path = self.root.path_of(path);
                let directory = self.root.directory(path).context("remove", &full_path)?;
                deep::empty(&directory, Fixed::Stays)
                    .map_err(|failure| Error::new("remove", &full_path.join(failure.path), failure.source))?;
                let removed = self
                    .beside(path)
                    .and_then(|(parent, name)| unlinkat(parent, name, UnlinkatFlags::RemoveDir));
                removed.context("remove", &full_path)
            }
            removed => removed.context("remove", &self.root.path_of(path)),
        }
    }

    /// The time of the directory that an entry is in, before something in it changes.
    pub fn time_of_parent(&mut self, path: &[u8]) -> Result<(i64, u32), Error> {
        let found = self.beside(path).and_then(|(parent, _)| fstat(parent));
        let found = found.context("look at the directory of", &self.root.path_of(path))?;
        Ok((found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0)))
    }

    /// Takes all attributes off a directory.
    pub fn clear_attributes(&mut self, path: &[u8]) -> Result<(), Error> {
        let full_path = self.root.path_of(path);
        let directory = File::from(self.root.directory(path).context("open the directory", &full_path)?);
        let clear = || {
            for name in crate::release::scan::attributes(&directory)?.into_keys() {
                directory.remove_xattr(OsStr::from_bytes(&name))?;
            }
            Ok::<_, std::io::Error>(())
        };
        clear().context("take the attributes off", &full_path)
    }

    /// Gives a directory its time back. One that is not there is no error.
    pub fn set_time(&mut self, path: &[u8], (seconds, nanoseconds): (i64, u32)) -> Result<(), Error> {
        let time = TimeSpec::new(seconds, i64::from(nanoseconds));
        let set = match self.root.directory(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            opened => opened.and_then(|directory| futimens(directory, &time, &time)),
        };
        set.context_at("set the time of", || self.root.path_of(path))
    }

    fn is_own(&self, meta: &Meta<'_>) -> bool {
        let (uid, gid) = self.root.owner;
        (meta.uid, meta.gid) == (uid.as_raw(), gid.as_raw())
    }

    /// The open directory of an entry, and the entry's name in it.
    fn beside<'a>(&mut self, path: &'a [u8]) -> Result<(BorrowedFd<'_>, &'a OsStr), Errno> {
        let (parent, name) = split(path);
        let descriptor = match self.parent.take() {
            Some((last, descriptor)) if last == parent => descriptor,
            Some((last, descriptor)) => match below(&last, parent) {
                Some(rest) => open_directory(&descriptor, rest)?,
                None => self.root.directory(parent)?,
            },
            None => self.root.directory(parent)?,
        };
        let (_, descriptor) = &*self.parent.insert((parent.to_vec(), descriptor));
        Ok((descriptor.as_fd(), OsStr::from_bytes(name)))
    }
}

/// A new file; without [`NewFile::finish`] it has neither its time nor, perhaps, its owner and mode.
pub struct NewFile {
    file: File,
    path: PathBuf,
    set_owner: bool,
    set_mode: bool,
    /// The end of what has been written.
    end: u64,
}

impl NewFile {
    fn new(file: File, path: PathBuf, set_owner: bool, set_mode: bool) -> Self {
        Self { file, path, set_owner, set_mode, end: 0 }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all these bytes at an offset; what no call wrote is a hole.
    pub fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_all_at(bytes, offset).context("write", &self.path)?;
        self.end = self.end.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Gives the file its size, metadata and time.
    pub fn finish(self, size: u64, meta: &Meta<'_>) -> Result<(), Error> {
        if self.end < size {
            self.file.set_len(size).context("write", &self.path)?;
        }
        finish(&self.file, meta, self.set_owner, self.set_mode).context("finish", &self.path)
    }
}

impl AsFd for NewFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What is left of a path below a directory, if it is there.
fn below<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    path.strip_prefix(directory)?.strip_prefix(b"/").filter(|_| !directory.is_empty())
}

/// A path's directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Sets what creation did not: owner, attributes, mode, times, in this order.
fn finish(file: &File, meta: &Meta<'_>, set_owner: bool, set_mode: bool) -> Result<(), std::io::Error> {
    if set_owner {
        fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    }
    for (name, value) in meta.xattrs.into_iter().flatten() {
        file.set_xattr(OsStr::from_bytes(name), value)?;
    }
    if set_mode {
        fchmod(file, Mode::from_bits_truncate(meta.mode))?;
    }
    let time = meta.time();
    Ok(futimens(file, &time, &time)?)
}
