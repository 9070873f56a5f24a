//! Services that are started and stopped by commands: containers, other inits, a user's own account.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::settings::{Commands, Settings, Words};
use super::{Error, Services, Target, run_in};
use crate::sys::orphans;
use crate::sys::process::OUTPUT_BYTES_MAX;
use crate::types::escaped;

/// How many lines of the service's output are shown.
const LAST_WORDS: usize = 10;

#[derive(Clone, Debug)]
pub struct CommandServices {
    settings: Settings,
    commands: Commands,
    log: PathBuf,
}

impl CommandServices {
    /// Services of these commands. What they and the service write goes to `log`, which each start begins anew.
    pub fn new(settings: Settings, commands: Commands, log: PathBuf) -> Self {
        Self { settings, commands, log }
    }
}

impl Services for CommandServices {
    fn stops_first(&self, _: bool) -> bool {
        // There is no one command that restarts.
        true
    }

    fn drain(&self, target: &Target) -> Result<(), Error> {
        drain(&self.settings, target)
    }

    fn ensure_stopped(&self, target: &Target) -> Result<(), Error> {
        let words = &self.commands.stop;
        let outcome = run_in(target, words, self.settings.stop_timeout.0, None);
        if outcome.is_success() { Ok(()) } else { Err(failed("stop", words, &outcome.summary())) }
    }

    fn ensure_running(&self, target: &Target) -> Result<(), Error> {
        let words = &self.commands.start;
        let outcome = run_in(target, words, self.settings.start_timeout.0, Some(&self.log));
        if outcome.is_success() { Ok(()) } else { Err(failed("start", words, &outcome.summary())) }
    }

    fn forget_failures(&self, _: &Target) {}

    fn last_words(&self, _: &Target) -> Vec<String> {
        let bytes = crate::sys::disk::read_small(&self.log, 64 * OUTPUT_BYTES_MAX).ok().flatten();
        let bytes = bytes.unwrap_or_default();
        let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(LAST_WORDS)).map(|line| escaped(line)).collect()
    }
}

/// Runs the drain command, if there is one.
pub fn drain(settings: &Settings, target: &Target) -> Result<(), Error> {
    let Some(words) = &settings.drain else { return Ok(()) };
    let outcome = run_in(target, words, settings.drain_timeout.0, None);
    if outcome.is_success() { Ok(()) } else { Err(failed("drain", words, &outcome.summary())) }
}

/// Ends commands of an update whose process has died: what they start or stop late is not what runs then. Says how many
/// there were.
pub fn end_orphans(settings: &Settings, transaction: &str) -> usize {
    let commands = settings.command.iter().flat_map(|both| [&both.start, &both.stop]).chain(&settings.drain);
    let all: Vec<_> = commands.map(Words::argv).collect();
    orphans::kill_orphans("CUTOVER_TRANSACTION", transaction, |words| {
        all.iter().any(|argv| runs(words, argv))
    })
}

/// Whether a process of these words runs this command: its program is named in full, and a script stands behind its
/// interpreter.
fn runs(words: &[&OsStr], argv: &[String]) -> bool {
    let own = words.len().checked_sub(argv.len()).and_then(|others| words.get(others..)).unwrap_or_default();
    let (Some((program, rest)), Some((wanted, wanted_rest))) = (own.split_first(), argv.split_first()) else {
        return false;
    };
    Path::new(program).ends_with(wanted.trim_start_matches("./"))
        && rest.iter().zip(wanted_rest).all(|(word, wanted)| *word == OsStr::new(wanted))
}

fn failed(action: &'static str, words: &Words, answer: &str) -> Error {
    Error::Command { action, command: words.to_string(), answer: answer.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_by_their_words() {
        for (words, argv, is_so) in [
            (&["sh", "-c", "run it"][..], &["sh", "-c", "run it"][..], true),
            (&["sh", "-c", "run it again"], &["sh", "-c", "run it"], false),
            (&["/srv/shop/releases/2/bin/ctl", "start"], &["bin/ctl", "start"], true),
            (&["/bin/sh", "/srv/shop/releases/2/bin/ctl", "start"], &["./bin/ctl", "start"], true),
            (&["/srv/shop/releases/2/bin/ctl", "stop"], &["bin/ctl", "start"], false),
            (&["/srv/shop/releases/2/bin/server"], &["bin/ctl", "start"], false),
            (&[""], &["bin/ctl"], false),
        ] {
            let words: Vec<_> = words.iter().map(OsStr::new).collect();
            let argv: Vec<_> = argv.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(runs(&words, &argv), is_so, "{words:?} {argv:?}");
        }
    }

    #[test]
    fn commands_run_in_the_tree_and_may_leave_a_service_behind() {
        let tree = tempfile::tempdir().unwrap();
        let text = r#"
            command = { start = "sleep 60 & echo $! >pid; echo up; pwd -P", stop = "kill $(cat pid)" }
            drain = ["sh", "-c", "echo busy; exit 1"]
        "#;
        let settings: Settings = toml::from_str(text).unwrap();
        let log = tree.path().join("log");
        let services = CommandServices::new(settings.clone(), settings.command.clone().unwrap(), log.clone());
        let target = Target { tree: tree.path().to_owned(), ..Target::default() };
        services.ensure_running(&target).unwrap();
        let here = tree.path().canonicalize().unwrap();
        assert_eq!(services.last_words(&target), ["up".to_owned(), here.display().to_string()]);
        services.ensure_stopped(&target).unwrap();
        let error = services.drain(&target).unwrap_err().to_string();
        assert!(error.ends_with("exit status 1: busy"), "{error}");
        crate::sys::disk::Disk::default().remove_file(&tree.path().join("pid")).unwrap();
        assert!(services.ensure_stopped(&target).is_err());
    }
}
