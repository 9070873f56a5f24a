//! The gates of a synchronous rollout: read, believed, and put.

use jiff::Timestamp;

use super::super::board::{Board, Created};
use super::super::facts::{self, Fact, names};
use super::super::look::{Found, Look, found, look};
use super::super::rules::Health;
use super::super::rules::synchronous::{Decision, Go, Outcome, Plan, StartGate};
use super::super::settings::Overlap;
use super::super::voice::says_yes;
use super::{Heard, Synchronous, What, timestamp};

impl Synchronous<'_> {
    /// Reads the gates that may have been decided since.
    pub fn read_gates(&mut self, board: &mut dyn Board) -> Heard {
        self.unreadable = None;
        for gate in ["plan", "go", "start", "outcome"] {
            let is_due = match gate {
                "plan" => self.view.plan.is_none(),
                "go" => matches!(self.view.plan, Some(Plan::Commit { .. })) && self.view.go.is_none(),
                "start" => {
                    self.rollout.proposal.overlap == Overlap::None
                        && self.view.go == Some(Go::Go)
                        && self.view.start.is_none()
                }
                _ => self.view.go == Some(Go::Go) && self.view.outcome.is_none(),
            };
            if !is_due {
                continue;
            }
            let looked = look(board, &names::gate(self.rollout.number, gate));
            if let Heard::No(why) = self.take_gate(board, gate, looked) {
                return Heard::No(why);
            }
        }
        Heard::Yes
    }

    /// Takes a gate into the view, if it may count: see [`super::super::voice`].
    fn take_gate(&mut self, board: &mut dyn Board, gate: &'static str, looked: Look<Found>) -> Heard {
        let looked = self.voice.admit(&self.rollout, looked);
        if let Look::Found(found) = &looked
            && self.rollout.is_signed()
            && says_yes(&found.fact)
        {
            let what = match gate {
                "plan" => What::Vote,
                "go" => What::Armed,
                "start" => What::Stopped,
                _ => What::Report,
            };
            if let Heard::No(why) = self.scan(board, what) {
                return Heard::No(why);
            }
            if !self.has_all(what) {
                let text = format!("gate `{gate}` rests on facts that cannot be seen");
                self.unreadable = Some(text.clone());
                self.remark(text);
                return Heard::Yes;
            }
        }
        self.heed_gate(gate, looked)
    }

    fn has_all(&self, what: What) -> bool {
        self.view.all(|member| match what {
            What::Vote => member.vote == Some(true),
            What::Armed => member.armed,
            What::Stopped => member.stopped,
            What::Switched => member.switched,
            What::Report => member.report == Some(Health::Good),
            What::Cleared => member.cleared,
            What::Closed => member.closed,
        })
    }

    fn heed_gate(&mut self, gate: &'static str, looked: Look<Found>) -> Heard {
        match looked {
            Look::Found(found) => {
                let (digest, is_known) = (found.digest, self.accept_gate(gate, found.fact));
                self.texts.insert(gate, found.text);
                match (is_known, self.gates.insert(gate, digest)) {
                    (true, before) if before.is_none_or(|before| before == digest) => {}
                    (true, _) => self.contradict(&format!("gate `{gate}` has changed")),
                    (false, _) => self.contradict(&format!("gate `{gate}` answers something else")),
                }
            }
            Look::Absent => {}
            Look::Bad(why) => {
                let text = format!("gate `{gate}` says nothing: {why}");
                self.unreadable = Some(text.clone());
                self.remark(text);
            }
            Look::Unreachable(why) => return Heard::No(why),
        }
        Heard::Yes
    }

    /// Takes what a gate says into the view; false when it answers something else.
    fn accept_gate(&mut self, gate: &str, fact: Fact) -> bool {
        let number = self.rollout.number;
        let plan = self.gates.get("plan").copied();
        match (gate, fact) {
            ("plan", Fact::Plan(said)) if said.rollout == number && said.proposal == self.rollout.digest => {
                self.why = Some(said.why);
                self.view.plan = match (said.decision, said.at) {
                    (facts::PlanDecision::Commit, Some(at)) => Some(Plan::Commit { at: at.as_millisecond() }),
                    (facts::PlanDecision::Commit, None) => return false,
                    (facts::PlanDecision::Abort, _) => Some(Plan::Abort),
                };
            }
            ("go", Fact::Go(said)) if said.rollout == number && Some(said.plan) == plan => {
                self.why = Some(said.why);
                self.view.go = Some(match said.decision {
                    facts::GoDecision::Go => Go::Go,
                    facts::GoDecision::Cancel => Go::Cancel,
                });
            }
            ("start", Fact::Start(said)) if said.rollout == number && Some(said.plan) == plan => {
                self.view.start = Some(match said.decision {
                    facts::StartDecision::Start => StartGate::Start,
                    facts::StartDecision::Back => StartGate::Back,
                });
            }
            ("outcome", Fact::Outcome(said)) if said.rollout == number && Some(said.answers) == plan => {
                self.why = Some(said.why);
                self.view.outcome = match (said.decision, said.at) {
                    (facts::OutcomeDecision::Keep, _) => Some(Outcome::Keep),
                    (facts::OutcomeDecision::Rollback, at) => {
                        Some(Outcome::Rollback { at: at.map_or(0, Timestamp::as_millisecond) })
                    }
                    _ => return false,
                };
            }
            _ => return false,
        }
        true
    }

    /// Takes up what was written down about gates before: it holds even if the storage shows it no more.
    pub fn remember_gate(&mut self, gate: &'static str, text: &str) {
        let looked = found(text, None);
        let _ = self.heed_gate(gate, looked);
    }

    /// Sees that storage still holds the gates that were read before: one that is gone is put back, since it was decided
    /// once and for ever; another one in its place is a contradiction.
    pub fn assure_gates(&mut self, board: &mut dyn Board) {
        for (gate, text) in self.texts.clone() {
            match board.create(&names::gate(self.rollout.number, gate), &text) {
                Created::Mine | Created::Unknown(_) => {}
                Created::Theirs(_) => self.contradict(&format!("gate `{gate}` is not the one that was read")),
            }
        }
    }

    /// Puts a decision, and takes what is there into the view.
    pub fn decide(
        &mut self,
        board: &mut dyn Board,
        decision: Decision,
        now: Timestamp,
        by: &str,
        why: &str,
    ) -> Heard {
        let made = Some(now);
        let number = self.rollout.number;
        let plan = self.gates.get("plan").copied();
        let (by, why) = (by.to_owned(), why.to_owned());
        let (gate, fact) = match (decision, plan) {
            (Decision::Plan(said), _) => {
                let (decision, at) = match said {
                    Plan::Commit { at } => (facts::PlanDecision::Commit, timestamp(at)),
                    Plan::Abort => (facts::PlanDecision::Abort, None),
                };
                let (proposal, seen) = (self.rollout.digest, self.seen(What::Vote));
                (
                    "plan",
                    Fact::Plan(facts::Plan { rollout: number, proposal, decision, at, made, by, why, seen }),
                )
            }
            (_, None) => return Heard::No("there is no plan to decide on".into()),
            (Decision::Go(said), Some(plan)) => {
                let decision = match said {
                    Go::Go => facts::GoDecision::Go,
                    Go::Cancel => facts::GoDecision::Cancel,
                };
                let seen = self.seen(What::Armed);
                ("go", Fact::Go(facts::Go { rollout: number, plan, decision, made, by, why, seen }))
            }
            (Decision::Outcome(said), Some(answers)) => {
                let (decision, at) = match said {
                    Outcome::Keep => (facts::OutcomeDecision::Keep, None),
                    Outcome::Rollback { at } => (facts::OutcomeDecision::Rollback, timestamp(at)),
                };
                let seen = self.seen(What::Report);
                let rollout = number;
                (
                    "outcome",
                    Fact::Outcome(facts::Outcome { rollout, answers, decision, at, made, by, why, seen }),
                )
            }
        };
        self.put_gate(board, gate, &fact)
    }

    /// Puts the gate between stop and start.
    pub fn decide_start(&mut self, board: &mut dyn Board, said: StartGate, by: &str) -> Heard {
        let Some(plan) = self.gates.get("plan").copied() else {
            return Heard::No("there is no plan to decide on".into());
        };
        let decision = match said {
            StartGate::Start => facts::StartDecision::Start,
            StartGate::Back => facts::StartDecision::Back,
        };
        let rollout = self.rollout.number;
        self.put_gate(board, "start", &Fact::Start(facts::Start { rollout, plan, decision, by: by.into() }))
    }

    fn put_gate(&mut self, board: &mut dyn Board, gate: &'static str, fact: &Fact) -> Heard {
        let name = names::gate(self.rollout.number, gate);
        match self.voice.put(board, &self.rollout, &name, fact) {
            Look::Absent => Heard::No("it was made, and is not there".into()),
            looked => match self.take_gate(board, gate, looked) {
                Heard::Yes => self.unreadable.clone().map_or(Heard::Yes, Heard::No),
                no @ Heard::No(_) => no,
            },
        }
    }
}
