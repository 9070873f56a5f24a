//! The digest of a tree as it is, its files read by many threads.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::scan::{Contents, walk_unread};
use crate::sys::disk::Error;
use crate::types::Digest;
use crate::types::entry::{Entry, Kind, TreeDigest, path_order};
use crate::types::progress::Progress;

/// Entries that a thread takes at once.
const BATCH: usize = 64;
/// Batches under way for each thread.
const BATCHES: usize = 4;
/// Threads that read at least: what is not in memory is waited for, and disks answer many at once sooner than one by one.
const READERS_MIN: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub digest: Digest,
    /// Whether something is in it that no release may have, and that has no place in a digest.
    pub has_others: bool,
}

/// Looks at the tree `root`. Entries count `as_released`, or not at all; those `instead`, in path order, count as well.
///
/// # Errors
/// When the tree cannot be read, or somebody changes it meanwhile.
pub fn look(
    root: &Path,
    as_released: &dyn Fn(Entry) -> Option<Entry>,
    instead: &[Entry],
    progress: &dyn Progress,
) -> Result<Found, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(READERS_MIN);
    let (give, take) = sync_channel::<Batch>(threads * BATCHES);
    let (done, collect) = sync_channel(threads * BATCHES);
    let take = Mutex::new(take);
    let mut walk = walk_unread(root)?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (take, done) = (&take, done.clone());
            scope.spawn(move || read(root, take, &done));
        }
        drop(done);
        let give = give;
        let mut tree = TreeDigest::default();
        let mut instead = instead.iter().peekable();
        let mut waiting = BTreeMap::new();
        let (mut given, mut added, mut is_over) = (0, 0, false);
        while !is_over || added < given {
            while !is_over && given < added + threads * BATCHES {
                let counting = walk.by_ref().filter_map(|entry| entry.map(as_released).transpose());
                let entries = counting.take(BATCH).collect::<Result<Vec<_>, _>>()?;
                is_over = entries.is_empty();
                if !is_over {
                    give.send(Batch { number: given, entries }).map_err(|_| lost(root))?;
                    given += 1;
                }
            }
            if added == given {
                break;
            }
            let batch: Batch = collect.recv().map_err(|_| lost(root))??;
            waiting.insert(batch.number, batch.entries);
            while let Some(entries) = waiting.remove(&added) {
                for entry in &entries {
                    while let Some(other) =
                        instead.next_if(|other| path_order(&other.path, &entry.path).is_lt())
                    {
                        tree.add(other);
                    }
                    tree.add(entry);
                    let size = if let Kind::File { size, .. } = entry.kind { size } else { 0 };
                    progress.advance(size, 1);
                }
                added += 1;
            }
        }
        instead.for_each(|other| tree.add(other));
        Ok(Found { digest: tree.finish(), has_others: !walk.others().is_empty() })
    })
}

struct Batch {
    number: usize,
    entries: Vec<Entry>,
}

fn lost(root: &Path) -> Error {
    Error::new("read", root, io::Error::other("a thread has ended too early"))
}

/// Reads the files of batch after batch.
fn read(root: &Path, take: &Mutex<Receiver<Batch>>, done: &SyncSender<Result<Batch, Error>>) {
    let mut contents = match Contents::open(root) {
        Ok(contents) => contents,
        Err(error) => return drop(done.send(Err(error))),
    };
    loop {
        let batch = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut batch) = batch else { return };
        let read = batch.entries.iter_mut().try_for_each(|entry| contents.fill(entry));
        if done.send(read.map(|()| batch)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::release::scan;
    use crate::types::progress::Silent;

    #[test]
    fn many_threads_find_what_one_finds() {
        let directory = tempfile::tempdir().unwrap();
        let disk = crate::sys::disk::Disk::default();
        for number in 0..500 {
            let parent = directory.path().join(format!("d{}", number % 9));
            disk.make_directory(&parent, 0o755).unwrap();
            let mut file = File::create(parent.join(number.to_string())).unwrap();
            file.write_all(&vec![number as u8; number * 13]).unwrap();
        }
        let wanted = scan::digest(directory.path()).unwrap();
        let found = |as_released: &dyn Fn(Entry) -> Option<Entry>| {
            look(directory.path(), as_released, &[], &Silent).unwrap()
        };
        assert_eq!(found(&Some), Found { digest: wanted, has_others: false });
        assert_ne!(found(&|entry| (entry.path != b"d1/1").then_some(entry)).digest, wanted);
        nix::unistd::mkfifo(&directory.path().join("d3/queue"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(found(&Some).has_others);
    }
}
