//! Reads an archive's index in parts, each verified before it is looked at.

use std::io::Read;
use std::sync::Arc;

use super::error::{Error, malformed};
use super::frames::{self, Frame};
use super::meta::{PageReader, Record, Sequence};
use super::root::{FOOTER_BYTES, Footer, Page, PageKind, Root};
use super::seek::Surroundings;
use super::{SEEK_END, SEEK_MAGIC};
use crate::release::source::Ranges;
use crate::types::Digest;

/// What is read at once from the end of an archive: normally footer and root are in it.
const TAIL_BYTES: u64 = 256 << 10;
/// The footer of a seek table: number of frames, descriptor, magic.
const SEEK_FOOTER: u64 = 9;
const INDEX: &str = "the index";

/// The index of an archive.
pub struct Index<'s> {
    source: Arc<dyn Ranges + 's>,
    root: Root,
    /// The compressed root and the footer, as they are in the archive.
    tail: Vec<u8>,
    digest: Digest,
    /// By how much offsets in `source` are smaller than in the archive.
    shift: u64,
    /// What is outside of the digests, in an archive.
    surroundings: Option<Surroundings>,
}

impl<'s> Index<'s> {
    /// Reads footer and root. `None` when the archive has no index.
    ///
    /// Whether the root is the one that was published is for the caller to compare: see [`Index::digest`].
    pub fn open(source: Arc<dyn Ranges + 's>) -> Result<Option<Self>, Error> {
        let tail = Tail::read(&*source)?;
        let Some((footer, index_end)) = tail.footer()? else { return Ok(None) };
        let root = tail.bytes(&*source, footer.offset, footer.size.into())?;
        let size = source.size();
        let mut index = Self::new(source, &footer, root, index_end, 0)?;
        let start = index.root.compressed;
        // The head is not worth a request of its own to a source that is far.
        let head = match tail.read_already(start, 8) {
            None if !index.source.is_far() => Some(read_exactly(&*index.source, start, 8)?),
            read => read,
        };
        let table = tail.bytes(&*index.source, index_end, size - index_end)?;
        let length = index_end.saturating_sub(start + 8);
        index.surroundings = Some(Surroundings { head, table, index: length });
        Ok(Some(index))
    }

    /// Opens an index that is kept without its archive and ends at `end` of `source`.
    pub(super) fn open_kept(source: Arc<dyn Ranges + 's>, end: u64) -> Result<Self, Error> {
        let start = end.checked_sub(FOOTER_BYTES as u64).ok_or(malformed(INDEX, "it ends too early"))?;
        let bytes = read_exactly(&*source, start, FOOTER_BYTES as u64)?;
        let footer = bytes.first_chunk().map(Footer::read).transpose()?.flatten();
        let footer = footer.ok_or(malformed(INDEX, "it has no footer"))?;
        let index_end = footer.offset.saturating_add(u64::from(footer.size) + FOOTER_BYTES as u64);
        let shift = index_end.checked_sub(end).ok_or(malformed(INDEX, "it is too long"))?;
        let root_start =
            start.checked_sub(footer.size.into()).ok_or(malformed(INDEX, "it ends too early"))?;
        let root = read_exactly(&*source, root_start, footer.size.into())?;
        Self::new(source, &footer, root, index_end, shift)
    }

    fn new(
        source: Arc<dyn Ranges + 's>,
        footer: &Footer,
        mut compressed: Vec<u8>,
        index_end: u64,
        shift: u64,
    ) -> Result<Self, Error> {
        let root_end = footer.offset.checked_add(footer.size.into());
        if root_end.and_then(|end| end.checked_add(FOOTER_BYTES as u64)) != Some(index_end) {
            return Err(malformed(INDEX, "root and footer do not follow each other"));
        }
        let plain = verified("the root of the index", &compressed, footer.plain.into(), footer.digest)?;
        let root = Root::read(&plain)?;
        let pages_end = root.pages.last().map_or(root.compressed + 8, |page| page.offset + page.size);
        if root.compressed != footer.frames || pages_end != footer.offset {
            return Err(malformed(INDEX, "frames, pages and root do not follow each other"));
        }
        compressed.extend(footer.write());
        Ok(Self { source, root, tail: compressed, digest: footer.digest, shift, surroundings: None })
    }

    /// SHA-256 of the compressed root: what a manifest signs as `index`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Totals and pages.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The archive.
    pub fn source(&self) -> &Arc<dyn Ranges + 's> {
        &self.source
    }

    /// The compressed root and the footer.
    pub(super) fn tail_bytes(&self) -> &[u8] {
        &self.tail
    }

    /// Where what [`Index::open`] reads of an archive begins: its end, with root and footer in it.
    pub(super) fn tail_start(&self) -> u64 {
        let root = self.root.pages.last().map_or(self.root.compressed + 8, |page| page.offset + page.size);
        root.min(self.source.size().saturating_sub(TAIL_BYTES))
    }

    /// Reads and verifies one page.
    pub fn page(&self, page: &Page) -> Result<Vec<u8>, Error> {
        verified("a page of the index", &self.page_bytes(page)?, page.plain, page.digest)
    }

    /// Reads one page as it is, compressed and not verified.
    pub(super) fn page_bytes(&self, page: &Page) -> Result<Vec<u8>, Error> {
        let start = page.offset.checked_sub(self.shift).ok_or(malformed(INDEX, "it ends too early"))?;
        read_exactly(&*self.source, start, page.size)
    }

    /// All entries in path order, read page by page.
    pub fn records(&self) -> Records<'_> {
        Records {
            index: self,
            pages: self.root.of_kind(PageKind::Meta),
            read: Vec::new().into_iter(),
            sequence: Sequence::default(),
        }
    }

    /// All frames.
    pub fn frames(&self) -> Result<Vec<Frame>, Error> {
        let mut frames = Vec::new();
        for page in self.root.of_kind(PageKind::Frames) {
            frames.extend(frames::read_frames(&self.page(page)?, page.items)?);
        }
        let sum: u64 = frames.iter().map(|frame| u64::from(frame.size)).sum();
        if sum != self.root.compressed {
            return Err(malformed(INDEX, "the frames have another size than the root says"));
        }
        Ok(frames)
    }

    /// Compares what surrounds the index in its archive with its frames.
    pub(super) fn check_surroundings(&self, frames: &[Frame]) -> Result<(), Error> {
        self.surroundings.as_ref().map_or(Ok(()), |surroundings| surroundings.check(frames))
    }

    /// The number of the first frame of each file, in path order, of one page of locations.
    pub fn locations(&self, page: &Page) -> Result<Vec<u64>, Error> {
        frames::read_locations(&self.page(page)?, page.items, self.root.frames)
    }
}

/// The entries of a release, in path order.
pub struct Records<'a> {
    index: &'a Index<'a>,
    pages: &'a [Page],
    read: std::vec::IntoIter<Record>,
    sequence: Sequence,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.read.next() {
                return Some(self.sequence.check(&record.entry).map(|()| record));
            }
            let (page, rest) = self.pages.split_first()?;
            self.pages = rest;
            match self.index.page(page).and_then(|bytes| read_page(page, &bytes)) {
                Ok(records) => self.read = records.into_iter(),
                Err(error) => {
                    self.pages = &[];
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The entries of a page of metadata, which must be as many as the root says.
pub fn read_page(page: &Page, bytes: &[u8]) -> Result<Vec<Record>, Error> {
    let records = PageReader::new(bytes).collect::<Result<Vec<_>, _>>()?;
    let files = records.iter().filter(|record| record.has_content()).count() as u64;
    let first = records.first().map(|record| record.entry.path.as_slice());
    if records.len() as u64 != page.items || files != page.files || first != Some(&page.first) {
        return Err(malformed("a page of metadata", "it has other entries than the root says"));
    }
    Ok(records)
}

/// Decompresses bytes that are exactly `plain` long, after their digest was compared.
pub fn verified(part: &'static str, bytes: &[u8], plain: u64, wanted: Digest) -> Result<Vec<u8>, Error> {
    check_digest(part, bytes, wanted)?;
    let plain = usize::try_from(plain).map_err(|_| malformed(part, "it is too long"))?;
    let decompressed = zstd::bulk::decompress(bytes, plain).map_err(Error::Read)?;
    if decompressed.len() == plain {
        Ok(decompressed)
    } else {
        Err(malformed(part, "it is shorter than its index says"))
    }
}

/// Compares the digest of bytes with the one that was published.
pub fn check_digest(part: &'static str, bytes: &[u8], wanted: Digest) -> Result<(), Error> {
    let found = Digest::of(bytes);
    if found == wanted { Ok(()) } else { Err(Error::Digest { part, found, wanted }) }
}

/// Reads a part into memory.
pub fn read_exactly(source: &dyn Ranges, start: u64, length: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| malformed(INDEX, "a part is too long"))?];
    source.read_range(start, length)?.read_exact(&mut bytes).map_err(Error::reading)?;
    Ok(bytes)
}

/// The last bytes of an archive.
struct Tail {
    start: u64,
    bytes: Vec<u8>,
}

impl Tail {
    fn read(source: &dyn Ranges) -> Result<Self, Error> {
        let start = source.size().saturating_sub(TAIL_BYTES);
        Ok(Self { start, bytes: read_exactly(source, start, source.size() - start)? })
    }

    /// The footer of the index, and where it ends.
    fn footer(&self) -> Result<Option<(Footer, u64)>, Error> {
        let size = self.start + self.bytes.len() as u64;
        let Some((_, seek)) = self.bytes.split_last_chunk::<{ SEEK_FOOTER as usize }>() else {
            return Ok(None);
        };
        let [a, b, c, d, _, end @ ..] = *seek;
        if u32::from_le_bytes(end) != SEEK_END {
            return Ok(None);
        }
        let table = 8 + 8 * u64::from(u32::from_le_bytes([a, b, c, d])) + SEEK_FOOTER;
        let Some(index_end) = size.checked_sub(table) else { return Ok(None) };
        let at = |offset: u64| usize::try_from(offset.checked_sub(self.start)?).ok();
        let found = at(index_end).and_then(|end| Some((end, end.checked_sub(FOOTER_BYTES)?)));
        let Some((end, start)) = found else { return Ok(None) };
        let Some(footer) = self.bytes.get(start..end).and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        if self.bytes.get(end..end + 4) != Some(&SEEK_MAGIC.to_le_bytes()) {
            return Ok(None);
        }
        Ok(Footer::read(footer)?.map(|footer| (footer, index_end)))
    }

    /// A part that may lie in it.
    fn bytes(&self, source: &dyn Ranges, start: u64, length: u64) -> Result<Vec<u8>, Error> {
        self.read_already(start, length).map_or_else(|| read_exactly(source, start, length), Ok)
    }

    /// A part that lies in it.
    fn read_already(&self, start: u64, length: u64) -> Option<Vec<u8>> {
        let at = usize::try_from(start.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(usize::try_from(length).ok()?)?).map(<[u8]>::to_vec)
    }
}
