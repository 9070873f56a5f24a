//! Takes over what the base has, by several threads where there is much of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, available_parallelism};

use super::super::error::malformed;
use super::super::{Error, Record};
use super::failure::Failure;
use super::maker::{BATCH_BYTES, weight};
use super::reuse::{Reuse, note};
use crate::release::tree::TreeWriter;

/// So many files are given to a thread at once.
const BATCH: usize = 256;
const WAITING: usize = 4;
/// More threads gain nothing: they wait for the same journal of the file system.
const THREADS_MAX: usize = 4;

/// A file that the base has, too.
pub struct Take {
    /// What it is to be.
    pub new: Record,
    /// Its number among all files.
    pub number: usize,
    /// What it is in the base, where that differs.
    pub old: Option<Record>,
    /// Its number among the files of the base.
    pub old_number: usize,
}

/// Takes files over; one for each thread.
pub struct Taker<'a> {
    reuse: Reuse<'a>,
    writer: TreeWriter,
    inodes: Arc<[AtomicU64]>,
}

impl<'a> Taker<'a> {
    /// From this base, to that tree; `inodes` gets the inode of each file.
    pub fn new(reuse: Reuse<'a>, writer: TreeWriter, inodes: Arc<[AtomicU64]>) -> Self {
        Self { reuse, writer, inodes }
    }

    /// Says whether the file was taken over; else its content must come from the archive.
    pub fn take(
        &mut self,
        new: &Record,
        number: usize,
        old: &Record,
        old_number: usize,
    ) -> Result<bool, Error> {
        let inode = self.reuse.take(&mut self.writer, new, old, old_number)?;
        if let Some(inode) = inode {
            note(&self.inodes, number, inode);
        }
        Ok(inode.is_some())
    }
}

#[derive(Default)]
pub struct Taken {
    /// Files that were taken over.
    pub count: u64,
    /// The numbers of those that the base has no more as it was, in path order.
    pub missed: Vec<usize>,
}

#[derive(Default)]
pub struct Shared {
    count: AtomicU64,
    missed: Mutex<Vec<usize>>,
    failure: Failure,
}

impl Shared {
    fn work_off(&self, taker: &mut Taker<'_>, batch: Vec<Take>) -> Result<(), Error> {
        for Take { new, number, old, old_number } in batch {
            if taker.take(&new, number, old.as_ref().unwrap_or(&new), old_number)? {
                self.count.fetch_add(1, Ordering::Relaxed);
            } else {
                self.missed.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
        }
        Ok(())
    }

    fn work(&self, mut taker: Taker<'_>, take: &Mutex<Receiver<Vec<Take>>>) {
        loop {
            let batch = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { return };
            // After a failure the files are only counted off, so that nobody waits to give them.
            if !self.failure.is_set() {
                self.failure.keep(self.work_off(&mut taker, batch));
            }
        }
    }

    /// What came of it, once all threads have ended.
    pub fn finish(self) -> Result<Taken, Error> {
        self.failure.into_result()?;
        let mut missed = self.missed.into_inner().unwrap_or_else(PoisonError::into_inner);
        missed.sort_unstable();
        Ok(Taken { count: self.count.into_inner(), missed })
    }
}

/// Those who take files over.
pub struct Crew<'env, 'a> {
    shared: &'env Shared,
    batch: Vec<Take>,
    bytes: usize,
    give: Option<SyncSender<Vec<Take>>>,
    own: Taker<'a>,
}

impl<'env, 'a> Crew<'env, 'a> {
    /// One for few files: the caller does it.
    pub fn alone(shared: &'env Shared, own: Taker<'a>) -> Self {
        Self { shared, batch: Vec::new(), bytes: 0, give: None, own }
    }

    /// Several threads. They end with the scope, after the crew.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared,
        threads: usize,
        taker: &dyn Fn() -> Result<Taker<'a>, Error>,
    ) -> Result<Self, Error>
    where
        'a: 'env,
    {
        let cores = available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let (give, take) = sync_channel(WAITING);
        let take = Arc::new(Mutex::new(take));
        for _ in 0..if threads > 0 { threads } else { cores } {
            let (take, taker) = (Arc::clone(&take), taker()?);
            scope.spawn(move || shared.work(taker, &take));
        }
        Ok(Self { shared, batch: Vec::new(), bytes: 0, give: Some(give), own: taker()? })
    }

    /// Has a file taken over, now or soon. Its directory must be there.
    pub fn add(&mut self, take: Take) -> Result<(), Error> {
        self.bytes += weight(&take.new) + take.old.as_ref().map_or(0, weight);
        self.batch.push(take);
        if self.batch.len() < BATCH && self.bytes < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    /// Gives away what is left.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        match &self.give {
            Some(_) if self.shared.failure.is_set() => Err(malformed("the work", "it was given up")),
            Some(give) => give.send(batch).map_err(|_| malformed("the work", "it was given up")),
            None => self.shared.work_off(&mut self.own, batch),
        }
    }
}
