//! What was agreed with one side, and what is to be said to it.

use arrayvec::ArrayVec;

use crate::{Flags, SackBlock, Segment, SeqNumber};

/// A reset to be sent; without `ack` it has no ACK flag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    pub seq: SeqNumber,
    pub ack: Option<SeqNumber>,
}

/// weir's conversation with one side.
#[derive(Debug, Default)]
pub(super) struct Leg {
    /// Largest segment that it takes, in bytes of payload and options.
    pub mss: u16,
    pub timestamps: bool,
    pub sack: bool,
    /// Both sides sent a window scale.
    pub scaled: bool,
    /// Scale of the windows that it sends.
    pub their_shift: u8,
    /// Scale of the windows that it is sent.
    pub our_shift: u8,
    /// Its window in bytes (SND.WND), and the numbers of the segment that it came with (SND.WL1, SND.WL2).
    pub window: u32,
    pub window_seq: SeqNumber,
    pub window_ack: SeqNumber,
    /// The largest window ever seen (MAX.SND.WND of RFC 5961).
    pub largest_window: u32,
    /// TS.Recent of RFC 7323: what is echoed and checked against.
    pub recent: u32,
    /// The latest TSval seen.
    pub newest: u32,
    /// SACK blocks of its last acknowledgement, to be passed on.
    pub reported: ArrayVec<SackBlock, 4>,
    pub ack_due: bool,
    /// An acknowledgement that goes out although the connection is over: of the FIN that ended it.
    pub last_ack_due: bool,
    pub reset: Option<Reset>,
}

impl Leg {
    /// Bytes of payload in a full segment of weir's.
    #[inline]
    pub(super) fn payload_size(&self) -> u32 {
        u32::from(self.mss).saturating_sub(if self.timestamps { 12 } else { 0 })
    }

    /// Takes over the window of an acceptable segment (RFC 9293, 3.10.7.4); true if it has changed.
    #[inline]
    pub(super) fn update_window(&mut self, segment: &Segment<'_>) -> bool {
        let newer = segment.seq.is_after(self.window_seq)
            || (segment.seq == self.window_seq && !segment.ack.is_before(self.window_ack));
        if !newer {
            return false;
        }
        self.window_seq = segment.seq;
        self.window_ack = segment.ack;
        self.set_window(u32::from(segment.window) << self.their_shift.min(14))
    }

    #[inline]
    pub(super) fn set_window(&mut self, window: u32) -> bool {
        self.largest_window = self.largest_window.max(window);
        std::mem::replace(&mut self.window, window) != window
    }

    /// Remembers the clock of a segment that was in the window (RFC 7323, 4.3 and 5.3). `acknowledged`: the last number
    /// that weir acknowledged to this side.
    #[inline]
    pub(super) fn note_clock(&mut self, segment: &Segment<'_>, acknowledged: SeqNumber) {
        let Some(timestamps) = segment.options.timestamps.filter(|_| self.timestamps) else { return };
        if !is_older(timestamps.value, self.newest) {
            self.newest = timestamps.value;
        }
        if !segment.seq.is_after(acknowledged) && !is_older(timestamps.value, self.recent) {
            self.recent = timestamps.value;
        }
    }

    /// Reset for a segment that has no place in any state (RFC 9293, 3.10.7.1).
    pub(super) fn reset_for(&mut self, segment: &Segment<'_>) {
        if let Some(reset) = crate::reset_for(segment) {
            let ack = reset.flags.contains(Flags::ACK).then_some(reset.ack);
            self.reset = Some(Reset { seq: reset.seq, ack });
        }
    }
}

/// Comparison of timestamps: modulo 2^32, as of sequence numbers (RFC 7323, 5.2).
#[inline]
pub(super) fn is_older(value: u32, than: u32) -> bool {
    SeqNumber::new(value).is_before(SeqNumber::new(than))
}
