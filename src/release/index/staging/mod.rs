//! Builds a tree of an indexed archive, reading no more of it than this node lacks.
//!
//! ```text
//! keep     the index is verified and kept: pages that the base has, too, are not read
//! lay out  both releases side by side: directories, links, and files that the base has
//! move     files that the base has under another name
//! unpack   the frames that are left, by several threads
//! finish   hard links, times and modes of directories, the record
//! ```
//! Memory is bounded by the frames under way and by a few bytes for each file that must be read. Nothing is synced at
//! the end; a descriptor opened before the first write is for that.

mod fetch;
mod flush;
mod join;
mod lay;
mod names;
mod owner;
mod reuse;
mod run;
mod unpack;
mod work;

use std::fs::{self, File};
use std::path::Path;

pub use owner::admit;
pub use reuse::{Base, Method, closest};

use super::error::Error;
use super::reader::Index;
use super::seen::{Seen, keep_index};
use crate::release::archive::Limits;
use crate::release::source::LocalFile;
use crate::sys::disk::{Context as _, Disk};
use crate::types::Digest;
use crate::types::progress::{Activity, Progress};

/// What is to be built, and how.
pub struct StageOrder<'a> {
    /// Where: an empty directory, or for [`Method::Btrfs`] with a base a writable snapshot of the base. Nobody else may
    /// write to it.
    pub into: &'a Path,
    /// How the unchanged part comes into being.
    pub method: Method,
    /// A tree that shares something with the release.
    pub base: Option<&'a Base>,
    /// What this node lets in.
    pub limits: &'a Limits,
    /// Where the record of the tree is written.
    pub record: &'a Path,
    /// Threads; 0 for as many as pay.
    pub threads: usize,
}

/// A tree that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The digest of the tree as it is on disk; differs from `declared` only where owners and special bits could not
    /// be given, by a process that is not root's.
    pub tree: Digest,
    /// The digest of the tree as the archive says that it is.
    pub declared: Digest,
    /// Entries.
    pub entries: u64,
    /// Files, each inode once.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files taken over from the base.
    pub reused: u64,
    /// Bytes read from the archive, its index included (but for its root).
    pub fetched: u64,
    /// Whether all belongs to whom the process runs as, whatever the archive says.
    pub kept_owner: bool,
}

/// Builds the tree of an archive. That `index` is the one that was published, the caller has checked by its digest.
///
/// # Errors
/// When anything in the archive is not what the index says, the node does not let it in, or the machine refuses. What
/// was built is then worthless.
pub fn stage(
    index: &Index,
    order: &StageOrder<'_>,
    disk: &Disk,
    progress: &dyn Progress,
) -> Result<Staged, Error> {
    check_totals(index, order.limits)?;
    let filesystem = File::open(order.into).context("open", order.into)?;
    disk.ask("write", order.record)?;
    let installed = order.base.map(|base| &base.installed);
    let mut fetched = keep_index(index, installed, order.record)?;
    let kept = open_kept(order.record)?;
    let mut layout = lay::Layout::new(&kept, order, disk, progress)?;
    layout.lay_out()?;
    layout.take_moved()?;
    let to_fetch = fetch::bytes(&layout.plan);
    progress.begin(Activity::Fetch, Some(to_fetch), Some(layout.waiting));
    fetched += run::run(index, order, &mut layout, &filesystem, disk, progress)?;
    layout.finish()?;
    progress.end();
    let built = layout.built(fetched)?;
    Seen { inodes: built.1 }.append(order.record)?;
    Ok(built.0)
}

fn check_totals(index: &Index, limits: &Limits) -> Result<(), Error> {
    let root = index.root();
    let refuse = |rule| Err(super::error::malformed("the release", rule));
    if root.entries > limits.entries {
        return refuse("it has more entries than this node allows");
    }
    if root.plain > limits.bytes {
        return refuse("it has more bytes than this node allows");
    }
    Ok(())
}

/// The index as it was just kept.
fn open_kept(path: &Path) -> Result<Index, Error> {
    let file = File::open(path).context("open", path)?;
    let size = fs::metadata(path).context("look at", path)?.len();
    Index::open_kept(std::sync::Arc::new(LocalFile::new(file, path)?), size)
}
