//! The timer that looks after an update.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{ANSWER, Error, RUNTIME_UNITS, act, daemon_reload, quoted};
use crate::sys::disk::{self, Disk};

/// A command that systemd runs again and again, whatever becomes of this process, until somebody takes it down: the
/// dead man's switch of an update.
///
/// Timer and service are unit files of ours in [`RUNTIME_UNITS`]. Their content depends on the command alone, so that
/// arming again, also from within the service itself, is to start a timer that runs already.
#[derive(Clone)]
pub struct DeadMansSwitch<'a> {
    pub disk: &'a Disk,
    /// The application; names the units.
    pub app: &'a str,
    /// The program, for example `/usr/bin/cutover`.
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl DeadMansSwitch<'_> {
    /// Makes sure that the timer runs. It does not survive a reboot.
    pub fn arm(&self) -> Result<(), Error> {
        let service = self.ensure_file("service", &self.service())?;
        let timer = self.ensure_file("timer", &self.timer())?;
        if service || timer {
            daemon_reload()?;
        }
        match self.start("timer", &["start"]) {
            // Old systemds look for new files only when they are told to.
            Err(Error::Refused { .. }) if !service && !timer => {
                daemon_reload()?;
                self.start("timer", &["start"])
            }
            started => started,
        }
    }

    /// Has systemd run the command now, or as soon as the node has booted.
    pub fn run_soon(&self) -> Result<(), Error> {
        self.start("service", &["start", "--no-block"])
    }

    /// Stops the timer. The command, if it runs already, goes on.
    pub fn disarm(&self) -> Result<(), Error> {
        match self.start("timer", &["stop"]) {
            // "Unit … not loaded": there is none.
            Err(Error::Refused { answer, .. }) if answer.contains("not loaded") => Ok(()),
            stopped => stopped,
        }
    }

    fn start(&self, kind: &str, words: &[&str]) -> Result<(), Error> {
        let action = if words.contains(&"stop") { "stop" } else { "arm" };
        act(action, &[self.unit(kind)], words, ANSWER)
    }

    fn unit(&self, kind: &str) -> String {
        format!("cutover-deadline-{}.{kind}", self.app)
    }

    /// Whether there was another file of that name.
    fn ensure_file(&self, kind: &str, text: &str) -> Result<bool, Error> {
        let path = Path::new(RUNTIME_UNITS).join(self.unit(kind));
        let there = fs::read(&path).ok();
        if there.as_deref() == Some(text.as_bytes()) {
            return Ok(false);
        }
        let refused = |error: disk::Error| {
            let answer = format!("{error}: {}", error.source);
            Error::Refused { action: "arm", subject: self.unit(kind), answer }
        };
        self.disk.replace(&path, text.as_bytes(), 0o644).map_err(refused)?;
        Ok(there.is_some())
    }

    fn service(&self) -> String {
        let words: Vec<_> = std::iter::once(self.program.as_os_str())
            .chain(self.arguments.iter().map(OsString::as_os_str))
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        // While the node boots it waits for services that have had their turn; and the boot does not wait for its end.
        // What it begins outlives it: the next run watches that, too.
        format!(
            "[Unit]\nDescription=Ends the update of {} should nobody else\nAfter=multi-user.target\n\
             StartLimitIntervalSec=0\n[Service]\nType=simple\nExecStart={}\nKillMode=process\n\
             RuntimeMaxSec=5min\nOOMScoreAdjust=-500\n",
            self.app,
            words.join(" ")
        )
    }

    fn timer(&self) -> String {
        // Without dependencies: it is armed early in the boot, and waited for then.
        format!(
            "[Unit]\nDescription=Looks after the update of {}\nDefaultDependencies=no\n[Timer]\n\
             OnActiveSec=30s\nOnUnitInactiveSec=10s\nAccuracySec=1s\n",
            self.app
        )
    }
}
