//! UDP: flows, and datagrams that wait for a script.

use smoltcp::time::Instant;

use super::connection::{Connection, Held};
use super::decide::{Decision, Refusal, Run};
use super::end::{Fate, phase};
use super::{Pipeline, Verdict};
use crate::address::FlowKey;
use crate::channel::{EndedBy, Phase};
use crate::counters::DropReason;
use crate::flow::{Direction, FlowState};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::parse::{self, Headers};
use crate::policy::{Event, FlowFacts, Policy, Record, Selection};
use crate::snapshot::{Fallback, PoolId, ServiceId};

impl<P: Policy> Pipeline<P> {
    /// The first datagram of a client tuple, or any datagram of a service that balances each by itself.
    pub(super) fn open_udp<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        (headers, hash): (&Headers, u64),
        service: ServiceId,
    ) -> Verdict {
        let scripted = self.policy.handles(service, Event::Request);
        if scripted && !parse::l4_checksum_ok(buf.bytes(), headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        if self.snapshot.services.get(service.index()).is_some_and(|s| s.udp.per_packet) {
            return self.balance_datagram(now, buf, *headers, service, scripted);
        }
        let id = match self.new_flow(now, (&headers.key, hash), service, FlowState::Waiting) {
            Ok(id) => id,
            Err(reason) => return Verdict::Drop(reason),
        };
        if scripted {
            return self.decide_datagram(now, buf, headers, id, service);
        }
        self.keep_for_response(id, service);
        let decision = self.default_decision(service);
        match self.select_and_attach(now, id, decision) {
            Err(refusal) => self.refuse_datagram(now, id, refusal),
            Ok(()) => self.first_datagram(now, buf, headers, id),
        }
    }

    /// Runs the request script on the first datagram of a flow. Nearly always it decides at once and has nothing else to
    /// say: then the record of the run is free again when the datagram leaves.
    fn decide_datagram<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
        service: ServiceId,
    ) -> Verdict {
        let payload = buf.bytes().get(headers.payload_range()).unwrap_or_default();
        let mut record = self.blank.take().unwrap_or_default();
        let facts = first_facts(&headers.key, service);
        let run = client_run(Some(id), &facts, payload, true, None);
        let decision = self.decide(now, run, &mut record);
        let attached = match decision {
            Decision::Wait(waiting) => {
                self.keep_record(id, record, |connection| connection.request = Some(waiting));
                return self.wait_for_more(now, buf, *headers, id);
            }
            Decision::Select(selection) => {
                self.choose_for_first(now, (id, service, &headers.key), selection, &record)
            }
            Decision::Close(reason, close) => Err(Refusal { reason, close }),
        };
        if attached.is_err() || self.is_needed_later(service, &record) {
            self.keep_record(id, record, |connection| {
                connection.request_ended = true;
                connection.pool = attached.ok();
                connection.milestones.decided = connection.pool.map(|_| now);
            });
        } else {
            record.clear();
            self.blank = Some(record);
        }
        match attached {
            Err(refusal) => self.refuse_datagram(now, id, refusal),
            Ok(_) => self.first_datagram(now, buf, headers, id),
        }
    }

    /// Stores what a run on a first datagram has said, with what else is known of the flow.
    #[cold]
    fn keep_record(&mut self, id: FlowId, mut record: Box<Record>, note: impl FnOnce(&mut Connection)) {
        let mut connection = self.connections.fresh();
        std::mem::swap(&mut connection.record, &mut record);
        note(&mut connection);
        self.keep(id, connection);
        self.blank = Some(record);
    }

    /// The script waits for more than the first datagram.
    #[cold]
    fn wait_for_more<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        id: FlowId,
    ) -> Verdict {
        if self.waiting > self.snapshot.limits.waiting {
            return self.refuse_datagram(now, id, Refusal::reset(DropReason::WaitingLimit));
        }
        self.schedule_decision(now, id);
        self.hold(now, buf, headers, id)
    }

    /// Chooses the server of a flow that has tried none, and gives it to the flow; the server's pool.
    fn choose_for_first(
        &mut self,
        now: Instant,
        (id, service, key): (FlowId, ServiceId, &FlowKey),
        selection: Selection,
        record: &Record,
    ) -> Result<PoolId, Refusal> {
        let chosen = self.choose_but((service, key), selection, key.source.into(), (&[], Some(record)));
        self.trace_choice(now, Some(id), (selection, 0), Some(record), &chosen);
        self.attach_known(now, (id, service, key), chosen?, Some(record))
    }

    /// True if a script will run again on a flow, or has said something that is to be reported.
    fn is_needed_later(&self, service: ServiceId, record: &Record) -> bool {
        let every = self.snapshot.services.get(service.index()).is_some_and(|s| s.datascript.every_payload);
        every || !record.is_silent() || self.policy.handles(service, Event::Response)
    }

    /// The flow has its server, and the datagram that opened it leaves.
    fn first_datagram<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
    ) -> Verdict {
        self.became_bound(now, id);
        match self.open_shortcut(now, buf, headers, id) {
            Some(out) => Verdict::Forward(out),
            None => self.translate(now, buf, *headers, id, Direction::FromClient),
        }
    }

    /// Sets the timer by which the script must have decided.
    fn schedule_decision(&mut self, now: Instant, id: FlowId) {
        let service = self.flows.flow(id).and_then(|f| self.snapshot.services.get(usize::from(f.service)));
        if let Some(service) = service {
            self.wheel.schedule(id.index, now + service.udp.first_payload_timeout);
        }
    }

    /// Starts or resumes the request scripts of a flow whose connection is stored.
    fn run_request(&mut self, now: Instant, id: FlowId, payload: &[u8]) -> Option<Decision> {
        let facts = self.facts(id)?;
        let (index, mut connection) = self.borrow_connection(id)?;
        let resume = connection.request.take().map(|waiting| waiting.run);
        let run = client_run(Some(id), &facts, payload, true, resume);
        let decision = self.decide(now, run, &mut connection.record);
        match decision {
            Decision::Wait(waiting) => connection.request = Some(waiting),
            _ => connection.request_ended = true,
        }
        self.connections.put(index, connection);
        Some(decision)
    }

    /// A datagram of a flow whose script still waits for bytes.
    pub(super) fn waiting_datagram<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        id: FlowId,
    ) -> Verdict {
        if !parse::l4_checksum_ok(buf.bytes(), &headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let verdict = self.hold(now, buf, headers, id);
        let Some((index, connection)) = self.borrow_connection(id) else { return verdict };
        let enough = connection.request.is_some_and(|waiting| connection.joined.len() >= waiting.need);
        let joined = if enough { connection.joined.clone() } else { Vec::new() };
        self.connections.put(index, connection);
        if verdict != Verdict::Consumed || !enough {
            return verdict;
        }
        match self.run_request(now, id, &joined) {
            None | Some(Decision::Wait(_)) => {}
            Some(decision) => match self.select_and_attach(now, id, decision) {
                Ok(()) => {
                    self.became_bound(now, id);
                    self.release_held(id);
                }
                Err(refusal) => return self.refuse_datagram(now, id, refusal),
            },
        }
        verdict
    }

    /// Keeps a copy of a datagram until a script has decided.
    fn hold<B: PacketBuf>(&mut self, now: Instant, buf: &B, headers: Headers, id: FlowId) -> Verdict {
        let Some(flow) = self.flows.flow_mut(id) else { return Verdict::Drop(DropReason::NoFlow) };
        flow.touch(now);
        let service = usize::from(flow.service);
        let Some(udp) = self.snapshot.services.get(service).map(|service| service.udp) else {
            return Verdict::Drop(DropReason::NoService);
        };
        let Some((index, mut connection)) = self.borrow_connection(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let payload = buf.bytes().get(headers.payload_range()).unwrap_or_default();
        let fits = connection.joined.len() + payload.len() <= udp.buffer as usize;
        let fits = fits && connection.held.len() < MOST_HELD;
        if fits {
            if !connection.release {
                connection.joined.extend_from_slice(payload);
            }
            connection.held.push_back(Held { frame: buf.bytes().to_vec(), headers });
        }
        self.connections.put(index, connection);
        if fits { Verdict::Consumed } else { Verdict::Drop(DropReason::HeldLimit) }
    }

    /// The script did not get its bytes in time.
    pub(super) fn held_timeout(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow(id) else { return };
        let (service, age) = (ServiceId(flow.service), flow.age(now));
        let Some(settings) = self.snapshot.services.get(service.index()) else { return };
        let timeout = settings.udp.first_payload_timeout;
        if age < timeout {
            return self.wheel.schedule(id.index, now + (timeout - age));
        }
        let fallback = settings.udp.on_first_payload_timeout;
        if let Some((index, mut connection)) = self.borrow_connection(id) {
            self.cancel_runs(&mut connection);
            connection.request_ended = true;
            self.connections.put(index, connection);
        }
        if fallback == Fallback::DefaultPool {
            let decision = self.default_decision(service);
            if self.select_and_attach(now, id, decision).is_ok() {
                self.became_bound(now, id);
                return self.release_held(id);
            }
        }
        self.end(now, id, Fate::new(EndedBy::ClientTimeout, Phase::Deciding));
    }

    /// Held datagrams leave with the next poll for output.
    fn release_held(&mut self, id: FlowId) {
        if let Some((index, mut connection)) = self.borrow_connection(id) {
            connection.release = true;
            connection.joined.clear();
            self.connections.put(index, connection);
            self.refresh_inspection(id);
            self.mark_dirty(id);
        }
    }

    /// True if datagrams that were held are on their way out: those that follow must not overtake them.
    fn is_releasing(&self, id: FlowId) -> bool {
        let index = self.flows.flow(id).map(|flow| flow.connection);
        index.and_then(|index| self.connections.peek(index)).is_some_and(Connection::is_releasing)
    }

    fn refuse_datagram(&mut self, now: Instant, id: FlowId, refusal: Refusal) -> Verdict {
        let phase = self.flows.flow(id).map_or(Phase::Deciding, phase);
        self.end(now, id, Fate::refused(refusal.reason, phase));
        Verdict::Drop(refusal.reason)
    }

    /// A datagram of a bound flow that a script still wants to see.
    pub(super) fn inspect_datagram<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        id: FlowId,
        direction: Direction,
    ) -> Verdict {
        if self.is_releasing(id) {
            return self.hold(now, buf, headers, id);
        }
        if !self.wants_payload(id, direction) {
            self.refresh_inspection(id);
            return self.translate(now, buf, headers, id, direction);
        }
        if !parse::l4_checksum_ok(buf.bytes(), &headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        if direction == Direction::FromServer && self.response_waits(id) {
            return self.waiting_response(now, buf, headers, id);
        }
        let payload = buf.bytes().get(headers.payload_range()).unwrap_or_default();
        match self.run_on_payload(now, id, direction, payload, true) {
            Decision::Wait(_) => self.hold(now, buf, headers, id),
            Decision::Close(reason, close) => self.refuse_datagram(now, id, Refusal { reason, close }),
            Decision::Select(_) => {
                self.refresh_inspection(id);
                self.translate(now, buf, headers, id, direction)
            }
        }
    }

    fn response_waits(&self, id: FlowId) -> bool {
        let index = self.flows.flow(id).map(|flow| flow.connection);
        index.and_then(|index| self.connections.peek(index)).is_some_and(|c| c.response.is_some())
    }

    /// A datagram of the server while the response script waits for more bytes.
    fn waiting_response<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        id: FlowId,
    ) -> Verdict {
        let verdict = self.hold(now, buf, headers, id);
        let Some((index, connection)) = self.borrow_connection(id) else { return verdict };
        let enough = connection.response.is_some_and(|waiting| connection.joined.len() >= waiting.need);
        let joined = if enough { connection.joined.clone() } else { Vec::new() };
        self.connections.put(index, connection);
        if !enough {
            return verdict;
        }
        match self.run_on_payload(now, id, Direction::FromServer, &joined, true) {
            Decision::Wait(_) => {}
            Decision::Close(reason, close) => {
                return self.refuse_datagram(now, id, Refusal { reason, close });
            }
            Decision::Select(_) => {
                self.release_held(id);
            }
        }
        verdict
    }
}

/// Most datagrams that one flow holds.
const MOST_HELD: usize = 64;

/// Who talks to whom, before a server is chosen.
pub(super) fn first_facts(key: &FlowKey, service: ServiceId) -> FlowFacts {
    FlowFacts { service, key: *key, server: None }
}

/// A request run.
pub(super) fn client_run<'a>(
    flow: Option<FlowId>,
    facts: &'a FlowFacts,
    payload: &'a [u8],
    can_wait: bool,
    resume: Option<crate::policy::RunId>,
) -> Run<'a> {
    let event = Event::Request;
    Run { flow, event, facts, client_payload: payload, server_payload: &[], can_wait, resume }
}
