//! Which tree processes run from, as the kernel knows it. A restart that leaves old code running is found here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::types::escaped_path;

/// Processes looked at in one unit, at most. A unit with more is judged by these.
const PROCESSES_MAX: usize = 10_000;
/// How much of a process's map is read, in bytes.
const MAPS_MAX: u64 = 16 << 20;

/// The processes of the declared units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Processes {
    /// Those that run from the active tree.
    pub new: Vec<u32>,
    /// Those that run from another one.
    pub old: Vec<OldProcess>,
}

/// A process that runs from a tree that is not active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OldProcess {
    /// Its number.
    pub pid: u32,
    /// The unit that it belongs to.
    pub unit: String,
    /// What it holds of the other tree.
    pub path: String,
}

/// The processes in the control groups of units (`(unit, ControlGroup)`, as `systemctl show` says it), sorted by
/// the tree they run from. Those that use no tree at all (`/usr/bin/node` with a script) are in neither list.
///
/// `releases` is the directory of all trees, `active` the tree that the pointer names.
pub fn of_groups(groups: &[(String, String)], releases: &Path, active: &Path) -> Processes {
    let mut found = Processes::default();
    for (unit, group) in groups {
        for pid in pids_of(group) {
            let used = files_of(pid, releases);
            match used.iter().find(|path| !path.starts_with(active)) {
                Some(path) => {
                    found.old.push(OldProcess { pid, unit: unit.clone(), path: escaped_path(path) });
                }
                None if used.is_empty() => {}
                None => found.new.push(pid),
            }
        }
    }
    found
}

/// Which processes of the machine use which tree under `releases`, by the tree's name. For pruning: needs root to see
/// everybody's processes.
pub fn in_use(releases: &Path) -> BTreeMap<PathBuf, Vec<u32>> {
    let mut trees: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let names: BTreeSet<_> = files_of(pid, releases)
            .iter()
            .filter_map(|path| path.strip_prefix(releases).ok()?.iter().next().map(PathBuf::from))
            .collect();
        for name in names {
            trees.entry(name).or_default().push(pid);
        }
    }
    trees
}

/// The processes of a control group and of those in it, on a machine with cgroup2, with or without version 1 beside it.
pub fn pids_of(group: &str) -> Vec<u32> {
    let group = group.trim_start_matches('/');
    if group.is_empty() {
        return Vec::new();
    }
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let Some(top) = roots.iter().map(|root| Path::new(root).join(group)).find(|path| path.is_dir()) else {
        return Vec::new();
    };
    let mut pids = Vec::new();
    let mut directories = vec![top];
    while let Some(directory) = directories.pop() {
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
        if pids.len() >= PROCESSES_MAX {
            pids.truncate(PROCESSES_MAX);
            break;
        }
        let inner = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(
            inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()),
        );
    }
    pids
}

/// What a process has of `releases`: program, working and root directory, mapped files. Empty when it is gone.
fn files_of(pid: u32, releases: &Path) -> BTreeSet<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut files: BTreeSet<_> = ["exe", "cwd", "root"]
        .iter()
        .filter_map(|name| fs::read_link(process.join(name)).ok())
        .filter(|path| path.starts_with(releases))
        .collect();
    let Ok(maps) = fs::File::open(process.join("maps")) else { return files };
    let mut maps = BufReader::new(maps.take(MAPS_MAX));
    let mut line = Vec::new();
    while maps.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        // address perms offset device inode path (proc_pid_maps(5)); the path is the rest of the line.
        if let Some(begin) = line.iter().position(|byte| *byte == b'/') {
            let path = Path::new(OsStr::from_bytes(line[begin..].trim_ascii_end()));
            if path.starts_with(releases) && !files.contains(path) {
                files.insert(path.to_owned());
            }
        }
        line.clear();
    }
    files
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_by_the_tree_it_runs_in() {
        let directory = tempfile::tempdir().unwrap();
        let releases = directory.path().canonicalize().unwrap();
        let tree = releases.join("1.0");
        crate::sys::disk::Disk::default().make_directory(&tree, 0o755).unwrap();
        let mut child =
            Command::new("sleep").arg("60").current_dir(&tree).stdout(Stdio::null()).spawn().unwrap();
        let trees = in_use(&releases);
        let files = files_of(child.id(), &releases);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(trees, [("1.0".into(), vec![child.id()])].into());
        assert_eq!(files, [tree].into());
        assert!(in_use(&releases).is_empty());
    }

    #[test]
    fn our_own_program_is_seen_as_mapped() {
        let program = std::env::current_exe().unwrap();
        let files = files_of(std::process::id(), program.parent().unwrap());
        assert!(files.contains(&program), "{files:?}");
    }
}
