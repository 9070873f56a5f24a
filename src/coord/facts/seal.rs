//! The two lines of a fact: one of compact JSON, and a trailer over its name and its exact bytes.
//!
//! ```text
//! {"format":2,"kind":"vote",…}
//! sum sha256 <64 hex digits>        or        sig <a signature of ssh-keygen -Y sign, its base64 in one line>
//! ```
//! Summed or signed are the name where the fact stands, a line feed, and the JSON: a fact that was copied to another
//! name says nothing there. A file that is torn, padded, truncated or rotten does not open: there is never half a fact.

use crate::types::Digest;

/// The longest fact in bytes, trailer included.
pub const FACT_BYTES_MAX: usize = 256 << 10;

const SUM: &str = "sum sha256 ";
const SIGNATURE: &str = "sig ";
const ARMOR_BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const ARMOR_END: &str = "-----END SSH SIGNATURE-----";
const ARMOR_WIDTH: usize = 70;

/// A file that is no fact: why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Bad(pub String);

impl Bad {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// What vouches for the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// A checksum: nothing but the storage vouches for it.
    Sum,
    /// A signature in the armour that `ssh-keygen -Y verify` reads. Not yet verified.
    Signature(String),
}

/// A fact whose two lines are whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The JSON, without its line feed.
    pub line: &'a str,
    /// What is summed or signed.
    pub covered: String,
    pub seal: Seal,
    /// The digest of the whole file: how other facts name it.
    pub digest: Digest,
}

/// What the trailer of a fact covers: where it stands, and what it says.
pub fn covered(name: &str, line: &str) -> String {
    format!("{name}\n{line}")
}

/// The file of a line under a checksum, for this name.
pub fn summed(name: &str, line: &str) -> Vec<u8> {
    format!("{line}\n{SUM}{}\n", Digest::of(covered(name, line).as_bytes()).hex()).into_bytes()
}

/// The file of a line under a signature in armour, as `ssh-keygen -Y sign` writes it.
pub fn signed(line: &str, armored: &str) -> Result<Vec<u8>, Bad> {
    let body = armored
        .trim()
        .strip_prefix(ARMOR_BEGIN)
        .and_then(|rest| rest.strip_suffix(ARMOR_END))
        .ok_or_else(|| Bad::new("the signature has no armour"))?;
    let base64: String = body.split_ascii_whitespace().collect();
    Ok(format!("{line}\n{SIGNATURE}{base64}\n").into_bytes())
}

/// Takes the file of this name apart.
pub fn open<'a>(name: &str, bytes: &'a [u8]) -> Result<Opened<'a>, Bad> {
    if bytes.len() > FACT_BYTES_MAX {
        return Err(Bad::new(format!("it is longer than {FACT_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Bad::new("it is not UTF-8"))?;
    let body = text.strip_suffix('\n').ok_or_else(|| Bad::new("its end is missing"))?;
    let (line, trailer) = body.split_once('\n').ok_or_else(|| Bad::new("it has no trailer"))?;
    let covered = covered(name, line);
    if let Some(hex) = trailer.strip_prefix(SUM) {
        if hex != Digest::of(covered.as_bytes()).hex() {
            return Err(Bad::new("its checksum is wrong"));
        }
        return Ok(Opened { line, covered, seal: Seal::Sum, digest: Digest::of(bytes) });
    }
    let base64 = trailer.strip_prefix(SIGNATURE).ok_or_else(|| Bad::new("its trailer is unknown"))?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if base64.is_empty() || !base64.bytes().all(is_base64) {
        return Err(Bad::new("its signature is not base64"));
    }
    Ok(Opened { line, covered, seal: Seal::Signature(armored(base64)), digest: Digest::of(bytes) })
}

fn armored(base64: &str) -> String {
    let mut text = format!("{ARMOR_BEGIN}\n");
    let mut rest = base64;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(ARMOR_WIDTH));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + ARMOR_END + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_opens_as_it_was_sealed() {
        let file = summed("a", "{\"a\":1}");
        let opened = open("a", &file).unwrap();
        assert_eq!((opened.line, opened.seal), ("{\"a\":1}", Seal::Sum));
        let armor = armored(&"QUJD".repeat(40));
        let file = signed("{}", &armor).unwrap();
        assert_eq!(open("a", &file).unwrap().seal, Seal::Signature(armor));
    }

    #[test]
    fn no_part_and_no_change_of_a_fact_opens() {
        let file = summed("a", "{\"a\":1}");
        assert!(open("b", &file).is_err(), "under another name");
        for length in 0..file.len() {
            assert!(open("a", &file[..length]).is_err(), "the first {length} bytes");
        }
        for place in 0..file.len() {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert!(open("a", &changed).is_err(), "byte {place} changed");
        }
        for tail in [&b"\n"[..], b"\0", b"x\n"] {
            assert!(open("a", &[&file, tail].concat()).is_err(), "{tail:?} added");
        }
        assert!(open("a", &vec![b'x'; FACT_BYTES_MAX + 1]).is_err());
    }
}
