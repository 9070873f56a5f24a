//! What happened: one line an outcome, append-only, each with a checksum of its own.
//!
//! ```json
//! {"at":"…","transaction":"…","outcome":"committed",…,"sum":"<16 hex digits>"}
//! ```
//! A power cut can leave a broken last line (ext4: zeros). Such a line is passed over when the history is read: what
//! it would have said is in the journal still, or was never reported.

use std::path::Path;

use super::{Error, Store};
use crate::sys::disk;
use crate::types::Digest;
use crate::types::state::HistoryEntry;

/// No history is longer; the oldest half goes when it grows beyond.
const BYTES_MAX: usize = 16 << 20;

impl Store {
    /// Adds an outcome, once: a transaction that has its line already (a crash came after it) gets no second one.
    pub fn remember(&self, entry: &HistoryEntry) -> Result<(), Error> {
        let path = self.layout.history();
        if read(&path)?.first().is_some_and(|last| last.transaction == entry.transaction) {
            return Ok(());
        }
        let is_torn = disk::read_small(&path, 2 * BYTES_MAX)?
            .is_some_and(|bytes| bytes.last().is_some_and(|byte| *byte != b'\n'));
        let line = line_of(entry).map_err(|error| disk::Error::new("write", &path, error))?;
        let line = if is_torn { format!("\n{line}\n") } else { format!("{line}\n") };
        Ok(self.disk.append(&path, line.as_bytes(), 0o644)?)
    }
}

/// The whole history, newest first.
pub fn read(path: &Path) -> Result<Vec<HistoryEntry>, Error> {
    let bytes = disk::read_small(path, 2 * BYTES_MAX)?.unwrap_or_default();
    let mut entries: Vec<_> = bytes.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
    entries.reverse();
    Ok(entries)
}

fn line_of(entry: &HistoryEntry) -> serde_json::Result<String> {
    let text = serde_json::to_string(entry)?;
    let sum = &Digest::of(text.as_bytes()).hex()[..16];
    Ok(format!("{},\"sum\":\"{sum}\"}}", text.trim_end_matches('}')))
}

fn parse_line(line: &[u8]) -> Option<HistoryEntry> {
    let (body, sum) = std::str::from_utf8(line).ok()?.rsplit_once(",\"sum\":\"")?;
    let body = format!("{body}}}");
    let is_whole = sum.strip_suffix("\"}") == Some(&Digest::of(body.as_bytes()).hex()[..16]);
    if is_whole { serde_json::from_str(&body).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::Layout;
    use crate::sys::disk::Disk;
    use crate::types::state::Outcome;

    fn entry(transaction: &str) -> HistoryEntry {
        HistoryEntry {
            at: Timestamp::UNIX_EPOCH,
            transaction: transaction.into(),
            outcome: Outcome::RolledBack,
            from: None,
            to: "2".parse().unwrap(),
            digest: Digest::of(b""),
            reason: Some("a \"quoted\" reason}".into()),
            exit_code: 10,
            downtime_ms: Some(7),
            unanswered_ms: Some(107),
            took_ms: 9,
            rollout: None,
            by: "timer".into(),
        }
    }

    #[test]
    fn an_outcome_is_told_once_and_torn_lines_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { layout: Layout::new(directory.path()), disk: Disk::default() };
        store.disk.make_directory(&store.layout.private(), 0o700).unwrap();
        store.remember(&entry("a")).unwrap();
        store.remember(&entry("a")).unwrap();
        store.disk.append(&store.layout.history(), b"\0\0\0{\"at\"", 0o644).unwrap();
        store.remember(&entry("b")).unwrap();
        let history = read(&store.layout.history()).unwrap();
        assert_eq!(history, [entry("b"), entry("a")]);
    }
}
