//! The `[rehearsal]` table: whether and how a release runs beside the old one before anything is stopped.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::health::{self, Check};
use crate::lifecycle::application::service::Words;
use crate::sys::systemd::is_unit_name;
use crate::types::{Size, Span};

/// The `[rehearsal]` table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether, and on which network.
    pub network: Network,
    /// `private`: the service units that are rehearsed; absent: those of the application.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    /// `private`: what is started in place of units; it must stay in the foreground.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Words>,
    /// `host`: the template unit of which an instance is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// `host`: whether the instance serves on until the application's units run the new release.
    pub promote: bool,
    /// Health checks that are not asked in a rehearsal, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// When the checks must have passed; absent: as in `[health]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// How long they must pass without a break; absent: as in `[health]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<Span>,
    /// The most memory that it may use; absent: half of what is available then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// The most processor time, in percent of one processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Directories that are empty and may be written; all else but data is read-only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scratch: Vec<PathBuf>,
    /// Ports that the release may listen on; empty: any that is free on this node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// `private`: ways out of its network, none by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outgoing: Vec<Outgoing>,
    /// Checks of the rehearsal alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub check: Vec<Check>,
}

/// Where a release is rehearsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    #[default]
    Off,
    /// In a network of its own, with the same ports.
    Private,
    /// On the host's network, with other ports.
    Host,
}

/// A way out of the private network: connections to `listen` in there arrive at `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outgoing {
    /// An address and port of the loopback device in there.
    pub listen: String,
    /// A host and port, as this node reaches them.
    pub to: String,
}

/// A `[rehearsal]` table that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("`rehearsal.units`: `{0}` is not a service unit")]
    Unit(String),
    #[error("`rehearsal.unit` must name a template such as `shop-rehearsal@.service`, not `{0}`")]
    Template(String),
    /// A key of the other kind.
    #[error("`rehearsal.{key}` goes with `network = \"{network}\"`")]
    Other { key: &'static str, network: &'static str },
    #[error("`rehearsal` has either `units` or `command`, not both")]
    UnitsAndCommand,
    /// The application's checks would ask the release that serves.
    #[error(
        "`rehearsal` on the host's network needs a `unit`, and checks of its own: the application's would ask the release that serves"
    )]
    HostNeeds,
    /// Somebody would write to data while they are copied.
    #[error("`rehearsal.promote` does not go with `[[data]]`: they are copied while nobody writes")]
    PromoteAndData,
    #[error("`rehearsal.skip`: there is no check `{0}`")]
    Skip(String),
    #[error("`rehearsal.scratch`: `{}` is not an absolute path", .0.display())]
    Scratch(PathBuf),
    /// Not an address of the loopback device.
    #[error("`rehearsal.outgoing`: `{0}` is not an address such as `127.0.0.1:5432`")]
    Outgoing(String),
    /// A check that cannot work.
    #[error("`rehearsal`: {0}")]
    Check(#[from] health::Invalid),
}

impl Settings {
    pub fn is_on(&self) -> bool {
        self.network != Network::Off
    }

    /// How a rehearsed release is seen to be well, given how the application is.
    pub fn health(&self, application: &health::Settings) -> health::Settings {
        let mut health = application.clone();
        match self.network {
            Network::Host => health.check.clear(),
            Network::Off | Network::Private => {
                health.check.retain(|check| !self.skip.contains(&check.name));
            }
        }
        health.check.extend(self.check.iter().cloned());
        health.min_healthy = self.min_healthy.or(health.min_healthy);
        health.deadline = self.deadline.unwrap_or(health.deadline);
        health
    }

    /// Whether these settings can work, for an application with such checks.
    pub fn validate(&self, application: &health::Settings, has_data: bool) -> Result<(), Invalid> {
        let is_service = |unit: &String| is_unit_name(unit) && unit.ends_with(".service");
        if let Some(unit) = self.units.iter().find(|unit| !is_service(unit)) {
            return Err(Invalid::Unit(unit.clone()));
        }
        if let Some(unit) = self.unit.as_ref().filter(|unit| !is_service(unit) || !unit.contains("@.")) {
            return Err(Invalid::Template(unit.clone()));
        }
        if self.command.is_some() && !self.units.is_empty() {
            return Err(Invalid::UnitsAndCommand);
        }
        let private = [
            ("units", !self.units.is_empty()),
            ("command", self.command.is_some()),
            ("outgoing", !self.outgoing.is_empty()),
        ];
        let host = [("unit", self.unit.is_some()), ("promote", self.promote)];
        let (strange, network) = match self.network {
            Network::Off => (None, ""),
            Network::Private => (host.iter().find(|(_, is_set)| *is_set), "host"),
            Network::Host => (private.iter().find(|(_, is_set)| *is_set), "private"),
        };
        if let Some((key, _)) = strange {
            return Err(Invalid::Other { key, network });
        }
        if self.network == Network::Host && (self.unit.is_none() || self.check.is_empty()) {
            return Err(Invalid::HostNeeds);
        }
        if self.promote && has_data {
            return Err(Invalid::PromoteAndData);
        }
        let is_known = |name: &&String| application.check.iter().any(|check| check.name == **name);
        if let Some(name) = self.skip.iter().find(|name| !is_known(name)) {
            return Err(Invalid::Skip(name.clone()));
        }
        if let Some(path) = self.scratch.iter().find(|path| !path.is_absolute()) {
            return Err(Invalid::Scratch(path.clone()));
        }
        for way in &self.outgoing {
            let is_loopback = way.listen.parse().is_ok_and(|at: std::net::SocketAddr| at.ip().is_loopback());
            if !is_loopback {
                return Err(Invalid::Outgoing(way.listen.clone()));
            }
            let port = way.to.rsplit_once(':').and_then(|(host, port)| {
                let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '%');
                port.parse::<u16>().ok().filter(|_| is_host)
            });
            if port.is_none() {
                return Err(Invalid::Outgoing(way.to.clone()));
            }
        }
        if self.is_on() {
            self.health(application).validate()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: &str = "[[check]]\nname = \"web\"\ntcp = { address = \"a:1\" }\n
        [[check]]\nname = \"mail\"\ntcp = { address = \"b:25\" }";

    fn validated(text: &str) -> Result<Settings, Invalid> {
        let settings: Settings = toml::from_str(text).unwrap();
        settings.validate(&toml::from_str(HEALTH).unwrap(), true)?;
        Ok(settings)
    }

    #[test]
    fn the_table_is_read_as_documented() {
        let settings = validated(
            "network = \"private\"\nskip = [\"mail\"]\ndeadline = \"1min\"\nmemory = \"512MiB\"\ncpu_percent = 50
             outgoing = [{ listen = \"127.0.0.1:5432\", to = \"db:5432\" }]\n
             [[check]]\nname = \"data\"\nexec = { command = [\"bin/look\"] }",
        )
        .unwrap();
        let health = settings.health(&toml::from_str(HEALTH).unwrap());
        assert_eq!(health.check.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["web", "data"]);
        assert_eq!(health.deadline, Span::seconds(60));
        assert!(!Settings::default().is_on());
        let host = "network = \"host\"\nunit = \"shop@.service\"\n[[check]]\nname = \"a\"\ntcp = { address = \"a:2\" }";
        let health = validated(host).unwrap().health(&toml::from_str(HEALTH).unwrap());
        assert_eq!(health.check.len(), 1, "the application's own checks would ask the old release");
    }

    #[test]
    fn tables_that_cannot_work_are_refused() {
        for text in [
            "network = \"private\"\nunits = [\"shop.socket\"]",
            "network = \"private\"\nunits = [\"a.service\"]\ncommand = \"x\"",
            "network = \"private\"\nunit = \"shop@.service\"",
            "network = \"host\"",
            "network = \"host\"\nunit = \"shop.service\"",
            "network = \"host\"\nunit = \"shop@.service\"",
            "network = \"private\"\nskip = [\"no\"]",
            "network = \"private\"\nscratch = [\"tmp\"]",
            "network = \"private\"\nmin_healthy = \"10min\"",
            "network = \"private\"\noutgoing = [{ listen = \"0.0.0.0:1\", to = \"a:1\" }]",
            "network = \"private\"\noutgoing = [{ listen = \"127.0.0.1:1\", to = \"a\" }]",
            "network = \"host\"\nunit = \"a@.service\"\npromote = true\n[[check]]\nname = \"a\"\ntcp = { address = \"a:2\" }",
        ] {
            assert!(validated(text).is_err(), "{text}");
        }
    }
}
