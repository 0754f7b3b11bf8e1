//! Translating a packet: link, addresses, ports, TTL, tag, with the checksums that depend on them.
//!
//! Order for one packet: [`retag`] (which may move its bytes, nearly always returns at once), then [`apply`].
//! Sequence numbers are the business of `tcp::Splice`, before or after: both adjust the TCP checksum by what they
//! change.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use crate::address::Address;
use crate::checksum::Delta;
use crate::counters::DropReason;
use crate::frame::set_macs;
use crate::glance::{HEAD, half, word};
use crate::header::{
    ETHERNET_LEN, ETHERTYPE_VLAN, IPV6_LEN, Ipv4, Ipv6, Mac, PROTOCOL_TCP, PROTOCOL_UDP, TAG_LEN, Tag, Tcp,
    Udp,
};
use crate::io::PacketBuf;
use crate::parse::{Family, Headers};

/// Where the tag goes: behind the two MAC addresses.
const TAG_AT: usize = 12;

/// How the packets of one direction of a flow leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Source address, of the family of the packet.
    pub source: Address,
    /// Destination address, of the family of the packet.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The port's own MAC address.
    pub source_mac: Mac,
    /// The next hop's MAC address.
    pub destination_mac: Mac,
    /// The port's 802.1Q tag.
    pub vlan: Option<u16>,
}

/// Writes `translation` into a TCP or UDP packet, takes 1 from the TTL and adjusts the checksums by what changed:
/// one that was wrong stays wrong, none stays none.
///
/// `headers` must come from this frame (only the offsets, family and protocol are used); its presence of a tag must be
/// that of `translation.vlan`, see [`retag`].
///
/// # Errors
/// `TtlExpired`: nothing was written. `Malformed`, `Protocol`, `Vlan`, `Truncated`: `headers` or the families of the
/// addresses do not fit; the frame is not to be sent.
pub fn apply(frame: &mut [u8], headers: &Headers, translation: &Translation) -> Result<(), DropReason> {
    let packet = frame.get_mut(usize::from(headers.l3)..).ok_or(DropReason::Truncated)?;
    let addresses = match headers.family {
        Family::V4 => ipv4(packet, translation)?,
        Family::V6 => ipv6(packet, translation)?,
    };
    let segment = frame.get_mut(usize::from(headers.l4)..).ok_or(DropReason::Truncated)?;
    match headers.key.protocol {
        PROTOCOL_TCP => tcp(segment, addresses, translation)?,
        PROTOCOL_UDP => udp(segment, addresses, translation)?,
        _ => return Err(DropReason::Protocol),
    }
    set_macs(frame, translation.source_mac, translation.destination_mac)?;
    match (headers.tagged(), translation.vlan) {
        (true, Some(vlan)) => set_vlan(frame, vlan),
        (false, None) => Ok(()),
        _ => Err(DropReason::Vlan),
    }
}

/// As [`apply`] for a packet that [`crate::glance`] has recognised: `head` are its IPv4 header and what follows. Source and
/// destination in `addresses` and `ports` are as they lie in the packet; `above` is what was changed in a segment.
#[inline]
pub(crate) fn relabel(head: &mut [u8; HEAD], (addresses, ports): (u64, u32), above: Option<u64>) {
    const TTL: u16 = u16::from_ne_bytes([1, 0]);
    let [_, _, _, _, _, _, _, _, ttl, _, i0, i1, rest @ ..] = head;
    let (old_addresses, old_ports) = (word::<0>(rest), half::<8>(rest));
    let changed = Delta::default().word(old_addresses, addresses);
    [*i0, *i1] = changed.half(u32::from(TTL), 0).apply(u16::from_be_bytes([*i0, *i1])).to_be_bytes();
    *ttl = ttl.wrapping_sub(1);
    let changed = changed.half(old_ports, ports);
    let [to_addresses @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = rest;
    to_addresses.copy_from_slice(&addresses.to_ne_bytes());
    let [_, _, _, _, _, _, _, _, p0, p1, p2, p3, _, _, u0, u1, _, _, _, _, _, _, _, _, t0, t1, _, _] = rest;
    [*p0, *p1, *p2, *p3] = ports.to_ne_bytes();
    match above {
        Some(above) => {
            let changed = changed.sum(above);
            [*t0, *t1] = changed.apply(u16::from_be_bytes([*t0, *t1])).to_be_bytes();
        }
        None => [*u0, *u1] = changed.apply_udp(u16::from_be_bytes([*u0, *u1])).to_be_bytes(),
    }
}

/// As [`relabel`] for a packet that is recognised as IPv6: `ip` is its header, `above` what follows. Writes addresses, hop limit
/// and ports, and gives what is to be applied to the checksum of TCP or UDP.
#[inline(always)]
pub(crate) fn relabel_wide<const ABOVE: usize>(
    ip: &mut [u8; IPV6_LEN],
    above: &mut [u8; ABOVE],
    (addresses, ports): ([u64; 4], u32),
) -> Delta {
    let [_, _, _, _, _, _, _, hops, ends @ ..] = ip;
    *hops = hops.wrapping_sub(1);
    let changed = Delta::default().words(zerocopy::transmute!(*ends), addresses);
    *ends = zerocopy::transmute!(addresses);
    let Some(place) = above.first_chunk_mut() else { return changed };
    let old = std::mem::replace(place, ports.to_ne_bytes());
    changed.half(u32::from_ne_bytes(old), ports)
}

/// Gives a frame a tag, or takes it away, as the port wants it by which the frame leaves. The tag's number is written
/// by [`apply`]. Moves the whole packet by 4 bytes and corrects `headers`; returns at once where nothing changes.
///
/// # Errors
/// `NoBuffer`: no room for the tag; nothing was done. `Malformed`: `headers` does not come from this frame.
pub fn retag<B: PacketBuf>(buf: &mut B, headers: &mut Headers, vlan: Option<u16>) -> Result<(), DropReason> {
    match (headers.tagged(), vlan) {
        (true, Some(_)) | (false, None) => Ok(()),
        (false, Some(vlan)) => insert_tag(buf, headers, vlan),
        (true, None) => remove_tag(buf, headers),
    }
}

/// The IPv4 header; gives what the addresses change in the pseudo header.
fn ipv4(packet: &mut [u8], translation: &Translation) -> Result<Delta, DropReason> {
    let (Some(source), Some(destination)) = (translation.source.v4(), translation.destination.v4()) else {
        return Err(DropReason::Malformed);
    };
    let (ip, _) = Ipv4::mut_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
    let ttl = decremented(ip.ttl)?;
    let addresses = Delta::default().v4(ip.source, source).v4(ip.destination, destination);
    let hop = |ttl: u8| u16::from_be_bytes([ttl, ip.protocol]);
    ip.checksum = U16::new(addresses.u16(hop(ip.ttl), hop(ttl)).apply(ip.checksum.get()));
    ip.ttl = ttl;
    ip.source = source;
    ip.destination = destination;
    Ok(addresses)
}

/// The IPv6 header; gives what the addresses change in the pseudo header.
fn ipv6(packet: &mut [u8], translation: &Translation) -> Result<Delta, DropReason> {
    if translation.source.is_v4() || translation.destination.is_v4() {
        return Err(DropReason::Malformed);
    }
    let (ip, _) = Ipv6::mut_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
    let (source, destination) = (translation.source.0, translation.destination.0);
    ip.hop_limit = decremented(ip.hop_limit)?;
    let addresses = Delta::default().v6(ip.source, source).v6(ip.destination, destination);
    ip.source = source;
    ip.destination = destination;
    Ok(addresses)
}

/// One hop less; a packet is not sent on with none left.
fn decremented(ttl: u8) -> Result<u8, DropReason> {
    match ttl.checked_sub(1) {
        None | Some(0) => Err(DropReason::TtlExpired),
        Some(left) => Ok(left),
    }
}

fn tcp(segment: &mut [u8], addresses: Delta, translation: &Translation) -> Result<(), DropReason> {
    let (tcp, _) = Tcp::mut_from_prefix(segment).map_err(|_| DropReason::Truncated)?;
    let delta = ports(addresses, &mut tcp.source_port, &mut tcp.destination_port, translation);
    tcp.checksum = U16::new(delta.apply(tcp.checksum.get()));
    Ok(())
}

fn udp(segment: &mut [u8], addresses: Delta, translation: &Translation) -> Result<(), DropReason> {
    let (udp, _) = Udp::mut_from_prefix(segment).map_err(|_| DropReason::Truncated)?;
    let delta = ports(addresses, &mut udp.source_port, &mut udp.destination_port, translation);
    udp.checksum = U16::new(delta.apply_udp(udp.checksum.get()));
    Ok(())
}

fn ports(delta: Delta, source: &mut U16, destination: &mut U16, translation: &Translation) -> Delta {
    let delta =
        delta.u16(source.get(), translation.source_port).u16(destination.get(), translation.destination_port);
    *source = U16::new(translation.source_port);
    *destination = U16::new(translation.destination_port);
    delta
}

/// Writes the number of a tag that is there, keeps its priority.
fn set_vlan(frame: &mut [u8], vlan: u16) -> Result<(), DropReason> {
    let tag = frame.get_mut(ETHERNET_LEN..).ok_or(DropReason::Truncated)?;
    let (tag, _) = Tag::mut_from_prefix(tag).map_err(|_| DropReason::Truncated)?;
    tag.control = U16::new(tag.control.get() & 0xf000 | vlan & 0x0fff);
    Ok(())
}

fn insert_tag<B: PacketBuf>(buf: &mut B, headers: &mut Headers, vlan: u16) -> Result<(), DropReason> {
    let moved = moved(headers, |offset| offset.checked_add(TAG_LEN as u16))?;
    let len = buf.bytes().len();
    if !buf.set_len(len + TAG_LEN) {
        return Err(DropReason::NoBuffer);
    }
    let rest = buf.bytes_mut().get_mut(TAG_AT..).ok_or(DropReason::Malformed)?;
    let kept = rest.len().checked_sub(TAG_LEN).ok_or(DropReason::Malformed)?;
    rest.copy_within(..kept, TAG_LEN);
    let tag = [U16::new(ETHERTYPE_VLAN), U16::new(vlan & 0x0fff)];
    tag.write_to_prefix(rest).map_err(|_| DropReason::Malformed)?;
    *headers = moved;
    Ok(())
}

fn remove_tag<B: PacketBuf>(buf: &mut B, headers: &mut Headers) -> Result<(), DropReason> {
    let moved = moved(headers, |offset| offset.checked_sub(TAG_LEN as u16))?;
    let rest = buf.bytes_mut().get_mut(TAG_AT..).ok_or(DropReason::Malformed)?;
    let kept = rest.len().checked_sub(TAG_LEN).ok_or(DropReason::Malformed)?;
    rest.copy_within(TAG_LEN.., 0);
    *headers = moved;
    if buf.set_len(TAG_AT + kept) { Ok(()) } else { Err(DropReason::NoBuffer) }
}

/// `headers` with all offsets moved.
fn moved(headers: &Headers, by: impl Fn(u16) -> Option<u16>) -> Result<Headers, DropReason> {
    let by = |offset| by(offset).ok_or(DropReason::Malformed);
    Ok(Headers {
        l3: by(headers.l3)?,
        l4: by(headers.l4)?,
        payload: by(headers.payload)?,
        end: by(headers.end)?,
        ..*headers
    })
}

/// The segment or datagram in `frame` has become `added` bytes longer at its end (`headers.end` says so already): the
/// IP header follows, with its checksum. TCP's and UDP's own checksum is the business of whoever added the bytes.
///
/// # Errors
/// `Truncated`: `headers` does not come from this frame. `TooBig`: more than the length field can say.
pub fn lengthen(frame: &mut [u8], headers: &Headers, added: u16) -> Result<(), DropReason> {
    let packet = frame.get_mut(usize::from(headers.l3)..).ok_or(DropReason::Truncated)?;
    match headers.family {
        Family::V4 => {
            let (ip, _) = Ipv4::mut_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
            let before = ip.total_length.get();
            let after = before.checked_add(added).ok_or(DropReason::TooBig)?;
            ip.total_length = U16::new(after);
            let delta = Delta::default().u16(before, after);
            ip.checksum = U16::new(delta.apply(ip.checksum.get()));
        }
        Family::V6 => {
            let (ip, _) = Ipv6::mut_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
            let after = ip.payload_length.get().checked_add(added).ok_or(DropReason::TooBig)?;
            ip.payload_length = U16::new(after);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
