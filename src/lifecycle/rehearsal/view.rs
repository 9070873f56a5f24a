//! What is told of a rehearsal: the shape of `rehearsal` in `status --json`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::Version;
use crate::types::record::{Phase, Record};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RehearsalView {
    /// The release that is rehearsed.
    pub version: Version,
    pub since: Timestamp,
    /// How long all has been well without a break, in seconds.
    pub healthy_for_s: u64,
    /// How long it must be, in seconds.
    pub need_s: u64,
    pub checks: Vec<serde_json::Value>,
}

impl RehearsalView {
    /// Whether the record's release is being rehearsed.
    pub fn is_under_way(record: &Record) -> bool {
        record.phase == Phase::Warming && record.rehearsed.is_none()
    }

    /// A rehearsal of which nothing was seen yet.
    pub fn begun(record: &Record) -> Self {
        let (version, since) = (record.to.version.clone(), record.started);
        Self { version, since, healthy_for_s: 0, need_s: 0, checks: Vec::new() }
    }
}
