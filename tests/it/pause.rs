//! What fails again and again, for no fault of the release, is tried after growing pauses: a service is not stopped and
//! started every hour.

use std::fs;

use cutover::store::{Kept, kept};
use cutover::sys::disk::Disk;
use cutover::types::state::State;
use serde_json::Value;

use crate::node::{Health, TestNode, text};

/// A node on release 1 whose channel offers release 2. While the file `stuck` is there, the old one does not stop.
fn node() -> TestNode {
    let node = TestNode::new(&[Health::Good, Health::Good]);
    let stuck = node.path("stuck");
    node.add(&format!("[service.command]\nstart = 'true'\nstop = 'test ! -e {}'\n", stuck.display()));
    assert_eq!(node.update(1), 0);
    node.offer(2);
    fs::write(stuck, "").unwrap();
    node
}

fn tries(node: &TestNode) -> usize {
    let log: Value = serde_json::from_slice(&node.run(&["log", "--json"]).stdout).unwrap();
    log.as_array().unwrap().iter().filter(|entry| entry["to"] == "2").count()
}

/// As if the last try had been so many hours ago.
fn wait(node: &TestNode, hours: i64) {
    let path = node.root().join(".cutover/state.json");
    let Kept::Whole(mut state) = kept::load::<State>(&path).unwrap() else { panic!("no state") };
    state.setback.as_mut().unwrap().at -= jiff::SignedDuration::from_hours(hours);
    kept::save(&Disk::default(), &path, &state).unwrap();
}

#[test]
fn what_fails_twice_in_a_row_waits_longer_and_longer() {
    let node = node();
    assert_eq!((node.code(&["update"]), node.code(&["update"]), tries(&node)), (10, 10, 2));
    let told = node.run(&["update"]);
    assert_eq!((told.status.code(), tries(&node)), (Some(15), 2));
    let said = text(&told.stdout);
    assert!(
        said.contains("next try at 20") && said.contains("`cutover update --now` tries at once"),
        "{said}"
    );
    let status = node.status();
    let blocked = &status["blocked"][0];
    assert_eq!(blocked["policy"], "pause", "{status}");
    assert!(blocked["since"].is_string() && blocked["until"].is_string(), "{status}");
    assert_eq!(status["bad"], serde_json::json!([]));
    wait(&node, 2);
    assert_eq!((node.code(&["update"]), tries(&node)), (10, 3), "after two hours");
    wait(&node, 3);
    assert_eq!((node.code(&["update"]), tries(&node)), (15, 3), "the pause has grown");
    assert_eq!((node.code(&["update", "--now"]), tries(&node)), (10, 4), "a person need not wait");
    fs::remove_file(node.path("stuck")).unwrap();
    assert_eq!(node.code(&["mark-good", "2"]), 0);
    assert_eq!(node.code(&["update"]), 0, "somebody has mended it");
    assert_eq!(node.active().as_deref(), Some("2"));
    assert!(node.state()["setback"].is_null());
}
