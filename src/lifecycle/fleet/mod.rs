//! The fleet's side of an update: joins the rules of `coord` to the moves of an update.
//!
//! What the node must not forget stands in `.cutover/fleet.json` before storage is told. All access to storage is
//! bounded by its time limit, and storage that is away makes the node wait or go back, never fail.

mod agrees;
mod along;
mod by_hand;
mod carried;
mod cells;
mod deadlines;
mod follows;
mod forgotten;
mod identity;
mod join;
mod keys;
mod meant;
mod moved;
mod own;
mod pages;
mod places;
mod promise;
mod repair;
mod rolling;
mod slots;
mod starting;
mod synchronous;
mod take;
mod turns;
mod words;

use std::time::Duration;

use jiff::Timestamp;

pub use along::Along;
pub use carried::believe;
pub use forgotten::Forgotten;
pub use identity::{Here, free};
pub use join::{Newcomer, join, new_id};
pub use keys::{FleetKeys, KeyFile, own_key, without_key};
pub use own::{Carried, Kept, Own, Part, Stage, said_of};
pub use pages::put_back_pages;
pub use repair::{Repaired, Trouble, has_read_keep, read_of, repair};
pub use take::Taken;

use pages::{Pages, WithPages};

use super::agreement::{Error, Wait};
use crate::coord::alive::{Alive, NotYet};
use crate::coord::board::Board;
use crate::coord::facts::{self, Fact, names};
use crate::coord::heard::Heard;
use crate::coord::look::{self, Found, Keys, Look, Signer, Trust};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::{Rollout, Turns, in_full};
use crate::coord::rules::gate::Gate;
use crate::coord::rules::synchronous::Promise;
use crate::coord::rules::{Checks, Ms};
use crate::coord::settings::Mode;
use crate::coord::synchronous::Synchronous;
use crate::coord::voice::{CANNOT_SIGN, Voice};
use crate::coord::{NodeName, Settings};
use crate::sys::clock::Clock;
use crate::types::record::{Cause, Reason, Record};
use crate::types::{Digest, ReleaseId};

/// How many steps are taken without a pause: more than a rollout has.
const STEPS_MAX: usize = 24;

/// Says what keeps a node from switching to a release now.
pub type Obstacle<'a> = Box<dyn Fn(&ReleaseId) -> Option<NotYet> + 'a>;

/// A node as a member of its fleet.
pub struct Member<'a> {
    board: Box<dyn Board + 'a>,
    clock: &'a dyn Clock,
    keys: &'a dyn Keys,
    signer: Option<&'a dyn Signer>,
    settings: &'a Settings,
    kept: Kept,
    following: Option<Following<'a>>,
    /// The turns of cells, where the rollout under way is one of cells: what is followed is this node's cell's part.
    cells: Option<Box<Rolling<'a>>>,
    turns: Turns,
    /// It only looks in, between updates: nobody is let go first, for the next run would begin to wait anew.
    looks_in: bool,
    /// By the clock of this boot, in milliseconds: when members' facts were read last.
    scanned: Option<Ms>,
    /// By the same clock: when the names in a rolling rollout's directory were listed last.
    listed: Option<Ms>,
    /// The slot that it waits for, in a rolling rollout.
    queue: slots::Queue,
    /// When the turns of cells were looked at last.
    turns_seen: Option<Ms>,
    beaten: Option<Duration>,
    /// When the heartbeat that is there was looked at last.
    looked: Option<Duration>,
    /// When it was looked last whether another machine has accused this one of being a copy.
    twin_read: Option<Duration>,
    /// When it was looked last, by the clock of the boot, whether storage still has the ticket that this node is out of service by.
    place_seen: Option<Duration>,
    /// Since when storage is known to have lost tickets.
    tickets_lost: Option<Duration>,
    /// Whether storage was seen to hold the gates that this node remembers.
    has_assured: bool,
    /// When storage was asked for the outcome last, by the clock of this boot, and what the checks said then.
    asked: Option<(Ms, Checks)>,
    /// When this node had stopped on its way back, and asked first whether it may start, by its own clock.
    stopped_by: Option<Ms>,
    /// Since when storage has not answered.
    cut_off: Option<Duration>,
    /// What this node's clock showed against the storage's.
    clock_seen: Option<facts::ClockSeen>,
    /// The same, whenever a moment seems to have come, and when it was measured, by the clock of the boot.
    measured: Option<(Duration, Option<facts::ClockSeen>)>,
    /// What the heartbeat says of this node's releases.
    pub has: Alive,
    /// What storage said last, when it did not do what was asked.
    pub trouble: Option<String>,
    /// What storage said when it did not take what was written last. It may be read all the same.
    unwritten: Option<String>,
    promise: Promise,
    pub here: Here,
    /// What keeps it from going on by its own settings, and its operators' word: asked before each promise.
    pub obstacle: Option<Obstacle<'a>>,
    /// Whether storage was seen to take this node for the one that it is.
    is_identified: bool,
    /// While it may be a copy: storage did not answer, or did not take its heartbeat, when it was asked last.
    is_silence_broken: bool,
    /// Whether storage took the heartbeat that was written last.
    is_shown: bool,
    /// Why it is not the node that it was taken for: another machine goes by this name, or the name was freed.
    stranger: Option<String>,
    /// Where another machine of this name is at work, until storage holds that it was seen.
    unaccused: Option<String>,
}

/// The rollout under way, as it was read.
enum Following<'a> {
    Synchronous(Box<Synchronous<'a>>),
    Rolling(Box<Rolling<'a>>),
}

impl Following<'_> {
    /// The file of a rolling rollout's outcome; the gates of a synchronous one are remembered as they are read.
    fn outcome(self) -> Option<String> {
        match self {
            Self::Rolling(follow) => follow.outcome,
            Self::Synchronous(_) => None,
        }
    }
}

impl<'a> Member<'a> {
    /// A member, with what it remembers.
    pub fn new(
        board: Box<dyn Board + 'a>,
        clock: &'a dyn Clock,
        keys: &'a dyn Keys,
        signer: Option<&'a dyn Signer>,
        settings: &'a Settings,
        kept: Kept,
    ) -> Self {
        Self {
            board: Box::new(WithPages { board, pages: kept.pages() }),
            clock,
            keys,
            signer,
            settings,
            kept,
            following: None,
            cells: None,
            turns: Turns::default(),
            looks_in: false,
            scanned: None,
            listed: None,
            queue: slots::Queue::default(),
            turns_seen: None,
            beaten: None,
            looked: None,
            twin_read: None,
            place_seen: None,
            tickets_lost: None,
            has_assured: false,
            asked: None,
            stopped_by: None,
            cut_off: None,
            unwritten: None,
            promise: Promise::default(),
            here: Here::default(),
            obstacle: None,
            is_identified: false,
            is_silence_broken: false,
            is_shown: false,
            stranger: None,
            unaccused: None,
            clock_seen: None,
            measured: None,
            has: Alive::at(Timestamp::UNIX_EPOCH),
            trouble: None,
        }
    }

    pub fn own(&self) -> &Own {
        &self.kept.own
    }

    fn node(&self) -> NodeName {
        self.kept.own.node.clone()
    }

    fn instance(&self) -> String {
        self.kept.own.instance.clone()
    }

    /// The time of the fleet: by the wall clock, and from arming on by the clock that does not jump. So no step of the wall
    /// clock makes this node early or late.
    fn now(&self) -> Ms {
        let anchor = self.kept.part().and_then(|part| part.anchor.as_ref());
        match anchor.filter(|anchor| anchor.boot_id == self.clock.boot_id()) {
            Some(anchor) => {
                anchor.wall.as_millisecond() + self.steady() - Ms::try_from(anchor.boot_ms).unwrap_or(Ms::MAX)
            }
            None => self.clock.wall().as_millisecond(),
        }
    }

    /// Milliseconds of a clock that does not jump.
    fn steady(&self) -> Ms {
        Ms::try_from(self.clock.boot().as_millis()).unwrap_or(Ms::MAX)
    }

    fn trust(&self) -> Trust<'a> {
        Trust { keys: self.keys, allow_unsigned: self.settings.allow_unsigned }
    }

    fn voice(&self) -> Voice<'a> {
        Voice { trust: self.trust(), signer: self.signer }
    }

    /// Takes up what the part under way follows, from what was written down.
    fn follow(&mut self) -> Result<(), Error> {
        if self.following.is_some() {
            return Ok(());
        }
        let Some(part) = self.kept.part() else { return Ok(()) };
        let Some(rollout) = rollout_of(part, &self.kept.pages()) else {
            return Err(Error::Record {
                path: "fleet.json".into(),
                why: "its proposal cannot be read".into(),
            });
        };
        let no_terms =
            || Error::Record { path: "fleet.json".into(), why: "its proposal has no terms".into() };
        let node = &self.kept.own.node;
        self.cells = match rollout.proposal.mode {
            Mode::Cells => {
                let cell = rollout.proposal.cells.get(node);
                Some(Box::new(Rolling::of_turns(&rollout, cell, self.voice()).ok_or_else(no_terms)?))
            }
            Mode::Independent | Mode::Rolling | Mode::Synchronous => None,
        };
        let rollout = rollout.of_node(node);
        let me = rollout.place_of(node).unwrap_or(usize::MAX);
        self.following = Some(match part.stage {
            Stage::Synchronous(_) => {
                let mut follow = Synchronous::new(rollout, me, self.voice());
                remember(&mut follow, part);
                Following::Synchronous(Box::new(follow))
            }
            Stage::Rolling(_) => {
                Following::Rolling(Box::new(Rolling::new(rollout, me, self.voice()).ok_or_else(no_terms)?))
            }
        });
        Ok(())
    }

    /// Takes note of whether storage answered.
    fn heed(&mut self, heard: &Heard) {
        match heard {
            Heard::Yes => {
                self.cut_off = None;
                self.trouble = None;
            }
            Heard::Away(why) => {
                self.cut_off.get_or_insert(self.clock.boot());
                self.trouble = Some(why.clone());
            }
            Heard::Bad(why) => {
                self.cut_off = None;
                self.trouble = Some(format!(
                    "{why}; `cutover fleet repair` puts it back on a node that has read it; where none has, `cutover fleet abort` \
                     ends the rollout"
                ));
            }
        }
    }

    /// The same, of something that was to be written.
    fn heed_write(&mut self, heard: &Heard) {
        self.unwritten = match heard {
            Heard::Yes => None,
            Heard::Away(why) | Heard::Bad(why) => Some(why.clone()),
        };
        self.heed(heard);
    }

    fn poll(&self) -> Duration {
        let frozen = match &self.following {
            Some(Following::Synchronous(follow)) => Some(follow.rollout.proposal.t.poll),
            Some(Following::Rolling(follow)) => Some(follow.rollout.proposal.t.poll),
            None => None,
        };
        let poll = frozen.and_then(|poll| u64::try_from(poll.ms()).ok()).map(Duration::from_millis);
        poll.unwrap_or(self.settings.poll.0)
    }

    fn wait(&self, why: impl Into<String>) -> Wait {
        let why = why.into();
        Wait::new(self.poll(), self.storage_trouble().unwrap_or(why))
    }

    /// What storage does not do, for people.
    fn storage_trouble(&self) -> Option<String> {
        let told = |what: &str, why: &String| match why.starts_with(CANNOT_SIGN) {
            true => format!("this node {why}"),
            false => format!("{what}: {why}"),
        };
        let unread = self.trouble.as_ref().map(|why| told("shared storage", why));
        let unwritten = self.unwritten.as_ref();
        unread.or_else(|| unwritten.map(|why| told("shared storage can be read, and not written", why)))
    }

    /// Remembers where this node stands.
    fn enter(&mut self, stage: Stage) -> Result<(), Error> {
        self.kept.change(|own| {
            if let Some(part) = &mut own.part {
                part.stage = stage;
            }
        })
    }

    fn change_part(&mut self, change: impl FnOnce(&mut Part)) -> Result<(), Error> {
        self.kept.change(|own| {
            if let Some(part) = &mut own.part {
                change(part);
            }
        })
    }

    /// Whether this update is the fleet's.
    fn is_mine(&self, record: &Record) -> bool {
        record.rollout.is_some() && record.rollout == self.kept.part().map(|part| part.rollout)
    }

    fn may_be_undone(&self) -> bool {
        match &self.following {
            Some(Following::Rolling(follow)) => follow.limits().undoes && !follow.is_settled(),
            Some(Following::Synchronous(_)) | None => false,
        }
    }

    /// Tells what this node runs in the end, once.
    fn close(&mut self) -> Result<(), Error> {
        let Some(part) = self.kept.part().filter(|part| !part.closed).cloned() else { return Ok(()) };
        // Where a halt may undo it, what it runs in the end shows when the rollout has ended.
        if self.may_be_undone() {
            return Ok(());
        }
        // It had switched, and runs something else.
        let went_back = part.downtime_ms.is_some() && part.running.as_ref() != Some(&part.release.version);
        let back_at = part.back_at.or_else(|| went_back.then(|| self.clock.wall()));
        let fact = Fact::Closed(facts::Closed {
            rollout: part.rollout,
            proposal: Digest::of(part.proposal.as_bytes()),
            node: self.node(),
            instance: self.instance(),
            running: part.running.clone(),
            by_hand: part.by_hand,
            back_at,
            downtime_ms: part.downtime_ms,
        });
        let name = names::own(&self.node(), part.rollout, "closed");
        let Some(rollout) = rollout_of(&part, &self.kept.pages()) else { return Ok(()) };
        let voice = self.voice();
        let heard = match voice.put(self.board.as_mut(), &rollout, &name, &fact) {
            Look::Found(_) | Look::Bad(_) => Heard::Yes,
            Look::Absent => Heard::Away("it was made, and is not there".into()),
            Look::Unreachable(why) => Heard::Away(why),
        };
        self.heed_write(&heard);
        if heard.is_yes() {
            self.change_part(|part| part.closed = true)?;
        }
        Ok(())
    }
}

/// The rollout that a part was taken up for. What was believed then is believed now: no signature is asked again.
fn rollout_of(part: &Part, pages: &Pages) -> Option<Rollout> {
    rollout_of_text(part.rollout, &part.proposal, pages)
}

/// The same, from the proposal's file; its pages were kept when it was read.
fn rollout_of_text(number: u64, proposal: &str, pages: &Pages) -> Option<Rollout> {
    match look::found(&names::proposal(number), proposal, None) {
        Look::Found(Found { fact: Fact::Proposal(mut proposal), digest, signer, .. }) => {
            let in_full = in_full(&mut proposal, &mut |name| pages.read(name));
            (in_full == Look::Found(())).then(|| Rollout::new(number, digest, *proposal, signer))
        }
        _ => None,
    }
}

/// Tells the rules what this node has written down.
fn remember(follow: &mut Synchronous<'_>, part: &Part) {
    for gate in Gate::ALL {
        if let Some(text) = part.gates.get(&follow.rollout.gate_name(gate)) {
            follow.remember_gate(gate, text);
        }
    }
    if let Some(told) = &part.told {
        follow.remember_told(told);
    }
    if part.waived
        && let Some(mine) = follow.view.members.get_mut(follow.view.me)
    {
        mine.waived = true;
    }
}

/// What goes wrong with the node's own disk while others are told is logged: the journal's word stands.
fn logged(what: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot {what}");
    }
}

/// The kind of a reason, in a word.
fn word_of(cause: Cause) -> String {
    serde_json::to_value(cause).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn by_fleet(text: impl Into<String>) -> Reason {
    Reason::new(Cause::Fleet, text)
}
