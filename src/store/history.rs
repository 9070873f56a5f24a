//! What happened: one line an outcome, append-only, each with a checksum of its own.
//!
//! ```json
//! {"at":"…","transaction":"…","outcome":"committed",…,"sum":"<16 hex digits>"}
//! ```
//! A power cut can leave a broken last line (ext4: zeros). Such a line is passed over when the history is read: what
//! it would have said is in the journal still, or was never reported. Whatever else is wrong with the file, it never
//! stands in the way of an update: what is too long moves aside, and so does what is no file of ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, Store};
use crate::sys::disk;
use crate::types::Digest;
use crate::types::state::{HistoryEntry, Outcome};

/// A longer history moves to `history.jsonl.1`, in place of the one there, and a new one begins.
const BYTES_MAX: u64 = 8 << 20;
/// The last outcomes are within so many bytes from the end.
const TAIL_BYTES: u64 = 256 << 10;

impl Store {
    /// Adds an outcome, once: a transaction that has its line already (a crash came after it) gets no second one.
    pub fn remember(&self, entry: &HistoryEntry) -> Result<(), Error> {
        let path = self.layout.history();
        let tail = match disk::read_end(&path, TAIL_BYTES) {
            Ok(tail) => tail.unwrap_or_default(),
            Err(error) => {
                // No file of ours, or one that cannot be read: it is kept for a look, and a new one begins.
                tracing::warn!("{error}: {}; the history begins anew", error.source);
                self.disk.rename(&path, &beside(&path, "damaged"))?;
                Vec::new()
            }
        };
        if entries(&tail).first().is_some_and(|last| last.transaction == entry.transaction) {
            return Ok(());
        }
        if fs::symlink_metadata(&path).is_ok_and(|found| found.len() > BYTES_MAX) {
            self.disk.rename(&path, &beside(&path, "1"))?;
        }
        let is_torn = tail.last().is_some_and(|byte| *byte != b'\n');
        let mut entry = entry.clone();
        if fs::symlink_metadata(&path).is_err() {
            entry.before = totals(&read(&path)?);
        }
        let line = line_of(&entry).map_err(|error| disk::Error::new("write", &path, error))?;
        let line = if is_torn { format!("\n{line}\n") } else { format!("{line}\n") };
        Ok(self.disk.append(&path, line.as_bytes(), 0o644)?)
    }
}

/// The history, newest first: the present file, and the one before it.
pub fn read(path: &Path) -> Result<Vec<HistoryEntry>, Error> {
    let mut all = entries(&disk::read_end(path, 2 * BYTES_MAX)?.unwrap_or_default());
    all.extend(entries(&disk::read_end(&beside(path, "1"), 2 * BYTES_MAX)?.unwrap_or_default()));
    Ok(all)
}

/// How many lines of the present file say nothing, beside those that a power cut leaves.
pub fn unread(path: &Path) -> usize {
    let bytes = disk::read_end(path, 2 * BYTES_MAX).ok().flatten().unwrap_or_default();
    let is_torn = |line: &&[u8]| line.iter().all(|byte| *byte == 0);
    bytes.split(|byte| *byte == b'\n').filter(|line| !is_torn(line) && parse_line(line).is_none()).count()
}

/// How often each outcome came, from a history as `read` has it; also those that are no longer in the files.
pub fn totals(history: &[HistoryEntry]) -> BTreeMap<Outcome, u64> {
    let mut totals = BTreeMap::new();
    for entry in history {
        *totals.entry(entry.outcome).or_default() += 1;
        if !entry.before.is_empty() {
            entry.before.iter().for_each(|(outcome, count)| *totals.entry(*outcome).or_default() += count);
            break;
        }
    }
    totals
}

/// The last outcomes, newest first: for those that look often.
pub fn newest(path: &Path) -> Result<Vec<HistoryEntry>, Error> {
    Ok(entries(&disk::read_end(path, TAIL_BYTES)?.unwrap_or_default()))
}

fn entries(bytes: &[u8]) -> Vec<HistoryEntry> {
    bytes.split(|byte| *byte == b'\n').rev().filter_map(parse_line).collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn line_of(entry: &HistoryEntry) -> serde_json::Result<String> {
    let text = serde_json::to_string(entry)?;
    let sum = &Digest::of(text.as_bytes()).hex()[..16];
    Ok(format!("{},\"sum\":\"{sum}\"}}", text.strip_suffix('}').unwrap_or(&text)))
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
            before: BTreeMap::new(),
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
        store.disk.append(&store.layout.history(), b"\0\0\n\nof tomorrow\n", 0o644).unwrap();
        assert_eq!(unread(&store.layout.history()), 2, "the torn one, and that of tomorrow");
    }

    #[test]
    fn an_endless_history_moves_aside_and_the_last_outcome_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { layout: Layout::new(directory.path()), disk: Disk::default() };
        store.disk.make_directory(&store.layout.private(), 0o700).unwrap();
        let path = store.layout.history();
        store.remember(&entry("a")).unwrap();
        let endless = vec![b'x'; usize::try_from(5 * BYTES_MAX).unwrap()];
        store.disk.append(&path, &endless, 0o644).unwrap();
        store.remember(&entry("b")).unwrap();
        assert_eq!(newest(&path).unwrap(), [entry("b")]);
        assert_eq!(read(&path).unwrap()[0], entry("b"));
        assert!(fs::metadata(&path).unwrap().len() < 1000);
    }

    #[test]
    fn what_is_counted_never_goes_down() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { layout: Layout::new(directory.path()), disk: Disk::default() };
        store.disk.make_directory(&store.layout.private(), 0o700).unwrap();
        let path = store.layout.history();
        for number in 1..=3 {
            store.remember(&entry(&number.to_string())).unwrap();
            let endless = vec![b'x'; usize::try_from(BYTES_MAX).unwrap() + 1];
            store.disk.append(&path, &endless, 0o644).unwrap();
            assert_eq!(totals(&read(&path).unwrap()), [(Outcome::RolledBack, number)].into());
        }
    }

    #[test]
    fn what_is_no_history_is_kept_and_stops_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { layout: Layout::new(directory.path()), disk: Disk::default() };
        store.disk.make_directory(&store.layout.private(), 0o700).unwrap();
        let path = store.layout.history();
        store.disk.make_directory(&path, 0o755).unwrap();
        store.remember(&entry("a")).unwrap();
        assert_eq!(read(&path).unwrap(), [entry("a")]);
        assert!(beside(&path, "damaged").is_dir());
    }
}
