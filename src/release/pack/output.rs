//! Writes frames in their order while all cores compress them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use sha2::{Digest as _, Sha256};

use super::Error;
use crate::release::index::{Frame, FrameKind};
use crate::sys::disk::Context as _;
use crate::types::Digest;

/// The archive as it grows, with the digest of all that was written.
pub struct Output {
    file: BufWriter<File>,
    path: PathBuf,
    hasher: Sha256,
    written: u64,
}

impl Output {
    /// Makes the file, which replaces one of the same name.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path);
        let file = BufWriter::with_capacity(1 << 20, open.context("write", path)?);
        Ok(Self { file, path: path.to_owned(), hasher: Sha256::new(), written: 0 })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).context("write", &self.path)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Makes it durable; gives size and digest.
    pub fn finish(self) -> Result<(u64, Digest), Error> {
        let file =
            self.file.into_inner().map_err(io::IntoInnerError::into_error).context("write", &self.path)?;
        file.sync_all().context("sync", &self.path)?;
        Ok((self.written, self.hasher.into()))
    }
}

struct Job {
    number: usize,
    kind: FrameKind,
    plain: Vec<u8>,
}

struct Done {
    number: usize,
    frame: Frame,
    bytes: Vec<u8>,
}

/// Compresses frames on several threads; a bounded number of them is in memory.
pub struct Compressors {
    jobs: SyncSender<Job>,
    done: Receiver<io::Result<Done>>,
    in_flight: usize,
    in_flight_max: usize,
    waiting: BTreeMap<usize, Done>,
    given: usize,
    frames: Vec<Frame>,
}

impl Compressors {
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, threads: usize, level: i32) -> Self {
        let in_flight_max = 3 * threads;
        let (jobs, taken) = sync_channel::<Job>(in_flight_max);
        let (give, done) = sync_channel(in_flight_max);
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..threads {
            let (taken, give) = (Arc::clone(&taken), give.clone());
            scope.spawn(move || {
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    if give.send(compress(job, level)).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            jobs,
            done,
            in_flight: 0,
            in_flight_max,
            waiting: BTreeMap::new(),
            given: 0,
            frames: Vec::new(),
        }
    }

    /// The number that the next frame gets.
    pub fn next_number(&self) -> u64 {
        self.given as u64
    }

    /// Takes the next frame, and writes those before it that are ready.
    pub fn give(&mut self, kind: FrameKind, plain: Vec<u8>, output: &mut Output) -> Result<(), Error> {
        while self.in_flight >= self.in_flight_max {
            self.collect(output)?;
        }
        let job = Job { number: self.given, kind, plain };
        self.jobs.send(job).map_err(|_| Error::Compress(io::ErrorKind::BrokenPipe.into()))?;
        self.given += 1;
        self.in_flight += 1;
        Ok(())
    }

    fn collect(&mut self, output: &mut Output) -> Result<(), Error> {
        let received = self.done.recv().map_err(|_| Error::Compress(io::ErrorKind::BrokenPipe.into()))?;
        let done = received.map_err(Error::Compress)?;
        self.waiting.insert(done.number, done);
        while let Some(done) = self.waiting.remove(&self.frames.len()) {
            output.write(&done.bytes)?;
            self.frames.push(done.frame);
            self.in_flight -= 1;
        }
        Ok(())
    }

    /// Writes what is left; gives all frames.
    pub fn finish(mut self, output: &mut Output) -> Result<Vec<Frame>, Error> {
        while self.in_flight > 0 {
            self.collect(output)?;
        }
        Ok(self.frames)
    }
}

fn compress(job: Job, level: i32) -> io::Result<Done> {
    let bytes = zstd::bulk::compress(&job.plain, level)?;
    let narrow = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let frame = Frame {
        size: narrow(bytes.len())?,
        plain: narrow(job.plain.len())?,
        kind: job.kind,
        digest: Digest::of(&bytes),
    };
    Ok(Done { number: job.number, frame, bytes })
}
