//! All moves of an update, in one pure function; and what may still be chosen on the way back, in another.
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

use crate::types::record::{DataPolicy, Event, Phase};

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

/// How far a way back has come: data come back first, all of them, and the pointer after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// At least a part of the data is back.
    pub is_data_moved: bool,
    /// The pointer names the release that comes back, so all of its data are there.
    pub is_pointer_back: bool,
}

/// The release that an operator names, as the record of an update has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one that comes back; also where none is named.
    Old,
    /// The one to go back from.
    Left,
    Other,
}

/// What a rollback by hand makes of a record within which something was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Nothing has moved yet: the record takes the release and the data that are wanted.
    Turns,
    /// It goes on with the release and the data that it has.
    GoesOn,
    /// It ends where it is, and a way back of its own begins there.
    BeginsAnew,
}

/// Why a rollback by hand must not change a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// There is no way back to the release that is left.
    IsLeft,
    /// Data have moved: only the release whose data they are can go on with them.
    HasData,
}

/// What a rollback by hand, to `target` and with these `data`, makes of a way back that has come so far. No release ever
/// meets data of two: once data have moved, all of the others follow.
///
/// # Errors
/// When the wish does not go with what has moved already.
pub fn redirect(progress: Progress, target: Target, data: DataPolicy) -> Result<Redirect, Unwanted> {
    let Progress { is_data_moved, is_pointer_back } = progress;
    match (is_data_moved, is_pointer_back, target, data) {
        (_, false, Target::Left, _) => Err(Unwanted::IsLeft),
        (_, true, Target::Left | Target::Other, _) => Ok(Redirect::BeginsAnew),
        (true, false, Target::Other, _) | (true, _, Target::Old, DataPolicy::Keep) => Err(Unwanted::HasData),
        (true, _, Target::Old, DataPolicy::Auto | DataPolicy::Restore) | (false, true, Target::Old, _) => {
            Ok(Redirect::GoesOn)
        }
        (false, false, Target::Old | Target::Other, _) => Ok(Redirect::Turns),
    }
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

    /// One row for each state; the columns are the release (old, left, another) with the data (as they are, else).
    #[test]
    fn a_rollback_by_hand_makes_of_a_record_what_the_table_says() {
        let table = "
            nothing  Turns      Turns   IsLeft     IsLeft     Turns      Turns
            data     HasData    GoesOn  IsLeft     IsLeft     HasData    HasData
            pointer  GoesOn     GoesOn  BeginsAnew BeginsAnew BeginsAnew BeginsAnew
            both     HasData    GoesOn  BeginsAnew BeginsAnew BeginsAnew BeginsAnew";
        for (row, (is_data_moved, is_pointer_back)) in
            table.lines().skip(1).zip([(false, false), (true, false), (false, true), (true, true)])
        {
            let progress = Progress { is_data_moved, is_pointer_back };
            let mut wanted = row.split_whitespace().skip(1);
            for target in [Target::Old, Target::Left, Target::Other] {
                for policies in [&[DataPolicy::Keep][..], &[DataPolicy::Auto, DataPolicy::Restore]] {
                    let wanted = wanted.next().unwrap();
                    for data in policies {
                        let got = redirect(progress, target, *data);
                        let got = got.map_or_else(|why| format!("{why:?}"), |turn| format!("{turn:?}"));
                        assert_eq!(got, wanted, "{progress:?} {target:?} {data:?}");
                    }
                }
            }
        }
    }
}
