//! TCP before the splice: segments go to the flow's binding, its payload to the scripts.

use smoltcp::time::Instant;
use tcp::{ConnectFailure, End, Event as TcpEvent, Segment, Side};

use super::bound::side;
use super::connection::Connection;
use super::decide::{Decision, Refusal, Run};
use super::end::{Fate, phase};
use super::inspect::passing;
use super::{Pipeline, Verdict};
use crate::api;
use crate::balance::Client;
use crate::channel::{EndedBy, Phase};
use crate::counters::DropReason;
use crate::flow::{self, Direction, FlowState};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::parse::{self, Headers};
use crate::policy::{Close, Event, Outcome, Policy};
use crate::snapshot::{Fallback, ServiceId};

impl<P: Policy> Pipeline<P> {
    /// A segment of a flow that has a binding.
    pub(super) fn binding_segment<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
        direction: Direction,
    ) -> Verdict {
        if !parse::l4_checksum_ok(buf.bytes(), headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let Some((index, mut connection)) = self.borrow_connection(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let parsed = Segment::parse(buf.bytes().get(headers.l4_range()).unwrap_or_default());
        let (Ok(segment), Some(binding)) = (&parsed, connection.binding.as_mut()) else {
            self.connections.put(index, connection);
            return Verdict::Drop(DropReason::Malformed);
        };
        let event = binding.handle_segment(now, side(direction), segment);
        if binding.is_connected() {
            connection.milestones.connected.get_or_insert(now);
        }
        let taken = !matches!(event, TcpEvent::Forward | TcpEvent::Rejected);
        self.note_segment(now, id, direction, taken.then_some(headers));
        self.trace_binding(now, id, &connection, event);
        self.handle_event(now, id, &mut connection, event);
        let headless = connection.fate.is_some_and(|fate| fate.reason == Some(DropReason::ProxyHeader));
        self.connections.put(index, connection);
        match event {
            TcpEvent::Data(Side::Client) if headless => Verdict::Drop(DropReason::ProxyHeader),
            TcpEvent::Rejected => Verdict::Drop(DropReason::TcpUnacceptable),
            TcpEvent::Forward => self.forward_during_replay(now, buf, headers, id, direction),
            _ => Verdict::Consumed,
        }
    }

    /// A binding has seen a segment, and perhaps has something to say; `taken` is what it took in.
    fn note_segment(&mut self, now: Instant, id: FlowId, direction: Direction, taken: Option<&Headers>) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        if let Some(headers) = taken {
            flow.touch(now);
            flow.count(direction, u64::from(headers.end.saturating_sub(headers.payload)));
        }
        if flow.flags & flow::DIRTY == 0 {
            flow.flags |= flow::DIRTY;
            self.dirty.push_back(id);
        }
    }

    /// Lends out the connection of a flow.
    pub(super) fn borrow_connection(&mut self, id: FlowId) -> Option<(u32, Box<Connection>)> {
        let index = self.flows.flow(id)?.connection;
        self.connections.take(index).map(|connection| (index, connection))
    }

    /// What an event of the binding means for its flow.
    pub(super) fn handle_event(
        &mut self,
        now: Instant,
        id: FlowId,
        connection: &mut Connection,
        event: TcpEvent,
    ) {
        match event {
            TcpEvent::Consumed | TcpEvent::Rejected | TcpEvent::Forward => {}
            TcpEvent::Established => self.client_established(now, id, connection),
            TcpEvent::Data(Side::Client) => {
                self.client_established(now, id, connection);
                self.client_data(now, id, connection);
            }
            TcpEvent::Data(Side::Server) => self.server_data(now, id, connection),
            TcpEvent::ConnectFailed(failure) => self.connect_failed(now, id, connection, failure),
            TcpEvent::Spliced => connection.spliced = true,
            TcpEvent::Ended(end) => self.binding_ended(now, id, connection, end),
        }
    }

    /// The client's handshake is complete.
    fn client_established(&mut self, now: Instant, id: FlowId, connection: &mut Connection) {
        if connection.milestones.established.is_some() {
            return;
        }
        connection.milestones.established = Some(now);
        self.set_state(id, FlowState::Waiting);
        if !connection.header_due {
            self.connect_without_script(now, id, connection);
        }
    }

    /// Without a script for it, no payload is waited for.
    fn connect_without_script(&mut self, now: Instant, id: FlowId, connection: &mut Connection) {
        let Some(service) = self.flows.flow(id).map(|flow| ServiceId(flow.service)) else { return };
        if !self.policy.handles(service, Event::Request) {
            connection.request_ended = true;
            let decision = self.default_decision(service);
            self.act_on_decision(now, id, connection, decision);
        }
    }

    /// More client bytes: a PROXY header first; then the request script starts, or goes on when it has what it waited for.
    fn client_data(&mut self, now: Instant, id: FlowId, connection: &mut Connection) {
        if connection.header_due {
            if !self.take_header(now, id, connection) {
                return;
            }
            self.connect_without_script(now, id, connection);
            if connection.buffered(Side::Client).is_empty() && !connection.request_ended {
                return self.starved(now, id, connection);
            }
        }
        while !connection.request_ended {
            let available = connection.buffered(Side::Client).len();
            let resume = match connection.request {
                Some(waiting) if available < waiting.need => return self.starved(now, id, connection),
                Some(waiting) => Some(waiting.run),
                None => None,
            };
            let Some((service, outcome)) = self.run_on_binding(now, id, connection, Event::Request, resume)
            else {
                return;
            };
            let decision = self.decision(service, &outcome, &connection.record);
            connection.request = match decision {
                Decision::Wait(suspended) => Some(suspended),
                _ => None,
            };
            if connection.request.is_none() {
                connection.request_ended = true;
                self.act_on_decision(now, id, connection, decision);
            }
        }
    }

    /// The script wants more than there is; if the client has finished, it will never come.
    fn starved(&mut self, now: Instant, id: FlowId, connection: &mut Connection) {
        let finished = connection.binding.as_ref().is_some_and(|b| b.finished(Side::Client));
        if finished {
            connection.fate.get_or_insert(Fate::new(EndedBy::Client, Phase::Deciding));
            self.close_binding(now, id, connection, false);
        }
    }

    /// Runs an event on what the binding has buffered.
    fn run_on_binding(
        &mut self,
        now: Instant,
        id: FlowId,
        connection: &mut Connection,
        event: Event,
        resume: Option<crate::policy::RunId>,
    ) -> Option<(ServiceId, Outcome)> {
        let mut facts = self.facts(id)?;
        connection.correct(&mut facts);
        let Connection { binding, record, .. } = connection;
        let binding = binding.as_ref()?;
        let run = Run {
            flow: Some(id),
            event,
            facts: &facts,
            client_payload: binding.payload(Side::Client),
            server_payload: binding.payload(Side::Server),
            can_wait: true,
            resume,
        };
        Some((facts.service, self.run(now, run, record)))
    }

    /// Connects to the server that was decided on, or closes.
    fn act_on_decision(&mut self, now: Instant, id: FlowId, connection: &mut Connection, decision: Decision) {
        match decision {
            Decision::Wait(_) => {}
            Decision::Close(reason, close) => self.refuse_binding(now, id, connection, reason, close),
            Decision::Select(selection) => {
                connection.selection = Some(selection);
                if let Err(Refusal { reason, close }) = self.connect(now, id, connection) {
                    self.refuse_binding(now, id, connection, reason, close);
                }
            }
        }
    }

    /// Opens the server side.
    fn connect(&mut self, now: Instant, id: FlowId, connection: &mut Connection) -> Result<(), Refusal> {
        let nothing = Refusal::reset(DropReason::NoPool);
        let (flow, selection) = self.flows.flow(id).zip(connection.selection).ok_or(nothing)?;
        let (service, key) = (ServiceId(flow.service), flow.client_key());
        let client = match connection.endpoints {
            None => key.source.into(),
            Some(endpoints) => Client::reached_at(endpoints.source.ip(), key.destination.ip()),
        };
        let server = self.choose((service, &key), selection, client, Some(connection));
        let record = Some(&connection.record);
        self.trace_choice(now, Some(id), (selection, connection.tried.len()), record, &server);
        let server = server?;
        if let Err(refusal) = self.attach(now, (id, service, &key), server, Some(connection)) {
            self.detach(now, id);
            return Err(refusal);
        }
        self.set_state(id, FlowState::Connecting);
        let hold = self.policy.handles(service, Event::Response) && !connection.record.response_done;
        if let Some(binding) = connection.binding.as_mut() {
            binding.connect(now, hold, &self.header_for(server, connection.endpoints, &key));
        }
        Ok(())
    }

    /// The server refused or stayed silent: another one, unless the script named it.
    fn connect_failed(
        &mut self,
        now: Instant,
        id: FlowId,
        connection: &mut Connection,
        failure: ConnectFailure,
    ) {
        let Some(flow) = self.flows.flow(id) else { return };
        let (failed, service) = (flow.server_id(), ServiceId(flow.service));
        self.detach(now, id);
        let retries = connection.pool.and_then(|pool| self.snapshot.pools.get(pool.index()));
        let retries = retries.map_or(0, |pool| usize::from(pool.tcp.connect_retries));
        let noted = failed.is_some_and(|server| connection.tried.try_push(server).is_ok());
        let elsewhere = api::retry_target(&self.snapshot, service, &connection.record);
        if let Some(target) = elsewhere.filter(|_| noted && connection.tried.len() <= retries) {
            connection.selection = Some(target.into());
            if self.connect(now, id, connection).is_ok() {
                return;
            }
        }
        let fate = match failure {
            ConnectFailure::Refused => Fate::new(EndedBy::Server, Phase::Connecting),
            ConnectFailure::Silent => Fate::new(EndedBy::ServerTimeout, Phase::Connecting),
        };
        connection.fate.get_or_insert(fate);
        self.close_binding(now, id, connection, true);
    }

    /// More server bytes while a response script holds them.
    fn server_data(&mut self, now: Instant, id: FlowId, connection: &mut Connection) {
        while !connection.response_ended {
            let available = connection.buffered(Side::Server).len();
            if available == 0 && connection.response.is_none() {
                // The server has finished without a byte: there is no response to look at.
                return release_response(now, connection);
            }
            let resume = match connection.response {
                Some(waiting) if available < waiting.need => {
                    if connection.binding.as_ref().is_some_and(|b| b.finished(Side::Server)) {
                        connection.fate.get_or_insert(Fate::new(EndedBy::Server, Phase::Data));
                        self.close_binding(now, id, connection, false);
                    }
                    return;
                }
                Some(waiting) => Some(waiting.run),
                None => None,
            };
            let Some((service, outcome)) = self.run_on_binding(now, id, connection, Event::Response, resume)
            else {
                return;
            };
            connection.response = None;
            match passing(&outcome, &connection.record, self.on_script_error(service)) {
                Decision::Wait(suspended) => connection.response = Some(suspended),
                Decision::Close(reason, close) => {
                    connection.response_ended = true;
                    self.refuse_binding(now, id, connection, reason, close);
                }
                Decision::Select(_) => release_response(now, connection),
            }
        }
    }

    /// Ends a connection before its splice for a reason of weir's.
    pub(super) fn refuse_binding(
        &mut self,
        now: Instant,
        id: FlowId,
        connection: &mut Connection,
        reason: DropReason,
        close: Close,
    ) {
        let phase = self.flows.flow(id).map_or(Phase::Deciding, phase);
        connection.fate.get_or_insert(Fate::refused(reason, phase));
        self.close_binding(now, id, connection, close == Close::Reset);
    }

    /// Lets the binding say goodbye; the flow goes when it has.
    pub(super) fn close_binding(
        &mut self,
        now: Instant,
        id: FlowId,
        connection: &mut Connection,
        reset: bool,
    ) {
        self.cancel_runs(connection);
        connection.request_ended = true;
        connection.response_ended = true;
        if let Some(binding) = connection.binding.as_mut() {
            binding.close(now, reset);
        }
        self.set_state(id, FlowState::Closing);
    }

    /// The binding is over.
    fn binding_ended(&mut self, now: Instant, id: FlowId, connection: &mut Connection, end: End) {
        let headless = end == End::FirstPayloadTimeout && connection.header_due;
        let undecided = !connection.request_ended && !headless;
        if end == End::FirstPayloadTimeout && undecided && self.falls_back(id) {
            self.cancel_runs(connection);
            connection.request_ended = true;
            let service = self.flows.flow(id).map(|flow| ServiceId(flow.service));
            let decision = service.map(|service| self.default_decision(service));
            if let Some(decision) = decision {
                return self.act_on_decision(now, id, connection, decision);
            }
        }
        let phase = self.flows.flow(id).map_or(Phase::Data, phase);
        let fate = match end {
            End::HandshakeTimeout | End::FirstPayloadTimeout => Fate::new(EndedBy::ClientTimeout, phase),
            End::ClientReset | End::ClientClosed => Fate::new(EndedBy::Client, phase),
            End::ServerReset => Fate::new(EndedBy::Server, Phase::Replaying),
            End::ReplayTimeout => Fate::new(EndedBy::ServerTimeout, Phase::Replaying),
            End::Closed => Fate::NORMAL,
        };
        let fate = Fate { reason: headless.then_some(DropReason::ProxyHeader), ..fate };
        connection.fate.get_or_insert(fate);
        connection.over = true;
        self.cancel_runs(connection);
    }

    /// True if flows of this service go to the default pool when no payload comes in time.
    fn falls_back(&self, id: FlowId) -> bool {
        let service = self.flows.flow(id).and_then(|f| self.snapshot.services.get(usize::from(f.service)));
        service.is_some_and(|s| s.tcp.on_first_payload_timeout == Fallback::DefaultPool)
    }

    /// A packet that is passed on before the splice, or with it: mostly the server's answer, which acknowledges the last bytes
    /// that weir has replayed. From then on the shortcut can be taken.
    fn forward_during_replay<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
        direction: Direction,
    ) -> Verdict {
        let Some(index) = self.flows.flow(id).map(|flow| flow.connection) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let binding = self.connections.peek(index).and_then(|c| c.binding.as_ref());
        if let (Some(binding), Some(flow)) = (binding, self.flows.flow_mut(id)) {
            flow.splice = binding.splice();
            flow.track = binding.track();
        }
        match self.segment_shortcut(now, buf, headers, id, direction) {
            Some(verdict) => verdict,
            None => self.translate(now, buf, *headers, id, direction),
        }
    }
}

/// No script waits for more of the response: it may go to the client.
fn release_response(now: Instant, connection: &mut Connection) {
    connection.response_ended = true;
    if let Some(binding) = connection.binding.as_mut() {
        binding.release_response(now);
    }
}
