//! The last status, as every run leaves it in `/run` for all to read: for ordinary users, and for what a watcher has told.

use jiff::Timestamp;

use super::Output;
use super::narrator::status_path;
use super::screen::{ago, screen};
use crate::cli::failure::Error;
use crate::cli::words::args::Global;
use crate::lifecycle::report::view::Status;
use crate::sys::disk;

/// The longest status that is read again.
const PUBLISHED_BYTES_MAX: usize = 1 << 20;

/// Whether only the rights of this user stand in the way.
pub fn is_forbidden(error: &Error) -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// For ordinary users: what the last run of cutover has left in `/run`, for all to read.
pub fn published(global: &Global, error: Error) -> Result<u8, Error> {
    let output = Output::new(global);
    let Some(view) = global.app.clone().or_else(only_published).and_then(|app| last_published(&app)) else {
        return Err(error);
    };
    let now = Timestamp::now();
    let age = view.as_of.map(|as_of| ago(as_of, now)).unwrap_or_default();
    output.say(&format!("this is what the last run left {age}; root sees it as it is now"));
    output.result(&view, &screen(&view, now, output));
    Ok(0)
}

pub fn last_published(app: &str) -> Option<Status> {
    let bytes = disk::read_small(&status_path(app), PUBLISHED_BYTES_MAX).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// The only application that has left a status.
fn only_published() -> Option<String> {
    let entries = std::fs::read_dir("/run/cutover").ok()?.flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let first = names.next()?;
    names.next().is_none().then_some(first)
}
