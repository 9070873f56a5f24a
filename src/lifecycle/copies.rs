//! Copies of data from before a switch: to which release they belong, how old they are, and how long they stay.
//!
//! A copy belongs to the release that wrote it, whatever became of journal and memory: it says so itself. It stays as long
//! as that release can be gone back to, and nothing newer of that release is there.

use jiff::Timestamp;

use super::data::{self, Data, SnapshotSet};
use crate::store::Store;
use crate::types::ReleaseId;
use crate::types::record::DataSnapshot;

/// The copies of one store.
pub struct DataCopies<'a> {
    store: &'a Store,
    data: Data,
}

impl<'a> DataCopies<'a> {
    /// The copies of this store.
    pub fn new(store: &'a Store) -> Self {
        Self { store, data: Data::kept(store) }
    }

    /// The newest whole copy of each release that can be gone back to, newest first.
    pub fn restorable(&self) -> Result<Vec<SnapshotSet>, data::Error> {
        let active = self.store.active().ok().flatten();
        let mut sets = self.data.snapshots()?;
        sets.sort_by_key(|set| std::cmp::Reverse(set.at));
        let mut found: Vec<SnapshotSet> = Vec::new();
        for set in sets {
            let Some(release) = &set.release else { continue };
            let is_known = found.iter().any(|newer| newer.release.as_ref() == Some(release));
            let is_active = active.as_ref() == Some(&release.version);
            if !is_known && !is_active && self.can_go_back_to(release) && self.is_whole(&set) {
                found.push(set);
            }
        }
        Ok(found)
    }

    /// The copy that belongs to this release, if there is one.
    pub fn of(&self, release: &ReleaseId) -> Result<Option<SnapshotSet>, data::Error> {
        Ok(self.restorable()?.into_iter().find(|set| set.release.as_ref() == Some(release)))
    }

    pub fn needed(&self) -> Result<Vec<DataSnapshot>, data::Error> {
        Ok(self.restorable()?.into_iter().flat_map(|set| set.items).collect())
    }

    /// Lets go what belongs to no release that can be gone back to.
    pub fn drop_surplus(&self) -> Result<(), data::Error> {
        self.data.prune_snapshots(&self.needed()?)
    }

    /// Where nothing tells what the tree must be, the copy's own word is all there is, and no reason to lose it.
    fn can_go_back_to(&self, release: &ReleaseId) -> bool {
        self.store.tree(&release.version).is_ok()
            && self.store.release(&release.version).map_or(true, |sealed| sealed.release == *release)
    }

    /// A copy that cannot be reached just now is none that is lost.
    fn is_whole(&self, set: &SnapshotSet) -> bool {
        let is_there = |item: &DataSnapshot| {
            self.data.is_out_of_reach(item)
                || self.data.snapshot_place(item).is_ok_and(|place| place.symlink_metadata().is_ok())
        };
        !set.items.is_empty() && set.items.iter().all(is_there)
    }
}

/// How many seconds ago.
pub fn age_s(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0)
}
