//! A rolling rollout on the board: what was read of it, and what is put there.

use super::board::Board;
use super::facts::{self, Fact, Rolling as Terms, names};
use super::look::{Found, Look, Trust, look, look_signed, put};
use super::name::NodeName;
use super::rollout::{self, Rollout};
use super::rules::Health;
use super::rules::rolling::{Decision, End, Limits, Member, View};
use super::synchronous::Heard;

/// The most waves that a proposal may have.
pub const WAVES_MAX: usize = 100;

/// A rolling rollout as one member, or an onlooker, sees it.
pub struct Rolling {
    /// The rollout.
    pub rollout: Rollout,
    /// What it holds to.
    pub terms: Terms,
    /// What was read.
    pub view: View,
    /// Why it ended or halted, as its author said.
    pub why: Option<String>,
    /// The reports as they were read, by member.
    pub reports: Vec<Option<Found>>,
    /// Files that say nothing, or contradict each other.
    pub remarks: Vec<String>,
}

impl Rolling {
    /// Nothing read yet; `None` when the proposal does not say what a rolling rollout needs.
    pub fn new(rollout: Rollout, me: usize) -> Option<Self> {
        let terms = rollout.proposal.rolling.clone()?;
        if terms.at_once == 0 || terms.max_failed == 0 || terms.waves.len() > WAVES_MAX {
            return None;
        }
        let waves = waves_of(&rollout, &terms);
        let member = |wave| Member { wave, waived: false, report: None };
        let members: Vec<_> = waves.into_iter().map(member).collect();
        let reports = vec![None; members.len()];
        let view =
            View { me, members, tickets: Vec::new(), wave: 0, halt: false, end: None, contradiction: false };
        Some(Self { rollout, terms, view, why: None, reports, remarks: Vec::new() })
    }

    /// What the proposal says.
    pub fn limits(&self) -> Limits {
        Limits { at_once: self.terms.at_once, max_failed: self.terms.max_failed }
    }

    /// Reads what may have come since.
    pub fn read(&mut self, board: &mut dyn Board, trust: Trust<'_>) -> Heard {
        for step in [Self::read_gates, Self::read_tickets] {
            if let Heard::No(why) = step(self, board) {
                return Heard::No(why);
            }
        }
        self.read_reports(board, trust)
    }

    /// Also the waivers of those who have no ticket: a listing, so not each time.
    pub fn read_waivers(&mut self, board: &mut dyn Board, trust: Trust<'_>) -> Heard {
        let names = match rollout::names_of(board, self.rollout.number) {
            Ok(names) => names,
            Err(why) => return Heard::No(why),
        };
        for name in names {
            let Some(node) = name.strip_prefix("waive.").and_then(|node| node.parse::<NodeName>().ok())
            else {
                continue;
            };
            if let Some(place) = self.rollout.place_of(&node)
                && let Heard::No(why) = self.read_waiver(board, place, trust)
            {
                return Heard::No(why);
            }
        }
        Heard::Yes
    }

    fn read_gates(&mut self, board: &mut dyn Board) -> Heard {
        for gate in ["outcome", "halt"] {
            if self.view.end.is_some() || (gate == "halt" && self.view.halt) {
                continue;
            }
            let looked = look(board, &names::gate(self.rollout.number, gate));
            if let Heard::No(why) = self.heed(gate, looked) {
                return Heard::No(why);
            }
        }
        while self.view.members.iter().any(|member| member.wave > self.view.wave) {
            let name = names::wave(self.rollout.number, self.view.wave + 1);
            match look(board, &name) {
                Look::Found(Found { fact: Fact::Wave(said), .. })
                    if said.wave == self.view.wave + 1 && said.proposal == self.rollout.digest =>
                {
                    self.view.wave += 1;
                }
                Look::Found(_) => {
                    self.contradict("a wave answers something else");
                    break;
                }
                Look::Absent | Look::Bad(_) => break,
                Look::Unreachable(why) => return Heard::No(why),
            }
        }
        Heard::Yes
    }

    fn heed(&mut self, gate: &str, looked: Look<Found>) -> Heard {
        let digest = self.rollout.digest;
        match looked {
            Look::Found(Found { fact: Fact::Outcome(said), .. }) if said.answers == digest => {
                self.view.end = Some(said.decision.end());
                self.why = Some(said.why);
            }
            Look::Found(Found { fact: Fact::Halt(said), .. }) if said.proposal == digest => {
                self.view.halt = true;
                self.why = Some(said.why);
            }
            Look::Found(Found { fact: Fact::Wave(said), .. }) if said.proposal == digest => {
                self.view.wave = self.view.wave.max(said.wave);
            }
            Look::Found(_) => self.contradict(&format!("`{gate}` answers something else")),
            Look::Absent => {}
            Look::Bad(why) => self.remark(format!("`{gate}` says nothing: {why}")),
            Look::Unreachable(why) => return Heard::No(why),
        }
        Heard::Yes
    }

    fn read_tickets(&mut self, board: &mut dyn Board) -> Heard {
        // One that said nothing may have been read badly.
        let nobody = self.view.members.len();
        for place in 0..self.view.tickets.len() {
            let Ok(number) = u32::try_from(place) else { break };
            if self.view.tickets[place] != nobody {
                continue;
            }
            if let Look::Found(found) = look(board, &names::ticket(self.rollout.number, number)) {
                self.view.tickets[place] = self.owner_of(number, found);
            }
        }
        // A member has one ticket; a few more may be spoilt.
        while self.view.tickets.len() < 2 * self.view.members.len() {
            let Ok(number) = u32::try_from(self.view.tickets.len()) else { break };
            let looked = look(board, &names::ticket(self.rollout.number, number));
            match self.heed_ticket(number, looked) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => return Heard::No(why),
            }
        }
        Heard::Yes
    }

    /// Whether there is a ticket. One that says nothing is nobody's, and its place stays taken.
    fn heed_ticket(&mut self, number: u32, looked: Look<Found>) -> Result<bool, String> {
        let owner = match looked {
            Look::Found(found) => self.owner_of(number, found),
            Look::Bad(why) => {
                self.remark(format!("ticket {number} says nothing: {why}"));
                self.view.members.len()
            }
            Look::Absent => return Ok(false),
            Look::Unreachable(why) => return Err(why),
        };
        self.view.tickets.push(owner);
        Ok(true)
    }

    fn owner_of(&mut self, number: u32, found: Found) -> usize {
        let nobody = self.view.members.len();
        match found.fact {
            Fact::Ticket(said) if said.ticket == number && said.proposal == self.rollout.digest => {
                self.rollout.place_of(&said.node).unwrap_or(nobody)
            }
            _ => {
                self.contradict(&format!("ticket {number} answers something else"));
                nobody
            }
        }
    }

    fn read_reports(&mut self, board: &mut dyn Board, trust: Trust<'_>) -> Heard {
        for place in self.view.tickets.clone() {
            let Some(member) = self.view.members.get(place) else { continue };
            if member.report.is_some() || member.waived {
                continue;
            }
            let Some(node) = self.rollout.proposal.members.get(place).cloned() else { continue };
            let looked = look(board, &names::own(&node, self.rollout.number, "report"));
            if let Heard::No(why) = self.heed_report(place, looked) {
                return Heard::No(why);
            }
            if self.view.members[place].report.is_none()
                && let Heard::No(why) = self.read_waiver(board, place, trust)
            {
                return Heard::No(why);
            }
        }
        Heard::Yes
    }

    fn heed_report(&mut self, place: usize, looked: Look<Found>) -> Heard {
        match looked {
            Look::Found(found) => match &found.fact {
                Fact::Report(said)
                    if said.answers == self.rollout.digest
                        && Some(&said.node) == self.rollout.proposal.members.get(place) =>
                {
                    self.view.members[place].report = Some(said.health);
                    self.reports[place] = Some(found);
                }
                _ => self.contradict(&format!("the report of member {place} answers something else")),
            },
            Look::Absent => {}
            Look::Bad(why) => self.remark(format!("the report of member {place} says nothing: {why}")),
            Look::Unreachable(why) => return Heard::No(why),
        }
        Heard::Yes
    }

    fn read_waiver(&mut self, board: &mut dyn Board, place: usize, trust: Trust<'_>) -> Heard {
        let Some(node) = self.rollout.proposal.members.get(place).cloned() else { return Heard::Yes };
        match look_signed(board, &names::waive(self.rollout.number, &node), trust) {
            Look::Found(Found { fact: Fact::Waive(said), .. })
                if said.node == node && said.proposal == self.rollout.digest =>
            {
                self.view.members[place].waived = true;
            }
            Look::Found(_) | Look::Bad(_) => self.remark(format!("the waiver of {node} says nothing")),
            Look::Absent => {}
            Look::Unreachable(why) => return Heard::No(why),
        }
        Heard::Yes
    }

    /// Takes the ticket of this number, if nobody has.
    pub fn take(&mut self, board: &mut dyn Board, number: u32, node: &NodeName, instance: &str) -> Heard {
        let fact = Fact::Ticket(facts::Ticket {
            rollout: self.rollout.number,
            proposal: self.rollout.digest,
            ticket: number,
            node: node.clone(),
            instance: instance.to_owned(),
        });
        let looked = put(board, &names::ticket(self.rollout.number, number), &fact);
        if let Look::Found(Found { fact: Fact::Ticket(said), .. }) = &looked
            && said.node == *node
            && said.instance != instance
        {
            self.contradict(&format!("the name {node} is in use by another machine"));
        }
        if self.view.tickets.len() != number as usize {
            return Heard::Yes;
        }
        match self.heed_ticket(number, looked) {
            Ok(_) => Heard::Yes,
            Err(why) => Heard::No(why),
        }
    }

    /// Tells how it went on a member.
    pub fn report(&mut self, board: &mut dyn Board, place: usize, report: facts::Report) -> Heard {
        let name = names::own(&report.node, self.rollout.number, "report");
        let looked = put(board, &name, &Fact::Report(report));
        self.heed_report(place, looked)
    }

    /// Puts a decision.
    pub fn decide(&mut self, board: &mut dyn Board, decision: Decision, by: &str, why: &str) -> Heard {
        let (number, proposal) = (self.rollout.number, self.rollout.digest);
        let (by, why) = (by.to_owned(), why.to_owned());
        let (gate, name, fact) = match decision {
            Decision::Halt => {
                let fact = Fact::Halt(facts::Halt { rollout: number, proposal, by, why });
                ("halt", names::gate(number, "halt"), fact)
            }
            Decision::Wave(wave) => {
                let fact = Fact::Wave(facts::Wave { rollout: number, proposal, wave, by });
                ("wave", names::wave(number, wave), fact)
            }
            Decision::End(end) => {
                let decision = match end {
                    End::Keep => facts::OutcomeDecision::Keep,
                    End::Partial => facts::OutcomeDecision::Partial,
                    End::Halted => facts::OutcomeDecision::Halted,
                };
                let seen = facts::SeenFacts::new();
                let (rollout, answers, at) = (number, proposal, None);
                let outcome = facts::Outcome { rollout, answers, decision, at, by, why, seen };
                ("outcome", names::gate(number, "outcome"), Fact::Outcome(outcome))
            }
        };
        let looked = put(board, &name, &fact);
        self.heed(gate, looked)
    }

    /// Who failed, and why, as it said.
    pub fn failure(&self) -> Option<String> {
        self.reports.iter().flatten().find_map(|found| match &found.fact {
            Fact::Report(said) if matches!(said.health, Health::Failed | Health::Broken) => {
                Some(format!("{} failed: {}", said.node, said.why.clone().unwrap_or_default()))
            }
            _ => None,
        })
    }

    fn remark(&mut self, text: String) {
        if !self.remarks.contains(&text) && self.remarks.len() < 100 {
            self.remarks.push(text);
        }
    }

    fn contradict(&mut self, text: &str) {
        self.view.contradiction = true;
        self.remark(format!("the storage is inconsistent: {text}"));
    }
}

/// The wave of each member: named ones where they are named, the others by hash up to the percentage; the rest last.
fn waves_of(rollout: &Rollout, terms: &Terms) -> Vec<u32> {
    let members = &rollout.proposal.members;
    let mut wave_of = vec![None; members.len()];
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_cached_key(|place| rollout.order_of(&members[*place]));
    for (wave, setting) in (0_u32..).zip(&terms.waves) {
        for (place, node) in members.iter().enumerate() {
            if setting.nodes.contains(node) {
                wave_of[place].get_or_insert(wave);
            }
        }
        let wanted =
            setting.percent.map_or(0, |percent| (members.len() * usize::from(percent)).div_ceil(100));
        for place in &order {
            if wave_of.iter().flatten().count() >= wanted {
                break;
            }
            wave_of[*place].get_or_insert(wave);
        }
    }
    let last = u32::try_from(terms.waves.len()).unwrap_or(u32::MAX);
    wave_of.into_iter().map(|wave| wave.unwrap_or(last)).collect()
}
