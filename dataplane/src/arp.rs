//! ARP over Ethernet for IPv4 (RFC 826, RFC 5227).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::address::Address;
use crate::counters::DropReason;
use crate::frame::{Link, set_macs};
use crate::header::{BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, Mac, is_station};
use crate::io::{PacketBuf, PortId};
use crate::neighbor::{Evidence, Observation};

const ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const ANY: [u8; 4] = [0; 4];

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Arp {
    hardware: U16,
    protocol: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
}

/// What a valid ARP or ND message for weir asks for. Nothing at all is possible, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// For [`crate::neighbor::Neighbors::learn`].
    pub seen: Option<Observation>,
    /// The message is a question that [`reply`] or [`crate::nd::reply`] answers.
    pub reply: bool,
}

/// Reads the ARP message at `offset` ([`crate::parse::Packet::Arp`]) of a frame from `port`. `is_ours` tells which
/// addresses weir answers for there.
///
/// # Errors
/// `Truncated`. `Neighbor`: not ARP for IPv4 over Ethernet, an impossible sender, somebody who claims an address of
/// weir's, or a message between others.
pub fn receive(
    frame: &[u8],
    offset: u16,
    port: PortId,
    is_ours: impl Fn(PortId, Address) -> bool,
) -> Result<Received, DropReason> {
    let message = frame.get(usize::from(offset)..).ok_or(DropReason::Truncated)?;
    let (arp, _) = Arp::ref_from_prefix(message).map_err(|_| DropReason::Truncated)?;
    let (sender, target) = (Address::from_v4(arp.sender), Address::from_v4(arp.target));
    if !plausible(arp) || is_ours(port, sender) {
        return Err(DropReason::Neighbor);
    }
    let seen = |evidence| Some(Observation { port, address: sender, mac: Some(arp.sender_mac), evidence });
    let advertised = |solicited| seen(Evidence::Advertisement { solicited, overrides: true });
    match (arp.operation.get(), is_ours(port, target)) {
        // A host asks whether its future address is taken (RFC 5227, 2.1.1).
        (REQUEST, true) if arp.sender == ANY => Ok(Received { seen: None, reply: true }),
        (REQUEST, true) => Ok(Received { seen: seen(Evidence::Request), reply: true }),
        (REPLY, true) if arp.sender != ANY => Ok(Received { seen: advertised(true), reply: false }),
        (REQUEST | REPLY, false) if arp.sender == arp.target && arp.sender != ANY => {
            Ok(Received { seen: advertised(false), reply: false })
        }
        _ => Err(DropReason::Neighbor),
    }
}

/// Turns the request in `frame` into weir's reply. `own` is the port's MAC address.
///
/// # Errors
/// `Truncated`: there is no ARP message at `offset`.
pub fn reply(frame: &mut [u8], offset: u16, own: Mac) -> Result<(), DropReason> {
    let message = frame.get_mut(usize::from(offset)..).ok_or(DropReason::Truncated)?;
    let (arp, _) = Arp::mut_from_prefix(message).map_err(|_| DropReason::Truncated)?;
    let asker = arp.sender_mac;
    arp.operation = U16::new(REPLY);
    arp.target_mac = asker;
    arp.sender_mac = own;
    std::mem::swap(&mut arp.sender, &mut arp.target);
    set_macs(frame, own, asker)
}

/// Makes `buf` a request for `target`, sent by `source`. `link` says to whom: broadcast, or the MAC address that is to
/// be confirmed.
///
/// # Errors
/// `NoBuffer`: no room. `Malformed`: an address is not IPv4.
pub fn request<B: PacketBuf>(
    buf: &mut B,
    link: &Link,
    source: Address,
    target: Address,
) -> Result<(), DropReason> {
    let (Some(sender), Some(target)) = (source.v4(), target.v4()) else { return Err(DropReason::Malformed) };
    let at = link.header_len();
    if !buf.set_len(at + size_of::<Arp>()) {
        return Err(DropReason::NoBuffer);
    }
    let arp = Arp {
        hardware: U16::new(ETHERNET),
        protocol: U16::new(ETHERTYPE_IPV4),
        hardware_len: 6,
        protocol_len: 4,
        operation: U16::new(REQUEST),
        sender_mac: link.source_mac,
        sender,
        target_mac: [0; 6],
        target,
    };
    link.write(buf.bytes_mut(), ETHERTYPE_ARP).ok_or(DropReason::NoBuffer)?;
    let message = buf.bytes_mut().get_mut(at..).ok_or(DropReason::NoBuffer)?;
    arp.write_to_prefix(message).map_err(|_| DropReason::NoBuffer)
}

/// Makes `buf` the announcement of an own address to everyone on the link (RFC 5227, 2.3).
///
/// # Errors
/// `NoBuffer`: no room. `Malformed`: `address` is not IPv4.
pub fn announce<B: PacketBuf>(
    buf: &mut B,
    own: Mac,
    vlan: Option<u16>,
    address: Address,
) -> Result<(), DropReason> {
    request(buf, &Link { source_mac: own, destination_mac: BROADCAST, vlan }, address, address)
}

/// Formats are as expected, and the sender can be a station.
fn plausible(arp: &Arp) -> bool {
    let formats = (arp.hardware.get(), arp.protocol.get(), arp.hardware_len, arp.protocol_len);
    let sender =
        matches!(arp.sender, ANY) || !matches!(arp.sender, [0 | 127 | 224..=239, ..] | [255, 255, 255, 255]);
    formats == (ETHERNET, ETHERTYPE_IPV4, 6, 4) && is_station(arp.sender_mac) && sender
}

#[cfg(test)]
mod tests;
