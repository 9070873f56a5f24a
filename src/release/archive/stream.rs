//! The uncompressed bytes of an archive, to their very end.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::ahead::Ahead;
use super::header::{BLOCK, Header};
use super::{Limits, Rule};

/// Zeros after the end: tars fill up to whole records, of some MiB at most.
const PADDING_MAX: u64 = 64 << 20;
/// How much is read at once, from the file and from the decompressor.
const BUFFER: usize = 256 << 10;

/// The bytes of a tar, whatever it is compressed by.
pub struct Stream {
    bytes: Box<dyn BufRead + Send>,
    offset: u64,
}

/// Why the next bytes cannot be had.
#[derive(Debug)]
pub enum Fault {
    /// The archive is at fault.
    Rule(Rule),
    Machine(io::Error),
}

impl From<Rule> for Fault {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        // The decompressors' own errors carry no error number; those of reading do.
        if error.raw_os_error().is_some() {
            Self::Machine(error)
        } else if error.to_string().contains("requires too much memory") {
            // zstd's own words; it has no other way to tell.
            Self::Rule(Rule::Window)
        } else if error.to_string().contains("Dictionary mismatch") {
            Self::Rule(Rule::Dictionary)
        } else {
            Self::Rule(Rule::BrokenCompression(error.to_string()))
        }
    }
}

impl Stream {
    /// Recognises the compression by the first bytes.
    pub fn open(source: impl Read + Send + 'static, limits: &Limits) -> Result<Self, Fault> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let mut start = Vec::with_capacity(BLOCK);
        source.by_ref().take(BLOCK as u64).read_to_end(&mut start)?;
        let kind = Compression::of(&start)?;
        let is_compressed = !matches!(kind, Compression::None);
        let source = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(source));
        let bytes: Box<dyn BufRead + Send> = match kind {
            Compression::None => Box::new(source),
            Compression::Gzip => Box::new(Ahead::new(Members::of(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(limits.window_log)?;
                Box::new(Ahead::new(decoder))
            }
        };
        let mut stream = Self { bytes, offset: 0 };
        if is_compressed && matches!(stream.some(BLOCK)?, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]) {
            return Err(Rule::CompressedTwice.into());
        }
        Ok(stream)
    }

    /// How many bytes have been taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next block; nothing at the end of the archive.
    pub fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let chunk = self.some(BLOCK - filled)?;
            let length = chunk.len();
            match (length, filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(Rule::Truncated.into()),
                _ => block[filled..filled + length].copy_from_slice(chunk),
            }
            self.take(length);
            filled += length;
        }
        Ok(Some(block))
    }

    /// At most `most` bytes that come next, at least one but at the end; [`Stream::take`] goes on.
    pub fn some(&mut self, most: usize) -> Result<&[u8], Fault> {
        let chunk = loop {
            match self.bytes.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
                // Asked again, since the borrow of a loop's result cannot leave the loop.
                Ok(_) => break self.bytes.fill_buf()?,
            }
        };
        Ok(&chunk[..most.min(chunk.len())])
    }

    /// Takes these many bytes of those that [`Stream::some`] gave.
    pub fn take(&mut self, bytes: usize) {
        self.bytes.consume(bytes);
        self.offset += bytes as u64;
    }

    /// Passes over these many bytes.
    pub fn skip(&mut self, mut bytes: u64) -> Result<(), Fault> {
        while bytes > 0 {
            let length = self.some(usize::try_from(bytes).unwrap_or(usize::MAX))?.len();
            if length == 0 {
                return Err(Rule::Truncated.into());
            }
            self.take(length);
            bytes -= length as u64;
        }
        Ok(())
    }

    /// Reads on to the end of the archive and of the file that holds it: only zeros may come.
    pub fn drain(&mut self) -> Result<(), Fault> {
        let start = self.offset;
        loop {
            let chunk = self.some(BUFFER)?;
            if chunk.is_empty() {
                return Ok(());
            }
            if chunk.iter().any(|byte| *byte != 0) {
                return Err(Rule::DataAfterEnd.into());
            }
            let length = chunk.len();
            self.take(length);
            if self.offset - start > PADDING_MAX {
                return Err(Rule::DataAfterEnd.into());
            }
        }
    }
}

/// The members of a gzip, one after the other, and perhaps zeros behind the last: tapes and some proxies fill up with them,
/// and `gzip` passes over them. Nothing else may come there. (zstd has no such custom: its tool refuses them.)
enum Members<R> {
    Within(GzDecoder<R>),
    Over,
}

impl<R: BufRead> Members<R> {
    fn of(source: R) -> Self {
        Self::Within(GzDecoder::new(source))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Self::Within(member) = self {
            let length = member.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let Self::Within(member) = std::mem::replace(self, Self::Over) else { break };
            let mut source = member.into_inner();
            match source.fill_buf()? {
                [] => {}
                [0, ..] => only_zeros(source)?,
                _ => *self = Self::of(source),
            }
        }
        Ok(0)
    }
}

fn only_zeros(mut source: impl BufRead) -> io::Result<()> {
    let mut count = 0;
    loop {
        let zeros = source.fill_buf()?;
        if zeros.is_empty() {
            return Ok(());
        }
        count += zeros.len() as u64;
        if zeros.iter().any(|byte| *byte != 0) || count > PADDING_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something comes after its last member"));
        }
        let length = zeros.len();
        source.consume(length);
    }
}

enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Result<Self, Rule> {
        Ok(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(Rule::UnreadCompression("xz")),
            [b'B', b'Z', b'h', ..] => return Err(Rule::UnreadCompression("bzip2")),
            [4, 0x22, 0x4d, 0x18, ..] => return Err(Rule::UnreadCompression("lz4")),
            [b'L', b'Z', b'I', b'P', ..] => return Err(Rule::UnreadCompression("lzip")),
            [0x1f, 0x9d, ..] => return Err(Rule::UnreadCompression("compress")),
            [b'7', b'z', 0xbc, 0xaf, ..] => return Err(Rule::UnreadCompression("7-Zip")),
            [] => return Err(Rule::Empty),
            [b'P', b'K', 3 | 5, ..] => return Err(Rule::UnreadCompression("zip")),
            start if start.starts_with(b"version https://git-lfs") => return Err(Rule::Pointer),
            start if start.trim_ascii_start().starts_with(b"<") && !start.contains(&0) => {
                return Err(Rule::Page);
            }
            _ => match <&[u8; BLOCK]>::try_from(start) {
                // An archive of nothing is one of zeros.
                Ok(block) if *block == [0; BLOCK] => Self::None,
                Ok(block) => match Header::parse(block) {
                    Ok(_) => Self::None,
                    Err(Rule::Checksum) if block[257..262] == *b"ustar" => return Err(Rule::Checksum),
                    Err(Rule::Checksum) => return Err(Rule::UnknownFormat),
                    Err(rule) => return Err(rule),
                },
                Err(_) => return Err(Rule::UnknownFormat),
            },
        })
    }
}
