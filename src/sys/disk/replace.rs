//! Files that are replaced as a whole: written under a private name beside them, then renamed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Context as _, Disk, Error, remove_if_there};

impl Disk {
    /// Replaces the file `path` by one with these bytes: it has the old content or the new one, never a part.
    pub fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
        self.replace_all(&[(path, bytes)], mode)
    }

    /// The same with files of one directory, in this order, and all are durable at once: whoever finds a later one as it is
    /// now finds those before it as they are now, also after a power cut.
    pub fn replace_all(&self, files: &[(&Path, &[u8])], mode: u32) -> Result<(), Error> {
        self.spending_reserve(|| {
            for (path, bytes) in files {
                self.write_beside(path, bytes, mode, File::sync_all)?;
            }
            files.iter().try_for_each(|(path, _)| self.show_written(path))?;
            files.last().map_or(Ok(()), |(path, _)| self.sync_names(path))
        })
        .inspect_err(|_| files.iter().for_each(|(path, _)| self.forget_written(path)))
    }

    /// Writes what [`Disk::show_written`] will show, under a private name. Not durable: it is so with the file system.
    pub fn write_unsynced(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
        self.spending_reserve(|| self.write_beside(path, bytes, mode, |_| Ok(())))
    }

    /// Replaces the file `path` by what was written for it. Not durable: it is so with the names in its directory.
    pub fn show_written(&self, path: &Path) -> Result<(), Error> {
        self.rename_unsynced(&beside(path), path).inspect_err(|_| self.forget_written(path))
    }

    /// Removes what was written for the file `path` and is not going to be shown. Not durable, and no error if it stays: it
    /// is written over, or swept.
    pub fn forget_written(&self, path: &Path) {
        let private = beside(path);
        drop(
            self.ask("remove", &private).and_then(|()| remove_if_there(&private).context("remove", &private)),
        );
    }

    fn write_beside(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: u32,
        finish: fn(&File) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.ask("write", path)?;
        let private = beside(path);
        let written = (|| {
            remove_if_there(&private)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&private)?;
            file.write_all(bytes)?;
            finish(&file)
        })();
        written.context("write", path).inspect_err(|_| drop(remove_if_there(&private)))
    }
}

/// `<path>.new`, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::errno::Errno;

    use super::super::{Change, read_small};
    use super::*;

    #[test]
    fn a_refused_change_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        Disk::default().replace(&path, b"old", 0o600).unwrap();
        for stop_before in 0..3 {
            let asked = AtomicUsize::new(0);
            let disk = Disk::with_probe(Arc::new(move |_: Change<'_>| {
                if asked.fetch_add(1, Ordering::SeqCst) == stop_before {
                    return Err(Errno::EIO.into());
                }
                Ok(())
            }));
            let error = disk.replace(&path, b"new", 0o600).unwrap_err();
            assert!(error.to_string().starts_with("cannot "), "{error}");
            let wanted: &[u8] = if stop_before < 2 { b"old" } else { b"new" };
            assert_eq!(
                read_small(&path, 100).unwrap().unwrap(),
                wanted,
                "stopped before change {stop_before}"
            );
        }
    }

    #[test]
    fn of_files_that_are_replaced_together_no_later_one_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (one, two) = (at("one"), at("two"));
        let is_new = |path: &Path| read_small(path, 100).unwrap().unwrap() == b"new";
        for stop_before in 0..6 {
            Disk::default().replace_all(&[(&one, b"old"), (&two, b"old")], 0o600).unwrap();
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let disk = Disk::with_probe(Arc::new(move |_: Change<'_>| {
                if count.fetch_add(1, Ordering::SeqCst) == stop_before {
                    return Err(Errno::EIO.into());
                }
                Ok(())
            }));
            let replaced = disk.replace_all(&[(&one, b"new"), (&two, b"new")], 0o600);
            assert_eq!(replaced.is_ok(), stop_before == 5, "stopped before change {stop_before}");
            assert_eq!((is_new(&one), is_new(&two)), (stop_before > 2, stop_before > 3), "{stop_before}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "{stop_before}");
            if stop_before == 5 {
                assert_eq!(asked.load(Ordering::SeqCst), 5, "two writes, two renames, one sync");
            }
        }
    }
}
