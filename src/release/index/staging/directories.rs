//! Directories of a tree, to be gone through forwards and backwards: held in pieces that are small when they are read.

use super::super::Error;
use super::super::meta::{PageWriter, Record};

/// So many directories are read at once.
const PIECE: usize = 256;

#[derive(Default)]
pub struct Directories {
    pieces: Vec<(PageWriter, usize)>,
}

impl Directories {
    pub fn add(&mut self, record: &Record) {
        if self.pieces.last().is_none_or(|(_, count)| *count == PIECE) {
            self.pieces.push((PageWriter::default(), 0));
        }
        if let Some((piece, count)) = self.pieces.last_mut() {
            piece.add(record);
            *count += 1;
        }
    }

    /// All of them in path order.
    pub fn entries(&self) -> impl Iterator<Item = Result<Record, Error>> + Send {
        self.pieces.iter().flat_map(|(piece, _)| piece.entries())
    }

    /// Calls `found` with each, those that are deepest in the tree first.
    pub fn each_reversed(&self, found: &mut dyn FnMut(&Record) -> Result<(), Error>) -> Result<(), Error> {
        for (piece, _) in self.pieces.iter().rev() {
            let records = piece.entries().collect::<Result<Vec<_>, _>>()?;
            records.iter().rev().try_for_each(&mut *found)?;
        }
        Ok(())
    }
}

/// How many bytes its path shares with the one before, the rest, and its time.
type TouchedDirectory = (u16, Box<[u8]>, (i64, u32));

/// Directories whose times must be set again, with these times, in no order.
#[derive(Default)]
pub struct Touched {
    touched: Vec<TouchedDirectory>,
    last: Vec<u8>,
    /// Those that the last path is in.
    open: Vec<Vec<u8>>,
}

impl Touched {
    /// Whether the directory is there already. Directories are asked for in path order of what is in them.
    pub fn contains(&mut self, directory: &[u8]) -> bool {
        let is_in = |open: &Vec<u8>| {
            directory.strip_prefix(open.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        while self.open.pop_if(|open| !is_in(open)).is_some() {}
        self.open.last().is_some_and(|open| open == directory)
    }

    /// Adds one that is not there.
    pub fn add(&mut self, directory: &[u8], time: (i64, u32)) {
        let shared = self.last.iter().zip(directory).take_while(|(one, other)| one == other).count();
        let shared = u16::try_from(shared).unwrap_or(0);
        self.touched.push((shared, directory[usize::from(shared)..].into(), time));
        self.last = directory.to_vec();
        self.open.push(directory.to_vec());
    }

    /// Calls `found` with each.
    pub fn each<E>(self, mut found: impl FnMut(&[u8], (i64, u32)) -> Result<(), E>) -> Result<(), E> {
        let mut path = Vec::new();
        for (shared, rest, time) in self.touched {
            path.truncate(usize::from(shared));
            path.extend_from_slice(&rest);
            found(&path, time)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_directory_is_kept_once_with_its_first_time() {
        let mut touched = Touched::default();
        for (time, directory) in ["a", "a/b", "a/b/c", "a/b", "a", "a/d", "ab", "a-b"].iter().enumerate() {
            if !touched.contains(directory.as_bytes()) {
                touched.add(directory.as_bytes(), (time as i64, 0));
            }
        }
        let mut found = Vec::new();
        let each = touched.each(|path, (time, _)| {
            found.push((String::from_utf8_lossy(path).into_owned(), time));
            Ok::<_, ()>(())
        });
        each.unwrap();
        let wanted = [("a", 0), ("a/b", 1), ("a/b/c", 2), ("a/d", 5), ("ab", 6), ("a-b", 7)];
        assert_eq!(found, wanted.map(|(path, time)| (path.to_owned(), time)));
    }
}
