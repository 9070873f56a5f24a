//! Starts write-back while a tree is unpacked, so that the last sync has little left to do.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::disk::{Disk, Error};

/// So many bytes are written between two syncs.
const STEP: u64 = 96 << 20;
/// How often the helper looks.
const GLANCE: Duration = Duration::from_millis(20);

/// Syncs the file system whenever another 96 MiB were written, until `is_over`.
///
/// # Errors
/// A write-back error. It is reported once only: the tree must be thrown away.
pub fn flush_behind(
    filesystem: &impl AsFd,
    path: &Path,
    disk: &Disk,
    written: &AtomicU64,
    is_over: &AtomicBool,
) -> Result<(), Error> {
    let mut synced = 0;
    while !is_over.load(Ordering::Acquire) {
        let now = written.load(Ordering::Relaxed);
        if now >= synced + STEP {
            disk.sync_filesystem(filesystem, path)?;
            synced = now;
        }
        std::thread::park_timeout(GLANCE);
    }
    Ok(())
}
