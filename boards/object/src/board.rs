//! The board: each name is one object, put on the condition that there is none.
//!
//! ```text
//! <prefix>/rollouts/.directory             the directory is there
//! <prefix>/rollouts/000017                 what the name holds
//! ```
//! The marks tell an empty board from a bucket or a prefix that was never one: there, nothing is *absent*.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover::coord::board::{
    Board, ClockRead, Created, Done, Listed, NAMES_MAX, Read, list_named, read_named,
};
use cutover::coord::facts::{FACT_BYTES_MAX, names};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::Runtime;

/// The object that marks a directory. Names that begin with a dot are no facts.
const MARK: &str = ".directory";
/// The object that a clock is read from.
const CLOCK: &str = ".clock";
/// What a store says that no fleet can use.
const IGNORES: &str =
    "the store puts a name although it is there (it ignores `If-None-Match`): no fleet can use it";

/// A board in an object store. Blocks until the store answers, or its time is up.
pub struct ObjectBoard {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    timeout: Duration,
    runtime: Runtime,
    /// Directories that were seen to be there. Nobody removes one.
    seen: BTreeSet<String>,
}

impl ObjectBoard {
    /// The board below `prefix` in `store`; each access may take `timeout`.
    pub fn new(store: Box<dyn ObjectStore>, prefix: Path, timeout: Duration) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { store, prefix, timeout, runtime, seen: BTreeSet::new() })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Waits for the store, as long as one access may take.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
        let limit = self.timeout;
        let waited = self.runtime.block_on(async { tokio::time::timeout(limit, work).await });
        match waited {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Error::NotFound { .. })) => Err(Trouble::NotFound),
            Ok(Err(Error::AlreadyExists { .. } | Error::Precondition { .. })) => Err(Trouble::IsThere),
            Ok(Err(error)) => Err(Trouble::Other(told(&error))),
            Err(_) => Err(Trouble::Other(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    /// Fails unless the directory is there.
    fn ensure_directory(&mut self, name: &str) -> Result<(), String> {
        if name.is_empty() || self.seen.contains(name) {
            return Ok(());
        }
        let mark = self.path(name).join(MARK);
        match self.wait(self.store.head(&mark)) {
            Ok(_) => {
                self.seen.insert(name.to_owned());
                Ok(())
            }
            Err(Trouble::NotFound) => Err(format!("there is no directory `{name}` of a fleet's board here")),
            Err(trouble) => Err(trouble.into_text()),
        }
    }

    fn try_read(&mut self, name: &str) -> Result<Read, String> {
        let path = self.path(name);
        let got = self.wait(async {
            let found = self.store.get(&path).await?;
            let length = found.meta.size;
            if length > FACT_BYTES_MAX as u64 {
                return Ok(Read::Bad(format!("it is longer than {FACT_BYTES_MAX} bytes")));
            }
            let bytes = found.bytes().await?;
            Ok(String::from_utf8(bytes.into())
                .map_or_else(|_| Read::Bad("it is not UTF-8".into()), Read::Bytes))
        });
        match got {
            Ok(read) => Ok(read),
            Err(Trouble::NotFound) => {
                // A node that never joined has no directory; without those of the board it is another one.
                self.ensure_directory(name.split_once('/').map_or("", |(top, _)| top))?;
                Ok(Read::Absent)
            }
            Err(trouble) => Err(trouble.into_text()),
        }
    }

    fn put(&self, path: &Path, text: &str, mode: PutMode) -> Result<(), Trouble> {
        let payload = PutPayload::from(text.as_bytes().to_vec());
        self.wait(self.store.put_opts(path, payload, mode.into())).map(|_| ())
    }

    fn try_list(&mut self, name: &str) -> Result<Listed, String> {
        self.ensure_directory(name)?;
        let path = self.path(name);
        let listed = self.wait(self.store.list_with_delimiter(Some(&path))).map_err(Trouble::into_text)?;
        let objects = listed.objects.iter().map(|object| &object.location);
        let last = |path: &Path| path.filename().map(ToOwned::to_owned);
        let mut names: Vec<String> = objects.chain(&listed.common_prefixes).filter_map(last).collect();
        names.retain(|name| !name.starts_with('.'));
        if names.len() > NAMES_MAX {
            return Err(format!("it holds more than {NAMES_MAX} names"));
        }
        names.sort();
        names.dedup();
        Ok(Listed::Names(names))
    }

    /// Compares by the time of an object that is put for this; stores tell it in whole seconds.
    fn try_clock(&self, name: &str) -> Result<ClockRead, Trouble> {
        let path = self.path(name).join(CLOCK);
        let before = now_ms();
        self.put(&path, "clock\n", PutMode::Overwrite)?;
        let after = now_ms();
        let stamp = self.wait(self.store.head(&path))?.last_modified.timestamp_millis() as f64;
        // A stamp without a fraction stands for any moment of its second.
        let grain = if stamp % 1000.0 == 0.0 { 500.0 } else { 1.0 };
        let middle = stamp + if grain > 1.0 { grain } else { 0.0 };
        Ok(ClockRead::Offset {
            offset_ms: middle - (before + after) / 2.0,
            error_ms: (after - before) / 2.0 + grain,
        })
    }
}

impl Board for ObjectBoard {
    fn create(&mut self, name: &str, text: &str) -> Created {
        if !names::is_name(name) || text.len() > FACT_BYTES_MAX {
            return Created::Unknown("it is not a name or not a text for a board".into());
        }
        if let Err(why) = self.ensure_directory(name.rsplit_once('/').map_or("", |(directory, _)| directory))
        {
            return Created::Unknown(why);
        }
        let tried = self.put(&self.path(name), text, PutMode::Create);
        // Refused, or unknown: a put whose reply was lost is refused when it is tried again. What is there tells.
        match self.read(name) {
            Read::Bytes(there) if there == text => Created::Mine,
            Read::Bytes(there) => Created::Theirs(there),
            Read::Bad(why) => Created::Theirs(why),
            Read::Absent if tried.is_ok() => Created::Unknown("it was put, and is not there".into()),
            Read::Absent => Created::Unknown(tried.err().map_or_else(String::new, Trouble::into_text)),
            Read::Unreachable(why) => Created::Unknown(why),
        }
    }

    fn read(&mut self, name: &str) -> Read {
        read_named(name, || self.try_read(name))
    }

    fn list(&mut self, name: &str) -> Listed {
        list_named(name, || self.try_list(name))
    }

    fn prepare(&mut self, name: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        let mark = self.path(name).join(MARK);
        match self.put(&mark, "directory\n", PutMode::Create) {
            Ok(()) | Err(Trouble::IsThere) => {}
            Err(trouble) => return Done::Unreachable(trouble.into_text()),
        }
        // Some stores take the condition and ignore it: there, everybody would be first.
        match self.put(&mark, "directory\n", PutMode::Create) {
            Err(Trouble::IsThere) => Done::Done,
            Ok(()) => Done::Unreachable(IGNORES.into()),
            Err(trouble) => Done::Unreachable(trouble.into_text()),
        }
    }

    fn beat(&mut self, name: &str, text: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        if let Err(why) = self.ensure_directory(name.rsplit_once('/').map_or("", |(directory, _)| directory))
        {
            return Done::Unreachable(why);
        }
        match self.put(&self.path(name), text, PutMode::Overwrite) {
            Ok(()) => Done::Done,
            Err(trouble) => Done::Unreachable(trouble.into_text()),
        }
    }

    fn clock(&mut self, name: &str) -> ClockRead {
        self.try_clock(name).unwrap_or(ClockRead::Unknown)
    }

    fn remove(&mut self, name: &str) -> Done {
        if !names::is_name(name) {
            return Done::Unreachable("it is not a name for a board".into());
        }
        // A directory is its mark.
        let mark = self.wait(self.store.delete(&self.path(name).join(MARK)));
        if mark.is_ok() {
            self.seen.remove(name);
        }
        match self.wait(self.store.delete(&self.path(name))) {
            Ok(()) | Err(Trouble::NotFound) => Done::Done,
            Err(trouble) => Done::Unreachable(trouble.into_text()),
        }
    }
}

/// Why an access came to nothing.
enum Trouble {
    /// There is no such object.
    NotFound,
    /// There is one already.
    IsThere,
    /// The store did not do it, or did not say so.
    Other(String),
}

impl Trouble {
    fn into_text(self) -> String {
        match self {
            Self::NotFound => "there is no such bucket or object".into(),
            Self::IsThere => "it is there, and cannot be read".into(),
            Self::Other(why) => why,
        }
    }
}

/// The error and its innermost cause, without what a server sends along.
fn told(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().chars().take(300).collect()
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}
