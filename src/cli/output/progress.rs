//! Progress of long work: a bar on a terminal, JSON lines for programs, a line now and then for journals.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::say;
use crate::cli::words::args::{Global, ProgressKind};
use crate::types::Size;
use crate::types::progress::{Activity, Progress, Silent};

/// Shows progress as the global options want it.
pub fn shown(global: &Global) -> Box<dyn Progress> {
    match global.progress {
        ProgressKind::None => Box::new(Silent),
        _ if global.quiet => Box::new(Silent),
        ProgressKind::Json => Box::new(Lines::new(true)),
        ProgressKind::Plain => Box::new(Lines::new(false)),
        ProgressKind::Auto if stderr().is_terminal() => Box::new(Bar(Mutex::new(None))),
        ProgressKind::Auto => Box::new(Silent),
    }
}

fn words(activity: Activity) -> &'static str {
    match activity {
        Activity::Fetch => "fetching",
        Activity::Unpack => "unpacking",
        Activity::Verify => "verifying",
        Activity::Pack => "packing",
        Activity::Bring => "bringing",
        Activity::Remove => "removing",
    }
}

/// A bar with bytes, files, rate and time left, in one line that is written again and again. Quick work ends before the
/// first.
struct Bar(Mutex<Option<Drawn>>);

/// How often the line is written again.
const DRAW_EVERY: Duration = Duration::from_millis(125);
/// The rate is that of about so long a time.
const RATE_OF: Duration = Duration::from_secs(15);
/// The line's beginning, without anything in it.
const ERASE: &str = "\r\x1b[K";

#[derive(Clone, Copy)]
struct Drawn {
    activity: Activity,
    bytes: (u64, Option<u64>),
    files: (u64, Option<u64>),
    began: Instant,
    /// When it was written last, and how much was done then.
    drawn: (Instant, u64),
    /// Of what is counted, a second.
    rate: f64,
}

/// Columns of the terminal that progress is shown on.
fn width() -> usize {
    terminal_size::terminal_size_of(stderr()).map_or(80, |(width, _)| width.0.into())
}

/// A time in one unit: `42s`, `7m`, `3h`.
fn about(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0}s"),
        ..6000.0 => format!("{:.0}m", seconds / 60.0),
        ..360_000.0 => format!("{:.0}h", seconds / 3600.0),
        _ => "-".to_owned(),
    }
}

impl Drawn {
    /// How much is done of how much: bytes, or files where no bytes are announced.
    fn counted(&self) -> (u64, Option<u64>) {
        if self.counts_files() { self.files } else { self.bytes }
    }

    fn counts_files(&self) -> bool {
        self.bytes.1.is_none() && self.files.1.is_some()
    }

    /// Takes what was done since the line was written last into the rate.
    fn measure(&mut self, now: Instant) {
        let (then, before) = self.drawn;
        let (done, _) = self.counted();
        let passed = now.duration_since(then).as_secs_f64();
        let whole = now.duration_since(self.began).min(RATE_OF).as_secs_f64();
        if passed > 0.0 {
            let recent = done.saturating_sub(before) as f64 / passed;
            self.rate += (recent - self.rate) * (passed / whole).min(1.0);
        }
        self.drawn = (now, done);
    }

    /// The line, at most so many columns wide: the narrower, the less is said.
    fn line(&self, width: usize, now: Instant) -> String {
        let name = words(self.activity);
        let (done, total) = self.counted();
        let of = |(done, total): (u64, Option<u64>)| match total {
            Some(total) => format!("{}/{total} files", done.min(total)),
            None => format!("{done} files"),
        };
        let (bytes, files) = (Size(self.bytes.0), of(self.files));
        let time = match total {
            Some(total) => about(total.saturating_sub(done) as f64 / self.rate.max(f64::MIN_POSITIVE)),
            None => about(now.duration_since(self.began).as_secs_f64()),
        };
        let rate = Size(self.rate as u64);
        let said = match total {
            _ if self.counts_files() && width < 44 => format!("{files} {time}"),
            _ if self.counts_files() => format!("{files} {:.0}/s {time}", self.rate),
            None if width < 44 => format!("{bytes} {time}"),
            None => format!("{bytes} {files} {rate}/s {time}"),
            Some(total) if width < 76 => format!("{bytes}/{} {time}", Size(total)),
            Some(total) => format!("{bytes}/{} {files} {rate}/s {time}", Size(total)),
        };
        // A column is left, so that no terminal goes on to the next line.
        let room = width.saturating_sub(name.len() + said.len() + 3);
        let text = match total {
            Some(total) if room >= 5 && width >= 44 => {
                let full = (room as f64 * (done as f64 / total.max(1) as f64).min(1.0)) as usize;
                format!("{name} {}{} {said}", "█".repeat(full), "░".repeat(room - full))
            }
            _ => format!("{name} {said}"),
        };
        text.chars().take(width.saturating_sub(1)).collect()
    }
}

impl Bar {
    fn with(&self, work: impl FnOnce(&mut Option<Drawn>)) {
        if let Ok(mut bar) = self.0.lock() {
            work(&mut bar);
        }
    }
}

impl Progress for Bar {
    fn begin(&self, activity: Activity, bytes: Option<u64>, files: Option<u64>) {
        let began = Instant::now();
        let (bytes, files) = ((0, bytes), (0, files));
        let drawn = Drawn { activity, bytes, files, began, drawn: (began, 0), rate: 0.0 };
        self.with(|bar| *bar = Some(drawn));
    }

    fn advance(&self, bytes: u64, files: u64) {
        self.with(|bar| {
            let Some(drawn) = bar else { return };
            drawn.bytes.0 += bytes;
            drawn.files.0 += files;
            let now = Instant::now();
            if now.duration_since(drawn.drawn.0) >= DRAW_EVERY {
                drawn.measure(now);
                // There is nobody to tell when this fails.
                let _ = write!(stderr(), "{ERASE}{}", drawn.line(width(), now));
            }
        });
    }

    fn end(&self) {
        self.with(|bar| {
            if bar.take().is_some_and(|drawn| drawn.drawn.0 > drawn.began) {
                let _ = write!(stderr(), "{ERASE}");
            }
        });
    }
}

/// A line every second or five.
struct Lines {
    json: bool,
    bytes: AtomicU64,
    files: AtomicU64,
    current: Mutex<Option<Current>>,
}

struct Current {
    activity: Activity,
    total_bytes: Option<u64>,
    total_files: Option<u64>,
    began: Instant,
    told: Instant,
}

#[derive(serde::Serialize)]
struct Line {
    activity: Activity,
    bytes: u64,
    total_bytes: Option<u64>,
    files: u64,
    total_files: Option<u64>,
    elapsed_ms: u64,
    done: bool,
}

impl Lines {
    fn new(json: bool) -> Self {
        Self { json, bytes: AtomicU64::new(0), files: AtomicU64::new(0), current: Mutex::new(None) }
    }

    fn tell(&self, current: &mut Current, done: bool) {
        let pace = Duration::from_secs(if self.json { 1 } else { 5 });
        let is_quick = done && !self.json && current.began.elapsed() < pace;
        if is_quick || (!done && current.told.elapsed() < pace) {
            return;
        }
        current.told = Instant::now();
        let (bytes, files) = (self.bytes.load(Ordering::Relaxed), self.files.load(Ordering::Relaxed));
        if self.json {
            let line = Line {
                activity: current.activity,
                bytes,
                total_bytes: current.total_bytes,
                files,
                total_files: current.total_files,
                elapsed_ms: u64::try_from(current.began.elapsed().as_millis()).unwrap_or(u64::MAX),
                done,
            };
            say(&serde_json::to_string(&line).unwrap_or_default());
        } else {
            say(&format!("{}: {} in {files} files", words(current.activity), Size(bytes)));
        }
    }
}

impl Progress for Lines {
    fn begin(&self, activity: Activity, total_bytes: Option<u64>, total_files: Option<u64>) {
        self.bytes.store(0, Ordering::Relaxed);
        self.files.store(0, Ordering::Relaxed);
        let now = Instant::now();
        if let Ok(mut current) = self.current.lock() {
            *current = Some(Current { activity, total_bytes, total_files, began: now, told: now });
        }
    }

    fn advance(&self, bytes: u64, files: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.files.fetch_add(files, Ordering::Relaxed);
        if let Ok(mut current) = self.current.try_lock()
            && let Some(current) = current.as_mut()
        {
            self.tell(current, false);
        }
    }

    fn end(&self) {
        if let Ok(mut current) = self.current.lock()
            && let Some(mut current) = current.take()
        {
            self.tell(&mut current, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_a_shorter_bar() {
        let began = Instant::now();
        let (bytes, files) = ((1_500_000, Some(3_000_000)), (7, Some(12)));
        let mut drawn =
            Drawn { activity: Activity::Unpack, bytes, files, began, drawn: (began, 0), rate: 0.0 };
        let now = began + Duration::from_secs(3);
        drawn.measure(now);
        let wide = drawn.line(80, now);
        assert!(wide.starts_with("unpacking ██") && wide.contains("█░"), "{wide}");
        assert!(wide.ends_with("░ 1.4 MiB/2.9 MiB 7/12 files 488.3 KiB/s 3s"), "{wide}");
        assert_eq!(wide.chars().count(), 79);
        assert_eq!(drawn.line(30, now), "unpacking 1.4 MiB/2.9 MiB 3s");
        for width in 0..200 {
            assert!(drawn.line(width, now).chars().count() <= width.saturating_sub(1), "{width}");
        }
        drawn.bytes.1 = None;
        assert_eq!(Drawn { rate: 1.0, ..drawn }.line(42, now), "unpacking 7/12 files 5s");
        drawn.files.1 = None;
        assert_eq!(drawn.line(80, now), "unpacking 1.4 MiB 7 files 488.3 KiB/s 3s");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let began = Instant::now();
        let (bytes, files) = ((0, Some(1 << 40)), (0, None));
        let mut drawn =
            Drawn { activity: Activity::Fetch, bytes, files, began, drawn: (began, 0), rate: 0.0 };
        for second in 1..=120 {
            drawn.bytes.0 += if second <= 60 { 1000 } else { 4000 };
            drawn.measure(began + Duration::from_secs(second));
            let wanted = if second <= 60 { 1000.0..=1000.1 } else { 1000.0..=4000.0 };
            assert!(wanted.contains(&drawn.rate), "{second}: {}", drawn.rate);
        }
        assert!(drawn.rate > 3900.0, "{}", drawn.rate);
    }
}
