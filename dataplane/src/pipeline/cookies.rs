//! Handshakes under load: answered by cookies, or kept in place of the oldest.

use smoltcp::time::Instant;
use tcp::{Flags, Segment};
use zerocopy::IntoBytes;

use super::end::Fate;
use super::transmit::Originated;
use super::{Pipeline, Verdict};
use crate::channel::Phase;
use crate::counters::DropReason;
use crate::flow::{Direction, FlowState};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::parse::{self, Headers};
use crate::policy::Policy;
use crate::snapshot::{ServiceId, SynCookies, TcpProfile};

/// Used cookies that are known for each flow of the table. A flow that ends in good order stays in the table for 10 s more,
/// so no more than a tenth of the table can begin in a second; even then a used cookie is known for 40 s.
pub(super) const REMEMBERED_PER_FLOW: usize = 4;

impl<P: Policy> Pipeline<P> {
    /// True if the next SYN of this service is to be answered without keeping anything.
    pub(super) fn wants_cookie(&self, service: ServiceId) -> bool {
        match self.snapshot.services.get(service.index()).map(|service| service.tcp.syn_cookies) {
            Some(SynCookies::Always) => true,
            Some(SynCookies::Auto) => self.embryonic > self.snapshot.limits.syn_cookies_above,
            Some(SynCookies::Never) | None => false,
        }
    }

    /// SYN-ACK with a cookie.
    pub(super) fn answer_with_cookie(
        &mut self,
        now: Instant,
        mut syn: Segment<'_>,
        headers: &Headers,
        service: ServiceId,
    ) -> Verdict {
        let Some(terms) = self.terms(headers, service) else {
            return Verdict::Drop(DropReason::NoService);
        };
        terms.fit(&mut syn);
        let (_, offset) = self.initial_numbers(now, headers);
        let (connection, window) = (headers.key.as_bytes(), terms.limits.buffer);
        let segment = self.cookies.answer(now, connection, &syn, &terms.promise, offset, window);
        let queued = self.originate(Originated::Segment { key: headers.key.reversed(), segment });
        self.counters.cookies_sent += u64::from(queued);
        Verdict::Consumed
    }

    /// A segment without a flow that acknowledges a cookie: the flow begins here, with its handshake complete. `None`: it
    /// does not.
    pub(super) fn complete_cookie<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        (headers, hash): (&Headers, u64),
        service: ServiceId,
    ) -> Option<Verdict> {
        let settings = self.snapshot.services.get(service.index())?;
        let never = settings.tcp.syn_cookies == SynCookies::Never;
        if settings.tcp.profile != TcpProfile::Proxy || never || !self.cookies.in_use(now) {
            return None;
        }
        if !parse::l4_checksum_ok(buf.bytes(), headers) {
            return Some(Verdict::Drop(DropReason::L4Checksum));
        }
        let segment = buf.bytes().get(headers.l4_range()).map(Segment::parse)?.ok()?;
        if segment.flags.intersects(Flags::SYN | Flags::RST) || !segment.flags.contains(Flags::ACK) {
            return None;
        }
        let Some(syn) = self.cookies.syn_of(now, headers.key.as_bytes(), &segment) else {
            if self.cookies.is_ahead(now, headers.key.as_bytes(), &segment) {
                // In silence: the client begins anew with its first segment, which opens the flow.
                return Some(Verdict::Drop(DropReason::NoFlow));
            }
            self.counters.cookies_rejected += 1;
            return None;
        };
        let isn = tcp::cookie_isn(&segment);
        if self.waiting >= self.snapshot.limits.waiting {
            return Some(Verdict::Drop(DropReason::WaitingLimit));
        }
        let (_, offset) = self.initial_numbers(now, headers);
        let id = match self.open_binding(now, syn, (headers, hash), service, (isn, offset)) {
            Ok(id) => id,
            Err(reason) => return Some(Verdict::Drop(reason)),
        };
        self.counters.cookies_accepted += 1;
        let forgotten = self.cookies.use_up(now, headers.key.as_bytes(), isn);
        self.counters.cookies_forgotten += u64::from(forgotten);
        Some(self.binding_segment(now, buf, headers, id, Direction::FromClient))
    }

    /// Remembers when a handshake that is kept began.
    pub(super) fn note_half_open(&mut self, id: FlowId) {
        // Most of what is in the queue has gone on long since: at twice the limit at least half of it has.
        if self.half_open.len() >= 2 * self.snapshot.limits.embryonic as usize {
            let flows = &self.flows;
            let embryonic =
                |id: &FlowId| flows.flow(*id).is_some_and(|flow| flow.state() == FlowState::Embryonic);
            self.half_open.retain(embryonic);
        }
        self.half_open.push_back(id);
    }

    /// Ends the oldest incomplete handshake, in silence; false if there is none.
    pub(super) fn evict_embryonic(&mut self, now: Instant) -> bool {
        while let Some(id) = self.half_open.pop_front() {
            if self.flows.flow(id).is_some_and(|flow| flow.state() == FlowState::Embryonic) {
                self.counters.embryonic_evicted += 1;
                self.end(now, id, Fate::refused(DropReason::EmbryonicLimit, Phase::Handshake));
                return true;
            }
        }
        false
    }
}
