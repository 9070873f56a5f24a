//! Units of systemd, recognised by the properties that `systemctl show` prints, never by texts for people.
//!
//! ```text
//! look(names)    each unit that is named, in the same order
//! family(names)  these, and what runs on their behalf: instances of templates, services that a socket, timer or path
//!                starts, parts of a target
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::systemd::{self, Error, Properties};

/// What is asked of each unit.
const PROPERTIES: [&str; 33] = [
    "Id",
    "Names",
    "LoadState",
    "LoadError",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "Type",
    "Job",
    "NRestarts",
    "ControlGroup",
    "InvocationID",
    "Triggers",
    "TriggeredBy",
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "ConsistsOf",
    "PropagatesStopTo",
    "CanReload",
    "Accept",
    "InactiveExitTimestampMonotonic",
    "MainPID",
    "RemainAfterExit",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "CanStart",
    "CanStop",
    "Wants",
    "Requires",
    "BindsTo",
    "Upholds",
];

/// The kinds of units that an application can consist of, by the ending of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Service,
    /// Starts a service when somebody connects.
    Socket,
    /// Starts a service at a time.
    Timer,
    /// Starts a service when a file changes.
    Path,
    Target,
    /// A control group that holds units.
    Slice,
    Mount,
    /// A file system that is mounted when it is used.
    Automount,
    Swap,
}

impl Kind {
    const ALL: [(Self, &str); 9] = [
        (Self::Service, ".service"),
        (Self::Socket, ".socket"),
        (Self::Timer, ".timer"),
        (Self::Path, ".path"),
        (Self::Target, ".target"),
        (Self::Slice, ".slice"),
        (Self::Mount, ".mount"),
        (Self::Automount, ".automount"),
        (Self::Swap, ".swap"),
    ];

    /// The kind of a unit of this name; `None` for names that no unit has, or that cutover has nothing to do with.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, ending)| name.ends_with(ending)).map(|(kind, _)| kind)
    }

    /// Whether it is stopped and started with a release. The others hold nothing of a release: they stay up over a switch,
    /// so that connections wait, times are kept and file systems stay mounted.
    pub fn is_restarted(self) -> bool {
        match self {
            Self::Service | Self::Target | Self::Slice => true,
            Self::Socket | Self::Timer | Self::Path | Self::Mount | Self::Automount | Self::Swap => false,
        }
    }
}

/// What systemd has read of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    Loaded,
    /// An admin has forbidden to start it.
    Masked,
    /// There is no such unit.
    Missing,
    /// It has a file that systemd does not take; why.
    Broken(String),
}

/// One unit, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The name by which it was asked for; of one that was found, its own.
    pub name: String,
    pub kind: Kind,
    /// Whether it can be started.
    pub load: Load,
    properties: Properties,
}

impl Unit {
    /// From what systemd says; `None` for kinds that cutover has nothing to do with.
    pub fn new(name: &str, properties: Properties) -> Option<Self> {
        let load = match properties.get("LoadState") {
            "masked" => Load::Masked,
            "not-found" => Load::Missing,
            "loaded" | "merged" | "" => Load::Loaded,
            state => Load::Broken(format!("{state}: {}", properties.get("LoadError"))),
        };
        Some(Self { name: name.to_owned(), kind: Kind::of(name)?, load, properties })
    }

    /// A property as systemd prints it.
    pub fn get(&self, property: &str) -> &str {
        self.properties.get(property)
    }

    /// Whether it does anything: also while it starts or stops.
    pub fn is_up(&self) -> bool {
        !["inactive", "failed", ""].contains(&self.get("ActiveState"))
    }

    pub fn has_failed(&self) -> bool {
        self.get("ActiveState") == "failed"
    }

    /// Whether it runs to an end, and may have ended well.
    pub fn is_oneshot(&self) -> bool {
        self.get("Type") == "oneshot"
    }

    /// Whether it is one connection's service: systemd makes it and nobody can start it again.
    pub fn is_connection(&self) -> bool {
        instance_of(&self.name).is_some()
            && self.properties.words("TriggeredBy").any(|unit| unit.ends_with(".socket"))
    }

    /// Whether each connection gets a service of its own.
    pub fn accepts(&self) -> bool {
        self.get("Accept") == "yes"
    }

    /// Whether it was made by a program, and is gone when it stops.
    pub fn is_transient(&self) -> bool {
        self.get("UnitFileState") == "transient"
    }

    /// Whether systemd has work with it that is not done.
    pub fn has_job(&self) -> bool {
        !["", "0"].contains(&self.get("Job"))
    }

    /// Units that start this one.
    pub fn triggers(&self) -> impl Iterator<Item = &str> {
        self.properties.words("TriggeredBy")
    }

    /// How often systemd has restarted it by itself.
    pub fn restarts(&self) -> u64 {
        self.get("NRestarts").parse().unwrap_or(0)
    }

    /// When it began to start, by the monotonic clock.
    pub fn began(&self) -> Duration {
        Duration::from_micros(self.get("InactiveExitTimestampMonotonic").parse().unwrap_or(0))
    }

    /// Units that systemd stops when it stops this one.
    pub fn dependants(&self) -> impl Iterator<Item = &str> {
        ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"]
            .into_iter()
            .flat_map(|property| self.properties.words(property))
    }

    /// Units that systemd starts with this one, or when this one says so.
    pub fn brings(&self) -> impl Iterator<Item = &str> {
        ["Wants", "Requires", "BindsTo", "Upholds", "Triggers"]
            .into_iter()
            .flat_map(|property| self.properties.words(property))
    }

    /// Whether systemd does this to it when it is told so; some units it starts or stops with others only
    /// (`RefuseManualStart=`, `RefuseManualStop=`).
    pub fn can(&self, capability: &str) -> bool {
        self.get(capability) != "no"
    }

    /// Units that run on this one's behalf.
    fn helpers(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.properties.words("Triggers").collect();
        if self.kind == Kind::Target {
            names.extend(self.properties.words("ConsistsOf"));
        }
        names
    }
}

/// Whether this is a template, `job@.service`: no unit, but what its instances are made from.
pub fn is_template(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@'))
}

/// The template of an instance: `job@.service` of `job@1.service`.
pub fn instance_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

/// The instance of a template with this name.
pub fn instance(template: &str, name: &str) -> Option<String> {
    let (prefix, kind) = template.split_once("@.")?;
    Some(format!("{prefix}@{name}.{kind}"))
}

/// Looks at units, in the order of `names`. Templates are no units, and are left out.
pub fn look(names: &[String]) -> Result<Vec<Unit>, Error> {
    let names: Vec<_> = names.iter().filter(|name| !is_template(name)).cloned().collect();
    let shown = systemd::show(&names, &PROPERTIES)?;
    Ok(names.iter().zip(shown).filter_map(|(name, properties)| Unit::new(name, properties)).collect())
}

/// Looks at templates, under their own names: what systemd says of one is what it says of any instance.
pub fn look_at_templates(names: &[String]) -> Result<Vec<Unit>, Error> {
    let templates: Vec<_> = names.iter().filter(|name| is_template(name)).collect();
    let instances: Vec<_> = templates.iter().filter_map(|name| instance(name, "cutover")).collect();
    let shown = systemd::show(&instances, &["LoadState", "LoadError"])?;
    Ok(templates
        .into_iter()
        .zip(shown)
        .filter_map(|(name, properties)| Unit::new(name, properties))
        .collect())
}

/// Looks at units and at all that runs on their behalf. What is not named is there only while systemd knows it.
pub fn family(names: &[String]) -> Result<Vec<Unit>, Error> {
    let mut units = look(names)?;
    let known: BTreeSet<_> = units.iter().map(|unit| unit.name.clone()).collect();
    let helpers: BTreeSet<_> = units
        .iter()
        .flat_map(Unit::helpers)
        .filter(|name| !known.contains(*name))
        .map(str::to_owned)
        .collect();
    let mut wanted: Vec<_> = helpers.into_iter().filter(|name| systemd::is_unit_name(name)).collect();
    wanted.extend(names.iter().filter(|name| is_template(name)).filter_map(|name| pattern(name)));
    for properties in systemd::show_matching(&wanted, &PROPERTIES)? {
        let name = properties.get("Id").to_owned();
        let is_new = !known.contains(&name);
        units.extend(Unit::new(&name, properties).filter(|unit| is_new && unit.load != Load::Missing));
    }
    Ok(units)
}

/// What matches every instance of a template, and nothing else. In systemd's patterns a backslash, which stands in
/// escaped names, means itself (`FNM_NOESCAPE`).
fn pattern(template: &str) -> Option<String> {
    instance(template, "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, pairs: &[(&str, &str)]) -> Unit {
        Unit::new(name, Properties::from_pairs(pairs.iter().copied())).unwrap()
    }

    #[test]
    fn templates_and_instances_are_told_apart_by_their_names() {
        assert!(is_template("job@.service") && !is_template("job@1.service") && !is_template("job.service"));
        assert_eq!(instance_of("job@1.service").as_deref(), Some("job@.service"));
        assert_eq!(instance_of("e@0-127.0.0.1:7777-127.0.0.1:4.service").as_deref(), Some("e@.service"));
        assert_eq!(instance_of("job@.service"), None);
        assert_eq!(instance_of("job.service"), None);
        assert_eq!(instance("job@.service", "a").as_deref(), Some("job@a.service"));
        assert_eq!(pattern(r"a\x2db@.service").as_deref(), Some(r"a\x2db@*.service"));
    }

    #[test]
    fn every_state_of_loading_is_known() {
        let load = |state: &str| unit("a.service", &[("LoadState", state)]).load;
        assert_eq!(load("loaded"), Load::Loaded);
        assert_eq!(load("masked"), Load::Masked);
        assert_eq!(load("not-found"), Load::Missing);
        assert!(matches!(load("bad-setting"), Load::Broken(_)) && matches!(load("error"), Load::Broken(_)));
    }

    #[test]
    fn a_connection_is_no_instance_that_can_be_started() {
        let triggered = [("TriggeredBy", "e.socket")];
        assert!(unit("e@0-1.service", &triggered).is_connection());
        assert!(!unit("e.service", &triggered).is_connection());
        assert!(!unit("e@0-1.service", &[]).is_connection());
    }

    #[test]
    fn kinds_are_known_by_their_endings() {
        assert_eq!(Kind::of("a.timer"), Some(Kind::Timer));
        assert_eq!(Kind::of("a.scope"), None);
        assert!(Kind::Service.is_restarted() && !Kind::Socket.is_restarted() && !Kind::Mount.is_restarted());
    }
}
