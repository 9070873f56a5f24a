//! The `[health]` table: which checks there are, and how their answers make a verdict.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use super::http::Http;
use crate::types::Span;

/// How long one check may take when nothing else is said.
pub const TIMEOUT_DEFAULT: Span = Span::seconds(5);

/// How long a release must be well by its checks when nothing else is said.
const MIN_HEALTHY: Span = Span::seconds(30);

/// The `[health]` table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What to do about checks that fail before the switch already.
    pub baseline: Baseline,
    /// How long all required checks, and the units, must be well without a break; see [`Settings::min_healthy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<Span>,
    /// When they must have done so, counted from the start of the new release.
    pub deadline: Span,
    /// How often checks are asked, where they do not say themselves.
    pub interval: Span,
    /// How often `http` and `tcp` checks are asked around a switch, only to measure how long nobody was answered; not at
    /// all with "0s".
    pub pulse: Span,
    /// How many failures in a row of a required check end the trial.
    pub fail_threshold: u32,
    /// How long a check that has never passed may answer "not yet" before that counts as a failure.
    pub startup: Span,
    /// Whether every process of the units must run from the new tree.
    pub process_check: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub check: Vec<Check>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            baseline: Baseline::Block,
            min_healthy: None,
            deadline: Span::seconds(300),
            interval: Span::seconds(2),
            pulse: Span(std::time::Duration::from_millis(50)),
            fail_threshold: 3,
            startup: Span::seconds(30),
            process_check: true,
            check: Vec::new(),
        }
    }
}

/// What to do about checks that fail before the switch already.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    #[default]
    Block,
    /// Switch, and leave these checks out of the verdict.
    Ignore,
    Off,
}

/// One `[[health.check]]`: a name, and exactly one of the kinds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Names it in messages and in the status.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
    /// How long one try may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How often it is asked, if not as often as the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// Whether the verdict depends on it; else it is only shown.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    pub address: String,
}

impl Tcp {
    /// The host, without the brackets of an IPv6 address, and the port.
    pub(super) fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let plain = match host.strip_prefix('[') {
            Some(inner) => {
                inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?
            }
            None => host,
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._%".contains(&byte) || !byte.is_ascii();
        let is_host = !plain.is_empty() && (host.starts_with('[') || plain.bytes().all(is_name));
        is_host.then_some((plain, port))
    }
}

/// A command ends with status 0 (healthy), 75 (not yet) or another (sick).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Program and arguments. A relative program is one of the tree; a bare name that the tree does not have is looked
    /// for in `PATH`. It runs in the tree.
    pub command: Vec<String>,
    /// As whom it runs; as cutover itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables in addition to `PATH`, `LANG` and `CUTOVER_*`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The same as the check's own `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// Units are active, and do not restart again and again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    pub units: Vec<String>,
}

/// A file is there, and as expected.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative ones are in the tree.
    pub path: PathBuf,
    /// It must have been changed within the last so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_than: Option<Span>,
    /// Its first 16 MiB must contain this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// The one kind of a check.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    Http(&'a Http),
    Tcp(&'a Tcp),
    Exec(&'a Exec),
    Systemd(&'a Systemd),
    File(&'a File),
}

/// A `[health]` table that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("check `{0}` must have exactly one of http, tcp, exec, systemd and file")]
    Kind(String),
    /// A name that another one has, or that is empty, or that is ours.
    #[error("`{0}` cannot name a check: names must be different, not empty, and not `units` or `processes`")]
    Name(String),
    #[error("check `{0}` has an empty command")]
    Command(String),
    #[error("check `{name}`: {why}")]
    Http { name: String, why: String },
    #[error("check `{name}`: `{address}` is not a host and a port, such as `127.0.0.1:8080` or `[::1]:8080`")]
    Address { name: String, address: String },
    #[error("check `{name}`: `{unit}` is not the name of a unit")]
    Unit { name: String, unit: String },
    /// It would always pass.
    #[error("check `{0}` names no unit")]
    NoUnits(String),
    #[error("check `{name}`: `{variable}` cannot name a variable")]
    Variable { name: String, variable: String },
    #[error("`{0}` must be longer than zero")]
    Zero(&'static str),
    #[error("`fail_threshold` must be at least 1")]
    Threshold,
    /// No check passes in no time.
    #[error("`timeout` of check `{0}` must be longer than zero")]
    Timeout(String),
    /// A check that is asked once at most.
    #[error("`interval` must be shorter than `deadline` ({0}), also that of a check")]
    Interval(Span),
    /// No time to become healthy.
    #[error("`min_healthy` ({min_healthy}) must be shorter than `deadline` ({deadline})")]
    Deadline { min_healthy: Span, deadline: Span },
}

impl Settings {
    /// How long all that is watched must be well. Where nothing is said and no check is configured, the first look at which the
    /// units are well is enough.
    pub fn min_healthy(&self) -> Span {
        let unsaid = if self.check.is_empty() { Span::seconds(0) } else { MIN_HEALTHY };
        self.min_healthy.unwrap_or(unsaid)
    }

    /// Whether the verdict depends on the check of this name; on those that are not configured (units, processes) it does.
    pub fn is_required(&self, name: &str) -> bool {
        self.check.iter().all(|check| check.name != name || check.required)
    }

    /// The checks that need a file which came with the release in `newer`: the one in `older` cannot be asked so.
    pub fn not_yet_in(&self, older: &Path, newer: &Path) -> Vec<String> {
        let is_new =
            |file: &Path| file.is_relative() && newer.join(file).is_file() && !older.join(file).exists();
        let needs = |check: &&Check| {
            let mut words = check.exec.iter().flat_map(|exec| &exec.command).map(Path::new);
            words.any(is_new) || check.file.as_ref().is_some_and(|file| is_new(&file.path))
        };
        self.check.iter().filter(needs).map(|check| check.name.clone()).collect()
    }

    /// Whether these settings can work.
    pub fn validate(&self) -> Result<(), Invalid> {
        for (name, span) in [("deadline", self.deadline), ("interval", self.interval)] {
            if span.0.is_zero() {
                return Err(Invalid::Zero(name));
            }
        }
        if self.fail_threshold == 0 {
            return Err(Invalid::Threshold);
        }
        if self.interval >= self.deadline {
            return Err(Invalid::Interval(self.deadline));
        }
        if self.min_healthy() >= self.deadline {
            return Err(Invalid::Deadline { min_healthy: self.min_healthy(), deadline: self.deadline });
        }
        for (position, check) in self.check.iter().enumerate() {
            let name = &check.name;
            let is_taken = self.check.iter().take(position).any(|other| other.name == *name)
                || [super::UNITS, super::PROCESSES, ""].contains(&name.as_str());
            if is_taken {
                return Err(Invalid::Name(name.clone()));
            }
            check.validate()?;
            if check.interval.is_some_and(|interval| check.required && interval >= self.deadline) {
                return Err(Invalid::Interval(self.deadline));
            }
        }
        Ok(())
    }
}

impl Check {
    /// Its kind, if it has exactly one.
    pub fn kind(&self) -> Result<Kind<'_>, Invalid> {
        let kinds = [
            self.http.as_ref().map(Kind::Http),
            self.tcp.as_ref().map(Kind::Tcp),
            self.exec.as_ref().map(Kind::Exec),
            self.systemd.as_ref().map(Kind::Systemd),
            self.file.as_ref().map(Kind::File),
        ];
        let mut kinds = kinds.into_iter().flatten();
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(kind),
            _ => Err(Invalid::Kind(self.name.clone())),
        }
    }

    /// How long one try may take.
    pub fn limit(&self) -> Span {
        self.timeout.or_else(|| self.exec.as_ref()?.timeout).unwrap_or(TIMEOUT_DEFAULT)
    }

    fn validate(&self) -> Result<(), Invalid> {
        let name = || self.name.clone();
        if self.limit().0.is_zero() {
            return Err(Invalid::Timeout(name()));
        }
        match self.kind()? {
            Kind::Http(http) => match http.flaw() {
                Some(why) => Err(Invalid::Http { name: name(), why }),
                None => Ok(()),
            },
            Kind::Tcp(tcp) if tcp.host_and_port().is_none() => {
                Err(Invalid::Address { name: name(), address: tcp.address.clone() })
            }
            Kind::Exec(exec) if exec.command.first().is_none_or(String::is_empty) => {
                Err(Invalid::Command(name()))
            }
            Kind::Exec(exec) => match exec.env.keys().find(|name| name.is_empty() || name.contains('=')) {
                Some(variable) => {
                    Err(Invalid::Variable { name: name(), variable: variable.escape_debug().to_string() })
                }
                None => Ok(()),
            },
            Kind::Systemd(systemd) if systemd.units.is_empty() => Err(Invalid::NoUnits(name())),
            Kind::Systemd(systemd) => {
                match systemd.units.iter().find(|unit| !crate::sys::systemd::is_unit_name(unit)) {
                    Some(unit) => Err(Invalid::Unit { name: name(), unit: unit.clone() }),
                    None => Ok(()),
                }
            }
            Kind::Tcp(_) | Kind::File(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_documented() {
        let text = r#"
            min_healthy = "10s"
            [[check]]
            name = "http"
            http = { url = "http://127.0.0.1:8080/up", status = 200 }
            [[check]]
            name = "smoke"
            exec = { command = ["bin/smoke"], timeout = "20s" }
            required = false
        "#;
        let settings: Settings = toml::from_str(text).unwrap();
        settings.validate().unwrap();
        assert_eq!(settings.check[1].limit(), Span::seconds(20));
        assert!(settings.check[0].required && !settings.check[1].required);
        assert_eq!(toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(), settings);
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
    }

    #[test]
    fn tables_that_cannot_work_are_refused() {
        for text in [
            "deadline = \"10s\"\n[[check]]\nname = \"a\"\nfile = { path = \"/f\" }",
            "min_healthy = \"10s\"\ndeadline = \"10s\"",
            "fail_threshold = 0",
            "interval = \"0s\"",
            "[[check]]\nname = \"a\"",
            "[[check]]\nname = \"units\"\ntcp = { address = \"a:1\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"a:1\" }\nhttp = { url = \"http://a\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"ftp://a\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://a:99999/\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://[::1]:0\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://a:/\" }",
            "interval = \"10min\"",
            "[[check]]\nname = \"a\"\ninterval = \"10min\"\ntcp = { address = \"a:1\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://a\", headers = { \"a b\" = \"c\" } }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://a\", host = \"b\", headers = { Host = \"c\" } }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://a\", insecure = true }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"https://a\", ca = \"ca.pem\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"https://a\", unix = \"/run/a\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"http://a\", unix = \"a\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"a\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"a:http\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"a:0\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \":80\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"::1:80\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"http://a:80\" }",
            "[[check]]\nname = \"a\"\nexec = { command = [] }",
            "[[check]]\nname = \"a\"\nexec = { command = [\"a\"], env = { \"A=B\" = \"c\" } }",
            "[[check]]\nname = \"a\"\nexec = { command = [\"a\"], env = { \"\" = \"c\" } }",
            "[[check]]\nname = \"a\"\nsystemd = { units = [\"--now\"] }",
            "[[check]]\nname = \"a\"\nsystemd = { units = [] }",
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            assert!(settings.validate().is_err(), "{text}");
        }
        assert!(toml::from_str::<Settings>("fail_treshold = 1").is_err());
    }
}
