//! From an archive to a sealed tree: measured, verified, unpacked aside, made durable, shown by one rename.
//!
//! The running release is untouched. Nothing here holds the lock of the switch, however slow a source may be.

mod indexed;
mod links;
pub mod upstream;

use std::io::Read;
use std::path::Path;

use super::node::Node;
use super::update::finish;
use crate::release::archive;
use crate::release::resolve::Candidate;
use crate::release::source::{LocalFile, Ranges};
use crate::release::{check, index, source, stage};
use crate::store::{self, Kept, Sealed, Store};
use crate::sys::disk::{self, Context};
use crate::types::entry::Entry;
use crate::types::progress::{Activity, Progress};
use crate::types::{Digest, ReleaseId, Version};

/// Why a release was not staged. The running release is untouched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The archive is refused, or cannot be unpacked.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// The archive and its index are not what they should be, or cannot be read.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// The archive breaks a rule, or cannot be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The source did not give it.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// What came is not what was promised.
    #[error("release {version} is refused: {what}")]
    Mismatch { version: Version, what: String },
    /// A configured link has no place in the tree.
    #[error("cannot make the link `{name}` of `[links]` in the tree: {why}")]
    Link {
        name: String,
        /// What is in the way.
        why: String,
    },
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

impl Error {
    /// Whether there is no room for the release.
    fn is_no_space(&self) -> bool {
        match self {
            Self::Store(store::Error::NoSpace(_)) => true,
            Self::Store(store::Error::Disk(error))
            | Self::Stage(stage::Error::Disk(error))
            | Self::Index(index::Error::Disk(error))
            | Self::Disk(error) => error.is_no_space(),
            Self::Index(index::Error::Source(error)) | Self::Source(error) => error.is_no_space(),
            Self::Store(_)
            | Self::Stage(_)
            | Self::Index(_)
            | Self::Archive(_)
            | Self::Mismatch { .. }
            | Self::Link { .. } => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Staged {
    pub sealed: Sealed,
    /// Whether it had been staged before.
    pub was_here: bool,
}

impl Node<'_> {
    /// Stages a release that is not here yet. The caller holds the lock of staging.
    ///
    /// An archive of a source is first copied to a file of ours: from then on nobody else can change it. One that an
    /// admin named is read where it is, if nobody else can change it there.
    pub fn stage(
        &self,
        candidate: &Candidate,
        is_named: bool,
        progress: &dyn Progress,
    ) -> Result<Staged, Error> {
        if let Some(sealed) = here(self.store, &candidate.release)? {
            return Ok(Staged { sealed, was_here: true });
        }
        let staged = self.stage_aside(candidate, is_named, progress);
        if staged.as_ref().is_err_and(Error::is_no_space) {
            // There is no room, and nothing of it is taken. The first error is the one to tell.
            drop(self.store.forget_staged(&candidate.release.version));
        }
        staged
    }

    fn stage_aside(
        &self,
        candidate: &Candidate,
        is_named: bool,
        progress: &dyn Progress,
    ) -> Result<Staged, Error> {
        let manifest = &candidate.manifest;
        let version = candidate.release.version.clone();
        let limits = self.settings.archive.limits(manifest.unpacked, manifest.entries);
        if let Some(built) =
            self.build_indexed(candidate, is_named && candidate.is_ours, &limits, progress)?
        {
            let (tree, entries, bytes) = (built.staged.tree, built.staged.entries, built.staged.bytes);
            let sealed = self.seal(candidate, built.staging, tree, entries, bytes)?;
            self.store.forget_archive(&version)?;
            return Ok(Staged { sealed, was_here: false });
        }
        let fetched: LocalFile;
        let archive: &dyn Ranges = if is_named && candidate.is_ours {
            // It was compared with its manifest when it was looked at for an index.
            candidate.archive.as_ref()
        } else {
            fetched = self.fetch(candidate, progress)?;
            &fetched
        };
        let totals = archive::measure(whole(archive)?, &manifest.archive, &limits)?;
        self.ensure_room(totals.allocated, totals.entries)?;
        let staging = self.store.stage(&version, self.settings.store.method)?;
        let disk = &self.store.disk;
        let built = stage::unpack(whole(archive)?, &manifest.archive, &staging.path, &limits, disk, progress)
            // The first error is the one to tell; what is left is swept later.
            .inspect_err(|_| drop(self.store.abandon(&staging)))?;
        if let Some(promised) = manifest.tree.filter(|promised| *promised != built.declared) {
            let what =
                format!("its tree has the digest {}, and its manifest says {promised}", built.declared);
            self.refuse_for_good(&candidate.release, &staging, &what)?;
            return Err(Error::Mismatch { version, what });
        }
        let sealed = self.seal(candidate, staging, built.tree, built.entries, built.bytes)?;
        if !(is_named && candidate.is_ours) {
            self.store.forget_archive(&version)?;
        }
        Ok(Staged { sealed, was_here: false })
    }

    /// Remembers a release that contradicts itself, so that nobody fetches and unpacks it again, and keeps nothing of it.
    fn refuse_for_good(
        &self,
        release: &ReleaseId,
        staging: &store::Staging,
        why: &str,
    ) -> Result<(), store::Error> {
        let mut memory = self.store.memory()?;
        finish::ban(&mut memory, release, why, self.clock.wall());
        memory.keep()?;
        self.store.abandon(staging)?;
        self.store.forget_archive(&release.version)
    }

    /// Makes the configured links and shows the tree.
    fn seal(
        &self,
        candidate: &Candidate,
        staging: store::Staging,
        tree: Digest,
        entries: u64,
        bytes: u64,
    ) -> Result<Sealed, Error> {
        let manifest = &candidate.manifest;
        let made = links::make(self.settings, &staging.path, &self.store.disk)?;
        let sealed = Sealed {
            release: candidate.release.clone(),
            // The name of an archive without a manifest is only a name.
            product: (!candidate.is_derived).then(|| manifest.product.clone()),
            serial: candidate.serial,
            tree,
            entries,
            bytes,
            staged: self.clock.wall(),
            signers: candidate.signers.iter().map(|signer| signer.name.clone()).collect(),
            keys: candidate.signers.iter().map(|signer| signer.fingerprint.clone()).collect(),
            allowed: allowed(&self.settings.archive),
            data_read: manifest.data_read.clone(),
            data_write: manifest.data_write,
            links: made.links,
            replaced: made.replaced,
        };
        self.store.publish(staging, &sealed)?;
        Ok(sealed)
    }

    /// Compares the tree of a release with what it must be. `Ok(false)`: it differs.
    pub fn verify(&self, sealed: &Sealed, progress: &dyn Progress) -> Result<bool, Error> {
        let tree = self.store.tree(&sealed.release.version)?;
        progress.begin(Activity::Verify, Some(sealed.bytes), Some(sealed.entries));
        let as_released = |entry: Entry| links::as_released(sealed, entry);
        let replaced = links::entries_of(&sealed.replaced);
        let found = check::look(&tree, &as_released, &replaced, progress);
        progress.end();
        let found = found?;
        Ok(!found.has_others && found.digest == sealed.tree)
    }
}

/// What these settings let into a tree beyond the usual.
pub(super) fn allowed(archive: &archive::Settings) -> Vec<String> {
    let all = [(archive.allow_setid, "setid"), (archive.allow_capabilities, "capabilities")];
    all.into_iter().filter(|(is_allowed, _)| *is_allowed).map(|(_, name)| name.to_owned()).collect()
}

/// The sealed tree of exactly this release, if it is here.
///
/// # Errors
/// When a tree of the same name is here that is another release.
pub fn here(store: &Store, release: &ReleaseId) -> Result<Option<Sealed>, store::Error> {
    if store.tree(&release.version).is_err() {
        return Ok(None);
    }
    match store.sealed(&release.version)? {
        Kept::Whole(sealed) if sealed.release.digest == release.digest => Ok(Some(sealed)),
        Kept::Whole(sealed) => {
            Err(store::Error::OtherContent { version: release.version.clone(), here: sealed.release.digest })
        }
        Kept::Missing | Kept::Damaged(_) => store.release(&release.version).map(Some),
    }
}

/// Compares an archive that an admin named with its manifest. Its descriptor stays open: its name is never looked up
/// again.
pub(super) fn compare(candidate: &Candidate) -> Result<(), Error> {
    if candidate.is_derived && candidate.is_ours {
        return Ok(());
    }
    let manifest = &candidate.manifest;
    let (size, sha256) = (candidate.archive.size(), hash(candidate.archive.as_ref())?);
    if (manifest.size, manifest.sha256) != (size, sha256) {
        let what = format!(
            "`{}` has {size} bytes and the digest {sha256}; its manifest says {} and {}",
            manifest.archive, manifest.size, manifest.sha256
        );
        return Err(Error::Mismatch { version: candidate.release.version.clone(), what });
    }
    Ok(())
}

/// All bytes of an archive, from one end to the other.
fn whole(archive: &dyn Ranges) -> Result<Box<dyn Read + Send>, source::Error> {
    archive.read_range(0, archive.size())
}

fn hash(archive: &dyn Ranges) -> Result<Digest, Error> {
    Ok(Digest::of_reader(&mut *whole(archive)?).context("read", Path::new("the archive"))?.1)
}
