//! The fleet's side of an update: joins the rules of `coord` to the moves of an update.
//!
//! What the node must not forget stands in `.cutover/fleet.json` before storage is told. All access to storage is
//! bounded by its time limit, and storage that is away makes the node wait or go back, never fail.

mod keys;
mod own;
mod rolling;
mod synchronous;
mod take;

use std::time::Duration;

pub use keys::{FleetKeys, KeyFile};
pub use own::{Kept, Own, Part, Stage};
pub use take::{Taken, join, new_id};

use super::agreement::{Agreement, Clearance, Error, Own as OwnChecks, Start, Verdict, Wait};
use crate::coord::board::Board;
use crate::coord::facts::{self, Fact, names};
use crate::coord::look::{self, Found, Keys, Look, Trust};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::{Rollout, Turns};
use crate::coord::rules::{Checks, Ms};
use crate::coord::synchronous::{Heard, Synchronous};
use crate::coord::{NodeName, Settings};
use crate::sys::clock::Clock;
use crate::types::Digest;
use crate::types::record::{Cause, Reason, Record};

/// How many steps are taken without a pause: more than a rollout has.
const STEPS_MAX: usize = 24;
/// How often the heartbeat is renewed.
const BEAT: Duration = Duration::from_secs(10);
/// How many places in the order of deciders are told apart.
const RANK_MAX: usize = 5;

/// A node as a member of its fleet.
pub struct Member<'a> {
    board: Box<dyn Board + 'a>,
    clock: &'a dyn Clock,
    keys: &'a dyn Keys,
    settings: &'a Settings,
    kept: Kept,
    following: Option<Following>,
    turns: Turns,
    /// By the clock of this boot, in milliseconds: when members' facts were read last.
    scanned: Option<Ms>,
    beaten: Option<Duration>,
    /// When storage was asked for the outcome last, by the clock of this boot, and what the checks said then.
    asked: Option<(Ms, Checks)>,
    /// Since when storage has not answered.
    cut_off: Option<Duration>,
    /// What this node's clock showed against the storage's.
    clock_seen: Option<facts::ClockSeen>,
    /// What storage said last, when it did not do what was asked.
    pub trouble: Option<String>,
}

/// The rollout under way, as it was read.
enum Following {
    Synchronous(Box<Synchronous>),
    Rolling(Box<Rolling>),
}

impl<'a> Member<'a> {
    /// A member, with what it remembers.
    pub fn new(
        board: Box<dyn Board + 'a>,
        clock: &'a dyn Clock,
        keys: &'a dyn Keys,
        settings: &'a Settings,
        kept: Kept,
    ) -> Self {
        Self {
            board,
            clock,
            keys,
            settings,
            kept,
            following: None,
            turns: Turns::default(),
            scanned: None,
            beaten: None,
            asked: None,
            cut_off: None,
            clock_seen: None,
            trouble: None,
        }
    }

    /// What the node remembers.
    pub fn own(&self) -> &Own {
        &self.kept.own
    }

    fn node(&self) -> NodeName {
        self.kept.own.node.clone()
    }

    fn instance(&self) -> String {
        self.kept.own.instance.clone()
    }

    fn now(&self) -> Ms {
        self.clock.wall().as_millisecond()
    }

    /// Milliseconds of a clock that does not jump.
    fn steady(&self) -> Ms {
        Ms::try_from(self.clock.boot().as_millis()).unwrap_or(Ms::MAX)
    }

    fn trust(&self) -> Trust<'a> {
        Trust { keys: self.keys, allow_unsigned: self.settings.allow_unsigned }
    }

    /// Takes up what the part under way follows, from what was written down.
    fn follow(&mut self) -> Result<(), Error> {
        if self.following.is_some() {
            return Ok(());
        }
        let Some(part) = self.kept.part() else { return Ok(()) };
        let Some(rollout) = rollout_of(part) else {
            return Err(Error::Record {
                path: "fleet.json".into(),
                why: "its proposal cannot be read".into(),
            });
        };
        let me = rollout.place_of(&self.kept.own.node).unwrap_or(usize::MAX);
        self.following = Some(match part.stage {
            Stage::Synchronous(_) => {
                let mut follow = Synchronous::new(rollout, me);
                for gate in ["plan", "go", "start", "outcome"] {
                    if let Some(text) = part.gates.get(gate) {
                        follow.remember_gate(gate, text);
                    }
                }
                Following::Synchronous(Box::new(follow))
            }
            Stage::Rolling(_) => {
                Following::Rolling(Box::new(Rolling::new(rollout, me).ok_or_else(|| Error::Record {
                    path: "fleet.json".into(),
                    why: "its proposal has no terms".into(),
                })?))
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
            Heard::No(why) => {
                self.cut_off.get_or_insert(self.clock.boot());
                self.trouble = Some(why.clone());
            }
        }
    }

    /// Shows on storage that this node is there. Decides nothing.
    fn beat(&mut self) {
        let now = self.clock.boot();
        if self.cut_off.is_some() || self.beaten.is_some_and(|last| now.saturating_sub(last) < BEAT) {
            return;
        }
        self.beaten = Some(now);
        let text = format!("{{\"format\":1,\"kind\":\"alive\",\"at\":\"{}\"}}\n", self.clock.wall());
        let _ = self.board.beat(&names::alive(&self.kept.own.node), &text);
    }

    /// Whether it is time to read the facts of members: those late in the order read them less often.
    fn may_scan(&mut self, poll: Ms, rank: usize) -> bool {
        let now = self.steady();
        let pause = poll * Ms::try_from(rank.min(RANK_MAX)).unwrap_or(0);
        let is_due = self.scanned.is_none_or(|last| now - last >= pause);
        if is_due {
            self.scanned = Some(now);
        }
        is_due
    }

    /// Whether those before this node in the order have had their time.
    fn is_my_turn(&mut self, what: &str, rank: usize) -> bool {
        let step = Ms::try_from(self.settings.decider_step.0.as_millis()).unwrap_or(0);
        let wait = step * Ms::try_from(rank.min(RANK_MAX)).unwrap_or(0);
        let now = self.steady();
        self.turns.has_come(what, now, wait)
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
        match &self.trouble {
            Some(trouble) => Wait::new(self.poll(), format!("shared storage: {trouble}")),
            None => Wait::new(self.poll(), why),
        }
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

    /// Tells what this node runs in the end, once.
    fn close(&mut self) -> Result<(), Error> {
        let Some(part) = self.kept.part().filter(|part| !part.closed).cloned() else { return Ok(()) };
        // It had switched, and runs something else.
        let wanted = rollout_of(&part).map(|rollout| rollout.proposal.release.version);
        let went_back = part.downtime_ms.is_some() && part.running != wanted;
        let fact = Fact::Closed(facts::Closed {
            rollout: part.rollout,
            proposal: Digest::of(part.proposal.as_bytes()),
            node: self.node(),
            instance: self.instance(),
            running: part.running.clone(),
            by_hand: part.by_hand,
            back_at: went_back.then(|| self.clock.wall()),
            downtime_ms: part.downtime_ms,
        });
        let name = names::own(&self.node(), part.rollout, "closed");
        let heard = match look::put(self.board.as_mut(), &name, &fact) {
            Look::Found(_) | Look::Bad(_) => Heard::Yes,
            Look::Absent => Heard::No("it was made, and is not there".into()),
            Look::Unreachable(why) => Heard::No(why),
        };
        self.heed(&heard);
        if heard.is_yes() {
            self.change_part(|part| part.closed = true)?;
        }
        Ok(())
    }
}

/// The rollout that a part was taken up for. What was believed then is believed now: no signature is asked again.
fn rollout_of(part: &Part) -> Option<Rollout> {
    match look::found(&part.proposal, None) {
        Look::Found(Found { fact: Fact::Proposal(proposal), digest, signer, .. }) => {
            Some(Rollout { number: part.rollout, digest, proposal: *proposal, signer })
        }
        _ => None,
    }
}

/// What goes wrong with the node's own disk while others are told is logged: the journal's word stands.
fn logged(what: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot {what}");
    }
}

fn by_fleet(text: impl Into<String>) -> Reason {
    Reason::new(Cause::Fleet, text)
}

impl Agreement for Member<'_> {
    fn clearance(&mut self, record: &Record) -> Result<Clearance, Error> {
        if !self.is_mine(record) {
            return Ok(Clearance::Go { at: None });
        }
        self.follow()?;
        match self.following {
            Some(Following::Synchronous(_)) => self.clearance_synchronous(record),
            Some(Following::Rolling(_)) => self.clearance_rolling(),
            None => Ok(Clearance::Go { at: None }),
        }
    }

    fn may_start(&mut self, record: &Record) -> Result<Start, Error> {
        if !self.is_mine(record) {
            return Ok(Start::Now);
        }
        self.follow()?;
        match self.following {
            Some(Following::Synchronous(_)) => self.may_start_synchronous(record),
            Some(Following::Rolling(_)) | None => Ok(Start::Now),
        }
    }

    fn outcome(&mut self, record: &Record, own: &OwnChecks) -> Result<Verdict, Error> {
        if !self.is_mine(record) {
            return super::agreement::Alone.outcome(record, own);
        }
        self.follow()?;
        match self.following {
            Some(Following::Synchronous(_)) => self.outcome_synchronous(own),
            Some(Following::Rolling(_)) | None => super::agreement::Alone.outcome(record, own),
        }
    }

    fn recalled(&mut self, record: &Record) -> Result<Option<Reason>, Error> {
        if !self.is_mine(record) {
            return Ok(None);
        }
        self.follow()?;
        Ok(match self.following {
            Some(Following::Synchronous(_)) => self.recalled_synchronous(),
            Some(Following::Rolling(_)) | None => None,
        })
    }

    fn moved(&mut self, record: &Record) {
        if !self.is_mine(record) {
            return;
        }
        let told = self.follow().and_then(|()| match self.following {
            Some(Following::Synchronous(_)) => self.moved_synchronous(record),
            Some(Following::Rolling(_)) => self.moved_rolling(record),
            None => Ok(()),
        });
        logged("tell the fleet", told);
    }
}
