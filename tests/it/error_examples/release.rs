//! Examples of the errors of releases: archives, indexes, sources, signatures.

use std::io;

use cutover::release::archive::{Error as ArchiveError, Refusal, Rule};
use cutover::release::exclusive::Error as LockError;
use cutover::release::index::Error as IndexError;
use cutover::release::judge::Refused;
use cutover::release::pack::Error as PackError;
use cutover::release::publish::Error as PublishError;
use cutover::release::resolve::Error as ResolveError;
use cutover::release::source::Error as SourceError;
use cutover::release::stage::Error as StageError;
use cutover::release::text::{LineProblem, Malformed, ValueProblem};
use cutover::release::trust::{
    Error as TrustError, NotCounted, Problem as KeyProblem, Refusal as TrustRefusal, SignError,
};

use super::{broken, digest, disk_errors, each, now, owned_errors, text, version};

examples! { rules: Rule {
    UnknownFormat => [Rule::UnknownFormat],
    CompressedTwice => [Rule::CompressedTwice],
    Page => [Rule::Page],
    Pointer => [Rule::Pointer],
    UnreadCompression => [Rule::UnreadCompression("xz")],
    BrokenCompression => [Rule::BrokenCompression(text("checksum"))],
    Dictionary => [Rule::Dictionary],
    Window => [Rule::Window],
    Truncated => [Rule::Truncated],
    NoEndMark => [Rule::NoEndMark],
    DataAfterEnd => [Rule::DataAfterEnd],
    Empty => [Rule::Empty],
    Checksum => [Rule::Checksum],
    Magic => [Rule::Magic],
    Number => [Rule::Number("size")],
    EntryType => [Rule::EntryType(b'V')],
    SpecialFile => [Rule::SpecialFile],
    DataWithoutFile => [Rule::DataWithoutFile],
    ExtendedTooLong => [Rule::ExtendedTooLong],
    ExtendedTooMany => [Rule::ExtendedTooMany],
    BrokenRecord => [Rule::BrokenRecord],
    RepeatedRecord => [Rule::RepeatedRecord(text("path"))],
    RecordValue => [Rule::RecordValue(text("mtime"))],
    Record => [Rule::Record(text("x"))],
    GlobalRecord => [Rule::GlobalRecord(text("path"))],
    HeadersDisagree => [Rule::HeadersDisagree("name")],
    DanglingHeader => [Rule::DanglingHeader],
    EmptyName => [Rule::EmptyName],
    AbsoluteName => [Rule::AbsoluteName],
    ParentInName => [Rule::ParentInName],
    NulInName => [Rule::NulInName],
    NameTooLong => [Rule::NameTooLong],
    ComponentTooLong => [Rule::ComponentTooLong],
    SlashAfterFile => [Rule::SlashAfterFile],
    LinkTarget => [Rule::LinkTarget],
    HardLinkTarget => [Rule::HardLinkTarget],
    Repeated => [Rule::Repeated],
    ThroughNonDirectory => [Rule::ThroughNonDirectory],
    FileSystemName => [Rule::FileSystemName(text("EILSEQ"))],
    SetId => [Rule::SetId],
    Capability => [Rule::Capability],
    AccessList => [Rule::AccessList],
    Attribute => [Rule::Attribute(text("trusted.x"))],
    Owner => [Rule::Owner],
    Time => [Rule::Time],
    SparseMap => [Rule::SparseMap],
    SparseKind => [Rule::SparseKind],
    TooManyBytes => [Rule::TooManyBytes(1)],
    TooManyEntries => [Rule::TooManyEntries(1)],
    TooMuchMetadata => [Rule::TooMuchMetadata(1)],
}}

examples! { archive_errors: ArchiveError {
    Refused => each(rules(), |rule| {
        let (archive, name) = (text("shop-2.0.0.tar"), b"bin/a".to_vec());
        ArchiveError::Refused(Box::new(Refusal { archive, entry: 3, offset: 1536, name, rule }))
    }),
    Read => [ArchiveError::Read { archive: text("shop-2.0.0.tar"), source: broken() }],
}}

examples! { stage_errors: StageError {
    Archive => each(archive_errors(), StageError::Archive),
    Disk => each(disk_errors(), StageError::Disk),
}}

examples! { source_errors: SourceError {
    NoSource => [SourceError::NoSource],
    Scheme => [SourceError::Scheme(text("ftp"))],
    NotAbsolute => [SourceError::NotAbsolute(text("releases"))],
    Name => [SourceError::Name(text("../x"))],
    Missing => [SourceError::Missing(text("/srv/releases/stable.channel"))],
    Read => [SourceError::Read { what: text("https://releases/shop"), source: broken() }],
    OutOfRange => [SourceError::OutOfRange { path: "/x".into(), start: 1, length: 2, size: 2 }],
    Disk => each(disk_errors(), SourceError::Disk),
    Owned => each(owned_errors(), SourceError::Owned),
    Address => [SourceError::Address { address: text("http://"), problem: "it has no host" }],
    Proxy => [SourceError::Proxy],
    Status => [None, Some(std::time::Duration::from_secs(600))].map(|retry_after| SourceError::Status {
        what: text("https://releases/shop"),
        status: 503,
        retry_after,
    }),
    Answer => [SourceError::Answer { what: text("https://releases/shop"), problem: "it gives another part" }],
    Cut => [SourceError::Cut(text("https://releases/shop"))],
    TooLong => [SourceError::TooLong { what: text("stable.channel"), limit: 1 << 20 }],
    Size => [SourceError::Size { found: 1, signed: 2 }],
    Digest => [SourceError::Digest { found: digest(), signed: digest() }],
    Told => [false, true].map(|is_refusal| SourceError::Told {
        text: text("it went wrong"),
        is_refusal,
        remedy: cutover::release::source::Remedy::Way,
    }),
    Overtaken => [SourceError::Overtaken(text("https://releases/shop/stable.channel"))],
    Put => [401, 404, 405, 409, 413, 500, 507].map(|status| SourceError::Put {
        what: text("https://releases/shop/shop-1.tar"),
        status,
        retry_after: None,
    }),
    NotKept => [SourceError::NotKept(text("https://releases/shop/stable.channel"))],
    Setting => [SourceError::Setting("`rate_limit` must be at least 1 byte a second")],
    Private => [SourceError::Private { directory: "/tmp".into(), source: broken() }],
    Occupied => [SourceError::Occupied {
        what: text("/srv/releases/stable.channel"),
        by: text("the channel of product `a`"),
        new: text("that of product `b`"),
    }],
    Exists => [SourceError::Exists(text("https://releases/shop/shop-1.manifest"))],
    Write => [SourceError::Write(broken()), SourceError::Write(io::Error::from_raw_os_error(libc::ENOSPC))],
}}

examples! { index_errors: IndexError {
    Malformed => [IndexError::Malformed { part: "the index", rule: "it ends too early" }],
    Digest => [IndexError::Digest { part: "a page of the index", found: digest(), wanted: digest() }],
    Differs => [IndexError::Differs { path: b"bin/a".to_vec(), rule: "its mode" }],
    Entry => [IndexError::Entry { path: b"bin/a".to_vec(), rule: "its name is absolute" }],
    Read => [IndexError::Read(broken())],
    Source => each(source_errors(), IndexError::Source),
    Disk => each(disk_errors(), IndexError::Disk),
}}

examples! { line_problems: LineProblem {
    NotText => [LineProblem::NotText],
    Control => [LineProblem::Control(7)],
    Empty => [LineProblem::Empty],
    NotAPair => [LineProblem::NotAPair],
    FormatNotFirst => [LineProblem::FormatNotFirst],
    Twice => [LineProblem::Twice { key: text("size"), first: 3 }],
    Unknown => [
        LineProblem::Unknown { key: text("szie"), nearest: Some("size") },
        LineProblem::Unknown { key: text("q"), nearest: None },
    ],
}}

examples! { value_problems: ValueProblem {
    Empty => [ValueProblem::Empty],
    Not => [ValueProblem::Not { value: text("x"), wanted: "a whole number" }],
    Conflict => [ValueProblem::Conflict("waves must come in order of time")],
}}

examples! { malformed: Malformed {
    TooLong => [Malformed::TooLong { size: 70_000, limit: 65_536 }],
    Line => each(line_problems(), |problem| Malformed::Line { line: 4, problem }),
    Value => each(value_problems(), |problem| Malformed::Value { line: 4, key: text("size"), problem }),
    Missing => [Malformed::Missing("size")],
    Newer => [Malformed::Newer(2)],
}}

examples! { not_counted: NotCounted {
    Unknown => [NotCounted::Unknown],
    Revoked => [NotCounted::Revoked],
    OtherRole => [NotCounted::OtherRole],
    OtherTime => [NotCounted::OtherTime],
}}

examples! { trust_refusals: TrustRefusal {
    Unsigned => [TrustRefusal::Unsigned],
    NotASignature => [TrustRefusal::NotASignature],
    Certificate => [TrustRefusal::Certificate],
    Algorithm => [TrustRefusal::Algorithm(text("ssh-rsa"))],
    Namespace => [TrustRefusal::Namespace { found: text("file"), wanted: text("cutover-release") }],
    NobodyPresent => [TrustRefusal::NobodyPresent(text("SHA256:abc"))],
    WrongSignature => [TrustRefusal::WrongSignature(text("SHA256:abc"))],
    TooFew => {
        let others = not_counted().into_iter().map(|(_, why)| (text("SHA256:abc"), why)).collect();
        [
            TrustRefusal::TooFew { needed: 2, counted: 1, others },
            TrustRefusal::TooFew { needed: 1, counted: 0, others: Vec::new() },
        ]
    },
    NoKeys => [TrustRefusal::NoKeys("cutover-channel")],
}}

examples! { refused: Refused {
    Untrusted => each(trust_refusals(), |refusal| Refused::Untrusted { what: text("stable.channel"), refusal }),
    Page => [Refused::Page(text("https://releases/shop/stable.channel"))],
    Malformed => each(malformed(), |malformed| Refused::Malformed { what: text("stable.channel"), malformed }),
    OtherProduct => [Refused::OtherProduct { what: text("x.manifest"), found: text("a"), wanted: text("b") }],
    OtherChannel => [Refused::OtherChannel { what: text("x.channel"), found: text("a"), wanted: text("b") }],
    Older => [Refused::Older { channel: text("stable"), serial: 6, seen: 7 }],
    TwoOfOneSerial => [Refused::TwoOfOneSerial { channel: text("stable"), serial: 7 }],
    FastForward => [Refused::FastForward { channel: text("stable"), serial: u64::MAX }],
    FromTheFuture => [Refused::FromTheFuture { channel: text("stable"), issued: now(), now: now() }],
    Expired => [Refused::Expired { channel: text("stable"), expires: now(), now: now() }],
    NotNamed => [Refused::NotNamed { channel: text("stable"), version: version() }],
    Revoked => [Refused::Revoked { channel: text("stable"), version: version() }],
    BelowMinimum => [Refused::BelowMinimum { channel: text("stable"), version: version(), minimum: version() }],
    OtherManifest => [Refused::OtherManifest { what: text("x.manifest"), found: digest(), wanted: digest() }],
    OtherVersion => [Refused::OtherVersion { what: text("x.manifest"), found: version(), wanted: version() }],
    Incompatible => [
        Refused::Incompatible { version: version(), wanted: vec![text("x86_64")], here: Vec::new() },
        Refused::Incompatible { version: version(), wanted: vec![text("x86_64")], here: vec![text("arm")] },
    ],
    OtherArchive => [Refused::OtherArchive { found: text("a.tar"), wanted: text("b.tar") }],
}}

examples! { resolve_errors: ResolveError {
    Refused => each(refused(), ResolveError::Refused),
    Source => each(source_errors(), ResolveError::Source),
    Disk => each(disk_errors(), ResolveError::Disk),
    NoVersion => [ResolveError::NoVersion(cutover::release::source::local::NoVersion(text("x.tar")))],
}}

examples! { key_problems: KeyProblem {
    NotText => [KeyProblem::NotText],
    NoKey => [KeyProblem::NoKey],
    BadKey => [KeyProblem::BadKey],
    Algorithm => [KeyProblem::Algorithm(text("ssh-rsa"))],
    Certificate => [KeyProblem::Certificate],
    Quote => [KeyProblem::Quote],
    Option => [KeyProblem::Option(text("cert-authority"))],
    Twice => [KeyProblem::Twice(text("namespaces"))],
    Time => [KeyProblem::Time(text("soon"))],
    NeverValid => [KeyProblem::NeverValid],
}}

examples! { trust_errors: TrustError {
    Owned => each(owned_errors(), TrustError::Owned),
    Line => each(key_problems(), |problem| TrustError::Line { file: "/etc/cutover/keys/a.pub".into(), line: 2, problem }),
    Missing => [TrustError::Missing("/etc/cutover/keys/a.pub".into())],
    BinaryList => [TrustError::BinaryList("/etc/cutover/revoked".into())],
}}

examples! { pack_errors: PackError {
    Changed => [PackError::Changed("build/a".into())],
    BaseWithoutIndex => [PackError::BaseWithoutIndex("shop-1.tar".into())],
    TooLarge => [PackError::TooLarge],
    Compress => [PackError::Compress(broken())],
    Index => each(index_errors(), PackError::Index),
    Disk => each(disk_errors(), PackError::Disk),
    Empty => [PackError::Empty("app".into())],
    Published => [PackError::Published("shop-1.tar.zst".into())],
    Lock => each(lock_errors(), PackError::Lock),
}}

examples! { sign_errors: SignError {
    Disk => each(disk_errors(), SignError::Disk),
    NoKey => [SignError::NoKey("team".into())],
    NoFile => [SignError::NoFile("x.manifest".into())],
    Key => [SignError::Key { path: "team".into(), source: ssh_key::Error::Crypto }],
    Random => [SignError::Random],
    Run => [SignError::Run { path: "team".into(), source: broken() }],
    Refused => [SignError::Refused("team".into())],
    KeyType => [SignError::KeyType { path: "team".into(), kind: text("ssh-rsa") }],
    Unsound => each(trust_refusals(), |refusal| SignError::Unsound { path: "team".into(), refusal }),
}}

examples! { publish_errors: PublishError {
    Disk => each(disk_errors(), PublishError::Disk),
    Sign => each(sign_errors(), PublishError::Sign),
    Malformed => each(malformed(), |malformed| PublishError::Malformed { path: "stable.channel".into(), malformed }),
    Signature => each(trust_refusals(), |refusal| PublishError::Signature { path: "stable.channel".into(), refusal }),
    OtherKey => [PublishError::OtherKey { path: "stable.channel".into(), found: text("SHA256:abc") }],
    Unsigned => [PublishError::Unsigned("stable.channel".into())],
    NoRelease => [PublishError::NoRelease { directory: "releases".into(), version: version() }],
    WhichRelease => [PublishError::WhichRelease { directory: "releases".into(), count: 2 }],
    OtherArchive => [PublishError::OtherArchive { path: "x.tar".into(), what: "the size" }],
    SameArchive => [PublishError::SameArchive { path: "app.tar".into(), other: version() }],
    WouldBeRefused => each(refused(), PublishError::WouldBeRefused),
    OtherProduct => [PublishError::OtherProduct { path: "stable.channel".into(), found: text("a"), wanted: text("b") }],
    OtherName => [PublishError::OtherName { path: "app.manifest".into(), wanted: text("shop-1.manifest") }],
    WouldLose => [PublishError::WouldLose { path: "stable.channel".into(), lost: vec![text("revoked 1.0")] }],
    OtherRelease => [PublishError::OtherRelease("shop-1.manifest".into())],
    Changed => [PublishError::Changed { path: "shop-1.manifest".into(), found: digest(), published: digest() }],
    Stranger => [PublishError::Stranger { path: "shop-1.manifest".into(), found: text("SHA256:abc") }],
    NotNamed => [PublishError::NotNamed(version())],
    OtherChannel => [PublishError::OtherChannel { path: "stable.channel".into(), found: text("beta") }],
    Overwritten => [PublishError::Overwritten("stable.channel".into())],
    Lock => each(lock_errors(), PublishError::Lock),
    BelowMinimum => [PublishError::BelowMinimum { version: version(), minimum: version() }],
    Revoked => [PublishError::Revoked(version())],
}}

examples! { lock_errors: LockError {
    Taken => [LockError::Taken("lock".into())],
    Disk => each(disk_errors(), LockError::Disk),
}}
