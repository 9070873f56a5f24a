//! What a publisher does by mistake is refused before a node sees it, and nothing is written.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::places::{follow, registry};
use crate::refusals::Desk;

impl Desk {
    /// The files of a directory, but for those of the lock.
    fn files(&self, directory: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path(directory)).unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect()
    }

    /// The command ends with this code and says these words, and the directories are as they were.
    #[track_caller]
    fn slips(&self, directories: &[&str], words: &[&str], code: i32, wanted: &[&str]) {
        let state = || directories.iter().map(|name| self.files(name)).collect::<Vec<_>>();
        let before = state();
        let (found, said) = self.run(words);
        assert_eq!(found, code, "{words:?}: {said}");
        for part in wanted {
            assert!(said.contains(part), "{words:?}: `{part}` is not in: {said}");
        }
        assert_eq!(state(), before, "{words:?}: something was written");
    }

    /// Release 9 of product `till`, in this directory.
    fn till(&self, directory: &str) {
        let archive = format!("{directory}/till-9.tar.zst");
        self.well(&["pack", "app", "--product", "till", "--version", "9", "-o", &archive]);
    }
}

#[test]
fn a_release_of_another_product_does_not_go_into_a_channel() {
    let desk = Desk::new();
    for name in ["till", "place"] {
        fs::create_dir(desk.path(name)).unwrap();
    }
    desk.till("source");
    desk.till("till");
    desk.well(&["publish", "source", "1.1", "--product", "shop", "--key", "team", "--to", "place"]);
    let all = ["source", "till", "place"];
    let (here, there) =
        ("is of product `shop`, and the release is of `till`", "the channel of product `shop`");
    let publish = ["--product", "till", "--key", "team"];
    desk.slips(&all, &[&["publish", "source", "9"], &publish[..]].concat(), 12, &[here, "--channel"]);
    desk.slips(&all, &[&["publish", "source", "9", "--serial", "90"], &publish[..]].concat(), 12, &[here]);
    desk.slips(&all, &["publish", "source/till-9.manifest", "--key", "team"], 12, &[here]);
    let to = ["--key", "team", "--to", "place"];
    desk.slips(&all, &[&["publish", "till", "9"], &to[..]].concat(), 12, &[here, "place/stable.channel"]);
    desk.slips(&all, &[&["publish", "till", "9", "--product", "till"], &to[..]].concat(), 12, &[here]);
    for _ in 0..9 {
        desk.well(&["publish", "till", "9", "--product", "till", "--key", "team"]);
    }
    desk.slips(&all, &["copy", "till", "place"], 12, &[there]);
    desk.slips(&all, &["copy", "till", "place", "--dry-run"], 12, &[there]);
    // Its own channel has room beside the other one.
    desk.well(&[&["publish", "source", "9", "--channel", "till"], &publish[..]].concat());
}

#[test]
fn only_keys_that_nodes_accept_sign() {
    let desk = Desk::new();
    for kind in ["rsa", "ecdsa"] {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(desk.path(kind)).status();
        assert!(made.unwrap().success(), "ssh-keygen is needed (Debian: openssh-client)");
        let wanted = ["is of type `", "only ed25519 keys count", "cutover keygen"];
        let all = ["source"];
        fs::write(desk.path("app/file"), kind).unwrap();
        let (version, archive) = (format!("2-{kind}"), format!("source/shop-2-{kind}.tar.zst"));
        desk.well(&["pack", "app", "--product", "shop", "--version", &version, "-o", &archive]);
        for key in [kind.to_owned(), format!("{kind}.pub")] {
            desk.slips(&all, &["publish", "source", &version, "--key", &key], 2, &wanted);
            let keys = ["--key", "team", "--channel-key", &key];
            desk.slips(&all, &[&["publish", "source", &version], &keys[..]].concat(), 2, &wanted);
            desk.slips(&all, &["sign", "source/shop-1.1.manifest", "--key", &key], 2, &wanted);
            desk.slips(&all, &["sign", "source/stable.channel", "--key", &key], 2, &wanted);
        }
    }
    assert_eq!(desk.update().0, 0, "what is there is taken as before");
}

#[test]
fn a_channel_begun_anew_forbids_what_the_one_before_forbade() {
    let desk = Desk::new();
    desk.key("new");
    fs::copy(desk.path("new.pub"), desk.path("keys/new.pub")).unwrap();
    desk.release("1.2");
    desk.well(&[
        "publish",
        "source",
        "1.2",
        "--key",
        "team",
        "--revoke",
        "1.1",
        "--minimum",
        "1.0",
        "--percent",
        "5",
    ]);
    let anew = ["-q", "publish", "source", "1.2", "--channel-key", "new", "--serial", "50"];
    let all = ["source"];
    desk.slips(&all, &anew, 12, &["revoked 1.1, minimum 1.0, percent 5", "cutover sign"]);
    desk.slips(&all, &[&anew[..], &["--revoke", "1.1"]].concat(), 12, &["minimum 1.0, percent 5"]);
    desk.slips(
        &all,
        &["publish", "source", "1.1", "--channel-key", "new", "--serial", "50"],
        12,
        &["revoked 1.1"],
    );
    // Said again, it is not lost.
    let again = ["--revoke", "1.1", "--minimum", "1.0", "--percent", "100", "--dry-run"];
    desk.slips(&all, &[&anew[..], &again].concat(), 0, &["serial 50"]);
    // With the new key's signature beside the old one, everything stays.
    desk.well(&["sign", "source/stable.channel", "--key", "new"]);
    desk.well(&["-q", "publish", "source", "1.2", "--channel-key", "new"]);
    let channel = fs::read_to_string(desk.source("stable.channel")).unwrap();
    for kept in ["serial = 5\n", "revoked = 1.1\n", "minimum = 1.0\n", "percent = 5\n", "also = 1.0 "] {
        assert!(channel.contains(kept), "{kept}: {channel}");
    }
    let signature = fs::read(desk.source("stable.channel.sig")).unwrap();
    assert!(signature.len() < 400, "only the new key has signed it");
    assert_eq!(desk.run(&["--config", "node.toml", "stage", "1.1"]).0, 12, "it is revoked still");
}

#[test]
fn a_serial_that_nodes_refuse_is_not_published() {
    let desk = Desk::new();
    let publish = |serial: &'static str| ["publish", "source", "1.0", "--key", "team", "--serial", serial];
    for (serial, wanted) in [
        ("1", "has serial 1, and serial 2 was accepted before"),
        ("2", "two were signed for one number"),
        ("18446744073709551615", "leaves no room for later ones"),
        ("18446744073709551000", "leaves no room for later ones"),
    ] {
        desk.slips(&["source"], &publish(serial), 2, &["the channel would be refused", wanted, "--serial"]);
    }
    desk.well(&publish("7"));
    assert_eq!(desk.update().0, 0);
    // One begun anew over a channel that nobody vouches for counts on, too.
    desk.key("new");
    let anew = ["publish", "source", "1.0", "--channel-key", "new", "--serial", "6"];
    desk.slips(&["source"], &anew, 2, &["serial 7 was accepted before"]);
}

#[test]
fn a_manifest_on_the_command_line_is_the_one_that_is_published() {
    let desk = Desk::new();
    desk.till("source");
    fs::create_dir(desk.path("other")).unwrap();
    desk.till("other");
    fs::rename(desk.path("other/till-9.manifest"), desk.path("other/app.manifest")).unwrap();
    let wanted = ["`other/app.manifest`", "under the name `till-9.manifest`", "rename it"];
    desk.slips(&["other"], &["publish", "other/app.manifest", "--key", "team"], 2, &wanted);
    let other = ["publish", "source/till-9.manifest", "--product", "shop", "--key", "team"];
    desk.slips(&["source"], &other, 2, &["is of product `till`"]);
    // It says its product itself, whichever others are beside it.
    desk.well(&["publish", "source/till-9.manifest", "--channel", "till", "--key", "team"]);
    let channel = fs::read_to_string(desk.source("till.channel")).unwrap();
    assert!(channel.contains("product = till\n") && channel.contains("release = 9 "), "{channel}");
}

#[test]
fn two_releases_do_not_share_an_archive() {
    let desk = Desk::new();
    let release = |version: &str| {
        let bytes = fs::read(desk.source("shop-1.0.tar.zst")).unwrap();
        let bytes = [&bytes[..], version.as_bytes()].concat();
        fs::write(desk.source("app.tar"), &bytes).unwrap();
        let digest = cutover::types::Digest::of(&bytes).hex();
        let manifest = format!(
            "format = 1\nproduct = shop\nversion = {version}\narchive = app.tar\nsize = {}\nsha256 = {digest}\n",
            bytes.len()
        );
        fs::write(desk.source(&format!("shop-{version}.manifest")), manifest).unwrap();
    };
    release("3");
    desk.well(&["publish", "source", "3", "--key", "team"]);
    desk.well(&["publish", "source", "3", "--key", "team"]);
    release("4");
    let publish = ["publish", "source", "4", "--key", "team"];
    desk.slips(
        &["source"],
        &publish,
        12,
        &["app.tar` is the archive of release 3 as well", "a name of its own"],
    );
    // A place where nodes read, from a directory that has only the new one.
    fs::create_dir(desk.path("place")).unwrap();
    let to = |version: &'static str, place| ["publish", "source", version, "--key", "team", "--to", place];
    release("3");
    desk.well(&to("3", "place"));
    fs::remove_file(desk.source("shop-3.manifest")).unwrap();
    release("4");
    let wanted = ["place/app.tar` is the archive of release 3: that of release 4"];
    desk.slips(&["place"], &to("4", "place"), 12, &wanted);
    // A registry keeps each release by itself.
    let Some((_daemon, port)) = registry("archives", &desk, false) else { return };
    let url = format!("oci://localhost:{port}/shop");
    desk.well(&["copy", "place", &url]);
    desk.well(&["publish", "source", "4", "--key", "team", "--to", &url]);
    follow(&desk, &url, "");
    desk.well(&["--config", "node.toml", "check"]);
}
