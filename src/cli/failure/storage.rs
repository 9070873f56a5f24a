//! What an operator reads when what this node keeps cannot be read or written: its store, its data, the disk.

use std::path::Path;

use super::{Failure, code};
use crate::lifecycle::application::data;
use crate::store::{self, Damage};
use crate::sys::disk;
use crate::types::escaped_path;

/// How a file is taken back that somebody else could have written.
pub(super) fn exposed(path: &Path, then: &str) -> String {
    let (path, me) = (path.display(), nix::unistd::geteuid());
    format!("if nobody else has changed it: `chown {me} {path}` and `chmod go-w {path}`; {then}")
}

pub(super) fn of_store(error: &store::Error, otherwise: u8) -> Failure {
    use store::Error as E;
    match error {
        E::Disk(error) => of_disk(error, otherwise),
        E::Root { root, .. } => {
            let hint = if root.exists() {
                "mend that, or name another with `root` or `--root`".to_owned()
            } else {
                let root = root.display();
                format!("make one: `install -d -m 755 {root}`; or name another with `root` or `--root`")
            };
            Failure::new(code::USAGE, error, Some(&hint))
        }
        E::StrangePointer { path, .. } if path.is_symlink() && !path.exists() => {
            let hint = format!(
                "bring back what it names; or `rm {}`, then `cutover switch VERSION` to one that `cutover list` shows",
                path.display()
            );
            Failure::new(code::NEEDS_PERSON, error, Some(&hint))
        }
        E::StrangePointer { .. } => {
            let hint =
                "look what it is; `cutover adopt --help` says how what was installed by hand is taken over";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        E::Damaged { why: Damage::Newer(_), .. } => {
            let hint = "install the newer cutover again that wrote it; without that file bans, holds and what channels \
                        said are forgotten";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        E::Damaged { path, why: Damage::Exposed(_) } => {
            Failure::new(code::NEEDS_PERSON, error, Some(&exposed(path, "then it is used as it stands")))
        }
        E::Damaged { path, why: Damage::Spoilt(_) } => {
            let hint = format!("the pointer is untouched; move `{}` away to begin anew", path.display());
            Failure::new(code::NEEDS_PERSON, error, Some(&hint))
        }
        E::Unknown { .. } => {
            let hint = "bring that file back from a backup; else what runs can be taken over (`cutover adopt`), and any \
                        other tree removed and staged anew";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        E::Locked { .. } => {
            Failure::new(code::BUSY, error, Some("look what holds it: `fuser -v` and that path"))
        }
        E::NoSuchTree(_) => Failure::new(code::FAILED, error, Some("`cutover list` shows what is here")),
        E::OtherContent { version, .. } => {
            let hint = format!(
                "a version is published once; if this one is wanted, remove the old tree of {version} first"
            );
            Failure::new(code::REFUSED, error, Some(&hint))
        }
        E::NoSpace(_) => Failure::new(
            code::NO_SPACE,
            error,
            Some("make room; `cutover status` says how much `cutover prune` would free"),
        ),
        E::OtherFilesystem { .. } => {
            Failure::new(code::USAGE, error, Some("keep all of the root on one file system"))
        }
    }
}

pub(super) fn of_data(error: &data::Error) -> Failure {
    use data::Error as E;
    match error {
        E::Disk(error) => of_disk(error, code::FAILED),
        E::NoSpace { .. } => {
            Failure::new(code::NO_SPACE, error, Some("make room, then run the same command again"))
        }
        E::NoInodes { .. } => {
            let hint = "remove files that nobody needs, or put the data on a file system with more inodes";
            Failure::new(code::NO_SPACE, error, Some(hint))
        }
        E::Unfit { .. } => {
            Failure::new(code::USAGE, error, Some("mend that, or name other `[[data]]`; nothing was stopped"))
        }
        E::Border { within, .. } => {
            let hint = format!(
                "declare it with `leave = [\"{}\"]` in that `[[data]]`: it then stays where it is",
                escaped_path(within)
            );
            Failure::new(code::USAGE, error, Some(&hint))
        }
        E::Nested { .. } => {
            let hint = "name one of them only, or two directories beside each other; what a rollback is to keep can be \
                        in `leave` of the outer one";
            Failure::new(code::USAGE, error, Some(hint))
        }
        E::WayBack { .. } => {
            let hint = "let data and root be on one mount, with rights to write in both; nothing was stopped";
            Failure::new(code::USAGE, error, Some(hint))
        }
        E::Gone(path) => {
            let hint = format!(
                "mount it, and run the same command again; if they were removed on purpose, say so by something empty in \
                 their place: `mkdir {}`",
                path.display()
            );
            Failure::new(code::NOT_NOW, error, Some(&hint))
        }
        E::Elsewhere { pid: None, .. } => {
            let hint = "unmount it there, or mount a directory above the data instead; nothing was stopped";
            Failure::new(code::USAGE, error, Some(hint))
        }
        E::Elsewhere { pid: Some(pid), .. } => {
            let hint = format!(
                "stop that service (`systemctl status {pid}` shows it), give it a directory above the data, or name it in \
                 `[service] units`, so that it is stopped first; nothing was stopped"
            );
            Failure::new(code::USAGE, error, Some(&hint))
        }
        E::OtherRoot { root, .. } => Failure::new(code::USAGE, error, Some(&other_root_hint(root))),
        E::Away { index, .. } => {
            let hint = format!(
                "mount it, and run the same command again; if it is gone for good: `rm '{}'`",
                escaped_path(index)
            );
            Failure::new(code::NOT_NOW, error, Some(&hint))
        }
        E::InUse { .. } => {
            Failure::new(code::FAILED, error, Some("unmount it, or end what uses it; nothing was deleted"))
        }
        E::Index { .. } => {
            let hint = "move that file away: the data that it lists stay where they are";
            Failure::new(code::FAILED, error, Some(hint))
        }
    }
}

/// The renaming is one that can be undone.
fn other_root_hint(root: &Path) -> String {
    format!(
        "`cutover rollback --data keep` goes back here, with the data as they are; where that root is used no more, rename it \
         first: `mv '{0}' '{0}.old'`",
        escaped_path(root)
    )
}

pub(super) fn of_disk(error: &disk::Error, otherwise: u8) -> Failure {
    if error.is_no_space() && otherwise != code::NEEDS_PERSON {
        return Failure::new(code::NO_SPACE, error, Some("make room, then run the same command again"));
    }
    if error.is_read_only() {
        let hint = if error.is_walled_off() {
            "`ProtectHome=` of the unit keeps cutover from writing there: `systemctl edit cutover@<app>.service`, and \
             under `[Service]` `ProtectHome=no`"
        } else {
            "make the file system writable, then run `cutover recover`"
        };
        return Failure::new(otherwise, error, Some(hint));
    }
    let hint = if otherwise == code::NEEDS_PERSON {
        "when the disk works again: `cutover recover`"
    } else {
        "look at that path, and at the disk that holds it"
    };
    let hint = match error.source.kind() {
        std::io::ErrorKind::PermissionDenied if error.source.raw_os_error() == Some(nix::libc::EPERM) => {
            "a file there may be immutable: see `lsattr -R`; else run it as the user that owns the root"
        }
        std::io::ErrorKind::PermissionDenied => "run it as the user that owns the root",
        std::io::ErrorKind::NotFound if otherwise != code::NEEDS_PERSON => "check the path",
        _ => hint,
    };
    Failure::new(otherwise, error, Some(hint))
}
