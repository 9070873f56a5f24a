//! The text form of manifests and channels: one `key = value` a line, and nothing else.
//!
//! ```text
//! format = 1
//! product = shop
//! version = 1.4.2
//! ```
//! UTF-8 without control characters but the newline; no empty lines, no comments (`x-note = …` is one that is signed).
//! `format` comes first. A key stands once unless it may be repeated; an unknown one is refused unless it begins with
//! `x-`. The strictness leaves one way to read a file, so that what was signed is what is understood.

use std::str::FromStr;

use jiff::Timestamp;

use crate::types::{Digest, Version, escaped};

/// The number of the form that this program writes and reads.
pub const FORMAT: u64 = 1;

/// A text that is not in the form, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A limit on the whole.
    #[error("it is {size} bytes long, and at most {limit} are read")]
    TooLong {
        /// Bytes that there are.
        size: usize,
        /// Bytes that are read.
        limit: usize,
    },
    #[error("line {line}: {problem}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// Something about the value of a key.
    #[error("line {line}: `{key}`: {problem}")]
    Value {
        /// The line's number, from 1.
        line: usize,
        key: String,
        /// What is wrong with its value.
        problem: ValueProblem,
    },
    /// A key that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The text is meant for a later version of this program.
    #[error("it has format {0}, and this cutover reads format {FORMAT}: it was made for a newer one")]
    Newer(u64),
}

/// What may be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Bytes that are not UTF-8.
    #[error("it is not UTF-8")]
    NotText,
    /// A control character: a tab, a carriage return, a zero byte.
    #[error("it has the control character U+{0:04X}")]
    Control(u32),
    #[error("it is empty")]
    Empty,
    /// There is no key, or no equals sign.
    #[error("it is not of the form `key = value`")]
    NotAPair,
    /// Something else stands where `format` must.
    #[error("the first line must be `format = {FORMAT}`")]
    FormatNotFirst,
    /// The key was given before.
    #[error("`{key}` is given twice, first on line {first}")]
    Twice { key: String, first: usize },
    #[error("`{key}` is unknown{}", nearest.map_or_else(String::new, |nearest| format!(" (did you mean `{nearest}`?)")))]
    Unknown {
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
}

/// What may be wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    #[error("its value is empty")]
    Empty,
    /// It is not what the key asks for.
    #[error("`{value}` is not {wanted}")]
    Not {
        /// The value, safe to print.
        value: String,
        /// What the key asks for.
        wanted: &'static str,
    },
    /// It stands against another value.
    #[error("{0}")]
    Conflict(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// What stands before the equals sign.
    pub key: &'a str,
    /// What stands after it, without the spaces around; may be empty.
    pub value: &'a str,
}

impl Line<'_> {
    /// An error about this line's value.
    pub fn wrong(&self, problem: ValueProblem) -> Malformed {
        Malformed::Value { line: self.number, key: self.key.to_owned(), problem }
    }

    fn not(&self, wanted: &'static str) -> Malformed {
        if self.value.is_empty() {
            return self.wrong(ValueProblem::Empty);
        }
        let value = escaped(self.value.as_bytes()).chars().take(100).collect();
        self.wrong(ValueProblem::Not { value, wanted })
    }

    /// The value as something that has a text form.
    pub fn parsed<T: FromStr>(&self, wanted: &'static str) -> Result<T, Malformed> {
        self.value.parse().map_err(|_| self.not(wanted))
    }

    /// A whole number in decimal digits, without sign and leading zeros.
    pub fn number(&self) -> Result<u64, Malformed> {
        number(self.value).ok_or_else(|| self.not("a whole number below 2^64"))
    }

    /// A digest: 64 hex digits, with or without `sha256:` before them.
    pub fn digest(&self) -> Result<Digest, Malformed> {
        let digits = self.value.strip_prefix("sha256:").unwrap_or(self.value);
        Digest::from_hex(digits).map_err(|_| self.not("a SHA-256 digest of 64 hex digits"))
    }

    pub fn version(&self) -> Result<Version, Malformed> {
        self.parsed("a version: letters, digits or `._+~-`, the first a letter or digit")
    }

    /// A moment in UTC, to the second.
    pub fn moment(&self) -> Result<Timestamp, Malformed> {
        moment(self.value).ok_or_else(|| self.not("a UTC time such as `2026-01-31T12:00:00Z`"))
    }

    /// A name: letters, digits or `._-`, the first a letter or digit, at most 64.
    pub fn name(&self) -> Result<String, Malformed> {
        if is_name(self.value) {
            Ok(self.value.to_owned())
        } else {
            Err(self.not("a name: at most 64 letters, digits or `._-`, the first a letter or digit"))
        }
    }

    /// The name of a file in the same directory.
    pub fn file_name(&self) -> Result<String, Malformed> {
        if is_file_name(self.value) {
            Ok(self.value.to_owned())
        } else {
            Err(self.not("a plain file name: letters, digits or `._+~-`, the first a letter or digit"))
        }
    }

    /// A list `[1, 2]` of whole numbers; a single number is a list of one.
    pub fn numbers(&self) -> Result<Vec<u64>, Malformed> {
        let wrong = || self.not("a list of whole numbers such as `[3, 4]`");
        let inner = match self.value.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None => self.value,
        };
        inner.split(',').map(|item| number(item.trim_matches(' ')).ok_or_else(wrong)).collect()
    }

    pub fn names(&self) -> Result<Vec<String>, Malformed> {
        let names = self.value.split(',').map(|name| name.trim_matches(' '));
        let named = |name: &str| is_name(name).then(|| name.to_owned());
        names.map(named).collect::<Option<_>>().ok_or_else(|| self.not("names separated by commas"))
    }
}

/// A whole number in decimal digits, without sign and leading zeros.
pub fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// A moment in UTC, to the second: `2026-01-31T12:00:00Z`.
pub fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|moment: &Timestamp| moment_text(*moment) == text)
}

/// The text of a moment, to the second.
pub fn moment_text(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether it is 1 to 64 letters, digits or `._-`, the first a letter or digit.
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether it is 1 to 250 letters, digits or `._+~-`, the first a letter or digit: a file name that needs no quoting.
pub fn is_file_name(text: &str) -> bool {
    text.len() <= 250
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte))
}

/// The lines of a document whose keys are known.
#[derive(Debug)]
pub struct Document<'a> {
    lines: Vec<Line<'a>>,
}

impl<'a> Document<'a> {
    /// Reads `bytes`. Of `once` each key stands at most once; those of `repeated` may stand several times.
    pub fn read(
        bytes: &'a [u8],
        limit: usize,
        once: &[&'static str],
        repeated: &[&'static str],
    ) -> Result<Self, Malformed> {
        if bytes.len() > limit {
            return Err(Malformed::TooLong { size: bytes.len(), limit });
        }
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let mut lines: Vec<Line<'a>> = Vec::new();
        for (index, bytes) in body.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let line =
                read_line(number, bytes).map_err(|problem| Malformed::Line { line: number, problem })?;
            if number == 1 {
                check_format(line)?;
            } else {
                check_key(line, &lines, once, repeated)
                    .map_err(|problem| Malformed::Line { line: number, problem })?;
            }
            lines.push(line);
        }
        Ok(Self { lines })
    }

    /// The line of a key, where there is one.
    pub fn get(&self, key: &str) -> Option<Line<'a>> {
        self.lines.iter().find(|line| line.key == key).copied()
    }

    /// The line of a key that must be there.
    pub fn need(&self, key: &'static str) -> Result<Line<'a>, Malformed> {
        self.get(key).ok_or(Malformed::Missing(key))
    }

    /// All lines of a key.
    pub fn all(&self, key: &str) -> impl Iterator<Item = Line<'a>> {
        self.lines.iter().filter(move |line| line.key == key).copied()
    }

    /// Keys and values of the lines that begin with `x-`, in their order.
    pub fn extras(&self) -> Vec<(String, String)> {
        let extra = self.lines.iter().filter(|line| line.key.starts_with("x-"));
        extra.map(|line| (line.key.to_owned(), line.value.to_owned())).collect()
    }
}

fn read_line(number: usize, bytes: &[u8]) -> Result<Line<'_>, LineProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| LineProblem::NotText)?;
    if let Some(control) = text.chars().find(|character| character.is_control()) {
        return Err(LineProblem::Control(u32::from(control)));
    }
    if text.trim().is_empty() {
        return Err(LineProblem::Empty);
    }
    let (key, value) = text.split_once('=').ok_or(LineProblem::NotAPair)?;
    let key = key.trim_end_matches(' ');
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if key.is_empty() || key.len() > 64 || !key.bytes().all(allowed) {
        return Err(LineProblem::NotAPair);
    }
    Ok(Line { number, key, value: value.trim_matches(' ') })
}

fn check_format(line: Line<'_>) -> Result<(), Malformed> {
    if line.key != "format" {
        return Err(Malformed::Line { line: line.number, problem: LineProblem::FormatNotFirst });
    }
    match line.number()? {
        FORMAT => Ok(()),
        0 => Err(line.not("a format that there is")),
        newer => Err(Malformed::Newer(newer)),
    }
}

fn check_key(
    line: Line<'_>,
    before: &[Line<'_>],
    once: &[&'static str],
    repeated: &[&'static str],
) -> Result<(), LineProblem> {
    if repeated.contains(&line.key) {
        return Ok(());
    }
    let key = || line.key.to_owned();
    if let Some(first) = before.iter().find(|other| other.key == line.key) {
        return Err(LineProblem::Twice { key: key(), first: first.number });
    }
    if once.contains(&line.key) || line.key.len() > 2 && line.key.starts_with("x-") {
        return Ok(());
    }
    let known = once.iter().chain(repeated).copied();
    let scored = known.map(|known| (strsim::osa_distance(known, line.key), known));
    let nearest = scored.filter(|(distance, _)| *distance <= 2).min().map(|(_, known)| known);
    Err(LineProblem::Unknown { key: key(), nearest })
}
