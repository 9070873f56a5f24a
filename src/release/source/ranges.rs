//! Reading parts of a file that may be near or far: what staging needs of a source, and no more.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::sys::disk::Context as _;
use crate::sys::kernel::file::file_system_kind;

/// A file of which any part can be read.
pub trait Ranges: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Reads `length` bytes from `start` on. The reader yields exactly so many bytes, or an error.
    ///
    /// # Errors
    /// When the range does not lie within the file, or the source does not answer.
    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error>;

    /// Whether reading costs more than a disk of this machine: then what was read is worth keeping.
    fn is_far(&self) -> bool {
        false
    }

    /// Whether a part costs about its own length. Where it does not (a server that only gives whole files), fetch the
    /// whole into a private file first and read the parts of that.
    fn has_ranges(&self) -> bool {
        true
    }
}

/// A file on a mounted file system.
#[derive(Clone, Debug)]
pub struct LocalFile {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
}

impl LocalFile {
    /// Takes an open regular file; `path` is for messages.
    ///
    /// # Errors
    /// When its size cannot be read.
    pub fn new(file: File, path: &Path) -> Result<Self, Error> {
        let size = file.metadata().context("look at", path)?.len();
        Ok(Self { file: Arc::new(file), path: path.to_owned(), size })
    }
}

impl Ranges for LocalFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_far(&self) -> bool {
        // linux/magic.h: NFS, CIFS, SMB2, CEPH, FUSE, 9P, AFS
        const FAR: [u64; 7] =
            [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x6573_5546, 0x0102_1997, 0x5346_414f];
        nix::sys::statfs::fstatfs(&*self.file).is_ok_and(|found| FAR.contains(&file_system_kind(&found)))
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        if start.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(Error::OutOfRange { path: self.path.clone(), start, length, size: self.size });
        }
        Ok(Box::new(Part { file: Arc::clone(&self.file), at: start, left: length }))
    }
}

impl<R: Ranges + ?Sized> Ranges for &R {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn is_far(&self) -> bool {
        (**self).is_far()
    }

    fn has_ranges(&self) -> bool {
        (**self).has_ranges()
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        (**self).read_range(start, length)
    }
}

impl Ranges for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        let end = start.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let part = end.and_then(|end| self.get(usize::try_from(start).ok()?..end));
        let size = self.size();
        let part = part.ok_or(Error::OutOfRange { path: "memory".into(), start, length, size })?;
        Ok(Box::new(io::Cursor::new(part.to_vec())))
    }
}

struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if got == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_range_is_read_whole_or_not_at_all() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let local = LocalFile::new(file.reopen().unwrap(), file.path()).unwrap();
        let mut text = String::new();
        local.read_range(3, 4).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
        assert!(local.read_range(8, 3).is_err());
        assert!(local.read_range(u64::MAX, 2).is_err());
        file.as_file().set_len(5).unwrap();
        assert!(local.read_range(3, 4).unwrap().read_to_end(&mut Vec::new()).is_err());
    }
}
