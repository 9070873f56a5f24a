//! Seeded chance, simulated time, and the life of a process that may end before any step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use cutover::lifecycle::agreement::Instant;
use cutover::sys::clock::Clock;
use jiff::Timestamp;

/// xorshift64*: the same seed, the same run.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, limit: i64) -> i64 {
        i64::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    /// Once in so many; never for zero.
    pub fn chance(&mut self, once_in: u64) -> bool {
        once_in != 0 && self.next().is_multiple_of(once_in)
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(i64::try_from(all.len()).unwrap())).unwrap()]
    }

    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// How storage misbehaves: each once in so many accesses.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    pub until: i64,
    pub cut_off: u64,
    pub silence: u64,
    pub cut_off_ms: i64,
    pub late_create: u64,
    /// Nothing can be written for a while, to all or by one; what stands there can be read.
    pub full: u64,
    pub lost_reply: u64,
    pub torn: u64,
    pub stale: u64,
    pub stale_ms: i64,
}

impl Chaos {
    pub fn is_on(&self, now: i64) -> bool {
        now < self.until
    }
}

/// Simulated time, the same for all, in milliseconds.
pub type Now = Arc<AtomicI64>;

/// One process: its clock, and how many steps it has left.
pub struct Life {
    now: Now,
    skew: AtomicI64,
    left: AtomicI64,
    dead: AtomicBool,
}

impl Life {
    pub fn new(now: Now) -> Arc<Self> {
        let dead = AtomicBool::new(false);
        Arc::new(Self { now, skew: AtomicI64::new(0), left: AtomicI64::new(i64::MAX), dead })
    }

    pub fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    pub fn shared(&self) -> Now {
        self.now.clone()
    }

    pub fn skew_ms(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    pub fn set_skew(&self, ms: i64) {
        self.skew.store(ms, Ordering::Relaxed);
    }

    /// Counts a step; true when the process is gone.
    pub fn step(&self) -> bool {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.dead.store(true, Ordering::Relaxed);
        }
        self.is_dead()
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Lives again, for so many steps.
    pub fn revive(&self, steps: i64) {
        self.left.store(steps, Ordering::Relaxed);
        self.dead.store(false, Ordering::Relaxed);
    }
}

/// Milliseconds since 1970 at which every simulation begins.
const EPOCH: i64 = 1_700_000_000_000;

impl Clock for Life {
    fn boot(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now()).unwrap())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(EPOCH + self.now() + self.skew_ms()).unwrap()
    }

    fn boot_id(&self) -> String {
        "simulated".into()
    }

    fn sleep(&self, _: Duration) {
        panic!("nobody sleeps here");
    }

    fn sleep_until(&self, _: Timestamp) {
        panic!("nobody sleeps here");
    }

    fn is_synchronised(&self) -> bool {
        true
    }
}

/// Simulated time of an instant.
pub fn simulated(instant: Instant) -> i64 {
    i64::try_from(instant.boot.as_millis()).unwrap()
}
