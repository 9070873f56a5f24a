//! Unit files that a release ships: linked through the pointer, so that they move and revert with it.
//!
//! ```text
//! <tree>/systemd/shop-worker.service                      in the release
//! /etc/systemd/system/shop-worker.service -> <root>/current/systemd/shop-worker.service
//! ```
//! Only links of this shape are ever touched; a file of the admin's with the same name is an error, not replaced.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::disk::{self, Disk};
use crate::sys::systemd;
use crate::types::escaped_path;

/// Where a release keeps its unit files, in its tree.
const SHIPPED: &str = "systemd";
/// The largest unit file that is compared.
const UNIT_BYTES_MAX: usize = 1 << 20;
/// How many unit files one release may ship.
const UNITS_MAX: usize = 200;

/// The unit files of a release cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine said no.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// systemd said no.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// There is another file.
    #[error("cannot link unit `{unit}`: `{}` is not a link of ours", escaped_path(path))]
    Taken {
        /// The unit.
        unit: String,
        /// The file in the way.
        path: PathBuf,
    },
    /// More than anybody means to ship.
    #[error("cannot link the units of `{}`: there are more than {UNITS_MAX}", escaped_path(.0))]
    TooMany(PathBuf),
}

/// Names of the unit files that a tree ships, sorted. Other files there are left alone.
pub fn shipped(tree: &Path) -> Result<BTreeSet<String>, Error> {
    let directory = tree.join(SHIPPED);
    let cannot = |error| disk::Error::new("read", &directory, error);
    let entries = match fs::read_dir(&directory) {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(BTreeSet::new());
        }
        entries => entries.map_err(cannot)?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let is_file = entry.file_type().map_err(cannot)?.is_file();
        if let Some(name) = entry.file_name().to_str().filter(|name| is_file && systemd::is_unit_name(name)) {
            names.insert(name.to_owned());
        }
    }
    if names.len() > UNITS_MAX { Err(Error::TooMany(directory)) } else { Ok(names) }
}

/// The shipped units that are started with the release: those with an `[Install]` section. The others are for somebody
/// else to start (a timer, a socket), and are only stopped.
pub fn started(tree: &Path) -> Result<BTreeSet<String>, Error> {
    Ok(shipped(tree)?.into_iter().filter(|unit| has_install_section(tree, unit)).collect())
}

/// The links to unit files of one application.
#[derive(Clone, Debug)]
pub struct Links {
    /// Where systemd finds units: `/etc/systemd/system`.
    pub directory: PathBuf,
    /// The application's root: links go through `<root>/current`.
    pub root: PathBuf,
    /// How long a unit that goes may take to stop.
    pub stop_timeout: Duration,
}

impl Links {
    /// The links of the application at `root`, where this systemd looks for units that outlive a reboot.
    pub fn new(root: &Path, stop_timeout: Duration) -> Self {
        Self { directory: "/etc/systemd/system".into(), root: root.to_owned(), stop_timeout }
    }

    /// Makes sure that exactly the units that `tree` ships are linked and known to systemd. Call it when the pointer
    /// names `tree`. Units that only another release has are stopped, disabled and removed; new ones are enabled as their
    /// `[Install]` section says.
    ///
    /// `known` is a tree whose units systemd surely has read, if there is one: a reload is spared when they are equal.
    pub fn ensure(&self, disk: &Disk, tree: &Path, known: Option<&Path>) -> Result<(), Error> {
        let wanted = shipped(tree)?;
        let ours = self.ours()?;
        let gone: Vec<_> = ours.difference(&wanted).cloned().collect();
        let new: Vec<_> = wanted.difference(&ours).cloned().collect();
        self.remove(disk, &gone)?;
        for unit in &new {
            self.link(disk, unit)?;
        }
        let is_known = known.is_some_and(|known| wanted.iter().all(|unit| is_equal(known, tree, unit)));
        if gone.is_empty() && new.is_empty() && (wanted.is_empty() || is_known) {
            return Ok(());
        }
        systemd::daemon_reload()?;
        let installable: Vec<_> = new.into_iter().filter(|unit| has_install_section(tree, unit)).collect();
        systemd::enable(&installable)?;
        Ok(())
    }

    /// Takes all links away: for a first installation that failed, and when an application is removed.
    pub fn remove_all(&self, disk: &Disk) -> Result<(), Error> {
        let ours: Vec<_> = self.ours()?.into_iter().collect();
        if ours.is_empty() {
            return Ok(());
        }
        self.remove(disk, &ours)?;
        Ok(systemd::daemon_reload()?)
    }

    /// The units that are linked now.
    pub fn ours(&self) -> Result<BTreeSet<String>, Error> {
        let cannot = |error| disk::Error::new("read", &self.directory, error);
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(cannot)?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(cannot)?.file_name();
            if let Some(name) = name.to_str().filter(|name| self.is_ours(name)) {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    fn is_ours(&self, unit: &str) -> bool {
        fs::read_link(self.directory.join(unit)).is_ok_and(|target| target == self.target(unit))
    }

    fn target(&self, unit: &str) -> PathBuf {
        self.root.join("current").join(SHIPPED).join(unit)
    }

    fn link(&self, disk: &Disk, unit: &str) -> Result<(), Error> {
        let path = self.directory.join(unit);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Error::Taken { unit: unit.to_owned(), path });
        }
        disk.make_directory(&self.directory, 0o755)?;
        // The private name ends in no kind of unit: systemd does not look at it.
        let private = self.directory.join(format!(".{unit}.cutover-new"));
        Ok(disk.point(&path, &self.target(unit), &private)?)
    }

    fn remove(&self, disk: &Disk, units: &[String]) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        match systemd::stop(units, self.stop_timeout) {
            Err(systemd::Error::TimedOut { .. }) => systemd::kill(units)?,
            // A unit that is not loaded, since its file went with the pointer, does not run.
            Err(systemd::Error::Refused { answer, .. }) if answer.contains("not loaded") => {}
            stopped => stopped?,
        }
        // By the links alone: the file that says where to be enabled may be gone already.
        for unit in units {
            self.disable(disk, unit)?;
            disk.remove_file(&self.directory.join(unit))?;
        }
        Ok(())
    }

    /// Removes the links that enable a unit: `<directory>/<other>.{wants,requires,upholds}/<unit>`.
    fn disable(&self, disk: &Disk, unit: &str) -> Result<(), Error> {
        let entries = fs::read_dir(&self.directory)
            .map_err(|error| disk::Error::new("read", &self.directory, error))?;
        for entry in entries.flatten() {
            let directory = entry.path();
            let kind = directory.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            if !["wants", "requires", "upholds"].contains(&kind) {
                continue;
            }
            let link = directory.join(unit);
            if fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) {
                disk.remove_file(&link)?;
            }
        }
        Ok(())
    }
}

fn is_equal(one: &Path, other: &Path, unit: &str) -> bool {
    let read = |tree: &Path| disk::read_small(&tree.join(SHIPPED).join(unit), UNIT_BYTES_MAX).ok().flatten();
    read(one).is_some_and(|bytes| read(other) == Some(bytes))
}

fn has_install_section(tree: &Path, unit: &str) -> bool {
    let bytes = disk::read_small(&tree.join(SHIPPED).join(unit), UNIT_BYTES_MAX).ok().flatten();
    bytes
        .is_some_and(|bytes| bytes.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == b"[Install]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_through_the_pointer_are_ours() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let (root, etc) = (directory.path().join("shop"), directory.path().join("system"));
        let tree = root.join("releases/1");
        for path in [&root, &root.join("releases"), &tree, &tree.join("systemd"), &etc] {
            disk.make_directory(path, 0o755).unwrap();
        }
        for name in ["a.service", "b.socket", "README", "-x.service"] {
            disk.replace(&tree.join("systemd").join(name), b"[Unit]\n", 0o644).unwrap();
        }
        assert_eq!(shipped(&tree).unwrap().into_iter().collect::<Vec<_>>(), ["a.service", "b.socket"]);
        assert!(shipped(&root).unwrap().is_empty());
        let links =
            Links { directory: etc.clone(), root: root.clone(), stop_timeout: Duration::from_secs(1) };
        links.link(&disk, "a.service").unwrap();
        disk.replace(&etc.join("b.socket"), b"[Unit]\n", 0o644).unwrap();
        assert!(matches!(links.link(&disk, "b.socket"), Err(Error::Taken { .. })));
        assert_eq!(links.ours().unwrap().into_iter().collect::<Vec<_>>(), ["a.service"]);
        let wants = etc.join("multi-user.target.wants");
        disk.make_directory(&wants, 0o755).unwrap();
        disk.point(&wants.join("a.service"), Path::new("../a.service"), &wants.join("new")).unwrap();
        links.disable(&disk, "a.service").unwrap();
        assert!(!wants.join("a.service").is_symlink());
    }

    #[test]
    fn equal_units_need_no_reload() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let trees = ["1", "2", "3"].map(|name| directory.path().join(name));
        for (tree, text) in trees.iter().zip(["[Install]", "[Install]", "[Unit]"]) {
            disk.make_directory(tree, 0o755).unwrap();
            disk.make_directory(&tree.join("systemd"), 0o755).unwrap();
            disk.replace(&tree.join("systemd/a.service"), text.as_bytes(), 0o644).unwrap();
        }
        assert!(is_equal(&trees[0], &trees[1], "a.service"));
        assert!(!is_equal(&trees[0], &trees[2], "a.service"));
        assert!(!is_equal(&trees[0], &trees[1], "b.service"));
        assert!(has_install_section(&trees[0], "a.service") && !has_install_section(&trees[2], "a.service"));
    }
}
