//! The way back to the old release. It needs no network, no source and no shared storage.

use std::time::Duration;

use super::driver::{Did, Driver, Ended, Error};
use crate::health::{Settings as Health, Trial, Verdict};
use crate::lifecycle::agreement::Start;
use crate::lifecycle::application::{Direction, Moment};
use crate::types::record::{Event, Phase, Reason, Record, UnitsBefore};
use crate::types::state::NeedsPerson;
use crate::types::{ReleaseId, Span};

/// Whether services must be stopped before data and pointer are touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Services {
    MayRun,
    /// The node boots, and they wait for us.
    NotStarted,
}

impl Driver<'_> {
    /// `RollingBack`: old data, old pointer, old services, and a look whether all is well again.
    pub(super) fn restore(&mut self, record: &mut Record, reason: &Reason) -> Result<Did, Error> {
        self.begin_measuring(record);
        // Whoever does not want to wait for the instant goes back at once.
        self.await_instant(record)?;
        if let Err(hook) = self.application.hooks(Moment::PreRollback, record) {
            self.narrator.remarks(record, &format!("{}; going back all the same", hook.text));
        }
        self.look_before_going_back(record)?;
        let stopped = self.clock.boot();
        self.restore_disk(record, Services::MayRun)?;
        let Some(from) = record.from.clone() else { return Ok(Did::Event(Event::Restored)) };
        while let Start::Wait(wait) = self.agreement.may_start(record)? {
            self.clock.sleep(wait.within);
        }
        match self.application.start(record, Direction::Back) {
            Ok(remarks) => remarks.iter().for_each(|text| self.narrator.remarks(record, text)),
            Err(failure) => {
                return Ok(Did::GiveUp(format!(
                    "{}; release {} does not start either: {}",
                    reason.text, from.version, failure.text
                )));
            }
        }
        let away = u64::try_from(self.clock.boot().saturating_sub(stopped).as_millis()).unwrap_or(u64::MAX);
        record.downtime_ms = Some(record.downtime_ms.unwrap_or(0).saturating_add(away));
        Ok(match self.see_healthy(record, &from) {
            Ok(()) => Did::Event(Event::Restored),
            Err(why) => {
                Did::GiveUp(format!("{}; release {} is not healthy either: {why}", reason.text, from.version))
            }
        })
    }

    /// A rollback by hand begins here: what runs is written down before anything is stopped. An update has done so.
    fn look_before_going_back(&self, record: &mut Record) -> Result<(), Error> {
        if record.units.is_some() {
            return Ok(());
        }
        match self.application.look_before(record, Direction::Back) {
            Ok(before) => {
                let is_worth_keeping = before != UnitsBefore::default();
                record.units = Some(before);
                if is_worth_keeping { self.keep(record) } else { Ok(()) }
            }
            Err(reason) => {
                self.narrator.remarks(record, &format!("{}; going back all the same", reason.text));
                Ok(())
            }
        }
    }

    /// The part of the way back that a node does at boot, before its services start: data and pointer.
    pub(super) fn restore_disk(&mut self, record: &mut Record, services: Services) -> Result<(), Error> {
        let wanted = record.from.as_ref().map(|from| from.version.clone());
        let active = self.store.active()?;
        if active != wanted {
            if services == Services::MayRun
                && let Err(failure) = self.application.stop(record)
            {
                self.narrator.remarks(record, &format!("{}; going back all the same", failure.text));
            }
            if !record.data.is_empty()
                && let Err(error) = self.store.keep_going_back(record)
            {
                // It is for a second fault, and in the way of nothing.
                tracing::warn!(%error, "cannot keep a second copy of the journal");
            }
            let restored = self.application.restore(record).map_err(|reason| Error::Data(reason.text))?;
            for text in restored.done.iter().chain(&restored.warnings) {
                self.narrator.remarks(record, text);
            }
            self.keep_warnings(record, &restored.warnings)?;
        }
        match wanted {
            Some(version) => self.store.point_to(&version)?,
            None if active.is_some() => self.store.point_to_nothing()?,
            None => {}
        }
        Ok(())
    }

    /// Puts behind the reason what is not as it should be, so that the history says it.
    fn keep_warnings(&self, record: &mut Record, warnings: &[String]) -> Result<(), Error> {
        let Phase::RollingBack { reason } = &mut record.phase else { return Ok(()) };
        let fresh: Vec<_> = warnings.iter().filter(|text| !reason.text.contains(*text)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for text in fresh {
            reason.text = format!("{}; {text}", reason.text);
        }
        self.keep(record)
    }

    /// Watches the old release until its checks have passed for a short while, or until the deadline.
    fn see_healthy(&mut self, record: &Record, release: &ReleaseId) -> Result<(), String> {
        let health = &self.settings.health;
        let settle = health.min_healthy().min(Span(health.interval.0 * 2));
        let settings = Health { min_healthy: Some(settle), ..health.clone() };
        let began = self.clock.boot();
        let mut watch = self.application.watch(&release.version, &self.tree(&release.version), Some(record));
        // It is not judged by checks that only the release which is left has brought.
        let only_new = health.not_yet_in(&self.tree(&release.version), &self.tree(&record.to.version));
        let ignored: Vec<_> = record.ignored_checks.iter().cloned().chain(only_new).collect();
        let mut trial = Trial::of_old(&settings, &ignored);
        loop {
            let at = self.clock.boot().saturating_sub(began);
            let verdict = trial.observe(at, &watch.observe(at));
            self.note_answers(&trial);
            match verdict {
                Verdict::Healthy => return Ok(()),
                Verdict::Failed(why) | Verdict::Unproven(why) => return Err(why),
                Verdict::Watching => self.clock.sleep(health.interval.0.min(Duration::from_millis(200))),
            }
        }
    }

    /// Going back did not succeed. Both trees stay, nothing automatic happens any more, and a person is asked for.
    pub(super) fn give_up(&mut self, record: Record, why: String) -> Result<Ended, Error> {
        let mut memory = self.store.memory()?;
        memory.needs_person = Some(NeedsPerson { since: self.clock.wall(), reason: why.clone() });
        memory.keep()?;
        self.application.disarm();
        self.agreement.gave_up(&record, &why);
        Ok(Ended::NeedsPerson(Box::new(record), why))
    }
}
