//! A cell at a time: inside a cell all switch at one instant or none ([`super::synchronous`]), and cells take turns by tickets
//! ([`super::rolling`]).
//!
//! A ticket is the cell's, whichever of its nodes has made it, so nobody has to remember it: the name of the cell stands in it.
//! A cell is out of service from its ticket on until its own gates say that nobody has left, or that all keep; or, when it goes
//! back, until all its nodes have said what they run in the end. All of these are for ever, as the proof of tickets needs it.

use super::rolling::{At, Decision, Limits, Local, View, decide};
use super::{Health, gate};

/// What is known of a cell whose gates were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// How its own part ended, by its gates.
    pub ended: Option<gate::Ended>,
    /// Whether all its nodes, but those that are waived, have said what they run in the end.
    pub is_closed: bool,
    /// Whether the release failed on one of them.
    pub has_failed: bool,
}

impl Cell {
    /// What it comes to for the other cells: nothing while it is out of service, or has not begun.
    pub fn report(self) -> Option<Health> {
        match self.ended? {
            gate::Ended::Kept => Some(Health::Good),
            // Nobody had stopped anything.
            gate::Ended::Aborted | gate::Ended::Cancelled => Some(Health::Left),
            gate::Ended::RolledBack if !self.is_closed => None,
            gate::Ended::RolledBack if self.has_failed => Some(Health::Failed),
            gate::Ended::RolledBack => Some(Health::Left),
        }
    }
}

/// The next step of a node whose cell has not begun, or is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Wait,
    /// Make this ticket for the cell; whose it is shows when it was read back.
    Take(At),
    /// Make this decision, if nobody has.
    Decide(Decision),
    /// It is the cell's turn: its nodes agree on an instant.
    Begin,
    /// The cell has a turn that it must not use any more: its nodes decide that nobody switches, which ends it.
    CallOff,
    /// Not reached by this rollout.
    Over,
}

/// What a node does whose cell has not begun. `view` has the cells as members; `is_ready`: all nodes of this cell have voted yes.
pub fn act(view: &View, is_ready: bool, local: Local, limits: Limits) -> Act {
    let is_off = view.end.is_some() || view.halt || view.contradiction;
    if let Some(at) = view.ticket_of(view.me, false) {
        let is_waived = view.ticket(at).is_none_or(|ticket| ticket.is_waived);
        return match is_ready {
            _ if is_off || is_waived => Act::CallOff,
            true => Act::Begin,
            false => Act::Wait,
        };
    }
    if is_off {
        return Act::Over;
    }
    if let Some(decision) = decide(view, local, limits) {
        return Act::Decide(decision);
    }
    let Some(mine) = view.members.get(view.me).filter(|cell| !cell.waived) else { return Act::Wait };
    let is_time = !local.is_early && !local.is_expired;
    match view.place(limits) {
        Some(at) if is_ready && mine.wave <= view.wave && is_time && !mine.is_at_work => Act::Take(at),
        _ => Act::Wait,
    }
}

/// What a node does that is done: it decides what is due. `has_plan`: it knows of a plan of its cell.
pub fn after(view: &View, has_plan: bool, local: Local, limits: Limits) -> Act {
    // A ticket whose making had been given up for lost: it came when nobody of the cell waited for it any more.
    if !has_plan && view.ticket_of(view.me, false).is_some() {
        return Act::CallOff;
    }
    decide(view, local, limits).map_or(Act::Wait, Act::Decide)
}
