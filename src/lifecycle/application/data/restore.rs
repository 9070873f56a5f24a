//! Bringing data back, and what is set aside by it.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::leave::Leave;
use super::snapshot::Method;
use super::{Data, Error, Kind, copy, parent_of, read_index};
use crate::sys::ioctl::is_subvolume;
use crate::types::record::DataSnapshot;
use crate::types::{ReleaseId, chain};

/// Newer data that one rollback moved away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsideSet {
    pub transaction: String,
    /// The release that wrote these data.
    pub release: ReleaseId,
    pub at: Timestamp,
    pub items: Vec<AsideItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsideItem {
    pub path: PathBuf,
    pub stored: PathBuf,
}

/// Why data did not come back, told again after an interruption.
const EARLIER: &str = "they could not be exchanged";

/// A rollback's wish to have data back.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    pub items: &'a [DataSnapshot],
    /// The rollback: names what is set aside.
    pub transaction: &'a str,
    /// The release that wrote the data which are there now.
    pub newer: &'a ReleaseId,
    /// The one that wrote those which come back.
    pub older: &'a ReleaseId,
    /// The time, for the list of what is set aside.
    pub at: Timestamp,
}

/// What a rollback came to for data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// They are as before the switch, but for what was mounted in them since then, at these paths within them.
    Around(Vec<PathBuf>),
    /// They stay as they are, and the copy is set aside; why.
    Not(String),
}

impl Data {
    /// Makes sure that the data are those of the snapshots, and that what was there is set aside. Services must be stopped.
    /// Needs no free space to speak of: all is moved.
    ///
    /// What was mounted in them meanwhile stays where it is. Data that nobody can exchange stay as well, and their
    /// snapshot is set aside instead: an old release that serves is worth more than a node that waits.
    pub fn ensure_restored(&self, wish: Restore<'_>) -> Result<Vec<Returned>, Error> {
        let (mut ways, mut moves) = (Vec::new(), Vec::new());
        let mut unmoved = Vec::new();
        for item in wish.items {
            let before = self.before_of(item, wish.transaction)?;
            let snapshot = self.snapshot_place(item)?;
            // Asked before anything is moved: what somebody has mounted must not be carried away.
            let way = if is_there(&before.stored) {
                Returned::Not(EARLIER.into())
            } else if is_there(&snapshot) || is_there(&back_name(&snapshot)) {
                self.way_of(item, &snapshot)?
            } else {
                Returned::Around(Vec::new())
            };
            match &way {
                Returned::Around(_) => moves.push(self.aside_of(item, wish.transaction)?),
                Returned::Not(_) => unmoved.push(before),
            }
            ways.push((item, way));
        }
        let before = name_of_before(wish.transaction);
        for (transaction, release, items) in
            [(wish.transaction, wish.newer, moves), (&before, wish.older, unmoved)]
        {
            self.list_aside(AsideSet {
                transaction: transaction.to_owned(),
                release: release.clone(),
                at: wish.at,
                items,
            })?;
        }
        for (item, way) in &ways {
            match way {
                Returned::Around(mounted) => {
                    self.ensure_moved(item, &self.aside_of(item, wish.transaction)?, mounted)?;
                }
                Returned::Not(_) => {
                    self.set_snapshot_aside(item, &self.before_of(item, wish.transaction)?)?
                }
            }
        }
        Ok(ways.into_iter().map(|(_, way)| way).collect())
    }

    /// Writes down what is about to be set aside; what was written down before stays.
    fn list_aside(&self, mut set: AsideSet) -> Result<(), Error> {
        let index = self.index(Kind::Aside, &set.transaction);
        let known = read_index::<AsideSet>(&index)?;
        let is_new = |item: &AsideItem| known.as_ref().is_none_or(|known| !known.items.contains(item));
        if !set.items.iter().any(is_new) {
            return Ok(());
        }
        set.items.retain(is_new);
        if let Some(mut known) = known {
            known.items.append(&mut set.items);
            set = known;
        }
        self.write_index(Kind::Aside, &set.transaction, &set)
    }

    /// Whether that rollback has begun to bring data back.
    pub(super) fn has_begun(&self, transaction: &str) -> bool {
        [transaction, &name_of_before(transaction)].iter().any(|name| self.index(Kind::Aside, name).exists())
    }

    /// How these data can come back, now that everything is stopped.
    fn way_of(&self, item: &DataSnapshot, snapshot: &Path) -> Result<Returned, Error> {
        let path = Path::new(&item.path);
        let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let mounted = if is_directory { self.mounted_within(item)? } else { Vec::new() };
        let is_by_content = Method::of(&item.method).is_some_and(Method::is_by_content);
        let is_top = mounted.iter().any(|within| within.as_os_str().is_empty());
        if is_by_content && !is_top && !mounted.is_empty() {
            return Ok(Returned::Around(mounted));
        }
        Ok(match self.refuse_unmovable(item, snapshot) {
            Ok(()) => Returned::Around(Vec::new()),
            // What to do about it before going back comes too late.
            Err(Error::Unfit { why, .. }) => Returned::Not(why.split(": ").next().unwrap_or(why).into()),
            Err(error) => Returned::Not(chain(&error)),
        })
    }

    /// The copy of data that stay as they are is kept for people.
    fn set_snapshot_aside(&self, item: &DataSnapshot, before: &AsideItem) -> Result<(), Error> {
        let snapshot = self.snapshot_place(item)?;
        if item.method == Method::Absent.name() || !is_there(&snapshot) {
            return Ok(());
        }
        self.make_parents(&before.stored)?;
        Ok(self.disk.rename(&snapshot, &before.stored)?)
    }

    /// Where the snapshot of data goes that stay as they are in that rollback.
    fn before_of(&self, item: &DataSnapshot, transaction: &str) -> Result<AsideItem, Error> {
        self.aside_of(item, &name_of_before(transaction))
    }

    /// Where the newer data of this path go in that rollback.
    fn aside_of(&self, item: &DataSnapshot, transaction: &str) -> Result<AsideItem, Error> {
        let path = PathBuf::from(&item.path);
        let own = item.name.rsplit('/').next().unwrap_or_default();
        let stored = self.place(Kind::Aside, &path, &format!("{transaction}/{own}"))?;
        Ok(AsideItem { path, stored })
    }

    /// Whether that rollback has moved nothing yet: the data are those that the newer release wrote, all of them.
    pub fn is_untouched(&self, items: &[DataSnapshot], transaction: &str) -> bool {
        items.iter().all(|item| {
            let (Ok(aside), Ok(before), Ok(snapshot)) = (
                self.aside_of(item, transaction),
                self.before_of(item, transaction),
                self.snapshot_place(item),
            ) else {
                return false;
            };
            let has_begun = is_there(&aside.stored) || is_there(&back_name(&snapshot));
            let is_moved = |within: &PathBuf| is_subvolume(&snapshot.join(within)).unwrap_or(false);
            let has_moved_left = item.method == "btrfs" && item.leave.iter().any(is_moved);
            is_there(&before.stored) || (is_there(&snapshot) && !has_begun && !has_moved_left)
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
        if !is_there(&snapshot) {
            return Ok(());
        }
        if is_directory && item.method == "btrfs" {
            self.move_left(&aside.path, &snapshot, leave)?;
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
        for mut set in self.aside_sets()? {
            set.items.retain(|item| is_there(&item.stored) || self.is_away(item));
            let mut bytes = 0;
            for item in set.items.iter().filter(|item| is_there(&item.stored)) {
                bytes += copy::size_bytes(&item.stored)?;
            }
            if !set.items.is_empty() {
                sets.push((set, bytes));
            }
        }
        Ok(sets)
    }

    /// All that was set aside. A root that has moved since took with it what is in `.cutover`, though not what lists say.
    fn aside_sets(&self) -> Result<Vec<AsideSet>, Error> {
        let mut sets = self.read_indexes::<AsideSet>(Kind::Aside)?;
        for item in sets.iter_mut().flat_map(|set| &mut set.items) {
            let Some(old) = item.stored.ancestors().find(|above| above.ends_with(".cutover")) else {
                continue;
            };
            let moved =
                item.stored.strip_prefix(old).map(|within| self.private.join(within)).unwrap_or_default();
            if is_there(&item.stored) || !is_there(&moved) {
                continue;
            }
            if let Ok(within) = item.path.strip_prefix(parent_of(old)) {
                item.path = parent_of(&self.private).join(within);
            }
            item.stored = moved;
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

/// Under which name those copies are set aside that a rollback could not bring back.
fn name_of_before(transaction: &str) -> String {
    format!("{transaction}-before")
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
