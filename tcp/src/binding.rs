//! Delayed binding: weir is the server of a client until the decision, then the client of a server until all that it had
//! acknowledged to the one is acknowledged by the other.
//!
//! The work is done by two streams and two legs. A [`Half`] carries the bytes of one side to the other; a [`Leg`] is what
//! was agreed with one side, and what is to be said to it. One file per phase: `handshake` (client), `connect` (server),
//! `synchronized` (segments of either side once connected), `close`, `timeout`; `transmit` makes the segments.

mod close;
mod connect;
mod half;
mod handshake;
mod leg;
mod synchronized;
mod timeout;
mod transmit;

#[cfg(test)]
mod tests;

use smoltcp::time::{Duration, Instant};

use crate::replay::INITIAL_TIMEOUT;
use crate::splice::{
    HELD_FROM_CLIENT, HELD_FROM_SERVER, SACK_MISSING, TIMESTAMPS, TIMESTAMPS_MISSING, clock,
};
use crate::{End, Event, Limits, Promise, Segment, SeqNumber, Side, Splice, Track};
use half::{Half, Mode};
pub(crate) use handshake::DEFAULT_MSS;
use leg::Leg;

/// A segment to be sent, from [`Binding::poll_transmit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Whom it is for.
    pub to: Side,
    /// What to send; [`Segment::emit`] writes it.
    pub segment: Segment<'a>,
    /// A retransmission: something in it was sent before. False for acknowledgements and resets.
    pub again: bool,
}

/// Where a binding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// SYN received, SYN-ACK sent.
    Handshake,
    /// The client is connected, no server was asked for.
    Waiting,
    /// As `Waiting`, but the time is up and a reset goes out with the next poll.
    TimedOut,
    /// SYN sent to the server.
    Connecting,
    /// Both are connected; at least one stream is not yet through.
    Replaying,
    /// Both streams are through.
    Spliced,
    /// A FIN of weir's is on its way to the client.
    Closing,
    /// Nothing is taken any more.
    Ended,
}

/// A segment of a handshake that is sent again and again.
#[derive(Clone, Copy, Debug)]
struct Retry {
    due: bool,
    /// It has gone out at least once.
    sent: bool,
    at: Instant,
    interval: Duration,
}

impl Retry {
    fn start(now: Instant) -> Self {
        Retry { due: true, sent: false, at: now + INITIAL_TIMEOUT, interval: INITIAL_TIMEOUT }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.at {
            self.interval = self.interval + self.interval;
            self.at = now + self.interval;
            self.due = true;
        }
    }
}

/// One connection before its splice. Owned by the flow; lives from the client's SYN to [`Event::Spliced`] or
/// [`Event::Ended`].
///
/// Order of calls: [`Binding::accept`]; for every segment [`Binding::handle_segment`], at [`Binding::poll_timeout`]
/// [`Binding::handle_timeout`], and after any call [`Binding::poll_transmit`] until it gives `None` or
/// [`Binding::wants_transmit`] is false. [`Binding::connect`] when a server was chosen, again after
/// [`Event::ConnectFailed`]. About 700 bytes, plus the bytes buffered, plus 512 bytes per direction while segments are out of
/// order. Nothing here panics, whatever arrives.
///
/// Timers: SYN-ACK and SYN are repeated after 1, 2, 4 … seconds until their timeout; replayed bytes after RFC 6298. A
/// connection that lost packets is spliced or ends by one of the [`Limits`]. The one wait without a timer of its own is
/// that for a held response, which is the server's affair: the caller's idle timeout ends it.
#[derive(Debug)]
pub struct Binding {
    phase: Phase,
    limits: Limits,
    promise: Promise,
    client: Leg,
    server: Leg,
    /// Client to server.
    up: Half,
    /// Server to client; before the server is known, its numbers are those of weir's SYN-ACK.
    down: Half,
    /// weir's own ISN, towards the client.
    isn: SeqNumber,
    timestamp_offset: u32,
    /// Added to the server's TSval towards the client.
    timestamp_delta: u32,
    /// SYN-ACK or SYN.
    retry: Retry,
    /// End of the phase, where it has one.
    deadline: Instant,
    hold: bool,
    /// Bytes of a held response that the server may send.
    server_room: u32,
    established: bool,
    /// What is reported at the end of `Closing`.
    ending: End,
    /// The SYN-ACK of a server has arrived.
    connected: bool,
    /// `Spliced` or `Ended(Closed)` is still to be reported by `handle_timeout`, from this time on.
    pending: Option<Instant>,
}

impl Binding {
    /// Everything from the first byte of `side` on that is contiguous and still buffered by weir. Does not shrink before
    /// the splice, but by [`Binding::skip`]; what [`Binding::connect`] puts in front is no part of it.
    #[must_use]
    #[inline]
    pub fn payload(&self, side: Side) -> &[u8] {
        self.half(side).payload()
    }

    /// Takes the first `count` bytes of the client's payload away: the server is not to get them, and its numbers begin
    /// behind them. Does nothing unless the client is connected and no server is.
    pub fn skip(&mut self, count: usize) {
        if matches!(self.phase, Phase::Waiting | Phase::TimedOut) {
            self.up.skip(count);
        }
    }

    /// True once the FIN of `side` has arrived and everything before it is in [`Binding::payload`].
    #[must_use]
    pub fn finished(&self, side: Side) -> bool {
        self.half(side).finished()
    }

    /// [`Binding::finished`] for the client: no further byte will come to decide on.
    #[must_use]
    pub fn client_finished(&self) -> bool {
        self.finished(Side::Client)
    }

    /// True once the client's handshake is complete.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// True once the server has answered with SYN-ACK.
    #[must_use]
    #[inline]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// True from the moment on when [`Event::Spliced`] is due, even where the segment that brought it was
    /// [`Event::Forward`]: after a last poll for output the binding may be dropped.
    #[must_use]
    pub fn is_spliced(&self) -> bool {
        self.phase == Phase::Spliced
    }

    /// The client's latest TSval, if it uses timestamps: the `echo` of [`Splice::insert_timestamps`].
    #[must_use]
    pub fn client_timestamp(&self) -> Option<u32> {
        self.client.timestamps.then_some(self.client.newest)
    }

    /// The translation between the two sides. Valid once [`Binding::is_connected`]; transparent before.
    ///
    /// Until the splice is complete it holds for the one packet that [`Event::Forward`] was about: it makes that packet
    /// acknowledge exactly what weir itself has acknowledged, with weir's window and without SACK blocks.
    #[must_use]
    pub fn splice(&self) -> Splice {
        if !self.connected {
            return Splice::default();
        }
        let mut splice = Splice {
            sequence_delta: self.down.shift,
            timestamp_delta: self.timestamp_delta,
            server_mss: if self.server.mss < self.promise.mss { self.server.mss } else { 0 },
            window_to_server: self.client.their_shift as i8 - self.server.our_shift as i8,
            window_to_client: self.server.their_shift as i8 - self.client.our_shift as i8,
            ..Splice::default()
        };
        splice.flags = match (self.client.timestamps, self.server.timestamps) {
            (true, true) => TIMESTAMPS,
            (true, false) => TIMESTAMPS_MISSING,
            (false, _) => 0,
        };
        if self.client.sack && !self.server.sack {
            splice.flags |= SACK_MISSING;
        }
        for (of, flag) in [(Side::Client, HELD_FROM_SERVER), (Side::Server, HELD_FROM_CLIENT)] {
            if self.half(of).mode != Mode::Through && self.half(of.opposite()).mode == Mode::Through {
                splice.flags |= flag;
                splice.held_ack = self.half(of).next().value();
                splice.held_window = self.window_for(of);
            }
        }
        splice
    }

    /// Where both directions stand, for the time after the splice and for a packet that is to be forwarded before.
    #[must_use]
    pub fn track(&self) -> Track {
        let course = |half: &Half, leg: &Leg| {
            (half.replay.high.later(half.next()), half.replay.una, leg.window, leg.their_shift)
        };
        Track::new(course(&self.up, &self.client), course(&self.down, &self.server))
    }

    /// A packet to `to` with this sequence number was larger than its way allows (RFC 1191, RFC 8201): segments of
    /// weir's are not longer than `mss` from now on, and what was lost is repeated by its timer. False, and nothing
    /// changes, if no such segment is on its way (RFC 5927) or none was longer.
    pub fn reduce_mss(&mut self, to: Side, seq: SeqNumber, mss: u16) -> bool {
        let half = self.half(to.opposite());
        let seq = seq.receded(half.shift);
        let in_flight = !seq.is_before(half.replay.una) && seq.is_before(half.replay.high);
        let leg = self.leg_mut(to);
        let smaller = in_flight && mss < leg.mss;
        if smaller {
            leg.mss = mss.max(handshake::MIN_MSS);
        }
        smaller
    }

    /// Takes in a segment.
    ///
    /// A FIN of the client before the decision: together with bytes, or after bytes, it is [`Event::Data`], and
    /// [`Binding::client_finished`] is true from then on; without a single byte before it, weir
    /// closes as well, and reports [`End::ClientClosed`] in the end. After [`Binding::connect`] it is replayed like a byte.
    pub fn handle_segment(&mut self, now: Instant, from: Side, segment: &Segment<'_>) -> Event {
        match (self.phase, from) {
            (Phase::Spliced, _) => self.pass(from, segment),
            (Phase::Ended, _) => Event::Rejected,
            (Phase::Handshake, Side::Client) => self.handle_handshake(now, segment),
            (Phase::Connecting, Side::Server) => self.handle_connecting(now, segment),
            (Phase::Closing, Side::Client) => self.handle_closing(now, segment),
            (Phase::Replaying, _) | (_, Side::Client) => self.handle_synchronized(now, from, segment),
            (_, Side::Server) => {
                self.server.reset_for(segment);
                Event::Rejected
            }
        }
    }

    /// Opens the connection to a server, or to the next one after [`Event::ConnectFailed`]. The SYN carries the client's
    /// options and, without `prefix`, its ISN. With `hold_response` the server's bytes stay here, as [`Event::Data`],
    /// until [`Binding::release_response`]. Does nothing unless the client is connected and no server is.
    ///
    /// `prefix` is what the server gets ahead of the client's bytes, and replayed like them; at most 65,535 bytes count. It
    /// takes the numbers before the client's first byte, so that the ISN is as much lower and the client's own numbers
    /// are right for the server as they are. That of an earlier attempt is forgotten.
    pub fn connect(&mut self, now: Instant, hold_response: bool, prefix: &[u8]) {
        if !matches!(self.phase, Phase::Waiting | Phase::TimedOut) {
            return;
        }
        self.up.set_front(prefix);
        self.client.reset = None;
        self.server.reset = None;
        self.phase = Phase::Connecting;
        self.hold = hold_response;
        self.server_room = self.room_for_server();
        self.retry = Retry::start(now);
        self.deadline = now + self.limits.connect_timeout;
    }

    /// The held response may pass: what is buffered goes to the client, retransmitted by weir until it is acknowledged,
    /// then comes [`Event::Spliced`]; with an empty buffer and nothing left to replay, at the next
    /// [`Binding::handle_timeout`], which is due at once.
    pub fn release_response(&mut self, now: Instant) {
        self.hold = false;
        if self.phase != Phase::Replaying || self.down.mode != Mode::Held {
            return;
        }
        self.down.start_replay(now + self.limits.replay_timeout);
        if self.settle(now) {
            self.pending = Some(now);
        }
    }

    #[inline]
    fn half(&self, from: Side) -> &Half {
        match from {
            Side::Client => &self.up,
            Side::Server => &self.down,
        }
    }

    #[inline]
    fn half_mut(&mut self, from: Side) -> &mut Half {
        match from {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        }
    }

    #[inline]
    fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    #[inline]
    fn leg_mut(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// TSval of weir's own segments. The client sees one clock that never goes back: weir's until the server is known,
    /// then the server's, shifted to go on from there.
    #[inline]
    fn timestamp_for(&self, now: Instant, to: Side) -> u32 {
        match to {
            Side::Server => self.client.newest,
            Side::Client if self.connected && self.server.timestamps => {
                self.server.newest.wrapping_add(self.timestamp_delta)
            }
            Side::Client => clock(now).wrapping_add(self.timestamp_offset),
        }
    }

    /// Lets streams that have arrived pass through; true if that was the last one.
    fn settle(&mut self, now: Instant) -> bool {
        for from in [Side::Client, Side::Server] {
            let window = self.leg(from.opposite()).window;
            if self.phase == Phase::Replaying && self.half(from).is_delivered() {
                self.half_mut(from).pass_through(window);
                // The window is the destination's from now on: its source hears of it at once.
                self.leg_mut(from).ack_due = true;
            }
        }
        let complete = self.phase == Phase::Replaying
            && self.up.mode == Mode::Through
            && self.down.mode == Mode::Through;
        if complete {
            self.phase = Phase::Spliced;
            self.deadline = now;
        }
        complete
    }

    fn end(&mut self, end: End) -> Event {
        self.phase = Phase::Ended;
        self.pending = None;
        Event::Ended(end)
    }
}
