//! Why a channel or a release of it is not taken, in a sentence that names the file or the channel.

use jiff::Timestamp;

use crate::release::text::Malformed;
use crate::release::trust::Refusal;
use crate::types::{Digest, Version};

/// Why a channel or a release is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Its signature does not do.
    #[error("`{what}` is not trusted: {refusal}")]
    Untrusted { what: String, refusal: Refusal },
    /// Somebody else answers in the source's place.
    #[error("`{0}` is a page of the web, or other markup, and not the file")]
    Page(String),
    /// It is not in the form.
    #[error("cannot understand `{what}`: {malformed}")]
    Malformed { what: String, malformed: Malformed },
    /// It is of another product.
    #[error("`{what}` is of product `{found}`, and this node runs `{wanted}`")]
    OtherProduct { what: String, found: String, wanted: String },
    /// It is of another channel.
    #[error("`{what}` is of channel `{found}`, and this node follows `{wanted}`")]
    OtherChannel { what: String, found: String, wanted: String },
    /// It is older than one that was accepted before.
    #[error(
        "channel `{channel}` has serial {serial}, and serial {seen} was accepted before: this one is out of date, restored from a backup, or an attack"
    )]
    Older { channel: String, serial: u64, seen: u64 },
    /// Two files have the same serial.
    #[error(
        "channel `{channel}` has serial {serial} like one accepted before, but another content: two were signed for one number"
    )]
    TwoOfOneSerial { channel: String, serial: u64 },
    /// The serial is so high that hardly any could follow.
    #[error("channel `{channel}` has serial {serial}, which leaves no room for later ones")]
    FastForward { channel: String, serial: u64 },
    /// It comes from the future.
    #[error("channel `{channel}` was issued at {issued}, and here it is {now}: one of the clocks is wrong")]
    FromTheFuture {
        channel: String,
        /// When it was issued, it says.
        issued: Timestamp,
        now: Timestamp,
    },
    #[error(
        "channel `{channel}` expired at {expires}: nobody has signed a newer one, or it is kept back, or the clock ({now}) is wrong"
    )]
    Expired {
        channel: String,
        expires: Timestamp,
        /// The time that counts here.
        now: Timestamp,
    },
    /// The channel does not name the release.
    #[error("channel `{channel}` does not name release {version}")]
    NotNamed { channel: String, version: Version },
    #[error("release {version} is revoked by channel `{channel}`")]
    Revoked { channel: String, version: Version },
    /// The release is older than the channel's minimum.
    #[error("release {version} is older than {minimum}, the minimum of channel `{channel}`")]
    BelowMinimum {
        channel: String,
        version: Version,
        /// The oldest that may be installed.
        minimum: Version,
    },
    /// The manifest is not the one that the channel names.
    #[error(
        "`{what}` has the digest {found}, and the channel names {wanted}: files of different releases are mixed"
    )]
    OtherManifest {
        what: String,
        found: Digest,
        /// The one that is wanted.
        wanted: Digest,
    },
    /// The manifest is of another version.
    #[error("`{what}` is of version {found}, not {wanted}")]
    OtherVersion {
        what: String,
        found: Version,
        /// The one that is wanted.
        wanted: Version,
    },
    /// The release is for other nodes.
    #[error("release {version} is for {}, and this node is {}", named(wanted), named(here))]
    Incompatible { version: Version, wanted: Vec<String>, here: Vec<String> },
    /// The archive is not the one that the manifest names.
    #[error("the archive `{found}` is not the one that the manifest names, `{wanted}`")]
    OtherArchive {
        found: String,
        /// The one that is wanted.
        wanted: String,
    },
}

fn named(kinds: &[String]) -> String {
    if kinds.is_empty() { "of no kind (`[source] compatible`)".to_owned() } else { kinds.join(", ") }
}
