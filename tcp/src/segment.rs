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
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SegmentError> {
        let header = bytes.first_chunk::<HEADER>().ok_or(SegmentError::Truncated)?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, u0, u1] = *header;
        let length = usize::from(offset >> 4) * 4;
        let options = bytes.get(HEADER..length).ok_or(if length < HEADER {
            SegmentError::DataOffset
        } else {
            SegmentError::Truncated
        })?;
        let mut segment = Segment {
            seq: SeqNumber::new(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: SeqNumber::new(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: Flags(flags),
            window: u16::from_be_bytes([w0, w1]),
            urgent: u16::from_be_bytes([u0, u1]),
            options: Options::default(),
            payload: bytes.get(length..).unwrap_or_default(),
        };
        segment.options.take(options)?;
        Ok(segment)
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
        let mut options = Options::default();
        options.take(bytes)?;
        Ok(options)
    }

    /// Takes in what is written in a header.
    #[inline]
    fn take(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.timestamps = Timestamps::alone(bytes);
        if self.timestamps.is_some() { Ok(()) } else { self.take_any(bytes) }
    }

    fn take_any(&mut self, mut rest: &[u8]) -> Result<(), SegmentError> {
        while let Some((&kind, tail)) = rest.split_first() {
            match kind {
                END => break,
                NOP => rest = tail,
                _ => {
                    let (value, after) = split_option(rest)?;
                    self.read(kind, value);
                    rest = after;
                }
            }
        }
        Ok(())
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
    /// Those of a header whose options are nothing else, in the recommended layout behind two NOPs: nearly always.
    #[inline]
    #[must_use]
    pub fn alone(options: &[u8]) -> Option<Timestamps> {
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
mod tests;
