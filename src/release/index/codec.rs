//! Numbers and byte strings of the index: LEB128, read strictly.

use super::error::{Error, malformed};
use crate::types::Digest;

/// Appends a number, seven bits a byte, the lowest first; all bytes but the last have the high bit.
pub fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends a number with a sign: 0, -1, 1, -2, … as 0, 1, 2, 3, ….
pub fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put(bytes, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Appends a length and so many bytes.
pub fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

/// Reads what the functions above wrote; each error names the part of the archive.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    part: &'static str,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`, which `part` names in errors.
    pub fn new(part: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, part }
    }

    /// Whether all has been read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    /// A number in its shortest form.
    pub fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(malformed(self.part, "a number has more than 64 bits"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(malformed(self.part, "a number is not in its shortest form"))
                } else {
                    Ok(number)
                };
            }
        }
        Err(malformed(self.part, "a number has more than 64 bits"))
    }

    /// A number of at most `limit`; `rule` says what is wrong with a larger one.
    pub fn number_to(&mut self, limit: u64, rule: &'static str) -> Result<u64, Error> {
        let number = self.number()?;
        if number > limit { Err(malformed(self.part, rule)) } else { Ok(number) }
    }

    /// A number of at most 32 bits.
    pub fn number32(&mut self) -> Result<u32, Error> {
        u32::try_from(self.number()?).map_err(|_| malformed(self.part, "a number has more than 32 bits"))
    }

    /// A number with a sign.
    pub fn signed(&mut self) -> Result<i64, Error> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: usize, rule: &'static str) -> Result<&'a [u8], Error> {
        let length = self.number_to(limit as u64, rule)?;
        self.take(usize::try_from(length).map_err(|_| malformed(self.part, rule))?)
    }

    pub fn digest(&mut self) -> Result<Digest, Error> {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.take(32)?);
        Ok(Digest(digest))
    }

    /// A number of eight bytes, the lowest first.
    pub fn little64(&mut self) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A number of four bytes, the lowest first.
    pub fn little32(&mut self) -> Result<u32, Error> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    /// So many bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) =
            self.bytes.split_at_checked(length).ok_or(malformed(self.part, "it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Refuses what is left over.
    pub fn finish(self) -> Result<(), Error> {
        if self.is_empty() { Ok(()) } else { Err(malformed(self.part, "bytes follow its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put_signed(&mut bytes, number.cast_signed());
            let mut cursor = Cursor::new("test", &bytes);
            assert_eq!(cursor.number().unwrap(), number);
            assert_eq!(cursor.signed().unwrap(), number.cast_signed());
            cursor.finish().unwrap();
        }
    }

    #[test]
    fn a_number_has_one_form_only() {
        for wrong in [&[0x80, 0x00][..], &[0xff; 10], &[0x80], &[]] {
            assert!(Cursor::new("test", wrong).number().is_err(), "{wrong:?}");
        }
    }
}
