//! What a rollout did: when each member stopped, switched, was healthy and went back; and what that comes to.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::facts::{ClockSeen, Fact, Yes};
use super::look::Found;
use super::name::{CellName, NodeName};
use super::rolling::Rolling;
use super::rules::Health;
use super::rules::synchronous::Member;
use super::synchronous::{Synchronous, What};
use crate::types::Version;

/// What a rollout did, as far as its members have said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Account {
    /// Each member, in the order of the proposal.
    pub members: Vec<Entry>,
    /// From the first to the last switch, in milliseconds.
    pub skew_ms: Option<f64>,
    /// For how long some ran the old release and some the new one, in milliseconds. Still counting while `is_mixed`.
    pub mixed_ms: i64,
    /// The same, without what still goes on.
    #[serde(skip)]
    pub settled_ms: i64,
    /// Whether some run the old release and some the new one now.
    pub is_mixed: bool,
    /// The longest time that a service was away, and where.
    pub longest_away: Option<Away>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Away {
    pub node: NodeName,
    /// For how long, in milliseconds.
    pub gap_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    pub node: NodeName,
    /// Where it stands, in a word.
    pub state: &'static str,
    /// Whether an operator has said to go on without it.
    pub waived: bool,
    /// What it runs, as far as it has said.
    pub running: Option<Version>,
    /// What its clock showed against the storage's when it armed.
    pub clock: Option<ClockSeen>,
    /// Its services began to stop.
    pub stopped: Option<Timestamp>,
    pub switched: Option<Timestamp>,
    /// That, after the agreed instant.
    pub late_ms: Option<f64>,
    /// Its services ran on the new release.
    pub started: Option<Timestamp>,
    /// It had been healthy for as long as it must.
    pub healthy: Option<Timestamp>,
    pub back: Option<Timestamp>,
    /// How long its service was away, in milliseconds.
    pub gap_ms: Option<u64>,
    pub wave: Option<u32>,
    /// The cell that it switches with, in a rollout of cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellName>,
    /// Why, where that is to be said.
    pub note: String,
    /// Whether it has said its last word.
    pub has_closed: bool,
    /// Whether a person has put it where it is.
    #[serde(skip)]
    pub is_by_hand: bool,
}

impl Entry {
    fn new(node: &NodeName) -> Self {
        Self {
            node: node.clone(),
            state: "-",
            waived: false,
            running: None,
            clock: None,
            stopped: None,
            switched: None,
            late_ms: None,
            started: None,
            healthy: None,
            back: None,
            gap_ms: None,
            wave: None,
            cell: None,
            note: String::new(),
            has_closed: false,
            is_by_hand: false,
        }
    }

    fn take_report(&mut self, found: Option<&Found>) {
        let Some(Fact::Report(said)) = found.map(|found| &found.fact) else { return };
        self.gap_ms = said.gap_ms.or(self.gap_ms);
        self.healthy = said.at.filter(|_| said.health == Health::Good);
        self.stopped = said.moments.stopped.or(self.stopped);
        self.switched = said.moments.switched.or(self.switched);
        self.started = said.moments.started.or(self.started);
        if let Some(why) = &said.why {
            self.note.clone_from(why);
        }
    }

    fn take_closed(&mut self, found: Option<&Found>) {
        let Some(Fact::Closed(said)) = found.map(|found| &found.fact) else { return };
        self.has_closed = true;
        self.running.clone_from(&said.running);
        self.back = said.back_at;
        self.gap_ms = said.downtime_ms.or(self.gap_ms);
        self.is_by_hand = said.by_hand;
        if said.by_hand {
            self.note = "by hand".into();
        }
    }
}

impl Account {
    /// Of a synchronous rollout, all of whose facts were read.
    pub fn of_synchronous(follow: &Synchronous<'_>, now: Timestamp) -> Self {
        let version = &follow.rollout.proposal.release.version;
        let one = |(place, node): (usize, &NodeName)| {
            let fact = |what| follow.facts.get(&(what, place));
            let member = follow.view.members[place];
            let mut entry = Entry { state: state(&member), waived: member.waived, ..Entry::new(node) };
            if let Some(Fact::Vote(vote)) = fact(What::Vote).map(|found| &found.fact) {
                entry.running.clone_from(&vote.running);
                if vote.vote == Yes::No {
                    entry.note = vote.why.clone().unwrap_or_default();
                }
            }
            if let Some(Fact::Armed(armed)) = fact(What::Armed).map(|found| &found.fact) {
                entry.clock = armed.clock;
            }
            if let Some(Fact::Step(step)) = fact(What::Stopped).map(|found| &found.fact) {
                entry.stopped = Some(step.at);
            }
            if let Some(Fact::Step(step)) = fact(What::Switched).map(|found| &found.fact) {
                entry.running = Some(version.clone());
                entry.stopped = step.stopped.or(entry.stopped);
                (entry.switched, entry.late_ms, entry.started) =
                    (Some(step.at), Some(step.late_ms), step.started);
            }
            entry.take_report(fact(What::Report));
            entry.take_closed(fact(What::Closed));
            entry
        };
        Self::of(follow.rollout.proposal.members.iter().enumerate().map(one).collect(), version, now)
    }

    /// Of a rolling rollout, all of whose facts were read; `closed` are the last facts of the members.
    pub fn of_rolling(follow: &Rolling<'_>, closed: &[Option<Found>], now: Timestamp) -> Self {
        let owners = |is_back| {
            let tickets = follow.view.tickets().filter(move |(_, ticket)| ticket.is_back == is_back);
            tickets.map(|(_, ticket)| ticket.owner).collect::<BTreeSet<usize>>()
        };
        let (forth, back) = (owners(false), owners(true));
        let one = |(place, node): (usize, &NodeName)| {
            let member = follow.view.members[place];
            let has = |is_back: bool| (if is_back { &back } else { &forth }).contains(&place);
            let state = match (member.returned, member.report) {
                _ if member.waived => "waived",
                (Some(Health::Broken), _) => "broken",
                (Some(_), _) => "gone back",
                (None, _) if has(true) => "going back",
                (None, Some(health)) => health.word(),
                (None, None) if has(false) => "switching",
                (None, None) if member.refused => "refuses",
                (None, None) => "-",
            };
            let mut entry =
                Entry { state, waived: member.waived, wave: Some(member.wave), ..Entry::new(node) };
            if let Some(why) = follow.refusals.get(&place) {
                entry.note.clone_from(why);
            }
            entry.take_report(follow.reports.get(&place));
            entry.take_closed(closed.get(place).and_then(Option::as_ref));
            // Who reports that it does not stay on the release has gone back; one that is broken is nowhere.
            if let Some(Fact::Report(said)) = follow.reports.get(&place).map(|found| &found.fact)
                && matches!(said.health, Health::Failed | Health::Left)
            {
                entry.back = entry.back.or(said.at);
            }
            if let Some(Fact::Report(said)) = follow.returns.get(&place).map(|found| &found.fact) {
                entry.back = said.at;
            }
            entry
        };
        let version = &follow.rollout.proposal.release.version;
        Self::of(follow.rollout.proposal.members.iter().enumerate().map(one).collect(), version, now)
    }

    /// Of a rollout of cells, all of whose cells' facts were read. Two releases side by side are counted within a cell: others are
    /// not to move with it.
    pub fn of_cells(turns: &Rolling<'_>, now: Timestamp) -> Self {
        let mut all = Self::default();
        for (part, seen) in turns.cells.iter().zip(&turns.view.members) {
            let mut one = Self::of_synchronous(part, now);
            for entry in &mut one.members {
                entry.cell.clone_from(&part.rollout.cell);
                entry.wave = Some(seen.wave);
            }
            all.members.extend(one.members);
            all.mixed_ms = all.mixed_ms.max(one.mixed_ms);
            all.settled_ms = all.settled_ms.max(one.settled_ms);
            all.is_mixed |= one.is_mixed;
            all.skew_ms = [all.skew_ms, one.skew_ms].into_iter().flatten().reduce(f64::max);
            all.longest_away =
                [all.longest_away, one.longest_away].into_iter().flatten().max_by_key(|away| away.gap_ms);
        }
        all
    }

    /// What the heartbeats of all say that they run now, in the order of the members: who came to the release after the rollout, by
    /// itself or by another one, has no fact of it. Then nothing is counted on.
    pub fn see_now(&mut self, running: &[Option<&Version>]) {
        let counted = self.members.iter().zip(running).filter(|(entry, _)| !entry.waived);
        let mut seen = counted.map(|(_, now)| *now);
        let first = seen.next().flatten();
        if self.is_mixed && first.is_some() && seen.all(|now| now == first) {
            self.is_mixed = false;
            self.mixed_ms = self.settled_ms;
        }
    }

    fn of(members: Vec<Entry>, version: &Version, now: Timestamp) -> Self {
        let late = || members.iter().filter(|entry| !entry.waived).filter_map(|entry| entry.late_ms);
        let skew_ms = late().reduce(f64::max).zip(late().reduce(f64::min)).map(|(last, first)| last - first);
        let longest_away = members
            .iter()
            .filter_map(|entry| Some(Away { node: entry.node.clone(), gap_ms: entry.gap_ms? }))
            .max_by_key(|away| away.gap_ms);
        let (settled_ms, since) = mixed(&members, version);
        let still = since.map_or(0, |began| (now.as_millisecond() - began.as_millisecond()).max(0));
        let (mixed_ms, is_mixed) = (settled_ms + still, since.is_some());
        Self { members, skew_ms, mixed_ms, settled_ms, is_mixed, longest_away }
    }
}

/// For how long old and new ran side by side, by the members' own clocks; and since when they do, where they still do.
fn mixed(members: &[Entry], version: &Version) -> (i64, Option<Timestamp>) {
    let counted: Vec<_> = members.iter().filter(|entry| !entry.waived).collect();
    let mut moves: Vec<(Timestamp, i64)> = counted
        .iter()
        .flat_map(|entry| {
            [
                entry.switched.map(|at| (at, 1)),
                entry.back.filter(|_| entry.switched.is_some()).map(|at| (at, -1)),
            ]
        })
        .flatten()
        .collect();
    moves.sort();
    let all = i64::try_from(counted.len()).unwrap_or(i64::MAX);
    // Who ran it before has nothing to switch, and is healthy on it, or has said that it runs it.
    let had_it = |entry: &&&Entry| {
        entry.switched.is_none() && (entry.healthy.is_some() || entry.running.as_ref() == Some(version))
    };
    let before = i64::try_from(counted.iter().filter(had_it).count()).unwrap_or(0);
    let (mut with_new, mut since, mut total) = (before, None::<Timestamp>, 0);
    for (at, change) in moves {
        with_new += change;
        let is_mixed = with_new > 0 && with_new < all;
        match (is_mixed, since) {
            (true, None) => since = Some(at),
            (false, Some(began)) => {
                total += at.as_millisecond() - began.as_millisecond();
                since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    (total, since)
}

/// Where a member of a synchronous rollout stands, in a word.
fn state(member: &Member) -> &'static str {
    match member {
        _ if member.waived => "waived",
        Member { closed: true, .. } => "closed",
        Member { report: Some(health), .. } => health.word(),
        Member { switched: true, .. } => "switched",
        Member { stopped: true, .. } => "stopped",
        Member { armed: true, .. } => "armed",
        Member { vote: Some(true), .. } => "voted",
        Member { vote: Some(false), .. } => "voted no",
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(switched: Option<i64>, back: Option<i64>) -> Entry {
        let moment = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        Entry { switched: switched.map(moment), back: back.map(moment), ..Entry::new(&"n".parse().unwrap()) }
    }

    #[test]
    fn the_time_with_two_releases_is_that_between_the_first_and_the_last_move_each_way() {
        let version: Version = "2".parse().unwrap();
        let had_it = || Entry { running: Some(version.clone()), ..entry(None, None) };
        let waived = Entry { waived: true, ..entry(None, None) };
        for (members, wanted) in [
            (vec![], (0, None)),
            (vec![entry(None, None), entry(None, None)], (0, None)),
            (vec![entry(Some(10), None), entry(Some(12), None)], (2, None)),
            (vec![entry(Some(10), Some(50)), entry(Some(12), Some(57))], (2 + 7, None)),
            (vec![entry(Some(10), Some(50)), entry(None, None)], (40, None)),
            (vec![entry(Some(10), None), entry(None, None)], (0, Some(10))),
            (vec![entry(Some(10), None), had_it(), had_it()], (0, None)),
            (vec![entry(Some(10), None), waived], (0, None)),
        ] {
            let (total, since) = mixed(&members, &version);
            assert_eq!((total, since.map(Timestamp::as_millisecond)), wanted, "{members:?}");
        }
    }

    #[test]
    fn what_all_run_now_ends_the_count() {
        let version: Version = "2".parse().unwrap();
        let now = Timestamp::from_millisecond(1000).unwrap();
        let account = || Account::of(vec![entry(Some(10), None), entry(None, None)], &version, now);
        let mut seen = account();
        assert_eq!((seen.mixed_ms, seen.is_mixed), (990, true));
        for (other, still) in [(None, true), (Some("1"), true), (Some("2"), false)] {
            let other: Option<Version> = other.map(|other| other.parse().unwrap());
            seen = account();
            seen.see_now(&[Some(&version), other.as_ref()]);
            assert_eq!((seen.mixed_ms, seen.is_mixed), (if still { 990 } else { 0 }, still));
        }
    }
}
