//! Whether an index agrees with itself: all that can be known of a release before its first byte is written.
//!
//! ```text
//! entries   path order, directories before what is in them, owners, what this node lets in: over all pages
//! sums      entries, bytes, largest frame, highest generation: what the root says of them
//! links     a further hard link says what its first name says, and that is no further one
//! places    each member has its place in the frames, in the order in which tar programs must meet them
//! tree      the digest of all entries
//! ```
//! Pages that a base has, too, are read as well: they may be right in its tree, and wrong in this one.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::super::error::malformed;
use super::super::member::{END, header_length, padding};
use super::super::{Error, Frame, FrameKind, Index, Record};
use super::check_totals;
use super::locations::Locations;
use super::owner::{Owner, admit};
use crate::release::archive::Limits;
use crate::release::tree::Times;
use crate::types::Digest;
use crate::types::entry::{Entry, Kind, TreeDigest};

const PART: &str = "the index";

/// Bytes of the extended attributes of all entries together: they are held in memory.
const ALL_XATTRS_MAX: u64 = 16 << 20;

/// The digest of the tree that an index describes: as it says, and as it is on disk when this process cannot give
/// files away, or the file system does not have all times.
#[derive(Clone, Copy, Debug)]
pub struct Trees {
    pub declared: Digest,
    /// As it is on disk.
    pub here: Digest,
}

/// Checks an index from its first to its last entry.
///
/// # Errors
/// When any two of its parts disagree, or this node does not let the release in.
pub fn check(index: &Index<'_>, limits: &Limits, owner: Owner, times: Times) -> Result<Trees, Error> {
    check_totals(index, limits)?;
    if index.root().entries == 0 {
        return Err(malformed("the release", "it has no entries"));
    }
    let frames = index.frames()?;
    index.check_surroundings(&frames)?;
    let (mut declared, mut here) = (TreeDigest::default(), TreeDigest::default());
    let is_as_declared = !owner.is_kept() && times == Times::ALL;
    let mut sums = Sums::default();
    let mut links = Links::default();
    let mut places = Places::new(index, &frames)?;
    index.records().each(&mut |record| {
        admit(&record.entry, limits)?;
        sums.add(record, index)?;
        places.add(record)?;
        links.add(&record.entry);
        declared.add(&record.entry);
        if !is_as_declared {
            let entry = owner.as_here(record.entry.clone());
            here.add(&Entry { mtime: times.kept(entry.mtime), ..entry });
        }
        Ok(())
    })?;
    sums.compare(index)?;
    places.finish()?;
    links.compare(index)?;
    let (declared, here) = (declared.finish(), here.finish());
    let wanted = index.root().tree;
    if declared != wanted {
        return Err(Error::Digest { part: "the tree", found: declared, wanted });
    }
    Ok(Trees { declared, here: if is_as_declared { declared } else { here } })
}

/// What the root sums up.
#[derive(Default)]
struct Sums {
    bytes: u64,
    xattrs: u64,
    generation: u64,
}

impl Sums {
    fn add(&mut self, record: &Record, index: &Index<'_>) -> Result<(), Error> {
        let entry = &record.entry;
        let xattrs = entry.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64);
        self.xattrs += xattrs.sum::<u64>();
        if self.xattrs > ALL_XATTRS_MAX {
            let rule = "the extended attributes of all entries are longer than 16 MiB";
            return Err(malformed("the release", rule));
        }
        if let Kind::File { size, .. } = entry.kind
            && record.has_content()
        {
            self.bytes = self.bytes.saturating_add(size);
            self.generation = self.generation.max(record.generation);
        }
        if self.bytes > index.root().plain { Err(Self::differ()) } else { Ok(()) }
    }

    fn compare(&self, index: &Index<'_>) -> Result<(), Error> {
        let root = index.root();
        // Entries and files were counted page by page.
        let is_right = (self.bytes, self.generation) == (root.plain, root.generation);
        if is_right { Ok(()) } else { Err(Self::differ()) }
    }

    fn differ() -> Error {
        malformed("the root of the index", "its sums and its entries differ")
    }
}

/// Fingerprints of the files that further hard links say to be names of.
#[derive(Default)]
struct Links {
    wanted: HashSet<[u8; 16]>,
}

impl Links {
    fn add(&mut self, entry: &Entry) {
        if let Some(first) = &entry.same_as {
            self.wanted.insert(fingerprint(first, entry));
        }
    }

    /// Looks for each of them once more, since their first names were read before.
    fn compare(mut self, index: &Index<'_>) -> Result<(), Error> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        index.records().each(&mut |record| {
            if record.has_content() {
                self.wanted.remove(&fingerprint(&record.entry.path, &record.entry));
            }
            Ok(())
        })?;
        if self.wanted.is_empty() {
            return Ok(());
        }
        for record in index.records() {
            let entry = record?.entry;
            if entry.same_as.as_ref().is_some_and(|first| self.wanted.contains(&fingerprint(first, &entry))) {
                let rule =
                    "its first name is no file with the same content, owner, mode, time and attributes";
                return Err(Error::Entry { path: entry.path, rule });
            }
        }
        Ok(())
    }
}

/// What a file and all its further names have in common. 128 bits: nobody finds two that are equal.
fn fingerprint(path: &[u8], entry: &Entry) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update((path.len() as u64).to_le_bytes());
    hasher.update(path);
    if let Kind::File { size, content } = &entry.kind {
        hasher.update(size.to_le_bytes());
        hasher.update(content.0);
    }
    for number in [entry.mode, entry.uid, entry.gid, entry.mtime.1] {
        hasher.update(number.to_le_bytes());
    }
    hasher.update(entry.mtime.0.to_le_bytes());
    for (name, value) in &entry.xattrs {
        for bytes in [name, value] {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
    let digest = Digest::from(hasher);
    let mut print = [0; 16];
    print.copy_from_slice(&digest.0[..16]);
    print
}

/// The frames that have the files of one generation.
struct Generation {
    first: usize,
    /// Where its next file may begin.
    next: usize,
    /// Where those of an older generation may begin.
    end: usize,
}

/// Where the members are: frames in their order, each with exactly the members that it must hold.
struct Places<'a> {
    index: &'a Index<'a>,
    frames: &'a [Frame],
    locations: Locations,
    /// Plain bytes that the members in each frame take.
    taken: Vec<u64>,
    generations: BTreeMap<u64, Generation>,
    file: usize,
    links: u64,
    hard_links: u64,
    end: u64,
}

impl<'a> Places<'a> {
    fn new(index: &'a Index<'a>, frames: &'a [Frame]) -> Result<Self, Error> {
        let rank = |frame: &Frame| match frame.kind {
            FrameKind::Links => 0,
            FrameKind::Group | FrameKind::Chunk => 1,
            FrameKind::HardLinks => 2,
            FrameKind::End => 3,
        };
        if !frames.is_sorted_by_key(rank) {
            return Err(malformed(PART, "its frames are not in the order of their kinds"));
        }
        Ok(Self {
            index,
            frames,
            locations: Locations::default(),
            taken: vec![0; frames.len()],
            generations: BTreeMap::new(),
            file: 0,
            links: 0,
            hard_links: 0,
            end: END as u64,
        })
    }

    fn add(&mut self, record: &Record) -> Result<(), Error> {
        let entry = &record.entry;
        let header = header_length(entry);
        match (&entry.kind, &entry.same_as) {
            (Kind::Directory, _) => self.end += header,
            (Kind::Link { .. }, _) => self.links += header,
            (Kind::File { .. }, Some(_)) => self.hard_links += header,
            (Kind::File { size, .. }, None) => self.add_file(record.generation, header, *size)?,
        }
        Ok(())
    }

    fn add_file(&mut self, generation: u64, header: u64, size: u64) -> Result<(), Error> {
        let first = self.locations.get(self.index, self.file)?;
        self.file += 1;
        let is_chunk = self.frame(first)?.kind == FrameKind::Chunk && size > 0;
        let begin = if is_chunk { first.checked_sub(1).ok_or(wrong_place())? } else { first };
        if self.frame(begin)?.kind != FrameKind::Group {
            return Err(wrong_place());
        }
        let next = if is_chunk { self.add_chunks(first, size)? } else { begin };
        let zeros = padding(size) as u64;
        self.take(begin, if is_chunk { header } else { header.saturating_add(size).saturating_add(zeros) })?;
        if is_chunk && zeros > 0 {
            if self.frame(next)?.kind != FrameKind::Group {
                return Err(wrong_place());
            }
            self.take(next, zeros)?;
        }
        if self.generations.len() >= self.frames.len() && !self.generations.contains_key(&generation) {
            return Err(malformed(PART, "it has more generations than frames"));
        }
        let fresh = Generation { first: begin, next: begin, end: begin };
        let of_generation = self.generations.entry(generation).or_insert(fresh);
        if begin < of_generation.next {
            return Err(malformed(PART, "the files of a generation are not in path order"));
        }
        of_generation.next = next;
        of_generation.end = if is_chunk { next } else { next + 1 };
        Ok(())
    }

    /// Claims the chunks of a large file; gives the number of the frame after them.
    fn add_chunks(&mut self, first: usize, size: u64) -> Result<usize, Error> {
        let mut left = size;
        let mut at = first;
        while left > 0 {
            let frame = self.frame(at)?;
            if frame.kind != FrameKind::Chunk || self.taken[at] > 0 {
                return Err(wrong_place());
            }
            self.taken[at] = u64::from(frame.plain);
            left = left.checked_sub(u64::from(frame.plain)).ok_or(wrong_place())?;
            at += 1;
        }
        Ok(at)
    }

    fn take(&mut self, frame: usize, bytes: u64) -> Result<(), Error> {
        let taken = self.taken.get_mut(frame).ok_or(wrong_place())?;
        *taken = taken.saturating_add(bytes);
        if *taken > u64::from(self.frames[frame].plain) { Err(wrong_size()) } else { Ok(()) }
    }

    fn frame(&self, number: usize) -> Result<Frame, Error> {
        self.frames.get(number).copied().ok_or(wrong_place())
    }

    fn finish(self) -> Result<(), Error> {
        let all = |kind| -> u64 {
            let frames = self.frames.iter().filter(|frame| frame.kind == kind);
            frames.map(|frame| u64::from(frame.plain)).sum()
        };
        let mut files = self.frames.iter().zip(&self.taken);
        let is_filled = files.all(|(frame, taken)| match frame.kind {
            FrameKind::Group | FrameKind::Chunk => *taken == u64::from(frame.plain),
            FrameKind::Links | FrameKind::HardLinks | FrameKind::End => true,
        });
        let is_right = is_filled
            && all(FrameKind::Links) == self.links
            && all(FrameKind::HardLinks) == self.hard_links
            && all(FrameKind::End) == self.end;
        if !is_right {
            return Err(wrong_size());
        }
        // The newest generation comes first, and each begins where the one before has ended.
        let newest_first = self.generations.into_values().rev();
        if newest_first.is_sorted_by(|newer, older| newer.end <= older.first) {
            Ok(())
        } else {
            Err(malformed(PART, "its generations are not in their order"))
        }
    }
}

fn wrong_place() -> Error {
    malformed(PART, "a location is not where the content of a file can begin")
}

fn wrong_size() -> Error {
    malformed(PART, "a frame has not the size of the members that belong there")
}
