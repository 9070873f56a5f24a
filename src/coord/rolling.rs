//! A rolling rollout on the board: what was read of it, and what is put there.

use jiff::Timestamp;

use super::board::Board;
use super::facts::{self, Fact, Rolling as Terms, names};
use super::look::{Found, Look, look, look_signed};
use super::name::NodeName;
use super::rollout::{self, Rollout};
use super::rules::Health;
use super::rules::rolling::{Decision, End, Limits, Member, Ticket, View};
use super::settings::OnHalt;
use super::synchronous::Heard;
use super::voice::{Voice, says_yes};

/// The most waves that a proposal may have.
pub const WAVES_MAX: usize = 100;

/// A rolling rollout as one member, or an onlooker, sees it.
pub struct Rolling<'a> {
    voice: Voice<'a>,
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
    /// The reports of how going back went.
    pub returns: Vec<Option<Found>>,
    /// This node's place in the order of those who decide.
    pub rank: usize,
    /// Files that say nothing, or contradict each other.
    pub remarks: Vec<String>,
    /// The outcome is there, and could not be understood.
    pub unreadable: Option<String>,
}

impl<'a> Rolling<'a> {
    /// Nothing read yet; `None` when the proposal does not say what a rolling rollout needs.
    pub fn new(rollout: Rollout, me: usize, voice: Voice<'a>) -> Option<Self> {
        let terms = rollout.proposal.rolling.clone()?;
        if terms.at_once == 0 || terms.max_failed == 0 || terms.waves.len() > WAVES_MAX {
            return None;
        }
        let waves = waves_of(&rollout, &terms);
        let member = |wave| Member { wave, waived: false, report: None, returned: None };
        let members: Vec<_> = waves.into_iter().map(member).collect();
        let (reports, returns) = (vec![None; members.len()], vec![None; members.len()]);
        let rank = rollout.rank_at(me);
        let view =
            View { me, members, tickets: Vec::new(), wave: 0, halt: false, end: None, contradiction: false };
        let remarks = Vec::new();
        Some(Self {
            voice,
            rollout,
            terms,
            view,
            why: None,
            reports,
            returns,
            rank,
            remarks,
            unreadable: None,
        })
    }

    /// What the proposal says.
    pub fn limits(&self) -> Limits {
        let undoes = self.terms.on_halt == OnHalt::Rollback;
        Limits { at_once: self.terms.at_once, max_failed: self.terms.max_failed, undoes }
    }

    /// Whether nothing more is to come.
    pub fn is_settled(&self) -> bool {
        self.view.is_settled(self.limits())
    }

    /// How many members have not begun.
    pub fn waiting(&self) -> usize {
        self.view.members.len().saturating_sub(self.view.tickets.len())
    }

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
        let names = match rollout::names_of(board, &self.rollout) {
            Ok(names) => names,
            Err(why) => return Heard::Away(why),
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
            let Some(node) = name.strip_prefix("waive.").and_then(|node| node.parse::<NodeName>().ok())
            else {
                continue;
            };
            if let Some(place) = self.rollout.place_of(&node)
                && let Heard::Away(why) = self.read_waiver(board, place)
            {
                return Heard::Away(why);
            }
        }
        Heard::Yes
    }

    /// Looks whether an operator has ended it, whatever stands there.
    pub fn read_void(&mut self, board: &mut dyn Board) -> Heard {
        match look_signed(board, &self.rollout.decisions().gate("void"), self.voice.trust) {
            Look::Found(Found { fact: Fact::Void(said), .. }) if said.proposal == self.rollout.digest => {
                self.end(End::Void, &said.why);
            }
            Look::Found(_) => self.remark("`void` answers something else".into()),
            Look::Absent => {}
            Look::Bad(why) => self.remark(format!("`void` says nothing: {why}")),
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Takes up how it ended, by a word that stands beside its outcome.
    pub fn end(&mut self, end: End, why: &str) {
        self.view.end = Some(end);
        self.why = Some(why.to_owned());
    }

    /// Looks for the outcome alone.
    pub fn read_end(&mut self, board: &mut dyn Board) -> Heard {
        self.unreadable = None;
        let looked = look(board, &self.rollout.decisions().gate("outcome"));
        self.heed("outcome", looked)
    }

    fn read_ticket_waiver(&mut self, board: &mut dyn Board, number: u32) -> Heard {
        let Some(ticket) = self.view.tickets.get_mut(number as usize).filter(|ticket| !ticket.is_waived)
        else {
            return Heard::Yes;
        };
        match look_signed(board, &self.rollout.decisions().waive_ticket(number), self.voice.trust) {
            Look::Found(Found { fact: Fact::WaiveTicket(said), .. })
                if said.ticket == number && said.proposal == self.rollout.digest =>
            {
                ticket.is_waived = true;
            }
            Look::Found(_) | Look::Bad(_) => {
                self.remark(format!("the waiver of ticket {number} says nothing"))
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
                    self.contradict("a wave answers something else");
                    break;
                }
                Look::Absent | Look::Bad(_) => break,
                Look::Unreachable(why) => return Heard::Away(why),
            }
        }
        Heard::Yes
    }

    fn heed(&mut self, gate: &str, looked: Look<Found>) -> Heard {
        let digest = self.rollout.digest;
        match self.voice.admit(&self.rollout, looked) {
            Look::Found(found) if self.rollout.is_signed() && !self.rests_on_facts(&found.fact) => {
                self.remark(format!("`{gate}` rests on facts that cannot be seen"));
            }
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
            Look::Bad(why) => {
                let text = format!("`{gate}` says nothing: {why}");
                self.unreadable = Some(text.clone());
                self.remark(text);
            }
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Whether what says "yes" says what this view shows.
    fn rests_on_facts(&self, fact: &Fact) -> bool {
        let are_good = |until: u32| {
            let counted = self.view.members.iter().filter(|member| !member.waived && member.wave < until);
            counted.into_iter().all(|member| member.report == Some(Health::Good))
        };
        match fact {
            Fact::Wave(said) => are_good(said.wave),
            said => !says_yes(said) || are_good(u32::MAX),
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
    fn heed_ticket(&mut self, number: u32, looked: Look<Found>) -> Result<bool, String> {
        let ticket = match looked {
            Look::Found(found) => self.owner_of(number, found),
            Look::Bad(why) => {
                self.remark(format!("ticket {number} says nothing: {why}"));
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
                self.contradict(&format!("ticket {number} answers something else"));
                Ticket { owner: nobody, is_back: false, is_waived }
            }
        }
    }

    fn read_reports(&mut self, board: &mut dyn Board) -> Heard {
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

    fn heed_report(&mut self, place: usize, is_back: bool, looked: Look<Found>) -> Heard {
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
                _ => self.contradict(&format!("the report of member {place} answers something else")),
            },
            Look::Absent => {}
            Look::Bad(why) => self.remark(format!("the report of member {place} says nothing: {why}")),
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    fn read_waiver(&mut self, board: &mut dyn Board, place: usize) -> Heard {
        let Some(node) = self.rollout.proposal.members.get(place).cloned() else { return Heard::Yes };
        match look_signed(board, &self.rollout.decisions().waive(&node), self.voice.trust) {
            Look::Found(Found { fact: Fact::Waive(said), .. })
                if said.node == node && said.proposal == self.rollout.digest =>
            {
                self.view.members[place].waived = true;
            }
            Look::Found(_) | Look::Bad(_) => self.remark(format!("the waiver of {node} says nothing")),
            Look::Absent => {}
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Takes the ticket of this number, if nobody has.
    pub fn take(
        &mut self,
        board: &mut dyn Board,
        number: u32,
        is_back: bool,
        node: &NodeName,
        instance: &str,
    ) -> Heard {
        let fact = Fact::Ticket(facts::Ticket {
            rollout: self.rollout.number,
            proposal: self.rollout.digest,
            ticket: number,
            node: node.clone(),
            instance: instance.to_owned(),
            back: is_back,
            open: self.open_before(number),
            failed: self.finished_before(number, |member| {
                matches!(member.report, Some(Health::Failed | Health::Broken))
            }),
            good: self.good_before(number),
        });
        let name = self.rollout.decisions().ticket(number);
        let looked = self.voice.put(board, &self.rollout, &name, &fact);
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
            Err(why) => Heard::Away(why),
        }
    }

    /// The tickets before this one whose owners were not seen finished.
    fn open_before(&self, number: u32) -> Vec<u32> {
        let before = (0..number).zip(&self.view.tickets);
        before.filter(|(_, ticket)| !self.view.has_finished(**ticket)).map(|(number, _)| number).collect()
    }

    /// How many owners of tickets before this one were seen finished so.
    fn finished_before(&self, number: u32, is_so: impl Fn(&Member) -> bool) -> u32 {
        let before = (0..number).zip(&self.view.tickets).map(|(_, ticket)| *ticket);
        let finished = before.filter(|ticket| !ticket.is_back && self.view.has_finished(*ticket));
        let counted =
            finished.filter_map(|ticket| self.view.members.get(ticket.owner)).filter(|member| is_so(member));
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    fn good_before(&self, number: u32) -> Vec<u32> {
        let last = self.view.members.iter().map(|member| member.wave).max().unwrap_or(0);
        let is_good =
            |wave: u32| move |member: &Member| member.wave == wave && member.report == Some(Health::Good);
        (0..=last).map(|wave| self.finished_before(number, is_good(wave))).collect()
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

    /// Puts a decision.
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

fn report_name(is_back: bool) -> &'static str {
    if is_back { "returned" } else { "report" }
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
