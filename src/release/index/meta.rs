//! Pages of metadata: what entries a release has, in path order, without where their content is.
//!
//! ```text
//! kind (1 directory, 2 file, 3 symbolic link, 4 further hard link)
//! shared, suffix        the path: so many bytes of the one before it on this page, then these
//! mode uid gid seconds± nanoseconds
//! xattrs, of each: name, value      in order of names
//! file: size, generation, content[32]     link: target     hard link: size, content[32], first path
//! ```
//! A page depends on nothing outside it, so that the same directory gives the same page in every release.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::codec::{Cursor, put, put_bytes, put_signed};
use super::error::{Error, malformed};
use super::verified::Verified;
use crate::types::entry::{Entry, Kind, path_order};

const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const LINK: u8 = 3;
const HARD_LINK: u8 = 4;

/// Bytes of a path.
pub const PATH_MAX: usize = 4095;
/// Bytes of one component of a path.
pub const COMPONENT_MAX: usize = 255;
pub const DEPTH_MAX: usize = 256;
/// Bytes of all extended attributes of an entry, names and values.
pub const XATTRS_MAX: usize = 64 << 10;
const PART: &str = "a page of metadata";

/// An entry, and the release in which its content last changed (0 for all that is no file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub entry: Entry,
    /// Number of that release, counted along the releases that each were packed on the one before.
    pub generation: u64,
}

impl Record {
    /// Whether the archive has a member with content for it, that is, whether it has a location.
    pub fn has_content(&self) -> bool {
        matches!(self.entry.kind, Kind::File { .. }) && self.entry.same_as.is_none()
    }
}

/// Writes entries one after the other.
#[derive(Clone, Debug, Default)]
pub struct PageWriter {
    bytes: Vec<u8>,
    last: Vec<u8>,
}

impl PageWriter {
    pub fn add(&mut self, record: &Record) {
        let Record { entry, generation } = record;
        let bytes = &mut self.bytes;
        bytes.push(match (&entry.kind, &entry.same_as) {
            (Kind::Directory, _) => DIRECTORY,
            (Kind::File { .. }, None) => FILE,
            (Kind::Link { .. }, _) => LINK,
            (Kind::File { .. }, Some(_)) => HARD_LINK,
        });
        let shared = self.last.iter().zip(&entry.path).take_while(|(one, other)| one == other).count();
        put(bytes, shared as u64);
        put_bytes(bytes, &entry.path[shared..]);
        put(bytes, u64::from(entry.mode));
        put(bytes, u64::from(entry.uid));
        put(bytes, u64::from(entry.gid));
        put_signed(bytes, entry.mtime.0);
        put(bytes, u64::from(entry.mtime.1));
        put(bytes, entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            put_bytes(bytes, name);
            put_bytes(bytes, value);
        }
        match (&entry.kind, &entry.same_as) {
            (Kind::Directory, _) => {}
            (Kind::File { size, content }, None) => {
                put(bytes, *size);
                put(bytes, *generation);
                bytes.extend_from_slice(&content.0);
            }
            (Kind::Link { target }, _) => put_bytes(bytes, target),
            (Kind::File { size, content }, Some(first)) => {
                put(bytes, *size);
                bytes.extend_from_slice(&content.0);
                put_bytes(bytes, first);
            }
        }
        self.last.clone_from(&entry.path);
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads what was written so far.
    pub fn entries(&self) -> PageReader<Written<&[u8]>> {
        PageReader::new(Written(&self.bytes))
    }

    /// Reads what was written; the next page begins.
    pub fn take_entries(&mut self) -> PageReader<Written<Vec<u8>>> {
        PageReader::new(Written(self.take()))
    }

    /// The page; the next one begins.
    pub fn take(&mut self) -> Vec<u8> {
        self.last.clear();
        std::mem::take(&mut self.bytes)
    }
}

/// What entries may be read of: a page that was verified, or one that this process wrote itself.
pub trait Page: AsRef<[u8]> {}

impl<B: AsRef<[u8]>> Page for Verified<B> {}

/// A page of [`PageWriter`].
pub struct Written<B>(B);

impl<B: AsRef<[u8]>> AsRef<[u8]> for Written<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl<B: AsRef<[u8]>> Page for Written<B> {}

/// Reads the entries of a page one after the other, and checks the rules that each of them must keep.
///
/// A page of a few kilobytes may hold paths of many megabytes, since each shares what it can with the one before: so
/// entries are never collected.
pub struct PageReader<P> {
    page: P,
    at: usize,
    record: Record,
}

impl<P: Page> PageReader<P> {
    /// Reads `page`.
    pub fn new(page: P) -> Self {
        let entry = Entry {
            path: Vec::new(),
            kind: Kind::Directory,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: BTreeMap::new(),
            same_as: None,
        };
        Self { page, at: 0, record: Record { entry, generation: 0 } }
    }

    /// Goes to the next entry, if there is one.
    pub fn advance(&mut self) -> Result<bool, Error> {
        let bytes = self.page.as_ref();
        if self.at >= bytes.len() {
            return Ok(false);
        }
        let mut cursor = Cursor::new(PART, &bytes[self.at..]);
        let read = read_record(&mut cursor, &mut self.record);
        self.at = if read.is_ok() { bytes.len() - cursor.left() } else { bytes.len() };
        read.map(|()| true)
    }

    /// The entry that was read last.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl<P: Page> Iterator for PageReader<P> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().map(|is_there| is_there.then(|| self.record.clone())).transpose()
    }
}

/// Reads an entry in place of the one before it on its page, or of none.
fn read_record(cursor: &mut Cursor<'_>, record: &mut Record) -> Result<(), Error> {
    let Record { entry, generation } = record;
    let kind = cursor.byte()?;
    let shared = cursor.number_to(entry.path.len() as u64, "a path shares more than there is")?;
    let shared = usize::try_from(shared).unwrap_or(0);
    let suffix = cursor.bytes(PATH_MAX, "a path is longer than 4095 bytes")?;
    // What both share says nothing of their order.
    let is_after = entry.path.is_empty() || path_order(&entry.path[shared..], suffix).is_lt();
    entry.path.truncate(shared);
    entry.path.extend_from_slice(suffix);
    check_path(&entry.path)?;
    let refuse = |path: &[u8], rule| Err(Error::Entry { path: path.to_vec(), rule });
    if !is_after {
        return refuse(&entry.path, "entries are not in path order");
    }
    entry.mode = cursor.number32()?;
    if entry.mode > 0o7777 {
        return refuse(&entry.path, "the mode has more than permission bits");
    }
    (entry.uid, entry.gid) = (cursor.number32()?, cursor.number32()?);
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return refuse(&entry.path, "owner or group is 4294967295, which no file can have");
    }
    entry.mtime = (cursor.signed()?, cursor.number32()?);
    if entry.mtime.1 > 999_999_999 {
        return refuse(&entry.path, "the time has more than 999999999 nanoseconds");
    }
    entry.xattrs = read_xattrs(cursor)?;
    (*generation, entry.same_as) = (0, None);
    entry.kind = match kind {
        DIRECTORY => Kind::Directory,
        FILE => {
            let size = cursor.number()?;
            *generation = cursor.number()?;
            Kind::File { size, content: cursor.digest()? }
        }
        LINK => Kind::Link { target: link_target(cursor, &entry.path)? },
        HARD_LINK => {
            let (size, content) = (cursor.number()?, cursor.digest()?);
            entry.same_as = Some(first_name(cursor, &entry.path)?);
            Kind::File { size, content }
        }
        _ => return Err(malformed(PART, "an entry is of an unknown kind")),
    };
    if matches!(entry.kind, Kind::Link { .. }) && entry.mode != 0o777 {
        return refuse(&entry.path, "a symbolic link has a mode of its own");
    }
    Ok(())
}

fn read_xattrs(cursor: &mut Cursor<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    const RULE: &str = "extended attributes are longer than 64 KiB";
    let mut xattrs = BTreeMap::new();
    let mut total = 0;
    for _ in 0..cursor.number_to(XATTRS_MAX as u64, RULE)? {
        let name = cursor.bytes(COMPONENT_MAX, "the name of an attribute is longer than 255 bytes")?;
        let value = cursor.bytes(XATTRS_MAX, RULE)?;
        total += name.len() + value.len();
        if total > XATTRS_MAX {
            return Err(malformed(PART, RULE));
        }
        if name.is_empty() || name.contains(&0) || name.contains(&b'=') {
            return Err(malformed(PART, "the name of an attribute is empty or has a zero byte or `=`"));
        }
        if xattrs.last_key_value().is_some_and(|(last, _): (&Vec<u8>, _)| last.as_slice() >= name) {
            return Err(malformed(PART, "attributes are not in order"));
        }
        xattrs.insert(name.to_vec(), value.to_vec());
    }
    Ok(xattrs)
}

fn link_target(cursor: &mut Cursor<'_>, path: &[u8]) -> Result<Vec<u8>, Error> {
    let target = cursor.bytes(PATH_MAX, "the target of a link is longer than 4095 bytes")?;
    if target.is_empty() || target.contains(&0) {
        let rule = "the target of the link is empty or has a zero byte";
        return Err(Error::Entry { path: path.to_vec(), rule });
    }
    Ok(target.to_vec())
}

fn first_name(cursor: &mut Cursor<'_>, path: &[u8]) -> Result<Vec<u8>, Error> {
    let first = cursor.bytes(PATH_MAX, "a path is longer than 4095 bytes")?;
    check_path(first)?;
    if path_order(first, path) != Ordering::Less {
        return Err(Error::Entry { path: path.to_vec(), rule: "a hard link comes before its first name" });
    }
    Ok(first.to_vec())
}

/// Whether a path stays in the tree and has a length that every system takes.
pub fn check_path(path: &[u8]) -> Result<(), Error> {
    let refuse = |rule| Err(Error::Entry { path: path.to_vec(), rule });
    if path.is_empty() || path.len() > PATH_MAX {
        return refuse("the path is empty or longer than 4095 bytes");
    }
    if path.contains(&0) {
        return refuse("the path has a zero byte");
    }
    let mut depth = 0;
    for component in path.split(|byte| *byte == b'/') {
        depth += 1;
        match component {
            b"" => return refuse("the path has an empty component"),
            b"." | b".." => return refuse("the path has a component `.` or `..`"),
            long if long.len() > COMPONENT_MAX => return refuse("a component is longer than 255 bytes"),
            _ => {}
        }
    }
    if depth > DEPTH_MAX { refuse("the path has more than 256 components") } else { Ok(()) }
}

/// Checks what must hold between the entries of a whole release: path order over all pages, and that each entry's
/// directory comes before it.
#[derive(Default)]
pub struct Sequence {
    last: Vec<u8>,
    /// The directory that the last entry is or lies in.
    inside: Vec<u8>,
}

impl Sequence {
    pub fn check(&mut self, entry: &Entry) -> Result<(), Error> {
        let refuse = |rule| Err(Error::Entry { path: entry.path.clone(), rule });
        if !self.last.is_empty() && path_order(&self.last, &entry.path) != Ordering::Less {
            return refuse("entries are not in path order");
        }
        let parent = parent_of(&entry.path);
        let is_inside = parent.is_empty()
            || self.inside.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if !is_inside {
            return refuse("its directory is no entry");
        }
        self.inside.clear();
        self.inside.extend_from_slice(if entry.kind == Kind::Directory { &entry.path } else { parent });
        self.last.clone_from(&entry.path);
        Ok(())
    }
}

/// The directory of a path; empty for the tree's root.
pub fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

/// An entry of a file for tests.
#[cfg(test)]
pub(crate) fn file_for_test(path: &str, content: &[u8]) -> Record {
    let kind = Kind::File { size: content.len() as u64, content: crate::types::Digest::of(content) };
    let entry = Entry {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (1_700_000_000, 5),
        xattrs: BTreeMap::new(),
        same_as: None,
    };
    Record { entry, generation: 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let file = file_for_test("a/b", b"x");
        let mut directory = file_for_test("a", b"");
        directory.generation = 0;
        directory.entry.kind = Kind::Directory;
        directory.entry.xattrs.insert(b"user.note".to_vec(), vec![0, 255]);
        let mut link = directory.clone();
        link.entry.path = b"a/l".to_vec();
        link.entry.kind = Kind::Link { target: b"../b".to_vec() };
        link.entry.mode = 0o777;
        link.entry.mtime = (-5, 0);
        let mut hard = file.clone();
        hard.generation = 0;
        hard.entry.path = b"a/z".to_vec();
        hard.entry.same_as = Some(b"a/b".to_vec());
        vec![directory, file, link, hard]
    }

    fn page(records: &[Record]) -> Vec<u8> {
        let mut writer = PageWriter::default();
        records.iter().for_each(|record| writer.add(record));
        writer.take()
    }

    fn read(page: &[u8]) -> PageReader<Written<&[u8]>> {
        PageReader::new(Written(page))
    }

    #[test]
    fn a_page_is_read_back_as_it_was_written() {
        let records = samples();
        let found: Vec<_> = read(&page(&records)).map(Result::unwrap).collect();
        assert_eq!(found, records);
    }

    #[test]
    fn a_page_cut_short_is_refused() {
        let page = page(&samples());
        let accepted = (1..page.len())
            .filter(|length| read(&page[..*length]).all(|record: Result<_, _>| record.is_ok()))
            .count();
        assert_eq!(accepted, samples().len() - 1, "only at the end of an entry may a page end");
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for path in ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a/.", "a\0b", &"a/".repeat(300)] {
            assert!(check_path(path.as_bytes()).is_err(), "{path:?}");
        }
        assert!(check_path(b"a/..b/...").is_ok());
    }

    #[test]
    fn an_entry_without_its_directory_is_refused() {
        let mut sequence = Sequence::default();
        for record in samples() {
            sequence.check(&record.entry).unwrap();
        }
        assert!(sequence.check(&file_for_test("b/c", b"").entry).is_err());
        assert!(sequence.check(&file_for_test("a/b", b"").entry).is_err());
        let mut below_a_file = Sequence::default();
        below_a_file.check(&file_for_test("a", b"").entry).unwrap();
        assert!(below_a_file.check(&file_for_test("a/b", b"").entry).is_err());
    }
}
