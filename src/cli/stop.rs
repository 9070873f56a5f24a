//! How a run ends before its time: by signals; and, in builds for tests, before a chosen change of the disk.

use std::ffi::c_int;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::sys::clock::Clock;
use crate::sys::disk::{self, Context, Disk};
use crate::sys::orphans;

/// How signals end this process. What it has started ends with it: commands have process groups of their own, and Ctrl-C
/// reaches them through us only.
///
/// With `interrupted`, for commands that change what runs, the first Ctrl-C is noticed at the next step: while a release is
/// staged it ends the process ([`EndAtOnce`]), before the switch it calls the update off, in a trial it goes back. A lost
/// terminal (SIGHUP) ends nothing. All other signals, and the second Ctrl-C, end the process at once: whatever they
/// interrupt, the journal says how to go on.
pub fn watch_signals(interrupted: Option<&Arc<AtomicBool>>) -> Result<(), disk::Error> {
    let watch = || -> io::Result<()> {
        // What the caller ignores (`nohup`) stays ignored.
        let mut ending: Vec<_> = ENDING.into_iter().filter(|signal| !is_ignored(*signal)).collect();
        if interrupted.is_some() {
            signal_hook::flag::register(SIGHUP, Arc::default())?;
            ending.retain(|signal| ![SIGHUP, SIGINT].contains(signal));
            ending.push(SIGINT);
        }
        let mut signals = Signals::new(ending)?;
        let interrupted = interrupted.cloned();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let wanted = interrupted.as_ref().filter(|_| signal == SIGINT);
                if wanted.is_none_or(|interrupted| interrupted.swap(true, Ordering::Relaxed)) {
                    orphans::kill_children();
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        });
        Ok(())
    };
    watch().context("watch signals of", Path::new("this process"))
}

/// Makes a file that may grow no further (RLIMIT_FSIZE) an error of its write, and not the end of the process. A signal
/// that is caught, and not ignored, ends the programs that are started as ever.
pub fn outlive_file_limits() {
    // Were it refused, such a write would end us: an interruption like any other.
    let _ = signal_hook::flag::register(nix::libc::SIGXFSZ, Arc::default());
}

/// The signals by which people and services end a process.
const ENDING: [c_int; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Whether this process was begun with the signal ignored (proc_pid_status(5)).
fn is_ignored(signal: c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (mask >> (signal - 1)) & 1 == 1
}

/// How often somebody looks whether Ctrl-C was typed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// While this lives, Ctrl-C ends the process at once, however slow a source is. For work that may be interrupted
/// anywhere and is taken up again by the next run: staging.
pub struct EndAtOnce {
    is_over: Arc<AtomicBool>,
}

impl EndAtOnce {
    /// Ends the process with the exit code that `tell` gives, once `interrupted` is set.
    pub fn begin(interrupted: Arc<AtomicBool>, tell: impl FnOnce() -> u8 + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if interrupted.load(Ordering::Relaxed) {
                    orphans::kill_children();
                    std::process::exit(tell().into());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Self { is_over }
    }
}

impl Drop for EndAtOnce {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Waits for a moment; `false` when Ctrl-C came first.
pub fn sleep_until(clock: &dyn Clock, instant: Timestamp, is_interrupted: &dyn Fn() -> bool) -> bool {
    while !is_interrupted() {
        let left = Duration::try_from(instant.duration_since(clock.wall())).unwrap_or_default();
        if left <= LOOK_EVERY {
            clock.sleep_until(instant);
            return true;
        }
        clock.sleep(LOOK_EVERY);
    }
    false
}

/// The disk of a real run.
#[cfg(not(debug_assertions))]
pub fn disk() -> Disk {
    Disk::default()
}

/// The disk of a test run: `CUTOVER_STOP_BEFORE=<number>[:kill|eio|enospc|erofs|stop]` refuses that change, or ends
/// or stops the process before it; `<number>+:eio` refuses all from then on. Changes count from 0. `CUTOVER_COUNT_CHANGES=<file>` notes each change in a file.
#[cfg(debug_assertions)]
pub fn disk() -> Disk {
    use std::io::Write;
    use std::sync::atomic::AtomicUsize;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, raise};

    let wanted = std::env::var("CUTOVER_STOP_BEFORE").ok();
    let notes = std::env::var_os("CUTOVER_COUNT_CHANGES");
    if wanted.is_none() && notes.is_none() {
        return Disk::default();
    }
    let wanted = wanted.unwrap_or_default();
    let (number, how) = wanted.split_once(':').unwrap_or((&wanted, "kill"));
    let for_good = number.ends_with('+');
    let (number, how) = (number.trim_end_matches('+').parse::<usize>().ok(), how.to_owned());
    let count = AtomicUsize::new(0);
    // Opened now: whoever makes changes later may have given up the right to.
    let open = |path| std::fs::OpenOptions::new().append(true).create(true).open(path).ok();
    let notes = notes.and_then(open);
    Disk::with_probe(Arc::new(move |change: disk::Change<'_>| {
        let this = count.fetch_add(1, Ordering::SeqCst);
        if let Some(mut file) = notes.as_ref() {
            writeln!(file, "{this} {} {}", change.action, change.path.display())?;
        }
        if number.is_none_or(|number| this < number || this > number && !for_good) {
            return Ok(());
        }
        match how.as_str() {
            "eio" => Err(Errno::EIO.into()),
            "enospc" => Err(Errno::ENOSPC.into()),
            "erofs" => Err(Errno::EROFS.into()),
            "stop" => Ok(raise(Signal::SIGSTOP)?),
            _ => Ok(raise(Signal::SIGKILL)?),
        }
    }))
}
