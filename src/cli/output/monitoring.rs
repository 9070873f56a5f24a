//! What machines watch: messages with fixed ids in the journal (`systemd/cutover.catalog` explains them), and the text
//! file for Prometheus.

use jiff::Timestamp;

use super::logging::EVENT;
use super::narrator::last_rollout;
use crate::cli::context::Context;
use crate::lifecycle::application::data::Data;
use crate::lifecycle::report::metrics;
use crate::lifecycle::report::view::Status;
use crate::lifecycle::update::outcome::describe;
use crate::store::{Kept, Store, read_history};
use crate::sys::disk::Disk;
use crate::types::chain;
use crate::types::record::{Intent, Phase, Record};

/// The pointer has moved to a new release, and its trial begins.
const SWITCHED: &str = "1872863bca924a5aa7573101809e7db0";
const COMMITTED: &str = "1619a22aae5d4781bd9cfd0dff6db413";
/// The old release serves again.
const ROLLED_BACK: &str = "02542f20111a4b09a3fdd092e2b79511";
/// Going back did not succeed.
const NEEDS_PERSON: &str = "6c1a23d351234d2fad9a0353522a4b79";

/// The update was given up before anything changed, or a first installation failed.
const GIVEN_UP: &str = "7f6c2d9a1b7e4a0c9d33c0a6f1b25e84";

/// Logs that an update has come to another phase, under the id of that event where it has one. Says it in words.
pub fn moved(record: &Record, phase: &str) -> String {
    let from = record.from.as_ref().map(|from| from.version.to_string()).unwrap_or_default();
    let (to, transaction, by) = (&record.to.version, &record.transaction, &record.by);
    let text = words(record);
    let id = match &record.phase {
        Phase::Trial { .. } => Some(SWITCHED),
        Phase::Committed => Some(COMMITTED),
        Phase::RolledBack { .. } => Some(ROLLED_BACK),
        Phase::Cancelled { reason } if !reason.kind.is_before_the_pointer() => Some(GIVEN_UP),
        Phase::Staged
        | Phase::Warming
        | Phase::Switching
        | Phase::RollingBack { .. }
        | Phase::Cancelled { .. } => None,
    };
    match id {
        Some(id) => tracing::info!(
            target: EVENT, MESSAGE_ID = id, FROM = %from, TO = %to, PHASE = phase, TRANSACTION = %transaction,
            BY = %by, "{text}"
        ),
        None => tracing::info!(
            target: EVENT, FROM = %from, TO = %to, PHASE = phase, TRANSACTION = %transaction, BY = %by, "{text}"
        ),
    }
    text
}

/// What a phase means, for people.
fn words(record: &Record) -> String {
    let to = &record.to.version;
    let back =
        record.from.as_ref().map_or_else(|| "nothing".to_owned(), |from| format!("release {}", from.version));
    match (&record.phase, record.intent) {
        (Phase::Staged, _) => format!("release {to} is ready; the switch begins"),
        (Phase::Warming, _) => format!("release {to} is rehearsed beside the running one"),
        (Phase::Switching, _) => format!("switching to release {to}"),
        (Phase::Trial { .. }, _) => format!("release {to} is on trial"),
        (Phase::RollingBack { reason }, Intent::Update) => format!("going back to {back}: {}", reason.text),
        (Phase::RollingBack { .. }, Intent::Rollback) => format!("going back to {back}"),
        (Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. }, _) => describe(record),
    }
}

/// Tells the journal that nothing automatic happens any more.
pub fn needs_person(why: &str) {
    tracing::error!(target: EVENT, MESSAGE_ID = NEEDS_PERSON, "this node needs a person: {why}");
}

/// Writes the text file for Prometheus, where one is configured.
pub fn write_metrics(context: &Context, store: &Store, view: &Status) {
    let Some(path) = &context.settings().metrics.textfile else { return };
    let state = match store.state() {
        Ok(Kept::Whole(state)) => state,
        Ok(Kept::Missing | Kept::Damaged(_)) | Err(_) => crate::types::state::State::default(),
    };
    let history = read_history(&store.layout.history()).unwrap_or_default();
    let doing = serde_json::to_value(view.state).ok();
    let update = match store.journal() {
        Ok(Kept::Whole(record)) => {
            Some((view.update.as_ref().is_some_and(|update| update.pid.is_some()), deadline(&record)))
        }
        Ok(Kept::Missing | Kept::Damaged(_)) | Err(_) => None,
    };
    let text = metrics::render(&metrics::Facts {
        app: &context.app,
        node: &context.node,
        active: view.active.as_ref().map(|active| &active.version),
        state: doing.as_ref().and_then(|word| word.as_str()).unwrap_or_default(),
        remembered: &state,
        history: &history,
        blocked: &view.blocked,
        channel: view.channel.as_ref(),
        units: &view.running,
        update,
        aside_bytes: aside_bytes(context, store),
        disk: Some((view.disk.free, view.disk.reserve)),
        rollout: last_rollout(&context.app),
    });
    if let Err(error) = metrics::write(&Disk::default(), path, &text) {
        tracing::warn!("the metrics are not up to date: {}", chain(&error));
    }
}

/// When the update must have ended: that of its timer, else that of its trial.
fn deadline(record: &Record) -> Option<Timestamp> {
    record.deadline.as_ref().or(record.phase.trial_until()).map(|deadline| deadline.wall)
}

/// Bytes that rollbacks have set aside, of all paths. What cannot be read counts as nothing.
fn aside_bytes(context: &Context, store: &Store) -> u64 {
    Data::of(store, context.settings()).aside().unwrap_or_default().iter().map(|(_, bytes)| bytes).sum()
}
