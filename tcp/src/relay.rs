//! The shortest way of a segment through a splice: what [`Track::note`] and [`Splice::apply`] do to the segments that
//! nearly all are, in one go.

use crate::splice::{Splice, TIMESTAMPS};
use crate::{Side, Track};

/// Bytes of a TCP header without options.
const HEADER: usize = 20;
/// Bytes of a timestamps option behind two NOPs.
const ALIGNED: usize = 12;

impl Splice {
    /// True if segments only have numbers shifted: [`Splice::relay`] can be used.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.flags & !TIMESTAMPS == 0
    }

    /// Notes and translates a segment with ACK and without SYN and RST. It takes `length` numbers: a byte of payload each, and
    /// one FIN. Its options are none (and `options` empty), or timestamps behind two NOPs and nothing else.
    ///
    /// The checksum is left to the caller: the result is to be added to the one's complement sum of the header, in the byte
    /// order of the machine over the bytes as they are on the wire, before the sum is folded (RFC 1624, equation 3).
    #[inline]
    pub fn relay(
        &self,
        track: &mut Track,
        from: Side,
        header: &mut [u8; HEADER],
        options: Option<&mut [u8; ALIGNED]>,
        length: u32,
    ) -> u64 {
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, _, w0, w1, ..] = *header;
        let (seq, ack) = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([a0, a1, a2, a3]));
        let window = u16::from_be_bytes([w0, w1]);
        let own_ack = match from {
            Side::Client => ack.wrapping_sub(self.sequence_delta),
            Side::Server => ack,
        };
        track.note(from, seq, own_ack, window, length);
        let mut sum = match from {
            Side::Client => replace::<8>(header, own_ack),
            Side::Server => replace::<4>(header, seq.wrapping_add(self.sequence_delta)),
        };
        let shift = if from == Side::Client { self.window_to_server } else { self.window_to_client };
        if shift != 0 {
            sum += replace_window(header, crate::splice::shifted(window, shift));
        }
        match options {
            Some(options) if self.flags & TIMESTAMPS != 0 => sum + self.shift_timestamps(from, options),
            _ => sum,
        }
    }

    #[inline]
    fn shift_timestamps(&self, from: Side, options: &mut [u8; ALIGNED]) -> u64 {
        let [_, _, _, _, v0, v1, v2, v3, e0, e1, e2, e3] = *options;
        match from {
            Side::Server => {
                let value = u32::from_be_bytes([v0, v1, v2, v3]);
                replace::<4>(options, value.wrapping_add(self.timestamp_delta))
            }
            Side::Client => {
                let echo = u32::from_be_bytes([e0, e1, e2, e3]);
                replace::<8>(options, echo.wrapping_sub(self.timestamp_delta))
            }
        }
    }
}

/// Writes a number at an even place, and gives what that does to a sum.
#[inline]
fn replace<const AT: usize>(bytes: &mut [u8], new: u32) -> u64 {
    let Some(place) = bytes.get_mut(AT..).and_then(<[u8]>::first_chunk_mut::<4>) else { return 0 };
    let old = std::mem::replace(place, new.to_be_bytes());
    u64::from(!u32::from_ne_bytes(old)) + u64::from(new.to_be())
}

#[inline]
fn replace_window(header: &mut [u8; HEADER], new: u16) -> u64 {
    let [.., w0, w1, _, _, _, _] = header;
    let old = u16::from_ne_bytes([*w0, *w1]);
    [*w0, *w1] = new.to_be_bytes();
    u64::from(!old) + u64::from(new.to_be())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flags, Options, Segment, Timestamps};
    use etherparse::TcpHeader;
    use proptest::prelude::*;

    /// The right checksum, computed by somebody else from the whole segment.
    fn full_checksum(bytes: &[u8]) -> u16 {
        let (header, payload) = TcpHeader::from_slice(bytes).unwrap();
        header.calc_checksum_ipv4_raw([192, 0, 2, 1], [198, 51, 100, 9], payload).unwrap()
    }

    fn folded(mut sum: u64) -> u16 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    prop_compose! {
        fn any_splice()(sequence_delta: u32, timestamp_delta: u32, timestamps: bool, shifts: (i8, i8)) -> Splice {
            Splice {
                sequence_delta,
                timestamp_delta,
                flags: if timestamps { TIMESTAMPS } else { 0 },
                window_to_server: shifts.0 % 15,
                window_to_client: shifts.1 % 15,
                ..Splice::default()
            }
        }
    }

    proptest! {
        #![proptest_config(crate::seeded(512))]

        /// The same bytes and the same track as by the long way, and the right checksum.
        #[test]
        fn the_short_way_leads_to_the_same_place(
            splice in any_splice(), numbers: (u32, u32, u16, u16), flags: u8, timestamps: Option<(u32, u32)>,
            payload in proptest::collection::vec(any::<u8>(), 0..50), client: bool, near in 0..70_000u32,
        ) {
            let from = if client { Side::Client } else { Side::Server };
            let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
            let segment = Segment {
                seq: numbers.0.into(),
                ack: numbers.1.into(),
                flags: Flags(flags & !(Flags::SYN | Flags::FIN | Flags::RST).0) | Flags::ACK,
                window: numbers.2,
                urgent: numbers.3,
                options: Options { timestamps, ..Options::default() },
                payload: &payload,
            };
            let mut wire = vec![0; segment.wire_len()];
            segment.emit(4321, 80, &mut wire).unwrap();
            let checksum = full_checksum(&wire);
            wire[16..18].copy_from_slice(&checksum.to_be_bytes());

            let own_ack = if client { splice.to_server(segment.ack).value() } else { numbers.1 };
            let start = |next: u32| (next.into(), next.into(), 8000, 0);
            let own = start(numbers.0.wrapping_sub(near));
            let other = start(own_ack.wrapping_add(near / 2));
            let mut track = if client { Track::new(own, other) } else { Track::new(other, own) };
            let (mut long_track, mut long) = (track, wire.clone());
            long_track.note(from, numbers.0, own_ack, numbers.2, payload.len() as u32);
            splice.apply(from, &mut long).unwrap();

            let (header, rest) = wire.split_first_chunk_mut().unwrap();
            let options = timestamps.is_some().then(|| rest.first_chunk_mut().unwrap());
            prop_assert!(splice.is_plain());
            let sum = splice.relay(&mut track, from, header, options, payload.len() as u32);
            let old = u64::from(u16::from_ne_bytes([header[16], header[17]]) ^ 0xffff);
            let new = !folded(old + sum);
            header[16..18].copy_from_slice(&new.to_ne_bytes());
            prop_assert_eq!(track, long_track);
            prop_assert_eq!(full_checksum(&wire), u16::from_be_bytes([wire[16], wire[17]]));
            prop_assert_eq!(wire, long);
        }
    }
}
