//! Where releases come from: a directory (local or mounted), a web server, a registry, or an object store.
//!
//! ```text
//! <url>/<channel>.channel   and .sig      which release is to run
//! <url>/<release>.manifest  and .sig      what it is
//! <url>/<release>.tar.zst                 itself
//! ```
//! In the address of a web server `{release}` and `{file}` may stand: see [`Item`].
//!
//! Everything here is in the hands of others: files are opened without following links and without waiting, must be
//! regular, and are read into private copies up to a limit. What they say counts only after [`super::trust`].

mod child;
mod directory;
pub mod local;
mod put;
pub mod ranges;
mod settings;
mod web;
mod whole;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use child::{COMMAND as READ_COMMAND, serve};
pub use directory::Directory;
pub(super) use directory::open_regular;
pub use put::{Before, Sink, Upload};
pub use ranges::{LocalFile, Ranges};
pub use settings::Settings;
pub use web::Web;
pub use whole::fetch_whole;

use crate::release::text::is_file_name;
use crate::sys::{disk, owned};
use crate::types::{Digest, escaped, escaped_path, path_of_url};

/// What a file of a source belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// The channel of this name.
    Channel(&'a str),
    /// The release of this version.
    Release(&'a str),
}

/// A file of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// What it belongs to: some places keep the files of each release by themselves.
    pub of: Of<'a>,
    pub name: &'a str,
}

impl Item<'_> {
    /// What stands for `{release}`: the version, or `channel-<name>`.
    pub fn release(&self) -> Cow<'_, str> {
        match self.of {
            Of::Channel(name) => Cow::Owned(format!("channel-{name}")),
            Of::Release(version) => Cow::Borrowed(version),
        }
    }

    /// Refuses a name that is not one of a file, and nothing else.
    fn check(&self) -> Result<(), Error> {
        match is_file_name(self.name) && is_file_name(&self.release()) {
            true => Ok(()),
            false => Err(Error::Name(escaped(self.name.as_bytes()))),
        }
    }
}

/// A place that releases come from.
pub trait Source: Send + Sync {
    /// Where it is, for messages; without credentials.
    fn place(&self) -> String;

    /// A small file, whole: `Ok(None)` when there is none of this name.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than `limit` bytes.
    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, Error>;

    /// An archive, to read parts of. It must have `size` bytes; of a place that does not tell, this is believed: no part
    /// of it counts before its digest was compared.
    ///
    /// # Errors
    /// When there is none, or when it cannot be read.
    fn archive(&self, item: Item<'_>, size: u64) -> Result<Box<dyn Ranges>, Error>;

    /// Whether files may be replaced while they are read, so that two that don't fit are worth a second look.
    fn is_replaced_in_place(&self) -> bool {
        true
    }
}

/// Opens the source that the settings name. Nothing is read yet but the credentials.
pub fn open(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let url = settings.url.as_deref().ok_or(Error::NoSource)?;
    Ok(match Kind::of(url)? {
        Kind::Directory(path) => Box::new(Directory::new(path)),
        Kind::Web => Box::new(Web::new(url, settings)?),
    })
}

/// Opens the source that the settings name; one that is reached by the network is read by a process without rights, if
/// they name the program for that.
pub fn open_apart(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let is_web = settings.url.as_deref().is_some_and(|url| matches!(Kind::of(url), Ok(Kind::Web)));
    match settings.reader.as_deref().filter(|_| is_web) {
        Some(program) => child::open(program, settings),
        None => open(settings),
    }
}

/// Opens the place that the settings name, to bring releases there. Nothing is sent yet.
pub fn open_sink(settings: &Settings) -> Result<Box<dyn Sink>, Error> {
    let url = settings.url.as_deref().ok_or(Error::NoSource)?;
    Ok(match Kind::of(url)? {
        Kind::Directory(path) => Box::new(Directory::new(path)),
        Kind::Web => Box::new(Web::new(url, settings)?),
    })
}

/// Refuses a source that could never be opened. Looks at the settings only.
///
/// # Errors
/// When the address, or that of the proxy, cannot be used, a channel cannot have this name, or no time is allowed.
pub fn check(settings: &Settings) -> Result<(), Error> {
    let channel = format!("{}.channel", settings.channel);
    if !is_file_name(&channel) {
        return Err(Error::Name(escaped(channel.as_bytes())));
    }
    if settings.rate_limit.is_some_and(|limit| limit.0 == 0) {
        return Err(Error::Setting(
            "`rate_limit` must be at least 1 byte a second; without it there is no limit",
        ));
    }
    if settings.connect_timeout.0.is_zero() || settings.stall_timeout.0.is_zero() {
        return Err(Error::Setting("`connect_timeout` and `stall_timeout` must be longer than zero"));
    }
    let Some(url) = settings.url.as_deref() else { return Ok(()) };
    match Kind::of(url)? {
        Kind::Directory(_) => Ok(()),
        Kind::Web => Web::new(url, &Settings { credentials: None, ..settings.clone() }).map(drop),
    }
}

/// Of which kind an address is.
enum Kind {
    Directory(PathBuf),
    Web,
}

impl Kind {
    fn of(url: &str) -> Result<Self, Error> {
        // As RFC 8089 has it, too: `file:/srv/releases`, `file://localhost/srv/releases`.
        let is_file = url.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
        let path = match url.split_once("://") {
            None if is_file => path_of_url(&url[5..]),
            None => url.into(),
            Some((scheme, path)) => match scheme.to_ascii_lowercase().as_str() {
                "file" => path_of_url(path.strip_prefix("localhost").unwrap_or(path)),
                scheme if web::SCHEMES.contains(&scheme) => return Ok(Self::Web),
                _ => return Err(Error::Scheme(escaped(scheme.as_bytes()))),
            },
        };
        match path.is_absolute() {
            true => Ok(Self::Directory(path)),
            false => Err(Error::NotAbsolute(escaped(url.as_bytes()))),
        }
    }
}

/// What to look at when something could not be had from a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// The way there; it may well go better the next time.
    Way,
    /// What was published, and where it is looked for.
    Place,
    /// Who asks.
    Login,
    /// The file of credentials.
    Credentials,
    /// The address, and where it leads.
    Address,
}

/// Why something could not be had from a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no source is configured: `[source] url` is not set")]
    NoSource,
    /// The address is of a kind that is not known.
    #[error(
        "cannot read from `{0}://`: a source is a directory (`file:///…`), `https://…`, `http://…`, `oci://…`, `s3://…`, `gs://…` or `az://…`"
    )]
    Scheme(String),
    #[error("`{0}` is not an absolute path")]
    NotAbsolute(String),
    /// The name asked for is not a plain file name.
    #[error("`{0}` is not a plain file name")]
    Name(String),
    /// There is no such file.
    #[error("`{0}` is not there")]
    Missing(String),
    #[error("cannot read `{what}`")]
    Read {
        /// The file, with its place.
        what: String,
        /// What the machine or the server said.
        source: io::Error,
    },
    /// A part was asked for that the file does not have.
    #[error("cannot read {length} bytes at {start} of `{}`: it has {size} bytes", escaped_path(.path))]
    OutOfRange {
        path: PathBuf,
        start: u64,
        /// How many bytes.
        length: u64,
        size: u64,
    },
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A file that must belong to us does not, or is not as it must be.
    #[error(transparent)]
    Owned(#[from] owned::Error),
    /// The address, or the one that it leads to, can't be used.
    #[error("cannot use the address `{address}`: {problem}")]
    Address {
        /// Without user, password and query.
        address: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The proxy's address can't be used.
    #[error("`[source] proxy` is not an address such as `http://proxy:3128`")]
    Proxy,
    /// The server refuses, or has trouble.
    #[error("cannot read `{what}`: the server answers with status {status}{}", wait_text(*.retry_after))]
    Status {
        what: String,
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The server's answer is none to what it was asked.
    #[error("cannot read `{what}`: the server's answer cannot be used: {problem}")]
    Answer {
        what: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
    /// It ended before its time.
    #[error("`{0}` ends too early")]
    Cut(String),
    /// It is longer than it may be.
    #[error("`{what}` is longer than {limit} bytes")]
    TooLong {
        what: String,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The archive's size is not the signed one.
    #[error("the archive has {found} bytes, and the manifest says {signed}")]
    Size { found: u64, signed: u64 },
    /// The archive's digest is not the signed one.
    #[error("the archive has the digest {found}, and the manifest says {signed}")]
    Digest { found: Digest, signed: Digest },
    /// What the process that reads the source says of it.
    #[error("{text}")]
    Told {
        text: String,
        /// See [`Error::is_refusal`].
        is_refusal: bool,
        remedy: Remedy,
    },
    #[error("`{0}` is not what it was a moment ago: somebody else publishes there")]
    Overtaken(String),
    /// A release that was published never changes.
    #[error("`{0}` is there already, and is another release")]
    Exists(String),
    /// The server does not take it.
    #[error("cannot bring `{what}`: the server answers with status {status}{}{}", put_text(*.status), wait_text(*.retry_after))]
    Put {
        what: String,
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The server took it, and has something else, or nothing.
    #[error("`{0}` is not there as it was brought, though the server took it")]
    NotKept(String),
    /// A value of `[source]` with which nothing can be read.
    #[error("{0}")]
    Setting(&'static str),
    /// The directory for files that nobody else sees cannot be used.
    #[error("cannot write a private copy of the archive into `{}`", escaped_path(.directory))]
    Private { directory: PathBuf, source: io::Error },
    /// Something else would be lost.
    #[error("`{what}` is {by}: {new} would replace it")]
    Occupied {
        what: String,
        /// What is there.
        by: String,
        /// What was to be brought.
        new: String,
    },
    /// The private copy could not be written.
    #[error("cannot write the private copy of the archive")]
    Write(#[source] io::Error),
}

impl Error {
    /// The end came too early.
    pub fn cut(what: impl Into<String>) -> Self {
        Self::Cut(what.into())
    }

    /// What went wrong while a part was read. An error of ours that had to pass as one of the machine is itself again.
    pub fn reading(what: &str, error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|source| Self::Read { what: what.to_owned(), source })
    }

    /// The same, where only errors of the machine can pass: see [`Error::reading`].
    pub(in crate::release) fn into_io(self) -> io::Error {
        match self {
            Self::Read { what: _, source } if source.raw_os_error().is_some() => source,
            error => io::Error::other(error),
        }
    }

    /// Whether it may well go better in a moment, or with another server of the same name.
    fn is_passing(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Cut(_) | Self::Answer { .. } | Self::Size { .. } => true,
            Self::Status { status, .. } => matches!(*status, 408 | 425 | 429 | 500..),
            // 501 and 507: it takes no such files, and has no room.
            Self::Put { status, .. } => matches!(*status, 408 | 425 | 429 | 500 | 502..=506 | 508..),
            _ => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } | Self::Put { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Told { remedy, .. } => *remedy,
            Self::Missing(_) | Self::Status { status: 404 | 410, .. } => Remedy::Place,
            Self::Status { status: 401 | 403 | 407, .. } => Remedy::Login,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::InvalidInput => Remedy::Place,
            Self::Owned(_) => Remedy::Credentials,
            Self::Address { .. }
            | Self::Scheme(_)
            | Self::NotAbsolute(_)
            | Self::Proxy
            | Self::Setting(_) => Remedy::Address,
            Self::NoSource
            | Self::Name(_)
            | Self::Read { .. }
            | Self::OutOfRange { .. }
            | Self::Disk(_)
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Cut(_)
            | Self::TooLong { .. }
            | Self::Size { .. }
            | Self::Digest { .. }
            | Self::Overtaken(_)
            | Self::Exists(_)
            | Self::Occupied { .. }
            | Self::Put { .. }
            | Self::NotKept(_)
            | Self::Private { .. }
            | Self::Write(_) => Remedy::Way,
        }
    }

    /// Whether the bytes are not the ones that were signed: trying again will hardly help.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Told { is_refusal, .. } => *is_refusal,
            Self::Size { .. } | Self::Digest { .. } | Self::TooLong { .. } | Self::Answer { .. } => true,
            _ => false,
        }
    }

    /// Whether the file system of the private copy has no room.
    pub fn is_no_space(&self) -> bool {
        let full = [libc::ENOSPC, libc::EDQUOT];
        match self {
            Self::Write(error) => full.contains(&error.raw_os_error().unwrap_or(0)),
            Self::Disk(error) => error.is_no_space(),
            _ => false,
        }
    }
}

/// What the answer to a `PUT` means, where that is known.
fn put_text(status: u16) -> &'static str {
    match status {
        405 | 501 => " (it takes no files at this address)",
        409 => " (the directory that it belongs into may be missing there)",
        411 | 413 => " (it takes no files of this size)",
        507 => " (it has no room)",
        _ => "",
    }
}

fn wait_text(retry_after: Option<Duration>) -> String {
    match retry_after.map(|pause| pause.as_secs()) {
        Some(seconds @ 1..) => format!(", and asks to wait for {seconds} s"),
        Some(0) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_directory_is_written_as_a_path_or_as_a_url() {
        for (url, path) in [
            ("/srv/my%20releases", "/srv/my%20releases"),
            ("file:///srv/my%20releases", "/srv/my releases"),
            ("FILE:///srv/my releases", "/srv/my releases"),
            ("file:/srv/my%20releases", "/srv/my releases"),
            ("file://localhost/srv/releases", "/srv/releases"),
        ] {
            assert!(matches!(Kind::of(url), Ok(Kind::Directory(found)) if found == Path::new(path)), "{url}");
        }
        assert!(matches!(Kind::of("file://srv"), Err(Error::NotAbsolute(_))));
        let settings = |proxy: &str| Settings {
            url: Some("https://releases.example".into()),
            proxy: Some(proxy.into()),
            ..Settings::default()
        };
        assert!(check(&settings("http://proxy:3128")).is_ok());
        assert!(matches!(check(&settings("socks5://proxy:1080")), Err(Error::Proxy)), "none that we speak");
    }
}
