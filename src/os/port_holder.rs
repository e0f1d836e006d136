//! Who holds a TCP port, for the one line that says why the broker cannot start. Best effort over /proc: another
//! user's process is seen by root alone, and a box without /proc gives nothing.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A process with a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// The command's name, as the kernel keeps it: cut after 15 bytes.
    pub name: String,
}

/// The process whose listening socket keeps `wanted` from being bound.
pub fn port_holder(wanted: SocketAddr) -> Option<Holder> {
    let mut links = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        let sockets = text.lines().filter_map(listening_socket).filter(|(held, _)| conflict(wanted, *held));
        links.extend(sockets.map(|(_, inode)| format!("socket:[{inode}]")));
    }
    if links.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        if !has_open(pid, &links) {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(Holder { pid, name: name.trim_end().to_string() })
    })
}

fn has_open(pid: u32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

/// Address and inode of a line of /proc/net/tcp or tcp6 if it describes a listening socket.
fn listening_socket(line: &str) -> Option<(SocketAddr, &str)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    if state != LISTEN {
        return None;
    }
    Some((SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?), inode))
}

/// The kernel prints an address as numbers of 32 bits in its own byte order: one for IPv4, four for IPv6.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// Whether a socket on `held` keeps `wanted` from being bound. An IPv6 socket on all addresses may hold IPv4, too.
fn conflict(wanted: SocketAddr, held: SocketAddr) -> bool {
    let any = wanted.ip().is_unspecified() || held.ip().is_unspecified();
    let family = wanted.is_ipv4() == held.is_ipv4() || held.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    wanted.port() == held.port() && (wanted.ip() == held.ip() || any && family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = port_holder(listener.local_addr().unwrap()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(holder.name, fs::read_to_string("/proc/self/comm").unwrap().trim_end());
    }

    #[test]
    fn all_addresses_conflict_with_any_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(port_holder((Ipv4Addr::UNSPECIFIED, port).into()).unwrap().pid, std::process::id());
        assert_eq!(port_holder((Ipv4Addr::new(127, 0, 0, 2), port).into()), None);
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let v4 = format!(
            "   0: {:08X}:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100",
            u32::from_ne_bytes([127, 0, 0, 1])
        );
        assert_eq!(listening_socket(&v4), Some(("127.0.0.1:1883".parse().unwrap(), "4711")));
        let v6 = format!(
            "   1: {:08X}{:08X}{:08X}{:08X}:075B 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4712 1",
            u32::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8]),
            0,
            0,
            u32::from_ne_bytes([0, 0, 0, 1])
        );
        assert_eq!(listening_socket(&v6), Some(("[2001:db8::1]:1883".parse().unwrap(), "4712")));
    }

    #[test]
    fn other_lines_are_passed_over() {
        let connected = "   0: 0100007F:075B 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let cut = "   0: 0100007F:07";
        for line in [connected, header, cut, ""] {
            assert_eq!(listening_socket(line), None, "{line}");
        }
    }
}
