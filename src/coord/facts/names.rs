//! Where each fact stands. Names come from numbers and node names only, never from what a file says.
//!
//! ```text
//! FLEET                                 whose directory this is
//! members/000003                        member lists
//! rollouts/000017                       proposals, and beside them .plan .go .start .outcome .halt
//! rollouts/000017.waive.<node>          .t.0004 .wave.2
//! nodes/<node>/id                       .. alive, 000017.vote .armed .stopped .switched .report .cleared .closed
//! ```

use super::super::name::NodeName;

/// Whose directory this is.
pub const FLEET: &str = "FLEET";
/// Where member lists stand.
pub const MEMBERS: &str = "members";
/// Where proposals and gates stand.
pub const ROLLOUTS: &str = "rollouts";
/// Where nodes have their directories.
pub const NODES: &str = "nodes";

/// The highest rollout that six digits can name.
pub const ROLLOUT_MAX: u64 = 999_999;

/// A member list.
pub fn members(number: u32) -> String {
    format!("{MEMBERS}/{number:06}")
}

/// A proposal.
pub fn proposal(rollout: u64) -> String {
    format!("{ROLLOUTS}/{rollout:06}")
}

/// A gate: `plan`, `go`, `start`, `outcome` or `halt`.
pub fn gate(rollout: u64, gate: &str) -> String {
    format!("{ROLLOUTS}/{rollout:06}.{gate}")
}

/// A waiver.
pub fn waive(rollout: u64, node: &NodeName) -> String {
    format!("{ROLLOUTS}/{rollout:06}.waive.{node}")
}

/// A ticket.
pub fn ticket(rollout: u64, number: u32) -> String {
    format!("{ROLLOUTS}/{rollout:06}.t.{number:04}")
}

/// The opening of a wave.
pub fn wave(rollout: u64, number: u32) -> String {
    format!("{ROLLOUTS}/{rollout:06}.wave.{number}")
}

/// A node's directory.
pub fn node(node: &NodeName) -> String {
    format!("{NODES}/{node}")
}

/// A node's own entry.
pub fn id(node: &NodeName) -> String {
    format!("{NODES}/{node}/id")
}

/// A node's heartbeat.
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
        for name in [FLEET, &waive(17, &edge), &own(&edge, 17, "vote"), &ticket(17, 4), &members(3)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "/", "/a", "a/", "../a", "a/../b", "a//b", ".a", "a/b/c/d", "a b", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert_eq!(rollout_of("000017"), Some(17));
        assert_eq!(rollout_of("000017.plan"), None);
        assert_eq!(rollout_of("+00017"), None);
    }
}
