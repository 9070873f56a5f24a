//! Asks all checks that are due, side by side, and remembers what must be compared between two looks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::settings::{Check, Kind, Settings};
use super::{Answer, Observation, PROCESSES, Processes, UNITS, probes, processes};
use crate::sys::namespace::Namespaces;
use crate::sys::systemd::{self, Properties};

/// How much longer than its own time limit a check is waited for.
const GRACE: Duration = Duration::from_secs(1);

/// What checks look at.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The tree that is to be active, without links in its path: `<root>/releases/<version>`.
    pub tree: PathBuf,
    /// The directory of all trees.
    pub releases: PathBuf,
    /// The declared units; none on a machine without systemd.
    pub units: Vec<String>,
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
    restarts: BTreeMap<String, u64>,
    processes: Processes,
}

/// Asks every check once.
pub fn run_checks(settings: &Settings, context: &Context) -> Vec<Observation> {
    Checks::new(settings.clone(), context.clone()).observe(Duration::ZERO)
}

impl Checks {
    /// Checks that have not been asked yet.
    pub fn new(settings: Settings, context: Context) -> Self {
        let due = vec![Duration::ZERO; settings.check.len()];
        Self { settings, context, due, restarts: BTreeMap::new(), processes: Processes::default() }
    }

    /// Asks those that are due, side by side. `at` is the time since the release was started; it never goes back.
    /// Returns after the longest time limit at the latest.
    pub fn observe(&mut self, at: Duration) -> Vec<Observation> {
        let begin = Instant::now();
        let asked: Vec<_> = self.take_due(at).into_iter().map(|check| ask(check, &self.context)).collect();
        let mut observations = Vec::new();
        if !self.context.units.is_empty() {
            self.observe_units(&mut observations);
        }
        for (check, answer) in asked {
            let limit = (check.limit().0 + GRACE).saturating_sub(begin.elapsed());
            match answer.recv_timeout(limit) {
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

    /// The processes of the declared units, as they were at the last look.
    pub fn processes(&self) -> &Processes {
        &self.processes
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
        let units = self.context.units.clone();
        let (ok, detail) = self.look_at_units(&units);
        observations.push(Observation { name: UNITS.into(), ok, detail, took: begin.elapsed() });
        if self.settings.process_check {
            let begin = Instant::now();
            let (ok, detail) = self.look_at_processes(&units);
            observations.push(Observation { name: PROCESSES.into(), ok, detail, took: begin.elapsed() });
        }
    }

    fn look_at_units(&mut self, units: &[String]) -> (Answer, String) {
        let wanted = ["ActiveState", "SubState", "Result", "NRestarts", "Type", "Job"];
        let all = match systemd::show(units, &wanted) {
            Ok(all) => all,
            Err(error) => return (Answer::CannotRun, error.to_string()),
        };
        let mut told = (Answer::Healthy, "all units are active".to_owned());
        for (unit, properties) in units.iter().zip(&all) {
            let restarts = properties.get("NRestarts").parse().unwrap_or(0);
            let first = *self.restarts.entry(unit.clone()).or_insert(restarts);
            let (answer, detail) = judge_unit(unit, properties, first);
            match (told.0, answer) {
                (_, Answer::Healthy) | (Answer::Sick, Answer::NotYet) => {}
                _ => told = (answer, detail),
            }
        }
        told
    }

    fn look_at_processes(&mut self, units: &[String]) -> (Answer, String) {
        let groups: Vec<_> = match systemd::show(units, &["ControlGroup"]) {
            Ok(all) => {
                let groups = all.iter().map(|properties| properties.get("ControlGroup").to_owned());
                units.iter().cloned().zip(groups).collect()
            }
            Err(error) => return (Answer::CannotRun, error.to_string()),
        };
        self.processes = processes::of_groups(&groups, &self.context.releases, &self.context.tree);
        match self.processes.old.as_slice() {
            [] => (Answer::Healthy, "no process runs from another release".into()),
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
                let text =
                    format!("process {} of `{}` runs from `{}`{more}", first.pid, first.unit, first.path);
                // Right after a reload old workers may still be finishing.
                (Answer::NotYet, text)
            }
        }
    }
}

fn judge_unit(unit: &str, properties: &Properties, restarts_first: u64) -> (Answer, String) {
    let restarts: u64 = properties.get("NRestarts").parse().unwrap_or(0);
    let [active, sub, result] = ["ActiveState", "SubState", "Result"].map(|name| properties.get(name));
    if restarts > restarts_first {
        let times = restarts - restarts_first;
        return (
            Answer::Sick,
            format!("`{unit}` was restarted {times} times by systemd; last result: {result}"),
        );
    }
    match (active, sub) {
        ("active", _) => (Answer::Healthy, String::new()),
        ("activating", "auto-restart") => (Answer::Sick, format!("`{unit}` ended: {result}")),
        _ if !["", "0"].contains(&properties.get("Job")) => {
            (Answer::NotYet, format!("`{unit}` waits for its turn"))
        }
        ("activating" | "reloading" | "refreshing", _) => {
            (Answer::NotYet, format!("`{unit}` is {active} ({sub})"))
        }
        // Work that was done and left nothing running.
        ("inactive", _) if properties.get("Type") == "oneshot" && result == "success" => {
            (Answer::Healthy, String::new())
        }
        _ => (Answer::Sick, format!("`{unit}` is {active} ({sub}); last result: {result}")),
    }
}

/// Begins to ask; the answer comes through the channel, or never.
fn ask(check: Check, context: &Context) -> (Check, mpsc::Receiver<Observation>) {
    let (sender, receiver) = mpsc::channel();
    let (asked, context) = (check.clone(), context.clone());
    std::thread::spawn(move || {
        let begin = Instant::now();
        let limit = asked.limit().0;
        let entered = context.there.as_ref().map_or(Ok(()), |there| there.enter());
        let (ok, detail) = match asked.kind() {
            _ if entered.is_err() => (Answer::CannotRun, told(entered)),
            Ok(Kind::Http(http)) => probes::http(http, limit),
            Ok(Kind::Tcp(tcp)) => probes::tcp(tcp, limit),
            Ok(Kind::Exec(exec)) => probes::exec(exec, limit, &context.tree, &context.env),
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

    fn unit(active: &str, sub: &str, restarts: &str) -> Answer {
        let pairs = [("ActiveState", active), ("SubState", sub), ("NRestarts", restarts)];
        judge_unit("shop.service", &Properties::from_pairs(pairs), 2).0
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
