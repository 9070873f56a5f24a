//! Taking snapshots, finding them again, and letting them go.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::inventory::{Planned, Probing};
use super::leave::Leave;
use super::restore::{back_name, is_there};
use super::{Data, Entry, Error, Kind, copy, own_name, parent_of, read_index};
use crate::store::{Layout, Store};
use crate::sys::disk::Context as _;
use crate::sys::{
    kernel::{btrfs, file},
    open,
};
use crate::types::ReleaseId;
use crate::types::record::{DataPolicy, DataSnapshot};

/// How often a copy is made anew when the data have changed meanwhile.
const TRIES: u32 = 5;

/// Whether somebody may write to data while they are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// All services that do are stopped.
    Stopped,
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// A snapshot of a subvolume.
    Btrfs,
    /// A copy that shares blocks with the original.
    Reflink,
    Copy,
    /// There was nothing: a mark.
    Absent,
}

const METHODS: [Method; 4] = [Method::Btrfs, Method::Reflink, Method::Copy, Method::Absent];

impl Method {
    pub(super) fn of(name: &str) -> Option<Self> {
        METHODS.into_iter().find(|method| method.name() == name)
    }

    /// Whether data in which something is left are exchanged by their content, and stay the directory that they are.
    pub(super) fn is_by_content(self) -> bool {
        matches!(self, Self::Reflink | Self::Copy)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
            Self::Absent => "absent",
        }
    }
}

/// The snapshots of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSet {
    /// The switch before which they were taken.
    pub transaction: String,
    /// The release that wrote these data.
    pub release: Option<ReleaseId>,
    pub at: Timestamp,
    /// The root in which they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    pub items: Vec<DataSnapshot>,
}

impl Data {
    /// Plans the snapshots of a switch while services still run: how each path is copied, whether there is room, and
    /// where it goes. Entries that are always kept are left out. A plan that is there stays.
    pub fn plan_snapshots(
        &self,
        transaction: &str,
        release: Option<&ReleaseId>,
        at: Timestamp,
        entries: &[Entry],
    ) -> Result<Vec<DataSnapshot>, Error> {
        let index = self.index(Kind::Snapshots, transaction);
        if let Some(set) = read_index::<SnapshotSet>(&index)? {
            set.items
                .iter()
                .try_for_each(|item| self.refuse_other_root_of(set.root.as_deref(), &item.path))?;
            return Ok(set.items);
        }
        let mut items = Vec::new();
        let planned = self.planned(entries, Probing::Tried)?;
        self.try_way_back(entries)?;
        for (number, Planned { entry, method }) in planned.into_iter().enumerate() {
            let own = own_name(&entry.path);
            items.push(DataSnapshot {
                path: entry.path.to_string_lossy().into_owned(),
                name: format!("{transaction}/{number}-{own}.{}", method.name()),
                method: method.name().to_owned(),
                leave: entry.leave.clone(),
            });
        }
        if !items.is_empty() {
            let (transaction, root) = (transaction.to_owned(), self.root_name());
            let set = SnapshotSet { transaction, release: release.cloned(), at, root, items: items.clone() };
            self.write_index(Kind::Snapshots, &set.transaction, &set)?;
        }
        Ok(items)
    }

    /// Makes sure that there are snapshots of all entries, as planned. One that is there is left as it is, whatever the data
    /// are by now. Where services run on, a copy counts only if nothing changed while it was made.
    pub fn ensure_snapshots(
        &self,
        transaction: &str,
        release: Option<&ReleaseId>,
        at: Timestamp,
        entries: &[Entry],
        writers: Writers,
    ) -> Result<Vec<DataSnapshot>, Error> {
        let items = self.plan_snapshots(transaction, release, at, entries)?;
        for item in &items {
            let place = self.snapshot_place(item)?;
            if !is_copy(item, &place) {
                self.take(item, &place, writers)?;
            }
        }
        Ok(items)
    }

    fn take(&self, item: &DataSnapshot, place: &Path, writers: Writers) -> Result<(), Error> {
        let path = Path::new(&item.path);
        self.make_parents(place)?;
        let is_there = fs::symlink_metadata(path).is_ok();
        match Method::of(&item.method) {
            Some(Method::Absent) if !is_there => self.disk.replace(place, b"", 0o600)?,
            Some(Method::Btrfs) if is_there => {
                self.disk.ask("take a snapshot of", path)?;
                // The one change here that is durable by itself.
                btrfs::snapshot(path, place, false).context("take a snapshot of", path)?;
            }
            Some(Method::Reflink | Method::Copy) if is_there => self.copy(item, place, writers)?,
            Some(Method::Absent | Method::Btrfs | Method::Reflink | Method::Copy) | None => {
                return Err(Error::Unfit {
                    path: path.to_owned(),
                    why: "it came or went while the switch began",
                });
            }
        }
        tracing::info!(path = %path.display(), method = item.method, "data copied");
        Ok(())
    }

    /// Where a snapshot is: where it was made, also when mounts have changed since.
    pub fn snapshot_place(&self, item: &DataSnapshot) -> Result<PathBuf, Error> {
        let path = Path::new(&item.path);
        let places = [
            self.private.join(Kind::Snapshots.directory()).join(&item.name),
            self.place_beside(Kind::Snapshots, path, &item.name),
        ];
        match places.into_iter().find(|place| is_copy(item, place) || is_there(&back_name(place))) {
            Some(place) => Ok(place),
            None => self.place(Kind::Snapshots, path, &item.name),
        }
    }

    /// Whether neither the data nor their copy are there, as when their file system is not mounted.
    pub fn is_out_of_reach(&self, item: &DataSnapshot) -> bool {
        item.method != Method::Absent.name() && !is_there(Path::new(&item.path)) && self.is_copy_gone(item)
    }

    /// Whether this rollback has to bring a copy back that is lost: it has not begun, and nothing is where the copy was.
    pub fn is_lost(&self, item: &DataSnapshot, transaction: &str) -> bool {
        let has_begun = self.index(Kind::Aside, transaction).exists();
        item.method != Method::Absent.name() && !has_begun && self.is_copy_gone(item)
    }

    /// Whether a copy is there, of which nothing has been moved yet.
    pub fn has_copy(&self, item: &DataSnapshot) -> bool {
        self.snapshot_place(item).is_ok_and(|place| is_copy(item, &place))
    }

    /// Whether a copy is not there, nor any of its content that has not been moved yet.
    pub(super) fn is_copy_gone(&self, item: &DataSnapshot) -> bool {
        let place = self.snapshot_place(item);
        place.is_ok_and(|place| !is_copy(item, &place) && !is_there(&back_name(&place)))
    }

    /// Whether the last that is known of data is that they were there.
    pub(super) fn were_there(&self, path: &Path) -> Result<bool, Error> {
        let root = parent_of(&self.private);
        let store = Store { layout: Layout::new(root), disk: self.disk.clone() };
        let state = store.trusted_state().unwrap_or_default();
        let mut sets = self.snapshots()?;
        sets.sort_by_key(|set| std::cmp::Reverse(set.at));
        let kept = [state.committed, state.previous].into_iter().flatten().map(|kept| kept.data);
        let known = sets.into_iter().map(|set| set.items).chain(kept).flatten();
        let last = known.into_iter().find(|item| Path::new(&item.path) == path);
        Ok(last.is_some_and(|item| item.method != Method::Absent.name()))
    }

    fn copy(&self, item: &DataSnapshot, place: &Path, writers: Writers) -> Result<(), Error> {
        let path = Path::new(&item.path);
        let mut private = place.to_owned().into_os_string();
        private.push(".part");
        let private = PathBuf::from(private);
        // Opened before the first write, to learn of all that go wrong.
        let filesystem = open::directory(parent_of(&private)).context("open", parent_of(&private))?;
        let leave = Leave::of(&item.leave);
        if !self.copy_whole(path, &private, leave, writers)? {
            let why = "it changed each time while it was copied: services that write to it must be stopped, so \
                       `action = \"none\"` does not go with it";
            self.remove(&private)?;
            return Err(Error::Unfit { path: path.to_owned(), why });
        }
        self.disk.sync_filesystem(&filesystem, &private)?;
        Ok(self.disk.rename(&private, place)?)
    }

    /// Copies data to a place that is cleared first; whether the copy is of one moment.
    pub(super) fn copy_whole(
        &self,
        path: &Path,
        place: &Path,
        leave: Leave<'_>,
        writers: Writers,
    ) -> Result<bool, Error> {
        for _ in 0..TRIES {
            self.remove(place)?;
            self.disk.ask("copy data to", place)?;
            if writers == Writers::Stopped {
                copy::copy(path, place, leave)?;
                return Ok(true);
            }
            let before = copy::fingerprint(path)?;
            let copied = copy::copy(path, place, leave);
            let is_same = copy::fingerprint(path)? == before;
            match copied {
                Ok(()) if is_same => return Ok(true),
                // Files that go while they are copied are no failure of the copy.
                Ok(()) | Err(_) if !is_same => {}
                copied => copied?,
            }
        }
        Ok(false)
    }

    /// Whether files beside `path` can share blocks: tried, since only that is sure.
    pub(super) fn can_clone(&self, path: &Path) -> Result<bool, Error> {
        let directory = self.place(Kind::Snapshots, path, "probe/probe")?;
        let [from, to] = ["from", "to"].map(|end| {
            let mut name = directory.clone().into_os_string();
            name.push(format!(".{end}"));
            PathBuf::from(name)
        });
        let clone = || -> io::Result<()> {
            let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&from)?;
            file.write_all(&[1; 4096])?;
            file::clone_file(&file, File::create(&to)?)
        };
        self.disk.ask("try a clone at", &from)?;
        self.make_parents(&directory)?;
        let cloned = clone();
        for file in [&from, &to] {
            self.disk.remove_data(file)?;
        }
        if directory.starts_with(&self.private) {
            self.disk.remove_data(parent_of(&directory))?;
        }
        match cloned {
            Ok(()) => Ok(true),
            Err(error) if file::is_unsupported(&error) => Ok(false),
            // Where nothing can be made, nothing can be moved to either.
            Err(source)
                if [Some(libc::EROFS), Some(libc::EACCES), Some(libc::EPERM)]
                    .contains(&source.raw_os_error()) =>
            {
                let (here, away) = (parent_of(path).to_owned(), parent_of(&from).to_owned());
                Err(Error::WayBack { path: path.to_owned(), here, away, source })
            }
            Err(error) => Err(error).context("try a clone at", &from)?,
        }
    }

    /// How many bytes the snapshots of a switch would copy one by one.
    pub fn bytes_to_copy(&self, entries: &[Entry], probing: Probing) -> Result<u64, Error> {
        let mut bytes = 0_u64;
        for entry in entries.iter().filter(|entry| entry.on_rollback != DataPolicy::Keep) {
            if self.method(entry, probing)? == Method::Copy {
                bytes = bytes.saturating_add(copy::size_bytes(&entry.path)?);
            }
        }
        Ok(bytes)
    }

    /// The snapshots that there are, in order of transactions.
    pub fn snapshots(&self) -> Result<Vec<SnapshotSet>, Error> {
        self.read_indexes(Kind::Snapshots)
    }

    /// Lets all snapshots go but those of transactions of which one is in `keep`.
    pub fn prune_snapshots(&self, keep: &[DataSnapshot]) -> Result<(), Error> {
        for path in self.indexes(Kind::Snapshots)? {
            if let Err(error @ Error::Index { .. }) = read_index::<SnapshotSet>(&path) {
                tracing::warn!("{error}; the copies that it lists stay");
            }
        }
        for set in self.snapshots()? {
            let is_ours = self.other_root(set.root.as_deref()).is_none();
            // What is out of reach cannot be removed either, and must not be forgotten.
            let is_kept =
                |item: &DataSnapshot| keep.contains(item) || (is_ours && self.is_out_of_reach(item));
            if set.items.iter().any(is_kept) {
                continue;
            }
            let places = set.items.iter().map(|item| self.snapshot_place(item));
            let mut places = places.collect::<Result<Vec<_>, _>>()?;
            self.retain_own(set.root.as_deref(), &mut places);
            self.remove_set(Kind::Snapshots, &set.transaction, &places)?;
        }
        Ok(())
    }
}

/// Whether a copy is at its place. In a snapshot of the subvolume that held it, and in a copy of that, there is an empty
/// directory instead.
pub(super) fn is_copy(item: &DataSnapshot, place: &Path) -> bool {
    let is_subvolume = || btrfs::is_subvolume(place).unwrap_or(true);
    let is_empty = || fs::read_dir(place).is_ok_and(|mut inner| inner.next().is_none());
    is_there(place) && (item.method != Method::Btrfs.name() || is_subvolume() || !is_empty())
}
