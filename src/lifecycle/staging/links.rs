//! `[links]`: what of a tree is not the release's, but this node's.
//!
//! A link takes the place of what the release has there, if that is little: a file, a link, or a directory with nothing in
//! it but files that hold its place (`.gitkeep`). What it replaced is kept with the description of the tree, so that the
//! rest can still be compared with its digest, and the next tree can begin as a copy of this one. Of a file with several
//! names that includes which they are: whoever reads the tree finds only those that are left. Directories on the way
//! are made. Nothing outside the tree is touched: a link of the release on the way is refused.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::Error;
use crate::lifecycle::settings::Settings;
use crate::release::scan;
use crate::release::tree::{Meta, Root, TreeWriter};
use crate::store::{Replaced, Sealed};
use crate::sys::disk::{Context as _, Disk};
use crate::types::chain;
use crate::types::entry::{Entry, Kind};

/// What a link may replace: so many bytes, and so many entries.
const BYTES_MAX: u64 = 64 << 10;
const ENTRIES_MAX: usize = 64;

/// What was made in a tree, and what was there before.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    /// The links, and the directories on the way to them that the release does not have.
    pub links: Vec<String>,
    /// What they replaced, in path order.
    pub replaced: Vec<Replaced>,
}

/// Makes the configured links in a new tree. The times of the folders that hold them stay as the release says.
pub(super) fn make(settings: &Settings, tree: &Path, disk: &Disk) -> Result<Made, Error> {
    let mut made = Made::default();
    let mut has_hard_links = false;
    // All are looked at before anything is removed: of a file's names one link may replace one, and another the next.
    for name in settings.links.keys() {
        let refused = |why: String| Error::Link { name: name.clone(), why };
        make_parents(tree, name, disk, &mut made).map_err(|error| error.within(name))?;
        let link = tree.join(name);
        if look(&link)?.is_some() {
            let found = replaceable(tree, &link).map_err(|error| refused(error.to_string()))?;
            let found = found.map_err(refused)?;
            tracing::info!("`[links]`: `{name}` takes the place of what the release has there");
            has_hard_links |= found.has_hard_links;
            made.replaced.extend(found.replaced);
        }
    }
    made.replaced
        .sort_by(|one, other| crate::types::entry::path_order(one.path.as_bytes(), other.path.as_bytes()));
    if has_hard_links {
        note_other_names(tree, &mut made.replaced)?;
    }
    for (name, target) in &settings.links {
        let link = tree.join(name);
        let there = look(&link)?;
        with_time_of_folder(&link, tree, || {
            if there.is_some_and(|there| there.is_dir()) {
                disk.remove_tree(&link)?;
            } else {
                disk.ask("remove", &link)?;
                remove_if_there(&link).context("remove", &link)?;
            }
            disk.ask("make the link", &link)?;
            symlinkat(target.as_path(), AT_FDCWD, &link).context("make the link", &link)
        })?;
        made.links.push(name.clone());
    }
    Ok(made)
}

/// What has this name, if anything.
fn look(path: &Path) -> Result<Option<fs::Metadata>, crate::sys::disk::Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.context("look at", path).map(Some),
    }
}

impl Error {
    /// The same with the name of the setting.
    fn within(self, name: &str) -> Self {
        match self {
            Self::Disk(error) => Self::Link { name: name.to_owned(), why: chain(&error) },
            other => other,
        }
    }
}

/// Makes the directories on the way to a link. Each must be one: whatever else is there leads out of the tree, or nowhere.
fn make_parents(tree: &Path, name: &str, disk: &Disk, made: &mut Made) -> Result<(), Error> {
    let mut within = PathBuf::new();
    for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
        let Component::Normal(part) = part else { continue };
        within.push(part);
        let path = tree.join(&within);
        let shown = within.to_string_lossy().into_owned();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(found) => {
                let what = if found.is_symlink() { "a link" } else { "no directory" };
                let why = format!("`{shown}` on the way to it is {what} in the release");
                return Err(Error::Link { name: name.to_owned(), why });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                with_time_of_folder(&path, tree, || {
                    disk.ask("make the directory", &path)?;
                    mkdirat(AT_FDCWD, &path, Mode::from_bits_truncate(0o755))
                        .context("make the directory", &path)
                })?;
                made.links.push(shown);
            }
            Err(error) => return Err(error).context("look at", &path)?,
        }
    }
    Ok(())
}

/// What is at the place of a link.
struct Found {
    replaced: Vec<Replaced>,
    /// Whether a file in it has further names: in the tree, or in one that shares its files.
    has_hard_links: bool,
}

/// What is at the place of a link, if a link may take that place; else why not.
fn replaceable(tree: &Path, link: &Path) -> io::Result<Result<Found, String>> {
    let mut replaced = Vec::new();
    let mut has_hard_links = false;
    let mut left = vec![link.to_owned()];
    let mut bytes = 0;
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path)?;
        let within = path.strip_prefix(tree).unwrap_or(&path);
        let Some(shown) = within.to_str() else { return Ok(Err("a name in it is not UTF-8".into())) };
        let is_top = path == link;
        let is_placeholder = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        let mut content = None;
        let mut target = None;
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else if !is_top && !is_placeholder && found.len() > 0 {
            return Ok(Err(format!(
                "the release has files there, such as `{shown}`: take them out of it, or the link out of the settings"
            )));
        } else if found.is_symlink() {
            let Ok(text) = fs::read_link(&path)?.into_os_string().into_string() else {
                return Ok(Err(format!("`{shown}` leads to a name that is not UTF-8")));
            };
            target = Some(text);
        } else {
            bytes += found.len();
            if bytes > BYTES_MAX {
                return Ok(Err(format!("the release has `{shown}` there, which is larger than 64 KiB")));
            }
            content = Some(fs::read(&path)?);
            has_hard_links |= found.nlink() > 1;
        }
        if replaced.len() >= ENTRIES_MAX {
            return Ok(Err("the release has more than 64 entries there".into()));
        }
        let has_attributes = !found.is_symlink() && !scan::attributes(&fs::File::open(&path)?)?.is_empty();
        if has_attributes {
            return Ok(Err(format!("`{shown}` of the release has extended attributes")));
        }
        replaced.push(Replaced {
            path: shown.to_owned(),
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            mtime: (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0)),
            content,
            target,
            same_as: None,
            next: None,
        });
    }
    Ok(Ok(Found { replaced, has_hard_links }))
}

/// Notes which of these files, in path order, have further names in the tree.
fn note_other_names(tree: &Path, replaced: &mut [Replaced]) -> Result<(), Error> {
    let places = replaced.iter().enumerate().map(|(at, one)| (one.path.clone().into_bytes(), at));
    let places: HashMap<Vec<u8>, usize> = places.collect();
    let text = |name: Vec<u8>, of: &Replaced| {
        let why = "a further name of the same file is not UTF-8".into();
        String::from_utf8(name).map_err(|_| Error::Link { name: of.path.clone(), why })
    };
    for entry in scan::walk_unread(tree)? {
        let entry = entry?;
        let Some(first) = entry.same_as else { continue };
        if let Some(further) = places.get(&entry.path) {
            let further = &mut replaced[*further];
            further.same_as = Some(text(first, further)?);
        } else if let Some(first) = places.get(&first).map(|first| &mut replaced[*first])
            && first.next.is_none()
        {
            first.next = Some(text(entry.path, first)?);
        }
    }
    Ok(())
}

/// Takes out of a copy of a tree what its node, not its release, put there, and puts back what was there before.
pub(super) fn undo(sealed: &Sealed, tree: &Path, disk: &Disk) -> Result<(), Error> {
    for name in sealed.links.iter().rev() {
        let link = tree.join(name);
        let flag = match fs::symlink_metadata(&link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => match found.context("look at", &link)? {
                found if found.is_symlink() => UnlinkatFlags::NoRemoveDir,
                found if found.is_dir() => UnlinkatFlags::RemoveDir,
                _ => continue,
            },
        };
        with_time_of_folder(&link, tree, || {
            disk.ask("remove", &link)?;
            unlinkat(AT_FDCWD, &link, flag).context("remove", &link)
        })?;
    }
    let root = std::sync::Arc::new(Root::open(tree, disk)?);
    let mut writer = TreeWriter::new(root);
    for replaced in &sealed.replaced {
        let (path, meta) = (replaced.path.as_bytes(), meta_of(replaced));
        with_time_of_folder(&tree.join(&replaced.path), tree, || {
            // Whichever name of the same file is there by now: the first names come first.
            if let Some(other) = replaced.same_as.as_ref().or(replaced.next.as_ref()) {
                return writer.hard_link(path, other.as_bytes());
            }
            match (&replaced.content, &replaced.target) {
                (_, Some(target)) => writer.link(path, target.as_bytes(), &meta),
                (Some(content), None) => {
                    let mut file = writer.file(path, &meta)?;
                    if !content.is_empty() {
                        file.write(content, 0)?;
                    }
                    file.finish(content.len() as u64, &meta)
                }
                (None, None) => writer.directory(path),
            }
        })?;
    }
    for replaced in sealed.replaced.iter().rev().filter(|one| one.content.is_none() && one.target.is_none()) {
        writer.finish_directory(replaced.path.as_bytes(), &meta_of(replaced))?;
    }
    Ok(())
}

fn meta_of(replaced: &Replaced) -> Meta<'static> {
    let Replaced { mode, uid, gid, mtime, .. } = *replaced;
    Meta { mode, uid, gid, mtime, xattrs: None }
}

/// The entries that the release has where links are, for its digest.
pub(super) fn entries_of(replaced: &[Replaced]) -> Vec<Entry> {
    let entry = |one: &Replaced| Entry {
        path: one.path.clone().into_bytes(),
        kind: match (&one.content, &one.target) {
            (_, Some(target)) => Kind::Link { target: target.clone().into_bytes() },
            (Some(content), None) => {
                Kind::File { size: content.len() as u64, content: crate::types::Digest::of(content) }
            }
            (None, None) => Kind::Directory,
        },
        mode: one.mode,
        uid: one.uid,
        gid: one.gid,
        mtime: one.mtime,
        xattrs: std::collections::BTreeMap::new(),
        same_as: one.same_as.clone().map(String::into_bytes),
    };
    replaced.iter().map(entry).collect()
}

/// An entry of a tree as the release has it; nothing for what the node has put there.
pub(super) fn as_released(sealed: &Sealed, mut entry: Entry) -> Option<Entry> {
    if sealed.links.iter().any(|link| link.as_bytes() == entry.path) {
        return None;
    }
    // Where the first name of a file was replaced, the next seems to be the first.
    let seems_first = entry.same_as.as_ref().unwrap_or(&entry.path);
    let is_next = |one: &&Replaced| one.next.as_ref().is_some_and(|next| next.as_bytes() == seems_first);
    if let Some(first) = sealed.replaced.iter().find(is_next) {
        entry.same_as = Some(first.path.clone().into_bytes());
    }
    Some(entry)
}

fn remove_if_there(path: &Path) -> nix::Result<()> {
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::NoRemoveDir) {
        Err(nix::errno::Errno::ENOENT) => Ok(()),
        removed => removed,
    }
}

/// Changes something in the folder that holds `path`, and gives the folder its time back.
fn with_time_of_folder(
    path: &Path,
    tree: &Path,
    change: impl FnOnce() -> Result<(), crate::sys::disk::Error>,
) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(tree);
    let before = fs::symlink_metadata(folder).context("look at", folder)?;
    if !before.is_dir() {
        let error = io::Error::other("it is not a folder");
        return Err(crate::sys::disk::Error::new("look at", folder, error).into());
    }
    change()?;
    let modified = TimeSpec::new(before.mtime(), before.mtime_nsec());
    let follow = UtimensatFlags::NoFollowSymlink;
    utimensat(AT_FDCWD, folder, &TimeSpec::UTIME_OMIT, &modified, follow)
        .context("set the time of", folder)?;
    Ok(())
}
