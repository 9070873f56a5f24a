//! Every order in which a synchronous rollout of regions can happen, as `docs/decisions/0021` has it: boards of regions below a
//! top board, with bridges between them. Nothing of it is built, so the rules stand here, and not in the program.
//!
//! Every fact is created once, and bridges hold nothing: one that reads what is old, stops, or is one of two is a bridge that acts
//! later. So each act of a bridge is an event that may come at any time, or never. A [`Flaw`] changes one rule.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::model_cells::Gates;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// What holds for one member of a region goes up for all of them.
    UpTooEarly,
    /// A bridge that waited for too long decides on its own board.
    DecidesBelow,
    /// A member that has vouched goes back when its time is over.
    EndsAlone,
    /// A bridge whose region is good tells it to keep the release.
    KeepsBelow,
    /// The top's outcome can be written over.
    DecidesTwice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Idle,
    Voted,
    Armed,
    Switched,
    /// It has said that all is well, and waits for the outcome.
    Vouched,
    Kept,
    /// It runs the old release, again or still.
    Old,
}

/// What a member, or a region, says: yes once, or no once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Said {
    vote: Option<bool>,
    armed: Option<bool>,
    report: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Vote,
    Armed,
    Report,
}

impl Said {
    fn get(&mut self, what: What) -> &mut Option<bool> {
        match what {
            What::Vote => &mut self.vote,
            What::Armed => &mut self.armed,
            What::Report => &mut self.report,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Plan,
    Go,
    Outcome,
}

/// Decisions: of the top, or a region's copies of them.
impl Gates {
    fn get(&mut self, gate: Gate) -> &mut Option<bool> {
        match gate {
            Gate::Plan => &mut self.plan,
            Gate::Go => &mut self.go,
            Gate::Outcome => &mut self.outcome,
        }
    }
}

const GATES: [(Gate, What); 3] =
    [(Gate::Plan, What::Vote), (Gate::Go, What::Armed), (Gate::Outcome, What::Report)];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Region {
    stages: Vec<Stage>,
    /// What its members have said, on its board.
    said: Vec<Said>,
    /// The copies on its board.
    copies: Gates,
    /// What was said of it on the top.
    up: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    regions: Vec<Region>,
    top: Gates,
    /// How often the board of a region may yet lose all that it has.
    losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A member takes its next step, by what its own board shows.
    Steps {
        region: usize,
        member: usize,
    },
    /// It gives up before it has vouched, and its word is written or not.
    Leaves {
        region: usize,
        member: usize,
        is_told: bool,
    },
    /// It says once more what its board has lost.
    TellsAgain {
        region: usize,
        member: usize,
    },
    /// A bridge says on the top what holds for its region, or that its time is over.
    Up {
        region: usize,
        what: What,
        yes: bool,
    },
    Decides {
        gate: Gate,
        yes: bool,
    },
    /// A bridge copies a decision down, or makes one there.
    Down {
        region: usize,
        gate: Gate,
        yes: bool,
    },
    EndsAlone {
        region: usize,
        member: usize,
    },
    IsLost(usize),
}

#[derive(Clone)]
struct Regions {
    members: &'static [usize],
    losses: u8,
    flaw: Flaw,
}

impl Regions {
    /// What a member does next where nothing is wrong.
    fn next(region: &Region, member: usize) -> Option<Stage> {
        let Gates { plan, go, outcome } = region.copies;
        match (region.stages[member], plan, go, outcome) {
            (Stage::Idle, None, _, _) => Some(Stage::Voted),
            (Stage::Voted, Some(true), None, _) => Some(Stage::Armed),
            (Stage::Armed, _, Some(true), _) => Some(Stage::Switched),
            (Stage::Switched, _, _, None) => Some(Stage::Vouched),
            // A keep that comes before its own word is a contradiction, and not obeyed.
            (Stage::Vouched, _, _, Some(true)) => Some(Stage::Kept),
            (Stage::Idle | Stage::Voted, Some(false), _, _)
            | (Stage::Voted | Stage::Armed, _, Some(false), _)
            | (Stage::Switched | Stage::Vouched, _, _, Some(false)) => Some(Stage::Old),
            _ => None,
        }
    }

    /// Whether this holds for all members of a region, as its board shows them.
    fn holds(&self, region: &Region, what: What) -> bool {
        let mut said = region.said.iter().map(|said| *said.clone().get(what) == Some(true));
        if self.flaw == Flaw::UpTooEarly { said.any(|yes| yes) } else { said.all(|yes| yes) }
    }

    fn bridges(&self, world: &World, place: usize, events: &mut Vec<Event>) {
        let mut region = world.regions[place].clone();
        for (gate, what) in GATES {
            let holds = self.holds(&region, what);
            let there = *region.up.get(what);
            if there.is_none() {
                events.push(Event::Up { region: place, what, yes: false });
            }
            if holds && there.is_none() {
                events.push(Event::Up { region: place, what, yes: true });
            }
            let decided = *world.top.clone().get(gate);
            if region.copies.get(gate).is_none() {
                let own = match self.flaw {
                    Flaw::DecidesBelow if gate == Gate::Outcome => Some(false),
                    Flaw::KeepsBelow if gate == Gate::Outcome && holds => Some(true),
                    _ => None,
                };
                let found = decided.into_iter().chain(own);
                events.extend(found.map(|yes| Event::Down { region: place, gate, yes }));
            }
        }
    }

    /// Where nothing more goes wrong all members come to an end.
    fn ends(&self, world: &World) -> bool {
        let mut world = world.clone();
        loop {
            let mut events = Vec::new();
            self.actions(&world, &mut events);
            let is_fair = |event: &Event| match event {
                Event::Steps { .. }
                | Event::TellsAgain { .. }
                | Event::Up { .. }
                | Event::Decides { .. }
                | Event::Down { .. } => true,
                Event::Leaves { .. } | Event::EndsAlone { .. } | Event::IsLost(_) => false,
            };
            let Some(event) = events.into_iter().find(is_fair) else { break };
            let Some(next) = self.next_state(&world, event) else { break };
            world = next;
        }
        all(&world).iter().all(|stage| matches!(stage, Stage::Kept | Stage::Old))
    }
}

impl Model for Regions {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let region = |members: &usize| Region {
            stages: vec![Stage::Idle; *members],
            said: vec![Said::default(); *members],
            copies: Gates::default(),
            up: Said::default(),
        };
        let regions = self.members.iter().map(region).collect();
        vec![World { regions, top: Gates::default(), losses: self.losses }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (place, region) in world.regions.iter().enumerate() {
            for (member, stage) in region.stages.iter().copied().enumerate() {
                if Self::next(region, member).is_some() {
                    events.push(Event::Steps { region: place, member });
                }
                if matches!(stage, Stage::Idle | Stage::Voted | Stage::Armed | Stage::Switched) {
                    for is_told in [true, false] {
                        events.push(Event::Leaves { region: place, member, is_told });
                    }
                }
                if told(stage, region.said[member]) != region.said[member] {
                    events.push(Event::TellsAgain { region: place, member });
                }
                if self.flaw == Flaw::EndsAlone && stage == Stage::Vouched {
                    events.push(Event::EndsAlone { region: place, member });
                }
            }
            self.bridges(world, place, events);
            if world.losses > 0 {
                events.push(Event::IsLost(place));
            }
        }
        for (gate, what) in GATES {
            let is_asked = match gate {
                Gate::Plan => true,
                Gate::Go => world.top.plan == Some(true),
                Gate::Outcome => world.top.go == Some(true),
            };
            let decided = *world.top.clone().get(gate);
            let all_say_yes = world.regions.iter().all(|region| *region.up.clone().get(what) == Some(true));
            let is_again = self.flaw == Flaw::DecidesTwice && gate == Gate::Outcome && decided == Some(false);
            if is_asked && all_say_yes && (decided.is_none() || is_again) {
                events.push(Event::Decides { gate, yes: true });
            }
            if is_asked && decided.is_none() {
                events.push(Event::Decides { gate, yes: false });
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        match event {
            Event::Steps { region, member } => {
                let region = &mut world.regions[region];
                let stage = Self::next(region, member)?;
                region.stages[member] = stage;
                region.said[member] = told(stage, region.said[member]);
            }
            Event::Leaves { region, member, is_told } => {
                let region = &mut world.regions[region];
                let said = &mut region.said[member];
                if is_told {
                    for what in [What::Vote, What::Armed, What::Report] {
                        said.get(what).get_or_insert(false);
                    }
                }
                region.stages[member] = Stage::Old;
            }
            Event::TellsAgain { region, member } => {
                let region = &mut world.regions[region];
                region.said[member] = told(region.stages[member], region.said[member]);
            }
            Event::Up { region, what, yes } => *world.regions[region].up.get(what) = Some(yes),
            Event::Decides { gate, yes } => *world.top.get(gate) = Some(yes),
            Event::Down { region, gate, yes } => *world.regions[region].copies.get(gate) = Some(yes),
            Event::EndsAlone { region, member } => world.regions[region].stages[member] = Stage::Old,
            Event::IsLost(place) => {
                world.losses -= 1;
                let region = &mut world.regions[place];
                region.said = vec![Said::default(); region.said.len()];
                region.copies = Gates::default();
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody keeps what somebody has left", |_, world: &World| {
                let all = all(world);
                !(all.contains(&Stage::Kept) && all.contains(&Stage::Old))
            }),
            Property::always("two regions have no two outcomes", |_, world: &World| {
                let mut told = world.regions.iter().filter_map(|region| region.copies.outcome);
                let first = told.next();
                told.all(|outcome| Some(outcome) == first)
            }),
            Property::always("when faults end, it ends", |regions: &Regions, world: &World| {
                regions.ends(world)
            }),
            Property::sometimes("all keep it", |_, world: &World| {
                all(world).iter().all(|stage| *stage == Stage::Kept)
            }),
            Property::sometimes(
                "a region waits on the new release for what another one knows",
                |_, world: &World| {
                    world.regions[0].stages.iter().all(|stage| *stage == Stage::Vouched)
                        && world.regions[1].stages.iter().all(|stage| *stage == Stage::Kept)
                },
            ),
            Property::sometimes(
                "one region has switched, another has not, and all go back",
                |_, world: &World| {
                    world.top.outcome == Some(false)
                        && world.regions[0].stages.contains(&Stage::Switched)
                        && world.regions[1].stages.iter().all(|stage| *stage == Stage::Old)
                },
            ),
        ]
    }
}

fn all(world: &World) -> Vec<Stage> {
    world.regions.iter().flat_map(|region| region.stages.clone()).collect()
}

/// What a member in this stage has said, or says again where its board has lost it. What it has said otherwise stands.
fn told(stage: Stage, mut said: Said) -> Said {
    let yes: &[What] = match stage {
        Stage::Idle | Stage::Old => &[],
        Stage::Voted => &[What::Vote],
        Stage::Armed | Stage::Switched => &[What::Vote, What::Armed],
        Stage::Vouched | Stage::Kept => &[What::Vote, What::Armed, What::Report],
    };
    for what in yes {
        said.get(*what).get_or_insert(true);
    }
    said
}

const SOUND: Regions = Regions { members: &[2, 1], losses: 0, flaw: Flaw::None };

fn check(regions: &Regions) {
    let started = std::time::Instant::now();
    let checker = regions.clone().checker().threads(2).spawn_bfs().join();
    eprintln!(
        "regions of {:?} members, {} losses: {} states in {:.1} s",
        regions.members,
        regions.losses,
        checker.unique_state_count(),
        started.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

#[test]
fn two_regions_below_a_top_keep_a_release_or_leave_it_together() {
    check(&Regions { members: &[1, 1], ..SOUND });
    check(&Regions { members: &[1, 1], losses: 1, ..SOUND });
}

#[test]
#[ignore = "minutes without optimisation: `make model`"]
fn model_regions_agree_whatever_happens() {
    check(&SOUND);
    check(&Regions { losses: 1, ..SOUND });
    check(&Regions { members: &[1, 1, 1], ..SOUND });
}

#[test]
fn every_flaw_of_regions_is_found_out() {
    let property = "nobody keeps what somebody has left";
    for (flaw, members) in [
        (Flaw::UpTooEarly, &[2, 1]),
        (Flaw::DecidesBelow, &[1, 1]),
        (Flaw::EndsAlone, &[1, 1]),
        (Flaw::KeepsBelow, &[1, 1]),
        (Flaw::DecidesTwice, &[1, 1]),
    ] {
        let regions = Regions { flaw, members, ..SOUND };
        let wanted = HasDiscoveries::AnyOf(std::iter::once(property).collect());
        let checker = regions.checker().threads(2).finish_when(wanted).spawn_bfs().join();
        let found = checker.discoveries();
        let names: Vec<_> = found.keys().collect();
        assert!(found.contains_key(property), "{flaw:?} was not found out: {names:?}");
        eprintln!("{flaw:?}: {names:?}");
    }
}
