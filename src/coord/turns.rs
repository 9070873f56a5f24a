//! Who takes turns in a rollout that is proposed: in which cell each node is, in which wave, and how many slots there are.

use std::collections::{BTreeMap, BTreeSet};

use super::alive;
use super::facts::{self, Listed as Entry, Members, Proposal, Seconds};
use super::name::{CellName, NodeName};
use super::operate::{Error, Operator, refused};
use super::settings::{Mode, Settings, WaveSetting};

impl Operator<'_> {
    /// The cell of each listed node, as an operator has put it, or as it says itself; of those that have one.
    pub fn cells(&mut self, list: &Members) -> BTreeMap<NodeName, CellName> {
        let mut cells = BTreeMap::new();
        for entry in &list.members {
            let said = || alive::read(self.board, &entry.node).and_then(|said| said.cell);
            if let Some(cell) = entry.cell.clone().or_else(said) {
                cells.insert(entry.node.clone(), cell);
            }
        }
        cells
    }

    /// The cells of these members, each of which has all its nodes among them.
    pub(super) fn whole_cells(
        &mut self,
        list: &Members,
        members: &[NodeName],
    ) -> Result<BTreeMap<NodeName, CellName>, Error> {
        let all = self.cells(list);
        let without: Vec<_> = members.iter().filter(|node| !all.contains_key(*node)).collect();
        if let Some(first) = without.first() {
            let names: Vec<_> = without.iter().map(ToString::to_string).collect();
            return refused(format!(
                "in no cell: {}; set `[fleet] cell` there, or put it in one: `cutover fleet members --cell {first}=CELL`",
                names.join(", ")
            ));
        }
        let old: Vec<_> =
            members.iter().filter(|node| !self.knows(node, alive::CELLS)).map(ToString::to_string).collect();
        if !old.is_empty() {
            return refused(format!(
                "the cutover of these members does not know `mode = \"cells\"`: {}; bring cutover itself up to date there first",
                old.join(", ")
            ));
        }
        let is_wanted = |cell: &CellName| members.iter().any(|node| all.get(node) == Some(cell));
        let left: Vec<_> =
            all.iter().filter(|(node, cell)| is_wanted(cell) && !members.contains(node)).collect();
        if let Some((_, cell)) = left.first() {
            let names: Vec<_> =
                left.iter().filter(|(_, other)| other == cell).map(|(node, _)| node.to_string()).collect();
            return refused(format!(
                "cell {cell} moves as a whole, and these of its nodes would be left out: {}; `cutover fleet waive` goes on \
                 without a node",
                names.join(", ")
            ));
        }
        Ok(all.into_iter().filter(|(node, _)| members.contains(node)).collect())
    }

    /// Gives each of those who may be out of service at once a slot of its own, that is handed on. Not to cells; nor where an
    /// older cutover takes part, which knows one row of tickets; nor where facts are signed: there each member reads them all,
    /// for it believes nobody what it has not seen.
    pub(super) fn with_slots(&mut self, mut proposal: Proposal) -> Proposal {
        let is_for_slots = proposal.mode == Mode::Rolling
            && proposal.keys.is_empty()
            && proposal.members.iter().all(|node| self.knows(node, alive::SLOTS));
        let members = u32::try_from(proposal.members.len()).unwrap_or(u32::MAX);
        if let Some(terms) = proposal.rolling.as_mut().filter(|_| is_for_slots) {
            (terms.at_once, terms.slots) = (0, terms.at_once.min(members));
        }
        proposal
    }

    /// Whether the cutover of a member knows such a thing; one that has not been heard of may.
    fn knows(&mut self, node: &NodeName, what: &str) -> bool {
        alive::read(self.board, node).is_none_or(|said| said.knows.iter().any(|known| known == what))
    }
}

/// Groups become names, as of this list: all nodes must read the same. Of cells a wave names those in which it has a node.
pub(super) fn turns(
    settings: &Settings,
    list: &Members,
    cells: &BTreeMap<NodeName, CellName>,
) -> facts::Rolling {
    let resolved = |wave: &WaveSetting| {
        let in_groups = |entry: &&Entry| entry.groups.iter().any(|group| wave.groups.contains(group));
        let grouped = list.members.iter().filter(in_groups).map(|entry| entry.node.clone());
        let named = wave.nodes.iter().cloned().chain(grouped);
        let nodes: Vec<NodeName> = match settings.mode {
            Mode::Cells => {
                let of: BTreeSet<_> = named.filter_map(|node| cells.get(&node).cloned()).collect();
                of.into_iter().collect()
            }
            Mode::Independent | Mode::Rolling | Mode::Synchronous => named.collect(),
        };
        WaveSetting { nodes, groups: Vec::new(), percent: wave.percent }
    };
    facts::Rolling {
        at_once: settings.at_once,
        slots: 0,
        waves: settings.waves.iter().map(resolved).collect(),
        soak: Seconds::new(settings.soak.0),
        max_failed: settings.max_failed,
        on_halt: settings.on_halt,
    }
}
