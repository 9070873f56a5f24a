//! Reads an archive's index in parts, each verified before it is looked at.

use std::io::Read;
use std::sync::Arc;

use super::error::{Error, malformed};
use super::frames::{self, Frame};
use super::meta::{PageReader, Record, Sequence};
use super::root::{FOOTER_BYTES, FRAMES_MAX, Footer, Page, PageKind, Root};
use super::seek::Surroundings;
use super::verified::Verified;
use super::{SEEK_END, SEEK_MAGIC};
use crate::release::source::Ranges;
use crate::sys::wall;
use crate::types::Digest;

/// What is read at once from the end of an archive at most: normally footer and root are in it.
const TAIL_BYTES: u64 = 256 << 10;
/// The same of a small archive.
const TAIL_BYTES_LEAST: u64 = 32 << 10;
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
    /// Where what was read of the archive's end begins.
    tail_start: u64,
    /// What is outside of the digests, in an archive.
    surroundings: Option<Surroundings>,
}

impl<'s> Index<'s> {
    /// Reads footer and root. `None` when the archive has no index.
    ///
    /// `signed` is the digest of the root that a manifest vouches for. Without it the caller has compared the whole
    /// archive with a digest, and nobody can have changed it since: then its own footer says what its root is.
    ///
    /// # Errors
    /// When the root is not the one that is vouched for, breaks a rule, or cannot be read.
    pub fn open(source: Arc<dyn Ranges + 's>, signed: Option<Digest>) -> Result<Option<Self>, Error> {
        let mut tail = Tail::read(&*source)?;
        let Some((footer, index_end)) = tail.footer(&*source)? else { return Ok(None) };
        check_end(&footer, index_end)?;
        let root = tail.bytes(&*source, footer.offset, footer.size.into())?;
        let size = source.size();
        let mut index = Self::new(source, &footer, root, index_end, 0, signed)?;
        let start = index.root.compressed;
        // The head is not worth a request of its own to a source that is far.
        let head = match tail.read_already(start, 8) {
            None if !index.source.is_far() => Some(read_exactly(&*index.source, start, 8)?),
            read => read,
        };
        let table = tail.bytes(&*index.source, index_end, size - index_end)?;
        let length = index_end.saturating_sub(start + 8);
        index.surroundings = Some(Surroundings { head, table, index: length });
        index.tail_start = index.tail_start.min(tail.start);
        Ok(Some(index))
    }

    /// Opens an index that this node keeps without its archive, and that ends at `end` of `source`.
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
        Self::new(source, &footer, root, index_end, shift, None)
    }

    fn new(
        source: Arc<dyn Ranges + 's>,
        footer: &Footer,
        mut compressed: Vec<u8>,
        index_end: u64,
        shift: u64,
        signed: Option<Digest>,
    ) -> Result<Self, Error> {
        check_end(footer, index_end)?;
        let digest = signed.unwrap_or(footer.digest);
        let verified = Verified::compare("the root of the index", compressed.as_slice(), digest)?;
        if footer.digest != digest {
            return Err(malformed("the footer of the index", "it names another root"));
        }
        let root = wall::behind(None, || Root::read(&verified.decompress(footer.plain.into())?))?;
        let pages_end = root.pages_end();
        if root.compressed != footer.frames || pages_end != footer.offset {
            return Err(malformed(INDEX, "frames, pages and root do not follow each other"));
        }
        compressed.extend(footer.write());
        let tail_start = pages_end;
        Ok(Self { source, root, tail: compressed, digest, shift, tail_start, surroundings: None })
    }

    /// SHA-256 of the compressed root: what a manifest signs as `index`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn source(&self) -> &Arc<dyn Ranges + 's> {
        &self.source
    }

    /// The compressed root and the footer.
    pub(super) fn tail_bytes(&self) -> &[u8] {
        &self.tail
    }

    /// Where what [`Index::open`] reads of an archive begins: its end, with root and footer in it.
    pub(super) fn tail_start(&self) -> u64 {
        self.tail_start
    }

    /// Reads and verifies one page.
    pub fn page(&self, page: &Page) -> Result<Verified, Error> {
        Verified::compare("a page of the index", self.page_bytes(page)?, page.digest)?.decompress(page.plain)
    }

    /// Reads one page as it is, compressed and not verified.
    pub(super) fn page_bytes(&self, page: &Page) -> Result<Vec<u8>, Error> {
        let start = page.offset.checked_sub(self.shift).ok_or(malformed(INDEX, "it ends too early"))?;
        read_exactly(&*self.source, start, page.size)
    }

    /// Bytes that the index takes on this node.
    pub fn size(&self) -> u64 {
        self.root.pages.iter().map(|page| page.size).sum::<u64>() + self.tail.len() as u64
    }

    /// All entries in path order, read page by page.
    pub fn records(&self) -> Records<'_> {
        Records {
            index: self,
            pages: self.root.of_kind(PageKind::Meta),
            open: None,
            sequence: Sequence::default(),
        }
    }

    pub fn frames(&self) -> Result<Vec<Frame>, Error> {
        let mut frames = Vec::new();
        for page in self.root.of_kind(PageKind::Frames) {
            frames.extend(frames::read_frames(&self.page(page)?, page.items)?);
        }
        let sum: u64 = frames.iter().map(|frame| u64::from(frame.size)).sum();
        let largest = frames.iter().map(|frame| u64::from(frame.plain)).max().unwrap_or(0);
        if sum != self.root.compressed || largest != self.root.largest {
            return Err(malformed(INDEX, "the frames have other sizes than the root says"));
        }
        Ok(frames)
    }

    /// Compares what surrounds the index in its archive with its frames.
    pub(super) fn check_surroundings(&self, frames: &[Frame]) -> Result<(), Error> {
        self.surroundings.as_ref().map_or(Ok(()), |surroundings| surroundings.check(frames))
    }

    /// Takes over what surrounds the same index in its archive.
    pub(super) fn surround_as(&mut self, other: &Index<'_>) {
        self.surroundings.clone_from(&other.surroundings);
    }

    /// The number of the first frame of each file, in path order, of one page of locations.
    pub fn locations(&self, page: &Page) -> Result<Vec<u64>, Error> {
        frames::read_locations(&self.page(page)?, page.items, self.root.frames)
    }
}

/// Checks that root and footer come last in an index that ends there.
fn check_end(footer: &Footer, index_end: u64) -> Result<(), Error> {
    let root_end = footer.offset.checked_add(footer.size.into());
    match root_end.and_then(|end| end.checked_add(FOOTER_BYTES as u64)) == Some(index_end) {
        true => Ok(()),
        false => Err(malformed(INDEX, "root and footer do not follow each other")),
    }
}

/// The entries of a release, in path order.
pub struct Records<'a> {
    index: &'a Index<'a>,
    pages: &'a [Page],
    open: Option<PageEntries<'a>>,
    sequence: Sequence,
}

impl Records<'_> {
    /// Goes to the next entry; the page that is then open has it.
    fn advance(&mut self) -> Result<bool, Error> {
        loop {
            if let Some(open) = &mut self.open
                && open.advance()?
            {
                self.sequence.check(&open.record().entry)?;
                return Ok(true);
            }
            let Some((page, rest)) = self.pages.split_first() else { return Ok(false) };
            self.open = Some(PageEntries::open(self.index, page)?);
            self.pages = rest;
        }
    }

    /// Takes all that are left, without a copy of each.
    pub fn each(mut self, take: &mut dyn FnMut(&Record) -> Result<(), Error>) -> Result<(), Error> {
        while self.advance()? {
            self.open.iter().try_for_each(|open| take(open.record()))?;
        }
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.advance();
        let record = self.open.as_ref().map(|open| open.record().clone());
        if read.is_err() {
            (self.pages, self.open) = (&[], None);
        }
        read.map(|is_there| record.filter(|_| is_there)).transpose()
    }
}

/// The entries of one page of metadata, which must be those that the root says.
pub struct PageEntries<'a> {
    page: &'a Page,
    reader: PageReader<Verified>,
    items: u64,
    files: u64,
}

impl<'a> PageEntries<'a> {
    pub fn open(index: &Index<'_>, page: &'a Page) -> Result<Self, Error> {
        Ok(Self { page, reader: PageReader::new(index.page(page)?), items: 0, files: 0 })
    }

    pub fn read(&mut self) -> Result<Option<Record>, Error> {
        Ok(self.advance()?.then(|| self.record().clone()))
    }

    /// Goes to the next entry, if there is one.
    fn advance(&mut self) -> Result<bool, Error> {
        let other = || malformed("a page of metadata", "it has other entries than the root says");
        if !self.reader.advance()? {
            let is_right = (self.items, self.files) == (self.page.items, self.page.files);
            return if is_right { Ok(false) } else { Err(other()) };
        }
        let record = self.reader.record();
        if self.items == 0 && record.entry.path != self.page.first {
            return Err(other());
        }
        self.items += 1;
        self.files += u64::from(record.has_content());
        Ok(true)
    }

    /// The entry that was read last.
    fn record(&self) -> &Record {
        self.reader.record()
    }
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
        let length = (source.size() / 64).clamp(TAIL_BYTES_LEAST, TAIL_BYTES);
        let start = source.size().saturating_sub(length);
        Ok(Self { start, bytes: read_exactly(source, start, source.size() - start)? })
    }

    /// Reads more, so that it begins at `start` at the latest.
    fn reach(&mut self, source: &dyn Ranges, start: u64) -> Result<(), Error> {
        if start < self.start {
            let mut bytes = read_exactly(source, start, self.start - start)?;
            bytes.append(&mut self.bytes);
            *self = Self { start, bytes };
        }
        Ok(())
    }

    /// The footer of the index, and where it ends. The seek table behind it may be of any length that fits its frames.
    fn footer(&mut self, source: &dyn Ranges) -> Result<Option<(Footer, u64)>, Error> {
        let size = self.start + self.bytes.len() as u64;
        let Some((_, seek)) = self.bytes.split_last_chunk::<{ SEEK_FOOTER as usize }>() else {
            return Ok(None);
        };
        let [a, b, c, d, _, end @ ..] = *seek;
        let count = u64::from(u32::from_le_bytes([a, b, c, d]));
        if u32::from_le_bytes(end) != SEEK_END || count > FRAMES_MAX + 1 {
            return Ok(None);
        }
        let Some(index_end) = size.checked_sub(8 + 8 * count + SEEK_FOOTER) else { return Ok(None) };
        let Some(start) = index_end.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
        if start < self.start {
            self.reach(source, index_end.saturating_sub(TAIL_BYTES))?;
        }
        if self.read_already(index_end, 4).as_deref() != Some(&SEEK_MAGIC.to_le_bytes()) {
            return Ok(None);
        }
        let bytes = self.read_already(start, FOOTER_BYTES as u64).unwrap_or_default();
        let footer = bytes.first_chunk().map(Footer::read).transpose()?.flatten();
        Ok(footer.map(|footer| (footer, index_end)))
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
