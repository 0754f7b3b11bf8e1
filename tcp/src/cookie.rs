//! SYN cookies (RFC 4987, 3.6): a handshake that is remembered by the client.

mod used;

use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use smoltcp::time::{Duration, Instant};

use crate::segment::{MAX_WINDOW_SCALE, Options, Timestamps};
use crate::{Flags, Promise, Segment, SeqNumber};
use used::Used;

/// How long a secret makes cookies; it is believed for as long again.
const PERIOD: Duration = Duration::from_secs(64);

/// Segment sizes that a cookie can tell; a client's own is rounded down to one of them. The usual ones: IPv6's minimum,
/// tunnels, IPv6 and IPv4 over Ethernet, jumbo frames. The first is the least that weir believes.
const SIZES: [u16; 8] = [64, 536, 1220, 1340, 1380, 1440, 1460, 8940];

/// Bits of a cookie that say which of [`SIZES`] it is; the others are the hash.
const SIZE_BITS: u32 = 3;
const SIZE_MASK: u32 = (1 << SIZE_BITS) - 1;

/// Bits of a cookie that are a hash of the connection alone; they tell a cookie of this connection where the client's ISN is
/// not known.
const OWN_MASK: u32 = 0x3F << SIZE_BITS;

/// Bits of TSval that carry options: window scale, then SACK.
const OPTION_MASK: u32 = 0x1F;
const SCALE_MASK: u32 = 0x0F;
const NO_SCALE: u32 = 0x0F;
const SACK: u32 = 0x10;

/// Makes the SYN-ACKs of handshakes that nobody keeps, and knows their acknowledgements. Owned by the worker; allocates
/// at its beginning only.
///
/// The ISN of such a SYN-ACK is 6 bits of a hash (SipHash-2-4) over a secret and the connection, 23 bits of one over that, the
/// client's ISN and the MSS, and 3 bits that stand for this MSS. Two secrets are believed, so that a blind guess is right once in
/// 2^28. The next secret is made of the one before by a one-way function, every 64 s while cookies are in use.
///
/// A cookie opens one connection: [`Cookies::use_up`] notes the ones that did (`used.rs`).
///
/// Window scale and SACK fit only into weir's TSval, so a client without timestamps is offered neither.
#[derive(Debug)]
pub struct Cookies {
    secret: (u64, u64),
    before: (u64, u64),
    changed: Instant,
    /// When the last one was made.
    made: Option<Instant>,
    used: Used,
}

impl Cookies {
    /// `seed` must be unpredictable. About `remembered` used cookies are known at a time, 8 bytes each.
    #[must_use]
    pub fn new(seed: u128, now: Instant, remembered: usize) -> Self {
        let seed = (seed as u64, (seed >> 64) as u64);
        let secret = next_secret(seed);
        let used = Used::new((derived(seed, 2), derived(seed, 3)), remembered);
        Cookies { secret: next_secret(secret), before: secret, changed: now, made: None, used }
    }

    /// True while an acknowledgement of a cookie may still come: for at most two periods after the last one was made.
    #[must_use]
    pub fn in_use(&self, now: Instant) -> bool {
        self.made.is_some_and(|at| now < at + PERIOD + PERIOD)
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
        self.made = Some(now);
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
    /// the segment itself, without a poll between the two; [`Cookies::use_up`] is for when it has.
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
        if self.used.contains(now, connection, isn) {
            return None;
        }
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

    /// Whether a segment that [`Cookies::syn_of`] makes nothing of is probably a later one of a connection that has not
    /// begun: it acknowledges a cookie that was made for this connection and not used, but what came before it is missing. Of
    /// segments that have nothing to do with cookies one in 32 is taken for such a one.
    #[must_use]
    pub fn is_ahead(&self, now: Instant, connection: &[u8], segment: &Segment<'_>) -> bool {
        let isn = cookie_isn(segment);
        let own = isn.value() & OWN_MASK;
        let made =
            [self.secret, self.before].into_iter().any(|s| keyed(s, connection) as u32 & OWN_MASK == own);
        self.in_use(now) && made && !self.used.contains(now, connection, isn)
    }

    /// A connection has begun with this cookie: from now on it opens no other. True if, for lack of room, the oldest of
    /// those that are still believed was forgotten.
    pub fn use_up(&mut self, now: Instant, connection: &[u8], isn: SeqNumber) -> bool {
        self.used.insert(now, connection, isn)
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
    let connection = keyed(secret, connection);
    let mut hasher = SipHasher24::new_with_keys(secret.0, secret.1);
    hasher.write_u64(connection);
    hasher.write_u32(syn_seq.value());
    hasher.write_u32(size);
    let number = hasher.finish() as u32 & !(OWN_MASK | SIZE_MASK);
    SeqNumber::new(number | connection as u32 & OWN_MASK | size)
}

fn keyed(secret: (u64, u64), connection: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(secret.0, secret.1);
    hasher.write(connection);
    hasher.finish()
}

/// One way: who knows a secret does not know those before it.
fn next_secret(secret: (u64, u64)) -> (u64, u64) {
    (derived(secret, 0), derived(secret, 1))
}

fn derived(secret: (u64, u64), which: u32) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(secret.0, secret.1);
    hasher.write_u32(which);
    hasher.finish()
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
mod tests;
