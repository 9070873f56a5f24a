//! A member's part in a rolling rollout.

use std::time::Duration;

use super::super::agreement::{Clearance, Error};
use super::own::{Soaking, said_of};
use super::words::without_this_node;
use super::{Following, Member, STEPS_MAX, Stage as AnyStage, by_fleet};
use crate::coord::board::Board;
use crate::coord::facts;
use crate::coord::rolling::Rolling;
use crate::coord::rules::Health;
use crate::coord::rules::rolling::{Act, Decision, End, Local, Stage, act};
use crate::types::Version;
use crate::types::record::{Blame, Cause, Deadline, Phase, Reason, Record};

/// So many members may wait before each of them looks less often,
const CROWD: usize = 10;
/// down to once in so many times.
const PAUSE_MAX: usize = 30;

/// What the lifecycle is to do next.
pub(super) enum Next {
    Wait,
    Switch,
    GoBack,
    Off,
}

impl<'a> Member<'a> {
    pub(super) fn clearance_rolling(&mut self) -> Result<Clearance, Error> {
        if let Some(not_yet) = self.obstacle() {
            self.say_not_yet(&not_yet.why, not_yet.until);
            return Ok(Clearance::CalledOff(Reason::new(Cause::NotNow, not_yet.why)));
        }
        self.has.not_yet = None;
        Ok(match self.advance_rolling()? {
            Next::Switch => Clearance::NOW,
            Next::Wait => {
                let mut wait = self.wait(self.place());
                wait.within = self.pause_rolling();
                Clearance::Wait(wait)
            }
            Next::Off | Next::GoBack => Clearance::CalledOff(by_fleet(self.end())),
        })
    }

    /// This node had its turn when its process ended, before the pointer moved: it goes on with it. Going back would use the turn
    /// up, and the rollout would wait for a person. Where it may not go on, its services may still be stopped: it gives its place
    /// free when they run again, so nothing is said of it here.
    pub(super) fn clearance_resumed(&mut self) -> Result<Clearance, Error> {
        let may_try = self.obstacle().is_none() && self.refresh_rolling();
        let local = self.local_rolling()?;
        let is_its_turn = |(stage, follow): (Stage, &Rolling<'_>)| {
            act(stage, &follow.view, local, follow.limits()) == Act::Switch
        };
        if may_try && self.rolling_stage().zip(self.rolling()).is_some_and(is_its_turn) {
            return Ok(Clearance::NOW);
        }
        let text = "interrupted before the pointer moved";
        Ok(Clearance::CalledOff(Reason::new(Cause::NotNow, text)))
    }

    /// The rolling rollout under way: of nodes, or of cells.
    pub(super) fn rolling(&self) -> Option<&Rolling<'a>> {
        match &self.following {
            Some(Following::Rolling(follow)) => Some(follow),
            Some(Following::Synchronous(_)) => self.cells.as_deref(),
            None => None,
        }
    }

    /// The same, and the board that it is on.
    pub(super) fn on_rolling(&mut self) -> Option<(&mut (dyn Board + 'a), &mut Rolling<'a>)> {
        match &mut self.following {
            Some(Following::Rolling(follow)) => Some((self.board.as_mut(), follow)),
            Some(Following::Synchronous(_)) => Some((self.board.as_mut(), self.cells.as_deref_mut()?)),
            None => None,
        }
    }

    pub(super) fn rolling_stage(&self) -> Option<Stage> {
        match self.kept.part()?.stage {
            AnyStage::Rolling(stage) => Some(stage),
            AnyStage::Synchronous(_) => None,
        }
    }

    /// Takes steps until something is waited for, or the lifecycle has to act.
    pub(super) fn advance_rolling(&mut self) -> Result<Next, Error> {
        // What this node has only written down is no reason to ask storage anew.
        let mut is_read = false;
        for _ in 0..STEPS_MAX {
            let Some(stage) = self.rolling_stage() else { return Ok(Next::Wait) };
            if !is_read && !self.refresh_rolling() {
                return Ok(Next::Wait);
            }
            is_read = false;
            let local = self.local_rolling()?;
            let Some(follow) = self.rolling() else { return Ok(Next::Wait) };
            match act(stage, &follow.view, local, follow.limits()) {
                Act::Wait => return Ok(if is_over(stage) { Next::Off } else { Next::Wait }),
                Act::Enter(stage) => {
                    is_read = matches!(stage, Stage::Taking(_));
                    self.enter(AnyStage::Rolling(stage))?;
                }
                Act::Switch => return Ok(Next::Switch),
                Act::GoBack => return Ok(Next::GoBack),
                Act::Take { at, is_back } => {
                    if !self.take(at, is_back) {
                        return Ok(Next::Wait);
                    }
                    if let Stage::Taking(_) = stage {
                        // What stands there was read along, and all else right before.
                        is_read = true;
                        self.place_seen = Some(self.clock.boot());
                        self.begin_turn();
                    }
                }
                Act::Report(health) | Act::ReportReturn(health) => {
                    let is_back = matches!(stage, Stage::Returned { .. });
                    if !self.report_rolling(health, is_back) {
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

    /// What this node knows of itself, for the rules.
    pub(super) fn local_rolling(&mut self) -> Result<Local, Error> {
        let has_soaked = self.has_soaked()?;
        let now = self.fair_now();
        let rollout = self.rolling().map(|follow| &follow.rollout);
        Ok(Local {
            is_next: self.is_next(),
            has_soaked,
            is_early: rollout.is_some_and(|rollout| rollout.begins_after(now).is_some()),
            is_expired: rollout.is_some_and(|rollout| now > rollout.proposal.expires),
        })
    }

    pub(super) fn refresh_rolling(&mut self) -> bool {
        let (extent, stage) = (self.extent(), self.rolling_stage());
        if Self::is_at_rest(extent) {
            self.beat_at_rest();
        } else {
            self.beat();
        }
        let (steady, listed) = (self.steady(), self.listed);
        let known = self.kept.part().map(said_of).unwrap_or_default();
        let Some((_, follow)) = self.on_rolling() else { return false };
        if let Some(Stage::Taking(at) | Stage::Returning(at)) = stage {
            follow.view.row = at.row;
        }
        let mut heard = self.read_extent(extent);
        let Some((board, follow)) = self.on_rolling() else { return false };
        if heard.is_yes() {
            heard = follow.put_back(board, &known);
        }
        let pause = follow.rollout.times().poll * 10;
        let is_due =
            heard.is_yes() && follow.view.is_whole && listed.is_none_or(|last| steady - last >= pause);
        if is_due {
            heard = follow.read_waivers(board);
        }
        let words = follow.words.clone();
        if is_due {
            self.listed = Some(steady);
        }
        self.heed(&heard);
        self.watch_slot(extent);
        if words != known {
            let noted = self.change_part(|part| part.gates.extend(words));
            super::logged("remember what was said of the rollout", noted);
        }
        heard.is_yes()
    }

    /// Whether the open wave has been done for as long as it must, as this node saw it.
    fn has_soaked(&mut self) -> Result<bool, Error> {
        let Some(follow) = self.rolling() else { return Ok(false) };
        let soak = Duration::from_millis(u64::try_from(follow.terms.soak.ms()).unwrap_or(0));
        let wave = follow.view.wave;
        let is_done = follow.view.are_good(wave + 1);
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

    pub(super) fn deadline(&self, within: Duration) -> Deadline {
        let boot_ms = u64::try_from((self.clock.boot() + within).as_millis()).unwrap_or(u64::MAX);
        let signed = jiff::SignedDuration::try_from(within).unwrap_or_default();
        let wall = self.clock.wall().saturating_add(signed).unwrap_or(jiff::Timestamp::MAX);
        Deadline { boot_id: self.clock.boot_id(), boot_ms, wall }
    }

    /// The more wait, the less often each looks: somebody looks often enough.
    pub(super) fn pause_rolling(&self) -> Duration {
        let Some(follow) = self.rolling() else { return self.poll() };
        if follow.rollout.has_slots() {
            return self.pause_in_slot();
        }
        let times = (follow.waiting() / CROWD).clamp(1, PAUSE_MAX);
        self.poll() * u32::try_from(times).unwrap_or(1)
    }

    /// Says that this node cannot: nobody waits for it. It may come to it yet, unless it holds a place already: that it gives
    /// free.
    pub(super) fn refuse_rolling(&mut self, stage: Stage, why: &str) -> Result<(), Error> {
        match stage {
            Stage::Waiting | Stage::Taking { .. } => {}
            Stage::Done { .. } | Stage::Returning { .. } | Stage::Returned { .. } | Stage::Over => {
                return Ok(());
            }
        }
        self.refresh_rolling();
        let (node, instance) = (self.node(), self.instance());
        let Some((board, follow)) = self.on_rolling() else { return Ok(()) };
        let view = &follow.view;
        if view.ticket_of(view.me, false).is_some() {
            self.enter(AnyStage::Rolling(Stage::Done { health: Health::Left }))?;
            self.advance_rolling()?;
            return self.close();
        }
        let heard = follow.refuse(board, &node, &instance, why);
        self.heed_write(&heard);
        Ok(())
    }

    /// Whether storage shows the report now. Where something stands in its place that says nothing, it never will.
    fn report_rolling(&mut self, health: Health, is_back: bool) -> bool {
        let (node, instance) = (self.node(), self.instance());
        let part = self.kept.part();
        let (why, gap_ms) = part.map(|part| (part.why.clone(), part.downtime_ms)).unwrap_or_default();
        let moments = part.map(|part| part.moments.into()).unwrap_or_default();
        let cause = part.and_then(|part| part.cause.clone()).filter(|_| health != Health::Good);
        let at = Some(self.clock.wall());
        let took_ms = self.turn_took().and_then(|took| u64::try_from(took).ok());
        let Some((board, follow)) = self.on_rolling() else { return false };
        let report = facts::Report {
            rollout: follow.rollout.number,
            answers: follow.rollout.digest,
            node,
            instance,
            health,
            at,
            moments,
            why: why.filter(|_| health != Health::Good),
            cause,
            gap_ms,
            took_ms,
        };
        let me = follow.view.me;
        let heard = follow.report(board, me, is_back, report);
        let mine = follow.view.members.get(me);
        let is_there = mine.is_some_and(|mine| if is_back { mine.returned } else { mine.report }.is_some());
        self.heed(&heard);
        heard.is_yes() && is_there
    }

    pub(super) fn decide_rolling(&mut self, decision: Decision) -> bool {
        let node = self.node();
        let rank = self.rolling().map_or(0, |follow| follow.rank);
        let what = match decision {
            Decision::Halt => "halt".to_owned(),
            Decision::Wave(wave) => format!("wave {wave}"),
            Decision::End(_) => "end".to_owned(),
        };
        let now = self.clock.wall();
        // A halt is never waited for.
        if decision != Decision::Halt && !self.is_my_turn(&what, rank) {
            return false;
        }
        let Some((board, follow)) = self.on_rolling() else { return false };
        let refusing = follow.refusing();
        let with_refusals = |some: &str, none: &str| {
            refusing.as_ref().map_or_else(|| none.to_owned(), |said| format!("{some}; {said}"))
        };
        let why = match decision {
            Decision::Halt => {
                let why = follow.inconsistency().cloned().or_else(|| follow.failure());
                why.unwrap_or_else(|| "too many failed".into())
            }
            Decision::Wave(_) => String::new(),
            Decision::End(End::Keep) => with_refusals("all others are healthy", "all are healthy"),
            Decision::End(End::Partial) => with_refusals("its time is over", "its time is over"),
            Decision::End(End::Halted | End::Void) => follow.why.clone().unwrap_or_default(),
        };
        let heard = follow.decide(board, decision, now, node.as_str(), &why);
        self.heed(&heard);
        heard.is_yes()
    }

    pub(super) fn place(&self) -> String {
        let Some(follow) = self.rolling() else { return "the fleet".into() };
        let number = follow.rollout.number;
        let mine = follow.view.members.get(follow.view.me).map_or(0, |member| member.wave);
        if let Some(moment) = follow.rollout.begins_after(self.clock.wall()) {
            return format!("rollout {number}: nobody begins before {moment:.0}");
        }
        if mine > follow.view.wave {
            return format!("rollout {number}: wave {mine}, which is not open yet");
        }
        if !follow.view.is_whole {
            return match follow.ahead() {
                0 => format!("rollout {number}: its turn, the next one in its slot"),
                1 => format!("rollout {number}: its turn, after one other in its slot"),
                ahead => format!("rollout {number}: its turn, after {ahead} others in its slot"),
            };
        }
        let at_once = follow.terms.at_once();
        format!("rollout {number}: a place ({} of {at_once} are taken)", follow.view.unfinished())
    }

    pub(super) fn end(&self) -> String {
        let Some(follow) = self.rolling() else { return "the fleet".into() };
        let number = follow.rollout.number;
        let why = follow.why.clone().unwrap_or_default();
        let goes_on = !follow.view.halt && !follow.view.contradiction;
        let is_waived = follow.view.members.get(follow.view.me).is_some_and(|member| member.waived);
        match follow.view.end {
            Some(End::Keep) => format!("rollout {number} was kept without this node: the next run follows"),
            Some(End::Partial) => format!("the time of rollout {number} was over"),
            Some(End::Void) => format!("rollout {number} was ended by an operator: {why}"),
            None if goes_on && is_waived => without_this_node(number),
            // Another machine has done it: a copy of this disk, or this one before it was put back.
            None if goes_on => {
                format!("this node's turn in rollout {number} was over: it follows when that is kept")
            }
            Some(End::Halted) | None => format!("rollout {number} was stopped: {why}"),
        }
    }

    pub(super) fn moved_rolling(&mut self, record: &Record) -> Result<(), Error> {
        let Some(stage) = self.rolling_stage() else { return Ok(()) };
        if let Stage::Returning { .. } | Stage::Returned { .. } = stage {
            return self.returned(record);
        }
        let comes_to_nothing = matches!(record.phase, Phase::Cancelled { .. } | Phase::RolledBack { .. });
        if comes_to_nothing && self.is_stranger()? {
            // A copy's word would give the place free of the node that is at work.
            return self.enter(AnyStage::Rolling(Stage::Done { health: Health::Left }));
        }
        let (health, why) = match &record.phase {
            Phase::Trial { .. } => {
                let (moments, running) = (record.moments, Some(record.to.version.clone()));
                return self.change_part(|part| {
                    part.moments = moments;
                    part.running = running;
                });
            }
            Phase::Staged | Phase::Warming | Phase::Switching | Phase::RollingBack { .. } => return Ok(()),
            Phase::Committed => (Health::Good, None),
            Phase::RolledBack { reason } => (health_of(reason.kind), Some(reason.text.clone())),
            Phase::Cancelled { reason } => match (stage, reason.kind) {
                (Stage::Waiting, Cause::NotNow | Cause::Baseline | Cause::Units | Cause::Operator) => {
                    self.say_not_yet(&reason.text, None);
                    return Ok(());
                }
                // Before its turn, but a failure like any other: it counts.
                (Stage::Waiting, Cause::Rehearsal) => (Health::Failed, Some(reason.text.clone())),
                (
                    Stage::Waiting
                    | Stage::Done { .. }
                    | Stage::Over
                    | Stage::Returning { .. }
                    | Stage::Returned { .. },
                    _,
                ) => return self.close(),
                (Stage::Taking { .. }, cause) => (health_of(cause), Some(reason.text.clone())),
            },
        };
        let running = match record.phase {
            Phase::Committed => Some(record.to.version.clone()),
            _ => record.from.as_ref().map(|from| from.version.clone()),
        };
        let downtime_ms = record.downtime_ms;
        let is_by_hand = matches!(
            &record.phase,
            Phase::RolledBack { reason } | Phase::Cancelled { reason } if reason.kind == Cause::Operator
        );
        self.change_part(|part| {
            part.running = running;
            part.by_hand |= is_by_hand;
            part.why = why;
            part.downtime_ms = downtime_ms;
        })?;
        // After a crash the end may be told again: the first word stands.
        if !matches!(stage, Stage::Done { .. }) {
            self.enter(AnyStage::Rolling(Stage::Done { health }))?;
        }
        // Who does not stay on the release gives its place free, and a copy would give that of the node at work: the next run
        // says it.
        if health != Health::Good && self.may_be_copy() {
            return Ok(());
        }
        self.look_in_rolling()?;
        self.close()
    }

    /// The journal says how far going back after a halt has come.
    fn returned(&mut self, record: &Record) -> Result<(), Error> {
        match &record.phase {
            Phase::RolledBack { .. } => {}
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. }
            | Phase::Committed
            | Phase::Cancelled { .. } => return Ok(()),
        }
        let running = record.from.as_ref().map(|from| from.version.clone());
        self.came_back(running, record.downtime_ms)
    }

    /// It runs the release before, and says so. Also where nothing had to be done for it: a person was there first, or it had gone
    /// back before, and storage has lost its word.
    pub(super) fn came_back(
        &mut self,
        running: Option<Version>,
        downtime_ms: Option<u64>,
    ) -> Result<(), Error> {
        let now = self.clock.wall();
        self.change_part(|part| {
            part.running = running;
            part.downtime_ms = downtime_ms.or(part.downtime_ms);
            part.back_at.get_or_insert(now);
        })?;
        // After a crash the end may be told again: the first word stands, or this node would go back once more.
        if let Some(Stage::Returning { .. }) = self.rolling_stage() {
            self.enter(AnyStage::Rolling(Stage::Returned { health: Health::Good }))?;
        }
        self.look_in_rolling()?;
        self.close()
    }

    /// Neither release is healthy here: the place stays taken, and it counts as a failure.
    pub(super) fn gave_up_rolling(&mut self, why: &str) -> Result<(), Error> {
        let health = Health::Broken;
        let stage = match self.rolling_stage() {
            Some(Stage::Taking { .. }) => Stage::Done { health },
            Some(Stage::Returning { .. }) => Stage::Returned { health },
            Some(Stage::Waiting | Stage::Done { .. } | Stage::Returned { .. } | Stage::Over) | None => {
                return Ok(());
            }
        };
        self.change_part(|part| part.why = Some(why.to_owned()))?;
        self.enter(AnyStage::Rolling(stage))?;
        self.look_in_rolling()?;
        Ok(())
    }

    /// Whether nobody begins in the rollout under way any more, and this node has no ticket in it.
    pub(super) fn is_off_rolling(&mut self) -> bool {
        self.refresh_rolling()
            && self.rolling().is_some_and(|follow| {
                let view = &follow.view;
                let has_ticket = [false, true].iter().any(|back| view.ticket_of(view.me, *back).is_some());
                (view.end.is_some() || view.halt) && !has_ticket
            })
    }

    /// Whether the rollout under way has come to its end.
    pub(super) fn has_ended_rolling(&mut self) -> bool {
        self.rolling().is_some_and(|follow| follow.is_settled())
    }
}

/// What a node that did not stay on the release says of it: only the release's own fault counts against the rollout.
fn health_of(cause: Cause) -> Health {
    match cause.blame() {
        Blame::Release | Blame::Fleet => Health::Failed,
        Blame::Node | Blame::Operator | Blame::Nobody => Health::Left,
    }
}

fn is_over(stage: Stage) -> bool {
    matches!(stage, Stage::Over | Stage::Done { .. } | Stage::Returned { .. })
}
