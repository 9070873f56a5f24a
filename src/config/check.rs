//! What no single key can tell: values that do not go together, or that nothing can be done with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;
use crate::lifecycle::application::data::leave::is_within;
use crate::lifecycle::settings::Settings;
use crate::release::source;

/// What no single key can tell.
pub fn check(settings: &Settings) -> Result<(), Problem> {
    let contradiction = |why: String| Err(Problem::Contradiction { why });
    if !settings.root.as_os_str().is_empty() && !settings.root.is_absolute() {
        return contradiction(format!("`root` must be an absolute path, not `{}`", settings.root.display()));
    }
    if let Err(error) = source::check(&settings.source) {
        return contradiction(format!("`source`: {error}"));
    }
    if settings.store.keep == 0 {
        return contradiction("`store.keep` must be at least 1: the active release stays in any case".into());
    }
    if !settings.archive.is_window_known() {
        return contradiction(format!(
            "`archive.max_window` must be a power of two from 8MiB to 2GiB, not {}",
            settings.archive.max_window
        ));
    }
    let archive = &settings.archive;
    if archive.max_entries == Some(0) || archive.max_bytes.is_some_and(|size| size.0 == 0) {
        return contradiction("`archive.max_entries` and `archive.max_bytes` must be more than zero".into());
    }
    if settings.hooks.timeout.0.is_zero() {
        return contradiction("`hooks.timeout` must be longer than zero".into());
    }
    if let Err(error) = settings.health.validate() {
        return contradiction(error.to_string());
    }
    if let Err(error) = settings.service.validate() {
        return contradiction(error.to_string());
    }
    if let Err(error) = settings.rehearsal.validate(&settings.health, !settings.data.is_empty()) {
        return contradiction(error.to_string());
    }
    for data in &settings.data {
        if let Some(why) = unfit_data(&data.path, &settings.root) {
            return contradiction(format!("`data.path` {why}, not `{}`", data.path.display()));
        }
        if let Some(left) = data.leave.iter().find(|left| !is_within(left)) {
            return contradiction(format!(
                "`data.leave` must have paths within `{}`, not `{}`",
                data.path.display(),
                left.display()
            ));
        }
    }
    settings.links.iter().try_for_each(|(name, target)| match unfit_link(name, target, &settings.links) {
        Some(why) => contradiction(format!("`links`: `{name}` {why}")),
        None => Ok(()),
    })?;
    Ok(())
}

/// Why a path cannot be data that are snapshotted and exchanged.
fn unfit_data(path: &Path, root: &Path) -> Option<&'static str> {
    let is_plain = path.components().all(|part| part != std::path::Component::ParentDir);
    if !path.is_absolute() || !is_plain || path.file_name().is_none() {
        return Some("must be an absolute path without `..`");
    }
    let has_root = !root.as_os_str().is_empty();
    let is_ours = ["releases", "current", ".cutover"].iter().any(|name| path.starts_with(root.join(name)));
    if has_root && (root.starts_with(path) || is_ours) {
        return Some("must be beside releases and pointer, neither above nor within them");
    }
    None
}

/// Why this cannot be a link of a tree.
fn unfit_link(name: &str, target: &Path, links: &BTreeMap<String, PathBuf>) -> Option<&'static str> {
    const NAME_BYTES_MAX: usize = libc::NAME_MAX as usize;
    // With the byte that ends them.
    const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize - 1;
    let is_inside = !name.is_empty()
        && !name.starts_with('/')
        && name.split('/').all(|part| !["", ".", ".."].contains(&part));
    if !is_inside || !target.is_absolute() {
        return Some("must be a name inside of the tree, with an absolute target");
    }
    let is_long = |path: &Path| {
        path.as_os_str().len() > PATH_BYTES_MAX || path.iter().any(|part| part.len() > NAME_BYTES_MAX)
    };
    if is_long(Path::new(name)) || is_long(target) {
        return Some("or its target is too long: names have at most 255 bytes, paths 4095");
    }
    let is_in_link =
        Path::new(name).ancestors().skip(1).any(|above| links.keys().any(|link| Path::new(link) == above));
    is_in_link.then_some("is within another link, and so outside of the tree")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lie_beside_releases_and_pointer() {
        let root = Path::new("/srv/shop");
        for good in ["/srv/shop/data", "/var/lib/shop", "/srv/shop/shared/uploads"] {
            assert_eq!(unfit_data(Path::new(good), root), None, "{good}");
        }
        for bad in
            ["data", "/", "/srv", "/srv/shop", "/srv/shop/releases/1", "/srv/shop/.cutover", "/srv/x/../shop"]
        {
            assert!(unfit_data(Path::new(bad), root).is_some(), "{bad}");
        }
    }

    #[test]
    fn links_are_names_in_the_tree() {
        let check_links = |text: &str| match toml::from_str::<Settings>(&format!("[links]\n{text}")) {
            Ok(settings) => check(&settings).map(|()| settings.links.into_keys().collect::<Vec<_>>()).ok(),
            Err(_) => None,
        };
        let long = "n".repeat(256);
        assert_eq!(check_links("'up/' = '/srv/up'"), Some(vec!["up".to_owned()]));
        assert_eq!(check_links("'a/up' = '/srv/up/'\n'a/up2' = '/x'").map(|names| names.len()), Some(2));
        for bad in [
            "'up' = '/a'\n'up/' = '/b'".to_owned(),
            "'up' = '/a'\n'up/in' = '/b'".to_owned(),
            "'/' = '/a'".to_owned(),
            "'up//' = '/a'".to_owned(),
            "'../up' = '/a'".to_owned(),
            "'up' = 'a'".to_owned(),
            format!("'{long}' = '/a'"),
            format!("'up' = '/a/{long}'"),
            format!("'up' = '/{}'", "a/".repeat(2100)),
        ] {
            assert_eq!(check_links(&bad), None, "{bad}");
        }
    }

    #[test]
    fn services_that_cannot_work_are_refused() {
        for text in ["[service]\nunits = [\"shop\"]", "[service]\nunits = [\"--now.service\"]"] {
            let settings: Settings = toml::from_str(text).unwrap();
            assert!(check(&settings).is_err(), "{text}");
        }
    }
}
