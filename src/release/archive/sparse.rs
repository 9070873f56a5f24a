//! Maps of the parts of a file that are no holes.

use super::header::{BLOCK, number};
use super::pax::decimal;
use super::{Rule, SPANS_MAX};

/// A part of a file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// A map that is being read.
pub struct Map {
    spans: Vec<Span>,
    size: u64,
}

impl Map {
    /// An empty map of a file of this size.
    pub fn new(size: u64) -> Self {
        Self { spans: Vec::new(), size }
    }

    fn push(&mut self, span: Span) -> Result<(), Rule> {
        if self.spans.len() >= SPANS_MAX {
            return Err(Rule::SparseMap);
        }
        self.spans.push(span);
        Ok(())
    }

    /// Takes the spans of an old header, 24 bytes each; whether one was empty, which ends the map.
    pub fn take_old(&mut self, fields: &[u8]) -> Result<bool, Rule> {
        for field in fields.chunks_exact(24) {
            if field[0] == 0 {
                return Ok(true);
            }
            let (offset, length) = field.split_at(12);
            let offset = number(offset).ok_or(Rule::SparseMap)?;
            let length = number(length).ok_or(Rule::SparseMap)?;
            self.push(Span { offset, length })?;
        }
        Ok(false)
    }

    /// Checks that the spans ascend within the file and that their data are `stored` bytes.
    ///
    /// Tars differ on whether a span's data begin at a block: only where both are the same it is accepted.
    pub fn finish(mut self, stored: u64) -> Result<Vec<Span>, Rule> {
        let mut end = 0;
        let mut sum = 0;
        let last = self.spans.iter().rposition(|span| span.length > 0);
        for (at, span) in self.spans.iter().enumerate() {
            let is_aligned = Some(at) == last || span.length.is_multiple_of(BLOCK as u64);
            if span.offset < end || !is_aligned {
                return Err(Rule::SparseMap);
            }
            end = span.offset.checked_add(span.length).ok_or(Rule::SparseMap)?;
            sum += span.length;
        }
        if end > self.size || sum != stored {
            return Err(Rule::SparseMap);
        }
        self.spans.retain(|span| span.length > 0);
        Ok(self.spans)
    }
}

/// Reads the map before the data of a file of version 1.0: numbers on lines of their own, from a source of blocks.
///
/// Returns the spans and the number of bytes that the map takes, which is whole blocks.
pub fn read_map<E: From<Rule>>(
    size: u64,
    stored: u64,
    mut next_block: impl FnMut() -> Result<[u8; BLOCK], E>,
) -> Result<(Vec<Span>, u64), E> {
    let mut map = Map::new(size);
    let mut taken = 0;
    let mut line = Vec::new();
    let mut count = None;
    let mut offset = None;
    while count.is_none_or(|count| count > 0) {
        if taken + BLOCK as u64 > stored {
            return Err(Rule::SparseMap.into());
        }
        let block = next_block()?;
        taken += BLOCK as u64;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let value = decimal(&line).ok_or(Rule::SparseMap)?;
            line.clear();
            match (count, offset.take()) {
                (None, _) if value > SPANS_MAX as u64 => return Err(Rule::SparseMap.into()),
                (None, _) => count = Some(value),
                (Some(_), None) => offset = Some(value),
                (Some(left), Some(offset)) => {
                    map.push(Span { offset, length: value })?;
                    count = Some(left - 1);
                }
            }
            if count == Some(0) {
                break;
            }
        }
        if line.len() > BLOCK {
            return Err(Rule::SparseMap.into());
        }
    }
    Ok((map.finish(stored - taken)?, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(size: u64, stored: u64, spans: &[(u64, u64)]) -> Result<usize, Rule> {
        let mut map = Map::new(size);
        for (offset, length) in spans {
            map.push(Span { offset: *offset, length: *length })?;
        }
        map.finish(stored).map(|spans| spans.len())
    }

    #[test]
    fn spans_ascend_within_the_file() {
        assert_eq!(finish(2000, 612, &[(0, 512), (1024, 100), (2000, 0)]), Ok(2));
        assert_eq!(finish(100, 0, &[]), Ok(0));
        type Case = (u64, u64, &'static [(u64, u64)]);
        let broken: [Case; 5] = [
            (2000, 1024, &[(0, 512), (500, 512)]),
            (2000, 1024, &[(1024, 512), (0, 512)]),
            (2000, 1024, &[(0, 512)]),
            (500, 512, &[(0, 512)]),
            (2000, 101, &[(0, 1), (512, 100)]),
        ];
        for (size, stored, spans) in broken {
            assert_eq!(finish(size, stored, spans), Err(Rule::SparseMap), "{spans:?}");
        }
        assert_eq!(finish(u64::MAX, 512, &[(u64::MAX - 1, 512)]), Err(Rule::SparseMap));
    }
}
