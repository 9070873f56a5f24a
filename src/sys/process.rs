//! Runs commands of others (checks, hooks, `systemctl`) so that none of them can hold us up or see more than it should.
//!
//! Each gets its own process group, an empty standard input, a clean environment and a time limit, after which it is
//! killed with all that it has started and not let go. Nobody waits for a corpse: a process that even SIGKILL cannot end (state D) counts as timed
//! out and is left to the kernel. Of the output the last 64 KiB are kept.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, getgrouplist};

use crate::types::escaped;

/// How much of a command's output is kept where nothing else is said, in bytes: the end of it.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// The exit status by which checks and hooks say "not now" (EX_TEMPFAIL of sysexits.h).
pub const NOT_NOW: i32 = 75;

/// How long a killed process may take to become a corpse before it is left alone.
const CORPSE_WAIT: Duration = Duration::from_secs(1);
/// How often a process whose output is closed is asked whether it has ended, at most and at least.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

#[derive(Clone, Debug)]
pub struct Command {
    /// Program and arguments. A program without a slash is looked for in `PATH`.
    pub argv: Vec<OsString>,
    /// Variables in addition to `PATH` and `LANG`; nothing is inherited.
    pub env: Vec<(String, OsString)>,
    /// Where it runs; `/` when absent.
    pub directory: Option<PathBuf>,
    /// As whom: with all groups of that user, and without a way to gain privileges.
    pub user: Option<String>,
    /// After this long it is killed, with all that it has started and not let go.
    pub timeout: Duration,
    /// For commands that leave a service behind: a file that takes the output in place of a pipe, which would break
    /// when we end. It is made anew.
    pub output: Option<PathBuf>,
    /// How much of the output is kept, in bytes: the end of it.
    pub output_bytes_max: usize,
}

impl Command {
    /// A command of these words, with a time limit of one minute.
    pub fn new<Word: Into<OsString>>(argv: impl IntoIterator<Item = Word>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        let timeout = Duration::from_secs(60);
        Self {
            argv,
            env: Vec::new(),
            directory: None,
            user: None,
            timeout,
            output: None,
            output_bytes_max: OUTPUT_BYTES_MAX,
        }
    }

    /// The same with another time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// Killed after its time limit, which is given.
    TimedOut(Duration),
    /// Killed since it was not wanted any more.
    Stopped,
    CannotStart(String),
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "exit status {status}"),
            Self::Signalled(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(formatter, "killed by {signal}"),
                Err(_) => write!(formatter, "killed by signal {number}"),
            },
            Self::TimedOut(limit) => write!(formatter, "no end within {}", crate::types::Span(*limit)),
            Self::Stopped => formatter.write_str("ended early"),
            Self::CannotStart(why) => write!(formatter, "cannot start: {why}"),
        }
    }
}

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub end: End,
    /// The end of what it wrote to standard output and standard error, as it came.
    pub output: Vec<u8>,
}

impl Outcome {
    /// Whether it ended with status 0.
    pub fn is_success(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// The output as text; bytes that are none are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The last line that is not empty, safe to print.
    pub fn last_line(&self) -> String {
        let line = self.output.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty());
        escaped(line.unwrap_or_default().trim_ascii())
    }

    /// How it ended and what it said last: `exit status 3: no such table`.
    pub fn summary(&self) -> String {
        let line = self.last_line();
        if line.is_empty() { self.end.to_string() } else { format!("{}: {line}", self.end) }
    }
}

/// This program's file, to be run again later: the one of this name, should an upgrade have replaced it meanwhile.
pub fn own_program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| "cutover".into());
    // The kernel's word for a file that has no name any more (proc_pid_exe(5)).
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    replaced.filter(|_| !path.exists()).unwrap_or(path)
}

/// Runs a command to its end, or to its time limit.
pub fn run(command: &Command) -> Outcome {
    run_unless(command, &|| false)
}

/// The same; it is killed, with all that it has started and not let go, as soon as it `is_unwanted`.
pub fn run_unless(command: &Command, is_unwanted: &dyn Fn() -> bool) -> Outcome {
    let mut output = Tail { bytes: VecDeque::new(), length_max: command.output_bytes_max };
    let end = match start(command) {
        Err(error) => End::CannotStart(why_not_started(command, &error)),
        Ok((mut child, pipe)) => match follow(&mut child, pipe, command.timeout, &mut output, is_unwanted) {
            Ok(Followed::Ended(status)) => match status.code() {
                Some(code) => End::Exited(code),
                None => End::Signalled(status.signal().unwrap_or(0)),
            },
            Ok(Followed::TooLong) => {
                kill_all(&mut child);
                End::TimedOut(command.timeout)
            }
            Ok(Followed::Unwanted) => {
                kill_all(&mut child);
                End::Stopped
            }
            Err(error) => {
                kill_all(&mut child);
                End::CannotStart(format!("cannot follow it: {error}"))
            }
        },
    };
    super::orphans::wait_if_ending();
    if let Some(path) = &command.output {
        // For messages only: what cannot be read is left out.
        let _ = output.take_file(path);
    }
    Outcome { end, output: output.bytes.into() }
}

/// Why a command was not started. Of a program that is there the kernel says "no such file" when its interpreter is not.
fn why_not_started(command: &Command, error: &io::Error) -> String {
    let program = Path::new(command.argv.first().map_or(OsStr::new(""), OsString::as_os_str));
    let has_directory = command.directory.as_ref().is_none_or(|directory| directory.is_dir());
    match error.raw_os_error() {
        Some(libc::ENOENT) if program.is_absolute() && program.is_file() && has_directory => {
            "it is there, and the interpreter that it names is not (a first line `#!` with a Windows line ending?)".into()
        }
        Some(libc::ENOEXEC) => format!("{error}: a script begins with `#!` and its interpreter"),
        _ => error.to_string(),
    }
}

fn start(command: &Command) -> io::Result<(Child, PipeReader)> {
    let (program, arguments) =
        command.argv.split_first().ok_or_else(|| io::Error::other("it has no words"))?;
    let (reader, writer) = io::pipe()?;
    let mut process = std::process::Command::new(program);
    process
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir(command.directory.as_deref().unwrap_or("/".as_ref()))
        .stdin(Stdio::null())
        .process_group(0);
    match &command.output {
        None => process.stdout(writer.try_clone()?).stderr(writer),
        Some(path) => {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_APPEND)
                .open(path)?;
            process.stdout(file.try_clone()?).stderr(file)
        }
    };
    let child = match &command.user {
        None => process.spawn()?,
        Some(name) => spawn_as(process, name)?,
    };
    let flags = OFlag::from_bits_truncate(fcntl(&reader, FcntlArg::F_GETFL)?);
    fcntl(&reader, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok((child, reader))
}

/// Starts the process as another user. The standard library would drop the user's further groups, so a thread becomes
/// that user, and the process inherits from it.
fn spawn_as(mut process: std::process::Command, name: &str) -> io::Result<Child> {
    let user =
        User::from_name(name)?.ok_or_else(|| io::Error::other(format!("there is no user `{name}`")))?;
    let groups = getgrouplist(&CString::new(name)?, user.gid)?;
    process.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
    let is_other = user.uid != nix::unistd::geteuid();
    // Attribute and user belong to a thread and are inherited by its children: a thread of its own keeps them from us.
    let spawn = move || {
        if is_other {
            super::kernel::thread::become_user(user.uid, user.gid, &groups)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        process.spawn()
    };
    std::thread::spawn(spawn).join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
}

/// How following a process came to its end.
enum Followed {
    Ended(ExitStatus),
    TooLong,
    Unwanted,
}

/// How often somebody is asked whether a command is still wanted.
const WANTED_EVERY: Duration = Duration::from_millis(100);

/// Collects output until the process has ended, or `limit` is over, or nobody wants it any more. Output that processes
/// left behind by it may still write is not waited for.
fn follow(
    child: &mut Child,
    mut pipe: PipeReader,
    limit: Duration,
    output: &mut Tail,
    is_unwanted: &dyn Fn() -> bool,
) -> io::Result<Followed> {
    let begin = Instant::now();
    let mut asked = begin;
    let (mut pause, pause_max) = ASK_EVERY;
    let mut is_open = true;
    loop {
        let ended = child.try_wait()?;
        if is_open {
            is_open = output.take_from(&mut pipe)?;
        }
        if let Some(status) = ended {
            return Ok(Followed::Ended(status));
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(Followed::TooLong);
        }
        if asked.elapsed() >= WANTED_EVERY {
            if is_unwanted() {
                return Ok(Followed::Unwanted);
            }
            asked = Instant::now();
        }
        if is_open {
            let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            let wait = left.min(pause_max).max(Duration::from_millis(1));
            match poll(&mut wanted, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(pause_max);
        }
    }
}

/// The child has not been waited for, so its number still is its own.
fn kill_all(child: &mut Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        super::orphans::kill_command(Pid::from_raw(id));
    }
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < CORPSE_WAIT {
        std::thread::sleep(ASK_EVERY.0);
    }
}

/// The end of a stream of bytes.
struct Tail {
    bytes: VecDeque<u8>,
    length_max: usize,
}

impl Tail {
    fn take_file(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(self.length_max as u64)))?;
        let mut bytes = Vec::new();
        file.take(self.length_max as u64).read_to_end(&mut bytes)?;
        self.bytes = bytes.into();
        Ok(())
    }

    /// Takes what is there; `false` when there will be no more.
    fn take_from(&mut self, pipe: &mut PipeReader) -> io::Result<bool> {
        // One writer that never pauses must not keep us from looking at the clock.
        const READS_MAX: usize = 64;
        let mut buffer = [0; 8192];
        for _ in 0..READS_MAX {
            match pipe.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.bytes.extend(&buffer[..count]);
                    let surplus = self.bytes.len().saturating_sub(self.length_max);
                    self.bytes.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command::new(["sh", "-c", script])
    }

    #[test]
    fn each_way_to_end_is_told_apart() {
        assert_eq!(run(&shell("exit 3")).end, End::Exited(3));
        assert_eq!(run(&shell("kill -TERM $$")).end, End::Signalled(15));
        assert!(matches!(run(&Command::new(["/no/such/program"])).end, End::CannotStart(_)));
        assert!(matches!(run(&Command::new::<&str>([])).end, End::CannotStart(_)));
        assert!(run(&Command::new(["/no/such/program"])).summary().contains("No such file"));
        let limit = Duration::from_millis(50);
        assert_eq!(run(&shell("sleep 60").timeout(limit)).end, End::TimedOut(limit));
    }

    #[test]
    fn a_script_that_is_there_is_not_told_to_be_missing() {
        let place = tempfile::tempdir().unwrap();
        let told = |text: &str| {
            let path = place.path().join("script");
            crate::sys::disk::Disk::default().replace(&path, text.as_bytes(), 0o755).unwrap();
            run(&Command::new([&path])).summary()
        };
        for text in ["#!/bin/sh\r\nexit 0\n", "#!/no/such/interpreter\n"] {
            assert!(told(text).contains("interpreter"), "{}", told(text));
        }
        assert!(told("exit 0\n").contains("#!"));
        assert_eq!(told("#!/bin/sh\nexit 0\n"), "exit status 0");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_ended() {
        let limit = Duration::from_secs(60);
        assert_eq!(run_unless(&shell("sleep 60").timeout(limit), &|| true).end, End::Stopped);
    }

    #[test]
    fn what_is_killed_dies_with_all_that_it_has_started() {
        // The second has a group of its own, the third a session, the fourth a parent that is not the leader's child.
        let scripts = [
            "sleep 60 & echo $! >pid; wait",
            "timeout 60 sh -c 'echo $$ >pid; sleep 60'",
            "setsid sh -c 'echo $$ >pid; sleep 60' & wait",
            "(sh -c 'setsid sh -c \"echo \\$\\$ >pid; sleep 60\"; :' &); sleep 60",
        ];
        for script in scripts {
            let directory = tempfile::tempdir().unwrap();
            let mut command = shell(script);
            command.directory = Some(directory.path().to_owned());
            let text = || std::fs::read_to_string(directory.path().join("pid")).unwrap_or_default();
            assert_eq!(run_unless(&command, &|| text().ends_with('\n')).end, End::Stopped);
            let (pid, begin) = (Pid::from_raw(text().trim().parse().unwrap()), Instant::now());
            while crate::sys::orphans::is_alive(pid) {
                assert!(begin.elapsed() < Duration::from_secs(20), "it still runs: {script}");
            }
        }
    }

    #[test]
    fn the_end_of_the_output_is_kept() {
        let outcome = run(&shell("head -c 300000 /dev/zero; echo; echo last >&2"));
        assert!(outcome.is_success());
        assert_eq!(outcome.output.len(), OUTPUT_BYTES_MAX);
        assert_eq!(outcome.last_line(), "last");
    }

    #[test]
    fn a_process_left_behind_is_not_waited_for() {
        let outcome = run(&shell("sleep 30 & echo $!; exit 0"));
        assert_eq!(outcome.summary().split(": ").next(), Some("exit status 0"));
        let pid: i32 = outcome.last_line().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_service_left_behind_keeps_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = shell("(sleep 0.2; echo late) & echo early");
        command.output = Some(log.clone());
        assert_eq!(run(&command).last_line(), "early");
        let begin = Instant::now();
        while std::fs::read_to_string(&log).unwrap() != "early\nlate\n" {
            assert!(begin.elapsed() < Duration::from_secs(20), "the late line is lost");
        }
    }

    #[test]
    fn nothing_is_inherited() {
        let mut command = shell("env; pwd; cat; ls /proc/self/fd");
        command.env.push(("CUTOVER_APP".into(), "shop".into()));
        let text = run(&command).text();
        assert!(text.contains("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"), "{text}");
        assert!(text.contains("CUTOVER_APP=shop\n") && !text.contains("CARGO"), "{text}");
    }

    #[test]
    fn another_user_has_no_privileges_left() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED another_user_has_no_privileges_left: needs root");
            return;
        }
        let mut command = shell("id -u; id -G; grep NoNewPrivs /proc/self/status");
        command.user = Some("nobody".into());
        let text = run(&command).text();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["65534", "65534", "NoNewPrivs:", "1"]);
        assert!(matches!(nix::sys::prctl::get_no_new_privs(), Ok(false)));
        assert!(nix::unistd::geteuid().is_root());
    }

    #[test]
    fn another_user_has_all_of_its_groups() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED another_user_has_all_of_its_groups: needs root");
            return;
        }
        // Somebody whom the system has put into a further group.
        let groups = std::fs::read_to_string("/etc/group").unwrap();
        let member = groups.lines().find_map(|line| {
            let (_, members) = line.rsplit_once(':')?;
            let first = members.split(',').next().filter(|name| !name.is_empty())?;
            User::from_name(first).ok().flatten().filter(|user| !user.uid.is_root()).map(|_| first.to_owned())
        });
        let Some(name) = member else {
            eprintln!("SKIPPED another_user_has_all_of_its_groups: nobody is in a further group");
            return;
        };
        let wanted = run(&Command::new(["id", "-G", &name])).text();
        let mut command = Command::new(["id", "-G"]);
        command.user = Some(name);
        let sorted = |text: &str| {
            let mut groups: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            groups.sort();
            groups
        };
        assert_eq!(sorted(&run(&command).text()), sorted(&wanted));
    }
}
