//! Every order in which a rolling rollout can happen, over the same rules that the program runs.
//!
//! Each node reads the board when it likes, in whole, and acts on what it read last; replies are lost, nodes crash,
//! fail, and die. A [`Flaw`] changes the world around the rules, never the rules.

use cutover::coord::rules::Health;
use cutover::coord::rules::rolling::{Act, At, End, Limits, Local, Member, Stage, Ticket, View, act};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::model_turns::{decide, silent, untouched};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A ticket is what one finds free and then takes, not what one creates.
    ChecksThenTakes,
    /// A place is given up for lost while its owner only sleeps.
    TakesOverAfterTime,
    /// After a crash a node does not look for its own ticket.
    ForgetsOwnTicket,
    /// A halt is undone before the outcome is there.
    UndoesOnHalt,
    /// Going back takes no ticket.
    ReturnsWithoutTicket,
    /// The name is no part of what is signed: a report can be copied to that of going back.
    SignatureCopied,
    /// A ticket that says nothing keeps its place, and nobody can waive it.
    BadForEver,
    /// A copy of a node goes on with the node's ticket.
    CopyTakesPart,
    /// A node does not look for its own report before it switches.
    OwnReportIgnored,
    /// Who says that it cannot is waited for until the time is over.
    RefusalWaitedFor,
    /// A ban is not looked at before the ticket is taken.
    BanIgnored,
    /// Nobody looks whether the moment has come before which nobody switches.
    MomentIgnored,
    /// A slot is taken for free although the last of its owners has not finished.
    LastOwnerLeftOut,
    /// A slot has a place too many.
    PlaceTooMany,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    stage: Stage,
    view: View,
    /// It is being switched, or goes back: out of service.
    is_out: bool,
    runs_new: bool,
    is_dead: bool,
    /// It has banned the release.
    bans: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    board: View,
    nodes: Vec<Node>,
    crashes: u8,
    deaths: u8,
    halts: u8,
    /// What else may happen, once.
    mishap: Mishap,
}

/// What may happen beside crashes, deaths and halts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mishap {
    Nothing,
    /// The newest ticket is damaged, and stays so.
    Rot,
    /// An operator ends it, whatever stands there.
    Void,
    /// A copy of node 0 is begun.
    Copy,
    /// The disk of node 0 is put back as it was before it switched; or a copy of it goes on in its place.
    PutBack,
    /// Node 0 bans the release, and says that it cannot; later it may allow it again.
    Ban,
    /// The report of node 0 is copied to that of its going back.
    CopiedReport,
    /// The moment comes before which nobody switches.
    MomentComes,
}

impl World {
    /// Whether the moment is to come before which nobody switches.
    fn is_early(&self) -> bool {
        self.mishap == Mishap::MomentComes
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Event {
    /// An operator stops it.
    IsHalted,
    Happens,
    /// An operator waives a ticket that says nothing.
    IsTicketWaived(usize),
    AllowsAgain(usize),
    Does {
        node: usize,
        act: Act,
    },
    DoesUnheard {
        node: usize,
        act: Act,
    },
    Reads(usize),
    /// It reads one slot alone, and takes its ticket there from then on.
    ReadsRow(usize, u32),
    Crashes(usize),
    Dies(usize),
    Ends {
        node: usize,
        health: Health,
    },
}

#[derive(Clone)]
struct Fleet {
    nodes: usize,
    limits: Limits,
    waves: bool,
    /// Each of those who may be out of service at once has a row of tickets of its own.
    slots: bool,
    crashes: u8,
    deaths: u8,
    /// How often an operator may stop it.
    halts: u8,
    flaw: Flaw,
    mishap: Mishap,
}

fn view_of(board: &View, me: usize) -> View {
    View { me, ..board.clone() }
}

impl Fleet {
    fn acts(&self, node: &Node, is_early: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(act) = refuse(node).filter(|_| self.flaw != Flaw::BanIgnored) {
            acts.extend((act != Act::Wait).then_some(act));
            return acts;
        }
        // Whoever is at work asks nobody until it has ended, one way or the other.
        if node.is_out {
            return acts;
        }
        let mut view = node.view.clone();
        match self.flaw {
            Flaw::TakesOverAfterTime => {
                let me = view.me;
                let owners: Vec<_> = view.tickets().map(|(_, ticket)| ticket.owner).collect();
                for owner in owners.into_iter().filter(|owner| *owner != me) {
                    view.members[owner].waived = true;
                }
            }
            Flaw::ForgetsOwnTicket if node.stage == Stage::Waiting => {
                let me = view.me;
                let stranger = view.members.len();
                for ticket in view.rows.iter_mut().flatten().filter(|ticket| ticket.owner == me) {
                    ticket.owner = stranger;
                }
                view.members.push(Member { waived: true, ..silent(0) });
            }
            Flaw::UndoesOnHalt if view.halt => view.end = Some(End::Halted),
            Flaw::RefusalWaitedFor => forget_refusals(&mut view),
            Flaw::LastOwnerLeftOut => {
                let last = view.rows[view.row as usize].last().map(|ticket| ticket.owner);
                if let Some(last) = last.filter(|last| *last != view.me) {
                    view.members[last].waived = true;
                }
            }
            Flaw::OwnReportIgnored if matches!(node.stage, Stage::Taking { .. }) => {
                view.members[view.me].report = None;
            }
            _ => {}
        }
        for (has_soaked, is_expired) in [(false, false), (true, false), (true, true)] {
            let is_early = is_early && self.flaw != Flaw::MomentIgnored;
            let local = Local { is_next: true, has_soaked, is_early, is_expired };
            let more = if self.flaw == Flaw::PlaceTooMany { self.limits.at_once } else { 0 };
            let limits = Limits { at_once: self.limits.at_once + more, ..self.limits };
            let act = act(node.stage, &view, local, limits);
            if act != Act::Wait && !acts.contains(&act) {
                acts.push(act);
            }
        }
        acts
    }

    fn perform(&self, world: &mut World, at: usize, act: Act, is_heard: bool) {
        let World { board, nodes, .. } = world;
        let node = &mut nodes[at];
        // A copy goes by the name of the first.
        let number = node.view.me;
        match act {
            Act::Wait => {}
            Act::Enter(stage @ Stage::Returning { .. }) if self.flaw == Flaw::ReturnsWithoutTicket => {
                node.stage = stage;
                node.is_out = true;
            }
            Act::Enter(stage) => node.stage = stage,
            Act::Switch | Act::GoBack => node.is_out = true,
            Act::Take { at: At { row, number: ticket }, is_back } => {
                let there = &mut board.rows[row as usize];
                if there.len() == ticket as usize || self.flaw == Flaw::ChecksThenTakes {
                    there.push(Ticket { owner: number, is_back, is_waived: false });
                }
                if is_heard {
                    node.view.rows[row as usize].clone_from(there);
                }
            }
            Act::Report(health) => {
                board.members[number].report.get_or_insert(health);
                if is_heard {
                    node.view.members[number].report = board.members[number].report;
                }
            }
            Act::ReportReturn(health) => {
                board.members[number].returned.get_or_insert(health);
                if is_heard {
                    node.view.members[number].returned = board.members[number].returned;
                }
            }
            Act::Decide(decision) => {
                decide(board, decision);
                if is_heard {
                    node.view = view_of(board, number);
                }
            }
        }
    }

    /// Whether the living come to an end when faults have ended, and time goes by or not.
    fn ends(&self, world: &World, is_expired: bool) -> bool {
        let mut world = world.clone();
        if self.flaw != Flaw::BadForEver {
            let nobody = self.nodes;
            let all = world.board.rows.iter_mut().flatten();
            all.for_each(|ticket| ticket.is_waived |= ticket.owner == nobody);
        }
        for _ in 0..200 {
            let before = world.clone();
            for number in 0..self.nodes {
                if world.nodes[number].is_dead {
                    continue;
                }
                if world.nodes[number].is_out {
                    finish(&mut world.nodes[number], Health::Good);
                }
                let row = free_row(&world.board).unwrap_or(world.nodes[number].view.row);
                world.nodes[number].view = View { row, ..view_of(&world.board, number) };
                if self.flaw == Flaw::RefusalWaitedFor {
                    forget_refusals(&mut world.nodes[number].view);
                }
                let local = Local { is_next: true, has_soaked: true, is_early: false, is_expired };
                let node = &world.nodes[number];
                let act = refuse(node).unwrap_or_else(|| act(node.stage, &node.view, local, self.limits));
                self.perform(&mut world, number, act, true);
            }
            if world == before {
                break;
            }
        }
        let is_blocked = world.nodes.iter().any(|node| node.is_dead);
        is_blocked || world.board.is_settled(self.limits)
    }

    /// Whether one that cannot takes part is all that keeps the others: then they need not wait for the time to be over.
    fn is_up_to_others(&self, world: &World) -> bool {
        let said = &world.board.members;
        let is_spoilt = world.board.tickets().any(|(_, ticket)| ticket.owner == self.nodes);
        let left = said.iter().any(|member| member.report == Some(Health::Left))
            || world.nodes.iter().any(|node| node.stage == Stage::Done { health: Health::Left });
        // Of whom refuses alone in the first wave nobody learns whether the release is good.
        let has_place = world.board.ticket_of(0, false).is_some();
        said[0].refused && !has_place && !self.waves && !is_spoilt && !left
    }

    fn happen(&self, world: &mut World) {
        let World { board, nodes, .. } = world;
        match std::mem::replace(&mut world.mishap, Mishap::Nothing) {
            Mishap::Nothing => {}
            Mishap::Rot => {
                let nobody = self.nodes;
                // Its owner has read it back, or will never know that it was theirs.
                if let Some(ticket) = board.rows[0].last_mut() {
                    ticket.owner = nobody;
                }
            }
            Mishap::Void => {
                board.end.get_or_insert(End::Void);
            }
            Mishap::Copy => nodes.push(nodes[0].clone()),
            Mishap::PutBack => {
                let stage = board.ticket_of(0, false).map(Stage::Taking);
                // A process reads before it does anything.
                nodes[0].view = view_of(board, 0);
                nodes[0].stage = stage.unwrap_or(Stage::Waiting);
                nodes[0].runs_new = false;
            }
            Mishap::Ban => {
                nodes[0].bans = true;
                board.members[0].refused = true;
            }
            Mishap::CopiedReport => board.members[0].returned = board.members[0].report,
            Mishap::MomentComes => {}
        }
    }

    fn may_happen(&self, world: &World) -> bool {
        let node = &world.nodes[0];
        match world.mishap {
            Mishap::Nothing => false,
            // Before its owner has begun: what it has begun it has written down.
            Mishap::Rot => {
                let last = world.board.rows[0].last().map(|ticket| ticket.owner);
                last.is_some_and(|owner| {
                    world.nodes.get(owner).is_some_and(|node| !node.is_out && node.view.rows[0].is_empty())
                })
            }
            Mishap::Void | Mishap::MomentComes => true,
            Mishap::Copy => self.flaw == Flaw::CopyTakesPart,
            // Whoever finds it at work waits until it is silent.
            Mishap::PutBack => !node.is_out && world.board.members[0].report.is_some(),
            Mishap::Ban => !node.is_out && matches!(node.stage, Stage::Waiting | Stage::Taking { .. }),
            Mishap::CopiedReport => {
                self.flaw == Flaw::SignatureCopied && world.board.members[0].report.is_some()
            }
        }
    }
}

/// What a node does that has banned the release: it stages nothing, and so comes to nothing else; a place that it holds
/// it gives free.
fn refuse(node: &Node) -> Option<Act> {
    if !node.bans || node.is_out || !matches!(node.stage, Stage::Waiting | Stage::Taking { .. }) {
        return None;
    }
    let has_ticket = node.view.ticket_of(node.view.me, false).is_some();
    Some(if has_ticket { Act::Enter(Stage::Done { health: Health::Left }) } else { Act::Wait })
}

/// The first slot that is free.
fn free_row(board: &View) -> Option<u32> {
    let is_free = |row: &Vec<Ticket>| row.iter().all(|ticket| board.has_finished(*ticket));
    board.rows.iter().position(is_free).and_then(|row| u32::try_from(row).ok())
}

/// What a node knows that reads one slot alone, and what was decided.
fn row_of(board: &View, node: &View, row: u32) -> View {
    let mut view = View { row, is_whole: board.rows.len() == 1, ..node.clone() };
    let tickets = &board.rows[row as usize];
    view.rows[row as usize].clone_from(tickets);
    for ticket in tickets {
        let Some(member) = board.members.get(ticket.owner) else { continue };
        view.members[ticket.owner].report = member.report;
        view.members[ticket.owner].returned = member.returned;
    }
    (view.wave, view.halt, view.end) = (board.wave, board.halt, board.end);
    view
}

fn forget_refusals(view: &mut View) {
    view.members.iter_mut().for_each(|member| member.refused = false);
}

fn finish(node: &mut Node, health: Health) {
    node.is_out = false;
    if matches!(node.stage, Stage::Returning { .. }) {
        node.runs_new = false;
        node.stage = Stage::Returned { health: Health::Good };
    } else {
        node.runs_new = health == Health::Good;
        node.stage = Stage::Done { health };
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let rows = if self.slots { self.limits.at_once as usize } else { 1 };
        let board = untouched(self.nodes, self.waves, rows);
        let node = |me| Node {
            stage: Stage::Waiting,
            view: view_of(&board, me),
            is_out: false,
            runs_new: false,
            is_dead: false,
            bans: false,
        };
        let nodes = (0..self.nodes).map(node).collect();
        let (crashes, deaths, halts, mishap) = (self.crashes, self.deaths, self.halts, self.mishap);
        vec![World { board, nodes, crashes, deaths, halts, mishap }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        if world.halts > 0 && !world.board.halt {
            events.push(Event::IsHalted);
        }
        if self.may_happen(world) {
            events.push(Event::Happens);
        }
        for (number, ticket) in world.board.rows[0].iter().enumerate() {
            if ticket.owner == self.nodes && !ticket.is_waived && self.flaw != Flaw::BadForEver {
                events.push(Event::IsTicketWaived(number));
            }
        }
        for (number, node) in world.nodes.iter().enumerate().filter(|(_, node)| !node.is_dead) {
            if node.is_out {
                for health in [Health::Good, Health::Failed] {
                    events.push(Event::Ends { node: number, health });
                }
            }
            for act in self.acts(node, world.is_early()) {
                if matches!(act, Act::Take { .. } | Act::Report(_) | Act::ReportReturn(_) | Act::Decide(_)) {
                    events.push(Event::DoesUnheard { node: number, act });
                }
                events.push(Event::Does { node: number, act });
            }
            if node.bans {
                events.push(Event::AllowsAgain(number));
            }
            let row = node.view.row;
            if (View { row, ..view_of(&world.board, node.view.me) }) != node.view {
                events.push(Event::Reads(number));
            }
            let rows = u32::try_from(world.board.rows.len()).unwrap();
            let looks_at = |row: u32| match node.stage {
                Stage::Taking(at) | Stage::Returning(at) => rows > 1 && at.row == row,
                Stage::Waiting | Stage::Done { .. } | Stage::Returned { .. } | Stage::Over => rows > 1,
            };
            let others =
                (0..rows).filter(|row| looks_at(*row) && row_of(&world.board, &node.view, *row) != node.view);
            events.extend(others.map(|row| Event::ReadsRow(number, row)));
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
            Event::IsHalted => {
                world.halts -= 1;
                world.board.halt = true;
            }
            Event::Happens => self.happen(&mut world),
            Event::IsTicketWaived(number) => world.board.rows[0][number].is_waived = true,
            Event::AllowsAgain(number) => world.nodes[number].bans = false,
            Event::Does { node, act } => self.perform(&mut world, node, act, true),
            Event::DoesUnheard { node, act } => self.perform(&mut world, node, act, false),
            Event::Reads(number) => {
                let View { me, row, .. } = world.nodes[number].view;
                world.nodes[number].view = View { row, ..view_of(&world.board, me) };
            }
            Event::ReadsRow(number, row) => {
                world.nodes[number].view = row_of(&world.board, &world.nodes[number].view, row);
            }
            Event::Crashes(number) => {
                world.crashes -= 1;
                let World { board, nodes, .. } = &mut world;
                let node = &mut nodes[number];
                // Everything that was read is forgotten; what is out of service stays so until it is gone on with.
                let rows = vec![Vec::new(); board.rows.len()];
                let forgotten =
                    View { rows, is_whole: false, wave: 0, halt: false, end: None, ..board.clone() };
                node.view = view_of(&forgotten, node.view.me);
                for member in &mut node.view.members {
                    member.report = None;
                    member.returned = None;
                }
                if self.flaw == Flaw::ForgetsOwnTicket {
                    node.stage = Stage::Waiting;
                }
            }
            Event::Dies(number) => {
                world.deaths -= 1;
                world.nodes[number].is_dead = true;
            }
            Event::Ends { node, health } => finish(&mut world.nodes[node], health),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most N are out of service", |fleet: &Fleet, world: &World| {
                let out = world.nodes.iter().filter(|node| node.is_out).count();
                out <= fleet.limits.at_once as usize
            }),
            Property::always("a node has one ticket", |_, world: &World| {
                let all = || world.board.tickets().map(|(_, ticket)| ticket);
                all().all(|ticket| all().filter(|other| *other == ticket).count() <= 1)
            }),
            Property::always(
                "what was kept is not undone, and what was halted is",
                |fleet: &Fleet, world: &World| {
                    let returns = world.nodes.iter().any(|node| {
                        matches!(node.stage, Stage::Returned { .. })
                            || (node.is_out && matches!(node.stage, Stage::Returning { .. }))
                    });
                    let is_undone = fleet.limits.undoes && world.board.is_settled(fleet.limits);
                    match world.board.end {
                        Some(End::Halted) if is_undone => !world.nodes.iter().any(|node| node.runs_new),
                        Some(End::Halted) => true,
                        Some(End::Keep | End::Partial | End::Void) | None => !returns,
                    }
                },
            ),
            Property::always("who bans a release does not run it", |_, world: &World| {
                !world.nodes.iter().any(|node| node.bans && node.is_out && node.stage != Stage::Waiting)
            }),
            Property::always("before the moment nobody is out of service", |_, world: &World| {
                !world.is_early() || !world.nodes.iter().any(|node| node.is_out)
            }),
            Property::always("few fail before it halts", |fleet: &Fleet, world: &World| {
                let failed =
                    world.nodes.iter().filter(|node| node.stage == Stage::Done { health: Health::Failed });
                failed.count() <= (fleet.limits.max_failed + fleet.limits.at_once - 1) as usize
            }),
            Property::always("a wave opens when the ones before are good", |_, world: &World| {
                let before = world.board.members.iter().filter(|member| member.wave < world.board.wave);
                before.clone().count() == 0 || {
                    let mut before = before;
                    before.all(|member| member.report == Some(Health::Good))
                }
            }),
            Property::always("when faults end, it ends", |fleet: &Fleet, world: &World| {
                fleet.ends(world, true)
            }),
            Property::always("who cannot is not waited for", |fleet: &Fleet, world: &World| {
                !fleet.is_up_to_others(world) || fleet.ends(world, false)
            }),
            Property::sometimes("all are good", |_, world: &World| world.board.end == Some(End::Keep)),
            Property::sometimes("it halts", |_, world: &World| world.board.halt),
            Property::sometimes(
                "where that is wanted, somebody goes back",
                |fleet: &Fleet, world: &World| {
                    !fleet.limits.undoes
                        || world.nodes.iter().any(|node| matches!(node.stage, Stage::Returned { .. }))
                },
            ),
        ]
    }
}

const ONE_AT_ONCE: Limits = Limits { at_once: 1, max_failed: 1, undoes: false };
const UNDONE: Limits = Limits { undoes: true, ..ONE_AT_ONCE };
const SOUND: Fleet = Fleet {
    nodes: 2,
    limits: ONE_AT_ONCE,
    waves: false,
    slots: false,
    crashes: 1,
    deaths: 0,
    halts: 0,
    flaw: Flaw::None,
    mishap: Mishap::Nothing,
};

/// Everything that may happen beside, the flaw that makes it a mistake, and what it violates then.
const MISHAPS: [(Mishap, Flaw, Limits, &str); 8] = [
    (Mishap::Rot, Flaw::BadForEver, ONE_AT_ONCE, "when faults end"),
    (Mishap::Void, Flaw::None, ONE_AT_ONCE, ""),
    (Mishap::Copy, Flaw::CopyTakesPart, ONE_AT_ONCE, "at most"),
    (Mishap::PutBack, Flaw::OwnReportIgnored, ONE_AT_ONCE, "at most"),
    (Mishap::Ban, Flaw::RefusalWaitedFor, ONE_AT_ONCE, "who cannot"),
    (Mishap::Ban, Flaw::BanIgnored, ONE_AT_ONCE, "who bans"),
    (Mishap::CopiedReport, Flaw::SignatureCopied, UNDONE, "what was kept"),
    (Mishap::MomentComes, Flaw::MomentIgnored, ONE_AT_ONCE, "before the moment"),
];

fn check(fleet: &Fleet) {
    let started = std::time::Instant::now();
    let checker = fleet.clone().checker().threads(2).spawn_bfs().join();
    eprintln!(
        "{} nodes, {} at once, undone when halted: {}, {} crashes, {} deaths: {} states in {:.1} s",
        fleet.nodes,
        fleet.limits.at_once,
        fleet.limits.undoes,
        fleet.crashes,
        fleet.deaths,
        checker.unique_state_count(),
        started.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

#[test]
fn two_nodes_are_never_out_of_service_together() {
    check(&SOUND);
    check(&Fleet { waves: true, crashes: 0, deaths: 1, ..SOUND });
    check(&Fleet { limits: UNDONE, halts: 1, ..SOUND });
}

#[test]
fn of_two_slots_each_has_one_owner_out_of_service() {
    let limits = Limits { at_once: 2, max_failed: 2, undoes: false };
    check(&Fleet { limits, slots: true, ..SOUND });
}

#[test]
#[ignore = "minutes without optimisation: `make model`"]
fn model_rolling_has_at_most_so_many_out_of_service() {
    check(&Fleet { nodes: 3, ..SOUND });
    let limits = Limits { at_once: 2, ..ONE_AT_ONCE };
    check(&Fleet { nodes: 3, limits, crashes: 0, deaths: 1, ..SOUND });
    // Who reads one slot at a time knows many things: of three nodes more than fit into memory.
    check(&Fleet { limits, slots: true, deaths: 1, ..SOUND });
    check(&Fleet { limits: Limits { undoes: true, ..limits }, slots: true, crashes: 0, halts: 1, ..SOUND });
    check(&Fleet { nodes: 3, limits: UNDONE, crashes: 0, halts: 1, ..SOUND });
    check(&Fleet { nodes: 3, limits: UNDONE, ..SOUND });
}

#[test]
fn whatever_happens_beside_few_are_out_of_service() {
    for (mishap, _, limits, _) in MISHAPS {
        eprint!("{mishap:?}: ");
        check(&Fleet { mishap, limits, halts: u8::from(limits.undoes), crashes: 0, ..SOUND });
    }
}

#[test]
fn every_cure_of_what_happens_beside_is_missed_when_it_is_taken_out() {
    for (mishap, flaw, limits, property) in MISHAPS.into_iter().filter(|one| one.1 != Flaw::None) {
        let (nodes, halts) = if limits.undoes { (3, 1) } else { (2, 0) };
        let fleet = Fleet { mishap, flaw, limits, nodes, halts, crashes: 0, ..SOUND };
        is_found_out(&fleet, &[property]);
    }
}

fn is_found_out(fleet: &Fleet, properties: &[&str]) {
    let checker =
        fleet.clone().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let is_failure = |name: &&&str| properties.iter().any(|begin| name.starts_with(begin));
    let names: Vec<_> = found.keys().collect();
    assert!(found.keys().any(|name| is_failure(&name)), "{:?} was not found out, only {names:?}", fleet.flaw);
    eprintln!("{:?}: {names:?}", fleet.flaw);
}

#[test]
fn every_flaw_of_a_rolling_rollout_is_found_out() {
    for (flaw, limits) in [
        (Flaw::ChecksThenTakes, ONE_AT_ONCE),
        (Flaw::TakesOverAfterTime, ONE_AT_ONCE),
        (Flaw::ForgetsOwnTicket, ONE_AT_ONCE),
        (Flaw::UndoesOnHalt, Limits { max_failed: 2, ..UNDONE }),
        (Flaw::ReturnsWithoutTicket, Limits { max_failed: 1, ..UNDONE }),
        (Flaw::LastOwnerLeftOut, ONE_AT_ONCE),
        (Flaw::PlaceTooMany, ONE_AT_ONCE),
    ] {
        let nodes = if limits.undoes { 3 } else { 2 };
        let halts = u8::from(limits.undoes);
        let slots = matches!(flaw, Flaw::LastOwnerLeftOut | Flaw::PlaceTooMany);
        let fleet = Fleet { flaw, limits, slots, nodes, halts, crashes: u8::from(!limits.undoes), ..SOUND };
        is_found_out(&fleet, &["at most", "a node has", "what was kept"]);
    }
}
