//! Ends processes together with what they have started: nothing of them may work on beside those that come next.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getsid};

/// Kills a process of ours, and all that it has started and not let go: hooks, checks, helpers.
pub fn kill_with_children(pid: Pid) -> nix::Result<()> {
    let children = descendants(pid);
    let killed = kill(pid, Signal::SIGKILL);
    kill_all(children);
    killed
}

/// Whether this process ends, and all that it has started.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Kills all that this process has started and not let go, before it ends itself.
pub fn kill_children() {
    IS_ENDING.store(true, Ordering::SeqCst);
    kill_all(descendants(Pid::this()));
}

/// Never returns once this process ends: the end of what it had started is then nobody's failure.
pub fn wait_if_ending() {
    while IS_ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

fn kill_all(children: Vec<Pid>) {
    for child in children {
        // Hooks have process groups of their own, and lead them.
        let _ = killpg(child, Signal::SIGKILL).or_else(|_| kill(child, Signal::SIGKILL));
    }
}

/// Kills commands that a process of ours had started, and that live on without it: leaders of process groups that have
/// the variable `name` with this value, and whose words are `ours`. Says how many there were.
pub fn kill_orphans(name: &str, value: &str, ours: impl Fn(&[&OsStr]) -> bool) -> usize {
    let variable = format!("{name}={value}");
    let read = |pid: Pid, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut killed = 0;
    for pid in processes() {
        let (environment, words) = (read(pid, "environ"), read(pid, "cmdline"));
        let words = words.strip_suffix(b"\0").unwrap_or(&words);
        let words: Vec<_> = words.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
        // A service that it started has inherited the variable, but has other words, or a session of its own.
        let is_orphan = environment.split(|byte| *byte == 0).any(|word| word == variable.as_bytes())
            && ours(&words)
            && getpgid(Some(pid)) == Ok(pid)
            && getsid(Some(pid)) != Ok(pid);
        killed += usize::from(is_orphan && killpg(pid, Signal::SIGKILL).is_ok());
    }
    killed
}

/// Whether a process of this program stands still: a signal has stopped it (SIGSTOP, Ctrl-Z).
pub fn stands_still(pid: Pid) -> bool {
    let name = |path: &str| fs::read_to_string(path).unwrap_or_default();
    name(&format!("/proc/{pid}/comm")) == name("/proc/self/comm")
        && stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

/// Whether a process is there, and more than a zombie.
pub fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| !["Z", "X"].contains(&state.as_str())))
}

/// proc_pid_stat(5), from the state on: the name before it, in brackets, may hold anything.
fn stat(pid: Pid) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// The children of a process, and theirs.
fn descendants(pid: Pid) -> Vec<Pid> {
    let parent_of = |child: Pid| -> Option<Pid> { stat(child)?.get(1)?.parse().ok().map(Pid::from_raw) };
    let parents: Vec<_> = processes().filter_map(|child| Some((child, parent_of(child)?))).collect();
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        let children = parents.iter().filter(|(child, of)| *of == parent && *child != parent);
        let children: Vec<_> = children.map(|(child, _)| *child).collect();
        next.extend(&children);
        found.extend(children);
    }
    found
}

/// All processes of this machine.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}
