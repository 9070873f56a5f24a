//! Copies and measures data by descriptors: no link is ever followed, whoever may write to the data, and nothing is
//! looked at beyond a border to another mount or subvolume.
//!
//! Copied are content (sharing blocks where the file system can), holes, modes, owners, times, extended attributes, flags
//! (`chattr`), projects (quota), links and hard links. Sockets are left out: their programs make them anew.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, linkat, lseek, symlinkat};
use xattr::FileExt as _;

use super::leave::Leave;
use super::parent_of;
use crate::sys::disk::{self, Context as _};
use crate::sys::inode::{self, Inode, names};
use crate::sys::{access_list, kernel::file};

/// How deep directories may be in each other: each level costs descriptors.
pub(super) const DEPTH_MAX: usize = 200;
/// linux/fs.h: FS_NOCOW_FL. Blocks can be shared only between two files that both have it, or both have not.
const NO_COPY_ON_WRITE: i32 = 0x0080_0000;
/// linux/fs.h: FS_SYNC_FL, FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NODUMP_FL, FS_NOATIME_FL, FS_DIRSYNC_FL
pub(super) const KEPT_FLAGS: i32 = 0x08 | 0x10 | 0x20 | 0x40 | 0x80 | 0x1_0000;

/// Copies `from`, a directory or file, to `to`, which must not exist, but for what is left in place. Nothing is synced.
pub fn copy(from: &Path, to: &Path, leave: Leave<'_>) -> Result<(), disk::Error> {
    let (from_parent, from_name) = opened(from)?;
    let (to_parent, to_name) = opened(to)?;
    let top = Path::new(OsStr::from_bytes(to_name.to_bytes()));
    let mut job = Job {
        to: (&to_parent, top),
        links: HashMap::new(),
        flags: Vec::new(),
        depth: 0,
        path: PathBuf::new(),
        leave,
        top: inode::look(&from_parent, &from_name).context("look at", from)?,
    };
    let here = Ends { from: &from_parent, to: &to_parent };
    job.entry(&here, &from_name, &to_name).context_at("copy", || from.join(&job.path))?;
    for (copied, flags) in &job.flags {
        let file = opened_copy(&to_parent, copied).context_at("open", || parent_of(to).join(copied))?;
        // Who is not root may not set all of them.
        drop(file::flags(&file).and_then(|now| file::set_flags(&file, now | flags)));
    }
    Ok(())
}

/// Bytes on disk, holes left out. Zero for what is not there.
pub fn size_bytes(path: &Path) -> Result<u64, disk::Error> {
    let mut total = 0;
    walk(path, &mut |_, found| total += u64::try_from(found.st_blocks).unwrap_or(0) * 512)?;
    Ok(total)
}

/// A number that is another one when anything below `path` was changed, came or went meanwhile.
pub fn fingerprint(path: &Path) -> Result<u64, disk::Error> {
    let mut hasher = DefaultHasher::new();
    walk(path, &mut |name, found| {
        let times = (found.st_mtime, found.st_mtime_nsec, found.st_ctime, found.st_ctime_nsec);
        (name, found.st_ino, found.st_mode, found.st_size, times).hash(&mut hasher);
    })?;
    Ok(hasher.finish())
}

/// The opened parent directory, and the name in it.
fn opened(path: &Path) -> Result<(OwnedFd, CString), disk::Error> {
    inode::open_parent(path).context("open", parent_of(path))
}

/// Opens what was copied, by its path from the directory that holds the copy.
fn opened_copy(parent: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let parent = inode::open_parent_beneath(parent, path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(openat(&parent, path.file_name().unwrap_or_default(), flags, Mode::empty())?)
}

type Visit<'a> = dyn FnMut(&CStr, &FileStat) + 'a;

/// Visits what is at `path`, and all that is in it, up to borders. What is not there, or goes meanwhile, is left out.
fn walk(path: &Path, visit: &mut Visit<'_>) -> Result<(), disk::Error> {
    let (parent, name) = match opened(path) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match inode::look(&parent, &name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        top => top.and_then(|top| walk_from(&parent, &name, 0, &top, visit)).context("look at", path),
    }
}

fn walk_from(
    parent: &OwnedFd,
    name: &CStr,
    depth: usize,
    top: &Inode,
    visit: &mut Visit<'_>,
) -> io::Result<()> {
    let found = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(()),
        found => found?,
    };
    visit(name, &found);
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
        return Ok(());
    }
    let directory = match open_directory(parent, name, depth) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    if depth > 0 && inode::of(&directory)?.border_to(top).is_some() {
        return Ok(());
    }
    for inner in names(&directory)? {
        walk_from(&directory, &inner, depth + 1, top, visit)?;
    }
    Ok(())
}

pub(super) fn open_directory(parent: &OwnedFd, name: &CStr, depth: usize) -> io::Result<OwnedFd> {
    if depth >= DEPTH_MAX {
        return Err(io::Error::other(format!("directories are more than {DEPTH_MAX} deep")));
    }
    inode::open_directory(parent, name)
}

struct Ends<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
}

struct Job<'a> {
    /// The directory that holds the copy, and its name there.
    to: (&'a OwnedFd, &'a Path),
    /// The first copy of each file that has several names, by its path from the directory that holds the copy.
    links: HashMap<(u64, u64), PathBuf>,
    /// Flags that some copies are to have: set last, since they forbid what comes before.
    flags: Vec<(PathBuf, i32)>,
    depth: usize,
    path: PathBuf,
    leave: Leave<'a>,
    /// What is copied must be on its mount and device.
    top: Inode,
}

impl Job<'_> {
    fn entry(&mut self, ends: &Ends<'_>, name: &CStr, new: &CStr) -> io::Result<()> {
        let found = fstatat(ends.from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFDIR => return self.directory(ends, name, new, &found),
            SFlag::S_IFSOCK => return Ok(()),
            _ if self.is_linked(ends, new, &found)? => return Ok(()),
            SFlag::S_IFREG => self.file(ends, name, new, &found)?,
            SFlag::S_IFLNK => {
                let target = readlinkat(ends.from, name)?;
                symlinkat(target.as_os_str(), ends.to, new)?;
                own(ends.to, new, &found)?;
                attributes_of_special(ends, name, new)?;
            }
            SFlag::S_IFIFO => {
                mknodat(ends.to, new, SFlag::S_IFIFO, Mode::S_IRUSR, 0)?;
                own(ends.to, new, &found)?;
                attributes_of_special(ends, name, new)?;
                // Only we write to the copy: no link can have taken its place.
                let mode = Mode::from_bits_truncate(found.st_mode & 0o7777);
                fchmodat(ends.to, new, mode, FchmodatFlags::FollowSymlink)?;
            }
            _ => return Err(io::Error::other("it is a device")),
        }
        times(ends.to, new, &found)
    }

    /// Where the copy of what is being copied is, from the directory that holds the whole.
    fn copy_path(&self) -> PathBuf {
        self.to.1.join(&self.path)
    }

    fn note_flags(&mut self, from: &File) -> io::Result<()> {
        let flags = file::flags(from)? & KEPT_FLAGS;
        if flags != 0 {
            // Directories come after what is in them.
            self.flags.push((self.copy_path(), flags));
        }
        Ok(())
    }

    fn directory(&mut self, ends: &Ends<'_>, name: &CStr, new: &CStr, found: &FileStat) -> io::Result<()> {
        let from = File::from(open_directory(ends.from, name, self.depth)?);
        if self.depth > 0
            && let Some(border) = inode::of(&from)?.border_to(&self.top)
        {
            return Err(io::Error::other(format!("it is {}, and not left in place", border.name())));
        }
        mkdirat(ends.to, new, Mode::S_IRWXU)?;
        let to = File::from(open_directory(ends.to, new, self.depth)?);
        if self.depth == 0 {
            // What its new parents hand on is nothing that the data have.
            access_list::remove(&to)?;
        }
        share_flag(&from, &to)?;
        file::set_project(&to, file::Project::default())?;
        let (from, to) = (OwnedFd::from(from), OwnedFd::from(to));
        self.depth += 1;
        let inner = Ends { from: &from, to: &to };
        for name in names(&from)? {
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            // After an error the path stays as it is: the message names it.
            if !self.leave.is(&self.path) {
                self.entry(&inner, &name, &name)?;
            }
            self.path.pop();
        }
        self.depth -= 1;
        let (from, to) = (File::from(from), File::from(to));
        self.note_flags(&from)?;
        // Not before: nothing of another project could be linked here.
        same_project(&from, &to)?;
        own(ends.to, new, found)?;
        attributes(&from, &to)?;
        fchmod(&to, Mode::from_bits_truncate(found.st_mode & 0o7777))?;
        times(ends.to, new, found)
    }

    /// Links to the copy that was made for another name of the same file.
    fn is_linked(&mut self, ends: &Ends<'_>, new: &CStr, found: &FileStat) -> io::Result<bool> {
        if found.st_nlink < 2 {
            return Ok(false);
        }
        let id = (found.st_dev, found.st_ino);
        if let Some(first) = self.links.get(&id) {
            let parent = inode::open_parent_beneath(self.to.0, first)?;
            linkat(&parent, first.file_name().unwrap_or_default(), ends.to, new, AtFlags::empty())?;
            return Ok(true);
        }
        let path = self.copy_path();
        self.links.insert(id, path);
        Ok(false)
    }

    fn file(&mut self, ends: &Ends<'_>, name: &CStr, new: &CStr, found: &FileStat) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let from = File::from(openat(ends.from, name, flags, Mode::empty())?);
        let metadata = from.metadata()?;
        if metadata.ino() != found.st_ino {
            return Err(io::Error::other("it changes while it is copied"));
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let to = File::from(openat(ends.to, new, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        if self.depth == 0 {
            access_list::remove(&to)?;
        }
        share_flag(&from, &to)?;
        same_project(&from, &to)?;
        match file::clone_file(from.as_fd(), to.as_fd()) {
            Ok(()) => {}
            Err(error) if file::is_unsupported(&error) => content(&from, &to, metadata.len())?,
            Err(error) => return Err(error),
        }
        self.note_flags(&from)?;
        // First the owner: its change takes capabilities and setuid away.
        own(ends.to, new, found)?;
        attributes(&from, &to)?;
        Ok(fchmod(&to, Mode::from_bits_truncate(found.st_mode & 0o7777))?)
    }
}

/// Gives a new file, which is still empty, or a directory the one flag that decides whether blocks can be shared.
fn share_flag(from: &File, to: &File) -> io::Result<()> {
    let (wanted, now) = (file::flags(from)?, file::flags(to)?);
    if (wanted ^ now) & NO_COPY_ON_WRITE == 0 {
        return Ok(());
    }
    let flags = (now & !NO_COPY_ON_WRITE) | (wanted & NO_COPY_ON_WRITE);
    match file::set_flags(to, flags) {
        Err(error) if !file::is_unsupported(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Gives a copy to the project of what it is a copy of, whatever the directory would hand on.
fn same_project(from: &File, to: &File) -> io::Result<()> {
    file::set_project(to, file::project(from)?)
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

pub(super) fn attributes(from: &File, to: &File) -> io::Result<()> {
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

/// Takes off the attributes that `from` has not, access lists among them.
pub(super) fn remove_surplus(from: &File, to: &File) -> io::Result<()> {
    let names = |file: &File| match file.list_xattr() {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        names => names.map(Iterator::collect),
    };
    let wanted: Vec<_> = names(from)?;
    for name in names(to)?.into_iter().filter(|name| !wanted.contains(name)) {
        match to.remove_xattr(&name) {
            // What only root may set, the new release has not set either.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && !nix::unistd::geteuid().is_root() => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// The same for a link or a fifo, which cannot be opened to read: by a descriptor that only names it.
fn attributes_of_special(ends: &Ends<'_>, name: &CStr, new: &CStr) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let [from, to] = [(ends.from, name), (ends.to, new)].map(|(directory, name)| -> io::Result<_> {
        let file = openat(directory, name, flags, Mode::empty())?;
        Ok((PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), file))
    });
    let ((from, _from), (to, _to)) = (from?, to?);
    let names = match xattr::list_deref(&from) {
        // Without `/proc`, too.
        Err(error) if [Some(libc::EOPNOTSUPP), Some(libc::ENOENT)].contains(&error.raw_os_error()) => {
            return Ok(());
        }
        names => names?,
    };
    for name in names {
        if let Some(value) = xattr::get_deref(&from, &name)? {
            xattr::set_deref(&to, &name, &value)?;
        }
    }
    Ok(())
}

pub(super) fn own(directory: &OwnedFd, name: &CStr, found: &FileStat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    match fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // Who is not root owns all copies, as all that can be read is.
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => Ok(()),
        owned => Ok(owned?),
    }
}

pub(super) fn times(directory: &OwnedFd, name: &CStr, found: &FileStat) -> io::Result<()> {
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
        copy(&from, &to, Leave::NOTHING).unwrap();
        assert_eq!(listing(&from), listing(&to));
        let blocks = |path: PathBuf| std::fs::metadata(path).unwrap().blocks();
        assert!(blocks(to.join("hole")) < 100, "holes were filled");
        assert!(size_bytes(&to).unwrap() < 1 << 20);
        Disk::default().remove_data(&to).unwrap();
        assert!(!to.exists());
        Disk::default().remove_data(&to).unwrap();
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
        copy(&from, &directory.path().join("to"), Leave::NOTHING).unwrap();
        assert!(directory.path().join("to/a").is_symlink());
        disk.remove_data(&from).unwrap();
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
        copy(&data, &directory.path().join("to"), Leave::NOTHING).unwrap();
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
        let error = copy(&from, &directory.path().join("to"), Leave::NOTHING).unwrap_err();
        assert!(error.path.ends_with("from/x"), "{error}");
    }
}
