//! Which port and which neighbour a packet goes to.

use crate::address::Address;
use crate::io::PortId;
use crate::snapshot::{Prefix, Snapshot};

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The port it leaves by.
    pub port: PortId,
    /// The neighbour on that port whose MAC address it gets: the destination itself or a gateway.
    pub address: Address,
    /// weir's own address on that port in the neighbour's subnet: ARP and ND ask from it.
    pub source: Address,
}

/// The routes of one snapshot: connected subnets and static routes, longest prefix first. Immutable; a lookup walks
/// the list, so it belongs to the start of a flow and not to each packet.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    to: Prefix,
    within: Bits,
    port: PortId,
    /// `None`: the destination is a neighbour.
    via: Option<Address>,
    source: Address,
}

/// A [`Prefix`] as a mask over an [`Address`]: what a lookup compares.
#[derive(Clone, Copy, Debug)]
struct Bits {
    v4: bool,
    mask: u128,
    value: u128,
}

impl From<Prefix> for Bits {
    fn from(prefix: Prefix) -> Self {
        let address = Address::from(prefix.address);
        let v4 = address.is_v4();
        // Behind the prefix that makes an IPv4 address an IPv6 address.
        let length = u32::from(prefix.length) + if v4 { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(128u32.saturating_sub(length)).unwrap_or(0).to_be();
        Bits { v4, mask, value: u128::from_ne_bytes(address.0) & mask }
    }
}

impl Bits {
    /// True if the address lies in the subnet; `v4` says whether it is one of IPv4.
    #[inline]
    fn hold(&self, address: Address, v4: bool) -> bool {
        (self.v4 == v4) & (u128::from_ne_bytes(address.0) & self.mask == self.value)
    }
}

impl Routes {
    /// Collects the routes of `snapshot`. A static route whose gateway is on no subnet is left out (configurations
    /// that pass the checks of `config` have none). Among equal prefixes a connected subnet comes first, then the
    /// order of the configuration counts.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let ports = snapshot.interfaces.iter().zip(0u8..);
        let mut entries: Vec<Entry> = ports
            .flat_map(|(interface, port)| {
                interface.addresses.iter().map(move |own| connected(*own, PortId(port)))
            })
            .collect();
        let subnets = entries.clone();
        entries.extend(snapshot.routes.iter().filter_map(|route| {
            let subnet = longest(&subnets, Address::from(route.via))?;
            Some(Entry { to: route.to, within: route.to.into(), via: Some(route.via.into()), ..subnet })
        }));
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.to.length));
        Routes { entries }
    }

    /// The next hop to `destination`, or `None` if no route leads there.
    #[must_use]
    pub fn lookup(&self, destination: Address) -> Option<NextHop> {
        let v4 = destination.is_v4();
        let entry = self.entries.iter().find(|entry| entry.within.hold(destination, v4))?;
        let address = entry.via.unwrap_or(destination);
        Some(NextHop { port: entry.port, address, source: entry.source })
    }
}

fn connected(own: Prefix, port: PortId) -> Entry {
    Entry { to: own, within: own.into(), port, via: None, source: own.address.into() }
}

/// The entry with the longest prefix around `address`; the first of equals.
fn longest(entries: &[Entry], address: Address) -> Option<Entry> {
    let ip = address.ip();
    let around = entries.iter().filter(|entry| entry.to.contains(ip));
    around.rev().max_by_key(|entry| entry.to.length).copied()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::snapshot::{Interface, Route};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: ip(address), length: length.parse().unwrap() }
    }

    fn interface(addresses: &[&str]) -> Interface {
        Interface {
            name: String::new(),
            addresses: addresses.iter().map(|text| prefix(text)).collect(),
            vlan: None,
            mtu: 1500,
        }
    }

    fn routes(interfaces: &[&[&str]], statics: &[(&str, &str)]) -> Routes {
        Routes::new(&Snapshot {
            interfaces: interfaces.iter().map(|addresses| interface(addresses)).collect(),
            routes: statics.iter().map(|(to, via)| Route { to: prefix(to), via: ip(via) }).collect(),
            ..Snapshot::default()
        })
    }

    /// Port, next hop and own address.
    fn lookup(routes: &Routes, destination: &str) -> Option<(u8, String, String)> {
        let hop = routes.lookup(ip(destination).into())?;
        Some((hop.port.0, hop.address.ip().to_string(), hop.source.ip().to_string()))
    }

    fn hop(port: u8, address: &str, source: &str) -> Option<(u8, String, String)> {
        Some((port, address.to_owned(), source.to_owned()))
    }

    #[test]
    fn longest_prefix_wins() {
        let routes = routes(
            &[&["192.0.2.2/24", "2001:db8:1::2/64"], &["10.0.0.2/8", "10.1.0.2/16"]],
            &[
                ("0.0.0.0/0", "192.0.2.1"),
                ("::/0", "2001:db8:1::1"),
                ("203.0.113.0/24", "10.1.0.1"),
                ("203.0.113.9/32", "10.2.0.1"),
                ("198.51.100.0/24", "172.16.0.1"),
            ],
        );
        assert_eq!(lookup(&routes, "192.0.2.77"), hop(0, "192.0.2.77", "192.0.2.2"));
        assert_eq!(lookup(&routes, "10.1.2.3"), hop(1, "10.1.2.3", "10.1.0.2"));
        assert_eq!(lookup(&routes, "10.2.2.3"), hop(1, "10.2.2.3", "10.0.0.2"));
        assert_eq!(lookup(&routes, "203.0.113.8"), hop(1, "10.1.0.1", "10.1.0.2"));
        assert_eq!(lookup(&routes, "203.0.113.9"), hop(1, "10.2.0.1", "10.0.0.2"));
        assert_eq!(lookup(&routes, "8.8.8.8"), hop(0, "192.0.2.1", "192.0.2.2"));
        assert_eq!(
            lookup(&routes, "198.51.100.1"),
            hop(0, "192.0.2.1", "192.0.2.2"),
            "its gateway is nowhere"
        );
        assert_eq!(lookup(&routes, "2001:db8:1::9"), hop(0, "2001:db8:1::9", "2001:db8:1::2"));
        assert_eq!(lookup(&routes, "2001:db8:9::9"), hop(0, "2001:db8:1::1", "2001:db8:1::2"));
    }

    #[test]
    fn connected_comes_before_static_and_nothing_from_nothing() {
        let routes = routes(&[&["192.0.2.2/24"], &["192.0.2.3/24"]], &[("192.0.2.0/24", "192.0.2.1")]);
        assert_eq!(lookup(&routes, "192.0.2.77"), hop(0, "192.0.2.77", "192.0.2.2"));
        assert_eq!(lookup(&routes, "192.0.3.77"), None);
        assert_eq!(lookup(&routes, "2001:db8::1"), None);
    }
}
