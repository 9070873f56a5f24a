//! What the last unnamed `update` was refused with, by its source or by its fleet: told by `status` until one goes well.
//! Kept in `/run`, as the last look is: whoever runs next after a reboot finds out anew.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::failure::{Error, code, failure};
use crate::cli::output::narrator::{make_folders, status_path};
use crate::coord::settings::Mode;
use crate::lifecycle::report::view::{BlockedView, Status};
use crate::sys::disk::{Disk, read_own};

const BYTES_MAX: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Refused {
    root: PathBuf,
    policy: String,
    exit_code: u8,
    text: String,
    since: Timestamp,
}

fn path(app: &str) -> PathBuf {
    status_path(app).with_file_name("refused.json")
}

fn last(app: &str, root: &Path) -> Option<Refused> {
    let refused: Refused = serde_json::from_slice(&read_own(&path(app), BYTES_MAX).ok()??).ok()?;
    (refused.root == root).then_some(refused)
}

/// Who refused: the source, or what it offers; or the fleet. What fails for other reasons is told by itself.
fn whose(mode: Mode, error: &Error) -> Option<&'static str> {
    match error {
        Error::Upstream(_) | Error::Staging(_) => Some("source"),
        Error::Unreachable(_)
        | Error::Stranger(_)
        | Error::Fleet(_)
        | Error::Operate(_)
        | Error::Agreement(_)
        | Error::NotNow(_)
        | Error::Usage { .. }
            if mode != Mode::Independent =>
        {
            Some("fleet")
        }
        _ => None,
    }
}

/// Remembers how a run ended. Says whether `status` has something else to tell now.
pub fn note(context: &Context, done: &Result<u8, Error>) -> bool {
    let (app, settings) = (&context.app, context.settings());
    let before = last(app, &settings.root);
    let now = match done {
        Err(Error::Interrupted(_)) => return false,
        Err(error) if context.is_interrupted() || failure(error).code == code::BUSY => return false,
        Err(error) => whose(settings.fleet.mode, error).map(|policy| {
            let told = failure(error);
            let text = [Some(told.message), told.hint].into_iter().flatten().collect::<Vec<_>>().join("; ");
            let is_same = |before: &&Refused| before.policy == policy && before.exit_code == told.code;
            let since = before.as_ref().filter(is_same).map_or_else(Timestamp::now, |before| before.since);
            Refused {
                root: settings.root.clone(),
                policy: policy.to_owned(),
                exit_code: told.code,
                text,
                since,
            }
        }),
        Ok(_) => None,
    };
    let disk = Disk::default();
    let written = match &now {
        Some(now) if before.as_ref().is_some_and(|before| before.text == now.text) => return false,
        Some(now) => {
            let text = serde_json::to_vec(now).unwrap_or_default();
            make_folders(&disk, &path(app)).and_then(|()| disk.replace(&path(app), &text, 0o644))
        }
        None if before.is_none() => return false,
        None => disk.remove_file(&path(app)),
    };
    if let Err(error) = &written {
        tracing::debug!(%error, "cannot record the refusal");
    }
    written.is_ok()
}

/// Puts it into the view.
pub fn add_to(view: &mut Status) {
    let Some(refused) = last(&view.app, Path::new(&view.root)) else { return };
    view.blocked.push(BlockedView {
        policy: refused.policy,
        since: Some(refused.since),
        until: None,
        text: refused.text,
        exit_code: Some(refused.exit_code),
    });
}
