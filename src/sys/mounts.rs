//! What is mounted below a directory: a tree is never removed through a mount, whose content is somebody else's.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A place within `path`, or `path` itself, where something is mounted. Without `/proc` none is known.
///
/// # Errors
/// When the mounts cannot be read.
pub fn within(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(all_within(path)?.into_iter().next())
}

/// All places within `path`, or `path` itself, where something is mounted.
///
/// # Errors
/// When the mounts cannot be read.
pub fn all_within(path: &Path) -> io::Result<Vec<PathBuf>> {
    // The table has the kernel's own paths: no links, however somebody has written this one.
    let real = fs::canonicalize(path)?;
    match fs::read("/proc/self/mountinfo") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(table) => Ok(points(&table).filter(|point| point.starts_with(&real)).collect()),
    }
}

/// Device and inode of all files that are swap space now: they can be neither cloned nor be in a snapshot.
pub fn swap_files() -> Vec<(u64, u64)> {
    let table = fs::read("/proc/swaps").unwrap_or_default();
    let paths =
        table.split(|byte| *byte == b'\n').skip(1).filter_map(|line| line.split(|byte| *byte == b' ').next());
    let found = paths.filter_map(|word| fs::symlink_metadata(OsString::from_vec(unescaped(word))).ok());
    found.map(|found| (found.dev(), found.ino())).collect()
}

/// The mount points of a table in the form of proc_pid_mountinfo(5): the fifth word, with blanks written in octal.
fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let words = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    words.map(|word| OsString::from_vec(unescaped(word)).into())
}

pub(super) fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_odd_names() {
        let table =
            b"36 35 98:0 / /srv/shop rw - ext4 /dev/x rw\n37 36 0:3 / /srv/a\\040b\\134c rw - tmpfs t rw\n\n";
        let found: Vec<_> = points(table).collect();
        assert_eq!(found, [PathBuf::from("/srv/shop"), PathBuf::from("/srv/a b\\c")]);
        assert_eq!(within(Path::new("/proc")).unwrap(), Some("/proc".into()));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(within(empty.path()).unwrap(), None);
    }
}
