//! What really runs: the application's units as systemd and the kernel have them, whatever the pointer says.

use std::path::Path;

use super::view::UnitView;
use crate::health::tree_of;
use crate::lifecycle::application::service::Action;
use crate::lifecycle::application::shipped;
use crate::lifecycle::settings::Settings;
use crate::store::Store;
use crate::sys::systemd::{self, Properties};
use crate::types::Version;

/// The properties that a view is made of.
const WANTED: [&str; 7] = ["LoadState", "ActiveState", "SubState", "Result", "Type", "MainPID", "Job"];

/// The configured units and those that the active release ships, as they are now. Empty where systemd runs none of them,
/// or does not answer: this is for people and monitoring, and nothing is decided by it.
pub fn running(settings: &Settings, store: &Store, active: Option<&Version>) -> Vec<UnitView> {
    let service = &settings.service;
    if !systemd::is_booted() || service.command.is_some() {
        return Vec::new();
    }
    let mut names = service.units.clone();
    if let Some(active) = active.filter(|_| service.action != Action::None) {
        let shipped = shipped::started(&store.layout.tree(active)).unwrap_or_default();
        names.extend(shipped.into_iter().filter(|unit| !service.units.contains(unit)));
    }
    let Ok(all) = systemd::show(&names, &WANTED) else { return Vec::new() };
    let releases = store.layout.releases();
    names.into_iter().zip(&all).map(|(unit, properties)| view(unit, properties, &releases)).collect()
}

fn view(unit: String, properties: &Properties, releases: &Path) -> UnitView {
    let word = |name: &str| properties.get(name).to_owned();
    let pid = properties.get("MainPID").parse().ok().filter(|pid: &u32| *pid > 0);
    let is_active = ["active", "reloading", "refreshing"].contains(&properties.get("ActiveState"));
    // Work that was done and left nothing running.
    let is_done = properties.get("Type") == "oneshot"
        && properties.get("ActiveState") == "inactive"
        && properties.get("Result") == "success";
    UnitView {
        unit,
        load: word("LoadState"),
        active: word("ActiveState"),
        sub: word("SubState"),
        result: word("Result"),
        pid,
        release: pid.and_then(|pid| tree_of(pid, releases)?.to_str()?.parse().ok()),
        ok: is_active || is_done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_shown_as_systemd_has_it() {
        let shown = |pairs: &[(&'static str, &'static str)]| {
            view("a.service".into(), &Properties::from_pairs(pairs.iter().copied()), Path::new("/none"))
        };
        let stopped =
            shown(&[("ActiveState", "inactive"), ("SubState", "dead"), ("Type", "simple"), ("MainPID", "0")]);
        assert_eq!((stopped.ok, stopped.pid, stopped.active.as_str()), (false, None, "inactive"));
        assert!(shown(&[("ActiveState", "active")]).ok);
        assert!(!shown(&[("ActiveState", "failed"), ("Result", "exit-code"), ("Type", "oneshot")]).ok);
        assert!(shown(&[("ActiveState", "inactive"), ("Result", "success"), ("Type", "oneshot")]).ok);
    }
}
