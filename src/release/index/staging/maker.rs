//! Makes directories and symbolic links, where a whole tree is made beside the reading of its index.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::super::error::malformed;
use super::super::{Error, Record};
use super::owner::Owner;
use crate::release::tree::TreeWriter;
use crate::types::entry::Kind;

/// So many entries are given at once.
const BATCH: usize = 128;
/// Or entries of so many bytes.
pub const BATCH_BYTES: usize = 256 << 10;
const WAITING: usize = 8;

/// How many bytes of memory an entry takes, about.
pub fn weight(record: &Record) -> usize {
    let entry = &record.entry;
    let target = if let Kind::Link { target } = &entry.kind { target.len() } else { 0 };
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    size_of::<Record>() + entry.path.len() + target + xattrs
}

/// Makes a directory or a symbolic link.
pub fn make(writer: &mut TreeWriter, owner: Owner, record: &Record) -> Result<(), Error> {
    let entry = &record.entry;
    match &entry.kind {
        Kind::Directory => writer.directory_as(&entry.path, &owner.meta(entry))?,
        Kind::Link { target } => writer.link(&entry.path, target, &owner.meta(entry))?,
        Kind::File { .. } => {}
    }
    Ok(())
}

/// A thread that makes what it is given.
pub struct Maker<'scope> {
    batch: Vec<Record>,
    bytes: usize,
    give: SyncSender<Vec<Record>>,
    thread: ScopedJoinHandle<'scope, Result<(), Error>>,
}

impl<'scope> Maker<'scope> {
    pub fn start<'env>(scope: &'scope Scope<'scope, 'env>, mut writer: TreeWriter, owner: Owner) -> Self {
        let (give, take) = sync_channel::<Vec<Record>>(WAITING);
        let thread = scope.spawn(move || {
            take.into_iter().flatten().try_for_each(|record| make(&mut writer, owner, &record))
        });
        Self { batch: Vec::new(), bytes: 0, give, thread }
    }

    /// Has an entry made; its parents were given before.
    pub fn add(&mut self, record: Record) -> Result<(), Error> {
        self.bytes += weight(&record);
        self.batch.push(record);
        if self.batch.len() < BATCH && self.bytes < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.give.send(batch).map_err(|_| malformed("the work", "it was given up"))
    }

    /// Waits until all are made. What stopped the thread goes before `result`, which may come of it.
    pub fn finish(mut self, result: Result<(), Error>) -> Result<(), Error> {
        let given = result.and_then(|()| self.flush());
        drop(self.give);
        let made = self.thread.join();
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        given
    }
}
