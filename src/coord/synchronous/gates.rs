//! The gates of a synchronous rollout: read, believed, and put.

use jiff::Timestamp;

use super::super::board::{Board, Read};
use super::super::facts::{self, Fact};
use super::super::heard::Heard;
use super::super::look::{Found, Look, found, look, look_signed};
use super::super::rollout::WENT_BACK;
use super::super::rules::Health;
use super::super::rules::gate::Gate;
use super::super::rules::synchronous::{Decision, Go, Outcome, Plan, StartGate};
use super::super::settings::Overlap;
use super::super::standing::removed_end;
use super::super::voice::says_yes;
use super::{Synchronous, What, timestamp};

impl Synchronous<'_> {
    /// Reads the gates that may have been decided since.
    pub fn read_gates(&mut self, board: &mut dyn Board) -> Heard {
        self.unreadable = None;
        for gate in Gate::ALL {
            let is_due = match gate {
                Gate::Plan => self.view.plan.is_none(),
                Gate::Go => matches!(self.view.plan, Some(Plan::Commit { .. })) && self.view.go.is_none(),
                Gate::Start => {
                    self.rollout.proposal.overlap == Overlap::None
                        && self.view.go == Some(Go::Go)
                        && self.view.start.is_none()
                }
                Gate::Outcome => self.view.go == Some(Go::Go) && self.view.outcome.is_none(),
            };
            if !is_due {
                continue;
            }
            let looked = look(board, &self.rollout.gate(gate));
            if let Heard::Away(why) = self.take_gate(board, gate, looked) {
                return Heard::Away(why);
            }
        }
        // An operator ends what cannot be decided any more. Where all is well nobody looks for that, except onlookers.
        let is_onlooker = self.view.me >= self.view.members.len();
        if self.unreadable.is_some() || self.view.contradiction || is_onlooker {
            return self.read_void(board);
        }
        Heard::Yes
    }

    /// Looks whether an operator has ended the rollout, whatever stands there.
    pub fn read_void(&mut self, board: &mut dyn Board) -> Heard {
        match look_signed(board, &self.rollout.decisions().gate("void"), self.voice.trust) {
            Look::Found(Found { fact: Fact::Void(said), .. }) if said.proposal == self.rollout.digest => {
                self.end("void", &said.why);
            }
            Look::Found(_) => self.remark("`void` belongs to another proposal".into()),
            Look::Absent => {}
            Look::Bad(why) => self.remark(format!("`void` is not valid: {why}")),
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Takes up how the rollout ended, by a word that does not go through its gates: `void`, or that of a rollout whose
    /// facts were removed. Only what is not known yet is filled in.
    pub fn end(&mut self, word: &str, why: &str) {
        self.unreadable = None;
        self.why = Some(why.to_owned());
        self.is_void = word == "void";
        let view = &mut self.view;
        if word == "kept" {
            view.outcome.get_or_insert(Outcome::Keep);
            return;
        }
        match (view.plan, view.go) {
            (None | Some(Plan::Abort), _) => view.plan = Some(Plan::Abort),
            (Some(Plan::Commit { .. }), None | Some(Go::Cancel)) => view.go = Some(Go::Cancel),
            (Some(Plan::Commit { .. }), Some(Go::Go)) => {
                view.outcome = match view.outcome {
                    Some(Outcome::Rollback { at }) => Some(Outcome::Rollback { at }),
                    Some(Outcome::Keep) | None => Some(Outcome::Rollback { at: 0 }),
                };
            }
        }
    }

    /// Takes a gate into the view, if it may count: see [`super::super::voice`].
    fn take_gate(&mut self, board: &mut dyn Board, gate: Gate, looked: Look<Found>) -> Heard {
        let looked = self.voice.admit(&self.rollout, looked);
        if let Look::Found(found) = &looked
            && self.rollout.is_signed()
            && says_yes(&found.fact)
        {
            let what = match gate {
                Gate::Plan => What::Vote,
                Gate::Go => What::Armed,
                Gate::Start => What::Stopped,
                Gate::Outcome => What::Report,
            };
            if let Heard::Away(why) = self.scan(board, what) {
                return Heard::Away(why);
            }
            if !self.has_all(what) {
                let text = format!("gate `{}` was decided by facts that are not here", gate.name());
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

    fn heed_gate(&mut self, gate: Gate, looked: Look<Found>) -> Heard {
        match looked {
            Look::Found(found) => {
                let (digest, is_known) = (found.digest, self.accept_gate(gate, found.fact));
                self.texts.insert(gate, found.text);
                match (is_known, self.gates.insert(gate, digest)) {
                    (true, before) if before.is_none_or(|before| before == digest) => {}
                    (true, _) => self.contradict(&format!("gate `{}` has changed", gate.name())),
                    (false, _) => {
                        self.contradict(&format!("gate `{}` belongs to another proposal", gate.name()))
                    }
                }
            }
            Look::Absent => {}
            Look::Bad(why) => {
                let text = format!("gate `{}` is not valid: {why}", gate.name());
                self.unreadable = Some(text.clone());
                self.remark(text);
            }
            Look::Unreachable(why) => return Heard::Away(why),
        }
        Heard::Yes
    }

    /// Takes what a gate says into the view; false when it answers something else.
    fn accept_gate(&mut self, gate: Gate, fact: Fact) -> bool {
        let number = self.rollout.number;
        let plan = self.gates.get(&Gate::Plan).copied();
        match (gate, fact) {
            (Gate::Plan, Fact::Plan(said))
                if said.rollout == number && said.proposal == self.rollout.digest =>
            {
                self.why = Some(said.why);
                self.view.plan = match (said.decision, said.at) {
                    (facts::PlanDecision::Commit, Some(at)) => Some(Plan::Commit { at: at.as_millisecond() }),
                    (facts::PlanDecision::Commit, None) => return false,
                    (facts::PlanDecision::Abort, _) => Some(Plan::Abort),
                };
            }
            (Gate::Go, Fact::Go(said)) if said.rollout == number && Some(said.plan) == plan => {
                self.why = Some(said.why);
                self.view.go = Some(match said.decision {
                    facts::GoDecision::Go => Go::Go,
                    facts::GoDecision::Cancel => Go::Cancel,
                });
            }
            (Gate::Start, Fact::Start(said)) if said.rollout == number && Some(said.plan) == plan => {
                self.view.start = Some(match said.decision {
                    facts::StartDecision::Start => StartGate::Start,
                    facts::StartDecision::Back => StartGate::Back,
                });
            }
            (Gate::Outcome, Fact::Outcome(said)) if said.rollout == number && Some(said.answers) == plan => {
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
    pub fn remember_gate(&mut self, gate: Gate, text: &str) {
        let looked = found(&self.rollout.gate(gate), text, None);
        let _ = self.heed_gate(gate, looked);
    }

    /// Sees that storage still holds the gates that were read, and what this node told last. What was decided once is decided for
    /// ever, so where one is gone the storage went back in time, and may have lost what was decided after it, too: nobody
    /// decides anything until all have put back what they know. Another one in its place is a contradiction.
    pub fn look_for_losses(&mut self, board: &mut dyn Board) -> Result<(), String> {
        let gates = self.texts.iter().map(|(gate, text)| (self.rollout.gate(*gate), text.clone()));
        for (name, text) in gates.chain(self.told.clone()).collect::<Vec<_>>() {
            match board.read(&name) {
                Read::Bytes(there) if there == text => {}
                // It may be a bad look only; and what is torn stands there.
                Read::Bad(_) => {}
                Read::Bytes(there) if matches!(found(&name, &there, None), Look::Bad(_)) => {}
                Read::Bytes(_) => self.contradict(&format!("`{name}` is not what was read before")),
                Read::Absent => {
                    return Err(format!("`{name}`, which this node has read, is gone: {WENT_BACK}"));
                }
                Read::Unreachable(why) => return Err(why),
            }
        }
        Ok(())
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
        let plan = self.gates.get(&Gate::Plan).copied();
        let (by, why) = (by.to_owned(), why.to_owned());
        let (gate, fact) = match (decision, plan) {
            (Decision::Plan(said), _) => {
                let (decision, at) = match said {
                    Plan::Commit { at } => (facts::PlanDecision::Commit, timestamp(at)),
                    Plan::Abort => (facts::PlanDecision::Abort, None),
                };
                let (proposal, seen) = (self.rollout.digest, self.seen(What::Vote));
                (
                    Gate::Plan,
                    Fact::Plan(facts::Plan { rollout: number, proposal, decision, at, made, by, why, seen }),
                )
            }
            (_, None) => return Heard::Away("there is no plan to decide on".into()),
            (Decision::Go(said), Some(plan)) => {
                let decision = match said {
                    Go::Go => facts::GoDecision::Go,
                    Go::Cancel => facts::GoDecision::Cancel,
                };
                let seen = self.seen(What::Armed);
                (Gate::Go, Fact::Go(facts::Go { rollout: number, plan, decision, made, by, why, seen }))
            }
            (Decision::Outcome(said), Some(answers)) => {
                let (decision, at) = match said {
                    Outcome::Keep => (facts::OutcomeDecision::Keep, None),
                    Outcome::Rollback { at } => (facts::OutcomeDecision::Rollback, timestamp(at)),
                };
                let seen = self.seen(What::Report);
                let rollout = number;
                (
                    Gate::Outcome,
                    Fact::Outcome(facts::Outcome { rollout, answers, decision, at, made, by, why, seen }),
                )
            }
        };
        self.put_gate(board, gate, &fact)
    }

    /// Puts the gate between stop and start.
    pub fn decide_start(&mut self, board: &mut dyn Board, said: StartGate, by: &str) -> Heard {
        let Some(plan) = self.gates.get(&Gate::Plan).copied() else {
            return Heard::Away("there is no plan to decide on".into());
        };
        let decision = match said {
            StartGate::Start => facts::StartDecision::Start,
            StartGate::Back => facts::StartDecision::Back,
        };
        let rollout = self.rollout.number;
        self.put_gate(
            board,
            Gate::Start,
            &Fact::Start(facts::Start { rollout, plan, decision, by: by.into() }),
        )
    }

    fn put_gate(&mut self, board: &mut dyn Board, gate: Gate, fact: &Fact) -> Heard {
        match removed_end(board, &self.rollout, self.voice.trust) {
            Ok(None) => {}
            Ok(Some(ended)) => {
                self.end(&ended, "its facts were removed since");
                return Heard::Yes;
            }
            Err(why) => return Heard::Away(why),
        }
        if let Err(why) = self.look_for_losses(board) {
            return Heard::Away(why);
        }
        let name = self.rollout.gate(gate);
        match self.voice.put(board, &self.rollout, &name, fact) {
            Look::Absent => Heard::Away("it was made, and is not there".into()),
            looked => match self.take_gate(board, gate, looked) {
                Heard::Yes => self.unreadable.clone().map_or(Heard::Yes, Heard::Bad),
                no @ (Heard::Away(_) | Heard::Bad(_)) => no,
            },
        }
    }
}
