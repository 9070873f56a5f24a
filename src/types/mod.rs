//! Data: what a release, an update, and their outcomes are. Nothing here touches the machine.

mod base64;
pub mod digest;
pub mod entry;
mod escape;
pub mod progress;
pub mod record;
mod spans;
pub mod state;
pub mod units;
pub mod version;

pub use base64::{base64, from_base64};
pub use digest::Digest;
pub use escape::{bytes_of_url, escaped, escaped_path, is_port_good, path_of_url};
pub use spans::Spans;
pub use units::{Size, Span, clock_words};
pub use version::Version;

/// A release as a node knows it: its name, and the digest that its manifest (or, without one, its archive) has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseId {
    /// The name, and the directory under `releases/`.
    pub version: Version,
    /// What makes it this release and no other of the same name.
    pub digest: Digest,
}

/// How often something happened, for people.
pub fn often(times: u64) -> String {
    match times {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
