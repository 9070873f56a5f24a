//! Many reads at once: each of them waits for the storage, so several threads do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Board, Read, SOME_BYTES};

/// So many read at a time.
const READERS: usize = 8;

/// Reads the first of these, one at least, as [`Board::read_some`] does; each reader on a board of its own.
pub(super) fn read_at_once<B: Board + Send>(
    names: &[String],
    within: Duration,
    board: impl Fn() -> B,
) -> Vec<Read> {
    let (began, next, bytes) = (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
    let may_begin = |place| {
        place == 0 || (began.elapsed() < within && bytes.load(Ordering::Relaxed) < SOME_BYTES / READERS)
    };
    let read = |mut board: B| {
        let mut some = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(place).filter(|_| may_begin(place)) else { break some };
            let read = board.read(name);
            let length = if let Read::Bytes(text) = &read { text.len() } else { 0 };
            bytes.fetch_add(length, Ordering::Relaxed);
            some.push((place, read));
        }
    };
    let mut some: Vec<(usize, Read)> = std::thread::scope(|scope| {
        let boards = (0..READERS.min(names.len())).map(|_| board());
        let read = &read;
        let readers: Vec<_> = boards.map(|board| scope.spawn(move || read(board))).collect();
        readers.into_iter().filter_map(|reader| reader.join().ok()).flatten().collect()
    });
    some.sort_by_key(|(place, _)| *place);
    // Without a gap: one reader may have stopped where another one went on.
    let whole = some.into_iter().enumerate().take_while(|(at, (place, _))| at == place);
    whole.map(|(_, (_, read))| read).collect()
}
