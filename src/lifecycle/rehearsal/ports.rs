//! What a release listens on in a network of its own, against what is taken on the node: with a port of somebody else it
//! would not come up after the switch.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The state of a TCP socket that listens, and of a UDP socket that is bound and not connected (proc(5)).
const TCP_LISTENS: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A socket that others can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// The socket's number, by which its owner is found.
    pub inode: u64,
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        write!(formatter, "{name} port {}", self.port)
    }
}

impl Listener {
    /// Whether the kernel would refuse one beside the other.
    pub fn collides(&self, other: &Self) -> bool {
        let is_any = |address: &IpAddr| address.is_unspecified();
        let overlaps = match (&self.address, &other.address) {
            (one, other) if one.is_ipv4() == other.is_ipv4() => one == other || is_any(one) || is_any(other),
            // A socket for all IPv6 addresses takes the IPv4 ones, too.
            (one, other) => (one.is_ipv6() && is_any(one)) || (other.is_ipv6() && is_any(other)),
        };
        self.protocol == other.protocol && self.port == other.port && overlaps
    }
}

/// The listening sockets in a file such as `/proc/1/net/tcp`. UDP ports from `ephemeral` on are those of clients.
pub fn listeners(text: &str, protocol: Protocol, ephemeral: u16) -> Vec<Listener> {
    let wanted = match protocol {
        Protocol::Tcp => TCP_LISTENS,
        Protocol::Udp => UDP_UNCONNECTED,
    };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, port) = words.nth(1)?.split_once(':')?;
            if words.nth(1)? != wanted {
                return None;
            }
            let inode = words.nth(5)?.parse().ok()?;
            let port = u16::from_str_radix(port, 16).ok()?;
            Some(Listener { protocol, address: address_of(address)?, port, inode })
        })
        .filter(|listener| protocol == Protocol::Tcp || listener.port < ephemeral)
        .collect()
}

/// Words of 32 bits in the machine's order, as hexadecimal digits.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// What speaks against what a release listens on: a port that is not one of `allowed` (if any are named), or one that
/// somebody else (`others`) has on the node. `taken` names who has it.
pub fn objections(
    rehearsed: &[Listener],
    others: &[Listener],
    allowed: &[u16],
    taken: impl Fn(&Listener) -> String,
) -> Vec<String> {
    let mut found = Vec::new();
    for listener in rehearsed {
        if !allowed.is_empty() && !allowed.contains(&listener.port) {
            found.push(format!("it listens on {listener}, which `rehearsal.ports` does not name"));
        } else if let Some(other) = others.iter().find(|other| listener.collides(other)) {
            found.push(format!("it listens on {listener}, which {} has on this node", taken(other)));
        }
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 99 1
";

    #[test]
    fn listening_sockets_are_read() {
        let found = listeners(TCP, Protocol::Tcp, 32768);
        let told: Vec<_> = found.iter().map(|one| (one.address.to_string(), one.port, one.inode)).collect();
        assert_eq!(told, [("127.0.0.1".to_owned(), 8080, 4711), ("0.0.0.0".to_owned(), 22, 4712)]);
        let six = listeners(TCP6, Protocol::Tcp, 32768);
        assert!(six[0].address.is_unspecified() && six[0].port == 443 && six[0].inode == 99, "{six:?}");
        assert!(listeners("nonsense\nmore", Protocol::Udp, 1).is_empty());
        let udp = TCP.replace(" 0A ", " 07 ");
        assert_eq!(listeners(&udp, Protocol::Udp, 8000).len(), 1, "ports of clients were taken for services");
    }

    #[test]
    fn a_port_of_somebody_else_or_of_nobodys_choice_is_objected_to() {
        let at = |address: &str, port| Listener {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            port,
            inode: 0,
        };
        let others = [at("0.0.0.0", 9100), at("127.0.0.1", 5432), at("10.0.0.1", 80)];
        for (address, port, is_refused) in [
            ("127.0.0.1", 9100, true),
            ("0.0.0.0", 5432, true),
            ("::", 80, true),
            ("::1", 80, false),
            ("10.0.0.2", 80, false),
            ("127.0.0.1", 8080, false),
        ] {
            let found = objections(&[at(address, port)], &others, &[], |_| "`db`".to_owned());
            assert_eq!(!found.is_empty(), is_refused, "{address}:{port}: {found:?}");
        }
        let found = objections(&[at("0.0.0.0", 8081)], &[], &[8080], |_| String::new());
        assert_eq!(found, ["it listens on TCP port 8081, which `rehearsal.ports` does not name"]);
    }
}
