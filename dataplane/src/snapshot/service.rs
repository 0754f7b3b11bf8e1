//! Virtual services and DataScript sets.

use std::net::IpAddr;

use smoltcp::time::Duration;

use super::{PoolGroupId, PoolId, Prefix, ScriptSetId, Target};

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
