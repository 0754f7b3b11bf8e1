//! What weir says at its start.

use std::fmt::Write as _;

use dataplane::snapshot::{Algorithm, MonitorKind, Pool, Service, Snapshot, Target, TcpProfile};

use crate::Config;
use crate::memory::size_text;
use crate::process::{Device, ProcessSettings, Workers};
use crate::value::network::ServicePorts;
use crate::value::quantity::time_text;

pub(crate) fn summary(config: &Config) -> String {
    let snapshot = &config.snapshot;
    let mut lines = Vec::new();
    interfaces(snapshot, &config.process, &mut lines);
    lines.extend(snapshot.services.iter().map(|s| service(s, snapshot)));
    lines.extend(snapshot.pools.iter().map(|p| pool(p, snapshot)));
    for set in &snapshot.script_sets {
        let scripts = [("request", &set.request), ("response", &set.response)];
        let named = scripts.iter().filter_map(|(event, s)| Some(format!("{event} {}", s.as_ref()?.name)));
        let mut line = format!("datascript {}: {}", set.name, named.collect::<Vec<_>>().join(", "));
        if !set.parsers.is_empty() {
            let parsers: Vec<&str> = set.parsers.iter().map(|(name, _)| name.as_str()).collect();
            let _ = write!(line, "; parsers {}", parsers.join(", "));
        }
        lines.push(line);
    }
    limits(config, &mut lines);
    lines.push(String::new());
    lines.join("\n")
}

fn interfaces(snapshot: &Snapshot, process: &ProcessSettings, lines: &mut Vec<String>) {
    for (interface, device) in snapshot.interfaces.iter().zip(&process.devices) {
        let device = match device {
            Device::Virtual(device) => device,
            Device::Pci(address) => address,
        };
        let addresses: Vec<String> =
            interface.addresses.iter().map(|p| format!("{}/{}", p.address, p.length)).collect();
        let vlan = interface.vlan.map(|v| format!(", VLAN {v}")).unwrap_or_default();
        let (name, addresses, mtu) = (&interface.name, addresses.join(" "), interface.mtu);
        lines.push(format!("interface {name}: {device}, {addresses}{vlan}, MTU {mtu}"));
    }
    for route in &snapshot.routes {
        lines.push(format!("route {}/{} via {}", route.to.address, route.to.length, route.via));
    }
    let snat = &snapshot.snat;
    let addresses: Vec<String> = snat.addresses.iter().map(ToString::to_string).collect();
    let (first, last) = (snat.first_port, snat.last_port);
    lines.push(match addresses.is_empty() {
        true => "snat none".to_owned(),
        false => format!("snat {}, ports {first}-{last}", addresses.join(" ")),
    });
}

fn service(service: &Service, snapshot: &Snapshot) -> String {
    let address = |a: &std::net::IpAddr| {
        let routed = if snapshot.connected(*a).is_none() { " (routed here)" } else { "" };
        format!("{a}{routed}")
    };
    let addresses: Vec<String> = service.addresses.iter().map(address).collect();
    let ports: Vec<String> = service.ports.iter().map(|p| ServicePorts(*p).to_string()).collect();
    let name_of = |target| match target {
        Target::Pool(id) => snapshot.pools.get(id.index()).map(|p| format!("pool {}", p.name)),
        Target::PoolGroup(id) => {
            snapshot.pool_groups.get(id.index()).map(|g| format!("pool group {}", g.name))
        }
    };
    let target = service.default.and_then(name_of).unwrap_or_else(|| "no default".to_owned());
    let sets = service.script_sets.iter().filter_map(|id| snapshot.script_sets.get(id.index()));
    let sets: Vec<&str> = sets.map(|s| s.name.as_str()).collect();
    let mut line =
        format!("service {}: {} {} → {target}", service.name, addresses.join(" "), ports.join(" "));
    if !sets.is_empty() {
        let _ = write!(line, "; datascripts {}", sets.join(", "));
    }
    if service.ports.iter().any(|p| p.protocol == dataplane::snapshot::Protocol::Tcp) {
        line.push_str(match service.tcp.profile {
            TcpProfile::Proxy => "; TCP bound on the first payload",
            TcpProfile::FastPath => "; TCP bound on the SYN",
        });
    }
    if service.udp.per_packet {
        line.push_str("; UDP balanced per packet");
    }
    if service.preserve_client_ip {
        line.push_str("; clients' addresses preserved");
    }
    line
}

fn pool(pool: &Pool, snapshot: &Snapshot) -> String {
    let servers = pool.servers.iter().filter_map(|id| {
        let server = snapshot.servers.get(id.index())?;
        let most = server.max_connections.map(|most| format!("at most {most}"));
        let disabled = (!server.enabled).then(|| "disabled".to_owned());
        let notes: Vec<String> = most.into_iter().chain(disabled).collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        Some(format!("{}{notes}", snapshot.server_address(*id)?))
    });
    let servers: Vec<String> = servers.collect();
    let algorithm = match pool.algorithm {
        Algorithm::RoundRobin => "round robin",
        Algorithm::LeastConnections => "least connections",
        Algorithm::SourceIpHash => "source IP hash",
    };
    let monitors = pool.monitors.iter().map(|m| {
        let kind = match m.kind {
            MonitorKind::Icmp => "icmp",
            MonitorKind::Tcp => "tcp",
            MonitorKind::Udp { .. } => "udp",
        };
        format!("{kind} every {}", time_text(m.interval))
    });
    let monitors: Vec<String> = monitors.collect();
    let monitors = if monitors.is_empty() { "not monitored".to_owned() } else { monitors.join(", ") };
    format!("pool {}: {} by {algorithm}; {monitors}", pool.name, servers.join(" "))
}

fn limits(config: &Config, lines: &mut Vec<String>) {
    let (limits, memory) = (&config.snapshot.limits, config.memory());
    lines.push(format!(
        "limits: {} flows ({}), of them {} in handshake, {} waiting (up to {}); {} neighbours ({}); fragments {}",
        limits.flows,
        size_text(memory.flows),
        limits.embryonic,
        limits.waiting,
        size_text(memory.waiting),
        limits.neighbors,
        size_text(memory.neighbors),
        size_text(memory.fragments),
    ));
    if !config.snapshot.script_sets.is_empty() {
        lines.push(format!(
            "scripts: {} per run, {} of Lua memory, tables up to {}",
            time_text(limits.script_budget),
            size_text(memory.scripts),
            size_text(memory.tables),
        ));
    }
    let dpdk = &config.process.dpdk;
    let (workers, cpus) = (dpdk.workers, dpdk.cpus.len());
    let mbufs = dpdk.mbufs_for(workers.on(cpus), config.snapshot.interfaces.len());
    lines.push(format!("packet buffers: {mbufs} ({})", size_text(memory.mbufs)));
    if workers != Workers::Count(1) {
        lines.push(
            match workers {
                Workers::Auto if cpus == 0 => "workers: one for each CPU".to_owned(),
                _ => format!("workers: {}", workers.on(cpus)),
            } + "; each has these limits and this memory for itself, but for the packet buffers",
        );
    }
}
