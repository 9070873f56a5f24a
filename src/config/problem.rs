//! What is wrong with a configuration, in one sentence with file, line and the nearest known word.

use std::path::{Path, PathBuf};

use crate::sys::owned;

/// A configuration that cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No configuration of this name.
    #[error("no configuration of application `{app}`: there is no `{}`", .looked.display())]
    NoSuchApp { app: String, looked: PathBuf, known: Vec<String> },
    /// The name cannot be one.
    #[error("`{}` cannot name an application: letters, digits and `._+~-`, at most 64", .0.escape_debug())]
    AppName(String),
    /// A file that was named is not there.
    #[error("cannot read `{}`: there is no such file", .0.display())]
    Missing(PathBuf),
    /// It cannot be read, or somebody else could have written it.
    #[error(transparent)]
    Owned(#[from] owned::Error),
    /// Not UTF-8, or with NUL bytes.
    #[error("`{}` is not a text in UTF-8", .file.display())]
    NotText { file: PathBuf },
    /// Wrong syntax, key or value.
    #[error("`{}`, line {line}: {what}", .file.display())]
    InFile {
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        what: String,
        nearest: Option<String>,
    },
    /// Values that do not go together.
    #[error("the configuration cannot work: {why}")]
    Contradiction { why: String },
}

/// What the parser said of a file.
pub(super) fn in_file(file: &Path, text: &str, error: &toml::de::Error) -> Problem {
    let position = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1;
    let message = error.message().lines().next().unwrap_or_default();
    let nearest = nearest_known(message);
    let what = match message.split_once(", expected") {
        Some((what, _)) if message.starts_with("unknown field") => {
            what.replace("unknown field", "unknown key")
        }
        _ => message.to_owned(),
    };
    Problem::InFile { file: file.to_owned(), line, what, nearest }
}

/// The word that was probably meant, from a message such as "unknown field `a`, expected one of `b`, `c`".
fn nearest_known(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted)
}

/// The one of the words that is most like `unknown`, if one is like it at all.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    const LIKENESS_MIN: f64 = 0.7;
    known
        .map(|word| (strsim::jaro_winkler(unknown, word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::settings::Settings;

    #[test]
    fn a_typo_is_named_with_its_line_and_the_nearest_key() {
        let text = "root = '/srv'\n[helth]\n";
        let error = toml::from_str::<Settings>(text).unwrap_err();
        let Problem::InFile { line, what, nearest, .. } = in_file(Path::new("x"), text, &error) else {
            panic!()
        };
        assert_eq!((line, what.as_str(), nearest.as_deref()), (2, "unknown key `helth`", Some("health")));
    }
}
