//! The application's data: copied before a switch, brought back by a rollback, never deleted by either.
//!
//! ```text
//! <root>/.cutover/snapshots/<transaction>/<name>      data as they were before the switch of that transaction
//! <root>/.cutover/snapshots/<transaction>.json        what is in there, and of which release it is
//! <root>/.cutover/aside/<transaction>/<name>          newer data that the rollback of that transaction moved away
//! <root>/.cutover/aside/<transaction>.json            what is in there, and where it was
//! <root>/.cutover/rehearsal/<transaction>/<name>      copies that a rehearsal writes to; worthless after it
//! <root>/.cutover/rehearsal/<transaction>.json        what is in there
//! ```
//! For a path on another file system than `.cutover` they stand beside it, as `.<own>.cutover-<transaction>.<name>`,
//! `.<own>.cutover-aside-<transaction>.<name>` and `.<own>.cutover-rehearsal-<transaction>.<name>`: bringing data back must be a rename, since a rename needs no space.
//!
//! What always holds: a snapshot has its name only when it is complete and durable, and is never taken again (by then
//! the new release may have written); going back moves the newer data away, then the snapshot itself into their place.
//! Whether a step was done is seen on the disk, so each can be repeated after any interruption.

mod copy;
mod elsewhere;
mod exchange;
mod inventory;
pub mod leave;
mod rehearsal;
mod restore;
mod roots;
mod snapshot;
mod way_back;

pub use copy::{copy, size_bytes};
pub use elsewhere::Stopped;
pub use inventory::Probing;
pub use rehearsal::{Copies, Copy};
pub use restore::{AsideItem, AsideSet, Restore};
pub use snapshot::{SnapshotSet, Writers};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::lifecycle::settings::{Data as Entry, Settings};
use crate::store::Store;
use crate::sys::disk::{self, Context as _, Disk};
use crate::sys::{inode, open};
use crate::types::record::DataPolicy;
use crate::types::{Size, escaped_path};

/// The longest index file, in bytes.
const INDEX_BYTES_MAX: usize = 1 << 20;

/// Two of these, a transaction and some words are less than the 255 bytes that names may have.
const OWN_BYTES_MAX: usize = 90;

/// Data cannot be copied or brought back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A copy would not fit.
    #[error(
        "a copy of `{}` needs {}, and {} are free above the reserve",
        escaped_path(path), Size(*need), Size(*free)
    )]
    NoSpace {
        /// The data, or those that take most of several.
        path: PathBuf,
        /// Bytes that the copies take.
        need: u64,
        /// Bytes that are free, less the reserve.
        free: u64,
    },
    /// There are no names left for a copy.
    #[error(
        "a copy of `{}` needs {need} files and directories, and the file system has room for {free}",
        escaped_path(path)
    )]
    NoInodes {
        /// The data, or those that take most of several.
        path: PathBuf,
        need: u64,
        free: u64,
    },
    /// It cannot be what it is.
    #[error("cannot copy data `{}`: {why}", escaped_path(path))]
    Unfit {
        /// The data, or a part of them.
        path: PathBuf,
        why: &'static str,
    },
    /// Something below the data is no part of them.
    #[error(
        "cannot copy data `{}`: `{}` in it is {what}, which a rollback would carry away",
        escaped_path(data),
        escaped_path(path)
    )]
    Border {
        data: PathBuf,
        path: PathBuf,
        what: &'static str,
        /// Its path within the data.
        within: PathBuf,
    },
    /// Data are within other data.
    #[error(
        "the data `{}` are within the data `{}`, or the same: what a rollback does would depend on the order",
        escaped_path(inner),
        escaped_path(outer)
    )]
    Nested { outer: PathBuf, inner: PathBuf },
    /// A rename that a rollback needs does not work.
    #[error(
        "the data `{}` could not be brought back: a rename between `{}` and `{}` does not work",
        escaped_path(path),
        escaped_path(here),
        escaped_path(away)
    )]
    WayBack { path: PathBuf, here: PathBuf, away: PathBuf, source: std::io::Error },
    /// They were there, and nothing tells that somebody wanted them gone.
    #[error("the data `{}` were there at the last switch and are not now: is their file system mounted?", escaped_path(.0))]
    Gone(PathBuf),
    /// Another mount would not follow when they are exchanged.
    #[error(
        "`{}` is mounted at `{}` too{}: after a rollback that would still show the data that were set aside",
        escaped_path(path), escaped_path(point), pid.map(|pid| format!(", for process {pid}")).unwrap_or_default()
    )]
    Elsewhere {
        /// The data, or a part of them.
        path: PathBuf,
        point: PathBuf,
        /// A process that sees it there, where others do not.
        pid: Option<u32>,
    },
    /// This root was copied, and took along what the first one knows of its data.
    #[error(
        "the data `{}` are those of the root `{}`, of which this one is a copy: a rollback here would exchange them there",
        escaped_path(path),
        escaped_path(root)
    )]
    OtherRoot { path: PathBuf, root: PathBuf },
    /// What was set aside is not deleted under somebody's hands.
    #[error("cannot delete `{}`: {by}", escaped_path(path))]
    InUse { path: PathBuf, by: String },
    /// What was set aside is out of reach, and its list is all that tells of it.
    #[error("cannot delete `{}`: it is not there; is its file system mounted?", escaped_path(path))]
    Away { path: PathBuf, index: PathBuf },
    /// An index that cannot be read.
    #[error("cannot read `{}`: {why}", escaped_path(path))]
    Index { path: PathBuf, why: String },
}

impl Error {
    /// Whether the disk would not take something new.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_no_space(),
            Self::WayBack { source, .. } => {
                [Some(libc::ENOSPC), Some(libc::EDQUOT)].contains(&source.raw_os_error())
            }
            _ => false,
        }
    }
}

/// What becomes of the data when an older release comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Keep,
    /// The snapshot comes back, what is newer is set aside.
    Restore,
}

/// Decides about data by the policy and by what the releases' manifests say: the epochs that the old release reads, and
/// the one that the new release writes. Unless both speak, `auto` restores: an old release on data of an unknown
/// shape is the greater harm, and what is set aside is not lost.
pub fn decide(policy: DataPolicy, old_reads: &[u64], new_writes: Option<u64>) -> Decision {
    match policy {
        DataPolicy::Keep => Decision::Keep,
        DataPolicy::Restore => Decision::Restore,
        DataPolicy::Auto if new_writes.is_some_and(|epoch| old_reads.contains(&epoch)) => Decision::Keep,
        DataPolicy::Auto => Decision::Restore,
    }
}

/// The data of one application on this node.
#[derive(Clone)]
pub struct Data {
    pub disk: Disk,
    /// `<root>/.cutover`.
    pub private: PathBuf,
    /// Bytes that copies leave free.
    pub reserve: u64,
    /// What ends before data are exchanged.
    pub stopped: Stopped,
}

impl Data {
    /// The data of an application with these settings.
    pub fn of(store: &Store, settings: &Settings) -> Self {
        let reserve = store.reserve_bytes(&settings.store).unwrap_or(0);
        Self { reserve, stopped: Stopped::by(&settings.service), ..Self::kept(store) }
    }

    /// What is kept of data, whatever the settings say.
    pub fn kept(store: &Store) -> Self {
        let (disk, private) = (store.disk.clone(), store.layout.private());
        Self { disk, private, reserve: 0, stopped: Stopped::Nothing }
    }

    /// Where the snapshot or the newer data of `path` belong. `name` is `<transaction>/<name>`.
    fn place(&self, kind: Kind, path: &Path, name: &str) -> Result<PathBuf, Error> {
        if self.is_on_our_mount(parent_of(path))? {
            return Ok(self.private.join(kind.directory()).join(name));
        }
        Ok(self.place_beside(kind, path, name))
    }

    /// Whether a rename between this directory and `.cutover` can work: they are on one mount and one device.
    fn is_on_our_mount(&self, directory: &Path) -> Result<bool, Error> {
        let volume = |path: &Path| {
            let found = open::location(path).and_then(|directory| inode::of(&directory));
            found.map(|found| (found.mount, found.device)).context("look at", path)
        };
        Ok(volume(directory)? == volume(&self.private)?)
    }

    /// The same for data on another mount than `.cutover`.
    #[expect(clippy::unused_self, reason = "it is read beside the other places")]
    fn place_beside(&self, kind: Kind, path: &Path, name: &str) -> PathBuf {
        let own = own_name(path);
        let name = name.replace('/', ".");
        let infix = match kind {
            Kind::Snapshots => "",
            Kind::Aside => "aside-",
            Kind::Rehearsals => "rehearsal-",
        };
        parent_of(path).join(format!(".{own}.cutover-{infix}{name}"))
    }

    fn index(&self, kind: Kind, transaction: &str) -> PathBuf {
        self.private.join(kind.directory()).join(format!("{transaction}.json"))
    }

    /// Makes the directory that is to hold `place`.
    fn make_parents(&self, place: &Path) -> Result<(), Error> {
        let within: Vec<_> =
            place.ancestors().skip(1).take_while(|path| path.starts_with(&self.private)).collect();
        for directory in within.into_iter().rev() {
            self.disk.make_directory(directory, 0o700)?;
        }
        Ok(())
    }

    fn write_index(&self, kind: Kind, transaction: &str, index: &impl Serialize) -> Result<(), Error> {
        let path = self.index(kind, transaction);
        self.make_parents(&path)?;
        let text = serde_json::to_vec(index)
            .map_err(|error| Error::Index { path: path.clone(), why: error.to_string() })?;
        Ok(self.disk.replace(&path, &text, 0o600)?)
    }

    /// All indexes of a kind, in order of transactions.
    fn read_indexes<Index: for<'a> Deserialize<'a>>(&self, kind: Kind) -> Result<Vec<Index>, Error> {
        let mut indexes = Vec::new();
        for path in self.indexes(kind)? {
            match read_index(&path) {
                // The others, with what they list, are none the worse. What this one lists stays, and `prune_snapshots` tells.
                Err(Error::Index { .. }) if matches!(kind, Kind::Snapshots) => {}
                index => indexes.extend(index?),
            }
        }
        Ok(indexes)
    }

    fn indexes(&self, kind: Kind) -> Result<Vec<PathBuf>, Error> {
        let directory = self.private.join(kind.directory());
        let mut paths: Vec<_> = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("read", &directory)?.flatten().map(|entry| entry.path()).collect(),
        };
        paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
        paths.sort();
        Ok(paths)
    }

    /// Removes what is at `path`, a tree or a file, and makes that durable.
    fn remove(&self, path: &Path) -> Result<(), Error> {
        if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(());
        }
        self.disk.remove_data(path)?;
        Ok(self.disk.sync_names(path)?)
    }

    fn remove_set(&self, kind: Kind, transaction: &str, places: &[PathBuf]) -> Result<(), Error> {
        for place in places {
            self.remove(place)?;
        }
        let directory = self.private.join(kind.directory()).join(transaction);
        if directory.exists() {
            self.remove(&directory)?;
        }
        Ok(self.disk.remove_file(&self.index(kind, transaction))?)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Snapshots,
    Aside,
    Rehearsals,
}

impl Kind {
    fn directory(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::Aside => "aside",
            Self::Rehearsals => "rehearsal",
        }
    }
}

/// `Ok(None)` when there is none.
fn read_index<Index: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<Index>, Error> {
    let Some(bytes) = disk::read_small(path, INDEX_BYTES_MAX)? else { return Ok(None) };
    let index = serde_json::from_slice(&bytes);
    index.map(Some).map_err(|error| Error::Index { path: path.to_owned(), why: error.to_string() })
}

/// The data's name for the names of their copies, which have it twice and must not be too long for the file system.
fn own_name(path: &Path) -> String {
    let mut name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut end = name.len().min(OWN_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests;
