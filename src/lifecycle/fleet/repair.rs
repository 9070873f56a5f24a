//! Puts back on storage that went back in time, or has torn a file, what this node has read.
//!
//! The proposal comes last: whoever finds it finds what was decided of it, too. A node that has not read how the rollout under
//! way ended puts back what it has read of it, and no proposal, for another node may have read the end: only when all have
//! put back what they had is it opened again.
//!
//! Tickets cannot be put back, for nobody knows them all. So a rolling rollout whose end this node has not read is ended by a void before its proposal is there again:
//! else somebody would take a ticket while the owners of lost ones are out of service.
//!
//! Something else may have been decided since the storage went back: a node that had only vouched when the backup was made misses
//! nothing there. The plan or the go that it puts brings nobody to switch, for that takes the word of all, and whoever remembers
//! another gives none. So at most one of the two ends was "kept". That one holds: who went back by the other follows it later,
//! and nobody who kept goes back.

use std::collections::BTreeMap;

use super::own::{Kept, gate_of, is_gate};
use super::rollout_of_text;
use crate::coord::board::{Created, Done, Listed, Read};
use crate::coord::facts::names::Decisions;
use crate::coord::facts::{Fact, OutcomeDecision, names};
use crate::coord::look::{self, Found, Look};
use crate::coord::operate::{self, Operator};
use crate::coord::rollout::Rollout;
use crate::coord::rules::gate::{self, Gate};
use crate::coord::standing::{Ended, How, Standing};
use crate::coord::synchronous::Synchronous;
use crate::types::Digest;

/// Gates, and their files.
type Gates = BTreeMap<String, String>;

/// What `repair` did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// These names were missing.
    pub put_back: Vec<String>,
    /// These rollouts were under way, cannot go on, and have ended by a void.
    pub ended: Vec<u64>,
    /// This one is under way, its tickets are lost, and an operator must end it.
    pub to_void: Option<u64>,
}

/// Why nothing, or not all, was put back.
#[derive(Debug)]
pub enum Trouble {
    /// Somebody has proposed under the number of one that was lost.
    Usurped(u64),
    /// Something else stands under this name of this rollout.
    Damaged(String, u64),
    /// How this rollout ended, if it did, another node may know.
    MayHaveEnded(u64),
    /// The rollout must be ended, and this node has no key that may.
    NoKey(u64),
    /// The storage did not answer, or did not do it.
    Storage(operate::Error),
}

impl From<operate::Error> for Trouble {
    fn from(error: operate::Error) -> Self {
        Self::Storage(error)
    }
}

fn unreachable(why: String) -> Trouble {
    Trouble::Storage(operate::Error::Unreachable(why))
}

/// Puts back what this node has read of the rollout that it ended last, and of the one that it has a part in. `reopens`: no
/// other node knows more of it.
pub fn repair(operator: &mut Operator<'_>, kept: &Kept, reopens: bool) -> Result<Repaired, Trouble> {
    let last = kept.own.last.as_ref().map(|last| (last.rollout, &last.proposal, &last.gates, None));
    let open = kept.part().map(|part| (part.rollout, &part.proposal, &part.gates, part.told.as_ref()));
    let mut repaired = Repaired::default();
    for (number, proposal, gates, told) in last.into_iter().chain(open) {
        let is_gone = match operator.board.read(&names::proposal(number)) {
            Read::Bytes(there) if there != *proposal && says_something(&names::proposal(number), &there) => {
                return Err(Trouble::Usurped(number));
            }
            Read::Bytes(_) | Read::Bad(_) => false,
            Read::Absent => true,
            Read::Unreachable(why) => return Err(unreachable(why)),
        };
        let decisions = Decisions { rollout: number, proposal: Digest::of(proposal.as_bytes()) };
        let has_directory = matches!(operator.board.list(&decisions.directory()), Listed::Names(_));
        let rollout = rollout_of_text(number, proposal, &kept.pages());
        let takes_turns = rollout.as_ref().is_some_and(|rollout| rollout.proposal.mode.takes_turns());
        let may_be_open = takes_turns && !gates.contains_key("outcome");
        let is_under_way = kept.part().is_some_and(|part| part.rollout == number);
        if let Some(rollout) = &rollout
            && has_diverged(operator, &decisions, gates)?
        {
            settle(operator, rollout, gates, reopens, &mut repaired)?;
            put_back(operator, names::proposal(number), proposal, number, &mut repaired)?;
            continue;
        }
        let has_lost = is_gone || has_lost_facts(operator, &decisions, gates, told)?;
        let is_end_known = rollout.as_ref().is_some_and(|rollout| end_of(rollout, gates, operator).is_some());
        if has_lost && is_under_way && !reopens && !is_end_known {
            // While the proposal is gone nobody decides by them; else the gates that are gone keep all from it.
            if is_gone {
                put_back_gates(operator, &decisions, gates, &mut repaired)?;
            }
            return Err(Trouble::MayHaveEnded(number));
        }
        match rollout.filter(|_| may_be_open && is_gone) {
            Some(rollout) if may_end(operator) => {
                operator
                    .end_what_was_lost(&rollout, "the storage went back in time, and tickets are lost")?;
                repaired.ended.push(number);
            }
            Some(_) if has_directory => return Err(Trouble::NoKey(number)),
            // Without their directory nobody takes a ticket either.
            Some(_) => repaired.to_void = Some(number),
            None if may_be_open && !has_directory => repaired.to_void = Some(number),
            None => {
                if let Done::Unreachable(why) = operator.board.prepare(&decisions.directory()) {
                    return Err(unreachable(why));
                }
            }
        }
        put_back_gates(operator, &decisions, gates, &mut repaired)?;
        if let Some((name, text)) = told {
            put_back(operator, name.clone(), text, number, &mut repaired)?;
        }
        put_back(operator, names::proposal(number), proposal, number, &mut repaired)?;
    }
    Ok(repaired)
}

/// The gates of a rollout that this node has read: names, and files.
pub fn read_of(kept: &Kept, rollout: &Rollout) -> Gates {
    let decisions = rollout.decisions();
    let part = kept.part().filter(|_| kept.proposal_digest() == Some(rollout.digest)).map(|part| &part.gates);
    let last = kept.own.last.as_ref();
    let last =
        last.filter(|last| Digest::of(last.proposal.as_bytes()) == rollout.digest).map(|last| &last.gates);
    let gates = part.into_iter().chain(last).flatten();
    gates.map(|(gate, text)| (decisions.gate(gate), text.clone())).collect()
}

/// Whether this node has read that the rollout was kept.
pub fn has_read_keep(kept: &Kept, rollout: &Rollout) -> bool {
    let name = rollout.decisions().gate(Gate::Outcome.name());
    let text = read_of(kept, rollout).remove(&name);
    let found = text.map(|text| look::found(&name, &text, None));
    let Some(Look::Found(Found { fact: Fact::Outcome(said), .. })) = found else { return false };
    said.decision == OutcomeDecision::Keep
}

/// How a rollout ended, by the gates that this node has read.
fn end_of(rollout: &Rollout, gates: &Gates, operator: &Operator<'_>) -> Option<How> {
    if rollout.proposal.mode.takes_turns() {
        let name = rollout.decisions().gate(Gate::Outcome.name());
        return match look::found(&name, gates.get(Gate::Outcome.name())?, None) {
            Look::Found(Found { fact: Fact::Outcome(said), .. }) => Some(said.decision.end().into()),
            _ => None,
        };
    }
    let mut follow = Synchronous::new(rollout.clone(), usize::MAX, operator.voice());
    for gate in Gate::ALL {
        if let Some(text) = gates.get(gate.name()) {
            follow.remember_gate(gate, text);
        }
    }
    gate::ended(&follow.view).map(How::from)
}

/// The gates, without what may be said again: a halt, and waivers.
fn decided_once(gates: &Gates) -> impl Iterator<Item = (&String, &String)> {
    gates.iter().filter(|(name, _)| is_gate(name))
}

/// Whether a gate there says something else than this node has read.
fn has_diverged(operator: &mut Operator<'_>, decisions: &Decisions, gates: &Gates) -> Result<bool, Trouble> {
    for (gate, text) in decided_once(gates) {
        let name = decisions.gate(gate);
        match operator.board.read(&name) {
            Read::Bytes(there) if there != *text && says_something(&name, &there) => return Ok(true),
            Read::Bytes(_) | Read::Bad(_) | Read::Absent => {}
            Read::Unreachable(why) => return Err(unreachable(why)),
        }
    }
    Ok(false)
}

/// Makes one end of the two. `reopens`: no other node knows more of it than this one.
fn settle(
    operator: &mut Operator<'_>,
    rollout: &Rollout,
    gates: &Gates,
    reopens: bool,
    repaired: &mut Repaired,
) -> Result<(), Trouble> {
    let number = rollout.number;
    match (end_of(rollout, gates, operator), operator.standing(rollout)?) {
        (_, Standing::Ended(Ended { how: How::Kept | How::Void, .. })) => Ok(()),
        (Some(How::Kept), _) => replace(operator, &rollout.decisions(), gates, repaired),
        // Both say that it was not kept, and what that undoes its members see to.
        (Some(_), Standing::Ended(_)) => Ok(()),
        (Some(_), _) if rollout.proposal.mode.takes_turns() => Ok(()),
        (None, _) if !reopens => Err(Trouble::MayHaveEnded(number)),
        _ if !may_end(operator) => Err(Trouble::NoKey(number)),
        _ => {
            let why = "the storage went back in time, and something else was decided since";
            operator.end_what_was_lost(rollout, why)?;
            repaired.ended.push(number);
            Ok(())
        }
    }
}

/// Puts all gates as they were read, in the place of what stands there. How it ended comes first, the plan last: what a reader
/// finds in between is the old plan, or nothing that fits.
fn replace(
    operator: &mut Operator<'_>,
    decisions: &Decisions,
    gates: &Gates,
    repaired: &mut Repaired,
) -> Result<(), Trouble> {
    let mut all: Vec<_> = decided_once(gates).collect();
    all.sort_by_key(|(name, _)| std::cmp::Reverse(gate_of(name)));
    for (gate, text) in all {
        let name = decisions.gate(gate);
        match operator.board.read(&name) {
            Read::Bytes(there) if there == *text => continue,
            Read::Unreachable(why) => return Err(unreachable(why)),
            Read::Bytes(_) | Read::Bad(_) | Read::Absent => {}
        }
        match operator.board.beat(&name, text) {
            Done::Done => repaired.put_back.push(name),
            Done::Unreachable(why) => return Err(unreachable(why)),
        }
    }
    Ok(())
}

/// Whether this operator's word ends a rollout.
fn may_end(operator: &Operator<'_>) -> bool {
    operator.signer.is_some() || operator.trust.allow_unsigned
}

fn has_lost_facts(
    operator: &mut Operator<'_>,
    decisions: &Decisions,
    gates: &Gates,
    told: Option<&(String, String)>,
) -> Result<bool, Trouble> {
    let names =
        decided_once(gates).map(|(gate, _)| decisions.gate(gate)).chain(told.map(|(name, _)| name.clone()));
    for name in names {
        match operator.board.read(&name) {
            Read::Bytes(_) | Read::Bad(_) => {}
            Read::Absent => return Ok(true),
            Read::Unreachable(why) => return Err(unreachable(why)),
        }
    }
    Ok(false)
}

/// Whether a file is one of a fleet's, whatever it says: one that is torn is nobody's word.
fn says_something(name: &str, text: &str) -> bool {
    !matches!(look::found(name, text, None), Look::Bad(_))
}

fn put_back_gates(
    operator: &mut Operator<'_>,
    decisions: &Decisions,
    gates: &Gates,
    repaired: &mut Repaired,
) -> Result<(), Trouble> {
    if gates.is_empty() {
        return Ok(());
    }
    if let Done::Unreachable(why) = operator.board.prepare(&decisions.directory()) {
        return Err(unreachable(why));
    }
    // How it ended comes first: who finds the others must find that, too.
    let mut all: Vec<_> = decided_once(gates).collect();
    all.sort_by_key(|(gate, _)| gate_of(gate) != Some(Gate::Outcome));
    // Where somebody has said it again, that counts as well.
    for (name, text) in gates.iter().filter(|(name, _)| !is_gate(name)) {
        if operator.board.read(&decisions.gate(name)) == Read::Absent {
            all.push((name, text));
        }
    }
    all.into_iter().try_for_each(|(gate, text)| {
        put_back(operator, decisions.gate(gate), text, decisions.rollout, repaired)
    })
}

fn put_back(
    operator: &mut Operator<'_>,
    name: String,
    text: &str,
    number: u64,
    repaired: &mut Repaired,
) -> Result<(), Trouble> {
    match operator.board.read(&name) {
        Read::Bytes(there) if there == text => return Ok(()),
        Read::Bytes(there) if says_something(&name, &there) => return Err(Trouble::Damaged(name, number)),
        // Torn: what stood there is known, and nothing else can have.
        Read::Bytes(_) | Read::Bad(_) => {
            return match operator.board.beat(&name, text) {
                Done::Done => {
                    repaired.put_back.push(name);
                    Ok(())
                }
                Done::Unreachable(why) => Err(unreachable(why)),
            };
        }
        Read::Absent => {}
        Read::Unreachable(why) => return Err(unreachable(why)),
    }
    match operator.board.create(&name, text) {
        Created::Mine => {
            repaired.put_back.push(name);
            Ok(())
        }
        Created::Theirs(_) => Err(Trouble::Damaged(name, number)),
        Created::Refused(why) | Created::Unknown(why) => Err(unreachable(why)),
    }
}
