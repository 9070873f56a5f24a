//! Two releases side by side, entry by entry in path order, page by page in memory.
//!
//! A page that both have is read once, or not at all: its entries are the same.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::super::meta::{Record, Sequence};
use super::super::reader::PageEntries;
use super::super::{Error, Index, Page, PageKind};
use crate::types::Digest;
use crate::types::entry::path_order;

/// An entry, and the number of its file among all files of the release.
#[derive(Clone, Debug)]
pub struct Numbered {
    pub record: Record,
    /// How many files come before it.
    pub file: usize,
}

/// What is done about the pages that both releases have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    Skipped,
    /// They are read of the new release, and give [`Pair::Same`].
    Read,
}

/// Pages that both releases have, each with the number of the old release's first file on it.
type SharedPages = HashMap<Digest, usize>;

/// The entries of one release.
struct Entries<'a> {
    index: &'a Index<'a>,
    pages: &'a [Page],
    shared: &'a SharedPages,
    are_read: bool,
    open: Option<PageEntries<'a>>,
    file: usize,
    /// The number of the next file in the old release, on a page that both have.
    twin: Option<usize>,
    sequence: Sequence,
}

impl<'a> Entries<'a> {
    fn new(index: &'a Index<'a>, shared: &'a SharedPages, are_read: bool) -> Self {
        let pages = index.root().of_kind(PageKind::Meta);
        let (open, sequence) = (None, Sequence::default());
        Self { index, pages, shared, are_read, open, file: 0, twin: None, sequence }
    }

    /// The next entry, and the number of its file in the old release, if it is known to be the same there.
    fn next(&mut self) -> Result<Option<(Numbered, Option<usize>)>, Error> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(record) = open.read()?
            {
                if self.shared.is_empty() || self.are_read {
                    self.sequence.check(&record.entry)?;
                }
                let (file, twin) = (self.file, self.twin);
                let step = usize::from(record.has_content());
                (self.file, self.twin) = (file + step, twin.map(|twin| twin + step));
                return Ok(Some((Numbered { record, file }, twin)));
            }
            let Some((page, rest)) = self.pages.split_first() else { return Ok(None) };
            self.pages = rest;
            let twin = self.shared.get(&page.digest).copied();
            if twin.is_some() && !self.are_read {
                self.file += usize::try_from(page.files).unwrap_or(0);
                self.open = None;
            } else {
                self.twin = twin;
                self.open = Some(PageEntries::open(self.index, page)?);
            }
        }
    }
}

/// What one of the releases has, or both.
pub enum Pair {
    New(Numbered),
    Gone(Numbered),
    /// Both, the new one first.
    Both(Numbered, Numbered),
    /// Both, and they are the same; with the number of its file in the old one.
    Same(Numbered, usize),
}

/// Calls `found` for each entry of either release.
pub fn join(
    new: &Index<'_>,
    old: Option<&Index<'_>>,
    shared: Shared,
    found: &mut dyn FnMut(Pair) -> Result<(), Error>,
) -> Result<(), Error> {
    let pages = old.map(|old| shared_pages(new, old)).unwrap_or_default();
    let mut news = Entries::new(new, &pages, shared == Shared::Read);
    let mut olds = old.map(|old| Entries::new(old, &pages, false));
    let mut advance = || olds.as_mut().map_or(Ok(None), Entries::next);
    let (mut one, mut other) = (news.next()?, advance()?);
    loop {
        let order = match (&one, &other) {
            (None, None) => return Ok(()),
            (Some((_, Some(_))), _) | (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, None)), Some((other, _))) => {
                path_order(&one.record.entry.path, &other.record.entry.path)
            }
        };
        let new_one = if order.is_le() { std::mem::replace(&mut one, news.next()?) } else { None };
        let old_one = if order.is_ge() { std::mem::replace(&mut other, advance()?) } else { None };
        match (new_one, old_one) {
            (Some((new_one, Some(twin))), _) => found(Pair::Same(new_one, twin))?,
            (Some((new_one, None)), Some((old_one, _))) => found(Pair::Both(new_one, old_one))?,
            (Some((new_one, None)), None) => found(Pair::New(new_one))?,
            (None, Some((old_one, _))) => found(Pair::Gone(old_one))?,
            (None, None) => {}
        }
    }
}

/// The entries of the old release; without those on pages that the new one has, too, if these are skipped.
pub fn entries_of_old(
    new: &Index<'_>,
    old: &Index<'_>,
    shared: Shared,
    found: &mut dyn FnMut(Numbered),
) -> Result<(), Error> {
    let pages = if shared == Shared::Skipped { shared_pages(new, old) } else { SharedPages::new() };
    let mut entries = Entries::new(old, &pages, false);
    while let Some((entry, _)) = entries.next()? {
        found(entry);
    }
    Ok(())
}

/// The pages that both have.
pub fn shared_pages(new: &Index<'_>, old: &Index<'_>) -> SharedPages {
    let mut first = 0;
    let mut olds = SharedPages::new();
    for page in old.root().of_kind(PageKind::Meta) {
        olds.insert(page.digest, first);
        first += usize::try_from(page.files).unwrap_or(0);
    }
    let news = new.root().of_kind(PageKind::Meta).iter();
    news.filter_map(|page| Some((page.digest, *olds.get(&page.digest)?))).collect()
}
