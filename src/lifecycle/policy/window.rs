//! Windows: when automatic switching is allowed, by the wall clock of a place.
//!
//! A window opens at a time of day on its days, and stays open for its length of real time. Where the clocks are put
//! forward over the opening it opens as much later; where they are put back over it, it opens the first time only.

use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span as CalendarSpan, Timestamp};
use serde::{Deserialize, Serialize};

use crate::types::Span;

/// One window that opens again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// On these days of the week; every day when there are none.
    #[serde(default)]
    pub days: Vec<Day>,
    /// Opens at this time of day.
    pub start: TimeOfDay,
    pub length: Length,
    /// Where the days and the time of day hold.
    #[serde(default)]
    pub timezone: Zone,
}

/// A day of the week, written `Sun`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time of day, written `01:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(Time);

/// How long a window stays open: more than nothing, and at most a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Span", into = "Span")]
pub struct Length(Span);

/// A time zone by its name, such as `Europe/Berlin`; `UTC` needs no time zone data on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone, String);

/// A text that is no part of a window.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotAWindow {
    /// A bad time of day.
    #[error("`{}` is not a time of day such as `01:30`", .0.escape_debug())]
    Start(String),
    #[error("`{0}` is not the length of a window: more than nothing, and at most `7d`")]
    Length(Span),
    #[error("`{}` is not a time zone that this node knows, such as `UTC` or, with time zone data (the package tzdata), `Europe/Berlin`", .0.escape_debug())]
    Zone(String),
}

const LENGTH_MAX: Span = Span::seconds(7 * 86_400);

/// A stretch of time: from its opening up to, and without, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
}

impl Window {
    /// The opening that `now` is in, else the next one, each shortened at its begin by `offset` (at most half of it).
    /// `None` only at the end of time.
    pub fn current_or_next(&self, now: Timestamp, offset: SignedDuration) -> Option<Opening> {
        let today = now.to_zoned_datetime(self.timezone.0.clone()).date();
        let first = today.checked_sub(CalendarSpan::new().days(self.length.days() + 1)).ok()?;
        // One whole week after today holds every day of the week once.
        let days = self.length.days() + 1 + 8;
        (0..=days)
            .filter_map(|day| first.checked_add(CalendarSpan::new().days(day)).ok())
            .filter(|date| self.is_on(*date))
            .filter_map(|date| self.opening_on(date, offset))
            .find(|opening| now < opening.to)
    }

    fn is_on(&self, date: Date) -> bool {
        self.days.is_empty() || self.days.iter().any(|day| day.weekday() == date.weekday())
    }

    fn opening_on(&self, date: Date, offset: SignedDuration) -> Option<Opening> {
        // Jiff's "compatible" rule: after a gap, and before a fold.
        let opens =
            date.to_datetime(self.start.0).to_zoned_datetime(self.timezone.0.clone()).ok()?.timestamp();
        let length = SignedDuration::try_from(self.length.0.0).ok()?;
        let to = opens.checked_add(length).ok()?;
        let from = opens.checked_add(offset.min(length / 2)).ok()?;
        Some(Opening { from, to })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.is_empty() {
            write!(formatter, "every day")?;
        }
        for (number, day) in self.days.iter().enumerate() {
            write!(formatter, "{}{day:?}", if number == 0 { "" } else { ", " })?;
        }
        write!(formatter, " {} for {} ({})", self.start, self.length.0, self.timezone.1)
    }
}

impl Day {
    fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

impl Length {
    fn days(self) -> i64 {
        i64::try_from(self.0.0.as_secs().div_ceil(86_400)).unwrap_or(7)
    }
}

impl TryFrom<Span> for Length {
    type Error = NotAWindow;

    fn try_from(span: Span) -> Result<Self, NotAWindow> {
        if span.0.is_zero() || span > LENGTH_MAX { Err(NotAWindow::Length(span)) } else { Ok(Self(span)) }
    }
}

impl From<Length> for Span {
    fn from(length: Length) -> Self {
        length.0
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = NotAWindow;

    fn try_from(text: String) -> Result<Self, NotAWindow> {
        let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = text.split_once(':').filter(|(hour, minute)| two(hour) && two(minute));
        let time =
            parsed.and_then(|(hour, minute)| Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok());
        time.map(Self).ok_or_else(|| NotAWindow::Start(text.chars().take(40).collect()))
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC, "UTC".to_owned())
    }
}

impl TryFrom<String> for Zone {
    type Error = NotAWindow;

    fn try_from(name: String) -> Result<Self, NotAWindow> {
        if name == "UTC" {
            return Ok(Self::default());
        }
        match TimeZone::get(&name) {
            Ok(zone) => Ok(Self(zone, name)),
            Err(_) => Err(NotAWindow::Zone(name.chars().take(40).collect())),
        }
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        toml::from_str(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The opening as `from/to`, without an offset.
    fn opening(window: &Window, now: &str) -> String {
        let opening = window.current_or_next(at(now), SignedDuration::ZERO).unwrap();
        format!("{}/{}", opening.from, opening.to)
    }

    #[test]
    fn a_window_is_open_from_its_start_for_its_length() {
        let window = window("days = ['Sun']\nstart = '01:30'\nlength = '60min'");
        let this = "2026-11-22T01:30:00Z/2026-11-22T02:30:00Z";
        for (now, wanted) in [
            ("2026-11-16T00:00:00Z", this),
            ("2026-11-22T01:29:59Z", this),
            ("2026-11-22T01:30:00Z", this),
            ("2026-11-22T02:29:59Z", this),
            ("2026-11-22T02:30:00Z", "2026-11-29T01:30:00Z/2026-11-29T02:30:00Z"),
        ] {
            assert_eq!(opening(&window, now), wanted, "at {now}");
        }
    }

    #[test]
    fn a_window_may_reach_over_midnight_and_over_days() {
        let night = window("days = ['Fri']\nstart = '22:00'\nlength = '6h'");
        assert_eq!(opening(&night, "2026-11-21T03:00:00Z"), "2026-11-20T22:00:00Z/2026-11-21T04:00:00Z");
        let weekend = window("days = ['Sat']\nstart = '00:00'\nlength = '2d'");
        assert_eq!(opening(&weekend, "2026-11-22T23:59:59Z"), "2026-11-21T00:00:00Z/2026-11-23T00:00:00Z");
        let week = window("days = ['Mon']\nstart = '12:00'\nlength = '7d'");
        assert_eq!(opening(&week, "2026-11-23T11:00:00Z"), "2026-11-16T12:00:00Z/2026-11-23T12:00:00Z");
    }

    #[test]
    fn a_window_that_opens_in_the_skipped_hour_opens_after_it() {
        // Clocks in Berlin go from 02:00 to 03:00 on 29 March 2026.
        let window = window("start = '02:30'\nlength = '60min'\ntimezone = 'Europe/Berlin'");
        assert_eq!(opening(&window, "2026-03-29T00:00:00Z"), "2026-03-29T01:30:00Z/2026-03-29T02:30:00Z");
        assert_eq!(opening(&window, "2026-03-28T00:00:00Z"), "2026-03-28T01:30:00Z/2026-03-28T02:30:00Z");
        assert_eq!(opening(&window, "2026-03-29T12:00:00Z"), "2026-03-30T00:30:00Z/2026-03-30T01:30:00Z");
    }

    #[test]
    fn a_window_that_opens_in_the_repeated_hour_opens_once_and_keeps_its_length() {
        // Clocks in Berlin go from 03:00 back to 02:00 on 25 October 2026.
        let window = window("start = '02:30'\nlength = '90min'\ntimezone = 'Europe/Berlin'");
        assert_eq!(opening(&window, "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00Z/2026-10-25T02:00:00Z");
        assert_eq!(opening(&window, "2026-10-25T02:00:00Z"), "2026-10-26T01:30:00Z/2026-10-26T03:00:00Z");
    }

    #[test]
    fn an_offset_shortens_a_window_by_half_at_most() {
        let window = window("start = '01:00'\nlength = '60min'");
        let with = |minutes| {
            let opening =
                window.current_or_next(at("2026-11-22T00:00:00Z"), SignedDuration::from_mins(minutes));
            opening.unwrap().from.to_string()
        };
        assert_eq!(with(10), "2026-11-22T01:10:00Z");
        assert_eq!(with(300), "2026-11-22T01:30:00Z");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "start = '25:00'\nlength = '1h'",
            "start = '1:30'\nlength = '1h'",
            "start = '01:30'\nlength = '0s'",
            "start = '01:30'\nlength = '8d'",
            "start = '01:30'",
            "days = ['Sunday']\nstart = '01:30'\nlength = '1h'",
            "start = '01:30'\nlength = '1h'\ntimezone = 'Mars/Olympus'",
            "start = '01:30'\nlength = '1h'\nend = '02:30'",
        ] {
            assert!(toml::from_str::<Window>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_is_written_as_it_is_read() {
        let window =
            window("days = ['Sat', 'Sun']\nstart = '01:30'\nlength = '60min'\ntimezone = 'Europe/Berlin'");
        assert_eq!(toml::from_str::<Window>(&toml::to_string(&window).unwrap()).unwrap(), window);
        assert_eq!(window.to_string(), "Sat, Sun 01:30 for 1h (Europe/Berlin)");
    }
}
