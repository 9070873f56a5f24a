//! Open descriptors: those that this process was begun with, and those of others.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

const SOCKET_FILE: libc::c_ulong = 0x89e0;

/// The file that a Unix socket of another process is bound to, opened as a path only. For root.
pub fn socket_file(pid: i32, descriptor: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls with numbers; each result is checked before it is owned, by nobody else.
    unsafe {
        let owned = |number: libc::c_long| -> io::Result<OwnedFd> {
            let number = Errno::result(number)?;
            Ok(OwnedFd::from_raw_fd(i32::try_from(number).map_err(io::Error::other)?))
        };
        let process = owned(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let socket = owned(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0))?;
        owned(libc::ioctl(socket.as_raw_fd(), SOCKET_FILE as _).into())
    }
}

/// Closes all descriptors of this process but the three usual ones: for a program that has just begun.
///
/// # Errors
/// When the kernel is too old (before 5.9).
pub fn close_others() -> io::Result<()> {
    // SAFETY: nobody in this process has opened any of them yet.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps what this process was begun with, but for the three usual ones, from all that it starts. What it opens itself is
/// kept from them by whoever opens it.
pub fn close_inherited_on_exec() {
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > libc::STDERR_FILENO) {
            // SAFETY: two numbers. Of a descriptor that is closed by now the kernel says so, and nothing is changed.
            let _ = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// A descriptor that another process has sent.
pub fn received(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for this process, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
