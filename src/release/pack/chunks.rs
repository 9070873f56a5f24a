//! Cuts the content of large files where the content says so (FastCDC), so that an insertion moves few cuts.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

const MIN: usize = 512 << 10;
const AVERAGE: usize = 2 << 20;
/// Bytes of the longest chunk.
pub const MAX: usize = 8 << 20;
/// Before the average length a cut needs 23 zero bits, after it 19: lengths come closer to the average.
const MASK_EARLY: u64 = !(u64::MAX >> 23);
const MASK_LATE: u64 = !(u64::MAX >> 19);

/// One random number for each byte: the start of the SHA-256 of `cutover gear` and the byte.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        let digest: [u8; 32] =
            Sha256::new_with_prefix(b"cutover gear").chain_update([byte as u8]).finalize().into();
        digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    })
});

/// The length of the first chunk of `bytes`, which are [`MAX`] bytes or all that is left of a file.
pub fn first_cut(bytes: &[u8]) -> usize {
    let end = bytes.len().min(MAX);
    if end <= MIN {
        return end;
    }
    let gear = &*GEAR;
    let mut hash = 0u64;
    for (at, byte) in bytes[..end].iter().enumerate().skip(MIN) {
        hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        let mask = if at < AVERAGE { MASK_EARLY } else { MASK_LATE };
        if hash & mask == 0 {
            return at + 1;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(first_cut(bytes));
            chunks.push(chunk.to_vec());
            bytes = rest;
        }
        chunks
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let mut state = 1u64;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(24 << 20)
        .collect();
        let before = cuts(&bytes);
        assert!(before.iter().all(|chunk| chunk.len() <= MAX));
        assert!((6..=20).contains(&before.len()), "{}", before.len());
        bytes.insert(9 << 20, 7);
        let after = cuts(&bytes);
        let same = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(same + 3 >= after.len(), "{same} of {}", after.len());
    }
}
