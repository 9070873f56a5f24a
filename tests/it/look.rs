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
    for (words, wanted) in [
        (&["status"][..], 0),
        (&["status", "--json"], 0),
        (&["list", "--available"], 0),
        (&["check"], 0),
        (&["check", "--json"], 0),
        (&["update", "--dry-run"], 0),
        (&["update", "--dry-run", "source/shop-1.2.0.tar.zst"], 0),
        (&["rollback", "--check"], 0),
        (&["prune", "--dry-run"], 0),
        (&["diff", "1.0.0", "1.1.0"], 0),
        (&["verify"], 0),
        (&["health"], 0),
        (&["log"], 0),
        (&["config", "show"], 0),
        (&["config", "check"], 0),
        (&["trust", "show"], 0),
        (&["report", "--html", "-"], 0),
    ] {
        let (code, error) = run(words);
        assert_eq!(code, wanted, "{words:?}: {error}");
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
