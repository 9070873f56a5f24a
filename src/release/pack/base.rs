//! What a release has in common with the one before it.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::release::index::{self, Index, Record};
use crate::release::source::LocalFile;
use crate::sys::disk::Context as _;
use crate::types::Digest;
use crate::types::entry::{Entry, Kind, path_order};

/// The archive of the release before.
pub struct Base {
    index: Index,
}

impl Base {
    /// Reads the index of the archive at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).context("open", path)?;
        let source = LocalFile::new(file, path).map_err(index::Error::from)?;
        let index = Index::open(Arc::new(source))?;
        Ok(Self { index: index.ok_or_else(|| Error::BaseWithoutIndex(path.to_owned()))? })
    }

    /// Gives each entry the time that it had in the base, if it is the same, and each file the generation of its
    /// content, under whatever name it had it.
    pub fn date(&self, records: &mut [Record]) -> Result<(), Error> {
        let newest = self.index.root().generation + 1;
        let mut generations: HashMap<Digest, u64> = HashMap::new();
        let mut rest = records.iter_mut().peekable();
        for old in self.index.records() {
            let old = old?;
            if let Kind::File { content, .. } = old.entry.kind
                && old.has_content()
            {
                generations.insert(content, old.generation);
            }
            while let Some(record) =
                rest.next_if(|record| path_order(&record.entry.path, &old.entry.path).is_le())
            {
                if record.entry.path == old.entry.path && is_same(&record.entry, &old.entry) {
                    record.entry.mtime = old.entry.mtime;
                }
            }
        }
        for record in records.iter_mut().filter(|record| record.has_content()) {
            if let Kind::File { content, .. } = &record.entry.kind {
                record.generation = generations.get(content).copied().unwrap_or(newest);
            }
        }
        Ok(())
    }
}

fn is_same(one: &Entry, other: &Entry) -> bool {
    one.kind == other.kind && one.same_as == other.same_as
}
