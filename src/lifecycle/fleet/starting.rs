//! Between stop and start, where the old and the new release never serve at the same time.

use super::super::agreement::{Error, Start};
use super::{Member, STEPS_MAX, by_fleet};
use crate::coord::facts::{self, Fact};
use crate::coord::heard::Heard;
use crate::coord::rules::gate::Gate;
use crate::coord::rules::overlap::{MayStart, may_start, may_start_back};
use crate::coord::rules::synchronous::{Local, Outcome, Plan, Promise, StartGate};
use crate::coord::rules::{Checks, Ms};
use crate::coord::settings::Overlap;
use crate::coord::synchronous::What;
use crate::types::record::{Phase, Record};

impl Member<'_> {
    pub(super) fn may_start_synchronous(&mut self, record: &Record) -> Result<Start, Error> {
        let (now, has_storage) = (self.now(), self.trouble.is_none());
        let Some(follow) = self.synchronous() else { return Ok(Start::Now) };
        let Some(Plan::Commit { at }) = follow.view.plan else { return Ok(Start::Now) };
        if follow.rollout.proposal.overlap != Overlap::None {
            return Ok(Start::Now);
        }
        let is_back = matches!(record.phase, Phase::RollingBack { .. });
        let back_at = match follow.view.outcome {
            // Its author's clock may be wrong: nobody waits longer than the rollout itself allows.
            Some(Outcome::Rollback { at }) => {
                let back = follow.rollout.times().back;
                at.min(*self.stopped_by.get_or_insert(now) + back)
            }
            // Alone: going back waits for nobody.
            Some(Outcome::Keep) | None if is_back => return Ok(Start::Now),
            Some(Outcome::Keep) | None => 0,
        };
        let what = if is_back { What::Cleared } else { What::Stopped };
        for _ in 0..STEPS_MAX {
            let heard = self.read_steps(what);
            let Some(follow) = self.synchronous() else { break };
            let (times, vote_by) = (follow.rollout.times(), follow.rollout.vote_by());
            let local = Local {
                now,
                vote_by,
                plan_by: Ms::MAX,
                clock_is_good: true,
                has_storage: has_storage && heard.is_yes(),
                can_write: true,
                promise: Promise::default(),
                checks: Checks::Watching,
            };
            let next = if is_back {
                may_start_back(back_at, &follow.view, local, &times)
            } else {
                may_start(at, &follow.view, local, &times)
            };
            self.heed(&heard);
            let heard = match next {
                MayStart::Now => return Ok(Start::Now),
                MayStart::Back => {
                    return Ok(Start::RollBack(by_fleet("not all members stopped in time")));
                }
                MayStart::Wait => break,
                MayStart::TellStopped | MayStart::TellCleared => self.tell_step(what, at)?,
                MayStart::Decide(gate) => self.decide_start(gate),
            };
            if !heard {
                break;
            }
        }
        Ok(Start::Wait(self.wait("all members to stop")))
    }

    /// Reads the gates, and who else has come so far: when this node has said so itself. Before a start a gate tells those
    /// who are not on duty; when going back, nothing does.
    fn read_steps(&mut self, what: What) -> Heard {
        let Some((board, follow)) = self.on_synchronous() else {
            return Heard::Yes;
        };
        let heard = follow.read_gates(board);
        let mine = follow.view.mine();
        let (rank, members, poll) = (follow.rank, follow.view.members.len(), follow.rollout.times().poll);
        let is_due = match what {
            What::Cleared => mine.cleared,
            _ => mine.stopped && self.may_scan("read stopped", poll, rank, members),
        };
        let Some((board, follow)) = self.on_synchronous() else { return heard };
        if heard.is_yes() && is_due { follow.scan(board, what) } else { heard }
    }

    fn decide_start(&mut self, gate: StartGate) -> bool {
        let node = self.node();
        let Some((board, follow)) = self.on_synchronous() else { return false };
        let heard = follow.decide_start(board, gate, node.as_str());
        self.heed_write(&heard);
        heard.is_yes()
    }

    pub(super) fn tell_step(&mut self, what: What, at: Ms) -> Result<bool, Error> {
        let (node, instance, now) = (self.node(), self.instance(), self.clock.wall());
        let Some((board, follow)) = self.on_synchronous() else {
            return Ok(false);
        };
        let rollout = follow.rollout.number;
        let plan = follow.gates.get(&Gate::Plan).copied().unwrap_or(follow.rollout.digest);
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let late_ms = (now.as_millisecond() - at) as f64;
        let (stopped, started) = (None, None);
        let step = facts::Step { rollout, plan, node, instance, at: now, late_ms, stopped, started };
        let fact = Fact::Step(step);
        let me = follow.view.me;
        let heard = follow.tell(board, what, me, &fact).unwrap_or_else(Heard::from);
        self.heed_write(&heard);
        Ok(heard.is_yes())
    }
}
