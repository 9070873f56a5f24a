//! The first names of inodes that may have several: in a tree of hard links to another one that is every file.

use std::collections::HashMap;

/// A file: its device and inode.
type Inode = (u64, u64);

/// First names, in about fifty bytes each.
#[derive(Default)]
pub struct FirstNames {
    found: HashMap<Inode, Place>,
    /// Paths of directories, and names.
    bytes: Vec<u8>,
    /// Where the path of the last directory begins, and its length.
    directory: (usize, u16),
}

#[derive(Clone, Copy)]
struct Place {
    /// Offsets, in bytes; a tree whose names are larger than 4 GiB is none.
    directory: u32,
    name: u32,
    directory_length: u16,
    name_length: u16,
}

impl FirstNames {
    /// The first path of this file, if it has been seen; else this one is.
    pub fn meet(&mut self, inode: Inode, directory: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        if let Some(place) = self.found.get(&inode) {
            let directory = &self.bytes[place.directory as usize..][..usize::from(place.directory_length)];
            let name = &self.bytes[place.name as usize..][..usize::from(place.name_length)];
            return Some(if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() });
        }
        let (at, length) = self.directory;
        if self.bytes.get(at..at + usize::from(length)) != Some(directory) {
            self.directory = (self.bytes.len(), directory.len() as u16);
            self.bytes.extend_from_slice(directory);
        }
        let place = Place {
            directory: self.directory.0 as u32,
            directory_length: self.directory.1,
            name: self.bytes.len() as u32,
            name_length: name.len() as u16,
        };
        self.bytes.extend_from_slice(name);
        self.found.insert(inode, place);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_remembered() {
        let mut names = FirstNames::default();
        assert_eq!(names.meet((1, 1), b"", b"a"), None);
        assert_eq!(names.meet((1, 2), b"d/e", b"b"), None);
        assert_eq!(names.meet((1, 3), b"d/e", b"c"), None);
        assert_eq!(names.meet((2, 1), b"", b"d"), None);
        assert_eq!(names.meet((1, 1), b"x", b"y").unwrap(), b"a");
        assert_eq!(names.meet((1, 2), b"x", b"y").unwrap(), b"d/e/b");
        assert_eq!(names.meet((1, 3), b"x", b"y").unwrap(), b"d/e/c");
    }
}
