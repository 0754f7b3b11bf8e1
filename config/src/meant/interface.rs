//! Interfaces, routes and SNAT addresses.

use std::net::IpAddr;

use dataplane::snapshot::{Interface, Prefix, Route, Snapshot, SnatPool};

use super::{Names, name_of, twice};
use crate::problem::Problems;
use crate::read::{At, Part, Tables};
use crate::value::network::{OwnAddress, Ports, ends};
use crate::value::quantity::Int;
use crate::written;

/// Ports of the box: DPDK's own default limit is 32.
const MOST_INTERFACES: usize = 32;
/// Smallest MTU of IPv6 (RFC 8200, 5).
const IPV6_MTU: u16 = 1280;
const DEFAULT_SNAT_PORTS: Ports = Ports { first: 1024, last: 63999 };

pub(super) fn interfaces(written: &Tables<written::Interface>, problems: &mut Problems) -> Vec<Interface> {
    Names::define("interface", written.iter().map(|i| &i.name), problems);
    if written.is_missing() {
        let help = "write [[interface]] with name, device and addresses";
        problems.error(&(0..0), "the file has no [[interface]]").help(help);
    }
    if let Some(beyond) = written.get(MOST_INTERFACES) {
        problems.error(&beyond.span, format!("more than {MOST_INTERFACES} interfaces"));
    }
    for (index, interface) in written.iter().enumerate() {
        let earlier = written.get(..index).unwrap_or_default();
        check_device(interface, earlier, problems);
        check_subnets(interface, earlier, problems);
    }
    written.iter().map(|interface| mean(interface, problems)).collect()
}

fn mean(written: &written::Interface, problems: &mut Problems) -> Interface {
    if written.addresses.is_missing() {
        let span = written.addresses.span.as_ref().unwrap_or(&written.span);
        let help = "addresses = [\"192.0.2.1/24\"]: weir answers ARP and probes servers from them";
        problems.error(span, "the interface has no address").help(help);
    }
    let mtu = written.mtu.or(Int::new(1500)).into_type::<u16>();
    let has_ipv6 = written.addresses.values().any(|a| a.0.address.is_ipv6());
    if let (Some(at), true, true) = (&written.mtu.0, has_ipv6, mtu < IPV6_MTU) {
        let message = format!("an interface with an IPv6 address has an MTU of at least {IPV6_MTU}");
        problems.error(&at.span, message).help("RFC 8200, section 5");
    }
    Interface {
        name: name_of(&written.name),
        addresses: written.addresses.values().map(|a| a.0).collect(),
        vlan: written.vlan.0.as_ref().map(|at| at.value.into_type()),
        mtu,
    }
}

fn check_device(interface: &written::Interface, earlier: &[written::Interface], problems: &mut Problems) {
    let Some(device) = &interface.device.0 else { return };
    let twin =
        earlier.iter().filter_map(|i| i.device.0.as_ref()).find(|d| d.value.name() == device.value.name());
    if let Some(twin) = twin {
        let message = format!("two interfaces have the device `{}`", device.value.name());
        twice(&device.span, &twin.span, message, problems);
    }
}

/// No two subnets of different interfaces may overlap, and no address may stand twice.
fn check_subnets(interface: &written::Interface, earlier: &[written::Interface], problems: &mut Problems) {
    let own = interface.addresses.items.iter().enumerate();
    for (index, address) in own {
        let same = interface.addresses.items.iter().take(index);
        if let Some(twin) = same.clone().find(|other| other.value.0.address == address.value.0.address) {
            let message = format!("{} stands twice", address.value.0.address);
            twice(&address.span, &twin.span, message, problems);
        }
        let others = earlier.iter().flat_map(|i| &i.addresses.items);
        if let Some(other) = others.clone().find(|other| overlap(other.value, address.value)) {
            let (network, _) = ends(address.value.0);
            let length = address.value.0.length;
            let message = format!("the subnet {network}/{length} overlaps one of another interface");
            let help = "weir would not know by which interface to send";
            problems.error(&address.span, message).help(help).also(&other.span, "the other subnet");
        }
    }
}

fn overlap(OwnAddress(a): OwnAddress, OwnAddress(b): OwnAddress) -> bool {
    a.contains(b.address) || b.contains(a.address)
}

/// The subnets of all interfaces, as a help for addresses outside of them. Empty only where something has been
/// reported about the interfaces.
pub(super) fn subnets(snapshot: &Snapshot) -> String {
    let all = snapshot.interfaces.iter().flat_map(|i| &i.addresses);
    let texts: Vec<String> = all.map(|p| format!("{}/{}", ends(*p).0, p.length)).collect();
    texts.join(", ")
}

pub(super) fn routes(written: &[written::Route], snapshot: &Snapshot, problems: &mut Problems) -> Vec<Route> {
    let mut routes: Vec<(Route, &At<_>)> = Vec::new();
    for route in written {
        let (Some(to), Some(via)) = (&route.to.0, &route.via.0) else { continue };
        check_via(via, to.value.0, snapshot, problems);
        if let Some((_, twin)) = routes.iter().find(|(r, _)| r.to == to.value.0) {
            let message = format!("two routes to {}/{}", to.value.0.address, to.value.0.length);
            twice(&to.span, &twin.span, message, problems);
        }
        routes.push((Route { to: to.value.0, via: via.value }, to));
    }
    routes.into_iter().map(|(route, _)| route).collect()
}

fn check_via(via: &At<IpAddr>, to: Prefix, snapshot: &Snapshot, problems: &mut Problems) {
    let address = via.value;
    if address.is_ipv4() != to.address.is_ipv4() {
        let message = format!("{address} is not of the family of {}/{}", to.address, to.length);
        problems
            .error(&via.span, message)
            .help("a next hop is of the same family, IPv4 or IPv6, as the network");
        return;
    }
    let mut own = snapshot.interfaces.iter().flat_map(|i| &i.addresses);
    if own.any(|p| p.address == address) {
        problems
            .error(&via.span, format!("{address} is an address of weir itself"))
            .help("name the router's address");
        return;
    }
    outside(via, "next hop", snapshot, problems);
}

/// Reports an address that is on no subnet of an interface.
fn outside(address: &At<IpAddr>, what: &str, snapshot: &Snapshot, problems: &mut Problems) {
    if snapshot.connected(address.value).is_none() && !subnets(snapshot).is_empty() {
        let message = format!("the {what} {} is in no subnet of an interface", address.value);
        problems.error(&address.span, message).help(format!("subnets: {}", subnets(snapshot)));
    }
}

/// The SNAT pool and the source ports of the health monitors.
pub(super) fn snat(
    written: &Part<written::Snat>,
    snapshot: &Snapshot,
    problems: &mut Problems,
) -> (SnatPool, Ports) {
    for (index, address) in written.addresses.items.iter().enumerate() {
        outside(address, "SNAT address", snapshot, problems);
        let earlier = written.addresses.items.iter().take(index);
        if let Some(twin) = earlier.clone().find(|e| e.value == address.value) {
            twice(&address.span, &twin.span, format!("{} stands twice", address.value), problems);
        }
    }
    let ports = written.ports.or(DEFAULT_SNAT_PORTS);
    let monitor_ports = monitor_ports(written, ports, problems);
    let addresses = written.addresses.values().copied().collect();
    (SnatPool { addresses, first_port: ports.first, last_port: ports.last }, monitor_ports)
}

fn monitor_ports(written: &written::Snat, ports: Ports, problems: &mut Problems) -> Ports {
    let help = "health monitors need source ports of their own, above those of SNAT; \
                for example ports = \"1024-63999\" and monitor_ports = \"64000-65535\"";
    let above = Ports { first: ports.last.saturating_add(1), last: u16::MAX };
    let Some(at) = &written.monitor_ports.0 else {
        if let (Some(at), u16::MAX) = (&written.ports.0, ports.last) {
            let message = format!("the range {ports} leaves no port for health monitors");
            problems.error(&at.span, message).help(help);
        }
        return above;
    };
    if at.value.first <= ports.last {
        let message = format!("the health monitors' ports {} are not above the SNAT ports {ports}", at.value);
        let problem = problems.error(&at.span, message).help(help);
        if let Some(snat) = &written.ports.0 {
            problem.also(&snat.span, "SNAT ports");
        }
    }
    at.value
}
