//! Data as people may have them, made by chance, on one file system.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cutover::sys::disk::Disk;
use cutover::sys::kernel::{btrfs, file};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::chance::Chance;

/// linux/fs.h: FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NODUMP_FL, FS_NOATIME_FL, FS_NOCOW_FL
const IMMUTABLE: i32 = 0x10;
const FLAGS: [i32; 4] = [IMMUTABLE, 0x20, 0x40, 0x80];
const NO_COPY_ON_WRITE: i32 = 0x80_0000;
const MODES: [u32; 8] = [0o644, 0o755, 0o000, 0o555, 0o4755, 0o2775, 0o1777, 0o600];
/// CAP_NET_BIND_SERVICE, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// user::rwx, user 33 rw-, group::r-x, mask::rwx, other::r--
const ACCESS_LIST: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 33, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16,
    0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

/// One `[[data]]` table.
#[derive(Clone, Debug)]
pub struct Datum {
    pub path: PathBuf,
    pub is_kept: bool,
    pub leave: Vec<PathBuf>,
}

impl Datum {
    pub fn table(&self) -> String {
        let quoted = |path: &Path| serde_json::to_string(path.to_str().unwrap()).unwrap();
        let leave: Vec<_> = self.leave.iter().map(|path| quoted(path)).collect();
        let policy = if self.is_kept { "keep" } else { "restore" };
        format!(
            "[[data]]\npath = {}\non_rollback = '{policy}'\nleave = [{}]\n",
            quoted(&self.path),
            leave.join(", ")
        )
    }

    pub fn is_subvolume(&self) -> bool {
        btrfs::is_subvolume(&self.path).unwrap_or(false)
    }
}

/// The directories of one file system.
pub struct World<'a> {
    pub place: &'a Path,
    pub kind: &'static str,
    pub chance: Chance,
    /// Set when all is made: nobody can go on then.
    flags: Vec<(PathBuf, i32)>,
}

/// Where data may be: below the root, beside it, seen through a link, on another mount of this file system, in memory.
const PLACES: [&str; 5] = ["root", "volume", "link", "other", "memory"];

impl<'a> World<'a> {
    pub fn new(place: &'a Path, kind: &'static str) -> Self {
        let world = Self { place, kind, chance: Chance::new(0), flags: Vec::new() };
        for name in ["volume", "otherside", "other", "memory", "outside/bind"] {
            fs::create_dir_all(world.at(name)).unwrap();
        }
        symlink("volume", world.at("link")).unwrap_or_default();
        for name in ["outside/file", "outside/bind/file"] {
            fs::write(world.at(name), name).unwrap();
        }
        world.mount("tmpfs", Path::new("none"), &world.at("memory"));
        world.mount("bind", &world.at("otherside"), &world.at("other"));
        world
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub fn mount(&self, kind: &str, from: &Path, at: &Path) {
        let flags = if kind == "bind" { MsFlags::MS_BIND } else { MsFlags::empty() };
        let size = if kind == "tmpfs" { Some("size=32m,mode=755") } else { None };
        mount(Some(from), at, Some(kind), flags, size).unwrap_or_else(|error| panic!("{at:?}: {error}"));
    }

    pub fn begin(&mut self, seed: u64) {
        self.chance = Chance::new(seed);
    }

    /// Whether something is mounted in what was moved away from this path.
    pub fn is_mounted_beside(&self, path: &Path) -> bool {
        let mut away = path.to_owned().into_os_string();
        away.push("-away");
        let away = fs::canonicalize(away);
        away.is_ok_and(|away| !cutover::sys::mounts::all_within(&away).unwrap().is_empty())
    }

    /// Takes away what an earlier round made.
    pub fn clear(&self) {
        let is_ours =
            |point: &PathBuf| ![self.place.to_owned(), self.at("other"), self.at("memory")].contains(point);
        loop {
            let mut mounted = cutover::sys::mounts::all_within(self.place).unwrap();
            mounted.retain(is_ours);
            let Some(last) = mounted.pop() else { break };
            nix::mount::umount2(&last, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
        for name in PLACES {
            set_flags(&self.at(name), 0);
            for entry in fs::read_dir(self.at(name)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap();
                if name == "current" || name == "releases" || name == ".cutover" {
                    continue;
                }
                remove(&path);
            }
        }
        for name in ["aside", "snapshots", "rehearsal"] {
            let path = self.at("root/.cutover").join(name);
            for entry in fs::read_dir(path).into_iter().flatten() {
                remove(&entry.unwrap().path());
            }
        }
    }

    /// One to three `[[data]]` tables, and what is there.
    pub fn make(&mut self) -> Vec<Datum> {
        let mut data = Vec::new();
        for number in 0..=self.chance.below(3) {
            let name = *self.chance.one_of(&PLACES);
            let place = self.at(name);
            let long = "l".repeat(240);
            let names = ["data", "da ta", ".data", "-d", "d%n'\"\n", "dätä", "da\\ta", "[d]*?", &long];
            let path = place.join(format!("{}{number}", self.chance.one_of(&names)));
            let mut datum = Datum { path, is_kept: self.chance.one_in(6), leave: Vec::new() };
            self.fill(&mut datum);
            data.push(datum);
        }
        if self.chance.one_in(20) {
            let mut inner = data[0].clone();
            inner.path.push("inner");
            data.push(inner);
        }
        for (path, flags) in std::mem::take(&mut self.flags) {
            add_flags(&path, flags);
        }
        data
    }

    fn fill(&mut self, datum: &mut Datum) {
        let path = datum.path.clone();
        match self.chance.below(24) {
            0 => return,
            1 => return fs::write(&path, "a file").unwrap(),
            2 => return symlink(self.at("outside"), &path).unwrap(),
            3 => {
                fs::create_dir(&path).unwrap();
                self.mount("tmpfs", Path::new("none"), &path);
            }
            4 => return mknod(&path, SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap(),
            5..=9 if self.is_on_btrfs(&path) => btrfs::create_subvolume(&path).unwrap(),
            _ => fs::create_dir(&path).unwrap(),
        }
        fs::write(path.join("records"), "old").unwrap();
        self.grow(&path, 0);
        for _ in 0..self.chance.below(3) {
            self.put_something_special(datum);
        }
        if self.chance.one_in(40) {
            self.flags.push((path.clone(), IMMUTABLE));
        }
        if self.chance.one_in(60) {
            self.flags.push((path.parent().unwrap().to_owned(), IMMUTABLE));
        }
        self.adorn(&path);
    }

    fn is_on_btrfs(&self, path: &Path) -> bool {
        self.kind == "btrfs" && !path.starts_with(self.at("memory"))
    }

    /// Something that is no part of the data, or cannot be copied; most of it is declared as left in place.
    fn put_something_special(&mut self, datum: &mut Datum) {
        let mut within = PathBuf::from(format!("special{}", self.chance.below(100)));
        if self.chance.one_in(2) {
            within = Path::new("way").join(within);
        }
        let path = datum.path.join(&within);
        if path.exists() {
            return;
        }
        let mut is_left = !self.chance.one_in(4);
        match self.chance.below(10) {
            0 if self.chance.one_in(2) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(0, 0)).unwrap();
            }
            1 if self.chance.one_in(2) => {
                fs::create_dir_all(path.join(vec!["d"; 205].join("/"))).unwrap();
            }
            2 => {
                fs::create_dir_all(&path).unwrap();
                self.mount("tmpfs", Path::new("none"), &path);
                fs::write(path.join("in memory"), "kept").unwrap();
            }
            3 => {
                fs::create_dir_all(&path).unwrap();
                self.mount("bind", &self.at("outside/bind"), &path);
            }
            4 => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "below").unwrap();
                self.mount("bind", &self.at("outside/file"), &path);
            }
            5 => {
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("seen twice"), "kept").unwrap();
                self.mount("bind", &path, &path);
            }
            6 if self.is_on_btrfs(&path) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                // Another file system may be mounted on the way there.
                if btrfs::create_subvolume(&path).is_ok() {
                    fs::write(path.join("in a subvolume"), "kept").unwrap();
                }
            }
            7 => is_left = self.chance.one_in(2),
            _ => {
                fs::create_dir_all(&path).unwrap();
                self.grow(&path, 2);
            }
        }
        if is_left {
            datum.leave.push(within);
        }
    }

    fn name(&mut self) -> OsString {
        let number = self.chance.below(1000);
        let long = "n".repeat(250);
        let odd: [&[u8]; 16] = [
            b"with space ",
            b"new\nline",
            b"quo'te\"",
            b"%n%",
            "ünicode✓".as_bytes(),
            b"-rf",
            b".hidden",
            b"back\\slash",
            b"\xff\xfe",
            long.as_bytes(),
            b".cutover-try",
            b"x.part",
            b".cutover-deep-0",
            b"$(x)",
            b"*",
            b"json.json",
        ];
        if self.chance.one_in(3) {
            return OsString::from_vec(self.chance.one_of(&odd).to_vec());
        }
        format!("n{number}").into()
    }

    fn grow(&mut self, directory: &Path, depth: usize) {
        for _ in 0..self.chance.below(6) {
            let path = directory.join(self.name());
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            match self.chance.below(12) {
                0..=2 if depth < 4 => {
                    fs::create_dir(&path).unwrap();
                    if self.kind == "btrfs" && self.chance.one_in(6) {
                        add_flags(&path, NO_COPY_ON_WRITE);
                    }
                    self.grow(&path, depth + 1);
                }
                3 => {
                    symlink(self.chance.one_of(&["nowhere", "..", "/etc/passwd", "records"]), &path).unwrap()
                }
                4 => mknod(&path, SFlag::S_IFIFO, Mode::from_bits_truncate(0o620), 0).unwrap(),
                5 if path.as_os_str().len() < 100 => drop(UnixListener::bind(&path)),
                6 => {
                    let others: Vec<_> = fs::read_dir(directory).unwrap().flatten().collect();
                    // Links and pipes may have several names, too.
                    let one = others.iter().find(|other| !other.file_type().unwrap().is_dir());
                    one.map(|one| fs::hard_link(one.path(), &path).unwrap()).unwrap_or_default();
                    continue;
                }
                7 if self.chance.one_in(4) => {
                    // On another mount there is no such link.
                    fs::hard_link(self.at("outside/file"), &path).unwrap_or_default();
                    continue;
                }
                _ => self.file(&path),
            }
            self.adorn(&path);
        }
    }

    fn file(&mut self, path: &Path) {
        let file = File::create_new(path).unwrap();
        if self.kind == "btrfs" && self.chance.one_in(5) {
            add_flags(path, NO_COPY_ON_WRITE);
        }
        for _ in 0..self.chance.below(4) {
            let length = *self.chance.one_of(&[0, 1, 17, 4096, 5000, 70_000]);
            let bytes = vec![u8::try_from(self.chance.below(256)).unwrap(); length];
            let offset = *self.chance.one_of(&[0, 1, 4096, 300_000, 1 << 20]);
            file.write_all_at(&bytes, offset).unwrap();
        }
        if self.chance.one_in(4) {
            let length = *self.chance.one_of(&[0, 100_000, 1 << 21]);
            file.set_len(length).unwrap();
        }
    }

    /// Owner, mode, attributes, times; and flags, later.
    fn adorn(&mut self, path: &Path) {
        let kind = fs::symlink_metadata(path).unwrap().file_type();
        if self.chance.one_in(3) {
            let [user, group] = [0; 2].map(|_| *self.chance.one_of(&[0, 33, 1000, 65534]));
            std::os::unix::fs::lchown(path, Some(user), Some(group)).unwrap();
        }
        if kind.is_symlink() {
            if self.chance.one_in(3) {
                xattr::set(path, "trusted.note", b"of a link").unwrap_or_default();
            }
            return;
        }
        if self.chance.one_in(2) {
            let mode = *self.chance.one_of(&MODES);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let is_regular = kind.is_file() || kind.is_dir();
        for (name, value, is_one) in [
            ("user.comment", &b"kept"[..], is_regular && self.chance.one_in(5)),
            ("trusted.note", &b"\0kept"[..], self.chance.one_in(8)),
            ("security.capability", &CAPABILITY, kind.is_file() && self.chance.one_in(5)),
            ("system.posix_acl_access", &ACCESS_LIST, self.chance.one_in(6)),
            ("system.posix_acl_default", &ACCESS_LIST, kind.is_dir() && self.chance.one_in(6)),
        ] {
            if is_one {
                // Not every file system has all of them.
                xattr::set(path, name, value).unwrap_or_default();
            }
        }
        if is_regular && self.chance.one_in(8) {
            self.flags.push((path.to_owned(), *self.chance.one_of(&FLAGS)));
        }
        if is_regular && self.chance.one_in(2) {
            let times = [
                Duration::from_nanos(1),
                Duration::from_secs(4_000_000_000),
                Duration::new(1_234_567_890, 987),
            ];
            let time = SystemTime::UNIX_EPOCH + *self.chance.one_of(&times);
            let file = open(path).unwrap();
            file.set_times(fs::FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
}

/// In memory there are none.
fn add_flags(path: &Path, flags: i32) {
    let Ok(file) = open(path) else { return };
    let now = file::flags(&file).unwrap();
    file::set_flags(&file, now | flags).unwrap_or_default();
}

/// Takes immutability off, too.
pub fn set_flags(path: &Path, flags: i32) {
    let Ok(file) = open(path) else { return };
    file::set_flags(&file, flags).unwrap_or_default();
}

/// Removes what is there, subvolumes and all.
pub fn remove(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        set_flags(path, 0);
        if btrfs::is_subvolume(path).unwrap() {
            btrfs::set_read_only(path, false).unwrap();
        }
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                remove(&entry.path());
            }
        }
    }
    Disk::default().remove_data(path).unwrap();
}
