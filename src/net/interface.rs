//! The addresses of network interfaces, as the kernel has them now.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

/// The addresses with port 0, IPv4 first; nothing if there is no such interface. Link-local IPv6 addresses have their scope.
pub fn addresses(interface: &str) -> io::Result<Option<Vec<SocketAddr>>> {
    let (mut is_there, mut addresses) = (false, Vec::new());
    each(|name, address| {
        if name == interface.as_bytes() {
            is_there = true;
            addresses.extend(address);
        }
    })?;
    Ok(is_there.then(|| ordered(addresses)))
}

/// Each once, IPv4 first.
pub fn ordered(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv4() { &mut v4 } else { &mut v6 };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    v4.append(&mut v6);
    v4
}

/// The name of the interface that has this address.
pub fn owner(ip: IpAddr) -> Option<String> {
    let mut owner = None;
    // Nothing of use follows from not knowing.
    let _ = each(|name, address| {
        if address.is_some_and(|address| address.ip() == ip) {
            owner.get_or_insert_with(|| String::from_utf8_lossy(name).into_owned());
        }
    });
    owner
}

fn each(mut seen: impl FnMut(&[u8], Option<SocketAddr>)) -> io::Result<()> {
    let mut first = ptr::null_mut();
    // SAFETY: getifaddrs writes the head of a list that is freed below.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut at = first;
    while !at.is_null() {
        // SAFETY: `at` is an entry of the list, which lives until freeifaddrs; names are C strings, and an address is nothing
        // or as long as its family says.
        unsafe {
            let entry = &*at;
            let address = if entry.ifa_addr.is_null() { None } else { address(entry.ifa_addr) };
            if !entry.ifa_name.is_null() {
                seen(CStr::from_ptr(entry.ifa_name).to_bytes(), address);
            }
            at = entry.ifa_next;
        }
    }
    // SAFETY: the list is the one from getifaddrs, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(())
}

/// An IPv4 or IPv6 address.
///
/// # Safety
/// `raw` points to an address as long as its family says.
unsafe fn address(raw: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: each read is of the structure the family stands for; unaligned, because a list of bytes may hold it anywhere.
    unsafe {
        match libc::c_int::from((*raw).sa_family) {
            libc::AF_INET => {
                let v4: libc::sockaddr_in = ptr::read_unaligned(raw.cast());
                Some((Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()), 0).into())
            }
            libc::AF_INET6 => {
                let v6: libc::sockaddr_in6 = ptr::read_unaligned(raw.cast());
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, 0, 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::is_interface_name;

    #[test]
    fn the_loopback_interface_has_its_address() {
        let addresses = addresses("lo").unwrap().unwrap();
        assert!(addresses.contains(&"127.0.0.1:0".parse().unwrap()), "{addresses:?}");
        assert!(addresses.is_sorted_by_key(SocketAddr::is_ipv6));
        assert_eq!(owner(Ipv4Addr::LOCALHOST.into()).unwrap(), "lo");
    }

    #[test]
    fn an_interface_that_is_not_there_is_nothing() {
        assert_eq!(addresses("none-such0").unwrap(), None);
        // An address for documentation: no machine has it.
        assert_eq!(owner(Ipv4Addr::new(203, 0, 113, 1).into()), None);
    }

    #[test]
    fn not_everything_can_be_an_interface() {
        assert!(["lo", "eth0.2", "br-lan", "0123456789abcde"].into_iter().all(is_interface_name));
        assert!(!["", "0123456789abcdef", "a/b", "eth 0", "eth0:1", ".."].into_iter().any(is_interface_name));
    }
}
