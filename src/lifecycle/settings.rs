//! What an admin may set, all of it: the shape of the configuration file.
//!
//! Each table belongs to the layer that uses it. Every key has a default that is safe. An update keeps the settings it
//! was begun with beside its journal, so that a broken configuration cannot stop the way back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::application::{hooks, service};
use super::{policy, rehearsal};
use crate::coord::settings::Mode;
use crate::types::Span;
use crate::types::record::DataPolicy;
use crate::{coord, health, release, store};

/// The configuration of one application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The directory of releases and pointer.
    pub root: PathBuf,
    pub source: release::source::Settings,
    pub archive: release::archive::Settings,
    pub store: store::Settings,
    /// Links made in each tree when it is staged: name in the tree, and where it points to.
    #[serde(deserialize_with = "link_names")]
    pub links: BTreeMap<String, PathBuf>,
    pub data: Vec<Data>,
    /// What holds for all of that.
    pub data_policy: RestoreSettings,
    pub service: service::Settings,
    /// What else runs at the moments of an update.
    pub hooks: hooks::Settings,
    /// How it is seen to be well.
    pub health: health::Settings,
    /// Whether it runs beside the old release first.
    pub rehearsal: rehearsal::Settings,
    /// When it may be switched.
    pub policy: policy::Settings,
    pub fleet: coord::Settings,
    /// What is told to monitoring.
    pub metrics: Metrics,
}

/// A `[[data]]` table: a path that the application writes, and that must fit the release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    #[serde(deserialize_with = "plain_path")]
    pub path: PathBuf,
    /// What a rollback does with it.
    #[serde(default)]
    pub on_rollback: DataPolicy,
    /// Paths within it that stay where they are: mounts, subvolumes, or what no release brings back.
    #[serde(default)]
    pub leave: Vec<PathBuf>,
}

impl Data {
    /// Whether what is at this path goes wherever a rollback moves the data.
    pub fn moves(&self, path: &Path) -> bool {
        let (Some(data), Some(path)) = (true_path(&self.path), true_path(path)) else { return false };
        let within = path.strip_prefix(&data).ok();
        within.is_some_and(|within| !self.leave.iter().any(|left| within.starts_with(left)))
    }
}

/// A path without links, as far as it is there.
fn true_path(path: &Path) -> Option<PathBuf> {
    let above = path.ancestors().find(|path| path.exists())?;
    Some(above.canonicalize().ok()?.join(path.strip_prefix(above).ok()?).components().collect())
}

/// A path without `.` and doubled slashes: a name like `data/.` cannot be renamed.
fn plain_path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(PathBuf::deserialize(deserializer)?.components().collect())
}

/// Names in the tree: a slash at the end, as Capistrano's people write it, means nothing.
fn link_names<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, PathBuf>, D::Error> {
    let mut links = BTreeMap::new();
    for (name, target) in BTreeMap::<String, PathBuf>::deserialize(deserializer)? {
        let name = name.strip_suffix('/').filter(|plain| !plain.is_empty()).unwrap_or(&name).to_owned();
        if links.insert(name.clone(), target).is_some() {
            return Err(serde::de::Error::custom(format!("`links`: `{name}` stands twice")));
        }
    }
    Ok(links)
}

/// The `[data_policy]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreSettings {
    /// A rollback by hand brings no data back that are older than this, unless it is told to.
    pub restore_within: Span,
}

impl Default for RestoreSettings {
    fn default() -> Self {
        Self { restore_within: Span::seconds(24 * 3600) }
    }
}

/// The `[metrics]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// A file for the text-file collector of Prometheus' node exporter.
    pub textfile: Option<PathBuf>,
}

/// How long the timer that recovers a node gives a fleet beyond the node's own work.
const FLEET_PATIENCE: Duration = Duration::from_secs(15 * 60);

impl Settings {
    /// How long others may take, beyond the node's own work.
    pub fn fleet_patience(&self) -> Duration {
        match self.fleet.mode {
            Mode::Independent => Duration::ZERO,
            Mode::Rolling | Mode::Synchronous | Mode::Cells => FLEET_PATIENCE,
        }
    }
}
