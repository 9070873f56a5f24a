//! Taking over what was installed by hand, so that the first rollback has somewhere to lead.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Node;
use crate::lifecycle::application::data::{self, leave::Leave};
use crate::lifecycle::settings::Settings;
use crate::lifecycle::staging;
use crate::release::{index, scan};
use crate::store::{self, Kept, Method, Need, Pointer, Sealed, Store, kept};
use crate::sys::disk::{self, Context};
use crate::sys::{inode, mounts};
use crate::types::entry::{Entry, Kind, TreeDigest};
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
    ensure_none_begun(store, path)?;
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
    if tree != place && inode::of_path(&tree).context("look at", &tree)?.is_fixed {
        let why = "nobody may rename it (`lsattr` shows `i` or `a`)";
        return Err(refused(why, "take that off with `chattr -i -a`"));
    }
    refuse_data_in(&tree, node.settings)?;
    ensure_fit(&tree, &place)?;
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

/// Refuses to begin again where the tree of an interrupted adoption is in its place already.
fn ensure_none_begun(store: &Store, path: &Path) -> Result<(), Error> {
    if interrupted(store)?.is_none_or(|begun| !store.layout.tree(&begun.version).exists()) {
        return Ok(());
    }
    Err(Error::Refused {
        path: path.to_owned(),
        why: "an adoption was interrupted".to_owned(),
        hint: "`cutover recover` finishes it, `cutover adopt --undo` puts all back",
    })
}

/// Refuses a tree with data in it: they would go with the release, and one day be pruned with it.
fn refuse_data_in(tree: &Path, settings: &Settings) -> Result<(), Error> {
    for entry in &settings.data {
        // What is not there yet is where the directory is that would hold it.
        let real = entry.path.ancestors().find_map(|above| {
            let rest = entry.path.strip_prefix(above).unwrap_or(Path::new(""));
            std::fs::canonicalize(above).ok().map(|above| above.join(rest))
        });
        if real.is_some_and(|real| real.starts_with(tree)) {
            return Err(Error::Unfit {
                path: entry.path.clone(),
                why: "it is `[[data]]`, which is no part of a release",
                hint: "with the service stopped, move it beside the releases, let `[[data]]` name the new place and \
                       `[links]` lead there: see docs/migrating.md",
            });
        }
    }
    Ok(())
}

/// Whether a link leads out of its tree to something that it would not lead to from the tree's new place. Links to
/// absolute paths lead where they did.
fn is_broken_by_move(link: &[u8], target: &[u8], tree: &Path, place: &Path) -> bool {
    let mut depth = Path::new(OsStr::from_bytes(link)).components().count().saturating_sub(1);
    let mut parts = Path::new(OsStr::from_bytes(target)).components();
    for part in parts.by_ref() {
        match part {
            Component::RootDir | Component::Prefix(_) => return false,
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth == 0 => {
                let out = |top: &Path| {
                    let found = std::fs::canonicalize(top.parent()?.join(parts.as_path()));
                    found.ok().filter(|found| !found.starts_with(tree))
                };
                let now = out(tree);
                return now.is_some() && now != out(place);
            }
            Component::ParentDir => depth -= 1,
        }
    }
    false
}

/// Refuses a tree with what is no part of a release, or what would break when it moves to `place`, before anything is moved.
fn ensure_fit(tree: &Path, place: &Path) -> Result<(), Error> {
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
        let Entry { path, kind, .. } = entry?;
        if let Kind::Link { target } = &kind
            && is_broken_by_move(&path, target, tree, place)
        {
            return Err(Error::Unfit {
                path: tree.join(OsStr::from_bytes(&path)),
                why: "it is a link that leads out of the directory by a relative path, and would lead elsewhere from \
                      below `releases/`",
                hint: "make it lead to the absolute path (`ln -sfn`), which is the same for whatever runs now",
            });
        }
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
    // As a whole: the directory has an owner, a mode and attributes, too, and files in it may be one.
    store.disk.remove_tree(&staging.path)?;
    data::copy(tree, &staging.path, Leave::NOTHING)?;
    progress.advance(bytes, 1);
    progress.end();
    let sealed = seal(node, &staging.path, version, progress)?;
    store.publish(staging, &sealed)?;
    Ok(sealed)
}

/// The adoption that was interrupted before it was remembered, if there is one.
pub fn interrupted(store: &Store) -> Result<Option<Adopted>, Error> {
    let Kept::Whole(adopted) = kept::load::<Adopted>(&store.layout.adopted())? else { return Ok(None) };
    let state = store.trusted_state()?;
    let is_new = state.committed.is_none() && state.previous.is_none() && store.journal()? == Kept::Missing;
    let is_other = matches!(store.pointer()?, Pointer::Release(active) if active != adopted.version);
    Ok(Some(adopted).filter(|_| is_new && !is_other))
}

/// Finishes an adoption that was interrupted, where the tree is in its place; else undoes it. `Ok(None)`: there is none.
/// Says whether the release is adopted now. The caller holds both locks.
pub fn recover(node: &Node<'_>) -> Result<Option<(Adopted, bool)>, Error> {
    let store = node.store;
    let Some(adopted) = interrupted(store)? else { return Ok(None) };
    match store.release(&adopted.version) {
        Ok(sealed) if store.layout.tree(&adopted.version).exists() => {
            point(node, &sealed)?;
            remember(node, &sealed)?;
            Ok(Some((adopted, true)))
        }
        Ok(_) | Err(_) => undo(node).map(|adopted| Some((adopted, false))),
    }
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
        // Our own copy: what nobody may change in it (`chattr +i`) is where it came from, too.
        Origin::Copied(_) if place.exists() => store.disk.remove_data(&place)?,
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
