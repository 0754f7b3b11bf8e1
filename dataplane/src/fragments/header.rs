//! What a fragment says of itself.

use zerocopy::FromBytes;

use crate::address::{Address, FlowKey};
use crate::counters::DropReason;
use crate::header::{
    ETHERTYPE_IPV4, IPV4_LEN, Ipv4, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, TCP_LEN, UDP_LEN,
};
use crate::parse;

/// More fragments follow (RFC 791, 3.1).
pub(super) const MORE: u16 = 0x2000;
/// The offset, in units of 8 bytes.
const OFFSET: u16 = 0x1fff;
/// Shortest ICMP message that is looked at.
const ICMP_LEN: usize = 8;

/// A fragment of an IPv4 packet in its frame.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    /// Source, destination, protocol, and the identification in the place of the source port (RFC 791, 3.2).
    pub key: FlowKey,
    /// The Ethernet header, with its tag.
    pub link: &'a [u8],
    /// The IP header, with its options.
    pub header: &'a [u8],
    /// What is behind it.
    pub payload: &'a [u8],
    /// Where the payload lies in that of the whole datagram, in bytes.
    pub offset: usize,
    /// It is not the last one.
    pub more: bool,
}

impl<'a> Fragment<'a> {
    /// Of a frame for which [`parse::parse`] has said [`DropReason::Fragment`]: its header is sound, its checksum right
    /// and its source a host. `None`: IPv6.
    #[must_use]
    pub fn read(frame: &'a [u8], vlan: Option<u16>) -> Option<Self> {
        let (_, l3) = parse::link(frame, vlan).ok().filter(|(kind, _)| *kind == ETHERTYPE_IPV4)?;
        let (link, packet) = frame.split_at_checked(l3)?;
        let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
        let header_len = usize::from(ip.version_ihl & 0x0f) * 4;
        let packet = packet.get(..usize::from(ip.total_length.get()))?;
        let (header, payload) = packet.split_at_checked(header_len.max(IPV4_LEN))?;
        let key = FlowKey {
            source: Address::from_v4(ip.source),
            destination: Address::from_v4(ip.destination),
            source_port: ip.identification.get(),
            protocol: ip.protocol,
            ..FlowKey::default()
        };
        let offset = usize::from(ip.fragment.get() & OFFSET) * 8;
        Some(Fragment { key, link, header, payload, offset, more: ip.fragment.get() & MORE != 0 })
    }

    /// Where the payload ends in that of the whole datagram.
    pub(super) fn end(&self) -> usize {
        self.offset + self.payload.len()
    }

    /// Refuses what no sender makes that means well: no byte at all, pieces that leave gaps, a first fragment without
    /// the whole header that decides about the packet (RFC 1858, 3; RFC 3128), more than `longest` bytes of packet.
    pub(super) fn check(&self, longest: usize) -> Result<(), DropReason> {
        let ragged = self.more && !self.payload.len().is_multiple_of(8);
        if self.payload.is_empty() || ragged || self.header.len() + self.end() > longest {
            return Err(DropReason::FragmentInvalid);
        }
        let needed = match (self.key.protocol, self.payload) {
            (PROTOCOL_UDP, _) => UDP_LEN,
            (PROTOCOL_ICMP, _) => ICMP_LEN,
            (PROTOCOL_TCP, [_, _, _, _, _, _, _, _, _, _, _, _, words, ..]) => {
                (usize::from(words >> 4) * 4).max(TCP_LEN)
            }
            (PROTOCOL_TCP, _) => TCP_LEN,
            _ => return Err(DropReason::Protocol),
        };
        if self.offset == 0 && self.payload.len() < needed {
            return Err(DropReason::FragmentInvalid);
        }
        Ok(())
    }
}
