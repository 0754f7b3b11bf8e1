//! Segments on their way out: written once, to the place that they leave from.

use arrayvec::ArrayVec;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::{
    HEADER, Header, MAX_OPTIONS, MSS, NOP, Options, SACK, SACK_PERMITTED, Segment, SegmentError, TIMESTAMPS,
    Timestamps, WINDOW_SCALE,
};

impl Segment<'_> {
    /// Bytes that [`Segment::emit`] writes.
    #[inline]
    #[must_use]
    pub fn wire_len(&self) -> usize {
        HEADER + self.options.wire_len() + self.payload.len()
    }

    /// Writes the segment to the front of `out` and returns its length in bytes. The checksum field is left 0 for the
    /// caller, who knows the addresses. Options are padded with NOP; SACK blocks that do not fit are left out, the last
    /// first.
    ///
    /// # Errors
    /// [`SegmentError::NoRoom`] when `out` is shorter than [`Segment::wire_len`].
    #[inline]
    pub fn emit(
        &self,
        source_port: u16,
        destination_port: u16,
        out: &mut [u8],
    ) -> Result<usize, SegmentError> {
        let options = self.options.wire_len();
        let (header, rest) = out.split_first_chunk_mut::<HEADER>().ok_or(SegmentError::NoRoom)?;
        let (tail, rest) = rest.split_at_mut_checked(options).ok_or(SegmentError::NoRoom)?;
        let payload = rest.get_mut(..self.payload.len()).ok_or(SegmentError::NoRoom)?;
        *header = zerocopy::transmute!(Header {
            ports: [U16::new(source_port), U16::new(destination_port)],
            seq: U32::new(self.seq.value()),
            ack: U32::new(self.ack.value()),
            offset: ((HEADER + options) as u8 / 4) << 4,
            flags: self.flags.0,
            window: U16::new(self.window),
            checksum: U16::ZERO,
            urgent: U16::new(self.urgent),
        });
        self.options.write(tail);
        payload.copy_from_slice(self.payload);
        Ok(HEADER + options + self.payload.len())
    }
}

impl Options {
    /// Bytes of all but SACK blocks.
    #[inline]
    fn without_sack(&self) -> usize {
        usize::from(self.mss.is_some()) * 4
            + usize::from(self.window_scale.is_some()) * 4
            + usize::from(self.sack_permitted) * 4
            + usize::from(self.timestamps.is_some()) * 12
    }

    /// SACK blocks that fit beside the other options.
    #[inline]
    pub(super) fn sack_that_fits(&self) -> usize {
        self.sack.len().min(MAX_OPTIONS.saturating_sub(self.without_sack() + 4) / 8)
    }

    /// Bytes on the wire, a multiple of four and at most 40.
    #[inline]
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let without = self.without_sack();
        if self.sack.is_empty() {
            return without;
        }
        let blocks = self.sack_that_fits();
        without + if blocks > 0 { 4 + 8 * blocks } else { 0 }
    }

    pub(crate) fn encode(&self) -> ArrayVec<u8, MAX_OPTIONS> {
        let mut bytes = ArrayVec::from([0; MAX_OPTIONS]);
        self.write(&mut bytes);
        bytes.truncate(self.wire_len());
        bytes
    }

    /// Fills the front of `out`, [`Options::wire_len`] bytes of it.
    #[inline]
    fn write(&self, out: &mut [u8]) {
        let mut place = Place(out);
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            place.put([MSS, 4, high, low]);
        }
        if self.sack_permitted {
            place.put([NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(shift) = self.window_scale {
            place.put([NOP, WINDOW_SCALE, 3, shift]);
        }
        if let Some(timestamps) = self.timestamps {
            place.put(timestamps.encode());
        }
        if !self.sack.is_empty() {
            self.write_sack(place);
        }
    }

    fn write_sack(&self, mut place: Place<'_>) {
        let blocks = self.sack_that_fits();
        if blocks > 0 {
            place.put([NOP, NOP, SACK, (2 + 8 * blocks) as u8]);
        }
        for block in self.sack.iter().take(blocks) {
            place.put(block.left.value().to_be_bytes());
            place.put(block.right.value().to_be_bytes());
        }
    }
}

impl Timestamps {
    /// The option in its recommended layout: NOP, NOP, kind 8 (RFC 7323, appendix A).
    #[inline]
    pub(crate) fn encode(self) -> [u8; 12] {
        let [a, b, c, d] = self.value.to_be_bytes();
        let [e, f, g, h] = self.echo.to_be_bytes();
        [NOP, NOP, TIMESTAMPS, 10, a, b, c, d, e, f, g, h]
    }
}

/// What is still to be filled.
struct Place<'a>(&'a mut [u8]);

impl Place<'_> {
    /// What has no room is left out; the length was counted before, so that nothing is.
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some((front, rest)) = std::mem::take(&mut self.0).split_first_chunk_mut() {
            *front = bytes;
            self.0 = rest;
        }
    }
}
