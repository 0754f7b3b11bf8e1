//! The script and the choice of a server.

use smoltcp::time::{Duration, Instant};
use tcp::{Flags, Lifecycle, Side};

use super::connection::Connection;
use super::destinations::Destination;
use super::end::Fate;
use super::preserve::{Claim, Servers};
use super::{Pipeline, Suspended};
use crate::address::FlowKey;
use crate::api;
use crate::balance::{Client, Pick};
use crate::counters::DropReason;
use crate::flow;
use crate::flow::FlowState;
use crate::flow_table::FlowId;
use crate::neighbor::NeighborId;
use crate::policy::{Close, Context, Event, FlowFacts, Outcome, Policy, Record, RunId, Selection};
use crate::snapshot::{FailAction, Fallback, PoolId, ServerId, ServiceId, Target};

/// What a run, or its absence, means for the flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// The script waits for bytes.
    Wait(Suspended),
    /// Balance there.
    Select(Selection),
    /// End the flow.
    Close(DropReason, Close),
}

impl Decision {
    /// Where to look for a server.
    pub(super) fn selection(self) -> Result<Selection, Refusal> {
        match self {
            Decision::Select(selection) => Ok(selection),
            Decision::Close(reason, close) => Err(Refusal { reason, close }),
            Decision::Wait(_) => Err(Refusal::reset(DropReason::ScriptError)),
        }
    }
}

/// What a run may see of its flow.
pub(super) struct Run<'a> {
    /// Without one it is about a single datagram.
    pub(super) flow: Option<FlowId>,
    pub(super) event: Event,
    pub(super) facts: &'a FlowFacts,
    pub(super) client_payload: &'a [u8],
    pub(super) server_payload: &'a [u8],
    pub(super) can_wait: bool,
    pub(super) resume: Option<RunId>,
}

/// What it takes to refuse a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) reason: DropReason,
    pub(super) close: Close,
}

impl Refusal {
    pub(super) fn reset(reason: DropReason) -> Self {
        Refusal { reason, close: Close::Reset }
    }
}

impl<P: Policy> Pipeline<P> {
    /// Starts or resumes the scripts of an event. Part of its callers, as what it hands on is made there.
    #[inline(always)]
    pub(super) fn run(&mut self, now: Instant, run: Run<'_>, record: &mut Record) -> Outcome {
        match self.tracer {
            None => self.run_scripts(now, &run, record),
            Some(_) => self.run_traced(now, &run, record),
        }
    }

    /// Starts or resumes the request scripts; what their end means.
    #[inline(always)]
    pub(super) fn decide(&mut self, now: Instant, run: Run<'_>, record: &mut Record) -> Decision {
        let service = run.facts.service;
        let outcome = self.run(now, run, record);
        self.decision(service, &outcome, record)
    }

    #[inline]
    pub(super) fn run_scripts(&mut self, now: Instant, run: &Run<'_>, record: &mut Record) -> Outcome {
        let mut context = Context {
            now,
            event: run.event,
            snapshot: &self.snapshot,
            facts: *run.facts,
            client_payload: run.client_payload,
            server_payload: run.server_payload,
            can_wait: run.can_wait,
            balancer: &mut self.balancer,
            tables: &mut self.tables,
            record,
        };
        match run.resume {
            None => self.policy.start(&mut context),
            Some(id) => self.policy.resume(id, &mut context),
        }
    }

    /// What the end of a request run means.
    pub(super) fn decision(&self, service: ServiceId, outcome: &Outcome, record: &Record) -> Decision {
        match outcome {
            Outcome::Suspended { run, need } => Decision::Wait(Suspended { run: *run, need: *need }),
            Outcome::Done => match (record.close, record.selection) {
                (Some(close), _) => Decision::Close(DropReason::ScriptClosed, close),
                (None, Some(selection)) => Decision::Select(selection),
                (None, None) => self.default_decision(service),
            },
            Outcome::Failed(_) => match self.on_script_error(service) {
                Fallback::Close => Decision::Close(DropReason::ScriptError, Close::Graceful),
                Fallback::DefaultPool => self.default_decision(service),
            },
        }
    }

    /// The service's default pool or group.
    pub(super) fn default_decision(&self, service: ServiceId) -> Decision {
        match self.snapshot.services.get(service.index()).and_then(|s| s.default) {
            Some(Target::Pool(pool)) => Decision::Select(Selection::Pool(pool)),
            Some(Target::PoolGroup(group)) => Decision::Select(Selection::PoolGroup(group)),
            None => Decision::Close(DropReason::NoPool, Close::Reset),
        }
    }

    /// What a failed run does to flows of this service.
    pub(super) fn on_script_error(&self, service: ServiceId) -> Fallback {
        self.snapshot.services.get(service.index()).map_or(Fallback::Close, |s| s.datascript.on_error)
    }

    /// The server that a selection means now, with room for the flow: [`Pipeline::attach`] it or give it back. Where
    /// `persist` chose a server that takes no flows any more, it is another one of its pool.
    pub(super) fn choose(
        &mut self,
        (service, client_key): (ServiceId, &FlowKey),
        selection: Selection,
        client: Client,
        connection: Option<&Connection>,
    ) -> Result<ServerId, Refusal> {
        let tried = connection.map_or(&[][..], |connection| &connection.tried);
        let record = connection.map(|connection| &connection.record);
        self.choose_but((service, client_key), selection, client, (tried, record))
    }

    /// The same for a flow that has tried these servers, and for which scripts have said this.
    #[inline]
    pub(super) fn choose_but(
        &mut self,
        (service, client_key): (ServiceId, &FlowKey),
        selection: Selection,
        client: Client,
        (tried, record): (&[ServerId], Option<&Record>),
    ) -> Result<ServerId, Refusal> {
        if let (Selection::Pool(pool), []) = (selection, tried)
            && !self.preserves(service)
            && let Some(server) = self.balancer.take_next(pool, client)
        {
            return Ok(server);
        }
        self.choose_by_all((service, client_key), selection, client, (tried, record))
    }

    /// The same, whatever there is to be looked at.
    #[inline(never)]
    fn choose_by_all(
        &mut self,
        (service, client_key): (ServiceId, &FlowKey),
        selection: Selection,
        client: Client,
        (tried, record): (&[ServerId], Option<&Record>),
    ) -> Result<ServerId, Refusal> {
        let claim = self.claim(service, client_key)?;
        let mut servers = Servers::but(tried);
        let mut pick = self.pick_and_take(selection, client, &mut servers, claim.as_ref());
        if let (Selection::Server(_), Pick::Failed(_) | Pick::Full(..), Some(record)) =
            (selection, pick, record)
            && let Some(target) = api::retry_target(&self.snapshot, service, record)
        {
            pick = self.pick_and_take(target.into(), client, &mut servers, claim.as_ref());
        }
        self.picked(pick, servers.in_use)
    }

    /// Another worker may take the last room of a server between the choice and the taking. Servers that have a flow of the
    /// same client address and port already are passed over.
    fn pick_and_take(
        &mut self,
        selection: Selection,
        client: Client,
        servers: &mut Servers<'_>,
        claim: Option<&Claim>,
    ) -> Pick {
        loop {
            match self.balancer.pick_selection(&self.snapshot, selection, client, &servers.excluded) {
                Pick::Server(server) if claim.is_some_and(|claim| self.is_in_use(claim, server)) => {
                    servers.pass_over(server);
                }
                Pick::Server(server) if !self.balancer.take(server) => {}
                pick => return pick,
            }
        }
    }

    /// What a choice means for the flow; refusals for lack of room are counted. `in_use`: a server would have been there, had
    /// it no flow of that client address and port.
    pub(super) fn picked(&mut self, pick: Pick, in_use: bool) -> Result<ServerId, Refusal> {
        let (reason, action) = match pick {
            Pick::Server(server) => return Ok(server),
            Pick::Failed(action) if in_use => (DropReason::ClientInUse, action),
            Pick::Failed(action) => (DropReason::NoServer, action),
            Pick::Full(action, pool) => {
                self.balancer.refused(pool);
                (DropReason::MaxConnections, action)
            }
        };
        let close = if action == FailAction::Close { Close::Graceful } else { Close::Reset };
        Err(Refusal { reason, close })
    }

    /// Gives a flow, of this service and with this key of the client, a server in which it has room: source address and
    /// port, server key, next hop, counts, persistence. The flow is not yet `Bound`.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        flow: (FlowId, ServiceId, &FlowKey),
        server: ServerId,
        connection: Option<&mut Connection>,
    ) -> Result<(), Refusal> {
        let record = connection.as_deref().map(|connection| &connection.record);
        let pool = self.attach_known(now, flow, server, record)?;
        if let Some(connection) = connection {
            connection.pool = Some(pool);
            connection.milestones.decided.get_or_insert(now);
        }
        Ok(())
    }

    /// The same for a flow that may have no connection; the server's pool.
    #[inline]
    pub(super) fn attach_known(
        &mut self,
        now: Instant,
        flow: (FlowId, ServiceId, &FlowKey),
        server: ServerId,
        record: Option<&Record>,
    ) -> Result<PoolId, Refusal> {
        let attached = self.attach_to(now, flow, server, record);
        if attached.is_err() {
            self.balancer.closed(server);
        }
        self.trace_attached(now, flow.0, server, &attached);
        attached
    }

    fn attach_to(
        &mut self,
        now: Instant,
        (id, service, client): (FlowId, ServiceId, &FlowKey),
        server: ServerId,
        record: Option<&Record>,
    ) -> Result<PoolId, Refusal> {
        if self.attached >= self.snapshot.limits.spliced {
            return Err(Refusal::reset(DropReason::SplicedLimit));
        }
        let there = self.destinations.of(server).ok_or(Refusal::reset(DropReason::NoServer))?;
        if there.hop.is_none() {
            return Err(Refusal::reset(DropReason::NoRoute));
        }
        let ((source, source_port), pool) = (there.socket(client.destination_port), there.pool);
        let protocol = client.protocol;
        let mut server_key = FlowKey { source, source_port, protocol, ..FlowKey::default() };
        let hash = if self.preserves(service) {
            let (key, hash) = self.take_client(now, client, (source, source_port))?;
            server_key = key;
            hash
        } else {
            self.take_snat(&mut server_key)?
        };
        if self.flows.bind_vacant(id, &server_key, hash).is_err() {
            return Err(Refusal::reset(DropReason::FlowTableFull));
        }
        self.attached += 1;
        // Read where it is: a copy would be made twice.
        let held = match self.destinations.of(server) {
            Some(Destination { hop: Some(hop), .. }) => self.neighbors.hold(now, *hop),
            _ => None,
        };
        let hop = held.ok_or(Refusal::reset(DropReason::NoNeighbor))?;
        if let Some(flow) = self.flows.flow_mut(id) {
            flow.server_hop = hop.bits();
            flow.server = server.0;
        }
        self.uses.serve(server);
        self.balancer.opened(server);
        if let Some(record) = record.filter(|record| record.persist.is_some()) {
            api::record_persistence(now, &self.snapshot, &mut self.tables, service, record, server);
        }
        Ok(pool)
    }

    /// A SNAT address and port: completes the key of the server's packets; its hash.
    #[inline]
    fn take_snat(&mut self, key: &mut FlowKey) -> Result<u64, Refusal> {
        let (flows, steering) = (&self.flows, &self.steering);
        let here = |key: &FlowKey| steering.is_here(key);
        let free = |key: &FlowKey, hash: u64| flows.is_vacant(hash, key);
        let hash = self.snat.allocate(key, here, |key| flows.hash_and_fetch(key), free);
        hash.ok_or(Refusal::reset(DropReason::SnatExhausted))
    }

    /// Takes the server away again, so that another one can be tried.
    pub(super) fn detach(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        let (server, hop) = (flow.server_id(), flow.server_hop);
        self.attached = self.attached.saturating_sub(u32::from(flow.is_bound()));
        flow.clear_server();
        self.flows.unbind(id);
        if let Some(server) = server {
            self.uses.leave(server);
            self.balancer.closed(server);
        }
        if hop != flow::NONE {
            self.neighbors.release(now, NeighborId::from_bits(hop));
        }
    }

    /// From now on the flow is translated.
    pub(super) fn became_bound(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        let (before, accompanied, is_tcp) = (flow.state(), flow.connection != flow::NONE, flow.is_tcp());
        flow.set_state(FlowState::Bound);
        flow.flags &= !flow::INSPECT;
        let (service, idle) = (usize::from(flow.service), flow.idle(now));
        self.count_state(before, -1);
        self.trace_bound(now, id);
        if accompanied {
            self.refresh_inspection(id);
        }
        match self.snapshot.services.get(service).filter(|_| !is_tcp) {
            Some(service) => {
                let left = service.udp.idle_timeout.total_micros().saturating_sub(idle.total_micros());
                self.wheel.schedule(id.index, now + Duration::from_micros(left));
            }
            None => self.schedule_idle(now, id),
        }
    }

    /// The binding has delivered everything: the end hosts talk to each other from now on.
    pub(super) fn complete_splice(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        let Some(connection) = self.connections.peek_mut(flow.connection) else { return };
        connection.spliced = false;
        if let Some(binding) = connection.binding.take() {
            flow.splice = binding.splice();
            flow.track = binding.track();
            // Scripts have seen what they were to see of it, a PROXY header excepted: it is nothing new when it comes again.
            *connection.seen_mut(Side::Client) = Some(flow.track.acknowledged(Side::Client));
            flow.set_client_timestamp(binding.client_timestamp().unwrap_or(0));
            // What weir delivered itself; FINs that passed meanwhile are noted already.
            let delivered = [Side::Client, Side::Server].into_iter().filter(|side| binding.finished(*side));
            let lifecycle = delivered.fold(flow.lifecycle(), |phase, side| phase.observe(side, Flags::FIN));
            flow.set_lifecycle(lifecycle);
            flow.touch(now);
            self.connections.keep_binding(binding);
        }
        self.became_bound(now, id);
        if self.flows.flow(id).is_some_and(|flow| flow.lifecycle() == Lifecycle::BothFin) {
            self.conclude(now, id, Fate::NORMAL);
        }
    }

    /// Who talks to whom in this flow, but for what a PROXY header says: [`Connection::correct`].
    pub(super) fn facts(&self, id: FlowId) -> Option<FlowFacts> {
        let flow = self.flows.flow(id)?;
        Some(FlowFacts {
            service: ServiceId(flow.service),
            key: FlowKey { branch: 0, ..flow.client_key() },
            server: flow.server_id(),
        })
    }

    /// Moves a flow between states and keeps the counts that limits are about.
    pub(super) fn set_state(&mut self, id: FlowId, state: FlowState) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        let before = flow.state();
        flow.set_state(state);
        self.count_state(before, -1);
        self.count_state(state, 1);
    }

    /// Keeps the numbers of embryonic and waiting flows.
    pub(super) fn count_state(&mut self, state: FlowState, change: i32) {
        let counter = match state {
            FlowState::Embryonic => &mut self.embryonic,
            FlowState::Waiting | FlowState::Connecting => &mut self.waiting,
            _ => return,
        };
        *counter = counter.saturating_add_signed(change);
    }
}
