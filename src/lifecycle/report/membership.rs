//! What a node remembers of its fleet, as far as its status shows it. No storage is asked.

use jiff::Timestamp;

use super::view::BlockedView;
use crate::coord::rules::synchronous::Stage as Step;
use crate::coord::settings::{Facts, Isolated, Mode};
use crate::lifecycle::fleet::{self, Own, Part, Stage};
use crate::lifecycle::settings::Settings;
use crate::store::Layout;
use crate::sys::disk::Disk;
use crate::types::Version;

/// Nothing where the node has joined no fleet, or its record cannot be read.
pub(super) struct Membership(Option<Own>);

impl Membership {
    pub fn read(layout: &Layout) -> Self {
        let kept = fleet::Kept::load(&Disk::default(), &layout.fleet());
        Self(kept.ok().flatten().map(|kept| kept.own))
    }

    /// Why the fleet would not believe this node, where members sign what they say.
    pub fn without_key(&self, settings: &Settings, layout: &Layout) -> Option<String> {
        let is_signed = settings.fleet.mode != Mode::Independent && settings.fleet.facts == Facts::Signed;
        let own = self.0.as_ref().filter(|own| is_signed && own.joined)?;
        fleet::without_key(own, &fleet::KeyFile(layout.fleet_key()))
    }

    /// Whether the node has promised to wait for a decision that it cannot read.
    pub fn is_in_doubt(&self) -> bool {
        self.part().is_some_and(|part| part.in_doubt_since.is_some())
    }

    /// When the trial ends by itself, which else does so at `until`. Nothing: it has vouched, and waits for the fleet's outcome.
    pub fn trial_ends(&self, settings: &Settings, until: Timestamp) -> Option<Timestamp> {
        match self.part().filter(|part| part.stage.has_vouched()) {
            None => Some(until),
            Some(part) if settings.fleet.isolated == Isolated::Rollback => {
                part.doubts_until.as_ref().map(|until| until.wall)
            }
            Some(_) => None,
        }
    }

    /// Why the node does not follow its fleet, where a person has put it elsewhere.
    pub fn blocked(&self, active: Option<&Version>) -> Option<BlockedView> {
        let text = self.0.as_ref().filter(|own| own.joined)?.stays_by_hand(active?)?;
        let policy = BY_HAND.to_owned();
        Some(BlockedView { policy, since: None, until: None, text, exit_code: None })
    }

    fn part(&self) -> Option<&Part> {
        self.0.as_ref()?.part.as_ref()
    }
}

/// What keeps a node from following its fleet that a person has put elsewhere.
pub(super) const BY_HAND: &str = "by_hand";

impl Stage {
    fn has_vouched(self) -> bool {
        matches!(self, Self::Synchronous(Step::Vouching { .. }))
    }
}
