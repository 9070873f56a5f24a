//! The units of an application: which they are, what runs of them, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Local;
use crate::health::Began;
use crate::lifecycle::application::Direction;
use crate::lifecycle::application::data::Decision;
use crate::lifecycle::application::service::{self, Before, Target};
use crate::lifecycle::settings::Data as DataSettings;
use crate::lifecycle::{application::shipped, application::units};
use crate::sys::clock::{Clock as _, SystemClock};
use crate::sys::systemd;
use crate::sys::unit::{self, Load, Unit};
use crate::types::record::{Cause, Intent, Reason, Record, UnitsBefore};
use crate::types::{Version, chain};

impl Local<'_> {
    /// What is started with the tree: the declared units, and those that it ships; and what else is the application's.
    pub(super) fn target(&self, tree: PathBuf, record: &Record) -> Target {
        let before = record.units.clone().unwrap_or_default();
        let mut units = self.units_of(&tree);
        units.retain(|unit| !before.left.contains(unit));
        let is_going_back = super::is_going_back(record);
        Target {
            units,
            others: self.linked(),
            again: before.others,
            left: before.left,
            moved: if is_going_back { self.sockets_in_data(Some(record)) } else { Vec::new() },
            is_going_back,
            tree,
            env: self.environment("service", Some(record)),
        }
    }

    pub(super) fn units_of(&self, tree: &Path) -> Vec<String> {
        let mut units = self.settings.service.units.clone();
        if self.has_units() {
            // Unit files that cannot be read are told by the step that links them.
            let shipped = shipped::started(tree).unwrap_or_default();
            units.extend(shipped.into_iter().filter(|unit| !self.settings.service.units.contains(unit)));
        }
        units
    }

    /// Units of ours that any release has linked.
    pub(super) fn linked(&self) -> Vec<String> {
        if self.has_units() {
            self.links().ours().unwrap_or_default().into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// The sockets of systemd that listen within the data, whoever's they are: a file that somebody listens at goes aside
    /// with the newer data, and nobody would reach it there. On the way back only those of data that are brought back.
    fn sockets_in_data(&self, going_back: Option<&Record>) -> Vec<String> {
        let is_moved = |entry: &DataSettings| {
            let path = entry.path.to_string_lossy();
            going_back.is_none_or(|record| self.decide(&path, record) == Decision::Restore)
        };
        let moved: Vec<_> = self.settings.data.iter().filter(|entry| is_moved(entry)).collect();
        if moved.is_empty() || !self.has_units() {
            return Vec::new();
        }
        let listening = systemd::listening().unwrap_or_else(|error| {
            tracing::warn!("{}; sockets within data are not looked for", chain(&error));
            Vec::new()
        });
        let is_within = |path: &PathBuf| moved.iter().any(|entry| entry.moves(path));
        listening.into_iter().filter(|(_, paths)| paths.iter().any(is_within)).map(|(name, _)| name).collect()
    }

    /// Says what is wrong with the units that the settings name, as far as systemd and the releases on this node know them.
    pub fn check_units(&self) -> Option<String> {
        if !self.has_units() {
            return None;
        }
        let declared = &self.settings.service.units;
        let trees = self.store.releases().unwrap_or_default();
        let shipped =
            trees.iter().filter_map(|version| shipped::of(&self.store.layout.tree(version), &[]).ok());
        let here = shipped.flat_map(|shipped| shipped.units).collect();
        match service::ensure_usable(declared, here) {
            Ok(Ok(())) => None,
            Ok(Err(objection)) => Some(objection.to_string()),
            Err(error) => Some(chain(&error)),
        }
    }

    /// What there is to know of the application's units before they are looked at.
    fn before(&self, record: &Record) -> Result<Before, units::Error> {
        let serves = self.store.active().ok().flatten();
        let comes = match record.intent {
            Intent::Update => Some(&record.to.version),
            Intent::Rollback => record.from.as_ref().map(|from| &from.version),
        };
        let tree = |version: &Version| self.store.layout.tree(version);
        // Of a release that was adopted nothing has ever been linked.
        let state = self.store.trusted_state().unwrap_or_default();
        let is_adopted = state.committed.is_some_and(|committed| committed.transaction.is_none());
        let shipped = serves.as_ref().filter(|_| !is_adopted);
        let shipped = shipped.map(|serves| shipped::started(&tree(serves))).transpose()?;
        let declared = self.settings.service.units.clone();
        let coming = comes.map(|comes| shipped::of(&tree(comes), &declared)).transpose()?;
        let coming = coming.map(|coming| coming.units).unwrap_or_default();
        let linked = self.links().ours()?;
        Ok(Before {
            shipped: shipped.unwrap_or_default(),
            linked,
            coming,
            releases: self.store.layout.releases(),
            // A first release that fails leaves nothing running: what is not its own is none of its business.
            within_data: serves.iter().flat_map(|_| self.sockets_in_data(None)).collect(),
            is_first: serves.is_none(),
            declared,
        })
    }

    /// When the pointer was moved, if that was in this boot.
    pub(super) fn moved_at(record: &Record) -> Option<Duration> {
        let moment = record.units.as_ref()?.since.as_ref()?;
        (moment.boot_id == SystemClock.boot_id()).then(|| Duration::from_millis(moment.boot_ms))
    }

    /// Whether systemd runs the application.
    pub(super) fn has_units(&self) -> bool {
        let service = &self.settings.service;
        systemd::is_booted() && service.command.is_none() && service.action != service::Action::None
    }

    pub(super) fn links(&self) -> units::Links {
        let service = &self.settings.service;
        units::Links::new(self.store.layout.root(), service.stop_timeout.0, &service.units)
    }

    /// Links the unit files of the tree that the pointer names.
    pub(super) fn link_units(
        &self,
        tree: &Path,
        record: &Record,
        direction: Direction,
    ) -> Result<(), units::Error> {
        if !self.has_units() || !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        // Only on the first way forward it is sure what systemd has read.
        let is_first = direction == Direction::Forward && record.resumes == 0;
        let known =
            record.from.as_ref().filter(|_| is_first).map(|from| self.store.layout.tree(&from.version));
        let leaving = match direction {
            Direction::Forward => record.from.as_ref(),
            Direction::Back => Some(&record.to),
        };
        let leaving = leaving.map(|release| self.store.layout.tree(&release.version));
        let before = record.units.clone().unwrap_or_default();
        let sight = units::Sight { known: known.as_deref(), leaving: leaving.as_deref(), before: &before };
        self.links().ensure(&self.store.disk, tree, &sight)
    }

    /// The processes that the release has started which is being left. Of a rollback by hand nobody knows when that was
    /// started: what its units leave behind is their own business.
    pub(super) fn of_failed(&self, target: &Target, record: &Record) -> Vec<Began> {
        // Where units reload, a process that goes on may be the one that serves the old release again.
        let is_replaced = self.settings.service.action != service::Action::ReloadOrRestart;
        let since = Self::moved_at(record).filter(|_| record.intent == Intent::Update && is_replaced);
        since.map(|since| self.services.started_since(target, since)).unwrap_or_default()
    }

    /// Kills what a failed release has left behind (`KillMode=process`): it would go on beside the old one.
    pub(super) fn end_left_behind(&self, processes: Vec<Began>) {
        let killed = processes.into_iter().filter(|process| process.kill()).count();
        if killed > 0 {
            tracing::warn!(
                app = self.app,
                killed,
                "processes that the failed release had left behind were killed"
            );
        }
    }

    /// A unit of the settings that systemd does not have, and that no release here was to bring: a slip of the admin's.
    pub(super) fn missing_unit(&self, target: &Target) -> Option<String> {
        if !self.has_units() {
            return None;
        }
        let declared = &self.settings.service.units;
        let shipped = shipped::of(&target.tree, declared).unwrap_or_default().units;
        let is_missing = |unit: &Unit| {
            unit.load != Load::Loaded && !shipped.contains(&unit.name) && !target.left.contains(&unit.name)
        };
        let found = unit::look(declared).ok()?.into_iter().find(is_missing)?;
        Some(format!("unit `{}` of `[service] units` is {}", found.name, found.get("LoadState")))
    }

    /// What the tree ships for systemd that is not put in place.
    pub(super) fn not_linked(&self, tree: &Path) -> Option<String> {
        if !self.has_units() {
            return None;
        }
        let ignored = shipped::of(tree, &self.settings.service.units).ok()?.ignored;
        let names: Vec<_> = ignored.into_iter().map(|name| format!("`systemd/{name}`")).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{} of the release is not used: only unit files, and drop-ins of its own units, are linked",
                names.join(", ")
            )
        })
    }

    /// What runs, before anything is stopped.
    pub(super) fn look_at_units(&self, record: &Record, direction: Direction) -> Result<UnitsBefore, Reason> {
        if !self.has_units() {
            return Ok(UnitsBefore::default());
        }
        let machine = |error: &dyn std::error::Error| Reason::new(Cause::Machine, chain(error));
        let not_now = |text: String| Reason::new(Cause::Units, text);
        let before = self.before(record).map_err(|error| machine(&error))?;
        match direction {
            Direction::Back => before.look_going_back().map_err(|error| machine(&error)),
            Direction::Forward => {
                let tree = self.store.layout.tree(&record.to.version);
                self.links().check(&tree).map_err(|error| not_now(chain(&error)))?;
                let seen = before.look().map_err(|error| machine(&error))?;
                seen.map_err(|objection| not_now(objection.to_string()))
            }
        }
    }
}
