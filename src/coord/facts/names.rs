//! Where each fact stands. Names come from numbers and node names only, never from what a file says.
//!
//! ```text
//! FLEET                                 whose directory this is
//! members/000003                        member lists; p.<digest>: their pages; replace.<node>.<times>: a name that was freed
//! rollouts/000017                       proposals; 000017.gone when the rest was removed
//! rollouts/000017.<digest>/             what anybody decides about the proposal of this digest:
//!     plan go start outcome halt void, t.0004, wave.2, refused.<node>, waive.<node>, waive.t.0004
//! nodes/<node>/id                       .. alive, 000017.vote .armed .stopped .switched .report .cleared .closed
//! ```
//! The directory of a rollout is made by its proposer alone, before the proposal. Its name has the proposal's digest:
//! decisions about one proposal can never be taken for decisions about another of the same number.

use super::super::name::NodeName;
use crate::types::Digest;

/// So many hex digits of a proposal's digest name its directory.
const DIGEST_DIGITS: usize = 16;

pub const FLEET: &str = "FLEET";
pub const MEMBERS: &str = "members";
/// Where proposals and gates stand.
pub const ROLLOUTS: &str = "rollouts";
/// Where nodes have their directories.
pub const NODES: &str = "nodes";

/// The highest rollout that six digits can name.
pub const ROLLOUT_MAX: u64 = 999_999;

pub fn members(number: u32) -> String {
    format!("{MEMBERS}/{number:06}")
}

/// A page of a list of members; named by the digest of what it says.
pub fn page(digest: Digest) -> String {
    format!("{MEMBERS}/p.{}", digest.hex())
}

/// Whether a name in `members/` is that of a page.
pub fn is_page(name: &str) -> bool {
    name.starts_with("p.")
}

pub fn proposal(rollout: u64) -> String {
    format!("{ROLLOUTS}/{rollout:06}")
}

/// Says that the facts of a rollout were removed, and how it had ended.
pub fn gone(rollout: u64) -> String {
    format!("{ROLLOUTS}/{rollout:06}.gone")
}

/// What anybody may decide about one proposal: its number and the digest of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// The number of the rollout.
    pub rollout: u64,
    /// The digest of the proposal's file.
    pub proposal: Digest,
}

impl Decisions {
    /// The directory of them all.
    pub fn directory(&self) -> String {
        let digest = self.proposal.hex();
        format!("{ROLLOUTS}/{:06}.{}", self.rollout, digest.get(..DIGEST_DIGITS).unwrap_or_default())
    }

    /// A gate: `plan`, `go`, `start`, `outcome`, `halt` or `void`.
    pub fn gate(&self, gate: &str) -> String {
        format!("{}/{gate}", self.directory())
    }

    pub fn waive(&self, node: &NodeName) -> String {
        format!("{}/waive.{node}", self.directory())
    }

    /// A member's word that it cannot.
    pub fn refused(&self, node: &NodeName) -> String {
        format!("{}/refused.{node}", self.directory())
    }

    /// A ticket; `row`: where there are several rows, in which.
    pub fn ticket(&self, row: Option<u32>, number: u32) -> String {
        format!("{}/{}", self.directory(), ticket(row, number))
    }

    /// Says that nobody waits for the owner of a ticket, whoever it is.
    pub fn waive_ticket(&self, row: Option<u32>, number: u32) -> String {
        format!("{}/waive.{}", self.directory(), ticket(row, number))
    }

    /// The opening of a wave.
    pub fn wave(&self, number: u32) -> String {
        format!("{}/wave.{number}", self.directory())
    }
}

/// The name of a ticket in the directory of its rollout.
pub fn ticket(row: Option<u32>, number: u32) -> String {
    match row {
        Some(row) => format!("t.{row:04}.{number:04}"),
        None => format!("t.{number:04}"),
    }
}

/// The row, where it names one, and the number of a ticket, from its name.
pub fn ticket_of(name: &str) -> Option<(Option<u32>, u32)> {
    let name = name.strip_prefix("t.")?;
    match name.split_once('.') {
        Some((row, number)) => Some((Some(row.parse().ok()?), number.parse().ok()?)),
        None => Some((None, name.parse().ok()?)),
    }
}

/// Frees a node's name, for the so many'th time.
pub fn replace(node: &NodeName, times: u32) -> String {
    format!("{MEMBERS}/replace.{node}.{times}")
}

/// The node, and the how many'th time, from a name in `members/`; other names have none.
pub fn replaced_of(name: &str) -> Option<(NodeName, u32)> {
    let (node, times) = name.strip_prefix("replace.")?.rsplit_once('.')?;
    Some((node.parse().ok()?, times.parse().ok()?))
}

pub fn node(node: &NodeName) -> String {
    format!("{NODES}/{node}")
}

/// A node's own entry; another one each time that its name was freed.
pub fn id(node: &NodeName, replaced: u32) -> String {
    match replaced {
        0 => format!("{NODES}/{node}/id"),
        times => format!("{NODES}/{node}/id.{times}"),
    }
}

/// Says that a node of this name runs in this place, too.
pub fn twin(node: &NodeName, place: &str) -> String {
    format!("{NODES}/{node}/twin.{place}")
}

pub fn alive(node: &NodeName) -> String {
    format!("{NODES}/{node}/alive")
}

/// A node's fact: `vote`, `armed`, `stopped`, `switched`, `report`, `cleared` or `closed`.
pub fn own(node: &NodeName, rollout: u64, what: &str) -> String {
    format!("{NODES}/{node}/{rollout:06}.{what}")
}

/// The number of a proposal, from a name in `rollouts/`; other names have none.
pub fn rollout_of(name: &str) -> Option<u64> {
    let is_number = name.len() == 6 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.parse().ok()).flatten()
}

/// The number of a rollout, from the name of the directory of its decisions; other names have none.
pub fn decided_of(name: &str) -> Option<u64> {
    let (number, digest) = name.split_once('.')?;
    let is_digest = digest.len() == DIGEST_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    rollout_of(number).filter(|_| is_digest)
}

/// Whether a name is one that a board may be asked for: two or three parts of harmless letters, none hidden.
pub fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 200
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    name.split('/').count() <= 3 && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_directory() {
        let edge: NodeName = "edge-01".parse().unwrap();
        let rollout = Decisions { rollout: 17, proposal: Digest::of(b"p") };
        let within = [
            rollout.waive(&edge),
            rollout.ticket(None, 4),
            rollout.waive_ticket(Some(2), 4),
            rollout.gate("plan"),
        ];
        for name in within.iter().chain([&own(&edge, 17, "vote"), &members(3), &replace(&edge, 1)]) {
            assert!(is_name(name), "{name}");
        }
        for row in [None, Some(2)] {
            let clash = ticket(row, 4);
            assert!(clash.parse::<NodeName>().is_err(), "a node's waiver would be a ticket's: {clash}");
            assert_eq!(ticket_of(&clash), Some((row, 4)));
        }
        assert_eq!(replaced_of("replace.edge-01.2"), Some((edge, 2)));
        assert_eq!(replaced_of("000002"), None);
        for name in ["", "/", "/a", "a/", "../a", "a/../b", "a//b", ".a", "a/b/c/d", "a b", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert_eq!(rollout_of("000017"), Some(17));
        assert_eq!(rollout_of("000017.plan"), None);
        assert_eq!(rollout_of("+00017"), None);
        let directory = rollout.directory();
        assert_eq!(decided_of(directory.strip_prefix("rollouts/").unwrap()), Some(17));
        for other in ["000017", "000017.gone", "000017.plan", "17.0123456789abcdef"] {
            assert_eq!(decided_of(other), None, "{other}");
        }
    }
}
