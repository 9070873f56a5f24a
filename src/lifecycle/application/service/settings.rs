//! The `[service]` table.

use serde::{Deserialize, Serialize};

use crate::sys::systemd::is_unit_name;
use crate::types::Span;

/// The `[service]` table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The systemd units that run the application, in the order in which they are named to systemd.
    pub units: Vec<String>,
    /// How they are brought to the new release.
    pub action: Action,
    /// How long they may take to stop; then they are killed.
    pub stop_timeout: Span,
    /// How long they may take until systemd calls them started.
    pub start_timeout: Span,
    /// Start and stop commands, where there are no units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Commands>,
    /// A command that has the release which serves finish its work before it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Words>,
    /// How long draining may take.
    pub drain_timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            action: Action::Restart,
            stop_timeout: Span::seconds(30),
            start_timeout: Span::seconds(90),
            command: None,
            drain: None,
            drain_timeout: Span::seconds(30),
        }
    }
}

/// How units are brought to the new release.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Restart when the pointer has moved; with `[[data]]`, stop before the snapshot and start after.
    #[default]
    Restart,
    /// Reload, or restart those that cannot reload; with `[[data]]` as `restart`.
    ReloadOrRestart,
    /// Stop before the pointer moves, start after.
    StopStart,
    None,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Starts the service and returns. It must do no harm to one that runs already.
    pub start: Words,
    /// Stops the service and returns when it has ended. It must succeed when nothing runs.
    pub stop: Words,
}

/// A command: one text for the shell, or a list of words.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum Words {
    /// Run by `sh -c`.
    Shell(String),
    /// Program and arguments. A relative program is one of the tree.
    Argv(Vec<String>),
}

/// A `[service]` table that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("`{0}` is not the name of a unit: it needs an ending such as `.service`")]
    Unit(String),
    #[error("a service has either `units` or `command`, not both")]
    UnitsAndCommand,
    #[error("the command `{0}` is empty")]
    Empty(&'static str),
    #[error("`{0}` must be longer than zero")]
    Zero(&'static str),
}

impl Settings {
    /// Whether these settings can work.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(unit) = self.units.iter().find(|unit| !is_unit_name(unit)) {
            return Err(Invalid::Unit(unit.clone()));
        }
        if self.command.is_some() && !self.units.is_empty() {
            return Err(Invalid::UnitsAndCommand);
        }
        for (name, span) in [("start_timeout", self.start_timeout), ("stop_timeout", self.stop_timeout)] {
            if span.0.is_zero() {
                return Err(Invalid::Zero(name));
            }
        }
        let commands = self.command.iter().flat_map(|both| [("start", &both.start), ("stop", &both.stop)]);
        for (name, words) in commands.chain(self.drain.iter().map(|words| ("drain", words))) {
            if words.argv().first().is_none_or(String::is_empty) {
                return Err(Invalid::Empty(name));
            }
        }
        Ok(())
    }
}

impl Words {
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Shell(text) if text.is_empty() => Vec::new(),
            Self::Shell(text) => vec!["sh".into(), "-c".into(), text.clone()],
            Self::Argv(words) => words.clone(),
        }
    }

    /// Whether the shell runs it.
    pub fn is_shell(&self) -> bool {
        matches!(self, Self::Shell(_))
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Shell(text) => text.clone(),
            Self::Argv(words) => words.join(" "),
        };
        formatter.write_str(&crate::types::escaped(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_documented() {
        let text = r#"
            units = ["shop.service"]
            action = "reload-or-restart"
            stop_timeout = "30s"
        "#;
        let settings: Settings = toml::from_str(text).unwrap();
        settings.validate().unwrap();
        assert_eq!(settings.action, Action::ReloadOrRestart);
        let text = "command = { start = \"bin/start &\", stop = [\"bin/stop\", \"now\"] }";
        let settings: Settings = toml::from_str(text).unwrap();
        settings.validate().unwrap();
        let commands = settings.command.unwrap();
        assert_eq!(commands.start.argv(), ["sh", "-c", "bin/start &"]);
        assert_eq!(commands.stop.argv(), ["bin/stop", "now"]);
    }

    #[test]
    fn tables_that_cannot_work_are_refused() {
        for text in [
            "units = [\"shop\"]",
            "units = [\"a.service\"]\ncommand = { start = \"a\", stop = \"b\" }",
            "command = { start = \"\", stop = \"b\" }",
            "command = { start = \"a\", stop = [] }",
            "drain = []",
        ] {
            assert!(toml::from_str::<Settings>(text).unwrap().validate().is_err(), "{text}");
        }
    }
}
