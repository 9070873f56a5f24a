//! How a rollout stands, for whoever has no part in it: in one place, so that all read the same.

use super::board::Board;
use super::facts::{Fact, Wanted, names};
use super::heard::Heard;
use super::look::{Found, Look, Trust, look, look_signed};
use super::rolling::Rolling;
use super::rollout::{Rollout, WENT_BACK};
use super::rules::gate;
use super::rules::rolling::End as RollingEnd;
use super::settings::Mode;
use super::synchronous::Synchronous;
use super::voice::Voice;
use crate::types::Digest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Kept,
    /// Synchronous: called off before the instant was decided.
    Aborted,
    /// Synchronous: called off before the instant.
    Cancelled,
    RolledBack,
    /// Rolling: its time was over before all had it.
    Partial,
    /// Rolling: stopped, and whatever that undoes is undone.
    Halted,
    /// An operator ended it, whatever stood there.
    Void,
}

impl How {
    /// In a word or two.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
            Self::RolledBack => "rolled back",
            Self::Partial => "partial",
            Self::Halted => "halted",
            Self::Void => "void",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        const ALL: [How; 7] =
            [How::Kept, How::Aborted, How::Cancelled, How::RolledBack, How::Partial, How::Halted, How::Void];
        ALL.into_iter().find(|how| how.word() == word)
    }
}

impl From<gate::Ended> for How {
    fn from(ended: gate::Ended) -> Self {
        match ended {
            gate::Ended::Kept => Self::Kept,
            gate::Ended::Aborted => Self::Aborted,
            gate::Ended::Cancelled => Self::Cancelled,
            gate::Ended::RolledBack => Self::RolledBack,
        }
    }
}

impl From<RollingEnd> for How {
    fn from(end: RollingEnd) -> Self {
        match end {
            RollingEnd::Keep => Self::Kept,
            RollingEnd::Partial => Self::Partial,
            RollingEnd::Halted => Self::Halted,
            RollingEnd::Void => Self::Void,
        }
    }
}

/// The end of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub how: How,
    /// Why, as its author said.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    /// What stands there says nothing, so nobody can tell; why.
    Bad(String),
    Ended(Ended),
}

/// Looks how a rollout stands; or why the storage does not say. Where its facts are being removed, some may be gone already: then
/// the mark that stands for them says it.
pub fn standing(board: &mut dyn Board, rollout: &Rollout, voice: Voice<'_>) -> Result<Standing, String> {
    let stands = of_facts(board, rollout, voice)?;
    if let Standing::Ended(_) = stands {
        return Ok(stands);
    }
    let mark = removed(board, rollout.number, voice.trust)?.filter(|mark| mark.proposal == rollout.digest);
    let how = mark.and_then(|mark| How::of_word(&mark.ended));
    Ok(how.map_or(stands, |how| Standing::Ended(Ended { how, why: "its facts are being removed".into() })))
}

fn of_facts(board: &mut dyn Board, rollout: &Rollout, voice: Voice<'_>) -> Result<Standing, String> {
    match rollout.proposal.mode {
        Mode::Independent => Ok(Standing::Ended(Ended { how: How::Void, why: "it has no mode".into() })),
        Mode::Synchronous => {
            let mut follow = Synchronous::new(rollout.clone(), usize::MAX, voice);
            heard(follow.read_gates(board))?;
            Ok(of_synchronous(&follow))
        }
        Mode::Rolling | Mode::Cells => of_rolling(board, rollout, voice),
    }
}

/// How the gates that were read say that a synchronous rollout stands.
pub fn of_synchronous(follow: &Synchronous<'_>) -> Standing {
    let ended = |how| Standing::Ended(Ended { how, why: follow.why.clone().unwrap_or_default() });
    match gate::ended(&follow.view) {
        _ if follow.is_void => ended(How::Void),
        Some(how) => ended(how.into()),
        None => follow.unreadable.clone().map_or(Standing::Open, Standing::Bad),
    }
}

fn of_rolling(board: &mut dyn Board, rollout: &Rollout, voice: Voice<'_>) -> Result<Standing, String> {
    let Some(mut follow) = Rolling::new(rollout.clone(), usize::MAX, voice) else {
        return Ok(Standing::Ended(Ended { how: How::Void, why: "its proposal has no terms".into() }));
    };
    heard(follow.read_void(board))?;
    if follow.view.end.is_none() {
        heard(follow.read_end(board))?;
    }
    // What a halt undoes shows in what the members have said, and for whom nobody waits.
    let must_read_all = follow.limits().undoes && follow.view.end == Some(RollingEnd::Halted);
    if must_read_all || (follow.rollout.is_signed() && follow.view.end.is_none()) {
        heard(follow.read(board))?;
    }
    if must_read_all && !follow.is_settled() {
        heard(follow.read_waivers(board))?;
    }
    Ok(end_of_rolling(&follow))
}

/// How what was read says that a rolling rollout stands.
pub fn end_of_rolling(follow: &Rolling<'_>) -> Standing {
    let ended = |how| Standing::Ended(Ended { how, why: follow.why.clone().unwrap_or_default() });
    match follow.view.end.filter(|_| follow.is_settled()) {
        Some(end) => ended(end.into()),
        None => follow.unreadable.clone().map_or(Standing::Open, Standing::Bad),
    }
}

fn heard(heard: Heard) -> Result<(), String> {
    match heard {
        // What is bad shows in what was read.
        Heard::Yes | Heard::Bad(_) => Ok(()),
        Heard::Away(why) => Err(why),
    }
}

/// What stands where a proposal may have been removed: how its rollout had ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The digest of the proposal.
    pub proposal: Digest,
    /// How it had ended, in a word.
    pub ended: String,
    pub release: Wanted,
}

/// Looks whether the facts of a rollout were removed.
pub fn removed(board: &mut dyn Board, number: u64, trust: Trust<'_>) -> Result<Option<Removed>, String> {
    match look_signed(board, &names::gone(number), trust) {
        Look::Found(Found { fact: Fact::Gone(said), .. }) if said.rollout == number => {
            Ok(Some(Removed { proposal: said.proposal, ended: said.ended, release: said.release }))
        }
        Look::Found(_) | Look::Absent | Look::Bad(_) => Ok(None),
        Look::Unreachable(why) => Err(why),
    }
}

/// Sees that a proposal is still there, before anything is put for it: storage that has lost it may have lost what was
/// decided. How the rollout had ended, where its facts were removed in good order; or why nothing may be put.
pub fn removed_end(
    board: &mut dyn Board,
    rollout: &Rollout,
    trust: Trust<'_>,
) -> Result<Option<String>, String> {
    let number = rollout.number;
    match look(board, &names::proposal(number)) {
        // It may be a bad look only.
        Look::Bad(_) => return Ok(None),
        Look::Found(found) if found.digest == rollout.digest => return Ok(None),
        Look::Unreachable(why) => return Err(why),
        Look::Found(_) => {
            return Err(format!("another rollout stands in the place of rollout {number}: {WENT_BACK}"));
        }
        Look::Absent => {}
    }
    match removed(board, number, trust)? {
        Some(removed) if removed.proposal == rollout.digest => Ok(Some(removed.ended)),
        _ => Err(format!("rollout {number} is gone: {WENT_BACK}")),
    }
}
