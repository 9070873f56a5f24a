//! Where releases come from: a directory (local or mounted), or a web server.
//!
//! ```text
//! <url>/<channel>.channel   and .sig      which release is to run
//! <url>/<release>.manifest  and .sig      what it is
//! <url>/<release>.tar.zst                 itself
//! ```
//! Everything here is in the hands of others: files are opened without following links and without waiting, must be
//! regular, and are read into private copies up to a limit. What they say counts only after [`super::trust`].

mod directory;
mod kept;
pub mod local;
pub mod ranges;
mod settings;
mod web;
mod whole;

use std::io;
use std::path::PathBuf;

pub use directory::Directory;
pub use kept::Kept;
pub use ranges::{LocalFile, Ranges};
pub use settings::Settings;
pub use web::Web;
pub use whole::fetch_whole;

use crate::sys::{disk, owned};
use crate::types::{Digest, escaped, escaped_path};

/// A place that releases come from.
pub trait Source: Send + Sync {
    /// Where it is, for messages; without credentials.
    fn place(&self) -> String;

    /// A small file, whole: `Ok(None)` when there is none of this name.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than `limit` bytes.
    fn small(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Error>;

    /// An archive, to read parts of.
    fn archive(&self, name: &str) -> Result<Box<dyn Ranges>, Error>;

    /// Whether files may be replaced while they are read, so that two that don't fit are worth a second look.
    fn is_replaced_in_place(&self) -> bool {
        true
    }
}

/// Opens the source that the settings name. Nothing is read yet.
pub fn open(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let url = settings.url.as_deref().ok_or(Error::NoSource)?;
    let path = match url.split_once("://") {
        None => url,
        Some(("file", path)) => path,
        Some(("http" | "https", _)) => return Ok(Box::new(Web::new(url, settings)?)),
        Some((scheme, _)) => return Err(Error::Scheme(escaped(scheme.as_bytes()))),
    };
    if !path.starts_with('/') {
        return Err(Error::NotAbsolute(escaped(url.as_bytes())));
    }
    Ok(Box::new(Directory::new(path)))
}

/// Why something could not be had from a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No source is configured.
    #[error("no source is configured: `[source] url` is not set")]
    NoSource,
    /// The address is of a kind that is not known.
    #[error("cannot read from `{0}://`: a source is `file:///directory`, `https://…` or `http://…`")]
    Scheme(String),
    /// The path is relative.
    #[error("`{0}` is not an absolute path")]
    NotAbsolute(String),
    /// The name asked for is not a plain file name.
    #[error("`{0}` is not a plain file name")]
    Name(String),
    /// There is no such file.
    #[error("`{0}` is not there")]
    Missing(String),
    /// It cannot be read.
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
        /// The file.
        path: PathBuf,
        /// First byte asked for.
        start: u64,
        /// How many bytes.
        length: u64,
        /// How many it has.
        size: u64,
    },
    /// The machine refused.
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
    #[error("cannot read `{what}`: the server answers with status {status}")]
    Status {
        /// The file.
        what: String,
        /// The status.
        status: u16,
    },
    /// The server does not say how long the file is.
    #[error("cannot read `{0}`: the server does not say its size")]
    NoLength(String),
    /// The file is another one than a moment before.
    #[error("`{0}` was changed while it was read")]
    Changed(String),
    /// It ended before its time.
    #[error("`{0}` ends too early")]
    Cut(String),
    /// It is longer than it may be.
    #[error("`{what}` is longer than {limit} bytes")]
    TooLong {
        /// The file.
        what: String,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The archive's size is not the signed one.
    #[error("the archive has {found} bytes, and the manifest says {signed}")]
    Size {
        /// What there is.
        found: u64,
        /// What must be.
        signed: u64,
    },
    /// The archive's digest is not the signed one.
    #[error("the archive has the digest {found}, and the manifest says {signed}")]
    Digest {
        /// What there is.
        found: Digest,
        /// What must be.
        signed: Digest,
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

    /// Whether it may well go better in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Cut(_) => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// Whether the bytes are not the ones that were signed: trying again will hardly help.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::Digest { .. } | Self::TooLong { .. })
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
