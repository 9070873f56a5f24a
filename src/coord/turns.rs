//! Who takes turns in a rollout that is proposed: in which cell each node is, in which wave, and how many slots there are.

use std::collections::{BTreeMap, BTreeSet};

use super::alive::{self, Alive};
use super::board::Board;
use super::facts::{self, FORMAT, Listed as Entry, Members, Proposal, Seconds};
use super::name::{CellName, NodeName};
use super::operate::{Error, Operator, refused, some_of};
use super::settings::{Mode, Settings, WaveSetting};

/// What nodes said last in their heartbeats: read once for a proposal.
pub(super) struct Said {
    said: BTreeMap<NodeName, Alive>,
    /// Those that read another format.
    others: Vec<(NodeName, u32)>,
}

impl Said {
    pub(super) fn read(board: &mut dyn Board, nodes: &[NodeName]) -> Self {
        let mut this = Self { said: BTreeMap::new(), others: Vec::new() };
        alive::read_each(board, nodes, &mut |node, said| match said {
            Ok(Some(said)) => {
                this.said.insert(node.clone(), said.brief());
            }
            Ok(None) => {}
            Err(format) => this.others.push((node.clone(), format)),
        });
        this
    }

    /// A fleet moves from one format to the next between rollouts, and not in the middle of one.
    pub(super) fn ensure_same_format(&self) -> Result<(), Error> {
        if self.others.is_empty() {
            return Ok(());
        }
        let others: Vec<String> =
            self.others.iter().map(|(node, format)| format!("{node} (format {format})")).collect();
        refused(format!(
            "this cutover writes format {FORMAT}, and these members do not read it: {}; bring cutover itself up to date \
             there first",
            some_of(&others)
        ))
    }

    /// The cell of each listed node, as an operator has put it, or as it says itself; of those that have one.
    fn cells(&self, list: &Members) -> BTreeMap<NodeName, CellName> {
        let said = |node: &NodeName| self.said.get(node).and_then(|said| said.cell.clone());
        let cell = |entry: &Entry| entry.cell.clone().or_else(|| said(&entry.node));
        list.members.iter().filter_map(|entry| Some((entry.node.clone(), cell(entry)?))).collect()
    }

    /// The cells of these members, each of which has all its nodes among them.
    pub(super) fn whole_cells(
        &self,
        list: &Members,
        members: &[NodeName],
    ) -> Result<BTreeMap<NodeName, CellName>, Error> {
        let all = self.cells(list);
        let without: Vec<_> = members.iter().filter(|node| !all.contains_key(*node)).collect();
        if let Some(first) = without.first() {
            return refused(format!(
                "in no cell: {}; set `[fleet] cell` there, or put it in one: `cutover fleet members --cell {first}=CELL`",
                some_of(&without)
            ));
        }
        let old: Vec<_> = members.iter().filter(|node| !self.knows(node, alive::CELLS)).collect();
        if !old.is_empty() {
            return refused(format!(
                "the cutover of these members does not know `mode = \"cells\"`: {}; bring cutover itself up to date there first",
                some_of(&old)
            ));
        }
        let members: BTreeSet<&NodeName> = members.iter().collect();
        let wanted: BTreeSet<&CellName> = members.iter().filter_map(|node| all.get(*node)).collect();
        let left: Vec<_> =
            all.iter().filter(|(node, cell)| wanted.contains(cell) && !members.contains(node)).collect();
        if let Some((_, cell)) = left.first() {
            let names: Vec<_> =
                left.iter().filter(|(_, other)| other == cell).map(|(node, _)| node).collect();
            return refused(format!(
                "cell {cell} moves as a whole, and these of its nodes would be left out: {}; `cutover fleet waive` goes on \
                 without a node",
                some_of(&names)
            ));
        }
        Ok(all.into_iter().filter(|(node, _)| members.contains(node)).collect())
    }

    /// Gives each of those who may be out of service at once a slot of its own, that is handed on. Not to cells; nor where an
    /// older cutover takes part, which knows one row of tickets; nor where facts are signed: there each member reads them all,
    /// for it believes nobody what it has not seen.
    pub(super) fn with_slots(&self, mut proposal: Proposal) -> Proposal {
        let is_for_slots = proposal.mode == Mode::Rolling
            && proposal.keys.is_empty()
            && proposal.members.iter().all(|node| self.knows(node, alive::SLOTS));
        let members = u32::try_from(proposal.members.len()).unwrap_or(u32::MAX);
        if let Some(terms) = proposal.rolling.as_mut().filter(|_| is_for_slots) {
            (terms.at_once, terms.slots) = (0, terms.at_once.min(members));
        }
        proposal
    }

    /// Whether the cutover of a node knows such a thing; one that has not been heard of may.
    pub(super) fn knows(&self, node: &NodeName, what: &str) -> bool {
        self.said.get(node).is_none_or(|said| said.knows.iter().any(|known| known == what))
    }
}

impl Operator<'_> {
    /// The cell of each listed node, as an operator has put it, or as it says itself; of those that have one.
    pub fn cells(&mut self, list: &Members) -> BTreeMap<NodeName, CellName> {
        let is_asked = |entry: &&Entry| entry.cell.is_none();
        let nodes: Vec<NodeName> =
            list.members.iter().filter(is_asked).map(|entry| entry.node.clone()).collect();
        Said::read(self.board, &nodes).cells(list)
    }
}

/// The turns of a proposal, by these settings.
pub(super) fn turns(
    settings: &Settings,
    list: &Members,
    cells: &BTreeMap<NodeName, CellName>,
) -> facts::Rolling {
    facts::Rolling {
        at_once: settings.at_once,
        slots: 0,
        waves: named(&settings.waves, settings.mode, &list.members, cells),
        soak: Seconds::new(settings.soak.0),
        max_failed: settings.max_failed,
        on_halt: settings.on_halt,
    }
}

/// Groups become names, as of this list: all nodes must read the same. Of cells a wave names those in which it has a node.
pub(super) fn named(
    waves: &[WaveSetting],
    mode: Mode,
    listed: &[Entry],
    cells: &BTreeMap<NodeName, CellName>,
) -> Vec<WaveSetting> {
    let resolved = |wave: &WaveSetting| {
        let in_groups = |entry: &&Entry| entry.groups.iter().any(|group| wave.groups.contains(group));
        let grouped = listed.iter().filter(in_groups).map(|entry| entry.node.clone());
        let named = wave.nodes.iter().cloned().chain(grouped);
        let nodes: Vec<NodeName> = match mode {
            Mode::Cells => {
                let of: BTreeSet<_> = named.filter_map(|node| cells.get(&node).cloned()).collect();
                of.into_iter().collect()
            }
            Mode::Independent | Mode::Rolling | Mode::Synchronous => named.collect(),
        };
        WaveSetting { nodes, groups: Vec::new(), percent: wave.percent }
    };
    waves.iter().map(resolved).collect()
}
