//! The side of the process that reads the source, and may do nothing else.

use std::io::{self, IoSliceMut, Read, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::super::{Error, Ranges, Settings, Source};
use super::parent::Ready;
use super::rights;
use super::wire::{self, Answer, PIECE_BYTES_MAX, Request, Told};

/// The stack of a thread that answers.
const STACK_BYTES: usize = 1 << 20;

type Archives = Mutex<Vec<Arc<dyn Ranges>>>;

/// Reads the source that whoever holds the other end of stdin names, until that end is closed.
///
/// # Errors
/// When stdin is not such a socket, or the rights could not be given up.
pub fn serve() -> io::Result<()> {
    // Whoever started us may have left more open than we need; old kernels cannot close all at once.
    drop(crate::sys::kernel::descriptor::close_others());
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut lines = &control;
    let settings: Settings = wire::receive(&mut lines)?;
    // This reads the credentials, as whoever we still are.
    let source = match super::super::open(&settings) {
        Ok(source) => source,
        Err(error) => return wire::send(&mut lines, &Err::<Ready, _>(Told::of(&error))),
    };
    rights::give_up()?;
    let ready = Ready { place: source.place(), is_replaced_in_place: source.is_replaced_in_place() };
    wire::send(&mut lines, &Ok::<_, Told>(ready))?;
    let (source, archives): (Arc<dyn Source>, _) = (Arc::from(source), Arc::new(Archives::default()));
    while let Some(socket) = next_socket(&control)? {
        let (source, archives) = (Arc::clone(&source), Arc::clone(&archives));
        // Whoever asks may go away whenever he likes. Without a thread for it, the request ends unanswered.
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        drop(thread.spawn(move || drop(answer(source.as_ref(), &archives, socket))));
    }
    Ok(())
}

/// The socket of the next request. `None` when nobody will ask any more.
fn next_socket(control: &UnixStream) -> io::Result<Option<UnixStream>> {
    let mut byte = [0];
    let mut space = cmsg_space!(RawFd);
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(control.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let [descriptor] = descriptors[..]
        {
            return Ok(Some(UnixStream::from(crate::sys::kernel::descriptor::received(descriptor))));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a request without a socket"))
}

fn answer(source: &dyn Source, archives: &Archives, mut socket: UnixStream) -> io::Result<()> {
    match wire::receive(&mut socket)? {
        Request::Small { file, limit } => match source.small(file.item(), limit) {
            Ok(Some(bytes)) => {
                wire::send(&mut socket, &Answer::Bytes)?;
                give(&mut bytes.as_slice(), &mut socket)
            }
            Ok(None) => wire::send(&mut socket, &Answer::Nothing),
            Err(error) => wire::send(&mut socket, &Answer::Failed(Told::of(&error))),
        },
        Request::Archive { file, size } => match source.archive(file.item(), size) {
            Ok(opened) => {
                let (size, has_ranges) = (opened.size(), opened.has_ranges());
                let mut archives = archives.lock().unwrap_or_else(PoisonError::into_inner);
                archives.push(Arc::from(opened));
                let archive = archives.len() - 1;
                wire::send(&mut socket, &Answer::Opened { archive, size, has_ranges })
            }
            Err(error) => wire::send(&mut socket, &Answer::Failed(Told::of(&error))),
        },
        Request::Part { archive, start, length } => {
            let opened = archives.lock().unwrap_or_else(PoisonError::into_inner).get(archive).cloned();
            let missing = || Error::Missing("the archive".to_owned());
            match opened.ok_or_else(missing).and_then(|archive| archive.read_range(start, length)) {
                Ok(mut part) => {
                    wire::send(&mut socket, &Answer::Bytes)?;
                    give(&mut part, &mut socket)
                }
                Err(error) => wire::send(&mut socket, &Answer::Failed(Told::of(&error))),
            }
        }
    }
}

/// Passes bytes on, as they come.
fn give(from: &mut dyn Read, socket: &mut UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    let end = loop {
        match from.read(&mut buffer) {
            Ok(0) => break None,
            Ok(read) => wire::send_piece(socket, &buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(Told::of(&Error::reading("the source", error))),
        }
    };
    wire::send_piece(socket, b"")?;
    wire::send(socket, &end)?;
    socket.flush()
}
