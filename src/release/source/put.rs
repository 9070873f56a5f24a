//! Bringing files to a place that others read from.

use super::{Error, Of, Ranges};
use crate::types::Digest;

/// A file that is brought somewhere.
pub struct Upload<'a> {
    pub name: &'a str,
    pub content: &'a dyn Ranges,
    pub sha256: Digest,
}

/// What must be true of the last of the files before they are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing: they are written once, and the same whoever writes them.
    Any,
    Absent,
    Content(Digest),
}

impl Before {
    /// What is the case now: the digest of what is there.
    pub fn of(found: Option<Digest>) -> Self {
        found.map_or(Self::Absent, Self::Content)
    }

    /// Refuses when something else is there.
    pub(super) fn check(self, found: Option<Digest>, what: impl FnOnce() -> String) -> Result<(), Error> {
        if self == Self::Any || self == Self::of(found) { Ok(()) } else { Err(Error::Overtaken(what())) }
    }
}

/// A place that files are brought to.
pub trait Sink: Send + Sync {
    /// Brings all files of one release, or of a channel. They are shown in this order, where a place shows them one by
    /// one; each is whole when it is seen.
    ///
    /// # Errors
    /// [`Error::Overtaken`] when somebody else was quicker; else what hindered it. Files may then be there already; the
    /// last one is not.
    fn put(&self, of: Of<'_>, files: &[Upload<'_>], before: Before) -> Result<(), Error>;

    /// Whether all files that are brought at once are also seen at once.
    fn shows_at_once(&self) -> bool {
        false
    }
}
