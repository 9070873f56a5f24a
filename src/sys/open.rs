//! Opening what stands at a path that others fill: whatever stands there, it is answered at once.
//!
//! To open a FIFO waits for its other end (fifo(7)), maybe for ever, and to open a device may do something.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// Opens a directory. What is none is `ENOTDIR`.
pub fn directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// What stands there, whatever it is, without opening it (`O_PATH`, open(2)): for `statx` alone.
pub fn location(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

/// Opens a file or directory to look at it. What is neither is an error.
pub fn to_look(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?;
    if kind.is_file() || kind.is_dir() {
        return Ok(file);
    }
    Err(io::Error::other("it is neither a file nor a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(super::directory(&fifo).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(to_look(&fifo).is_err() && to_look(Path::new("/dev/null")).is_err());
        assert!(
            location(&fifo).is_ok()
                && super::directory(directory.path()).is_ok()
                && to_look(directory.path()).is_ok()
        );
    }
}
