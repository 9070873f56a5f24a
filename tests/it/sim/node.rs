//! A simulated node: the moves of `lifecycle::machine` and the fleet's member, with services that are words.
//!
//! What the disk would hold survives a death; everything else is gone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use cutover::coord::Settings;
use cutover::coord::alive::NotYet;
use cutover::coord::look::Keys;
use cutover::coord::rules::Checks;
use cutover::lifecycle::agreement::{Agreement, Clearance, OwnChecks, Start, Verdict};
use cutover::lifecycle::fleet::{Along, Here, Kept, Member, Taken};
use cutover::lifecycle::update::driver::RESUMES_MAX;
use cutover::lifecycle::update::machine;
use cutover::sys::clock::Clock as _;
use cutover::sys::disk::{Change, Disk};
use cutover::types::record::{Cause, Event, Intent, Phase, Reason, Record};
use cutover::types::{Digest, ReleaseId};

use super::board::{NodeBoard, Storage};
use super::chaos::{Chaos, Life, Random, simulated};

pub struct Nobody;

impl Keys for Nobody {
    fn operator(&self, _: &str, _: &str) -> Result<String, String> {
        Err("there are no keys".into())
    }

    fn node(&self, _: &str, _: &str, _: &str) -> Result<(), String> {
        Err("there are no keys".into())
    }
}

pub fn release(version: &str) -> ReleaseId {
    ReleaseId { version: version.parse().unwrap(), digest: Digest::of(version.as_bytes()) }
}

/// How the new release does on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    Good,
    /// Falls sick after so many milliseconds of its trial.
    SickAfter(i64),
    /// Cannot be staged.
    Unstageable,
}

/// So long it takes until a person has come.
const PERSON_COMES: i64 = 120_000;

pub struct SimNode {
    pub name: String,
    pub life: Arc<Life>,
    pub storage: Arc<Mutex<Storage>>,
    pub chaos: Chaos,
    pub random: Random,
    pub settings: Arc<Settings>,
    pub path: PathBuf,
    pub luck: Luck,
    /// Where it runs.
    pub here: Here,
    /// Its storage does not answer.
    pub is_unplugged: Arc<AtomicBool>,
    /// It is unplugged when it has told such a thing, before it sees that.
    pub unplugged_after: Arc<Mutex<Option<&'static str>>>,
    /// Since when its storage answers, and its process lives.
    pub answers_since: Arc<AtomicI64>,
    /// When it does something next.
    pub wake: i64,
    /// The old release does not start either, until a person helps.
    pub is_broken: bool,
    /// When the person comes, where one was asked for.
    pub helped_at: Option<i64>,
    /// The person has said, too, that nobody waits for it.
    pub is_freed: bool,
    /// How long it takes until it is healthy, where the trial is three times as long.
    pub healthy_after: i64,
    /// How long its timer waits between two runs that find nothing to do.
    pub timer: i64,
    /// Its process ends with the update, as the real one does; else it looks once more at once.
    pub ends_with_update: bool,
    /// Gone for good: somebody must waive it.
    pub is_lost: bool,
    /// A copy, or another machine under the name of one that is counted.
    pub is_extra: bool,
    /// Nobody waits for it.
    pub is_waived: bool,
    /// It is on hold.
    is_held: Arc<AtomicBool>,
    // On the disk:
    pub pointer: ReleaseId,
    pub journal: Option<Record>,
    // In the process:
    member: Option<Member<'static>>,
    trial_began: Option<i64>,
    instant: Option<i64>,
    /// Which release serves, if any.
    pub serves: Option<ReleaseId>,
    pub is_out: bool,
    /// Why it took up nothing, the last time that it did not.
    pub last_trouble: String,
    /// When it did something last.
    pub stepped: i64,
}

/// Simulated processes live shortly: what they lend each other is leaked.
fn lend<T>(value: Arc<T>) -> &'static T {
    Box::leak(Box::new(value))
}

impl SimNode {
    #[allow(clippy::too_many_arguments, reason = "it is made in one place")]
    pub fn new(
        name: String,
        life: Arc<Life>,
        storage: Arc<Mutex<Storage>>,
        chaos: Chaos,
        random: Random,
        settings: Arc<Settings>,
        path: PathBuf,
        luck: Luck,
    ) -> Self {
        let pointer = release("1");
        Self {
            name,
            life,
            storage,
            chaos,
            random,
            settings,
            path,
            luck,
            here: Here::default(),
            is_unplugged: Arc::default(),
            unplugged_after: Arc::default(),
            answers_since: Arc::default(),
            wake: 0,
            is_broken: false,
            helped_at: None,
            is_freed: false,
            healthy_after: 2000,
            timer: 30_000,
            ends_with_update: false,
            is_lost: false,
            is_extra: false,
            is_waived: false,
            is_held: Arc::default(),
            serves: Some(pointer.clone()),
            pointer,
            journal: None,
            member: None,
            trial_began: None,
            instant: None,
            is_out: false,
            last_trouble: String::new(),
            stepped: 0,
        }
    }

    /// Whether it has nothing left to do for the rollout that it took part in.
    pub fn has_ended(&self) -> bool {
        let kept = Kept::load(&Disk::default(), &self.path).unwrap();
        kept.is_none_or(|kept| kept.part().is_none())
    }

    /// It is switched off.
    pub fn lose(&mut self) {
        self.die();
        self.is_lost = true;
    }

    /// A copy of its disk, in a machine of its own.
    pub fn copy(&mut self, place: &str) -> Self {
        let path = self.path.with_file_name(place);
        std::fs::copy(&self.path, &path).unwrap();
        let life = Life::new(self.life.shared());
        let mut copy = Self::new(
            self.name.clone(),
            life,
            self.storage.clone(),
            self.chaos,
            self.random.fork(),
            self.settings.clone(),
            path,
            self.luck,
        );
        copy.here = Here { place: place.into(), ..self.here.clone() };
        copy.wake = self.life.now();
        copy
    }

    /// Puts it on hold, or takes it off.
    pub fn hold(&mut self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// As after `fleet join`: storage has its heartbeat, from where it runs.
    pub fn show(&mut self) {
        if let Some(member) = self.member() {
            member.show().unwrap();
        }
        self.forget();
    }

    /// The process is begun anew.
    pub fn forget(&mut self) {
        self.member = None;
    }

    /// A disk on which every change may be the last.
    pub fn disk(&self) -> Disk {
        let life = self.life.clone();
        Disk::with_probe(Arc::new(
            move |_: Change<'_>| {
                if life.step() { Err(std::io::Error::other("killed")) } else { Ok(()) }
            },
        ))
    }

    pub fn board(&mut self) -> NodeBoard {
        NodeBoard {
            storage: self.storage.clone(),
            life: self.life.clone(),
            chaos: self.chaos,
            random: self.random.fork(),
            cut_off_until: 0,
            refused_until: 0,
            is_unplugged: self.is_unplugged.clone(),
            unplugged_after: self.unplugged_after.clone(),
            answers_since: self.answers_since.clone(),
            seen: std::collections::BTreeMap::new(),
            seen_in: 0,
        }
    }

    fn member(&mut self) -> Option<&mut Member<'static>> {
        if self.member.is_none() {
            let kept = Kept::load(&self.disk(), &self.path).unwrap()?;
            let board = Box::new(self.board());
            // Leaked clones of an `Arc` keep the life alive for ever; the life itself is shared.
            let clock: &'static Life = lend(self.life.clone());
            let settings: &'static Settings = lend(self.settings.clone());
            let mut member = Member::new(board, clock, &Nobody, None, settings, kept);
            member.here = self.here.clone();
            let is_held = self.is_held.clone();
            member.obstacle = Some(Box::new(move |_: &ReleaseId| {
                let not_yet = NotYet { rollout: None, why: "it is on hold".into(), until: None };
                is_held.load(Ordering::Relaxed).then_some(not_yet)
            }));
            self.member = Some(member);
            if let (Some(record), Some(member)) = (&self.journal, &mut self.member) {
                member.moved(record);
            }
        }
        self.member.as_mut()
    }

    /// The process is gone; its services run on.
    pub fn die(&mut self) {
        self.member = None;
        self.trial_began = None;
        self.instant = None;
        if let Some(record) = &mut self.journal {
            record.resumes += 1;
        }
    }

    /// Comes back after a pause, unless it is lost; whoever comes back lives for a while.
    fn come_back(&mut self) {
        let is_on = self.chaos.is_on(self.life.now());
        let pause = if self.random.chance(4) { 200_000 } else { 3_000 };
        self.wake = self.life.now() + 100 + self.random.below(pause);
        self.answers_since.store(self.wake, Ordering::Relaxed);
        let steps = if is_on && self.random.chance(2) { 1 + self.random.below(60) } else { i64::MAX };
        self.life.revive(steps);
    }

    /// Does what is next. `deadly`: it may die before any step of it.
    pub fn step(&mut self) {
        self.stepped = self.life.now();
        let pause = self.try_step();
        if self.life.is_dead() {
            self.die();
            self.come_back();
            return;
        }
        self.wake = self.wake.max(self.life.now() + pause.max(1));
    }

    fn moved(&mut self, event: Event) {
        // The journal is a disk too: a death before it is a death without it.
        if self.life.step() {
            return;
        }
        let Some(record) = &mut self.journal else { return };
        record.phase = machine::next(record.phase.clone(), event).unwrap();
        record.resumes = 0;
        let record = record.clone();
        if let Some(member) = self.member() {
            member.moved(&record);
        }
    }

    fn try_step(&mut self) -> i64 {
        if self.member().is_none() {
            return 1000;
        }
        let Some(record) = self.journal.clone() else { return self.idle() };
        match record.phase {
            Phase::Staged => self.staged(&record),
            Phase::Switching => self.switching(&record),
            Phase::Trial { .. } => self.trial(&record),
            Phase::RollingBack { .. } => self.rolling_back(&record),
            Phase::Committed | Phase::RolledBack { .. } | Phase::Cancelled { .. } => {
                self.is_out = false;
                self.journal = None;
                if self.ends_with_update { self.timer } else { 0 }
            }
            Phase::Warming => unreachable!("nobody rehearses here"),
        }
    }

    fn idle(&mut self) -> i64 {
        let running = self.pointer.clone();
        let luck = self.luck;
        let Some(member) = self.member() else { return 1000 };
        match member.take_up(Some(&running)) {
            Ok(Taken::Rollout { number, release, .. }) => {
                if release == running {
                    return match member.go_along(&running.version, Checks::Good) {
                        Ok(Along::Wait(pause, _)) => i64::try_from(pause.as_millis()).unwrap().min(1000),
                        Ok(Along::Ended(_)) | Err(_) => 1000,
                    };
                }
                if luck == Luck::Unstageable {
                    let _ = member.refuse("it cannot be staged");
                    return 30_000;
                }
                if !self.life.step() {
                    self.journal = Some(record(running, release, number));
                }
                0
            }
            Ok(Taken::CatchUp { .. }) if luck == Luck::Unstageable => 30_000,
            Ok(Taken::CatchUp { release, .. }) => {
                self.pointer = release.clone();
                self.serves = Some(release);
                30_000
            }
            Ok(Taken::GoBack { number, version }) => {
                if self.life.step() {
                    return 0;
                }
                let reason = Reason::new(Cause::Fleet, "halted");
                let phase = Phase::RollingBack { reason };
                let back = Record {
                    intent: Intent::Rollback,
                    phase,
                    ..record(release(version.as_str()), running, number)
                };
                self.journal = Some(back);
                self.is_out = true;
                2_000
            }
            Ok(Taken::Queue(pause)) => i64::try_from(pause.as_millis()).unwrap(),
            Ok(Taken::Unreachable(why) | Taken::Stranger(why)) => {
                self.last_trouble = why;
                5_000
            }
            Ok(Taken::Nothing(why)) => {
                self.last_trouble = why.unwrap_or_default();
                // Timers fire once a minute; at first they all look, so that the rollout begins.
                if self.life.now() < 60_000 { 5_000 } else { self.timer }
            }
            Err(_) => 5_000,
        }
    }

    fn staged(&mut self, record: &Record) -> i64 {
        let Some(member) = self.member() else { return 1000 };
        match member.clearance(record) {
            Ok(Clearance::Go { at, .. }) => {
                assert!(
                    !self.is_held.load(Ordering::Relaxed),
                    "{} switches although it is on hold",
                    self.name
                );
                self.instant = at.map(simulated);
                self.moved(Event::Cleared { rehearse: false });
                let wake = self.instant.unwrap_or(0);
                self.wake = wake;
                0
            }
            Ok(Clearance::Wait(wait)) => {
                self.last_trouble = wait.why;
                i64::try_from(wait.within.as_millis()).unwrap()
            }
            Ok(Clearance::CalledOff(reason)) => {
                self.moved(Event::CalledOff(reason));
                0
            }
            Err(_) => 1000,
        }
    }

    fn switching(&mut self, record: &Record) -> i64 {
        if record.resumes > 0 && self.pointer != record.to && self.instant.is_none() {
            let is_often = record.resumes > RESUMES_MAX;
            let Some(member) = self.member() else { return 1000 };
            match member.clearance(record) {
                Ok(Clearance::Go { at, .. }) if !is_often => self.instant = Some(at.map_or(0, simulated)),
                Ok(Clearance::CalledOff(reason)) => {
                    self.moved(Event::Failed(reason));
                    return 0;
                }
                Ok(Clearance::Go { .. } | Clearance::Wait(_)) | Err(_) => {
                    self.moved(Event::Failed(Reason::new(Cause::NotNow, "interrupted")));
                    return 0;
                }
            }
        }
        if self.life.now() < self.instant.unwrap_or(0) {
            return 1;
        }
        self.is_out = true;
        self.serves = None;
        if self.life.step() {
            return 0;
        }
        self.pointer = record.to.clone();
        if self.life.step() {
            return 0;
        }
        let wall = self.life.wall();
        if let Some(record) = &mut self.journal {
            record.moments.switched.get_or_insert(wall);
        }
        let Some(member) = self.member() else { return 1000 };
        match member.may_start(record) {
            Ok(Start::Now) => {
                self.serves = Some(record.to.clone());
                let until = cutover::types::record::Deadline {
                    boot_id: String::new(),
                    boot_ms: 0,
                    wall: record.started,
                };
                self.moved(Event::Switched { until });
                0
            }
            Ok(Start::Wait(wait)) => i64::try_from(wait.within.as_millis()).unwrap(),
            Ok(Start::RollBack(reason)) => {
                self.moved(Event::Failed(reason));
                0
            }
            Err(_) => 1000,
        }
    }

    fn trial(&mut self, record: &Record) -> i64 {
        let now = self.life.now();
        let began = *self.trial_began.get_or_insert(now);
        let trial = i64::try_from(self.settings.trial.0.as_millis()).unwrap();
        let healthy_after = self.healthy_after.min(trial / 3);
        let own = match self.luck {
            Luck::SickAfter(ms) if now - began >= ms => {
                OwnChecks::Failed(Reason::new(Cause::Unhealthy, "it is sick"))
            }
            _ if now - began >= healthy_after => OwnChecks::Healthy,
            _ => OwnChecks::Watching,
        };
        let Some(member) = self.member() else { return 1000 };
        match member.outcome(record, &own) {
            Ok(Verdict::Keep) => {
                self.is_out = false;
                self.moved(Event::Passed);
                0
            }
            Ok(Verdict::RollBack { reason, at }) => {
                self.moved(Event::Failed(reason));
                self.wake = at.map_or(0, simulated);
                0
            }
            Ok(Verdict::Watch(wait)) => i64::try_from(wait.within.as_millis()).unwrap().min(1000),
            Err(_) => 1000,
        }
    }

    fn rolling_back(&mut self, record: &Record) -> i64 {
        let from = record.from.clone().unwrap();
        if self.pointer != from {
            self.serves = None;
            self.pointer = from.clone();
        }
        let Some(member) = self.member() else { return 1000 };
        match member.may_start(record) {
            Ok(Start::Wait(wait)) => i64::try_from(wait.within.as_millis()).unwrap(),
            Ok(Start::Now | Start::RollBack(_)) | Err(_) if self.must_wait_for_a_person(record) => 5_000,
            Ok(Start::Now | Start::RollBack(_)) | Err(_) => {
                self.serves = Some(from);
                self.is_out = false;
                self.moved(Event::Restored);
                0
            }
        }
    }
}

impl SimNode {
    /// The first time it says that it gives up; afterwards nothing happens by itself.
    fn must_wait_for_a_person(&mut self, record: &Record) -> bool {
        if !self.is_broken {
            return false;
        }
        let now = self.life.now();
        if let Some(helped_at) = self.helped_at {
            return now < helped_at;
        }
        self.is_out = true;
        self.helped_at = Some(now + PERSON_COMES);
        if let Some(member) = self.member() {
            member.gave_up(record, "neither release is healthy");
        }
        true
    }

    /// Whether a person has helped it, and has not said yet that its place is free.
    pub fn is_to_be_waived(&self) -> bool {
        !self.is_freed && self.helped_at.is_some_and(|helped_at| helped_at <= self.life.now()) && !self.is_out
    }
}

fn record(from: ReleaseId, to: ReleaseId, number: u64) -> Record {
    Record {
        transaction: "t".into(),
        intent: Intent::Update,
        from: Some(from),
        to,
        serial: None,
        phase: Phase::Staged,
        rollout: Some(number),
        confirm: false,
        overrules: None,
        no_rollback: false,
        no_hold: false,
        ended_by: None,
        data_policy: None,
        data: Vec::new(),
        boot_id: String::new(),
        resumes: 0,
        deadline: None,
        ignored_checks: Vec::new(),
        started: jiff::Timestamp::UNIX_EPOCH,
        by: "timer".into(),
        downtime_ms: None,
        unanswered: None,
        moments: cutover::types::record::Moments::default(),
        settings: None,
        rehearsed: None,
        boots: 0,
        counted_at_boot: false,
        units: None,
    }
}
