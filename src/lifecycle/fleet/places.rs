//! The place of a node that is out of service: how it is taken, and held where storage loses it.

use super::identity::FRESH;
use super::{Member, Stage as AnyStage};
use crate::coord::heard::Heard;
use crate::coord::rules::rolling::{At, Stage};

/// Who is out of service looks whether its place is still taken once in so many polls.
const PLACE_POLLS: u32 = 4;

impl Member<'_> {
    pub(super) fn take(&mut self, at: At, is_back: bool) -> bool {
        if !self.is_seen_alone() || self.must_wait_for_lost_tickets() {
            return false;
        }
        let (now, (node, instance)) = (self.clock.wall(), self.who_takes());
        let Some((board, follow)) = self.on_rolling() else { return false };
        let heard = follow.take(board, at, is_back, now, &node, &instance);
        self.heed_write(&heard);
        heard.is_yes()
    }

    /// Where storage has lost tickets, places seem to be free that are not: whoever is out of service by a lost one takes
    /// another before this node takes any.
    fn must_wait_for_lost_tickets(&mut self) -> bool {
        let now = self.clock.boot();
        if self.tickets_lost.is_none() {
            let Some((board, follow)) = self.on_rolling() else { return false };
            if !follow.has_lost_tickets(board) {
                return false;
            }
        }
        let since = *self.tickets_lost.get_or_insert(now);
        if now.saturating_sub(since) < FRESH {
            let number = self.kept.part().map_or(0, |part| part.rollout);
            self.trouble = Some(format!(
                "tickets of rollout {number} are gone, so the storage went back in time: this node waits until whoever is out of \
                 service has taken another"
            ));
            return true;
        }
        self.tickets_lost = None;
        if let Some((_, follow)) = self.on_rolling() {
            follow.forget_tickets();
        }
        // Those that are there are read first.
        true
    }

    /// Sees that the place of this node stays taken while it is out of service.
    pub(super) fn hold_place(&mut self) {
        let (node, instance) = self.who_takes();
        let (is_out, held) = match self.kept.part().map(|part| part.stage) {
            Some(AnyStage::Rolling(Stage::Taking(at))) => (true, Some(at)),
            Some(AnyStage::Synchronous(stage)) => (!stage.is_final(), None),
            Some(AnyStage::Rolling(_)) | None => (false, None),
        };
        if !is_out {
            return;
        }
        let (now, last) = (self.clock.boot(), self.place_seen);
        let pause = self.poll() * PLACE_POLLS;
        if self.stranger.is_some() || last.is_some_and(|last| now.saturating_sub(last) < pause) {
            return;
        }
        self.place_seen = Some(now);
        let now = self.clock.wall();
        let Some((board, follow)) = self.on_rolling() else { return };
        if let Heard::Away(why) = follow.hold_place(board, held, now, &node, &instance) {
            tracing::debug!(why, "the place in the rollout cannot be looked at");
        }
    }
}
