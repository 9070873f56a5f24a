//! Bytes that were compared with what vouches for them.
//!
//! Decompressors and parsers of the index take nothing else, and nothing but the comparison makes one: what nobody
//! vouches for cannot reach them by a slip.

use super::error::{Error, malformed};
use crate::types::Digest;

/// Bytes whose digest is the one that was wanted, or what was decompressed of such bytes.
pub struct Verified<B = Vec<u8>> {
    part: &'static str,
    bytes: B,
}

impl<B: AsRef<[u8]>> Verified<B> {
    /// Compares bytes with their digest. `part` names them in errors.
    ///
    /// # Errors
    /// [`Error::Digest`] when they are others.
    pub fn compare(part: &'static str, bytes: B, wanted: Digest) -> Result<Self, Error> {
        let found = Digest::of(bytes.as_ref());
        if found == wanted { Ok(Self { part, bytes }) } else { Err(Error::Digest { part, found, wanted }) }
    }

    /// What they are when decompressed, which must be exactly `length` bytes.
    pub fn decompress(self, length: u64) -> Result<Verified, Error> {
        let length = usize::try_from(length).map_err(|_| malformed(self.part, "it is too long"))?;
        let mut plain = Vec::with_capacity(length);
        let mut decompressor = zstd::bulk::Decompressor::new().map_err(Error::Read)?;
        self.decompress_into(&mut decompressor, &mut plain, length)?;
        Ok(Verified { part: self.part, bytes: plain })
    }

    /// The same, by a decompressor and into a buffer that are used again.
    pub fn decompress_into(
        &self,
        decompressor: &mut zstd::bulk::Decompressor<'_>,
        plain: &mut Vec<u8>,
        length: usize,
    ) -> Result<(), Error> {
        plain.clear();
        plain.reserve_exact(length);
        let refused = |_| malformed(self.part, "it cannot be decompressed to the size that its index says");
        let got = decompressor.decompress_to_buffer(self.bytes.as_ref(), plain).map_err(refused)?;
        if got == length { Ok(()) } else { Err(malformed(self.part, "it is shorter than its index says")) }
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Verified<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_bytes_are_decompressed_and_only_to_their_length() {
        let bytes = zstd::bulk::compress(&[7; 1000], 3).unwrap();
        let wanted = Digest::of(&bytes);
        let compare = |bytes: &[u8]| Verified::compare("a part", bytes.to_vec(), wanted);
        assert_eq!(compare(&bytes).unwrap().decompress(1000).unwrap().as_ref(), [7; 1000]);
        for length in [0, 999, 1001] {
            assert!(matches!(compare(&bytes).unwrap().decompress(length), Err(Error::Malformed { .. })));
        }
        assert!(matches!(compare(&bytes[1..]), Err(Error::Digest { .. })));
        let nonsense = Verified::compare("a part", b"nonsense", Digest::of(b"nonsense")).unwrap();
        assert!(matches!(nonsense.decompress(10), Err(Error::Malformed { .. })));
    }
}
