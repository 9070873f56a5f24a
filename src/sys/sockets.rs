//! On which addresses processes listen, as the kernel tells it in `/proc` (proc_pid_net(5)).

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Descriptors looked at in one process, at most.
const DESCRIPTORS_MAX: usize = 65_536;
/// The state of a socket that listens.
const LISTEN: &str = "0A";

/// The TCP addresses on which these processes listen, in order. Needs root for processes of others.
pub fn listening(pids: &[u32]) -> Vec<SocketAddr> {
    let mut found = BTreeSet::new();
    for pid in pids {
        let process = Path::new("/proc").join(pid.to_string());
        let own = inodes(&process.join("fd"));
        // The network of the process, which need not be ours.
        for (file, parse) in [("net/tcp", ipv4 as fn(&str) -> Option<SocketAddr>), ("net/tcp6", ipv6)] {
            let text = fs::read_to_string(process.join(file)).unwrap_or_default();
            found.extend(text.lines().skip(1).filter_map(|line| of_line(line, &own, parse)));
        }
    }
    found.into_iter().collect()
}

fn inodes(descriptors: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(descriptors).into_iter().flatten().flatten().take(DESCRIPTORS_MAX);
    let targets =
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
    targets
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
fn of_line(line: &str, own: &BTreeSet<String>, parse: fn(&str) -> Option<SocketAddr>) -> Option<SocketAddr> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *state == LISTEN && own.contains(*inode) { parse(local) } else { None }
}

/// `0100007F:1F90`: the address in the machine's byte order, the port as it is written.
fn ipv4(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    Some(SocketAddr::new(IpAddr::V4(address), u16::from_str_radix(port, 16).ok()?))
}

fn ipv6(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = [0; 16];
    for (number, bytes) in bytes.chunks_mut(4).enumerate() {
        let word = u32::from_str_radix(address.get(number * 8..number * 8 + 8)?, 16).ok()?;
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let address = Ipv6Addr::from(bytes);
    // An IPv4 address in the form of IPv6 is told as what it is.
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listeners_are_found_and_gone_when_they_are_closed() {
        let listeners: Vec<TcpListener> =
            ["127.0.0.1:0", "[::1]:0"].iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
        let wanted: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let found = listening(&[std::process::id()]);
        assert!(
            !wanted.is_empty() && wanted.iter().all(|address| found.contains(address)),
            "{found:?} {wanted:?}"
        );
        drop(listeners);
        let found = listening(&[std::process::id()]);
        assert!(!wanted.iter().any(|address| found.contains(address)), "{found:?}");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(ipv4("0100007F:1F90"), "127.0.0.1:8080".parse().ok());
        assert_eq!(ipv6("00000000000000000000000000000000:0050"), "[::]:80".parse().ok());
        assert_eq!(ipv6("0000000000000000FFFF00000100007F:0050"), "127.0.0.1:80".parse().ok());
        assert_eq!(ipv4("nonsense"), None);
    }
}
