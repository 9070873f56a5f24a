//! All that a process gives up before it speaks with the network.
//!
//! What stays: sockets of IP and the resolver's, the certificates and the files that names are looked up in, and what is
//! open already. What cannot be given up on an old kernel is given up by the other means.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getuid, setgroups, setresgid, setresuid};

use crate::sys::{kernel::filter, wall};

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
        tracing::debug!(%error, "no sandbox: this kernel has no Landlock, or an old one");
    }
    if let Err(error) = filter::forbid_calls() {
        tracing::debug!(%error, "no filter of calls: this kernel has none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::process::Command;

    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use nix::unistd::Pid;

    use super::*;

    const INSIDE: &str = "CUTOVER_TEST_PORT";

    #[test]
    fn what_the_process_without_rights_tries_is_refused() {
        if !getuid().is_root() || !wall::is_there() {
            eprintln!("SKIPPED what_the_process_without_rights_tries_is_refused: not root, or no Landlock");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let tried = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "release::source::child::rights::tests::inside"])
            .env(INSIDE, port)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&tried.stdout);
        assert!(tried.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "gives up all rights of the process that runs it: the test above starts one"]
    fn inside() {
        let Some(port) = std::env::var(INSIDE).ok().and_then(|port| port.parse().ok()) else { return };
        give_up().unwrap();
        assert!(!getuid().is_root() && Uid::effective().as_raw() == NOBODY);
        for path in [
            "/etc/shadow",
            "/etc/passwd",
            "/etc/cutover",
            "/proc/1/environ",
            "/proc/self/mem",
            "/",
            "/tmp",
            "/run",
        ] {
            assert!(File::open(path).is_err(), "{path}");
        }
        for path in ["/tmp/made", "/etc/ssl/made", "/var/tmp/made", "/dev/shm/made", "made"] {
            assert!(File::create(path).is_err(), "{path}");
        }
        assert!(File::open("/etc/hosts").is_ok(), "names become addresses");
        for program in ["/bin/true", "/usr/bin/env", "/proc/self/exe"] {
            assert!(Command::new(program).status().is_err(), "{program}");
        }
        for family in [
            AddressFamily::Packet,
            AddressFamily::Vsock,
            AddressFamily::Alg,
            AddressFamily::Bluetooth,
            AddressFamily::Can,
        ] {
            let made = socket(family, SockType::Raw, SockFlag::empty(), None);
            assert_eq!(made.err(), Some(Errno::EPERM), "{family:?}");
        }
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), None);
        assert!(raw.is_err(), "packets of its own making");
        assert!(TcpListener::bind("127.0.0.1:0").is_err(), "nobody may call it");
        assert!(kill(Pid::parent(), None).is_err(), "it reaches no other process");
        assert!(nix::unistd::chroot("/").is_err());
        assert!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_err());
        assert!(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err());
        assert!(setrlimit(Resource::RLIMIT_FSIZE, 1, 1).is_err());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(), "what it is there for");
    }
}
