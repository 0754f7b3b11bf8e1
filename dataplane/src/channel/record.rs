//! A flow that has ended, as the connection log tells it.

use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};

use super::{Termination, Traffic};
use crate::counters::DropReason;
use crate::snapshot::{Protocol, ServerId, ServiceId};

/// What is known about a flow when it has ended. One per flow of a service with
/// [`crate::snapshot::Service::log_connections`], also for flows that were refused.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Its virtual service.
    pub service: ServiceId,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Client address and port.
    pub client: SocketAddr,
    /// Who sent its packets, where the client is somebody else, named by a PROXY header.
    pub peer: Option<SocketAddr>,
    /// VIP and the VS port that the client used.
    pub vip: SocketAddr,
    /// The server, if one was chosen.
    pub server: Option<ServerId>,
    /// Where packets to the server went.
    pub server_address: Option<SocketAddr>,
    /// Source address and port towards the server.
    pub snat: Option<SocketAddr>,
    /// The worker's time at the first packet.
    pub started: Instant,
    /// The worker's time at the end. Control turns both into wall-clock time.
    pub ended: Instant,
    /// From the client's SYN to its completed handshake (TCP that weir terminates).
    pub handshake: Option<Duration>,
    /// From the first payload, or the handshake, to the choice of a server.
    pub decision: Option<Duration>,
    /// From the first SYN to a server to the server's handshake.
    pub connect: Option<Duration>,
    /// From the client.
    pub from_client: Traffic,
    /// From the server.
    pub from_server: Traffic,
    /// Who ended it, and when.
    pub termination: Termination,
    /// Why it was refused, if it was.
    pub reason: Option<DropReason>,
    /// What scripts logged, unescaped, cut mark included.
    pub ds_log: Option<Box<[u8]>>,
    /// A script marked it as significant.
    pub significant: bool,
    /// Message and traceback of a failed script.
    pub error: Option<Box<str>>,
}
