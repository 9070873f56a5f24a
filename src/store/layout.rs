//! Where everything is under the root.

use std::path::{Path, PathBuf};

use crate::types::Version;
use crate::types::record::Record;

/// The paths of one root.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout under `root`, an absolute path.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    pub fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// The tree of a release.
    pub fn tree(&self, version: &Version) -> PathBuf {
        self.releases().join(version)
    }

    /// The trees that an update goes between.
    pub fn trees_of(&self, record: &Record) -> Vec<PathBuf> {
        std::iter::once(&record.to).chain(&record.from).map(|release| self.tree(&release.version)).collect()
    }

    /// Everything else that is ours.
    pub fn private(&self) -> PathBuf {
        self.root.join(".cutover")
    }

    /// How the first release was taken over.
    pub fn adopted(&self) -> PathBuf {
        self.private().join("adopted.json")
    }

    /// The lock of the switch.
    pub fn lock(&self) -> PathBuf {
        self.private().join("lock")
    }

    /// The lock of staging: held while a slow source is read, so that the lock of the switch never is.
    pub fn staging_lock(&self) -> PathBuf {
        self.private().join("staging.lock")
    }

    /// The lock of whoever carries out an update, from its first phase to its last, also while it waits for others.
    pub fn update_lock(&self) -> PathBuf {
        self.private().join("update.lock")
    }

    /// The lock of what is remembered: held for a moment, around each change.
    pub fn state_lock(&self) -> PathBuf {
        self.private().join("state.lock")
    }

    pub fn journal(&self) -> PathBuf {
        self.private().join("journal.json")
    }

    /// The journal once more, from before the first of the data moves back until the end.
    pub fn going_back(&self) -> PathBuf {
        self.private().join("going-back.json")
    }

    /// The key that a member of a fleet signs its facts with.
    pub fn fleet_key(&self) -> PathBuf {
        self.private().join("fleet.key")
    }

    /// What a member of a fleet must not forget.
    pub fn fleet(&self) -> PathBuf {
        self.private().join("fleet.json")
    }

    /// The settings that the update under way was begun with.
    pub fn settings(&self) -> PathBuf {
        self.private().join("settings.json")
    }

    pub fn state(&self) -> PathBuf {
        self.private().join("state.json")
    }

    pub fn history(&self) -> PathBuf {
        self.private().join("history.jsonl")
    }

    /// An operator's word to the cutover that watches a trial.
    pub fn request(&self) -> PathBuf {
        self.private().join("request.json")
    }

    /// When files of trees were made or linked by us.
    pub fn spans(&self) -> PathBuf {
        self.private().join("spans.json")
    }

    /// What the tree of a release must be.
    pub fn sealed(&self, version: &Version) -> PathBuf {
        self.manifests().join(format!("{version}.json"))
    }

    /// The index of a tree, and what staging saw of it; only of releases that were staged from an indexed archive.
    pub fn index(&self, version: &Version) -> PathBuf {
        self.manifests().join(format!("{version}.index"))
    }

    /// The parts of a far archive that were read so far.
    pub fn parts(&self, version: &Version) -> PathBuf {
        self.staging().join(format!("@{version}.parts"))
    }

    /// The same, of a tree that is being built.
    pub fn staged_index(&self, version: &Version) -> PathBuf {
        // No version begins so: it cannot be taken for a tree.
        self.staging().join(format!("@{version}.index"))
    }

    /// Where the descriptions of trees are.
    pub fn manifests(&self) -> PathBuf {
        self.private().join("manifests")
    }

    pub fn staging(&self) -> PathBuf {
        self.private().join("staging")
    }

    /// The private copy of an archive that is being fetched.
    pub fn archive(&self, version: &Version) -> PathBuf {
        self.staging().join(format!("{version}.archive"))
    }

    /// Data as before the switch of a transaction.
    pub fn snapshots(&self) -> PathBuf {
        self.private().join("snapshots")
    }

    /// Data set aside by rollbacks.
    pub fn aside(&self) -> PathBuf {
        self.private().join("aside")
    }

    /// Trees on their way out.
    pub fn trash(&self) -> PathBuf {
        self.private().join("trash")
    }

    /// Space that a rollback may spend on a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.private().join("reserve")
    }
}
