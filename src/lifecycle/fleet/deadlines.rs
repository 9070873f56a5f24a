//! The moments that a rollout names are for all its members: a node whose clock is wrong judges them by the storage's, or it
//! would end for all what only its own clock says is over, and begin before the others may.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Following, Member};
use crate::coord::board::ClockRead;
use crate::coord::facts::{ClockSeen, names};
use crate::coord::rollout::Rollout;
use crate::coord::rules::Ms;
use crate::coord::settings::SkewCheck;

/// For so long a measured clock is taken to go on as it went.
const MEASURED_FOR: Duration = Duration::from_secs(60);

impl Member<'_> {
    fn rollout(&self) -> Option<&Rollout> {
        match self.following.as_ref()? {
            Following::Synchronous(follow) => Some(&follow.rollout),
            Following::Rolling(follow) => Some(&follow.rollout),
        }
    }

    /// How far this node's clock is ahead of the storage's, in milliseconds, where that is more than the rollout allows.
    /// Asked when a moment seems to have come, since it costs a write; zero where it cannot be measured.
    fn ahead(&mut self) -> Ms {
        let Some(skew_ms) = self.rollout().map(|rollout| f64::from(rollout.proposal.t.skew_ms)) else {
            return 0;
        };
        if self.settings.skew_check == SkewCheck::Unchecked {
            return 0;
        }
        let now = self.clock.boot();
        let seen = match self.measured {
            Some((at, seen)) if now.saturating_sub(at) < MEASURED_FOR => seen,
            _ => {
                let read = self.board.clock(&names::node(&self.kept.own.node));
                let seen = match read {
                    ClockRead::Offset { offset_ms, error_ms } => Some(ClockSeen { offset_ms, error_ms }),
                    ClockRead::Unknown => None,
                };
                self.measured = Some((now, seen));
                seen
            }
        };
        let Some(seen) = seen else { return 0 };
        if seen.offset_ms.abs() - seen.error_ms <= skew_ms {
            return 0;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a difference of two clocks in milliseconds")]
        let ahead = -seen.offset_ms as Ms;
        ahead
    }

    /// When the votes of a synchronous rollout must be in, by this node's clock.
    pub(super) fn vote_by(&mut self) -> Ms {
        let (now, Some(rollout)) = (self.now(), self.rollout()) else { return Ms::MAX };
        let vote_by = rollout.vote_by();
        if now > vote_by { vote_by + self.ahead() } else { vote_by }
    }

    /// The time by which it is judged whether a rolling rollout may begin, and whether its time is over.
    pub(super) fn fair_now(&mut self) -> Timestamp {
        let now = self.clock.wall();
        let has_come = self.rollout().is_some_and(|rollout| {
            let proposal = &rollout.proposal;
            now > proposal.expires || proposal.not_before.is_some_and(|moment| now >= moment)
        });
        let ahead = if has_come { self.ahead() } else { 0 };
        now.saturating_sub(SignedDuration::from_millis(ahead)).unwrap_or(now)
    }
}
