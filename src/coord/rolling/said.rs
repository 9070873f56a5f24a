//! What is said of a rolling rollout beside its tickets and reports: waivers, refusals, and the word that ends it.

use super::super::board::{Board, Read};
use super::super::facts::{Fact, names};
use super::super::heard::{Heard, is_waived};
use super::super::look::{Found, Look, look_signed};
use super::super::rollout;
use super::super::rules::rolling::{At, End};
use super::super::standing::removed_end;
use super::Rolling;

impl Rolling<'_> {
    /// Also what operators have said of members and tickets, and of it all: a listing, so not each time.
    pub fn read_waivers(&mut self, board: &mut dyn Board) -> Heard {
        if let Heard::Away(why) = self.ensure_is_proposed(board) {
            return Heard::Away(why);
        }
        let names = match rollout::names_of(board, &self.rollout) {
            Ok(names) => names,
            Err(why) => {
                let number = self.rollout.number;
                return Heard::Away(format!(
                    "{why}; if its tickets are lost, `cutover fleet void {number}` ends the rollout"
                ));
            }
        };
        for name in names {
            if let Heard::Away(why) = self.heed_name(board, &name) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Takes up what one name in the rollout's directory says: a waiver, a refusal, that an operator has ended it, that a cell has
    /// begun. The others are read where they are looked for.
    pub(super) fn heed_name(&mut self, board: &mut dyn Board, name: &str) -> Heard {
        if name == "void" {
            return self.read_void(board);
        }
        if let Some(at) = name.strip_prefix("waive.").and_then(ticket_at) {
            return self.read_ticket_waiver(board, at);
        }
        if !self.cells.is_empty() {
            return self.heed_name_of_cells(board, name);
        }
        let place_after = |prefix: &str| self.rollout.place_of(&name.strip_prefix(prefix)?.parse().ok()?);
        match (place_after("waive."), place_after("refused.")) {
            (Some(place), _) => self.read_waiver(board, place),
            (None, Some(place)) => self.read_refusal(board, place),
            (None, None) => Heard::Yes,
        }
    }

    /// Sees that the proposal is still there. Storage that has lost it has lost tickets too: then nobody takes one.
    pub(super) fn ensure_is_proposed(&mut self, board: &mut dyn Board) -> Heard {
        match removed_end(board, &self.rollout, self.voice.trust) {
            Ok(None) => {}
            Ok(Some(ended)) => self.end_as(&ended, "its facts were removed since"),
            Err(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Looks whether an operator has ended it, whatever stands there.
    pub fn read_void(&mut self, board: &mut dyn Board) -> Heard {
        match look_signed(board, &self.rollout.decisions().gate("void"), self.voice.trust) {
            Look::Found(Found { fact: Fact::Void(said), .. }) if said.proposal == self.rollout.digest => {
                self.end(End::Void, &said.why);
            }
            Look::Found(_) => self.remark("`void` belongs to another proposal".into()),
            Look::Absent => {}
            Look::Bad(why) => self.remark(format!("`void` is not valid: {why}")),
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Takes up how it ended, by a word that stands beside its outcome.
    pub fn end(&mut self, end: End, why: &str) {
        self.view.end = Some(end);
        self.why = Some(why.to_owned());
    }

    /// The same, by the word that a removed rollout left.
    pub fn end_as(&mut self, ended: &str, why: &str) {
        let end = match ended {
            "kept" => End::Keep,
            "partial" => End::Partial,
            "halted" => End::Halted,
            _ => End::Void,
        };
        self.end(end, why);
    }

    pub(super) fn read_ticket_waiver(&mut self, board: &mut dyn Board, at: At) -> Heard {
        let row = self.view.rows.get_mut(at.row as usize);
        let Some(ticket) =
            row.and_then(|row| row.get_mut(at.number as usize)).filter(|ticket| !ticket.is_waived)
        else {
            return Heard::Yes;
        };
        match look_signed(board, &self.rollout.waive_ticket(at), self.voice.trust) {
            Look::Found(Found { fact: Fact::WaiveTicket(said), text, .. })
                if (said.row, said.ticket) == (at.row, at.number) && said.proposal == self.rollout.digest =>
            {
                ticket.is_waived = true;
                let name = self.rollout.waive_ticket(at);
                let name = name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name);
                self.words.insert(name.to_owned(), text);
            }
            Look::Found(_) | Look::Bad(_) => self.remark(format!("the waiver of ticket {at} is not valid")),
            Look::Absent => {}
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    pub(super) fn read_waiver(&mut self, board: &mut dyn Board, place: usize) -> Heard {
        match is_waived(board, &self.rollout, &self.voice, place, &mut self.remarks) {
            Ok(true) => {
                self.view.members[place].waived = true;
                let node = &self.rollout.proposal.members[place];
                if let Read::Bytes(text) = board.read(&self.rollout.decisions().waive(node)) {
                    self.words.insert(format!("waive.{node}"), text);
                }
            }
            Ok(false) => {}
            Err(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    fn read_refusal(&mut self, board: &mut dyn Board, place: usize) -> Heard {
        if self.view.members[place].refused {
            return Heard::Yes;
        }
        let node = self.rollout.proposal.members[place].clone();
        let looked =
            self.voice.look_at(board, &self.rollout, place, &self.rollout.decisions().refused(&node));
        self.heed_refusal(place, looked)
    }

    pub(super) fn heed_refusal(&mut self, place: usize, looked: Look<Found>) -> Heard {
        let node = self.rollout.proposal.members[place].clone();
        match looked {
            Look::Found(Found { fact: Fact::Refused(said), .. })
                if said.node == node
                    && said.proposal == self.rollout.digest
                    && self.rollout.is_of(&node, &said.instance) =>
            {
                self.view.members[place].refused = true;
                self.refusals.insert(place, said.why);
            }
            Look::Found(_) | Look::Bad(_) => self.remark(format!("{node}'s refusal is not valid")),
            Look::Absent => {}
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }
}

/// The ticket of this name in the rollout's directory.
fn ticket_at(name: &str) -> Option<At> {
    names::ticket_of(name).map(|(row, number)| At { row: row.unwrap_or(0), number })
}
