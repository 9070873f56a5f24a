//! Remembers when files of trees were made or linked by us.

use std::fs::File;
use std::io;

use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;

use super::{Error, Kept, Store, kept};
use crate::sys::disk::Context as _;
use crate::types::Spans;

/// The clock of a file system moves in steps; no step is longer.
const STEPS_MAX: u32 = 200;

impl Store {
    /// The spans so far. A file that cannot be believed counts as none.
    pub fn spans(&self) -> Result<Spans, Error> {
        Ok(match kept::load(&self.layout.spans())? {
            Kept::Whole(spans) => spans,
            Kept::Missing | Kept::Damaged(_) => Spans::default(),
        })
    }

    /// The first moment of a new span: what was changed before has an earlier change time.
    pub(super) fn begin_span(&self) -> Result<i64, Error> {
        let before = self.now_on_disk()?;
        for _ in 0..STEPS_MAX {
            let now = self.now_on_disk()?;
            if now != before {
                return Ok(now);
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        Ok(before)
    }

    /// The span that began then is over.
    pub(super) fn end_span(&self, began: i64) -> Result<(), Error> {
        Ok(kept::save(&self.disk, &self.layout.spans(), &self.spans_with(began)?)?)
    }

    /// The same, written where [`Store::show_span`] finds it once the file system was synced.
    pub(super) fn prepare_span(&self, began: i64) -> Result<(), Error> {
        let path = self.layout.spans();
        let bytes = kept::bytes(&path, &self.spans_with(began)?)?;
        Ok(self.disk.write_unsynced(&path, &bytes, kept::MODE)?)
    }

    /// Not durable before the names in the directory are.
    pub(super) fn show_span(&self) -> Result<(), Error> {
        Ok(self.disk.show_written(&self.layout.spans())?)
    }

    fn spans_with(&self, began: i64) -> Result<Spans, Error> {
        let mut spans = self.spans()?;
        spans.add(began, self.now_on_disk()?);
        Ok(spans)
    }

    /// The change time that a file of the store would get now.
    fn now_on_disk(&self) -> Result<i64, Error> {
        let path = self.layout.private().join("clock");
        let touch = || -> io::Result<i64> {
            let file = File::options().write(true).create(true).truncate(false).open(&path)?;
            futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?;
            let found = fstat(&file)?;
            Ok(Spans::moment(found.st_ctime, found.st_ctime_nsec))
        };
        Ok(touch().context("touch", &path)?)
    }
}
