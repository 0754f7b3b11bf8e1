//! Header translation of a connection whose two halves have met: sequence numbers, acknowledgements, SACK blocks,
//! timestamps and windows.

use arrayvec::ArrayVec;
use smoltcp::time::Instant;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Difference;
use crate::segment::{HEADER, Header, MAX_OPTIONS, Options, Timestamps};
use crate::{Flags, SegmentError, SeqNumber, Side};

/// What turns a segment of one side into one that the other side understands. Plain data of 20 bytes for a flow table;
/// the value of all zeros changes nothing.
///
/// The client's sequence numbers go to the server as they are, because weir's SYN used the client's own: only the
/// server's numbers, and the client's acknowledgements of them, are shifted. [`Binding::splice`](crate::Binding::splice)
/// makes it; [`Splice::apply`] is all that the fast path calls, unless [`Splice::timestamps_missing_from`] says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Splice {
    /// Added to sequence numbers of the server.
    pub(crate) sequence_delta: u32,
    /// Added to TSval of the server; with [`TIMESTAMPS_MISSING`], added to the clock instead.
    pub(crate) timestamp_delta: u32,
    /// Acknowledgement that replaces the one of a packet that passes before the splice is complete.
    pub(crate) held_ack: u32,
    /// Window that goes with it.
    pub(crate) held_window: u16,
    pub(crate) server_mss: u16,
    pub(crate) flags: u8,
    /// Left shift of the client's window field; negative: right.
    pub(crate) window_to_server: i8,
    /// Left shift of the server's window field; negative: right.
    pub(crate) window_to_client: i8,
    pub(crate) reserved: u8,
}

/// Both sides use timestamps: they are shifted.
pub(crate) const TIMESTAMPS: u8 = 0x01;
/// The client uses timestamps, the server does not.
pub(crate) const TIMESTAMPS_MISSING: u8 = 0x02;
/// The client uses SACK, the server does not.
pub(crate) const SACK_MISSING: u8 = 0x04;
/// weir still answers the client itself: acknowledgements in packets of the server are replaced.
pub(crate) const HELD_FROM_SERVER: u8 = 0x08;
/// weir still answers the server itself: acknowledgements in packets of the client are replaced.
pub(crate) const HELD_FROM_CLIENT: u8 = 0x10;

/// The timestamps option where nearly everybody puts it: alone, behind two NOPs.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AlignedTimestamps {
    prefix: [u8; 4],
    value: U32,
    echo: U32,
}

impl Splice {
    /// Translates one segment in place and corrects its checksum by the difference (RFC 1624): a wrong checksum stays
    /// wrong. `bytes` are the TCP header and the payload, of which only the header is touched: ports, flags, urgent
    /// pointer, ECN bits and unknown options stay as they are. Costs a few nanoseconds when the only option is an aligned
    /// timestamp.
    ///
    /// # Errors
    /// A header that is cut or whose options are malformed; the segment is half translated then and must be dropped.
    #[inline]
    pub fn apply(&self, from: Side, bytes: &mut [u8]) -> Result<(), SegmentError> {
        let (header, rest) = Header::mut_from_prefix(bytes).map_err(|_| SegmentError::Truncated)?;
        let options = usize::from(header.offset >> 4) * 4;
        let options = options.checked_sub(HEADER).ok_or(SegmentError::DataOffset)?;
        let options = rest.get_mut(..options).ok_or(SegmentError::Truncated)?;
        let mut difference = Difference::default();
        match from {
            Side::Server => {
                let new = header.seq.get().wrapping_add(self.sequence_delta);
                replace32(&mut header.seq, new, &mut difference);
                self.shift_window(header, self.window_to_client, &mut difference);
            }
            Side::Client => {
                if Flags(header.flags).contains(Flags::ACK) {
                    let new = header.ack.get().wrapping_sub(self.sequence_delta);
                    replace32(&mut header.ack, new, &mut difference);
                }
                self.shift_window(header, self.window_to_server, &mut difference);
            }
        }
        if self.flags & held(from) != 0 && Flags(header.flags).contains(Flags::ACK) {
            replace32(&mut header.ack, self.held_ack, &mut difference);
            replace16(&mut header.window, self.held_window, &mut difference);
        }
        if !options.is_empty() {
            self.translate_options(from, Flags(header.flags), options, &mut difference)?;
        }
        header.checksum = U16::new(difference.apply(header.checksum.get()));
        Ok(())
    }

    /// True if segments of this side lack the timestamps that the other side was promised (RFC 7323, 3.2): each one must
    /// go through [`Splice::insert_timestamps`] after [`Splice::apply`].
    #[must_use]
    pub fn timestamps_missing_from(&self, side: Side) -> bool {
        side == Side::Server && self.flags & TIMESTAMPS_MISSING != 0
    }

    /// Puts a timestamps option into a segment of `segment[..len]`, which came from a side that has none, and returns the
    /// new length. TSval is weir's own clock, TSecr is `echo`: the last TSval of the other side. Resets and SYNs, and
    /// segments of a side that has timestamps, are left alone.
    ///
    /// 12 bytes of room behind `len` are needed. The checksum follows, the pseudo header's length included; the length in
    /// the IP header is the caller's. Where the options would exceed 40 bytes, unknown options and the oldest SACK block
    /// give way.
    ///
    /// # Errors
    /// [`SegmentError::NoRoom`]; the errors of [`Segment::parse`](crate::Segment::parse). The segment is unchanged.
    pub fn insert_timestamps(
        &self,
        now: Instant,
        from: Side,
        echo: u32,
        segment: &mut [u8],
        len: usize,
    ) -> Result<usize, SegmentError> {
        let bytes = segment.get(..len).ok_or(SegmentError::Truncated)?;
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| SegmentError::Truncated)?;
        let old =
            (usize::from(header.offset >> 4) * 4).checked_sub(HEADER).ok_or(SegmentError::DataOffset)?;
        let old = rest.get(..old).ok_or(SegmentError::Truncated)?;
        if Flags(header.flags).intersects(Flags::SYN | Flags::RST) || !self.timestamps_missing_from(from) {
            return Ok(len);
        }
        let value = clock(now).wrapping_add(self.timestamp_delta);
        let timestamps = Timestamps { value, echo };
        let mut new: ArrayVec<u8, MAX_OPTIONS> = ArrayVec::new();
        new.extend(timestamps.encode());
        if old.len() <= new.remaining_capacity() {
            new.extend(old.iter().copied());
        } else {
            let known = Options::parse(old)?;
            new = Options { timestamps: Some(timestamps), ..known }.encode();
        }
        let old_len = old.len();
        replace_options(segment, len, old_len, &new)
    }

    /// Largest payload and options that the server takes in one segment, where that is less than
    /// [`Promise::mss`](crate::Promise::mss): the client's larger segments must be cut. 0: it takes what was promised, or
    /// weir did not see its SYN-ACK.
    #[must_use]
    pub fn server_mss(&self) -> u16 {
        self.server_mss
    }

    /// A sequence number of the server, in the client's numbering.
    #[must_use]
    pub fn to_client(&self, seq: SeqNumber) -> SeqNumber {
        seq.advanced(self.sequence_delta)
    }

    /// An acknowledgement of the client, in the server's numbering.
    #[must_use]
    pub fn to_server(&self, ack: SeqNumber) -> SeqNumber {
        ack.receded(self.sequence_delta)
    }

    #[inline]
    fn shift_window(&self, header: &mut Header, shift: i8, difference: &mut Difference) {
        if shift != 0 && !Flags(header.flags).contains(Flags::SYN) {
            let new = shifted(header.window.get(), shift);
            replace16(&mut header.window, new, difference);
        }
    }

    #[inline]
    fn translate_options(
        &self,
        from: Side,
        flags: Flags,
        options: &mut [u8],
        difference: &mut Difference,
    ) -> Result<(), SegmentError> {
        let plain =
            self.flags & (TIMESTAMPS_MISSING | SACK_MISSING | HELD_FROM_CLIENT | HELD_FROM_SERVER) == 0;
        if plain && self.sequence_delta == 0 && self.timestamp_delta == 0 {
            return Ok(());
        }
        if let (true, Ok(aligned)) = (plain, AlignedTimestamps::mut_from_bytes(options))
            && aligned.prefix == [1, 1, 8, 10]
        {
            self.translate_timestamps(from, flags, aligned, difference);
            return Ok(());
        }
        self.walk_options(from, flags, options, difference)
    }

    #[inline]
    fn translate_timestamps(
        &self,
        from: Side,
        flags: Flags,
        timestamps: &mut AlignedTimestamps,
        difference: &mut Difference,
    ) {
        if self.flags & TIMESTAMPS == 0 {
            return;
        }
        match from {
            Side::Server => {
                let new = timestamps.value.get().wrapping_add(self.timestamp_delta);
                replace32(&mut timestamps.value, new, difference);
            }
            Side::Client if flags.contains(Flags::ACK) => {
                let new = timestamps.echo.get().wrapping_sub(self.timestamp_delta);
                replace32(&mut timestamps.echo, new, difference);
            }
            Side::Client => {}
        }
    }

    /// Any layout of options, one by one.
    fn walk_options(
        &self,
        from: Side,
        flags: Flags,
        options: &mut [u8],
        difference: &mut Difference,
    ) -> Result<(), SegmentError> {
        let mut at = 0;
        while let Some(&kind) = options.get(at) {
            match kind {
                0 => break,
                1 => at += 1,
                _ => {
                    let length = usize::from(*options.get(at + 1).ok_or(SegmentError::OptionLength)?);
                    let end = at + length;
                    if length < 2 || end > options.len() {
                        return Err(SegmentError::OptionLength);
                    }
                    self.translate_option(from, flags, kind, (options, at, end), difference);
                    at = end;
                }
            }
        }
        Ok(())
    }

    fn translate_option(
        &self,
        from: Side,
        flags: Flags,
        kind: u8,
        (options, at, end): (&mut [u8], usize, usize),
        difference: &mut Difference,
    ) {
        match (kind, end - at, from) {
            (8, 10, Side::Client) if self.flags & TIMESTAMPS_MISSING != 0 => {
                erase(options, at, end, difference);
            }
            (8, 10, Side::Server) if self.flags & TIMESTAMPS != 0 => {
                add_at(options, at + 2, self.timestamp_delta, difference);
            }
            (8, 10, Side::Client) if self.flags & TIMESTAMPS != 0 && flags.contains(Flags::ACK) => {
                add_at(options, at + 6, self.timestamp_delta.wrapping_neg(), difference);
            }
            (5, _, _) if self.flags & (held(from) | missing_sack(from)) != 0 => {
                erase(options, at, end, difference);
            }
            // One that is not made of whole blocks says nothing, and passes like an unknown option.
            (5, length, Side::Client) if length % 8 == 2 => {
                for edge in (at + 2..end).step_by(4) {
                    add_at(options, edge, self.sequence_delta.wrapping_neg(), difference);
                }
            }
            _ => {}
        }
    }
}

/// weir's clock for timestamps: milliseconds.
pub(crate) fn clock(now: Instant) -> u32 {
    now.total_millis() as u32
}

/// A window field of one scale in the units of another.
pub(crate) fn shifted(window: u16, shift: i8) -> u16 {
    let by = u32::from(shift.unsigned_abs()).min(31);
    if shift < 0 {
        u32::from(window).checked_shr(by).map_or(0, |w| w as u16)
    } else {
        (u64::from(window) << by).min(u64::from(u16::MAX)) as u16
    }
}

fn held(from: Side) -> u8 {
    match from {
        Side::Client => HELD_FROM_CLIENT,
        Side::Server => HELD_FROM_SERVER,
    }
}

fn missing_sack(from: Side) -> u8 {
    if from == Side::Client { SACK_MISSING } else { 0 }
}

#[inline]
fn replace32(field: &mut U32, new: u32, difference: &mut Difference) {
    difference.replace32(field.get(), new);
    *field = U32::new(new);
}

#[inline]
fn replace16(field: &mut U16, new: u16, difference: &mut Difference) {
    difference.replace16(field.get(), new);
    *field = U16::new(new);
}

/// Adds to the 32-bit number at `at`, which may stand at an odd place.
fn add_at(options: &mut [u8], at: usize, delta: u32, difference: &mut Difference) {
    let Some(place) = options.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
    let new = u32::from_be_bytes(*place).wrapping_add(delta).to_be_bytes();
    for (index, (old, new)) in place.iter_mut().zip(new).enumerate() {
        difference.replace8(at + index, *old, new);
        *old = new;
    }
}

/// Overwrites an option with NOPs.
fn erase(options: &mut [u8], at: usize, end: usize, difference: &mut Difference) {
    for (index, byte) in options.iter_mut().enumerate().take(end).skip(at) {
        difference.replace8(index, *byte, 1);
        *byte = 1;
    }
}

/// Replaces the options of `segment[..len]` by `new`, moving the payload; returns the new length.
fn replace_options(
    segment: &mut [u8],
    len: usize,
    old_len: usize,
    new: &ArrayVec<u8, MAX_OPTIONS>,
) -> Result<usize, SegmentError> {
    let (from, to) = (HEADER + old_len, HEADER + new.len());
    let total = len.checked_sub(from).ok_or(SegmentError::Truncated)? + to;
    if total > segment.len() {
        return Err(SegmentError::NoRoom);
    }
    let mut difference = Difference::default();
    difference.remove(segment.get(HEADER..from).unwrap_or_default());
    difference.insert(new);
    difference.replace16(len as u16, total as u16);
    segment.copy_within(from..len, to);
    let (header, rest) = Header::mut_from_prefix(segment).map_err(|_| SegmentError::Truncated)?;
    if let Some(options) = rest.get_mut(..new.len()) {
        options.copy_from_slice(new);
    }
    let offset = (header.offset & 0x0F) | (((to / 4) << 4) as u8);
    difference.replace8(0, header.offset, offset);
    header.offset = offset;
    header.checksum = U16::new(difference.apply(header.checksum.get()));
    Ok(total)
}

#[cfg(test)]
mod tests;
