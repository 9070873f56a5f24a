//! `Switching`: everything from the stop of the old release to the start of the new one.

use std::cell::Cell;
use std::time::Duration;

use super::clearance::INTERRUPTED;
use super::deadline;
use super::driver::{Did, Driver, Error, GLANCE, RESUMES_MAX};
use crate::lifecycle::agreement::{Clearance, Start};
use crate::lifecycle::application::{Direction, Moment};
use crate::store::ReadyPointer;
use crate::sys::kernel::time::Prompt;
use crate::types::record::{Cause, Event, Reason, Record};

impl Driver<'_> {
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
            if self.is_interrupted() || self.store.request()?.as_ref().is_some_and(wants_back) {
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
        self.begin_measuring(record);
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
        if !self.is_resumed(record) {
            self.note_stop(record);
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

    /// Interrupted before the pointer moved. A fleet that counts on this node may still be waiting for the instant, or have given
    /// it its one turn; data that were set aside already are older than what the old release has written since.
    fn ask_again(&mut self, record: &Record) -> Result<Result<(), Reason>, Error> {
        if record.rollout.is_some() && record.data.is_empty() && record.resumes <= RESUMES_MAX {
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
}
