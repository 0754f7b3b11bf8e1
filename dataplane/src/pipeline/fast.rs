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
use crate::glance::{Glance, TAGGED, TCP_TIMESTAMPS, glance};
use crate::header::ETHERNET_LEN;
use crate::io::{BURST, Burst, PacketBuf, PortId};
use crate::policy::Policy;
use crate::rewrite;

/// What is known of a packet between the stages: 32 bytes.
#[derive(Clone, Copy)]
struct Lane {
    glance: Glance,
    spot: Spot,
    /// That of the key; 0 for a packet that is not like nearly all.
    hash: u64,
}

impl Lane {
    const EMPTY: Lane =
        Lane { glance: Glance { key: (0, 0), total: 0, above: 0 }, spot: Spot::NONE, hash: 0 };
}

impl<P: Policy> Pipeline<P> {
    /// All stages for one burst; see [`Pipeline::process`]. `LINK` is the length of the link header at this port.
    pub(super) fn stages<const LINK: usize, B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        burst: &mut Burst<B>,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) -> Option<PortId> {
        let mut lanes = [Lane::EMPTY; BURST];
        let mut parsed: ArrayVec<Parsed, BURST> = ArrayVec::new();
        self.look::<LINK, B>(port, burst, &mut lanes, &mut parsed);
        self.approach(burst.len(), &mut lanes, &parsed);
        let millis = milliseconds(now);
        let mut parsed = parsed.iter();
        let mut common = None;
        for (place, (buf, lane)) in burst.iter_mut().zip(&lanes).enumerate() {
            let verdict = match self.shortcut::<LINK, B>(millis, buf, lane) {
                Some(out) if verdicts.is_empty() && *common.get_or_insert(out) == out => continue,
                Some(out) => Verdict::Forward(out),
                None if lane.hash != 0 => self.detour(now, port, buf, None),
                None => self.detour(now, port, buf, parsed.next()),
            };
            // The first that differs: those before it were alike.
            while let (true, Some(out)) = (verdicts.len() < place, common) {
                let _ = verdicts.try_push(Verdict::Forward(out));
            }
            let _ = verdicts.try_push(verdict);
        }
        common.filter(|_| verdicts.is_empty())
    }

    /// Stage one: keys and hashes; where the index would know them is on its way from memory when it returns.
    #[inline]
    fn look<const LINK: usize, B: PacketBuf>(
        &mut self,
        port: PortId,
        burst: &Burst<B>,
        lanes: &mut [Lane; BURST],
        parsed: &mut ArrayVec<Parsed, BURST>,
    ) {
        let settings = self.ports.get(port.index());
        let (mac, vlan) = settings.map_or(([0; 6], 0), |settings| (settings.mac, settings.vlan.unwrap_or(0)));
        let mut bytes = 0;
        for (buf, lane) in burst.iter().zip(lanes) {
            let frame = buf.bytes();
            bytes += frame.len();
            match glance::<LINK>(frame, mac, vlan) {
                Some(glance) => {
                    // 0 means something else, and another hash does no harm: it finds no flow.
                    let hash = self.flows.hash_narrow(glance.key).max(1);
                    self.flows.prefetch_bucket(hash);
                    *lane = Lane { glance, spot: Spot::NONE, hash };
                }
                None => drop(parsed.try_push(self.parse_one(port, frame))),
            }
        }
        self.counters.rx += burst.len() as u64;
        self.counters.rx_bytes += bytes as u64;
    }

    /// Stage two: the flows are on their way from memory when it returns.
    #[inline]
    fn approach(&self, packets: usize, lanes: &mut [Lane; BURST], parsed: &ArrayVec<Parsed, BURST>) {
        let mut elsewhere = false;
        for lane in lanes.iter_mut().take(packets) {
            lane.spot = self.flows.approach(lane.hash, lane.glance.is_tcp());
            elsewhere |= lane.spot == Spot::NONE;
        }
        if elsewhere {
            for lane in lanes.iter_mut().take(packets).filter(|lane| lane.spot == Spot::NONE) {
                lane.spot = self.flows.approach_other(lane.hash, lane.glance.is_tcp());
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
        let (flow, direction) = self.flows.plain_mut(lane.spot, glance.key)?;
        let (addresses, ports, hop) = flow.onward(direction);
        let door = self.neighbors.door(hop)?;
        if glance.total > door.mtu || door.tagged != (LINK == TAGGED) {
            return None;
        }
        let (link, packet) = buf.bytes_mut().split_first_chunk_mut::<LINK>()?;
        let (head, rest) = packet.split_first_chunk_mut()?;
        let payload = glance.payload();
        let mut above = None;
        if glance.is_tcp() {
            if !flow.splice.is_plain() || is_too_large(flow, glance.total, direction) {
                return None;
            }
            let options = if glance.above == TCP_TIMESTAMPS { rest.first_chunk_mut() } else { None };
            let header = head.last_chunk_mut()?;
            let length = u32::from(payload);
            above = Some(flow.splice.relay(&mut flow.track, side(direction), header, options, length));
        }
        rewrite::relabel(head, (addresses, ports), above);
        let (ethernet, tag) = link.split_first_chunk_mut::<ETHERNET_LEN>()?;
        *ethernet.first_chunk_mut()? = door.macs;
        if let (TAGGED, [c0, c1, ..]) = (LINK, tag) {
            let [v0, v1] = door.vlan.to_be_bytes();
            (*c0, *c1) = (*c0 & 0xf0 | v0 & 0x0f, v1);
        }
        flow.touch_at(millis);
        flow.count(direction, u64::from(payload));
        Some(door.port)
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
