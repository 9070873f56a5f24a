//! Staging from an archive that carries an index: only what this node lacks is read, wherever the archive is.

use std::cmp::Reverse;
use std::sync::Arc;

use super::links;
use super::{Error, allowed, compare};
use crate::lifecycle::node::Node;
use crate::release::archive::Limits;
use crate::release::index::{
    self, Base, Index, Installed, KeptIndex, Method, Parts, StageOrder, Staged, Trust,
};
use crate::release::resolve::Candidate;
use crate::release::source::Ranges;
use crate::release::trust::Signer;
use crate::store::{self, Kept, Need, Sealed, Staging};
use crate::types::Version;
use crate::types::progress::Progress;

/// So many releases are looked at for the one that shares most; the active one first, then the newest.
const BASES_MAX: usize = 6;

/// An archive that is not longer, and not far, is compared with its manifest as a whole.
const SMALL_BYTES: u64 = 8 << 20;

/// What is read of an archive that is far before it is known how much is needed of it.
const FIRST_BYTES: u64 = 512 << 10;

/// Whether something may have been refused because of parts of the archive that were damaged while they were kept.
fn may_come_of_parts(error: &Error) -> bool {
    match error {
        Error::Index(error) => match error {
            index::Error::Source(_) | index::Error::Disk(_) => false,
            index::Error::Malformed { .. }
            | index::Error::Digest { .. }
            | index::Error::Differs { .. }
            | index::Error::Entry { .. }
            | index::Error::Read(_) => true,
        },
        Error::Mismatch { .. } => true,
        Error::Link { .. }
        | Error::Store(_)
        | Error::Stage(_)
        | Error::Archive(_)
        | Error::Source(_)
        | Error::Disk(_) => false,
    }
}

/// A tree that was built from an index, not yet published.
pub struct Built {
    pub staging: Staging,
    pub staged: Staged,
}

impl Node<'_> {
    /// Builds the tree of a release whose archive has an index. `Ok(None)` when it has none, or none that is vouched
    /// for: then the archive must be read whole. With `is_ours` nobody else can change the archive meanwhile, so that its
    /// own index can be believed once its digest was compared.
    pub(in crate::lifecycle) fn build_indexed(
        &self,
        candidate: &Candidate,
        is_ours: bool,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<Option<Built>, Error> {
        self.build_for(candidate, is_ours, limits, None, progress)
    }

    fn build_for(
        &self,
        candidate: &Candidate,
        is_ours: bool,
        limits: &Limits,
        damaged: Option<&Sealed>,
        progress: &dyn Progress,
    ) -> Result<Option<Built>, Error> {
        let manifest = &candidate.manifest;
        let archive: Arc<dyn Ranges + '_> = Arc::new(candidate.archive.as_ref());
        if manifest.index.is_none() && !is_ours {
            // Its index could be exchanged between two readings: it is copied, and read as an ordinary archive.
            return Ok(None);
        }
        match manifest.index {
            // With a signed index every part that is read is compared with it, which is as safe, and costs no more than
            // what is read. Small archives are read whole all the same, so that damage is told early.
            _ if self.reads_whole(candidate, is_ours) => compare(candidate)?,
            None => return Ok(None),
            Some(_) if archive.size() != manifest.size => {
                let what = format!(
                    "its archive has {} bytes, and its manifest says {}",
                    archive.size(),
                    manifest.size
                );
                return Err(Error::Mismatch { version: candidate.release.version.clone(), what });
            }
            Some(_) => {}
        }
        if !archive.has_ranges() {
            let whole = self.fetch(candidate, progress)?;
            return self.build_from(candidate, Arc::new(whole), None, limits, damaged, progress);
        }
        if !archive.is_far() {
            return self.build_from(candidate, archive, None, limits, damaged, progress);
        }
        let (path, disk) = (self.store.layout.parts(&candidate.release.version), &self.store.disk);
        self.ensure_room(manifest.size.min(FIRST_BYTES), 2)?;
        let mut ways = [Trust::Read, Trust::Compared, Trust::Nothing].into_iter();
        loop {
            let trust = ways.next().unwrap_or(Trust::Nothing);
            let parts = Parts::open(Arc::clone(&archive), &path, manifest.sha256, trust, disk)?;
            let parts = Arc::new(parts);
            let had_parts = parts.kept_bytes() > 0;
            let source = Arc::clone(&parts) as Arc<dyn Ranges + '_>;
            match self.build_from(candidate, source, Some(&parts), limits, damaged, progress) {
                Ok(built) => return Ok(built),
                Err(error) if !may_come_of_parts(&error) => return Err(error),
                // What was kept is not the reason. Nothing stays of an archive that is refused.
                Err(error) if !had_parts => {
                    drop(parts);
                    Parts::forget(&path, disk)?;
                    return Err(error);
                }
                // It may be: a server's wrong answer, or what a power cut left.
                Err(error) => tracing::debug!(%error, ?trust, "once more with less of what was kept"),
            }
        }
    }

    /// Whether an archive is compared with its manifest from one end to the other before it is used.
    pub(in crate::lifecycle) fn reads_whole(&self, candidate: &Candidate, is_ours: bool) -> bool {
        let archive = &candidate.archive;
        let is_small = !archive.is_far() && archive.size() <= SMALL_BYTES;
        is_small || (is_ours && candidate.manifest.index.is_none())
    }

    fn build_from<'a>(
        &self,
        candidate: &Candidate,
        archive: Arc<dyn Ranges + 'a>,
        parts: Option<&Parts<'_>>,
        limits: &Limits,
        damaged: Option<&Sealed>,
        progress: &dyn Progress,
    ) -> Result<Option<Built>, Error> {
        let manifest = &candidate.manifest;
        let version = &candidate.release.version;
        let is_suspect = damaged.is_some();
        let damaged = damaged.and_then(|sealed| {
            let version = &sealed.release.version;
            let installed = Installed::open(&self.store.layout.index(version))?;
            Some(Base { tree: self.store.tree(version).ok()?, installed })
        });
        let mismatch = |what: String| Err(Error::Mismatch { version: version.clone(), what });
        let Some(index) = Index::open(Arc::clone(&archive), manifest.index)? else {
            return match manifest.index {
                Some(_) => mismatch("its archive has no index, and its manifest says that it has".into()),
                None => Ok(None),
            };
        };
        if let Some(wanted) = manifest.tree.filter(|wanted| *wanted != index.root().tree) {
            return mismatch(format!(
                "its tree has the digest {}, and its manifest says {wanted}",
                index.root().tree
            ));
        }
        let (base, staging, method) = match damaged {
            Some(base) => {
                (Some(base), self.store.stage(version, self.settings.store.method)?, self.method()?)
            }
            None => {
                let base = self.closest_base(&index, &candidate.signers)?;
                let (staging, method) = self.begin_tree(version, base.as_ref())?;
                (base.map(|(_, base)| base), staging, method)
            }
        };
        let spans = self.store.spans()?;
        let order = StageOrder {
            into: &staging.path,
            method,
            base: base.as_ref(),
            limits,
            parts,
            record: &staging.index,
            is_suspect,
            spans: &spans,
            threads: 0,
        };
        let built = self.build(&index, &*archive, &order, progress);
        match built {
            Ok(staged) => Ok(Some(Built { staging, staged })),
            Err(error) => {
                // The first error is the one to tell; what is left is swept later.
                drop(self.store.abandon(&staging));
                Err(error)
            }
        }
    }

    fn build(
        &self,
        index: &Index<'_>,
        archive: &dyn Ranges,
        order: &StageOrder<'_>,
        progress: &dyn Progress,
    ) -> Result<Staged, Error> {
        let disk = &self.store.disk;
        let is_kept = archive.is_far();
        // The index is written once as a record, and once with the parts that are kept of the archive.
        self.ensure_room(index.size().saturating_mul(if is_kept { 2 } else { 1 }), 1)?;
        let prepared = index::prepare(index, order, disk)?;
        let (bytes, entries) = prepared.need(order.base, order.method)?;
        let parts = if is_kept { prepared.frame_bytes(order.base, order.method)? } else { 0 };
        self.ensure_room(bytes.saturating_add(parts), entries)?;
        Ok(prepared.stage(archive, order, disk, progress)?)
    }

    /// Asks for room for what is about to be written: bytes, and entries of directories.
    pub(in crate::lifecycle) fn ensure_room(&self, bytes: u64, entries: u64) -> Result<(), store::Error> {
        self.store.ensure_space(Need { bytes, entries }, &self.settings.store)
    }

    /// Puts a whole tree in place of one that differs from what it must be; only what differs is read from the archive,
    /// if it has an index.
    ///
    /// # Errors
    /// Also when the candidate is another release than the one that is here. The tree is then as it was.
    pub fn repair(
        &self,
        candidate: &Candidate,
        sealed: &Sealed,
        is_ours: bool,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let version = &sealed.release.version;
        let mismatch = |what: &str| Err(Error::Mismatch { version: version.clone(), what: what.into() });
        if candidate.release != sealed.release {
            return mismatch("it is another release of the same name");
        }
        let (bytes, entries) = (candidate.manifest.unpacked, candidate.manifest.entries);
        let limits = self.settings.archive.limits(bytes, entries);
        let Some(built) = self.build_for(candidate, is_ours, &limits, Some(sealed), progress)? else {
            return mismatch("its archive has no index; remove the release and stage it again");
        };
        if built.staged.tree != sealed.tree {
            self.store.abandon(&built.staging)?;
            return mismatch("its archive makes another tree");
        }
        let made = links::make(self.settings, &built.staging.path, &self.store.disk)?;
        let sealed = Sealed { links: made.links, replaced: made.replaced, ..sealed.clone() };
        self.store.keep_sealed(&sealed)?;
        self.store.replace(built.staging, &sealed)?;
        Ok(self.store.forget_archive(version)?)
    }

    /// The local release that shares most with an index, of those that all `signers` of the new one vouch for: another's
    /// contents would otherwise get into what they signed.
    pub(in crate::lifecycle) fn closest_base(
        &self,
        index: &Index<'_>,
        signers: &[Signer],
    ) -> Result<Option<(Version, Base)>, Error> {
        let active = self.store.active()?;
        let mut versions = Vec::new();
        for version in self.store.releases()? {
            let staged = match self.store.sealed(&version)? {
                Kept::Whole(sealed) if signers.iter().all(|by| sealed.keys.contains(&by.fingerprint)) => {
                    sealed.staged
                }
                Kept::Whole(_) | Kept::Missing | Kept::Damaged(_) => continue,
            };
            versions.push((Some(&version) == active.as_ref(), staged, version));
        }
        versions.sort_by_key(|(is_active, staged, _)| Reverse((*is_active, *staged)));
        let mut bases = Vec::new();
        for (_, _, version) in versions.into_iter().take(BASES_MAX) {
            if let Some(kept) = KeptIndex::open(&self.store.layout.index(&version)) {
                bases.push((version, kept));
            }
        }
        // One whose inode numbers are broken is no base: the next one is.
        while let Some(closest) = index::closest(index, bases.iter().map(|(_, kept)| &kept.index)) {
            let (version, kept) = bases.remove(closest);
            if let Some(installed) = kept.with_inodes() {
                let tree = self.store.tree(&version)?;
                return Ok(Some((version, Base { tree, installed })));
            }
        }
        Ok(None)
    }

    /// Whether all that may be in a tree may be in a new one: a snapshot brings it without a look.
    fn lets_in(&self, base: &Version) -> Result<bool, Error> {
        let Kept::Whole(sealed) = self.store.sealed(base)? else { return Ok(false) };
        let allowed = allowed(&self.settings.archive);
        Ok(sealed.allowed.iter().all(|what| allowed.contains(what)))
    }

    /// Where the tree is built, and how, by what the file system can do.
    fn begin_tree(
        &self,
        version: &Version,
        base: Option<&(Version, Base)>,
    ) -> Result<(Staging, Method), Error> {
        let wanted = self.settings.store.method;
        if let Some((base, _)) = base
            && self.lets_in(base)?
            && let Some(staging) = self.store.stage_on(version, base, wanted)?
        {
            if let Kept::Whole(sealed) = self.store.sealed(base)? {
                links::undo(&sealed, &staging.path, &self.store.disk)?;
            }
            return Ok((staging, Method::Btrfs));
        }
        Ok((self.store.stage(version, wanted)?, self.method()?))
    }

    /// How files are taken over when the tree does not begin as a copy of another.
    pub(in crate::lifecycle) fn method(&self) -> Result<Method, Error> {
        Ok(match self.store.method_here(self.settings.store.method)? {
            // Hard links do not cross subvolumes.
            store::Method::Auto | store::Method::Btrfs | store::Method::Reflink => Method::Reflink,
            store::Method::Hardlink => Method::Hardlink,
            store::Method::Copy => Method::Copy,
        })
    }
}
