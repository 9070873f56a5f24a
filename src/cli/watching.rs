//! `recover --watch`, which the timer of an update runs: sees that the update ends, whatever becomes of whoever carries
//! it out.
//!
//! It holds no lock and changes nothing itself. As long as somebody works within the deadline it looks on; who is past
//! it is killed; and where nobody works, `recover` is started to finish the update. It ends with the update, and now and
//! then before: the timer starts it again, also after it was killed itself.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::context::Context;
use super::failure::{Error, code};
use crate::lifecycle::node::{self, Node};
use crate::lifecycle::update::deadline;
use crate::store::Kept;
use crate::sys::lock::{self, Holder, Lock};
use crate::sys::{orphans, process};
use crate::types::record::Stands;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it stays: less than its unit may take to start.
const STAYS: Duration = Duration::from_secs(4 * 60);
/// The longest pause after a recovery that did not end the update.
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// How long after its deadline a cutover that still holds the lock counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(5);
/// How long a recovery has until it must have taken up what it found: the deadline there may be past already, and a busy
/// machine may take its time to start a program.
const TAKES_UP: Duration = Duration::from_secs(30);
/// How long the kernel may take to let go of a killed process's lock.
const LET_GO: Duration = Duration::from_secs(5);

pub fn watch(context: &Context, node: &Node<'_>) -> Result<u8, Error> {
    let began = Instant::now();
    let mut pause = LOOK_EVERY;
    while began.elapsed() < STAYS {
        if node.store.journal()? == Kept::Missing && !node.has_rehearsal_left() {
            take_down(node);
            return Ok(0);
        }
        match worker(node) {
            Some(holder) if is_hung(node) => drop(end_hung(node, holder)?),
            Some(_) => std::thread::sleep(LOOK_EVERY),
            None if node.store.journal()? == Kept::Missing => {
                super::rehearse::sweep_rehearsal(node)?;
            }
            None => {
                if recover(context)? == Some(code::NEEDS_PERSON) {
                    return Ok(code::NEEDS_PERSON);
                }
                if node.store.journal()? != Kept::Missing {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
    Ok(0)
}

/// Stops the timer of an update that ended, and whose cutover died before it had done so itself. Whoever is at work does.
fn take_down(node: &Node<'_>) {
    let Ok(_locks) = node.lock_update().and_then(|update| Ok((update, node.lock()?))) else { return };
    if matches!(node.store.journal(), Ok(Kept::Missing)) {
        node.application().disarm();
    }
}

/// Has another process do the work, and looks after that as after any other. Its exit code, unless it had to be ended.
fn recover(context: &Context) -> Result<Option<u8>, Error> {
    let program = process::own_program();
    let mut command = Command::new(&program);
    command.args(context.arguments()).arg("recover").stdin(Stdio::null());
    let cannot = |error| crate::sys::disk::Error::new("run", &program, error);
    let mut child = command.spawn().map_err(cannot)?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()));
        }
        std::thread::sleep(LOOK_EVERY / 10);
        let is_late = began.elapsed() > TAKES_UP && context.with_node("recover", |node| Ok(is_hung(node)))?;
        if is_late {
            tracing::warn!("the recovery (pid {}) is past its deadline and is killed", child.id());
            kill(child.id());
        }
    }
}

/// The lock; taken from a cutover that still holds it long after the deadline of its update, by killing that.
pub fn lock_even_if_hung(node: &Node<'_>) -> Result<Lock, Error> {
    if let Some(holder) = waiter(node) {
        // It holds nothing that is needed, and is alive: its update is its own.
        return end_hung(node, holder);
    }
    match node.lock() {
        Err(node::Error::Busy(Some(holder))) => end_hung(node, holder),
        taken => Ok(taken?),
    }
}

/// Who changes something, or waits to go on with an update.
fn worker(node: &Node<'_>) -> Option<Holder> {
    waiter(node).or_else(|| lock::holder(&node.store.layout.lock()))
}

/// Who waits with an update of which nothing shows yet.
fn waiter(node: &Node<'_>) -> Option<Holder> {
    let journal = node.store.journal().ok()?;
    let waits = matches!(journal, Kept::Whole(record) if record.phase.stands() == Stands::Before);
    if waits { lock::holder(&node.store.layout.update_lock()) } else { None }
}

fn end_hung(node: &Node<'_>, holder: Holder) -> Result<Lock, Error> {
    if !(is_hung(node) && holder.pid > 1 && is_cutover(holder.pid)) {
        return Err(node::Error::Busy(Some(holder)).into());
    }
    tracing::warn!("`{}` (pid {}) is past its deadline and is killed", holder.command, holder.pid);
    kill(holder.pid);
    let clock = node.clock;
    let began = clock.boot();
    loop {
        match node.lock() {
            Err(node::Error::Busy(_)) if clock.boot().saturating_sub(began) < LET_GO => {
                clock.sleep(Duration::from_millis(20));
            }
            taken => return Ok(taken?),
        }
    }
}

fn kill(pid: u32) {
    let Ok(number) = i32::try_from(pid) else { return };
    if let Err(errno) = orphans::kill_with_children(Pid::from_raw(number)) {
        tracing::warn!("cannot send {} to process {pid}: {errno}", Signal::SIGKILL);
    }
}

/// Whether whoever carries out the update is past the deadline of its phase.
fn is_hung(node: &Node<'_>) -> bool {
    let Ok(Kept::Whole(record)) = node.store.journal() else { return false };
    record.deadline.as_ref().or(record.phase.trial_until()).is_some_and(|deadline| {
        let clock = node.clock;
        let boot = clock.boot().saturating_sub(HUNG_AFTER);
        let is_of_this_boot = deadline.boot_id == clock.boot_id();
        let left = if is_of_this_boot {
            deadline.remaining(&clock.boot_id(), boot, clock.wall())
        } else {
            deadline::remaining(clock, deadline)
        };
        left.is_zero()
    })
}

/// Whether the process is one of this program: the number may belong to another by now.
fn is_cutover(pid: u32) -> bool {
    let name = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    name(&format!("/proc/{pid}/comm")) == name("/proc/self/comm")
}
