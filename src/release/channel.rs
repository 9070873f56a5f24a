//! The channel: which release is to run, in a small text that is signed anew for every change.
//!
//! ```text
//! format = 1
//! product = shop
//! channel = stable
//! serial = 42                           grows with every change; a node takes no smaller one
//! issued = 2026-01-31T12:00:00Z
//! expires = 2026-03-02T12:00:00Z        afterwards nobody switches because of it
//! release = 1.4.2 sha256:3b0c…          the one to run, by the digest of its manifest
//! also = 1.4.1 sha256:77ab…             may be asked for by name; repeated
//! published = 1.4.1                     versions in the order in which they were first published; repeated
//! minimum = 1.3.0                       none that was published before it
//! revoked = 1.4.0                       never again; repeated
//! percent = 20                          of the nodes; each knows its own bucket
//! wave = 2026-02-01T12:00:00Z 100       from then on so many; repeated, in order of time
//! ```

use std::cmp::Ordering;

use jiff::Timestamp;

use super::text::{Document, Line, Malformed, ValueProblem, moment_text, number};
use crate::types::state::SeenOffer;
use crate::types::{ReleaseId, Version};

/// The longest channel file in bytes.
pub const CHANNEL_BYTES_MAX: usize = 1 << 20;

const ONCE: [&str; 9] =
    ["format", "product", "channel", "serial", "issued", "expires", "release", "minimum", "percent"];
const REPEATED: [&str; 4] = ["also", "published", "revoked", "wave"];
/// So many versions keep their order; those published before them are older than all of these.
const PUBLISHED_MAX: usize = 4096;

/// The name of the file in which a publisher writes what comes next, before it replaces the channel `name`.
pub fn next_name(name: &str) -> String {
    format!("{name}.next")
}

/// What a channel file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Which application it is about.
    pub product: String,
    /// The channel's name: a file under another name is refused.
    pub channel: String,
    pub serial: u64,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub release: ReleaseId,
    /// Others that may be staged or pinned, newest first.
    pub also: Vec<ReleaseId>,
    /// All versions in the order in which they were first published, the oldest first: by it they are older or newer.
    pub published: Vec<Version>,
    /// The oldest release that may still be installed.
    pub minimum: Option<Version>,
    /// Releases that may not be installed any more.
    pub revoked: Vec<Version>,
    /// The part of the nodes that may switch, 0 to 100.
    pub percent: Option<u8>,
    /// From each moment on, the part of the nodes that may switch; in order of time.
    pub waves: Vec<(Timestamp, u8)>,
    /// Keys that begin with `x-`, with their values.
    pub extras: Vec<(String, String)>,
}

impl Channel {
    /// Reads a channel file. Verify the signature over the same bytes first.
    ///
    /// # Errors
    /// Names line and key of the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let document = Document::read(bytes, CHANNEL_BYTES_MAX, &ONCE, &REPEATED)?;
        let issued = document.need("issued")?.moment()?;
        let expires_line = document.need("expires")?;
        let expires = expires_line.moment()?;
        if expires <= issued {
            return Err(expires_line.wrong(ValueProblem::Conflict("it must be later than `issued`")));
        }
        let release = release_id(document.need("release")?)?;
        let mut also: Vec<ReleaseId> = Vec::new();
        for line in document.all("also") {
            let id = release_id(line)?;
            if id.version == release.version || also.iter().any(|other| other.version == id.version) {
                return Err(line.wrong(ValueProblem::Conflict("this version is named twice")));
            }
            also.push(id);
        }
        let mut waves: Vec<(Timestamp, u8)> = Vec::new();
        for line in document.all("wave") {
            let wave = wave(line)?;
            if waves.last().is_some_and(|last| last.0 >= wave.0 || last.1 > wave.1) {
                let problem = "waves must come in order of time, and may not shrink";
                return Err(line.wrong(ValueProblem::Conflict(problem)));
            }
            waves.push(wave);
        }
        Ok(Self {
            product: document.need("product")?.name()?,
            channel: document.need("channel")?.name()?,
            serial: document.need("serial")?.number()?,
            issued,
            expires,
            release,
            also,
            published: document.all("published").map(|line| line.version()).collect::<Result<_, _>>()?,
            minimum: document.get("minimum").map(|line| line.version()).transpose()?,
            revoked: document.all("revoked").map(|line| line.version()).collect::<Result<_, _>>()?,
            percent: document.get("percent").map(percent).transpose()?,
            waves,
            extras: document.extras(),
        })
    }

    /// The channel as a text: always the same bytes for the same facts, and read back as they are.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            "format = 1".to_owned(),
            format!("product = {}", self.product),
            format!("channel = {}", self.channel),
            format!("serial = {}", self.serial),
            format!("issued = {}", moment_text(self.issued)),
            format!("expires = {}", moment_text(self.expires)),
            format!("release = {} {}", self.release.version, self.release.digest),
        ];
        lines.extend(self.also.iter().map(|id| format!("also = {} {}", id.version, id.digest)));
        lines.extend(self.published.iter().map(|version| format!("published = {version}")));
        lines.extend(self.minimum.iter().map(|version| format!("minimum = {version}")));
        lines.extend(self.revoked.iter().map(|version| format!("revoked = {version}")));
        lines.extend(self.percent.iter().map(|percent| format!("percent = {percent}")));
        lines.extend(self.waves.iter().map(|(from, part)| format!("wave = {} {part}", moment_text(*from))));
        lines.extend(self.extras.iter().map(|(key, value)| format!("{key} = {value}")));
        lines.join("\n") + "\n"
    }

    /// The release of this version, where the channel names it.
    pub fn find(&self, version: &Version) -> Option<&ReleaseId> {
        self.releases().find(|id| id.version == *version)
    }

    /// All releases that the channel names, the one to run first.
    pub fn releases(&self) -> impl Iterator<Item = &ReleaseId> {
        std::iter::once(&self.release).chain(&self.also)
    }

    /// Whether the version is revoked.
    pub fn is_revoked(&self, version: &Version) -> bool {
        self.revoked.contains(version)
    }

    /// Whether the version is older than the minimum: published earlier, where the channel says so of both; else by
    /// their names, as people count versions. (Nowhere else does the order of names mean anything.)
    pub fn is_below_minimum(&self, version: &Version) -> bool {
        let Some(minimum) = &self.minimum else { return false };
        let place = |wanted: &Version| self.published.iter().position(|version| version == wanted);
        match (place(version), place(minimum)) {
            (Some(version), Some(minimum)) => version < minimum,
            _ => natural_order(version.as_str(), minimum.as_str()).is_lt(),
        }
    }

    /// Notes that a version is published. A channel that never noted any has these, as far as it names them.
    pub fn remember_order(&mut self, version: &Version) {
        if self.published.is_empty() {
            let known = self.also.iter().rev().chain([&self.release]);
            self.published = known.map(|id| id.version.clone()).collect();
        }
        if !self.published.contains(version) {
            self.published.push(version.clone());
        }
        let surplus = self.published.len().saturating_sub(PUBLISHED_MAX);
        self.published.drain(..surplus);
    }

    /// What is remembered of it for those who ask why nothing newer runs.
    pub fn offer(&self) -> SeenOffer {
        let from_start = if self.waves.is_empty() { 100 } else { 0 };
        SeenOffer {
            release: self.release.clone(),
            expires: self.expires,
            percent: self.percent.unwrap_or(from_start),
            waves: self.waves.clone(),
            since: None,
            revoked: self.revoked.clone(),
        }
    }

    /// The part of the nodes that may switch at `now`, 0 to 100.
    pub fn percent_at(&self, now: Timestamp) -> u8 {
        self.offer().percent_at(now)
    }
}

/// `VERSION sha256:DIGEST`.
fn release_id(line: Line<'_>) -> Result<ReleaseId, Malformed> {
    let wrong = || {
        let value = crate::types::escaped(line.value.as_bytes());
        line.wrong(ValueProblem::Not { value, wanted: "`VERSION sha256:DIGEST`" })
    };
    let (version, digest) = line.value.split_once(' ').ok_or_else(wrong)?;
    Ok(ReleaseId {
        version: version.parse().map_err(|_| wrong())?,
        digest: digest.trim_start_matches(' ').parse().map_err(|_| wrong())?,
    })
}

fn percent(line: Line<'_>) -> Result<u8, Malformed> {
    part(line.value).ok_or_else(|| {
        let value = crate::types::escaped(line.value.as_bytes());
        line.wrong(ValueProblem::Not { value, wanted: "a whole number from 0 to 100" })
    })
}

/// `TIME PERCENT`.
fn wave(line: Line<'_>) -> Result<(Timestamp, u8), Malformed> {
    let read = || {
        let (from, to) = line.value.split_once(' ')?;
        Some((super::text::moment(from)?, part(to.trim_start_matches(' '))?))
    };
    read().ok_or_else(|| {
        let value = crate::types::escaped(line.value.as_bytes());
        line.wrong(ValueProblem::Not { value, wanted: "a UTC time and a whole number from 0 to 100" })
    })
}

fn part(text: &str) -> Option<u8> {
    number(text).and_then(|number| u8::try_from(number).ok()).filter(|number| *number <= 100)
}

/// The order in which people count versions: runs of digits as numbers, `~` before the end, the rest bytewise.
fn natural_order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        let rank = |text: &[u8]| match text.first() {
            Some(b'~') => 0,
            None => 1,
            Some(byte) if byte.is_ascii_digit() => 2,
            Some(byte) => u16::from(*byte) + 3,
        };
        let (first, second) = (rank(one), rank(other));
        match (first, second) {
            (1, 1) => return Ordering::Equal,
            (2, 2) => {
                let run = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let ((left, one_rest), (right, other_rest)) =
                    (one.split_at(run(one)), other.split_at(run(other)));
                let (left, right) = (without_zeros(left), without_zeros(right));
                match left.len().cmp(&right.len()).then_with(|| left.cmp(right)) {
                    Ordering::Equal => (one, other) = (one_rest, other_rest),
                    unequal => return unequal,
                }
            }
            _ if first == second => (one, other) = (&one[1..], &other[1..]),
            _ => return first.cmp(&second),
        }
    }
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    fn id(version: &str) -> ReleaseId {
        ReleaseId { version: version.parse().unwrap(), digest: Digest::of(version.as_bytes()) }
    }

    fn full() -> Channel {
        Channel {
            product: "shop".into(),
            channel: "stable".into(),
            serial: 42,
            issued: "2026-01-31T12:00:00Z".parse().unwrap(),
            expires: "2026-03-02T12:00:00Z".parse().unwrap(),
            release: id("1.4.2"),
            also: vec![id("1.4.1"), id("1.3.0")],
            published: ["1.3.0", "1.4.0", "1.4.1", "1.4.2"].map(|version| version.parse().unwrap()).to_vec(),
            minimum: Some("1.4.1".parse().unwrap()),
            revoked: vec!["1.4.0".parse().unwrap()],
            percent: Some(20),
            waves: vec![
                ("2026-02-01T12:00:00Z".parse().unwrap(), 50),
                ("2026-02-02T12:00:00Z".parse().unwrap(), 100),
            ],
            extras: vec![("x-note".into(), "canaries first".into())],
        }
    }

    #[test]
    fn a_channel_is_read_back_as_it_was_written() {
        assert_eq!(Channel::parse(full().to_text().as_bytes()).unwrap(), full());
    }

    #[test]
    fn minimum_and_revocation_rule_releases_out() {
        let channel = full();
        for (version, below, revoked) in
            [("1.4.2", false, false), ("1.4.1", false, false), ("1.3.0", true, false), ("1.4.0", true, true)]
        {
            let version = version.parse().unwrap();
            assert_eq!(channel.is_below_minimum(&version), below, "{version}");
            assert_eq!(channel.is_revoked(&version), revoked, "{version}");
        }
    }

    #[test]
    fn the_minimum_goes_by_the_order_of_publication() {
        let mut channel = Channel { published: Vec::new(), also: Vec::new(), minimum: None, ..full() };
        channel.release = id("2.0");
        channel.remember_order(&channel.release.version.clone());
        // 1.9.1 was mended after 2.0 came out; then the publisher goes back to 2.0.
        channel.remember_order(&"1.9.1".parse().unwrap());
        channel.remember_order(&"2.0".parse().unwrap());
        let below = |channel: &Channel, version: &str| channel.is_below_minimum(&version.parse().unwrap());
        channel.minimum = Some("1.9.1".parse().unwrap());
        assert!(below(&channel, "2.0") && !below(&channel, "1.9.1"));
        channel.minimum = Some("2.0".parse().unwrap());
        assert!(!below(&channel, "1.9.1") && !below(&channel, "2.0"));
        assert!(below(&channel, "1.0"), "it was never published here: by its name");
    }

    #[test]
    fn versions_count_as_people_count_them() {
        let ordered = ["1~rc1", "1", "1.2", "1.9.1", "1.10", "2", "10", "10a"];
        for pair in ordered.windows(2) {
            assert!(natural_order(pair[0], pair[1]).is_lt(), "{pair:?}");
            assert!(natural_order(pair[1], pair[0]).is_gt(), "{pair:?}");
        }
        let channel = Channel { minimum: Some("1.2".parse().unwrap()), published: Vec::new(), ..full() };
        assert!(!channel.is_below_minimum(&"1.4.2".parse().unwrap()));
        assert!(channel.is_below_minimum(&"1.1".parse().unwrap()));
    }

    #[test]
    fn waves_let_more_and_more_nodes_switch() {
        let channel = full();
        for (now, percent) in [
            ("2026-01-31T13:00:00Z", 20),
            ("2026-02-01T12:00:00Z", 50),
            ("2026-02-02T11:59:59Z", 50),
            ("2026-02-09T00:00:00Z", 100),
        ] {
            assert_eq!(channel.percent_at(now.parse().unwrap()), percent, "{now}");
        }
        let plain = Channel { percent: None, waves: Vec::new(), ..full() };
        assert_eq!(plain.percent_at(plain.issued), 100);
    }

    #[test]
    fn everything_else_is_refused_with_line_and_key() {
        let good = full().to_text();
        let cases = [
            ("serial = 42", "serial = -1", "line 4: `serial`: `-1` is not a whole number below 2^64"),
            (
                "issued = 2026-01-31T12:00:00Z",
                "issued = 2026-01-31",
                "line 5: `issued`: `2026-01-31` is not a UTC time such as `2026-01-31T12:00:00Z`",
            ),
            (
                "expires = 2026-03-02T12:00:00Z",
                "expires = 2026-01-31T12:00:00Z",
                "line 6: `expires`: it must be later than `issued`",
            ),
            ("release = 1.4.2 ", "release = 1.4.2", "line 7: `release`: "),
            ("also = 1.4.1", "also = 1.4.2", "line 8: `also`: this version is named twice"),
            (
                "percent = 20",
                "percent = 101",
                "line 16: `percent`: `101` is not a whole number from 0 to 100",
            ),
            (
                "wave = 2026-02-02",
                "wave = 2026-01-02",
                "line 18: `wave`: waves must come in order of time, and may not shrink",
            ),
            ("x-note", "note", "line 19: `note` is unknown"),
        ];
        for (old, new, wanted) in cases {
            assert!(good.contains(old));
            let error = Channel::parse(good.replacen(old, new, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
