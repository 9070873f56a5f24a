//! The attacks that update systems know (the tables of TUF and Uptane), each tried on a real source with real keys.
//! What they cannot reach is said in `docs/security.md`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cutover::release::judge::{Refused, Warning};
use cutover::release::publish::{self, PublishOrder, Published};
use cutover::release::resolve::{Candidate, Error, LocalArchive, Resolver};
use cutover::release::source::{self, Directory, Settings, Source, fetch_whole};
use cutover::release::trust::{KeyPair, Keyring, Namespace, Refusal, sign_file};
use cutover::sys::disk::Disk;
use cutover::types::Version;
use cutover::types::progress::Silent;
use cutover::types::state::SeenChannel;
use jiff::{SignedDuration, Timestamp};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A publisher with a release key and a channel key, and a node that trusts both.
struct Shop {
    directory: tempfile::TempDir,
    now: Timestamp,
    memory: BTreeMap<String, SeenChannel>,
    settings: Settings,
}

impl Shop {
    fn new() -> Self {
        let shop = Self {
            directory: tempfile::tempdir().unwrap(),
            now: "2026-06-01T00:00:00Z".parse().unwrap(),
            memory: BTreeMap::new(),
            settings: Settings::default(),
        };
        for name in ["source", "keys"] {
            fs::create_dir(shop.path(name)).unwrap();
        }
        shop.make_key("release", "cutover-release");
        shop.make_key("channel", "cutover-channel");
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make_key(&self, name: &str, namespace: &str) {
        let pair = KeyPair::generate(name).unwrap();
        fs::write(self.path(name), pair.private).unwrap();
        let line = format!("{name} namespaces=\"{namespace}\" {}", pair.public);
        fs::write(self.path(&format!("keys/{name}.pub")), line).unwrap();
    }

    fn archive(&self, version: &str) -> PathBuf {
        let path = self.path(&format!("source/shop-{version}.tar"));
        fs::write(&path, format!("the archive of {version}").repeat(1000)).unwrap();
        path
    }

    fn order(&self, version: &str) -> PublishOrder {
        PublishOrder {
            directory: self.path("source"),
            into: self.path("source"),
            is_elsewhere: false,
            channel: "stable".into(),
            product: Some("shop".into()),
            version: Some(version.parse().unwrap()),
            release_key: Some(self.path("release")),
            channel_key: Some(self.path("channel")),
            expires_in: DAY * 30,
            minimum: None,
            revoked: Vec::new(),
            percent: None,
            waves: Vec::new(),
            serial: None,
            now: self.now,
        }
    }

    fn publish(&self, version: &str) -> Published {
        self.archive(version);
        publish::publish(&self.order(version), &Disk::default()).unwrap()
    }

    /// Whoever has the channel's key signs what no publisher would: the channel with this in place of that.
    fn forge(&self, old: &str, new: &str) {
        let path = self.path("source/stable.channel");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(&path, text.replace(old, new)).unwrap();
        sign_file(&Disk::default(), &path, &self.path("channel"), Namespace::Channel).unwrap();
    }

    /// Copies what the source says now, as an attacker does who wants to play it back later.
    fn record(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(self.path("source")).unwrap();
        files.map(|file| file.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn play_back(&self, recorded: &[(PathBuf, Vec<u8>)]) {
        for (path, bytes) in recorded {
            fs::write(path, bytes).unwrap();
        }
    }

    /// What a node does: asks for a version (or for the channel's), and remembers.
    fn node_asks(&mut self, version: Option<&str>) -> Result<Candidate, Error> {
        let source = Directory::new(self.path("source"));
        self.node_asks_at(&source, version)
    }

    fn node_asks_at(&mut self, source: &dyn Source, version: Option<&str>) -> Result<Candidate, Error> {
        let keyring = Keyring::load(&[self.path("keys")], &self.path("revoked")).unwrap();
        let resolver = Resolver {
            source,
            keyring: &keyring,
            settings: &self.settings,
            product: Some("shop"),
            now: self.now,
        };
        let read = resolver.read_channel(&self.memory)?;
        let accepted = resolver.judge_channel(&read, &self.memory)?;
        self.memory.extend(accepted.memory.clone());
        let version: Option<Version> = version.map(|version| version.parse().unwrap());
        resolver.release(&accepted, version.as_ref())
    }

    fn refuses(&mut self) -> Refused {
        match self.node_asks(None) {
            Err(Error::Refused(refused)) => refused,
            Err(other) => panic!("{other}"),
            Ok(candidate) => panic!("{} was taken", candidate.release.version),
        }
    }

    fn takes(&mut self) -> String {
        self.node_asks(None).unwrap().release.version.to_string()
    }
}

fn fetched(candidate: &Candidate) -> Result<File, source::Error> {
    let mut private = tempfile::tempfile().unwrap();
    let manifest = &candidate.manifest;
    fetch_whole(&*candidate.archive, manifest.size, manifest.sha256, &mut private, &Silent)?;
    Ok(private)
}

#[test]
fn what_was_published_is_taken() {
    let mut shop = Shop::new();
    let published = shop.publish("1.0");
    assert_eq!(published.channel.serial, 1);
    let candidate = shop.node_asks(None).unwrap();
    assert_eq!((candidate.release.version.as_str(), candidate.serial), ("1.0", Some(1)));
    assert_eq!(candidate.signers[0].name, "release");
    assert_eq!((candidate.percent, candidate.warnings.len()), (Some(100), 0));
    fetched(&candidate).unwrap();
    shop.publish("1.1");
    assert_eq!(shop.takes(), "1.1");
    let older = shop.node_asks(Some("1.0")).unwrap();
    assert_eq!((older.release.version.as_str(), older.serial), ("1.0", Some(2)));
    assert!(matches!(shop.node_asks(Some("0.9")), Err(Error::Refused(Refused::NotNamed { .. }))));
}

#[test]
fn arbitrary_software_is_refused() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    // Another archive under the signed name: fetching finds it out, and keeps nothing.
    fs::write(shop.path("source/shop-1.0.tar"), "THE ARCHIVE OF 1.0".repeat(1000)).unwrap();
    let candidate = shop.node_asks(None).unwrap();
    assert!(matches!(fetched(&candidate), Err(source::Error::Digest { .. })));
    // All made anew and signed, but by a stranger.
    let mut stranger = Shop::new();
    stranger.publish("6.6");
    shop.play_back(
        &stranger
            .record()
            .into_iter()
            .map(|(path, bytes)| (move_to(&shop, &path), bytes))
            .collect::<Vec<_>>(),
    );
    let refused = shop.refuses();
    assert!(matches!(refused, Refused::Untrusted { refusal: Refusal::TooFew { .. }, .. }), "{refused}");
    assert_eq!(stranger.takes(), "6.6");
}

fn move_to(shop: &Shop, path: &Path) -> PathBuf {
    shop.path("source").join(path.file_name().unwrap())
}

#[test]
fn a_rollback_by_playing_back_old_files_is_refused() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    shop.takes();
    let recorded = shop.record();
    shop.publish("1.1");
    shop.takes();
    shop.play_back(&recorded);
    let refused = shop.refuses();
    assert!(matches!(refused, Refused::Older { serial: 1, seen: 2, .. }), "{refused}");
}

#[test]
fn a_publisher_goes_back_with_a_higher_serial() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    shop.publish("1.1");
    assert_eq!(shop.takes(), "1.1");
    shop.publish("1.0");
    assert_eq!(shop.takes(), "1.0");
    let mut order = shop.order("1.0");
    order.revoked = vec!["1.1".parse().unwrap()];
    publish::publish(&order, &Disk::default()).unwrap();
    assert!(matches!(shop.node_asks(Some("1.1")), Err(Error::Refused(Refused::Revoked { .. }))));
}

#[test]
fn a_freeze_ends_when_the_channel_expires() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    shop.takes();
    shop.now += DAY * 25;
    let candidate = shop.node_asks(None).unwrap();
    assert!(matches!(candidate.warnings[..], [Warning::ExpiresSoon { .. }]), "two thirds are over");
    shop.now += DAY * 5;
    assert!(matches!(shop.refuses(), Refused::Expired { .. }));
}

#[test]
fn mixed_files_of_several_releases_are_refused() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    shop.publish("1.1");
    let source = shop.path("source");
    let copy = |from: &str, to: &str| fs::copy(source.join(from), source.join(to)).unwrap();
    // The archive of one release with the manifest of another.
    copy("shop-1.0.tar", "shop-1.1.tar");
    assert!(matches!(fetched(&shop.node_asks(None).unwrap()), Err(source::Error::Digest { .. })));
    // Manifest and signature of another release, both good.
    copy("shop-1.0.manifest", "shop-1.1.manifest");
    copy("shop-1.0.manifest.sig", "shop-1.1.manifest.sig");
    assert!(matches!(shop.refuses(), Refused::OtherManifest { .. }));
    // A channel with the signature of another.
    copy("shop-1.0.manifest.sig", "stable.channel.sig");
    assert!(matches!(shop.refuses(), Refused::Untrusted { refusal: Refusal::Namespace { .. }, .. }));
}

#[test]
fn the_wrong_target_is_refused() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    shop.settings.product = Some("till".into());
    assert!(matches!(shop.refuses(), Refused::OtherProduct { .. }));
    shop.settings.product = None;
    shop.settings.channel = "beta".into();
    for end in ["channel", "channel.sig"] {
        let from = shop.path(&format!("source/stable.{end}"));
        fs::copy(from, shop.path(&format!("source/beta.{end}"))).unwrap();
    }
    assert!(matches!(shop.refuses(), Refused::OtherChannel { .. }));
    shop.settings.channel = "stable".into();
    let manifest = shop.path("source/shop-2.0.manifest");
    shop.archive("2.0");
    let text = fs::read_to_string(shop.path("source/shop-1.0.manifest")).unwrap();
    let digest = cutover::types::Digest::of(&fs::read(shop.path("source/shop-2.0.tar")).unwrap());
    let old = text.lines().find(|line| line.starts_with("sha256")).unwrap();
    let text = text.replace(old, &format!("sha256 = {}", digest.hex())).replace("1.0", "2.0");
    fs::write(&manifest, text + "compatible = arm64\n").unwrap();
    shop.publish("2.0");
    shop.settings.compatible = vec!["x86_64".into()];
    assert!(matches!(shop.refuses(), Refused::Incompatible { .. }));
    shop.settings.compatible.push("arm64".into());
    assert_eq!(shop.takes(), "2.0");
}

#[test]
fn one_stolen_key_of_two_is_not_enough() {
    let mut shop = Shop::new();
    shop.make_key("second", "cutover-release");
    shop.settings.threshold = 2;
    shop.publish("1.0");
    let refused = shop.refuses();
    let few = Refusal::TooFew { needed: 2, counted: 1, others: Vec::new() };
    assert_eq!(refused, Refused::Untrusted { what: "shop-1.0.manifest".into(), refusal: few });
    let manifest = shop.path("source/shop-1.0.manifest");
    sign_file(&Disk::default(), &manifest, &shop.path("second"), Namespace::Release).unwrap();
    assert_eq!(shop.node_asks(None).unwrap().signers.len(), 2);
}

#[test]
fn a_channel_key_makes_no_release_and_a_release_key_no_channel() {
    let mut shop = Shop::new();
    let mut order = shop.order("1.0");
    order.release_key = Some(shop.path("channel"));
    shop.archive("1.0");
    publish::publish(&order, &Disk::default()).unwrap();
    assert!(matches!(shop.refuses(), Refused::Untrusted { what, .. } if what == "shop-1.0.manifest"));
    // Whoever has the other key does not take that manifest for his own.
    assert!(matches!(
        publish::publish(&shop.order("1.0"), &Disk::default()),
        Err(publish::Error::Stranger { .. })
    ));
    fs::remove_file(shop.path("source/shop-1.0.manifest.sig")).unwrap();
    let mut order = shop.order("1.0");
    order.channel_key = Some(shop.path("release"));
    order.serial = Some(9);
    publish::publish(&order, &Disk::default()).unwrap();
    assert!(matches!(shop.refuses(), Refused::Untrusted { what, .. } if what == "stable.channel"));
}

#[test]
fn a_fast_forward_is_undone_by_removing_the_stolen_key() {
    let mut shop = Shop::new();
    shop.make_key("new", "cutover-channel");
    shop.publish("1.0");
    let honest = shop.record();
    let serials = [1, u64::MAX, 1 << 63].map(|serial| format!("serial = {serial}\n"));
    shop.forge(&serials[0], &serials[1]);
    assert!(matches!(shop.refuses(), Refused::FastForward { .. }));
    shop.forge(&serials[1], &serials[2]);
    shop.takes();
    shop.play_back(&honest);
    assert!(matches!(shop.refuses(), Refused::Older { .. }));
    // The key is revoked, and the channel is signed by another.
    fs::copy(shop.path("keys/channel.pub"), shop.path("revoked.pub")).unwrap();
    let line = fs::read_to_string(shop.path("keys/channel.pub")).unwrap();
    fs::write(shop.path("revoked"), &line[line.find("ssh-").unwrap()..]).unwrap();
    assert!(matches!(shop.refuses(), Refused::Untrusted { refusal: Refusal::TooFew { .. }, .. }));
    let mut order = shop.order("1.0");
    order.channel_key = Some(shop.path("new"));
    order.serial = Some(2);
    publish::publish(&order, &Disk::default()).unwrap();
    assert_eq!(shop.node_asks(None).unwrap().serial, Some(2));
}

#[test]
fn a_clock_set_back_revives_nothing_and_a_clock_set_forward_leaves_nothing_behind() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    let old = shop.record();
    shop.now += DAY * 40;
    shop.publish("1.1");
    assert_eq!(shop.takes(), "1.1");
    let new = shop.record();
    shop.now -= DAY * 40;
    shop.play_back(&old);
    shop.memory.values_mut().for_each(|seen| seen.serial = 0);
    assert!(matches!(shop.refuses(), Refused::Expired { .. }), "judged by the newest signed time");
    shop.play_back(&new);
    let candidate = shop.node_asks(None).unwrap();
    assert!(matches!(candidate.warnings[..], [Warning::ClockBehind { .. }]));
    let remembered = shop.memory.clone();
    shop.now += DAY * 20_000;
    assert!(matches!(shop.refuses(), Refused::Expired { .. }));
    assert_eq!(shop.memory, remembered);
}

#[test]
fn two_channels_with_one_serial_are_refused() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    shop.takes();
    shop.forge("published = 1.0\n", "published = 1.0\nminimum = 1.0\n");
    assert!(matches!(shop.refuses(), Refused::TwoOfOneSerial { serial: 1, .. }));
}

#[test]
fn no_byte_of_a_small_signed_file_can_be_changed() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    let shop_source = shop.path("source");
    for name in ["stable.channel", "stable.channel.sig", "shop-1.0.manifest", "shop-1.0.manifest.sig"] {
        let whole = fs::read(shop_source.join(name)).unwrap();
        // Read from memory: whoever replaces a channel has a moment for it, which would add up here.
        for index in 0..whole.len() {
            let mut changed = whole.clone();
            changed[index] ^= 0x01;
            let source = Changed { inner: Directory::new(&shop_source), name, bytes: changed };
            let outcome = shop.node_asks_at(&source, None);
            assert!(matches!(outcome, Err(Error::Refused(_))), "{name}, byte {index}");
            shop.memory.clear();
        }
    }
    assert_eq!(shop.takes(), "1.0");
}

/// A source that gives other bytes for one file.
struct Changed<'a> {
    inner: Directory,
    name: &'a str,
    bytes: Vec<u8>,
}

impl Source for Changed<'_> {
    fn place(&self) -> String {
        "a test".into()
    }

    fn small(&self, item: source::Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, source::Error> {
        if item.name == self.name { Ok(Some(self.bytes.clone())) } else { self.inner.small(item, limit) }
    }

    fn archive(&self, item: source::Item<'_>, size: u64) -> Result<Box<dyn source::Ranges>, source::Error> {
        self.inner.archive(item, size)
    }

    fn is_replaced_in_place(&self) -> bool {
        false
    }
}

#[test]
fn endless_files_are_refused_and_not_read_to_their_end() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    for name in ["stable.channel", "stable.channel.sig", "shop-1.0.manifest", "shop-1.0.manifest.sig"] {
        let path = shop.path("source").join(name);
        let kept = fs::read(&path).unwrap();
        let endless = File::options().write(true).open(&path).unwrap();
        endless.set_len(1 << 40).unwrap();
        let outcome = shop.node_asks(None);
        assert!(matches!(outcome, Err(Error::Source(source::Error::TooLong { .. }))), "{name}");
        fs::write(&path, kept).unwrap();
    }
    let archive = shop.path("source/shop-1.0.tar");
    for size in [1_u64 << 40, 1] {
        File::options().write(true).open(&archive).unwrap().set_len(size).unwrap();
        assert!(matches!(fetched(&shop.node_asks(None).unwrap()), Err(source::Error::Size { .. })));
    }
}

#[test]
fn files_that_lead_elsewhere_or_hang_are_not_opened() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    let path = shop.path("source/stable.channel");
    fs::rename(&path, shop.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(shop.path("elsewhere"), &path).unwrap();
    assert!(matches!(shop.node_asks(None), Err(Error::Source(source::Error::Read { .. }))));
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    assert!(matches!(shop.node_asks(None), Err(Error::Source(source::Error::Read { .. }))));
}

#[test]
fn without_signatures_only_what_is_configured_so_is_taken() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    for end in ["stable.channel.sig", "shop-1.0.manifest.sig"] {
        fs::remove_file(shop.path("source").join(end)).unwrap();
    }
    assert!(matches!(shop.refuses(), Refused::Untrusted { refusal: Refusal::Unsigned, .. }));
    shop.settings.allow_unsigned = true;
    let candidate = shop.node_asks(None).unwrap();
    assert!(candidate.signers.is_empty());
    assert_eq!(candidate.warnings.len(), 2, "channel and release");
    fs::remove_dir_all(shop.path("keys")).unwrap();
    fs::create_dir(shop.path("keys")).unwrap();
    assert_eq!(shop.takes(), "1.0");
    shop.settings.allow_unsigned = false;
    assert!(matches!(shop.refuses(), Refused::Untrusted { refusal: Refusal::NoKeys(_), .. }));
}

#[test]
fn an_archive_named_by_an_admin_is_judged_too() {
    let mut shop = Shop::new();
    shop.publish("1.0");
    let ask = |shop: &Shop, file: &Path, version: Option<&str>| {
        let keyring = Keyring::load(&[shop.path("keys")], &shop.path("revoked")).unwrap();
        let version: Option<Version> = version.map(|version| version.parse().unwrap());
        LocalArchive {
            file,
            version: version.as_ref(),
            keyring: &keyring,
            settings: &shop.settings,
            product: Some("shop"),
            now: shop.now,
        }
        .candidate()
    };
    let signed = shop.path("source/shop-1.0.tar");
    let candidate = ask(&shop, &signed, None).unwrap();
    assert_eq!((candidate.serial, candidate.signers.len()), (None, 1));
    fetched(&candidate).unwrap();
    assert!(matches!(ask(&shop, &signed, Some("2.0")), Err(Error::Refused(Refused::OtherVersion { .. }))));

    let unsigned = shop.archive("3.0");
    assert!(matches!(
        ask(&shop, &unsigned, None),
        Err(Error::Refused(Refused::Untrusted { refusal: Refusal::Unsigned, .. }))
    ));
    shop.settings.allow_unsigned = true;
    let candidate = ask(&shop, &unsigned, None).unwrap();
    assert_eq!(candidate.release.version.as_str(), "3.0");
    assert_eq!(candidate.release.digest, candidate.manifest.sha256);
    fetched(&candidate).unwrap();
    assert_eq!(ask(&shop, &unsigned, Some("3.1")).unwrap().release.version.as_str(), "3.1");
    fs::remove_file(shop.path("keys/release.pub")).unwrap();
    shop.make_key("other", "cutover-release");
    assert!(
        ask(&shop, &signed, None).unwrap().signers.is_empty(),
        "a stranger's signature is as good as none"
    );
    let nameless = shop.path("source/release.tar");
    fs::copy(&unsigned, &nameless).unwrap();
    assert!(matches!(ask(&shop, &nameless, None), Err(Error::NoVersion(_))));
    assert_eq!(ask(&shop, &nameless, Some("4")).unwrap().release.version.as_str(), "4");
    fs::copy(shop.path("source/shop-1.0.manifest"), shop.path("source/shop-3.0.manifest")).unwrap();
    assert!(matches!(ask(&shop, &unsigned, None), Err(Error::Refused(Refused::OtherArchive { .. }))));
}

#[test]
fn a_publisher_builds_upon_his_own_channel_only() {
    let shop = Shop::new();
    shop.publish("1.0");
    let path = shop.path("source/stable.channel");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("serial = 1", "serial = 77")).unwrap();
    let refused = publish::publish(&shop.order("1.0"), &Disk::default()).unwrap_err();
    assert!(matches!(refused, publish::Error::Signature { .. }), "{refused}");
    let mut stranger = shop.order("1.0");
    stranger.channel_key = Some(shop.path("release"));
    fs::write(&path, text).unwrap();
    let refused = publish::publish(&stranger, &Disk::default()).unwrap_err();
    assert!(matches!(refused, publish::Error::OtherKey { .. }), "{refused}");
    fs::write(shop.path("source/shop-1.0.tar"), "another").unwrap();
    let refused = publish::publish(&shop.order("1.0"), &Disk::default()).unwrap_err();
    assert!(matches!(refused, publish::Error::OtherArchive { .. }), "{refused}");
}
