//! A synchronous rollout on the board: what was read of it, and what is put there.

mod gates;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::board::{Board, Read};
use super::facts::{Fact, SeenFacts, Yes, names};
use super::heard::{Heard, is_waived, remark, with_why};
use super::look::{Found, Look, NotMade, found};
use super::name::NodeName;
use super::rollout::Rollout;
use super::rules::gate::Gate;
use super::rules::synchronous::View;
use super::rules::{Health, Ms};
use super::voice::Voice;
use crate::types::Digest;

/// A kind of fact that each member makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Vote,
    Armed,
    /// The old release is stopped.
    Stopped,
    Switched,
    Report,
    /// The new release is stopped again.
    Cleared,
    /// What it runs in the end.
    Closed,
}

impl What {
    /// The end of the file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Armed => "armed",
            Self::Stopped => "stopped",
            Self::Switched => "switched",
            Self::Report => "report",
            Self::Cleared => "cleared",
            Self::Closed => "closed",
        }
    }
}

/// The most members in whose facts a decision's file lists what it rests on: beyond it the file would be too long.
const SEEN_MAX: usize = 256;

/// The most facts that are read at once.
const AHEAD_MAX: usize = 256;

/// A synchronous rollout as one member, or an onlooker, sees it.
pub struct Synchronous<'a> {
    voice: Voice<'a>,
    pub rollout: Rollout,
    pub view: View,
    /// The digests of the gates that were read: what later facts answer.
    pub gates: BTreeMap<Gate, Digest>,
    /// The files of these gates, to be written down.
    pub texts: BTreeMap<Gate, String>,
    /// The newest of this node's own facts that others go by from the instant on, as it stood there: name and file.
    pub told: Option<(String, String)>,
    /// Why the outcome, the plan or the go is as it is, as its author said.
    pub why: Option<String>,
    /// All facts of members, as they were read.
    pub facts: BTreeMap<(What, usize), Found>,
    /// Files that say nothing, or contradict each other.
    pub remarks: Vec<String>,
    /// A gate that is there, and could not be understood: nobody knows what was decided.
    pub unreadable: Option<String>,
    /// An operator has ended it, whatever stands there.
    pub is_void: bool,
    /// This node's place in the order of those who decide.
    pub rank: usize,
    cursor: BTreeMap<What, usize>,
}

impl<'a> Synchronous<'a> {
    /// Nothing read yet. `me` is beyond the members for an onlooker.
    pub fn new(rollout: Rollout, me: usize, voice: Voice<'a>) -> Self {
        let view = View::new(me, rollout.proposal.members.len());
        let rank = rollout.rank_at(me);
        Self {
            voice,
            rollout,
            view,
            gates: BTreeMap::new(),
            texts: BTreeMap::new(),
            told: None,
            why: None,
            facts: BTreeMap::new(),
            remarks: Vec::new(),
            unreadable: None,
            is_void: false,
            rank,
            cursor: BTreeMap::new(),
        }
    }

    /// Reads facts of this kind, of members that have none yet, up to the first one that is missing: a positive decision needs
    /// all, so the others do not matter before. It reads as far ahead at once as it has just found: thousands take no longer than
    /// the storage must, and few are asked for in vain.
    pub fn scan(&mut self, board: &mut dyn Board, what: What) -> Heard {
        let count = self.view.members.len();
        let start = self.cursor.get(&what).copied().unwrap_or(0);
        let is_wanted =
            |place: &usize| !self.view.members[*place].waived && !self.facts.contains_key(&(what, *place));
        let wanted: Vec<usize> = (0..count).map(|step| (start + step) % count).filter(is_wanted).collect();
        let (mut done, mut ahead, mut missing) = (0, 1, None);
        while done < wanted.len() && missing.is_none() {
            let some = &wanted[done..wanted.len().min(done + ahead)];
            let names: Vec<String> = some.iter().map(|place| self.name_of(what, *place)).collect();
            let reads = board.read_some(&names, Duration::MAX);
            if reads.is_empty() {
                return Heard::Away("it gives no answer to a question".into());
            }
            for ((place, name), read) in some.iter().zip(&names).zip(reads) {
                done += 1;
                match self.take(what, *place, name, read) {
                    Ok(true) => {}
                    Ok(false) if missing.is_some() => {}
                    Ok(false) => {
                        if let Heard::Away(why) = self.look_for_waiver(board, *place) {
                            return Heard::Away(why);
                        }
                        missing = (!self.view.members[*place].waived).then_some(*place);
                    }
                    Err(why) => return Heard::Away(why),
                }
            }
            ahead = (2 * ahead).min(AHEAD_MAX);
        }
        if let Some(place) = missing {
            self.cursor.insert(what, place);
        }
        Heard::Yes
    }

    /// Where the fact of a member stands; nowhere for an onlooker.
    fn name_of(&self, what: What, place: usize) -> String {
        let node = self.rollout.proposal.members.get(place);
        node.map_or_else(String::new, |node| names::own(node, self.rollout.number, what.name()))
    }

    /// Reads everything that is there, for those who look on.
    pub fn scan_all(&mut self, board: &mut dyn Board, whats: &[What]) -> Heard {
        for place in 0..self.view.members.len() {
            for what in whats {
                if !self.facts.contains_key(&(*what, place))
                    && let Err(why) = self.read(board, *what, place)
                {
                    return Heard::Away(why);
                }
            }
        }
        self.read_waivers(board)
    }

    /// Reads who is waived, of all members.
    pub fn read_waivers(&mut self, board: &mut dyn Board) -> Heard {
        let waivers: BTreeSet<NodeName> = match super::rollout::names_of(board, &self.rollout) {
            Ok(names) => names.iter().filter_map(|name| name.strip_prefix("waive.")?.parse().ok()).collect(),
            Err(why) => return Heard::Away(why),
        };
        let is_new = |place: &usize| {
            !self.view.members[*place].waived && waivers.contains(&self.rollout.proposal.members[*place])
        };
        for place in (0..self.view.members.len()).filter(is_new).collect::<Vec<_>>() {
            if let Heard::Away(why) = self.look_for_waiver(board, place) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    fn read(&mut self, board: &mut dyn Board, what: What, place: usize) -> Result<bool, String> {
        if place >= self.rollout.proposal.members.len() {
            return Ok(false);
        }
        let name = self.name_of(what, place);
        let read = board.read(&name);
        self.take(what, place, &name, read)
    }

    /// Takes up what was read of a member's fact: whether it says something. An error: the storage did not answer.
    fn take(&mut self, what: What, place: usize, name: &str, read: Read) -> Result<bool, String> {
        match self.voice.looked_at(&self.rollout, place, name, read) {
            Look::Found(found) => Ok(self.accept(what, place, found)),
            Look::Absent => Ok(false),
            Look::Bad(why) => {
                let node = &self.rollout.proposal.members[place];
                self.remark(format!("{node}'s {} is not valid: {why}", what.name()));
                Ok(false)
            }
            Look::Unreachable(why) => Err(why),
        }
    }

    /// Takes a member's fact into the view; false when it says nothing.
    pub fn accept(&mut self, what: What, place: usize, found: Found) -> bool {
        let Some(node) = self.rollout.proposal.members.get(place).cloned() else { return false };
        let number = self.rollout.number;
        let proposal = self.rollout.digest;
        let plan = self.gates.get(&Gate::Plan).copied();
        if let Some(instance) = instance_of(&found.fact)
            && !self.rollout.is_of(&node, instance)
        {
            self.remark(format!("{node}'s {} is another machine's", what.name()));
            return false;
        }
        let about = match &found.fact {
            Fact::Vote(said) => Some((What::Vote, &said.node, said.rollout, said.proposal == proposal)),
            Fact::Armed(said) => Some((What::Armed, &said.node, said.rollout, Some(said.plan) == plan)),
            Fact::Step(said) if matches!(what, What::Stopped | What::Switched | What::Cleared) => {
                Some((what, &said.node, said.rollout, Some(said.plan) == plan))
            }
            Fact::Report(said) => Some((What::Report, &said.node, said.rollout, Some(said.answers) == plan)),
            Fact::Closed(said) => Some((What::Closed, &said.node, said.rollout, said.proposal == proposal)),
            _ => None,
        };
        match about {
            Some((kind, by, rollout, answers)) if kind == what && *by == node && rollout == number => {
                if !answers {
                    self.contradict(&format!("{node}'s {} belongs to another proposal", what.name()));
                    return false;
                }
            }
            _ => {
                self.remark(format!("{node}'s {} says something else", what.name()));
                return false;
            }
        }
        let member = &mut self.view.members[place];
        match &found.fact {
            Fact::Vote(said) => member.vote = Some(said.vote == Yes::Yes),
            Fact::Armed(_) => member.armed = true,
            Fact::Report(said) => member.report = Some(said.health),
            Fact::Closed(_) => member.closed = true,
            _ => match what {
                What::Stopped => member.stopped = true,
                What::Cleared => member.cleared = true,
                _ => member.switched = true,
            },
        }
        self.facts.insert((what, place), found);
        true
    }

    /// Reads what this node itself has said, where a gate rests on it: nobody obeys one that came before.
    pub fn read_own(&mut self, board: &mut dyn Board) -> Heard {
        let (me, mine) = (self.view.me, self.view.mine());
        let is_missing = |what| match what {
            What::Armed => self.view.go == Some(super::rules::synchronous::Go::Go) && !mine.armed,
            _ => self.view.outcome.is_some() && mine.report.is_none(),
        };
        for what in
            [What::Armed, What::Report].into_iter().filter(|what| is_missing(*what)).collect::<Vec<_>>()
        {
            if let Err(why) = self.read(board, what, me) {
                return Heard::Away(why);
            }
            if let Heard::Away(why) = self.look_for_waiver(board, me) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Takes up what this node has told, name and file, as it is known to stand on storage: it is not read there again.
    pub fn remember_told(&mut self, told: &(String, String)) {
        let (me, (name, text)) = (self.view.me, told);
        let is_named = |what: &What| name.ends_with(&format!(".{}", what.name()));
        let what = [What::Armed, What::Report].into_iter().find(is_named);
        if let (Some(what), Look::Found(found)) = (what, found(name, text, None))
            && self.gates.contains_key(&Gate::Plan)
            && self.accept(what, me, found)
        {
            self.told = Some(told.clone());
        }
    }

    /// The newest fact on the board, name and file, by which the others know that the member at `place` has promised.
    pub fn told_by(&mut self, board: &mut dyn Board, place: usize) -> Option<(String, String)> {
        let what = [What::Report, What::Armed].into_iter().find(|what| {
            self.facts.contains_key(&(*what, place)) || self.read(board, *what, place) == Ok(true)
        })?;
        self.facts.get(&(what, place)).map(|found| (found.name.clone(), found.text.clone()))
    }

    /// Looks whether the member at `place` is waived.
    pub fn look_for_waiver(&mut self, board: &mut dyn Board, place: usize) -> Heard {
        match is_waived(board, &self.rollout, &self.voice, place, &mut self.remarks) {
            Ok(true) => self.view.members[place].waived = true,
            Ok(false) => {}
            Err(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Puts a fact of the member at `place`, and takes what is there into the view. A fact of another machine of the same name is
    /// a contradiction.
    ///
    /// # Errors
    /// When it is certain that nothing was made.
    pub fn tell(
        &mut self,
        board: &mut dyn Board,
        what: What,
        place: usize,
        fact: &Fact,
    ) -> Result<Heard, NotMade> {
        let Some(node) = self.rollout.proposal.members.get(place).cloned() else {
            return Ok(Heard::Away("it is no member".into()));
        };
        let name = names::own(&node, self.rollout.number, what.name());
        Ok(match self.voice.pin(board, &self.rollout, &name, fact)? {
            Look::Found(found) => {
                if instance_of(&found.fact) != instance_of(fact) {
                    self.contradict(&format!("the name {node} is in use by another machine"));
                } else {
                    // A vote binds nobody: where it is lost, the votes' time ends the rollout.
                    if matches!(what, What::Armed | What::Report) {
                        self.told = Some((name, found.text.clone()));
                    }
                    self.accept(what, place, found);
                }
                Heard::Yes
            }
            Look::Absent => Heard::Away("it was made, and is not there".into()),
            Look::Bad(why) => Heard::Bad(format!("{node}'s {} is not valid: {why}", what.name())),
            Look::Unreachable(why) => Heard::Away(why),
        })
    }

    fn seen(&self, what: What) -> SeenFacts {
        if self.view.members.len() > SEEN_MAX {
            return SeenFacts::new();
        }
        let of = |((kind, place), found): (&(What, usize), &Found)| {
            let node = self.rollout.proposal.members.get(*place)?.clone();
            (*kind == what).then_some((node, found.digest))
        };
        self.facts.iter().filter_map(of).collect()
    }

    /// The members, not waived, for which `is_missing` holds.
    pub fn who(&self, is_missing: impl Fn(&super::rules::synchronous::Member) -> bool) -> Vec<&NodeName> {
        let members = self.view.members.iter().zip(&self.rollout.proposal.members);
        members.filter(|(seen, _)| !seen.waived && is_missing(seen)).map(|(_, node)| node).collect()
    }

    /// Why a member failed, as it said.
    pub fn failure(&self) -> Option<String> {
        self.facts.iter().find_map(|((_, place), found)| match &found.fact {
            Fact::Report(said) if said.health != Health::Good => {
                let node = self.rollout.proposal.members.get(*place)?;
                Some(with_why(format!("{node} {}", said.health.word()), said.why.as_ref()))
            }
            Fact::Vote(said) if said.vote == Yes::No => {
                Some(with_why(format!("{} voted no", said.node), said.why.as_ref()))
            }
            _ => None,
        })
    }

    fn remark(&mut self, text: String) {
        remark(&mut self.remarks, text);
    }

    fn contradict(&mut self, text: &str) {
        self.view.contradiction = true;
        self.remark(format!("the storage is inconsistent: {text}"));
    }
}

fn instance_of(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Vote(said) => Some(&said.instance),
        Fact::Armed(said) => Some(&said.instance),
        Fact::Step(said) => Some(&said.instance),
        Fact::Report(said) => Some(&said.instance),
        Fact::Closed(said) => Some(&said.instance),
        _ => None,
    }
}

/// A moment in milliseconds as a time stamp.
pub fn timestamp(ms: Ms) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}
