//! Who owns what is made, and what this node lets in.

use nix::unistd::{getegid, geteuid};

use super::super::Error;
use crate::release::archive::{Limits, TIMES};
use crate::release::tree::Meta;
use crate::types::entry::{Entry, Kind};

/// The owner of what this process makes, where it cannot give it away.
#[derive(Clone, Copy, Debug)]
pub struct Owner(Option<(u32, u32)>);

impl Owner {
    /// What holds for this process.
    pub fn of_process() -> Self {
        let (user, group) = (geteuid(), getegid());
        Self((!user.is_root()).then(|| (user.as_raw(), group.as_raw())))
    }

    /// Whether all belongs to whom the process runs as, whatever the archive says.
    pub fn is_kept(self) -> bool {
        self.0.is_some()
    }

    /// An entry's metadata as they are to be on disk.
    pub fn meta(self, entry: &Entry) -> Meta<'_> {
        let mut meta = Meta {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: Some(&entry.xattrs),
        };
        if let Some((uid, gid)) = self.0 {
            (meta.uid, meta.gid) = (uid, gid);
            if matches!(entry.kind, Kind::File { .. }) {
                meta.mode &= !0o6000;
            }
        }
        meta
    }

    /// An entry as it is on disk.
    pub fn as_here(self, mut entry: Entry) -> Entry {
        let meta = self.meta(&entry);
        let (mode, uid, gid) = (meta.mode, meta.uid, meta.gid);
        (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
        entry
    }
}

/// Refuses what this node does not let in.
pub fn admit(entry: &Entry, limits: &Limits) -> Result<(), Error> {
    let refuse = |rule| Err(Error::Entry { path: entry.path.clone(), rule });
    if !TIMES.contains(&entry.mtime.0) {
        return refuse("its time is out of the range that file systems keep (1901 to 2446)");
    }
    let is_file = matches!(entry.kind, Kind::File { .. });
    if is_file && entry.mode & 0o6000 != 0 && !limits.allow_setid {
        return refuse("it is setuid or setgid, which this node does not allow (`[archive]`)");
    }
    for name in entry.xattrs.keys() {
        if name == b"security.capability" {
            if !limits.allow_capabilities {
                return refuse("it has capabilities, which this node does not allow (`[archive]`)");
            }
        } else if name.strip_prefix(b"user.").is_none_or(<[u8]>::is_empty) {
            return refuse("it has an extended attribute that no release may have");
        }
    }
    if matches!(entry.kind, Kind::Link { .. }) && !entry.xattrs.is_empty() {
        return refuse("a symbolic link has extended attributes");
    }
    Ok(())
}
