//! Commands of the admin and of the release that run at fixed points of an update.
//!
//! ```text
//! /etc/cutover/<app>.hooks/<phase>.d/NN-name    the admin's, in order of names; a link to /dev/null masks one
//! <tree>/.cutover/hooks/<phase>                 the release's, after these
//! ```
//! A hook ends with 0 (go on), 75 (not now, as long as nothing was changed) or anything else (it failed). It may run
//! twice: an interrupted update does its work again. What it writes goes to the log, its last line into the message.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Moment;
use crate::sys::process::{self, Command, End};
use crate::sys::{orphans, owned};
use crate::types::{Span, chain, escaped, escaped_path};

/// How many hooks one phase may have.
const HOOKS_MAX: usize = 100;
/// Where the admin's hooks are, below a directory for each application.
const ADMINS: &str = "/etc/cutover";
/// Where a release keeps its hooks, in its tree.
const RELEASE_HOOKS: &str = ".cutover/hooks";

/// The `[hooks]` table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long one hook may take.
    pub timeout: Span,
    /// Whether hooks that a verified release brings along are run.
    pub release: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timeout: Span::seconds(60), release: true }
    }
}

/// A hook stopped the update, or cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It asked to come back later.
    #[error("hook `{}` says not now{}", escaped_path(hook), after_colon(said))]
    NotNow {
        hook: PathBuf,
        /// The last line that it wrote.
        said: String,
    },
    /// It failed, was killed, or did not end in time.
    #[error("hook `{}` failed: {how}", escaped_path(hook))]
    Failed {
        hook: PathBuf,
        /// How it ended, and the last line that it wrote.
        how: String,
    },
    /// Somebody else than root (or we) could change it.
    #[error("cannot run hook `{}`", escaped_path(hook))]
    Untrusted {
        hook: PathBuf,
        /// What is wrong with it, or with a directory above it.
        source: owned::Error,
    },
    /// It is a link to what is not there, or cannot be reached.
    #[error("cannot find what hook `{}` leads to", escaped_path(hook))]
    Lost { hook: PathBuf, source: io::Error },
    /// The directory of hooks cannot be read.
    #[error("cannot read hooks in `{}`", escaped_path(path))]
    Unreadable { path: PathBuf, source: io::Error },
    /// More than anybody means to have.
    #[error("cannot run hooks of `{}`: there are more than {HOOKS_MAX}", escaped_path(.0))]
    TooMany(PathBuf),
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// The hooks of an application.
#[derive(Clone, Debug)]
pub struct Hooks {
    /// The `[hooks]` table.
    pub settings: Settings,
    /// The admin's directory: `/etc/cutover/<app>.hooks`.
    pub directory: PathBuf,
}

impl Hooks {
    /// The hooks of the application `app` on this node.
    pub fn of(app: &str, settings: &Settings) -> Self {
        Self { settings: settings.clone(), directory: Path::new(ADMINS).join(format!("{app}.hooks")) }
    }

    /// Runs all hooks of a moment, the first that does not end with 0 ends it. `tree` is the release whose hooks run too:
    /// only one that was verified. `env` has `CUTOVER_*`. A hook is ended as soon as nobody wants it any more.
    pub fn run(
        &self,
        moment: Moment,
        tree: Option<&Path>,
        env: &[(String, OsString)],
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        for hook in admins(&self.directory.join(format!("{}.d", moment.name())))? {
            self.run_one(&hook, moment, tree, env, is_unwanted)?;
        }
        let Some(tree) = tree.filter(|_| self.settings.release) else { return Ok(()) };
        let hook = tree.join(RELEASE_HOOKS).join(moment.name());
        // A link could lead out of what was verified.
        if fs::symlink_metadata(&hook).is_ok_and(|found| found.is_file()) {
            self.run_one(&hook, moment, Some(tree), env, is_unwanted)?;
        }
        Ok(())
    }

    /// What is in the admin's directory and cannot run as it stands, in words.
    pub fn doubts(&self) -> Vec<String> {
        if self.directory.exists() && !self.directory.is_dir() {
            return vec![format!(
                "`{}` is not a directory: updates fail on it",
                escaped_path(&self.directory)
            )];
        }
        let unknown = self.unknown();
        let unknown = unknown.iter().map(|path| {
            format!("`{}` is never run: no moment of an update has this name", escaped_path(path))
        });
        let mut doubts: Vec<_> = unknown.collect();
        for moment in Moment::ALL {
            match admins(&self.directory.join(format!("{}.d", moment.name()))) {
                Ok(hooks) => doubts.extend(hooks.iter().filter_map(|hook| why_not_run(hook))),
                Err(error) => doubts.push(chain(&error)),
            }
        }
        doubts
    }

    /// The names in the admin's directory that are those of no moment: what is there is never run.
    fn unknown(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let is_known = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            is_no_hook(name.as_bytes())
                || Moment::ALL.iter().any(|moment| name == format!("{}.d", moment.name()))
        };
        let mut unknown: Vec<_> = entries.map(|entry| entry.path()).filter(|path| !is_known(path)).collect();
        unknown.sort();
        unknown
    }

    /// How many hooks a moment has: the admin's, and one of these releases, if any of them brings one. Without releases
    /// one is counted for those that may come.
    pub fn count(&self, moment: Moment, trees: &[PathBuf]) -> u32 {
        let admins = admins(&self.directory.join(format!("{}.d", moment.name()))).unwrap_or_default();
        let brings_one = |tree: &PathBuf| tree.join(RELEASE_HOOKS).join(moment.name()).exists();
        let is_there = self.settings.release && (trees.is_empty() || trees.iter().any(brings_one));
        u32::try_from(admins.len()).unwrap_or(u32::MAX).saturating_add(u32::from(is_there))
    }

    fn run_one(
        &self,
        hook: &Path,
        moment: Moment,
        tree: Option<&Path>,
        env: &[(String, OsString)],
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let target = hook.canonicalize().map_err(|source| Error::Lost { hook: hook.to_owned(), source })?;
        // The file that a link leads to, with all directories above it, may be changed by root and us only.
        owned::open(&target).map_err(|source| Error::Untrusted { hook: hook.to_owned(), source })?;
        let mut command = Command::new([hook]).timeout(self.settings.timeout.0);
        command.env = env.to_vec();
        command.env.push(("CUTOVER_API".into(), "1".into()));
        command.directory = tree.filter(|tree| tree.is_dir()).map(Path::to_owned);
        let outcome = process::run_unless(&command, is_unwanted);
        for line in outcome.output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            tracing::info!(hook = %escaped_path(hook), "{}", escaped(line));
        }
        match outcome.end {
            End::Exited(0) => Ok(()),
            End::Exited(process::NOT_NOW) if moment.is_before_the_switch() => {
                Err(Error::NotNow { hook: hook.to_owned(), said: outcome.last_line() })
            }
            End::Exited(_) | End::Signalled(_) | End::TimedOut(_) | End::Stopped | End::CannotStart(_) => {
                Err(Error::Failed { hook: hook.to_owned(), how: outcome.summary() })
            }
        }
    }
}

/// Ends hooks of an update whose process has died: they would work beside those that run next. Says how many there were.
pub fn end_orphans(transaction: &str) -> usize {
    let is_of_release = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with(RELEASE_HOOKS));
    // `<app>.hooks/<moment>.d/NN-name`
    let is_of_admin = |path: &Path| {
        let of_application = path.ancestors().nth(2);
        of_application.is_some_and(|directory| {
            directory.parent() == Some(Path::new(ADMINS))
                && directory.extension().is_some_and(|end| end == "hooks")
        })
    };
    // Of a script the interpreter's words name it.
    orphans::kill_orphans("CUTOVER_TRANSACTION", transaction, |words| {
        let mut paths = words.iter().map(Path::new);
        paths.any(|path| path.is_absolute() && (is_of_release(path) || is_of_admin(path)))
    })
}

/// The admin's hooks in a directory, in order of names. Hidden files, what editors and packages leave behind, and masked
/// ones are left out.
fn admins(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut hooks = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().as_bytes();
        let is_masked = fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
        if !is_no_hook(name) && !is_masked {
            hooks.push(path);
        }
    }
    if hooks.len() > HOOKS_MAX {
        return Err(Error::TooMany(directory.to_owned()));
    }
    hooks.sort();
    Ok(hooks)
}

/// Why a hook would fail before it has begun.
fn why_not_run(hook: &Path) -> Option<String> {
    let shown = escaped_path(hook);
    match hook.metadata() {
        Err(error) => Some(format!("hook `{shown}` cannot be run: {error}")),
        Ok(found) if !found.is_file() => Some(format!("hook `{shown}` cannot be run: it is not a file")),
        Ok(found) if found.mode() & 0o111 == 0 => {
            Some(format!("hook `{shown}` cannot be run: `chmod +x` lets it be executed"))
        }
        Ok(_) => None,
    }
}

/// Whether a file of this name is none that an admin means to run: a hidden one, what editors and packages leave behind,
/// a text for people.
fn is_no_hook(name: &[u8]) -> bool {
    const ENDINGS: [&str; 8] = ["~", ".bak", ".old", ".orig", ".rej", ".rpmnew", ".rpmorig", ".rpmsave"];
    const PARTS: [&str; 3] = [".dpkg-", ".ucf-", ".pacnew"];
    let name = String::from_utf8_lossy(name);
    name.starts_with('.')
        || name.starts_with("README")
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
        || PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::disk::Disk;

    struct Lab {
        directory: tempfile::TempDir,
        hooks: Hooks,
    }

    impl Lab {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let settings = Settings { timeout: Span::seconds(20), release: true };
            let hooks = Hooks { settings, directory: directory.path().join("shop.hooks") };
            Self { directory, hooks }
        }

        fn write(&self, path: &str, script: &str) {
            let path = self.directory.path().join(path);
            let disk = Disk::default();
            let mut parents: Vec<_> = path.ancestors().skip(1).collect();
            parents.reverse();
            for parent in parents {
                disk.make_directory(parent, 0o755).unwrap();
            }
            let here = self.directory.path().display();
            disk.replace(&path, format!("#!/bin/sh\n{script} >>{here}/out\n").as_bytes(), 0o755).unwrap();
        }

        fn run(&self) -> Result<String, Error> {
            let tree = self.directory.path().join("tree");
            let env = [("CUTOVER_APP".to_owned(), OsString::from("shop"))];
            self.hooks.run(Moment::PreSwitch, Some(&tree), &env, &|| false)?;
            Ok(fs::read_to_string(self.directory.path().join("out")).unwrap_or_default())
        }
    }

    #[test]
    fn hooks_run_in_order_the_releases_last() {
        let lab = Lab::new();
        assert_eq!(lab.run().unwrap(), "");
        lab.write("tree/.cutover/hooks/pre-switch", "echo release $PWD");
        lab.write("shop.hooks/pre-switch.d/20-b", "echo b");
        lab.write("shop.hooks/pre-switch.d/10-a", "echo a $CUTOVER_APP");
        lab.write("shop.hooks/pre-switch.d/.hidden", "echo hidden");
        for name in ["30-c.dpkg-old", "10-a.bak", "10-a.rpmnew", "10-a~", "README"] {
            lab.write(&format!("shop.hooks/pre-switch.d/{name}"), "echo left over");
        }
        lab.write("shop.hooks/pre_switch.d/10-a", "echo never");
        assert_eq!(lab.hooks.unknown(), [lab.hooks.directory.join("pre_switch.d")]);
        let tree = lab.directory.path().join("tree");
        let wanted = format!("a shop\nb\nrelease {}\n", tree.display());
        assert_eq!(lab.run().unwrap(), wanted);
    }

    #[test]
    fn a_link_to_nowhere_is_told_as_one() {
        let lab = Lab::new();
        lab.write("shop.hooks/pre-switch.d/10-a", "echo a");
        let link = lab.hooks.directory.join("pre-switch.d/20-b");
        nix::unistd::symlinkat("/nowhere", nix::fcntl::AT_FDCWD, &link).unwrap();
        assert!(matches!(lab.run(), Err(Error::Lost { hook, .. }) if hook.ends_with("20-b")));
    }

    #[test]
    fn not_now_and_failure_are_told_apart_and_end_the_phase() {
        let lab = Lab::new();
        lab.write("shop.hooks/pre-switch.d/10-a", "echo wait for it >&2; exit 75");
        lab.write("shop.hooks/pre-switch.d/20-b", "echo never");
        let error = lab.run().unwrap_err();
        assert!(error.to_string().ends_with("says not now: wait for it"), "{error}");
        lab.write("shop.hooks/pre-switch.d/10-a", "echo broken >&2; exit 1");
        let error = lab.run().unwrap_err();
        assert!(error.to_string().ends_with("failed: exit status 1: broken"), "{error}");
        let written = fs::read_to_string(lab.directory.path().join("out")).unwrap();
        assert_eq!(written, "", "a hook ran after one that failed");
    }

    #[test]
    fn only_before_the_switch_a_hook_can_say_not_now() {
        for moment in Moment::ALL {
            let lab = Lab::new();
            lab.write(&format!("shop.hooks/{}.d/10-a", moment.name()), "exit 75");
            let error = lab.hooks.run(moment, None, &[], &|| false).unwrap_err();
            let is_before = matches!(moment, Moment::PreStage | Moment::PostStage | Moment::PreSwitch);
            assert_eq!(matches!(error, Error::NotNow { .. }), is_before, "{moment:?}: {error}");
            assert_eq!(matches!(error, Error::Failed { .. }), !is_before, "{moment:?}: {error}");
        }
    }

    #[test]
    fn a_hook_that_others_can_change_is_not_run() {
        let lab = Lab::new();
        lab.write("shop.hooks/pre-switch.d/10-a", "echo a");
        let parent = lab.hooks.directory.join("pre-switch.d");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
        let error = lab.run().unwrap_err();
        assert!(matches!(error, Error::Untrusted { source: owned::Error::Writable { .. }, .. }), "{error}");
    }

    #[test]
    fn hooks_that_cannot_run_are_named() {
        let lab = Lab::new();
        lab.write("shop.hooks/pre-switch.d/10-good", "echo a");
        assert_eq!(lab.hooks.doubts(), [""; 0]);
        lab.write("shop.hooks/pre-switch.d/20-plain", "echo a");
        let at = |name: &str| lab.hooks.directory.join(name);
        fs::set_permissions(at("pre-switch.d/20-plain"), fs::Permissions::from_mode(0o644)).unwrap();
        Disk::default().point(&at("pre-switch.d/30-link"), Path::new("/nowhere"), &at("new")).unwrap();
        Disk::default().make_directory(&at("pre-switch.d/40-directory"), 0o755).unwrap();
        lab.write("shop.hooks/failed.d", "echo a");
        lab.write("shop.hooks/post_switch.d/10-a", "echo a");
        let doubts = lab.hooks.doubts();
        for name in ["20-plain", "30-link", "40-directory", "failed.d", "post_switch.d"] {
            assert!(doubts.iter().any(|doubt| doubt.contains(name)), "{name}: {doubts:?}");
        }
        assert_eq!(doubts.len(), 5, "{doubts:?}");
    }

    #[test]
    fn a_link_of_the_release_is_no_hook() {
        let lab = Lab::new();
        lab.write("other", "echo out of the tree");
        lab.write("tree/.cutover/hooks/failed", "true");
        let link = lab.directory.path().join("tree/.cutover/hooks/pre-switch");
        Disk::default().point(&link, Path::new("../../../other"), &link.with_extension("new")).unwrap();
        assert_eq!(lab.run().unwrap(), "");
    }
}
