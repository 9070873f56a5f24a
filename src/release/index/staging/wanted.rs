//! Files whose content is not where it was in the base: written like a page, for there may be many.

use super::super::meta::{PageReader, PageWriter};
use super::super::{Error, Record};

/// Files in path order, with their numbers.
#[derive(Default)]
pub struct Wanted {
    files: PageWriter,
    numbers: Vec<usize>,
}

impl Wanted {
    /// Adds the next file.
    pub fn add(&mut self, record: &Record, number: usize) {
        self.files.add(record);
        self.numbers.push(number);
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// Calls `found` with each of them.
    pub fn each(mut self, found: &mut dyn FnMut(Record, usize) -> Result<(), Error>) -> Result<(), Error> {
        let page = self.files.take();
        for (record, number) in PageReader::new(&page).zip(self.numbers) {
            found(record?, number)?;
        }
        Ok(())
    }
}
