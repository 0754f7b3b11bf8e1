//! The frames that nearly all are, recognised by a few wide loads and masks.
//!
//! [`glance`] knows Ethernet with the port's own tag or none, IPv4 without options that is no fragment, UDP, and TCP
//! segments without SYN, FIN and RST. It says nothing of any other frame, good or bad: that is for [`crate::parse`], which
//! every frame can be given to. What it does recognise, `parse` would accept but for the source address, which has to be
//! that of a flow. `wide.rs` knows the same of IPv6.

mod wide;

use crate::address::FlowKey;
use crate::header::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV4_LEN, IPV6_LEN, Mac, PROTOCOL_TCP,
    PROTOCOL_UDP, TAG_LEN, TCP_LEN, UDP_LEN,
};
use crate::parse::{Family, Headers};
pub(crate) use wide::{WideGlance, ends_of, glance_wide, is_ipv6, wide_headers};

/// Length of the link header of a frame without a tag.
pub const UNTAGGED: usize = ETHERNET_LEN;
/// Length of the link header of a frame with a tag.
pub const TAGGED: usize = ETHERNET_LEN + TAG_LEN;

/// Bytes that an IPv6 header has more than one of IPv4 without options.
pub(crate) const LONGER: u16 = (IPV6_LEN - IPV4_LEN) as u16;

/// IPv4 and the shortest TCP header; an Ethernet frame is not shorter than that, its padding included.
pub const HEAD: usize = IPV4_LEN + TCP_LEN;

/// A frame that is like nearly all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The flow key, see [`crate::address::FlowKey::narrow`].
    pub key: (u64, u64),
    /// Bytes of the IP packet.
    pub total: u16,
    /// Bytes of the header above IP: [`UDP`], [`TCP`] or [`TCP_TIMESTAMPS`]; of [`glance_any`] also any other for TCP.
    pub above: u16,
}

/// A UDP header.
pub const UDP: u16 = UDP_LEN as u16;
/// A TCP header without options.
pub const TCP: u16 = TCP_LEN as u16;
/// A TCP header with timestamps as the only option, behind two NOPs.
pub const TCP_TIMESTAMPS: u16 = TCP + 12;

impl Glance {
    /// Bytes above TCP or UDP.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> u16 {
        self.total.wrapping_sub(self.above).wrapping_sub(IPV4_LEN as u16)
    }

    /// What [`crate::parse`] would say of the frame that this is about.
    #[must_use]
    pub(crate) fn headers<const LINK: usize>(&self, frame: &[u8]) -> Headers {
        let head = frame.get(LINK..).and_then(<[u8]>::first_chunk::<HEAD>).unwrap_or(&[0; HEAD]);
        let [ttl, ..] = half::<8>(head).to_ne_bytes();
        let [_, flags, ..] = half::<32>(head).to_ne_bytes();
        let l3 = LINK as u16;
        let l4 = l3 + IPV4_LEN as u16;
        Headers {
            family: Family::V4,
            key: FlowKey::widened(self.key),
            l3,
            l4,
            payload: l4 + self.above,
            end: l3.saturating_add(self.total),
            tcp_flags: if self.is_tcp() { flags } else { 0 },
            ttl,
        }
    }

    /// For TCP, or else UDP.
    #[inline]
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.above >= TCP
    }
}

/// As [`glance`], for TCP segments of all kinds, with whatever flags and options.
#[must_use]
pub(crate) fn glance_any<const LINK: usize>(frame: &[u8], mac: Mac, vlan: u16) -> Option<Glance> {
    recognised::<LINK, true>(frame, mac, vlan)
}

/// Looks at a frame that arrived by a port with this address of its own. `LINK` is [`TAGGED`] if the port has the tag
/// `vlan`, else [`UNTAGGED`].
#[inline]
#[must_use]
pub fn glance<const LINK: usize>(frame: &[u8], mac: Mac, vlan: u16) -> Option<Glance> {
    recognised::<LINK, false>(frame, mac, vlan)
}

#[inline]
fn recognised<const LINK: usize, const ANY: bool>(frame: &[u8], mac: Mac, vlan: u16) -> Option<Glance> {
    let (link, packet) = frame.split_first_chunk::<LINK>()?;
    let head = packet.first_chunk::<HEAD>()?;
    if !is_for::<LINK, ETHERTYPE_IPV4>(link, mac, vlan) {
        return None;
    }
    // Version, header length, reserved bit and DF may be as they like, MF and an offset may not.
    const FIXED: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    const VERSION: u64 = u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
    let (first, second) = (word::<0>(head), word::<8>(head));
    let (third, fourth) = (half::<16>(head), half::<20>(head));
    let [_, [t0, t1], ..]: [[u8; 2]; 4] = zerocopy::transmute!(first);
    let [[ttl, protocol, ..], source]: [[u8; 4]; 2] = zerocopy::transmute!(second);
    let total = u16::from_be_bytes([t0, t1]);
    // A sum of whole words with all carries is a multiple of 0xffff if the checksum is right (RFC 1071), and never 0 here.
    let sum = halves(first) + halves(second) + u64::from(third);
    let right = (first & FIXED == VERSION) & (ttl > 1) & sum.is_multiple_of(0xffff);
    if !right || usize::from(total) > packet.len() {
        return None;
    }
    let above = match protocol {
        PROTOCOL_UDP => UDP,
        PROTOCOL_TCP if ANY => any_segment(head)?,
        PROTOCOL_TCP => segment(packet, head)?,
        _ => return None,
    };
    // What is left for the header above IP and what follows; UDP says the same.
    let rest = total.checked_sub(IPV4_LEN as u16).filter(|rest| *rest >= above)?;
    let [l0, l1, ..] = half::<24>(head).to_ne_bytes();
    if above == UDP && u16::from_be_bytes([l0, l1]) != rest {
        return None;
    }
    let addresses: u64 = zerocopy::transmute!([source, third.to_ne_bytes()]);
    let rest: u64 = zerocopy::transmute!([fourth, u32::from_ne_bytes([protocol, 0, 0, 0])]);
    Some(Glance { key: (addresses, rest), total, above })
}

/// The length of a TCP header with ACK, without SYN, FIN and RST, and without options other than timestamps.
#[inline]
fn segment(packet: &[u8], head: &[u8; HEAD]) -> Option<u16> {
    /// The data offset, and FIN, SYN, RST and ACK.
    const KIND: u16 = u16::from_ne_bytes([0xf0, 0x17]);
    const PLAIN: u16 = u16::from_ne_bytes([0x50, 0x10]);
    const LONGER: u16 = u16::from_ne_bytes([0x80, 0x10]);
    let [offset, flags, ..] = half::<32>(head).to_ne_bytes();
    match u16::from_ne_bytes([offset, flags]) & KIND {
        PLAIN => Some(TCP),
        LONGER => {
            let packet = packet.first_chunk::<{ HEAD + 12 }>()?;
            (half::<HEAD>(packet) == ALIGNED).then_some(TCP_TIMESTAMPS)
        }
        _ => None,
    }
}

/// The length of any TCP header.
fn any_segment(head: &[u8; HEAD]) -> Option<u16> {
    let [offset, ..] = half::<32>(head).to_ne_bytes();
    Some(u16::from(offset >> 4) * 4).filter(|above| *above >= TCP)
}

/// Two NOPs, kind and length of timestamps (RFC 7323, appendix A).
const ALIGNED: u32 = u32::from_ne_bytes([1, 1, 8, 10]);

/// True if the frame is for the port alone, has its tag, and carries what it should.
#[inline]
fn is_for<const LINK: usize, const ETHERTYPE: u16>(link: &[u8; LINK], mac: Mac, vlan: u16) -> bool {
    let [a, b, c, d, e, f] = mac;
    let addressed = word::<0>(link) & ADDRESS == u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
    let [t0, t1, c0, c1] = half::<12>(link).to_ne_bytes();
    let tagged = [t0, t1] == ETHERTYPE_VLAN.to_be_bytes() && [c0 & 0x0f, c1] == vlan.to_be_bytes();
    let carries = link.last_chunk() == Some(&ETHERTYPE.to_be_bytes());
    addressed & carries & (LINK == UNTAGGED || tagged)
}

/// The six bytes of a MAC address in eight.
const ADDRESS: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

/// Eight bytes, in the byte order of the machine. 0 past the end.
#[inline]
pub(crate) fn word<const AT: usize>(bytes: &[u8]) -> u64 {
    bytes.get(AT..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Four bytes, in the byte order of the machine. 0 past the end.
#[inline]
pub(crate) fn half<const AT: usize>(bytes: &[u8]) -> u32 {
    bytes.get(AT..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The two halves of a word, added: no carry is lost.
#[inline]
fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

#[cfg(test)]
mod tests;
