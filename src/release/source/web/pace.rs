//! How fast a transfer may be, and how slow.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Lets all transfers of a source together bring so many bytes a second.
#[derive(Clone, Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    /// When the bytes that were read so far are paid for.
    paid_until: Arc<Mutex<Instant>>,
}

impl RateLimit {
    /// A limit; 0 counts as 1.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: Arc::new(Mutex::new(Instant::now())) }
    }

    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// What is read at once, so that the wait after it stays below a quarter of a second.
    pub fn bytes_at_once(&self) -> usize {
        usize::try_from(self.bytes_per_second / 4).unwrap_or(usize::MAX).max(1)
    }

    /// How long to wait after so many bytes.
    pub fn wait_after(&self, bytes: u64) -> Duration {
        let price = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let now = Instant::now();
        // A panic of another thread leaves an instant, which is all that is here.
        let mut paid_until = self.paid_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *paid_until = (*paid_until).max(now) + price;
        paid_until.duration_since(now)
    }
}

/// Gives up a transfer that hardly moves. Only time spent waiting for the server counts.
#[derive(Clone, Debug)]
pub struct StallWatch {
    window: Duration,
    bytes_min: u64,
    waited: Duration,
    bytes: u64,
}

impl StallWatch {
    /// In each `window` there must be `bytes_min` bytes.
    pub fn new(window: Duration, bytes_min: u64) -> Self {
        Self { window, bytes_min, waited: Duration::ZERO, bytes: 0 }
    }

    /// Takes notice of bytes that came after a wait.
    pub fn came(&mut self, bytes: u64, after: Duration) -> io::Result<()> {
        self.bytes += bytes;
        self.waited += after;
        if self.waited < self.window {
            return Ok(());
        }
        if self.bytes < self.bytes_min {
            let text = format!("only {} bytes came in {} s", self.bytes, self.waited.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_hardly_moves_is_given_up() {
        let mut watch = StallWatch::new(Duration::from_secs(60), 4096);
        for _ in 0..59 {
            watch.came(1, Duration::from_secs(1)).unwrap();
        }
        assert_eq!(watch.came(1, Duration::from_secs(1)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut watch = StallWatch::new(Duration::from_secs(60), 4096);
        for _ in 0..600 {
            watch.came(100, Duration::from_secs(1)).unwrap();
        }
    }

    #[test]
    fn bytes_beyond_the_rate_must_wait() {
        let limit = RateLimit::new(1000);
        let waits = limit.wait_after(500) + limit.wait_after(500);
        assert!(waits > Duration::from_millis(1400) && waits <= Duration::from_millis(1500), "{waits:?}");
    }
}
