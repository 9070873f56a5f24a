//! The same archives read by others: what they make of them, and what comes out here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cutover::release::archive::Limits;
use cutover::release::scan;
use cutover::release::stage::{self, Built, unpack};
use cutover::sys::disk::Disk;
use cutover::types::entry::{Entry, Kind};
use cutover::types::escaped;
use cutover::types::progress::Silent;

use super::corpus;

/// A directory for one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a shell command here; whether it went well.
    fn try_run(&self, command: &str) -> bool {
        let mut shell = Command::new("sh");
        shell.args(["-ec", command]).current_dir(&self.0).env("LC_ALL", "C.UTF-8");
        shell.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    fn run(&self, command: &str) {
        assert!(self.try_run(command), "{command}");
    }

    /// Stages the archive `name` in the new directory `into`.
    fn stage(&self, name: &str, into: &str) -> Result<Built, stage::Error> {
        let into = self.path(into);
        Disk::default().make_directory(&into, 0o755).unwrap();
        let limits = Limits { allow_setid: true, ..Limits::default() };
        let file = File::open(self.path(name)).unwrap();
        let built = unpack(file, name, &into, &limits, &Disk::default(), &Silent)?;
        assert_eq!(scan::digest(&into).unwrap(), built.tree, "{name}");
        Ok(built)
    }
}

fn has(program: &str, test: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED {test}: needs {program}");
    }
    found
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn entries(root: &Path) -> Tree {
    scan::walk(root).unwrap().map(|entry| entry.map(|entry| (entry.path.clone(), entry)).unwrap()).collect()
}

/// Compares two trees entry by entry, after `adjust` took away what an archive of this kind cannot carry.
fn assert_same(ours: &Path, theirs: &Path, what: &str, adjust: impl Fn(&mut Entry)) {
    let (mut ours, mut theirs) = (entries(ours), entries(theirs));
    ours.values_mut().for_each(&adjust);
    theirs.values_mut().for_each(&adjust);
    let names = |tree: &Tree| tree.keys().map(|path| escaped(path)).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{what}");
    for (path, entry) in &ours {
        assert_eq!(entry, &theirs[path], "{what}");
    }
}

/// What every tar can carry.
const PLAIN: &str = "
    mkdir -p in/bin in/share/deep/er; printf 'run me' > in/bin/run; chmod 755 in/bin/run; echo text > in/share/text
    ln in/share/text in/share/same; ln -s ../bin/run in/share/link; ln -s /nowhere in/dangling; : > in/empty
    head -c 700000 /dev/urandom > in/share/deep/noise; chmod 600 in/share/deep/noise; chmod 1777 in/share/deep
    touch -d 2001-02-03T04:05:06 in/share/text; mkdir in/nothing; chmod 500 in/nothing; [ $(id -u) != 0 ] || chmod 4755 in/bin/run";

/// What only the newer kinds can.
const RICH: &str = "
    n=$(printf %0120d 1); mkdir -p in/$n/$n; echo long > in/$n/$n/$n; ln in/$n/$n/$n in/$n/hard; ln -s $n/$n/$n in/soft
    echo ü > in/größe; truncate -s 3M in/holes; printf x | dd of=in/holes bs=1 seek=1500000 conv=notrunc status=none
    truncate -s 1M in/hole; printf 'a\\nb' > 'in/new
line'; chown -R 3000000:3000000 in/nothing 2>/dev/null || :";

#[test]
fn archives_of_every_tar_give_the_tree_they_were_made_of() {
    let gnu = |format: &str, more: &str| (format!("tar -C in --format={format} {more} -cf"), true);
    let python = |format: &str| {
        let code = format!(
            "import sys,tarfile
with tarfile.open(sys.argv[1],'w',format=tarfile.{format}) as archive: archive.add('in','.')"
        );
        (format!("python3 -c \"{code}\""), false)
    };
    let bsd = |format: &str| (format!("bsdtar -C in --format={format} -cf"), true);
    let plain = [
        gnu("v7", ""),
        gnu("ustar", ""),
        gnu("oldgnu", ""),
        gnu("gnu", ""),
        gnu("posix", ""),
        bsd("ustar"),
        python("USTAR_FORMAT"),
    ];
    let rich = [
        gnu("gnu", ""),
        gnu("gnu", "--sparse"),
        gnu("oldgnu", "--sparse"),
        gnu("posix", ""),
        gnu("posix", "--sparse"),
        gnu("posix", "--sparse --xattrs --gzip"),
        gnu("gnu", "--zstd --numeric-owner"),
        gnu("gnu", "--sort=name --blocking-factor=2048"),
        gnu("posix", "--selinux --xattrs-include='*'"),
        bsd("pax"),
        bsd("gnutar"),
        bsd("pax --zstd"),
        bsd("pax --gzip"),
        python("GNU_FORMAT"),
        python("PAX_FORMAT"),
    ];
    for (setup, commands) in [(PLAIN.to_owned(), &plain[..]), (format!("{PLAIN}{RICH}"), &rich[..])] {
        let place = Place::new();
        place.run(&setup);
        for (at, (command, needs_directory)) in commands.iter().enumerate() {
            let program = command.split(' ').next().unwrap();
            if !has(program, command) {
                continue;
            }
            let archive = format!("{at}.tar");
            place.run(&format!("{command} {archive} {}", if *needs_directory { "." } else { "" }));
            let built = place.stage(&archive, &format!("{at}.d"));
            built.unwrap_or_else(|error| panic!("{command}: {error}"));
            assert_same(&place.path(&format!("{at}.d")), &place.path("in"), command, |entry| {
                entry.mtime.1 = 0;
            });
        }
    }
}

#[test]
fn archives_of_the_tar_crate_give_the_tree_they_were_made_of() {
    let place = Place::new();
    place.run(&format!("{PLAIN}{RICH}"));
    let mut builder = tar::Builder::new(File::create(place.path("x.tar")).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", place.path("in")).unwrap();
    builder.finish().unwrap();
    place.stage("x.tar", "out").unwrap();
    assert_same(&place.path("out"), &place.path("in"), "tar crate", |entry| {
        entry.mtime.1 = 0;
        // It knows no hard links when it writes.
        entry.same_as = None;
    });
}

#[test]
fn archives_of_git_and_npm_give_what_tar_makes_of_them() {
    let place = Place::new();
    if has("git", "git archive") {
        place.run(&format!("{PLAIN}{RICH}"));
        place.run("cd in; git init -q; git add -A; git -c user.name=a -c user.email=a@b commit -qm x");
        place.run("git -C in archive -o ../git.tar HEAD; git -C in archive --prefix=x-1/ -o ../git.tar.gz HEAD; mkdir git.tar.t git.tar.gz.t");
        for archive in ["git.tar", "git.tar.gz"] {
            place.stage(archive, &format!("{archive}.d")).unwrap();
            place.run(&format!("tar -C {archive}.t -xpf {archive}"));
            assert_same(
                &place.path(&format!("{archive}.d")),
                &place.path(&format!("{archive}.t")),
                archive,
                |_| {},
            );
        }
    }
    if has("npm", "npm pack") {
        place.run("mkdir -p package/lib; cd package; echo 'x()' > lib/x.js; echo hello > README.md
            echo '{\"name\":\"x\",\"version\":\"1.0.0\",\"bin\":\"lib/x.js\"}' > package.json; npm pack --offline; mkdir ../npm.t; tar -C ../npm.t -xpzf x-1.0.0.tgz");
        place.stage("package/x-1.0.0.tgz", "npm.d").unwrap();
        assert_same(&place.path("npm.d"), &place.path("npm.t"), "npm", |entry| {
            if matches!(entry.kind, Kind::Directory) {
                // npm writes no directories: their modes and times are whatever the reader thinks.
                entry.mode = 0;
                entry.mtime = (0, 0);
            }
        });
    }
}

/// Made by Go's own library (tests/it/go/make.go), in each of its formats.
#[test]
fn archives_of_go_give_what_tar_makes_of_them() {
    if !crate::node::needs_root("archives_of_go_give_what_tar_makes_of_them") {
        return;
    }
    let place = Place::new();
    for format in ["unspecified", "ustar", "pax", "gnu"] {
        let (archive, made) = (format!("{format}.tar.gz"), format!("{format}.t"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/go").join(&archive);
        std::fs::copy(source, place.path(&archive)).unwrap();
        place.stage(&archive, format).unwrap();
        place.run(&format!("mkdir {made}; tar -C {made} -xpzf {archive}"));
        let adjust = |entry: &mut Entry| {
            if entry.path.is_empty() {
                // What no entry says is whatever the reader thinks.
                entry.mode = 0;
            }
            if matches!(entry.kind, Kind::Directory) {
                // tar forgets the time of a directory when more comes into it later.
                entry.mtime = (0, 0);
            }
        };
        assert_same(&place.path(format), &place.path(&made), format, adjust);
    }
}

/// What three other readers make of archives that are accepted here: where they agree, it is the same as here.
#[test]
fn what_others_read_alike_is_read_the_same_here() {
    // Only root can read every file that the archives make.
    if !crate::node::needs_root("what_others_read_alike_is_read_the_same_here") {
        return;
    }
    if !(has("tar", "readers") && has("bsdtar", "readers") && has("python3", "readers")) {
        return;
    }
    let mut archives: Vec<(String, Vec<u8>)> =
        corpus::all().into_iter().map(|case| (case.name.to_owned(), case.bytes)).collect();
    archives.extend((0..150).map(|seed| (format!("damage {seed}"), corpus::mutations::with_seed(seed))));
    let place = Place::new();
    let mut names = Vec::new();
    for (name, bytes) in archives {
        // Only what is accepted here is given to others: the rest may be dangerous to them.
        let at = names.len().to_string();
        Disk::default().replace(&place.path(&format!("{at}.x")), &bytes, 0o600).unwrap();
        if bytes.len() < 10 << 20 && place.stage(&format!("{at}.x"), &at).is_ok() {
            names.push(name);
        } else if place.path(&at).exists() {
            Disk::default().remove_tree(&place.path(&at)).unwrap();
        }
    }
    let count = names.len();
    place.run(&format!(
        "for at in $(seq 0 {}); do
            mkdir $at.tar $at.bsd $at.python; zstd -qdcf $at.x > $at.y 2>/dev/null || cp $at.x $at.y
            tar -C $at.tar -xpf $at.x || touch $at.failed; bsdtar -C $at.bsd -xpf $at.x || touch $at.failed
        done
        python3 -c '{PYTHON}' {count}",
        count - 1
    ));
    let mut differ = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let view = |reader: &str| view(&place.path(&format!("{at}{reader}")));
        let tar = view(".tar");
        if place.path(&format!("{at}.failed")).exists() || tar != view(".bsd") || tar != view(".python") {
            differ.push(name);
        } else {
            assert_eq!(view(""), tar, "{name}");
        }
    }
    eprintln!("accepted here: {count}; of these others do not agree about {differ:?}");
    assert!(count - differ.len() > 100, "{count} archives, {} differ", differ.len());
}

/// Python's reader, over all archives; it does not know zstd.
const PYTHON: &str = "import sys, tarfile
for at in range(int(sys.argv[1])):
    try:
        with tarfile.open(str(at) + \".y\") as archive:
            archive.extractall(str(at) + \".python\", filter=\"fully_trusted\")
    except Exception:
        open(str(at) + \".failed\", \"w\").close()
";

/// What readers can agree about: no modes and times of directories, no fractions of seconds.
fn view(root: &Path) -> Vec<String> {
    let view = |entry: &Entry| {
        let (kind, mode, seconds) = (&entry.kind, entry.mode, entry.mtime.0);
        let same_as = entry.same_as.as_deref().map(escaped);
        match kind {
            Kind::Directory => format!("{} directory", escaped(&entry.path)),
            Kind::Link { target } => format!("{} link {}", escaped(&entry.path), escaped(target)),
            Kind::File { .. } => format!("{} {kind:?} {mode:o} {seconds} {same_as:?}", escaped(&entry.path)),
        }
    };
    entries(root).values().map(view).collect()
}

#[test]
fn debian_packages_give_what_dpkg_makes_of_them() {
    let test = "debian_packages_give_what_dpkg_makes_of_them";
    if !(has("apt-get", test) && has("dpkg-deb", test)) {
        return;
    }
    let place = Place::new();
    if !place.try_run("timeout 120 apt-get download busybox-static python3-minimal") {
        eprintln!("SKIPPED {test}: `apt-get download` did not work (no network, or no package lists)");
        return;
    }
    for package in ["busybox-static", "python3-minimal"] {
        place.run(&format!("dpkg-deb --fsys-tarfile {package}_*.deb > {package}.tar; mkdir {package}.t; dpkg-deb -x {package}_*.deb {package}.t"));
        place.run(&format!(
            "zstd -q {package}.tar -o {package}.tar.zst || cp {package}.tar {package}.tar.zst"
        ));
        for archive in [format!("{package}.tar"), format!("{package}.tar.zst")] {
            let built = place.stage(&archive, &format!("{archive}.d")).unwrap();
            assert!(built.files > 3, "{archive}: {built:?}");
            let ours = place.path(&format!("{archive}.d"));
            // dpkg's tar makes some links last, and so changes the times of their directories.
            let links = entries(&ours).into_values().filter(|entry| matches!(entry.kind, Kind::Link { .. }));
            let changed: BTreeSet<Vec<u8>> = links.filter_map(|link| parent(&link.path)).collect();
            assert_same(&ours, &place.path(&format!("{package}.t")), &archive, |entry| {
                if changed.contains(&entry.path) {
                    entry.mtime = (0, 0);
                }
            });
        }
    }
}

fn parent(path: &[u8]) -> Option<Vec<u8>> {
    path.iter().rposition(|byte| *byte == b'/').map(|slash| path[..slash].to_vec())
}

#[test]
fn an_npm_tree_of_more_than_ten_thousand_files_is_staged() {
    let test = "an_npm_tree_of_more_than_ten_thousand_files_is_staged";
    if !has("npm", test) {
        return;
    }
    // Downloaded once for all runs of the tests.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm-tree");
    if !kept.join("done").exists() {
        let command = "rm -rf \"$0\"; mkdir -p \"$0\"; cd \"$0\"; echo '{}' > package.json
            timeout 240 npm install --ignore-scripts --no-audit --no-fund --no-update-notifier \
                date-fns@2.30.0 core-js@3.36.0 lodash@4.17.21 rxjs@7.8.1 es-abstract@1.22.5 >&2; touch done";
        let status = Command::new("sh")
            .args(["-ec", command])
            .arg(&kept)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED {test}: `npm install` did not work (no network?)");
            return;
        }
    }
    let place = Place::new();
    place.run(&format!("ln -s '{}' in; tar -C in --format=pax -czf x.tar.gz .", kept.display()));
    let built = place.stage("x.tar.gz", "out").unwrap();
    assert!(built.files > 10_000, "{built:?}");
    assert_same(&place.path("out"), &kept, "npm tree", |_| {});
}
