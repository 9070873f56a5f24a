//! The races of one party: it makes names, and reads them while they are made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::super::board::{Board, Created, Read};
use super::super::facts::names;
use super::{LOOK, Party};

/// How often a create of which nobody knows is tried again.
const RETRIES: u32 = 5;
/// Long enough to be seen in halves.
const TEXT_REPEATS: usize = 60;

/// What all threads of a party need for the races.
pub(super) struct Race<'a> {
    /// Which of the parties this is.
    pub me: usize,
    pub parties: &'a [Party],
    /// What names this check's races; no other check has the same.
    pub session: String,
}

impl Race<'_> {
    /// The name that is raced for in this round.
    pub fn name(&self, number: usize) -> String {
        format!("{}/check.{}.{number:06}", names::ROLLOUTS, self.session)
    }

    fn text(&self, party: usize, number: usize) -> String {
        format!("{} wants {number} of {}\n", self.parties[party].label, self.session).repeat(TEXT_REPEATS)
    }

    /// Which party wrote this text, whole.
    pub fn writer(&self, text: &str, number: usize) -> Option<usize> {
        (0..self.parties.len()).find(|party| self.text(*party, number) == text)
    }

    /// Races for a name: who was first, how long it took, and why that is not known.
    pub fn create(&self, board: &mut dyn Board, number: usize) -> (Option<usize>, f64, Option<String>) {
        let (began, mut last) = (Instant::now(), None);
        for _ in 0..RETRIES {
            let created = board.create(&self.name(number), &self.text(self.me, number));
            let took_ms = began.elapsed().as_secs_f64() * 1000.0;
            match created {
                Created::Mine => return (Some(self.me), took_ms, None),
                // What nobody wrote is of a party that is none.
                Created::Theirs(text) => {
                    return (Some(self.writer(&text, number).unwrap_or(self.parties.len())), took_ms, None);
                }
                Created::Refused(why) | Created::Unknown(why) => last = Some(why),
            }
            std::thread::sleep(LOOK);
        }
        (None, began.elapsed().as_secs_f64() * 1000.0, last)
    }

    /// Reads the names of a group while they are made: how many reads, and how many of what nobody wrote.
    pub fn watch(&self, board: &mut dyn Board, group: &[usize], is_over: &AtomicBool) -> (u64, u32) {
        let (mut reads, mut torn) = (0, 0);
        loop {
            let is_last = is_over.load(Ordering::Relaxed);
            for number in group {
                reads += 1;
                torn += match board.read(&self.name(*number)) {
                    Read::Bytes(text) => u32::from(self.writer(&text, *number).is_none()),
                    Read::Bad(_) => 1,
                    Read::Absent | Read::Unreachable(_) => 0,
                };
            }
            if is_last {
                return (reads, torn);
            }
        }
    }
}
