//! Progress of long work: a bar on a terminal, JSON lines for programs, a line now and then for journals.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{Global, ProgressKind};
use super::output::say;
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
        Activity::Remove => "removing",
    }
}

/// A bar with bytes, rate and time left. Quick work ends before it is drawn.
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn with(&self, work: impl FnOnce(&mut Option<ProgressBar>)) {
        if let Ok(mut bar) = self.0.lock() {
            work(&mut bar);
        }
    }
}

impl Progress for Bar {
    fn begin(&self, activity: Activity, bytes: Option<u64>, files: Option<u64>) {
        let by_files = bytes.is_none();
        let template = match (bytes.or(files), by_files) {
            (Some(_), false) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            (Some(_), true) => "{msg} {wide_bar} {pos}/{len} files {eta}",
            (None, _) => "{msg} {spinner} {bytes} {elapsed}",
        };
        let bar = ProgressBar::with_draw_target(bytes.or(files), ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(words(activity));
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, bytes: u64, files: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(if bytes > 0 { bytes } else { files });
            }
        });
    }

    fn end(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
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
