//! Between updates: joining, finishing what is left of a rollout, and taking up the next.

use std::path::Path;

use jiff::Timestamp;

use super::super::agreement::Error;
use super::own::{Kept, Part};
use super::{Following, Member, Stage};
use crate::coord::NodeName;
use crate::coord::board::Board;
use crate::coord::facts::{self, Fact, Yes, names};
use crate::coord::look::{self, Found, Look, look, look_signed};
use crate::coord::rolling::Rolling;
use crate::coord::rollout::{Rollout, look_rollout, numbers};
use crate::coord::rules::rolling::{End, Stage as Place};
use crate::coord::rules::synchronous::{Decision, Go, Outcome, Plan, Stage as Step};
use crate::coord::settings::{Mode, Overlap};
use crate::coord::synchronous::{Heard, Synchronous, What};
use crate::sys::disk::Disk;
use crate::types::{ReleaseId, Version};

/// How many proposals are looked at in one run.
const PROPOSALS_MAX: u64 = 1000;

/// What the fleet wants of this node now.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Nothing; what it waits for, if for anything.
    Nothing(Option<String>),
    /// Stage this release for this rollout, and begin the update; or refuse it.
    Rollout {
        /// The rollout.
        number: u64,
        /// What is to run.
        release: ReleaseId,
        /// Whether the rollout demands that it is rehearsed.
        must_rehearse: bool,
    },
    /// The fleet runs this release since a rollout that this node missed: update to it alone.
    CatchUp {
        /// The rollout.
        number: u64,
        /// What the fleet runs.
        release: ReleaseId,
    },
    /// Storage did not answer.
    Unreachable(String),
}

/// How a rollout stands, for somebody who has no part in it yet.
enum Standing {
    Open,
    Kept,
    Over,
}

impl Member<'_> {
    /// Finishes what is left of the last rollout, and looks for the next. Called when no update is under way.
    pub fn take_up(&mut self, running: Option<&ReleaseId>) -> Result<Taken, Error> {
        if let Some(taken) = self.tend()? {
            return Ok(taken);
        }
        self.beat();
        let mut missed = None;
        let mut done = self.kept.own.done;
        let mut is_gapless = true;
        if done == 0 {
            // Those of long ago may be gone.
            match numbers(self.board.as_mut()) {
                Ok(numbers) => done = numbers.first().map_or(0, |first| first.saturating_sub(1)),
                Err(why) => return Ok(Taken::Unreachable(why)),
            }
        }
        for number in done + 1..=done + PROPOSALS_MAX {
            let (fleet, trust) = (self.kept.own.fleet.clone(), self.trust());
            let rollout = match look_rollout(self.board.as_mut(), number, &fleet, trust) {
                Look::Found(rollout) => rollout,
                Look::Absent => break,
                Look::Bad(why) => {
                    tracing::warn!(rollout = number, %why, "a proposal says nothing");
                    is_gapless = false;
                    continue;
                }
                Look::Unreachable(why) => return Ok(Taken::Unreachable(why)),
            };
            let is_member = rollout.place_of(&self.kept.own.node).is_some();
            match self.standing(&rollout) {
                Err(why) => return Ok(Taken::Unreachable(why)),
                Ok(Standing::Open) if is_member => {
                    self.note_done(done)?;
                    return self.begin(rollout, running);
                }
                // Others are at it: what comes after it waits for them.
                Ok(Standing::Open) => break,
                Ok(Standing::Kept) => missed = Some(rollout).filter(|_| is_member).or(missed),
                Ok(Standing::Over) => {}
            }
            if is_gapless {
                done = number;
            }
        }
        self.note_done(done)?;
        Ok(match missed {
            Some(rollout)
                if running.map(|running| running.digest) != Some(rollout.proposal.release.digest) =>
            {
                let wanted = rollout.proposal.release;
                let release = ReleaseId { version: wanted.version, digest: wanted.digest };
                Taken::CatchUp { number: rollout.number, release }
            }
            _ => Taken::Nothing(None),
        })
    }

    fn note_done(&mut self, done: u64) -> Result<(), Error> {
        self.kept.change(|own| own.done = own.done.max(done))
    }

    fn standing(&mut self, rollout: &Rollout) -> Result<Standing, String> {
        let heard = |heard: Heard| match heard {
            Heard::Yes => Ok(()),
            Heard::No(why) => Err(why),
        };
        match rollout.proposal.mode {
            Mode::Independent => Ok(Standing::Over),
            Mode::Synchronous => {
                let mut follow = Synchronous::new(rollout.clone(), usize::MAX);
                heard(follow.read_gates(self.board.as_mut()))?;
                let is_stale = self.clock.wall() > rollout.proposal.expires;
                if is_stale && follow.view.plan.is_none() {
                    let abort = Decision::Plan(Plan::Abort);
                    let by = self.kept.own.node.to_string();
                    heard(follow.decide(self.board.as_mut(), abort, &by, "nobody took it up in time"))?;
                }
                Ok(match (follow.view.plan, follow.view.go, follow.view.outcome) {
                    (Some(Plan::Abort), _, _) | (_, Some(Go::Cancel), _) => Standing::Over,
                    (_, _, Some(Outcome::Keep)) => Standing::Kept,
                    (_, _, Some(Outcome::Rollback { .. })) => Standing::Over,
                    (_, _, None) => Standing::Open,
                })
            }
            Mode::Rolling => {
                let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX) else {
                    return Ok(Standing::Over);
                };
                let trust = self.trust();
                heard(follow.read(self.board.as_mut(), trust))?;
                Ok(match follow.view.end {
                    Some(End::Keep | End::Partial) => Standing::Kept,
                    Some(End::Halted) => Standing::Over,
                    None => Standing::Open,
                })
            }
        }
    }

    /// Takes part: from now on the node remembers it.
    fn begin(&mut self, rollout: Rollout, running: Option<&ReleaseId>) -> Result<Taken, Error> {
        let number = rollout.number;
        let trust = self.trust();
        let text = match look_signed(self.board.as_mut(), &names::proposal(number), trust) {
            Look::Found(Found { digest, text, .. }) if digest == rollout.digest => text,
            Look::Unreachable(why) => return Ok(Taken::Unreachable(why)),
            _ => return Ok(Taken::Unreachable("the proposal has changed".into())),
        };
        let stage = match rollout.proposal.mode {
            Mode::Rolling => Stage::Rolling(Place::Waiting),
            Mode::Synchronous | Mode::Independent => Stage::Synchronous(Step::Idle),
        };
        let part = Part::new(&rollout, text, stage, running.map(|running| running.version.clone()));
        let release = part.release.clone();
        let must_rehearse = rollout.proposal.overlap == Overlap::Rehearsed;
        self.following = None;
        self.kept.change(|own| own.part = Some(part))?;
        // In a rolling rollout a node that has it already is done before it begins.
        Ok(Taken::Rollout { number, release, must_rehearse })
    }

    /// Finishes the rollout that this node has a part in. `None`: there is none, or it is over.
    fn tend(&mut self) -> Result<Option<Taken>, Error> {
        let Some(part) = self.kept.part().cloned() else { return Ok(None) };
        self.follow()?;
        let waiting = |member: &Self| {
            let why = match &member.trouble {
                Some(why) => return Some(Taken::Unreachable(why.clone())),
                None => format!("rollout {} has not ended yet", part.rollout),
            };
            Some(Taken::Nothing(Some(why)))
        };
        let release = part.release.clone();
        let again = |rollout: &Rollout| Taken::Rollout {
            number: rollout.number,
            release: release.clone(),
            must_rehearse: rollout.proposal.overlap == Overlap::Rehearsed,
        };
        let is_over = match (part.stage, &self.following) {
            // Interrupted before anything was changed: the update is begun again.
            (
                Stage::Synchronous(Step::Idle | Step::Voting | Step::Arming { .. }),
                Some(Following::Synchronous(f)),
            ) => {
                return Ok(Some(again(&f.rollout)));
            }
            (Stage::Rolling(Place::Waiting | Place::Taking { .. }), Some(Following::Rolling(f))) => {
                return Ok(Some(again(&f.rollout)));
            }
            (Stage::Synchronous(_), _) => {
                self.see_off()?;
                self.has_ended_synchronous()
            }
            (Stage::Rolling(_), _) => {
                self.advance_rolling()?;
                self.has_ended_rolling()
            }
        };
        self.close()?;
        let is_closed = self.kept.part().is_none_or(|part| part.closed);
        if !is_over || !is_closed {
            return Ok(waiting(self));
        }
        self.following = None;
        self.kept.change(|own| {
            own.done = own.done.max(part.rollout);
            own.part = None;
        })?;
        Ok(None)
    }

    fn has_ended_synchronous(&mut self) -> bool {
        let Self { board, following: Some(Following::Synchronous(follow)), .. } = self else { return false };
        let heard = follow.read_gates(board.as_mut());
        let view = &follow.view;
        let has_ended =
            view.outcome.is_some() || view.go == Some(Go::Cancel) || matches!(view.plan, Some(Plan::Abort));
        self.heed(&heard);
        has_ended
    }

    /// Lets a node that went back by hand follow the fleet again: the last rollout is looked at once more.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.kept.change(|own| own.done = own.done.saturating_sub(1))
    }

    /// Votes no: this node cannot. The others need not wait.
    pub fn refuse(&mut self, why: &str) -> Result<(), Error> {
        self.follow()?;
        let Some(part) = self.kept.part().cloned() else { return Ok(()) };
        let (node, instance) = (self.node(), self.instance());
        let text = why.to_owned();
        self.change_part(|part| part.why = Some(text))?;
        match part.stage {
            Stage::Synchronous(_) => {
                self.enter(Stage::Synchronous(Step::Left))?;
                let Self { board, following: Some(Following::Synchronous(follow)), .. } = self else {
                    return Ok(());
                };
                let (rollout, proposal) = (follow.rollout.number, follow.rollout.digest);
                let vote = Fact::Vote(facts::Vote {
                    rollout,
                    proposal,
                    node: node.clone(),
                    instance,
                    vote: Yes::No,
                    why: Some(why.to_owned()),
                    running: part.running,
                    beside: None,
                });
                let me = follow.view.me;
                let mut heard = follow.tell(board.as_mut(), What::Vote, me, &vote);
                if heard.is_yes() {
                    let why = format!("{node} voted no: {why}");
                    heard = follow.decide(board.as_mut(), Decision::Plan(Plan::Abort), node.as_str(), &why);
                }
                self.heed(&heard);
                self.see_off()?;
            }
            Stage::Rolling(_) => self.enter(Stage::Rolling(Place::Over))?,
        }
        self.close()
    }

    /// The node runs what the rollout wants already: it is done before it begins.
    pub fn has_it_already(&mut self, running: &Version) -> Result<(), Error> {
        let running = Some(running.clone());
        self.change_part(|part| part.running = running)?;
        match self.kept.part().map(|part| part.stage) {
            Some(Stage::Rolling(_)) => {
                self.follow()?;
                self.enter(Stage::Rolling(Place::Done { health: crate::coord::rules::Health::Good }))?;
                self.advance_rolling()?;
                self.close()
            }
            _ => self.refuse("it runs this release already"),
        }
    }
}

/// Makes this node known to the fleet: its directory and entry on storage, and what it remembers.
pub fn join(
    board: &mut dyn Board,
    disk: &Disk,
    path: &Path,
    settings: &crate::coord::Settings,
    node: &NodeName,
    machine: String,
) -> Result<Kept, String> {
    let fleet = match look(board, names::FLEET) {
        Look::Found(Found { fact: Fact::Fleet(fleet), .. }) if fleet.fleet == settings.name => fleet,
        Look::Found(Found { fact: Fact::Fleet(fleet), .. }) => {
            return Err(format!("the directory belongs to fleet `{}`", fleet.fleet));
        }
        Look::Found(_) => return Err("`FLEET` is something else".into()),
        Look::Absent => return Err("no fleet was made there: `cutover fleet init` makes one".into()),
        Look::Bad(why) => return Err(format!("`FLEET` says nothing: {why}")),
        Look::Unreachable(why) => return Err(why),
    };
    let known = Kept::load(disk, path).map_err(|error| error.to_string())?;
    let kept = match known {
        Some(kept) if kept.own.fleet == fleet.id && kept.own.node == *node => kept,
        Some(kept) => {
            return Err(format!(
                "this node is `{}` of another fleet: remove `{}` to join anew",
                kept.own.node,
                path.display()
            ));
        }
        None => Kept::new(disk, path, fleet.id, node.clone(), new_id()),
    };
    // Written first: after a crash the same machine joins again, not a second one.
    kept.keep().map_err(|error| error.to_string())?;
    if let crate::coord::board::Done::Unreachable(why) = board.prepare(&names::node(node)) {
        return Err(why);
    }
    let id = Fact::Id(facts::Id {
        node: node.clone(),
        machine,
        instance: kept.own.instance.clone(),
        groups: settings.groups.clone(),
        key: None,
    });
    match look::put(board, &names::id(node), &id) {
        Look::Found(Found { fact: Fact::Id(found), .. }) if found.instance == kept.own.instance => Ok(kept),
        Look::Found(_) => Err(format!("the name `{node}` is in use by another machine")),
        Look::Absent => Err("the entry was made, and is not there".into()),
        Look::Bad(why) => Err(format!("the entry says nothing: {why}")),
        Look::Unreachable(why) => Err(why),
    }
}

/// 128 random bits, as hex digits.
pub fn new_id() -> String {
    let mut random = [0_u8; 16];
    if getrandom::fill(&mut random).is_err() {
        let now = Timestamp::now().as_nanosecond().to_ne_bytes();
        random.copy_from_slice(&now);
    }
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
