use super::*;
use etherparse::{TcpHeader, TcpOptionElement};
use proptest::prelude::*;

fn emitted(segment: &Segment<'_>) -> Vec<u8> {
    let mut bytes = vec![0xEE; 2000];
    let length = segment.emit(1000, 2000, &mut bytes).unwrap();
    assert_eq!(length, segment.wire_len());
    bytes.truncate(length);
    bytes
}

proptest! {
    #![proptest_config(crate::seeded(256))]

    #[test]
    fn a_clamped_mss_is_the_only_change(
        mss: u16, clamp in 88u16..9176, pad in 0usize..6, timestamps: Option<u32>, cut in 0usize..60,
    ) {
        let mut header = TcpHeader::new(4321, 80, 7, 100);
        header.syn = true;
        let mut options = vec![TcpOptionElement::Noop; pad];
        options.push(TcpOptionElement::MaximumSegmentSize(mss));
        options.extend(timestamps.map(|t| TcpOptionElement::Timestamp(t, 0)));
        header.set_options(&options).unwrap();
        let sum = |h: &TcpHeader| h.calc_checksum_ipv4_raw([1, 2, 3, 4], [5, 6, 7, 8], b"").unwrap();
        header.checksum = sum(&header);
        let mut bytes = Vec::new();
        header.write(&mut bytes).unwrap();
        let mut short = bytes.get(..cut).unwrap_or_default().to_vec();
        clamp_mss(&mut short, clamp);
        clamp_mss(&mut bytes, clamp);
        let (clamped, _) = TcpHeader::from_slice(&bytes).unwrap();
        options[pad] = TcpOptionElement::MaximumSegmentSize(mss.min(clamp));
        header.set_options(&options).unwrap();
        header.checksum = sum(&header);
        prop_assert_eq!(clamped.checksum % 0xFFFF, header.checksum % 0xFFFF);
        header.checksum = clamped.checksum;
        prop_assert_eq!(clamped, header);
    }
}

#[test]
fn a_full_syn_reads_the_same_in_etherparse() {
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 0x0102_0304, echo: 5 }),
        ..Options::default()
    };
    let segment = Segment {
        seq: 0xFFFF_FFFE.into(),
        ack: 77.into(),
        flags: Flags::SYN | Flags::ECE,
        window: 0xABCD,
        urgent: 3,
        options,
        payload: b"",
    };
    let bytes = emitted(&segment);
    let (header, rest) = TcpHeader::from_slice(&bytes).unwrap();
    assert_eq!((header.source_port, header.destination_port), (1000, 2000));
    assert_eq!((header.sequence_number, header.acknowledgment_number), (0xFFFF_FFFE, 77));
    assert!(header.syn && header.ece && !header.ack && !header.fin && !header.cwr);
    assert_eq!((header.window_size, header.urgent_pointer, header.checksum), (0xABCD, 3, 0));
    assert!(rest.is_empty());
    let elements: Vec<_> = header.options_iterator().map(Result::unwrap).collect();
    assert!(elements.contains(&TcpOptionElement::MaximumSegmentSize(1460)));
    assert!(elements.contains(&TcpOptionElement::WindowScale(7)));
    assert!(elements.contains(&TcpOptionElement::SelectiveAcknowledgementPermitted));
    assert!(elements.contains(&TcpOptionElement::Timestamp(0x0102_0304, 5)));
}

#[test]
fn four_sack_blocks_beside_timestamps_become_three() {
    let block = |n: u32| SackBlock { left: n.into(), right: (n + 10).into() };
    let mut options = Options { sack: (0..4).map(|n| block(n * 100)).collect(), ..Options::default() };
    assert_eq!(options.wire_len(), 36);
    options.timestamps = Some(Timestamps::default());
    assert_eq!(options.wire_len(), 40);
    let bytes = emitted(&Segment { options, ..Segment::default() });
    let parsed = Segment::parse(&bytes).unwrap();
    assert_eq!(parsed.options.sack.as_slice(), &[block(0), block(100), block(200)]);
}

#[test]
fn impossible_lengths_are_errors_and_odd_ones_are_skipped() {
    let mut bytes = emitted(&Segment {
        options: Options { timestamps: Some(Timestamps { value: 1, echo: 2 }), ..Options::default() },
        ..Segment::default()
    });
    let good = bytes.clone();
    bytes[23] = 0;
    assert_eq!(Segment::parse(&bytes), Err(SegmentError::OptionLength));
    bytes[23] = 11;
    assert_eq!(Segment::parse(&bytes), Err(SegmentError::OptionLength));
    bytes[23] = 9;
    bytes[31] = 0;
    assert_eq!(Segment::parse(&bytes).unwrap().options, Options::default());
    bytes.clone_from(&good);
    bytes[12] = 0x40;
    assert_eq!(Segment::parse(&bytes), Err(SegmentError::DataOffset));
    bytes[12] = 0x90;
    assert_eq!(Segment::parse(&bytes), Err(SegmentError::Truncated));
    assert_eq!(Segment::parse(&good[..19]), Err(SegmentError::Truncated));
    assert_eq!(Segment::default().emit(1, 2, &mut [0; 19]), Err(SegmentError::NoRoom));
}

#[test]
fn resets_follow_the_closed_state_rules() {
    let with_ack = Segment { ack: 9.into(), flags: Flags::ACK, ..Segment::default() };
    let reset = reset_for(&with_ack).unwrap();
    assert_eq!((reset.seq, reset.flags), (9.into(), Flags::RST));
    let syn = Segment { seq: 5.into(), flags: Flags::SYN, payload: b"abc", ..Segment::default() };
    let reset = reset_for(&syn).unwrap();
    assert_eq!((reset.seq, reset.ack, reset.flags), (0.into(), 9.into(), Flags::RST | Flags::ACK));
    assert_eq!(reset_for(&reset), None);
}

prop_compose! {
    fn any_options()(
        mss: Option<u16>, window_scale in proptest::option::of(0u8..=14), sack_permitted: bool,
        timestamps: Option<(u32, u32)>, sack in proptest::collection::vec(any::<(u32, u32)>(), 0..=4),
    ) -> Options {
        let sack = sack.into_iter().map(|(l, r)| SackBlock { left: l.into(), right: r.into() }).collect();
        let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
        let mut options = Options { mss, window_scale, sack_permitted, timestamps, sack };
        options.sack.truncate(options.sack_that_fits());
        options
    }
}

proptest! {
    #![proptest_config(crate::seeded(256))]

    #[test]
    fn what_is_emitted_is_read_back(
        seq: u32, ack: u32, flags: u8, window: u16, urgent: u16, options in any_options(),
        payload in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (seq, ack, flags) = (seq.into(), ack.into(), Flags(flags));
        let segment = Segment { seq, ack, flags, window, urgent, options, payload: &payload };
        let bytes = emitted(&segment);
        prop_assert_eq!(Segment::parse(&bytes).unwrap(), segment);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), offset in 0u8..16) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.get_mut(12) {
            *byte = offset << 4;
        }
        let _ = Segment::parse(&bytes);
    }
}
