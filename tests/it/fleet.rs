//! Fleets of real processes: own roots, one shared directory, the real binary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cutover::coord::facts::names;
use cutover::types::Digest;

const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");

/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Nobody takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Fleet {
    directory: tempfile::TempDir,
    pub size: usize,
}

/// The nodes while they live: what the timer has started, and which are off.
#[derive(Default)]
pub struct Nodes {
    pub running: BTreeMap<usize, Child>,
    pub off: BTreeSet<usize>,
}

impl Fleet {
    /// A fleet whose nodes run release 1 and have release 2 staged; `settings` goes into each `[fleet]` table, with
    /// the node's number for `@`.
    pub fn new(size: usize, mode: &str, settings: &str) -> Self {
        let fleet = Self { directory: tempfile::tempdir().unwrap(), size };
        for directory in [fleet.share(), fleet.path("mounts")] {
            std::fs::create_dir(directory).unwrap();
        }
        for version in ["1", "2", "3"] {
            let tree = fleet.path(&format!("tree-{version}"));
            std::fs::create_dir(&tree).unwrap();
            std::fs::write(tree.join("app"), version).unwrap();
            let archive = fleet.archive(version);
            let words = ["pack", tree.to_str().unwrap(), "--product", "shop", "--version", version, "-o"];
            let packed = Command::new(CUTOVER).args(words).arg(&archive).output().unwrap();
            assert!(packed.status.success(), "{packed:?}");
        }
        for number in 0..size {
            fleet.make_node(number, mode, settings);
        }
        assert_eq!(fleet.run(0, &["fleet", "init"]).status.code(), Some(0));
        for number in 0..size {
            let first = fleet.archive("1");
            let update = ["update", first.to_str().unwrap(), "--allow-unsigned"];
            for words in [&update[..], &["fleet", "join"]] {
                let done = fleet.run(number, words);
                assert_eq!(done.status.code(), Some(0), "{done:?}");
            }
            fleet.stage(number, "2");
        }
        let listed = fleet.run(0, &["fleet", "members", "--all"]);
        assert_eq!(listed.status.code(), Some(0), "{listed:?}");
        fleet
    }

    fn make_node(&self, number: usize, mode: &str, settings: &str) {
        let root = self.root(number);
        std::fs::create_dir(&root).unwrap();
        self.plug(number);
        let settings = &settings.replace('@', &number.to_string());
        let sick = self.path(&format!("sick-{number}"));
        let text = format!(
            r#"root = "{}"
[health]
min_healthy = "300ms"
interval = "100ms"
fail_threshold = 1
baseline = "off"
[[health.check]]
name = "well"
exec = {{ command = ["/bin/sh", "-c", "! {{ test -e {} && grep -q 3 {}/current/app; }}"] }}
[policy]
jitter = "0s"
[fleet]
mode = "{mode}"
name = "shop"
directory = "{}"
node = "n{number}"
allow_unsigned = true
poll = "200ms"
visibility = "200ms"
lead = "4s"
late = "4s"
stop = "4s"
trial = "12s"
settle = "4s"
back = "1s"
decider_step = "300ms"
io = "2s"
skew = "2s"
soak = "0s"
{settings}
"#,
            root.display(),
            sick.display(),
            root.display(),
            self.mount(number).join("share").display()
        );
        // What `settings` says goes before what stands above it.
        let keys: Vec<&str> = settings.lines().filter_map(|line| line.split(" =").next()).collect();
        let (base, said) = text.split_at(text.len() - settings.len() - 1);
        let is_said = |line: &&str| keys.iter().any(|key| line.starts_with(&format!("{key} =")));
        let kept: Vec<&str> = base.lines().filter(|line| !is_said(line)).collect();
        std::fs::write(self.config(number), format!("{}\n{said}", kept.join("\n"))).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn share(&self) -> PathBuf {
        self.path("share")
    }

    /// A decision about the rollout of this number, whether it is there or not.
    pub fn decision(&self, number: u64, gate: &str) -> PathBuf {
        let path = self.share().join(names::proposal(number));
        let proposal = Digest::of(&std::fs::read(&path).unwrap_or_default());
        let decisions = names::Decisions { rollout: number, proposal };
        // In a directory of the format before, decisions stand beside the proposal.
        let is_flat = path.exists() && !self.share().join(decisions.directory()).exists();
        if is_flat { path.with_extension(gate) } else { self.share().join(decisions.gate(gate)) }
    }

    /// Each node reaches the shared directory over a link of its own, so that it can be cut off alone.
    fn mount(&self, number: usize) -> PathBuf {
        self.path(&format!("mounts/{number}"))
    }

    pub fn plug(&self, number: usize) {
        drop(std::os::unix::fs::symlink(self.directory.path(), self.mount(number)));
    }

    pub fn unplug(&self, number: usize) {
        drop(std::fs::remove_file(self.mount(number)));
    }

    pub fn root(&self, number: usize) -> PathBuf {
        self.path(&format!("n{number}"))
    }

    pub fn config(&self, number: usize) -> PathBuf {
        self.path(&format!("n{number}.toml"))
    }

    fn archive(&self, version: &str) -> PathBuf {
        self.path(&format!("shop-{version}.tar.zst"))
    }

    pub fn stage(&self, number: usize, version: &str) {
        let archive = self.archive(version);
        let staged = self.run(number, &["stage", archive.to_str().unwrap(), "--allow-unsigned"]);
        assert_eq!(staged.status.code(), Some(0), "{staged:?}");
    }

    pub fn command(&self, number: usize, words: &[&str]) -> Command {
        let mut command = Command::new(CUTOVER);
        command.arg("--config").arg(self.config(number)).args(words).stdin(Stdio::null());
        command
    }

    pub fn run(&self, number: usize, words: &[&str]) -> Output {
        self.command(number, words).output().unwrap()
    }

    /// The same, by the clock that this node has at the moment.
    pub fn command_in_its_time(&self, number: usize, words: &[&str]) -> Command {
        let command = self.command(number, words);
        let Ok(offset) = std::fs::read_to_string(self.clock(number)) else { return command };
        let mut faked = Command::new("faketime");
        // The clock of the boot does not step.
        faked
            .args(["--exclude-monotonic", "-f", &offset])
            .arg(command.get_program())
            .args(command.get_args());
        faked.stdin(Stdio::null());
        faked
    }

    /// Where stands how far the clock of a node is off, if it is.
    pub fn clock(&self, number: usize) -> PathBuf {
        self.path(&format!("clock-{number}"))
    }

    /// Gives a node another name in its settings.
    pub fn rename(&self, number: usize, name: &str) {
        let text = std::fs::read_to_string(self.config(number)).unwrap();
        let named = |line: &str| {
            let line =
                if line.starts_with("node = ") { format!("node = \"{name}\"") } else { line.to_owned() };
            line + "\n"
        };
        std::fs::write(self.config(number), text.lines().map(named).collect::<String>()).unwrap();
    }

    /// A copy of a node's disk, and its updater, in a place of its own; nothing where the disk changes meanwhile.
    pub fn clone_node(&self, number: usize) -> Option<Child> {
        let (root, copy) = (self.root(number), self.path(&format!("n{number}-copy")));
        let done = Command::new("cp").arg("-a").args([&root, &copy]).stderr(Stdio::null()).status().unwrap();
        let text = std::fs::read_to_string(self.config(number)).unwrap();
        let config = self.path(&format!("n{number}-copy.toml"));
        let here = |root: &PathBuf| format!("root = \"{}\"", root.display());
        std::fs::write(&config, text.replacen(&here(&root), &here(&copy), 1)).unwrap();
        let mut command = Command::new(CUTOVER);
        command.arg("--config").arg(config).arg("update").stdin(Stdio::null());
        let begun = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        done.success().then(|| begun.unwrap())
    }

    /// It is switched off, and its disk is gone.
    pub fn forget_clone(&self, number: usize) {
        drop(std::fs::remove_dir_all(self.path(&format!("n{number}-copy"))));
    }

    /// The node at which a person sits who helps this one.
    pub fn helper_of(&self, number: usize) -> usize {
        (number + 1) % self.size
    }

    /// What a person does for a machine that is to go on under a name that is not its own any more.
    pub fn let_in_again(&self, number: usize) {
        let name = format!("n{number}");
        let helper = self.helper_of(number);
        for (who, words) in [
            (helper, &["fleet", "replace", &name][..]),
            (number, &["fleet", "join"][..]),
            (helper, &["fleet", "members", "--add", &name][..]),
        ] {
            let done = self.run(who, words);
            assert_eq!(done.status.code(), Some(0), "{words:?}: {done:?}");
        }
    }

    /// Gives the shared directory a file system of its own, which can be full or read-only: where there is the right to.
    pub fn with_own_disk(&self) -> Option<OwnDisk> {
        let disk = self.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let mount =
            |words: &[&str]| Command::new("mount").args(words).stderr(Stdio::null()).status().unwrap();
        if !mount(&["-t", "tmpfs", "-o", OwnDisk::ROOMY, "none", disk.to_str().unwrap()]).success() {
            return None;
        }
        let moved = Command::new("cp").arg("-a").arg(self.share()).arg(disk.join("share")).status().unwrap();
        assert!(moved.success());
        std::fs::remove_dir_all(self.share()).unwrap();
        std::os::unix::fs::symlink(disk.join("share"), self.share()).unwrap();
        Some(OwnDisk(disk))
    }

    pub fn begin(&self, number: usize) -> Child {
        let log =
            std::fs::File::options().append(true).create(true).open(self.path(&format!("n{number}.log")));
        let log = log.unwrap();
        self.command_in_its_time(number, &["update"])
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap()
    }

    pub fn propose(&self, version: &str) {
        let proposed = self.run(0, &["fleet", "propose", version]);
        assert_eq!(proposed.status.code(), Some(0), "{proposed:?}");
    }

    fn status(&self, key: &str) -> Option<String> {
        let status = self.run(0, &["fleet", "status", "--json"]);
        let value: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        value[key].as_str().map(ToOwned::to_owned)
    }

    pub fn outcome(&self) -> Option<String> {
        self.status("outcome")
    }

    pub fn reason(&self) -> String {
        self.status("reason").unwrap_or_default()
    }

    pub fn active(&self, number: usize) -> String {
        let link = std::fs::read_link(self.root(number).join("current")).unwrap();
        link.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Runs what the timer runs on every node, again and again, until the newest rollout has ended and nobody has
    /// anything left to do. `disturb` may kill, switch off or unplug meanwhile.
    pub fn live(&self, mut disturb: impl FnMut(&mut Nodes)) -> String {
        let began = Instant::now();
        let mut nodes = Nodes::default();
        let mut quiet = 0;
        while quiet < 2 {
            assert!(began.elapsed() < PATIENCE, "stuck: {}", self.why());
            for number in 0..self.size {
                if !nodes.off.contains(&number) {
                    nodes.running.entry(number).or_insert_with(|| self.begin(number));
                }
            }
            disturb(&mut nodes);
            std::thread::sleep(LOOK);
            nodes.running.retain(|_, child| child.try_wait().unwrap().is_none());
            let is_over = nodes.off.is_empty() && self.is_at_rest() && self.outcome().is_some();
            quiet = if is_over { quiet + 1 } else { 0 };
        }
        for (_, mut child) in nodes.running {
            drop(child.wait());
        }
        self.outcome().unwrap()
    }

    pub fn is_at_rest(&self) -> bool {
        (0..self.size).all(|number| {
            let root = self.root(number).join(".cutover");
            let own = std::fs::read_to_string(root.join("fleet.json")).unwrap();
            !root.join("journal.json").exists() && own.contains("\"part\":null")
        })
    }

    pub fn all_run(&self) -> Vec<String> {
        let mut versions: Vec<String> = (0..self.size).map(|number| self.active(number)).collect();
        versions.sort();
        versions.dedup();
        versions
    }

    pub fn why(&self) -> String {
        let status = self.run(0, &["fleet", "status", "--why"]);
        let mut text = String::from_utf8_lossy(&status.stdout).into_owned();
        for number in 0..self.size {
            let log = std::fs::read_to_string(self.path(&format!("n{number}.log"))).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(4).collect();
            text.push_str(&format!("\nn{number} runs {}: {last:?}", self.active(number)));
        }
        text
    }
}

/// The file system of a shared directory.
pub struct OwnDisk(PathBuf);

impl OwnDisk {
    const ROOMY: &str = "rw,size=900m,mode=0755";

    /// Nobody can write any more; whether that could be done just now.
    pub fn freeze(&self) -> bool {
        self.remount("ro")
    }

    /// There is no room any more; whether that could be done just now.
    pub fn fill(&self) -> bool {
        let room = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let used = (room.blocks() - room.blocks_free()) * room.fragment_size();
        self.remount(&format!("rw,size={used}"))
    }

    /// All is well again.
    pub fn mend(&self) {
        assert!(self.remount(Self::ROOMY));
    }

    fn remount(&self, how: &str) -> bool {
        let words = ["-o", &format!("remount,{how}"), self.0.to_str().unwrap()];
        Command::new("mount").args(words).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

pub fn calm(_: &mut Nodes) {}

#[test]
fn what_no_fleet_can_work_with_is_told_beforehand() {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("shop.toml");
    let check = |more: &str| {
        let root = place.path().display();
        let text = format!("root = \"{root}\"\n[fleet]\nmode = \"synchronous\"\n{more}\n");
        std::fs::write(&config, text).unwrap();
        let done =
            Command::new(CUTOVER).arg("--config").arg(&config).args(["config", "check"]).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = check("name = \"shop\"");
    assert!(code == Some(2) && said.contains("`fleet.directory` is not set"), "{said}");
    let whole = "name = \"shop\"\ndirectory = \"/nowhere\"\n";
    assert_eq!(check(whole).0, Some(0));
    let times =
        ["io = \"0s\"", "poll = \"0s\"", "lead = \"1s\"", "vote = \"0s\"", "late = \"0s\"", "skew = \"0s\""];
    for wrong in times.into_iter().chain(["at_once = 0", "max_failed = 0"]) {
        let (code, said) = check(&format!("{whole}{wrong}"));
        let key = format!("`fleet.{}`", wrong.split(' ').next().unwrap());
        assert!(code == Some(2) && said.contains(&key), "{wrong}: {said}");
    }
}

#[test]
fn three_nodes_switch_together_and_go_back_together() {
    let fleet = Fleet::new(3, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);

    // The next one is sick on one of them.
    for number in 0..3 {
        fleet.stage(number, "3");
    }
    fleet.propose("3");
    std::fs::write(fleet.path("sick-1"), "").unwrap();
    let outcome = fleet.live(calm);
    assert_eq!(outcome, "rolled back", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn with_overlap_none_a_fleet_switches_too() {
    let fleet = Fleet::new(3, "synchronous", "overlap = \"none\"");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn an_abort_leaves_everybody_on_the_old_release() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    let aborted = fleet.run(1, &["fleet", "abort", "--reason", "not today"]);
    assert_eq!(aborted.status.code(), Some(0), "{aborted:?}");
    assert_eq!(fleet.live(calm), "aborted");
    assert_eq!(fleet.all_run(), ["1"]);
    let again = fleet.run(0, &["fleet", "propose", "2"]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
}

#[test]
fn of_two_proposals_at_once_one_is_made_and_the_other_is_told() {
    let fleet = Fleet::new(2, "synchronous", "");
    let began = Instant::now();
    loop {
        let both = [0, 1].map(|number| {
            let mut command = fleet.command(number, &["fleet", "propose", "2"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let ended = both.map(|child| child.wait_with_output().unwrap());
        let made = ended.iter().filter(|output| output.status.success()).count();
        assert_eq!(made, 1, "{ended:?}");
        let lost = ended.iter().find(|output| !output.status.success()).unwrap();
        let told = String::from_utf8_lossy(&lost.stderr);
        if lost.status.code() == Some(13) {
            assert!(told.contains("was just proposed by"), "{told}");
            return;
        }
        // It came so late that it saw the other.
        assert_eq!(lost.status.code(), Some(15), "{told}");
        assert!(began.elapsed() < PATIENCE, "no two were ever made at once");
        let aborted = fleet.run(0, &["fleet", "abort"]);
        assert_eq!(aborted.status.code(), Some(0), "{aborted:?}");
    }
}

#[test]
fn a_rollout_that_demands_rehearsals_ends_where_none_are_configured() {
    let fleet = Fleet::new(2, "synchronous", "overlap = \"rehearsed\"");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "aborted");
    assert_eq!(fleet.all_run(), ["1"]);
    let vote = std::fs::read_to_string(fleet.share().join("nodes/n0/000001.vote")).unwrap_or_default()
        + &std::fs::read_to_string(fleet.share().join("nodes/n1/000001.vote")).unwrap_or_default();
    assert!(vote.contains("demands rehearsals") && !vote.contains("\"vote\":\"yes\""), "{vote}");
}

#[test]
fn a_rolling_rollout_reaches_all_one_after_the_other() {
    let fleet = Fleet::new(3, "rolling", "at_once = 1");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["2"]);
}

#[test]
fn nodes_that_sign_their_facts_switch_together_and_one_by_one() {
    for mode in ["synchronous", "rolling"] {
        let fleet = Fleet::new(3, mode, "facts = \"signed\"");
        fleet.propose("2");
        assert_eq!(fleet.live(calm), "kept", "{mode}: {}", fleet.why());
        assert_eq!(fleet.all_run(), ["2"], "{mode}");
        let vote = if mode == "rolling" { "report" } else { "vote" };
        let fact = std::fs::read_to_string(fleet.share().join(format!("nodes/n1/000001.{vote}"))).unwrap();
        assert!(fact.contains("\nsig "), "{mode}: {fact}");
    }
}

#[test]
fn a_kept_rollout_is_undone_in_one_round_to_what_all_have() {
    let fleet = Fleet::new(3, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    // Their heartbeats say what they run now.
    for number in 0..3 {
        fleet.run(number, &["update"]);
    }
    let back = fleet.run(0, &["fleet", "propose", "--rollback"]);
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
    // Back again to 2 is possible, and then one node loses what it would go back to.
    for number in 0..3 {
        fleet.run(number, &["update"]);
    }
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    std::fs::remove_dir_all(fleet.root(1).join("releases/1")).unwrap();
    for number in 0..3 {
        fleet.run(number, &["update"]);
    }
    let refused = fleet.run(0, &["fleet", "propose", "--rollback"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("1 is missing on n1"), "{text}");
}

#[test]
fn a_report_says_when_each_node_did_what() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    let report = fleet.run(1, &["fleet", "report", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(value["outcome"], "kept");
    let members = value["report"]["members"].as_array().unwrap();
    assert_eq!(members.len(), 2);
    for member in members {
        for moment in ["stopped", "switched", "started", "healthy"] {
            assert!(member[moment].is_string(), "{moment}: {member}");
        }
        assert!(member["back"].is_null() && member["gap_ms"].is_u64(), "{member}");
    }
    assert_eq!(value["report"]["is_mixed"], false);
    let text = String::from_utf8(fleet.run(0, &["fleet", "report"]).stdout).unwrap();
    assert!(text.contains("switched within") && text.contains("longest away"), "{text}");
    let status = String::from_utf8(fleet.run(0, &["fleet", "status"]).stdout).unwrap();
    for word in ["plan     commit", "go       go", "outcome  keep", "SWITCHED", "SEEN"] {
        assert!(status.contains(word), "{word}: {status}");
    }
}

#[test]
fn going_back_by_hand_needs_no_storage() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    assert_eq!(fleet.live(calm), "kept", "{}", fleet.why());
    std::fs::rename(fleet.share(), fleet.path("unplugged")).unwrap();
    let back = fleet.run(0, &["rollback"]);
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    assert_eq!((fleet.active(0), fleet.active(1)), ("1".into(), "2".into()));
    let update = fleet.run(1, &["update"]);
    assert_eq!(update.status.code(), Some(17), "{update:?}");
    let check = fleet.run(1, &["fleet", "check"]);
    assert_eq!(check.status.code(), Some(17), "{check:?}");
}

#[test]
fn a_proposal_that_nobody_signed_moves_nobody() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    for number in 0..2 {
        let config = std::fs::read_to_string(fleet.config(number)).unwrap();
        let strict = config.replace("allow_unsigned = true\npoll", "poll");
        std::fs::write(fleet.config(number), strict).unwrap();
        let update = fleet.run(number, &["update"]);
        assert_eq!(update.status.code(), Some(0), "{update:?}");
    }
    assert_eq!(fleet.all_run(), ["1"]);
    let refused = fleet.run(0, &["fleet", "propose", "2"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// A node that was off when all went back reads that at its boot, before its services start.
#[test]
fn a_boot_reads_the_outcome_before_the_new_release_starts_once_more() {
    let fleet = Fleet::new(2, "synchronous", "");
    let slow = std::fs::read_to_string(fleet.config(1)).unwrap().replace("\"300ms\"", "\"60s\"");
    std::fs::write(fleet.config(1), slow).unwrap();
    fleet.propose("2");
    let mut both = [fleet.begin(0), fleet.begin(1)];
    let switched = fleet.share().join("nodes/n1/000001.switched");
    let began = Instant::now();
    while !switched.exists() {
        assert!(began.elapsed() < PATIENCE, "stuck: {}", fleet.why());
        std::thread::sleep(LOOK);
    }
    drop(both[1].kill());
    drop(both[1].wait());
    // Storage that is away is not waited for, and decides nothing.
    fleet.unplug(1);
    let boot = fleet.run(1, &["recover", "--boot"]);
    assert_eq!((boot.status.code(), fleet.active(1).as_str()), (Some(0), "2"), "{boot:?}");
    fleet.plug(1);
    let aborted = fleet.run(0, &["fleet", "abort", "--reason", "one has died"]);
    assert_eq!(aborted.status.code(), Some(0), "{aborted:?}");
    let boot = fleet.run(1, &["recover", "--boot"]);
    assert_eq!((boot.status.code(), fleet.active(1).as_str()), (Some(0), "1"), "{boot:?}");
    drop(both[0].wait());
    assert_eq!(fleet.live(calm), "rolled back", "{}", fleet.why());
    assert_eq!(fleet.all_run(), ["1"]);
}

/// A node that is killed while it waits for the instant holds it all the same.
#[test]
fn a_node_that_is_replaced_before_the_instant_switches_with_the_others() {
    let fleet = Fleet::new(2, "synchronous", "");
    fleet.propose("2");
    let journal = fleet.root(1).join(".cutover/journal.json");
    let mut is_killed = false;
    let outcome = fleet.live(|nodes| {
        let waits = std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"switching\""));
        if waits && !is_killed && fleet.active(1) == "1" {
            let mut child = nodes.running.remove(&1).unwrap();
            drop((child.kill(), child.wait()));
            is_killed = true;
        }
    });
    assert!(is_killed, "{}", fleet.why());
    assert_eq!((outcome.as_str(), fleet.all_run()), ("kept", vec!["2".to_owned()]), "{}", fleet.why());
}

/// Who is missed is named, and nobody else: an operator goes there.
#[test]
fn a_member_that_dies_before_the_instant_is_the_one_that_is_named() {
    let fleet = Fleet::new(3, "synchronous", "late = \"1s\"\nstop = \"1s\"");
    fleet.propose("2");
    let gate = |name: &str| fleet.decision(1, name).exists();
    let mut is_killed = false;
    let outcome = fleet.live(|nodes| {
        if gate("go") && !is_killed {
            let mut child = nodes.running.remove(&1).unwrap();
            drop((child.kill(), child.wait()));
            nodes.off.insert(1);
            is_killed = true;
        }
        if gate("outcome") {
            nodes.off.remove(&1);
        }
    });
    assert_eq!((outcome.as_str(), fleet.all_run()), ("rolled back", vec!["1".to_owned()]), "{}", fleet.why());
    assert_eq!(fleet.reason(), "not switched in time: n1");
}

/// A node in doubt, whose updater still waits, takes the outcome that somebody carries to it.
#[test]
fn an_outcome_that_is_carried_ends_the_doubt_of_a_node_at_work() {
    let fleet = Fleet::new(2, "synchronous", "");
    let slow = std::fs::read_to_string(fleet.config(0)).unwrap().replace("\"300ms\"", "\"4s\"");
    std::fs::write(fleet.config(0), slow).unwrap();
    fleet.propose("2");
    let mut both = [fleet.begin(0), fleet.begin(1)];
    let await_name = |is_there: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_there() {
            assert!(began.elapsed() < PATIENCE, "stuck: {}", fleet.why());
            std::thread::sleep(LOOK / 4);
        }
    };
    await_name(&|| fleet.share().join("nodes/n1/000001.report").exists());
    fleet.unplug(1);
    await_name(&|| fleet.decision(1, "outcome").exists());
    drop(both[0].wait());
    let exported = fleet.run(0, &["fleet", "export"]);
    let file = fleet.path("carried");
    std::fs::write(&file, &exported.stdout).unwrap();
    let imported = fleet.run(1, &["fleet", "import", file.to_str().unwrap()]);
    assert_eq!(imported.status.code(), Some(0), "{imported:?}");
    drop(both[1].wait());
    let history = std::fs::read_to_string(fleet.root(1).join(".cutover/history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains("\"committed\""), "{history}");
    assert_eq!(fleet.all_run(), ["2"]);
}
