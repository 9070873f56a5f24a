//! One view of a node, for people, programs and monitoring: the shape of `status --json`. Only ever added to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::finish::end_of;
use super::fleet;
use super::node::Error;
use super::plan::DataBack;
use super::policy;
use super::rehearsal::RehearsalView;
use super::settings::Settings;
use crate::coord::settings::Mode;
use crate::store::{self, Kept, Layout, Pointer, Sealed, Store};
use crate::sys::disk::Disk;
use crate::sys::lock;
use crate::types::record::{Cause, Intent, Phase, Record};
use crate::types::state::{Bad, Hold, Installed, NeedsPerson, Outcome, State};
use crate::types::{Digest, Version};

/// The version of this shape.
pub const API_VERSION: u32 = 1;

/// What a node is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// Nothing.
    Idle,
    /// A release is being fetched and unpacked.
    Staging,
    /// A newer release lies ready.
    Staged,
    /// It waits for something.
    Waiting,
    /// The new release is rehearsed.
    Warming,
    /// The fleet is asked.
    Voting,
    /// Services stop and start.
    Switching,
    /// The new release is watched.
    Trial,
    /// The old release is being brought back.
    RollingBack,
    /// The fleet's decision is not known here.
    InDoubt,
    /// A person must decide.
    NeedsPerson,
}

/// The view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// See [`API_VERSION`].
    pub api_version: u32,
    /// The application.
    pub app: String,
    /// The node.
    pub node: String,
    /// The root.
    pub root: String,
    /// What it is about.
    pub state: Doing,
    /// What runs.
    pub active: Option<Active>,
    /// What a rollback would bring back.
    pub previous: Option<Previous>,
    /// A newer release that lies ready.
    pub staged: Option<Ready>,
    /// The trial under way.
    pub trial: Option<TrialView>,
    /// The rehearsal under way.
    #[serde(default)]
    pub rehearsal: Option<RehearsalView>,
    /// The last outcome.
    pub last: Option<Last>,
    /// What keeps a newer release from being switched to.
    pub blocked: Vec<BlockedView>,
    /// The hold, if there is one.
    pub hold: Option<Hold>,
    /// Releases that are never switched to.
    pub bad: Vec<Bad>,
    /// Releases that are never pruned.
    pub pins: Vec<Version>,
    /// Room.
    pub disk: DiskView,
    /// The application's data.
    pub data: DataView,
    /// How trees are made.
    pub store: StoreView,
    /// The fleet's rollout that this node is in.
    pub rollout: Option<u64>,
    /// Why a person is needed.
    pub needs_person: Option<NeedsPerson>,
    /// What is wrong with files of ours, or with the pointer.
    pub problems: Vec<String>,
    /// What to type next.
    pub next: Vec<String>,
}

/// What runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Active {
    /// Its name.
    pub version: Version,
    /// The channel's serial.
    pub serial: Option<u64>,
    /// Its digest, where it is known.
    pub digest: Option<Digest>,
    /// Since when it is active.
    pub since: Option<Timestamp>,
    /// Whether it is committed.
    pub committed: bool,
    /// Who vouched for it; empty for an unsigned one.
    pub signers: Vec<String>,
}

/// What a rollback would bring back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Previous {
    /// Its name.
    pub version: Version,
    /// The channel's serial.
    pub serial: Option<u64>,
    /// Its digest.
    pub digest: Digest,
    /// When it was committed.
    pub since: Timestamp,
    /// Whether going back is possible.
    pub rollback: RollbackView,
}

/// Whether going back is possible.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RollbackView {
    /// Its tree is here.
    pub possible: bool,
    /// What would happen to the data: `none`, `keep` or `restore`.
    pub data: String,
}

/// A newer release that lies ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Its name.
    pub version: Version,
    /// The channel's serial.
    pub serial: Option<u64>,
    /// Its digest.
    pub digest: Digest,
    /// When it was staged.
    pub since: Timestamp,
}

/// The trial under way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrialView {
    /// When it must have shown itself healthy.
    pub deadline: Option<Timestamp>,
    /// How long all has been well without a break, in seconds.
    pub healthy_for_s: u64,
    /// How long it must be, in seconds.
    pub need_s: u64,
    /// Each check.
    pub checks: Vec<serde_json::Value>,
    /// Processes by tree.
    pub processes: ProcessesView,
    /// A person must commit.
    pub confirm: bool,
}

/// Processes of the units, by the tree they run from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessesView {
    /// From the active one.
    pub new: usize,
    /// From others.
    pub old: usize,
}

/// The last outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Last {
    /// How it ended.
    pub outcome: Outcome,
    /// From which release.
    pub from: Option<Version>,
    /// To which.
    pub to: Version,
    /// Why, when it was no commit.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The exit code that told it.
    pub exit_code: u8,
    /// How long the service was away.
    pub downtime_ms: Option<u64>,
    /// The transaction.
    pub transaction: String,
}

/// What is in the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockedView {
    /// Which policy.
    pub policy: String,
    /// Until when.
    pub until: Option<Timestamp>,
    /// For people.
    pub text: String,
}

impl From<policy::Blocked> for BlockedView {
    fn from(blocked: policy::Blocked) -> Self {
        Self { policy: blocked.policy.name().to_owned(), until: blocked.until, text: blocked.text }
    }
}

/// Room.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DiskView {
    /// Free bytes.
    pub free: u64,
    /// Bytes that staging leaves alone.
    pub reserve: u64,
    /// Bytes of releases that `prune` would remove, at most.
    pub reclaimable: u64,
}

/// The application's data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DataView {
    /// What the active release writes.
    pub epoch: Option<u64>,
    /// Whether a copy from before the last switch is kept, and of what kind.
    pub snapshot: Option<String>,
    /// What rollbacks have set aside.
    pub aside: Vec<String>,
}

/// How trees are made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreView {
    /// The method.
    pub method: String,
}

/// Looks at a node. Changes nothing, waits for nothing, and shows what is broken rather than fail.
pub fn status(
    app: &str,
    node: &str,
    settings: &Settings,
    store: &Store,
    now: Timestamp,
) -> Result<Status, Error> {
    let mut problems = Vec::new();
    let state = trusted(store.state()?, "state.json", &mut problems);
    let record: Option<Record> = match store.journal()? {
        Kept::Missing => None,
        Kept::Whole(record) => Some(record),
        Kept::Damaged(why) => {
            problems.push(format!("the journal cannot be trusted: {why}"));
            None
        }
    };
    let active = active(store, &state, record.as_ref(), &mut problems)?;
    let previous = previous(store, settings, &state);
    let staged = ready(store, &state, active.as_ref())?;
    let history = store::read_history(&store.layout.history())?;
    let mut status = Status {
        api_version: API_VERSION,
        app: app.to_owned(),
        node: node.to_owned(),
        root: store.layout.root().display().to_string(),
        state: Doing::Idle,
        previous,
        trial: record.as_ref().and_then(trial),
        rehearsal: record
            .as_ref()
            .filter(|record| RehearsalView::is_under_way(record))
            .map(RehearsalView::begun),
        last: history.into_iter().next().map(last),
        blocked: policy::held(state.hold.as_ref(), now).map(BlockedView::from).into_iter().collect(),
        hold: state.hold.clone().filter(|hold| hold.until.is_none_or(|until| now < until)),
        bad: state.bad.clone(),
        pins: state.pins.clone(),
        disk: disk_view(store, settings, &state)?,
        data: data_view(store, active.as_ref(), &state),
        store: StoreView { method: format!("{:?}", settings.store.method).to_lowercase() },
        rollout: record.as_ref().and_then(|record| record.rollout),
        needs_person: state.needs_person.clone(),
        active,
        staged,
        problems,
        next: Vec::new(),
    };
    status.state = doing(&status, record.as_ref(), settings, &store.layout);
    status.next = super::advice::next(&status, record.as_ref());
    Ok(status)
}

fn trusted(state: Kept<State>, name: &str, problems: &mut Vec<String>) -> State {
    match state {
        Kept::Missing => State::default(),
        Kept::Whole(state) => state,
        Kept::Damaged(why) => {
            problems.push(format!("`.cutover/{name}` cannot be trusted: {why}"));
            State::default()
        }
    }
}

fn active(
    store: &Store,
    state: &State,
    record: Option<&Record>,
    problems: &mut Vec<String>,
) -> Result<Option<Active>, Error> {
    let version = match store.pointer()? {
        Pointer::Absent => return Ok(None),
        Pointer::Release(version) => version,
        Pointer::Strange(why) => {
            problems.push(format!("`current` is not a link to a release: {why}"));
            return Ok(None);
        }
    };
    let committed = state.committed.as_ref().filter(|committed| committed.release.version == version);
    let sealed = whole(store.sealed(&version)?);
    let on_trial = record.filter(|record| record.intent == Intent::Update && record.to.version == version);
    Ok(Some(Active {
        serial: committed.and_then(|kept| kept.serial).or(sealed.as_ref().and_then(|sealed| sealed.serial)),
        digest: committed
            .map(|kept| kept.release.digest)
            .or(sealed.as_ref().map(|sealed| sealed.release.digest)),
        since: committed.map(|kept| kept.since).or(on_trial.map(|record| record.started)),
        committed: committed.is_some() || on_trial.is_some_and(|record| record.phase == Phase::Committed),
        signers: sealed.map(|sealed| sealed.signers).unwrap_or_default(),
        version,
    }))
}

fn whole<T>(kept: Kept<T>) -> Option<T> {
    match kept {
        Kept::Whole(value) => Some(value),
        Kept::Missing | Kept::Damaged(_) => None,
    }
}

fn previous(store: &Store, settings: &Settings, state: &State) -> Option<Previous> {
    let Installed { release, serial, since, .. } = state.previous.clone()?;
    let possible = store.tree(&release.version).is_ok();
    let restores = state.committed.as_ref().is_some_and(|kept| {
        let (old, new) = (Some(&release.version), &kept.release.version);
        DataBack { settings, store, asked: None, old, new }.restores(&kept.data)
    });
    let data = match (settings.data.is_empty(), restores) {
        (true, _) => "none",
        (false, true) => "restore",
        (false, false) => "keep",
    };
    let rollback = RollbackView { possible, data: data.to_owned() };
    Some(Previous { version: release.version, serial, digest: release.digest, since, rollback })
}

/// The newest tree that is neither active nor banned, and was never active.
fn ready(store: &Store, state: &State, active: Option<&Active>) -> Result<Option<Ready>, Error> {
    let mut newest: Option<Sealed> = None;
    for version in store.releases()? {
        let Some(sealed) = whole(store.sealed(&version)?) else { continue };
        let was_active = active.is_some_and(|active| active.version == version)
            || [&state.committed, &state.previous]
                .into_iter()
                .flatten()
                .chain(&state.earlier)
                .any(|kept| kept.release == sealed.release);
        let is_bad = state.bad.iter().any(|bad| bad.release.digest == sealed.release.digest);
        let is_older = active.and_then(|active| active.since).is_some_and(|since| sealed.staged < since);
        if !was_active
            && !is_bad
            && !is_older
            && newest.as_ref().is_none_or(|newest| newest.staged < sealed.staged)
        {
            newest = Some(sealed);
        }
    }
    Ok(newest.map(|sealed| Ready {
        version: sealed.release.version,
        serial: sealed.serial,
        digest: sealed.release.digest,
        since: sealed.staged,
    }))
}

fn trial(record: &Record) -> Option<TrialView> {
    let Phase::Trial { until } = &record.phase else { return None };
    Some(TrialView { deadline: Some(until.wall), confirm: record.confirm, ..TrialView::default() })
}

fn last(entry: crate::types::state::HistoryEntry) -> Last {
    Last {
        outcome: entry.outcome,
        from: entry.from,
        to: entry.to,
        reason: entry.reason,
        at: entry.at,
        exit_code: entry.exit_code,
        downtime_ms: entry.downtime_ms,
        transaction: entry.transaction,
    }
}

fn disk_view(store: &Store, settings: &Settings, state: &State) -> Result<DiskView, Error> {
    let reclaimable = super::pruning::plan(store, settings, state, None)?
        .iter()
        .filter_map(|version| store.sealed(version).ok().and_then(whole))
        .map(|sealed| sealed.bytes)
        .sum();
    Ok(DiskView {
        free: store.space()?.free_bytes,
        reserve: store.reserve_bytes(&settings.store)?,
        reclaimable,
    })
}

fn data_view(store: &Store, active: Option<&Active>, state: &State) -> DataView {
    let sealed = active.and_then(|active| store.sealed(&active.version).ok()).and_then(whole);
    let copies = state.committed.iter().flat_map(|kept| &kept.data).next();
    let aside = std::fs::read_dir(store.layout.aside()).into_iter().flatten().flatten();
    let mut aside: Vec<_> = aside.map(|entry| entry.path().display().to_string()).collect();
    aside.sort();
    DataView {
        epoch: sealed.and_then(|sealed| sealed.data_write),
        snapshot: copies.map(|copy| copy.method.clone()),
        aside,
    }
}

fn doing(status: &Status, record: Option<&Record>, settings: &Settings, layout: &Layout) -> Doing {
    if status.needs_person.is_some() || !status.problems.is_empty() {
        return Doing::NeedsPerson;
    }
    let is_staging = || lock::holder(&layout.staging_lock()).is_some();
    let Some(record) = record else {
        // A rehearsal by hand is no update, and has no record.
        if lock::holder(&layout.lock()).is_some_and(|holder| holder.command == "rehearse") {
            return Doing::Warming;
        }
        return match (&status.staged, is_staging()) {
            (_, true) => Doing::Staging,
            (Some(_), false) if !status.blocked.is_empty() => Doing::Waiting,
            (Some(_), false) => Doing::Staged,
            (None, false) => Doing::Idle,
        };
    };
    match &record.phase {
        Phase::Staged if settings.fleet.mode != Mode::Independent => Doing::Voting,
        Phase::Staged => Doing::Waiting,
        Phase::Warming if RehearsalView::is_under_way(record) => Doing::Warming,
        Phase::Warming if settings.fleet.mode != Mode::Independent => Doing::Voting,
        Phase::Warming => Doing::Waiting,
        Phase::Switching => Doing::Switching,
        Phase::Trial { .. } if is_in_doubt(layout) => Doing::InDoubt,
        Phase::Trial { .. } => Doing::Trial,
        Phase::RollingBack { .. } => Doing::RollingBack,
        Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => Doing::Idle,
    }
}

/// Whether the node has promised to wait for a decision that it cannot read.
fn is_in_doubt(layout: &Layout) -> bool {
    let kept = fleet::Kept::load(&Disk::default(), &layout.fleet());
    let part = kept.ok().flatten().and_then(|kept| kept.own.part);
    part.is_some_and(|part| part.in_doubt_since.is_some())
}

/// What a record that has ended says, in a few words.
pub fn verdict(record: &Record) -> String {
    let Some(end) = end_of(record) else { return format!("release {} is under way", record.to.version) };
    let why = end.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let to = &record.to.version;
    match (&record.phase, &record.from) {
        (Phase::Committed, _) => format!("release {to} is committed"),
        (Phase::RolledBack { .. }, Some(from)) if record.intent == Intent::Rollback => {
            format!("went back from release {to} to {}", from.version)
        }
        (Phase::RolledBack { reason }, Some(from)) if reason.kind == Cause::NotNow => {
            format!("release {to} was not switched to{why}; release {} serves and is healthy", from.version)
        }
        (Phase::RolledBack { .. }, Some(from)) => {
            format!("release {to} was rolled back{why}; release {} serves again and is healthy", from.version)
        }
        (Phase::RolledBack { .. }, None) => format!("the first installation, of release {to}, failed{why}"),
        (
            Phase::Cancelled { .. }
            | Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. },
            _,
        ) => format!("release {to} was not switched to{why}"),
    }
}
