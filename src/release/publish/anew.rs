//! A channel that is begun anew, because the one that is there cannot be built upon: what must not be lost with it.
//!
//! Nobody vouches for what is there, so nothing of it is taken over. But what it forbids, the new one must forbid as well:
//! a revoked release that could be installed again would be noticed by nobody.

use std::path::Path;

use super::Error;
use crate::release::channel::Channel;

/// What the channel that is there says, and the new one does not.
///
/// # Errors
/// When nodes may then do what they may not now: install what is revoked or too old, or switch sooner.
pub fn lost(there: Option<&Channel>, new: &Channel, path: &Path) -> Result<Vec<String>, Error> {
    let Some(there) = there else {
        return Ok(vec!["nothing could be read of the channel that was there".to_owned()]);
    };
    let forbidden = forbidden(there, new);
    if !forbidden.is_empty() {
        return Err(Error::WouldLose { path: path.to_owned(), lost: forbidden });
    }
    let also: Vec<_> = there.releases().filter(|id| new.find(&id.version).is_none()).collect();
    let also = listed("also", also.into_iter().map(|id| &id.version));
    let extras = listed("own keys", there.extras.iter().map(|(key, _)| key));
    let lost = also.into_iter().chain(extras);
    Ok(lost.map(|what| format!("lost of the channel that was there: {what}")).collect())
}

/// What only the channel that is there forbids.
fn forbidden(there: &Channel, new: &Channel) -> Vec<String> {
    let revoked = there.revoked.iter().filter(|version| !new.is_revoked(version));
    let minimum = there.minimum.iter().filter(|_| new.minimum.is_none());
    // The waves of a release end with it.
    let is_held_back = there.release == new.release && new.percent.is_none() && new.waves.is_empty();
    let percent = there.percent.iter().filter(|_| is_held_back);
    let waves = there.waves.iter().filter(|_| is_held_back).map(|(from, part)| format!("{from}={part}"));
    let all = [
        listed("revoked", revoked),
        listed("minimum", minimum),
        listed("percent", percent),
        listed("wave", waves),
    ];
    all.into_iter().flatten().collect()
}

fn listed(key: &str, values: impl Iterator<Item = impl ToString>) -> Option<String> {
    let values: Vec<String> = values.map(|value| value.to_string()).collect();
    (!values.is_empty()).then(|| format!("{key} {}", values.join(", ")))
}
