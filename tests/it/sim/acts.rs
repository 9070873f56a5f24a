//! What persons, machines and disks do to a fleet in the middle of a rollout, and what an operator does about it in the end.

use std::cell::Cell;

use cutover::coord::facts::names;
use cutover::coord::operate::{self, Operator};
use cutover::coord::rollout::Rollout;
use cutover::coord::rules::rolling::At;
use cutover::coord::rules::synchronous::{Decision, Outcome, Plan};
use cutover::coord::settings::Mode;
use cutover::coord::synchronous::Synchronous;
use cutover::lifecycle::fleet::{Here, Kept, Trouble, repair};
use cutover::sys::disk::Disk;
use jiff::{SignedDuration, Timestamp};

use super::Fleet;
use super::chaos::{Life, Random};
use super::node::{Luck, SimNode, release};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// An operator stops it, with any clock.
    Abort,
    /// An operator ends it, whatever stands there.
    Void,
    /// Somebody writes an instant that lies years ahead.
    FarInstant,
    /// A node is waived.
    Waive,
    /// The name of a node is freed, and another machine joins under it.
    Replace,
    /// A node's disk is copied, and both are switched on.
    Clone,
    /// Storage is restored from a backup that does not have the rollout.
    Restore,
    /// A fact says nothing, for ever.
    Rot,
    /// A node is put on hold.
    Hold,
    /// A node says that it cannot; later it can.
    Refuse,
    /// The clock of a node steps.
    Step,
}

const ACTS: [Act; 11] = [
    Act::Abort,
    Act::Void,
    Act::FarInstant,
    Act::Waive,
    Act::Replace,
    Act::Clone,
    Act::Restore,
    Act::Rot,
    Act::Hold,
    Act::Refuse,
    Act::Step,
];

/// So often an operator tries, once a second: longer than storage is silent.
const TRIES: usize = 600;

impl Act {
    pub fn any(random: &mut Random) -> Self {
        *random.one_of(&ACTS)
    }
}

impl Fleet {
    /// What storage holds now, as a backup has it.
    pub fn back_up(&mut self) {
        let storage = self.storage.lock().unwrap();
        self.backup = Some((storage.names.clone(), storage.directories.clone()));
    }

    /// It happens to the node of this number.
    pub fn happen(&mut self, act: Act, number: usize, random: &mut Random) {
        match act {
            // Storage may be silent just then, or the rollout gone or ended: the operator has tried.
            Act::Abort => drop(self.abort(0)),
            Act::Void => drop(self.end_by_hand()),
            Act::FarInstant => drop(self.decide_far_ahead()),
            Act::Waive => drop(self.waive(number)),
            Act::Replace => self.replace(number),
            Act::Clone => self.clone_disk(number),
            Act::Restore => self.restore(),
            Act::Rot => self.rot(number, random),
            Act::Hold => self.nodes[number].hold(true),
            Act::Refuse => self.nodes[number].luck = Luck::Unstageable,
            Act::Step => self.nodes[number].life.set_skew(random.below(400_000) - 200_000),
        }
    }

    /// Faults have ended: holds are over, clocks are set, copies are switched off, and an operator ends what nobody else can.
    pub fn mend(&mut self, act: Act, number: usize) {
        match act {
            Act::Abort | Act::Void | Act::Waive => {}
            // As `fleet replace` says: the rollout may wait for the machine that was there.
            Act::Replace if self.settings.mode == Mode::Rolling => {
                let is_waived = Cell::new(false);
                self.insist(|fleet| {
                    if !fleet.sees_the_end()? {
                        fleet.waive(number)?;
                        is_waived.set(true);
                    }
                    Ok(())
                });
                self.nodes[number].is_waived |= is_waived.get();
            }
            Act::Replace => {}
            Act::FarInstant => self.insist(|fleet| fleet.abort(0)),
            Act::Rot => {
                self.insist(|fleet| fleet.abort(0));
                self.insist(Self::waive_what_says_nothing);
            }
            Act::Clone => {
                for copy in self.nodes.iter_mut().filter(|node| node.is_extra) {
                    copy.lose();
                }
                // Two were at work under this name: it stays out until a person has looked.
                self.insist(|fleet| fleet.abort(0));
            }
            Act::Restore => self.repair(),
            Act::Hold => self.nodes[number].hold(false),
            Act::Refuse => self.nodes[number].luck = Luck::Good,
            Act::Step => self.nodes[number].life.set_skew(0),
        }
    }

    /// Does what an operator does, and again while the storage is silent.
    fn insist(&mut self, act: impl Fn(&Self) -> Result<(), operate::Error>) {
        for _ in 0..TRIES {
            match act(self) {
                Err(operate::Error::Unreachable(_)) => {
                    let until = self.time() + 1000;
                    self.run(until);
                    self.advance_to(until);
                }
                Ok(()) | Err(operate::Error::Refused(_) | operate::Error::Lost { .. }) => return,
            }
        }
        panic!("seed {}: storage never answers the operator\n{}", self.seed, self.why());
    }

    /// The simulated rollout, and an operator before it.
    fn with_rollout(
        &self,
        act: impl FnOnce(&mut Operator<'_>, Rollout, Timestamp) -> Result<(), operate::Error>,
    ) -> Result<(), operate::Error> {
        self.operate(|operator, now| {
            let made = operate::fleet(operator.board, "simulated")?;
            let rollout = operator.rollout(&made, 1)?;
            act(operator, rollout, now)
        })
    }

    pub fn abort(&self, ahead_ms: i64) -> Result<(), operate::Error> {
        self.with_rollout(|operator, rollout, now| {
            let now = now + SignedDuration::from_millis(ahead_ms);
            operator.abort(&rollout, "an operator wants it", now).map(|_| ())
        })
    }

    fn end_by_hand(&self) -> Result<(), operate::Error> {
        self.with_rollout(|operator, rollout, now| {
            operator.void(&rollout, "an operator wants it", now).map(|_| ())
        })
    }

    /// The next gate that holds an instant is put with one that nobody may wait for.
    fn decide_far_ahead(&self) -> Result<(), operate::Error> {
        const YEARS: i64 = 10 * 365 * 86_400_000;
        if self.settings.mode.takes_turns() {
            return self.abort(YEARS);
        }
        self.with_rollout(|operator, rollout, now| {
            let mut follow = Synchronous::new(rollout, usize::MAX, operator.voice());
            let _ = follow.read_gates(operator.board);
            let at = now.as_millisecond() + YEARS;
            let decision = match follow.view.plan {
                // Somebody else's hand: where all have voted this is a plan, and before it is one that rests on nothing.
                None => Decision::Plan(Plan::Commit { at }),
                Some(_) => Decision::Outcome(Outcome::Rollback { at }),
            };
            if follow.view.plan.is_none() || follow.view.go.is_some() {
                let _ = follow.decide(operator.board, decision, now, "a far clock", "");
            }
            Ok(())
        })
    }

    pub fn waive(&self, number: usize) -> Result<(), operate::Error> {
        let node = self.nodes[number].name.parse().unwrap();
        self.with_rollout(|operator, rollout, now| operator.waive(&rollout, &node, "it is away", now))
    }

    /// A node of which there were two does nothing until a person has said which one it is; nobody waits for that.
    pub fn waive_twins(&self) {
        for twin in self.nodes.iter().filter(|node| node.is_extra && node.is_lost) {
            let number = self.nodes.iter().position(|node| node.name == twin.name);
            let _ = number.map(|number| self.waive(number));
        }
    }

    /// Tickets of nobody, and those whose report says nothing, keep their places until somebody says otherwise.
    fn waive_what_says_nothing(&self) -> Result<(), operate::Error> {
        for (number, node) in self.nodes.iter().enumerate() {
            let report = names::own(&node.name.parse().unwrap(), 1, "report");
            let says_nothing =
                self.storage.lock().unwrap().names.get(&report).is_some_and(|(text, _)| text.is_empty());
            if says_nothing && self.settings.mode == Mode::Rolling {
                self.waive(number)?;
            }
        }
        let spoilt = |name: &String| {
            let name = name.rsplit_once('/').filter(|(above, _)| above.contains("/000001."))?.1;
            let (row, number) = names::ticket_of(name)?;
            Some(At { row: row.unwrap_or(0), number })
        };
        let tickets: Vec<At> = {
            let storage = self.storage.lock().unwrap();
            let empty = storage.names.iter().filter(|(_, (text, _))| text.is_empty());
            empty.filter_map(|(name, _)| spoilt(name)).collect()
        };
        for at in tickets {
            self.with_rollout(|operator, rollout, now| {
                operator.waive_ticket(&rollout, at, "it says nothing", now)
            })?;
        }
        Ok(())
    }

    fn replace(&mut self, number: usize) {
        let node = self.nodes[number].name.parse().unwrap();
        let freed = self.operate(|operator, _| {
            let made = operate::fleet(operator.board, "simulated")?;
            operator.replace(&made, &node, "a new disk")
        });
        if freed.is_err() {
            return;
        }
        let successor = self.nodes[number].successor();
        self.nodes.push(successor);
        let _ = self.join(self.nodes.len() - 1);
    }

    pub fn clone_disk(&mut self, number: usize) {
        let place = format!("{}-copy", self.nodes[number].name);
        if let Some(copy) = self.nodes[number].clone_disk(&place) {
            self.nodes.push(copy);
        }
    }

    pub fn restore(&mut self) {
        let Some((names, directories)) = self.backup.clone() else { return };
        let mut storage = self.storage.lock().unwrap();
        storage.restore(names, directories);
    }

    /// `fleet repair` on every node, one after the other, while they go on; and where nobody has put the rollout back, once
    /// more with `--reopen`.
    pub fn repair(&mut self) {
        for reopens in [false, true] {
            for number in 0..self.nodes.len() {
                self.insist(|fleet| {
                    let node = &fleet.nodes[number];
                    let Ok(Some(kept)) = Kept::load(&Disk::default(), &node.path) else { return Ok(()) };
                    match fleet.operate(|operator, _| repair(operator, &kept, reopens)) {
                        Ok(_) => Ok(()),
                        Err(Trouble::MayHaveEnded(_)) if !reopens => Ok(()),
                        Err(Trouble::Storage(error)) => Err(error),
                        Err(trouble) => {
                            panic!("seed {}: {}: {trouble:?}\n{}", fleet.seed, node.name, fleet.why())
                        }
                    }
                });
            }
        }
    }

    /// A decision that nobody has made yet, or a fact of this node, is damaged where it will stand.
    fn rot(&mut self, number: usize, random: &mut Random) {
        let mut storage = self.storage.lock().unwrap();
        let node = self.nodes[number].name.parse().unwrap();
        let wanted: &[&str] = match self.settings.mode {
            Mode::Rolling => &["outcome", "halt", "t.0000.0000", "t.0000.0001", "t.0001.0000", "report"],
            Mode::Cells => {
                &["outcome", "halt", "t.0000", "t.0001", "plan.c0", "go.c0", "outcome.c1", "vote", "report"]
            }
            Mode::Synchronous | Mode::Independent => &["plan", "go", "outcome", "vote", "armed", "report"],
        };
        let what = *random.one_of(wanted);
        let is_own = ["vote", "armed", "report"].contains(&what);
        let name = if is_own { names::own(&node, 1, what) } else { storage.decision(1, what) };
        if !storage.names.contains_key(&name) {
            storage.put(&name, "");
        }
    }
}

impl SimNode {
    /// A new machine that goes by the same name, with an empty disk.
    pub fn successor(&mut self) -> Self {
        let name = self.name.clone();
        let path = self.path.with_file_name(format!("{name}-next"));
        let mut next = Self::new(
            name,
            Life::new(self.life.shared()),
            self.storage.clone(),
            self.chaos,
            self.random.fork(),
            self.settings.clone(),
            path,
            Luck::Good,
        );
        next.here = Here { place: "next".into(), ..self.here.clone() };
        next.wake = self.life.now();
        next.is_extra = true;
        next
    }

    /// A copy of its disk, as it stands; nothing where the new release runs already: that is the same node twice for good.
    fn clone_disk(&mut self, place: &str) -> Option<Self> {
        if self.pointer != release("1") || !self.path.exists() {
            return None;
        }
        let mut copy = self.copy(place);
        copy.journal.clone_from(&self.journal);
        // Whoever is switched on with it goes on where a process has ended.
        copy.die();
        copy.is_extra = true;
        Some(copy)
    }
}
