//! A rehearsal on the host's network: an instance of a template unit beside the old release, with what it needs to know
//! in its environment. For applications that can run twice, and want to join their peers and warm up.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::text::{can_be_said, escaped_name, quoted, word};
use super::walls::Error as WallsError;
use super::{Cost, Error, Names, Rehearsal, copies_doubt, last_words, slice_text};
use crate::health::{Checks, Context, Observation};
use crate::lifecycle::application::data::{Copies, Data};
use crate::lifecycle::settings::Settings;
use crate::store::Store;
use crate::sys::systemd::{self, RUNTIME_UNITS};
use crate::types::Version;

/// What a rehearsal is made of.
pub struct Host<'a> {
    pub app: &'a str,
    pub settings: &'a Settings,
    pub store: &'a Store,
    pub data: Data,
    /// Variables for checks: `CUTOVER_*`.
    pub env: Vec<(String, OsString)>,
}

impl Host<'_> {
    /// The instance for a release: `shop-rehearsal@2.4.1.service`.
    fn instance(&self, version: &Version) -> Result<String, Error> {
        let template = self.settings.rehearsal.unit.as_deref().unwrap_or_default();
        let (prefix, suffix) = template.split_once('@').ok_or(Error::NoUnits)?;
        Ok(format!("{prefix}@{}{suffix}", escaped_name(version.as_str())))
    }

    /// The data that are copied: a release that is promoted has the real ones.
    fn copied(&self) -> &[crate::lifecycle::settings::Data] {
        if self.settings.rehearsal.promote { &[] } else { &self.settings.data }
    }

    /// Says whether a rehearsal of the release can be had here. Starts and changes nothing.
    pub fn check(&self, version: &Version) -> Result<(), Error> {
        if !systemd::is_booted() {
            return Err(Error::NoSystemd);
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let unit = self.instance(version)?;
        let shown = systemd::show(std::slice::from_ref(&unit), &["LoadState", "ActiveState"])?;
        let state = |name: &str| shown.first().map_or("", |properties| properties.get(name)).to_owned();
        if state("LoadState") != "loaded" {
            return Err(Error::NotLoaded { unit, state: state("LoadState") });
        }
        Ok(self.data.check_copies(self.copied())?)
    }

    /// Begins a rehearsal of the release. What an earlier one has left is removed.
    pub fn begin(&self, transaction: &str, version: &Version) -> Result<RunningHost, Error> {
        let names = Names::new(self.app);
        names.sweep(&self.store.disk, &self.data)?;
        self.check(version)?;
        let unit = self.instance(version)?;
        let copies = self.data.make_copies(transaction, self.copied())?;
        self.show_drop_in(&names, &unit, &self.drop_in(version, &copies)?)?;
        let slice = Path::new(RUNTIME_UNITS).join(names.slice());
        let text = slice_text(self.app, &self.settings.rehearsal);
        self.store.disk.replace(&slice, text.as_bytes(), 0o644)?;
        let began = Timestamp::now();
        systemd::begin_start(std::slice::from_ref(&unit))?;
        let layout = &self.store.layout;
        let mut env = self.env.clone();
        env.push(("CUTOVER_REHEARSAL".into(), "1".into()));
        let context = Context {
            tree: layout.tree(version),
            releases: layout.releases(),
            units: vec![unit.clone()],
            env,
            ..Context::default()
        };
        let health = self.settings.rehearsal.health(&self.settings.health);
        Ok(RunningHost { checks: Checks::new(health, context), units: vec![unit], copies, began })
    }

    /// Puts the drop-in where systemd finds it, under a name of ours until it is there.
    fn show_drop_in(&self, names: &Names, unit: &str, text: &str) -> Result<(), Error> {
        let (disk, directory) = (&self.store.disk, Path::new(RUNTIME_UNITS).join(format!("{unit}.d")));
        let is_there = directory.is_dir();
        let place = if is_there { directory.clone() } else { names.drop_ins_aside() };
        disk.make_directory(&place, 0o755)?;
        disk.replace(&place.join(names.drop_in()), text.as_bytes(), 0o644)?;
        if !is_there {
            disk.rename(&place, &directory)?;
        }
        Ok(())
    }

    fn drop_in(&self, version: &Version, copies: &Copies) -> Result<String, Error> {
        let rehearsal = &self.settings.rehearsal;
        let tree = self.store.layout.tree(version);
        let mut lines = vec!["[Service]".to_owned()];
        for (name, value) in [
            ("CUTOVER_REHEARSAL", "1".to_owned()),
            ("CUTOVER_APP", self.app.to_owned()),
            ("CUTOVER_TO_VERSION", version.to_string()),
            ("CUTOVER_TO_PATH", tree.display().to_string()),
        ] {
            lines.push(format!("Environment={}", quoted(&format!("{name}={value}"))));
        }
        for copy in &copies.items {
            for path in [&copy.place, &copy.path] {
                if !can_be_said(path) {
                    return Err(WallsError::Name(path.clone()).into());
                }
            }
            lines.push(format!("BindPaths={}:{}", word(&copy.place), word(&copy.path)));
        }
        if !rehearsal.promote {
            lines.push("Restart=no\nOOMScoreAdjust=900".to_owned());
        }
        lines.push(format!("Slice={}", Names::new(self.app).slice()));
        Ok(lines.join("\n") + "\n")
    }
}

/// A rehearsal that was begun.
pub struct RunningHost {
    checks: Checks,
    units: Vec<String>,
    copies: Copies,
    began: Timestamp,
}

impl Rehearsal for RunningHost {
    fn observe(&mut self, at: Duration) -> Vec<Observation> {
        self.checks.observe(at)
    }

    /// On the host's network the kernel itself refuses a port that is taken.
    fn objections(&self) -> Vec<String> {
        Vec::new()
    }

    fn doubt(&self) -> Option<String> {
        copies_doubt(&self.copies)
    }

    fn last_words(&self) -> Vec<String> {
        last_words(&self.units, self.began)
    }

    fn cost(&self) -> Cost {
        let shown = systemd::show(&self.units, &["MemoryPeak", "MemoryCurrent"]).unwrap_or_default();
        let number = |name: &str| shown.first()?.get(name).parse().ok();
        let memory_bytes = number("MemoryPeak").or_else(|| number("MemoryCurrent"));
        Cost { copied_bytes: self.copies.copied_bytes, memory_bytes }
    }
}
