//! The verdict on a release: a pure function of what the checks said, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::settings::Settings;
use super::{Answer, Observation, PROCESSES, UNITS};
use crate::types::{Span, often};

/// What is known of the release by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not long enough healthy, and not sick.
    Watching,
    /// Healthy for the whole of `min_healthy`.
    Healthy,
    /// It failed; why, with the last answer of the check.
    Failed(String),
    /// Its time is over, and no check that is required has spoken for it: those that there are failed before the switch
    /// already. That proves nothing against it either.
    Unproven(String),
}

/// One check's part in the trial, as `status --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    pub name: String,
    /// Whether it passed when last asked.
    pub ok: bool,
    /// How many times in a row it passed (positive) or failed (negative).
    pub streak: i64,
    /// Whether it passed before the switch; `false` for those that are ignored since they did not.
    pub baseline: bool,
    /// How long it took when last asked, in milliseconds.
    pub last_ms: u64,
    /// What it said when last asked.
    pub detail: String,
}

/// Folds observations into a verdict.
#[derive(Clone, Debug)]
pub struct Trial {
    min_healthy: Duration,
    deadline: Duration,
    startup: Duration,
    fail_threshold: u32,
    /// All that count: the configured ones that are required, and further ones once they are seen.
    counted: BTreeMap<String, Counted>,
    /// Those that are only shown.
    shown: BTreeMap<String, Counted>,
    /// All that are required, by name: ignored ones among them.
    required: Vec<String>,
    /// Those that failed before the switch already, and have not passed since.
    ignored: Vec<String>,
    /// The checks of which one must have passed, because others that would count are ignored; empty: the verdict needs none.
    proofs: Vec<String>,
    healthy_since: Option<Duration>,
    last_at: Duration,
}

#[derive(Clone, Debug, Default)]
struct Counted {
    last: Option<Observation>,
    streak: i64,
    has_passed: bool,
}

impl Trial {
    /// A trial that has seen nothing yet. `ignored` names checks that failed before the switch already: they count from
    /// their first pass on, and as long as one that is required has not passed, another must have.
    ///
    /// Where nothing at all is watched, the first look ends it.
    pub fn new(settings: &Settings, ignored: &[String]) -> Self {
        let is_required = |name: &&String| settings.is_required(name);
        let required = settings.check.iter().filter(|check| check.required);
        let proofs: Vec<_> = match ignored.iter().find(is_required) {
            None => Vec::new(),
            Some(_) if settings.check.iter().any(|check| check.required) => {
                required.map(|check| check.name.clone()).collect()
            }
            Some(_) => vec![UNITS.into(), PROCESSES.into()],
        };
        Self { proofs, ..Self::of_old(settings, ignored) }
    }

    /// The same for the release before the switch: what failed then may still fail.
    pub fn of_old(settings: &Settings, ignored: &[String]) -> Self {
        let (mut counted, mut shown) = (BTreeMap::new(), BTreeMap::new());
        let configured = settings.check.iter().map(|check| &check.name).chain(ignored);
        let required = configured.filter(|name| settings.is_required(name)).cloned().collect();
        for check in &settings.check {
            let counts = check.required && !ignored.contains(&check.name);
            let place = if counts { &mut counted } else { &mut shown };
            place.insert(check.name.clone(), Counted::default());
        }
        Self {
            min_healthy: settings.min_healthy().0,
            deadline: settings.deadline.0,
            startup: settings.startup.0.min(settings.deadline.0),
            fail_threshold: settings.fail_threshold,
            counted,
            shown,
            required,
            ignored: ignored.to_vec(),
            proofs: Vec::new(),
            healthy_since: None,
            last_at: Duration::ZERO,
        }
    }

    /// Takes what checks said at `at`, the time since the release was started.
    pub fn observe(&mut self, at: Duration, observations: &[Observation]) -> Verdict {
        self.last_at = at;
        let is_startup = at < self.startup;
        for observation in observations {
            self.count_again(observation);
            let is_shown =
                self.ignored.contains(&observation.name) || self.shown.contains_key(&observation.name);
            let place = if is_shown { &mut self.shown } else { &mut self.counted };
            place.entry(observation.name.clone()).or_default().take(observation, is_startup);
        }
        if let Some(text) = self.failure() {
            return Verdict::Failed(text);
        }
        if self.counted.values().all(Counted::is_healthy) && self.is_proven() {
            let since = *self.healthy_since.get_or_insert(at);
            if at.saturating_sub(since) >= self.need() {
                return Verdict::Healthy;
            }
        } else {
            self.healthy_since = None;
        }
        if at < self.deadline {
            Verdict::Watching
        } else {
            self.lacks_proof().map_or_else(|| Verdict::Failed(self.too_late()), Verdict::Unproven)
        }
    }

    /// A check that failed before the switch counts again as soon as it passes.
    fn count_again(&mut self, observation: &Observation) {
        if !observation.ok.is_healthy() || !self.ignored.contains(&observation.name) {
            return;
        }
        self.ignored.retain(|name| *name != observation.name);
        if self.required.contains(&observation.name) {
            let seen = self.shown.remove(&observation.name).unwrap_or_default();
            self.counted.insert(observation.name.clone(), seen);
        }
    }

    /// Whether somebody speaks for the release.
    fn is_proven(&self) -> bool {
        let has_passed = |name: &String| self.counted.get(name).is_some_and(|check| check.has_passed);
        self.proofs.is_empty() || self.proofs.iter().any(has_passed)
    }

    /// Why nothing was proven, unless somebody has spoken for the release.
    pub fn lacks_proof(&self) -> Option<String> {
        if self.is_proven() {
            return None;
        }
        let silent = self.proofs.iter().filter_map(|name| self.shown.get(name)?.last.as_ref());
        let texts: Vec<_> = silent.map(ToString::to_string).collect();
        let text = "no check that is required has passed";
        Some(if texts.is_empty() { text.to_owned() } else { format!("{text}: {}", texts.join("; ")) })
    }

    /// Whether all that counts passed when it was last asked.
    pub fn is_well(&self) -> bool {
        self.healthy_since.is_some()
    }

    /// What keeps the release from being healthy by its checks' last answers: one that says that it is sick, if there is
    /// one.
    pub fn complaint(&self) -> Option<&Observation> {
        let open = || {
            self.counted.values().filter_map(|check| check.last.as_ref().filter(|last| !last.ok.is_healthy()))
        };
        open().find(|last| last.ok == Answer::Sick).or_else(|| open().next())
    }

    /// How long all has been well, without a break.
    pub fn healthy_for(&self) -> Duration {
        self.healthy_since.map_or(Duration::ZERO, |since| self.last_at.saturating_sub(since))
    }

    /// Whether all that count were well when they were asked last.
    pub fn is_answering(&self) -> bool {
        self.counted.values().all(Counted::is_healthy)
    }

    /// How long all must be well; where nothing is watched, no time shows more.
    pub fn need(&self) -> Duration {
        let is_watched = !self.counted.is_empty() || !self.shown.is_empty();
        if is_watched { self.min_healthy } else { Duration::ZERO }
    }

    /// Each check's part, in order of names.
    pub fn reports(&self) -> Vec<CheckReport> {
        let mut reports: Vec<_> = self
            .counted
            .iter()
            .chain(&self.shown)
            .map(|(name, check)| CheckReport {
                name: name.clone(),
                ok: check.is_healthy(),
                streak: check.streak,
                baseline: !self.ignored.contains(name),
                last_ms: check
                    .last
                    .as_ref()
                    .map_or(0, |last| u64::try_from(last.took.as_millis()).unwrap_or(u64::MAX)),
                detail: check.last.as_ref().map_or_else(String::new, |last| last.detail.clone()),
            })
            .collect();
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    fn failure(&self) -> Option<String> {
        let limit = -i64::from(self.fail_threshold);
        let failed = self.counted.values().filter(|check| check.streak <= limit);
        let texts: Vec<_> = failed
            .filter_map(|check| {
                Some(format!("{}, {} in a row", check.last.as_ref()?, often(check.streak.unsigned_abs())))
            })
            .collect();
        if texts.is_empty() { None } else { Some(texts.join("; ")) }
    }

    fn too_late(&self) -> String {
        let open: Vec<_> = self
            .counted
            .iter()
            .filter(|(_, check)| !check.is_healthy())
            .map(|(name, check)| match &check.last {
                Some(last) => last.to_string(),
                None => format!("check `{name}` was never asked"),
            })
            .collect();
        let need = Span(self.min_healthy);
        let text = format!("not healthy for {need} within {}", Span(self.deadline));
        if open.is_empty() { text } else { format!("{text}: {}", open.join("; ")) }
    }
}

impl Counted {
    fn take(&mut self, observation: &Observation, is_startup: bool) {
        match observation.ok {
            Answer::Healthy => {
                self.has_passed = true;
                self.streak = self.streak.max(0) + 1;
            }
            Answer::NotYet if is_startup && !self.has_passed => {}
            Answer::NotYet | Answer::Sick | Answer::CannotRun => self.streak = self.streak.min(0) - 1,
        }
        self.last = Some(observation.clone());
    }

    fn is_healthy(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.ok.is_healthy())
    }
}

#[cfg(test)]
mod tests {
    use Answer::{CannotRun, Healthy, NotYet, Sick};
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        let text = "min_healthy = \"10s\"\ndeadline = \"60s\"\nstartup = \"5s\"\n
            [[check]]\nname = \"web\"\ntcp = { address = \"a:1\" }\n
            [[check]]\nname = \"extra\"\ntcp = { address = \"a:1\" }\nrequired = false";
        toml::from_str(text).unwrap()
    }

    fn saw(name: &str, ok: Answer) -> Observation {
        Observation { name: name.into(), ok, detail: "words".into(), took: Duration::from_millis(7) }
    }

    /// The verdict after the answers of `web`, one a second.
    fn after(answers: &[Answer]) -> Verdict {
        let mut trial = Trial::new(&settings(), &[]);
        let mut verdict = Verdict::Watching;
        for (second, &answer) in (0..).zip(answers) {
            verdict = trial.observe(Duration::from_secs(second), &[saw("web", answer)]);
            if verdict != Verdict::Watching {
                break;
            }
        }
        verdict
    }

    #[test]
    fn healthy_takes_the_whole_time_without_a_break() {
        assert_eq!(after(&[Healthy; 10]), Verdict::Watching);
        assert_eq!(after(&[Healthy; 11]), Verdict::Healthy);
        let mut broken = vec![Healthy; 10];
        broken.push(Sick);
        broken.extend([Healthy; 10]);
        assert_eq!(after(&broken), Verdict::Watching);
        broken.push(Healthy);
        assert_eq!(after(&broken), Verdict::Healthy);
    }

    #[test]
    fn failures_in_a_row_end_it() {
        assert_eq!(after(&[Sick, Sick, Healthy, Sick, Sick]), Verdict::Watching);
        let Verdict::Failed(text) = after(&[Sick; 3]) else { panic!("it was not noticed") };
        assert_eq!(text, "check `web` fails: words, 3 times in a row");
        assert!(matches!(after(&[CannotRun; 3]), Verdict::Failed(_)));
    }

    #[test]
    fn not_yet_is_no_failure_right_after_the_start() {
        let mut answers = vec![NotYet; 5];
        answers.extend([Healthy; 11]);
        assert_eq!(after(&answers), Verdict::Healthy);
        assert_eq!(after(&[NotYet; 7]), Verdict::Watching);
        assert!(matches!(after(&[NotYet; 8]), Verdict::Failed(_)));
        // What has passed once is up: no answer is a failure then.
        assert!(matches!(after(&[Healthy, NotYet, NotYet, NotYet]), Verdict::Failed(_)));
    }

    #[test]
    fn the_deadline_ends_it() {
        let answers: Vec<_> = (0..61).map(|second| if second % 3 == 0 { Sick } else { Healthy }).collect();
        let Verdict::Failed(text) = after(&answers) else { panic!("it went on") };
        assert_eq!(text, "not healthy for 10s within 1min: check `web` fails: words");
    }

    #[test]
    fn whatever_keeps_a_release_from_being_healthy_is_named() {
        let mut trial = Trial::new(&settings(), &[]);
        let mut complaint = |processes, web| {
            trial.observe(Duration::ZERO, &[saw("processes", processes), saw("web", web)]);
            trial.complaint().map(|last| last.name.clone())
        };
        assert_eq!(complaint(Healthy, Healthy), None);
        assert_eq!(complaint(NotYet, Healthy).as_deref(), Some("processes"));
        assert_eq!(complaint(NotYet, Sick).as_deref(), Some("web"));
    }

    #[test]
    fn what_is_not_required_or_ignored_is_only_shown() {
        let mut trial = Trial::of_old(&settings(), &["web".into()]);
        for second in 0..10 {
            let seen = [saw("web", Sick), saw("extra", Sick), saw("units", Healthy)];
            assert_eq!(trial.observe(Duration::from_secs(second), &seen), Verdict::Watching);
        }
        assert_eq!(trial.healthy_for(), Duration::from_secs(9));
        let reports = trial.reports();
        let names: Vec<_> = reports.iter().map(|one| (one.name.as_str(), one.baseline, one.streak)).collect();
        assert_eq!(names, [("extra", true, -10), ("units", true, 10), ("web", false, -10)]);
        assert_eq!(trial.observe(Duration::from_secs(10), &[saw("units", Healthy)]), Verdict::Healthy);
    }

    /// The verdict on a release whose check `web` failed before the switch, after these answers, one a second.
    fn after_an_outage(answers: &[Answer]) -> Verdict {
        let mut trial = Trial::new(&settings(), &["web".into()]);
        let mut verdict = Verdict::Watching;
        for (second, &answer) in (0..).zip(answers) {
            verdict =
                trial.observe(Duration::from_secs(second), &[saw("web", answer), saw("units", Healthy)]);
            if verdict != Verdict::Watching {
                break;
            }
        }
        verdict
    }

    #[test]
    fn what_failed_before_the_switch_counts_from_its_first_pass_on() {
        assert_eq!(after_an_outage(&[Healthy; 11]), Verdict::Healthy);
        let mut late = vec![Sick; 20];
        late.extend([Healthy; 10]);
        assert_eq!(after_an_outage(&late), Verdict::Watching);
        late.push(Healthy);
        assert_eq!(after_an_outage(&late), Verdict::Healthy);
        assert!(matches!(after_an_outage(&[Sick, Healthy, Sick, Sick, Sick]), Verdict::Failed(_)));
    }

    #[test]
    fn with_no_required_check_that_passed_nothing_is_proven() {
        let Verdict::Unproven(text) = after_an_outage(&[Sick; 61]) else { panic!("it was judged") };
        assert_eq!(text, "no check that is required has passed: check `web` fails: words");
        // Without checks it is the units that speak, and they were down.
        let mut trial = Trial::new(&Settings::default(), &["units".into()]);
        assert_eq!(trial.observe(Duration::ZERO, &[saw("units", Sick)]), Verdict::Watching);
        let end = Settings::default().deadline.0;
        assert!(matches!(trial.observe(end, &[saw("units", Sick)]), Verdict::Unproven(_)));
        assert_eq!(trial.observe(end, &[saw("units", Healthy)]), Verdict::Healthy);
        // The old release may be as it was.
        let mut old = Trial::of_old(&settings(), &["web".into()]);
        for second in 0..10 {
            assert_eq!(old.observe(Duration::from_secs(second), &[saw("web", Sick)]), Verdict::Watching);
        }
        assert_eq!(old.observe(Duration::from_secs(10), &[saw("web", Sick)]), Verdict::Healthy);
    }

    #[test]
    fn without_checks_the_first_look_decides_unless_a_time_is_said() {
        assert_eq!(Trial::new(&Settings::default(), &[]).observe(Duration::ZERO, &[]), Verdict::Healthy);
        let mut trial = Trial::new(&Settings::default(), &[]);
        assert_eq!(trial.observe(Duration::ZERO, &[saw("units", NotYet)]), Verdict::Watching);
        assert_eq!(trial.observe(Duration::ZERO, &[saw("units", Healthy)]), Verdict::Healthy);
        // The units are watched for as long as was said; where there are none, nothing is.
        let said = Settings { min_healthy: Some(Span::seconds(20)), ..Settings::default() };
        let mut trial = Trial::new(&said, &[]);
        assert_eq!(trial.observe(Duration::ZERO, &[saw("units", Healthy)]), Verdict::Watching);
        assert_eq!(trial.observe(Duration::from_secs(19), &[saw("units", Healthy)]), Verdict::Watching);
        assert_eq!(trial.observe(Duration::from_secs(20), &[saw("units", Healthy)]), Verdict::Healthy);
        assert_eq!(Trial::new(&said, &[]).observe(Duration::ZERO, &[]), Verdict::Healthy);
    }

    proptest! {
        #[test]
        fn every_trial_ends_by_its_deadline(answers in prop::collection::vec(0..4u8, 61)) {
            let answers: Vec<_> =
                answers.iter().map(|n| [Healthy, NotYet, Sick, CannotRun][usize::from(*n)]).collect();
            prop_assert_ne!(after(&answers), Verdict::Watching);
        }
    }
}
