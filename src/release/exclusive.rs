//! One writer at a time, where several could write the same files: a lock file beside them.
//!
//! The lock is the kernel's (flock(2)), so it goes with its process. The file is removed with it; who waited for a file
//! that is gone by then makes a new one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::sys::disk::{self, Context as _, Disk};
use crate::sys::lock::Lock;
use crate::types::escaped_path;

/// The lock that publishers of a directory share.
const PUBLISH_LOCK: &str = ".cutover-publish.lock";
/// How long a publisher waits for another one.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(60);
/// All who work there can read the lock, and so take it.
const LOCK_MODE: u32 = 0o644;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another process works there, and holds the lock `{}`", escaped_path(.0))]
    Taken(PathBuf),
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// A lock that is held until this is dropped.
pub struct Exclusive {
    /// `None` where the file system knows no locks.
    _file: Option<Lock>,
    path: PathBuf,
    disk: Disk,
}

impl Exclusive {
    /// Of those who publish into a directory one after the other.
    pub fn of_publishers(disk: &Disk, directory: &Path) -> Result<Self, Error> {
        Self::acquire(disk, &directory.join(PUBLISH_LOCK), PUBLISH_PATIENCE)
    }

    /// Takes the lock at `path`, and waits at most `patience` for it.
    pub fn acquire(disk: &Disk, path: &Path, patience: Duration) -> Result<Self, Error> {
        disk.ask("lock", path)?;
        let until = Instant::now() + patience;
        let lock = |file| Self { _file: file, path: path.to_owned(), disk: disk.clone() };
        loop {
            let Some(file) = open(path).context("open the lock", path)? else { continue };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) if is_still_there(&file, path).context("look at", path)? => {
                    return Ok(lock(Some(Lock::new(file))));
                }
                Ok(gone) => drop(Lock::new(gone)),
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() < until => std::thread::sleep(PAUSE),
                Err((_, Errno::EWOULDBLOCK)) => return Err(Error::Taken(path.to_owned())),
                // What is written is read back, which tells two writers apart there as well.
                Err((_, Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP)) => return Ok(lock(None)),
                // NFS locks only what may be written: this is another user's.
                Err((_, Errno::EBADF)) => return Err(disk::Error::new("lock", path, Errno::EACCES).into()),
                Err((_, errno)) => return Err(disk::Error::new("lock", path, errno).into()),
            }
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // It is empty; one that stays hinders nobody.
        drop(self.disk.remove_file(&self.path));
    }
}

/// Opens the lock, or makes it. `None` when it was removed just now.
///
/// A directory may be shared by several users: what another one's process has left there, or holds, can be locked by
/// whoever may read it.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(LOCK_MODE).custom_flags(flags);
    let denied = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        opened => {
            let file = opened?;
            let found = file.metadata()?;
            // Whatever the umask says: it is empty. Where it is another user's, that one has done it.
            if found.mode() & LOCK_MODE != LOCK_MODE && found.uid() == nix::unistd::geteuid().as_raw() {
                file.set_permissions(fs::Permissions::from_mode(LOCK_MODE))?;
            }
            return Ok(Some(file));
        }
    };
    let may_write = || {
        let directory = path.parent().unwrap_or(path);
        nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok()
    };
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_write() => Ok(None),
        Err(_) => Err(denied),
    }
}

/// Whether the path still leads to this file: whoever had the lock before has removed it.
fn is_still_there(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, now) = (file.metadata()?, fs::symlink_metadata(path));
    match now {
        Ok(now) => Ok((ours.dev(), ours.ino()) == (now.dev(), now.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_one_has_it_and_nothing_is_left() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let lock = Exclusive::acquire(&Disk::default(), &path, Duration::from_secs(60));
                        let lock = lock.unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        drop(lock);
                    }
                });
            }
        });
        assert!(!path.exists());
        let _held = Exclusive::acquire(&Disk::default(), &path, Duration::ZERO).unwrap();
        let second = Exclusive::acquire(&Disk::default(), &path, Duration::ZERO);
        assert!(matches!(second, Err(Error::Taken(_))));
    }
}
