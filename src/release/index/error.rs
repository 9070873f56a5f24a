//! Why an indexed archive is refused or cannot be read.

use std::io;

use crate::release::source;
use crate::sys::disk;
use crate::types::{Digest, escaped};

/// An indexed archive that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It breaks a rule of the format. `part` is the index, a page, a frame…
    #[error("{part} breaks a rule of the format: {rule}")]
    Malformed { part: &'static str, rule: &'static str },
    /// Bytes are not those that were signed.
    #[error("{part} is not what was published: its digest is {found}, not {wanted}")]
    Digest { part: &'static str, found: Digest, wanted: Digest },
    /// The archive's own headers tell another story than its index.
    #[error("the archive and its index differ at `{}`: {rule}", escaped(.path))]
    Differs { path: Vec<u8>, rule: &'static str },
    /// An entry breaks a rule.
    #[error("entry `{}` is refused: {rule}", escaped(.path))]
    Entry { path: Vec<u8>, rule: &'static str },
    /// The bytes could not be had.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The source does not give them.
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

impl Error {
    /// What went wrong while a part was read.
    pub(super) fn reading(error: io::Error) -> Self {
        match error.downcast::<source::Error>() {
            Ok(error) => Self::Source(error),
            Err(error) => Self::Read(error),
        }
    }
}

/// A rule of the format that a part breaks.
pub(super) fn malformed(part: &'static str, rule: &'static str) -> Error {
    Error::Malformed { part, rule }
}
