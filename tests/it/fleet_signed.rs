//! Rollouts in which nodes sign their facts: a member that lies, and somebody who can only write to the directory.

use std::path::{Path, PathBuf};

use cutover::coord::board::directory::DirectoryBoard;
use cutover::coord::facts::{self, Fact, Listed, Wanted, names};
use cutover::coord::heard::Heard;
use cutover::coord::look::{Signer, Trust, seal_signed, seal_summed};
use cutover::coord::operate::{Error as OperateError, Operator, Wish};
use cutover::coord::rollout::Rollout;
use cutover::coord::rules::Health;
use cutover::coord::rules::synchronous::{Go, Outcome, Plan};
use cutover::coord::settings::{Facts, Mode};
use cutover::coord::synchronous::{Synchronous, What};
use cutover::coord::voice::Voice;
use cutover::coord::{NodeName, Settings};
use cutover::lifecycle::fleet::{FleetKeys, KeyFile, own_key};
use cutover::sys::disk::Disk;
use cutover::types::Digest;
use jiff::{SignedDuration, Timestamp};

struct Fleet {
    directory: tempfile::TempDir,
    keys: FleetKeys,
    rollout: Rollout,
}

const NODES: [&str; 3] = ["n0", "n1", "n2"];

impl Fleet {
    /// Three nodes with keys, and a proposal that names them.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("share")).unwrap();
        let disk = Disk::default();
        let key = |name: &str| own_key(&disk, &path(name), name).unwrap();
        let trusted = format!("anna namespaces=\"cutover-fleet\" {}\n", key("anna"));
        std::fs::write(path("trusted"), trusted).unwrap();
        let keys = FleetKeys::load(&[path("trusted").to_str().unwrap().into()], Path::new("/none")).unwrap();
        let signer = KeyFile(path("anna"));
        let mut board = DirectoryBoard::new(path("share"), "anna", Disk::default());
        let trust = Trust { keys: &keys, allow_unsigned: false };
        let mut operator = Operator { board: &mut board, trust, signer: Some(&signer), by: "anna".into() };
        let fleet = operator.init("shop", "id").unwrap();
        let listed = |node: &&str| Listed {
            node: node.parse().unwrap(),
            instance: String::new(),
            groups: vec![],
            cell: None,
            key: Some(key(node)),
        };
        operator.write_members(&fleet, NODES.iter().map(listed).collect(), 0).unwrap();
        for node in NODES {
            operator.board.prepare(&names::node(&node.parse().unwrap()));
        }
        let settings = Settings {
            mode: Mode::Synchronous,
            name: "shop".into(),
            facts: Facts::Signed,
            ..Settings::default()
        };
        let wish = Wish {
            release: Wanted { name: "shop".into(), version: "2".parse().unwrap(), digest: Digest::of(b"2") },
            only: vec![],
            not_before: None,
            valid: SignedDuration::from_hours(1),
            now: Timestamp::now(),
            after: None,
        };
        let rollout = operator.propose(&settings, &wish).unwrap();
        assert_eq!(rollout.proposal.keys.len(), 3);
        // Who has not seen it proposes nothing after it.
        let lost = operator.propose(&settings, &wish);
        assert!(matches!(lost, Err(OperateError::Lost { number: 1, .. })), "{lost:?}");
        Self { directory, keys, rollout }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn board(&self) -> DirectoryBoard {
        DirectoryBoard::new(self.path("share"), "test", Disk::default())
    }

    fn signed(&self, by: &str, name: &str, fact: &Fact) -> String {
        seal_signed(name, fact, Some(&KeyFile(self.path(by)) as &dyn Signer)).unwrap()
    }

    fn gate(&self, gate: &str) -> String {
        self.rollout.decisions().gate(gate)
    }

    /// Puts a file, as whoever can write to the directory could.
    fn pin(&self, name: &str, text: &str) {
        std::fs::write(self.path("share").join(name), text).unwrap();
    }

    fn follow(&self, me: usize) -> Synchronous<'_> {
        let voice = Voice { trust: Trust { keys: &self.keys, allow_unsigned: false }, signer: None };
        Synchronous::new(self.rollout.clone(), me, voice)
    }

    fn vote(&self, node: &str) -> (String, Fact) {
        let name: NodeName = node.parse().unwrap();
        let fact = Fact::Vote(facts::Vote {
            rollout: 1,
            proposal: self.rollout.digest,
            node: name.clone(),
            instance: node.into(),
            vote: facts::Yes::Yes,
            why: None,
            running: None,
            beside: None,
        });
        (names::own(&name, 1, "vote"), fact)
    }

    fn armed(&self, node: &str, plan: Digest) -> (String, Fact) {
        let name: NodeName = node.parse().unwrap();
        let at = Timestamp::now();
        let instance = node.into();
        let fact =
            Fact::Armed(facts::Armed { rollout: 1, plan, node: name.clone(), instance, at, clock: None });
        (names::own(&name, 1, "armed"), fact)
    }

    fn report(&self, node: &str, plan: Digest) -> (String, Fact) {
        let name: NodeName = node.parse().unwrap();
        let fact = Fact::Report(facts::Report {
            rollout: 1,
            answers: plan,
            node: name.clone(),
            instance: node.into(),
            health: Health::Good,
            at: None,
            moments: facts::Moments::default(),
            why: None,
            cause: None,
            gap_ms: None,
            took_ms: None,
        });
        (names::own(&name, 1, "report"), fact)
    }

    fn plan(&self, decision: facts::PlanDecision) -> Fact {
        let (by, why, seen) = ("n0".into(), String::new(), facts::SeenFacts::new());
        let at = (decision == facts::PlanDecision::Commit).then(Timestamp::now);
        let proposal = self.rollout.digest;
        Fact::Plan(facts::Plan { rollout: 1, proposal, decision, at, made: None, by, why, seen })
    }

    fn go(&self, plan: Digest) -> Fact {
        let (by, why, seen) = ("n0".into(), String::new(), facts::SeenFacts::new());
        Fact::Go(facts::Go { rollout: 1, plan, decision: facts::GoDecision::Go, made: None, by, why, seen })
    }

    fn outcome(&self, plan: Digest, decision: facts::OutcomeDecision) -> Fact {
        let (by, why, seen) = ("n0".into(), String::new(), facts::SeenFacts::new());
        let (answers, at) = (plan, None);
        Fact::Outcome(facts::Outcome { rollout: 1, answers, decision, at, made: None, by, why, seen })
    }

    /// All votes but the last, and a commit that nobody may obey yet.
    fn until_the_last_vote(&self) -> Digest {
        for node in ["n0", "n1"] {
            let (name, fact) = self.vote(node);
            self.pin(&name, &self.signed(node, &name, &fact));
        }
        let name = self.gate("plan");
        let plan = self.signed("n0", &name, &self.plan(facts::PlanDecision::Commit));
        self.pin(&name, &plan);
        Digest::of(plan.as_bytes())
    }

    fn until_go(&self) -> Digest {
        let plan = self.until_the_last_vote();
        let (name, fact) = self.vote("n2");
        self.pin(&name, &self.signed("n2", &name, &fact));
        for node in NODES {
            let (name, fact) = self.armed(node, plan);
            self.pin(&name, &self.signed(node, &name, &fact));
        }
        let name = self.gate("go");
        self.pin(&name, &self.signed("n1", &name, &self.go(plan)));
        plan
    }
}

fn read(follow: &mut Synchronous<'_>, board: &mut DirectoryBoard) {
    assert_eq!(follow.read_gates(board), Heard::Yes);
}

#[test]
fn a_commit_is_obeyed_when_the_signed_votes_of_all_are_there_and_not_before() {
    let fleet = Fleet::new();
    let mut board = fleet.board();
    fleet.until_the_last_vote();
    let (name, vote) = fleet.vote("n2");
    for (who, text) in [
        ("nobody", None),
        ("whoever can write", Some(seal_summed(&name, &vote))),
        ("another member", Some(fleet.signed("n0", &name, &vote))),
        ("an operator", Some(fleet.signed("anna", &name, &vote))),
        ("itself, for another name", Some(fleet.signed("n2", "nodes/n2/000001.armed", &vote))),
        ("itself", Some(fleet.signed("n2", &name, &vote))),
    ] {
        if let Some(text) = text {
            fleet.pin(&name, &text);
        }
        let mut follow = fleet.follow(0);
        read(&mut follow, &mut board);
        let is_obeyed = matches!(follow.view.plan, Some(Plan::Commit { .. }));
        assert_eq!(is_obeyed, who == "itself", "the last vote is by {who}: {:?}", follow.remarks);
        assert_eq!(follow.unreadable.is_some(), who != "itself", "{who}");
    }
}

#[test]
fn nobody_switches_for_a_go_that_a_member_made_up() {
    let fleet = Fleet::new();
    let mut board = fleet.board();
    let plan = fleet.until_go();
    std::fs::remove_file(fleet.path("share/nodes/n2/000001.armed")).unwrap();
    let mut follow = fleet.follow(0);
    read(&mut follow, &mut board);
    assert!(matches!(follow.view.plan, Some(Plan::Commit { .. })));
    assert_eq!(follow.view.go, None, "n2 does not hold the instant");
    let (name, fact) = fleet.armed("n2", plan);
    fleet.pin(&name, &fleet.signed("n2", &name, &fact));
    read(&mut follow, &mut board);
    assert_eq!(follow.view.go, Some(Go::Go));
}

#[test]
fn a_member_can_neither_keep_for_the_others_nor_be_silenced_by_those_who_only_write() {
    let fleet = Fleet::new();
    let mut board = fleet.board();
    let plan = fleet.until_go();
    for node in ["n0", "n1"] {
        let (name, fact) = fleet.report(node, plan);
        fleet.pin(&name, &fleet.signed(node, &name, &fact));
    }
    // n0 says "keep", and has forged the report that is missing.
    let (name, fact) = fleet.report("n2", plan);
    fleet.pin(&name, &fleet.signed("n0", &name, &fact));
    let keep = fleet.outcome(plan, facts::OutcomeDecision::Keep);
    let gate = fleet.gate("outcome");
    fleet.pin(&gate, &fleet.signed("n0", &gate, &keep));
    let mut follow = fleet.follow(1);
    read(&mut follow, &mut board);
    assert_eq!(follow.view.outcome, None, "{:?}", follow.remarks);
    // What is decided against all may come from each of them, and from an operator, and from nobody else.
    let back = fleet.outcome(plan, facts::OutcomeDecision::Rollback);
    for (text, counts) in [
        (seal_summed(&gate, &back), false),
        (fleet.signed("n2", &gate, &back), true),
        (fleet.signed("anna", &gate, &back), true),
    ] {
        fleet.pin(&gate, &text);
        let mut follow = fleet.follow(1);
        read(&mut follow, &mut board);
        let is_obeyed = matches!(follow.view.outcome, Some(Outcome::Rollback { .. }));
        assert_eq!(is_obeyed, counts, "{:?}", follow.remarks);
    }
    // The report of n2 by n2: now all have said it.
    fleet.pin(&name, &fleet.signed("n2", &name, &fact));
    fleet.pin(&gate, &seal_summed(&gate, &keep));
    let mut follow = fleet.follow(1);
    read(&mut follow, &mut board);
    assert_eq!(follow.view.outcome, Some(Outcome::Keep));
    assert_eq!(follow.scan(&mut board, What::Report), Heard::Yes);
}
