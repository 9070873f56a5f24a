//! Every order in which a rollout of cells can happen, over the rules of turns that the program runs.
//!
//! Inside a cell the nodes do what `model_synchronous` has proved of them, in fewer steps: all vote, hold the instant, switch, and
//! keep or go back, or leave before anything was decided. Around it each node reads the turns when it likes, in whole, and acts on
//! what it read last; replies are lost, nodes crash, fail, die, and are waived. A [`Flaw`] changes the world around the rules, never the rules.

use cutover::coord::rules::cells::{self, Act, Cell, act};
use cutover::coord::rules::gate::Ended;
use cutover::coord::rules::rolling::{End, Limits, Local, Member, Ticket, View};
use cutover::coord::rules::{Checks, Ms, synchronous};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::model_synchronous::TIMES;
use crate::model_turns::{decide, untouched};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A node does not look whether its cell has a ticket already.
    TicketTakenTwice,
    /// A cell that goes back counts as back before all its nodes have said so.
    BackTooEarly,
    /// A cell whose nodes are ready begins without a turn.
    BeginsWithoutTurn,
    /// Storage that has lost a ticket is not asked what its owner does.
    LostTicketUnnoticed,
    /// One node of a cell keeps the release because it is healthy itself.
    KeepsAlone,
    /// A cell that goes back for no fault of the release leaves its place free while a node is still at it.
    CancelsAfterGo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Waiting,
    /// It has left before there was a plan, and nobody has heard of it.
    Left,
    Armed,
    /// It runs the new release, and has said nothing yet.
    Switched,
    Vouched,
    Kept,
    Back,
    /// Its cell was not reached.
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    stage: Stage,
    /// The turns, as it has read them.
    view: View,
    runs_new: bool,
    is_dead: bool,
    is_waived: bool,
    has_closed: bool,
}

/// The gates of a cell, each decided once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gates {
    pub plan: Option<bool>,
    pub go: Option<bool>,
    pub outcome: Option<bool>,
}

impl Gates {
    fn ended(self) -> Option<Ended> {
        match (self.plan, self.go, self.outcome) {
            (Some(false), _, _) => Some(Ended::Aborted),
            (_, Some(false), _) => Some(Ended::Cancelled),
            (_, _, Some(true)) => Some(Ended::Kept),
            (_, _, Some(false)) => Some(Ended::RolledBack),
            (_, _, None) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Tickets, waves and decisions about the whole; what is known of the cells stands in their gates.
    board: View,
    gates: Vec<Gates>,
    nodes: Vec<Node>,
    crashes: u8,
    deaths: u8,
    halts: u8,
    losses: u8,
    refusals: u8,
    delays: u8,
    /// A ticket that storage has not made yet, which its maker does not know.
    on_its_way: Option<(usize, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Reads(usize),
    Turn { node: usize, act: Act, is_heard: bool },
    Refuses(usize),
    CallsOff(usize),
    Arms(usize),
    Goes { cell: usize, go: bool },
    Switches(usize),
    Vouches(usize),
    Ends { cell: usize, keep: bool },
    Keeps(usize),
    GoesBack(usize),
    Closes(usize),
    Crashes(usize),
    Dies(usize),
    IsWaived(usize),
    IsHalted,
    TicketIsLost,
    TicketIsDelayed { cell: usize, number: u32 },
    TicketArrives,
}

#[derive(Clone)]
struct Fleet {
    /// How many nodes each cell has.
    cells: &'static [usize],
    limits: Limits,
    waves: bool,
    crashes: u8,
    deaths: u8,
    halts: u8,
    losses: u8,
    refusals: u8,
    delays: u8,
    flaw: Flaw,
}

const NOW: Local = Local { is_next: true, has_soaked: true, is_early: false, is_expired: false };

impl Fleet {
    fn places(&self) -> std::ops::Range<usize> {
        0..self.cells.len()
    }

    /// The nodes of a cell of whom anybody waits.
    fn counted(world: &World, cell: usize) -> impl Iterator<Item = &Node> {
        world.nodes.iter().filter(move |node| node.view.me == cell && !node.is_waived)
    }

    /// What a node of this cell reads now.
    fn view(&self, world: &World, me: usize) -> View {
        let mut view = View { me, ..world.board.clone() };
        for cell in self.places() {
            let gates = world.gates[cell];
            let is_closed = Self::counted(world, cell).all(|node| node.has_closed);
            let said = Cell {
                ended: gates.ended(),
                is_closed: is_closed || self.flaw == Flaw::BackTooEarly,
                has_failed: true,
            };
            let member = &mut view.members[cell];
            member.waived = Self::counted(world, cell).next().is_none();
            member.is_at_work = gates.plan == Some(true) && self.flaw != Flaw::LostTicketUnnoticed;
            member.report = said.report();
            let has_ticket = world.board.ticket_of(cell, false).is_some();
            if gates.plan == Some(false) && !has_ticket {
                (member.refused, member.report) = (true, None);
            }
        }
        view
    }

    fn is_out(world: &World, cell: usize) -> bool {
        world.nodes.iter().filter(|node| node.view.me == cell).any(|node| {
            !node.is_dead
                && !node.is_waived
                && match node.stage {
                    Stage::Switched => true,
                    // Where the cell keeps it, it serves.
                    Stage::Vouched => world.gates[cell].outcome != Some(true),
                    Stage::Waiting | Stage::Left | Stage::Armed | Stage::Kept | Stage::Back | Stage::Over => {
                        false
                    }
                }
        })
    }

    fn is_ready(world: &World, cell: usize) -> bool {
        let mut counted = Self::counted(world, cell).peekable();
        let is_gone = |node: &Node| matches!(node.stage, Stage::Left | Stage::Over) || node.is_dead;
        counted.peek().is_some() && counted.all(|node| !is_gone(node))
    }

    /// Whether the rules have a node that has left without a word call its cell off.
    fn calls_off(&self, world: &World, number: usize) -> bool {
        let node = &world.nodes[number];
        let mut view = synchronous::View::new(0, self.cells[node.view.me]);
        view.members[0].waived = node.is_waived;
        view.plan = world.gates[node.view.me].plan.map(|_| synchronous::Plan::Abort);
        let local = synchronous::Local {
            now: 0,
            vote_by: Ms::MAX,
            plan_by: 0,
            clock_is_good: true,
            has_storage: true,
            can_write: true,
            promise: synchronous::Promise::Untold,
            checks: Checks::Watching,
        };
        let abort = synchronous::Act::Decide(synchronous::Decision::Plan(synchronous::Plan::Abort));
        synchronous::act(synchronous::Stage::Left, &view, local, &TIMES) == abort
    }

    fn turns(&self, world: &World, number: usize) -> Vec<Act> {
        let (node, cell) = (&world.nodes[number], world.nodes[number].view.me);
        if node.is_dead || node.stage != Stage::Waiting || world.gates[cell].plan.is_some() {
            return Vec::new();
        }
        let mut view = node.view.clone();
        if self.flaw == Flaw::TicketTakenTwice {
            let stranger = self.cells.len();
            view.rows[0].iter_mut().filter(|ticket| ticket.owner == cell).for_each(|t| t.owner = stranger);
            view.members.push(Member { waived: true, ..view.members[0] });
        }
        let is_ready = Self::is_ready(world, cell);
        let mut acts = Vec::new();
        for local in [NOW, Local { has_soaked: false, ..NOW }, Local { is_expired: true, ..NOW }] {
            let next = act(&view, is_ready, local, self.limits);
            if next != Act::Wait && !acts.contains(&next) {
                acts.push(next);
            }
        }
        if self.flaw == Flaw::BeginsWithoutTurn && is_ready {
            acts.push(Act::Begin);
        }
        acts
    }

    fn perform(&self, world: &mut World, number: usize, act: Act, is_heard: bool) {
        let cell = world.nodes[number].view.me;
        match act {
            Act::Wait => {}
            Act::Over => world.nodes[number].stage = Stage::Over,
            Act::Begin => drop(world.gates[cell].plan.get_or_insert(true)),
            Act::CallOff => drop(world.gates[cell].plan.get_or_insert(false)),
            Act::Take(at) => Self::make_ticket(world, cell, at.number),
            Act::Decide(decision) => decide(&mut world.board, decision),
        }
        if is_heard {
            world.nodes[number].view = self.view(world, cell);
        }
    }

    fn make_ticket(world: &mut World, owner: usize, number: u32) {
        if world.board.rows[0].len() == number as usize {
            world.board.rows[0].push(Ticket { owner, is_back: false, is_waived: false });
        }
    }

    /// Whether it ends when all that live go on, and who does not live is waived.
    fn ends(&self, world: &World) -> bool {
        let mut world = world.clone();
        for node in &mut world.nodes {
            node.is_waived |= node.is_dead;
        }
        for round in 0..60 {
            // In the end its time is over, too.
            let local = Local { is_expired: round > 30, ..NOW };
            if world.board.end.is_some() {
                return true;
            }
            for number in 0..world.nodes.len() {
                let cell = world.nodes[number].view.me;
                world.nodes[number].view = self.view(&world, cell);
                if world.nodes[number].is_dead {
                    continue;
                }
                let mut events = Vec::new();
                self.within(&world, cell, &mut events);
                if let Some(event) = events.into_iter().next() {
                    world = self.next_state(&world, event).unwrap();
                } else if let Some(act) = self.turns(&world, number).first() {
                    self.perform(&mut world, number, *act, true);
                } else if let Some(act) = self.after(&world, number, local) {
                    self.perform(&mut world, number, act, true);
                }
            }
        }
        false
    }

    /// What a node does that is done.
    fn after(&self, world: &World, number: usize, local: Local) -> Option<Act> {
        let node = &world.nodes[number];
        let is_done = matches!(node.stage, Stage::Kept | Stage::Back | Stage::Over) && !node.is_dead;
        let has_plan = world.gates[node.view.me].plan.is_some();
        let act = is_done.then(|| cells::after(&node.view, has_plan, local, self.limits));
        act.filter(|act| *act != Act::Wait)
    }

    /// What the nodes of a cell can do among themselves; the first are what they do when nothing goes wrong.
    fn within(&self, world: &World, cell: usize, events: &mut Vec<Event>) {
        let gates = world.gates[cell];
        let all = |stage: Stage| Self::counted(world, cell).all(|node| node.stage == stage);
        let is_kept = gates.outcome == Some(true);
        for (number, node) in world.nodes.iter().enumerate() {
            if node.is_dead || node.view.me != cell {
                continue;
            }
            match node.stage {
                Stage::Waiting | Stage::Left | Stage::Armed if matches!(gates.ended(), Some(ended) if ended != Ended::Kept) =>
                {
                    events.push(Event::GoesBack(number));
                }
                Stage::Left if self.calls_off(world, number) => events.push(Event::CallsOff(number)),
                Stage::Waiting if gates.plan == Some(true) && gates.go.is_none() => {
                    events.push(Event::Arms(number));
                }
                Stage::Armed if gates.go == Some(true) => events.push(Event::Switches(number)),
                Stage::Switched | Stage::Vouched if gates.outcome == Some(false) => {
                    events.push(Event::GoesBack(number));
                }
                Stage::Switched if gates.outcome.is_none() => events.push(Event::Vouches(number)),
                Stage::Vouched if is_kept || self.flaw == Flaw::KeepsAlone => {
                    events.push(Event::Keeps(number));
                }
                _ => {}
            }
            if node.stage == Stage::Back && !node.has_closed {
                events.push(Event::Closes(number));
            }
        }
        if gates.plan == Some(true) && gates.go.is_none() {
            if all(Stage::Armed) {
                events.push(Event::Goes { cell, go: true });
            }
            events.push(Event::Goes { cell, go: false });
        }
        if self.flaw == Flaw::CancelsAfterGo && gates.go == Some(true) && gates.outcome.is_none() {
            events.push(Event::Goes { cell, go: false });
        }
        if gates.go == Some(true) && gates.outcome.is_none() {
            if all(Stage::Vouched) {
                events.push(Event::Ends { cell, keep: true });
            }
            events.push(Event::Ends { cell, keep: false });
        }
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let board = untouched(self.cells.len(), self.waves, 1);
        let node = |cell: usize| Node {
            stage: Stage::Waiting,
            view: View { me: cell, ..board.clone() },
            runs_new: false,
            is_dead: false,
            is_waived: false,
            has_closed: false,
        };
        vec![World {
            nodes: self
                .places()
                .flat_map(|cell| (0..self.cells[cell]).map(move |_| cell))
                .map(node)
                .collect(),
            gates: vec![Gates::default(); self.cells.len()],
            board,
            crashes: self.crashes,
            deaths: self.deaths,
            halts: self.halts,
            losses: self.losses,
            refusals: self.refusals,
            delays: self.delays,
            on_its_way: None,
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        if world.halts > 0 && !world.board.halt {
            events.push(Event::IsHalted);
        }
        // Storage goes back to before the newest ticket; the cell's own gates its nodes put back.
        let newest = world.board.rows[0].last().map(|ticket| ticket.owner);
        if world.losses > 0 && newest.is_some_and(|cell| world.gates[cell].plan == Some(true)) {
            events.push(Event::TicketIsLost);
        }
        if world.on_its_way.is_some() {
            events.push(Event::TicketArrives);
        }
        for cell in self.places() {
            self.within(world, cell, events);
        }
        for (number, node) in world.nodes.iter().enumerate() {
            if node.is_dead {
                if !node.is_waived {
                    events.push(Event::IsWaived(number));
                }
                continue;
            }
            let decided = self.after(world, number, NOW);
            for act in self.turns(world, number).into_iter().chain(decided) {
                events.push(Event::Turn { node: number, act, is_heard: true });
                if let Act::Take(at) = act {
                    events.push(Event::Turn { node: number, act, is_heard: false });
                    if world.delays > 0 {
                        events.push(Event::TicketIsDelayed { cell: node.view.me, number: at.number });
                    }
                }
            }
            if self.view(world, node.view.me) != node.view {
                events.push(Event::Reads(number));
            }
            if world.refusals > 0 && node.stage == Stage::Waiting && world.gates[node.view.me].plan.is_none()
            {
                events.push(Event::Refuses(number));
            }
            if world.crashes > 0 {
                events.push(Event::Crashes(number));
            }
            if world.deaths > 0 {
                events.push(Event::Dies(number));
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        match event {
            Event::Reads(number) => {
                world.nodes[number].view = self.view(&world, world.nodes[number].view.me);
            }
            Event::Turn { node, act, is_heard } => self.perform(&mut world, node, act, is_heard),
            Event::Refuses(number) => {
                world.refusals -= 1;
                world.nodes[number].stage = Stage::Left;
            }
            Event::CallsOff(number) => {
                world.gates[world.nodes[number].view.me].plan.get_or_insert(false);
            }
            Event::Arms(number) => world.nodes[number].stage = Stage::Armed,
            Event::Goes { cell, go } => world.gates[cell].go = Some(go),
            Event::Switches(number) => {
                world.nodes[number].runs_new = true;
                world.nodes[number].stage = Stage::Switched;
            }
            Event::Vouches(number) => world.nodes[number].stage = Stage::Vouched,
            Event::Ends { cell, keep } => world.gates[cell].outcome = Some(keep),
            Event::Keeps(number) => world.nodes[number].stage = Stage::Kept,
            Event::GoesBack(number) => {
                world.nodes[number].runs_new = false;
                world.nodes[number].stage = Stage::Back;
            }
            Event::Closes(number) => world.nodes[number].has_closed = true,
            Event::Crashes(number) => {
                world.crashes -= 1;
                // What was read is forgotten; its stage and its cell's gates it has written down.
                let me = world.nodes[number].view.me;
                let fresh = View { me, ..self.init_states().remove(0).board };
                world.nodes[number].view = fresh;
            }
            Event::Dies(number) => {
                world.deaths -= 1;
                world.nodes[number].is_dead = true;
            }
            Event::IsWaived(number) => world.nodes[number].is_waived = true,
            Event::IsHalted => {
                world.halts -= 1;
                world.board.halt = true;
            }
            Event::TicketIsDelayed { cell, number } => {
                world.delays -= 1;
                world.on_its_way = Some((cell, number));
            }
            Event::TicketArrives => {
                if let Some((cell, number)) = world.on_its_way.take() {
                    Self::make_ticket(&mut world, cell, number);
                }
            }
            Event::TicketIsLost => {
                world.losses -= 1;
                world.board.rows[0].pop();
                // Nobody who had read it goes on with what it knew: whoever waits begins anew.
                for number in 0..world.nodes.len() {
                    world.nodes[number].view = self.view(&world, world.nodes[number].view.me);
                }
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most N cells are out of service", |fleet: &Fleet, world: &World| {
                fleet.places().filter(|cell| Fleet::is_out(world, *cell)).count()
                    <= fleet.limits.at_once as usize
            }),
            Property::always("a cell has one ticket", |fleet: &Fleet, world: &World| {
                let tickets = &world.board.rows[0];
                fleet.places().all(|cell| tickets.iter().filter(|ticket| ticket.owner == cell).count() <= 1)
            }),
            Property::always("no cell ends mixed", |fleet: &Fleet, world: &World| {
                fleet.places().all(|cell| {
                    let mut ended = Fleet::counted(world, cell)
                        .filter(|node| !node.is_dead && matches!(node.stage, Stage::Kept | Stage::Back));
                    let first = ended.next().map(|node| node.runs_new);
                    ended.all(|node| Some(node.runs_new) == first)
                })
            }),
            Property::always("a wave opens when the ones before are good", |fleet: &Fleet, world: &World| {
                world.board.wave == 0
                    || world.gates[0].ended() == Some(Ended::Kept)
                    || world.gates[0].plan == Some(false)
                    || Fleet::counted(world, 0).next().is_none()
                    || fleet.cells.len() == 1
            }),
            Property::always("what is kept runs everywhere", |fleet: &Fleet, world: &World| {
                world.board.end != Some(End::Keep)
                    || fleet.places().all(|cell| {
                        matches!(world.gates[cell].ended(), Some(Ended::Kept | Ended::Aborted))
                            || Fleet::counted(world, cell).next().is_none()
                    })
            }),
            Property::always("when faults end, it ends", |fleet: &Fleet, world: &World| fleet.ends(world)),
            Property::sometimes("all are kept", |_, world: &World| world.board.end == Some(End::Keep)),
            Property::sometimes("one cell keeps it and another goes back", |_, world: &World| {
                world.gates.iter().any(|gates| gates.ended() == Some(Ended::Kept))
                    && world.gates.iter().any(|gates| gates.ended() == Some(Ended::RolledBack))
            }),
        ]
    }
}

const ONE_AT_ONCE: Limits = Limits { at_once: 1, max_failed: 1, undoes: false };
/// One failure does not stop all: the place of a cell that has gone back is free for another one.
const GOES_ON: Limits = Limits { max_failed: 2, ..ONE_AT_ONCE };
const SOUND: Fleet = Fleet {
    cells: &[2, 1],
    limits: ONE_AT_ONCE,
    waves: false,
    crashes: 0,
    deaths: 0,
    halts: 0,
    losses: 0,
    refusals: 0,
    delays: 0,
    flaw: Flaw::None,
};

fn check(fleet: &Fleet) {
    let started = std::time::Instant::now();
    let checker = fleet.clone().checker().threads(2).spawn_bfs().join();
    eprintln!(
        "cells of {:?} nodes, {} at once, {} crashes, {} deaths, {} halts, {} lost and {} late tickets, {} refusals: {} states in {:.1} s",
        fleet.cells,
        fleet.limits.at_once,
        fleet.crashes,
        fleet.deaths,
        fleet.halts,
        fleet.losses,
        fleet.delays,
        fleet.refusals,
        checker.unique_state_count(),
        started.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

#[test]
fn two_cells_are_never_out_of_service_together_and_none_is_mixed() {
    check(&SOUND);
    check(&Fleet { limits: GOES_ON, ..SOUND });
    check(&Fleet { halts: 1, ..SOUND });
    check(&Fleet { cells: &[1, 1], refusals: 2, ..SOUND });
    check(&Fleet { cells: &[1, 1], halts: 1, delays: 1, ..SOUND });
}

#[test]
#[ignore = "minutes without optimisation: `make model`"]
fn model_cells_take_turns_whatever_happens() {
    check(&Fleet { cells: &[2, 2], ..SOUND });
    check(&Fleet { cells: &[1, 1, 1], limits: Limits { at_once: 2, max_failed: 2, undoes: false }, ..SOUND });
    check(&Fleet { crashes: 1, ..SOUND });
    check(&Fleet { deaths: 1, ..SOUND });
    check(&Fleet { losses: 1, ..SOUND });
    check(&Fleet { refusals: 2, ..SOUND });
    check(&Fleet { halts: 1, delays: 1, ..SOUND });
    check(&Fleet { waves: true, crashes: 1, ..SOUND });
}

#[test]
fn every_flaw_of_a_rollout_of_cells_is_found_out() {
    for (flaw, losses, property) in [
        (Flaw::TicketTakenTwice, 0, "a cell has one ticket"),
        (Flaw::BackTooEarly, 0, "at most N cells are out of service"),
        (Flaw::BeginsWithoutTurn, 0, "at most N cells are out of service"),
        (Flaw::LostTicketUnnoticed, 1, "at most N cells are out of service"),
        (Flaw::KeepsAlone, 0, "no cell ends mixed"),
        (Flaw::CancelsAfterGo, 0, "at most N cells are out of service"),
    ] {
        let fleet = Fleet { flaw, losses, limits: GOES_ON, ..SOUND };
        let wanted = HasDiscoveries::AnyOf(std::iter::once(property).collect());
        let checker = fleet.checker().threads(2).finish_when(wanted).spawn_bfs().join();
        let found = checker.discoveries();
        let names: Vec<_> = found.keys().collect();
        assert!(found.contains_key(property), "{flaw:?} was not found out: {names:?}");
        eprintln!("{flaw:?}: {names:?}");
    }
}
