//! Fleets whose list of members has pages: two real nodes, and thousands that have only joined.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::coord::NodeName;
use cutover::coord::alive::Alive;
use cutover::coord::board::directory::DirectoryBoard;
use cutover::coord::board::{Board, ClockRead, Created, Done, Listed, Read};
use cutover::coord::facts::{self, FACT_BYTES_MAX, Fact, Moments, Proposal, names, seal};
use cutover::coord::look::{Look, Trust, looked, seal_summed};
use cutover::coord::rollout::look_rollout;
use cutover::coord::rules::Health;
use cutover::coord::synchronous::{Synchronous, What};
use cutover::coord::voice::Voice;
use cutover::lifecycle::fleet::{FleetKeys, Kept, Member};
use cutover::sys::clock::SystemClock;
use cutover::sys::disk::Disk;
use cutover::types::Digest;
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet_tools::{code, told};

/// With the real nodes `n0` and `n1`.
const THOUSANDS: usize = 1700;

/// The longest names that a node can have.
fn name(number: usize) -> NodeName {
    format!("edge-{number:05}.{}", "x".repeat(52)).parse().unwrap()
}

fn put(fleet: &Fleet, name: &str, fact: &Fact) -> String {
    let text = seal_summed(name, fact);
    std::fs::write(fleet.share().join(name), &text).unwrap();
    text
}

/// Two nodes, and so many more that have joined and been heard of; not yet listed.
fn joined(size: usize, mode: &str) -> Fleet {
    let fleet = Fleet::new(2, mode, "");
    for number in 2..size {
        let node = name(number);
        std::fs::create_dir(fleet.share().join(names::node(&node))).unwrap();
        let id = facts::Id {
            node: node.clone(),
            machine: "m".into(),
            instance: format!("{number:032}"),
            groups: vec![format!("site-{}", number % 40)],
            key: Some(format!("ssh-ed25519 {}", "A".repeat(68))),
        };
        put(&fleet, &names::id(&node, 0), &Fact::Id(id));
        beat(&fleet, &node, Alive { running: Some("1".parse().unwrap()), ..Alive::at(Timestamp::now()) });
    }
    fleet
}

fn beat(fleet: &Fleet, node: &NodeName, alive: Alive) {
    std::fs::write(fleet.share().join(names::alive(node)), alive.text()).unwrap();
}

fn done(output: Output) -> Output {
    assert_eq!(code(&output), 0, "{output:?}");
    output
}

fn json(fleet: &Fleet, words: &[&str]) -> Value {
    let output = done(fleet.run(0, &[words, &["--json"]].concat()));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn pages(fleet: &Fleet) -> Vec<std::path::PathBuf> {
    let found =
        std::fs::read_dir(fleet.share().join(names::MEMBERS)).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| names::is_page(path.file_name().unwrap().to_str().unwrap())).collect()
}

#[test]
fn a_list_that_does_not_fit_has_pages_where_all_can_read_them() {
    let fleet = joined(THOUSANDS, "synchronous");
    let old = name(77);
    let knows = vec!["cells".into(), "slots".into()];
    beat(&fleet, &old, Alive { knows, ..Alive::at(Timestamp::now()) });
    let refused = fleet.run(0, &["fleet", "members", "--all"]);
    assert!(code(&refused) != 0 && told(&refused).contains(old.as_str()), "{}", told(&refused));
    assert!(pages(&fleet).is_empty() && !fleet.share().join("members/000002").exists());

    beat(&fleet, &old, Alive::at(Timestamp::now()));
    let listed = done(fleet.run(0, &["fleet", "members", "--all"]));
    assert!(told(&listed).lines().count() < 40, "{}", told(&listed));
    assert!(told(&listed).contains("edge-00002") && told(&listed).contains("1698"), "{}", told(&listed));
    assert_eq!(json(&fleet, &["fleet", "members"])["members"].as_array().unwrap().len(), THOUSANDS);
    // One more is a page or two more.
    let before = pages(&fleet).len();
    done(fleet.run(0, &["fleet", "members", "--remove", name(1500).as_str()]));
    assert!((1..=2).contains(&(pages(&fleet).len() - before)), "{before} {}", pages(&fleet).len());

    done(fleet.run(0, &["fleet", "propose", "2"]));
    let proposal = fleet.share().join(names::proposal(1));
    assert!(length(&proposal) < 16 << 10, "{}", length(&proposal));
    let status = json(&fleet, &["fleet", "status"]);
    assert_eq!(status["members"].as_array().unwrap().len(), THOUSANDS - 1);
    // Each of the two has a part, and keeps the pages: it votes when it has read them.
    for node in 0..2 {
        let waits = fleet.run(node, &["update", "--no-wait"]);
        assert!(fleet.share().join(format!("nodes/n{node}/000001.vote")).exists(), "{waits:?}");
        assert!(fleet.root(node).join(".cutover/fleet-pages").read_dir().unwrap().count() > 0);
        assert!(length(&fleet.root(node).join(".cutover/fleet.json")) < 64 << 10);
    }
    let text = told(&done(fleet.run(0, &["fleet", "status", "--why"])));
    assert!(text.lines().count() < 40 && text.contains("1697"), "{text}");
}

#[test]
fn a_page_that_is_gone_is_named_and_put_back_by_who_has_read_it() {
    let fleet = joined(THOUSANDS, "synchronous");
    done(fleet.run(0, &["fleet", "members", "--all"]));
    done(fleet.run(0, &["fleet", "propose", "2"]));
    let _ = fleet.run(0, &["update", "--no-wait"]);
    fleet.stage(1, "3");
    let lost = pages(&fleet).remove(0);
    let text = std::fs::read(&lost).unwrap();
    let last = lost.file_name().unwrap().to_str().unwrap().to_owned();
    for torn in [None, Some("")] {
        match torn {
            None => std::fs::remove_file(&lost).unwrap(),
            Some(torn) => std::fs::write(&lost, torn).unwrap(),
        }
        let refused = fleet.run(1, &["fleet", "propose", "3", "--supersede"]);
        assert!(code(&refused) != 0 && told(&refused).contains(&last), "{refused:?}");
        let waits = fleet.run(1, &["update", "--no-wait"]);
        assert!(code(&waits) != 0 && !fleet.share().join("nodes/n1/000001.vote").exists(), "{waits:?}");
        let repaired = done(fleet.run(0, &["fleet", "repair"]));
        assert!(told(&repaired).contains(&last), "{repaired:?}");
        assert_eq!(std::fs::read(&lost).unwrap(), text);
    }
    let _ = fleet.run(1, &["update", "--no-wait"]);
    assert!(fleet.share().join("nodes/n1/000001.vote").exists());
}

#[test]
fn a_list_by_who_could_not_read_the_one_before_does_not_count() {
    let fleet = joined(THOUSANDS, "rolling");
    done(fleet.run(0, &["fleet", "members", "--all"]));
    let Look::Found(found) = looked("FLEET", read(&fleet.share().join("FLEET"))) else { panic!() };
    let Fact::Fleet(made) = found.fact else { panic!() };
    let one = facts::Listed {
        node: "n0".parse().unwrap(),
        instance: String::new(),
        groups: Vec::new(),
        cell: None,
        key: None,
    };
    let list = |list, pages| {
        let (fleet, members, by) = (made.id.clone(), vec![one.clone()], "an older cutover".into());
        Fact::Members(facts::Members { fleet, list, members, pages, by })
    };
    put(&fleet, &names::members(3), &list(3, None));
    assert_eq!(json(&fleet, &["fleet", "members"])["list"], 2);
    // Whoever could read it may have meant it.
    put(&fleet, &names::members(4), &list(4, Some(Vec::new())));
    assert_eq!(json(&fleet, &["fleet", "members"])["list"], 4);
    put(&fleet, &names::members(5), &list(5, None));
    assert_eq!(json(&fleet, &["fleet", "members"])["list"], 5);
    let added = done(fleet.run(0, &["fleet", "members", "--add", "n1"]));
    assert!(told(&added).contains("list 6"), "{added:?}");
    let six = std::fs::read_to_string(fleet.share().join(names::members(6))).unwrap();
    assert!(six.contains("\"pages\":[]"), "{six}");
}

fn read(path: &Path) -> Read {
    Read::Bytes(std::fs::read_to_string(path).unwrap())
}

/// A directory, and how often what was asked of it.
struct Counted(DirectoryBoard, Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Counted {
    fn count(&self, what: &'static str) {
        *self.1.lock().unwrap().entry(what).or_default() += 1;
    }
}

impl Board for Counted {
    fn read(&mut self, name: &str) -> Read {
        self.count("read");
        self.0.read(name)
    }

    fn read_some(&mut self, names: &[String], within: Duration) -> Vec<Read> {
        self.count("at once");
        let some = self.0.read_some(names, within);
        *self.1.lock().unwrap().entry("read").or_default() += some.len();
        some
    }

    fn list(&mut self, name: &str) -> Listed {
        self.count("list");
        self.0.list(name)
    }

    fn create(&mut self, name: &str, text: &str) -> Created {
        self.count("create");
        self.0.create(name, text)
    }

    fn prepare(&mut self, name: &str) -> Done {
        self.0.prepare(name)
    }

    fn beat(&mut self, name: &str, text: &str) -> Done {
        self.count("beat");
        self.0.beat(name, text)
    }

    fn clock(&mut self, name: &str) -> ClockRead {
        self.count("clock");
        self.0.clock(name)
    }

    fn remove(&mut self, name: &str) -> Done {
        self.0.remove(name)
    }
}

#[test]
fn facts_are_read_as_far_ahead_at_once_as_they_were_found() {
    const VOTED: usize = 1000;
    let fleet = joined(THOUSANDS, "synchronous");
    done(fleet.run(0, &["fleet", "members", "--all"]));
    done(fleet.run(0, &["fleet", "propose", "2"]));
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let mut board = Counted(DirectoryBoard::new(fleet.share(), "n0", Disk::default()), counts.clone());
    let keys = FleetKeys::load(&[], Path::new("/none")).unwrap();
    let trust = Trust { keys: &keys, allow_unsigned: true };
    let made = cutover::coord::operate::fleet(&mut board, "shop").unwrap();
    let Look::Found(rollout) = look_rollout(&mut board, 1, &made.id, trust) else { panic!() };
    let mut follow = Synchronous::new(rollout.clone(), usize::MAX, Voice { trust, signer: None });
    let mut scan = || {
        counts.lock().unwrap().clear();
        assert!(follow.scan(&mut board, What::Vote).is_yes());
        let counts = counts.lock().unwrap();
        (counts["at once"], counts["read"], follow.facts.len())
    };
    // The first is missing: nobody asks for the others.
    assert_eq!((scan().0, scan().2), (1, 0));
    for node in rollout.proposal.members.iter().take(VOTED) {
        let (proposal, node, instance) =
            (rollout.digest, node.clone(), rollout.proposal.instances[node].clone());
        let vote = facts::Vote {
            rollout: 1,
            proposal,
            node,
            instance,
            vote: facts::Yes::Yes,
            why: None,
            running: None,
            beside: None,
        };
        put(&fleet, &names::own(&vote.node, 1, "vote"), &Fact::Vote(vote.clone()));
    }
    let (at_once, read, found) = scan();
    assert_eq!(found, VOTED);
    assert!(at_once <= 12 && read <= VOTED + 260, "{at_once} times, {read} names");
    assert_eq!(scan().2, VOTED);
}

/// What a poll of the node asks of its storage.
fn poll(fleet: &Fleet) -> (BTreeMap<&'static str, usize>, Duration) {
    let path = fleet.root(1).join(".cutover/fleet.json");
    let kept = Kept::load(&Disk::default(), &path).unwrap().unwrap();
    let board = DirectoryBoard::new(fleet.share(), "n1", Disk::default());
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let keys = FleetKeys::load(&[], Path::new("/none")).unwrap();
    let settings = cutover::coord::Settings {
        name: "shop".into(),
        allow_unsigned: true,
        ..cutover::coord::Settings::default()
    };
    let board = Box::new(Counted(board, counts.clone()));
    let began = Instant::now();
    let mut member = Member::new(board, &SystemClock, &keys, None, &settings, kept);
    let taken = member.take_up(None).unwrap();
    let took = began.elapsed();
    assert!(!matches!(taken, cutover::lifecycle::fleet::Taken::Stranger(_)), "{taken:?}");
    drop(member);
    let counts = counts.lock().unwrap().clone();
    (counts, took)
}

/// The gates of a synchronous rollout that was kept; the digests of its proposal and its plan.
fn gates(fleet: &Fleet, at: Timestamp) -> (Digest, Digest) {
    let text = std::fs::read(fleet.share().join(names::proposal(1))).unwrap();
    let proposal = Digest::of(&text);
    let decisions = names::Decisions { rollout: 1, proposal };
    let plan = facts::Plan {
        rollout: 1,
        proposal,
        decision: facts::PlanDecision::Commit,
        at: Some(at),
        made: Some(at),
        by: "n0".into(),
        why: "all voted yes".into(),
        seen: facts::SeenFacts::new(),
    };
    let plan = Digest::of(put(fleet, &decisions.gate("plan"), &Fact::Plan(plan)).as_bytes());
    let (rollout, decision, seen) = (1, facts::GoDecision::Go, facts::SeenFacts::new());
    let go =
        facts::Go { rollout, plan, decision, made: Some(at), by: "n0".into(), why: "all armed".into(), seen };
    put(fleet, &decisions.gate("go"), &Fact::Go(go));
    let outcome = facts::Outcome {
        rollout,
        answers: plan,
        decision: facts::OutcomeDecision::Keep,
        at: None,
        made: Some(at),
        by: "n0".into(),
        why: "all are healthy".into(),
        seen: facts::SeenFacts::new(),
    };
    put(fleet, &decisions.gate("outcome"), &Fact::Outcome(outcome));
    (proposal, plan)
}

/// What all members say of it.
fn keep(fleet: &Fleet, members: &[(NodeName, String)]) {
    let (rollout, at) = (1, Timestamp::now());
    let (proposal, plan) = gates(fleet, at);
    for (node, instance) in members {
        let (node, instance, running) = (node.clone(), instance.clone(), Some("1".parse().unwrap()));
        let vote = facts::Yes::Yes;
        let vote = facts::Vote { rollout, proposal, node, instance, vote, why: None, running, beside: None };
        let (node, instance) = (vote.node.clone(), vote.instance.clone());
        let armed = facts::Armed { rollout, plan, node, instance, at, clock: None };
        let (node, instance) = (vote.node.clone(), vote.instance.clone());
        let (late_ms, stopped, started) = (0.4, Some(at), Some(at));
        let step = facts::Step { rollout, plan, node, instance, at, late_ms, stopped, started };
        let report = facts::Report {
            rollout,
            answers: plan,
            node: vote.node.clone(),
            instance: vote.instance.clone(),
            health: Health::Good,
            at: Some(at),
            moments: Moments::default(),
            why: None,
            cause: None,
            gap_ms: Some(40),
            took_ms: None,
        };
        let closed = facts::Closed {
            rollout,
            proposal,
            node: vote.node.clone(),
            instance: vote.instance.clone(),
            running: Some("2".parse().unwrap()),
            by_hand: false,
            back_at: None,
            downtime_ms: None,
        };
        let of = |what| names::own(&report.node, 1, what);
        put(fleet, &of("vote"), &Fact::Vote(vote));
        put(fleet, &of("armed"), &Fact::Armed(armed));
        put(fleet, &of("switched"), &Fact::Step(step));
        put(fleet, &of("closed"), &Fact::Closed(closed));
        let name = of("report");
        put(fleet, &name, &Fact::Report(report));
    }
}

/// What all programs that this one has started had of a processor.
fn cpu_ms() -> i64 {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    (used.user_time().num_microseconds() + used.system_time().num_microseconds()) / 1000
}

#[test]
#[ignore = "makes eighty thousand files, and measures: `make test-fleet`"]
fn fleet_growth_to_ten_thousand_members() {
    const SIZE: usize = 10_000;
    let fleet = joined(SIZE, "synchronous");
    let timed = |words: &[&str]| {
        let (began, before) = (Instant::now(), cpu_ms());
        let output = done(fleet.run(0, words));
        let lines = told(&output).lines().count();
        let (took, cpu) = (began.elapsed().as_millis(), cpu_ms() - before);
        eprintln!("{SIZE} members: `{}` {took} ms, of a processor {cpu} ms, {lines} lines", words.join(" "));
        output
    };
    timed(&["fleet", "members", "--all"]);
    let list = fleet.share().join(names::members(2));
    let bytes: u64 = pages(&fleet).iter().map(|page| length(page)).sum();
    eprintln!("the list: {} bytes, and {} pages of {bytes} bytes", length(&list), pages(&fleet).len());
    assert!(pages(&fleet).iter().all(|page| length(page) <= FACT_BYTES_MAX as u64));
    timed(&["fleet", "members"]);
    timed(&["fleet", "propose", "2"]);
    for what in ["first", "next"] {
        let (counts, took) = poll(&fleet);
        eprintln!("the {what} poll of a member: {counts:?}, {} ms here", took.as_millis());
        assert!(what == "first" || counts["read"] < 30, "{counts:?}");
    }
    timed(&["fleet", "status"]);
    let proposal = std::fs::read_to_string(fleet.share().join(names::proposal(1))).unwrap();
    let Ok(Fact::Proposal(proposal)) =
        Fact::parse(seal::open("rollouts/000001", proposal.as_bytes()).unwrap().line)
    else {
        panic!()
    };
    assert!(matches!(*proposal, Proposal { ref members, .. } if members.is_empty()));
    let listed = json(&fleet, &["fleet", "members"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members: Vec<(NodeName, String)> = listed["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["node"]).parse().unwrap(), text(&entry["instance"])))
        .collect();
    assert_eq!(members.len(), SIZE);
    keep(&fleet, &members);
    for words in [&["fleet", "status"][..], &["fleet", "status", "--why"], &["fleet", "report"]] {
        let output = timed(words);
        assert!(told(&output).lines().count() < 40 && told(&output).contains("10000"), "{}", told(&output));
    }
    let status: Value = serde_json::from_slice(&timed(&["fleet", "status", "--json"]).stdout).unwrap();
    assert_eq!((status["members"].as_array().unwrap().len(), &status["outcome"]), (SIZE, &"kept".into()));
    let page = fleet.path("page.html");
    let share = fleet.share();
    timed(&["report", "--fleet", share.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    eprintln!("the page: {} KiB", length(&page) >> 10);
    assert!(length(&page) < 4 << 20);
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() >> 10;
    eprintln!("the most memory that one of these commands had: {most} MiB");
}
