//! What is to be made of each frame.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};

use sha2::Sha256;

use super::super::error::malformed;
use super::super::meta::{PageWriter, Record};
use super::super::{Error, Frame, FrameKind, Index};
use super::chunks::Here;
use super::locations::Locations;
use crate::release::tree::NewFile;
use crate::types::Digest;
use crate::types::entry::Kind;

const PART: &str = "the index";

/// A file whose content comes in several frames.
pub struct Large {
    pub record: Record,
    /// Its number among all files.
    pub number: usize,
    /// How many bytes it has.
    pub size: u64,
    pub progress: Mutex<LargeProgress>,
    /// Tells the threads that wait with a later chunk that one was written.
    pub was_written: Condvar,
}

/// How far the writing of a large file is. Its chunks are written one after the other, since they are hashed.
#[derive(Default)]
pub struct LargeProgress {
    /// Opened by whoever comes first.
    pub file: Option<NewFile>,
    /// Of all bytes that were written.
    pub hasher: Sha256,
    pub written: u64,
}

/// What is to be made of one frame.
#[derive(Default)]
pub struct Work {
    /// Small files, in the order in which they are in the frame, written like a page: compact, for there may be many.
    files: PageWriter,
    /// Their numbers among all files.
    numbers: Vec<u32>,
    /// A large file whose header ends the frame.
    pub header: Option<Box<Record>>,
    /// A part of a large file, and where in it the frame begins.
    pub chunk: Option<(Arc<Large>, u64)>,
}

impl Work {
    /// The small files with their numbers.
    pub fn files(self) -> impl Iterator<Item = Result<(Record, usize), Error>> {
        let mut writer = self.files;
        let numbers = self.numbers.into_iter().map(|number| number as usize);
        writer.take_entries().zip(numbers).map(|(record, number)| Ok((record?, number)))
    }
}

/// What is to be made of the frames of a release.
pub struct Plan {
    pub frames: Vec<Frame>,
    /// Where each frame begins in the archive.
    pub starts: Vec<u64>,
    /// Where each frame begins in the tar.
    pub plain_starts: Vec<u64>,
    /// The frames that are needed.
    pub work: BTreeMap<usize, Work>,
    /// Chunks that are needed, and are in files of this node.
    pub here: BTreeMap<usize, (Work, Here)>,
    locations: Locations,
}

impl Plan {
    /// Reads what there is of frames.
    pub fn new(index: &Index<'_>) -> Result<Self, Error> {
        let frames = index.frames()?;
        let sums = |length: fn(&Frame) -> u32| -> Vec<u64> {
            let mut sum = 0;
            let mut start = |frame| {
                sum += u64::from(length(frame));
                sum - u64::from(length(frame))
            };
            frames.iter().map(&mut start).collect()
        };
        let (starts, plain_starts) = (sums(|frame| frame.size), sums(|frame| frame.plain));
        Ok(Self { frames, starts, plain_starts, ..Self::empty() })
    }

    /// Adds a file that is to be read from the archive. With `all`, so are all others: then headers of large files are
    /// looked at, too.
    pub fn add(&mut self, index: &Index<'_>, record: &Record, number: usize, all: bool) -> Result<(), Error> {
        let Kind::File { size, .. } = record.entry.kind else { return Ok(()) };
        let first = self.locations.get(index, number)?;
        let frame = self.frames.get(first).ok_or(malformed(PART, "a location names no frame"))?;
        match frame.kind {
            FrameKind::Group => {
                let work = self.work.entry(first).or_default();
                work.files.add(record);
                work.numbers.push(u32::try_from(number).map_err(|_| malformed(PART, "too many files"))?);
            }
            FrameKind::Chunk => {
                if all {
                    let before = first.checked_sub(1).ok_or(malformed(PART, "a large file has no header"))?;
                    self.work.entry(before).or_default().header = Some(Box::new(record.clone()));
                }
                self.add_chunks(record, number, size, first)?;
            }
            FrameKind::Links | FrameKind::HardLinks | FrameKind::End => {
                return Err(malformed(PART, "a location names a frame without files"));
            }
        }
        Ok(())
    }

    pub fn empty() -> Self {
        Self {
            frames: Vec::new(),
            starts: Vec::new(),
            plain_starts: Vec::new(),
            work: BTreeMap::new(),
            here: BTreeMap::new(),
            locations: Locations::default(),
        }
    }

    /// Adds the frames with members that have no content, to be compared with the index.
    pub fn add_names(&mut self) -> Result<(), Error> {
        for (number, frame) in self.frames.iter().enumerate() {
            if frame.kind != FrameKind::Chunk {
                self.work.entry(number).or_default();
            } else if !self.work.contains_key(&number) {
                return Err(malformed(PART, "a chunk belongs to no file"));
            }
        }
        Ok(())
    }

    /// The contents that are needed.
    pub fn contents(&self) -> Result<HashSet<Digest>, Error> {
        let mut contents = HashSet::new();
        let mut add = |record: &Record| {
            if let Kind::File { size: 1.., content } = record.entry.kind {
                contents.insert(content);
            }
        };
        for work in self.work.values() {
            work.chunk.iter().for_each(|(large, _)| add(&large.record));
            for record in work.files.entries() {
                add(&record?);
            }
        }
        Ok(contents)
    }

    /// Drops the files that `is_done` says to be done, and frames of which nothing is left.
    pub fn reduce(
        &mut self,
        is_done: &mut dyn FnMut(&Record, usize) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut done_large = HashSet::new();
        for (frame, work) in std::mem::take(&mut self.work) {
            let Work { mut files, numbers, header, chunk } = work;
            let chunk = match chunk {
                Some((large, 0)) if is_done(&large.record, large.number)? => {
                    done_large.insert(large.number);
                    None
                }
                Some((large, _)) if done_large.contains(&large.number) => None,
                chunk => chunk,
            };
            let mut left = Work { header, chunk, ..Work::default() };
            for (record, number) in files.take_entries().zip(numbers) {
                let record = record?;
                if !is_done(&record, number as usize)? {
                    left.files.add(&record);
                    left.numbers.push(number);
                }
            }
            if left.chunk.is_some() || !left.files.is_empty() {
                self.work.insert(frame, left);
            }
        }
        Ok(())
    }

    fn add_chunks(&mut self, record: &Record, number: usize, size: u64, first: usize) -> Result<(), Error> {
        let large = Arc::new(Large {
            record: record.clone(),
            number,
            size,
            progress: Mutex::default(),
            was_written: Condvar::new(),
        });
        let mut offset = 0;
        for at in first.. {
            let frame = self.frames.get(at).filter(|frame| frame.kind == FrameKind::Chunk);
            let frame = frame.ok_or(malformed(PART, "a large file has too few chunks"))?;
            let work = self.work.entry(at).or_default();
            if work.chunk.replace((Arc::clone(&large), offset)).is_some() {
                return Err(malformed(PART, "two files have the same chunk"));
            }
            offset += u64::from(frame.plain);
            if offset >= size {
                break;
            }
        }
        if offset == size {
            Ok(())
        } else {
            Err(malformed(PART, "the chunks of a large file have another size"))
        }
    }
}
