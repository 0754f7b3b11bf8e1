//! Pools, their servers and monitors, and pool groups.

use dataplane::balance::FAIL_ACTION_HOPS;
use dataplane::snapshot::{
    FailAction, Monitor, MonitorKind, Pool, PoolGroup, PoolGroupMember, PoolId, PoolTcp, Server, ServerId,
    Snapshot,
};

use super::{Names, name_of, twice};
use crate::problem::{Problems, Span};
use crate::read::Part;
use crate::value::choice::{FailActionWritten, MonitorType, ProxyHeader, WindowScale};
use crate::value::quantity::{Int, S, Time, time_text};
use crate::value::text::Payload;
use crate::written;

/// TCP and IPv4 headers without options, in bytes.
const HEADERS_V4: u16 = 40;
/// TCP and IPv6 headers without options, in bytes.
const HEADERS_V6: u16 = 60;
/// Largest segment that a pool promises unless told otherwise: an Ethernet MTU with IPv4 headers.
const USUAL_MSS: u16 = 1460;

/// Fills in `pools` and `servers`.
pub(super) fn pools(
    written: &[written::Pool],
    names: &Names<'_>,
    snapshot: &mut Snapshot,
    problems: &mut Problems,
) {
    for (pool, index) in written.iter().zip(0u16..) {
        let servers = servers(pool, PoolId(index), &mut snapshot.servers, problems);
        let tcp = pool_tcp(&pool.tcp, &servers, snapshot, problems);
        snapshot.pools.push(Pool {
            name: name_of(&pool.name),
            algorithm: pool.algorithm.or(dataplane::snapshot::Algorithm::RoundRobin),
            servers,
            monitors: monitors(&pool.health_monitor, problems),
            port_translation: pool.port_translation.or(true),
            fail_action: fail_action(&pool.fail_action, names, problems),
            tcp,
        });
    }
    for (pool, index) in written.iter().zip(0u16..) {
        check_cycle(pool, PoolId(index), &snapshot.pools, problems);
    }
}

fn servers(
    pool: &written::Pool,
    id: PoolId,
    all: &mut Vec<Server>,
    problems: &mut Problems,
) -> Vec<ServerId> {
    if pool.servers.is_missing() {
        let help = "servers = [{ address = \"192.0.2.20\", port = 8080 }]";
        problems.error(&pool.span, format!("pool `{}` has no server", name_of(&pool.name))).help(help);
    }
    let mut members = Vec::new();
    for (index, server) in pool.servers.iter().enumerate() {
        let (Some(address), Some(port)) = (&server.address.0, &server.port.0) else { continue };
        check_twin(server, pool.servers.get(..index).unwrap_or_default(), problems);
        match u16::try_from(all.len()) {
            Ok(next) if next < u16::MAX => members.push(ServerId(next)),
            // Reported once, at the first server that has no index; a flow's key has room for index + 1.
            Ok(_) => {
                let help = "at most 65535 servers, those of all pools together";
                problems.error(&server.span, "this is one server too many").help(help);
            }
            Err(_) => {}
        }
        all.push(Server {
            pool: id,
            address: address.value,
            hostname: server.hostname.0.as_ref().map(|at| at.value.0.clone()),
            port: port.value.into_type(),
            weight: server.weight.or(Int::new(1)).into_type(),
            enabled: server.enabled.or(true),
            max_connections: max_connections(server, pool),
        });
    }
    members
}

/// A server's own limit, or the one that its pool has for all.
fn max_connections(server: &written::Server, pool: &written::Pool) -> Option<u32> {
    let given = server.max_connections.0.as_ref().or(pool.max_connections_per_server.0.as_ref());
    given.map(|at| at.value.into_type())
}

fn check_twin(server: &written::Server, earlier: &[written::Server], problems: &mut Problems) {
    let place = |server: &written::Server| {
        let address = server.address.0.as_ref()?.value;
        Some((address, server.port.0.as_ref()?.value.into_type::<u16>()))
    };
    let Some((address, port)) = place(server) else { return };
    if let Some(twin) = earlier.iter().find(|e| place(e) == Some((address, port))) {
        let message = format!("the pool has two servers at {}", std::net::SocketAddr::new(address, port));
        twice(&server.span, &twin.span, message, problems);
    }
}

/// What the pool promises. The default fits the smallest MTU and the family of its servers.
fn pool_tcp(
    written: &Part<written::PoolTcp>,
    servers: &[ServerId],
    snapshot: &Snapshot,
    problems: &mut Problems,
) -> PoolTcp {
    let ipv6 = servers.iter().filter_map(|id| snapshot.servers.get(id.index())).any(|s| s.address.is_ipv6());
    let headers = if ipv6 { HEADERS_V6 } else { HEADERS_V4 };
    let mtus = || snapshot.interfaces.iter().map(|i| i.mtu);
    let smallest = mtus().min().unwrap_or(1500).saturating_sub(headers);
    let largest = mtus().max().unwrap_or(1500).saturating_sub(headers);
    let default = smallest.min(USUAL_MSS + HEADERS_V4 - headers);
    let mss = written.mss.0.as_ref().map_or(default, |at| at.value.into_type());
    if let Some(at) = written.mss.0.as_ref().filter(|_| mss > largest) {
        let message = format!("an MSS of {mss} does not fit any interface");
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let help =
            format!("at most {largest}: the largest MTU less {headers} bytes of {family} and TCP headers");
        problems.error(&at.span, message).help(help);
    }
    PoolTcp {
        promise: tcp::Promise {
            mss,
            window_scale: written.window_scale.or(WindowScale(Some(7))).0,
            sack: written.sack.or(true),
            timestamps: written.timestamps.or(true),
        },
        connect_timeout: written.connect_timeout.or(Time::new(5 * S)).duration(),
        connect_retries: written.connect_retries.or(Int::new(2)).into_type(),
        proxy_protocol: written.proxy_protocol.or(ProxyHeader(None)).0,
    }
}

fn monitors(written: &[written::HealthMonitor], problems: &mut Problems) -> Vec<Monitor> {
    let is_none =
        |m: &&written::HealthMonitor| m.kind.0.as_ref().is_some_and(|k| k.value == MonitorType::None);
    if let Some(none) = written.iter().find(is_none).filter(|_| written.len() > 1) {
        let help = "type \"none\" means that enabled servers are up; it stands alone";
        problems.error(&none.span, "a monitor of type \"none\" beside others").help(help);
    }
    written.iter().filter_map(|monitor| mean_monitor(monitor, problems)).collect()
}

fn mean_monitor(written: &written::HealthMonitor, problems: &mut Problems) -> Option<Monitor> {
    let kind = written.kind.0.as_ref()?.value;
    let interval = written.interval.or(Time::new(5 * S)).duration();
    // Where only the interval is given, and it is short, the timeout follows.
    let timeout = written.timeout.or(Time::new((2 * S).min(interval.total_micros()))).duration();
    if let Some(at) = written.timeout.0.as_ref().filter(|_| timeout > interval) {
        let message =
            format!("the timeout {} is longer than the interval {}", time_text(timeout), time_text(interval));
        let help = "a probe must have ended before the next one starts";
        problems.error(&at.span, message).help(help);
    }
    refuse_foreign_keys(written, kind, problems);
    let bytes = |payload: &crate::read::Given<Payload>| payload.or(Payload(Vec::new())).0;
    let kind = match kind {
        MonitorType::None => return None,
        MonitorType::Icmp => MonitorKind::Icmp,
        MonitorType::Tcp => MonitorKind::Tcp,
        MonitorType::Udp => MonitorKind::Udp { send: bytes(&written.send), expect: bytes(&written.expect) },
    };
    Some(Monitor {
        kind,
        interval,
        timeout,
        rise: written.rise.or(Int::new(2)).into_type(),
        fall: written.fall.or(Int::new(3)).into_type(),
        port: written.port.0.as_ref().map(|at| at.value.into_type()),
    })
}

/// Keys that mean nothing for this type of monitor.
fn refuse_foreign_keys(written: &written::HealthMonitor, kind: MonitorType, problems: &mut Problems) {
    let span = |given: &crate::read::Given<Payload>| given.0.as_ref().map(|at| at.span.clone());
    let port = written.port.0.as_ref().map(|at| at.span.clone());
    let payloads = kind != MonitorType::Udp;
    let ports = matches!(kind, MonitorType::Icmp | MonitorType::None);
    let foreign: [(&str, &str, Option<Span>, bool); 3] = [
        ("send", "udp", span(&written.send), payloads),
        ("expect", "udp", span(&written.expect), payloads),
        ("port", "tcp or udp", port, ports),
    ];
    for (key, home, span, refused) in foreign {
        if let Some(span) = span.filter(|_| refused) {
            problems.error(&span, format!("`{key}` is only for monitors of type {home}"));
        }
    }
}

fn fail_action(written: &FailActionWritten, names: &Names<'_>, problems: &mut Problems) -> FailAction {
    match written {
        FailActionWritten::Reset | FailActionWritten::Unknown => FailAction::Reset,
        FailActionWritten::Close => FailAction::Close,
        FailActionWritten::Pool(name) => {
            names.find(name, problems).map_or(FailAction::Reset, |id| FailAction::Pool(PoolId(id)))
        }
    }
}

/// A chain of `fail_action`s must end. Reported at each pool that is part of the ring.
fn check_cycle(written: &written::Pool, start: PoolId, pools: &[Pool], problems: &mut Problems) {
    let FailActionWritten::Pool(at) = &written.fail_action else { return };
    let mut chain = vec![start];
    let mut next = start;
    while let Some(FailAction::Pool(other)) = pools.get(next.index()).map(|p| p.fail_action) {
        if other == start {
            let names: Vec<&str> = chain
                .iter()
                .chain([&start])
                .filter_map(|p| pools.get(p.index()))
                .map(|p| p.name.as_str())
                .collect();
            let message = format!("the fail_actions go round in a ring: {}", names.join(" → "));
            problems.error(&at.span, message).help("let one of the pools end with \"reset\" or \"close\"");
            return;
        }
        if chain.contains(&other) {
            return;
        }
        if chain.len() > FAIL_ACTION_HOPS {
            let message = format!("this chain of fail_actions takes more than {FAIL_ACTION_HOPS} steps");
            problems.error(&at.span, message).help("a flow would be refused before it reaches the last pool");
            return;
        }
        chain.push(other);
        next = other;
    }
}

pub(super) fn groups(
    written: &[written::PoolGroup],
    pools: &Names<'_>,
    problems: &mut Problems,
) -> Vec<PoolGroup> {
    written.iter().map(|group| mean_group(group, pools, problems)).collect()
}

fn mean_group(written: &written::PoolGroup, pools: &Names<'_>, problems: &mut Problems) -> PoolGroup {
    let name = name_of(&written.name);
    if written.members.is_missing() {
        let help = "members = [{ pool = \"…\", priority = 1, ratio = 1 }]";
        problems.error(&written.span, format!("pool group `{name}` has no member")).help(help);
    }
    let mut members: Vec<PoolGroupMember> = Vec::new();
    let mut places: Vec<&crate::read::At<crate::value::text::Name>> = Vec::new();
    for member in written.members.iter() {
        let Some(pool) = &member.pool.0 else { continue };
        if let Some(first) = places.iter().find(|p| p.value == pool.value) {
            let message = format!("pool `{}` is twice in this group", pool.value.0);
            twice(&pool.span, &first.span, message, problems);
        }
        places.push(pool);
        let Some(id) = pools.find(pool, problems) else { continue };
        members.push(PoolGroupMember {
            pool: PoolId(id),
            priority: member.priority.or(Int::new(1)).into_type(),
            ratio: member.ratio.or(Int::new(1)).into_type(),
        });
    }
    if !members.is_empty() && members.iter().all(|m| m.ratio == 0) {
        let message = format!("every member of pool group `{name}` has ratio 0, so it takes no flow");
        problems.error(&written.span, message).help("give at least one member a ratio from 1 to 1000");
    }
    PoolGroup { name, members }
}
