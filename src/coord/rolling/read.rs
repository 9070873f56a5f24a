//! What stands on the board of a rolling rollout, taken into the view of whoever reads it.

use super::super::board::Board;
use super::super::facts::{Fact, names};
use super::super::heard::Heard;
use super::super::look::{Found, Look, look};
use super::super::rules::rolling::{At, Ticket};
use super::super::voice::says_yes;
use super::{Rolling, report_name};

impl Rolling<'_> {
    /// Reads what may have come since, of all rows.
    pub fn read(&mut self, board: &mut dyn Board) -> Heard {
        self.read_as(board, true)
    }

    /// Reads how many tickets this node's row has; and what was decided only where its wave is not known to be open. As long as
    /// tickets come nothing was.
    pub fn read_length(&mut self, board: &mut dyn Board) -> Heard {
        self.view.is_whole = false;
        let is_open = self.view.members.get(self.view.me).is_none_or(|mine| mine.wave <= self.view.wave);
        match if is_open { Heard::Yes } else { self.read_gates(board) } {
            Heard::Yes => self.read_tickets(board),
            heard => heard,
        }
    }

    /// Reads what may have come since in this node's slot. While somebody else has it nothing that was decided matters here, and no
    /// member is waived for taking its time: both are asked for when the slot is free, or overdue, or this node's own.
    pub fn read_slot(&mut self, board: &mut dyn Board, is_waiting: bool) -> Heard {
        if !is_waiting || !self.rollout.has_slots() {
            return self.read_row(board);
        }
        self.view.is_whole = false;
        if let Heard::Away(why) = self.read_reports_of(board, self.view.row) {
            return Heard::Away(why);
        }
        // Before its owner is back nobody takes the next ticket.
        if !self.is_row_free() {
            return Heard::Yes;
        }
        for heard in [self.read_tickets(board), self.read_reports_of(board, self.view.row)] {
            if let Heard::Away(why) = heard {
                return Heard::Away(why);
            }
        }
        if self.is_row_free() { self.read_gates(board) } else { Heard::Yes }
    }

    /// Reads how it ended, and what this node has said. `must_report`: that comes first, and as long as it is not there nothing else
    /// matters.
    pub fn read_own(&mut self, board: &mut dyn Board, must_report: bool) -> Heard {
        self.view.is_whole = false;
        if must_report {
            // Storage that went back in time may have lost it since.
            if let Some(mine) = self.view.members.get_mut(self.view.me) {
                mine.report = None;
            }
            match self.read_report(board, self.view.me, false) {
                Heard::Yes if self.has_reported() => {}
                heard => return heard,
            }
        }
        for heard in [self.read_end(board), self.read_void(board)] {
            if let Heard::Away(why) = heard {
                return Heard::Away(why);
            }
        }
        // Who goes back needs a place again.
        if self.view.must_undo(self.limits()) {
            return self.read_row(board);
        }
        for is_back in [false, true] {
            let Some(mine) = self.view.members.get(self.view.me) else { break };
            let is_due = if is_back {
                self.view.end.is_some() && mine.returned.is_none()
            } else {
                mine.report.is_none()
            };
            if is_due && let Heard::Away(why) = self.read_report(board, self.view.me, is_back) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Reads what may have come since in this node's row, and what was decided.
    pub fn read_row(&mut self, board: &mut dyn Board) -> Heard {
        self.read_as(board, self.view.rows.len() == 1)
    }

    fn read_as(&mut self, board: &mut dyn Board, is_whole: bool) -> Heard {
        self.view.is_whole = is_whole;
        let heard = self.read_steps(board);
        self.view.is_whole &= heard.is_yes();
        heard
    }

    fn read_steps(&mut self, board: &mut dyn Board) -> Heard {
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

    /// Looks for the outcome alone.
    pub fn read_end(&mut self, board: &mut dyn Board) -> Heard {
        self.unreadable = None;
        let looked = look(board, &self.rollout.decisions().gate("outcome"));
        self.heed("outcome", looked)
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
        let rows = u32::try_from(self.view.rows.len()).unwrap_or(0);
        let rows = if self.view.is_whole { 0..rows } else { self.view.row..self.view.row + 1 };
        // All rows are about as long as the one that this node knows.
        let mut guess = self.expected.max(self.row_length());
        for row in rows {
            if let Heard::Away(why) = self.read_tickets_of(board, row, guess) {
                return Heard::Away(why);
            }
            guess = self.view.rows[row as usize].len();
        }
        Heard::Yes
    }

    fn read_tickets_of(&mut self, board: &mut dyn Board, row: u32, guess: usize) -> Heard {
        let heard = match self.rollout.has_slots() {
            true => self.gallop(board, row, guess),
            false => self.read_each(board, row),
        };
        self.read_spoilt(board, row);
        heard
    }

    /// Reads all rows, as long as none is found in which somebody is out of service: then nothing has come to its end.
    pub fn read_while_idle(&mut self, board: &mut dyn Board) -> Heard {
        self.view.is_whole = false;
        let (own, rows) = (self.view.row, u32::try_from(self.view.rows.len()).unwrap_or(0));
        // In its own row the next one has hardly had the time.
        let others = (1..=rows).map(|step| (own + step) % rows);
        let mut guess = self.expected.max(self.row_length());
        for row in others {
            for heard in [self.read_tickets_of(board, row, guess), self.read_reports_of(board, row)] {
                if let Heard::Away(why) = heard {
                    return Heard::Away(why);
                }
            }
            if !self.is_free(row) {
                return Heard::Yes;
            }
            guess = self.view.rows[row as usize].len();
        }
        self.view.is_whole = true;
        self.read_gates(board)
    }

    /// Reads tickets once more that said nothing: they may have been read badly, also by who took the next one and says so in it.
    fn read_spoilt(&mut self, board: &mut dyn Board, row: u32) {
        let nobody = self.view.members.len();
        for place in 0..self.view.rows[row as usize].len() {
            let Ok(number) = u32::try_from(place) else { break };
            if self.view.rows[row as usize][place].owner != nobody {
                continue;
            }
            let at = At { row, number };
            if let Look::Found(found) = look(board, &self.rollout.ticket(at)) {
                self.view.rows[row as usize][place] = self.owner_of(at, found);
            }
        }
    }

    fn read_each(&mut self, board: &mut dyn Board, row: u32) -> Heard {
        // A member has two tickets at the most; a few more may be spoilt.
        while self.view.rows[row as usize].len() < 3 * self.view.members.len() {
            let Ok(number) = u32::try_from(self.view.rows[row as usize].len()) else { break };
            let at = At { row, number };
            let looked = look(board, &self.rollout.ticket(at));
            match self.heed_ticket(at, looked) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => return Heard::Away(why),
            }
        }
        Heard::Yes
    }

    /// Whether there is a ticket. One that says nothing is nobody's, and its place stays taken.
    pub(super) fn heed_ticket(&mut self, at: At, looked: Look<Found>) -> Result<bool, String> {
        let ticket = match looked {
            Look::Found(found) => self.owner_of(at, found),
            Look::Bad(why) => {
                self.remark(format!("ticket {at} is not valid: {why}"));
                Ticket { owner: self.view.members.len(), is_back: false, is_waived: false }
            }
            Look::Absent => return Ok(false),
            Look::Unreachable(why) => return Err(why),
        };
        self.view.rows[at.row as usize].push(ticket);
        Ok(true)
    }

    pub(super) fn owner_of(&mut self, at: At, found: Found) -> Ticket {
        let nobody = self.view.members.len();
        let is_waived = self.view.ticket(at).is_some_and(|ticket| ticket.is_waived);
        match &found.fact {
            Fact::Ticket(said)
                if (said.row, said.ticket) == (at.row, at.number) && said.proposal == self.rollout.digest =>
            {
                if at.row == self.view.row {
                    self.taken_at = said.at;
                    self.turn = said.turn_ms.and_then(|ms| ms.try_into().ok()).or(self.turn);
                }
                let owner = self.rollout.place_of(&said.node).unwrap_or(nobody);
                let is_theirs = self.voice.is_by(&self.rollout, owner, &found).is_ok()
                    && self.rollout.is_of(&said.node, &said.instance);
                Ticket { owner: if is_theirs { owner } else { nobody }, is_back: said.back, is_waived }
            }
            _ => {
                self.contradict(&format!("ticket {at} belongs to another proposal"));
                Ticket { owner: nobody, is_back: false, is_waived }
            }
        }
    }

    fn read_reports(&mut self, board: &mut dyn Board) -> Heard {
        if !self.cells.is_empty() {
            return self.read_cells(board);
        }
        for row in 0..u32::try_from(self.view.rows.len()).unwrap_or(0) {
            if let Heard::Away(why) = self.read_reports_of(board, row) {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    fn read_reports_of(&mut self, board: &mut dyn Board, row: u32) -> Heard {
        // An onlooker wants to know what was reported, too, not only how it ended.
        let is_onlooker = self.view.me >= self.view.members.len();
        for ticket in self.view.rows[row as usize].clone() {
            let Ticket { owner: place, is_back, .. } = ticket;
            let Some(member) = self.view.members.get(place).filter(|member| !member.waived || is_onlooker)
            else {
                continue;
            };
            let found = if is_back { &self.returns } else { &self.reports }.get(&place);
            let is_known = if is_back { member.returned.is_some() } else { member.report.is_some() }
                && (found.is_some() || !is_onlooker);
            if !is_known && let Heard::Away(why) = self.read_report(board, place, is_back) {
                return Heard::Away(why);
            }
            // Who says nothing, or that neither release is healthy there, has its place until it is waived.
            if self.asks_for_waivers
                && !self.view.has_finished(ticket)
                && let Heard::Away(why) = self.read_waiver(board, place)
            {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Reads what one member reports.
    pub(super) fn read_report(&mut self, board: &mut dyn Board, place: usize, is_back: bool) -> Heard {
        let Some(node) = self.rollout.proposal.members.get(place).cloned() else { return Heard::Yes };
        let name = names::own(&node, self.rollout.number, report_name(is_back));
        let looked = self.voice.look_at(board, &self.rollout, place, &name);
        self.heed_report(place, is_back, looked)
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
                        self.returns.insert(place, found);
                    } else {
                        self.turn = said.took_ms.and_then(|ms| ms.try_into().ok()).or(self.turn);
                        self.view.members[place].report = Some(said.health);
                        self.reports.insert(place, found);
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
}
