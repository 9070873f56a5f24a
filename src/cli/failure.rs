//! What an operator reads when something failed: what, which release serves now, what to do next, and the exit code.
//!
//! ```text
//! error: cannot switch to release 2.4.1: cannot rename `/srv/shop/current`: Read-only file system (os error 30)
//! state: release 2.4.0 is active; the update is recorded and will be resumed
//! hint: make the file system writable, then run `cutover recover`
//! ```
//! Each error has its place in one exhaustive match here, in `release` or in `storage`, and nowhere else.

use crate::config::Problem;
use crate::coord::operate;
use crate::lifecycle::rehearsal;
use crate::lifecycle::update::driver;
use crate::lifecycle::{agreement, application::data, node, node::adopt, staging, staging::upstream};
use crate::release::trust::SignError;
use crate::release::{pack, publish, resolve};
use crate::store::{self, Damage};
use crate::sys::{disk, owned};
use crate::types::chain;

mod release;
mod storage;

use release::{of_pack, of_place, of_publish, of_sign, of_staging, of_upstream};
use storage::{exposed, of_data, of_disk, of_store};

/// Exit codes, as the design and the manual have them.
pub mod code {
    /// It failed, and nothing changed.
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    /// The new release was rolled back.
    pub const ROLLED_BACK: u8 = 10;
    /// Another cutover is at work.
    pub const BUSY: u8 = 11;
    pub const REFUSED: u8 = 12;
    /// The fleet called it off.
    pub const CALLED_OFF: u8 = 13;
    pub const NEEDS_PERSON: u8 = 14;
    pub const NOT_NOW: u8 = 15;
    pub const NO_SPACE: u8 = 16;
    /// Shared storage is away, or the outcome in doubt.
    pub const IN_DOUBT: u8 = 17;
    pub const NOTHING_NEWER: u8 = 77;
}

/// Whatever a command may fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] Problem),
    /// The loop, or a way into it.
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error(transparent)]
    Staging(#[from] staging::Error),
    #[error(transparent)]
    Adopting(#[from] adopt::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The words of the command line do not go together.
    #[error("{what}")]
    Usage { what: String, hint: Option<String> },
    #[error("there is no release `{what}` here")]
    NoSuchRelease { what: String, nearest: Option<String> },
    /// A tree is not what it must be.
    #[error("the tree of release {version} is damaged{}", if .what.is_empty() { String::new() } else { format!(": {what}") })]
    Differs {
        version: crate::types::Version,
        /// Which files differ, where that is known.
        what: String,
    },
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    #[error(transparent)]
    Pack(#[from] pack::Error),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// A place that the command line names, to copy from or to publish to.
    #[error(transparent)]
    Place(#[from] resolve::Error),
    #[error("{0}")]
    Hook(String),
    /// An operator's act in a fleet.
    #[error(transparent)]
    Operate(#[from] operate::Error),
    /// What this node remembers of its fleet.
    #[error(transparent)]
    Agreement(#[from] agreement::Error),
    /// The fleet's directory, or what stands there.
    #[error("{0}")]
    Fleet(String),
    /// This node is not the one that goes by its name.
    #[error("this node cannot take part in its fleet: {0}")]
    Stranger(String),
    /// The fleet's directory did not answer.
    #[error("cannot reach the fleet's directory: {0}")]
    Unreachable(String),
    /// A rehearsal that is wanted cannot be had.
    #[error(transparent)]
    Rehearsal(#[from] rehearsal::Error),
    /// Something is in the way for now.
    #[error("not now: {0}")]
    NotNow(String),
    /// Ctrl-C, before anything was switched.
    #[error("interrupted {0}")]
    Interrupted(&'static str),
}

/// A failure as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    pub code: u8,
}

impl Failure {
    fn new(code: u8, error: &dyn std::error::Error, hint: Option<&str>) -> Self {
        Self { message: chain(error), hint: hint.map(ToOwned::to_owned), code }
    }
}

/// How an error is told.
pub fn failure(error: &Error) -> Failure {
    match error {
        Error::Config(problem) => of_config(problem),
        Error::Node(error) => of_node(error),
        Error::Data(error) => of_data(error),
        Error::Staging(error) | Error::Adopting(adopt::Error::Staging(error)) => of_staging(error),
        Error::Adopting(adopt::Error::Refused { hint, .. } | adopt::Error::NotUndone { hint, .. }) => {
            Failure::new(code::FAILED, error, Some(hint))
        }
        Error::Adopting(adopt::Error::Unfit { hint, .. }) => Failure::new(code::REFUSED, error, Some(hint)),
        Error::Store(error) => of_store(error, code::FAILED),
        Error::Disk(error) => of_disk(error, code::FAILED),
        Error::Usage { hint, .. } => Failure::new(code::USAGE, error, hint.as_deref()),
        Error::NoSuchRelease { nearest, .. } => {
            let hint = match nearest {
                Some(nearest) => format!("did you mean `{nearest}`? `cutover list` shows what is here"),
                None => "`cutover list` shows what is here".to_owned(),
            };
            Failure::new(code::FAILED, error, Some(&hint))
        }
        Error::Differs { version, .. } => {
            let hint = format!("`cutover verify {version} --repair` fetches what differs");
            Failure::new(code::REFUSED, error, Some(&hint))
        }
        Error::Unreachable(_) | Error::Operate(operate::Error::Unreachable(_)) => {
            let hint = "see that the storage is mounted, answers, and may be written (room, rights); `cutover fleet check` tries it";
            Failure::new(code::IN_DOUBT, error, Some(hint))
        }
        Error::Stranger(_) => {
            let hint = "do what is named, then run `cutover update`; what serves goes on until then";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        Error::Operate(operate::Error::Refused(_)) | Error::Fleet(_) => {
            Failure::new(code::FAILED, error, Some("`cutover fleet status --why` shows how things stand"))
        }
        Error::Operate(operate::Error::Lost { .. }) => {
            let hint = "`cutover fleet status` shows the other; propose again when it has ended";
            Failure::new(code::CALLED_OFF, error, Some(hint))
        }
        Error::Agreement(agreement::Error::Disk(error)) => of_disk(error, code::FAILED),
        Error::Agreement(agreement::Error::Overtaken { .. }) => {
            Failure::new(code::BUSY, error, Some("`cutover status` shows what goes on"))
        }
        Error::Agreement(agreement::Error::Record { .. }) => {
            let hint = "move that file away, then `cutover fleet join` makes it anew";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        Error::Rehearsal(error) => of_rehearsal(error),
        Error::NotNow(_) => Failure::new(code::NOT_NOW, error, None),
        Error::Interrupted(_) => {
            let hint = "run it again: what was fetched is kept, and nothing was switched";
            Failure::new(code::FAILED, error, Some(hint))
        }
        Error::Upstream(error) => of_upstream(error),
        Error::Pack(error) => of_pack(error),
        Error::Sign(error) => of_sign(error),
        Error::Publish(error) => of_publish(error),
        Error::Place(error) => of_place(error),
        Error::Hook(_) => {
            Failure::new(code::FAILED, error, Some("look at the hook; its output is in the log"))
        }
    }
}

fn of_config(problem: &Problem) -> Failure {
    let hint = match problem {
        Problem::NoSuchApp { known, .. } if known.is_empty() => {
            "`cutover init --unit NAME.service` writes it from a unit that runs; `--root DIR` works without any".to_owned()
        }
        Problem::NoSuchApp { app, known, .. } => {
            match crate::config::nearest(app, known.iter().map(String::as_str)) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("configured are: {}", known.join(", ")),
            }
        }
        Problem::InFile { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
        Problem::Owned(owned::Error::Owner { .. } | owned::Error::Writable { .. }) => {
            "let it belong to root, and take the right to write from others: `chmod go-w`".to_owned()
        }
        Problem::Owned(owned::Error::Disk(error))
            if error.source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            "run it as root (`sudo`), or as a user who may read that file".to_owned()
        }
        Problem::Owned(owned::Error::Not { .. } | owned::Error::Links(_) | owned::Error::Disk(_)) => {
            "name a regular file of at most 1 MiB, by a path without links to it".to_owned()
        }
        Problem::AppName(_)
        | Problem::Missing(_)
        | Problem::NotText { .. }
        | Problem::Nul { .. }
        | Problem::InFile { nearest: None, .. }
        | Problem::Contradiction { .. } => {
            "mend that; `cutover config check` tries it again, and starts nothing".to_owned()
        }
    };
    Failure::new(code::USAGE, problem, Some(&hint))
}

fn of_node(error: &node::Error) -> Failure {
    use node::Error as E;
    let told = |code, hint: &str| Failure::new(code, error, Some(hint));
    match error {
        E::Driver(error) => of_driver(error),
        E::Store(error) => of_store(error, code::FAILED),
        E::Busy(_) => told(
            code::BUSY,
            "`cutover status` shows it; `cutover update --wait` waits for its end, `cutover rollback` ends what it does and goes back",
        ),
        E::UnderWay(_) => told(code::BUSY, "`cutover recover` finishes or undoes it"),
        E::NeedsPerson(_) => told(
            code::NEEDS_PERSON,
            "repair what is named, then run `cutover recover`, or `cutover rollback VERSION`",
        ),
        E::NoWayBack(_) => {
            told(code::FAILED, "`cutover list` shows what is here; name one: `cutover rollback VERSION`")
        }
        E::NoneActive => {
            told(code::FAILED, "`cutover switch VERSION` begins with one of those that `cutover list` shows")
        }
        E::OldData { named, .. } => {
            let version = named.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
            told(
                code::USAGE,
                &format!(
                    "`cutover rollback{version} --data restore` brings them back and sets the newer ones aside, \
                     `cutover rollback{version} --data keep` leaves the data as they are"
                ),
            )
        }
        E::NoCopy { named, paths, back_to } => {
            let version = named.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
            let keep =
                format!("`cutover rollback{version} --data keep` goes back and leaves the data as they are");
            let rest = if paths.is_empty() {
                "`cutover data list` shows what was set aside, and `cutover status` which copies `cutover rollback \
                 VERSION --data restore` can bring back"
                    .to_owned()
            } else {
                format!("`cutover rollback {}` brings back those of which there is a copy", back_to.version)
            };
            told(code::USAGE, &format!("{keep}; {rest}"))
        }
        E::NoTrial => told(code::FAILED, "`cutover status` shows what is going on"),
        E::Banned(bad) => told(
            code::REFUSED,
            &format!("if it is good after all: `cutover mark-good {}`", bad.release.version),
        ),
        E::ActiveAlready(_) => Failure::new(code::FAILED, error, None),
        E::IsLeft(_) => told(code::USAGE, "`cutover rollback` without a version goes back from it"),
        E::DataMoved(_) => told(
            code::USAGE,
            "`cutover recover` finishes the way back; then `cutover rollback VERSION` leads further",
        ),
        E::Data(error) => of_data(error),
        E::Tree(error) => of_staging(error),
    }
}

fn of_rehearsal(error: &rehearsal::Error) -> Failure {
    use crate::lifecycle::application::data;
    use rehearsal::{Error as E, WallsError as W};
    let told = |code, hint: &str| Failure::new(code, error, Some(hint));
    match error {
        E::NoSystemd | E::OldSystemd(_) | E::NotRoot => told(
            code::USAGE,
            "set `network = \"off\"` in `[rehearsal]`, or update without one: `cutover update --no-rehearsal`",
        ),
        E::NoUnits | E::Unfit(_) | E::NotLoaded { .. } | E::NoUser { .. } => told(
            code::USAGE,
            "name the units that can be rehearsed with `units` in `[rehearsal]`, a `command`, or another `network`",
        ),
        E::Walls(W::Absent(_)) => told(code::USAGE, "make it, owned by the service's user, then try again"),
        E::Walls(W::Name(_) | W::TooMany(_) | W::Socket(_) | W::TooManySockets(_)) => {
            told(code::USAGE, "set `network = \"off\"` in `[rehearsal]`")
        }
        E::Data(data::Error::NoSpace { .. } | data::Error::NoInodes { .. }) => told(
            code::NO_SPACE,
            "make room, put the data on a file system that shares blocks, or update without a rehearsal: `cutover update \
             --no-rehearsal`",
        ),
        E::Data(data::Error::Disk(error)) | E::Walls(W::Disk(error)) | E::Disk(error) => {
            of_disk(error, code::FAILED)
        }
        E::Data(
            error @ (data::Error::Unfit { .. }
            | data::Error::Index { .. }
            | data::Error::Border { .. }
            | data::Error::Nested { .. }
            | data::Error::WayBack { .. }
            | data::Error::Gone(_)
            | data::Error::Elsewhere { .. }
            | data::Error::OtherRoot { .. }
            | data::Error::InUse { .. }
            | data::Error::Away { .. }),
        ) => of_data(error),
        E::Systemd(_) => told(code::FAILED, "look at the log: `journalctl -u 'cutover-rehearsal-*'`"),
    }
}

/// The loop gives up with an error only where it cannot tell the state any more.
fn of_driver(error: &driver::Error) -> Failure {
    use driver::Error as E;
    match error {
        E::Store(error) => of_store(error, code::NEEDS_PERSON),
        E::Agreement(agreement::Error::Disk(error)) => of_disk(error, code::NEEDS_PERSON),
        E::Agreement(agreement::Error::Overtaken { .. }) => {
            Failure::new(code::BUSY, error, Some("`cutover status` shows what goes on"))
        }
        E::Agreement(agreement::Error::Record { .. }) | E::Illegal(_) => {
            Failure::new(code::NEEDS_PERSON, error, Some("`cutover recover` tries again"))
        }
        E::NothingToDo => Failure::new(code::FAILED, error, None),
        E::Data(_) => {
            let hint = "mend what is named, then run `cutover recover`; the copies are where they were";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        E::Busy(_) => Failure::new(code::BUSY, error, Some("wait for it, or look at `cutover status`")),
        E::Overtaken(_) => Failure::new(code::NOT_NOW, error, Some("`cutover log` shows who did, and why")),
        E::Journal { why: Damage::Newer(_), .. } => {
            let hint = "install the newer cutover again that wrote it, then run `cutover recover`";
            Failure::new(code::NEEDS_PERSON, error, Some(hint))
        }
        E::Journal { path, why: Damage::Exposed(_) } => {
            Failure::new(code::NEEDS_PERSON, error, Some(&exposed(path, "then run `cutover recover`")))
        }
        E::Journal { path, why: Damage::Spoilt(_) } => {
            let path = path.display();
            let hint = format!(
                "the pointer is as it was; look at what runs, then move `{path}` away: `cutover status` says what may follow"
            );
            Failure::new(code::NEEDS_PERSON, error, Some(&hint))
        }
    }
}
