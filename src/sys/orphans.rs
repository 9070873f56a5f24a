//! Ends processes together with what they have started: nothing of them may work on beside those that come next.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getsid};

/// How often processes are looked for that have begun while others were stopped.
const LOOKS_MAX: usize = 16;

/// Kills a process of ours, and all that it has started and not let go: hooks, checks, helpers.
pub fn kill_with_children(pid: Pid) -> nix::Result<()> {
    // It starts nothing more while its children are looked for.
    let _ = kill(pid, Signal::SIGSTOP);
    kill_families(&children(pid));
    kill(pid, Signal::SIGKILL)
}

/// Kills a command of ours that leads a process group: all of that group, and all that any of them has started and not
/// let go, in whatever group or session that is (timeout(1) and setsid(1) make new ones).
pub fn kill_command(leader: Pid) {
    kill_families(&[leader]);
}

/// Whether this process ends, and all that it has started.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Kills all that this process has started and not let go, before it ends itself.
pub fn kill_children() {
    IS_ENDING.store(true, Ordering::SeqCst);
    kill_families(&children(Pid::this()));
}

/// Never returns once this process ends: the end of what it had started is then nobody's failure.
pub fn wait_if_ending() {
    while IS_ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Kills these processes with their families. Each is stopped before any is killed: the children of one that is dead are
/// nobody's, and could not be found any more.
fn kill_families(heads: &[Pid]) {
    let mut family = heads.to_vec();
    let mut stopped = 0;
    for _ in 0..LOOKS_MAX {
        for pid in &family[stopped..] {
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        stopped = family.len();
        add_relatives(&mut family);
        if family.len() == stopped {
            break;
        }
    }
    for pid in family {
        // Where others' processes are hidden, the group may still be reached.
        let _ = killpg(pid, Signal::SIGKILL).or_else(|_| kill(pid, Signal::SIGKILL));
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
        if is_orphan {
            kill_families(&[pid]);
            killed += 1;
        }
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

fn children(parent: Pid) -> Vec<Pid> {
    relations().filter(|(_, of, _)| *of == parent).map(|(pid, ..)| pid).collect()
}

/// Adds the children of these processes, who is in groups that they lead, and the same of those.
fn add_relatives(family: &mut Vec<Pid>) {
    let relations: Vec<_> = relations().collect();
    let mut done = 0;
    while let Some(pid) = family.get(done).copied() {
        let is_relative = |(_, parent, group): &&(Pid, Pid, Pid)| *parent == pid || *group == pid;
        for (relative, ..) in relations.iter().filter(is_relative) {
            if !family.contains(relative) {
                family.push(*relative);
            }
        }
        done += 1;
    }
}

/// Every process with its parent and its process group.
fn relations() -> impl Iterator<Item = (Pid, Pid, Pid)> {
    processes().filter_map(|pid| {
        let stat = stat(pid)?;
        let number = |place: usize| Some(Pid::from_raw(stat.get(place)?.parse().ok()?));
        Some((pid, number(1)?, number(2)?))
    })
}

/// All processes of this machine.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}
