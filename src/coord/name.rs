//! Names of nodes, and of the facts they make.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a node in bytes.
pub const NODE_NAME_LENGTH_MAX: usize = 63;

/// A node's name: `[a-z0-9][a-z0-9._-]{0,62}`, and not that of a ticket (`t.0001`). Safe to use as the name of a directory, and
/// in names of facts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The name of a cell: the same letters, for it stands in names of facts as well.
pub type CellName = NodeName;

/// A text that cannot name a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotANodeName {
    #[error(
        "`{}` is not a node's name: 1 to {NODE_NAME_LENGTH_MAX} small letters, digits or `._-`, the first a letter or digit",
        .0.escape_debug()
    )]
    Unfit(String),
    /// Facts about a node would have the names of facts about a ticket, such as `waive.t.0001`.
    #[error("`{0}` cannot name a node: fleets call their tickets so; set another name as `[fleet] node`")]
    Ticket(String),
}

impl NodeName {
    /// The name as it stands on storage.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NotANodeName;

    fn from_str(text: &str) -> Result<Self, NotANodeName> {
        let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| is_first(byte) || b"._-".contains(&byte);
        if text.bytes().next().is_some_and(is_first)
            && text.len() <= NODE_NAME_LENGTH_MAX
            && text.bytes().all(allowed)
        {
            if is_ticket(text) {
                Err(NotANodeName::Ticket(text.to_owned()))
            } else {
                Ok(Self(text.to_owned()))
            }
        } else {
            Err(NotANodeName::Unfit(text.chars().take(NODE_NAME_LENGTH_MAX).collect()))
        }
    }
}

/// Whether a text is the name of a ticket, with however many digits.
fn is_ticket(text: &str) -> bool {
    text.strip_prefix("t.")
        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

impl TryFrom<String> for NodeName {
    type Error = NotANodeName;

    fn try_from(text: String) -> Result<Self, NotANodeName> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_names_are_nodes() {
        for good in
            ["a", "edge-01", "10.0.0.1", "a_b", "t", "t.a", "t.1a", "at.0001", "t-0001", &"9".repeat(63)]
        {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["t.0001", "t.1", "t.", "t.4294967295", "t.0001.0003"] {
            assert!(matches!(bad.parse::<NodeName>(), Err(NotANodeName::Ticket(_))), "{bad}");
        }
        for bad in ["", ".", "..", ".a", "-a", "A", "a/b", "a\n", "é", &"9".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
    }
}
