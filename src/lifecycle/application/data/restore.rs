//! Bringing data back, and what is set aside by it.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::leave::Leave;
use super::snapshot::{Method, is_copy};
use super::{Data, Error, Kind, copy, parent_of, read_index};
use crate::sys::kernel::btrfs::is_subvolume;
use crate::types::ReleaseId;
use crate::types::record::DataSnapshot;

/// Newer data that one rollback moved away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsideSet {
    pub transaction: String,
    /// The release that wrote these data.
    pub release: ReleaseId,
    pub at: Timestamp,
    /// The root in which that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    pub items: Vec<AsideItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsideItem {
    pub path: PathBuf,
    pub stored: PathBuf,
}

/// A rollback's wish to have data back.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    pub items: &'a [DataSnapshot],
    /// The rollback: names what is set aside.
    pub transaction: &'a str,
    /// The release that wrote the data which are there now.
    pub newer: &'a ReleaseId,
    /// The time, for the list of what is set aside.
    pub at: Timestamp,
}

impl Data {
    /// Makes sure that the data are those of the snapshots, and that what was there is set aside. Services must be stopped.
    /// Needs no free space to speak of: all is moved. What was mounted within them meanwhile stays where it is: these paths
    /// within the data, for each of them.
    pub fn ensure_restored(&self, wish: Restore<'_>) -> Result<Vec<Vec<PathBuf>>, Error> {
        let mut moves = Vec::new();
        self.refuse_other_roots(wish.items)?;
        for item in wish.items {
            moves.push((item, self.aside_of(item, wish.transaction)?));
        }
        // It may be there for other data, to which the way was to lead before anything was moved.
        let listed = read_index::<AsideSet>(&self.index(Kind::Aside, wish.transaction))?;
        let mut items = listed.map(|set| set.items).unwrap_or_default();
        let unlisted: Vec<_> =
            moves.iter().map(|(_, aside)| aside).filter(|aside| !items.contains(aside)).cloned().collect();
        if !unlisted.is_empty() {
            items.extend(unlisted);
            let (transaction, release) = (wish.transaction.to_owned(), wish.newer.clone());
            let set = AsideSet { transaction, release, at: wish.at, root: self.root_name(), items };
            self.write_index(Kind::Aside, wish.transaction, &set)?;
        }
        // Of all, before anything is moved.
        let mounted =
            moves.iter().map(|(item, _)| self.mounted_meanwhile(item)).collect::<Result<Vec<_>, _>>()?;
        for ((item, aside), mounted) in moves.iter().zip(&mounted) {
            self.ensure_moved(item, aside, mounted)?;
        }
        Ok(mounted)
    }

    /// What was mounted within the data since the switch, and stays there while the rest is exchanged. Refuses data that
    /// nobody can exchange so: an old release is never started on data of the new one.
    fn mounted_meanwhile(&self, item: &DataSnapshot) -> Result<Vec<PathBuf>, Error> {
        if self.is_copy_gone(item) {
            return Ok(Vec::new());
        }
        let snapshot = self.snapshot_place(item)?;
        let is_directory = fs::symlink_metadata(&item.path).is_ok_and(|found| found.is_dir());
        let mounted = if is_directory { self.mounted_within(item)? } else { Vec::new() };
        let is_by_content = Method::of(&item.method).is_some_and(Method::is_by_content);
        let is_top = mounted.iter().any(|within| within.as_os_str().is_empty());
        if is_by_content && !is_top && !mounted.is_empty() {
            return Ok(mounted);
        }
        if is_top || is_there(&snapshot) {
            self.refuse_unmovable(item, &snapshot)?;
        }
        Ok(Vec::new())
    }

    /// Where the newer data of this path go in that rollback.
    pub(super) fn aside_of(&self, item: &DataSnapshot, transaction: &str) -> Result<AsideItem, Error> {
        let path = PathBuf::from(&item.path);
        let own = item.name.rsplit('/').next().unwrap_or_default();
        let stored = self.place(Kind::Aside, &path, &format!("{transaction}/{own}"))?;
        Ok(AsideItem { path, stored })
    }

    /// Whether that rollback has moved nothing yet: the data are those that the newer release wrote, all of them.
    pub fn is_untouched(&self, items: &[DataSnapshot], transaction: &str) -> bool {
        items.iter().all(|item| {
            let (Ok(aside), Ok(snapshot)) = (self.aside_of(item, transaction), self.snapshot_place(item))
            else {
                return false;
            };
            let has_begun = is_there(&aside.stored) || is_there(&back_name(&snapshot));
            let is_moved = |within: &PathBuf| is_subvolume(&snapshot.join(within)).unwrap_or(false);
            let has_moved_left = item.method == "btrfs" && item.leave.iter().any(is_moved);
            let has_copy = is_copy(item, &snapshot) || self.is_lost(item, transaction);
            has_copy && !has_begun && !has_moved_left
        })
    }

    /// The snapshot goes last: while it is there, the work is not done.
    fn ensure_moved(&self, item: &DataSnapshot, aside: &AsideItem, mounted: &[PathBuf]) -> Result<(), Error> {
        let snapshot = self.snapshot_place(item)?;
        let left = [&item.leave, mounted].concat();
        let leave = Leave::of(&left);
        let is_directory = fs::symlink_metadata(&aside.path).is_ok_and(|found| found.is_dir());
        let is_by_content =
            !leave.is_nothing() && Method::of(&item.method).is_some_and(Method::is_by_content);
        let has_begun = is_there(&back_name(&snapshot));
        if has_begun || (is_by_content && is_directory && is_there(&snapshot) && snapshot.is_dir()) {
            self.disk.make_directory(&aside.path, 0o700)?;
            self.exchange_contents(&aside.path, &snapshot, &aside.stored, leave)?;
            tracing::info!(path = %aside.path.display(), "data are as before the switch, but for what is left in place");
            return Ok(());
        }
        if !is_copy(item, &snapshot) {
            return Ok(());
        }
        if item.method == "btrfs" {
            self.move_left(&aside.path, is_directory, &snapshot, leave)?;
        }
        if is_there(&aside.path) {
            let free = first_free(&aside.stored);
            self.make_parents(&free)?;
            self.disk.rename(&aside.path, &free)?;
        }
        if item.method == "absent" {
            return Ok(self.disk.remove_file(&snapshot)?);
        }
        self.disk.rename(&snapshot, &aside.path)?;
        tracing::info!(path = %aside.path.display(), "data are as before the switch");
        Ok(())
    }

    /// Whether that was set aside on a file system which is not mounted now: what is beside data is so because they were
    /// on another mount than `.cutover`.
    pub fn is_away(&self, item: &AsideItem) -> bool {
        let stored = &item.stored;
        let is_ours = || self.is_on_our_mount(parent_of(stored)).unwrap_or(true);
        !stored.starts_with(&self.private) && !is_there(stored) && is_ours()
    }

    /// What was set aside and is not known to be gone, in order of transactions, with the size in bytes of what is there.
    pub fn aside(&self) -> Result<Vec<(AsideSet, u64)>, Error> {
        let mut sets = Vec::new();
        for set in self.still_aside()? {
            let mut bytes = 0;
            for item in set.items.iter().filter(|item| is_there(&item.stored)) {
                bytes += copy::size_bytes(&item.stored)?;
            }
            sets.push((set, bytes));
        }
        Ok(sets)
    }

    /// The same without their sizes, which take a walk: a list outlives what somebody removed by hand.
    pub fn still_aside(&self) -> Result<Vec<AsideSet>, Error> {
        let mut sets = self.aside_sets()?;
        for set in &mut sets {
            set.items.retain(|item| is_there(&item.stored) || self.is_away(item));
        }
        sets.retain(|set| !set.items.is_empty());
        Ok(sets)
    }

    /// All that was set aside. A root that was moved or copied took with it what is in `.cutover`, though not what lists say.
    fn aside_sets(&self) -> Result<Vec<AsideSet>, Error> {
        let mut sets = self.read_indexes::<AsideSet>(Kind::Aside)?;
        for item in sets.iter_mut().flat_map(|set| &mut set.items) {
            let Some(old) = item.stored.ancestors().find(|above| above.ends_with(".cutover")) else {
                continue;
            };
            let moved =
                item.stored.strip_prefix(old).map(|within| self.private.join(within)).unwrap_or_default();
            if moved == item.stored || !is_there(&moved) {
                continue;
            }
            if let Ok(within) = item.path.strip_prefix(parent_of(old)) {
                item.path = parent_of(&self.private).join(within);
            }
            item.stored = moved;
        }
        for set in sets.iter_mut().filter(|set| self.other_root(set.root.as_deref()).is_some()) {
            set.items.retain(|item| item.stored.starts_with(&self.private));
        }
        Ok(sets)
    }

    /// Deletes what a rollback set aside. `false` when there is nothing of that transaction.
    pub fn drop_aside(&self, transaction: &str) -> Result<bool, Error> {
        let Some(set) = self.aside_sets()?.into_iter().find(|set| set.transaction == transaction) else {
            return Ok(false);
        };
        if let Some(item) = set.items.iter().find(|item| self.is_away(item)) {
            let (path, index) = (item.stored.clone(), self.index(Kind::Aside, transaction));
            return Err(Error::Away { path, index });
        }
        let mut places = Vec::new();
        for item in &set.items {
            let mut place = item.stored.clone();
            while is_there(&place) {
                places.push(place.clone());
                place = next_name(&item.stored, places.len());
            }
        }
        self.refuse_used(&places)?;
        self.remove_set(Kind::Aside, transaction, &places)?;
        Ok(true)
    }
}

/// The name of a snapshot whose content is being moved to where it was.
pub(super) fn back_name(snapshot: &Path) -> PathBuf {
    let mut name = snapshot.to_owned().into_os_string();
    name.push(".back");
    name.into()
}

pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The path itself, or with a number when somebody made the data anew between two tries.
pub(super) fn first_free(path: &Path) -> PathBuf {
    let mut free = path.to_owned();
    for number in 1.. {
        if !is_there(&free) {
            break;
        }
        free = next_name(path, number);
    }
    free
}

fn next_name(path: &Path, number: usize) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{number}"));
    name.into()
}
