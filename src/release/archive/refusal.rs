//! Why an archive was refused, in one sentence that names the place.

use std::io;

use crate::types::escaped;

/// An archive that breaks a rule, and where it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("archive `{}`{}: {rule}", escaped(.archive.as_bytes()), place(*.entry, *.offset, .name))]
pub struct Refusal {
    pub archive: String,
    /// The number of the entry, from 1; 0 for what concerns the archive as a whole.
    pub entry: u64,
    /// Where its header begins, in bytes of the uncompressed archive.
    pub offset: u64,
    /// Its name as it stands in the archive, as far as it is known.
    pub name: Vec<u8>,
    pub rule: Rule,
}

fn place(entry: u64, offset: u64, name: &[u8]) -> String {
    match (entry, name) {
        (0, _) => String::new(),
        (_, []) => format!(", entry {entry} at byte {offset}"),
        _ => format!(", entry {entry} at byte {offset}, `{}`", escaped(name)),
    }
}

/// The rules that archives keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    // The archive as a whole.
    #[error("it is neither a tar archive nor one compressed by gzip or zstd")]
    UnknownFormat,
    #[error("it is compressed by {0}; only gzip and zstd are read")]
    UnreadCompression(&'static str),
    #[error("it is compressed twice")]
    CompressedTwice,
    #[error("it is a page of the web, or other markup")]
    Page,
    #[error("it is a pointer of Git LFS, and not the file itself")]
    Pointer,
    #[error("its compressed data are broken ({0})")]
    BrokenCompression(String),
    #[error("it was compressed with a dictionary, which is not supported")]
    Dictionary,
    #[error("it asks for more memory to be decompressed than this node gives (`[archive] max_window`)")]
    Window,
    #[error("it ends in the middle of an entry")]
    Truncated,
    #[error("it has no end mark: it was cut, or is not finished")]
    NoEndMark,
    #[error("something follows its end mark")]
    DataAfterEnd,
    #[error("it is empty, or has no entries")]
    Empty,
    // Headers.
    #[error("the header's checksum is wrong")]
    Checksum,
    #[error("the header is of no known kind of tar")]
    Magic,
    #[error("the header's {0} is not a number in its range")]
    Number(&'static str),
    #[error("entries of type `{}` are not accepted", escaped(&[*.0]))]
    EntryType(u8),
    #[error("devices and fifos are not accepted")]
    SpecialFile,
    #[error("it has data, but is not a file")]
    DataWithoutFile,
    #[error("an extended header is longer than {} bytes", super::EXTENDED_MAX)]
    ExtendedTooLong,
    #[error("the extended headers are longer than all entries together may have")]
    ExtendedTooMany,
    #[error("an extended header has a broken record")]
    BrokenRecord,
    #[error("an extended header has the record `{0}` twice")]
    RepeatedRecord(String),
    #[error("the extended record `{0}` has a value that is not accepted")]
    RecordValue(String),
    #[error("the extended record `{0}` is not accepted")]
    Record(String),
    #[error("the global header has the record `{0}`, which would be for all entries")]
    GlobalRecord(String),
    #[error("two headers disagree about, or repeat, its {0}")]
    HeadersDisagree(&'static str),
    #[error("an extended header is followed by no entry")]
    DanglingHeader,
    // Names.
    #[error("its name is empty")]
    EmptyName,
    #[error("its name is absolute")]
    AbsoluteName,
    #[error("its name has a `..`")]
    ParentInName,
    #[error("its name has a NUL")]
    NulInName,
    #[error("its name is longer than {} bytes", super::PATH_MAX)]
    NameTooLong,
    #[error("a component of its name is longer than {} bytes", super::COMPONENT_MAX)]
    ComponentTooLong,
    #[error("its name ends in a slash, but it is no directory")]
    SlashAfterFile,
    // Links.
    #[error("its link target is empty, has a NUL, or is longer than {} bytes", super::PATH_MAX)]
    LinkTarget,
    #[error("its hard link target is not a regular file that comes before it in this archive")]
    HardLinkTarget,
    // The tree.
    #[error("its path exists already in this archive")]
    Repeated,
    #[error("its path leads through something that is no directory")]
    ThroughNonDirectory,
    #[error("this file system does not accept its name, or takes it for another one's ({0})")]
    FileSystemName(String),
    // Metadata.
    #[error("setuid and setgid files are not accepted (`[archive] allow_setid`)")]
    SetId,
    #[error("file capabilities are not accepted (`[archive] allow_capabilities`)")]
    Capability,
    #[error("an access control list that says more than the mode is not accepted")]
    AccessList,
    #[error("the extended attribute `{0}` is not accepted")]
    Attribute(String),
    #[error("its owner or group is out of range")]
    Owner,
    #[error("its time is out of the range that file systems keep")]
    Time,
    #[error("its map of holes is broken")]
    SparseMap,
    #[error("its map of holes is of an old kind; use GNU tar's `--sparse-version=1.0`")]
    SparseKind,
    // Limits.
    #[error("the files are larger than {0} bytes together")]
    TooManyBytes(u64),
    #[error("there are more than {0} entries")]
    TooManyEntries(u64),
    #[error("names, link targets and attributes are larger than {0} bytes together")]
    TooMuchMetadata(u64),
}

impl Rule {
    /// What whoever makes or takes the archive can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownFormat | Self::UnreadCompression(_) => {
                "make a `.tar`, `.tar.gz` or `.tar.zst`, or use `cutover pack`"
            }
            Self::CompressedTwice => "decompress it once (`gzip -d`, `zstd -d`)",
            Self::Page => "look at the address that it came from: a server gives this instead of the archive",
            Self::Pointer => "fetch the file itself: `git lfs pull`",
            Self::BrokenCompression(_) | Self::Truncated | Self::NoEndMark => {
                "compare it with the original (`sha256sum`), and copy it again; if they are equal, make it anew"
            }
            Self::Dictionary => "compress it without one (`zstd` without `-D`), or use `cutover pack`",
            Self::DataAfterEnd => "compare it with the original; `tar -A` joins archives, `cat` does not",
            Self::Window => {
                "set `[archive] max_window`, for example to \"1GiB\", or compress it without `--long`"
            }
            Self::Empty => "see that the right directory was archived, and that the file was written",
            Self::Checksum | Self::Magic | Self::Number(_) | Self::BrokenRecord | Self::DanglingHeader => {
                "the archive is damaged, or its writer is: make it with today's GNU tar or bsdtar"
            }
            Self::EntryType(kind) => without_type(*kind),
            Self::GlobalRecord(key) if key == "GNU.volume.label" => "archive it without `--label` (`-V`)",
            Self::Record(key) if key == "GNU.dumpdir" => "archive it without `--listed-incremental` (`-g`)",
            Self::DataWithoutFile => {
                "only files have data: whatever wrote it is at fault; make it with today's GNU tar or bsdtar"
            }
            Self::SpecialFile => "leave it out (`tar --exclude`): a release has files, directories and links",
            Self::ExtendedTooLong | Self::ExtendedTooMany => {
                "archive it without attributes (`tar --no-xattrs`)"
            }
            Self::RepeatedRecord(_) | Self::RecordValue(_) | Self::Record(_) | Self::HeadersDisagree(_) => {
                "tars read this differently: make it with `tar --format=pax` and without special options"
            }
            Self::GlobalRecord(_) => "archive it without `--pax-option`, or with `KEY:=VALUE` there",
            Self::EmptyName | Self::NulInName | Self::SlashAfterFile => {
                "make the archive anew with today's GNU tar or bsdtar"
            }
            Self::AbsoluteName => "archive it without `-P` (`--absolute-names`)",
            Self::ParentInName => "archive it from within the directory (`tar -C DIR .`)",
            Self::NameTooLong | Self::ComponentTooLong => "shorten the name",
            Self::LinkTarget => "mend or leave out that link",
            Self::HardLinkTarget => "archive it with `--hard-dereference`",
            Self::Repeated => {
                "a newer copy was appended (`tar -r`, `tar -u`): make the archive anew, in one go, of the finished tree"
            }
            Self::ThroughNonDirectory => "archive what the link leads to (`tar -h`), or leave it out",
            Self::FileSystemName(_) => {
                "rename it, or keep the root on a file system that tells these names apart"
            }
            Self::SetId => "take the bit off (`chmod ug-s`), or set `[archive] allow_setid = true`",
            Self::Capability => {
                "take them off (`setcap -r`), archive with `--no-xattrs`, or set `[archive] allow_capabilities = true`"
            }
            Self::AccessList => {
                "archive it without such lists (`tar --no-acls --no-xattrs`, `bsdtar --no-acls`)"
            }
            Self::Attribute(_) => "archive it without attributes (`tar --no-xattrs`)",
            Self::Owner => "archive it with another owner (`tar --owner=0 --group=0`)",
            Self::Time => "give it another time (`touch`), or archive it with `--mtime`",
            Self::SparseMap | Self::SparseKind => {
                "archive it without `--sparse`, or with `--sparse-version=1.0`"
            }
            Self::TooManyBytes(_) => {
                "if that is right, raise `[archive] max_bytes`, or `unpacked` in its manifest"
            }
            Self::TooManyEntries(_) => {
                "if that is right, raise `[archive] max_entries`, or `entries` in its manifest"
            }
            Self::TooMuchMetadata(_) => "make names and link targets shorter, or several releases of it",
        }
    }
}

/// How an archive is made that has no entries of this type.
fn without_type(kind: u8) -> &'static str {
    match kind {
        b'V' => "archive it without `--label` (`-V`)",
        b'D' => "archive it without `--listed-incremental` (`-g`)",
        b'M' => "archive it in one piece, without `--multi-volume` (`-M`)",
        _ => "whatever wrote it has types of its own: make it with today's GNU tar or bsdtar",
    }
}

/// An archive that cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It breaks a rule: it will never be accepted.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The machine did not give its bytes: another time it may.
    #[error("cannot read archive `{}`", escaped(.archive.as_bytes()))]
    Read { archive: String, source: io::Error },
}
