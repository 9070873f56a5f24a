//! The layers: `cli → config → lifecycle → { coord, store, release, health } → sys → types`, imports to the right only.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from left to right; those in one group do not know each other.
const LAYERS: [&[&str]; 6] =
    [&["cli"], &["config"], &["lifecycle"], &["coord", "store", "release", "health"], &["sys"], &["types"]];

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|group| group.contains(&layer))
}

/// Whether a file of `layer` may name something of `other`.
fn may_use(layer: &str, other: &str) -> bool {
    layer == other || rank(layer) < rank(other)
}

pub fn source_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source without its comments (line comments only: the project has no others) and on one line.
fn code_of(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join(" ")
}

/// The first names of all paths that begin with `prefix`: of `crate::a::B` it is `a`, of `crate::{a::B, c}` `a` and `c`.
fn first_names(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = code[at + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            names.push(leading_name(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (end, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.push(leading_name(group[start..end].trim_start()));
                    start = end + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What of the crate's top level a file names: through `crate::`, and through as many `super::` as lead there.
fn used_by(path_in_src: &Path, source: &str) -> Vec<String> {
    let code = code_of(source);
    let mut names = first_names(&code, "crate::");
    let is_module_file = path_in_src.file_name().is_some_and(|name| name == "mod.rs");
    let depth = path_in_src.components().count() - usize::from(is_module_file);
    names.extend(first_names(&code, &"super::".repeat(depth)));
    names
}

#[test]
fn imports_run_to_the_right_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let layer = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        if inside.components().count() == 1 {
            assert!(layer == "lib.rs" || layer == "main.rs", "src/{layer} belongs to no layer");
            continue;
        }
        assert!(rank(layer).is_some(), "src/{layer} is not a known layer");
        for used in used_by(inside, &fs::read_to_string(&file).unwrap()) {
            if rank(&used).is_some() && !may_use(layer, &used) {
                wrong.push(format!("src/{}: {layer} uses {used}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the layers:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let source = "use crate::{types::{Size, Span}, sys, store::Store};\n\
                  // use crate::cli;\n\
                  fn f() -> crate::health::Verdict { super::super::coord::x() }";
    let mut seen = used_by(Path::new("lifecycle/driver.rs"), source);
    seen.sort();
    assert_eq!(seen, ["coord", "health", "store", "sys", "types"]);
}

#[test]
fn neighbours_and_leftward_layers_are_refused() {
    assert!(may_use("lifecycle", "store") && may_use("store", "store") && may_use("cli", "types"));
    assert!(!may_use("store", "release") && !may_use("sys", "store") && !may_use("types", "sys"));
}
