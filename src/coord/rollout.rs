//! A rollout as its members follow it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::board::{Board, Listed, Read};
use super::facts::names::Decisions;
use super::facts::{Fact, MEMBERS_MAX, Proposal, names};
use super::look::{Look, Trust, look_signed};
use super::name::{CellName, NodeName};
use super::pages;
use super::rules::gate::Gate;
use super::rules::rolling::At;
use super::rules::{Ms, Times};
use super::settings::Mode;
use crate::types::Digest;

/// What may have happened when a rollout that was read is gone, and what to do.
pub const WENT_BACK: &str =
    "the storage went back in time; `cutover fleet repair` puts back what this node has read";

/// One release for many nodes, begun by a proposal.
///
/// In a rollout of cells each cell is a synchronous rollout of its own, among the nodes of that cell, with gates of its own
/// ([`Rollout::of_cell`]); and all of them together are a rolling one, whose members are the cells ([`Rollout::of_turns`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    pub number: u64,
    /// The digest of the proposal's file.
    pub digest: Digest,
    /// What was proposed; of a cell's part with that cell's nodes as members, of the turns with the cells as members.
    /// It names all members: whoever clones a rollout, or looks at it again, shares it.
    pub proposal: Arc<Proposal>,
    pub signer: Option<String>,
    /// Whose part it is, where it is one cell's.
    pub cell: Option<CellName>,
}

impl Rollout {
    /// Of a proposal in full, whose file has this digest.
    pub fn new(number: u64, digest: Digest, proposal: Proposal, signer: Option<String>) -> Self {
        Self { number, digest, proposal: held_once(digest, proposal), signer, cell: None }
    }

    pub fn decisions(&self) -> Decisions {
        Decisions { rollout: self.number, proposal: self.digest }
    }

    /// Its cells, in their order.
    pub fn cells(&self) -> BTreeSet<CellName> {
        self.proposal.cells.values().cloned().collect()
    }

    /// The synchronous part of one cell.
    pub fn of_cell(&self, cell: &CellName) -> Self {
        let is_in = |node: &&NodeName| self.proposal.cells.get(*node) == Some(cell);
        self.part(cell, self.proposal.members.iter().filter(is_in).cloned().collect())
    }

    /// The synchronous parts of all cells, in their order.
    pub fn of_cells(&self) -> Vec<Self> {
        let named = self.proposal.cells.values();
        let mut cells: BTreeMap<&CellName, Vec<NodeName>> = named.map(|cell| (cell, Vec::new())).collect();
        for node in &self.proposal.members {
            if let Some(cell) = self.proposal.cells.get(node) {
                cells.entry(cell).or_default().push(node.clone());
            }
        }
        cells.into_iter().map(|(cell, members)| self.part(cell, members)).collect()
    }

    /// What each of many cells has of its own, and not all of it: but for the keys, since any member may stop a cell.
    fn part(&self, cell: &CellName, members: Vec<NodeName>) -> Self {
        let all = &self.proposal;
        let of = |node: &NodeName| Some((node.clone(), all.instances.get(node)?.clone()));
        let proposal = Proposal {
            instances: members.iter().filter_map(of).collect(),
            cells: members.iter().map(|node| (node.clone(), cell.clone())).collect(),
            members,
            pages: Vec::new(),
            keys: all.keys.clone(),
            fleet: all.fleet.clone(),
            release: all.release.clone(),
            by: all.by.clone(),
            rolling: all.rolling.clone(),
            ..**all
        };
        Self { proposal: Arc::new(proposal), cell: Some(cell.clone()), signer: self.signer.clone(), ..*self }
    }

    /// The rolling part: whose members are the cells.
    pub fn of_turns(&self) -> Self {
        let mut turns = self.clone();
        Arc::make_mut(&mut turns.proposal).members = self.cells().into_iter().collect();
        turns
    }

    /// The part that a node has to agree with others on: its cell's, or all of it.
    pub fn of_node(self, node: &NodeName) -> Self {
        match self.proposal.cells.get(node) {
            Some(cell) => self.of_cell(cell),
            None => self,
        }
    }

    /// The name of a gate's file within the rollout's directory: each cell has gates of its own.
    pub fn gate_name(&self, gate: Gate) -> String {
        match &self.cell {
            Some(cell) => format!("{}.{cell}", gate.name()),
            None => gate.name().to_owned(),
        }
    }

    /// Where a gate stands.
    pub fn gate(&self, gate: Gate) -> String {
        self.decisions().gate(&self.gate_name(gate))
    }

    /// The file of a ticket.
    pub fn ticket(&self, at: At) -> String {
        self.decisions().ticket(self.row(at), at.number)
    }

    /// The file that says that nobody waits for the owner of a ticket.
    pub fn waive_ticket(&self, at: At) -> String {
        self.decisions().waive_ticket(self.row(at), at.number)
    }

    /// The row in a ticket's name: where there are slots.
    fn row(&self, at: At) -> Option<u32> {
        self.has_slots().then_some(at.row)
    }

    /// Whether each of those who may be out of service at once has a slot, that is handed on.
    pub fn has_slots(&self) -> bool {
        self.proposal.rolling.as_ref().is_some_and(|terms| terms.slots > 0)
    }

    /// The keys of the member at `place`: of a cell those of all its nodes, each of which speaks for it.
    pub fn keys_of(&self, place: usize) -> Vec<&String> {
        let keys = &self.proposal.keys;
        let Some(member) = self.proposal.members.get(place) else { return Vec::new() };
        if self.cell.is_some() || self.proposal.mode != Mode::Cells {
            return keys.get(member).into_iter().collect();
        }
        let nodes = self.proposal.cells.iter().filter(|(_, cell)| *cell == member);
        nodes.filter_map(|(node, _)| keys.get(node)).collect()
    }

    /// Whether this machine may speak as the member `node`: where the proposal names machines, only the one it names.
    pub fn is_of(&self, node: &NodeName, instance: &str) -> bool {
        self.proposal.instances.get(node).is_none_or(|named| named == instance)
    }

    /// The place of a node among the members.
    pub fn place_of(&self, node: &NodeName) -> Option<usize> {
        self.proposal.members.iter().position(|member| member == node)
    }

    /// Whether its members sign their facts.
    pub fn is_signed(&self) -> bool {
        !self.proposal.keys.is_empty()
    }

    /// The times that all hold to.
    pub fn times(&self) -> Times {
        self.proposal.t.into()
    }

    /// The moment before which nobody switches, while it is to come.
    pub fn begins_after(&self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        self.proposal.not_before.filter(|moment| now < *moment)
    }

    /// When votes must be in. A cell's may come as long as nobody has taken its turn.
    pub fn vote_by(&self) -> Ms {
        if self.cell.is_some() {
            return Ms::MAX;
        }
        let vote_by = self.proposal.created.as_millisecond() + self.times().vote;
        vote_by.min(self.proposal.expires.as_millisecond())
    }

    /// The place of a node in the order in which they decide: another one for each rollout.
    pub fn rank_of(&self, node: &NodeName) -> usize {
        let mine = self.order_of(node);
        self.proposal.members.iter().filter(|other| self.order_of(other) < mine).count()
    }

    /// The place in that order of the member at `place`; the last for an onlooker.
    pub fn rank_at(&self, place: usize) -> usize {
        let members = &self.proposal.members;
        members.get(place).map_or(members.len(), |node| self.rank_of(node))
    }

    /// What members are ordered by where no other order is given.
    pub fn order_of(&self, node: &NodeName) -> Digest {
        Digest::of(format!("{} {node}", self.number).as_bytes())
    }
}

/// Looks at a proposal, and whether it can be one.
pub fn look_rollout(board: &mut dyn Board, number: u64, fleet: &str, trust: Trust<'_>) -> Look<Rollout> {
    let found = match look_signed(board, &names::proposal(number), trust) {
        Look::Found(found) => found,
        Look::Absent => return Look::Absent,
        Look::Bad(why) => return Look::Bad(why),
        Look::Unreachable(why) => return Look::Unreachable(why),
    };
    let Fact::Proposal(mut proposal) = found.fact else { return Look::Bad("it is no proposal".into()) };
    match in_full(&mut proposal, &mut |name| board.read(name)) {
        Look::Found(()) => {}
        Look::Absent => return Look::Absent,
        Look::Bad(why) => return Look::Bad(why),
        Look::Unreachable(why) => return Look::Unreachable(why),
    }
    match why_not(&proposal, number, fleet) {
        Some(why) => Look::Bad(why.to_owned()),
        None => Look::Found(Rollout::new(number, found.digest, *proposal, found.signer)),
    }
}

/// The proposal as this process holds it already, if it does: of one file all make the same, for a page is what its name says.
fn held_once(digest: Digest, proposal: Proposal) -> Arc<Proposal> {
    static HELD: Mutex<BTreeMap<Digest, Weak<Proposal>>> = Mutex::new(BTreeMap::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|_, proposal| proposal.strong_count() > 0);
    if let Some(there) = held.get(&digest).and_then(Weak::upgrade) {
        return there;
    }
    let proposal = Arc::new(proposal);
    held.insert(digest, Arc::downgrade(&proposal));
    proposal
}

/// Takes up what the pages of a proposal say, where it has any; `read`: how a page is read, by its name.
pub fn in_full(proposal: &mut Proposal, read: &mut dyn FnMut(&str) -> Read) -> Look<()> {
    if proposal.pages.is_empty() {
        return Look::Found(());
    }
    match pages::members(&proposal.pages, read) {
        Look::Found(entries) => match pages::fill(proposal, entries) {
            Ok(()) => Look::Found(()),
            Err(why) => Look::Bad(why.into()),
        },
        Look::Absent => Look::Absent,
        Look::Bad(why) => Look::Bad(why),
        Look::Unreachable(why) => Look::Unreachable(why),
    }
}

fn why_not(proposal: &Proposal, number: u64, fleet: &str) -> Option<&'static str> {
    let times = Times::from(proposal.t);
    let mut members: Vec<_> = proposal.members.iter().collect();
    members.sort();
    members.dedup();
    if proposal.rollout != number {
        Some("it is a proposal of another number")
    } else if proposal.fleet != fleet {
        Some("it is a proposal of another fleet")
    } else if proposal.members.is_empty() || proposal.members.len() > MEMBERS_MAX {
        Some("it has no members, or too many")
    } else if !proposal.keys.is_empty() && !members.iter().all(|node| proposal.keys.contains_key(*node)) {
        Some("it does not name the keys of all its members")
    } else if members.len() != proposal.members.len() {
        Some("it names a member twice")
    } else if times.poll == 0 || times.lead < times.lead_min() {
        Some("its lead is too short for its poll and visibility")
    } else if proposal.mode == Mode::Independent {
        Some("it has no mode")
    } else if (proposal.mode == Mode::Cells) == proposal.cells.is_empty()
        || (proposal.mode == Mode::Cells && !members.iter().all(|node| proposal.cells.contains_key(*node)))
    {
        Some("it does not name the cells of its members")
    } else {
        None
    }
}

/// The numbers of all proposals, ascending; and all numbers that are taken, also by rollouts that were removed.
pub fn numbers(board: &mut dyn Board) -> Result<(Vec<u64>, Vec<u64>), String> {
    match board.list(names::ROLLOUTS) {
        Listed::Names(names) => {
            let proposals: Vec<u64> = names.iter().filter_map(|name| names::rollout_of(name)).collect();
            let removed = names.iter().filter_map(|name| names::rollout_of(name.strip_suffix(".gone")?));
            let taken = proposals.iter().copied().chain(removed).collect();
            Ok((proposals, taken))
        }
        Listed::Unreachable(why) => Err(why),
    }
}

/// The numbers under which somebody has proposed, whatever is left of the proposal: they have a directory of decisions.
pub fn begun(board: &mut dyn Board) -> Result<BTreeSet<u64>, String> {
    match board.list(names::ROLLOUTS) {
        Listed::Names(names) => Ok(names.iter().filter_map(|name| names::decided_of(name)).collect()),
        Listed::Unreachable(why) => Err(why),
    }
}

/// All decisions of a rollout that are on the board: gates, tickets, waivers, waves.
pub fn names_of(board: &mut dyn Board, rollout: &Rollout) -> Result<Vec<String>, String> {
    match board.list(&rollout.decisions().directory()) {
        Listed::Names(names) => Ok(names),
        Listed::Unreachable(why) => Err(why),
    }
}

/// For how long each thing has been wanted by this node, so that those before it in the order may do it first.
#[derive(Clone, Debug, Default)]
pub struct Turns(BTreeMap<String, Ms>);

impl Turns {
    /// For how long this has been wanted.
    pub fn wanted_for(&mut self, what: &str, now: Ms) -> Ms {
        now - *self.0.entry(what.to_owned()).or_insert(now)
    }

    /// Whether the wait for those before has passed. `now` is a clock that does not jump.
    pub fn has_come(&mut self, what: &str, now: Ms, wait: Ms) -> bool {
        self.wanted_for(what, now) >= wait
    }
}
