//! The documents say what the program does: every setting stands in README's table, once, with its true default.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use cutover::lifecycle::settings::Settings;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The keys that the program knows in a table, from what it says to an unknown one.
fn known_keys(table: &str) -> BTreeSet<String> {
    let head = if table.is_empty() { String::new() } else { format!("{table}\n") };
    let error = toml::from_str::<Settings>(&format!("{head}no_such_key = 1\n")).unwrap_err();
    let message = error.message();
    let expected = message.split_once("expected").unwrap_or_else(|| panic!("{table}: {message}")).1;
    expected.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// README's table of settings: for each TOML table its keys.
fn documented_keys() -> BTreeMap<String, BTreeSet<String>> {
    let readme = document("README.md");
    let section = readme.split("## Configuration").nth(1).unwrap();
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in section.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let first = line.trim_start_matches('|').split('|').next().unwrap().trim();
        if let Some(head) = first.strip_prefix("**`").and_then(|rest| rest.strip_suffix("`**")) {
            table = head.to_owned();
            tables.entry(table.clone()).or_default();
            continue;
        }
        for key in first.split('`').skip(1).step_by(2) {
            let is_new = tables.entry(table.clone()).or_default().insert(key.to_owned());
            assert!(is_new, "`{key}` of {table} is documented twice");
        }
    }
    tables
}

#[test]
fn every_setting_stands_in_the_readme_and_no_other() {
    let mut documented = documented_keys();
    let top: BTreeSet<String> = documented.remove("").unwrap();
    let tables: BTreeSet<String> = documented
        .keys()
        .filter(|head| !head.contains('.'))
        .map(|head| head.trim_matches(['[', ']']).to_owned())
        .collect();
    assert_eq!(top.union(&tables).cloned().collect::<BTreeSet<_>>(), known_keys(""));
    for (table, keys) in documented.iter().filter(|(table, _)| *table != "[links]") {
        let mut known = known_keys(table);
        // Arrays of tables that have lines of their own.
        known
            .retain(|key| !documented.contains_key(&format!("[[{}.{key}]]", table.trim_matches(['[', ']']))));
        assert_eq!(*keys, known, "{table}");
    }
}

#[test]
fn every_default_in_the_readme_is_the_true_one() {
    let readme = document("README.md");
    let section = readme.split("## Configuration").nth(1).unwrap();
    let defaults = toml::Table::try_from(Settings::default()).unwrap();
    let mut table = String::new();
    let mut compared = 0;
    for line in section.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(head) = cells[0].strip_prefix("**`") {
            table = head.trim_end_matches("`**").trim_matches(['[', ']']).to_owned();
            continue;
        }
        let keys = cells[0].split('`').skip(1).step_by(2);
        for (key, value) in keys.zip(cells[1].split(", ")) {
            let Some(value) = value.strip_prefix('`').and_then(|value| value.strip_suffix('`')) else {
                continue;
            };
            let Some(known) = defaults.get(&table).and_then(|table| table.get(key)) else { continue };
            let said: toml::Table = format!("{table}.{key} = {value}").parse().unwrap();
            // Through the program, so that `1h` and `3600s` are the same.
            let read: Settings =
                said.clone().try_into().unwrap_or_else(|error| panic!("{table}.{key}: {error}"));
            assert_eq!(read, Settings::default(), "{table}.{key} is {known} by default, not {value}");
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} defaults were found in README's table");
}

#[test]
fn every_exit_code_stands_in_the_readme_and_in_troubleshooting() {
    let codes = ["0", "1", "2", "10", "11", "12", "13", "14", "15", "16", "17", "77"];
    for name in ["README.md", "docs/troubleshooting.md"] {
        let text = document(name);
        for code in codes {
            let rows = text.lines().filter(|line| line.starts_with(&format!("| {code} | "))).count();
            assert_eq!(rows, 1, "{code} in {name}");
        }
    }
}
#[test]
fn every_link_between_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root.join("docs")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".md") {
            documents.push(format!("docs/{name}"));
        }
    }
    for name in documents {
        let text = document(&name);
        let directory = root.join(&name).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or("");
            if !target.starts_with("http") && !path.is_empty() {
                assert!(directory.join(path).exists(), "{name} links to {target}");
            }
        }
    }
}

/// The commands of the program, with those below them: `hold`, `config show`.
fn commands() -> BTreeSet<String> {
    let command = cutover::cli::words::args::Cli::command();
    let mut names = BTreeSet::new();
    for sub in command.get_subcommands() {
        names.insert(sub.get_name().to_owned());
        names.extend(sub.get_subcommands().map(|below| format!("{} {}", sub.get_name(), below.get_name())));
    }
    names
}

/// The commands that a text tells people to type: after a backtick, at the begin of a line of code, or in a unit.
fn told_commands(text: &str) -> Vec<String> {
    let mut told = Vec::new();
    for start in ["`cutover ", "\ncutover ", "/usr/bin/cutover --app %i ", "$ cutover "] {
        for (at, _) in text.match_indices(start) {
            // Outside of a block of code a line may just begin with the program's name.
            if start.starts_with('\n') && text[..at + 1].matches("\n```").count().is_multiple_of(2) {
                continue;
            }
            let line = text[at + start.len()..].lines().next().unwrap_or("");
            told.push(line.split(['`', '"', '#']).next().unwrap_or("").trim().to_owned());
        }
    }
    told
}

#[test]
fn every_command_that_people_are_told_to_type_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = commands();
    let mut files = vec![root.join("README.md")];
    let mut directories =
        vec![root.join("src"), root.join("docs"), root.join("systemd"), root.join("packaging")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { directories.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for told in told_commands(&text) {
            let mut words = told.split_whitespace();
            let (Some(first), second) = (words.next(), words.next().unwrap_or("")) else { continue };
            let is_command =
                first.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !first.starts_with('-');
            // The last is what a table of random numbers is made of.
            if !is_command || first == "gear" {
                continue;
            }
            seen += 1;
            let has_below = known.iter().any(|name| name.starts_with(&format!("{first} ")));
            let is_below = second.chars().all(|c| c.is_ascii_lowercase()) && !second.is_empty();
            if !known.contains(first)
                || (has_below && is_below && !known.contains(&format!("{first} {second}")))
            {
                wrong.push(format!("{}: `cutover {told}`", file.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_of_a_configuration_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples = vec![("packaging/shop.toml".to_owned(), document("packaging/shop.toml"))];
    let mut documents = vec!["README.md".to_owned()];
    documents.extend(fs::read_dir(root.join("docs")).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".md").then(|| format!("docs/{name}"))
    }));
    for name in documents {
        for block in document(&name).split("\n```toml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let head = if block.contains("root = ") { "" } else { "root = \"/srv/shop\"\n" };
            examples.push((name.clone(), format!("{head}{block}\n")));
        }
    }
    assert!(examples.len() > 5, "only {} examples were found", examples.len());
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in examples {
        let path = directory.path().join("shop.toml");
        fs::write(&path, &text).unwrap();
        match cutover::config::load_file(&path) {
            // A part of a configuration may lack what its other parts say.
            Ok(_) | Err(cutover::config::Problem::Contradiction { .. }) => {}
            Err(problem) => panic!("an example in {name} is refused: {problem}\n{text}"),
        }
    }
}
