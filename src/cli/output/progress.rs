//! Progress of long work: a bar on a terminal, JSON lines for programs, a line now and then for journals.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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

/// A bar with bytes, files, rate and time left. Quick work ends before it is drawn.
struct Bar(Mutex<Option<Drawn>>);

struct Drawn {
    bar: ProgressBar,
    files: Arc<AtomicU64>,
    /// The bar counts bytes; without any, files.
    counts_bytes: bool,
}

/// What a bar says, from the widest to the narrowest. Each fits into so many columns, with room for the bar itself.
const BY_BYTES: [(u16, &str); 3] = [
    (76, "{msg} {wide_bar} {bytes}/{total_bytes} {files} {bytes_per_sec} {eta}"),
    (44, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}"),
    (0, "{msg} {bytes}/{total_bytes} {eta}"),
];
const BY_FILES: [(u16, &str); 2] =
    [(44, "{msg} {wide_bar} {pos}/{len} files {per_sec} {eta}"), (0, "{msg} {pos}/{len} files {eta}")];
const UNKNOWN: [(u16, &str); 2] =
    [(44, "{msg} {spinner} {bytes} {files} {bytes_per_sec} {elapsed}"), (0, "{msg} {bytes} {elapsed}")];

/// The widest template that fits.
fn fitting<'a>(templates: &[(u16, &'a str)], width: u16) -> &'a str {
    templates
        .iter()
        .find(|(least, _)| *least <= width)
        .or(templates.last())
        .map_or("{msg}", |(_, text)| *text)
}

/// Columns of the terminal that progress is shown on.
fn width() -> u16 {
    terminal_size::terminal_size_of(stderr()).map_or(80, |(width, _)| width.0)
}

/// How far the files are: `12/240 files`.
fn with_files(style: ProgressStyle, done: Arc<AtomicU64>, total: Option<u64>) -> ProgressStyle {
    style.with_key("files", move |_: &ProgressState, text: &mut dyn std::fmt::Write| {
        let done = done.load(Ordering::Relaxed);
        // There is nobody to tell when this fails.
        let _ = match total {
            Some(total) => write!(text, "{}/{total} files", done.min(total)),
            None => write!(text, "{done} files"),
        };
    })
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
        let templates = match (bytes, files) {
            (Some(_), _) => &BY_BYTES[..],
            (None, Some(_)) => &BY_FILES[..],
            (None, None) => &UNKNOWN[..],
        };
        let bar = ProgressBar::with_draw_target(bytes.or(files), ProgressDrawTarget::stderr_with_hz(8));
        let done = Arc::new(AtomicU64::new(0));
        if let Ok(style) = ProgressStyle::with_template(fitting(templates, width())) {
            bar.set_style(with_files(style, Arc::clone(&done), files));
        }
        bar.set_message(words(activity));
        let counts_bytes = bytes.is_some() || files.is_none();
        self.with(|slot| *slot = Some(Drawn { bar, files: done, counts_bytes }));
    }

    fn advance(&self, bytes: u64, files: u64) {
        self.with(|slot| {
            if let Some(Drawn { bar, files: done, counts_bytes }) = slot {
                done.fetch_add(files, Ordering::Relaxed);
                bar.inc(if *counts_bytes { bytes } else { files });
            }
        });
    }

    fn end(&self) {
        self.with(|slot| {
            if let Some(drawn) = slot.take() {
                drawn.bar.finish_and_clear();
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
        for (width, wanted) in
            [(200, BY_BYTES[0].1), (76, BY_BYTES[0].1), (75, BY_BYTES[1].1), (20, BY_BYTES[2].1)]
        {
            assert_eq!(fitting(&BY_BYTES, width), wanted, "{width}");
        }
        for (_, template) in BY_BYTES.into_iter().chain(BY_FILES).chain(UNKNOWN) {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
