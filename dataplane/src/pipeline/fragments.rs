//! Packets in pieces: fragments that come become one packet, packets that are too large leave in fragments.

use smoltcp::time::Instant;

use super::connection::Held;
use super::transmit::{Originated, Output};
use super::{Pipeline, Verdict};
use crate::address::{Address, FlowKey};
use crate::counters::DropReason;
use crate::flow::Direction;
use crate::flow_table::FlowId;
use crate::fragments::{Expired, Fragment, Linear, Way};
use crate::frame::set_macs;
use crate::header::PROTOCOL_ICMP;
use crate::icmp::{self, Head};
use crate::io::{PacketBuf, PortId, SHORT_BURST};
use crate::mesh::News;
use crate::policy::Policy;

/// Datagrams without all their fragments that are given up between two bursts.
const EXPIRED_PER_BURST: usize = 2 * SHORT_BURST;

impl<P: Policy> Pipeline<P> {
    /// A fragment: kept, or the last one that was missing, and then what becomes of the whole.
    #[cold]
    pub(super) fn fragment(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Verdict {
        let vlan = self.ports.get(port.index()).and_then(|settings| settings.vlan);
        let fragment = Fragment::read(frame, vlan).filter(|_| self.reassembly.is_enabled());
        let Some(fragment) =
            fragment.filter(|fragment| self.reassembles_for(fragment.key.source, fragment.key.destination))
        else {
            return Verdict::Drop(DropReason::Fragment);
        };
        // Without ports: all fragments of a datagram come together at the worker of their addresses.
        let key = FlowKey {
            source: fragment.key.source,
            destination: fragment.key.destination,
            ..FlowKey::default()
        };
        if let Some(worker) = self.steering.elsewhere(&key) {
            return Verdict::HandOver(worker);
        }
        let Pipeline { reassembly, whole, counters, .. } = self;
        match reassembly.add(now, &fragment, whole, counters) {
            Err(reason) => Verdict::Drop(reason),
            Ok(false) => Verdict::Consumed,
            Ok(true) => self.with_whole(|pipeline, whole| pipeline.reassembled(now, port, whole)),
        }
    }

    /// VIPs and SNAT addresses, and what servers send that see their clients' addresses: there are the flows that need ports.
    fn reassembles_for(&self, source: Address, destination: Address) -> bool {
        self.vips.contains(&destination)
            || self.snapshot.snat.addresses.contains(&destination.ip())
            || self.preserved.is_server(source)
    }

    /// Lends the large buffer out.
    fn with_whole(&mut self, act: impl FnOnce(&mut Self, &mut Linear) -> Verdict) -> Verdict {
        let mut whole = std::mem::take(&mut self.whole);
        let verdict = act(self, &mut whole);
        let verdict = self.in_fragments(whole.bytes(), verdict);
        self.whole = whole;
        verdict
    }

    /// The whole goes the way of a packet that came in one piece.
    fn reassembled(&mut self, now: Instant, port: PortId, whole: &mut Linear) -> Verdict {
        // That the fragments were handed over says nothing about the flow.
        let handed_over = self.steering.set_handed_over(false);
        let verdict = self.whole(now, port, whole);
        self.steering.set_handed_over(handed_over);
        let Verdict::HandOver(worker) = verdict else { return verdict };
        let frame = whole.bytes().into();
        if self.tell(Some(worker), News::Whole { port, frame }) {
            Verdict::Consumed
        } else {
            Verdict::Drop(DropReason::HandOver)
        }
    }

    fn whole(&mut self, now: Instant, port: PortId, whole: &mut Linear) -> Verdict {
        let parsed = self.parse_one(port, whole.bytes());
        match self.tracer {
            None => self.act_on(now, port, whole, parsed),
            Some(_) => self.act_traced(now, port, whole, parsed),
        }
    }

    /// A whole packet of a flow of ours that another worker has put together.
    #[cold]
    pub(super) fn take_whole(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        self.steering.set_handed_over(true);
        let verdict = self.with_whole(|pipeline, whole| {
            if whole.copy(frame) {
                pipeline.whole(now, port, whole)
            } else {
                Verdict::Drop(DropReason::NoBuffer)
            }
        });
        self.steering.set_handed_over(false);
        self.counters.taken_over += 1;
        match verdict {
            Verdict::Drop(reason) => self.counters.drop(reason),
            _ => self.counters.consumed += 1,
        }
    }

    /// Translates a held datagram that does not fit into a buffer of the device.
    #[cold]
    pub(super) fn translate_whole(
        &mut self,
        now: Instant,
        held: &Held,
        id: FlowId,
        direction: Direction,
    ) -> Verdict {
        self.with_whole(|pipeline, whole| {
            if !whole.copy(&held.frame) {
                return Verdict::Drop(DropReason::NoBuffer);
            }
            let verdict = pipeline.translate(now, whole, held.headers, id, direction);
            pipeline.trace_leaving(now, whole.bytes(), verdict);
            verdict
        })
    }

    /// A frame that its verdict would send leaves by the next polls for output instead, cut as the port needs it.
    #[cold]
    pub(super) fn in_fragments(&mut self, frame: &[u8], verdict: Verdict) -> Verdict {
        let way = match verdict {
            Verdict::Forward(port) | Verdict::Reply(port) => Way { port, unresolved: None },
            Verdict::ForwardWhenResolved(port, hop) => Way { port, unresolved: Some(hop) },
            Verdict::Consumed | Verdict::Drop(_) | Verdict::HandOver(_) => return verdict,
        };
        let Some(settings) = self.ports.get(way.port.index()) else {
            return Verdict::Drop(DropReason::NoRoute);
        };
        match self.outgoing.push(frame, way, settings.mtu) {
            Ok(cut) => {
                self.counters.fragmented += u64::from(cut);
                Verdict::Consumed
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Where a fragment goes that [`crate::fragments::Outgoing`] has cut.
    pub(super) fn address_fragment<B: PacketBuf>(
        &mut self,
        now: Instant,
        way: Way,
        buf: &mut B,
    ) -> Result<Output, DropReason> {
        let Some(hop) = way.unresolved else { return Ok(Output::Send(way.port)) };
        let (link, output) = self.link_over(now, hop)?;
        set_macs(buf.bytes_mut(), link.source_mac, link.destination_mac)?;
        Ok(output)
    }

    /// Gives up datagrams of which a fragment did not come in time.
    #[inline]
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        for _ in 0..EXPIRED_PER_BURST {
            let Some(expired) = self.reassembly.pop_expired(now) else { return };
            if !expired.refused {
                self.counters.fragments_expired += 1;
                self.report_expired(now, &expired);
            }
        }
    }

    /// Tells the sender, if the first fragment is there (RFC 792; RFC 1122, 3.3.2), but not about ICMP, which may be an
    /// error itself (RFC 1122, 3.2.2).
    #[cold]
    fn report_expired(&mut self, now: Instant, expired: &Expired) {
        const REASSEMBLY_TIME_EXCEEDED: Head = Head { kind: 11, code: 1, rest: [0; 4] };
        let key = &expired.key;
        if expired.first.is_empty() || key.protocol == PROTOCOL_ICMP || !self.may_send_error(now) {
            return;
        }
        let error = icmp::build_error(key.destination, key.source, REASSEMBLY_TIME_EXCEEDED, &expired.first);
        if let Some(error) = error {
            self.originate(Originated::Local(error));
        }
    }
}
