//! Parts of an archive on a web server, taken up again where the transfer was cut.
//!
//! Size and digests of an archive are signed, so nothing that a server says of it is believed, and nothing but its bytes
//! is needed: not its `ETag` (two servers behind one name give different ones), not its length. A server that gives more
//! than it was asked for, as caches do, is read as far as the part that was wanted.

use std::io::{self, Read};
use std::time::Instant;

use ureq::http::{HeaderMap, StatusCode, header};

use super::address::Address;
use super::retry::Attempts;
use super::{Paced, Web, content_length, read_error, text_of};
use crate::release::source::{Error, Ranges};

/// Bytes after which an attempt counts as a success, so that the next cut begins to count anew.
const PROGRESS_BYTES: u64 = 64 << 10;

/// An archive on a web server.
#[derive(Clone, Debug)]
pub struct WebArchive {
    web: Web,
    file: Address,
    size: u64,
    has_ranges: bool,
}

impl WebArchive {
    /// Asks for the first byte, and so learns whether the file is there, and whether the server gives parts.
    pub fn open(web: Web, file: Address, size: u64) -> Result<Self, Error> {
        let mut archive = Self { web, file, size, has_ranges: true };
        let deadline = archive.web.deadline(1);
        let mut attempts = Attempts::new(archive.web.retries, deadline);
        loop {
            match archive.has_ranges(deadline) {
                Ok(has_ranges) => {
                    archive.has_ranges = has_ranges;
                    return Ok(archive);
                }
                Err(error) if attempts.may_go_on(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn has_ranges(&self, deadline: Instant) -> Result<bool, Error> {
        if self.size == 0 {
            return Ok(false);
        }
        let answer = self.ask(Some((0, 1)), deadline)?;
        Ok(match answer {
            Answer::Part { .. } => true,
            Answer::Whole(_) | Answer::NoSuchRange => false,
        })
    }

    /// Sends one request: for the bytes from the first to before the second, or for all.
    fn ask(&self, range: Option<(u64, u64)>, deadline: Instant) -> Result<Answer, Error> {
        let asked = range.map(|(start, end)| (header::RANGE, format!("bytes={start}-{}", end - 1)));
        let response = self.web.get(&self.file, asked.as_slice(), deadline)?;
        let headers = response.headers();
        let length = content_length(headers);
        // Some stores say so of what is as it was put there.
        let wanted = range.map_or(self.size, |(start, end)| end - start);
        if super::is_encoded(headers)
            && ![Some(wanted), Some(self.size)].contains(&length)
            && response.status().is_success()
        {
            return Err(self.lie(super::ENCODED));
        }
        let same_size = |found: u64| {
            if found == self.size { Ok(()) } else { Err(Error::Size { found, signed: self.size }) }
        };
        match (response.status(), range) {
            (StatusCode::PARTIAL_CONTENT, Some((start, end))) => {
                let part = match content_range(headers) {
                    Ok(part) => part,
                    // Without a word about it, bytes of the right number are those that were asked for.
                    Err(()) if length == Some(end - start) => ContentRange { first: start, size: None },
                    Err(()) => return Err(self.lie("it does not say which part it gives")),
                };
                part.size.map_or(Ok(()), same_size)?;
                if part.first > start {
                    return Err(self.lie("it gives another part than the one asked for"));
                }
                Ok(Answer::Part { first: part.first, body: self.web.paced(response) })
            }
            (StatusCode::OK, _) => {
                length.map_or(Ok(()), same_size)?;
                Ok(Answer::Whole(self.web.paced(response)))
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => Ok(Answer::NoSuchRange),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Err(Error::Missing(self.file.place())),
            _ => Err(super::status(&self.file, &response)),
        }
    }

    fn lie(&self, problem: &'static str) -> Error {
        Error::Answer { what: self.file.place(), problem }
    }

    /// Asks for the bytes from `start` to before `end`; more may follow.
    fn request(&self, start: u64, end: u64, deadline: Instant) -> Result<Paced, Error> {
        let mut answer = self.ask(self.has_ranges.then_some((start, end)), deadline)?;
        if matches!(answer, Answer::NoSuchRange) {
            // All ranges that are asked for are within the file: this server knows none.
            answer = self.ask(None, deadline)?;
        }
        let (first, mut body) = match answer {
            Answer::Part { first, body } => (first, body),
            Answer::Whole(body) => (0, body),
            Answer::NoSuchRange => return Err(self.lie("it refuses to give a whole file")),
        };
        let unwanted = start - first;
        match io::copy(&mut Read::by_ref(&mut body).take(unwanted), &mut io::sink()) {
            Ok(skipped) if skipped == unwanted => Ok(body),
            Ok(_) => Err(Error::cut(self.file.place())),
            Err(error) => Err(read_error(&self.file, error)),
        }
    }
}

enum Answer {
    /// A part, from its first byte on.
    Part {
        first: u64,
        body: Paced,
    },
    Whole(Paced),
    /// It knows no such part.
    NoSuchRange,
}

impl Ranges for WebArchive {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        let Some(end) = start.checked_add(length).filter(|end| *end <= self.size) else {
            return Err(Error::OutOfRange { path: self.file.place().into(), start, length, size: self.size });
        };
        let deadline = self.web.deadline(length);
        let attempts = Attempts::new(self.web.retries, deadline);
        let mut part = WebPart {
            archive: self.clone(),
            at: start,
            end,
            deadline,
            attempts,
            body: None,
            began_at: start,
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
    attempts: Attempts,
    body: Option<Paced>,
    /// Where the last attempt began.
    began_at: u64,
}

impl WebPart {
    fn connect(&mut self) -> Result<(), Error> {
        loop {
            match self.archive.request(self.at, self.end, self.deadline) {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) if self.may_go_on(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn may_go_on(&mut self, error: &Error) -> bool {
        if self.at - self.began_at >= PROGRESS_BYTES {
            self.attempts.begin_anew();
        }
        self.began_at = self.at;
        self.attempts.may_go_on(error)
    }
}

impl Read for WebPart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            if self.body.is_none() {
                self.connect().map_err(Error::into_io)?;
            }
            let Some(body) = &mut self.body else { continue };
            let error = match body.read(&mut buffer[..wanted]) {
                Ok(0) => Error::cut(self.archive.file.place()),
                Ok(read) => {
                    self.at += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => read_error(&self.archive.file, error),
            };
            self.body = None;
            if !self.may_go_on(&error) {
                return Err(error.into_io());
            }
        }
    }
}

/// The part that an answer says to be: `bytes 0-9/100`, or `bytes 0-9/*`.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    size: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Result<ContentRange, ()> {
    let text = text_of(headers, header::CONTENT_RANGE).ok_or(())?;
    parse_range(&text).ok_or(())
}

fn parse_range(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once([' ', '='])?;
    let (range, size) = rest.trim().split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<u64>().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    let is_one = unit.eq_ignore_ascii_case("bytes") && first <= last && size.is_none_or(|size| last < size);
    is_one.then_some(ContentRange { first, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_where_it_begins() {
        for (text, wanted) in [
            ("bytes 0-9/100", Some((0, Some(100)))),
            ("bytes 0-0/*", Some((0, None))),
            ("Bytes 5-9/10", Some((5, Some(10)))),
            ("bytes=5-9/10", Some((5, Some(10)))),
            ("bytes */10", None),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("items 0-9/100", None),
            ("bytes 0-9", None),
            ("bytes x", None),
        ] {
            assert_eq!(parse_range(text).map(|part| (part.first, part.size)), wanted, "{text}");
        }
    }
}
