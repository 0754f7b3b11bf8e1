//! Neighbours: whatever weir asks for by ARP or ND is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv6Type, PacketBuilder};

use crate::packet;

const ARP: u16 = 0x0806;
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// weir's own MAC address on a port.
#[must_use]
pub fn weir_mac(port: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, port]
}

/// The MAC address of a neighbour on a port.
#[must_use]
pub fn neighbor_mac(port: u8, address: IpAddr) -> [u8; 6] {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = match address {
        IpAddr::V4(address) => address.octets().iter().fold(0x811c_9dc5, mix),
        IpAddr::V6(address) => address.octets().iter().fold(0x811c_9dc5, mix),
    };
    let [_, a, b, c] = hash.to_be_bytes();
    [2, 0x4c, port, a, b, c]
}

/// What stands in a frame: the IP packet, or the answer of a neighbour that weir looks for.
pub(crate) enum Content<'a> {
    Packet(&'a [u8]),
    Answer(Vec<u8>),
    Nothing,
}

/// What a frame of weir's on a port is.
pub(crate) fn content<'a>(port: u8, vlan: Option<u16>, frame: &'a [u8]) -> Content<'a> {
    let link = if vlan.is_some() { 18 } else { 14 };
    let kind = frame.get(link - 2..link).and_then(|kind| <[u8; 2]>::try_from(kind).ok());
    let Some((kind, body)) = kind.zip(frame.get(link..)) else { return Content::Nothing };
    match u16::from_be_bytes(kind) {
        ARP => arp(port, vlan, body).map_or(Content::Nothing, Content::Answer),
        0x0800 => Content::Packet(body),
        0x86dd if body.get(6) == Some(&58) => match solicitation(port, vlan, body) {
            Some(answer) => Content::Answer(answer),
            None => Content::Packet(body),
        },
        0x86dd => Content::Packet(body),
        _ => Content::Nothing,
    }
}

/// The answer to an ARP request that asks for a neighbour (RFC 826).
fn arp(port: u8, vlan: Option<u16>, body: &[u8]) -> Option<Vec<u8>> {
    let body: &[u8; 28] = body.first_chunk()?;
    let [sender, wanted] = [body.get(14..18)?, body.get(24..28)?];
    if body.get(6..8)? != REQUEST || sender == wanted {
        return None;
    }
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(wanted).ok()?);
    let mac = neighbor_mac(port, address.into());
    let mut answer = body.get(..6)?.to_vec();
    answer.extend_from_slice(&REPLY);
    answer.extend_from_slice(&mac);
    answer.extend_from_slice(wanted);
    answer.extend_from_slice(body.get(8..18)?);
    Some(packet::framed(weir_mac(port), mac, vlan, ARP, &answer))
}

/// The answer to a neighbour solicitation (RFC 4861, 4.3 and 4.4); `None`: the packet is none.
fn solicitation(port: u8, vlan: Option<u16>, body: &[u8]) -> Option<Vec<u8>> {
    if body.get(40) != Some(&SOLICITATION) {
        return None;
    }
    let asker = Ipv6Addr::from(<[u8; 16]>::try_from(body.get(8..24)?).ok()?);
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(body.get(48..64)?).ok()?);
    if asker.is_unspecified() {
        return None;
    }
    let mac = neighbor_mac(port, target.into());
    let solicited = [0x60, 0, 0, 0];
    let mut rest = target.octets().to_vec();
    rest.extend_from_slice(&[2, 1]);
    rest.extend_from_slice(&mac);
    let kind = Icmpv6Type::Unknown { type_u8: ADVERTISEMENT, code_u8: 0, bytes5to8: solicited };
    let mut answer = Vec::new();
    PacketBuilder::ipv6(target.octets(), asker.octets(), 255).icmpv6(kind).write(&mut answer, &rest).ok()?;
    Some(packet::frame(weir_mac(port), mac, vlan, &answer))
}
