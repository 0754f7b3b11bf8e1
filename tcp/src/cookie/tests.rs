//! What cookies say, and for how long they are believed.

use super::*;
use proptest::prelude::*;

const PROMISE: Promise = Promise { mss: 1460, window_scale: Some(7), sack: true, timestamps: true };

fn at(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

prop_compose! {
    fn any_syn()(
        seq: u32, mss: Option<u16>, scale in proptest::option::of(0u8..15), sack: bool, clock: Option<u32>,
    ) -> Segment<'static> {
        let options = Options {
            mss,
            window_scale: scale,
            sack_permitted: sack,
            timestamps: clock.map(|value| Timestamps { value, echo: 0 }),
            ..Options::default()
        };
        Segment { seq: seq.into(), flags: Flags::SYN, window: 64240, options, ..Segment::default() }
    }
}

/// What a client sends after that SYN-ACK.
fn acknowledgement(answer: &Segment<'_>) -> Segment<'static> {
    let timestamps = answer.options.timestamps;
    let timestamps = timestamps.map(|t| Timestamps { value: t.echo.wrapping_add(3), echo: t.value });
    Segment {
        seq: answer.ack,
        ack: answer.seq.advanced(1),
        flags: Flags::ACK,
        options: Options { timestamps, ..Options::default() },
        ..Segment::default()
    }
}

proptest! {
    #![proptest_config(crate::seeded(512))]

    #[test]
    fn what_the_client_offered_comes_back(
        syn in any_syn(), seed: u128, key: [u8; 36], offset: u32, delay in 0i64..64,
        mss in 88u16..9176, promised in proptest::option::of(0u8..15), sack: bool, timestamps: bool,
    ) {
        let promise = Promise { mss, window_scale: promised, sack, timestamps };
        let mut cookies = Cookies::new(seed, at(0), 64);
        let answer = cookies.answer(at(100), &key, &syn, &promise, offset, 65535);
        prop_assert_eq!(answer.options.mss, Some(mss));
        let clock = 100_000u32.wrapping_add(offset);
        let with = syn.options.timestamps.is_some() && timestamps;
        if let Some(t) = answer.options.timestamps {
            prop_assert!(clock.wrapping_sub(t.value) < 64, "TSval ahead of its clock, or far behind");
            prop_assert_eq!(Some(t.echo), syn.options.timestamps.map(|t| t.value));
        }
        prop_assert_eq!(answer.options.timestamps.is_some(), with);
        let back = cookies.syn_of(at(100 + delay), &key, &acknowledgement(&answer)).unwrap();
        prop_assert_eq!(back.seq, syn.seq);
        let (asked, believed) = (syn.options.mss.unwrap_or(536).max(64), back.options.mss.unwrap());
        prop_assert!(believed <= asked);
        let expected = syn.options.window_scale.filter(|_| with && promised.is_some());
        prop_assert_eq!(back.options.window_scale, expected);
        prop_assert_eq!(answer.options.window_scale, expected.and(promised));
        prop_assert_eq!(back.options.sack_permitted, with && sack && syn.options.sack_permitted);
        prop_assert_eq!(answer.options.sack_permitted, back.options.sack_permitted);
    }

    #[test]
    fn another_connection_number_or_key_is_not_believed(
        syn in any_syn(), seed: u128, key: [u8; 36], bit in 0usize..352,
    ) {
        let mut cookies = Cookies::new(seed, at(0), 64);
        let answer = cookies.answer(at(1), &key, &syn, &PROMISE, 0, 65535);
        let mut ack = acknowledgement(&answer);
        let mut other = key;
        match bit {
            0..288 => other[bit / 8] ^= 1 << (bit % 8),
            288..320 => ack.seq = SeqNumber::new(ack.seq.value() ^ 1 << (bit - 288)),
            _ => ack.ack = SeqNumber::new(ack.ack.value() ^ 1 << (bit - 320)),
        }
        prop_assert_eq!(cookies.syn_of(at(2), &other, &ack), None);
    }
}

#[test]
fn a_cookie_is_believed_for_a_period_and_no_longer_than_two() {
    let syn = Segment { seq: 7.into(), flags: Flags::SYN, ..Segment::default() };
    for made in [1, 63, 64, 100, 127] {
        for (later, believed) in [(0, true), (63, true), (128, false), (1000, false)] {
            let mut cookies = Cookies::new(1, at(0), 64);
            let ack = acknowledgement(&cookies.answer(at(made), b"key", &syn, &PROMISE, 0, 65535));
            let other = Segment { seq: 9.into(), flags: Flags::SYN, ..Segment::default() };
            for now in (made..made + later).step_by(10) {
                cookies.answer(at(now), b"other", &other, &PROMISE, 0, 65535);
            }
            let found = cookies.syn_of(at(made + later), b"key", &ack);
            assert_eq!(found.is_some(), believed, "made at {made}, {later} s later");
        }
    }
}

#[test]
fn the_usual_segment_sizes_are_told_exactly() {
    for mss in [536, 1220, 1380, 1440, 1460] {
        let mut cookies = Cookies::new(1, at(0), 64);
        let options = Options { mss: Some(mss), ..Options::default() };
        let syn = Segment { seq: 7.into(), flags: Flags::SYN, options, ..Segment::default() };
        let ack = acknowledgement(&cookies.answer(at(1), b"key", &syn, &PROMISE, 0, 65535));
        assert_eq!(cookies.syn_of(at(2), b"key", &ack).unwrap().options.mss, Some(mss));
    }
}

#[test]
fn an_unused_maker_believes_nothing() {
    let mut cookies = Cookies::new(1, at(0), 64);
    assert!(!cookies.in_use(at(5)));
    let ack = Segment { ack: 1.into(), flags: Flags::ACK, ..Segment::default() };
    assert_eq!(cookies.syn_of(at(5), b"key", &ack), None);
}

#[test]
fn a_guess_is_right_once_in_two_to_the_28th() {
    // 2^20 guesses at 2^32 numbers: right 0.0039 times on average; more than one would mean a broken hash.
    let mut cookies = Cookies::new(3, at(0), 64);
    let syn = Segment { seq: 7.into(), flags: Flags::SYN, ..Segment::default() };
    cookies.answer(at(1), b"key", &syn, &PROMISE, 0, 65535);
    let guesses = (0..1u32 << 20).map(|n| n.wrapping_mul(4093));
    let right = guesses.filter(|ack| {
        let ack = Segment { seq: 8.into(), ack: (*ack).into(), flags: Flags::ACK, ..Segment::default() };
        cookies.syn_of(at(2), b"key", &ack).is_some()
    });
    assert!(right.count() <= 1);
}

#[test]
fn a_cookie_that_was_used_up_is_not_believed_again_and_another_still_is() {
    let mut cookies = Cookies::new(1, at(0), 64);
    let syn = Segment { seq: 7.into(), flags: Flags::SYN, ..Segment::default() };
    let ack = acknowledgement(&cookies.answer(at(60), b"key", &syn, &PROMISE, 0, 65535));
    let other = acknowledgement(&cookies.answer(at(60), b"other", &syn, &PROMISE, 0, 65535));
    assert!(cookies.syn_of(at(61), b"key", &ack).is_some(), "asked for");
    assert!(cookies.syn_of(at(61), b"key", &ack).is_some(), "asked for again");
    assert!(!cookies.use_up(at(61), b"key", cookie_isn(&ack)));
    for now in 61..128 {
        cookies.answer(at(now), b"another", &syn, &PROMISE, 0, 65535);
        assert_eq!(cookies.syn_of(at(now), b"key", &ack), None, "at {now}");
        assert!(cookies.syn_of(at(now), b"other", &other).is_some(), "at {now}");
    }
}

/// Whatever its number, it is known by what it acknowledges; one in 32 of all others is taken for one.
#[test]
fn a_later_segment_is_told_from_a_strangers() {
    let mut cookies = Cookies::new(1, at(0), 64);
    let syn = Segment { seq: 7.into(), flags: Flags::SYN, ..Segment::default() };
    let first = acknowledgement(&cookies.answer(at(60), b"key", &syn, &PROMISE, 0, 65535));
    let later = Segment { seq: 1460.into(), payload: b"more", ..first.clone() };
    for now in [60, 70, 127] {
        assert_eq!(cookies.syn_of(at(now), b"key", &later), None);
        assert!(cookies.is_ahead(at(now), b"key", &later), "at {now}");
    }
    let strangers = (0..100_000u32).filter(|n| cookies.is_ahead(at(70), &n.to_be_bytes(), &later)).count();
    assert!((2500..3750).contains(&strangers), "{strangers}");
    cookies.use_up(at(70), b"key", cookie_isn(&first));
    assert!(!cookies.is_ahead(at(71), b"key", &later), "what has begun once does not begin again");
    assert!(!cookies.is_ahead(at(300), b"key", &later), "it is too late");
}
