//! Makes the pages of the index, and writes index and seek table behind the frames.
//!
//! In the archive come first the pages that the base has, too, in its order, then those that are new. So whatever any of the
//! releases before lacks lies together, beside the root, as its files do in the frames: a node reads it in one piece.

use std::collections::HashMap;

use super::Error;
use super::output::Output;
use crate::release::index::frames::put_locations;
use crate::release::index::meta::PageWriter;
use crate::release::index::root::{FOOTER_BYTES, Footer};
use crate::release::index::{Frame, Page, PageKind, Record, Root, seek};
use crate::types::Digest;
use crate::types::entry::Kind;

/// Pages of one level have the same bytes whatever the level of the frames.
const LEVEL: i32 = 9;
/// A page of metadata is cut from this length on, where the next path says so: small, since a page with one changed
/// entry is read whole.
const META_MIN: usize = 2 << 10;
/// And from so many times the length of that path on, which the root repeats: the root stays small beside its pages.
const META_MIN_PATHS: usize = 16;
/// One path in so many begins a page: of directories, and of all else.
const CUTS: (u16, u16) = (2, 32);
/// A page of metadata is cut before it gets longer, but for a single entry.
const META_MAX: usize = 256 << 10;
const FRAMES_A_PAGE: usize = 1024;
/// Locations of a page are at least so many, but for the last page.
const LOCATIONS_MIN: usize = 4096;

/// The pages as they are made, in the order in which the root has them.
#[derive(Default)]
pub struct Pages {
    /// Their offsets are not known yet.
    pages: Vec<Page>,
    /// What each of them is in the archive.
    bytes: Vec<Vec<u8>>,
}

impl Pages {
    fn add(
        &mut self,
        kind: PageKind,
        items: u64,
        files: u64,
        first: &[u8],
        plain: &[u8],
    ) -> Result<(), Error> {
        let bytes = zstd::bulk::compress(plain, LEVEL).map_err(Error::Compress)?;
        self.pages.push(Page {
            kind,
            items,
            files,
            first: first.to_vec(),
            offset: 0,
            size: bytes.len() as u64,
            plain: plain.len() as u64,
            digest: Digest::of(&bytes),
        });
        self.bytes.push(bytes);
        Ok(())
    }

    /// Adds all entries. Pages are cut by what the paths say, so that a change in one place moves no other cut.
    pub fn add_entries(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut writer = PageWriter::default();
        let (mut start, mut files) = (0, 0);
        for (at, record) in records.iter().enumerate() {
            if is_cut(&writer, record) {
                self.add(
                    PageKind::Meta,
                    (at - start) as u64,
                    files,
                    &records[start].entry.path,
                    &writer.take(),
                )?;
                (start, files) = (at, 0);
            }
            writer.add(record);
            files += u64::from(record.has_content());
        }
        if !writer.is_empty() {
            let items = (records.len() - start) as u64;
            self.add(PageKind::Meta, items, files, &records[start].entry.path, &writer.take())?;
        }
        Ok(())
    }

    pub fn add_frames(&mut self, frames: &[Frame]) -> Result<(), Error> {
        for some in frames.chunks(FRAMES_A_PAGE) {
            let mut plain = Vec::new();
            some.iter().for_each(|frame| frame.put(&mut plain));
            self.add(PageKind::Frames, some.len() as u64, 0, b"", &plain)?;
        }
        Ok(())
    }

    /// Adds the location of each file. A page of locations covers whole pages of metadata.
    pub fn add_locations(&mut self, locations: &[u64]) -> Result<(), Error> {
        let counts: Vec<u64> =
            self.pages.iter().filter(|page| page.kind == PageKind::Meta).map(|page| page.files).collect();
        let mut rest = locations;
        let mut length = 0;
        for (at, files) in counts.iter().enumerate() {
            length += usize::try_from(*files).unwrap_or(usize::MAX);
            if length > 0 && (length >= LOCATIONS_MIN || at + 1 == counts.len()) {
                let (some, after) = rest.split_at(length);
                self.add(PageKind::Locations, length as u64, 0, b"", &put_locations(some))?;
                (rest, length) = (after, 0);
            }
        }
        Ok(())
    }

    /// Gives each page its place, from `start` on; gives their order there, and where the last one ends.
    fn place(&mut self, start: u64, base: Option<&Root>) -> (Vec<usize>, u64) {
        let old: HashMap<Digest, u64> =
            base.iter().flat_map(|base| &base.pages).map(|page| (page.digest, page.offset)).collect();
        let mut order: Vec<usize> = (0..self.pages.len()).collect();
        order.sort_by_key(|at| old.get(&self.pages[*at].digest).copied().unwrap_or(u64::MAX));
        let mut end = start;
        for at in &order {
            let page = &mut self.pages[*at];
            page.offset = end;
            end += page.size;
        }
        (order, end)
    }

    /// Writes the index and the seek table; gives the digest of the root. `base` is the root of the release before.
    pub fn finish(
        mut self,
        totals: Totals,
        frames: &[Frame],
        base: Option<&Root>,
        output: &mut Output,
    ) -> Result<Digest, Error> {
        let start = output.written();
        let (order, end) = self.place(start + 8, base);
        let root = totals.root(frames, self.pages);
        let plain = root.write();
        let bytes = zstd::bulk::compress(&plain, LEVEL).map_err(Error::Compress)?;
        let narrow = |length: u64| u32::try_from(length).map_err(|_| Error::TooLarge);
        let footer = Footer {
            offset: end,
            size: narrow(bytes.len() as u64)?,
            plain: narrow(plain.len() as u64)?,
            digest: Digest::of(&bytes),
            frames: start,
        };
        let length = narrow(end - (start + 8) + (bytes.len() + FOOTER_BYTES) as u64)?;
        output.write(&seek::head(length))?;
        order.iter().try_for_each(|at| output.write(&self.bytes[*at]))?;
        output.write(&bytes)?;
        output.write(&footer.write())?;
        output.write(&seek::table(frames, length).ok_or(Error::TooLarge)?)?;
        Ok(footer.digest)
    }
}

/// What the root says beside the pages.
pub struct Totals {
    pub entries: u64,
    pub files: u64,
    /// Their bytes.
    pub plain: u64,
    pub generation: u64,
    pub tree: Digest,
}

impl Totals {
    /// The totals of these entries.
    pub fn of(records: &[Record], tree: Digest) -> Self {
        let files = records.iter().filter(|record| record.has_content());
        let sizes = files.clone().map(|record| match record.entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        });
        Self {
            entries: records.len() as u64,
            files: files.clone().count() as u64,
            plain: sizes.sum(),
            generation: files.map(|record| record.generation).max().unwrap_or(0),
            tree,
        }
    }

    fn root(self, frames: &[Frame], pages: Vec<Page>) -> Root {
        Root {
            entries: self.entries,
            files: self.files,
            plain: self.plain,
            compressed: frames.iter().map(|frame| u64::from(frame.size)).sum(),
            largest: frames.iter().map(|frame| u64::from(frame.plain)).max().unwrap_or(0),
            frames: frames.len() as u64,
            generation: self.generation,
            tree: self.tree,
            pages,
        }
    }
}

/// Whether a page ends before this entry.
fn is_cut(page: &PageWriter, next: &Record) -> bool {
    let entry = &next.entry;
    if page.len() < META_MIN.max(META_MIN_PATHS * entry.path.len()) {
        return false;
    }
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    if page.len() + 3 * entry.path.len() + xattrs + 256 > META_MAX {
        return true;
    }
    let digest = Digest::of(&entry.path).0;
    let number = u16::from_le_bytes([digest[0], digest[1]]);
    number.is_multiple_of(if entry.kind == Kind::Directory { CUTS.0 } else { CUTS.1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::index::meta::file_for_test;

    #[test]
    fn a_change_in_one_place_leaves_other_pages_as_they_are() {
        let records = |skip: usize| -> Vec<Record> {
            (0..20_000)
                .filter(|number| *number != skip)
                .map(|number| file_for_test(&format!("{number:06}"), &number.to_string().into_bytes()))
                .collect()
        };
        let pages = |records: &[Record]| {
            let mut pages = Pages::default();
            pages.add_entries(records).unwrap();
            pages.pages
        };
        let (before, after) = (pages(&records(usize::MAX)), pages(&records(9_000)));
        assert!(before.len() > 10, "{}", before.len());
        let same = after.iter().filter(|page| before.iter().any(|old| old.digest == page.digest)).count();
        assert!(same + 2 >= after.len(), "{same} of {}", after.len());
    }

    #[test]
    fn what_any_release_before_lacks_lies_together_at_the_end() {
        // Each release changes other files, far from each other.
        let records = |release: usize| -> Vec<Record> {
            let changed = |number: usize| (1..=release).rfind(|by| number % 4000 == by * 1000).unwrap_or(0);
            let content = |number| format!("{number}, of {}", changed(number)).into_bytes();
            (0..20_000).map(|number| file_for_test(&format!("{number:06}"), &content(number))).collect()
        };
        let mut roots: Vec<Root> = Vec::new();
        for release in 0..4 {
            let records = records(release);
            let mut pages = Pages::default();
            pages.add_entries(&records).unwrap();
            pages.place(8, roots.last());
            roots.push(Totals::of(&records, Digest::of(b"tree")).root(&[], pages.pages));
        }
        let last = roots[3].pages_as_they_lie();
        for (release, before) in roots[..3].iter().enumerate() {
            let is_new: Vec<bool> =
                last.iter().map(|page| before.pages.iter().all(|old| old.digest != page.digest)).collect();
            assert!(is_new.is_sorted(), "{release}: {is_new:?}");
            assert_eq!(is_new.iter().filter(|is_new| **is_new).count(), 5 * (3 - release), "{release}");
        }
    }
}
