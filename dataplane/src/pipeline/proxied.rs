//! PROXY protocol: the header that a client's connection begins with, and the one ahead of the bytes for a server.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use smoltcp::time::Instant;
use tcp::Side;

use super::Pipeline;
use super::connection::Connection;
use crate::address::FlowKey;
use crate::counters::DropReason;
use crate::flow::Flow;
use crate::flow_table::FlowId;
use crate::policy::{Close, Policy};
use crate::proxy_protocol::{self, Endpoints, MOST_V1, Parsed};
use crate::snapshot::{ServerId, ServiceId};

impl<P: Policy> Pipeline<P> {
    /// True if connections from this address begin with a header.
    pub(super) fn begins_with_header(&self, service: ServiceId, source: IpAddr) -> bool {
        let service = self.snapshot.services.get(service.index());
        service.is_some_and(|service| service.tcp.accept_proxy_from.iter().any(|net| net.contains(source)))
    }

    /// The client has sent something and its header is due. True once it has come: what is left of the payload is the
    /// client's own. A connection that begins with anything else is refused.
    pub(super) fn take_header(&mut self, now: Instant, id: FlowId, connection: &mut Connection) -> bool {
        let Some(binding) = connection.binding.as_mut() else { return false };
        match proxy_protocol::parse(binding.payload(Side::Client)) {
            Parsed::Header { length, endpoints } => {
                binding.skip(length);
                connection.header_due = false;
                connection.endpoints = endpoints;
                true
            }
            Parsed::Incomplete if !binding.client_finished() => false,
            Parsed::Incomplete | Parsed::Invalid => {
                self.refuse_binding(now, id, connection, DropReason::ProxyHeader, Close::Reset);
                false
            }
        }
    }

    /// What this server is to read ahead of the client's bytes; empty if its pool does not want a header. It tells of `endpoints`
    /// or, without them, of the connection itself.
    pub(super) fn header_for(
        &self,
        server: ServerId,
        endpoints: Option<Endpoints>,
        key: &FlowKey,
    ) -> ArrayVec<u8, MOST_V1> {
        let pool = self.snapshot.servers.get(server.index()).map(|server| server.pool);
        let pool = pool.and_then(|pool| self.snapshot.pools.get(pool.index()));
        let version = pool.and_then(|pool| pool.tcp.proxy_protocol);
        version.map_or_else(ArrayVec::new, |version| {
            proxy_protocol::emit(version, &endpoints.unwrap_or_else(|| own_endpoints(key)))
        })
    }

    /// What the header of a flow's connection said, as long as the flow is not over.
    #[must_use]
    pub fn endpoints(&self, flow: &Flow) -> Option<Endpoints> {
        self.connections.peek(flow.connection)?.endpoints
    }
}

/// The two ends of a flow's connection to the VIP.
fn own_endpoints(key: &FlowKey) -> Endpoints {
    Endpoints { source: key.source_socket(), destination: key.destination_socket() }
}
