//! What operators do with a rollout that is under way: stop it, end it whatever stands there, go on without somebody.

use jiff::Timestamp;

use super::board::Done;
use super::facts::{self, Fact, Fleet, names};
use super::heard::Heard;
use super::lists::replaced;
use super::look::{Look, put_text};
use super::name::NodeName;
use super::operate::{Error, Operator, refused};
use super::rolling::Rolling;
use super::rollout::Rollout;
use super::rules::gate;
use super::rules::rolling::{At, Decision as RollingDecision, End};
use super::rules::synchronous::{Decision, Go, Outcome, Plan};
use super::settings::Mode;
use super::standing::{Ended, How, Standing};
use super::synchronous::Synchronous;

impl Operator<'_> {
    /// Stops a rollout: by the first gate that is still open. Says what it came to.
    pub fn abort(&mut self, rollout: &Rollout, why: &str, now: Timestamp) -> Result<&'static str, Error> {
        if rollout.is_signed() {
            // What nobody believes would only damage the gate that it is put in.
            self.seal(&rollout.decisions().gate("void"), &self.void_of(rollout, why))?;
        }
        // Its proposer may have died between the proposal's directory and the proposal, or storage lost it.
        let _ = self.board.prepare(&rollout.decisions().directory());
        match rollout.proposal.mode {
            Mode::Rolling => self.halt(rollout, why, now),
            Mode::Cells => {
                let halted = self.halt(rollout, why, now)?;
                self.call_off_cells(rollout, why, now)?;
                Ok(halted)
            }
            Mode::Synchronous | Mode::Independent => self.call_off(rollout, why, now),
        }
    }

    /// Brings the cells back that are at work: each as a whole. What a cell has kept stays.
    fn call_off_cells(&mut self, rollout: &Rollout, why: &str, now: Timestamp) -> Result<(), Error> {
        let Some(mut turns) = Rolling::new(rollout.clone(), usize::MAX, self.voice()) else { return Ok(()) };
        for heard in [turns.read(self.board), turns.read_waivers(self.board)] {
            if let Heard::Away(why) = heard {
                return Err(Error::Unreachable(why));
            }
        }
        let at_work: Vec<_> = turns.at_work().cloned().collect();
        for cell in at_work {
            match self.call_off(&rollout.of_cell(&cell), why, now) {
                // It was decided meanwhile.
                Ok(_) | Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.end_without_the_waived(rollout, why, now)
    }

    /// Calls off what all switch at one instant, by the first gate that is still open.
    fn call_off(&mut self, rollout: &Rollout, why: &str, now: Timestamp) -> Result<&'static str, Error> {
        let heard = |heard: Heard| match heard {
            Heard::Yes => Ok(()),
            Heard::Away(why) | Heard::Bad(why) => Err(Error::Unreachable(why)),
        };
        let mut follow = Synchronous::new(rollout.clone(), usize::MAX, self.voice());
        let at = now.as_millisecond() + rollout.times().back;
        let gates = [
            Decision::Plan(Plan::Abort),
            Decision::Go(Go::Cancel),
            Decision::Outcome(Outcome::Rollback { at }),
        ];
        for decision in gates {
            heard(follow.read_gates(self.board))?;
            if follow.unreadable.is_some() {
                return self.put_void(rollout, why);
            }
            match gate::ended(&follow.view) {
                _ if follow.is_void => return Ok("void"),
                Some(gate::Ended::Kept) => {
                    return refused(format!(
                        "rollout {} was kept: propose the release before it to go back",
                        rollout.number
                    ));
                }
                Some(how) => return Ok(How::from(how).word()),
                None => match follow.decide(self.board, decision, now, &self.by, why) {
                    Heard::Yes => {}
                    Heard::Bad(_) => return self.put_void(rollout, why),
                    Heard::Away(why) => return Err(Error::Unreachable(why)),
                },
            }
        }
        match gate::ended(&follow.view) {
            Some(gate::Ended::Kept) | None => {
                refused(format!("rollout {} was decided otherwise meanwhile", rollout.number))
            }
            Some(how) => Ok(How::from(how).word()),
        }
    }

    fn halt(&mut self, rollout: &Rollout, why: &str, now: Timestamp) -> Result<&'static str, Error> {
        let number = rollout.number;
        let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, self.voice()) else {
            return refused("the proposal has no terms");
        };
        for heard in [follow.read(self.board), follow.read_waivers(self.board)] {
            if let Heard::Away(why) = heard {
                return Err(Error::Unreachable(why));
            }
        }
        if follow.unreadable.is_some() {
            return self.put_void(rollout, why);
        }
        if follow.view.end.is_some() {
            return refused(format!("rollout {number} has ended already"));
        }
        match follow.decide(self.board, RollingDecision::Halt, now, &self.by, why) {
            Heard::Away(why) => return Err(Error::Unreachable(why)),
            Heard::Yes if follow.view.halt => {}
            Heard::Yes | Heard::Bad(_) => return self.put_void(rollout, why),
        }
        self.end_what_is_halted(&mut follow, why, now)?;
        Ok("halted")
    }

    /// Whoever is at work finishes first. Where nobody is, a rollout that was stopped has ended.
    fn end_what_is_halted(
        &mut self,
        follow: &mut Rolling<'_>,
        why: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let is_idle = follow.view.halt && follow.view.end.is_none() && follow.view.unfinished() == 0;
        if !is_idle || follow.limits().undoes {
            return Ok(());
        }
        let why = follow.why.clone().unwrap_or_else(|| why.to_owned());
        match follow.decide(self.board, RollingDecision::End(End::Halted), now, &self.by, &why) {
            Heard::Away(why) => Err(Error::Unreachable(why)),
            Heard::Yes | Heard::Bad(_) => Ok(()),
        }
    }

    /// Ends a rollout whatever stands there: nobody begins any more, and what it was about does not count as kept. What
    /// can still be decided is decided, since members go by that.
    pub fn void(&mut self, rollout: &Rollout, why: &str, now: Timestamp) -> Result<&'static str, Error> {
        let _ = self.board.prepare(&rollout.decisions().directory());
        match self.standing(rollout)? {
            Standing::Ended(Ended { how: How::Void, .. }) => Ok("void"),
            Standing::Ended(ended) => {
                refused(format!("rollout {} has ended already: {}", rollout.number, ended.how.word()))
            }
            Standing::Open if rollout.proposal.mode == Mode::Synchronous => self.abort(rollout, why, now),
            // A cell that is at work comes back as a whole, by its own gates: a word beside them is not read by all at once.
            Standing::Open if rollout.proposal.mode == Mode::Cells => {
                self.call_off_cells(rollout, why, now)?;
                self.put_void(rollout, why)
            }
            Standing::Open | Standing::Bad(_) => self.put_void(rollout, why),
        }
    }

    /// Ends a rollout that cannot go on, since storage has lost what was decided of it; also where its proposal is gone.
    pub fn end_what_was_lost(&mut self, rollout: &Rollout, why: &str) -> Result<(), Error> {
        if let Done::Unreachable(why) = self.board.prepare(&rollout.decisions().directory()) {
            return Err(Error::Unreachable(why));
        }
        self.put_void(rollout, why).map(|_| ())
    }

    fn put_void(&mut self, rollout: &Rollout, why: &str) -> Result<&'static str, Error> {
        self.put_own(&rollout.decisions().gate("void"), &self.void_of(rollout, why))?;
        Ok("void")
    }

    fn void_of(&self, rollout: &Rollout, why: &str) -> Fact {
        let (number, proposal, by) = (rollout.number, rollout.digest, self.by.clone());
        Fact::Void(facts::Void { rollout: number, proposal, by, why: why.to_owned() })
    }

    /// Lets a rollout go on without whoever holds this ticket.
    pub fn waive_ticket(
        &mut self,
        rollout: &Rollout,
        at: At,
        why: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.ensure_open(rollout)?;
        let (number, proposal, by) = (rollout.number, rollout.digest, self.by.clone());
        let (row, ticket) = (at.row, at.number);
        let fact = facts::WaiveTicket { rollout: number, proposal, row, ticket, by, why: why.to_owned() };
        self.put_own(&rollout.waive_ticket(at), &Fact::WaiveTicket(fact))?;
        self.end_without_the_waived(rollout, why, now)
    }

    /// A rolling rollout that was stopped may have waited for whom nobody waits any more.
    fn end_without_the_waived(&mut self, rollout: &Rollout, why: &str, now: Timestamp) -> Result<(), Error> {
        let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, self.voice()) else { return Ok(()) };
        for heard in [follow.read(self.board), follow.read_waivers(self.board)] {
            if let Heard::Away(why) = heard {
                return Err(Error::Unreachable(why));
            }
        }
        self.end_what_is_halted(&mut follow, why, now)
    }

    /// Frees the name of a node for another machine: the one before has no part any more.
    pub fn replace(&mut self, fleet: &Fleet, node: &NodeName, why: &str) -> Result<u32, Error> {
        let times = replaced(self.board, &fleet.id, self.trust)?.get(node).copied().unwrap_or(0) + 1;
        let fact = facts::Replace {
            fleet: fleet.id.clone(),
            node: node.clone(),
            times,
            by: self.by.clone(),
            why: why.to_owned(),
        };
        self.put_own(&names::replace(node, times), &Fact::Replace(fact))?;
        Ok(times)
    }

    /// Pins what only operators may write; what stands there already is somebody else's.
    pub(super) fn put_own(&mut self, name: &str, fact: &Fact) -> Result<(), Error> {
        let text = self.seal(name, fact)?;
        match put_text(self.board, name, &text) {
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
            Look::Found(found) if std::mem::discriminant(&found.fact) == std::mem::discriminant(fact) => {
                Ok(())
            }
            Look::Found(_) | Look::Absent | Look::Bad(_) => {
                refused(format!("something else stands in `{name}`: remove that file, and try again"))
            }
        }
    }

    fn ensure_open(&mut self, rollout: &Rollout) -> Result<(), Error> {
        match self.standing(rollout)? {
            Standing::Ended(ended) => {
                refused(format!("rollout {} has ended already: {}", rollout.number, ended.how.word()))
            }
            Standing::Open | Standing::Bad(_) => Ok(()),
        }
    }

    /// Lets a rollout go on without a member.
    pub fn waive(
        &mut self,
        rollout: &Rollout,
        node: &NodeName,
        why: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        if rollout.place_of(node).is_none() {
            return refused(format!("`{node}` is no member of rollout {}", rollout.number));
        }
        self.ensure_open(rollout)?;
        let fact = Fact::Waive(facts::Waive {
            rollout: rollout.number,
            proposal: rollout.digest,
            node: node.clone(),
            by: self.by.clone(),
            why: why.to_owned(),
        });
        self.put_own(&rollout.decisions().waive(node), &fact)?;
        self.end_without_the_waived(rollout, why, now)
    }
}
