//! What is kept of a staged release: its index, and the inode that each file got.
//!
//! ```text
//! pages | root | footer      as in the archive
//! seen                       zstd: files, then of each in path order its inode number, as the signed difference to
//!                            that of the file before it
//! sha256[32] of seen, compressed u64, plain u64, ident[8]
//! ```
//! With size and time, which the index has, the inode number tells whether a file still is what staging made. A record
//! that is broken in any way is no error: the release is just no base for others.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::Page;
use super::codec::{Cursor, put, put_signed};
use super::error::Error;
use super::parts::Parts;
use super::reader::{Index, read_exactly};
use super::verified::Verified;
use crate::release::source::{LocalFile, Ranges};
use crate::sys::disk::Context as _;
use crate::types::Digest;

/// What lies between two pages is read along up to this length: the pages are small, and many.
const GAP: u64 = 32 << 10;
const IDENT: [u8; 8] = *b"CUTSEEN\x01";
const TRAILER: u64 = 32 + 8 + 8 + 8;
/// Plain bytes of what staging saw: a number of ten bytes at most for each file.
const SEEN_MAX: u64 = 10 * (super::root::ENTRIES_MAX + 1);
const PART: &str = "the record of a staged release";
const LEVEL: i32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The inode number of each file, in path order.
    pub inodes: Vec<u64>,
}

/// A release that was staged with an index.
pub struct Installed {
    pub index: Index<'static>,
    pub seen: Seen,
}

impl Installed {
    /// Reads the record at `path`; `None` when there is none that can be used.
    pub fn open(path: &Path) -> Option<Self> {
        KeptIndex::open(path)?.with_inodes()
    }
}

/// The index in the record of a release; the inode numbers are not read yet, since few records are looked at for them.
pub struct KeptIndex {
    pub index: Index<'static>,
    /// The inode numbers as they are in the record.
    inodes: Inodes,
}

/// Where the inode numbers are, and what they must be.
struct Inodes {
    file: Arc<LocalFile>,
    start: u64,
    compressed: u64,
    plain: u64,
    digest: Digest,
}

impl KeptIndex {
    /// Reads the record at `path`; `None` when there is none that can be used.
    pub fn open(path: &Path) -> Option<Self> {
        usable(Self::read(path))
    }

    /// Reads the inode numbers, too; `None` when they cannot be used.
    pub fn with_inodes(self) -> Option<Installed> {
        let Self { index, inodes } = self;
        usable(inodes.read(index.root().files)).map(|seen| Installed { index, seen })
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let file = Arc::new(LocalFile::new(File::open(path).context("open", path)?, path)?);
        let size = file.size();
        let trailer = read_exactly(&*file, size.saturating_sub(TRAILER), TRAILER.min(size))?;
        let mut cursor = Cursor::new(PART, &trailer);
        let digest = cursor.digest()?;
        let compressed = cursor.little64()?;
        let plain = cursor.little64()?;
        let start = (cursor.take(8)? == IDENT).then(|| size.checked_sub(TRAILER)?.checked_sub(compressed));
        let start = start.flatten().filter(|_| plain <= SEEN_MAX);
        let start = start.ok_or(super::error::malformed(PART, "it is none"))?;
        let index = Index::open_kept(Arc::clone(&file) as Arc<dyn Ranges>, start)?;
        Ok(Self { index, inodes: Inodes { file, start, compressed, plain, digest } })
    }
}

impl Inodes {
    fn read(&self, files: u64) -> Result<Seen, Error> {
        let bytes = read_exactly(&*self.file, self.start, self.compressed)?;
        let bytes = Verified::compare(PART, bytes, self.digest)?;
        let seen = Seen::read(&bytes.decompress(self.plain)?)?;
        match seen.inodes.len() as u64 == files {
            true => Ok(seen),
            false => Err(super::error::malformed(PART, "it has another number of files than the index")),
        }
    }
}

fn usable<T>(read: Result<T, Error>) -> Option<T> {
    read.inspect_err(|error| tracing::debug!(%error, "no record of this release")).ok()
}

impl Seen {
    /// Appends it to a record that has the index already.
    pub fn append(&self, path: &Path) -> Result<(), Error> {
        let mut plain = Vec::new();
        put(&mut plain, self.inodes.len() as u64);
        let mut last = 0u64;
        for inode in &self.inodes {
            put_signed(&mut plain, inode.wrapping_sub(last).cast_signed());
            last = *inode;
        }
        let bytes = zstd::bulk::compress(&plain, LEVEL).map_err(Error::Read)?;
        let mut tail = Digest::of(&bytes).0.to_vec();
        tail.extend((bytes.len() as u64).to_le_bytes());
        tail.extend((plain.len() as u64).to_le_bytes());
        tail.extend(IDENT);
        let opened = File::options().append(true).open(path).context("open", path)?;
        let mut file = opened;
        file.write_all(&bytes).and_then(|()| file.write_all(&tail)).context("write", path)?;
        Ok(())
    }

    fn read(plain: &Verified) -> Result<Self, Error> {
        let mut cursor = Cursor::new(PART, plain.as_ref());
        let count = cursor.number_to(super::root::ENTRIES_MAX, "it has too many files")?;
        let mut inodes = Vec::new();
        let mut last = 0u64;
        for _ in 0..count {
            last = last.wrapping_add_signed(cursor.signed()?);
            inodes.push(last);
        }
        cursor.finish()?;
        Ok(Self { inodes })
    }
}

/// Pages of an index that are read at once: of `pages` as they lie in the archive those that `is_here` does not have, with
/// what lies in small gaps between them, since a further request costs more.
pub fn page_runs(pages: &[&Page], is_here: impl Fn(&Page) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, page) in pages.iter().enumerate().filter(|(_, page)| !is_here(page)) {
        match runs.last_mut() {
            Some(run) if page.offset <= end_of(pages[run.end - 1]).saturating_add(GAP) => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn end_of(page: &Page) -> u64 {
    page.offset.saturating_add(page.size)
}

/// Writes the index of a release to `path`: pages that `base` has, too, come from there, the others from the archive.
/// Gives the number of bytes read from the archive.
pub fn keep_index(
    index: &Index<'_>,
    base: Option<&Installed>,
    parts: Option<&Parts<'_>>,
    path: &Path,
) -> Result<u64, Error> {
    let here: HashMap<Digest, &Page> =
        base.iter().flat_map(|base| base.index.root().pages.iter()).map(|page| (page.digest, page)).collect();
    let created = File::create(path).context("write", path)?;
    let mut file = std::io::BufWriter::with_capacity(256 << 10, created);
    let pages = index.root().pages_as_they_lie();
    let mut runs = page_runs(&pages, |page| here.contains_key(&page.digest)).into_iter().peekable();
    let (mut fetched, mut at) = (0, 0);
    while let Some(page) = pages.get(at) {
        if let Some(run) = runs.next_if(|run| run.start == at) {
            let length = end_of(pages[run.end - 1]) - page.offset;
            let mut reader = index.source().read_range(page.offset, length)?;
            for page in &pages[run.clone()] {
                let mut bytes = vec![0; usize::try_from(page.size).unwrap_or(0)];
                reader.read_exact(&mut bytes).map_err(Error::reading)?;
                let bytes = Verified::compare("a page of the index", bytes, page.digest)?;
                if let Some(parts) = parts {
                    parts.keep(page.offset, &bytes)?;
                }
                file.write_all(bytes.as_ref()).context("write", path)?;
            }
            fetched += length;
            at = run.end;
        } else if let (Some(old), Some(base)) = (here.get(&page.digest), base) {
            file.write_all(&base.index.page_bytes(old)?).context("write", path)?;
            at += 1;
        }
    }
    file.write_all(index.tail_bytes()).context("write", path)?;
    file.flush().context("write", path)?;
    Ok(fetched)
}

#[cfg(test)]
mod tests {
    use super::super::PageKind;
    use super::*;

    #[test]
    fn pages_in_small_gaps_are_read_along() {
        let size = GAP / 2;
        let page = |at: u64| Page {
            kind: PageKind::Meta,
            items: 1,
            files: 1,
            first: Vec::new(),
            offset: at * size,
            size,
            plain: size,
            digest: Digest::of(&at.to_le_bytes()),
        };
        let pages: Vec<Page> = (0..12).map(page).collect();
        let pages: Vec<&Page> = pages.iter().collect();
        let runs = |missing: &[u64]| {
            let missing: Vec<Digest> = missing.iter().map(|at| page(*at).digest).collect();
            page_runs(&pages, |page| !missing.contains(&page.digest))
        };
        assert!(runs(&[]).is_empty());
        assert_eq!(runs(&[0, 1, 4, 8, 11]), [0..5, 8..12]);
        assert_eq!(runs(&[3, 7]), [3..4, 7..8]);
    }
}
