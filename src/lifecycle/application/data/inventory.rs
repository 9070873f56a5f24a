//! What the data are, looked at before anything is stopped: what could not be copied or brought back, what does not belong
//! to them though it is below them, and what a copy costs by the method that will really be used.
//!
//! The kernel is asked about each entry (mount, device, inode); what paths look like decides nothing.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{AccessFlags, Gid, faccessat, getegid, geteuid, getgroups};
use xattr::FileExt as _;

use super::copy::{DEPTH_MAX, open_directory};
use super::leave::Leave;
use super::snapshot::Method;
use super::way_back::NOT_WRITABLE;
use super::{Data, Entry, Error, Kind, parent_of};
use crate::sys::disk::Context as _;
use crate::sys::inode::{self, Inode};
use crate::sys::{kernel::file, mounts, open};
use crate::types::record::DataPolicy;

/// What lets a program do more than its user may.
const CAPABILITIES: &str = "security.capability";

/// How it is found out whether blocks can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// By trying: only that is sure.
    Tried,
    /// By the kind of the file system; nothing is written.
    Guessed,
}

/// Data that are to be copied, and how.
pub(super) struct Planned<'a> {
    pub entry: &'a Entry,
    pub method: Method,
}

/// What the copies on one file system take.
#[derive(Default)]
struct Need {
    bytes: u64,
    names: u64,
    /// The data that take most, which errors name.
    largest: Option<(u64, PathBuf)>,
}

/// An entry and where it is.
struct Top<'a> {
    entry: &'a Entry,
    /// Its path without links on the way.
    real: PathBuf,
    /// Absent when there are no such data yet.
    id: Option<(u64, u64)>,
    above: Vec<(u64, u64)>,
}

impl Data {
    /// Looks at all data. Those that are always kept are not copied, and so not looked into.
    pub(super) fn inventory<'a>(
        &self,
        entries: &'a [Entry],
        probing: Probing,
    ) -> Result<Vec<Planned<'a>>, Error> {
        let tops = entries.iter().map(top).collect::<Result<Vec<_>, _>>()?;
        refuse_nested(&tops)?;
        self.refuse_ours(&tops)?;
        let mut planned = Vec::new();
        let mut needs: BTreeMap<PathBuf, Need> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.on_rollback != DataPolicy::Keep) {
            let method = self.method(entry, probing)?;
            if method != Method::Absent {
                let Size { content, others, names } = inspect(entry, method)?;
                let need = needs.entry(self.filesystem_of(&entry.path)?).or_default();
                // An overlay cannot share what its lower layers have, and does not say what that is.
                let is_overlay = file::is_overlay(&entry.path).context("look at", &entry.path)?;
                let content = if method == Method::Copy || is_overlay { content } else { 0 };
                let bytes = content + if method == Method::Btrfs { 0 } else { others };
                if need.largest.as_ref().is_none_or(|(most, _)| bytes > *most) {
                    need.largest = Some((bytes, entry.path.clone()));
                }
                need.bytes += bytes;
                need.names += if method == Method::Btrfs { 0 } else { names };
            }
            planned.push(Planned { entry, method });
        }
        for (place, need) in needs {
            self.check_room(&place, need)?;
        }
        Ok(planned)
    }

    /// The same for a switch: refuses also what only a rollback would do harm to.
    pub(super) fn planned<'a>(
        &self,
        entries: &'a [Entry],
        probing: Probing,
    ) -> Result<Vec<Planned<'a>>, Error> {
        let planned = self.inventory(entries, probing)?;
        for Planned { entry, method } in &planned {
            let path = &entry.path;
            if *method != Method::Absent {
                self.refuse_views(path, Leave::of(&entry.leave), *method)?;
            } else if self.were_there(path)? {
                return Err(Error::Gone(path.clone()));
            }
        }
        Ok(planned)
    }

    /// Says what stands in the way of copying the data and of bringing them back, as far as looking tells.
    pub fn check(&self, entries: &[Entry], probing: Probing) -> Result<(), Error> {
        self.planned(entries, probing).map(drop)
    }

    /// One path for all data whose copies are on the same file system.
    fn filesystem_of(&self, path: &Path) -> Result<PathBuf, Error> {
        let is_ours = self.place(Kind::Snapshots, path, "x/x")?.starts_with(&self.private);
        Ok(if is_ours { self.private.clone() } else { parent_of(path).to_owned() })
    }

    pub(super) fn method(&self, entry: &Entry, probing: Probing) -> Result<Method, Error> {
        let path = &entry.path;
        let unfit = |why| Err(Error::Unfit { path: path.clone(), why });
        let parent = match open::directory(parent_of(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return unfit("the directory that is to hold it is not there: make it first");
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return unfit("what is to hold it is no directory");
            }
            parent => parent.context("open", parent_of(path))?,
        };
        let above = inode::of(&parent).context("look at", parent_of(path))?;
        let found = match inode::of_path(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Method::Absent),
            found => found.context("look at", path)?,
        };
        match found.kind {
            SFlag::S_IFDIR | SFlag::S_IFREG => {}
            SFlag::S_IFLNK => {
                // As systemd makes one for `StateDirectory=` with `DynamicUser=`.
                let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let why = "the configured path is a symbolic link that leads here: name this path itself";
                return Err(Error::Unfit { path, why });
            }
            _ => return unfit("it is neither a directory nor a regular file"),
        }
        self.refuse_fixed(path, Some(&found), &above)?;
        match found.border_to(&above) {
            None => {}
            Some(inode::Border::Subvolume) => return Ok(Method::Btrfs),
            Some(inode::Border::StandIn) => {
                return unfit(
                    "it is the empty directory that stands for a subvolume in a snapshot of what held it: put the data \
                     there, as a subvolume (`rmdir` it first), or something empty (`rmdir` and `mkdir`)",
                );
            }
            Some(inode::Border::Mount) => {
                return unfit("it is a mount point, which cannot be exchanged: name a directory below it");
            }
        }
        let shares = match probing {
            Probing::Tried => self.can_clone(path)?,
            Probing::Guessed => !file::never_shares_blocks(path).context("look at", path)?,
        };
        Ok(if shares { Method::Reflink } else { Method::Copy })
    }

    /// Releases and what is kept beside them are no data, whatever path leads there.
    fn refuse_ours(&self, tops: &[Top<'_>]) -> Result<(), Error> {
        let root = parent_of(&self.private);
        let root = fs::canonicalize(root).context("look at", root)?;
        let ours = [&self.private, &root.join("releases")].map(|path| id(path));
        let above: Vec<_> = root.ancestors().filter_map(id).collect();
        let is_ours = |id: &(u64, u64)| ours.contains(&Some(*id));
        let is_unfit = |top: &&Top<'_>| {
            top.above.iter().any(is_ours) || top.id.is_some_and(|id| is_ours(&id) || above.contains(&id))
        };
        let why = "the directory of the releases is there, holds it, or is within it: data must be beside releases and \
                   pointer";
        tops.iter().find(is_unfit).map_or(Ok(()), |top| Err(Error::Unfit { path: top.real.clone(), why }))
    }

    fn check_room(&self, place: &Path, need: Need) -> Result<(), Error> {
        let Need { bytes, names, largest } = need;
        let path = largest.map_or_else(|| place.to_owned(), |(_, path)| path);
        let found = nix::sys::statvfs::statvfs(place).context("look at", place)?;
        let free = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
        let free = free.saturating_sub(self.reserve);
        if bytes > free {
            return Err(Error::NoSpace { path, need: bytes, free });
        }
        let inodes = found.files_available() as u64;
        // Some file systems have as many as they want, and say 0.
        if found.files() as u64 > 0 && names > inodes {
            return Err(Error::NoInodes { path, need: names, free: inodes });
        }
        Ok(())
    }
}

fn top(entry: &Entry) -> Result<Top<'_>, Error> {
    let parent = parent_of(&entry.path);
    let above = match fs::canonicalize(parent) {
        // It has no directory yet: `method` says so where that matters.
        Err(error) if error.kind() == io::ErrorKind::NotFound => parent.to_owned(),
        Err(error) if [Some(libc::ELOOP), Some(libc::ENOTDIR)].contains(&error.raw_os_error()) => {
            let why = "what is to hold it is a file, or a link that leads in a circle";
            return Err(Error::Unfit { path: entry.path.clone(), why });
        }
        real => real.context("look at", parent)?,
    };
    let real = above.join(entry.path.file_name().unwrap_or_default());
    let ids = above.ancestors().filter_map(id).collect();
    Ok(Top { entry, id: id(&real), above: ids, real })
}

/// Device and inode of what is there.
fn id(path: &Path) -> Option<(u64, u64)> {
    inode::of_path(path).ok().map(|found| (found.device, found.inode))
}

/// Data within other data would be copied and brought back twice, by two wills.
fn refuse_nested(tops: &[Top<'_>]) -> Result<(), Error> {
    for (at, outer) in tops.iter().enumerate() {
        for (other, inner) in tops.iter().enumerate() {
            let is_within = outer.id.is_some_and(|id| inner.above.contains(&id));
            let is_same =
                at < other && (inner.real == outer.real || (inner.id.is_some() && inner.id == outer.id));
            if at == other || !(is_within || is_same) {
                continue;
            }
            let is_declared = inner.entry.on_rollback == DataPolicy::Keep
                && inner
                    .real
                    .strip_prefix(&outer.real)
                    .is_ok_and(|within| Leave::of(&outer.entry.leave).is(within));
            if !is_declared {
                let (outer, inner) = (outer.entry.path.clone(), inner.entry.path.clone());
                return Err(Error::Nested { outer, inner });
            }
        }
    }
    Ok(())
}

/// What is in the data, and a copy of all of it takes.
#[derive(Default)]
struct Size {
    /// Bytes on disk of regular files, which some file systems can share.
    content: u64,
    /// Bytes on disk of directories, long links and so on, which none can.
    others: u64,
    names: u64,
}

/// Walks over the data.
fn inspect(entry: &Entry, method: Method) -> Result<Size, Error> {
    let path = &entry.path;
    let (parent, name) = inode::open_parent(path).context("open", parent_of(path))?;
    let top = inode::look(&parent, &name).context("look at", path)?;
    let leave = Leave::of(&entry.leave);
    let is_root = geteuid().is_root();
    let groups = getgroups().unwrap_or_default().into_iter().chain([getegid()]).map(Gid::as_raw).collect();
    let swaps = mounts::swap_files();
    let mut walk = Walk {
        entry,
        method,
        leave,
        top,
        is_root,
        groups,
        swaps,
        links: HashSet::new(),
        size: Size::default(),
    };
    leave.paths().try_for_each(|left| walk.check_way(left))?;
    walk.visit(&parent, &name, &mut PathBuf::new(), 0)?;
    Ok(walk.size)
}

struct Walk<'a> {
    entry: &'a Entry,
    method: Method,
    leave: Leave<'a>,
    top: Inode,
    is_root: bool,
    /// Those that the user is in.
    groups: Vec<u32>,
    /// Files that the kernel swaps to.
    swaps: Vec<(u64, u64)>,
    /// Files with several names that were counted.
    links: HashSet<(u64, u64)>,
    size: Size,
}

impl Walk<'_> {
    fn unfit(&self, within: &Path, why: &'static str) -> Error {
        Error::Unfit { path: self.entry.path.join(within), why }
    }

    fn visit(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        within: &mut PathBuf,
        depth: usize,
    ) -> Result<(), Error> {
        let at = |within: &Path| self.entry.path.join(within);
        let found = match inode::look(parent, name) {
            // The service runs: what goes meanwhile is no loss.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.context_at("look at", || at(within))?,
        };
        if depth > 0 {
            if self.leave.is(within) {
                return self.check_left(&found, within);
            }
            if let Some(border) = found.border_to(&self.top) {
                let (data, path) = (self.entry.path.clone(), at(within));
                return Err(Error::Border { data, path, what: border.name(), within: within.clone() });
            }
            let is_moved = within.parent().is_some_and(|parent| self.leave.is_below(parent));
            if is_moved && self.method != Method::Btrfs && found.is_fixed {
                return Err(self.unfit(
                    within,
                    "nobody may rename it (`lsattr` shows `i` or `a`), and what lies beside what is left in place must \
                     be moved: take that off with `chattr -i -a`",
                ));
            }
            let may_write =
                || faccessat(parent, name, AccessFlags::W_OK, AtFlags::empty()) != Err(Errno::EACCES);
            if is_moved && found.is_directory() && !may_write() {
                return Err(self.unfit(within, NOT_WRITABLE));
            }
        }
        self.check_owner(&found, within)?;
        self.size.names += 1;
        if found.is_directory() || found.links < 2 || self.links.insert((found.device, found.inode)) {
            let is_content = found.kind == SFlag::S_IFREG;
            *(if is_content { &mut self.size.content } else { &mut self.size.others }) += found.bytes;
        }
        match found.kind {
            SFlag::S_IFDIR => self.directory(parent, name, within, depth),
            SFlag::S_IFREG if self.swaps.contains(&(found.device, found.inode)) => Err(self.unfit(
                within,
                "it is swap space in use, which is not copied: take it away with `swapoff`, or leave it in place with \
                 `leave`",
            )),
            SFlag::S_IFREG => self.check_readable(parent, name, within),
            SFlag::S_IFCHR | SFlag::S_IFBLK if self.method != Method::Btrfs => Err(self.unfit(
                within,
                "it is a device, which is not copied: remove it, or leave it in place with `leave`",
            )),
            _ => Ok(()),
        }
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        within: &mut PathBuf,
        depth: usize,
    ) -> Result<(), Error> {
        if depth >= DEPTH_MAX {
            let why = "directories are more than 200 deep there: move it out of the data, or leave its top in place \
                       with `leave`";
            return Err(self.unfit(within, why));
        }
        let data = &self.entry.path;
        let directory = match open_directory(parent, name, depth) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.context_at("open", || data.join(&*within))?,
        };
        for inner in inode::names(&directory).context_at("list", || data.join(&*within))? {
            within.push(OsStr::from_bytes(inner.to_bytes()));
            self.visit(&directory, &inner, within, depth + 1)?;
            within.pop();
        }
        Ok(())
    }

    /// What lies behind a link is left in place anyway, and `leave` would do nothing.
    fn check_way(&self, left: &Path) -> Result<(), Error> {
        let mut above = left.ancestors().skip(1);
        let is_link = |within: &&Path| self.entry.path.join(within).is_symlink();
        match above.find(|within| !within.as_os_str().is_empty() && is_link(within)) {
            Some(link) => Err(self.unfit(
                link,
                "it is a link, and `leave` names something behind it: name in `leave` where that really is, if it is \
                 within the data",
            )),
            None => Ok(()),
        }
    }

    /// What is left in a subvolume must be one itself: only they can be moved to the subvolume that comes back.
    fn check_left(&self, found: &Inode, within: &Path) -> Result<(), Error> {
        if self.method != Method::Btrfs || found.is_subvolume_of(&self.top) {
            return Ok(());
        }
        Err(self.unfit(
            within,
            "the data are a subvolume, in which only subvolumes can be left in place: make it one, mount it beside the \
             data, or keep the data in a plain directory",
        ))
    }

    /// Only root can make a copy that belongs to somebody else. A socket is not copied.
    fn check_owner(&self, found: &Inode, within: &Path) -> Result<(), Error> {
        if self.is_root || self.method == Method::Btrfs || found.kind == SFlag::S_IFSOCK {
            return Ok(());
        }
        if found.user == geteuid().as_raw() && self.groups.contains(&found.group) {
            return Ok(());
        }
        Err(self.unfit(
            within,
            "it belongs to a user or group that only root can give a copy to: run cutover as root, give it to the user that \
             runs cutover (`chown`), or leave it in place with `leave`",
        ))
    }

    fn check_readable(&self, parent: &OwnedFd, name: &CStr, within: &Path) -> Result<(), Error> {
        if self.is_root || self.method == Method::Btrfs {
            return Ok(());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(parent, name, flags, Mode::empty()).map(fs::File::from) {
            Ok(file) if matches!(file.get_xattr(CAPABILITIES), Ok(Some(_))) => Err(self.unfit(
                within,
                "it has capabilities (`getcap`), which only root can give to a copy: run cutover as root, or leave it in \
                 place with `leave`",
            )),
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error).context_at("open", || self.entry.path.join(within))?,
        }
    }
}
