use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options};
use smoltcp::time::{Duration, Instant};

use super::*;
use crate::counters::{Counters, DropReason};
use crate::io::{PacketBuf, PortId};
use crate::parse;

pub(super) const MEMORY: u32 = 1 << 20;
const SEED: u64 = 11;

/// One fragment as a test writes it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub id: u16,
    pub protocol: IpNumber,
    pub offset: usize,
    pub more: bool,
    pub payload: Vec<u8>,
    pub options: Vec<u8>,
    pub ecn: u8,
}

pub(super) fn piece(id: u16, offset: usize, more: bool, payload: &[u8]) -> Piece {
    let (payload, options) = (payload.to_vec(), Vec::new());
    Piece { id, protocol: IpNumber::UDP, offset, more, payload, options, ecn: 0 }
}

pub(super) fn frame(piece: &Piece) -> Vec<u8> {
    let (source, destination) = ([192, 0, 2, 100], [192, 0, 2, 10]);
    let length = u16::try_from(piece.payload.len()).unwrap();
    let mut header = Ipv4Header::new(length, 64, piece.protocol, source, destination).unwrap();
    header.options = Ipv4Options::try_from(piece.options.as_slice()).unwrap();
    header.set_payload_len(piece.payload.len()).unwrap();
    header.identification = piece.id;
    header.dont_fragment = false;
    header.more_fragments = piece.more;
    header.fragment_offset = IpFragOffset::try_new(u16::try_from(piece.offset / 8).unwrap()).unwrap();
    header.ecn = piece.ecn.try_into().unwrap();
    header.header_checksum = header.calc_header_checksum();
    let link = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    [&link[..], &[8, 0], &header.to_bytes(), &piece.payload].concat()
}

/// A pattern in which no two places look alike for long.
pub(super) fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n as u8).wrapping_mul(31) ^ (n >> 8) as u8 ^ seed).collect()
}

/// The payload cut into fragments of `size` bytes.
pub(super) fn cut(id: u16, payload: &[u8], size: usize) -> Vec<Piece> {
    let last = payload.len().div_ceil(size) - 1;
    payload.chunks(size).enumerate().map(|(n, chunk)| piece(id, n * size, n < last, chunk)).collect()
}

pub(super) struct Table {
    pub table: Reassembly,
    pub whole: Linear,
    pub counters: Counters,
    pub now: Instant,
}

impl Table {
    pub(super) fn new(memory: u32) -> Self {
        let (table, whole) = (Reassembly::new(memory, SEED), Linear::new());
        Table { table, whole, counters: Counters::default(), now: Instant::from_secs(1000) }
    }

    /// What becomes of a fragment: the payload of the datagram, if that is complete now.
    pub(super) fn add(&mut self, piece: &Piece) -> Result<Option<Vec<u8>>, DropReason> {
        let frame = frame(piece);
        let fragment = Fragment::read(&frame, None).unwrap();
        match self.table.add(self.now, &fragment, &mut self.whole, &mut self.counters)? {
            false => Ok(None),
            true => Ok(Some(self.judge())),
        }
    }

    fn judge(&self) -> Vec<u8> {
        let packet = &self.whole.bytes()[14..];
        let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), packet.len());
        assert!(!header.is_fragmenting_payload() && !header.dont_fragment);
        payload.to_vec()
    }

    fn complete(&mut self, pieces: &[Piece]) -> Option<Vec<u8>> {
        let mut results: Vec<_> = pieces.iter().map(|piece| self.add(piece).unwrap()).collect();
        let last = results.pop()?;
        assert!(results.iter().all(Option::is_none), "complete too early");
        last
    }
}

#[test]
fn the_fragments_of_a_datagram_are_its_bytes_in_any_order() {
    for (length, size) in [(16, 8), (3000, 1480), (8008, 1480), (65_497, 1480), (4096, 2048), (5000, 4992)] {
        for order in 0..3 {
            let mut table = Table::new(MEMORY);
            let payload = bytes(length, 7);
            let mut pieces = cut(9, &payload, size);
            match order {
                0 => {}
                1 => pieces.reverse(),
                _ => pieces.rotate_left(1),
            }
            assert_eq!(table.complete(&pieces), Some(payload), "{length} in {size}, order {order}");
            assert_eq!(table.table.in_use(), (0, 0));
            assert_eq!(table.counters, Counters { reassembled: 1, ..Counters::default() });
        }
    }
}

#[test]
fn datagrams_are_told_apart_by_addresses_protocol_and_identification() {
    let mut table = Table::new(MEMORY);
    let payloads: Vec<_> = (0..20u8).map(|n| bytes(2000, n)).collect();
    let all: Vec<Vec<_>> = payloads.iter().zip(0u16..).map(|(bytes, id)| cut(id, bytes, 800)).collect();
    for n in [2, 0] {
        all.iter().for_each(|pieces| assert_eq!(table.add(&pieces[n]), Ok(None)));
    }
    let mut other = all[0][1].clone();
    other.protocol = IpNumber::ICMP;
    assert_eq!(table.add(&other), Ok(None), "another protocol");
    for (pieces, payload) in all.iter().zip(&payloads) {
        assert_eq!(table.add(&pieces[1]), Ok(Some(payload.clone())));
    }
    assert_eq!(table.table.in_use(), (1, 1));
}

#[test]
fn a_fragment_that_comes_again_changes_nothing() {
    let mut table = Table::new(MEMORY);
    let payload = bytes(5000, 1);
    let pieces = cut(1, &payload, 1000);
    for piece in &pieces[1..] {
        assert_eq!(table.add(piece), Ok(None));
        assert_eq!(table.add(piece), Err(DropReason::FragmentRepeat));
    }
    assert_eq!(table.add(&pieces[0]), Ok(Some(payload)));
}

/// Each is the one that comes third, after the first two of three fragments of 800 bytes.
#[test]
fn what_overlaps_or_contradicts_ends_the_datagram_and_all_that_follows() {
    let payload = bytes(2400, 1);
    let other = bytes(2400, 2);
    let bad = [
        piece(1, 400, true, &payload[400..1200]),
        piece(1, 792, true, &payload[792..800]),
        piece(1, 0, true, &payload[..1600]),
        piece(1, 8, true, &payload[8..16]),
        piece(1, 800, true, &other[800..1600]),
        piece(1, 800, false, &payload[800..1600]),
        piece(1, 800, false, &payload[800..1000]),
        piece(1, 1592, false, &payload[1592..2400]),
    ];
    for bad in bad {
        let mut table = Table::new(MEMORY);
        let pieces = cut(1, &payload, 800);
        assert_eq!(table.complete(&pieces[..2]), None);
        assert_eq!(table.add(&bad), Err(DropReason::FragmentOverlap), "{bad:?}");
        assert_eq!(table.table.in_use(), (1, 0), "its memory is free");
        assert_eq!(
            table.add(&pieces[2]),
            Err(DropReason::FragmentOverlap),
            "not received yet, and given up too"
        );
        assert_eq!(table.counters, Counters::default());
        table.now += TIMEOUT;
        let expired = table.table.pop_expired(table.now).unwrap();
        assert!(expired.refused && expired.first.is_empty());
        assert_eq!(table.complete(&pieces), Some(payload.clone()), "the identification is free again");
    }
}

#[test]
fn the_end_of_a_datagram_stays_where_it_was_said_to_be() {
    let payload = bytes(2400, 1);
    let pieces = cut(1, &payload, 800);
    let bad = [
        piece(1, 2400, true, &[0; 8]),
        piece(1, 2400, false, &[0; 8]),
        piece(1, 1600, true, &payload[1600..]),
        piece(1, 1584, true, &bytes(816, 1)),
        piece(1, 800, false, &payload[800..1600]),
    ];
    for bad in bad {
        let mut table = Table::new(MEMORY);
        assert_eq!(table.add(&pieces[2]), Ok(None));
        assert_eq!(table.add(&bad), Err(DropReason::FragmentOverlap), "{bad:?}");
    }
}

#[test]
fn what_nobody_sends_who_means_well_is_refused_alone() {
    let tcp = |length: usize, words: u8| {
        let mut first = piece(1, 0, true, &vec![words << 4; length]);
        first.protocol = IpNumber::TCP;
        first
    };
    let mut gre = piece(1, 0, true, &[0; 800]);
    gre.protocol = IpNumber::GRE;
    use DropReason::{FragmentInvalid, Protocol};
    for (bad, reason) in [
        (piece(1, 0, true, &[]), FragmentInvalid),
        (piece(1, 8, false, &[]), FragmentInvalid),
        (piece(1, 0, true, &[0; 801]), FragmentInvalid),
        (tcp(8, 5), FragmentInvalid),
        (tcp(16, 5), FragmentInvalid),
        (tcp(24, 7), FragmentInvalid),
        (tcp(56, 15), FragmentInvalid),
        (piece(1, 65_496, false, &[0; 2]), FragmentInvalid),
        (piece(1, 65_528, true, &[0; 1480]), FragmentInvalid),
        (gre, Protocol),
    ] {
        let mut table = Table::new(MEMORY);
        assert_eq!(table.add(&bad), Err(reason), "{bad:?}");
        assert_eq!(table.table.in_use(), (0, 0));
    }
    let mut table = Table::new(MEMORY);
    for good in [tcp(24, 5), tcp(64, 15)] {
        assert_eq!(table.add(&Piece { id: good.payload.len() as u16, ..good }), Ok(None));
    }
}

#[test]
fn a_datagram_has_at_most_so_many_fragments() {
    let mut table = Table::new(MEMORY);
    let payload = bytes(MOST_PIECES * 8, 1);
    assert_eq!(table.complete(&cut(1, &payload, 8)), Some(payload));
    let pieces = cut(2, &bytes(MOST_PIECES * 8 + 8, 1), 8);
    assert_eq!(table.complete(&pieces[..MOST_PIECES]), None);
    assert_eq!(table.add(&pieces[MOST_PIECES]), Err(DropReason::FragmentInvalid));
    assert_eq!(table.table.in_use(), (1, 0));
}

#[test]
fn at_the_bound_the_oldest_gives_way() {
    let units = 40;
    let mut table = Table::new((units * UNIT) as u32);
    let firsts: Vec<_> = (0..60u16).map(|id| cut(id, &bytes(1600, id as u8), 800)).collect();
    firsts.iter().for_each(|pieces| assert_eq!(table.add(&pieces[0]), Ok(None)));
    assert_eq!(table.table.in_use(), (units, units));
    assert_eq!(table.counters.fragments_evicted, 20);
    for (id, pieces) in firsts.iter().enumerate().skip(20) {
        assert_eq!(table.add(&pieces[1]), Ok(Some(bytes(1600, id as u8))));
    }
    assert_eq!(table.table.in_use(), (0, 0));
}

#[test]
fn a_large_datagram_pushes_out_as_many_as_it_needs_and_one_that_is_too_large_itself() {
    let mut table = Table::new((40 * UNIT) as u32);
    for id in 0..40 {
        assert_eq!(table.add(&piece(id, 0, true, &[0; 800])), Ok(None));
    }
    let payload = bytes(65_000, 3);
    assert_eq!(table.complete(&cut(99, &payload, 1480)), Some(payload.clone()));
    assert_eq!(table.counters.fragments_evicted, 32);
    assert_eq!(table.table.in_use(), (8, 8));

    let mut table = Table::new((4 * UNIT) as u32);
    let pieces = cut(1, &payload, 1480);
    let refused = pieces.iter().filter(|piece| table.add(piece) == Err(DropReason::NoBuffer)).count();
    assert!(refused >= 7, "{refused}");
    assert_eq!(table.counters.fragments_evicted, refused as u64);
    assert_eq!(table.counters.reassembled, 0);
}

/// As docs/configuration.md says.
#[test]
fn a_datagram_costs_no_more_than_is_said() {
    let units = |memory: usize| memory / UNIT;
    assert!(units(4 << 20) >= 1600, "{UNIT} bytes each");
    assert_eq!(units(4 << 20) / 32, 50, "of the largest");
}

#[test]
fn without_memory_nothing_is_taken() {
    for memory in [0, UNIT as u32 - 1] {
        let mut table = Table::new(memory);
        assert!(!table.table.is_enabled());
        assert_eq!(table.add(&piece(1, 0, true, &[0; 800])), Err(DropReason::Fragment));
        assert!(table.table.pop_expired(table.now).is_none());
    }
}

#[test]
fn time_runs_from_the_first_fragment_that_came() {
    let mut table = Table::new(MEMORY);
    let (one, two) = (cut(1, &bytes(3000, 1), 1000), cut(2, &bytes(3000, 2), 1000));
    assert_eq!(table.add(&one[1]), Ok(None));
    table.now += Duration::from_secs(10);
    assert_eq!(table.add(&two[0]), Ok(None));
    assert_eq!(table.add(&one[2]), Ok(None));
    table.now += Duration::from_millis(19_999);
    assert!(table.table.pop_expired(table.now).is_none());
    table.now += Duration::from_millis(1);
    let expired = table.table.pop_expired(table.now).unwrap();
    assert_eq!((expired.key.source_port, expired.first.len(), expired.refused), (1, 0, false));
    assert!(table.table.pop_expired(table.now).is_none());
    table.now += Duration::from_secs(10);
    let expired = table.table.pop_expired(table.now).unwrap();
    assert_eq!(expired.first[..], frame(&two[0])[14..14 + 548], "the first fragment, as it came");
    assert_eq!(table.table.in_use(), (0, 0));
}

#[test]
fn ecn_marks_are_joined() {
    // RFC 3168, 5.3.
    for (first, second, whole) in
        [(0, 0, Some(0)), (2, 2, Some(2)), (1, 2, Some(1)), (2, 3, Some(3)), (3, 2, Some(3)), (3, 0, None)]
    {
        let mut table = Table::new(MEMORY);
        let mut pieces = cut(1, &bytes(1600, 1), 800);
        (pieces[0].ecn, pieces[1].ecn) = (first, second);
        assert_eq!(table.add(&pieces[0]), Ok(None));
        let result = table.add(&pieces[1]);
        match whole {
            Some(ecn) => assert_eq!((result.is_ok(), table.whole.bytes()[15] & 3), (true, ecn)),
            None => assert_eq!(result, Err(DropReason::FragmentInvalid)),
        }
        assert_eq!(table.table.in_use(), (0, 0));
    }
}

/// A record route, which stays in the first fragment, between two that go into all.
const OPTIONS: [u8; 16] = [0x88, 4, 1, 2, 1, 7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0];

fn outgoing() -> Outgoing {
    Outgoing::new(SEED)
}

const WAY: Way = Way { port: PortId(1), unresolved: None };

/// The IP packets that a frame leaves as.
fn leave(outgoing: &mut Outgoing, frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    outgoing.push(frame, WAY, mtu).unwrap();
    let mut buf = Linear::new();
    std::iter::from_fn(|| {
        assert_eq!(outgoing.poll(&mut buf)?, Ok(WAY));
        assert_eq!(buf.bytes()[..14], frame[..14]);
        Some(buf.bytes()[14..].to_vec())
    })
    .collect()
}

#[test]
fn what_is_cut_is_what_it_was_when_it_is_put_together() {
    for (length, mtu, options) in [
        (2000, 1500, &[][..]),
        (8008, 1500, &OPTIONS),
        (65_481, 577, &OPTIONS),
        (1480, 1500, &[]),
        (1481, 1500, &[]),
    ] {
        let payload = bytes(length, 5);
        let whole = Piece { options: options.to_vec(), ..piece(77, 0, false, &payload) };
        let packets = leave(&mut outgoing(), &frame(&whole), mtu);
        let room = (usize::from(mtu) - 20 - options.len()) & !7;
        assert_eq!(packets.len(), if length > 1480 { length.div_ceil(room) } else { 1 });
        let mut joined = Vec::new();
        let (first, _) = Ipv4Header::from_slice(&packets[0]).unwrap();
        for (n, packet) in packets.iter().enumerate() {
            let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
            assert!(packet.len() <= usize::from(mtu));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), packet.len());
            assert_eq!(usize::from(header.fragment_offset.value()) * 8, joined.len());
            assert_eq!(header.more_fragments, n + 1 < packets.len());
            assert_eq!((header.identification, header.time_to_live), (first.identification, 64));
            let blank = [&OPTIONS[..5], &[1; 7], &OPTIONS[12..]].concat();
            let wanted = if n == 0 { options } else { &blank[..options.len()] };
            assert_eq!(header.options.as_slice(), wanted);
            joined.extend_from_slice(payload);
        }
        assert_eq!(joined, payload);
        assert_ne!(first.identification, 77);
    }
}

#[test]
fn identifications_of_two_hosts_come_back_only_after_all_others() {
    let mut outgoing = outgoing();
    let frame = frame(&piece(1, 0, false, &[0; 100]));
    let mut seen = std::collections::HashSet::new();
    for _ in 0..=u16::MAX {
        let packet = leave(&mut outgoing, &frame, 1500).remove(0);
        assert!(seen.insert([packet[4], packet[5]]));
    }
}

#[test]
fn too_much_at_once_is_refused_and_room_comes_back() {
    let mut outgoing = outgoing();
    let frame = frame(&piece(1, 0, false, &[0; 65_000]));
    let pushed = (0..100).take_while(|_| outgoing.push(&frame, WAY, 1500) == Ok(true)).count();
    assert_eq!(pushed, (1 << 20) / frame.len());
    assert_eq!(outgoing.push(&frame, WAY, 1500), Err(DropReason::NoBuffer));
    let mut buf = Linear::new();
    let left = std::iter::from_fn(|| outgoing.poll(&mut buf)).count();
    assert_eq!((left, outgoing.is_empty()), (pushed * 44, true));
    assert_eq!(outgoing.push(&frame, WAY, 1500), Ok(true));
    // A buffer that is too small loses this packet, not those behind it.
    outgoing.push(&frame, WAY, 1500).unwrap();
    assert_eq!(outgoing.poll(&mut Linear::default()), Some(Err(DropReason::NoBuffer)));
    assert_eq!(std::iter::from_fn(|| outgoing.poll(&mut buf)).count(), 44);
}

#[test]
fn frames_that_are_no_ipv4_packets_are_refused() {
    let mut outgoing = outgoing();
    let good = frame(&piece(1, 0, false, &[0; 2000]));
    assert_eq!(outgoing.push(&good[..30], WAY, 1500), Err(DropReason::Truncated));
    assert_eq!(outgoing.push(&good[..1000], WAY, 1500), Err(DropReason::Truncated));
    assert_eq!(outgoing.push(&good, WAY, 27), Err(DropReason::TooBig));
    let mut six = good.clone();
    six[14] = 0x65;
    assert_eq!(outgoing.push(&six, WAY, 1500), Err(DropReason::Malformed));
    assert!(outgoing.is_empty());
}

#[test]
fn fragments_are_read_behind_a_tag_and_not_of_ipv6() {
    let plain = frame(&piece(0x1234, 800, true, &[7; 16]));
    assert_eq!(parse::parse(&plain, None), Err(DropReason::Fragment));
    let tagged = [&plain[..12], &[0x81, 0, 0, 9], &plain[12..]].concat();
    for (frame, vlan, link) in [(&plain, None, 14), (&tagged, Some(9), 18)] {
        let fragment = Fragment::read(frame, vlan).unwrap();
        assert_eq!((fragment.offset, fragment.more, fragment.payload), (800, true, &[7; 16][..]));
        assert_eq!(
            (fragment.key.source_port, fragment.link.len(), fragment.header.len()),
            (0x1234, link, 20)
        );
    }
    assert!(Fragment::read(&tagged, None).is_none());
    let mut six = plain.clone();
    six[12..14].copy_from_slice(&[0x86, 0xdd]);
    assert!(Fragment::read(&six, None).is_none());
}
