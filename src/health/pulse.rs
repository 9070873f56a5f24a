//! How long users got no good answer, as the checks that ask over the network saw it.
//!
//! ```text
//! Pulse (a thread) ── asks the http and tcp checks, many times a second ──► Gaps (pure) ──► time without an answer
//! ```
//! Checks of the trial are asked every `interval`, which is too seldom to measure a break of some milliseconds. So around
//! a switch the cheap ones are asked much more often. Nothing is decided by these answers.
//!
//! A gap is known as well as the questions at its two ends are dense, and a rollback has four ends. Where ends are to be
//! expected, questions are denser still.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::settings::{Check, Kind, Settings};
use super::{probes, web};
use crate::sys::clock::{Clock, SystemClock};

/// How long the first question may take: it is asked before anything stops.
const FIRST_LIMIT: Duration = Duration::from_secs(1);
/// Questions take at most one part in so many of the time, so that measuring is no load. Not so while nobody is answered,
/// and while services stop and start: those are the moments that count.
const SHARE: u32 = 10;
/// While services stop and start, and when nobody has been answered for less than `SHORT`, pauses are so many times
/// shorter: an end is near. In a long silence an error of one pause is small.
const CLOSER: u32 = 5;
const SHORT: Duration = Duration::from_secs(1);
/// After so long without a failure questions come less often,
const CALM_AFTER: Duration = Duration::from_secs(300);
const CALM_PAUSE: Duration = Duration::from_secs(1);

/// Sums up the time between a good answer and the next one, where something went wrong in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    total: Duration,
    /// When the last good answer came.
    good: Option<Duration>,
    /// Whether there was none since.
    is_away: bool,
}

impl Gaps {
    /// Goes on with what another process has measured: so much in all, and the last good answer of a gap that is open.
    pub fn resumed(total: Duration, away_since: Option<Duration>) -> Self {
        Self { total, good: away_since, is_away: away_since.is_some() }
    }

    /// A good answer came. A silence longer than `usual` counts as a gap, although no answer was bad: the question waited.
    pub fn good(&mut self, at: Duration, usual: Duration) {
        if let Some(last) = self.good {
            let silence = at.saturating_sub(last);
            if self.is_away || silence > usual {
                self.total += silence;
            }
        }
        (self.good, self.is_away) = (Some(at), false);
    }

    /// A bad answer came, or none.
    pub fn bad(&mut self) {
        self.is_away = true;
    }

    /// All time without a good answer up to now; unknown where there never was one before.
    pub fn total(&self, now: Duration) -> Option<Duration> {
        let last = self.good?;
        let open = if self.is_away { now.saturating_sub(last) } else { Duration::ZERO };
        Some(self.total + open)
    }

    /// When the last good answer came.
    pub fn last_good(&self) -> Option<Duration> {
        self.good
    }

    /// The last good answer of a gap that is open.
    pub fn away_since(&self) -> Option<Duration> {
        self.good.filter(|_| self.is_away)
    }
}

/// What the thread that asks is told.
#[derive(Debug, Default)]
struct Told {
    order: Mutex<Order>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Order {
    is_over: bool,
    is_close: bool,
}

impl Told {
    fn order(&self) -> Order {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Order)) {
        change(&mut self.order.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for so long at most, and no longer than until something is told.
    fn wait(&self, known: Order, limit: Duration) {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if (order.is_over, order.is_close) == (known.is_over, known.is_close) {
            drop(self.changed.wait_timeout(order, limit));
        }
    }
}

/// Asks again and again, until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    gaps: Arc<Mutex<Gaps>>,
    told: Arc<Told>,
}

impl Pulse {
    /// Asks once, at once, then goes on in a thread. `None` where no check that counts asks over the network.
    pub fn begin(settings: &Settings, ignored: &[String], gaps: Gaps) -> Option<Self> {
        let pause = settings.pulse.0;
        let checks: Vec<Check> = settings
            .check
            .iter()
            .filter(|check| check.required && !ignored.contains(&check.name) && is_cheap(check))
            .cloned()
            .collect();
        if pause.is_zero() || checks.is_empty() {
            return None;
        }
        let (shared, told) = (Arc::new(Mutex::new(gaps)), Arc::new(Told::default()));
        let now = SystemClock.boot();
        let mut asking = Asking {
            checks,
            pause,
            fastest: None,
            calm_since: now,
            waited: Duration::ZERO,
            away_since: None,
        };
        asking.ask(&shared, Some(FIRST_LIMIT));
        let pulse = Self { gaps: Arc::clone(&shared), told: Arc::clone(&told) };
        std::thread::spawn(move || {
            while !told.order().is_over {
                asking.wait(&told);
                asking.ask(&shared, None);
            }
        });
        Some(pulse)
    }

    /// Services stop and start from now on, or no longer: moments that count.
    pub fn watch_closely(&self, is_close: bool) {
        self.told.change(|order| order.is_close = is_close);
    }

    /// What was measured so far.
    pub fn gaps(&self) -> Gaps {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.told.change(|order| order.is_over = true);
    }
}

fn is_cheap(check: &Check) -> bool {
    matches!(check.kind(), Ok(Kind::Http(_) | Kind::Tcp(_)))
}

struct Asking {
    checks: Vec<Check>,
    pause: Duration,
    /// How long the fastest round of good answers took.
    fastest: Option<Duration>,
    /// Since when all has been well.
    calm_since: Duration,
    /// How long the last pause was.
    waited: Duration,
    /// Since when answers have been bad.
    away_since: Option<Duration>,
}

impl Asking {
    fn ask(&mut self, gaps: &Mutex<Gaps>, limit: Option<Duration>) {
        let began = SystemClock.boot();
        let is_good = self.checks.iter().all(|check| is_answered(check, limit));
        let now = SystemClock.boot();
        let mut gaps = gaps.lock().unwrap_or_else(PoisonError::into_inner);
        if is_good {
            let took = now.saturating_sub(began);
            let fastest = *self.fastest.insert(self.fastest.map_or(took, |fastest| fastest.min(took)));
            gaps.good(now, self.waited + fastest * 4 + self.pause * 2);
            self.away_since = None;
        } else {
            gaps.bad();
            self.calm_since = now;
            self.away_since.get_or_insert(now);
        }
    }

    /// Waits for the next question. A pause ends early when services begin to stop.
    fn wait(&mut self, told: &Told) {
        let began = SystemClock.boot();
        loop {
            let now = SystemClock.boot();
            let (order, waited) = (told.order(), now.saturating_sub(began));
            let left = self.next_pause(order.is_close, now).saturating_sub(waited);
            if left.is_zero() || order.is_over {
                self.waited = waited;
                return;
            }
            told.wait(order, left);
        }
    }

    fn next_pause(&self, is_close: bool, now: Duration) -> Duration {
        match self.away_since {
            _ if is_close => self.pause / CLOSER,
            Some(since) if now.saturating_sub(since) < SHORT => self.pause / CLOSER,
            Some(_) => self.pause,
            None => {
                let is_calm = now.saturating_sub(self.calm_since) > CALM_AFTER;
                let share = self.fastest.unwrap_or_default() * (SHARE - 1);
                share.max(if is_calm { CALM_PAUSE.max(self.pause) } else { self.pause })
            }
        }
    }
}

fn is_answered(check: &Check, limit: Option<Duration>) -> bool {
    let own = check.limit().0;
    let limit = limit.map_or(own, |limit| limit.min(own));
    let answer = match check.kind() {
        Ok(Kind::Http(http)) => web::http(http, limit).0,
        Ok(Kind::Tcp(tcp)) => probes::tcp(tcp, limit).0,
        Ok(Kind::Exec(_) | Kind::File(_) | Kind::Systemd(_)) | Err(_) => return true,
    };
    answer.is_healthy()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_gap_is_from_the_last_good_answer_to_the_next_good_one() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.total(ms(5)), None, "nobody knows how long it was away before the first answer");
        gaps.bad();
        gaps.good(ms(100), ms(150));
        assert_eq!(gaps.total(ms(120)), Some(ms(0)));
        gaps.good(ms(200), ms(150));
        gaps.bad();
        assert_eq!((gaps.total(ms(900)), gaps.away_since()), (Some(ms(700)), Some(ms(200))));
        gaps.bad();
        gaps.good(ms(1000), ms(150));
        assert_eq!((gaps.total(ms(5000)), gaps.away_since()), (Some(ms(800)), None));
        // The question waited in a socket: nothing failed, and nobody was answered.
        gaps.good(ms(4000), ms(150));
        assert_eq!(gaps.total(ms(4000)), Some(ms(3800)));
        // Another process goes on with it.
        let mut resumed = Gaps::resumed(ms(800), Some(ms(2000)));
        resumed.good(ms(2500), ms(150));
        assert_eq!(resumed.total(ms(9000)), Some(ms(1300)));
    }

    #[test]
    fn questions_are_dense_where_an_end_is_near() {
        let asking = |away_since, fastest| Asking {
            checks: Vec::new(),
            pause: ms(50),
            fastest: Some(fastest),
            calm_since: ms(0),
            waited: ms(0),
            away_since,
        };
        let quick = asking(None, ms(1));
        assert_eq!(quick.next_pause(false, ms(10)), ms(50));
        assert_eq!(quick.next_pause(true, ms(10)), ms(10));
        assert_eq!(quick.next_pause(false, CALM_AFTER + ms(1)), CALM_PAUSE);
        let slow = asking(None, ms(40));
        assert_eq!(slow.next_pause(false, ms(10)), ms(360), "measuring is no load");
        assert_eq!(slow.next_pause(true, ms(10)), ms(10));
        let away = asking(Some(ms(1000)), ms(40));
        assert_eq!(away.next_pause(false, ms(1400)), ms(10));
        assert_eq!(away.next_pause(false, ms(2400)), ms(50), "nobody is hammered who is away for long");
    }

    #[test]
    fn what_listens_is_asked_until_nobody_wants_to_know() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().take(4) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        let text = format!("pulse = '5ms'\n[[check]]\nname = 'web'\nhttp = {{ url = '{url}' }}");
        let settings: Settings = toml::from_str(&text).unwrap();
        assert!(Pulse::begin(&settings, &["web".into()], Gaps::default()).is_none());
        let pulse = Pulse::begin(&settings, &[], Gaps::default()).unwrap();
        // After four answers nobody listens any more.
        while pulse.gaps().away_since().is_none() {
            std::thread::sleep(ms(5));
        }
        assert!(pulse.gaps().total(SystemClock.boot()).is_some());
    }
}
