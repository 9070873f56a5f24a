//! The way to the new release: clearance, switch, trial.

use std::cell::Cell;
use std::time::Duration;

use super::deadline;
use super::driver::{Did, Driver, Error, Narrator, RESUMES_MAX, Watching};
use crate::health::{Answer, Baseline, Trial};
use crate::lifecycle::agreement::{Clearance, Own, Start, Verdict};
use crate::lifecycle::application::{Application, Direction, Moment, last_words_text};
use crate::lifecycle::settings::Settings;
use crate::store::{ReadyPointer, Store};
use crate::sys::ioctl::Prompt;
use crate::types::chain;
use crate::types::record::{Cause, Deadline, Event, Reason, Record};

/// The longest sleep while a trial is watched, so that requests and signals are noticed.
pub(super) const GLANCE: Duration = Duration::from_millis(200);

/// What Ctrl-C before the switch leads to.
const INTERRUPTED: &str = "interrupted before anything was changed";

impl Driver<'_> {
    /// `Staged`: the old release must be well, and the new one is rehearsed before others are asked, if at all.
    pub(super) fn await_clearance(&mut self, record: &mut Record) -> Result<Did, Error> {
        if (self.is_interrupted)() {
            return Ok(called_off(Cause::Operator, INTERRUPTED));
        }
        // A first installation has nothing to run beside of.
        if !self.settings.rehearsal.is_on() || record.from.is_none() {
            let cleared = self.clear(record)?;
            return Ok(cleared.unwrap_or(Did::Event(Event::Cleared { rehearse: false })));
        }
        if let Err(reason) = self.judge_baseline(record) {
            return Ok(Did::Event(Event::CalledOff(reason)));
        }
        Ok(match self.application.can_rehearse(&record.to.version) {
            Ok(()) => Did::Event(Event::Cleared { rehearse: true }),
            Err(error) => Did::Event(Event::CalledOff(super::rehearsing::cannot(&error))),
        })
    }

    /// What must be so before anything stops: the old release is well, others agree, hooks do not object. The timer runs
    /// before; with others it runs once they have agreed, since that may take long. `None`: nothing is in the way.
    pub(super) fn clear(&mut self, record: &mut Record) -> Result<Option<Did>, Error> {
        let off = |reason| Ok(Some(Did::Event(Event::CalledOff(reason))));
        if let Some(reason) = self.in_the_way.map(|ask| ask(record)).transpose()?.flatten() {
            return off(reason);
        }
        let is_alone = record.rollout.is_none();
        if is_alone && let Err(reason) = self.arm(record)? {
            return off(reason);
        }
        if let Err(reason) = self.judge_baseline(record) {
            return off(reason);
        }
        if let Err(reason) = self.application.plan_data(record) {
            return off(reason);
        }
        if let Err(error) = self.store.ensure_pointer_moves() {
            return off(Reason::new(Cause::NotNow, chain(&error)));
        }
        match self.application.look_before(record, Direction::Forward) {
            Ok(before) => record.units = Some(before),
            Err(reason) => return off(reason),
        }
        match self.agreement.clearance(record)? {
            Clearance::CalledOff(reason) => return off(reason),
            Clearance::Wait(wait) => return Ok(Some(Did::Wait(wait.within, wait.why))),
            Clearance::Go { at, until } => (self.instant, self.latest) = (at, until),
        }
        if !is_alone && let Err(reason) = self.arm(record)? {
            return off(reason);
        }
        if let Err(reason) = self.application.hooks(Moment::PreSwitch, record) {
            // A hook that was ended for an operator's sake has not failed.
            let is_ended = (self.is_interrupted)();
            return if is_ended { Ok(Some(called_off(Cause::Operator, INTERRUPTED))) } else { off(reason) };
        }
        Ok(None)
    }

    fn judge_baseline(&self, record: &mut Record) -> Result<(), Reason> {
        let is_unwanted = |record: &Record| (self.is_interrupted)() || !self.is_still(record);
        judge_baseline(self.application, self.store, self.settings, self.narrator, record, &is_unwanted)
    }

    /// Writes down until when what comes next must have ended, and sees that the timer runs.
    fn arm(&mut self, record: &mut Record) -> Result<Result<(), Reason>, Error> {
        let within = self.until_instant() + self.application.bounds(record).switch;
        record.deadline = Some(deadline::after(self.clock, within));
        self.note(record)?;
        Ok(self.ensure_armed())
    }

    /// How long it is to the instant that was agreed on.
    pub(super) fn until_instant(&self) -> Duration {
        self.instant.map_or(Duration::ZERO, |instant| instant.boot.saturating_sub(self.clock.boot()))
    }

    /// Sleeps to the instant that was agreed on. False: an operator wants this to end, and is not kept waiting.
    pub(super) fn await_instant(&mut self, record: &Record) -> Result<bool, Error> {
        let Some(instant) = self.instant.take() else { return Ok(true) };
        loop {
            let left = instant.boot.saturating_sub(self.clock.boot());
            if left <= GLANCE {
                self.clock.sleep_to(instant.boot);
                return Ok(true);
            }
            let wants_back = |request: &crate::store::Request| {
                request.transaction == record.transaction && !request.commit
            };
            if (self.is_interrupted)() || self.store.request()?.as_ref().is_some_and(wants_back) {
                return Ok(false);
            }
            self.clock.sleep(GLANCE.min(left - GLANCE / 2));
        }
    }

    /// `Switching`: everything from the stop to the start. Whatever fails leads back.
    pub(super) fn switch(&mut self, record: &mut Record) -> Result<Did, Error> {
        if self.is_resumed(record)
            && self.store.active()?.as_ref() != Some(&record.to.version)
            && let Err(reason) = self.ask_again(record)?
        {
            return Ok(Did::Event(Event::Failed(reason)));
        }
        self.begin_answering(record);
        // Nothing is left for the moment itself but to stop, and to rename.
        let ready = match Self::or_failed(self.store.ready_pointer(&record.to.version)) {
            Ok(ready) => ready,
            Err(reason) => return Ok(Did::Event(Event::Failed(reason))),
        };
        let prompt = self.instant.and_then(|_| self.clock.be_prompt());
        if !self.await_instant(record)? {
            let reason = self.wants_back(record)?;
            let reason = reason.unwrap_or_else(|| Reason::new(Cause::Operator, INTERRUPTED));
            return Ok(Did::Event(Event::Failed(reason)));
        }
        if self.latest.take().is_some_and(|latest| self.clock.boot() > latest) {
            let text = "the agreed instant is long past: this node was held up";
            return Ok(Did::Event(Event::Failed(Reason::new(Cause::NotNow, text))));
        }
        let (began, stopped) = (self.clock.boot(), self.clock.wall());
        if let Err(reason) = self.stop_and_point(record, &ready, prompt)? {
            return Ok(Did::Event(Event::Failed(reason)));
        }
        record.moments.stopped = Some(stopped);
        if let Some(reason) = self.wants_back(record)? {
            return Ok(Did::Event(Event::Failed(reason)));
        }
        if let Err(reason) = self.start(record)? {
            return Ok(Did::Event(Event::Failed(reason)));
        }
        record.moments.started = Some(self.clock.wall());
        // A first installation takes nothing away from anybody.
        let away = record.from.as_ref().map(|_| self.clock.boot().saturating_sub(began));
        record.downtime_ms = away.and_then(|away| u64::try_from(away.as_millis()).ok());
        if let Err(reason) = self.application.hooks(Moment::PostSwitch, record) {
            // A hook that was ended for an operator's sake has not failed.
            let reason = self.wants_back(record)?.unwrap_or(reason);
            return Ok(Did::Event(Event::Failed(reason)));
        }
        let until = deadline::after(self.clock, self.settings.health.deadline.0);
        Ok(Did::Event(Event::Switched { until }))
    }

    /// Interrupted before the pointer moved. A fleet that counts on this node may still be waiting for the instant; data
    /// that were set aside already are older than what the old release has written since.
    fn ask_again(&mut self, record: &Record) -> Result<Result<(), Reason>, Error> {
        if record.rollout.is_some() && record.data.is_empty() {
            match self.agreement.clearance(record)? {
                Clearance::Go { at, until } => {
                    (self.instant, self.latest) = (at, until);
                    return Ok(Ok(()));
                }
                Clearance::CalledOff(reason) => return Ok(Err(reason)),
                Clearance::Wait(_) => {}
            }
        }
        Ok(Err(Reason::new(Cause::NotNow, "interrupted before the pointer moved")))
    }

    /// `prompt` holds until the pointer has moved: what comes then may wait its turn.
    fn stop_and_point(
        &self,
        record: &mut Record,
        ready: &ReadyPointer<'_>,
        prompt: Option<Prompt>,
    ) -> Result<Result<(), Reason>, Error> {
        if let Err(reason) = self.application.stop(record) {
            return Ok(Err(reason));
        }
        if record.data.is_empty() {
            match self.application.snapshot(record) {
                Err(reason) => return Ok(Err(reason)),
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    // Before the new release can write: from now on a rollback has something to bring back.
                    record.data = data;
                    if let Err(reason) = Self::or_failed(self.store.keep_journal(record)) {
                        return Ok(Err(reason));
                    }
                }
            }
        }
        let prompt = Cell::new(prompt);
        let switched = Cell::new(None);
        let pointed = ready.point(|| {
            switched.set(Some((self.clock.wall(), self.clock.boot())));
            drop(prompt.take());
        });
        if let Some((wall, boot)) = switched.get() {
            record.moments.switched = Some(wall);
            self.note_moved(record, boot);
        }
        Ok(Self::or_failed(pointed))
    }

    fn start(&mut self, record: &mut Record) -> Result<Result<(), Reason>, Error> {
        loop {
            match self.agreement.may_start(record)? {
                Start::Now => break,
                Start::Wait(wait) => {
                    self.clock.sleep(wait.within.min(GLANCE));
                    if let Some(reason) = self.wants_back(record)? {
                        return Ok(Err(reason));
                    }
                }
                Start::RollBack(reason) => return Ok(Err(reason)),
            }
        }
        let started = self.application.start(record, Direction::Forward);
        if self.settings.rehearsal.promote
            && let Err(reason) = self.application.end_rehearsal()
        {
            self.narrator.remarks(record, &reason.text);
        }
        Ok(started.map(|remarks| {
            for text in remarks {
                self.narrator.remarks(record, &text);
            }
        }))
    }

    /// Whether another process, or another boot, left the record in this phase.
    fn is_resumed(&self, record: &Record) -> bool {
        record.resumes > 0 || record.boot_id != self.clock.boot_id()
    }

    /// `Trial`: one round of checks, and what follows from it.
    pub(super) fn watch(&mut self, record: &mut Record, until: &Deadline) -> Result<Did, Error> {
        self.begin_answering(record);
        let now = self.clock.boot();
        let mut watching = match self.watching.take() {
            Some(watching) => watching,
            None => self.begin_watching(record, now),
        };
        let at = now.saturating_sub(watching.began);
        let observations = watching.watch.observe_unless(at, &|| self.is_told(record));
        let verdict = watching.trial.observe(at, &observations);
        self.note_answers(&watching.trial);
        let mut own = match verdict {
            crate::health::Verdict::Watching => Own::Watching,
            crate::health::Verdict::Healthy => Own::Healthy,
            crate::health::Verdict::Failed(why) => Own::Failed(Reason::new(
                Cause::Unhealthy,
                why + &last_words_text(&self.application.last_words()),
            )),
            crate::health::Verdict::Unproven(why) => Own::Failed(Reason::new(
                Cause::Unproven,
                why + &last_words_text(&self.application.last_words()),
            )),
        };
        let is_well = watching.trial.is_well();
        // A trial that a person must end has none of its own.
        if record.confirm && is_well && matches!(own, Own::Failed(_)) {
            own = Own::Watching;
        }
        if record.resumes > RESUMES_MAX {
            own = Own::Failed(super::boot::worn_out(record, "the trial"));
        }
        own = self.hear_operator(record, own)?;
        let remaining = until.remaining(&self.clock.boot_id(), self.clock.boot(), self.clock.wall());
        if own == Own::Watching && remaining.is_zero() {
            own = Own::Failed(too_late(record, &watching.trial, is_well));
        }
        if let (Own::Failed(reason), true) = (&own, record.no_rollback && !is_operators(&own)) {
            self.narrator.remarks(record, &format!("{}; it stays all the same, as asked for", reason.text));
            own = Own::Healthy;
        }
        if own == Own::Healthy {
            own = self.ask_hooks(record, &mut watching);
            if let (Own::Failed(_), Some(reason)) = (&own, self.wants_back(record)?) {
                own = Own::Failed(reason);
            }
        }
        self.narrator.watched(record, &watching.trial, &own);
        self.watching = Some(watching);
        self.show_alive(record)?;
        self.judge(record, &own, remaining)
    }

    /// Whoever waits for a fleet may do so for longer than any node's own work takes, and shows meanwhile that it lives.
    fn show_alive(&self, record: &mut Record) -> Result<(), Error> {
        let patience = self.settings.fleet_patience();
        let left = record.deadline.as_ref().map(|deadline| deadline::remaining(self.clock, deadline));
        if patience.is_zero() || left.is_some_and(|left| left > patience / 2) {
            return Ok(());
        }
        record.deadline = Some(deadline::after(self.clock, patience));
        self.keep(record)
    }

    /// The hooks have a word before others are told that all is well here: afterwards it would come too late.
    fn ask_hooks(&self, record: &Record, watching: &mut Watching) -> Own {
        let ask = || self.application.hooks(Moment::Healthy, record);
        match watching.hooks.get_or_insert_with(ask) {
            Ok(()) => Own::Healthy,
            Err(reason) => Own::Failed(reason.clone()),
        }
    }

    fn begin_watching(&self, record: &Record, now: Duration) -> Watching {
        let version = &record.to.version;
        Watching {
            began: now,
            watch: self.application.watch(version, &self.tree(version), Some(record)),
            trial: Trial::new(&self.settings.health, &record.ignored_checks),
            hooks: None,
        }
    }

    fn judge(&mut self, record: &Record, own: &Own, remaining: Duration) -> Result<Did, Error> {
        if let (Own::Failed(reason), true) = (own, is_operators(own)) {
            return Ok(Did::Event(Event::Failed(reason.clone())));
        }
        Ok(match self.agreement.outcome(record, own)? {
            Verdict::Keep => Did::Event(Event::Passed),
            Verdict::RollBack { reason, at } => {
                self.instant = at;
                Did::Event(Event::Failed(reason))
            }
            Verdict::Watch(wait) => {
                let pause = self.settings.health.interval.0.min(wait.within).min(GLANCE);
                let pause = if remaining.is_zero() { pause } else { pause.min(remaining) };
                Did::Wait(pause, wait.why)
            }
        })
    }
}

/// Checks that fail already are not the new release's fault. A slow one is not waited for once nobody wants the update.
pub(super) fn judge_baseline(
    application: &dyn Application,
    store: &Store,
    settings: &Settings,
    narrator: &dyn Narrator,
    record: &mut Record,
    is_unwanted: &dyn Fn(&Record) -> bool,
) -> Result<(), Reason> {
    let health = &settings.health;
    let Some(from) = record.from.clone().filter(|_| health.baseline != Baseline::Off) else {
        return Ok(());
    };
    let [old, new] = [&from, &record.to].map(|release| store.layout.tree(&release.version));
    let mut watch = application.watch(&from.version, &old, None);
    let mut sick = watch.observe_unless(Duration::ZERO, &|| is_unwanted(record));
    if is_unwanted(record) {
        return Err(Reason::new(Cause::Operator, INTERRUPTED));
    }
    sick.retain(|seen| !seen.ok.is_healthy());
    // What only the new release brings says nothing of the old one.
    let only_new = health.not_yet_in(&old, &new);
    for seen in sick.extract_if(.., |seen| only_new.contains(&seen.name)) {
        let text =
            format!("check `{}` came with the new release: the old one is not judged by it", seen.name);
        narrator.remarks(record, &text);
    }
    match health.baseline {
        Baseline::Block => {
            let Some(first) = sick.iter().find(|seen| health.is_required(&seen.name)) else { return Ok(()) };
            let text = format!("release {} is not healthy before the switch: {first}", from.version);
            Err(Reason::new(Cause::Baseline, text))
        }
        Baseline::Ignore | Baseline::Off => {
            for seen in &sick {
                narrator.remarks(
                    record,
                    &format!("{seen}, before the switch already: it counts from its first pass on"),
                );
            }
            record.ignored_checks = sick.into_iter().map(|seen| seen.name).collect();
            Ok(())
        }
    }
}

/// The deadline has passed. Whose fault that is depends on what was seen until then.
fn too_late(record: &Record, trial: &Trial, is_well: bool) -> Reason {
    if record.confirm && is_well {
        return Reason::new(Cause::Unconfirmed, "nobody committed the release before the deadline");
    }
    if let Some(silence) = trial.lacks_proof() {
        return Reason::new(Cause::Unproven, format!("the deadline has passed, and {silence}"));
    }
    let complaint = trial.complaint();
    let words = complaint.map(|last| format!(": {last}")).unwrap_or_default();
    if record.resumes == 0 || complaint.is_some_and(|last| last.ok == Answer::Sick) {
        let long = if complaint.is_some() { "" } else { " for long enough" };
        let text = format!("the release was not healthy{long} before the deadline{words}");
        return Reason::new(Cause::Unhealthy, text);
    }
    let text = "the update was interrupted, and the deadline has passed before the release could show that it is healthy";
    Reason::new(Cause::Deadline, format!("{text}{words}"))
}

fn is_operators(own: &Own) -> bool {
    matches!(own, Own::Failed(reason) if reason.kind == Cause::Operator)
}

fn called_off(cause: Cause, text: &str) -> Did {
    Did::Event(Event::CalledOff(Reason::new(cause, text)))
}
