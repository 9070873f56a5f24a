//! Copies, measures and removes data by descriptors: no link is ever followed, whoever may write to the data.
//!
//! Copied are content (sharing blocks where the file system can), holes, modes, owners, times, extended attributes, links
//! and hard links. Sockets are left out: their programs make them anew.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, Whence, fchownat, linkat, lseek, symlinkat, unlinkat};
use xattr::FileExt as _;

use crate::sys::disk::{self, Context as _};
use crate::sys::ioctl;

/// How deep directories may be in each other: each level costs descriptors.
const DEPTH_MAX: usize = 200;

/// Copies `from`, a directory or file, to `to`, which must not exist. Nothing is synced.
pub fn copy(from: &Path, to: &Path) -> Result<(), disk::Error> {
    let (from_parent, from_name) = opened(from)?;
    let (to_parent, to_name) = opened(to)?;
    let mut links = HashMap::new();
    let mut job = Job { links: &mut links, depth: 0, path: PathBuf::new(), to };
    let here = Place { from: &from_parent, to: &to_parent };
    job.entry(&here, &from_name, &to_name).context("copy", &from.join(&job.path))
}

/// Bytes that a copy would take, holes left out. Zero for what is not there.
pub fn size_bytes(path: &Path) -> Result<u64, disk::Error> {
    let (parent, name) = match opened(path) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut total = 0;
    walk(&parent, &name, 0, &mut |_, _, found, is_after| {
        if !is_after {
            total += u64::try_from(found.st_blocks).unwrap_or(0) * 512;
        }
        Ok(())
    })
    .context("measure", path)?;
    Ok(total)
}

/// A number that is another one when anything below `path` was changed, came or went meanwhile.
pub fn fingerprint(path: &Path) -> Result<u64, disk::Error> {
    let (parent, name) = opened(path)?;
    let mut hasher = DefaultHasher::new();
    walk(&parent, &name, 0, &mut |_, name, found, is_after| {
        if !is_after {
            let times = (found.st_mtime, found.st_mtime_nsec, found.st_ctime, found.st_ctime_nsec);
            (name, found.st_ino, found.st_mode, found.st_size, times).hash(&mut hasher);
        }
        Ok(())
    })
    .context("look at", path)?;
    Ok(hasher.finish())
}

/// Removes a tree, a file or a subvolume of btrfs. What is not there is no error. Not durable.
pub fn remove(path: &Path) -> Result<(), disk::Error> {
    if ioctl::is_subvolume(path).unwrap_or(false) && ioctl::delete_subvolume(path).is_ok() {
        return Ok(());
    }
    let (parent, name) = opened(path)?;
    walk(&parent, &name, 0, &mut |directory, name, found, is_after| {
        let flag = match (is_directory(found), is_after) {
            (true, false) => return Ok(()),
            (true, true) => UnlinkatFlags::RemoveDir,
            (false, _) => UnlinkatFlags::NoRemoveDir,
        };
        Ok(unlinkat(directory, name, flag)?)
    })
    .context("remove", path)
}

/// The opened parent directory, and the name in it.
fn opened(path: &Path) -> Result<(OwnedFd, CString), disk::Error> {
    let name = path.file_name().unwrap_or_default();
    let parent = File::open(super::parent_of(path)).context("open", super::parent_of(path))?;
    let name = CString::new(name.as_bytes()).map_err(io::Error::other).context("open", path)?;
    Ok((parent.into(), name))
}

fn is_directory(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

type Visit<'a> = dyn FnMut(&OwnedFd, &CStr, &FileStat, bool) -> io::Result<()> + 'a;

/// Visits an entry, and a directory's entries: directories twice, before and after.
fn walk(parent: &OwnedFd, name: &CStr, depth: usize, visit: &mut Visit<'_>) -> io::Result<()> {
    let found = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(()),
        found => found?,
    };
    visit(parent, name, &found, false)?;
    if is_directory(&found) {
        let directory = open_directory(parent, name, depth)?;
        for inner in names(&directory)? {
            walk(&directory, &inner, depth + 1, visit)?;
        }
        visit(parent, name, &found, true)?;
    }
    Ok(())
}

fn open_directory(parent: &OwnedFd, name: &CStr, depth: usize) -> io::Result<OwnedFd> {
    if depth >= DEPTH_MAX {
        return Err(io::Error::other(format!("directories are more than {DEPTH_MAX} deep")));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory.try_clone()?)?.iter() {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

struct Place<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
}

struct Job<'a> {
    /// The first copy of each file that has several names.
    links: &'a mut HashMap<(u64, u64), PathBuf>,
    depth: usize,
    /// What is being copied, for the message.
    path: PathBuf,
    to: &'a Path,
}

impl Job<'_> {
    fn entry(&mut self, place: &Place<'_>, name: &CStr, new: &CStr) -> io::Result<()> {
        let found = fstatat(place.from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFDIR => return self.directory(place, name, new, &found),
            SFlag::S_IFREG => {
                if self.is_linked(place, new, &found)? {
                    return Ok(());
                }
                file(place, name, new, &found)?;
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(place.from, name)?;
                symlinkat(target.as_os_str(), place.to, new)?;
                own(place.to, new, &found)?;
            }
            SFlag::S_IFIFO => {
                mknodat(place.to, new, SFlag::S_IFIFO, Mode::from_bits_truncate(found.st_mode & 0o7777), 0)?;
                own(place.to, new, &found)?;
            }
            SFlag::S_IFSOCK => return Ok(()),
            _ => return Err(io::Error::other("it is a device")),
        }
        times(place.to, new, &found)
    }

    fn directory(&mut self, place: &Place<'_>, name: &CStr, new: &CStr, found: &FileStat) -> io::Result<()> {
        let from = open_directory(place.from, name, self.depth)?;
        mkdirat(place.to, new, Mode::S_IRWXU)?;
        let to = open_directory(place.to, new, self.depth)?;
        self.depth += 1;
        let inner = Place { from: &from, to: &to };
        for name in names(&from)? {
            self.path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
            // After an error the path stays as it is: the message names it.
            self.entry(&inner, &name, &name)?;
            self.path.pop();
        }
        self.depth -= 1;
        let (from, to) = (File::from(from), File::from(to));
        attributes(&from, &to)?;
        own(place.to, new, found)?;
        fchmod(&to, Mode::from_bits_truncate(found.st_mode & 0o7777))?;
        times(place.to, new, found)
    }

    /// Links to the copy that was made for another name of the same file.
    fn is_linked(&mut self, place: &Place<'_>, new: &CStr, found: &FileStat) -> io::Result<bool> {
        if found.st_nlink < 2 {
            return Ok(false);
        }
        let id = (found.st_dev, found.st_ino);
        if let Some(first) = self.links.get(&id) {
            // Only we write to the copy: its paths can be trusted.
            linkat(AT_FDCWD, first.as_path(), place.to, new, AtFlags::empty())?;
            return Ok(true);
        }
        let is_top = self.path.as_os_str().is_empty();
        self.links.insert(id, if is_top { self.to.to_owned() } else { self.to.join(&self.path) });
        Ok(false)
    }
}

fn file(place: &Place<'_>, name: &CStr, new: &CStr, found: &FileStat) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let from = File::from(openat(place.from, name, flags, Mode::empty())?);
    let metadata = from.metadata()?;
    if metadata.ino() != found.st_ino {
        return Err(io::Error::other("it changes while it is copied"));
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let to = File::from(openat(place.to, new, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    match ioctl::clone_file(from.as_fd(), to.as_fd()) {
        Ok(()) => {}
        Err(error) if ioctl::is_unsupported(&error) => content(&from, &to, metadata.len())?,
        Err(error) => return Err(error),
    }
    attributes(&from, &to)?;
    own(place.to, new, found)?;
    // After the owner, whose change takes setuid away.
    Ok(fchmod(&to, Mode::from_bits_truncate(found.st_mode & 0o7777))?)
}

/// Copies what is between the holes.
fn content(from: &File, to: &File, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    let mut at: i64 = 0;
    loop {
        let begin = match lseek(from, at, Whence::SeekData) {
            Ok(begin) => begin,
            // No data after this.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = lseek(from, begin, Whence::SeekHole)?;
        let (mut position, end_bytes) = (unsigned(begin)?, unsigned(end)?);
        while position < end_bytes {
            let wanted = usize::try_from(end_bytes - position).unwrap_or(usize::MAX).min(buffer.len());
            let count = from.read_at(&mut buffer[..wanted], position)?;
            if count == 0 {
                break;
            }
            to.write_all_at(&buffer[..count], position)?;
            position += count as u64;
        }
        at = end;
    }
    to.set_len(length)
}

fn unsigned(offset: i64) -> io::Result<u64> {
    u64::try_from(offset).map_err(io::Error::other)
}

fn attributes(from: &File, to: &File) -> io::Result<()> {
    let names = match from.list_xattr() {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names {
        if let Some(value) = from.get_xattr(&name)? {
            to.set_xattr(&name, &value)?;
        }
    }
    Ok(())
}

fn own(directory: &OwnedFd, name: &CStr, found: &FileStat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    match fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // Who is not root owns all copies, as all that can be read is.
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => Ok(()),
        owned => Ok(owned?),
    }
}

fn times(directory: &OwnedFd, name: &CStr, found: &FileStat) -> io::Result<()> {
    let accessed = TimeSpec::new(found.st_atime, found.st_atime_nsec);
    let modified = TimeSpec::new(found.st_mtime, found.st_mtime_nsec);
    Ok(utimensat(directory, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::sys::disk::Disk;

    fn listing(path: &Path) -> String {
        let script =
            "find . -printf '%P %y %m %U %G %s %T@ %l %n\\n' | sort; find . -type f | sort | xargs cat";
        let output = Command::new("sh").args(["-c", script]).current_dir(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_copy_is_the_same_in_everything() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let script = "mkdir -p from/a/b from/empty; cd from; echo text >a/b/file; ln a/b/file a/again; \
             ln -s ../nowhere link; mkfifo pipe; truncate -s 5M hole; echo end >>hole; chmod 4750 a/b/file; \
             chmod 1777 empty; touch -d '2001-02-03 04:05:06.789' a/b a link hole pipe .";
        assert!(
            Command::new("sh").args(["-c", script]).current_dir(directory.path()).status().unwrap().success()
        );
        copy(&from, &to).unwrap();
        assert_eq!(listing(&from), listing(&to));
        let blocks = |path: PathBuf| std::fs::metadata(path).unwrap().blocks();
        assert!(blocks(to.join("hole")) < 100, "holes were filled");
        assert!(size_bytes(&to).unwrap() < 1 << 20);
        remove(&to).unwrap();
        assert!(!to.exists());
        remove(&to).unwrap();
        assert_eq!(size_bytes(&to).unwrap(), 0);
    }

    #[test]
    fn a_directory_that_became_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let secret = directory.path().join("secret");
        disk.make_directory(&secret, 0o755).unwrap();
        disk.replace(&secret.join("key"), b"key", 0o600).unwrap();
        let from = directory.path().join("from");
        disk.make_directory(&from, 0o755).unwrap();
        disk.point(&from.join("a"), &secret, &from.join("new")).unwrap();
        copy(&from, &directory.path().join("to")).unwrap();
        assert!(directory.path().join("to/a").is_symlink());
        remove(&from).unwrap();
        assert!(secret.join("key").exists());
    }

    #[test]
    fn a_fingerprint_tells_of_any_change() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let data = directory.path().join("data");
        disk.make_directory(&data, 0o755).unwrap();
        disk.replace(&data.join("a"), b"1", 0o600).unwrap();
        let before = fingerprint(&data).unwrap();
        copy(&data, &directory.path().join("to")).unwrap();
        assert_eq!(fingerprint(&data).unwrap(), before, "to read is no change");
        disk.append(&data.join("a"), b"2", 0o600).unwrap();
        assert_ne!(fingerprint(&data).unwrap(), before);
    }

    #[test]
    fn the_message_names_what_cannot_be_copied() {
        if nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED the_message_names_what_cannot_be_copied: root reads everything");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        Disk::default().make_directory(&from, 0o755).unwrap();
        Disk::default().replace(&from.join("x"), b"", 0o000).unwrap();
        std::fs::set_permissions(from.join("x"), std::fs::Permissions::from_mode(0o000)).unwrap();
        let error = copy(&from, &directory.path().join("to")).unwrap_err();
        assert!(error.path.ends_with("from/x"), "{error}");
    }
}
