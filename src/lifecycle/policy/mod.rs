//! Policies: what keeps a node from switching now, although there is a release to switch to.
//!
//! All hold together: a switch that nobody urged begins only when [`blocked`] names nothing. Hold, window, jitter and
//! phase are decided here, from data alone; who else waits for something (a slot, the fleet, the baseline) says it with
//! the same [`Blocked`].
//!
//! Where a node stands in jitter and phase follows from its name and the release's digest: the same at every run, and
//! another for the next release, so that it is not always the same node that goes first.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::types::state::{Bad, Hold, Obstacle, Setback, State};
use crate::types::{Digest, ReleaseId, Span};

mod window;

pub use window::{Day, Length, NotAWindow, Opening, TimeOfDay, Window, Zone};

/// The table `[policy]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Nodes spread the begin of their switches over so much time after a release was issued, or a window opened.
    pub jitter: Span,
    /// Automatic switches begin only while one of these is open; at any time when there are none.
    pub windows: Vec<Window>,
    /// Each trial waits for a person's `cutover commit`, as with `--confirm`.
    pub confirm: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { jitter: Span::seconds(0), windows: Vec::new(), confirm: false }
    }
}

/// What is offered to this node, and how.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    pub release: &'a ReleaseId,
    /// When its channel was issued; jitter counts from then. `None` (a file, no channel): no jitter.
    pub issued: Option<Timestamp>,
    /// When it was first offered, as far as this node has seen: window, jitter and phase hold it back since then.
    pub since: Option<Timestamp>,
    /// How much of the fleet may have it already; `None`: all.
    pub percent: Option<u8>,
    /// From when on it may be so much more.
    pub waves: &'a [(Timestamp, u8)],
    /// Nodes of one group come into a staged rollout together; without it each for itself.
    pub group: Option<&'a str>,
}

/// Something that keeps this node from switching now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub policy: Policy,
    /// Since when it is in the way, where that is known.
    pub since: Option<Timestamp>,
    /// When it ends by itself, where that is known.
    pub until: Option<Timestamp>,
    pub text: String,
}

/// What can keep a node from switching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Somebody stopped automatic switching, or went back by hand.
    Hold,
    Window,
    /// It is not yet this node's turn within the jitter.
    Jitter,
    /// The release is for a part of the fleet, and this node is not in it yet.
    Phase,
    /// As many nodes as may be are switching already.
    Slot,
    /// The old release is not healthy.
    Baseline,
    /// A unit of the application cannot be stopped and started.
    Units,
    /// The release that is offered is banned here.
    Banned,
    /// Updates to it failed again and again, for no fault of its own.
    Pause,
    /// The fleet is not ready, or has halted the rollout.
    Fleet,
    /// The channel has expired: nothing that it says counts any more.
    Channel,
}

impl Policy {
    /// The word for it, in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Window => "window",
            Self::Jitter => "jitter",
            Self::Phase => "phase",
            Self::Slot => "slot",
            Self::Baseline => "baseline",
            Self::Units => "units",
            Self::Banned => "banned",
            Self::Pause => "pause",
            Self::Fleet => "fleet",
            Self::Channel => "channel",
        }
    }
}

/// All that keeps `node` from switching to the offer at `now`. With `is_urgent` (`--now`) only a hold counts.
pub fn blocked(
    settings: &Settings,
    state: &State,
    offer: &Offer<'_>,
    node: &str,
    now: Timestamp,
    is_urgent: bool,
) -> Vec<Blocked> {
    let mut found: Vec<Blocked> = held(state.hold.as_ref(), now).into_iter().collect();
    if is_urgent {
        return found;
    }
    let offset = offset_of(settings.jitter, node, &offer.release.digest);
    found.extend(state.setback.as_ref().and_then(|setback| pausing(setback, offer.release, now)));
    found.extend(outside_windows(&settings.windows, now, offset));
    found.extend(too_early(offer, now, offset));
    found.extend(not_in_phase(offer, node));
    for blocked in &mut found {
        blocked.since = blocked.since.or(offer.since);
    }
    found
}

/// The hold, unless it has ended by itself.
pub fn held(hold: Option<&Hold>, now: Timestamp) -> Option<Blocked> {
    let hold = hold.filter(|hold| hold.until.is_none_or(|until| now < until))?;
    let reason = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
    let until = hold.until.map(|until| format!(" until {}", short(until))).unwrap_or_default();
    let since = short(hold.since);
    let text = format!("held by {} since {since}{until}{reason}; `cutover unhold` lifts it", hold.by);
    Some(Blocked { policy: Policy::Hold, since: Some(hold.since), until: hold.until, text })
}

/// A release that is offered, and banned.
pub fn banned(bad: &Bad) -> Blocked {
    let version = &bad.release.version;
    let text = format!(
        "release {version} is banned since {}: {}; `cutover mark-good {version}` lifts that",
        short(bad.since),
        bad.reason
    );
    Blocked { policy: Policy::Banned, since: Some(bad.since), until: None, text }
}

/// What of this node was in the way when the last update was to begin, and is until somebody mends it.
pub fn obstacles(state: &State) -> impl Iterator<Item = Blocked> {
    let found = [(Policy::Baseline, &state.baseline), (Policy::Units, &state.units)];
    found.into_iter().filter_map(|(policy, obstacle)| {
        let Obstacle { since, reason } = obstacle.as_ref()?;
        let text = format!("{reason}, since {}", short(*since));
        Some(Blocked { policy, since: Some(*since), until: None, text })
    })
}

/// Whoever fails for a reason that lasts must not stop and start a service every hour.
fn pausing(setback: &Setback, release: &ReleaseId, now: Timestamp) -> Option<Blocked> {
    let next = setback.at.checked_add(pause_after(setback.times)).ok()?;
    (setback.release == *release && now < next).then(|| Blocked {
        policy: Policy::Pause,
        since: Some(setback.at),
        until: Some(next),
        text: format!(
            "the last {} updates to release {} failed: {}; next try at {}, `cutover update --now` tries at once",
            setback.times,
            release.version,
            setback.reason,
            short(next)
        ),
    })
}

/// How long nothing is tried after so many failures in a row: 0, 2, 4, 8, 16, 24, 24, … hours.
fn pause_after(times: u32) -> SignedDuration {
    match times {
        ..=1 => SignedDuration::ZERO,
        2..=5 => SignedDuration::from_hours(1 << (times - 1)),
        6.. => SignedDuration::from_hours(24),
    }
}

fn outside_windows(windows: &[Window], now: Timestamp, offset: SignedDuration) -> Option<Blocked> {
    let mut next: Option<(Opening, &Window)> = None;
    for window in windows {
        let Some(opening) = window.current_or_next(now, offset) else { continue };
        if opening.from <= now {
            return None;
        }
        if next.is_none_or(|(earliest, _)| opening.from < earliest.from) {
            next = Some((opening, window));
        }
    }
    if windows.is_empty() {
        return None;
    }
    let text = match next {
        Some((opening, window)) => {
            format!("outside its window ({window}); the next begins {}", short(opening.from))
        }
        None => "outside all its windows".to_owned(),
    };
    Some(Blocked { policy: Policy::Window, since: None, until: next.map(|(opening, _)| opening.from), text })
}

fn too_early(offer: &Offer<'_>, now: Timestamp, offset: SignedDuration) -> Option<Blocked> {
    let turn = offer.issued?.checked_add(offset).ok()?;
    (now < turn).then(|| Blocked {
        policy: Policy::Jitter,
        since: None,
        until: Some(turn),
        text: format!(
            "this node's turn is {} after the release was issued, at {}",
            words(offset),
            short(turn)
        ),
    })
}

fn not_in_phase(offer: &Offer<'_>, node: &str) -> Option<Blocked> {
    let percent = offer.percent.filter(|percent| *percent < 100)?;
    let key = offer.group.unwrap_or(node);
    let bucket = bucket_of(key, &offer.release.digest);
    let whose = if offer.group.is_some() { format!("the group `{key}`") } else { "this node".to_owned() };
    if bucket < percent {
        return None;
    }
    let turn = offer.waves.iter().find(|(_, percent)| *percent > bucket).map(|(from, _)| *from);
    let until = turn.map(|turn| format!(", which begins {}", short(turn))).unwrap_or_default();
    let text = format!(
        "release {} is for {percent} % of the nodes so far; {whose} is in from {} % on{until}",
        offer.release.version,
        bucket + 1
    );
    Some(Blocked { policy: Policy::Phase, since: None, until: turn, text })
}

/// In which of the hundred parts of a staged rollout of this release the node (or group of nodes) is: 0 to 99.
pub fn bucket_of(key: &str, release: &Digest) -> u8 {
    u8::try_from(spread("phase", key, release) % 100).unwrap_or(0)
}

/// This node's share of the jitter: from nothing up to, and without, the whole.
fn offset_of(jitter: Span, node: &str, release: &Digest) -> SignedDuration {
    let whole = u64::try_from(jitter.0.as_millis()).unwrap_or(u64::MAX);
    let part = spread("jitter", node, release).checked_rem(whole).unwrap_or(0);
    SignedDuration::from_millis(i64::try_from(part).unwrap_or(0))
}

/// A number that is even over all keys, and the same at every run.
fn spread(purpose: &str, key: &str, release: &Digest) -> u64 {
    let digest = Digest::of(format!("cutover {purpose}\0{key}\0{release}").as_bytes());
    digest.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A moment for people: to the second, UTC.
pub fn short(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn words(duration: SignedDuration) -> String {
    format!("{:#}", SignedDuration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-23T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn release(seed: &str) -> ReleaseId {
        ReleaseId { version: "2.0.0".parse().unwrap(), digest: Digest::of(seed.as_bytes()) }
    }

    fn hold(until: Option<&str>) -> Hold {
        let reason = "market day".to_owned();
        Hold { since: at("2026-11-20T00:00:00Z"), until: until.map(at), reason, by: "anna".to_owned() }
    }

    fn names(found: &[Blocked]) -> Vec<&'static str> {
        found.iter().map(|blocked| blocked.policy.name()).collect()
    }

    /// Of a channel that was issued now.
    fn offer(release: &ReleaseId, percent: Option<u8>) -> Offer<'_> {
        Offer { release, issued: Some(at(NOW)), since: None, percent, group: None, waves: &[] }
    }

    /// Everything that can be in the way is in the way.
    fn everything() -> (Settings, State) {
        let settings = "jitter = '3000d'\nwindows = [{ days = ['Sun'], start = '01:30', length = '60min' }]";
        (toml::from_str(settings).unwrap(), State { hold: Some(hold(None)), ..State::default() })
    }

    #[test]
    fn nothing_is_in_the_way_by_default() {
        let release = release("a");
        let offer = offer(&release, None);
        let found = blocked(&Settings::default(), &State::default(), &offer, "n1", at(NOW), false);
        assert_eq!(found, []);
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
    }

    #[test]
    fn all_policies_hold_together_and_each_is_named() {
        let (settings, state) = everything();
        let release = release("a");
        let offer = offer(&release, Some(0));
        let found = blocked(&settings, &state, &offer, "n1", at(NOW), false);
        assert_eq!(names(&found), ["hold", "window", "jitter", "phase"]);
        assert!(found.iter().all(|blocked| !blocked.text.is_empty()));
        assert!(found[0].text.contains("anna") && found[0].text.contains("market day"));
        let until = found[1].until.unwrap();
        assert!(until >= at("2026-11-29T01:30:00Z") && until <= at("2026-11-29T02:00:00Z"), "{until}");
    }

    #[test]
    fn urgency_leaves_only_the_hold() {
        let (settings, state) = everything();
        let release = release("a");
        let offer = offer(&release, Some(0));
        assert_eq!(names(&blocked(&settings, &state, &offer, "n1", at(NOW), true)), ["hold"]);
        assert_eq!(blocked(&settings, &State::default(), &offer, "n1", at(NOW), true), []);
    }

    #[test]
    fn the_pause_grows_with_each_failure_and_ends_at_a_day() {
        let hours: Vec<_> = (0..=8).map(|times| pause_after(times).as_hours()).collect();
        assert_eq!(hours, [0, 0, 2, 4, 8, 16, 24, 24, 24]);
    }

    #[test]
    fn a_pause_is_for_the_release_that_failed_and_says_when_it_ends() {
        let setback = Setback {
            release: release("a"),
            times: 3,
            transaction: "t".into(),
            at: at(NOW),
            reason: "the hook fails".into(),
        };
        let seen = |seed: &str, now: &str| pausing(&setback, &release(seed), at(now));
        let blocked = seen("a", "2026-11-23T15:59:59Z").unwrap();
        assert_eq!(blocked.until, Some(at("2026-11-23T16:00:00Z")));
        for part in ["the last 3 updates", "the hook fails", "next try at 2026-11-23 16:00:00 UTC", "--now"] {
            assert!(blocked.text.contains(part), "{}", blocked.text);
        }
        assert_eq!(seen("a", "2026-11-23T16:00:00Z"), None);
        assert_eq!(seen("b", NOW), None);
    }

    #[test]
    fn a_hold_ends_at_its_time() {
        assert!(held(Some(&hold(Some("2026-11-23T12:00:01Z"))), at(NOW)).is_some());
        assert!(held(Some(&hold(Some(NOW))), at(NOW)).is_none());
        assert!(held(Some(&hold(None)), at("2036-01-01T00:00:00Z")).is_some());
    }

    #[test]
    fn one_open_window_is_enough_and_the_earliest_is_named() {
        let settings: Settings = toml::from_str(
            "windows = [{ days = ['Sun'], start = '01:30', length = '60min' }, { start = '11:59', length = '2min' }]",
        )
        .unwrap();
        let seen = |now: &str| outside_windows(&settings.windows, at(now), SignedDuration::ZERO);
        assert_eq!(seen(NOW), None);
        assert_eq!(seen("2026-11-23T12:01:00Z").unwrap().until, Some(at("2026-11-24T11:59:00Z")));
        assert_eq!(seen("2026-11-28T23:00:00Z").unwrap().until, Some(at("2026-11-29T01:30:00Z")));
    }

    #[test]
    fn jitter_spreads_nodes_and_ends() {
        let release = release("a");
        let settings: Settings = toml::from_str("jitter = '30min'").unwrap();
        let offer = offer(&release, None);
        let free_after = |minutes: i64| {
            let now = at(NOW) + SignedDuration::from_mins(minutes);
            let is_free = |node: &u32| {
                blocked(&settings, &State::default(), &offer, &format!("n{node}"), now, false).is_empty()
            };
            (0..1000).filter(is_free).count()
        };
        assert!((400..600).contains(&free_after(15)), "{}", free_after(15));
        assert!(free_after(1) < 100);
        assert_eq!(free_after(30), 1000);
    }

    #[test]
    fn a_growing_percentage_only_adds_nodes() {
        let (one, other) = (release("a"), release("b"));
        let is_in = |release: &ReleaseId, percent: u8, node: u32| {
            let offer =
                Offer { release, issued: None, since: None, percent: Some(percent), group: None, waves: &[] };
            not_in_phase(&offer, &format!("n{node}")).is_none()
        };
        for node in 0..1000 {
            let first = (0..=100).find(|percent| is_in(&one, *percent, node)).unwrap();
            assert!((first..=100).all(|percent| is_in(&one, percent, node)), "node {node}");
        }
        let at_20: Vec<u32> = (0..1000).filter(|node| is_in(&one, 20, *node)).collect();
        assert!((150..250).contains(&at_20.len()), "{}", at_20.len());
        let also_in_other = at_20.iter().filter(|node| is_in(&other, 20, **node)).count();
        assert!(also_in_other < at_20.len() / 2, "the same nodes would always go first: {also_in_other}");
        assert!((0..1000).all(|node| !is_in(&one, 0, node) && is_in(&one, 100, node)));
    }

    #[test]
    fn the_wave_that_lets_a_node_in_is_named() {
        let release = release("a");
        let (first, last) = (at("2026-12-01T00:00:00Z"), at("2026-12-02T00:00:00Z"));
        for node in 0..200 {
            let node = format!("n{node}");
            let bucket = bucket_of(&node, &release.digest);
            let waves = [(first, 50), (last, 100)];
            let offer = Offer {
                release: &release,
                issued: None,
                since: None,
                percent: Some(0),
                group: None,
                waves: &waves,
            };
            let blocked = not_in_phase(&offer, &node).unwrap();
            assert_eq!(blocked.until, Some(if bucket < 50 { first } else { last }), "{node}: {bucket}");
        }
    }

    #[test]
    fn a_group_comes_in_together() {
        let release = release("a");
        for percent in 0..=100 {
            let offer = Offer {
                release: &release,
                issued: None,
                since: None,
                percent: Some(percent),
                group: Some("berlin"),
                waves: &[],
            };
            let is_in = |node: &str| not_in_phase(&offer, node).is_none();
            assert!(["n1", "n2", "n3"].iter().all(|node| is_in(node) == is_in("n0")), "{percent} %");
        }
    }
}
