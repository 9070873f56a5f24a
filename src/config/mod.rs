//! What an admin wants: TOML fragments, read strictly and merged.
//!
//! ```text
//! /usr/lib/cutover/<app>.toml  <  /etc/cutover/<app>.toml  <  /etc/cutover/<app>.toml.d/*.toml
//!                              <  /run/cutover/<app>.toml.d/*.toml
//! ```
//! A later fragment's keys replace an earlier one's; arrays are replaced whole. An unknown key is an error in the file
//! that has it, with the nearest known one: a typo must not mean a default.

mod check;
mod merge;
mod problem;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use check::check;
pub use merge::Origins;
pub use problem::{Problem, nearest};

use crate::lifecycle::settings::Settings;
use crate::sys::{disk, owned};
use crate::types::escaped;
use crate::types::record::DataPolicy;

const BYTES_MAX: usize = 1 << 20;

/// Where configuration is looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// Of the vendor: `/usr/lib/cutover`.
    pub vendor: PathBuf,
    /// Of the admin: `/etc/cutover`.
    pub admin: PathBuf,
    /// Until the next boot: `/run/cutover`.
    pub runtime: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            vendor: "/usr/lib/cutover".into(),
            admin: "/etc/cutover".into(),
            runtime: "/run/cutover".into(),
        }
    }
}

/// The configuration in force, and which file each value comes from.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub settings: Settings,
    /// The file of each value that is not a default, by dotted key.
    pub origins: Origins,
}

/// Reads the configuration of `app`.
pub fn load(places: &Places, app: &str) -> Result<Loaded, Problem> {
    let files = fragments(places, app)?;
    if files.is_empty() {
        return Err(Problem::NoSuchApp {
            app: app.to_owned(),
            looked: places.admin.join(format!("{app}.toml")),
            known: apps(places),
        });
    }
    load_files(&files)
}

/// Reads one file and nothing else.
pub fn load_file(path: &Path) -> Result<Loaded, Problem> {
    load_files(&[path.to_owned()])
}

/// The applications that are configured, by name.
pub fn apps(places: &Places) -> Vec<String> {
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for directory in [&places.vendor, &places.admin] {
        for path in listed(directory) {
            if let Some(name) =
                path.file_stem().and_then(|stem| stem.to_str()).filter(|name| is_app_name(name))
            {
                names.insert(name.to_owned(), ());
            }
        }
    }
    names.into_keys().collect()
}

/// Refuses a root that another application has, too: each would take the other's releases for its own.
///
/// # Errors
/// When there is such a one; its file is named.
pub fn check_root(places: &Places, app: &str, root: &Path) -> Result<(), Problem> {
    let apps = apps(places);
    let place = place_of(root);
    // A draft, under whatever name, is not read by anybody.
    let is_read = apps.iter().any(|known| known == app);
    for other in apps.iter().filter(|other| is_read && *other != app) {
        let Ok(loaded) = load(places, other) else { continue };
        if place.is_some() && place_of(&loaded.settings.root) == place {
            let file = loaded
                .origins
                .get("root")
                .cloned()
                .unwrap_or_else(|| places.admin.join(format!("{other}.toml")));
            return Err(Problem::Contradiction {
                why: format!(
                    "`root`: `{}` is the root of application `{other}` too (`{}`): each needs one of its own",
                    root.display(),
                    file.display()
                ),
            });
        }
    }
    Ok(())
}

/// Refuses data that a rollback of one application would take away from another, with what is in them.
///
/// # Errors
/// When there are such; the other application's file is named.
pub fn check_data(places: &Places, app: &str, settings: &Settings) -> Result<(), Problem> {
    let apps = apps(places);
    let is_read = apps.iter().any(|known| known == app);
    for other in apps.iter().filter(|other| is_read && *other != app) {
        let Ok(Loaded { settings: theirs, .. }) = load(places, other) else { continue };
        let lost = carried_away(settings, &theirs).map(|path| (app, other.as_str(), path));
        let lost = lost.or_else(|| carried_away(&theirs, settings).map(|path| (other.as_str(), app, path)));
        if let Some((mover, owner, path)) = lost {
            let path = path.display();
            return Err(Problem::Contradiction {
                why: format!(
                    "`data`: a rollback of application `{mover}` would take `{path}` away, which application `{owner}` has, too: give each a place of its own, name it in `leave`, or set `on_rollback = \"keep\"`"
                ),
            });
        }
    }
    Ok(())
}

/// The root, or data, of one application that are moved with the data of another.
fn carried_away(mover: &Settings, owner: &Settings) -> Option<PathBuf> {
    let moved = || mover.data.iter().filter(|data| data.on_rollback != DataPolicy::Keep);
    let owned = owner.data.iter().map(|data| &data.path).chain([&owner.root]);
    owned.filter(|path| path.is_absolute()).find(|path| moved().any(|data| data.moves(path))).cloned()
}

/// Device and inode of a directory, or of the one above it that is there, with the rest of its path.
fn place_of(root: &Path) -> Option<(u64, u64, PathBuf)> {
    let above = root.ancestors().find(|path| path.exists())?;
    let found = std::fs::metadata(above).ok()?;
    Some((found.dev(), found.ino(), root.strip_prefix(above).ok()?.components().collect()))
}

/// Whether this may name an application: it becomes a part of file and unit names.
pub fn is_app_name(name: &str) -> bool {
    name.parse::<crate::types::Version>().is_ok() && name.len() <= 64
}

fn fragments(places: &Places, app: &str) -> Result<Vec<PathBuf>, Problem> {
    if !is_app_name(app) {
        return Err(Problem::AppName(app.to_owned()));
    }
    let name = format!("{app}.toml");
    let mut files: Vec<PathBuf> = [&places.vendor, &places.admin]
        .map(|place| place.join(&name))
        .into_iter()
        // A link that leads nowhere is a mistake, and not the wish to have defaults.
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    for place in [&places.admin, &places.runtime] {
        let directory = place.join(format!("{app}.toml.d"));
        match std::fs::read_dir(&directory) {
            Ok(_) => files.extend(listed(&directory)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !directory.is_symlink() => {}
            Err(error) => return Err(owned::Error::from(disk::Error::new("list", &directory, error)).into()),
        }
    }
    Ok(files)
}

/// The `.toml` files of a directory, by name; none when it cannot be read. Hidden ones are editors' and not the admin's
/// (`.#10-a.toml` is the lock of a file that is being edited).
fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_fragment = |name: &str| name.ends_with(".toml") && !name.starts_with('.');
    let mut paths: Vec<_> = entries
        .filter(|entry| is_fragment(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

fn load_files(files: &[PathBuf]) -> Result<Loaded, Problem> {
    let mut merged = toml::Table::new();
    let mut origins = Origins::default();
    for file in files {
        let text = read(file)?;
        // Each alone first, so that an error names its file and line.
        toml::from_str::<Settings>(&text).map_err(|error| problem::in_file(file, &text, &error))?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| problem::in_file(file, &text, &error))?;
        if let Some(key) = with_nul(&table) {
            return Err(Problem::Nul { file: file.clone(), key });
        }
        merge::merge(&mut merged, table, file, "", &mut origins);
    }
    let settings: Settings = merged
        .try_into()
        .map_err(|error: toml::de::Error| Problem::Contradiction { why: error.message().to_owned() })?;
    check(&settings)?;
    Ok(Loaded { settings, origins })
}

fn read(file: &Path) -> Result<String, Problem> {
    let bytes = owned::read(file, BYTES_MAX)?.ok_or_else(|| Problem::Missing(file.to_owned()))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(Problem::NotText { file: file.to_owned() }),
        Ok(text) => Ok(text),
        Err(_) => Err(Problem::NotText { file: file.to_owned() }),
    }
}

/// The key of a text with a NUL byte, which TOML can write (`"\\u0000"`), and no path, address or argument can have.
fn with_nul(table: &toml::Table) -> Option<String> {
    fn has_nul(value: &toml::Value) -> bool {
        match value {
            toml::Value::String(text) => text.contains('\0'),
            toml::Value::Array(values) => values.iter().any(has_nul),
            toml::Value::Table(table) => with_nul(table).is_some(),
            _ => false,
        }
    }
    table.iter().find(|(key, value)| key.contains('\0') || has_nul(value)).map(|(key, value)| match value {
        toml::Value::Table(within) => {
            format!("{}.{}", escaped(key.as_bytes()), with_nul(within).unwrap_or_default())
        }
        _ => escaped(key.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_cannot_be_read_is_no_default() {
        let place = tempfile::tempdir().unwrap();
        let places = Places {
            vendor: place.path().join("vendor"),
            admin: place.path().join("admin"),
            runtime: place.path().join("runtime"),
        };
        let disk = disk::Disk::default();
        let write = |name: &str, text: &str| disk.replace(&places.admin.join(name), text.as_bytes(), 0o644);
        let link = |name: &str| {
            disk.point(&places.admin.join(name), Path::new("/nowhere"), &place.path().join("private"))
        };
        disk.make_directory(&places.admin, 0o755).unwrap();
        disk.make_directory(&places.admin.join("whole.toml.d"), 0o755).unwrap();
        write("whole.toml", "root = '/srv/whole'\n").unwrap();
        for hidden in ["whole.toml.d/.#10-a.toml", ".#whole.toml"] {
            link(hidden).unwrap();
        }
        write("whole.toml.d/.20-b.toml", "this is no TOML").unwrap();
        assert!(load(&places, "whole").is_ok());
        assert_eq!(apps(&places), ["whole"]);
        link("dangling.toml").unwrap();
        write("file.toml", "root = '/srv/file'\n").unwrap();
        write("file.toml.d", "").unwrap();
        write("link.toml", "root = '/srv/link'\n").unwrap();
        link("link.toml.d").unwrap();
        for app in ["dangling", "file", "link"] {
            let problem = load(&places, app).unwrap_err();
            assert!(!matches!(problem, Problem::NoSuchApp { .. }), "{app}: {problem}");
        }
    }

    #[test]
    fn what_no_path_can_have_is_refused_in_any_key() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk::Disk::default();
        let file = directory.path().join("shop.toml");
        for (text, key) in [
            ("root = \"/srv/a\\u0000b\"", "root"),
            ("root = \"/srv/a\"\n[source]\nurl = \"https://a\\u0000b/\"", "source.url"),
            ("root = \"/srv/a\"\n[[data]]\npath = \"/srv/d\\u0000\"", "data"),
            ("root = \"/srv/a\"\n[links]\n\"a\\u0000b\" = \"/srv/d\"", "links.a"),
        ] {
            disk.replace(&file, text.as_bytes(), 0o644).unwrap();
            let why = load_file(&file).unwrap_err().to_string();
            assert!(why.contains(&format!("`{key}")) && why.contains("NUL"), "{text}: {why}");
        }
    }

    #[test]
    fn each_application_has_a_root_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let [vendor, admin, runtime] = ["vendor", "admin", "runtime"].map(|name| place.path().join(name));
        let places = Places { vendor, admin, runtime };
        let disk = disk::Disk::default();
        let root = place.path().join("shop");
        for directory in [&places.admin, &places.admin.join("two.toml.d"), &root] {
            disk.make_directory(directory, 0o755).unwrap();
        }
        disk.point(&place.path().join("link"), &root, &place.path().join("private")).unwrap();
        let write = |name: &str, root: &Path| {
            let text = format!("root = '{}'\n", root.display());
            disk.replace(&places.admin.join(name), text.as_bytes(), 0o644).unwrap();
        };
        write("one.toml", &root);
        for (two, is_other) in [
            ("shop", false),
            ("shop/", false),
            ("./shop/.", false),
            ("link", false),
            ("shop2", true),
            ("shop/x", true),
            ("", true),
        ] {
            let two = place.path().join(two);
            write("two.toml", &place.path().join("elsewhere"));
            write("two.toml.d/50.toml", &two);
            assert_eq!(check_root(&places, "one", &root).is_ok(), is_other, "{}", two.display());
            let told = check_root(&places, "two", &two);
            assert_eq!(told.is_ok(), is_other, "{}", two.display());
            assert!(told.err().is_none_or(|told| told.to_string().contains("one.toml")));
            assert!(check_root(&places, "draft", &two).is_ok());
        }
        // Of what is not there yet the paths tell.
        let absent = place.path().join("link/absent");
        write("one.toml", &root.join("absent"));
        write("two.toml.d/50.toml", &absent);
        let told = check_root(&places, "one", &root.join("absent")).unwrap_err().to_string();
        assert!(told.contains("two.toml.d/50.toml"), "{told}");
    }

    #[test]
    fn a_rollback_of_one_application_takes_nothing_from_another() {
        let place = tempfile::tempdir().unwrap();
        let [vendor, admin, runtime] = ["vendor", "admin", "runtime"].map(|name| place.path().join(name));
        let places = Places { vendor, admin, runtime };
        let disk = disk::Disk::default();
        for directory in [&places.admin, &place.path().join("data")] {
            disk.make_directory(directory, 0o755).unwrap();
        }
        disk.point(&place.path().join("link"), &place.path().join("data"), &place.path().join("private"))
            .unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        let write = |name: &str, root: &str, data: &str, more: &str| {
            let data = format!("[[data]]\npath = '{}'\n{more}\n", at(data));
            let text = format!("root = '{}'\n{data}", at(root));
            disk.replace(&places.admin.join(format!("{name}.toml")), text.as_bytes(), 0o644).unwrap();
        };
        for (data, more, is_good) in [
            ("data", "", false),
            ("link/", "", false),
            ("link/inner", "", false),
            ("data2", "", true),
            ("data", "on_rollback = 'keep'", false),
            ("roots", "", false),
            ("roots", "leave = ['one']", true),
            ("roots", "on_rollback = 'keep'", true),
        ] {
            write("one", "roots/one", "data", "");
            write("two", "two", data, more);
            for app in ["one", "two"] {
                let told = check_data(&places, app, &load(&places, app).unwrap().settings);
                assert_eq!(told.is_ok(), is_good, "{app} {data} {more}");
                assert!(told.err().is_none_or(|told| told.to_string().contains("leave")));
            }
        }
    }
}
