//! Copies a channel and its releases from one place to another: to where nodes read, or to where no network leads.
//!
//! Of each release the archive comes first, then its manifest and signature: who finds a manifest finds all. The channel
//! comes last, and only if it is there what it was when it was looked at. So a copy that was interrupted is begun again,
//! and of two at once one is told, before it has replaced anything. Nothing is signed and nobody is trusted here: nodes judge for themselves. But what is
//! damaged, or does not fit together, is not copied.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::channel::{CHANNEL_BYTES_MAX, Channel, next_name};
use super::judge::Refused;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::resolve;
use super::source::{self, Before, Item, LocalFile, Of, Ranges, Sink, Source, Upload, fetch_whole, local};
use super::trust::SIGNATURES_BYTES_MAX;
use crate::sys::disk::Disk;
use crate::types::progress::{Activity, Progress};
use crate::types::{Digest, ReleaseId, Version};

/// So long a publisher may take from the first small file of a channel to the last; then it was killed.
const FINISHING_TIME: Duration = Duration::from_secs(10);
/// So often it is told how far bringing an archive is, and looked whether another publisher has finished.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is copied, and from where to where.
pub struct CopyOrder<'a> {
    pub from: &'a dyn Source,
    pub there: &'a dyn Source,
    pub to: &'a dyn Sink,
    pub channel: &'a str,
    /// All releases that the channel names, not only the one to run.
    pub is_complete: bool,
    /// The channel that the copy goes on from; without it, the one that is there.
    pub before: Option<Before>,
    /// Nothing is brought there; it is only said what would be.
    pub is_dry: bool,
}

/// What a copy came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub release: ReleaseId,
    pub serial: u64,
    /// Releases that were not there.
    pub releases: Vec<Version>,
    /// Bytes of their archives.
    pub bytes: u64,
    /// Whether the channel was not there as it is.
    pub is_channel_new: bool,
}

/// A small file and its signature.
struct Signed {
    name: String,
    bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Signed {
    fn read(
        source: &dyn Source,
        of: Of<'_>,
        name: &str,
        limit: usize,
    ) -> Result<Option<Self>, source::Error> {
        let Some(bytes) = source.small(Item { of, name }, limit)? else { return Ok(None) };
        let signature = source.small(Item { of, name: &format!("{name}.sig") }, SIGNATURES_BYTES_MAX)?;
        Ok(Some(Self { name: name.to_owned(), bytes, signature }))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.signature == other.signature
    }
}

/// Copies.
///
/// # Errors
/// When something is missing or does not fit together, when the place has another release of the same version or a newer
/// channel, or when somebody else is at work there. The channel that is there is then as it was.
pub fn copy(order: &CopyOrder<'_>, progress: &dyn Progress) -> Result<Copied, resolve::Error> {
    let (of, name) = (Of::Channel(order.channel), format!("{}.channel", order.channel));
    let missing = || source::Error::Missing(format!("{}/{name}", order.from.place()));
    let new = Signed::read(order.from, of, &name, CHANNEL_BYTES_MAX)?.ok_or_else(missing)?;
    let channel = parse_channel(&new)?;
    let (next, old) = read_there(order, of, &name)?;
    let found = Before::of(old.as_ref().map(|old| Digest::of(&old.bytes)));
    let is_channel_new = old.as_ref().is_none_or(|old| !old.is_same(&new));
    let there = old.as_ref().and_then(|old| parse_channel(old).ok());
    if let Some(there) = there.as_ref().filter(|there| there.product != channel.product) {
        return Err(source::Error::Occupied {
            what: format!("{}/{name}", order.there.place()),
            by: format!("the channel of product `{}`", there.product),
            new: format!("that of product `{}`", channel.product),
        }
        .into());
    }
    let serial_there = there.as_ref().map(|channel| channel.serial);
    let is_overtaken = order.before.is_some_and(|before| before != found)
        || serial_there.is_some_and(|there| there > channel.serial);
    if is_channel_new && is_overtaken {
        return Err(source::Error::Overtaken(format!("{}/{name}", order.there.place())).into());
    }
    let mut copied = Copied {
        release: channel.release.clone(),
        serial: channel.serial,
        releases: Vec::new(),
        bytes: 0,
        is_channel_new,
    };
    for release in channel.releases().filter(|release| order.is_complete || **release == channel.release) {
        if let Some(bytes) = copy_release(order, &channel.product, release, there.as_ref(), progress)? {
            copied.releases.push(release.version.clone());
            copied.bytes += bytes;
        }
    }
    if is_channel_new && !order.is_dry {
        put_channel(order, of, &new, old.as_ref(), next)?;
    }
    Ok(copied)
}

/// What comes next, by its digest, and the channel. Whoever has begun to replace it gets a moment to finish.
fn read_there(
    order: &CopyOrder<'_>,
    of: Of<'_>,
    name: &str,
) -> Result<(Before, Option<Signed>), source::Error> {
    let serial = |bytes: &[u8]| Channel::parse(bytes).ok().map(|channel| channel.serial);
    let began = Instant::now();
    loop {
        // Read first: who comes in between has replaced it.
        let next = match order.to.shows_at_once() {
            true => None,
            false => order.there.small(Item { of, name: &next_name(name) }, CHANNEL_BYTES_MAX)?,
        };
        let channel = Signed::read(order.there, of, name, CHANNEL_BYTES_MAX)?;
        let is_begun =
            next.as_deref().and_then(serial) > channel.as_ref().and_then(|channel| serial(&channel.bytes));
        if !is_begun || order.is_dry || began.elapsed() >= FINISHING_TIME {
            return Ok((Before::of(next.as_deref().map(Digest::of)), channel));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn parse_channel(signed: &Signed) -> Result<Channel, Refused> {
    let what = signed.name.clone();
    Channel::parse(&signed.bytes).map_err(|malformed| Refused::Malformed { what, malformed })
}

/// Copies one release; gives the bytes of its archive, if it was not there.
fn copy_release(
    order: &CopyOrder<'_>,
    product: &str,
    release: &ReleaseId,
    there: Option<&Channel>,
    progress: &dyn Progress,
) -> Result<Option<u64>, resolve::Error> {
    let of = Of::Release(release.version.as_str());
    let name = format!("{product}-{}.manifest", release.version);
    let missing = || source::Error::Missing(format!("{}/{name}", order.from.place()));
    let new = Signed::read(order.from, of, &name, MANIFEST_BYTES_MAX)?.ok_or_else(missing)?;
    let found = Digest::of(&new.bytes);
    if found != release.digest {
        return Err(Refused::OtherManifest { what: name, found, wanted: release.digest }.into());
    }
    match Signed::read(order.there, of, &name, MANIFEST_BYTES_MAX)? {
        Some(old) if old.is_same(&new) => return Ok(None),
        Some(old) if old.bytes != new.bytes => {
            return Err(source::Error::Exists(format!("{}/{name}", order.there.place())).into());
        }
        Some(_) | None => {}
    }
    let manifest =
        Manifest::parse(&new.bytes).map_err(|malformed| Refused::Malformed { what: name, malformed })?;
    check_archive(order, &manifest, there)?;
    if !order.is_dry {
        let archive = whole_archive(order.from, of, &manifest, progress)?;
        progress.begin(Activity::Bring, Some(manifest.size), None);
        let sent =
            counted(archive.as_ref(), progress, |archive| put_release(order, of, &new, &manifest, archive));
        progress.end();
        sent?;
    }
    Ok(Some(manifest.size))
}

/// Refuses an archive that would replace another release's of the same name. One that is named after its release
/// cannot.
fn check_archive(
    order: &CopyOrder<'_>,
    manifest: &Manifest,
    there: Option<&Channel>,
) -> Result<(), source::Error> {
    let own = format!("{}-{}", manifest.product, manifest.version);
    if order.to.keeps_releases_apart() || local::stem(Path::new(&manifest.archive)) == Some(own.as_str()) {
        return Ok(());
    }
    let others =
        there.into_iter().flat_map(Channel::releases).filter(|other| other.version != manifest.version);
    for other in others {
        let name = format!("{}-{}.manifest", manifest.product, other.version);
        let item = Item { of: Of::Release(other.version.as_str()), name: &name };
        let found = order.there.small(item, MANIFEST_BYTES_MAX)?;
        let found = found.and_then(|bytes| Manifest::parse(&bytes).ok());
        if found.is_some_and(|found| found.archive == manifest.archive && found.sha256 != manifest.sha256) {
            return Err(source::Error::Occupied {
                what: format!("{}/{}", order.there.place(), manifest.archive),
                by: format!("the archive of release {}", other.version),
                new: format!("that of release {}", manifest.version),
            });
        }
    }
    Ok(())
}

/// The archive, as it must be, in a file that nobody else changes or that is nobody else's.
fn whole_archive(
    from: &dyn Source,
    of: Of<'_>,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<Box<dyn Ranges>, resolve::Error> {
    let archive = from.archive(Item { of, name: &manifest.archive }, manifest.size)?;
    if archive.is_far() {
        let place = std::env::temp_dir();
        let private = |source| source::Error::Private { directory: place.clone(), source };
        let mut file = unnamed_file(&place).map_err(private)?;
        let fetched = fetch_whole(archive.as_ref(), manifest.size, manifest.sha256, &mut file, progress);
        fetched.map_err(|error| match error {
            source::Error::Write(error) => private(error),
            other => other,
        })?;
        return Ok(Box::new(LocalFile::new(file, Path::new(&manifest.archive))?));
    }
    progress.begin(Activity::Verify, Some(manifest.size), None);
    let digest = hash(archive.as_ref(), progress);
    progress.end();
    let (found, size) = (digest?, archive.size());
    if size != manifest.size {
        return Err(source::Error::Size { found: size, signed: manifest.size }.into());
    }
    if found != manifest.sha256 {
        return Err(source::Error::Digest { found, signed: manifest.sha256 }.into());
    }
    Ok(archive)
}

/// A file without a name in this directory; where its file system knows none (NFS, some of containers), with one that
/// nobody knows, and that is removed at once.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
        Err(error) if [libc::EOPNOTSUPP, libc::EISDIR].contains(&error.raw_os_error().unwrap_or(0)) => {}
        opened => return opened,
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let path = directory.join(format!("cutover-copy-{:032x}", u128::from_le_bytes(random)));
    let file = options.create_new(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
    Disk::default().remove_file(&path).map_err(io::Error::other)?;
    Ok(file)
}

fn hash(archive: &dyn Ranges, progress: &dyn Progress) -> Result<Digest, source::Error> {
    let mut reader = archive.read_range(0, archive.size())?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer).map_err(|error| source::Error::reading("the archive", error))? {
            0 => return Ok(hasher.into()),
            read => {
                hasher.update(&buffer[..read]);
                progress.advance(read as u64, 0);
            }
        }
    }
}

/// Does the work with an archive, and tells meanwhile how far it is read. What is read again is not told again.
fn counted<T: Send>(
    archive: &dyn Ranges,
    progress: &dyn Progress,
    work: impl FnOnce(&dyn Ranges) -> T + Send,
) -> T {
    let counted = Counted { archive, read: Arc::default() };
    let mut told = 0;
    let mut tell = || {
        let read = counted.read.load(Ordering::Relaxed);
        progress.advance(read.saturating_sub(told), 0);
        told = told.max(read);
    };
    let done = thread::scope(|scope| {
        let worker = scope.spawn(|| work(&counted));
        while !worker.is_finished() {
            tell();
            thread::park_timeout(LOOK_AGAIN);
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    tell();
    done
}

/// An archive that is read, and how far.
struct Counted<'a> {
    archive: &'a dyn Ranges,
    read: Arc<AtomicU64>,
}

impl Ranges for Counted<'_> {
    fn size(&self) -> u64 {
        self.archive.size()
    }

    fn read_range(&self, start: u64, length: u64) -> Result<Box<dyn Read + Send>, source::Error> {
        let inner = self.archive.read_range(start, length)?;
        Ok(Box::new(CountedReader { inner, at: start, read: Arc::clone(&self.read) }))
    }
}

struct CountedReader {
    inner: Box<dyn Read + Send>,
    at: u64,
    read: Arc<AtomicU64>,
}

impl Read for CountedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.at += got as u64;
        self.read.fetch_max(self.at, Ordering::Relaxed);
        Ok(got)
    }
}

fn upload<'a>(name: &'a str, content: &'a Vec<u8>, before: Before) -> Upload<'a> {
    Upload { name, content, sha256: Digest::of(content), before }
}

/// Brings a release. Its manifest, which others look for first, is shown last.
fn put_release(
    order: &CopyOrder<'_>,
    of: Of<'_>,
    new: &Signed,
    manifest: &Manifest,
    archive: &dyn Ranges,
) -> Result<(), source::Error> {
    let name = format!("{}.sig", new.name);
    let (sha256, before) = (manifest.sha256, Before::Any);
    let mut files = vec![Upload { name: &manifest.archive, content: archive, sha256, before }];
    files.extend(new.signature.iter().map(|signature| upload(&name, signature, before)));
    files.push(upload(&new.name, &new.bytes, before));
    order.to.put(of, &files)
}

/// Brings a channel. Where files are shown one by one, what comes next is replaced first, if it is what it was: of several
/// publishers at once one goes on, and the others have touched nothing. While channel and signature do not fit, nodes
/// read the pair that comes next.
fn put_channel(
    order: &CopyOrder<'_>,
    of: Of<'_>,
    new: &Signed,
    old: Option<&Signed>,
    next: Before,
) -> Result<(), source::Error> {
    let (next_name, name) = (next_name(&new.name), format!("{}.sig", new.name));
    let next_signature = format!("{next_name}.sig");
    let found =
        |of: fn(&Signed) -> Option<&Vec<u8>>| Before::of(old.and_then(of).map(|bytes| Digest::of(bytes)));
    let mut files = Vec::new();
    if let Some(signature) = &new.signature {
        if !order.to.shows_at_once() {
            files.push(upload(&next_name, &new.bytes, next));
            files.push(upload(&next_signature, signature, Before::Any));
        }
        files.push(upload(&name, signature, found(|old| old.signature.as_ref())));
    }
    files.push(upload(&new.name, &new.bytes, found(|old| Some(&old.bytes))));
    order.to.put(of, &files)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests arrange files themselves")]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::release::source::Directory;
    use crate::types::progress::Silent;

    fn write(directory: &Path, name: &str, bytes: &[u8]) {
        File::create(directory.join(name)).unwrap().write_all(bytes).unwrap();
    }

    /// A directory with a channel of this serial that names this release.
    fn publish(directory: &Path, version: &str, serial: u64) {
        let archive = format!("archive of {version}").into_bytes();
        write(directory, &format!("shop-{version}.tar"), &archive);
        let manifest = format!(
            "format = 1\nproduct = shop\nversion = {version}\narchive = shop-{version}.tar\nsize = {}\nsha256 = {}\n",
            archive.len(),
            Digest::of(&archive).hex()
        );
        write(directory, &format!("shop-{version}.manifest"), manifest.as_bytes());
        let channel = format!(
            "format = 1\nproduct = shop\nchannel = stable\nserial = {serial}\nissued = 2026-01-01T00:00:00Z\n\
             expires = 2036-01-01T00:00:00Z\nrelease = {version} {}\n",
            Digest::of(manifest.as_bytes())
        );
        write(directory, "stable.channel", channel.as_bytes());
    }

    #[test]
    fn a_copy_has_all_and_is_made_once() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (Directory::new(here.path()), Directory::new(there.path()));
        let copied = |before, is_dry| {
            let order = CopyOrder {
                from: &from,
                there: &to,
                to: &to,
                channel: "stable",
                is_complete: false,
                before,
                is_dry,
            };
            copy(&order, &Silent)
        };
        assert!(copied(None, false).is_err(), "there is no channel");
        publish(here.path(), "1", 1);
        let dry = copied(None, true).unwrap();
        assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 0);
        let done = copied(None, false).unwrap();
        assert_eq!((&done, done.bytes, done.is_channel_new), (&dry, 12, true));
        assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 3);
        let again = copied(None, false).unwrap();
        assert!(again.releases.is_empty() && !again.is_channel_new, "{again:?}");

        publish(here.path(), "2", 2);
        let stranger = copied(Some(Before::Absent), false).unwrap_err();
        assert!(matches!(stranger, resolve::Error::Source(source::Error::Overtaken(_))), "{stranger}");
        publish(there.path(), "3", 3);
        let older = copied(None, false).unwrap_err();
        assert!(matches!(older, resolve::Error::Source(source::Error::Overtaken(_))), "{older}");
        publish(there.path(), "1", 1);
        write(there.path(), "shop-2.manifest", b"another");
        let other = copied(None, false).unwrap_err();
        assert!(matches!(other, resolve::Error::Source(source::Error::Exists(_))), "{other}");
        std::fs::remove_file(there.path().join("shop-2.manifest")).unwrap();
        write(here.path(), "shop-2.tar", b"archive of X");
        let damaged = copied(None, false).unwrap_err();
        assert!(matches!(damaged, resolve::Error::Source(source::Error::Digest { .. })), "{damaged}");
        write(here.path(), "shop-2.tar", b"archive of 2");
        assert_eq!(copied(None, false).unwrap().serial, 2);
    }
}
