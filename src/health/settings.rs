//! The `[health]` table: which checks there are, and how their answers make a verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::Span;

/// How long one check may take when nothing else is said.
pub const TIMEOUT_DEFAULT: Span = Span::seconds(5);

/// The `[health]` table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What to do about checks that fail before the switch already.
    pub baseline: Baseline,
    /// How long all required checks must pass without a break.
    pub min_healthy: Span,
    /// When they must have done so, counted from the start of the new release.
    pub deadline: Span,
    /// How often checks are asked, where they do not say themselves.
    pub interval: Span,
    /// How many failures in a row of a required check end the trial.
    pub fail_threshold: u32,
    /// How long a check that has never passed may answer "not yet" before that counts as a failure.
    pub startup: Span,
    /// Whether every process of the units must run from the new tree.
    pub process_check: bool,
    /// The checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub check: Vec<Check>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            baseline: Baseline::Block,
            min_healthy: Span::seconds(30),
            deadline: Span::seconds(300),
            interval: Span::seconds(2),
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
    /// Don't switch.
    #[default]
    Block,
    /// Switch, and leave these checks out of the verdict.
    Ignore,
    /// Don't look.
    Off,
}

/// One `[[health.check]]`: a name, and exactly one of the kinds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Names it in messages and in the status.
    pub name: String,
    /// Asks a web server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// Runs a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Asks systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Looks at a file.
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

/// A web server answers a GET as expected. Redirections are answers, not followed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `http://` or `https://`.
    pub url: String,
    /// The status expected.
    #[serde(default = "ok")]
    pub status: u16,
    /// A text that the first 64 KiB of the answer must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

fn ok() -> u16 {
    200
}

/// Something accepts connections.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Host and port.
    pub address: String,
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
    /// Which ones.
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
    /// Its first 64 KiB must contain this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// The one kind of a check.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// See [`Http`].
    Http(&'a Http),
    /// See [`Tcp`].
    Tcp(&'a Tcp),
    /// See [`Exec`].
    Exec(&'a Exec),
    /// See [`Systemd`].
    Systemd(&'a Systemd),
    /// See [`File`].
    File(&'a File),
}

/// A `[health]` table that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// None or several kinds.
    #[error("check `{0}` must have exactly one of http, tcp, exec, systemd and file")]
    Kind(String),
    /// A name that another one has, or that is empty, or that is ours.
    #[error("`{0}` cannot name a check: names must be different, not empty, and not `units` or `processes`")]
    Name(String),
    /// No program.
    #[error("check `{0}` has an empty command")]
    Command(String),
    /// Not a URL for us.
    #[error("check `{name}`: `{url}` is not a URL that begins with `http://` or `https://`")]
    Url {
        /// The check.
        name: String,
        /// What it says.
        url: String,
    },
    /// Not a unit.
    #[error("check `{name}`: `{unit}` is not the name of a unit")]
    Unit {
        /// The check.
        name: String,
        /// What it says.
        unit: String,
    },
    /// A span of nothing.
    #[error("`{0}` must be longer than nothing")]
    Zero(&'static str),
    /// No time to become healthy.
    #[error("`min_healthy` ({min_healthy}) must be shorter than `deadline` ({deadline})")]
    Deadline {
        /// The one.
        min_healthy: Span,
        /// The other.
        deadline: Span,
    },
}

impl Settings {
    /// Whether the verdict depends on the check of this name; on those that are not configured (units, processes) it does.
    pub fn is_required(&self, name: &str) -> bool {
        self.check.iter().all(|check| check.name != name || check.required)
    }

    /// Whether these settings can work.
    pub fn validate(&self) -> Result<(), Invalid> {
        for (name, span) in [("deadline", self.deadline), ("interval", self.interval)] {
            if span.0.is_zero() {
                return Err(Invalid::Zero(name));
            }
        }
        if self.fail_threshold == 0 {
            return Err(Invalid::Zero("fail_threshold"));
        }
        if self.min_healthy >= self.deadline {
            return Err(Invalid::Deadline { min_healthy: self.min_healthy, deadline: self.deadline });
        }
        for (position, check) in self.check.iter().enumerate() {
            let name = &check.name;
            let is_taken = self.check.iter().take(position).any(|other| other.name == *name)
                || [super::UNITS, super::PROCESSES, ""].contains(&name.as_str());
            if is_taken {
                return Err(Invalid::Name(name.clone()));
            }
            check.validate()?;
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
        match self.kind()? {
            Kind::Http(http) if !["http://", "https://"].iter().any(|begin| http.url.starts_with(begin)) => {
                Err(Invalid::Url { name: name(), url: http.url.clone() })
            }
            Kind::Exec(exec) if exec.command.first().is_none_or(String::is_empty) => {
                Err(Invalid::Command(name()))
            }
            Kind::Systemd(systemd) => {
                match systemd.units.iter().find(|unit| !crate::sys::systemd::is_unit_name(unit)) {
                    Some(unit) => Err(Invalid::Unit { name: name(), unit: unit.clone() }),
                    None => Ok(()),
                }
            }
            Kind::Http(_) | Kind::Tcp(_) | Kind::Exec(_) | Kind::File(_) => Ok(()),
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
            "deadline = \"10s\"",
            "fail_threshold = 0",
            "interval = \"0s\"",
            "[[check]]\nname = \"a\"",
            "[[check]]\nname = \"units\"\ntcp = { address = \"a:1\" }",
            "[[check]]\nname = \"a\"\ntcp = { address = \"a:1\" }\nhttp = { url = \"http://a\" }",
            "[[check]]\nname = \"a\"\nhttp = { url = \"ftp://a\" }",
            "[[check]]\nname = \"a\"\nexec = { command = [] }",
            "[[check]]\nname = \"a\"\nsystemd = { units = [\"--now\"] }",
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            assert!(settings.validate().is_err(), "{text}");
        }
        assert!(toml::from_str::<Settings>("fail_treshold = 1").is_err());
    }
}
