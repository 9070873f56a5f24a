//! The table `[source]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{Size, Span};

/// Where releases come from, and who may sign them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A directory (`file:///mnt/releases/shop`, or its path), or `https://…`, where `{release}` and `{file}` may stand.
    pub url: Option<String>,
    pub channel: String,
    /// The product that releases must be of; without it, that of the active release.
    pub product: Option<String>,
    /// Files of trusted keys; without them, all in `/etc/cutover/keys` and `/usr/lib/cutover/keys`.
    pub keys: Vec<String>,
    /// Keys that are trusted no more.
    pub revoked: String,
    /// Whether releases and channels without signatures are taken. Whoever can write at `url` is then root here.
    pub allow_unsigned: bool,
    /// How many different keys must have signed a release.
    pub threshold: u32,
    /// What this node is, to be matched with `compatible` of a manifest.
    pub compatible: Vec<String>,
    /// Nodes with the same group are in the same wave of a channel; without it, each goes by its own name.
    pub group: Option<String>,
    /// `http://proxy:3128`; asked by `CONNECT` for each source, `http://` ones too. The environment's proxy is not used.
    pub proxy: Option<String>,
    /// File with `user:password` or a token for the server; mode 0600.
    pub credentials: Option<String>,
    /// Bytes a second at most.
    pub rate_limit: Option<Size>,
    pub connect_timeout: Span,
    /// A transfer that brings less than `stall_bytes` in this time is given up (and tried again).
    pub stall_timeout: Span,
    /// See `stall_timeout`.
    pub stall_bytes: Size,
    /// How often a server that fails, or cuts a transfer, is asked again before it has brought 64 KiB more.
    pub retries: u32,
    /// The program that reads sources of the network, as a process of its own; it is this program itself. Without it,
    /// this process does.
    #[serde(skip)]
    pub reader: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            channel: "stable".to_owned(),
            product: None,
            keys: Vec::new(),
            revoked: "/etc/cutover/revoked".to_owned(),
            allow_unsigned: false,
            threshold: 1,
            compatible: Vec::new(),
            group: None,
            proxy: None,
            credentials: None,
            rate_limit: None,
            connect_timeout: Span::seconds(10),
            stall_timeout: Span::seconds(60),
            stall_bytes: Size(4096),
            retries: 5,
            reader: None,
        }
    }
}
