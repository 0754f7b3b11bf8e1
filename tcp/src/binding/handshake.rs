//! The client's handshake: what may be promised before the server is known.

use smoltcp::time::Instant;

use super::{Binding, Half, Leg, Phase, Retry};
use crate::segment::MAX_WINDOW_SCALE;
use crate::{End, Event, Flags, Limits, Promise, Segment, SeqNumber, Side};

/// Segment size of a peer that names none (RFC 9293, 3.7.1, for IPv4).
pub(crate) const DEFAULT_MSS: u16 = 536;
/// Smallest segment size that is believed; a smaller one would turn every byte into a packet.
pub(super) const MIN_MSS: u16 = 64;

impl Binding {
    /// Answers a client's SYN. The SYN-ACK offers what both the SYN and `promise` have; `isn` is its sequence number
    /// (RFC 6528 says how to choose one), and `timestamp_offset` is added to the clock in milliseconds to make TSval.
    /// Data on the SYN is not taken: the client sends it again.
    #[must_use]
    pub fn accept(
        now: Instant,
        syn: &Segment<'_>,
        promise: &Promise,
        limits: &Limits,
        isn: SeqNumber,
        timestamp_offset: u32,
    ) -> Binding {
        let client = client_leg(syn, promise);
        let unit = 1 << client.our_shift;
        Binding {
            phase: Phase::Handshake,
            limits: *limits,
            promise: *promise,
            up: Half::new(syn.seq.advanced(1), 0, limits.buffer, unit),
            down: Half::new(isn.advanced(1), 0, 0, 1),
            client,
            server: Leg::default(),
            isn,
            timestamp_offset,
            timestamp_delta: timestamp_offset,
            retry: Retry::start(now),
            deadline: now + limits.handshake_timeout,
            hold: false,
            server_room: 0,
            established: false,
            connected: false,
            ending: End::Closed,
            pending: None,
        }
    }

    /// The connection is over or spliced, and the binding is kept for [`Binding::accept_again`]: with buffers of at most
    /// 2 KiB per direction.
    pub fn retire(&mut self) {
        self.up.data.clear();
        self.down.data.clear();
    }

    /// [`Binding::accept`] in the place of a binding that is over, with its memory: nothing is allocated, and small buffers
    /// are used again.
    pub fn accept_again(
        &mut self,
        now: Instant,
        syn: &Segment<'_>,
        new_promise: &Promise,
        new_limits: &Limits,
        new_isn: SeqNumber,
        offset: u32,
    ) {
        let Binding {
            phase,
            limits,
            promise,
            client,
            server,
            up,
            down,
            isn,
            timestamp_offset,
            timestamp_delta,
            retry,
            deadline,
            hold,
            server_room,
            established,
            ending,
            connected,
            pending,
        } = self;
        *client = client_leg(syn, new_promise);
        *server = Leg::default();
        up.begin(syn.seq.advanced(1), 0, new_limits.buffer, 1 << client.our_shift);
        down.begin(new_isn.advanced(1), 0, 0, 1);
        (*limits, *promise, *isn) = (*new_limits, *new_promise, new_isn);
        (*timestamp_offset, *timestamp_delta) = (offset, offset);
        (*retry, *deadline) = (Retry::start(now), now + new_limits.handshake_timeout);
        (*hold, *established, *connected, *server_room) = (false, false, false, 0);
        (*phase, *ending, *pending) = (Phase::Handshake, End::Closed, None);
    }

    /// A segment of the client in SYN-RECEIVED (RFC 9293, 3.10.7.4).
    pub(super) fn handle_handshake(&mut self, now: Instant, segment: &Segment<'_>) -> Event {
        let syn = segment.flags.contains(Flags::SYN) && !segment.flags.intersects(Flags::ACK | Flags::RST);
        if syn && segment.seq.advanced(1) == self.up.first {
            self.retry.due = true;
            return Event::Consumed;
        }
        let plain = !segment.flags.intersects(Flags::RST | Flags::SYN);
        if plain && segment.flags.contains(Flags::ACK) && segment.ack != self.down.first {
            self.client.reset_for(segment);
            return Event::Rejected;
        }
        if let Err(event) = self.check(Side::Client, segment) {
            return event;
        }
        self.phase = Phase::Waiting;
        self.established = true;
        self.retry.due = false;
        self.deadline = now + self.limits.first_payload_timeout;
        self.client.update_window(segment);
        match self.take_payload(now, Side::Client, segment) {
            Event::Consumed | Event::Rejected => Event::Established,
            event => event,
        }
    }

    /// FIN of the client before the decision: it is answered with FIN, which is repeated like any other.
    pub(super) fn client_closed(&mut self, now: Instant) -> Event {
        self.ending = End::ClientClosed;
        self.start_closing(now);
        Event::Consumed
    }
}

fn client_leg(syn: &Segment<'_>, promise: &Promise) -> Leg {
    let timestamps = syn.options.timestamps.filter(|_| promise.timestamps);
    let scales = syn.options.window_scale.zip(promise.window_scale);
    let (their_shift, our_shift) = scales.unwrap_or_default();
    let clock = timestamps.map_or(0, |timestamps| timestamps.value);
    let window = u32::from(syn.window);
    Leg {
        mss: syn.options.mss.unwrap_or(DEFAULT_MSS).max(MIN_MSS),
        timestamps: timestamps.is_some(),
        sack: syn.options.sack_permitted && promise.sack,
        scaled: scales.is_some(),
        their_shift: their_shift.min(MAX_WINDOW_SCALE),
        our_shift: our_shift.min(MAX_WINDOW_SCALE),
        window,
        largest_window: window,
        window_seq: syn.seq,
        recent: clock,
        newest: clock,
        ..Leg::default()
    }
}
