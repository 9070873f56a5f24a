//! Every order in which a synchronous rollout can happen, over the same rules that the program runs.
//!
//! Nodes crash, read what is old, lose replies, have any clock at every step, fail, are sent back by hand, and are
//! waived. A [`Flaw`] changes what the world around the rules does, never the rules: each must be found out.

use cutover::coord::rules::synchronous::{
    Act, Decision, Go, Local, Outcome, Plan, Promise, Stage, Telling, View, act,
};
use cutover::coord::rules::{Checks, Health, Ms, Times};
use stateright::{Checker, Model, Property};

/// The instant of the switch; the same whoever decides, since clocks are arbitrary anyway.
pub const AT: Ms = 1000;
const VOTE_BY: Ms = 100;
pub const TIMES: Times = Times {
    vote: 100,
    lead: 500,
    late: 10,
    stop: 0,
    trial: 100,
    settle: 10,
    back: 5,
    poll: 5,
    visibility: 5,
};

/// A mistake in what stands around the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A gate is written by rename: the last one wins.
    GatesOverwritten,
    /// A gate is read while it is being written, and taken for its negative.
    GateHalfRead,
    /// The plan is taken for the go.
    NoGoGate,
    /// A node leaves although it has vouched.
    LeavesAfterVouching,
    /// Storage is told before the journal.
    TellsBeforeJournal,
    /// A node keeps the release because it is healthy itself.
    NoOutcomeGate,
    /// Two of three are all.
    KeepsByMajority,
    /// The pointer is not on the disk when the node vouches.
    NoSyncBeforeVouching,
    /// Facts of an earlier rollout stand under the same names.
    NamesUsedAgain,
    /// A plan is waited for however far ahead its instant lies.
    FarInstantObeyed,
    /// The facts are removed, and no mark says how it had ended.
    RemovedWithoutMark,
    /// A copy of a node takes part beside it.
    CopyTakesPart,
    /// A gate says nothing for ever, and nobody can end the rollout.
    BadForEver,
    /// All go back when the operator's clock says so, however far ahead.
    FarReturnObeyed,
    /// A hold or a ban after the vote is not looked at.
    HoldIgnored,
    /// Storage that went back in time is taken for a rollout that has just begun.
    RestoreUnnoticed,
    /// The machine that a freed name was given to goes on with the rollout of the one before.
    SuccessorTakesPart,
    /// A report that was refused counts as never told, although an earlier try got no answer.
    RefusedAfterSilence,
    /// The same, although a process before this one may have told it.
    RefusedAfterCrash,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    /// What it believes: the same as `written`, unless there is a flaw.
    stage: Stage,
    written: Stage,
    /// What it has read; absent: whatever is on the board.
    view: Option<View>,
    runs_new: bool,
    promise: Promise,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    board: View,
    nodes: Vec<Node>,
    crashes: u8,
    waivers: u8,
    /// How often a node may fall behind, where reads are fresh otherwise.
    lags: u8,
    /// What else may happen, once.
    mishap: Mishap,
    /// The facts were removed; what the mark says that stands for them.
    gone: Option<(Option<Plan>, Option<Go>, Option<Outcome>)>,
    /// This gate says nothing, and stays so.
    rotten: Option<Gate>,
    /// An operator has ended it, whatever stands there.
    is_void: bool,
    /// Node 0 is on hold, or has banned the release.
    is_held: bool,
    /// Node 0 is no longer who goes by its name.
    is_replaced: bool,
    /// What was lost when storage went back to before the proposal.
    lost: Option<View>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Gate {
    Plan,
    Go,
    Outcome,
}

/// What may happen beside crashes, lags and waivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mishap {
    Nothing,
    /// Somebody whose clock is far ahead puts the plan.
    FarPlan,
    /// The facts are removed, when the outcome is known and whoever has not closed is waived.
    Removal,
    /// A copy of node 0 is begun.
    Copy,
    /// A gate is damaged.
    Rot(Gate),
    /// Node 0 says no, whatever it has said before.
    Refusal,
    /// An operator stops it, by a clock that is far ahead.
    Abort,
    /// An operator ends it, whatever stands there.
    Void,
    /// Node 0 is put on hold, or bans the release.
    Hold,
    /// Storage is restored from a backup that does not have the rollout; later all nodes put back what they know.
    Restore,
    /// The name of node 0 is freed, and another machine takes it.
    Replacement,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Event {
    Happens(Mishap),
    IsVoided,
    IsRepaired,
    Does {
        node: usize,
        act: Act,
    },
    /// Does it, and never learns that it did.
    DoesUnheard {
        node: usize,
        act: Act,
    },
    /// Storage that can be read takes nothing of this node's good report.
    IsRefused(usize),
    ReadsAll(usize),
    ReadsHalf(usize),
    FallsBehind(usize),
    CatchesUp(usize),
    Crashes(usize),
    IsSentBack(usize),
    IsWaived(usize),
}

#[derive(Clone)]
struct Fleet {
    nodes: usize,
    crashes: u8,
    waivers: u8,
    /// Absent: every node may read anything old at any time.
    lags: Option<u8>,
    flaw: Flaw,
    mishap: Mishap,
}

/// An instant that no rollout allows.
const FAR: Ms = 1_000_000;

/// One moment of each kind that the rules tell apart.
const MOMENTS: [Ms; 7] = [0, 500, 999, 1011, 1026, 1116, 1200];

impl Fleet {
    /// What the rules are shown: the view, or what a flaw makes of it.
    fn shown(&self, world: &World, number: usize, checks: Checks) -> View {
        let mut view = view_of(world, number);
        match self.flaw {
            Flaw::NoGoGate if matches!(world.nodes[number].stage, Stage::Arming { .. }) => {
                view.go = Some(Go::Go);
                view.members[number].armed = true;
            }
            Flaw::NoOutcomeGate
                if checks == Checks::Good && matches!(world.nodes[number].stage, Stage::Vouching { .. }) =>
            {
                view.outcome = Some(Outcome::Keep);
            }
            Flaw::KeepsByMajority => {
                let good = view.members.iter().filter(|m| m.report == Some(Health::Good)).count();
                if good * 2 > view.members.len() {
                    for member in &mut view.members {
                        member.waived |= member.report.is_none();
                    }
                }
            }
            _ => {}
        }
        view
    }

    fn acts(&self, world: &World, number: usize) -> Vec<Act> {
        let mut acts = Vec::new();
        let stage = world.nodes[number].stage;
        // A copy runs in another place, and storage says so. So it does of who had a name before.
        if number >= self.nodes && !self.strangers_take_part()
            || number == 0 && world.is_replaced && is_free(stage)
        {
            return acts;
        }
        // Before each promise a node looks what keeps it from the next one.
        if number == 0 && world.is_held && is_free(stage) && self.flaw != Flaw::HoldIgnored {
            return vec![Act::Enter(Stage::Left)];
        }
        for now in MOMENTS {
            for checks in [Checks::Watching, Checks::Good, Checks::Failed] {
                for (clock_is_good, has_storage) in [(true, true), (false, true), (true, false)] {
                    let can_write = has_storage || checks != Checks::Watching;
                    let promise = world.nodes[number].promise;
                    let local = Local {
                        promise,
                        ..self.local_of(now, clock_is_good, has_storage, can_write, checks)
                    };
                    let view = self.shown(world, number, checks);
                    let act = normal(act(stage, &view, local, &TIMES));
                    if act != Act::Wait && !acts.contains(&act) {
                        acts.push(act);
                    }
                }
            }
        }
        acts
    }

    fn local_of(
        &self,
        now: Ms,
        clock_is_good: bool,
        has_storage: bool,
        can_write: bool,
        checks: Checks,
    ) -> Local {
        // Clocks are arbitrary here: what tells a far instant from a near one is only how far.
        let plan_by = if self.flaw == Flaw::FarInstantObeyed { Ms::MAX } else { FAR - 1 };
        Local {
            now,
            vote_by: VOTE_BY,
            plan_by,
            clock_is_good,
            has_storage,
            can_write,
            promise: Promise::MaybeTold,
            checks,
        }
    }

    fn perform(&self, world: &mut World, number: usize, act: Act, is_heard: bool) {
        let me = member_of(world, number);
        let node = &mut world.nodes[number];
        match act {
            Act::Wait => {}
            Act::Enter(stage) => {
                let vouches = matches!(stage, Stage::Vouching { .. });
                node.promise = if vouches { Promise::Untold } else { Promise::MaybeTold };
                node.stage = stage;
                if self.flaw != Flaw::TellsBeforeJournal || stage.is_final() {
                    node.written = stage;
                }
            }
            Act::Switch { at } => {
                node.runs_new = true;
                enter(node, Stage::Switched { at });
            }
            Act::GoBack { at } if at >= FAR && self.flaw == Flaw::FarReturnObeyed => {}
            Act::GoBack { .. } => {
                node.runs_new = false;
                enter(node, Stage::GoneBack);
            }
            Act::Leave => {
                node.runs_new = false;
                enter(node, Stage::Left);
            }
            // Where the facts were removed nothing can be made any more: their directory is gone.
            Act::Tell(_) | Act::Decide(_)
                if world.gone.is_some() && self.flaw != Flaw::RemovedWithoutMark => {}
            // So it is where storage went back to before the proposal; a node's own directory is still there.
            Act::Decide(_) if world.lost.is_some() && self.flaw != Flaw::RestoreUnnoticed => {}
            Act::Decide(decision) if world.rotten == Some(gate_of(decision)) => {}
            Act::Tell(telling) => {
                if self.flaw != Flaw::RefusedAfterSilence {
                    node.promise = Promise::MaybeTold;
                }
                tell(&mut world.board, me, telling);
                if let Some(view) = node.view.as_mut().filter(|_| is_heard) {
                    tell(view, me, telling);
                }
            }
            Act::Decide(decision) => {
                self.decide(&mut world.board, decision);
                if let Some(view) = node.view.as_mut().filter(|_| is_heard) {
                    match decision {
                        Decision::Plan(_) => view.plan = world.board.plan,
                        Decision::Go(_) => view.go = world.board.go,
                        Decision::Outcome(_) => view.outcome = world.board.outcome,
                    }
                }
            }
        }
    }

    fn decide(&self, board: &mut View, decision: Decision) {
        let again = self.flaw == Flaw::GatesOverwritten;
        match decision {
            Decision::Plan(plan) if again || board.plan.is_none() => board.plan = Some(plan),
            Decision::Go(go) if again || board.go.is_none() => board.go = Some(go),
            Decision::Outcome(outcome) if again || board.outcome.is_none() => board.outcome = Some(outcome),
            _ => {}
        }
    }

    /// Whether every one of `up` comes to an end when faults have ended and time goes by.
    fn ends(&self, world: &World, up: &[usize], checks: Checks) -> bool {
        let mut world = world.clone();
        // An operator comes in the end.
        world.is_void |= world.rotten.is_some() && self.flaw != Flaw::BadForEver;
        if world.lost.is_some() {
            repair(&mut world);
            forget_unanswered(&mut world);
        }
        for now in MOMENTS {
            for _ in 0..40 {
                let before = world.clone();
                for number in up.iter().copied() {
                    world.nodes[number].view = None;
                    let promise = world.nodes[number].promise;
                    let local = Local { promise, ..self.local_of(now, true, true, true, checks) };
                    let view = view_of(&world, number);
                    let stage = world.nodes[number].stage;
                    let act = if number == 0 && world.is_held && is_free(stage) {
                        Act::Enter(Stage::Left)
                    } else {
                        normal(act(stage, &view, local, &TIMES))
                    };
                    self.perform(&mut world, number, act, true);
                }
                if world == before {
                    break;
                }
            }
        }
        let is_away = |number: usize| number == 0 && world.is_replaced;
        up.iter().all(|number| is_away(*number) || world.nodes[*number].stage.is_final())
    }

    fn strangers_take_part(&self) -> bool {
        matches!(self.flaw, Flaw::CopyTakesPart | Flaw::SuccessorTakesPart)
    }
}

/// Whether nothing was promised that cannot be taken back.
fn is_free(stage: Stage) -> bool {
    matches!(stage, Stage::Idle | Stage::Voting | Stage::Arming { .. })
}

fn gate_of(decision: Decision) -> Gate {
    match decision {
        Decision::Plan(_) => Gate::Plan,
        Decision::Go(_) => Gate::Go,
        Decision::Outcome(_) => Gate::Outcome,
    }
}

/// What storage has lost is put back by those who have read it.
fn repair(world: &mut World) {
    let Some(lost) = world.lost.take() else { return };
    let told = std::mem::replace(&mut world.board, lost);
    for (member, told) in world.board.members.iter_mut().zip(told.members) {
        member.vote = member.vote.or(told.vote);
        member.report = member.report.or(told.report);
        member.armed |= told.armed;
        member.switched |= told.switched;
    }
}

/// A good report that got no answer nobody can put back, and its node has to tell it again, also beside a keep.
fn forget_unanswered(world: &mut World) {
    for (node, member) in world.nodes.iter().zip(&mut world.board.members) {
        if node.promise == Promise::MaybeTold {
            member.report = member.report.filter(|report| *report != Health::Good);
        }
    }
}

fn enter(node: &mut Node, stage: Stage) {
    node.stage = stage;
    node.written = stage;
}

/// Which member a node is: a copy goes by the name of the first.
fn member_of(world: &World, number: usize) -> usize {
    if number < world.board.members.len() { number } else { 0 }
}

/// Instants that are chosen by a clock are all the same here.
fn normal(act: Act) -> Act {
    match act {
        Act::Decide(Decision::Plan(Plan::Commit { .. })) => {
            Act::Decide(Decision::Plan(Plan::Commit { at: AT }))
        }
        Act::Decide(Decision::Outcome(Outcome::Rollback { .. })) => {
            Act::Decide(Decision::Outcome(Outcome::Rollback { at: 0 }))
        }
        Act::GoBack { at } if at < FAR => Act::GoBack { at: 0 },
        other => other,
    }
}

fn tell(view: &mut View, number: usize, telling: Telling) {
    let member = &mut view.members[number];
    match telling {
        Telling::Vote => member.vote = Some(true),
        Telling::Armed => member.armed = true,
        Telling::Switched => member.switched = true,
        // Made once: a second one changes nothing.
        Telling::Report(health) => member.report = member.report.or(Some(health)),
    }
}

fn view_of(world: &World, number: usize) -> View {
    let me = member_of(world, number);
    let mut view = View { me, ..world.nodes[number].view.as_ref().unwrap_or(&world.board).clone() };
    if let Some((plan, go, outcome)) = world.gone {
        (view.plan, view.go, view.outcome) = (view.plan.or(plan), view.go.or(go), view.outcome.or(outcome));
        if view.outcome == Some(Outcome::Keep) {
            view.members[me].report.get_or_insert(Health::Good);
        }
    }
    match world.rotten {
        Some(Gate::Plan) if world.nodes[number].stage == Stage::Voting => view.plan = None,
        Some(Gate::Go) if matches!(world.nodes[number].stage, Stage::Voting | Stage::Arming { .. }) => {
            view.go = None;
        }
        Some(Gate::Outcome) => view.outcome = None,
        _ => {}
    }
    if world.is_void {
        match (view.plan, view.go) {
            (None | Some(Plan::Abort), _) => view.plan = Some(Plan::Abort),
            (Some(Plan::Commit { .. }), None | Some(Go::Cancel)) => view.go = Some(Go::Cancel),
            (Some(Plan::Commit { .. }), Some(Go::Go)) => view.outcome = Some(Outcome::Rollback { at: 0 }),
        }
    }
    view
}

fn read_all(world: &mut World, number: usize) {
    world.nodes[number].view = Some(View { me: number, ..world.board.clone() });
}

/// Whether what may happen once may happen now.
fn may_happen(world: &World) -> bool {
    let board = &world.board;
    let is_known = board.plan == Some(Plan::Abort) || board.go == Some(Go::Cancel) || board.outcome.is_some();
    match world.mishap {
        Mishap::Nothing => false,
        Mishap::FarPlan => board.plan.is_none() && board.all(|member| member.vote == Some(true)),
        // Whoever has closed has nothing to learn; who has not is waived, or else it stays.
        Mishap::Removal => is_known,
        Mishap::Copy | Mishap::Abort | Mishap::Void | Mishap::Restore | Mishap::Replacement => true,
        Mishap::Rot(Gate::Plan) => board.plan.is_none(),
        Mishap::Rot(Gate::Go) => board.go.is_none(),
        Mishap::Rot(Gate::Outcome) => board.outcome.is_none(),
        Mishap::Refusal | Mishap::Hold => is_free(world.nodes[0].stage),
    }
}

impl Fleet {
    fn happen(&self, world: &mut World, mishap: Mishap) {
        world.mishap = Mishap::Nothing;
        match mishap {
            Mishap::Nothing => {}
            Mishap::FarPlan => world.board.plan = Some(Plan::Commit { at: FAR }),
            Mishap::Removal => {
                let (plan, go, outcome) = (world.board.plan, world.board.go, world.board.outcome);
                let waived: Vec<bool> = world.board.members.iter().map(|member| member.waived).collect();
                world.board = View::new(0, self.nodes);
                for (member, waived) in world.board.members.iter_mut().zip(waived) {
                    member.waived = waived;
                }
                let is_marked = self.flaw != Flaw::RemovedWithoutMark;
                world.gone = Some(if is_marked { (plan, go, outcome) } else { (None, None, None) });
            }
            Mishap::Copy => world.nodes.push(world.nodes[0].clone()),
            Mishap::Rot(gate) => world.rotten = Some(gate),
            Mishap::Refusal => {
                world.board.members[0].vote.get_or_insert(false);
                enter(&mut world.nodes[0], Stage::Left);
            }
            Mishap::Abort => match (world.board.plan, world.board.go) {
                (None, _) => world.board.plan = Some(Plan::Abort),
                (Some(Plan::Commit { .. }), None) => world.board.go = Some(Go::Cancel),
                (Some(Plan::Commit { .. }), Some(Go::Go)) => {
                    world.board.outcome.get_or_insert(Outcome::Rollback { at: FAR });
                }
                (Some(Plan::Abort), _) | (_, Some(Go::Cancel)) => {}
            },
            // What has ended stays as it ended.
            Mishap::Void => world.is_void = world.board.outcome.is_none(),
            Mishap::Hold => world.is_held = true,
            Mishap::Restore => {
                let before = std::mem::replace(&mut world.board, View::new(0, self.nodes));
                world.lost = Some(before);
                // Who begins anew has read nothing of it.
                for node in &mut world.nodes {
                    node.view = None;
                }
            }
            Mishap::Replacement => {
                world.is_replaced = true;
                let stage = Stage::Idle;
                world.nodes.push(Node {
                    stage,
                    written: stage,
                    view: None,
                    runs_new: false,
                    promise: Promise::MaybeTold,
                });
            }
        }
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut board = View::new(0, self.nodes);
        if self.flaw == Flaw::NamesUsedAgain {
            for member in &mut board.members {
                member.report = Some(Health::Good);
            }
        }
        let node = |me| Node {
            stage: Stage::Idle,
            written: Stage::Idle,
            view: self.lags.is_none().then(|| View::new(me, self.nodes)),
            runs_new: false,
            promise: Promise::MaybeTold,
        };
        let nodes = (0..self.nodes).map(node).collect();
        let (crashes, waivers, lags) = (self.crashes, self.waivers, self.lags.unwrap_or(0));
        vec![World {
            board,
            nodes,
            crashes,
            waivers,
            lags,
            mishap: self.mishap,
            gone: None,
            rotten: None,
            is_void: false,
            is_held: false,
            is_replaced: false,
            lost: None,
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        if may_happen(world) {
            events.push(Event::Happens(world.mishap));
        }
        if world.rotten.is_some() && !world.is_void && self.flaw != Flaw::BadForEver {
            events.push(Event::IsVoided);
        }
        if world.lost.is_some() && self.flaw != Flaw::RestoreUnnoticed {
            events.push(Event::IsRepaired);
        }
        let counted = if self.strangers_take_part() { world.nodes.len() } else { self.nodes };
        for (number, node) in world.nodes.iter().enumerate().take(counted) {
            let is_done = matches!(node.stage, Stage::Kept | Stage::GoneBack);
            for act in self.acts(world, number) {
                if node.view.is_some() && matches!(act, Act::Tell(_) | Act::Decide(_)) {
                    events.push(Event::DoesUnheard { node: number, act });
                }
                if act == Act::Tell(Telling::Report(Health::Good)) {
                    events.push(Event::IsRefused(number));
                }
                events.push(Event::Does { node: number, act });
            }
            let me = member_of(world, number);
            let is_behind = view_of(world, number) != (View { me, ..world.board.clone() });
            match (self.lags, &node.view) {
                (None, _) if is_behind && !is_done => events.push(Event::ReadsAll(number)),
                (Some(_), Some(_)) => events.push(Event::CatchesUp(number)),
                (Some(_), None) if world.lags > 0 && !is_done => events.push(Event::FallsBehind(number)),
                _ => {}
            }
            if self.flaw == Flaw::GateHalfRead && is_behind && world.board.outcome.is_some() {
                events.push(Event::ReadsHalf(number));
            }
            if world.crashes > 0 && !is_done {
                events.push(Event::Crashes(number));
            }
            if node.stage.may_leave() || (self.flaw == Flaw::LeavesAfterVouching && !node.stage.is_final()) {
                events.push(Event::IsSentBack(number));
            }
            let is_open = number < self.nodes && world.gone.is_none() && world.board.outcome.is_none();
            if world.waivers > 0 && is_open && !world.board.members[number].waived {
                events.push(Event::IsWaived(number));
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        match event {
            Event::Happens(mishap) => self.happen(&mut world, mishap),
            Event::IsVoided => world.is_void = true,
            Event::IsRepaired => repair(&mut world),
            Event::Does { node, act } => self.perform(&mut world, node, act, true),
            Event::DoesUnheard { node, act } => self.perform(&mut world, node, act, false),
            Event::IsRefused(number) => {
                let promise = &mut world.nodes[number].promise;
                if *promise != Promise::MaybeTold || self.flaw == Flaw::RefusedAfterCrash {
                    *promise = Promise::Refused;
                }
            }
            Event::ReadsAll(number) => read_all(&mut world, number),
            Event::ReadsHalf(number) => {
                read_all(&mut world, number);
                if let Some(view) = &mut world.nodes[number].view {
                    view.outcome = Some(Outcome::Rollback { at: 0 });
                }
            }
            Event::FallsBehind(number) => {
                world.lags -= 1;
                read_all(&mut world, number);
            }
            Event::CatchesUp(number) => world.nodes[number].view = None,
            Event::Crashes(number) => {
                world.crashes -= 1;
                let node = &mut world.nodes[number];
                node.stage = node.written;
                node.promise = Promise::MaybeTold;
                node.view = self.lags.is_none().then(|| View::new(number, self.nodes));
                if self.flaw == Flaw::NoSyncBeforeVouching {
                    node.runs_new = false;
                }
            }
            Event::IsSentBack(number) => self.perform(&mut world, number, Act::Leave, true),
            Event::IsWaived(number) => {
                world.waivers -= 1;
                world.board.members[number].waived = true;
            }
        }
        // What those who are done have read changes nothing any more.
        for (number, node) in world.nodes.iter_mut().enumerate() {
            if matches!(node.stage, Stage::Kept | Stage::GoneBack) {
                node.view = self.lags.is_none().then(|| View::new(number, self.nodes));
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("S1 no two members end on different sides", |fleet: &Fleet, world: &World| {
                let counted = if fleet.strangers_take_part() { world.nodes.len() } else { fleet.nodes };
                let ends = |wanted: fn(&Stage) -> bool| {
                    let members = world.board.members.iter().chain(&world.board.members[..1]);
                    let counted = world.nodes[..counted].iter().zip(members);
                    counted.filter(|(_, member)| !member.waived).any(|(node, _)| wanted(&node.stage))
                };
                !(ends(|stage| *stage == Stage::Kept)
                    && ends(|stage| matches!(stage, Stage::Left | Stage::GoneBack)))
            }),
            Property::always("S2 nobody switches before all have voted and armed", |_, world: &World| {
                world.gone.is_some()
                    || world.lost.is_some()
                    || !world.nodes.iter().any(|node| node.runs_new)
                    || world.board.all(|member| member.vote == Some(true) && member.armed)
            }),
            Property::always("S3 called off means that nobody switched", |_, world: &World| {
                let is_off = world.board.plan == Some(Plan::Abort) || world.board.go == Some(Go::Cancel);
                !(is_off && world.nodes.iter().any(|node| node.runs_new))
            }),
            Property::always("S4 kept only when all reported good", |_, world: &World| {
                world.gone.is_some()
                    || world.lost.is_some()
                    || !world.nodes.iter().any(|node| node.stage == Stage::Kept)
                    || (world.board.outcome == Some(Outcome::Keep)
                        && world.board.all(|member| member.report == Some(Health::Good)))
            }),
            Property::always("S5 who vouched runs the new release", |_, world: &World| {
                world
                    .nodes
                    .iter()
                    .all(|node| node.runs_new || !matches!(node.stage, Stage::Vouching { .. } | Stage::Kept))
            }),
            Property::always("S6 who is on hold switches nothing", |_, world: &World| {
                !world.is_held || world.nodes[0].stage.is_final() || is_free(world.nodes[0].stage)
            }),
            Property::always("L1 when faults end, all come to an end", |fleet: &Fleet, world: &World| {
                // A copy has no part, and nobody waits for it.
                let all: Vec<usize> = (0..fleet.nodes).collect();
                [Checks::Good, Checks::Failed].iter().all(|checks| {
                    fleet.ends(world, &all, *checks)
                        && all.iter().all(|one| fleet.ends(world, &[*one], *checks))
                })
            }),
            Property::sometimes("all keep the new release", |_, world: &World| {
                world.nodes.iter().all(|node| node.stage == Stage::Kept)
            }),
            Property::sometimes("all go back together", |_, world: &World| {
                world.nodes.iter().all(|node| node.stage == Stage::GoneBack)
                    && matches!(world.board.outcome, Some(Outcome::Rollback { .. }))
            }),
        ]
    }
}

fn check(fleet: Fleet) {
    let started = std::time::Instant::now();
    let checker = fleet.clone().checker().threads(2).spawn_bfs().join();
    eprintln!(
        "{} nodes, {} crashes, {} waivers, {:?} lags: {} states in {:.1} s",
        fleet.nodes,
        fleet.crashes,
        fleet.waivers,
        fleet.lags,
        checker.unique_state_count(),
        started.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

const SOUND: Fleet =
    Fleet { nodes: 2, crashes: 0, waivers: 0, lags: None, flaw: Flaw::None, mishap: Mishap::Nothing };

/// Everything that may happen beside, and the flaw that makes it a mistake, with the property that finds it out.
const MISHAPS: [(Mishap, Flaw, &str); 12] = [
    (Mishap::FarPlan, Flaw::FarInstantObeyed, "L1"),
    (Mishap::Removal, Flaw::RemovedWithoutMark, ""),
    (Mishap::Copy, Flaw::CopyTakesPart, "S"),
    (Mishap::Rot(Gate::Plan), Flaw::BadForEver, "L1"),
    (Mishap::Rot(Gate::Outcome), Flaw::BadForEver, "L1"),
    (Mishap::Abort, Flaw::FarReturnObeyed, "L1"),
    (Mishap::Hold, Flaw::HoldIgnored, "S6"),
    (Mishap::Restore, Flaw::RestoreUnnoticed, ""),
    (Mishap::Replacement, Flaw::SuccessorTakesPart, "S"),
    // What the rules themselves answer.
    (Mishap::Rot(Gate::Go), Flaw::None, ""),
    (Mishap::Refusal, Flaw::None, ""),
    (Mishap::Void, Flaw::None, ""),
];

#[test]
fn two_nodes_agree_with_one_crash_and_one_lag() {
    check(Fleet { crashes: 1, lags: Some(1), ..SOUND });
}

#[test]
fn two_nodes_agree_where_one_is_waived_at_any_moment() {
    check(Fleet { waivers: 1, lags: Some(0), ..SOUND });
}

#[test]
#[ignore = "minutes without optimisation: `make model`"]
fn model_synchronous_agrees_whatever_happens() {
    check(Fleet { crashes: 2, ..SOUND });
    check(Fleet { waivers: 1, ..SOUND });
    check(Fleet { nodes: 3, lags: Some(0), ..SOUND });
    check(Fleet { nodes: 3, lags: Some(0), crashes: 1, waivers: 1, ..SOUND });
    check(Fleet { nodes: 3, lags: Some(1), crashes: 1, ..SOUND });
    for (mishap, _, _) in MISHAPS {
        eprint!("{mishap:?}: ");
        check(Fleet { nodes: 3, lags: Some(0), crashes: 1, mishap, ..SOUND });
    }
}

#[test]
fn whatever_happens_beside_two_nodes_agree() {
    for (mishap, _, _) in MISHAPS {
        eprint!("{mishap:?}: ");
        check(Fleet { lags: Some(0), mishap, ..SOUND });
    }
}

#[test]
fn every_cure_of_what_happens_beside_is_missed_when_it_is_taken_out() {
    for (mishap, flaw, property) in MISHAPS.into_iter().filter(|(_, flaw, _)| *flaw != Flaw::None) {
        is_found_out(&Fleet { crashes: 1, lags: Some(0), flaw, mishap, ..SOUND }, property);
    }
}

#[test]
fn every_flaw_of_a_synchronous_rollout_is_found_out() {
    let flaws = [
        (Flaw::GatesOverwritten, "S"),
        (Flaw::NoGoGate, "S2"),
        (Flaw::LeavesAfterVouching, "S1"),
        (Flaw::TellsBeforeJournal, "S1"),
        (Flaw::NoOutcomeGate, "S"),
        (Flaw::NoSyncBeforeVouching, "S5"),
        (Flaw::NamesUsedAgain, "S"),
        (Flaw::RefusedAfterSilence, "S1"),
        (Flaw::RefusedAfterCrash, "S1"),
    ];
    for (flaw, property) in flaws {
        is_found_out(&Fleet { crashes: 1, lags: Some(1), flaw, ..SOUND }, property);
    }
}

#[test]
#[ignore = "minutes without optimisation: `make model`"]
fn model_synchronous_finds_out_every_flaw() {
    is_found_out(&Fleet { flaw: Flaw::GateHalfRead, ..SOUND }, "S1");
    is_found_out(&Fleet { nodes: 3, lags: Some(0), flaw: Flaw::KeepsByMajority, ..SOUND }, "S");
}

fn is_found_out(fleet: &Fleet, property: &str) {
    let checker = fleet
        .clone()
        .checker()
        .threads(2)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let names: Vec<_> = found.keys().collect();
    let violated = found.iter().find(|(name, _)| name.starts_with(property));
    let (name, path) =
        violated.unwrap_or_else(|| panic!("{:?} was not found out, only {names:?}", fleet.flaw));
    eprintln!("{:?}: {name}, in {} steps", fleet.flaw, path.clone().into_actions().len());
}
