//! systemd, asked through `systemctl` and `systemd-run`: these are its stable interface, and every call is bounded.
//!
//! A call that runs into its time limit has told systemd what is wanted all the same: the job goes on there. Whoever
//! calls decides what that means (see `lifecycle::service`).

mod dead_mans_switch;
mod journal;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::dead_mans_switch::DeadMansSwitch;
pub use self::journal::{journal_tail, journal_tail_of_others, journal_tail_since};
use super::process::{self, Command, End, Outcome};

/// How long systemd may take for an answer that needs no job.
const ANSWER: Duration = Duration::from_secs(20);
/// How much of an answer is read, in bytes: hundreds of units, one for each connection of a socket.
const OUTPUT_MAX: usize = 16 << 20;
/// The longest name of a unit that systemd takes.
const UNIT_LENGTH_MAX: usize = 255;

/// systemd refused, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of `systemctl` or another tool of systemd ended badly.
    #[error("cannot {action} {subject}: {answer}")]
    Refused {
        /// What was wanted, as a verb.
        action: &'static str,
        subject: String,
        /// How it ended, and the last line of what it said.
        answer: String,
    },
    /// The job had not ended after this time. It goes on in systemd.
    #[error("cannot {action} {subject}: not done after {}", crate::types::Span(*.limit))]
    TimedOut {
        /// What was wanted, as a verb.
        action: &'static str,
        subject: String,
        limit: Duration,
    },
}

/// What systemd says about one unit: the properties that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The property's value; empty when systemd does not say.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The words of a property that lists units.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).split_whitespace()
    }

    /// From names and values, for tests and for services that are not systemd's.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Where units stand that a reboot forgets.
pub const RUNTIME_UNITS: &str = "/run/systemd/system";

/// Whether systemd runs this machine (sd_booted(3)).
pub fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// systemd's version; `None` when it does not say.
pub fn version() -> Option<u32> {
    let outcome = tool("systemctl", ["--version".into()], ANSWER);
    version_in(&outcome.text())
}

/// From `systemd 252 (252.39-1~deb12u2)`.
fn version_in(text: &str) -> Option<u32> {
    let number = text.split_whitespace().nth(1)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the name can be handed to `systemctl` as a unit: no option, no path, no pattern.
pub fn is_unit_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= UNIT_LENGTH_MAX
        && !name.starts_with(['-', '.'])
        && name.bytes().all(allowed)
        && super::unit::Kind::of(name).is_some()
}

/// Asks for properties of units, in the order of `units`. Each must be one unit, under its name or an alias.
pub fn show(units: &[String], properties: &[&str]) -> Result<Vec<Properties>, Error> {
    let blocks = show_matching(units, properties)?;
    let find = |unit: &String| {
        let is_it =
            |block: &&Properties| block.get("Id") == unit || block.words("Names").any(|name| name == unit);
        blocks.iter().find(is_it).cloned().ok_or_else(|| Error::Refused {
            action: "look at",
            subject: unit.clone(),
            answer: "systemctl does not show it".to_owned(),
        })
    };
    units.iter().map(find).collect()
}

/// Asks for properties of units that match names or patterns, in systemd's order. Each says its `Id` and its `Names`.
pub fn show_matching(patterns: &[String], properties: &[&str]) -> Result<Vec<Properties>, Error> {
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = format!("--property=Id,Names,{}", properties.join(","));
    let text = call("look at", patterns, &["show", &wanted], ANSWER)?;
    Ok(text.split("\n\n").map(read_properties).filter(|block| !block.get("Id").is_empty()).collect())
}

/// The addresses and paths that socket units listen on, as systemd shows them: `127.0.0.1:8080 (Stream)`.
pub fn listens(sockets: &[String]) -> Result<Vec<String>, Error> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let text = call("look at", sockets, &["show", "--property=Listen"], ANSWER)?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("Listen=")).map(str::to_owned).collect())
}

/// The socket units that systemd knows, each with the paths that it listens on: sockets, FIFOs, files.
pub fn listening() -> Result<Vec<(String, Vec<PathBuf>)>, Error> {
    let text = call("look at", &["*.socket".to_owned()], &["show", "--property=Id,Listen"], ANSWER)?;
    Ok(text.split("\n\n").filter_map(listening_in).collect())
}

/// From `Id=shop.socket` and lines as `Listen=/run/shop.sock (Stream)`.
fn listening_in(block: &str) -> Option<(String, Vec<PathBuf>)> {
    let values = |name: &'static str| block.lines().filter_map(move |line| line.strip_prefix(name));
    let path = |value: &str| value.rsplit_once(" (").map_or(value, |(path, _)| path).into();
    let paths = values("Listen=").filter(|value| value.starts_with('/')).map(path).collect();
    Some((values("Id=").next()?.to_owned(), paths))
}

fn read_properties(block: &str) -> Properties {
    let pairs = block.lines().filter_map(|line| line.split_once('='));
    Properties(pairs.map(|(name, value)| (name.to_owned(), unquoted(value))).collect())
}

/// A value in which names of units are as they are: in lists systemctl(1) quotes those that have a backslash, as escaped
/// ones do: `"a\\x2db.service"`.
fn unquoted(value: &str) -> String {
    let name = |word: &str| {
        let inner = word.strip_prefix('"')?.strip_suffix('"')?.replace(r"\\", r"\");
        is_unit_name(&inner).then_some(inner)
    };
    let words: Vec<_> = value.split(' ').map(|word| name(word).unwrap_or_else(|| word.to_owned())).collect();
    words.join(" ")
}

/// Stops units and waits for them.
pub fn stop(units: &[String], limit: Duration) -> Result<(), Error> {
    act("stop", units, &["stop"], limit)
}

/// Starts units and waits until they are up.
pub fn start(units: &[String], limit: Duration) -> Result<(), Error> {
    act("start", units, &["start"], limit)
}

/// Has units start, in the order that they want, and does not wait for them.
pub fn begin_start(units: &[String]) -> Result<(), Error> {
    act("start", units, &["start", "--no-block"], ANSWER)
}

/// Stops units that run and starts them again, and waits until they are up.
pub fn restart(units: &[String], limit: Duration) -> Result<(), Error> {
    act("restart", units, &["restart"], limit)
}

/// Has units start again, and does not wait for them.
pub fn begin_restart(units: &[String]) -> Result<(), Error> {
    act("restart", units, &["restart", "--no-block"], ANSWER)
}

/// Starts units alone, without what they need or want.
pub fn start_alone(units: &[String], limit: Duration) -> Result<(), Error> {
    act("start", units, &["start", "--job-mode=ignore-dependencies"], limit)
}

/// Has units reload, and waits until they have.
pub fn reload(units: &[String], limit: Duration) -> Result<(), Error> {
    act("reload", units, &["reload"], limit)
}

/// Kills all processes of units.
pub fn kill(units: &[String]) -> Result<(), Error> {
    act("kill", units, &["kill", "--signal=SIGKILL"], ANSWER)
}

/// Forgets failures and start limits of units.
pub fn reset_failed(units: &[String]) -> Result<(), Error> {
    act("clear the failures of", units, &["reset-failed"], ANSWER)
}

/// Reads all unit files again.
pub fn daemon_reload() -> Result<(), Error> {
    /// With many units and generators this takes seconds.
    const RELOAD: Duration = Duration::from_secs(60);
    done("reload", "systemd", &tool("systemctl", ["daemon-reload".into()], RELOAD)).map(|_| ())
}

/// Names of units as a property that is a list: a backslash, which stands in escaped names, would be lost there.
fn word_list(units: &[String]) -> String {
    units.join(" ").replace('\\', r"\\")
}

/// A word of a command line in a unit file (systemd.service(5)).
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for sign in word.chars() {
        match sign {
            '"' | '\\' => text.extend(['\\', sign]),
            '%' | '$' => text.extend([sign, sign]),
            _ => text.push(sign),
        }
    }
    text.push('"');
    text
}

/// Whether this machine is going down: units are stopped then, and not because they failed.
pub fn is_going_down() -> bool {
    is_booted() && tool("systemctl", ["is-system-running".into()], ANSWER).text().trim() == "stopping"
}

/// Holds back start jobs of units while it is closed: systemd orders them behind this transient unit's own job.
///
/// Stopping a service whose socket stays up would otherwise start the *old* release again with the next connection, and
/// so would whoever looks after it: `Upholds=`, a neighbour that wants it, a watchdog. With the gate closed connections
/// and callers wait, and nothing fails. It opens by itself after a while.
#[derive(Clone, Debug)]
pub struct Gate {
    unit: String,
}

impl Gate {
    /// The gate of an application.
    pub fn new(app: &str) -> Self {
        Self { unit: format!("cutover-gate-{app}.service") }
    }

    /// Closes the gate before `units`, for at most `limit`. One that is closed already stays so.
    pub fn close(&self, units: &[String], limit: Duration) -> Result<(), Error> {
        let arguments = [
            "--quiet".to_owned(),
            "--collect".to_owned(),
            "--no-block".to_owned(),
            format!("--unit={}", self.unit),
            "--description=Holds back starts while a release is switched".to_owned(),
            "--property=Type=oneshot".to_owned(),
            "--property=DefaultDependencies=no".to_owned(),
            // It is stopped to open it, which is no failure that anybody should read of.
            "--property=SuccessExitStatus=SIGTERM".to_owned(),
            format!("--property=Before={}", word_list(units)),
            "sleep".to_owned(),
            limit.as_secs().max(1).to_string(),
        ];
        match done("close", &self.unit, &tool("systemd-run", arguments.map(OsString::from), ANSWER)) {
            Err(refused) if !self.is_closed()? => Err(refused),
            _ => Ok(()),
        }
    }

    /// Opens the gate: start jobs that wait go on. One that is open stays so.
    pub fn open(&self) -> Result<(), Error> {
        if self.is_closed()? {
            act("open", std::slice::from_ref(&self.unit), &["stop"], ANSWER)
        } else {
            Ok(())
        }
    }

    /// The same of one that this process has closed, without a look first: somebody waits for what is behind it.
    pub fn open_own(&self) -> Result<(), Error> {
        act("open", std::slice::from_ref(&self.unit), &["stop"], ANSWER).or_else(|_| self.open())
    }

    fn is_closed(&self) -> Result<bool, Error> {
        let shown = show(std::slice::from_ref(&self.unit), &["ActiveState", "Job"])?;
        let is_there = |gate: &Properties| {
            !["inactive", "failed"].contains(&gate.get("ActiveState"))
                || !["", "0"].contains(&gate.get("Job"))
        };
        Ok(shown.iter().any(is_there))
    }
}

/// Templates are left out: they are no units, and systemctl(1) would refuse the whole call for one of them.
fn act(action: &'static str, units: &[String], words: &[&str], limit: Duration) -> Result<(), Error> {
    let units: Vec<_> = units.iter().filter(|unit| !super::unit::is_template(unit)).cloned().collect();
    if units.is_empty() { Ok(()) } else { call(action, &units, words, limit).map(|_| ()) }
}

fn call(action: &'static str, units: &[String], words: &[&str], limit: Duration) -> Result<String, Error> {
    let arguments = words.iter().copied().chain(["--"]).chain(units.iter().map(String::as_str));
    done(action, &units.join(", "), &tool("systemctl", arguments.map(OsString::from), limit))
}

fn tool(program: &str, arguments: impl IntoIterator<Item = OsString>, limit: Duration) -> Outcome {
    let mut command = Command::new([OsString::from(program)].into_iter().chain(arguments)).timeout(limit);
    command.env.push(("SYSTEMD_PAGER".into(), "".into()));
    command.env.push(("SYSTEMD_COLORS".into(), "0".into()));
    command.output_bytes_max = OUTPUT_MAX;
    process::run(&command)
}

/// What a tool said of its failure.
fn answer_of(outcome: &Outcome) -> String {
    reason(&outcome.text()).unwrap_or_else(|| outcome.summary())
}

/// Of what systemctl says when a job fails, the sentence with the cause: the last one only tells where to read more, and that is
/// quoted beside it.
fn reason(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("Job for ") && line.contains(" failed"))?;
    Some(line.trim_end_matches('.').to_owned())
}

fn done(action: &'static str, subject: &str, outcome: &Outcome) -> Result<String, Error> {
    match outcome.end {
        End::Exited(0) => Ok(outcome.text()),
        End::TimedOut(limit) => Err(Error::TimedOut { action, subject: subject.to_owned(), limit }),
        End::Exited(_) | End::Signalled(_) | End::Stopped | End::CannotStart(_) => {
            Err(Error::Refused { action, subject: subject.to_owned(), answer: answer_of(outcome) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_units_are_handed_to_systemctl() {
        for good in ["shop.service", "shop@1.service", "a-b_c.socket", r"dev-disk\x2dby.mount"] {
            assert!(is_unit_name(good), "{good}");
        }
        for bad in ["", "shop", "--force.service", "/etc/x.service", "a b.service", "*.service", ".service"] {
            assert!(!is_unit_name(bad), "{bad}");
        }
    }

    #[test]
    fn names_in_lists_are_as_systemd_knows_them() {
        let block =
            "Id=a\\x2db.service\nNames=\"a\\\\x2db.service\" c.service\nLoadError=e \"Not \\\\ there\"\n";
        let read = read_properties(block);
        assert_eq!(read.get("Id"), r"a\x2db.service");
        assert_eq!(read.words("Names").collect::<Vec<_>>(), [r"a\x2db.service", "c.service"]);
        assert_eq!(read.get("LoadError"), r#"e "Not \\ there""#);
    }

    #[test]
    fn words_reach_the_command_as_they_are() {
        assert_eq!(quoted("/etc/a b.toml"), "\"/etc/a b.toml\"");
        assert_eq!(quoted("50%\"$x\\"), "\"50%%\\\"$$x\\\\\"");
        assert_eq!(word_list(&["a.service".into(), r"a\x2db.service".into()]), r"a.service a\\x2db.service");
    }

    #[test]
    fn a_socket_listens_on_paths_among_others() {
        let block = "Listen=/srv/a (b)/s.sock (Stream)\nListen=127.0.0.1:80 (Stream)\nListen=/run/f (FIFO)\nId=a.socket\n";
        let paths = ["/srv/a (b)/s.sock", "/run/f"].map(PathBuf::from).to_vec();
        assert_eq!(listening_in(block), Some(("a.socket".to_owned(), paths)));
    }

    #[test]
    fn the_version_is_the_first_number() {
        assert_eq!(version_in("systemd 252 (252.39-1~deb12u2)\n+PAM"), Some(252));
        assert_eq!(version_in("systemd 257.5-2\n"), Some(257));
        assert_eq!(version_in("nonsense"), None);
    }

    #[test]
    fn properties_are_read_as_systemctl_prints_them() {
        let properties = read_properties("ActiveState=active\nTriggeredBy=a.socket b.path\nExecStart=x=y\n");
        assert_eq!(properties.get("ActiveState"), "active");
        assert_eq!(properties.get("ExecStart"), "x=y");
        assert_eq!(properties.words("TriggeredBy").collect::<Vec<_>>(), ["a.socket", "b.path"]);
        assert_eq!(properties.get("NRestarts"), "");
    }

    #[test]
    fn of_a_failed_job_the_cause_is_told_and_not_where_to_read() {
        let said = "Job for a.service failed because the control process exited with error code.\n\
                    See \"systemctl status a.service\" and \"journalctl -xeu a.service\" for details.\n";
        let cause = "Job for a.service failed because the control process exited with error code";
        assert_eq!(reason(said).as_deref(), Some(cause));
        assert_eq!(reason("Failed to stop a.service: Unit a.service not loaded.\n"), None);
    }
}
