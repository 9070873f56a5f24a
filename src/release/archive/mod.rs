//! Ordinary archives: `.tar`, `.tar.gz` and `.tar.zst` of anybody's tar, read strictly.
//!
//! ```text
//! stream   file → bytes of the tar, whatever the compression, to the very end;  ahead: in a thread of its own
//! header   one block;  pax: extended headers;  sparse: maps of holes;  name: names
//! ledger   what the archive made so far: duplicates, parents, link targets, limits
//! reader   all of it together: one member after the other, each checked
//! ```
//! An archive is accepted as a whole or refused as a whole. What tars read differently is refused; what today's tars
//! write by default is accepted. Nothing here writes: a [`Reader`] can be run to its end to judge an archive before
//! the first byte is unpacked, which is what [`measure`] does.

mod ahead;
mod header;
mod ledger;
mod name;
mod pax;
mod reader;
mod refusal;
mod settings;
mod sparse;
mod stream;

use std::io::Read;

pub use ledger::{Admitted, Ledger, Node, NodeKind};
pub use reader::{Member, MemberKind, Reader};
pub use refusal::{Error, Refusal, Rule};
pub use settings::Settings;
pub use sparse::Span;

use crate::sys::wall;

/// The longest extended header, in bytes.
pub const EXTENDED_MAX: u64 = 1 << 20;
/// The longest path and link target, in bytes.
pub const PATH_MAX: usize = 4095;
/// The longest component of a path, in bytes.
pub const COMPONENT_MAX: usize = 255;
/// The seconds that ext4 and xfs keep: from 1901 to 2446. Not the first and the last of them: kernels drop their
/// nanoseconds.
pub const TIMES: std::ops::RangeInclusive<i64> = -0x7fff_ffff..=0x3_7fff_fffe;
/// The most spans of a sparse file.
pub const SPANS_MAX: usize = 64 << 10;

/// What an archive may hold at most, and what this node lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Entries: all members but the root, and directories that have none of their own.
    pub entries: u64,
    /// The binary logarithm of the largest window that zstd may ask for, in bytes.
    pub window_log: u32,
    /// Whether files may be setuid or setgid.
    pub allow_setid: bool,
    /// Whether files may have capabilities.
    pub allow_capabilities: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 1_000_000,
            window_log: 27,
            allow_setid: false,
            allow_capabilities: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries, as [`Limits::entries`] counts them: as many inodes are enough.
    pub entries: u64,
    pub files: u64,
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Bytes that the files' data take in blocks of 4 KiB, without holes.
    pub allocated: u64,
}

/// Reads a whole archive by all the rules without writing anything, and says what it holds.
///
/// # Errors
/// The refusal that unpacking it would end with, but for those of the file system.
pub fn measure(file: impl Read + Send + 'static, name: &str, limits: &Limits) -> Result<Totals, Error> {
    wall::behind(None, || {
        let mut reader = Reader::open(file, name, limits)?;
        while reader.next_member()?.is_some() {}
        Ok(reader.ledger().totals())
    })
}
