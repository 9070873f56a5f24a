//! Chunks of large files that a file of the base has, too: they are copied from there, and not read from the archive.
//!
//! Large files are cut where their content says so. So a change moves few cuts, and the other chunks are the same in both
//! releases, wherever in the file they are: frames of the same digest hold the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;

use super::super::{Error, FrameKind, Index};
use super::join::Numbered;
use super::locations::Locations;
use super::work::Plan;
use crate::types::Digest;
use crate::types::entry::Kind;

/// So many files of the base are looked into at most.
const FILES_MAX: usize = 4096;

/// A smaller file has no chunks: a group of files takes it whole.
const SIZE_MIN: u64 = 1 << 20;

/// Large files of the base that the release does not have as they are.
#[derive(Default)]
pub struct Candidates(Vec<Numbered>);

/// Where a chunk is: in which of the candidates, and from which byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub candidate: usize,
    /// Where in that file the chunk begins.
    pub offset: u64,
}

/// A chunk in an open file that has the content that it must have.
pub struct Here {
    pub file: Arc<File>,
    pub offset: u64,
}

impl Candidates {
    /// Adds an entry of the base, if it may have chunks. Entries come in path order.
    pub fn add(&mut self, old: &Numbered) {
        let is_large = matches!(old.record.entry.kind, Kind::File { size, .. } if size > SIZE_MIN);
        if is_large && old.record.has_content() && self.0.len() < FILES_MAX {
            self.0.push(old.clone());
        }
    }

    pub fn get(&self, candidate: usize) -> Option<&Numbered> {
        self.0.get(candidate)
    }

    /// Which frames of the plan are chunks that these files have, too.
    pub fn find(&self, plan: &Plan, old: &Index<'_>) -> Result<BTreeMap<usize, Place>, Error> {
        let has_chunks = plan.work.values().any(|work| work.chunk.is_some());
        if self.0.is_empty() || !has_chunks {
            return Ok(BTreeMap::new());
        }
        let (frames, mut locations) = (old.frames()?, Locations::default());
        let mut places: HashMap<Digest, Place> = HashMap::new();
        for (candidate, file) in self.0.iter().enumerate() {
            let Kind::File { size, .. } = file.record.entry.kind else { continue };
            let (first, mut offset) = (locations.get(old, file.file)?, 0);
            let chunks = frames.iter().skip(first).take_while(|frame| frame.kind == FrameKind::Chunk);
            for frame in chunks {
                if offset >= size {
                    break;
                }
                places.entry(frame.digest).or_insert(Place { candidate, offset });
                offset += u64::from(frame.plain);
            }
        }
        let chunks = plan.work.iter().filter(|(_, work)| work.chunk.is_some());
        Ok(chunks
            .filter_map(|(number, _)| Some((*number, *places.get(&plan.frames[*number].digest)?)))
            .collect())
    }
}
