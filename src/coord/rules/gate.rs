//! The gates of a synchronous rollout, and how it ended by what they say.

use super::synchronous::{Go, Outcome, Plan, View};

/// A decision that is made once, by any member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// All switch at an instant, or nobody does.
    Plan,
    /// All hold it: go; or nobody has stopped anything, and nobody does.
    Go,
    /// With overlap `none`: all have stopped, and start.
    Start,
    /// All keep the release, or all go back.
    Outcome,
}

impl Gate {
    /// All of them, in the order in which they are decided.
    pub const ALL: [Self; 4] = [Self::Plan, Self::Go, Self::Start, Self::Outcome];

    /// Its name on the board.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Go => "go",
            Self::Start => "start",
            Self::Outcome => "outcome",
        }
    }
}

/// How a synchronous rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Kept,
    /// Nobody was told an instant.
    Aborted,
    Cancelled,
    RolledBack,
}

/// How it ended, as far as was read; nothing while it is open.
pub fn ended(view: &View) -> Option<Ended> {
    match (view.plan, view.go, view.outcome) {
        (Some(Plan::Abort), _, _) => Some(Ended::Aborted),
        (_, Some(Go::Cancel), _) => Some(Ended::Cancelled),
        (_, _, Some(Outcome::Keep)) => Some(Ended::Kept),
        (_, _, Some(Outcome::Rollback { .. })) => Some(Ended::RolledBack),
        (_, _, None) => None,
    }
}
