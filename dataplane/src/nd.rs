//! Neighbour discovery for IPv6 over Ethernet (RFC 4861): solicitations and advertisements.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::address::Address;
use crate::arp::Received;
use crate::counters::DropReason;
use crate::frame::{Ip, Link, build, multicast_mac};
use crate::header::{ETHERNET_LEN, Ethernet, Mac, PROTOCOL_ICMPV6, Tag, is_station};
use crate::io::{PacketBuf, PortId};
use crate::neighbor::{Evidence, Observation};
use crate::parse::{Headers, l4_checksum_ok};

/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const SOLICITED: u32 = 1 << 30;
const OVERRIDE: u32 = 1 << 29;
/// No router has forwarded the packet.
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Address = Address([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const UNSPECIFIED: Address = Address([0; 16]);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: U16,
    flags: U32,
    target: [u8; 16],
}

/// A link-layer address option of Ethernet (RFC 2464, 6).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LinkAddress {
    kind: u8,
    /// In units of 8 bytes.
    length: u8,
    mac: Mac,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Complete {
    message: Message,
    option: LinkAddress,
}

/// Reads a solicitation or an advertisement from `port`. `is_ours` tells which addresses weir answers for there.
///
/// # Errors
/// `L4Checksum`. `Neighbor`: a check of RFC 4861, 7.1 fails, somebody claims an address of weir's, or the solicitation
/// is for somebody else.
pub fn receive(
    frame: &[u8],
    headers: &Headers,
    port: PortId,
    is_ours: impl Fn(PortId, Address) -> bool,
) -> Result<Received, DropReason> {
    if !l4_checksum_ok(frame, headers) {
        return Err(DropReason::L4Checksum);
    }
    let message = frame.get(headers.l4_range()).ok_or(DropReason::Neighbor)?;
    let (message, options) = Message::ref_from_prefix(message).map_err(|_| DropReason::Neighbor)?;
    let target = Address(message.target);
    if headers.ttl != HOP_LIMIT || message.code != 0 || multicast(target) || target.is_v4() {
        return Err(DropReason::Neighbor);
    }
    match message.kind {
        SOLICITATION if is_ours(port, target) && !is_ours(port, headers.key.source) => {
            solicitation(headers, port, target, options)
        }
        ADVERTISEMENT if !is_ours(port, target) => advertisement(headers, port, message, options),
        _ => Err(DropReason::Neighbor),
    }
}

/// Makes the solicitation in `buf` the advertisement that answers it (RFC 4861, 7.2.4). `own` is the port's MAC
/// address.
///
/// # Errors
/// `Truncated`: `headers` does not come from this frame. `NoBuffer`: no room.
pub fn reply<B: PacketBuf>(buf: &mut B, headers: &Headers, own: Mac) -> Result<(), DropReason> {
    let frame = buf.bytes();
    let (ethernet, rest) = Ethernet::ref_from_prefix(frame).map_err(|_| DropReason::Truncated)?;
    let asker = ethernet.source;
    let vlan = match usize::from(headers.l3) {
        ETHERNET_LEN => None,
        _ => Tag::ref_from_prefix(rest).ok().map(|(tag, _)| tag.vlan()).filter(|vlan| *vlan != 0),
    };
    let message = frame.get(headers.l4_range()).ok_or(DropReason::Truncated)?;
    let (message, _) = Message::ref_from_prefix(message).map_err(|_| DropReason::Truncated)?;
    let target = Address(message.target);
    // Who asks without an address listens to all nodes.
    let (destination, destination_mac, flags) = match headers.key.source {
        source if source == UNSPECIFIED => (ALL_NODES, multicast_mac(ALL_NODES), OVERRIDE),
        source => (source, asker, SOLICITED | OVERRIDE),
    };
    let link = Link { source_mac: own, destination_mac, vlan };
    advertise(buf, &link, target, destination, flags)
}

/// Makes `buf` the announcement of an own address to all nodes on the link (RFC 4861, 7.2.6).
///
/// # Errors
/// `NoBuffer`: no room. `Malformed`: `address` is not IPv6.
pub fn announce<B: PacketBuf>(
    buf: &mut B,
    own: Mac,
    vlan: Option<u16>,
    address: Address,
) -> Result<(), DropReason> {
    let link = Link { source_mac: own, destination_mac: multicast_mac(ALL_NODES), vlan };
    advertise(buf, &link, address, ALL_NODES, OVERRIDE)
}

/// Makes `buf` a solicitation for `target` by `source`: to its MAC address if that is to be confirmed, else to its
/// solicited-node group (RFC 4291, 2.7.1).
///
/// # Errors
/// `NoBuffer`: no room. `Malformed`: an address is not IPv6.
pub fn solicit<B: PacketBuf>(
    buf: &mut B,
    own: Mac,
    vlan: Option<u16>,
    source: Address,
    target: Address,
    mac: Option<Mac>,
) -> Result<(), DropReason> {
    let group = solicited_node(target);
    let (destination, destination_mac) = match mac {
        Some(mac) => (target, mac),
        None => (group, multicast_mac(group)),
    };
    let link = Link { source_mac: own, destination_mac, vlan };
    let option = LinkAddress { kind: SOURCE_LINK_ADDRESS, length: 1, mac: own };
    write(buf, &link, (source, destination), SOLICITATION, 0, target, option)
}

fn advertise<B: PacketBuf>(
    buf: &mut B,
    link: &Link,
    target: Address,
    destination: Address,
    flags: u32,
) -> Result<(), DropReason> {
    let option = LinkAddress { kind: TARGET_LINK_ADDRESS, length: 1, mac: link.source_mac };
    write(buf, link, (target, destination), ADVERTISEMENT, flags, target, option)
}

fn write<B: PacketBuf>(
    buf: &mut B,
    link: &Link,
    (source, destination): (Address, Address),
    kind: u8,
    flags: u32,
    target: Address,
    option: LinkAddress,
) -> Result<(), DropReason> {
    if source.is_v4() || target.is_v4() {
        return Err(DropReason::Malformed);
    }
    let message = Message { kind, code: 0, checksum: U16::ZERO, flags: U32::new(flags), target: target.0 };
    let ip = Ip { source, destination, protocol: PROTOCOL_ICMPV6, ttl: HOP_LIMIT, identification: 0 };
    let complete = Complete { message, option };
    build(buf, link, &ip, size_of::<Complete>(), |segment| {
        complete.write_to(segment).map_or(0, |()| size_of::<Complete>())
    })
}

/// RFC 4861, 7.1.1 and 7.2.3.
fn solicitation(
    headers: &Headers,
    port: PortId,
    target: Address,
    options: &[u8],
) -> Result<Received, DropReason> {
    let source = headers.key.source;
    let mac = link_address(options, SOURCE_LINK_ADDRESS)?;
    if source == UNSPECIFIED {
        let valid = mac.is_none() && headers.key.destination == solicited_node(target);
        return if valid { Ok(Received { seen: None, reply: true }) } else { Err(DropReason::Neighbor) };
    }
    let seen =
        mac.map(|mac| Observation { port, address: source, mac: Some(mac), evidence: Evidence::Request });
    Ok(Received { seen, reply: true })
}

/// RFC 4861, 7.1.2 and 7.2.5.
fn advertisement(
    headers: &Headers,
    port: PortId,
    message: &Message,
    options: &[u8],
) -> Result<Received, DropReason> {
    let flags = message.flags.get();
    let (solicited, overrides) = (flags & SOLICITED != 0, flags & OVERRIDE != 0);
    if solicited && multicast(headers.key.destination) {
        return Err(DropReason::Neighbor);
    }
    let seen = Observation {
        port,
        address: Address(message.target),
        mac: link_address(options, TARGET_LINK_ADDRESS)?,
        evidence: Evidence::Advertisement { solicited, overrides },
    };
    Ok(Received { seen: Some(seen), reply: false })
}

/// The MAC address in the option `wanted`; all options must have sane lengths.
fn link_address(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, DropReason> {
    let mut found = None;
    while let [kind, length, ..] = options {
        let (option, rest) =
            options.split_at_checked(usize::from(*length) * 8).ok_or(DropReason::Neighbor)?;
        if option.is_empty() {
            return Err(DropReason::Neighbor);
        }
        if *kind == wanted {
            let address = LinkAddress::ref_from_bytes(option).map_err(|_| DropReason::Neighbor)?;
            found = Some(address.mac).filter(|mac| is_station(*mac));
            if found.is_none() {
                return Err(DropReason::Neighbor);
            }
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(DropReason::Neighbor) }
}

fn solicited_node(target: Address) -> Address {
    let [.., a, b, c] = target.0;
    Address([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn multicast(address: Address) -> bool {
    matches!(address.0, [0xff, ..])
}

#[cfg(test)]
mod tests;
