//! The release that a call names: its manifest as it was read once, and its archive compared with it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, PublishOrder};
use crate::release::channel::Channel;
use crate::release::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::release::source::{local, open_regular};
use crate::release::text::is_name;
use crate::release::trust::{self, Namespace, SIGNATURES_BYTES_MAX, keys_that_signed};
use crate::sys::disk::{self, Context as _, Disk};
use crate::types::{Digest, ReleaseId, Version};

/// A release of the directory.
pub struct Named {
    pub path: PathBuf,
    pub manifest: Manifest,
    /// Its bytes, as they were read: what is signed and named are these, whatever the file is by then.
    bytes: Vec<u8>,
    /// Whether the manifest was made of the archive just now.
    is_new: bool,
    /// Whether the call itself names it, or the channel by its digest: only then it is signed.
    may_be_signed: bool,
}

impl Named {
    /// Finds the release that the order names, or else the channel, or else the only one of the directory.
    pub fn find(order: &PublishOrder, before: Option<&Channel>) -> Result<Self, Error> {
        let product = order.product.as_deref().or(before.map(|before| before.product.as_str()));
        let named = order.version.as_ref().or(before.map(|before| &before.release.version));
        let (product, version) = match (product, named) {
            (Some(product), Some(version)) => (product.to_owned(), version.clone()),
            _ => only(&order.directory, product, named)?,
        };
        let path = order.directory.join(format!("{product}-{version}.manifest"));
        let (bytes, is_new) = match disk::read_small(&path, MANIFEST_BYTES_MAX)? {
            Some(bytes) => (bytes, false),
            None => (made(&order.directory, &product, &version)?, true),
        };
        let manifest = Manifest::parse(&bytes)
            .map_err(|malformed| Error::Malformed { path: path.clone(), malformed })?;
        if (&manifest.product, &manifest.version) != (&product, &version) {
            return Err(Error::OtherRelease(path));
        }
        let named = Self { may_be_signed: order.version.is_some(), path, manifest, bytes, is_new };
        named.compare(&order.directory, before)
    }

    pub fn id(&self) -> ReleaseId {
        ReleaseId { version: self.manifest.version.clone(), digest: Digest::of(&self.bytes) }
    }

    /// What a channel has named once stays what it was, and the archive is the manifest's.
    fn compare(mut self, directory: &Path, before: Option<&Channel>) -> Result<Self, Error> {
        let id = self.id();
        if let Some(published) = before.and_then(|before| before.find(&id.version)) {
            if published.digest != id.digest {
                return Err(Error::Changed {
                    path: self.path,
                    found: id.digest,
                    published: published.digest,
                });
            }
            self.may_be_signed = true;
        }
        let path = directory.join(&self.manifest.archive);
        let (size, digest) = size_and_digest(&path)?;
        let what = match (size == self.manifest.size, digest == self.manifest.sha256) {
            (true, true) => return Ok(self),
            (false, _) => "the size",
            (true, false) => "the digest",
        };
        Err(Error::OtherArchive { path, what })
    }

    /// The signature to write, if one is needed. A signature that is there must hold, and the given key must be among
    /// those that made it.
    pub fn signature(
        &self,
        release_key: Option<&Path>,
        notes: &mut Vec<String>,
    ) -> Result<Option<String>, Error> {
        let there = disk::read_small(&trust::signature_file(&self.path), SIGNATURES_BYTES_MAX)?;
        if let Some(signatures) = there.filter(|_| !self.is_new) {
            let keys = keys_that_signed(Namespace::Release.as_str(), &self.bytes, &signatures)
                .map_err(|refusal| Error::Signature { path: self.path.clone(), refusal })?;
            let found = keys.iter().map(trust::fingerprint).collect::<Vec<_>>().join(", ");
            return match release_key {
                Some(key) if !keys.contains(&trust::public_key(key)?) => {
                    Err(Error::Stranger { path: self.path.clone(), found })
                }
                Some(_) => Ok(None),
                None => {
                    notes.push(format!("the manifest is signed by {found}: see that nodes trust it"));
                    Ok(None)
                }
            };
        }
        let Some(key) = release_key else {
            notes.push("the manifest is not signed".to_owned());
            return Ok(None);
        };
        if !self.may_be_signed {
            return Err(Error::NotNamed(self.manifest.version.clone()));
        }
        Ok(Some(trust::sign(key, Namespace::Release, &self.bytes)?))
    }

    /// Writes what is missing of manifest and signature into a directory.
    pub fn write(
        &self,
        into: &Path,
        signature: Option<&str>,
        disk: &Disk,
        written: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        let path = into.join(self.path.file_name().unwrap_or_default());
        if self.is_new {
            disk.replace(&path, &self.bytes, 0o644)?;
            written.push(path.clone());
        }
        if let Some(signature) = signature {
            let path = trust::signature_file(&path);
            disk.replace(&path, signature.as_bytes(), 0o644)?;
            written.push(path);
        }
        Ok(())
    }
}

/// What has become of the manifest of a release that the channel names.
#[derive(Debug)]
pub enum Standing {
    /// It is what was published.
    Same(Box<Manifest>),
    Gone,
    Changed,
}

/// Looks for a release that was published earlier.
pub fn standing(directory: &Path, product: &str, id: &ReleaseId) -> Result<Standing, disk::Error> {
    let path = directory.join(format!("{product}-{}.manifest", id.version));
    Ok(match disk::read_small(&path, MANIFEST_BYTES_MAX) {
        Ok(None) => Standing::Gone,
        Ok(Some(bytes)) if Digest::of(&bytes) == id.digest => {
            Manifest::parse(&bytes).map_or(Standing::Changed, |manifest| Standing::Same(Box::new(manifest)))
        }
        Ok(Some(_)) | Err(_) => Standing::Changed,
    })
}

/// Product and version of the only release of a directory, by the names of its files.
pub fn only(
    directory: &Path,
    product: Option<&str>,
    version: Option<&Version>,
) -> Result<(String, Version), Error> {
    let mut found = Vec::new();
    for path in files(directory)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(stem) = local::stem(&path).or_else(|| name.strip_suffix(".manifest")) else { continue };
        let named = match (product, version) {
            (Some(product), _) => stem
                .strip_prefix(product)
                .and_then(|rest| rest.strip_prefix('-'))
                .and_then(|version| Some((product.to_owned(), version.parse().ok()?))),
            (None, Some(version)) => stem
                .strip_suffix(version.as_str())
                .and_then(|rest| rest.strip_suffix('-'))
                .filter(|product| is_name(product))
                .map(|product| (product.to_owned(), version.clone())),
            (None, None) => local::split_stem(stem),
        };
        found.extend(named.filter(|named| !found.contains(named)));
    }
    match (found.len(), version) {
        (1, _) => Ok(found.swap_remove(0)),
        (0, Some(version)) => {
            Err(Error::NoRelease { directory: directory.to_owned(), version: version.clone() })
        }
        (count, _) => Err(Error::WhichRelease { directory: directory.to_owned(), count }),
    }
}

/// The bytes of a manifest for an archive that has none.
fn made(directory: &Path, product: &str, version: &Version) -> Result<Vec<u8>, Error> {
    let names = local::ENDINGS.map(|ending| format!("{product}-{version}{ending}"));
    let is_there =
        |name: &&String| directory.join(name).symlink_metadata().is_ok_and(|found| found.is_file());
    let Some(archive) = names.iter().find(is_there) else {
        return Err(Error::NoRelease { directory: directory.to_owned(), version: version.clone() });
    };
    let (size, sha256) = size_and_digest(&directory.join(archive))?;
    let manifest = Manifest::plain(product.to_owned(), version.clone(), archive.clone(), size, sha256);
    Ok(manifest.to_text().into_bytes())
}

fn size_and_digest(path: &Path) -> Result<(u64, Digest), disk::Error> {
    let mut file = open_regular(path).context("open", path)?;
    Digest::of_reader(&mut file).context("read", path)
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
