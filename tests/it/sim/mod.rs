//! Fleets in one thread: the program's own rules, moves and facts, on simulated time and storage that misbehaves.
//!
//! Each run has a seed, and the same seed is the same run: `CUTOVER_SIM_SEED=17 cargo nextest run -E 'test(one_seed)'`. For a
//! seed of the long tests say `CUTOVER_SIM_SIZES=48` too, and for another kind `CUTOVER_SIM_MODE=rolling` or `cells`.

mod acts;
mod board;
mod bounds;
mod chaos;
mod copies;
mod growth;
mod node;
mod runs;
mod slots;
mod spoilt;
mod stories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use cutover::coord::facts::Wanted;
use cutover::coord::look::Trust;
use cutover::coord::operate::{self, Operator, Wish};
use cutover::coord::settings::{Mode, OnHalt, Overlap};
use cutover::coord::standing::Standing;
use cutover::coord::{NodeName, Settings};
use cutover::lifecycle::fleet::{Here, Kept, Newcomer, join};
use cutover::sys::clock::Clock;
use cutover::sys::disk::Disk;
use cutover::types::Span;
use jiff::SignedDuration;

use acts::Act;
use board::{NodeBoard, Storage};
use chaos::{Chaos, Life, Random};
use node::{Luck, Nobody, SimNode, release};

/// When faults end, and when all must have ended after that.
const FAULTS_END: i64 = 900_000;
const ALL_ENDED: i64 = FAULTS_END + 3_600_000;

/// Within this time a machine at work notices another one of its name.
const NOTICED: i64 = 30_000;

/// The sizes of fleets, beyond three, in tests that belong to every change.
const SMALL: i64 = 8;

const TRUST: Trust<'static> = Trust { keys: &Nobody, allow_unsigned: true };

type Backup = (BTreeMap<String, (Arc<str>, i64)>, BTreeSet<String>);

struct Fleet {
    seed: u64,
    now: Arc<AtomicI64>,
    storage: Arc<Mutex<Storage>>,
    nodes: Vec<SimNode>,
    settings: Arc<Settings>,
    /// How many nodes a cell has, in a fleet of cells.
    in_a_cell: usize,
    /// The number of the rollout.
    number: u64,
    worst_out: usize,
    ever_out: bool,
    mixed: Option<bounds::Mixed>,
    /// What storage held before the rollout.
    backup: Option<Backup>,
    /// What has happened beside.
    happened: Option<Act>,
    /// The machines under somebody else's name that have switched,
    others: BTreeSet<usize>,
    /// and the first that did so while that one was at work.
    stranger: Option<String>,
    _directory: tempfile::TempDir,
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Came {
    New,
    Old,
    Mixed,
}

impl Fleet {
    fn new(seed: u64, size: usize, mode: Mode, chaos: Chaos) -> Self {
        let mut random = Random::new(seed);
        let now = Arc::new(AtomicI64::new(0));
        let storage = Arc::new(Mutex::new(Storage::default()));
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let overlap = if random.chance(2) { Overlap::None } else { Overlap::Brief };
        let settings = Arc::new(Settings {
            mode,
            name: "simulated".into(),
            allow_unsigned: true,
            overlap,
            vote: Span::seconds(240),
            soak: Span::seconds(5),
            at_once: 1 + u32::try_from(random.below(3)).unwrap(),
            on_halt: if random.chance(2) && mode != Mode::Cells { OnHalt::Rollback } else { OnHalt::Stop },
            ..Settings::default()
        });
        let luck = random.below(3);
        let mut nodes = Vec::new();
        for number in 0..size {
            let life = Life::new(now.clone());
            if chaos.until > 0 && random.chance(60) {
                life.set_skew(random.below(4000) - 2000);
            } else {
                life.set_skew(random.below(40) - 20);
            }
            let luck = match luck {
                0 if number == 0 => Luck::SickAfter(random.below(90_000)),
                1 if random.chance(20) => Luck::SickAfter(random.below(90_000)),
                1 if random.chance(60) => Luck::Unstageable,
                _ => Luck::Good,
            };
            let name = format!("n{number}");
            let path = directory.path().join(&name);
            let here = Here { machine: "machine".into(), place: name.clone() };
            let (random, storage, settings) = (random.fork(), storage.clone(), settings.clone());
            let mut node = SimNode::new(name, life, storage, chaos, random, settings, path, luck);
            node.here = here;
            // In some fleets there are nodes that cannot go back, if they cannot stay.
            node.is_broken = chaos.until > 0 && seed.is_multiple_of(5) && number % 5 == 0;
            nodes.push(node);
        }
        let mut fleet = Self {
            seed,
            now,
            storage,
            nodes,
            settings,
            in_a_cell: if mode == Mode::Cells { 1 + usize::try_from(seed % 4).unwrap() } else { 0 },
            number: 1,
            worst_out: 0,
            ever_out: false,
            mixed: None,
            backup: None,
            happened: None,
            others: BTreeSet::new(),
            stranger: None,
            _directory: directory,
        };
        fleet.found();
        fleet
    }

    fn operator_board(&self) -> NodeBoard {
        NodeBoard {
            storage: self.storage.clone(),
            life: Life::new(self.now.clone()),
            chaos: Chaos { until: 0, ..HARSH },
            random: Random::new(1),
            cut_off_until: 0,
            refused_until: 0,
            is_unplugged: Arc::default(),
            unplugged_after: Arc::default(),
            answers_since: Arc::default(),
            seen: BTreeMap::new(),
            seen_in: 0,
        }
    }

    fn operate<T>(&self, act: impl FnOnce(&mut Operator<'_>, jiff::Timestamp) -> T) -> T {
        let mut board = self.operator_board();
        let now = board.life.wall();
        let mut operator = Operator { board: &mut board, trust: TRUST, signer: None, by: "operator".into() };
        act(&mut operator, now)
    }

    fn found(&mut self) {
        let fleet = self.operate(|operator, _| operator.init("simulated", "id").unwrap());
        let mut entries = Vec::new();
        let in_a_cell = self.in_a_cell;
        for node in &mut self.nodes {
            let name: NodeName = node.name.parse().unwrap();
            let mut board = NodeBoard { chaos: Chaos { until: 0, ..HARSH }, ..node.board() };
            let newcomer = Newcomer { node: &name, machine: "machine".into(), key: None };
            let kept = join(&mut board, &node.disk(), &node.path, &self.settings, newcomer, TRUST).unwrap();
            let instance = kept.own.instance;
            entries.push(cutover::coord::facts::Listed {
                cell: cell_of(&node.name, in_a_cell),
                node: name,
                instance,
                groups: Vec::new(),
                key: None,
            });
            node.life.revive(i64::MAX);
            node.show();
            // Faults begin when the fleet is there.
            self.storage.lock().unwrap().silent_until = 0;
        }
        self.operate(|operator, _| operator.write_members(&fleet, entries, 0).unwrap());
    }

    /// Lets a node join, as it stands.
    fn join(&mut self, number: usize) -> Result<(), String> {
        let settings = self.settings.clone();
        let node = &mut self.nodes[number];
        let name: NodeName = node.name.parse().unwrap();
        let mut board = NodeBoard { chaos: Chaos { until: 0, ..HARSH }, ..node.board() };
        let newcomer = Newcomer { node: &name, machine: "machine".into(), key: None };
        join(&mut board, &node.disk(), &node.path, &settings, newcomer, TRUST)?;
        node.show();
        Ok(())
    }

    /// Writes a list of all who have joined.
    fn list_all(&self) {
        let entry = |node: &SimNode| {
            let kept = Kept::load(&Disk::default(), &node.path).unwrap().unwrap();
            let cell = cell_of(&node.name, self.in_a_cell);
            let (node, instance) = (kept.own.node, kept.own.instance);
            cutover::coord::facts::Listed { node, instance, groups: Vec::new(), cell, key: None }
        };
        let entries: Vec<_> = self.nodes.iter().map(entry).collect();
        self.operate(|operator, _| {
            let made = operate::fleet(operator.board, "simulated").unwrap();
            operator.write_members(&made, entries, 0).unwrap()
        });
    }

    /// The settings of all from now on.
    fn change(&mut self, settings: Settings) {
        self.settings = Arc::new(settings);
        for node in &mut self.nodes {
            node.settings = self.settings.clone();
        }
    }

    fn time(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn advance_to(&self, moment: i64) {
        self.now.fetch_max(moment, Ordering::Relaxed);
    }

    /// Writes the next list, of these.
    fn list(&self, nodes: &[&str]) {
        self.operate(|operator, _| {
            let made = operate::fleet(operator.board, "simulated").unwrap();
            let entry = |node: &&str| cutover::coord::facts::Listed {
                node: node.parse().unwrap(),
                instance: String::new(),
                groups: Vec::new(),
                cell: None,
                key: None,
            };
            operator.write_members(&made, nodes.iter().map(entry).collect(), 0).unwrap()
        });
    }

    fn propose(&self, version: &str) {
        self.propose_at(version, None);
    }

    fn propose_at(&self, version: &str, later: Option<SignedDuration>) {
        let wanted = release(version);
        let settings = self.settings.clone();
        self.operate(|operator, now| {
            let made = operate::fleet(operator.board, "simulated").unwrap();
            let wish = Wish {
                release: Wanted { name: "app".into(), version: wanted.version, digest: wanted.digest },
                only: Vec::new(),
                not_before: later.map(|later| now + later),
                valid: SignedDuration::from_secs(3600),
                now,
                after: operator.newest(&made).unwrap().map(|newest| newest.number),
            };
            operator.propose(&settings, &wish).unwrap()
        });
    }

    /// Runs until every node has ended, or time is up.
    fn run(&mut self, until: i64) {
        while self.tick(until) {
            let is_quiet = self.nodes.iter().all(|node| node.is_lost || node.journal.is_none());
            // A while after faults have ended, for those who are behind.
            let is_late = self.time() > FAULTS_END + 600_000;
            if is_late && is_quiet && self.has_outcome() && self.has_settled() {
                return;
            }
        }
    }

    /// Lets those do something whose time comes next, if it comes before `until`.
    fn tick(&mut self, until: i64) -> bool {
        let awake = self.nodes.iter().filter(|node| !node.is_lost).map(|node| node.wake).min();
        let Some(next) = awake.filter(|next| *next <= until) else { return false };
        self.advance_to(next);
        let now = self.time();
        for number in 0..self.nodes.len() {
            if self.nodes[number].wake <= now && !self.nodes[number].is_lost {
                self.nodes[number].step();
                self.look(number);
                // As `fleet status --why` says.
                if self.settings.mode == Mode::Rolling && self.nodes[number].is_to_be_waived() {
                    self.nodes[number].is_freed = self.waive(number).is_ok();
                    self.nodes[number].is_waived |= self.nodes[number].is_freed;
                }
            }
        }
        true
    }

    /// Proposes the next release, when all are healthy again, and clocks are set; who does not come to it within an hour.
    fn behind_in_the_next(&mut self) -> Vec<String> {
        for node in self.nodes.iter_mut().filter(|node| !node.is_lost) {
            (node.luck, node.is_broken, node.is_waived) = (Luck::Good, false, false);
            node.life.set_skew(0);
            // As the timer does.
            node.forget();
        }
        self.number = 2;
        self.propose("3");
        let until = self.time() + 3_600_000;
        loop {
            let counted = self.nodes.iter().filter(|node| self.is_counted(node));
            let behind = counted.filter(|node| node.pointer != release("3") || node.journal.is_some());
            let behind: Vec<_> = behind.map(|node| node.name.clone()).collect();
            if behind.is_empty() || !self.tick(until) {
                return behind;
            }
        }
    }

    /// Proposes, and lets something happen to somebody in the middle of it: in every other run of the long tests.
    fn begin(&mut self, random: &mut Random, within: i64, is_long: bool) -> Option<Act> {
        self.back_up();
        self.propose("2");
        if !is_long {
            if self.settings.mode == Mode::Synchronous && random.chance(6) {
                self.run(random.below(within));
                self.happen(Act::Abort, 0, random);
            }
            return None;
        }
        if random.chance(2) {
            return None;
        }
        let number = usize::try_from(random.below(i64::try_from(self.nodes.len()).unwrap())).unwrap();
        let act = Act::any(random);
        self.storage.lock().unwrap().is_flat = self.seed.is_multiple_of(3);
        let moment = random.below(within);
        // Every other backup is from the middle of it.
        if act == Act::Restore && !self.seed.is_multiple_of(2) {
            self.run(moment / 2);
            self.back_up();
        }
        self.run(moment);
        self.happened = Some(act);
        self.happen(act, number, random);
        self.nodes[number].is_waived |= matches!(act, Act::Waive);
        self.run(FAULTS_END);
        self.mend(act, number);
        Some(act)
    }

    /// What must hold at every moment.
    fn look(&mut self, number: usize) {
        self.ever_out |= self.nodes[number].is_out;
        let seen = &self.nodes[number];
        if seen.is_extra && seen.is_out && self.others.insert(number) {
            // Who is silent for longer may have moved to where the other one is, and needs as long to notice that.
            let is_at_work = |other: &SimNode| {
                let since = |moment: i64| self.time() - moment;
                let answers_since = since(other.answers_since.load(Ordering::Relaxed));
                let looks = since(other.stepped) < NOTICED && answers_since >= NOTICED;
                !other.is_extra && other.name == seen.name && looks
            };
            if self.nodes.iter().any(is_at_work) {
                self.stranger = Some(seen.name.clone());
            }
        }
        if let Some(mixed) = &mut self.mixed {
            mixed.look(self.now.load(Ordering::Relaxed), &self.nodes);
        }
        if self.settings.mode.takes_turns() && self.nodes[number].is_out {
            let counted = self.nodes.iter().filter(|node| !node.is_waived);
            let out = counted.filter(|node| node.is_out && !node.is_lost);
            let out = match self.settings.mode {
                // Where a cell keeps the release all its nodes serve, also those that have not read so yet.
                Mode::Cells => {
                    let storage = self.storage.lock().unwrap();
                    let cells: BTreeSet<_> =
                        out.filter_map(|node| cell_of(&node.name, self.in_a_cell)).collect();
                    let keeps = |cell: &NodeName| {
                        let outcome = storage.decided(self.number, &format!("outcome.{cell}"));
                        outcome.is_some_and(|text| text.contains("\"keep\""))
                    };
                    cells.iter().filter(|cell| !keeps(cell)).count()
                }
                _ => out.count(),
            };
            self.worst_out = self.worst_out.max(out);
            let (mut most, seed, happened) = (self.settings.at_once as usize, self.seed, self.happened);
            // Whoever has not read a ticket that storage lost takes its place, until its owner has put it back.
            if happened == Some(Act::Restore) {
                most *= 2;
            }
            assert!(out <= most, "seed {seed}: {out} out of service, {happened:?}\n{}", self.why());
        }
    }

    /// Whether nobody has anything left to undo.
    fn has_settled(&self) -> bool {
        self.settings.on_halt == OnHalt::Stop
            || self.settings.mode != Mode::Rolling
            || self.nodes.iter().all(|node| node.is_lost || node.has_ended())
    }

    fn has_outcome(&self) -> bool {
        let storage = self.storage.lock().unwrap();
        let text = |gate: &str| storage.decided(1, gate).unwrap_or_default();
        text("plan").contains("abort")
            || text("go").contains("cancel")
            || !text("outcome").is_empty()
            || !text("void").is_empty()
            || !storage.names.contains_key("rollouts/000001")
    }

    /// Whether somebody who has no part in it sees that it has ended, too: else nobody can propose the next one.
    fn is_seen_to_end(&self) -> bool {
        self.sees_the_end().unwrap_or(false)
    }

    fn sees_the_end(&self) -> Result<bool, operate::Error> {
        self.operate(|operator, _| {
            let made = operate::fleet(operator.board, "simulated")?;
            match operator.rollout(&made, 1) {
                Ok(rollout) => Ok(matches!(operator.standing(&rollout)?, Standing::Ended(_))),
                Err(error @ operate::Error::Unreachable(_)) => Err(error),
                // Its facts are gone.
                Err(_) => Ok(true),
            }
        })
    }

    /// Whether it is said where this node ends: not where nobody waits for it, nor where a copy of it took its place while it was
    /// silent, for then a person says which of the two is the node.
    fn is_counted(&self, node: &SimNode) -> bool {
        let is_taken_over = self.happened == Some(Act::Clone)
            && self.others.iter().any(|number| self.nodes[*number].name == node.name);
        !(node.is_lost || node.is_extra || node.is_waived || is_taken_over)
    }

    fn came(&self) -> Came {
        let new = release("2");
        let counted: Vec<_> = self.nodes.iter().filter(|node| self.is_counted(node)).collect();
        let with_new = counted.iter().filter(|node| node.pointer == new).count();
        match with_new {
            0 => Came::Old,
            all if all == counted.len() => Came::New,
            _ => Came::Mixed,
        }
    }

    /// A cell of which some nodes run the new release and some the old one.
    fn mixed_cell(&self) -> Option<NodeName> {
        let new = release("2");
        let mut cells = BTreeMap::<NodeName, BTreeSet<bool>>::new();
        for node in self.nodes.iter().filter(|node| self.is_counted(node)) {
            if let Some(cell) = cell_of(&node.name, self.in_a_cell) {
                cells.entry(cell).or_default().insert(node.pointer == new);
            }
        }
        cells.into_iter().find(|(_, with)| with.len() > 1).map(|(cell, _)| cell)
    }

    fn why(&self) -> String {
        let storage = self.storage.lock().unwrap();
        let gates = storage.names.iter().filter(|(name, _)| name.starts_with("rollouts/"));
        let gates: Vec<_> = gates.map(|(name, (text, at))| format!("{at} {name}: {text}")).collect();
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let phase = node.journal.as_ref().map(|record| record.phase.clone());
                let own = std::fs::read_to_string(&node.path).unwrap_or_default();
                let stage =
                    own.split("\"stage\":").nth(1).unwrap_or("-").chars().take(80).collect::<String>();
                format!(
                    "{} {:?} {} {phase:?} lost={} {stage} wake={} {}",
                    node.name, node.luck, node.pointer.version, node.is_lost, node.wake, node.last_trouble
                )
            })
            .collect();
        format!("{}\n{}", gates.join(""), nodes.join("\n"))
    }
}

const HARSH: Chaos = Chaos {
    until: FAULTS_END,
    cut_off: 400,
    silence: 4000,
    cut_off_ms: 90_000,
    late_create: 100,
    full: 600,
    lost_reply: 20,
    torn: 100,
    stale: 3,
    stale_ms: 4_000,
};

/// In which cell a node is, by its number, where so many make one.
fn cell_of(node: &str, in_a_cell: usize) -> Option<NodeName> {
    let number: usize = node.strip_prefix('n')?.split('-').next()?.parse().ok()?;
    number.checked_div(in_a_cell).map(|cell| format!("c{cell}").parse().unwrap())
}
