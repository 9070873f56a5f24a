//! Trees come by one rename and go by one rename; in between they are complete.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Damage, Error, Kept, Layout, Method, Sealed, Store, kept};
use crate::sys::access_list;
use crate::sys::disk::{self, Context, Disk};
use crate::sys::{kernel::btrfs, open};
use crate::types::record::{DataPolicy, Record};
use crate::types::state::State;
use crate::types::{Digest, Version, chain};

/// Directories that no application has for itself.
#[rustfmt::skip]
const SYSTEM: [&str; 19] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp",
    "/usr", "/usr/lib", "/usr/local", "/var", "/var/lib",
];

/// A tree being built. What it holds is worthless until it is published.
pub struct Staging {
    /// Where to build it: an empty directory.
    pub path: PathBuf,
    /// Where staging may keep the index of what it builds; published with the tree.
    pub index: PathBuf,
    version: Version,
    /// Opened before the first write, so that it sees every write-back error.
    filesystem: File,
    /// When it began, by the file system's clock.
    began: i64,
}

/// An operator's word to the cutover that watches a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The update that is meant.
    pub transaction: String,
    /// Keep the new release; else go back.
    pub commit: bool,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Whether going back sets no hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_hold: bool,
    /// What becomes of the data, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataPolicy>,
}

#[derive(Debug, Default)]
pub struct Swept {
    pub gone: usize,
    /// Which could not be removed, and why.
    pub failed: BTreeMap<PathBuf, Error>,
}

impl Swept {
    fn note(&mut self, removed: Result<(), disk::Error>, path: PathBuf) {
        match removed {
            Ok(()) => self.gone += 1,
            Err(error) => drop(self.failed.insert(path, error.into())),
        }
    }
}

impl Store {
    /// The store under `root`, which must be a directory that only root (or the caller) may write to.
    /// Nothing is made yet.
    pub fn open(layout: Layout, disk: Disk) -> Result<Self, Error> {
        let root = layout.root().to_owned();
        let wrong = |why: String| Error::Root { root: root.clone(), why };
        let found = match fs::metadata(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(wrong("there is no such directory".into()));
            }
            found => found.context("look at", &root)?,
        };
        if !found.is_dir() {
            return Err(wrong("it is not a directory".into()));
        }
        let me = nix::unistd::geteuid().as_raw();
        if me == 0 && found.uid() != 0 {
            return Err(wrong(format!(
                "it belongs to user {}, who could replace what root installs",
                found.uid()
            )));
        }
        let is_root = |path: &&str| {
            fs::metadata(path).is_ok_and(|system| (system.dev(), system.ino()) == (found.dev(), found.ino()))
        };
        if SYSTEM.iter().any(is_root) {
            return Err(wrong(
                "it belongs to the system: an application needs a directory of its own".into(),
            ));
        }
        if found.permissions().mode() & 0o022 != 0 {
            return Err(wrong("others may write to it; take their right away with `chmod go-w`".into()));
        }
        let disk = disk.with_reserve(layout.reserve());
        Ok(Self { layout, disk })
    }

    /// Makes the directories that are missing, and checks that all are on one file system.
    pub fn prepare(&self) -> Result<(), Error> {
        self.make_directories()?;
        Ok(self.disk.fill_reserve()?)
    }

    /// Does `work` with all directories there, and leaves the root as it was: what was missing goes again.
    pub fn while_prepared<T>(&self, work: impl FnOnce(Result<(), Error>) -> T) -> T {
        let ours = [self.layout.releases(), self.layout.private()];
        let ours = ours.into_iter().chain(self.below_private());
        let mut missing: Vec<_> = ours.filter(|path| fs::symlink_metadata(path).is_err()).collect();
        let done = work(self.make_directories());
        missing.reverse();
        for path in missing.iter().filter(|path| path.exists()) {
            if let Err(error) = self.disk.remove_empty(path) {
                tracing::warn!("{}", chain(&error));
            }
        }
        done
    }

    fn below_private(&self) -> [PathBuf; 5] {
        let layout = &self.layout;
        [layout.manifests(), layout.staging(), layout.snapshots(), layout.aside(), layout.trash()]
    }

    fn make_directories(&self) -> Result<(), Error> {
        self.disk.make_directory(&self.layout.releases(), 0o755)?;
        self.disk.make_directory(&self.layout.private(), 0o700)?;
        self.ensure_one_filesystem()?;
        let found = fs::symlink_metadata(self.layout.private()).context("look at", &self.layout.private())?;
        let me = nix::unistd::geteuid().as_raw();
        if found.uid() != me && me != 0 {
            // Whoever forgot `sudo` is not to make it his.
            let denied = io::Error::from_raw_os_error(nix::libc::EACCES);
            return Err(disk::Error::new("change", &self.layout.private(), denied).into());
        }
        if !found.is_dir() || found.uid() != me || found.mode() & 0o077 != 0 {
            let why = format!(
                "`.cutover` must be a directory of user {me} with mode 0700: `chown {me}` and `chmod 700` make it one"
            );
            return Err(Error::Root { root: self.layout.root().to_owned(), why });
        }
        for path in self.below_private() {
            self.disk.make_directory(&path, 0o700)?;
        }
        Ok(())
    }

    /// Refuses a root of which a part is on another file system: no rename leads there.
    pub(super) fn ensure_one_filesystem(&self) -> Result<(), Error> {
        let layout = &self.layout;
        if layout.private().is_symlink() {
            let why =
                "`.cutover` must be a directory, not a link to one: move that directory here".to_owned();
            return Err(Error::Root { root: layout.root().to_owned(), why });
        }
        let parts = [layout.releases(), layout.private(), layout.staging()];
        for path in parts.into_iter().filter(|path| path.exists()) {
            if !disk::is_same_filesystem(&path, layout.root())? {
                return Err(Error::OtherFilesystem { path, root: layout.root().to_owned() });
            }
        }
        Ok(())
    }

    /// Begins to build the tree of `version`, and clears away what an earlier try has left. On btrfs the tree is a
    /// subvolume, so that it can be shown, copied and removed in a moment.
    pub fn stage(&self, version: &Version, method: Method) -> Result<Staging, Error> {
        let staging = self.begin(version)?;
        let path = &staging.path;
        if !self.makes_subvolumes(method)? || self.disk.make_subvolume(path, None).is_err() {
            self.disk.make_directory_unsynced(path, 0o755)?;
        }
        // What its parents hand on to all that is made in them is no part of any release.
        access_list::remove(&open::directory(path).context("open", path)?)
            .context("take access lists off", path)?;
        // The mode given when it was made passed the umask.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("set the mode of", path)?;
        Ok(staging)
    }

    /// Begins to build the tree of `version` as a copy of `base` that is made in a moment. `Ok(None)` where that cannot
    /// be done, or where somebody may have changed the tree of `base`.
    pub fn stage_on(
        &self,
        version: &Version,
        base: &Version,
        method: Method,
    ) -> Result<Option<Staging>, Error> {
        let tree = self.tree(base)?;
        let is_pristine = || btrfs::is_pristine_snapshot(&tree).unwrap_or(false);
        if !self.makes_subvolumes(method)? || !is_pristine() {
            return Ok(None);
        }
        let staging = self.begin(version)?;
        self.disk.make_subvolume(&staging.path, Some(&tree))?;
        Ok(Some(staging))
    }

    fn begin(&self, version: &Version) -> Result<Staging, Error> {
        let root = self.layout.root();
        // Before the first write, so that no write-back error is missed.
        let filesystem = open::directory(root).context("open", root)?;
        let (path, index) = (self.layout.staging().join(version), self.layout.staged_index(version));
        let began = self.begin_span()?;
        self.clear(&path)?;
        self.disk.remove_file(&index)?;
        Ok(Staging { path, index, version: version.clone(), filesystem, began })
    }

    /// Whether trees are subvolumes: on btrfs, unless told otherwise. Only root can remove them again.
    fn makes_subvolumes(&self, method: Method) -> Result<bool, Error> {
        let root = self.layout.root();
        let is_wanted = matches!(method, Method::Auto | Method::Btrfs) && nix::unistd::geteuid().is_root();
        Ok(is_wanted && btrfs::is_btrfs(root).context("look at", root)?)
    }

    /// The method that is in force here, where `wanted` leaves it to the file system.
    pub fn method_here(&self, wanted: Method) -> Result<Method, Error> {
        let root = self.layout.root();
        Ok(match wanted {
            Method::Auto | Method::Btrfs if self.makes_subvolumes(wanted)? => Method::Btrfs,
            Method::Auto if btrfs::is_btrfs(root).context("look at", root)? => Method::Reflink,
            Method::Auto => Method::Hardlink,
            Method::Btrfs | Method::Reflink => Method::Reflink,
            Method::Hardlink => Method::Hardlink,
            Method::Copy => Method::Copy,
        })
    }

    /// Shows a complete tree: makes it durable with what is kept of it, and brings it into `releases/` by one rename, or by
    /// one read-only snapshot.
    ///
    /// # Errors
    /// Whatever the disk refuses. An error of the sync means that the tree is lost: it is removed and never shown.
    pub fn publish(&self, staging: Staging, sealed: &Sealed) -> Result<(), Error> {
        let version = &staging.version;
        // One sync for all. Nobody asks for what is kept of a release before its tree is there.
        if staging.index.exists() {
            self.disk.rename_unsynced(&staging.index, &self.layout.index(version))?;
        } else {
            self.disk.remove_file(&self.layout.index(version))?;
        }
        self.keep_sealed_unsynced(sealed)?;
        // From here on files of other trees that were linked have other change times than their own staging saw.
        self.prepare_span(staging.began)?;
        let synced = self.disk.sync_filesystem(&staging.filesystem, &staging.path);
        if let Err(error) = synced {
            self.disk.forget_written(&self.layout.spans());
            self.clear(&staging.path)?;
            self.forget_kept(version)?;
            return Err(error.into());
        }
        self.show_span()?;
        let tree = self.layout.tree(version);
        if btrfs::is_subvolume(&staging.path).context("look at", &staging.path)? {
            // A snapshot makes all that came before it durable.
            self.disk.publish_subvolume(&staging.path, &tree)?;
            return self.clear(&staging.path);
        }
        self.disk.sync_names(&self.layout.spans())?;
        Ok(self.disk.rename(&staging.path, &tree)?)
    }

    /// Removes the private copy of an archive whose tree is there.
    pub fn forget_archive(&self, version: &Version) -> Result<(), Error> {
        let parts = self.layout.parts(version);
        let map = parts.with_extension("parts.map");
        Ok(self.disk.remove_files(&[self.layout.archive(version), parts, map])?)
    }

    /// Removes what is kept of a release whose tree is not there.
    fn forget_kept(&self, version: &Version) -> Result<(), Error> {
        Ok(self.disk.remove_files(&[self.layout.index(version), self.layout.sealed(version)])?)
    }

    /// Puts a tree in place of the one of the same release: whoever opens the path finds one or the other, whole.
    pub fn replace(&self, staging: Staging, sealed: &Sealed) -> Result<(), Error> {
        let version = &sealed.release.version;
        let tree = self.tree(version)?;
        self.disk.sync_filesystem(&staging.filesystem, &staging.path)?;
        self.end_span(staging.began)?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(version.as_str());
        let beside = self.layout.releases().join(beside);
        self.clear(&beside)?;
        if btrfs::is_subvolume(&staging.path).context("look at", &staging.path)? {
            self.disk.publish_subvolume(&staging.path, &beside)?;
            self.clear(&staging.path)?;
        } else {
            self.disk.rename(&staging.path, &beside)?;
        }
        self.disk.exchange(&beside, &tree)?;
        if staging.index.exists() {
            self.disk.rename(&staging.index, &self.layout.index(version))?;
        }
        let began = self.begin_span()?;
        match self.clear(&beside) {
            // The old tree is out of sight. `prune` tries again, and names what cannot be removed (`chattr +i`).
            Err(error) if fs::symlink_metadata(&beside).is_err() => tracing::warn!("{}", chain(&error)),
            cleared => cleared?,
        }
        self.end_span(began)
    }

    /// Gives up a tree that cannot be completed.
    pub fn abandon(&self, staging: &Staging) -> Result<(), Error> {
        self.clear(&staging.path)?;
        self.disk.remove_file(&staging.index)?;
        self.end_span(staging.began)
    }

    /// Removes all that there is of a release that could not be staged.
    pub fn forget_staged(&self, version: &Version) -> Result<(), Error> {
        self.clear(&self.layout.staging().join(version))?;
        self.disk.remove_file(&self.layout.staged_index(version))?;
        if self.tree(version).is_err() {
            self.forget_kept(version)?;
        }
        self.forget_archive(version)
    }

    /// Removes the tree of a release. The caller has made sure that nobody needs it.
    pub fn remove(&self, version: &Version) -> Result<(), Error> {
        let tree = self.tree(version)?;
        disk::ensure_no_mount(&tree)?;
        let began = self.begin_span()?;
        self.clear(&tree)?;
        self.end_span(began)?;
        self.forget_kept(version)
    }

    /// Takes a directory out of sight by one rename, then removes it.
    fn clear(&self, path: &std::path::Path) -> Result<(), Error> {
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        if btrfs::is_subvolume(path).context("look at", path)? {
            // One call takes it out of sight; it could not be renamed to another directory, being read-only.
            self.disk.remove_tree(path)?;
            return Ok(self.disk.sync_names(path)?);
        }
        let name = path.file_name().unwrap_or_default();
        let trash = (0_u32..)
            .map(|number| {
                let mut unique = name.to_owned();
                unique.push(format!(".{number}"));
                self.layout.trash().join(unique)
            })
            .find(|candidate| fs::symlink_metadata(candidate).is_err())
            .unwrap_or_else(|| self.layout.trash());
        self.disk.make_directory(&self.layout.trash(), 0o700)?;
        self.disk.rename(path, &trash)?;
        Ok(self.disk.remove_tree(&trash)?)
    }

    /// Removes what interrupted runs have left: half-built trees, trees on their way out, descriptions without a tree.
    /// What cannot be removed does not keep the rest.
    pub fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let trees = [children(&self.layout.staging())?, children(&self.layout.trash())?].concat();
        if !trees.is_empty() {
            let began = self.begin_span()?;
            for path in trees {
                swept.note(self.disk.remove_tree(&path), path);
            }
            self.end_span(began)?;
        }
        let private = [self.layout.private(), self.layout.manifests()];
        for path in private.iter().map(|place| children(place)).collect::<Result<Vec<_>, _>>()?.concat() {
            if path.extension().is_some_and(|ending| ending == "new") {
                swept.note(self.disk.remove_file(&path), path);
            }
        }
        for path in children(&self.layout.releases())? {
            // A repair that was interrupted: no version begins so.
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                swept.note(self.disk.remove_tree(&path), path);
            }
        }
        for path in children(&self.layout.manifests())? {
            let version =
                path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<Version>().ok());
            if version.is_some_and(|version| self.tree(&version).is_err()) {
                swept.note(self.disk.remove_file(&path), path);
            }
        }
        Ok(swept)
    }

    /// The update under way. Where the journal is gone or spoilt, and data may be half moved back, its second copy counts.
    pub fn journal(&self) -> Result<Kept<Record>, Error> {
        let journal = kept::load(&self.layout.journal())?;
        if !matches!(journal, Kept::Missing | Kept::Damaged(Damage::Spoilt(_))) {
            return Ok(journal);
        }
        Ok(match kept::load(&self.layout.going_back())? {
            Kept::Whole(record) => Kept::Whole(record),
            Kept::Missing | Kept::Damaged(_) => journal,
        })
    }

    /// Keeps the journal a second time, before the first of the data moves back: what is half moved is in nobody's memory else.
    pub fn keep_going_back(&self, record: &Record) -> Result<(), Error> {
        Ok(kept::save(&self.disk, &self.layout.going_back(), record)?)
    }

    /// Keeps the update under way, before its next step is taken.
    pub fn keep_journal(&self, record: &Record) -> Result<(), Error> {
        Ok(kept::save(&self.disk, &self.layout.journal(), record)?)
    }

    pub fn end_journal(&self) -> Result<(), Error> {
        // First, and durably: without the journal it would count.
        self.disk.remove_file(&self.layout.going_back())?;
        Ok(self.disk.remove_files(&[self.layout.journal(), self.layout.settings()])?)
    }

    /// What an operator wants of the update under way.
    ///
    /// # Errors
    /// When the disk refuses to say; a file that cannot be believed counts as none.
    pub fn request(&self) -> Result<Option<Request>, Error> {
        Ok(match kept::load(&self.layout.request())? {
            Kept::Whole(request) => Some(request),
            Kept::Missing | Kept::Damaged(_) => None,
        })
    }

    /// Tells the cutover that watches a trial what an operator wants.
    pub fn keep_request(&self, request: &Request) -> Result<(), Error> {
        Ok(kept::save(&self.disk, &self.layout.request(), request)?)
    }

    /// The request has been heard.
    pub fn end_request(&self) -> Result<(), Error> {
        Ok(self.disk.remove_file(&self.layout.request())?)
    }

    pub fn state(&self) -> Result<Kept<State>, Error> {
        Ok(kept::load(&self.layout.state())?)
    }

    /// What is remembered, or nothing when nothing was yet.
    ///
    /// # Errors
    /// When the file cannot be believed: nothing automatic happens on guesses.
    pub fn trusted_state(&self) -> Result<State, Error> {
        match self.state()? {
            Kept::Missing => Ok(State::default()),
            Kept::Whole(state) => Ok(state),
            Kept::Damaged(why) => Err(Error::Damaged { path: self.layout.state(), why }),
        }
    }

    /// The settings that the update under way was begun with.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<Kept<T>, Error> {
        Ok(kept::load(&self.layout.settings())?)
    }

    /// Keeps the settings of an update that begins, and the record of it, which names their digest: never without them.
    pub fn begin_journal<T: Serialize>(&self, settings: &T, record: &mut Record) -> Result<(), Error> {
        let (path, journal) = (self.layout.settings(), self.layout.journal());
        let text =
            serde_json::to_string(settings).map_err(|error| disk::Error::new("write", &path, error))?;
        record.settings = Some(Digest::of(text.as_bytes()));
        let (kept, began) = (kept::bytes(&path, settings)?, kept::bytes(&journal, record)?);
        Ok(self.disk.replace_all(&[(&path, &kept), (&journal, &began)], kept::MODE)?)
    }
}

fn children(directory: &std::path::Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("list", directory)?,
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    Ok(paths.context("list", directory)?)
}
