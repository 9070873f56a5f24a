//! Copies for a rehearsal: taken while the service runs, written to by the new release, and thrown away.
//!
//! What tells of them is written down before the first one is made, so that they are found whatever comes between. They
//! are never synced: after a power cut nobody wants them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inventory::{Planned, Probing};
use super::leave::Leave;
use super::snapshot::{Method, Writers};
use super::{Data, Entry, Error, Kind, copy, exchange};
use crate::sys::disk::Context as _;
use crate::sys::kernel::btrfs;
use crate::types::record::{DataPolicy, DataSnapshot};

/// The copies of one rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Each copy, and what it stands for.
    pub items: Vec<Copy>,
    /// Bytes that were copied; none where blocks are shared.
    pub copied_bytes: u64,
    /// Data that changed while they were copied, each time: such a copy may be of no whole state.
    pub changing: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub path: PathBuf,
    pub place: PathBuf,
    /// How it was made: `btrfs`, `reflink` or `copy`.
    pub method: &'static str,
}

/// What is in `rehearsal/<transaction>`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    transaction: String,
    /// The root in which it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    items: Vec<DataSnapshot>,
}

impl Data {
    /// Where the parts of a rehearsal are that belong to no data.
    pub fn rehearsal_directory(&self, transaction: &str) -> PathBuf {
        self.private.join(Kind::Rehearsals.directory()).join(transaction)
    }

    /// Says whether copies for a rehearsal can be made, without trying what the file system can do.
    pub fn check_copies(&self, entries: &[Entry]) -> Result<(), Error> {
        self.check(&all_copied(entries), Probing::Guessed)
    }

    /// Copies data for a rehearsal; those that are not there are left out. What is left in place stays out of the copies:
    /// an empty directory stands there.
    pub fn make_copies(&self, transaction: &str, entries: &[Entry]) -> Result<Copies, Error> {
        let (mut planned, mut items) = (Vec::new(), Vec::new());
        let entries = all_copied(entries);
        for (number, Planned { entry, method }) in
            self.inventory(&entries, Probing::Tried)?.into_iter().enumerate()
        {
            let path = &entry.path;
            let name = format!("{transaction}/data/{number}-{}", super::own_name(path));
            let place = self.place(Kind::Rehearsals, path, &name)?;
            if method != Method::Absent {
                let path = path.to_string_lossy().into_owned();
                let leave = Vec::new();
                items.push(DataSnapshot { path, name, method: method.name().to_owned(), leave });
                planned.push((entry, place, method));
            }
        }
        let set = Set { transaction: transaction.to_owned(), root: self.root_name(), items };
        self.write_index(Kind::Rehearsals, transaction, &set)?;
        self.make_parents(&self.rehearsal_directory(transaction).join("x"))?;
        let mut copies = Copies::default();
        for (entry, place, method) in planned {
            self.make_parents(&place)?;
            if !self.copy_for_rehearsal(entry, &place, method)? {
                copies.changing.push(entry.path.clone());
            }
            if method == Method::Copy {
                copies.copied_bytes += copy::size_bytes(&place)?;
            }
            copies.items.push(Copy { path: entry.path.clone(), place, method: method.name() });
        }
        Ok(copies)
    }

    /// Makes one copy; whether it is of one moment.
    fn copy_for_rehearsal(&self, entry: &Entry, place: &Path, method: Method) -> Result<bool, Error> {
        let (path, leave) = (&entry.path, Leave::of(&entry.leave));
        let mut is_whole = true;
        if method == Method::Btrfs {
            self.disk.ask("take a snapshot of", path)?;
            btrfs::snapshot(path, place, false).context("take a snapshot of", path)?;
        } else {
            is_whole = self.copy_whole(path, place, leave, Writers::Running)?;
            if !is_whole {
                // It changes all the time: what can be had is a copy of no single moment.
                self.remove(place)?;
                copy::copy(path, place, leave)?;
            }
        }
        exchange::stand_for_left(path, place, leave).context("make what is left in", place)?;
        Ok(is_whole)
    }

    /// Removes all that rehearsals have left. Says whether there was anything.
    pub fn remove_rehearsals(&self) -> Result<bool, Error> {
        let directory = self.private.join(Kind::Rehearsals.directory());
        if fs::symlink_metadata(&directory).is_err() {
            return Ok(false);
        }
        // An index that cannot be read tells nothing of other places; what is here goes with the directory.
        for set in self.read_indexes::<Set>(Kind::Rehearsals).unwrap_or_default() {
            let places =
                set.items.iter().map(|item| self.place(Kind::Rehearsals, Path::new(&item.path), &item.name));
            let mut places = places.collect::<Result<Vec<_>, _>>()?;
            self.retain_own(set.root.as_deref(), &mut places);
            self.remove_set(Kind::Rehearsals, &set.transaction, &places)?;
        }
        self.remove(&directory)?;
        Ok(true)
    }
}

/// Copied are also data that a rollback would keep: the new release writes to them.
fn all_copied(entries: &[Entry]) -> Vec<Entry> {
    entries.iter().map(|entry| Entry { on_rollback: DataPolicy::Auto, ..entry.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sys::disk::{Change, Disk};

    fn data(root: &Path) -> Data {
        let disk = Disk::default();
        disk.make_directory(&root.join(".cutover"), 0o700).unwrap();
        disk.make_directory(&root.join("data"), 0o755).unwrap();
        disk.replace(&root.join("data/db"), b"live", 0o600).unwrap();
        Data { disk, private: root.join(".cutover"), reserve: 0, stopped: super::super::Stopped::Nothing }
    }

    fn entry(root: &Path, name: &str) -> Entry {
        Entry { path: root.join(name), on_rollback: DataPolicy::Keep, leave: Vec::new() }
    }

    #[test]
    fn a_copy_is_written_to_and_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        let data = data(directory.path());
        let paths = ["data", "absent"].map(|name| entry(directory.path(), name));
        let copies = data.make_copies("t1", &paths).unwrap();
        let [copy] = &copies.items[..] else { panic!("{copies:?}") };
        assert!(copies.changing.is_empty());
        data.disk.replace(&copy.place.join("db"), b"migrated", 0o600).unwrap();
        assert_eq!(std::fs::read(directory.path().join("data/db")).unwrap(), b"live");
        assert!(data.remove_rehearsals().unwrap());
        assert!(!data.remove_rehearsals().unwrap());
        assert!(!directory.path().join(".cutover/rehearsal").exists());
    }

    #[test]
    fn copies_interrupted_anywhere_are_found_and_removed() {
        for stop_before in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let data = data(directory.path());
            let count = AtomicUsize::new(0);
            let probe = move |_: Change<'_>| {
                if count.fetch_add(1, Ordering::SeqCst) == stop_before {
                    return Err(nix::errno::Errno::EIO.into());
                }
                Ok(())
            };
            let failing = Data { disk: Disk::with_probe(Arc::new(probe)), ..data.clone() };
            let paths = [entry(directory.path(), "data")];
            let made = failing.make_copies("t1", &paths).and_then(|_| failing.remove_rehearsals());
            data.remove_rehearsals().unwrap();
            let left = directory.path().join(".cutover/rehearsal");
            assert!(!left.exists(), "stopped before change {stop_before}");
            assert_eq!(std::fs::read(directory.path().join("data/db")).unwrap(), b"live");
            if made.is_ok() {
                assert!(stop_before > 5, "only {stop_before} changes");
                break;
            }
        }
    }
}
