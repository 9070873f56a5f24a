//! Publishing: which release of a directory is to run, said in a channel file, signed.
//!
//! Publishers take turns ([`exclusive`]). What is read of the directory is read once, and compared with what vouches for
//! it: the channel must be signed by the given key, the release that it names must have the digest that it says, and
//! only what a call names is signed. Channel and signature are replaced together (`pair`).

mod anew;
mod named;
mod pair;

use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use named::{Named, Standing, standing};
use pair::{Ground, Pair};

use super::channel::{CHANNEL_BYTES_MAX, Channel};
use super::exclusive::{self, Exclusive};
use super::judge::{self, Refused};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::text::Malformed;
use super::trust::{self, Refusal, SignError};
use crate::sys::disk::{self, Disk};
use crate::types::{Digest, Version, escaped, escaped_path};

/// What is to be published.
#[derive(Clone, Debug)]
pub struct PublishOrder {
    /// The directory of archives and manifests.
    pub directory: PathBuf,
    /// Where channel, signatures and new manifests are written, and the channel before is found: the same directory, or
    /// another one that stands for it.
    pub into: PathBuf,
    /// Nodes read from another place: that a release is not in the directory says nothing.
    pub is_elsewhere: bool,
    pub channel: String,
    /// The product; without it, that of the channel that is there, or of the only manifest.
    pub product: Option<String>,
    /// The release to run; without it, the one that the channel names, or the only one in the directory, which must be
    /// signed then.
    pub version: Option<Version>,
    /// The key that signs manifests without a signature; without it, they must be signed, or nothing is.
    pub release_key: Option<PathBuf>,
    /// The key that signs the channel.
    pub channel_key: Option<PathBuf>,
    /// How long the channel holds.
    pub expires_in: SignedDuration,
    /// The oldest release that may be installed.
    pub minimum: Option<Version>,
    /// Releases to revoke, besides those revoked already.
    pub revoked: Vec<Version>,
    /// The part of the nodes that may switch.
    pub percent: Option<u8>,
    /// From each moment on, the part of the nodes that may switch.
    pub waves: Vec<(Timestamp, u8)>,
    /// The serial to use instead of the next one. A channel that cannot be built upon is then begun anew.
    pub serial: Option<u64>,
    pub now: Timestamp,
}

/// What could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A file is not in its form.
    #[error("cannot understand `{}`: {malformed}", escaped_path(.path))]
    Malformed { path: PathBuf, malformed: Malformed },
    /// A file's signature does not hold.
    #[error("cannot build upon `{}`: {refusal}", escaped_path(.path))]
    Signature { path: PathBuf, refusal: Refusal },
    /// The channel that is there was signed by somebody else.
    #[error("cannot build upon `{}`: it is signed by {found}, not by the given key", escaped_path(.path))]
    OtherKey { path: PathBuf, found: String },
    /// The channel that is there is signed, and the next one would not be.
    #[error("`{}` is signed, and no key is given to sign the next one", escaped_path(.0))]
    Unsigned(PathBuf),
    /// There is no such release in the directory.
    #[error("`{}` has neither a manifest nor an archive of release {version}", escaped_path(.directory))]
    NoRelease { directory: PathBuf, version: Version },
    /// It is not said what is to be published.
    #[error("`{}` has {count} releases, and none was named", escaped_path(.directory))]
    WhichRelease { directory: PathBuf, count: usize },
    /// The archive is not the one that its manifest names.
    #[error("`{}` is not the archive that its manifest names: {what} differs", escaped_path(.path))]
    OtherArchive { path: PathBuf, what: &'static str },
    /// Two releases cannot share an archive's name.
    #[error("`{}` is the archive of release {other} as well, and differs from what that one's manifest says", escaped_path(.path))]
    SameArchive { path: PathBuf, other: Version },
    /// No node would accept the result.
    #[error("the channel would be refused: {0}")]
    WouldBeRefused(Refused),
    /// The manifest is of another release than its name says.
    #[error("`{}` is the manifest of another release than its name says", escaped_path(.0))]
    OtherRelease(PathBuf),
    /// What was published under this version was another manifest.
    #[error("`{}` is not the manifest that was published: its digest is {found}, and the channel says {published}", escaped_path(.path))]
    Changed { path: PathBuf, found: Digest, published: Digest },
    /// Somebody else signed the manifest.
    #[error("`{}` is signed by {found}, not by the given key", escaped_path(.path))]
    Stranger { path: PathBuf, found: String },
    /// The only release of the directory would be signed without having been named.
    #[error("release {0} is not signed, and was not named")]
    NotNamed(Version),
    /// The channel that is there is another product's.
    #[error("`{}` is of product `{}`, and the release is of `{wanted}`", escaped_path(.path), escaped(.found.as_bytes()))]
    OtherProduct { path: PathBuf, found: String, wanted: String },
    /// Nodes look for the manifest under another name.
    #[error("nodes look for the manifest `{}` under the name `{wanted}`", escaped_path(.path))]
    OtherName { path: PathBuf, wanted: String },
    /// A channel that is begun anew would let nodes do what the one that is there forbids.
    #[error("the new channel would not say what `{}` says: {}", escaped_path(.path), .lost.join(", "))]
    WouldLose { path: PathBuf, lost: Vec<String> },
    /// Another channel's file stands in this one's place.
    #[error("`{}` says that it is channel `{}`", escaped_path(.path), escaped(.found.as_bytes()))]
    OtherChannel { path: PathBuf, found: String },
    /// Somebody else wrote at the same time.
    #[error("somebody else has written `{}` meanwhile", escaped_path(.0))]
    Overwritten(PathBuf),
    /// Another publisher is at work.
    #[error(transparent)]
    Lock(#[from] exclusive::Error),
    /// The release to run is older than the minimum.
    #[error("release {version} is older than {minimum}, which would be the minimum")]
    BelowMinimum { version: Version, minimum: Version },
    #[error("release {0} is revoked, and can't be the one to run")]
    Revoked(Version),
}

#[derive(Clone, Debug)]
pub struct Published {
    /// The channel as it is now.
    pub channel: Channel,
    pub path: PathBuf,
    /// Files that were written, in their order.
    pub written: Vec<PathBuf>,
    /// What a person should read.
    pub notes: Vec<String>,
}

/// Publishes. Nothing has changed for any node before channel and signature are replaced.
///
/// # Errors
/// When what is named is not what it was, is not the given key's, or would be refused: then nothing was written, but for
/// what an interrupted publisher had signed before.
pub fn publish(order: &PublishOrder, disk: &Disk) -> Result<Published, Error> {
    let _lock = Exclusive::of_publishers(disk, &order.into)?;
    let (mut written, mut notes) = (Vec::new(), Vec::new());
    for key in order.release_key.iter().chain(&order.channel_key) {
        trust::public_key(key)?;
    }
    let pair = Pair::new(disk, &order.into, &order.channel, order.channel_key.as_deref());
    let ground = pair.read(order.serial.is_some(), &mut written, &mut notes)?;
    let release = Named::find(order, ground.channel())?;
    if let Some(there) = ground.said() {
        same_product(there, &release.manifest.product, pair.path())?;
    }
    let channel = next(order, ground.channel().cloned(), &release, &mut notes)?;
    if let Ground::Anew(lost) = &ground {
        notes.extend(anew::lost(lost.as_deref(), &channel, pair.path())?);
    }
    let text = channel.to_text();
    notes.extend(accepted(ground.said(), text.as_bytes(), order.now)?);
    let signature = release.signature(order.release_key.as_deref(), &mut notes)?;
    release.write(&order.into, signature.as_deref(), disk, &mut written)?;
    pair.write(&text, &mut written)?;
    Ok(Published { channel, path: pair.path().to_owned(), written, notes })
}

/// Product and version that a manifest says. Its name must say the same: nodes look for it by that.
pub fn named_by(manifest: &Path) -> Result<(String, Version), Error> {
    let missing = || disk::Error::new("read", manifest, io::Error::from(io::ErrorKind::NotFound));
    let bytes = disk::read_small(manifest, MANIFEST_BYTES_MAX)?.ok_or_else(missing)?;
    let parsed = Manifest::parse(&bytes);
    let Manifest { product, version, .. } =
        parsed.map_err(|malformed| Error::Malformed { path: manifest.to_owned(), malformed })?;
    let wanted = format!("{product}-{version}.manifest");
    match manifest.file_name().is_some_and(|name| name == wanted.as_str()) {
        true => Ok((product, version)),
        false => Err(Error::OtherName { path: manifest.to_owned(), wanted }),
    }
}

/// Refuses a channel of another product, as far as the order says which one it publishes. For a channel that is elsewhere,
/// before it takes the place of the one in the directory.
pub fn check_product(order: &PublishOrder, channel: &[u8], path: &Path) -> Result<(), Error> {
    let Ok(there) = Channel::parse(channel) else { return Ok(()) };
    let here = order.directory.join(format!("{}.channel", order.channel));
    let here = disk::read_small(&here, CHANNEL_BYTES_MAX)?.and_then(|bytes| Channel::parse(&bytes).ok());
    let product = order.product.clone().or(here.map(|here| here.product));
    let product = match product {
        Some(product) => product,
        None => match named::only(&order.directory, None, order.version.as_ref()) {
            Ok((product, _)) => product,
            // It is not known: the channel that is there says it.
            Err(_) => return Ok(()),
        },
    };
    same_product(&there, &product, path)
}

fn same_product(there: &Channel, wanted: &str, path: &Path) -> Result<(), Error> {
    if there.product == wanted {
        return Ok(());
    }
    let (path, found) = (path.to_owned(), there.product.clone());
    Err(Error::OtherProduct { path, found, wanted: wanted.to_owned() })
}

/// Judges a channel by the rules of a node that has accepted the one before: what nodes would refuse is not published.
/// Gives what such a node would warn of.
fn accepted(before: Option<&Channel>, text: &[u8], now: Timestamp) -> Result<Vec<String>, Error> {
    let channel = Channel::parse(text).map_err(|malformed| {
        Error::WouldBeRefused(Refused::Malformed { what: "the new channel".to_owned(), malformed })
    })?;
    let warnings = judge::successor(before, channel, now).map_err(Error::WouldBeRefused)?;
    Ok(warnings.iter().map(ToString::to_string).collect())
}

/// The channel that comes after `before`: all that it said stays, but for what the order changes.
fn next(
    order: &PublishOrder,
    before: Option<Channel>,
    release: &Named,
    notes: &mut Vec<String>,
) -> Result<Channel, Error> {
    let id = release.id();
    let issued = Timestamp::from_second(order.now.as_second()).unwrap_or(order.now);
    let mut channel = before.unwrap_or_else(|| Channel {
        product: release.manifest.product.clone(),
        channel: order.channel.clone(),
        serial: 0,
        issued,
        expires: issued,
        release: id.clone(),
        also: Vec::new(),
        published: Vec::new(),
        minimum: None,
        revoked: Vec::new(),
        percent: None,
        waves: Vec::new(),
        extras: Vec::new(),
    });
    channel.remember_order(&id.version);
    if channel.release != id {
        if channel.percent.is_some() || !channel.waves.is_empty() {
            notes.push(format!("the waves of release {} end with it", channel.release.version));
        }
        let last = std::mem::replace(&mut channel.release, id);
        channel.also.insert(0, last);
        channel.percent = None;
        channel.waves.clear();
    }
    channel.also.retain(|id| id.version != release.manifest.version);
    drop_missing(order, &mut channel, release, notes)?;
    channel.serial = order.serial.unwrap_or_else(|| channel.serial.saturating_add(1));
    channel.issued = issued;
    channel.expires = issued.checked_add(order.expires_in).unwrap_or(Timestamp::MAX);
    channel.minimum = order.minimum.clone().or(channel.minimum);
    for version in &order.revoked {
        if !channel.revoked.contains(version) {
            channel.revoked.push(version.clone());
        }
    }
    let version = channel.release.version.clone();
    if channel.is_revoked(&version) {
        return Err(Error::Revoked(version));
    }
    if let Some(minimum) = channel.minimum.clone().filter(|_| channel.is_below_minimum(&version)) {
        return Err(Error::BelowMinimum { version, minimum });
    }
    channel.percent = order.percent.or(channel.percent);
    if !order.waves.is_empty() {
        channel.waves.clone_from(&order.waves);
    }
    Ok(channel)
}

/// What is no more in the directory can't be fetched. What has become another one stays named by its digest: nodes
/// refuse it, and somebody can bring it back.
fn drop_missing(
    order: &PublishOrder,
    channel: &mut Channel,
    release: &Named,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    for id in std::mem::take(&mut channel.also) {
        let standing = standing(&order.directory, &channel.product, &id)?;
        // Another place may keep the files of each release by themselves: whoever brings them there looks.
        if let (Standing::Same(manifest), false) = (&standing, order.is_elsewhere) {
            same_archive(order, manifest, release)?;
        }
        match standing {
            Standing::Same(_) => channel.also.push(id),
            Standing::Gone if order.is_elsewhere => channel.also.push(id),
            Standing::Gone => {
                notes.push(format!("release {} is not there any more, nor in the channel", id.version))
            }
            Standing::Changed => {
                notes.push(format!(
                    "the manifest of release {} is not the one that was published",
                    id.version
                ));
                channel.also.push(id);
            }
        }
    }
    Ok(())
}

/// Refuses an archive that took the place of another release's: nodes could not install that one any more.
fn same_archive(order: &PublishOrder, earlier: &Manifest, release: &Named) -> Result<(), Error> {
    let new = &release.manifest;
    if earlier.archive != new.archive || earlier.sha256 == new.sha256 {
        return Ok(());
    }
    let path = order.directory.join(&new.archive);
    Err(Error::SameArchive { path, other: earlier.version.clone() })
}
