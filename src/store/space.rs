//! Room on the disk, asked before anything is written.

use std::fmt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::{Error, Settings, Store};
use crate::sys::disk::Context;
use crate::types::Size;

/// What a release will take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes of content.
    pub bytes: u64,
    pub entries: u64,
}

/// What a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where the file system makes inodes as it needs them (btrfs).
    pub free_inodes: Option<u64>,
    /// Bytes of a block: the least that a file takes.
    pub block_bytes: u64,
}

/// Why there is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    need: Need,
    space: Space,
    reserve_bytes: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(inodes) = self.space.free_inodes.filter(|inodes| self.need.entries > *inodes) {
            return write!(formatter, "{} inodes are needed, and {inodes} are free", self.need.entries);
        }
        let (need, free, reserve) =
            (Size(self.need.bytes), Size(self.space.free_bytes), Size(self.reserve_bytes));
        write!(formatter, "{need} are needed, {free} are free, of which {reserve} are the reserve")
    }
}

/// Room of the file system of `path`.
pub(crate) fn space(path: &Path) -> Result<Space, Error> {
    let found = statvfs(path).context("ask for free space of", path)?;
    Ok(Space {
        free_bytes: found.blocks_available() * found.fragment_size(),
        free_inodes: (found.files() > 0).then_some(found.files_available()),
        block_bytes: found.fragment_size(),
    })
}

impl Store {
    /// Room of the root's file system.
    pub fn space(&self) -> Result<Space, Error> {
        space(self.layout.root())
    }

    /// Refuses what would not fit beside the reserve. The reserve asked for is at most a tenth of the file system,
    /// so that small ones can be used without configuration.
    pub fn ensure_space(&self, need: Need, settings: &Settings) -> Result<(), Error> {
        let space = self.space()?;
        let reserve_bytes = self.reserve_bytes(settings)?;
        // Each entry takes a block at most beyond its bytes, and something for its name.
        let need = Need { bytes: need.bytes + need.entries * space.block_bytes, ..need };
        let has_bytes = need.bytes.saturating_add(reserve_bytes) <= space.free_bytes;
        let has_inodes = space.free_inodes.is_none_or(|inodes| need.entries <= inodes);
        if has_bytes && has_inodes {
            Ok(())
        } else {
            Err(Error::NoSpace(Missing { need, space, reserve_bytes }))
        }
    }

    /// The reserve in force: what is configured, at most a tenth of the file system.
    pub fn reserve_bytes(&self, settings: &Settings) -> Result<u64, Error> {
        let root = self.layout.root();
        let found = statvfs(root).context("ask for free space of", root)?;
        Ok(settings.reserve.0.min(found.blocks() * found.fragment_size() / 10))
    }
}
