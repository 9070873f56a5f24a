//! A board of which much was read at once, for those who look on: what is asked for later is what was read then.
//!
//! A read may always be older than the storage, so this is a board like any other. Nobody decides by it.

use std::collections::HashMap;
use std::time::Duration;

use super::{Board, Over, Read};

/// So much is read at once at the most: the facts of more members than there can be, unless somebody has made them long.
const BYTES_MAX: usize = 256 << 20;

pub struct Ahead<'b> {
    board: &'b mut dyn Board,
    read: HashMap<String, Read>,
}

impl<'b> Ahead<'b> {
    /// Reads all of these.
    ///
    /// # Errors
    /// When they are longer than any fleet's.
    pub fn new(board: &'b mut dyn Board, names: &[String]) -> Result<Self, String> {
        let (mut read, mut bytes) = (HashMap::new(), 0);
        while read.len() < names.len() {
            let begin = read.len();
            let some = board.read_some(&names[begin..], Duration::MAX);
            if some.is_empty() {
                return Err("it gives no answer to a question".into());
            }
            for (name, one) in names[begin..].iter().zip(some) {
                bytes += if let Read::Bytes(text) = &one { text.len() } else { 0 };
                read.insert(name.clone(), one);
            }
            // A name that is asked for twice would be waited for.
            if read.len() == begin {
                break;
            }
            if bytes > BYTES_MAX {
                return Err(format!(
                    "what stands there of one rollout is longer than {} MiB",
                    BYTES_MAX >> 20
                ));
            }
        }
        Ok(Self { board, read })
    }
}

impl Over for Ahead<'_> {
    fn under(&mut self) -> &mut (dyn Board + '_) {
        self.board
    }

    fn passes_on(&self, name: &str) -> bool {
        !self.read.contains_key(name)
    }

    fn read_over(&mut self, name: &str) -> Read {
        self.read.get(name).cloned().unwrap_or_else(|| self.board.read(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClockRead, Created, Done, Listed};
    use super::*;

    /// Holds text without end, and counts what was asked.
    struct Long(usize);

    impl Board for Long {
        fn read(&mut self, _: &str) -> Read {
            self.0 += 1;
            Read::Bytes("x".repeat(200 << 10))
        }

        fn list(&mut self, _: &str) -> Listed {
            Listed::Names(Vec::new())
        }

        fn create(&mut self, _: &str, _: &str) -> Created {
            Created::Unknown(String::new())
        }

        fn prepare(&mut self, _: &str) -> Done {
            Done::Done
        }

        fn beat(&mut self, _: &str, _: &str) -> Done {
            Done::Done
        }

        fn clock(&mut self, _: &str) -> ClockRead {
            ClockRead::Unknown
        }

        fn remove(&mut self, _: &str) -> Done {
            Done::Done
        }
    }

    #[test]
    fn what_was_read_ahead_is_not_asked_again_and_has_a_bound() {
        let names: Vec<String> = (0..70_000).map(|number| format!("nodes/n{number}/alive")).collect();
        let mut board = Long(0);
        let mut ahead = Ahead::new(&mut board, &names[..10]).unwrap();
        assert!(matches!(ahead.read(&names[3]), Read::Bytes(_)));
        assert!(matches!(ahead.read("members/000001"), Read::Bytes(_)));
        assert_eq!(board.0, 11);
        let why = Ahead::new(&mut board, &names).err().unwrap();
        assert!(why.contains("256 MiB"), "{why}");
        assert!(board.0 < 2000, "{} of 70,000 were read", board.0);
    }
}
