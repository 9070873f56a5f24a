//! One cutover at a time: a kernel lock on a file in `.cutover/`, which also says who holds it.
//!
//! The lock is the kernel's (flock(2)): it goes with the process, whatever kills it. The content is for people.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::disk::{self, Context, Disk};

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// What it was asked to do.
    pub command: String,
    /// Since when.
    pub since: Timestamp,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// What came of trying.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Mine(Lock),
    /// Somebody else has it; who, if they have said so already.
    Theirs(Option<Holder>),
}

/// Tries to take the lock `path`, and writes `holder` into it.
///
/// The descriptor is not inherited by hooks and services: a hook that stays in the background cannot keep the lock.
pub fn try_lock(disk: &Disk, path: &Path, holder: &Holder) -> Result<Attempt, disk::Error> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
    };
    let mut file = match Flock::lock(open().context("open the lock", path)?, FlockArg::LockExclusiveNonblock)
    {
        Ok(file) => file,
        Err((file, Errno::EWOULDBLOCK)) => return Ok(Attempt::Theirs(read_holder(&file))),
        Err((_, errno)) => return Err(disk::Error::new("lock", path, errno)),
    };
    disk.ask("write the lock", path)?;
    // Without room for it the lock holds all the same; only the message to others is poorer.
    let text = serde_json::to_string(holder).unwrap_or_default();
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    Ok(Attempt::Mine(Lock { _file: file }))
}

/// Who holds the lock now, if anybody does.
pub fn holder(path: &Path) -> Option<Holder> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err((file, _)) => read_holder(&file),
    }
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_was_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let me = Holder { pid: 7, command: "update".into(), since: Timestamp::UNIX_EPOCH };
        let first = try_lock(&Disk::default(), &path, &me).unwrap();
        assert!(matches!(first, Attempt::Mine(_)));
        let Attempt::Theirs(Some(seen)) = try_lock(&Disk::default(), &path, &me).unwrap() else {
            panic!("the lock was given twice");
        };
        assert_eq!(seen, me);
        drop(first);
        assert!(matches!(try_lock(&Disk::default(), &path, &me).unwrap(), Attempt::Mine(_)));
    }
}
