//! ICMP errors that weir makes, or makes anew for the other side of a flow.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::TTL;
use crate::address::{Address, FlowKey};
use crate::checksum::{Delta, Sum, pseudo_header};
use crate::header::{
    IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP,
};

/// Longest ICMP error over IPv4 (RFC 1812, 4.3.2.3) and IPv6 (RFC 4443, 2.4), in bytes of IP packet.
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// Bytes before the quoted packet: type, code, checksum, and four that depend on the type.
const HEAD: usize = 8;

/// An error message: type, code, and the four bytes that follow the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// MTU, pointer, or unused.
    pub rest: [u8; 4],
}

impl Head {
    /// "Fragmentation needed" (RFC 1191, 4) or "packet too big" (RFC 4443, 3.2).
    #[must_use]
    pub fn too_big(v4: bool, mtu: u16) -> Self {
        let rest = u32::from(mtu).to_be_bytes();
        if v4 { Head { kind: 3, code: 4, rest } } else { Head { kind: 2, code: 0, rest } }
    }
}

/// The whole IP packet of an error about `quoted`, which is cut to what may be quoted. `None` if the addresses are of two
/// families.
#[must_use]
pub fn build(source: Address, destination: Address, head: Head, quoted: &[u8]) -> Option<Vec<u8>> {
    let v4 = source.is_v4();
    if v4 != destination.is_v4() {
        return None;
    }
    let (header, longest) = if v4 { (IPV4_LEN, LONGEST_V4) } else { (IPV6_LEN, LONGEST_V6) };
    let quoted = quoted.get(..quoted.len().min(longest - header - HEAD))?;
    let mut message = vec![head.kind, head.code, 0, 0];
    message.extend(head.rest);
    message.extend_from_slice(quoted);
    let length = u16::try_from(message.len()).ok()?;
    let sum = if v4 { Sum::default() } else { pseudo_header(source, destination, PROTOCOL_ICMPV6, length) };
    let checksum = sum.bytes(&message).checksum();
    message.get_mut(2..4)?.copy_from_slice(&checksum.to_be_bytes());
    let mut packet = if v4 { ipv4(source, destination, length)? } else { ipv6(source, destination, length) };
    packet.append(&mut message);
    Some(packet)
}

fn ipv4(source: Address, destination: Address, length: u16) -> Option<Vec<u8>> {
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        traffic_class: 0,
        total_length: U16::new(length + IPV4_LEN as u16),
        identification: U16::ZERO,
        fragment: U16::ZERO,
        ttl: TTL,
        protocol: PROTOCOL_ICMP,
        checksum: U16::ZERO,
        source: source.v4()?,
        destination: destination.v4()?,
    };
    ip.checksum = U16::new(Sum::default().bytes(ip.as_bytes()).checksum());
    Some(ip.as_bytes().to_vec())
}

fn ipv6(source: Address, destination: Address, length: u16) -> Vec<u8> {
    let ip = Ipv6 {
        version_class_flow: U32::new(6 << 28),
        payload_length: U16::new(length),
        next_header: PROTOCOL_ICMPV6,
        hop_limit: TTL,
        source: source.0,
        destination: destination.0,
    };
    ip.as_bytes().to_vec()
}

/// True if whoever sent this IP packet wants to hear that it is too big: IPv6, or DF (RFC 1191).
#[must_use]
pub fn may_not_be_fragmented(packet: &[u8]) -> bool {
    match Ipv4::ref_from_prefix(packet) {
        Ok((ip, _)) if ip.version_ihl >> 4 == 4 => ip.fragment.get() & 0x4000 != 0,
        _ => true,
    }
}

/// What turns a quoted packet, as weir has sent it, into the one that its sender had sent.
#[derive(Clone, Copy, Debug)]
pub struct Requote {
    /// The sender's own key.
    pub key: FlowKey,
    /// Added to the sequence number of TCP.
    pub seq: u32,
    /// Added to the acknowledgement number, where it is quoted.
    pub ack: u32,
}

impl Requote {
    /// Rewrites addresses, ports and numbers in a quoted packet without extension headers, and adjusts those checksums
    /// that are quoted, too. Options stay as they are. `None`: it is too short, or of another family.
    #[must_use]
    pub fn apply(&self, quoted: &mut [u8]) -> Option<()> {
        let v4 = quoted.first()? >> 4 == 4;
        let (header, protocol, delta) = if v4 { self.ipv4(quoted)? } else { self.ipv6(quoted)? };
        let l4 = quoted.get_mut(header..)?;
        let [s0, s1, d0, d1] = *l4.first_chunk()?;
        let (source, destination) = (self.key.source_port, self.key.destination_port);
        let delta =
            delta.u16(u16::from_be_bytes([s0, s1]), source).u16(u16::from_be_bytes([d0, d1]), destination);
        l4.get_mut(..2)?.copy_from_slice(&source.to_be_bytes());
        l4.get_mut(2..4)?.copy_from_slice(&destination.to_be_bytes());
        match protocol {
            PROTOCOL_TCP => {
                let delta = add(l4, 4, self.seq, delta)?;
                let delta = add(l4, 8, self.ack, delta).unwrap_or(delta);
                adjust(l4, 16, |checksum| delta.apply(checksum));
            }
            PROTOCOL_UDP => adjust(l4, 6, |checksum| delta.apply_udp(checksum)),
            _ => return None,
        }
        Some(())
    }

    fn ipv4(&self, quoted: &mut [u8]) -> Option<(usize, u8, Delta)> {
        let (ip, _) = Ipv4::mut_from_prefix(quoted).ok()?;
        let (source, destination) = (self.key.source.v4()?, self.key.destination.v4()?);
        let delta = Delta::default().v4(ip.source, source).v4(ip.destination, destination);
        ip.checksum = U16::new(delta.apply(ip.checksum.get()));
        (ip.source, ip.destination) = (source, destination);
        Some((usize::from(ip.version_ihl & 0x0f) * 4, ip.protocol, delta))
    }

    fn ipv6(&self, quoted: &mut [u8]) -> Option<(usize, u8, Delta)> {
        let (ip, _) = Ipv6::mut_from_prefix(quoted).ok()?;
        if self.key.source.is_v4() || self.key.destination.is_v4() {
            return None;
        }
        let (source, destination) = (self.key.source.0, self.key.destination.0);
        let delta = Delta::default().v6(ip.source, source).v6(ip.destination, destination);
        (ip.source, ip.destination) = (source, destination);
        Some((IPV6_LEN, ip.next_header, delta))
    }
}

/// The sequence number of the TCP segment that is quoted.
#[must_use]
pub fn quoted_sequence(quoted: &[u8]) -> Option<u32> {
    let header = match quoted.first()? >> 4 {
        4 => usize::from(quoted.first()? & 0x0f) * 4,
        _ => IPV6_LEN,
    };
    quoted.get(header + 4..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Adds to the number at `at`, and to the changes.
fn add(l4: &mut [u8], at: usize, by: u32, delta: Delta) -> Option<Delta> {
    let place = l4.get_mut(at..)?.first_chunk_mut::<4>()?;
    let old = u32::from_be_bytes(*place);
    let new = old.wrapping_add(by);
    *place = new.to_be_bytes();
    Some(delta.u32(old, new))
}

fn adjust(l4: &mut [u8], at: usize, new: impl Fn(u16) -> u16) {
    if let Some(place) = l4.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *place = new(u16::from_be_bytes(*place)).to_be_bytes();
    }
}
