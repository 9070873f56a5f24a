//! Parts of an archive on a web server, taken up again where the transfer was cut.

use std::io::{self, Read};
use std::time::Instant;

use ureq::http::{HeaderMap, StatusCode, header};

use super::address::Address;
use super::{Paced, Web, content_length, deadline, pause, read_error, text_of};
use crate::release::source::{Error, Ranges};

/// Bytes after which an attempt counts as a success, so that the next cut begins to count anew.
const PROGRESS_BYTES: u64 = 64 << 10;

/// An archive on a web server.
#[derive(Clone, Debug)]
pub struct WebArchive {
    web: Web,
    file: Address,
    size: u64,
    /// What tells one content of the file from another: a strong `ETag`, else `Last-Modified`.
    validator: Option<String>,
    has_ranges: bool,
}

impl WebArchive {
    /// Asks for the first byte, and so learns the size, and whether the server gives parts.
    pub fn open(web: Web, file: Address) -> Result<Self, Error> {
        let mut attempt = 0;
        loop {
            match Self::try_open(&web, &file) {
                Err(error) if error.is_passing() && attempt < web.retries => {
                    std::thread::sleep(pause(attempt));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_open(web: &Web, file: &Address) -> Result<Self, Error> {
        let response = web.get(file, &[(header::RANGE, "bytes=0-0".to_owned())], deadline(1))?;
        let headers = response.headers();
        let status = || Error::Status { what: file.place(), status: response.status().as_u16() };
        let (size, has_ranges) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (_, _, size) = content_range(headers).ok_or_else(status)?;
                (size, true)
            }
            StatusCode::OK => (content_length(headers).ok_or_else(|| Error::NoLength(file.place()))?, false),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Error::Missing(file.place())),
            // An empty file has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => (0, true),
            _ => return Err(status()),
        };
        let strong = text_of(headers, header::ETAG).filter(|tag| !tag.starts_with("W/"));
        let validator = strong.or_else(|| text_of(headers, header::LAST_MODIFIED));
        Ok(Self { web: web.clone(), file: file.clone(), size, validator, has_ranges })
    }

    /// Asks for the bytes from `start` to `end`.
    fn request(&self, start: u64, end: u64, deadline: Instant) -> Result<Paced, Error> {
        let mut headers = Vec::new();
        if self.has_ranges {
            headers.push((header::RANGE, format!("bytes={start}-{}", end - 1)));
            headers.extend(self.validator.iter().map(|validator| (header::IF_RANGE, validator.clone())));
        }
        let response = self.web.get(&self.file, &headers, deadline)?;
        let changed = || Error::Changed(self.file.place());
        match response.status() {
            StatusCode::PARTIAL_CONTENT if self.has_ranges => {
                let (first, last, size) = content_range(response.headers()).ok_or_else(changed)?;
                if first != start || last >= end || size != self.size {
                    return Err(changed());
                }
                Ok(self.web.paced(response))
            }
            StatusCode::OK if !self.has_ranges => {
                if content_length(response.headers()) != Some(self.size) {
                    return Err(changed());
                }
                let mut reader = self.web.paced(response);
                let skipped = io::copy(&mut Read::by_ref(&mut reader).take(start), &mut io::sink());
                match skipped {
                    Ok(skipped) if skipped == start => Ok(reader),
                    Ok(_) => Err(Error::cut(self.file.place())),
                    Err(error) => Err(read_error(&self.file, error)),
                }
            }
            StatusCode::OK => Err(changed()),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(Error::Missing(self.file.place())),
            status => Err(Error::Status { what: self.file.place(), status: status.as_u16() }),
        }
    }
}

impl Ranges for WebArchive {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        let Some(end) = start.checked_add(length).filter(|end| *end <= self.size) else {
            return Err(Error::OutOfRange { path: self.file.place().into(), start, length, size: self.size });
        };
        let mut part = WebPart {
            archive: self.clone(),
            at: start,
            end,
            deadline: deadline(length),
            reader: None,
            attempts: 0,
            attempt_began_at: start,
        };
        if start < end {
            part.connect()?;
        }
        Ok(Box::new(part))
    }

    fn is_far(&self) -> bool {
        true
    }

    fn has_ranges(&self) -> bool {
        self.has_ranges
    }
}

/// A part that is being read.
struct WebPart {
    archive: WebArchive,
    at: u64,
    end: u64,
    deadline: Instant,
    reader: Option<Paced>,
    attempts: u32,
    attempt_began_at: u64,
}

impl WebPart {
    fn connect(&mut self) -> Result<(), Error> {
        loop {
            match self.archive.request(self.at, self.end, self.deadline) {
                Ok(reader) => {
                    self.reader = Some(reader);
                    self.attempt_began_at = self.at;
                    return Ok(());
                }
                Err(error) if error.is_passing() && self.may_try_again() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Counts an attempt that failed, and waits before the next one if there may be one.
    fn may_try_again(&mut self) -> bool {
        if self.at - self.attempt_began_at >= PROGRESS_BYTES {
            self.attempts = 0;
        }
        if self.attempts >= self.archive.web.retries || Instant::now() >= self.deadline {
            return false;
        }
        // What was going well is taken up again at once.
        if self.attempts > 0 {
            std::thread::sleep(pause(self.attempts));
        }
        self.attempts += 1;
        true
    }
}

impl Read for WebPart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            if self.reader.is_none() {
                self.connect().map_err(io::Error::other)?;
            }
            let Some(reader) = &mut self.reader else { continue };
            let cut = match reader.read(&mut buffer[..wanted]) {
                Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was cut"),
                Ok(read) => {
                    self.at += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.reader = None;
            if !self.may_try_again() {
                return Err(cut);
            }
        }
    }
}

/// First byte, last byte and size of `bytes 0-9/100`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = text_of(headers, header::CONTENT_RANGE)?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first, last, size))
}
