//! Slots that are handed on: which one a member looks at, and what it need not read because a ticket tells it.
//!
//! A ticket carries what its owner had seen of all those before it in the row. All of that is for ever: who has a ticket, and
//! how its owner came back. So whoever reads the last ticket of a row knows as much as its owner did, and reads on from there.

use super::super::board::Board;
use super::super::facts::{Before, Fact, Finished};
use super::super::heard::Heard;
use super::super::look::{Found, Look, look};
use super::super::rollout::Rollout;
use super::super::rules::rolling::{At, Member, Ticket};
use super::Rolling;

/// The order of tickets, as long as all come: by waves, within one by hash.
pub(super) struct Order {
    /// The members, by their places, as they come.
    places: Vec<usize>,
    /// Of each member, the how many'th it is.
    turns: Vec<usize>,
}

impl Order {
    pub(super) fn of(rollout: &Rollout, members: &[Member]) -> Self {
        let nodes = &rollout.proposal.members;
        let mut places: Vec<usize> = (0..members.len()).collect();
        places.sort_by_cached_key(|place| (members[*place].wave, rollout.order_of(&nodes[*place])));
        let mut turns = vec![0; members.len()];
        for (turn, place) in places.iter().enumerate() {
            turns[*place] = turn;
        }
        Self { places, turns }
    }

    /// The row in which a member of this place takes its ticket, and the how many'th it is there. An onlooker has none.
    fn turn_of(&self, place: usize, rows: usize) -> Option<(usize, usize)> {
        self.turns.get(place).map(|turn| (turn % rows, turn / rows))
    }
}

impl Rolling<'_> {
    /// Takes the tickets of the row that is this node's by the order.
    pub fn take_own_row(&mut self) {
        let turn = self.order.turn_of(self.view.me, self.view.rows.len());
        self.view.row = turn.and_then(|(row, _)| u32::try_from(row).ok()).unwrap_or(0);
    }

    /// Takes those of the next row: in this one somebody does not come back.
    pub fn take_next_row(&mut self) {
        let rows = u32::try_from(self.view.rows.len()).unwrap_or(1);
        self.view.row = (self.view.row + 1) % rows.max(1);
    }

    /// How many members are to come before this one in its row, as far as was read. In a row that is not its own by the order
    /// it is never the next.
    pub fn ahead(&self) -> usize {
        let rows = self.view.rows.len();
        let Some((own, turn)) = self.order.turn_of(self.view.me, rows) else { return 0 };
        let row = self.view.row as usize;
        let ahead = turn.saturating_sub(self.view.rows.get(row).map_or(0, Vec::len));
        if row == own { ahead } else { ahead.max(1) }
    }

    /// Whether somebody of the same wave is to come after this node in its row: then the wave does not end with this one.
    pub fn is_followed(&self) -> bool {
        let members = &self.view.members;
        let Some((mine, turn)) = members.get(self.view.me).zip(self.order.turns.get(self.view.me)) else {
            return false;
        };
        let later = self.order.places.iter().skip(*turn).step_by(self.view.rows.len().max(1)).skip(1);
        later
            .take_while(|place| members[**place].wave == mine.wave)
            .any(|place| !self.view.is_left_out(*place) && members[*place].report.is_none())
    }

    /// Whether storage was seen to hold what this node reports.
    pub fn has_reported(&self) -> bool {
        self.view.members.get(self.view.me).is_some_and(|mine| mine.report.is_some())
    }

    /// Takes those of a row that is free, if there is one. `false`: there is none.
    pub fn take_free_row(&mut self) -> bool {
        let rows = u32::try_from(self.view.rows.len()).unwrap_or(0);
        let free = (0..rows).find(|row| self.is_free(*row));
        self.view.row = free.unwrap_or(self.view.row);
        free.is_some()
    }

    /// Whether the last owner in this node's row is back in service, or nobody has taken a ticket there.
    pub fn is_row_free(&self) -> bool {
        self.is_free(self.view.row)
    }

    pub(super) fn is_free(&self, row: u32) -> bool {
        let row = self.view.rows.get(row as usize);
        row.is_some_and(|row| row.iter().all(|ticket| self.view.has_finished(*ticket)))
    }

    /// How many tickets of this node's row were read.
    pub fn row_length(&self) -> usize {
        self.view.rows.get(self.view.row as usize).map_or(0, Vec::len)
    }

    /// Reads what has come in a row: of a long one a few tickets, for each carries those before it. `guess`: about how many it has.
    pub(super) fn gallop(&mut self, board: &mut dyn Board, row: u32, guess: usize) -> Heard {
        let length = |this: &Self| this.view.rows[row as usize].len();
        let most = 3 * self.view.members.len();
        // Beyond what was found it looks ever further, until nothing is found there; then ever further back, at most half way.
        let (mut step, mut next, mut end) = (guess.saturating_sub(length(self)).max(1), 1, most);
        let mut back = 1;
        while length(self) < end {
            let known = length(self);
            let number = match end == most {
                true => (known + step - 1).min(most - 1),
                false => ((known + end) / 2).max(end.saturating_sub(back)),
            };
            let Ok(at) = u32::try_from(number).map(|number| At { row, number }) else { break };
            match look(board, &self.rollout.ticket(at)) {
                Look::Found(found) if self.adopt(at, &found) || number == known => {
                    if let Err(why) = self.heed_ticket(at, Look::Found(found)) {
                        return Heard::Away(why);
                    }
                    (step, next) = (next, 2 * next);
                }
                Look::Bad(why) if number == known => {
                    if let Err(why) = self.heed_ticket(at, Look::Bad(why)) {
                        return Heard::Away(why);
                    }
                }
                // A ticket that is not valid does not tell of those before it: it is read again when they are known.
                Look::Absent | Look::Found(_) | Look::Bad(_) => (end, back) = (number, 2 * back),
                Look::Unreachable(why) => return Heard::Away(why),
            }
        }
        Heard::Yes
    }

    /// Takes up what a ticket carries of those before it. `false`: it does not say what it must.
    fn adopt(&mut self, at: At, found: &Found) -> bool {
        let Fact::Ticket(said) = &found.fact else { return false };
        let nobody = self.view.members.len();
        let is_owner = |before: &Before| before.owner.is_none_or(|owner| (owner as usize) < nobody);
        if said.before.len() != at.number as usize || !said.before.iter().all(is_owner) {
            return false;
        }
        let row = &mut self.view.rows[at.row as usize];
        for (number, Before { owner, is_back, end }) in said.before.iter().copied().enumerate() {
            let owner = owner.map_or(nobody, |owner| owner as usize);
            if number >= row.len() {
                let is_waived = owner == nobody && end == Some(Finished::Waived);
                row.push(Ticket { owner, is_back, is_waived });
            }
            match (self.view.members.get_mut(owner), end) {
                (None, _) | (_, None) => {}
                (Some(member), Some(Finished::Waived)) => member.waived = true,
                (Some(member), Some(Finished::Reported(health))) => {
                    (if is_back { &mut member.returned } else { &mut member.report }).get_or_insert(health);
                }
            }
        }
        true
    }

    /// What this node has seen of the tickets before this one in its row.
    pub(super) fn before(&self, at: At) -> Vec<Before> {
        if !self.rollout.has_slots() {
            return Vec::new();
        }
        let row = self.view.rows.get(at.row as usize).into_iter().flatten().take(at.number as usize);
        row.map(|ticket| self.seen_of(*ticket)).collect()
    }

    fn seen_of(&self, ticket: Ticket) -> Before {
        let is_back = ticket.is_back;
        let Some(member) = self.view.members.get(ticket.owner) else {
            return Before { owner: None, is_back, end: ticket.is_waived.then_some(Finished::Waived) };
        };
        let health = if is_back { member.returned } else { member.report };
        let end = match health {
            Some(health) if self.view.has_finished(ticket) && !member.waived => {
                Some(Finished::Reported(health))
            }
            _ if member.waived || ticket.is_waived => Some(Finished::Waived),
            _ => None,
        };
        Before { owner: u32::try_from(ticket.owner).ok(), is_back, end }
    }
}
