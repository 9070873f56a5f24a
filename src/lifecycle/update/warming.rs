//! `Warming`: the new release shows beside the old one that it can, before anybody is asked and anything is stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clearance::{INTERRUPTED, judge_baseline};
use super::deadline;
use super::driver::{Did, Driver, Error, GLANCE, Narrator, RESUMES_MAX};
use crate::health::{Trial, Verdict};
use crate::lifecycle::application::Application;
use crate::lifecycle::node::{self, Node};
use crate::lifecycle::rehearsal::Rehearsal;
use crate::lifecycle::settings::Settings;
use crate::sys::clock::Clock;
use crate::sys::lock::Lock;
use crate::types::record::{Blame, Cause, Event, Phase, Reason, Record, Rehearsed};
use crate::types::{ReleaseId, Span, chain};

/// How long copying the data and clearing them away may take, beyond the deadline of the checks. Nobody is away meanwhile.
const PATIENCE: Duration = Duration::from_secs(3600);

impl Driver<'_> {
    /// `Warming`: the rehearsal, once; then what must be so before anything stops.
    pub(super) fn warm(&mut self, record: &mut Record) -> Result<Did, Error> {
        if record.rehearsed.is_none() {
            if record.resumes > RESUMES_MAX {
                return Ok(Did::Event(Event::Failed(super::boot::worn_out(record, "the rehearsal"))));
            }
            let health = self.settings.rehearsal.health(&self.settings.health);
            let within = health.deadline.0 + PATIENCE;
            record.deadline = Some(deadline::after(self.clock, within));
            self.note(record)?;
            if let Err(reason) = self.ensure_armed() {
                return Ok(Did::Event(Event::CalledOff(reason)));
            }
            let watch = RehearsalWatch {
                application: self.application,
                clock: self.clock,
                settings: self.settings,
                narrator: self.narrator,
                interrupted: self.interrupted,
                is_for_a_switch: true,
            };
            let seen = watch.rehearse(record);
            match seen {
                Ok(rehearsed) => record.rehearsed = Some(rehearsed),
                Err(reason) => return Ok(Did::Event(Event::Failed(reason))),
            }
            record.deadline = None;
            self.note(record)?;
        }
        if self.is_interrupted() {
            let reason = Reason::new(Cause::Operator, INTERRUPTED);
            return Ok(Did::Event(Event::CalledOff(reason)));
        }
        Ok(self.clear(record)?.unwrap_or(Did::Event(Event::Ready)))
    }
}

impl Node<'_> {
    /// Rehearses a staged release, switches nothing, and remembers a release that failed as one that was rolled back. The
    /// caller holds the lock.
    pub fn rehearse(
        &self,
        _lock: &Lock,
        release: &ReleaseId,
    ) -> Result<Result<Rehearsed, Reason>, node::Error> {
        self.ensure_at_rest()?;
        let mut record = self.rehearsal_record(release);
        let application = self.application();
        let application = application.as_ref();
        let (store, is_unwanted) = (self.store, |_: &Record| self.interrupted.load(Ordering::Relaxed));
        if let Err(reason) =
            judge_baseline(application, store, self.settings, self.narrator, &mut record, &is_unwanted)
        {
            return Ok(Err(reason));
        }
        let within = self.settings.rehearsal.health(&self.settings.health).deadline.0 + PATIENCE;
        record.deadline = Some(deadline::after(self.clock, within));
        if let Err(reason) = application.arm() {
            return Ok(Err(reason));
        }
        let (clock, settings, narrator) = (self.clock, self.settings, self.narrator);
        let watch = RehearsalWatch {
            application,
            clock,
            settings,
            narrator,
            interrupted: self.interrupted,
            is_for_a_switch: false,
        };
        let seen = watch.rehearse(&record);
        application.disarm();
        if let Err(reason) = &seen
            && reason.kind.blame() == Blame::Release
        {
            record.phase = Phase::Cancelled { reason: reason.clone() };
            let mut memory = self.store.memory()?;
            super::finish::ban(&mut memory, release, &reason.text, clock.wall());
            memory.keep()?;
            if let Some(end) = super::outcome::end_of(&record) {
                self.store.remember(&super::finish::history_entry(clock.wall(), &record, &end))?;
            }
        }
        Ok(seen)
    }

    /// Whether a rehearsal has left something on the disk: seen by one look.
    pub fn has_rehearsal_left(&self) -> bool {
        self.store.layout.private().join("rehearsal").exists()
    }
}

/// What a rehearsal is carried out and watched with.
pub(super) struct RehearsalWatch<'a> {
    pub(super) application: &'a dyn Application,
    pub(super) clock: &'a dyn Clock,
    pub(super) settings: &'a Settings,
    pub(super) narrator: &'a dyn Narrator,
    pub(super) interrupted: &'a AtomicBool,
    pub(super) is_for_a_switch: bool,
}

impl RehearsalWatch<'_> {
    /// Rehearses, and leaves nothing behind whatever came of it.
    pub(super) fn rehearse(&self, record: &Record) -> Result<Rehearsed, Reason> {
        let began = self.clock.boot();
        let (verdict, cost) = match self.application.rehearse(record) {
            Ok(mut rehearsal) => {
                let verdict = self.see(record, rehearsal.as_mut());
                (verdict, rehearsal.cost())
            }
            Err(reason) => (Err(reason), crate::lifecycle::rehearsal::Cost::default()),
        };
        // One that is promoted serves until the application's units run the release, or the update has ended.
        let stays = verdict.is_ok() && self.settings.rehearsal.promote && self.is_for_a_switch;
        let ended = if stays { Ok(()) } else { self.application.end_rehearsal() };
        verdict?;
        ended?;
        let took = self.clock.boot().saturating_sub(began);
        Ok(Rehearsed {
            at: self.clock.wall(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            copied_bytes: cost.copied_bytes,
            memory_bytes: cost.memory_bytes,
        })
    }

    /// Watches until the checks have passed for as long as they must, or have not.
    fn see(&self, record: &Record, rehearsal: &mut dyn Rehearsal) -> Result<(), Reason> {
        let health = self.settings.rehearsal.health(&self.settings.health);
        let mut trial = Trial::new(&health, &record.ignored_checks);
        let began = self.clock.boot();
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Reason::new(Cause::Operator, INTERRUPTED));
            }
            let at = self.clock.boot().saturating_sub(began);
            let verdict = trial.observe(at, &rehearsal.observe(at));
            self.narrator.rehearsed(record, &trial);
            match verdict {
                // Without checks the first look would decide: what crashes a moment later is to be seen, too.
                Verdict::Healthy if at >= health.min_healthy().0 => break,
                Verdict::Healthy | Verdict::Watching => {}
                Verdict::Failed(why) => return Err(refusal(rehearsal, &why)),
                Verdict::Unproven(why) => {
                    return Err(Reason::new(Cause::NotNow, format!("the rehearsal had no result: {why}")));
                }
            }
            if at >= health.deadline.0 {
                let why = format!("not healthy within {}", Span(health.deadline.0));
                return Err(refusal(rehearsal, &why));
            }
            self.clock.sleep(health.interval.0.min(GLANCE));
        }
        match rehearsal.objections().as_slice() {
            [] => Ok(()),
            objections => Err(refusal(rehearsal, &objections.join("; "))),
        }
    }
}

/// Why a release is refused, with its last words. A failure that may be the copy's fault bans no release.
fn refusal(rehearsal: &dyn Rehearsal, why: &str) -> Reason {
    let words = rehearsal.last_words();
    let words =
        if words.is_empty() { String::new() } else { format!("; its last lines: {}", words.join(" | ")) };
    match rehearsal.doubt() {
        None => Reason::new(Cause::Rehearsal, format!("the rehearsal failed: {why}{words}")),
        Some(doubt) => Reason::new(Cause::NotNow, format!("the rehearsal failed: {why}; but {doubt}{words}")),
    }
}

/// What stands against a rehearsal, as a reason to call the update off.
pub fn cannot(error: &crate::lifecycle::rehearsal::Error) -> Reason {
    Reason::new(Cause::Machine, chain(error))
}
