//! What follows from what all parties of a check saw.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::State;

/// A clock against the storage's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// How far the storage's is ahead, in milliseconds.
    pub offset_ms: f64,
    /// How wrong that may be.
    pub error_ms: f64,
}

/// What all of them saw together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many names were raced for.
    pub names: usize,
    /// In how many not exactly one was first, or not all saw the same one.
    pub wrong: usize,
    /// Of how many somebody could not learn who was first, and the last reason.
    pub unknown: usize,
    pub why: Option<String>,
    /// How many reads showed what nobody wrote.
    pub torn: u32,
    /// How many reads there were beside the races.
    pub reads: u64,
    /// By party, how often it was first.
    pub first: BTreeMap<String, usize>,
    pub slowest_ms: f64,
    /// By pair, how long a new name stayed hidden at the most.
    pub hidden_ms: Vec<(String, String, f64)>,
    pub clocks: BTreeMap<String, Option<Clock>>,
    /// Parties that have the same host name or machine id, and which.
    pub alike: Vec<(String, String, String)>,
}

impl Report {
    /// The longest that a new name stayed hidden between any two.
    pub fn hidden_longest_ms(&self) -> f64 {
        self.hidden_ms.iter().map(|(_, _, hidden_ms)| *hidden_ms).fold(0.0, f64::max)
    }
}

/// What follows from what each party saw.
pub(super) fn judge(states: &[&State]) -> Report {
    let names = states.iter().map(|state| state.seen.first.len()).max().unwrap_or(0);
    let mut report = Report { names, ..Report::default() };
    for number in 0..report.names {
        let seen: Vec<Option<usize>> =
            states.iter().map(|state| state.seen.first.get(number).copied().flatten()).collect();
        report.unknown += usize::from(seen.contains(&None));
        let mut known = seen.into_iter().flatten();
        let Some(first) = known.next() else { continue };
        match states.get(first) {
            Some(state) if known.all(|other| other == first) => {
                *report.first.entry(state.label.clone()).or_insert(0) += 1;
            }
            _ => report.wrong += 1,
        }
    }
    for (number, state) in states.iter().enumerate() {
        report.torn += state.seen.torn;
        report.reads += state.seen.reads;
        report.slowest_ms = report.slowest_ms.max(state.seen.slowest_ms);
        report.why = report.why.take().or(state.seen.why.clone());
        report.clocks.insert(state.label.clone(), state.clock);
        for (other, hidden_ms) in &state.seen.hidden_ms {
            let other = states.get(*other).map(|other| other.label.clone()).unwrap_or_default();
            report.hidden_ms.push((state.label.clone(), other, *hidden_ms));
        }
        for other in &states[number + 1..] {
            for (what, one, two) in
                [("host name", &state.host, &other.host), ("machine id", &state.machine, &other.machine)]
            {
                if one == two && !one.is_empty() {
                    report.alike.push((state.label.clone(), other.label.clone(), format!("{what} `{one}`")));
                }
            }
        }
    }
    report
}
