//! What the two processes say to each other: frames of a length (u32, the lowest byte first) and so many bytes.
//!
//! ```text
//! request   one frame of JSON
//! answer    one frame of JSON; where there are bytes, then frames of them, an empty one, and one of JSON: how it ended
//! ```

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{Error, Item, Of, Remedy};

/// The longest frame of JSON.
const JSON_BYTES_MAX: u32 = 64 << 10;

/// The longest frame of bytes.
pub const PIECE_BYTES_MAX: usize = 256 << 10;

/// A file, as it is named to the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    channel: Option<String>,
    release: Option<String>,
    name: String,
}

impl File {
    pub fn of(item: Item<'_>) -> Self {
        let (channel, release) = match item.of {
            Of::Channel(name) => (Some(name.to_owned()), None),
            Of::Release(version) => (None, Some(version.to_owned())),
        };
        Self { channel, release, name: item.name.to_owned() }
    }

    /// The file that it names.
    pub fn item(&self) -> Item<'_> {
        let of = match (&self.channel, &self.release) {
            (Some(name), _) => Of::Channel(name),
            (None, version) => Of::Release(version.as_deref().unwrap_or_default()),
        };
        Item { of, name: &self.name }
    }
}

/// What is asked of the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Small {
        file: File,
        limit: usize,
    },
    /// An archive, to read parts of.
    Archive {
        file: File,
        size: u64,
    },
    /// A part of an archive that was opened.
    Part {
        archive: usize,
        start: u64,
        length: u64,
    },
}

/// What the child answers at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Bytes follow.
    Bytes,
    /// There is no such small file.
    Nothing,
    /// The archive has this number, this size, and parts or not.
    Opened {
        archive: usize,
        size: u64,
        has_ranges: bool,
    },
    Failed(Told),
}

/// Why something went wrong, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    text: String,
    is_refusal: bool,
    is_missing: bool,
    remedy: Remedy,
}

impl Told {
    /// The error in words, with its causes.
    pub fn of(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        let is_missing = matches!(error, Error::Missing(_));
        if let Error::Missing(what) = error {
            text.clone_from(what);
        }
        let text = text.chars().take(2000).collect();
        Self { text, is_refusal: error.is_refusal(), is_missing, remedy: error.remedy() }
    }

    /// The error, where it is told. The child may say anything: no terminal sees it as it is.
    pub fn error(self) -> Error {
        let text = self.text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
        match self.is_missing {
            true => Error::Missing(text),
            false => Error::Told { text, is_refusal: self.is_refusal, remedy: self.remedy },
        }
    }
}

/// Sends a frame of JSON.
pub fn send(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    send_piece(to, &bytes)
}

/// Sends a frame of bytes.
pub fn send_piece(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads a frame of JSON.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let length = receive_length(from)?;
    if length > JSON_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The length of the next frame.
pub fn receive_length(from: &mut impl Read) -> io::Result<u32> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length))
}

/// The bytes of an answer: frames until an empty one, then how it ended. Any end but a good one is an error.
pub struct Bytes<R> {
    from: R,
    /// Bytes of the frame under way.
    left: usize,
    /// Bytes that may still come in all.
    allowed: u64,
    is_over: bool,
}

impl<R: Read> Bytes<R> {
    /// What follows on this socket, at most so many bytes.
    pub fn new(from: R, allowed: u64) -> Self {
        Self { from, left: 0, allowed, is_over: false }
    }

    fn next_frame(&mut self) -> io::Result<()> {
        let length = receive_length(&mut self.from)? as usize;
        if length == 0 {
            self.is_over = true;
            return match receive::<Option<Told>>(&mut self.from)? {
                None => Ok(()),
                Some(told) => Err(told.error().into_io()),
            };
        }
        if length > PIECE_BYTES_MAX || length as u64 > self.allowed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more bytes came than were asked for"));
        }
        self.allowed -= length as u64;
        self.left = length;
        Ok(())
    }
}

impl<R: Read> Read for Bytes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.left == 0 && !self.is_over {
            self.next_frame()?;
        }
        if self.is_over {
            return Ok(0);
        }
        let wanted = buffer.len().min(self.left);
        let read = self.from.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the process that reads the source has ended",
            ));
        }
        self.left -= read;
        Ok(read)
    }
}

/// What is read until a moment, and no longer: each byte may come in time, and all of them for ever.
pub struct Until<R> {
    from: R,
    until: Instant,
}

impl<R: Read> Until<R> {
    pub fn new(from: R, within: Duration) -> Self {
        Self { from, until: Instant::now() + within }
    }
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, "the process that reads the source takes too long");
        if Instant::now() >= self.until {
            return Err(late());
        }
        // A socket's own limit is told as if it were asked not to wait.
        self.from.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => late(),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pieces: &[&[u8]], end: &Option<Told>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            send_piece(&mut bytes, piece).unwrap();
        }
        send_piece(&mut bytes, b"").unwrap();
        send(&mut bytes, end).unwrap();
        bytes
    }

    #[test]
    fn bytes_come_whole_or_with_an_error() {
        let read = |bytes: &[u8], allowed| {
            let mut found = Vec::new();
            Bytes::new(bytes, allowed).read_to_end(&mut found).map(|_| found)
        };
        let good = answer(&[b"one", b"two"], &None);
        assert_eq!(read(&good, 6).unwrap(), b"onetwo");
        assert!(read(&good, 5).is_err(), "more than was asked for");
        for length in 0..good.len() {
            assert!(read(&good[..length], 6).is_err(), "cut at {length}");
        }
        let told = Told::of(&Error::Size { found: 1, signed: 2 });
        let error = Error::reading("x", read(&answer(&[b"one"], &Some(told)), 6).unwrap_err());
        assert!(error.is_refusal() && error.to_string().contains("has 1 bytes"), "{error}");
        let missing = Told::of(&Error::Missing("\u{1b}[2Jx".into())).error();
        assert_eq!(missing.to_string(), "`?[2Jx` is not there");
    }

    /// Whatever a child that was taken over says: no panic, no endless reading, no more memory than a frame.
    #[test]
    fn nonsense_is_an_error() {
        let mut state = 12345_u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // Small numbers are the lengths that are worth a try.
                    if state >> 62 == 0 { (state >> 33) as u8 } else { (state >> 33) as u8 & 3 }
                })
                .collect();
            let mut found = Vec::new();
            drop(Bytes::new(bytes.as_slice(), 100).read_to_end(&mut found));
            assert!(found.len() <= 100);
            drop(receive::<Answer>(&mut bytes.as_slice()));
            drop(receive::<Option<Told>>(&mut bytes.as_slice()));
        }
    }

    /// Each byte comes at once, and they never end.
    #[test]
    fn nobody_is_listened_to_for_ever() {
        let drip = answer(&vec![b"x".as_slice(); 20], &None);
        let read = |within| {
            let from = Until::new(drip.as_slice(), within);
            Bytes::new(from, 20).read_to_end(&mut Vec::new()).map_err(|error| error.kind())
        };
        assert_eq!(read(Duration::from_secs(60)), Ok(20));
        assert_eq!(read(Duration::ZERO), Err(io::ErrorKind::TimedOut));
        // It stands still.
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = Until::new(ours, Duration::from_secs(60)).read(&mut [0]).unwrap_err();
        assert!(error.to_string().contains("takes too long"), "{error}");
    }

    #[test]
    fn a_file_is_the_same_on_both_sides() {
        for of in [Of::Channel("stable"), Of::Release("1.0+b")] {
            let item = Item { of, name: "x" };
            assert_eq!(File::of(item).item(), item);
        }
    }
}
