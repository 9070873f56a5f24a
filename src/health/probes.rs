//! One try of one check. Bounded by its time limit, and in what it reads.

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Answer;
use super::settings::{Exec, File, Tcp};
use crate::sys::process::{self, Command, End};
use crate::types::{Span, escaped, escaped_path};

/// How much of a page is read, in bytes.
pub(super) const READ_MAX: u64 = 64 << 10;
/// How much of a file is looked through for a text, in bytes.
const FILE_MAX: u64 = 16 << 20;
/// How much of an answer is shown, in bytes.
pub(super) const SHOWN_MAX: usize = 200;

pub(super) type Told = (Answer, String);

/// What an error of a connection says of the server: one that does not answer yet is not sick.
pub(super) fn not_yet(error: &io::Error) -> Answer {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, NotFound, TimedOut, WouldBlock,
    };
    match error.kind() {
        // A Unix socket that is not there yet is a port that is closed.
        ConnectionRefused | ConnectionReset | ConnectionAborted | NotFound | TimedOut | WouldBlock => {
            Answer::NotYet
        }
        _ => Answer::Sick,
    }
}

/// Connects, to any of the host's addresses.
pub fn tcp(check: &Tcp, limit: Duration) -> Told {
    let mut addresses: Vec<_> = match check.address.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return (Answer::CannotRun, error.to_string()),
    };
    if let Some(("localhost", port)) = check.host_and_port() {
        addresses.extend(super::web::loopbacks(port));
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
    }
    let mut told = (Answer::CannotRun, "the host has no address".to_owned());
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        match TcpStream::connect_timeout(&address, share.max(Duration::from_millis(1))) {
            Ok(_) => return (Answer::Healthy, format!("{address} accepts connections")),
            Err(error) => told = (not_yet(&error), format!("{address}: {error}")),
        }
    }
    told
}

/// Runs a command in the tree, as long as somebody wants it.
pub fn exec(
    check: &Exec,
    limit: Duration,
    tree: &Path,
    env: &[(String, OsString)],
    is_unwanted: &dyn Fn() -> bool,
) -> Told {
    let mut command = Command::new(check.command.iter().map(OsString::from)).timeout(limit);
    if let Some(program) = command.argv.first_mut() {
        *program = program_in(tree, Path::new(program)).into();
    }
    command.env = env.to_vec();
    command.env.extend(check.env.iter().map(|(name, value)| (name.clone(), value.into())));
    command.directory = Some(tree.to_owned());
    command.user.clone_from(&check.user);
    let outcome = process::run_unless(&command, is_unwanted);
    let answer = match outcome.end {
        End::Exited(0) => Answer::Healthy,
        End::Exited(process::NOT_NOW) => Answer::NotYet,
        End::Exited(_) | End::Signalled(_) | End::TimedOut(_) | End::Stopped => Answer::Sick,
        End::CannotStart(_) => {
            let program = command.argv.first().cloned().unwrap_or_default();
            return (
                Answer::CannotRun,
                format!("`{}`: {}", escaped_path(program.as_ref()), outcome.summary()),
            );
        }
    };
    (answer, outcome.summary())
}

/// A relative program is one of the tree; only a bare name that the tree does not have stands for one in `PATH`.
pub fn program_in(tree: &Path, program: &Path) -> PathBuf {
    let own = tree.join(program);
    if program.components().count() == 1 && !own.exists() { program.to_owned() } else { own }
}

/// Looks at a file: never waits for a fifo, never reads a device.
pub fn file(check: &File, tree: &Path) -> Told {
    let path = tree.join(&check.path);
    let open = || -> io::Result<(std::fs::File, std::fs::Metadata)> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    };
    let shown = escaped_path(&path);
    let (mut file, metadata) = match open() {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (Answer::NotYet, format!("`{shown}` is not there"));
        }
        Err(error) => return (Answer::CannotRun, format!("`{shown}`: {error}")),
    };
    if let Some(limit) = check.newer_than {
        let at = match metadata.modified() {
            Ok(at) => at,
            Err(error) => return (Answer::CannotRun, format!("`{shown}`: {error}")),
        };
        // A time ahead of the clock stays so for long, whether or not anybody still writes.
        let (off, side) = match SystemTime::now().duration_since(at) {
            Ok(age) => (age, "ago"),
            Err(ahead) => (ahead.duration(), "from now: a clock was wrong"),
        };
        if off > limit.0 {
            let off = Span(Duration::from_secs(off.as_secs()));
            return (Answer::NotYet, format!("`{shown}` was last changed {off} {side}"));
        }
    }
    if let Some(text) = &check.contains {
        if !metadata.is_file() {
            return (Answer::CannotRun, format!("`{shown}` is not a regular file"));
        }
        let wanted = escaped(text.as_bytes());
        match find_in(&mut file, text.as_bytes()) {
            Ok(true) => {}
            Ok(false) if metadata.len() > FILE_MAX => {
                let limit = crate::types::Size(FILE_MAX);
                return (Answer::Sick, format!("the first {limit} of `{shown}` do not contain `{wanted}`"));
            }
            Ok(false) => return (Answer::Sick, format!("`{shown}` does not contain `{wanted}`")),
            Err(error) => return (Answer::CannotRun, format!("`{shown}`: {error}")),
        }
    }
    (Answer::Healthy, format!("`{shown}` is there"))
}

/// Whether the text is in the first [`FILE_MAX`] bytes of a file.
fn find_in(file: &mut std::fs::File, wanted: &[u8]) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let mut left = FILE_MAX;
    loop {
        let count = file.by_ref().take(left.min(READ_MAX)).read_to_end(&mut bytes)?;
        if count == 0 || contains(&bytes, wanted) {
            return Ok(contains(&bytes, wanted));
        }
        left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        // The text may begin in this part and end in the next.
        bytes.drain(..bytes.len().saturating_sub(wanted.len().saturating_sub(1)));
    }
}

pub(super) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The begin of a page, safe to print.
pub(super) fn shown(page: &[u8]) -> String {
    escaped(page.trim_ascii().get(..SHOWN_MAX).unwrap_or(page.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_closed_port_is_not_yet_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(tcp(&Tcp { address: address.clone() }, LIMIT).0, Answer::Healthy);
        drop(listener);
        let check: super::super::Http = toml::from_str(&format!("url = \"http://{address}/\"")).unwrap();
        let told = super::super::web::http(&check, LIMIT);
        assert_eq!(told.0, Answer::NotYet, "{told:?}");
        assert_eq!(tcp(&Tcp { address }, LIMIT).0, Answer::NotYet);
        assert_eq!(tcp(&Tcp { address: "nonsense".into() }, LIMIT).0, Answer::CannotRun);
    }

    #[test]
    fn a_command_runs_in_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        nix::unistd::symlinkat("/bin/sh", nix::fcntl::AT_FDCWD, &tree.path().join("smoke")).unwrap();
        let ask = |command: &[&str]| {
            let command = command.iter().map(|&word| word.to_owned()).collect();
            let check = Exec { command, user: None, env: [].into(), timeout: None };
            exec(&check, LIMIT, tree.path(), &[("CUTOVER_APP".into(), "shop".into())], &|| false)
        };
        assert_eq!(ask(&["smoke", "-c", "test -h smoke && test $CUTOVER_APP = shop"]).0, Answer::Healthy);
        assert_eq!(ask(&["./smoke", "-c", "exit 75"]).0, Answer::NotYet);
        assert_eq!(ask(&["sh", "-c", "echo no db; exit 1"]), (Answer::Sick, "exit status 1: no db".into()));
        assert_eq!(ask(&["bin/none"]).0, Answer::CannotRun);
    }

    #[test]
    fn a_file_must_be_there_new_and_say_so() {
        let tree = tempfile::tempdir().unwrap();
        let ask = |newer_than, contains: Option<&str>| {
            let contains = contains.map(str::to_owned);
            file(&File { path: "ready".into(), newer_than, contains }, tree.path()).0
        };
        assert_eq!(ask(None, None), Answer::NotYet);
        crate::sys::disk::Disk::default().replace(&tree.path().join("ready"), b"yes 7", 0o644).unwrap();
        assert_eq!(ask(Some(Span::seconds(3600)), Some("yes")), Answer::Healthy);
        assert_eq!(ask(None, Some("no")), Answer::Sick);
        for (before, after, wanted) in [
            (READ_MAX - 2, 0, Answer::Healthy),
            (3 * READ_MAX, READ_MAX, Answer::Healthy),
            (FILE_MAX - 5, 9, Answer::Healthy),
            (FILE_MAX - 4, 9, Answer::Sick),
        ] {
            let part = |length: u64| vec![b'.'; usize::try_from(length).unwrap()];
            let text = [part(before), b"READY".to_vec(), part(after)].concat();
            crate::sys::disk::Disk::default().replace(&tree.path().join("ready"), &text, 0o644).unwrap();
            assert_eq!(ask(None, Some("READY")), wanted, "{before}");
        }
        let now = SystemTime::now();
        let change = |at| std::fs::File::open(tree.path().join("ready")).unwrap().set_modified(at).unwrap();
        for wrong in [now - Duration::from_secs(7200), now + Duration::from_secs(7200)] {
            change(wrong);
            assert_eq!(ask(Some(Span::seconds(3600)), None), Answer::NotYet);
        }
        // Where the file is, the clock may be a little ahead.
        change(now + Duration::from_secs(10));
        assert_eq!(ask(Some(Span::seconds(3600)), None), Answer::Healthy);
    }
}
