//! Where releases come from.

pub mod ranges;

pub use ranges::{LocalFile, Ranges};

use std::path::PathBuf;

use crate::sys::disk;
use crate::types::escaped_path;

/// A source that does not give what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part was asked for that the file does not have.
    #[error("cannot read {length} bytes at {start} of `{}`: it has {size} bytes", escaped_path(.path))]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// First byte asked for.
        start: u64,
        /// How many bytes.
        length: u64,
        /// How many it has.
        size: u64,
    },
    /// The machine refused.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}
