//! The side of the process that needs releases.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::super::directory::read_bounded;
use super::super::{Error, Item, Ranges, Remedy, Settings, Source, web};
use super::wire::{self, Answer, Bytes, File, Request, Until};

/// The hidden command by which the program is the child.
pub const COMMAND: &str = "__read-source";

/// Time beyond all pauses and attempts of the child before it is given up.
const PATIENCE: Duration = Duration::from_secs(420);

/// A source that a child reads.
pub struct Apart {
    child: Arc<Process>,
    place: String,
    is_replaced_in_place: bool,
    limits: Limits,
}

/// How long the child is waited for.
#[derive(Clone, Copy)]
struct Limits {
    /// For the next byte.
    patience: Duration,
    /// Bytes a second that the child may bring at most, if there is a limit.
    rate: Option<u64>,
}

impl Limits {
    /// For all of an answer with so many bytes: the child keeps to less.
    fn whole(self, bytes: u64) -> Duration {
        self.patience + web::time_allowed(bytes, self.rate)
    }
}

/// The child; it ends with this.
struct Process {
    control: UnixStream,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to finish.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the child says when it has given up its rights.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Ready {
    pub place: String,
    /// See [`Source::is_replaced_in_place`].
    pub is_replaced_in_place: bool,
}

/// Starts `program` to read this source.
///
/// # Errors
/// When it does not start, or cannot open the source.
pub fn open(program: &Path, settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let start = || -> io::Result<Process> {
        let (control, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(COMMAND)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Ctrl-C is for the program that needs the release: it says what it means, and this one ends with it.
            .process_group(0)
            .spawn()?;
        Ok(Process { control, child })
    };
    let failed = |source| Error::Read { what: "the source, by a process of its own".to_owned(), source };
    let process = start().map_err(failed)?;
    let attempt = settings.connect_timeout.0 + settings.stall_timeout.0 + Duration::from_secs(32);
    let patience = PATIENCE + attempt * settings.retries.saturating_add(1).min(100);
    let limits = Limits { patience, rate: settings.rate_limit.map(|limit| limit.0) };
    let mut control = &process.control;
    let ready: Result<Ready, wire::Told> = wire::send(&mut control, settings)
        .and_then(|()| process.control.set_read_timeout(Some(patience)))
        .and_then(|()| wire::receive(&mut Until::new(control, limits.whole(0))))
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                failed(io::Error::other("it ended before it had given up its rights"))
            }
            _ => failed(error),
        })?;
    let Ready { place, is_replaced_in_place } = ready.map_err(wire::Told::error)?;
    let place = place.chars().filter(|letter| !letter.is_control()).collect();
    Ok(Box::new(Apart { child: Arc::new(process), place, is_replaced_in_place, limits }))
}

impl Process {
    /// Sends a request on a socket of its own, and reads the first answer.
    fn ask(
        &self,
        request: &Request,
        limits: Limits,
        bytes: u64,
    ) -> Result<(Answer, Until<UnixStream>), Error> {
        let asked = || -> io::Result<(Answer, Until<UnixStream>)> {
            let (mut ours, theirs) = UnixStream::pair()?;
            ours.set_read_timeout(Some(limits.patience))?;
            let rights = [theirs.as_raw_fd()];
            let message = [ControlMessage::ScmRights(&rights)];
            sendmsg::<()>(
                self.control.as_raw_fd(),
                &[IoSlice::new(b"?")],
                &message,
                MsgFlags::MSG_NOSIGNAL,
                None,
            )?;
            drop(theirs);
            wire::send(&mut ours, request)?;
            let mut ours = Until::new(ours, limits.whole(bytes));
            let answer = wire::receive(&mut ours)?;
            Ok((answer, ours))
        };
        asked().map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                let text = "cannot read the source: the process that reads it has ended".to_owned();
                Error::Told { text, is_refusal: false, remedy: Remedy::Way }
            }
            _ => Error::Read { what: "the source, by a process of its own".to_owned(), source },
        })
    }
}

fn nonsense(what: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, "the answer is not one to the question");
    Error::Read { what: what.to_owned(), source }
}

impl Source for Apart {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        item.check()?;
        let request = Request::Small { file: File::of(item), limit };
        match self.child.ask(&request, self.limits, limit as u64)? {
            (Answer::Nothing, _) => Ok(None),
            (Answer::Bytes, socket) => {
                read_bounded(Bytes::new(socket, limit as u64), limit, item.name).map(Some)
            }
            (Answer::Failed(told), _) => Err(told.error()),
            (Answer::Opened { .. }, _) => Err(nonsense(item.name)),
        }
    }

    fn archive(&self, item: Item<'_>, size: u64) -> Result<Box<dyn Ranges>, Error> {
        item.check()?;
        let request = Request::Archive { file: File::of(item), size };
        match self.child.ask(&request, self.limits, 0)? {
            (Answer::Opened { archive, size, has_ranges }, _) => Ok(Box::new(ArchiveApart {
                child: Arc::clone(&self.child),
                archive,
                size,
                has_ranges,
                name: item.name.to_owned(),
                limits: self.limits,
            })),
            (Answer::Failed(told), _) => Err(told.error()),
            (Answer::Bytes | Answer::Nothing, _) => Err(nonsense(item.name)),
        }
    }

    fn is_replaced_in_place(&self) -> bool {
        self.is_replaced_in_place
    }
}

/// An archive that the child has opened.
struct ArchiveApart {
    child: Arc<Process>,
    archive: usize,
    size: u64,
    has_ranges: bool,
    name: String,
    limits: Limits,
}

impl Ranges for ArchiveApart {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, Error> {
        if start.checked_add(length).is_none_or(|end| end > self.size) {
            let path = self.name.clone().into();
            return Err(Error::OutOfRange { path, start, length, size: self.size });
        }
        if length == 0 {
            return Ok(Box::new(io::empty()));
        }
        let request = Request::Part { archive: self.archive, start, length };
        match self.child.ask(&request, self.limits, length)? {
            (Answer::Bytes, socket) => Ok(Box::new(Bytes::new(socket, length))),
            (Answer::Failed(told), _) => Err(told.error()),
            (Answer::Opened { .. } | Answer::Nothing, _) => Err(nonsense(&self.name)),
        }
    }

    fn is_far(&self) -> bool {
        true
    }

    fn has_ranges(&self) -> bool {
        self.has_ranges
    }
}
