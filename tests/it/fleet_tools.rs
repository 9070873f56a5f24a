//! What many tests of fleets ask of processes, and wait for.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::fleet::Fleet;

/// Nobody takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// All that a command has said, to whomever.
pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Changes the configuration of a node, in which `from` must stand.
pub fn set(fleet: &Fleet, number: usize, from: &str, to: &str) {
    let text = std::fs::read_to_string(fleet.config(number)).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(fleet.config(number), text.replace(from, to)).unwrap();
}

pub fn wait_until(fleet: &Fleet, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}: {}", fleet.why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this test may go on; else says that it does not.
pub fn has_faketime(test: &str) -> bool {
    let has_it = Command::new("faketime").arg("--version").output().is_ok();
    if !has_it {
        eprintln!("SKIPPED {test}: no faketime");
    }
    has_it
}
