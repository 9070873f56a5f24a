//! Every order in which a switch without overlap can happen, from the instant on: all stop, and then all start or nobody.
//!
//! As in `model_synchronous`, over the rules that the program runs: nodes read what is old, lose replies, crash, fail,
//! have any clock, and lose their storage. It begins when all hold the instant and "go" was decided.

use cutover::coord::rules::overlap::{MayStart, may_start, may_start_back};
use cutover::coord::rules::synchronous::{
    Act, Decision, Go, Local, Outcome, Plan, Promise, Stage, StartGate, Telling, View, act,
};
use cutover::coord::rules::{Checks, Ms};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::model_synchronous::{AT, TIMES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A node starts as soon as it has stopped itself.
    StartsAlone,
    /// The gate between stop and start is written by whoever comes last.
    GateOverwritten,
    /// A node says that it has stopped before it has.
    SaysStoppedTooEarly,
    /// The name is no part of what is signed: `stopped` can be copied to `cleared`.
    SignatureCopied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Serves {
    Old,
    Nothing,
    New,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    stage: Stage,
    serves: Serves,
    /// Stopped, and not yet started: on the way forward, or back.
    between: Option<bool>,
    view: View,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    board: View,
    nodes: Vec<Node>,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Follows(Act),
    Starts { answer: MayStart, is_back: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Event {
    Does { node: usize, step: Step, is_heard: bool },
    Reads(usize),
    Crashes(usize),
    IsCopied(usize),
}

#[derive(Clone)]
struct Fleet {
    nodes: usize,
    crashes: u8,
    /// Whether a node that goes back may lose its patience with the others.
    is_patient: bool,
    flaw: Flaw,
}

fn view_of(board: &View, me: usize) -> View {
    View { me, ..board.clone() }
}

impl Fleet {
    fn steps(&self, node: &Node) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut add = |step| {
            if !steps.contains(&step) {
                steps.push(step);
            }
        };
        for now in [0, 999, 1011, 1026, 1032, 1116, 1200] {
            for (has_storage, checks) in [
                (true, Checks::Watching),
                (true, Checks::Good),
                (true, Checks::Failed),
                (false, Checks::Watching),
            ] {
                let local = Local {
                    now,
                    vote_by: 100,
                    plan_by: Ms::MAX,
                    clock_is_good: true,
                    has_storage,
                    can_write: true,
                    promise: Promise::MaybeTold,
                    checks,
                };
                match node.between {
                    None => add(Step::Follows(normal(act(node.stage, &node.view, local, &TIMES)))),
                    Some(false) if self.flaw == Flaw::StartsAlone => {
                        add(Step::Starts { answer: MayStart::Now, is_back: false });
                    }
                    Some(false) => {
                        let answer = may_start(AT, &node.view, local, &TIMES);
                        add(Step::Starts { answer, is_back: false });
                    }
                    Some(true) => {
                        let now = if self.is_patient { 0 } else { now };
                        let answer = may_start_back(AT, &node.view, Local { now, ..local }, &TIMES);
                        add(Step::Starts { answer, is_back: true });
                    }
                }
            }
        }
        steps.retain(|step| {
            !matches!(step, Step::Follows(Act::Wait) | Step::Starts { answer: MayStart::Wait, .. })
        });
        steps
    }

    fn perform(&self, world: &mut World, number: usize, step: Step, is_heard: bool) {
        let World { board, nodes, .. } = world;
        let node = &mut nodes[number];
        match step {
            Step::Follows(act) => self.follow(board, node, number, act),
            Step::Starts { answer: MayStart::Now, is_back } => {
                node.between = None;
                node.serves = if is_back { Serves::Old } else { Serves::New };
                if !is_back {
                    node.stage = Stage::Switched { at: AT };
                }
            }
            Step::Starts { answer: MayStart::Back, .. } => go_back(node),
            Step::Starts { answer: MayStart::TellStopped, .. } => board.members[number].stopped = true,
            Step::Starts { answer: MayStart::TellCleared, .. } => board.members[number].cleared = true,
            Step::Starts { answer: MayStart::Decide(gate), .. } => {
                if board.start.is_none() || self.flaw == Flaw::GateOverwritten {
                    board.start = Some(gate);
                }
            }
            Step::Starts { answer: MayStart::Wait, .. } => {}
        }
        if is_heard {
            // What was made or decided is read back; the rest stays as old as it was.
            let (mine, seen) = (board.members[number], &mut node.view);
            seen.members[number] = mine;
            match step {
                Step::Starts { answer: MayStart::Decide(_), .. } => seen.start = board.start,
                Step::Follows(Act::Decide(_)) => seen.outcome = board.outcome,
                Step::Follows(_) | Step::Starts { .. } => {}
            }
        }
    }

    fn follow(&self, board: &mut View, node: &mut Node, number: usize, act: Act) {
        match act {
            Act::Wait => {}
            Act::Enter(stage) => node.stage = stage,
            Act::Switch { .. } => {
                if self.flaw == Flaw::SaysStoppedTooEarly {
                    board.members[number].stopped = true;
                } else {
                    node.serves = Serves::Nothing;
                }
                node.between = Some(false);
            }
            Act::GoBack { .. } | Act::Leave => go_back(node),
            Act::Tell(Telling::Switched) => board.members[number].switched = true,
            Act::Tell(Telling::Report(health)) => {
                board.members[number].report.get_or_insert(health);
            }
            Act::Tell(Telling::Vote | Telling::Armed) => {}
            Act::Decide(Decision::Outcome(outcome)) => {
                board.outcome.get_or_insert(outcome);
            }
            Act::Decide(Decision::Plan(_) | Decision::Go(_)) => {}
        }
    }

    /// Whether all come to an end when faults have ended and time goes by.
    fn ends(&self, world: &World, checks: Checks) -> bool {
        let mut world = world.clone();
        for now in [1011, 1026, 1032, 1116, 1200] {
            for _ in 0..60 {
                let before = world.clone();
                for number in 0..self.nodes {
                    world.nodes[number].view = view_of(&world.board, number);
                    let node = &world.nodes[number];
                    let local = Local {
                        now,
                        vote_by: 100,
                        plan_by: Ms::MAX,
                        clock_is_good: true,
                        has_storage: true,
                        can_write: true,
                        promise: Promise::MaybeTold,
                        checks,
                    };
                    let step = match node.between {
                        None => Step::Follows(normal(act(node.stage, &node.view, local, &TIMES))),
                        Some(false) => {
                            Step::Starts { answer: may_start(AT, &node.view, local, &TIMES), is_back: false }
                        }
                        Some(true) => Step::Starts {
                            answer: may_start_back(AT, &node.view, local, &TIMES),
                            is_back: true,
                        },
                    };
                    self.perform(&mut world, number, step, true);
                }
                if world == before {
                    break;
                }
            }
        }
        world.nodes.iter().all(|node| node.stage.is_final() && node.between.is_none())
    }
}

/// Stops what serves, and is on the way to the old release: as decided, or alone.
fn go_back(node: &mut Node) {
    let is_decided = matches!(node.view.outcome, Some(Outcome::Rollback { .. }));
    node.stage = if is_decided { Stage::GoneBack } else { Stage::Left };
    node.serves = Serves::Nothing;
    if is_decided {
        node.between = Some(true);
    } else {
        // Alone: going back waits for nobody.
        node.between = None;
        node.serves = Serves::Old;
    }
}

fn normal(act: Act) -> Act {
    match act {
        Act::Decide(Decision::Outcome(Outcome::Rollback { .. })) => {
            Act::Decide(Decision::Outcome(Outcome::Rollback { at: 0 }))
        }
        other => other,
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut board = View::new(0, self.nodes);
        board.plan = Some(Plan::Commit { at: AT });
        board.go = Some(Go::Go);
        for member in &mut board.members {
            (member.vote, member.armed) = (Some(true), true);
        }
        let node = |me| Node {
            stage: Stage::Arming { at: AT },
            serves: Serves::Old,
            between: None,
            view: view_of(&board, me),
        };
        let nodes = (0..self.nodes).map(node).collect();
        vec![World { board, nodes, crashes: self.crashes }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (number, node) in world.nodes.iter().enumerate() {
            for step in self.steps(node) {
                let is_told = matches!(
                    step,
                    Step::Follows(Act::Tell(_) | Act::Decide(_))
                        | Step::Starts {
                            answer: MayStart::TellStopped | MayStart::TellCleared | MayStart::Decide(_),
                            ..
                        }
                );
                if is_told {
                    events.push(Event::Does { node: number, step, is_heard: false });
                }
                events.push(Event::Does { node: number, step, is_heard: true });
            }
            if node.view != view_of(&world.board, number) {
                events.push(Event::Reads(number));
            }
            if world.crashes > 0 && !node.stage.is_final() {
                events.push(Event::Crashes(number));
            }
            let said = world.board.members[number];
            if self.flaw == Flaw::SignatureCopied && said.stopped && !said.cleared {
                events.push(Event::IsCopied(number));
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        match event {
            Event::Does { node, step, is_heard } => self.perform(&mut world, node, step, is_heard),
            Event::Reads(number) => world.nodes[number].view = view_of(&world.board, number),
            Event::IsCopied(number) => world.board.members[number].cleared = true,
            Event::Crashes(number) => {
                world.crashes -= 1;
                // What it had read of gates is written down; the facts of others are read anew.
                let mut view = View::new(number, self.nodes);
                let known = &world.nodes[number].view;
                (view.plan, view.go, view.start, view.outcome) =
                    (known.plan, known.go, known.start, known.outcome);
                world.nodes[number].view = view;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody starts before all have stopped", |_, world: &World| {
                let any_new = world.nodes.iter().any(|node| node.serves == Serves::New);
                let is_waiting = |node: &Node| matches!(node.stage, Stage::Arming { .. });
                !any_new || !world.nodes.iter().any(|node| is_waiting(node) && node.serves == Serves::Old)
            }),
            Property::always("the new release serves nowhere after \"back\"", |_, world: &World| {
                world.board.start != Some(StartGate::Back)
                    || !world.nodes.iter().any(|node| node.serves == Serves::New)
            }),
            Property::always(
                "who goes back with the others starts after all have stopped",
                |fleet, world| {
                    let fleet: &Fleet = fleet;
                    let world: &World = world;
                    let serves = |wanted| world.nodes.iter().any(|node| node.serves == wanted);
                    let is_back = world
                        .nodes
                        .iter()
                        .any(|node| node.stage == Stage::GoneBack && node.serves == Serves::Old);
                    !fleet.is_patient || !is_back || !serves(Serves::New)
                },
            ),
            Property::always("no two end on different sides", |_, world: &World| {
                let ends = |wanted: &[Stage]| world.nodes.iter().any(|node| wanted.contains(&node.stage));
                !(ends(&[Stage::Kept]) && ends(&[Stage::Left, Stage::GoneBack]))
            }),
            Property::always("when faults end, all come to an end", |fleet: &Fleet, world: &World| {
                [Checks::Good, Checks::Failed].iter().all(|checks| fleet.ends(world, *checks))
            }),
            Property::sometimes("all keep the new release", |_, world: &World| {
                world.nodes.iter().all(|node| node.stage == Stage::Kept && node.serves == Serves::New)
            }),
            Property::sometimes("all go back together", |_, world: &World| {
                world.nodes.iter().all(|node| node.stage == Stage::GoneBack && node.serves == Serves::Old)
            }),
        ]
    }
}

const SOUND: Fleet = Fleet { nodes: 2, crashes: 0, is_patient: true, flaw: Flaw::None };

fn check(fleet: &Fleet) {
    let started = std::time::Instant::now();
    let checker = fleet.clone().checker().threads(2).spawn_bfs().join();
    eprintln!(
        "without overlap: {} nodes, {} crashes, patient: {}: {} states in {:.1} s",
        fleet.nodes,
        fleet.crashes,
        fleet.is_patient,
        checker.unique_state_count(),
        started.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

#[test]
fn without_overlap_nobody_starts_before_all_have_stopped() {
    check(&SOUND);
}

#[test]
#[ignore = "minutes without optimisation: `make model`"]
fn model_overlap_holds_whatever_happens() {
    check(&Fleet { crashes: 2, ..SOUND });
    check(&Fleet { crashes: 1, is_patient: false, ..SOUND });
}

#[test]
fn every_flaw_of_a_switch_without_overlap_is_found_out() {
    for (flaw, property) in [
        (Flaw::StartsAlone, "nobody starts"),
        (Flaw::SaysStoppedTooEarly, "nobody starts"),
        (Flaw::GateOverwritten, "the new release serves nowhere"),
        (Flaw::SignatureCopied, "who goes back"),
    ] {
        let fleet = Fleet { flaw, ..SOUND };
        let checker = fleet.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checker.discoveries();
        assert!(
            found.keys().any(|name| name.starts_with(property)),
            "{flaw:?} was not found out, only {:?}",
            found.keys()
        );
    }
}
