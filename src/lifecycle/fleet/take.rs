//! Between updates: joining, finishing what is left of a rollout, and taking up the next.

use std::path::Path;

use jiff::Timestamp;

use super::super::agreement::Error;
use super::own::{Kept, Last, Part};
use super::rolling::Next;
use super::{Following, Member, Stage};
use crate::coord::NodeName;
use crate::coord::board::{Board, Read};
use crate::coord::facts::{self, Fact, Yes, names};
use crate::coord::look::{self, Found, Look, look, look_signed};
use crate::coord::operate;
use crate::coord::rolling::Rolling;
use crate::coord::rollout::{Rollout, look_rollout, numbers};
use crate::coord::rules::rolling::{End, Stage as Place};
use crate::coord::rules::synchronous::{Decision, Go, Outcome, Plan, Stage as Step};
use crate::coord::settings::{Facts, Mode, Overlap};
use crate::coord::synchronous::{Heard, Synchronous, What};
use crate::sys::disk::Disk;
use crate::types::{ReleaseId, Version};

/// How many proposals are looked at in one run.
const PROPOSALS_MAX: u64 = 1000;

/// What may have happened when a rollout that has ended is gone, and what to do.
const WENT_BACK: &str =
    "the storage went back in time; `cutover fleet repair` puts back what this node has read";

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
    /// The rollout was halted: go back to this release. It is this node's turn.
    GoBack {
        /// The rollout.
        number: u64,
        /// What ran here before.
        version: Version,
    },
    /// The rollout was halted, and this node is to go back when there is a place for it: ask again after this time.
    Queue(std::time::Duration),
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

/// Whom a kept rollout is for.
enum Meant {
    ForMe,
    ForOthers,
    /// This node is in no list.
    Unlisted,
}

impl Member<'_> {
    /// Finishes what is left of the last rollout, and looks for the next. Called when no update is under way.
    pub fn take_up(&mut self, running: Option<&ReleaseId>) -> Result<Taken, Error> {
        if let Some(taken) = self.tend()? {
            return Ok(taken);
        }
        self.beat();
        let mut missed = None;
        let mut done = match self.where_left_off() {
            Ok(done) => done,
            Err(why) => return Ok(Taken::Unreachable(why)),
        };
        let mut is_gapless = true;
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
                Ok(Standing::Kept) => match self.is_meant(&rollout) {
                    Ok(Meant::ForMe) => missed = Some(rollout),
                    Ok(Meant::ForOthers) => {}
                    // It may be listed yet, and is looked at again then.
                    Ok(Meant::Unlisted) => is_gapless = false,
                    Err(why) => return Ok(Taken::Unreachable(why)),
                },
                Ok(Standing::Over) => {}
            }
            if is_gapless {
                done = number;
            }
        }
        match missed.map(|rollout| (rollout.number, rollout.proposal.release)) {
            Some((number, wanted)) if running.map(|running| running.digest) != Some(wanted.digest) => {
                // Not done with before it runs here.
                self.note_done(done.min(number - 1))?;
                let release = ReleaseId { version: wanted.version, digest: wanted.digest };
                Ok(Taken::CatchUp { number, release })
            }
            _ => {
                self.note_done(done)?;
                Ok(Taken::Nothing(None))
            }
        }
    }

    /// The rollout after which this node goes on: the last one that it was done with, or, where those are long gone, the
    /// one before the first that is there.
    fn where_left_off(&mut self) -> Result<u64, String> {
        let done = self.kept.own.done;
        let last = self.kept.own.last.clone().filter(|last| last.rollout == done);
        if done > 0 {
            match (self.board.read(&names::proposal(done)), &last) {
                (Read::Unreachable(why), _) => return Err(why),
                (Read::Absent, _) => {}
                (Read::Bytes(text), Some(last)) if text != last.proposal => {
                    return Err(format!(
                        "rollout {done} is not the one that this node has ended: {WENT_BACK}"
                    ));
                }
                (Read::Bytes(_) | Read::Bad(_), _) => return Ok(done),
            }
        }
        let numbers = numbers(self.board.as_mut())?;
        match numbers.iter().find(|number| **number > done) {
            Some(first) => Ok(first - 1),
            None if last.is_some() => {
                Err(format!("rollout {done}, which this node has ended, is gone: {WENT_BACK}"))
            }
            None => Ok(done),
        }
    }

    /// Whom a rollout that was kept is for: its members, also those that were away, and who was listed later, in a fleet
    /// that had moved as a whole.
    fn is_meant(&mut self, rollout: &Rollout) -> Result<Meant, String> {
        let node = self.kept.own.node.clone();
        if rollout.place_of(&node).is_some() {
            return Ok(Meant::ForMe);
        }
        let (trust, fleet) = (self.trust(), self.kept.own.fleet.clone());
        let is_listed = |list: &[facts::Listed]| list.iter().any(|entry| entry.node == node);
        let now = operate::members(self.board.as_mut(), &fleet, trust).map_err(|error| error.to_string())?;
        if !now.is_some_and(|now| is_listed(&now.members)) {
            return Ok(Meant::Unlisted);
        }
        let then = look_signed(self.board.as_mut(), &names::members(rollout.proposal.members_list), trust);
        let then = match then {
            Look::Found(Found { fact: Fact::Members(then), .. }) if then.fleet == fleet => then.members,
            Look::Unreachable(why) => return Err(why),
            Look::Found(_) | Look::Absent | Look::Bad(_) => return Ok(Meant::ForOthers),
        };
        let was_whole = then.iter().all(|entry| rollout.place_of(&entry.node).is_some());
        Ok(if was_whole && !is_listed(&then) { Meant::ForMe } else { Meant::ForOthers })
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
                let mut follow = Synchronous::new(rollout.clone(), usize::MAX, self.voice());
                heard(follow.read_gates(self.board.as_mut()))?;
                let is_stale = self.clock.wall() > rollout.proposal.expires;
                // Where members sign, the word of others does not count.
                let may_speak = !rollout.is_signed() || rollout.place_of(&self.kept.own.node).is_some();
                if is_stale && may_speak && follow.view.plan.is_none() {
                    let abort = Decision::Plan(Plan::Abort);
                    let by = self.kept.own.node.to_string();
                    let (now, why) = (self.clock.wall(), "nobody took it up in time");
                    heard(follow.decide(self.board.as_mut(), abort, now, &by, why))?;
                }
                Ok(match (follow.view.plan, follow.view.go, follow.view.outcome) {
                    (Some(Plan::Abort), _, _) | (_, Some(Go::Cancel), _) => Standing::Over,
                    (_, _, Some(Outcome::Keep)) => Standing::Kept,
                    (_, _, Some(Outcome::Rollback { .. })) => Standing::Over,
                    (_, _, None) => Standing::Open,
                })
            }
            Mode::Rolling => {
                let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, self.voice()) else {
                    return Ok(Standing::Over);
                };
                heard(follow.read(self.board.as_mut()))?;
                Ok(match follow.view.end.filter(|_| follow.is_settled()) {
                    Some(End::Keep) => Standing::Kept,
                    // Those whom it has not reached wait for the next one.
                    Some(End::Partial | End::Halted) => Standing::Over,
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
        let why_not = self.unsigned(&rollout);
        self.kept.change(|own| own.part = Some(part))?;
        if let Some(why) = why_not {
            self.refuse(&why)?;
            return Ok(Taken::Nothing(Some(format!("rollout {number}: {why}"))));
        }
        // In a rolling rollout a node that has it already is done before it begins.
        Ok(Taken::Rollout { number, release, must_rehearse })
    }

    /// Why this node's word would not count in a rollout, or others' words would be worth less than its settings want.
    fn unsigned(&self, rollout: &Rollout) -> Option<String> {
        let listed = rollout.proposal.keys.get(&self.kept.own.node);
        match (listed, &self.kept.own.key) {
            (None, _) if self.settings.facts == Facts::Signed => Some(
                "`fleet.facts` is `signed` here, and the proposal does not name the members' keys".into(),
            ),
            (Some(listed), own) if own.as_ref() != Some(listed) => {
                Some("the proposal names another key than this node has".into())
            }
            _ => None,
        }
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
            (Stage::Rolling(_), Some(Following::Rolling(_))) => {
                match (self.advance_rolling()?, part.before) {
                    (Next::GoBack, Some(version)) => {
                        return Ok(Some(Taken::GoBack { number: part.rollout, version }));
                    }
                    _ if self.must_go_back() => return Ok(Some(Taken::Queue(self.pause_rolling()))),
                    _ => self.has_ended_rolling(),
                }
            }
            (Stage::Synchronous(_), _) => {
                self.see_off()?;
                self.has_ended_synchronous()
            }
            (Stage::Rolling(_), _) => false,
        };
        self.close()?;
        let is_closed = self.kept.part().is_none_or(|part| part.closed);
        if !is_over || !is_closed {
            return Ok(waiting(self));
        }
        // Without this node, but for it: it catches up, unless somebody put it where it is.
        let is_missed = self.was_kept() && !part.by_hand;
        self.following = None;
        self.kept.change(|own| {
            own.done = own.done.max(part.rollout - u64::from(is_missed));
            if let Some(part) = own.part.take() {
                own.last = Some(Last { rollout: part.rollout, proposal: part.proposal, gates: part.gates });
            }
        })?;
        Ok(None)
    }

    fn must_go_back(&self) -> bool {
        let is_done =
            matches!(self.kept.part().map(|part| part.stage), Some(Stage::Rolling(Place::Done { .. })));
        match &self.following {
            Some(Following::Rolling(follow)) => is_done && follow.view.must_undo(follow.limits()),
            Some(Following::Synchronous(_)) | None => false,
        }
    }

    fn was_kept(&self) -> bool {
        match &self.following {
            Some(Following::Synchronous(follow)) => follow.view.outcome == Some(Outcome::Keep),
            Some(Following::Rolling(follow)) => follow.view.end == Some(End::Keep),
            None => false,
        }
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
        let (node, instance, now) = (self.node(), self.instance(), self.clock.wall());
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
                    let abort = Decision::Plan(Plan::Abort);
                    heard = follow.decide(board.as_mut(), abort, now, node.as_str(), &why);
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
    key: Option<String>,
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
    let mut kept = kept;
    kept.own.key.clone_from(&key);
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
        key,
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
