//! Releases as large as they may be in one way: packed, staged and verified, with little memory.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};

/// Runs a command, and says how much memory it had at most, in KiB.
const PEAK: &str = "import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))";

/// Packs a tree, stages the archive and verifies what came of it.
fn is_packed_and_staged(place: &Path) {
    let run = |words: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", PEAK, env!("CARGO_BIN_EXE_cutover")]).args(words).current_dir(place);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        said.lines().last().unwrap().parse::<u64>().unwrap() >> 10
    };
    fs::create_dir(place.join("root")).unwrap();
    let packed = run(&["pack", "tree", "--product", "shop", "--version", "1", "-o", "shop-1.tar.zst"]);
    let staged = run(&["--root", "root", "stage", "--allow-unsigned", "shop-1.tar.zst"]);
    let verified = run(&["--root", "root", "verify", "1"]);
    println!("peak MiB after pack, stage and verify: {packed} {staged} {verified}");
    assert!(staged <= 128, "{staged} MiB");
}

#[test]
#[ignore = "tens of thousands of entries: a minute; `make test-crashes`"]
fn seventy_thousand_directories_of_long_paths_by_any_method() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("tree")).unwrap();
    let mut parent: OwnedFd = open(&place.path().join("tree"), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    for step in 0..15 {
        let name = format!("{step:0>250}");
        mkdirat(&parent, name.as_str(), Mode::S_IRWXU).unwrap();
        parent = openat(&parent, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    for number in 0..70_000 {
        mkdirat(&parent, format!("{number:0>250}").as_str(), Mode::S_IRWXU).unwrap();
    }
    is_packed_and_staged(place.path());
}

#[test]
#[ignore = "17 GB of zeros are packed: minutes; `make test-crashes`"]
fn seventeen_thousand_large_files_by_any_method() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..17_000 {
        File::create(tree.join(number.to_string())).unwrap().set_len((1 << 20) + 1).unwrap();
    }
    is_packed_and_staged(place.path());
}
