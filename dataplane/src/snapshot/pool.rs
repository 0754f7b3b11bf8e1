//! Pools, their servers, and groups of pools.

use std::net::IpAddr;

use smoltcp::time::Duration;

use super::{PoolGroupId, PoolId, ServerId};
use crate::proxy_protocol;

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
