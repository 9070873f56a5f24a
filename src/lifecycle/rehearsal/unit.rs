//! The unit of a rehearsal, made of the application's own: what it says of its service stays, word by word, but for what
//! would reach out of the rehearsal (other units, files that systemd itself opens, the service's own directories).
//!
//! Pure: text in, text out. What the walls are is in `walls`.

use std::path::Path;

use super::text::{assignments, with_names};

/// A unit that cannot be rehearsed: the option that stands against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{unit}` cannot be rehearsed in a network of its own: `{option}` {why}")]
pub struct Unfit {
    pub unit: String,
    /// The option, with its value.
    pub option: String,
    /// Why it does not go together.
    pub why: &'static str,
}

/// What a unit's text is read with.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    pub unit: &'a str,
    /// `<root>/current`, which systemd itself still sees as it is.
    pub current: &'a Path,
    /// What stands there in the rehearsal.
    pub tree: &'a Path,
    /// What is `/run` in the rehearsal, as systemd itself sees it.
    pub run: &'a Path,
    /// The units that are rehearsed together, and what they are called in the rehearsal.
    pub together: &'a [(String, String)],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The lines of `[Service]` that stay.
    pub lines: Vec<String>,
    /// The lines of `[Unit]`: how it depends on the others of the rehearsal.
    pub relations: Vec<String>,
    /// The service's own directories, with what systemd calls them.
    pub directories: Vec<(Kind, String)>,
    /// What it says of `ProtectHome=`, where that hides more than a rehearsal does.
    pub hides_home: Option<String>,
    /// Whether systemd chooses the user.
    pub is_dynamic: bool,
    /// The user, if it names one.
    pub user: Option<String>,
    /// The group, if it names one.
    pub group: Option<String>,
    /// Whether it has a `/tmp` of its own.
    pub has_tmp: bool,
}

/// The kinds of directories that systemd keeps for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/run/…`
    Runtime,
    /// `/var/lib/…`
    State,
    /// `/var/cache/…`
    Cache,
    /// `/var/log/…`
    Logs,
    /// `/etc/…`
    Configuration,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Runtime, Self::State, Self::Cache, Self::Logs, Self::Configuration];

    /// The option's name: `StateDirectory`.
    fn option(self) -> &'static str {
        match self {
            Self::Runtime => "RuntimeDirectory",
            Self::State => "StateDirectory",
            Self::Cache => "CacheDirectory",
            Self::Logs => "LogsDirectory",
            Self::Configuration => "ConfigurationDirectory",
        }
    }

    /// The variable that tells the service: `STATE_DIRECTORY`.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Runtime => "RUNTIME_DIRECTORY",
            Self::State => "STATE_DIRECTORY",
            Self::Cache => "CACHE_DIRECTORY",
            Self::Logs => "LOGS_DIRECTORY",
            Self::Configuration => "CONFIGURATION_DIRECTORY",
        }
    }

    pub fn base(self) -> &'static Path {
        Path::new(match self {
            Self::Runtime => "/run",
            Self::State => "/var/lib",
            Self::Cache => "/var/cache",
            Self::Logs => "/var/log",
            Self::Configuration => "/etc",
        })
    }
}

/// How units depend on each other.
const RELATIONS: [&str; 6] = ["After", "Before", "Requires", "Requisite", "Wants", "BindsTo"];

/// What is said in a rehearsal's stead, or would act on the node.
const LEFT_OUT: [&str; 41] = [
    "Restart",
    "RestartSec",
    "RestartSteps",
    "RestartMaxDelaySec",
    "RestartMode",
    "StartLimitInterval",
    "StartLimitIntervalSec",
    "StartLimitBurst",
    "StartLimitAction",
    "FailureAction",
    "SuccessAction",
    "RebootArgument",
    "ExecReload",
    "ExecStop",
    "ExecStopPost",
    "KillMode",
    "KillSignal",
    "SendSIGKILL",
    "TimeoutStopSec",
    "RuntimeMaxSec",
    "OOMScoreAdjust",
    "OOMPolicy",
    "Slice",
    "Sockets",
    "NetworkNamespacePath",
    "PrivateNetwork",
    "PrivateIPC",
    "IPCNamespacePath",
    "ReadWritePaths",
    "ReadWriteDirectories",
    "ProtectSystem",
    "ProtectKernelTunables",
    "StandardOutput",
    "StandardError",
    "TTYPath",
    "TTYReset",
    "UtmpIdentifier",
    "LogNamespace",
    "RemoveIPC",
    "FileDescriptorStoreMax",
    "RuntimeDirectoryPreserve",
];

/// What cannot be had in a rehearsal.
const UNFIT: [(&str, &str); 10] = [
    ("RootDirectory", "has files of its own, not the node's"),
    ("RootImage", "has files of its own, not the node's"),
    ("MountImages", "brings mounts of its own"),
    ("ExtensionImages", "brings mounts of its own"),
    ("ExtensionDirectories", "brings mounts of its own"),
    ("BindPaths", "leads to places that are written for real"),
    ("OpenFile", "has systemd open files that are written for real"),
    ("BusName", "takes a name on the node's bus, which the running service has"),
    ("USBFunctionDescriptors", "is about a device"),
    ("TTYVHangup", "is about a terminal"),
];

/// Reads a unit's files, in the order in which systemd does, and keeps what a rehearsal of it is to say.
///
/// # Errors
/// When the unit says something that cannot be had in a rehearsal.
pub fn make(texts: &[String], frame: &Frame<'_>) -> Result<Made, Unfit> {
    let mut made = Made::default();
    for text in texts {
        for (section, key, value) in assignments(text) {
            let value = with_names(&value, frame.unit);
            if section == "Service" {
                take(&mut made, frame, &key, value)?;
            } else if section == "Unit" && RELATIONS.contains(&key.as_str()) {
                let others = frame
                    .together
                    .iter()
                    .filter(|(unit, _)| value.split_whitespace().any(|word| word == unit));
                made.relations.extend(others.map(|(_, name)| format!("{key}={name}")));
            }
        }
    }
    Ok(made)
}

fn take(made: &mut Made, frame: &Frame<'_>, key: &str, value: String) -> Result<(), Unfit> {
    let unfit = |why| Unfit { unit: frame.unit.to_owned(), option: format!("{key}={value}"), why };
    if let Some((_, why)) = UNFIT.iter().find(|(option, _)| *option == key) {
        return if value.is_empty() { Ok(()) } else { Err(unfit(why)) };
    }
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| key.starts_with(kind.option())) {
        if key == kind.option() {
            if value.is_empty() {
                made.directories.retain(|(other, _)| *other != kind);
            }
            // `name:link`: the link is a second name, which only systemd makes.
            let names = value.split_whitespace().map(|word| word.split(':').next().unwrap_or(word));
            made.directories.extend(names.map(|name| (kind, name.to_owned())));
        }
        return Ok(());
    }
    let is_true = |value: &str| ["1", "yes", "y", "true", "t", "on"].contains(&value.to_lowercase().as_str());
    let named = |value: &str| Some(value.to_owned()).filter(|name| !name.is_empty());
    match key {
        _ if LEFT_OUT.contains(&key) => return Ok(()),
        "Type" if value == "dbus" => {
            return Err(unfit("waits for a name on the node's bus, which the running service has"));
        }
        "StandardInput" if value == "socket" => return Err(unfit("serves one connection only")),
        "ProtectHome" => {
            made.hides_home = (is_true(&value) || value == "tmpfs").then_some(value);
            return Ok(());
        }
        "PIDFile" if !value.is_empty() => {
            let path = Path::new("/run").join(value.trim_start_matches("/var"));
            let Ok(below) = path.strip_prefix("/run") else {
                return Err(unfit("is not in `/run`, and the running service has it"));
            };
            made.lines.push(format!("PIDFile={}", frame.run.join(below).display()));
            return Ok(());
        }
        "TimeoutSec" => {
            made.lines.push(format!("TimeoutStartSec={value}"));
            return Ok(());
        }
        "DynamicUser" => made.is_dynamic = is_true(&value),
        "User" => made.user = named(&value),
        "Group" => made.group = named(&value),
        "PrivateTmp" => made.has_tmp = is_true(&value),
        // Read by systemd itself, which sees the pointer as it is.
        "EnvironmentFile" | "LoadCredential" | "LoadCredentialEncrypted" => {
            let current = frame.current.display().to_string();
            let value = value.replace(&format!("{current}/"), &format!("{}/", frame.tree.display()));
            made.lines.push(format!("{key}={value}"));
            return Ok(());
        }
        _ if key.starts_with("Exec") => {
            made.lines.push(format!("{key}={}", within_walls(&value)));
            return Ok(());
        }
        _ => {}
    }
    made.lines.push(format!("{key}={value}"));
    Ok(())
}

/// A command with `+` before it runs outside of all walls; with `!` it has the same rights, and stays within.
fn within_walls(value: &str) -> String {
    let begin = value.find(|c| !"@-:+!".contains(c)).unwrap_or(value.len());
    let (marks, command) = value.split_at(begin);
    if !marks.contains('+') {
        return value.to_owned();
    }
    let marks: String = marks.chars().filter(|mark| !"+!".contains(*mark)).collect();
    format!("{marks}!{command}")
}

/// A socket's lines: what it listens on moves into the rehearsal's network and its `/run`.
///
/// # Errors
/// When it listens on something else.
pub fn make_socket(texts: &[String], frame: &Frame<'_>) -> Result<Vec<String>, Unfit> {
    let mut lines = Vec::new();
    let mut has_name = false;
    for text in texts {
        for (section, key, value) in assignments(text) {
            if section != "Socket" {
                continue;
            }
            let value = with_names(&value, frame.unit);
            let unfit = |why| Unfit { unit: frame.unit.to_owned(), option: format!("{key}={value}"), why };
            match key.as_str() {
                "ListenStream" | "ListenDatagram" | "ListenSequentialPacket" if value.starts_with('/') => {
                    let below = value.strip_prefix("/run/").or_else(|| value.strip_prefix("/var/run/"));
                    let below = below.ok_or_else(|| unfit("is not in `/run`"))?;
                    lines.push(format!("{key}={}", frame.run.join(below).display()));
                }
                "ListenStream" | "ListenDatagram" | "ListenSequentialPacket" | "ListenNetlink" => {
                    lines.push(format!("{key}={value}"));
                }
                _ if key.starts_with("Listen") => return Err(unfit("is the running service's own")),
                "Accept" if ["yes", "true", "1", "on"].contains(&value.as_str()) => {
                    return Err(unfit("starts a service for each connection"));
                }
                "Service" | "Symlinks" | "BindToDevice" | "Slice" => {}
                _ if key.starts_with("Exec") => {}
                "FileDescriptorName" => {
                    has_name = !value.is_empty();
                    lines.push(format!("{key}={value}"));
                }
                _ => lines.push(format!("{key}={value}")),
            }
        }
    }
    if !has_name {
        // By default it is the unit's name, which services look for.
        lines.push(format!("FileDescriptorName={}", frame.unit));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(unit: &str) -> Frame<'_> {
        Frame {
            unit,
            current: Path::new("/srv/shop/current"),
            tree: Path::new("/srv/shop/releases/2"),
            run: Path::new("/run/cutover-rehearsal/shop/run"),
            together: &[],
        }
    }

    fn made(unit: &str, text: &str) -> Result<Made, Unfit> {
        make(&[text.to_owned()], &frame(unit))
    }

    #[test]
    fn what_the_service_is_stays_and_what_reaches_out_goes() {
        let text = "[Unit]\nOnFailure=page.service\nFailureAction=reboot\n[Service]\n# a comment\nType=notify\n\
            ExecStartPre=-+/bin/chown shop \\\n  # in between\n  /srv/shop/data\nExecStart=/srv/shop/current/bin/%p --name %n %%i\n\
            ExecStop=/bin/deregister\nRestart=always\nEnvironmentFile=-/srv/shop/current/etc/env\n\
            RuntimeDirectory=shop\nStateDirectory=shop shop/db:alias\nReadWritePaths=/srv\nPIDFile=shop.pid\nUser=shop\n\
            WatchdogSec=3\n[Install]\nWantedBy=multi-user.target\n";
        let made = made("shop.service", text).unwrap();
        let wanted = [
            "Type=notify",
            "ExecStartPre=-!/bin/chown shop  /srv/shop/data",
            "ExecStart=/srv/shop/current/bin/shop --name shop.service %%i",
            "EnvironmentFile=-/srv/shop/releases/2/etc/env",
            "PIDFile=/run/cutover-rehearsal/shop/run/shop.pid",
            "User=shop",
            "WatchdogSec=3",
        ];
        assert_eq!(made.lines, wanted);
        let directories: Vec<_> =
            made.directories.iter().map(|(kind, name)| (*kind, name.as_str())).collect();
        assert_eq!(directories, [(Kind::Runtime, "shop"), (Kind::State, "shop"), (Kind::State, "shop/db")]);
        assert_eq!(made.user.as_deref(), Some("shop"));
    }

    #[test]
    fn options_that_do_not_combine_are_named() {
        for (text, option) in [
            ("RootDirectory=/srv/shop/current", "RootDirectory=/srv/shop/current"),
            ("Type=dbus\nBusName=org.shop", "Type=dbus"),
            ("BindPaths=/a:/b", "BindPaths=/a:/b"),
            ("PIDFile=/srv/shop/pid", "PIDFile=/srv/shop/pid"),
            ("StandardInput=socket", "StandardInput=socket"),
        ] {
            let error = made("shop.service", &format!("[Service]\n{text}\n")).unwrap_err();
            assert_eq!((error.option.as_str(), error.unit.as_str()), (option, "shop.service"));
        }
        assert!(made("a.service", "[Service]\nBindPaths=\n").is_ok());
    }

    #[test]
    fn a_later_file_resets_what_an_earlier_one_said() {
        let texts = [
            "[Service]\nLogsDirectory=a\n".to_owned(),
            "[Service]\nLogsDirectory=\nLogsDirectory=b\n".to_owned(),
        ];
        assert_eq!(make(&texts, &frame("a.service")).unwrap().directories, [(Kind::Logs, "b".to_owned())]);
    }

    #[test]
    fn units_of_one_rehearsal_depend_on_each_other_only() {
        let together = [("db.service".to_owned(), "rehearsal:db.service".to_owned())];
        let text =
            "[Unit]\nAfter=network.target db.service\nRequires=db.service\nOnFailure=db.service\n".to_owned();
        let made = make(&[text], &Frame { together: &together, ..frame("web.service") }).unwrap();
        assert_eq!(made.relations, ["After=rehearsal:db.service", "Requires=rehearsal:db.service"]);
    }

    #[test]
    fn instances_keep_their_names() {
        let made =
            made("shop-web@eu\\x2d1.service", "[Service]\nExecStart=/bin/a %i %I %p %P %j %N %t\n").unwrap();
        let wanted = "ExecStart=/bin/a eu\\x2d1 eu-1 shop-web shop/web web shop-web@eu\\x2d1 %t";
        assert_eq!(made.lines, [wanted]);
    }

    #[test]
    fn a_socket_moves_into_the_rehearsal() {
        let text = "[Socket]\nListenStream=127.0.0.1:8080\nListenStream=/run/shop.sock\nSocketUser=shop\nSymlinks=/run/a\n";
        let lines = make_socket(&[text.to_owned()], &frame("shop.socket")).unwrap();
        let wanted = [
            "ListenStream=127.0.0.1:8080",
            "ListenStream=/run/cutover-rehearsal/shop/run/shop.sock",
            "SocketUser=shop",
            "FileDescriptorName=shop.socket",
        ];
        assert_eq!(lines, wanted);
        for text in ["ListenFIFO=/run/a", "ListenStream=/srv/a.sock", "Accept=yes"] {
            assert!(make_socket(&[format!("[Socket]\n{text}\n")], &frame("a.socket")).is_err(), "{text}");
        }
    }
}
