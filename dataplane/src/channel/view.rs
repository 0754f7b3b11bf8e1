//! What an operator sees of a worker: copies of what it knew at one moment.

use std::net::SocketAddr;

use smoltcp::time::Duration;

use crate::io::PortStats;
use crate::snapshot::{PoolId, Protocol, ServerId, ServiceId};
use crate::table::TableStats;

/// What went one way over a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets, as received by weir.
    pub packets: u64,
    /// TCP or UDP payload in bytes, as received by weir: headers are not counted, retransmissions are.
    pub bytes: u64,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The client's TCP handshake with weir is not complete.
    Handshake,
    /// Waits for payload or for a script's decision.
    Deciding,
    /// weir opens the connection to the server.
    Connecting,
    /// The first bytes are replayed to the server.
    Replaying,
    /// Packets are translated.
    Established,
    /// At least one side has sent FIN.
    Closing,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct FlowView {
    /// Its virtual service.
    pub service: ServiceId,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Client address and port.
    pub client: SocketAddr,
    /// Who sends its packets, where the client is somebody else, named by a PROXY header.
    pub peer: Option<SocketAddr>,
    /// VIP and the VS port that the client used.
    pub vip: SocketAddr,
    /// The server, once chosen.
    pub server: Option<ServerId>,
    /// Where packets to the server go (without port translation, not the server's configured port).
    pub server_address: Option<SocketAddr>,
    /// Source address and port towards the server.
    pub snat: Option<SocketAddr>,
    /// Where it is in its life.
    pub state: FlowState,
    /// From the client.
    pub from_client: Traffic,
    /// From the server.
    pub from_server: Traffic,
    /// Since its first packet.
    pub age: Duration,
    /// Since its last packet.
    pub idle: Duration,
}

/// One server as the balancer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// The server.
    pub server: ServerId,
    /// When its place was [given](crate::overlay::Retired::server_given) to it.
    pub given: u32,
    /// The monitors' finding.
    pub up: bool,
    /// The operator's wish.
    pub enabled: bool,
    /// Open flows.
    pub flows: u64,
    /// Flows since start.
    pub flows_total: u64,
}

/// What the balancer knows about a pool besides its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// The pool.
    pub pool: PoolId,
    /// When its place was [given](crate::overlay::Retired::pool_given) to it.
    pub given: u32,
    /// Flows that were refused because all its servers that could have taken them were full.
    pub refused: u64,
}

/// One entry of a script's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntryView {
    /// The service that owns it.
    pub service: ServiceId,
    /// The name of the table; `None` is the default table.
    pub table: Option<Vec<u8>>,
    /// Any bytes.
    pub key: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
    /// Time until it expires.
    pub remaining: Duration,
}

/// The tables of one service, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStatsView {
    /// The service.
    pub service: ServiceId,
    /// [`crate::table::TableStore::stats`].
    pub stats: TableStats,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// [`crate::snapshot::Interface::name`].
    pub name: String,
    /// Own MAC address.
    pub mac: [u8; 6],
    /// The link is up; `None` where the device does not say.
    pub link: Option<bool>,
    /// The device's own counters.
    pub stats: PortStats,
}
