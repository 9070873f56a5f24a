//! `docs/security.md` promises a test for each attack: the tests are there.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_page_on_security_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let table = page.split("## Attacks and the tests").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut sources = String::new();
    let mut directories = vec![root.join("src"), root.join("tests/it")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension().and_then(|end| end.to_str()) {
                Some("rs") => sources += &fs::read_to_string(path).unwrap(),
                _ if path.is_dir() => directories.push(path),
                _ => {}
            }
        }
    }
    let names = table
        .lines()
        .filter_map(|line| line.rsplit('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut count = 0;
    for name in names {
        let is_there = if name.starts_with("tests/") {
            root.join(name).exists()
        } else {
            name.contains('=') || sources.contains(&format!("fn {name}("))
        };
        assert!(is_there, "{name}");
        count += 1;
    }
    assert!(count > 40, "only {count} tests are named");
}
