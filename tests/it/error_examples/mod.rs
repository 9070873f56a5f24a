//! One example, or more, of every variant of every error in the program. A variant that is added does not compile until
//! it has one here.

use std::io;
use std::time::Duration;

use cutover::cli::failure::Error;
use cutover::config::Problem;
use cutover::coord::operate::Error as OperateError;
use cutover::health::Invalid as HealthInvalid;
use cutover::lifecycle::agreement::Error as AgreementError;
use cutover::lifecycle::application::data::Error as DataError;
use cutover::lifecycle::application::hooks::Error as HookError;
use cutover::lifecycle::application::service::{Error as ServiceError, Invalid as ServiceInvalid};
use cutover::lifecycle::application::units::Error as UnitsError;
use cutover::lifecycle::node::Error as NodeError;
use cutover::lifecycle::node::adopt::Error as AdoptingError;
use cutover::lifecycle::policy::NotAWindow;
use cutover::lifecycle::rehearsal::settings::Invalid as RehearsalInvalid;
use cutover::lifecycle::rehearsal::{Error as RehearsalError, Unfit, WallsError};
use cutover::lifecycle::staging::Error as StagingError;
use cutover::lifecycle::staging::upstream::Error as UpstreamError;
use cutover::lifecycle::update::driver::Error as DriverError;
use cutover::lifecycle::update::machine::{Illegal, next};
use cutover::store::{Damage, Error as StoreError, Layout, Need, Settings, Store};
use cutover::sys::disk::{Disk, Error as DiskError};
use cutover::sys::lock::Holder;
use cutover::sys::owned::Error as OwnedError;
use cutover::sys::systemd::Error as SystemdError;
use cutover::types::record::{Event, Intent, Phase, Record};
use cutover::types::state::{Bad, NeedsPerson};
use cutover::types::units::NotAUnit;
use cutover::types::{Digest, ReleaseId, Span, Version};
use jiff::Timestamp;

/// Examples by variant. The match makes sure that none is left out, and the assertion that each is under its name.
macro_rules! examples {
    ($name:ident: $kind:ident { $($variant:ident => $examples:expr),* $(,)? }) => {
        pub fn $name() -> Vec<(String, $kind)> {
            fn name_of(error: &$kind) -> &'static str {
                match error { $($kind::$variant { .. } => stringify!($variant)),* }
            }
            let mut all = Vec::new();
            $(
                let some: Vec<$kind> = $examples.into_iter().collect();
                assert!(!some.is_empty(), "{}: no example", stringify!($variant));
                for example in some {
                    assert_eq!(name_of(&example), stringify!($variant));
                    all.push((format!("{}::{}", stringify!($kind), stringify!($variant)), example));
                }
            )*
            all
        }
    };
}

mod release;

use release::*;

/// All examples of an inner error, in its wrapper.
fn each<Inner, Outer>(inner: Vec<(String, Inner)>, wrap: impl Fn(Inner) -> Outer) -> Vec<Outer> {
    inner.into_iter().map(|(_, error)| wrap(error)).collect()
}

fn version() -> Version {
    "2.0.0".parse().unwrap()
}

fn digest() -> Digest {
    Digest::of(b"x")
}

fn release() -> ReleaseId {
    ReleaseId { version: version(), digest: digest() }
}

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// What a disk says to the disk layer: each is told in another way.
pub fn disk_errors() -> Vec<(String, DiskError)> {
    let numbers = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EACCES, libc::ENOENT];
    let error = |number| DiskError {
        action: "rename",
        path: "/srv/shop/current".into(),
        source: io::Error::from_raw_os_error(number),
    };
    numbers.into_iter().map(|number| ("DiskError".to_owned(), error(number))).collect()
}

pub fn record() -> Record {
    let (transaction, boot_id) = (text("20261125T115900Z-5d4e3f"), text("none"));
    Record {
        transaction,
        intent: Intent::Update,
        from: None,
        to: release(),
        serial: None,
        phase: Phase::Switching,
        rollout: None,
        confirm: false,
        overrules: None,
        no_rollback: false,
        no_hold: false,
        ended_by: None,
        data_policy: None,
        data: Vec::new(),
        boot_id,
        resumes: 0,
        deadline: None,
        ignored_checks: Vec::new(),
        started: now(),
        by: text("timer"),
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

fn illegal() -> Illegal {
    next(Phase::Committed, Event::Ready).unwrap_err()
}

fn no_space() -> StoreError {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Layout::new(directory.path()), Disk::default()).unwrap();
    store.ensure_space(Need { bytes: u64::MAX / 4, entries: 1 }, &Settings::default()).unwrap_err()
}

examples! { owned_errors: OwnedError {
    Owner => [OwnedError::Owner { path: "/etc/cutover/shop.toml".into(), uid: 1000 }],
    Writable => [OwnedError::Writable { path: "/etc/cutover/shop.toml".into(), mode: 0o666 }],
    Not => [OwnedError::Not { path: "/etc/cutover/keys".into(), wanted: "a regular file" }],
    Links => [OwnedError::Links("/etc/cutover/keys".into())],
    Disk => each(disk_errors(), OwnedError::Disk),
}}

examples! { config_problems: Problem {
    NoSuchApp => [
        Problem::NoSuchApp { app: text("shpo"), looked: "/etc/cutover/shpo.toml".into(), known: vec![text("shop")] },
        Problem::NoSuchApp { app: text("x"), looked: "/etc/cutover/x.toml".into(), known: vec![text("shop")] },
        Problem::NoSuchApp { app: text("x"), looked: "/etc/cutover/x.toml".into(), known: Vec::new() },
    ],
    AppName => [Problem::AppName(text("../x"))],
    Missing => [Problem::Missing("/tmp/shop.toml".into())],
    Owned => each(owned_errors(), Problem::Owned),
    NotText => [Problem::NotText { file: "/etc/cutover/shop.toml".into() }],
    Nul => [Problem::Nul { file: "/etc/cutover/shop.toml".into(), key: "root".into() }],
    InFile => [
        Problem::InFile {
            file: "/etc/cutover/shop.toml".into(), line: 3, what: text("`heatlh` is unknown"),
            nearest: Some(text("health")),
        },
        Problem::InFile { file: "/etc/cutover/shop.toml".into(), line: 3, what: text("x"), nearest: None },
    ],
    Contradiction => [Problem::Contradiction { why: text("a service has either `units` or `command`, not both") }],
}}

examples! { store_errors: StoreError {
    Disk => each(disk_errors(), StoreError::Disk),
    Root => [StoreError::Root { root: "/srv/shop".into(), why: text("there is no such directory") }],
    StrangePointer => [StoreError::StrangePointer { path: "/srv/shop/current".into(), why: text("it is a directory") }],
    Damaged => [StoreError::Damaged { path: "/srv/shop/.cutover/state.json".into(), why: Damage::Spoilt(text("it ends too early")) }],
    Unknown => [StoreError::Unknown { version: version(), path: "/srv/shop/.cutover/manifests/2.0.0.json".into() }],
    Locked => [StoreError::Locked {
        path: "/srv/shop/.cutover/state.lock".into(),
        limit: std::time::Duration::from_secs(10),
    }],
    NoSuchTree => [StoreError::NoSuchTree(version())],
    OtherContent => [StoreError::OtherContent { version: version(), here: digest() }],
    NoSpace => [no_space()],
    OtherFilesystem => [StoreError::OtherFilesystem { path: "/srv/shop/releases".into(), root: "/srv/shop".into() }],
}}

examples! { agreement_errors: AgreementError {
    Disk => each(disk_errors(), AgreementError::Disk),
    Overtaken => [AgreementError::Overtaken { path: text("/srv/shop/.cutover/fleet.json") }],
    Record => [AgreementError::Record { path: text("/srv/shop/.cutover/fleet.json"), why: text("it is cut") }],
}}

examples! { driver_errors: DriverError {
    Store => each(store_errors(), DriverError::Store),
    Agreement => each(agreement_errors(), DriverError::Agreement),
    Illegal => [DriverError::Illegal(illegal())],
    NothingToDo => [DriverError::NothingToDo],
    Data => [DriverError::Data(text("cannot rename `/srv/shop/data`: read-only file system"))],
    Busy => [DriverError::Busy(None)],
    Overtaken => [DriverError::Overtaken(text("release 2 is not switched to: by hand"))],
    Journal => [DriverError::Journal { path: "/srv/shop/.cutover/journal.json".into(), why: Damage::Spoilt(text("it is cut")) }],
}}

examples! { node_errors: NodeError {
    Store => each(store_errors(), NodeError::Store),
    Driver => each(driver_errors(), NodeError::Driver),
    Busy => [
        NodeError::Busy(None),
        NodeError::Busy(Some(Holder { pid: 4711, command: text("update"), since: now() })),
    ],
    UnderWay => [NodeError::UnderWay(Box::new(record()))],
    NeedsPerson => [NodeError::NeedsPerson(NeedsPerson { since: now(), reason: text("both are sick") })],
    NoWayBack => [NodeError::NoWayBack(text("no release is active"))],
    NoneActive => [NodeError::NoneActive],
    OldData => [NodeError::OldData { back_to: release(), at: now() - jiff::SignedDuration::from_hours(50), now: now(), named: None }],
    NoCopy => [
        NodeError::NoCopy { back_to: release(), paths: Vec::new(), named: Some(version()) },
        NodeError::NoCopy { back_to: release(), paths: vec!["/srv/shop/files".into()], named: None },
    ],
    NoTrial => [NodeError::NoTrial],
    Banned => [NodeError::Banned(Bad { release: release(), reason: text("it was sick"), since: now() })],
    ActiveAlready => [NodeError::ActiveAlready(version())],
    IsLeft => [NodeError::IsLeft(version())],
    DataMoved => [NodeError::DataMoved(version())],
    Data => each(data_errors(), NodeError::Data),
    Tree => each(staging_errors(), NodeError::Tree),
}}

examples! { staging_errors: StagingError {
    Link => [StagingError::Link { name: "uploads".into(), why: "`uploads` on the way to it is a link in the release".into() }],
    Store => each(store_errors(), StagingError::Store),
    Stage => each(stage_errors(), StagingError::Stage),
    Index => each(index_errors(), StagingError::Index),
    Archive => each(archive_errors(), StagingError::Archive),
    Source => each(source_errors(), StagingError::Source),
    Mismatch => [StagingError::Mismatch { version: version(), what: text("its index is another one") }],
    Disk => each(disk_errors(), StagingError::Disk),
}}

examples! { adopting_errors: AdoptingError {
    Refused => [AdoptingError::Refused {
        path: "/srv/shop/v1".into(), why: text("its name is no version"), hint: "say one with `--version`",
    }],
    Unfit => [AdoptingError::Unfit {
        path: "/srv/shop/v1/queue".into(), why: "it is a fifo", hint: "remove it, or move it out of the directory",
    }],
    NotUndone => [AdoptingError::NotUndone { why: "nothing was adopted here", hint: "`cutover status` shows it" }],
    Staging => each(staging_errors(), AdoptingError::Staging),
}}

examples! { data_errors: DataError {
    Disk => each(disk_errors(), DataError::Disk),
    NoSpace => [DataError::NoSpace { path: "/srv/shop/data".into(), need: 2 << 30, free: 1 << 30 }],
    Unfit => [DataError::Unfit { path: "/srv/shop/data".into(), why: "it is a mount point" }],
    NoInodes => [DataError::NoInodes { path: "/srv/shop/.cutover".into(), need: 100_000, free: 12 }],
    Border => [DataError::Border {
        data: "/srv/shop/data".into(),
        path: "/srv/shop/data/uploads".into(),
        what: "a mount point",
        within: "uploads".into(),
    }],
    Nested => [DataError::Nested { outer: "/srv/shop/data".into(), inner: "/srv/shop/data/db".into() }],
    WayBack => [DataError::WayBack {
        path: "/srv/shop/data".into(),
        here: "/srv/shop".into(),
        away: "/srv/shop/.cutover/aside".into(),
        source: broken(),
    }],
    Gone => [DataError::Gone("/srv/shop/data".into())],
    Elsewhere => [
        DataError::Elsewhere { path: "/srv/shop/data".into(), point: "/srv/ftp".into(), pid: None },
        DataError::Elsewhere { path: "/srv/shop/data/in".into(), point: "/srv/ftp".into(), pid: Some(4711) },
    ],
    OtherRoot => [DataError::OtherRoot { path: "/srv/shop/data".into(), root: "/srv/shop".into() }],
    Away => [DataError::Away {
        path: "/mnt/.db.cutover-aside-t.0-db.copy".into(),
        index: "/srv/shop/.cutover/aside/t.json".into(),
    }],
    InUse => [DataError::InUse { path: "/srv/shop/.cutover/aside/t/0-data.copy".into(), by: text("used by process 4711") }],
    Index => [DataError::Index { path: "/srv/shop/.cutover/aside/t.json".into(), why: text("it is cut") }],
}}

examples! { upstream_errors: UpstreamError {
    Resolve => each(resolve_errors(), UpstreamError::Resolve),
    Source => each(source_errors(), UpstreamError::Source),
    Trust => each(trust_errors(), UpstreamError::Trust),
    Node => each(node_errors(), UpstreamError::Node),
    Staging => each(staging_errors(), UpstreamError::Staging),
}}

examples! { operate_errors: OperateError {
    Unreachable => [OperateError::Unreachable(text("no answer within 5s"))],
    Refused => [OperateError::Refused(text("rollout 17 is under way"))],
    Lost => [OperateError::Lost { number: 17, by: text("anna") }],
}}

examples! { walls_errors: WallsError {
    Disk => each(disk_errors(), WallsError::Disk),
    Absent => [WallsError::Absent("/var/lib/shop".into())],
    Name => [WallsError::Name("/srv/shop/a:b".into())],
    TooMany => [WallsError::TooMany("/srv/shop".into())],
    Socket => [WallsError::Socket("app.sock".into())],
    TooManySockets => [WallsError::TooManySockets("/srv/a.sock".into())],
}}

examples! { rehearsal_errors: RehearsalError {
    NoSystemd => [RehearsalError::NoSystemd],
    OldSystemd => [RehearsalError::OldSystemd(247)],
    NotRoot => [RehearsalError::NotRoot],
    NoUnits => [RehearsalError::NoUnits],
    NotLoaded => [RehearsalError::NotLoaded { unit: text("shop.service"), state: text("masked") }],
    Unfit => {
        let (unit, option) = (text("shop.service"), text("PrivateNetwork"));
        [RehearsalError::Unfit(Unfit { unit, option, why: "is set" })]
    },
    NoUser => [RehearsalError::NoUser { unit: text("shop.service"), user: text("shop"), hint: "" }],
    Walls => each(walls_errors(), RehearsalError::Walls),
    Data => each(data_errors(), RehearsalError::Data),
    Disk => each(disk_errors(), RehearsalError::Disk),
    Systemd => each(systemd_errors(), RehearsalError::Systemd),
}}

// All that a command may fail with.
examples! { failures: Error {
    Config => each(config_problems(), Error::Config),
    Node => each(node_errors(), Error::Node),
    Staging => each(staging_errors(), Error::Staging),
    Adopting => each(adopting_errors(), Error::Adopting),
    Store => each(store_errors(), Error::Store),
    Disk => each(disk_errors(), Error::Disk),
    Data => each(data_errors(), Error::Data),
    Usage => [
        Error::Usage { what: text("`soon` is not a moment"), hint: Some(text("write it as 04:00")) },
        Error::Usage { what: text("`--version` goes with an archive"), hint: None },
    ],
    NoSuchRelease => [
        Error::NoSuchRelease { what: text("1.0"), nearest: Some(text("1.0.0")) },
        Error::NoSuchRelease { what: text("1.0"), nearest: None },
    ],
    Differs => [
        Error::Differs { version: version(), what: String::new() },
        Error::Differs { version: version(), what: "`lib/red.js` differs from what was staged".into() },
    ],
    Upstream => each(upstream_errors(), Error::Upstream),
    Place => each(resolve_errors(), Error::Place),
    Pack => each(pack_errors(), Error::Pack),
    Sign => each(sign_errors(), Error::Sign),
    Publish => each(publish_errors(), Error::Publish),
    Hook => [Error::Hook(text("hook `/etc/cutover/shop.hooks/pre-stage.d/10-a` failed: exit code 1"))],
    Operate => each(operate_errors(), Error::Operate),
    Agreement => each(agreement_errors(), Error::Agreement),
    Fleet => [Error::Fleet(text("this node has not joined the fleet"))],
    Stranger => [Error::Stranger(text("the name `edge-01` is in use by another machine"))],
    Unreachable => [Error::Unreachable(text("no answer within 5s"))],
    Rehearsal => each(rehearsal_errors(), Error::Rehearsal),
    NotNow => [Error::NotNow(text("slot 3 is taken"))],
    Interrupted => [Error::Interrupted("while the release was staged")],
}}

// What becomes the reason of a rollback, or part of another message.

examples! { systemd_errors: SystemdError {
    Refused => [SystemdError::Refused { action: "start", subject: text("`shop.service`"), answer: text("not found") }],
    TimedOut => {
        let limit = Duration::from_secs(90);
        [SystemdError::TimedOut { action: "start", subject: text("`shop.service`"), limit }]
    },
}}

examples! { service_errors: ServiceError {
    Systemd => each(systemd_errors(), ServiceError::Systemd),
    Unstoppable => [ServiceError::Unstoppable { units: text("`shop.service`"), state: text("deactivating") }],
    Command => [ServiceError::Command { action: "stop", command: text("bin/stop"), answer: text("exit code 1") }],
}}

examples! { units_errors: UnitsError {
    Disk => each(disk_errors(), UnitsError::Disk),
    Systemd => each(systemd_errors(), UnitsError::Systemd),
    Taken => [UnitsError::Taken { unit: text("shop.service"), path: "/etc/systemd/system/shop.service".into() }],
    OnlyWithOthers => [UnitsError::OnlyWithOthers(text("shop-audit.service"))],
    TooMany => [UnitsError::TooMany("/srv/shop/releases/2.0.0".into())],
}}

examples! { hook_errors: HookError {
    NotNow => [
        HookError::NotNow { hook: "/etc/cutover/shop.hooks/a".into(), said: text("a backup runs") },
        HookError::NotNow { hook: "/etc/cutover/shop.hooks/a".into(), said: String::new() },
    ],
    Failed => [HookError::Failed { hook: "/etc/cutover/shop.hooks/a".into(), how: text("exit code 1") }],
    Untrusted => each(owned_errors(), |source| HookError::Untrusted { hook: "/etc/cutover/shop.hooks/a".into(), source }),
    Lost => [HookError::Lost { hook: "/etc/cutover/shop.hooks/a".into(), source: broken() }],
    Unreadable => [HookError::Unreadable { path: "/etc/cutover/shop.hooks".into(), source: broken() }],
    TooMany => [HookError::TooMany("/etc/cutover/shop.hooks".into())],
}}

examples! { health_invalid: HealthInvalid {
    Kind => [HealthInvalid::Kind(text("a"))],
    Name => [HealthInvalid::Name(text("units"))],
    Command => [HealthInvalid::Command(text("a"))],
    Http => [HealthInvalid::Http { name: text("a"), why: text("`ftp://x` is not a URL that begins with `http://` or `https://`") }],
    Address => [HealthInvalid::Address { name: text("a"), address: text("127.0.0.1") }],
    Unit => [HealthInvalid::Unit { name: text("a"), unit: text("x") }],
    NoUnits => [HealthInvalid::NoUnits(text("a"))],
    Variable => [HealthInvalid::Variable { name: text("a"), variable: text("A=B") }],
    Zero => [HealthInvalid::Zero("interval")],
    Threshold => [HealthInvalid::Threshold],
    Timeout => [HealthInvalid::Timeout(text("a"))],
    Interval => [HealthInvalid::Interval(Span::seconds(9))],
    Deadline => [HealthInvalid::Deadline { min_healthy: Span::seconds(9), deadline: Span::seconds(1) }],
}}

examples! { service_invalid: ServiceInvalid {
    Unit => [ServiceInvalid::Unit(text("shop"))],
    UnitsAndCommand => [ServiceInvalid::UnitsAndCommand],
    Zero => [ServiceInvalid::Zero("stop_timeout")],
    Empty => [ServiceInvalid::Empty("start")],
}}

examples! { rehearsal_invalid: RehearsalInvalid {
    Unit => [RehearsalInvalid::Unit(text("shop"))],
    Template => [RehearsalInvalid::Template(text("shop.service"))],
    Other => [RehearsalInvalid::Other { key: "unit", network: "host" }],
    UnitsAndCommand => [RehearsalInvalid::UnitsAndCommand],
    HostNeeds => [RehearsalInvalid::HostNeeds],
    PromoteAndData => [RehearsalInvalid::PromoteAndData],
    Skip => [RehearsalInvalid::Skip(text("answers"))],
    Scratch => [RehearsalInvalid::Scratch("tmp".into())],
    Outgoing => [RehearsalInvalid::Outgoing(text("db"))],
    Check => each(health_invalid(), RehearsalInvalid::Check),
}}

examples! { not_a_window: NotAWindow {
    Start => [NotAWindow::Start(text("25:00"))],
    Length => [NotAWindow::Length(Span::seconds(0))],
    Zone => [NotAWindow::Zone(text("Mars/Base"))],
}}

examples! { not_a_unit: NotAUnit {
    Span => [NotAUnit::Span(text("soon"))],
    Size => [NotAUnit::Size(text("much"))],
}}

/// Every message that is part of others.
pub fn inner_messages() -> Vec<(String, String)> {
    fn told<E: std::error::Error>(examples: Vec<(String, E)>) -> Vec<(String, String)> {
        examples.into_iter().map(|(name, error)| (name, error.to_string())).collect()
    }
    [
        told(systemd_errors()),
        told(service_errors()),
        told(units_errors()),
        told(hook_errors()),
        told(health_invalid()),
        told(service_invalid()),
        told(rehearsal_invalid()),
        told(not_a_window()),
        told(not_a_unit()),
        told(rules()),
        told(line_problems()),
        told(value_problems()),
        told(not_counted()),
        told(trust_refusals()),
        told(key_problems()),
    ]
    .concat()
}
