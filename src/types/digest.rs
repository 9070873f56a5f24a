//! SHA-256 digests, written `sha256:<64 hex digits>` wherever people or files see them.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{}` is not a digest: `sha256:` and 64 hex digits", .0.escape_debug())]
pub struct NotADigest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// How many bytes there are to read, and their digest.
    pub fn of_reader(reader: &mut dyn Read) -> io::Result<(u64, Self)> {
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
        let mut size = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((size, hasher.into())),
                Ok(read) => {
                    size += read as u64;
                    hasher.update(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The 64 lower-case hex digits, without the prefix.
    pub fn hex(&self) -> String {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// Reads 64 hex digits without a prefix, as `sha256sum` prints them.
    pub fn from_hex(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; 32];
        let wrong = || NotADigest(text.chars().take(80).collect());
        if text.len() != 64 {
            return Err(wrong());
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            for digit in digits {
                *byte = (*byte << 4) | value_of(*digit).ok_or_else(wrong)?;
            }
        }
        Ok(Self(bytes))
    }
}

/// Facts of large fleets are full of digests, so this is quick.
fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl From<Sha256> for Digest {
    fn from(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits =
            text.strip_prefix("sha256:").ok_or_else(|| NotADigest(text.chars().take(80).collect()))?;
        Self::from_hex(digits)
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_back_as_it_was_written() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("sha256:ba78".parse::<Digest>().is_err());
        assert!("sha256:+a".parse::<Digest>().is_err());
    }
}
