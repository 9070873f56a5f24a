//! One header block of 512 bytes, read strictly.

use super::Rule;

/// The size of a block.
pub const BLOCK: usize = 512;

/// The kinds of tar, told apart by the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Before POSIX: no magic, no prefix, no extensions.
    V7,
    /// POSIX, with a name prefix.
    Ustar,
    /// GNU, with other uses of the prefix' bytes.
    Gnu,
}

/// A header block whose checksum and magic are right.
pub struct Header<'a> {
    block: &'a [u8; BLOCK],
    pub dialect: Dialect,
}

impl<'a> Header<'a> {
    pub fn parse(block: &'a [u8; BLOCK]) -> Result<Self, Rule> {
        let counted = || block.iter().enumerate().filter(|(at, _)| !(148..156).contains(at));
        let sum = 8 * 32 + counted().map(|(_, byte)| i64::from(*byte)).sum::<i64>();
        // Writers of old take bytes beyond ASCII for negative numbers; all readers know both sums.
        let signed = 8 * 32 + counted().map(|(_, byte)| i64::from(byte.cast_signed())).sum::<i64>();
        let found = number(&block[148..156]).and_then(|found| i64::try_from(found).ok());
        // In GNU's binary form it is damage to all who read it.
        if block[148] & 0x80 != 0 || !found.is_some_and(|found| [sum, signed].contains(&found)) {
            return Err(Rule::Checksum);
        }
        let dialect = match &block[257..265] {
            // Some leave the version out.
            b"ustar\x0000" | b"ustar\0  " | b"ustar\0\0\0" => Dialect::Ustar,
            b"ustar  \0" => Dialect::Gnu,
            // Some look for a prefix even without a magic: then it is not the old kind.
            [0, 0, 0, 0, 0, 0, 0, 0] if block[345..].iter().all(|byte| *byte == 0) => Dialect::V7,
            _ => return Err(Rule::Magic),
        };
        Ok(Self { block, dialect })
    }

    pub fn kind(&self) -> u8 {
        self.block[156]
    }

    /// The name, with its prefix.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = if self.dialect == Dialect::Ustar { text(&self.block[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// The target of a link.
    pub fn link(&self) -> &'a [u8] {
        text(&self.block[157..257])
    }

    pub fn mode(&self) -> Result<u32, Rule> {
        let mode = number_or_empty(&self.block[100..108]).ok_or(Rule::Number("mode"))?;
        Ok((mode & 0o7777) as u32)
    }

    /// The owner; 0 where the field is empty, as npm leaves it.
    pub fn uid(&self) -> Result<u64, Rule> {
        number_or_empty(&self.block[108..116]).ok_or(Rule::Number("owner"))
    }

    pub fn gid(&self) -> Result<u64, Rule> {
        number_or_empty(&self.block[116..124]).ok_or(Rule::Number("group"))
    }

    /// The bytes that follow.
    pub fn size(&self) -> Result<u64, Rule> {
        number_or_empty(&self.block[124..136]).ok_or(Rule::Number("size"))
    }

    /// Seconds since the epoch; before it only in GNU's binary form.
    pub fn mtime(&self) -> Result<i64, Rule> {
        let field = &self.block[136..148];
        if field[0] == 0xff {
            let (high, low) = field.split_at(4);
            let seconds = low.iter().fold(-1, |value: i64, byte| value << 8 | i64::from(*byte));
            let is_small = high.iter().all(|byte| *byte == 0xff) && seconds < 0;
            return is_small.then_some(seconds).ok_or(Rule::Number("time"));
        }
        number_or_empty(field).and_then(|seconds| i64::try_from(seconds).ok()).ok_or(Rule::Number("time"))
    }

    /// The four spans of an old sparse header, whether more blocks of them follow, and the size with holes.
    pub fn old_sparse(&self) -> Result<(&'a [u8], bool, u64), Rule> {
        let size = number(&self.block[483..495]).ok_or(Rule::Number("size"))?;
        Ok((&self.block[386..482], self.block[482] != 0, size))
    }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits after spaces and before NULs or spaces, or GNU's binary form, positive and below 2^63.
pub fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let is_small = match high {
            [] => field[0] == 0x80,
            [first, zeros @ ..] => *first == 0x80 && zeros.iter().all(|byte| *byte == 0),
        };
        let skip = usize::from(high.is_empty());
        let value = low[skip..].iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        return (is_small && i64::try_from(value).is_ok()).then_some(value);
    }
    let start = field.iter().position(|byte| *byte != b' ')?;
    let digits = field[start..].iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    let (digits, rest) = field[start..].split_at(digits);
    if digits.is_empty() || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    // At most 12 digits: it cannot overflow.
    Some(digits.iter().fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

fn number_or_empty(field: &[u8]) -> Option<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Some(0) } else { number(field) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_positive_binary() {
        let accepted: [(&[u8], u64); 7] = [
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"00000644", 0o644),
            (b"644     ", 0o644),
            (b"777777777777", 0o777_777_777_777),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX as u64),
        ];
        for (field, value) in accepted {
            assert_eq!(number(field), Some(value), "{field:?}");
        }
        let refused: [&[u8]; 10] = [
            b"\0\0\0\0\0\0\0\0",
            b"        ",
            b"0000648\0",
            b"+000644\0",
            b"-000001\0",
            b"644\x00644\0",
            b"0x1f\0\0\0\0",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for field in refused {
            assert_eq!(number(field), None, "{field:?}");
        }
    }
}
