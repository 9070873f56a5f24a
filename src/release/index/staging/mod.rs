//! Builds a tree of an indexed archive, reading no more of it than this node lacks.
//!
//! ```text
//! keep     the index is verified and kept: pages that the base has, too, are not read again
//! check    it agrees with itself in every entry, and with the limits: nothing was written before
//! lay out  both releases side by side: directories, links, and files that the base has
//! move     files that the base has under another name, and chunks that its large files have
//! unpack   the frames that are left, by several threads
//! finish   hard links, times and modes of directories, the record
//! ```
//! Memory is bounded by the frames under way and by a few bytes for each file that must be read. Nothing is synced at
//! the end; a descriptor opened before the first write is for that.

mod chunks;
mod consistency;
mod crew;
mod directories;
mod failure;
mod fetch;
mod forecast;
mod join;
mod lay;
mod locations;
mod maker;
mod names;
mod owner;
mod reuse;
mod run;
mod unpack;
mod wanted;
mod work;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use consistency::Trees;
pub use forecast::{Forecast, forecast};
use join::{Pair, Shared};
pub use owner::{Owner, admit};
use reuse::has_same_content;
pub use reuse::{Base, Method, closest, is_whole};

use super::PageKind;
use super::error::Error;
use super::parts::Parts;
use super::reader::Index;
use super::seen::{Seen, keep_index};
use crate::release::archive::Limits;
use crate::release::source::{LocalFile, Ranges};
use crate::release::tree::Times;
use crate::sys::disk::{Context as _, Disk};
use crate::sys::wall;
use crate::types::entry::Kind;
use crate::types::progress::{Activity, Progress};
use crate::types::{Digest, Spans};

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
    /// Where parts of the archive are kept, once they were compared.
    pub parts: Option<&'a Parts<'a>>,
    /// Where the record of the tree is written.
    pub record: &'a Path,
    /// Files of the base are read before they are trusted.
    pub is_suspect: bool,
    /// When files of trees were made or linked by us: those that changed at other times are read before they are trusted.
    pub spans: &'a Spans,
    /// Threads; 0 for as many as pay.
    pub threads: usize,
}

/// A tree that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The digest of the tree as it is on disk; differs from `declared` only where owners and special bits could not
    /// be given, by a process that is not root's, and times that the file system does not have.
    pub tree: Digest,
    /// The digest of the tree as the archive says that it is.
    pub declared: Digest,
    pub entries: u64,
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

/// A release whose index is verified and kept, before anything of its tree is made.
pub struct Prepared {
    index: Index<'static>,
    trees: Trees,
    fetched: u64,
}

/// Reads the index of a release, but for pages that the base has, too, keeps it in the file of the record, and checks that
/// it agrees with itself.
///
/// # Errors
/// When the index breaks a rule, the release is larger than this node allows, or the machine refuses.
pub fn prepare(index: &Index<'_>, order: &StageOrder<'_>, disk: &Disk) -> Result<Prepared, Error> {
    let StageOrder { base, limits, record, parts, .. } = *order;
    check_totals(index, limits)?;
    disk.ask("write", record)?;
    let fetched = keep_index(index, base.map(|base| &base.installed), parts, record)?;
    let file = File::open(record).context("open", record)?;
    let times = Times::of(&file, record)?;
    let size = fs::metadata(record).context("look at", record)?.len();
    let mut kept = Index::open_kept(Arc::new(LocalFile::new(file, record)?), size)?;
    kept.surround_as(index);
    let trees = wall::behind(None, || consistency::check(&kept, limits, Owner::of_process(), times))?;
    Ok(Prepared { index: kept, trees, fetched })
}

/// Checks that an index agrees with itself, and with limits.
///
/// # Errors
/// When any two of its parts disagree.
pub fn check(index: &Index<'_>, limits: &Limits) -> Result<(), Error> {
    consistency::check(index, limits, Owner::of_process(), Times::ALL).map(|_| ())
}

impl Prepared {
    /// Bytes and entries that will be written at most, if the base is what it was.
    pub fn need(&self, base: Option<&Base>, method: Method) -> Result<(u64, u64), Error> {
        let root = self.index.root();
        let Some(base) = base.filter(|_| method != Method::Copy) else {
            return Ok((root.plain, root.entries));
        };
        let is_snapshot = method == Method::Btrfs;
        let old = &base.installed.index;
        let shared = join::shared_pages(&self.index, old);
        let pages = root.of_kind(PageKind::Meta).iter().filter(|page| shared.contains_key(&page.digest));
        let is_linked = method == Method::Hardlink;
        let mut same = if is_linked { pages.map(|page| page.files).sum() } else { 0 };
        let mut bytes = 0;
        join::join(&self.index, Some(old), Shared::Skipped, &mut |pair| {
            let (new, old) = match &pair {
                Pair::New(new) => (&new.record.entry, None),
                Pair::Both(new, old) => (&new.record.entry, Some(&old.record.entry)),
                Pair::Gone(_) | Pair::Same(..) => return Ok(()),
            };
            let is_same = old.is_some_and(|old| has_same_content(new, old));
            match new.kind {
                Kind::File { size, .. } if !is_same && new.same_as.is_none() => bytes += size,
                Kind::File { .. } if is_same && is_linked => same += 1,
                _ => {}
            }
            Ok(())
        })?;
        let entries = if is_snapshot { 0 } else { root.entries - same };
        Ok((bytes, entries))
    }

    /// Bytes of frames that will be read from the archive, if the base is what it was.
    pub fn frame_bytes(&self, base: Option<&Base>, method: Method) -> Result<u64, Error> {
        Ok(fetch::bytes(&forecast::plan(&self.index, base, method)?.0))
    }

    /// Builds the tree.
    ///
    /// # Errors
    /// When anything in the archive is not what the index says, the node does not let it in, or the machine refuses.
    /// What was built is then worthless.
    pub fn stage(
        &self,
        archive: &dyn Ranges,
        order: &StageOrder<'_>,
        disk: &Disk,
        progress: &dyn Progress,
    ) -> Result<Staged, Error> {
        let filesystem = File::open(order.into).context("open", order.into)?;
        let mut layout = lay::Layout::new(&self.index, order, disk)?;
        layout.lay_out()?;
        layout.take_moved()?;
        layout.take_chunks()?;
        let to_fetch = fetch::bytes(&layout.plan);
        progress.begin(Activity::Unpack, Some(to_fetch), Some(layout.waiting));
        let fetched = run::run(archive, order, &mut layout, &filesystem, disk, progress);
        let fetched = fetched.and_then(|fetched| layout.finish().map(|()| fetched));
        progress.end();
        let (staged, inodes) = layout.built(self.trees, self.fetched + fetched?);
        Seen { inodes }.append(order.record)?;
        Ok(staged)
    }
}

/// Prepares and builds.
///
/// # Errors
/// Those of [`prepare`] and [`Prepared::stage`].
pub fn stage(
    index: &Index<'_>,
    order: &StageOrder<'_>,
    disk: &Disk,
    progress: &dyn Progress,
) -> Result<Staged, Error> {
    let prepared = prepare(index, order, disk)?;
    prepared.stage(&**index.source(), order, disk, progress)
}

fn check_totals(index: &Index<'_>, limits: &Limits) -> Result<(), Error> {
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
