//! One cutover at a time: a kernel lock on a file in `.cutover/`, which also says who holds it.
//!
//! The lock is the kernel's (flock(2)): it goes with the process, whatever kills it. The content is for people.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::disk::{self, Context, Disk};

/// How often a lock that is taken is tried again, for those that only look who has it.
const TRIES: u32 = 10;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// What it was asked to do.
    pub command: String,
    pub since: Timestamp,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: Option<Flock<File>>,
}

impl Lock {
    /// Of a file that is locked: its end cannot panic.
    pub fn new(file: Flock<File>) -> Self {
        Self { file: Some(file) }
    }
}

impl Drop for Lock {
    /// A lock that the kernel does not take back is no reason to end: what was done stands.
    fn drop(&mut self) {
        let Some(Err((held, errno))) = self.file.take().map(Flock::unlock) else { return };
        tracing::warn!("cannot release a lock: {errno}");
        // It goes with its descriptor, and we may want it again. Dropped, it would be asked for once more, and panic.
        let _ = nix::unistd::close(held.as_raw_fd());
        std::mem::forget(held);
    }
}

#[derive(Debug)]
pub enum Attempt {
    Mine(Lock),
    /// Somebody else has it; who, if they have said so already.
    Theirs(Option<Holder>),
}

/// Tries to take the lock `path`, and writes `holder` into it.
///
/// The descriptor is not inherited by hooks and services: a hook that stays in the background cannot keep the lock.
pub fn try_lock(disk: &Disk, path: &Path, holder: &Holder) -> Result<Attempt, disk::Error> {
    let mut file = open(path)?;
    let mut tries = 0;
    let mut file = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => break locked,
            // Whoever only looks at the lock has it for a moment.
            Err((same, Errno::EWOULDBLOCK)) if tries < TRIES => {
                tries += 1;
                std::thread::sleep(PAUSE);
                file = same;
            }
            Err((file, Errno::EWOULDBLOCK)) => return Ok(Attempt::Theirs(read_holder(&file))),
            Err((_, errno)) => return Err(disk::Error::new("lock", path, errno)),
        }
    };
    disk.ask("write the lock", path)?;
    // Without room for it the lock holds all the same; only the message to others is poorer.
    let text = serde_json::to_string(holder).unwrap_or_default();
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    Ok(Attempt::Mine(Lock::new(file)))
}

fn open(path: &Path) -> Result<File, disk::Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path);
    file.context("open the lock", path)
}

/// Waits for a lock that is held for moments only. `None` when it was not to be had within `limit`.
pub fn wait_for(path: &Path, limit: Duration) -> Result<Option<Lock>, disk::Error> {
    let begin = std::time::Instant::now();
    let mut file = open(path)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(Some(Lock::new(locked))),
            Err((same, Errno::EWOULDBLOCK)) if begin.elapsed() < limit => file = same,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(disk::Error::new("lock", path, errno)),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Who holds the lock now, if anybody does.
pub fn holder(path: &Path) -> Option<Holder> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(free) => {
            drop(Lock::new(free));
            None
        }
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

    #[test]
    fn those_who_only_look_never_make_it_busy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let me = Holder { pid: 7, command: "update".into(), since: Timestamp::UNIX_EPOCH };
        drop(try_lock(&Disk::default(), &path, &me).unwrap());
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        holder(&path);
                        std::thread::sleep(Duration::from_micros(100));
                    }
                });
            }
            let is_busy = |_: &u32| !matches!(try_lock(&Disk::default(), &path, &me), Ok(Attempt::Mine(_)));
            let busy = (0..500).find(is_busy);
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(busy, None);
        });
    }
}
