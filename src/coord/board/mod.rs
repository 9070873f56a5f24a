//! Shared storage as a board: names on which something is pinned once, for ever.
//!
//! A create is the only decision there is: of all who create a name exactly one is first, and all read the same bytes
//! afterwards. A read may be old: it may miss what is there, but never shows what is not.

pub mod ahead;
pub mod directory;
pub mod helper;
mod many;
pub mod message;
pub mod serve;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::facts::names;

/// What came of a create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Created {
    /// These bytes are on the board: put there now, or before.
    Mine,
    /// Somebody else was first; this is what the name holds.
    Theirs(String),
    /// Certainly nothing was made by this: the name was never asked for. What was asked for before may still come.
    Refused(String),
    /// Nobody knows: the storage did not say. Read, or try again; never assume.
    Unknown(String),
}

/// What came of a read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    Bytes(String),
    /// Nothing, as far as could be seen.
    Absent,
    /// Something that no fact can be: too long, not a regular file, not UTF-8.
    Bad(String),
    /// The storage did not answer.
    Unreachable(String),
}

/// What came of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// The names in it, sorted; without those that begin with a dot.
    Names(Vec<String>),
    /// The storage did not answer, or holds too many.
    Unreachable(String),
}

/// What came of a change that decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    Done,
    /// The storage did not say so.
    Unreachable(String),
}

/// The storage's clock against this node's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockRead {
    /// How far the storage's is ahead, and how wrong that may be.
    Offset {
        /// Milliseconds.
        offset_ms: f64,
        /// Milliseconds.
        error_ms: f64,
    },
    /// It could not be measured.
    Unknown,
}

/// The most names that a listing may have: as many rollouts as six digits can number, with what may stand beside each.
pub const NAMES_MAX: usize = 3_000_000;

/// What is read at once is about as long as this at the most.
pub const SOME_BYTES: usize = 4 << 20;

pub trait Board {
    /// Pins `text` to `name`, unless something is there. The directory must exist.
    fn create(&mut self, name: &str, text: &str) -> Created;
    /// What `name` holds, asked of the storage anew.
    fn read(&mut self, name: &str) -> Read;
    /// Reads the first of these, one at least: as many as come within this time, and are not too long together. Quicker than one
    /// by one where the board can do it.
    fn read_some(&mut self, names: &[String], within: Duration) -> Vec<Read> {
        let (began, mut bytes, mut some) = (Instant::now(), 0, Vec::new());
        for name in names {
            let read = self.read(name);
            bytes += if let Read::Bytes(text) = &read { text.len() } else { 0 };
            some.push(read);
            if bytes > SOME_BYTES || began.elapsed() >= within {
                break;
            }
        }
        some
    }
    /// Reads all of these, and hands over what each holds, in this order, with its place.
    fn read_each(&mut self, names: &[String], take: &mut dyn FnMut(usize, Read)) {
        let mut place = 0;
        while place < names.len() {
            let some = self.read_some(&names[place..], Duration::MAX);
            // Whoever does not answer at all does not answer one by one either.
            let some = if some.is_empty() { vec![self.read(&names[place])] } else { some };
            for read in some.into_iter().take(names.len() - place) {
                take(place, read);
                place += 1;
            }
        }
    }
    /// The names in the directory `name`.
    fn list(&mut self, name: &str) -> Listed;
    /// Makes the directory `name`. Only ever one node makes one.
    fn prepare(&mut self, name: &str) -> Done;
    /// Replaces what `name` holds: for heartbeats, which decide nothing.
    fn beat(&mut self, name: &str, text: &str) -> Done;
    /// Compares the storage's clock with this node's, by a file in the directory `name`.
    fn clock(&mut self, name: &str) -> ClockRead;
    /// Why nothing can be made in the directory `name`, as far as that shows without making anything; nothing where nobody can
    /// tell.
    fn shut(&mut self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
    /// From now on each access may take this long at the most, where there is a limit.
    fn hurry(&mut self, limit: Duration) {
        let _ = limit;
    }
    /// Removes `name`, also an empty directory: for facts of rollouts that were closed long ago.
    fn remove(&mut self, name: &str) -> Done;
}

/// What a board holds under a name: nothing under one that it may not have.
pub fn read_named(name: &str, read: impl FnOnce() -> Result<Read, String>) -> Read {
    if names::is_name(name) { read().unwrap_or_else(Read::Unreachable) } else { Read::Absent }
}

/// What is in a directory of a board, or in all of it.
pub fn list_named(name: &str, list: impl FnOnce() -> Result<Listed, String>) -> Listed {
    if name.is_empty() || names::is_name(name) {
        list().unwrap_or_else(Listed::Unreachable)
    } else {
        Listed::Names(Vec::new())
    }
}

/// A board over another one, which answers some reads by itself. All else goes to that one.
pub trait Over {
    fn under(&mut self) -> &mut (dyn Board + '_);
    /// Whether a read of this name is the other one's to answer.
    fn passes_on(&self, name: &str) -> bool;
    /// What `name` holds, as [`Board::read`] says it.
    fn read_over(&mut self, name: &str) -> Read;
}

impl<T: Over> Board for T {
    fn create(&mut self, name: &str, text: &str) -> Created {
        self.under().create(name, text)
    }

    fn read(&mut self, name: &str) -> Read {
        self.read_over(name)
    }

    fn read_some(&mut self, names: &[String], within: Duration) -> Vec<Read> {
        match names.iter().take_while(|name| self.passes_on(name)).count() {
            0 => names.first().map(|name| self.read_over(name)).into_iter().collect(),
            some => self.under().read_some(&names[..some], within),
        }
    }

    fn list(&mut self, name: &str) -> Listed {
        self.under().list(name)
    }

    fn prepare(&mut self, name: &str) -> Done {
        self.under().prepare(name)
    }

    fn beat(&mut self, name: &str, text: &str) -> Done {
        self.under().beat(name, text)
    }

    fn clock(&mut self, name: &str) -> ClockRead {
        self.under().clock(name)
    }

    fn shut(&mut self, name: &str) -> Option<String> {
        self.under().shut(name)
    }

    fn hurry(&mut self, limit: Duration) {
        self.under().hurry(limit);
    }

    fn remove(&mut self, name: &str) -> Done {
        self.under().remove(name)
    }
}
