//! Bringing files to a place that others read from.

use super::{Error, Of, Ranges};
use crate::types::Digest;

/// A file that is brought somewhere.
pub struct Upload<'a> {
    pub name: &'a str,
    pub content: &'a dyn Ranges,
    pub sha256: Digest,
    pub before: Before,
}

/// What must be there of a file before it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Whatever it is.
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
    /// one; each is whole when it is seen. What must be there of each is looked at before the first is brought.
    ///
    /// # Errors
    /// [`Error::Overtaken`] when somebody else was quicker; else what hindered it. Files may then be there already, none
    /// after one that is not as it must be; the last one is not.
    fn put(&self, of: Of<'_>, files: &[Upload<'_>]) -> Result<(), Error>;

    /// Whether the files of each release are kept by themselves, so that two may have files of one name.
    fn keeps_releases_apart(&self) -> bool {
        false
    }

    /// Whether all files that are brought at once are also seen at once.
    fn shows_at_once(&self) -> bool {
        false
    }
}
