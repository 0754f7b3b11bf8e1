//! The bytes of one side on their way to the other.

use smoltcp::time::Instant;

use crate::replay::{Replay, Supply};
use crate::{Flags, Reassembly, Segment, SeqNumber, TooManyHoles};

/// What weir does with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Buffers it and acknowledges what it has buffered.
    Held,
    /// As `Held`, and sends it on until it is acknowledged.
    Replaying,
    /// Packets pass; acknowledgements are passed back.
    Through,
}

/// One direction. All numbers are those of the source; `shift` turns them into the destination's.
#[derive(Debug)]
pub(super) struct Half {
    pub mode: Mode,
    /// Number of the first byte that the destination is to get, those of weir's own at the front included.
    pub first: SeqNumber,
    /// How many bytes at the front are weir's own: the source's follow, with the numbers that it gave them.
    own: u16,
    pub shift: u32,
    pub data: Reassembly,
    /// Number of the FIN, once it was seen.
    fin: Option<SeqNumber>,
    /// After the last byte that is offered.
    room_end: SeqNumber,
    /// After the last byte that is accepted: everything that was ever offered.
    pub edge: SeqNumber,
    pub replay: Replay,
}

/// What a segment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Nothing new in order.
    Nothing,
    /// More bytes, or the FIN.
    Progress,
    /// The packet is to be passed on.
    Pass,
}

impl Half {
    /// A stream whose first byte has the number `first`, of which `room` bytes are taken. `unit`: one step of the window
    /// field in bytes, by which an offer may be rounded up.
    pub(super) fn new(first: SeqNumber, shift: u32, room: u32, unit: u32) -> Self {
        Half::with(Reassembly::default(), (first, shift), room, unit)
    }

    /// [`Half::new`] in the place of a stream that is over.
    pub(super) fn begin(&mut self, first: SeqNumber, shift: u32, room: u32, unit: u32) {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        *self = Half::with(data, (first, shift), room, unit);
    }

    fn with(data: Reassembly, (first, shift): (SeqNumber, u32), room: u32, unit: u32) -> Self {
        let room_end = first.advanced(room);
        Half {
            mode: Mode::Held,
            first,
            own: 0,
            shift,
            data,
            fin: None,
            room_end,
            edge: room_end.advanced(unit.saturating_sub(1)),
            replay: Replay::new(first),
        }
    }

    /// What the source has said, as far as it is in order and the destination is to get it.
    #[inline]
    pub(super) fn payload(&self) -> &[u8] {
        self.data.contiguous().get(usize::from(self.own)..).unwrap_or_default()
    }

    /// Takes the first `count` bytes of the source away, at most what is in order: the destination is not to get them.
    /// There is room for as many more.
    pub(super) fn skip(&mut self, count: usize) {
        let count = count.min(self.payload().len());
        self.set_front(&[]);
        self.data.replace_front(count, &[]);
        self.restart_at(self.first.advanced(count as u32));
        self.room_end = self.room_end.advanced(count as u32);
        self.edge = self.edge.advanced(count as u32);
    }

    /// Puts bytes of weir's own in front of the source's, in place of those that were there. They take the numbers
    /// before the source's first, so that its own stay right. Only while nothing was sent; at most 65,535 count.
    pub(super) fn set_front(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
        self.data.replace_front(usize::from(self.own), bytes);
        let source = self.first.advanced(u32::from(self.own));
        self.own = bytes.len() as u16;
        self.restart_at(source.receded(u32::from(self.own)));
    }

    /// The stream begins with this number.
    fn restart_at(&mut self, first: SeqNumber) {
        self.first = first;
        self.replay = Replay::new(first);
    }

    /// Next number expected by weir itself.
    #[inline]
    fn assembled(&self) -> SeqNumber {
        let next = self.first.advanced(self.data.contiguous().len() as u32);
        if self.fin == Some(next) { next.advanced(1) } else { next }
    }

    /// What the source has had acknowledged (RCV.NXT).
    #[inline]
    pub(super) fn next(&self) -> SeqNumber {
        match self.mode {
            Mode::Held | Mode::Replaying => self.assembled(),
            Mode::Through => self.replay.una,
        }
    }

    /// Everything up to the FIN is here.
    #[inline]
    pub(super) fn finished(&self) -> bool {
        self.fin == Some(self.first.advanced(self.data.contiguous().len() as u32))
    }

    /// The FIN was acknowledged to the source.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.fin.is_some_and(|fin| self.next().is_after(fin))
    }

    /// The FIN was acknowledged by the destination.
    #[inline]
    pub(super) fn is_closed_by_destination(&self) -> bool {
        self.fin.is_some_and(|fin| self.replay.una.is_after(fin))
    }

    /// Bytes that weir itself still takes.
    #[inline]
    pub(super) fn room(&self) -> u32 {
        let next = self.assembled();
        if next.is_before(self.room_end) { self.room_end.since(next) } else { 0 }
    }

    /// RFC 9293, 3.10.7.4, first step, for the window that was offered. An empty segment at the window's edge is taken:
    /// it is what a peer sends that has filled the window while a segment was lost. In a stream that passes, so are
    /// probes of a closed window or of an idle connection: only the destination knows whether they are news to it.
    #[inline]
    pub(super) fn accepts(&self, segment: &Segment<'_>) -> bool {
        let (next, length) = (self.next(), segment.len());
        if self.is_probe(segment) {
            return true;
        }
        if length == 0 {
            return !segment.seq.is_before(next) && !segment.seq.is_after(self.edge.later(next));
        }
        segment.seq.is_before(self.edge) && segment.seq.advanced(length).is_after(next)
    }

    /// A window probe (RFC 9293, 3.8.6.1) or keep-alive (3.8.4) in a stream that passes.
    #[inline]
    fn is_probe(&self, segment: &Segment<'_>) -> bool {
        let next = self.next();
        let keep_alive = segment.seq == next.receded(1) && segment.len() <= 1;
        let window_probe = segment.seq == next && segment.seq == self.edge && !segment.is_empty();
        let plain = !segment.flags.intersects(Flags::SYN | Flags::RST | Flags::FIN);
        self.mode == Mode::Through && plain && (keep_alive || window_probe)
    }

    /// Takes the payload and FIN of an acceptable segment.
    #[inline]
    pub(super) fn take(&mut self, segment: &Segment<'_>, fin: bool) -> Result<Intake, TooManyHoles> {
        let end = segment.seq.advanced(segment.payload.len() as u32);
        if self.mode == Mode::Through {
            let passes = !segment.is_empty() || self.is_probe(segment);
            if fin {
                self.fin.get_or_insert(end);
            }
            self.replay.high = self.replay.high.later(end.advanced(u32::from(fin)));
            return Ok(if passes { Intake::Pass } else { Intake::Nothing });
        }
        let before = self.assembled();
        let limit = self.fin.unwrap_or(self.edge).since(self.first) as usize;
        let skip = if segment.seq.is_before(self.first) { self.first.since(segment.seq) as usize } else { 0 };
        let offset = segment.seq.later(self.first).since(self.first) as usize;
        self.data.insert(offset, segment.payload.get(skip..).unwrap_or_default(), limit)?;
        if fin && self.fin.is_none() && !end.is_before(self.assembled()) && !end.is_after(self.edge) {
            self.fin = Some(end);
        }
        Ok(if self.assembled() == before { Intake::Nothing } else { Intake::Progress })
    }

    /// The stream is empty and over: all that is left to deliver is a FIN.
    pub(super) fn finish(&mut self) {
        self.fin = Some(self.first);
    }

    pub(super) fn start_replay(&mut self, deadline: Instant) {
        self.mode = Mode::Replaying;
        self.replay.deadline = deadline;
    }

    /// Nothing that weir has acknowledged is unacknowledged by the destination.
    #[inline]
    pub(super) fn is_delivered(&self) -> bool {
        self.mode == Mode::Replaying && self.replay.una == self.assembled() && !self.data.has_holes()
    }

    pub(super) fn pass_through(&mut self, window: u32) {
        self.mode = Mode::Through;
        self.replay.stop();
        self.widen(window);
    }

    /// The destination's window in a stream that passes through. The edge never goes back.
    pub(super) fn widen(&mut self, window: u32) {
        self.edge = self.edge.later(self.replay.una.advanced(window));
    }

    /// False if [`Half::poll`] would give nothing and change nothing.
    #[inline]
    pub(super) fn wants_poll(&self) -> bool {
        self.mode == Mode::Replaying && self.replay.wants_poll(self.assembled())
    }

    /// The next range to replay, and whether it ends with FIN.
    #[inline]
    pub(super) fn poll(&mut self, now: Instant, window: u32, mss: u32) -> Option<Range> {
        if self.mode != Mode::Replaying {
            return None;
        }
        let supply = Supply { end: self.assembled(), window, mss };
        let high = self.replay.high;
        let (seq, length) = self.replay.poll(now, supply)?;
        let start = seq.since(self.first) as usize;
        let available = self.data.contiguous().len();
        let end = (start + length as usize).min(available);
        let fin = start + length as usize > available;
        Some(Range { seq, start, end, fin, push: end == available, again: seq.is_before(high) })
    }
}

/// A part of a stream to be sent in one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub seq: SeqNumber,
    pub start: usize,
    pub end: usize,
    pub fin: bool,
    pub push: bool,
    /// It was sent before, or a part of it.
    pub again: bool,
}
