//! SYN cookies (RFC 4987, 3.6): a handshake that is remembered by the client.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use smoltcp::time::{Duration, Instant};

use crate::segment::{MAX_WINDOW_SCALE, Options, Timestamps};
use crate::{Flags, Promise, Segment, SeqNumber};

/// How long a secret makes cookies; it is believed for as long again.
const PERIOD: Duration = Duration::from_secs(64);

/// Segment sizes that a cookie can tell; a client's own is rounded down to one of them. The usual ones: IPv6's minimum,
/// tunnels, IPv6 and IPv4 over Ethernet, jumbo frames. The first is the least that weir believes.
const SIZES: [u16; 8] = [64, 536, 1220, 1340, 1380, 1440, 1460, 8940];

/// Bits of a cookie that say which of [`SIZES`] it is; the others are the hash.
const SIZE_BITS: u32 = 3;
const SIZE_MASK: u32 = (1 << SIZE_BITS) - 1;

/// Bits of TSval that carry options: window scale, then SACK.
const OPTION_MASK: u32 = 0x1F;
const SCALE_MASK: u32 = 0x0F;
const NO_SCALE: u32 = 0x0F;
const SACK: u32 = 0x10;

/// Makes the SYN-ACKs of handshakes that nobody keeps, and knows their acknowledgements. Owned by the worker, 64 bytes,
/// allocates nothing.
///
/// The ISN of such a SYN-ACK is 29 bits of a hash (SipHash-2-4) over a secret, the connection, the client's ISN and 3 bits
/// that stand for its MSS. Two secrets are believed, so that a blind guess is right once in 2^28. The next secret is made
/// of the one before by a one-way function, every 64 s while cookies are in use.
///
/// Window scale and SACK fit only into weir's TSval, so a client without timestamps is offered neither.
#[derive(Debug)]
pub struct Cookies {
    secret: (u64, u64),
    before: (u64, u64),
    changed: Instant,
    used: Option<Instant>,
}

impl Cookies {
    /// `seed` must be unpredictable.
    #[must_use]
    pub fn new(seed: u128, now: Instant) -> Self {
        let secret = next_secret((seed as u64, (seed >> 64) as u64));
        Cookies { secret: next_secret(secret), before: secret, changed: now, used: None }
    }

    /// True while an acknowledgement of a cookie may still come: for at most two periods after the last one was made.
    #[must_use]
    pub fn in_use(&self, now: Instant) -> bool {
        self.used.is_some_and(|at| now < at + PERIOD + PERIOD)
    }

    /// The SYN-ACK for `syn`. `connection` names it (addresses and ports); `offset` is the one that
    /// [`Binding::accept`](crate::Binding::accept) would be given for it; `window` is what may be offered, not scaled.
    pub fn answer(
        &mut self,
        now: Instant,
        connection: &[u8],
        syn: &Segment<'_>,
        promise: &Promise,
        offset: u32,
        window: u32,
    ) -> Segment<'static> {
        self.rotate(now);
        self.used = Some(now);
        let wanted = syn.options.mss.unwrap_or(crate::binding::DEFAULT_MSS);
        let size = SIZES.iter().rposition(|size| *size <= wanted).unwrap_or(0) as u32;
        let timestamps = syn.options.timestamps.filter(|_| promise.timestamps);
        let scale =
            syn.options.window_scale.filter(|_| timestamps.is_some() && promise.window_scale.is_some());
        let sack = syn.options.sack_permitted && promise.sack && timestamps.is_some();
        let clock = crate::splice::clock(now).wrapping_add(offset);
        let options = Options {
            mss: Some(promise.mss),
            window_scale: scale.and(promise.window_scale),
            sack_permitted: sack,
            timestamps: timestamps
                .map(|theirs| Timestamps { value: with_options(clock, scale, sack), echo: theirs.value }),
            ..Options::default()
        };
        Segment {
            seq: cookie(self.secret, connection, syn.seq, size),
            ack: syn.seq.advanced(1),
            flags: Flags::SYN | Flags::ACK,
            window: u16::try_from(window).unwrap_or(u16::MAX),
            options,
            ..Segment::default()
        }
    }

    /// The SYN that `segment` goes back to, if it acknowledges a cookie: the first segment after the handshake, with or
    /// without bytes. [`Binding::accept`](crate::Binding::accept) takes it, with [`cookie_isn`] as its ISN, and then
    /// the segment itself, without a poll between the two.
    pub fn syn_of(
        &mut self,
        now: Instant,
        connection: &[u8],
        segment: &Segment<'_>,
    ) -> Option<Segment<'static>> {
        let plain = !segment.flags.intersects(Flags::SYN | Flags::RST) && segment.flags.contains(Flags::ACK);
        if !plain || !self.in_use(now) {
            return None;
        }
        self.rotate(now);
        let (syn_seq, isn) = (segment.seq.receded(1), cookie_isn(segment));
        let size = isn.value() & SIZE_MASK;
        let known =
            [self.secret, self.before].into_iter().any(|s| cookie(s, connection, syn_seq, size) == isn);
        let mss = SIZES.get(size as usize).copied().filter(|_| known)?;
        let bits = segment.options.timestamps.map(|timestamps| timestamps.echo & OPTION_MASK);
        let scale = bits.map(|bits| bits & SCALE_MASK).filter(|scale| *scale != NO_SCALE);
        let options = Options {
            mss: Some(mss),
            window_scale: scale.map(|scale| (scale as u8).min(MAX_WINDOW_SCALE)),
            sack_permitted: bits.is_some_and(|bits| bits & SACK != 0),
            timestamps: segment.options.timestamps.map(|theirs| Timestamps { value: theirs.value, echo: 0 }),
            ..Options::default()
        };
        Some(Segment { seq: syn_seq, flags: Flags::SYN, options, ..Segment::default() })
    }

    fn rotate(&mut self, now: Instant) {
        let passed = (now - self.changed).total_micros() / PERIOD.total_micros();
        if now < self.changed || passed == 0 {
            return;
        }
        // After a long silence both are old: no cookie of before may be believed.
        self.before = if passed > 1 { next_secret(self.secret) } else { self.secret };
        self.secret = next_secret(self.before);
        self.changed += Duration::from_micros(passed.saturating_mul(PERIOD.total_micros()));
    }
}

/// The ISN that a segment after the handshake acknowledges.
#[must_use]
pub fn cookie_isn(segment: &Segment<'_>) -> SeqNumber {
    segment.ack.receded(1)
}

fn cookie(secret: (u64, u64), connection: &[u8], syn_seq: SeqNumber, size: u32) -> SeqNumber {
    let mut hasher = SipHasher24::new_with_keys(secret.0, secret.1);
    hasher.write(connection);
    hasher.write_u32(syn_seq.value());
    hasher.write_u32(size);
    SeqNumber::new((hasher.finish() as u32) & !SIZE_MASK | size)
}

/// One way: who knows a secret does not know those before it.
fn next_secret(secret: (u64, u64)) -> (u64, u64) {
    let half = |which: u32| {
        let mut hasher = SipHasher24::new_with_keys(secret.0, secret.1);
        hasher.write_u32(which);
        hasher.finish()
    };
    (half(0), half(1))
}

/// The latest time not after `clock` whose low bits are the options: TSval never runs ahead of the clock that the
/// connection will use, so it never goes back (RFC 7323, 5.3).
fn with_options(clock: u32, scale: Option<u8>, sack: bool) -> u32 {
    let scale = scale.map_or(NO_SCALE, |scale| u32::from(scale.min(MAX_WINDOW_SCALE)));
    let bits = scale | if sack { SACK } else { 0 };
    let behind = clock.wrapping_sub(bits) & OPTION_MASK;
    clock.wrapping_sub(behind)
}

#[cfg(test)]
mod tests {
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
            let mut cookies = Cookies::new(seed, at(0));
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
            let mut cookies = Cookies::new(seed, at(0));
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
                let mut cookies = Cookies::new(1, at(0));
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
            let mut cookies = Cookies::new(1, at(0));
            let options = Options { mss: Some(mss), ..Options::default() };
            let syn = Segment { seq: 7.into(), flags: Flags::SYN, options, ..Segment::default() };
            let ack = acknowledgement(&cookies.answer(at(1), b"key", &syn, &PROMISE, 0, 65535));
            assert_eq!(cookies.syn_of(at(2), b"key", &ack).unwrap().options.mss, Some(mss));
        }
    }

    #[test]
    fn an_unused_maker_believes_nothing() {
        let mut cookies = Cookies::new(1, at(0));
        assert!(!cookies.in_use(at(5)));
        let ack = Segment { ack: 1.into(), flags: Flags::ACK, ..Segment::default() };
        assert_eq!(cookies.syn_of(at(5), b"key", &ack), None);
    }

    #[test]
    fn a_guess_is_right_once_in_two_to_the_28th() {
        // 2^20 guesses at 2^32 numbers: right 0.0039 times on average; more than one would mean a broken hash.
        let mut cookies = Cookies::new(3, at(0));
        let syn = Segment { seq: 7.into(), flags: Flags::SYN, ..Segment::default() };
        cookies.answer(at(1), b"key", &syn, &PROMISE, 0, 65535);
        let guesses = (0..1u32 << 20).map(|n| n.wrapping_mul(4093));
        let right = guesses.filter(|ack| {
            let ack = Segment { seq: 8.into(), ack: (*ack).into(), flags: Flags::ACK, ..Segment::default() };
            cookies.syn_of(at(2), b"key", &ack).is_some()
        });
        assert!(right.count() <= 1);
    }
}
