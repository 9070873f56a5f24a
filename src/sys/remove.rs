//! Removing trees: cheaply, on several cores, behind everybody else's input and output, and never across a border to
//! another mount or subvolume.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::dir::{Dir, Type};
use nix::unistd::UnlinkatFlags;

use super::deep::{self, Fixed};
use super::disk::{Context as _, Error};
use super::inode::{self, Inode};
use super::kernel::{btrfs, thread};

/// More threads gain nothing: they wait for the same journal.
const THREADS_MAX: usize = 4;
/// Directories are gone into until there are so many to share out.
const SHARES: usize = 64;

/// A directory that one thread empties.
struct Share {
    parent: Arc<OwnedFd>,
    name: CString,
    path: PathBuf,
}

/// Removes `path` and all that is in it. A subvolume goes at once, and its space comes back later.
pub(super) fn remove_all(path: &Path, fixed: Fixed) -> Result<(), Error> {
    let (parent, name) = inode::open_parent(path).context("remove", path)?;
    let found = inode::look(&parent, &name).context("remove", path)?;
    if !found.is_directory() {
        return deep::remove(&parent, &name, UnlinkatFlags::NoRemoveDir, fixed).context("remove", path);
    }
    if found.is_mount_root {
        return Err(Error::new("remove", path, io::Error::other("something is mounted there")));
    }
    if btrfs::is_subvolume(path).context("look at", path)? {
        match btrfs::delete_subvolume(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => {
                let why = "other subvolumes are nested in it: remove or move them yourself";
                return Err(Error::new("remove", path, io::Error::other(why)));
            }
            // Who is not root may empty a subvolume, and then remove it like a directory.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            deleted => return deleted.context("remove", path),
        }
    }
    let root = Arc::new(deep::open_own(&parent, &name).context("open", path)?);
    // Of the opened directory: the name may have become another one.
    let top = inode::of(&*root).context("look at", path)?;
    let shares = Mutex::new(shares(&root, path, &top)?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| remove_shares(&shares, &top, fixed))).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    empty(&*root, path, fixed)?;
    deep::remove(&parent, &name, UnlinkatFlags::RemoveDir, fixed).context("remove", path)
}

fn remove_shares(shares: &Mutex<VecDeque<Share>>, top: &Inode, fixed: Fixed) -> Result<(), Error> {
    thread::yield_input_and_output();
    loop {
        let share = shares.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(share) = share else { return Ok(()) };
        let directory = match deep::open_within(&*share.parent, &share.name, top) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.context("remove", &share.path)?,
        };
        empty(&directory, &share.path, fixed)?;
    }
}

fn empty(directory: &impl AsFd, path: &Path, fixed: Fixed) -> Result<(), Error> {
    deep::empty(directory, fixed)
        .map_err(|failure| Error::new("remove", &path.join(failure.path), failure.source))
}

/// Directories of the tree, none within another.
fn shares(root: &Arc<OwnedFd>, path: &Path, top: &Inode) -> Result<VecDeque<Share>, Error> {
    let mut shares = directories(root, path)?;
    for _ in 0..SHARES {
        if shares.len() >= SHARES {
            break;
        }
        let Some(share) = shares.pop_front() else { break };
        let directory = deep::open_within(&*share.parent, &share.name, top).context("remove", &share.path)?;
        shares.extend(directories(&Arc::new(directory), &share.path)?);
    }
    Ok(shares)
}

fn directories(directory: &Arc<OwnedFd>, path: &Path) -> Result<VecDeque<Share>, Error> {
    let list = || -> io::Result<VecDeque<Share>> {
        let mut shares = VecDeque::new();
        for entry in Dir::from_fd(directory.try_clone()?)?.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == Some(Type::Directory) && ![c".", c".."].contains(&name) {
                let path = path.join(OsStr::from_bytes(name.to_bytes()));
                shares.push_back(Share { parent: Arc::clone(directory), name: name.to_owned(), path });
            }
        }
        Ok(shares)
    };
    list().context("list", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_across_a_border() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        std::fs::DirBuilder::new().recursive(true).create(tree.join("a/b/c")).unwrap();
        std::fs::DirBuilder::new().create(place.path().join("other")).unwrap();
        let mount = |from: &Path, to: &Path| {
            let none: Option<&str> = None;
            nix::mount::mount(Some(from), to, none, nix::mount::MsFlags::MS_BIND, none)
        };
        let kept = place.path().join("other/kept");
        super::super::disk::Disk::default().replace(&kept, b"kept", 0o600).unwrap();
        let at = tree.join("a/b/c");
        if mount(&place.path().join("other"), &at).is_err() {
            eprintln!("SKIPPED nothing_is_removed_across_a_border: may not mount here");
            return;
        }
        let removed = remove_all(&tree, Fixed::Goes);
        nix::mount::umount(&at).unwrap();
        let error = removed.unwrap_err();
        assert!(kept.exists() && error.path.ends_with("a/b/c"), "{error}: {}", error.source);
        remove_all(&tree, Fixed::Goes).unwrap();
        assert!(!tree.exists());
    }
}
