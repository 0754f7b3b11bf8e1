//! Small configurations for the tests of this crate's deciding parts.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Duration;

use crate::snapshot::{
    Algorithm, FailAction, Fallback, Monitor, MonitorKind, Pool, PoolGroup, PoolGroupId, PoolGroupMember,
    PoolId, PoolTcp, ScriptSet, ScriptSetId, Server, ServerId, Service, ServiceDatascript, ServiceTcp,
    ServiceUdp, Snapshot, SynCookies, TableLimits, Target, TcpProfile,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn icmp_monitor() -> Monitor {
    Monitor {
        kind: MonitorKind::Icmp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        port: None,
    }
}

impl Snapshot {
    /// Adds a pool of enabled servers of weight 1 without monitors; on failure it resets.
    pub(crate) fn add_pool(&mut self, name: &str, algorithm: Algorithm, servers: &[&str]) -> PoolId {
        let pool = PoolId(u16::try_from(self.pools.len()).unwrap());
        let mut members = Vec::new();
        for server in servers {
            let at: SocketAddr = server.parse().unwrap();
            members.push(ServerId(u16::try_from(self.servers.len()).unwrap()));
            self.servers.push(Server {
                pool,
                address: at.ip(),
                hostname: None,
                port: at.port(),
                weight: 1,
                enabled: true,
                max_connections: None,
            });
        }
        self.pools.push(Pool {
            name: name.to_owned(),
            algorithm,
            servers: members,
            monitors: Vec::new(),
            port_translation: true,
            fail_action: FailAction::Reset,
            tcp: PoolTcp {
                promise: tcp::Promise { mss: 1460, window_scale: None, sack: true, timestamps: false },
                connect_timeout: Duration::from_secs(1),
                connect_retries: 1,
                proxy_protocol: None,
            },
        });
        pool
    }

    /// Gives all servers so far this limit.
    pub(crate) fn limit_servers(&mut self, most: u32) {
        self.servers.iter_mut().for_each(|server| server.max_connections = Some(most));
    }

    /// Adds a group of (pool, priority, ratio).
    pub(crate) fn add_group(&mut self, name: &str, members: &[(PoolId, u16, u16)]) -> PoolGroupId {
        let members =
            members.iter().map(|&(pool, priority, ratio)| PoolGroupMember { pool, priority, ratio });
        self.pool_groups.push(PoolGroup { name: name.to_owned(), members: members.collect() });
        PoolGroupId(u16::try_from(self.pool_groups.len() - 1).unwrap())
    }

    /// Adds a set without scripts that is attached to these pools and groups.
    pub(crate) fn add_set(&mut self, pools: &[PoolId], groups: &[PoolGroupId]) -> ScriptSetId {
        self.script_sets.push(ScriptSet {
            name: "set".to_owned(),
            request: None,
            response: None,
            pools: pools.to_vec(),
            pool_groups: groups.to_vec(),
            parsers: Vec::new(),
        });
        ScriptSetId(u16::try_from(self.script_sets.len() - 1).unwrap())
    }

    /// Adds a service without ports, with room for `entries` table entries of 64-byte keys and values.
    pub(crate) fn add_service(&mut self, name: &str, default: Option<Target>, entries: u32) {
        self.services.push(Service {
            name: name.to_owned(),
            addresses: Vec::new(),
            ports: Vec::new(),
            default,
            script_sets: Vec::new(),
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
                buffer: 65535,
            },
            udp: ServiceUdp {
                per_packet: false,
                idle_timeout: Duration::from_secs(30),
                first_payload_timeout: Duration::from_secs(5),
                on_first_payload_timeout: Fallback::Close,
                buffer: 65535,
            },
            datascript: ServiceDatascript {
                every_payload: false,
                on_error: Fallback::Close,
                debug_log: false,
            },
            tables: TableLimits { entries, key_bytes: 64, value_bytes: 64, bytes: u64::from(entries) * 128 },
            log_connections: true,
            preserve_client_ip: false,
        });
    }
}
