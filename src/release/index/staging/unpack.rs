//! Frames become files: verified, decompressed, compared with the index, written.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use sha2::Digest as _;

use super::super::error::malformed;
use super::super::member::{self, BLOCK, padding};
use super::super::meta::Record;
use super::super::{Error, Frame, FrameKind, Parts, Verified};
use super::chunks::Here;
use super::failure::Failure;
use super::owner::Owner;
use super::work::{Large, Work};
use crate::release::tree::{NewFile, Root, TreeWriter};
use crate::sys::disk::Context as _;
use crate::types::Digest;
use crate::types::entry::{Entry, Kind};
use crate::types::progress::Progress;

const FRAME: &str = "a frame of the archive";
/// Zeros of so many bytes become a hole.
const HOLE: usize = 64 << 10;
/// Who waits for another thread looks so often whether that one has failed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A frame as it came from the archive, and what is to be made of it.
pub struct Job {
    pub frame: Frame,
    /// Its bytes.
    pub bytes: Bytes,
    /// Where it begins in the archive.
    pub start: u64,
    /// Where it begins in the tar.
    pub plain_start: u64,
    /// What is to be made.
    pub work: Work,
}

/// Where the bytes of a frame are.
pub enum Bytes {
    /// Here, as they came from the archive.
    Read(Vec<u8>),
    /// Here, not compressed, in a file whose content was compared.
    Here(Here),
}

pub struct Shared<'a> {
    pub root: Arc<Root>,
    /// Who owns what is made.
    pub owner: Owner,
    /// Whether the work has all files of each frame.
    pub is_complete: bool,
    /// The inode of each file.
    pub inodes: &'a [AtomicU64],
    /// Where frames are kept that were compared.
    pub parts: Option<&'a Parts<'a>>,
    /// Whether a thread has failed.
    pub failure: &'a Failure,
    /// Bytes written so far.
    pub written: &'a AtomicU64,
    pub progress: &'a dyn Progress,
}

/// Makes files of frames; one for each thread.
pub struct Unpacker<'a> {
    shared: &'a Shared<'a>,
    writer: TreeWriter,
    decompressor: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    /// An unpacker of its own thread.
    pub fn new(shared: &'a Shared<'a>) -> Result<Self, Error> {
        let decompressor = zstd::bulk::Decompressor::new().map_err(Error::Read)?;
        let writer = TreeWriter::new(Arc::clone(&shared.root));
        Ok(Self { shared, writer, decompressor, plain: Vec::new() })
    }

    /// Makes the files of one frame.
    pub fn unpack(&mut self, mut job: Job) -> Result<(), Error> {
        let plain = match job.bytes {
            Bytes::Read(bytes) => self.decompress(&job.frame, job.start, &bytes)?,
            Bytes::Here(here) => self.copy(&job.frame, &here)?,
        };
        let made = match job.frame.kind {
            FrameKind::Chunk => match job.work.chunk.take() {
                Some((large, offset)) => self.chunk(&large, offset, &plain),
                None => Ok(()),
            },
            _ => self.group(&plain, job.plain_start, job.work),
        };
        self.plain = plain;
        made
    }

    /// The plain bytes of a frame that is what it must be.
    pub fn decompress(&mut self, frame: &Frame, start: u64, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let verified = Verified::compare(FRAME, bytes, frame.digest)?;
        if let Some(parts) = self.shared.parts {
            parts.keep(start, &verified)?;
        }
        let mut plain = std::mem::take(&mut self.plain);
        verified.decompress_into(&mut self.decompressor, &mut plain, frame.plain as usize)?;
        Ok(plain)
    }

    /// The plain bytes of a chunk that is in a file.
    fn copy(&mut self, frame: &Frame, here: &Here) -> Result<Vec<u8>, Error> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(frame.plain as usize, 0);
        here.file.read_exact_at(&mut plain, here.offset).map_err(Error::Read)?;
        Ok(plain)
    }

    fn group(&mut self, plain: &[u8], plain_start: u64, mut work: Work) -> Result<(), Error> {
        let header = work.header.take();
        let mut rest = skip_zeros(plain, padding(plain_start))?;
        let (mut bytes, mut files) = (0, 0);
        for file in work.files() {
            let (record, number) = file?;
            let content;
            (content, rest) = self.find(rest, &record.entry)?;
            self.small(&record, number, content)?;
            bytes += content.len() as u64;
            files += 1;
        }
        if self.shared.is_complete {
            let wanted = header.map_or_else(Vec::new, |record| member::header(&record.entry));
            if rest != wanted {
                return Err(malformed(FRAME, "it has members that the index does not have"));
            }
        }
        self.done(bytes, files);
        Ok(())
    }

    fn done(&self, bytes: u64, files: u64) {
        self.shared.written.fetch_add(bytes, Ordering::Relaxed);
        // The bar counts what is read of the archive.
        self.shared.progress.advance(0, files);
    }

    /// The content of an entry's member, and what follows it. Members of others are skipped where they may be there.
    fn find<'b>(&self, mut rest: &'b [u8], entry: &Entry) -> Result<(&'b [u8], &'b [u8]), Error> {
        let differs = |rule| Error::Differs { path: entry.path.clone(), rule };
        let header = member::header(entry);
        let Kind::File { size, .. } = entry.kind else { return Err(differs("it is no file")) };
        let size = usize::try_from(size).map_err(|_| differs("it is longer than its frame"))?;
        loop {
            if let Some(after) = rest.strip_prefix(header.as_slice()) {
                let (content, after) =
                    after.split_at_checked(size).ok_or(differs("it is longer than its frame"))?;
                return Ok((content, skip_zeros(after, padding(size as u64))?));
            }
            if self.shared.is_complete {
                return Err(differs("the member's header is not what the index says"));
            }
            rest = skip_member(rest).ok_or(differs("its frame has no such member"))?;
        }
    }

    fn small(&mut self, record: &Record, number: usize, content: &[u8]) -> Result<(), Error> {
        check_content(&record.entry, Digest::of(content))?;
        let meta = self.shared.owner.meta(&record.entry);
        let mut file = self.writer.file(&record.entry.path, &meta)?;
        if !content.is_empty() {
            file.write(content, 0)?;
        }
        self.see(&file, number)?;
        Ok(file.finish(content.len() as u64, &meta)?)
    }

    fn see(&self, file: &NewFile, number: usize) -> Result<(), Error> {
        let found = nix::sys::stat::fstat(file.as_fd()).context("look at", file.path())?;
        if let Some(inode) = self.shared.inodes.get(number) {
            inode.store(found.st_ino, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes a chunk when all before it have been written. These are in other hands already, since frames are given
    /// away in their order.
    fn chunk(&mut self, large: &Large, offset: u64, plain: &[u8]) -> Result<(), Error> {
        let entry = &large.record.entry;
        let meta = self.shared.owner.meta(entry);
        let mut progress = large.progress.lock().unwrap_or_else(PoisonError::into_inner);
        while progress.written != offset {
            if self.shared.failure.is_set() {
                return Ok(());
            }
            let waited = large.was_written.wait_timeout(progress, LOOK_AGAIN);
            (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let mut file = match progress.file.take() {
            Some(file) => file,
            None => {
                let file = self.writer.file(&entry.path, &meta)?;
                self.see(&file, large.number)?;
                file
            }
        };
        write_with_holes(&mut file, plain, offset)?;
        progress.hasher.update(plain);
        progress.written += plain.len() as u64;
        let is_last = progress.written == large.size;
        if is_last {
            check_content(entry, std::mem::take(&mut progress.hasher).into())?;
            file.finish(large.size, &meta)?;
        } else {
            progress.file = Some(file);
        }
        drop(progress);
        large.was_written.notify_all();
        self.done(plain.len() as u64, u64::from(is_last));
        Ok(())
    }
}

/// Compares a content with its entry: it is taken over into later releases by its digest, whoever vouches for this one.
fn check_content(entry: &Entry, found: Digest) -> Result<(), Error> {
    match &entry.kind {
        Kind::File { content, .. } if *content == found => Ok(()),
        _ => {
            let rule = "its content has another digest than the index says";
            Err(Error::Differs { path: entry.path.clone(), rule })
        }
    }
}

/// Writes all but long zeros.
fn write_with_holes(file: &mut NewFile, bytes: &[u8], offset: u64) -> Result<(), Error> {
    let mut start = 0;
    let pieces = bytes.len().div_ceil(HOLE);
    for piece in 0..=pieces {
        let at = piece * HOLE;
        let is_hole = bytes.get(at..at + HOLE).is_some_and(|piece| piece.iter().all(|byte| *byte == 0));
        if is_hole || piece == pieces {
            let end = at.min(bytes.len());
            if start < end {
                file.write(&bytes[start..end], offset + start as u64)?;
            }
            start = at + HOLE;
        }
    }
    Ok(())
}

fn skip_zeros(bytes: &[u8], count: usize) -> Result<&[u8], Error> {
    let (zeros, rest) = bytes.split_at_checked(count).ok_or(malformed(FRAME, "a padding is cut"))?;
    if zeros.iter().all(|byte| *byte == 0) {
        Ok(rest)
    } else {
        Err(malformed(FRAME, "a padding is not zero"))
    }
}

/// What follows the first member, with its extended header.
fn skip_member(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let block = rest.get(..BLOCK)?;
        let digits = std::str::from_utf8(&block[124..135]).ok()?;
        let size = u64::from_str_radix(digits, 8).ok()?;
        let length = usize::try_from(size).ok()? + padding(size);
        rest = rest.get(BLOCK + length..)?;
        if block[156] != b'x' {
            return Some(rest);
        }
    }
}
