//! Time: the wall clock for people, the boot-time clock for waiting.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use super::kernel::time::Prompt;

/// What an update may ask of time. Tests and the simulator have clocks of their own.
pub trait Clock: Send + Sync {
    /// Time since boot, suspend included (`CLOCK_BOOTTIME`): never jumps.
    fn boot(&self) -> Duration;
    /// The wall clock: may be wrong, may jump.
    fn wall(&self) -> Timestamp;
    /// Names this boot of the machine.
    fn boot_id(&self) -> String;
    fn sleep(&self, duration: Duration);
    /// Waits until the wall clock says so, following its steps; not at all when it has passed.
    fn sleep_until(&self, instant: Timestamp);
    /// Waits until the boot-time clock says so: no step of the wall clock moves that.
    fn sleep_to(&self, boot: Duration) {
        self.sleep(boot.saturating_sub(self.boot()));
    }
    /// Asks to be woken on time, and not to be kept waiting, for as long as what it returns lives.
    fn be_prompt(&self) -> Option<Prompt> {
        None
    }
    /// Whether the kernel was told that the wall clock follows a better one.
    fn is_synchronised(&self) -> bool;
}

/// Where this boot's name stands (proc_sys_kernel(5)): as PID 1 sees it, and as we do. In a container the two may differ:
/// a unit with `ProtectKernelTunables=` has a fresh `/proc/sys`, without the container's own name over the kernel's, and
/// all that work on one update must see one name. Others than root see only the second.
const BOOT_IDS: [&str; 2] =
    ["/proc/1/root/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/boot_id"];

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boot(&self) -> Duration {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot_id(&self) -> String {
        // Without /proc every process start counts as a boot: deadlines then go by the wall clock.
        BOOT_IDS
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .map_or_else(|| "unknown".to_owned(), |id| id.trim().to_owned())
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn sleep_until(&self, instant: Timestamp) {
        let nanoseconds = instant.as_nanosecond();
        let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let rest = i64::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or(0);
        let instant = TimeSpec::new(seconds, rest);
        // An absolute sleep on the wall clock moves with it when somebody sets it (clock_nanosleep(2)).
        while clock_nanosleep(ClockId::CLOCK_REALTIME, ClockNanosleepFlags::TIMER_ABSTIME, &instant)
            == Err(Errno::EINTR)
        {}
    }

    fn sleep_to(&self, boot: Duration) {
        let seconds = i64::try_from(boot.as_secs()).unwrap_or(i64::MAX);
        let instant = TimeSpec::new(seconds, boot.subsec_nanos().into());
        while self.boot() < boot {
            // Absolute, so that nothing is lost between reading the clock and going to sleep.
            match clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &instant) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => std::thread::sleep(boot.saturating_sub(self.boot())),
            }
        }
    }

    fn be_prompt(&self) -> Option<Prompt> {
        Some(super::kernel::time::be_prompt())
    }

    fn is_synchronised(&self) -> bool {
        super::kernel::time::clock_is_synchronised()
    }
}
