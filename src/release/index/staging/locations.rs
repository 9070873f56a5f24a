//! In which frame the content of each file begins.

use super::super::error::malformed;
use super::super::{Error, Index, PageKind};

/// The first frame of each file; files are asked for in rising order, and a page is read when it is needed.
#[derive(Default)]
pub struct Locations {
    page: usize,
    /// The number of the first file of the page.
    first: usize,
    read: Option<Vec<u64>>,
}

impl Locations {
    /// The first frame of a file.
    pub fn get(&mut self, index: &Index<'_>, file: usize) -> Result<usize, Error> {
        let missing = malformed("the index", "a file has no location");
        loop {
            let pages = index.root().of_kind(PageKind::Locations);
            let Some(page) = pages.get(self.page) else { return Err(missing) };
            let count = usize::try_from(page.items).unwrap_or(usize::MAX);
            let Some(at) = file.checked_sub(self.first) else { return Err(missing) };
            if at >= count {
                (self.page, self.first, self.read) = (self.page + 1, self.first + count, None);
                continue;
            }
            let read = match self.read.take() {
                Some(read) => read,
                None => index.locations(page)?,
            };
            let location = read.get(at).copied();
            self.read = Some(read);
            return location.and_then(|location| usize::try_from(location).ok()).ok_or(missing);
        }
    }
}
