//! Asks all checks that are due, side by side, and remembers what must be compared between two looks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::processes::{self, Group};
use super::settings::{Check, Kind, Settings};
use super::{Answer, Observation, PROCESSES, Processes, UNITS, probes, web};
use crate::sys::namespace::Namespaces;
use crate::sys::unit::{self, Kind as UnitKind, Load, Unit};
use crate::types::often;

/// How much longer than its own time limit a check is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// How often somebody is asked whether the answers are still wanted.
const WANTED_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The tree that is to be active, without links in its path: `<root>/releases/<version>`.
    pub tree: PathBuf,
    /// The directory of all trees.
    pub releases: PathBuf,
    /// The units that must be up; none on a machine without systemd.
    pub units: Vec<String>,
    /// What else belongs to the application: it may be down, but must not run old code. May name templates.
    pub others: Vec<String>,
    /// When the pointer was moved, as time from boot, where that is known.
    pub since: Option<Duration>,
    /// Whether units are told to reload: their main processes may be older than the switch.
    pub reloads: bool,
    /// Variables for commands: `CUTOVER_*`.
    pub env: Vec<(String, OsString)>,
    /// Where they are asked, when not in our own namespaces: a rehearsed release is to be seen there only.
    pub there: Option<Arc<Namespaces>>,
}

/// The checks of one release, over the time that it is watched.
pub struct Checks {
    settings: Settings,
    context: Context,
    /// When each check is asked again, since the start.
    due: Vec<Duration>,
    /// How often systemd had restarted a unit when it was first looked at.
    restarts: RefCell<BTreeMap<String, u64>>,
    processes: Processes,
}

impl Checks {
    /// Checks that have not been asked yet.
    pub fn new(settings: Settings, context: Context) -> Self {
        let due = vec![Duration::ZERO; settings.check.len()];
        Self { settings, context, due, restarts: RefCell::default(), processes: Processes::default() }
    }

    /// Asks those that are due, side by side. `at` is the time since the release was started; it never goes back.
    /// Returns after the longest time limit at the latest.
    pub fn observe(&mut self, at: Duration) -> Vec<Observation> {
        self.observe_unless(at, &|| false)
    }

    /// The same. As soon as nobody wants the answers any more, those that are missing are left out, and commands are ended.
    pub fn observe_unless(&mut self, at: Duration, is_unwanted: &dyn Fn() -> bool) -> Vec<Observation> {
        let begin = Instant::now();
        let is_over = Arc::new(AtomicBool::new(false));
        let due = self.take_due(at);
        let asked = due.into_iter().map(|check| ask(check, &self.context, Arc::clone(&is_over)));
        let asked: Vec<_> = asked.collect();
        let mut observations = Vec::new();
        if !self.context.units.is_empty() {
            self.observe_units(&mut observations);
        }
        let mut asked = asked.into_iter();
        while let Some((check, answer)) = asked.next() {
            let limit = check.limit().0 + GRACE;
            let Some(told) = await_answer(&answer, begin, limit, is_unwanted) else {
                is_over.store(true, Ordering::Relaxed);
                let commands =
                    std::iter::once((check, answer)).chain(asked).filter(|(check, _)| check.exec.is_some());
                // Whoever goes on, or ends, leaves none of them behind.
                commands.for_each(|(_, answer)| drop(answer.recv_timeout(GRACE)));
                break;
            };
            match told {
                Ok(Observation { ok: Answer::Healthy, name, took, .. }) if check.systemd.is_some() => {
                    // Restarts are compared here: the thread that asked does not know the earlier numbers.
                    let units = check.systemd.map(|systemd| systemd.units).unwrap_or_default();
                    let (ok, detail) = self.look_at_units(&units);
                    observations.push(Observation { name, ok, detail, took });
                }
                Ok(observation) => observations.push(observation),
                Err(_) => observations.push(Observation {
                    name: check.name.clone(),
                    ok: Answer::CannotRun,
                    detail: "the check itself did not end".into(),
                    took: begin.elapsed(),
                }),
            }
        }
        observations
    }

    fn take_due(&mut self, at: Duration) -> Vec<Check> {
        let mut taken = Vec::new();
        for (check, due) in self.settings.check.iter().zip(&mut self.due) {
            if at >= *due {
                *due = at + check.interval.unwrap_or(self.settings.interval).0;
                taken.push(check.clone());
            }
        }
        taken
    }

    fn observe_units(&mut self, observations: &mut Vec<Observation>) {
        let begin = Instant::now();
        let names: Vec<_> = self.context.units.iter().chain(&self.context.others).cloned().collect();
        let family = unit::family(&names);
        let (ok, detail) = match &family {
            Ok(family) => {
                self.judge_units(family.iter().filter(|unit| self.context.units.contains(&unit.name)))
            }
            Err(error) => (Answer::CannotRun, error.to_string()),
        };
        observations.push(Observation { name: UNITS.into(), ok, detail, took: begin.elapsed() });
        if self.settings.process_check {
            let begin = Instant::now();
            let (ok, detail) = match &family {
                Ok(family) => self.look_at_processes(family),
                Err(error) => (Answer::CannotRun, error.to_string()),
            };
            observations.push(Observation { name: PROCESSES.into(), ok, detail, took: begin.elapsed() });
        }
    }

    fn look_at_units(&mut self, units: &[String]) -> (Answer, String) {
        match unit::look(units) {
            Ok(units) => self.judge_units(units.iter()),
            Err(error) => (Answer::CannotRun, error.to_string()),
        }
    }

    fn judge_units<'u>(&self, units: impl Iterator<Item = &'u Unit>) -> (Answer, String) {
        let mut told = (Answer::Healthy, "all units are active".to_owned());
        let mut first = self.restarts.borrow_mut();
        for unit in units {
            let first = *first.entry(unit.name.clone()).or_insert(unit.restarts());
            let (answer, detail) = judge_unit(unit, first);
            match (told.0, answer) {
                (_, Answer::Healthy) | (Answer::Sick, Answer::NotYet) => {}
                _ => told = (answer, detail),
            }
        }
        told
    }

    fn look_at_processes(&mut self, family: &[Unit]) -> (Answer, String) {
        let group = |unit: &Unit| Group {
            unit: unit.name.clone(),
            path: unit.get("ControlGroup").to_owned(),
            may_be_older: unit.get("MainPID").parse().ok().filter(|_| self.context.reloads),
            is_own: unit.kind != UnitKind::Slice,
        };
        let groups: Vec<_> = family.iter().map(group).collect();
        let Context { releases, tree, since, .. } = &self.context;
        self.processes = processes::of_groups(&groups, releases, tree, *since);
        judge_processes(&self.processes)
    }
}

fn judge_processes(seen: &Processes) -> (Answer, String) {
    let list = |pids: &[u32]| pids.iter().take(5).map(u32::to_string).collect::<Vec<_>>().join(", ");
    if let [first, rest @ ..] = seen.old.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        let what = match first.path.as_str() {
            "" => "is older than the switch and runs the old code".to_owned(),
            path => format!("runs from `{path}`"),
        };
        // Right after a reload old workers may still be finishing.
        return (Answer::NotYet, format!("process {} of `{}` {what}{more}", first.pid, first.unit));
    }
    if !seen.hidden.is_empty() {
        let text = format!("processes of the units may not be looked at: {}", list(&seen.hidden));
        return (Answer::CannotRun, text);
    }
    let known = "no process runs from another release".to_owned();
    match seen.unknown.len() {
        0 => (Answer::Healthy, known),
        count => {
            let text = format!(
                "{known}, as far as can be told: {count} use no file of any: {}",
                list(&seen.unknown)
            );
            (Answer::Healthy, text)
        }
    }
}

fn judge_unit(unit: &Unit, restarts_first: u64) -> (Answer, String) {
    let name = &unit.name;
    let [active, sub, result] = ["ActiveState", "SubState", "Result"].map(|property| unit.get(property));
    if unit.restarts() > restarts_first {
        let times = unit.restarts() - restarts_first;
        return (
            Answer::Sick,
            format!("`{name}` was restarted {} by systemd; last result: {result}", often(times)),
        );
    }
    let sick = |what: &str| (Answer::Sick, format!("`{name}` {what}"));
    match (active, sub) {
        ("active", _) if unit.load == Load::Masked => sick("is masked, and runs"),
        ("active", _) => (Answer::Healthy, String::new()),
        ("activating", "auto-restart") => (Answer::Sick, format!("`{name}` ended: {result}")),
        _ if unit.has_job() => (Answer::NotYet, format!("`{name}` waits for its turn")),
        ("activating" | "reloading" | "refreshing", _) => {
            (Answer::NotYet, format!("`{name}` is {active} ({sub})"))
        }
        ("inactive", _) => match &unit.load {
            Load::Missing => sick("is not there: systemd finds no such unit"),
            Load::Masked => sick("is masked"),
            Load::Broken(why) => sick(&format!("cannot be loaded: {why}")),
            // Work that was done and left nothing running.
            Load::Loaded if unit.is_oneshot() && result == "success" => (Answer::Healthy, String::new()),
            // Of a unit that nobody has tried to start systemd says the same, without a time.
            Load::Loaded
                if result == "success"
                    && unit.get("ConditionResult") == "no"
                    && !["", "0"].contains(&unit.get("ConditionTimestampMonotonic")) =>
            {
                sick("was not started: its conditions are not met")
            }
            Load::Loaded => (Answer::Sick, format!("`{name}` is {active} ({sub}); last result: {result}")),
        },
        _ => (Answer::Sick, format!("`{name}` is {active} ({sub}); last result: {result}")),
    }
}

/// Waits for an answer, until so long after the beginning. `None`: nobody wants it any more.
fn await_answer(
    answer: &mpsc::Receiver<Observation>,
    begin: Instant,
    limit: Duration,
    is_unwanted: &dyn Fn() -> bool,
) -> Option<Result<Observation, RecvTimeoutError>> {
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        match answer.recv_timeout(left.min(WANTED_EVERY)) {
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            told => return Some(told),
        }
        if is_unwanted() {
            return None;
        }
    }
}

/// Begins to ask; the answer comes through the channel, or never. A command is ended once it `is_over`.
fn ask(check: Check, context: &Context, is_over: Arc<AtomicBool>) -> (Check, mpsc::Receiver<Observation>) {
    let (sender, receiver) = mpsc::channel();
    let (asked, context) = (check.clone(), context.clone());
    std::thread::spawn(move || {
        let begin = Instant::now();
        let limit = asked.limit().0;
        let entered = context.there.as_ref().map_or(Ok(()), |there| there.enter());
        let (ok, detail) = match asked.kind() {
            _ if entered.is_err() => (Answer::CannotRun, told(entered)),
            Ok(Kind::Http(http)) => web::http(http, limit),
            Ok(Kind::Tcp(tcp)) => probes::tcp(tcp, limit),
            Ok(Kind::Exec(exec)) => {
                let is_unwanted = || is_over.load(Ordering::Relaxed);
                probes::exec(exec, limit, &context.tree, &context.env, &is_unwanted)
            }
            Ok(Kind::File(file)) => probes::file(file, &context.tree),
            Ok(Kind::Systemd(_)) => (Answer::Healthy, String::new()),
            Err(invalid) => (Answer::CannotRun, invalid.to_string()),
        };
        // Nobody listens any more after the time limit.
        let _ = sender.send(Observation { name: asked.name, ok, detail, took: begin.elapsed() });
    });
    (check, receiver)
}

fn told(entered: std::io::Result<()>) -> String {
    entered.map_or_else(|error| format!("it cannot go into the rehearsal: {error}"), |()| String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_of(name: &str, pairs: &[(&str, &str)]) -> Answer {
        let unit =
            Unit::new(name, crate::sys::systemd::Properties::from_pairs(pairs.iter().copied())).unwrap();
        judge_unit(&unit, 2).0
    }

    fn unit(active: &str, sub: &str, restarts: &str) -> Answer {
        unit_of("shop.service", &[("ActiveState", active), ("SubState", sub), ("NRestarts", restarts)])
    }

    #[test]
    fn conditions_are_blamed_only_when_they_were_looked_at() {
        let words = |at| {
            let pairs = [
                ("ActiveState", "inactive"),
                ("SubState", "dead"),
                ("Result", "success"),
                ("ConditionResult", "no"),
                ("ConditionTimestampMonotonic", at),
            ];
            judge_unit(
                &Unit::new("a.service", crate::sys::systemd::Properties::from_pairs(pairs)).unwrap(),
                0,
            )
            .1
        };
        assert!(words("12345").contains("conditions"));
        assert_eq!(words("0"), "`a.service` is inactive (dead); last result: success");
    }

    #[test]
    fn a_unit_that_restarts_is_sick_even_while_it_is_active() {
        assert_eq!(unit("active", "running", "2"), Answer::Healthy);
        assert_eq!(unit("active", "running", "3"), Answer::Sick);
        assert_eq!(unit("activating", "start", "2"), Answer::NotYet);
        assert_eq!(unit("activating", "auto-restart", "2"), Answer::Sick);
        assert_eq!(unit("failed", "failed", "2"), Answer::Sick);
        assert_eq!(unit("inactive", "dead", "2"), Answer::Sick);
    }

    #[test]
    fn units_of_every_kind_can_be_healthy() {
        for (name, sub) in [
            ("a.service", "running"),
            ("a.socket", "listening"),
            ("a.timer", "waiting"),
            ("a.path", "waiting"),
            ("a.target", "active"),
            ("a.slice", "active"),
            ("a.mount", "mounted"),
            ("a.automount", "waiting"),
        ] {
            assert_eq!(
                unit_of(name, &[("ActiveState", "active"), ("SubState", sub)]),
                Answer::Healthy,
                "{name}"
            );
            assert_eq!(unit_of(name, &[("ActiveState", "failed")]), Answer::Sick, "{name}");
            for load in ["not-found", "masked", "bad-setting"] {
                let pairs = [("ActiveState", "inactive"), ("LoadState", load), ("Type", "oneshot")];
                assert_eq!(unit_of(name, &pairs), Answer::Sick, "{name} {load}");
            }
        }
    }

    #[test]
    fn what_is_not_known_of_a_process_is_not_told_as_well() {
        let old =
            |path: &str| super::super::OldProcess { pid: 7, unit: "a.service".into(), path: path.into() };
        let told = |seen: Processes| judge_processes(&seen);
        assert_eq!(
            told(Processes::default()),
            (Answer::Healthy, "no process runs from another release".into())
        );
        let (answer, text) = told(Processes { unknown: vec![7], ..Processes::default() });
        assert!(answer == Answer::Healthy && text.ends_with("1 use no file of any: 7"), "{text}");
        assert_eq!(told(Processes { hidden: vec![7], ..Processes::default() }).0, Answer::CannotRun);
        let (answer, text) = told(Processes { old: vec![old("")], ..Processes::default() });
        assert!(answer == Answer::NotYet && text.contains("older than the switch"), "{text}");
        assert!(told(Processes { old: vec![old("/srv/1")], ..Processes::default() }).1.contains("`/srv/1`"));
    }

    #[test]
    fn checks_run_side_by_side_and_as_often_as_they_say() {
        let text = r#"
            [[check]]
            name = "a"
            exec = { command = ["true"] }
            [[check]]
            name = "b"
            exec = { command = ["sh", "-c", "exit 75"] }
            interval = "10s"
        "#;
        let settings: Settings = toml::from_str(text).unwrap();
        let context = Context { tree: "/".into(), ..Context::default() };
        let mut checks = Checks::new(settings, context);
        let mut at = |seconds| {
            let seen = checks.observe(Duration::from_secs(seconds));
            seen.into_iter().map(|one| (one.name, one.ok)).collect::<Vec<_>>()
        };
        assert_eq!(at(0), [("a".into(), Answer::Healthy), ("b".into(), Answer::NotYet)]);
        assert_eq!(at(1), []);
        assert_eq!(at(2), [("a".into(), Answer::Healthy)]);
        assert_eq!(at(10).len(), 2);
    }
}
