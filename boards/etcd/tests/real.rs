//! The board against a real etcd on loopback: races through the helper that nodes start, and what happens around them.
#![allow(missing_docs, reason = "tests are documented by their names")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail loudly"
)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cutover::coord::board::helper::HelperBoard;
use cutover::coord::board::{Board, ClockRead, Created, Done, Listed, Read};

const PATIENCE: Duration = Duration::from_secs(30);

struct Etcd {
    data: tempfile::TempDir,
    ports: (u16, u16),
    running: Option<Child>,
}

impl Etcd {
    /// A member that answers; none where the program is not installed.
    fn start() -> Option<Self> {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut etcd = Self { data: tempfile::tempdir().unwrap(), ports: (free(), free()), running: None };
        etcd.resume()?;
        Some(etcd)
    }

    fn resume(&mut self) -> Option<()> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(self.ports.0), url(self.ports.1));
        let started = Command::new("etcd")
            .args(["--log-level", "error", "--data-dir"])
            .arg(self.data.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            eprintln!("SKIPPED etcd: it is not installed (etcd-server)");
            return None;
        };
        self.running = Some(child);
        let (mut board, began) = (self.board("/shop"), Instant::now());
        while let Done::Unreachable(why) = board.prepare("rollouts") {
            assert!(began.elapsed() < PATIENCE, "{why}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(board.prepare("nodes"), Done::Done);
        Some(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn board(&self, prefix: &str) -> HelperBoard {
        let endpoint = format!("http://127.0.0.1:{}", self.ports.0);
        // The first one is not there; whoever asks must not notice.
        board(&["--endpoint", "http://127.0.0.1:1", "--endpoint", &endpoint, "--prefix", prefix])
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn board(words: &[&str]) -> HelperBoard {
    let all = [env!("CARGO_BIN_EXE_cutover-board-etcd")].into_iter().chain(words.iter().copied());
    HelperBoard::new(all.map(ToOwned::to_owned).collect(), Duration::from_secs(10))
}

#[test]
fn of_all_clients_one_is_first() {
    let Some(etcd) = Etcd::start() else { return };
    let mut boards: Vec<_> = (0..4).map(|_| etcd.board("/shop")).collect();
    for round in 0..50 {
        let name = format!("rollouts/{round:06}");
        let results: Vec<(String, Created)> = std::thread::scope(|scope| {
            let threads: Vec<_> = boards
                .iter_mut()
                .enumerate()
                .map(|(client, board)| {
                    let (name, text) = (&name, format!("{client} of {round}"));
                    scope.spawn(move || (text.clone(), board.create(name, &text)))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let Read::Bytes(there) = boards[0].read(&name) else { unreachable!("round {round}") };
        for (text, created) in results {
            let wanted = if text == there { Created::Mine } else { Created::Theirs(there.clone()) };
            assert_eq!(created, wanted, "round {round}");
        }
    }
}

#[test]
fn an_etcd_that_holds_no_board_is_not_an_empty_one() {
    let Some(mut etcd) = Etcd::start() else { return };
    let mut board = etcd.board("/shop");
    assert_eq!(board.read("rollouts/000001"), Read::Absent);
    assert_eq!(board.read("nodes/edge/000001.vote"), Read::Absent);
    assert!(matches!(board.create("nodes/edge/000001.vote", "yes"), Created::Unknown(_)));
    assert_eq!(board.prepare("nodes/edge"), Done::Done);
    assert_eq!(board.create("nodes/edge/000001.vote", "yes"), Created::Mine);
    assert_eq!(board.beat("nodes/edge/alive", "one"), Done::Done);
    assert_eq!(board.beat("nodes/edge/alive", "two"), Done::Done);
    assert_eq!(board.read("nodes/edge/alive"), Read::Bytes("two".into()));
    assert!(matches!(board.read("nodes/edge"), Read::Bad(_)));
    assert_eq!(board.list("nodes"), Listed::Names(vec!["edge".into()]));
    assert_eq!(board.list("nodes/edge"), Listed::Names(vec!["000001.vote".into(), "alive".into()]));
    let clock = etcd.board("/shop").clock("nodes/edge");
    assert!(matches!(clock, ClockRead::Offset { error_ms, .. } if error_ms < 500.0), "{clock:?}");
    assert_eq!(board.remove("nodes/edge/alive"), Done::Done);
    assert_eq!(board.read("nodes/edge/alive"), Read::Absent);

    let mut other = etcd.board("/shopping");
    assert!(
        matches!(other.read("rollouts/000001"), Read::Unreachable(why) if why.contains("no fleet's board"))
    );
    assert!(matches!(other.list("rollouts"), Listed::Unreachable(_)));
    assert!(matches!(other.create("rollouts/000001", "x"), Created::Unknown(_)));

    // What was decided outlives etcd's process; while it is away nothing is known.
    etcd.stop();
    assert!(matches!(board.read("nodes/edge/000001.vote"), Read::Unreachable(_)));
    assert!(matches!(board.create("rollouts/000002", "x"), Created::Unknown(_)));
    etcd.resume().unwrap();
    assert_eq!(board.create("nodes/edge/000001.vote", "no"), Created::Theirs("yes".into()));
}

#[test]
fn who_is_asked_in_vain_says_why() {
    for (words, why) in [
        (&["--endpoint", "etcd.example.org"][..], "is not an address"),
        (&["--endpoint", "https://127.0.0.1:1", "--ca", "/nowhere"], "cannot read `/nowhere`"),
        (&["--nonsense"], "--nonsense"),
        (&["--endpoint", "http://127.0.0.1:1"], "127.0.0.1:1"),
    ] {
        let read = board(words).read("rollouts/000001");
        assert!(matches!(&read, Read::Unreachable(told) if told.contains(why)), "{words:?}: {read:?}");
    }
}
