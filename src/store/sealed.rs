//! What the tree of a release must be, and where it came from.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Damage, Error, Kept, Store, kept};
use crate::types::{Digest, ReleaseId, Version};

/// What is kept of a release when its tree is sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    pub release: ReleaseId,
    pub product: Option<String>,
    /// The channel's serial, where it came from a channel.
    pub serial: Option<u64>,
    /// Digest of the tree (`types::entry`).
    pub tree: Digest,
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    pub staged: Timestamp,
    /// Who vouched for it: names of keys; empty for an unsigned one.
    pub signers: Vec<String>,
    /// Fingerprints of these keys. A release is no base for one that other keys vouch for.
    #[serde(default)]
    pub keys: Vec<String>,
    /// What the node let in beyond the usual when it was staged: `setid`, `capabilities`. A tree of which that may be in it
    /// is no start for one of which it may not.
    #[serde(default)]
    pub allowed: Vec<String>,
    /// Which data this release reads (epochs).
    pub data_read: Vec<u64>,
    pub data_write: Option<u64>,
    /// Links of the node's configuration that were made in the tree, and directories on the way to them; they are no part
    /// of its digest.
    pub links: Vec<String>,
    /// What the release has where these links are, in path order.
    #[serde(default)]
    pub replaced: Vec<Replaced>,
}

/// An entry of a release in whose place is a link of the node's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// Its path in the tree.
    pub path: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// What is in it, if it is a file.
    pub content: Option<Vec<u8>>,
    /// Where it leads, if it is a link. Else it is a directory.
    pub target: Option<String>,
    /// Where it is a further hard link of a file: the path of the first in path order, replaced or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// Where it is the first of a file's hard links: the path of the next that is still in the tree, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Store {
    /// What the tree of `version` must be.
    pub fn sealed(&self, version: &Version) -> Result<Kept<Sealed>, Error> {
        Ok(kept::load(&self.layout.sealed(version))?)
    }

    /// Keeps what a tree must be. Comes before the tree is shown, so that no visible tree lacks it.
    pub fn keep_sealed(&self, sealed: &Sealed) -> Result<(), Error> {
        Ok(kept::save(&self.disk, &self.layout.sealed(&sealed.release.version), sealed)?)
    }

    /// The same for a tree that is not shown before the file system was synced.
    pub(super) fn keep_sealed_unsynced(&self, sealed: &Sealed) -> Result<(), Error> {
        let path = self.layout.sealed(&sealed.release.version);
        self.disk.write_unsynced(&path, &kept::bytes(&path, sealed)?, kept::MODE)?;
        Ok(self.disk.show_written(&path)?)
    }

    /// The release of that name on this node: its tree must be there, and what it must be must be known.
    pub fn release(&self, version: &Version) -> Result<Sealed, Error> {
        self.tree(version)?;
        match self.sealed(version)? {
            Kept::Whole(sealed) if sealed.release.version == *version => Ok(sealed),
            Kept::Whole(_) => {
                Err(self.damaged_seal(version, Damage::Spoilt("it describes another release".into())))
            }
            Kept::Missing => {
                Err(Error::Unknown { version: version.clone(), path: self.layout.sealed(version) })
            }
            Kept::Damaged(why) => Err(self.damaged_seal(version, why)),
        }
    }

    fn damaged_seal(&self, version: &Version, why: Damage) -> Error {
        Error::Damaged { path: self.layout.sealed(version), why }
    }
}
