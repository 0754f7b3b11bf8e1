use super::*;
use crate::segment::SackBlock;
use crate::{Options, Segment};
use etherparse::TcpHeader;
use proptest::prelude::*;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const VIP: [u8; 4] = [198, 51, 100, 9];

/// The right checksum, computed by somebody else from the whole segment.
fn full_checksum(bytes: &[u8]) -> u16 {
    let (header, payload) = TcpHeader::from_slice(bytes).unwrap();
    header.calc_checksum_ipv4_raw(CLIENT, VIP, payload).unwrap()
}

fn stored_checksum(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[16], bytes[17]])
}

fn on_wire(segment: &Segment<'_>) -> Vec<u8> {
    let mut bytes = vec![0; segment.wire_len()];
    segment.emit(4321, 80, &mut bytes).unwrap();
    let checksum = full_checksum(&bytes);
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn applied(splice: &Splice, from: Side, segment: &Segment<'_>) -> Vec<u8> {
    let mut bytes = on_wire(segment);
    splice.apply(from, &mut bytes).unwrap();
    assert_eq!(stored_checksum(&bytes), full_checksum(&bytes));
    bytes
}

prop_compose! {
    fn any_segment()(
        seq: u32, ack: u32, flags: u8, window: u16, urgent: u16,
        timestamps: Option<(u32, u32)>, sack in proptest::collection::vec(any::<(u32, u32)>(), 0..4),
        payload in proptest::collection::vec(any::<u8>(), 0..50),
    ) -> (Segment<'static>, Vec<u8>) {
        let sack = sack.into_iter().map(|(l, r)| SackBlock { left: l.into(), right: r.into() }).collect();
        let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
        let options = Options { timestamps, sack, ..Options::default() };
        let flags = Flags(flags) | Flags::ACK;
        (Segment { seq: seq.into(), ack: ack.into(), flags, window, urgent, options, payload: &[] }, payload)
    }
}

fn splice(sequence_delta: u32, timestamp_delta: u32) -> Splice {
    Splice { sequence_delta, timestamp_delta, flags: TIMESTAMPS, ..Splice::default() }
}

fn side(client: bool) -> Side {
    if client { Side::Client } else { Side::Server }
}

proptest! {
    #![proptest_config(crate::seeded(256))]

    #[test]
    fn numbers_shift_and_the_rest_stays(parts in any_segment(), sequence: u32, clock: u32, client: bool) {
        let segment = Segment { payload: &parts.1, ..parts.0 };
        let bytes = applied(&splice(sequence, clock), side(client), &segment);
        let mut expected = segment.clone();
        if client {
            expected.ack = expected.ack.receded(sequence);
            for block in &mut expected.options.sack {
                *block = SackBlock { left: block.left.receded(sequence), right: block.right.receded(sequence) };
            }
            if let Some(timestamps) = &mut expected.options.timestamps {
                timestamps.echo = timestamps.echo.wrapping_sub(clock);
            }
        } else {
            expected.seq = expected.seq.advanced(sequence);
            if let Some(timestamps) = &mut expected.options.timestamps {
                timestamps.value = timestamps.value.wrapping_add(clock);
            }
        }
        prop_assert_eq!(Segment::parse(&bytes).unwrap(), expected);
    }

    #[test]
    fn there_and_back_is_no_change(parts in any_segment(), sequence: u32, clock: u32, client: bool) {
        let bytes = on_wire(&Segment { payload: &parts.1, ..parts.0 });
        let mut changed = bytes.clone();
        splice(sequence, clock).apply(side(client), &mut changed).unwrap();
        splice(sequence.wrapping_neg(), clock.wrapping_neg()).apply(side(client), &mut changed).unwrap();
        prop_assert_eq!(changed, bytes);
    }

    /// A server that numbers and clocks its stream by itself, and a client that knows it only through the splice: what
    /// the client acknowledges, and echoes, is what the server has sent, and the client's clock never goes back
    /// (RFC 7323, 5).
    #[test]
    fn a_conversation_across_the_wrap_is_understood_at_both_ends(
        isn in u32::MAX - 3000..=u32::MAX, server_isn in prop_oneof![any::<u32>(), u32::MAX - 3000..=u32::MAX],
        clock: u32, delta: u32, turns in proptest::collection::vec((0u32..1400, 0u32..5000), 1..20),
    ) {
        let splice = splice(isn.wrapping_sub(server_isn), delta);
        let (mut sent, mut ticks, mut seen) = (0u32, 0u32, None::<u32>);
        for (length, pause) in turns {
            ticks += pause;
            let options = Options {
                timestamps: Some(Timestamps { value: clock.wrapping_add(ticks), echo: 1 }), ..Options::default()
            };
            let payload = vec![7; length as usize];
            let seq = SeqNumber::new(server_isn.wrapping_add(sent));
            let data = Segment { seq, flags: Flags::ACK, options, payload: &payload, ..Segment::default() };
            let data = applied(&splice, Side::Server, &data);
            let data = Segment::parse(&data).unwrap();
            prop_assert_eq!(data.seq.value(), isn.wrapping_add(sent));
            let value = data.options.timestamps.unwrap().value;
            prop_assert!(seen.is_none_or(|seen| value.wrapping_sub(seen) as i32 >= 0));
            seen = Some(value);
            sent += length;
            let block = SackBlock { left: data.seq, right: data.seq.advanced(length) };
            let options = Options {
                timestamps: Some(Timestamps { value: 1, echo: value }), sack: [block].into_iter().collect(),
                ..Options::default()
            };
            let ack = data.seq.advanced(length);
            let ack = applied(&splice, Side::Client, &Segment { ack, flags: Flags::ACK, options, ..Segment::default() });
            let ack = Segment::parse(&ack).unwrap();
            prop_assert_eq!(ack.ack.value(), server_isn.wrapping_add(sent));
            prop_assert_eq!(ack.options.sack[0], SackBlock { left: seq, right: seq.advanced(length) });
            prop_assert_eq!(ack.options.timestamps.unwrap().echo, clock.wrapping_add(ticks));
        }
    }

    #[test]
    fn all_zeros_is_transparent_and_a_wrong_checksum_stays_wrong(
        parts in any_segment(), sequence: u32, error in 1u16..0xFFFF, client: bool,
    ) {
        let mut bytes = on_wire(&Segment { payload: &parts.1, ..parts.0 });
        let before = bytes.clone();
        Splice::default().apply(side(client), &mut bytes).unwrap();
        prop_assert_eq!(&bytes, &before);
        let wrong = stored_checksum(&bytes) ^ error;
        prop_assume!(wrong != 0xFFFF);
        bytes[16..18].copy_from_slice(&wrong.to_be_bytes());
        splice(sequence, 99).apply(side(client), &mut bytes).unwrap();
        prop_assert_ne!(stored_checksum(&bytes), full_checksum(&bytes));
    }

    #[test]
    fn options_at_odd_places_are_found(pad in 0usize..4, value: u32, echo: u32, left: u32, sequence: u32, clock: u32) {
        let mut options = vec![1u8; pad];
        options.extend([254, 5, 7, 7, 7]);
        options.extend([8, 10]);
        options.extend(value.to_be_bytes());
        options.extend(echo.to_be_bytes());
        options.extend([5, 10]);
        options.extend(left.to_be_bytes());
        options.extend(left.wrapping_add(9).to_be_bytes());
        options.resize(28 + 4 * usize::from(pad > 3), 0);
        options.resize(32, 0);
        let mut bytes = on_wire(&Segment { flags: Flags::ACK, ..Segment::default() });
        bytes.extend(&options);
        bytes[12] = 13 << 4;
        let checksum = full_checksum(&bytes);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        splice(sequence, clock).apply(Side::Client, &mut bytes).unwrap();
        prop_assert_eq!(stored_checksum(&bytes), full_checksum(&bytes));
        let parsed = Segment::parse(&bytes).unwrap();
        prop_assert_eq!(parsed.options.timestamps, Some(Timestamps { value, echo: echo.wrapping_sub(clock) }));
        prop_assert_eq!(parsed.options.sack[0].left, SeqNumber::new(left.wrapping_sub(sequence)));
        prop_assert_eq!(&bytes[20 + pad..25 + pad], &[254, 5, 7, 7, 7]);
    }

    #[test]
    fn inserted_timestamps_keep_everything_else(parts in any_segment(), echo: u32, clock_ms in 0i64..1 << 40) {
        let (mut segment, payload) = parts;
        segment.payload = &payload;
        segment.options.timestamps = None;
        let missing = Splice { flags: TIMESTAMPS_MISSING, timestamp_delta: 1000, ..Splice::default() };
        let mut bytes = on_wire(&segment);
        let len = bytes.len();
        bytes.resize(len + 12, 0xEE);
        let now = Instant::from_millis(clock_ms);
        let new = missing.insert_timestamps(now, Side::Server, echo, &mut bytes, len).unwrap();
        bytes.truncate(new);
        prop_assert_eq!(stored_checksum(&bytes), full_checksum(&bytes));
        if !segment.flags.intersects(Flags::SYN | Flags::RST) {
            let value = (clock_ms as u32).wrapping_add(1000);
            segment.options.timestamps = Some(Timestamps { value, echo });
        }
        prop_assert_eq!(Segment::parse(&bytes).unwrap(), segment);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), fields: [u8; 20]) {
        let splice = Splice::read_from_bytes(&fields).unwrap();
        for from in [Side::Client, Side::Server] {
            let _ = splice.apply(from, &mut bytes.clone());
            let _ = splice.insert_timestamps(Instant::ZERO, from, 0, &mut bytes.clone(), bytes.len().saturating_sub(12));
        }
    }
}

#[test]
fn four_sack_blocks_give_way_to_timestamps() {
    let block = |n: u32| SackBlock { left: n.into(), right: (n + 10).into() };
    let options = Options { sack: (0..4).map(|n| block(n * 100)).collect(), ..Options::default() };
    let segment = Segment { flags: Flags::ACK, options, payload: b"abcdefg", ..Segment::default() };
    let mut bytes = on_wire(&segment);
    let len = bytes.len();
    bytes.resize(len + 12, 0);
    let missing = Splice { flags: TIMESTAMPS_MISSING, ..Splice::default() };
    let new = missing.insert_timestamps(Instant::from_millis(5), Side::Server, 6, &mut bytes, len).unwrap();
    assert_eq!(new, len + 4);
    bytes.truncate(new);
    assert_eq!(stored_checksum(&bytes), full_checksum(&bytes));
    let parsed = Segment::parse(&bytes).unwrap();
    assert_eq!(parsed.options.timestamps, Some(Timestamps { value: 5, echo: 6 }));
    assert_eq!((parsed.options.sack.len(), parsed.payload), (3, &b"abcdefg"[..]));
    let mut short = on_wire(&segment);
    let len = short.len();
    assert_eq!(
        missing.insert_timestamps(Instant::ZERO, Side::Server, 6, &mut short, len),
        Err(SegmentError::NoRoom)
    );
    assert_eq!(short, on_wire(&segment));
}

#[test]
fn what_the_server_did_not_promise_is_stripped_from_the_client() {
    let missing = Splice { flags: TIMESTAMPS_MISSING | SACK_MISSING, sequence_delta: 5, ..Splice::default() };
    let block = SackBlock { left: 1.into(), right: 2.into() };
    let options = Options {
        timestamps: Some(Timestamps::default()),
        sack: [block].into_iter().collect(),
        ..Options::default()
    };
    let segment =
        Segment { flags: Flags::ACK, options: options.clone(), payload: b"xyz", ..Segment::default() };
    let bytes = applied(&missing, Side::Client, &segment);
    let parsed = Segment::parse(&bytes).unwrap();
    assert_eq!((parsed.options, parsed.payload), (Options::default(), &b"xyz"[..]));
    let bytes = applied(&missing, Side::Server, &segment);
    assert_eq!(Segment::parse(&bytes).unwrap().options, options);
    assert!(missing.timestamps_missing_from(Side::Server) && !missing.timestamps_missing_from(Side::Client));
}

#[test]
fn windows_change_scale_except_on_syn() {
    let scaled = Splice { window_to_server: 7, window_to_client: -3, ..Splice::default() };
    let window = |from, window, flags| {
        let segment = Segment { window, flags, ..Segment::default() };
        Segment::parse(&applied(&scaled, from, &segment)).unwrap().window
    };
    assert_eq!(window(Side::Client, 100, Flags::ACK), 12800);
    assert_eq!(window(Side::Client, 1000, Flags::ACK), 65535);
    assert_eq!(window(Side::Server, 1000, Flags::ACK), 125);
    assert_eq!(window(Side::Server, 7, Flags::ACK), 0);
    assert_eq!(window(Side::Server, 1000, Flags::SYN | Flags::ACK), 1000);
}

#[test]
fn a_packet_that_passes_early_carries_what_weir_acknowledged() {
    let early = Splice { held_ack: 500, held_window: 7, flags: HELD_FROM_SERVER, ..splice(10, 0) };
    let block = SackBlock { left: 1.into(), right: 2.into() };
    let options = Options { sack: [block].into_iter().collect(), ..Options::default() };
    let segment = Segment {
        seq: 1.into(),
        ack: 400.into(),
        flags: Flags::ACK,
        window: 99,
        options,
        ..Segment::default()
    };
    let parsed = applied(&early, Side::Server, &segment);
    let parsed = Segment::parse(&parsed).unwrap();
    assert_eq!((parsed.seq, parsed.ack, parsed.window), (11.into(), 500.into(), 7));
    assert!(parsed.options.sack.is_empty());
    let other = applied(&early, Side::Client, &segment);
    assert_eq!(Segment::parse(&other).unwrap().ack, 390.into());
}

#[test]
fn malformed_options_are_reported() {
    let mut bytes = on_wire(&Segment {
        flags: Flags::ACK,
        options: Options { timestamps: Some(Timestamps::default()), ..Options::default() },
        ..Segment::default()
    });
    bytes[23] = 40;
    assert_eq!(splice(1, 1).apply(Side::Client, &mut bytes), Err(SegmentError::OptionLength));
    bytes[12] = 0xF0;
    assert_eq!(splice(1, 1).apply(Side::Client, &mut bytes), Err(SegmentError::Truncated));
    assert_eq!(splice(1, 1).apply(Side::Client, &mut bytes[..19]), Err(SegmentError::Truncated));
}

#[test]
fn a_sack_option_of_impossible_length_does_not_reach_into_the_next_option() {
    let mut bytes = on_wire(&Segment { flags: Flags::ACK, ..Segment::default() });
    bytes.extend([5, 3, 9, 254, 5, 7, 7, 7]);
    bytes[12] = 7 << 4;
    let checksum = full_checksum(&bytes);
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    splice(0xFFFF_FFFF, 0).apply(Side::Client, &mut bytes).unwrap();
    assert_eq!(bytes[20..], [5, 3, 9, 254, 5, 7, 7, 7]);
    assert_eq!(stored_checksum(&bytes), full_checksum(&bytes));
}
