//! ICMP (RFC 792) and ICMPv6 (RFC 4443) as far as weir takes part: echo, and errors about what it sent.

mod error;

pub use error::{Head, Requote, build as build_error, may_not_be_fragmented, quoted_sequence};

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use crate::address::{Address, FlowKey};
use crate::checksum::{Delta, Sum};
use crate::counters::DropReason;
use crate::frame::set_macs;
use crate::header::{Ethernet, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, Mac, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::nd;
use crate::parse::{Family, Headers, l4_checksum_ok};

/// TTL of replies.
const TTL: u8 = 64;

/// What an ICMP or ICMPv6 message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`echo_reply`].
    EchoRequest,
    /// An answer to a health monitor.
    EchoReply,
    /// A packet did not arrive.
    Error {
        /// Why not.
        cause: Cause,
        /// The packet's own source, destination and ports as far as they are quoted: as weir sent it. `None`: not TCP
        /// or UDP, or not enough of it is there.
        original: Option<FlowKey>,
    },
    /// See [`crate::nd::receive`].
    NeighborSolicitation,
    /// See [`crate::nd::receive`].
    NeighborAdvertisement,
    /// Anything else: nothing that weir needs.
    Other,
}

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Destination unreachable.
    Unreachable {
        /// RFC 792 or RFC 4443, 3.1.
        code: u8,
    },
    /// Larger than a link on the way.
    TooBig {
        /// Largest IP packet of that link in bytes; 0 if an old router does not say.
        mtu: u32,
    },
    /// TTL or hop limit.
    TimeExceeded,
    /// A header field.
    ParameterProblem,
}

/// Tells what the message is. Its checksum is not verified: [`l4_checksum_ok`], before believing an error.
#[must_use]
pub fn classify(frame: &[u8], headers: &Headers) -> Message {
    let Some([kind, code, _, _, a, b, c, d]) = frame.get(headers.l4_range()).and_then(<[u8]>::first_chunk)
    else {
        return Message::Other;
    };
    let cause = match (headers.family, *kind, *code) {
        (Family::V4, 8, 0) | (Family::V6, 128, 0) => return Message::EchoRequest,
        (Family::V4, 0, 0) | (Family::V6, 129, 0) => return Message::EchoReply,
        (Family::V6, nd::SOLICITATION, _) => return Message::NeighborSolicitation,
        (Family::V6, nd::ADVERTISEMENT, _) => return Message::NeighborAdvertisement,
        (Family::V4, 3, 4) => Cause::TooBig { mtu: u32::from(u16::from_be_bytes([*c, *d])) },
        (Family::V6, 2, _) => Cause::TooBig { mtu: u32::from_be_bytes([*a, *b, *c, *d]) },
        (Family::V4, 3, code) | (Family::V6, 1, code) => Cause::Unreachable { code },
        (Family::V4, 11, _) | (Family::V6, 3, _) => Cause::TimeExceeded,
        (Family::V4, 12, _) | (Family::V6, 4, _) => Cause::ParameterProblem,
        _ => return Message::Other,
    };
    let quoted = frame.get(headers.payload_range()).unwrap_or_default();
    let original = match headers.family {
        Family::V4 => quoted_v4(quoted),
        Family::V6 => quoted_v6(quoted),
    };
    Message::Error { cause, original }
}

/// Turns an echo request to an own address into its reply: addresses swapped, TTL 64, checksums right. `own` is the
/// port's MAC address. IPv4 options are blanked.
///
/// # Errors
/// `L4Checksum`: of the request. `Protocol`: not an echo request, or one with IPv6 extension headers, which weir does
/// not send back. `Truncated`: `headers` does not come from this frame.
pub fn echo_reply(frame: &mut [u8], headers: &Headers, own: Mac) -> Result<(), DropReason> {
    if classify(frame, headers) != Message::EchoRequest {
        return Err(DropReason::Protocol);
    }
    if !l4_checksum_ok(frame, headers) {
        return Err(DropReason::L4Checksum);
    }
    let (l3, l4) = (usize::from(headers.l3), usize::from(headers.l4));
    let reply_type = match headers.family {
        Family::V4 => 0,
        Family::V6 => 129,
    };
    let header = frame.get_mut(l3..l4).ok_or(DropReason::Truncated)?;
    match headers.family {
        Family::V4 => turn_v4(header)?,
        Family::V6 => turn_v6(header)?,
    }
    let message = frame.get_mut(l4..).and_then(<[u8]>::first_chunk_mut).ok_or(DropReason::Truncated)?;
    let [kind, code, high, low] = message;
    let delta =
        Delta::default().u16(u16::from_be_bytes([*kind, *code]), u16::from_be_bytes([reply_type, *code]));
    *kind = reply_type;
    [*high, *low] = delta.apply(u16::from_be_bytes([*high, *low])).to_be_bytes();
    let asker = Ethernet::ref_from_prefix(frame).map_err(|_| DropReason::Truncated)?.0.source;
    set_macs(frame, own, asker)
}

fn turn_v4(header: &mut [u8]) -> Result<(), DropReason> {
    if let Some(options) = header.get_mut(IPV4_LEN..) {
        options.fill(0); // end of option list
    }
    let (ip, _) = Ipv4::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    std::mem::swap(&mut ip.source, &mut ip.destination);
    ip.ttl = TTL;
    ip.checksum = U16::ZERO;
    let checksum = Sum::default().bytes(header).checksum();
    let (ip, _) = Ipv4::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    ip.checksum = U16::new(checksum);
    Ok(())
}

fn turn_v6(header: &mut [u8]) -> Result<(), DropReason> {
    if header.len() != IPV6_LEN {
        return Err(DropReason::Protocol);
    }
    let (ip, _) = Ipv6::mut_from_prefix(header).map_err(|_| DropReason::Truncated)?;
    std::mem::swap(&mut ip.source, &mut ip.destination);
    ip.hop_limit = TTL;
    Ok(())
}

/// The key of the packet that an ICMP error quotes; it may be cut after 8 bytes of its payload.
fn quoted_v4(quoted: &[u8]) -> Option<FlowKey> {
    let (ip, _) = Ipv4::ref_from_prefix(quoted).ok()?;
    let header_len = usize::from(ip.version_ihl & 0x0f) * 4;
    if ip.version_ihl >> 4 != 4 || header_len < IPV4_LEN || ip.fragment.get() & 0x1fff != 0 {
        return None;
    }
    let (source, destination) = (Address::from_v4(ip.source), Address::from_v4(ip.destination));
    quoted_ports(ip.protocol, source, destination, quoted.get(header_len..)?)
}

/// The key of the packet that an ICMPv6 error quotes. weir sends no extension headers.
fn quoted_v6(quoted: &[u8]) -> Option<FlowKey> {
    let (ip, rest) = Ipv6::ref_from_prefix(quoted).ok()?;
    let (source, destination) = (Address(ip.source), Address(ip.destination));
    if ip.version_class_flow.get() >> 28 != 6 || source.is_v4() || destination.is_v4() {
        return None;
    }
    quoted_ports(ip.next_header, source, destination, rest)
}

fn quoted_ports(protocol: u8, source: Address, destination: Address, l4: &[u8]) -> Option<FlowKey> {
    let [a, b, c, d] = l4.first_chunk().copied()?;
    let key = FlowKey {
        source,
        destination,
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        protocol,
        ..FlowKey::default()
    };
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP).then_some(key)
}

#[cfg(test)]
mod tests;
