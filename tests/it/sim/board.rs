//! A board that misbehaves as real storage does: late, stale, silent, torn; but of all who create a name one is first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use cutover::coord::board::{Board, ClockRead, Created, Done, Listed, Read};
use cutover::coord::facts::names;
use cutover::types::Digest;

use super::chaos::{Chaos, Life, Random};

/// What stands on the storage: text, and since when.
#[derive(Default)]
pub struct Storage {
    pub names: BTreeMap<String, (Arc<str>, i64)>,
    /// Directories of decisions: where there is none, nothing is made.
    pub directories: BTreeSet<String>,
    /// It knows no directories, as object stores do not: what was never made is an empty listing there.
    pub is_flat: bool,
    /// How often it was restored: what nodes had seen before counts no more.
    restored: u64,
    /// Creates that have been sent and not arrived: when they will.
    late: Vec<(i64, String, Arc<str>)>,
    /// Nobody gets an answer until then.
    pub silent_until: i64,
    /// Nobody can write until then.
    pub full_until: i64,
    /// How often what was asked of it.
    pub operations: BTreeMap<&'static str, u64>,
}

impl Storage {
    /// The name of a decision about the newest proposal of this number, whether it is there or not.
    pub fn decision(&self, number: u64, gate: &str) -> String {
        let text =
            self.names.get(&names::proposal(number)).map_or_else(String::new, |(text, _)| text.to_string());
        names::Decisions { rollout: number, proposal: Digest::of(text.as_bytes()) }.gate(gate)
    }

    /// What was decided, if it was.
    pub fn decided(&self, number: u64, gate: &str) -> Option<String> {
        self.names.get(&self.decision(number, gate)).map(|(text, _)| text.to_string())
    }

    /// As a backup has it; what is under way to it is lost.
    pub fn restore(&mut self, names: BTreeMap<String, (Arc<str>, i64)>, directories: BTreeSet<String>) {
        (self.names, self.directories) = (names, directories);
        self.late.clear();
        self.restored += 1;
    }

    /// Puts something there, if nothing is.
    pub fn put(&mut self, name: &str, text: &str) {
        self.names.entry(name.into()).or_insert_with(|| (text.into(), 0));
    }

    /// Loses one name, as if it had gone back in time.
    pub fn lose(&mut self, name: &str) {
        self.names.remove(name);
        self.restored += 1;
    }

    /// Whether the directory of a name is there.
    fn has_directory(&self, name: &str) -> bool {
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.is_flat || !parent.starts_with("rollouts/") || self.directories.contains(parent)
    }

    fn arrive(&mut self, now: i64) {
        let (arrived, late) = std::mem::take(&mut self.late).into_iter().partition(|(at, ..)| *at <= now);
        self.late = late;
        let arrived: Vec<(i64, String, Arc<str>)> = arrived;
        for (at, name, text) in arrived {
            if !self.has_directory(&name) {
                continue;
            }
            self.names.entry(name).or_insert((text, at));
        }
    }
}

/// One node's access to it.
pub struct NodeBoard {
    pub storage: Arc<Mutex<Storage>>,
    pub life: Arc<Life>,
    pub chaos: Chaos,
    pub random: Random,
    /// This node gets no answer until then.
    pub cut_off_until: i64,
    /// This node cannot write until then.
    pub refused_until: i64,
    /// The same, for as long as a test says.
    pub is_unplugged: Arc<AtomicBool>,
    /// It is unplugged when it has made a fact whose name ends so, before it sees that.
    pub unplugged_after: Arc<Mutex<Option<&'static str>>>,
    /// When it last got none of its answers.
    pub answers_since: Arc<AtomicI64>,
    /// What this node has made or read, it sees.
    pub seen: BTreeMap<String, Arc<str>>,
    /// In the storage that was restored so often.
    pub seen_in: u64,
}

impl NodeBoard {
    fn is_silent(&mut self, operation: &'static str) -> bool {
        let now = self.life.now();
        if self.life.step() {
            return true;
        }
        let mut storage = self.storage.lock().unwrap();
        *storage.operations.entry(operation).or_insert(0) += 1;
        storage.arrive(now);
        if self.seen_in != storage.restored {
            self.seen_in = storage.restored;
            self.seen.clear();
        }
        if self.chaos.is_on(now) {
            if self.random.chance(self.chaos.cut_off) {
                self.cut_off_until = now + self.random.below(self.chaos.cut_off_ms);
            }
            if self.random.chance(self.chaos.silence) {
                storage.silent_until = now + self.random.below(self.chaos.cut_off_ms);
            }
        }
        let is_silent = self.cut_off_until > now
            || storage.silent_until > now
            || self.is_unplugged.load(Ordering::Relaxed);
        if is_silent {
            self.answers_since.store(now, Ordering::Relaxed);
        }
        is_silent
    }
}

impl NodeBoard {
    fn is_full(&mut self) -> bool {
        let now = self.life.now();
        let mut storage = self.storage.lock().unwrap();
        if self.chaos.is_on(now) {
            if self.random.chance(self.chaos.full) {
                storage.full_until = now + self.random.below(self.chaos.cut_off_ms);
            }
            if self.random.chance(self.chaos.full) {
                self.refused_until = now + self.random.below(self.chaos.cut_off_ms);
            }
        }
        storage.full_until > now || self.refused_until > now
    }
}

const SILENT: &str = "no answer";

impl Board for NodeBoard {
    fn create(&mut self, name: &str, text: &str) -> Created {
        if self.is_silent("create") {
            return Created::Unknown(SILENT.into());
        }
        let now = self.life.now();
        let is_on = self.chaos.is_on(now);
        if self.is_full() {
            // As the real one does: what it sees there decides, and it may not see what is there.
            return match self.read(name) {
                Read::Bytes(there) if there == text => Created::Mine,
                Read::Bytes(there) | Read::Bad(there) => Created::Theirs(there),
                Read::Absent | Read::Unreachable(_) => Created::Refused("no room".into()),
            };
        }
        let mut storage = self.storage.lock().unwrap();
        if is_on && self.random.chance(self.chaos.late_create) {
            let at = now + self.random.below(60_000);
            storage.late.push((at, name.into(), text.into()));
            return Created::Unknown("sent, and no answer".into());
        }
        if !storage.has_directory(name) {
            return Created::Unknown("there is no such directory".into());
        }
        let there = storage.names.entry(name.into()).or_insert_with(|| (text.into(), now)).0.clone();
        drop(storage);
        if self.unplugged_after.lock().unwrap().is_some_and(|end| name.ends_with(end)) {
            self.is_unplugged.store(true, Ordering::Relaxed);
            return Created::Unknown(SILENT.into());
        }
        // Killed between the link and the answer.
        if self.life.step() || (is_on && self.random.chance(self.chaos.lost_reply)) {
            return Created::Unknown("done, and no answer".into());
        }
        self.seen.insert(name.into(), there.clone());
        if *there == *text { Created::Mine } else { Created::Theirs(there.to_string()) }
    }

    fn read(&mut self, name: &str) -> Read {
        if self.is_silent("read") {
            return Read::Unreachable(SILENT.into());
        }
        // What is replaced is read anew.
        if let Some(text) = self.seen.get(name).filter(|_| !name.ends_with("/alive")) {
            return Read::Bytes(text.to_string());
        }
        let now = self.life.now();
        let is_on = self.chaos.is_on(now);
        let storage = self.storage.lock().unwrap();
        let Some((text, since)) = storage.names.get(name) else { return Read::Absent };
        if is_on && self.random.chance(self.chaos.torn) {
            return Read::Bad("torn".into());
        }
        if is_on && self.random.chance(self.chaos.stale) && now - since < self.chaos.stale_ms {
            return Read::Absent;
        }
        self.seen.insert(name.into(), text.clone());
        Read::Bytes(text.to_string())
    }

    fn list(&mut self, name: &str) -> Listed {
        if self.is_silent("list") {
            return Listed::Unreachable(SILENT.into());
        }
        let prefix = format!("{name}/");
        let storage = self.storage.lock().unwrap();
        if !storage.has_directory(&prefix) {
            return Listed::Unreachable("there is no such directory".into());
        }
        let from = storage.names.range(prefix.clone()..);
        let names = from.map_while(|(full, _)| full.strip_prefix(&prefix));
        Listed::Names(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn prepare(&mut self, name: &str) -> Done {
        if self.is_silent("prepare") {
            return Done::Unreachable(SILENT.into());
        }
        self.storage.lock().unwrap().directories.insert(name.into());
        Done::Done
    }

    // A heartbeat is replaced in its place, which takes no room.
    fn beat(&mut self, name: &str, text: &str) -> Done {
        if self.is_silent("beat") {
            return Done::Unreachable(SILENT.into());
        }
        let now = self.life.now();
        let mut storage = self.storage.lock().unwrap();
        // What is replaced others read anew.
        if !name.ends_with("/alive") {
            storage.restored += 1;
        }
        // It was there before, too.
        storage.names.entry(name.into()).or_insert_with(|| (text.into(), now)).0 = text.into();
        Done::Done
    }

    fn clock(&mut self, _: &str) -> ClockRead {
        if self.is_silent("clock") {
            return ClockRead::Unknown;
        }
        #[allow(clippy::cast_precision_loss, reason = "small")]
        ClockRead::Offset { offset_ms: -(self.life.skew_ms() as f64), error_ms: 5.0 }
    }

    fn remove(&mut self, name: &str) -> Done {
        let mut storage = self.storage.lock().unwrap();
        storage.names.remove(name);
        storage.directories.remove(name);
        Done::Done
    }
}
