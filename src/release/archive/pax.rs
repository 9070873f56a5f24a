//! Extended headers: records of `LENGTH KEY=VALUE\n`, taken apart by their declared length and by nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::{Limits, Rule};
use crate::types::escaped;

/// What an extended header says about the next entry.
#[derive(Debug, Default)]
pub struct Extended {
    /// The first rule that it breaks: told once the entry is known by its name.
    pub broken: Option<Rule>,
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    /// The bytes that follow its header.
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Its time: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The mode that an access list gives which says nothing else.
    pub access: Option<u32>,
    /// An attribute of another system that is left out.
    pub left_out: Option<Vec<u8>>,
    /// Holes, as GNU tar writes them in version 1.0.
    pub sparse: Option<Sparse>,
}

/// The records of a sparse file of version 1.0; its map stands before its data.
#[derive(Debug)]
pub struct Sparse {
    /// The file's name; the entry itself has a name for tars that know no holes.
    pub name: Vec<u8>,
    /// The file's size with its holes.
    pub size: u64,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const HOLES: &[u8] = b"GNU.sparse.";
const XATTR_NAME_MAX: usize = 255;
const XATTR_VALUE_MAX: usize = 64 << 10;

type Record<'a> = (&'a [u8], &'a [u8]);

fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, Rule> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 7 || bytes[0] == b'0' || bytes.get(digits) != Some(&b' ') {
            return Err(Rule::BrokenRecord);
        }
        let length = bytes[..digits].iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0'));
        let record = bytes.get(digits + 1..length).ok_or(Rule::BrokenRecord)?;
        let record = record.strip_suffix(b"\n").ok_or(Rule::BrokenRecord)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(Rule::BrokenRecord)?;
        if equals == 0 || record[..equals].contains(&0) {
            return Err(Rule::BrokenRecord);
        }
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn check_repeated(records: &[Record<'_>]) -> Result<(), Rule> {
    let mut keys = BTreeSet::new();
    match records.iter().find(|(key, _)| !keys.insert(*key)) {
        // Version 0.0 of GNU tar's holes has a record for each of them.
        Some((key, _)) if key.starts_with(HOLES) => Err(Rule::SparseKind),
        Some((key, _)) => Err(Rule::RepeatedRecord(escaped(key))),
        None => Ok(()),
    }
}

/// Checks a global header: it may only comment, as that of `git archive` does, or tell of its writer.
pub fn check_global(bytes: &[u8]) -> Result<(), Rule> {
    let records = records(bytes)?;
    match records.iter().find(|(key, _)| !is_about_no_entry(key)) {
        Some((key, _)) => Err(Rule::GlobalRecord(escaped(key))),
        None => check_repeated(&records),
    }
}

/// Whether a global record changes nothing of any entry: for whoever reads it, and not only here.
fn is_about_no_entry(key: &[u8]) -> bool {
    const MEANT: [&[u8]; 5] = [b"GNU", b"SCHILY", b"LIBARCHIVE", b"RHT", b"SUN"];
    match key {
        b"comment" | b"SCHILY.archtype" | b"SCHILY.release" => true,
        _ => {
            let vendor = key.split(|byte| *byte == b'.').next().unwrap_or_default();
            let is_vendor = vendor.len() < key.len() && vendor.iter().all(u8::is_ascii_uppercase);
            is_vendor && !vendor.is_empty() && !MEANT.contains(&vendor)
        }
    }
}

impl Extended {
    /// Reads the header of one entry: to its end, even if it breaks a rule, since it may name the entry.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Self {
        let mut extended = Self::default();
        let records = match records(bytes) {
            Ok(records) => records,
            Err(rule) => return Self { broken: Some(rule), ..extended },
        };
        let mut holes = BTreeMap::new();
        let mut broken = check_repeated(&records).err();
        for (key, value) in &records {
            let taken = extended.take(key, value, limits, &mut holes);
            broken = broken.or(taken.err());
        }
        for (key, _) in &records {
            let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR).filter(|name| is_of_linux(name)) else {
                continue;
            };
            let twin = [XATTR, name].concat();
            if !records.iter().any(|(key, _)| *key == twin) {
                broken.get_or_insert_with(|| Rule::Record(escaped(key)));
            }
        }
        if !holes.is_empty() {
            match sparse(&holes) {
                Ok(sparse) => extended.sparse = Some(sparse),
                Err(rule) => broken = broken.or(Some(rule)),
            }
            if broken.is_some() {
                let name = holes.get(b"GNU.sparse.name".as_slice()).and_then(|name| text(name));
                extended.path = name.or(extended.path);
            }
        }
        Self { broken, ..extended }
    }

    fn take<'a>(
        &mut self,
        key: &[u8],
        value: &'a [u8],
        limits: &Limits,
        holes: &mut BTreeMap<Vec<u8>, &'a [u8]>,
    ) -> Result<(), Rule> {
        let wrong = || Rule::RecordValue(escaped(key));
        match key {
            b"path" => self.path = Some(text(value).ok_or_else(wrong)?),
            b"linkpath" => self.link = Some(text(value).ok_or_else(wrong)?),
            b"size" => self.size = Some(decimal(value).ok_or_else(wrong)?),
            b"uid" => self.uid = Some(decimal(value).ok_or_else(wrong)?),
            b"gid" => self.gid = Some(decimal(value).ok_or_else(wrong)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"hdrcharset" if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {
                return Err(wrong());
            }
            b"GNU.sparse.major" | b"GNU.sparse.minor" | b"GNU.sparse.name" | b"GNU.sparse.realsize" => {
                holes.insert(key.to_vec(), value);
            }
            _ if key.starts_with(HOLES) => return Err(Rule::SparseKind),
            b"SCHILY.realsize" => return Err(Rule::SparseKind),
            b"RHT.security.selinux" => {}
            // Of NFS, macOS, FreeBSD and Solaris: nothing here has such lists.
            b"SCHILY.acl.ace" => {
                self.left_out.get_or_insert_with(|| b"acl.ace".to_vec());
            }
            b"SCHILY.acl.access" => self.access = Some(mode_of(value).ok_or(Rule::AccessList)?),
            b"SCHILY.acl.default" if value.is_empty() => {}
            _ if key.starts_with(b"SCHILY.acl.") => return Err(Rule::AccessList),
            _ if key.starts_with(b"GNU.") => return Err(Rule::Record(escaped(key))),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.attribute(name, value, limits)?;
                }
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), Rule> {
        match name {
            b"security.selinux" => return Ok(()),
            _ if !is_of_linux(name) => {
                self.left_out.get_or_insert_with(|| name.to_vec());
                return Ok(());
            }
            b"security.capability" if !limits.allow_capabilities => return Err(Rule::Capability),
            b"security.capability" => {}
            b"system.posix_acl_access" | b"system.posix_acl_default" => return Err(Rule::AccessList),
            _ if name.starts_with(b"user.") && name.len() > 5 && name.len() <= XATTR_NAME_MAX => {}
            _ => return Err(Rule::Attribute(escaped(name))),
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(Rule::Attribute(escaped(name)));
        }
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }
}

/// Whether a name lies in a name space that Linux has. All others, such as `com.apple.provenance` of macOS, mean
/// nothing here, and no file can have them.
fn is_of_linux(name: &[u8]) -> bool {
    let spaces: [&[u8]; 4] = [b"user.", b"security.", b"system.", b"trusted."];
    spaces.iter().any(|space| name.starts_with(space))
}

fn sparse(holes: &BTreeMap<Vec<u8>, &[u8]>) -> Result<Sparse, Rule> {
    let get = |key: &str| holes.get(format!("GNU.sparse.{key}").as_bytes()).copied();
    if get("major") != Some(b"1") || get("minor") != Some(b"0") {
        return Err(Rule::SparseKind);
    }
    Ok(Sparse {
        name: get("name").and_then(text).ok_or(Rule::SparseMap)?,
        size: get("realsize").and_then(decimal).ok_or(Rule::SparseMap)?,
    })
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty() && !value.contains(&0)).then(|| value.to_vec())
}

/// The mode of an access list, in the words of `getfacl`, that has the three entries which each file has and no more.
fn mode_of(list: &[u8]) -> Option<u32> {
    let (mut mode, mut seen) = (0, 0);
    for entry in list.split(|byte| matches!(byte, b',' | b'\n')).filter(|entry| !entry.is_empty()) {
        let (class, rights): (_, &[u8; 3]) = entry.split_last_chunk()?;
        let place = [&b"other::"[..], b"group::", b"user::"].into_iter().position(|name| name == class)?;
        let mut bits = 0;
        for (right, letter) in rights.iter().zip(b"rwx") {
            bits = bits << 1
                | match right {
                    b'-' => 0,
                    right if right == letter => 1,
                    _ => return None,
                };
        }
        if seen & 1 << place != 0 {
            return None;
        }
        seen |= 1 << place;
        mode |= bits << (3 * place);
    }
    (seen == 0b111).then_some(mode)
}

/// Decimal digits, below 2^63.
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    i64::try_from(number).is_ok().then_some(number)
}

/// `[-]SECONDS[.FRACTION]`, cut to nanoseconds.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (is_negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let (seconds, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let seconds = i64::try_from(decimal(seconds)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |number: u32, place| {
        number * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Some(match (is_negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length = length.to_string().len() + rest;
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn records_end_where_their_length_says() {
        let smuggled = record("SCHILY.xattr.user.x", b"a\n12 size=1024\n");
        let extended = Extended::parse(&smuggled, &Limits::default());
        assert_eq!(extended.broken, None);
        assert_eq!(extended.size, None);
        assert_eq!(extended.xattrs[b"user.x".as_slice()], b"a\n12 size=1024\n");
    }

    #[test]
    fn broken_records_are_refused() {
        let broken: [&[u8]; 11] = [
            b"12 path=abc",
            b"99 path=abc\n",
            b"6 path=abc\n",
            b"012 path=ab\n",
            b"-1 path=abc\n",
            b"12path=abcd\n",
            b"9 patha\n\n",
            b"6 =ab\n",
            b"3 \n",
            b"1 ",
            b"99999999999999999999999999 a=b\n",
        ];
        for bytes in broken {
            let extended = Extended::parse(bytes, &Limits::default());
            assert_eq!(extended.broken, Some(Rule::BrokenRecord), "{bytes:?}");
        }
    }

    #[test]
    fn an_access_list_of_the_mode_alone_is_a_mode() {
        let cases: [(&[u8], Option<u32>); 9] = [
            (b"user::rw-,group::r--,other::r--", Some(0o644)),
            (b"user::rwx\ngroup::r-x\nother::--x\n", Some(0o751)),
            (b"other::---,user::r--,group::-w-", Some(0o420)),
            (b"user::rwx", None),
            (b"user::rw-,group::r--,other::r--,user::rw-", None),
            (b"user::rw-,user:lisa:r--,group::r--,mask::r--,other::r--", None),
            (b"user::rw-,group::r--,mask::r--,other::r--", None),
            (b"user::wr-,group::r--,other::r--", None),
            (b"", None),
        ];
        for (list, mode) in cases {
            assert_eq!(mode_of(list), mode, "{list:?}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        type Case = (&'static [u8], Option<(i64, u32)>);
        let cases: [Case; 8] = [
            (b"1.5", Some((1, 500_000_000))),
            (b"-1.5", Some((-2, 500_000_000))),
            (b"-1", Some((-1, 0))),
            (b"7.1234567899", Some((7, 123_456_789))),
            (b"7.", Some((7, 0))),
            (b"1e9", None),
            (b".5", None),
            (b"", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(time(text), wanted, "{text:?}");
        }
    }
}
