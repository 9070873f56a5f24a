//! Every error message in the program has the shape that operators are promised: lower case, no full stop, what failed
//! and on what, and none of the phrases that say nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cutover::cli::failure::{Error, Failure, failure};

use crate::error_examples::{failures, inner_messages};

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

/// Errors whose message says all that there is to do; every other one must have a hint.
const WITHOUT_HINT: [&str; 4] = [
    // It says what it is about, and there is nothing to be done.
    "is active already",
    "no update is under way",
    // The message is the instruction.
    "`--version` goes with an archive",
    "not now: ",
];

/// What is wrong with a failure as the operator reads it.
fn wrong_in(told: &Failure, codes: &BTreeSet<u8>) -> Vec<String> {
    let mut wrong = remarks(&told.message);
    if told.message.contains('\n') {
        wrong.push("has several lines".into());
    }
    if !codes.contains(&told.code) || [0, 10, 77].contains(&told.code) {
        wrong.push(format!("ends with the code {}", told.code));
    }
    match &told.hint {
        Some(hint) => {
            wrong.extend(remarks(hint).into_iter().map(|remark| format!("its hint {remark}: {hint}")))
        }
        None if WITHOUT_HINT.iter().any(|text| told.message.contains(text)) => {}
        None => wrong.push("has no hint".into()),
    }
    wrong
}

/// The codes of README's table.
fn documented_codes() -> BTreeSet<u8> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split("## Exit codes").nth(1).unwrap().split("\n## ").next().unwrap();
    section.lines().filter_map(|line| line.split('|').nth(1)?.trim().parse().ok()).collect()
}

#[test]
fn every_failure_is_told_as_promised() {
    let codes = documented_codes();
    assert!(codes.len() > 10, "{codes:?}");
    let (mut seen, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    let all: Vec<(String, Error)> = failures();
    for (name, error) in &all {
        let told = failure(error);
        seen.insert(told.code);
        for remark in wrong_in(&told, &codes) {
            wrong.insert(format!("{name}: {remark}: {}", told.message));
        }
    }
    for (name, message) in inner_messages() {
        for remark in remarks(&message) {
            wrong.insert(format!("{name}: {remark}: {message}"));
        }
    }
    assert!(all.len() > 300, "only {} examples", all.len());
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    assert_eq!(seen, BTreeSet::from([1, 2, 11, 12, 13, 14, 15, 16, 17]), "the codes of errors");
}

#[test]
fn a_failure_says_what_serves_and_what_to_do() {
    let node = crate::node::TestNode::new(&[crate::node::Health::Good]);
    assert_eq!(node.update(1), 0);
    let output = node.run(&["rollback"]);
    let said = crate::node::text(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(output.status.code(), Some(1));
    assert!(lines[0].starts_with("error: there is no release to go back to"), "{said}");
    assert_eq!(lines[1], "state: release 1 is active");
    assert!(lines[2].starts_with("hint: `cutover list`"), "{said}");
    let output = node.run(&["switch", "1.0"]);
    assert!(crate::node::text(&output.stderr).contains("hint: did you mean `1`?"), "{output:?}");
    let output = node.run(&["stauts"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(crate::node::text(&output.stderr).contains("status"), "{output:?}");
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("[health]", "[heatlh]")).unwrap();
    let output = node.run(&["status"]);
    let said = crate::node::text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("line 2") && said.contains("hint: did you mean `health`?"), "{said}");
}
