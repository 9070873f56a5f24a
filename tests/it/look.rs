//! Commands that only look change no byte and no time stamp under the root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Every entry below a directory with what a change of it would change.
fn everything(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        found.push(format!(
            "{} {} {:o} {} {}.{:09} {}.{:09}",
            path.display(),
            data.ino(),
            data.mode(),
            data.size(),
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec()
        ));
        if data.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// Commands that only look.
const LOOKS: [&[&str]; 17] = [
    &["status"],
    &["status", "--json"],
    &["list", "--available"],
    &["check"],
    &["check", "--json"],
    &["update", "--dry-run"],
    &["update", "--dry-run", "source/shop-1.2.0.tar.zst"],
    &["rollback", "--check"],
    &["prune", "--dry-run"],
    &["diff", "1.0.0", "1.1.0"],
    &["verify"],
    &["health"],
    &["log"],
    &["config", "show"],
    &["config", "check"],
    &["trust", "show"],
    &["report", "--html", "-"],
];

#[test]
fn commands_that_look_touch_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["root", "data", "source"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("data").join("orders"), "tea").unwrap();
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .arg("--config")
            .arg(path("shop.toml"))
            .args(words)
            .current_dir(directory.path())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let settings = format!(
        "root = {root:?}\n[source]\nurl = {source:?}\nkeys = [{key:?}]\n[store]\nreserve = '1MiB'\n[[data]]\npath = {data:?}\n",
        root = path("root"),
        source = path("source"),
        key = path("team.pub"),
        data = path("data"),
    );
    fs::write(path("shop.toml"), settings).unwrap();
    let well = |words: &[&str]| {
        let (code, error) = run(words);
        assert_eq!(code, 0, "{words:?}: {error}");
    };
    well(&["keygen", "team"]);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        fs::create_dir_all(path("build")).unwrap();
        fs::write(path("build").join("VERSION"), version).unwrap();
        let archive = format!("source/shop-{version}.tar.zst");
        well(&["pack", "build", "--product", "shop", "--version", version, "-o", &archive]);
        well(&["publish", "source", version, "--key", "team"]);
        if version != "1.2.0" {
            well(&["update"]);
        }
    }
    let mut before = everything(&path("root"));
    let count = before.len();
    for words in LOOKS {
        let (code, error) = run(words);
        assert_eq!(code, 0, "{words:?}: {error}");
        let after = everything(&path("root"));
        // Whether going back will work is tried, with empty directories that come and go in these two places.
        let is_tried = words.ends_with(&["--check"]) || words == ["config", "check"];
        let tried = [path("root/.cutover/aside"), path("root/.cutover/snapshots")]
            .map(|path| format!("{} ", path.display()));
        let is_same = |entry: &String| {
            before.contains(entry) || is_tried && tried.iter().any(|place| entry.starts_with(place))
        };
        let changed: Vec<_> = after.iter().filter(|entry| !is_same(entry)).collect();
        before = if is_tried { after.clone() } else { before };
        assert!(changed.is_empty() && after.len() == count, "{words:?} touched {changed:#?}");
    }
}

#[test]
fn looking_at_a_fleet_touches_neither_node_nor_storage() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["root", "share", "build"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("build").join("VERSION"), "1").unwrap();
    let settings = format!(
        "root = {:?}\n[store]\nreserve = '1MiB'\n[fleet]\nmode = 'synchronous'\nname = 'shop'\nnode = 'n0'\n\
         directory = {:?}\nallow_unsigned = true\n",
        path("root"),
        path("share"),
    );
    fs::write(path("shop.toml"), settings).unwrap();
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(["--config", "shop.toml"])
            .args(words)
            .current_dir(directory.path())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for words in [
        &["pack", "build", "--product", "shop", "--version", "1", "-o", "shop-1.tar.zst"][..],
        &["update", "shop-1.tar.zst", "--allow-unsigned"],
        &["fleet", "init"],
        &["fleet", "join"],
        &["fleet", "members", "--all"],
        &["fleet", "propose", "1"],
    ] {
        let (code, error) = run(words);
        assert_eq!(code, 0, "{words:?}: {error}");
    }
    let before = (everything(&path("root")), everything(&path("share")));
    for words in [
        &["status"][..],
        &["status", "--json", "--all"],
        &["fleet", "status"],
        &["fleet", "status", "--why", "--json"],
        &["fleet", "members"],
        &["report", "--html", "-", "--fleet", "share"],
    ] {
        let (code, error) = run(words);
        assert_eq!(code, 0, "{words:?}: {error}");
        let after = (everything(&path("root")), everything(&path("share")));
        assert_eq!(before, after, "{words:?} touched something");
    }
}
