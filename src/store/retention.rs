//! Which releases go.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::types::Version;

/// A release as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub version: Version,
    pub staged: Timestamp,
    pub worth: Worth,
}

/// What a release is worth: the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// It is never switched to again.
    Banned,
    /// It was staged and never committed.
    Staged,
    /// It was committed once: a rollback may lead to it.
    Good,
}

#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// How many, the protected ones included.
    pub count: usize,
    /// Active, previous good, on trial, pinned, or in use by a process.
    pub protected: BTreeSet<Version>,
}

/// The releases that may go: banned ones first, those that were good last; among equals the oldest first.
pub fn surplus(trees: &[Tree], keep: &Keep) -> Vec<Version> {
    let protected = trees.iter().filter(|tree| keep.protected.contains(&tree.version)).count();
    let mut others: Vec<&Tree> =
        trees.iter().filter(|tree| !keep.protected.contains(&tree.version)).collect();
    others.sort_by_key(|tree| (tree.worth, tree.staged, tree.version.clone()));
    let may_stay = keep.count.saturating_sub(protected);
    let goes = others.len().saturating_sub(may_stay);
    others[..goes].iter().map(|tree| tree.version.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unprotected_releases_go() {
        let trees: Vec<Tree> = (1..=5)
            .map(|number| Tree {
                version: number.to_string().parse().unwrap(),
                staged: Timestamp::from_second(number).unwrap(),
                worth: Worth::Staged,
            })
            .collect();
        let keep = |count, protected: &[&str]| Keep {
            count,
            protected: protected.iter().map(|version| version.parse().unwrap()).collect(),
        };
        let gone = |keep| surplus(&trees, &keep).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(gone(keep(3, &["1", "5"])), ["2", "3"]);
        assert_eq!(gone(keep(1, &["1", "5"])), ["2", "3", "4"]);
        assert!(gone(keep(9, &[])).is_empty());
    }

    #[test]
    fn banned_releases_go_first_and_good_ones_last() {
        let tree = |number: i64, worth| Tree {
            version: number.to_string().parse().unwrap(),
            staged: Timestamp::from_second(number).unwrap(),
            worth,
        };
        let trees =
            [tree(1, Worth::Good), tree(2, Worth::Staged), tree(3, Worth::Banned), tree(4, Worth::Banned)];
        for (count, wanted) in [(4, &[][..]), (3, &["3"]), (2, &["3", "4"]), (1, &["3", "4", "2"])] {
            let gone = surplus(&trees, &Keep { count, ..Keep::default() });
            assert_eq!(gone.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted, "{count}");
        }
    }
}
