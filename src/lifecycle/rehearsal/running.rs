//! A rehearsal that was begun, as it is looked at.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::ports::{self, Listener, Protocol};
use super::{Cost, Rehearsal, copies_doubt, last_words};
use crate::health::{Checks, Observation, pids_of};
use crate::lifecycle::application::data::Copies;
use crate::sys::systemd;
use crate::types::escaped;

/// Where ports of clients begin, when the kernel does not say.
const EPHEMERAL: u16 = 32768;

pub struct Running {
    /// Asked where the release is.
    pub checks: Checks,
    /// Ports that it may listen on; empty: any that is free.
    pub allowed: Vec<u16>,
    /// Addresses of our own in its network.
    pub ways_out: Vec<String>,
    /// The application's units on the node, whose ports the release will have.
    pub running: Vec<String>,
    pub units: Vec<String>,
    /// A process in its network.
    pub pid: u32,
    /// The control group of all of it.
    pub group: String,
    pub copies: Copies,
    pub began: Timestamp,
}

impl Rehearsal for Running {
    fn observe(&mut self, at: Duration) -> Vec<Observation> {
        self.checks.observe(at)
    }

    fn objections(&self) -> Vec<String> {
        let ephemeral = ephemeral();
        let rehearsed: Vec<_> = all_listeners(self.pid, ephemeral)
            .into_iter()
            .filter(|one| {
                !self.ways_out.contains(&std::net::SocketAddr::new(one.address, one.port).to_string())
            })
            .collect();
        let own = Own::of(&self.running);
        let others: Vec<_> =
            all_listeners(1, ephemeral).into_iter().filter(|listener| !own.has(listener)).collect();
        ports::objections(&rehearsed, &others, &self.allowed, |listener| holder_of(listener.inode))
    }

    fn doubt(&self) -> Option<String> {
        copies_doubt(&self.copies)
    }

    fn last_words(&self) -> Vec<String> {
        last_words(&self.units, self.began)
    }

    fn cost(&self) -> Cost {
        let peak = |root: &str| {
            let path = Path::new(root).join(self.group.trim_start_matches('/')).join("memory.peak");
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let memory_bytes = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find_map(peak);
        Cost { copied_bytes: self.copies.copied_bytes, memory_bytes }
    }
}

/// The sockets of the application as it runs now.
struct Own {
    inodes: Vec<u64>,
    ports: Vec<u16>,
}

impl Own {
    fn of(units: &[String]) -> Self {
        let shown = systemd::show(units, &["ControlGroup", "TriggeredBy"]).unwrap_or_default();
        let pids = shown.iter().flat_map(|properties| pids_of(properties.get("ControlGroup")));
        let inodes = pids.flat_map(sockets_of).collect();
        let triggers = shown.iter().flat_map(|properties| properties.words("TriggeredBy"));
        let mut sockets: Vec<String> = triggers
            .chain(units.iter().map(String::as_str))
            .filter(|unit| unit.ends_with(".socket"))
            .map(str::to_owned)
            .collect();
        sockets.sort();
        sockets.dedup();
        // What systemd itself holds for the application: `127.0.0.1:8080 (Stream)`.
        let listens = systemd::listens(&sockets).unwrap_or_default();
        let port = |text: &String| text.split(' ').next()?.rsplit_once(':')?.1.parse().ok();
        Self { inodes, ports: listens.iter().filter_map(port).collect() }
    }

    fn has(&self, listener: &Listener) -> bool {
        self.inodes.contains(&listener.inode) || self.ports.contains(&listener.port)
    }
}

/// What is listened on in the network of a process.
fn all_listeners(pid: u32, ephemeral: u16) -> Vec<Listener> {
    let files =
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    files.iter().flat_map(|(name, protocol)| ports::listeners(&read(name), *protocol, ephemeral)).collect()
}

fn ephemeral() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(EPHEMERAL)
}

/// The numbers of the sockets that a process has open.
fn sockets_of(pid: u32) -> Vec<u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Who has a socket, for people.
fn holder_of(inode: u64) -> String {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // systemd has the sockets of others, too: a process of its own goes before it.
    pids.sort_unstable_by(|one, other| other.cmp(one));
    match pids.into_iter().find(|pid| sockets_of(*pid).contains(&inode)) {
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("`{}` (pid {pid})", escaped(name.trim_end().as_bytes()))
        }
        None => "another process".to_owned(),
    }
}
