//! Bringing data back around what is left in place.
//!
//! ```text
//! plain directory   it stays, and so do the directories on the way to what is left; what else is in them moves to `aside`,
//!                   then what is in the snapshot (by then named `….back`) moves in
//! subvolume         the subvolumes that are left move into the snapshot first; then both are exchanged as always
//! ```
//! Each step sees on the disk whether it was done.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::leave::Leave;
use super::restore::{back_name, first_free, is_there};
use super::{Data, Error, copy};
use crate::sys::disk::{self, Context as _};
use crate::sys::inode::{self, Inode};
use crate::sys::{kernel::file, open};

const FIXED: i32 = 0x20 | 0x10;

/// What is exchanged, and where the newer part goes.
struct Exchange<'a> {
    data: &'a Data,
    path: &'a Path,
    aside: &'a Path,
    leave: Leave<'a>,
    top: Inode,
}

impl Data {
    /// Exchanges what is in the data with what is in their snapshot, but for what is left.
    pub(super) fn exchange_contents(
        &self,
        path: &Path,
        snapshot: &Path,
        aside: &Path,
        leave: Leave<'_>,
    ) -> Result<(), Error> {
        let filesystem = open::directory(path).context("open", path)?;
        let back = back_name(snapshot);
        let directory: OwnedFd = filesystem.try_clone().context("open", path)?.into();
        let top = inode::of(&directory).context("look at", path)?;
        let exchange = Exchange { data: self, path, aside, leave, top };
        if is_there(snapshot) {
            self.make_parents(aside)?;
            exchange.move_out(&directory, Path::new(""))?;
            self.disk.sync_filesystem(&filesystem, path)?;
            self.disk.rename(snapshot, &back)?;
        }
        let from = inode::open_parent(&back)
            .and_then(|(parent, name)| inode::open_directory(&parent, &name))
            .context("open", &back)?;
        exchange.move_in(&from, &directory, Path::new(""))?;
        self.disk.sync_filesystem(&filesystem, path)?;
        self.remove(&back)
    }

    /// Moves the subvolumes that are left into the snapshot, in place of the empty directories that stand for them there, to which
    /// nobody can write. What is left no more has none. Without `is_directory` nothing of the data is there to be left.
    pub(super) fn move_left(
        &self,
        path: &Path,
        is_directory: bool,
        snapshot: &Path,
        leave: Leave<'_>,
    ) -> Result<(), Error> {
        for within in leave.paths() {
            let (from, to) = (path.join(within), snapshot.join(within));
            let Ok(new) = open_beneath(snapshot, within) else { continue };
            let Some(name) = within.file_name() else { continue };
            let old = if is_directory { open_beneath(path, within).ok() } else { None };
            let found = match old.as_ref().map(|old| fstatat(old, name, AtFlags::AT_SYMLINK_NOFOLLOW)) {
                None | Some(Err(Errno::ENOENT)) => None,
                Some(found) => Some(found.context("look at", &from)?),
            };
            let (Some(old), Some(found)) = (old, found) else {
                // Moved already, or nobody has it any more.
                let there = fstatat(&new, name, AtFlags::AT_SYMLINK_NOFOLLOW);
                if there.is_ok_and(|there| there.st_ino == inode::STANDS_FOR_SUBVOLUME) {
                    self.disk.ask("remove", &to)?;
                    unlinkat(&new, name, UnlinkatFlags::RemoveDir).unwrap_or_default();
                }
                continue;
            };
            // A subvolume has its own device; what is none goes with the rest, and is set aside.
            if found.st_dev == fstat(&old).context("look at", &from)?.st_dev {
                continue;
            }
            self.disk.ask("move", &from)?;
            match unlinkat(&new, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // The snapshot has something else there: then what is here is set aside with the rest.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => continue,
                Err(error) => return Err(error).context("remove", &to)?,
            }
            renameat(&old, name, &new, name).context("move", &from)?;
            self.disk.sync_filesystem(&new, &to)?;
        }
        Ok(())
    }
}

/// Opens the directory that holds a path within another directory, without following a link.
fn open_beneath(top: &Path, within: &Path) -> io::Result<OwnedFd> {
    inode::open_parent_beneath(open::directory(top)?, within)
}

fn name_of(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

impl Exchange<'_> {
    /// Moves what is not left from a directory of the data to the same place in `aside`.
    fn move_out(&self, from: &OwnedFd, within: &Path) -> Result<(), Error> {
        let (path, away) = (self.path.join(within), self.aside.join(within));
        if !is_there(&away) {
            self.data.disk.ask("make the directory", &away)?;
            mkdirat(AT_FDCWD, &away, Mode::S_IRWXU).context("make the directory", &away)?;
        }
        for name in inode::names(from).context("list", &path)? {
            let inner = within.join(name_of(&name));
            if self.leave.is(&inner) {
                continue;
            }
            if self.leave.is_below(&inner)
                && let Some(directory) = self.kept(from, &name, &inner)?
            {
                self.move_out(&directory, &inner)?;
                continue;
            }
            self.rename((from, &name), AT_FDCWD, &first_free(&self.aside.join(&inner)), &inner)?;
        }
        let away_file = open::directory(&away).context("open", &away)?;
        Ok(same_metadata(from, &away_file).context("set owner and mode of", &away)?)
    }

    /// Moves what is in a directory of the snapshot into the same one of the data.
    fn move_in(&self, from: &OwnedFd, to: &OwnedFd, within: &Path) -> Result<(), Error> {
        for name in inode::names(from).context("list", &self.path.join(within))? {
            let inner = within.join(name_of(&name));
            let target = self.path.join(&inner);
            if self.leave.is(&inner) {
                // Of what was mounted after the switch there is a copy, which nobody could see in its place.
                self.rename((from, &name), AT_FDCWD, &first_free(&self.aside.join(&inner)), &inner)?;
                continue;
            }
            if self.leave.is_below(&inner)
                && let Some(directory) = self.kept(to, &name, &inner)?
            {
                let source = inode::open_directory(from, &name).context("open", &target)?;
                self.move_in(&source, &directory, &inner)?;
                continue;
            }
            if fstatat(to, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
                let free = first_free(&self.aside.join(&inner));
                self.rename((to, &name), AT_FDCWD, &free, &inner)?;
            }
            self.rename((from, &name), to, Path::new(name_of(&name)), &inner)?;
        }
        Ok(same_metadata(from, to).context("set owner and mode of", &self.path.join(within))?)
    }

    /// A directory of the data that stays because something in it is left. `None`: it is no directory any more.
    fn kept(&self, parent: &OwnedFd, name: &CStr, within: &Path) -> Result<Option<OwnedFd>, Error> {
        let path = self.path.join(within);
        let found = match inode::look(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.context("look at", &path)?,
        };
        if !found.is_directory() {
            return Ok(None);
        }
        match found.border_to(&self.top) {
            None => Ok(Some(inode::open_directory(parent, name).context("open", &path)?)),
            Some(border) => {
                let data = self.path.to_owned();
                Err(Error::Border { data, path, what: border.name(), within: within.to_owned() })
            }
        }
    }

    fn rename(
        &self,
        (from, name): (&OwnedFd, &CStr),
        to: impl std::os::fd::AsFd,
        new: &Path,
        within: &Path,
    ) -> Result<(), disk::Error> {
        let path = self.path.join(within);
        self.data.disk.ask("move", &path)?;
        renameat(from, name, to, new).context("move", &path)
    }
}

/// Gives a directory owner, attributes, mode and times of another, and takes off what that one has not: the newer release may
/// have let somebody in.
fn same_metadata(from: &OwnedFd, to: &impl std::os::fd::AsFd) -> io::Result<()> {
    let found = fstat(from)?;
    let (from, to) = (File::from(from.try_clone()?), File::from(to.as_fd().try_clone_to_owned()?));
    copy::remove_surplus(&from, &to)?;
    copy::attributes(&from, &to)?;
    match fchown(&to, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid))) {
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => {}
        owned => owned?,
    }
    fchmod(&to, Mode::from_bits_truncate(found.st_mode & 0o7777))?;
    // But for those that would forbid what comes next; who is not root may not set all of them.
    let kept = copy::KEPT_FLAGS & !FIXED;
    let flags = file::flags(&from)? & kept;
    drop(file::flags(&to).and_then(|now| file::set_flags(&to, (now & !kept) | flags)));
    let time = |seconds, nanoseconds| nix::sys::time::TimeSpec::new(seconds, nanoseconds);
    let (accessed, modified) =
        (time(found.st_atime, found.st_atime_nsec), time(found.st_mtime, found.st_mtime_nsec));
    Ok(nix::sys::stat::futimens(&to, &accessed, &modified)?)
}

/// Makes an empty directory in a copy for each that is left in the data, with its owner and mode: for a rehearsal.
pub(super) fn stand_for_left(path: &Path, copy: &Path, leave: Leave<'_>) -> io::Result<()> {
    for within in leave.paths() {
        let (Ok(old), Ok(new), Some(name)) =
            (open_beneath(path, within), open_beneath(copy, within), within.file_name())
        else {
            continue;
        };
        let name = std::ffi::CString::new(name.as_bytes()).map_err(io::Error::other)?;
        let Ok(original) = inode::open_directory(&old, &name) else { continue };
        // In a snapshot an empty directory stands there that nobody may write to.
        match unlinkat(&new, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => continue,
        }
        match mkdirat(&new, name.as_c_str(), Mode::S_IRWXU) {
            Err(Errno::EEXIST) => continue,
            made => made?,
        }
        let directory = inode::open_directory(&new, &name)?;
        let found = fstat(&original)?;
        let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
        match fchown(&directory, Some(uid), Some(gid)) {
            Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => {}
            owned => owned?,
        }
        fchmod(&directory, Mode::from_bits_truncate(found.st_mode & 0o7777))?;
    }
    Ok(())
}
