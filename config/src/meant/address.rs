//! Addresses and ports against each other: loops, clashes, families and routes.

use std::net::IpAddr;

use dataplane::snapshot::{PoolGroupId, PoolId, Service, Snapshot, Target};

use super::interface::subnets;
use crate::problem::{Problems, Span};
use crate::read::At;
use crate::value::network::{Ports, ServicePorts};
use crate::written::{File, Server, VirtualService};

pub(super) fn check(file: &File, snapshot: &Snapshot, monitor_ports: Ports, problems: &mut Problems) {
    for server in file.pool.iter().flat_map(|p| p.servers.iter()) {
        check_server(server, file, snapshot, problems);
    }
    for (written, service) in file.virtual_service.iter().zip(&snapshot.services) {
        check_families(written, service, file, snapshot, problems);
        check_two_roles(written, file, snapshot, problems);
        check_own_ports(written, file, snapshot, monitor_ports, problems);
    }
}

/// A server must be somebody else, and within reach.
fn check_server(server: &Server, file: &File, snapshot: &Snapshot, problems: &mut Problems) {
    let Some(at) = &server.address.0 else { return };
    let address = at.value;
    let vips = file.virtual_service.iter().flat_map(|s| &s.addresses.items);
    if let Some(vip) = vips.clone().find(|vip| vip.value == address) {
        let message = format!("server {address} is a VIP of weir: packets would go round in a loop");
        problems
            .error(&at.span, message)
            .help("name the address of the server itself")
            .also(&vip.span, "the VIP");
        return;
    }
    let own = snapshot.interfaces.iter().flat_map(|i| &i.addresses).any(|p| p.address == address);
    if own || snapshot.snat.addresses.contains(&address) {
        let message = format!("server {address} is an address of weir itself");
        problems.error(&at.span, message).help("name the address of the server itself");
        return;
    }
    let routed = snapshot.routes.iter().any(|r| r.to.contains(address));
    if snapshot.connected(address).is_none() && !routed && !subnets(snapshot).is_empty() {
        let message = format!("there is no way to server {address}: no subnet and no route holds it");
        let help = format!("add a [[route]]; subnets: {}", subnets(snapshot));
        problems.error(&at.span, message).help(help);
    }
}

fn family(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

/// Each family of a service's VIPs needs servers and, unless they see the client's, a SNAT address: weir does not translate
/// between families.
fn check_families(
    written: &VirtualService,
    service: &Service,
    file: &File,
    snapshot: &Snapshot,
    problems: &mut Problems,
) {
    for ipv4 in [true, false] {
        let Some(vip) = written.addresses.items.iter().find(|a| a.value.is_ipv4() == ipv4) else { continue };
        if !service.preserve_client_ip {
            check_snat_family(vip, file, problems);
        }
        let decider = written.pool.0.as_ref().or(written.pool_group.0.as_ref());
        let (span, what, pools) = match (service.default, decider) {
            (Some(target), Some(name)) => (&name.span, "default", pools_of(target, snapshot)),
            // Nothing to judge by: no target, or one whose name was reported.
            (None, Some(_)) | (Some(_), None) => continue,
            (None, None) => (&vip.span, "scripts", pools_of_scripts(service, snapshot)),
        };
        let pools: Vec<PoolId> = pools.into_iter().flat_map(|p| with_fail_actions(p, snapshot)).collect();
        let served = pools.iter().any(|p| has_family(*p, ipv4, snapshot));
        // A pool without any server has been reported.
        let known = pools.iter().any(|p| has_family(*p, !ipv4, snapshot));
        if !served && known {
            no_servers(span, vip, ipv4, what, problems);
        }
    }
}

fn no_servers(span: &Span, vip: &At<IpAddr>, ipv4: bool, what: &str, problems: &mut Problems) {
    let (this, other) = (family(ipv4), family(!ipv4));
    let pools = match what {
        "default" => "the default pool or group has".to_owned(),
        _ => "the pools of its scripts have".to_owned(),
    };
    let message = format!("the VIP {} is {this}, but {pools} only {other} servers", vip.value);
    let help = format!("weir does not translate between families: add {this} servers or take the VIP away");
    problems.error(span, message).help(help).also(&vip.span, "the VIP");
}

fn check_snat_family(vip: &At<IpAddr>, file: &File, problems: &mut Problems) {
    let ipv4 = vip.value.is_ipv4();
    if file.snat.addresses.values().any(|a| a.is_ipv4() == ipv4) {
        return;
    }
    let this = family(ipv4);
    let message = format!("the VIP {} is {this}, but there is no {this} SNAT address", vip.value);
    let help =
        "[snat] addresses = […]: weir talks to servers from them; each inside a subnet of an interface";
    let problem = problems.error(&vip.span, message);
    problem.help(help);
    if let Some(span) = &file.snat.addresses.span {
        problem.also(span, "the SNAT addresses");
    }
}

fn pools_of(target: Target, snapshot: &Snapshot) -> Vec<PoolId> {
    match target {
        Target::Pool(pool) => vec![pool],
        Target::PoolGroup(group) => pools_of_group(group, snapshot),
    }
}

fn pools_of_group(group: PoolGroupId, snapshot: &Snapshot) -> Vec<PoolId> {
    let members = snapshot.pool_groups.get(group.index()).map(|g| g.members.as_slice());
    members.unwrap_or_default().iter().map(|m| m.pool).collect()
}

fn pools_of_scripts(service: &Service, snapshot: &Snapshot) -> Vec<PoolId> {
    let sets = service.script_sets.iter().filter_map(|id| snapshot.script_sets.get(id.index()));
    sets.flat_map(|set| {
        let groups = set.pool_groups.iter().flat_map(|g| pools_of_group(*g, snapshot));
        set.pools.iter().copied().chain(groups)
    })
    .collect()
}

/// The pool and those that its `fail_action` leads to.
fn with_fail_actions(pool: PoolId, snapshot: &Snapshot) -> Vec<PoolId> {
    let mut all = vec![pool];
    let mut at = pool;
    while let Some(dataplane::snapshot::FailAction::Pool(next)) =
        snapshot.pools.get(at.index()).map(|p| p.fail_action)
    {
        if all.contains(&next) {
            break;
        }
        all.push(next);
        at = next;
    }
    all
}

fn has_family(pool: PoolId, ipv4: bool, snapshot: &Snapshot) -> bool {
    let servers = snapshot.pools.get(pool.index()).map(|p| p.servers.as_slice()).unwrap_or_default();
    servers.iter().filter_map(|id| snapshot.servers.get(id.index())).any(|s| s.address.is_ipv4() == ipv4)
}

/// Where clients' addresses are preserved, packets to VIPs are spread over the workers by their source and those to SNAT
/// addresses by their destination.
fn check_two_roles(service: &VirtualService, file: &File, snapshot: &Snapshot, problems: &mut Problems) {
    let preserving = file
        .virtual_service
        .iter()
        .find_map(|service| service.preserve_client_ip.0.as_ref().filter(|key| key.value));
    let Some(preserving) = preserving.filter(|_| snapshot.preserves_clients()) else { return };
    for vip in &service.addresses.items {
        let Some(snat) = file.snat.addresses.items.iter().find(|snat| snat.value == vip.value) else {
            continue;
        };
        let message = format!(
            "{} is a VIP and a SNAT address, and a service preserves its clients' addresses",
            vip.value
        );
        problems
            .error(&vip.span, message)
            .help("use another SNAT address: none at all is needed if all services preserve them")
            .also(&snat.span, "the SNAT address")
            .also(&preserving.span, "preserved here");
    }
}

/// A VIP that weir also uses as a source must not have ports that replies of servers come to.
fn check_own_ports(
    service: &VirtualService,
    file: &File,
    snapshot: &Snapshot,
    monitor_ports: Ports,
    problems: &mut Problems,
) {
    let snat_ports = Ports { first: snapshot.snat.first_port, last: snapshot.snat.last_port };
    let own = |a: IpAddr| snapshot.interfaces.iter().flat_map(|i| &i.addresses).any(|p| p.address == a);
    for vip in &service.addresses.items {
        for ports in &service.ports.items {
            if let Some(snat) = file.snat.addresses.items.iter().find(|s| s.value == vip.value) {
                refuse_overlap(ports, vip, snat_ports, ("SNAT", Some(&snat.span)), problems);
            }
            if own(vip.value) {
                refuse_overlap(ports, vip, monitor_ports, ("health monitor", None), problems);
            }
        }
    }
}

fn refuse_overlap(
    ports: &At<ServicePorts>,
    vip: &At<IpAddr>,
    taken: Ports,
    (what, place): (&str, Option<&Span>),
    problems: &mut Problems,
) {
    if !ports.value.ports().overlaps(taken) {
        return;
    }
    let message = format!("{} on {} are also {what} ports ({taken}) of that address", ports.value, vip.value);
    let help = "use another VIP, other ports, or a smaller range in [snat]";
    let problem = problems.error(&ports.span, message);
    problem.help(help).also(&vip.span, "the VIP");
    if let Some(place) = place {
        problem.also(place, "also a SNAT address");
    }
}
