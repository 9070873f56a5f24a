//! Whether a board can do what a fleet needs: its users race each other for names, and tell how long a new one stays hidden.
//!
//! Each party, a node or a process of one, keeps one file that it replaces, `nodes/<node>/check`: who it is, how far it
//! has come, and in the end what it saw. They meet by these files only, because whether anything else works is the question.
//! Names are raced for where decisions are made, in `rollouts/`, as `check.<session>.<number>`, and removed in the end.

mod race;
mod report;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::board::{Board, ClockRead, Created, Done, Read};
use super::facts::names;
use crate::types::Digest;
use race::Race;
use report::judge;

pub use report::{Clock, Report};

/// How many names are raced for between two meetings.
const GROUP: usize = 10;
/// With more parties than this, each measures it with its neighbour only.
const PAIRS_OF_ALL: usize = 8;
/// How long a name is looked for before it is made: storage may remember that it was not there.
const BEFORE: Duration = Duration::from_millis(300);
/// How often the others' files are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often a party shows that it is there.
const BEAT: Duration = Duration::from_millis(500);
/// How long parties wait for each other once they have met.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a board of its own for each thread.
pub type Open<'a> = &'a (dyn Fn() -> Box<dyn Board + Send> + Sync);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    pub label: String,
    pub file: String,
}

/// Why a check came to no end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The storage did not answer.
    #[error("{0}")]
    Unreachable(String),
    #[error(
        "{0} did not come: `cutover fleet check` must run on all of them at the same time, with the same names"
    )]
    Missing(String),
    /// Somebody else writes this party's file.
    #[error("somebody else checks as {0} at the same time: another machine has its name")]
    Twin(String),
}

/// What a party's file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    format: u32,
    label: String,
    nonce: String,
    parties: Vec<String>,
    /// Grows while the party lives.
    beat: u64,
    /// How far it has come.
    stage: u32,
    host: String,
    machine: String,
    clock: Option<Clock>,
    seen: Seen,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// For each name the number of the party that was first, as far as this one could see.
    first: Vec<Option<usize>>,
    /// Reads of a text that nobody wrote.
    torn: u32,
    reads: u64,
    slowest_ms: f64,
    /// By partner: the longest time from the start of a create here until the answer to it was seen.
    hidden_ms: BTreeMap<usize, f64>,
    /// Why a create or a clock came to nothing, the last time.
    why: Option<String>,
}

/// Which machine this is, for [`run`].
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub host: String,
    pub id: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how many names the parties race.
    pub rounds: usize,
    /// How often each pair measures how long a new name stays hidden.
    pub views: usize,
    /// How long the parties wait for each other in the beginning.
    pub wait: Duration,
}

/// Takes part as number `me` of `parties`, which are sorted: all of them call this at about the same time.
pub fn run(
    open: Open<'_>,
    machine: &Machine,
    me: usize,
    parties: &[Party],
    plan: Plan,
) -> Result<Report, Error> {
    let mut board = open();
    let directory = parties[me].file.rsplit_once('/').map_or("", |(directory, _)| directory);
    let clock = match board.clock(directory) {
        ClockRead::Offset { offset_ms, error_ms } => Some(Clock { offset_ms, error_ms }),
        ClockRead::Unknown => None,
    };
    let state = State {
        format: 1,
        label: parties[me].label.clone(),
        nonce: nonce(),
        parties: parties.iter().map(|party| party.label.clone()).collect(),
        host: machine.host.clone(),
        machine: machine.id.clone(),
        clock,
        ..State::default()
    };
    let race = Race { me, parties, session: String::new() };
    let mut check = Check { board, race, state, others: BTreeMap::new() };
    check.gather(plan.wait)?;
    check.races(open, plan.rounds)?;
    check.measure(plan.views)?;
    check.meet()?;
    let report = check.report();
    check.tidy();
    Ok(report)
}

struct Check<'a> {
    board: Box<dyn Board + Send>,
    race: Race<'a>,
    state: State,
    /// What the others' files said when they were last looked at.
    others: BTreeMap<usize, State>,
}

impl Check<'_> {
    /// Waits until all are seen to live. What all of them are called by now names the session.
    fn gather(&mut self, wait: Duration) -> Result<(), Error> {
        let mut first: BTreeMap<usize, (String, u64)> = BTreeMap::new();
        let parties = self.state.parties.clone();
        self.wait_for(wait, |number, state| {
            let now = (state.nonce.clone(), state.beat);
            let first = first.entry(number).or_insert(now.clone());
            if first.0 != now.0 {
                *first = now.clone();
            }
            // A file that does not change is of a party that went away.
            *first != now && state.parties == parties
        })?;
        let mut all: Vec<(&str, &str)> =
            self.others.values().map(|state| (state.label.as_str(), state.nonce.as_str())).collect();
        all.push((&self.state.label, &self.state.nonce));
        all.sort_unstable();
        self.race.session = Digest::of(format!("{all:?}").as_bytes()).hex().chars().take(12).collect();
        Ok(())
    }

    /// Waits until all have come as far as this party.
    fn meet(&mut self) -> Result<(), Error> {
        self.state.stage += 1;
        let stage = self.state.stage;
        let nonces: BTreeMap<usize, String> =
            self.others.iter().map(|(number, state)| (*number, state.nonce.clone())).collect();
        self.wait_for(PATIENCE, |number, state| {
            nonces.get(&number) == Some(&state.nonce) && state.stage >= stage
        })
    }

    fn wait_for(
        &mut self,
        wait: Duration,
        mut is_met: impl FnMut(usize, &State) -> bool,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let mut pending: Vec<usize> =
            (0..self.race.parties.len()).filter(|number| *number != self.race.me).collect();
        let mut beaten: Option<Instant> = None;
        loop {
            if beaten.is_none_or(|moment| moment.elapsed() >= BEAT) {
                self.beat()?;
                beaten = Some(Instant::now());
            }
            let mut left = Vec::new();
            for number in pending {
                match self.look(number) {
                    Some(state) if is_met(number, &state) => {
                        self.others.insert(number, state);
                    }
                    _ => left.push(number),
                }
            }
            pending = left;
            if pending.is_empty() {
                return Ok(());
            }
            if began.elapsed() > wait {
                let labels: Vec<&str> =
                    pending.iter().map(|number| self.race.parties[*number].label.as_str()).collect();
                return Err(Error::Missing(labels.join(", ")));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn look(&mut self, number: usize) -> Option<State> {
        match self.board.read(&self.race.parties[number].file) {
            Read::Bytes(text) => serde_json::from_str(&text).ok(),
            Read::Absent | Read::Bad(_) | Read::Unreachable(_) => None,
        }
    }

    /// Replaces this party's file, and sees that nobody else does.
    fn beat(&mut self) -> Result<(), Error> {
        let is_first = self.state.beat == 0;
        if !is_first && self.look(self.race.me).is_some_and(|there| there.nonce != self.state.nonce) {
            return Err(Error::Twin(self.state.label.clone()));
        }
        self.state.beat += 1;
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        match self.board.beat(&self.race.parties[self.race.me].file, &text) {
            Done::Done => Ok(()),
            Done::Unreachable(why) => Err(Error::Unreachable(why)),
        }
    }

    fn races(&mut self, open: Open<'_>, rounds: usize) -> Result<(), Error> {
        let mut watching = open();
        let numbers: Vec<usize> = (0..rounds).collect();
        for group in numbers.chunks(GROUP) {
            self.meet()?;
            let is_over = AtomicBool::new(false);
            let (race, board) = (&self.race, &mut *self.board);
            let (seen, made) = std::thread::scope(|scope| {
                let watch = scope.spawn(|| race.watch(&mut *watching, group, &is_over));
                let made: Vec<_> = group.iter().map(|number| race.create(board, *number)).collect();
                is_over.store(true, Ordering::Relaxed);
                (watch.join().unwrap_or_default(), made)
            });
            let own = &mut self.state.seen;
            own.reads += seen.0;
            own.torn += seen.1;
            for (first, took_ms, why) in made {
                own.first.push(first);
                own.slowest_ms = own.slowest_ms.max(took_ms);
                own.why = why.or(own.why.take());
            }
        }
        self.meet()?;
        // Once decided it stays so.
        let nobody = self.race.parties.len();
        for (number, first) in self.state.seen.first.iter_mut().enumerate() {
            if let Read::Bytes(text) = self.board.read(&self.race.name(number)) {
                let there = self.race.writer(&text, number).unwrap_or(nobody);
                *first = Some(if first.is_none_or(|was| was == there) { there } else { nobody });
            }
        }
        Ok(())
    }

    /// Pair by pair: one makes a name that the other looks for, which then makes one that the first looks for.
    fn measure(&mut self, views: usize) -> Result<(), Error> {
        let (me, count) = (self.race.me, self.race.parties.len());
        let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        let is_measured = |(one, other): &(usize, usize)| count <= PAIRS_OF_ALL || other - one == 1;
        for (index, (one, other)) in pairs.filter(is_measured).enumerate() {
            for view in 0..views {
                let name =
                    |side| format!("{}/check.{}.{index}.{view}.{side}", names::ROLLOUTS, self.race.session);
                let (call, answer) = (name("call"), name("answer"));
                self.meet()?;
                if me == one {
                    self.call(other, &call, &answer);
                } else if me == other && self.look_until(&call, PATIENCE / 2) {
                    let _ = self.board.create(&answer, &self.state.label);
                }
                self.meet()?;
                if me == one {
                    let _ = self.board.remove(&call);
                } else if me == other {
                    let _ = self.board.remove(&answer);
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, other: usize, call: &str, answer: &str) {
        self.look_until(answer, BEFORE);
        let began = Instant::now();
        let called = self.board.create(call, &self.state.label);
        if called == Created::Mine && self.look_until(answer, PATIENCE / 2) {
            let took_ms = began.elapsed().as_secs_f64() * 1000.0;
            let longest = self.state.seen.hidden_ms.entry(other).or_insert(0.0);
            *longest = longest.max(took_ms);
        }
    }

    fn look_until(&mut self, name: &str, wait: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < wait {
            if matches!(self.board.read(name), Read::Bytes(_)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    fn report(&self) -> Report {
        let mut states: BTreeMap<usize, &State> =
            self.others.iter().map(|(number, state)| (*number, state)).collect();
        states.insert(self.race.me, &self.state);
        judge(&states.into_values().collect::<Vec<_>>())
    }

    /// Removes what this party made; each its own, where directories are sticky.
    fn tidy(&mut self) {
        for (number, first) in self.state.seen.first.iter().enumerate() {
            if *first == Some(self.race.me) {
                let _ = self.board.remove(&self.race.name(number));
            }
        }
    }
}

fn nonce() -> String {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = u64::from(std::process::id()).to_ne_bytes();
    }
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::board::Listed;
    use super::*;

    /// A board in memory whose creates can be those of bad storage.
    #[derive(Clone, Default)]
    struct Memory {
        kept: Arc<Mutex<BTreeMap<String, String>>>,
        /// Every creator is told that it was first, and the last one is.
        is_last_first: bool,
        is_torn: bool,
    }

    impl Board for Memory {
        fn create(&mut self, name: &str, text: &str) -> Created {
            let mut kept = self.kept.lock().unwrap();
            let is_race = name.contains("check.") && !name.contains("call") && !name.contains("answer");
            if self.is_last_first && is_race {
                kept.insert(name.into(), text.into());
                return Created::Mine;
            }
            match kept.entry(name.into()).or_insert_with(|| text.to_owned()) {
                there if there == text => Created::Mine,
                there => Created::Theirs(there.clone()),
            }
        }
        fn read(&mut self, name: &str) -> Read {
            let there = self.kept.lock().unwrap().get(name).cloned();
            let half =
                |text: String| if self.is_torn && name.contains("check.") { String::new() } else { text };
            there.map_or(Read::Absent, |text| Read::Bytes(half(text)))
        }
        fn list(&mut self, _: &str) -> Listed {
            Listed::Names(Vec::new())
        }
        fn prepare(&mut self, _: &str) -> Done {
            Done::Done
        }
        fn beat(&mut self, name: &str, text: &str) -> Done {
            self.kept.lock().unwrap().insert(name.into(), text.into());
            Done::Done
        }
        fn clock(&mut self, _: &str) -> ClockRead {
            ClockRead::Offset { offset_ms: 1.0, error_ms: 2.0 }
        }
        fn remove(&mut self, name: &str) -> Done {
            self.kept.lock().unwrap().remove(name);
            Done::Done
        }
    }

    const PLAN: Plan = Plan { rounds: 25, views: 1, wait: Duration::from_secs(20) };

    fn parties(names: &[&str]) -> Vec<Party> {
        let party = |name: &&str| Party { label: (*name).to_owned(), file: format!("nodes/{name}/check") };
        names.iter().map(party).collect()
    }

    fn checked(memory: &Memory, names: &[&str]) -> Vec<Report> {
        let parties = parties(names);
        std::thread::scope(|scope| {
            let parties = &parties;
            let check = move |me: usize| {
                let machine = Machine { host: "localhost".into(), id: me.to_string() };
                run(&|| Box::new(memory.clone()), &machine, me, parties, PLAN).unwrap()
            };
            let threads: Vec<_> = (0..parties.len()).map(|me| scope.spawn(move || check(me))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn on_a_good_board_all_see_the_same_and_nothing_is_left() {
        let memory = Memory::default();
        let reports = checked(&memory, &["a", "b", "c"]);
        for report in &reports {
            assert_eq!((report.names, report.wrong, report.unknown, report.torn), (25, 0, 0, 0));
            assert_eq!(report.first.values().sum::<usize>(), 25);
            assert_eq!(report.hidden_ms.len(), 3);
            assert_eq!(report.alike.len(), 3, "all have one host name");
            assert_eq!(report.first, reports[0].first);
        }
        let kept = memory.kept.lock().unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["nodes/a/check", "nodes/b/check", "nodes/c/check"]);
    }

    #[test]
    fn a_board_on_which_everybody_is_first_is_found_out() {
        let memory = Memory { is_last_first: true, ..Memory::default() };
        for report in checked(&memory, &["a", "b"]) {
            assert!(report.wrong > 0, "{report:?}");
        }
    }

    #[test]
    fn halves_are_found_out() {
        let memory = Memory { is_torn: true, ..Memory::default() };
        let report = &checked(&memory, &["a", "b"])[0];
        assert!(report.torn > 0 && report.wrong > 0, "{report:?}");
    }

    #[test]
    fn who_is_alone_says_who_did_not_come() {
        let memory = Memory::default();
        // What an earlier check has left is nobody.
        checked(&memory, &["a", "b"]);
        let plan = Plan { wait: Duration::from_millis(100), ..PLAN };
        let open = || Box::new(memory.clone()) as Box<dyn Board + Send>;
        let alone = run(&open, &Machine::default(), 0, &parties(&["a", "b"]), plan);
        assert_eq!(alone, Err(Error::Missing("b".into())));
    }
}
