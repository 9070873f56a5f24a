//! Hostile archives, each with what must become of it, and canaries around the place where they are unpacked.
#![expect(clippy::too_many_lines, reason = "tables of cases")]

mod build;
mod ends;
mod extended;
mod headers;
mod limits;
mod links;
mod metadata;
pub mod mutations;
mod names;
mod race;
mod sparse;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cutover::release::archive::{self, Limits, measure};
use cutover::release::stage::{self, Built, unpack};
use cutover::release::{scan, tree};
use cutover::sys::disk::Disk;
use cutover::types::entry::Kind;
use cutover::types::escaped;
use cutover::types::progress::Silent;
use nix::fcntl::OFlag;

/// One archive.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// What becomes of it.
#[derive(Clone)]
pub enum Outcome {
    /// It is refused by the rule of this name.
    Refused(&'static str),
    /// It makes this tree, one line an entry, in path order: `d NAME`, `f NAME CONTENT`, `l NAME TARGET`, `h NAME FIRST`.
    Tree(Vec<String>),
}

pub fn refused(name: &'static str, rule: &'static str, bytes: Vec<u8>) -> Case {
    Case { name, bytes, outcome: Outcome::Refused(rule) }
}

pub fn accepted(name: &'static str, tree: &[&str], bytes: Vec<u8>) -> Case {
    let lines = tree.iter().map(|line| (*line).to_owned()).collect();
    Case { name, bytes, outcome: Outcome::Tree(lines) }
}

/// All cases.
pub fn all() -> Vec<Case> {
    [
        names::cases(),
        links::cases(),
        headers::cases(),
        extended::cases(),
        sparse::cases(),
        metadata::cases(),
        limits::cases(),
        ends::cases(),
    ]
    .concat()
}

/// Small enough for bombs to go off at once.
pub fn small_limits() -> Limits {
    Limits { bytes: 64 << 20, entries: 3000, ..Limits::default() }
}

/// A place to unpack in, with canaries beside and above it that hostile names point at.
pub struct Place {
    directory: tempfile::TempDir,
}

const CANARY: &str = "untouched";

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        for path in ["outside", "up", "up/into"] {
            disk.make_directory(&directory.path().join(path), 0o755).unwrap();
        }
        for path in ["canary", "outside/canary", "up/canary"] {
            disk.replace(&directory.path().join(path), CANARY.as_bytes(), 0o644).unwrap();
        }
        Self { directory }
    }

    pub fn tree(&self) -> PathBuf {
        self.directory.path().join("up/into")
    }

    pub fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Checks that nothing outside changed.
    pub fn check(&self, case: &str) {
        let mut found = BTreeMap::new();
        for path in ["", "outside", "up"] {
            for entry in fs::read_dir(self.directory.path().join(path)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&self.directory).unwrap().display().to_string();
                found.insert(name, path.symlink_metadata().unwrap());
            }
        }
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["canary", "outside", "outside/canary", "up", "up/canary", "up/into"],
            "{case}: something came to be outside"
        );
        for (name, metadata) in &found {
            if name.ends_with("canary") {
                let content = fs::read_to_string(self.directory.path().join(name)).unwrap();
                assert_eq!(content, CANARY, "{case}: {name}");
                assert_eq!(metadata.permissions().mode() & 0o7777, 0o644, "{case}: {name}");
            }
        }
    }

    /// Unpacks bytes.
    pub fn unpack(&self, bytes: &[u8], limits: &Limits) -> Result<Built, stage::Error> {
        let path = self.directory.path().join("archive");
        Disk::default().replace(&path, bytes, 0o600).unwrap();
        let file = File::open(&path).unwrap();
        Disk::default().remove_file(&path).unwrap();
        unpack(file, "case.tar", &self.tree(), limits, &Disk::default(), &Silent)
    }
}

/// Runs cases: judged without writing, then unpacked; both must say the same.
pub fn run(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for case in &cases {
        let place = Place::new();
        let limits = small_limits();
        let judged = measure(Cursor::new(case.bytes.clone()), "case.tar", &limits);
        let built = place.unpack(&case.bytes, &limits);
        place.check(case.name);
        let outcome = match &built {
            Err(error) => {
                assert_eq!(fs::read_dir(place.tree()).unwrap().count(), 0, "{}: left something", case.name);
                rule(error)
            }
            Ok(built) => {
                assert_eq!(scan::digest(&place.tree()).unwrap(), built.tree, "{}", case.name);
                Ok(lines(&place.tree()))
            }
        };
        let judgement = judged.map_err(|error| rule(&error.into()).unwrap_err());
        assert_eq!(judgement.as_ref().err(), outcome.as_ref().err(), "{}: judged otherwise", case.name);
        let is_right = match (&case.outcome, &outcome) {
            (Outcome::Refused(wanted), Err(rule)) => rule == wanted,
            (Outcome::Tree(wanted), Ok(lines)) => wanted == lines,
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{}: {outcome:?}", case.name));
        }
        Disk::default().remove_tree(&place.tree()).unwrap();
    }
    assert!(wrong.is_empty(), "of {} cases:\n{}", cases.len(), wrong.join("\n"));
}

/// The name of the rule by which an archive was refused. Every refusal is one line without control characters.
fn rule(error: &stage::Error) -> Result<Vec<String>, String> {
    let stage::Error::Archive(archive::Error::Refused(refusal)) = error else {
        return Err(format!("no refusal: {error}"));
    };
    let text = refusal.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
    let rule = format!("{:?}", refusal.rule);
    Err(rule.chars().take_while(|character| character.is_alphanumeric()).collect())
}

/// A tree as cases write it.
pub fn lines(root: &Path) -> Vec<String> {
    let tree = tree::Root::open(root, &Disk::default()).unwrap();
    let line = |entry: Result<cutover::types::entry::Entry, _>| {
        let entry = entry.unwrap();
        let name = escaped(&entry.path);
        match (&entry.kind, &entry.same_as) {
            (_, Some(first)) => format!("h {name} {}", escaped(first)),
            (Kind::Directory, None) => format!("d {name}"),
            (Kind::Link { target }, None) => format!("l {name} {}", escaped(target)),
            (Kind::File { .. }, None) => {
                let file = tree.open_beneath(&entry.path, OFlag::O_RDONLY).unwrap();
                let mut content = Vec::new();
                // More than a line shows is not looked at.
                File::from(file).take(2000).read_to_end(&mut content).unwrap();
                if content.is_empty() {
                    format!("f {name}")
                } else {
                    format!("f {name} {}", escaped(&content))
                }
            }
        }
    };
    scan::walk(root).unwrap().map(line).collect()
}
