//! `Staged`: what must be so before anything stops.

use std::time::Duration;

use super::deadline;
use super::driver::{Did, Driver, Error, Narrator};
use crate::health::Baseline;
use crate::lifecycle::agreement::Clearance;
use crate::lifecycle::application::{Application, Direction, Moment};
use crate::lifecycle::settings::Settings;
use crate::store::Store;
use crate::types::chain;
use crate::types::record::{Cause, Event, Reason, Record};

/// What Ctrl-C before the switch leads to.
pub(super) const INTERRUPTED: &str = "interrupted before anything was changed";

impl Driver<'_> {
    /// `Staged`: the old release must be well, and the new one is rehearsed before others are asked, if at all.
    pub(super) fn await_clearance(&mut self, record: &mut Record) -> Result<Did, Error> {
        if self.is_interrupted() {
            return Ok(called_off(Cause::Operator, INTERRUPTED));
        }
        // A first installation has no old release to run next to.
        if !self.settings.rehearsal.is_on() || record.from.is_none() {
            let cleared = self.clear(record)?;
            return Ok(cleared.unwrap_or(Did::Event(Event::Cleared { rehearse: false })));
        }
        if let Err(reason) = self.judge_baseline(record) {
            return Ok(Did::Event(Event::CalledOff(reason)));
        }
        Ok(match self.application.can_rehearse(&record.to.version) {
            Ok(()) => Did::Event(Event::Cleared { rehearse: true }),
            Err(error) => Did::Event(Event::CalledOff(super::warming::cannot(&error))),
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
            let is_ended = self.is_interrupted();
            return if is_ended { Ok(Some(called_off(Cause::Operator, INTERRUPTED))) } else { off(reason) };
        }
        Ok(None)
    }

    fn judge_baseline(&self, record: &mut Record) -> Result<(), Reason> {
        let is_unwanted = |record: &Record| self.is_interrupted() || !self.is_still(record);
        judge_baseline(self.application, self.store, self.settings, self.narrator, record, &is_unwanted)
    }

    /// Writes down until when what comes next must have ended, and sees that the timer runs.
    fn arm(&mut self, record: &mut Record) -> Result<Result<(), Reason>, Error> {
        let within = self.until_instant() + self.application.bounds(record).switch;
        record.deadline = Some(deadline::after(self.clock, within));
        self.note(record)?;
        Ok(self.ensure_armed())
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
                let counts = match health.is_required(&seen.name) {
                    true => "it counts from its first pass on",
                    false => "it never counts (`required = false`)",
                };
                narrator.remarks(record, &format!("{seen}, before the switch already: {counts}"));
            }
            record.ignored_checks = sick.into_iter().map(|seen| seen.name).collect();
            Ok(())
        }
    }
}

fn called_off(cause: Cause, text: &str) -> Did {
    Did::Event(Event::CalledOff(Reason::new(cause, text)))
}
