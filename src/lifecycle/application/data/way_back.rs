//! Whether data could be brought back, tried or looked at before anybody counts on it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, UnlinkatFlags, access, mkdir, unlinkat};

use super::leave::Leave;
use super::restore::is_there;
use super::snapshot::Method;
use super::{Data, Entry, Error, Kind, parent_of};
use crate::sys::disk::Context as _;
use crate::sys::inode::{self, Inode};
use crate::sys::{
    kernel::{btrfs, file},
    mounts, open,
};
use crate::types::record::{DataPolicy, DataSnapshot};

/// Of a directory that another user owns, or that its own user may not write to.
pub(super) const NOT_WRITABLE: &str = "a directory that is moved to another one is written to itself, and the user that runs \
                                       cutover may not write to it: run cutover as root, or give that user rights to write";

/// The name of the empty directories.
const TRY: &str = ".cutover-try";

impl Data {
    /// Tries the renames that going back will need, on empty directories in the very places. Services may run.
    pub fn try_way_back(&self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries.iter().filter(|entry| entry.on_rollback != DataPolicy::Keep) {
            for kind in [Kind::Snapshots, Kind::Aside] {
                let place = self.place(kind, &entry.path, "try/try")?;
                let away = if place.starts_with(&self.private) {
                    let away = self.private.join(kind.directory());
                    self.make_parents(&away.join("x"))?;
                    away
                } else {
                    parent_of(&place).to_owned()
                };
                for here in spots(entry) {
                    self.try_between(&entry.path, &here, &away)?;
                }
                if matches!(kind, Kind::Aside) {
                    self.refuse_lower_layers(entry, &away)?;
                }
            }
        }
        Ok(())
    }

    fn try_between(&self, data: &Path, here: &Path, away: &Path) -> Result<(), Error> {
        let name = free_for_try(here, away);
        let (one, other) = (here.join(&name), away.join(&name));
        self.disk.ask("try a rename at", &one)?;
        let forget = |path: &Path| match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        };
        let tried = || -> nix::Result<()> {
            forget(&one)?;
            forget(&other)?;
            if one == other {
                mkdir(&one, Mode::S_IRWXU)?;
                return forget(&one);
            }
            // What is set aside goes one way, what comes back was made there.
            for (from, to) in [(&one, &other), (&other, &one)] {
                mkdir(from, Mode::S_IRWXU)?;
                renameat(AT_FDCWD, from.as_path(), AT_FDCWD, to.as_path())?;
                forget(to)?;
            }
            Ok(())
        };
        tried().map_err(|errno| {
            // The first error is the one to tell.
            for path in [&one, &other] {
                forget(path).unwrap_or_default();
            }
            Error::WayBack {
                path: data.to_owned(),
                here: here.to_owned(),
                away: away.to_owned(),
                source: errno.into(),
            }
        })
    }

    /// Directories that an overlay has from a lower layer cannot be renamed, though all new ones beside them can. To rename
    /// one onto a directory that is not empty never works, and the error tells whether it is for that.
    fn refuse_lower_layers(&self, entry: &Entry, away: &Path) -> Result<(), Error> {
        if !is_there(&entry.path) || !file::is_overlay(&entry.path).context("look at", &entry.path)? {
            return Ok(());
        }
        let target = away.join(TRY);
        self.disk.make_directory(&target, 0o700)?;
        self.disk.make_directory(&target.join(TRY), 0o700)?;
        let is_fixed = |path: &PathBuf| renameat(AT_FDCWD, path, AT_FDCWD, &target) == Err(Errno::EXDEV);
        let found = moved(entry).into_iter().find(is_fixed);
        self.disk.remove_data(&target)?;
        match found {
            None => Ok(()),
            Some(path) => Err(Error::Unfit {
                path,
                why: "it is of a lower layer of an overlay, whose directories cannot be renamed: keep the data on a \
                      volume of their own, make the directory anew (`cp -a` to another name, and `mv` of that), or mount \
                      the overlay with `redirect_dir=on`",
            }),
        }
    }

    /// What is in the way of bringing these snapshots back, as far as looking tells. Cheap: nothing is walked over.
    pub fn check_way_back(&self, items: &[DataSnapshot]) -> Result<(), Error> {
        self.refuse_other_roots(items)?;
        for item in items {
            let path = Path::new(&item.path);
            if self.is_out_of_reach(item) {
                return Err(Error::Gone(path.to_owned()));
            }
            if !parent_of(path).exists() {
                return Err(Error::Unfit {
                    path: path.to_owned(),
                    why: "the directory that held it is not there; if it was moved or renamed, put a link in its old place \
                          (`ln -s`), or go back with `--data keep`",
                });
            }
            let snapshot = self.snapshot_place(item)?;
            if self.is_copy_gone(item) {
                return Err(Error::Unfit {
                    path: snapshot,
                    why: "it is the copy that would come back, and it is gone",
                });
            }
            self.refuse_unmovable(item, &snapshot)?;
            let found = inode::of_path(path).ok();
            let is_link = found.is_some_and(|found| found.kind == nix::sys::stat::SFlag::S_IFLNK);
            if let Some(method) = Method::of(&item.method).filter(|_| found.is_some() && !is_link) {
                self.refuse_views(path, Leave::of(&item.leave), method)?;
            }
        }
        Ok(())
    }

    /// Refuses data that could not be exchanged with their snapshot now.
    pub(super) fn refuse_unmovable(&self, item: &DataSnapshot, snapshot: &Path) -> Result<(), Error> {
        let path = Path::new(&item.path);
        self.refuse_borders(item, snapshot)?;
        let parent = open::directory(parent_of(path)).context("open", parent_of(path))?;
        let above = inode::of(&parent).context("look at", parent_of(path))?;
        self.refuse_fixed(path, inode::of_path(path).ok().as_ref(), &above)
    }

    /// The paths within these data at which something is mounted that nobody declared; an empty one for the data themselves.
    pub(super) fn mounted_within(&self, item: &DataSnapshot) -> Result<Vec<PathBuf>, Error> {
        let (path, leave) = (Path::new(&item.path), Leave::of(&item.leave));
        let real = std::fs::canonicalize(path).context("look at", path)?;
        let points = mounts::all_within(&real).context("look at", path)?;
        let within = points.iter().filter_map(|point| point.strip_prefix(&real).ok());
        Ok(within
            .filter(|within| !within.ancestors().any(|part| leave.is(part)))
            .map(Path::to_owned)
            .collect())
    }

    /// Refuses data that nobody may rename, or not to where newer ones are set aside.
    pub(super) fn refuse_fixed(
        &self,
        path: &Path,
        found: Option<&Inode>,
        above: &Inode,
    ) -> Result<(), Error> {
        let unfit = |why| Err(Error::Unfit { path: path.to_owned(), why });
        if above.is_fixed || found.is_some_and(|found| found.is_fixed) {
            return unfit(
                "nobody may rename it (`lsattr` shows `i` or `a`): take that off with `chattr -i -a`",
            );
        }
        // Root may do all but this.
        let is_read_only = |path: &Path| access(path, AccessFlags::W_OK) == Err(Errno::EROFS);
        if is_read_only(parent_of(path)) {
            return unfit(
                "the file system or subvolume that holds it is read-only: make that writable first",
            );
        }
        let Some(found) = found else { return Ok(()) };
        let is_plain = found.is_directory() || found.kind == nix::sys::stat::SFlag::S_IFREG;
        if is_plain && !self.are_projects_one(path)? {
            return unfit(
                "it counts for another project (quota) than the directory that holds it, so that the kernel lets nobody \
                 rename it: take the flag `P` off that directory and off `.cutover` (`chattr -R -P`), or make it one \
                 project (`lsattr -p` shows both)",
            );
        }
        // A directory that goes to another one is written to itself.
        let moves = self.place(Kind::Aside, path, "x/x")?.parent() != path.parent();
        if moves && found.is_directory() && is_read_only(path) {
            return unfit(
                "it is a read-only subvolume, which cannot be moved: set its property `ro` to `false` (`btrfs property set`)",
            );
        }
        if moves && found.is_directory() && access(path, AccessFlags::W_OK) == Err(Errno::EACCES) {
            return unfit(NOT_WRITABLE);
        }
        Ok(())
    }

    /// Whether the directories that data go to and come from take what is of their project.
    fn are_projects_one(&self, path: &Path) -> Result<bool, Error> {
        let own = open::to_look(path).and_then(file::project).context("look at", path)?;
        let away = self.place(Kind::Aside, path, "x/x")?;
        let away = away.ancestors().skip(1).find(|directory| directory.exists()).unwrap_or(path);
        for directory in [parent_of(path), away] {
            let project = open::directory(directory).and_then(file::project).context("look at", directory)?;
            if !project.takes(own) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Refuses data that are a mount point by now, in which something is mounted that nobody declared, or that cannot be
    /// exchanged with their snapshot by a rename.
    fn refuse_borders(&self, item: &DataSnapshot, snapshot: &Path) -> Result<(), Error> {
        let path = Path::new(&item.path);
        let unfit = |why| Err(Error::Unfit { path: path.to_owned(), why });
        if !is_there(path) {
            return Ok(());
        }
        // Its own name may be a link that somebody put there: that is exchanged itself.
        if inode::of_path(path).context("look at", path)?.kind == nix::sys::stat::SFlag::S_IFLNK {
            return Ok(());
        }
        if let Some(within) = self.mounted_within(item)?.into_iter().next() {
            if within.as_os_str().is_empty() {
                return unfit(
                    "something is mounted there by now: unmount it first, or go back with `--data keep`",
                );
            }
            // To declare it with `leave` would come too late for a copy that was made before.
            return Err(Error::Unfit {
                path: path.join(within),
                why: "it is a mount point within the data by now, which a rollback would carry away: unmount it \
                      first, or go back with `--data keep`",
            });
        }
        let open = |path: &Path| -> io::Result<inode::Inode> { inode::of(open::location(path)?) };
        let here = open(parent_of(path)).context("look at", parent_of(path))?;
        let there = open(parent_of(snapshot)).context("look at", parent_of(snapshot))?;
        if (here.mount, here.device) == (there.mount, there.device) || item.method == Method::Btrfs.name() {
            return Ok(());
        }
        unfit("it is on another mount than its copy by now, so that they cannot be exchanged")
    }
}

/// A name that users have for nothing. What an earlier try has left is empty, and looks as it was made.
fn free_for_try(here: &Path, away: &Path) -> String {
    let is_left = |path: &Path| match std::fs::symlink_metadata(path) {
        Err(_) => true,
        Ok(found) => {
            found.is_dir()
                && found.mode() & 0o7777 == 0o700
                && found.uid() == nix::unistd::geteuid().as_raw()
                && std::fs::read_dir(path).is_ok_and(|mut inner| inner.next().is_none())
        }
    };
    let names = std::iter::once(TRY.to_owned()).chain((1..100).map(|number| format!("{TRY}-{number}")));
    let is_free = |name: &String| [here, away].iter().all(|place| is_left(&place.join(name)));
    names.into_iter().find(is_free).unwrap_or_else(|| TRY.to_owned())
}

/// The directories that are moved away when these data are brought back.
fn moved(entry: &Entry) -> Vec<PathBuf> {
    let leave = Leave::of(&entry.leave);
    let within = spots(entry).split_off(1);
    let inner = |directory: &PathBuf| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_moved = |path: &PathBuf| {
        let name = path.strip_prefix(&entry.path).unwrap_or(path);
        !leave.is(name) && !leave.is_below(name)
    };
    let all = if within.is_empty() {
        vec![entry.path.clone()]
    } else {
        within.iter().flat_map(inner).map(|entry| entry.path()).filter(is_moved).collect()
    };
    all.into_iter().filter(|path| inode::of_path(path).is_ok_and(|found| found.is_directory())).collect()
}

/// Where names come and go when these data are brought back.
fn spots(entry: &Entry) -> Vec<PathBuf> {
    let leave = Leave::of(&entry.leave);
    let is_directory =
        |path: &Path| inode::of_path(path).is_ok_and(|found| found.is_directory() && !found.is_mount_root);
    let is_subvolume = btrfs::is_subvolume(&entry.path).unwrap_or(false);
    let mut spots = vec![parent_of(&entry.path).to_owned()];
    if leave.is_nothing() || is_subvolume || !is_directory(&entry.path) {
        return spots;
    }
    let mut within: Vec<PathBuf> =
        leave.paths().flat_map(Path::ancestors).skip(1).map(|part| entry.path.join(part)).collect();
    within.push(entry.path.clone());
    within.sort();
    within.dedup();
    within.retain(|path| is_directory(path) && !leave.paths().any(|left| entry.path.join(left) == *path));
    spots.extend(within);
    spots
}
