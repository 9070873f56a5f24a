//! A few at a time: tickets, taken first come first served and never taken away from anybody.
//!
//! Ticket k is made only by a node that has seen all k tickets before it and that fewer than N of their owners are
//! unfinished; finished is for ever. So the owner of the highest unfinished ticket saw at most N-1 others unfinished,
//! and no more than N are out of service at once: without clocks, without expiry, and whatever is stale.
//!
//! Where a halt undoes what was done, going back needs a ticket of the same row, so the bound holds for both together; and
//! it begins only when the outcome is there, which is decided once: a rollout that was kept is never undone by a halt.

use serde::{Deserialize, Serialize};

use super::Health;

/// Where this node stands, as it has written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    Waiting,
    /// It takes this ticket, or has it; when it has it, it is out of service until it has reported.
    Taking {
        number: u32,
    },
    Done {
        health: Health,
    },
    /// It takes this ticket, or has it, to go back: the rollout was halted.
    Returning {
        number: u32,
    },
    /// It has gone back, so.
    Returned {
        health: Health,
    },
    /// Not reached by this rollout.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All members run the new release.
    Keep,
    /// Its time was over before all did.
    Partial,
    /// Too many failed, or an operator stopped it.
    Halted,
    /// An operator ended it, whatever stood there.
    Void,
}

/// What was read of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// In which wave it is, from 0.
    pub wave: u32,
    /// An operator has said to go on without it.
    pub waived: bool,
    /// It has said that it cannot. It may come all the same, later: then its ticket counts.
    pub refused: bool,
    pub report: Option<Health>,
    /// How going back went there.
    pub returned: Option<Health>,
    /// It is out of service whether or not its ticket shows: storage that went back in time may have lost that. Of cells only,
    /// whose own decisions tell.
    pub is_at_work: bool,
}

/// A ticket, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The place of its owner among the members; beyond them: nobody's.
    pub owner: usize,
    /// It is for going back.
    pub is_back: bool,
    /// An operator has said that nobody waits for its owner.
    pub is_waived: bool,
}

impl Ticket {
    /// Whether it is this owner's, in this direction.
    fn is_of(self, owner: usize, is_back: bool) -> bool {
        self.owner == owner && self.is_back == is_back
    }
}

impl Member {
    /// Whether it is back in service after this, or nobody waits for it.
    fn has_finished(self, is_back: bool) -> bool {
        let how = if is_back { self.returned } else { self.report };
        self.waived || matches!(how, Some(Health::Good | Health::Failed | Health::Left))
    }

    /// Whether it runs the new release by this rollout.
    fn is_ahead(self) -> bool {
        !self.waived && self.report == Some(Health::Good) && self.returned.is_none()
    }

    fn has_failed(self) -> bool {
        matches!(self.report, Some(Health::Failed | Health::Broken))
    }
}

/// What this node has read of the rollout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// This node's place among the members.
    pub me: usize,
    /// The members that the proposal froze.
    pub members: Vec<Member>,
    /// Tickets 0, 1, 2 and so on, without a gap.
    pub tickets: Vec<Ticket>,
    /// The highest wave that is open.
    pub wave: u32,
    pub halt: bool,
    pub end: Option<End>,
    /// Two files of this rollout contradict each other: no ticket is taken any more.
    pub contradiction: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// How many may be out of service at once.
    pub at_once: u32,
    /// So many failures stop it.
    pub max_failed: u32,
    /// When it was halted, those who have the new release go back.
    pub undoes: bool,
}

/// What this node knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// The open wave was finished for as long as it must be, by this node's own clock.
    pub has_soaked: bool,
    /// The moment before which nobody switches is to come, by this node's clock.
    pub is_early: bool,
    /// The proposal's time is over, by this node's clock.
    pub is_expired: bool,
}

/// A decision that this node may put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    Halt,
    Wave(u32),
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Wait,
    Enter(Stage),
    /// Make the ticket of this number; whose it is shows when it was read back.
    Take {
        number: u32,
        is_back: bool,
    },
    /// Make the report of this node.
    Report(Health),
    /// Make the report of how going back went.
    ReportReturn(Health),
    /// Make this decision, if nobody has.
    Decide(Decision),
    /// The ticket is this node's: switch. The journal's end of it makes the stage `Done`.
    Switch,
    /// The ticket is this node's: go back. The journal's end of it makes the stage `Returned`.
    GoBack,
}

/// The next step of a member.
pub fn act(stage: Stage, view: &View, local: Local, limits: Limits) -> Act {
    match stage {
        Stage::Waiting => waiting(view, local, limits),
        Stage::Taking { number } => taking(number, view, local),
        Stage::Done { health } if view.mine().is_some_and(|member| member.report.is_none()) => {
            Act::Report(health)
        }
        // Storage has lost the ticket of this node, or it failed before it had one: nobody looks for a report without it.
        Stage::Done { .. } if view.end.is_none() && view.ticket_of(view.me, false).is_none() => {
            u32::try_from(view.tickets.len()).map_or(Act::Wait, |number| Act::Take { number, is_back: false })
        }
        // A ticket whose making had been given up for lost.
        Stage::Over if view.ticket_of(view.me, false).is_some() => {
            Act::Enter(Stage::Done { health: Health::Left })
        }
        Stage::Done { .. } if view.must_undo(limits) => undo(view, limits),
        Stage::Returning { number } => returning(number, view),
        Stage::Returned { health } if view.mine().is_some_and(|member| member.returned.is_none()) => {
            Act::ReportReturn(health)
        }
        Stage::Done { .. } | Stage::Returned { .. } | Stage::Over => {
            decide(view, local, limits).map_or(Act::Wait, Act::Decide)
        }
    }
}

impl View {
    fn mine(&self) -> Option<&Member> {
        self.members.get(self.me)
    }

    /// The ticket of a member, forward or back.
    pub fn ticket_of(&self, owner: usize, is_back: bool) -> Option<u32> {
        self.tickets
            .iter()
            .position(|ticket| ticket.is_of(owner, is_back))
            .and_then(|number| u32::try_from(number).ok())
    }

    /// Whether the owner of a ticket is back in service.
    pub fn has_finished(&self, ticket: Ticket) -> bool {
        ticket.is_waived
            || self.members.get(ticket.owner).is_some_and(|member| member.has_finished(ticket.is_back))
    }

    /// Whether this node has what a halt undoes.
    pub fn must_undo(&self, limits: Limits) -> bool {
        limits.undoes && self.end == Some(End::Halted) && self.mine().is_some_and(|member| member.is_ahead())
    }

    /// Whether nothing more is to come: it has ended, and what a halt undoes is undone.
    pub fn is_settled(&self, limits: Limits) -> bool {
        match self.end {
            None => false,
            Some(End::Keep | End::Partial | End::Void) => true,
            Some(End::Halted) => {
                !limits.undoes
                    || (self.unfinished() == 0 && !self.members.iter().any(|member| member.is_ahead()))
            }
        }
    }

    /// How many owners of tickets are out of service, as far as this view shows; with those who are so without one.
    pub fn unfinished(&self) -> usize {
        let without = |place: &usize| {
            let member = &self.members[*place];
            member.is_at_work && !member.has_finished(false) && self.ticket_of(*place, false).is_none()
        };
        let with = self.tickets.iter().filter(|ticket| !self.has_finished(**ticket)).count();
        with + (0..self.members.len()).filter(without).count()
    }

    /// Whether nobody waits for a member now: it was waived, or it refuses and has not begun.
    pub fn is_left_out(&self, place: usize) -> bool {
        self.members.get(place).is_none_or(|member| member.waived) || self.refuses(place)
    }

    fn refuses(&self, place: usize) -> bool {
        self.members.get(place).is_some_and(|member| member.refused && member.report.is_none())
            && self.ticket_of(place, false).is_none()
    }

    /// Whether all of whom the rollout waits are good, in waves before `until`; never when all have refused.
    pub fn are_good(&self, until: u32) -> bool {
        let places = || (0..self.members.len()).filter(|place| self.members[*place].wave < until);
        let is_good = |place: usize| self.members[place].report == Some(Health::Good);
        places().all(|place| is_good(place) || self.is_left_out(place))
            && (places().any(is_good) || !places().any(|place| self.refuses(place)))
    }

    fn failures(&self) -> usize {
        self.members.iter().filter(|member| member.has_failed()).count()
    }
}

fn waiting(view: &View, local: Local, limits: Limits) -> Act {
    if let Some(number) = view.ticket_of(view.me, false).filter(|_| !local.is_early) {
        return Act::Enter(Stage::Taking { number });
    }
    if view.end.is_some() || view.halt || view.contradiction {
        return Act::Enter(Stage::Over);
    }
    if let Some(decision) = decide(view, local, limits) {
        return Act::Decide(decision);
    }
    let Some(mine) = view.mine().filter(|member| !member.waived) else { return Act::Wait };
    let has_place = view.unfinished() < limits.at_once as usize;
    let is_time = !local.is_early && !local.is_expired;
    match u32::try_from(view.tickets.len()) {
        Ok(number) if has_place && mine.wave <= view.wave && is_time => Act::Enter(Stage::Taking { number }),
        _ => Act::Wait,
    }
}

fn taking(number: u32, view: &View, local: Local) -> Act {
    let mine = view.mine();
    let is_off =
        view.halt || view.end.is_some() || view.contradiction || mine.is_none_or(|member| member.waived);
    let ticket = view.tickets.get(number as usize);
    // Stage `Done` is written down before the report is made, so another machine has made the one that is there: a copy of this
    // disk, or this one before it was put back. The ticket is used up: nobody counts who switches by it.
    match (ticket, mine.and_then(|member| member.report)) {
        (Some(ticket), Some(health)) if ticket.is_of(view.me, false) => Act::Enter(Stage::Done { health }),
        (Some(ticket), _) if ticket.is_of(view.me, false) && (is_off || ticket.is_waived) => {
            Act::Enter(Stage::Done { health: Health::Left })
        }
        (Some(ticket), _) if ticket.is_of(view.me, false) => Act::Switch,
        (Some(_), _) => Act::Enter(Stage::Waiting),
        (None, _) if is_off => Act::Enter(Stage::Over),
        (None, _) if local.is_expired => Act::Enter(Stage::Waiting),
        // Making it was allowed when it was written down, and what was finished then is finished now.
        (None, _) if view.tickets.len() == number as usize => Act::Take { number, is_back: false },
        // Storage has lost tickets that stood before it: what was allowed then is judged anew.
        (None, _) => Act::Enter(Stage::Waiting),
    }
}

fn undo(view: &View, limits: Limits) -> Act {
    if let Some(number) = view.ticket_of(view.me, true) {
        return Act::Enter(Stage::Returning { number });
    }
    match u32::try_from(view.tickets.len()) {
        Ok(number) if view.unfinished() < limits.at_once as usize => Act::Enter(Stage::Returning { number }),
        _ => Act::Wait,
    }
}

fn returning(number: u32, view: &View) -> Act {
    match view.tickets.get(number as usize) {
        Some(ticket) if ticket.is_of(view.me, true) => Act::GoBack,
        Some(_) => Act::Enter(Stage::Done { health: Health::Good }),
        // An operator has ended it all the same: what is there stays.
        None if view.end == Some(End::Void) => Act::Enter(Stage::Done { health: Health::Good }),
        None if view.tickets.len() == number as usize => Act::Take { number, is_back: true },
        None => Act::Enter(Stage::Done { health: Health::Good }),
    }
}

/// What any member may decide, whether it is done or not.
pub(super) fn decide(view: &View, local: Local, limits: Limits) -> Option<Decision> {
    if view.end.is_some() {
        return None;
    }
    let counted = || (0..view.members.len()).filter(|place| !view.is_left_out(*place));
    // Going back rests on the outcome alone; whoever is at work then finishes first.
    if view.halt && limits.undoes {
        return Some(Decision::End(End::Halted));
    }
    if counted().next().is_some() && view.are_good(u32::MAX) {
        return Some(Decision::End(End::Keep));
    }
    if view.halt {
        return (view.unfinished() == 0).then_some(Decision::End(End::Halted));
    }
    if view.contradiction || view.failures() >= limits.max_failed as usize {
        return Some(Decision::Halt);
    }
    if local.is_expired && view.unfinished() == 0 {
        return Some(Decision::End(End::Partial));
    }
    let has_next = counted().any(|place| view.members[place].wave > view.wave);
    (has_next && local.has_soaked && view.are_good(view.wave + 1)).then_some(Decision::Wave(view.wave + 1))
}
