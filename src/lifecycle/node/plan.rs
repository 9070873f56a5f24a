//! What a switch or a rollback would do, told before it is done. Nothing is changed, nothing is remembered.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::Node;
use crate::lifecycle::application::data::{self, Decision};
use crate::lifecycle::settings::{self, Settings};
use crate::lifecycle::staging::{self, Error};
use crate::release::index::{self, Index};
use crate::release::resolve::Candidate;
use crate::release::source::Ranges;
use crate::store::{self, Store};
use crate::sys::kernel::btrfs;
use crate::types::Version;
use crate::types::record::{DataPolicy, DataSnapshot};

/// What staging would read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagingPlan {
    /// The parts of the archive that are read.
    pub ranges: Vec<Range<u64>>,
    /// Bytes that are written, where that is known.
    pub write_bytes: Option<u64>,
}

impl StagingPlan {
    /// Bytes that are read.
    pub fn fetch_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// How one path of the data is copied before the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    pub path: PathBuf,
    /// `snapshot` (btrfs, at once), `copy` (blocks are shared where the file system can), `none` (kept as they are), or
    /// `absent` (there is nothing yet).
    pub how: &'static str,
}

impl Node<'_> {
    /// What staging of this release would read and write. What was fetched already is not counted.
    ///
    /// # Errors
    /// Those with which staging would refuse the release, as far as manifest and index tell; also when there is no room.
    pub fn plan_staging(&self, candidate: &Candidate, is_named: bool) -> Result<StagingPlan, Error> {
        let (manifest, version) = (&candidate.manifest, &candidate.release.version);
        if staging::here(self.store, &candidate.release)?.is_some() {
            return Ok(StagingPlan { ranges: Vec::new(), write_bytes: Some(0) });
        }
        let archive = candidate.archive.as_ref();
        let forecast = self.forecast(candidate)?;
        let mut plan = match forecast {
            Some(forecast) => {
                let fetched: u64 = forecast.ranges.iter().map(|range| range.end - range.start).sum();
                let kept = if archive.is_far() { fetched } else { 0 };
                self.ensure_room(forecast.write_bytes.saturating_add(kept), forecast.entries)?;
                StagingPlan { ranges: forecast.ranges, write_bytes: Some(forecast.write_bytes) }
            }
            None => {
                let copied = if is_named && candidate.is_ours { 0 } else { manifest.size };
                let tree = manifest.unpacked.unwrap_or(manifest.size);
                self.ensure_room(copied.saturating_add(tree), manifest.entries.unwrap_or(0))?;
                StagingPlan { ranges: whole(manifest.size), write_bytes: manifest.unpacked }
            }
        };
        let is_read_whole = self.reads_whole(candidate, is_named && candidate.is_ours);
        if is_read_whole || !archive.has_ranges() {
            plan.ranges = whole(manifest.size);
        }
        if archive.is_far() && archive.has_ranges() && !is_read_whole && manifest.index.is_some() {
            let kept = self.store.layout.parts(version);
            plan.ranges = index::Parts::missing(&kept, manifest.sha256, manifest.size, &plan.ranges);
        }
        Ok(plan)
    }

    /// What the index says; `None` without one that is vouched for.
    fn forecast(&self, candidate: &Candidate) -> Result<Option<index::Forecast>, Error> {
        let manifest = &candidate.manifest;
        let Some(wanted) = manifest.index else { return Ok(None) };
        let archive: Arc<dyn Ranges + '_> = Arc::new(candidate.archive.as_ref());
        if archive.size() != manifest.size || !archive.has_ranges() {
            return Ok(None);
        }
        let Some(index) = Index::open(archive, Some(wanted))? else {
            let what = "its archive has no index, and its manifest says that it has".to_owned();
            return Err(Error::Mismatch { version: candidate.release.version.clone(), what });
        };
        let base = self.closest_base(&index, &candidate.signers)?;
        let base = base.as_ref().map(|(_, base)| base);
        let limits = self.settings.archive.limits(manifest.unpacked, manifest.entries);
        let method = match self.store.method_here(self.settings.store.method)? {
            store::Method::Btrfs => index::Method::Btrfs,
            store::Method::Auto | store::Method::Reflink | store::Method::Hardlink | store::Method::Copy => {
                self.method()?
            }
        };
        Ok(Some(index::forecast(&index, base, method, &limits)?))
    }
}

fn whole(size: u64) -> Vec<Range<u64>> {
    std::iter::once(0..size).collect()
}

/// How the data are copied before a switch.
pub fn copies(settings: &Settings) -> Vec<CopyPlan> {
    let how = |entry: &settings::Data| match entry.on_rollback {
        DataPolicy::Keep => "none",
        DataPolicy::Auto | DataPolicy::Restore if !entry.path.exists() => "absent",
        DataPolicy::Auto | DataPolicy::Restore if btrfs::is_subvolume(&entry.path).unwrap_or(false) => {
            "snapshot"
        }
        DataPolicy::Auto | DataPolicy::Restore => "copy",
    };
    settings.data.iter().map(|entry| CopyPlan { path: entry.path.clone(), how: how(entry) }).collect()
}

/// A way back from one release to another, as far as the data are concerned.
pub struct DataBack<'a> {
    pub settings: &'a Settings,
    /// Knows what the releases say of their data.
    pub store: &'a Store,
    /// What was asked for; else what is configured counts.
    pub asked: Option<DataPolicy>,
    /// The release that comes back.
    pub old: Option<&'a Version>,
    pub new: &'a Version,
}

impl DataBack<'_> {
    /// What becomes of the data at `path`.
    pub fn decide(&self, path: &str) -> Decision {
        let entry = self.settings.data.iter().find(|entry| entry.path.as_os_str() == path);
        let policy = match self.asked {
            Some(DataPolicy::Auto) | None => entry.map_or(DataPolicy::Auto, |entry| entry.on_rollback),
            Some(policy) => policy,
        };
        // An unknown epoch counts as "not declared".
        let sealed = |version: &Version| self.store.release(version).ok();
        let reads = self.old.and_then(sealed).map(|sealed| sealed.data_read).unwrap_or_default();
        data::decide(policy, &reads, sealed(self.new).and_then(|sealed| sealed.data_write))
    }

    /// The configured data that are to come back, and of which none of these is a copy.
    pub fn uncopied(&self, copies: &[DataSnapshot]) -> Vec<PathBuf> {
        let is_uncopied = |entry: &&settings::Data| {
            let path = entry.path.to_string_lossy();
            copies.iter().all(|copy| copy.path != path) && self.decide(&path) == Decision::Restore
        };
        self.settings.data.iter().filter(is_uncopied).map(|entry| entry.path.clone()).collect()
    }

    /// Whether any of these copies comes back.
    pub fn restores(&self, copies: &[DataSnapshot]) -> bool {
        copies.iter().any(|copy| self.decide(&copy.path) == Decision::Restore)
    }
}
