//! The name of a release. A name only: which release is newer is said by the channel's serial.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest version name in bytes.
pub const VERSION_LENGTH_MAX: usize = 128;

/// A version: `[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}`. Safe to use as the name of a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// A text that cannot be a version.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "`{}` is not a version: 1 to {VERSION_LENGTH_MAX} letters, digits or `._+~-`, the first a letter or digit",
    .0.escape_debug()
)]
pub struct NotAVersion(pub String);

impl Version {
    /// The name as it stands on disk.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte);
        let first_is_alphanumeric = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first_is_alphanumeric && text.len() <= VERSION_LENGTH_MAX && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAVersion(text.chars().take(VERSION_LENGTH_MAX).collect()))
        }
    }
}

impl TryFrom<String> for Version {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl AsRef<std::path::Path> for Version {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_names_are_versions() {
        for good in ["1", "2.4.1", "1.0~rc1", "v2+deb12", "a_b-c", &"9".repeat(128)] {
            assert!(good.parse::<Version>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".1", "-1", "1/2", "1\n", "1 2", "é", "~1", &"9".repeat(129)] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
