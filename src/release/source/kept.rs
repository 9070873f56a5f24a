//! Keeps what was read of an archive, so that staging that was interrupted reads nothing twice.
//!
//! ```text
//! <path>          the parts that were read, each at its place
//! <path>.map      identity[32], then of each part: start u64, end u64, the lowest byte first
//! ```
//! Neither is synced: a power cut may leave parts that the map says to be there and that are not; and a part is kept
//! before its digest is compared, so that a transfer that is cut again and again comes to its end. Whoever reads them
//! verifies them, throws all away when anything fails, and reads once more without them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, Ranges};
use crate::sys::disk::{Context as _, Disk};
use crate::types::Digest;

/// After so many bytes the map is brought up to date.
const NOTE_AFTER: u64 = 256 << 10;

/// An archive of which what was read is kept in a file.
pub struct Kept<'a> {
    inner: Arc<dyn Ranges + 'a>,
    file: Arc<File>,
    map: Arc<Mutex<Map>>,
}

/// Which parts are there: where each begins and ends; they do not touch.
struct Map {
    parts: BTreeMap<u64, u64>,
    file: File,
}

impl<'a> Kept<'a> {
    /// Keeps parts of `inner` at `path`; those that are there already count if they are of the same archive.
    pub fn open(
        inner: Arc<dyn Ranges + 'a>,
        path: &Path,
        identity: Digest,
        disk: &Disk,
    ) -> Result<Self, Error> {
        disk.ask("fetch into", path)?;
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            options.open(path).context("open", path)
        };
        let (file, mut notes) = (open(path)?, open(&map_of(path))?);
        let mut bytes = Vec::new();
        notes.read_to_end(&mut bytes).context("read", path)?;
        let mut map = Map { parts: BTreeMap::new(), file: notes };
        match bytes.strip_prefix(&identity.0) {
            Some(parts) => map.add_all(parts, inner.size()),
            None => {
                map.file.set_len(0).context("write", path)?;
                map.file.write_all_at(&identity.0, 0).context("write", path)?;
                file.set_len(0).context("write", path)?;
            }
        }
        Ok(Self { inner, file: Arc::new(file), map: Arc::new(Mutex::new(map)) })
    }

    /// How many bytes are kept.
    pub fn kept_bytes(&self) -> u64 {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.parts.iter().map(|(start, end)| end - start).sum()
    }

    /// What is missing of `ranges` in the archive that is kept at `path`. Changes nothing.
    pub fn missing(path: &Path, identity: Digest, size: u64, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let Ok(file) = File::open(map_of(path)) else { return ranges.to_vec() };
        let mut notes = Vec::new();
        // What cannot be read is not there.
        drop((&file).read_to_end(&mut notes));
        let mut map = Map { parts: BTreeMap::new(), file };
        map.add_all(notes.strip_prefix(&identity.0).unwrap_or_default(), size);
        let pieces = ranges.iter().flat_map(|range| map.pieces(range.start, range.end));
        pieces.filter(|piece| !piece.is_kept).map(|piece| piece.start..piece.end).collect()
    }

    /// Throws away what is kept at `path`.
    pub fn forget(path: &Path, disk: &Disk) -> Result<(), Error> {
        disk.remove_file(&map_of(path))?;
        Ok(disk.remove_file(path)?)
    }
}

/// Where the map of the parts at `path` is.
fn map_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".map");
    name.into()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Map {
    /// Adds the parts that a file of them names, in an archive of this size.
    fn add_all(&mut self, notes: &[u8], size: u64) {
        for part in notes.chunks_exact(16) {
            self.add(number(&part[..8]), number(&part[8..]).min(size));
        }
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((other, other_end)) = self.parts.range(..=end).next_back() {
            let (other, other_end) = (*other, *other_end);
            if other_end < start {
                break;
            }
            self.parts.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        self.parts.insert(start, end);
    }

    fn note(&mut self, start: u64, end: u64) -> io::Result<()> {
        if start < end {
            self.add(start, end);
            let mut part = [0; 16];
            part[..8].copy_from_slice(&start.to_le_bytes());
            part[8..].copy_from_slice(&end.to_le_bytes());
            io::Seek::seek(&mut self.file, io::SeekFrom::End(0))?;
            self.file.write_all(&part)?;
        }
        Ok(())
    }

    /// Cuts a range into pieces that are all there or all missing.
    fn pieces(&self, start: u64, end: u64) -> VecDeque<Piece> {
        let mut pieces = VecDeque::new();
        let mut at = start;
        let before = self.parts.range(..=start).next_back().filter(|(_, end)| **end > start);
        let first = before.map_or(start, |(start, _)| *start);
        for (part, part_end) in self.parts.range(first..end) {
            let (part, part_end) = ((*part).max(start), (*part_end).min(end));
            if at < part {
                pieces.push_back(Piece { start: at, end: part, is_kept: false });
            }
            pieces.push_back(Piece { start: part, end: part_end, is_kept: true });
            at = part_end;
        }
        if at < end {
            pieces.push_back(Piece { start: at, end, is_kept: false });
        }
        pieces
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    is_kept: bool,
}

impl Ranges for Kept<'_> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        let end = start.checked_add(length).filter(|end| *end <= self.size());
        let Some(end) = end else { return self.inner.read_range(start, length) };
        let pieces = self.map.lock().unwrap_or_else(PoisonError::into_inner).pieces(start, end);
        // What is missing is asked for here, while the archive can be borrowed: seldom more than one piece.
        let mut readers = VecDeque::new();
        for piece in &pieces {
            let reader = (!piece.is_kept)
                .then(|| self.inner.read_range(piece.start, piece.end - piece.start))
                .transpose()?;
            readers.push_back((*piece, reader));
        }
        let (file, map) = (Arc::clone(&self.file), Arc::clone(&self.map));
        Ok(Box::new(Reader { readers, file, map, noted: None }))
    }
}

struct Reader {
    readers: VecDeque<(Piece, Option<Box<dyn Read + Send>>)>,
    file: Arc<File>,
    map: Arc<Mutex<Map>>,
    /// The part that was written and is not in the map yet.
    noted: Option<(u64, u64)>,
}

impl Reader {
    fn note(&mut self) -> io::Result<()> {
        match self.noted.take() {
            Some((start, end)) => self.map.lock().unwrap_or_else(PoisonError::into_inner).note(start, end),
            None => Ok(()),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((piece, reader)) = self.readers.front_mut() else { return Ok(0) };
        let wanted = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..wanted];
        let got = match reader {
            Some(reader) => reader.read(buffer)?,
            None => self.file.read_at(buffer, piece.start)?,
        };
        if got == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if reader.is_some() {
            let written = self.file.write_all_at(&buffer[..got], piece.start);
            written.map_err(|error| Error::Write(error).into_io())?;
            let start = self.noted.map_or(piece.start, |(start, _)| start);
            self.noted = Some((start, piece.start + got as u64));
        }
        piece.start += got as u64;
        let is_over = piece.start == piece.end;
        if is_over {
            self.readers.pop_front();
        }
        if is_over || self.noted.is_some_and(|(start, end)| end - start >= NOTE_AFTER) {
            self.note()?;
        }
        Ok(got)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // What is not noted is read again.
        drop(self.note());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part");
        let bytes: Vec<u8> = (0..=255).collect();
        let open = |inner: Vec<u8>, identity: &[u8]| {
            Kept::open(Arc::new(inner), &path, Digest::of(identity), &Disk::default()).unwrap()
        };
        let read = |kept: &Kept<'_>, start, length| {
            let mut found = Vec::new();
            kept.read_range(start, length).unwrap().read_to_end(&mut found).unwrap();
            found
        };
        let kept = open(bytes.clone(), b"a");
        assert_eq!(read(&kept, 10, 20), bytes[10..30]);
        assert_eq!(read(&kept, 50, 10), bytes[50..60]);
        let mut short = [0; 5];
        kept.read_range(30, 15).unwrap().read_exact(&mut short).unwrap();
        assert_eq!(kept.kept_bytes(), 35);
        let missing = |identity: &[u8]| Kept::missing(&path, Digest::of(identity), 256, &[0..20, 30..55]);
        assert_eq!(missing(b"a"), [0..10, 35..50]);
        assert_eq!(missing(b"b"), [0..20, 30..55]);
        // Of another archive of the same size, what was kept still counts as the first one.
        let again = open(vec![0; 256], b"a");
        let mut wanted = bytes[5..70].to_vec();
        for zero in (5..10).chain(35..50).chain(60..70) {
            wanted[zero - 5] = 0;
        }
        assert_eq!(read(&again, 5, 65), wanted);
        assert_eq!(open(bytes.clone(), b"b").kept_bytes(), 0);
    }
}
