//! Work that must not end with somebody's connection: a person's `update`, `switch`, `rollback` and `recover` are carried
//! out by a transient unit of systemd, which this process only follows. A closed terminal, a lost ssh, or a Ctrl-C ends
//! the following and nothing else.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::output::say;
use crate::sys::systemd;

/// Set in the unit, so that it does the work itself.
pub(super) const HANDED_OVER: &str = "CUTOVER_HANDED_OVER";
/// What the unit learns of the caller: who it is, and how its terminal wants to be written to.
const PASSED_ON: [&str; 5] = ["SUDO_USER", "USER", "TERM", "COLUMNS", "NO_COLOR"];
/// The exit status of a shell's command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Whether work is to be handed over: a person may be lost (there is a terminal), there is systemd, and this is no unit.
pub fn is_wanted() -> bool {
    let is_mine = std::env::var_os(HANDED_OVER).is_some() || std::env::var_os("INVOCATION_ID").is_some();
    let is_person = io::stdin().is_terminal() && io::stderr().is_terminal();
    !is_mine && is_person && systemd::is_booted() && nix::unistd::geteuid().is_root()
}

/// Hands this very command over to systemd and follows it. `None`: it could not be; the caller does the work.
pub fn follow(app: &str, verb: &str) -> Option<u8> {
    let program = crate::sys::process::own_program();
    let unit = format!("cutover-{app}-{verb}-{}", std::process::id());
    let mut words = words(app, &unit, &format!("cutover {verb} of {app}, begun by hand"));
    words.push(program.into());
    words.extend(std::env::args_os().skip(1));
    match Command::new("systemd-run").args(words).status() {
        Ok(status) => Some(told(status, &unit)),
        // Without the tool the work is done here, as it was asked for.
        Err(_) => None,
    }
}

fn words(app: &str, unit: &str, description: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "--quiet",
        "--collect",
        "--pipe",
        "--wait",
        "--same-dir",
        "--service-type=exec",
        "--property=KillMode=mixed",
        "--property=OOMScoreAdjust=-500",
    ]
    .map(OsString::from)
    .into();
    // As in `cutover@.service`: should it be killed in the middle, the recovery goes on at once.
    let timer = format!("cutover-deadline-{app}");
    words.push(
        format!(
            "--property=ExecStopPost=-/bin/sh -c 'systemctl is-active -q {timer}.timer && \
             systemctl --no-block start {timer}.service; true'"
        )
        .into(),
    );
    words.push(format!("--unit={unit}").into());
    words.push(format!("--description={description}").into());
    words.push(format!("--setenv={HANDED_OVER}=1").into());
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            let mut word = OsString::from(format!("--setenv={name}="));
            word.push(value);
            words.push(word);
        }
    }
    words.push("--".into());
    words
}

fn told(status: ExitStatus, unit: &str) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, _) => {
            say(&format!(
                "it goes on without this terminal, as `{unit}.service`: `cutover status --watch` follows it, \
                 `cutover rollback --now` ends it"
            ));
            INTERRUPTED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_nothing_is_handed_over() {
        // Tests have no terminal on standard input, or are root on no systemd.
        if !io::stdin().is_terminal() {
            assert!(!is_wanted());
        }
        let words = words("shop", "cutover-shop-update-7", "x");
        assert_eq!(words.last().unwrap(), "--");
        assert!(words.contains(&"--unit=cutover-shop-update-7".into()));
    }
}
