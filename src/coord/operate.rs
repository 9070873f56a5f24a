//! What operators do on a board: make a fleet, list its members, propose, stop, waive.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::board::{Board, ClockRead, Done};
use super::facts::names::Decisions;
use super::facts::{
    self, FACT_BYTES_MAX, Fact, Fleet, Listed as Entry, MEMBERS_NAMED_MAX, Proposal, ProposalTimes, Seconds,
    names,
};
use super::look::{Found, Look, Signer, Trust, found, look, put, put_text, seal_signed};
use super::name::NodeName;
use super::pages;
use super::rollout::{Rollout, look_rollout, numbers};
use super::rules::Times;
use super::settings::{Facts as FactSeals, Mode, OnHalt, Settings, SkewCheck, WaveSetting};
use super::standing::{self, Standing};
use super::turns::{Said, turns};
use super::voice::Voice;
use crate::types::{Digest, clock_words};

/// What would be proposed, but for its number.
struct Draft {
    fleet: Fleet,
    proposal: Proposal,
    /// Its members, as the list has them, each with its cell.
    entries: Vec<Entry>,
    /// As they are configured: by groups, too.
    waves: Vec<WaveSetting>,
}

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

    /// Whether a rollout could be proposed, and why not: what is asked before another one is stopped for it.
    pub fn ensure_may_propose(&mut self, settings: &Settings, wish: &Wish) -> Result<(), Error> {
        self.draft(settings, wish).map(|_| ())
    }

    /// What would be proposed, but for its number.
    fn draft(&mut self, settings: &Settings, wish: &Wish) -> Result<Draft, Error> {
        if let Some(why) = unworkable(settings) {
            return refused(why);
        }
        if settings.mode == Mode::Independent {
            return refused("`fleet.mode` is `independent`: set it to `synchronous`, `rolling` or `cells`");
        }
        let fleet = fleet(self.board, &settings.name)?;
        self.ensure_clock(settings)?;
        let list = self.members_or_all(&fleet)?;
        let only: BTreeSet<&NodeName> = wish.only.iter().collect();
        let is_wanted = |entry: &&Entry| only.is_empty() || only.contains(&entry.node);
        let mut entries: Vec<Entry> = list.members.iter().filter(is_wanted).cloned().collect();
        let members: Vec<NodeName> = entries.iter().map(|entry| entry.node.clone()).collect();
        if let Some(stranger) = wish.only.iter().find(|node| !members.contains(node)) {
            return refused(format!("`{stranger}` is no member of the fleet"));
        }
        // A cell moves as a whole: also who is in it, and not meant.
        let asked = |entry: &Entry| entry.node.clone();
        let said = match settings.mode {
            Mode::Cells => Said::read(self.board, &list.members.iter().map(asked).collect::<Vec<_>>()),
            Mode::Independent | Mode::Rolling | Mode::Synchronous => Said::read(self.board, &members),
        };
        said.ensure_same_format()?;
        let has_machine = |entry: &&Entry| !entry.instance.is_empty();
        let instance_of = |entry: &Entry| (entry.node.clone(), entry.instance.clone());
        let instances = entries.iter().filter(has_machine).map(instance_of).collect();
        let cells = match settings.mode {
            Mode::Cells => said.whole_cells(&list, &members)?,
            Mode::Independent | Mode::Rolling | Mode::Synchronous => BTreeMap::new(),
        };
        for entry in &mut entries {
            entry.cell = cells.get(&entry.node).cloned().or(entry.cell.take());
        }
        let proposal = Proposal {
            fleet: fleet.id.clone(),
            rollout: 0,
            prev: None,
            mode: settings.mode,
            release: wish.release.clone(),
            members_list: list.list,
            keys: keys(settings, list.list, &entries)?,
            instances,
            members,
            pages: Vec::new(),
            signed: false,
            created: wish.now,
            expires: wish.begin().saturating_add(wish.valid).unwrap_or(Timestamp::MAX),
            by: self.by.clone(),
            not_before: wish.not_before,
            overlap: settings.overlap,
            t: times(settings),
            rolling: settings.mode.takes_turns().then(|| turns(settings, &list, &cells)),
            cells,
        };
        let proposal = said.with_slots(proposal);
        if proposal.members.is_empty() {
            return refused(NOBODY);
        }
        Ok(Draft { fleet, proposal, entries, waves: settings.waves.clone() })
    }

    /// Proposes a rollout. Of two who do at once, one is told that the other was first.
    pub fn propose(&mut self, settings: &Settings, wish: &Wish) -> Result<Rollout, Error> {
        let Draft { fleet, proposal, entries, waves } = self.draft(settings, wish)?;
        let (number, prev) = self.next_number(&fleet, wish.after)?;
        let proposal = Proposal { rollout: number, prev, ..proposal };
        let name = names::proposal(number);
        let is_short = proposal.members.len() <= MEMBERS_NAMED_MAX;
        let short = Fact::Proposal(Box::new(proposal.clone()));
        let text = match if is_short { self.seal_short(&name, &short)? } else { None } {
            Some(text) => text,
            None => {
                let paged = pages::in_pages(&proposal, self.put_pages(entries)?, &waves);
                self.seal(&name, &Fact::Proposal(Box::new(paged)))?
            }
        };
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

    /// The same; nothing where it does not fit into one fact.
    pub(super) fn seal_short(&self, name: &str, fact: &Fact) -> Result<Option<String>, Error> {
        if fact.line().len() > FACT_BYTES_MAX {
            return Ok(None);
        }
        let text = seal_signed(name, fact, self.signer).map_err(Error::Refused)?;
        if text.len() > FACT_BYTES_MAX { Ok(None) } else { self.trusted(name, text).map(Some) }
    }

    /// The file of what only operators may write. What not even its author believes would only use up the name.
    pub(super) fn seal(&self, name: &str, fact: &Fact) -> Result<String, Error> {
        let text = seal_signed(name, fact, self.signer).map_err(Error::Refused)?;
        self.trusted(name, text)
    }

    fn trusted(&self, name: &str, text: String) -> Result<String, Error> {
        match found(name, &text, Some(self.trust)) {
            Look::Bad(why) => refused(format!("no node would trust what this key signs: {why}")),
            Look::Found(_) | Look::Absent | Look::Unreachable(_) => Ok(text),
        }
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
pub(super) const NOBODY: &str =
    "nobody would take part: `cutover fleet join` on each node, then `fleet members --all`";

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

/// The keys of these members, where nodes sign. `list`: the number of the list that they are from.
fn keys(settings: &Settings, list: u32, entries: &[Entry]) -> Result<BTreeMap<NodeName, String>, Error> {
    if settings.facts == FactSeals::Summed {
        return Ok(BTreeMap::new());
    }
    let key_of = |entry: &Entry| {
        let node = entry.node.clone();
        let without = format!("member list {list} has no key of `{node}`: it joined without one");
        entry.key.clone().map(|key| (node, key)).ok_or(Error::Refused(without))
    };
    entries.iter().map(key_of).collect()
}

/// So many names are told of many.
const NAMES_TOLD: usize = 10;

/// These names, some of them where they are many.
pub fn some_of(all: &[impl ToString]) -> String {
    let names: Vec<String> = all.iter().take(NAMES_TOLD).map(ToString::to_string).collect();
    match all.len().saturating_sub(NAMES_TOLD) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
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
