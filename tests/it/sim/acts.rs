//! What persons, machines and disks do to a fleet in the middle of a rollout, and what an operator does about it in the end.

use cutover::coord::facts::names;
use cutover::coord::operate;
use cutover::coord::rules::synchronous::{Decision, Outcome, Plan};
use cutover::coord::settings::Mode;
use cutover::coord::synchronous::Synchronous;
use cutover::lifecycle::fleet::{Here, Kept};
use cutover::sys::disk::Disk;
use cutover::types::Digest;
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
            Act::Abort => self.abort(0),
            Act::Void => self.end_by_hand(),
            Act::FarInstant => self.decide_far_ahead(),
            Act::Waive => self.waive(number),
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
            Act::Abort | Act::Void | Act::Waive | Act::Replace => {}
            Act::FarInstant => self.abort(0),
            Act::Rot => {
                self.abort(0);
                self.waive_what_says_nothing();
            }
            Act::Clone => {
                for copy in self.nodes.iter_mut().filter(|node| node.is_extra) {
                    copy.lose();
                }
                // Two were at work under this name: it stays out until a person has looked.
                self.abort(0);
            }
            // Whose tickets are lost nobody can tell: then nobody takes one any more, not for going back either.
            Act::Restore => {
                self.repair();
                self.end_by_hand();
            }
            Act::Hold => self.nodes[number].hold(false),
            Act::Refuse => self.nodes[number].luck = Luck::Good,
            Act::Step => self.nodes[number].life.set_skew(0),
        }
    }

    /// Storage may be silent just then, or the rollout gone or ended: the operator has tried.
    fn abort(&self, ahead_ms: i64) {
        let _ = self.operate(|operator, now: Timestamp| {
            let made = operate::fleet(operator.board, "simulated")?;
            let rollout = operator.rollout(&made, 1)?;
            let now = now + SignedDuration::from_millis(ahead_ms);
            operator.abort(&rollout, "an operator wants it", now)
        });
    }

    fn end_by_hand(&self) {
        let _ = self.operate(|operator, now| {
            let made = operate::fleet(operator.board, "simulated")?;
            let rollout = operator.rollout(&made, 1)?;
            operator.void(&rollout, "an operator wants it", now)
        });
    }

    /// The next gate that holds an instant is put with one that nobody may wait for.
    fn decide_far_ahead(&self) {
        const YEARS: i64 = 10 * 365 * 86_400_000;
        if self.settings.mode == Mode::Rolling {
            return self.abort(YEARS);
        }
        let _ = self.operate(|operator, now: Timestamp| {
            let made = operate::fleet(operator.board, "simulated")?;
            let rollout = operator.rollout(&made, 1)?;
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
            Ok::<_, operate::Error>(())
        });
    }

    fn waive(&self, number: usize) {
        let node = self.nodes[number].name.parse().unwrap();
        let _ = self.operate(|operator, now| {
            let made = operate::fleet(operator.board, "simulated")?;
            let rollout = operator.rollout(&made, 1)?;
            operator.waive(&rollout, &node, "it is away", now)
        });
    }

    /// Tickets of nobody keep their places until somebody says otherwise.
    fn waive_what_says_nothing(&self) {
        for ticket in 0..3 {
            if self.storage.lock().unwrap().decided(1, &format!("t.{ticket:04}")) == Some(String::new()) {
                let _ = self.operate(|operator, now| {
                    let made = operate::fleet(operator.board, "simulated")?;
                    let rollout = operator.rollout(&made, 1)?;
                    operator.waive_ticket(&rollout, ticket, "it says nothing", now)
                });
            }
        }
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

    fn clone_disk(&mut self, number: usize) {
        let place = format!("{}-copy", self.nodes[number].name);
        if let Some(copy) = self.nodes[number].clone_disk(&place) {
            self.nodes.push(copy);
        }
    }

    fn restore(&mut self) {
        let Some((names, directories)) = self.backup.clone() else { return };
        let mut storage = self.storage.lock().unwrap();
        storage.restore(names, directories);
    }

    /// `fleet repair` on every node, before anybody goes on.
    fn repair(&self) {
        let mut storage = self.storage.lock().unwrap();
        for node in &self.nodes {
            let Ok(Some(kept)) = Kept::load(&Disk::default(), &node.path) else { continue };
            let last = kept.own.last.as_ref().map(|last| (last.rollout, &last.proposal, &last.gates));
            let open = kept.part().map(|part| (part.rollout, &part.proposal, &part.gates));
            for (number, proposal, gates) in last.into_iter().chain(open) {
                let decisions =
                    names::Decisions { rollout: number, proposal: Digest::of(proposal.as_bytes()) };
                if self.settings.mode != Mode::Rolling {
                    storage.directories.insert(decisions.directory());
                }
                storage.put(&names::proposal(number), proposal);
                gates.iter().for_each(|(gate, text)| storage.put(&decisions.gate(gate), text));
            }
        }
    }

    /// A decision that nobody has made yet, or a fact of this node, is damaged where it will stand.
    fn rot(&mut self, number: usize, random: &mut Random) {
        let mut storage = self.storage.lock().unwrap();
        let node = self.nodes[number].name.parse().unwrap();
        let wanted: &[&str] = match self.settings.mode {
            Mode::Rolling => &["outcome", "halt", "t.0000", "t.0001", "t.0002", "report"],
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
    fn successor(&mut self) -> Self {
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
        copy.is_extra = true;
        Some(copy)
    }
}
