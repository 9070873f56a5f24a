//! Copies for a rehearsal: taken while the service runs, written to by the new release, and thrown away.
//!
//! What tells of them is written down before the first one is made, so that they are found whatever comes between. They
//! are never synced: after a power cut nobody wants them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::snapshot::Method;
use super::{Data, Error, Kind, copy};
use crate::sys::disk::Context as _;
use crate::sys::ioctl;
use crate::types::record::DataSnapshot;

/// How often a copy is made anew when the data have changed meanwhile.
const TRIES: u32 = 5;

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

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The data.
    pub path: PathBuf,
    /// The copy.
    pub place: PathBuf,
    /// How it was made: `btrfs`, `reflink` or `copy`.
    pub method: &'static str,
}

/// What is in `rehearsal/<transaction>`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    transaction: String,
    items: Vec<DataSnapshot>,
}

impl Data {
    /// Where the parts of a rehearsal are that belong to no data.
    pub fn rehearsal_directory(&self, transaction: &str) -> PathBuf {
        self.private.join(Kind::Rehearsals.directory()).join(transaction)
    }

    /// Says whether there is room for copies of `paths`, without trying what the file system can do.
    pub fn check_copies(&self, paths: &[PathBuf]) -> Result<(), Error> {
        for path in paths {
            let shares = ioctl::is_btrfs(path).unwrap_or(false) || ioctl::is_xfs(path).unwrap_or(false);
            if !shares {
                self.check_room(path, Method::Copy)?;
            }
        }
        Ok(())
    }

    /// Copies `paths` for a rehearsal; those that are not there are left out.
    pub fn make_copies(&self, transaction: &str, paths: &[PathBuf]) -> Result<Copies, Error> {
        let (mut planned, mut items) = (Vec::new(), Vec::new());
        for (number, path) in paths.iter().enumerate() {
            let method = self.method(path)?;
            self.check_room(path, method)?;
            let own = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{transaction}/data/{number}-{own}");
            let place = self.place(Kind::Rehearsals, path, &name)?;
            if method != Method::Absent {
                let path_text = path.to_string_lossy().into_owned();
                items.push(DataSnapshot { path: path_text, name, method: method.name().to_owned() });
                planned.push((path, place, method));
            }
        }
        let set = Set { transaction: transaction.to_owned(), items };
        self.write_index(Kind::Rehearsals, transaction, &set)?;
        self.make_parents(&self.rehearsal_directory(transaction).join("x"))?;
        let mut copies = Copies::default();
        for (path, place, method) in planned {
            self.make_parents(&place)?;
            if !self.copy_for_rehearsal(path, &place, method)? {
                copies.changing.push(path.clone());
            }
            if method == Method::Copy {
                copies.copied_bytes += copy::size_bytes(&place)?;
            }
            copies.items.push(Copy { path: path.clone(), place, method: method.name() });
        }
        Ok(copies)
    }

    /// Makes one copy; whether it is of one moment.
    fn copy_for_rehearsal(&self, path: &Path, place: &Path, method: Method) -> Result<bool, Error> {
        if method == Method::Btrfs {
            self.disk.ask("take a snapshot of", path)?;
            ioctl::snapshot(path, place, false).context("take a snapshot of", path)?;
            return Ok(true);
        }
        for _ in 0..TRIES {
            self.remove(place)?;
            self.disk.ask("copy data to", place)?;
            let before = copy::fingerprint(path)?;
            let copied = copy::copy(path, place);
            let is_same = copy::fingerprint(path)? == before;
            match copied {
                Ok(()) if is_same => return Ok(true),
                // Files that go while they are copied are no failure of the copy.
                Ok(()) | Err(_) if !is_same => {}
                copied => copied?,
            }
        }
        // It changes all the time: what can be had is a copy of no single moment.
        self.remove(place)?;
        copy::copy(path, place)?;
        Ok(false)
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
            self.remove_set(Kind::Rehearsals, &set.transaction, &places.collect::<Result<Vec<_>, _>>()?)?;
        }
        self.remove(&directory)?;
        Ok(true)
    }
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
        Data { disk, private: root.join(".cutover"), reserve: 0 }
    }

    #[test]
    fn a_copy_is_written_to_and_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        let data = data(directory.path());
        let paths = ["data", "absent"].map(|name| directory.path().join(name));
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
            let paths = [directory.path().join("data")];
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
