//! Reads the frames that are needed, in few ranges.

use std::io::Read;
use std::ops::Range;

use super::super::Error;
use super::work::Plan;
use crate::release::source::Ranges;
use crate::types::progress::Progress;

/// A gap up to this size is read along: a further request costs more.
const GAP: u64 = 128 << 10;

/// Calls `found` with each frame that is needed, in the order of the archive. Gives the number of bytes read.
pub fn fetch(
    source: &dyn Ranges,
    plan: &Plan,
    progress: &dyn Progress,
    found: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut fetched = 0;
    for range in ranges(plan) {
        let end = range.end - 1;
        let length = plan.starts[end] + u64::from(plan.frames[end].size) - plan.starts[range.start];
        let mut reader = source.read_range(plan.starts[range.start], length)?;
        for number in range {
            let mut bytes = vec![0; plan.frames[number].size as usize];
            reader.read_exact(&mut bytes).map_err(Error::reading)?;
            progress.advance(bytes.len() as u64, 0);
            if plan.work.contains_key(&number) {
                found(number, bytes)?;
            }
        }
        fetched += length;
    }
    Ok(fetched)
}

/// How many bytes will be read.
pub fn bytes(plan: &Plan) -> u64 {
    ranges(plan).into_iter().flatten().map(|number| u64::from(plan.frames[number].size)).sum()
}

/// The frames that are needed, with those in small gaps between them.
pub fn ranges(plan: &Plan) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for number in plan.work.keys().copied() {
        match ranges.last_mut() {
            Some(last) if plan.starts[number] <= end_of(plan, last.end - 1) + GAP => last.end = number + 1,
            _ => ranges.push(number..number + 1),
        }
    }
    ranges
}

/// Where a frame ends in the archive.
pub fn end_of(plan: &Plan, number: usize) -> u64 {
    plan.starts[number] + u64::from(plan.frames[number].size)
}
