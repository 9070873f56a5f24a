//! What a tree on disk is: its entries in path order, read by descriptors, with no link followed.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use sha2::{Digest as _, Sha256};
use xattr::FileExt;

use super::tree::Root;
use crate::sys::disk::{Context, Disk, Error};
use crate::types::Digest;
use crate::types::entry::{Entry, Kind, TreeDigest};

/// How many directories are open at once; those above are opened anew when the walk comes back to them.
const OPEN_MAX: usize = 32;
const BUFFER: usize = 256 << 10;

/// Walks over a tree in path order: an iterator of entries. Memory is bounded by the names of the directories on the way
/// and by the files with several names.
///
/// It ends with the first error.
pub struct Walk {
    root: Root,
    levels: Vec<Level>,
    /// The first name of each inode that has several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    /// Absent when contents are not read.
    buffer: Option<Vec<u8>>,
    has_failed: bool,
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
        first_names: HashMap::new(),
        buffer: Some(vec![0; BUFFER]),
        has_failed: false,
    })
}

/// The same without reading a file: their digests are zeros until [`Contents::fill`].
pub fn walk_unread(root: &Path) -> Result<Walk, Error> {
    Ok(Walk { buffer: None, ..walk(root)? })
}

/// Reads the contents of files of a tree.
pub struct Contents {
    root: Root,
    buffer: Vec<u8>,
}

impl Contents {
    /// Of the tree `root`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self { root: Root::open(root, &Disk::default())?, buffer: vec![0; BUFFER] })
    }

    /// Fills in the digest of a file's content; other entries stay as they are.
    ///
    /// # Errors
    /// Also when the file has not the size that it had.
    pub fn fill(&mut self, entry: &mut Entry) -> Result<(), Error> {
        let Kind::File { size, content: digest } = &mut entry.kind else { return Ok(()) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let path = self.root.path_of(&entry.path);
        let file = File::from(self.root.open_beneath(&entry.path, flags).context("open", &path)?);
        *digest = content(&file, *size, &mut self.buffer).context("read", &path)?;
        Ok(())
    }
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
        if self.has_failed {
            return None;
        }
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
        let entry = self.entry(&name, path.clone()).context("read", &self.root.path_of(&path));
        self.has_failed = entry.is_err();
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
    fn entry(&mut self, name: &CString, path: Vec<u8>) -> io::Result<Entry> {
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
            return Ok(entry(path, Kind::Link { target }, &found, BTreeMap::new()));
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
            return Ok(entry(path, Kind::Directory, &found, xattrs));
        }
        if kind != SFlag::S_IFREG {
            return Err(io::Error::other("it is neither a file, a directory nor a symbolic link"));
        }
        let file = File::from(openat(&*parent, name.as_c_str(), flags, Mode::empty())?);
        check_same(&file, &found)?;
        let xattrs = attributes(&file)?;
        let size = found.st_size as u64;
        let content = match &mut self.buffer {
            Some(buffer) => content(&file, size, buffer)?,
            None => Digest([0; 32]),
        };
        let mut entry = entry(path, Kind::File { size, content }, &found, xattrs);
        if found.st_nlink > 1 {
            let inode = (found.st_dev, found.st_ino);
            match self.first_names.get(&inode) {
                Some(first) => entry.same_as = Some(first.clone()),
                None => drop(self.first_names.insert(inode, entry.path.clone())),
            }
        }
        Ok(entry)
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

/// The digest of a file's content.
///
/// # Errors
/// Also when it has not the size that it had.
fn content(file: &File, size: u64, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut offset = 0;
    loop {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                offset += length as u64;
                if offset > size {
                    break;
                }
                // A short read of a regular file is its end; a full buffer may not be.
                if offset == size && length < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if offset == size { Ok(hasher.into()) } else { Err(io::Error::other("it changed while it was read")) }
}

/// The attributes that belong to a release: `user.*` and capabilities. Others are the machine's.
pub fn attributes(file: &File) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    let names = match file.list_xattr() {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(attributes),
        names => names?,
    };
    for name in names {
        if !name.as_bytes().starts_with(b"user.") && name != OsStr::new("security.capability") {
            continue;
        }
        if let Some(value) = file.get_xattr(&name)? {
            attributes.insert(name.into_vec(), value);
        }
    }
    Ok(attributes)
}
