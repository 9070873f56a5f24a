//! A fleet's page from its facts. Reads the board and changes nothing; what cannot be read is left out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::fleet::{FleetNode, FleetReport, NodeInRollout, Rollout, Times};
use super::page::Tone;
use crate::coord::board::{Board, Listed, Read};
use crate::coord::facts::names::Decisions;
use crate::coord::facts::{self, Fact, GoDecision, OutcomeDecision, PlanDecision, Yes, names, seal};
use crate::coord::look::Look;
use crate::coord::name::NodeName;
use crate::coord::pages;
use crate::coord::rollout::in_full;
use crate::coord::rules::Health;
use crate::types::{Digest, Version};

/// So many of the newest rollouts are on the page, if nobody wants another number of them.
const ROLLOUTS_SHOWN: usize = 12;

/// The same, in a large fleet: of a rollout more only while fewer members were read.
const MEMBERS_SHOWN: usize = 10_000;

/// The facts of the page, of so many newest rollouts; an error text when the directory cannot be read at all.
pub fn gather(
    board: &mut dyn Board,
    rollouts_max: Option<usize>,
    now: Timestamp,
) -> Result<FleetReport, String> {
    let name = match read(board, names::FLEET) {
        Some(Fact::Fleet(fleet)) => fleet.fleet,
        _ => return Err("it holds no fleet".to_owned()),
    };
    let mut numbers: Vec<u64> = match board.list(names::ROLLOUTS) {
        Listed::Names(found) => found.iter().filter_map(|name| names::rollout_of(name)).collect(),
        Listed::Unreachable(why) => return Err(why),
    };
    numbers.sort_unstable();
    let (all, mut looked_at) = (numbers.len(), 0);
    let (mut gathered, mut read) = (Vec::<Gathered>::new(), 0);
    for (looked, number) in numbers.into_iter().rev().enumerate() {
        let is_enough = match rollouts_max {
            Some(most) => looked >= most,
            None => looked >= ROLLOUTS_SHOWN || read >= MEMBERS_SHOWN,
        };
        if is_enough {
            break;
        }
        looked_at += 1;
        if let Some(one) = rollout(board, number) {
            read += one.members.len();
            gathered.push(one);
        }
    }
    gathered.reverse();
    let skipped = all - looked_at;
    let mut runs: BTreeMap<NodeName, Option<Version>> =
        members(board).into_iter().map(|node| (node, None)).collect();
    for member in gathered.iter().rev().flat_map(|rollout| &rollout.members) {
        let known = runs.entry(member.name.clone()).or_default();
        *known = known.take().or_else(|| member.running.clone());
    }
    let nodes = runs
        .into_iter()
        .map(|(name, active)| FleetNode {
            name: name.to_string(),
            active: active.map(|version| version.to_string()),
        })
        .collect();
    let rollouts = gathered.drain(..).map(|rollout| rollout.shown).collect();
    Ok(FleetReport { name, nodes, rollouts, older: skipped, now })
}

fn read(board: &mut dyn Board, name: &str) -> Option<Fact> {
    let Read::Bytes(text) = board.read(name) else { return None };
    said(name, &text)
}

fn said(name: &str, text: &str) -> Option<Fact> {
    let opened = seal::open(name, text.as_bytes()).ok()?;
    Fact::parse(opened.line).ok()
}

/// Who is in the newest list that can be read.
fn members(board: &mut dyn Board) -> BTreeSet<NodeName> {
    let Listed::Names(lists) = board.list(names::MEMBERS) else { return BTreeSet::new() };
    for list in lists.iter().rev().filter_map(|name| name.parse::<u32>().ok()) {
        if let Some(Fact::Members(members)) = read(board, &names::members(list)) {
            let paged = pages::members(&members.pages.unwrap_or_default(), &mut |name| board.read(name));
            let paged = if let Look::Found(paged) = paged { paged } else { Vec::new() };
            return members.members.into_iter().chain(paged).map(|listed| listed.node).collect();
        }
    }
    BTreeSet::new()
}

struct Gathered {
    shown: Rollout,
    members: Vec<Member>,
}

struct Member {
    name: NodeName,
    running: Option<Version>,
}

/// What the gates of a rollout say.
struct Gates {
    plan: Option<facts::Plan>,
    go: Option<facts::Go>,
    outcome: Option<facts::Outcome>,
    is_halted: bool,
    is_void: bool,
}

impl Gates {
    /// Reads them: those of all, or of the cell whose name they end with.
    fn read(board: &mut dyn Board, decisions: Decisions, of: &str) -> Self {
        let mut gate = |what: &str| read(board, &decisions.gate(what));
        Self {
            plan: gate(&format!("plan{of}"))
                .and_then(|fact| if let Fact::Plan(plan) = fact { Some(plan) } else { None }),
            go: gate(&format!("go{of}"))
                .and_then(|fact| if let Fact::Go(go) = fact { Some(go) } else { None }),
            outcome: gate(&format!("outcome{of}"))
                .and_then(|fact| if let Fact::Outcome(outcome) = fact { Some(outcome) } else { None }),
            is_halted: gate("halt").is_some(),
            is_void: gate("void").is_some(),
        }
    }
}

fn rollout(board: &mut dyn Board, number: u64) -> Option<Gathered> {
    let Read::Bytes(text) = board.read(&names::proposal(number)) else { return None };
    let Some(Fact::Proposal(mut proposal)) = said(&names::proposal(number), &text) else { return None };
    if in_full(&mut proposal, &mut |name| board.read(name)) != Look::Found(()) {
        return None;
    }
    let decisions = Decisions { rollout: number, proposal: Digest::of(text.as_bytes()) };
    let gates = Gates::read(board, decisions, "");
    let cells: BTreeSet<_> = proposal.cells.values().collect();
    let of_cells: BTreeMap<_, _> =
        cells.into_iter().map(|cell| (cell, Gates::read(board, decisions, &format!(".{cell}")))).collect();
    let (state, tone) = stands(&gates);
    let mut nodes = Vec::new();
    let mut members = Vec::new();
    for (name, own) in proposal.members.iter().zip(own_facts(board, &proposal.members, decisions)) {
        let (state, tone) = own.state(&proposal.release.version);
        nodes.push(NodeInRollout {
            node: name.to_string(),
            state: state.to_owned(),
            tone,
            reason: own.reason(),
            times: own.times(proposal.cells.get(name).and_then(|cell| of_cells.get(cell)).unwrap_or(&gates)),
        });
        members.push(Member { name: name.clone(), running: own.running() });
    }
    let shown = Rollout {
        number,
        version: proposal.release.version.to_string(),
        state: state.to_owned(),
        tone,
        nodes,
    };
    Some(Gathered { shown, members })
}

fn stands(gates: &Gates) -> (&'static str, Tone) {
    let decision = gates.outcome.as_ref().map(|outcome| outcome.decision);
    match (decision, &gates.plan, &gates.go) {
        _ if gates.is_void => ("void", Tone::Warn),
        (Some(OutcomeDecision::Keep), _, _) => ("kept", Tone::Good),
        (Some(OutcomeDecision::Rollback), _, _) => ("rolled back", Tone::Warn),
        (Some(OutcomeDecision::Partial), _, _) => ("partial", Tone::Warn),
        (Some(OutcomeDecision::Halted), _, _) => ("halted", Tone::Bad),
        (None, Some(plan), _) if plan.decision == PlanDecision::Abort => ("aborted", Tone::Warn),
        (None, _, Some(go)) if go.decision == GoDecision::Cancel => ("cancelled", Tone::Warn),
        (None, _, _) if gates.is_halted => ("halted", Tone::Bad),
        (None, Some(_), Some(_)) => ("switching", Tone::Calm),
        (None, Some(_), None) => ("arming", Tone::Calm),
        (None, None, _) => ("open", Tone::Calm),
    }
}

/// What a node has said in a rollout.
struct Own {
    is_waived: bool,
    vote: Option<facts::Vote>,
    armed: Option<facts::Armed>,
    stopped: Option<facts::Step>,
    switched: Option<facts::Step>,
    report: Option<facts::Report>,
    closed: Option<facts::Closed>,
}

const OWN: [&str; 6] = ["vote", "armed", "stopped", "switched", "report", "closed"];

/// What each of these has said.
fn own_facts(board: &mut dyn Board, nodes: &[NodeName], decisions: Decisions) -> Vec<Own> {
    let of = |node| {
        let own = OWN.iter().map(move |what| names::own(node, decisions.rollout, what));
        std::iter::once(decisions.waive(node)).chain(own)
    };
    let asked: Vec<String> = nodes.iter().flat_map(of).collect();
    let nothing = || Own {
        is_waived: false,
        vote: None,
        armed: None,
        stopped: None,
        switched: None,
        report: None,
        closed: None,
    };
    let mut all: Vec<Own> = nodes.iter().map(|_| nothing()).collect();
    board.read_each(&asked, &mut |place, read| {
        let (own, what) = (&mut all[place / (OWN.len() + 1)], place % (OWN.len() + 1));
        let Read::Bytes(text) = read else { return };
        match said(&asked[place], &text) {
            Some(_) if what == 0 => own.is_waived = true,
            Some(Fact::Vote(vote)) => own.vote = Some(vote),
            Some(Fact::Armed(armed)) => own.armed = Some(armed),
            Some(Fact::Step(step)) if OWN[what - 1] == "stopped" => own.stopped = Some(step),
            Some(Fact::Step(step)) => own.switched = Some(step),
            Some(Fact::Report(report)) => own.report = Some(report),
            Some(Fact::Closed(closed)) => own.closed = Some(closed),
            _ => {}
        }
    });
    all
}

impl Own {
    fn state(&self, wanted: &Version) -> (&'static str, Tone) {
        let health = self.report.as_ref().map(|report| report.health);
        match (health, &self.closed) {
            (Some(Health::Failed), _) => return ("failed", Tone::Bad),
            (Some(Health::Broken), _) => return ("broken", Tone::Bad),
            (_, Some(closed)) if closed.by_hand => return ("by hand", Tone::Warn),
            (_, Some(closed)) if closed.running.as_ref() == Some(wanted) => return ("kept", Tone::Good),
            (Some(Health::Left), _) => return ("left", Tone::Warn),
            (Some(Health::Good), Some(_)) => return ("went back", Tone::Warn),
            (None, Some(_)) if self.switched.is_some() => return ("went back", Tone::Warn),
            (None, Some(_)) => return ("unchanged", Tone::Calm),
            (Some(Health::Good), None) => return ("healthy", Tone::Good),
            (None, None) => {}
        }
        let is_no = self.vote.as_ref().is_some_and(|vote| vote.vote == Yes::No);
        if self.is_waived {
            ("waived", Tone::Warn)
        } else if self.switched.is_some() {
            ("on trial", Tone::Calm)
        } else if self.stopped.is_some() {
            ("stopped", Tone::Calm)
        } else if self.armed.is_some() {
            ("armed", Tone::Calm)
        } else if is_no {
            ("voted no", Tone::Bad)
        } else if self.vote.is_some() {
            ("voted yes", Tone::Calm)
        } else {
            ("silent", Tone::Calm)
        }
    }

    fn reason(&self) -> Option<String> {
        let report = self.report.as_ref().and_then(|report| report.why.clone());
        report.or_else(|| self.vote.as_ref().and_then(|vote| vote.why.clone()))
    }

    fn running(&self) -> Option<Version> {
        let closed = self.closed.as_ref().and_then(|closed| closed.running.clone());
        closed.or_else(|| self.vote.as_ref().and_then(|vote| vote.running.clone()))
    }

    /// Without a fact of its own, a node that switched was told to stop at the instant of the plan.
    fn times(&self, gates: &Gates) -> Times {
        let noted = self.report.as_ref().map(|report| report.moments);
        let switched = self.switched.as_ref().map(|step| step.at).or(noted.and_then(|noted| noted.switched));
        let planned =
            gates.plan.as_ref().and_then(|plan| plan.at).filter(|at| switched.is_some_and(|s| *at <= s));
        Times {
            stopped: (self.switched.as_ref().and_then(|step| step.stopped))
                .or(noted.and_then(|noted| noted.stopped))
                .or(self.stopped.as_ref().map(|step| step.at))
                .or(planned),
            switched,
            healthy: self.report.as_ref().filter(|report| report.health == Health::Good).and_then(|it| it.at),
            restored: self.closed.as_ref().and_then(|closed| closed.back_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::coord::board::{ClockRead, Created, Done};
    use crate::types::Digest;

    /// A board in memory that is only read.
    struct Pinned(BTreeMap<String, String>);

    impl Pinned {
        fn pin(&mut self, name: &str, line: &str) {
            let file = String::from_utf8(seal::summed(name, line)).unwrap();
            self.0.insert(name.to_owned(), file);
        }
    }

    impl Board for Pinned {
        fn read(&mut self, name: &str) -> Read {
            self.0.get(name).map_or(Read::Absent, |text| Read::Bytes(text.clone()))
        }

        fn list(&mut self, name: &str) -> Listed {
            let inside = |full: &String| full.strip_prefix(name)?.strip_prefix('/').map(ToOwned::to_owned);
            Listed::Names(self.0.keys().filter_map(inside).filter(|rest| !rest.contains('/')).collect())
        }

        fn create(&mut self, _: &str, _: &str) -> Created {
            panic!("a report changes nothing")
        }

        fn prepare(&mut self, _: &str) -> Done {
            panic!("a report changes nothing")
        }

        fn beat(&mut self, _: &str, _: &str) -> Done {
            panic!("a report changes nothing")
        }

        fn clock(&mut self, _: &str) -> ClockRead {
            panic!("a report changes nothing")
        }

        fn remove(&mut self, _: &str) -> Done {
            panic!("a report changes nothing")
        }
    }

    fn board() -> Pinned {
        let digest = Digest::of(b"");
        let mut board = Pinned(BTreeMap::new());
        board.pin("FLEET", r#"{"format":2,"kind":"fleet","fleet":"shop-web","id":"x"}"#);
        board.pin(
            "members/000001",
            r#"{"format":2,"kind":"members","fleet":"x","list":1,"members":[{"node":"n1"},{"node":"n2"},{"node":"n3"}],"by":"anna"}"#,
        );
        let times = r#"{"vote":60,"lead":15,"late":10,"stop":0,"trial":60,"settle":10,"back":5,"poll":1,"visibility":2,"skew_ms":250}"#;
        board.pin(
            "rollouts/000001",
            &format!(
                r#"{{"format":2,"kind":"proposal","fleet":"x","rollout":1,"prev":null,"mode":"synchronous","release":{{"version":"1.1.0","digest":"{digest}"}},"members_list":1,"members":["n1","n2"],"created":"2026-11-23T04:00:00Z","expires":"2026-11-24T04:00:00Z","by":"anna","not_before":null,"overlap":"brief","t":{times}}}"#
            ),
        );
        let proposal = Digest::of(board.0["rollouts/000001"].as_bytes());
        let decisions = Decisions { rollout: 1, proposal };
        board.pin(
            &decisions.gate("plan"),
            &format!(r#"{{"format":2,"kind":"plan","rollout":1,"proposal":"{digest}","decision":"commit","at":"2026-11-23T04:12:30Z","by":"n2","why":""}}"#),
        );
        board.pin(
            &decisions.gate("outcome"),
            &format!(r#"{{"format":2,"kind":"outcome","rollout":1,"answers":"{digest}","decision":"rollback","at":null,"by":"n2","why":""}}"#),
        );
        for node in ["n1", "n2"] {
            let head = format!(r#""rollout":1,"node":"{node}","instance":"i""#);
            board.pin(
                &format!("nodes/{node}/000001.switched"),
                &format!(r#"{{"format":2,"kind":"step",{head},"plan":"{digest}","at":"2026-11-23T04:12:30.040Z","late_ms":40}}"#),
            );
            let health = if node == "n1" { "good" } else { "failed" };
            board.pin(
                &format!("nodes/{node}/000001.report"),
                &format!(r#"{{"format":2,"kind":"report",{head},"answers":"{digest}","health":"{health}","why":"because"}}"#),
            );
            board.pin(
                &format!("nodes/{node}/000001.closed"),
                &format!(r#"{{"format":2,"kind":"closed",{head},"proposal":"{digest}","running":"1.0.0"}}"#),
            );
        }
        board
    }

    #[test]
    fn a_fleet_is_read_from_its_facts() {
        let report = gather(&mut board(), None, Timestamp::UNIX_EPOCH).unwrap();
        let runs: Vec<_> =
            report.nodes.iter().map(|node| (node.name.as_str(), node.active.as_deref())).collect();
        assert_eq!(runs, [("n1", Some("1.0.0")), ("n2", Some("1.0.0")), ("n3", None)]);
        let [rollout] = &report.rollouts[..] else { panic!("{:?}", report.rollouts) };
        assert_eq!((rollout.state.as_str(), rollout.tone), ("rolled back", Tone::Warn));
        let states: Vec<&str> = rollout.nodes.iter().map(|node| node.state.as_str()).collect();
        assert_eq!(states, ["went back", "failed"]);
        assert_eq!(rollout.nodes[0].times.stopped, Some("2026-11-23T04:12:30Z".parse().unwrap()));
    }

    #[test]
    fn a_directory_without_a_fleet_is_named_as_such() {
        assert!(gather(&mut Pinned(BTreeMap::new()), None, Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_bad_fact_is_left_out() {
        let mut board = board();
        board.0.insert("nodes/n2/000001.report".to_owned(), "garbage".to_owned());
        let report = gather(&mut board, None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(report.rollouts[0].nodes[1].state, "went back");
    }
}
