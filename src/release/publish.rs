//! Publishing: which release of a directory is to run, said in a channel file, signed.
//!
//! Everything that the channel names is complete and signed before the channel is. The channel that is there is the
//! ground for the next one (serial, older releases) only if the same key signed it: whoever could write to the directory
//! would otherwise get his own lines signed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::channel::{CHANNEL_BYTES_MAX, Channel};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::source::local;
use super::text::Malformed;
use super::trust::{self, Namespace, Refusal, SIGNATURES_BYTES_MAX, SignError, keys_that_signed};
use crate::sys::disk::{self, Context as _, Disk};
use crate::types::{Digest, ReleaseId, Version, escaped_path};

/// What is to be published.
#[derive(Clone, Debug)]
pub struct PublishOrder {
    /// The directory of archives and manifests.
    pub directory: PathBuf,
    /// The channel's name.
    pub channel: String,
    /// The product; without it, that of the channel that is there, or of the only manifest.
    pub product: Option<String>,
    /// The release to run; without it, the one that the channel names, or the only one in the directory.
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
    /// The serial to use instead of the next one. The channel that is there is then not read at all.
    pub serial: Option<u64>,
    /// Now.
    pub now: Timestamp,
}

/// What could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A file is not in its form.
    #[error("cannot understand `{}`: {malformed}", escaped_path(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        malformed: Malformed,
    },
    /// A file's signature does not hold.
    #[error("cannot build upon `{}`: {refusal}", escaped_path(.path))]
    Signature {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// The channel that is there was signed by somebody else.
    #[error("cannot build upon `{}`: it is signed by {found}, not by the given key", escaped_path(.path))]
    OtherKey {
        /// The channel's file.
        path: PathBuf,
        /// Who signed it.
        found: String,
    },
    /// The channel that is there is signed, and the next one would not be.
    #[error("`{}` is signed, and no key is given to sign the next one", escaped_path(.0))]
    Unsigned(PathBuf),
    /// There is no such release in the directory.
    #[error("`{}` has neither a manifest nor an archive of release {version}", escaped_path(.directory))]
    NoRelease {
        /// The directory.
        directory: PathBuf,
        /// The release.
        version: Version,
    },
    /// It is not said what is to be published.
    #[error("`{}` has {count} releases, and none was named", escaped_path(.directory))]
    WhichRelease {
        /// The directory.
        directory: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// The archive is not the one that its manifest names.
    #[error("`{}` is not the archive that its manifest names: {what} differs", escaped_path(.path))]
    OtherArchive {
        /// The archive.
        path: PathBuf,
        /// Size or digest.
        what: &'static str,
    },
    /// The result would not be accepted.
    #[error("the channel would be refused: {0}")]
    WouldBeRefused(Malformed),
    /// The release is revoked.
    #[error("release {0} is revoked, and can't be the one to run")]
    Revoked(Version),
}

/// What was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The channel as it is now.
    pub channel: Channel,
    /// Its file.
    pub path: PathBuf,
    /// Files that were written, in their order.
    pub written: Vec<PathBuf>,
}

/// A manifest in the directory.
struct Found {
    path: PathBuf,
    manifest: Manifest,
    digest: Digest,
}

/// Publishes. Nothing has changed for any node before the last file is written.
pub fn publish(order: &PublishOrder, disk: &Disk) -> Result<Published, Error> {
    let mut written = Vec::new();
    make_manifests(order, disk, &mut written)?;
    let path = order.directory.join(format!("{}.channel", order.channel));
    if order.channel_key.is_none() && trust::signature_file(&path).exists() {
        return Err(Error::Unsigned(path));
    }
    let before = if order.serial.is_some() { None } else { channel_before(order, &path)? };
    let found = manifests(order)?;
    let release = choose(order, before.as_ref(), &found)?;
    check_archive(&order.directory, &release.manifest)?;
    sign_manifest(order, disk, release, &mut written)?;
    let channel = next(order, before, release, &found)?;
    let text = channel.to_text();
    Channel::parse(text.as_bytes()).map_err(Error::WouldBeRefused)?;
    if let Some(key) = &order.channel_key {
        // The signature comes first: with it missing a node would refuse the channel, while one that does not match is
        // read again a moment later.
        let signature = trust::sign(key, Namespace::Channel, text.as_bytes())?;
        let signature_path = trust::signature_file(&path);
        disk.replace(&signature_path, signature.as_bytes(), 0o644)?;
        written.push(signature_path);
    }
    disk.replace(&path, text.as_bytes(), 0o644)?;
    written.push(path.clone());
    Ok(Published { channel, path, written })
}

/// The version that a manifest says.
pub fn version_of(manifest: &Path) -> Result<Version, Error> {
    let missing = || disk::Error::new("read", manifest, io::Error::from(io::ErrorKind::NotFound));
    let bytes = disk::read_small(manifest, MANIFEST_BYTES_MAX)?.ok_or_else(missing)?;
    let parsed = Manifest::parse(&bytes);
    Ok(parsed.map_err(|malformed| Error::Malformed { path: manifest.to_owned(), malformed })?.version)
}

/// Writes manifests for archives that have none and are named `<product>-<version>.tar[.zst|.gz]`.
fn make_manifests(order: &PublishOrder, disk: &Disk, written: &mut Vec<PathBuf>) -> Result<(), Error> {
    for archive in files(&order.directory)? {
        let Some(path) = local::manifest_beside(&archive).filter(|path| !path.exists()) else { continue };
        let named = local::product_and_version(&archive, order.product.as_deref());
        let Some((product, version)) = named.ok() else { continue };
        let (size, sha256) = size_and_digest(&archive)?;
        let manifest = Manifest {
            product,
            version,
            archive: archive.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            size,
            sha256,
            unpacked: None,
            entries: None,
            index: None,
            tree: None,
            compatible: Vec::new(),
            data_read: Vec::new(),
            data_write: None,
            extras: Vec::new(),
        };
        disk.replace(&path, manifest.to_text().as_bytes(), 0o644)?;
        written.push(path);
    }
    Ok(())
}

/// The channel that is there, if the given key signed it (or if no key is given).
fn channel_before(order: &PublishOrder, path: &Path) -> Result<Option<Channel>, Error> {
    let Some(bytes) = disk::read_small(path, CHANNEL_BYTES_MAX)? else { return Ok(None) };
    if let Some(key) = &order.channel_key {
        let unsigned = || Error::Signature { path: path.to_owned(), refusal: Refusal::Unsigned };
        let signatures =
            disk::read_small(&trust::signature_file(path), SIGNATURES_BYTES_MAX)?.ok_or_else(unsigned)?;
        let keys = keys_that_signed(Namespace::Channel.as_str(), &bytes, &signatures)
            .map_err(|refusal| Error::Signature { path: path.to_owned(), refusal })?;
        if !keys.contains(&trust::public_key(key)?) {
            let found = keys.iter().map(trust::fingerprint).collect::<Vec<_>>().join(", ");
            return Err(Error::OtherKey { path: path.to_owned(), found });
        }
    }
    let parsed =
        Channel::parse(&bytes).map_err(|malformed| Error::Malformed { path: path.to_owned(), malformed })?;
    Ok(Some(parsed))
}

/// The manifests of the product.
fn manifests(order: &PublishOrder) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for path in files(&order.directory)? {
        if path.extension().is_none_or(|extension| extension != "manifest") {
            continue;
        }
        let Some(bytes) = disk::read_small(&path, MANIFEST_BYTES_MAX)? else { continue };
        let manifest = Manifest::parse(&bytes)
            .map_err(|malformed| Error::Malformed { path: path.clone(), malformed })?;
        if order.product.as_ref().is_none_or(|product| *product == manifest.product) {
            found.push(Found { path, manifest, digest: Digest::of(&bytes) });
        }
    }
    Ok(found)
}

fn choose<'a>(
    order: &PublishOrder,
    before: Option<&Channel>,
    found: &'a [Found],
) -> Result<&'a Found, Error> {
    let directory = || order.directory.clone();
    let version = match (&order.version, before, found) {
        (Some(version), _, _) => version,
        (None, Some(before), _) => &before.release.version,
        (None, None, [only]) => &only.manifest.version,
        (None, None, _) => return Err(Error::WhichRelease { directory: directory(), count: found.len() }),
    };
    let none = || Error::NoRelease { directory: directory(), version: version.clone() };
    let is_wanted = |found: &&Found| {
        found.manifest.version == *version
            && before.is_none_or(|before| before.product == found.manifest.product)
    };
    found.iter().find(is_wanted).ok_or_else(none)
}

/// Signs a manifest that has no signature. One that has must have been signed over these bytes.
fn sign_manifest(
    order: &PublishOrder,
    disk: &Disk,
    release: &Found,
    written: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let path = trust::signature_file(&release.path);
    let is_ours = written.contains(&release.path);
    match disk::read_small(&path, SIGNATURES_BYTES_MAX)?.filter(|_| !is_ours) {
        Some(signatures) => {
            let bytes = disk::read_small(&release.path, MANIFEST_BYTES_MAX)?.unwrap_or_default();
            let signed = keys_that_signed(Namespace::Release.as_str(), &bytes, &signatures);
            signed.map_err(|refusal| Error::Signature { path: release.path.clone(), refusal })?;
        }
        None => {
            if let Some(key) = &order.release_key {
                written.push(trust::sign_file(disk, &release.path, key, Namespace::Release)?);
            }
        }
    }
    Ok(())
}

fn next(
    order: &PublishOrder,
    before: Option<Channel>,
    release: &Found,
    found: &[Found],
) -> Result<Channel, Error> {
    let id = ReleaseId { version: release.manifest.version.clone(), digest: release.digest };
    let issued = Timestamp::from_second(order.now.as_second()).unwrap_or(order.now);
    let mut channel = before.unwrap_or_else(|| Channel {
        product: release.manifest.product.clone(),
        channel: order.channel.clone(),
        serial: 0,
        issued,
        expires: issued,
        release: id.clone(),
        also: Vec::new(),
        minimum: None,
        revoked: Vec::new(),
        percent: None,
        waves: Vec::new(),
        extras: Vec::new(),
    });
    if channel.release != id {
        let last = std::mem::replace(&mut channel.release, id);
        channel.also.insert(0, last);
        channel.percent = None;
        channel.waves.clear();
    }
    // What is no more in the directory can't be fetched; and one version has one digest.
    let is_there = |id: &ReleaseId| found.iter().any(|found| found.digest == id.digest);
    channel.also.retain(|id| is_there(id) && id.version != release.manifest.version);
    channel.serial = order.serial.unwrap_or_else(|| channel.serial.saturating_add(1));
    channel.issued = issued;
    channel.expires = issued.checked_add(order.expires_in).unwrap_or(Timestamp::MAX);
    channel.minimum = order.minimum.clone().or(channel.minimum);
    for version in &order.revoked {
        if !channel.revoked.contains(version) {
            channel.revoked.push(version.clone());
        }
    }
    if channel.is_revoked(&channel.release.version) {
        return Err(Error::Revoked(channel.release.version));
    }
    channel.percent = order.percent.or(channel.percent);
    if !order.waves.is_empty() {
        channel.waves.clone_from(&order.waves);
    }
    Ok(channel)
}

fn check_archive(directory: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = directory.join(&manifest.archive);
    let (size, digest) = size_and_digest(&path)?;
    let what = match (size == manifest.size, digest == manifest.sha256) {
        (true, true) => return Ok(()),
        (false, _) => "the size",
        (true, false) => "the digest",
    };
    Err(Error::OtherArchive { path, what })
}

fn size_and_digest(path: &Path) -> Result<(u64, Digest), disk::Error> {
    let mut file = fs::File::open(path).context("open", path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hasher.into())),
            Ok(read) => {
                size += read as u64;
                hasher.update(&buffer[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(disk::Error::new("read", path, error)),
        }
    }
}

/// The regular files of a directory, by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>, disk::Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).context("list", directory)? {
        let entry = entry.context("list", directory)?;
        if entry.file_type().context("list", directory)?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
