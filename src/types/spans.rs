//! The spans of time in which cutover itself made, linked or unlinked files of trees, by the clock of the file system.
//!
//! A file's change time (`ctime`) is set by the kernel alone, at each change of content, attributes and links, and can be
//! given back by nobody. So a file whose change time lies in one of these spans was changed by us last.

use serde::{Deserialize, Serialize};

/// So many are remembered. What is forgotten is no longer believed, which costs time and nothing else.
const SPANS_MAX: usize = 256;
const NANOSECONDS: i64 = 1_000_000_000;

/// Spans in order of their ends: first and last moment, in nanoseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// A moment as it is kept here.
    pub fn moment(seconds: i64, nanoseconds: i64) -> i64 {
        seconds.saturating_mul(NANOSECONDS).saturating_add(nanoseconds)
    }

    /// Whether a moment lies in one of them.
    pub fn have(&self, moment: i64) -> bool {
        self.0.iter().rev().any(|(first, last)| (*first..=*last).contains(&moment))
    }

    /// Adds a span. One that ends before it begins (the clock was set back) counts as none.
    pub fn add(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        match self.0.last_mut() {
            Some(before) if (before.0..=before.1).contains(&first) => before.1 = before.1.max(last),
            _ => self.0.push((first, last)),
        }
        let surplus = self.0.len().saturating_sub(SPANS_MAX);
        self.0.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_in_a_span_or_not() {
        let mut spans = Spans::default();
        spans.add(10, 20);
        spans.add(20, 25);
        spans.add(40, 30);
        spans.add(50, 50);
        for (moment, is_in) in [(9, false), (10, true), (25, true), (26, false), (35, false), (50, true)] {
            assert_eq!(spans.have(moment), is_in, "{moment}");
        }
        for moment in 1000..2000 {
            spans.add(moment * 10, moment * 10);
        }
        assert!(spans.have(19_990) && !spans.have(50) && !spans.have(10_000));
    }
}
