//! Reading ahead in a thread of its own, so that decompression and what is done with the bytes share the work.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// The size of a piece, and how many are ready at most.
const PIECE: usize = 512 << 10;
const PIECES: usize = 4;

/// The bytes of a reader that another thread reads.
pub struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    taken: usize,
    has_ended: bool,
}

impl Ahead {
    /// Starts the thread, which ends with the source or when nobody wants its bytes any more.
    pub fn new(source: impl Read + Send + 'static) -> Self {
        let (ready, pieces) = sync_channel(PIECES);
        let (used, free) = sync_channel(PIECES + 2);
        thread::spawn(move || read(source, &ready, &free));
        Self { pieces, used, piece: Vec::new(), taken: 0, has_ended: false }
    }
}

/// Reads to the end, and says so by an empty piece.
fn read(mut source: impl Read, ready: &SyncSender<io::Result<Vec<u8>>>, free: &Receiver<Vec<u8>>) {
    loop {
        let mut piece: Vec<u8> = free.try_recv().unwrap_or_default();
        piece.clear();
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_last = read.is_err() || piece.is_empty();
        // What came before an error is given first: it decides what the archive is refused for.
        if read.is_err() && !piece.is_empty() && ready.send(Ok(piece.split_off(0))).is_err() {
            return;
        }
        if ready.send(read.map(|_| piece)).is_err() || is_last {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.piece.len() && !self.has_ended {
            let next = self.pieces.recv().unwrap_or_else(|_| Err(io::Error::other("its reader has ended")));
            self.has_ended = !next.as_ref().is_ok_and(|piece| !piece.is_empty());
            let last = std::mem::replace(&mut self.piece, next?);
            self.taken = 0;
            // Nobody waits for it: at most it is made anew.
            drop(self.used.try_send(last));
        }
        Ok(&self.piece[self.taken..])
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_in_order_and_then_the_end() {
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|at| (at % 251) as u8).collect();
        let mut read = Vec::new();
        let mut ahead = Ahead::new(io::Cursor::new(bytes.clone()));
        ahead.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(ahead.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn an_error_comes_after_the_bytes_before_it() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let mut ahead = Ahead::new(io::Cursor::new(b"abc").chain(Broken));
        let mut read = Vec::new();
        assert_eq!(ahead.read_to_end(&mut read).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(read, b"abc");
    }

    #[test]
    fn a_reader_that_nobody_wants_ends_its_thread() {
        drop(Ahead::new(io::repeat(0)));
    }
}
