//! The loop with an application and a clock of its own: time jumps, and services that fail, without waiting.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::agreement::{Agreement, Alone, Own};
use super::application::{Application, Direction, Moment, Watch};
use super::driver::{self, Ended, Narrator};
use super::node::{Node, Parts, Wish, Work};
use super::settings::Settings;
use crate::health::{Answer, Check, Exec, Observation, Trial};
use crate::store::{Layout, Method, Sealed, Store};
use crate::sys::clock::Clock;
use crate::sys::disk::Disk;
use crate::types::record::{Cause, DataSnapshot, Phase, Reason, Record};
use crate::types::{Digest, ReleaseId, Version};

/// A clock that goes on only when somebody sleeps; its wall clock jumps when told so.
struct ManualClock {
    boot: Mutex<Duration>,
    wall_off: Mutex<SignedDuration>,
    /// At this time since boot the wall clock jumps so far.
    jump: Option<(Duration, SignedDuration)>,
    has_jumped: AtomicBool,
}

impl ManualClock {
    fn jumping(jump: Option<(Duration, SignedDuration)>) -> Self {
        Self {
            boot: Mutex::new(Duration::from_secs(1000)),
            wall_off: Mutex::new(SignedDuration::from_secs(1_790_000_000)),
            jump,
            has_jumped: AtomicBool::new(false),
        }
    }
}

impl Clock for ManualClock {
    fn boot(&self) -> Duration {
        *self.boot.lock().unwrap()
    }

    fn wall(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.boot()).unwrap() + *self.wall_off.lock().unwrap();
        Timestamp::UNIX_EPOCH + since
    }

    fn boot_id(&self) -> String {
        "this boot".into()
    }

    fn sleep(&self, duration: Duration) {
        let now = {
            let mut boot = self.boot.lock().unwrap();
            *boot += duration.max(Duration::from_millis(1));
            *boot
        };
        if let Some((at, by)) = self.jump.filter(|(at, _)| now >= *at)
            && !self.has_jumped.swap(true, Ordering::SeqCst)
        {
            assert!(now < at + Duration::from_secs(5), "the jump is in the trial");
            *self.wall_off.lock().unwrap() += by;
        }
    }

    fn sleep_until(&self, _: Timestamp) {}

    fn is_synchronised(&self) -> bool {
        true
    }
}

/// An application whose versions are well or not, and which notes what is done to it.
struct FakeApplication<'a> {
    sick: &'a [&'a str],
    broken: &'a [&'a str],
    done: RefCell<Vec<String>>,
    running: Cell<bool>,
    store: &'a Store,
}

impl FakeApplication<'_> {
    fn note(&self, what: impl Into<String>) {
        self.done.borrow_mut().push(what.into());
    }
}

struct FakeWatch(bool);

impl Watch for FakeWatch {
    fn observe(&mut self, _: Duration) -> Vec<Observation> {
        let ok = if self.0 { Answer::Healthy } else { Answer::Sick };
        vec![Observation { name: "well".into(), ok, detail: "as made".into(), took: Duration::ZERO }]
    }
}

impl Application for FakeApplication<'_> {
    fn hooks(&self, moment: Moment, _: &Record) -> Result<(), Reason> {
        self.note(moment.name());
        Ok(())
    }
    fn arm(&self, _: Duration) -> Result<(), Reason> {
        self.note("arm");
        Ok(())
    }
    fn disarm(&self) {
        self.note("disarm");
    }
    fn stop(&self, _: &Record) -> Result<(), Reason> {
        self.running.set(false);
        self.note("stop");
        Ok(())
    }
    fn start(&self, _: &Record, _: Direction) -> Result<(), Reason> {
        let active = self.store.active().unwrap().unwrap();
        self.note(format!("start {active}"));
        if self.broken.contains(&active.as_str()) {
            return Err(Reason::new(Cause::Service, "it does not start"));
        }
        self.running.set(true);
        Ok(())
    }
    fn snapshot(&self, _: &Record) -> Result<Vec<DataSnapshot>, Reason> {
        Ok(Vec::new())
    }
    fn restore(&self, _: &Record) -> Result<Vec<String>, Reason> {
        Ok(Vec::new())
    }
    fn drop_snapshots(&self, _: &[DataSnapshot]) -> Result<(), Reason> {
        Ok(())
    }
    fn watch(&self, version: &Version, _: &Path) -> Box<dyn Watch> {
        Box::new(FakeWatch(!self.sick.contains(&version.as_str())))
    }
    fn last_words(&self) -> Vec<String> {
        Vec::new()
    }
}

struct FakeParts<'a>(&'a FakeApplication<'a>);

impl Parts for FakeParts<'_> {
    fn with(&self, _: &Settings, work: &mut Work<'_>) -> Result<Ended, driver::Error> {
        work(self.0, &mut Alone as &mut dyn Agreement)
    }
}

/// Hears nothing.
struct Deaf;

impl Narrator for Deaf {
    fn moved(&self, _: &Record) {}
    fn watched(&self, _: &Record, _: &Trial, _: &Own) {}
    fn waits(&self, _: &Record, _: &str) {}
    fn remarks(&self, _: &Record, _: &str) {}
    fn ended(&self) {}
}

/// A root with releases 1 (active) and 2, whose trees are empty.
fn store(place: &Path) -> Store {
    let store = Store::open(Layout::new(place), Disk::default()).unwrap();
    store.prepare().unwrap();
    for version in ["1", "2"] {
        let staging = store.stage(&version.parse().unwrap(), Method::Copy).unwrap();
        store.publish(staging, &sealed(version)).unwrap();
    }
    store.point_to(&"1".parse().unwrap()).unwrap();
    store
}

fn sealed(version: &str) -> Sealed {
    Sealed {
        release: ReleaseId { version: version.parse().unwrap(), digest: Digest::of(version.as_bytes()) },
        product: None,
        serial: None,
        tree: Digest::of(b""),
        entries: 0,
        bytes: 0,
        staged: Timestamp::UNIX_EPOCH,
        signers: Vec::new(),
        data_read: Vec::new(),
        data_write: None,
        links: Vec::new(),
    }
}

/// Thirty seconds without a break, within five minutes.
fn settings() -> Settings {
    let exec = Exec { command: vec!["true".into()], user: None, env: Default::default(), timeout: None };
    let check = Check {
        name: "well".into(),
        http: None,
        tcp: None,
        exec: Some(exec),
        systemd: None,
        file: None,
        timeout: None,
        interval: None,
        required: true,
    };
    let mut settings = Settings::default();
    settings.health.check = vec![check];
    settings
}

/// Updates from 1 to 2, and says how it ended, how long it took, and what was done.
fn update(clock: &ManualClock, sick: &[&str], broken: &[&str]) -> (Ended, Duration, Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    let application =
        FakeApplication { sick, broken, done: RefCell::default(), running: Cell::new(true), store: &store };
    let node = Node {
        app: "app",
        name: "node",
        settings: &settings(),
        store: &store,
        clock,
        by: "test".into(),
        command: "test".into(),
        interrupted: &AtomicBool::new(false),
        narrator: &Deaf,
        is_dry: false,
    };
    let lock = node.lock().unwrap();
    let began = clock.boot();
    let ended = node.switch(&lock, &sealed("2"), &Wish::default(), &FakeParts(&application)).unwrap();
    assert!(application.running.get() || !broken.is_empty(), "nothing runs at the end");
    (ended, clock.boot() - began, application.done.into_inner())
}

fn phase(ended: &Ended) -> &Phase {
    match ended {
        Ended::Finished(record) | Ended::NeedsPerson(record, _) | Ended::Waiting(record, _) => &record.phase,
    }
}

#[test]
fn jumps_of_the_wall_clock_inside_the_trial_change_nothing() {
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    let in_trial = Duration::from_secs(1010);
    for jump in [None, Some((in_trial, DAY)), Some((in_trial, -DAY))] {
        let (ended, took, _) = update(&ManualClock::jumping(jump), &[], &[]);
        assert_eq!(*phase(&ended), Phase::Committed, "{jump:?}");
        assert!((30..40).contains(&took.as_secs()), "{jump:?}: it took {took:?}");
    }
}

#[test]
fn services_are_stopped_and_started_in_the_right_order() {
    let (ended, _, done) = update(&ManualClock::jumping(None), &[], &[]);
    assert_eq!(*phase(&ended), Phase::Committed);
    let wanted = ["arm", "pre-switch", "stop", "start 2", "post-switch", "healthy", "disarm", "committed"];
    assert_eq!(done, wanted);
}

#[test]
fn a_sick_release_goes_and_the_old_one_is_started_again() {
    let (ended, _, done) = update(&ManualClock::jumping(None), &["2"], &[]);
    assert!(matches!(phase(&ended), Phase::RolledBack { reason } if reason.kind == Cause::Unhealthy));
    let position = |what: &str| done.iter().position(|done| done == what).unwrap();
    assert!(position("start 2") < position("pre-rollback") && position("pre-rollback") < position("start 1"));
    assert_eq!(done.last().map(String::as_str), Some("failed"));
}

#[test]
fn when_neither_release_starts_a_person_is_asked_for() {
    let (ended, _, done) = update(&ManualClock::jumping(None), &[], &["1", "2"]);
    assert!(
        matches!(&ended, Ended::NeedsPerson(_, why) if why.contains("does not start either")),
        "{ended:?}"
    );
    assert_eq!(done.iter().filter(|done| *done == "start 1").count(), 1, "one try, no ping-pong");
}
