//! etcd keeps no times, but each of its answers has a `Date`, in whole seconds.
//!
//! So the moment at which the date moves on is looked for: between two requests that are shortly after each other, and
//! whose dates differ, the endpoint's clock was at a whole second. It is the clock of the endpoint that answers: nodes
//! that ask different ones compare themselves with different clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cutover::coord::board::ClockRead;
use jiff::fmt::rfc2822;

/// How far requests are apart.
const STEP: Duration = Duration::from_millis(50);
/// A whole second passes within it.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Compares the clock behind `date` with this node's.
pub fn compare(mut date: impl FnMut() -> Option<String>) -> ClockRead {
    let began = Instant::now();
    let mut before: Option<(i64, f64)> = None;
    while began.elapsed() < PATIENCE {
        let asked = now_ms();
        let Some(second) = date().and_then(|text| seconds(&text)) else { return ClockRead::Unknown };
        let answered = now_ms();
        if let Some((earlier, since)) = before
            && second > earlier
        {
            // The date moved on after the one request was sent and before the other was answered.
            let (middle, half) = ((since + answered) / 2.0, (answered - since) / 2.0);
            return ClockRead::Offset { offset_ms: second as f64 * 1000.0 - middle, error_ms: half };
        }
        before = Some((second, asked));
        std::thread::sleep(STEP);
    }
    ClockRead::Unknown
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// The seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds(date: &str) -> Option<i64> {
    Some(rfc2822::parse(date).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Tue, 29 Feb 2028 12:00:00 GMT"), Some(1_835_438_400));
        for odd in ["", "Sunday", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(seconds(odd), None, "{odd}");
        }
    }
}
