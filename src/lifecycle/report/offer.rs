//! Why nothing newer runs: what the node remembers of its channel, and what stands in the way of it. No source is asked.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::coord::settings::Mode;
use crate::lifecycle::policy::{self, Blocked, Offer, Policy};
use crate::lifecycle::settings::Settings;
use crate::types::state::{SeenChannel, SeenOffer, State};
use crate::types::{Digest, Version};

/// What the channel said when it was last accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelView {
    pub name: String,
    pub serial: u64,
    pub issued: Timestamp,
    /// From when on it says nothing any more.
    pub expires: Timestamp,
    /// The release that it wants to run.
    pub version: Version,
    pub digest: Digest,
    /// When it was first offered, as far as this node has seen: a node that runs another one is behind since then.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// When the source last answered this node and the channel was accepted; unknown after a reboot, until it does.
    #[serde(default)]
    pub looked: Option<Timestamp>,
    /// Whether that is another one than the active one.
    pub newer: bool,
    /// Whether it is banned on this node.
    pub banned: bool,
}

/// What is remembered of the channel that this node follows; of several keys, by the newest.
fn remembered<'a>(
    settings: &Settings,
    state: &'a State,
    product: Option<&str>,
) -> Option<(&'a SeenChannel, &'a SeenOffer)> {
    settings.source.url.as_ref()?;
    let is_mine = |key: &str| {
        let name = key.split(' ').next().unwrap_or_default().split_once('/');
        name.is_some_and(|(of, name)| {
            name == settings.source.channel && product.is_none_or(|wanted| wanted == of)
        })
    };
    let seen = state.channels.iter().filter(|(key, _)| is_mine(key)).map(|(_, seen)| seen);
    let newest = seen.filter(|seen| seen.offer.is_some()).max_by_key(|seen| seen.serial)?;
    newest.offer.as_ref().map(|offer| (newest, offer))
}

/// The channel, as it was seen last.
pub fn channel(
    settings: &Settings,
    state: &State,
    product: Option<&str>,
    active: Option<Digest>,
) -> Option<ChannelView> {
    let (seen, offer) = remembered(settings, state, product)?;
    let digest = offer.release.digest;
    Some(ChannelView {
        name: settings.source.channel.clone(),
        serial: seen.serial,
        issued: seen.issued,
        expires: offer.expires,
        version: offer.release.version.clone(),
        digest,
        since: offer.since,
        looked: None,
        newer: active != Some(digest),
        banned: state.bad.iter().any(|bad| bad.release.digest == digest),
    })
}

/// All that keeps this node from switching by itself, as far as it can be told without asking anybody.
pub fn in_the_way(
    settings: &Settings,
    state: &State,
    product: Option<&str>,
    active: Option<Digest>,
    node: &str,
    now: Timestamp,
) -> Vec<Blocked> {
    let Some((seen, offer)) = remembered(settings, state, product) else {
        return policy::held(state.hold.as_ref(), now).into_iter().chain(policy::obstacles(state)).collect();
    };
    let mut found: Vec<_> = if active == Some(offer.release.digest) {
        policy::held(state.hold.as_ref(), now).into_iter().collect()
    } else {
        // In a fleet the rollout says whose turn it is.
        let is_alone = settings.fleet.mode == Mode::Independent;
        let offered = Offer {
            release: &offer.release,
            issued: Some(seen.issued).filter(|_| is_alone),
            since: offer.since,
            percent: Some(offer.percent_at(now)).filter(|_| is_alone),
            waves: &offer.waves,
            group: settings.source.group.as_deref(),
        };
        policy::blocked(&settings.policy, state, &offered, node, now, false)
    };
    found.extend(policy::obstacles(state));
    if active != Some(offer.release.digest) {
        let bad = state.bad.iter().find(|bad| bad.release.digest == offer.release.digest);
        found.extend(bad.map(policy::banned));
    }
    if offer.expires <= now {
        let text = format!(
            "channel `{}` has expired at {}: whoever publishes runs `cutover publish` again",
            settings.source.channel,
            policy::short(offer.expires)
        );
        found.push(Blocked { policy: Policy::Channel, since: Some(offer.expires), until: None, text });
    }
    found
}
