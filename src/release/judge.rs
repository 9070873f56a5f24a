//! Whether a channel and a release of it may be installed here: the rules, without any reading or fetching.
//!
//! What is remembered of a channel belongs to the keys that signed it. A stolen key that signed a serial near the end of
//! all numbers blocks nobody after it has been removed or revoked: its memory goes with it. Only signed times are
//! remembered, so that a clock which was wrong once does no harm later.

mod refused;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

pub use refused::Refused;

use super::channel::Channel;
use super::manifest::Manifest;
use super::trust::Signer;
use crate::types::state::SeenChannel;
use crate::types::{Digest, ReleaseId, Version};

/// The key under which the memory of channels without signatures is kept.
const UNSIGNED: &str = "unsigned";

/// Serials this near to the end are refused: no publisher gets there, only somebody who wants to end the counting.
const SERIALS_LEFT_MIN: u64 = 1 << 32;

/// How far a publisher's clock may be ahead of this node's.
const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_mins(10);

/// What this node wants of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// The product; without it, any.
    pub product: Option<&'a str>,
    pub channel: &'a str,
    /// Kinds of releases that run here.
    pub compatible: &'a [String],
}

/// A channel that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub channel: Channel,
    /// What to remember: entries of `State::channels`. Remember them before acting upon the channel.
    pub memory: Vec<(String, SeenChannel)>,
    /// The time that counts: the clock's, or that of the newest signed file if the clock is behind it.
    pub now: Timestamp,
    /// What somebody should look at.
    pub warnings: Vec<Warning>,
}

/// What somebody should look at, although nothing was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The clock is behind a signed time.
    #[error("the clock says {clock}, but a channel was issued at {issued}: the clock is wrong")]
    ClockBehind { clock: Timestamp, issued: Timestamp },
    /// Two thirds of the channel's life are over.
    #[error("channel `{channel}` expires at {expires}: it should be signed anew")]
    ExpiresSoon { channel: String, expires: Timestamp },
    /// Credentials go over the network as they are.
    #[error("credentials are sent over `http://`, where whoever is on the way can read them: use `https://`")]
    CredentialsInClear,
    #[error(
        "`{0}` is taken without a signature, as configured: whoever can write to the source decides what runs here"
    )]
    Unsigned(String),
}

/// Judges a channel whose signature was found good.
///
/// `trusted` are the fingerprints of all keys that may sign channels now; only what is remembered of these counts.
/// Without signers (an unsigned source), what was remembered of unsigned ones does.
pub fn channel(
    channel: Channel,
    digest: Digest,
    signers: &[Signer],
    trusted: &[String],
    memory: &BTreeMap<String, SeenChannel>,
    clock: Timestamp,
    wants: Wants<'_>,
) -> Result<Accepted, Refused> {
    let name = channel.channel.clone();
    let what = || format!("{}.channel", wants.channel);
    if name != wants.channel {
        return Err(Refused::OtherChannel { what: what(), found: name, wanted: wants.channel.to_owned() });
    }
    if let Some(wanted) = wants.product.filter(|wanted| *wanted != channel.product) {
        return Err(Refused::OtherProduct {
            what: what(),
            found: channel.product,
            wanted: wanted.to_owned(),
        });
    }
    let key = |fingerprint: &str| memory_key(&channel.product, &name, fingerprint);
    let owners =
        if signers.is_empty() { vec![UNSIGNED] } else { trusted.iter().map(String::as_str).collect() };
    let seen: Vec<_> = owners.iter().filter_map(|owner| memory.get(&key(owner))).collect();

    let serial = channel.serial;
    if serial > u64::MAX - SERIALS_LEFT_MIN {
        return Err(Refused::FastForward { channel: name, serial });
    }
    if let Some(highest) = seen.iter().map(|seen| seen.serial).max().filter(|highest| *highest > serial) {
        return Err(Refused::Older { channel: name, serial, seen: highest });
    }
    if seen.iter().any(|seen| seen.serial == serial && seen.digest != digest) {
        return Err(Refused::TwoOfOneSerial { channel: name, serial });
    }

    let newest_issued = seen.iter().map(|seen| seen.issued).max();
    let now = newest_issued.map_or(clock, |issued| issued.max(clock));
    let mut warnings = Vec::new();
    if let Some(issued) = newest_issued.filter(|issued| *issued > clock + CLOCK_AHEAD_MAX) {
        warnings.push(Warning::ClockBehind { clock, issued });
    }
    if channel.issued > now + CLOCK_AHEAD_MAX {
        return Err(Refused::FromTheFuture { channel: name, issued: channel.issued, now });
    }
    if channel.expires <= now {
        return Err(Refused::Expired { channel: name, expires: channel.expires, now });
    }
    if now.duration_since(channel.issued) > channel.expires.duration_since(channel.issued) * 2 / 3 {
        warnings.push(Warning::ExpiresSoon { channel: name.clone(), expires: channel.expires });
    }

    let issued = channel.issued.max(newest_issued.unwrap_or(channel.issued));
    let mut offer = channel.offer();
    let known =
        seen.iter().filter_map(|seen| seen.offer.as_ref()).filter(|known| known.release == offer.release);
    offer.since = known.filter_map(|known| known.since).min().or(Some(channel.issued));
    let remember = SeenChannel { serial, digest, issued, offer: Some(offer) };
    let signed_by = signers.iter().map(|signer| signer.fingerprint.as_str());
    let owners: Vec<_> = if signers.is_empty() { vec![UNSIGNED] } else { signed_by.collect() };
    let memory = owners.into_iter().map(|owner| (key(owner), remember.clone())).collect();
    Ok(Accepted { channel, memory, now, warnings })
}

/// What a node that has accepted `before` makes of the channel that comes next: whoever publishes it should hear that
/// first.
pub fn successor(before: Option<&Channel>, next: Channel, clock: Timestamp) -> Result<Vec<Warning>, Refused> {
    let seen = before.map(|before| SeenChannel {
        serial: before.serial,
        digest: Digest::of(before.to_text().as_bytes()),
        issued: before.issued,
        offer: None,
    });
    let memory = seen.map(|seen| (memory_key(&next.product, &next.channel, UNSIGNED), seen));
    let (name, digest) = (next.channel.clone(), Digest::of(next.to_text().as_bytes()));
    let wants = Wants { product: None, channel: &name, compatible: &[] };
    let accepted = channel(next, digest, &[], &[], &memory.into_iter().collect(), clock, wants)?;
    Ok(accepted.warnings)
}

impl Accepted {
    /// The release of this version, or the one to run, if the channel lets it be installed.
    pub fn choose(&self, version: Option<&Version>) -> Result<&ReleaseId, Refused> {
        let channel = || self.channel.channel.clone();
        let wanted = version.unwrap_or(&self.channel.release.version);
        if self.channel.is_revoked(wanted) {
            return Err(Refused::Revoked { channel: channel(), version: wanted.clone() });
        }
        let not_named = || Refused::NotNamed { channel: channel(), version: wanted.clone() };
        let release = self.channel.find(wanted).ok_or_else(not_named)?;
        match &self.channel.minimum {
            Some(minimum) if self.channel.is_below_minimum(wanted) => Err(Refused::BelowMinimum {
                channel: channel(),
                version: wanted.clone(),
                minimum: minimum.clone(),
            }),
            _ => Ok(release),
        }
    }

    /// How many percent of the nodes may install this release by now.
    pub fn percent(&self, release: &ReleaseId) -> u8 {
        // Who asks for another than the channel's release has chosen it himself.
        if *release == self.channel.release { self.channel.percent_at(self.now) } else { 100 }
    }
}

/// Judges a manifest whose signature was found good: `what` is its file, `release` what the channel says of it.
pub fn manifest(
    manifest: &Manifest,
    what: &str,
    release: Option<&ReleaseId>,
    wants: Wants<'_>,
) -> Result<(), Refused> {
    let what = || what.to_owned();
    if let Some(wanted) = wants.product.filter(|wanted| *wanted != manifest.product) {
        let found = manifest.product.clone();
        return Err(Refused::OtherProduct { what: what(), found, wanted: wanted.to_owned() });
    }
    if let Some(release) = release.filter(|release| release.version != manifest.version) {
        let (found, wanted) = (manifest.version.clone(), release.version.clone());
        return Err(Refused::OtherVersion { what: what(), found, wanted });
    }
    let fits = |kind: &String| wants.compatible.contains(kind);
    if !manifest.compatible.is_empty() && !manifest.compatible.iter().any(fits) {
        return Err(Refused::Incompatible {
            version: manifest.version.clone(),
            wanted: manifest.compatible.clone(),
            here: wants.compatible.to_vec(),
        });
    }
    Ok(())
}

/// Forgets what is remembered of a channel, whatever keys signed it. Gives what was forgotten.
pub fn forget(memory: &mut BTreeMap<String, SeenChannel>, channel: &str) -> Vec<(String, SeenChannel)> {
    let is_of = |key: &String| {
        let name = key.split(' ').next().unwrap_or_default();
        name.split_once('/').is_some_and(|(_, name)| name == channel)
    };
    let keys: Vec<_> = memory.keys().filter(|key| is_of(key)).cloned().collect();
    keys.into_iter().filter_map(|key| memory.remove_entry(&key)).collect()
}

/// The key of an entry of `State::channels`.
fn memory_key(product: &str, channel: &str, fingerprint: &str) -> String {
    format!("{product}/{channel} {fingerprint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUED: &str = "2026-06-01T00:00:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn id(version: &str) -> ReleaseId {
        ReleaseId { version: version.parse().unwrap(), digest: Digest::of(version.as_bytes()) }
    }

    fn stable(serial: u64) -> Channel {
        Channel {
            product: "shop".into(),
            channel: "stable".into(),
            serial,
            issued: time(ISSUED),
            expires: time("2026-07-01T00:00:00Z"),
            release: id("2.0"),
            also: vec![id("1.9"), id("1.8"), id("1.7")],
            published: Vec::new(),
            minimum: Some("1.8".parse().unwrap()),
            revoked: vec!["1.9".parse().unwrap()],
            percent: Some(20),
            waves: Vec::new(),
            extras: Vec::new(),
        }
    }

    /// A node that trusts some keys and remembers.
    #[derive(Default)]
    struct Node {
        trusted: Vec<String>,
        memory: BTreeMap<String, SeenChannel>,
        clock: Option<Timestamp>,
    }

    impl Node {
        fn trusting(keys: &[&str]) -> Self {
            Self { trusted: keys.iter().map(ToString::to_string).collect(), ..Self::default() }
        }

        fn sees(&mut self, channel: Channel, keys: &[&str]) -> Result<Accepted, Refused> {
            let signers: Vec<_> =
                keys.iter().map(|key| Signer { fingerprint: key.to_string(), name: String::new() }).collect();
            let digest = Digest::of(channel.to_text().as_bytes());
            let clock = self.clock.unwrap_or(time("2026-06-02T00:00:00Z"));
            let wants = Wants { product: Some("shop"), channel: "stable", compatible: &[] };
            let accepted =
                super::channel(channel, digest, &signers, &self.trusted, &self.memory, clock, wants)?;
            self.memory.extend(accepted.memory.clone());
            Ok(accepted)
        }
    }

    #[test]
    fn an_older_serial_is_never_taken() {
        let mut node = Node::trusting(&["a"]);
        node.sees(stable(7), &["a"]).unwrap();
        node.sees(stable(7), &["a"]).unwrap();
        assert_eq!(
            node.sees(stable(6), &["a"]).unwrap_err(),
            Refused::Older { channel: "stable".into(), serial: 6, seen: 7 }
        );
        let other = Channel { release: id("1.8"), also: Vec::new(), ..stable(7) };
        assert!(matches!(node.sees(other.clone(), &["a"]), Err(Refused::TwoOfOneSerial { serial: 7, .. })));
        node.sees(Channel { serial: 8, ..other }, &["a"]).unwrap();
        assert_eq!(forget(&mut node.memory, "stable").len(), 1);
        node.sees(stable(1), &["a"]).unwrap();
        assert!(forget(&mut node.memory, "stabl").is_empty());
    }

    #[test]
    fn an_unsigned_channel_is_remembered_too() {
        let mut node = Node::default();
        node.sees(stable(7), &[]).unwrap();
        assert!(matches!(node.sees(stable(6), &[]), Err(Refused::Older { .. })));
    }

    #[test]
    fn another_key_that_is_trusted_does_not_bring_back_an_older_one() {
        let mut node = Node::trusting(&["a", "b"]);
        node.sees(stable(7), &["a"]).unwrap();
        assert!(matches!(node.sees(stable(6), &["b"]), Err(Refused::Older { .. })));
    }

    #[test]
    fn a_stolen_key_cannot_end_the_counting() {
        let mut node = Node::trusting(&["stolen", "b"]);
        for serial in [u64::MAX, u64::MAX - SERIALS_LEFT_MIN + 1] {
            assert!(matches!(node.sees(stable(serial), &["stolen"]), Err(Refused::FastForward { .. })));
        }
        node.sees(stable(u64::MAX - SERIALS_LEFT_MIN), &["stolen"]).unwrap();
        assert!(matches!(node.sees(stable(8), &["b"]), Err(Refused::Older { .. })));
        node.trusted.retain(|key| key != "stolen");
        node.sees(stable(8), &["b"]).unwrap();
    }

    #[test]
    fn time_is_judged_by_the_clock_and_by_what_was_signed() {
        let mut node = Node::trusting(&["a"]);
        for (clock, verdict) in [
            ("2026-06-01T00:00:00Z", "ok"),
            ("2026-05-31T23:50:00Z", "ok"),
            ("2026-05-31T23:49:59Z", "future"),
            ("1970-01-01T00:00:00Z", "future"),
            ("2026-06-30T23:59:59Z", "soon"),
            ("2026-07-01T00:00:00Z", "expired"),
            ("2099-01-01T00:00:00Z", "expired"),
        ] {
            node.memory.clear();
            node.clock = Some(time(clock));
            let found = match node.sees(stable(1), &["a"]) {
                Ok(accepted) if accepted.warnings.is_empty() => "ok",
                Ok(accepted) => {
                    assert!(matches!(accepted.warnings[..], [Warning::ExpiresSoon { .. }]));
                    "soon"
                }
                Err(Refused::FromTheFuture { .. }) => "future",
                Err(Refused::Expired { .. }) => "expired",
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, verdict, "{clock}");
        }
    }

    #[test]
    fn a_clock_set_back_brings_no_expired_channel_to_life() {
        let mut node = Node::trusting(&["a"]);
        let later = Channel {
            issued: time("2026-08-01T00:00:00Z"),
            expires: time("2026-09-01T00:00:00Z"),
            ..stable(2)
        };
        node.clock = Some(time("2026-08-01T00:00:00Z"));
        node.sees(later.clone(), &["a"]).unwrap();
        node.clock = Some(time("1970-01-01T00:00:00Z"));
        assert!(matches!(node.sees(stable(3), &["a"]), Err(Refused::Expired { .. })));
        let accepted = node.sees(Channel { serial: 4, ..later }, &["a"]).unwrap();
        assert!(matches!(accepted.warnings[..], [Warning::ClockBehind { .. }]));
    }

    #[test]
    fn a_clock_set_forward_is_not_remembered() {
        let mut node = Node::trusting(&["a"]);
        node.clock = Some(time("2099-01-01T00:00:00Z"));
        assert!(node.sees(stable(1), &["a"]).is_err());
        node.clock = None;
        node.sees(stable(1), &["a"]).unwrap();
    }

    #[test]
    fn a_channel_for_others_is_refused() {
        let mut node = Node::trusting(&["a"]);
        let other = Channel { product: "till".into(), ..stable(1) };
        assert!(matches!(node.sees(other, &["a"]), Err(Refused::OtherProduct { .. })));
        let other = Channel { channel: "beta".into(), ..stable(1) };
        assert!(matches!(node.sees(other, &["a"]), Err(Refused::OtherChannel { .. })));
    }

    #[test]
    fn only_named_and_allowed_releases_are_chosen() {
        let accepted = Node::trusting(&["a"]).sees(stable(1), &["a"]).unwrap();
        let choose = |version: &str| accepted.choose(Some(&version.parse().unwrap())).cloned();
        assert_eq!(accepted.choose(None).unwrap(), &id("2.0"));
        assert_eq!(choose("1.8").unwrap(), id("1.8"));
        assert!(matches!(choose("1.9"), Err(Refused::Revoked { .. })));
        assert!(matches!(choose("1.7"), Err(Refused::BelowMinimum { .. })));
        assert!(matches!(choose("2.1"), Err(Refused::NotNamed { .. })));
    }

    #[test]
    fn a_release_that_somebody_asked_for_is_for_all() {
        let mut channel = stable(1);
        channel.percent = Some(20);
        let accepted = Node::trusting(&["a"]).sees(channel, &["a"]).unwrap();
        assert_eq!(accepted.percent(&id("2.0")), 20);
        assert_eq!(accepted.percent(&id("1.8")), 100);
    }

    #[test]
    fn a_release_for_others_is_refused() {
        let text = format!(
            "format = 1\nproduct = shop\nversion = 2.0\narchive = a.tar\nsize = 1\nsha256 = {}\ncompatible = arm64, x86_64",
            Digest::of(b"").hex()
        );
        let parsed = Manifest::parse(text.as_bytes()).unwrap();
        let judge = |product, version: &str, compatible: &[&str]| {
            let compatible: Vec<_> = compatible.iter().map(ToString::to_string).collect();
            let wants = Wants { product: Some(product), channel: "stable", compatible: &compatible };
            manifest(&parsed, "shop-2.0.manifest", Some(&id(version)), wants)
        };
        assert_eq!(judge("shop", "2.0", &["x86_64", "rack-7"]), Ok(()));
        assert!(matches!(judge("till", "2.0", &["x86_64"]), Err(Refused::OtherProduct { .. })));
        assert!(matches!(judge("shop", "2.1", &["x86_64"]), Err(Refused::OtherVersion { .. })));
        assert!(matches!(judge("shop", "2.0", &["riscv64"]), Err(Refused::Incompatible { .. })));
        assert!(matches!(judge("shop", "2.0", &[]), Err(Refused::Incompatible { .. })));
    }
}
