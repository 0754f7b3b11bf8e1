//! Capture files written byte by byte, and the conversations in them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader};

pub const CLIENT: &str = "198.51.100.7:4242";
pub const VIP: &str = "192.0.2.10:80";
pub const SERVER: &str = "10.0.0.30:80";

/// An IP packet with its time.
#[derive(Clone, Debug)]
pub struct Written {
    pub nanoseconds: u64,
    pub ip: Vec<u8>,
    pub payload: usize,
    pub from_server: bool,
    /// Bytes of the frame that are kept.
    pub snap: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Pcap { big: bool, nano: bool },
    Ng { big: bool, nano: bool },
}

#[derive(Clone, Copy, Debug)]
pub enum Link {
    Ethernet,
    Vlan,
    Sll,
    Sll2,
    Raw,
    Null,
    Other(u32),
}

/// A conversation as a capture beside the client would have it; a packet each 10 ms.
#[derive(Clone)]
pub struct Talk {
    client: SocketAddr,
    vip: SocketAddr,
    pub packets: Vec<Written>,
    client_seq: u32,
    server_seq: u32,
}

impl Talk {
    pub fn new<T: ToString>(client: &str, vip: T) -> Talk {
        Talk {
            client: client.parse().unwrap(),
            vip: vip.to_string().parse().unwrap(),
            packets: Vec::new(),
            client_seq: u32::MAX - 3,
            server_seq: 777_777,
        }
    }

    fn push(&mut self, from_server: bool, ip: Vec<u8>, payload: usize) {
        let nanoseconds = 1_700_000_000_000_000_000 + self.packets.len() as u64 * 10_000_000;
        self.packets.push(Written { nanoseconds, ip, payload, from_server, snap: None });
    }

    fn tcp(&mut self, from_server: bool, flags: &str, payload: &[u8]) {
        let (source, destination) =
            if from_server { (self.vip, self.client) } else { (self.client, self.vip) };
        let (seq, ack) =
            if from_server { (self.server_seq, self.client_seq) } else { (self.client_seq, self.server_seq) };
        let mut header = TcpHeader::new(source.port(), destination.port(), seq, 64000);
        header.acknowledgment_number = if flags.contains('A') { ack } else { 0 };
        header.syn = flags.contains('S');
        header.ack = flags.contains('A');
        header.fin = flags.contains('F');
        header.psh = !payload.is_empty();
        let length = payload.len() as u32 + u32::from(header.syn) + u32::from(header.fin);
        let ip = match (source.ip(), destination.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 64),
            other => panic!("{other:?}"),
        };
        let mut packet = Vec::new();
        ip.tcp_header(header).write(&mut packet, payload).unwrap();
        let seq = if from_server { &mut self.server_seq } else { &mut self.client_seq };
        *seq = seq.wrapping_add(length);
        self.push(from_server, packet, payload.len());
    }

    pub fn handshake(&mut self) {
        self.tcp(false, "S", b"");
        self.tcp(true, "SA", b"");
        self.tcp(false, "A", b"");
    }

    pub fn say(&mut self, payload: &[u8]) {
        self.tcp(false, "A", payload);
    }

    pub fn answer(&mut self, payload: &[u8]) {
        self.tcp(true, "A", payload);
        self.tcp(false, "A", b"");
    }

    pub fn end(&mut self) {
        self.tcp(false, "FA", b"");
        self.tcp(true, "FA", b"");
        self.tcp(false, "A", b"");
    }

    fn udp(&self, from_server: bool, payload: &[u8]) -> Vec<u8> {
        let (source, destination) =
            if from_server { (self.vip, self.client) } else { (self.client, self.vip) };
        let (IpAddr::V4(s), IpAddr::V4(d)) = (source.ip(), destination.ip()) else { panic!("IPv4 only") };
        let builder = PacketBuilder::ipv4(s.octets(), d.octets(), 64).udp(source.port(), destination.port());
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    pub fn datagram(&mut self, payload: &[u8], from_server: bool) {
        let packet = self.udp(from_server, payload);
        self.push(from_server, packet, payload.len());
    }

    /// A datagram in fragments of 1,000 bytes.
    pub fn fragments(&mut self, payload: &[u8]) {
        let whole = self.udp(false, payload);
        let (header, body) = whole.split_at(20);
        let count = body.len().div_ceil(1000);
        for (index, piece) in body.chunks(1000).enumerate() {
            let mut packet = header.to_vec();
            let more = if index + 1 < count { 0x2000u16 } else { 0 };
            packet[2..4].copy_from_slice(&u16::try_from(piece.len() + 20).unwrap().to_be_bytes());
            packet[4..6].copy_from_slice(&[7, 7]);
            packet[6..8].copy_from_slice(&(more | u16::try_from(index * 125).unwrap()).to_be_bytes());
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum: u32 = packet.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend_from_slice(piece);
            self.push(false, packet, 0);
        }
    }
}

/// A file of these packets.
pub fn file(packets: &[Written], kind: Kind, link: Link) -> Vec<u8> {
    match kind {
        Kind::Pcap { big, nano } => pcap(packets, big, nano, link),
        Kind::Ng { big, nano } => ng(packets, big, nano, link),
    }
}

struct Out {
    bytes: Vec<u8>,
    big: bool,
}

impl Out {
    fn u32(&mut self, value: u32) {
        self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }
}

fn pcap(packets: &[Written], big: bool, nano: bool, link: Link) -> Vec<u8> {
    let mut out = Out { bytes: Vec::new(), big };
    out.u32(if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
    out.u16(2);
    out.u16(4);
    out.u32(0);
    out.u32(0);
    out.u32(65535);
    out.u32(number(link));
    for packet in packets {
        let (frame, length) = framed(packet, link);
        let below = packet.nanoseconds % 1_000_000_000;
        out.u32(u32::try_from(packet.nanoseconds / 1_000_000_000).unwrap());
        out.u32(u32::try_from(if nano { below } else { below / 1000 }).unwrap());
        out.u32(u32::try_from(frame.len()).unwrap());
        out.u32(u32::try_from(length).unwrap());
        out.bytes.extend(frame);
    }
    out.bytes
}

fn ng(packets: &[Written], big: bool, nano: bool, link: Link) -> Vec<u8> {
    let mut out = Out { bytes: Vec::new(), big };
    out.u32(0x0a0d_0d0a);
    out.u32(28);
    out.u32(0x1a2b_3c4d);
    out.u16(1);
    out.u16(0);
    out.u32(u32::MAX);
    out.u32(u32::MAX);
    out.u32(28);
    // The interface; if_tsresol says nanoseconds where it is not the default.
    let length = if nano { 32 } else { 20 };
    out.u32(1);
    out.u32(length);
    out.u16(u16::try_from(number(link)).unwrap());
    out.u16(0);
    out.u32(0);
    if nano {
        out.u16(9);
        out.u16(1);
        out.bytes.extend([9, 0, 0, 0]);
        out.u32(0);
    }
    out.u32(length);
    for packet in packets {
        let (frame, original) = framed(packet, link);
        let units = if nano { packet.nanoseconds } else { packet.nanoseconds / 1000 };
        let padded = frame.len().div_ceil(4) * 4;
        let length = u32::try_from(32 + padded).unwrap();
        out.u32(6);
        out.u32(length);
        out.u32(0);
        out.u32(u32::try_from(units >> 32).unwrap());
        out.u32((units & 0xffff_ffff) as u32);
        out.u32(u32::try_from(frame.len()).unwrap());
        out.u32(u32::try_from(original).unwrap());
        let padding = padded - frame.len();
        out.bytes.extend(frame);
        out.bytes.extend(vec![0; padding]);
        out.u32(length);
    }
    out.bytes
}

fn number(link: Link) -> u32 {
    match link {
        Link::Ethernet | Link::Vlan => 1,
        Link::Sll => 113,
        Link::Sll2 => 276,
        Link::Raw => 101,
        Link::Null => 0,
        Link::Other(number) => number,
    }
}

/// What is kept of the frame, and how long it was.
fn framed(packet: &Written, link: Link) -> (Vec<u8>, usize) {
    let mut frame = match link {
        Link::Ethernet => [[0x22; 6], [0x44; 6]].concat().into_iter().chain([8, 0]).collect(),
        Link::Vlan => [[0x22; 6], [0x44; 6]].concat().into_iter().chain([0x81, 0, 0, 7, 8, 0]).collect(),
        Link::Sll => [[0; 14].as_slice(), &[8, 0]].concat(),
        Link::Sll2 => [[8, 0].as_slice(), &[0; 18]].concat(),
        Link::Raw | Link::Other(_) => Vec::new(),
        Link::Null => vec![2, 0, 0, 0],
    };
    frame.extend_from_slice(&packet.ip);
    let length = frame.len();
    frame.truncate(packet.snap.unwrap_or(length));
    (frame, length)
}
