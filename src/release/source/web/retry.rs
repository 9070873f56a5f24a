//! When a server is asked again, and after which pause.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use ureq::http::{HeaderMap, header};

use super::super::Error;
use super::text_of;

/// The pause before the first further attempt; the next ones are twice as long each.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Pauses do not grow beyond 128 times the first: 32 s.
const DOUBLINGS_MAX: u32 = 7;

/// A server that asks for a longer pause is left alone: the next run of the timer asks it again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// How often a transfer that brings nothing has failed, and how often it may.
#[derive(Debug)]
pub struct Attempts {
    failed: u32,
    retries: u32,
    deadline: Instant,
}

impl Attempts {
    pub fn new(retries: u32, deadline: Instant) -> Self {
        Self { failed: 0, retries, deadline }
    }

    /// Something came: the next failure is the first one again.
    pub fn begin_anew(&mut self) {
        self.failed = 0;
    }

    /// Whether there may be a further attempt after this error; if so, waits before it.
    ///
    /// Each pause is a random one, so that many nodes that lost the same server do not come back in step.
    pub fn may_go_on(&mut self, error: &Error) -> bool {
        if !error.is_passing() || self.failed >= self.retries {
            return false;
        }
        let asked = error.retry_after().unwrap_or_default();
        let pause = pause(self.failed, random()).max(asked);
        if asked > RETRY_AFTER_MAX || Instant::now() + pause >= self.deadline {
            return false;
        }
        tracing::debug!(%error, pause_ms = pause.as_millis(), "the source is asked again");
        std::thread::sleep(pause);
        self.failed += 1;
        true
    }
}

/// Half of the pause is fixed, half is chance.
fn pause(failed: u32, random: u32) -> Duration {
    let longest = PAUSE_FIRST * 2_u32.pow(failed.min(DOUBLINGS_MAX));
    longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn random() -> u32 {
    // Without chance all wait for the longest time.
    getrandom::u32().unwrap_or(u32::MAX)
}

/// How long the server asks to wait: seconds, or until a time.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = text_of(headers, header::RETRY_AFTER)?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_never_the_same_for_all() {
        for failed in 0..40 {
            let (shortest, longest) = (pause(failed, 0), pause(failed, u32::MAX));
            assert!(shortest >= Duration::from_millis(125) && longest <= Duration::from_secs(32));
            assert_eq!(shortest * 2, longest, "{failed}");
            assert!(failed >= DOUBLINGS_MAX || pause(failed + 1, 0) == longest, "{failed}");
        }
    }

    #[test]
    fn a_server_says_when_to_come_back() {
        let said = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(said("Wed, 21 Oct 2099 07:28:00 GMT").unwrap() > RETRY_AFTER_MAX);
        assert_eq!(said("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn nobody_is_asked_for_ever() {
        let far = Instant::now() + Duration::from_secs(3600);
        let status = |status, retry_after| Error::Status { what: "x".into(), status, retry_after };
        assert!(!Attempts::new(0, far).may_go_on(&status(503, None)));
        assert!(!Attempts::new(5, far).may_go_on(&status(404, None)), "it would hardly go better");
        assert!(!Attempts::new(5, far).may_go_on(&status(503, Some(Duration::from_secs(900)))));
        assert!(!Attempts::new(5, Instant::now()).may_go_on(&status(503, None)), "the deadline comes first");
        let mut attempts = Attempts::new(1, far);
        assert!(attempts.may_go_on(&status(503, None)));
        assert!(!attempts.may_go_on(&status(503, None)));
        attempts.begin_anew();
        assert!(attempts.may_go_on(&status(503, None)));
    }
}
