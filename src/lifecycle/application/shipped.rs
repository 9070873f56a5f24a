//! What a tree ships for systemd, and what the `[Install]` sections of its units want.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::units::{Error, UNITS_MAX, not_there};
use crate::sys::disk;
use crate::sys::systemd;
use crate::sys::unit::{instance, instance_of, is_template};

/// Where a release keeps its unit files, in its tree.
pub(super) const DIRECTORY: &str = "systemd";
/// The largest unit file that is compared.
const UNIT_BYTES_MAX: usize = 1 << 20;

/// The files for systemd in a tree, as paths in its `systemd` directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    pub units: BTreeSet<String>,
    /// Drop-ins of the application's units: `shop.service.d/memory.conf`.
    pub drop_ins: BTreeSet<String>,
    /// What looks like a part of a unit, and cannot be linked.
    pub ignored: BTreeSet<String>,
}

impl Shipped {
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.units.iter().chain(&self.drop_ins)
    }
}

/// What a tree ships. Drop-ins count for units of its own and for `declared` ones.
pub fn of(tree: &Path, declared: &[String]) -> Result<Shipped, Error> {
    let directory = tree.join(DIRECTORY);
    let names = listed(&directory)?;
    let kind = |name: &str| fs::symlink_metadata(directory.join(name)).map(|found| found.file_type());
    let is_file = |name: &str| kind(name).is_ok_and(|kind| kind.is_file());
    let mut found = Shipped::default();
    for name in names.iter().filter(|name| systemd::is_unit_name(name)) {
        let place = if is_file(name) { &mut found.units } else { &mut found.ignored };
        place.insert(name.clone());
    }
    let is_own = |unit: &str| {
        let is_named = |name: &str| found.units.contains(name) || declared.iter().any(|own| own == name);
        is_named(unit) || instance_of(unit).is_some_and(|template| is_named(&template))
    };
    let (mut drop_ins, mut ignored) = (BTreeSet::new(), BTreeSet::new());
    for name in names.iter().filter(|name| kind(name).is_ok_and(|kind| kind.is_dir())) {
        match name.strip_suffix(".d") {
            Some(unit) if is_own(unit) => {
                let files = listed(&directory.join(name))?.into_iter().filter(|file| file.ends_with(".conf"));
                let files = files.map(|file| format!("{name}/{file}"));
                let (plain, strange): (Vec<_>, Vec<_>) = files.partition(|file| is_file(file));
                drop_ins.extend(plain);
                ignored.extend(strange);
            }
            Some(_) => {
                ignored.insert(name.clone());
            }
            None if [".wants", ".requires", ".upholds"].iter().any(|kind| name.ends_with(kind)) => {
                ignored.insert(name.clone());
            }
            None => {}
        }
    }
    found.drop_ins = drop_ins;
    found.ignored.extend(ignored);
    let count = found.units.len() + found.drop_ins.len();
    if count > UNITS_MAX { Err(Error::TooMany(directory)) } else { Ok(found) }
}

/// The shipped units that are started with the release: those with an `[Install]` section, and the default instance of
/// templates that have one. The others are for somebody else to start (a timer, a socket), and are only stopped.
pub fn started(tree: &Path) -> Result<BTreeSet<String>, Error> {
    let units = of(tree, &[])?.units;
    let installed = units.into_iter().filter(|unit| has_install_section(tree, unit));
    Ok(installed
        .filter_map(|unit| if is_template(&unit) { default_instance(tree, &unit) } else { Some(unit) })
        .collect())
}

/// The names in a directory, sorted; none when it is not there.
pub(super) fn listed(directory: &Path) -> Result<BTreeSet<String>, Error> {
    let cannot = |error| disk::Error::new("read", directory, error);
    let entries = match fs::read_dir(directory) {
        Err(error) if not_there(&error) => return Ok(BTreeSet::new()),
        entries => entries.map_err(cannot)?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.extend(entry.map_err(cannot)?.file_name().into_string());
    }
    Ok(names)
}

/// Whether a unit file has an `[Install]` section.
pub(super) fn has_install_section(tree: &Path, unit: &str) -> bool {
    let Some(text) = read(tree, unit) else { return false };
    text.lines().any(|line| line.trim() == "[Install]")
}

/// Whether systemd would refuse to stop this unit when told so, or to start one that is to be started.
pub(super) fn is_only_with_others(tree: &Path, file: &str) -> bool {
    let says = |key: &str| {
        let text = read(tree, file).unwrap_or_default();
        let mut values =
            text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| name.trim() == key);
        values.next_back().is_some_and(|(_, value)| ["yes", "true", "on", "1"].contains(&value.trim()))
    };
    says("RefuseManualStop")
        || says("RefuseManualStart") && (file.contains('/') || has_install_section(tree, file))
}

/// Whether two trees have the same file.
pub(super) fn is_equal(one: &Path, other: &Path, file: &Path) -> bool {
    let read = |tree: &Path| disk::read_small(&tree.join(file), UNIT_BYTES_MAX).ok().flatten();
    read(one).is_some_and(|bytes| read(other) == Some(bytes))
}

/// The links that an `[Install]` section wants: names in the directory of units.
pub(super) fn install_links(tree: &Path, unit: &str) -> Vec<String> {
    let name = if is_template(unit) { default_instance(tree, unit) } else { Some(unit.to_owned()) };
    let Some(name) = name else { return Vec::new() };
    let kinds = [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")];
    let by = kinds.iter().flat_map(|(key, kind)| {
        let others = installed(tree, unit, key);
        others.into_iter().map(|other| format!("{other}.{kind}/{name}")).collect::<Vec<_>>()
    });
    let aliases = installed(tree, unit, "Alias").into_iter().filter(|_| !is_template(unit));
    by.chain(aliases).collect()
}

fn default_instance(tree: &Path, template: &str) -> Option<String> {
    let name = read(tree, template).and_then(|text| values(&text, "DefaultInstance").pop())?;
    instance(template, &name).filter(|unit| systemd::is_unit_name(unit))
}

/// The names of units that a key of the `[Install]` section lists.
fn installed(tree: &Path, unit: &str, key: &str) -> Vec<String> {
    let words = read(tree, unit).map(|text| values(&text, key)).unwrap_or_default();
    words.into_iter().filter(|word| systemd::is_unit_name(word) && word != unit).collect()
}

/// The text of a file. systemd passes over lines that are not UTF-8, and means the others.
fn read(tree: &Path, unit: &str) -> Option<String> {
    let bytes = disk::read_small(&tree.join(DIRECTORY).join(unit), UNIT_BYTES_MAX).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of a key in the `[Install]` section (systemd.syntax(7)): an empty value forgets the ones before.
fn values(text: &str, key: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let mut words: Vec<String> = Vec::new();
    let mut is_install = false;
    for line in joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            is_install = line == "[Install]";
        } else if let Some((name, value)) = line.split_once('=')
            && is_install
            && name.trim() == key
        {
            if value.trim().is_empty() {
                words.clear();
            }
            words.extend(value.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::Disk;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        disk.make_directory(&tree.path().join(DIRECTORY), 0o755).unwrap();
        for (name, text) in files {
            let path = tree.path().join(DIRECTORY).join(name);
            disk.make_directory(path.parent().unwrap(), 0o755).unwrap();
            disk.replace(&path, text.as_bytes(), 0o644).unwrap();
        }
        tree
    }

    fn names(names: &BTreeSet<String>) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }

    #[test]
    fn units_templates_and_drop_ins_are_found_and_the_rest_is_named() {
        let tree = tree(&[
            ("a.service", ""),
            ("t@.service", ""),
            ("README", ""),
            ("-x.service", ""),
            ("a.service.d/m.conf", ""),
            ("a.service.d/notes.txt", ""),
            ("t@1.service.d/m.conf", ""),
            ("app.service.d/m.conf", ""),
            ("sshd.service.d/m.conf", ""),
            ("multi-user.target.wants/x", ""),
        ]);
        let found = of(tree.path(), &["app.service".into()]).unwrap();
        assert_eq!(names(&found.units), ["a.service", "t@.service"]);
        assert_eq!(
            names(&found.drop_ins),
            ["a.service.d/m.conf", "app.service.d/m.conf", "t@1.service.d/m.conf"]
        );
        assert_eq!(names(&found.ignored), ["multi-user.target.wants", "sshd.service.d"]);
        assert_eq!(of(Path::new("/proc"), &[]).unwrap(), Shipped::default());
    }

    #[test]
    fn what_has_an_install_section_is_started() {
        let wanted = "[Install]\nWantedBy=multi-user.target";
        let with_default = format!("{wanted}\nDefaultInstance=main\n");
        let tree = tree(&[
            ("a.service", wanted),
            ("b.service", "[Unit]\n"),
            ("c@.service", wanted),
            ("d@.service", &with_default),
        ]);
        assert_eq!(names(&started(tree.path()).unwrap()), ["a.service", "d@main.service"]);
        assert_eq!(install_links(tree.path(), "d@.service"), ["multi-user.target.wants/d@main.service"]);
        assert_eq!(install_links(tree.path(), "c@.service"), Vec::<String>::new());
    }

    #[test]
    fn a_line_that_is_not_utf8_hides_none_of_the_others() {
        let tree = tree(&[("a.service", "")]);
        let unit = tree.path().join(DIRECTORY).join("a.service");
        let text = b"# caf\xe9\n[Unit]\nRefuseManualStop=yes\n[Install]\nWantedBy=multi-user.target\n";
        Disk::default().replace(&unit, text, 0o644).unwrap();
        assert_eq!(names(&started(tree.path()).unwrap()), ["a.service"]);
        assert_eq!(install_links(tree.path(), "a.service"), ["multi-user.target.wants/a.service"]);
        assert!(is_only_with_others(tree.path(), "a.service"));
    }

    #[test]
    fn sections_are_read_as_systemd_reads_them() {
        let text = "[Unit]\nWantedBy=no.target\n[Install]\n# WantedBy=no.target\nWantedBy = a.target \\\n b.target\nWantedBy=c.target\n";
        assert_eq!(values(text, "WantedBy"), ["a.target", "b.target", "c.target"]);
        assert_eq!(values(&format!("{text}WantedBy=\nWantedBy=d.target"), "WantedBy"), ["d.target"]);
    }

    #[test]
    fn equal_units_need_no_reload() {
        let trees = ["[Install]", "[Install]", "[Unit]"].map(|text| tree(&[("a.service", text)]));
        assert!(is_equal(trees[0].path(), trees[1].path(), Path::new("systemd/a.service")));
        assert!(!is_equal(trees[0].path(), trees[2].path(), Path::new("systemd/a.service")));
        assert!(!is_equal(trees[0].path(), trees[1].path(), Path::new("systemd/b.service")));
    }
}
