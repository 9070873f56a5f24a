//! Long work tells how far it is; whoever shows it decides how.

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Bytes come from the source.
    Fetch,
    Unpack,
    /// A tree is compared with what it must be.
    Verify,
    Pack,
    /// Bytes are brought to where nodes read them.
    Bring,
    Remove,
}

/// Takes notice of progress. Called from several threads, some thousand times a second at most.
pub trait Progress: Send + Sync {
    /// Begins an activity of so many bytes and files, where they are known.
    fn begin(&self, activity: Activity, bytes: Option<u64>, files: Option<u64>);
    /// So much more has been done.
    fn advance(&self, bytes: u64, files: u64);
    /// The activity has ended, well or not.
    fn end(&self);
}

pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Activity, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, _: u64, _: u64) {}
    fn end(&self) {}
}
