//! Frames with IPv6, recognised like those with IPv4: TCP or UDP right behind the IPv6 header.
//!
//! What is said of them needs nobody's second look: whatever [`crate::parse`] would refuse is not recognised.

use super::{
    ETHERTYPE_IPV6, HEAD, IPV6_LEN, LONGER, Mac, PROTOCOL_TCP, PROTOCOL_UDP, UDP, UDP_LEN, any_segment, half,
    is_for, segment, word,
};
use crate::address::{Address, FlowKey};
use crate::parse::{Family, Headers};

/// IPv6 and the shortest header above it.
const WIDE_HEAD: usize = IPV6_LEN + UDP_LEN;

/// A frame with IPv6 that is like nearly all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WideGlance {
    /// Source and destination as they are in the packet.
    pub ends: [u64; 4],
    /// The ports as they are in the packet.
    pub ports: u32,
    /// TCP or UDP.
    pub protocol: u8,
    /// Bytes of the IP packet.
    pub total: u16,
    /// Bytes of the header above IP.
    pub above: u16,
    /// UDP, or a segment that [`super::glance`] would recognise over IPv4.
    pub plain: bool,
}

/// True for a frame with IPv6, if its link header is of this length.
#[inline]
#[must_use]
pub(crate) fn is_ipv6<const LINK: usize>(frame: &[u8]) -> bool {
    let link = frame.first_chunk::<LINK>();
    link.is_some_and(|link| link.last_chunk() == Some(&ETHERTYPE_IPV6.to_be_bytes()))
}

/// Looks at a frame as [`super::glance_any`] does.
#[inline]
#[must_use]
pub(crate) fn glance_wide<const LINK: usize>(frame: &[u8], mac: Mac, vlan: u16) -> Option<WideGlance> {
    let (link, packet) = frame.split_first_chunk::<LINK>()?;
    let head = packet.first_chunk::<WIDE_HEAD>()?;
    let [version, _, _, _, l0, l1, next, hops] = word::<0>(head).to_ne_bytes();
    let rest = u16::from_be_bytes([l0, l1]);
    let total = rest.checked_add(IPV6_LEN as u16)?;
    // Loopback, the unspecified address and IPv4 written as IPv6 begin with eight zeros, and hardly any other.
    let (source, destination) = (word::<8>(head), word::<24>(head));
    let [first, ..] = source.to_ne_bytes();
    let hosts = (source != 0) & (destination != 0) & (first != 0xff);
    let right =
        (version & 0xf0 == 0x60) & (hops > 1) & hosts & is_for::<LINK, ETHERTYPE_IPV6>(link, mac, vlan);
    if !right || usize::from(total) > packet.len() {
        return None;
    }
    let (above, plain) = match next {
        PROTOCOL_UDP => (UDP, has_checksum(head, rest)?),
        PROTOCOL_TCP => {
            // From here on the packet looks like one of IPv4 without options.
            let packet = packet.get(usize::from(LONGER)..)?;
            let head = packet.first_chunk::<HEAD>()?;
            match segment(packet, head) {
                Some(above) => (above, true),
                None => (any_segment(head)?, false),
            }
        }
        _ => return None,
    };
    let (ends, ports) = (ends_of(head), half::<IPV6_LEN>(head));
    (rest >= above).then_some(WideGlance { ends, ports, protocol: next, total, above, plain })
}

/// Always true for a UDP header of that length with a checksum (RFC 8200, 8.1).
#[inline]
fn has_checksum(head: &[u8; WIDE_HEAD], length: u16) -> Option<bool> {
    let [l0, l1, c0, c1] = half::<44>(head).to_ne_bytes();
    ((u16::from_be_bytes([l0, l1]) == length) & ([c0, c1] != [0, 0])).then_some(true)
}

/// Source and destination of a packet over IPv6, as they are in it. Zeros past the end.
#[inline]
pub(crate) fn ends_of(packet: &[u8]) -> [u64; 4] {
    [word::<8>(packet), word::<16>(packet), word::<24>(packet), word::<32>(packet)]
}

/// What [`crate::parse`] would say of a frame of which [`glance_wide`] has said this.
#[must_use]
pub(crate) fn wide_headers<const LINK: usize>(frame: &[u8], total: u16, above: u16) -> Headers {
    let packet = frame.get(LINK..).unwrap_or_default();
    let head = packet.first_chunk::<WIDE_HEAD>().unwrap_or(&[0; WIDE_HEAD]);
    let [_, _, _, _, _, _, next, ttl] = word::<0>(head).to_ne_bytes();
    let [_, flags, ..] = half::<{ IPV6_LEN + 12 }>(packet).to_ne_bytes();
    let [source, destination]: [[u8; 16]; 2] = zerocopy::transmute!(ends_of(head));
    let [s0, s1, d0, d1] = half::<IPV6_LEN>(head).to_ne_bytes();
    let key = FlowKey {
        source: Address(source),
        destination: Address(destination),
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        protocol: next,
        ..FlowKey::default()
    };
    let l3 = LINK as u16;
    let l4 = l3 + IPV6_LEN as u16;
    Headers {
        family: Family::V6,
        key,
        l3,
        l4,
        payload: l4 + above,
        end: l3.saturating_add(total),
        tcp_flags: if next == PROTOCOL_TCP { flags } else { 0 },
        ttl,
    }
}

#[cfg(test)]
mod tests;
