//! A file that is being written.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Meta;
use super::writer::finish;
use crate::sys::disk::{Context, Error};

/// A new file; without [`NewFile::finish`] it has neither its time nor, perhaps, its owner and mode.
pub struct NewFile {
    file: File,
    path: PathBuf,
    set_owner: bool,
    set_mode: bool,
    /// The end of what has been written.
    end: u64,
}

impl NewFile {
    pub(super) fn new(file: File, path: PathBuf, set_owner: bool, set_mode: bool) -> Self {
        Self { file, path, set_owner, set_mode, end: 0 }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all these bytes at an offset; what no call wrote is a hole.
    pub fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_all_at(bytes, offset).context("write", &self.path)?;
        self.end = self.end.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Gives the file its size, metadata and time.
    pub fn finish(self, size: u64, meta: &Meta<'_>) -> Result<(), Error> {
        if self.end < size {
            self.file.set_len(size).context("write", &self.path)?;
        }
        finish(&self.file, meta, self.set_owner, self.set_mode).context("finish", &self.path)
    }
}

impl AsFd for NewFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
