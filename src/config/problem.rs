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
    /// A text with a NUL byte.
    #[error("`{}`: `{key}` has a NUL byte, which no path, address or argument can have", .file.display())]
    Nul { file: PathBuf, key: String },
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
        _ => in_plain_words(message),
    };
    Problem::InFile { file: file.to_owned(), line, what, nearest }
}

/// The same without the words of the language that this program is written in.
fn in_plain_words(message: &str) -> String {
    const WORDS: [(&str, &str); 8] = [
        ("unknown variant", "unknown value"),
        (" as i128", ""),
        ("invalid type: map", "invalid type: table"),
        ("invalid type: sequence", "invalid type: list"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
        ("floating point", "number"),
        ("expected f64", "expected a number"),
    ];
    let message = WORDS.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours));
    let Some((found, wanted)) = message.rsplit_once("expected ") else { return message };
    let wanted = match wanted {
        _ if wanted.starts_with("struct ") => "a table",
        "usize" | "u64" => "a whole number from 0",
        "u32" => "a whole number from 0 to 4294967295",
        "u16" => "a whole number from 0 to 65535",
        wanted => wanted,
    };
    format!("{found}expected {wanted}")
}

/// The word that was probably meant, from a message such as "unknown field `a`, expected one of `b`, `c`".
fn nearest_known(message: &str) -> Option<String> {
    // Other messages have an example between such marks.
    let known = ["unknown field", "unknown variant"].iter().any(|begin| message.starts_with(begin));
    let mut quoted = message.split('`').skip(1).step_by(2).filter(|_| known);
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

    #[test]
    fn an_example_is_no_suggestion() {
        let text = "[policy]\nwindows = [{ start = '2:30', length = '1h' }]\n";
        let error = toml::from_str::<Settings>(text).unwrap_err();
        let Problem::InFile { what, nearest, .. } = in_file(Path::new("x"), text, &error) else { panic!() };
        assert!(what.contains("01:30") && nearest.is_none(), "{what}: {nearest:?}");
    }

    #[test]
    fn no_type_of_this_programs_language_is_named() {
        for (text, wanted) in [
            ("[store]\nkeep = -1", "invalid value: integer `-1`, expected a whole number from 0"),
            ("[store]\nkeep = 1.5", "invalid type: number `1.5`, expected a whole number from 0"),
            (
                "[store]\nmethod = 'x'",
                "unknown value `x`, expected one of `auto`, `btrfs`, `reflink`, `hardlink`, `copy`",
            ),
            ("[policy]\nwindows = ['Mon']", "invalid type: string \"Mon\", expected a table"),
            (
                "[store]\nkeep = 99999999999999999999",
                "invalid type: integer `99999999999999999999`, expected a whole number from 0",
            ),
            ("health = 5", "invalid type: integer `5`, expected a table"),
            ("data = 5", "invalid type: integer `5`, expected a list"),
        ] {
            let error = toml::from_str::<Settings>(text).unwrap_err();
            let Problem::InFile { what, .. } = in_file(Path::new("x"), text, &error) else { panic!() };
            assert_eq!(what, wanted, "{text}");
        }
    }
}
