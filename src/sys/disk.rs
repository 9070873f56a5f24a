//! Changes of the disk that must survive, and the one hook that they all pass.
//!
//! Every function here asks the probe before its change and returns only when the change is durable (or says that it
//! is not). The order is the one that ext4, xfs and btrfs all keep: write a private file, fsync it, rename it over the
//! name, fsync the directory. An error of a sync is final: it is reported once by the kernel, so it is never retried.

mod replace;
mod reserve;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use super::deep::Fixed;
use super::{kernel::btrfs, open};
use crate::types::escaped_path;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// What is done, as a verb: "cannot {action} `{path}`".
    pub action: &'static str,
    pub path: &'a Path,
}

/// Is asked before each change. An error stands for the machine refusing the change; tests also kill the process.
pub type Probe = dyn Fn(Change<'_>) -> io::Result<()> + Send + Sync;

/// Makes changes durable. Cheap to clone.
#[derive(Clone, Default)]
pub struct Disk {
    probe: Option<Arc<Probe>>,
    /// A directory of files to give up when the disk is full.
    reserve: Option<PathBuf>,
}

/// A change or a read that the machine refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", escaped_path(.path))]
pub struct Error {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl Error {
    /// An error with its operation and path.
    pub fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether the file system has no room (bytes, inodes or quota) for it.
    pub fn is_no_space(&self) -> bool {
        is_no_space(&self.source)
    }

    /// Whether the file system can only be read.
    pub fn is_read_only(&self) -> bool {
        self.source.raw_os_error() == Some(Errno::EROFS as i32)
    }

    /// Whether our own unit keeps us from writing there (`ProtectHome=`), and not the file system.
    pub fn is_walled_off(&self) -> bool {
        let is_home = ["/home", "/root", "/run/user"].iter().any(|home| self.path.starts_with(home));
        is_home && self.is_read_only() && std::env::var_os("INVOCATION_ID").is_some()
    }
}

fn is_no_space(error: &io::Error) -> bool {
    [Errno::ENOSPC as i32, Errno::EDQUOT as i32].contains(&error.raw_os_error().unwrap_or(0))
}

/// Most small files are no longer: they are read at once.
const USUAL_BYTES: usize = 4096;

/// Turns what the machine said into an [`Error`] with operation and path.
pub trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error>;

    /// The same with a path that is made up only when it is needed.
    fn context_at(self, action: &'static str, path: impl FnOnce() -> PathBuf) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::new(action, path, source))
    }

    fn context_at(self, action: &'static str, path: impl FnOnce() -> PathBuf) -> Result<T, Error> {
        self.map_err(|source| Error::new(action, &path(), source))
    }
}

impl Disk {
    /// A disk whose changes pass `probe` first.
    pub fn with_probe(probe: Arc<Probe>) -> Self {
        Self { probe: Some(probe), reserve: None }
    }

    /// The same disk, which gives up files in `directory` rather than fail for want of space.
    #[must_use]
    pub fn with_reserve(mut self, directory: PathBuf) -> Self {
        self.reserve = Some(directory);
        self
    }

    /// Whether there is a probe to ask.
    pub fn is_probed(&self) -> bool {
        self.probe.is_some()
    }

    /// Asks the probe. For changes that are made elsewhere (unpacking makes thousands, each with few system calls).
    pub fn ask(&self, action: &'static str, path: &Path) -> Result<(), Error> {
        match &self.probe {
            Some(probe) => probe(Change { action, path }).context(action, path),
            None => Ok(()),
        }
    }

    /// Appends one line, durably. Readers must expect a broken last line after a power cut.
    pub fn append(&self, path: &Path, line: &[u8], mode: u32) -> Result<(), Error> {
        self.spending_reserve(|| {
            self.ask("append to", path)?;
            let append = || {
                let is_new = !path.exists();
                let mut file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(mode)
                    .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                    .open(path)?;
                let length = file.metadata()?.len();
                let written = file.write_all(line).and_then(|()| file.sync_data());
                if written.is_err() {
                    // A part of a line would spoil the next one; the reader would notice, but why make it.
                    file.set_len(length)?;
                }
                written?;
                if is_new { sync_directory_of(path) } else { Ok(()) }
            };
            append().context("append to", path)
        })
    }

    /// Makes the symbolic link `link` point to `target`, by one rename: there is no moment without a whole link.
    /// `private` is the name under which the link is made first, on the same file system.
    pub fn point(&self, link: &Path, target: &Path, private: &Path) -> Result<(), Error> {
        self.prepare_link(target, private)?;
        self.rename(private, link)
    }

    /// Makes the private link that [`Disk::point`] or [`Disk::show`] will rename, so that only the rename is left for the
    /// moment that counts. Not durable: it is made again when it is gone.
    pub fn prepare_link(&self, target: &Path, private: &Path) -> Result<(), Error> {
        self.spending_reserve(|| {
            self.ask("prepare the link", private)?;
            if fs::read_link(private).is_ok_and(|there| there == target) {
                return Ok(());
            }
            remove_if_there(private).context("remove", private)?;
            nix::unistd::symlinkat(target, nix::fcntl::AT_FDCWD, private).context("prepare the link", private)
        })
    }

    /// The rest of [`Disk::point`] after [`Disk::prepare_link`]. `shown` is called as soon as everybody sees the new
    /// link, which is before it is durable. The private name may come back after a power cut, and does no harm then.
    pub fn show(&self, private: &Path, link: &Path, shown: impl Fn()) -> Result<(), Error> {
        let is_shown = std::cell::Cell::new(false);
        self.spending_reserve(|| {
            if !is_shown.get() {
                self.ask("rename", link)?;
                #[expect(clippy::disallowed_methods, reason = "this is where renames are made")]
                fs::rename(private, link).context("rename", link)?;
                is_shown.set(true);
                shown();
            }
            self.sync_names(link)
        })
    }

    /// Renames, replacing what is there, and makes both directories durable. A directory may grow by it.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.rename_unsynced(from, to)?;
        self.spending_reserve(|| {
            self.sync_names(to)?;
            if from.parent() == to.parent() { Ok(()) } else { self.sync_names(from) }
        })
    }

    /// Renames, replacing what is there. Not durable: it is so with the file system, or with the names in both directories.
    pub fn rename_unsynced(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.spending_reserve(|| {
            self.ask("rename", to)?;
            #[expect(clippy::disallowed_methods, reason = "this is where renames are made")]
            fs::rename(from, to).context("rename", to)
        })
    }

    /// Makes a directory, durably. One that exists is left as it is.
    pub fn make_directory(&self, path: &Path, mode: u32) -> Result<(), Error> {
        if path.is_dir() {
            return Ok(());
        }
        self.spending_reserve(|| {
            self.try_make_directory(path, mode)?;
            self.sync_names(path)
        })
    }

    /// The same, but not durable: it is so with the file system.
    pub fn make_directory_unsynced(&self, path: &Path, mode: u32) -> Result<(), Error> {
        self.spending_reserve(|| self.try_make_directory(path, mode))
    }

    fn try_make_directory(&self, path: &Path, mode: u32) -> Result<(), Error> {
        self.ask("make the directory", path)?;
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made.context("make the directory", path),
        }
    }

    /// Removes a directory that is empty; another one stays. Not durable.
    pub fn remove_empty(&self, path: &Path) -> Result<(), Error> {
        self.ask("remove", path)?;
        #[expect(clippy::disallowed_methods, reason = "this is where directories are removed")]
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.context("remove", path),
        }
    }

    /// Removes a file or link, durably. One that is not there is no error.
    pub fn remove_file(&self, path: &Path) -> Result<(), Error> {
        self.remove_files(&[path.to_owned()])
    }

    /// Removes files of one directory in this order, and makes that durable at once. Those that are not there are no error.
    pub fn remove_files(&self, paths: &[PathBuf]) -> Result<(), Error> {
        let is_there = |path: &&PathBuf| {
            !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let there: Vec<_> = paths.iter().filter(is_there).collect();
        for path in &there {
            self.ask("remove", path)?;
            remove_if_there(path).context("remove", path)?;
        }
        there.last().map_or(Ok(()), |path| self.sync_names(path))
    }

    /// Removes a directory and all that is in it, without following links; a subvolume at once. Not durable: what comes
    /// back after a power cut is swept again.
    ///
    /// # Errors
    /// Also when something is mounted in there; then nothing is removed.
    pub fn remove_tree(&self, path: &Path) -> Result<(), Error> {
        self.remove_all(path, Fixed::Stays)
    }

    /// The same for data, of which also goes what nobody may change (`chattr +i`). What is not there is no error.
    pub fn remove_data(&self, path: &Path) -> Result<(), Error> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            found => {
                found.context("look at", path)?;
                self.remove_all(path, Fixed::Goes)
            }
        }
    }

    /// What is mounted is found before anything is removed; what comes to be mounted meanwhile stops the work.
    fn remove_all(&self, path: &Path, fixed: Fixed) -> Result<(), Error> {
        ensure_no_mount(path)?;
        self.ask("remove", path)?;
        super::remove::remove_all(path, fixed)
    }

    /// Lets two names change places, so that each is there at any moment, and makes both directories durable.
    pub fn exchange(&self, one: &Path, other: &Path) -> Result<(), Error> {
        self.ask("exchange", other)?;
        super::kernel::file::exchange(one, other).context("exchange", other)?;
        self.sync_names(other)?;
        if one.parent() == other.parent() { Ok(()) } else { self.sync_names(one) }
    }

    /// Makes an empty subvolume, or with `source` a writable copy of it in a moment; btrfs only. Not durable.
    pub fn make_subvolume(&self, path: &Path, source: Option<&Path>) -> Result<(), Error> {
        self.ask("make the subvolume", path)?;
        let made = match source {
            Some(source) => btrfs::snapshot(source, path, false),
            None => btrfs::create_subvolume(path),
        };
        made.context("make the subvolume", path)
    }

    /// Shows the subvolume `source`, and all that was written to it, as the read-only `path`: whole and durable as soon
    /// as it is seen.
    pub fn publish_subvolume(&self, source: &Path, path: &Path) -> Result<(), Error> {
        self.ask("publish the subvolume", path)?;
        btrfs::snapshot(source, path, true).context("publish the subvolume", path)?;
        self.sync_names(path)
    }

    /// Makes the names in the directory that holds `path` durable.
    pub fn sync_names(&self, path: &Path) -> Result<(), Error> {
        self.ask("sync the directory of", path)?;
        sync_directory_of(path).context("sync the directory of", path)
    }

    /// Makes everything on the file system of `descriptor` durable, and reports a write-back error that happened since
    /// it was opened (Linux 5.8 and later). Open it *before* the writes: a later one may miss the error.
    pub fn sync_filesystem(&self, descriptor: impl AsFd, path: &Path) -> Result<(), Error> {
        self.ask("sync the file system of", path)?;
        nix::unistd::syncfs(descriptor).context("sync the file system of", path)
    }
}

/// Reads a small file that may be hostile: regular files only, no links followed, at most `limit` bytes.
///
/// `Ok(None)` when there is no such file.
///
/// # Errors
/// When it is something else than a regular file, or longer.
pub fn read_small(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    read_if(path, limit, |_| Ok(()))
}

/// Reads a small file that this program wrote: like [`read_small`], and it must belong to root or to the caller, and be
/// writable by nobody else.
///
/// # Errors
/// Also when it belongs to somebody else, or others may write to it: `PermissionDenied` that is none of the system's.
pub fn read_own(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let exposed = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    read_if(path, limit, |found| {
        if found.uid() != 0 && found.uid() != nix::unistd::geteuid().as_raw() {
            return exposed(format!("it belongs to user {}", found.uid()));
        }
        if found.mode() & 0o022 != 0 {
            return exposed(format!("others may write to it (mode {:04o})", found.mode() & 0o7777));
        }
        Ok(())
    })
}

/// Reads the last `limit` bytes of a file that may be hostile, or all of a shorter one.
///
/// `Ok(None)` when there is no such file.
///
/// # Errors
/// When it is something else than a regular file.
pub fn read_end(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context("open", path)?,
    };
    let mut read = || {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.seek(io::SeekFrom::Start(found.len().saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        (&mut file).take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(Some).context("read", path)
}

/// The check sees the file that is read, not one that has taken its place since.
fn read_if(
    path: &Path,
    limit: usize,
    check: impl FnOnce(&fs::Metadata) -> io::Result<()>,
) -> Result<Option<Vec<u8>>, Error> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(io::Error::other("it is a symbolic link"));
            }
            opened => opened?,
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        check(&found)?;
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        Ok(Some(bytes))
    };
    read().context("read", path)
}

/// Whether the two paths are on one file system, so that a rename between them works.
pub fn is_same_filesystem(one: &Path, other: &Path) -> Result<bool, Error> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).context("look at", path);
    Ok(device(one)? == device(other)?)
}

/// Refuses a tree in which something is mounted.
pub fn ensure_no_mount(path: &Path) -> Result<(), Error> {
    // What a link leads to is not removed with it.
    if fs::symlink_metadata(path).context("look at", path)?.is_symlink() {
        return Ok(());
    }
    match super::mounts::within(path).context("look at", path)? {
        Some(point) => {
            let why = format!("`{}` is mounted there", crate::types::escaped_path(&point));
            Err(Error::new("remove", path, io::Error::other(why)))
        }
        None => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this is where files are removed")]
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    open::directory(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_changes_is_synced_before_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        let disk = Disk::with_probe(Arc::new(move |change: Change<'_>| {
            told.lock().unwrap().push((change.action, change.path.to_owned()));
            Ok(())
        }));
        let last = |done: Result<(), Error>, name: &str| {
            done.unwrap();
            assert_eq!(asked.lock().unwrap().pop(), Some(("sync the directory of", at(name))));
        };
        last(disk.make_directory(&at("private"), 0o700), "private");
        last(disk.replace(&at("one"), b"1", 0o600), "one");
        disk.prepare_link(Path::new("one"), &at("private/link")).unwrap();
        last(disk.show(&at("private/link"), &at("link"), || ()), "link");
        last(disk.rename(&at("one"), &at("two")), "two");
        last(disk.replace(&at("one"), b"1", 0o600), "one");
        last(disk.exchange(&at("one"), &at("two")), "two");
        last(disk.remove_files(&[at("one"), at("two")]), "two");
        asked.lock().unwrap().clear();
        disk.remove_file(&at("two")).unwrap();
        assert!(asked.lock().unwrap().is_empty(), "what is not there is not removed");
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(read_small(&path, 3).unwrap().is_none());
        Disk::default().replace(&path, b"four", 0o600).unwrap();
        assert!(read_small(&path, 3).unwrap_err().source.to_string().contains("longer"));
        let link = directory.path().join("link");
        Disk::default().point(&link, &path, &directory.path().join("private")).unwrap();
        assert!(read_small(&link, 10).unwrap_err().source.to_string().contains("symbolic link"));
        assert!(read_small(directory.path(), 10).is_err());
    }
}
