//! Removing releases that nobody needs. Never between stage and switch, and never on anybody's way back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::copies::DataCopies;
use super::{Error, Node};
use crate::health;
use crate::lifecycle::settings::Settings;
use crate::store::{Keep, Kept, Store, Tree, Worth, surplus};
use crate::types::record::Record;
use crate::types::state::State;
use crate::types::{ReleaseId, Version, chain};

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Pruned {
    pub removed: Vec<Version>,
    /// Kept though they would be surplus: processes run from them.
    pub in_use: BTreeMap<Version, Vec<u32>>,
    /// Could not be removed, and why.
    pub failed: BTreeMap<Version, String>,
    /// Leftovers of interrupted runs that were cleared away.
    pub swept: usize,
    /// Leftovers that could not be cleared away, and why.
    pub left: BTreeMap<PathBuf, String>,
    /// Directories among the releases that were not staged here, or whose description is lost: a person's to remove.
    pub strangers: Vec<Version>,
}

/// The releases that may go: only trees that were staged here. `in_use` are those that processes run from, where that was looked at.
pub fn plan(
    store: &Store,
    settings: &Settings,
    state: &State,
    in_use: Option<&BTreeMap<PathBuf, Vec<u32>>>,
) -> Result<Vec<Version>, Error> {
    let record: Option<Record> = match store.journal()? {
        Kept::Whole(record) => Some(record),
        Kept::Missing => None,
        // What an update that cannot be read needs is not known: all stays.
        Kept::Damaged(_) => return Ok(Vec::new()),
    };
    let mut protected: BTreeSet<Version> = state.pins.iter().cloned().collect();
    protected.extend(
        [&state.committed, &state.previous].into_iter().flatten().map(|kept| kept.release.version.clone()),
    );
    let active = store.active()?;
    // A release that waits for its window was staged for nothing if it went now.
    protected.extend(
        crate::lifecycle::report::status::staged(store, state, active.as_ref(), None)?
            .map(|sealed| sealed.release.version),
    );
    protected.extend(active);
    if let Some(record) = record {
        protected.insert(record.to.version);
        protected.extend(record.from.map(|from| from.version));
    }
    let mut trees = Vec::new();
    for version in store.releases()? {
        if in_use.is_some_and(|in_use| in_use.keys().any(|tree| tree.ends_with(version.as_str()))) {
            protected.insert(version.clone());
        }
        if let Kept::Whole(sealed) = store.sealed(&version)? {
            let worth = worth(state, &sealed.release);
            trees.push(Tree { version, staged: sealed.staged, worth });
        }
    }
    Ok(surplus(&trees, &Keep { count: settings.store.keep, protected }))
}

fn worth(state: &State, release: &ReleaseId) -> Worth {
    let good = [&state.committed, &state.previous].into_iter().flatten().chain(&state.earlier);
    if state.bad.iter().any(|bad| bad.release.digest == release.digest) {
        Worth::Banned
    } else if good.map(|kept| &kept.release).any(|good| good == release) {
        Worth::Good
    } else {
        Worth::Staged
    }
}

impl Node<'_> {
    /// Applies retention. The caller holds both locks, unless `is_dry`.
    pub fn prune(&self, is_dry: bool) -> Result<Pruned, Error> {
        let state = self.store.trusted_state()?;
        let in_use = health::in_use(&self.store.layout.releases());
        let going = plan(self.store, self.settings, &state, Some(&in_use))?;
        let mut pruned = Pruned::default();
        for version in plan(self.store, self.settings, &state, None)? {
            let users = in_use.iter().find(|(tree, _)| tree.ends_with(version.as_str()));
            if let Some((_, pids)) = users {
                pruned.in_use.insert(version, pids.clone());
            }
        }
        for version in going {
            match if is_dry { Ok(()) } else { self.store.remove(&version) } {
                Ok(()) => pruned.removed.push(version),
                Err(error) => drop(pruned.failed.insert(version, chain(&error))),
            }
        }
        for version in self.store.releases()? {
            match self.store.sealed(&version)? {
                Kept::Whole(_) => {}
                Kept::Missing | Kept::Damaged(_) => pruned.strangers.push(version),
            }
        }
        // Copies of data go with the releases that they belong to. An update under way may be about to make one.
        if !is_dry && !pruned.removed.is_empty() && self.store.journal()? == Kept::Missing {
            DataCopies::new(self.store).drop_surplus()?;
        }
        if !is_dry {
            let swept = self.store.sweep()?;
            pruned.swept = swept.gone;
            let told = |(path, error): (PathBuf, _)| (path, chain(&error));
            pruned.left = swept.failed.into_iter().map(told).collect();
        }
        Ok(pruned)
    }
}
