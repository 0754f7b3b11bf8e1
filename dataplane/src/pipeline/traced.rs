//! The way of packets while somebody watches: each by itself, with the same decisions and counters, and what happens on the
//! way is told to the [`Tracer`].
//!
//! All of it is cold: without a tracer these functions are one comparison each, and none of them is on the way of a packet
//! of a bound flow.

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::connection::Connection;
use super::decide::{Refusal, Run};
use super::end::Fate;
use super::{Output, Parsed, Pipeline, Verdict};
use crate::address::FlowKey;
use crate::channel::ConnectionRecord;
use crate::counters::DropReason;
use crate::flow::Direction;
use crate::flow_table::FlowId;
use crate::icmp::{self, Message};
use crate::io::{BURST, Burst, PacketBuf, PortId};
use crate::parse::{self, Headers, Packet};
use crate::policy::{Outcome, Policy, Record, Selection};
use crate::report;
use crate::snapshot::{PoolId, ServerId, ServiceId};
use crate::trace::{Left, Order, ScriptEnd, Shape, Subject, Tracer, What, Why, tuple};

impl<P: Policy> Pipeline<P> {
    /// Follows flows from now on, as ordered; an order before is over.
    pub fn trace(&mut self, now: Instant, order: Order) {
        self.tracer = Some(Box::new(Tracer::new(order, now)));
    }

    /// Ends a trace whose time is over or that nobody reads; to be called in each round.
    #[inline]
    pub fn end_trace(&mut self, now: Instant) {
        if self.tracer.as_ref().is_some_and(|tracer| tracer.is_over(now)) {
            self.tracer = None;
        }
    }

    /// True while somebody watches.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.tracer.is_some()
    }

    /// What [`Pipeline::process`] does, packet by packet.
    #[cold]
    pub(super) fn process_traced<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        burst: &mut Burst<B>,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) {
        for buf in burst.iter_mut() {
            self.counters.rx_bytes += buf.bytes().len() as u64;
            let parsed = self.parse_one(port, buf.bytes());
            let verdict = self.act_traced(now, port, buf, parsed);
            let _ = verdicts.try_push(verdict);
        }
        self.counters.rx += burst.len() as u64;
    }

    /// What [`Pipeline::act_on`] does, told.
    #[cold]
    pub(super) fn act_traced<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        buf: &mut B,
        parsed: Parsed,
    ) -> Verdict {
        if matches!(parsed, Parsed::Drop(DropReason::Fragment)) {
            return self.fragment_traced(now, port, buf, parsed);
        }
        let begun = self.receive_traced(now, port, buf.bytes(), &parsed);
        let verdict = self.act_on(now, port, buf, parsed);
        if begun {
            self.settle_traced(verdict, buf.bytes());
        }
        verdict
    }

    /// A fragment is told of only if it is dropped; the whole is, when it is put together.
    fn fragment_traced<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        buf: &mut B,
        parsed: Parsed,
    ) -> Verdict {
        let before = self.counters.reassembled;
        let verdict = self.act_on(now, port, buf, parsed);
        let dropped = matches!(verdict, Verdict::Drop(_)) && self.counters.reassembled == before;
        if dropped && self.receive_traced(now, port, buf.bytes(), &parsed) {
            self.settle_traced(verdict, buf.bytes());
        }
        verdict
    }

    /// Tells the tracer of a packet; true if it wants to know what becomes of it.
    fn receive_traced(&mut self, now: Instant, port: PortId, frame: &[u8], parsed: &Parsed) -> bool {
        let Some((found, shape)) = self.whose(port, frame, parsed) else { return false };
        let flow = found.and_then(|(id, _)| self.flows.flow(id));
        let subject = Subject {
            id: found.map(|(id, _)| id),
            key: flow.map_or(shape.key, |flow| flow.client_key()),
            open: flow.is_some(),
            of_service: flow.is_some() || self.vips.contains(&shape.key.destination),
        };
        let state = flow.map(|flow| report::flow_phase(&flow));
        let Some(tracer) = self.tracer.as_mut() else { return false };
        let direction = found.map(|(_, direction)| direction);
        let begun = tracer.receive(now, subject, |tracer| What::Received {
            port,
            direction,
            shape,
            frame: tracer.copy(frame),
        });
        if let (true, Some(state)) = (begun, state) {
            tracer.note(now, None, What::Found(state));
        }
        begun
    }

    /// The flow of a received packet, and what it looks like; `None` for what is of no flow by its nature.
    fn whose(
        &self,
        port: PortId,
        frame: &[u8],
        parsed: &Parsed,
    ) -> Option<(Option<(FlowId, Direction)>, Shape)> {
        match parsed {
            Parsed::Transport(headers, hash) => {
                Some((self.flows.find(*hash, &headers.key), Shape::of(frame, headers)))
            }
            Parsed::Other(Packet::Icmp(headers)) => match icmp::classify(frame, headers) {
                Message::Error { original: Some(key), .. } => {
                    let found = self.flows.lookup(&key.reversed())?;
                    Some((Some(found), Shape::of(frame, headers)))
                }
                _ => None,
            },
            Parsed::Other(_) | Parsed::Drop(DropReason::NotForUs) => None,
            Parsed::Drop(_) => {
                let key = tuple(frame, self.ports.get(port.index())?.vlan)?;
                Some((self.flows.lookup(&key), Shape::of_unknown(frame, key)))
            }
        }
    }

    fn settle_traced(&mut self, verdict: Verdict, frame: &[u8]) {
        let left = self.left(verdict, frame);
        if let Some(tracer) = self.tracer.as_mut() {
            tracer.settle(What::Verdict { verdict, left });
        }
    }

    /// A frame as its verdict lets it leave.
    fn left(&self, verdict: Verdict, frame: &[u8]) -> Option<Left> {
        let (port, resolved) = match verdict {
            Verdict::Forward(port) | Verdict::Reply(port) => (port, true),
            Verdict::ForwardWhenResolved(port, _) => (port, false),
            Verdict::HandOver(_) | Verdict::Consumed | Verdict::Drop(_) => return None,
        };
        let headers = self.headers_of(port, frame)?;
        let tracer = self.tracer.as_ref()?;
        Some(Left { port, resolved, shape: Shape::of(frame, &headers), frame: tracer.copy(frame) })
    }

    /// The headers of a packet that leaves by this port.
    fn headers_of(&self, port: PortId, frame: &[u8]) -> Option<Headers> {
        match parse::parse(frame, self.ports.get(port.index())?.vlan).ok()? {
            Packet::Transport(headers) | Packet::Icmp(headers) => Some(headers),
            Packet::Arp { .. } => None,
        }
    }

    /// A packet that [`Pipeline::poll_transmit`] has filled in.
    #[cold]
    pub(super) fn trace_output(&mut self, now: Instant, output: Output, frame: &[u8]) {
        self.trace_leaving(
            now,
            frame,
            match output {
                Output::Send(port) => Verdict::Forward(port),
                Output::WhenResolved(port, neighbor) => Verdict::ForwardWhenResolved(port, neighbor),
            },
        );
    }

    /// A packet that leaves although no verdict says so.
    #[inline]
    pub(super) fn trace_leaving(&mut self, now: Instant, frame: &[u8], verdict: Verdict) {
        if self.tracer.is_some() {
            self.tell_leaving(now, frame, verdict);
        }
    }

    #[cold]
    fn tell_leaving(&mut self, now: Instant, frame: &[u8], verdict: Verdict) {
        let Some(left) = self.left(verdict, frame) else { return };
        let key = match icmp_original(frame, self.headers_of(left.port, frame)) {
            Some(original) => original,
            None => left.shape.key.reversed(),
        };
        let id = self.flows.lookup(&key).map(|(id, _)| id);
        let Some(tracer) = self.tracer.as_mut() else { return };
        if tracer.is_receiving() {
            tracer.note(now, None, What::Sent(left));
        } else {
            tracer.sent(now, id, &key, |_| What::Sent(left));
        }
    }

    /// A translated packet that the device did not take.
    #[cold]
    pub fn trace_unsent(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        if self.tracer.is_none() {
            return;
        }
        let Some(headers) = self.headers_of(port, frame) else { return };
        let key = headers.key.reversed();
        let id = self.flows.lookup(&key).map(|(id, _)| id);
        if let Some(tracer) = self.tracer.as_mut() {
            tracer.sent(now, id, &key, |_| What::Unsent { port, reason: DropReason::TxFull });
        }
    }

    /// Tells of something, if this flow, or without one the packet under way, is followed.
    #[inline]
    fn tell_of(&mut self, now: Instant, id: Option<FlowId>, what: impl FnOnce() -> What) {
        if let Some(tracer) = self.tracer.as_mut().filter(|tracer| tracer.follows(id)) {
            tracer.note(now, id, what());
        }
    }

    #[inline]
    pub(super) fn trace_opened(&mut self, now: Instant, id: FlowId, service: ServiceId) {
        if let Some(tracer) = self.tracer.as_mut() {
            tracer.opened(id);
            tracer.note(now, Some(id), What::New(service));
        }
    }

    #[inline]
    pub(super) fn trace_binding(
        &mut self,
        now: Instant,
        id: FlowId,
        connection: &Connection,
        event: tcp::Event,
    ) {
        self.tell_of(now, Some(id), || What::Binding {
            event,
            client_bytes: connection.buffered(tcp::Side::Client).len(),
            server_bytes: connection.buffered(tcp::Side::Server).len(),
        });
    }

    /// What [`Pipeline::run_scripts`] does, told.
    #[cold]
    pub(super) fn run_traced(&mut self, now: Instant, run: &Run<'_>, record: &mut Record) -> Outcome {
        let steps = self.tracer.as_ref().filter(|tracer| tracer.follows(run.flow)).map(|t| t.script_trace());
        let Some(steps) = steps else { return self.run_scripts(now, run, record) };
        let others = record.trace.replace(steps);
        let outcome = self.run_scripts(now, run, record);
        let steps = std::mem::replace(&mut record.trace, others);
        let end = match &outcome {
            Outcome::Done => ScriptEnd::Done,
            Outcome::Suspended { need, .. } => ScriptEnd::Waiting(*need),
            Outcome::Failed(failure) => ScriptEnd::Failed(*failure),
        };
        let error = record.error.as_deref().filter(|_| matches!(outcome, Outcome::Failed(_)));
        if let (Some(trace), Some(tracer)) = (steps, self.tracer.as_mut()) {
            let (event, resumed, error) = (run.event, run.resume.is_some(), error.map(Into::into));
            tracer.note(now, run.flow, What::Script { event, resumed, end, error, trace });
        }
        outcome
    }

    #[inline]
    pub(super) fn trace_choice(
        &mut self,
        now: Instant,
        id: Option<FlowId>,
        (selection, tried): (Selection, usize),
        record: Option<&Record>,
        server: &Result<ServerId, Refusal>,
    ) {
        self.tell_of(now, id, || What::Chosen {
            selection,
            why: why(tried, record),
            server: server.map_err(|refusal| refusal.close),
        });
    }

    #[inline]
    pub(super) fn trace_attached(
        &mut self,
        now: Instant,
        id: FlowId,
        server: ServerId,
        attached: &Result<PoolId, Refusal>,
    ) {
        if self.tracer.is_none() {
            return;
        }
        let key = self.flows.flow(id).map(|flow| flow.server_key()).unwrap_or_default();
        self.tell_of(now, Some(id), || match attached {
            Ok(_) => What::Attached { server, to: key.source_socket(), from: key.destination_socket() },
            Err(refusal) => What::Refused(refusal.reason),
        });
    }

    #[inline]
    pub(super) fn trace_bound(&mut self, now: Instant, id: FlowId) {
        self.tell_of(now, Some(id), || What::Bound);
    }

    /// True if the end of this flow is to be told.
    #[inline]
    pub(super) fn traces_end(&self, id: FlowId, fate: Fate) -> bool {
        let (Some(tracer), Some(flow)) = (self.tracer.as_ref(), self.flows.flow(id)) else { return false };
        tracer.wants_end(id, &flow.client_key(), fate.reason.is_some())
    }

    #[cold]
    pub(super) fn trace_ended(&mut self, now: Instant, id: FlowId, key: FlowKey, record: ConnectionRecord) {
        if let Some(tracer) = self.tracer.as_mut() {
            tracer.ended(now, id, key, record);
        }
    }

    #[inline]
    pub(super) fn trace_forgotten(&mut self, id: FlowId) {
        if let (Some(tracer), Some(flow)) = (self.tracer.as_mut(), self.flows.flow(id)) {
            tracer.forget(id, [flow.client_key(), flow.server_key()]);
        }
    }
}

/// What brought a flow to look for a server where it does.
fn why(tried: usize, record: Option<&Record>) -> Why {
    let selection = record.and_then(|record| record.selection);
    let persisted = record.and_then(|record| record.persist.as_ref()).and_then(|persist| persist.server);
    match selection {
        _ if tried > 0 => Why::Retry(tried),
        None => Why::Default,
        Some(Selection::Server(server)) if persisted == Some(server) => Why::Persistence,
        Some(_) => Why::Script,
    }
}

/// The key of the packet that an ICMP error of weir's quotes: that of packets as they come in.
fn icmp_original(frame: &[u8], headers: Option<Headers>) -> Option<FlowKey> {
    match icmp::classify(frame, &headers?) {
        Message::Error { original, .. } => original,
        _ => None,
    }
}
