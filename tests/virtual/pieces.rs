//! IPv4 packets in fragments, as hosts send them and put them together. It shares no code with weir.

use std::collections::HashMap;

use etherparse::{IpFragOffset, Ipv4Header};

/// The fragments of a packet, each with `size` bytes of payload (a multiple of 8) but the last.
pub fn cut(packet: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
    assert!(size.is_multiple_of(8));
    let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
    let last = payload.len().div_ceil(size).max(1) - 1;
    let fragment = |(n, chunk): (usize, &[u8])| part(&header, n * size, n < last, chunk, identification);
    payload.chunks(size).enumerate().map(fragment).collect()
}

/// One fragment.
pub fn part(header: &Ipv4Header, offset: usize, more: bool, payload: &[u8], identification: u16) -> Vec<u8> {
    let mut header = header.clone();
    header.set_payload_len(payload.len()).unwrap();
    header.fragment_offset = IpFragOffset::try_new(u16::try_from(offset / 8).unwrap()).unwrap();
    (header.more_fragments, header.dont_fragment) = (more, false);
    header.identification = identification;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// The packet with or without DF.
pub fn with_df(packet: &[u8], df: bool) -> Vec<u8> {
    let (mut header, payload) = Ipv4Header::from_slice(packet).unwrap();
    header.dont_fragment = df;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

type Key = (u8, [u8; 4], [u8; 4], u8, u16);

/// What hosts have of packets that are not complete: by port, addresses, protocol and identification.
#[derive(Default)]
pub struct Joiner {
    parts: HashMap<Key, Vec<Vec<u8>>>,
    /// Of the packets that were put together.
    pub identifications: Vec<u16>,
}

impl Joiner {
    /// The frame, or the whole one that its packet makes with those that came before, and how many they are.
    pub fn join(&mut self, port: u8, frame: &[u8]) -> Option<(Vec<u8>, usize)> {
        let link = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
        if frame[link - 2..link] != [8, 0] {
            return Some((frame.to_vec(), 1));
        }
        let (mut header, _) = Ipv4Header::from_slice(&frame[link..]).unwrap();
        if !header.is_fragmenting_payload() {
            return Some((frame.to_vec(), 1));
        }
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let payload = &frame[link + header.header_len()..link + usize::from(header.total_len)];
        let key = (port, header.source, header.destination, header.protocol.0, header.identification);
        let parts = self.parts.entry(key).or_default();
        let offset = usize::from(header.fragment_offset.value()) * 8;
        assert_eq!(offset, parts.iter().map(Vec::len).sum::<usize>(), "in order");
        parts.push(payload.to_vec());
        if header.more_fragments {
            return None;
        }
        let parts = self.parts.remove(&key)?;
        self.identifications.push(header.identification);
        let payload = parts.concat();
        header.set_payload_len(payload.len()).unwrap();
        header.fragment_offset = IpFragOffset::default();
        header.header_checksum = header.calc_header_checksum();
        Some(([&frame[..link], &header.to_bytes(), &payload].concat(), parts.len()))
    }

    /// Packets that are not complete.
    pub fn waiting(&self) -> usize {
        self.parts.len()
    }
}
