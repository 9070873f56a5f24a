//! A member's part in a rollout of cells: its cell takes a turn, and then its nodes agree as in a synchronous rollout.

use super::super::agreement::Error;
use super::{Following, Member, STEPS_MAX};
use crate::coord::NodeName;
use crate::coord::rules::cells::{self, Act as Turn};
use crate::coord::rules::rolling::End;
use crate::coord::rules::synchronous::{Act, Decision, Plan, Stage};

impl Member<'_> {
    /// Whose a ticket is: a node's own, or its cell's, whichever of its nodes makes it.
    pub(super) fn who_takes(&self) -> (NodeName, String) {
        let cell = self.cells.as_ref().and(self.synchronous()).and_then(|follow| follow.rollout.cell.clone());
        match cell {
            Some(cell) => (cell, String::new()),
            None => (self.node(), self.instance()),
        }
    }

    /// In a rollout of cells, before this node's cell has begun: what its turn makes of the next step. `act` is what the nodes of
    /// the cell would do if it were alone.
    pub(super) fn in_turn(&mut self, stage: Stage, act: Act) -> Result<Act, Error> {
        let is_ready = matches!(act, Act::Decide(Decision::Plan(Plan::Commit { .. })));
        let may_begin = stage == Stage::Voting && (is_ready || act == Act::Wait);
        if self.cells.is_none() || !may_begin || !self.may_look_at_turns() {
            return Ok(if self.cells.is_some() && is_ready { Act::Wait } else { act });
        }
        for _ in 0..STEPS_MAX {
            if !self.refresh_rolling() {
                return Ok(Act::Wait);
            }
            let local = self.local_rolling()?;
            let Some(turns) = self.rolling() else { return Ok(Act::Wait) };
            let has_done = match cells::act(&turns.view, is_ready, local, turns.limits()) {
                Turn::Wait => return Ok(Act::Wait),
                Turn::Begin => return Ok(act),
                Turn::CallOff => return Ok(Act::Decide(Decision::Plan(Plan::Abort))),
                Turn::Over => return Ok(Act::Enter(Stage::GoneBack)),
                Turn::Take(at) => self.take(at, false),
                Turn::Decide(decision) => self.decide_rolling(decision),
            };
            if !has_done {
                break;
            }
        }
        Ok(Act::Wait)
    }

    /// The more cells wait, the less often each looks; and of its nodes a few.
    fn may_look_at_turns(&mut self) -> bool {
        let (now, pause) = (self.steady(), self.pause_rolling());
        let pause = crate::coord::rules::Ms::try_from(pause.as_millis()).unwrap_or(0);
        let is_due = self.turns_seen.is_none_or(|last| now - last >= pause);
        if is_due {
            self.turns_seen = Some(now);
        }
        is_due
    }

    /// Between updates, where this node's cell has done its part, or was not reached: puts what is due, and says whether the
    /// rollout has ended for all cells. Nothing: this is no rollout of cells.
    pub(super) fn has_ended_for_all_cells(&mut self) -> Result<Option<bool>, Error> {
        if self.cells.is_none() {
            return Ok(None);
        }
        self.looks_in = true;
        let ended = self.look_at_turns();
        self.looks_in = false;
        ended.map(Some)
    }

    fn look_at_turns(&mut self) -> Result<bool, Error> {
        for _ in 0..STEPS_MAX {
            if !self.refresh_rolling() {
                return Ok(false);
            }
            let local = self.local_rolling()?;
            let has_plan = self.synchronous().is_some_and(|follow| follow.view.plan.is_some());
            let Some(turns) = self.rolling() else { return Ok(false) };
            match cells::after(&turns.view, has_plan, local, turns.limits()) {
                Turn::Decide(decision) if self.decide_rolling(decision) => {}
                Turn::CallOff => {
                    self.enter_synchronous(Stage::Left)?;
                    self.see_off()?;
                    break;
                }
                _ => break,
            }
        }
        Ok(self.rolling().is_some_and(|turns| turns.is_settled()))
    }

    /// Whether the rollout of cells has ended, or nobody begins in it any more, and this node's cell has not.
    pub(super) fn is_over_for_this_cell(&mut self) -> bool {
        self.cells.is_some()
            && self.refresh_rolling()
            && self.rolling().is_some_and(|turns| {
                let view = &turns.view;
                (view.end.is_some() || view.halt) && view.ticket_of(view.me, false).is_none()
            })
    }

    /// How the rollout of cells stands, for a node whose cell it has not reached.
    pub(super) fn said_of_turns(&self) -> Option<String> {
        let turns = self.cells.as_ref()?;
        let Some(Following::Synchronous(part)) = &self.following else { return None };
        let (number, why) = (turns.rollout.number, turns.why.clone().unwrap_or_default());
        let is_reached = part.view.plan.is_some() || turns.view.ticket_of(turns.view.me, false).is_some();
        match turns.view.end {
            _ if is_reached => None,
            Some(End::Keep) => {
                Some(format!("rollout {number} was kept without this cell: the next run follows"))
            }
            Some(End::Partial) => Some(format!("the time of rollout {number} was over")),
            Some(End::Void) => Some(format!("rollout {number} was ended by an operator: {why}")),
            Some(End::Halted) => Some(format!("rollout {number} was stopped: {why}")),
            None if turns.view.halt => Some(format!("rollout {number} was stopped: {why}")),
            None => None,
        }
    }

    /// What a node waits for whose cell has not begun.
    pub(super) fn waits_for_turn(&self) -> Option<String> {
        let turns = self.cells.as_ref()?;
        let part = self.synchronous().filter(|part| part.view.plan.is_none())?;
        let (number, view) = (turns.rollout.number, &turns.view);
        let cell = part.rollout.cell.as_ref()?;
        if let Some(moment) = turns.rollout.begins_after(self.clock.wall()) {
            return Some(format!("rollout {number}: nobody begins before {moment:.0}"));
        }
        let wave = view.members.get(view.me).map_or(0, |member| member.wave);
        if wave > view.wave {
            return Some(format!("rollout {number}: wave {wave} of cell {cell}, which is not open yet"));
        }
        let missing: Vec<_> =
            part.who(|member| member.vote.is_none()).iter().map(ToString::to_string).collect();
        Some(if missing.is_empty() {
            let at_once = turns.terms.at_once();
            format!("rollout {number}: a turn for cell {cell} ({} of {at_once} are taken)", view.unfinished())
        } else {
            format!("rollout {number}: the other nodes of cell {cell} to be ready")
        })
    }
}
