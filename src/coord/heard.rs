//! What one look at a rollout's facts brought: whether storage answered, what is to be said of it, and who is waived.
//! The same for every kind of rollout.

use super::board::Board;
use super::facts::Fact;
use super::look::{Found, Look, NotMade, look_signed};
use super::rollout::Rollout;
use super::voice::Voice;

/// The most remarks that are kept: a board full of nonsense is told by some of it.
const REMARKS_MAX: usize = 100;

/// Whether the storage answered, and did what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Yes,
    /// No: what it said, or did not. Another time it may.
    Away(String),
    /// It answered, and what it holds says nothing, which may never change: an operator may have to end the rollout.
    Bad(String),
}

/// To most it is the same: another time it may be made.
impl From<NotMade> for Heard {
    fn from(NotMade(why): NotMade) -> Self {
        Self::Away(why)
    }
}

impl Heard {
    /// Whether it is a yes.
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

/// Adds what is to be said to people, each thing once.
pub fn remark(remarks: &mut Vec<String>, text: String) {
    if !remarks.contains(&text) && remarks.len() < REMARKS_MAX {
        remarks.push(text);
    }
}

/// What a member has said, and why, where it gave a reason.
pub fn with_why(said: String, why: Option<&String>) -> String {
    match why.filter(|why| !why.is_empty()) {
        Some(why) => format!("{said}: {why}"),
        None => said,
    }
}

/// Whether an operator has waived the member at `place` in this rollout. A waiver that says nothing is remarked.
///
/// # Errors
/// When storage did not answer: why.
pub fn is_waived(
    board: &mut dyn Board,
    rollout: &Rollout,
    voice: &Voice<'_>,
    place: usize,
    remarks: &mut Vec<String>,
) -> Result<bool, String> {
    let Some(node) = rollout.proposal.members.get(place) else { return Ok(false) };
    match look_signed(board, &rollout.decisions().waive(node), voice.trust) {
        Look::Found(Found { fact: Fact::Waive(said), .. })
            if said.node == *node && said.proposal == rollout.digest =>
        {
            return Ok(true);
        }
        Look::Found(_) => remark(remarks, format!("the waiver of {node} is another one's")),
        Look::Bad(why) => remark(remarks, format!("the waiver of {node} is not valid: {why}")),
        Look::Absent => {}
        Look::Unreachable(why) => return Err(why),
    }
    Ok(false)
}
