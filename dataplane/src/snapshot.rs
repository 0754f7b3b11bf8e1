//! The configuration as the core means it: validated, immutable, everything referred to by index.
//!
//! `config` builds it from TOML; tests build it by hand. Owned by an `Arc`, shared by workers and control, never
//! changed after that, but for [`Snapshot::tokens`]. What changes at run time (server up or down) lives in
//! [`crate::balance::Balancer`]. A reload makes another one, in which nothing has lost its place: [`crate::overlay`].

use smoltcp::time::Duration;
use std::net::{IpAddr, SocketAddr};

use crate::io::PortId;
use crate::overlay::Retired;
use crate::proxy_protocol;
use crate::tokens::SharedTokens;

macro_rules! index_type {
    ($(#[$doc:meta] $name:ident in $list:literal),* $(,)?) => { $(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u16);
        impl $name {
            #[doc = concat!("The place in [`Snapshot::", $list, "`].")]
            #[must_use]
            pub fn index(self) -> usize { usize::from(self.0) }
        }
    )* };
}

index_type! {
    /// A pool.
    PoolId in "pools",
    /// A server: one member of one pool (the same address in two pools is two servers).
    ServerId in "servers",
    /// A pool group.
    PoolGroupId in "pool_groups",
    /// A virtual service.
    ServiceId in "services",
    /// A DataScript set.
    ScriptSetId in "script_sets",
}

/// One whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Ports, by [`PortId`].
    pub interfaces: Vec<Interface>,
    /// Static routes; the longest prefix wins. Connected routes come from [`Interface::addresses`].
    pub routes: Vec<Route>,
    /// Source addresses for full NAT, which all services do that do not preserve the client's address.
    pub snat: SnatPool,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// By [`ServerId`].
    pub servers: Vec<Server>,
    /// By [`PoolGroupId`].
    pub pool_groups: Vec<PoolGroup>,
    /// By [`ServiceId`].
    pub services: Vec<Service>,
    /// By [`ScriptSetId`].
    pub script_sets: Vec<ScriptSet>,
    /// Bounds of everything that grows.
    pub limits: Limits,
    /// What the workers share of [`Server::max_connections`].
    pub tokens: SharedTokens,
    /// What only earlier configurations had; empty but after [`Snapshot::overlaid`].
    pub retired: Retired,
}

/// An address with the prefix length of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// For an interface its own address, for a route the network.
    pub address: IpAddr,
    /// 0 to 32 or 128.
    pub length: u8,
}

impl Prefix {
    /// True if `other` is of the same family and inside the subnet.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32u32.saturating_sub(u32::from(self.length));
                a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128u32.saturating_sub(u32::from(self.length));
                a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// One port of the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name in the configuration.
    pub name: String,
    /// Own addresses with their subnets. ARP, ND, ping and health monitors answer and start from these.
    pub addresses: Vec<Prefix>,
    /// 802.1Q tag of every frame on this port, or `None` for untagged. Received frames with another tag are dropped.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
}

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination network.
    pub to: Prefix,
    /// Next hop, on the subnet of an interface.
    pub via: IpAddr,
}

/// The source addresses and ports that full NAT may use towards servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnatPool {
    /// Each inside the subnet of an interface; weir answers ARP and ND for them.
    pub addresses: Vec<IpAddr>,
    /// First port, inclusive.
    pub first_port: u16,
    /// Last port, inclusive. Ports above it are free for the health monitors' own connections.
    pub last_port: u16,
}

/// How a pool chooses among its servers that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, by weight (smooth weighted round robin; equal weights are plain round robin).
    RoundRobin,
    /// The fewest open flows per weight.
    LeastConnections,
    /// Maglev consistent hash over the client's address.
    SourceIpHash,
}

/// A set of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name in the configuration and in scripts.
    pub name: String,
    /// How a server is chosen.
    pub algorithm: Algorithm,
    /// Members in configuration order.
    pub servers: Vec<ServerId>,
    /// All of them must hold for a server to be up; empty means that enabled servers are up.
    pub monitors: Vec<Monitor>,
    /// `false`: the packet keeps the VS's destination port.
    pub port_translation: bool,
    /// What happens to a flow when no server is up.
    pub fail_action: FailAction,
    /// TCP towards the servers.
    pub tcp: PoolTcp,
}

/// What a flow meets in a pool without a server that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailAction {
    /// RST for TCP; UDP datagrams are dropped.
    Reset,
    /// FIN for TCP; UDP datagrams are dropped.
    Close,
    /// Balance in this pool instead. That pool's own `fail_action` is not followed further than 4 pools.
    Pool(PoolId),
}

/// TCP towards the servers of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolTcp {
    /// What weir promises a client before the server is known.
    pub promise: tcp::Promise,
    /// Time from the first SYN to a server to giving it up.
    pub connect_timeout: Duration,
    /// How many other servers are tried when one refuses or stays silent and the script did not pin it.
    pub connect_retries: u8,
    /// The PROXY header that its servers expect ahead of the client's bytes.
    pub proxy_protocol: Option<proxy_protocol::Version>,
}

/// One member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The pool it belongs to.
    pub pool: PoolId,
    /// Address.
    pub address: IpAddr,
    /// Name in the configuration by which scripts may also choose it.
    pub hostname: Option<String>,
    /// Port.
    pub port: u16,
    /// 1 to 256.
    pub weight: u16,
    /// `false`: configured, but takes no new flows.
    pub enabled: bool,
    /// Most flows at a time, all workers together; at least 1.
    pub max_connections: Option<u32>,
}

/// How `control` finds out whether a server is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// What is sent and expected.
    pub kind: MonitorKind,
    /// Time between the starts of two probes.
    pub interval: Duration,
    /// Time after which a probe has failed.
    pub timeout: Duration,
    /// Good probes in a row that make a server up.
    pub rise: u8,
    /// Failed probes in a row that make a server down.
    pub fall: u8,
    /// Port of the probe; the server's own when `None`.
    pub port: Option<u16>,
}

/// What a probe sends and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorKind {
    /// Echo request and reply.
    Icmp,
    /// The TCP handshake completes; weir then closes with FIN.
    Tcp,
    /// One datagram; up when any answer comes that contains `expect` (empty: any answer).
    Udp {
        /// Payload of the probe.
        send: Vec<u8>,
        /// Bytes that must occur in the answer.
        expect: Vec<u8>,
    },
}

/// Pools by priority and ratio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolGroup {
    /// Name in the configuration and in scripts.
    pub name: String,
    /// Members in configuration order.
    pub members: Vec<PoolGroupMember>,
}

/// A pool in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolGroupMember {
    /// The pool.
    pub pool: PoolId,
    /// The highest priority that has a pool with a server up takes all flows.
    pub priority: u16,
    /// Share of the flows among pools of the same priority, 0 to 1000; 0 takes none.
    pub ratio: u16,
}

/// Where a flow goes when no script says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A pool, by its algorithm.
    Pool(PoolId),
    /// A pool group, by priority and ratio.
    PoolGroup(PoolGroupId),
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp = 6,
    /// IP protocol 17.
    Udp = 17,
}

/// Ports of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port, inclusive.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name in the configuration, metrics and logs; `avi.vs.name()`.
    pub name: String,
    /// VIPs.
    pub addresses: Vec<IpAddr>,
    /// Ports, TCP and UDP mixed.
    pub ports: Vec<PortRange>,
    /// Where flows go that no script decided.
    pub default: Option<Target>,
    /// DataScript sets, in the order in which they run.
    pub script_sets: Vec<ScriptSetId>,
    /// TCP settings.
    pub tcp: ServiceTcp,
    /// UDP settings.
    pub udp: ServiceUdp,
    /// Script settings.
    pub datascript: ServiceDatascript,
    /// Key-value tables of this service.
    pub tables: TableLimits,
    /// A connection record is written for flows of this service.
    pub log_connections: bool,
    /// Servers see the client's own address and port, and their answers come back through weir.
    pub preserve_client_ip: bool,
}

/// How TCP connections are bound to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpProfile {
    /// The server is chosen on the SYN; the handshake is between client and server.
    FastPath,
    /// weir completes the client's handshake and chooses on the first payload.
    Proxy,
}

/// When SYNs are answered without keeping anything (RFC 4987).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynCookies {
    /// Above [`Limits::syn_cookies_above`] incomplete handshakes.
    Auto,
    /// Always.
    Always,
    /// Never: at [`Limits::embryonic`] the oldest incomplete handshake gives way.
    Never,
}

/// TCP towards clients of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTcp {
    /// How connections are bound.
    pub profile: TcpProfile,
    /// Idle time after which an established connection ends.
    pub idle_timeout: Duration,
    /// Time a client has for its handshake.
    pub handshake_timeout: Duration,
    /// Time from the handshake to the end of the script's decision.
    pub first_payload_timeout: Duration,
    /// What happens when it passes.
    pub on_first_payload_timeout: Fallback,
    /// Reset both sides at the idle timeout; `false` forgets silently.
    pub reset_on_idle: bool,
    /// Bytes of client payload buffered before a server is chosen; also the largest window advertised.
    pub buffer: u32,
    /// Largest MSS that either side is told of, in bytes.
    pub mss: Option<u16>,
    /// When SYNs are answered by cookies.
    pub syn_cookies: SynCookies,
    /// Connections from these networks begin with a PROXY header.
    pub accept_proxy_from: Vec<Prefix>,
}

/// What to do when a script cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// End the flow.
    Close,
    /// The service's default pool or pool group.
    DefaultPool,
}

/// UDP of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceUdp {
    /// Every datagram is balanced by itself instead of following its flow.
    pub per_packet: bool,
    /// Idle time after which a flow ends.
    pub idle_timeout: Duration,
    /// Time from the first datagram to the end of the script's decision.
    pub first_payload_timeout: Duration,
    /// What happens when it passes.
    pub on_first_payload_timeout: Fallback,
    /// Bytes of datagrams held while a script waits for more.
    pub buffer: u32,
}

/// Scripts of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceDatascript {
    /// `true`: run on every payload until `ds_done`; `false`: once per flow and event.
    pub every_payload: bool,
    /// What a failed run does to its flow.
    pub on_error: Fallback,
    /// `avi.vs.debuglog` writes.
    pub debug_log: bool,
}

/// Bounds of the tables of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Live entries, all tables of the service together.
    pub entries: u32,
    /// Longest key in bytes.
    pub key_bytes: u32,
    /// Longest value in bytes.
    pub value_bytes: u32,
    /// Keys and values, all tables of the service together, in bytes.
    pub bytes: u64,
}

/// A DataScript set: scripts per event and what they may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptSet {
    /// Name in the configuration.
    pub name: String,
    /// Script of the request event.
    pub request: Option<Source>,
    /// Script of the response event.
    pub response: Option<Source>,
    /// Pools that the scripts may name.
    pub pools: Vec<PoolId>,
    /// Pool groups that the scripts may name.
    pub pool_groups: Vec<PoolGroupId>,
    /// Modules that the scripts may `require`, by their names.
    pub parsers: Vec<(String, Source)>,
}

/// Lua text and the name that errors show for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name as written in the configuration.
    pub name: String,
    /// The text, as read (a BOM and CRLF are still there).
    pub text: Vec<u8>,
}

/// Bounds of one worker. Each is a key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows, all states together.
    pub flows: u32,
    /// TCP flows whose handshake is not complete.
    pub embryonic: u32,
    /// With more incomplete handshakes than that SYNs are answered by cookies; less than `embryonic`.
    pub syn_cookies_above: u32,
    /// Flows that wait for a script's decision or a server.
    pub waiting: u32,
    /// Flows that have a server.
    pub spliced: u32,
    /// Neighbours (ARP and ND entries).
    pub neighbors: u32,
    /// Memory for IPv4 fragments that wait for the rest of their datagrams, in bytes; 0: none are put together.
    pub fragment_memory: u32,
    /// Time in Lua per run.
    pub script_budget: Duration,
    /// Memory of the Lua state, in bytes.
    pub script_memory: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            flows: 1 << 16,
            embryonic: 1 << 13,
            syn_cookies_above: 1 << 12,
            waiting: 1 << 13,
            spliced: 1 << 16,
            neighbors: 1024,
            fragment_memory: 4 << 20,
            script_budget: Duration::from_millis(1),
            script_memory: 16 << 20,
        }
    }
}

impl Snapshot {
    /// True if servers of any service see their clients' own addresses.
    #[must_use]
    pub fn preserves_clients(&self) -> bool {
        self.services.iter().any(|service| service.preserve_client_ip)
    }

    /// The pools that flows of a service may end in: those of its default and those attached to its script sets, and where
    /// their `fail_action` leads. Some more than once.
    #[must_use]
    pub fn pools_of(&self, service: &Service) -> Vec<PoolId> {
        let sets = service.script_sets.iter().filter_map(|id| self.script_sets.get(id.index()));
        let groups = sets.clone().flat_map(|set| set.pool_groups.iter().copied());
        let groups = groups.chain(match service.default {
            Some(Target::PoolGroup(group)) => Some(group),
            _ => None,
        });
        let members = groups.filter_map(|id| self.pool_groups.get(id.index()));
        let members = members.flat_map(|group| group.members.iter().map(|member| member.pool));
        let default = match service.default {
            Some(Target::Pool(pool)) => Some(pool),
            _ => None,
        };
        let mut pools: Vec<PoolId> = default
            .into_iter()
            .chain(sets.flat_map(|set| set.pools.iter().copied()))
            .chain(members)
            .collect();
        let mut place = 0;
        while let Some(pool) = pools.get(place).and_then(|id| self.pools.get(id.index())) {
            if let FailAction::Pool(next) = pool.fail_action
                && !pools.contains(&next)
            {
                pools.push(next);
            }
            place += 1;
        }
        pools
    }

    /// The pool named `name`.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<PoolId> {
        let at = self.pools.iter().position(|p| p.name == name)?;
        u16::try_from(at).ok().map(PoolId)
    }

    /// The pool group named `name`.
    #[must_use]
    pub fn pool_group_named(&self, name: &str) -> Option<PoolGroupId> {
        let at = self.pool_groups.iter().position(|g| g.name == name)?;
        u16::try_from(at).ok().map(PoolGroupId)
    }

    /// Where a server listens.
    #[must_use]
    pub fn server_address(&self, server: ServerId) -> Option<SocketAddr> {
        self.servers.get(server.index()).map(|s| SocketAddr::new(s.address, s.port))
    }

    /// True if flows may have addresses of IPv6, which take room of their own.
    #[must_use]
    pub fn expects_ipv6(&self) -> bool {
        let vips = self.services.iter().flat_map(|service| &service.addresses);
        let servers = self.servers.iter().map(|server| &server.address);
        vips.chain(servers).chain(&self.snat.addresses).any(|address| address.is_ipv6())
    }

    /// The port and the address of the interface whose subnet holds `address`.
    #[must_use]
    pub fn connected(&self, address: IpAddr) -> Option<(PortId, IpAddr)> {
        self.interfaces.iter().zip(0u8..).find_map(|(interface, port)| {
            let own = interface.addresses.iter().find(|p| p.contains(address))?;
            Some((PortId(port), own.address))
        })
    }
}
