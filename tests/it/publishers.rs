//! Publishers that are killed, that meet, and that share their directory with somebody who writes into it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutover::release::exclusive::Exclusive;
use cutover::release::judge::Accepted;
use cutover::release::pack::{Error as PackError, Owners, PackOrder, pack_with};
use cutover::release::publish::{self, PublishOrder, Published};
use cutover::release::resolve::{Error, Resolver};
use cutover::release::source::{Directory, Settings};
use cutover::release::trust::{KeyPair, Keyring, Namespace, keys_that_signed, public_key, sign_file};
use cutover::sys::disk::{self, Disk};
use cutover::types::Digest;
use cutover::types::progress::Silent;
use jiff::{SignedDuration, Timestamp};

/// A directory of releases, its publisher's key, and a node that trusts it.
struct Desk {
    directory: tempfile::TempDir,
    now: Timestamp,
}

impl Desk {
    fn new() -> Self {
        let desk =
            Self { directory: tempfile::tempdir().unwrap(), now: "2026-06-01T00:00:00Z".parse().unwrap() };
        for name in ["source", "keys"] {
            fs::create_dir(desk.path(name)).unwrap();
        }
        for name in ["team", "stranger"] {
            let pair = KeyPair::generate(name).unwrap();
            fs::write(desk.path(name), pair.private).unwrap();
            fs::write(desk.path(&format!("{name}.pub")), pair.public).unwrap();
        }
        fs::copy(desk.path("team.pub"), desk.path("keys/team.pub")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn source(&self, name: &str) -> PathBuf {
        self.path("source").join(name)
    }

    fn archive(&self, version: &str, content: &str) {
        fs::write(self.source(&format!("shop-{version}.tar")), content.repeat(100)).unwrap();
    }

    fn order(&self, version: Option<&str>) -> PublishOrder {
        PublishOrder {
            directory: self.path("source"),
            into: self.path("source"),
            is_elsewhere: false,
            channel: "stable".into(),
            product: Some("shop".into()),
            version: version.map(|version| version.parse().unwrap()),
            release_key: Some(self.path("team")),
            channel_key: Some(self.path("team")),
            expires_in: SignedDuration::from_hours(240),
            minimum: None,
            revoked: Vec::new(),
            percent: None,
            waves: Vec::new(),
            serial: None,
            now: self.now,
        }
    }

    fn publish(&self, version: Option<&str>) -> Result<Published, publish::Error> {
        publish::publish(&self.order(version), &Disk::default())
    }

    /// What a node makes of the directory.
    fn node(&self) -> Result<Accepted, Error> {
        let keyring = Keyring::load(&[self.path("keys")], &self.path("revoked")).unwrap();
        let source = Directory::new(self.path("source"));
        let settings = Settings::default();
        let resolver = Resolver {
            source: &source,
            keyring: &keyring,
            settings: &settings,
            product: Some("shop"),
            now: self.now,
        };
        let read = resolver.read_channel(&BTreeMap::new())?;
        let accepted = resolver.judge_channel(&read, &BTreeMap::new())?;
        resolver.release(&accepted, None)?;
        Ok(accepted)
    }

    /// Every file of the directory that the team has signed, by its content.
    fn signed(&self) -> Vec<Digest> {
        let team = public_key(&self.path("team")).unwrap();
        let mut signed = Vec::new();
        for entry in fs::read_dir(self.path("source")).unwrap() {
            let path = entry.unwrap().path();
            let Some(of) = path.to_str().unwrap().strip_suffix(".sig") else { continue };
            let (Ok(bytes), Ok(signature)) = (fs::read(of), fs::read(&path)) else { continue };
            for namespace in [Namespace::Release, Namespace::Channel] {
                if keys_that_signed(namespace.as_str(), &bytes, &signature)
                    .is_ok_and(|keys| keys.contains(&team))
                {
                    signed.push(Digest::of(&bytes));
                }
            }
        }
        signed
    }
}

/// A disk that stops the world before change number `at`, and calls `before` before each change.
fn stopping(at: usize, before: impl Fn(usize) + Send + Sync + 'static) -> (Disk, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let probe: Arc<disk::Probe> = Arc::new(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        before(number);
        if number >= at { Err(std::io::Error::other("stopped here")) } else { Ok(()) }
    });
    (Disk::with_probe(probe), count)
}

#[test]
fn a_publisher_killed_anywhere_leaves_the_old_channel_or_the_new_one() {
    for at in 0.. {
        let desk = Desk::new();
        desk.archive("1.0", "one");
        let mut first = desk.order(Some("1.0"));
        first.revoked = vec!["0.9".parse().unwrap()];
        publish::publish(&first, &Disk::default()).unwrap();
        desk.archive("1.1", "two");
        let (disk, count) = stopping(at, |_| ());
        let result = publish::publish(&desk.order(Some("1.1")), &disk);
        let accepted = desk.node().unwrap_or_else(|error| panic!("stopped before change {at}: {error}"));
        let found = (accepted.channel.serial, accepted.channel.release.version.as_str().to_owned());
        assert!([(1, "1.0".into()), (2, "1.1".into())].contains(&found), "{at}: {found:?}");
        if count.load(Ordering::SeqCst) <= at {
            result.unwrap();
            assert!(at > 8, "only {at} changes were counted");
            break;
        }
        let again = desk.publish(Some("1.1")).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(again.channel.serial >= 2, "{at}");
        assert_eq!(again.channel.revoked.len(), 1, "{at}");
        assert_eq!(again.channel.also.len(), 1, "{at}: {:?}", again.channel.also);
        assert_eq!(desk.node().unwrap().channel, again.channel, "{at}");
        let left = fs::read_dir(desk.path("source")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("next")).collect();
        assert!(left.is_empty(), "{at}: {left:?}");
    }
}

#[test]
fn two_publishers_at_once_take_turns() {
    let rounds = if std::env::var_os("CUTOVER_FUZZ_SECONDS").is_some() { 200 } else { 12 };
    let desk = Desk::new();
    desk.archive("0", "zero");
    desk.publish(Some("0")).unwrap();
    for round in 1..=rounds {
        let versions = [format!("{round}.a"), format!("{round}.b")];
        let serials: Vec<u64> = std::thread::scope(|scope| {
            let threads = versions.each_ref().map(|version| {
                desk.archive(version, version);
                let desk = &desk;
                scope.spawn(move || desk.publish(Some(version)).unwrap().channel.serial)
            });
            threads.map(|thread| thread.join().unwrap()).to_vec()
        });
        let mut serials = serials;
        serials.sort_unstable();
        assert_eq!(serials, [2 * round, 2 * round + 1], "round {round}");
        let accepted = desk.node().unwrap();
        assert_eq!(accepted.channel.serial, 2 * round + 1);
        assert!(versions.iter().all(|version| accepted.channel.find(&version.parse().unwrap()).is_some()));
        assert_eq!(accepted.channel.published.len() as u64, 2 * round + 1);
    }
}

#[test]
fn what_a_stranger_put_in_place_of_a_release_is_not_signed() {
    type Attack = (&'static str, fn(&Desk));
    let attacks: [Attack; 6] = [
        ("archive", |desk| desk.archive("1.0", "evil")),
        ("archive, no manifest", |desk| {
            desk.archive("1.0", "evil");
            fs::remove_file(desk.source("shop-1.0.manifest")).unwrap();
            fs::remove_file(desk.source("shop-1.0.manifest.sig")).unwrap();
        }),
        ("archive and manifest, no signature", |desk| {
            replace(desk);
            fs::remove_file(desk.source("shop-1.0.manifest.sig")).unwrap();
        }),
        ("archive and manifest, a stranger's signature", |desk| {
            replace(desk);
            fs::remove_file(desk.source("shop-1.0.manifest.sig")).unwrap();
            let (file, key) = (desk.source("shop-1.0.manifest"), desk.path("stranger"));
            sign_file(&Disk::default(), &file, &key, Namespace::Release).unwrap();
        }),
        ("a stranger's signature alone", |desk| {
            fs::remove_file(desk.source("shop-1.0.manifest.sig")).unwrap();
            let (file, key) = (desk.source("shop-1.0.manifest"), desk.path("stranger"));
            sign_file(&Disk::default(), &file, &key, Namespace::Release).unwrap();
        }),
        ("the channel is gone", |desk| {
            replace(desk);
            for name in ["shop-1.0.manifest.sig", "stable.channel", "stable.channel.sig"] {
                fs::remove_file(desk.source(name)).unwrap();
            }
        }),
    ];
    for (name, attack) in attacks {
        let desk = Desk::new();
        desk.archive("1.0", "good");
        desk.publish(Some("1.0")).unwrap();
        let signed = desk.signed();
        attack(&desk);
        let refused = desk.publish(None).unwrap_err();
        assert!(!matches!(refused, publish::Error::Disk(_)), "{name}: {refused}");
        assert!(
            desk.signed().iter().all(|digest| signed.contains(digest)),
            "{name}: something new is signed"
        );
    }
    let desk = Desk::new();
    desk.archive("1.0", "good");
    desk.publish(Some("1.0")).unwrap();
    fs::remove_file(desk.source("shop-1.0.manifest.sig")).unwrap();
    desk.publish(None).unwrap();
    desk.node().unwrap();
}

/// Another archive, and a manifest that is right for it.
fn replace(desk: &Desk) {
    let text = fs::read_to_string(desk.source("shop-1.0.manifest")).unwrap();
    desk.archive("1.0", "evil");
    let bytes = fs::read(desk.source("shop-1.0.tar")).unwrap();
    let lines = text.lines().map(|line| match line.split_once(" = ").unwrap().0 {
        "size" => format!("size = {}\n", bytes.len()),
        "sha256" => format!("sha256 = {}\n", Digest::of(&bytes).to_string().trim_start_matches("sha256:")),
        _ => format!("{line}\n"),
    });
    fs::write(desk.source("shop-1.0.manifest"), lines.collect::<String>()).unwrap();
}

#[test]
fn a_hostile_writer_between_any_two_steps_gets_nothing_signed() {
    for at in 0..20 {
        let desk = Desk::new();
        desk.archive("1.0", "good");
        desk.publish(Some("1.0")).unwrap();
        desk.archive("1.1", "also good");
        let good = Digest::of(&fs::read(desk.source("shop-1.1.tar")).unwrap());
        let (manifest, archive) = (desk.source("shop-1.1.manifest"), desk.source("shop-1.1.tar"));
        let (disk, _) = stopping(usize::MAX, move |number| {
            if number == at {
                fs::write(&archive, "evil").unwrap();
                fs::write(&manifest, "format = 1\nproduct = shop\nversion = 1.1\narchive = shop-1.1.tar\n")
                    .unwrap();
            }
        });
        let before = desk.signed();
        drop(publish::publish(&desk.order(Some("1.1")), &disk));
        let signed = desk.signed();
        for path in ["shop-1.1.manifest", "stable.channel"] {
            let bytes = fs::read(desk.source(path)).unwrap();
            if signed.contains(&Digest::of(&bytes)) && !before.contains(&Digest::of(&bytes)) {
                let text = String::from_utf8(bytes).unwrap();
                assert!(
                    path.ends_with("channel")
                        || text.contains(good.to_string().trim_start_matches("sha256:")),
                    "{at}: {text}"
                );
            }
        }
    }
}

#[test]
fn what_a_channel_said_stays_or_its_loss_is_said() {
    let desk = Desk::new();
    desk.archive("1.0", "one");
    desk.archive("1.1", "two");
    let mut order = desk.order(Some("1.0"));
    order.revoked = vec!["0.8".parse().unwrap()];
    order.minimum = Some("0.9".parse().unwrap());
    publish::publish(&order, &Disk::default()).unwrap();
    let second = desk.publish(Some("1.1")).unwrap().channel;
    assert_eq!((second.revoked.len(), second.also.len()), (1, 1));
    assert_eq!(second.minimum, Some("0.9".parse().unwrap()));
    let mut with_serial = desk.order(None);
    with_serial.serial = Some(40);
    let third = publish::publish(&with_serial, &Disk::default()).unwrap();
    assert_eq!((third.channel.revoked, third.channel.also.len()), (second.revoked.clone(), 1));
    fs::write(desk.source("stable.channel.sig"), "broken").unwrap();
    assert!(matches!(desk.publish(None), Err(publish::Error::Signature { .. })));
    let mut anew = desk.order(Some("1.1"));
    anew.serial = Some(50);
    let refused = publish::publish(&anew, &Disk::default()).unwrap_err().to_string();
    assert!(refused.contains("revoked 0.8, minimum 0.9"), "{refused}");
    (anew.revoked, anew.minimum) = (order.revoked, order.minimum);
    let anew = publish::publish(&anew, &Disk::default()).unwrap();
    let notes = anew.notes.join("\n");
    assert!(notes.contains("also 1.0"), "{notes}");
    assert_eq!((anew.channel.revoked, anew.channel.minimum), (second.revoked, second.minimum));
}

#[test]
fn a_publisher_whose_clock_is_behind_is_told_so() {
    let desk = Desk::new();
    desk.archive("1.0", "one");
    desk.publish(Some("1.0")).unwrap();
    let day = SignedDuration::from_hours(24);
    let publish_after = |time: SignedDuration| {
        publish::publish(&PublishOrder { now: desk.now + time, ..desk.order(Some("1.0")) }, &Disk::default())
    };
    let notes = publish_after(-day).unwrap().notes.join("\n");
    assert!(notes.contains("the clock is wrong"), "{notes}");
    desk.node().unwrap();
    // Nodes would take this one for a channel that has expired.
    publish_after(day).unwrap();
    let kept = fs::read(desk.source("stable.channel")).unwrap();
    let refused = publish_after(-day * 30).unwrap_err();
    assert!(matches!(refused, publish::Error::WouldBeRefused(_)), "{refused}");
    assert_eq!(fs::read(desk.source("stable.channel")).unwrap(), kept);
}

#[test]
fn pack_never_replaces_what_is_published_and_leaves_nothing_when_it_fails() {
    let desk = Desk::new();
    let pack = |version: &str| {
        let order = PackOrder {
            directory: desk.path("app"),
            product: "shop".into(),
            version: version.parse().unwrap(),
            output: desk.source(&format!("shop-{version}.tar.zst")),
            base: None,
            level: 3,
            jobs: 1,
            owners: Owners::Root,
        };
        let manifest = desk.source(&format!("shop-{version}.manifest"));
        pack_with(&order, &Disk::default(), &Silent, |packed| {
            let text = format!(
                "format = 1\nproduct = shop\nversion = {version}\narchive = shop-{version}.tar.zst\nsize = {}\n\
                 sha256 = {}\n",
                packed.size,
                packed.sha256.to_string().trim_start_matches("sha256:")
            );
            Disk::default().replace(&manifest, text.as_bytes(), 0o644)
        })
    };
    fs::create_dir(desk.path("app")).unwrap();
    assert!(matches!(pack("1"), Err(PackError::Empty(_))));
    assert_eq!(fs::read_dir(desk.path("source")).unwrap().count(), 0);
    fs::write(desk.path("app/file"), "one").unwrap();
    pack("1").unwrap();
    fs::write(desk.path("app/file"), "two").unwrap();
    pack("1").unwrap();
    desk.publish(Some("1")).unwrap();
    let published = fs::read(desk.source("shop-1.tar.zst")).unwrap();
    fs::write(desk.path("app/file"), "three").unwrap();
    assert!(matches!(pack("1"), Err(PackError::Published(_))));
    fs::remove_file(desk.source("shop-1.manifest.sig")).unwrap();
    assert!(matches!(pack("1"), Err(PackError::Published(_))), "the channel names it");
    assert_eq!(fs::read(desk.source("shop-1.tar.zst")).unwrap(), published);
    let lock = desk.source(".shop-2.tar.zst.lock");
    let held = Exclusive::acquire(&Disk::default(), &lock, std::time::Duration::ZERO).unwrap();
    assert!(matches!(pack("2"), Err(PackError::Lock(_))), "another pack is at work");
    drop(held);
    pack("2").unwrap();
    let names = fs::read_dir(desk.path("source")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".shop")));
}

/// Every file of a directory with its content and time.
fn state_of(directory: &std::path::Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            (entry.path(), (fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap()))
        })
        .collect()
}

#[test]
fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let desk = crate::refusals::Desk::new();
    fs::create_dir(desk.path("place")).unwrap();
    let to = ["publish", "source", "1.1", "--product", "shop", "--key", "team", "--to", "place"];
    desk.well(&to);
    fs::write(desk.path("source/shop-1.2.tar"), [0; 1024]).unwrap();
    let (source, place) = (desk.path("source"), desk.path("place"));
    let before = (state_of(&source), state_of(&place));
    let words = |more: &[&'static str]| {
        let words = ["--json", "publish", "source", "1.2", "--product", "shop", "--key", "team"];
        [&words[..], more].concat()
    };
    let said = desk.well(&words(&["--dry-run"]));
    for name in ["source/shop-1.2.manifest", "source/stable.channel.sig", "\"serial\":4", "\"dry_run\":true"]
    {
        assert!(said.contains(name), "{name}: {said}");
    }
    let said = desk.well(&words(&["--dry-run", "--to", "place"]));
    assert!(said.contains("\"releases\":[\"1.2\"]") && said.contains("\"bytes\":1024"), "{said}");
    assert_eq!((state_of(&source), state_of(&place)), before);
    let (code, said) = desk.run(&words(&["--dry-run", "--minimum", "9"]));
    assert_ne!(code, 0, "{said}");
    assert_eq!((state_of(&source), state_of(&place)), before);
    // What was said is what is done, and what is only there stays in the channel.
    fs::remove_file(desk.path("source/shop-1.1.manifest")).unwrap();
    desk.well(&words(&["--to", "place"]));
    let channel = fs::read_to_string(desk.path("place/stable.channel")).unwrap();
    assert!(channel.contains("also = 1.1 ") && channel.contains("release = 1.2 "), "{channel}");
    let left = fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let ours = left.filter(|name| name.to_string_lossy().starts_with("cutover-publish-"));
    assert_eq!(ours.count(), 0);
}
