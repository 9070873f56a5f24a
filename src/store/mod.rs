//! The releases on this node, which of them is active, and what the node remembers.
//!
//! ```text
//! <root>/current -> releases/<version>     the active tree; replaced by one rename
//! <root>/releases/<version>/               complete trees only
//! <root>/.cutover/                         mode 0700, and of this:
//!     lock  staging.lock                   one switch, and one staging at a time
//!     update.lock                          one update at a time, from its first phase to its last, also while it waits
//!     state.lock  fleet.lock               held for a moment, around each change of what is remembered
//!     journal.json  settings.json          the update under way, and the settings it was begun with
//!     going-back.json                      the journal once more, while data move back
//!     state.json  history.jsonl            what is remembered, and what happened
//!     manifests/<version>.json             what each tree must be
//!     staging/<version>/                   a tree being built; worthless after a crash
//!     snapshots/<id>/  aside/<id>/         data before a switch; data set aside by a rollback
//!     trash/                               trees on their way out
//!     reserve/                             space that a rollback may spend on a full disk
//! ```
//! The pointer is the truth about what is active. Any other file may be missing, broken or from another version.

mod history;
pub mod kept;
mod layout;
mod memory;
mod pointer;
mod retention;
mod sealed;
mod space;
mod spans;
mod trees;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use history::{newest as newest_history, read as read_history, totals, unread as unread_history};
pub use kept::{Damage, Kept};
pub use layout::Layout;
pub use memory::Memory;
pub use pointer::{Pointer, ReadyPointer};
pub use retention::{Keep, Tree, Worth, surplus};
pub use sealed::{Replaced, Sealed};
pub use space::{Need, Space};
pub use trees::{Request, Staging, Swept};

use crate::sys::disk::{self, Disk};
use crate::types::{Size, Version};

/// The `[store]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How the unchanged part of a new tree comes into being.
    pub method: Method,
    /// How many releases stay, the active one included.
    pub keep: usize,
    /// Free space that staging leaves alone.
    pub reserve: Size,
}

impl Default for Settings {
    fn default() -> Self {
        Self { method: Method::Auto, keep: 5, reserve: Size(1 << 30) }
    }
}

/// How the unchanged part of a new tree comes into being.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Whichever the file system does best.
    #[default]
    Auto,
    /// A writable snapshot of the closest release.
    Btrfs,
    Reflink,
    Hardlink,
    Copy,
}

/// What the store refuses, or cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The root is no place for releases.
    #[error("cannot use `{}` as root: {why}", .root.display())]
    Root {
        root: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `current` is not what this program made.
    #[error("`{}` is not a link to a release: {why}", .path.display())]
    StrangePointer { path: PathBuf, why: String },
    /// A file of ours that cannot be believed.
    #[error("`{}` cannot be trusted: {why}", .path.display())]
    Damaged {
        path: PathBuf,
        /// What is wrong with it.
        why: Damage,
    },
    /// A tree is here, and nothing tells of which release it is.
    #[error("nothing tells what release {version} is: `{}` is missing", .path.display())]
    Unknown { version: Version, path: PathBuf },
    /// What is remembered is being changed by somebody who does not come to an end.
    #[error("`{}` is locked by another cutover for longer than {}", .path.display(), crate::types::Span(*.limit))]
    Locked {
        /// The file with the lock.
        path: PathBuf,
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    #[error("no tree of release {0} on this node")]
    NoSuchTree(Version),
    /// A tree of that name is there already, and is another release.
    #[error("release {version} is on this node already, with other content ({here})")]
    OtherContent {
        version: Version,
        /// The digest of what is here.
        here: crate::types::Digest,
    },
    /// Not enough bytes or inodes.
    #[error("{0}")]
    NoSpace(space::Missing),
    /// The file system is of a kind that a release must not live on, or several are mixed.
    #[error("`{}` is not on the file system of `{}`; a rename between them cannot work", .path.display(), .root.display())]
    OtherFilesystem { path: PathBuf, root: PathBuf },
}

/// The store of one application.
#[derive(Clone)]
pub struct Store {
    pub layout: Layout,
    pub disk: Disk,
}
