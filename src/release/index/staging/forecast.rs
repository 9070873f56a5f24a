//! What staging would read of an archive, and write here: seen from its index alone, and nothing is made.

use std::collections::HashSet;
use std::ops::Range;

use super::super::seen::page_runs;
use super::super::{Error, Index};
use super::chunks::Candidates;
use super::join::{Pair, Shared, entries_of_old, join};
use super::reuse::has_same_content;
use super::work::Plan;
use super::{Base, Method, check_totals, fetch};
use crate::release::archive::Limits;
use crate::types::Digest;
use crate::types::entry::Kind;

/// What staging would read and write, if nobody has touched the base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The parts of the archive, in order; they do not touch.
    pub ranges: Vec<Range<u64>>,
    /// Bytes of the files that are written, at most.
    pub write_bytes: u64,
    /// Files, directories and links of the release.
    pub entries: u64,
}

/// Forecasts what staging on `base` reads and writes.
///
/// # Errors
/// When the index breaks a rule, the release is larger than this node allows, or the archive cannot be read.
pub fn forecast(
    index: &Index<'_>,
    base: Option<&Base>,
    method: Method,
    limits: &Limits,
) -> Result<Forecast, Error> {
    check_totals(index, limits)?;
    let (plan, mut write_bytes) = plan(index, base, method)?;
    if method == Method::Copy {
        write_bytes = index.root().plain;
    }
    let old = base.map(|base| &base.installed.index);
    let ranges = merged(frames_of(&plan).chain(pages_of(index, old)).collect());
    Ok(Forecast { ranges, write_bytes, entries: index.root().entries })
}

/// What must come from the archive, and the bytes of the files that are new.
pub(super) fn plan(index: &Index<'_>, base: Option<&Base>, method: Method) -> Result<(Plan, u64), Error> {
    let old = base.map(|base| &base.installed.index);
    let mut plan = Plan::new(index)?;
    let mut needed: HashSet<Digest> = HashSet::new();
    let mut candidates = Candidates::default();
    let mut write_bytes = 0;
    join(index, old, Shared::Skipped, &mut |pair| {
        let (new, old) = match &pair {
            Pair::New(new) => (new, None),
            Pair::Both(new, old) => (new, Some(old)),
            Pair::Gone(old) => {
                candidates.add(old);
                return Ok(());
            }
            Pair::Same(..) => return Ok(()),
        };
        let entry = &new.record.entry;
        if let Some(old) = old.filter(|old| !has_same_content(&old.record.entry, entry)) {
            candidates.add(old);
        }
        let Kind::File { size, content } = entry.kind else { return Ok(()) };
        let is_here =
            old.is_some_and(|old| old.record.has_content() && has_same_content(&old.record.entry, entry));
        if is_here || entry.same_as.is_some() {
            return Ok(());
        }
        write_bytes += size;
        needed.insert(content);
        plan.add(index, &new.record, new.file, base.is_none())
    })?;
    match old {
        None => plan.add_names()?,
        Some(old) => {
            // A snapshot of the base brings what both have, and nobody looks for it there.
            let shared = if method == Method::Btrfs { Shared::Skipped } else { Shared::Read };
            leave_out_moved(index, old, shared, &needed, &mut plan)?;
            for frame in candidates.find(&plan, old)?.keys() {
                plan.work.remove(frame);
            }
        }
    }
    Ok((plan, write_bytes))
}

/// Files that the base has under another name are not read.
fn leave_out_moved(
    index: &Index<'_>,
    old: &Index<'_>,
    shared: Shared,
    needed: &HashSet<Digest>,
    plan: &mut Plan,
) -> Result<(), Error> {
    let mut moved = HashSet::new();
    entries_of_old(index, old, shared, &mut |old| {
        if let Kind::File { size, content } = &old.record.entry.kind
            && *size > 0
            && old.record.has_content()
            && needed.contains(content)
        {
            moved.insert(*content);
        }
    })?;
    plan.reduce(&mut |record, _| {
        Ok(matches!(&record.entry.kind, Kind::File { content, .. } if moved.contains(content)))
    })
}

fn frames_of(plan: &Plan) -> impl Iterator<Item = Range<u64>> {
    fetch::ranges(plan).into_iter().map(|range| plan.starts[range.start]..fetch::end_of(plan, range.end - 1))
}

/// The end of the archive, where root and footer are, and the pages that are read.
fn pages_of<'a>(index: &'a Index<'_>, old: Option<&Index<'_>>) -> impl Iterator<Item = Range<u64>> + 'a {
    let here: HashSet<Digest> =
        old.iter().flat_map(|old| &old.root().pages).map(|page| page.digest).collect();
    let pages = index.root().pages_as_they_lie();
    let runs = page_runs(&pages, |page| here.contains(&page.digest)).into_iter();
    let read = runs.map(move |run| {
        let last = pages[run.end - 1];
        pages[run.start].offset..last.offset + last.size
    });
    let size = index.source().size();
    read.chain(std::iter::once(index.tail_start()..size))
}

fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(merged(vec![5..9, 0..3, 9..12, 3..4, 6..7]), [0..4, 5..12]);
        assert_eq!(merged(Vec::new()), []);
    }
}
