//! `init`: a first configuration, from what runs already.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::failure::Error;
use super::output::Output;
use crate::cli::words::args::{Global, InitArgs};
use crate::config;
use crate::health::{self, pids_of};
use crate::sys::disk::Disk;
use crate::sys::sockets::listening;
use crate::sys::systemd::{self, Properties};
use crate::types::{escaped, escaped_path};

/// What is asked of systemd about the unit.
const WANTED: [&str; 14] = [
    "LoadState",
    "ActiveState",
    "Type",
    "User",
    "WorkingDirectory",
    "ExecStart",
    "ExecReload",
    "StateDirectory",
    "MainPID",
    "ControlGroup",
    "TriggeredBy",
    "FragmentPath",
    "TimeoutStopUSec",
    "RootDirectory",
];
/// Where a web server may say that it is well; the first that answers 200 is taken.
const PAGES: [&str; 6] = ["/up", "/healthz", "/health", "/ready", "/status", "/"];
/// How long one page may take.
const PAGE_LIMIT: Duration = Duration::from_secs(2);
/// Directories of the system, which are no application's own.
const SYSTEM: [&str; 12] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/var", "/proc", "/sys", "/dev", "/run", "/boot"];

/// What was found out about a unit.
#[derive(Debug, Default)]
struct Found {
    unit: String,
    is_active: bool,
    user: Option<String>,
    /// The directory that the unit runs from, as it is named there.
    directory: Option<PathBuf>,
    state: Vec<PathBuf>,
    listens: Vec<SocketAddr>,
    /// The page that answered 200.
    page: Option<String>,
    can_reload: bool,
    sockets: Vec<String>,
}

pub fn init(args: &InitArgs, global: &Global, disk: &Disk) -> Result<u8, Error> {
    let unit = if args.unit.contains('.') { args.unit.clone() } else { format!("{}.service", args.unit) };
    let usage = |what: String, hint: &str| Error::Usage { what, hint: Some(hint.to_owned()) };
    if !systemd::is_unit_name(&unit) || !unit.ends_with(".service") {
        let what = format!("`{}` is no name of a service", escaped(unit.as_bytes()));
        return Err(usage(what, "name one of `systemctl list-units --type=service`"));
    }
    let app = global.app.clone().unwrap_or_else(|| name_of(&unit));
    if !config::is_app_name(&app) {
        return Err(config::Problem::AppName(app).into());
    }
    let found = look(&unit)
        .map_err(|why| usage(why, "start it, or write the configuration by hand: cutover.toml(5)"))?;
    let root = global.root.clone().unwrap_or_else(|| root_of(found.directory.as_deref(), &app));
    let (text, missing) = (write(&found, &app, &root), missing(&found));
    if args.print {
        Output::new(global)
            .result(&json!({"app": app, "configuration": text, "missing": missing}), text.trim_end());
        return Ok(0);
    }
    let file = config::Places::default().admin.join(format!("{app}.toml"));
    if file.exists() {
        let what = format!("`{}` is there already", file.display());
        return Err(usage(
            what,
            "`--print` shows what would be written; `--app NAME` names another application",
        ));
    }
    if let Some(parent) = file.parent() {
        disk.make_directory(parent, 0o755)?;
    }
    disk.make_directory(&root, 0o755)?;
    disk.replace(&file, text.as_bytes(), 0o644)?;
    let mut lines = vec![format!("written: {}", file.display())];
    lines.extend(missing.iter().map(|what| format!("not found: {what}")));
    lines.push("next: read that file, then `cutover config check`, then".to_owned());
    let from = found.directory.as_ref().map_or_else(|| "DIRECTORY".to_owned(), |path| escaped_path(path));
    lines.push(format!("  cutover --app {app} adopt {from} --version VERSION"));
    let value = json!({"app": app, "file": file, "root": root, "unit": unit, "missing": missing});
    Output::new(global).result(&value, &lines.join("\n"));
    Ok(0)
}

/// `shop@1.service` is of the application `shop`.
fn name_of(unit: &str) -> String {
    let name = unit.split_once('.').map_or(unit, |(name, _)| name);
    name.split_once('@').map_or(name, |(name, _)| name).to_owned()
}

fn look(unit: &str) -> Result<Found, String> {
    if !systemd::is_booted() {
        return Err("systemd does not run this machine, so there is no unit to look at".to_owned());
    }
    let all = systemd::show(&[unit.to_owned()], &WANTED).map_err(|error| error.to_string())?;
    let properties = all.into_iter().next().unwrap_or_default();
    if properties.get("LoadState") != "loaded" {
        return Err(format!("unit `{unit}` is {}", properties.get("LoadState")));
    }
    let mut pids = pids_of(properties.get("ControlGroup"));
    pids.extend(properties.get("MainPID").parse().ok().filter(|pid: &u32| *pid > 0));
    let listens = listening(&pids);
    let directory = directory_of(&properties, &pids);
    let mut state: Vec<_> =
        properties.words("StateDirectory").map(|name| Path::new("/var/lib").join(name)).collect();
    let named = data_of(&words_of(properties.get("ExecStart")), directory.as_deref(), Path::is_dir);
    state.extend(named.into_iter().filter(|path| !state.contains(path)).collect::<Vec<_>>());
    let sockets = properties.words("TriggeredBy").filter(|unit| unit.ends_with(".socket")).map(str::to_owned);
    Ok(Found {
        unit: unit.to_owned(),
        is_active: properties.get("ActiveState") == "active",
        user: Some(properties.get("User")).filter(|user| !user.is_empty()).map(str::to_owned),
        directory,
        state,
        page: listens.iter().find_map(|address| page_of(*address)),
        listens,
        can_reload: !properties.get("ExecReload").is_empty(),
        sockets: sockets.collect(),
    })
}

/// The application's own directory: where the unit works, else where its program or a file of its command line is.
fn directory_of(properties: &Properties, pids: &[u32]) -> Option<PathBuf> {
    let working = PathBuf::from(properties.get("WorkingDirectory").trim_start_matches('!'));
    let links = pids.iter().flat_map(|pid| ["cwd", "exe"].map(|name| format!("/proc/{pid}/{name}")));
    let seen = links.filter_map(|link| std::fs::read_link(link).ok());
    let named: Vec<PathBuf> = words_of(properties.get("ExecStart")).into_iter().map(PathBuf::from).collect();
    let all = [working].into_iter().chain(named).chain(seen);
    all.filter(|path| is_own(path)).map(|path| tree_of(&path)).next()
}

/// Paths in `{ path=/srv/shop/current/bin/shop ; argv[]=/srv/shop/current/bin/shop --port 80 ; … }`.
fn words_of(command: &str) -> Vec<&str> {
    command.split([' ', ';', '=']).filter(|word| word.starts_with('/')).collect()
}

/// Directories that a command line names beside the application's own tree: `--data /srv/shop/data`.
fn data_of(words: &[&str], tree: Option<&Path>, is_directory: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let is_beside = |path: &Path| tree.is_none_or(|tree| !path.starts_with(tree) && !tree.starts_with(path));
    let may_hold_data = |path: &Path| is_own(path) || path.starts_with("/var/lib/");
    let paths = words.iter().map(Path::new);
    paths
        .filter(|path| may_hold_data(path) && is_beside(path) && is_directory(path))
        .map(Path::to_owned)
        .collect()
}

fn is_own(path: &Path) -> bool {
    let depth = path.components().filter(|part| matches!(part, Component::Normal(_))).count();
    path.is_absolute() && depth >= 2 && !SYSTEM.iter().any(|system| path.starts_with(system))
}

/// Of `/srv/shop/current/bin/shop`, `/srv/shop/current`; of `/opt/shop/server.js`, `/opt/shop`; a directory is itself.
fn tree_of(path: &Path) -> PathBuf {
    let parts: Vec<_> = path.components().collect();
    if let Some(place) = parts.iter().position(|part| part.as_os_str() == "current") {
        return parts.iter().take(place + 1).collect();
    }
    if let Some(place) = parts.iter().position(|part| part.as_os_str() == "releases") {
        return parts.iter().take(place).collect::<PathBuf>().join("current");
    }
    let mut tree = if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() };
    if tree
        .file_name()
        .is_some_and(|name| ["bin", "sbin", "dist", "src", "lib"].iter().any(|part| name == *part))
    {
        tree.pop();
    }
    tree
}

/// The directory above `current`, where the unit runs from one; else a new one.
fn root_of(directory: Option<&Path>, app: &str) -> PathBuf {
    match directory {
        Some(path) if path.file_name().is_some_and(|name| name == "current") => {
            path.parent().unwrap_or(path).to_owned()
        }
        Some(_) | None => Path::new("/srv").join(app),
    }
}

/// The address that this machine reaches it by.
fn reached_by(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn page_of(address: SocketAddr) -> Option<String> {
    let base = format!("http://{}", reached_by(address));
    PAGES.iter().map(|page| format!("{base}{page}")).find(|url| health::answers(url, PAGE_LIMIT))
}

fn missing(found: &Found) -> Vec<String> {
    let mut missing = Vec::new();
    if !found.is_active {
        missing.push(format!("`{}` does not run, so its ports and files could not be seen", found.unit));
    }
    match &found.directory {
        None => missing.push("a directory of the application's own: set `root`, and adopt what you know".to_owned()),
        Some(path) if path.file_name().is_none_or(|name| name != "current") => missing.push(format!(
            "a link `current` in the unit's paths: it runs from `{}`; let it run from `current` below the root, which \
             names that directory once it is adopted",
            escaped_path(path)
        )),
        Some(_) => {}
    }
    if found.listens.is_empty() {
        missing
            .push("a port that it listens on: write a check that would notice when users notice".to_owned());
    } else if found.page.is_none() {
        missing.push("a page that answers 200: the check only connects, which says little".to_owned());
    }
    if found.state.is_empty() {
        missing
            .push("a directory of data (`StateDirectory=`, or on its command line): if it writes any, see docs/data.md".to_owned());
    }
    missing.push("where releases come from, and who signs them: `[source]`".to_owned());
    missing
}

/// The configuration, with what is not known as comments.
fn write(found: &Found, app: &str, root: &Path) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    let mut text = format!(
        "#:schema /usr/share/cutover/cutover.schema.json\n# {app} under cutover, written by `cutover init --unit {}` from what ran then. All settings: cutover.toml(5).\n\
         # Read it, then: cutover config check\n\n\
         # Releases and the link `current` are kept here. The unit's paths must lead through `{}`.\nroot = {}\n\n",
        found.unit,
        root.join("current").display(),
        path(root)
    );
    text.push_str(
        "# Where releases come from, and the keys that may sign them (`cutover keygen`, `cutover publish`).\n\
         #[source]\n#url = \"file:///srv/releases\"            # or https://…\n#channel = \"stable\"\n\
         #keys = [\"/etc/cutover/keys/team.pub\"]\n\n",
    );
    let units: Vec<String> =
        [&found.unit].into_iter().chain(&found.sockets).map(|unit| quoted(unit)).collect();
    let _ = write!(text, "[service]\nunits = [{}]\n", units.join(", "));
    if found.can_reload {
        text.push_str(
            "#action = \"reload-or-restart\"           # the unit can reload; only if that loads new code\n",
        );
    }
    text.push('\n');
    for directory in &found.state {
        let _ = write!(
            text,
            "# The unit's state. With this a rollback brings it back as it was before the switch, and sets aside what is newer.\n\
             # The service is stopped while it is copied: see docs/data.md.\n#[[data]]\n#path = {}\n#on_rollback = \"auto\"\n\n",
            path(directory)
        );
    }
    text.push_str("[health]\nmin_healthy = \"30s\"                     # how long all checks must pass\n\n");
    text.push_str(&check(found));
    if let Some(user) = &found.user {
        let _ = write!(
            text,
            "\n# Trees belong to root, and `{0}` may not write into them: what it writes belongs outside (`[links]`).\n\
             # A check of your own, as `{0}`:\n#[[health.check]]\n#name = \"smoke\"\n\
             #exec = {{ command = [\"bin/smoke\"], user = {1}, timeout = \"20s\" }}\n",
            escaped(user.as_bytes()),
            quoted(user)
        );
    }
    text.push_str(
        "\n# When automatic updates may begin (`systemctl enable --now cutover@APP.timer`).\n#[policy]\n\
         #windows = [{ days = [\"Tue\", \"Wed\"], start = \"03:00\", length = \"2h\", timezone = \"UTC\" }]\n",
    );
    text.replace("cutover@APP", &format!("cutover@{app}"))
}

fn check(found: &Found) -> String {
    let others: BTreeSet<String> =
        found.listens.iter().skip(1).map(|address| reached_by(*address).to_string()).collect();
    let mut text = match (&found.page, found.listens.first()) {
        (Some(url), _) => format!("[[health.check]]\nname = \"answers\"\nhttp = {{ url = \"{url}\" }}\n"),
        (None, Some(address)) => format!(
            "# It listens here; nothing answered 200. A page that needs its database says more than an open port.\n\
             [[health.check]]\nname = \"port\"\ntcp = {{ address = \"{}\" }}\n",
            reached_by(*address)
        ),
        (None, None) => "# No port was found. A check is worth what it would notice: see docs/health.md.\n\
             #[[health.check]]\n#name = \"answers\"\n#http = { url = \"http://127.0.0.1:8080/up\" }\n"
            .to_owned(),
    };
    for other in others {
        let _ = write!(
            text,
            "\n#[[health.check]]                       # it listens here, too\n#name = \"port\"\n#tcp = {{ address = \"{other}\" }}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::settings::Settings;

    fn found() -> Found {
        Found {
            unit: "shop.service".into(),
            is_active: true,
            user: Some("shop".into()),
            directory: Some("/srv/shop/current".into()),
            state: vec!["/var/lib/shop".into()],
            listens: vec!["0.0.0.0:8080".parse().unwrap(), "[::]:9090".parse().unwrap()],
            page: Some("http://127.0.0.1:8080/up".into()),
            can_reload: true,
            sockets: vec!["shop.socket".into()],
        }
    }

    #[test]
    fn what_is_written_is_a_configuration_also_with_every_comment_taken_away() {
        let nothing = Found { unit: "shop.service".into(), ..Found::default() };
        for found in [found(), nothing] {
            let text = write(&found, "shop", Path::new("/srv/shop"));
            let settings: Settings = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(settings.root, Path::new("/srv/shop"));
            assert_eq!(settings.service.units[0], "shop.service");
            // Lines such as `#key = …` are meant to be used.
            let is_meant = |line: &&str| !line.starts_with("# ") && !line.starts_with("#:");
            let all: Vec<_> =
                text.lines().filter(is_meant).map(|line| line.trim_start_matches('#')).collect();
            let settings: Settings =
                toml::from_str(&all.join("\n")).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(!settings.health.check.is_empty() && settings.source.url.is_some(), "{text}");
        }
        assert!(missing(&found()).iter().all(|what| what.contains("[source]")), "{:?}", missing(&found()));
        insta::assert_snapshot!("init_written", write(&found(), "shop", Path::new("/srv/shop")));
    }

    #[test]
    fn the_applications_directory_is_seen_in_what_the_unit_names() {
        for (path, tree) in [
            ("/srv/shop/current/bin/shop", "/srv/shop/current"),
            ("/srv/shop/releases/1.0.0/server.js", "/srv/shop/current"),
            ("/opt/shop/bin/shop", "/opt/shop"),
            ("/opt/shop/server.js", "/opt/shop"),
        ] {
            assert_eq!(tree_of(Path::new(path)), Path::new(tree), "{path}");
        }
        let command =
            "{ path=/usr/bin/node ; argv[]=/usr/bin/node /opt/shop/server.js --port=80 ; ignore_errors=no }";
        let own: Vec<_> = words_of(command).into_iter().filter(|word| is_own(Path::new(word))).collect();
        assert_eq!(own, ["/opt/shop/server.js"]);
        let command = "{ argv[]=/srv/shop/current/bin/shop --data=/srv/shop/data --tree /srv/shop/current/x --log /var/log/shop \
                       --db /var/lib/shop /srv/shop }";
        let tree = Some(Path::new("/srv/shop/current"));
        let data = ["/srv/shop/data", "/var/lib/shop"].map(PathBuf::from);
        assert_eq!(data_of(&words_of(command), tree, |_| true), data);
        assert!(data_of(&words_of(command), tree, |_| false).is_empty(), "what is not there is no directory");
        assert!(
            !is_own(Path::new("/usr/bin/node"))
                && !is_own(Path::new("/srv"))
                && !is_own(Path::new("relative/x"))
        );
        assert_eq!(root_of(Some(Path::new("/srv/shop/current")), "shop"), Path::new("/srv/shop"));
        assert_eq!(root_of(Some(Path::new("/opt/shop")), "shop"), Path::new("/srv/shop"));
        assert_eq!(
            (name_of("shop@1.service"), name_of("shop.service")),
            ("shop".to_owned(), "shop".to_owned())
        );
    }
}
