//! Many reads at once: each of them waits for the storage, so several threads do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Read, SOME_BYTES};

/// So many read at a time.
const READERS: usize = 8;

/// A reader takes at most so many names at once: those of one directory stand together, and it opens that once.
const RUN_MAX: usize = 32;

/// Reads the first of these, one at least, as [`super::Board::read_some`] does; `reader`: how each of the readers reads.
pub(super) fn read_at_once<R: FnMut(&str) -> Read + Send>(
    names: &[String],
    within: Duration,
    reader: impl Fn() -> R,
) -> Vec<Read> {
    let (began, next, bytes) = (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
    let may_begin = |place| {
        place == 0 || (began.elapsed() < within && bytes.load(Ordering::Relaxed) < SOME_BYTES / READERS)
    };
    let run = (names.len() / (4 * READERS)).clamp(1, RUN_MAX);
    let work = |mut reader: R| {
        let mut some = Vec::new();
        loop {
            let begin = next.fetch_add(run, Ordering::Relaxed);
            let places = begin..names.len().min(begin + run);
            if places.is_empty() {
                break some;
            }
            for place in places {
                if !may_begin(place) {
                    return some;
                }
                let read = reader(&names[place]);
                let length = if let Read::Bytes(text) = &read { text.len() } else { 0 };
                bytes.fetch_add(length, Ordering::Relaxed);
                some.push((place, read));
            }
        }
    };
    let mut some: Vec<(usize, Read)> = std::thread::scope(|scope| {
        let readers = (0..READERS.min(names.len())).map(|_| reader());
        let work = &work;
        let readers: Vec<_> = readers.map(|reader| scope.spawn(move || work(reader))).collect();
        readers.into_iter().filter_map(|reader| reader.join().ok()).flatten().collect()
    });
    some.sort_by_key(|(place, _)| *place);
    // Without a gap: one reader may have stopped where another one went on.
    let whole = some.into_iter().enumerate().take_while(|(at, (place, _))| at == place);
    whole.map(|(_, (_, read))| read).collect()
}
