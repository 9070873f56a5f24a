//! The root of an index: totals, and the digest of every page. The footer, by which the root is found.
//!
//! ```text
//! root    format (1), hash (1 = SHA-256), entries, files, plain bytes, compressed bytes, largest plain frame, frames,
//!         newest generation, tree digest[32], number of pages, then of each page:
//!         kind (1 metadata, 2 frames, 3 locations), items, files, first path (length 0 unless metadata),
//!         offset, compressed size, plain size, sha256[32] of the compressed bytes
//! footer  ident[8], root offset u64, root compressed u32, root plain u32, sha256[32] of the compressed root,
//!         bytes of all frames u64, zeros to 96
//! ```
//! Offsets count from the start of the archive. In it pages follow the frames and each other without a gap, in any order.

use super::codec::{Cursor, put, put_bytes};
use super::error::{Error, malformed};
use super::frames::FRAME_MAX;
use super::meta::PATH_MAX;
use super::verified::Verified;
use crate::types::Digest;

/// The first bytes of a footer.
pub const IDENT: [u8; 8] = *b"CUTOVER\x01";
/// Bytes of a footer.
pub const FOOTER_BYTES: usize = 96;
/// Plain bytes of a root.
pub const ROOT_MAX: u64 = 16 << 20;
/// Plain bytes of a page.
pub const PAGE_MAX: u64 = 1 << 20;
pub const ENTRIES_MAX: u64 = 4 << 20;
/// Frames of a release; at a mebibyte each, half a tebibyte.
pub const FRAMES_MAX: u64 = 1 << 19;
const FORMAT: u64 = 1;
const SHA256: u64 = 1;
const PART: &str = "the root of the index";
const FOOTER: &str = "the footer of the index";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageKind {
    Meta,
    Frames,
    Locations,
}

/// Where a page is, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub kind: PageKind,
    /// How many entries, frames or locations.
    pub items: u64,
    /// How many of its entries have a location (0 unless metadata).
    pub files: u64,
    /// The path of the first entry (empty unless metadata).
    pub first: Vec<u8>,
    /// Where it begins in the archive.
    pub offset: u64,
    /// Compressed bytes.
    pub size: u64,
    /// Plain bytes.
    pub plain: u64,
    /// SHA-256 of the compressed bytes.
    pub digest: Digest,
}

/// Totals of a release, and all its pages: those of metadata first, in path order, then frames, then locations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub entries: u64,
    /// Files that have a location: regular files, each inode once.
    pub files: u64,
    /// Bytes of their contents.
    pub plain: u64,
    /// Bytes of all frames.
    pub compressed: u64,
    /// Plain bytes of the largest frame.
    pub largest: u64,
    pub frames: u64,
    /// The highest generation of a file.
    pub generation: u64,
    pub tree: Digest,
    pub pages: Vec<Page>,
}

impl Root {
    /// The plain bytes of the root.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let totals = [
            FORMAT,
            SHA256,
            self.entries,
            self.files,
            self.plain,
            self.compressed,
            self.largest,
            self.frames,
            self.generation,
        ];
        totals.iter().for_each(|number| put(&mut bytes, *number));
        bytes.extend_from_slice(&self.tree.0);
        put(&mut bytes, self.pages.len() as u64);
        for page in &self.pages {
            bytes.push(match page.kind {
                PageKind::Meta => 1,
                PageKind::Frames => 2,
                PageKind::Locations => 3,
            });
            put(&mut bytes, page.items);
            put(&mut bytes, page.files);
            put_bytes(&mut bytes, &page.first);
            [page.offset, page.size, page.plain].iter().for_each(|number| put(&mut bytes, *number));
            bytes.extend_from_slice(&page.digest.0);
        }
        bytes
    }

    /// Reads a root, and checks that its numbers agree with each other.
    pub fn read<B: AsRef<[u8]>>(bytes: &Verified<B>) -> Result<Self, Error> {
        let mut cursor = Cursor::new(PART, bytes.as_ref());
        if cursor.number()? != FORMAT || cursor.number()? != SHA256 {
            return Err(malformed(PART, "its format is newer than this program"));
        }
        let mut root = Self {
            entries: cursor.number_to(ENTRIES_MAX, "it has more than 4194304 entries")?,
            files: cursor.number_to(ENTRIES_MAX, "it has more than 4194304 entries")?,
            plain: cursor.number()?,
            compressed: cursor.number()?,
            largest: cursor.number_to(FRAME_MAX, "a frame is longer than 16 MiB")?,
            frames: cursor.number_to(FRAMES_MAX, "it has more than 524288 frames")?,
            generation: cursor.number()?,
            tree: cursor.digest()?,
            pages: Vec::new(),
        };
        for _ in 0..cursor.number()? {
            root.pages.push(read_page(&mut cursor)?);
        }
        cursor.finish()?;
        root.check()?;
        Ok(root)
    }

    fn check(&self) -> Result<(), Error> {
        let too_large = || malformed(PART, "its sums are too large");
        let mut offset = self.compressed.checked_add(8).ok_or_else(too_large)?;
        for page in self.pages_as_they_lie() {
            if page.offset != offset {
                return Err(malformed(PART, "its pages have gaps, or overlap"));
            }
            offset = offset.checked_add(page.size).ok_or_else(too_large)?;
        }
        if !self.pages.is_sorted_by_key(|page| page.kind) {
            return Err(malformed(PART, "its pages are not in order"));
        }
        let sum = |kind, count: fn(&Page) -> u64| -> u64 {
            self.of_kind(kind).iter().map(count).fold(0, u64::saturating_add)
        };
        let is_right = sum(PageKind::Meta, |page| page.items) == self.entries
            && sum(PageKind::Meta, |page| page.files) == self.files
            && sum(PageKind::Frames, |page| page.items) == self.frames
            && sum(PageKind::Locations, |page| page.items) == self.files;
        if is_right { Ok(()) } else { Err(malformed(PART, "its sums and its pages differ")) }
    }

    /// All pages, in the order in which they lie in the archive.
    pub fn pages_as_they_lie(&self) -> Vec<&Page> {
        let mut pages: Vec<&Page> = self.pages.iter().collect();
        pages.sort_by_key(|page| page.offset);
        pages
    }

    /// Where the last page ends in the archive.
    pub fn pages_end(&self) -> u64 {
        let ends = self.pages.iter().map(|page| page.offset.saturating_add(page.size));
        ends.max().unwrap_or(self.compressed.saturating_add(8))
    }

    /// The pages of one kind, which follow each other in the root.
    pub fn of_kind(&self, kind: PageKind) -> &[Page] {
        let start = self.pages.partition_point(|page| page.kind < kind);
        let end = self.pages.partition_point(|page| page.kind <= kind);
        &self.pages[start..end]
    }
}

fn read_page(cursor: &mut Cursor<'_>) -> Result<Page, Error> {
    let kind = match cursor.byte()? {
        1 => PageKind::Meta,
        2 => PageKind::Frames,
        3 => PageKind::Locations,
        _ => return Err(malformed(PART, "a page is of an unknown kind")),
    };
    let page = Page {
        kind,
        items: cursor.number_to(PAGE_MAX, "a page has too many items")?,
        files: cursor.number_to(PAGE_MAX, "a page has too many items")?,
        first: cursor.bytes(PATH_MAX, "a path is longer than 4095 bytes")?.to_vec(),
        offset: cursor.number()?,
        size: cursor.number_to(PAGE_MAX + 65536, "a page is longer than 1 MiB")?,
        plain: cursor.number_to(PAGE_MAX, "a page is longer than 1 MiB")?,
        digest: cursor.digest()?,
    };
    let is_meta = kind == PageKind::Meta;
    let has_files = if is_meta { page.files > page.items } else { page.files > 0 };
    if page.items == 0 || has_files || page.first.is_empty() == is_meta {
        return Err(malformed(PART, "a page is empty, or has what its kind does not have"));
    }
    Ok(page)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the root begins in the archive.
    pub offset: u64,
    /// Its compressed bytes.
    pub size: u32,
    /// Its plain bytes.
    pub plain: u32,
    /// SHA-256 of the compressed root: what a manifest signs as `index`.
    pub digest: Digest,
    /// Bytes of all frames before the index.
    pub frames: u64,
}

impl Footer {
    /// Its bytes.
    pub fn write(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&IDENT);
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.size.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.plain.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.digest.0);
        bytes[56..64].copy_from_slice(&self.frames.to_le_bytes());
        bytes
    }

    /// Reads a footer; `None` when these bytes are something else.
    pub fn read(bytes: &[u8; FOOTER_BYTES]) -> Result<Option<Self>, Error> {
        if bytes[..8] != IDENT {
            return Ok(None);
        }
        let mut cursor = Cursor::new(FOOTER, &bytes[8..]);
        let footer = Self {
            offset: cursor.little64()?,
            size: cursor.little32()?,
            plain: cursor.little32()?,
            digest: cursor.digest()?,
            frames: cursor.little64()?,
        };
        if cursor.take(cursor.left())?.iter().any(|byte| *byte != 0) {
            return Err(malformed(FOOTER, "reserved bytes are not zero"));
        }
        if u64::from(footer.plain) > ROOT_MAX || u64::from(footer.size) > ROOT_MAX + 65536 {
            return Err(malformed(FOOTER, "the root is longer than 16 MiB"));
        }
        Ok(Some(footer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        let page = |kind, files, first: &str, offset, size| Page {
            kind,
            items: 2,
            files,
            first: first.into(),
            offset,
            size,
            plain: 80,
            digest: Digest::of(b"page"),
        };
        Root {
            entries: 2,
            files: 2,
            plain: 3,
            compressed: 100,
            largest: 2048,
            frames: 2,
            generation: 1,
            tree: Digest::of(b"tree"),
            pages: vec![
                page(PageKind::Meta, 2, "a", 108, 50),
                page(PageKind::Frames, 0, "", 158, 60),
                page(PageKind::Locations, 0, "", 218, 9),
            ],
        }
    }

    fn read(bytes: &[u8]) -> Result<Root, Error> {
        Root::read(&Verified::compare(PART, bytes, Digest::of(bytes)).unwrap())
    }

    #[test]
    fn a_root_is_read_back_as_it_was_written() {
        let bytes = root().write();
        assert_eq!(read(&bytes).unwrap(), root());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn pages_may_lie_in_any_order_without_gaps() {
        let mut moved = root();
        (moved.pages[0].offset, moved.pages[1].offset) = (108 + 60, 108);
        assert_eq!(read(&moved.write()).unwrap(), moved);
        let sizes: Vec<u64> = moved.pages_as_they_lie().iter().map(|page| page.size).collect();
        assert_eq!((sizes, moved.pages_end()), (vec![60, 50, 9], 227));
        moved.pages[0].offset = 108;
        assert!(read(&moved.write()).is_err(), "two lie at one place");
    }

    #[test]
    fn a_root_whose_numbers_disagree_is_refused() {
        let wrong: [fn(&mut Root); 5] = [
            |root| root.entries = 3,
            |root| root.frames = 1,
            |root| root.pages[1].offset += 1,
            |root| root.pages.swap(0, 1),
            |root| root.pages[1].first = b"x".to_vec(),
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut root = root();
            change(&mut root);
            assert!(read(&root.write()).is_err(), "change {number}");
        }
    }

    #[test]
    fn a_footer_is_read_back_as_it_was_written() {
        let footer = Footer { offset: 500, size: 30, plain: 90, digest: Digest::of(b"r"), frames: 400 };
        let mut bytes = footer.write();
        assert_eq!(Footer::read(&bytes).unwrap(), Some(footer));
        bytes[90] = 1;
        assert!(Footer::read(&bytes).is_err());
        bytes[0] = 0;
        assert_eq!(Footer::read(&bytes).unwrap(), None);
    }
}
