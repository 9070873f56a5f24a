//! The one form that an entry has as a member of the archive's tar.
//!
//! A POSIX header (`ustar`), before it an extended one (`pax`) where that does not suffice. Since there is one form
//! only, a reader compares a member with its entry byte by byte and needs no parser.

use std::borrow::Cow;

use crate::types::entry::{Entry, Kind};

/// Bytes of a block of a tar.
pub const BLOCK: usize = 512;
/// Bytes of zeros at the end of a tar.
pub const END: usize = 2 * BLOCK;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// What eleven octal digits hold.
const OCTAL11_MAX: u64 = 0o77_777_777_777;
/// What seven octal digits hold.
const OCTAL7_MAX: u64 = 0o7_777_777;

/// How many zero bytes follow a content of `size` bytes.
pub fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// All that comes before the content of an entry's member.
pub fn header(entry: &Entry) -> Vec<u8> {
    let member = Member::of(entry);
    let mut bytes = Vec::with_capacity(BLOCK);
    let mut extended = member.extended();
    if !extended.is_empty() {
        let length = extended.len();
        bytes.extend(block(b"", b"PaxHeaders", b'x', [0o644, 0, 0, length as u64, 0], b""));
        bytes.append(&mut extended);
        bytes.resize(bytes.len() + padding(length as u64), 0);
    }
    let (prefix, short) =
        split(&member.name).unwrap_or((b"", &member.name[..NAME_BYTES.min(member.name.len())]));
    let fits = |value: u64, limit| if value > limit { 0 } else { value };
    let numbers = [
        u64::from(entry.mode),
        fits(entry.uid.into(), OCTAL7_MAX),
        fits(entry.gid.into(), OCTAL7_MAX),
        fits(member.size, OCTAL11_MAX),
        plain_time(entry.mtime.0).unwrap_or(0),
    ];
    bytes.extend(block(
        prefix,
        short,
        member.kind,
        numbers,
        &member.link[..NAME_BYTES.min(member.link.len())],
    ));
    bytes
}

/// How many bytes [`header`] gives.
pub fn header_length(entry: &Entry) -> u64 {
    match Member::of(entry).extended().len() as u64 {
        0 => BLOCK as u64,
        length => 2 * BLOCK as u64 + length + padding(length) as u64,
    }
}

/// What a header says of an entry.
struct Member<'a> {
    entry: &'a Entry,
    name: Cow<'a, [u8]>,
    kind: u8,
    size: u64,
    link: &'a [u8],
}

impl<'a> Member<'a> {
    fn of(entry: &'a Entry) -> Self {
        let mut name = Cow::Borrowed(entry.path.as_slice());
        let (kind, size, link): (u8, u64, &[u8]) = match (&entry.kind, &entry.same_as) {
            (Kind::Directory, _) => {
                name.to_mut().push(b'/');
                (b'5', 0, b"")
            }
            (Kind::File { size, .. }, None) => (b'0', *size, b""),
            (Kind::Link { target }, _) => (b'2', 0, target),
            (Kind::File { .. }, Some(first)) => (b'1', 0, first),
        };
        Self { entry, name, kind, size, link }
    }

    /// The records of the extended header; none when the other header suffices.
    fn extended(&self) -> Vec<u8> {
        let entry = self.entry;
        let mut extended = Vec::new();
        if split(&self.name).is_none() {
            record(&mut extended, b"path", &self.name);
        }
        if self.link.len() > NAME_BYTES {
            record(&mut extended, b"linkpath", self.link);
        }
        let (seconds, nanoseconds) = entry.mtime;
        if plain_time(seconds).is_none() || nanoseconds != 0 {
            record(&mut extended, b"mtime", decimal_time(seconds, nanoseconds).as_bytes());
        }
        let numbers: [(&[u8], u64, u64); 3] = [
            (b"uid", entry.uid.into(), OCTAL7_MAX),
            (b"gid", entry.gid.into(), OCTAL7_MAX),
            (b"size", self.size, OCTAL11_MAX),
        ];
        for (keyword, value, _) in numbers.into_iter().filter(|(_, value, limit)| value > limit) {
            record(&mut extended, keyword, value.to_string().as_bytes());
        }
        for (name, value) in &entry.xattrs {
            record(&mut extended, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        extended
    }
}

/// A time that eleven octal digits hold.
fn plain_time(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds <= OCTAL11_MAX)
}

/// The path in the two fields of a `ustar` header, when it fits: the first `/` that leaves a name of at most 100 bytes.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_BYTES {
        return Some((&name[..0], name));
    }
    let from = name.len() - NAME_BYTES - 1;
    let at = from + name[from..name.len() - 1].iter().position(|byte| *byte == b'/')?;
    (1..=PREFIX_BYTES).contains(&at).then(|| (&name[..at], &name[at + 1..]))
}

/// Appends `<length> <keyword>=<value>\n`; the length counts itself.
fn record(bytes: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    bytes.extend_from_slice(length.to_string().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(keyword);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// Seconds with all nanoseconds that are not zero; before 1970 they count towards the past, as decimals do.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').to_owned()
}

/// A header block; `numbers` are mode, uid, gid, size and mtime.
fn block(prefix: &[u8], name: &[u8], kind: u8, numbers: [u64; 5], link: &[u8]) -> [u8; BLOCK] {
    let [mode, uid, gid, size, mtime] = numbers;
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{uid:07o}").as_bytes());
    put(116, format!("{gid:07o}").as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(345, prefix);
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::super::meta::file_for_test;
    use super::*;

    fn entry(path: &str) -> Entry {
        let mut entry = file_for_test(path, b"content").entry;
        entry.mtime.1 = 0;
        entry
    }

    #[test]
    fn an_ordinary_entry_needs_one_block() {
        let bytes = header(&entry("bin/shop"));
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..9], b"bin/shop\0");
        assert_eq!(&bytes[124..136], b"00000000007\0");
        assert_eq!(header_length(&entry("bin/shop")), BLOCK as u64);
    }

    #[test]
    fn another_reader_sees_the_same_entry() {
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(90));
        for path in ["a", &long, &"x".repeat(101), &format!("{}/{}", "d".repeat(160), "n".repeat(99))] {
            let mut wanted = entry(path);
            wanted.uid = 3_000_000;
            wanted.mtime = (1_700_000_000, 120_000_000);
            wanted.xattrs.insert(b"user.a".to_vec(), b"12".to_vec());
            let mut bytes = header(&wanted);
            assert_eq!(header_length(&wanted), bytes.len() as u64);
            bytes.extend_from_slice(b"content");
            bytes.resize(bytes.len() + padding(7) + END, 0);
            let mut archive = tar::Archive::new(bytes.as_slice());
            let mut found = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(&*found.path_bytes(), wanted.path, "{path}");
            let records: Vec<_> = found
                .pax_extensions()
                .unwrap()
                .unwrap()
                .map(Result::unwrap)
                .map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec()))
                .collect();
            assert!(records.contains(&(b"uid".to_vec(), b"3000000".to_vec())));
            assert!(records.contains(&(b"mtime".to_vec(), b"1700000000.12".to_vec())));
            assert!(records.contains(&(b"SCHILY.xattr.user.a".to_vec(), b"12".to_vec())));
        }
    }

    #[test]
    fn times_before_1970_count_backwards() {
        assert_eq!(decimal_time(-1, 250_000_000), "-0.75");
        assert_eq!(decimal_time(-2, 0), "-2");
        assert_eq!(decimal_time(3, 1), "3.000000001");
    }
}
