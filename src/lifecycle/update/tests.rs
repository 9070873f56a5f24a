//! The loop with an application and a clock of its own: time jumps, and services that fail, without waiting.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::deadline::Bounds;
use super::driver::{self, Driver, Ended, Narrator};
use crate::health::{Answer, Check, Exec, Observation, Trial};
use crate::lifecycle::agreement::{self, Agreement, Alone, Clearance, OwnChecks, Start, Verdict, Wait};
use crate::lifecycle::application::{Application, Direction, Moment, Restored, Watch};
use crate::lifecycle::node::{Collaborators, Node, Wish, Work};
use crate::lifecycle::rehearsal::Rehearsal;
use crate::lifecycle::settings::Settings;
use crate::store::{Kept, Layout, Method, Request, Sealed, Store};
use crate::sys::clock::Clock;
use crate::sys::disk::Disk;
use crate::types::record::{Cause, DataSnapshot, Phase, Reason, Record};
use crate::types::{Digest, ReleaseId, Version};

mod rehearsed;

use rehearsed::FakeRehearsal;

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
#[derive(Clone)]
struct FakeApplication<'a> {
    sick: &'a [&'a str],
    broken: &'a [&'a str],
    /// Where rehearsals are wanted: how they go.
    rehearsal: Option<FakeRehearsal>,
    done: Rc<RefCell<Vec<String>>>,
    running: Rc<Cell<bool>>,
    store: &'a Store,
    /// Whether others are waited for in vain.
    is_undecided: bool,
}

impl<'a> FakeApplication<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            sick: &[],
            broken: &[],
            rehearsal: None,
            done: Rc::default(),
            running: Rc::new(Cell::new(true)),
            store,
            is_undecided: false,
        }
    }

    fn done(&self) -> Vec<String> {
        self.done.borrow().clone()
    }

    fn note(&self, what: impl Into<String>) {
        self.done.borrow_mut().push(what.into());
    }
}

struct FakeWatch(bool);

impl Watch for FakeWatch {
    fn observe_unless(&mut self, _: Duration, _: &dyn Fn() -> bool) -> Vec<Observation> {
        let ok = if self.0 { Answer::Healthy } else { Answer::Sick };
        vec![Observation { name: "well".into(), ok, detail: "as made".into(), took: Duration::ZERO }]
    }
}

impl Application for FakeApplication<'_> {
    fn hooks(&self, moment: Moment, _: &Record) -> Result<(), Reason> {
        self.note(moment.name());
        Ok(())
    }
    fn bounds(&self, _: &Record) -> Bounds {
        Bounds::new(&Settings::default(), |_| 0, 0)
    }
    fn arm(&self) -> Result<(), Reason> {
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
    fn start(&self, _: &Record, _: Direction) -> Result<Vec<String>, Reason> {
        let active = self.store.active().unwrap().unwrap();
        self.note(format!("start {active}"));
        if self.broken.contains(&active.as_str()) {
            return Err(Reason::new(Cause::Service, "it does not start"));
        }
        self.running.set(true);
        Ok(Vec::new())
    }
    fn snapshot(&self, _: &Record) -> Result<Vec<DataSnapshot>, Reason> {
        Ok(Vec::new())
    }
    fn restore(&self, _: &Record) -> Result<Restored, Reason> {
        Ok(Restored::default())
    }
    fn drop_snapshots(&self, _: &[DataSnapshot]) -> Result<(), Reason> {
        Ok(())
    }
    fn watch(&self, version: &Version, _: &Path, _: Option<&Record>) -> Box<dyn Watch> {
        Box::new(FakeWatch(!self.sick.contains(&version.as_str())))
    }
    fn rehearse(&self, record: &Record) -> Result<Box<dyn Rehearsal>, Reason> {
        self.note(format!("rehearse {}", record.to.version));
        Ok(Box::new(self.rehearsal.clone().unwrap()))
    }
    fn end_rehearsal(&self) -> Result<(), Reason> {
        if self.rehearsal.is_some() {
            self.note("end rehearsal");
        }
        Ok(())
    }
    fn last_words(&self) -> Vec<String> {
        vec!["requires Node.js v22.9".into()]
    }
}

impl Collaborators for FakeApplication<'_> {
    fn application<'s>(&'s self, _: &'s Settings) -> Box<dyn Application + 's> {
        Box::new(self.clone())
    }

    fn with_agreement(&self, _: &Settings, work: &mut Work<'_>) -> Result<Ended, driver::Error> {
        if self.is_undecided { work(&mut Undecided) } else { work(&mut Alone) }
    }
}

struct Deaf;

impl Narrator for Deaf {
    fn moved(&self, _: &Record) {}
    fn rehearsed(&self, _: &Record, _: &Trial) {}
    fn watched(&self, _: &Record, _: &Trial, _: &OwnChecks) {}
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
        keys: Vec::new(),
        allowed: Vec::new(),
        data_read: Vec::new(),
        data_write: None,
        links: Vec::new(),
        replaced: Vec::new(),
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
    update_in(&store(place.path()), clock, sick, broken, None, &settings())
}

fn update_in(
    store: &Store,
    clock: &ManualClock,
    sick: &[&str],
    broken: &[&str],
    rehearsal: Option<FakeRehearsal>,
    settings: &Settings,
) -> (Ended, Duration, Vec<String>) {
    let application = FakeApplication { sick, broken, rehearsal, ..FakeApplication::new(store) };
    let node = node_of(&application, clock, settings, &Deaf);
    let lock = node.lock().unwrap();
    let began = clock.boot();
    let ended = node.switch(lock, &sealed("2"), &Wish::default()).unwrap();
    assert!(application.running.get() || !broken.is_empty(), "nothing runs at the end");
    (ended, clock.boot() - began, application.done())
}

struct Undecided;

impl Agreement for Undecided {
    fn clearance(&mut self, _: &Record) -> Result<Clearance, agreement::Error> {
        Ok(Clearance::Wait(Wait::new(Duration::from_secs(1), "votes")))
    }
    fn may_start(&mut self, record: &Record) -> Result<Start, agreement::Error> {
        Alone.may_start(record)
    }
    fn outcome(&mut self, record: &Record, own: &OwnChecks) -> Result<Verdict, agreement::Error> {
        Alone.outcome(record, own)
    }
    fn recalled(&mut self, record: &Record) -> Result<Option<Reason>, agreement::Error> {
        Alone.recalled(record)
    }
    fn moved(&mut self, _: &Record) {}
}

/// Calls the update off, as `rollback` does, and has not finished it yet.
struct CallsOff<'a>(&'a Store);

impl Narrator for CallsOff<'_> {
    fn moved(&self, _: &Record) {}
    fn rehearsed(&self, _: &Record, _: &Trial) {}
    fn watched(&self, _: &Record, _: &Trial, _: &OwnChecks) {}
    fn waits(&self, record: &Record, _: &str) {
        let reason = Reason::new(Cause::Operator, "not this one");
        let called_off = Record { phase: Phase::Cancelled { reason }, ..record.clone() };
        self.0.keep_journal(&called_off).unwrap();
    }
    fn remarks(&self, _: &Record, _: &str) {}
    fn ended(&self) {}
}

#[test]
fn who_waits_leaves_the_end_to_whoever_has_called_the_update_off() {
    let (place, clock, settings) = (tempfile::tempdir().unwrap(), ManualClock::jumping(None), settings());
    let store = &store(place.path());
    let application = FakeApplication { is_undecided: true, ..FakeApplication::new(store) };
    let narrator = &CallsOff(store);
    let node = node_of(&application, &clock, &settings, narrator);
    let lock = node.lock().unwrap();
    let wish = Wish { may_wait: true, ..Wish::default() };
    let ended = node.switch(lock, &sealed("2"), &wish).unwrap();
    assert!(matches!(ended, Ended::Overtaken(..)), "{ended:?}");
    let left = store.journal().unwrap();
    assert!(matches!(left, Kept::Whole(Record { phase: Phase::Cancelled { .. }, .. })), "{left:?}");
}

#[test]
fn who_wants_the_old_release_back_is_never_taken_for_one_who_keeps_the_new_one() {
    let (place, clock, settings) = (tempfile::tempdir().unwrap(), ManualClock::jumping(None), settings());
    let store = &store(place.path());
    let application = FakeApplication::new(store);
    let node = node_of(&application, &clock, &settings, &Deaf);
    let mut record = node.staging_record(&sealed("2").release);
    let (transaction, reason) = (record.transaction.clone(), "odd answers".to_owned());
    let request = Request { transaction, commit: false, reason, by: None, no_hold: false, data: None };
    let mut alone = Alone;
    let driver = Driver::new(&node, &settings, &application, &mut alone, true);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                store.keep_request(&request).unwrap();
                store.end_request().unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        while !is_over.load(Ordering::SeqCst) {
            let own = driver.hear_operator(&mut record, OwnChecks::Watching).unwrap();
            assert_ne!(own, OwnChecks::Healthy);
        }
    });
}

fn node_of<'a>(
    application: &'a FakeApplication<'a>,
    clock: &'a ManualClock,
    settings: &'a Settings,
    narrator: &'a dyn Narrator,
) -> Node<'a> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    Node {
        app: "app",
        name: "node",
        settings,
        store: application.store,
        clock,
        by: "test".into(),
        command: "test".into(),
        interrupted: &INTERRUPTED,
        narrator,
        collaborators: application,
        is_dry: false,
    }
}

fn phase(ended: &Ended) -> &Phase {
    match ended {
        Ended::Finished(record)
        | Ended::NeedsPerson(record, _)
        | Ended::Overtaken(record, _)
        | Ended::Waiting(record, _) => &record.phase,
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
    let wanted = ["arm", "pre-switch", "stop", "start 2", "post-switch", "healthy", "committed", "disarm"];
    assert_eq!(done, wanted);
}

#[test]
fn a_sick_release_goes_and_the_old_one_is_started_again() {
    let (ended, _, done) = update(&ManualClock::jumping(None), &["2"], &[]);
    assert!(matches!(phase(&ended), Phase::RolledBack { reason } if reason.kind == Cause::Unhealthy));
    let position = |what: &str| done.iter().position(|done| done == what).unwrap();
    assert!(position("start 2") < position("pre-rollback") && position("pre-rollback") < position("start 1"));
    assert_eq!(done[done.len() - 2..], ["failed", "disarm"]);
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
