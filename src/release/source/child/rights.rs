//! All that a process gives up before it speaks with the network.
//!
//! What stays: sockets of IP and the resolver's, the certificates and the files that names are looked up in, and what is
//! open already. What cannot be given up on an old kernel is given up by the other means.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getuid, setgroups, setresgid, setresuid};

use crate::sys::{ioctl, wall};

/// `nobody` and `nogroup`, by their numbers: a list of users may not be there.
const NOBODY: u32 = 65534;

/// Memory that the process may ask for: address space, most of which is never used.
const MEMORY_BYTES: u64 = 4 << 30;

/// What may be read: certificates, how names become addresses, and the libraries that do it.
const READABLE: [&str; 26] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/ssl",
    "/nix/store",
    "/gnu/store",
];

fn become_nobody() -> io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    let root = Uid::from_raw(0);
    match setresuid(root, root, root) {
        Ok(()) => Err(io::Error::other("the process that reads the source stayed root")),
        Err(_) => Ok(()),
    }
}

/// Whether user 0 is that of the machine, and all others are there.
fn is_machines_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Gives them up, for good.
///
/// # Errors
/// When root stays root: then nothing is read.
pub fn give_up() -> io::Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY_BYTES),
        (Resource::RLIMIT_NOFILE, 512),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    if getuid().is_root() {
        // In a container of an ordinary user's, root is that user, and there may be no other.
        let is_machines_root = is_machines_root();
        let changed = become_nobody();
        if is_machines_root {
            changed?;
        }
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os);
    let readable = READABLE.into_iter().map(Into::into).chain(named);
    if let Err(error) = wall::leave_only(readable) {
        tracing::debug!(%error, "no wall: this kernel has no Landlock, or an old one");
    }
    if let Err(error) = ioctl::forbid_calls() {
        tracing::debug!(%error, "no filter of calls: this kernel has none");
    }
    Ok(())
}
