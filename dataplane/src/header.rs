//! Wire formats of the headers that weir reads and writes, as typed views over bytes.
//!
//! All are unaligned and without padding, fields in network byte order. A view checks nothing but its size:
//! [`crate::parse`] does the rest.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A MAC address.
pub type Mac = [u8; 6];

/// Destination of frames for everyone on the link.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Length of an Ethernet header without tag.
pub const ETHERNET_LEN: usize = 14;
/// Length of an 802.1Q tag.
pub const TAG_LEN: usize = 4;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// Length of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;

/// Ethernet II.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// What follows.
    pub ethertype: U16,
}

/// IEEE 802.1Q: what follows EtherType 0x8100.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub control: U16,
    /// What follows.
    pub ethertype: U16,
}

impl Tag {
    /// The VLAN identifier; 0 for a tag that carries a priority only.
    #[must_use]
    pub fn vlan(&self) -> u16 {
        self.control.get() & 0x0fff
    }
}

/// RFC 791, 3.1, without options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4 bits), header length in 32-bit words (4 bits).
    pub version_ihl: u8,
    /// Differentiated services (6 bits), ECN (2 bits).
    pub traffic_class: u8,
    /// Bytes of the packet, this header included.
    pub total_length: U16,
    /// Identification of fragments.
    pub identification: U16,
    /// Reserved, DF, MF (a bit each), fragment offset in 8-byte units (13 bits).
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Checksum of the header with options.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

/// RFC 8200, 3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_flow: U32,
    /// Bytes after this header, extension headers included.
    pub payload_length: U16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

/// RFC 9293, 3.1, without options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Header length in 32-bit words (upper 4 bits), reserved.
    pub data_offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN, from the upper bit on.
    pub flags: u8,
    /// Receive window, not scaled.
    pub window: U16,
    /// Checksum with pseudo header.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

/// RFC 768.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Bytes of the datagram, this header included.
    pub length: U16,
    /// Checksum with pseudo header; 0: none.
    pub checksum: U16,
}

/// True for an address that can be the source of a frame: neither a group nor all zeros.
#[must_use]
pub fn is_station(mac: Mac) -> bool {
    mac != [0; 6] && mac.first().is_some_and(|first| first & 1 == 0)
}
