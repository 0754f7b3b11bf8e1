//! A configuration and the record of a connection.

use std::sync::LazyLock;

use dataplane::address::FlowKey;
use dataplane::channel::{ConnectionRecord, EndedFlow, Milestones, Notes, Termination};
use dataplane::flow_table::FlowTable;
use dataplane::snapshot::*;
use smoltcp::time::{Duration, Instant};

/// Two services with a pool each; both pools are watched by a TCP or ICMP monitor.
pub fn snapshot() -> Snapshot {
    Snapshot {
        interfaces: vec![Interface {
            name: "lan".into(),
            addresses: vec![prefix("10.0.0.1", 24), prefix("2001:db8:1::1", 64)],
            vlan: None,
            mtu: 1500,
        }],
        snat: SnatPool { addresses: vec!["10.0.0.1".parse().unwrap()], first_port: 1024, last_port: 60999 },
        pools: vec![pool("web", MonitorKind::Tcp, &[0, 1]), pool("dns", MonitorKind::Icmp, &[2, 3])],
        servers: vec![
            Server { max_connections: Some(500), ..server(0, "10.0.0.11", Some("a.example"), 8443) },
            Server { max_connections: Some(500), ..server(0, "10.0.0.12", None, 8443) },
            Server { max_connections: Some(2), ..server(1, "10.0.0.53", None, 53) },
            server(1, "2001:db8:1::53", None, 53),
        ],
        services: vec![service("tls"), service("dns")],
        script_sets: vec![ScriptSet {
            name: "by sni".into(),
            request: Some(Source {
                name: "sni.lua".into(),
                text: b"local tls = require 'Default-TLS'\nlocal payload = avi.l4.read()\n".to_vec(),
            }),
            response: None,
            pools: vec![],
            pool_groups: vec![],
            parsers: vec![],
        }],
        ..Snapshot::default()
    }
}

pub fn prefix(address: &str, length: u8) -> Prefix {
    Prefix { address: address.parse().unwrap(), length }
}

fn pool(name: &str, kind: MonitorKind, servers: &[u16]) -> Pool {
    Pool {
        name: name.into(),
        algorithm: Algorithm::RoundRobin,
        servers: servers.iter().copied().map(ServerId).collect(),
        monitors: vec![monitor(kind)],
        port_translation: true,
        fail_action: FailAction::Reset,
        tcp: PoolTcp {
            promise: tcp::Promise { mss: 1460, window_scale: None, sack: false, timestamps: false },
            connect_timeout: Duration::from_secs(3),
            connect_retries: 1,
            proxy_protocol: None,
        },
    }
}

pub fn monitor(kind: MonitorKind) -> Monitor {
    Monitor {
        kind,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 1,
        port: None,
    }
}

fn server(pool: u16, address: &str, hostname: Option<&str>, port: u16) -> Server {
    Server {
        pool: PoolId(pool),
        address: address.parse().unwrap(),
        hostname: hostname.map(str::to_owned),
        port,
        weight: 1,
        enabled: true,
        max_connections: None,
    }
}

fn service(name: &str) -> Service {
    Service {
        name: name.into(),
        addresses: vec!["198.51.100.1".parse().unwrap()],
        ports: vec![],
        default: None,
        script_sets: vec![],
        tcp: ServiceTcp {
            profile: TcpProfile::Proxy,
            idle_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(5),
            first_payload_timeout: Duration::from_secs(5),
            on_first_payload_timeout: Fallback::Close,
            reset_on_idle: true,
            mss: None,
            syn_cookies: SynCookies::Auto,
            accept_proxy_from: Vec::new(),
            buffer: 16384,
        },
        udp: ServiceUdp {
            per_packet: false,
            idle_timeout: Duration::from_secs(30),
            first_payload_timeout: Duration::from_secs(1),
            on_first_payload_timeout: Fallback::Close,
            buffer: 16384,
        },
        datascript: ServiceDatascript { every_payload: false, on_error: Fallback::Close, debug_log: false },
        tables: TableLimits { entries: 1000, key_bytes: 256, value_bytes: 1024, bytes: 1 << 20 },
        log_connections: true,
        preserve_client_ip: false,
    }
}

/// A TLS connection that ended well, as its worker tells it. At hand at once: tests flood the log with it.
pub fn ended() -> EndedFlow {
    static ENDED: LazyLock<EndedFlow> = LazyLock::new(well_ended);
    ENDED.clone()
}

fn well_ended() -> EndedFlow {
    let key = |source: &str, destination: &str| {
        FlowKey::new(Protocol::Tcp, source.parse().unwrap(), destination.parse().unwrap())
    };
    let mut flows = FlowTable::new(1, 7, false).unwrap();
    let id = flows.insert(key("192.0.2.10:40000", "198.51.100.1:443")).unwrap();
    flows.bind(id, key("10.0.0.11:8443", "10.0.0.1:1024")).unwrap();
    let flow = flows.flow_mut(id).unwrap();
    (flow.service, flow.server) = (0, 0);
    (flow.client_packets, flow.client_bytes) = (6, 517);
    (flow.server_packets, flow.server_bytes) = (5, 4096);
    let at = Instant::from_micros_const;
    let milestones = Milestones {
        established: Some(at(5_000_210)),
        decided: Some(at(5_000_245)),
        connected: Some(at(5_000_645)),
    };
    let notes = Notes {
        client: None,
        ds_log: Some(b"sni=a.example \x00\xff".to_vec().into()),
        significant: true,
        error: None,
    };
    let flow = flows.flow(id).unwrap();
    let times = (at(5_000_000), at(6_500_000));
    let mut ended = EndedFlow::of(flow, times, (Termination::NORMAL, None));
    ended.add(&milestones, Some(Box::new(notes)));
    ended
}

/// The same as it is read.
pub fn record() -> ConnectionRecord {
    ended().record(None)
}
