//! A TCP segment on the wire (RFC 9293, 3.1), with the options that weir understands.

mod emit;

use std::ops::BitOr;

use arrayvec::ArrayVec;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::SeqNumber;

/// A header without options, as it is on the wire.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub ports: [U16; 2],
    pub seq: U32,
    pub ack: U32,
    /// Length of header and options in 32-bit words, in the upper half.
    pub offset: u8,
    pub flags: u8,
    pub window: U16,
    pub checksum: U16,
    pub urgent: U16,
}

/// Bytes of a header without options.
pub(crate) const HEADER: usize = 20;
/// Most bytes of options.
pub(crate) const MAX_OPTIONS: usize = 40;

/// Kinds of options (RFC 9293, 3.1; RFC 2018; RFC 7323).
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Largest window shift (RFC 7323, 2.3).
pub(crate) const MAX_WINDOW_SCALE: u8 = 14;

/// Why bytes are not a segment, or a segment does not fit into a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Fewer bytes than the header announces.
    #[error("the segment is shorter than its header says")]
    Truncated,
    /// The data offset is below 5.
    #[error("the data offset is smaller than a TCP header")]
    DataOffset,
    /// An option's length is below 2 or reaches beyond the header (RFC 9293, 3.1, MUST-7).
    #[error("an option has an impossible length")]
    OptionLength,
    /// The slice is too small for the segment.
    #[error("no room for the segment")]
    NoRoom,
}

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// True if all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

impl From<u8> for Flags {
    fn from(bits: u8) -> Self {
        Flags(bits)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The timestamps option (RFC 7323, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the clock of the peer that the sender echoes.
    pub echo: u32,
}

/// One block of received data above the acknowledgement (RFC 2018, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlock {
    /// First sequence number of the block.
    pub left: SeqNumber,
    /// Sequence number after the last of the block.
    pub right: SeqNumber,
}

/// The options that weir understands. Others are skipped when parsing and not emitted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size, in SYN segments.
    pub mss: Option<u16>,
    /// Window shift, in SYN segments; 15 and above are read as 14 (RFC 7323, 2.3).
    pub window_scale: Option<u8>,
    /// SACK permitted, in SYN segments.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks, the most recent first.
    pub sack: ArrayVec<SackBlock, 4>,
}

/// A segment, with its payload borrowed from the packet or from a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Segment<'a> {
    /// Sequence number of the first byte, or of SYN.
    pub seq: SeqNumber,
    /// Acknowledgement number; without meaning unless [`Flags::ACK`] is set.
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// The window field as it stands on the wire, not scaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment from `bytes`: the TCP header's first byte to the end of the payload. The checksum is not looked
    /// at. Unknown options, and known ones of a length that their RFC does not give them, are skipped.
    ///
    /// # Errors
    /// [`SegmentError::Truncated`], [`SegmentError::DataOffset`], [`SegmentError::OptionLength`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SegmentError> {
        let header = bytes.first_chunk::<HEADER>().ok_or(SegmentError::Truncated)?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, u0, u1] = *header;
        let length = usize::from(offset >> 4) * 4;
        let options = bytes.get(HEADER..length).ok_or(if length < HEADER {
            SegmentError::DataOffset
        } else {
            SegmentError::Truncated
        })?;
        Ok(Segment {
            seq: SeqNumber::new(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: SeqNumber::new(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: Flags(flags),
            window: u16::from_be_bytes([w0, w1]),
            urgent: u16::from_be_bytes([u0, u1]),
            options: Options::parse(options)?,
            payload: bytes.get(length..).unwrap_or_default(),
        })
    }

    /// Sequence space that the segment takes: payload, and one each for SYN and FIN.
    #[must_use]
    pub fn len(&self) -> u32 {
        let flags = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        flags.wrapping_add(self.payload.len() as u32)
    }

    /// True if the segment takes no sequence space: a pure acknowledgement or a reset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Options {
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SegmentError> {
        match Timestamps::alone(bytes) {
            Some(timestamps) => Ok(Options { timestamps: Some(timestamps), ..Options::default() }),
            None => Options::parse_any(bytes),
        }
    }

    fn parse_any(mut rest: &[u8]) -> Result<Self, SegmentError> {
        let mut options = Options::default();
        while let Some((&kind, tail)) = rest.split_first() {
            match kind {
                END => break,
                NOP => rest = tail,
                _ => {
                    let (value, after) = split_option(rest)?;
                    options.read(kind, value);
                    rest = after;
                }
            }
        }
        Ok(options)
    }

    fn read(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                let (value, echo) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                self.timestamps = Some(Timestamps { value, echo });
            }
            (SACK, blocks) if blocks.len() % 8 == 0 => {
                self.sack = blocks.chunks_exact(8).filter_map(sack_block).take(4).collect();
            }
            _ => {}
        }
    }
}

impl Timestamps {
    /// The option where it is the only one, in its recommended layout: nearly always.
    #[inline]
    fn alone(options: &[u8]) -> Option<Timestamps> {
        let &[NOP, NOP, TIMESTAMPS, 10, a, b, c, d, e, f, g, h] = options else { return None };
        Some(Timestamps { value: u32::from_be_bytes([a, b, c, d]), echo: u32::from_be_bytes([e, f, g, h]) })
    }
}

fn sack_block(bytes: &[u8]) -> Option<SackBlock> {
    let (left, right) = (bytes.first_chunk::<4>()?, bytes.last_chunk::<4>()?);
    Some(SackBlock { left: u32::from_be_bytes(*left).into(), right: u32::from_be_bytes(*right).into() })
}

/// Value of the option at the front of `rest`, and what follows it.
fn split_option(rest: &[u8]) -> Result<(&[u8], &[u8]), SegmentError> {
    let length = usize::from(*rest.get(1).ok_or(SegmentError::OptionLength)?);
    let value = rest.get(2..length).ok_or(SegmentError::OptionLength)?;
    Ok((value, rest.get(length..).unwrap_or_default()))
}

/// Lowers the MSS option of a SYN segment to `mss`, with the checksum (RFC 1624); a lower one stays, and so does a header
/// without the option or with malformed ones.
pub fn clamp_mss(segment: &mut [u8], mss: u16) {
    let header = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let mut at = HEADER;
    let found = loop {
        match segment.get(at..header) {
            Some([NOP, ..]) => at += 1,
            Some([MSS, 4, high, low, ..]) => break u16::from_be_bytes([*high, *low]),
            Some([kind, length, ..]) if *kind != END && *length >= 2 => at += usize::from(*length),
            _ => return,
        }
    };
    if found <= mss {
        return;
    }
    let mut difference = crate::checksum::Difference::default();
    let [old, new] = [found, mss].map(u16::to_be_bytes);
    for (index, (old, new)) in (at + 2..).zip(old.into_iter().zip(new)) {
        difference.replace8(index, old, new);
        if let Some(byte) = segment.get_mut(index) {
            *byte = new;
        }
    }
    if let Some(place) = segment.get_mut(16..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *place = difference.apply(u16::from_be_bytes(*place)).to_be_bytes();
    }
}

/// The reset that a segment without a connection deserves (RFC 9293, 3.10.7.1); `None` if it is a reset itself.
#[must_use]
pub fn reset_for(segment: &Segment<'_>) -> Option<Segment<'static>> {
    if segment.flags.contains(Flags::RST) {
        return None;
    }
    if segment.flags.contains(Flags::ACK) {
        return Some(Segment { seq: segment.ack, flags: Flags::RST, ..Segment::default() });
    }
    let ack = segment.seq.advanced(segment.len());
    Some(Segment { ack, flags: Flags::RST | Flags::ACK, ..Segment::default() })
}

#[cfg(test)]
mod tests {
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
}
