//! What units wrote to the journal.

use std::ffi::OsString;
use std::time::Duration;

use super::tool;

/// The last lines that a unit's processes wrote, for messages. Empty when there are none.
pub fn journal_tail(unit: &str, lines: u32) -> Vec<String> {
    journal_of(unit, &[format!("--lines={lines}"), "--output=cat".into()]).lines().map(shown).collect()
}

/// The same, of what was written since this moment of the wall clock, in microseconds.
pub fn journal_tail_since(unit: &str, lines: u32, since_us: i64) -> Vec<String> {
    journal_tail_of_others(unit, lines, since_us, &[])
}

/// The same, without what earlier runs of the unit wrote, which are known by their `InvocationID`.
pub fn journal_tail_of_others(unit: &str, lines: u32, since_us: i64, earlier: &[String]) -> Vec<String> {
    let (seconds, rest) = (since_us.div_euclid(1_000_000), since_us.rem_euclid(1_000_000));
    // Of `--since` and `--lines` together journalctl(1) shows the first lines, not the last.
    let options = [
        format!("--since=@{seconds}.{rest:06}"),
        "--output=json".into(),
        "--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID".into(),
    ];
    let text = journal_of(unit, &options);
    let mut all: Vec<_> = text.lines().filter_map(|line| message_of(line, earlier)).collect();
    let last = all.len().saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
    all.split_off(last)
}

/// The text of one entry of the journal; `None` when one of these runs wrote it, or it is no text.
fn message_of(line: &str, earlier: &[String]) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_earlier = ["_SYSTEMD_INVOCATION_ID", "INVOCATION_ID"]
        .iter()
        .any(|field| entry[field].as_str().is_some_and(|run| earlier.iter().any(|other| other == run)));
    if is_earlier { None } else { entry["MESSAGE"].as_str().map(shown) }
}

fn journal_of(unit: &str, options: &[String]) -> String {
    let arguments = ["--unit", unit, "--no-pager", "--quiet"].map(OsString::from).into_iter();
    let outcome =
        tool("journalctl", arguments.chain(options.iter().map(OsString::from)), Duration::from_secs(5));
    if outcome.is_success() { outcome.text() } else { String::new() }
}

fn shown(line: &str) -> String {
    crate::types::escaped(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_earlier_run_are_left_out() {
        let line = |field: &str| format!(r#"{{"MESSAGE":"bye","{field}":"aa"}}"#);
        for field in ["_SYSTEMD_INVOCATION_ID", "INVOCATION_ID"] {
            assert_eq!(message_of(&line(field), &["aa".into()]), None);
            assert_eq!(message_of(&line(field), &["bb".into()]).as_deref(), Some("bye"));
        }
        assert_eq!(message_of(r#"{"MESSAGE":[1,2]}"#, &[]), None);
    }
}
