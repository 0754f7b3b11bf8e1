//! Virtual services.

use std::net::IpAddr;

use dataplane::snapshot::{
    Fallback, PoolGroupId, PoolId, Protocol, ScriptSet, ScriptSetId, Service, ServiceDatascript, ServiceTcp,
    ServiceUdp, Snapshot, SynCookies, Target, TcpProfile,
};

use super::{Names, limits, name_of, proxied, script, twice};
use crate::problem::{Problems, Span};
use crate::read::At;
use crate::value::choice::Run;
use crate::value::network::ServicePorts;
use crate::value::quantity::{S, Size, Time};
use crate::written::{self, DatascriptSet, File, VirtualService};

/// Bytes held per flow unless told otherwise; scripts may ask for up to 65,000.
const BUFFER: u64 = 64 << 10;

pub(super) fn services(
    file: &File,
    pools: &Names<'_>,
    groups: &Names<'_>,
    sets: &Names<'_>,
    snapshot: &Snapshot,
    problems: &mut Problems,
) -> Vec<Service> {
    let written = &file.virtual_service;
    if written.is_missing() {
        let help = "write [[virtual_service]] with name, addresses, ports and a pool";
        problems.error(&(0..0), "the file has no [[virtual_service]]").help(help);
    }
    for (index, service) in written.iter().enumerate() {
        check_shape(service, problems);
        check_clashes(service, written.get(..index).unwrap_or_default(), problems);
    }
    let mut services = Vec::new();
    for service in written.iter() {
        let default = target(service, pools, groups, problems);
        let script_sets: Vec<ScriptSetId> = script::references(&service.datascript_sets, sets, problems)
            .into_iter()
            .map(ScriptSetId)
            .collect();
        let meant = mean(service, default, script_sets, snapshot, problems);
        proxied::check(service, &meant, file, snapshot, problems);
        check_deciders(service, &meant, &file.datascript_set, problems);
        services.push(meant);
    }
    services
}

fn mean(
    written: &VirtualService,
    default: Option<Target>,
    script_sets: Vec<ScriptSetId>,
    snapshot: &Snapshot,
    problems: &mut Problems,
) -> Service {
    let scripted = sets_of(&script_sets, snapshot).next().is_some();
    let mut service = Service {
        name: name_of(&written.name),
        addresses: written.addresses.values().copied().collect(),
        ports: written.ports.values().map(|p| p.0).collect(),
        default,
        script_sets,
        tcp: tcp(&written.tcp, scripted),
        udp: udp(&written.udp),
        datascript: ServiceDatascript {
            every_payload: written.datascript.run.or(Run::FirstPayload) == Run::EveryPayload,
            on_error: written.datascript.on_script_error.or(Fallback::Close),
            debug_log: written.datascript.debug_log.or(false),
        },
        tables: limits::tables(&written.tables, problems),
        log_connections: written.log_connections.or(true),
        preserve_client_ip: written.preserve_client_ip.or(false),
    };
    if written.tcp.profile.0.is_none() && proxied::is_proxied(&service, snapshot) {
        service.tcp.profile = TcpProfile::Proxy;
    }
    service
}

fn sets_of<'a>(ids: &'a [ScriptSetId], snapshot: &'a Snapshot) -> impl Iterator<Item = &'a ScriptSet> {
    ids.iter().filter_map(|id| snapshot.script_sets.get(id.index()))
}

fn tcp(written: &written::ServiceTcp, scripted: bool) -> ServiceTcp {
    let profile = if scripted { TcpProfile::Proxy } else { TcpProfile::FastPath };
    ServiceTcp {
        profile: written.profile.or(profile),
        idle_timeout: written.idle_timeout.or(Time::new(300 * S)).duration(),
        handshake_timeout: written.handshake_timeout.or(Time::new(10 * S)).duration(),
        first_payload_timeout: written.first_payload_timeout.or(Time::new(10 * S)).duration(),
        on_first_payload_timeout: written.on_first_payload_timeout.or(Fallback::Close),
        reset_on_idle: written.reset_on_idle.or(true),
        mss: written.mss.0.as_ref().map(|at| at.value.into_type()),
        syn_cookies: written.syn_cookies.or(SynCookies::Auto),
        accept_proxy_from: written.accept_proxy_from.values().map(|network| network.0).collect(),
        buffer: written.buffer.or(Size::new(BUFFER)).bytes(),
    }
}

fn udp(written: &written::ServiceUdp) -> ServiceUdp {
    ServiceUdp {
        per_packet: written.per_packet.or(false),
        idle_timeout: written.idle_timeout.or(Time::new(30 * S)).duration(),
        first_payload_timeout: written.first_payload_timeout.or(Time::new(5 * S)).duration(),
        on_first_payload_timeout: written.on_first_payload_timeout.or(Fallback::Close),
        buffer: written.buffer.or(Size::new(BUFFER)).bytes(),
    }
}

fn target(
    written: &VirtualService,
    pools: &Names<'_>,
    groups: &Names<'_>,
    problems: &mut Problems,
) -> Option<Target> {
    if let (Some(pool), Some(group)) = (&written.pool.0, &written.pool_group.0) {
        let message = "`pool` and `pool_group` are both given";
        problems
            .error(&group.span, message)
            .help("a service has one default: keep one of them")
            .also(&pool.span, "the pool");
    }
    let pool = written.pool.0.as_ref().and_then(|at| pools.find(at, problems));
    let group = written.pool_group.0.as_ref().and_then(|at| groups.find(at, problems));
    let pool = pool.map(|id| Target::Pool(PoolId(id)));
    pool.or(group.map(|id| Target::PoolGroup(PoolGroupId(id))))
}

/// Addresses and ports must be there, and each only once.
fn check_shape(service: &VirtualService, problems: &mut Problems) {
    let name = name_of(&service.name);
    let place = |span: &Option<Span>| span.clone().unwrap_or_else(|| service.span.clone());
    if service.addresses.is_missing() {
        let message = format!("virtual service `{name}` has no address");
        problems.error(&place(&service.addresses.span), message).help("addresses = [\"192.0.2.10\"]");
    }
    if service.ports.is_missing() {
        let message = format!("virtual service `{name}` has no port");
        problems.error(&place(&service.ports.span), message).help("ports = [\"tcp/443\", \"udp/5000-5010\"]");
    }
    for (index, address) in service.addresses.items.iter().enumerate() {
        let earlier = service.addresses.items.iter().take(index);
        if let Some(first) = earlier.clone().find(|e| e.value == address.value) {
            twice(&address.span, &first.span, format!("{} stands twice", address.value), problems);
        }
    }
    for (index, ports) in service.ports.items.iter().enumerate() {
        let earlier = service.ports.items.iter().take(index);
        if let Some(first) = earlier.clone().find(|e| e.value.overlaps(ports.value)) {
            let message = format!("{} overlaps {} of the same service", ports.value, first.value);
            twice(&ports.span, &first.span, message, problems);
        }
    }
    refuse_unused_settings(service, problems);
}

/// Settings of a protocol that the service does not have.
fn refuse_unused_settings(service: &VirtualService, problems: &mut Problems) {
    let has = |protocol| service.ports.values().any(|p| p.0.protocol == protocol);
    let parts = [
        ("[virtual_service.tcp]", "TCP", service.tcp.span(), has(Protocol::Tcp)),
        ("[virtual_service.udp]", "UDP", service.udp.span(), has(Protocol::Udp)),
    ];
    for (header, protocol, span, used) in parts {
        let Some(span) = span.filter(|_| !used && !service.ports.items.is_empty()) else { continue };
        problems.warning(span, format!("{header} has no effect: the service has no {protocol} port"));
    }
}

/// No two services may have the same address, protocol and port.
fn check_clashes(service: &VirtualService, earlier: &[VirtualService], problems: &mut Problems) {
    for other in earlier {
        let Some(address) = shared_address(service, other) else { continue };
        for ports in &service.ports.items {
            let Some(first) = other.ports.items.iter().find(|p| p.value.overlaps(ports.value)) else {
                continue;
            };
            clash(address.value, ports, first, &name_of(&other.name), problems);
        }
    }
}

fn shared_address<'a>(service: &'a VirtualService, other: &VirtualService) -> Option<&'a At<IpAddr>> {
    service.addresses.items.iter().find(|a| other.addresses.values().any(|o| *o == a.value))
}

fn clash(
    address: IpAddr,
    ports: &At<ServicePorts>,
    first: &At<ServicePorts>,
    other: &str,
    problems: &mut Problems,
) {
    let message = format!("{} on {address} belongs to virtual service `{other}` already", ports.value);
    let help = "give the services different addresses or ports";
    problems.error(&ports.span, message).help(help).also(&first.span, format!("`{other}`"));
}

/// Something must decide where flows go, and what a fallback names must be there.
fn check_deciders(
    written: &VirtualService,
    meant: &Service,
    sets: &[DatascriptSet],
    problems: &mut Problems,
) {
    let has_default = written.pool.0.is_some() || written.pool_group.0.is_some();
    if has_default {
        return;
    }
    let mut attached = meant.script_sets.iter().filter_map(|id| sets.get(id.index()));
    // A set that was not found has been reported, and may have a request script.
    let all_found = meant.script_sets.len() == written.datascript_sets.items.len();
    if all_found && !written.datascript_sets.faulty && !attached.any(script::has_request) {
        let message = format!("nothing decides where flows of virtual service `{}` go", meant.name);
        let help = "give it a `pool`, a `pool_group`, or a DataScript set with a request script";
        problems.error(&written.span, message).help(help);
    }
    let fallbacks = [
        ("on_first_payload_timeout", &written.tcp.on_first_payload_timeout),
        ("on_first_payload_timeout", &written.udp.on_first_payload_timeout),
        ("on_script_error", &written.datascript.on_script_error),
    ];
    for (key, fallback) in fallbacks {
        let Some(at) = fallback.0.as_ref().filter(|at| at.value == Fallback::DefaultPool) else { continue };
        let message = format!("`{key}` names the default pool, but the service has none");
        problems
            .error(&at.span, message)
            .help("give the service a `pool` or a `pool_group`, or write \"close\"");
    }
}
