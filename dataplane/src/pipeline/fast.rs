//! A burst of packets, stage by stage, so that the misses in the cache of all its packets overlap; and the last stage of those
//! that nearly all are: packets of bound flows over IPv4. Those over IPv6 are recognised and translated by `fast/wide.rs`.
//!
//! What is done here to a packet is what [`Pipeline::translate`] would do to it; whatever needs more than that, or is
//! not allowed, takes the way around ([`Pipeline::detour`]), which begins with what the first stage has recognised, or with the
//! general parser.

mod wide;

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::bound::side;
use super::{Parsed, Pipeline, Verdict};
use crate::counters::DropReason;
use crate::flow::{ASIDE, Direction, Flow, milliseconds};
use crate::flow_table::{FlowId, OtherBucket, Spot};
use crate::glance::{Glance, TAGGED, TCP_TIMESTAMPS, UDP, UNTAGGED, glance, glance_any, is_ipv6};
use crate::header::{ETHERNET_LEN, IPV4_LEN, Mac};
use crate::io::{BURST, Burst, PacketBuf, PortId, SHORT_BURST};
use crate::neighbor::{Door, Neighbors};
use crate::parse::{self, Headers};
use crate::policy::Policy;
use crate::rewrite;

/// What is known of a packet between the stages: 40 bytes.
#[derive(Clone, Copy)]
struct Lane {
    glance: Glance,
    spot: Spot,
    /// That of the key; 0 for a packet that is not like nearly all, or IPv6.
    hash: u64,
}

impl Lane {
    const EMPTY: Lane =
        Lane { glance: Glance { key: (0, 0), total: 0, above: 0 }, spot: Spot::NONE, hash: 0 };

    /// The key as it is in the packet.
    fn key(&self) -> (u64, u64) {
        let (addresses, rest) = self.glance.key;
        (addresses, rest & !ASIDE)
    }
}

/// Packets that are in the same stage at the same time.
///
/// A line from memory takes as long as some four hundred cycles of work. While those of one group are on their way, two other
/// groups are worked on. The fetches for all of them (over IPv4) are made in one place ([`Pipeline::fetch`]): each retires only when its
/// address is translated, which for a big table in a virtual machine takes a hundred cycles by itself, and only in short loops
/// without anything else the translations overlap.
const GROUP: usize = 8;

type Lanes = [Lane; GROUP];

/// Groups under way at a time: three, and a power of two.
const UNDER_WAY: usize = 4;

/// Packets that take the long way, of [`BURST`]: where there are more, bursts are short. What so many cost together is about what all
/// others do.
const MANY: usize = 16;

/// A burst on its way through the stages.
struct Walk<'a> {
    now: Instant,
    millis: u32,
    port: PortId,
    verdicts: &'a mut ArrayVec<Verdict, BURST>,
    /// The first of those that are not like nearly all, in order, and how many of these have been acted on.
    parsed: ArrayVec<Parsed, SHORT_BURST>,
    acted: usize,
    /// Packets that took the long way.
    detours: usize,
    /// The port by which all packets have left so far that have no verdict.
    common: Option<PortId>,
}

impl Walk<'_> {
    /// Counts a packet that took the long way; to hand one over is soon done.
    #[inline]
    fn took_long(&mut self, verdict: Verdict) -> Verdict {
        self.detours += usize::from(!matches!(verdict, Verdict::HandOver(_)));
        verdict
    }
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
        let (parsed, millis) = (ArrayVec::new(), milliseconds(now));
        let mut walk = Walk { now, millis, port, verdicts, parsed, acted: 0, detours: 0, common: None };
        let mut lanes = [[Lane::EMPTY; GROUP]; UNDER_WAY];
        let groups = burst.len().div_ceil(GROUP);
        for turn in 0..groups + 2 {
            // Nowhere for a group that is not there.
            let place = |group: usize| if group < groups { group % UNDER_WAY } else { UNDER_WAY };
            let (first, second, third) = (turn, turn.wrapping_sub(1), turn.wrapping_sub(2));
            if let (Some(lanes), Some(bufs)) = (lanes.get_mut(place(first)), burst.chunks(GROUP).nth(first)) {
                self.look::<LINK, B>(bufs, lanes, &mut walk);
            }
            if let Some(lanes) = lanes.get_mut(place(second)) {
                self.approach(lanes);
            }
            self.fetch(lanes.get(place(first)), lanes.get(place(second)));
            if let (Some(lanes), Some(bufs)) = (lanes.get(place(third)), burst.chunks_mut(GROUP).nth(third)) {
                self.act::<LINK, B>(third * GROUP, bufs, lanes, &mut walk);
            }
        }
        self.counters.rx += burst.len() as u64;
        if walk.detours * BURST > MANY * burst.len() {
            self.most = SHORT_BURST;
        }
        walk.common.filter(|_| walk.verdicts.is_empty())
    }

    /// Stage one: keys and hashes.
    #[inline]
    fn look<const LINK: usize, B: PacketBuf>(&mut self, bufs: &[B], lanes: &mut Lanes, walk: &mut Walk<'_>) {
        let settings = self.ports.get(walk.port.index());
        let (mac, vlan) = settings.map_or(([0; 6], 0), |settings| (settings.mac, settings.vlan.unwrap_or(0)));
        let mut bytes = 0;
        // In the last group, for those that are not there.
        lanes.iter_mut().skip(bufs.len()).for_each(|lane| *lane = Lane::EMPTY);
        for (buf, lane) in bufs.iter().zip(lanes.iter_mut()) {
            let frame = buf.bytes();
            bytes += frame.len();
            match glance::<LINK>(frame, mac, vlan) {
                Some(glance) => {
                    // 0 means something else, and another hash does no harm: it finds no flow.
                    let hash = self.flows.hash_narrow(glance.key).max(1);
                    *lane = Lane { glance, spot: Spot::NONE, hash };
                }
                None => self.look_closer::<LINK>(frame, (mac, vlan), lane, walk),
            }
        }
        self.counters.rx_bytes += bytes as u64;
    }

    /// Stage one for a packet that is not like nearly all: a segment of another kind is kept from the shortcut, all else is
    /// for the general parser.
    #[cold]
    fn look_closer<const LINK: usize>(
        &self,
        frame: &[u8],
        (mac, vlan): (Mac, u16),
        lane: &mut Lane,
        walk: &mut Walk<'_>,
    ) {
        *lane = Lane::EMPTY;
        if is_ipv6::<LINK>(frame) {
            return self.look_wide::<LINK>(frame, (mac, vlan), lane, walk);
        }
        match glance_any::<LINK>(frame, mac, vlan) {
            Some(mut glance) => {
                let hash = self.flows.hash_narrow(glance.key).max(1);
                glance.key.1 ^= ASIDE;
                *lane = Lane { glance, spot: Spot::NONE, hash };
            }
            None => self.look_long(frame, walk),
        }
    }

    /// Stage one for a packet that is for the general parser.
    #[cold]
    #[inline(never)]
    fn look_long(&self, frame: &[u8], walk: &mut Walk<'_>) {
        let _ = walk.parsed.try_push(self.parse_one(walk.port, frame));
    }

    /// Stage two: where the flows are.
    #[inline]
    fn approach(&self, lanes: &mut Lanes) {
        let mut elsewhere = false;
        for lane in lanes.iter_mut() {
            lane.spot = self.flows.spot(lane.hash);
            elsewhere |= lane.spot == Spot::NONE;
        }
        if elsewhere {
            self.approach_others(lanes);
        }
    }

    /// Between the stages: lets come from memory what is read next, of those that have been looked at the places of the index,
    /// of those that have been approached the flows.
    #[inline]
    fn fetch(&self, looked: Option<&Lanes>, approached: Option<&Lanes>) {
        if let Some(lanes) = approached {
            for lane in lanes {
                self.flows.prefetch_spot(lane.spot);
            }
        }
        if let Some(lanes) = looked {
            for lane in lanes {
                self.flows.prefetch_bucket(lane.hash);
            }
        }
        // On the same pages as the first ones: by now their addresses are known.
        if let Some(lanes) = approached {
            for lane in lanes.iter().filter(|lane| lane.glance.is_tcp()) {
                self.flows.prefetch_splice(lane.spot);
            }
        }
    }

    /// Looks for IPv6, and in the other place of the index where the first one did not know the hash.
    #[cold]
    fn approach_others(&self, lanes: &mut Lanes) {
        let mut missing = false;
        for lane in lanes.iter_mut() {
            if lane.is_wide() {
                lane.spot = self.flows.spot(lane.sought());
                self.flows.prefetch_wide(lane.spot);
            }
            missing |= lane.spot == Spot::NONE && lane.sought() != 0;
        }
        if missing {
            self.approach_elsewhere(lanes);
        }
    }

    /// Looks in the other place of the index where the first one did not know the hash.
    #[cold]
    fn approach_elsewhere(&self, lanes: &mut Lanes) {
        let missed = |lane: &Lane| lane.spot == Spot::NONE && lane.sought() != 0;
        let mut others = [OtherBucket::default(); GROUP];
        for (lane, other) in lanes.iter().zip(&mut others).filter(|(lane, _)| missed(lane)) {
            *other = self.flows.prefetch_other_bucket(lane.sought());
        }
        for (lane, other) in lanes.iter_mut().zip(others).filter(|(lane, _)| missed(lane)) {
            lane.spot = self.flows.other_spot(other, lane.sought());
            if lane.is_wide() {
                self.flows.prefetch_wide(lane.spot);
            }
        }
    }

    /// Stage three: each packet becomes what it has to, in the order in which they came.
    #[inline]
    fn act<const LINK: usize, B: PacketBuf>(
        &mut self,
        first: usize,
        bufs: &mut [B],
        lanes: &Lanes,
        walk: &mut Walk<'_>,
    ) {
        for (place, (buf, lane)) in (first..).zip(bufs.iter_mut().zip(lanes)) {
            let verdict = match self.shortcut::<LINK, B>(walk.millis, buf, lane) {
                Some(out) if walk.verdicts.is_empty() && *walk.common.get_or_insert(out) == out => continue,
                Some(out) => Verdict::Forward(out),
                None => match self.detour::<LINK, B>(buf, lane, walk) {
                    Verdict::Forward(out)
                        if walk.verdicts.is_empty() && *walk.common.get_or_insert(out) == out =>
                    {
                        continue;
                    }
                    verdict => verdict,
                },
            };
            // The first that differs: those before it were alike.
            while let (true, Some(out)) = (walk.verdicts.len() < place, walk.common) {
                let _ = walk.verdicts.try_push(Verdict::Forward(out));
            }
            let _ = walk.verdicts.try_push(verdict);
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
        cross::<LINK, B>(&self.neighbors, millis, buf, (glance, 0), (flow, direction))
    }

    /// The same for the datagram that has opened a flow; what [`Pipeline::translate`] would do.
    #[inline]
    pub(super) fn open_shortcut<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
    ) -> Option<PortId> {
        let plain = (headers.l4.wrapping_sub(headers.l3) == IPV4_LEN as u16) & (headers.ttl > 1);
        let flow = self.flows.flow_mut(id).filter(|flow| plain && flow.passes() && !flow.is_wide());
        let Some(flow) = flow else { return self.open_wide(now, buf, headers, id) };
        let glance = Glance { key: (0, 0), total: headers.end.saturating_sub(headers.l3), above: UDP };
        let opened = (flow, Direction::FromClient);
        match headers.tagged() {
            false => cross::<UNTAGGED, B>(&self.neighbors, milliseconds(now), buf, (&glance, 0), opened),
            true => cross::<TAGGED, B>(&self.neighbors, milliseconds(now), buf, (&glance, 0), opened),
        }
    }

    /// Stage three for all others: by what was recognised in stage one, or by what the general parser says.
    #[cold]
    #[inline(never)]
    fn detour<const LINK: usize, B: PacketBuf>(
        &mut self,
        buf: &mut B,
        lane: &Lane,
        walk: &mut Walk<'_>,
    ) -> Verdict {
        match lane.is_wide() {
            true => self.act_wide::<LINK, B>(buf, lane, walk),
            false => {
                let verdict = self.act_narrow::<LINK, B>(buf, lane, walk);
                walk.took_long(verdict)
            }
        }
    }

    /// Stage three for all others that are not IPv6.
    #[inline(never)]
    fn act_narrow<const LINK: usize, B: PacketBuf>(
        &mut self,
        buf: &mut B,
        lane: &Lane,
        walk: &mut Walk<'_>,
    ) -> Verdict {
        if lane.hash == 0 {
            walk.acted += 1;
            let parsed = walk.parsed.get(walk.acted - 1).copied();
            let parsed = parsed.unwrap_or_else(|| self.parse_one(walk.port, buf.bytes()));
            return self.act_on(walk.now, walk.port, buf, parsed);
        }
        let glance = Glance { key: lane.key(), ..lane.glance };
        let headers = glance.headers::<LINK>(buf.bytes());
        if let Some(found) = self.flows.found(lane.spot, glance.key) {
            return match self.finish(walk.now, buf, &headers, found) {
                Some(verdict) => verdict,
                None => self.known(walk.now, buf, &headers, found),
            };
        }
        if !headers.key.source.v4().is_some_and(parse::is_host) {
            return Verdict::Drop(DropReason::Malformed);
        }
        // 1 may stand for another hash.
        let hash = if lane.hash == 1 { self.flows.hash_narrow(glance.key) } else { lane.hash };
        self.transport(walk.now, buf, &headers, hash)
    }
}

/// Translates a packet of a bound flow in place. `None`, and nothing done, where that takes more. `fin` is 1 for a segment
/// that ends its side's stream.
#[inline(always)]
pub(super) fn cross<const LINK: usize, B: PacketBuf>(
    neighbors: &Neighbors,
    millis: u32,
    buf: &mut B,
    (glance, fin): (&Glance, u32),
    (flow, direction): (&mut Flow, Direction),
) -> Option<PortId> {
    let (addresses, ports, hop) = flow.onward(direction);
    let door = neighbors.door(hop)?;
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
        let length = u32::from(payload) + fin;
        above = Some(flow.splice.relay(&mut flow.track, side(direction), header, options, length));
    }
    rewrite::relabel(head, (addresses, ports), above);
    relink(link, door)?;
    flow.touch_at(millis);
    flow.count(direction, u64::from(payload));
    Some(door.port)
}

/// Writes the MAC addresses, and the number of the tag if there is one.
#[inline(always)]
fn relink<const LINK: usize>(link: &mut [u8; LINK], door: &Door) -> Option<()> {
    let (ethernet, tag) = link.split_first_chunk_mut::<ETHERNET_LEN>()?;
    *ethernet.first_chunk_mut()? = door.macs;
    if let (TAGGED, [c0, c1, ..]) = (LINK, tag) {
        let [v0, v1] = door.vlan.to_be_bytes();
        (*c0, *c1) = (*c0 & 0xf0 | v0 & 0x0f, v1);
    }
    Some(())
}

/// IPv4 and TCP without options: what is not counted by an MSS (RFC 6691, 2).
const HEADERS: u16 = 40;

/// True if the segment is larger than the server takes.
#[inline]
fn is_too_large(flow: &Flow, total: u16, direction: Direction) -> bool {
    let mss = flow.splice.server_mss();
    mss != 0 && direction == Direction::FromClient && total > mss.saturating_add(HEADERS)
}

#[cfg(test)]
mod tests;
