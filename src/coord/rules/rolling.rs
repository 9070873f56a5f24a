//! A few at a time: tickets, taken first come first served and never taken away from anybody.
//!
//! N may be out of service at once: there are N slots, and each is handed on like a baton. Ticket k of a slot is made only by a
//! node that has seen the k tickets before it in that slot, and that the last of their owners has finished; finished is for
//! ever. So of each slot one owner at most is out of service: without clocks, without expiry, and whatever is stale. A node
//! needs to look at one slot, however many nodes there are.
//!
//! Rollouts of cells, and of fleets in which an older cutover runs, have one row of tickets for all N: ticket k is made by
//! whoever has seen that fewer than N owners of those before it are unfinished. The owner of the highest unfinished ticket saw
//! at most N-1 others unfinished, so the bound is the same. It is the same rule, too: a row has N places, or one.
//!
//! Where a halt undoes what was done, going back needs a ticket of the same rows, so the bound holds for both together; and
//! it begins only when the outcome is there, which is decided once: a rollout that was kept is never undone by a halt.

use serde::{Deserialize, Serialize};

use super::Health;

/// Where a ticket stands: in which row, and the how many'th in it, both from 0. What older programs wrote down names no row:
/// they know one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct At {
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub row: u32,
    pub number: u32,
}

/// `3` in the first row, `1.3` in the second.
impl std::fmt::Display for At {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.row {
            0 => write!(out, "{}", self.number),
            row => write!(out, "{row}.{}", self.number),
        }
    }
}

impl std::str::FromStr for At {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (row, number) = text.split_once('.').unwrap_or(("0", text));
        Ok(Self { row: row.parse()?, number: number.parse()? })
    }
}

/// Where this node stands, as it has written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    Waiting,
    /// It takes this ticket, or has it; when it has it, it is out of service until it has reported.
    Taking(At),
    Done {
        health: Health,
    },
    /// It takes this ticket, or has it, to go back: the rollout was halted.
    Returning(At),
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
    /// The rows of tickets, each 0, 1, 2 and so on without a gap, as far as they were read.
    pub rows: Vec<Vec<Ticket>>,
    /// The row in which this node takes its next ticket.
    pub row: u32,
    /// All rows were read, not this node's alone.
    pub is_whole: bool,
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
    /// Nobody before this node in its row lets it wait any more: those who were to come first have come, or had their time.
    pub is_next: bool,
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
    /// Make this ticket; whose it is shows when it was read back.
    Take {
        at: At,
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
        Stage::Taking(at) => taking(at, view, local, limits),
        Stage::Done { health } if view.mine().is_some_and(|member| member.report.is_none()) => {
            Act::Report(health)
        }
        // Storage has lost the ticket of this node, or it failed before it had one: nobody looks for a report without it.
        Stage::Done { .. }
            if view.end.is_none() && view.is_whole && view.ticket_of(view.me, false).is_none() =>
        {
            view.next(view.row).map_or(Act::Wait, |at| Act::Take { at, is_back: false })
        }
        // A ticket whose making had been given up for lost.
        Stage::Over if view.ticket_of(view.me, false).is_some() => {
            Act::Enter(Stage::Done { health: Health::Left })
        }
        Stage::Done { .. } if view.must_undo(limits) => undo(view, limits),
        Stage::Returning(at) => returning(at, view, limits),
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

    /// All tickets, with where they stand.
    pub fn tickets(&self) -> impl Iterator<Item = (At, Ticket)> + '_ {
        let rows = (0..).zip(&self.rows);
        rows.flat_map(|(row, tickets)| {
            (0..).zip(tickets).map(move |(number, ticket)| (At { row, number }, *ticket))
        })
    }

    /// The ticket there, where it was read.
    pub fn ticket(&self, at: At) -> Option<Ticket> {
        self.rows.get(at.row as usize)?.get(at.number as usize).copied()
    }

    /// The ticket of a member, forward or back.
    pub fn ticket_of(&self, owner: usize, is_back: bool) -> Option<At> {
        self.tickets().find(|(_, ticket)| ticket.is_of(owner, is_back)).map(|(at, _)| at)
    }

    /// Where the next ticket of a row stands.
    pub fn next(&self, row: u32) -> Option<At> {
        let number = self.rows.get(row as usize)?.len();
        Some(At { row, number: u32::try_from(number).ok()? })
    }

    /// The same, where the row has a free place.
    fn next_free(&self, row: u32, limits: Limits) -> Option<At> {
        // Each row has as many places as the others.
        let places = limits.at_once as usize / self.rows.len().max(1);
        let open = self.rows.get(row as usize)?.iter().filter(|ticket| !self.has_finished(**ticket));
        // Who is out of service without a ticket is counted where there is one row for all: see [`Member::is_at_work`].
        let without = if self.rows.len() == 1 { self.without_ticket() } else { 0 };
        self.next(row).filter(|_| open.count() + without < places)
    }

    /// The same, of this node's row.
    pub fn place(&self, limits: Limits) -> Option<At> {
        self.next_free(self.row, limits)
    }

    /// Whether the owner of a ticket is back in service.
    pub fn has_finished(&self, ticket: Ticket) -> bool {
        ticket.is_waived
            || self.members.get(ticket.owner).is_some_and(|member| member.has_finished(ticket.is_back))
    }

    /// Whether this node has what a halt undoes.
    pub fn must_undo(&self, limits: Limits) -> bool {
        self.to_undo(limits).any(|place| place == self.me)
    }

    /// The members for whom a halt waits until they are back on the release before.
    pub fn to_undo(&self, limits: Limits) -> impl Iterator<Item = usize> + '_ {
        let undoes = limits.undoes && self.end == Some(End::Halted);
        let members = self.members.iter().enumerate().filter(move |_| undoes);
        members.filter(|(_, member)| member.is_ahead()).map(|(place, _)| place)
    }

    /// Whether nothing more is to come: it has ended, and what a halt undoes is undone.
    pub fn is_settled(&self, limits: Limits) -> bool {
        match self.end {
            None => false,
            Some(End::Keep | End::Partial | End::Void) => true,
            Some(End::Halted) => {
                !limits.undoes || (self.are_all_in_service() && self.to_undo(limits).next().is_none())
            }
        }
    }

    /// How many owners of tickets are out of service, as far as this view shows; with those who are so without one.
    pub fn unfinished(&self) -> usize {
        let with = self.rows.iter().flatten().filter(|ticket| !self.has_finished(**ticket)).count();
        with + self.without_ticket()
    }

    fn without_ticket(&self) -> usize {
        let without = |place: &usize| {
            let member = &self.members[*place];
            member.is_at_work && !member.has_finished(false) && self.ticket_of(*place, false).is_none()
        };
        (0..self.members.len()).filter(without).count()
    }

    /// Whether nobody is out of service; a part of the rows does not tell.
    fn are_all_in_service(&self) -> bool {
        self.is_whole && self.unfinished() == 0
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

    /// Whether this is where the next ticket of its row stands.
    fn is_end(&self, at: At) -> bool {
        self.rows.get(at.row as usize).is_some_and(|row| row.len() == at.number as usize)
    }

    /// Whether it is known that the release has failed somewhere.
    pub fn knows_of_failure(&self) -> bool {
        self.failures() > 0
    }

    fn failures(&self) -> usize {
        self.members.iter().filter(|member| member.has_failed()).count()
    }
}

fn waiting(view: &View, local: Local, limits: Limits) -> Act {
    if let Some(at) = view.ticket_of(view.me, false).filter(|_| !local.is_early) {
        return Act::Enter(Stage::Taking(at));
    }
    if view.end.is_some() || view.halt || view.contradiction {
        return Act::Enter(Stage::Over);
    }
    if let Some(decision) = decide(view, local, limits) {
        return Act::Decide(decision);
    }
    let Some(mine) = view.mine().filter(|member| !member.waived) else { return Act::Wait };
    let is_time = local.is_next && !local.is_early && !local.is_expired;
    // In its own row it sees one failure at the most that nobody has counted with those of other rows.
    let has_counted = view.is_whole || !view.knows_of_failure();
    match view.place(limits) {
        Some(at) if mine.wave <= view.wave && is_time && has_counted => Act::Enter(Stage::Taking(at)),
        _ => Act::Wait,
    }
}

fn taking(at: At, view: &View, local: Local, limits: Limits) -> Act {
    let mine = view.mine();
    let is_off =
        view.halt || view.end.is_some() || view.contradiction || mine.is_none_or(|member| member.waived);
    let ticket = view.ticket(at);
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
        // Whether it was made may show yet: until another one's stands there, it tries for no other.
        (None, _) if local.is_expired => decide(view, local, limits).map_or(Act::Wait, Act::Decide),
        // Making it was allowed when it was written down, and what was finished then is finished now.
        (None, _) if view.is_end(at) => Act::Take { at, is_back: false },
        // A read that is behind, or storage has lost tickets that stood before it: what was allowed then is judged anew. In the same
        // row, for what was asked for there may stand there.
        (None, _) => view.next_free(at.row, limits).map_or(Act::Wait, |at| Act::Enter(Stage::Taking(at))),
    }
}

fn undo(view: &View, limits: Limits) -> Act {
    if let Some(at) = view.ticket_of(view.me, true) {
        return Act::Enter(Stage::Returning(at));
    }
    view.place(limits).map_or(Act::Wait, |at| Act::Enter(Stage::Returning(at)))
}

fn returning(at: At, view: &View, limits: Limits) -> Act {
    match view.ticket(at) {
        Some(ticket) if ticket.is_of(view.me, true) => Act::GoBack,
        Some(_) => Act::Enter(Stage::Done { health: Health::Good }),
        // An operator has ended it all the same: what is there stays.
        None if view.end == Some(End::Void) => Act::Enter(Stage::Done { health: Health::Good }),
        None if view.is_end(at) => Act::Take { at, is_back: true },
        None => view.next_free(at.row, limits).map_or(Act::Wait, |at| Act::Enter(Stage::Returning(at))),
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
        return view.are_all_in_service().then_some(Decision::End(End::Halted));
    }
    if view.contradiction || view.failures() >= limits.max_failed as usize {
        return Some(Decision::Halt);
    }
    if local.is_expired && view.are_all_in_service() {
        return Some(Decision::End(End::Partial));
    }
    let has_next = counted().any(|place| view.members[place].wave > view.wave);
    (has_next && local.has_soaked && view.are_good(view.wave + 1)).then_some(Decision::Wave(view.wave + 1))
}
