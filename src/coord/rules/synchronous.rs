//! All at one instant, or none: three gates, each decided once, by any member.
//!
//! ```text
//! Idle ─► Voting ─plan: commit─► Arming ─go, at T─► Switched ─healthy─► Vouching ─keep─► Kept
//!            │abort                │cancel             │ failed ─► Failing ─┐   │
//!            ▼                     ▼                   ▼                    ▼   ▼ rollback
//!        GoneBack              GoneBack              Left                  GoneBack
//! ```
//! A member may leave by itself up to `Switched`; from `Vouching` on it holds until it has read the outcome. Where storage
//! refused its report, and certainly holds none of it, it has not vouched: it is `Switched` again.

use serde::{Deserialize, Serialize};

use super::{Checks, Health, Ms, Times};

/// Where this node stands, as it has written down. Effects (a pointer moved, a release committed) are the journal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    /// The release is staged; nothing was promised.
    Idle,
    Voting,
    /// It has read "commit at", and holds that instant.
    Arming {
        /// The instant of the switch.
        at: Ms,
    },
    /// The pointer names the new release.
    Switched {
        /// The instant of the switch.
        at: Ms,
    },
    /// The new release failed here. Never reports good any more.
    Failing {
        /// The instant of the switch.
        at: Ms,
    },
    /// The new release was healthy here. Stays on it until the outcome is read.
    Vouching {
        /// The instant of the switch.
        at: Ms,
    },
    /// On the old release by its own decision. Never reports good any more.
    Left,
    /// On the new release for good: the outcome was read.
    Kept,
    /// On the old release, as decided.
    GoneBack,
}

impl Stage {
    /// Whether the node may go back to the old release alone.
    pub fn may_leave(self) -> bool {
        match self {
            Self::Idle
            | Self::Voting
            | Self::Arming { .. }
            | Self::Switched { .. }
            | Self::Failing { .. } => true,
            Self::Vouching { .. } | Self::Left | Self::Kept | Self::GoneBack => false,
        }
    }

    /// Whether nothing more is to come.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Left | Self::Kept | Self::GoneBack)
    }
}

/// Gate 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// All switch at this instant.
    Commit {
        at: Ms,
    },
    Abort,
}

/// Gate 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Go {
    Go,
    Cancel,
}

/// The gate between stop and start, with overlap `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartGate {
    /// All have stopped: the new release starts.
    Start,
    /// Nobody starts the new release.
    Back,
}

/// Gate 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Keep,
    /// All go back at this instant.
    Rollback {
        at: Ms,
    },
}

/// What was read of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member {
    /// An operator has said to go on without it.
    pub waived: bool,
    pub vote: Option<bool>,
    /// It holds the instant that the plan names.
    pub armed: bool,
    /// The old release is stopped there.
    pub stopped: bool,
    /// Its pointer names the new release.
    pub switched: bool,
    pub report: Option<Health>,
    /// The new release is stopped there again.
    pub cleared: bool,
    /// It has said what it runs in the end.
    pub closed: bool,
}

/// What this node has read of the rollout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// This node's place among the members.
    pub me: usize,
    /// The members that the proposal froze, in its order.
    pub members: Vec<Member>,
    /// Gate 1.
    pub plan: Option<Plan>,
    /// Gate 2.
    pub go: Option<Go>,
    /// The gate between stop and start.
    pub start: Option<StartGate>,
    /// Gate 3.
    pub outcome: Option<Outcome>,
    /// Two files of this rollout contradict each other: nothing positive is decided or obeyed any more.
    pub contradiction: bool,
}

impl View {
    pub fn new(me: usize, members: usize) -> Self {
        Self {
            me,
            members: vec![Member::default(); members],
            plan: None,
            go: None,
            start: None,
            outcome: None,
            contradiction: false,
        }
    }

    /// What was read of this node itself.
    pub fn mine(&self) -> Member {
        self.members.get(self.me).copied().unwrap_or_default()
    }

    /// Whether it holds for every member that is not waived. Never for a fleet of nobody.
    pub fn all(&self, holds: impl Fn(&Member) -> bool) -> bool {
        let mut counted = self.members.iter().filter(|member| !member.waived).peekable();
        counted.peek().is_some() && counted.all(holds)
    }

    pub(super) fn any(&self, holds: impl Fn(&Member) -> bool) -> bool {
        self.members.iter().filter(|member| !member.waived).any(holds)
    }
}

/// What a process knows of the report by which its node vouches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Promise {
    /// It may be on its way: this process, or one before it, has told it and got no answer.
    #[default]
    MaybeTold,
    /// It was written down just now, and not told yet.
    Untold,
    /// Whatever was told of it was refused: certainly none stands there, or ever will.
    Refused,
}

impl Promise {
    /// Told once more.
    pub fn told(self, is_refused: bool) -> Self {
        match self {
            Self::Untold | Self::Refused if is_refused => Self::Refused,
            Self::MaybeTold | Self::Untold | Self::Refused => Self::MaybeTold,
        }
    }
}

/// What this node knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub now: Ms,
    /// When votes must be in.
    pub vote_by: Ms,
    /// The latest instant that a plan may name: nobody waits for one that its rollout does not allow.
    pub plan_by: Ms,
    /// Its clock agrees with the storage's.
    pub clock_is_good: bool,
    pub has_storage: bool,
    /// What was to be written last is on storage. Storage that is full, or read-only, can be read all the same.
    pub can_write: bool,
    /// Whether its good report may stand there.
    pub promise: Promise,
    /// What its checks say; counts once it has switched.
    pub checks: Checks,
}

impl Local {
    /// Whether others can learn anything from this node now.
    fn is_heard(&self) -> bool {
        self.has_storage && self.can_write
    }
}

/// A fact of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Telling {
    /// Yes: staged, verified, healthy before.
    Vote,
    Armed,
    Switched,
    Report(Health),
}

/// A decision that this node may put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Gate 1.
    Plan(Plan),
    /// Gate 2.
    Go(Go),
    /// Gate 3.
    Outcome(Outcome),
}

/// The next step. Done, or failed, it is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Wait,
    Enter(Stage),
    /// Make this fact of this node; the view shows it when it was read back.
    Tell(Telling),
    /// Make this decision, if nobody has; then go by what is read back.
    Decide(Decision),
    /// Switch, at this instant or at once. The journal's record of it makes the stage `Switched`.
    Switch {
        at: Ms,
    },
    /// Go back to the old release, at this instant or at once. The journal's record of it makes the stage `GoneBack`.
    GoBack {
        at: Ms,
    },
    /// Go back to the old release now, alone. The journal's record of it makes the stage `Left`.
    Leave,
}

/// The next step of a member.
pub fn act(stage: Stage, view: &View, local: Local, times: &Times) -> Act {
    match stage {
        Stage::Idle => idle(view),
        Stage::Voting => voting(view, local, times),
        Stage::Arming { at } => arming(at, view, local, times),
        Stage::Switched { at } => switched(at, view, local, times),
        Stage::Failing { at } => failing(at, view, local, times),
        Stage::Vouching { at } => vouching(at, view, local, times),
        Stage::Left => left(view, local, times),
        Stage::Kept | Stage::GoneBack => Act::Wait,
    }
}

fn idle(view: &View) -> Act {
    match view.plan {
        Some(Plan::Abort) => Act::Enter(Stage::GoneBack),
        Some(Plan::Commit { .. }) => Act::Enter(Stage::Left),
        None if view.mine().waived || view.contradiction => Act::Enter(Stage::Left),
        None => Act::Enter(Stage::Voting),
    }
}

fn voting(view: &View, local: Local, times: &Times) -> Act {
    match view.plan {
        Some(Plan::Abort) => Act::Enter(Stage::GoneBack),
        Some(Plan::Commit { at }) => arm(at, view, local, times),
        None if view.mine().waived || view.contradiction => Act::Enter(Stage::Left),
        // Nothing was promised beyond the votes' time, and nobody knows when storage will be back.
        None if !local.is_heard() && local.now > local.vote_by => Act::Enter(Stage::Left),
        None if view.any(|member| member.vote == Some(false)) || local.now > local.vote_by => {
            Act::Decide(Decision::Plan(Plan::Abort))
        }
        None if view.mine().vote.is_none() => Act::Tell(Telling::Vote),
        None if view.all(|member| member.vote == Some(true)) => {
            Act::Decide(Decision::Plan(Plan::Commit { at: local.now + times.lead }))
        }
        None => Act::Wait,
    }
}

/// The plan says "commit": hold the instant if there is time left and the clock is good, else see that it is cancelled.
fn arm(at: Ms, view: &View, local: Local, times: &Times) -> Act {
    match view.go {
        Some(Go::Cancel) => Act::Enter(Stage::GoneBack),
        // Only without this node: it is waived.
        Some(Go::Go) => Act::Enter(Stage::Left),
        None if view.mine().waived => Act::Enter(Stage::Left),
        // Of a plan that nobody can obey there is nothing to wait for.
        None if !local.is_heard() && local.now > at + times.late => Act::Enter(Stage::Left),
        None if view.contradiction || at > local.plan_by => Act::Decide(Decision::Go(Go::Cancel)),
        // Until then it can be called off without anybody noticing.
        None if local.now < at - times.lead => Act::Wait,
        None if local.clock_is_good && local.now <= at - times.window() => Act::Enter(Stage::Arming { at }),
        None => Act::Decide(Decision::Go(Go::Cancel)),
    }
}

fn arming(at: Ms, view: &View, local: Local, times: &Times) -> Act {
    if matches!(view.outcome, Some(Outcome::Rollback { .. })) || view.go == Some(Go::Cancel) {
        return Act::Enter(Stage::GoneBack);
    }
    let is_too_late = local.now > at + times.late;
    match view.go {
        Some(_) if is_too_late || view.contradiction || view.mine().waived => Act::Enter(Stage::Left),
        // A go rests on this node's own word: where that is not on the board, somebody else's hand made the go.
        Some(_) if !view.mine().armed => Act::Wait,
        Some(_) => Act::Switch { at },
        None if local.now > at - times.window() || view.contradiction => {
            if is_too_late && !local.is_heard() {
                Act::Enter(Stage::Left)
            } else {
                Act::Decide(Decision::Go(Go::Cancel))
            }
        }
        None if !view.mine().armed => Act::Tell(Telling::Armed),
        None if view.all(|member| member.armed) => Act::Decide(Decision::Go(Go::Go)),
        None => Act::Wait,
    }
}

fn switched(at: Ms, view: &View, local: Local, times: &Times) -> Act {
    match view.outcome {
        Some(Outcome::Rollback { at }) => return Act::GoBack { at },
        // It rests on this node's own report, which it has not made: not obeyed, and in doubt until the deadline.
        Some(Outcome::Keep) if !view.mine().waived => {
            let is_over = local.now > times.reported_by(at) + times.back;
            return if is_over || local.checks == Checks::Failed { Act::Leave } else { Act::Wait };
        }
        // Only without this node: it is waived, and does as it likes.
        Some(Outcome::Keep) => {
            return match local.checks {
                Checks::Good => Act::Enter(Stage::Kept),
                Checks::Failed => Act::Leave,
                Checks::Watching => Act::Wait,
            };
        }
        None => {}
    }
    let is_heard = view.mine().switched || local.now <= times.switched_by(at) + times.back;
    if !is_heard || local.now > times.reported_by(at) + times.back {
        return Act::Leave;
    }
    if local.checks == Checks::Failed {
        return Act::Enter(Stage::Failing { at });
    }
    if !view.mine().switched {
        return Act::Tell(Telling::Switched);
    }
    if is_hopeless(Some(at), view, local, times) {
        return rollback(local, times);
    }
    if local.checks == Checks::Good && local.has_storage {
        return Act::Enter(Stage::Vouching { at });
    }
    Act::Wait
}

fn failing(at: Ms, view: &View, local: Local, times: &Times) -> Act {
    if let Some(Outcome::Rollback { at }) = view.outcome {
        return Act::GoBack { at };
    }
    if view.outcome == Some(Outcome::Keep) || local.now > times.reported_by(at) + times.back {
        return Act::Leave;
    }
    // The others go on without it, and are not brought back for its sake.
    if view.mine().waived && !is_hopeless(Some(at), view, local, times) {
        return Act::Leave;
    }
    if view.mine().report.is_none() {
        return Act::Tell(Telling::Report(Health::Failed));
    }
    rollback(local, times)
}

fn vouching(at: Ms, view: &View, local: Local, times: &Times) -> Act {
    // Nobody has heard the promise, so no keep rests on it: it is taken back, and made again while there is time.
    if local.promise == Promise::Refused && view.mine().report.is_none() {
        return Act::Enter(Stage::Switched { at });
    }
    match view.outcome {
        // As in `switched`: without its own report on the board, a keep is not obeyed. One that may have stood there, and that
        // storage has lost since, is told again.
        Some(Outcome::Keep) if view.mine().report.is_none() && !view.mine().waived => {
            return match local.promise {
                Promise::MaybeTold => Act::Tell(Telling::Report(Health::Good)),
                Promise::Untold | Promise::Refused => Act::Wait,
            };
        }
        Some(Outcome::Keep) => return Act::Enter(Stage::Kept),
        Some(Outcome::Rollback { at }) => return Act::GoBack { at },
        None => {}
    }
    if view.mine().report.is_none() {
        return Act::Tell(Telling::Report(Health::Good));
    }
    let at = match view.plan {
        Some(Plan::Commit { at }) => Some(at),
        Some(Plan::Abort) | None => None,
    };
    let brings_back = local.checks == Checks::Failed && !view.mine().waived;
    if brings_back || is_hopeless(at, view, local, times) {
        return rollback(local, times);
    }
    if view.all(|member| member.report == Some(Health::Good)) {
        return Act::Decide(Decision::Outcome(Outcome::Keep));
    }
    Act::Wait
}

/// Gone by itself: says so, and sees that nobody waits for it.
fn left(view: &View, local: Local, times: &Times) -> Act {
    if view.mine().waived || view.outcome.is_some() || view.go == Some(Go::Cancel) {
        return Act::Wait;
    }
    match (view.plan, view.go) {
        // Without this node nobody commits; and in a cell there is no time by which votes must be in.
        (None, _) => Act::Decide(Decision::Plan(Plan::Abort)),
        (Some(Plan::Abort), _) => Act::Wait,
        (Some(Plan::Commit { .. }), None) => Act::Decide(Decision::Go(Go::Cancel)),
        (Some(Plan::Commit { .. }), Some(_)) if view.mine().report.is_none() => {
            Act::Tell(Telling::Report(Health::Left))
        }
        (Some(Plan::Commit { .. }), Some(_)) => rollback(local, times),
    }
}

fn rollback(local: Local, times: &Times) -> Act {
    Act::Decide(Decision::Outcome(Outcome::Rollback { at: local.now + times.back }))
}

/// Whether not all members can report good any more, or not in time.
fn is_hopeless(at: Option<Ms>, view: &View, local: Local, times: &Times) -> bool {
    let is_past = |deadline: fn(&Times, Ms) -> Ms| at.is_some_and(|at| local.now > deadline(times, at));
    view.contradiction
        || view.start == Some(StartGate::Back)
        // Nothing is kept for a fleet of nobody: whoever is at work in it goes back.
        || view.members.iter().all(|member| member.waived)
        || view.any(|member| member.report.is_some_and(|report| report != Health::Good))
        || (is_past(Times::switched_by) && view.any(|member| !member.switched && member.report.is_none()))
        || (is_past(Times::reported_by) && view.any(|member| member.report.is_none()))
}

#[cfg(test)]
mod tests;
