//! Which own address a connection to a server starts from.

use std::net::IpAddr;

use dataplane::snapshot::{Interface, Prefix, Snapshot};

/// An own address and the MTU of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The address.
    pub(crate) address: IpAddr,
    /// Largest IP packet in bytes.
    pub(crate) mtu: u16,
}

/// The address of the interface whose subnet holds `server`, or else the route's next hop; the longest prefix wins,
/// a subnet before a static route of the same length. `None`: there is no way to the server.
pub(crate) fn source_for(snapshot: &Snapshot, server: IpAddr) -> Option<Source> {
    let connected = connected(snapshot, server);
    let route = snapshot.routes.iter().filter(|route| route.to.contains(server)).max_by_key(|r| r.to.length);
    match (connected, route) {
        (Some((length, source)), Some(route)) if length >= route.to.length => Some(source),
        (_, Some(route)) => self::connected(snapshot, route.via).map(|(_, source)| source),
        (connected, None) => connected.map(|(_, source)| source),
    }
}

/// The own address whose subnet holds `address`, and the prefix length of that subnet.
fn connected(snapshot: &Snapshot, address: IpAddr) -> Option<(u8, Source)> {
    own_addresses(snapshot)
        .filter(|(_, prefix)| prefix.contains(address))
        .max_by_key(|(_, prefix)| prefix.length)
        .map(|(interface, prefix)| (prefix.length, Source { address: prefix.address, mtu: interface.mtu }))
}

fn own_addresses(snapshot: &Snapshot) -> impl Iterator<Item = (&Interface, &Prefix)> {
    snapshot.interfaces.iter().flat_map(|interface| interface.addresses.iter().map(move |p| (interface, p)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::snapshot::Route;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|text| prefix(text)).collect();
        Interface { name: name.into(), addresses, vlan: None, mtu: 1500 }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            interfaces: vec![
                interface("a", &["10.0.0.1/24", "2001:db8::1/64"]),
                interface("b", &["192.0.2.1/24", "192.0.2.65/26"]),
            ],
            routes: vec![
                Route { to: prefix("0.0.0.0/0"), via: "192.0.2.254".parse().unwrap() },
                Route { to: prefix("10.0.0.128/25"), via: "192.0.2.99".parse().unwrap() },
                Route { to: prefix("198.51.100.0/24"), via: "10.0.0.9".parse().unwrap() },
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_subnet_of_the_server_or_of_the_next_hop_decides() {
        let cases = [
            ("10.0.0.7", Some("10.0.0.1")),
            ("10.0.0.200", Some("192.0.2.65")),
            ("192.0.2.70", Some("192.0.2.65")),
            ("192.0.2.2", Some("192.0.2.1")),
            ("198.51.100.4", Some("10.0.0.1")),
            ("203.0.113.5", Some("192.0.2.1")),
            ("2001:db8::99", Some("2001:db8::1")),
            ("2001:db8:1::99", None),
        ];
        for (server, expected) in cases {
            let found = source_for(&snapshot(), server.parse().unwrap()).map(|s| s.address.to_string());
            assert_eq!(found.as_deref(), expected, "{server}");
        }
    }
}
