//! Taking over what was installed by hand, so that the first rollback has somewhere to lead.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Node;
use crate::lifecycle::application::data::{self, leave::Leave};
use crate::lifecycle::staging;
use crate::release::{index, scan};
use crate::store::{self, Kept, Method, Need, Pointer, Sealed, kept};
use crate::sys::disk::{self, Context};
use crate::sys::{inode, mounts};
use crate::types::entry::{Kind, TreeDigest};
use crate::types::progress::{Activity, Progress};
use crate::types::state::Installed;
use crate::types::{ReleaseId, Version, escaped_path};

/// Why a release was not taken over, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot adopt `{}`: {why}", escaped_path(.path))]
    Refused {
        path: PathBuf,
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// It has what no release may have, at this path. Nothing was moved.
    #[error("cannot adopt it: `{}`: {why}", escaped_path(.path))]
    Unfit { path: PathBuf, why: &'static str, hint: &'static str },
    #[error("cannot undo an adoption: {why}")]
    NotUndone { why: &'static str, hint: &'static str },
    #[error(transparent)]
    Staging(#[from] staging::Error),
}

impl From<disk::Error> for Error {
    fn from(error: disk::Error) -> Self {
        Self::Staging(error.into())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Staging(error.into())
    }
}

/// Where the tree of an adopted release came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It was under `releases/` already.
    InPlace,
    /// It was moved from there.
    Moved(PathBuf),
    /// It was copied from there, from another file system.
    Copied(PathBuf),
}

/// What was done to take a release over, so that it can be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopted {
    pub version: Version,
    /// Where its tree came from.
    pub origin: Origin,
    /// What `current` named before, if it was a link.
    pub link: Option<PathBuf>,
}

/// Makes the directory `path` (or what the link `path` names) the active, committed release.
///
/// A directory on the root's file system moves into `releases/` by one rename; one that is there already stays; one on
/// another file system is copied. `current` then names it. The release's digest is the digest of its tree. The caller
/// holds both locks.
///
/// # Errors
/// When a release is active already, or the directory has what no release may have.
pub fn adopt(
    node: &Node<'_>,
    path: &Path,
    version: Option<&Version>,
    progress: &dyn Progress,
) -> Result<(Sealed, Adopted), Error> {
    let store = node.store;
    let tree = std::fs::canonicalize(path).context("find", path)?;
    let refused = |why: &str, hint| Error::Refused { path: path.to_owned(), why: why.to_owned(), hint };
    let other = "name the directory of what was installed by hand";
    if !tree.is_dir() {
        return Err(refused("it is not a directory", other));
    }
    if let Pointer::Release(active) = store.pointer()?
        && store.release(&active).is_ok()
    {
        let hint = "`cutover status` shows it; only what was installed by hand is adopted";
        return Err(refused(&format!("release {active} is active already"), hint));
    }
    let version = match version {
        Some(version) => version.clone(),
        None => {
            let name = tree.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.parse().map_err(|_| refused("its name is no version", "say one with `--version`"))?
        }
    };
    if tree.starts_with(store.layout.private()) || store.layout.root().starts_with(&tree) {
        return Err(refused("it holds the root itself", other));
    }
    let releases = std::fs::canonicalize(store.layout.releases()).unwrap_or_else(|_| store.layout.releases());
    if tree.strip_prefix(&releases).is_ok_and(|rest| rest.components().count() != 1) {
        return Err(refused("it is a part of a release", other));
    }
    let place = store.layout.tree(&version);
    if tree != place && place.exists() {
        let why = format!("`{}` is there already", escaped_path(&place));
        return Err(refused(&why, "say another with `--version`"));
    }
    let mount = |path: &Path| inode::of_path(path).map(|found| found.mount).context("look at", path);
    let root = std::fs::canonicalize(store.layout.root()).context("find", store.layout.root())?;
    let is_near = disk::is_same_filesystem(&tree, &root)? && mount(&tree)? == mount(&root)?;
    let current = store.layout.current();
    let is_link = std::fs::symlink_metadata(&current).is_ok_and(|found| found.is_symlink());
    let moves_away = is_near && std::fs::canonicalize(&current).is_ok_and(|current| current == tree);
    if !is_link && !moves_away && current.exists() {
        return Err(refused("`current` is neither a link nor moves with it", "move `current` away first"));
    }
    ensure_fit(&tree)?;
    let origin = match (tree == place, is_near) {
        (true, _) => Origin::InPlace,
        (false, true) => Origin::Moved(tree.clone()),
        (false, false) => Origin::Copied(tree.clone()),
    };
    let adopted =
        Adopted { version: version.clone(), origin, link: std::fs::read_link(store.layout.current()).ok() };
    // Before anything moves: whatever interrupts it can be undone.
    kept::save(&store.disk, &store.layout.adopted(), &adopted)?;
    let sealed = if is_near {
        let sealed = seal(node, &tree, version, progress)?;
        store.keep_sealed(&sealed)?;
        move_in(node, &tree, &place)?;
        sealed
    } else {
        copy_in(node, &tree, version, progress)?
    };
    point(node, &sealed)?;
    remember(node, &sealed)?;
    Ok((sealed, adopted))
}

/// Refuses a tree with what is no part of a release, before anything is moved.
fn ensure_fit(tree: &Path) -> Result<(), Error> {
    let points = mounts::all_within(tree).context("look at", tree)?;
    // A tree that is a file system of its own is copied.
    if let Some(path) = points.into_iter().find(|point| point != tree) {
        return Err(Error::Unfit {
            path,
            why: "another file system, or another directory, is mounted there, which is no part of a release",
            hint: "unmount it, mount it beside the releases, and let `[links]` lead there: see docs/migrating.md",
        });
    }
    let mut walk = scan::walk_unread(tree)?;
    for entry in walk.by_ref() {
        let path = entry?.path;
        // Such a tree could be neither verified nor removed again.
        if let Err(index::Error::Entry { path, rule }) = index::meta::check_path(&path) {
            let path = tree.join(OsStr::from_bytes(&path));
            return Err(Error::Unfit {
                path,
                why: rule,
                hint: "shorten it, or move it out of the directory",
            });
        }
    }
    let Some(other) = walk.others().first() else { return Ok(()) };
    let path = tree.join(OsStr::from_bytes(other));
    Err(Error::Unfit { path, why: scan::OTHER, hint: "remove it, or move it out of the directory" })
}

/// Copies a tree from another file system, and shows it when it is complete.
fn copy_in(node: &Node<'_>, tree: &Path, version: Version, progress: &dyn Progress) -> Result<Sealed, Error> {
    let store = node.store;
    let bytes = data::size_bytes(tree)?;
    store.ensure_space(Need { bytes, entries: 0 }, &node.settings.store)?;
    let staging = store.stage(&version, Method::Copy)?;
    progress.begin(Activity::Unpack, Some(bytes), None);
    for entry in std::fs::read_dir(tree).context("read", tree)? {
        let entry = entry.context("read", tree)?;
        data::copy(&entry.path(), &staging.path.join(entry.file_name()), Leave::NOTHING)?;
        progress.advance(data::size_bytes(&entry.path())?, 1);
    }
    progress.end();
    let sealed = seal(node, &staging.path, version, progress)?;
    store.publish(staging, &sealed)?;
    Ok(sealed)
}

/// Puts back what [`adopt`] did, as it was before. The caller holds both locks. May be done again after an interruption.
///
/// # Errors
/// When nothing was adopted, or another release was switched to since.
pub fn undo(node: &Node<'_>) -> Result<Adopted, Error> {
    let store = node.store;
    let refused = |why, hint| Error::NotUndone { why, hint };
    let adopted = match kept::load::<Adopted>(&store.layout.adopted())? {
        Kept::Whole(adopted) => adopted,
        Kept::Missing | Kept::Damaged(_) => {
            return Err(refused("nothing was adopted here", "`cutover status` shows what is here"));
        }
    };
    let mut memory = store.memory()?;
    let is_untouched = memory.previous.is_none()
        && memory
            .committed
            .as_ref()
            .is_none_or(|kept| kept.release.version == adopted.version && kept.transaction.is_none());
    if !is_untouched {
        let hint = "`cutover rollback` goes back to what was adopted";
        return Err(refused("another release was switched to since", hint));
    }
    let (place, current) = (store.layout.tree(&adopted.version), store.layout.current());
    if store.pointer()? == Pointer::Release(adopted.version.clone()) {
        match &adopted.link {
            Some(target) => {
                store.disk.point(&current, target, &store.layout.private().join("current.new"))?
            }
            None => store.point_to_nothing()?,
        }
    }
    match &adopted.origin {
        Origin::Moved(from) if place.exists() && !from.exists() => store.disk.rename(&place, from)?,
        Origin::Copied(_) if place.exists() => store.disk.remove_tree(&place)?,
        Origin::Moved(_) | Origin::Copied(_) | Origin::InPlace => {}
    }
    memory.committed = None;
    memory.keep()?;
    store.disk.remove_file(&store.layout.sealed(&adopted.version))?;
    store.disk.remove_file(&store.layout.adopted())?;
    Ok(adopted)
}

fn seal(node: &Node<'_>, tree: &Path, version: Version, progress: &dyn Progress) -> Result<Sealed, Error> {
    let mut digest = TreeDigest::default();
    let (mut entries, mut bytes) = (0, 0);
    progress.begin(Activity::Verify, None, None);
    for entry in scan::walk(tree)? {
        let entry = entry?;
        entries += 1;
        if let Kind::File { size, .. } = entry.kind {
            bytes += size;
            progress.advance(size, 1);
        }
        digest.add(&entry);
    }
    progress.end();
    let tree = digest.finish();
    Ok(Sealed {
        release: ReleaseId { version, digest: tree },
        product: None,
        serial: None,
        tree,
        entries,
        bytes,
        staged: node.clock.wall(),
        signers: Vec::new(),
        keys: Vec::new(),
        allowed: Vec::new(),
        data_read: Vec::new(),
        data_write: None,
        links: Vec::new(),
        replaced: Vec::new(),
    })
}

/// Moves the tree under `releases/`. Until the pointer names it there, `current` may lead nowhere: only where the tree
/// itself was `current`, for the time of two renames.
fn move_in(node: &Node<'_>, tree: &Path, place: &Path) -> Result<(), Error> {
    if tree == place {
        return Ok(());
    }
    Ok(node.store.disk.rename(tree, place)?)
}

fn point(node: &Node<'_>, sealed: &Sealed) -> Result<(), Error> {
    let store = node.store;
    match store.pointer()? {
        Pointer::Foreign(_) | Pointer::Strange(_) => {
            // A link made by hand: absolute, or to where the tree was. It is replaced by one rename.
            let current = store.layout.current();
            let target = Path::new("releases").join(&sealed.release.version);
            store.disk.point(&current, &target, &store.layout.private().join("current.new"))?;
        }
        Pointer::Absent | Pointer::Release(_) => store.point_to(&sealed.release.version)?,
    }
    Ok(())
}

fn remember(node: &Node<'_>, sealed: &Sealed) -> Result<(), Error> {
    let mut memory = node.store.memory()?;
    memory.committed = Some(Installed {
        release: sealed.release.clone(),
        serial: None,
        since: node.clock.wall(),
        transaction: None,
        data: Vec::new(),
    });
    memory.keep()?;
    Ok(())
}
