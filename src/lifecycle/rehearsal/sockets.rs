//! The sockets in the file system that somebody on the node listens on: a rehearsal must reach none of them.
//!
//! `/proc/net/unix` has the name that was given when the socket was bound, which may be relative to a directory that only
//! its process knew, or within another root. Where that name is no path here, the kernel is asked for the file itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::sys::kernel::descriptor;

/// What `/proc/net/unix` says of one socket with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    inode: u64,
    name: PathBuf,
}

/// Where all of them are. The error is the name of one that cannot be found.
pub(super) fn find(text: &str) -> Result<Vec<PathBuf>, PathBuf> {
    let is_socket = |path: &Path| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let (here, elsewhere): (Vec<Named>, Vec<Named>) =
        named(text).into_iter().partition(|socket| socket.name.is_absolute() && is_socket(&socket.name));
    let mut paths: Vec<_> = here.into_iter().map(|socket| socket.name).collect();
    if !elsewhere.is_empty() {
        let holders = holders();
        // Each connection that was accepted has the name, too: one of them is enough.
        let mut found: BTreeMap<PathBuf, Option<PathBuf>> = BTreeMap::new();
        for socket in elsewhere {
            let place = found.entry(socket.name.clone()).or_default();
            if place.is_none() {
                *place = holders.get(&socket.inode).and_then(|(pid, descriptor)| file_of(*pid, *descriptor));
            }
        }
        for (name, place) in found {
            match place {
                Some(path) => paths.push(path),
                // A path in another root, which is not found here, leads nowhere from here.
                None if name.is_absolute() => {}
                None => return Err(name),
            }
        }
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The sockets with a name in the file system; an abstract one begins with `@`, and is in the network's name space.
fn named(text: &str) -> Vec<Named> {
    let named = |line: &str| {
        // A name may have blanks: it is the rest of the line.
        let mut words = line.trim_start().splitn(8, ' ').skip_while(|word| word.is_empty()).skip(6);
        let inode = words.next()?.parse().ok()?;
        let name = words.next().filter(|name| !name.is_empty())?;
        (!name.starts_with('@')).then(|| Named { inode, name: name.into() })
    };
    text.lines().skip(1).filter_map(named).collect()
}

/// Who holds each socket: a process and its descriptor, by the socket's number.
fn holders() -> BTreeMap<u64, (i32, i32)> {
    let mut holders = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let target = fs::read_link(entry.path()).ok();
            let inode = target
                .as_deref()
                .and_then(Path::to_str)
                .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let (Some(number), Some(inode)) = (number, inode) {
                holders.insert(inode, (pid, number));
            }
        }
    }
    holders
}

/// The file that a socket of another process is bound to, as a path here.
fn file_of(pid: i32, descriptor: i32) -> Option<PathBuf> {
    let file = descriptor::socket_file(pid, descriptor).ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn names_are_read_with_blanks_and_without_a_slash() {
        let text = "Num RefCount Protocol Flags Type St Inode Path
0: 00000002 00000000 00010000 0001 01 100 /run/a b
1: 00000002 00000000 00010000 0001 01 101 app.sock
2: 00000003 00000000 00000000 0001 03 102
3: 00000002 00000000 00010000 0001 01 103 @abstract
";
        let socket = |inode, name: &str| Named { inode, name: name.into() };
        assert_eq!(named(text), [socket(100, "/run/a b"), socket(101, "app.sock")]);
    }

    #[test]
    fn a_socket_that_was_bound_by_a_relative_name_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap();
        let before = std::env::current_dir().unwrap();
        std::env::set_current_dir(&real).unwrap();
        let socket = UnixListener::bind("cutover-test.sock").unwrap();
        std::env::set_current_dir(before).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        if descriptor::socket_file(own, socket.as_raw_fd()).is_err() {
            eprintln!(
                "SKIPPED a_socket_that_was_bound_by_a_relative_name_is_found: may not ask for its file"
            );
            return;
        }
        let text = fs::read_to_string("/proc/self/net/unix").unwrap();
        let line = text.lines().find(|line| line.ends_with(" cutover-test.sock")).unwrap();
        assert_eq!(find(&format!("head\n{line}\n")).unwrap(), [real.join("cutover-test.sock")]);
        drop(socket);
        assert!(find(&format!("head\n{line}\n")).is_err(), "nobody holds it any more");
    }
}
