//! The `[health]` table: which checks there are, and how their answers make a verdict.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::types::{Span, is_port_good, path_of_url};

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

/// A web server answers a GET as expected. Redirections are answers, not followed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `http://` or `https://`; `http+unix://` for a Unix socket.
    pub url: String,
    #[serde(default = "ok")]
    pub status: u16,
    /// A text that the first 64 KiB of the answer must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The `Host` header, where the application answers to its own name only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The Unix socket that the server listens on; the URL then says host and path only.
    #[serde(default, alias = "socket", skip_serializing_if = "Option::is_none")]
    pub unix: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that are trusted, in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Our own certificate (PEM), and its private key if that is in the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The private key (PEM) of our certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Takes any certificate: for a server whose certificate nobody signed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

impl Http {
    /// The URL to ask, and the Unix socket if it is asked there; or what is wrong.
    pub(super) fn target(&self) -> Result<(String, Option<PathBuf>), String> {
        let wrong = |why: &str| Err(format!("`{}` {why}", self.url));
        let (url, socket) = match socket_of(&self.url) {
            Some((socket, path)) => (format!("http://localhost{path}"), Some(socket)),
            None => (self.url.clone(), self.unix.clone()),
        };
        let is_web = |scheme: &str| scheme == "http" || (scheme == "https" && socket.is_none());
        match url.parse::<ureq::http::Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => {
                if !uri.scheme_str().is_some_and(is_web) {
                    return wrong(
                        "is not a URL that begins with `http://` or `https://` (on a Unix socket `http://`)",
                    );
                }
                if !uri.authority().is_some_and(|authority| is_port_good(authority.as_str())) {
                    return wrong("has a port that cannot be: ports are numbers from 1 to 65535");
                }
            }
            _ => return wrong("is not a URL that begins with `http://` or `https://`"),
        }
        if socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
            return wrong("is asked on a Unix socket, whose path must be absolute");
        }
        Ok((url, socket))
    }

    /// All headers, the host among them.
    pub(super) fn all_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let host = self.host.iter().map(|host| ("host", host.as_str()));
        host.chain(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// What cannot work, in words.
    fn flaw(&self) -> Option<String> {
        if let Err(why) = self.target() {
            return Some(why);
        }
        if self.unix.is_some() && socket_of(&self.url).is_some() {
            return Some("the Unix socket stands in `url` and in `unix`".to_owned());
        }
        for (name, value) in self.all_headers() {
            let is_good = name.parse::<ureq::http::HeaderName>().is_ok()
                && value.parse::<ureq::http::HeaderValue>().is_ok();
            if !is_good {
                return Some(format!("`{}` is not a header", name.escape_debug()));
            }
        }
        let hosts = self.all_headers().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
        if hosts > 1 {
            return Some("`host` stands twice".to_owned());
        }
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        if let Some((name, _)) =
            files.iter().find(|(_, file)| file.as_ref().is_some_and(|file| !file.is_absolute()))
        {
            return Some(format!("`{name}` must be an absolute path"));
        }
        let is_tls = self.url.starts_with("https://");
        let wants_tls = self.insecure || files.iter().any(|(_, file)| file.is_some());
        if wants_tls && !is_tls {
            return Some(
                "`ca`, `cert`, `key` and `insecure` need a URL that begins with `https://`".to_owned(),
            );
        }
        if self.key.is_some() && self.cert.is_none() {
            return Some("`key` needs `cert`".to_owned());
        }
        (self.insecure && self.ca.is_some())
            .then(|| "`insecure` takes any certificate: `ca` has no use".to_owned())
    }
}

/// The socket and the path of a URL such as `http+unix://%2Frun%2Fapp.sock/up`, `http+unix:///run/app.sock/up` or
/// `http://unix:/run/app.sock:/up`.
fn socket_of(url: &str) -> Option<(PathBuf, String)> {
    let rest = ["http://unix:", "http+unix://", "unix://", "unix:"]
        .iter()
        .find_map(|begin| url.strip_prefix(begin))?;
    let or_root = |path: &str| if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if let Some((socket, path)) = rest.split_once(":/") {
        return Some((socket.into(), format!("/{path}")));
    }
    if !rest.starts_with('/') {
        let (socket, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        return Some((path_of_url(socket), or_root(path)));
    }
    // The socket's name ends where the path begins: people call it so.
    let end =
        [".sock/", ".socket/"].iter().find_map(|ending| rest.find(ending).map(|at| at + ending.len() - 1));
    let (socket, path) = rest.split_at(end.unwrap_or(rest.len()));
    Some((socket.into(), or_root(path)))
}

fn ok() -> u16 {
    200
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
            Kind::Systemd(systemd) => {
                match systemd.units.iter().find(|unit| !crate::sys::systemd::is_unit_name(unit)) {
                    Some(unit) => Err(Invalid::Unit { name: name(), unit: unit.clone() }),
                    None => Ok(()),
                }
            }
            Kind::Tcp(_) | Kind::Exec(_) | Kind::File(_) => Ok(()),
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
    fn sockets_are_named_as_people_name_them() {
        let split = |url: &str| socket_of(url).map(|(socket, path)| (socket.display().to_string(), path));
        let wanted = |path: &str| Some(("/run/a.sock".to_owned(), path.to_owned()));
        assert_eq!(split("http+unix:///run/a.sock/up"), wanted("/up"));
        assert_eq!(split("http+unix://%2Frun%2Fa.sock/up"), wanted("/up"));
        assert_eq!(split("http://unix:/run/a.sock:/up"), wanted("/up"));
        assert_eq!(split("unix:///run/a.sock"), wanted("/"));
        assert_eq!(split("http://unix/up"), None);
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
            "[[check]]\nname = \"a\"\nsystemd = { units = [\"--now\"] }",
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            assert!(settings.validate().is_err(), "{text}");
        }
        assert!(toml::from_str::<Settings>("fail_treshold = 1").is_err());
    }
}
