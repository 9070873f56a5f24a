//! `Trial`: the new release is watched until it is kept, or goes.

use std::time::Duration;

use super::deadline;
use super::driver::{Did, Driver, Error, GLANCE, RESUMES_MAX, Watching};
use crate::health::{Answer, Trial};
use crate::lifecycle::agreement::{OwnChecks, Verdict};
use crate::lifecycle::application::{Moment, last_words_text};
use crate::types::record::{Cause, Deadline, Event, Reason, Record};

impl Driver<'_> {
    /// `Trial`: one round of checks, and what follows from it.
    pub(super) fn watch(&mut self, record: &mut Record, until: &Deadline) -> Result<Did, Error> {
        self.begin_measuring(record);
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
            crate::health::Verdict::Watching => OwnChecks::Watching,
            crate::health::Verdict::Healthy => OwnChecks::Healthy,
            crate::health::Verdict::Failed(why) => OwnChecks::Failed(Reason::new(
                Cause::Unhealthy,
                why + &last_words_text(&self.application.last_words()),
            )),
            crate::health::Verdict::Unproven(why) => OwnChecks::Failed(Reason::new(
                Cause::Unproven,
                why + &last_words_text(&self.application.last_words()),
            )),
        };
        let is_well = watching.trial.is_well();
        // A trial that a person must end has none of its own.
        if record.confirm && is_well && matches!(own, OwnChecks::Failed(_)) {
            own = OwnChecks::Watching;
        }
        if record.resumes > RESUMES_MAX {
            own = OwnChecks::Failed(super::boot::worn_out(record, "the trial"));
        }
        own = self.hear_operator(record, own)?;
        let remaining = until.remaining(&self.clock.boot_id(), self.clock.boot(), self.clock.wall());
        if own == OwnChecks::Watching && remaining.is_zero() {
            own = OwnChecks::Failed(too_late(record, &watching.trial, is_well));
        }
        if let (OwnChecks::Failed(reason), true) = (&own, record.no_rollback && !is_operators(&own)) {
            self.narrator.remarks(record, &format!("{}; it stays all the same, as asked for", reason.text));
            own = OwnChecks::Healthy;
        }
        if own == OwnChecks::Healthy {
            own = self.ask_hooks(record, &mut watching);
            if let (OwnChecks::Failed(_), Some(reason)) = (&own, self.wants_back(record)?) {
                own = OwnChecks::Failed(reason);
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
    fn ask_hooks(&self, record: &Record, watching: &mut Watching) -> OwnChecks {
        let ask = || self.application.hooks(Moment::Healthy, record);
        match watching.hooks.get_or_insert_with(ask) {
            Ok(()) => OwnChecks::Healthy,
            Err(reason) => OwnChecks::Failed(reason.clone()),
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

    fn judge(&mut self, record: &Record, own: &OwnChecks, remaining: Duration) -> Result<Did, Error> {
        if let (OwnChecks::Failed(reason), true) = (own, is_operators(own)) {
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

fn is_operators(own: &OwnChecks) -> bool {
    matches!(own, OwnChecks::Failed(reason) if reason.kind == Cause::Operator)
}
