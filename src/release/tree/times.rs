//! Which times a file system keeps.
//!
//! Old ones have whole seconds, or end in 2038 (ext4 with inodes of 128 bytes, ext3, xfs without `bigtime`), and give the
//! nearest that they have. A tree is what its release says also there: all who look at it know what became of its times.

use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;

use crate::release::archive::TIMES;
use crate::sys::disk::{Context as _, Error};

const SECOND: u32 = 1_000_000_000;
/// The last second of signed numbers of 32 bits.
const LAST_OF_OLD: i64 = i32::MAX as i64;

/// The times of one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Nanoseconds between two of them.
    step: u32,
    last: i64,
}

impl Times {
    /// Times as archives have them.
    pub const ALL: Self = Self { step: 1, last: i64::MAX };

    /// Asks the file system of an open file or directory of ours, whose own time does not count: it changes.
    pub fn of(file: impl AsFd, path: &Path) -> Result<Self, Error> {
        let asked = |seconds, nanoseconds| {
            let time = TimeSpec::new(seconds, nanoseconds);
            let found =
                futimens(&file, &time, &time).and_then(|()| fstat(&file)).context("try times on", path)?;
            Ok::<_, Error>((found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0)))
        };
        let (_, finest) = asked(1, i64::from(SECOND) - 1)?;
        let (last, _) = asked(*TIMES.end(), 0)?;
        Ok(Self { step: SECOND - finest, last: if last < *TIMES.end() { last } else { i64::MAX } })
    }

    /// What becomes of a time.
    pub fn kept(self, (seconds, nanoseconds): (i64, u32)) -> (i64, u32) {
        if seconds >= self.last { (self.last, 0) } else { (seconds, nanoseconds - nanoseconds % self.step) }
    }
}

/// Whether a file that was given this time can have that one, on whatever file system.
pub fn can_become(given: (i64, u32), found: (i64, u32)) -> bool {
    given == found
        || [100, 1000, 1_000_000, SECOND].into_iter().any(|step| {
            [i64::MAX, LAST_OF_OLD].into_iter().any(|last| Times { step, last }.kept(given) == found)
        })
}
