//! The stages for packets over IPv6, off the way of those over IPv4: the first stage looks a second time, the second one fetches
//! the line with the flow's addresses as well, and the third one compares addresses only there.

use smoltcp::time::Instant;

use super::{Lane, Walk, is_too_large, relink, side};
use crate::flow::{ASIDE, Direction, Flow, Wide, milliseconds};
use crate::flow_table::{FlowId, Spot};
use crate::glance::{
    Glance, LONGER, TAGGED, TCP_TIMESTAMPS, UDP, UNTAGGED, WideGlance, ends_of, glance_wide, wide_headers,
};
use crate::header::{IPV6_LEN, Mac, TCP_LEN, UDP_LEN};
use crate::io::{PacketBuf, PortId};
use crate::neighbor::Neighbors;
use crate::parse::{Family, Headers};
use crate::pipeline::{Pipeline, Verdict};
use crate::policy::Policy;
use crate::rewrite;

/// In the second half of the key of a lane: [`WideGlance::plain`].
const PLAIN: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 1, 0]);

impl Lane {
    /// Of a packet over IPv6 with a key of that hash. The key itself has no room: instead there are the hash, and what a narrow
    /// key has of ports and protocol, set [`ASIDE`], so that it belongs to no flow of IPv4.
    #[inline]
    fn wide(hash: u64, seen: &WideGlance) -> Lane {
        let plain = if seen.plain { ASIDE | PLAIN } else { ASIDE };
        let rest: u64 = zerocopy::transmute!([seen.ports, u32::from_ne_bytes([seen.protocol, 0, 0, 0])]);
        let key = (hash, rest | plain);
        Lane { glance: Glance { key, total: seen.total, above: seen.above }, spot: Spot::NONE, hash: 0 }
    }

    /// True for a packet over IPv6 that was recognised.
    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.hash == 0 && self.glance.total != 0
    }

    /// The hash that the index is asked for; 0 for a packet that was not recognised.
    #[inline]
    pub(super) fn sought(&self) -> u64 {
        if self.hash == 0 { self.glance.key.0 } else { self.hash }
    }
}

impl<P: Policy> Pipeline<P> {
    /// Stage one for a packet over IPv6.
    #[inline(never)]
    pub(super) fn look_wide<const LINK: usize>(
        &self,
        frame: &[u8],
        (mac, vlan): (Mac, u16),
        lane: &mut Lane,
        walk: &mut Walk<'_>,
    ) {
        match glance_wide::<LINK>(frame, mac, vlan) {
            Some(seen) => {
                let hash = self.flows.hash_wide(seen.ends, seen.ports, seen.protocol);
                self.flows.prefetch_bucket(hash);
                *lane = Lane::wide(hash, &seen);
            }
            None => self.look_long(frame, walk),
        }
    }

    /// Stage three for a packet over IPv6: the shortcut, or else what [`Pipeline::detour`] does for IPv4.
    #[inline(never)]
    pub(super) fn act_wide<const LINK: usize, B: PacketBuf>(
        &mut self,
        buf: &mut B,
        lane: &Lane,
        walk: &mut Walk<'_>,
    ) -> Verdict {
        match self.shortcut_wide::<LINK, B>(walk.millis, buf, lane) {
            Some(out) => Verdict::Forward(out),
            None => {
                let verdict = self.detour_wide::<LINK, B>(walk.now, buf, lane);
                walk.took_long(verdict)
            }
        }
    }

    /// A packet of a bound flow is translated in place. `None`, and nothing done, for all others.
    #[inline]
    pub(super) fn shortcut_wide<const LINK: usize, B: PacketBuf>(
        &mut self,
        millis: u32,
        buf: &mut B,
        lane: &Lane,
    ) -> Option<PortId> {
        let glance = &lane.glance;
        if glance.key.1 & PLAIN == 0 {
            return None;
        }
        let (_, packet) = buf.bytes().split_first_chunk::<LINK>()?;
        let head: &[u8; IPV6_LEN] = packet.first_chunk()?;
        let key = (ends_of(head), glance.key.1);
        let (flow, wide, direction) = self.flows.plain_wide_mut(lane.spot, key)?;
        cross_wide::<LINK, B>(&self.neighbors, millis, buf, (glance, 0), (flow, wide, direction))
    }

    /// Stage three for all others.
    #[cold]
    fn detour_wide<const LINK: usize, B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        lane: &Lane,
    ) -> Verdict {
        let (glance, hash) = (&lane.glance, lane.sought());
        let headers = wide_headers::<LINK>(buf.bytes(), glance.total, glance.above);
        let packet = buf.bytes().get(LINK..).unwrap_or_default();
        let Some(found) = self.flows.found_wide(lane.spot, (ends_of(packet), glance.key.1)) else {
            return self.transport(now, buf, &headers, hash);
        };
        match self.finish(now, buf, &headers, found) {
            Some(verdict) => verdict,
            None => self.known(now, buf, &headers, found),
        }
    }

    /// The shortcut of the datagram over IPv6 that has opened a flow; see [`Pipeline::open_shortcut`].
    #[cold]
    pub(super) fn open_wide<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        id: FlowId,
    ) -> Option<PortId> {
        let short = headers.l4.wrapping_sub(headers.l3) == IPV6_LEN as u16;
        let plain = short & (headers.family == Family::V6) & (headers.ttl > 1);
        self.flows.flow(id).filter(|flow| plain && flow.passes())?;
        let glance = Glance { key: (0, 0), total: headers.end.saturating_sub(headers.l3), above: UDP };
        let (millis, tagged) = (milliseconds(now), headers.tagged());
        self.cross_known(millis, buf, (&glance, 0), tagged, (id, Direction::FromClient))
    }

    /// [`cross_wide`] for a flow that is known by its id.
    pub(in crate::pipeline) fn cross_known<B: PacketBuf>(
        &mut self,
        millis: u32,
        buf: &mut B,
        glance: (&Glance, u32),
        tagged: bool,
        (id, direction): (FlowId, Direction),
    ) -> Option<PortId> {
        let (flow, wide) = self.flows.wide_mut(id).filter(|(flow, _)| flow.is_bound())?;
        let neighbors = &self.neighbors;
        match tagged {
            false => cross_wide::<UNTAGGED, B>(neighbors, millis, buf, glance, (flow, wide, direction)),
            true => cross_wide::<TAGGED, B>(neighbors, millis, buf, glance, (flow, wide, direction)),
        }
    }
}

/// As [`super::cross`] for a packet over IPv6 without extension headers, and a hop limit that is not used up.
#[inline(always)]
fn cross_wide<const LINK: usize, B: PacketBuf>(
    neighbors: &Neighbors,
    millis: u32,
    buf: &mut B,
    (glance, fin): (&Glance, u32),
    (flow, wide, direction): (&mut Flow, &Wide, Direction),
) -> Option<PortId> {
    let (addresses, ports, hop) = flow.wide_onward(wide, direction)?;
    let door = neighbors.door(hop)?;
    if glance.total > door.mtu || door.tagged != (LINK == TAGGED) {
        return None;
    }
    let (link, packet) = buf.bytes_mut().split_first_chunk_mut::<LINK>()?;
    let (ip, above) = packet.split_first_chunk_mut::<IPV6_LEN>()?;
    let payload = glance.payload().wrapping_sub(LONGER);
    if glance.is_tcp() {
        if !flow.splice.is_plain() || is_too_large(flow, glance.total.wrapping_sub(LONGER), direction) {
            return None;
        }
        let (header, rest) = above.split_first_chunk_mut::<TCP_LEN>()?;
        let options = if glance.above == TCP_TIMESTAMPS { rest.first_chunk_mut() } else { None };
        let length = u32::from(payload) + fin;
        let sum = flow.splice.relay(&mut flow.track, side(direction), header, options, length);
        let changed = rewrite::relabel_wide(ip, header, (addresses, ports)).sum(sum);
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, c0, c1, _, _] = header;
        [*c0, *c1] = changed.apply(u16::from_be_bytes([*c0, *c1])).to_be_bytes();
    } else {
        let header: &mut [u8; UDP_LEN] = above.first_chunk_mut()?;
        let changed = rewrite::relabel_wide(ip, header, (addresses, ports));
        let [_, _, _, _, _, _, c0, c1] = header;
        [*c0, *c1] = changed.apply_udp(u16::from_be_bytes([*c0, *c1])).to_be_bytes();
    }
    relink(link, door)?;
    flow.touch_at(millis);
    flow.count(direction, u64::from(payload));
    Some(door.port)
}
