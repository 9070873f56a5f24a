//! Keeps the parts that were read of an archive, so that staging that was interrupted reads nothing twice.
//!
//! ```text
//! <path>          the parts that were read, each at its place
//! <path>.map      identity[32], then of each part: start u64, end u64, the lowest byte first; the highest bit of the
//!                 end says that its digest was compared
//! ```
//! A part counts once its digest was compared, and nothing but a [`Verified`] makes it so. What was read before is there
//! as well, so that a transfer that is cut within a part, again and again, comes to its end; but with the first failure
//! it is thrown away. Neither file is synced: a power cut may leave parts that the map says to be there and that are not.
//! So all parts are compared again when they are read, and if they fail, the archive is read once more without any.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Verified;
use crate::release::source::{Error, Ranges};
use crate::sys::disk::{Context as _, Disk};
use crate::types::Digest;

/// After so many bytes the map is brought up to date.
const NOTE_AFTER: u64 = 256 << 10;
/// In the end of a part: its digest was compared.
const COMPARED: u64 = 1 << 63;

/// Which of the parts that are there already are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Read,
    /// Those whose digest was compared.
    Compared,
    Nothing,
}

/// An archive of which the parts that were read are kept in a file.
pub struct Parts<'a> {
    inner: Arc<dyn Ranges + 'a>,
    file: Arc<File>,
    map: Arc<Mutex<Map>>,
}

/// Where parts begin and end; they do not touch.
#[derive(Default)]
struct Spans(BTreeMap<u64, u64>);

struct Map {
    read: Spans,
    /// Those of them whose digest was compared.
    compared: Spans,
    file: File,
}

impl<'a> Parts<'a> {
    /// Keeps parts of `inner` at `path`; those that are there already are used if they are of the same archive.
    pub fn open(
        inner: Arc<dyn Ranges + 'a>,
        path: &Path,
        identity: Digest,
        trust: Trust,
        disk: &Disk,
    ) -> Result<Self, Error> {
        disk.ask("fetch into", path)?;
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            options.open(path).context("open", path)
        };
        let (file, notes) = (open(path)?, open(&map_of(path))?);
        let mut map = Map::read(notes, identity, inner.size()).context("read", path)?;
        match trust {
            Trust::Read => {}
            Trust::Compared => map.read = Spans(map.compared.0.clone()),
            Trust::Nothing => (map.read, map.compared) = (Spans::default(), Spans::default()),
        }
        map.write(identity).context("write", path)?;
        if map.read.0.is_empty() {
            file.set_len(0).context("write", path)?;
        }
        Ok(Self { inner, file: Arc::new(file), map: Arc::new(Mutex::new(map)) })
    }

    /// How many bytes are there.
    pub fn kept_bytes(&self) -> u64 {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).read.bytes()
    }

    /// Lets a part count: its bytes, which begin at `start`, are what they must be.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub fn keep<B: AsRef<[u8]>>(&self, start: u64, part: &Verified<B>) -> Result<(), Error> {
        let end = start + part.as_ref().len() as u64;
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        // What is there already is what was read a moment ago.
        if map.read.pieces(start, end).iter().any(|piece| !piece.is_kept) {
            self.file.write_all_at(part.as_ref(), start).map_err(Error::Write)?;
            map.read.add(start, end);
        }
        map.compared.add(start, end);
        map.append(start, end | COMPARED).map_err(Error::Write)
    }

    /// What is missing of `ranges` in the archive that is kept at `path`. Changes nothing.
    pub fn missing(path: &Path, identity: Digest, size: u64, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let map = File::open(map_of(path)).and_then(|file| Map::read(file, identity, size));
        // What cannot be read is not there.
        let Ok(map) = map else { return ranges.to_vec() };
        let pieces = ranges.iter().flat_map(|range| map.read.pieces(range.start, range.end));
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
    /// Reads the map of an archive of this size; one of another archive has no parts.
    fn read(mut file: File, identity: Digest, size: u64) -> io::Result<Self> {
        let mut notes = Vec::new();
        file.read_to_end(&mut notes)?;
        let (mut read, mut compared) = (Spans::default(), Spans::default());
        for part in notes.strip_prefix(&identity.0).unwrap_or_default().chunks_exact(16) {
            let (start, end) = (number(&part[..8]), number(&part[8..]));
            read.add(start, (end & !COMPARED).min(size));
            if end & COMPARED != 0 {
                compared.add(start, (end & !COMPARED).min(size));
            }
        }
        Ok(Self { read, compared, file })
    }

    fn write(&mut self, identity: Digest) -> io::Result<()> {
        self.file.set_len(0)?;
        io::Seek::rewind(&mut self.file)?;
        let mut notes = identity.0.to_vec();
        self.read.0.iter().for_each(|(start, end)| notes.extend(note_of(*start, *end)));
        self.compared.0.iter().for_each(|(start, end)| notes.extend(note_of(*start, *end | COMPARED)));
        self.file.write_all(&notes)
    }

    fn append(&mut self, start: u64, end: u64) -> io::Result<()> {
        io::Seek::seek(&mut self.file, io::SeekFrom::End(0))?;
        self.file.write_all(&note_of(start, end))
    }

    fn note(&mut self, start: u64, end: u64) -> io::Result<()> {
        if start < end {
            self.read.add(start, end);
            self.append(start, end)?;
        }
        Ok(())
    }
}

fn note_of(start: u64, end: u64) -> [u8; 16] {
    let mut note = [0; 16];
    note[..8].copy_from_slice(&start.to_le_bytes());
    note[8..].copy_from_slice(&end.to_le_bytes());
    note
}

impl Spans {
    fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((other, other_end)) = self.0.range(..=end).next_back() {
            let (other, other_end) = (*other, *other_end);
            if other_end < start {
                break;
            }
            self.0.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        self.0.insert(start, end);
    }

    /// Cuts a range into pieces that are all there or all missing.
    fn pieces(&self, start: u64, end: u64) -> VecDeque<Piece> {
        let mut pieces = VecDeque::new();
        let mut at = start;
        let before = self.0.range(..=start).next_back().filter(|(_, end)| **end > start);
        let first = before.map_or(start, |(start, _)| *start);
        for (part, part_end) in self.0.range(first..end) {
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

impl Ranges for Parts<'_> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        let end = start.checked_add(length).filter(|end| *end <= self.size());
        let Some(end) = end else { return self.inner.read_range(start, length) };
        let pieces = self.map.lock().unwrap_or_else(PoisonError::into_inner).read.pieces(start, end);
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

    struct Place(tempfile::TempDir);

    impl Place {
        fn open(&self, inner: Vec<u8>, identity: &[u8], trust: Trust) -> Parts<'static> {
            let (path, identity) = (self.0.path().join("part"), Digest::of(identity));
            Parts::open(Arc::new(inner), &path, identity, trust, &Disk::default()).unwrap()
        }
    }

    fn read(parts: &Parts<'_>, start: u64, length: u64) -> Vec<u8> {
        let mut found = Vec::new();
        parts.read_range(start, length).unwrap().read_to_end(&mut found).unwrap();
        found
    }

    #[test]
    fn nothing_is_read_twice() {
        let place = Place(tempfile::tempdir().unwrap());
        let bytes: Vec<u8> = (0..=255).collect();
        let parts = place.open(bytes.clone(), b"a", Trust::Read);
        assert_eq!(read(&parts, 10, 20), bytes[10..30]);
        assert_eq!(read(&parts, 50, 10), bytes[50..60]);
        let mut short = [0; 5];
        parts.read_range(30, 15).unwrap().read_exact(&mut short).unwrap();
        assert_eq!(parts.kept_bytes(), 35);
        let path = place.0.path().join("part");
        let missing = |identity: &[u8]| Parts::missing(&path, Digest::of(identity), 256, &[0..20, 30..55]);
        assert_eq!(missing(b"a"), [0..10, 35..50]);
        assert_eq!(missing(b"b"), [0..20, 30..55]);
        // Of another archive of the same size, what was kept still counts as the first one.
        let again = place.open(vec![0; 256], b"a", Trust::Read);
        let mut wanted = bytes[5..70].to_vec();
        for zero in (5..10).chain(35..50).chain(60..70) {
            wanted[zero - 5] = 0;
        }
        assert_eq!(read(&again, 5, 65), wanted);
        assert_eq!(place.open(bytes.clone(), b"b", Trust::Read).kept_bytes(), 0);
    }

    #[test]
    fn what_was_read_counts_once_it_was_compared() {
        let place = Place(tempfile::tempdir().unwrap());
        let bytes: Vec<u8> = (0..=255).collect();
        let parts = place.open(bytes.clone(), b"a", Trust::Read);
        read(&parts, 10, 40);
        let part = Verified::compare("a part", &bytes[20..30], Digest::of(&bytes[20..30])).unwrap();
        parts.keep(20, &part).unwrap();
        // One that came from elsewhere is written as well.
        let other = Verified::compare("a part", &bytes[100..120], Digest::of(&bytes[100..120])).unwrap();
        parts.keep(100, &other).unwrap();
        assert_eq!(parts.kept_bytes(), 60);
        assert_eq!(place.open(vec![0; 256], b"a", Trust::Read).kept_bytes(), 60);
        let compared = place.open(vec![0; 256], b"a", Trust::Compared);
        assert_eq!(compared.kept_bytes(), 30);
        assert_eq!(read(&compared, 15, 10), [&[0; 5], &bytes[20..25]].concat());
        assert_eq!(read(&compared, 100, 20), bytes[100..120]);
        assert_eq!(place.open(vec![0; 256], b"a", Trust::Compared).kept_bytes(), 30);
        assert_eq!(place.open(vec![0; 256], b"a", Trust::Nothing).kept_bytes(), 0);
        assert_eq!(place.open(vec![0; 256], b"a", Trust::Read).kept_bytes(), 0);
    }
}
