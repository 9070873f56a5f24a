//! Copies of data from before a switch: to which release they belong, how old they are, and how long they stay.
//!
//! A copy belongs to the release that wrote it, whatever became of journal and memory: it says so itself. It stays as long
//! as that release can be gone back to, and nothing newer of that release is there.

use std::time::Duration;

use jiff::Timestamp;

use crate::lifecycle::application::data::{self, Data, SnapshotSet};
use crate::store::Store;
use crate::types::record::DataSnapshot;
use crate::types::{ReleaseId, Span};

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
        let is_there = |item: &DataSnapshot| self.data.is_out_of_reach(item) || self.data.has_copy(item);
        !set.items.is_empty() && set.items.iter().all(is_there)
    }
}

/// Whether data that were copied at a moment are older than this, by what can be known: with a clock that was, or is, off by
/// more, they may be.
pub fn is_older(at: Timestamp, now: Timestamp, than: Duration) -> bool {
    now.duration_since(at).unsigned_abs() > than
}

/// How long ago that was, for people.
pub fn age_text(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    match u64::try_from(seconds) {
        Ok(0) => "just now".to_owned(),
        Ok(seconds) => format!("{} ago", Span(Duration::from_secs(seconds))),
        Err(_) => "ahead of this node's clock, so how old they are is not known".to_owned(),
    }
}

/// How many seconds ago.
pub fn age_s(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_a_clock_that_was_wrong_are_as_old_as_they_may_be() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let day = Duration::from_secs(86_400);
        let after = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap();
        for (seconds, is_old, text) in [
            (-172_800, true, "2d ago"),
            (-3_600, false, "1h ago"),
            (0, false, "just now"),
            (30, false, "ahead of this node's clock, so how old they are is not known"),
            (300_000_000, true, "ahead of this node's clock, so how old they are is not known"),
        ] {
            assert_eq!(is_older(after(seconds), now, day), is_old, "{seconds}");
            assert_eq!(age_text(after(seconds), now), text, "{seconds}");
        }
    }
}
