//! Any data, through a sick release, a rollback, and the end of what was set aside: either nothing is stopped, or all that
//! users wrote is where it was or listed as set aside; and nothing outside the data is touched.

mod chance;
mod portrait;
mod world;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use portrait::Portrait;
use world::{Datum, World, remove, set_flags};

use crate::filesystems::Mounted;
use crate::node::{Health, TestNode};

/// Refused, and nothing was stopped.
const REFUSED: [i32; 3] = [2, 15, 16];

/// What is there at one moment.
struct Moment {
    /// All of each of the data.
    whole: Vec<Portrait>,
    /// The same without what is left in place, and that alone.
    data: Vec<Portrait>,
    left: Vec<Vec<Portrait>>,
    outside: Portrait,
}

struct Round<'a, 'w> {
    node: &'a TestNode,
    world: &'a mut World<'w>,
    data: Vec<Datum>,
    what: String,
    is_refused: bool,
}

impl Round<'_, '_> {
    fn look(&self) -> Moment {
        let left =
            |datum: &Datum| datum.leave.iter().map(|left| Portrait::of(&datum.path.join(left))).collect();
        Moment {
            whole: self.data.iter().map(|datum| Portrait::of(&datum.path)).collect(),
            data: self.data.iter().map(|datum| Portrait::without(&datum.path, &datum.leave)).collect(),
            left: self.data.iter().map(left).collect(),
            outside: Portrait::of(&self.world.at("outside")),
        }
    }

    fn run(&self, words: &[&str]) -> i32 {
        fs::write(self.world.at("calls"), "").unwrap();
        self.node.code(words)
    }

    fn assert_nothing_stopped(&self, before: &Moment) {
        let what = &self.what;
        assert_eq!(
            fs::read_to_string(self.world.at("calls")).unwrap(),
            "",
            "{what}: the service was touched"
        );
        self.assert_untouched(before);
        assert!(!self.node.has_journal(), "{what}: a journal is left");
    }

    fn assert_untouched(&self, before: &Moment) {
        let (now, what) = (self.look(), &self.what);
        for (number, (one, two)) in before.whole.iter().zip(&now.whole).enumerate() {
            assert_eq!(
                one.differences(two, &self.data[number].leave),
                [""; 0],
                "{what}: data {number} were touched"
            );
        }
        assert_eq!(before.outside.differences(&now.outside, &[]), [""; 0], "{what}: outside");
    }

    fn configure(&self) {
        let config = fs::read_to_string(self.node.config()).unwrap();
        let settings = config.split("[[data]]").next().unwrap();
        let tables: String = self.data.iter().map(Datum::table).collect();
        fs::write(self.node.config(), format!("{settings}{tables}")).unwrap();
        // What a sick release writes.
        let quoted = |path: &Path| format!("'{}'", path.to_str().unwrap().replace('\'', r"'\''"));
        let script: String = self
            .data
            .iter()
            .map(|datum| quoted(&datum.path))
            .map(|path| format!("[ -L {path} ] || if [ -d {path} ]; then echo new >{path}/new; elif [ -f {path} ] || [ ! -e {path} ]; then echo new >>{path}; fi\n"))
            .collect();
        let root = self.node.root();
        let is_old = format!("[ \"$(readlink {}/current)\" = releases/1 ] && exit 0\n", root.display());
        fs::write(self.world.at("start.sh"), format!("{is_old}exec 2>/dev/null\n{script}exit 0\n")).unwrap();
    }

    fn play(&mut self) {
        self.configure();
        let before = self.look();
        let checked = self.run(&["config", "check"]);
        self.assert_nothing_stopped(&before);
        let is_sick = self.world.chance.one_in(2);
        let archive = self.node.archive(if is_sick { 3 } else { 2 });
        let code = self.run(&["update", "--allow-unsigned", archive.to_str().unwrap()]);
        self.what += &format!(", config check {checked}, update {code}");
        if REFUSED.contains(&code) {
            assert!(checked != 0 || code == 16, "{}", self.what);
            self.is_refused = true;
            return self.assert_nothing_stopped(&before);
        }
        assert_eq!((checked, code), (0, if is_sick { 10 } else { 0 }), "{}", self.what);
        if is_sick {
            self.assert_new_is_aside();
            self.assert_back(&before, None);
        } else {
            self.scribble();
            self.go_back(&before);
        }
        self.drop_aside();
    }

    fn go_back(&mut self, before: &Moment) {
        let newer = self.look();
        let checked = self.run(&["rollback", "--check"]);
        self.assert_nothing_stopped(&newer);
        let code = self.run(&["rollback"]);
        self.what += &format!(", rollback --check {checked}, rollback {code}");
        if code == 0 {
            assert_eq!(checked, 0, "{}", self.what);
            return self.assert_back(before, Some(&newer));
        }
        assert!(REFUSED.contains(&code) && checked == code, "{}", self.what);
        self.assert_nothing_stopped(&newer);
        for datum in &self.data {
            while nix::mount::umount(&datum.path).is_ok() {}
            let mounted = cutover::sys::mounts::all_within(&datum.path).unwrap_or_default();
            let is_left =
                |point: &&PathBuf| datum.leave.iter().any(|left| point.starts_with(datum.path.join(left)));
            for point in mounted.iter().rev().filter(|point| !is_left(point)) {
                nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).unwrap_or_default();
            }
            set_flags(&datum.path, 0);
        }
        let newer = self.look();
        assert_eq!(self.run(&["rollback"]), 0, "{}, and again", self.what);
        self.assert_back(before, Some(&newer));
    }

    /// The data are those from before, what is left is as it was last, and what was newer is set aside.
    fn assert_back(&self, before: &Moment, newer: Option<&Moment>) {
        let (now, what) = (self.look(), &self.what);
        // Users may have written there since, through a link or a mount of theirs.
        let outside = &newer.unwrap_or(before).outside;
        assert_eq!(outside.differences(&now.outside, &[]), [""; 0], "{what}: outside");
        for (number, datum) in self.data.iter().enumerate() {
            let what = format!("{what}: data {number} {datum:?}");
            if let Some(newer) = newer {
                assert_eq!(newer.left[number], now.left[number], "{what}: what was left");
            }
            if datum.is_kept {
                if let Some(newer) = newer {
                    assert_eq!(
                        newer.whole[number].differences(&now.whole[number], &[]),
                        [""; 0],
                        "{what}: kept"
                    );
                }
                continue;
            }
            let mut wanted = before.data[number].clone();
            if !datum.is_subvolume() {
                wanted = wanted.without_sockets();
            }
            let left = &datum.leave;
            assert_eq!(wanted.differences(&now.data[number], left), [""; 0], "{what}: back");
            if let Some(newer) = newer.filter(|newer| !newer.data[number].is_nothing()) {
                let stored =
                    self.stored(&datum.path).unwrap_or_else(|| panic!("{what}: nothing is set aside"));
                let aside = Portrait::without(&stored, left);
                assert_eq!(newer.data[number].differences(&aside, left), [""; 0], "{what}: aside");
            }
        }
    }

    fn assert_new_is_aside(&self) {
        for datum in self.data.iter().filter(|datum| !datum.is_kept) {
            let stored = self.stored(&datum.path);
            let new = stored.map(|stored| if stored.is_dir() { stored.join("new") } else { stored });
            let text = new.map(|path| fs::read_to_string(path).unwrap_or_default()).unwrap_or_default();
            // Immutable directories let nobody write.
            let is_closed = fs::File::open(&datum.path)
                .and_then(|file| cutover::sys::kernel::file::flags(&file))
                .is_ok_and(|flags| flags & 0x30 != 0);
            assert!(text.ends_with("new\n") || is_closed, "{}: {datum:?} {text:?}", self.what);
        }
    }

    /// Where the newer part of data was moved to.
    fn stored(&self, path: &Path) -> Option<PathBuf> {
        let mut stored = None;
        for entry in fs::read_dir(self.node.root().join(".cutover/aside")).ok()?.flatten() {
            let is_index = entry.path().extension().is_some_and(|ending| ending == "json");
            if !is_index || !entry.path().is_file() {
                continue;
            }
            let index: serde_json::Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            let items = index["items"].as_array().unwrap();
            let item = items.iter().find(|item| item["path"].as_str() == path.to_str());
            stored = item.map(|item| PathBuf::from(item["stored"].as_str().unwrap())).or(stored);
        }
        stored.filter(|stored| fs::symlink_metadata(stored).is_ok())
    }

    fn drop_aside(&self) {
        let before = self.look();
        let listed: serde_json::Value =
            serde_json::from_slice(&self.node.run(&["--json", "data", "list"]).stdout).unwrap();
        let stored: Vec<_> = self.data.iter().filter_map(|datum| self.stored(&datum.path)).collect();
        assert_eq!(stored.is_empty(), listed["aside"].as_array().unwrap().is_empty(), "{}", self.what);
        for set in listed["aside"].as_array().unwrap() {
            let code = self.run(&["data", "drop", set["id"].as_str().unwrap()]);
            let has_subvolumes = stored.iter().any(|stored| has_subvolumes(stored));
            // What users have moved or mounted meanwhile may be what was set aside: nothing of it is deleted.
            let is_used = || self.data.iter().any(|datum| self.world.is_mounted_beside(&datum.path));
            assert!(
                code == 0 || (code == 1 && (has_subvolumes || is_used())),
                "{}: data drop {code}",
                self.what
            );
            assert!(code == 1 || !stored.iter().any(|stored| stored.exists()), "{}", self.what);
        }
        self.assert_untouched(&before);
    }

    /// What a release and its users do while it runs.
    fn scribble(&mut self) {
        for datum in self.data.clone() {
            let path = &datum.path;
            if self.world.chance.one_in(12) {
                self.change_top(path);
                continue;
            }
            if !path.is_dir() || path.is_symlink() {
                if path.is_file() || !path.exists() {
                    write(path, "new");
                }
                continue;
            }
            write(&path.join("records"), "new");
            fs::create_dir_all(path.join("fresh/deep")).unwrap_or_default();
            write(&path.join("fresh/deep/file"), "fresh");
            let paths = Portrait::of(path).paths();
            for _ in 0..self.world.chance.below(5) {
                let inner = path.join(self.world.chance.one_of(&paths));
                if inner != *path {
                    self.change(&inner);
                }
            }
            match self.world.chance.below(20) {
                0 => {
                    fs::create_dir_all(path.join("late")).unwrap_or_default();
                    if path.join("late").is_dir() {
                        self.world.mount("tmpfs", Path::new("none"), &path.join("late"));
                    }
                }
                1 => drop(cutover::sys::kernel::btrfs::create_subvolume(&path.join("late"))),
                _ => {}
            }
        }
    }

    fn change_top(&mut self, path: &Path) {
        match self.world.chance.below(5) {
            0 if path.is_dir() && !path.is_symlink() => self.world.mount("tmpfs", Path::new("none"), path),
            1 => {
                let mut away = path.to_owned().into_os_string();
                away.push("-away");
                fs::rename(path, &away).unwrap_or_default();
                if self.world.chance.one_in(2) {
                    symlink(self.world.at("outside/bind"), path).unwrap_or_default();
                }
            }
            2 => drop(fs::remove_dir_all(path)),
            3 => set_flags(path, 0x10),
            _ => {}
        }
    }

    /// Anything may fail here: then nothing is changed.
    fn change(&mut self, path: &Path) {
        match self.world.chance.below(6) {
            0 => drop(fs::remove_dir_all(path)),
            1 => {
                drop(fs::remove_file(path));
                drop(symlink(self.world.at("outside/bind"), path));
            }
            2 => {
                drop(fs::remove_dir_all(path));
                write(path, "a file by now");
            }
            3 => {
                drop(fs::remove_file(path));
                drop(fs::create_dir_all(path.join("a directory by now")));
            }
            4 if path.is_file() && !path.is_symlink() => write(path, "longer or shorter by now"),
            _ => drop(fs::rename(path, path.with_file_name("renamed"))),
        }
    }
}

/// Writes a file where that can be: what stands there may be a FIFO, which nobody reads.
fn write(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(nix::libc::O_NONBLOCK);
    drop(options.open(path).and_then(|mut file| file.write_all(text.as_bytes())));
}

fn has_subvolumes(path: &Path) -> bool {
    let is_one = |path: &Path| cutover::sys::kernel::btrfs::is_subvolume(path).unwrap_or(false);
    let inner = fs::read_dir(path).into_iter().flatten().flatten();
    inner
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| is_one(&entry.path()) || has_subvolumes(&entry.path()))
}

/// A node whose service tells what is done to it.
fn installed(place: &Path) -> TestNode {
    let root = place.join("root");
    fs::create_dir(&root).unwrap();
    let node = TestNode::new(&[Health::Good, Health::Good, Health::Sick]).with_root(&root);
    let config = fs::read_to_string(node.config()).unwrap();
    let [calls, start] = ["calls", "start.sh"].map(|name| place.join(name).display().to_string());
    let service = format!(
        "[store]\nreserve = '1MiB'\n[service]\ncommand = {{ start = 'echo start >>{calls}; sh {start}', \
         stop = 'echo stop >>{calls}' }}\n[[data]]"
    );
    fs::write(node.config(), config.replace("[[data]]", &service)).unwrap();
    fs::write(&start, "").unwrap();
    assert_eq!(node.update(1), 0);
    node
}

fn rounds(test: &str, kind: &'static str, count: u64) {
    let Some(mounted) = Mounted::sized(test, kind, 4 << 10) else { return };
    let place = mounted.path();
    let wanted = std::env::var("CUTOVER_DATA_SEED").ok();
    let seeds = wanted.map_or(0..count, |seed| seed.parse().map(|seed| seed..seed + 1).unwrap());
    let mut node = installed(&place);
    let (mut refused, mut failed, mut world) = (0, Vec::new(), World::new(&place, kind));
    for seed in seeds {
        world.clear();
        world.begin(seed);
        println!("{kind}, CUTOVER_DATA_SEED={seed}");
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let data = world.make();
            let what = format!("{kind}, CUTOVER_DATA_SEED={seed}");
            let mut round = Round { node: &node, world: &mut world, data, what, is_refused: false };
            round.play();
            node.run(&["unhold"]);
            node.run(&["mark-good", "3"]);
            assert_eq!(node.active().as_deref(), Some("1"));
            round.is_refused
        }));
        refused += usize::from(*played.as_ref().unwrap_or(&false));
        if played.is_err() {
            failed.push(seed);
            world.clear();
            remove(&place.join("root"));
            node = installed(&place);
        }
    }
    world.clear();
    println!("{kind}: {count} rounds, {refused} of them refused");
    assert!(failed.is_empty(), "{kind}: rounds with CUTOVER_DATA_SEED={failed:?} fail");
}

#[test]
fn what_users_wrote_is_never_lost() {
    for (kind, count) in [("ext4", 3), ("xfs", 3), ("btrfs", 4)] {
        rounds("what_users_wrote_is_never_lost", kind, count);
    }
}

#[test]
#[ignore = "2,000 rounds: half an hour; `make test-crashes`"]
fn what_users_wrote_on_ext4_is_not_lost_by_any_method() {
    rounds("what_users_wrote_on_ext4_is_not_lost_by_any_method", "ext4", 2000);
}

#[test]
#[ignore = "2,000 rounds: half an hour; `make test-crashes`"]
fn what_users_wrote_on_xfs_is_not_lost_by_any_method() {
    rounds("what_users_wrote_on_xfs_is_not_lost_by_any_method", "xfs", 2000);
}

#[test]
#[ignore = "2,000 rounds: half an hour; `make test-crashes`"]
fn what_users_wrote_on_btrfs_is_not_lost_by_any_method() {
    rounds("what_users_wrote_on_btrfs_is_not_lost_by_any_method", "btrfs", 2000);
}
