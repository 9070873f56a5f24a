//! Names that lead elsewhere, or are none.

use cutover::types::escaped;

use super::build::{Head, Tar};
use super::{Case, accepted, refused, run};

pub fn cases() -> Vec<Case> {
    [escapes(), odd(), repeated()].concat()
}

#[test]
fn names_never_lead_out_of_the_tree() {
    run(escapes());
}

#[test]
fn odd_names_are_kept_or_refused_but_never_changed() {
    run(odd());
}

#[test]
fn one_path_is_one_entry() {
    run(repeated());
}

fn one(name: impl AsRef<[u8]>) -> Vec<u8> {
    Tar::new().file(name, "x").end()
}

fn escapes() -> Vec<Case> {
    let prefixed = Tar::new().entry(Head::new(b'0', "canary").put(345, b"a/../.."), "x").end();
    let absolute_prefix = Tar::new().entry(Head::new(b'0', "canary").put(345, b"/tmp"), "x").end();
    vec![
        refused("parent", "ParentInName", one("../canary")),
        refused("parent deep", "ParentInName", one("a/b/../../../canary")),
        refused("parent that stays inside", "ParentInName", one("a/../b")),
        refused("parent at the end", "ParentInName", Tar::new().directory("a/..").end()),
        refused("parent alone", "ParentInName", Tar::new().directory("..").end()),
        refused("parent with slashes", "ParentInName", one("a//..//../canary")),
        refused("parent after dots", "ParentInName", one("./.././../canary")),
        refused("parent in a prefix", "ParentInName", prefixed),
        refused(
            "parent in an extended path",
            "ParentInName",
            Tar::new().pax(&[("path", b"../canary")]).file("a", "x").end(),
        ),
        refused(
            "parent in a long name",
            "ParentInName",
            Tar::new().long(b'L', "../canary").file("a", "x").end(),
        ),
        refused(
            "parent in a sparse name",
            "ParentInName",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"../canary"),
                    ("GNU.sparse.realsize", b"1"),
                ])
                .file("a", "0\n")
                .end(),
        ),
        refused("parent for a directory", "ParentInName", Tar::new().directory("../outside/new/").end()),
        refused("parent for a link", "ParentInName", Tar::new().link("../link", "canary").end()),
        refused("parent for a hard link", "ParentInName", Tar::new().file("a", "x").hard("../b", "a").end()),
        refused("absolute", "AbsoluteName", one("/tmp/canary")),
        refused("absolute with slashes", "AbsoluteName", one("//tmp/canary")),
        accepted("the root as Python names it", &["f a x"], Tar::new().directory("/").file("a", "x").end()),
        refused("absolute in a prefix", "AbsoluteName", absolute_prefix),
        refused(
            "absolute in an extended path",
            "AbsoluteName",
            Tar::new().pax(&[("path", b"/tmp/canary")]).file("a", "x").end(),
        ),
        refused(
            "absolute in a long name",
            "AbsoluteName",
            Tar::new().long(b'L', "/tmp/canary").file("a", "x").end(),
        ),
        accepted("backslashes are bytes", &["f ..\\canary x"], one("..\\canary")),
        accepted("a drive is a name", &["d C:", "f C:/x x"], one("C:/x")),
        accepted("three dots are a name", &["d ...", "f .../x x"], one(".../x")),
        accepted("dots and a space are a name", &["f ..  x"], one(".. ")),
        refused(
            "later entries count too",
            "ParentInName",
            Tar::new().file("a", "x").file("b", "x").file("../c", "x").end(),
        ),
    ]
}

fn odd() -> Vec<Case> {
    let long = "a".repeat(255);
    vec![
        refused("empty", "EmptyName", one("")),
        refused("root as a file", "SlashAfterFile", one("./")),
        refused("root as a link", "SlashAfterFile", Tar::new().link(".", "x").end()),
        refused("slash after a file", "SlashAfterFile", one("a/")),
        refused("dot after a file", "SlashAfterFile", one("a/.")),
        refused("slash after a link", "SlashAfterFile", Tar::new().link("a/", "b").end()),
        refused("slash after a hard link", "SlashAfterFile", Tar::new().file("a", "").hard("b/", "a").end()),
        refused(
            "NUL in an extended path",
            "RecordValue",
            Tar::new().pax(&[("path", b"a\0b")]).file("a", "").end(),
        ),
        accepted(
            "NULs that fill a long name up",
            &[&format!("f {} x", "n".repeat(150))],
            Tar::new().long(b'L', [&[b'n'; 150][..], &[0; 361]].concat()).file("n", "x").end(),
        ),
        refused("NUL in a long name", "NulInName", Tar::new().long(b'L', "a\0b").file("a", "").end()),
        refused(
            "component of 256",
            "ComponentTooLong",
            Tar::new().pax(&[("path", &[b'a'; 256])]).file("a", "").end(),
        ),
        refused(
            "path of 4096",
            "NameTooLong",
            Tar::new().pax(&[("path", "a/".repeat(2048).as_bytes())]).file("a", "").end(),
        ),
        refused(
            "path of a mebibyte",
            "NameTooLong",
            Tar::new().long(b'L', "a/".repeat(524_000)).file("a", "").end(),
        ),
        refused(
            "only slashes of a mebibyte",
            "NameTooLong",
            Tar::new().long(b'L', ["a", &"/".repeat(1_000_000)].concat()).file("a", "").end(),
        ),
        accepted("control characters", &["f a\\n\\u{1b}[2J\\r x"], one("a\n\x1b[2J\r")),
        accepted("not UTF-8", &["f \\xff\\xfe x"], one(b"\xff\xfe")),
        accepted("dots and slashes go", &["d a", "f a/b x"], one(".//./a/.//b")),
        accepted("leading dash", &["f -rf x"], one("-rf")),
        accepted("names of this program", &["d .cutover", "f .cutover/lock x"], one(".cutover/lock")),
        accepted(
            "root with metadata is ignored",
            &["f a x"],
            Tar::new().head(Head::new(b'5', "./").mode(0)).file("./a", "x").end(),
        ),
        refused("only the root", "Empty", Tar::new().directory("./").end()),
        accepted("parents that nobody wrote", &["d a", "d a/b", "f a/b/c x"], one("a/b/c")),
        accepted(
            "parents written late",
            &["d a", "f a/b x"],
            Tar::new().file("a/b", "x").directory("a").end(),
        ),
        accepted(
            "component of 255",
            &[&format!("f {long}")],
            Tar::new().pax(&[("path", long.as_bytes())]).file("a", "").end(),
        ),
        deepest(),
    ]
}

/// The deepest tree that a path can name.
fn deepest() -> Case {
    let path = format!("{}b", "a/".repeat(2047));
    let directories = (1..2048).map(|depth| format!("d {}", escaped(vec!["a"; depth].join("/").as_bytes())));
    let lines: Vec<String> = directories.chain([format!("f {} x", escaped(path.as_bytes()))]).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    accepted("the deepest tree", &lines, Tar::new().long(b'L', path).file("a", "x").end())
}

fn repeated() -> Vec<Case> {
    let tar = Tar::new;
    vec![
        refused("file twice", "Repeated", tar().file("a", "1").file("a", "2").end()),
        refused(
            "file twice by another spelling",
            "Repeated",
            tar().file("a/b", "1").file("./a//b", "2").end(),
        ),
        refused("link over a file", "Repeated", tar().file("a", "1").link("a", "b").end()),
        refused("file over a link", "Repeated", tar().link("a", "../../canary").file("a", "x").end()),
        refused("directory over a link", "Repeated", tar().link("a", "../../outside").directory("a").end()),
        refused(
            "directory over a link by a slash",
            "Repeated",
            tar().link("a", "../../outside").directory("a/").file("a/x", "x").end(),
        ),
        refused(
            "link over a directory",
            "Repeated",
            tar().directory("a").link("a", "../../outside").file("a/x", "x").end(),
        ),
        refused(
            "link over an implied directory",
            "Repeated",
            tar().file("a/b", "x").link("a", "../../outside").end(),
        ),
        refused("file over a directory", "Repeated", tar().directory("a").file("a", "x").end()),
        refused("directory over a file", "Repeated", tar().file("a", "x").directory("a").end()),
        refused(
            "hard link over a file",
            "Repeated",
            tar().file("a", "x").file("b", "y").hard("b", "a").end(),
        ),
        refused("hard link to itself", "HardLinkTarget", tar().hard("a", "a").end()),
        refused("hard link to itself after all", "Repeated", tar().file("a", "x").hard("a", "a").end()),
        refused("link twice", "Repeated", tar().link("a", "b").link("a", "b").end()),
        accepted(
            "directory twice",
            &["d a", "f a/b x"],
            tar().directory("a").file("a/b", "x").directory("./a/").end(),
        ),
        accepted("names that differ in case", &["f A 1", "f a 2"], tar().file("A", "1").file("a", "2").end()),
        accepted(
            "names that differ in normal form",
            &["f e\u{301} 2", "f é 1"],
            tar().file("é", "1").file("e\u{301}", "2").end(),
        ),
    ]
}
