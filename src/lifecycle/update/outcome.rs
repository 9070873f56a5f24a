//! How an update ended, whose fault that was, and what follows from it: one table, and nothing but a table.
//!
//! ```text
//! blame      banned   tried again by the timer      who can change something
//! release    yes      after `mark-good`, or newer   whoever makes releases
//! node       no       yes                           who looks after this machine
//! operator   no       yes                           whoever set it up, or was asked to commit
//! fleet      no       as the fleet decides          the fleet
//! nobody     no       yes                           time
//! ```
//! Exit code, history, status, metrics and log all tell what is worked out here.

use crate::types::record::{Blame, Cause, Intent, Phase, Reason, Record};
use crate::types::state::Outcome;

#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub outcome: Outcome,
    /// The exit code that tells it.
    pub exit_code: u8,
    /// Whose fault it was; absent when it ended as it was meant to.
    pub blame: Option<Blame>,
    /// Why, when it is not a commit.
    pub reason: Option<String>,
}

impl End {
    /// Whether an update that was cut short has been undone, and nothing is wrong with anybody's work: whoever goes on
    /// with it has done all there was to do, and may begin anew.
    pub fn is_undone(&self) -> bool {
        self.blame == Some(Blame::Nobody) && matches!(self.outcome, Outcome::Failed | Outcome::CalledOff)
    }

    /// Whether a run that has finished what another one left goes on to what is wanted now. In a fleet that may be another
    /// rollout, whose votes are due before the next run.
    pub fn leaves_more_to_do(&self) -> bool {
        let is_of_fleet = self.outcome == Outcome::CalledOff && self.blame == Some(Blame::Fleet);
        self.exit_code == 0 || self.is_undone() || is_of_fleet
    }
}

/// How this record ended, if it has.
pub fn end_of(record: &Record) -> Option<End> {
    let (outcome, exit_code, reason) = match &record.phase {
        Phase::Committed => (Outcome::Committed, 0, None),
        Phase::RolledBack { reason } => {
            let (outcome, exit_code) = rolled_back(reason.kind, record.intent, record.from.is_some());
            (outcome, exit_code, Some(reason))
        }
        Phase::Cancelled { reason } => {
            let (outcome, exit_code) = called_off(reason.kind);
            (outcome, exit_code, Some(reason))
        }
        Phase::Staged
        | Phase::Warming
        | Phase::Switching
        | Phase::Trial { .. }
        | Phase::RollingBack { .. } => return None,
    };
    let blame = reason.filter(|_| record.intent == Intent::Update).map(|reason| reason.kind.blame());
    Some(End { outcome, exit_code, blame, reason: reason.map(|reason| reason.text.clone()) })
}

/// Something had been changed, and is as before.
fn rolled_back(cause: Cause, intent: Intent, has_way_back: bool) -> (Outcome, u8) {
    match (intent, has_way_back, cause) {
        (Intent::Rollback, _, _) => (Outcome::RolledBack, 0),
        (Intent::Update, false, _) => (Outcome::Failed, 1),
        (Intent::Update, true, Cause::Fleet) => (Outcome::RolledBack, 13),
        (Intent::Update, true, cause) if cause.is_before_the_pointer() => (Outcome::Failed, 1),
        (Intent::Update, true, _) => (Outcome::RolledBack, 10),
    }
}

/// Nothing had been changed yet.
pub fn called_off(cause: Cause) -> (Outcome, u8) {
    match cause {
        Cause::Fleet => (Outcome::CalledOff, 13),
        Cause::Rehearsal => (Outcome::Refused, 12),
        cause if cause.is_before_the_pointer() => (Outcome::CalledOff, 15),
        _ => (Outcome::CalledOff, 1),
    }
}

/// What a record that has ended says, in a few words.
pub fn describe(record: &Record) -> String {
    let Some(end) = end_of(record) else { return format!("release {} is under way", record.to.version) };
    let why = end.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let to = &record.to.version;
    let was_switched_to = |reason: &Reason| !reason.kind.is_before_the_pointer();
    match (&record.phase, &record.from) {
        (Phase::Committed, _) => format!("release {to} is committed"),
        (Phase::RolledBack { .. }, Some(from)) if record.intent == Intent::Rollback => {
            format!("went back from release {to} to {}", from.version)
        }
        (Phase::RolledBack { reason }, Some(from)) if !was_switched_to(reason) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cause: whose fault it is, and the exit codes when nothing was changed yet (called off), when something was
    /// (rolled back), and when there was nothing to go back to (a first installation).
    const TABLE: &str = "
        unhealthy   release    1 10 1
        service     release    1 10 1
        stop        node       1 10 1
        hook        release    1 10 1
        admin_hook  operator   1 10 1
        setup       operator   1 10 1
        machine     node       1 10 1
        interrupted release    1 10 1
        killed      nobody     1 10 1
        deadline    nobody     1 10 1
        unproven    nobody     1 10 1
        unconfirmed operator   1 10 1
        rehearsal   release   12 10 1
        operator    operator   1 10 1
        fleet       fleet     13 13 1
        baseline    node      15  1 1
        units       operator  15  1 1
        not_now     nobody    15  1 1";

    fn word<T: serde::Serialize>(value: T) -> String {
        serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
    }

    fn all_causes() -> Vec<Cause> {
        let names = TABLE.lines().filter_map(|line| line.split_whitespace().next());
        names.map(|name| serde_json::from_value(name.into()).unwrap()).collect()
    }

    #[test]
    fn each_cause_has_the_blame_and_the_exit_codes_of_the_table() {
        let rows: Vec<_> = all_causes()
            .into_iter()
            .map(|cause| {
                let codes = [
                    called_off(cause).1,
                    rolled_back(cause, Intent::Update, true).1,
                    rolled_back(cause, Intent::Update, false).1,
                ];
                format!("{} {} {} {} {}", word(cause), word(cause.blame()), codes[0], codes[1], codes[2])
            })
            .collect();
        let wanted: Vec<_> =
            TABLE.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows, wanted);
        // A cause that the table does not have stops the compiler here.
        for cause in all_causes() {
            match cause {
                Cause::Unhealthy | Cause::Service | Cause::Stop | Cause::Hook | Cause::AdminHook => {}
                Cause::Setup | Cause::Machine | Cause::Interrupted | Cause::Killed | Cause::Deadline => {}
                Cause::Unconfirmed | Cause::Rehearsal | Cause::Operator | Cause::Fleet => {}
                Cause::Baseline | Cause::Units | Cause::NotNow | Cause::Unproven => {}
            }
        }
        assert_eq!(all_causes().len(), 18);
    }

    #[test]
    fn a_rollback_by_hand_ends_with_0_and_is_nobodys_fault() {
        for cause in all_causes() {
            assert_eq!(rolled_back(cause, Intent::Rollback, true), (Outcome::RolledBack, 0), "{cause:?}");
        }
    }

    #[test]
    fn nothing_fails_with_0() {
        for cause in all_causes() {
            assert_ne!(called_off(cause).1, 0, "{cause:?}");
            for has_way_back in [true, false] {
                assert_ne!(rolled_back(cause, Intent::Update, has_way_back).1, 0, "{cause:?}");
            }
        }
    }
}
