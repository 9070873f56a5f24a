//! A rehearsal in a network of its own: what it takes, how it begins, and what is seen of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::running::Running;
use super::text;
use super::unit::{self, Frame, Kind, Made};
use super::walls::{self, Scratch};
use super::{Error, Names, SYSTEMD_MIN, slice_text};
use crate::health::{self, Checks, Context};
use crate::lifecycle::application::data::Data;
use crate::lifecycle::settings::{self, Settings};
use crate::store::Store;
use crate::sys::disk::{self, Context as _};
use crate::sys::namespace::Namespaces;
use crate::sys::systemd::{self, Properties, RUNTIME_UNITS};
use crate::types::Version;
use crate::types::record::DataPolicy;

/// How long systemd may take to start what holds the namespaces, and sockets.
const BEGIN: Duration = Duration::from_secs(30);
/// How much longer than the deadline units run, should nobody end them.
const GRACE: Duration = Duration::from_secs(120);
/// The largest unit file that is read.
const UNIT_BYTES_MAX: usize = 1 << 20;
/// Sorted after all drop-ins that anybody else may have.
const DROP_IN: &str = "zzzz-cutover.conf";

/// What a rehearsal is made of.
pub struct Private<'a> {
    pub app: &'a str,
    pub settings: &'a Settings,
    pub store: &'a Store,
    pub data: Data,
    /// The units that run with the new release.
    pub units: Vec<String>,
    /// All units that may run now.
    pub running: Vec<String>,
    /// Variables for checks: `CUTOVER_*`.
    pub env: Vec<(String, OsString)>,
}

/// systemd's own program that hands connections on; a part of systemd everywhere.
const PROXIES: [&str; 2] = ["/usr/lib/systemd/systemd-socket-proxyd", "/lib/systemd/systemd-socket-proxyd"];

/// A service that is rehearsed.
struct Part {
    unit: String,
    name: String,
    made: Made,
    /// Lines of `[Service]` that stand for the directories and the user that systemd would have given it.
    lines: Vec<String>,
}

/// A socket that is rehearsed.
struct Socket {
    name: String,
    lines: Vec<String>,
}

/// All that is to be done, with nothing done yet.
#[derive(Default)]
struct Plan {
    parts: Vec<Part>,
    sockets: Vec<Socket>,
    copied: Vec<settings::Data>,
    scratch: Vec<Scratch>,
    runtime: Vec<(PathBuf, walls::Owner)>,
}

impl Private<'_> {
    fn names(&self) -> Names {
        Names::new(self.app)
    }

    /// Says whether a rehearsal of the release can be had here. Starts and changes nothing.
    pub fn check(&self, version: &Version) -> Result<(), Error> {
        let plan = self.plan(version)?;
        walls::check(self.store.layout.root())?;
        Ok(self.data.check_copies(&plan.copied)?)
    }

    /// Begins a rehearsal of the release. What an earlier one has left is removed.
    pub fn begin(&self, transaction: &str, version: &Version) -> Result<Running, Error> {
        let names = self.names();
        let disk = &self.store.disk;
        names.sweep(disk, &self.data)?;
        let plan = self.plan(version)?;
        let copies = self.data.make_copies(transaction, &plan.copied)?;
        let directory = self.data.rehearsal_directory(transaction);
        let lines = walls::build(
            disk,
            &walls::Plan {
                root: self.store.layout.root(),
                version,
                copies: copies.items.iter().map(|copy| (copy.path.clone(), copy.place.clone())).collect(),
                scratch: plan.scratch.clone(),
                runtime: plan.runtime.clone(),
                directory: &directory,
                volatile: &names.volatile(),
            },
        )?;
        self.write_units(&names, version, &plan, &lines, &walls::tmp_lines(&directory)?)?;
        let (holder, began) = (names.holder(), Timestamp::now());
        systemd::start(std::slice::from_ref(&holder), BEGIN)?;
        let shown = systemd::show(&[holder.clone(), names.slice()], &["MainPID", "ControlGroup"])?;
        let pid: u32 = shown.first().and_then(|holder| holder.get("MainPID").parse().ok()).unwrap_or(0);
        let there = Namespaces::of(pid).context("look at", Path::new("/proc"))?;
        let ways_out =
            (0..self.settings.rehearsal.outgoing.len()).map(|number| way_out(&names, number, "socket"));
        let sockets: Vec<_> = plan.sockets.iter().map(|socket| socket.name.clone()).chain(ways_out).collect();
        systemd::start(&sockets, BEGIN)?;
        let units: Vec<_> = plan.parts.iter().map(|part| part.name.clone()).collect();
        systemd::begin_start(&units)?;
        let group = shown.get(1).map_or("", |slice| slice.get("ControlGroup")).to_owned();
        Ok(Running {
            checks: self.checks(version, &plan, &units, there),
            allowed: self.settings.rehearsal.ports.clone(),
            ways_out: self.settings.rehearsal.outgoing.iter().map(|way| way.listen.clone()).collect(),
            running: self.running.clone(),
            units,
            pid,
            group,
            copies,
            began,
        })
    }

    fn checks(&self, version: &Version, plan: &Plan, units: &[String], there: Namespaces) -> Checks {
        let mut health = self.settings.rehearsal.health(&self.settings.health);
        for check in health.check.iter_mut().filter_map(|check| check.systemd.as_mut()) {
            for unit in &mut check.units {
                // Those that are not rehearsed are the node's own.
                if let Some(part) = plan.parts.iter().find(|part| part.unit == *unit) {
                    unit.clone_from(&part.name);
                }
            }
        }
        let mut env = self.env.clone();
        env.push(("CUTOVER_REHEARSAL".into(), "1".into()));
        let layout = &self.store.layout;
        let context = Context {
            tree: layout.tree(version),
            releases: layout.releases(),
            units: units.to_vec(),
            env,
            there: Some(Arc::new(there)),
            ..Context::default()
        };
        Checks::new(health, context)
    }

    fn plan(&self, version: &Version) -> Result<Plan, Error> {
        if !systemd::is_booted() {
            return Err(Error::NoSystemd);
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        if let Some(version) = systemd::version().filter(|version| *version < SYSTEMD_MIN) {
            return Err(Error::OldSystemd(version));
        }
        let tree = self.store.layout.tree(version);
        let mut plan = Plan { copied: self.settings.data.clone(), ..Plan::default() };
        self.plan_scratch(&tree, &mut plan);
        let services = self.services();
        let names = self.names();
        let together: Vec<_> = services.iter().map(|unit| (unit.clone(), names.unit(unit))).collect();
        let run = walls::run_of(&names.volatile());
        let current = self.store.layout.current();
        let wanted = ["LoadState", "FragmentPath", "DropInPaths", "User", "UID", "GID", "TriggeredBy"];
        let shown = systemd::show(&services, &wanted)?;
        for (unit, properties) in services.iter().zip(&shown) {
            let frame = Frame { unit, current: &current, tree: &tree, run: &run, together: &together };
            self.plan_service(&frame, properties, &mut plan)?;
        }
        if let Some(command) = &self.settings.rehearsal.command {
            plan.parts.push(command_part(&names, command, &tree));
        }
        if plan.parts.is_empty() {
            return Err(Error::NoUnits);
        }
        Ok(plan)
    }

    /// The services that are rehearsed.
    fn services(&self) -> Vec<String> {
        let rehearsal = &self.settings.rehearsal;
        if rehearsal.command.is_some() {
            return Vec::new();
        }
        if !rehearsal.units.is_empty() {
            return rehearsal.units.clone();
        }
        self.units.iter().filter(|unit| unit.ends_with(".service")).cloned().collect()
    }

    fn plan_scratch(&self, tree: &Path, plan: &mut Plan) {
        let current = self.store.layout.current();
        for path in &self.settings.rehearsal.scratch {
            // The pointer is a link: what is mounted below it must be named without it.
            let path = path.strip_prefix(&current).map_or_else(|_| path.clone(), |below| tree.join(below));
            plan.scratch.push(Scratch { path, owner: None });
        }
    }

    fn plan_service(&self, frame: &Frame<'_>, properties: &Properties, plan: &mut Plan) -> Result<(), Error> {
        let unit = frame.unit;
        let texts = self.texts(unit, frame.tree, properties)?;
        let made = unit::make(&texts, frame)?;
        let owner = owner(unit, &made, properties)?;
        let mut lines = Vec::new();
        if made.is_dynamic {
            // The same user as that of the running service, which the data belong to.
            lines.push(format!("User={}", properties.get("User")));
        }
        for kind in [Kind::Runtime, Kind::State, Kind::Cache, Kind::Logs, Kind::Configuration] {
            let own: Vec<_> = made.directories.iter().filter(|(other, _)| *other == kind).collect();
            let paths: Vec<_> = own.iter().map(|(_, name)| kind.base().join(name)).collect();
            if paths.is_empty() {
                continue;
            }
            let all: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            lines.push(format!(
                "Environment={}",
                text::quoted(&format!("{}={}", kind.variable(), all.join(":")))
            ));
            match kind {
                Kind::Runtime => {
                    plan.runtime.extend(own.iter().map(|(_, name)| (PathBuf::from(name), owner)))
                }
                Kind::State => plan.add_state(&paths),
                Kind::Cache | Kind::Logs => plan.add_scratch(&paths, owner),
                Kind::Configuration => {}
            }
        }
        for socket in properties.words("TriggeredBy").filter(|unit| unit.ends_with(".socket")) {
            let lines = self.plan_socket(socket, frame)?;
            plan.sockets.push(Socket { name: self.names().unit(socket), lines });
        }
        plan.parts.push(Part { unit: unit.to_owned(), name: self.names().unit(unit), made, lines });
        Ok(())
    }

    fn plan_socket(&self, socket: &str, frame: &Frame<'_>) -> Result<Vec<String>, Error> {
        let shown = systemd::show(&[socket.to_owned()], &["LoadState", "FragmentPath", "DropInPaths"])?;
        let texts = self.texts(socket, frame.tree, &shown.into_iter().next().unwrap_or_default())?;
        let mut lines = unit::make_socket(&texts, &Frame { unit: socket, ..frame.clone() })?;
        lines.push(format!("Service={}", self.names().unit(frame.unit)));
        Ok(lines)
    }

    /// The texts that make up a unit once the release is active: what it ships goes before what is installed.
    fn texts(&self, unit: &str, tree: &Path, properties: &Properties) -> Result<Vec<String>, Error> {
        let template = unit
            .split_once('@')
            .and_then(|(prefix, rest)| Some(format!("{prefix}@.{}", rest.rsplit_once('.')?.1)));
        let shipped = [Some(unit.to_owned()), template];
        let shipped = shipped
            .into_iter()
            .flatten()
            .map(|name| tree.join("systemd").join(name))
            .find(|path| path.is_file());
        let fragment = match &shipped {
            Some(path) => path.display().to_string(),
            None => properties.get("FragmentPath").to_owned(),
        };
        if shipped.is_none() && properties.get("LoadState") != "loaded" {
            let state = properties.get("LoadState").to_owned();
            return Err(Error::NotLoaded { unit: unit.to_owned(), state });
        }
        let mut texts = Vec::new();
        for path in text::files_of(&fragment, properties.get("DropInPaths")) {
            // Links are as common here as files.
            let path = fs::canonicalize(&path).context("find", &path)?;
            let bytes = disk::read_small(&path, UNIT_BYTES_MAX)?.unwrap_or_default();
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        Ok(texts)
    }

    fn write_units(
        &self,
        names: &Names,
        version: &Version,
        plan: &Plan,
        walls: &[String],
        tmp: &[String],
    ) -> Result<(), Error> {
        let (app, holder, slice) = (self.app, names.holder(), names.slice());
        let own = format!(
            "Slice={slice}\nRestart=no\nKillMode=mixed\nTimeoutStopSec=5s\nSuccessExitStatus=SIGKILL\nOOMScoreAdjust=900\n\
             StandardOutput=journal\nStandardError=inherit"
        );
        let walls = walls.join("\n");
        self.write(&slice, &slice_text(app, &self.settings.rehearsal))?;
        let within = self.settings.rehearsal.health(&self.settings.health).deadline.0 + GRACE;
        let text = format!(
            "[Unit]\nDescription=Network and files for a rehearsal of {app}\n[Service]\nType=exec\n\
             ExecStart=sleep infinity\nRuntimeMaxSec={}\nProtectHome=read-only\n{}\n{walls}\n{}\n",
            within.as_secs(),
            own,
            tmp.join("\n"),
        );
        self.write(&holder, &text)?;
        let joined = format!("BindsTo={holder}\nAfter={holder}\nJoinsNamespaceOf={holder}\n");
        self.write_ways_out(names, &joined)?;
        for socket in &plan.sockets {
            let text = format!(
                "[Unit]\nDescription=Rehearsal of {app}: a socket\n{joined}[Socket]\n{}\nPrivateNetwork=yes\nSlice={slice}\n",
                socket.lines.join("\n")
            );
            self.write(&socket.name, &text)?;
        }
        for part in &plan.parts {
            let (unit, made) = (&part.unit, &part.made);
            let text = format!(
                "[Unit]\nDescription=Rehearsal of {unit} in release {version}\n{joined}StartLimitIntervalSec=0\n{}\n[Service]\n{}\n",
                made.relations.join("\n"),
                made.lines.join("\n")
            );
            self.write(&part.name, &text)?;
            let tmp = if made.has_tmp { String::new() } else { tmp.join("\n") };
            let home = made.hides_home.as_deref().unwrap_or("read-only");
            let text = format!(
                "[Service]\n{}\nRemoveIPC=no\nProtectHome={home}\nEnvironment=CUTOVER_REHEARSAL=1\n{}\n{walls}\n{tmp}\n",
                own,
                part.lines.join("\n"),
            );
            self.write(&format!("{}.d/{DROP_IN}", part.name), &text)?;
        }
        Ok(())
    }

    /// A socket in the rehearsal's network, and a service on the node's that hands its connections on.
    fn write_ways_out(&self, names: &Names, joined: &str) -> Result<(), Error> {
        let (app, slice, holder) = (self.app, names.slice(), names.holder());
        let proxy = PROXIES.into_iter().find(|path| Path::new(path).exists()).unwrap_or(PROXIES[0]);
        for (number, way) in self.settings.rehearsal.outgoing.iter().enumerate() {
            let [socket, service] = ["socket", "service"].map(|kind| way_out(names, number, kind));
            let text = format!(
                "[Unit]\nDescription=Rehearsal of {app}: a way out\n{joined}[Socket]\nListenStream={}\n\
                 Service={service}\nPrivateNetwork=yes\nSlice={slice}\n",
                way.listen
            );
            self.write(&socket, &text)?;
            let text = format!(
                "[Unit]\nDescription=Rehearsal of {app}: the way out to {}\nBindsTo={holder}\nAfter={holder}\n\
                 [Service]\nExecStart={proxy} {}\nSlice={slice}\nSuccessExitStatus=SIGKILL\nProtectSystem=strict\n\
                 NoNewPrivileges=yes\nTimeoutStopSec=5s\n",
                way.to, way.to
            );
            self.write(&service, &text)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = Path::new(RUNTIME_UNITS).join(name);
        if let Some(folder) = path.parent() {
            self.store.disk.make_directory(folder, 0o755)?;
        }
        Ok(self.store.disk.replace(&path, text.as_bytes(), 0o644)?)
    }
}

impl Plan {
    /// What systemd keeps for a service is copied like data, unless it is among them. Data within it come along,
    /// without what is left out of them.
    fn add_state(&mut self, paths: &[PathBuf]) {
        for path in paths {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            if self.copied.iter().any(|data| path.starts_with(&data.path)) {
                continue;
            }
            let mut leave = Vec::new();
            self.copied.retain(|data| {
                let Ok(below) = data.path.strip_prefix(&path) else { return true };
                leave.extend(data.leave.iter().map(|left| below.join(left)));
                false
            });
            self.copied.push(settings::Data { path, on_rollback: DataPolicy::Auto, leave });
        }
    }

    fn add_scratch(&mut self, paths: &[PathBuf], owner: walls::Owner) {
        for path in paths {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let is_there = self.copied.iter().any(|data| path.starts_with(&data.path))
                || self.scratch.iter().any(|scratch| path.starts_with(&scratch.path));
            if !is_there {
                self.scratch.push(Scratch { path, owner: Some(owner) });
            }
        }
    }
}

fn way_out(names: &Names, number: usize, kind: &str) -> String {
    names.unit(&format!("way-out-{number}.{kind}"))
}

/// A service for a command that the settings name.
fn command_part(names: &Names, command: &crate::lifecycle::application::service::Words, tree: &Path) -> Part {
    let mut argv = command.argv();
    if let Some(program) = argv.first_mut().filter(|_| !command.is_shell()) {
        *program = health::program_in(tree, Path::new(program.as_str())).display().to_string();
    }
    let words: Vec<_> = argv.iter().map(|word| text::quoted(word).replace('$', "$$")).collect();
    let lines = vec![
        "Type=exec".to_owned(),
        format!("WorkingDirectory={}", tree.display().to_string().replace('%', "%%")),
        format!("ExecStart={}", words.join(" ")),
    ];
    let unit = "command.service".to_owned();
    Part { name: names.unit(&unit), unit, made: Made { lines, ..Made::default() }, lines: Vec::new() }
}

/// Whose a service's directories are.
fn owner(unit: &str, made: &Made, properties: &Properties) -> Result<walls::Owner, Error> {
    let number = |name: &str| properties.get(name).parse::<u32>().ok();
    let cannot = |user: &str, hint| Error::NoUser { unit: unit.to_owned(), user: user.to_owned(), hint };
    if made.is_dynamic {
        let known = number("UID").zip(number("GID"));
        return known
            .ok_or_else(|| cannot(properties.get("User"), ": systemd chooses it, while the service runs"));
    }
    let Some(name) = &made.user else { return Ok((0, 0)) };
    let found = match name.parse::<u32>() {
        Ok(uid) => nix::unistd::User::from_uid(uid.into()).ok().flatten(),
        Err(_) => nix::unistd::User::from_name(name).ok().flatten(),
    };
    let user = found.ok_or_else(|| cannot(name, ""))?;
    let group = match &made.group {
        None => user.gid,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid.into(),
            Err(_) => {
                nix::unistd::Group::from_name(group).ok().flatten().ok_or_else(|| cannot(group, ""))?.gid
            }
        },
    };
    Ok((user.uid.as_raw(), group.as_raw()))
}
