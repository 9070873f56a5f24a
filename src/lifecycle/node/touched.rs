//! Trees that somebody has written to: told before people rely on them.

use super::{Error, Node};
use crate::lifecycle::staging;
use crate::release::index::Installed;
use crate::release::index::changes::{self, Most};
use crate::store::Store;
use crate::sys::kernel::btrfs;
use crate::types::{Version, escaped};
use nix::sys::stat::lstat;

/// So many files are named; there may be more.
const NAMED_MAX: usize = 5;
/// Files that a rollback looks at before it stops anything: some milliseconds. `rollback --check` and `status` look at all.
const GLANCE_FILES: usize = 500;

/// A file of a tree that is no longer what was staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its path in the tree, fit to be shown.
    pub path: String,
    /// Other releases here that have the same file: they are changed with it.
    pub shared_with: Vec<Version>,
}

impl Node<'_> {
    /// Files that were changed in the tree of a release since it was staged, the first few. A tree that nobody can have
    /// written to costs a moment, any other a look at each file; those of which only reading can tell are read. Nothing is
    /// known of a tree without an index.
    pub fn touched(&self, version: &Version) -> Result<Vec<Touched>, Error> {
        look(self.store, version, usize::MAX, false).map_err(Error::from)
    }

    /// The same at a glance: not more of the tree is looked at than a rollback has time for.
    pub fn touched_at_a_glance(&self, version: &Version) -> Result<Vec<Touched>, Error> {
        look(self.store, version, GLANCE_FILES, false).map_err(Error::from)
    }

    /// The same with files that were added: for a tree of which it is known that it differs.
    pub fn differences(&self, version: &Version) -> Result<Vec<Touched>, Error> {
        look(self.store, version, usize::MAX, true).map_err(Error::from)
    }
}

fn look(
    store: &Store,
    version: &Version,
    looked: usize,
    is_whole: bool,
) -> Result<Vec<Touched>, staging::Error> {
    let tree = store.tree(version)?;
    if !is_whole && btrfs::is_pristine_snapshot(&tree).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let Some(installed) = Installed::open(&store.layout.index(version)) else { return Ok(Vec::new()) };
    let links = store.release(version).map(|sealed| sealed.links).unwrap_or_default();
    let is_replaced = |path: &[u8]| {
        let mut below = links.iter().filter_map(|link| path.strip_prefix(link.as_bytes()));
        below.any(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let most = Most { named: NAMED_MAX, looked };
    let mut paths = changes::changes(&tree, &installed, &store.spans()?, &is_replaced, most)?;
    if is_whole && paths.is_empty() {
        paths = changes::other_changes(&tree, &installed, &is_replaced, NAMED_MAX)?;
    }
    let releases = store.releases()?;
    let touched = |path: Vec<u8>| {
        use std::os::unix::ffi::OsStrExt;
        let name = std::path::Path::new(std::ffi::OsStr::from_bytes(&path));
        let id = |version: &Version| {
            let found = lstat(&store.layout.tree(version).join(name)).ok()?;
            (found.st_nlink > 1).then_some((found.st_dev, found.st_ino))
        };
        let own = id(version);
        let shares = |other: &&Version| *other != version && own.is_some() && id(other) == own;
        Touched { path: escaped(&path), shared_with: releases.iter().filter(shares).cloned().collect() }
    };
    Ok(paths.into_iter().map(touched).collect())
}

/// In words: which files, and which other releases have them.
pub fn in_words(touched: &[Touched]) -> String {
    let names: Vec<_> = touched.iter().map(|file| format!("`{}`", file.path)).collect();
    let mut others: Vec<_> = touched.iter().flat_map(|file| &file.shared_with).collect();
    others.sort();
    others.dedup();
    let more = if touched.len() >= NAMED_MAX { " and perhaps others" } else { "" };
    let shared = match others.as_slice() {
        [] => String::new(),
        others => {
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            format!("; the same files belong to {}, too", others.join(", "))
        }
    };
    let verb = if names.len() == 1 && more.is_empty() { "differs" } else { "differ" };
    format!("{}{more} {verb} from what was staged{shared}", names.join(", "))
}
