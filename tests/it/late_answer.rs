//! A web server, or whoever stands before it, that holds an answer back: what comes late is judged by what is remembered
//! then, and lowers nothing.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::node::{Health, TestNode};
use crate::web::{Server, file, status};

/// Holds the next answer about a file back, as it was when it was asked for.
#[derive(Default)]
struct Gate {
    /// How the file's name ends.
    ending: &'static str,
    holds_next: AtomicBool,
    holds: AtomicBool,
    is_open: AtomicBool,
}

fn serve(directory: PathBuf, gate: Arc<Gate>) -> Server {
    Server::new(move |asked, stream| {
        let Ok(bytes) = fs::read(directory.join(asked.path.trim_start_matches("/shop/"))) else {
            return status(stream, "404 Not Found", "", b"");
        };
        if asked.path.ends_with(gate.ending) && gate.holds_next.swap(false, Ordering::SeqCst) {
            gate.holds.store(true, Ordering::SeqCst);
            while !gate.is_open.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        file(asked, stream, &bytes, "\"x\"", usize::MAX)
    })
}

/// The highest serial of a channel that the node remembers.
fn serial(node: &TestNode) -> Option<u64> {
    node.state()["channels"].as_object().unwrap().values().filter_map(|seen| seen["serial"].as_u64()).max()
}

/// A node on release 1, of a channel at serial 4.
fn begun(ending: &'static str) -> (Arc<Gate>, TestNode, Server) {
    let gate = Arc::new(Gate { ending, ..Gate::default() });
    let node = TestNode::new(&[Health::Good; 3]);
    let server = serve(node.path("source"), Arc::clone(&gate));
    let node = node.with_source(&server.url());
    node.publish(1, 4);
    assert_eq!(node.code(&["update"]), 0);
    (gate, node, server)
}

/// Begins an update to which the answer is held back.
fn update_late(node: &TestNode, gate: &Gate) -> Child {
    gate.holds_next.store(true, Ordering::SeqCst);
    let late = node.command(&["update"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    node.wait_until("its answer is held back", |_| gate.holds.load(Ordering::SeqCst));
    late
}

#[test]
fn a_release_may_be_banned_while_it_is_fetched() {
    let (gate, node, _server) = begun(".tar.zst");
    node.publish(2, 5);
    let mut late = update_late(&node, &gate);
    assert_eq!(node.code(&["mark-bad", "2"]), 0, "it is known by its channel");
    gate.is_open.store(true, Ordering::SeqCst);
    assert_eq!(late.wait().unwrap().code(), Some(15));
    assert_eq!(node.active().as_deref(), Some("1"));
    assert_eq!(node.code(&["update"]), 15);
}

#[test]
fn policies_are_judged_for_the_release_that_was_staged() {
    let (gate, node, _server) = begun(".tar.zst");
    node.publish(2, 5);
    let mut late = update_late(&node, &gate);
    // Meanwhile the channel offers another one, which nobody may have yet.
    node.publish(3, 6);
    let (source, key) = (node.path("source"), node.path("team"));
    let words = ["publish", source.to_str().unwrap(), "3", "--serial", "7", "--percent", "0", "--key"];
    assert_eq!(node.code(&[&words[..], &[key.to_str().unwrap()]].concat()), 0);
    gate.is_open.store(true, Ordering::SeqCst);
    assert_eq!(late.wait().unwrap().code(), Some(0));
    assert_eq!(node.active().as_deref(), Some("2"));
    assert_eq!(node.code(&["update"]), 15);
    assert_eq!(node.active().as_deref(), Some("2"));
}

#[test]
fn a_channel_that_comes_late_lowers_nothing_and_cannot_be_replayed() {
    let (gate, node, _server) = begun(".channel.sig");
    // Not remembered yet, so that the late one has something to write down.
    node.publish(1, 5);
    let old: Vec<_> = ["stable.channel", "stable.channel.sig"]
        .map(|name| (name, fs::read(node.path("source").join(name)).unwrap()))
        .into();

    let mut late = update_late(&node, &gate);
    node.publish(1, 6);
    node.publish(2, 7);
    assert_eq!(node.code(&["update"]), 0);
    assert_eq!((node.active().as_deref(), serial(&node)), (Some("2"), Some(7)));

    gate.is_open.store(true, Ordering::SeqCst);
    late.wait().unwrap();
    let remembered = serial(&node);
    for (name, bytes) in old {
        fs::write(node.path("source").join(name), bytes).unwrap();
    }
    let replayed = node.code(&["update"]);
    assert_eq!(
        (remembered, replayed),
        (Some(7), 12),
        "the memory was lowered, and an old channel is replayed"
    );
    assert_eq!(node.active().as_deref(), Some("2"));
}
