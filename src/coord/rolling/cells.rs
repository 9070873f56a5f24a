//! The cells of a rollout, taken for its members: how each stands shows in its own gates.

use super::super::board::{Board, Read};
use super::super::heard::Heard;
use super::super::name::NodeName;
use super::super::rules::Health;
use super::super::rules::cells::Cell;
use super::super::rules::gate::{self, Gate};
use super::super::rules::synchronous::Plan;
use super::super::synchronous::{Synchronous, What};
use super::Rolling;

impl Rolling<'_> {
    /// Reads how the cells stand that have a ticket, or of which it was seen that they have begun.
    pub(super) fn read_cells(&mut self, board: &mut dyn Board) -> Heard {
        for place in 0..self.cells.len() {
            let member = self.view.members[place];
            let has_begun = member.is_at_work || self.view.ticket_of(place, false).is_some();
            if member.report.is_some() || member.waived || !has_begun {
                continue;
            }
            if let Heard::Away(why) = self.read_cell(board, place) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Reads how one cell stands.
    fn read_cell(&mut self, board: &mut dyn Board, place: usize) -> Heard {
        let cell = &mut self.cells[place];
        if let Heard::Away(why) = cell.read_gates(board) {
            return Heard::Away(why);
        }
        let ended = gate::ended(&cell.view);
        if ended == Some(gate::Ended::RolledBack)
            && let Heard::Away(why) = cell.scan_all(board, &[What::Report, What::Closed])
        {
            return Heard::Away(why);
        }
        let said = Cell {
            ended,
            is_closed: cell.view.all(|member| member.closed),
            has_failed: cell.view.members.iter().any(|member| member.report == Some(Health::Failed)),
        };
        let (name, remarks) = (self.rollout.proposal.members[place].clone(), cell.remarks.clone());
        let (has_plan, why) = (matches!(cell.view.plan, Some(Plan::Commit { .. })), cell.why.clone());
        let has_ticket = self.view.ticket_of(place, false).is_some();
        let member = &mut self.view.members[place];
        member.is_at_work |= has_plan;
        match said.report() {
            // Before its turn: one of its nodes has said that it cannot.
            Some(Health::Left) if !has_ticket && !has_plan => {
                member.refused = true;
                self.refusals.insert(place, why.unwrap_or_default());
            }
            report => member.report = report,
        }
        for remark in remarks {
            self.remark(format!("cell {name}: {remark}"));
        }
        Heard::Yes
    }

    /// Takes up what a name in the rollout's directory says of a cell: that one of its nodes is waived, or that it has begun.
    pub(super) fn heed_name_of_cells(&mut self, board: &mut dyn Board, name: &str) -> Heard {
        if let Some(node) = name.strip_prefix("waive.").and_then(|node| node.parse().ok()) {
            return self.read_waiver_in_a_cell(board, &node);
        }
        let begun = name.strip_prefix(Gate::Plan.name()).and_then(|rest| rest.strip_prefix('.'));
        let place = begun.and_then(|cell| self.rollout.place_of(&cell.parse().ok()?));
        let Some(place) = place else { return Heard::Yes };
        let member = self.view.members[place];
        if member.refused || member.report.is_some() || self.view.ticket_of(place, false).is_some() {
            return Heard::Yes;
        }
        self.read_cell(board, place)
    }

    fn read_waiver_in_a_cell(&mut self, board: &mut dyn Board, node: &NodeName) -> Heard {
        let found = self.cells.iter_mut().enumerate().find_map(|(place, cell)| {
            let within = cell.rollout.place_of(node)?;
            Some((place, within, cell))
        });
        let Some((place, within, cell)) = found else { return Heard::Yes };
        // It may have been seen when the facts of its cell were read.
        if !cell.view.members[within].waived
            && let Heard::Away(why) = cell.look_for_waiver(board, within)
        {
            return Heard::Away(why);
        }
        if !cell.view.members[within].waived {
            return Heard::Yes;
        }
        self.view.members[place].waived = cell.view.members.iter().all(|member| member.waived);
        let word = format!("waive.{node}");
        if !self.words.contains_key(&word)
            && let Read::Bytes(text) = board.read(&self.rollout.decisions().waive(node))
        {
            self.words.insert(word, text);
        }
        Heard::Yes
    }

    /// The cells that hold a place.
    pub fn at_work(&self) -> impl Iterator<Item = &NodeName> {
        let is_out = |place: &usize| {
            let member = self.view.members[*place];
            let has_ticket = self.view.ticket_of(*place, false).is_some();
            (has_ticket || member.is_at_work) && member.report.is_none() && !member.waived
        };
        (0..self.cells.len()).filter(is_out).map(|place| &self.rollout.proposal.members[place])
    }

    /// Which cell went back, and why.
    pub(super) fn failure_of_a_cell(&self) -> Option<String> {
        let failed = |place: &usize| self.view.members[*place].report == Some(Health::Failed);
        let place = (0..self.cells.len()).find(failed)?;
        let cell: &Synchronous<'_> = &self.cells[place];
        let why = cell.failure().or_else(|| cell.why.clone()).unwrap_or_default();
        Some(format!("cell {} went back: {why}", self.rollout.proposal.members[place]))
    }
}
