//! The words of the commands about keys, signatures and channels.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::release::trust::Namespace;
use crate::types::{Span, Version};

#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The file for the private key; the public key goes into FILE.pub
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose key it is; absent: the file's name
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// A manifest.
    Release,
    /// A channel.
    Channel,
    /// A file of a fleet.
    Fleet,
}

impl From<Role> for Namespace {
    fn from(role: Role) -> Self {
        match role {
            Role::Release => Self::Release,
            Role::Channel => Self::Channel,
            Role::Fleet => Self::Fleet,
        }
    }
}

#[derive(Debug, Args)]
pub struct SignArgs {
    /// Manifests or channels
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The private key, or the public key of one that an agent holds
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// What it is signed as; absent: by the end of the file's name
    #[arg(long = "as", value_enum, value_name = "ROLE")]
    pub role: Option<Role>,
}

#[derive(Debug, Args)]
pub struct VerifySignatureArgs {
    /// A manifest or a channel; its signature is in FILE.sig
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A file or a directory of trusted keys; absent: those of this node (repeat the option)
    #[arg(long, value_name = "PATH")]
    pub keys: Vec<PathBuf>,
    /// The list of revoked keys
    #[arg(long, value_name = "FILE", default_value = "/etc/cutover/revoked")]
    pub revoked: PathBuf,
    /// How many different trusted keys must have signed it
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub threshold: u32,
    /// What it must be signed as; absent: by the end of the file's name
    #[arg(long = "as", value_enum, value_name = "ROLE")]
    pub role: Option<Role>,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The directory of archives and manifests, or the manifest of the release to run
    #[arg(value_name = "DIR|MANIFEST")]
    pub place: PathBuf,
    /// The release to run; absent: that of the manifest, else the one that the channel names, else the only one, if it is
    /// signed already
    #[arg(value_name = "VERSION")]
    pub version: Option<Version>,
    /// The channel
    #[arg(long, value_name = "NAME", default_value = "stable")]
    pub channel: String,
    /// The product; needed where the directory holds releases of several
    #[arg(long, value_name = "NAME")]
    pub product: Option<String>,
    /// The key that signs the channel, and manifests without a signature
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Sign the channel with this key, and no manifest with it
    #[arg(long, value_name = "FILE")]
    pub channel_key: Option<PathBuf>,
    /// How long the channel holds: sign it anew before that
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    pub expires: Span,
    /// Nothing older may be installed
    #[arg(long, value_name = "VERSION")]
    pub minimum: Option<Version>,
    /// Nobody may install this any more (repeat the option)
    #[arg(long, value_name = "VERSION")]
    pub revoke: Vec<Version>,
    /// So many of the nodes may switch, in percent
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub percent: Option<u8>,
    /// From TIME (RFC 3339, or a duration from now) on, so many may switch (repeat the option)
    #[arg(long, value_name = "TIME=PERCENT")]
    pub wave: Vec<String>,
    /// Use this serial; a channel that can't be built upon is begun anew, if what it forbids is said again
    #[arg(long, value_name = "NUMBER")]
    pub serial: Option<u64>,
    /// Bring it to where nodes read it: https://…, oci://…, s3://…, gs://…, az://…, or another directory
    ///
    /// The channel that is there is the ground for the next one, and is replaced last, if nobody else was quicker.
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// The file with `user:password`, a token or a key for that place; mode 0600
    #[arg(long, value_name = "FILE", requires = "to")]
    pub credentials: Option<PathBuf>,
    /// Say what would be written, and brought where; nothing is
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The place that has them
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The place that shall have them
    #[arg(value_name = "TO")]
    pub to: String,
    /// The channel
    #[arg(long, value_name = "NAME", default_value = "stable")]
    pub channel: String,
    /// All releases that the channel names, not only the one to run
    #[arg(long)]
    pub all: bool,
    /// Say what would be copied, and bring nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The file with `user:password`, a token or a key for TO; mode 0600
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// The same for FROM
    #[arg(long, value_name = "FILE")]
    pub from_credentials: Option<PathBuf>,
}

/// Of `trust`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum TrustCommand {
    /// Show whose releases are taken, and what was seen of channels
    Show,
    /// Forget the highest serial seen of a channel, so that an older one is taken
    ///
    /// For a source that was restored from a backup. An attacker may then play back old channels until a newer one is
    /// seen.
    ForgetChannel {
        /// The channel's name
        #[arg(value_name = "NAME")]
        name: String,
    },
}
