//! Every reader of bytes that others may write, fed with damaged inputs. None may panic, hang, or let through what it
//! should not. `CUTOVER_FUZZ_SECONDS=600 cargo nextest run -E 'test(fuzz::)' --no-capture` runs each for ten minutes.

mod driver;

use std::fs;
use std::io::Cursor;
use std::sync::Arc;

use cutover::coord::facts::{Fact, seal};
use cutover::lifecycle::settings::Settings;
use cutover::release::archive::{Limits, measure};
use cutover::release::channel::Channel;
use cutover::release::index::{Index, PageKind, Root, Verified, frames, meta::PageReader};
use cutover::release::manifest::Manifest;
use cutover::release::trust::{KeyPair, Keyring, Namespace, Revoked, TrustedKey, parse_keys, sign};
use cutover::store::{Kept, Layout, Store, read_history};
use cutover::sys::disk::Disk;
use cutover::types::record::{DataPolicy, DataSnapshot, Deadline, Intent, Phase, Record};
use cutover::types::{Digest, ReleaseId};
use jiff::Timestamp;

use self::driver::{MANY, SOME, fuzz};
use crate::corpus;

const MANIFEST: &str = "format = 1\nproduct = shop\nversion = 1.4.2\narchive = shop-1.4.2.tar.zst\nsize = 48213377\n\
    sha256 = 3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550\nunpacked = 190400123\nentries = 5120\n\
    index = sha256:3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550\ncompatible = x86_64, arm64\n\
    data_read = [3, 4]\ndata_write = 4\nx-note = a b = c\n";

const CHANNEL: &str = "format = 1\nproduct = shop\nchannel = stable\nserial = 42\nissued = 2026-01-31T12:00:00Z\n\
    expires = 2026-03-02T12:00:00Z\n\
    release = 1.4.2 sha256:3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550\n\
    also = 1.4.1 sha256:4b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550\nminimum = 1.3.0\n\
    revoked = 1.4.0\npercent = 20\nwave = 2026-02-01T12:00:00Z 50\nwave = 2026-02-02T12:00:00Z 100\n";

fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "good".to_owned())
}

#[test]
fn fuzz_manifest() {
    fuzz("manifest", MANY, vec![MANIFEST.into()], |bytes| {
        let parsed = Manifest::parse(bytes);
        if let Ok(manifest) = &parsed {
            let text = manifest.to_text();
            assert_eq!(Manifest::parse(text.as_bytes()).as_ref(), Ok(manifest), "{text}");
            assert!(!text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\n'));
        }
        told(parsed)
    });
}

#[test]
fn fuzz_channel() {
    fuzz("channel", MANY, vec![CHANNEL.into()], |bytes| {
        let parsed = Channel::parse(bytes);
        if let Ok(channel) = &parsed {
            assert_eq!(Channel::parse(channel.to_text().as_bytes()).as_ref(), Ok(channel));
            channel.percent_at(Timestamp::MAX);
            for id in channel.releases() {
                channel.is_below_minimum(&id.version);
            }
        }
        told(parsed)
    });
}

#[test]
fn fuzz_signature() {
    let directory = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    let mut signatures = String::new();
    for name in ["one", "two"] {
        let pair = KeyPair::generate(name).unwrap();
        let path = directory.path().join(name);
        fs::write(&path, &pair.private).unwrap();
        signatures += &sign(&path, Namespace::Release, MANIFEST.as_bytes()).unwrap();
        keys.extend(parse_keys(pair.public.as_bytes()).unwrap());
    }
    let keyring = Keyring::new(keys, Revoked::default());
    let one = signatures.split_inclusive("-----END SSH SIGNATURE-----\n").next().unwrap().to_owned();
    let both = |signature: &str| format!("{MANIFEST}\0{signature}").into_bytes();
    fuzz("signature", MANY, vec![both(&signatures), both(&one)], |bytes| {
        let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let (text, rest) = bytes.split_at(at);
        let signature = rest.strip_prefix(b"\0");
        let verdict = keyring.verify(Namespace::Release, text, signature, Timestamp::UNIX_EPOCH, 1);
        if verdict.is_ok() {
            assert_eq!(text, MANIFEST.as_bytes(), "another text passes");
        }
        told(verdict)
    });
}

#[test]
fn fuzz_allowed_signers() {
    let key = KeyPair::generate("a comment").unwrap().public;
    let lines = format!(
        "# keys\n{key}\"a b\" namespaces=\"cutover-*,!cutover-fleet\",valid-after=\"20260101Z\" {key}\n\
        x@y,z valid-before=\"202612312359Z\" {key}"
    );
    let list = format!("{key}SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA stolen\n");
    fuzz("allowed_signers", MANY, vec![lines.into(), list.into()], |bytes| {
        let keys = parse_keys(bytes);
        for key in keys.iter().flatten() {
            judge(key);
        }
        let keys = keys.map_err(|(line, problem)| format!("{line} {problem}"));
        let revoked = Revoked::parse(bytes).map_err(|(line, problem)| format!("{line} {problem}"));
        format!("{} / {}", told(keys), told(revoked))
    });
}

fn judge(key: &TrustedKey) {
    for namespace in [Namespace::Release, Namespace::Channel, Namespace::Fleet] {
        key.may_sign(namespace);
    }
    key.is_valid_at(Timestamp::MIN);
    key.fingerprint();
}

/// Makes the checksums of what look like headers right, so that more than checksums is tried.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

#[test]
fn fuzz_archive() {
    let good =
        corpus::all().into_iter().map(|case| case.bytes).filter(|bytes| bytes.len() < 64 << 10).collect();
    fuzz("archive", MANY, good, |bytes| {
        let limits = Limits { bytes: 1 << 20, entries: 200, ..Limits::default() };
        let as_it_is = told(measure(Cursor::new(bytes.to_vec()), "x.tar", &limits));
        let mended = told(measure(Cursor::new(with_checksums(bytes)), "x.tar", &limits));
        format!("{as_it_is} / {mended}")
    });
}

#[test]
fn fuzz_unpacking_leaves_nothing_outside() {
    let good =
        corpus::all().into_iter().map(|case| case.bytes).filter(|bytes| bytes.len() < 16 << 10).collect();
    fuzz("unpack", SOME, good, |bytes| {
        let place = corpus::Place::new();
        let limits = Limits { bytes: 1 << 20, entries: 200, ..Limits::default() };
        let built = told(place.unpack(&with_checksums(bytes), &limits));
        place.check("a damaged archive");
        built
    });
}

#[test]
fn fuzz_index() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, archive) = (directory.path().join("tree"), directory.path().join("shop-2.tar.zst"));
    fs::create_dir(&tree).unwrap();
    crate::pack::make_tree(&tree);
    crate::pack::packed(&tree, &archive, None);
    let bytes = fs::read(&archive).unwrap();
    let index = Index::open(Arc::new(bytes.clone()), None).unwrap().unwrap();
    // The end of the archive, with index and seek table; and the pages of the index as they are after decompression.
    let mut good = vec![bytes[bytes.len() - 128.min(bytes.len())..].to_vec(), index.root().write()];
    good.extend(index.root().pages.iter().map(|page| index.page(page).unwrap().as_ref().to_vec()));
    let tail = bytes.len().saturating_sub(60 << 10);
    good.push(bytes[tail..].to_vec());
    let counts: Vec<_> = index.root().pages.iter().map(|page| (page.kind, page.items)).collect();
    fuzz("index", MANY, good, |bytes| {
        let opened = Index::open(Arc::new(bytes.to_vec()), None);
        let opened = opened.map(|index| index.map(|index| index.records().take(1000).count()));
        let bytes = &Verified::compare("nothing", bytes, Digest::of(bytes)).unwrap();
        let root = Root::read(bytes);
        let entries =
            PageReader::new(Verified::compare("nothing", bytes, Digest::of(bytes.as_ref())).unwrap());
        let entries = entries.collect::<Result<Vec<_>, _>>();
        let mut parts = vec![told(opened), told(root), told(entries)];
        for (kind, count) in &counts {
            match kind {
                PageKind::Meta => {}
                PageKind::Frames => parts.push(told(frames::read_frames(bytes, *count))),
                PageKind::Locations => parts.push(told(frames::read_locations(bytes, *count, 1000))),
            }
        }
        parts.join(" / ")
    });
}

#[test]
fn fuzz_entries() {
    fuzz("entries", SOME, crate::lying::scripts(), crate::lying::changed_by);
}

#[test]
fn fuzz_configuration() {
    let text = include_str!("../../../README.md");
    let blocks =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().as_bytes().to_vec());
    fuzz("configuration", MANY, blocks.collect(), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return "not a text".into() };
        let settings = toml::from_str::<Settings>(text);
        if let Ok(settings) = &settings {
            drop(cutover::config::check(settings));
            let written = toml::to_string(settings).unwrap();
            assert_eq!(toml::from_str::<Settings>(&written).as_ref(), Ok(settings), "{written}");
        }
        told(settings.map_err(|error| error.message().to_owned()))
    });
}

/// `{"format":1,"sum":…,"body":…}` with the right sum.
fn with_sum(body: &[u8]) -> Vec<u8> {
    let head = format!("{{\"format\":1,\"sum\":\"{}\",\"body\":", Digest::of(body));
    [head.as_bytes(), body, b"}"].concat()
}

/// The body of a journal as this program writes it.
fn journal_in_a_trial() -> Vec<u8> {
    let release = |version: &str| ReleaseId { version: version.parse().unwrap(), digest: Digest::of(b"2") };
    let until = Deadline { boot_id: "b".into(), boot_ms: 5, wall: Timestamp::UNIX_EPOCH };
    let record = Record {
        transaction: "20261123T041214Z-9f3a6c".into(),
        intent: Intent::Update,
        from: Some(release("1")),
        to: release("2"),
        serial: Some(7),
        phase: Phase::Trial { until: until.clone() },
        rollout: Some(17),
        confirm: false,
        overrules: None,
        no_rollback: false,
        no_hold: false,
        ended_by: None,
        data_policy: Some(DataPolicy::Restore),
        data: vec![DataSnapshot {
            path: "/srv/shop/data".into(),
            name: "0".into(),
            method: "btrfs".into(),
            leave: Vec::new(),
        }],
        boot_id: "b".into(),
        resumes: 1,
        deadline: Some(until),
        ignored_checks: vec!["http".into()],
        started: Timestamp::UNIX_EPOCH,
        by: "timer".into(),
        downtime_ms: Some(3),
        unanswered: None,
        moments: cutover::types::record::Moments::default(),
        settings: Some(Digest::of(b"")),
        rehearsed: None,
        boots: 0,
        counted_at_boot: false,
        units: None,
    };
    serde_json::to_vec(&record).unwrap()
}

#[test]
fn fuzz_journal() {
    let record = journal_in_a_trial();
    let record = record.as_slice();
    let history =
        br#"{"at":"2026-01-01T00:00:00Z","transaction":"t","outcome":"committed","sum":"0123456789abcdef"}"#;
    let directory = tempfile::tempdir_in(shared_memory()).unwrap();
    let layout = Layout::new(directory.path());
    let store = Store::open(Layout::new(directory.path()), Disk::default()).unwrap();
    store.prepare().unwrap();
    fs::write(layout.journal(), with_sum(record)).unwrap();
    assert!(matches!(store.journal(), Ok(Kept::Whole(_))), "what is damaged must have been good");
    fuzz("journal", MANY, vec![record.to_vec(), with_sum(record), history.to_vec()], |bytes| {
        let mut outcomes = Vec::new();
        for content in [bytes.to_vec(), with_sum(bytes)] {
            fs::write(layout.journal(), &content).unwrap();
            outcomes.push(match store.journal() {
                Ok(Kept::Whole(record)) => format!("{:?}", record.phase),
                Ok(Kept::Missing) => "missing".to_owned(),
                Ok(Kept::Damaged(why)) => why.to_string(),
                Err(error) => error.to_string(),
            });
        }
        fs::write(layout.history(), bytes).unwrap();
        outcomes.push(
            read_history(&layout.history())
                .map_or_else(|error| error.to_string(), |all| all.len().to_string()),
        );
        outcomes.join(" / ")
    });
}

/// A directory in memory where there is one: thousands of small files are written.
fn shared_memory() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

#[test]
fn fuzz_fleet_facts() {
    let line = r#"{"format":1,"kind":"ticket","rollout":17,"proposal":"sha256:3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8550","ticket":4,"node":"edge-01","instance":"i"}"#;
    let armored = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n";
    let good = vec![line.as_bytes().to_vec(), seal::summed("a", line), seal::signed(line, armored).unwrap()];
    fuzz("fleet_facts", MANY, good, |bytes| {
        let opened = seal::open("a", bytes).map(|opened| Fact::parse(opened.line));
        let parsed = std::str::from_utf8(bytes).ok().map(Fact::parse);
        if let Some(Ok(fact)) = &parsed {
            assert_eq!(Fact::parse(&fact.line()).as_ref(), Ok(fact));
        }
        format!("{} / {}", told(opened), parsed.map_or_else(String::new, told))
    });
}
