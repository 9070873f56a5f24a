//! From a source to a release that may be staged, in the one order that is safe: signature over the bytes, then reading
//! them, then the rules, and the archive last. Not a byte of the archive is read here.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::channel::{CHANNEL_BYTES_MAX, Channel, next_name};
use super::judge::{self, Accepted, Refused, Wants, Warning};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::source::{self, Item, LocalFile, Of, Ranges, Settings, Source, local};
use super::trust::{Keyring, Namespace, Refusal, SIGNATURES_BYTES_MAX, Signer};
use crate::sys::disk::{self, Context as _};
use crate::sys::owned;
use crate::types::state::SeenChannel;
use crate::types::{Digest, ReleaseId, Version, escaped_path};

/// How long a publisher takes at most to replace a channel and its signature.
const REPLACING_TIME: Duration = Duration::from_millis(250);

/// Why there is no release to stage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is there, and must not be taken.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The source does not give it.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The archive named on the command line can't be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The archive does not tell its version.
    #[error(transparent)]
    NoVersion(#[from] local::NoVersion),
}

/// A release that may be staged, and all that is known of it before its archive is read.
pub struct Candidate {
    pub release: ReleaseId,
    pub manifest: Manifest,
    /// The channel's serial, where it comes from a channel.
    pub serial: Option<u64>,
    /// Who vouches for the release; empty: nobody, as allowed.
    pub signers: Vec<Signer>,
    /// How many percent of the nodes it is for by now, where it comes from a channel.
    pub percent: Option<u8>,
    pub archive: Box<dyn Ranges>,
    /// Whether nobody but root and the caller can change the archive where it is. Any other must be copied to a private
    /// file first: it could be changed between two readings.
    pub is_ours: bool,
    /// Whether the manifest was made of the archive just now, so that it need not be compared with it.
    pub is_derived: bool,
    /// What somebody should look at.
    pub warnings: Vec<Warning>,
}

/// A channel as it was read, not yet believed.
pub struct ReadChannel {
    bytes: Vec<u8>,
    signatures: Option<Vec<u8>>,
}

/// Reads releases of one source for one node.
pub struct Resolver<'a> {
    pub source: &'a dyn Source,
    pub keyring: &'a Keyring,
    /// The table `[source]`.
    pub settings: &'a Settings,
    /// The product, where `settings` names none and the active release does.
    pub product: Option<&'a str>,
    pub now: Timestamp,
}

impl Resolver<'_> {
    fn channel_name(&self) -> String {
        format!("{}.channel", self.settings.channel)
    }

    /// The time by which signatures count.
    fn signing_time(&self, memory: &BTreeMap<String, SeenChannel>) -> Timestamp {
        // A clock that was set back must not revive a key that has expired; the newest signed time counts as well.
        let still_trusted: Vec<_> =
            self.keyring.keys().iter().filter(|key| !self.keyring.is_revoked(key)).collect();
        let is_still_trusted = |key: &String| still_trusted.iter().any(|by| key.ends_with(&by.fingerprint()));
        let remembered = memory.iter().filter(|(key, _)| is_still_trusted(key));
        let newest_issued = remembered.map(|(_, seen)| seen.issued).max();
        newest_issued.map_or(self.now, |issued| issued.max(self.now))
    }

    /// Reads the channel. This may take as long as the source pleases: what is remembered may have changed when it is done.
    pub fn read_channel(&self, memory: &BTreeMap<String, SeenChannel>) -> Result<ReadChannel, Error> {
        self.signed_channel(&self.channel_name(), self.signing_time(memory))
    }

    /// Judges a channel by what is remembered now. Put `memory` of the result into `State::channels` before acting upon
    /// it, and before anybody else can have changed them.
    pub fn judge_channel(
        &self,
        read: &ReadChannel,
        memory: &BTreeMap<String, SeenChannel>,
    ) -> Result<Accepted, Error> {
        let (name, at) = (self.channel_name(), self.signing_time(memory));
        let ReadChannel { bytes, signatures } = read;
        let signers = self.verified(Namespace::Channel, &name, bytes, signatures.as_deref(), at, 1)?;
        let channel = Channel::parse(bytes)
            .map_err(|malformed| Refused::Malformed { what: name.clone(), malformed })?;
        let trusted = self.keyring.fingerprints(Namespace::Channel, at);
        let digest = Digest::of(bytes);
        let mut accepted =
            judge::channel(channel, digest, &signers, &trusted, memory, self.now, self.wants())?;
        if signers.is_empty() {
            accepted.warnings.push(Warning::Unsigned(name));
        }
        if sends_credentials_in_clear(self.settings) {
            accepted.warnings.push(Warning::CredentialsInClear);
        }
        Ok(accepted)
    }

    /// The channel's bytes and its signatures. A publisher replaces one after the other: when they don't fit, both are read
    /// once more, and then those that come next.
    fn signed_channel(&self, name: &str, at: Timestamp) -> Result<ReadChannel, Error> {
        let of = Of::Channel(&self.settings.channel);
        let read = |name: &str| -> Result<_, Error> {
            let bytes = self.need(Item { of, name }, CHANNEL_BYTES_MAX)?;
            let signatures = self.signatures(of, name)?;
            Ok(ReadChannel { bytes, signatures })
        };
        let verify = |read: &ReadChannel| {
            self.verified(Namespace::Channel, name, &read.bytes, read.signatures.as_deref(), at, 1)
        };
        // Whether it is to be believed is judged later.
        let fits = |read: &ReadChannel| match verify(read) {
            // Of another channel, not there yet, or not there as a whole.
            Err(Refused::Untrusted {
                refusal: Refusal::WrongSignature(_) | Refusal::Unsigned | Refusal::NotASignature,
                ..
            }) => !self.source.is_replaced_in_place(),
            Ok(_) | Err(_) => true,
        };
        let first = read(name)?;
        if fits(&first) {
            return Ok(first);
        }
        std::thread::sleep(REPLACING_TIME);
        let second = read(name)?;
        if fits(&second) {
            return Ok(second);
        }
        // A publisher that was killed while it replaced them has left both that come next.
        let next = read(&next_name(name)).ok().filter(|next| verify(next).is_ok());
        Ok(next.unwrap_or(second))
    }

    /// Reads and judges the manifest of the channel's release, or of another version that it names.
    pub fn release(&self, accepted: &Accepted, version: Option<&Version>) -> Result<Candidate, Error> {
        let release = accepted.choose(version)?;
        let name = format!("{}-{}.manifest", accepted.channel.product, release.version);
        let of = Of::Release(release.version.as_str());
        let bytes = self.need(Item { of, name: &name }, MANIFEST_BYTES_MAX)?;
        let digest = Digest::of(&bytes);
        if digest != release.digest {
            return Err(Refused::OtherManifest { what: name, found: digest, wanted: release.digest }.into());
        }
        let signatures = self.signatures(of, &name)?;
        let (manifest, signers) =
            self.manifest(&name, &bytes, signatures.as_deref(), Some(release), accepted.now)?;
        let mut warnings = accepted.warnings.clone();
        if signers.is_empty() {
            warnings.push(Warning::Unsigned(name));
        }
        Ok(Candidate {
            percent: Some(accepted.percent(release)),
            release: release.clone(),
            serial: Some(accepted.channel.serial),
            archive: self.source.archive(Item { of, name: &manifest.archive }, manifest.size)?,
            is_ours: false,
            is_derived: false,
            manifest,
            signers,
            warnings,
        })
    }

    fn manifest(
        &self,
        name: &str,
        bytes: &[u8],
        signatures: Option<&[u8]>,
        release: Option<&ReleaseId>,
        at: Timestamp,
    ) -> Result<(Manifest, Vec<Signer>), Refused> {
        let threshold = self.settings.threshold;
        let signers = self.verified(Namespace::Release, name, bytes, signatures, at, threshold)?;
        let manifest = Manifest::parse(bytes)
            .map_err(|malformed| Refused::Malformed { what: name.to_owned(), malformed })?;
        judge::manifest(&manifest, name, release, self.wants())?;
        Ok((manifest, signers))
    }

    /// The signers that count; none only where unsigned files are allowed.
    fn verified(
        &self,
        namespace: Namespace,
        what: &str,
        bytes: &[u8],
        signatures: Option<&[u8]>,
        at: Timestamp,
        threshold: u32,
    ) -> Result<Vec<Signer>, Refused> {
        match self.keyring.verify(namespace, bytes, signatures, at, threshold) {
            Ok(signers) => Ok(signers),
            // A stranger's signature is as good as none, since anybody can take it away. One that does not hold over
            // these bytes is worse: something was damaged.
            Err(Refusal::Unsigned | Refusal::NoKeys(_) | Refusal::TooFew { .. })
                if self.settings.allow_unsigned =>
            {
                Ok(Vec::new())
            }
            Err(refusal) => Err(Refused::Untrusted { what: what.to_owned(), refusal }),
        }
    }

    fn wants(&self) -> Wants<'_> {
        Wants {
            product: self.settings.product.as_deref().or(self.product),
            channel: &self.settings.channel,
            compatible: &self.settings.compatible,
        }
    }

    fn need(&self, item: Item<'_>, limit: usize) -> Result<Vec<u8>, Error> {
        let missing = || source::Error::Missing(format!("{}/{}", self.source.place(), item.name));
        Ok(self.small(item, limit)?.ok_or_else(missing)?)
    }

    /// The signatures of a file; `None` when there are none.
    fn signatures(&self, of: Of<'_>, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.small(Item { of, name: &format!("{name}.sig") }, SIGNATURES_BYTES_MAX)
    }

    /// A small file; refuses a page of the web, which whoever is in between gives in place of any file.
    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.source.small(item, limit)?;
        // None of these files can begin so.
        match bytes.as_ref().is_some_and(|bytes| bytes.trim_ascii_start().starts_with(b"<")) {
            true => Err(Refused::Page(format!("{}/{}", self.source.place(), item.name)).into()),
            false => Ok(bytes),
        }
    }
}

/// Whether credentials go to another machine over `http://`.
fn sends_credentials_in_clear(settings: &Settings) -> bool {
    let Some(rest) = settings.url.as_deref().and_then(|url| url.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let is_here = ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|name| host.strip_prefix(name).is_some_and(|port| port.is_empty() || port.starts_with(':')));
    !is_here && (!user.is_empty() || settings.credentials.is_some())
}

/// An archive that somebody named on the command line.
pub struct LocalArchive<'a> {
    pub file: &'a Path,
    /// Its version, where it has no manifest.
    pub version: Option<&'a Version>,
    pub keyring: &'a Keyring,
    /// The table `[source]`, with `allow_unsigned` as asked for on the command line.
    pub settings: &'a Settings,
    /// The product that its manifest must name, where `settings` names none.
    pub product: Option<&'a str>,
    pub now: Timestamp,
}

impl LocalArchive<'_> {
    /// The release in the archive: by the manifest beside it, or, where unsigned releases are allowed, by itself.
    pub fn candidate(&self) -> Result<Candidate, Error> {
        let file = open(self.file)?;
        let archive = LocalFile::new(file, self.file)?;
        let manifest_path = local::manifest_beside(self.file);
        let bytes = match &manifest_path {
            Some(path) => disk::read_small(path, MANIFEST_BYTES_MAX)?,
            None => None,
        };
        let is_derived = bytes.is_none();
        let (manifest, digest, signers) = match (bytes, manifest_path) {
            (Some(bytes), Some(path)) => self.with_manifest(&bytes, &path)?,
            _ => self.without_manifest(&archive)?,
        };
        let what = escaped_path(self.file);
        let release = ReleaseId { version: manifest.version.clone(), digest };
        Ok(Candidate {
            percent: None,
            release,
            serial: None,
            archive: Box::new(archive),
            is_ours: matches!(owned::open(self.file), Ok(Some(_))),
            is_derived,
            manifest,
            warnings: if signers.is_empty() { vec![Warning::Unsigned(what)] } else { Vec::new() },
            signers,
        })
    }

    fn with_manifest(&self, bytes: &[u8], path: &Path) -> Result<(Manifest, Digest, Vec<Signer>), Error> {
        let what = escaped_path(path);
        let mut signature_path = path.as_os_str().to_owned();
        signature_path.push(".sig");
        let signatures = disk::read_small(&PathBuf::from(signature_path), SIGNATURES_BYTES_MAX)?;
        let source = source::Directory::new("/");
        let resolver = Resolver {
            source: &source,
            keyring: self.keyring,
            settings: self.settings,
            product: self.product,
            now: self.now,
        };
        let (manifest, signers) = resolver.manifest(&what, bytes, signatures.as_deref(), None, self.now)?;
        let name = self.file.file_name().unwrap_or_default();
        if name != manifest.archive.as_str() {
            let found = escaped_path(Path::new(name));
            return Err(Refused::OtherArchive { found, wanted: manifest.archive }.into());
        }
        if let Some(wanted) = self.version.filter(|wanted| **wanted != manifest.version) {
            let (found, wanted) = (manifest.version, wanted.clone());
            return Err(Refused::OtherVersion { what, found, wanted }.into());
        }
        Ok((manifest, Digest::of(bytes), signers))
    }

    /// Refuses a name that says another product than the one of this node. Who says the version has looked.
    fn of_this_product(&self, named: (String, Version)) -> Result<(String, Version), Error> {
        let Some(wanted) = self.settings.product.as_deref().or(self.product) else { return Ok(named) };
        if named.0 == wanted {
            return Ok(named);
        }
        // A product's own name may have what looks like the begin of a version.
        let by_product = local::product_and_version(self.file, Some(wanted))?;
        if by_product.0 == wanted && by_product.1.as_str().starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(by_product);
        }
        let (what, found) = (escaped_path(self.file), named.0);
        Err(Refused::OtherProduct { what, found, wanted: wanted.to_owned() }.into())
    }

    /// The archive's own digest stands for the release's.
    fn without_manifest(&self, archive: &LocalFile) -> Result<(Manifest, Digest, Vec<Signer>), Error> {
        let product = self.settings.product.as_deref();
        let by_name = local::product_and_version(self.file, product);
        let (product, version) = match self.version {
            None => self.of_this_product(by_name?)?,
            Some(version) => {
                let by_name = by_name.ok().map(|(product, _)| product);
                (
                    product.map(str::to_owned).or(by_name).unwrap_or_else(|| "unnamed".to_owned()),
                    version.clone(),
                )
            }
        };
        if !self.settings.allow_unsigned {
            let what = escaped_path(self.file);
            return Err(Refused::Untrusted { what, refusal: Refusal::Unsigned }.into());
        }
        let digest = hash(archive, self.file)?;
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = Manifest::plain(product, version, name, archive.size(), digest);
        Ok((manifest, digest, Vec::new()))
    }
}

/// Opens a file that an admin named: links are followed, but it must be a regular file, and opening never waits.
fn open(path: &Path) -> Result<File, disk::Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).context("open", path)?;
    if file.metadata().context("look at", path)?.is_file() {
        Ok(file)
    } else {
        Err(disk::Error::new("read", path, std::io::Error::other("it is not a regular file")))
    }
}

fn hash(archive: &LocalFile, path: &Path) -> Result<Digest, Error> {
    let mut reader = archive.read_range(0, archive.size())?;
    Ok(Digest::of_reader(&mut reader).context("read", path)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_over_http_are_worth_a_warning() {
        for (url, credentials, wanted) in [
            ("http://releases.example/shop", Some("file"), true),
            ("http://user:word@releases.example/shop", None, true),
            ("http://localhost.example:80/shop", Some("file"), true),
            ("http://releases.example/shop", None, false),
            ("https://releases.example/shop", Some("file"), false),
            ("http://localhost:8080/shop", Some("file"), false),
            ("http://[::1]/shop", Some("file"), false),
            ("/mnt/releases", Some("file"), false),
        ] {
            let credentials = credentials.map(str::to_owned);
            let settings = Settings { url: Some(url.to_owned()), credentials, ..Settings::default() };
            assert_eq!(sends_credentials_in_clear(&settings), wanted, "{url}");
        }
    }
}
