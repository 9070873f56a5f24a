//! A rolling rollout on the board: what was read of it, and what is put there.

mod cells;
mod put;
mod read;
mod said;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::facts::{Fact, Rolling as Terms};
use super::heard::{remark, with_why};
use super::look::Found;
use super::name::{CellName, NodeName};
use super::rollout::Rollout;
use super::rules::rolling::{Limits, Member, View};
use super::rules::{Health, Ms};
use super::settings::{Mode, OnHalt};
use super::synchronous::Synchronous;
use super::voice::Voice;
use slots::Order;

/// The most waves that a proposal may have.
pub const WAVES_MAX: usize = 100;

/// How a remark begins on files that contradict each other.
const INCONSISTENT: &str = "the storage is inconsistent: ";

/// So many refusals are told in one reason.
const REFUSALS_TOLD: usize = 3;

/// A rolling rollout as one member, or an onlooker, sees it.
pub struct Rolling<'a> {
    voice: Voice<'a>,
    pub rollout: Rollout,
    pub terms: Terms,
    pub view: View,
    /// Why members cannot, as they said.
    pub refusals: BTreeMap<usize, String>,
    /// Why it ended or halted, as its author said.
    pub why: Option<String>,
    /// A halt and waivers as they were read, by their names in the rollout's directory: to be put back where storage loses them.
    pub words: BTreeMap<String, String>,
    /// The outcome's file, to be put back where storage loses it.
    pub outcome: Option<String>,
    /// The reports as they were read, by member.
    pub reports: BTreeMap<usize, Found>,
    /// The reports of how going back went.
    pub returns: BTreeMap<usize, Found>,
    /// This node's place in the order of those who decide.
    pub rank: usize,
    /// The order in which members take their tickets, where there are slots.
    order: Order,
    /// Whether a look for a report that is not there looks for a waiver, too. Else the listing tells of them.
    pub asks_for_waivers: bool,
    /// About how many tickets this node's row has by now: where to look first.
    pub expected: usize,
    /// When the newest ticket of this node's row was taken, as its owner's clock had it.
    pub taken_at: Option<Timestamp>,
    /// How long the turn took that ended last in this node's row, as far as that was told.
    pub turn: Option<Ms>,
    /// Files that say nothing, or contradict each other.
    pub remarks: Vec<String>,
    /// The outcome is there, and could not be understood.
    pub unreadable: Option<String>,
    /// In a rollout of cells, whose members are the cells: the part of each.
    pub cells: Vec<Synchronous<'a>>,
}

impl<'a> Rolling<'a> {
    /// Nothing read yet; `None` when the proposal does not say what a rolling rollout needs. `me`: the place of this node among
    /// the members, beyond them for an onlooker, as in any rollout of cells.
    pub fn new(rollout: Rollout, me: usize, voice: Voice<'a>) -> Option<Self> {
        match rollout.proposal.mode {
            Mode::Cells => Self::of_turns(&rollout, None, voice),
            Mode::Independent | Mode::Rolling | Mode::Synchronous => Self::of(rollout, me, voice),
        }
    }

    /// The turns of cells, as a node of `cell` sees them, or an onlooker.
    pub fn of_turns(rollout: &Rollout, cell: Option<&CellName>, voice: Voice<'a>) -> Option<Self> {
        let turns = rollout.of_turns();
        let me = cell.and_then(|cell| turns.place_of(cell)).unwrap_or(usize::MAX);
        let parts = rollout.of_cells().into_iter();
        let cells = parts.map(|part| Synchronous::new(part, usize::MAX, voice)).collect();
        Some(Self { cells, ..Self::of(turns, me, voice)? })
    }

    fn of(rollout: Rollout, me: usize, voice: Voice<'a>) -> Option<Self> {
        let terms = rollout.proposal.rolling.clone()?;
        if terms.at_once() == 0 || terms.max_failed == 0 || terms.waves.len() > WAVES_MAX {
            return None;
        }
        // A slot that no member could take would only be looked at.
        if terms.slots as usize > rollout.proposal.members.len() {
            return None;
        }
        let waves = waves_of(&rollout, &terms);
        let member = |wave| Member {
            wave,
            waived: false,
            refused: false,
            report: None,
            returned: None,
            is_at_work: false,
        };
        let members: Vec<_> = waves.into_iter().map(member).collect();
        let rank = rollout.rank_at(me);
        let order = Order::of(&rollout, &members);
        let view = View {
            me,
            members,
            rows: vec![Vec::new(); terms.rows() as usize],
            row: 0,
            is_whole: false,
            wave: 0,
            halt: false,
            end: None,
            contradiction: false,
        };
        let remarks = Vec::new();
        let mut this = Self {
            voice,
            rollout,
            terms,
            view,
            refusals: BTreeMap::new(),
            why: None,
            words: BTreeMap::new(),
            outcome: None,
            reports: BTreeMap::new(),
            returns: BTreeMap::new(),
            rank,
            order,
            asks_for_waivers: true,
            expected: 0,
            taken_at: None,
            turn: None,
            remarks,
            unreadable: None,
            cells: Vec::new(),
        };
        this.take_own_row();
        Some(this)
    }

    pub fn limits(&self) -> Limits {
        let undoes = self.terms.on_halt == OnHalt::Rollback;
        Limits { at_once: self.terms.at_once(), max_failed: self.terms.max_failed, undoes }
    }

    /// Whether nothing more is to come.
    pub fn is_settled(&self) -> bool {
        self.view.is_settled(self.limits())
    }

    /// How many members have not begun.
    pub fn waiting(&self) -> usize {
        self.view.members.len().saturating_sub(self.view.rows.iter().map(Vec::len).sum())
    }

    /// Who failed, and why, as it said.
    pub fn failure(&self) -> Option<String> {
        if !self.cells.is_empty() {
            return self.failure_of_a_cell();
        }
        self.reports.values().find_map(|found| match &found.fact {
            Fact::Report(said) if matches!(said.health, Health::Failed | Health::Broken) => {
                Some(with_why(format!("{} failed", said.node), said.why.as_ref()))
            }
            _ => None,
        })
    }

    /// The members that it waits for: who is out of service, and who has what a halt undoes.
    pub fn busy(&self) -> impl Iterator<Item = &NodeName> {
        let open =
            self.view.tickets().map(|(_, ticket)| ticket).filter(|ticket| !self.view.has_finished(*ticket));
        let places: BTreeSet<usize> =
            open.map(|ticket| ticket.owner).chain(self.view.to_undo(self.limits())).collect();
        places.into_iter().filter_map(|place| self.rollout.proposal.members.get(place))
    }

    /// The first of them that has said that neither release is healthy there.
    pub fn broken(&self) -> Option<&NodeName> {
        let is_broken = |node: &&NodeName| {
            let said = self.rollout.place_of(node).map(|place| self.view.members[place]);
            said.is_some_and(|said| said.returned.or(said.report) == Some(Health::Broken))
        };
        self.busy().find(is_broken)
    }

    /// The members of open waves that may begin, and have not.
    pub fn awaited(&self) -> impl Iterator<Item = &NodeName> {
        let owners: BTreeSet<usize> = self.view.tickets().map(|(_, ticket)| ticket.owner).collect();
        let has_ticket = move |place: &usize| owners.contains(place);
        let members = self.rollout.proposal.members.iter().enumerate().zip(&self.view.members);
        members
            .filter(move |((place, _), seen)| {
                seen.wave <= self.view.wave && !self.view.is_left_out(*place) && !has_ticket(place)
            })
            .map(|((_, node), _)| node)
    }

    /// The members of open waves that had their turn, do not run the release, and keep the rest from going on; how it went.
    pub fn spent(&self) -> impl Iterator<Item = (&NodeName, Health)> {
        let members = self.rollout.proposal.members.iter().enumerate().zip(&self.view.members);
        members
            .filter(|((place, _), seen)| seen.wave <= self.view.wave && !self.view.is_left_out(*place))
            .filter_map(|((_, node), seen)| Some((node, seen.report?)))
            .filter(|(_, health)| *health != Health::Good)
    }

    /// Who cannot, and why, as they said; nothing when all can.
    pub fn refusing(&self) -> Option<String> {
        let said: Vec<_> = self.refused().map(|(_, said)| said).take(REFUSALS_TOLD).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// The same, one by one.
    pub fn refused(&self) -> impl Iterator<Item = (&NodeName, String)> {
        let said = self.refusals.iter().filter(|(place, _)| self.view.is_left_out(**place));
        said.map(|(place, why)| {
            let node = &self.rollout.proposal.members[*place];
            (node, format!("{node} refuses: {why}"))
        })
    }

    fn remark(&mut self, text: String) {
        remark(&mut self.remarks, text);
    }

    fn contradict(&mut self, text: &str) {
        self.view.contradiction = true;
        self.remark(format!("{INCONSISTENT}{text}"));
    }

    /// Which files contradict each other, where some do.
    pub fn inconsistency(&self) -> Option<&String> {
        self.remarks.iter().find(|remark| remark.starts_with(INCONSISTENT))
    }
}

fn report_name(is_back: bool) -> &'static str {
    if is_back { "returned" } else { "report" }
}

/// The wave of each member: named ones where they are named, the others by hash up to the percentage; the rest last.
fn waves_of(rollout: &Rollout, terms: &Terms) -> Vec<u32> {
    let members = &rollout.proposal.members;
    let mut wave_of = vec![None; members.len()];
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_cached_key(|place| rollout.order_of(&members[*place]));
    for (wave, setting) in (0_u32..).zip(&terms.waves) {
        let named: BTreeSet<&NodeName> = setting.nodes.iter().collect();
        for (place, node) in members.iter().enumerate() {
            if named.contains(node) {
                wave_of[place].get_or_insert(wave);
            }
        }
        let wanted =
            setting.percent.map_or(0, |percent| (members.len() * usize::from(percent)).div_ceil(100));
        let missing = wanted.saturating_sub(wave_of.iter().flatten().count());
        for place in
            order.iter().filter(|place| wave_of[**place].is_none()).take(missing).copied().collect::<Vec<_>>()
        {
            wave_of[place] = Some(wave);
        }
    }
    let last = u32::try_from(terms.waves.len()).unwrap_or(u32::MAX);
    let wave_of: Vec<u32> = wave_of.into_iter().map(|wave| wave.unwrap_or(last)).collect();
    // A wave of nobody would only be waited for.
    let used: std::collections::BTreeSet<u32> = wave_of.iter().copied().collect();
    let number = |wave: &u32| used.range(..wave).count();
    wave_of.iter().map(|wave| u32::try_from(number(wave)).unwrap_or(u32::MAX)).collect()
}
