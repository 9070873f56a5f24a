//! The pointer: which release is active.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::{Error, Store};
use crate::sys::disk::{self, Context, Disk};
use crate::sys::{inode, open};
use crate::types::{Version, escaped_path};

/// What `current` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// Nothing: no release has been active yet.
    Absent,
    /// A link to the tree of this release, which is there.
    Release(Version),
    /// What was installed by hand: a directory, or a link to elsewhere. `cutover adopt` takes it over.
    Foreign(String),
    /// A link of ours that leads nowhere.
    Strange(String),
}

/// A pointer that is about to move. Nobody else may move it meanwhile: the lock of the switch is held.
pub struct ReadyPointer<'a> {
    disk: &'a Disk,
    current: PathBuf,
    private: PathBuf,
    is_there: bool,
}

impl ReadyPointer<'_> {
    /// Moves it, durably. `moved` is called when all can see it, which is before it is durable.
    pub fn point(&self, moved: impl Fn()) -> Result<(), Error> {
        if self.is_there {
            moved();
            // Perhaps by a rename that was not durable yet.
            return Ok(self.disk.sync_names(&self.current)?);
        }
        Ok(self.disk.show(&self.private, &self.current, moved)?)
    }
}

impl Store {
    /// What the pointer says.
    ///
    /// # Errors
    /// When the machine cannot say.
    pub fn pointer(&self) -> Result<Pointer, Error> {
        let path = self.layout.current();
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pointer::Absent),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(Pointer::Foreign("it is not a symbolic link".into()));
            }
            Err(error) => return Err(disk::Error::new("read the link", &path, error).into()),
        };
        let Some(version) = version_in(&target).or_else(|| self.named_by_hand(&target)) else {
            return Ok(Pointer::Foreign(format!("it points to `{}`", escaped_path(&target))));
        };
        if !is_real_directory(&self.layout.tree(&version)) {
            return Ok(Pointer::Strange(format!("it names release {version}, whose tree is not there")));
        }
        Ok(Pointer::Release(version))
    }

    /// The release of ours that a link names which a person made in a hurry: `ln -sfn /srv/shop/releases/1.0 current`.
    /// Where nothing tells what that tree is, it was installed by hand.
    fn named_by_hand(&self, target: &Path) -> Option<Version> {
        // What leads upwards may come back somewhere else.
        if target.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let directory = self.layout.root().join(target.parent()?);
        let releases = self.layout.releases();
        let is_here = fs::canonicalize(directory).ok()? == fs::canonicalize(releases).ok()?;
        let version = target.file_name()?.to_str()?.parse().ok()?;
        (is_here && self.layout.sealed(&version).exists()).then_some(version)
    }

    /// The active release, if there is one.
    ///
    /// # Errors
    /// When the pointer is not what this program made: nothing is switched then.
    pub fn active(&self) -> Result<Option<Version>, Error> {
        match self.pointer()? {
            Pointer::Absent => Ok(None),
            Pointer::Release(version) => Ok(Some(version)),
            Pointer::Foreign(why) | Pointer::Strange(why) => {
                Err(Error::StrangePointer { path: self.layout.current(), why })
            }
        }
    }

    /// Refuses a root in which no link can be replaced. To be asked before anything stops.
    pub fn ensure_pointer_moves(&self) -> Result<(), Error> {
        let root = self.layout.root();
        // The journal of the way there is written to `.cutover`.
        for path in [root, &self.layout.private()].into_iter().filter(|path| path.exists()) {
            let directory = open::location(path).context("open", path)?;
            if inode::of(&directory).context("look at", path)?.is_fixed {
                let why = format!(
                    "`{}` is immutable or append-only: `chattr -i -a` lets `current` move again",
                    escaped_path(path)
                );
                return Err(Error::Root { root: root.to_owned(), why });
            }
        }
        self.ensure_one_filesystem()?;
        if access(root, AccessFlags::W_OK) == Err(Errno::EROFS) {
            return Err(disk::Error::new("write to", root, Errno::EROFS).into());
        }
        Ok(())
    }

    /// Makes `version` the active release, durably. Its tree must be there.
    pub fn point_to(&self, version: &Version) -> Result<(), Error> {
        self.ready_pointer(version)?.point(|| ())
    }

    /// Does everything of [`Store::point_to`] but the one rename, for the moment that counts.
    pub fn ready_pointer(&self, version: &Version) -> Result<ReadyPointer<'_>, Error> {
        if !is_real_directory(&self.layout.tree(version)) {
            return Err(Error::NoSuchTree(version.clone()));
        }
        let current = self.layout.current();
        let private = self.layout.private().join("current.new");
        let is_there = self.active()?.as_ref() == Some(version);
        let target = Path::new("releases").join(version);
        if !is_there {
            self.disk.prepare_link(&target, &private)?;
        }
        Ok(ReadyPointer { disk: &self.disk, current, private, is_there })
    }

    /// Removes the pointer: after a first installation that failed.
    pub fn point_to_nothing(&self) -> Result<(), Error> {
        self.active()?;
        Ok(self.disk.remove_file(&self.layout.current())?)
    }

    /// The tree of a release that must be there.
    pub fn tree(&self, version: &Version) -> Result<PathBuf, Error> {
        let tree = self.layout.tree(version);
        if is_real_directory(&tree) { Ok(tree) } else { Err(Error::NoSuchTree(version.clone())) }
    }

    /// The versions of all trees under `releases/`, by name. Other things there are not ours and are passed over.
    pub fn releases(&self) -> Result<Vec<Version>, Error> {
        let path = self.layout.releases();
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("list", &path)?,
        };
        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry.context("list", &path)?;
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let (true, Some(Ok(version))) = (is_directory, entry.file_name().to_str().map(str::parse)) {
                versions.push(version);
            }
        }
        versions.sort();
        Ok(versions)
    }
}

/// The version in `releases/<version>`; a trailing slash is as good.
fn version_in(target: &Path) -> Option<Version> {
    let rest = target.as_os_str().as_bytes().strip_prefix(b"releases/")?;
    std::str::from_utf8(rest.strip_suffix(b"/").unwrap_or(rest)).ok()?.parse().ok()
}

fn is_real_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}
