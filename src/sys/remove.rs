//! Removing trees: cheaply, on several cores, and behind everybody else's input and output.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{deep, ioctl};

/// More threads gain nothing: they wait for the same journal.
const THREADS_MAX: usize = 4;
/// Directories are gone into until there are so many to share out.
const SHARES: usize = 64;

/// Removes `path` and all that is in it. A subvolume goes at once, and its space comes back later.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        #[expect(clippy::disallowed_methods, reason = "this is where trees are removed")]
        return fs::remove_file(path);
    }
    if ioctl::is_subvolume(path)? {
        return ioctl::delete_subvolume(path);
    }
    let shares = Mutex::new(shares(path)?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| remove_shares(&shares))).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    remove_directory(path)
}

fn remove_shares(shares: &Mutex<VecDeque<PathBuf>>) -> io::Result<()> {
    ioctl::yield_input_and_output();
    loop {
        let share = shares.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(share) = share else { return Ok(()) };
        remove_directory(&share)?;
    }
}

fn remove_directory(path: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this is where trees are removed")]
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Perhaps it is deeper than descriptors or paths reach.
        Err(_) => {
            deep::empty(&fs::File::open(path)?)?;
            #[expect(clippy::disallowed_methods, reason = "this is where trees are removed")]
            fs::remove_dir(path)
        }
        removed => removed,
    }
}

/// Directories of the tree, none within another.
fn shares(path: &Path) -> io::Result<VecDeque<PathBuf>> {
    let mut shares = VecDeque::from([path.to_owned()]);
    for _ in 0..SHARES {
        let Some(parent) = shares.pop_front() else { break };
        for entry in fs::read_dir(&parent)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                shares.push_back(entry.path());
            }
        }
        if shares.len() >= SHARES {
            break;
        }
    }
    Ok(shares)
}
