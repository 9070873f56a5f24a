//! The ways into the loop: switch, and recover. Each writes or finds a record, and lets the driver go on from there.

use std::cell::Cell;

use super::deadline::{self, Bounds};
use super::driver::{Changing, Driver, Ended, InTheWay};
use crate::lifecycle::application::{hooks, service};
use crate::lifecycle::node::{Error, Node, Wish};
use crate::lifecycle::settings::Settings;
use crate::store::Sealed;
use crate::sys::lock::Lock;
use crate::types::record::{Cause, Intent, Phase, Reason, Record, Stands};
use crate::types::state::Bad;

impl Node<'_> {
    /// Switches to a staged release and sees the trial through. The lock is let go of while the update waits.
    pub fn switch(&self, lock: Lock, sealed: &Sealed, wish: &Wish) -> Result<Ended, Error> {
        let _update = self.lock_update()?;
        self.ensure_at_rest()?;
        let state = self.store.trusted_state()?;
        let banned = state.bad.iter().find(|bad| bad.release.digest == sealed.release.digest);
        if let Some(bad) = banned.filter(|_| !wish.even_if_bad) {
            return Err(Error::Banned(bad.clone()));
        }
        let from = self.active_release(&state)?;
        if from.as_ref().is_some_and(|from| from.version == sealed.release.version) {
            return Err(Error::ActiveAlready(sealed.release.version.clone()));
        }
        let mut record = self.new_record(Intent::Update, from, sealed.release.clone(), Phase::Staged);
        record.serial = sealed.serial;
        record.overrules = banned.map(|bad| bad.since);
        record.confirm = wish.confirm;
        record.no_rollback = wish.no_rollback;
        record.rollout = wish.rollout;
        if wish.rollout.is_none() {
            // Before anything is written down: what cannot be done is told with its own exit code. In a rollout the
            // others must hear of it, so it is found when the node is asked.
            let (transaction, from) = (&record.transaction, record.from.as_ref());
            self.data().plan_snapshots(transaction, from, record.started, &self.settings.data)?;
        }
        if wish.rollout.is_none() {
            // Others may be waited for as long as they take; alone, a node is settled in time from here on.
            let bounds = Bounds::of(self.app, self.settings, &self.store.layout.trees_of(&record), 0);
            record.deadline = Some(deadline::after(self.clock, bounds.switch));
        }
        let in_the_way = |record: &Record| self.in_the_way(record, wish);
        let transaction = record.transaction.clone();
        let ended = self.drive_judged(Some(lock), self.settings, wish.may_wait, &in_the_way, Some(record));
        if matches!(&ended, Err(error) if error.is_no_space()) {
            // The first error is the one to tell.
            drop(self.end_what_waits(&transaction));
        }
        ended
    }

    /// There is no room to go on, and nothing of the update shows: nothing of it stays.
    fn end_what_waits(&self, transaction: &str) -> Result<(), Error> {
        let is_ours = |now: &Record| {
            now.transaction == transaction && now.phase.stands() == Stands::Before && now.rollout.is_none()
        };
        match self.under_way()?.filter(is_ours) {
            Some(now) => self.end_interrupted(self.lock()?, now, self.settings).map(drop),
            None => Ok(()),
        }
    }

    /// What somebody has said meanwhile against a switch that was free to begin: a hold, a ban, a window that is over.
    fn in_the_way(&self, record: &Record, wish: &Wish) -> Result<Option<Reason>, crate::store::Error> {
        let state = self.store.trusted_state()?;
        if let Some(bad) = state.bad.iter().find(|bad| record.is_banned_by(bad)) {
            return Ok(Some(Reason::new(Cause::NotNow, banned_meanwhile(bad))));
        }
        let Some(policies) = &wish.policies else { return Ok(None) };
        let blocked = policies.blocked(self, &state);
        let texts: Vec<_> = blocked.iter().map(|blocked| blocked.text.as_str()).collect();
        Ok((!texts.is_empty()).then(|| Reason::new(Cause::NotNow, texts.join("; "))))
    }

    /// Finishes or undoes what the journal says. `Ok(None)`: there is nothing.
    pub fn recover(&self, lock: Lock) -> Result<Option<Ended>, Error> {
        let Some(record) = self.under_way()? else { return Ok(None) };
        // Without what is remembered nothing can be ended, whatever the phase.
        self.store.trusted_state()?;
        let update = self.lock_update();
        if record.phase.stands() == Stands::Before && update.is_err() {
            // Somebody alive waits to go on with it.
            return update.map(|_| None);
        }
        let settings = self.settings_of(&record)?;
        self.end_orphans(&record, &settings);
        if record.phase.stands() == Stands::Before && record.rollout.is_none() {
            // Nothing was changed: the next update begins again, with what is staged.
            return self.end_interrupted(lock, record, &settings).map(Some);
        }
        let mut memory = self.store.memory()?;
        memory.needs_person = None;
        memory.keep()?;
        self.take_up(record, &settings)?;
        self.drive(Some(lock), &settings, true).map(Some)
    }

    /// Ends hooks and commands of an update whose process is dead.
    pub(super) fn end_orphans(&self, record: &Record, settings: &Settings) {
        if service::end_orphans(&settings.service, &record.transaction) > 0 {
            self.narrator
                .remarks(record, "a command of the service that the update had left behind was ended");
        }
        if hooks::end_orphans(&record.transaction) > 0 {
            self.narrator.remarks(record, "a hook that the update had left behind was ended");
        }
    }

    /// Brings the disk in order before the services of a booting node start; the timer goes on with the rest.
    /// `Ok(None)`: there is nothing.
    pub fn settle_at_boot(&self, _lock: &Lock) -> Result<Option<Ended>, Error> {
        let Some(record) = self.under_way()? else { return Ok(None) };
        let settings = self.settings_of(&record)?;
        self.count_boot(record)?;
        let application = self.collaborators.application(&settings);
        let settled = self.collaborators.with_agreement(&settings, &mut |agreement| {
            Driver::new(self, &settings, application.as_ref(), agreement, false).settle_at_boot()
        });
        Ok(Some(settled?))
    }

    /// Goes on with an update that another process has left: its phase has all of its time again. Counts the interruption
    /// if the new release may have caused it, and the recovery at boot has not counted it already.
    fn take_up(&self, mut record: Record, settings: &Settings) -> Result<(), Error> {
        let Some(deadline) = self.deadline_of(&record, settings) else {
            return self.count_interruption(&mut record).map(drop);
        };
        record.deadline = Some(deadline);
        if !self.count_interruption(&mut record)? {
            self.store.keep_journal(&record)?;
        }
        Ok(())
    }

    /// Whether it was counted, and written down.
    fn count_interruption(&self, record: &mut Record) -> Result<bool, Error> {
        if !is_interruptible(&record.phase) {
            return Ok(false);
        }
        if !std::mem::take(&mut record.counted_at_boot) {
            record.resumes += 1;
            record.boots += u32::from(record.boot_id != self.clock.boot_id());
        }
        self.narrator.remarks(record, "the update was interrupted and goes on");
        self.store.keep_journal(record)?;
        Ok(true)
    }

    /// Counts a boot in the middle of an update, before the release is started once more.
    fn count_boot(&self, mut record: Record) -> Result<(), Error> {
        if !is_interruptible(&record.phase) {
            return Ok(());
        }
        record.resumes += 1;
        record.boots += 1;
        record.counted_at_boot = true;
        Ok(self.store.keep_journal(&record)?)
    }

    fn end_interrupted(&self, lock: Lock, mut record: Record, settings: &Settings) -> Result<Ended, Error> {
        let reason = Reason::new(Cause::NotNow, "interrupted before anything was changed");
        record.phase = Phase::Cancelled { reason };
        record.deadline = self.deadline_of(&record, settings);
        self.store.keep_journal(&record)?;
        self.drive(Some(lock), settings, true)
    }

    /// Goes on with the journal's update. With the `lock` it is let go of while the update waits, and taken again for each
    /// change; without, the caller holds it all along.
    pub fn drive(&self, lock: Option<Lock>, settings: &Settings, may_wait: bool) -> Result<Ended, Error> {
        self.drive_judged(lock, settings, may_wait, &|record| self.banned_or_held(record), None)
    }

    /// The same for a rollback by hand, which begins here.
    pub(super) fn drive_back(&self, lock: Option<Lock>, record: Record) -> Result<Ended, Error> {
        let in_the_way = |record: &Record| self.banned_or_held(record);
        self.drive_judged(lock, self.settings, true, &in_the_way, Some(record))
    }

    /// The same, with what must be so right before the switch, and with the record of an update that begins here. What has
    /// a deadline is looked after by the timer before anything is written: who is stopped right after it is ended, too.
    fn drive_judged(
        &self,
        lock: Option<Lock>,
        settings: &Settings,
        may_wait: bool,
        in_the_way: &InTheWay<'_>,
        begins: Option<Record>,
    ) -> Result<Ended, Error> {
        let take = || self.attempt(&self.store.layout.lock());
        let (held, begins) = (Cell::new(lock), Cell::new(begins));
        let application = self.collaborators.application(settings);
        let ended = self.collaborators.with_agreement(settings, &mut |agreement| {
            let driver = Driver::new(self, settings, application.as_ref(), agreement, may_wait);
            let mut driver = Driver { in_the_way: Some(in_the_way), ..driver };
            if let Some(record) = begins.take() {
                if record.deadline.is_some() {
                    driver.arm_if_possible(&record);
                }
                self.begin(record)?;
            }
            if let Some(lock) = held.take() {
                driver.changing = Some(Changing::new(&take, lock));
            }
            driver.run()
        });
        Ok(ended?)
    }

    /// For an update of which the wishes are not known any more.
    fn banned_or_held(&self, record: &Record) -> Result<Option<Reason>, crate::store::Error> {
        let state = self.store.trusted_state()?;
        if let Some(bad) = state.bad.iter().find(|bad| record.is_banned_by(bad)) {
            return Ok(Some(Reason::new(Cause::NotNow, banned_meanwhile(bad))));
        }
        let held = crate::lifecycle::policy::held(state.hold.as_ref(), self.clock.wall());
        Ok(held.map(|blocked| Reason::new(Cause::NotNow, blocked.text)))
    }
}

fn banned_meanwhile(bad: &Bad) -> String {
    format!("release {} is banned since {}: {}", bad.release.version, bad.since, bad.reason)
}

/// Whether an interruption may be the new release's doing, and must have an end.
fn is_interruptible(phase: &Phase) -> bool {
    match phase {
        Phase::Warming | Phase::Switching | Phase::Trial { .. } => true,
        Phase::Staged
        | Phase::RollingBack { .. }
        | Phase::Committed
        | Phase::RolledBack { .. }
        | Phase::Cancelled { .. } => false,
    }
}
