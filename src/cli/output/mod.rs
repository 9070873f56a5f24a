//! Results go to stdout, as text or as JSON; everything else to stderr.

pub mod logging;
pub mod monitoring;
pub mod narrator;
pub mod progress;
pub mod published;
pub mod screen;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::cli::output::logging::is_told;
use crate::cli::words::args::{Color, Global};

/// Where and how results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
    /// Nothing but results and errors.
    pub quiet: bool,
    pub color: bool,
    /// Columns of the terminal that results go to, if they do.
    pub width: Option<usize>,
}

impl Output {
    /// As the global options want it.
    pub fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        Self { json: global.json, quiet: global.quiet, color, width }
    }

    /// Prints a result: the text, or the value as JSON. A reader that has gone away is no error.
    pub fn result(&self, value: &impl Serialize, text: &str) {
        if self.json {
            print(&serde_json::to_string(value).unwrap_or_default());
        } else if !text.is_empty() {
            print(text.trim_end_matches('\n'));
        }
    }

    /// Prints how an update ended. Why it did not end well is worth a line on stderr even for those who want quiet; and
    /// where the journal reads what is printed, it has the same as a message with fields already.
    pub fn outcome(&self, value: &impl Serialize, text: &str, exit_code: u8) {
        if self.json || !is_told(io::stdout()) {
            self.result(value, text);
        }
        let is_shown = !self.json && io::stdout().is_terminal();
        if exit_code != 0 && self.quiet && !is_shown {
            say(text);
        }
    }

    /// Says something beside the result.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }
}

/// Narrower columns than these are not worth breaking lines for.
const COLUMN_MIN: usize = 16;

impl Output {
    /// Rows of a name and a text, as a table; where the terminal is narrow, long texts go on below themselves.
    pub fn fold(&self, rows: &[Vec<String>]) -> String {
        let names = rows.iter().filter_map(|row| row.first()).map(|name| name.chars().count()).max();
        let indent = names.unwrap_or(0) + 2;
        let room = self.width.map(|width| width.saturating_sub(indent).max(COLUMN_MIN));
        let Some(room) = room else { return table(rows) };
        let mut folded = Vec::new();
        for row in rows {
            let (name, text) =
                (row.first().cloned().unwrap_or_default(), row.get(1).cloned().unwrap_or_default());
            let mut lines = broken(&text, room).into_iter();
            folded.push(vec![name, lines.next().unwrap_or_default()]);
            folded.extend(lines.map(|line| vec![String::new(), line]));
        }
        table(&folded)
    }
}

/// A text in lines of at most `room` characters, broken between words.
fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(last) = lines.last_mut() else { continue };
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= room {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// How a headline looks on a terminal with colours.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    Well,
    Busy,
    Alarm,
}

impl Output {
    /// The text in the colour of its tone, where colours are wanted.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        colored(tone, text)
    }
}

fn colored(tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Well => 32,
        Tone::Busy => 33,
        Tone::Alarm => 31,
    };
    format!("\x1b[1;{code}m{text}\x1b[0m")
}

/// The text in the colour of its tone, where stderr wants colours.
pub fn paint_stderr(global: &Global, tone: Tone, text: &str) -> String {
    let is_wanted = match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    if is_wanted { colored(tone, text) } else { text.to_owned() }
}

/// Whether a result could not be written: there is one stdout in a process, and so one such fact.
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// One line, or several, on stdout.
pub fn print(text: &str) {
    print_bytes(format!("{text}\n").as_bytes());
}

/// These bytes on stdout. A reader that has gone away is no error; what is lost otherwise is told, once.
pub fn print_bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
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

/// A duration in the unit that a person would use.
pub fn milliseconds(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        60_000..7_200_000 => format!("{} min {} s", milliseconds / 60_000, milliseconds % 60_000 / 1000),
        _ => format!("{} h {} min", milliseconds / 3_600_000, milliseconds % 3_600_000 / 60_000),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_a_person_would_use() {
        let all = [592, 8_353, 59_999, 125_000, 7_260_000].map(milliseconds);
        assert_eq!(all, ["592 ms", "8.3 s", "59.9 s", "2 min 5 s", "2 h 1 min"]);
    }

    #[test]
    fn long_texts_go_on_below_themselves() {
        let output = |width| Output { json: false, quiet: false, color: false, width };
        let rows = [["  last".to_owned(), "one two three four five".to_owned()].to_vec()];
        assert_eq!(output(None).fold(&rows), "  last  one two three four five");
        assert_eq!(output(Some(80)).fold(&rows), output(None).fold(&rows));
        assert_eq!(output(Some(26)).fold(&rows), "  last  one two three four\n        five");
        assert_eq!(output(Some(3)).fold(&rows), "  last  one two three\n        four five");
    }
}
