//! `docs/architecture.md` says what is there: the words that are forbidden are no names, and what it names in a file is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::layers::source_files;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(repository().join("docs/architecture.md")).unwrap()
}

/// What follows one of these is a name that somebody has chosen.
const DECLARE: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "mod", "const", "static", "let"];

/// The names that a source declares.
fn names_in(source: &str) -> BTreeSet<String> {
    let code: Vec<_> = source.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let code = code.join("\n");
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let mut names = BTreeSet::new();
    let mut last = "";
    for word in words.by_ref() {
        if DECLARE.contains(&last) && word != "mut" {
            names.insert(word.to_owned());
        }
        if word != "mut" {
            last = word;
        }
    }
    names
}

/// The words of a name, in lower case: of `TreeDigest` and of `tree_digest` they are `tree` and `digest`.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words
}

#[test]
fn forbidden_words_are_no_names() {
    let page = page();
    let line = page.lines().find_map(|line| line.strip_prefix("Forbidden as names: ")).unwrap();
    let forbidden: Vec<_> = line.split(", ").collect();
    assert!(forbidden.len() > 5);
    let mut files = Vec::new();
    source_files(&repository().join("src"), &mut files);
    for file in files {
        let mut names = names_in(&fs::read_to_string(&file).unwrap());
        names.insert(file.file_stem().unwrap().to_str().unwrap().to_owned());
        for name in names {
            let wrong = words_of(&name).into_iter().find(|word| forbidden.contains(&word.as_str()));
            assert_eq!(
                wrong,
                None,
                "`{name}` in {}: see the glossary of docs/architecture.md",
                file.display()
            );
        }
    }
}

/// What stands in backticks in a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn is_path(word: &str) -> bool {
    word.contains('/')
        && (word.starts_with("src/") || word.starts_with("tests/") || word.starts_with("boards/"))
}

/// Whether one of these files declares the name, or the variant that it names.
fn is_declared(name: &str, files: &[PathBuf]) -> bool {
    let last = name.rsplit("::").next().unwrap();
    files.iter().filter(|file| file.is_file()).any(|file| {
        let names = names_in(&fs::read_to_string(file).unwrap());
        name.split("::").all(|part| names.contains(part)) || names.contains(last)
    })
}

#[test]
fn the_walk_names_what_is_there() {
    let page = page();
    let walk = page.split("## One update, from the command to the commit").nth(1).unwrap();
    let rows: Vec<_> = walk.lines().take_while(|line| !line.starts_with("## ")).collect();
    let rows: Vec<_> = rows.into_iter().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 12);
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let files: Vec<_> = quoted(cells[1]).into_iter().map(|file| repository().join(file)).collect();
        assert!(files.iter().all(|file| file.is_file()), "{row}");
        for name in quoted(cells[2]) {
            assert!(is_declared(name, &files), "`{name}` is not in {}", cells[1]);
        }
    }
}

#[test]
fn every_file_that_the_page_names_is_there_and_declares_what_is_said_to_be_in_it() {
    let page = page();
    for path in quoted(&page).into_iter().filter(|word| is_path(word)) {
        assert!(repository().join(path).exists(), "`{path}` is not there");
    }
    // "`name` in `file`", wherever that is said.
    let words: Vec<_> = page.split('`').collect();
    let mut found = 0;
    for at in (1..words.len().saturating_sub(2)).step_by(2) {
        let between = words[at + 1].split_whitespace().collect::<Vec<_>>().join(" ");
        if (between == "in" || between == "of") && is_path(words[at + 2]) {
            let file = repository().join(words[at + 2]);
            assert!(is_declared(words[at], &[file]), "`{}` is not in `{}`", words[at], words[at + 2]);
            found += 1;
        }
    }
    assert!(found > 12, "the page answers questions by names: {found}");
}

#[test]
fn names_are_found_and_taken_apart() {
    let source = "pub(crate) fn stage_tree() {}\n// fn not_this()\nlet mut tree = 1; struct TreeDigest;";
    let names: Vec<_> = names_in(source).into_iter().collect();
    assert_eq!(names, ["TreeDigest", "stage_tree", "tree"]);
    assert_eq!(words_of("TreeDigest").join(" ").trim(), "tree digest");
    assert_eq!(words_of("stage_tree").join(" ").trim(), "stage tree");
}

/// clap would show it at the head of the command's help, in place of the command's own.
#[test]
fn no_struct_of_arguments_has_a_doc_comment() {
    let (mut files, mut structs) = (Vec::new(), 0);
    source_files(&repository().join("src"), &mut files);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let mut is_documented = false;
        for line in source.lines() {
            let is_of_args = line.starts_with("#[derive(") && line.trim_end_matches(")]").ends_with("Args");
            structs += usize::from(is_of_args);
            assert!(!(is_of_args && is_documented), "{}: {line}", file.display());
            is_documented = line.starts_with("///") || line.starts_with("#[") && is_documented;
        }
    }
    assert!(structs > 30, "{structs} structs were found");
}

/// `make test` lists at its end which tests have skipped themselves, and why: it looks for this form.
#[test]
fn a_test_that_skips_itself_says_its_name_and_why() {
    let (mut files, mut found) = (Vec::new(), 0);
    source_files(&repository().join("tests/it"), &mut files);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for text in source
            .split("eprintln!(\"")
            .skip(1)
            .filter(|text| text.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("skipped")))
        {
            let said = text.split('"').next().unwrap_or_default();
            let named = said.strip_prefix("SKIPPED ").and_then(|rest| rest.split_once(": "));
            assert!(
                named.is_some_and(|(name, why)| !name.is_empty() && !why.is_empty()),
                "{}: {said}",
                file.display()
            );
            found += 1;
        }
    }
    assert!(found > 10, "{found} were found");
}
