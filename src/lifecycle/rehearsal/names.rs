//! What the parts of a rehearsal are called, and how they are found and removed.
//!
//! ```text
//! cutover-rehearsal-<app>.service          holds network and mounts        all in /run/systemd/system
//! cutover-rehearsal-<app>:<unit>           a unit of the application
//! cutover_rehearsal_<app>.slice            all of them, with their limits
//! <instance>.d/zzzz-cutover-<app>.conf     an instance on the host's network
//! /run/cutover/<app>/rehearsal             what is `/run` in there
//! <root>/.cutover/rehearsal                copies of data, and what is mounted
//! ```

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use super::text::escaped_name;
use crate::lifecycle::application::data::Data;
use crate::sys::disk::Disk;
use crate::sys::systemd::{self, RUNTIME_UNITS};

/// How long systemd may take to see killed units end.
const END: Duration = Duration::from_secs(30);

/// The names of one application's rehearsal.
#[derive(Clone, Debug)]
pub struct Names {
    app: String,
}

impl Names {
    /// Those of the application `app`.
    pub fn new(app: &str) -> Self {
        Self { app: app.to_owned() }
    }

    /// The unit that holds network and mounts.
    pub fn holder(&self) -> String {
        format!("cutover-rehearsal-{}.service", escaped_name(&self.app))
    }

    /// The rehearsal's unit for one of the application.
    pub fn unit(&self, unit: &str) -> String {
        format!("{}{}", self.prefix(), unit.replace('@', ":"))
    }

    /// What all of them are in.
    pub fn slice(&self) -> String {
        format!("cutover_rehearsal_{}.slice", escaped_name(&self.app))
    }

    /// The directory for what need not survive a reboot.
    pub fn volatile(&self) -> PathBuf {
        Path::new("/run/cutover").join(&self.app).join("rehearsal")
    }

    /// The drop-in of an instance on the host's network: sorted after all that anybody else may have.
    pub fn drop_in(&self) -> String {
        format!("zzzz-cutover-{}.conf", escaped_name(&self.app))
    }

    /// Where the directory of that drop-in is before it is shown, and after.
    pub fn drop_ins_aside(&self) -> PathBuf {
        Path::new(RUNTIME_UNITS).join(format!("{}.d", self.unit("instance.service")))
    }

    /// The same, and what it is while it is written.
    fn drop_ins(&self) -> [String; 2] {
        [self.drop_in(), format!("{}.new", self.drop_in())]
    }

    fn prefix(&self) -> String {
        format!("cutover-rehearsal-{}:", escaped_name(&self.app))
    }

    /// The unit files that are there, and directories of drop-ins.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(RUNTIME_UNITS).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let (holder, slice, prefix) = (self.holder(), self.slice(), self.prefix());
        let is_ours = |name: &String| {
            // A file that was being written when somebody was killed has one more ending.
            let unit = [".new", ".d"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
            unit == holder || unit == slice || unit.starts_with(&prefix)
        };
        let mut files: Vec<_> = names.filter(is_ours).collect();
        files.sort();
        files
    }

    /// The instances on the host's network.
    fn instances(&self) -> Vec<String> {
        let entries = fs::read_dir(RUNTIME_UNITS).into_iter().flatten().flatten();
        let has_ours = |folder: &Path| self.drop_ins().iter().any(|name| folder.join(name).exists());
        let folders = entries.filter(|entry| has_ours(&entry.path()));
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".d").map(str::to_owned)).collect()
    }

    /// Ends and removes all that a rehearsal of the application has left: units, mounts, files and copies. Nothing is there
    /// afterwards, whatever was; says whether there was anything.
    pub fn sweep(&self, disk: &Disk, data: &Data) -> Result<bool, Error> {
        let instances = self.instances();
        for unit in &instances {
            end_kindly(unit)?;
            let folder = Path::new(RUNTIME_UNITS).join(format!("{unit}.d"));
            let is_ours = |name: &OsStr| self.drop_ins().iter().any(|ours| name == ours.as_str());
            let mut entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            if entries.all(|entry| is_ours(&entry.file_name())) {
                // Under a name of ours at every moment, so that it is found again.
                disk.rename(&folder, &self.drop_ins_aside())?;
            } else {
                for name in self.drop_ins() {
                    disk.remove_file(&folder.join(name))?;
                }
            }
        }
        let files = self.files();
        let mut units: Vec<_> = files.iter().filter(|name| systemd::is_unit_name(name)).cloned().collect();
        if !files.is_empty() {
            // The slice last: systemd forgets it with the last unit in it.
            units.sort_by_key(|unit| unit.ends_with(".slice"));
            end(&units)?;
            for name in &files {
                let path = Path::new(RUNTIME_UNITS).join(name);
                if name.ends_with(".d") { disk.remove_tree(&path)? } else { disk.remove_file(&path)? }
            }
        }
        let volatile = self.volatile();
        let had_volatile = fs::symlink_metadata(&volatile).is_ok();
        if had_volatile {
            disk.remove_tree(&volatile)?;
        }
        let had_copies = data.remove_rehearsals()?;
        Ok(!files.is_empty() || !instances.is_empty() || had_volatile || had_copies)
    }
}

/// Stops an instance that may have joined its peers; one that does not stop is killed.
fn end_kindly(unit: &String) -> Result<(), Error> {
    let unit = std::slice::from_ref(unit);
    if systemd::is_booted() && matches!(systemd::stop(unit, END), Err(systemd::Error::TimedOut { .. })) {
        systemd::kill(unit)?;
        systemd::stop(unit, END)?;
    }
    if let Err(error) = systemd::reset_failed(unit) {
        tracing::debug!(%error, "nothing to forget");
    }
    Ok(())
}

/// Kills what runs of these units, and has systemd forget them.
fn end(units: &[String]) -> Result<(), Error> {
    if !systemd::is_booted() {
        return Ok(());
    }
    for unit in units.iter().rev() {
        // What does not run cannot be killed.
        if let Err(error) = systemd::kill(std::slice::from_ref(unit)) {
            tracing::debug!(%error, "nothing to kill");
        }
    }
    systemd::stop(units, END)?;
    for unit in units {
        // Only units that failed are known by now.
        if let Err(error) = systemd::reset_failed(std::slice::from_ref(unit)) {
            tracing::debug!(%error, "nothing to forget");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_application_are_not_those_of_another() {
        let (one, other) = (Names::new("shop"), Names::new("shop-web"));
        assert_eq!(one.unit("db@1.service"), "cutover-rehearsal-shop:db:1.service");
        assert!(!other.unit("a.service").starts_with(&one.prefix()));
        assert!(!other.holder().starts_with(&one.prefix()));
        for name in [one.unit("db@1.service"), other.holder(), other.slice()] {
            assert!(systemd::is_unit_name(&name), "{name}");
        }
        assert!(!other.slice().contains('-'), "a dash would mean a slice within another");
    }
}
