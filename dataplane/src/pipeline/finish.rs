//! Segments that could take the shortcut of `fast.rs` but for what comes with them: a FIN, or a flow whose binding has not yet
//! been told goodbye.

use smoltcp::time::Instant;
use tcp::{Flags, SeqNumber, Side, Timestamps};

use super::bound::{TURNING, side};
use super::fast::cross;
use super::{Pipeline, Verdict};
use crate::counters::DropReason;
use crate::flow::{Direction, Flow, milliseconds};
use crate::flow_table::FlowId;
use crate::glance::{Glance, TAGGED, TCP, TCP_TIMESTAMPS, UNTAGGED};
use crate::header::{IPV4_LEN, IPV6_LEN};
use crate::io::PacketBuf;
use crate::parse::{self, Family, Headers};
use crate::policy::Policy;

/// What a FIN does to the flow that it passes.
struct Turn {
    /// Numbers of the segment that are no payload.
    fin: u32,
    /// The ends of the connection believe it.
    believed: bool,
    /// Its TSval.
    clock: Option<u32>,
}

impl<P: Policy> Pipeline<P> {
    /// A FIN of a bound flow. `None`, and nothing done, where the way of [`Pipeline::known`] has to be taken.
    pub(super) fn finish<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        (id, direction): (FlowId, Direction),
    ) -> Option<Verdict> {
        if headers.tcp_flags & TURNING.0 != Flags::FIN.0 {
            return None;
        }
        self.flows.flow(id).filter(|flow| flow.passes() && flow.splice.is_plain())?;
        if !parse::l4_checksum_ok(buf.bytes(), headers) {
            return Some(Verdict::Drop(DropReason::L4Checksum));
        }
        self.segment_shortcut(now, buf, headers, id, direction)
    }

    /// A segment whose checksum is right, of a flow that has a server and is not to be looked at: what
    /// [`Pipeline::translate`] would do. `None`, and nothing done, where that takes more.
    pub(super) fn segment_shortcut<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
        direction: Direction,
    ) -> Option<Verdict> {
        let above = headers.payload.wrapping_sub(headers.l4);
        let segment = buf.bytes().get(headers.l4_range())?;
        let options = segment.get(usize::from(TCP)..usize::from(above))?;
        let clock = match above {
            TCP => None,
            TCP_TIMESTAMPS => Some(Timestamps::alone(options)?.value),
            _ => return None,
        };
        let flags = Flags(headers.tcp_flags);
        let acknowledges = flags.contains(Flags::ACK) && !flags.intersects(Flags::SYN | Flags::RST);
        let (v4, length) = (headers.family == Family::V4, headers.l4.wrapping_sub(headers.l3));
        let short = length == if v4 { IPV4_LEN as u16 } else { IPV6_LEN as u16 };
        let flow = self.flows.flow_mut(id).filter(|_| acknowledges && short && headers.ttl > 1)?;
        let turn = look_ahead(flow, segment, headers, direction, clock)?;
        let glance = Glance { key: (0, 0), total: headers.end.saturating_sub(headers.l3), above };
        let out = if v4 {
            flow.narrow_onward(direction).filter(|_| flow.splice.is_plain())?;
            let (neighbors, millis) = (&self.neighbors, milliseconds(now));
            match headers.tagged() {
                false => cross::<UNTAGGED, B>(neighbors, millis, buf, (&glance, turn.fin), (flow, direction)),
                true => cross::<TAGGED, B>(neighbors, millis, buf, (&glance, turn.fin), (flow, direction)),
            }
        } else {
            self.cross_known(milliseconds(now), buf, (&glance, turn.fin), headers.tagged(), (id, direction))
        }?;
        if turn.believed {
            self.note_fin(now, id, flags, (side(direction), turn.clock));
        }
        Some(Verdict::Forward(out))
    }

    /// Follows a FIN that is believed.
    fn note_fin(&mut self, now: Instant, id: FlowId, flags: Flags, (from, clock): (Side, Option<u32>)) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        if let (Side::Client, Some(clock)) = (from, clock) {
            flow.set_client_timestamp(clock);
        }
        let before = flow.lifecycle();
        let after = before.observe(from, flags);
        flow.set_lifecycle(after);
        if after != before {
            self.turned(now, id);
        }
    }
}

/// What a segment does to its flow besides what all do, by what is known before it.
fn look_ahead(
    flow: &Flow,
    segment: &[u8],
    headers: &Headers,
    direction: Direction,
    clock: Option<u32>,
) -> Option<Turn> {
    let fin = u32::from(headers.tcp_flags & Flags::FIN.0);
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3] = *segment.first_chunk()?;
    let (seq, ack) = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([a0, a1, a2, a3]));
    let ack = match direction {
        Direction::FromClient => flow.splice.to_server(SeqNumber::new(ack)).value(),
        Direction::FromServer => ack,
    };
    let length = u32::from(headers.end.saturating_sub(headers.payload)) + fin;
    let believed = fin != 0 && flow.track.believes_fin(side(direction), seq, ack, length);
    Some(Turn { fin, believed, clock })
}
