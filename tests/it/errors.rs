//! Every error message in the program has the shape that operators are promised: lower case, no full stop, what failed
//! and on what, and none of the phrases that say nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Says nothing, or says it wrongly.
const BANNED: [&str; 9] = [
    "failed to",
    "invalid input",
    "please",
    "unexpected error",
    "unable to",
    "something went wrong",
    "oops",
    "!",
    "error:",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The texts of all `#[error("…")]` of a file, with their lines.
fn messages(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("#[error(") {
        let rest = source[at + "#[error(".len()..].trim_start();
        let Some(text) = rest.strip_prefix('"') else { continue };
        let mut message = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => message.extend(characters.next()),
                other => message.push(other),
            }
        }
        found.push((source[..at].lines().count(), message));
    }
    found
}

/// What is wrong with a message; nothing when it is well.
fn remarks(message: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lower = message.to_lowercase();
    for phrase in BANNED.iter().filter(|phrase| lower.contains(*phrase)) {
        wrong.push(format!("says `{phrase}`"));
    }
    if message.ends_with('.') && !message.ends_with("..") {
        wrong.push("ends with a full stop".to_owned());
    }
    let first = message.chars().next().unwrap_or(' ');
    let first_word: String = message.chars().take_while(|c| c.is_alphanumeric()).collect();
    let is_name = first_word.len() > 1 && first_word.chars().all(|c| !c.is_lowercase());
    if first.is_uppercase() && !is_name {
        wrong.push("begins with a capital".to_owned());
    }
    if message.is_empty() {
        wrong.push("says nothing".to_owned());
    }
    // A path that ends a sentence, or has blanks, must be seen as one.
    for field in ["path", "root", "file", "url", "place"] {
        for open in [format!("{{{field}}}"), format!("{{{field}:?}}")] {
            for (at, _) in message.match_indices(&open) {
                let is_quoted = !message[..at].matches('`').count().is_multiple_of(2);
                if !is_quoted {
                    wrong.push(format!("shows {open} without backticks"));
                }
            }
        }
    }
    if !message.matches('`').count().is_multiple_of(2) {
        wrong.push("has a backtick alone".to_owned());
    }
    wrong
}

#[test]
fn every_error_message_has_the_promised_shape() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in files {
        for (line, message) in messages(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            for remark in remarks(&message) {
                wrong.push(format!("{}:{line}: {remark}: {message}", file.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} messages were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_messages_are_noticed() {
    for message in [
        "Failed to open",
        "cannot read {path}",
        "cannot read `x`.",
        "Please try again",
        "cannot read `x",
        "",
        "stop!",
    ] {
        assert!(!remarks(message).is_empty(), "{message}");
    }
    for message in
        ["cannot read `{path}`: {why}", "TOML cannot be read", "no tree of release {0} on this node"]
    {
        assert_eq!(remarks(message), [] as [String; 0], "{message}");
    }
}
