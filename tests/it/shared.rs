//! What any storage of a fleet must do, and what a board makes of storage that doesn't: through the helper that nodes use.
//!
//! A local directory in every run. `tests/storage/*.sh` run the same on real shared storage, which they name by
//!
//! ```text
//! CUTOVER_STORAGE             what each client is told as its `directory`, one a line; a single one is for all; in one that
//!                             names a program, `{}` stands for what keeps several boards apart
//! CUTOVER_STORAGE_ROUNDS      how many names are raced for
//! CUTOVER_STORAGE_VISIBLE_MS  how long a new name may stay hidden from another client
//! CUTOVER_STORAGE_HANG        a command that makes all mounts hang, and CUTOVER_STORAGE_RESUME one that ends it
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::coord::board::helper::HelperBoard;
use cutover::coord::board::{Board, ClockRead, Created, Done, Listed, Read};

use super::fleet::{Fleet, calm};

const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");
/// How many clients there are, where the storage does not say.
const CLIENTS: usize = 4;
/// One access never takes longer on storage that works.
const LIMIT: Duration = Duration::from_secs(20);
/// What fails is tried again for so long: a brick that was killed needs a while.
const PATIENCE: Duration = Duration::from_secs(240);

/// One storage, and what its clients are told.
struct Storage {
    own: Option<tempfile::TempDir>,
    clients: Vec<String>,
}

impl Storage {
    /// The storage that the environment names, else a local directory.
    fn new() -> Self {
        let named = std::env::var("CUTOVER_STORAGE").unwrap_or_default();
        let mut clients: Vec<String> =
            named.lines().filter(|line| !line.is_empty()).map(|line| line.replace("{}", "suite")).collect();
        let mut own = None;
        if clients.is_empty() {
            let directory = tempfile::tempdir().unwrap();
            clients.push(directory.path().to_str().unwrap().to_owned());
            own = Some(directory);
        }
        if clients.len() == 1 {
            clients = vec![clients[0].clone(); CLIENTS];
        }
        let storage = Self { own, clients };
        let mut board = storage.board(0);
        for name in ["members", "rollouts", "nodes"] {
            eventually(|| match board.prepare(name) {
                Done::Done => Some(()),
                Done::Unreachable(why) => {
                    eprintln!("{name}: {why}");
                    None
                }
            });
        }
        storage
    }

    /// The board of client `number`, as `cutover` opens it.
    fn board(&self, number: usize) -> HelperBoard {
        let told = &self.clients[number % self.clients.len()];
        match told.strip_prefix("exec:") {
            Some(words) => HelperBoard::new(words.split_ascii_whitespace().map(Into::into).collect(), LIMIT),
            None => HelperBoard::new(helper(Path::new(told)), LIMIT),
        }
    }

    fn boards(&self) -> Vec<HelperBoard> {
        (0..self.clients.len()).map(|number| self.board(number)).collect()
    }

    /// A new directory on it, that nobody has looked for before.
    fn directory(&self, what: &str) -> String {
        let name = format!("nodes/{what}-{}-{}", std::process::id(), chance());
        let mut board = self.board(0);
        eventually(|| (board.prepare(&name) == Done::Done).then_some(()));
        name
    }

    /// Where `name` is as a file; nowhere on boards without files.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (!self.clients[0].starts_with("exec:")).then(|| Path::new(&self.clients[0]).join(name))
    }
}

/// The words that start the helper of a directory.
fn helper(directory: &Path) -> Vec<String> {
    [CUTOVER, "board-helper", directory.to_str().unwrap(), "client"].map(ToOwned::to_owned).to_vec()
}

fn chance() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}

fn eventually<T>(mut work: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = work() {
            return done;
        }
        assert!(began.elapsed() < PATIENCE, "the storage never did it");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rounds(default: usize) -> usize {
    std::env::var("CUTOVER_STORAGE_ROUNDS").map_or(default, |text| text.parse().unwrap())
}

/// Long enough to be seen in halves.
fn text_of(client: usize, round: usize) -> String {
    format!("{client} of {round}, ").repeat(400)
}

fn milliseconds(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    format!("p50 {:.1}, p99 {:.1}, longest {:.1} ms", at(50), at(99), at(100))
}

/// What a maker ended with, how long it took, and how often nobody knew.
type Made = (Created, Duration, usize);

/// All makers create `name` at the same instant, while all readers look for it: what each ended with, and what each
/// read, after how many reads.
fn race(
    makers: &mut [HelperBoard],
    readers: &mut [HelperBoard],
    name: &str,
    round: usize,
) -> (Vec<Made>, Vec<(String, usize)>) {
    let start = Barrier::new(makers.len() + readers.len());
    let make = |client: usize, board: &mut HelperBoard| {
        start.wait();
        let (began, mut unknown) = (Instant::now(), 0);
        let created = eventually(|| match board.create(name, &text_of(client, round)) {
            Created::Refused(_) | Created::Unknown(_) => {
                unknown += 1;
                None
            }
            created => Some(created),
        });
        (created, began.elapsed(), unknown)
    };
    let look = |board: &mut HelperBoard| {
        start.wait();
        let mut reads = 0;
        let text = eventually(|| {
            reads += 1;
            match board.read(name) {
                Read::Bytes(text) => Some(text),
                Read::Absent | Read::Unreachable(_) => None,
                Read::Bad(why) => panic!("round {round}: {why}"),
            }
        });
        (text, reads)
    };
    std::thread::scope(|scope| {
        let (make, look) = (&make, &look);
        let making: Vec<_> = makers
            .iter_mut()
            .enumerate()
            .map(|(client, board)| scope.spawn(move || make(client, board)))
            .collect();
        let reading: Vec<_> = readers.iter_mut().map(|board| scope.spawn(move || look(board))).collect();
        let made = making.into_iter().map(|thread| thread.join().unwrap()).collect();
        (made, reading.into_iter().map(|thread| thread.join().unwrap()).collect())
    })
}

#[test]
fn of_all_clients_one_is_first_and_nobody_reads_a_half() {
    let storage = Storage::new();
    let directory = storage.directory("race");
    let (mut makers, mut readers) = (storage.boards(), storage.boards());
    let count = makers.len();
    let (mut took, mut unknown, mut reads) = (Vec::new(), 0, 0);
    let rounds = rounds(60);
    for round in 0..rounds {
        let name = format!("{directory}/{round:06}");
        let (made, seen) = race(&mut makers, &mut readers, &name, round);
        let winners: Vec<usize> = (0..count).filter(|client| made[*client].0 == Created::Mine).collect();
        let [winner] = winners[..] else { panic!("round {round}: first were {winners:?}: {made:?}") };
        let text = text_of(winner, round);
        for (client, (created, time, unsure)) in made.into_iter().enumerate() {
            let wanted = if client == winner { Created::Mine } else { Created::Theirs(text.clone()) };
            assert_eq!(created, wanted, "round {round}, client {client}");
            took.push(time);
            unknown += unsure;
        }
        for (there, times) in seen {
            assert_eq!(there, text, "round {round}: somebody read something else");
            reads += times;
        }
    }
    eprintln!(
        "{rounds} races of {count} clients: one first in each; {reads} reads, none of a half; {unknown} times unknown; \
         create {}",
        milliseconds(&mut took)
    );
}

#[test]
fn what_one_client_made_all_others_see() {
    let storage = Storage::new();
    let directory = storage.directory("seen");
    let mut boards = storage.boards();
    let mut took = Vec::new();
    for round in 0..rounds(20).min(100) {
        let (count, maker) = (boards.len(), round % boards.len());
        let looker = (maker + 1 + round / count % (count - 1)) % count;
        let mut looking = storage.board(looker);
        let name = format!("{directory}/{round:06}");
        // Asked for before it is there: storage may remember that it was not.
        for _ in 0..3 {
            assert_eq!(eventually(|| known(looking.read(&name))), Read::Absent);
        }
        eventually(|| (boards[maker].create(&name, "text") == Created::Mine).then_some(()));
        let began = Instant::now();
        eventually(|| (looking.read(&name) == Read::Bytes("text".into())).then_some(()));
        took.push(began.elapsed());
    }
    // Some keep a listing for longer than a name.
    let (mut looking, began) = (storage.board(1), Instant::now());
    let name = format!("{directory}/last");
    eventually(|| matches!(looking.list(&directory), Listed::Names(_)).then_some(()));
    eventually(|| (boards[0].create(&name, "text") == Created::Mine).then_some(()));
    eventually(|| match looking.list(&directory) {
        Listed::Names(names) => names.contains(&"last".to_owned()).then_some(()),
        Listed::Unreachable(_) => None,
    });
    eprintln!("it stands in another client's listing after {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
    eprintln!("a new name is seen by another client after {}", milliseconds(&mut took));
    if let Ok(most) = std::env::var("CUTOVER_STORAGE_VISIBLE_MS") {
        let longest = took.last().unwrap();
        assert!(*longest <= Duration::from_millis(most.parse().unwrap()), "{longest:?}");
    }
}

fn known(read: Read) -> Option<Read> {
    (!matches!(read, Read::Unreachable(_))).then_some(read)
}

#[test]
fn what_is_replaced_is_read_whole_and_clocks_can_be_compared() {
    let storage = Storage::new();
    let directory = storage.directory("beat");
    let name = format!("{directory}/alive");
    let (mut writer, mut reader) = (storage.board(0), storage.board(1));
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut seen = BTreeMap::new();
            while !is_over.load(Ordering::Relaxed) {
                match reader.read(&name) {
                    Read::Bytes(text) => *seen.entry(text).or_insert(0) += 1,
                    Read::Absent | Read::Unreachable(_) => {}
                    Read::Bad(why) => panic!("{why}"),
                }
            }
            seen
        });
        for round in 0..rounds(50).min(200) {
            eventually(|| (writer.beat(&name, &text_of(0, round)) == Done::Done).then_some(()));
        }
        is_over.store(true, Ordering::Relaxed);
        reading.join().unwrap()
    });
    let whole: Vec<String> = (0..200).map(|round| text_of(0, round)).collect();
    assert!(seen.keys().all(|text| whole.contains(text)), "{seen:?}");
    match writer.clock(&directory) {
        ClockRead::Offset { offset_ms, error_ms } => {
            eprintln!("the storage's clock is {offset_ms:+.1} ms from this one, give or take {error_ms:.1}");
            // It is this machine's own, here.
            assert!(offset_ms.abs() <= error_ms + 250.0, "{offset_ms} {error_ms}");
        }
        ClockRead::Unknown => panic!("the clock was not compared"),
    }
}

#[test]
fn what_cannot_be_a_fact_harms_nobody() {
    let storage = Storage::new();
    let directory = storage.directory("odd");
    let Some(path) = storage.path(&directory) else { return };
    let mut board = storage.board(1);
    let made = [
        ("fifo", "mkfifo {}"),
        ("device", "mknod {} c 1 5"),
        ("disk", "mknod {} b 7 0"),
        ("link", "ln -s /etc/passwd {}"),
        ("loop", "ln -s loop {}"),
        ("huge", "truncate -s 1G {}"),
        ("bytes", "printf '\\377\\376' >{}"),
        ("directory", "mkdir {}"),
    ];
    // Not every storage holds everything, nor may everybody make devices.
    let can_make = |line: &str| Command::new("sh").args(["-c", line]).output().unwrap().status.success();
    let could: Vec<&str> = made
        .iter()
        .filter(|(name, line)| can_make(&line.replace("{}", path.join(name).to_str().unwrap())))
        .map(|(name, _)| *name)
        .collect();
    for name in &could {
        let name = format!("{directory}/{name}");
        let read = board.read(&name);
        assert!(matches!(read, Read::Bad(_)), "{name}: {read:?}");
        let created = board.create(&name, "text");
        assert!(matches!(created, Created::Theirs(_)), "{name}: {created:?}");
    }
    let Listed::Names(names) = board.list(&directory) else { panic!("no list") };
    assert_eq!(names.len(), could.len(), "{names:?} {could:?}");
    eprintln!("bad, and nothing else: {}", could.join(", "));
    assert!(could.len() >= 4, "{could:?}");
}

#[test]
fn a_directory_with_very_many_names_is_read_to_its_end() {
    const MANY: usize = 120_000;
    let storage = Storage::new();
    if storage.own.is_none() {
        eprintln!("SKIPPED very many names: it takes minutes where each name is a journey");
        return;
    }
    let directory = storage.directory("many");
    let path = storage.path(&directory).unwrap();
    let first = path.join("000001");
    std::fs::write(&first, "").unwrap();
    for number in 2..=MANY {
        std::fs::hard_link(&first, path.join(format!("{number:06}")))
            .or_else(|_| std::fs::write(path.join(format!("{number:06}")), ""))
            .unwrap();
    }
    let mut board = storage.board(0);
    let Listed::Names(names) = board.list(&directory) else { panic!("no list") };
    assert!(names.len() == MANY && names.is_sorted(), "{}", names.len());
    // The helper lives on.
    assert_eq!(board.read(&format!("{directory}/none")), Read::Absent);
}

/// A board on `directory` whose helper's calls fail as `fault` says.
fn faulty(place: &Path, directory: &Path, fault: &str, limit: Duration) -> HelperBoard {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/storage/faults.c");
    let library = place.join("faults.so");
    if !library.exists() {
        let words = ["-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap(), source, "-ldl"];
        let built = Command::new("cc").args(words).output().unwrap();
        assert!(built.status.success(), "{built:?}");
    }
    let mut words = vec![
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAULT={fault}"),
        format!("FAULT_ROOT={}", directory.display()),
    ];
    words.extend(helper(directory));
    HelperBoard::new(words, limit)
}

const EPERM: i32 = 1;
const EIO: i32 = 5;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ESTALE: i32 = 116;

/// A local board with a fleet's directories, whose helper's calls fail as `fault` says.
fn broken(fault: &str) -> (tempfile::TempDir, PathBuf, HelperBoard) {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("board");
    for name in ["rollouts", "nodes"] {
        std::fs::create_dir_all(directory.join(name)).unwrap();
    }
    let board = faulty(place.path(), &directory, fault, LIMIT);
    (place, directory, board)
}

const NAME: &str = "rollouts/000001";

#[test]
fn a_lost_reply_does_not_hide_who_was_first() {
    for errno in [EIO, EEXIST, EPERM, ESTALE] {
        let (_place, directory, mut board) = broken(&format!("linkat {errno} after 1"));
        assert_eq!(board.create(NAME, "mine"), Created::Mine, "errno {errno}");
        assert_eq!(std::fs::read_to_string(directory.join(NAME)).unwrap(), "mine");
        let left = std::fs::read_dir(directory.join("rollouts")).unwrap().count();
        assert_eq!(left, 1, "errno {errno}: a private name was left");
        // And that of somebody else stays theirs, whatever the call says.
        let mut second = faulty(_place.path(), &directory, &format!("linkat {errno} before 1"), LIMIT);
        assert_eq!(second.create(NAME, "other"), Created::Theirs("mine".into()), "errno {errno}");
    }
}

#[test]
fn what_was_not_made_is_not_there_and_certain_where_its_name_was_never_asked_for() {
    for fault in [
        format!("linkat {EIO} before 1"),
        format!("linkat {EEXIST} before 1"),
        // A server may have made it before it became read-only, and been asked twice.
        format!("linkat {EROFS} before 1"),
        format!("write {ENOSPC} before 1"),
        format!("write {EIO} before 1"),
        format!("fsync {EIO} before 1"),
        format!("fsync {ENOSPC} before 1"),
        format!("openat {EROFS} before 1000000"),
    ] {
        let (_place, directory, mut board) = broken(&fault);
        let created = board.create(NAME, "text");
        let is_certain = matches!(created, Created::Refused(_));
        assert!(is_certain || matches!(created, Created::Unknown(_)), "{fault}: {created:?}");
        assert_eq!(is_certain, !fault.contains("linkat"), "{fault}: {created:?}");
        let names: Vec<_> = std::fs::read_dir(directory.join("rollouts")).unwrap().collect();
        let is_alone = names.iter().all(|name| name.as_ref().unwrap().file_name() != "000001");
        assert!(is_alone, "{fault}: it is there");
        if !fault.contains("1000000") {
            // The next one is good: nothing that is left stands in its way.
            assert_eq!(board.create(NAME, "text"), Created::Mine, "{fault}");
        }
    }
}

#[test]
fn a_stale_handle_is_tried_again_and_not_for_ever() {
    let (_place, _, mut board) = broken(&format!("openat {ESTALE} before 3"));
    assert_eq!(board.create(NAME, "text"), Created::Mine);
    let (_place, _, mut board) = broken(&format!("open {ESTALE} before 1000000"));
    assert!(matches!(board.read(NAME), Read::Unreachable(_)));
    assert!(matches!(board.list("rollouts"), Listed::Unreachable(_)));
    assert!(matches!(board.create(NAME, "text"), Created::Refused(_)));
    let (_place, _, mut board) = broken(&format!("open {EIO} before 1000000"));
    assert!(matches!(board.read(NAME), Read::Unreachable(_)));
    assert_eq!(board.clock("nodes"), ClockRead::Unknown);
}

#[test]
fn storage_that_hangs_costs_one_time_limit() {
    for call in ["open", "linkat", "fsync", "write"] {
        let (place, directory, _) = broken("none 1 before 0");
        let mut board =
            faulty(place.path(), &directory, &format!("{call} 0 before 1"), Duration::from_millis(300));
        let created = board.create(NAME, "text");
        assert!(
            matches!(&created, Created::Unknown(why) if why.contains("no answer")),
            "{call}: {created:?}"
        );
        // Another helper finds out what came of it.
        let mut next = HelperBoard::new(helper(&directory), LIMIT);
        assert_eq!(next.create(NAME, "text"), Created::Mine, "{call}");
    }
}

#[test]
fn storage_that_is_full_read_only_or_squashes_root_says_so() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("board");
    std::fs::create_dir(&directory).unwrap();
    let run = |words: &[&str]| Command::new(words[0]).args(&words[1..]).output().unwrap().status.success();
    let text = directory.to_str().unwrap();
    if !nix::unistd::geteuid().is_root() || !run(&["mount", "-t", "tmpfs", "-o", "size=64k", "none", text]) {
        eprintln!("SKIPPED full and read-only storage: only root may mount");
        return;
    }
    let mut board = HelperBoard::new(helper(&directory), LIMIT);
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for name in ["rollouts", "nodes"] {
            assert_eq!(board.prepare(name), Done::Done);
        }
        assert_eq!(board.create("rollouts/000001", "text"), Created::Mine);
        let filled = std::fs::write(directory.join("filling"), vec![0; 1 << 20]);
        assert!(filled.is_err());
        let full = board.create("rollouts/000002", "text");
        assert!(matches!(&full, Created::Refused(why) if why.contains("ENOSPC")), "{full:?}");
        assert_eq!(board.read("rollouts/000001"), Read::Bytes("text".into()));
        std::fs::remove_file(directory.join("filling")).unwrap();
        assert_eq!(board.create("rollouts/000002", "text"), Created::Mine);

        assert!(run(&["mount", "-o", "remount,ro", text]));
        let only_read = board.create("rollouts/000003", "text");
        assert!(matches!(&only_read, Created::Refused(why) if why.contains("EROFS")), "{only_read:?}");
        assert_eq!(board.read("rollouts/000002"), Read::Bytes("text".into()));
        assert!(run(&["mount", "-o", "remount,rw", text]));

        // A server that squashes root: what root may do here, nobody may not.
        assert!(run(&["chmod", "0755", place.path().to_str().unwrap(), text]));
        assert!(run(&["chmod", "0755", directory.join("rollouts").to_str().unwrap()]));
        let program = place.path().join("cutover");
        std::fs::hard_link(CUTOVER, &program)
            .or_else(|_| std::fs::copy(CUTOVER, &program).map(|_| ()))
            .unwrap();
        let mut words =
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(String::from).to_vec();
        words.extend(helper(&directory));
        words[4] = program.to_str().unwrap().to_owned();
        let mut squashed = HelperBoard::new(words, LIMIT);
        assert_eq!(squashed.read("rollouts/000001"), Read::Bytes("text".into()));
        let refused = squashed.create("rollouts/000003", "text");
        assert!(matches!(&refused, Created::Refused(why) if why.contains("EACCES")), "{refused:?}");
    }));
    drop(board);
    assert!(run(&["umount", "-l", text]));
    checked.unwrap();
}

/// A place of its own for a fleet on this storage, as its nodes are told, for [`Fleet::new`]: `@` stands for a node's
/// number.
fn told(storage: &Storage) -> String {
    let own = format!("of-{:016x}", chance());
    let first = &storage.clients[0];
    if first.starts_with("exec:") {
        let first = std::env::var("CUTOVER_STORAGE").unwrap().trim().replace("{}", &own);
        return format!("directory = \"{first}\"");
    }
    std::fs::create_dir(Path::new(first).join(&own)).unwrap();
    let is_same = storage.clients.iter().all(|client| client == first);
    let mounts = if is_same { first.clone() } else { first.strip_suffix('0').unwrap().to_owned() + "@" };
    format!("directory = \"{mounts}/{own}\"")
}

#[test]
#[ignore = "on real storage: `make test-storage`"]
fn three_nodes_agree_over_this_storage() {
    let storage = Storage::new();
    let times =
        std::env::var("CUTOVER_STORAGE_TIMES").unwrap_or("io = 5s, visibility = 500ms, lead = 8s".into());
    let times: String =
        times.split(", ").map(|time| format!("\n{}\"", time.replace(" = ", " = \""))).collect();
    let fleet = Fleet::new(3, "synchronous", &(told(&storage) + &times));
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
    // The next one is sick on one of them.
    for number in 0..3 {
        fleet.stage(number, "3");
    }
    fleet.propose("3");
    std::fs::write(fleet.path("sick-1"), "").unwrap();
    assert_eq!(fleet.live(calm), "rolled back", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
    eprintln!("two rollouts of 3 nodes: one kept, one rolled back");
}

#[test]
fn two_nodes_check_their_storage_together() {
    let storage = Storage::new();
    let fleet = Fleet::new(2, "synchronous", &told(&storage));
    let check = |number: usize| {
        let mut command = fleet.command(number, &["fleet", "check", "n0", "n1", "--rounds", "20", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = [check(0), check(1)];
    let mut first = Vec::new();
    for child in running {
        let done = child.wait_with_output().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let counts = [&value["rounds"], &value["wrong"], &value["torn"], &value["unknown"]];
        assert_eq!(counts.map(|count| count.as_u64().unwrap()), [20, 0, 0, 0], "{value}");
        assert_eq!(value["hidden"].as_array().unwrap().len(), 1, "{value}");
        first.push(value["first"].clone());
        assert!(matches!(done.status.code(), Some(0 | 1)), "{done:?}");
        eprintln!(
            "hidden for {} ms, {}; cannot: {}",
            value["hidden_longest_ms"], value["first"], value["cannot"]
        );
    }
    assert_eq!(first[0], first[1], "both saw the same");
    // One alone waits, and says for whom.
    let alone = fleet.run(0, &["fleet", "check", "n1", "--wait", "300ms"]);
    let text = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.code() == Some(1) && text.contains("n1 did not come"), "{alone:?}");
    // Without others, its own processes race.
    let own = fleet.run(1, &["fleet", "check", "--rounds", "10"]);
    let text = String::from_utf8_lossy(&own.stdout);
    assert!(own.status.code() == Some(0) && text.contains("10 races of 4"), "{own:?}");
}

/// Runs a command of node `number` while the storage hangs: how long it took, and how it ended. Fails if its process
/// ever waited for the storage.
fn without_storage(fleet: &Fleet, number: usize, words: &[&str]) -> (Duration, Option<i32>) {
    let began = Instant::now();
    let mut child = fleet.command(number, words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let process = format!("/proc/{}", child.id());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let read = |what: &str| std::fs::read_to_string(format!("{process}/{what}")).unwrap_or_default();
        let is_waiting = read("stat").rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('D'));
        // It may wait for its own disk, but not for a mount that somebody serves.
        let stack = if is_waiting { read("stack") } else { String::new() };
        assert!(!["fuse", "nfs", "rpc"].iter().any(|what| stack.contains(what)), "{words:?}: {stack}");
        assert!(began.elapsed() < PATIENCE, "{words:?} hangs");
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = began.elapsed();
    eprintln!("storage hangs: `cutover {}` took {:.0} ms", words.join(" "), took.as_secs_f64() * 1000.0);
    (took, status.code())
}

#[test]
#[ignore = "on real storage that can be made to hang: `make test-storage`"]
fn local_commands_do_not_wait_for_storage_that_hangs() {
    let shell = |variable: &str| {
        let line = std::env::var(variable).unwrap();
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    };
    if std::env::var("CUTOVER_STORAGE_HANG").is_err() {
        eprintln!("SKIPPED storage that hangs: this one is not made to");
        return;
    }
    let storage = Storage::new();
    let fleet = Fleet::new(3, "synchronous", &(told(&storage) + "\nio = \"5s\"\ntrial = \"60s\""));
    fleet.propose("2");
    // All have switched, and nobody has vouched; then the storage hangs.
    let mut running: Vec<_> = (0..3).map(|number| fleet.begin(number)).collect();
    let is_in_trial = |number: usize| {
        let journal = std::fs::read_to_string(fleet.root(number).join(".cutover/journal.json"));
        journal.is_ok_and(|text| text.contains("\"trial\""))
    };
    eventually(|| (0..3).all(is_in_trial).then_some(()));
    shell("CUTOVER_STORAGE_HANG");
    // Whoever asked it would wait for one `io` at least.
    let limit = Duration::from_secs(5);
    let mut took = vec![without_storage(&fleet, 0, &["status"])];
    // Whoever watches the trial is waited for, and waits for its own helper: one `io`, not a second.
    let (_, code) = without_storage(&fleet, 1, &["rollback", "--now"]);
    assert_eq!((code, fleet.active(1).as_str()), (Some(0), "1"));
    // One whose updater is gone, as after a crash. A boot may ask for the outcome for two seconds.
    drop(running[2].kill());
    drop(running[2].wait());
    took.push(without_storage(&fleet, 2, &["status"]));
    without_storage(&fleet, 2, &["recover", "--boot"]);
    took.push(without_storage(&fleet, 2, &["rollback"]));
    assert!(matches!(took[2].1, Some(0 | 10)), "{took:?}");
    assert_eq!(fleet.active(2), "1");
    // With nothing under way.
    for words in [["status"], ["recover"]] {
        took.push(without_storage(&fleet, 2, &words));
    }
    shell("CUTOVER_STORAGE_RESUME");
    assert!(took.iter().all(|(time, _)| *time < limit), "{took:?}");
    for mut child in running {
        drop(child.wait());
    }
    assert_eq!(fleet.live(calm), "rolled back", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
}
