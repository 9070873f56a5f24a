//! What a tree on disk is: its entries in path order, read by descriptors, with no link followed.

mod content;
mod first;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use xattr::FileExt;

pub use self::content::Contents;
use self::content::{Hashers, Pending};
use self::first::FirstNames;
use super::tree::Root;
use crate::sys::access_list;
use crate::sys::disk::{Context, Disk, Error};
use crate::types::Digest;
use crate::types::entry::{Entry, Kind, TreeDigest};

/// How many directories are open at once; those above are opened anew when the walk comes back to them.
const OPEN_MAX: usize = 32;
/// How many files are being hashed while the walk goes on.
const AHEAD: usize = 32;

/// Walks over a tree in path order: an iterator of entries. Memory is bounded by the names of the directories on the way
/// and by the files with several names. Contents are hashed by other threads, some files ahead.
///
/// It ends with the first error.
pub struct Walk {
    root: Root,
    levels: Vec<Level>,
    first_names: FirstNames,
    /// Absent when contents are not read.
    hashers: Option<Hashers>,
    ahead: VecDeque<Result<Found, Error>>,
    others: Vec<Vec<u8>>,
    sockets: Vec<Vec<u8>>,
    has_failed: bool,
}

/// What to say of one of [`Walk::others`].
pub const OTHER: &str = "it is a fifo or a device, which no release carries: leave it out";

/// An entry, whose content is perhaps still being hashed.
struct Found {
    entry: Entry,
    content: Option<Pending>,
}

struct Level {
    path: Vec<u8>,
    /// Absent while the walk is deep below.
    directory: Option<OwnedFd>,
    /// Names yet to come, the next one last.
    names: Vec<CString>,
}

/// Begins a walk over the tree `root`.
pub fn walk(root: &Path) -> Result<Walk, Error> {
    let root = Root::open(root, &Disk::default())?;
    let directory = root.directory(b"").context("open the directory", root.path())?;
    let level = Level::read(Vec::new(), directory).context("list the directory", root.path())?;
    Ok(Walk {
        root,
        levels: vec![level],
        first_names: FirstNames::default(),
        hashers: Some(Hashers::start()),
        ahead: VecDeque::new(),
        others: Vec::new(),
        sockets: Vec::new(),
        has_failed: false,
    })
}

/// The same without opening a file: they have no attributes, and zeros for a digest, until [`Contents::fill`].
pub fn walk_unread(root: &Path) -> Result<Walk, Error> {
    Ok(Walk { hashers: None, ..walk(root)? })
}

/// The digest of the tree `root` as it is on disk.
pub fn digest(root: &Path) -> Result<Digest, Error> {
    let mut digest = TreeDigest::default();
    for entry in walk(root)? {
        digest.add(&entry?);
    }
    Ok(digest.finish())
}

impl Iterator for Walk {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ahead.len() < AHEAD && !self.has_failed {
            let Some(found) = self.find() else { break };
            self.has_failed = found.is_err();
            self.ahead.push_back(found);
        }
        let entry = self.ahead.pop_front()?.and_then(|found| self.complete(found));
        if entry.is_err() {
            self.has_failed = true;
            self.ahead.clear();
        }
        Some(entry)
    }
}

impl Level {
    fn read(path: Vec<u8>, directory: OwnedFd) -> io::Result<Self> {
        let mut names = Vec::new();
        for entry in Dir::from_fd(directory.try_clone()?)?.iter() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self { path, directory: Some(directory), names })
    }
}

impl Walk {
    /// Paths that were met so far and that no release may have: fifos and devices, which are no entries.
    pub fn others(&self) -> &[Vec<u8>] {
        &self.others
    }

    /// Paths of sockets that were met so far, which are no entries.
    pub fn sockets(&self) -> &[Vec<u8>] {
        &self.sockets
    }

    /// The next entry, without waiting for its content.
    fn find(&mut self) -> Option<Result<Found, Error>> {
        loop {
            let name = loop {
                let level = self.levels.last_mut()?;
                match level.names.pop() {
                    Some(name) => break name,
                    None => drop(self.levels.pop()),
                }
            };
            let level = self.levels.last()?;
            let path = match level.path.as_slice() {
                [] => name.to_bytes().to_vec(),
                parent => [parent, b"/", name.to_bytes()].concat(),
            };
            match self.entry(&name, path.clone()) {
                Ok(None) => {}
                Ok(Some(found)) => return Some(Ok(found)),
                Err(error) => return Some(Err(error).context("read", &self.root.path_of(&path))),
            }
        }
    }

    fn complete(&self, found: Found) -> Result<Entry, Error> {
        let Found { mut entry, content } = found;
        if let (Kind::File { content, .. }, Some(pending)) = (&mut entry.kind, content) {
            *content = pending.wait().context("read", &self.root.path_of(&entry.path))?;
        }
        Ok(entry)
    }

    fn entry(&mut self, name: &CString, path: Vec<u8>) -> io::Result<Option<Found>> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return Err(Errno::ENOENT.into()) };
        let parent = match level.directory.take() {
            Some(directory) => directory,
            None => self.root.directory(&level.path)?,
        };
        let parent = level.directory.insert(parent);
        let found = fstatat(&*parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFLNK {
            let target = readlinkat(&*parent, name.as_c_str())?.into_vec();
            let entry = entry(path, Kind::Link { target }, &found, BTreeMap::new());
            return Ok(Some(Found { entry, content: None }));
        }
        if kind == SFlag::S_IFDIR {
            let directory = openat(&*parent, name.as_c_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
            let directory = File::from(directory);
            check_same(&directory, &found)?;
            let xattrs = attributes(&directory)?;
            if let Some(above) = depth.checked_sub(OPEN_MAX) {
                self.levels[above].directory = None;
            }
            self.levels.push(Level::read(path.clone(), directory.into())?);
            let entry = entry(path, Kind::Directory, &found, xattrs);
            return Ok(Some(Found { entry, content: None }));
        }
        // A socket is its program's, and is no part of any release: tar leaves it out, too.
        if kind == SFlag::S_IFSOCK {
            self.sockets.push(path);
            return Ok(None);
        }
        if kind != SFlag::S_IFREG {
            self.others.push(path);
            return Ok(None);
        }
        let size = found.st_size as u64;
        let nothing = Digest([0; 32]);
        let mut entry = entry(path, Kind::File { size, content: nothing }, &found, BTreeMap::new());
        let mut content = None;
        if let Some(hashers) = &self.hashers {
            let file = File::from(openat(&*parent, name.as_c_str(), flags, Mode::empty())?);
            check_same(&file, &found)?;
            entry.xattrs = attributes(&file)?;
            content = Some(hashers.hash(file, size));
        }
        if found.st_nlink > 1 {
            let inode = (found.st_dev, found.st_ino);
            let directory = self.levels.last().map_or(&b""[..], |level| &level.path);
            entry.same_as = self.first_names.meet(inode, directory, name.to_bytes());
        }
        Ok(Some(Found { entry, content }))
    }
}

fn entry(path: Vec<u8>, kind: Kind, found: &FileStat, xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> Entry {
    Entry {
        path,
        kind,
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: (found.st_mtime, found.st_mtime_nsec as u32),
        xattrs,
        same_as: None,
    }
}

/// That the name still is what it was when it was looked at.
fn check_same(file: &File, found: &FileStat) -> io::Result<()> {
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) == (found.st_dev, found.st_ino) {
        Ok(())
    } else {
        Err(io::Error::other("it was replaced while it was read"))
    }
}

/// The attributes that count: `user.*` and capabilities, which a release may have, and access lists, which none has.
/// Others are the machine's.
pub fn attributes(file: &File) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    let names = match file.list_xattr() {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(attributes),
        names => names?,
    };
    for name in names {
        let is_own = name.as_bytes().starts_with(b"user.") || name == OsStr::new("security.capability");
        if !is_own && !access_list::is_one(name.as_bytes()) {
            continue;
        }
        if let Some(value) = file.get_xattr(&name)? {
            attributes.insert(name.into_vec(), value);
        }
    }
    Ok(attributes)
}
