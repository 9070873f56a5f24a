//! How somebody speaks on the board of a rollout, and whom they believe.
//!
//! Where the proposal names the keys of its members, a member's fact counts only under that member's signature, and a
//! gate that says "no" only under the signature of a member or an operator. A gate that says "yes" is obeyed by nobody
//! who has not seen the facts of all members: who put it does not matter then.

use super::board::{Board, Read};
use super::facts::seal::{self, Seal};
use super::facts::{Fact, GoDecision, OutcomeDecision, PlanDecision, StartDecision};
use super::look::{Found, Look, NotMade, Signer, Trust, looked, pin_text, seal_signed, seal_summed};
use super::rollout::Rollout;

/// How the word on a fact begins that was not made for want of a key: the storage has no part in it.
pub const CANNOT_SIGN: &str = "cannot sign";

/// Whom one believes, and what one signs with.
#[derive(Clone, Copy)]
pub struct Voice<'a> {
    pub trust: Trust<'a>,
    /// With what; absent: facts carry a checksum only.
    pub signer: Option<&'a dyn Signer>,
}

impl Voice<'_> {
    /// Pins a fact to a name, and says what the name holds then.
    pub fn put(&self, board: &mut dyn Board, rollout: &Rollout, name: &str, fact: &Fact) -> Look<Found> {
        self.pin(board, rollout, name, fact).unwrap_or_else(|NotMade(why)| Look::Unreachable(why))
    }

    /// The same, for whoever must know when it is certain that nothing was made.
    pub fn pin(
        &self,
        board: &mut dyn Board,
        rollout: &Rollout,
        name: &str,
        fact: &Fact,
    ) -> Result<Look<Found>, NotMade> {
        let text = match self.signer.filter(|_| rollout.is_signed()) {
            None => seal_summed(name, fact),
            Some(signer) => match seal_signed(name, fact, Some(signer)) {
                Ok(text) => text,
                Err(why) => return Err(NotMade(format!("{CANNOT_SIGN}: {why}"))),
            },
        };
        pin_text(board, name, &text)
    }

    /// Looks at a fact that the member at `place` alone may make.
    pub fn look_at(&self, board: &mut dyn Board, rollout: &Rollout, place: usize, name: &str) -> Look<Found> {
        self.looked_at(rollout, place, name, board.read(name))
    }

    /// The same, of what was read.
    pub fn looked_at(&self, rollout: &Rollout, place: usize, name: &str, read: Read) -> Look<Found> {
        match looked(name, read) {
            Look::Found(found) => match self.is_by(rollout, place, &found) {
                Ok(()) => Look::Found(found),
                Err(why) => Look::Bad(why),
            },
            other => other,
        }
    }

    /// Whether what was found is the word of the member at `place`.
    pub fn is_by(&self, rollout: &Rollout, place: usize, found: &Found) -> Result<(), String> {
        if !rollout.is_signed() {
            return Ok(());
        }
        let (covered, armored) = signature(found)?;
        let mut why = "its key is not known".to_owned();
        for key in rollout.keys_of(place) {
            match self.trust.keys.node(key, &covered, &armored) {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Whether a gate may count at all. Of one that says "yes" the facts are the proof, not the signature.
    pub fn admit(&self, rollout: &Rollout, looked: Look<Found>) -> Look<Found> {
        match looked {
            Look::Found(found) if rollout.is_signed() && !says_yes(&found.fact) => {
                match self.is_by_anybody(rollout, &found) {
                    Ok(()) => Look::Found(found),
                    Err(why) => Look::Bad(why),
                }
            }
            other => other,
        }
    }

    fn is_by_anybody(&self, rollout: &Rollout, found: &Found) -> Result<(), String> {
        let (covered, armored) = signature(found)?;
        if self.trust.keys.operator(&covered, &armored).is_ok() {
            return Ok(());
        }
        let mut keys = rollout.proposal.keys.values();
        let is_members = keys.any(|key| self.trust.keys.node(key, &covered, &armored).is_ok());
        if is_members { Ok(()) } else { Err("neither a member nor an operator has signed it".into()) }
    }
}

fn signature(found: &Found) -> Result<(String, String), String> {
    let opened = seal::open(&found.name, found.text.as_bytes()).map_err(|bad| bad.to_string())?;
    match opened.seal {
        Seal::Signature(armored) => Ok((opened.covered, armored)),
        Seal::Sum => Err("it is not signed".into()),
    }
}

/// Whether a gate decides something that needs a fact of every member.
pub fn says_yes(fact: &Fact) -> bool {
    match fact {
        Fact::Plan(said) => said.decision == PlanDecision::Commit,
        Fact::Go(said) => said.decision == GoDecision::Go,
        Fact::Start(said) => said.decision == StartDecision::Start,
        Fact::Outcome(said) => said.decision == OutcomeDecision::Keep,
        Fact::Wave(_) => true,
        Fact::Fleet(_)
        | Fact::Members(_)
        | Fact::Page(_)
        | Fact::Id(_)
        | Fact::Twin(_)
        | Fact::Proposal(_)
        | Fact::Waive(_)
        | Fact::Ticket(_)
        | Fact::Halt(_)
        | Fact::Void(_)
        | Fact::Refused(_)
        | Fact::WaiveTicket(_)
        | Fact::Gone(_)
        | Fact::Replace(_)
        | Fact::Vote(_)
        | Fact::Armed(_)
        | Fact::Step(_)
        | Fact::Report(_)
        | Fact::Closed(_) => false,
    }
}
