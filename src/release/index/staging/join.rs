//! Two releases side by side, entry by entry in path order, page by page in memory.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::super::meta::{Record, Sequence};
use super::super::reader::read_page;
use super::super::{Error, Index, Page, PageKind};
use crate::types::Digest;
use crate::types::entry::path_order;

/// An entry, and the number of its file among all files of the release.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The entry.
    pub record: Record,
    /// How many files come before it.
    pub file: usize,
}

/// The entries of one release, without those of the pages that are skipped.
struct Entries<'a> {
    index: &'a Index<'a>,
    pages: &'a [Page],
    skip: &'a HashSet<Digest>,
    read: std::vec::IntoIter<Record>,
    file: usize,
    sequence: Sequence,
}

impl<'a> Entries<'a> {
    fn new(index: &'a Index<'a>, skip: &'a HashSet<Digest>) -> Self {
        let pages = index.root().of_kind(PageKind::Meta);
        Self { index, pages, skip, read: Vec::new().into_iter(), file: 0, sequence: Sequence::default() }
    }

    fn next(&mut self) -> Result<Option<Numbered>, Error> {
        loop {
            if let Some(record) = self.read.next() {
                if self.skip.is_empty() {
                    self.sequence.check(&record.entry)?;
                }
                let file = self.file;
                self.file += usize::from(record.has_content());
                return Ok(Some(Numbered { record, file }));
            }
            let Some((page, rest)) = self.pages.split_first() else { return Ok(None) };
            self.pages = rest;
            if self.skip.contains(&page.digest) {
                self.file += usize::try_from(page.files).unwrap_or(0);
            } else {
                self.read = read_page(page, &self.index.page(page)?)?.into_iter();
            }
        }
    }
}

/// What one of the releases has, or both.
pub enum Pair {
    /// Only the new one.
    New(Numbered),
    /// Only the old one.
    Gone(Numbered),
    /// Both, the new one first.
    Both(Numbered, Numbered),
}

/// Calls `found` for each entry of either release.
///
/// With `skip_same`, pages that both have are left out: their entries are the same.
pub fn join(
    new: &Index<'_>,
    old: Option<&Index<'_>>,
    skip_same: bool,
    found: &mut dyn FnMut(Pair) -> Result<(), Error>,
) -> Result<(), Error> {
    let skip = if skip_same { same_pages(new, old) } else { HashSet::new() };
    let mut news = Entries::new(new, &skip);
    let mut olds = old.map(|old| Entries::new(old, &skip));
    let mut advance = || olds.as_mut().map_or(Ok(None), Entries::next);
    let (mut one, mut other) = (news.next()?, advance()?);
    loop {
        let order = match (&one, &other) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => path_order(&one.record.entry.path, &other.record.entry.path),
        };
        let new_one = if order.is_le() { std::mem::replace(&mut one, news.next()?) } else { None };
        let old_one = if order.is_ge() { std::mem::replace(&mut other, advance()?) } else { None };
        match (new_one, old_one) {
            (Some(new_one), Some(old_one)) => found(Pair::Both(new_one, old_one))?,
            (Some(new_one), None) => found(Pair::New(new_one))?,
            (None, Some(old_one)) => found(Pair::Gone(old_one))?,
            (None, None) => {}
        }
    }
}

/// The entries of the old release that are not on a page of the new one.
pub fn changed_of_old(
    new: &Index<'_>,
    old: &Index<'_>,
    skip_same: bool,
    found: &mut dyn FnMut(Numbered),
) -> Result<(), Error> {
    let skip = if skip_same { same_pages(new, Some(old)) } else { HashSet::new() };
    let mut entries = Entries::new(old, &skip);
    while let Some(entry) = entries.next()? {
        found(entry);
    }
    Ok(())
}

fn same_pages(new: &Index<'_>, old: Option<&Index<'_>>) -> HashSet<Digest> {
    let digests = |index: &Index<'_>| -> HashSet<Digest> {
        index.root().of_kind(PageKind::Meta).iter().map(|page| page.digest).collect()
    };
    let Some(old) = old else { return HashSet::new() };
    let olds = digests(old);
    digests(new).into_iter().filter(|digest| olds.contains(digest)).collect()
}
