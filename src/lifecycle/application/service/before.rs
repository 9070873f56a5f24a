//! What runs before a switch or a rollback: looked at and written down before anything is stopped, so that afterwards
//! all of it is as it was, but for the release.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Error, units::groups};
use crate::health;
use crate::sys::systemd;
use crate::sys::unit::{self, Kind, Load, Unit, is_template};
use crate::types::record::UnitsBefore;

/// How many units of others are looked at.
const DEPENDANTS_MAX: usize = 500;

/// A unit with which no switch can end well. Nothing was stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// A slip, or something that is not installed.
    #[error(
        "unit `{0}` is not there: systemd finds no such unit; correct `[service] units`, or install it (a unit that a release ships needs not be named)"
    )]
    Missing(String),
    /// systemd does not take its file.
    #[error("systemd cannot load unit `{unit}`: {why}")]
    Broken { unit: String, why: String },
    /// It would be gone when it stops.
    #[error("unit `{0}` is transient: it would be gone once it stops; give it a unit file")]
    Transient(String),
    /// It could be stopped, and not be started again.
    #[error("unit `{0}` is masked and runs: it could not be started again; unmask it, or stop it")]
    MaskedRuns(String),
    /// It could be stopped, and not be started again, or not even that.
    #[error(
        "unit `{0}` may only be started or stopped with others (`RefuseManualStart=`, `RefuseManualStop=`): allow it with a drop-in (`systemctl edit {0}`), or take it out of `[service] units`"
    )]
    OnlyWithOthers(String),
    /// The update runs in a unit that would be stopped.
    #[error("stopping the application's units would stop `{0}`, and this update with it")]
    Itself(String),
}

/// What is known of the application's units, for the look at them.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Units that the settings name.
    pub declared: Vec<String>,
    /// Units that the running release ships and starts.
    pub shipped: BTreeSet<String>,
    /// Units of the application that are linked now; may name templates.
    pub linked: BTreeSet<String>,
    /// Units that the release brings which is to run.
    pub coming: BTreeSet<String>,
    /// Sockets that listen within the data: what they start works with these.
    pub within_data: BTreeSet<String>,
    /// The directory of all trees.
    pub releases: PathBuf,
    pub is_first: bool,
}

impl Before {
    /// Looks at what runs, and refuses what could not be brought back.
    pub fn look(&self) -> Result<Result<UnitsBefore, Objection>, Error> {
        let family = self.family()?;
        let dependants = self.dependants_of(&family)?;
        let running = family.iter().map(|unit| &unit.name).chain(&dependants);
        let me = own_unit();
        if let Some(me) = me.filter(|me| running.clone().any(|name| name == me)) {
            return Ok(Err(Objection::Itself(me)));
        }
        if let Some(objection) = self.missing_template()? {
            return Ok(Err(objection));
        }
        Ok(self.judge(&family).map(|mut before| {
            before.dependants = dependants;
            before
        }))
    }

    /// The same when going back: what is wrong with a unit keeps nobody from that, it is left alone.
    pub fn look_going_back(&self) -> Result<UnitsBefore, Error> {
        let family = self.family()?;
        let mut before = self.stands(&family);
        before.left.extend(
            family.iter().filter(|unit| self.objection(unit).is_some()).map(|unit| unit.name.clone()),
        );
        before.left.sort();
        before.left.dedup();
        before.dependants = self.dependants_of(&family)?;
        Ok(before)
    }

    /// The names of all units whose processes end when the application is stopped.
    pub fn stopped(&self) -> Result<BTreeSet<String>, Error> {
        let family = self.family()?;
        let stopped = family.iter().filter(|unit| unit.kind.is_restarted());
        let mut names: BTreeSet<_> =
            stopped.flat_map(|unit| [unit.name.as_str(), unit.get("Id")]).map(str::to_owned).collect();
        names.extend(self.dependants_of(&family)?);
        names.remove("");
        Ok(names)
    }

    /// All that is the application's: what is named, what runs on its behalf, and what it wants and runs from a tree of
    /// ours, though systemd does not stop it with what wants it.
    fn family(&self) -> Result<Vec<Unit>, Error> {
        let named: BTreeSet<_> = self
            .declared
            .iter()
            .chain(&self.shipped)
            .chain(&self.linked)
            .chain(&self.within_data)
            .cloned()
            .collect();
        let mut family = unit::family(&named.into_iter().collect::<Vec<_>>())?;
        let mut seen: BTreeSet<String> = family.iter().map(|unit| unit.name.clone()).collect();
        let mut next = wanted(&family, &seen);
        while !next.is_empty() && seen.len() < DEPENDANTS_MAX {
            let mut found = unit::look(&next.iter().cloned().collect::<Vec<_>>())?;
            seen.append(&mut next);
            found.retain(Unit::is_up);
            let own = health::units_in(&self.releases, &groups(&found));
            found.retain(|unit| unit.kind != Kind::Service || own.contains(&unit.name));
            next = wanted(&found, &seen);
            found.retain(|unit| unit.kind == Kind::Service);
            family.append(&mut found);
        }
        Ok(family)
    }

    /// Units of others that run now and would be stopped with these, and theirs in turn.
    fn dependants_of(&self, family: &[Unit]) -> Result<Vec<String>, Error> {
        let mut seen: BTreeSet<String> = family.iter().map(|unit| unit.name.clone()).collect();
        let mut found = Vec::new();
        let stopped = family.iter().filter(|unit| unit.is_up() && self.is_stopped(unit));
        let mut next: BTreeSet<String> = dependants(stopped, &seen);
        while !next.is_empty() && found.len() < DEPENDANTS_MAX {
            let units = unit::look(&next.iter().cloned().collect::<Vec<_>>())?;
            seen.append(&mut next);
            let running: Vec<_> =
                units.into_iter().filter(|unit| unit.is_up() && !unit.is_transient()).collect();
            next = dependants(running.iter(), &seen);
            found.extend(running.into_iter().map(|unit| unit.name));
        }
        Ok(found)
    }

    /// Whether it stops when the application does, in one of both directions.
    fn is_stopped(&self, unit: &Unit) -> bool {
        unit.kind.is_restarted() || unit.accepts() || self.within_data.contains(&unit.name)
    }

    /// A template of the settings that is not there. It is no unit: only its instances are looked at.
    fn missing_template(&self) -> Result<Option<Objection>, Error> {
        let templates = unit::look_at_templates(&self.declared)?;
        Ok(templates.iter().find_map(|template| self.objection(template)))
    }

    fn judge(&self, family: &[Unit]) -> Result<UnitsBefore, Objection> {
        match family.iter().find_map(|unit| self.objection(unit)) {
            Some(objection) => Err(objection),
            None => Ok(self.stands(family)),
        }
    }

    fn objection(&self, unit: &Unit) -> Option<Objection> {
        let name = || unit.name.clone();
        let is_declared = self.declared.contains(&unit.name);
        let comes = self.coming.contains(&unit.name)
            || unit::instance_of(&unit.name).is_some_and(|template| self.coming.contains(&template));
        match &unit.load {
            Load::Missing if is_declared && !comes => Some(Objection::Missing(name())),
            Load::Broken(why) if is_declared && !comes => {
                Some(Objection::Broken { unit: name(), why: why.clone() })
            }
            Load::Masked if unit.is_up() && self.is_own(&unit.name) => Some(Objection::MaskedRuns(name())),
            Load::Loaded if is_declared && unit.is_transient() => Some(Objection::Transient(name())),
            Load::Loaded if !self.can_move(unit) => Some(Objection::OnlyWithOthers(name())),
            Load::Loaded | Load::Masked | Load::Missing | Load::Broken(_) => None,
        }
    }

    /// Whether systemd does to this unit what an update asks for.
    fn can_move(&self, unit: &Unit) -> bool {
        let is_own = self.is_own(&unit.name);
        let stops = self.is_stopped(unit) && (is_own || unit.is_up());
        (unit.can("CanStart") || !(is_own || stops)) && (unit.can("CanStop") || !stops)
    }

    /// Whether every start names this unit.
    fn is_own(&self, name: &str) -> bool {
        self.declared.iter().any(|own| own == name) || self.shipped.contains(name)
    }

    fn is_linked(&self, name: &str) -> bool {
        self.linked.contains(name)
            || unit::instance_of(name).is_some_and(|template| self.linked.contains(&template))
    }

    /// What ran, and what was down and stays so.
    fn stands(&self, family: &[Unit]) -> UnitsBefore {
        let own = || family.iter().filter(|unit| self.is_own(&unit.name));
        let runs = own().any(Unit::is_up);
        // What is up runs code of the release that goes: it is never left alone.
        let left = own().filter(|unit| !unit.is_up()).filter(|unit| match unit.load {
            Load::Masked => true,
            Load::Loaded => !self.is_first && runs && was_stopped(unit),
            // `systemctl disable` takes the link away; what comes only now has none yet.
            Load::Missing | Load::Broken(_) => {
                let was_taken_away = self.shipped.contains(&unit.name) && !self.is_linked(&unit.name);
                !self.is_first && (was_taken_away || !self.coming.contains(&unit.name))
            }
        });
        let left: Vec<_> = left.map(|unit| unit.name.clone()).collect();
        let others = family.iter().filter(|unit| {
            !self.is_own(&unit.name) && unit.is_up() && !unit.is_connection() && !unit.is_transient()
        });
        let others: Vec<_> = others.map(|unit| unit.name.clone()).collect();
        let disabled = own()
            .filter(|unit| unit.is_up() && self.shipped.contains(&unit.name) && !self.is_linked(&unit.name));
        let disabled: Vec<_> = disabled.map(|unit| unit.name.clone()).collect();
        UnitsBefore { left, others, disabled, dependants: Vec::new(), since: None }
    }
}

/// Whether somebody has stopped it, or it waits for a timer or a path: a release that failed may start again, and what
/// has done its work does it again with the next release.
fn was_stopped(unit: &Unit) -> bool {
    let has_done =
        unit.is_oneshot() && unit.get("RemainAfterExit") != "yes" && unit.triggers().next().is_none();
    let waits_for_socket = unit.triggers().any(|trigger| trigger.ends_with(".socket"));
    !unit.is_up() && !unit.has_failed() && !unit.has_job() && !has_done && !waits_for_socket
}

/// Refuses declared units with which no update can end well, as far as that can be known without a release. `here` are
/// units that a release on this node ships.
pub fn ensure_usable(declared: &[String], here: BTreeSet<String>) -> Result<Result<(), Objection>, Error> {
    let before = Before { declared: declared.to_vec(), coming: here, ..Before::default() };
    let mut units = unit::look_at_templates(declared)?;
    units.extend(unit::look(declared)?);
    let mut bad = units.iter().filter_map(|unit| before.objection(unit));
    // That a unit is masked just now is no slip in a file.
    Ok(bad.find(|objection| !matches!(objection, Objection::MaskedRuns(_))).map_or(Ok(()), Err))
}

/// Services that systemd starts with these; of targets also what starts services in turn. What a service wants of targets
/// is not the application's.
fn wanted(units: &[Unit], seen: &BTreeSet<String>) -> BTreeSet<String> {
    let names = units.iter().flat_map(|unit| unit.brings().map(|name| (unit.kind, name)));
    let is_wanted = |of: Kind, name: &str| match Kind::of(name) {
        Some(Kind::Service) => true,
        Some(Kind::Target | Kind::Socket | Kind::Timer | Kind::Path) => of == Kind::Target,
        Some(Kind::Slice | Kind::Mount | Kind::Automount | Kind::Swap) | None => false,
    };
    names
        .filter(|(of, name)| is_wanted(*of, name) && !seen.contains(*name) && systemd::is_unit_name(name))
        .map(|(_, name)| name.to_owned())
        .collect()
}

fn dependants<'a>(units: impl Iterator<Item = &'a Unit>, seen: &BTreeSet<String>) -> BTreeSet<String> {
    units
        .flat_map(Unit::dependants)
        .filter(|name| !seen.contains(*name) && !is_template(name) && systemd::is_unit_name(name))
        .map(str::to_owned)
        .collect()
}

/// The unit that this process runs in; `None` in a session or without systemd.
fn own_unit() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    // proc_pid_cgroup(5): hierarchy, controllers, path; a service may have groups of its own below.
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').rfind(|part| part.ends_with(".service")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::systemd::Properties;

    fn unit(name: &str, state: &str, more: &[(&str, &str)]) -> Unit {
        let pairs = [("LoadState", "loaded"), ("ActiveState", state)].into_iter().chain(more.iter().copied());
        Unit::new(name, Properties::from_pairs(pairs)).unwrap()
    }

    fn before(declared: &[&str]) -> Before {
        Before { declared: declared.iter().map(|&name| name.to_owned()).collect(), ..Before::default() }
    }

    #[test]
    fn what_an_admin_stopped_or_masked_is_left_so() {
        let asked = before(&["app.service", "worker.service", "masked.service"]);
        let family = [
            unit("app.service", "active", &[]),
            unit("worker.service", "inactive", &[]),
            unit("masked.service", "inactive", &[("LoadState", "masked")]),
        ];
        assert_eq!(asked.judge(&family).unwrap().left, ["worker.service", "masked.service"]);
        // A first installation starts all that may be started.
        let first = Before { is_first: true, ..asked.clone() };
        assert_eq!(first.judge(&family).unwrap().left, ["masked.service"]);
        // So does an update of an application that is down as a whole.
        let down = [unit("app.service", "inactive", &[]), unit("worker.service", "failed", &[])];
        assert!(asked.judge(&down).unwrap().left.is_empty());
    }

    #[test]
    fn what_failed_or_has_done_its_work_is_started_again() {
        let asked = before(&["app.service", "b.service"]);
        let left = |second: Unit| {
            !asked.judge(&[unit("app.service", "active", &[]), second]).unwrap().left.is_empty()
        };
        assert!(!left(unit("b.service", "failed", &[])));
        assert!(!left(unit("b.service", "inactive", &[("Type", "oneshot")])));
        assert!(!left(unit("b.service", "inactive", &[("TriggeredBy", "b.socket")])));
        assert!(!left(unit("b.service", "activating", &[])));
        assert!(left(unit("b.service", "inactive", &[])));
        // It waits for its time: an update is none.
        assert!(left(unit("b.service", "inactive", &[("Type", "oneshot"), ("TriggeredBy", "b.timer")])));
    }

    #[test]
    fn a_shipped_unit_that_was_disabled_stays_away() {
        let missing = [("LoadState", "not-found")];
        let asked = Before {
            shipped: ["a.service".into()].into(),
            coming: ["a.service".into(), "b.service".into()].into(),
            ..before(&["app.service"])
        };
        let family = [unit("app.service", "active", &[]), unit("a.service", "inactive", &missing)];
        assert_eq!(asked.judge(&family).unwrap().left, ["a.service"]);
        // One that still runs is never left: it would go on with the old code.
        let runs = [unit("app.service", "active", &[]), unit("a.service", "active", &missing)];
        let seen = asked.judge(&runs).unwrap();
        assert!(seen.left.is_empty() && seen.disabled == ["a.service"], "{seen:?}");
        // While its link is there, systemd has only not read it yet.
        let linked = Before { linked: ["a.service".into()].into(), ..asked };
        assert!(linked.judge(&family).unwrap().left.is_empty());
    }

    #[test]
    fn units_that_cannot_be_brought_back_are_refused() {
        let asked = before(&["a.service"]);
        let refusal =
            |pairs: &[(&str, &str)], state| asked.judge(&[unit("a.service", state, pairs)]).unwrap_err();
        let name = || "a.service".to_owned();
        assert_eq!(refusal(&[("LoadState", "not-found")], "inactive"), Objection::Missing(name()));
        assert_eq!(refusal(&[("LoadState", "masked")], "active"), Objection::MaskedRuns(name()));
        assert_eq!(refusal(&[("UnitFileState", "transient")], "active"), Objection::Transient(name()));
        assert!(matches!(refusal(&[("LoadState", "bad-setting")], "inactive"), Objection::Broken { .. }));
        for pair in [("CanStart", "no"), ("CanStop", "no")] {
            assert_eq!(refusal(&[pair], "active"), Objection::OnlyWithOthers(name()));
            assert_eq!(refusal(&[pair], "inactive"), Objection::OnlyWithOthers(name()));
            // What is down and belongs to others is not touched.
            assert!(asked.judge(&[unit("b.service", "inactive", &[pair])]).is_ok());
            assert!(asked.judge(&[unit("b.service", "active", &[pair])]).is_err());
        }
        let coming = Before { coming: [name()].into(), ..asked.clone() };
        assert!(coming.judge(&[unit("a.service", "inactive", &[("LoadState", "not-found")])]).is_ok());
    }

    #[test]
    fn what_the_application_brings_is_looked_for() {
        let names = |unit: Unit| {
            let seen = BTreeSet::from(["b.service".to_owned()]);
            wanted(&[unit], &seen).into_iter().collect::<Vec<_>>()
        };
        let pairs = [("Wants", "a.service b.service c.socket"), ("Requires", "d.target e.slice f.mount")];
        assert_eq!(names(unit("all.target", "active", &pairs)), ["a.service", "c.socket", "d.target"]);
        assert_eq!(names(unit("app.service", "active", &pairs)), ["a.service"]);
        assert_eq!(names(unit("c.socket", "active", &[("Triggers", "g.service")])), ["g.service"]);
    }

    #[test]
    fn instances_and_jobs_that_ran_are_remembered_and_connections_are_not() {
        let asked = before(&["app.service"]);
        let family = [
            unit("app.service", "active", &[]),
            unit("job@a.service", "active", &[]),
            unit("job@b.service", "inactive", &[]),
            unit("e@0-1.service", "active", &[("TriggeredBy", "e.socket")]),
        ];
        assert_eq!(asked.judge(&family).unwrap().others, ["job@a.service"]);
    }
}
