//! What machines watch: messages with fixed ids in the journal (`systemd/cutover.catalog` explains them), and the text
//! file for Prometheus.

use super::context::Context;
use crate::lifecycle::metrics;
use crate::lifecycle::outcome::describe;
use crate::lifecycle::view::Status;
use crate::store::{Kept, Store, read_history};
use crate::sys::disk::Disk;
use crate::types::record::{Phase, Record};

/// The pointer has moved to a new release, and its trial begins.
const SWITCHED: &str = "1872863bca924a5aa7573101809e7db0";
/// A release stays.
const COMMITTED: &str = "1619a22aae5d4781bd9cfd0dff6db413";
/// The old release serves again.
const ROLLED_BACK: &str = "02542f20111a4b09a3fdd092e2b79511";
/// Going back did not succeed.
const NEEDS_PERSON: &str = "6c1a23d351234d2fad9a0353522a4b79";

/// Logs that an update has come to another phase, under the id of that event where it has one.
pub fn moved(record: &Record, phase: &str) {
    let from = record.from.as_ref().map(|from| from.version.to_string()).unwrap_or_default();
    let (to, transaction) = (&record.to.version, &record.transaction);
    let (id, text) = match &record.phase {
        Phase::Trial { .. } => (SWITCHED, format!("release {to} runs and is watched")),
        Phase::Committed => (COMMITTED, describe(record)),
        Phase::RolledBack { .. } => (ROLLED_BACK, describe(record)),
        Phase::Staged
        | Phase::Warming
        | Phase::Switching
        | Phase::RollingBack { .. }
        | Phase::Cancelled { .. } => {
            tracing::info!(FROM = %from, TO = %to, PHASE = phase, TRANSACTION = %transaction, "update moved");
            return;
        }
    };
    tracing::info!(
        MESSAGE_ID = id, FROM = %from, TO = %to, PHASE = phase, TRANSACTION = %transaction, "{text}"
    );
}

/// The run is over: tells the journal when a person is needed, and writes the text file where one is configured.
pub fn ended(context: &Context, store: &Store, view: &Status) {
    // On a terminal the error message says it; twice would be once too many.
    if let Some(needs) = view.needs_person.as_ref().filter(|_| super::logging::is_under_systemd()) {
        tracing::error!(MESSAGE_ID = NEEDS_PERSON, "this node needs a person: {}", needs.reason);
    }
    let Some(path) = &context.settings().metrics.textfile else { return };
    let state = match store.state() {
        Ok(Kept::Whole(state)) => state,
        Ok(Kept::Missing | Kept::Damaged(_)) | Err(_) => crate::types::state::State::default(),
    };
    let history = read_history(&store.layout.history()).unwrap_or_default();
    let doing = serde_json::to_value(view.state).ok();
    let text = metrics::render(&metrics::Facts {
        app: &context.app,
        node: &context.node,
        active: view.active.as_ref().map(|active| &active.version),
        state: doing.as_ref().and_then(|word| word.as_str()).unwrap_or_default(),
        remembered: &state,
        history: &history,
        blocked: &view.blocked.iter().map(|blocked| blocked.policy.as_str()).collect::<Vec<_>>(),
        disk: Some((view.disk.free, view.disk.reserve)),
        rollout: None,
    });
    if let Err(error) = metrics::write(&Disk::default(), path, &text) {
        tracing::warn!("the metrics are not up to date: {}", crate::lifecycle::driver::chain(&error));
    }
}
