//! Unit files and drop-ins that a release ships: linked through the pointer, so that they move and revert with it.
//!
//! ```text
//! <tree>/systemd/shop-worker.service                      in the release
//! /etc/systemd/system/shop-worker.service -> <root>/current/systemd/shop-worker.service
//! /etc/systemd/system/shop.service.d/memory.conf -> <root>/current/systemd/shop.service.d/memory.conf
//! ```
//! Only links of this shape are ever touched; a file of the admin's with the same name is an error, not replaced.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::shipped::{self, Shipped, install_links, is_equal, is_only_with_others, listed};
use crate::sys::disk::{self, Disk};
use crate::sys::systemd;
use crate::sys::unit::{self, is_template};
use crate::types::escaped_path;
use crate::types::record::UnitsBefore;

/// How many unit files one release may ship.
pub(super) const UNITS_MAX: usize = 200;

/// The unit files of a release cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    #[error("cannot link unit `{unit}`: `{}` is not a link of ours", escaped_path(path))]
    Taken {
        unit: String,
        /// The file in the way.
        path: PathBuf,
    },
    /// It could be started, and not be stopped again when the release goes.
    #[error(
        "cannot link `{0}` of the release: it is not to be started or stopped by hand (`RefuseManualStart=`, `RefuseManualStop=`)"
    )]
    OnlyWithOthers(String),
    /// More than anybody means to ship.
    #[error("cannot link the units of `{}`: there are more than {UNITS_MAX}", escaped_path(.0))]
    TooMany(PathBuf),
}

/// What is known of the units when a release is to be linked.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// A tree whose units systemd surely has read, if there is one: a reload is spared when they are equal.
    pub known: Option<&'a Path>,
    /// The tree whose units were linked last, or still are.
    pub leaving: Option<&'a Path>,
    /// How the units stood before anything was stopped.
    pub before: &'a UnitsBefore,
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
    /// Units that the settings name: drop-ins may be for these, and for those that the release ships.
    pub declared: Vec<String>,
}

impl Links {
    /// The links of the application at `root`, where this systemd looks for units that outlive a reboot.
    pub fn new(root: &Path, stop_timeout: Duration, declared: &[String]) -> Self {
        Self {
            directory: "/etc/systemd/system".into(),
            root: root.to_owned(),
            stop_timeout,
            declared: declared.to_vec(),
        }
    }

    /// Says what would keep the units of `tree` from being linked. Changes nothing. Masked ones are in nobody's way: they
    /// stay masked.
    pub fn check(&self, tree: &Path) -> Result<(), Error> {
        let wanted = shipped::of(tree, &self.declared)?;
        let ends = self.aliases_that_end(&wanted)?;
        for file in wanted.files() {
            let path = self.directory.join(file);
            let is_free = self.is_ours(file) || is_mask(&path) || ends.contains(file);
            if !is_free && fs::symlink_metadata(&path).is_ok() {
                return Err(Error::Taken { unit: file.to_owned(), path });
            }
            if is_only_with_others(tree, file) {
                return Err(Error::OnlyWithOthers(file.to_owned()));
            }
        }
        Ok(())
    }

    /// Other names of units that go: cutover has made these links, and takes them away with the units.
    fn aliases_that_end(&self, wanted: &Shipped) -> Result<BTreeSet<String>, Error> {
        let (pointer, mut ends) = (self.root.join("current"), BTreeSet::new());
        for unit in self.ours()?.iter().filter(|unit| wanted.files().all(|file| file != unit.as_str())) {
            let made = |link: &String| {
                is_unit_file(link)
                    && fs::read_link(self.directory.join(link)).is_ok_and(|to| to == enabling(link, unit))
            };
            ends.extend(install_links(&pointer, unit).into_iter().filter(made));
        }
        Ok(ends)
    }

    /// Makes sure that exactly the units that `tree` ships are linked and known to systemd. Call it when the pointer
    /// names `tree`. Units that only another release has are stopped, disabled and removed; new ones are enabled as their
    /// `[Install]` section says. Those that an admin took away are not linked anew; one that he has disabled, and that
    /// runs, is not enabled.
    pub fn ensure(&self, disk: &Disk, tree: &Path, sight: &Sight) -> Result<(), Error> {
        let Sight { known, leaving, before } = *sight;
        let Shipped { units, drop_ins, .. } = shipped::of(tree, &self.declared)?;
        let wanted: BTreeSet<_> = units
            .into_iter()
            .chain(drop_ins)
            .filter(|file| {
                self.is_ours(file) || !(before.left.contains(file) || is_mask(&self.directory.join(file)))
            })
            .collect();
        let ours = self.linked()?;
        let gone: Vec<_> = ours.difference(&wanted).cloned().collect();
        let new: Vec<_> = wanted.difference(&ours).cloned().collect();
        self.remove(disk, &gone)?;
        if let Some(leaving) = leaving {
            for unit in gone.iter().filter(|file| is_template(file)) {
                self.forget_default_instance(disk, leaving, unit)?;
            }
        }
        // Their links are gone already.
        self.stop(
            &before.disabled.iter().filter(|unit| !wanted.contains(*unit)).cloned().collect::<Vec<_>>(),
        )?;
        for file in &new {
            self.link(disk, file)?;
        }
        if let Some(leaving) = leaving {
            for unit in wanted.intersection(&ours).filter(|file| is_unit_file(file)) {
                self.enable_anew(disk, leaving, tree, unit)?;
            }
        }
        let read = self.through_pointer(tree)?;
        let is_known = known.is_some_and(|known| read.iter().all(|file| is_equal(known, tree, file)));
        if gone.is_empty() && new.is_empty() && (read.is_empty() || is_known) {
            return Ok(());
        }
        for unit in new.iter().filter(|file| is_unit_file(file) && !before.disabled.contains(file)) {
            self.enable(disk, unit, &install_links(tree, unit))?;
        }
        Ok(systemd::daemon_reload()?)
    }

    /// Takes all links away: for a first installation that failed, and when an application is removed.
    pub fn remove_all(&self, disk: &Disk) -> Result<(), Error> {
        let ours: Vec<_> = self.linked()?.into_iter().collect();
        if ours.is_empty() {
            return Ok(());
        }
        self.remove(disk, &ours)?;
        Ok(systemd::daemon_reload()?)
    }

    /// The units that are linked now; may name templates.
    pub fn ours(&self) -> Result<BTreeSet<String>, Error> {
        Ok(self.linked()?.into_iter().filter(|file| is_unit_file(file)).collect())
    }

    /// The files that are linked now: units, and drop-ins in their directories.
    fn linked(&self) -> Result<BTreeSet<String>, Error> {
        let mut files = BTreeSet::new();
        for name in listed(&self.directory)? {
            if name.strip_suffix(".d").is_some_and(systemd::is_unit_name) {
                let inner = listed(&self.directory.join(&name))?;
                files.extend(
                    inner.into_iter().map(|file| format!("{name}/{file}")).filter(|file| self.is_ours(file)),
                );
            } else if self.is_ours(&name) {
                files.insert(name);
            }
        }
        Ok(files)
    }

    /// What links lead to in the tree that the pointer names, as paths in it: ours, and those of the admin's (`systemctl
    /// link <root>/current/app.service`). What systemd has read there may be another release's. Some lead nowhere now.
    fn through_pointer(&self, tree: &Path) -> Result<Vec<PathBuf>, Error> {
        let (pointer, real) = (self.root.join("current"), fs::canonicalize(tree));
        let within = |path: &Path| -> Option<PathBuf> {
            let target = path.parent()?.join(fs::read_link(path).ok()?);
            let followed = fs::canonicalize(path).unwrap_or_default();
            let inner = target.strip_prefix(&pointer).ok();
            inner.or_else(|| followed.strip_prefix(real.as_ref().ok()?).ok()).map(Path::to_owned)
        };
        let mut found = Vec::new();
        for name in listed(&self.directory)? {
            let path = self.directory.join(&name);
            found.extend(within(&path));
            if name.ends_with(".d") {
                found.extend(listed(&path)?.iter().filter_map(|file| within(&path.join(file))));
            }
        }
        Ok(found)
    }

    fn is_ours(&self, file: &str) -> bool {
        fs::read_link(self.directory.join(file)).is_ok_and(|target| target == self.target(file))
    }

    fn target(&self, file: &str) -> PathBuf {
        self.root.join("current").join(shipped::DIRECTORY).join(file)
    }

    fn link(&self, disk: &Disk, file: &str) -> Result<(), Error> {
        let path = self.directory.join(file);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Error::Taken { unit: file.to_owned(), path });
        }
        self.put(disk, &path, &self.target(file))
    }

    /// Makes a link, and its directory.
    fn put(&self, disk: &Disk, path: &Path, target: &Path) -> Result<(), Error> {
        let directory = path.parent().unwrap_or(&self.directory);
        disk.make_directory(&self.directory, 0o755)?;
        disk.make_directory(directory, 0o755)?;
        // The private name ends in no kind of unit: systemd does not look at it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(disk.point(path, target, &directory.join(format!(".{name}.cutover-new")))?)
    }

    /// Makes the links that the `[Install]` section wants. systemctl(1) would make them to the tree of this very release.
    fn enable(&self, disk: &Disk, unit: &str, links: &[String]) -> Result<(), Error> {
        for link in links {
            let path = self.directory.join(link);
            if fs::symlink_metadata(&path).is_err() {
                self.put(disk, &path, &enabling(link, unit))?;
            }
        }
        Ok(())
    }

    /// Gives a unit that stays linked the links that its `[Install]` section in `tree` wants instead of those that the one
    /// in `leaving` wanted. One that an admin has disabled has none of them, and gets none.
    fn enable_anew(&self, disk: &Disk, leaving: &Path, tree: &Path, unit: &str) -> Result<(), Error> {
        let (old, new) = (install_links(leaving, unit), install_links(tree, unit));
        let is_there = |link: &String| {
            fs::read_link(self.directory.join(link)).is_ok_and(|target| target == enabling(link, unit))
        };
        let is_disabled = !old.is_empty() && !old.iter().chain(&new).any(is_there);
        if old == new || is_disabled {
            return Ok(());
        }
        // New ones first: who is interrupted between both finds it enabled.
        let missing: Vec<_> = new.iter().filter(|link| !old.contains(link)).cloned().collect();
        self.enable(disk, unit, &missing)?;
        for link in old.iter().filter(|link| !new.contains(link) && is_there(link)) {
            disk.remove_file(&self.directory.join(link))?;
        }
        Ok(())
    }

    /// Removes the link that enables the instance which the `[Install]` section of a template names: an admin enables others.
    fn forget_default_instance(&self, disk: &Disk, leaving: &Path, unit: &str) -> Result<(), Error> {
        for link in install_links(leaving, unit) {
            let path = self.directory.join(&link);
            if fs::read_link(&path).is_ok_and(|target| target == enabling(&link, unit)) {
                disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, disk: &Disk, files: &[String]) -> Result<(), Error> {
        let units: Vec<_> = files.iter().filter(|file| is_unit_file(file)).cloned().collect();
        self.stop(&units)?;
        // By the links alone: the file that says where to be enabled may be gone already.
        for file in files {
            if is_unit_file(file) {
                self.disable(disk, file)?;
            }
            disk.remove_file(&self.directory.join(file))?;
            if let Some((directory, _)) = file.split_once('/') {
                // The admin may have drop-ins there, too.
                let directory = self.directory.join(directory);
                if listed(&directory)?.is_empty() {
                    disk.remove_tree(&directory)?;
                }
            }
        }
        Ok(())
    }

    /// Stops units that go, and all instances of templates among them.
    fn stop(&self, units: &[String]) -> Result<(), Error> {
        let named = |unit: &unit::Unit| {
            let is_of = |template: String| units.contains(&template);
            units.contains(&unit.name) || unit::instance_of(&unit.name).is_some_and(is_of)
        };
        let up = |family: Vec<unit::Unit>| -> Vec<String> {
            family.into_iter().filter(|unit| unit.is_up() && named(unit)).map(|unit| unit.name).collect()
        };
        let running = up(unit::family(units)?);
        match systemd::stop(&running, self.stop_timeout) {
            Err(systemd::Error::TimedOut { .. }) => Ok(systemd::kill(&running)?),
            // It may have ended by itself meanwhile.
            Err(refused) if !up(unit::family(units)?).is_empty() => Err(refused.into()),
            _ => Ok(()),
        }
    }

    /// Removes the links that enable a unit, `<directory>/<other>.{wants,requires,upholds}/<unit>`, and its aliases.
    /// Links to instances of a template stay: an admin made them, and the template may come back.
    fn disable(&self, disk: &Disk, unit: &str) -> Result<(), Error> {
        let file = self.target(unit);
        let names_it = |path: &Path, target: &Path| {
            let is_own_name = path.file_name().is_some_and(|name| name == unit);
            is_own_name
                || (!is_template(unit)
                    && (target == file || target.file_name().is_some_and(|name| name == unit)))
        };
        let remove_from = |directory: &Path| -> Result<(), Error> {
            for name in listed(directory)? {
                let path = directory.join(&name);
                let is_link = fs::read_link(&path).is_ok_and(|target| names_it(&path, &target));
                if is_link && path != self.directory.join(unit) {
                    disk.remove_file(&path)?;
                }
            }
            Ok(())
        };
        remove_from(&self.directory)?;
        for name in listed(&self.directory)? {
            let kind = Path::new(&name).extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            if ["wants", "requires", "upholds"].contains(&kind) {
                remove_from(&self.directory.join(&name))?;
            }
        }
        Ok(())
    }
}

/// Where a link leads that enables a unit.
fn enabling(link: &str, unit: &str) -> PathBuf {
    Path::new(if link.contains('/') { ".." } else { "" }).join(unit)
}

/// Whether this names a unit, and not a drop-in.
fn is_unit_file(file: &str) -> bool {
    !file.contains('/')
}

/// Whether an admin has masked the unit here.
fn is_mask(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// What is not there holds nothing.
pub(super) fn not_there(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}

#[cfg(test)]
mod tests;
