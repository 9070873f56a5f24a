//! A member's part in a synchronous rollout.

use super::super::agreement::{Clearance, Error, Instant, OwnChecks, Verdict};
use super::turns::ON_DUTY;
use super::{Following, Member, Stage as AnyStage, by_fleet, remember};
use crate::coord::board::{Board, ClockRead};
use crate::coord::facts::{self, Fact, Yes, names};
use crate::coord::heard::Heard;
use crate::coord::rollout::Rollout;
use crate::coord::rules::gate::Gate;
use crate::coord::rules::synchronous::{
    Act, Decision, Go, Local, Outcome, Plan, Promise, Stage, Telling, act,
};
use crate::coord::rules::{Checks, Health, Ms};
use crate::coord::settings::SkewCheck;
use crate::coord::synchronous::{Synchronous, What, timestamp};
use crate::types::record::{Cause, Deadline, Reason, Record};

use super::STEPS_MAX;

/// A boot waits no longer than this for storage.
const AT_BOOT: std::time::Duration = std::time::Duration::from_secs(2);

/// What the lifecycle is to do next.
pub(super) enum Next {
    Wait,
    Switch(Ms),
    GoBack(Ms),
    Leave,
    Final(Stage),
}

impl<'a> Member<'a> {
    pub(super) fn clearance_synchronous(&mut self, record: &Record) -> Result<Clearance, Error> {
        if record.rehearsed.is_some() && self.kept.part().is_some_and(|part| !part.rehearsed) {
            self.change_part(|part| part.rehearsed = true)?;
        }
        let is_free = matches!(self.stage(), Some(Stage::Idle | Stage::Voting | Stage::Arming { .. }));
        if is_free && let Some(not_yet) = self.obstacle() {
            // Others must not count on this node: before its vote they see why it waits, after it nobody goes.
            if self.stage() == Some(Stage::Idle) {
                self.say_not_yet(&not_yet.why, not_yet.until);
            } else {
                self.refuse(&not_yet.why)?;
            }
            return Ok(Clearance::CalledOff(Reason::new(Cause::NotNow, not_yet.why)));
        }
        self.has.not_yet = None;
        Ok(match self.advance(Checks::Watching)? {
            Next::Switch(at) => {
                let late = self.synchronous().map_or(0, |follow| follow.rollout.times().late);
                let until = self.instant(at + late).map(|instant| instant.boot);
                Clearance::Go { at: self.instant(at), until }
            }
            Next::Wait => {
                let mut wait = self.wait(self.waits_for());
                wait.within = self.pause_for_plan().unwrap_or(wait.within);
                Clearance::Wait(wait)
            }
            Next::Final(_) | Next::GoBack(_) | Next::Leave => Clearance::CalledOff(by_fleet(self.said())),
        })
    }

    /// Who has voted, and is not of the few who count votes, need not hear of the plan at once: half of what its lead is longer
    /// than it must be is to spare.
    fn pause_for_plan(&self) -> Option<std::time::Duration> {
        let follow = self.synchronous()?;
        let is_waiting = self.stage() == Some(Stage::Voting) && follow.view.plan.is_none();
        let times = follow.rollout.times();
        let spare = u64::try_from((times.lead - times.lead_min()) / 2).ok()?;
        (is_waiting && follow.rank >= ON_DUTY).then(|| self.poll() + std::time::Duration::from_millis(spare))
    }

    pub(super) fn outcome_synchronous(&mut self, own: &OwnChecks) -> Result<Verdict, Error> {
        let checks = match own {
            OwnChecks::Watching => Checks::Watching,
            OwnChecks::Healthy => Checks::Good,
            OwnChecks::Failed(reason) => {
                let text = reason.text.clone();
                self.change_part(|part| part.why = Some(text))?;
                Checks::Failed
            }
        };
        let reason = |member: &Self| match own {
            OwnChecks::Failed(reason) => reason.clone(),
            OwnChecks::Watching | OwnChecks::Healthy => by_fleet(member.said()),
        };
        let (now, poll) = (self.steady(), Ms::try_from(self.poll().as_millis()).unwrap_or(Ms::MAX));
        if self.asked.is_some_and(|(last, before)| before == checks && now - last < poll) {
            // The checks are asked more often than storage.
            return Ok(Verdict::Watch(self.wait(self.waits_for())));
        }
        self.asked = Some((now, checks));
        if self.cells.is_some() {
            self.hold_place();
        }
        Ok(match self.advance(checks)? {
            Next::Final(Stage::Kept) => Verdict::Keep,
            Next::GoBack(at) => {
                // Its author's clock may be wrong: nobody waits longer than the rollout itself allows.
                let back = self.synchronous().map_or(0, |follow| follow.rollout.times().back);
                let at = at.min(self.now() + back);
                Verdict::RollBack { reason: reason(self), at: self.instant(at) }
            }
            Next::Leave | Next::Final(_) => Verdict::RollBack { reason: reason(self), at: None },
            Next::Switch(_) | Next::Wait => Verdict::Watch(self.wait(self.waits_for())),
        })
    }

    /// A moment of the fleet by this node's boot clock; nothing when it has passed.
    fn instant(&self, at: Ms) -> Option<Instant> {
        let left = u64::try_from(at - self.now()).ok()?;
        let boot = self.clock.boot() + std::time::Duration::from_millis(left);
        Some(Instant { wall: timestamp(at)?, boot })
    }

    pub(super) fn recalled_synchronous(&mut self) -> Option<Reason> {
        self.board.hurry(AT_BOOT);
        let (board, follow) = self.on_synchronous()?;
        let heard = follow.read_gates(board);
        let is_back = matches!(follow.view.outcome, Some(Outcome::Rollback { .. }));
        self.heed(&heard);
        is_back.then(|| by_fleet(self.said()))
    }

    /// The synchronous rollout under way.
    pub(super) fn synchronous(&self) -> Option<&Synchronous<'a>> {
        match &self.following {
            Some(Following::Synchronous(follow)) => Some(follow),
            Some(Following::Rolling(_)) | None => None,
        }
    }

    /// The same, and the board that it is on.
    pub(super) fn on_synchronous(&mut self) -> Option<(&mut (dyn Board + 'a), &mut Synchronous<'a>)> {
        match &mut self.following {
            Some(Following::Synchronous(follow)) => Some((self.board.as_mut(), follow)),
            Some(Following::Rolling(_)) | None => None,
        }
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        match self.kept.part()?.stage {
            AnyStage::Synchronous(stage) => Some(stage),
            AnyStage::Rolling(_) => None,
        }
    }

    pub(super) fn enter_synchronous(&mut self, stage: Stage) -> Result<(), Error> {
        self.enter(AnyStage::Synchronous(stage))
    }

    /// Takes steps until something is waited for, or the lifecycle has to act.
    pub(super) fn advance(&mut self, checks: Checks) -> Result<Next, Error> {
        for _ in 0..STEPS_MAX {
            let Some(stage) = self.stage() else { return Ok(Next::Wait) };
            if stage.is_final() {
                return Ok(Next::Final(stage));
            }
            let has_scanned = self.refresh(stage)?;
            self.note_doubt(stage)?;
            if self.is_isolated(stage) {
                return Ok(Next::Leave);
            }
            let Some(act) = self.next_act(stage, checks) else { return Ok(Next::Wait) };
            match self.in_turn(stage, act)? {
                Act::Wait => return Ok(Next::Wait),
                Act::Enter(Stage::Arming { .. }) if !self.is_seen_alone() => return Ok(Next::Wait),
                Act::Enter(stage) => {
                    self.enter_synchronous(stage)?;
                    match stage {
                        Stage::Arming { .. } => {
                            let anchor = Some(self.this_moment());
                            self.change_part(|part| part.anchor = anchor)?;
                        }
                        Stage::Vouching { .. } => self.promise = Promise::Untold,
                        // The promise was taken back; it is made again at the next look.
                        Stage::Switched { .. } => return Ok(Next::Wait),
                        Stage::Idle
                        | Stage::Voting
                        | Stage::Failing { .. }
                        | Stage::Left
                        | Stage::Kept
                        | Stage::GoneBack => {}
                    }
                }
                Act::Switch { at } => return Ok(Next::Switch(at)),
                Act::GoBack { at } => return Ok(Next::GoBack(at)),
                Act::Leave => return Ok(Next::Leave),
                Act::Tell(telling) => {
                    // What was refused is taken back at once: whoever is begun anew could not tell it from what got no answer.
                    if !self.tell(telling)? && self.promise != Promise::Refused {
                        return Ok(Next::Wait);
                    }
                }
                Act::Decide(decision) => {
                    if !self.decide(decision, stage, has_scanned)? {
                        return Ok(Next::Wait);
                    }
                }
            }
        }
        Ok(Next::Wait)
    }

    pub(super) fn next_act(&mut self, stage: Stage, checks: Checks) -> Option<Act> {
        let clock_is_good = self.clock_is_good(stage)?;
        let (now, has_storage, can_write) = (self.now(), self.trouble.is_none(), self.unwritten.is_none());
        let is_undecided = self.synchronous()?.view.plan.is_none();
        let vote_by = if is_undecided { self.vote_by() } else { Ms::MAX };
        let follow = self.synchronous()?;
        let plan_by = plan_by(&follow.rollout, now);
        let promise = self.promise;
        let local = Local { now, vote_by, plan_by, clock_is_good, has_storage, can_write, promise, checks };
        Some(act(stage, &follow.view, local, &follow.rollout.times()))
    }

    /// This moment by both clocks.
    fn this_moment(&self) -> Deadline {
        let boot_ms = u64::try_from(self.clock.boot().as_millis()).unwrap_or(u64::MAX);
        Deadline { boot_id: self.clock.boot_id(), boot_ms, wall: self.clock.wall() }
    }

    /// Reads what matters now. Says whether facts of members were read, and all that there are.
    pub(super) fn refresh(&mut self, stage: Stage) -> Result<bool, Error> {
        if self.kept.take_handed()?
            && let (Some(part), Some((_, follow))) = (self.kept.part().cloned(), self.on_synchronous())
        {
            remember(follow, &part);
        }
        self.beat();
        let now = self.now();
        let Some((board, follow)) = self.on_synchronous() else {
            return Ok(false);
        };
        let mut heard = follow.read_gates(board);
        if let (Heard::Yes, Some(why)) = (&heard, &follow.unreadable) {
            heard = Heard::Bad(why.clone());
        }
        if heard.is_yes() {
            heard = follow.read_own(board);
        }
        let (rank, members) = (follow.rank, follow.view.members.len());
        let times = follow.rollout.times();
        let is_late = match follow.view.plan {
            Some(Plan::Commit { at }) => now > times.switched_by(at),
            Some(Plan::Abort) | None => false,
        };
        self.heed(&heard);
        self.note_gates()?;
        if !heard.is_yes() {
            return Ok(false);
        }
        if !self.has_assured {
            if let Err(why) = self.learn_removed_end() {
                self.heed(&Heard::Away(why));
                return Ok(false);
            }
            let looked = self.on_synchronous().map(|(board, follow)| follow.look_for_losses(board));
            if let Some(Err(why)) = looked {
                self.heed(&Heard::Away(why));
                return Ok(false);
            }
            self.has_assured = true;
        }
        let (turn, whats): (&str, &[What]) = match stage {
            Stage::Idle | Stage::Voting => ("read votes", &[What::Vote]),
            Stage::Arming { .. } => ("read armed", &[What::Armed]),
            _ if is_late => ("read reports late", &[What::Switched, What::Report]),
            _ => ("read reports", &[What::Report]),
        };
        if !self.may_scan(turn, times.poll, rank, members) {
            return Ok(false);
        }
        let Some((board, follow)) = self.on_synchronous() else {
            return Ok(false);
        };
        for what in whats {
            let heard = follow.scan(board, *what);
            if !heard.is_yes() {
                self.heed(&heard);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes down the gates that were read: they hold even if the storage shows them no more, and it may have to get them back.
    pub(super) fn note_gates(&mut self) -> Result<(), Error> {
        let (Some(follow), Some(part)) = (self.synchronous(), self.kept.part()) else { return Ok(()) };
        let read = follow.texts.iter().map(|(gate, text)| (follow.rollout.gate_name(*gate), text.clone()));
        let new: Vec<_> = read.filter(|(gate, _)| !part.gates.contains_key(gate)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.change_part(|part| part.gates.extend(new))
    }

    /// Whether this node's clock agrees with the storage's; measured when it is about to matter. Nothing: it could not be
    /// measured just now, and there is time to try again.
    fn clock_is_good(&mut self, stage: Stage) -> Option<bool> {
        let now = self.now();
        let follow = self.synchronous()?;
        let times = follow.rollout.times();
        let latest = plan_by(&follow.rollout, now);
        let at = match follow.view.plan {
            // One that lies too far ahead is this clock's fault, or its author's: the reason should say which.
            Some(Plan::Commit { at })
                if stage == Stage::Voting && (now >= at - times.lead || at > latest) =>
            {
                at
            }
            Some(Plan::Commit { .. } | Plan::Abort) | None => return Some(true),
        };
        let seen = match self.clock_seen {
            Some(seen) => seen,
            None => match self.board.clock(&names::node(&self.kept.own.node)) {
                ClockRead::Offset { offset_ms, error_ms } => {
                    *self.clock_seen.insert(facts::ClockSeen { offset_ms, error_ms })
                }
                // A board may have no clock at all.
                ClockRead::Unknown if self.settings.skew_check == SkewCheck::Unchecked => return Some(true),
                ClockRead::Unknown => return (now > at - times.window()).then_some(false),
            },
        };
        Some(!self.is_off(seen))
    }

    /// Whether a clock that was seen so may not hold an instant.
    pub(super) fn is_off(&self, seen: facts::ClockSeen) -> bool {
        let Some(follow) = self.synchronous() else { return false };
        let skew_ms = f64::from(follow.rollout.proposal.t.skew_ms);
        // Beyond what the storage's stamps can tell, the kernel's own word on its clock is asked for.
        let can_tell = seen.error_ms <= skew_ms;
        let agrees =
            seen.offset_ms.abs() - seen.error_ms <= skew_ms && (can_tell || self.clock.is_synchronised());
        self.settings.skew_check != SkewCheck::Unchecked && !agrees
    }

    /// Tells a fact of this node; whether storage heard it.
    pub(super) fn tell(&mut self, telling: Telling) -> Result<bool, Error> {
        let (node, instance) = (self.node(), self.instance());
        let Some(part) = self.kept.part().cloned() else { return Ok(false) };
        let (now, clock) = (self.clock.wall(), self.clock_seen);
        let Some((board, follow)) = self.on_synchronous() else {
            return Ok(false);
        };
        let (rollout, proposal) = (follow.rollout.number, follow.rollout.digest);
        let plan = follow.gates.get(&Gate::Plan).copied().unwrap_or(proposal);
        let at = match follow.view.plan {
            Some(Plan::Commit { at }) => timestamp(at).unwrap_or(now),
            Some(Plan::Abort) | None => now,
        };
        let (what, fact) = match telling {
            Telling::Vote => {
                let (running, vote, why) = (part.running, Yes::Yes, None);
                let beside = part.rehearsed.then_some(facts::Beside::Rehearsed);
                let vote = facts::Vote { rollout, proposal, node, instance, vote, why, running, beside };
                (What::Vote, Fact::Vote(vote))
            }
            Telling::Armed => {
                (What::Armed, Fact::Armed(facts::Armed { rollout, plan, node, instance, at, clock }))
            }
            Telling::Switched => {
                let moved = part.moments.switched.unwrap_or(now);
                let late_ms = moved.duration_since(at).as_secs_f64() * 1000.0;
                let (stopped, started) = (part.moments.stopped, part.moments.started);
                let step =
                    facts::Step { rollout, plan, node, instance, at: moved, late_ms, stopped, started };
                (What::Switched, Fact::Step(step))
            }
            Telling::Report(health) => {
                let why = part.why.filter(|_| health != Health::Good);
                let cause = part.cause.filter(|_| health != Health::Good);
                let (answers, gap_ms) = (plan, part.downtime_ms);
                let at = Some(now);
                let moments = facts::Moments::from(part.moments);
                let report = facts::Report {
                    rollout,
                    answers,
                    node,
                    instance,
                    health,
                    at,
                    moments,
                    why,
                    cause,
                    gap_ms,
                    took_ms: None,
                };
                (What::Report, Fact::Report(report))
            }
        };
        let me = follow.view.me;
        let heard = follow.tell(board, what, me, &fact);
        let told = follow.told.clone();
        if telling == Telling::Report(Health::Good) {
            self.promise = self.promise.told(heard.is_err());
        }
        let heard = heard.unwrap_or_else(Heard::from);
        self.heed_write(&heard);
        if self.kept.part().is_some_and(|part| part.told != told) {
            self.change_part(|part| part.told = told)?;
        }
        Ok(heard.is_yes())
    }

    /// Puts a decision when it is this node's turn; whether there is one on storage now, or more is known that it would rest on.
    pub(super) fn decide(
        &mut self,
        decision: Decision,
        stage: Stage,
        has_scanned: bool,
    ) -> Result<bool, Error> {
        // What nobody else can know is put at once; the rest only on what was read just now, and in order.
        let is_clock = decision == Decision::Go(Go::Cancel) && self.clock_is_good(stage) == Some(false);
        let is_own = is_clock || matches!(stage, Stage::Failing { .. } | Stage::Left);
        let node = self.node();
        let rank = self.synchronous().map_or(0, |follow| follow.rank);
        let what = match decision {
            Decision::Plan(Plan::Commit { .. }) => "commit",
            Decision::Plan(Plan::Abort) => "abort",
            Decision::Go(Go::Go) => "go",
            Decision::Go(Go::Cancel) => "cancel",
            Decision::Outcome(Outcome::Keep) => "keep",
            Decision::Outcome(Outcome::Rollback { .. }) => "rollback",
        };
        // Every second before a rollback is one of two releases in one fleet: nobody lets others go first.
        let is_urgent = matches!(decision, Decision::Outcome(Outcome::Rollback { .. }));
        if !is_own && (!has_scanned || !(is_urgent || self.is_my_turn(what, rank))) {
            return Ok(false);
        }
        if is_urgent && self.has_new_waiver() {
            return Ok(true);
        }
        if !is_own {
            self.read_the_rest(decision);
        }
        let (why, missing) = (self.why(decision), self.missing(decision));
        let why = self.with_their_words(why, &missing);
        let (by, now) = (node.as_str(), self.clock.wall());
        let Some((board, follow)) = self.on_synchronous() else {
            return Ok(false);
        };
        let decision = match (decision, follow.rollout.proposal.not_before) {
            (Decision::Plan(Plan::Commit { at }), Some(not_before)) => {
                Decision::Plan(Plan::Commit { at: at.max(not_before.as_millisecond()) })
            }
            (decision, _) => decision,
        };
        let heard = follow.decide(board, decision, now, by, &why);
        self.heed_write(&heard);
        Ok(heard.is_yes())
    }

    /// Whether somebody is waived of whom this was not known yet: nobody is brought back for the sake of those. Where storage does
    /// not answer, nobody waits for it.
    fn has_new_waiver(&mut self) -> bool {
        let Some((board, follow)) = self.on_synchronous() else { return false };
        let count = |follow: &Synchronous<'_>| follow.view.members.iter().filter(|seen| seen.waived).count();
        let before = count(follow);
        let _ = follow.read_waivers(board);
        count(follow) != before
    }

    /// Of whom facts are missing is only known when all were looked for: the rules need the first that is missing.
    fn read_the_rest(&mut self, decision: Decision) {
        let whats: &[What] = match decision {
            Decision::Plan(Plan::Abort) => &[What::Vote],
            Decision::Go(Go::Cancel) => &[What::Armed],
            Decision::Outcome(Outcome::Rollback { .. }) => &[What::Switched, What::Report],
            Decision::Plan(Plan::Commit { .. }) | Decision::Go(Go::Go) | Decision::Outcome(Outcome::Keep) => {
                return;
            }
        };
        let Some((board, follow)) = self.on_synchronous() else { return };
        // A reason may be short of names; it is never waited for.
        let _ = follow.scan_all(board, whats);
    }
}

/// The latest instant that a plan of this rollout may name, read now: its author may have waited for `not_before`, and both
/// clocks may be off by as much as is allowed.
fn plan_by(rollout: &Rollout, now: Ms) -> Ms {
    let earliest = rollout.proposal.not_before.map_or(now, |not_before| not_before.as_millisecond());
    (now + rollout.times().lead).max(earliest) + 2 * Ms::from(rollout.proposal.t.skew_ms)
}
