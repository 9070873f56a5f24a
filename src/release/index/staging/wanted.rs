//! Files whose content is not where it was in the base: written like a page, for there may be many.

use super::super::meta::PageWriter;
use super::super::{Error, Record};

/// Files in path order, with their numbers.
#[derive(Default)]
pub struct Wanted {
    files: PageWriter,
    numbers: Vec<usize>,
}

impl Wanted {
    pub fn add(&mut self, record: &Record, number: usize) {
        self.files.add(record);
        self.numbers.push(number);
    }

    /// The same and the files with these numbers, which rise; `all` are all files of the release.
    pub fn merged(
        mut self,
        numbers: &[usize],
        all: impl Iterator<Item = Result<Record, Error>>,
    ) -> Result<Self, Error> {
        let mut merged = Self::default();
        let mut more = numbers.iter().peekable();
        let mut these = std::mem::take(&mut self.numbers).into_iter().peekable();
        for (number, record) in all.enumerate() {
            let is_wanted = more.next_if(|more| **more == number).is_some();
            if these.next_if(|these| *these == number).is_some() || is_wanted {
                merged.add(&record?, number);
            }
        }
        Ok(merged)
    }

    pub fn len(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// Calls `found` with each of them.
    pub fn each(mut self, found: &mut dyn FnMut(Record, usize) -> Result<(), Error>) -> Result<(), Error> {
        for (record, number) in self.files.take_entries().zip(self.numbers) {
            found(record?, number)?;
        }
        Ok(())
    }
}
