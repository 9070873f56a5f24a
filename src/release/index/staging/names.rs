//! Members without content, compared with the index.

use super::super::error::malformed;
use super::super::member::{self, END};
use super::super::{Error, FrameKind, Record};

const FRAME: &str = "a frame of the archive";

/// Entries of one kind, in the order in which their members must come.
pub struct Names<'a> {
    entries: Box<dyn Iterator<Item = Result<Record, Error>> + Send + 'a>,
    has_ended: bool,
}

impl<'a> Names<'a> {
    pub fn new(entries: impl Iterator<Item = Result<Record, Error>> + Send + 'a) -> Self {
        Self { entries: Box::new(entries), has_ended: false }
    }

    /// Compares the members of the next frame.
    pub fn check(&mut self, kind: FrameKind, mut plain: &[u8]) -> Result<(), Error> {
        while !plain.is_empty() {
            let Some(record) = self.entries.next() else {
                let is_end =
                    kind == FrameKind::End && plain.len() == END && plain.iter().all(|byte| *byte == 0);
                if !is_end || self.has_ended {
                    return Err(malformed(FRAME, "it has members that the index does not have"));
                }
                self.has_ended = true;
                return Ok(());
            };
            let entry = record?.entry;
            let rule = "the member's header is not what the index says";
            let header = member::header(&entry);
            plain = plain.strip_prefix(&*header).ok_or(Error::Differs { path: entry.path, rule })?;
        }
        Ok(())
    }

    pub fn finish(mut self, kind: FrameKind) -> Result<(), Error> {
        if let Some(record) = self.entries.next() {
            return Err(Error::Differs { path: record?.entry.path, rule: "the archive has no such member" });
        }
        if self.has_ended == (kind == FrameKind::End) {
            Ok(())
        } else {
            Err(malformed(FRAME, "the tar has no end"))
        }
    }
}
