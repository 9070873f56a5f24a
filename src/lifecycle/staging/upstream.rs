//! What the source offers: looked at, judged, and remembered, before a byte of an archive is read.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use crate::lifecycle::node::{self, Node};
use crate::lifecycle::staging;
use crate::release::judge::Accepted;
use crate::release::manifest::Manifest;
use crate::release::resolve::{Candidate, LocalArchive, Resolver};
use crate::release::source::{self, LocalFile};
use crate::release::trust::{KEY_DIRECTORIES, Keyring};
use crate::release::{resolve, trust};
use crate::store::{Kept, Sealed};
use crate::sys::disk::Context;
use crate::types::progress::Progress;
use crate::types::state::Bad;
use crate::types::{ReleaseId, Version};

/// Why nothing is known of the source's release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is refused, or cannot be had.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// The source cannot be opened.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The trusted keys cannot be read.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    /// It is fetched and not what was promised.
    #[error(transparent)]
    Staging(#[from] staging::Error),
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Self {
        Self::Node(error.into())
    }
}

/// A release on offer: what policies, plans and people want to know of it.
#[derive(Clone, Debug)]
pub struct Offered {
    pub release: ReleaseId,
    pub serial: Option<u64>,
    /// When the channel was issued.
    pub issued: Option<Timestamp>,
    /// When it was first offered, as far as this node has seen.
    pub since: Option<Timestamp>,
    /// For how many of a hundred nodes it is by now.
    pub percent: Option<u8>,
    /// From when on it is for more, in order of time.
    pub waves: Vec<(Timestamp, u8)>,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Bytes unpacked, where that is known.
    pub unpacked_bytes: Option<u64>,
}

impl Offered {
    /// A release that is staged already, as far as the node remembers it.
    pub fn staged(sealed: &Sealed) -> Self {
        Self {
            release: sealed.release.clone(),
            serial: sealed.serial,
            issued: None,
            since: None,
            percent: None,
            waves: Vec::new(),
            archive_bytes: 0,
            unpacked_bytes: Some(sealed.bytes),
        }
    }

    /// A release whose manifest was read.
    pub fn candidate(candidate: &Candidate) -> Self {
        let manifest: &Manifest = &candidate.manifest;
        Self {
            release: candidate.release.clone(),
            serial: candidate.serial,
            issued: None,
            since: None,
            percent: candidate.percent,
            waves: Vec::new(),
            archive_bytes: manifest.size,
            unpacked_bytes: manifest.unpacked,
        }
    }
}

/// Why a run without a named release has nothing to do.
#[derive(Clone, Debug)]
pub enum Idle {
    /// The release that the channel names serves.
    Current(Version),
    Banned(Bad),
}

impl Node<'_> {
    /// The keys that are trusted on this node.
    pub fn keyring(&self) -> Result<Keyring, Error> {
        let settings = &self.settings.source;
        // What is configured must be there; the usual places may be empty.
        let usual =
            || KEY_DIRECTORIES.into_iter().filter(|path| Path::new(path).exists()).map(ToOwned::to_owned);
        let paths: Vec<String> =
            if settings.keys.is_empty() { usual().collect() } else { settings.keys.clone() };
        Ok(Keyring::load(&paths, Path::new(&settings.revoked))?)
    }

    /// The release of an archive on the command line.
    pub fn candidate_of_file(
        &self,
        file: &Path,
        version: Option<&Version>,
        allow_unsigned: bool,
    ) -> Result<Candidate, Error> {
        let mut settings = self.settings.source.clone();
        settings.allow_unsigned = allow_unsigned;
        let product = self.product_here();
        let local = LocalArchive {
            file,
            version,
            keyring: &self.keyring()?,
            settings: &settings,
            product: product.as_deref(),
            now: self.clock.wall(),
        };
        Ok(local.candidate()?)
    }

    /// What the channel says now, remembered before anything is done about it.
    fn channel(&self, resolver: &Resolver<'_>) -> Result<Accepted, Error> {
        let known = self.store.trusted_state()?.channels;
        let read = resolver.read_channel(&known)?;
        let mut accepted = resolver.judge_channel(&read, &known)?;
        let is_new = accepted.memory.iter().any(|(key, seen)| known.get(key) != Some(seen));
        if is_new && self.may_remember() {
            self.store.prepare()?;
            // A slow source may have been overtaken by a newer channel: what counts is what is remembered now.
            let mut memory = self.store.memory()?;
            accepted = resolver.judge_channel(&read, &memory.channels)?;
            memory.channels.extend(accepted.memory.iter().cloned());
            memory.keep()?;
        }
        for warning in &accepted.warnings {
            tracing::warn!("{warning}");
        }
        Ok(accepted)
    }

    /// Whether this run may write at all: a dry run may not.
    fn may_remember(&self) -> bool {
        !self.is_dry
    }

    fn with_resolver<T>(&self, work: impl FnOnce(&Resolver<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let source = source::open_apart(&self.settings.source)?;
        let product = self.product_here();
        let resolver = Resolver {
            source: source.as_ref(),
            keyring: &self.keyring()?,
            settings: &self.settings.source,
            product: product.as_deref(),
            now: self.clock.wall(),
        };
        work(&resolver)
    }

    /// The product of the active release, else of those before it, as far as a manifest said it: another product is not
    /// for this node, however well it is signed, and wherever it comes from.
    fn product_here(&self) -> Option<String> {
        let state = self.store.trusted_state().unwrap_or_default();
        let before = state.committed.into_iter().chain(state.previous).chain(state.earlier);
        let versions = self.store.active().ok().flatten().into_iter();
        versions.chain(before.map(|kept| kept.release.version)).find_map(|version| {
            match self.store.sealed(&version).ok()? {
                Kept::Whole(sealed) => sealed.product,
                Kept::Missing | Kept::Damaged(_) => None,
            }
        })
    }

    /// The channel's release, or another version that the channel names.
    pub fn look(&self, version: Option<&Version>) -> Result<(Offered, Candidate), Error> {
        self.with_resolver(|resolver| {
            let accepted = self.channel(resolver)?;
            let candidate = resolver.release(&accepted, version)?;
            let (issued, waves) = (Some(accepted.channel.issued), accepted.channel.waves.clone());
            let seen = accepted.memory.iter().find_map(|(_, seen)| seen.offer.as_ref());
            let since = seen.filter(|seen| seen.release == candidate.release).and_then(|seen| seen.since);
            let offered = Offered { issued, since, waves, ..Offered::candidate(&candidate) };
            Ok((offered, candidate))
        })
    }

    /// All releases that the channel names.
    pub fn offers(&self) -> Result<Vec<ReleaseId>, Error> {
        self.with_resolver(|resolver| {
            let accepted = self.channel(resolver)?;
            Ok(accepted.channel.releases().cloned().collect())
        })
    }

    /// Why there is nothing to do for what the channel asks for, if there is not: a timer's run ends here then, and has
    /// written nothing.
    pub fn idle(&self) -> Result<Option<Idle>, Error> {
        let state = match self.store.state()? {
            Kept::Whole(state) => state,
            Kept::Missing | Kept::Damaged(_) => return Ok(None),
        };
        let active = self.store.active()?;
        let committed = state
            .committed
            .filter(|kept| active.as_ref() == Some(&kept.release.version))
            .map(|kept| kept.release);
        if committed.is_none() && state.bad.is_empty() {
            return Ok(None);
        }
        self.with_resolver(|resolver| {
            let accepted = self.channel(resolver)?;
            let wanted = &accepted.channel.release;
            if committed.as_ref() == Some(wanted) {
                return Ok(Some(Idle::Current(wanted.version.clone())));
            }
            Ok(state.bad.iter().find(|bad| bad.release.digest == wanted.digest).cloned().map(Idle::Banned))
        })
    }

    /// A private copy of a source's archive, complete and with the signed digest. What was fetched before is kept.
    pub fn fetch(&self, candidate: &Candidate, progress: &dyn Progress) -> Result<LocalFile, staging::Error> {
        let manifest = &candidate.manifest;
        let path = self.store.layout.archive(&candidate.release.version);
        let had = std::fs::metadata(&path).map_or(0, |found| found.len());
        let missing = manifest.size.saturating_sub(had);
        let (bytes, entries) = match manifest.index {
            // What its tree takes depends on what is here; it is asked for when that is known.
            Some(_) => (missing, 1),
            None => {
                let tree = manifest.unpacked.unwrap_or(manifest.size);
                (missing.saturating_add(tree), manifest.entries.unwrap_or(1))
            }
        };
        self.ensure_room(bytes, entries)?;
        self.store.disk.ask("fetch into", &path)?;
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .context("open", &path)?;
        source::fetch_whole(candidate.archive.as_ref(), manifest.size, manifest.sha256, &mut file, progress)?;
        Ok(LocalFile::new(file, &path)?)
    }
}
