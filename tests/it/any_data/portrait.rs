//! All that users see of a tree, so that two moments can be compared.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cutover::sys::{inode, kernel::file};
use cutover::types::Digest;

/// linux/fs.h: what `chattr` sets that a copy must have, and the flag that says whether blocks can be shared.
const FLAGS: i32 = 0x08 | 0x10 | 0x20 | 0x40 | 0x80 | 0x1_0000 | 0x80_0000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    what: String,
    modified: (i64, i64),
    is_socket: bool,
}

/// What is at a path and in it, but for what is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portrait(BTreeMap<PathBuf, Seen>);

impl Portrait {
    pub fn of(top: &Path) -> Self {
        Self::without(top, &[])
    }

    pub fn without(top: &Path, left: &[PathBuf]) -> Self {
        let mut portrait = Self::default();
        portrait.add(top, Path::new(""), left, &mut HashMap::new());
        portrait
    }

    fn add(&mut self, top: &Path, within: &Path, left: &[PathBuf], names: &mut HashMap<(u64, u64), PathBuf>) {
        let path = if within.as_os_str().is_empty() { top.to_owned() } else { top.join(within) };
        let Ok(found) = fs::symlink_metadata(&path) else { return };
        let kind = found.file_type();
        let first = names.entry((found.dev(), found.ino())).or_insert_with(|| within.to_owned()).clone();
        let mut what = format!("{:o} {}:{} {}", found.mode(), found.uid(), found.gid(), found.rdev());
        if inode::of_path(&path).unwrap().is_mount_root {
            what += " mounted";
        }
        if kind.is_symlink() {
            what += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        }
        what += &attributes(&path);
        if first != within {
            what += &format!(" is {first:?}");
        }
        if kind.is_file() {
            what += &format!(" {} {}", found.len(), Digest::of(&fs::read(&path).unwrap()));
        }
        if kind.is_file() || kind.is_dir() {
            let flags = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
            what += &format!(" {:x}", file::flags(flags.unwrap()).unwrap() & FLAGS);
        }
        let modified = (found.mtime(), found.mtime_nsec());
        self.0.insert(within.to_owned(), Seen { what, modified, is_socket: kind.is_socket() });
        if kind.is_dir() {
            let mut inner: Vec<_> =
                fs::read_dir(&path).unwrap().flatten().map(|entry| entry.file_name()).collect();
            inner.sort();
            for inner in inner.into_iter().map(|name| within.join(name)).filter(|inner| !left.contains(inner))
            {
                self.add(top, &inner, left, names);
            }
        }
    }

    /// Copies have no sockets: their programs make them anew.
    pub fn without_sockets(mut self) -> Self {
        self.0.retain(|_, seen| !seen.is_socket);
        self
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.keys().cloned().collect()
    }

    /// What differs. Directories on the way to what is left may have been touched, and may stay.
    pub fn differences(&self, other: &Self, left: &[PathBuf]) -> Vec<String> {
        let is_on_the_way = |path: &Path| left.iter().any(|left| left.starts_with(path));
        let mut differences = Vec::new();
        for (path, one) in &self.0 {
            match other.0.get(path) {
                None => differences.push(format!("{path:?} is gone: {one:?}")),
                Some(two) if one == two => {}
                Some(two) if one.what == two.what && is_on_the_way(path) => {}
                Some(two) => differences.push(format!("{path:?}: {one:?}, now {two:?}")),
            }
        }
        let more = other.0.iter().filter(|(path, _)| !self.0.contains_key(*path) && !is_on_the_way(path));
        differences.extend(more.map(|(path, seen)| format!("{path:?} is more: {seen:?}")));
        differences
    }
}

fn attributes(path: &Path) -> String {
    let Ok(names) = xattr::list(path) else { return String::new() };
    let mut all: Vec<_> = names
        .filter(|name| !name.as_bytes().starts_with(b"security.selinux"))
        .map(|name| {
            format!(" {}={:x?}", name.display(), xattr::get(path, &name).unwrap().unwrap_or_default())
        })
        .collect();
    all.sort();
    all.concat()
}
