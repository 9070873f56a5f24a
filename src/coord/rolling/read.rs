//! What stands on the board of a rolling rollout, taken into the view of whoever reads it.

use super::super::board::{Board, Read};
use super::super::facts::{Fact, names};
use super::super::heard::{Heard, is_waived};
use super::super::look::{Found, Look, look, look_signed};
use super::super::rollout;
use super::super::rules::rolling::{End, Ticket};
use super::super::standing::removed_end;
use super::super::voice::says_yes;
use super::{Rolling, report_name};

impl Rolling<'_> {
    /// Reads what may have come since.
    pub fn read(&mut self, board: &mut dyn Board) -> Heard {
        // What says "yes" under signed facts is believed after the facts that it rests on.
        let steps: &[fn(&mut Self, &mut dyn Board) -> Heard] = if self.rollout.is_signed() {
            &[Self::read_tickets, Self::read_reports, Self::read_waivers, Self::read_gates]
        } else {
            &[Self::read_gates, Self::read_tickets, Self::read_reports]
        };
        for step in steps {
            if let Heard::Away(why) = step(self, board) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

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
            if name == "void"
                && let Heard::Away(why) = self.read_void(board)
            {
                return Heard::Away(why);
            }
            if let Some(number) = name.strip_prefix("waive.t.").and_then(|number| number.parse().ok())
                && let Heard::Away(why) = self.read_ticket_waiver(board, number)
            {
                return Heard::Away(why);
            }
            if !self.cells.is_empty() {
                if let Heard::Away(why) = self.heed_name_of_cells(board, &name) {
                    return Heard::Away(why);
                }
                continue;
            }
            let place_after = |prefix: &str| self.rollout.place_of(&name.strip_prefix(prefix)?.parse().ok()?);
            let heard = match (place_after("waive."), place_after("refused.")) {
                (Some(place), _) => self.read_waiver(board, place),
                (None, Some(place)) => self.read_refusal(board, place),
                (None, None) => continue,
            };
            if let Heard::Away(why) = heard {
                return Heard::Away(why);
            }
        }
        Heard::Yes
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

    /// Looks for the outcome alone.
    pub fn read_end(&mut self, board: &mut dyn Board) -> Heard {
        self.unreadable = None;
        let looked = look(board, &self.rollout.decisions().gate("outcome"));
        self.heed("outcome", looked)
    }

    pub(super) fn read_ticket_waiver(&mut self, board: &mut dyn Board, number: u32) -> Heard {
        let Some(ticket) = self.view.tickets.get_mut(number as usize).filter(|ticket| !ticket.is_waived)
        else {
            return Heard::Yes;
        };
        match look_signed(board, &self.rollout.decisions().waive_ticket(number), self.voice.trust) {
            Look::Found(Found { fact: Fact::WaiveTicket(said), text, .. })
                if said.ticket == number && said.proposal == self.rollout.digest =>
            {
                ticket.is_waived = true;
                self.words.insert(format!("waive.t.{number:04}"), text);
            }
            Look::Found(_) | Look::Bad(_) => {
                self.remark(format!("the waiver of ticket {number} is not valid"))
            }
            Look::Absent => {}
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    fn read_gates(&mut self, board: &mut dyn Board) -> Heard {
        self.unreadable = None;
        for gate in ["outcome", "halt"] {
            if self.view.end.is_some() || (gate == "halt" && self.view.halt) {
                continue;
            }
            let looked = look(board, &self.rollout.decisions().gate(gate));
            if let Heard::Away(why) = self.heed(gate, looked) {
                return Heard::Away(why);
            }
        }
        while self.view.members.iter().any(|member| member.wave > self.view.wave) {
            let name = self.rollout.decisions().wave(self.view.wave + 1);
            match look(board, &name) {
                Look::Found(Found { fact: Fact::Wave(said), .. })
                    if said.wave == self.view.wave + 1 && said.proposal == self.rollout.digest =>
                {
                    if self.rollout.is_signed() && !self.rests_on_facts(&Fact::Wave(said)) {
                        break;
                    }
                    self.view.wave += 1;
                }
                Look::Found(_) => {
                    self.contradict("a wave belongs to another proposal");
                    break;
                }
                Look::Absent | Look::Bad(_) => break,
                Look::Unreachable(why) => return Heard::Away(why),
            }
        }
        Heard::Yes
    }

    pub(super) fn heed(&mut self, gate: &str, looked: Look<Found>) -> Heard {
        let digest = self.rollout.digest;
        match self.voice.admit(&self.rollout, looked) {
            Look::Found(found) if self.rollout.is_signed() && !self.rests_on_facts(&found.fact) => {
                self.remark(format!("`{gate}` was decided by facts that are not here"));
            }
            Look::Found(Found { fact: Fact::Outcome(said), text, .. }) if said.answers == digest => {
                self.view.end = Some(said.decision.end());
                self.why = Some(said.why);
                self.outcome = Some(text);
            }
            Look::Found(Found { fact: Fact::Halt(said), text, .. }) if said.proposal == digest => {
                self.view.halt = true;
                self.words.insert(gate.to_owned(), text);
                self.why = Some(said.why);
            }
            Look::Found(Found { fact: Fact::Wave(said), .. }) if said.proposal == digest => {
                self.view.wave = self.view.wave.max(said.wave);
            }
            Look::Found(_) => self.contradict(&format!("`{gate}` belongs to another proposal")),
            Look::Absent => {}
            Look::Bad(why) => {
                let text = format!("`{gate}` is not valid: {why}");
                self.unreadable = Some(text.clone());
                self.remark(text);
            }
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Whether what says "yes" says what this view shows.
    fn rests_on_facts(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Wave(said) => self.view.are_good(said.wave),
            said => !says_yes(said) || self.view.are_good(u32::MAX),
        }
    }

    fn read_tickets(&mut self, board: &mut dyn Board) -> Heard {
        // One that said nothing may have been read badly.
        let nobody = self.view.members.len();
        for place in 0..self.view.tickets.len() {
            let Ok(number) = u32::try_from(place) else { break };
            if self.view.tickets[place].owner != nobody {
                continue;
            }
            if let Look::Found(found) = look(board, &self.rollout.decisions().ticket(number)) {
                self.view.tickets[place] = self.owner_of(number, found);
            }
        }
        // A member has two tickets at the most; a few more may be spoilt.
        while self.view.tickets.len() < 3 * self.view.members.len() {
            let Ok(number) = u32::try_from(self.view.tickets.len()) else { break };
            let looked = look(board, &self.rollout.decisions().ticket(number));
            match self.heed_ticket(number, looked) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => return Heard::Away(why),
            }
        }
        Heard::Yes
    }

    /// Whether there is a ticket. One that says nothing is nobody's, and its place stays taken.
    pub(super) fn heed_ticket(&mut self, number: u32, looked: Look<Found>) -> Result<bool, String> {
        let ticket = match looked {
            Look::Found(found) => self.owner_of(number, found),
            Look::Bad(why) => {
                self.remark(format!("ticket {number} is not valid: {why}"));
                Ticket { owner: self.view.members.len(), is_back: false, is_waived: false }
            }
            Look::Absent => return Ok(false),
            Look::Unreachable(why) => return Err(why),
        };
        self.view.tickets.push(ticket);
        Ok(true)
    }

    fn owner_of(&mut self, number: u32, found: Found) -> Ticket {
        let nobody = self.view.members.len();
        let is_waived = self.view.tickets.get(number as usize).is_some_and(|ticket| ticket.is_waived);
        match &found.fact {
            Fact::Ticket(said) if said.ticket == number && said.proposal == self.rollout.digest => {
                let owner = self.rollout.place_of(&said.node).unwrap_or(nobody);
                let is_theirs = self.voice.is_by(&self.rollout, owner, &found).is_ok()
                    && self.rollout.is_of(&said.node, &said.instance);
                Ticket { owner: if is_theirs { owner } else { nobody }, is_back: said.back, is_waived }
            }
            _ => {
                self.contradict(&format!("ticket {number} belongs to another proposal"));
                Ticket { owner: nobody, is_back: false, is_waived }
            }
        }
    }

    fn read_reports(&mut self, board: &mut dyn Board) -> Heard {
        if !self.cells.is_empty() {
            return self.read_cells(board);
        }
        for Ticket { owner: place, is_back, .. } in self.view.tickets.clone() {
            let Some(member) = self.view.members.get(place) else { continue };
            let is_known = if is_back { member.returned.is_some() } else { member.report.is_some() };
            if is_known || member.waived {
                continue;
            }
            let Some(node) = self.rollout.proposal.members.get(place).cloned() else { continue };
            let name = names::own(&node, self.rollout.number, report_name(is_back));
            let looked = self.voice.look_at(board, &self.rollout, place, &name);
            if let Heard::Away(why) = self.heed_report(place, is_back, looked) {
                return Heard::Away(why);
            }
            let member = self.view.members[place];
            if (if is_back { member.returned } else { member.report }).is_none()
                && let Heard::Away(why) = self.read_waiver(board, place)
            {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    pub(super) fn heed_report(&mut self, place: usize, is_back: bool, looked: Look<Found>) -> Heard {
        match looked {
            Look::Found(found) => match &found.fact {
                Fact::Report(said)
                    if said.answers == self.rollout.digest
                        && Some(&said.node) == self.rollout.proposal.members.get(place)
                        && self.rollout.is_of(&said.node, &said.instance) =>
                {
                    if is_back {
                        self.view.members[place].returned = Some(said.health);
                        self.returns[place] = Some(found);
                    } else {
                        self.view.members[place].report = Some(said.health);
                        self.reports[place] = Some(found);
                    }
                }
                _ => {
                    let node = &self.rollout.proposal.members[place];
                    self.contradict(&format!("{node}'s report belongs to another proposal"));
                }
            },
            Look::Absent => {}
            Look::Bad(why) => {
                let node = &self.rollout.proposal.members[place];
                self.remark(format!(
                    "{node}'s report is not valid: {why}; `cutover fleet waive {node}` goes on without it"
                ));
            }
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
