//! Which releases go.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::types::Version;

/// A release as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its name.
    pub version: Version,
    /// When it was staged.
    pub staged: Timestamp,
}

/// What must stay.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// How many, the protected ones included.
    pub count: usize,
    /// Active, previous good, on trial, pinned, or in use by a process.
    pub protected: BTreeSet<Version>,
}

/// The releases that may go, oldest first.
pub fn surplus(trees: &[Tree], keep: &Keep) -> Vec<Version> {
    let protected = trees.iter().filter(|tree| keep.protected.contains(&tree.version)).count();
    let mut others: Vec<&Tree> =
        trees.iter().filter(|tree| !keep.protected.contains(&tree.version)).collect();
    others.sort_by(|one, other| one.staged.cmp(&other.staged).then_with(|| one.version.cmp(&other.version)));
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
}
