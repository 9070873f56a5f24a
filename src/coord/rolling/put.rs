//! What a member of a rolling rollout puts on the board: tickets, reports, refusals, decisions.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::board::Board;
use super::super::facts::{self, Fact, names};
use super::super::heard::Heard;
use super::super::look::{Found, Look, look, put_text};
use super::super::name::NodeName;
use super::super::rules::rolling::{At, Decision, End};
use super::{Rolling, report_name};

impl Rolling<'_> {
    /// Says that this node cannot, so that nobody waits for it.
    pub fn refuse(&mut self, board: &mut dyn Board, node: &NodeName, instance: &str, why: &str) -> Heard {
        let name = self.rollout.decisions().refused(node);
        let fact = Fact::Refused(facts::Refused {
            rollout: self.rollout.number,
            proposal: self.rollout.digest,
            node: node.clone(),
            instance: instance.to_owned(),
            why: why.to_owned(),
        });
        let looked = self.voice.put(board, &self.rollout, &name, &fact);
        if self.view.me < self.view.members.len() {
            self.heed_refusal(self.view.me, looked)
        } else {
            Heard::Yes
        }
    }

    /// Takes this ticket, if nobody has.
    pub fn take(
        &mut self,
        board: &mut dyn Board,
        at: At,
        is_back: bool,
        now: Timestamp,
        node: &NodeName,
        instance: &str,
    ) -> Heard {
        // A void stands beside, and is not looked for each time: before anybody goes out of service it is.
        for heard in [self.ensure_is_proposed(board), self.read_void(board)] {
            if let Heard::Away(why) = heard {
                return Heard::Away(why);
            }
        }
        if self.view.end == Some(End::Void) || (self.view.end.is_some() && !is_back) {
            return Heard::Yes;
        }
        let fact = Fact::Ticket(facts::Ticket {
            rollout: self.rollout.number,
            proposal: self.rollout.digest,
            row: at.row,
            ticket: at.number,
            node: node.clone(),
            instance: instance.to_owned(),
            back: is_back,
            at: self.rollout.has_slots().then_some(now),
            turn_ms: self.turn.and_then(|turn| u64::try_from(turn).ok()),
            before: self.before(at),
        });
        let name = self.rollout.ticket(at);
        let looked = self.voice.put(board, &self.rollout, &name, &fact);
        if let Look::Found(Found { fact: Fact::Ticket(said), .. }) = &looked
            && said.node == *node
            && said.instance != instance
        {
            self.contradict(&format!("the name {node} is in use by another machine"));
        }
        if self.view.rows.get(at.row as usize).is_none_or(|row| row.len() != at.number as usize) {
            return Heard::Yes;
        }
        match self.heed_ticket(at, looked) {
            Ok(_) => Heard::Yes,
            Err(why) => Heard::Away(why),
        }
    }

    /// Whether storage has lost the newest ticket that was read in this node's row. Those before it were made earlier, so one look
    /// tells.
    pub fn has_lost_tickets(&mut self, board: &mut dyn Board) -> bool {
        let newest = self
            .view
            .next(self.view.row)
            .and_then(|At { row, number }| Some(At { row, number: number.checked_sub(1)? }));
        newest.is_some_and(|newest| self.is_lost(board, newest).unwrap_or(false))
    }

    /// Whether a ticket that was read is gone: nothing stands in its place, or what somebody has made there since.
    fn is_lost(&mut self, board: &mut dyn Board, at: At) -> Result<bool, String> {
        match look(board, &self.rollout.ticket(at)) {
            Look::Found(found) => {
                let there = self.owner_of(at, found);
                let known = self.view.ticket(at).filter(|known| known.owner < self.view.members.len());
                Ok(known.is_some_and(|known| (known.owner, known.is_back) != (there.owner, there.is_back)))
            }
            Look::Absent => Ok(true),
            Look::Bad(_) => Ok(false),
            Look::Unreachable(why) => Err(why),
        }
    }

    /// Forgets the tickets that were read: storage that has lost some counts anew.
    pub fn forget_tickets(&mut self) {
        self.view.rows.iter_mut().for_each(Vec::clear);
    }

    /// Takes a ticket once more where storage has lost that of this node, which is out of service by it: else another one takes
    /// its place. `held`: the ticket, where this node has written it down.
    pub fn hold_place(
        &mut self,
        board: &mut dyn Board,
        held: Option<At>,
        now: Timestamp,
        node: &NodeName,
        instance: &str,
    ) -> Heard {
        if let Some(at) = held {
            self.view.row = at.row;
        }
        if let Some(at) = self.view.ticket_of(self.view.me, false) {
            match self.is_lost(board, at) {
                Ok(true) => self.forget_tickets(),
                Ok(false) => return Heard::Yes,
                Err(why) => return Heard::Away(why),
            }
        }
        if let Heard::Away(why) = self.read_row(board) {
            return Heard::Away(why);
        }
        match (self.view.ticket_of(self.view.me, false), self.view.next(self.view.row)) {
            (None, Some(at)) => self.take(board, at, false, now, node, instance),
            _ => Heard::Yes,
        }
    }

    /// Puts back what was said of the rollout and is not there: where storage went back in time, what was stopped stays so, and
    /// who was waived.
    pub fn put_back(&mut self, board: &mut dyn Board, known: &BTreeMap<String, String>) -> Heard {
        for (name, text) in known {
            if self.words.contains_key(name) || self.view.end.is_some() {
                continue;
            }
            if let Heard::Away(why) = self.ensure_is_proposed(board) {
                return Heard::Away(why);
            }
            let looked = put_text(board, &self.rollout.decisions().gate(name), text);
            self.words.insert(name.clone(), text.clone());
            let heard = match name.starts_with("waive.") {
                true => self.heed_name(board, name),
                false => self.heed(name, looked),
            };
            if let Heard::Away(why) = heard {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Tells how it went on a member, forward or back.
    pub fn report(
        &mut self,
        board: &mut dyn Board,
        place: usize,
        is_back: bool,
        report: facts::Report,
    ) -> Heard {
        let name = names::own(&report.node, self.rollout.number, report_name(is_back));
        let looked = self.voice.put(board, &self.rollout, &name, &Fact::Report(report));
        self.heed_report(place, is_back, looked)
    }

    /// Makes a decision, if nobody has. Bad: what stands under its name cannot be read.
    pub fn decide(
        &mut self,
        board: &mut dyn Board,
        decision: Decision,
        now: Timestamp,
        by: &str,
        why: &str,
    ) -> Heard {
        let (number, proposal) = (self.rollout.number, self.rollout.digest);
        let (by, why) = (by.to_owned(), why.to_owned());
        let (gate, name, fact) = match decision {
            Decision::Halt => {
                let fact = Fact::Halt(facts::Halt { rollout: number, proposal, by, why });
                ("halt", self.rollout.decisions().gate("halt"), fact)
            }
            Decision::Wave(wave) => {
                let fact = Fact::Wave(facts::Wave { rollout: number, proposal, wave, by });
                ("wave", self.rollout.decisions().wave(wave), fact)
            }
            Decision::End(end) => {
                let decision = match end {
                    End::Keep => facts::OutcomeDecision::Keep,
                    End::Partial => facts::OutcomeDecision::Partial,
                    // A void is an operator's, and stands beside the outcome.
                    End::Halted | End::Void => facts::OutcomeDecision::Halted,
                };
                let seen = facts::SeenFacts::new();
                let (rollout, answers, at, made) = (number, proposal, None, Some(now));
                let outcome = facts::Outcome { rollout, answers, decision, at, made, by, why, seen };
                ("outcome", self.rollout.decisions().gate("outcome"), Fact::Outcome(outcome))
            }
        };
        let looked = self.voice.put(board, &self.rollout, &name, &fact);
        self.unreadable = None;
        // A file that says nothing stands where the decision should be: whoever makes it again has the same answer.
        match self.heed(gate, looked) {
            Heard::Yes => self.unreadable.clone().map_or(Heard::Yes, Heard::Bad),
            heard => heard,
        }
    }
}
