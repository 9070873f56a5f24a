//! Durations and sizes as people write them in configuration and on the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SpanRelativeTo;
use serde::{Deserialize, Serialize};

/// A length of time, written `90s`, `5min` or `1h 30min`. At most ten years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// A number of bytes, written `512MiB` or `4096`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "SizeText", into = "String")]
pub struct Size(pub u64);

/// A text that is neither a duration nor a size.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotAUnit {
    #[error("`{}` is not a duration such as `90s` or `5min`, and at most ten years", .0.escape_debug())]
    Span(String),
    #[error("`{}` is not a size such as `512MiB`", .0.escape_debug())]
    Size(String),
}

const SPAN_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        let wrong = || NotAUnit::Span(text.chars().take(40).collect());
        let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
        let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let duration = Duration::try_from(signed).map_err(|_| wrong())?;
        if duration > SPAN_MAX { Err(wrong()) } else { Ok(Self(duration)) }
    }
}

impl TryFrom<String> for Span {
    type Error = NotAUnit;

    fn try_from(text: String) -> Result<Self, NotAUnit> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let milliseconds = self.0.subsec_millis();
        match (seconds, milliseconds) {
            (0, milliseconds) => write!(formatter, "{milliseconds}ms"),
            (seconds, 0) if seconds.is_multiple_of(86_400) => write!(formatter, "{}d", seconds / 86_400),
            (seconds, 0) if seconds.is_multiple_of(3600) => write!(formatter, "{}h", seconds / 3600),
            (seconds, 0) if seconds.is_multiple_of(60) => write!(formatter, "{}min", seconds / 60),
            (seconds, 0) => write!(formatter, "{seconds}s"),
            (seconds, milliseconds) => write!(formatter, "{seconds}s {milliseconds}ms"),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// How far a clock is ahead of another one, or behind it, by how far the other one is ahead.
pub fn clock_words(other_ms: f64) -> String {
    let side = if other_ms > 0.0 { "behind" } else { "ahead" };
    let ms = other_ms.abs();
    let far = match ms / 1000.0 {
        ..1.0 => format!("{ms:.0} ms"),
        seconds @ ..10.0 => format!("{seconds:.1} s"),
        seconds @ ..120.0 => format!("{seconds:.0} s"),
        seconds @ ..7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds @ ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} days", seconds / 86_400.0),
    };
    format!("{far} {side}")
}

/// TOML may say a size as a number or as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(u64),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = NotAUnit;

    fn try_from(text: SizeText) -> Result<Self, NotAUnit> {
        match text {
            SizeText::Number(bytes) => Ok(Self(bytes)),
            SizeText::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Size {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| NotAUnit::Size(text.chars().take(40).collect()))
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize::b(self.0).display().iec().fmt(formatter)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind_in_units_that_people_read() {
        let cases = [
            (-10_000.0, "10 s ahead"),
            (10_000.4, "10 s behind"),
            (-3000.0, "3.0 s ahead"),
            (250.4, "250 ms behind"),
            (-119_000.0, "119 s ahead"),
            (600_000.0, "10 min behind"),
            (-7_200_000.0, "2 h ahead"),
            (34_559_999_997.0, "400 days behind"),
        ];
        for (other_ms, words) in cases {
            assert_eq!(clock_words(other_ms), words);
        }
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        for (text, seconds) in [("30s", 30), ("5min", 300), ("1h 30min", 5400), ("2d", 172_800)] {
            assert_eq!(text.parse::<Span>().unwrap(), Span::seconds(seconds), "{text}");
        }
        for text in ["", "5", "-3s", "soon", "99999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!("1GiB".parse::<Size>().unwrap(), Size(1 << 30));
        assert_eq!("4096".parse::<Size>().unwrap(), Size(4096));
        assert!("many".parse::<Size>().is_err());
    }
}
