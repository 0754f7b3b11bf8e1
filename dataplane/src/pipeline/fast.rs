//! A burst of packets, stage by stage, so that the misses in the cache of all its packets overlap; and the last stage of those
//! that nearly all are: packets of bound flows over IPv4.
//!
//! What is done here to a packet is what [`Pipeline::translate`] would do to it; whatever needs more than that, or is
//! not allowed, takes the way around ([`Pipeline::detour`]), which begins with the general parser.

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::bound::side;
use super::{Parsed, Pipeline, Verdict};
use crate::flow::{Direction, Flow, milliseconds};
use crate::flow_table::Spot;
use crate::glance::{Glance, TAGGED, glance};
use crate::header::ETHERNET_LEN;
use crate::io::{BURST, Burst, PacketBuf, PortId};
use crate::policy::Policy;
use crate::rewrite;

/// What is known of a packet between the stages.
#[derive(Clone, Copy, Default)]
struct Lane {
    glance: Glance,
    /// That of the key; 0 for a packet that is not like nearly all.
    hash: u64,
    spot: Option<Spot>,
}

/// Cache lines of a flow that the fast path touches.
fn lines(glance: &Glance) -> usize {
    if glance.tcp { 2 } else { 1 }
}

impl<P: Policy> Pipeline<P> {
    /// All stages for one burst. `LINK` is the length of the link header at this port.
    pub(super) fn stages<const LINK: usize, B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        burst: &mut Burst<B>,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) {
        let mut lanes = [Lane::default(); BURST];
        let mut parsed: ArrayVec<Parsed, BURST> = ArrayVec::new();
        self.look::<LINK, B>(port, burst, &mut lanes, &mut parsed);
        self.approach(burst.len(), &mut lanes, &parsed);
        let millis = milliseconds(now);
        let mut parsed = parsed.iter();
        for (buf, lane) in burst.iter_mut().zip(&lanes) {
            let verdict = match self.shortcut::<LINK, B>(millis, buf, lane) {
                Some(out) => Verdict::Forward(out),
                None if lane.hash != 0 => self.detour(now, port, buf, None),
                None => self.detour(now, port, buf, parsed.next()),
            };
            let _ = verdicts.try_push(verdict);
        }
    }

    /// Stage one: keys and hashes; where the index would know them is on its way from memory when it returns.
    #[inline]
    fn look<const LINK: usize, B: PacketBuf>(
        &self,
        port: PortId,
        burst: &Burst<B>,
        lanes: &mut [Lane; BURST],
        parsed: &mut ArrayVec<Parsed, BURST>,
    ) {
        let Some(settings) = self.ports.get(port.index()) else { return };
        let (mac, vlan) = (settings.mac, settings.vlan.unwrap_or(0));
        for (buf, lane) in burst.iter().zip(lanes) {
            match glance::<LINK>(buf.bytes(), mac, vlan) {
                Some(glance) => {
                    // 0 means something else, and another hash does no harm: it finds no flow.
                    let hash = self.flows.hash_narrow(glance.key).max(1);
                    self.flows.prefetch_bucket(hash);
                    *lane = Lane { glance, hash, spot: None };
                }
                None => drop(parsed.try_push(self.parse_one(port, buf.bytes()))),
            }
        }
    }

    /// Stage two: the flows are on their way from memory when it returns.
    #[inline]
    fn approach(&self, packets: usize, lanes: &mut [Lane; BURST], parsed: &ArrayVec<Parsed, BURST>) {
        let mut elsewhere = false;
        for lane in lanes.iter_mut().take(packets) {
            lane.spot = self.flows.approach(lane.hash, lines(&lane.glance));
            elsewhere |= lane.spot.is_none();
        }
        if elsewhere {
            for lane in lanes.iter_mut().take(packets).filter(|lane| lane.spot.is_none()) {
                lane.spot = self.flows.approach_other(lane.hash, lines(&lane.glance));
            }
        }
        for packet in parsed {
            if let Parsed::Transport(_, hash) = packet {
                self.flows.prefetch_entry(*hash);
            }
        }
    }

    /// Stage three for packets of bound flows: translated in place. `None`, and nothing done, for all others.
    #[inline]
    fn shortcut<const LINK: usize, B: PacketBuf>(
        &mut self,
        millis: u32,
        buf: &mut B,
        lane: &Lane,
    ) -> Option<PortId> {
        let glance = &lane.glance;
        let (flow, direction) = self.flows.plain_mut(lane.spot?, glance.key)?;
        let (addresses, ports, hop) = flow.onward(direction);
        let (out, mac) = self.neighbors.door(hop)?;
        let settings = self.ports.get(out.index())?;
        if glance.total > settings.mtu || settings.vlan.is_some() != (LINK == TAGGED) {
            return None;
        }
        let (link, packet) = buf.bytes_mut().split_first_chunk_mut::<LINK>()?;
        let (head, rest) = packet.split_first_chunk_mut()?;
        let mut above = None;
        if glance.tcp {
            if !flow.splice.is_plain() || is_too_large(flow, glance.total, direction) {
                return None;
            }
            let options = if glance.timestamps { rest.first_chunk_mut() } else { None };
            let header = head.last_chunk_mut()?;
            let length = u32::from(glance.payload);
            above = Some(flow.splice.relay(&mut flow.track, side(direction), header, options, length));
        }
        rewrite::relabel(head, (addresses, ports), above);
        let (macs, tag) = link.split_first_chunk_mut::<ETHERNET_LEN>()?;
        let [macs @ .., _, _] = macs;
        *macs = zerocopy::transmute!([mac, settings.mac]);
        if let (Some(vlan), [c0, c1, ..]) = (settings.vlan, tag) {
            let [v0, v1] = vlan.to_be_bytes();
            (*c0, *c1) = (*c0 & 0xf0 | v0 & 0x0f, v1);
        }
        flow.touch_at(millis);
        flow.count(direction, u64::from(glance.payload));
        Some(out)
    }

    /// Stage three for all others. `parsed` is what stage one has found out, `None` if it did not look closely.
    #[cold]
    #[inline(never)]
    fn detour<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        buf: &mut B,
        parsed: Option<&Parsed>,
    ) -> Verdict {
        let parsed = match parsed {
            Some(parsed) => *parsed,
            None => self.parse_one(port, buf.bytes()),
        };
        match parsed {
            Parsed::Drop(reason) => Verdict::Drop(reason),
            Parsed::Other(packet) => self.local(now, port, buf, packet),
            Parsed::Transport(headers, hash) => self.transport(now, buf, headers, hash),
        }
    }
}

/// IPv4 and TCP without options: what is not counted by an MSS (RFC 6691, 2).
const HEADERS: u16 = 40;

/// True if the segment is larger than the server takes.
#[inline]
fn is_too_large(flow: &Flow, total: u16, direction: Direction) -> bool {
    let mss = flow.splice.server_mss();
    mss != 0 && direction == Direction::FromClient && total > mss.saturating_add(HEADERS)
}
