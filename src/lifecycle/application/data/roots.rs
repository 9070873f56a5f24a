//! Whose data a record tells of. A root that is copied (`cp -a`, `rsync`) takes its records along, and they name data by
//! their paths: those of the first root, which still uses them.
//!
//! ```text
//! moved, mounted elsewhere, reached by a link    it is the same root, and its records are its own
//! copied, while the first root is there          the records are the first one's: nothing outside of the copy is touched by them
//! copied, and the first root is gone             the records are this one's
//! made before records named their root           the records are this one's
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::snapshot::SnapshotSet;
use super::{Data, Error, Kind, parent_of, read_index};
use crate::types::record::DataSnapshot;

impl Data {
    /// How a record names this root: by its real path. `None` where that is no text.
    pub(super) fn root_name(&self) -> Option<String> {
        fs::canonicalize(self.root()).ok()?.to_str().map(str::to_owned)
    }

    /// The root that a record was made in, where that is another one, and still there.
    pub(super) fn other_root(&self, made_in: Option<&str>) -> Option<PathBuf> {
        let other = Path::new(made_in?);
        let id = |root: &Path| fs::metadata(root).map(|found| (found.dev(), found.ino())).ok();
        let is_same = id(other).is_some_and(|found| Some(found) == id(self.root()));
        // Where nobody may look, there may be one.
        let is_gone = fs::symlink_metadata(other.join(".cutover")).is_err_and(|error| {
            [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
        });
        (!is_same && !is_gone).then(|| other.to_owned())
    }

    /// Refuses copies of data that another root uses.
    pub fn refuse_other_roots(&self, items: &[DataSnapshot]) -> Result<(), Error> {
        items.iter().try_for_each(|item| self.refuse_other_root(item))
    }

    /// The same of one copy.
    pub(super) fn refuse_other_root(&self, item: &DataSnapshot) -> Result<(), Error> {
        let transaction = item.name.split('/').next().unwrap_or_default();
        // A list that cannot be read keeps nobody from going back.
        let set = read_index::<SnapshotSet>(&self.index(Kind::Snapshots, transaction)).ok().flatten();
        self.refuse_other_root_of(set.as_ref().and_then(|set| set.root.as_deref()), &item.path)
    }

    pub(super) fn refuse_other_root_of(&self, made_in: Option<&str>, path: &str) -> Result<(), Error> {
        match self.other_root(made_in) {
            Some(root) => Err(Error::OtherRoot { path: path.into(), root }),
            None => Ok(()),
        }
    }

    /// Leaves only what lies in this root, of what a record of another root names: that is of the copy itself.
    pub(super) fn retain_own(&self, made_in: Option<&str>, places: &mut Vec<PathBuf>) {
        if self.other_root(made_in).is_some() {
            places.retain(|place| place.starts_with(&self.private));
        }
    }

    fn root(&self) -> &Path {
        parent_of(&self.private)
    }
}
