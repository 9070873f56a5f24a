//! Results go to stdout, as text or as JSON; everything else to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::args::{Color, Global};

/// Where and how results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
    /// Nothing but results and errors.
    pub quiet: bool,
    /// With colours.
    pub color: bool,
}

impl Output {
    /// As the global options want it.
    pub fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Self { json: global.json, quiet: global.quiet, color }
    }

    /// Prints a result: the text, or the value as JSON. A reader that has gone away is no error.
    pub fn result(&self, value: &impl Serialize, text: &str) {
        if self.json {
            print(&serde_json::to_string(value).unwrap_or_default());
        } else if !text.is_empty() {
            print(text.trim_end_matches('\n'));
        }
    }

    /// Says something beside the result.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }
}

/// How a headline looks on a terminal with colours.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// All is well.
    Well,
    /// Something is going on.
    Busy,
    /// Somebody must act.
    Alarm,
}

impl Output {
    /// The text in the colour of its tone, where colours are wanted.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Well => 32,
            Tone::Busy => 33,
            Tone::Alarm => 31,
        };
        format!("\x1b[1;{code}m{text}\x1b[0m")
    }
}

/// Whether a result could not be written: there is one stdout in a process, and so one such fact.
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// One line, or several, on stdout. A reader that has gone away is no error; what is lost otherwise is told, once.
pub fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            if !IS_LOST.swap(true, Ordering::Relaxed) {
                say(&format!("error: cannot write the result: {error}"));
            }
        }
        Ok(()) | Err(_) => {}
    }
}

/// Whether a result was lost.
pub fn is_lost() -> bool {
    IS_LOST.load(Ordering::Relaxed)
}

/// One line, or several, on stderr.
pub fn say(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Columns, each as wide as its widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
