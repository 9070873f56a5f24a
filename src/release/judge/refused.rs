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
    Untrusted {
        /// The file.
        what: String,
        /// Why.
        refusal: Refusal,
    },
    /// It is not in the form.
    #[error("cannot understand `{what}`: {malformed}")]
    Malformed {
        /// The file.
        what: String,
        /// Where and why.
        malformed: Malformed,
    },
    /// It is of another product.
    #[error("`{what}` is of product `{found}`, and this node runs `{wanted}`")]
    OtherProduct {
        /// The file.
        what: String,
        /// Its product.
        found: String,
        /// This node's.
        wanted: String,
    },
    /// It is of another channel.
    #[error("`{what}` is of channel `{found}`, and this node follows `{wanted}`")]
    OtherChannel {
        /// The file.
        what: String,
        /// Its channel.
        found: String,
        /// This node's.
        wanted: String,
    },
    /// It is older than one that was accepted before.
    #[error(
        "channel `{channel}` has serial {serial}, and serial {seen} was accepted before: this one is out of date, restored from a backup, or an attack"
    )]
    Older {
        /// The channel.
        channel: String,
        /// Its serial.
        serial: u64,
        /// The highest accepted.
        seen: u64,
    },
    /// Two files have the same serial.
    #[error(
        "channel `{channel}` has serial {serial} like one accepted before, but another content: two were signed for one number"
    )]
    TwoOfOneSerial {
        /// The channel.
        channel: String,
        /// The serial.
        serial: u64,
    },
    /// The serial is so high that hardly any could follow.
    #[error("channel `{channel}` has serial {serial}, which leaves no room for later ones")]
    FastForward {
        /// The channel.
        channel: String,
        /// Its serial.
        serial: u64,
    },
    /// It comes from the future.
    #[error("channel `{channel}` was issued at {issued}, and here it is {now}: one of the clocks is wrong")]
    FromTheFuture {
        /// The channel.
        channel: String,
        /// When it was issued, it says.
        issued: Timestamp,
        /// This node's time.
        now: Timestamp,
    },
    /// It has expired.
    #[error(
        "channel `{channel}` expired at {expires}: nobody has signed a newer one, or it is kept back, or the clock ({now}) is wrong"
    )]
    Expired {
        /// The channel.
        channel: String,
        /// When.
        expires: Timestamp,
        /// The time that counts here.
        now: Timestamp,
    },
    /// The channel does not name the release.
    #[error("channel `{channel}` does not name release {version}")]
    NotNamed {
        /// The channel.
        channel: String,
        /// The release asked for.
        version: Version,
    },
    /// The release is revoked.
    #[error("release {version} is revoked by channel `{channel}`")]
    Revoked {
        /// The channel.
        channel: String,
        /// The release.
        version: Version,
    },
    /// The release is older than the channel's minimum.
    #[error("release {version} is older than {minimum}, the minimum of channel `{channel}`")]
    BelowMinimum {
        /// The channel.
        channel: String,
        /// The release.
        version: Version,
        /// The oldest that may be installed.
        minimum: Version,
    },
    /// The manifest is not the one that the channel names.
    #[error(
        "`{what}` has the digest {found}, and the channel names {wanted}: files of different releases are mixed"
    )]
    OtherManifest {
        /// The manifest's file.
        what: String,
        /// Its digest.
        found: Digest,
        /// The one that is wanted.
        wanted: Digest,
    },
    /// The manifest is of another version.
    #[error("`{what}` is of version {found}, not {wanted}")]
    OtherVersion {
        /// The manifest's file.
        what: String,
        /// Its version.
        found: Version,
        /// The one that is wanted.
        wanted: Version,
    },
    /// The release is for other nodes.
    #[error("release {version} is for {}, and this node is {}", named(wanted), named(here))]
    Incompatible {
        /// The release.
        version: Version,
        /// What it is for.
        wanted: Vec<String>,
        /// What this node is.
        here: Vec<String>,
    },
    /// The archive is not the one that the manifest names.
    #[error("the archive `{found}` is not the one that the manifest names, `{wanted}`")]
    OtherArchive {
        /// The file.
        found: String,
        /// The one that is wanted.
        wanted: String,
    },
}

fn named(kinds: &[String]) -> String {
    if kinds.is_empty() { "of no kind (`[source] compatible`)".to_owned() } else { kinds.join(", ") }
}
