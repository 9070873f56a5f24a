//! A source that is a directory, local or mounted.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Before, Error, Item, LocalFile, Of, Ranges, Sink, Source, Upload};
use crate::release::exclusive::{self, Exclusive};
use crate::sys::disk::{Context as _, Disk};
use crate::types::{Digest, escaped_path};

/// A file that is replaced only if it is what it was may not be longer.
const REPLACED_BYTES_MAX: usize = 1 << 20;

/// A directory of releases. Others may write there while it is read.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn open(&self, item: Item<'_>) -> Result<Option<(File, String)>, Error> {
        item.check()?;
        let path = self.path.join(item.name);
        let what = escaped_path(&path);
        match open_regular(&path) {
            Ok(file) => Ok(Some((file, what))),
            // A missing directory is more likely one that is not mounted than one without releases.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.is_dir() => Ok(None),
            Err(source) => Err(Error::Read { what, source }),
        }
    }
}

/// Opens a regular file without following a link in its last place, and without waiting for a writer.
pub(in crate::release) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"));
        }
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Reads to the end, at most `limit` bytes.
pub(super) fn read_bounded(reader: impl Read, limit: usize, what: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(4096);
    let read = reader.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read { what: what.to_owned(), source })?;
    if bytes.len() > limit {
        return Err(Error::TooLong { what: what.to_owned(), limit: limit as u64 });
    }
    Ok(bytes)
}

impl Source for Directory {
    fn place(&self) -> String {
        escaped_path(&self.path)
    }

    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, what)) = self.open(item)? else { return Ok(None) };
        read_bounded(file, limit, &what).map(Some)
    }

    fn archive(&self, item: Item<'_>, _: u64) -> Result<Box<dyn Ranges>, Error> {
        let path = self.path.join(item.name);
        let (file, _) = self.open(item)?.ok_or_else(|| Error::Missing(escaped_path(&path)))?;
        Ok(Box::new(LocalFile::new(file, &path)?))
    }
}

impl Sink for Directory {
    fn put(&self, of: Of<'_>, files: &[Upload<'_>]) -> Result<(), Error> {
        files.iter().try_for_each(|file| Item { of, name: file.name }.check())?;
        let disk = Disk::default();
        // Others may bring something here at the same time, under the same names.
        let _lock = Exclusive::of_publishers(&disk, &self.path).map_err(|error| match error {
            exclusive::Error::Taken(path) => Error::Overtaken(escaped_path(&path)),
            exclusive::Error::Disk(error) => Error::Disk(error),
        })?;
        for file in files.iter().filter(|file| file.before != Before::Any) {
            let there = self.small(Item { of, name: file.name }, REPLACED_BYTES_MAX)?;
            file.before
                .check(there.as_deref().map(Digest::of), || escaped_path(&self.path.join(file.name)))?;
        }
        for file in files {
            let path = self.path.join(file.name);
            let private = self.path.join(format!(".{}.part", file.name));
            // One that was left by a process that was killed may be another user's.
            disk.remove_file(&private)?;
            if let Err(error) = write(file, &private) {
                // What went wrong is the one to tell.
                drop(disk.remove_file(&private));
                return Err(error);
            }
            disk.rename(&private, &path)?;
            disk.sync_names(&path)?;
        }
        Ok(())
    }
}

/// Writes a whole file, on disk when this returns, if it has the digest that it must have.
fn write(file: &Upload<'_>, path: &Path) -> Result<(), Error> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let mut to = options.open(path).context("write", path)?;
    let mut from = file.content.read_range(0, file.content.size())?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = from.read(&mut buffer).map_err(|error| Error::reading(file.name, error))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read]).context("write", path)?;
    }
    let found = Digest::from(hasher);
    if found != file.sha256 {
        return Err(Error::Digest { found, signed: file.sha256 });
    }
    Ok(to.sync_all().context("write", path)?)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    fn item(name: &str) -> Item<'_> {
        Item { of: Of::Release("1"), name }
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let source = Directory::new(directory.path());
        std::io::Write::write_all(&mut File::create(path("file")).unwrap(), b"12345").unwrap();
        nix::unistd::symlinkat(&path("file"), nix::fcntl::AT_FDCWD, &path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        nix::unistd::mkdir(&path("directory"), Mode::from_bits_truncate(0o700)).unwrap();

        assert_eq!(source.small(item("file"), 5).unwrap().unwrap(), b"12345");
        assert!(matches!(source.small(item("file"), 4), Err(Error::TooLong { .. })));
        assert!(source.small(item("absent"), 4).unwrap().is_none());
        for name in ["link", "fifo", "directory"] {
            assert!(matches!(source.small(item(name), 5), Err(Error::Read { .. })), "{name}");
            assert!(source.archive(item(name), 10).is_err(), "{name}");
        }
        for name in ["../file", "/etc/passwd", "", ".", "a/b"] {
            assert!(matches!(source.small(item(name), 5), Err(Error::Name(_))), "{name}");
        }
        let unmounted = Directory::new(path("nowhere"));
        assert!(unmounted.small(item("file"), 5).is_err());
    }

    #[test]
    fn parts_of_a_file_are_exact() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        std::io::Write::write_all(&mut File::create(path).unwrap(), b"0123456789").unwrap();
        let archive = Directory::new(directory.path()).archive(item("a.tar"), 10).unwrap();
        assert_eq!(archive.size(), 10);
        let mut text = String::new();
        archive.read_range(3, 4).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
        assert!(matches!(archive.read_range(8, 4), Err(Error::OutOfRange { .. })));
    }
}
