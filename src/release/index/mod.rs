//! The index that an archive made by `cutover pack` carries: what the release has, and where.
//!
//! ```text
//! F0 F1 … Fn-1    zstd frames; decompressed, one tar
//! X               skippable frame 0x184D2A5B: pages | root | footer
//! S               skippable frame 0x184D2A5E: seek table for other readers; here only compared with the frames
//! ```
//! Every byte is verified before it is decompressed or parsed: the manifest signs the digest of the root, the root has
//! the digests of all pages, the pages of frames those of all frames.

pub mod changes;
pub mod codec;
mod error;
pub mod frames;
pub mod member;
pub mod meta;
pub mod parts;
pub mod reader;
pub mod root;
pub mod seek;
pub mod seen;
pub mod staging;
mod verified;

pub use error::Error;
pub use frames::{Frame, FrameKind};
pub use meta::Record;
pub use parts::{Parts, Trust};
pub use reader::Index;
pub use root::{Page, PageKind, Root};
pub use seen::{Installed, KeptIndex};
pub use staging::{
    Base, Forecast, Method, Prepared, StageOrder, Staged, check, closest, forecast, prepare, stage,
};
pub use verified::Verified;

/// Magic number of the skippable frame with the index.
pub const INDEX_MAGIC: u32 = 0x184D_2A5B;
/// Magic number of the skippable frame with the seek table.
pub const SEEK_MAGIC: u32 = 0x184D_2A5E;
/// The last four bytes of an archive with a seek table.
pub const SEEK_END: u32 = 0x8F92_EAB1;
