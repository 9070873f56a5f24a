//! A node for tests: a root in a temporary directory, releases packed by the real binary, and the real binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

/// How a release behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    Sick,
}

/// A node with an application that is nothing but files: its check looks for one in the active tree.
pub struct TestNode {
    place: TempDir,
    /// The root, if it is not in `place`.
    elsewhere: Option<PathBuf>,
}

impl TestNode {
    /// A node without any release, and releases `1`, `2` and so on beside it.
    pub fn new(releases: &[Health]) -> Self {
        Self::new_in(&std::env::temp_dir(), releases)
    }

    /// The same with all of it in a directory there.
    pub fn new_in(directory: &Path, releases: &[Health]) -> Self {
        let node = Self { place: tempfile::tempdir_in(directory).unwrap(), elsewhere: None };
        fs::create_dir(node.root()).unwrap();
        let config = format!(
            "root = '{}'\n[health]\nmin_healthy = '0s'\ninterval = '20ms'\nfail_threshold = 2\ndeadline = '20s'\n\
             [[health.check]]\nname = 'well'\nexec = {{ command = ['/bin/sh', '-c', 'test -e well'] }}\n\
             [[data]]\npath = '{}'\non_rollback = 'restore'\n",
            node.root().display(),
            node.data().display(),
        );
        fs::write(node.config(), config).unwrap();
        fs::create_dir(node.data()).unwrap();
        fs::write(node.data().join("records"), "old").unwrap();
        for (number, health) in (1..).zip(releases) {
            node.pack(number, *health);
        }
        node
    }

    /// Release `number` anew, with a hook of its own for this moment.
    pub fn pack_with_hook(&self, number: u32, moment: &str, script: &str) {
        let hooks = self.path(&format!("tree-{number}/.cutover/hooks"));
        fs::create_dir_all(&hooks).unwrap();
        fs::write(hooks.join(moment), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(hooks.join(moment), fs::Permissions::from_mode(0o755)).unwrap();
        for ending in ["", ".manifest"] {
            drop(fs::remove_file(self.path(&format!("app-{number}.tar.zst{ending}"))));
        }
        self.pack(number, Health::Good);
    }

    /// What `status --json` says.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.run(&["status", "--json"]).stdout).unwrap()
    }

    /// What the node remembers.
    pub fn state(&self) -> serde_json::Value {
        let text = fs::read(self.root().join(".cutover/state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["body"].clone()
    }

    /// Waits until this holds.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begin = std::time::Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < std::time::Duration::from_secs(60), "never: {what}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Waits until the journal says this.
    pub fn wait_for_journal(&self, what: &str) {
        let journal = self.root().join(".cutover/journal.json");
        self.wait_until(what, |_| fs::read_to_string(&journal).unwrap_or_default().contains(what));
    }

    /// The same with a source of signed channels, the directory `source`.
    pub fn with_channel(self) -> Self {
        let url = format!("file://{}", self.path("source").display());
        self.with_source(&url)
    }

    /// The same with such a source at this address.
    pub fn with_source(self, url: &str) -> Self {
        let keys = self.path("keys");
        fs::create_dir(&keys).unwrap();
        assert_eq!(self.code(&["keygen", self.path("team").to_str().unwrap()]), 0);
        fs::copy(self.path("team.pub"), keys.join("team.pub")).unwrap();
        let config = fs::read_to_string(self.config()).unwrap();
        let source = format!("[source]\nurl = '{url}'\nkeys = ['{}']\n", keys.display());
        fs::write(self.config(), format!("{config}{source}")).unwrap();
        self
    }

    /// Has the channel in `source` name a release, with this serial.
    pub fn publish(&self, number: u32, serial: u64) {
        let source = self.path("source");
        fs::create_dir_all(&source).unwrap();
        for name in [format!("app-{number}.tar.zst"), format!("app-{number}.manifest")] {
            fs::copy(self.path(&name), source.join(&name)).unwrap();
        }
        let (version, serial) = (number.to_string(), serial.to_string());
        let words = ["publish", source.to_str().unwrap(), &version, "--serial", &serial, "--key"];
        assert_eq!(self.code(&[&words[..], &[self.path("team").to_str().unwrap()]].concat()), 0);
    }

    /// Has the node follow an unsigned channel, which offers this release.
    pub fn offer(&self, number: u32) {
        let source = self.path("source");
        if fs::create_dir(&source).is_ok() {
            let config = fs::read_to_string(self.config()).unwrap();
            let more = format!("[source]\nurl = '{}'\nallow_unsigned = true\n", source.display());
            fs::write(self.config(), config + &more).unwrap();
        }
        for name in [format!("app-{number}.tar.zst"), format!("app-{number}.manifest")] {
            fs::copy(self.path(&name), source.join(&name)).unwrap();
        }
        assert_eq!(self.code(&["publish", source.to_str().unwrap(), &number.to_string()]), 0);
    }

    /// Has this setting be that one, or adds a table.
    pub fn set(&self, from: &str, to: &str) {
        let config = fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{config}");
        fs::write(self.config(), config.replace(from, to)).unwrap();
    }

    /// Adds to the settings.
    pub fn add(&self, more: &str) {
        let config = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), config + more).unwrap();
    }

    /// A longer trial.
    pub fn with_trial(self, seconds: u32) -> Self {
        let config = fs::read_to_string(self.config()).unwrap();
        fs::write(
            self.config(),
            config.replace("min_healthy = '0s'", &format!("min_healthy = '{seconds}s'")),
        )
        .unwrap();
        self
    }

    fn pack(&self, number: u32, health: Health) {
        let tree = self.path(&format!("tree-{number}"));
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("VERSION"), number.to_string()).unwrap();
        fs::write(tree.join("bin/app"), "the same in all").unwrap();
        if health == Health::Good {
            fs::write(tree.join("well"), "").unwrap();
        }
        self.repack(number);
    }

    /// Packs the tree of a release as it is now.
    pub fn repack(&self, number: u32) {
        let tree = self.path(&format!("tree-{number}"));
        let archive = self.archive(number);
        let words = ["pack", tree.to_str().unwrap(), "--product", "app", "--version"];
        let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(words)
            .args([&number.to_string(), "-o", archive.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A shell's wait until this file of the node's directory is there, or the directory is not: a test that ends early leaves
    /// nothing that runs.
    pub fn shell_wait(&self, name: &str) -> String {
        let file = self.path(name);
        let directory = file.parent().unwrap();
        format!("while test -d {} && ! test -e {}; do sleep 0.05; done", directory.display(), file.display())
    }

    pub fn root(&self) -> PathBuf {
        self.elsewhere.clone().unwrap_or_else(|| self.path("root"))
    }

    pub fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.path("app.toml")
    }

    pub fn archive(&self, number: u32) -> PathBuf {
        self.path(&format!("app-{number}.tar.zst"))
    }

    /// The real binary with this node's configuration.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("--config").arg(self.config()).args(words);
        command.env_remove("CUTOVER_STOP_BEFORE");
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs it and says the exit code; output is shown when the test fails.
    pub fn code(&self, words: &[&str]) -> i32 {
        let output = self.run(words);
        println!("{words:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
        output.status.code().unwrap_or(-1)
    }

    pub fn update(&self, number: u32) -> i32 {
        self.code(&["update", self.archive(number).to_str().unwrap(), "--allow-unsigned"])
    }

    /// The version that the pointer names, whose tree is complete.
    pub fn active(&self) -> Option<String> {
        let target = fs::read_link(self.root().join("current")).ok()?;
        let version = target.strip_prefix("releases").unwrap().to_str().unwrap().to_owned();
        let tree = self.root().join(&target);
        assert_eq!(
            fs::read_to_string(tree.join("VERSION")).unwrap(),
            version,
            "the active tree is not complete"
        );
        assert_eq!(fs::read_to_string(tree.join("bin/app")).unwrap(), "the same in all");
        Some(version)
    }

    pub fn has_journal(&self) -> bool {
        self.root().join(".cutover/journal.json").exists()
    }

    /// Names of what is in a directory under the root.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root().join(directory)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The same node with its root elsewhere, for example on a file system of its own.
    pub fn with_root(mut self, root: &Path) -> Self {
        let config = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), config.replace(self.root().to_str().unwrap(), root.to_str().unwrap()))
            .unwrap();
        assert!(
            Command::new("cp").arg("-a").arg(self.root().join(".")).arg(root).status().unwrap().success()
        );
        self.elsewhere = Some(root.to_owned());
        self
    }

    /// The same node, which stages by this method.
    pub fn with_method(self, method: &str) -> Self {
        let config = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), format!("{config}[store]\nmethod = '{method}'\n")).unwrap();
        self
    }

    /// A copy of this node as it is now, to be broken.
    pub fn copy(&self) -> Self {
        let place = tempfile::tempdir().unwrap();
        let words = [self.place.path().join("."), place.path().to_owned()];
        assert!(Command::new("cp").arg("-a").args(words).status().unwrap().success());
        let config = fs::read_to_string(self.config()).unwrap();
        let here = self.place.path().to_str().unwrap();
        fs::write(place.path().join("app.toml"), config.replace(here, place.path().to_str().unwrap()))
            .unwrap();
        // What is remembered names the data by their path: the copy must not go back to those of the first.
        let private = place.path().join("root/.cutover");
        let copies = ["snapshots", "aside"].map(|name| private.join(name));
        let lists = copies.iter().filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
        let lists = lists.map(|entry| entry.path()).filter(|path| path.extension() == Some("json".as_ref()));
        for path in lists.chain([private.join("state.json")]) {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let text = text.trim_end().replace(here, place.path().to_str().unwrap());
            let Some((_, body)) = text.split_once("\"body\":") else {
                fs::write(&path, text).unwrap();
                continue;
            };
            let body = body.strip_suffix('}').unwrap();
            let sum = cutover::types::Digest::of(body.as_bytes());
            fs::write(&path, format!("{{\"format\":1,\"sum\":\"{sum}\",\"body\":{body}}}")).unwrap();
        }
        Self { place, elsewhere: None }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether this test may go on; else says that it does not.
pub fn needs_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED {test}: needs root");
    }
    is_root
}

/// Runs all cases, several at once: most of the time of a command is waiting for the disk. All run, also after one failed.
pub fn all_at_once<Case: Sync>(cases: &[Case], run: impl Fn(&Case) + Sync) {
    const WORKERS: usize = 6;
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // What failed was printed.
                    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case)));
                    failed.fetch_add(usize::from(played.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed == 0, "{failed} of {} cases fail: see above", cases.len());
}
