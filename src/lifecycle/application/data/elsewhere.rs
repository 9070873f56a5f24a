//! Data that are seen through another mount, too. A mount holds the directory, not its name: when a rollback moves the
//! directory away, that mount still shows it, and what is written there is set aside with it. So does an open file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::leave::Leave;
use super::restore::{AsideItem, is_there};
use super::snapshot::Method;
use super::{Data, Error, parent_of};
use crate::health;
use crate::lifecycle::application::service::{self, Action, Before};
use crate::lifecycle::application::units::Links;
use crate::sys::disk::Context as _;
use crate::sys::place::{View, views_of};
use crate::sys::systemd;
use crate::types::record::DataSnapshot;
use crate::types::{Span, escaped, escaped_path};

/// Which processes a switch stops, and with them the mounts that only they see.
#[derive(Clone, Debug, Default)]
pub enum Stopped {
    #[default]
    Nothing,
    /// Those of these units, of the units that releases have linked, and of what depends on them.
    Units(Vec<String>),
    /// What a command stops is not known.
    Unknown,
}

impl Stopped {
    pub fn by(settings: &service::Settings) -> Self {
        if settings.command.is_some() {
            Self::Unknown
        } else if settings.action == Action::None || !systemd::is_booted() {
            Self::Nothing
        } else {
            Self::Units(settings.units.clone())
        }
    }

    /// The names of the units; `None` where they are not known.
    fn units(&self, root: &Path) -> Option<BTreeSet<String>> {
        let declared = match self {
            Self::Nothing => return Some(BTreeSet::new()),
            Self::Unknown => return None,
            Self::Units(units) => units,
        };
        let linked = Links::new(root, Span::seconds(0).0, declared).ours().ok()?;
        let (declared, releases) = (declared.clone(), root.join("releases"));
        Before { declared, linked, releases, ..Before::default() }.stopped().ok()
    }
}

impl Data {
    /// Refuses data that, after a rollback, would be seen elsewhere as the newer release left them. What only the
    /// processes see that are stopped first goes with them.
    pub(super) fn refuse_views(&self, path: &Path, leave: Leave<'_>, method: Method) -> Result<(), Error> {
        let mut units = None;
        for View { within, point, pids } in moved_views(path, leave, method.is_by_content())? {
            let mut pid = None;
            if !pids.is_empty() {
                let units = units.get_or_insert_with(|| self.stopped.units(parent_of(&self.private)));
                let Some(units) = units else { continue };
                pid = pids.into_iter().find(|pid| !is_stopped(*pid, units));
                if pid.is_none() {
                    continue;
                }
            }
            let path = if within.as_os_str().is_empty() { path.to_owned() } else { path.join(within) };
            return Err(Error::Elsewhere { path, point, pid });
        }
        Ok(())
    }

    /// With everything stopped: says where these data are still seen that are about to be exchanged.
    pub fn seen_elsewhere(&self, item: &DataSnapshot) -> Vec<String> {
        let path = Path::new(&item.path);
        let is_by_content = Method::of(&item.method).is_some_and(Method::is_by_content);
        let views = moved_views(path, Leave::of(&item.leave), is_by_content).unwrap_or_default();
        let tell = |view: View| {
            let (within, point) = (path.join(&view.within), escaped_path(&view.point));
            let whose = view.pids.first().map(|pid| format!(" for process {pid}")).unwrap_or_default();
            format!(
                "`{}` is mounted at `{point}` too{whose}, which still shows the newer data that are set aside: mount it \
                 anew there",
                escaped_path(&within)
            )
        };
        views.into_iter().map(tell).collect()
    }

    /// Who goes on with the newer data that this rollback has set aside, for messages: what was stopped is none of them.
    pub fn used_aside(&self, items: &[DataSnapshot], transaction: &str) -> Vec<String> {
        let stored = items.iter().filter_map(|item| self.aside_of(item, transaction).ok());
        let tell = |aside: AsideItem| {
            let users = health::users_of(&aside.stored);
            let (first, more) = (users.first()?, users.len() - 1);
            let name = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
            let others = if more > 0 { format!(", and {more} more,") } else { String::new() };
            Some(format!(
                "process {first} ({}){others} was not stopped and still uses the newer data `{}`, which are set aside at `{}`: \
                 restart it, and name its unit in `[service] units`",
                escaped(name.trim_end().as_bytes()),
                escaped_path(&aside.path),
                escaped_path(&aside.stored)
            ))
        };
        stored.filter(|aside| is_there(&aside.stored)).filter_map(tell).collect()
    }

    /// Refuses to delete what somebody uses.
    pub(super) fn refuse_used(&self, places: &[PathBuf]) -> Result<(), Error> {
        for place in places {
            let used = |by| Err(Error::InUse { path: place.clone(), by });
            if let Some(view) = views_of(place).context("look at", place)?.into_iter().next() {
                let whose = view.pids.first().map(|pid| format!(" for process {pid}")).unwrap_or_default();
                return used(format!("it is mounted at `{}`{whose}", escaped_path(&view.point)));
            }
            let pids: Vec<_> = health::users_of(place).iter().map(ToString::to_string).collect();
            if !pids.is_empty() {
                return used(format!("used by process {}", pids.join(", ")));
            }
        }
        Ok(())
    }
}

/// The views of what an exchange moves. Where data are exchanged by their content, the directories above what is left in
/// place are not moved; what is left never is.
fn moved_views(path: &Path, leave: Leave<'_>, is_by_content: bool) -> Result<Vec<View>, Error> {
    let mut views = views_of(path).context("look at", path)?;
    views.retain(|view| {
        let is_left = view.within.ancestors().any(|part| leave.is(part));
        !(is_left || (is_by_content && leave.is_below(&view.within)))
    });
    Ok(views)
}

/// Whether a process ends with these units. One with process numbers of its own is a container's: who stops it (often a
/// unit that only asks a daemon to) is not known here, and it has its mounts made anew when it is started again.
fn is_stopped(pid: u32, units: &BTreeSet<String>) -> bool {
    let numbers = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(space) = numbers(&pid.to_string()) else { return true };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let is_ours = |line: &str| {
        line.rsplit(':').next().is_some_and(|path| path.split('/').any(|part| units.contains(part)))
    };
    numbers("self").is_some_and(|own| own != space) || groups.lines().any(is_ours)
}
