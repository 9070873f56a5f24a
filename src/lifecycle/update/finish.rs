//! The end of an update: what is remembered, what is told, what is cleared away.

use super::driver::{Driver, Ended, Error};
use super::outcome::{End, end_of};
use crate::lifecycle::application::Moment;
use crate::lifecycle::node::copies::DataCopies;
use crate::types::record::{Blame, Cause, Intent, Phase, Reason, Record};
use crate::types::state::{Bad, HistoryEntry, Hold, Installed, Obstacle, Outcome, Setback, State};
use crate::types::{ReleaseId, chain};

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
        self.remember(record)?;
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
        if let Err(reason) = self.application.end_rehearsal() {
            self.narrator.remarks(record, &reason.text);
        }
        match DataCopies::new(self.store).needed() {
            Ok(needed) => {
                if let Err(reason) = self.application.drop_snapshots(&needed) {
                    self.narrator.remarks(record, &reason.text);
                }
            }
            Err(error) => self.narrator.remarks(record, &chain(&error)),
        }
        self.store.end_request()?;
        self.store.end_journal()?;
        self.application.disarm();
        Ok(())
    }

    /// What this end means for what the node remembers.
    fn remember(&self, record: &Record) -> Result<(), Error> {
        let now = self.clock.wall();
        let mut memory = self.store.memory()?;
        match &record.phase {
            Phase::Committed => commit(&mut memory, record, now),
            Phase::RolledBack { reason } => {
                if let Some(release) = &record.from {
                    went_back(&mut memory, record, release, now);
                }
                if record.intent == Intent::Update && reason.kind.blame() == Blame::Release {
                    ban(&mut memory, &record.to, &reason.text, now);
                }
                if is_by_hand(record, reason) {
                    hold(&mut memory, record, &reason.text, now);
                }
            }
            Phase::Cancelled { reason } => {
                if reason.kind.blame() == Blame::Release {
                    ban(&mut memory, &record.to, &reason.text, now);
                }
            }
            Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. } => {}
        }
        memory.baseline = obstacle(memory.baseline.take(), record, Cause::Baseline, now);
        memory.units = obstacle(memory.units.take(), record, Cause::Units, now);
        memory.setback = setback(memory.setback.take(), record, now);
        memory.needs_person = None;
        memory.keep()?;
        Ok(())
    }
}

/// What is in the way of every switch, if an update was called off for this cause.
fn obstacle(
    before: Option<Obstacle>,
    record: &Record,
    cause: Cause,
    now: jiff::Timestamp,
) -> Option<Obstacle> {
    let Phase::Cancelled { reason } = &record.phase else { return None };
    let since = before.map_or(now, |before| before.since);
    (reason.kind == cause).then(|| Obstacle { since, reason: reason.text.clone() })
}

/// What is remembered of updates that fail one after the other, though nothing speaks against the release. A fleet decides
/// itself what it tries again, and a person who ended an update knows it.
fn setback(before: Option<Setback>, record: &Record, now: jiff::Timestamp) -> Option<Setback> {
    let reason = match &record.phase {
        Phase::Committed => return None,
        Phase::RolledBack { reason } | Phase::Cancelled { reason } => reason,
        Phase::Staged
        | Phase::Warming
        | Phase::Switching
        | Phase::Trial { .. }
        | Phase::RollingBack { .. } => return before,
    };
    let has_waited = end_of(record).is_some_and(|end| end.exit_code == 15);
    let is_known = before.as_ref().is_some_and(|before| before.transaction == record.transaction);
    if record.intent == Intent::Rollback || record.rollout.is_some() || has_waited || is_known {
        return before;
    }
    match (reason.kind.blame(), reason.kind) {
        (Blame::Release, _) => None,
        (Blame::Fleet, _) | (Blame::Operator, Cause::Operator) => before,
        (Blame::Node | Blame::Operator | Blame::Nobody, _) => Some(Setback {
            release: record.to.clone(),
            times: before.filter(|before| before.release == record.to).map_or(0, |before| before.times) + 1,
            transaction: record.transaction.clone(),
            at: now,
            reason: reason.text.clone(),
        }),
    }
}

/// Whether the end of this update put automatic switching on hold.
pub fn holds(record: &Record) -> bool {
    matches!(&record.phase, Phase::RolledBack { reason } if is_by_hand(record, reason))
}

/// Whether a person wanted the release gone, so that no timer may bring it again; `--no-hold` says otherwise.
fn is_by_hand(record: &Record, reason: &Reason) -> bool {
    match record.intent {
        Intent::Rollback => !record.no_rollback,
        Intent::Update => reason.kind == Cause::Operator && !record.no_hold,
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
        // Whoever ended it, else whoever began it.
        by: record.ended_by.as_ref().unwrap_or(&record.by).clone(),
        before: std::collections::BTreeMap::new(),
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
    // The way back is the last committed release. What was active and never committed (its journal was lost) is none.
    state.previous = match (before, &record.from) {
        (Some(before), _) if before.release != record.to => Some(before),
        (Some(_), _) => state.earlier.first().cloned(),
        (None, Some(from)) => Some(Installed {
            release: from.clone(),
            serial: None,
            since: record.started,
            transaction: None,
            data: Vec::new(),
        }),
        (None, None) => None,
    };
    let kept = [&state.committed, &state.previous].map(|kept| kept.as_ref().map(|kept| kept.release.clone()));
    state.earlier.retain(|installed| !kept.contains(&Some(installed.release.clone())));
    state.earlier.truncate(EARLIER_MAX);
    // What was banned while the update was under way stays banned: somebody has seen something.
    state.bad.retain(|bad| bad.release.digest != record.to.digest || record.is_banned_by(bad));
}

/// After going back: a further way leads to the release before that, never back to the one just left.
fn went_back(state: &mut State, record: &Record, release: &ReleaseId, now: jiff::Timestamp) {
    if state.committed.as_ref().is_some_and(|kept| kept.release == *release) {
        return;
    }
    let mut chain: Vec<Installed> =
        state.previous.take().into_iter().chain(state.earlier.drain(..)).collect();
    let position = chain.iter().position(|installed| installed.release == *release);
    let known = position.map(|position| chain.drain(..=position).next_back()).unwrap_or_default();
    let (serial, data) = known.map(|known| (known.serial, known.data)).unwrap_or_default();
    let transaction = Some(record.transaction.clone());
    state.committed = Some(Installed { release: release.clone(), serial, since: now, transaction, data });
    let mut rest = chain.into_iter().filter(|installed| installed.release != record.to);
    state.previous = rest.next();
    state.earlier = rest.collect();
}

/// No automatic switching, until somebody says so. A hold that has no end is there already: its words stay.
fn hold(state: &mut State, record: &Record, why: &str, now: jiff::Timestamp) {
    if state.hold.as_ref().is_some_and(|hold| hold.until.is_none()) {
        return;
    }
    let reason =
        if why == BY_HAND { "rolled back by hand".to_owned() } else { format!("rolled back by hand: {why}") };
    state.hold = Some(Hold {
        since: now,
        until: None,
        reason,
        by: record.ended_by.as_ref().unwrap_or(&record.by).clone(),
    });
}

/// Never to be switched to again, until somebody says so.
pub fn ban(state: &mut State, release: &ReleaseId, why: &str, now: jiff::Timestamp) {
    if !state.bad.iter().any(|bad| bad.release.digest == release.digest) {
        state.bad.push(Bad { release: release.clone(), reason: why.to_owned(), since: now });
    }
}
