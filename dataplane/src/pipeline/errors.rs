//! ICMP errors about packets of flows: passed on to whoever sent the packet, and weir's own about packets that are too
//! big (RFC 5508, 4; RFC 5927; RFC 1191; RFC 8201).

use smoltcp::time::{Duration, Instant};
use tcp::{SeqNumber, Side};

use super::bound::side;
use super::transmit::Originated;
use super::{Pipeline, Verdict};
use crate::address::FlowKey;
use crate::counters::DropReason;
use crate::flow::{Direction, FlowRef, FlowState};
use crate::flow_table::FlowId;
use crate::icmp::{self, Cause, Head, Requote};
use crate::io::PacketBuf;
use crate::parse::{self, Headers};
use crate::policy::Policy;

/// Errors of weir's own in a second, and in a burst (RFC 1812, 4.3.2.8; RFC 4443, 2.4).
const RATE: u32 = 1000;
/// A TCP header behind an IP header without options.
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
/// A timestamps option that weir inserts.
const INSERTED: u32 = 12;

/// How many errors weir may still send.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Allowance { left: RATE, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now >= self.since + Duration::from_secs(1) {
            *self = Allowance::new(now);
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

impl<P: Policy> Pipeline<P> {
    /// An error about a packet that weir has sent, `original` being that packet's key.
    pub(super) fn flow_error<B: PacketBuf>(
        &mut self,
        buf: &B,
        headers: &Headers,
        cause: Cause,
        original: &FlowKey,
    ) -> Verdict {
        let key = original.reversed();
        let Some((id, direction)) = self.flows.lookup(&key) else {
            // The packets of the flow come with this key; the error itself has no ports that would be hashed.
            let elsewhere = self.steering.elsewhere(&key).map(Verdict::HandOver);
            return elsewhere.unwrap_or(Verdict::Drop(DropReason::IcmpNoFlow));
        };
        if !parse::l4_checksum_ok(buf.bytes(), headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let Some((head, quoted)) = head_and_quoted(buf.bytes(), headers) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let passed = match self.flows.flow(id) {
            Some(flow) if flow.state() == FlowState::Bound => {
                let error = passed_on(flow, direction, head, quoted.to_vec(), cause);
                error.map(|packet| {
                    self.originate(Originated::Local(packet));
                })
            }
            Some(flow) if flow.is_tcp() => self.binding_error(id, direction, cause, quoted),
            _ => None,
        };
        // The flow lives on, whatever the error says (RFC 5382, REQ-10; RFC 4787, REQ-10).
        if passed.is_some() { Verdict::Consumed } else { Verdict::Drop(DropReason::IcmpIgnored) }
    }

    /// Before the splice weir itself is the end host. It takes a smaller segment size; everything else is no reason to
    /// give up before the timers say so (RFC 5461, 4; RFC 1122, 4.2.3.9).
    fn binding_error(&mut self, id: FlowId, direction: Direction, cause: Cause, quoted: &[u8]) -> Option<()> {
        let Cause::TooBig { mtu } = cause else { return None };
        let seq = icmp::quoted_sequence(quoted)?;
        let header = if quoted.first()? >> 4 == 4 { HEADERS_V4 } else { HEADERS_V6 };
        let mss = u16::try_from(mtu.checked_sub(header)?).ok()?;
        let (index, mut connection) = self.borrow_connection(id)?;
        let believed = connection
            .binding
            .as_mut()
            .is_some_and(|binding| binding.reduce_mss(side(direction), SeqNumber::new(seq), mss));
        self.connections.put(index, connection);
        believed.then_some(())
    }

    /// True, and counted, if one more error of weir's own may leave now.
    pub(super) fn may_send_error(&mut self, now: Instant) -> bool {
        self.errors.take(now)
    }

    /// Tells the sender of a packet that `mtu` bytes are all that would have fitted. What may be fragmented is not
    /// reported, because its sender does not listen.
    #[cold]
    pub(super) fn report_too_big<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &B,
        headers: &Headers,
        mtu: u16,
    ) {
        let key = &headers.key;
        let Some(packet) = buf.bytes().get(usize::from(headers.l3)..usize::from(headers.end)) else { return };
        if !icmp::may_not_be_fragmented(packet) || !self.may_send_error(now) {
            return;
        }
        let head = Head::too_big(key.source.is_v4(), mtu);
        if let Some(error) = icmp::build_error(key.destination, key.source, head, packet) {
            self.originate(Originated::Local(error));
        }
    }
}

/// The first bytes of an error, and what it quotes.
fn head_and_quoted<'a>(frame: &'a [u8], headers: &Headers) -> Option<(Head, &'a [u8])> {
    let [kind, code, _, _, rest @ ..] = *frame.get(headers.l4_range())?.first_chunk::<8>()?;
    Some((Head { kind, code, rest }, frame.get(headers.payload_range())?))
}

/// The error as the sender of the packet is to see it. Its source is the address that the sender had sent to, because
/// the sender knows nothing of what is behind weir. `None`: it quotes something that is not on its way (RFC 5927, 4.1).
fn passed_on(
    flow: FlowRef<'_>,
    direction: Direction,
    mut head: Head,
    mut quoted: Vec<u8>,
    cause: Cause,
) -> Option<Vec<u8>> {
    // An error from the side of the server is about a packet of the client, and the other way round.
    let (sender, key) = match direction {
        Direction::FromServer => (Side::Client, flow.client_key()),
        Direction::FromClient => (Side::Server, flow.server_key()),
    };
    let shift = flow.splice.to_client(SeqNumber::new(0)).value();
    let (seq, ack) = match sender {
        Side::Client => (0, shift),
        Side::Server => (shift.wrapping_neg(), 0),
    };
    if flow.is_tcp() {
        let seq = icmp::quoted_sequence(&quoted)?.wrapping_add(seq);
        if !flow.track.in_flight(sender, seq) {
            return None;
        }
    }
    Requote { key, seq, ack }.apply(&mut quoted)?;
    if let Cause::TooBig { mtu } = cause
        && flow.is_tcp()
        && flow.splice.timestamps_missing_from(sender)
    {
        let rest = mtu.saturating_sub(INSERTED).to_be_bytes();
        head.rest = rest;
    }
    icmp::build_error(key.destination, key.source, head, &quoted)
}
