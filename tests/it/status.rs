//! What `status` says in every state, as text and as JSON: kept as snapshots, and held against the shipped schema. The
//! states are those of real files under a root; only time, free space and the root's name are fixed.

use std::fs;

use cutover::cli::output::Output;
use cutover::cli::output::screen::screen;
use cutover::lifecycle::report::status::status;
use cutover::lifecycle::report::view::{Doing, Status, TrialView, UnitView};
use cutover::lifecycle::settings::{Data, Settings};
use cutover::store::{Layout, Method, Sealed, Store, kept};
use cutover::sys::disk::Disk;
use cutover::sys::lock::{Attempt, Holder, Lock, try_lock};
use cutover::types::record::{Cause, DataPolicy, DataSnapshot, Deadline, Intent, Phase, Reason, Record};
use cutover::types::state::{
    Bad, HistoryEntry, Hold, Installed, NeedsPerson, Outcome, SeenChannel, SeenOffer, State,
};
use cutover::types::{Digest, ReleaseId, Version};
use jiff::Timestamp;
use serde_json::json;

const NOW: &str = "2026-11-25T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(version: &str) -> ReleaseId {
    ReleaseId { version: version.parse().unwrap(), digest: Digest::of(version.as_bytes()) }
}

/// A node that is nothing but its files.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
    settings: Settings,
    state: State,
    locks: Vec<Lock>,
}

impl Place {
    /// Release 1.1.0 runs, 1.0.0 ran before it.
    fn new() -> Self {
        let mut place = Self::empty();
        for version in ["1.0.0", "1.1.0"] {
            place.seal(version, "2026-11-20T03:00:00Z");
        }
        place.point_at("1.1.0");
        place.state.committed = Some(installed("1.1.0", "2026-11-20T04:00:00Z"));
        place.state.previous = Some(installed("1.0.0", "2026-10-01T04:00:00Z"));
        place.offers("1.1.0", 7);
        place
    }

    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Layout::new(directory.path()), Disk::default()).unwrap();
        store.prepare().unwrap();
        let mut settings = Settings { root: directory.path().to_owned(), ..Settings::default() };
        settings.store.method = Method::Hardlink;
        settings.source.url = Some("file:///srv/releases".into());
        Self { directory, store, settings, state: State::default(), locks: Vec::new() }
    }

    fn point_at(&self, version: &str) {
        let pointer = self.store.layout.current();
        drop(fs::remove_file(&pointer));
        std::os::unix::fs::symlink(format!("releases/{version}"), pointer).unwrap();
    }

    fn seal(&self, version: &str, staged: &str) {
        let release = id(version);
        fs::create_dir(self.store.layout.tree(&release.version)).unwrap();
        let sealed = Sealed {
            release,
            product: Some("shop".into()),
            serial: Some(6),
            tree: Digest::of(b"tree"),
            entries: 3,
            bytes: 5 << 20,
            staged: at(staged),
            signers: vec!["team".into()],
            keys: Vec::new(),
            allowed: Vec::new(),
            data_read: Vec::new(),
            data_write: None,
            links: Vec::new(),
            replaced: Vec::new(),
        };
        self.store.keep_sealed(&sealed).unwrap();
    }

    fn offers(&mut self, version: &str, serial: u64) {
        let offer = SeenOffer {
            release: id(version),
            expires: at("2026-12-24T00:00:00Z"),
            percent: 100,
            waves: Vec::new(),
            since: Some(at("2026-11-22T12:00:00Z")),
            revoked: Vec::new(),
        };
        let issued = at("2026-11-24T12:00:00Z");
        let seen = SeenChannel { serial, digest: Digest::of(b"channel"), issued, offer: Some(offer) };
        self.state.channels.insert("shop/stable SHA256:team".into(), seen);
    }

    /// 1.2.0 is offered and staged.
    fn staged(&mut self) {
        self.seal("1.2.0", "2026-11-25T11:50:00Z");
        self.offers("1.2.0", 8);
    }

    /// An update to 1.2.0 stands in this phase.
    fn update(&mut self, phase: Phase) -> Record {
        self.staged();
        let record = record(Intent::Update, phase);
        self.store.keep_journal(&record).unwrap();
        record
    }

    /// A process works on it.
    fn is_worked_on(&mut self) {
        let path = self.store.layout.lock();
        self.lock(&path);
    }

    fn lock(&mut self, path: &std::path::Path) {
        let holder = Holder { pid: 4711, command: "update".into(), since: at("2026-11-25T11:59:00Z") };
        match try_lock(&Disk::default(), path, &holder).unwrap() {
            Attempt::Mine(lock) => self.locks.push(lock),
            Attempt::Theirs(_) => panic!("the lock is taken"),
        }
    }

    fn happened(&self, outcome: Outcome, to: &str, reason: Option<&str>) {
        let entry = HistoryEntry {
            at: at("2026-11-25T09:30:00Z"),
            transaction: format!("20261125T092900Z-{to}"),
            outcome,
            from: Some("1.0.0".parse().unwrap()),
            to: to.parse().unwrap(),
            digest: id(to).digest,
            reason: reason.map(Into::into),
            exit_code: if outcome == Outcome::Committed { 0 } else { 10 },
            downtime_ms: Some(412),
            unanswered_ms: Some(512),
            took_ms: 60_000,
            rollout: None,
            by: "timer".into(),
            before: std::collections::BTreeMap::new(),
        };
        self.store.remember(&entry).unwrap();
    }

    fn view(&self) -> Status {
        // A state that a test has damaged on purpose stays so.
        if !fs::read(self.store.layout.state()).is_ok_and(|bytes| bytes.starts_with(b"damaged")) {
            let mut memory = self.store.memory().unwrap();
            *memory = self.state.clone();
            memory.keep().unwrap();
        }
        let mut view = status("shop", "web-1", &self.settings, &self.store, at(NOW)).unwrap();
        view.disk.free = 20 << 30;
        view.disk.reserve = 1 << 30;
        view
    }

    /// The state is this one, and what is said is what was agreed on.
    #[track_caller]
    fn says(&self, name: &str, doing: Doing) {
        let view = self.view();
        assert_eq!(view.state, doing, "{name}");
        self.is_shown(name, &view);
    }

    #[track_caller]
    fn is_shown(&self, name: &str, view: &Status) {
        let value = serde_json::to_value(view).unwrap();
        crate::schema::assert_valid(name, &value);
        let output = Output { json: false, quiet: false, color: false, width: None };
        let text = screen(view, at(NOW), output);
        let json = serde_json::to_string_pretty(&value).unwrap();
        let mut shown = format!("{text}\n----\n{json}");
        shown = shown.replace(self.directory.path().to_str().unwrap(), "/srv/shop");
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            shown = shown.replace(&id(version).digest.to_string(), &format!("sha256:<{version}>"));
        }
        insta::assert_snapshot!(name, shown);
    }
}

fn installed(version: &str, since: &str) -> Installed {
    let transaction = Some("20261120T035900Z-9f3a6c".into());
    Installed { release: id(version), serial: Some(6), since: at(since), transaction, data: Vec::new() }
}

fn record(intent: Intent, phase: Phase) -> Record {
    Record {
        transaction: "20261125T115900Z-5d4e3f".into(),
        intent,
        from: Some(id("1.1.0")),
        to: id("1.2.0"),
        serial: Some(8),
        phase,
        rollout: None,
        confirm: false,
        overrules: None,
        no_rollback: false,
        no_hold: false,
        ended_by: None,
        data_policy: None,
        data: Vec::new(),
        boot_id: "00000000-0000-0000-0000-000000000000".into(),
        resumes: 0,
        deadline: None,
        ignored_checks: Vec::new(),
        started: at("2026-11-25T11:59:00Z"),
        by: "timer".into(),
        downtime_ms: None,
        unanswered: None,
        settings: None,
        moments: Default::default(),
        rehearsed: None,
        boots: 0,
        counted_at_boot: false,
        units: None,
    }
}

fn trial() -> Phase {
    let (boot_id, wall) = ("another boot".to_owned(), at("2026-11-25T12:04:10Z"));
    Phase::Trial { until: Deadline { boot_id, boot_ms: 0, wall } }
}

fn unhealthy() -> Reason {
    let text = "check `answers` failed 3 times in a row: http://127.0.0.1:8080/up answered 500, not 200";
    Reason::new(Cause::Unhealthy, text)
}

fn hold(until: Option<&str>) -> Hold {
    Hold {
        since: at("2026-11-25T08:00:00Z"),
        until: until.map(at),
        reason: "the fair".into(),
        by: "anna".into(),
    }
}

#[test]
fn a_node_at_rest() {
    Place::empty().says("idle_first_run", Doing::Idle);

    let mut place = Place::empty();
    place.settings.source.url = None;
    place.seal("1.0.0", "2026-11-25T11:00:00Z");
    place.point_at("1.0.0");
    place.state.committed = Some(Installed { serial: None, ..installed("1.0.0", "2026-11-25T11:00:00Z") });
    place.says("idle_adopted", Doing::Idle);

    let mut place = Place::new();
    place.happened(Outcome::Committed, "1.1.0", None);
    place.says("idle_nothing_newer", Doing::Idle);

    place.offers("1.2.0", 8);
    place.says("idle_offered", Doing::Idle);

    place.happened(Outcome::RolledBack, "1.2.0", Some(&unhealthy().text));
    let since = at("2026-11-25T09:30:00Z");
    place.state.bad.push(Bad { release: id("1.2.0"), reason: unhealthy().text, since });
    place.says("idle_banned", Doing::Idle);
}

#[test]
fn a_node_with_marks_data_and_surplus() {
    let mut place = Place::new();
    for version in ["0.8.0", "0.9.0"] {
        place.seal(version, "2026-09-01T03:00:00Z");
    }
    place.settings.store.keep = 2;
    place.settings.source.allow_unsigned = true;
    // Data that are there, and their copy: else there is no way back for them.
    let data = place.directory.path().join("data");
    for made in [data.clone(), place.store.layout.snapshots().join("t/0-data.copy")] {
        fs::create_dir_all(made).unwrap();
    }
    place.settings.data = vec![Data { path: data.clone(), on_rollback: DataPolicy::Auto, leave: Vec::new() }];
    let copy = DataSnapshot {
        path: data.display().to_string(),
        name: "t/0-data.copy".into(),
        method: "copy".into(),
        leave: Vec::new(),
    };
    place.state.committed =
        Some(Installed { data: vec![copy], ..installed("1.1.0", "2026-11-20T04:00:00Z") });
    place.state.pins = vec!["0.8.0".parse().unwrap()];
    place.state.hold = Some(hold(Some("2026-11-26T08:00:00Z")));
    let since = at("2026-11-01T00:00:00Z");
    place.state.bad = vec![Bad { release: id("0.9.0"), reason: "marked by anna".into(), since }];
    fs::create_dir_all(place.store.layout.aside().join("20261101T000000Z-aaaaaa/0-data.copy")).unwrap();
    place.says("idle_held_with_marks", Doing::Idle);

    let mut place = Place::new();
    fs::remove_dir(place.store.layout.tree(&"1.0.0".parse::<Version>().unwrap())).unwrap();
    let seen = place.state.channels.values_mut().next().unwrap();
    seen.offer.as_mut().unwrap().expires = at("2026-11-25T00:00:00Z");
    place.says("idle_channel_expired_and_no_way_back", Doing::Idle);
}

#[test]
fn a_release_that_is_staged_or_waits() {
    let mut place = Place::new();
    let lock = place.store.layout.staging_lock();
    place.lock(&lock);
    place.says("staging", Doing::Staging);

    let mut place = Place::new();
    place.staged();
    place.says("staged", Doing::Staged);

    place.state.hold = Some(hold(None));
    place.says("waiting_held", Doing::Waiting);

    // Rolled back by hand: it was active before, and still lies ready.
    let before = installed("1.2.0", "2026-11-25T11:55:00Z");
    place.state.earlier = vec![before];
    assert_eq!(place.view().staged.unwrap().version.as_str(), "1.2.0");
    fs::remove_dir(place.store.layout.tree(&"1.2.0".parse::<Version>().unwrap())).unwrap();
    assert!(place.view().staged.is_none(), "a tree that is gone is not staged, whatever is recorded");
    let mut place = Place::new();
    place.staged();
    place.state.hold = Some(hold(None));

    place.settings.policy = toml::from_str(
        "jitter = '3000d'\n\
         windows = [{ days = ['Sun'], start = '02:30', length = '60min', timezone = 'Europe/Berlin' }]",
    )
    .unwrap();
    let seen = place.state.channels.values_mut().next().unwrap();
    let offer = seen.offer.as_mut().unwrap();
    (offer.percent, offer.waves) = (0, vec![(at("2026-11-30T00:00:00Z"), 100)]);
    place.says("waiting_for_everything", Doing::Waiting);

    let mut place = Place::new();
    place.update(Phase::Staged);
    place.is_worked_on();
    place.says("waiting_in_an_update", Doing::Waiting);
}

#[test]
fn a_way_back_to_a_revoked_release_says_so() {
    let mut place = Place::new();
    let seen = place.state.channels.values_mut().next().unwrap();
    seen.offer.as_mut().unwrap().revoked = vec!["1.0.0".parse().unwrap()];
    let view = place.view();
    assert!(view.previous.as_ref().unwrap().rollback.revoked);
    let output = Output { json: false, quiet: false, color: false, width: None };
    let text = screen(&view, at(NOW), output);
    assert!(text.contains("1.0.0: going back is possible; its channel has revoked it"), "{text}");
}

#[test]
fn a_unit_that_does_not_run_is_told_whatever_the_pointer_says() {
    let place = Place::new();
    let unit = |active: &str, sub: &str, result: &str, release: Option<&str>| UnitView {
        unit: "shop.service".into(),
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        result: result.into(),
        pid: release.map(|_| 4712),
        release: release.map(|release| release.parse().unwrap()),
        ok: active == "active",
    };
    let headline = |unit: UnitView| {
        let mut view = place.view();
        view.add_running(vec![unit]);
        let output = Output { json: false, quiet: false, color: false, width: None };
        screen(&view, at(NOW), output)
    };
    let stopped = headline(unit("inactive", "dead", "success", None));
    assert!(stopped.contains("release 1.1.0 is active, but `shop.service` is stopped;"), "{stopped}");
    assert!(
        stopped.contains("systemctl status shop.service") && !stopped.contains("1.1.0 runs"),
        "{stopped}"
    );
    let failed = headline(unit("failed", "failed", "exit-code", None));
    assert!(failed.contains("but `shop.service` is failed (exit-code);"), "{failed}");
    let old = headline(unit("active", "running", "success", Some("1.0.0")));
    assert!(old.contains("shop.service is active, from release 1.0.0"), "{old}");
    let mut view = place.view();
    view.add_running(vec![unit("active", "running", "success", Some("1.1.0"))]);
    place.is_shown("idle_with_a_unit", &view);
}

#[test]
fn an_update_under_way() {
    let mut place = Place::new();
    place.update(Phase::Warming);
    place.is_worked_on();
    place.says("warming", Doing::Warming);

    let mut place = Place::new();
    place.settings.fleet.mode = cutover::coord::settings::Mode::Synchronous;
    let vote = Record { rollout: Some(17), ..place.update(Phase::Staged) };
    place.store.keep_journal(&vote).unwrap();
    place.is_worked_on();
    place.says("voting", Doing::Voting);

    let mut place = Place::new();
    place.update(Phase::Switching);
    place.is_worked_on();
    place.says("switching", Doing::Switching);
    place.locks.clear();
    place.says("switching_interrupted", Doing::Switching);

    let mut place = Place::new();
    place.update(Phase::RollingBack { reason: unhealthy() });
    place.point_at("1.2.0");
    place.is_worked_on();
    place.says("rolling_back", Doing::RollingBack);

    let mut place = Place::new();
    place.staged();
    let back = Phase::RollingBack { reason: Reason::new(Cause::Operator, "the shop is slow") };
    place.store.keep_journal(&Record { by: "anna".into(), ..record(Intent::Rollback, back) }).unwrap();
    place.point_at("1.2.0");
    place.is_worked_on();
    place.says("rolling_back_by_hand", Doing::RollingBack);
}

#[test]
fn a_trial() {
    let mut place = Place::new();
    place.update(trial());
    place.point_at("1.2.0");
    place.is_worked_on();
    // What the process that watches it tells.
    let mut view = place.view();
    assert_eq!(view.state, Doing::Trial);
    let check = |name: &str, ok: bool, detail: &str| json!({"name": name, "ok": ok, "streak": 2, "baseline": true, "last_ms": 4, "detail": detail});
    let checks = vec![check("answers", true, "status 200"), check("smoke", false, "exit 75: warming caches")];
    let told = view.trial.take().unwrap();
    view.trial = Some(TrialView { healthy_for_s: 12, need_s: 30, checks, ..told });
    place.is_shown("trial_watched", &view);

    let narrow = Output { json: false, quiet: false, color: false, width: Some(40) };
    let text = screen(&view, at(NOW), narrow);
    insta::assert_snapshot!("trial_watched_in_40_columns", text);

    place.locks.clear();
    place.store.keep_journal(&Record { confirm: true, ..record(Intent::Update, trial()) }).unwrap();
    place.says("trial_to_be_confirmed_interrupted", Doing::Trial);
}

#[test]
fn a_decision_that_is_not_known() {
    let mut place = Place::new();
    place.settings.fleet.mode = cutover::coord::settings::Mode::Synchronous;
    let vote = Record { rollout: Some(17), ..place.update(trial()) };
    place.store.keep_journal(&vote).unwrap();
    place.point_at("1.2.0");
    let own = json!({
        "fleet": "0123456789abcdef", "node": "web-1", "instance": "fedcba9876543210", "joined": true,
        "part": {
            "rollout": 17, "proposal": "", "release": id("1.2.0"),
            "stage": {"mode": "synchronous", "stage": "vouching", "at": 1_795_608_000_000_u64},
            "gates": {}, "running": "1.2.0", "why": null, "by_hand": false, "downtime_ms": 30, "soaking": null,
            "in_doubt_since": "2026-11-25T11:59:30Z", "moments": {}, "closed": false,
        },
    });
    kept::save(&place.store.disk, &place.store.layout.fleet(), &own).unwrap();
    let kept = cutover::lifecycle::fleet::Kept::load(&place.store.disk, &place.store.layout.fleet());
    assert!(kept.unwrap().unwrap().own.part.is_some());
    place.is_worked_on();
    place.says("in_doubt", Doing::InDoubt);
}

#[test]
fn a_node_that_needs_a_person() {
    let mut place = Place::new();
    place.update(Phase::RollingBack { reason: unhealthy() });
    let reason = "release 1.1.0 is not healthy either: check `answers` failed 3 times in a row".into();
    place.state.needs_person = Some(NeedsPerson { since: at("2026-11-25T11:59:40Z"), reason });
    place.says("needs_person", Doing::NeedsPerson);

    let mut place = Place::new();
    place.staged();
    fs::write(place.store.layout.journal(), "{\"format\":1").unwrap();
    place.says("needs_person_damaged_journal", Doing::NeedsPerson);

    let place = Place::new();
    fs::write(place.store.layout.state(), "damaged").unwrap();
    place.says("needs_person_damaged_state", Doing::NeedsPerson);

    let place = Place::new();
    fs::remove_file(place.store.layout.current()).unwrap();
    std::os::unix::fs::symlink("/opt/shop", place.store.layout.current()).unwrap();
    place.says("needs_person_strange_pointer", Doing::NeedsPerson);
}
