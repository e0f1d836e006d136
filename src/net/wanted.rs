//! Which places a listener is to be bound to, as things are now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::OpenError;
use super::interface;
use super::place::Place;
use crate::config::{Domain, Host, ListenerConfig, is_interface_name};

/// The places of a listener, IPv4 first: a free port is then looked for where most programs have theirs. Never none. `resolved` is
/// what the name of its host stands for, if that is known.
pub fn places(config: &ListenerConfig, port: u16, resolved: Option<&[SocketAddr]>) -> Result<Vec<Place>, OpenError> {
    let both = |v4: Ipv4Addr, v6: Ipv6Addr| vec![(v4, 0).into(), (v6, 0).into()];
    let mut addresses = match (&config.host, resolved) {
        (Host::Unix(path), _) => return Ok(vec![Place::Unix(path.clone())]),
        (Host::All, _) => both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        (Host::Loopback, _) => both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        (Host::Named(_), Some(resolved)) => resolved.to_vec(),
        (Host::Named(host), None) => match host.parse::<IpAddr>() {
            Ok(ip) => vec![(ip, 0).into()],
            Err(_) => return Err(OpenError::Lookup { host: host.clone(), error: None }),
        },
    };
    if let Some(interface) = &config.interface {
        addresses = of_interface(interface, &config.host, addresses)?;
    }
    if let Some(domain) = config.domain {
        addresses.retain(|address| address.is_ipv4() == (domain == Domain::Ipv4));
        if addresses.is_empty() {
            return Err(match (&config.interface, &config.host) {
                (None, Host::Named(host)) => OpenError::Domain { host: host.clone(), domain },
                (interface, _) => OpenError::InterfaceLacks {
                    interface: interface.clone().unwrap_or_default(),
                    host: None,
                    domain: Some(domain),
                },
            });
        }
    }
    addresses.iter_mut().for_each(|address| address.set_port(port));
    Ok(addresses.into_iter().map(Place::Tcp).collect())
}

/// Of an interface's addresses those that are asked for.
fn of_interface(name: &str, host: &Host, asked: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, OpenError> {
    if !is_interface_name(name) {
        return Err(OpenError::InterfaceName { interface: name.to_string() });
    }
    let mut own = interface::addresses(name)
        .map_err(OpenError::Interfaces)?
        .ok_or_else(|| OpenError::NoInterface { interface: name.to_string() })?;
    if *host != Host::All {
        own.retain(|own| asked.iter().any(|asked| asked.ip() == own.ip()));
    }
    if !own.is_empty() {
        return Ok(own);
    }
    let elsewhere = |asked: &SocketAddr| interface::owner(asked.ip()).map(|owner| (asked.ip(), owner));
    if *host != Host::All
        && let Some((ip, owner)) = asked.iter().find_map(elsewhere)
    {
        return Err(OpenError::Elsewhere { ip, owner, interface: name.to_string() });
    }
    let host = match host {
        Host::Named(host) => Some(host.clone()),
        _ => None,
    };
    Err(OpenError::InterfaceLacks { interface: name.to_string(), host, domain: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str) -> ListenerConfig {
        ListenerConfig::new(1883, Host::Named(host.to_string()))
    }

    fn text(config: &ListenerConfig, resolved: Option<&[SocketAddr]>) -> String {
        match places(config, config.port, resolved) {
            Ok(places) => places.iter().map(Place::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_family_may_be_chosen() {
        let mut config = ListenerConfig::new(1883, Host::All);
        assert_eq!(text(&config, None), "0.0.0.0 port 1883, :: port 1883");
        config.domain = Some(Domain::Ipv4);
        assert_eq!(text(&config, None), "0.0.0.0 port 1883");
        config.domain = Some(Domain::Ipv6);
        assert_eq!(text(&config, None), ":: port 1883");
        config.host = Host::Loopback;
        assert_eq!(text(&config, None), "::1 port 1883");
        config.host = Host::Named("192.0.2.1".to_string());
        assert_eq!(text(&config, None), "The listener's host 192.0.2.1 has no IPv6 address.");
    }

    #[test]
    fn a_name_stands_for_all_its_addresses() {
        let resolved = ["192.0.2.1:0".parse().unwrap(), "[2001:db8::1]:0".parse().unwrap()];
        assert_eq!(text(&named("box"), Some(&resolved)), "192.0.2.1 port 1883, 2001:db8::1 port 1883");
        assert_eq!(text(&named("box"), None), "Cannot resolve the listener's host box: there is no answer so far.");
    }

    #[test]
    fn an_interface_narrows_the_addresses_down() {
        let on = |interface: &str, host: Host| ListenerConfig {
            interface: Some(interface.to_string()),
            domain: Some(Domain::Ipv4),
            ..ListenerConfig::new(1883, host)
        };
        let named = |host: &str| Host::Named(host.to_string());
        assert!(text(&on("lo", Host::All), None).starts_with("127.0.0.1 port 1883"));
        assert_eq!(text(&on("lo", named("127.0.0.1")), None), "127.0.0.1 port 1883");
        assert_eq!(text(&on("none-such0", Host::All), None), "There is no interface none-such0.");
        assert_eq!(text(&on("a/b", Host::All), None), "No interface can be called 'a/b'.");
        // An address for documentation: no machine has it.
        assert_eq!(
            text(&on("lo", named("203.0.113.1")), None),
            "The interface lo does not have the address 203.0.113.1."
        );
    }
}
