//! What surrounds pages and root: the head of the index's frame, and the seek table for other readers.
//!
//! Both follow from the frames, so they need no digest of their own: they are compared with what they must be.

use super::error::malformed;
use super::{Error, Frame, INDEX_MAGIC, SEEK_END, SEEK_MAGIC};

/// The first bytes of the skippable frame with the index, whose content has `length` bytes.
pub fn head(length: u32) -> [u8; 8] {
    let mut head = [0; 8];
    head[..4].copy_from_slice(&INDEX_MAGIC.to_le_bytes());
    head[4..].copy_from_slice(&length.to_le_bytes());
    head
}

/// The seek table of the seekable format 0.1.0, without checksums; it lists the index, too, whose content has `index`
/// bytes. `None` when there are too many frames for it.
pub fn table(frames: &[Frame], index: u32) -> Option<Vec<u8>> {
    let count = u32::try_from(frames.len() + 1).ok()?;
    let length = count.checked_mul(8)?.checked_add(9)?;
    let mut table = Vec::new();
    let mut word = |number: u32| table.extend_from_slice(&number.to_le_bytes());
    word(SEEK_MAGIC);
    word(length);
    for frame in frames {
        word(frame.size);
        word(frame.plain);
    }
    word(index.checked_add(8)?);
    word(0);
    word(count);
    table.push(0);
    table.extend_from_slice(&SEEK_END.to_le_bytes());
    Some(table)
}

/// What an archive has there, as far as it was read.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The head of the index's frame, if it was read.
    pub head: Option<Vec<u8>>,
    /// All bytes after the index.
    pub table: Vec<u8>,
    /// Bytes of the index's content.
    pub index: u64,
}

impl Surroundings {
    /// Compares them with what the frames ask for.
    pub fn check(&self, frames: &[Frame]) -> Result<(), Error> {
        let index = u32::try_from(self.index).ok();
        let is_right = index.is_some_and(|index| {
            self.head.as_ref().is_none_or(|found| *found == head(index))
                && table(frames, index).is_some_and(|wanted| wanted == self.table)
        });
        if is_right { Ok(()) } else { Err(malformed("the seek table", "it does not fit the frames")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seek_table_ends_as_its_format_says() {
        let table = table(&[], 100).unwrap();
        assert_eq!(table.len(), 8 + 8 + 9);
        assert_eq!(table[8..12], 108_u32.to_le_bytes());
        assert_eq!(table[table.len() - 4..], SEEK_END.to_le_bytes());
    }
}
