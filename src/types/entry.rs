//! One entry of a release's tree, and the digest of a whole tree.
//!
//! The digest of a tree is the SHA-256 over its entries in [path order](path_order), each written as below. It does not
//! depend on the archive, the method of staging or the file system, and it is what the manifest signs as `tree`.
//!
//! ```text
//! kind (1 byte: d f l)  path \0  mode (octal) \0 uid \0 gid \0 mtime seconds . nanoseconds (9 digits) \0
//! then per kind:  f: size \0 content digest (32 bytes)   l: target \0   d: nothing
//! then: number of xattrs \0, and of each, in order of names: name \0 length \0 value
//! then: path of the first name of the same inode \0 (empty, unless this is a further hard link)
//! ```
//! Directories' times count; the tree's own root is no entry. Symbolic links have mode 0777.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Write as _;

use sha2::{Digest as _, Sha256};

use super::Digest;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file: its size in bytes and the digest of its content.
    File {
        /// Bytes, holes included.
        size: u64,
        /// SHA-256 of the content.
        content: Digest,
    },
    /// A symbolic link, with its target byte for byte.
    Link {
        /// Where it points to.
        target: Vec<u8>,
    },
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the tree's root, components separated by `/`; bytes, not necessarily UTF-8.
    pub path: Vec<u8>,
    /// Directory, file or link.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time: seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes (`user.*`, and `security.capability` where a node allows it).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// For a further hard link of a file: the path of the first in path order.
    pub same_as: Option<Vec<u8>>,
}

/// The order of a tree's entries: component by component, bytewise. It is the order of a walk that visits each
/// directory before its entries and these by name, so that trees are compared and hashed without holding them whole.
pub fn path_order(one: &[u8], other: &[u8]) -> Ordering {
    // A slash ends a component, so it comes before every byte that goes on with it.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    match one.iter().zip(other).find(|(one, other)| one != other) {
        Some((one, other)) => rank(one).cmp(&rank(other)),
        None => one.len().cmp(&other.len()),
    }
}

/// Computes the digest of a tree from its entries, given in path order.
#[derive(Default)]
pub struct TreeDigest {
    hasher: Sha256,
    last: Vec<u8>,
    bytes: Vec<u8>,
}

impl TreeDigest {
    /// Takes the next entry.
    ///
    /// # Panics
    /// When the entries do not come in strictly ascending path order: that would be a mistake of the caller.
    pub fn add(&mut self, entry: &Entry) {
        assert!(
            self.last.is_empty() || path_order(&self.last, &entry.path).is_lt(),
            "entries must come in path order"
        );
        let kind = match entry.kind {
            Kind::Directory => b'd',
            Kind::File { .. } => b'f',
            Kind::Link { .. } => b'l',
        };
        // One call of the hasher an entry: with a call for each field its bookkeeping costs more than the hashing.
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.push(kind);
        bytes.extend_from_slice(&entry.path);
        let (seconds, nanoseconds) = entry.mtime;
        put_text(bytes, format_args!("\0{:o}\0{}\0{}\0", entry.mode, entry.uid, entry.gid));
        put_text(bytes, format_args!("{seconds}.{nanoseconds:09}\0"));
        match &entry.kind {
            Kind::Directory => {}
            Kind::File { size, content } => {
                put_text(bytes, format_args!("{size}\0"));
                bytes.extend_from_slice(&content.0);
            }
            Kind::Link { target } => {
                bytes.extend_from_slice(target);
                bytes.push(0);
            }
        }
        put_text(bytes, format_args!("{}\0", entry.xattrs.len()));
        for (name, value) in &entry.xattrs {
            bytes.extend_from_slice(name);
            put_text(bytes, format_args!("\0{}\0", value.len()));
            bytes.extend_from_slice(value);
        }
        bytes.extend_from_slice(entry.same_as.as_deref().unwrap_or_default());
        bytes.push(0);
        self.hasher.update(&bytes);
        self.last.clone_from(&entry.path);
    }

    /// The digest of all entries taken.
    pub fn finish(self) -> Digest {
        self.hasher.into()
    }
}

fn put_text(bytes: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector has no errors.
    drop(bytes.write_fmt(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_order_is_the_order_of_a_walk() {
        let mut paths = ["a-b", "a/b", "a", "a/b/c", "a0"];
        paths.sort_by(|one, other| path_order(one.as_bytes(), other.as_bytes()));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a-b", "a0"]);
    }

    proptest::proptest! {
        #[test]
        fn path_order_compares_component_by_component(one in "[a/!\\x00-]{0,6}", other in "[a/!\\x00-]{0,6}") {
            let (one, other) = (one.as_bytes(), other.as_bytes());
            let by_components = one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/'));
            proptest::prop_assert_eq!(path_order(one, other), by_components);
        }
    }
}
