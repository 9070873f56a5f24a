//! What operators do on a board: make a fleet, list its members, propose, stop, waive.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::alive;
use super::board::{Board, ClockRead, Done, Listed};
use super::facts::names::Decisions;
use super::facts::{
    self, FORMAT, Fact, Fleet, Listed as Entry, Members, Proposal, ProposalTimes, Seconds, names,
};
use super::look::{Found, Look, Signer, Trust, found, look, look_signed, put, put_text, seal_signed};
use super::name::NodeName;
use super::rollout::{Rollout, look_rollout, numbers};
use super::rules::Times;
use super::settings::{Facts as FactSeals, Mode, OnHalt, Settings, SkewCheck};
use super::standing::{self, Standing};
use super::turns::turns;
use super::voice::Voice;
use crate::types::{Digest, clock_words};

/// Why an operator's act came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Storage did not answer, or did not do it.
    #[error("cannot reach the fleet's directory: {0}")]
    Unreachable(String),
    /// It cannot be done, because.
    #[error("{0}")]
    Refused(String),
    /// Of two proposals at once the other was first.
    #[error("rollout {number} was just proposed by {by}; yours was not created")]
    Lost { number: u64, by: String },
}

/// Who acts, and what they believe.
pub struct Operator<'a> {
    pub board: &'a mut dyn Board,
    pub trust: Trust<'a>,
    /// Signs; absent: nothing is signed.
    pub signer: Option<&'a dyn Signer>,
    pub by: String,
}

/// What is to be proposed.
pub struct Wish {
    pub release: facts::Wanted,
    /// Only these members; none: all of the list.
    pub only: Vec<NodeName>,
    pub not_before: Option<Timestamp>,
    /// For how long it may be taken up.
    pub valid: SignedDuration,
    pub now: Timestamp,
    /// The newest rollout that its author has seen. It is for what the fleet runs after that one, and no other.
    pub after: Option<u64>,
}

impl Wish {
    /// From when on it may be taken up.
    fn begin(&self) -> Timestamp {
        self.not_before.map_or(self.now, |moment| moment.max(self.now))
    }
}

pub(super) fn refused<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(text.into()))
}

fn bad(what: &str, why: &str) -> Error {
    Error::Refused(format!("{what} is not valid: {why}"))
}

/// The fleet that a directory belongs to.
pub fn fleet(board: &mut dyn Board, name: &str) -> Result<Fleet, Error> {
    match look(board, names::FLEET) {
        Look::Found(Found { fact: Fact::Fleet(fleet), .. }) if name.is_empty() || fleet.fleet == name => {
            Ok(fleet)
        }
        Look::Found(Found { fact: Fact::Fleet(fleet), .. }) => {
            refused(format!("the directory belongs to fleet `{}`, not `{name}`", fleet.fleet))
        }
        Look::Found(_) => refused("`FLEET` does not describe a fleet"),
        Look::Absent => refused("no fleet was made in the directory"),
        Look::Bad(why) => Err(bad("`FLEET`", &why)),
        Look::Unreachable(why) => Err(Error::Unreachable(why)),
    }
}

/// How often each node's name was freed for another machine.
pub fn replaced(
    board: &mut dyn Board,
    fleet: &str,
    trust: Trust<'_>,
) -> Result<BTreeMap<NodeName, u32>, Error> {
    let names = match board.list(names::MEMBERS) {
        Listed::Names(names) => names,
        Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
    };
    let mut times = BTreeMap::new();
    for (node, number) in names.iter().filter_map(|name| names::replaced_of(name)) {
        match look_signed(board, &names::replace(&node, number), trust) {
            Look::Found(Found { fact: Fact::Replace(said), .. })
                if said.node == node && said.times == number && said.fleet == fleet =>
            {
                let known = times.entry(node).or_insert(0);
                *known = number.max(*known);
            }
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            Look::Found(_) | Look::Absent | Look::Bad(_) => {}
        }
    }
    Ok(times)
}

/// The member list that counts: the valid one with the highest number.
pub fn members(board: &mut dyn Board, fleet: &str, trust: Trust<'_>) -> Result<Option<Members>, Error> {
    let lists = match board.list(names::MEMBERS) {
        Listed::Names(lists) => lists,
        Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
    };
    for number in lists.iter().rev().filter_map(|name| name.parse::<u32>().ok()) {
        match look_signed(board, &names::members(number), trust) {
            Look::Found(Found { fact: Fact::Members(members), .. })
                if members.list == number && members.fleet == fleet =>
            {
                return Ok(Some(members));
            }
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            Look::Found(_) | Look::Absent | Look::Bad(_) => {}
        }
    }
    Ok(None)
}

impl<'a> Operator<'a> {
    /// Makes a fleet in an empty directory; one that is there already stays as it is.
    pub fn init(&mut self, name: &str, id: &str) -> Result<Fleet, Error> {
        for directory in [names::MEMBERS, names::ROLLOUTS, names::NODES] {
            if let Done::Unreachable(why) = self.board.prepare(directory) {
                return Err(Error::Unreachable(why));
            }
        }
        let fact = Fact::Fleet(Fleet { fleet: name.to_owned(), id: id.to_owned() });
        match put(self.board, names::FLEET, &fact) {
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
            _ => fleet(self.board, name),
        }
    }

    pub fn standing(&mut self, rollout: &Rollout) -> Result<Standing, Error> {
        let voice = self.voice();
        standing::standing(self.board, rollout, voice).map_err(Error::Unreachable)
    }

    pub fn voice(&self) -> Voice<'a> {
        Voice { trust: self.trust, signer: self.signer }
    }

    /// The entries of the nodes that have joined.
    pub fn joined(&mut self, fleet: &Fleet) -> Result<Vec<facts::Id>, Error> {
        let nodes = match self.board.list(names::NODES) {
            Listed::Names(nodes) => nodes,
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        };
        let mut joined = Vec::new();
        let replaced = replaced(self.board, &fleet.id, self.trust)?;
        for node in nodes.iter().filter_map(|name| name.parse::<NodeName>().ok()) {
            let times = replaced.get(&node).copied().unwrap_or(0);
            match look(self.board, &names::id(&node, times)) {
                Look::Found(Found { fact: Fact::Id(id), .. }) if id.node == node => joined.push(id),
                Look::Unreachable(why) => return Err(Error::Unreachable(why)),
                Look::Found(_) | Look::Absent | Look::Bad(_) => {}
            }
        }
        Ok(joined)
    }

    /// The member list that counts.
    pub fn members(&mut self, fleet: &Fleet) -> Result<Option<Members>, Error> {
        members(self.board, &fleet.id, self.trust)
    }

    /// Writes the next member list. `seen`: the highest number that this machine knows; where the storage went back in time, the
    /// list that had it was another one.
    pub fn write_members(&mut self, fleet: &Fleet, members: Vec<Entry>, seen: u32) -> Result<Members, Error> {
        let list = match self.board.list(names::MEMBERS) {
            Listed::Names(lists) => lists.iter().filter_map(|name| name.parse::<u32>().ok()).max(),
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        };
        let list = list.unwrap_or(0).max(seen).saturating_add(1);
        let wanted = Members { fleet: fleet.id.clone(), list, members, by: self.by.clone() };
        let name = names::members(list);
        let text = self.seal(&name, &Fact::Members(wanted.clone()))?;
        match put_text(self.board, &name, &text) {
            Look::Found(found) if found.text == text => Ok(wanted),
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
            _ => refused(format!("member list {list} was just written by somebody else")),
        }
    }

    /// Whether a rollout could be proposed, and why not: what is asked before another one is stopped for it.
    pub fn ensure_may_propose(&mut self, settings: &Settings, wish: &Wish) -> Result<(), Error> {
        self.draft(settings, wish).map(|_| ())
    }

    /// What would be proposed, but for its number.
    fn draft(&mut self, settings: &Settings, wish: &Wish) -> Result<(Fleet, Proposal), Error> {
        if let Some(why) = unworkable(settings) {
            return refused(why);
        }
        if settings.mode == Mode::Independent {
            return refused("`fleet.mode` is `independent`: set it to `synchronous`, `rolling` or `cells`");
        }
        let fleet = fleet(self.board, &settings.name)?;
        self.ensure_clock(settings)?;
        let list = self.members_or_all(&fleet)?;
        let is_wanted = |entry: &&Entry| wish.only.is_empty() || wish.only.contains(&entry.node);
        let members: Vec<NodeName> =
            list.members.iter().filter(is_wanted).map(|entry| entry.node.clone()).collect();
        if let Some(stranger) = wish.only.iter().find(|node| !members.contains(node)) {
            return refused(format!("`{stranger}` is no member of the fleet"));
        }
        self.ensure_same_format(&members)?;
        let is_member = |entry: &&Entry| !entry.instance.is_empty() && members.contains(&entry.node);
        let instance_of = |entry: &Entry| (entry.node.clone(), entry.instance.clone());
        let instances = list.members.iter().filter(is_member).map(instance_of).collect();
        let cells = match settings.mode {
            Mode::Cells => self.whole_cells(&list, &members)?,
            Mode::Independent | Mode::Rolling | Mode::Synchronous => BTreeMap::new(),
        };
        let proposal = Proposal {
            fleet: fleet.id.clone(),
            rollout: 0,
            prev: None,
            mode: settings.mode,
            release: wish.release.clone(),
            members_list: list.list,
            keys: keys(settings, &list, &members)?,
            instances,
            members,
            created: wish.now,
            expires: wish.begin().saturating_add(wish.valid).unwrap_or(Timestamp::MAX),
            by: self.by.clone(),
            not_before: wish.not_before,
            overlap: settings.overlap,
            t: times(settings),
            rolling: settings.mode.takes_turns().then(|| turns(settings, &list, &cells)),
            cells,
        };
        let proposal = self.with_slots(proposal);
        if proposal.members.is_empty() {
            return refused(NOBODY);
        }
        Ok((fleet, proposal))
    }

    /// Proposes a rollout. Of two who do at once, one is told that the other was first.
    pub fn propose(&mut self, settings: &Settings, wish: &Wish) -> Result<Rollout, Error> {
        let (fleet, proposal) = self.draft(settings, wish)?;
        let (number, prev) = self.next_number(&fleet, wish.after)?;
        let proposal = Proposal { rollout: number, prev, ..proposal };
        let name = names::proposal(number);
        let text = self.seal(&name, &Fact::Proposal(Box::new(proposal)))?;
        // Nobody else makes this directory: its name has the digest of this very proposal.
        let directory = Decisions { rollout: number, proposal: Digest::of(text.as_bytes()) }.directory();
        if let Done::Unreachable(why) = self.board.prepare(&directory) {
            return Err(Error::Unreachable(why));
        }
        match put_text(self.board, &name, &text) {
            Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            Look::Found(found) if found.text != text => {
                let _ = self.board.remove(&directory);
                let by = match found.fact {
                    Fact::Proposal(theirs) => theirs.by,
                    _ => "somebody else".into(),
                };
                return Err(Error::Lost { number, by });
            }
            Look::Found(_) | Look::Absent | Look::Bad(_) => {}
        }
        self.rollout(&fleet, number)
    }

    /// The file of what only operators may write. What not even its author believes would only use up the name.
    pub(super) fn seal(&self, name: &str, fact: &Fact) -> Result<String, Error> {
        let text = seal_signed(name, fact, self.signer).map_err(Error::Refused)?;
        match found(name, &text, Some(self.trust)) {
            Look::Bad(why) => refused(format!("no node would trust what this key signs: {why}")),
            Look::Found(_) | Look::Absent | Look::Unreachable(_) => Ok(text),
        }
    }

    /// The member list that counts; the first one is of all who have joined.
    fn members_or_all(&mut self, fleet: &Fleet) -> Result<Members, Error> {
        if let Some(list) = self.members(fleet)? {
            return Ok(list);
        }
        let joined: Vec<Entry> = self.joined(fleet)?.into_iter().map(entry_of).collect();
        if joined.is_empty() {
            return refused(NOBODY);
        }
        self.write_members(fleet, joined, 0)
    }

    /// Whoever writes instants and deadlines must have a clock that the members can follow.
    pub fn ensure_clock(&mut self, settings: &Settings) -> Result<(), Error> {
        let ClockRead::Offset { offset_ms, error_ms } = self.board.clock(names::ROLLOUTS) else {
            return Ok(());
        };
        let skew_ms = settings.skew.0.as_secs_f64() * 1000.0;
        if settings.skew_check == SkewCheck::Unchecked || offset_ms.abs() - error_ms <= skew_ms {
            return Ok(());
        }
        refused(format!(
            "the clock of this machine is {}, compared with that of the fleet's directory, and `fleet.skew` allows {}: set \
             the clock, or run this on another machine",
            clock_words(offset_ms),
            settings.skew
        ))
    }

    /// A fleet moves from one format to the next between rollouts, and not in the middle of one.
    fn ensure_same_format(&mut self, members: &[NodeName]) -> Result<(), Error> {
        let mut others = Vec::new();
        for node in members {
            match alive::format(self.board, node) {
                Some(format) if format != FORMAT => others.push(format!("{node} (format {format})")),
                Some(_) | None => {}
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        refused(format!(
            "this cutover writes format {FORMAT}, and these members do not read it: {}; bring cutover itself up to date \
             there first",
            others.join(", ")
        ))
    }

    /// The number of a proposal that comes after `seen`, and the digest of that one. Files that are none do not count:
    /// nobody who can only write there can use up the numbers. All rests on one listing: what is made after it takes the
    /// same number, and one of both is told.
    fn next_number(&mut self, fleet: &Fleet, seen: Option<u64>) -> Result<(u64, Option<Digest>), Error> {
        let (newest, taken) = self.newest_of_all(fleet)?;
        if let Some(newest) = newest.as_ref().filter(|newest| seen != Some(newest.number)) {
            return Err(Error::Lost { number: newest.number, by: newest.proposal.by.clone() });
        }
        let (mut number, prev) = newest.map_or((1, None), |newest| (newest.number + 1, Some(newest.digest)));
        while taken.contains(&number) {
            number += 1;
        }
        if number > names::ROLLOUT_MAX {
            return refused("the fleet has had all rollouts that six digits can number");
        }
        Ok((number, prev))
    }

    /// A rollout by its number.
    pub fn rollout(&mut self, fleet: &Fleet, number: u64) -> Result<Rollout, Error> {
        match look_rollout(self.board, number, &fleet.id, self.trust) {
            Look::Found(rollout) => Ok(rollout),
            Look::Absent => refused(format!("there is no rollout {number}")),
            Look::Bad(why) => Err(bad(&format!("the proposal of rollout {number}"), &why)),
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
        }
    }

    /// The newest rollout, if there is any.
    pub fn newest(&mut self, fleet: &Fleet) -> Result<Option<Rollout>, Error> {
        Ok(self.newest_of_all(fleet)?.0)
    }

    /// The proposals that say nothing, above the newest that says something: which, and why.
    pub fn unreadable(&mut self, fleet: &Fleet) -> Result<Vec<(u64, String)>, Error> {
        let (proposals, _) = numbers(self.board).map_err(Error::Unreachable)?;
        let mut bad = Vec::new();
        for number in proposals.into_iter().rev() {
            match look_rollout(self.board, number, &fleet.id, self.trust) {
                Look::Bad(why) => bad.push((number, why)),
                Look::Found(_) | Look::Absent | Look::Unreachable(_) => break,
            }
        }
        Ok(bad)
    }

    /// The newest rollout, and all numbers that are taken.
    fn newest_of_all(&mut self, fleet: &Fleet) -> Result<(Option<Rollout>, Vec<u64>), Error> {
        let (proposals, taken) = numbers(self.board).map_err(Error::Unreachable)?;
        for number in proposals.iter().rev() {
            match look_rollout(self.board, *number, &fleet.id, self.trust) {
                Look::Found(rollout) => return Ok((Some(rollout), taken)),
                Look::Unreachable(why) => return Err(Error::Unreachable(why)),
                // It may be one that has only just been made.
                Look::Absent => {
                    return Err(Error::Unreachable(format!(
                        "rollout {number} is listed, and cannot be read yet"
                    )));
                }
                Look::Bad(_) => {}
            }
        }
        Ok((None, taken))
    }
}

/// Why there is nobody to propose to.
const NOBODY: &str = "nobody would take part: `cutover fleet join` on each node, then `fleet members --all`";

/// The entry of a list for a node that has joined.
pub fn entry_of(id: facts::Id) -> Entry {
    Entry { node: id.node, instance: id.instance, groups: id.groups, cell: None, key: id.key }
}

/// The times of a proposal by these settings.
pub fn times(settings: &Settings) -> ProposalTimes {
    let seconds = |span: crate::types::Span| Seconds::new(span.0);
    ProposalTimes {
        vote: seconds(settings.vote),
        lead: seconds(settings.lead),
        late: seconds(settings.late),
        stop: seconds(settings.stop),
        trial: seconds(settings.trial),
        settle: seconds(settings.settle),
        back: seconds(settings.back),
        poll: seconds(settings.poll),
        visibility: seconds(settings.visibility),
        skew_ms: u32::try_from(settings.skew.0.as_millis()).unwrap_or(u32::MAX),
    }
}

/// The keys of these members, where nodes sign.
fn keys(
    settings: &Settings,
    list: &Members,
    members: &[NodeName],
) -> Result<BTreeMap<NodeName, String>, Error> {
    if settings.facts == FactSeals::Summed {
        return Ok(BTreeMap::new());
    }
    let key_of = |node: &NodeName| {
        let entry = list.members.iter().find(|entry| entry.node == *node);
        let key = entry.and_then(|entry| entry.key.clone());
        key.map(|key| (node.clone(), key)).ok_or_else(|| {
            Error::Refused(format!("member list {} has no key of `{node}`: it joined without one", list.list))
        })
    };
    members.iter().map(key_of).collect()
}

/// Why the settings do not name one place for all who read them.
pub fn misplaced(settings: &Settings) -> Option<String> {
    let is_one_place = settings.directory.starts_with("exec:") || settings.directory.starts_with('/');
    (!is_one_place).then(|| {
        let directory = &settings.directory;
        format!(
            "`fleet.directory` must be an absolute path, and is `{directory}`: a timer would look elsewhere"
        )
    })
}

/// Why no rollout can end well by these settings, whatever is proposed; each names its key.
pub fn unworkable(settings: &Settings) -> Option<String> {
    let times = Times::from(times(settings));
    if settings.io.0.is_zero() {
        return Some("`fleet.io` must be longer than zero".into());
    }
    if times.poll == 0 || times.lead < times.lead_min() {
        let lead = times.lead_min();
        return Some(format!(
            "`fleet.poll` must be longer than zero, and `fleet.lead` at least {lead} ms, by `fleet.poll` and \
             `fleet.visibility`"
        ));
    }
    if times.vote < times.window() || times.late == 0 {
        return Some(
            "`fleet.vote` must be at least `fleet.poll` and `fleet.visibility` together, and `fleet.late` longer than zero"
                .into(),
        );
    }
    if settings.skew.0.is_zero() && settings.skew_check != SkewCheck::Unchecked {
        return Some("`fleet.skew` must be longer than zero: no two clocks are the same".into());
    }
    if settings.mode == Mode::Cells && settings.on_halt == OnHalt::Rollback {
        return Some(
            "`fleet.on_halt = \"rollback\"` is for single nodes: a cell that has kept the release stays on it when others fail; \
             `cutover fleet propose --rollback` brings all back"
                .into(),
        );
    }
    if settings.at_once == 0 || settings.max_failed == 0 {
        return Some("`fleet.at_once` and `fleet.max_failed` must be at least 1".into());
    }
    None
}
