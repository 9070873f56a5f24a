//! One look at a node: what runs, what goes on, and what to do next.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;

use super::membership::Membership;
use super::offer;
use super::view::{
    API_VERSION, Active, BlockedView, DataView, DiskView, Doing, Last, Previous, Ready, RehearsalView,
    RestorableView, RollbackView, SourceView, Status, StoreView, TrialView, UnitView, UpdateView,
};
use crate::coord::settings::Mode;
use crate::lifecycle::application::data::{Data, Decision, SnapshotSet};
use crate::lifecycle::node::adopt;
use crate::lifecycle::node::copies::{DataCopies, age_s, is_older};
use crate::lifecycle::node::plan::DataBack;
use crate::lifecycle::node::{Error, phase_name};
use crate::lifecycle::settings::Settings;
use crate::store::{self, Damage, Kept, Layout, Pointer, Sealed, Store};
use crate::sys::lock;
use crate::types::record::{Intent, Phase, Record, Stands};
use crate::types::state::{Installed, State};
use crate::types::{Digest, Version, chain};

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
            let way_out = way_out(&why, "look at what runs, then move it away");
            problems.push(format!("`.cutover/journal.json` cannot be trusted: {why}; {way_out}"));
            None
        }
    };
    let active = active(store, &state, record.as_ref(), &mut problems)?;
    let previous = previous(store, settings, &state, record.as_ref(), active.as_ref(), now);
    // Without memory nobody knows what was active before.
    let is_known = problems.is_empty();
    let sealed = active.as_ref().and_then(|active| store.sealed(&active.version).ok()).and_then(whole);
    let product = sealed.as_ref().and_then(|sealed| sealed.product.as_deref());
    let digest = active.as_ref().and_then(|active| active.digest);
    let channel = offer::channel(settings, &state, product, digest);
    let offered = channel.as_ref().map(|channel| channel.digest);
    let staged = if is_known { ready(store, &state, active.as_ref(), offered)? } else { None };
    let history = store::newest_history(&store.layout.history()).unwrap_or_else(|error| {
        problems.push(chain(&error));
        Vec::new()
    });
    // An update under way goes on without it, and ends.
    let membership = Membership::read(&store.layout);
    problems.extend(membership.without_key(settings, &store.layout).filter(|_| record.is_none()));
    let mut status = Status {
        api_version: API_VERSION,
        app: app.to_owned(),
        node: node.to_owned(),
        root: store.layout.root().display().to_string(),
        as_of: Some(now),
        state: Doing::Idle,
        running: Vec::new(),
        previous,
        update: record.as_ref().map(|record| under_way(record, &store.layout)),
        trial: record.as_ref().and_then(|record| trial(record, &membership, settings)),
        rehearsal: record
            .as_ref()
            .filter(|record| RehearsalView::is_under_way(record))
            .map(RehearsalView::begun),
        last: history.into_iter().next().map(last),
        blocked: offer::in_the_way(settings, &state, product, digest, node, now)
            .into_iter()
            .map(BlockedView::from)
            .chain(membership.blocked(active.as_ref().map(|active| &active.version)))
            .collect(),
        channel,
        hold: state.hold.clone().filter(|hold| hold.until.is_none_or(|until| now < until)),
        bad: state.bad.clone(),
        pins: state.pins.clone(),
        disk: disk_view(store, settings, &state)?,
        data: data_view(store, active.as_ref(), now),
        store: store_view(store, settings)?,
        source: SourceView::of(&settings.source),
        rollout: record.as_ref().and_then(|record| record.rollout),
        needs_person: state.needs_person.clone(),
        unadopted: is_unadopted(store, &state)?,
        active,
        staged,
        problems,
        next: Vec::new(),
    };
    status.state = doing(&status, record.as_ref(), settings, &store.layout, &membership);
    status.next = super::advice::next(&status, record.as_ref());
    if adopt::interrupted(store).is_ok_and(|adopted| adopted.is_some()) {
        status.next.insert(0, super::advice::of_adoption());
    }
    Ok(status)
}

impl Status {
    /// Puts in how the application's units are, and what to do about one that does not run.
    pub fn add_running(&mut self, units: Vec<UnitView>) {
        let down = units.iter().find(|unit| unit.is_service() && !unit.ok);
        if let Some(unit) =
            down.filter(|_| matches!(self.state, Doing::Idle | Doing::Staged | Doing::Waiting))
        {
            self.next.insert(0, super::advice::of_unit(&unit.unit));
        }
        self.running = units;
    }

    /// Puts in why this node can tell its fleet nothing, if it cannot: it has no part in a rollout then.
    pub fn add_shut_out(&mut self, why: Option<String>) {
        let Some(text) = why else { return };
        let policy = "storage".to_owned();
        self.blocked.push(BlockedView { policy, since: None, until: None, text, exit_code: None });
        self.next.insert(0, super::advice::of_directory());
    }
}

/// How a node gets over a file of ours that cannot be believed.
fn way_out(why: &Damage, of_spoilt: &'static str) -> &'static str {
    match why {
        Damage::Newer(_) => "install that one again",
        Damage::Spoilt(_) => of_spoilt,
        Damage::Exposed(_) => "if nobody else has changed it, `chown` and `chmod go-w` put that right",
    }
}

/// Why nothing can be gone back to where `current` names nothing.
const NONE_ACTIVE: &str = "no release is active";

fn trusted(state: Kept<State>, name: &str, problems: &mut Vec<String>) -> State {
    match state {
        Kept::Missing => State::default(),
        Kept::Whole(state) => state,
        Kept::Damaged(why) => {
            let anew = "moved away, the node begins anew, without holds, pins, bans and a way back";
            let way_out = way_out(&why, anew);
            problems.push(format!("`.cutover/{name}` cannot be trusted: {why}; {way_out}"));
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
        Pointer::Foreign(_) if is_unadopted(store, state)? => return Ok(None),
        Pointer::Strange(why) => {
            problems.push(format!(
                "`current` leads nowhere: {why}; bring it back, or remove the link and switch"
            ));
            return Ok(None);
        }
        Pointer::Foreign(why) => {
            problems.push(format!(
                "`current` is not a link to a release: {why}; `cutover adopt` takes over what was installed by hand"
            ));
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

/// Whether `current` was installed by hand, and nothing of cutover's has been active here yet.
pub fn is_unadopted(store: &Store, state: &State) -> Result<bool, Error> {
    let is_new = state.committed.is_none() && store.journal()? == Kept::Missing;
    Ok(is_new && matches!(store.pointer()?, Pointer::Foreign(_)))
}

fn whole<T>(kept: Kept<T>) -> Option<T> {
    match kept {
        Kept::Whole(value) => Some(value),
        Kept::Missing | Kept::Damaged(_) => None,
    }
}

/// What a rollback would bring back now. While a new release is on trial that is the one that served before it, not the
/// one before that; and it is never the active one.
fn previous(
    store: &Store,
    settings: &Settings,
    state: &State,
    record: Option<&Record>,
    active: Option<&Active>,
    now: Timestamp,
) -> Option<Previous> {
    let is_active = |version: &Version| active.is_some_and(|active| active.version == *version);
    let switched = record.filter(|record| record.intent == Intent::Update && is_active(&record.to.version));
    let (installed, mut coming, new, asks) = match switched {
        Some(record) => {
            (before_trial(state, record)?, record.data.clone(), Some(&record.to.version), Vec::new())
        }
        None => {
            let installed = match active {
                Some(active) => state.way_back(&active.version)?.clone(),
                None => state.committed.clone()?,
            };
            let copy = DataCopies::new(store).of(&installed.release).ok().flatten();
            let new = active.map(|active| &active.version);
            let asks = new
                .map(|new| asked_first(store, settings, &installed.release.version, new, copy.as_ref(), now));
            (installed, copy.map(|copy| copy.items).unwrap_or_default(), new, asks.unwrap_or_default())
        }
    };
    let Installed { release, serial, since, .. } = installed;
    if is_active(&release.version) {
        return None;
    }
    let old = Some(&release.version);
    coming.retain(|copy| {
        new.is_some_and(|new| {
            let back = DataBack { settings, store, asked: None, old, new };
            back.decide(&copy.path) == Decision::Restore
        })
    });
    let restores = !coming.is_empty();
    // Only who may look into `.cutover` can tell.
    let is_seen = std::fs::read_dir(store.layout.private()).is_ok();
    let why_not = match store.tree(&release.version) {
        _ if active.is_none() => Some(NONE_ACTIVE.to_owned()),
        Err(error) => Some(chain(&error)),
        Ok(_) if is_seen => match store.ensure_pointer_moves() {
            Err(error) => Some(chain(&error)),
            Ok(()) => Data::of(store, settings).check_way_back(&coming).err().map(|error| chain(&error)),
        },
        Ok(_) => None,
    };
    let possible = why_not.is_none();
    let data = match (settings.data.is_empty(), restores) {
        (true, _) => "none",
        (false, true) => "restore",
        (false, false) => "keep",
    };
    let offers = state.channels.values().filter_map(|seen| seen.offer.as_ref());
    let revoked = offers.into_iter().any(|offer| offer.revoked.contains(&release.version));
    let rollback = RollbackView { possible, data: data.to_owned(), asks, revoked, why_not, changed: None };
    Some(Previous { version: release.version, serial, digest: release.digest, since, rollback })
}

/// What a rollback by hand wants to be told of the data before it begins.
fn asked_first(
    store: &Store,
    settings: &Settings,
    old: &Version,
    new: &Version,
    copy: Option<&SnapshotSet>,
    now: Timestamp,
) -> Vec<String> {
    let back = DataBack { settings, store, asked: None, old: Some(old), new };
    let items = copy.map(|copy| copy.items.as_slice()).unwrap_or_default();
    let is_old = |copy: &SnapshotSet| {
        back.restores(&copy.items) && is_older(copy.at, now, settings.data_policy.restore_within.0)
    };
    if !back.uncopied(items).is_empty() {
        vec!["keep".to_owned()]
    } else if copy.is_some_and(is_old) {
        vec!["restore".to_owned(), "keep".to_owned()]
    } else {
        Vec::new()
    }
}

/// The release that served before the one that is on trial.
fn before_trial(state: &State, record: &Record) -> Option<Installed> {
    let from = record.from.clone()?;
    let mut remembered = [&state.committed, &state.previous].into_iter().flatten().chain(&state.earlier);
    let known = remembered.find(|kept| kept.release == from).cloned();
    Some(known.unwrap_or(Installed {
        release: from,
        serial: None,
        since: record.started,
        transaction: None,
        data: Vec::new(),
    }))
}

/// A tree that could be switched to: that of the release on offer, whether it was active before or not; else the newest
/// that is neither active nor banned, and was never active. This is a look at what is here, not a record.
fn ready(
    store: &Store,
    state: &State,
    active: Option<&Active>,
    offered: Option<Digest>,
) -> Result<Option<Ready>, Error> {
    let newest = staged(store, state, active.map(|active| &active.version), offered)?;
    Ok(newest.map(|sealed| Ready {
        version: sealed.release.version,
        serial: sealed.serial,
        digest: sealed.release.digest,
        since: sealed.staged,
    }))
}

/// The same, with all that is known of it.
pub fn staged(
    store: &Store,
    state: &State,
    active: Option<&Version>,
    offered: Option<Digest>,
) -> Result<Option<Sealed>, Error> {
    let committed = state.committed.as_ref().filter(|kept| Some(&kept.release.version) == active);
    let since = committed.map(|kept| kept.since);
    let mut newest: Option<Sealed> = None;
    for version in store.releases()? {
        let Some(sealed) = whole(store.sealed(&version)?) else { continue };
        let was_active = active == Some(&version)
            || [&state.committed, &state.previous]
                .into_iter()
                .flatten()
                .chain(&state.earlier)
                .any(|kept| kept.release == sealed.release);
        let is_bad = state.bad.iter().any(|bad| bad.release.digest == sealed.release.digest);
        let is_older = since.is_some_and(|since| sealed.staged < since);
        let is_active = active == Some(&version);
        if offered == Some(sealed.release.digest) && !is_active && !is_bad {
            newest = Some(sealed);
            break;
        }
        if !was_active
            && !is_bad
            && !is_older
            && newest.as_ref().is_none_or(|newest| newest.staged < sealed.staged)
        {
            newest = Some(sealed);
        }
    }
    Ok(newest)
}

fn under_way(record: &Record, layout: &Layout) -> UpdateView {
    let reason = match &record.phase {
        Phase::RollingBack { reason } | Phase::RolledBack { reason } | Phase::Cancelled { reason } => {
            Some(reason.text.clone())
        }
        Phase::Staged | Phase::Warming | Phase::Switching | Phase::Trial { .. } | Phase::Committed => None,
    };
    UpdateView {
        transaction: record.transaction.clone(),
        intent: record.intent,
        from: record.from.as_ref().map(|from| from.version.clone()),
        to: record.to.version.clone(),
        phase: phase_name(&record.phase).to_owned(),
        reason,
        started: record.started,
        by: record.by.clone(),
        pid: worker(record, layout).map(|holder| holder.pid),
        // The journal does not say: it is of this moment.
        waits_for: None,
    }
}

/// Who works on the update: whoever changes something, or waits to go on with it.
fn worker(record: &Record, layout: &Layout) -> Option<lock::Holder> {
    let waits =
        if record.phase.stands() == Stands::Before { lock::holder(&layout.update_lock()) } else { None };
    waits.or_else(|| lock::holder(&layout.lock()))
}

fn store_view(store: &Store, settings: &Settings) -> Result<StoreView, Error> {
    let word = |method: store::Method| format!("{method:?}").to_lowercase();
    let configured = settings.store.method;
    Ok(StoreView { method: word(store.method_here(configured)?), configured: word(configured) })
}

fn trial(record: &Record, membership: &Membership, settings: &Settings) -> Option<TrialView> {
    let Phase::Trial { until } = &record.phase else { return None };
    Some(TrialView {
        deadline: membership.trial_ends(settings, until.wall),
        confirm: record.confirm,
        back_to: record.from.as_ref().map(|from| from.version.clone()),
        ..TrialView::default()
    })
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
        unanswered_ms: entry.unanswered_ms,
        by: entry.by,
        transaction: entry.transaction,
    }
}

fn disk_view(store: &Store, settings: &Settings, state: &State) -> Result<DiskView, Error> {
    // What cannot be told, since something is broken, is nothing.
    let reclaimable = crate::lifecycle::node::prune::plan(store, settings, state, None)
        .unwrap_or_default()
        .iter()
        .filter_map(|version| store.sealed(version).ok().and_then(whole))
        .map(|sealed| sealed.bytes)
        .sum();
    Ok(DiskView {
        free: store.space()?.free_bytes,
        reserve: store.reserve_bytes(&settings.store)?,
        reserve_configured: settings.store.reserve.0,
        reclaimable,
    })
}

fn data_view(store: &Store, active: Option<&Active>, now: Timestamp) -> DataView {
    let sealed = active.and_then(|active| store.sealed(&active.version).ok()).and_then(whole);
    // What cannot be looked at is not offered.
    let sets = DataCopies::new(store).restorable().unwrap_or_default();
    let restorable: Vec<_> = sets
        .iter()
        .filter_map(|set| {
            let version = set.release.as_ref()?.version.clone();
            let paths = set.items.iter().map(|item| item.path.clone()).collect();
            Some(RestorableView { version, at: set.at, age_s: age_s(set.at, now), paths })
        })
        .collect();
    let copies = sets.first().and_then(|set| set.items.first());
    // Each set has its data and a list of them beside; a list outlives data that somebody removed, and data a lost list.
    let still_there: Option<Vec<_>> = Data::kept(store)
        .still_aside()
        .ok()
        .map(|sets| sets.into_iter().map(|set| store.layout.aside().join(set.transaction)).collect());
    let holds = |place: &PathBuf| std::fs::read_dir(place).is_ok_and(|mut found| found.next().is_some());
    let is_there =
        |place: &PathBuf| still_there.as_ref().is_none_or(|known| known.contains(place)) || holds(place);
    let aside = std::fs::read_dir(store.layout.aside()).into_iter().flatten().flatten();
    let aside: BTreeSet<_> = aside.map(|entry| entry.path().with_extension("")).filter(is_there).collect();
    let aside = aside.iter().map(|place| place.display().to_string()).collect();
    DataView {
        epoch: sealed.and_then(|sealed| sealed.data_write),
        snapshot: copies.map(|copy| copy.method.clone()),
        restorable,
        aside,
    }
}

fn doing(
    status: &Status,
    record: Option<&Record>,
    settings: &Settings,
    layout: &Layout,
    membership: &Membership,
) -> Doing {
    if status.needs_person.is_some() || !status.problems.is_empty() {
        return Doing::NeedsPerson;
    }
    let is_staging = || lock::holder(&layout.staging_lock()).is_some();
    let Some(record) = record else {
        // A rehearsal by hand is no update, and has no record.
        if lock::holder(&layout.update_lock()).is_some_and(|holder| holder.command == "rehearse") {
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
        Phase::Trial { .. } if membership.is_in_doubt() => Doing::InDoubt,
        Phase::Trial { .. } => Doing::Trial,
        Phase::RollingBack { .. } => Doing::RollingBack,
        Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => Doing::Idle,
    }
}
