//! Bound flows whose payload a script still wants to see: the response event, and `run = "every_payload"`.
//!
//! A script that runs here sees the payload of one packet. Of a TCP flow that is a segment that brings new bytes; the
//! stream is not put in order for it, and `collect` cannot wait (for UDP it can, in the response event).

use smoltcp::time::Instant;
use tcp::{Segment, SeqNumber};

use super::bound::side;
use super::connection::Connection;
use super::decide::{Decision, Run};
use super::end::Fate;
use super::{Pipeline, Suspended, Verdict};
use crate::channel::Phase;
use crate::counters::DropReason;
use crate::flow::{self, Direction};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::parse::{self, Headers};
use crate::policy::{Close, Event, Outcome, Policy, Record, Selection};
use crate::snapshot::{Fallback, PoolId, ServiceId};

/// The event that packets of this direction belong to.
fn event(direction: Direction) -> Event {
    match direction {
        Direction::FromClient => Event::Request,
        Direction::FromServer => Event::Response,
    }
}

impl<P: Policy> Pipeline<P> {
    /// True if a script wants to see the payload of a packet of this direction.
    pub(super) fn wants_payload(&self, id: FlowId, direction: Direction) -> bool {
        let Some(flow) = self.flows.flow(id) else { return false };
        let service = ServiceId(flow.service);
        let connection = self.connections.peek(flow.connection);
        connection.is_some_and(|connection| self.script_wants(service, connection, event(direction)))
    }

    /// The same, by the event that the packet belongs to.
    fn script_wants(&self, service: ServiceId, connection: &Connection, event: Event) -> bool {
        if !self.policy.handles(service, event) {
            return false;
        }
        let every = self.snapshot.services.get(service.index()).is_some_and(|s| s.datascript.every_payload);
        match event {
            Event::Request => every && !connection.record.request_done,
            Event::Response => !connection.record.response_done && (every || !connection.response_ended),
        }
    }

    /// Takes a bound flow back to the fast path once no script wants to see it any more. Its connection is given back
    /// unless there is something to report in the end.
    pub(super) fn refresh_inspection(&mut self, id: FlowId) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        if flow.connection == flow::NONE {
            flow.flags &= !flow::INSPECT;
            return;
        }
        let (index, service) = (flow.connection, ServiceId(flow.service));
        let connection = self.connections.peek(index);
        let wanted = connection.is_some_and(|connection| {
            let wants = |event| self.script_wants(service, connection, event);
            !connection.held.is_empty() || wants(Event::Request) || wants(Event::Response)
        });
        let named = connection.is_some_and(|connection| connection.endpoints.is_some());
        let settings = self.snapshot.services.get(service.index());
        let kept = named || settings.is_some_and(|service| service.log_connections);
        let Some(flow) = self.flows.flow_mut(id) else { return };
        if wanted {
            flow.flags |= flow::INSPECT;
            return;
        }
        flow.flags &= !flow::INSPECT;
        if !kept {
            flow.connection = flow::NONE;
            self.connections.release(index);
        }
    }

    /// Runs the event of this direction on one payload. `Select` means: let it pass.
    pub(super) fn run_on_payload(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        payload: &[u8],
        can_wait: bool,
    ) -> Decision {
        let pass = Decision::Select(Selection::Pool(PoolId(0)));
        let Some((mut facts, (index, mut connection))) = self.facts(id).zip(self.borrow_connection(id))
        else {
            return pass;
        };
        let event = event(direction);
        let (client_payload, server_payload, resume) = match event {
            Event::Request => (payload, [].as_slice(), None),
            Event::Response => ([].as_slice(), payload, connection.response.take().map(|w| w.run)),
        };
        let can_wait = can_wait && event == Event::Response;
        connection.correct(&mut facts);
        let run =
            Run { flow: Some(id), event, facts: &facts, client_payload, server_payload, can_wait, resume };
        let outcome = self.run(now, run, &mut connection.record);
        let decision = passing(&outcome, &connection.record, self.on_script_error(facts.service));
        match decision {
            Decision::Wait(waiting) if event == Event::Response => connection.response = Some(waiting),
            Decision::Wait(waiting) => self.policy.cancel(waiting.run),
            _ if event == Event::Response => connection.response_ended = true,
            _ => {}
        }
        self.connections.put(index, connection);
        decision
    }

    /// A segment of a bound flow that a script still wants to see.
    pub(super) fn inspect_segment<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        id: FlowId,
        direction: Direction,
    ) -> Verdict {
        let wanted = self.wants_payload(id, direction);
        if !wanted || !self.brings_new_bytes(buf, &headers, id, direction) {
            self.refresh_inspection(id);
            return self.translate(now, buf, headers, id, direction);
        }
        if !parse::l4_checksum_ok(buf.bytes(), &headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let payload = buf.bytes().get(headers.payload_range()).unwrap_or_default();
        match self.run_on_payload(now, id, direction, payload, false) {
            Decision::Close(reason, _) => {
                self.reset_both(id);
                self.end(now, id, Fate::refused(reason, Phase::Data));
                Verdict::Drop(reason)
            }
            Decision::Wait(_) | Decision::Select(_) => {
                self.refresh_inspection(id);
                self.translate(now, buf, headers, id, direction)
            }
        }
    }

    /// True if the segment reaches beyond everything that scripts have seen of its side.
    fn brings_new_bytes<B: PacketBuf>(
        &mut self,
        buf: &B,
        headers: &Headers,
        id: FlowId,
        direction: Direction,
    ) -> bool {
        let segment = buf.bytes().get(headers.l4_range()).map(Segment::parse);
        let Some(Ok(segment)) = segment else { return false };
        if segment.payload.is_empty() {
            return false;
        }
        let end = segment.seq.advanced(segment.payload.len() as u32);
        let Some((index, mut connection)) = self.borrow_connection(id) else { return false };
        let seen = connection.seen_mut(side(direction));
        let new = seen.is_none_or(|seen: SeqNumber| seen.is_before(end));
        if new {
            *seen = Some(end);
        }
        self.connections.put(index, connection);
        new
    }
}

/// What the end of a run on a bound flow means: close it, or let the packet pass.
pub(super) fn passing(outcome: &Outcome, record: &Record, on_error: Fallback) -> Decision {
    let pass = Decision::Select(Selection::Pool(PoolId(0)));
    match outcome {
        Outcome::Suspended { run, need } => Decision::Wait(Suspended { run: *run, need: *need }),
        Outcome::Done => match record.close {
            Some(close) => Decision::Close(DropReason::ScriptClosed, close),
            None => pass,
        },
        Outcome::Failed(_) if on_error == Fallback::Close => {
            Decision::Close(DropReason::ScriptError, Close::Graceful)
        }
        Outcome::Failed(_) => pass,
    }
}
