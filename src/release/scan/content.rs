//! Hashes the contents of files, several at a time.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use sha2::{Digest as _, Sha256};

use super::attributes;
use crate::release::tree::Root;
use crate::sys::disk::{Context, Disk, Error};
use crate::types::Digest;
use crate::types::entry::{Entry, Kind};

const BUFFER: usize = 256 << 10;
/// More threads gain nothing: the disk is busy, and the walk itself is one of them.
const THREADS_MAX: usize = 4;

/// A file that is to be hashed, and who waits for it.
struct Job {
    file: File,
    size: u64,
    answer: Sender<io::Result<Digest>>,
}

/// Threads that hash files. They end when this does.
pub struct Hashers {
    jobs: Sender<Job>,
}

/// The digest of a content, once it is known.
pub struct Pending(Receiver<io::Result<Digest>>);

impl Hashers {
    pub fn start() -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for _ in 0..threads {
            let queue = queue.clone();
            thread::spawn(move || {
                let mut buffer = vec![0; BUFFER];
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    // Nobody waits after the walk was given up: then the queue ends, too.
                    drop(job.answer.send(content(&job.file, job.size, &mut buffer)));
                }
            });
        }
        Self { jobs }
    }

    /// Begins to hash a file of this size.
    pub fn hash(&self, file: File, size: u64) -> Pending {
        let (answer, pending) = channel();
        // Without a thread the answer is that none comes.
        drop(self.jobs.send(Job { file, size, answer }));
        Pending(pending)
    }
}

impl Pending {
    /// Waits for the digest.
    ///
    /// # Errors
    /// When the file could not be read, or had not the size that it was said to have.
    pub fn wait(self) -> io::Result<Digest> {
        self.0.recv().unwrap_or_else(|_| Err(io::Error::other("its reader has ended")))
    }
}

/// Reads the files of a tree.
pub struct Contents {
    root: Root,
    /// The directory of the last file.
    parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Contents {
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self { root: Root::open(root, &Disk::default())?, parent: None, buffer: vec![0; BUFFER] })
    }

    /// Fills in a file's attributes and the digest of its content; other entries stay as they are.
    ///
    /// # Errors
    /// Also when the file has not the size that it had.
    pub fn fill(&mut self, entry: &mut Entry) -> Result<(), Error> {
        let Kind::File { size, .. } = entry.kind else { return Ok(()) };
        let file = self.file(&entry.path).context_at("open", || self.root.path_of(&entry.path))?;
        let path = || self.root.path_of(&entry.path);
        let xattrs = attributes(&file).context_at("read", path)?;
        let content = content(&file, size, &mut self.buffer).context_at("read", path)?;
        entry.xattrs = xattrs;
        entry.kind = Kind::File { size, content };
        Ok(())
    }

    fn file(&mut self, path: &[u8]) -> io::Result<File> {
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let opened = match self.parent.take() {
            Some((last, opened)) if last == directory => opened,
            _ => self.root.directory(directory)?,
        };
        let (_, opened) = &*self.parent.insert((directory.to_vec(), opened));
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(File::from(openat(opened, name, flags, Mode::empty())?))
    }
}

fn content(file: &File, size: u64, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut offset = 0;
    loop {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                offset += length as u64;
                // A short read of a regular file is its end; a full buffer may not be.
                if offset > size || (offset == size && length < buffer.len()) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if offset == size { Ok(hasher.into()) } else { Err(io::Error::other("it changed while it was read")) }
}
