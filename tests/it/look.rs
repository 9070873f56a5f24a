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

/// The root may be a typo.
#[test]
fn a_check_of_the_configuration_leaves_nothing_in_a_root_that_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["root", "data"] {
        fs::create_dir(path(name)).unwrap();
    }
    for (data, code) in [(path("data"), 0), (path("root"), 2), ("/no/such/parent/data".into(), 2)] {
        let settings = format!("root = {:?}\n[[data]]\npath = {data:?}\n", path("root"));
        fs::write(path("shop.toml"), settings).unwrap();
        for words in [&["config", "check"][..], &["config", "show"], &["status"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
            let output = command.arg("--config").arg(path("shop.toml")).args(words).output().unwrap();
            let is_checked = words == ["config", "check"];
            assert!(!is_checked || output.status.code() == Some(code), "{data:?}: {output:?}");
            let left: Vec<_> =
                fs::read_dir(path("root")).unwrap().chain(fs::read_dir(path("data")).unwrap()).collect();
            assert!(left.is_empty(), "{words:?}, {data:?}: {left:?}");
        }
    }
}

#[test]
fn a_directory_of_the_system_is_no_root() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/usr", &link).unwrap();
    for root in ["/", "/etc", "/usr/", "/etc/../usr/lib", link.to_str().unwrap()] {
        for words in [&["config", "check"][..], &["list"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
            let output = command.args(["--root", root]).args(words).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !output.status.success() && said.contains("belongs to the system"),
                "{root} {words:?}: {said}"
            );
        }
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

/// A bind mount that is gone with this.
struct Bound(std::path::PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A look says that this node could tell its fleet nothing, and finds that without writing: where the mount is read-only, and
/// where storage takes the node for somebody else.
#[test]
fn a_look_says_where_the_fleets_directory_can_only_be_read() {
    const NAME: &str = "a_look_says_where_the_fleets_directory_can_only_be_read";
    if !crate::node::needs_root(NAME) {
        return;
    }
    let fleet = crate::fleet::Fleet::new(1, "synchronous", "");
    let proposed = fleet.run(0, &["fleet", "propose", "2"]);
    assert!(proposed.status.success(), "{proposed:?}");
    let sh = |script: &str| {
        let done = Command::new("sh").args(["-ec", script]).current_dir(fleet.path(".")).output().unwrap();
        assert!(done.status.success(), "{script}: {done:?}");
    };
    let program = fleet.path("cutover");
    fs::hard_link(env!("CARGO_BIN_EXE_cutover"), &program)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_cutover"), &program).map(drop))
        .unwrap();
    let shown = |as_user: &[&str], words: &[&str]| {
        let (first, rest) = as_user.split_first().unwrap_or((&"env", &[]));
        let mut command = Command::new(first);
        command.args(rest).arg(&program).arg("--config").arg(fleet.config(0)).args(words);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{as_user:?} {words:?}: {done:?}");
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    let told = |as_user: &[&str], wanted: Option<&str>| {
        let before = everything(&fleet.share());
        // A busy machine may be too slow for a glance at the directory.
        let is_told = |status: &serde_json::Value| {
            let blocked = status["blocked"].as_array().unwrap();
            let storage = blocked.iter().find(|blocked| blocked["policy"] == "storage");
            let says = |why| storage.is_some_and(|storage| storage["text"].to_string().contains(why));
            wanted.is_none_or(says) && storage.is_some() == wanted.is_some()
        };
        let mut looks = (0..20).map(|_| shown(as_user, &["status", "--json"]));
        let status = looks.find(is_told).unwrap_or_else(|| panic!("never: {wanted:?}"));
        let next = status["next"].to_string();
        assert_eq!(next.contains("cutover fleet check"), wanted.is_some(), "{status}");
        let is_told = |status: &serde_json::Value| {
            let (note, remarks) = (status["members"][0]["note"].to_string(), status["remarks"].to_string());
            let is_noted = note.contains("read-only") && remarks.contains("and not write to it");
            wanted.map_or(!is_noted, |why| is_noted && remarks.contains(why))
        };
        let mut looks = (0..20).map(|_| shown(as_user, &["fleet", "status", "--json"]));
        assert!(looks.any(|status| is_told(&status)), "never: {wanted:?}");
        assert_eq!(before, everything(&fleet.share()), "a look touched something");
    };
    told(&[], None);
    sh("mount --bind share share");
    let bound = Bound(fleet.share());
    sh("mount -o remount,bind,ro share");
    told(&[], Some("EROFS"));
    drop(bound);
    told(&[], None);
    // As where root is squashed: what the machine's own user may do, the directory's does not let it.
    sh("chmod 755 . ; chmod -R a+rX share; chown -R 65534:65534 n0 n0.toml mounts");
    told(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], Some("EACCES"));
}
