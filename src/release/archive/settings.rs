//! The table `[archive]`.

use serde::{Deserialize, Serialize};

use super::Limits;
use crate::types::Size;

/// The smallest window that every decoder must take: 8 MiB (RFC 8878, 3.1.1.1.2), as a logarithm.
const WINDOW_LOG_MIN: u32 = 23;
/// The largest one that the `zstd` program can write, without more than a switch: 2 GiB.
const WINDOW_LOG_MAX: u32 = 31;

/// What releases may hold. A manifest that says how much its own holds bounds it as well.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Bytes of all files together at most; without it, what the manifest says, or 64 GiB where it says nothing.
    pub max_bytes: Option<Size>,
    /// Entries at most; without it, what the manifest says, or a million where it says nothing.
    pub max_entries: Option<u64>,
    /// The largest window that zstd may ask for: so much memory may an archive of somebody else's cost.
    pub max_window: Size,
    /// Whether files may be setuid or setgid.
    pub allow_setid: bool,
    /// Whether files may have capabilities.
    pub allow_capabilities: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_bytes: None,
            max_entries: None,
            max_window: Size(1 << limits.window_log),
            allow_setid: limits.allow_setid,
            allow_capabilities: limits.allow_capabilities,
        }
    }
}

impl Settings {
    /// The limits for a release that promises to hold so much.
    pub fn limits(&self, promised_bytes: Option<u64>, promised_entries: Option<u64>) -> Limits {
        let least = |set: Option<u64>, promised: Option<u64>, default: u64| {
            set.into_iter().chain(promised).min().unwrap_or(default)
        };
        let defaults = Limits::default();
        Limits {
            bytes: least(self.max_bytes.map(|size| size.0), promised_bytes, defaults.bytes),
            entries: least(self.max_entries, promised_entries, defaults.entries),
            window_log: self.max_window.0.max(1).ilog2().clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX),
            allow_setid: self.allow_setid,
            allow_capabilities: self.allow_capabilities,
        }
    }

    /// Whether `max_window` is one that zstd knows.
    pub fn is_window_known(&self) -> bool {
        let window = self.max_window.0;
        window.is_power_of_two() && (WINDOW_LOG_MIN..=WINDOW_LOG_MAX).contains(&window.ilog2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_what_is_set_and_what_is_promised_holds() {
        let set = Settings { max_bytes: Some(Size(100)), max_entries: Some(10), ..Settings::default() };
        let free = Settings::default();
        let bytes_and_entries = |limits: Limits| (limits.bytes, limits.entries);
        assert_eq!(bytes_and_entries(set.limits(Some(200), Some(5))), (100, 5));
        assert_eq!(bytes_and_entries(set.limits(None, None)), (100, 10));
        assert_eq!(bytes_and_entries(free.limits(Some(1 << 40), Some(4_000_000))), (1 << 40, 4_000_000));
        assert_eq!(free.limits(None, None), Limits::default());
    }

    #[test]
    fn windows_that_zstd_does_not_know_are_told_apart() {
        let known = |bytes| Settings { max_window: Size(bytes), ..Settings::default() }.is_window_known();
        for (bytes, is_known) in
            [(0, false), (1 << 22, false), (1 << 23, true), (3 << 23, false), (1 << 31, true)]
        {
            assert_eq!(known(bytes), is_known, "{bytes}");
        }
        assert!(!known(1 << 32) && !known(u64::MAX));
    }
}
