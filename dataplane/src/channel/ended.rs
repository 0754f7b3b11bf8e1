//! A flow that has ended, as its worker tells control.

use std::net::SocketAddr;

use smoltcp::time::Instant;

use super::{ConnectionRecord, Termination, Traffic};
use crate::address::FlowKey;
use crate::counters::DropReason;
use crate::header::PROTOCOL_TCP;
use crate::snapshot::{Protocol, ServerId, ServiceId};

/// What is known about a flow when it has ended: about 200 bytes, mostly copied as they are. Whoever wants to read them
/// makes a [`ConnectionRecord`] of them, which is not the worker's business.
#[derive(Clone, Debug)]
pub struct EndedFlow {
    /// Its virtual service.
    pub service: ServiceId,
    /// The server, if one was chosen.
    pub server: Option<ServerId>,
    /// Who ended it, and when.
    pub termination: Termination,
    /// Why it was refused, if it was.
    pub reason: Option<DropReason>,
    /// Of packets as they arrived from the client.
    pub client_key: FlowKey,
    /// Of packets as they arrived, or would have, from the server.
    pub server_key: Option<FlowKey>,
    /// The worker's time at the first packet.
    pub started: Instant,
    /// The worker's time at the end.
    pub ended: Instant,
    /// The client's handshake was complete (TCP that weir terminates).
    pub established: Option<Instant>,
    /// A script has decided, or the payload has come, and the server was chosen.
    pub decided: Option<Instant>,
    /// The server's handshake was complete.
    pub connected: Option<Instant>,
    /// From the client.
    pub from_client: Traffic,
    /// From the server.
    pub from_server: Traffic,
    /// What few flows have.
    pub notes: Option<Box<Notes>>,
}

/// What most flows leave no word about.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The client that a PROXY header has named.
    pub client: Option<SocketAddr>,
    /// What scripts logged, unescaped, cut mark included.
    pub ds_log: Option<Box<[u8]>>,
    /// A script marked it as significant.
    pub significant: bool,
    /// Message and traceback of a failed script.
    pub error: Option<Box<str>>,
}

impl From<EndedFlow> for ConnectionRecord {
    fn from(flow: EndedFlow) -> Self {
        let Notes { client, ds_log, significant, error } = flow.notes.map(|notes| *notes).unwrap_or_default();
        let sender = flow.client_key.source_socket();
        let begun = flow.established.unwrap_or(flow.started);
        ConnectionRecord {
            service: flow.service,
            protocol: if flow.client_key.protocol == PROTOCOL_TCP { Protocol::Tcp } else { Protocol::Udp },
            client: client.unwrap_or(sender),
            peer: client.map(|_| sender),
            vip: flow.client_key.destination_socket(),
            server: flow.server,
            server_address: flow.server_key.map(|key| key.source_socket()),
            snat: flow.server_key.map(|key| key.destination_socket()),
            started: flow.started,
            ended: flow.ended,
            handshake: flow.established.map(|at| at - flow.started),
            decision: flow.decided.map(|at| at - begun),
            connect: flow.connected.zip(flow.decided).map(|(at, from)| at - from),
            from_client: flow.from_client,
            from_server: flow.from_server,
            termination: flow.termination,
            reason: flow.reason,
            ds_log,
            significant,
            error,
        }
    }
}
