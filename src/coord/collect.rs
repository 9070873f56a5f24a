//! Removing the facts of rollouts that ended long ago, so that nobody ever misses them.
//!
//! ```text
//! the newest rollout that was kept            stays always: who comes later learns from it what the fleet runs
//! a rollout whose end a member may not know   stays
//! the rest   gone, a mark that tells for ever how it ended, comes first; then facts, decisions, the proposal last
//! ```

use std::time::Duration;

use jiff::Timestamp;

use super::board::{Done, Listed};
use super::facts::{self, Fact, Fleet, names};
use super::lists::replaced;
use super::look::{Found, Look, look};
use super::name::NodeName;
use super::operate::{Error, Operator};
use super::rollout::{Rollout, numbers};
use super::settings::Mode;
use super::standing::{How, Standing, removed};

#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub older: Duration,
    /// So many of the newest stay all the same.
    pub keep: usize,
    pub now: Timestamp,
    pub is_dry: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub rollouts: Vec<u64>,
    pub files: usize,
    /// Rollouts that are old enough, and stay because of these members.
    pub kept_for: Vec<(u64, Vec<NodeName>)>,
    /// Names that could not be removed, and why. The next time tries again.
    pub left: Vec<(String, String)>,
}

impl Operator<'_> {
    /// Removes what nobody needs any more.
    pub fn collect(&mut self, fleet: &Fleet, terms: Terms) -> Result<Collected, Error> {
        let (all, _) = numbers(self.board).map_err(Error::Unreachable)?;
        let newest_kept = self.newest_kept(fleet, &all)?;
        let old = all.len().saturating_sub(terms.keep.max(1));
        let mut collected = Collected::default();
        for number in all.into_iter().take(old).filter(|number| Some(*number) != newest_kept) {
            let Some(rollout) = self.readable(fleet, number)? else { continue };
            let age = Duration::try_from(terms.now.duration_since(rollout.proposal.created));
            if age.unwrap_or_default() < terms.older {
                continue;
            }
            let Standing::Ended(ended) = self.standing(&rollout)? else { continue };
            // Where the mark stands, that was asked before it was made, and what is asked here may be gone already.
            let mark = removed(self.board, number, self.trust).map_err(Error::Unreachable)?;
            let is_begun = mark.is_some_and(|mark| mark.proposal == rollout.digest);
            let unsure = if is_begun { Vec::new() } else { self.unsure(fleet, &rollout)? };
            if !unsure.is_empty() {
                collected.kept_for.push((number, unsure));
                continue;
            }
            let names = self.names_of(&rollout)?;
            collected.rollouts.push(number);
            collected.files += names.len();
            if !terms.is_dry {
                collected.left.extend(self.remove(&rollout, ended.how, &names)?);
            }
        }
        Ok(collected)
    }

    /// A rollout by its number; nothing where what stands there is no proposal. Storage that does not answer is another matter:
    /// what it holds counts.
    pub fn readable(&mut self, fleet: &Fleet, number: u64) -> Result<Option<Rollout>, Error> {
        match self.rollout(fleet, number) {
            Ok(rollout) => Ok(Some(rollout)),
            Err(Error::Unreachable(why)) => Err(Error::Unreachable(why)),
            Err(Error::Refused(_) | Error::Lost { .. }) => Ok(None),
        }
    }

    /// The newest rollout that was kept.
    pub fn newest_kept(&mut self, fleet: &Fleet, all: &[u64]) -> Result<Option<u64>, Error> {
        for number in all.iter().rev() {
            let Some(rollout) = self.readable(fleet, *number)? else { continue };
            let stands = self.standing(&rollout)?;
            if matches!(stands, Standing::Ended(ended) if ended.how == How::Kept) {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    /// The rollouts that were kept, the newest first; of very many the newest.
    pub fn all_kept(&mut self, fleet: &Fleet, all: &[u64]) -> Result<Vec<Rollout>, Error> {
        const LOOKED_AT: usize = 64;
        let mut kept = Vec::new();
        for number in all.iter().rev().take(LOOKED_AT) {
            let Some(rollout) = self.readable(fleet, *number)? else { continue };
            let stands = self.standing(&rollout)?;
            if matches!(stands, Standing::Ended(ended) if ended.how == How::Kept) {
                kept.push(rollout);
            }
        }
        Ok(kept)
    }

    /// The members that took part and may not know how it ended: not closed, not waived, not replaced.
    fn unsure(&mut self, fleet: &Fleet, rollout: &Rollout) -> Result<Vec<NodeName>, Error> {
        let decided = match self.board.list(&rollout.decisions().directory()) {
            Listed::Names(names) => names,
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        };
        let replaced = replaced(self.board, &fleet.id, self.trust)?;
        let mut unsure = Vec::new();
        for node in &rollout.proposal.members {
            let times = replaced.get(node).copied().unwrap_or(0);
            if decided.contains(&format!("waive.{node}")) || self.is_another(rollout, node, times)? {
                continue;
            }
            // Nobody who voted on nothing, and took no ticket, has anything to learn.
            let began = if rollout.proposal.mode == Mode::Rolling { "report" } else { "vote" };
            let has_begun = self.has(rollout, node, began)? || self.has_ticket(rollout, node, &decided)?;
            if has_begun && !self.has(rollout, node, "closed")? {
                unsure.push(node.clone());
            }
        }
        Ok(unsure)
    }

    fn has(&mut self, rollout: &Rollout, node: &NodeName, what: &str) -> Result<bool, Error> {
        match look(self.board, &names::own(node, rollout.number, what)) {
            Look::Found(_) | Look::Bad(_) => Ok(true),
            Look::Absent => Ok(false),
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
        }
    }

    fn has_ticket(&mut self, rollout: &Rollout, node: &NodeName, decided: &[String]) -> Result<bool, Error> {
        for name in decided.iter().filter(|name| name.starts_with("t.")) {
            match look(self.board, &rollout.decisions().gate(name)) {
                Look::Found(Found { fact: Fact::Ticket(said), .. }) if said.node == *node => return Ok(true),
                Look::Found(_) | Look::Absent | Look::Bad(_) => {}
                Look::Unreachable(why) => return Err(Error::Unreachable(why)),
            }
        }
        Ok(false)
    }

    /// Whether the machine that took part has this name no longer.
    fn is_another(&mut self, rollout: &Rollout, node: &NodeName, times: u32) -> Result<bool, Error> {
        match look(self.board, &names::id(node, times)) {
            Look::Found(Found { fact: Fact::Id(id), .. }) => Ok(!rollout.is_of(node, &id.instance)),
            // Freed, and nobody has taken it since.
            Look::Absent => Ok(times > 0),
            Look::Found(_) | Look::Bad(_) => Ok(false),
            Look::Unreachable(why) => Err(Error::Unreachable(why)),
        }
    }

    /// All names of a rollout, the proposal last: while it stands, the rest may be removed again.
    fn names_of(&mut self, rollout: &Rollout) -> Result<Vec<String>, Error> {
        let prefix = format!("{:06}.", rollout.number);
        let mut found = Vec::new();
        for directory in rollout.proposal.members.iter().map(names::node) {
            // A member that never joined has none.
            if let Listed::Names(names) = self.board.list(&directory) {
                let names = names.iter().filter(|name| name.starts_with(&prefix));
                found.extend(names.map(|name| format!("{directory}/{name}")));
            }
        }
        let directory = rollout.decisions().directory();
        match self.board.list(&directory) {
            Listed::Names(names) => found.extend(names.iter().map(|name| format!("{directory}/{name}"))),
            Listed::Unreachable(why) => return Err(Error::Unreachable(why)),
        }
        found.push(directory);
        found.push(names::proposal(rollout.number));
        Ok(found)
    }

    /// Removes them, the proposal last and only after all others; what is left, and why.
    fn remove(
        &mut self,
        rollout: &Rollout,
        how: How,
        names: &[String],
    ) -> Result<Vec<(String, String)>, Error> {
        let gone = facts::Gone {
            rollout: rollout.number,
            proposal: rollout.digest,
            ended: how.word().to_owned(),
            release: rollout.proposal.release.clone(),
            by: self.by.clone(),
        };
        self.put_own(&names::gone(rollout.number), &Fact::Gone(gone))?;
        let mut left = Vec::new();
        for (name, is_last) in names.iter().zip((0..names.len()).map(|place| place + 1 == names.len())) {
            if is_last && !left.is_empty() {
                break;
            }
            if let Done::Unreachable(why) = self.board.remove(name) {
                left.push((name.clone(), why));
            }
        }
        Ok(left)
    }
}
