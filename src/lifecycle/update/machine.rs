//! All moves of an update, in one pure function.
//!
//! ```text
//!  Staged ─Cleared─► Warming ─Ready─► Switching ─Switched─► Trial ─Passed─► Committed
//!    │                  │                 │                   │
//!    │CalledOff         │Failed           │Failed             │Failed
//!    ▼                  ▼                 └──► RollingBack ◄──┘
//!  Cancelled        Cancelled                      └─Restored─► RolledBack
//! ```
//! `Warming` is skipped unless a rehearsal is configured; a rehearsal that fails has touched nothing, so there is
//! nothing to roll back. A rollback by hand begins in `RollingBack`. An old release that is not healthy either leaves
//! the update in `RollingBack`, for a person.

use crate::types::record::{Event, Phase};

/// An event that has no place in a phase: a mistake in this program, never in what somebody did.
#[derive(Debug, thiserror::Error)]
#[error("cannot go on: {event:?} happened in phase {phase:?}, which is a mistake in cutover")]
pub struct Illegal {
    pub phase: Phase,
    /// What was said to have happened.
    pub event: Event,
}

/// The phase after `event` happened in `phase`.
///
/// # Errors
/// When the event has no place in that phase.
pub fn next(phase: Phase, event: Event) -> Result<Phase, Illegal> {
    Ok(match (phase, event) {
        (Phase::Staged, Event::Cleared { rehearse: true }) => Phase::Warming,
        (Phase::Staged, Event::Cleared { rehearse: false }) | (Phase::Warming, Event::Ready) => {
            Phase::Switching
        }
        (Phase::Staged | Phase::Warming, Event::CalledOff(reason))
        | (Phase::Warming, Event::Failed(reason)) => Phase::Cancelled { reason },
        (Phase::Switching, Event::Switched { until }) => Phase::Trial { until },
        (Phase::Switching | Phase::Trial { .. }, Event::Failed(reason)) => Phase::RollingBack { reason },
        (Phase::Trial { .. }, Event::Passed) => Phase::Committed,
        (Phase::RollingBack { reason }, Event::Restored) => Phase::RolledBack { reason },
        (
            phase @ (Phase::Staged
            | Phase::Warming
            | Phase::Switching
            | Phase::Trial { .. }
            | Phase::RollingBack { .. }
            | Phase::Committed
            | Phase::RolledBack { .. }
            | Phase::Cancelled { .. }),
            event,
        ) => return Err(Illegal { phase, event }),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::types::record::{Cause, Deadline, Reason};

    fn phases_and_events() -> (Vec<Phase>, Vec<Event>) {
        let reason = Reason::new(Cause::Unhealthy, "sick");
        let until = Deadline { boot_id: "b".into(), boot_ms: 1, wall: Timestamp::UNIX_EPOCH };
        let phases = vec![
            Phase::Staged,
            Phase::Warming,
            Phase::Switching,
            Phase::Trial { until: until.clone() },
            Phase::RollingBack { reason: reason.clone() },
            Phase::Committed,
            Phase::RolledBack { reason: reason.clone() },
            Phase::Cancelled { reason: reason.clone() },
        ];
        let events = vec![
            Event::Cleared { rehearse: false },
            Event::Cleared { rehearse: true },
            Event::Ready,
            Event::Switched { until },
            Event::Passed,
            Event::Failed(reason.clone()),
            Event::CalledOff(reason),
            Event::Restored,
        ];
        (phases, events)
    }

    /// Every pair, one row a phase; `.` is illegal, else the first letters of the next phase.
    #[test]
    fn each_event_leads_where_the_table_says() {
        let table = "
            Staged      Sw Wa .  .  .  .  Ca .
            Warming     .  .  Sw .  .  Ca Ca .
            Switching   .  .  .  Tr .  Ro .  .
            Trial       .  .  .  .  Co Ro .  .
            RollingBack .  .  .  .  .  .  .  Ro
            Committed   .  .  .  .  .  .  .  .
            RolledBack  .  .  .  .  .  .  .  .
            Cancelled   .  .  .  .  .  .  .  .";
        let (phases, events) = phases_and_events();
        for (phase, row) in phases.iter().zip(table.lines().skip(1)) {
            for (event, wanted) in events.iter().zip(row.split_whitespace().skip(1)) {
                let got = next(phase.clone(), event.clone())
                    .map_or(".".to_owned(), |phase| format!("{phase:?}")[..2].to_owned());
                assert_eq!(got, wanted, "{event:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn after_the_switch_only_a_commit_or_a_restored_release_ends_an_update() {
        let (phases, events) = phases_and_events();
        for phase in &phases[2..5] {
            for event in &events {
                if let Ok(after) = next(phase.clone(), event.clone()) {
                    assert!(
                        !matches!(after, Phase::Cancelled { .. } | Phase::Staged),
                        "{event:?} in {phase:?}"
                    );
                }
            }
        }
    }
}
