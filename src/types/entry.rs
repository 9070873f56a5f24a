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

use sha2::{Digest as _, Sha256};

use super::Digest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
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
        target: Vec<u8>,
    },
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the tree's root, components separated by `/`; bytes, not necessarily UTF-8.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    pub uid: u32,
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
        bytes.push(0);
        put_digits(bytes, entry.mode.into(), 8, 1, 0);
        put_number(bytes, entry.uid.into(), 0);
        put_number(bytes, entry.gid.into(), 0);
        if seconds < 0 {
            bytes.push(b'-');
        }
        put_number(bytes, seconds.unsigned_abs(), b'.');
        put_digits(bytes, nanoseconds.into(), 10, 9, 0);
        match &entry.kind {
            Kind::Directory => {}
            Kind::File { size, content } => {
                put_number(bytes, *size, 0);
                bytes.extend_from_slice(&content.0);
            }
            Kind::Link { target } => {
                bytes.extend_from_slice(target);
                bytes.push(0);
            }
        }
        put_number(bytes, entry.xattrs.len() as u64, 0);
        for (name, value) in &entry.xattrs {
            bytes.extend_from_slice(name);
            bytes.push(0);
            put_number(bytes, value.len() as u64, 0);
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

/// Appends a decimal number, and a byte that ends it.
fn put_number(bytes: &mut Vec<u8>, number: u64, end: u8) {
    put_digits(bytes, number, 10, 1, end);
}

/// Appends a number of so many digits or more, and a byte that ends it. By hand, since each entry has six of them.
fn put_digits(bytes: &mut Vec<u8>, mut number: u64, base: u64, least: usize, end: u8) {
    let mut digits = [b'0'; 32];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] += (number % base) as u8;
        number /= base;
    }
    bytes.extend_from_slice(&digits[at.min(digits.len() - least)..]);
    bytes.push(end);
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

    #[test]
    fn numbers_are_written_as_the_format_has_them() {
        for number in [0, 7, 8, 10, 999, 0o7777, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_digits(&mut bytes, number, 8, 1, b' ');
            put_number(&mut bytes, number, b' ');
            put_digits(&mut bytes, number, 10, 9, b' ');
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{number:o} {number} {number:09} "));
        }
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
