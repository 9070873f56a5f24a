//! The ways into the loop: switch, recover, roll back, commit. Each takes the lock of the switch, writes or finds a
//! record, and lets the driver go on from there.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::agreement::Agreement;
use super::application::Application;
use super::data::{self, Data, Decision};
use super::deadline::{self, Bounds};
use super::driver::{self, Changing, Driver, Ended, InTheWay, Narrator};
use super::plan::DataBack;
use super::policy;
use super::settings::Settings;
use super::upstream::Offered;
pub use super::way_back::{Route, WayBack};
use crate::store::{Kept, Sealed, Store};
use crate::sys::clock::Clock;
use crate::sys::lock::{self, Attempt, Holder, Lock};
use crate::types::record::{
    Cause, DataPolicy, DataSnapshot, Deadline, Intent, Phase, Reason, Record, Stands,
};
use crate::types::state::State;
use crate::types::{ReleaseId, Span, Version};

/// One application on one node, and who asks for what.
pub struct Node<'a> {
    /// The application.
    pub app: &'a str,
    /// This node's name.
    pub name: &'a str,
    /// The settings in force. An update under way has its own.
    pub settings: &'a Settings,
    /// The store.
    pub store: &'a Store,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Who asks: `timer`, or a user's name.
    pub by: String,
    /// What was asked for, for the lock.
    pub command: String,
    /// Set when somebody wants this run to end.
    pub interrupted: &'a AtomicBool,
    /// Who is told.
    pub narrator: &'a dyn Narrator,
    /// Whether nothing may be changed, not even what is remembered.
    pub is_dry: bool,
}

/// What is done with an application and an agreement.
pub type Work<'a> = dyn FnMut(&dyn Application, &mut dyn Agreement) -> Result<Ended, driver::Error> + 'a;

/// What a driver is made of besides the node; built anew when an update has settings of its own.
pub trait Parts {
    /// Calls `work` with application and agreement as these settings describe them.
    fn with(&self, settings: &Settings, work: &mut Work<'_>) -> Result<Ended, driver::Error>;
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loop could not go on.
    #[error(transparent)]
    Driver(#[from] driver::Error),
    /// The store refused before anything was changed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Another cutover is at work.
    #[error("another cutover is at work on this root{}", told(.0.as_ref()))]
    Busy(Option<Holder>),
    /// An update is under way that must end first.
    #[error("an update to release {} is under way, in phase {}", .0.to.version, phase_name(&.0.phase))]
    UnderWay(Box<Record>),
    /// The old release was not healthy either; a person must decide.
    #[error("this node needs a person since {}: {}", super::policy::short(.0.since), .0.reason)]
    NeedsPerson(crate::types::state::NeedsPerson),
    /// The data that would come back are old, and nobody said that this is wanted.
    #[error("the data of release {} are of {at}, {} ago: going back to it would bring them back", .back_to.version, Span(Duration::from_secs(*.age_s)))]
    OldData {
        /// The release that would come back.
        back_to: ReleaseId,
        /// When its data were copied.
        at: Timestamp,
        /// How long ago that is, in seconds.
        age_s: u64,
        /// The words of the command so far.
        named: Option<Version>,
    },
    /// Data are wanted back of which there is no copy.
    #[error("there is no copy of the data of release {}", .back_to.version)]
    NoCopy {
        /// The release that would come back.
        back_to: ReleaseId,
        /// The words of the command so far.
        named: Option<Version>,
    },
    /// There is nothing to go back to.
    #[error("there is no release to go back to: {0}")]
    NoWayBack(String),
    /// No trial is under way.
    #[error("no release is on trial")]
    NoTrial,
    /// That release is banned.
    #[error("release {} is banned since {}: {}", .0.release.version, super::policy::short(.0.since), .0.reason)]
    Banned(crate::types::state::Bad),
    /// It is active already.
    #[error("release {0} is active already")]
    ActiveAlready(Version),
    /// A tree cannot be looked at.
    #[error(transparent)]
    Tree(#[from] super::staging::Error),
    /// The data cannot be copied, or not be brought back.
    #[error(transparent)]
    Data(#[from] data::Error),
}

impl From<crate::sys::disk::Error> for Error {
    fn from(error: crate::sys::disk::Error) -> Self {
        Self::Store(error.into())
    }
}

fn told(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(": `{}` (pid {}), since {}", holder.command, holder.pid, holder.since)
    })
}

/// A phase's name, as in the journal.
pub fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Staged => "staged",
        Phase::Warming => "warming",
        Phase::Switching => "switching",
        Phase::Trial { .. } => "trial",
        Phase::RollingBack { .. } => "rolling_back",
        Phase::Committed => "committed",
        Phase::RolledBack { .. } => "rolled_back",
        Phase::Cancelled { .. } => "cancelled",
    }
}

/// How a switch is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// A person must commit.
    pub confirm: bool,
    /// The new release stays whatever the checks say.
    pub no_rollback: bool,
    /// Whether to switch to a release that is banned.
    pub even_if_bad: bool,
    /// Whether to wait for others.
    pub may_wait: bool,
    /// The rollout that it belongs to.
    pub rollout: Option<u64>,
    /// What must let it through, still when it begins; absent: a person switches by hand.
    pub policies: Option<Policies>,
}

/// The policies that hold for one switch.
#[derive(Clone, Debug)]
pub struct Policies {
    /// To what.
    pub offered: Offered,
    /// Whether only a hold counts.
    pub is_urgent: bool,
}

impl Policies {
    /// What keeps the node from switching now.
    pub fn blocked(&self, node: &Node<'_>, state: &State) -> Vec<policy::Blocked> {
        let offer = policy::Offer {
            release: &self.offered.release,
            issued: self.offered.issued,
            since: self.offered.since,
            percent: self.offered.percent,
            waves: &self.offered.waves,
            group: node.settings.source.group.as_deref(),
        };
        policy::blocked(&node.settings.policy, state, &offer, node.name, node.clock.wall(), self.is_urgent)
    }
}

impl<'a> Node<'a> {
    /// The same node with other settings.
    #[must_use]
    pub fn with_settings(&self, settings: &'a Settings) -> Self {
        Self { by: self.by.clone(), command: self.command.clone(), settings, ..*self }
    }
}

impl Node<'_> {
    /// Takes the lock of the switch.
    pub fn lock(&self) -> Result<Lock, Error> {
        self.take(&self.store.layout.lock())
    }

    /// Takes the lock of whoever carries out an update, from its first phase to its last.
    pub fn lock_update(&self) -> Result<Lock, Error> {
        self.take(&self.store.layout.update_lock())
    }

    /// Takes the lock of staging.
    pub fn lock_staging(&self) -> Result<Lock, Error> {
        self.take(&self.store.layout.staging_lock())
    }

    /// Takes a lock. A disk that refuses while an update is half way is more than a failure of this command.
    fn take(&self, path: &std::path::Path) -> Result<Lock, Error> {
        self.try_to_take(path).map_err(|error| match error {
            Error::Store(error) if self.is_half_way() => Error::Driver(error.into()),
            error => error,
        })
    }

    /// Whether the journal says that something was changed, and not yet finished.
    fn is_half_way(&self) -> bool {
        matches!(self.store.journal(), Ok(Kept::Whole(record)) if record.phase.stands() == Stands::Within)
    }

    fn attempt(&self, path: &std::path::Path) -> Result<Attempt, crate::store::Error> {
        let me = Holder { pid: std::process::id(), command: self.command.clone(), since: self.clock.wall() };
        Ok(lock::try_lock(&self.store.disk, path, &me)?)
    }

    fn try_to_take(&self, path: &std::path::Path) -> Result<Lock, Error> {
        self.store.prepare()?;
        match self.attempt(path)? {
            Attempt::Mine(lock) => Ok(lock),
            Attempt::Theirs(holder) => Err(Error::Busy(holder)),
        }
    }

    /// Switches to a staged release and sees the trial through. The lock is let go of while the update waits.
    pub fn switch(
        &self,
        lock: Lock,
        sealed: &Sealed,
        wish: &Wish,
        parts: &dyn Parts,
    ) -> Result<Ended, Error> {
        let _update = self.lock_update()?;
        self.ensure_at_rest()?;
        let state = self.store.trusted_state()?;
        if let Some(bad) =
            state.bad.iter().find(|bad| bad.release.digest == sealed.release.digest && !wish.even_if_bad)
        {
            return Err(Error::Banned(bad.clone()));
        }
        let from = self.active_release(&state)?;
        if from.as_ref().is_some_and(|from| from.version == sealed.release.version) {
            return Err(Error::ActiveAlready(sealed.release.version.clone()));
        }
        let mut record = self.new_record(Intent::Update, from, sealed.release.clone(), Phase::Staged);
        record.serial = sealed.serial;
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
        self.drive_judged(Some(lock), self.settings, wish.may_wait, parts, &in_the_way, Some(record))
    }

    /// What somebody has said meanwhile against a switch that was free to begin: a hold, a ban, a window that is over.
    fn in_the_way(&self, record: &Record, wish: &Wish) -> Result<Option<Reason>, crate::store::Error> {
        let state = self.store.trusted_state()?;
        let is_new = |bad: &&crate::types::state::Bad| !wish.even_if_bad || bad.since > record.started;
        if let Some(bad) = state.bad.iter().filter(|bad| bad.release.digest == record.to.digest).find(is_new)
        {
            return Ok(Some(Reason::new(Cause::NotNow, banned_meanwhile(bad))));
        }
        let Some(policies) = &wish.policies else { return Ok(None) };
        let blocked = policies.blocked(self, &state);
        let texts: Vec<_> = blocked.iter().map(|blocked| blocked.text.as_str()).collect();
        Ok((!texts.is_empty()).then(|| Reason::new(Cause::NotNow, texts.join("; "))))
    }

    /// The application's data.
    pub fn data(&self) -> Data {
        Data::of(self.store, self.settings)
    }

    /// Refuses a way back on which data would have to come back that cannot.
    pub(super) fn check_way_back(&self, route: &Route, asked: DataPolicy) -> Result<(), Error> {
        Ok(self.data().check_way_back(&self.coming_back(route, asked))?)
    }

    /// The copies of data that would come back.
    pub fn coming_back(&self, route: &Route, asked: DataPolicy) -> Vec<DataSnapshot> {
        let (settings, store) = (self.settings, self.store);
        let (old, new) = (Some(&route.back_to.version), &route.from.version);
        let back = DataBack { settings, store, asked: Some(asked), old, new };
        let is_wanted = |copy: &&DataSnapshot| back.decide(&copy.path) == Decision::Restore;
        route.data().iter().filter(is_wanted).cloned().collect()
    }

    /// Writes down settings and record of a new update.
    fn begin(&self, mut record: Record) -> Result<(), crate::store::Error> {
        record.settings = Some(self.store.keep_settings(self.settings)?);
        self.store.end_request()?;
        self.store.keep_journal(&record)?;
        self.narrator.moved(&record);
        Ok(())
    }

    /// A record for a rehearsal by hand, which is no update.
    pub(super) fn rehearsal_record(&self, release: &ReleaseId) -> Record {
        Record { phase: Phase::Warming, ..self.staging_record(release) }
    }

    /// A record for the hooks around staging, which belong to no update yet.
    pub fn staging_record(&self, release: &ReleaseId) -> Record {
        let state = self.store.trusted_state().unwrap_or_default();
        let from = self.active_release(&state).ok().flatten();
        self.new_record(Intent::Update, from, release.clone(), Phase::Staged)
    }

    pub(super) fn new_record(
        &self,
        intent: Intent,
        from: Option<ReleaseId>,
        to: ReleaseId,
        phase: Phase,
    ) -> Record {
        let now = self.clock.wall();
        Record {
            transaction: transaction_name(now),
            intent,
            from,
            to,
            serial: None,
            phase,
            rollout: None,
            confirm: false,
            no_rollback: false,
            no_hold: false,
            ended_by: None,
            data_policy: None,
            data: Vec::new(),
            boot_id: self.clock.boot_id(),
            resumes: 0,
            deadline: None,
            ignored_checks: Vec::new(),
            started: now,
            by: self.by.clone(),
            downtime_ms: None,
            unanswered: None,
            moments: crate::types::record::Moments::default(),
            settings: None,
            rehearsed: None,
            boots: 0,
            counted_at_boot: false,
            units: None,
        }
    }

    /// Refuses while another update, or a person, must come first.
    pub fn ensure_at_rest(&self) -> Result<(), Error> {
        match self.store.journal()? {
            Kept::Missing => {}
            Kept::Whole(record) => match self.store.trusted_state()?.needs_person {
                Some(needs) => return Err(Error::NeedsPerson(needs)),
                None => {
                    let holder = lock::holder(&self.store.layout.update_lock());
                    let other = holder.filter(|holder| holder.pid != std::process::id());
                    return Err(match other {
                        Some(holder) => Error::Busy(Some(holder)),
                        None => Error::UnderWay(Box::new(record)),
                    });
                }
            },
            Kept::Damaged(why) => {
                let path = self.store.layout.journal();
                return Err(driver::Error::Journal { path, why }.into());
            }
        }
        match self.store.trusted_state()?.needs_person {
            Some(needs) => Err(Error::NeedsPerson(needs)),
            None => Ok(()),
        }
    }

    /// The active release with its digest: from what is remembered, or from what was sealed.
    pub fn active_release(&self, state: &State) -> Result<Option<ReleaseId>, Error> {
        let Some(version) = self.store.active()? else { return Ok(None) };
        self.release_of(state, &version).map(Some)
    }

    pub(super) fn release_of(&self, state: &State, version: &Version) -> Result<ReleaseId, Error> {
        if let Ok(sealed) = self.store.release(version) {
            return Ok(sealed.release);
        }
        let known = [&state.committed, &state.previous];
        let known =
            known.into_iter().flatten().chain(&state.earlier).find(|kept| kept.release.version == *version);
        match known {
            Some(installed) => Ok(installed.release.clone()),
            None => Ok(self.store.release(version)?.release),
        }
    }

    /// Finishes or undoes what the journal says. `Ok(None)`: there is nothing.
    pub fn recover(&self, lock: Lock, parts: &dyn Parts) -> Result<Option<Ended>, Error> {
        let Some(record) = self.under_way()? else { return Ok(None) };
        // Without what is remembered nothing can be ended, whatever the phase.
        self.store.trusted_state()?;
        let update = self.lock_update();
        if record.phase.stands() == Stands::Before && update.is_err() {
            // Somebody alive waits to go on with it.
            return update.map(|_| None);
        }
        let settings = self.settings_of(&record)?;
        if record.phase.stands() == Stands::Before && record.rollout.is_none() {
            // Nothing was changed: the next update begins again, with what is staged.
            return self.end_interrupted(lock, record, &settings, parts).map(Some);
        }
        let mut memory = self.store.memory()?;
        memory.needs_person = None;
        memory.keep()?;
        self.take_up(record, &settings)?;
        self.drive(Some(lock), &settings, true, parts).map(Some)
    }

    /// Brings the disk in order before the services of a booting node start; the timer goes on with the rest.
    /// `Ok(None)`: there is nothing.
    pub fn settle_at_boot(&self, _lock: &Lock, parts: &dyn Parts) -> Result<Option<Ended>, Error> {
        let Some(record) = self.under_way()? else { return Ok(None) };
        let settings = self.settings_of(&record)?;
        self.count_boot(record)?;
        let is_interrupted = || false;
        let settled = parts.with(&settings, &mut |application, agreement| {
            let (store, clock, narrator) = (self.store, self.clock, self.narrator);
            Driver::new(store, clock, application, agreement, &settings, narrator, &is_interrupted, false)
                .settle_at_boot()
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

    fn end_interrupted(
        &self,
        lock: Lock,
        mut record: Record,
        settings: &Settings,
        parts: &dyn Parts,
    ) -> Result<Ended, Error> {
        let reason = Reason::new(Cause::NotNow, "interrupted before anything was changed");
        record.phase = Phase::Cancelled { reason };
        self.store.keep_journal(&record)?;
        self.drive(Some(lock), settings, true, parts)
    }

    /// The update under way.
    ///
    /// # Errors
    /// When the journal cannot be believed: nothing automatic happens on guesses.
    pub fn under_way(&self) -> Result<Option<Record>, Error> {
        match self.store.journal()? {
            Kept::Missing => Ok(None),
            Kept::Whole(record) => Ok(Some(record)),
            Kept::Damaged(why) => {
                Err(driver::Error::Journal { path: self.store.layout.journal(), why }.into())
            }
        }
    }

    /// The settings that the update was begun with; today's when they are lost.
    pub(super) fn settings_of(&self, record: &Record) -> Result<Settings, Error> {
        Ok(match self.store.settings::<Settings>()? {
            Kept::Whole(settings) => settings,
            Kept::Missing => self.settings.clone(),
            Kept::Damaged(why) => {
                let text = format!("the update's own settings cannot be trusted ({why}); today's are used");
                self.narrator.remarks(record, &text);
                self.settings.clone()
            }
        })
    }

    /// When the phase must have ended that begins now.
    pub(super) fn deadline_of(&self, record: &Record, settings: &Settings) -> Option<Deadline> {
        let releases = self.store.layout.trees_of(record);
        let within = Bounds::of(self.app, settings, &releases, 0).of_phase(&record.phase)?;
        Some(deadline::after(self.clock, within))
    }

    /// Goes on with the journal's update. With the `lock` it is let go of while the update waits, and taken again for each
    /// change; without, the caller holds it all along.
    pub fn drive(
        &self,
        lock: Option<Lock>,
        settings: &Settings,
        may_wait: bool,
        parts: &dyn Parts,
    ) -> Result<Ended, Error> {
        self.drive_judged(lock, settings, may_wait, parts, &|record| self.banned_or_held(record), None)
    }

    /// The same for a rollback by hand, which begins here.
    pub(super) fn drive_back(
        &self,
        lock: Option<Lock>,
        record: Record,
        parts: &dyn Parts,
    ) -> Result<Ended, Error> {
        let in_the_way = |record: &Record| self.banned_or_held(record);
        self.drive_judged(lock, self.settings, true, parts, &in_the_way, Some(record))
    }

    /// The same, with what must be so right before the switch, and with the record of an update that begins here. What has
    /// a deadline is looked after by the timer before anything is written: who is stopped right after it is ended, too.
    fn drive_judged(
        &self,
        lock: Option<Lock>,
        settings: &Settings,
        may_wait: bool,
        parts: &dyn Parts,
        in_the_way: &InTheWay<'_>,
        begins: Option<Record>,
    ) -> Result<Ended, Error> {
        let is_interrupted = || self.interrupted.load(Ordering::Relaxed);
        let take = || self.attempt(&self.store.layout.lock());
        let (held, begins) = (Cell::new(lock), Cell::new(begins));
        let ended = parts.with(settings, &mut |application, agreement| {
            let (store, clock, narrator) = (self.store, self.clock, self.narrator);
            let driver = Driver::new(
                store,
                clock,
                application,
                agreement,
                settings,
                narrator,
                &is_interrupted,
                may_wait,
            );
            let mut driver = Driver { in_the_way: Some(in_the_way), ..driver };
            if let Some(record) = begins.take() {
                if record.deadline.is_some()
                    && let Err(reason) = driver.ensure_armed()
                {
                    narrator.remarks(&record, &reason.text);
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
        if let Some(bad) = state.bad.iter().find(|bad| bad.release.digest == record.to.digest) {
            return Ok(Some(Reason::new(Cause::NotNow, banned_meanwhile(bad))));
        }
        let held = super::policy::held(state.hold.as_ref(), self.clock.wall());
        Ok(held.map(|blocked| Reason::new(Cause::NotNow, blocked.text)))
    }
}

fn banned_meanwhile(bad: &crate::types::state::Bad) -> String {
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

/// A name that says when it began and that no other has: `20261123T041214Z-9f3a6c`.
fn transaction_name(now: Timestamp) -> String {
    let mut random = [0_u8; 3];
    // Without randomness the process number still tells transactions of one second apart.
    if getrandom::fill(&mut random).is_err() {
        random.copy_from_slice(&std::process::id().to_le_bytes()[..3]);
    }
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{random}", now.strftime("%Y%m%dT%H%M%SZ"))
}
