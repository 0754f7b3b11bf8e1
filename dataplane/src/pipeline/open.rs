//! The first packet of a flow: which service, is there room, and what happens to it first.

use smoltcp::time::Instant;
use tcp::{Binding, Flags, Lifecycle, Segment, SeqNumber};
use zerocopy::IntoBytes;

use super::connection::Connection;
use super::decide::{Decision, Refusal, Run};
use super::end::Fate;
use super::transmit::Originated;
use super::{Pipeline, Verdict};
use crate::address::FlowKey;
use crate::channel::Phase;
use crate::counters::DropReason;
use crate::flow::{Direction, FlowState};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::parse::{self, Headers};
use crate::policy::{Close, Event, Policy, Selection};
use crate::snapshot::{Protocol, ServiceId, TcpProfile};

impl<P: Policy> Pipeline<P> {
    /// A packet that belongs to no flow.
    pub(super) fn unknown<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        hash: u64,
    ) -> Verdict {
        let key = &headers.key;
        let Some(service) = self.vips.service(&key.destination, key.protocol, key.destination_port) else {
            return self.without_service(buf, headers);
        };
        if key.protocol == Protocol::Udp as u8 {
            return self.open_udp(now, buf, (headers, hash), service);
        }
        if let Err(reason) = opening_flags(headers.tcp_flags) {
            if reason == DropReason::NoFlow {
                if let Some(verdict) = self.complete_cookie(now, buf, (headers, hash), service) {
                    return verdict;
                }
                self.answer_with_reset(buf, headers);
            }
            return Verdict::Drop(reason);
        }
        let profile = self.snapshot.services.get(service.index()).map(|s| s.tcp.profile);
        match profile {
            Some(TcpProfile::Proxy) => self.open_tcp(now, buf, (headers, hash), service),
            _ => self.open_fast_path(now, buf, (headers, hash), service),
        }
    }

    /// A new entry in the flow table for a key that no flow has, with its hash; the client's next hop is resolved.
    pub(super) fn new_flow(
        &mut self,
        now: Instant,
        (key, hash): (&FlowKey, u64),
        service: ServiceId,
        state: FlowState,
    ) -> Result<FlowId, DropReason> {
        let hop = self.routes.lookup(key.source).ok_or(DropReason::NoRoute)?;
        let hop = self.neighbors.hold(now, (hop.port, hop.address)).ok_or(DropReason::NoNeighbor)?;
        let mut inserted = self.flows.insert_vacant(key, hash);
        // Whoever has shown that it exists goes before those who have not.
        if inserted.is_err() && self.evict_embryonic(now) {
            inserted = self.flows.insert_vacant(key, hash);
        }
        let Ok(id) = inserted else {
            self.neighbors.release(now, hop);
            return Err(DropReason::FlowTableFull);
        };
        if let Some(flow) = self.flows.flow_mut(id) {
            flow.client_hop = hop.bits();
            flow.service = service.0;
            flow.set_started(now);
            flow.touch(now);
            flow.set_state(state);
        }
        self.count_state(state, 1);
        self.uses.begin(service);
        self.counters.flows_created += 1;
        self.trace_opened(now, id, service);
        Ok(id)
    }

    /// The SYN of a connection that weir completes by itself.
    fn open_tcp<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &B,
        (headers, hash): (&Headers, u64),
        service: ServiceId,
    ) -> Verdict {
        if self.waiting >= self.snapshot.limits.waiting {
            return Verdict::Drop(DropReason::WaitingLimit);
        }
        if !parse::l4_checksum_ok(buf.bytes(), headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let Some(Ok(syn)) = buf.bytes().get(headers.l4_range()).map(Segment::parse) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        if self.wants_cookie(service) {
            return self.answer_with_cookie(now, syn, headers, service);
        }
        if self.embryonic >= self.snapshot.limits.embryonic && !self.evict_embryonic(now) {
            return Verdict::Drop(DropReason::EmbryonicLimit);
        }
        let numbers = self.initial_numbers(now, headers);
        let id = match self.open_binding(now, syn, (headers, hash), service, numbers) {
            Ok(id) => id,
            Err(reason) => return Verdict::Drop(reason),
        };
        self.note_half_open(id);
        if let Some(flow) = self.flows.flow_mut(id) {
            flow.count(Direction::FromClient, u64::from(headers.end.saturating_sub(headers.payload)));
        }
        self.mark_dirty(id);
        Verdict::Consumed
    }

    /// A flow with a binding that answers this SYN with these numbers.
    pub(super) fn open_binding(
        &mut self,
        now: Instant,
        mut syn: Segment<'_>,
        (headers, hash): (&Headers, u64),
        service: ServiceId,
        (isn, timestamp_offset): (SeqNumber, u32),
    ) -> Result<FlowId, DropReason> {
        let terms = self.terms(headers, service).ok_or(DropReason::NoService)?;
        terms.fit(&mut syn);
        let id = self.new_flow(now, (&headers.key, hash), service, FlowState::Embryonic)?;
        let mut connection = self.connections.fresh();
        let (promise, limits) = (&terms.promise, &terms.limits);
        connection.binding = Some(match self.connections.spare_binding() {
            Some(mut binding) => {
                binding.accept_again(now, &syn, promise, limits, isn, timestamp_offset);
                binding
            }
            None => Box::new(Binding::accept(now, &syn, promise, limits, isn, timestamp_offset)),
        });
        connection.header_due = self.begins_with_header(service, headers.key.source.ip());
        self.keep(id, connection);
        Ok(id)
    }

    /// Initial sequence number (RFC 6528: a keyed hash of the connection plus a 4 µs clock) and timestamp offset
    /// (RFC 7323, 5.4) of a connection that weir accepts.
    pub(super) fn initial_numbers(&self, now: Instant, headers: &Headers) -> (SeqNumber, u32) {
        let hash = match headers.key.narrow() {
            Some((addresses, rest)) => self.isn.hash([addresses, rest].as_bytes()),
            None => self.isn.hash(headers.key.as_bytes()),
        };
        let clock = (now.total_micros() / 4) as u32;
        (SeqNumber::from((hash as u32).wrapping_add(clock)), (hash >> 32) as u32)
    }

    /// The SYN of a connection whose server is chosen at once; the handshake is between the end hosts.
    fn open_fast_path<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        (headers, hash): (&Headers, u64),
        service: ServiceId,
    ) -> Verdict {
        let id = match self.new_flow(now, (&headers.key, hash), service, FlowState::Connecting) {
            Ok(id) => id,
            Err(reason) => return Verdict::Drop(reason),
        };
        let decision = self.decide_without_payload(now, id, service);
        if let Err(refusal) = self.select_and_attach(now, id, decision) {
            if refusal.close == Close::Reset || refusal.reason != DropReason::ScriptClosed {
                self.answer_with_reset(buf, headers);
            }
            self.end(now, id, Fate::refused(refusal.reason, Phase::Deciding));
            return Verdict::Drop(refusal.reason);
        }
        if let Some(flow) = self.flows.flow_mut(id) {
            flow.set_lifecycle(Lifecycle::SynSent);
        }
        self.became_bound(now, id);
        self.translate(now, buf, *headers, id, Direction::FromClient)
    }

    /// Runs the request script on a connection that has no payload yet, or takes the default.
    fn decide_without_payload(&mut self, now: Instant, id: FlowId, service: ServiceId) -> Decision {
        let Some(facts) = self.facts(id) else {
            return Decision::Close(DropReason::NoFlow, Close::Reset);
        };
        if !self.policy.handles(service, Event::Request) {
            self.keep_for_response(id, service);
            return self.default_decision(service);
        }
        let mut connection = self.connections.fresh();
        let run = Run {
            flow: Some(id),
            event: Event::Request,
            facts: &facts,
            client_payload: &[],
            server_payload: &[],
            can_wait: false,
            resume: None,
        };
        let decision = self.decide(now, run, &mut connection.record);
        connection.request_ended = true;
        self.keep(id, connection);
        decision
    }

    /// A flow without a request script still needs a connection where a response script will run.
    pub(super) fn keep_for_response(&mut self, id: FlowId, service: ServiceId) {
        if self.policy.handles(service, Event::Response) {
            let mut connection = self.connections.fresh();
            connection.request_ended = true;
            self.keep(id, connection);
        }
    }

    /// Stores a connection for the flow.
    pub(super) fn keep(&mut self, id: FlowId, connection: Box<Connection>) {
        let index = self.connections.insert(connection);
        if let Some(flow) = self.flows.flow_mut(id) {
            flow.connection = index;
        }
    }

    /// Chooses the server of a decision and gives it to the flow.
    pub(super) fn select_and_attach(
        &mut self,
        now: Instant,
        id: FlowId,
        decision: Decision,
    ) -> Result<(), Refusal> {
        let selection = decision.selection()?;
        let index = self.flows.flow(id).ok_or(Refusal::reset(DropReason::NoFlow))?.connection;
        let mut connection = self.connections.take(index);
        let attached = self.choose_and_attach(now, id, selection, connection.as_deref_mut());
        if let Some(connection) = connection {
            self.connections.put(index, connection);
        }
        attached
    }

    /// The same for a connection that is at hand.
    pub(super) fn choose_and_attach(
        &mut self,
        now: Instant,
        id: FlowId,
        selection: Selection,
        connection: Option<&mut Connection>,
    ) -> Result<(), Refusal> {
        let flow = self.flows.flow(id).ok_or(Refusal::reset(DropReason::NoFlow))?;
        let (key, service) = (flow.client_key(), ServiceId(flow.service));
        let client = key.source.ip();
        let chosen = self.choose((service, &key), selection, client.into(), connection.as_deref());
        let tried = connection.as_ref().map_or(0, |connection| connection.tried.len());
        let record = connection.as_ref().map(|connection| &connection.record);
        self.trace_choice(now, Some(id), (selection, tried), record, &chosen);
        self.attach(now, (id, service, &key), chosen?, connection)
    }

    /// RST for a segment that no connection takes (RFC 9293, 3.10.7.1).
    pub(super) fn answer_with_reset<B: PacketBuf>(&mut self, buf: &B, headers: &Headers) {
        let Some(Ok(segment)) = buf.bytes().get(headers.l4_range()).map(Segment::parse) else { return };
        if let Some(reset) = tcp::reset_for(&segment) {
            self.originate(Originated::Segment { key: headers.key.reversed(), segment: reset });
        }
    }
}

/// Whether a segment without a flow may open one.
fn opening_flags(flags: u8) -> Result<(), DropReason> {
    let flags = Flags(flags & (Flags::SYN | Flags::ACK | Flags::RST | Flags::FIN).0);
    let ends = flags.contains(Flags::FIN) || flags.contains(Flags::RST);
    match flags {
        Flags::SYN => Ok(()),
        Flags::NONE => Err(DropReason::TcpFlags),
        _ if flags.contains(Flags::SYN) && ends => Err(DropReason::TcpFlags),
        _ => Err(DropReason::NoFlow),
    }
}
