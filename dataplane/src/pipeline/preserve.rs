//! Flows whose servers see the client's own address and port (`preserve_client_ip`).
//!
//! Nothing is chosen for such a flow: the key of its server's packets is server and client. A client address and port can
//! therefore have one flow with a server; a second one, by another VIP or another port of it, goes to another server or is
//! refused. Answers come in because weir is the servers' gateway. It is no router: what they send is looked up as all packets are,
//! and what belongs to no flow is dropped.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use smoltcp::time::Instant;
use tcp::{Flags, Lifecycle};

use super::decide::Refusal;
use super::{Pipeline, Verdict};
use crate::address::{Address, FlowKey};
use crate::counters::DropReason;
use crate::flow::{Flow, FlowState};
use crate::header::PROTOCOL_TCP;
use crate::io::PacketBuf;
use crate::neighbor::keyed::Keyed;
use crate::parse::Headers;
use crate::policy::Policy;
use crate::snapshot::{PoolId, ServerId, Service, ServiceId, Snapshot};

/// Servers that see the addresses of clients; built once per snapshot, empty without such services.
#[derive(Debug, Default)]
pub(super) struct Preserved {
    addresses: HashSet<Address, Keyed>,
    /// With the port, or with [`ANY_PORT`] where the packet keeps that of the service.
    sockets: HashSet<(Address, u16), Keyed>,
}

const ANY_PORT: u16 = 0;

impl Preserved {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut preserved = Preserved::default();
        // One without addresses is retired and has no flows any more.
        let in_use = |service: &&Service| service.preserve_client_ip && !service.addresses.is_empty();
        let services = snapshot.services.iter().filter(in_use);
        let pools: BTreeSet<PoolId> = services.flat_map(|service| snapshot.pools_of(service)).collect();
        // Those that a reload has taken out of their pools, too: their flows go on.
        let spare = &snapshot.retired.spare.servers;
        let there = snapshot.servers.iter().zip(0..).filter(|(_, id)| !spare.contains_key(&ServerId(*id)));
        for (server, _) in there.filter(|(server, _)| pools.contains(&server.pool)) {
            let translated =
                snapshot.pools.get(server.pool.index()).is_some_and(|pool| pool.port_translation);
            let address = Address::from(server.address);
            preserved.addresses.insert(address);
            preserved.sockets.insert((address, if translated { server.port } else { ANY_PORT }));
        }
        preserved
    }

    /// True for the address of such a server.
    pub(super) fn is_server(&self, address: Address) -> bool {
        self.addresses.contains(&address)
    }

    /// True for address and port of such a server.
    fn serves(&self, address: Address, port: u16) -> bool {
        self.is_server(address)
            && [port, ANY_PORT].iter().any(|port| self.sockets.contains(&(address, *port)))
    }
}

/// A client whose own address and port are to be the source of a flow: the key of its packets to the VIP.
pub(super) struct Claim(FlowKey);

/// The servers that a flow may not have.
pub(super) struct Servers<'a> {
    pub(super) excluded: Cow<'a, [ServerId]>,
    /// Some of them have a flow of the same client address and port.
    pub(super) in_use: bool,
}

impl<'a> Servers<'a> {
    /// Any but these.
    pub(super) fn but(tried: &'a [ServerId]) -> Self {
        Servers { excluded: Cow::Borrowed(tried), in_use: false }
    }

    /// Not this one, because the client's address and port are in use there.
    pub(super) fn pass_over(&mut self, server: ServerId) {
        self.in_use = true;
        self.excluded.to_mut().push(server);
    }
}

impl<P: Policy> Pipeline<P> {
    /// True if flows of this service keep their source.
    pub(super) fn preserves(&self, service: ServiceId) -> bool {
        self.snapshot.services.get(service.index()).is_some_and(|service| service.preserve_client_ip)
    }

    /// What a flow with this client key has to claim from its server: nothing if its service does full NAT. A client that says
    /// it is weir itself is refused: no answer would go out to it.
    pub(super) fn claim(&self, service: ServiceId, client: &FlowKey) -> Result<Option<Claim>, Refusal> {
        if !self.preserves(service) {
            return Ok(None);
        }
        if self.is_ours(client.source) {
            return Err(Refusal::reset(DropReason::ClientInUse));
        }
        Ok(Some(Claim(*client)))
    }

    /// True if the server has a flow of the same client address and port that is not over.
    pub(super) fn is_in_use(&self, Claim(client): &Claim, server: ServerId) -> bool {
        let Some(there) = self.destinations.of(server) else { return false };
        let found = self.flows.lookup(&key_of(client, there.socket(client.destination_port)));
        found.is_some_and(|(id, _)| !self.flows.flow(id).is_some_and(|flow| is_over(&flow)))
    }

    /// The client's own address and port: the key of the server's packets, and its hash. A flow that had them and is over
    /// ends for good.
    pub(super) fn take_client(
        &mut self,
        now: Instant,
        client: &FlowKey,
        server: (Address, u16),
    ) -> Result<(FlowKey, u64), Refusal> {
        let key = key_of(client, server);
        let hash = self.flows.hash(&key);
        if let Some((earlier, _)) = self.flows.find(hash, &key) {
            if !self.flows.flow(earlier).is_some_and(|flow| is_over(&flow)) {
                return Err(Refusal::reset(DropReason::ClientInUse));
            }
            self.end_by_lifecycle(now, earlier);
        }
        Ok((key, hash))
    }

    /// TCP or UDP that belongs to no flow, from weir's neighbours to somebody else. A server that sees its clients' addresses
    /// may still have a connection that weir has forgotten: it is told so.
    pub(super) fn for_a_stranger<B: PacketBuf>(&mut self, buf: &B, headers: &Headers) -> Verdict {
        let key = &headers.key;
        let opens = headers.tcp_flags & (Flags::SYN | Flags::ACK).0 == Flags::SYN.0;
        if key.protocol != PROTOCOL_TCP || opens || !self.preserved.serves(key.source, key.source_port) {
            return Verdict::Drop(DropReason::NoAddress);
        }
        self.answer_with_reset(buf, headers);
        Verdict::Drop(DropReason::NoFlow)
    }

    /// True if `key` is that of an ICMP error to a client, about a packet that weir has sent with the client's address.
    pub(super) fn is_about_client(&self, error: &FlowKey, original: &FlowKey) -> bool {
        error.destination == original.source
            && self.preserved.serves(original.destination, original.destination_port)
            && !self.is_ours(error.destination)
    }
}

/// The key of the packets of a server to a client.
fn key_of(client: &FlowKey, (source, source_port): (Address, u16)) -> FlowKey {
    FlowKey {
        source,
        source_port,
        destination: client.source,
        destination_port: client.source_port,
        branch: 0,
        ..*client
    }
}

/// True for a connection of which nobody knows any more but late packets: both sides have finished and heard each other, or it
/// was reset.
fn is_over(flow: &Flow) -> bool {
    let finished = flow.lifecycle() == Lifecycle::BothFin && flow.track.is_settled();
    flow.is_tcp() && flow.state() == FlowState::Bound && (finished || flow.lifecycle() == Lifecycle::Reset)
}
