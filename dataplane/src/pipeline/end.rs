//! Timers, and how flows end.

use arrayvec::ArrayVec;
use smoltcp::time::{Duration, Instant};
use tcp::{Flags, Lifecycle, Options, Segment, SeqNumber, Side};

use super::connection::Connection;
use super::transmit::Originated;
use super::{Pipeline, QUEUE};
use crate::api;
use crate::channel::{EndedBy, Phase, Termination};
use crate::counters::DropReason;
use crate::flow::{self, Flow, FlowRef, FlowState};
use crate::flow_table::{FlowId, Hashes};
use crate::io::SHORT_BURST;
use crate::neighbor::NeighborId;
use crate::policy::Policy;
use crate::snapshot::{Service, ServiceId};

/// How a flow ended, for its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The two letters.
    pub termination: Termination,
    /// Why it was refused, if it was.
    pub reason: Option<DropReason>,
}

impl Fate {
    /// The normal end.
    pub(super) const NORMAL: Fate = Fate { termination: Termination::NORMAL, reason: None };

    pub(super) fn new(by: EndedBy, phase: Phase) -> Self {
        Fate { termination: Termination::new(by, phase), reason: None }
    }

    /// weir did not want the flow.
    pub(super) fn refused(reason: DropReason, phase: Phase) -> Self {
        let by = match reason {
            DropReason::ScriptClosed => EndedBy::Script,
            DropReason::ScriptError => EndedBy::ScriptError,
            _ => EndedBy::Refused,
        };
        Fate { termination: Termination::new(by, phase), reason: Some(reason) }
    }
}

/// Flows whose timers are looked at between two bursts, so that a burst never waits for a mass expiry: twice as many as one burst
/// after the other may begin.
const EXPIRED_PER_BURST: usize = 2 * SHORT_BURST;
/// Timers that are looked at together: what they need of the flow table is fetched for all before any of them is acted on.
const TOGETHER: usize = 16;
/// Connections that are reset between two polls for output; each takes two packets.
const GOODBYES: usize = QUEUE / 4;
/// Table entries looked at for expiry between two bursts.
const SWEPT_PER_BURST: usize = 4;
/// How long a flow is kept whose ends have finished and have heard each other (instead of TIME_WAIT).
const LINGER_FIN: Duration = Duration::from_secs(10);
/// How long an end may be silent that still repeats what the other has not acknowledged, its FIN at last (RFC 5382, 5,
/// REQ-5: at least four minutes).
const CLOSING_TIMEOUT: Duration = Duration::from_secs(240);
/// How long a flow is kept after a reset.
const LINGER_RESET: Duration = Duration::from_secs(2);
/// How long a SYN that was passed on may remain without an answer.
const SYN_TIMEOUT: Duration = Duration::from_secs(30);

impl<P: Policy> Pipeline<P> {
    /// Acts on timers that are due; bounded work per call.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..EXPIRED_PER_BURST / TOGETHER {
            let mut due = ArrayVec::<u32, TOGETHER>::new();
            while !due.is_full()
                && let Some(slot) = self.wheel.pop_expired(now)
            {
                self.flows.prefetch_slot(slot);
                let _ = due.try_push(slot);
            }
            if !due.is_empty() {
                self.act_on_timers(now, &due);
            }
            if !due.is_full() {
                break;
            }
        }
        self.tables.expire(now, SWEPT_PER_BURST);
        self.expire_fragments(now);
    }

    /// Timers that are due, in lots: most rounds have none.
    #[inline(never)]
    fn act_on_timers(&mut self, now: Instant, due: &ArrayVec<u32, TOGETHER>) {
        let known: ArrayVec<_, TOGETHER> =
            due.iter().filter_map(|slot| self.flows.prefetch_keys(*slot)).collect();
        for (id, hashes) in known {
            self.flow_timeout(now, id, hashes);
        }
    }

    /// A timer of a flow, whose hashes are at hand.
    fn flow_timeout(&mut self, now: Instant, id: FlowId, hashes: Hashes) {
        let Some(flow) = self.flows.flow(id) else { return };
        match (flow.state(), flow.is_tcp()) {
            (FlowState::Bound, false) => self.idle_datagrams(now, id, hashes),
            (FlowState::Bound, true) => self.idle_timeout(now, id, hashes),
            (_, true) => self.binding_timeout(now, id),
            (_, false) => self.held_timeout(now, id),
        }
    }

    /// A timer of a binding.
    pub(super) fn binding_timeout(&mut self, now: Instant, id: FlowId) {
        let Some((index, mut connection)) = self.borrow_connection(id) else {
            return self.end(now, id, Fate::NORMAL);
        };
        connection.timer = None;
        if let Some(binding) = connection.binding.as_mut() {
            let event = binding.handle_timeout(now);
            self.trace_binding(now, id, &connection, event);
            self.handle_event(now, id, &mut connection, event);
        }
        if self.is_idle(now, id) && !connection.over {
            connection.fate.get_or_insert(Fate::new(EndedBy::ServerTimeout, Phase::Data));
            self.close_binding(now, id, &mut connection, true);
        }
        self.connections.put(index, connection);
        self.mark_dirty(id);
    }

    /// True if nothing has come for the idle time: what ends a connection whose response a script waits for in vain.
    fn is_idle(&self, now: Instant, id: FlowId) -> bool {
        let flow = self.flow_and_service(id);
        flow.is_some_and(|(flow, service)| flow.idle(now) >= service.tcp.idle_timeout)
    }

    /// When a binding wants to be looked at again, its idle time included. A timer that is set already and fires before is
    /// left alone: most connections have gone on before it does.
    pub(super) fn schedule_binding(&mut self, id: FlowId, now: Instant, due: Option<Instant>) {
        let Some((flow, service)) = self.flow_and_service(id) else { return };
        let left = service.tcp.idle_timeout.total_micros().saturating_sub(flow.idle(now).total_micros());
        let idle = now + Duration::from_micros(left.max(1));
        let at = due.map_or(idle, |due| due.min(idle));
        let index = flow.connection;
        self.wheel.hasten(id.index, at);
        if let Some(connection) = self.connections.peek_mut(index) {
            connection.timer = Some(at);
        }
    }

    /// The idle time of a bound UDP flow may be over; packets have only moved `last_seen`.
    fn idle_datagrams(&mut self, now: Instant, id: FlowId, hashes: Hashes) {
        let Some((flow, service)) = self.flow_and_service(id) else { return };
        if flow.idle(now) < service.udp.idle_timeout {
            return self.schedule_idle(now, id);
        }
        self.conclude(now, id, Fate::NORMAL);
        self.leave(now, id, Some(hashes));
    }

    /// The same for a connection.
    fn idle_timeout(&mut self, now: Instant, id: FlowId, hashes: Hashes) {
        let Some((flow, service)) = self.flow_and_service(id) else { return };
        if flow.idle(now) < idle_time(&flow, service) {
            return self.schedule_idle(now, id);
        }
        let open = [Lifecycle::Established, Lifecycle::ClientFin, Lifecycle::ServerFin];
        if open.contains(&flow.lifecycle()) && service.tcp.reset_on_idle {
            self.reset_both(id);
        }
        let fate = self.flows.flow(id).map_or(Fate::NORMAL, |flow| fate_by_lifecycle(&flow));
        self.conclude(now, id, fate);
        self.leave(now, id, Some(hashes));
    }

    /// Ends a bound flow as its own packets say.
    pub(super) fn end_by_lifecycle(&mut self, now: Instant, id: FlowId) {
        let fate = self.flows.flow(id).map_or(Fate::NORMAL, |flow| fate_by_lifecycle(&flow));
        self.end(now, id, fate);
    }

    /// Sets the timer of a bound flow to the end of its idle time.
    pub(super) fn schedule_idle(&mut self, now: Instant, id: FlowId) {
        let Some((flow, service)) = self.flow_and_service(id) else { return };
        // The acknowledgements of the last FINs only move numbers: look again when they should have come.
        let finished = flow.is_tcp() && flow.lifecycle() == Lifecycle::BothFin && flow.idle(now) < LINGER_FIN;
        let time = if finished { LINGER_FIN } else { idle_time(&flow, service) };
        let left = Duration::from_micros(time.total_micros().saturating_sub(flow.idle(now).total_micros()));
        self.wheel.schedule(id.index, now + left);
    }

    fn flow_and_service(&self, id: FlowId) -> Option<(FlowRef<'_>, &Service)> {
        let flow = self.flows.flow(id)?;
        self.snapshot.services.get(usize::from(flow.service)).map(|service| (flow, service))
    }

    /// RST to both ends of a spliced flow, with the numbers that each of them expects next.
    pub(super) fn reset_both(&mut self, id: FlowId) {
        let Some(flow) = self.flows.flow(id) else { return };
        let (of_client, of_server) =
            (flow.track.acknowledged(Side::Client), flow.track.acknowledged(Side::Server));
        let resets = [(flow.client_key(), flow.splice.to_client(of_server)), (flow.server_key(), of_client)];
        for (key, seq) in resets.map(|(key, seq)| (key.reversed(), seq)) {
            self.originate(Originated::Segment { key, segment: reset(seq) });
        }
    }

    /// The flow is no more.
    pub(super) fn end(&mut self, now: Instant, id: FlowId, fate: Fate) {
        self.conclude(now, id, fate);
        self.leave(now, id, None);
    }

    /// What is left of a concluded flow goes, with all that it holds. Its hashes may be at hand.
    #[inline]
    fn leave(&mut self, now: Instant, id: FlowId, hashes: Option<Hashes>) {
        let Some(flow) = self.flows.flow(id) else { return };
        let (state, bound, hops) = (flow.state(), flow.is_bound(), [flow.client_hop, flow.server_hop]);
        let (service, server) = (ServiceId(flow.service), flow.server_id());
        self.wheel.cancel(id.index);
        self.count_state(state, -1);
        for hop in hops.into_iter().filter(|hop| *hop != flow::NONE) {
            self.neighbors.release(now, NeighborId::from_bits(hop));
        }
        self.attached = self.attached.saturating_sub(u32::from(bound));
        self.uses.end(service, server);
        self.trace_forgotten(id);
        match hashes {
            Some(hashes) => self.flows.remove_hashed(id, hashes),
            None => self.flows.remove(id),
        };
        self.counters.flows_ended += 1;
    }

    /// The flow has done what it was for: it is reported and no longer counts as its server's. What is left of it only
    /// translates late packets until [`Pipeline::end`], which concludes flows that are not.
    pub(super) fn conclude(&mut self, now: Instant, id: FlowId, fate: Fate) {
        let Some(flow) = self.flows.flow_mut(id).filter(|flow| flow.flags & flow::CONCLUDED == 0) else {
            return;
        };
        flow.flags |= flow::CONCLUDED;
        let index = std::mem::replace(&mut flow.connection, flow::NONE);
        if let Some(server) = flow.server_id() {
            self.balancer.closed(server);
        }
        match index {
            flow::NONE => self.tell_end(now, id, fate, None),
            index => self.conclude_connection(now, id, fate, index),
        }
    }

    /// The same for a flow that has had a connection to the end.
    fn conclude_connection(&mut self, now: Instant, id: FlowId, fate: Fate, index: u32) {
        let Some(service) = self.flows.flow(id).map(|flow| ServiceId(flow.service)) else { return };
        let mut connection = self.connections.take(index);
        if let Some(connection) = connection.as_mut() {
            self.cancel_runs(connection);
            self.counters.originate_failed += connection.held.len() as u64;
            if fate.reason == Some(DropReason::NoServer) {
                api::forget_persistence(now, &mut self.tables, service, &connection.record);
            }
        }
        self.tell_end(now, id, fate, connection.as_deref_mut());
        if let Some(connection) = connection {
            self.connections.put(index, connection);
            self.connections.release(index);
        }
    }

    /// Forgets the runs that wait.
    pub(super) fn cancel_runs(&mut self, connection: &mut Connection) {
        for waiting in [connection.request.take(), connection.response.take()].into_iter().flatten() {
            self.policy.cancel(waiting.run);
        }
    }

    /// For the end of the process: resets the TCP connections among the next flows, so that no end host waits for
    /// an answer that never comes. Returns the flow to go on with, or `None` when all have been told; poll for output
    /// after each call, and call [`Pipeline::end_all`] at last.
    pub fn say_goodbye(&mut self, now: Instant, mut from: Option<FlowId>) -> Option<FlowId> {
        for _ in 0..GOODBYES {
            from = self.flows.next_after(from);
            self.reset_connection(now, from?);
        }
        from
    }

    fn reset_connection(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow(id).filter(|flow| flow.is_tcp()) else { return };
        let (fate, concluded) =
            (Fate::new(EndedBy::Shutdown, phase(flow)), flow.flags & flow::CONCLUDED != 0);
        if flow.state() == FlowState::Bound {
            if !concluded {
                self.reset_both(id);
            }
        } else if let Some((index, mut connection)) = self.borrow_connection(id) {
            connection.fate.get_or_insert(fate);
            self.close_binding(now, id, &mut connection, true);
            self.connections.put(index, connection);
            self.mark_dirty(id);
        }
    }

    /// Ends all flows.
    pub fn end_all(&mut self, now: Instant) {
        let mut from = None;
        while let Some(id) = self.flows.next_after(from) {
            let phase = self.flows.flow(id).map_or(Phase::Data, phase);
            self.end(now, id, Fate::new(EndedBy::Shutdown, phase));
            from = Some(id);
        }
    }
}

/// The phase that a flow ends in when it ends now.
pub(super) fn phase(flow: FlowRef<'_>) -> Phase {
    match flow.state() {
        FlowState::Embryonic => Phase::Handshake,
        FlowState::Waiting => Phase::Deciding,
        FlowState::Connecting => Phase::Connecting,
        _ => Phase::Data,
    }
}

/// How a bound flow ends, as its own packets say.
fn fate_by_lifecycle(flow: &Flow) -> Fate {
    match (flow.is_tcp(), flow.lifecycle()) {
        (false, _) | (true, Lifecycle::BothFin) => Fate::NORMAL,
        (true, Lifecycle::Reset) => reset_fate(flow),
        (true, Lifecycle::SynSent) => Fate::new(EndedBy::ServerTimeout, Phase::Connecting),
        (true, Lifecycle::ClientFin) => Fate::new(EndedBy::ServerTimeout, Phase::Data),
        (true, _) => Fate::new(EndedBy::ClientTimeout, Phase::Data),
    }
}

/// The end of a flow that was reset; a server whose only packet was the reset has refused the connection.
fn reset_fate(flow: &Flow) -> Fate {
    let by_server = flow.flags & flow::RESET_BY_SERVER != 0;
    let by = if by_server { EndedBy::Server } else { EndedBy::Client };
    let unanswered = flow.server_packets <= u32::from(by_server);
    Fate::new(by, if unanswered { Phase::Connecting } else { Phase::Data })
}

/// How long a bound flow may be silent.
fn idle_time(flow: &Flow, service: &Service) -> Duration {
    if !flow.is_tcp() {
        return service.udp.idle_timeout;
    }
    match flow.lifecycle() {
        Lifecycle::BothFin if flow.track.is_settled() => LINGER_FIN,
        Lifecycle::BothFin => CLOSING_TIMEOUT.min(service.tcp.idle_timeout),
        Lifecycle::Reset => LINGER_RESET,
        Lifecycle::SynSent => SYN_TIMEOUT.min(service.tcp.idle_timeout),
        _ => service.tcp.idle_timeout,
    }
}

/// RST with this sequence number.
fn reset(seq: SeqNumber) -> Segment<'static> {
    Segment {
        seq,
        ack: SeqNumber::default(),
        flags: Flags::RST,
        window: 0,
        urgent: 0,
        options: Options::default(),
        payload: &[],
    }
}
