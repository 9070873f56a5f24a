//! Attacks upon the real program: each ends with exit code 12 (or another one that says why), one clear sentence, and
//! the pointer where it was.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::node::{Health, TestNode};

/// A publisher's directory and a node that follows it, used by the program alone.
pub struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    /// Release 1.0 is published and runs; 1.1 is published.
    pub fn new() -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["source", "root", "keys", "app"] {
            fs::create_dir(desk.path(name)).unwrap();
        }
        desk.key("team");
        fs::copy(desk.path("team.pub"), desk.path("keys/team.pub")).unwrap();
        desk.configure("");
        desk.release("1.0");
        assert_eq!(desk.update().0, 0);
        desk.release("1.1");
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn source(&self, name: &str) -> PathBuf {
        self.path("source").join(name)
    }

    fn configure(&self, more: &str) {
        let place = self.directory.path().display();
        let text = format!(
            "root = \"{place}/root\"\n[source]\nurl = \"file://{place}/source\"\nkeys = [\"{place}/keys\"]\n\
            revoked = \"{place}/revoked\"\n{more}"
        );
        fs::write(self.path("node.toml"), text).unwrap();
    }

    pub fn run(&self, words: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(words)
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    }

    pub fn well(&self, words: &[&str]) -> String {
        let (code, said) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {said}");
        said
    }

    pub fn key(&self, name: &str) {
        self.well(&["keygen", name]);
    }

    pub fn release(&self, version: &str) {
        fs::write(self.path("app/file"), format!("content of {version}\n").repeat(500)).unwrap();
        let archive = format!("source/shop-{version}.tar.zst");
        self.well(&["pack", "app", "--product", "shop", "--version", version, "-o", &archive]);
        self.well(&["publish", "source", version, "--product", "shop", "--key", "team"]);
    }

    pub fn update(&self) -> (i32, String) {
        self.run(&["--config", "node.toml", "update"])
    }

    pub fn active(&self) -> String {
        let target = fs::read_link(self.path("root/current")).unwrap();
        target.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The update is refused with this code and these words, and nothing has changed.
    #[track_caller]
    fn refuses(&self, code: i32, words: &str) {
        let (found, said) = self.update();
        assert_eq!(found, code, "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(self.active(), "1.0");
        assert_eq!(
            fs::read_to_string(self.path("root/current/file")).unwrap(),
            "content of 1.0\n".repeat(500)
        );
        let releases = fs::read_dir(self.path("root/releases")).unwrap();
        assert_eq!(releases.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["1.0"]);
    }

    /// Changes a file of the source, sees the update refused, and puts the file back.
    #[track_caller]
    fn refuses_with(&self, name: &str, bytes: &[u8], words: &str) {
        let kept = fs::read(self.source(name)).unwrap();
        fs::write(self.source(name), bytes).unwrap();
        self.refuses(12, words);
        fs::write(self.source(name), kept).unwrap();
    }
}

#[test]
fn files_that_are_not_the_signed_ones_are_refused() {
    let desk = Desk::new();
    let read = |name: &str| fs::read(desk.source(name)).unwrap();
    let mut archive = read("shop-1.1.tar.zst");
    desk.refuses_with("shop-1.1.tar.zst", &archive[..archive.len() - 1], "bytes and the digest");
    archive[100] ^= 1;
    desk.refuses_with("shop-1.1.tar.zst", &archive, "sha256");
    desk.refuses_with("shop-1.1.tar.zst", &read("shop-1.0.tar.zst"), "manifest says");
    desk.refuses_with("shop-1.1.manifest", &read("shop-1.0.manifest"), "mixed");
    desk.refuses_with("shop-1.1.manifest.sig", &read("shop-1.0.manifest.sig"), "changed after");
    desk.refuses_with(
        "shop-1.1.manifest.sig",
        &read("stable.channel.sig"),
        "is signed for `cutover-channel`",
    );
    desk.refuses_with("stable.channel.sig", b"", "signature file is damaged");
    desk.refuses_with("stable.channel", b"", "changed after");
    assert_eq!(desk.update().0, 0);
    assert_eq!(desk.active(), "1.1");
}

#[test]
fn every_byte_of_what_is_signed_counts() {
    // The library's test changes every byte; here a part of them goes the whole way. CUTOVER_EVERY_BYTE takes all.
    let step = if std::env::var_os("CUTOVER_EVERY_BYTE").is_some() { 1 } else { 37 };
    let desk = Desk::new();
    let names = [
        "stable.channel",
        "stable.channel.sig",
        "shop-1.1.manifest",
        "shop-1.1.manifest.sig",
        "shop-1.1.tar.zst",
    ];
    for (offset, name) in names.into_iter().enumerate() {
        let whole = fs::read(desk.source(name)).unwrap();
        for index in (offset..whole.len()).step_by(step) {
            let mut changed = whole.clone();
            changed[index] ^= 0x10;
            desk.refuses_with(name, &changed, "error: ");
        }
    }
}

#[test]
fn a_thousand_random_changes_of_an_archive_are_all_noticed() {
    use cutover::release::source::fetch_whole;
    use cutover::types::{Digest, progress::Silent};

    let desk = Desk::new();
    let whole = fs::read(desk.source("shop-1.1.tar.zst")).unwrap();
    let digest = Digest::of(&whole);
    let mut state = 0x5eed_u64;
    for _ in 0..1000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut changed = whole.clone();
        let index = usize::try_from(state >> 33).unwrap() % changed.len();
        changed[index] ^= 1 << ((state >> 20) & 7);
        let mut private = tempfile::tempfile().unwrap();
        assert!(fetch_whole(&changed, whole.len() as u64, digest, &mut private, &Silent).is_err());
        assert_eq!(private.metadata().unwrap().len(), 0, "byte {index}");
    }
}

#[test]
fn an_older_channel_is_refused_until_a_person_says_so() {
    let desk = Desk::new();
    let channel =
        ["stable.channel", "stable.channel.sig"].map(|name| (name, fs::read(desk.source(name)).unwrap()));
    let play_back = || channel.iter().for_each(|(name, bytes)| fs::write(desk.source(name), bytes).unwrap());
    desk.well(&["publish", "source", "1.0", "--key", "team"]);
    assert_eq!(desk.update().0, 0, "the publisher went back, and so nothing is to be done");
    play_back();
    desk.refuses(12, "cutover trust forget-channel");
    desk.well(&["--config", "node.toml", "trust", "forget-channel", "stable"]);
    assert_eq!(desk.update().0, 0);
    assert_eq!(desk.active(), "1.1");
}

#[test]
fn an_expired_channel_blocks_the_way_forward_and_not_the_way_back() {
    let desk = Desk::new();
    assert_eq!(desk.update().0, 0);
    desk.release("1.2");
    desk.well(&["publish", "source", "--key", "team", "--expires", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (code, said) = desk.update();
    assert_eq!(code, 12, "{said}");
    assert!(said.contains("expired at"), "{said}");
    assert_eq!(desk.active(), "1.1");
    fs::remove_dir_all(desk.path("source")).unwrap();
    fs::remove_dir_all(desk.path("keys")).unwrap();
    desk.well(&["--config", "node.toml", "rollback"]);
    assert_eq!(desk.active(), "1.0");
}

#[test]
fn keys_that_do_not_count_are_named() {
    let desk = Desk::new();
    let team = fs::read_to_string(desk.path("team.pub")).unwrap();
    fs::write(desk.path("revoked"), &team).unwrap();
    desk.refuses(12, "is revoked");
    fs::remove_file(desk.path("revoked")).unwrap();
    fs::write(desk.path("keys/team.pub"), format!("x namespaces=\"cutover-channel\" {team}")).unwrap();
    desk.refuses(12, "no key is trusted for `cutover-release`");
    fs::write(desk.path("keys/team.pub"), format!("x valid-before=\"20200101Z\" {team}")).unwrap();
    desk.refuses(12, "is not valid at this time");
    desk.key("other");
    fs::copy(desk.path("other.pub"), desk.path("keys/team.pub")).unwrap();
    desk.refuses(12, "is not trusted here");
    fs::remove_file(desk.path("keys/team.pub")).unwrap();
    desk.refuses(12, "no key is trusted");
    // What the program can't believe is a matter of configuration.
    fs::write(desk.path("keys/team.pub"), "ssh-rsa AAAA\n").unwrap();
    desk.refuses(2, "line 1: keys of type `ssh-rsa` are not supported");
    fs::write(desk.path("keys/team.pub"), &team).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(desk.path("keys/team.pub"), fs::Permissions::from_mode(0o666)).unwrap();
    desk.refuses(2, "can be written by others");
    fs::set_permissions(desk.path("keys/team.pub"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(desk.update().0, 0);
}

#[test]
fn one_key_of_two_is_not_enough() {
    let desk = Desk::new();
    desk.key("second");
    fs::copy(desk.path("second.pub"), desk.path("keys/second.pub")).unwrap();
    desk.configure("threshold = 2\n");
    desk.refuses(12, "it needs signatures of 2 trusted keys, and has 1");
    desk.well(&["sign", "--key", "second", "source/shop-1.1.manifest"]);
    assert_eq!(desk.update().0, 0);
}

#[test]
fn another_product_is_refused_though_nothing_is_configured() {
    let desk = Desk::new();
    let other = Desk::new();
    for name in ["team", "team.pub"] {
        fs::copy(desk.path(name), other.path(name)).unwrap();
    }
    fs::remove_dir_all(other.path("source")).unwrap();
    fs::create_dir(other.path("source")).unwrap();
    other.well(&["pack", "app", "--product", "till", "--version", "9", "-o", "source/till-9.tar.zst"]);
    other.well(&["publish", "source", "9", "--key", "team"]);
    for file in fs::read_dir(other.path("source")).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), desk.source(file.file_name().to_str().unwrap())).unwrap();
    }
    desk.refuses(12, "is of product `till`, and this node runs `shop`");
}

#[test]
fn a_file_of_another_product_is_refused_until_it_is_configured() {
    let desk = Desk::new();
    desk.well(&["pack", "app", "--product", "till", "--version", "9", "-o", "till-9.tar.zst"]);
    desk.well(&["sign", "till-9.manifest", "--key", "team"]);
    let command = |word: &'static str| ["--config", "node.toml", word, "till-9.tar.zst", "--allow-unsigned"];
    for word in ["update", "stage"] {
        let (code, said) = desk.run(&command(word));
        assert_eq!(code, 12, "{said}");
        assert!(said.contains("is of product `till`, and this node runs `shop`"), "{said}");
    }
    assert!(!desk.path("root/releases/9").exists());
    desk.configure("product = \"till\"\n");
    desk.well(&command("update"));
    // Its manifest says which product it is, and the name of an archive without one is only a name.
    desk.configure("");
    let shop = desk.source("shop-1.0.tar.zst");
    let shop = shop.to_str().unwrap();
    assert_eq!(desk.run(&["--config", "node.toml", "update", shop, "--allow-unsigned"]).0, 12);
    fs::copy(shop, desk.path("shop-1.0.tar.zst")).unwrap();
    desk.well(&["--config", "node.toml", "update", "shop-1.0.tar.zst", "--allow-unsigned", "--version", "8"]);
    // Nothing says what runs here now: what ran before does.
    let (code, said) = desk.run(&["--config", "node.toml", "update", shop, "--allow-unsigned"]);
    assert_eq!(code, 12, "{said}");
    desk.configure("product = \"shop\"\n");
    desk.well(&["--config", "node.toml", "update", shop, "--allow-unsigned"]);
}

#[test]
fn endless_files_and_files_that_are_none_are_refused_at_once() {
    let desk = Desk::new();
    let channel = desk.source("stable.channel");
    let kept = fs::read(&channel).unwrap();
    File::options().write(true).open(&channel).unwrap().set_len(1 << 40).unwrap();
    desk.refuses(12, "is longer than 1048576 bytes");
    fs::remove_file(&channel).unwrap();
    nix::unistd::mkfifo(&channel, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    desk.refuses(1, "it is not a regular file");
    fs::remove_file(&channel).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &channel).unwrap();
    desk.refuses(1, "it is a symbolic link");
    fs::remove_file(&channel).unwrap();
    desk.refuses(1, "is not there");
    fs::write(&channel, kept).unwrap();
    assert_eq!(desk.update().0, 0);
}

#[test]
fn an_archive_on_the_command_line_needs_a_signature_or_a_word() {
    let desk = Desk::new();
    fs::create_dir(desk.path("elsewhere")).unwrap();
    let copy = |name: &str, to: &str| fs::copy(desk.source(name), desk.path("elsewhere").join(to)).unwrap();
    copy("shop-1.1.tar.zst", "shop-1.1.tar.zst");
    let update = |more: &[&str]| {
        let words = ["--config", "node.toml", "update", "elsewhere/shop-1.1.tar.zst"];
        desk.run(&[&words[..], more].concat())
    };
    let (code, said) = update(&[]);
    assert_eq!((code, desk.active().as_str()), (12, "1.0"), "{said}");
    copy("shop-1.1.manifest", "shop-1.1.manifest");
    assert_eq!(update(&[]).0, 12, "a manifest alone vouches for nothing");
    copy("shop-1.1.manifest.sig", "shop-1.1.manifest.sig");
    let archive = desk.path("elsewhere/shop-1.1.tar.zst");
    let whole = fs::read(&archive).unwrap();
    change_a_byte(&archive);
    assert_eq!(update(&[]).0, 12);
    assert_eq!(desk.active(), "1.0");
    fs::write(&archive, whole).unwrap();
    assert_eq!(update(&[]).0, 0);
    assert_eq!(desk.active(), "1.1");
}

fn change_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_archive_with_the_wrong_tree_is_unpacked_once_and_leaves_nothing() {
    let node = TestNode::new(&[Health::Good]);
    assert_eq!(node.update(1), 0);
    let source = node.path("source");
    fs::create_dir(&source).unwrap();
    let archive = source.join("app-2.tar.gz");
    let packed =
        Command::new("tar").arg("czf").arg(&archive).arg("-C").arg(node.path("tree-1")).arg(".").status();
    assert!(packed.unwrap().success());
    let bytes = fs::read(&archive).unwrap();
    let manifest = format!(
        "format = 1\nproduct = app\nversion = 2\narchive = app-2.tar.gz\nsize = {}\nsha256 = {}\ntree = {}\n",
        bytes.len(),
        hex(&bytes),
        hex(b"another tree"),
    );
    fs::write(source.join("app-2.manifest"), &manifest).unwrap();
    let channel = format!(
        "format = 1\nproduct = app\nchannel = stable\nserial = 1\nissued = {}\nexpires = {}\nrelease = 2 sha256:{}\n",
        jiff::Timestamp::now().strftime("%FT%TZ"),
        (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).strftime("%FT%TZ"),
        hex(manifest.as_bytes()),
    );
    fs::write(source.join("stable.channel"), channel).unwrap();
    let config = fs::read_to_string(node.config()).unwrap();
    let more = format!("[source]\nurl = '{}'\nallow_unsigned = true\n", source.display());
    fs::write(node.config(), format!("{config}{more}")).unwrap();
    for code in [12, 15, 15] {
        assert_eq!(node.code(&["update"]), code);
        assert_eq!(node.names(".cutover/staging"), [""; 0], "something is left on the disk");
    }
    assert_eq!(node.code(&["check"]), 77);
    let status = node.status();
    assert!(status["blocked"].to_string().contains("its tree has the digest"), "{status}");
    assert_eq!(node.active().as_deref(), Some("1"));
}

fn hex(bytes: &[u8]) -> String {
    cutover::types::Digest::of(bytes).to_string().trim_start_matches("sha256:").to_owned()
}
