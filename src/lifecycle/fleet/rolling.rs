//! A member's part in a rolling rollout.

use std::time::Duration;

use super::super::agreement::{Clearance, Error};
use super::own::Soaking;
use super::{Following, Member, STEPS_MAX, Stage as AnyStage, by_fleet};
use crate::coord::facts;
use crate::coord::rolling::Rolling;
use crate::coord::rules::Health;
use crate::coord::rules::rolling::{Act, Decision, End, Local, Stage, act};
use crate::types::record::{Cause, Deadline, Phase, Record};

/// What the lifecycle is to do next.
pub(super) enum Next {
    Wait,
    Switch,
    Off,
}

impl Member<'_> {
    pub(super) fn clearance_rolling(&mut self) -> Result<Clearance, Error> {
        Ok(match self.advance_rolling()? {
            Next::Switch => Clearance::Go { at: None },
            Next::Wait => Clearance::Wait(self.wait(self.place())),
            Next::Off => Clearance::CalledOff(by_fleet(self.end())),
        })
    }

    fn rolling(&mut self) -> Option<&mut Rolling> {
        match &mut self.following {
            Some(Following::Rolling(follow)) => Some(follow),
            Some(Following::Synchronous(_)) | None => None,
        }
    }

    fn rolling_stage(&self) -> Option<Stage> {
        match self.kept.part()?.stage {
            AnyStage::Rolling(stage) => Some(stage),
            AnyStage::Synchronous(_) => None,
        }
    }

    /// Takes steps until something is waited for, or the lifecycle has to act.
    pub(super) fn advance_rolling(&mut self) -> Result<Next, Error> {
        for _ in 0..STEPS_MAX {
            let Some(stage) = self.rolling_stage() else { return Ok(Next::Wait) };
            if !self.refresh_rolling() {
                return Ok(Next::Wait);
            }
            let has_soaked = self.has_soaked()?;
            let now = self.clock.wall();
            let Some(follow) = self.rolling() else { return Ok(Next::Wait) };
            let local = Local { has_soaked, is_expired: now > follow.rollout.proposal.expires };
            match act(stage, &follow.view, local, follow.limits()) {
                Act::Wait => return Ok(if is_over(stage) { Next::Off } else { Next::Wait }),
                Act::Enter(stage) => self.enter(AnyStage::Rolling(stage))?,
                Act::Switch => return Ok(Next::Switch),
                Act::Take(number) => {
                    if !self.take(number) {
                        return Ok(Next::Wait);
                    }
                }
                Act::Report(health) => {
                    if !self.report_rolling(health) {
                        return Ok(Next::Wait);
                    }
                }
                Act::Decide(decision) => {
                    if !self.decide_rolling(decision) {
                        return Ok(if is_over(stage) { Next::Off } else { Next::Wait });
                    }
                }
            }
        }
        Ok(Next::Wait)
    }

    fn refresh_rolling(&mut self) -> bool {
        self.beat();
        let (trust, steady) = (self.trust(), self.steady());
        let Self { board, following: Some(Following::Rolling(follow)), scanned, .. } = self else {
            return false;
        };
        let mut heard = follow.read(board.as_mut(), trust);
        let pause = follow.rollout.times().poll * 10;
        if heard.is_yes() && scanned.is_none_or(|last| steady - last >= pause) {
            heard = follow.read_waivers(board.as_mut(), trust);
            *scanned = Some(steady);
        }
        self.heed(&heard);
        heard.is_yes()
    }

    /// Whether the open wave has been done for as long as it must, as this node saw it.
    fn has_soaked(&mut self) -> Result<bool, Error> {
        let Some(follow) = self.rolling() else { return Ok(false) };
        let soak = Duration::from_millis(u64::try_from(follow.terms.soak.ms()).unwrap_or(0));
        let wave = follow.view.wave;
        let is_done = follow
            .view
            .members
            .iter()
            .filter(|member| member.wave <= wave && !member.waived)
            .all(|member| member.report == Some(Health::Good));
        let soaking = self.kept.part().and_then(|part| part.soaking.clone());
        match soaking.filter(|soaking| soaking.wave == wave && is_done) {
            Some(soaking) => {
                let (boot, wall) = (self.clock.boot(), self.clock.wall());
                Ok(soaking.until.remaining(&self.clock.boot_id(), boot, wall).is_zero())
            }
            None if is_done => {
                let until = self.deadline(soak);
                self.change_part(|part| part.soaking = Some(Soaking { wave, until }))?;
                Ok(soak.is_zero())
            }
            None => Ok(false),
        }
    }

    fn deadline(&self, within: Duration) -> Deadline {
        let boot_ms = u64::try_from((self.clock.boot() + within).as_millis()).unwrap_or(u64::MAX);
        let signed = jiff::SignedDuration::try_from(within).unwrap_or_default();
        let wall = self.clock.wall().saturating_add(signed).unwrap_or(jiff::Timestamp::MAX);
        Deadline { boot_id: self.clock.boot_id(), boot_ms, wall }
    }

    fn take(&mut self, number: u32) -> bool {
        let (node, instance) = (self.node(), self.instance());
        let Self { board, following: Some(Following::Rolling(follow)), .. } = self else { return false };
        let heard = follow.take(board.as_mut(), number, &node, &instance);
        self.heed(&heard);
        heard.is_yes()
    }

    fn report_rolling(&mut self, health: Health) -> bool {
        let (node, instance) = (self.node(), self.instance());
        let (why, gap_ms) =
            self.kept.part().map(|part| (part.why.clone(), part.downtime_ms)).unwrap_or_default();
        let at = Some(self.clock.wall());
        let Self { board, following: Some(Following::Rolling(follow)), .. } = self else { return false };
        let report = facts::Report {
            rollout: follow.rollout.number,
            answers: follow.rollout.digest,
            node,
            instance,
            health,
            at,
            why: why.filter(|_| health != Health::Good),
            gap_ms,
        };
        let me = follow.view.me;
        let heard = follow.report(board.as_mut(), me, report);
        self.heed(&heard);
        heard.is_yes()
    }

    fn decide_rolling(&mut self, decision: Decision) -> bool {
        let node = self.node();
        let rank = self.rolling().map_or(0, |follow| follow.rollout.rank_of(&node));
        let what = match decision {
            Decision::Halt => "halt".to_owned(),
            Decision::Wave(wave) => format!("wave {wave}"),
            Decision::End(_) => "end".to_owned(),
        };
        // A halt is never waited for.
        if decision != Decision::Halt && !self.is_my_turn(&what, rank) {
            return false;
        }
        let Self { board, following: Some(Following::Rolling(follow)), .. } = self else { return false };
        let why = match decision {
            Decision::Halt => follow.failure().unwrap_or_else(|| "too many failed".into()),
            Decision::Wave(_) => String::new(),
            Decision::End(End::Keep) => "all are healthy".into(),
            Decision::End(End::Partial) => "its time is over".into(),
            Decision::End(End::Halted) => follow.why.clone().unwrap_or_default(),
        };
        let heard = follow.decide(board.as_mut(), decision, node.as_str(), &why);
        self.heed(&heard);
        heard.is_yes()
    }

    /// What is waited for.
    fn place(&self) -> String {
        let Some(Following::Rolling(follow)) = &self.following else { return "the fleet".into() };
        let number = follow.rollout.number;
        let mine = follow.view.members.get(follow.view.me).map_or(0, |member| member.wave);
        if mine > follow.view.wave {
            return format!("rollout {number}: wave {mine}, which is not open yet");
        }
        let at_once = follow.terms.at_once;
        format!("rollout {number}: a place ({} of {at_once} are taken)", follow.view.unfinished())
    }

    fn end(&self) -> String {
        let Some(Following::Rolling(follow)) = &self.following else { return "the fleet".into() };
        let number = follow.rollout.number;
        let why = follow.why.clone().unwrap_or_default();
        format!("rollout {number} was stopped: {why}")
    }

    pub(super) fn moved_rolling(&mut self, record: &Record) -> Result<(), Error> {
        let Some(stage) = self.rolling_stage() else { return Ok(()) };
        let (health, why) = match &record.phase {
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. } => return Ok(()),
            Phase::Committed => (Health::Good, None),
            Phase::RolledBack { reason } if reason.kind == Cause::Operator => {
                (Health::Left, Some(reason.text.clone()))
            }
            Phase::RolledBack { reason } => (Health::Failed, Some(reason.text.clone())),
            Phase::Cancelled { reason } => match (stage, reason.kind) {
                (Stage::Waiting, Cause::NotNow | Cause::Operator) => return Ok(()),
                // Before its turn, but a failure like any other: it counts.
                (Stage::Waiting, Cause::Rehearsal) => (Health::Failed, Some(reason.text.clone())),
                (Stage::Waiting | Stage::Done { .. } | Stage::Over, _) => return self.close(),
                (Stage::Taking { .. }, _) => (Health::Left, Some(reason.text.clone())),
            },
        };
        let running = match record.phase {
            Phase::Committed => Some(record.to.version.clone()),
            _ => record.from.as_ref().map(|from| from.version.clone()),
        };
        let downtime_ms = record.downtime_ms;
        self.change_part(|part| {
            part.running = running;
            part.why = why;
            part.downtime_ms = downtime_ms;
        })?;
        // After a crash the end may be told again: the first word stands.
        if !matches!(stage, Stage::Done { .. }) {
            self.enter(AnyStage::Rolling(Stage::Done { health }))?;
        }
        self.advance_rolling()?;
        self.close()
    }

    /// Whether the rollout under way has come to its end.
    pub(super) fn has_ended_rolling(&mut self) -> bool {
        self.rolling().is_some_and(|follow| follow.view.end.is_some())
    }
}

fn is_over(stage: Stage) -> bool {
    matches!(stage, Stage::Over | Stage::Done { .. })
}
