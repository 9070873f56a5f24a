//! The pages of lists of members that this node has read: `.cutover/fleet-pages/`.
//!
//! It needs them where the storage is away, and would read them in each run. A page is what its name says, so what is kept
//! here is believed after the same look as what the storage shows.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Member;
use super::own::Kept;
use crate::coord::board::{Board, Done, Over, Read};
use crate::coord::facts::{FACT_BYTES_MAX, Fact, names};
use crate::coord::look::{Found, Look, found};
use crate::coord::pages::{PAGES_MAX, line_of};
use crate::coord::rollout::Rollout;
use crate::sys::disk::{self, Disk};
use crate::types::Digest;

/// So many are kept: those of a few lists. What is more is read of the storage each time.
const KEPT_MAX: usize = 2 * PAGES_MAX;

#[derive(Clone)]
pub(super) struct Pages {
    disk: Disk,
    directory: PathBuf,
}

impl Pages {
    pub(super) fn new(disk: Disk, directory: PathBuf) -> Self {
        Self { disk, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name.rsplit_once('/').map_or(name, |(_, last)| last))
    }

    /// What is kept under the name of a page.
    pub(super) fn read(&self, name: &str) -> Read {
        let bytes = disk::read_own(&self.path(name), FACT_BYTES_MAX).ok().flatten();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.filter(|text| line_of(name, text).is_some()).map_or(Read::Absent, Read::Bytes)
    }

    /// Keeps a page. Where that fails it is read of the storage again.
    fn keep(&self, name: &str, text: &str) {
        if self.names().len() >= KEPT_MAX {
            return;
        }
        let kept = self
            .disk
            .make_directory(&self.directory, 0o700)
            .and_then(|()| self.disk.replace(&self.path(name), text.as_bytes(), 0o600));
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep a page of the list of members");
        }
    }

    fn names(&self) -> Vec<PathBuf> {
        let found = std::fs::read_dir(&self.directory).into_iter().flatten();
        found.filter_map(|entry| Some(entry.ok()?.path())).take(2 * KEPT_MAX).collect()
    }

    /// Forgets all but these.
    pub(super) fn forget_others(&self, stay: &[Digest]) {
        let stay: BTreeSet<PathBuf> = stay.iter().map(|page| self.path(&names::page(*page))).collect();
        let others: Vec<PathBuf> = self.names().into_iter().filter(|path| !stay.contains(path)).collect();
        if let Err(error) = self.disk.remove_files(&others) {
            tracing::warn!(%error, "cannot remove pages of old lists of members");
        }
    }
}

/// Puts back the pages that this node has kept and the storage does not have as they are: their names. Each is proved by its own.
///
/// # Errors
/// When the storage does not answer: why.
pub fn put_back_pages(board: &mut dyn Board, kept: &Kept) -> Result<Vec<String>, String> {
    let pages = kept.pages();
    let mut put_back = Vec::new();
    for path in pages.names() {
        let Some(last) = path.file_name().and_then(|last| last.to_str()) else { continue };
        let name = format!("{}/{last}", names::MEMBERS);
        let Read::Bytes(text) = pages.read(&name) else { continue };
        match board.read(&name) {
            Read::Bytes(there) if there == text => {}
            Read::Unreachable(why) => return Err(why),
            Read::Bytes(_) | Read::Bad(_) | Read::Absent => match board.beat(&name, &text) {
                Done::Done => put_back.push(name),
                Done::Unreachable(why) => return Err(why),
            },
        }
    }
    Ok(put_back)
}

/// A board, of which pages are read once.
pub(super) struct WithPages<'a> {
    pub(super) board: Box<dyn Board + 'a>,
    pub(super) pages: Pages,
}

impl Over for WithPages<'_> {
    fn under(&mut self) -> &mut (dyn Board + '_) {
        self.board.as_mut()
    }

    fn passes_on(&self, name: &str) -> bool {
        let last = name.strip_prefix(names::MEMBERS).and_then(|name| name.strip_prefix('/'));
        !last.is_some_and(names::is_page)
    }

    fn read_over(&mut self, name: &str) -> Read {
        if self.passes_on(name) {
            return self.board.read(name);
        }
        if let kept @ Read::Bytes(_) = self.pages.read(name) {
            return kept;
        }
        let read = self.board.read(name);
        if let Read::Bytes(text) = &read
            && line_of(name, text).is_some()
        {
            self.pages.keep(name, text);
        }
        read
    }
}

impl Member<'_> {
    /// Sees that the pages of its members are kept here: this node goes on without the storage. Of others only those of the
    /// rollout before stay.
    pub(super) fn keep_pages(&mut self, rollout: &Rollout) -> Result<(), String> {
        let before = self.kept.own.last.as_ref().and_then(|last| pages_of(last.rollout, &last.proposal));
        let pages = self.kept.pages();
        pages.forget_others(&[rollout.proposal.pages.clone(), before.unwrap_or_default()].concat());
        for name in rollout.proposal.pages.iter().map(|page| names::page(*page)) {
            if let Read::Unreachable(why) = self.board.read(&name) {
                return Err(why);
            }
            if pages.read(&name) == Read::Absent {
                return Err(format!("`{name}`, a page of its members, is not there, or cannot be kept here"));
            }
        }
        Ok(())
    }
}

/// The pages that a proposal names.
fn pages_of(number: u64, proposal: &str) -> Option<Vec<Digest>> {
    match found(&names::proposal(number), proposal, None) {
        Look::Found(Found { fact: Fact::Proposal(proposal), .. }) => Some(proposal.pages),
        _ => None,
    }
}
