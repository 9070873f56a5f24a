//! The way back by hand: where it leads, with which data, and how it is begun.
//!
//! It leads out of an update under way to what that began from, else to the release that was committed last besides the
//! active one, whatever became of the journal.

use super::driver::Ended;
use super::machine::{self, Progress, Redirect, Target, Unwanted};
use crate::lifecycle::application::data::SnapshotSet;
use crate::lifecycle::node::copies::{DataCopies, is_older};
use crate::lifecycle::node::plan::DataBack;
use crate::lifecycle::node::{Error, Node};
use crate::sys::lock::Lock;
use crate::types::record::{Cause, DataPolicy, DataSnapshot, Event, Intent, Phase, Reason, Record, Stands};
use crate::types::state::State;
use crate::types::{ReleaseId, Version};

/// How a rollback is wanted.
#[derive(Clone, Debug, Default)]
pub struct WayBack {
    /// Where to; absent: to the previous good release.
    pub version: Option<Version>,
    /// What to do with the data.
    pub data: DataPolicy,
    pub reason: Option<String>,
    pub no_hold: bool,
    /// The rollout that wants it.
    pub rollout: Option<u64>,
    /// The update that is to be ended, if one was under way: when it has gone back already, that is all.
    pub asked: Option<String>,
}

impl WayBack {
    pub fn why(&self) -> String {
        self.reason.clone().unwrap_or_else(|| super::finish::BY_HAND.into())
    }
}

/// Where a rollback would lead, and from where.
#[derive(Clone, Debug)]
pub struct Route {
    pub from: ReleaseId,
    /// The release that comes back.
    pub back_to: ReleaseId,
    /// The copy of the data that `back_to` wrote, if there is one.
    pub copy: Option<SnapshotSet>,
}

impl Route {
    /// The data that may come back.
    pub fn data(&self) -> &[DataSnapshot] {
        self.copy.as_ref().map_or(&[], |copy| &copy.items)
    }
}

impl Node<'_> {
    /// Where a rollback would lead: out of an update under way to what it began from, else to the last good release.
    ///
    /// # Errors
    /// When the journal cannot be believed, or there is no way.
    pub fn route(&self, version: Option<&Version>) -> Result<Route, Error> {
        let state = self.store.trusted_state()?;
        let from = self.active_release(&state)?.ok_or(Error::NoneActive)?;
        let is_on_trial =
            |record: &Record| record.phase.stands() == Stands::Within && record.to.version == from.version;
        let on_trial = self.under_way()?.filter(is_on_trial).and_then(|record| match record.intent {
            Intent::Update => record.from,
            Intent::Rollback => None,
        });
        let back_to = match version {
            Some(version) => self.release_of(&state, version)?,
            None => match on_trial.or_else(|| state.way_back(&from.version).map(|kept| kept.release.clone()))
            {
                Some(release) => release,
                None => return Err(Error::NoWayBack(why_none(&state, &from.version))),
            },
        };
        self.store.tree(&back_to.version)?;
        if back_to.version == from.version {
            return Err(Error::ActiveAlready(back_to.version));
        }
        let copy = DataCopies::new(self.store).of(&back_to)?;
        Ok(Route { from, back_to, copy })
    }

    /// Refuses, before anything stops, a way on which the data would not be what the operator expects.
    pub fn judge_data(&self, route: &Route, way: &WayBack) -> Result<(), Error> {
        self.data().refuse_other_roots(&self.coming_back(route, way.data))?;
        let (back_to, named) = (route.back_to.clone(), way.version.clone());
        let back = DataBack {
            settings: self.settings,
            store: self.store,
            asked: Some(way.data),
            old: Some(&back_to.version),
            new: &route.from.version,
        };
        let uncopied = back.uncopied(route.data());
        // Nobody has said that the newer data are to stay. Who names a release may never have had a copy for it: that goes
        // on with a warning.
        let is_plain = way.version.is_none() && way.rollout.is_none();
        let is_missing = !uncopied.is_empty() || (route.copy.is_none() && way.data == DataPolicy::Restore);
        if is_missing && (way.data == DataPolicy::Restore || (way.data == DataPolicy::Auto && is_plain)) {
            // Of all data is what no path needs to be named for.
            let paths = if route.copy.is_some() { uncopied } else { Vec::new() };
            return Err(Error::NoCopy { back_to, paths, named });
        }
        match (way.data, &route.copy) {
            (DataPolicy::Auto, Some(copy)) if way.rollout.is_none() => {
                let (at, now) = (copy.at, self.clock.wall());
                let is_old = is_older(at, now, self.settings.data_policy.restore_within.0);
                if is_old && back.restores(&copy.items) {
                    return Err(Error::OldData { back_to, at, now, named });
                }
                Ok(())
            }
            (DataPolicy::Auto | DataPolicy::Keep | DataPolicy::Restore, _) => Ok(()),
        }
    }

    /// Goes back by hand. The caller holds the lock, so nobody is in the middle: an update that waits is called off, one that
    /// was interrupted is rolled back itself.
    pub fn roll_back(&self, lock: Lock, way: &WayBack) -> Result<Ended, Error> {
        let mut lock = Some(lock);
        if let Some(record) = self.under_way()? {
            let has_ended = record.phase.stands() == Stands::After;
            if record.phase.stands() == Stands::Within {
                let redirect = self.redirect(&record, way)?;
                if redirect != Redirect::BeginsAnew {
                    return self.roll_back_update(lock.take(), record, redirect, way);
                }
                // What would be refused is refused before the first way back is ended.
                let route = self.route(way.version.as_ref())?;
                self.judge_data(&route, way)?;
                self.end_where_it_is(record, &route)?;
                return self.begin_way_back(lock.take(), way);
            }
            let transaction = record.transaction.clone();
            let was_rolled_back = matches!(record.phase, Phase::RolledBack { .. });
            // Nothing of it shows yet, or only its bookkeeping is left.
            let route = if has_ended { None } else { self.route(way.version.as_ref()).ok() };
            if let Some(route) = &route {
                self.judge_data(route, way)?;
            }
            let called_off = self.call_off(record, way)?;
            // Whoever names no release wanted what has just come to its end.
            let is_asked = way.version.is_none() || way.asked.as_ref() == Some(&transaction);
            if (!has_ended && route.is_none()) || (is_asked && was_rolled_back) {
                return Ok(called_off);
            }
        }
        self.begin_way_back(lock.take(), way)
    }

    /// Goes back from the active release. Nothing is under way.
    fn begin_way_back(&self, lock: Option<Lock>, way: &WayBack) -> Result<Ended, Error> {
        let route = self.route(way.version.as_ref())?;
        self.judge_data(&route, way)?;
        self.check_way_back(&route, way.data)?;
        let cause = if way.rollout.is_some() { Cause::Fleet } else { Cause::Operator };
        let phase = Phase::RollingBack { reason: Reason::new(cause, way.why()) };
        let data = route.data().to_vec();
        let mut record = self.new_record(Intent::Rollback, Some(route.back_to), route.from, phase);
        record.no_rollback = way.no_hold;
        record.rollout = way.rollout;
        record.data_policy = Some(way.data);
        record.data = data;
        record.deadline = self.deadline_of(&record, self.settings);
        self.drive_back(lock, record)
    }

    /// What this rollback makes of an update within which something was changed.
    ///
    /// # Errors
    /// When the release or the data that are wanted do not go with what has moved already.
    pub fn redirect(&self, record: &Record, way: &WayBack) -> Result<Redirect, Error> {
        let old = record.from.as_ref().map(|from| &from.version);
        let target = match &way.version {
            None => Target::Old,
            Some(version) if Some(version) == old => Target::Old,
            Some(version) if *version == record.to.version => Target::Left,
            Some(_) => Target::Other,
        };
        machine::redirect(self.progress_back(record)?, target, way.data).map_err(|unwanted| match unwanted {
            Unwanted::IsLeft => Error::IsLeft(record.to.version.clone()),
            Unwanted::HasData => Error::DataMoved(old.unwrap_or(&record.to.version).clone()),
        })
    }

    fn progress_back(&self, record: &Record) -> Result<Progress, Error> {
        if !matches!(record.phase, Phase::RollingBack { .. }) {
            return Ok(Progress::default());
        }
        let settings = self.settings_of(record)?;
        let application = self.collaborators.application(&settings);
        let old = record.from.as_ref().map(|from| from.version.clone());
        Ok(Progress {
            is_data_moved: !application.are_data_untouched(record),
            is_pointer_back: self.store.active()? == old,
        })
    }

    /// Ends a way back whose release is active with its data, though nobody has seen it healthy: another one is wanted.
    fn end_where_it_is(&self, mut record: Record, route: &Route) -> Result<(), Error> {
        let settings = self.settings_of(&record)?;
        self.end_orphans(&record, &settings);
        if let Phase::RollingBack { reason } = &mut record.phase {
            if let Some(needs) = self.store.trusted_state()?.needs_person {
                reason.text = needs.reason;
            }
            reason.text = format!("{}; release {} is wanted instead", reason.text, route.back_to.version);
        }
        record.phase = machine::next(record.phase, Event::Restored).map_err(super::driver::Error::from)?;
        record.deadline = self.deadline_of(&record, &settings);
        self.store.keep_journal(&record)?;
        self.drive(None, &settings, true).map(drop)
    }

    /// Ends an update in which something was changed already.
    fn roll_back_update(
        &self,
        lock: Option<Lock>,
        mut record: Record,
        redirect: Redirect,
        way: &WayBack,
    ) -> Result<Ended, Error> {
        let settings = self.settings_of(&record)?;
        if let Some(version) = &way.version {
            let release = self.release_of(&self.store.trusted_state()?, version)?;
            self.store.tree(version)?;
            if record.from.as_ref() != Some(&release) {
                record.data =
                    DataCopies::new(self.store).of(&release)?.map(|copy| copy.items).unwrap_or_default();
                record.from = Some(release);
            }
        }
        record.phase = Phase::RollingBack { reason: Reason::new(Cause::Operator, way.why()) };
        // Once data have moved, what was chosen for them stands, or all of them go.
        if redirect == Redirect::Turns || way.data != DataPolicy::Auto {
            record.data_policy = Some(way.data);
        }
        record.no_hold = way.no_hold;
        record.ended_by = Some(self.by.clone());
        record.deadline = self.deadline_of(&record, &settings);
        self.store.keep_journal(&record)?;
        self.end_orphans(&record, &settings);
        self.drive(lock, &settings, true)
    }

    /// Ends a record of which nothing shows yet; one that has ended is only finished.
    fn call_off(&self, mut record: Record, way: &WayBack) -> Result<Ended, Error> {
        let settings = self.settings_of(&record)?;
        if record.phase.stands() != Stands::After {
            record.phase = Phase::Cancelled { reason: Reason::new(Cause::Operator, way.why()) };
            record.ended_by = Some(self.by.clone());
            record.deadline = self.deadline_of(&record, &settings);
            self.store.keep_journal(&record)?;
            // Who lives and waits sees that its update is called off, and ends its hook by itself.
            if let Ok(_nobody) = self.lock_update() {
                self.end_orphans(&record, &settings);
            }
        }
        self.drive(None, &settings, true)
    }
}

/// Why there is no release that a rollback goes to by itself.
fn why_none(state: &State, active: &Version) -> String {
    match state.before(active).next() {
        Some(banned) => format!("{} and all before it are banned", banned.release.version),
        None => "none was committed before the active one".into(),
    }
}
