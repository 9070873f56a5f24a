//! Files that nobody but root (or the caller) can have written: configuration, trusted keys, hooks.
//!
//! A path is followed component by component from `/`. What holds for each of them, and for the file itself:
//! it belongs to root or to the caller, and neither its group nor others may write to it. A directory that others may
//! write to is accepted if it is sticky, like `/tmp`: what belongs to us in there can be neither exchanged nor removed.
//! Links on the way are followed if they pass the same checks; the file itself must not be one.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::sys::disk::{self, Context as _};
use crate::types::escaped_path;

/// Links that are followed on the way to one file.
const LINKS_MAX: usize = 40;

/// A file that somebody else could have written, or that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It belongs to somebody else.
    #[error("`{}` belongs to user {uid}: it must belong to root or to the user who runs cutover", escaped_path(.path))]
    Owner {
        /// The file, or the directory on the way to it.
        path: PathBuf,
        uid: u32,
    },
    #[error("`{}` can be written by others (mode {mode:04o}): run `chmod go-w` on it", escaped_path(.path))]
    Writable {
        /// The file, or the directory on the way to it.
        path: PathBuf,
        mode: u32,
    },
    /// It is not what it must be.
    #[error("`{}` is not {wanted}", escaped_path(.path))]
    Not { path: PathBuf, wanted: &'static str },
    /// There are too many links on the way.
    #[error("there are more than {LINKS_MAX} links on the way to `{}`", escaped_path(.0))]
    Links(PathBuf),
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// Opens a regular file that is [owned](self). `Ok(None)` when there is none.
pub fn open(path: &Path) -> Result<Option<File>, Error> {
    let Some(real) = resolve(path, Last::File)? else { return Ok(None) };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(&real).context("open", path)?;
    let found = file.metadata().context("look at", path)?;
    if !found.is_file() {
        return Err(Error::Not { path: path.to_owned(), wanted: "a regular file" });
    }
    check(&real, &found)?;
    Ok(Some(file))
}

/// Reads an [owned](self) file of at most `limit` bytes. `Ok(None)` when there is none.
pub fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(4096);
    file.take(limit as u64 + 1).read_to_end(&mut bytes).context("read", path)?;
    if bytes.len() > limit {
        let too_long = io::Error::other(format!("it is longer than {limit} bytes"));
        return Err(disk::Error::new("read", path, too_long).into());
    }
    Ok(Some(bytes))
}

/// The names in an [owned](self) directory, sorted. `Ok(None)` when there is none.
pub fn list(path: &Path) -> Result<Option<Vec<OsString>>, Error> {
    let Some(real) = directory(path)? else { return Ok(None) };
    let mut names = Vec::new();
    for entry in fs::read_dir(&real).context("list", path)? {
        names.push(entry.context("list", path)?.file_name());
    }
    names.sort();
    Ok(Some(names))
}

/// Where an [owned](self) directory really is, without links. `Ok(None)` when there is none.
pub fn directory(path: &Path) -> Result<Option<PathBuf>, Error> {
    let Some(real) = resolve(path, Last::Directory)? else { return Ok(None) };
    if fs::symlink_metadata(&real).context("look at", path)?.is_dir() {
        Ok(Some(real))
    } else {
        Err(Error::Not { path: path.to_owned(), wanted: "a directory" })
    }
}

/// What a path leads to. A directory may be reached by a link; a file may not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    File,
    Directory,
}

/// The path without links, after each component has been checked.
fn resolve(path: &Path, last: Last) -> Result<Option<PathBuf>, Error> {
    let absolute = std::path::absolute(path).context("resolve", path)?;
    let mut left: VecDeque<PathBuf> = parts(&absolute).collect();
    let mut real = PathBuf::from("/");
    let mut links = 0;
    check(&real, &fs::symlink_metadata(&real).context("look at", &real)?)?;
    while let Some(part) = left.pop_front() {
        if part.as_os_str() == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        let found = match fs::symlink_metadata(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.context("look at", &next)?,
        };
        if !found.is_symlink() {
            check(&next, &found)?;
            real = next;
            continue;
        }
        if left.is_empty() && last == Last::File {
            return Err(Error::Not { path: next, wanted: "a regular file, but a symbolic link" });
        }
        check_owner(&next, &found)?;
        links += 1;
        if links > LINKS_MAX {
            return Err(Error::Links(path.to_owned()));
        }
        let target = fs::read_link(&next).context("read the link", &next)?;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(Some(real))
}

fn parts(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check(path: &Path, found: &Metadata) -> Result<(), Error> {
    check_owner(path, found)?;
    let mode = found.mode() & 0o7777;
    let is_sticky = found.is_dir() && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !is_sticky {
        return Err(Error::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), Error> {
    let uid = found.uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        Ok(())
    } else {
        Err(Error::Owner { path: path.to_owned(), uid })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::disk::Disk;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_could_have_written_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let inner = directory.path().join("keys");
        disk.make_directory(&inner, 0o755).unwrap();
        let file = inner.join("a.pub");
        disk.replace(&file, b"key", 0o644).unwrap();
        assert_eq!(read(&file, 3).unwrap().unwrap(), b"key");
        assert!(read(&file, 2).is_err());
        assert!(read(&inner.join("b.pub"), 3).unwrap().is_none());
        assert!(read(&directory.path().join("absent/b.pub"), 3).unwrap().is_none());
        assert!(matches!(read(&inner, 3), Err(Error::Not { .. })));
        assert_eq!(list(&inner).unwrap().unwrap(), ["a.pub"]);
        assert!(list(&directory.path().join("absent")).unwrap().is_none());
        assert!(list(&file).is_err());

        mode(&file, 0o664);
        assert!(matches!(read(&file, 3), Err(Error::Writable { mode: 0o664, .. })));
        mode(&file, 0o644);
        mode(&inner, 0o777);
        assert!(matches!(read(&file, 3), Err(Error::Writable { mode: 0o777, .. })));
        assert!(matches!(list(&inner), Err(Error::Writable { .. })));
        mode(&inner, 0o755);
        assert!(read(&file, 3).is_ok());
    }

    #[test]
    fn a_link_may_lead_to_the_directory_but_not_be_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let at = |name: &str| directory.path().join(name);
        disk.make_directory(&at("real"), 0o755).unwrap();
        disk.replace(&at("real/a.pub"), b"key", 0o644).unwrap();
        disk.point(&at("link"), Path::new("real"), &at("new")).unwrap();
        disk.point(&at("real/b.pub"), Path::new("a.pub"), &at("new")).unwrap();
        disk.point(&at("loop"), Path::new("loop"), &at("new")).unwrap();
        assert_eq!(read(&at("link/a.pub"), 9).unwrap().unwrap(), b"key");
        assert_eq!(list(&at("link")).unwrap().unwrap(), ["a.pub", "b.pub"]);
        assert!(matches!(read(&at("link/b.pub"), 9), Err(Error::Not { .. })));
        assert!(matches!(read(&at("loop/a"), 9), Err(Error::Links(_))));
    }

    #[test]
    fn a_file_of_somebody_else_is_not_read() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED a_file_of_somebody_else_is_not_read: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.pub");
        Disk::default().replace(&file, b"key", 0o644).unwrap();
        std::os::unix::fs::chown(&file, Some(1234), None).unwrap();
        assert!(matches!(read(&file, 9), Err(Error::Owner { uid: 1234, .. })));
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        std::os::unix::fs::chown(directory.path(), Some(1234), None).unwrap();
        assert!(matches!(read(&file, 9), Err(Error::Owner { uid: 1234, .. })));
    }
}
