//! Copies of a worker's state for the operator. Slow by nature and bounded; made between bursts.

use std::net::IpAddr;

use smoltcp::time::Instant;

use crate::channel::{
    FlowState as FlowPhase, FlowView, Live, PoolView, ServerView, TableEntryView, TableStatsView, Traffic,
};
use crate::flow::{Direction, Flow, FlowRef, FlowState};
use crate::pipeline::Pipeline;
use crate::policy::Policy;
use crate::proxy_protocol::Endpoints;
use crate::snapshot::{PoolId, Protocol, ServerId, ServiceId};

/// Every server of every pool.
pub fn servers<P: Policy>(pipeline: &Pipeline<P>) -> Vec<ServerView> {
    let ids = (0..pipeline.snapshot().servers.len()).filter_map(|index| u16::try_from(index).ok());
    let view = |server: ServerId| {
        let status = pipeline.balancer().status(server);
        ServerView {
            server,
            given: pipeline.snapshot().retired.server_given(server),
            up: status.healthy,
            enabled: status.enabled,
            flows: u64::from(status.flows),
            flows_total: status.total,
        }
    };
    ids.map(|id| view(ServerId(id))).collect()
}

/// Every pool.
pub fn pools<P: Policy>(pipeline: &Pipeline<P>) -> Vec<PoolView> {
    let ids = (0..pipeline.snapshot().pools.len()).filter_map(|index| u16::try_from(index).ok()).map(PoolId);
    let given = |pool| pipeline.snapshot().retired.pool_given(pool);
    ids.map(|pool| PoolView { pool, given: given(pool), refused: pipeline.balancer().refusals(pool) })
        .collect()
}

/// Up to `limit` flows, of one service and one client if wished, whether a PROXY header names it or not.
pub fn flows<P: Policy>(
    pipeline: &Pipeline<P>,
    now: Instant,
    limit: usize,
    service: Option<ServiceId>,
    client: Option<IpAddr>,
) -> Vec<FlowView> {
    let services = &pipeline.snapshot().services;
    let name = |service: ServiceId| services.get(service.index()).map(|service| &service.name);
    let wanted = service.map(|service| (service, name(service)));
    // A flow may be of an earlier state of the service.
    let of_service = |flow: &Flow| {
        wanted.is_none_or(|(id, named)| id.0 == flow.service || name(ServiceId(flow.service)) == named)
    };
    let views = pipeline.flows().iter().map(|(_, flow)| flow).filter(|flow| of_service(flow));
    let views = views.map(|flow| flow_view(flow, pipeline.endpoints(&flow), now));
    let of_client = |view: &FlowView| {
        let ends = [Some(view.client), view.peer];
        client.is_none_or(|client| ends.into_iter().flatten().any(|end| end.ip() == client))
    };
    views.filter(of_client).take(limit).collect()
}

fn flow_view(flow: FlowRef<'_>, named: Option<Endpoints>, now: Instant) -> FlowView {
    let peer = flow.client_key().source_socket();
    let bound = flow.is_bound();
    FlowView {
        service: ServiceId(flow.service),
        protocol: if flow.is_tcp() { Protocol::Tcp } else { Protocol::Udp },
        client: named.map_or(peer, |endpoints| endpoints.source),
        peer: named.map(|_| peer),
        vip: flow.client_key().destination_socket(),
        server: flow.server_id(),
        server_address: bound.then(|| flow.server_key().source_socket()),
        snat: bound.then(|| flow.server_key().destination_socket()),
        state: flow_phase(&flow),
        from_client: traffic(&flow, Direction::FromClient),
        from_server: traffic(&flow, Direction::FromServer),
        age: flow.age(now),
        idle: flow.idle(now),
    }
}

/// What went one way over a flow.
pub fn traffic(flow: &Flow, direction: Direction) -> Traffic {
    let (packets, bytes) = match direction {
        Direction::FromClient => (flow.client_packets, flow.client_bytes),
        Direction::FromServer => (flow.server_packets, flow.server_bytes),
    };
    Traffic { packets: u64::from(packets), bytes }
}

/// Where a flow is in its life.
pub(crate) fn flow_phase(flow: &Flow) -> FlowPhase {
    match flow.state() {
        FlowState::Embryonic | FlowState::Free => FlowPhase::Handshake,
        FlowState::Waiting => FlowPhase::Deciding,
        FlowState::Connecting => FlowPhase::Connecting,
        FlowState::Bound if flow.is_tcp() && flow.lifecycle() != tcp::Lifecycle::Established => {
            FlowPhase::Closing
        }
        FlowState::Bound => FlowPhase::Established,
        FlowState::Closing | FlowState::Lingering => FlowPhase::Closing,
    }
}

/// What decisions about flows of a service depend on, with up to `limit` entries of its tables.
pub fn live<P: Policy>(pipeline: &Pipeline<P>, now: Instant, service: ServiceId, limit: usize) -> Live {
    let (entries, _) = tables(pipeline, now, Some(service), limit);
    let held = pipeline.tables().stats(service).entries;
    let generation = pipeline.snapshot().retired.generation;
    Live { balancer: pipeline.balancer().rehearsal(), entries, held, generation }
}

/// Up to `limit` entries, and the statistics, of the tables of one service or of all.
pub fn tables<P: Policy>(
    pipeline: &Pipeline<P>,
    now: Instant,
    service: Option<ServiceId>,
    limit: usize,
) -> (Vec<TableEntryView>, Vec<TableStatsView>) {
    let all = (0..pipeline.snapshot().services.len()).filter_map(|index| u16::try_from(index).ok());
    let live = all.map(ServiceId).filter(|id| !pipeline.snapshot().retired.services.contains(id));
    let ids: Vec<ServiceId> = live.filter(|id| service.is_none_or(|service| service == *id)).collect();
    let stats = ids.iter().map(|id| TableStatsView { service: *id, stats: pipeline.tables().stats(*id) });
    let entries = ids.iter().flat_map(|id| {
        let live = pipeline.tables().entries(*id, limit).filter(|entry| entry.expires > now);
        live.map(|entry| TableEntryView {
            service: *id,
            table: entry.table.map(<[u8]>::to_vec),
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            remaining: entry.expires - now,
        })
    });
    (entries.take(limit).collect(), stats.collect())
}
