//! Stopped before every single change of the disk: killed, refused by the machine, or without power.

use std::ops::Range;

use cutover::sys::disk::Disk;

use crate::filesystems::{METHODS, Mounted};
use crate::node::{Health, TestNode};

const CHANGES_MAX: usize = 400;
/// Every change. Where a refusal is looked at for every third one only, others are refused otherwise, and `everything_on`
/// looks at all.
const ALL: (Range<usize>, usize) = (0..CHANGES_MAX, 1);

/// What is done, beginning from which release, and on which releases it may end.
struct Scenario {
    releases: &'static [Health],
    words: fn(&TestNode) -> Vec<String>,
    before: &'static str,
    after: &'static str,
    /// The exit code without any stop.
    code: i32,
}

const UPDATE: Scenario = Scenario {
    releases: &[Health::Good, Health::Good],
    words: update_to_2,
    before: "1",
    after: "2",
    code: 0,
};
const SICK: Scenario = Scenario {
    releases: &[Health::Good, Health::Sick],
    words: update_to_2,
    before: "1",
    after: "1",
    code: 10,
};
const ROLLBACK: Scenario =
    Scenario { releases: &[Health::Good, Health::Good], words: roll_back, before: "2", after: "1", code: 0 };

fn update_to_2(node: &TestNode) -> Vec<String> {
    ["update", node.archive(2).to_str().unwrap(), "--allow-unsigned"].map(str::to_owned).to_vec()
}

fn roll_back(_: &TestNode) -> Vec<String> {
    vec!["rollback".into()]
}

impl Scenario {
    fn node(&self) -> TestNode {
        self.begun(TestNode::new(self.releases))
    }

    fn begun(&self, node: TestNode) -> TestNode {
        assert_eq!(node.update(1), 0);
        if self.before == "2" {
            assert_eq!(node.update(2), 0);
        }
        assert_eq!(node.active().as_deref(), Some(self.before));
        node
    }

    /// Stops before each of these changes until nothing is left to stop. `look` sees the node and how the run ended.
    fn at_changes(
        &self,
        begin: &dyn Fn() -> TestNode,
        (range, step): (Range<usize>, usize),
        how: &str,
        look: impl Fn(&TestNode, usize, Option<i32>),
    ) {
        for stop_before in range.step_by(step) {
            let node = begin();
            let words = (self.words)(&node);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (how, from_then_on) = how.strip_suffix('+').map_or((how, ""), |how| (how, "+"));
            let notes = node.path("changes");
            let output = node
                .command(&words)
                .env("CUTOVER_STOP_BEFORE", format!("{stop_before}{from_then_on}:{how}"))
                .env("CUTOVER_COUNT_CHANGES", &notes)
                .output()
                .unwrap();
            // By number: of two threads that ask at once the second may be the first to note it.
            let notes = std::fs::read_to_string(&notes).unwrap_or_default();
            let is_reached = notes.lines().any(|line| line.starts_with(&format!("{stop_before} ")));
            println!("change {stop_before}: {} {}", output.status, crate::node::text(&output.stderr));
            if !is_reached {
                assert_eq!(output.status.code(), Some(self.code), "without a stop");
                assert!(stop_before > 20, "only {stop_before} changes were seen");
                return;
            }
            look(&node, stop_before, output.status.code());
        }
        panic!("more than {CHANGES_MAX} changes");
    }

    /// After any stop: one complete release, an outcome, and nothing left behind.
    fn ends_well(&self, node: &TestNode, stop_before: usize) {
        let active = node.active();
        assert!(
            [Some(self.before), Some(self.after), Some("2")].contains(&active.as_deref()),
            "change {stop_before}: {active:?} is active"
        );
        let code = node.code(&["recover"]);
        assert!([0, 10, 15, 1].contains(&code), "change {stop_before}: recover ended with {code}");
        assert!(!node.has_journal(), "change {stop_before}: the update goes on after recover");
        let settled = node.active().unwrap();
        assert!([self.before, self.after].contains(&settled.as_str()), "change {stop_before}: on {settled}");
        if self.code == 10 {
            assert_eq!(settled, "1", "change {stop_before}: the sick release stayed");
        }
        assert_eq!(node.code(&["verify"]), 0, "change {stop_before}");
        if self.code == 0 && self.before == "1" {
            assert_eq!(node.update(2), 0, "change {stop_before}: a further update");
            assert_eq!(node.active().as_deref(), Some("2"), "change {stop_before}");
        }
        assert_eq!(node.code(&["prune"]), 0, "change {stop_before}");
        for directory in [".cutover/staging", ".cutover/trash"] {
            assert!(node.names(directory).is_empty(), "change {stop_before}: left in {directory}");
        }
        let strange: Vec<_> =
            node.names(".cutover").into_iter().filter(|name| name.ends_with(".new")).collect();
        assert!(strange.is_empty(), "change {stop_before}: {strange:?} left");
        assert_eq!(
            std::fs::read_to_string(node.data().join("records")).unwrap(),
            "old",
            "change {stop_before}"
        );
    }

    fn survives_kills(&self) {
        let begin = self.node();
        self.at_changes(&|| begin.copy(), ALL, "kill", |node, at, _| self.ends_well(node, at));
    }

    /// On real file systems, with each method that works there: killed, or refused, before each `step`th change.
    fn survives_everywhere(&self, test: &str, kind: &'static str, step: usize) {
        // What is removed is free again only after a while.
        let Some(mounted) = Mounted::sized(test, kind, 4 << 10) else { return };
        let methods = METHODS.iter().filter(|(on, _)| *on == kind);
        for (number, (_, method)) in methods.enumerate() {
            let begin = || self.begun(TestNode::new_in(&mounted.path(), self.releases).with_method(method));
            for (way, how) in ["kill", "eio", "enospc"].into_iter().enumerate() {
                println!("{kind}, {method}, {how}");
                // Each begins elsewhere, so that together they stop before many.
                let first = (number * 5 + way * 9) % step;
                self.at_changes(&begin, (first..CHANGES_MAX, step), how, |node, stop_before, code| {
                    if let Some(code) = code {
                        self.is_honest(node, stop_before, code);
                    }
                    self.ends_well(node, stop_before);
                    // Read-only subvolumes would stay, and fill the file system.
                    for name in node.names("releases") {
                        Disk::default().remove_tree(&node.root().join("releases").join(name)).unwrap();
                    }
                });
            }
        }
    }

    /// The power goes: right after the program has said how it ended, and when it was killed before each `step`th change.
    fn survives_power_cuts(&self, test: &str, kind: &'static str, method: &str, step: usize) {
        let Some(mounted) = Mounted::sized(test, kind, 4 << 10) else { return };
        let begin = || {
            let node = self.begun(TestNode::new_in(&mounted.path(), self.releases).with_method(method));
            mounted.sync();
            node
        };
        let node = begin();
        let words = (self.words)(&node);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(node.code(&words), self.code);
        mounted.cut_power();
        assert_eq!(node.active().as_deref(), Some(self.after), "{kind}: what was said is not so");
        assert!(!node.has_journal(), "{kind}: what was over is under way");
        self.ends_well(&node, CHANGES_MAX);
        self.at_changes(&begin, (0..CHANGES_MAX, step), "kill", |node, stop_before, _| {
            mounted.cut_power();
            self.ends_well(node, stop_before);
        });
    }

    /// A machine that refuses one change: the exit code tells what is.
    fn survives_refusals(&self, how: &str, changes: (Range<usize>, usize)) {
        let begin = self.node();
        self.at_changes(&|| begin.copy(), changes, how, |node, stop_before, code| {
            let code = code.unwrap_or_else(|| panic!("change {stop_before}: killed"));
            self.is_honest(node, stop_before, code);
            self.ends_well(node, stop_before);
        });
    }

    fn is_honest(&self, node: &TestNode, stop_before: usize, code: i32) {
        let active = node.active().unwrap();
        match code {
            0 => assert_eq!(active, self.after, "change {stop_before}: done"),
            1 | 15 | 16 => assert_eq!(active, self.before, "change {stop_before}: nothing changed"),
            10 => assert_eq!(active, "1", "change {stop_before}: rolled back"),
            14 => {}
            other => panic!("change {stop_before}: exit code {other}"),
        }
    }
}

#[test]
fn an_update_killed_before_any_change_ends_well() {
    UPDATE.survives_kills();
}

#[test]
fn a_failing_update_killed_before_any_change_ends_well() {
    SICK.survives_kills();
}

#[test]
fn a_rollback_killed_before_any_change_ends_well() {
    ROLLBACK.survives_kills();
}

#[test]
fn an_update_whose_disk_fails_at_any_change_ends_well() {
    UPDATE.survives_refusals("eio", ALL);
}

#[test]
fn a_failing_update_whose_disk_fails_at_some_changes_ends_well() {
    SICK.survives_refusals("eio", (0..CHANGES_MAX, 3));
}

#[test]
fn a_rollback_whose_disk_fails_at_any_change_ends_well() {
    ROLLBACK.survives_refusals("eio", ALL);
}

/// From some change on nothing can be written: whatever is reported, it can be made good when the disk works again.
#[test]
fn an_update_whose_disk_dies_at_any_change_ends_well() {
    UPDATE.survives_refusals("eio+", ALL);
}

#[test]
fn a_failing_update_whose_disk_becomes_read_only_at_some_changes_ends_well() {
    SICK.survives_refusals("erofs+", (1..CHANGES_MAX, 3));
}

#[test]
fn an_update_without_space_at_any_change_ends_well() {
    UPDATE.survives_refusals("enospc", ALL);
}

#[test]
fn a_failing_update_without_space_at_some_changes_ends_well() {
    SICK.survives_refusals("enospc", (2..CHANGES_MAX, 3));
}

#[test]
fn a_rollback_without_space_at_any_change_ends_well() {
    ROLLBACK.survives_refusals("enospc", ALL);
}

/// Some of the changes here, on each file system; all of them in the long runs below.
const STEP: usize = 29;

#[test]
fn updates_on_ext4_by_any_method_end_well() {
    UPDATE.survives_everywhere("updates_on_ext4_by_any_method_end_well", "ext4", STEP);
}

#[test]
fn updates_on_xfs_by_any_method_end_well() {
    UPDATE.survives_everywhere("updates_on_xfs_by_any_method_end_well", "xfs", STEP);
}

#[test]
fn updates_on_btrfs_by_any_method_end_well() {
    UPDATE.survives_everywhere("updates_on_btrfs_by_any_method_end_well", "btrfs", STEP);
}

#[test]
fn a_power_cut_takes_nothing_back_on_ext4() {
    power_cuts_on("a_power_cut_takes_nothing_back_on_ext4", "ext4", "auto", STEP);
}

#[test]
fn a_power_cut_takes_nothing_back_on_xfs() {
    power_cuts_on("a_power_cut_takes_nothing_back_on_xfs", "xfs", "auto", STEP);
}

#[test]
fn a_power_cut_takes_nothing_back_on_btrfs() {
    power_cuts_on("a_power_cut_takes_nothing_back_on_btrfs", "btrfs", "auto", STEP);
}

#[test]
#[ignore = "minutes; run by `make test-crashes`"]
fn power_cuts_before_every_change_are_survived_by_any_method() {
    for (kind, method) in METHODS {
        println!("{kind}, {method}");
        power_cuts_on("power_cuts_before_every_change_are_survived_by_any_method", kind, method, 1);
    }
}

#[test]
#[ignore = "ten minutes each; run by `make test-crashes`"]
fn everything_on_ext4_by_any_method_ends_well() {
    everything_on("everything_on_ext4_by_any_method_ends_well", "ext4");
}

#[test]
#[ignore = "ten minutes each; run by `make test-crashes`"]
fn everything_on_xfs_by_any_method_ends_well() {
    everything_on("everything_on_xfs_by_any_method_ends_well", "xfs");
}

#[test]
#[ignore = "ten minutes each; run by `make test-crashes`"]
fn everything_on_btrfs_by_any_method_ends_well() {
    everything_on("everything_on_btrfs_by_any_method_ends_well", "btrfs");
}

fn power_cuts_on(test: &str, kind: &'static str, method: &str, step: usize) {
    for scenario in [UPDATE, SICK, ROLLBACK] {
        scenario.survives_power_cuts(test, kind, method, step);
    }
}

fn everything_on(test: &str, kind: &'static str) {
    for scenario in [UPDATE, SICK, ROLLBACK] {
        scenario.survives_everywhere(test, kind, 1);
    }
}
