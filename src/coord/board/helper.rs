//! A board behind a process that can be killed.
//!
//! Shared storage may hang for ever, and whoever touches it then hangs too. So the node never does: a helper does, over
//! a socket, each request with a time limit. One that misses it is killed and replaced. A process that waits for a dead disk
//! may not even die: at most two of those are left behind, then the storage counts as unreachable until one is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::message::{Answer, Request, receive, send};
use super::{Board, ClockRead, Created, Done, Listed, NAMES_MAX, Read};

/// How many helpers that do not die are borne.
const UNKILLABLE_MAX: usize = 2;
/// So many names are asked for in one message.
const SOME_NAMES: usize = 1000;
/// How long a killed helper is waited for.
const REAP: Duration = Duration::from_millis(200);
/// The first pause after a helper failed; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A board behind a helper.
pub struct HelperBoard {
    program: Vec<String>,
    limit: Duration,
    running: Option<Running>,
    dying: Vec<Child>,
    failures: u32,
    not_before: Option<Instant>,
    /// It is this very program, and reads many at once.
    is_own: bool,
}

struct Running {
    child: Child,
    line: UnixStream,
}

impl HelperBoard {
    /// A board behind `program` (with its arguments), each access to which may take `limit`.
    pub fn new(program: Vec<String>, limit: Duration) -> Self {
        Self {
            program,
            limit,
            running: None,
            dying: Vec::new(),
            failures: 0,
            not_before: None,
            is_own: false,
        }
    }

    /// The same, where the helper is this very program.
    pub fn of_this_program(mut self) -> Self {
        self.is_own = true;
        self
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, String> {
        self.dying.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.spawn()?,
        };
        match exchange(&mut running.line, request, self.limit) {
            Ok(answer) => {
                self.running = Some(running);
                self.failures = 0;
                Ok(answer)
            }
            Err(error) => {
                self.give_up(running.child);
                let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                Err(if is_late {
                    format!("no answer within {} ms", self.limit.as_millis())
                } else {
                    format!("its helper ended: {error}")
                })
            }
        }
    }

    fn spawn(&mut self) -> Result<Running, String> {
        if self.dying.len() >= UNKILLABLE_MAX {
            return Err("it hangs".into());
        }
        if self.not_before.is_some_and(|moment| Instant::now() < moment) {
            return Err("it did not answer just now".into());
        }
        let start = || -> io::Result<Running> {
            let (mine, theirs) = UnixStream::pair()?;
            let (program, arguments) =
                self.program.split_first().ok_or_else(|| io::Error::other("no helper is named"))?;
            let child = Command::new(program)
                .args(arguments)
                .current_dir("/")
                .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
                .stdout(Stdio::from(OwnedFd::from(theirs)))
                .stderr(Stdio::null())
                // Ctrl-C is for us: the fleet must still be told.
                .process_group(0)
                .spawn()?;
            Ok(Running { child, line: mine })
        };
        start().map_err(|error| {
            self.pause();
            format!("its helper cannot be started: {error}")
        })
    }

    fn give_up(&mut self, mut child: Child) {
        kill_group(&mut child);
        let until = Instant::now() + REAP;
        while Instant::now() < until {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return self.pause();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.dying.push(child);
        self.pause();
    }

    fn pause(&mut self) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
    }
}

/// Kills a helper with all that it has started: a wrapper leaves no orphans. The child has not been waited for, so its
/// number still is its own.
fn kill_group(child: &mut Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = child.kill();
}

/// Sends and receives, both within `limit` together.
fn exchange(line: &mut UnixStream, request: &Request, limit: Duration) -> io::Result<Answer> {
    let until = Instant::now() + limit;
    line.set_write_timeout(Some(limit))?;
    send(line, request)?;
    let mut parts = Vec::new();
    loop {
        match receive(&mut Bounded { line, until })?.ok_or(io::ErrorKind::UnexpectedEof)? {
            Answer::Part(part) if parts.len() + part.len() > NAMES_MAX => {
                return Err(io::Error::other("the listing does not end"));
            }
            Answer::Part(part) => parts.extend(part),
            Answer::Listed(Listed::Names(last)) if !parts.is_empty() => {
                parts.extend(last);
                return Ok(Answer::Listed(Listed::Names(parts)));
            }
            answer => return Ok(answer),
        }
    }
}

struct Bounded<'a> {
    line: &'a mut UnixStream,
    until: Instant,
}

impl io::Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.line.set_read_timeout(Some(left))?;
        self.line.read(buffer)
    }
}

impl Drop for HelperBoard {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Nothing is under way: no answer is outstanding.
            kill_group(&mut running.child);
            let _ = running.child.wait();
        }
    }
}

const ODD: &str = "its helper gave an answer that is not understood";

impl Board for HelperBoard {
    fn create(&mut self, name: &str, text: &str) -> Created {
        match self.ask(&Request::Create { name: name.into(), text: text.into() }) {
            Ok(Answer::Created(created)) => created,
            Ok(_) => Created::Unknown(ODD.into()),
            Err(why) => Created::Unknown(why),
        }
    }

    fn read(&mut self, name: &str) -> Read {
        match self.ask(&Request::Read { name: name.into() }) {
            Ok(Answer::Read(read)) => read,
            Ok(_) => Read::Unreachable(ODD.into()),
            Err(why) => Read::Unreachable(why),
        }
    }

    fn read_some(&mut self, names: &[String], within: Duration) -> Vec<Read> {
        let names = &names[..names.len().min(SOME_NAMES)];
        if !self.is_own {
            return names.iter().map(|name| self.read(name)).collect();
        }
        let within = within.min(self.limit / 4);
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::ReadSome { names: names.to_vec(), within_ms }) {
            Ok(Answer::Some(some)) if !some.is_empty() && some.len() <= names.len() => some,
            Ok(_) => names.iter().map(|_| Read::Unreachable(ODD.into())).collect(),
            // Who does not answer is not asked as often again.
            Err(why) => names.iter().map(|_| Read::Unreachable(why.clone())).collect(),
        }
    }

    fn list(&mut self, name: &str) -> Listed {
        match self.ask(&Request::List { name: name.into() }) {
            Ok(Answer::Listed(listed)) => listed,
            Ok(_) => Listed::Unreachable(ODD.into()),
            Err(why) => Listed::Unreachable(why),
        }
    }

    fn prepare(&mut self, name: &str) -> Done {
        self.change(&Request::Prepare { name: name.into() })
    }

    fn beat(&mut self, name: &str, text: &str) -> Done {
        self.change(&Request::Beat { name: name.into(), text: text.into() })
    }

    fn clock(&mut self, name: &str) -> ClockRead {
        match self.ask(&Request::Clock { name: name.into() }) {
            Ok(Answer::Clock(clock)) => clock,
            Ok(_) | Err(_) => ClockRead::Unknown,
        }
    }

    fn remove(&mut self, name: &str) -> Done {
        self.change(&Request::Remove { name: name.into() })
    }

    fn shut(&mut self, name: &str) -> Option<String> {
        match self.ask(&Request::Shut { name: name.into() }) {
            Ok(Answer::Shut(why)) => why,
            Ok(_) | Err(_) => None,
        }
    }

    fn hurry(&mut self, limit: Duration) {
        self.limit = self.limit.min(limit);
    }
}

impl HelperBoard {
    fn change(&mut self, request: &Request) -> Done {
        match self.ask(request) {
            Ok(Answer::Done(done)) => done,
            Ok(_) => Done::Unreachable(ODD.into()),
            Err(why) => Done::Unreachable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> HelperBoard {
        HelperBoard::new(vec!["sh".into(), "-c".into(), script.into()], Duration::from_millis(100))
    }

    #[test]
    fn a_helper_that_hangs_is_killed_and_not_started_again_at_once() {
        let mut board = shell("sleep 1000");
        assert!(matches!(board.read("rollouts/000001"), Read::Unreachable(why) if why.contains("no answer")));
        assert!(matches!(board.read("rollouts/000001"), Read::Unreachable(why) if why.contains("just now")));
        assert!(board.dying.is_empty());
    }

    #[test]
    fn whatever_a_helper_says_is_no_fact() {
        for script in ["exit 0", "echo nonsense", "printf '\\000\\000\\000\\002{}'", "cat", "cat /dev/zero"] {
            let mut board = shell(script);
            assert!(matches!(board.read("a"), Read::Unreachable(_)), "{script}");
            board.not_before = None;
            assert!(matches!(board.create("a", "b"), Created::Unknown(_)), "{script}");
        }
    }
}
