//! One application on one node: its locks, what is under way, and what a new update begins with.

pub mod adopt;
pub mod copies;
pub mod plan;
pub mod prune;
pub mod requests;
pub mod touched;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use nix::unistd::Pid;

use self::copies::age_text;
use self::plan::DataBack;
use super::agreement::Agreement;
use super::application::Application;
use super::application::data::{self, Data, Decision};
use super::policy;
use super::settings::Settings;
use super::staging::upstream::Offered;
use super::update::deadline::{self, Bounds};
use super::update::driver::{self, Ended, Narrator};
pub use super::update::way_back::{Route, WayBack};
use crate::store::{Kept, Store};
use crate::sys::clock::Clock;
use crate::sys::lock::{self, Attempt, Holder, Lock};
use crate::sys::orphans;
use crate::types::record::{DataPolicy, DataSnapshot, Deadline, Intent, Phase, Record, Stands};
use crate::types::state::State;
use crate::types::{ReleaseId, Version, escaped_path};

/// For so long somebody may stand still with a lock: who was stopped for a moment goes on.
const STANDS_STILL: Duration = Duration::from_secs(60);
/// How long the kernel may take to let go of a killed process's lock.
const LET_GO: Duration = Duration::from_secs(5);

/// One application on one node, and who asks for what.
pub struct Node<'a> {
    pub app: &'a str,
    pub name: &'a str,
    /// The settings in force. An update under way has its own.
    pub settings: &'a Settings,
    pub store: &'a Store,
    pub clock: &'a dyn Clock,
    /// Who asks: `timer`, or a user's name.
    pub by: String,
    /// What was asked for, for the lock.
    pub command: String,
    /// Set when somebody wants this run to end.
    pub interrupted: &'a AtomicBool,
    pub narrator: &'a dyn Narrator,
    pub collaborators: &'a dyn Collaborators,
    /// Whether nothing may be changed, not even what is remembered.
    pub is_dry: bool,
}

/// What an update is carried out with, as settings describe it: those of the node, or those that an update under way began
/// with.
pub trait Collaborators {
    fn application<'s>(&'s self, settings: &'s Settings) -> Box<dyn Application + 's>;

    /// Calls `work` with those who must agree.
    fn with_agreement(&self, settings: &Settings, work: &mut Work<'_>) -> Result<Ended, driver::Error>;
}

/// What is done with an agreement.
pub type Work<'a> = dyn FnMut(&mut dyn Agreement) -> Result<Ended, driver::Error> + 'a;

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
    #[error("the data of release {} are of {}, {}: going back to it would bring them back", .back_to.version, super::policy::short(*.at), age_text(*.at, *.now))]
    OldData {
        /// The release that would come back.
        back_to: ReleaseId,
        /// When its data were copied.
        at: Timestamp,
        now: Timestamp,
        /// The words of the command so far.
        named: Option<Version>,
    },
    /// Data are wanted back of which there is no copy.
    #[error("there is no copy of the data{} of release {}", named_paths(.paths), .back_to.version)]
    NoCopy {
        /// The release that would come back.
        back_to: ReleaseId,
        /// Those that have none; empty: all.
        paths: Vec<PathBuf>,
        /// The words of the command so far.
        named: Option<Version>,
    },
    /// There is nothing to go back to.
    #[error("there is no release to go back to: {0}")]
    NoWayBack(String),
    /// There is nothing to go back from.
    #[error("no release is active, so there is none to go back from")]
    NoneActive,
    /// No trial is under way.
    #[error("no release is on trial")]
    NoTrial,
    #[error("release {} is banned since {}: {}", .0.release.version, super::policy::short(.0.since), .0.reason)]
    Banned(crate::types::state::Bad),
    #[error("release {0} is active already")]
    ActiveAlready(Version),
    /// The way back would lead to where it begins.
    #[error("release {0} is the one to go back from")]
    IsLeft(Version),
    /// A way back has begun to move data, and another one is wanted.
    #[error(
        "the way back to release {0} has moved data already: they cannot stay as they are, and no other release may start on them"
    )]
    DataMoved(Version),
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

impl Error {
    /// Whether the disk has no room.
    pub(super) fn is_no_space(&self) -> bool {
        use crate::store::Error as E;
        match self {
            Self::Store(error) | Self::Driver(driver::Error::Store(error)) => match error {
                E::NoSpace(_) => true,
                E::Disk(error) => error.is_no_space(),
                E::Root { .. }
                | E::StrangePointer { .. }
                | E::Damaged { .. }
                | E::Unknown { .. }
                | E::Locked { .. }
                | E::NoSuchTree(_)
                | E::OtherContent { .. }
                | E::OtherFilesystem { .. } => false,
            },
            _ => false,
        }
    }
}

fn told(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(": `{}` (pid {}), since {}", holder.command, holder.pid, policy::short(holder.since))
    })
}

fn named_paths(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| format!(" `{}`", escaped_path(path))).collect();
    names.join(",")
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
    /// The application as the settings in force describe it.
    pub fn application(&self) -> Box<dyn Application + '_> {
        self.collaborators.application(self.settings)
    }

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

    pub(super) fn attempt(&self, path: &std::path::Path) -> Result<Attempt, crate::store::Error> {
        let me = Holder { pid: std::process::id(), command: self.command.clone(), since: self.clock.wall() };
        Ok(lock::try_lock(&self.store.disk, path, &me)?)
    }

    fn try_to_take(&self, path: &std::path::Path) -> Result<Lock, Error> {
        self.store.prepare()?;
        match self.attempt(path)? {
            Attempt::Mine(lock) => Ok(lock),
            Attempt::Theirs(holder) => match holder.as_ref().is_some_and(|holder| self.has_ended(holder)) {
                true => match self.attempt(path)? {
                    Attempt::Mine(lock) => Ok(lock),
                    Attempt::Theirs(holder) => Err(Error::Busy(holder)),
                },
                false => Err(Error::Busy(holder)),
            },
        }
    }

    /// Ends whoever stands still with a lock while nothing is under way: no deadline ends it, and all others would wait. What
    /// it did not finish is cleared away, or done again. An update has its dead man's switch.
    fn has_ended(&self, holder: &Holder) -> bool {
        let held = self.clock.wall().duration_since(holder.since).unsigned_abs();
        let Ok(pid) = i32::try_from(holder.pid).map(Pid::from_raw) else { return false };
        let is_idle = || matches!(self.store.journal(), Ok(Kept::Missing));
        if held < STANDS_STILL || !is_idle() || !orphans::stands_still(pid) {
            return false;
        }
        tracing::warn!("`{}` (pid {pid}) stands still, and is killed", holder.command);
        orphans::kill_with_children(pid).is_ok_and(|()| self.is_let_go(pid))
    }

    /// Whether the kernel has taken back what a killed process held.
    fn is_let_go(&self, pid: Pid) -> bool {
        let began = self.clock.boot();
        while orphans::is_alive(pid) {
            if self.clock.boot().saturating_sub(began) > LET_GO {
                return false;
            }
            self.clock.sleep(Duration::from_millis(20));
        }
        true
    }

    pub fn data(&self) -> Data {
        Data::of(self.store, self.settings)
    }

    /// Refuses a way back on which data would have to come back that cannot: looked at, and tried.
    pub fn check_way_back(&self, route: &Route, asked: DataPolicy) -> Result<(), Error> {
        self.store.ensure_pointer_moves()?;
        let coming = self.coming_back(route, asked);
        self.data().check_way_back(&coming)?;
        let comes = |entry: &&super::settings::Data| {
            coming.iter().any(|copy| entry.path.as_os_str() == copy.path.as_str())
        };
        let entries: Vec<_> = self.settings.data.iter().filter(comes).cloned().collect();
        match self.data().try_way_back(&entries) {
            // Going back makes nothing new; to try it does.
            Err(error) if error.is_no_space() => Ok(()),
            tried => Ok(tried?),
        }
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
    pub(super) fn begin(&self, mut record: Record) -> Result<(), crate::store::Error> {
        self.store.end_request()?;
        self.store.begin_journal(self.settings, &mut record)?;
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
            overrules: None,
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
