//! The rules of a rollout, as pure functions: what a node remembers, what it has read, and what time it is go in; the
//! next step comes out. The program, the simulator and the model checker all call these.
//!
//! What always holds, whatever is stale, lost, or late (the model in `tests/it/model` checks it):
//! - A negative decision needs no reason and may come from anybody; a positive one needs a fact of every member.
//! - What is remembered is written down before storage is told of it ([`synchronous::Act::Enter`] comes before [`synchronous::Act::Tell`]).
//! - Clocks decide only when something negative may be done. A wrong clock costs a rollout, never an agreement.
//! - What was read may be old: a fact may be there that the view does not show, but a fact that it shows is there.

pub mod cells;
pub mod gate;
pub mod overlap;
pub mod rolling;
pub mod synchronous;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970, UTC.
pub type Ms = i64;

/// The times that all members hold to, in milliseconds. Frozen in the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Times {
    pub vote: Ms,
    pub lead: Ms,
    /// How late a node may switch.
    pub late: Ms,
    /// How long stopping and starting may take.
    pub stop: Ms,
    /// How long the new release is watched.
    pub trial: Ms,
    /// How long reports may take after it.
    pub settle: Ms,
    /// From the decision to go back to going back.
    pub back: Ms,
    /// How often storage is read.
    pub poll: Ms,
    /// How long a fact may stay hidden.
    pub visibility: Ms,
}

impl Times {
    /// How long before the switch the last positive decision may be made: all will have read it by then.
    pub fn window(&self) -> Ms {
        self.poll + self.visibility
    }

    /// When a member that has not switched counts as lost, for a switch at `at`.
    pub fn switched_by(&self, at: Ms) -> Ms {
        at + self.late + self.stop + 3 * self.poll + self.visibility
    }

    /// When a member that has not reported counts as lost, for a switch at `at`.
    pub fn reported_by(&self, at: Ms) -> Ms {
        at + self.stop + self.trial + self.settle
    }

    /// The shortest lead that leaves time for arming and for gate 2.
    pub fn lead_min(&self) -> Ms {
        3 * self.window() + 4000.min(4 * self.poll)
    }
}

/// What is written without a number where it is 0.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a member's release does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Healthy through the trial. In a synchronous rollout also the promise to wait for the outcome.
    Good,
    /// The new release failed here. In a rolling rollout: the old one serves again, and is healthy.
    Failed,
    /// This node goes its own way, on the old release.
    Left,
    /// Rolling: the old release is not healthy either; the node still is out of service.
    Broken,
}

impl Health {
    /// As it stands in facts and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Failed => "failed",
            Self::Left => "left",
            Self::Broken => "broken",
        }
    }

    /// What has this word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Good, Self::Failed, Self::Left, Self::Broken].into_iter().find(|health| health.word() == word)
    }
}

/// What the checks of this node say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checks {
    Watching,
    /// Healthy for as long as it must be.
    Good,
    /// Not healthy, and no longer waiting to become so.
    Failed,
}
