//! A member of a large rolling rollout: how much of it it reads, how often it looks, and when its turn has come.
//!
//! Nothing here decides who may be out of service: that is [`crate::coord::rules::rolling`]. What is here keeps a thousand
//! members from asking storage for the same things all the time.

use std::time::Duration;

use super::Member;
use super::turns::ON_DUTY;
use crate::coord::heard::Heard;
use crate::coord::rules::Health;
use crate::coord::rules::Ms;
use crate::coord::rules::rolling::Stage;
use crate::types::record::Deadline;

/// Of so few members each reads everything.
const FEW: usize = 20;

/// So many polls each member has to take the ticket that is its own by the order, while the slot is free.
const PATIENCE: Ms = 3;

/// A slot whose owner takes so many times as long as a turn should is left alone: this node looks at another one.
const TURNS_STUCK: Ms = 3;

/// For so many times as long as deciders wait for each other the same few read everything, each once: whoever ends a wave or the
/// rollout looks by itself, and these are for what nobody else sees.
const SHIFT_STEPS: Ms = 4;

/// The longest pause between two looks, in milliseconds.
const LONGEST_PAUSE: Ms = 300_000;

/// How much of a rollout is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All slots.
    Whole,
    /// All slots, as long as none is found that is in use.
    WhileIdle,
    /// The slot that this node waits for, or holds.
    Slot,
    /// The same, but not how its last owner does: others are to come before this node.
    Length,
    /// How it ended, and what this node has said.
    Own,
    /// This node has just had its turn, and others are to come: nothing concerns it before its next run.
    Nothing,
}

/// What this process has seen of the slot that it waits for, by the clock of this boot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    row: u32,
    length: usize,
    /// When it was seen to be as long as it is,
    since: Ms,
    /// and when it was seen last to be shorter, or not seen at all.
    shorter_at: Ms,
    /// When it was looked at last.
    seen_at: Option<Ms>,
    /// It was longer at the last look than at the one before.
    pub(super) has_grown: bool,
    /// Since when its last owner was seen back in service.
    free_since: Option<Ms>,
    /// When all slots were read last.
    whole_at: Option<Ms>,
    /// This process has had its turn since.
    had_turn: bool,
    /// When that began.
    turn_began: Option<Ms>,
}

impl Queue {
    /// A look at a slot has shown so many tickets, and whether the last owner is back in service.
    fn look(&mut self, row: u32, length: usize, is_free: bool, now: Ms) {
        if self.row != row {
            (self.row, self.seen_at) = (row, None);
        }
        self.has_grown = self.seen_at.is_none() || self.length != length;
        if self.has_grown {
            (self.length, self.since, self.free_since) = (length, now, None);
            self.shorter_at = self.seen_at.unwrap_or(now);
        }
        self.seen_at = Some(now);
        self.free_since = is_free.then(|| self.free_since.unwrap_or(now));
    }
}

impl Member<'_> {
    /// What this look is at. A few members read all slots, in turns: for them all, they open waves, stop it and end it.
    pub(super) fn extent(&mut self) -> Extent {
        let (now, wall) = (self.steady(), self.clock.wall().as_millisecond());
        let step = (self.decider_step() * ON_DUTY as Ms).max(1);
        let shift = step * SHIFT_STEPS;
        let stage = self.rolling_stage();
        let has_soaked = self.soaks_until().is_some_and(|until| self.is_over(&until));
        let queue = self.queue;
        let Some(follow) = self.rolling() else { return Extent::Whole };
        let members = follow.view.members.len();
        if !follow.rollout.has_slots() || members <= FEW {
            return Extent::Whole;
        }
        let is_news = match stage {
            // It may be the one too many.
            Some(Stage::Done { health: Health::Failed | Health::Broken }) => true,
            // Before one more tries what has failed elsewhere, all failures are counted.
            Some(Stage::Waiting) => follow.view.knows_of_failure() && self.is_next(),
            _ => false,
        };
        let groups = members.div_ceil(ON_DUTY);
        let is_on_duty = usize::try_from(wall / shift).unwrap_or(0) % groups == follow.rank / ON_DUTY;
        let is_due = |pause| queue.whole_at.is_none_or(|last| now - last >= pause);
        let extent = match stage {
            _ if (is_news && is_due(step / 2)) || (is_on_duty && is_due(shift)) => Extent::Whole,
            // After the last of a wave the next one opens, or all is done.
            Some(Stage::Done { .. }) if follow.has_reported() && (has_soaked || queue.had_turn) => {
                if has_soaked || !follow.is_followed() {
                    Extent::WhileIdle
                } else {
                    Extent::Nothing
                }
            }
            Some(Stage::Done { .. } | Stage::Returned { .. } | Stage::Over) => Extent::Own,
            Some(Stage::Waiting) if follow.ahead() > 1 && (queue.has_grown || queue.seen_at.is_none()) => {
                Extent::Length
            }
            Some(Stage::Waiting | Stage::Taking(_) | Stage::Returning(_)) | None => Extent::Slot,
        };
        if matches!(extent, Extent::Whole | Extent::WhileIdle | Extent::Nothing) {
            self.queue.had_turn = false;
        }
        if extent == Extent::Whole {
            self.queue.whole_at = Some(now);
        }
        extent
    }

    /// This node has its turn.
    pub(super) fn begin_turn(&mut self) {
        self.queue.had_turn = true;
        self.queue.turn_began = Some(self.steady());
    }

    fn soaks_until(&self) -> Option<Deadline> {
        self.kept.part()?.soaking.as_ref().map(|soaking| soaking.until.clone())
    }

    fn is_over(&self, until: &Deadline) -> bool {
        until.remaining(&self.clock.boot_id(), self.clock.boot(), self.clock.wall()).is_zero()
    }

    /// Whether the slot that this node waits for has stood still for longer than a turn should take: then somebody may have said
    /// a word on it, or on all.
    fn is_overdue(&self) -> bool {
        let Some(follow) = self.rolling() else { return true };
        let is_few = follow.view.members.len() <= FEW;
        let trial = follow.rollout.times().trial;
        is_few || self.queue.seen_at.is_none() || self.steady() - self.queue.since >= trial
    }

    /// Reads as much as this look is at.
    pub(super) fn read_extent(&mut self, extent: Extent) -> Heard {
        let is_overdue = self.is_overdue();
        let stage = self.rolling_stage();
        let is_waiting = matches!(stage, Some(Stage::Waiting));
        let is_done = matches!(stage, Some(Stage::Done { .. }));
        let (queue, passed) = (self.queue, self.turn_runs_for());
        let Some((board, follow)) = self.on_rolling() else { return Heard::Yes };
        follow.expected = match follow.turn {
            Some(turn) if queue.seen_at.is_some() && queue.row == follow.view.row => {
                let ended = passed / turn.max(1);
                follow.row_length() + usize::try_from(ended).unwrap_or(0)
            }
            _ => 0,
        };
        follow.asks_for_waivers = !follow.rollout.has_slots() || is_overdue || extent == Extent::WhileIdle;
        match extent {
            Extent::Whole => follow.read(board),
            Extent::WhileIdle => follow.read_while_idle(board),
            Extent::Slot => match follow.read_slot(board, is_waiting && !is_overdue) {
                // What stands still may have been ended by an operator, whose word stands beside.
                Heard::Yes if is_overdue => follow.read_void(board),
                heard => heard,
            },
            Extent::Length => follow.read_length(board),
            Extent::Own => follow.read_own(board, is_done),
            Extent::Nothing => {
                follow.view.is_whole = false;
                Heard::Yes
            }
        }
    }

    /// Whether nobody waits for this node yet: others come before it, or it has had its turn.
    pub(super) fn is_at_rest(extent: Extent) -> bool {
        matches!(extent, Extent::Length | Extent::Own | Extent::Nothing)
    }

    /// Takes up what a look has shown of the slot, and turns to another one where this one does not come free.
    pub(super) fn watch_slot(&mut self, extent: Extent) {
        let now = self.steady();
        let may_turn = matches!(self.rolling_stage(), Some(Stage::Waiting | Stage::Done { .. }));
        let mut queue = self.queue;
        let Some((_, follow)) = self.on_rolling() else { return };
        if !follow.rollout.has_slots() || matches!(extent, Extent::Own | Extent::Nothing) {
            return;
        }
        queue.look(follow.view.row, follow.row_length(), follow.is_row_free(), now);
        if may_turn && queue.free_since.is_none() {
            let times = follow.rollout.times();
            let is_stuck = now - queue.since >= TURNS_STUCK * (times.trial + times.poll);
            // Of many, one that comes free has somebody who waits for it.
            let is_few = follow.view.members.len() <= FEW;
            if is_few && extent == Extent::Whole && follow.take_free_row() {
                queue.look(follow.view.row, follow.row_length(), true, now);
            } else if is_stuck {
                follow.take_next_row();
            }
        }
        self.queue = queue;
    }

    /// How long this node's turn took, as far as this process has seen all of it.
    pub(super) fn turn_took(&self) -> Option<Ms> {
        Some(self.steady() - self.queue.turn_began?)
    }

    /// Whether those who are to come before this node have come, or had their time.
    pub(super) fn is_next(&self) -> bool {
        let Some(follow) = self.rolling().filter(|follow| follow.rollout.has_slots()) else { return true };
        let patience =
            follow.rollout.times().poll * PATIENCE * Ms::try_from(follow.ahead()).unwrap_or(Ms::MAX);
        patience == 0 || self.queue.free_since.is_some_and(|since| self.steady() - since >= patience)
    }

    /// When to look next: about when this node's turn comes, as long as turns take what they took.
    pub(super) fn pause_in_slot(&self) -> Duration {
        let Some(follow) = self.rolling() else { return self.poll() };
        let (now, queue) = (self.steady(), self.queue);
        let poll = follow.rollout.times().poll;
        let ahead = Ms::try_from(follow.ahead()).unwrap_or(Ms::MAX);
        let mine = follow.view.members.get(follow.view.me).map_or(0, |member| member.wave);
        let passed = self.turn_runs_for();
        let pause = match (queue.free_since, follow.turn) {
            // Nobody can say how long a wave takes: the longer it has, the longer it will.
            _ if mine > follow.view.wave => passed / 3,
            (Some(since), _) => (ahead * PATIENCE * poll - (now - since)) * 3 / 4,
            // Nor how long a turn takes, before the first.
            (None, None) => (ahead * PATIENCE * poll).max(passed / if ahead == 0 { 8 } else { 2 }),
            (None, Some(turn)) => {
                let often = (ahead + 1).saturating_mul(turn / 16).min(turn);
                (ahead.max(1).saturating_mul(turn) - passed).max(often)
            }
        };
        Duration::from_millis(u64::try_from(pause.clamp(poll, LONGEST_PAUSE.max(poll))).unwrap_or(0))
    }

    /// For how long the newest ticket of the slot has been there: as its owner's clock had it, and within what this node saw.
    fn turn_runs_for(&self) -> Ms {
        let (now, wall, queue) = (self.steady(), self.clock.wall().as_millisecond(), self.queue);
        let taken = self.rolling().and_then(|follow| follow.taken_at);
        let (least, most) = (now - queue.since, now - queue.shorter_at);
        taken.map_or(most, |taken| wall.saturating_sub(taken.as_millisecond())).clamp(least, most.max(least))
    }
}
