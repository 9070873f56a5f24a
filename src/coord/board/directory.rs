//! A board in a directory: NFS, CephFS, GlusterFS, SMB, or anything mounted.
//!
//! The one primitive: a private file in the same directory, fsync, `link` to its name, fsync of the directory, the
//! private name removed, and then the name *read back and compared*. Whatever a call said, the comparison decides: replies are
//! lost, and some file systems report the wrong error. Each access opens the directories anew, from the root: opening
//! makes the storage look again (a mount may hide a new name for half a minute otherwise), and a mount that went away
//! is noticed: an empty mount point has no `rollouts/`, and where another fleet's board stands below the mount, its
//! `FLEET` has another id. Only where many names are read at once, those of one directory are read while it is open.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, linkat, unlinkat};

use super::super::facts::{FACT_BYTES_MAX, Fact, names};
use super::super::look::{Found, Look, found as found_fact};
use super::many::read_at_once;
use super::{Board, ClockRead, Created, Done, Listed, NAMES_MAX, Read, list_named, read_named};
use crate::sys::disk::Disk;
use crate::types::escaped_path;

/// How often ESTALE and EINTR are tried again.
const RETRIES: u32 = 5;

/// A board in a directory. Blocks for as long as the storage does: see [`super::helper`].
pub struct DirectoryBoard {
    root: PathBuf,
    /// The id of the fleet whose board this must be.
    fleet: Option<String>,
    /// Device and inode of the directory that was seen to be this fleet's.
    seen: Cell<Option<(u64, u64)>>,
    /// Distinguishes private names of all processes that ever were.
    private: String,
    made: u64,
    disk: Disk,
}

impl DirectoryBoard {
    /// The board in `root`. `who` (a node's name) only makes private names tell whose they are.
    pub fn new(root: PathBuf, who: &str, disk: Disk) -> Self {
        let mut random = [0; 8];
        // Without randomness, process and time still tell two processes of one node apart.
        if getrandom::fill(&mut random).is_err() {
            random = (nanoseconds() ^ u64::from(std::process::id()) << 32).to_ne_bytes();
        }
        let private = format!(".t.{who}.{:016x}", u64::from_ne_bytes(random));
        Self { root, fleet: None, seen: Cell::new(None), private, made: 0, disk }
    }

    /// The same, and only the board of the fleet with this id.
    pub fn of_fleet(self, fleet: Option<String>) -> Self {
        Self { fleet, ..self }
    }

    /// The same for another thread, which only reads.
    fn again(&self) -> Self {
        let (root, fleet, seen) = (self.root.clone(), self.fleet.clone(), self.seen.clone());
        Self { root, fleet, seen, private: self.private.clone(), made: 0, disk: self.disk.clone() }
    }

    /// What the storage said, with the place that it said it of.
    fn told(&self, errno: Errno) -> String {
        let place = escaped_path(&self.root);
        match errno {
            ELSEWHERE => {
                format!("`{place}` is not the directory of this node's fleet; is the right one mounted?")
            }
            DAMAGED => format!(
                "`FLEET` in `{place}` is gone, damaged, or of another format: where it is only gone or damaged, `cutover fleet repair` \
                 on a member puts it back"
            ),
            Errno::ENOENT if self.root.join(names::FLEET).exists() => format!(
                "`{place}` lacks a directory that stood there: where it is the one of a node, `cutover fleet join` there makes it anew"
            ),
            Errno::ENOENT => format!("`{place}` has no fleet's directories, or is not there; is it mounted?"),
            errno => format!("`{place}`: {errno}"),
        }
    }

    fn unreachable_for(&self, errno: Errno) -> Done {
        Done::Unreachable(self.told(errno))
    }

    fn private_name(&mut self) -> String {
        self.made += 1;
        format!("{}.{}", self.private, self.made)
    }

    /// Opens the directory `name`, afresh.
    fn directory(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut directory = open(&self.root, flags, Mode::empty())?;
        self.ensure_is_home(&directory)?;
        for part in name.split('/').filter(|part| !part.is_empty()) {
            directory = openat(&directory, part, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
        }
        Ok(directory)
    }

    /// What stands at the root may change while nobody looks: a mount comes and goes.
    fn ensure_is_home(&self, root: &OwnedFd) -> Result<(), Errno> {
        let Some(fleet) = &self.fleet else { return Ok(()) };
        let found = nix::sys::stat::fstat(root)?;
        let place = Some((found.st_dev, found.st_ino));
        if self.seen.get() == place {
            return Ok(());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut text = String::new();
        let file = match openat(root, names::FLEET, flags, Mode::empty()) {
            // An empty mount point has no nodes either.
            Err(Errno::ENOENT) if openat(root, names::NODES, flags, Mode::empty()).is_ok() => {
                return Err(DAMAGED);
            }
            opened => File::from(opened?),
        };
        file.take(FACT_BYTES_MAX as u64).read_to_string(&mut text).map_err(errno_of)?;
        match found_fact(names::FLEET, &text, None) {
            Look::Found(Found { fact: Fact::Fleet(said), .. }) if said.id == *fleet => {
                self.seen.set(place);
                Ok(())
            }
            Look::Bad(_) => Err(DAMAGED),
            _ => Err(ELSEWHERE),
        }
    }

    fn write_private(&self, directory: &OwnedFd, private: &str, text: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(directory, private, flags, Mode::from_bits_truncate(0o644))?);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(file)
    }

    /// `is_asked` becomes true before storage is asked for the name.
    fn try_create(&mut self, name: &str, text: &str, is_asked: &mut bool) -> io::Result<()> {
        let (parent, last) = split(name);
        let private = self.private_name();
        self.disk.ask("create", &self.root.join(name)).map_err(|error| error.source)?;
        let directory = self.directory(parent)?;
        let linked = self.write_private(&directory, &private, text).and_then(|_| {
            *is_asked = true;
            linkat(&directory, private.as_str(), &directory, last, AtFlags::empty())?;
            Ok(())
        });
        // Also when the link said that the name is there: that may be ours, and its name must be durable.
        let synced = sync(&directory);
        let _ = unlinkat(&directory, private.as_str(), UnlinkatFlags::NoRemoveDir);
        linked.and(synced)
    }

    /// The directory `name` of facts; nothing where it was never made.
    fn directory_of_facts(&self, name: &str) -> Result<Option<OwnedFd>, Errno> {
        match self.directory(name) {
            // A node that never joined has no directory; without the directories of the board it is another one.
            Err(Errno::ENOENT) if name.contains('/') && self.directory(split(name).0).is_ok() => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn try_read(&self, name: &str) -> Result<Read, Errno> {
        let (parent, last) = split(name);
        self.directory_of_facts(parent)?.map_or(Ok(Read::Absent), |directory| read_in(&directory, last))
    }

    /// Reads name after name, for one [`Board::read_some`]: a directory stays open while the next name is in it, too.
    fn reader(&self) -> impl FnMut(&str) -> Read + Send + use<> {
        let board = self.again();
        let mut open: Option<(String, OwnedFd)> = None;
        move |name| {
            let (parent, last) = split(name);
            let mut try_read = || {
                // Where reading in it fails, it is opened anew.
                let directory = match open.take() {
                    Some((of, directory)) if of == parent => directory,
                    _ => match board.directory_of_facts(parent)? {
                        Some(directory) => directory,
                        None => return Ok(Read::Absent),
                    },
                };
                let read = read_in(&directory, last)?;
                open = Some((parent.to_owned(), directory));
                Ok(read)
            };
            read_named(name, || retried(&mut try_read).map_err(|errno| board.told(errno)))
        }
    }

    fn try_list(&self, name: &str) -> Result<Listed, Errno> {
        let mut directory = nix::dir::Dir::from_fd(self.directory(name)?)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let Ok(name) = entry?.file_name().to_str().map(str::to_owned) else { continue };
            if name.starts_with('.') {
                continue;
            }
            if names.len() == NAMES_MAX {
                return Ok(Listed::Unreachable(format!("it holds more than {NAMES_MAX} names")));
            }
            names.push(name);
        }
        names.sort();
        Ok(Listed::Names(names))
    }

    fn try_beat(&mut self, name: &str, text: &str) -> io::Result<()> {
        let (parent, last) = split(name);
        let private = self.private_name();
        let directory = self.directory(parent)?;
        let renamed = self
            .write_private(&directory, &private, text)
            .and_then(|_| Ok(renameat(&directory, private.as_str(), &directory, last)?));
        if renamed.is_err() {
            let _ = unlinkat(&directory, private.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        renamed
    }

    fn try_clock(&mut self, name: &str) -> io::Result<ClockRead> {
        let private = self.private_name();
        let directory = self.directory(name)?;
        let before = nanoseconds();
        let file = self.write_private(&directory, &private, "clock\n");
        let after = nanoseconds();
        let found = file.and_then(|file| file.metadata());
        let _ = unlinkat(&directory, private.as_str(), UnlinkatFlags::NoRemoveDir);
        let found = found?;
        let stamp = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        // Storages that keep whole seconds show it by a stamp without a fraction; it stands for all of its second.
        let (later, grain) = if found.mtime_nsec() == 0 { (500.0, 500.0) } else { (0.0, 10.0) };
        let half = (after.saturating_sub(before)) as f64 / 2e6;
        let middle = i128::from(before) + i128::from(after.saturating_sub(before)) / 2;
        Ok(ClockRead::Offset { offset_ms: (stamp - middle) as f64 / 1e6 + later, error_ms: half + grain })
    }
}

impl Board for DirectoryBoard {
    fn create(&mut self, name: &str, text: &str) -> Created {
        if !names::is_name(name) || text.len() > FACT_BYTES_MAX {
            return Created::Unknown("it is not a name or not a text for a board".into());
        }
        // Looking first spares a write where the decision is long made; the link decides all the same.
        if let Read::Bytes(there) = self.read(name) {
            return if there == text { Created::Mine } else { Created::Theirs(there) };
        }
        // Whatever error a link gives, the server may have made it, or make it yet. Before it there is nothing that could
        // ever become the name: storage that is full or read-only says so then.
        let mut is_asked = false;
        let tried = retried(|| self.try_create(name, text, &mut is_asked).map_err(errno_of));
        match self.read(name) {
            Read::Bytes(there) if there == text => Created::Mine,
            Read::Bytes(there) => Created::Theirs(there),
            Read::Bad(why) => Created::Theirs(why),
            Read::Absent | Read::Unreachable(_) if !is_asked => {
                Created::Refused(tried.err().map_or_else(String::new, |errno| self.told(errno)))
            }
            Read::Absent => Created::Unknown(match tried {
                Ok(()) => "it was made, and is not there".to_owned(),
                Err(errno) => self.told(errno),
            }),
            Read::Unreachable(why) => Created::Unknown(why),
        }
    }

    fn read(&mut self, name: &str) -> Read {
        read_named(name, || retried(|| self.try_read(name)).map_err(|errno| self.told(errno)))
    }

    fn read_some(&mut self, names: &[String], within: Duration) -> Vec<Read> {
        read_at_once(names, within, || self.reader())
    }

    fn list(&mut self, name: &str) -> Listed {
        list_named(name, || retried(|| self.try_list(name)).map_err(|errno| self.told(errno)))
    }

    fn prepare(&mut self, name: &str) -> Done {
        let (parent, last) = split(name);
        let made = self.directory(parent).and_then(|parent| {
            match mkdirat(&parent, last, Mode::S_IRWXU) {
                Ok(()) => share(&parent, last, name.starts_with(names::NODES) && name.contains('/'))?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            sync(&parent).map_err(errno_of)
        });
        made.and_then(|()| self.directory(name))
            .map_or_else(|errno| self.unreachable_for(errno), |_| Done::Done)
    }

    fn beat(&mut self, name: &str, text: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        match self.try_beat(name, text) {
            Ok(()) => Done::Done,
            Err(error) => self.unreachable_for(errno_of(error)),
        }
    }

    fn clock(&mut self, name: &str) -> ClockRead {
        self.try_clock(name).unwrap_or(ClockRead::Unknown)
    }

    fn shut(&mut self, name: &str) -> Option<String> {
        let asked = retried(|| {
            let directory = self.directory(name)?;
            if fstatvfs(&directory)?.flags().contains(FsFlags::ST_RDONLY) {
                return Err(Errno::EROFS);
            }
            // An export may be read-only on a mount that is not, and root be nobody there: storage is asked, too.
            faccessat(&directory, ".", AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)
        });
        let is_said = |errno: &Errno| matches!(errno, Errno::EROFS | Errno::EACCES | Errno::EPERM);
        asked.err().filter(is_said).map(|errno| self.told(errno))
    }

    fn remove(&mut self, name: &str) -> Done {
        let (parent, last) = split(name);
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        let removed = self.directory(parent).and_then(|directory| {
            match unlinkat(&directory, last, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR | Errno::EPERM) => unlinkat(&directory, last, UnlinkatFlags::RemoveDir),
                removed => removed,
            }
        });
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Done::Done,
            Err(errno) => self.unreachable_for(errno),
        }
    }
}

/// Stands for: the directory is there, and is another fleet's. No file system gives this error.
const ELSEWHERE: Errno = Errno::ENOMEDIUM;
/// Nobody can tell whose directory it is.
const DAMAGED: Errno = Errno::EUCLEAN;

/// Opens a directory that was just made to those who share the directory that it is in, and to nobody else: the group of
/// that one may write, or only read where it is a node's own. Where not even that group can be given, it is as open as the
/// one that it is in, whose owner wanted it so.
fn share(parent: &OwnedFd, name: &str, is_nodes: bool) -> Result<(), Errno> {
    let above = nix::sys::stat::fstat(parent)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let made = openat(parent, name, flags, Mode::empty())?;
    let has_group = nix::sys::stat::fstat(&made)?.st_gid == above.st_gid
        || nix::unistd::fchown(&made, None, Some(above.st_gid.into())).is_ok();
    let is_open = above.st_mode & 0o002 != 0;
    let mode = match (is_nodes, has_group || !is_open) {
        (true, true) => 0o2750,
        (true, false) => 0o755,
        (false, true) => 0o2770,
        (false, false) => 0o1777,
    };
    nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(mode))
}

/// What the file of this name in a directory of facts holds.
fn read_in(directory: &OwnedFd, last: &str) -> Result<Read, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = match openat(directory, last, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Read::Absent),
        Err(Errno::ELOOP) => return Ok(Read::Bad("it is a symbolic link".into())),
        Err(Errno::ENXIO) => return Ok(Read::Bad("it is not a regular file".into())),
        // The directories can be read: only this file is kept from us, and may be for ever.
        Err(Errno::EACCES) => return Ok(Read::Bad("this node may not read it".into())),
        opened => File::from(opened?),
    };
    let found = file.metadata().map_err(errno_of)?;
    if !found.is_file() {
        return Ok(Read::Bad("it is not a regular file".into()));
    }
    let length = usize::try_from(found.len()).unwrap_or(FACT_BYTES_MAX).min(FACT_BYTES_MAX);
    let mut bytes = Vec::with_capacity(length + 1);
    file.take(FACT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(errno_of)?;
    if bytes.len() > FACT_BYTES_MAX {
        return Ok(Read::Bad(format!("it is longer than {FACT_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8(bytes).map_or_else(|_| Read::Bad("it is not UTF-8".into()), Read::Bytes))
}

/// Directory and last part of a name.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn retried<T>(mut work: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut tries = 0;
    loop {
        match work() {
            Err(Errno::ESTALE | Errno::EINTR) if tries < RETRIES => tries += 1,
            result => return result,
        }
    }
}

fn sync(directory: &OwnedFd) -> io::Result<()> {
    match nix::unistd::fsync(directory.as_fd()) {
        // Some network file systems have no fsync of directories: what they create is durable when the server answers.
        Err(Errno::EINVAL | Errno::EBADF | Errno::ENOTSUP) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::facts;
    use super::super::super::look::seal_summed;
    use super::*;

    fn boards(count: usize) -> (tempfile::TempDir, Vec<DirectoryBoard>) {
        let directory = tempfile::tempdir().unwrap();
        let make =
            |number| DirectoryBoard::new(directory.path().into(), &format!("n{number}"), Disk::default());
        let mut boards: Vec<_> = (0..count).map(make).collect();
        for name in [names::ROLLOUTS, names::NODES] {
            assert_eq!(boards[0].prepare(name), Done::Done);
        }
        (directory, boards)
    }

    #[test]
    fn of_all_who_create_a_name_one_is_first() {
        let (_directory, mut boards) = boards(6);
        for round in 0..50 {
            let name = names::proposal(round);
            let results: Vec<(String, Created)> = std::thread::scope(|scope| {
                let create = |(number, board): (usize, &mut DirectoryBoard)| {
                    let text = format!("text {number}\n");
                    let created = board.create(&names::proposal(round), &text);
                    (text, created)
                };
                let threads: Vec<_> =
                    boards.iter_mut().enumerate().map(|one| scope.spawn(move || create(one))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let Read::Bytes(there) = boards[0].read(&name) else { panic!("round {round}: nothing there") };
            for (text, created) in results {
                let wanted = if text == there { Created::Mine } else { Created::Theirs(there.clone()) };
                assert_eq!(created, wanted, "round {round}");
            }
        }
        let Listed::Names(names) = boards[0].list(names::ROLLOUTS) else { panic!("no list") };
        assert_eq!(names.len(), 50);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), 50);
    }

    #[test]
    fn a_mount_that_went_away_is_not_an_empty_board() {
        let (directory, mut boards) = boards(1);
        let board = &mut boards[0];
        assert_eq!(board.read("rollouts/000001"), Read::Absent);
        assert_eq!(board.read("nodes/edge/000001.vote"), Read::Absent);
        board.root = directory.path().join("elsewhere");
        assert!(matches!(board.read("rollouts/000001"), Read::Unreachable(_)));
        assert!(matches!(board.create("rollouts/000001", "x"), Created::Refused(_)));
        board.root = directory.path().join("nodes");
        assert!(matches!(board.read("rollouts/000001"), Read::Unreachable(_)));
        assert!(matches!(board.read("nodes/edge/000001.vote"), Read::Unreachable(_)));
        assert!(matches!(board.create("rollouts/000001", "x"), Created::Refused(_)));
    }

    #[test]
    fn a_board_of_another_fleet_below_the_mount_is_not_this_one() {
        let (mounted, mut boards) = boards(1);
        let (below, _) = self::boards(1);
        for (place, id) in [(&mounted, "ours"), (&below, "theirs")] {
            let fleet = facts::Fleet { fleet: "shop".into(), id: id.into() };
            let text = seal_summed(names::FLEET, &Fact::Fleet(fleet));
            Disk::default().replace(&place.path().join(names::FLEET), text.as_bytes(), 0o644).unwrap();
        }
        let mut board = boards.remove(0).of_fleet(Some("ours".into()));
        assert_eq!(board.create("rollouts/000001", "x"), Created::Mine);
        board.root = below.path().into();
        assert!(
            matches!(board.read("rollouts/000001"), Read::Unreachable(why) if why.contains("not the directory"))
        );
        assert!(matches!(board.create("rollouts/000001", "x"), Created::Refused(_)));
        assert!(matches!(board.list("rollouts"), Listed::Unreachable(_)));
        board.root = mounted.path().into();
        assert_eq!(board.read("rollouts/000001"), Read::Bytes("x".into()));
    }

    #[test]
    fn what_cannot_be_a_fact_is_bad_and_never_hangs() {
        let (directory, mut boards) = boards(1);
        let at = |name: &str| directory.path().join("rollouts").join(name);
        nix::unistd::mkfifo(&at("1"), Mode::from_bits_truncate(0o644)).unwrap();
        nix::unistd::symlinkat("/etc/passwd", nix::fcntl::AT_FDCWD, &at("2")).unwrap();
        File::create(at("3")).unwrap().set_len(1 << 40).unwrap();
        File::create(at("4")).unwrap().write_all(&[0xff, 0xfe]).unwrap();
        assert_eq!(boards[0].prepare("rollouts/5"), Done::Done);
        for name in 1..=5 {
            let read = boards[0].read(&format!("rollouts/{name}"));
            assert!(matches!(read, Read::Bad(_)), "{name}: {read:?}");
            let created = boards[0].create(&format!("rollouts/{name}"), "text");
            assert!(matches!(created, Created::Theirs(_)), "{name}: {created:?}");
        }
    }

    #[test]
    fn heartbeats_are_replaced_and_the_clock_is_measured() {
        let (_directory, mut boards) = boards(1);
        assert_eq!(boards[0].prepare("nodes/edge"), Done::Done);
        for text in ["one", "two"] {
            assert_eq!(boards[0].beat("nodes/edge/alive", text), Done::Done);
            assert_eq!(boards[0].read("nodes/edge/alive"), Read::Bytes(text.into()));
        }
        let ClockRead::Offset { offset_ms, error_ms } = boards[0].clock("nodes/edge") else {
            panic!("the clock was not measured");
        };
        assert!(offset_ms.abs() < 1000.0 + error_ms, "{offset_ms} {error_ms}");
        assert_eq!(boards[0].list("nodes/edge"), Listed::Names(vec!["alive".into()]));
    }
}
