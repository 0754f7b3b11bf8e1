//! A flow that has ended, as its worker tells control.

use std::net::SocketAddr;

use smoltcp::time::Instant;

use super::{ConnectionRecord, Termination, Traffic};
use crate::address::Address;
use crate::counters::DropReason;
use crate::flow::{Ends, FlowRef, Kind};
use crate::header::PROTOCOL_TCP;
use crate::snapshot::{Protocol, ServerId, ServiceId};

/// What is known about a flow when it has ended, much as its record has it: 104 bytes, so that few cache lines are written for
/// each. Addresses that are not IPv4 are not in it ([`FlowRef::addresses`]). Whoever wants to read it makes a
/// [`ConnectionRecord`] of it, which is not the worker's business.
#[derive(Clone, Debug)]
pub struct EndedFlow {
    ends: Ends,
    client_bytes: u64,
    server_bytes: u64,
    client_packets: u32,
    server_packets: u32,
    /// The worker's time at the first packet.
    started: Instant,
    /// The worker's time at the end.
    ended: Instant,
    established: Moment,
    decided: Moment,
    connected: Moment,
    /// What few flows have.
    notes: Option<Box<Notes>>,
    service: ServiceId,
    /// The server, or [`crate::flow::NO_SERVER`].
    server: u16,
    kind: Kind,
    termination: Termination,
    /// Why it was refused, if it was.
    reason: Option<DropReason>,
}

/// When a flow passed its milestones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    /// The client's handshake was complete (TCP that weir terminates).
    pub established: Option<Instant>,
    /// A script has decided, or the payload has come, and the server was chosen.
    pub decided: Option<Instant>,
    /// The server's handshake was complete.
    pub connected: Option<Instant>,
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

/// A time that has come or not, in half the bytes of an `Option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment(i64);

impl Moment {
    /// No worker's time is that early.
    const NEVER: Moment = Moment(i64::MIN);

    #[inline]
    fn at(time: Instant) -> Self {
        Moment(time.total_micros())
    }

    fn time(self) -> Option<Instant> {
        (self != Self::NEVER).then(|| Instant::from_micros(self.0))
    }
}

impl EndedFlow {
    /// What its own record says of a flow. The times are those of its first packet and its end.
    #[inline]
    #[must_use]
    pub fn of(
        flow: FlowRef<'_>,
        (started, ended): (Instant, Instant),
        (termination, reason): (Termination, Option<DropReason>),
    ) -> Self {
        let (ends, kind) = flow.ends();
        EndedFlow {
            ends,
            client_bytes: flow.client_bytes,
            server_bytes: flow.server_bytes,
            client_packets: flow.client_packets,
            server_packets: flow.server_packets,
            started,
            ended,
            established: Moment::NEVER,
            decided: Moment::NEVER,
            connected: Moment::NEVER,
            notes: None,
            service: ServiceId(flow.service),
            server: flow.server,
            kind,
            termination,
            reason,
        }
    }

    /// The server was chosen with the first packet.
    #[inline]
    pub fn decided_at_once(&mut self) {
        self.decided = Moment::at(self.started);
    }

    /// What else is known of it.
    pub fn add(&mut self, milestones: &Milestones, notes: Option<Box<Notes>>) {
        let moment = |time: Option<Instant>| time.map_or(Moment::NEVER, Moment::at);
        self.established = moment(milestones.established);
        self.decided = moment(milestones.decided);
        self.connected = moment(milestones.connected);
        self.notes = notes;
    }

    /// True if its addresses are not IPv4 alone.
    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.kind.is_wide()
    }

    /// To be read. `addresses` are those that are not in it.
    #[must_use]
    pub fn record(self, addresses: Option<[Address; 4]>) -> ConnectionRecord {
        let (client_key, server_key) = self.ends.keys(self.kind, addresses);
        let (established, decided) = (self.established.time(), self.decided.time());
        let Notes { client, ds_log, significant, error } = self.notes.map(|notes| *notes).unwrap_or_default();
        let sender = client_key.source_socket();
        let begun = established.unwrap_or(self.started);
        let traffic = |packets: u32, bytes| Traffic { packets: u64::from(packets), bytes };
        ConnectionRecord {
            service: self.service,
            protocol: if client_key.protocol == PROTOCOL_TCP { Protocol::Tcp } else { Protocol::Udp },
            client: client.unwrap_or(sender),
            peer: client.map(|_| sender),
            vip: client_key.destination_socket(),
            server: (self.server != crate::flow::NO_SERVER).then_some(ServerId(self.server)),
            server_address: server_key.map(|key| key.source_socket()),
            snat: server_key.map(|key| key.destination_socket()),
            started: self.started,
            ended: self.ended,
            handshake: established.map(|at| at - self.started),
            decision: decided.map(|at| at - begun),
            connect: self.connected.time().zip(decided).map(|(at, from)| at - from),
            from_client: traffic(self.client_packets, self.client_bytes),
            from_server: traffic(self.server_packets, self.server_bytes),
            termination: self.termination,
            reason: self.reason,
            ds_log,
            significant,
            error,
        }
    }
}
