//! The segments that weir itself sends.

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::half::{Mode, Range};
use super::leg::Reset;
use super::{Binding, Phase, Transmit};
use crate::{Flags, Options, SackBlock, Segment, SeqNumber, Side, Timestamps};

impl Binding {
    /// The next segment to be sent; after every other call, call until `None` or until [`Binding::wants_transmit`] is false.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        if let Some((to, reset)) = self.take_reset() {
            return Some(Transmit { to, segment: reset_segment(reset), again: false });
        }
        if std::mem::take(&mut self.client.last_ack_due) {
            return Some(self.acknowledgement(now, Side::Client));
        }
        if matches!(self.phase, Phase::Ended | Phase::TimedOut) {
            return None;
        }
        if std::mem::take(&mut self.retry.due) {
            let again = std::mem::replace(&mut self.retry.sent, true);
            return Some(Transmit { again, ..self.opening(now) });
        }
        for to in [Side::Server, Side::Client] {
            let (window, mss) = (self.leg(to).window, self.leg(to).payload_size());
            if let Some(range) = self.half_mut(to.opposite()).poll(now, window, mss) {
                return Some(self.replayed(now, to, range));
            }
        }
        for to in [Side::Client, Side::Server] {
            if std::mem::take(&mut self.leg_mut(to).ack_due) {
                return Some(self.acknowledgement(now, to));
            }
        }
        None
    }

    /// False if [`Binding::poll_transmit`] would return `None` and change nothing.
    #[inline]
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        let says = self.client.reset.is_some() | self.server.reset.is_some() | self.client.last_ack_due;
        let over = matches!(self.phase, Phase::Ended | Phase::TimedOut);
        let owes = self.retry.due | self.client.ack_due | self.server.ack_due;
        says || !over && (owes || self.up.wants_poll() || self.down.wants_poll())
    }

    fn take_reset(&mut self) -> Option<(Side, Reset)> {
        let client = self.client.reset.take().map(|reset| (Side::Client, reset));
        if client.is_some() && self.phase == Phase::TimedOut {
            self.phase = Phase::Ended;
        }
        client.or_else(|| self.server.reset.take().map(|reset| (Side::Server, reset)))
    }

    /// SYN-ACK or SYN.
    fn opening(&self, now: Instant) -> Transmit<'_> {
        let (leg, scale) = (&self.client, self.client.scaled);
        let timestamps = |echo| move |value| Timestamps { value, echo };
        if self.phase == Phase::Handshake {
            let value = leg.timestamps.then(|| self.timestamp_for(now, Side::Client));
            let options = Options {
                mss: Some(self.promise.mss),
                window_scale: scale.then_some(leg.our_shift),
                sack_permitted: leg.sack,
                timestamps: value.map(timestamps(leg.recent)),
                ..Options::default()
            };
            let window = clamp(self.up.room());
            let (seq, ack, flags) = (self.isn, self.up.first, Flags::SYN | Flags::ACK);
            let segment = Segment { seq, ack, flags, window, options, ..Segment::default() };
            return Transmit { to: Side::Client, segment, again: false };
        }
        let options = Options {
            mss: Some(self.mss_for_server()),
            window_scale: scale.then_some(leg.their_shift),
            sack_permitted: leg.sack,
            timestamps: leg.timestamps.then_some(leg.newest).map(timestamps(0)),
            ..Options::default()
        };
        let window = clamp(if self.hold { self.server_room } else { leg.window });
        let segment =
            Segment { seq: self.syn_seq(), flags: Flags::SYN, window, options, ..Segment::default() };
        Transmit { to: Side::Server, segment, again: false }
    }

    /// A part of a stream that weir delivers. It acknowledges as well.
    fn replayed(&mut self, now: Instant, to: Side, range: Range) -> Transmit<'_> {
        self.leg_mut(to).ack_due = false;
        let mut flags = Flags::ACK;
        if range.push && range.start < range.end {
            flags = flags | Flags::PSH;
        }
        if range.fin {
            flags = flags | Flags::FIN;
        }
        let half = self.half(to.opposite());
        let payload = half.data.contiguous().get(range.start..range.end).unwrap_or_default();
        let segment = self.segment(now, to, range.seq.advanced(half.shift), flags);
        Transmit { to, segment: Segment { payload, ..segment }, again: range.again }
    }

    /// A pure acknowledgement, with what SACK can say.
    fn acknowledgement(&self, now: Instant, to: Side) -> Transmit<'_> {
        let mut segment = self.segment(now, to, self.send_next(to), Flags::ACK);
        if self.leg(to).sack {
            match self.half(to).mode {
                Mode::Through if self.leg(to.opposite()).reported.is_empty() => {}
                Mode::Through => segment.options.sack = self.passed_on(to),
                Mode::Held | Mode::Replaying if !self.half(to).data.has_holes() => {}
                Mode::Held | Mode::Replaying => segment.options.sack = self.waiting(to),
            }
        }
        Transmit { to, segment, again: false }
    }

    /// What the other side has reported, in the numbers of this one.
    fn passed_on(&self, to: Side) -> ArrayVec<SackBlock, 4> {
        let shift = self.half(to).shift;
        let block = |block: &SackBlock| SackBlock {
            left: block.left.receded(shift),
            right: block.right.receded(shift),
        };
        self.leg(to.opposite()).reported.iter().map(block).collect()
    }

    /// What weir itself has of this side beyond a hole.
    fn waiting(&self, to: Side) -> ArrayVec<SackBlock, 4> {
        let half = self.half(to);
        let number = |offset: usize| half.first.advanced(offset as u32);
        let ranges = half.data.waiting().take(4);
        ranges.map(|(left, right)| SackBlock { left: number(left), right: number(right) }).collect()
    }

    /// Everything but payload and SACK blocks.
    fn segment(&self, now: Instant, to: Side, seq: SeqNumber, flags: Flags) -> Segment<'static> {
        let leg = self.leg(to);
        let timestamps =
            leg.timestamps.then(|| Timestamps { value: self.timestamp_for(now, to), echo: leg.recent });
        Segment {
            seq,
            ack: self.half(to).next(),
            flags,
            window: self.window_for(to),
            options: Options { timestamps, ..Options::default() },
            ..Segment::default()
        }
    }

    /// The window field for `to`: the room in weir's buffer, rounded up to the scale, so that the right edge that the
    /// buffer gives is never offered and then withdrawn; or the window of the other side, once its stream passes.
    pub(super) fn window_for(&self, to: Side) -> u16 {
        let shift = self.leg(to).our_shift;
        match self.half(to).mode {
            Mode::Through => clamp(self.leg(to.opposite()).window >> shift),
            Mode::Held | Mode::Replaying => clamp(self.half(to).room().div_ceil(1 << shift)),
        }
    }
}

fn clamp(window: u32) -> u16 {
    u16::try_from(window).unwrap_or(u16::MAX)
}

fn reset_segment(reset: Reset) -> Segment<'static> {
    let flags = if reset.ack.is_some() { Flags::RST | Flags::ACK } else { Flags::RST };
    Segment { seq: reset.seq, ack: reset.ack.unwrap_or_default(), flags, ..Segment::default() }
}
