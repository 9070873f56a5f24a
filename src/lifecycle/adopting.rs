//! Taking over what was installed by hand, so that the first rollback has somewhere to lead.

use std::path::Path;

use super::node::Node;
use super::staging::Error;
use crate::release::scan;
use crate::store::{Pointer, Sealed};
use crate::sys::disk::{self, Context};
use crate::types::entry::{Kind, TreeDigest};
use crate::types::progress::{Activity, Progress};
use crate::types::state::Installed;
use crate::types::{ReleaseId, Version, escaped_path};

/// Makes the directory `path` (or what the link `path` names) the active, committed release.
///
/// A directory under the root moves into `releases/` by one rename; one that is there already stays. `current` then
/// names it. The release's digest is the digest of its tree. The caller holds both locks.
///
/// # Errors
/// When a release is active already, or the directory lies on another file system.
pub fn adopt(
    node: &Node<'_>,
    path: &Path,
    version: Option<&Version>,
    progress: &dyn Progress,
) -> Result<Sealed, Error> {
    let store = node.store;
    let tree = std::fs::canonicalize(path).context("find", path)?;
    let refused = |why: &str| disk::Error::new("adopt", path, std::io::Error::other(why.to_owned()));
    if !tree.is_dir() {
        return Err(refused("it is not a directory").into());
    }
    if let Pointer::Release(active) = store.pointer()?
        && store.release(&active).is_ok()
    {
        return Err(refused(&format!("release {active} is active already")).into());
    }
    let version = match version {
        Some(version) => version.clone(),
        None => {
            let name = tree.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.parse().map_err(|_| refused("its name is no version; say one with `--version`"))?
        }
    };
    if tree.starts_with(store.layout.private()) || store.layout.root().starts_with(&tree) {
        return Err(refused("it holds the root itself").into());
    }
    let releases = std::fs::canonicalize(store.layout.releases()).unwrap_or_else(|_| store.layout.releases());
    if tree.strip_prefix(&releases).is_ok_and(|rest| rest.components().count() != 1) {
        return Err(refused("it is a part of a release").into());
    }
    let place = store.layout.tree(&version);
    if tree != place {
        if !disk::is_same_filesystem(&tree, store.layout.root())? {
            return Err(crate::store::Error::OtherFilesystem {
                path: tree,
                root: store.layout.root().to_owned(),
            }
            .into());
        }
        if place.exists() {
            return Err(refused(&format!("`{}` is there already", escaped_path(&place))).into());
        }
    }
    let sealed = seal(node, &tree, version, progress)?;
    store.keep_sealed(&sealed)?;
    move_in(node, &tree, &place)?;
    point(node, &sealed)?;
    remember(node, &sealed)?;
    Ok(sealed)
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
        data_read: Vec::new(),
        data_write: None,
        links: Vec::new(),
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
            let is_link =
                std::fs::symlink_metadata(&current).is_ok_and(|found| found.file_type().is_symlink());
            if !is_link {
                let error = std::io::Error::other("`current` is neither a link nor the directory to adopt");
                return Err(disk::Error::new("adopt", &current, error).into());
            }
            let target = Path::new("releases").join(&sealed.release.version);
            store.disk.point(&current, &target, &store.layout.private().join("current.new"))?;
        }
        Pointer::Absent | Pointer::Release(_) => store.point_to(&sealed.release.version)?,
    }
    Ok(())
}

fn remember(node: &Node<'_>, sealed: &Sealed) -> Result<(), Error> {
    let mut state = node.store.trusted_state()?;
    state.committed = Some(Installed {
        release: sealed.release.clone(),
        serial: None,
        since: node.clock.wall(),
        transaction: None,
        data: Vec::new(),
    });
    Ok(node.store.keep_state(&state)?)
}
