//! The end of an update: what is remembered, what is told, what is cleared away.

use super::application::Moment;
use super::driver::{Driver, Ended, Error, chain};
use super::outcome::{End, end_of};
use crate::types::ReleaseId;
use crate::types::record::{Blame, Intent, Phase, Record};
use crate::types::state::{Bad, HistoryEntry, Hold, Installed, Outcome, State};

/// How many releases before the previous one are remembered.
const EARLIER_MAX: usize = 16;

/// The reason of a rollback for which nobody gave one.
pub const BY_HAND: &str = "by hand";

impl Driver<'_> {
    /// Remembers the outcome, clears away, and ends the journal. Each part may be done twice. The outcome is in the
    /// journal already: what cannot be remembered now is remembered by the next run, and changes nothing of it.
    pub(super) fn finish(&mut self, record: Record) -> Result<Ended, Error> {
        if let Err(error) = self.try_finish(&record) {
            self.narrator
                .remarks(&record, &format!("the next run will finish the bookkeeping: {}", chain(&error)));
        }
        Ok(Ended::Finished(Box::new(record)))
    }

    fn try_finish(&mut self, record: &Record) -> Result<(), Error> {
        let Some(end) = end_of(record) else { return Ok(()) };
        let state = self.remember(record)?;
        let is_quiet = end.exit_code == 15;
        if !is_quiet {
            self.store.remember(&history_entry(self.clock.wall(), record, &end))?;
        }
        let moment = match end.outcome {
            Outcome::Committed => Moment::Committed,
            Outcome::RolledBack if record.intent == Intent::Rollback => Moment::PostRollback,
            Outcome::RolledBack => Moment::PostRollback,
            Outcome::Failed | Outcome::Refused | Outcome::CalledOff => Moment::Failed,
        };
        let mut moments = vec![moment];
        if moment == Moment::PostRollback && record.intent == Intent::Update {
            moments.push(Moment::Failed);
        }
        for moment in moments.into_iter().filter(|_| !is_quiet) {
            if let Err(hook) = self.application.hooks(moment, record) {
                self.narrator.remarks(record, &hook.text);
            }
        }
        let mut needed: Vec<_> =
            state.committed.iter().chain(&state.previous).flat_map(|kept| kept.data.clone()).collect();
        needed.dedup();
        if let Err(reason) = self.application.end_rehearsal() {
            self.narrator.remarks(record, &reason.text);
        }
        if let Err(reason) = self.application.drop_snapshots(&needed) {
            self.narrator.remarks(record, &reason.text);
        }
        self.store.end_request()?;
        self.store.end_journal()?;
        self.application.disarm();
        Ok(())
    }

    /// What this end means for what the node remembers.
    fn remember(&self, record: &Record) -> Result<State, Error> {
        let mut state = self.store.trusted_state()?;
        let before = state.clone();
        match &record.phase {
            Phase::Committed => commit(&mut state, record, self.clock.wall()),
            Phase::RolledBack { reason } if record.intent == Intent::Rollback => {
                if let Some(release) = &record.from {
                    went_back(&mut state, record, release, &reason.text, self.clock.wall());
                }
            }
            Phase::RolledBack { reason } | Phase::Cancelled { reason } => {
                if reason.kind.blame() == Blame::Release {
                    ban(&mut state, &record.to, &reason.text, self.clock.wall());
                }
            }
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. } => {}
        }
        state.needs_person = None;
        if state != before {
            self.store.keep_state(&state)?;
        }
        Ok(state)
    }
}

/// An outcome as the history keeps it.
pub fn history_entry(now: jiff::Timestamp, record: &Record, end: &End) -> HistoryEntry {
    HistoryEntry {
        at: now,
        transaction: record.transaction.clone(),
        outcome: end.outcome,
        // One sense for all: a rollback, by hand or not, is of `to`, and `from` serves again.
        from: record.from.as_ref().map(|from| from.version.clone()),
        to: record.to.version.clone(),
        digest: record.to.digest,
        reason: end.reason.clone(),
        exit_code: end.exit_code,
        downtime_ms: record.downtime_ms,
        unanswered_ms: record.unanswered.as_ref().map(|unanswered| unanswered.total_ms),
        took_ms: u64::try_from(now.duration_since(record.started).as_millis()).unwrap_or(0),
        rollout: record.rollout,
        by: record.by.clone(),
    }
}

fn commit(state: &mut State, record: &Record, now: jiff::Timestamp) {
    if state.committed.as_ref().is_some_and(|kept| kept.transaction.as_ref() == Some(&record.transaction)) {
        return;
    }
    let installed = Installed {
        release: record.to.clone(),
        serial: record.serial,
        since: now,
        transaction: Some(record.transaction.clone()),
        data: record.data.clone(),
    };
    let before = state.committed.replace(installed);
    state.earlier.splice(0..0, state.previous.take());
    // The way back leads to what was active, which after trouble need not be what was committed.
    state.previous = match (&record.from, before) {
        (Some(from), Some(before)) if before.release == *from => Some(before),
        (Some(from), _) => Some(Installed {
            release: from.clone(),
            serial: None,
            since: record.started,
            transaction: None,
            data: Vec::new(),
        }),
        (None, _) => None,
    };
    let kept = [&state.committed, &state.previous].map(|kept| kept.as_ref().map(|kept| kept.release.clone()));
    state.earlier.retain(|installed| !kept.contains(&Some(installed.release.clone())));
    state.earlier.truncate(EARLIER_MAX);
    state.bad.retain(|bad| bad.release.digest != record.to.digest);
}

/// After a rollback by hand: a further one leads to the release before that, never back to the one just left.
fn went_back(state: &mut State, record: &Record, release: &ReleaseId, why: &str, now: jiff::Timestamp) {
    let mut chain: Vec<Installed> =
        state.previous.take().into_iter().chain(state.earlier.drain(..)).collect();
    let position = chain.iter().position(|installed| installed.release == *release);
    let known = position.map(|position| chain.drain(..=position).next_back()).unwrap_or_default();
    let serial = known.and_then(|installed| installed.serial);
    let transaction = Some(record.transaction.clone());
    state.committed =
        Some(Installed { release: release.clone(), serial, since: now, transaction, data: Vec::new() });
    let mut rest = chain.into_iter().filter(|installed| installed.release != record.to);
    state.previous = rest.next();
    state.earlier = rest.collect();
    if !record.no_rollback {
        let reason = if why == BY_HAND {
            "rolled back by hand".to_owned()
        } else {
            format!("rolled back by hand: {why}")
        };
        state.hold = Some(Hold { since: now, until: None, reason, by: record.by.clone() });
    }
}

/// Never to be switched to again, until somebody says so.
pub fn ban(state: &mut State, release: &ReleaseId, why: &str, now: jiff::Timestamp) {
    if !state.bad.iter().any(|bad| bad.release.digest == release.digest) {
        state.bad.push(Bad { release: release.clone(), reason: why.to_owned(), since: now });
    }
}
